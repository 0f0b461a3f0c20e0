//! What can go wrong in `isdclient`, and the exit status of each case. `output` prints the texts.

use client::error::{Code, Error};
use protocol::errors::ErrorCode;
use std::io;
use std::process::ExitCode;

/// The exit status of the program (product contract).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// Everything was carried out.
    Done = 0,
    /// The broker or the worker answered with an error.
    Failed = 1,
    /// The command line or the input is not valid.
    Usage = 2,
    /// No connection was made, or it was lost.
    NoConnection = 3,
    /// No answer came in time.
    Timeout = 4,
}

impl From<Status> for ExitCode {
    fn from(status: Status) -> Self {
        Self::from(status as u8)
    }
}

/// Why something was not carried out.
#[derive(Debug)]
pub enum Failure {
    /// An error of the broker, the worker or the connection, from the library.
    Asked(Error),
    /// Standard input is not valid; the text says why.
    Usage(String),
    /// Standard input can't be read.
    Input(io::Error),
    /// Standard output can't be written.
    Output(io::Error),
    /// A person pressed Ctrl-C.
    Interrupted,
}

impl Failure {
    /// The exit status for this failure.
    pub fn status(&self) -> Status {
        match self {
            Self::Asked(error) => of_error(error),
            Self::Usage(_) => Status::Usage,
            Self::Input(_) => Status::Failed,
            // Whoever read our output has closed it and wants no more; that is not a failure.
            Self::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => Status::Done,
            Self::Output(_) => Status::Failed,
            Self::Interrupted => Status::Failed,
        }
    }

    /// Whether the run can't go on with the next command.
    pub fn is_final(&self) -> bool {
        match self {
            Self::Asked(error) => error.is_connection() || closes(error),
            Self::Usage(_) | Self::Interrupted => false,
            Self::Input(_) | Self::Output(_) => true,
        }
    }
}

fn closes(error: &Error) -> bool {
    match error.code {
        Code::Isect(code) => code.row().closes,
        Code::Application(_) | Code::Newer(_) => false,
    }
}

fn of_error(error: &Error) -> Status {
    match error.code {
        Code::Isect(ErrorCode::Unreachable | ErrorCode::BrokerLost | ErrorCode::Tls) => {
            Status::NoConnection
        }
        // With `--timeout`, which is also sent as the deadline, the broker's error usually comes
        // first.
        Code::Isect(ErrorCode::Timeout | ErrorCode::Deadline) => Status::Timeout,
        Code::Isect(_) | Code::Application(_) | Code::Newer(_) => Status::Failed,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_failure_has_its_status() {
        let asked = |code| Failure::Asked(Error::new(code, "")).status();
        assert_eq!(asked(ErrorCode::Unreachable), Status::NoConnection);
        assert_eq!(asked(ErrorCode::BrokerLost), Status::NoConnection);
        assert_eq!(asked(ErrorCode::Tls), Status::NoConnection);
        assert_eq!(asked(ErrorCode::Timeout), Status::Timeout);
        assert_eq!(asked(ErrorCode::Deadline), Status::Timeout);
        assert_eq!(asked(ErrorCode::Usage), Status::Failed);
        assert_eq!(asked(ErrorCode::UnknownService), Status::Failed);
        assert_eq!(Failure::Asked(Error::application(7, "")).status(), Status::Failed);
        assert_eq!(Failure::Usage(String::new()).status(), Status::Usage);
        let broken = Failure::Output(io::ErrorKind::BrokenPipe.into());
        assert_eq!((broken.status(), broken.is_final()), (Status::Done, true));
        assert_eq!(Failure::Output(io::ErrorKind::StorageFull.into()).status(), Status::Failed);
        assert!(!Failure::Asked(Error::new(ErrorCode::Usage, "")).is_final());
        assert!(Failure::Asked(Error::new(ErrorCode::ShuttingDown, "")).is_final());
    }
}
