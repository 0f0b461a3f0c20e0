//! A frame by value: one variant a kind, so that a frame that makes no sense can't be built.
//! Not the bytes: `encode` and `decode` know those.

use crate::bodies::{
    ErrorBody, ExecEnd, ExecExited, ExecFailed, ExecHello, ExecListed, ExecOutput, ExecSignal,
    ExecStart, ExecStarted, ExecStop, ExecWelcome, Login, LoginOk, WorkerLogin, WorkerLoginOk,
};
use crate::header::Header;
use crate::kinds::Kind;
use crate::proof::{Challenge, Proof};
use bytes::Bytes;

/// One message on the wire. The header's `len`, `command` and `version` are set by `encode`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    /// A request, a reply, or a piece of one.
    Data {
        /// Everything but `len`, `command` and `version`.
        head: Header,
        /// The application's bytes.
        body: Bytes,
    },
    /// First frame of a client.
    Login(Login),
    /// The broker's answer to it.
    LoginOk(LoginOk),
    /// First frame of a worker.
    WorkerLogin(WorkerLogin),
    /// The broker's answer to it.
    WorkerLoginOk(WorkerLoginOk),
    /// Something failed: one request (`head.sequence` says which) or the connection.
    Error {
        /// `sequence`, `transaction` and `workerid` of what failed, else zero.
        head: Header,
        /// What failed.
        error: ErrorBody,
    },
    /// Are you there?
    Ping {
        /// Comes back in the pong.
        sequence: u32,
    },
    /// Yes.
    Pong {
        /// The ping's.
        sequence: u32,
    },
    /// An orderly goodbye.
    Logout,
    /// To a worker: finish and exit.
    End,
    /// To a worker: read your configuration again.
    Reinit,
    /// To a worker: tell how you are.
    Status {
        /// Comes back in the status reply.
        sequence: u32,
    },
    /// A worker's answer to status.
    StatusReply {
        /// The status frame's.
        sequence: u32,
        /// Free text.
        text: String,
    },
    /// Prove that you know the token you named.
    Challenge(Challenge),
    /// Here is the proof.
    Proof(Proof),
    /// First frame of the broker to an execd.
    ExecHello(ExecHello),
    /// execd's answer to it.
    ExecWelcome(ExecWelcome),
    /// Start a program.
    ExecStart(ExecStart),
    /// End a process.
    ExecStop(ExecStop),
    /// Send a signal.
    ExecSignal(ExecSignal),
    /// Which processes are there?
    ExecList,
    /// These.
    ExecListed(ExecListed),
    /// The process runs.
    ExecStarted(ExecStarted),
    /// It could not be started.
    ExecFailed(ExecFailed),
    /// It ended.
    ExecExited(ExecExited),
    /// It wrote a line.
    ExecOutput(ExecOutput),
    /// The broker shuts down in order.
    ExecEnd(ExecEnd),
}

impl Frame {
    /// The frame's kind.
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

    /// A data frame.
    pub const fn data(head: Header, body: Bytes) -> Self {
        Self::Data { head, body }
    }

    /// An error about the connection as a whole.
    pub fn refusal(error: ErrorBody) -> Self {
        Self::Error { head: Header::default(), error }
    }
}
