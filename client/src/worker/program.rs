//! What a worker's `main` needs besides the worker: its own arguments, and an end with a reason.

use super::{ISDARGMAX, Worker};
use crate::error::Error;
use protocol::errors::ErrorCode;
use std::process::ExitCode;

/// The application's own arguments of this program, those from `argv[ISDARGMAX]` on.
pub fn own_args() -> Vec<String> {
    std::env::args_os().skip(ISDARGMAX).map(|arg| arg.to_string_lossy().into_owned()).collect()
}

/// The whole `main` of a worker's program: connects as its arguments say, lets `serve` work, and
/// says on stderr why it ended. Status 0 = asked to end, 1 = failed, 2 = not started as a worker;
/// then the usage is shown.
#[expect(
    clippy::print_stderr,
    reason = "the stderr of a worker's program is the operator's to read"
)]
pub fn run(usage: &str, serve: impl FnOnce(&mut Worker) -> Result<(), Error>) -> ExitCode {
    let done = Worker::connect_from_args().and_then(|mut worker| serve(&mut worker));
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) if error.is(ErrorCode::Usage) => {
            eprintln!("{}\n{usage}", error.text);
            ExitCode::from(2)
        }
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}
