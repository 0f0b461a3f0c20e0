//! A frame by value. Each kind has its own variant, so that a frame that makes no sense can't be
//! built. `encode` and `decode` turn frames into bytes and back.

use crate::bodies::{
    ErrorBody, ExecEnd, ExecExited, ExecFailed, ExecHello, ExecListed, ExecOutput, ExecSignal,
    ExecStart, ExecStarted, ExecStop, ExecWelcome, Login, LoginOk, WorkerLogin, WorkerLoginOk,
};
use crate::header::Header;
use crate::kinds::Kind;
use crate::proof::{Challenge, Proof};
use bytes::Bytes;

/// One message on the wire. `encode` sets the header's `len`, `command` and `version`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A request, a reply, or a piece of one.
    Data {
        /// All fields except `len`, `command` and `version`, which `encode` sets.
        head: Header,
        /// The application's bytes; isect does not look at them.
        body: Bytes,
    },
    /// The first frame of a client.
    Login(Login),
    /// The broker's answer to a `login`.
    LoginOk(LoginOk),
    /// The first frame of a worker.
    WorkerLogin(WorkerLogin),
    /// The broker's answer to a `worker-login`.
    WorkerLoginOk(WorkerLoginOk),
    /// A request failed (`head.sequence` says which), or the connection did.
    Error {
        /// The `sequence`, `transaction` and `workerid` of what failed; each is 0 if not known.
        head: Header,
        /// The error, whether the work ran, and the text.
        error: ErrorBody,
    },
    /// Asks the other side for a pong.
    Ping {
        /// Any number; the pong repeats it.
        sequence: u32,
    },
    /// Answers a ping.
    Pong {
        /// The number of the ping.
        sequence: u32,
    },
    /// The sender closes the connection in order.
    Logout,
    /// The broker asks a worker to finish and exit.
    End,
    /// The broker asks a worker to read its configuration again.
    Reinit,
    /// The broker asks a worker for its state.
    Status {
        /// Any number; the status reply repeats it.
        sequence: u32,
    },
    /// A worker's answer to `status`.
    StatusReply {
        /// The number of the status frame.
        sequence: u32,
        /// Free text of the worker, shown to the operator.
        text: String,
    },
    /// The broker or execd asks the other side to prove the token that it named.
    Challenge(Challenge),
    /// The answer to a challenge.
    Proof(Proof),
    /// The first frame of the broker to an execd.
    ExecHello(ExecHello),
    /// execd's answer to an `exec-hello`.
    ExecWelcome(ExecWelcome),
    /// The broker asks execd to start a program.
    ExecStart(ExecStart),
    /// The broker asks execd to end a process.
    ExecStop(ExecStop),
    /// The broker asks execd to send a signal.
    ExecSignal(ExecSignal),
    /// The broker asks execd which processes it has.
    ExecList,
    /// execd's answer to `exec-list`.
    ExecListed(ExecListed),
    /// execd reports that a process runs.
    ExecStarted(ExecStarted),
    /// execd reports that a program could not be started.
    ExecFailed(ExecFailed),
    /// execd reports that a process ended.
    ExecExited(ExecExited),
    /// execd passes on a line that a process wrote.
    ExecOutput(ExecOutput),
    /// The broker shuts down and asks execd to end the broker's processes.
    ExecEnd(ExecEnd),
}

impl Frame {
    /// The kind of this frame, which decides its number on the wire.
    pub const fn kind(&self) -> Kind {
        match self {
            Self::Data { .. } => Kind::Data,
            Self::Login(_) => Kind::Login,
            Self::LoginOk(_) => Kind::LoginOk,
            Self::WorkerLogin(_) => Kind::WorkerLogin,
            Self::WorkerLoginOk(_) => Kind::WorkerLoginOk,
            Self::Error { .. } => Kind::Error,
            Self::Ping { .. } => Kind::Ping,
            Self::Pong { .. } => Kind::Pong,
            Self::Logout => Kind::Logout,
            Self::End => Kind::End,
            Self::Reinit => Kind::Reinit,
            Self::Status { .. } => Kind::Status,
            Self::StatusReply { .. } => Kind::StatusReply,
            Self::Challenge(_) => Kind::Challenge,
            Self::Proof(_) => Kind::Proof,
            Self::ExecHello(_) => Kind::ExecHello,
            Self::ExecWelcome(_) => Kind::ExecWelcome,
            Self::ExecStart(_) => Kind::ExecStart,
            Self::ExecStop(_) => Kind::ExecStop,
            Self::ExecSignal(_) => Kind::ExecSignal,
            Self::ExecList => Kind::ExecList,
            Self::ExecListed(_) => Kind::ExecListed,
            Self::ExecStarted(_) => Kind::ExecStarted,
            Self::ExecFailed(_) => Kind::ExecFailed,
            Self::ExecExited(_) => Kind::ExecExited,
            Self::ExecOutput(_) => Kind::ExecOutput,
            Self::ExecEnd(_) => Kind::ExecEnd,
        }
    }

    /// A data frame with this header and body.
    pub const fn data(head: Header, body: Bytes) -> Self {
        Self::Data { head, body }
    }

    /// An error about the connection as a whole.
    pub fn refusal(error: ErrorBody) -> Self {
        Self::Error { head: Header::default(), error }
    }
}
