//! [`Input`]: everything that can happen to the engine, as one closed list. Read this file first
//! and change it last.

use super::action::Origin;
use bytes::Bytes;
use core::net::SocketAddr;
use protocol::bodies::{
    ErrorBody, ExecExited, ExecFailed, ExecListed, ExecOutput, ExecStarted, ExecWelcome, Login,
    WorkerLogin,
};
use protocol::decode::WireError;
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::{HostName, TokenName};
use protocol::peer_group::{PeerGroup, canonical};
use protocol::proof::{Challenge, Proof};
use protocol::rights::Rights;
use protocol::time::Wall;
use std::collections::BTreeMap;

/// Where the broker listens, and what it runs on; given once, before anything else.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// Name of this machine (`isdData.host`).
    pub host: String,
    /// Descriptor and port of the worker listener (`isdData.socket`, `isdData.port`).
    pub worker_fd: i32,
    /// See `worker_fd`.
    pub worker_port: u16,
    /// What a worker on another host dials: an address of this machine (`argv[1]`).
    pub worker_host: String,
    /// `unix:PATH` of the worker socket for workers of the built-in execd; `None` = they use TCP.
    pub worker_unix: Option<String>,
    /// What the operator should know about how workers of the built-in execd run.
    pub local_warning: Option<String>,
    /// Descriptor and port of the first TCP client listener (`isdData.req_socket`, `req_port`).
    pub client_fd: i32,
    /// See `client_fd`; 0 = only Unix sockets.
    pub client_port: u16,
    /// Most descriptors this process may have open.
    pub descriptors_max: u64,
    /// Where the built-in execd listens (`unix:PATH`); it becomes the host `localhost`.
    pub execd: Option<String>,
    /// Names this broker to execds, the same after a restart on the same state directory, so that
    /// it finds its workers again.
    pub instance: String,
    /// Shown by `version`.
    pub version: String,
    /// Process id of the broker.
    pub pid: u32,
    /// What the clock on the wall shows; only for showing times.
    pub wall: Wall,
}

/// Who the built-in execd would be if this broker started it now, to be compared with one that was
/// there before.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Digest of what it would enforce on workers.
    pub policy: String,
    /// Digest of which program file it would run.
    pub binary: String,
}

/// Who is at the other end of a connection, as the kernel says it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// `127.0.0.1:40312` or `unix`.
    pub address: String,
    /// The descriptor (column `fd`, command `shutdown`).
    pub fd: i32,
    /// The process at the other end, where the kernel tells it.
    pub pid: Option<u32>,
    /// User id of the process at the other end, where the kernel tells it.
    pub uid: Option<u32>,
    /// Whether that user may use the role operator: the broker's own user or root.
    pub is_owner: bool,
    /// Whether it is on another machine, whose kernel answers for it.
    pub is_remote: bool,
    /// The token that it proved.
    pub token: Option<TokenName>,
    /// Whose attempts its own are counted with: the address by its value.
    pub group: PeerGroup,
}

impl Peer {
    /// Who came over TCP from this address, whose one spelling it gets.
    pub fn tcp(address: SocketAddr, fd: i32) -> Self {
        let group = PeerGroup::of(address.ip());
        let address = canonical(address);
        let is_remote = !address.ip().is_loopback();
        Self { address: address.to_string(), fd, group, is_remote, ..Self::default() }
    }

    /// Who came over a Unix socket.
    pub fn unix(uid: Option<u32>, fd: i32) -> Self {
        Self { address: "unix".to_owned(), fd, uid, group: PeerGroup::User(uid), ..Self::default() }
    }
}

/// A token as the engine knows it: nothing of what proves it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRights {
    /// What it may do.
    pub rights: Rights,
    /// Differs when it was renewed.
    pub stamp: u64,
}

/// The tokens in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// The file they stand in, for messages.
    pub file: String,
    /// By name.
    pub tokens: BTreeMap<TokenName, TokenRights>,
    /// What somebody without a token may do.
    pub anonymous: Rights,
}

/// What came of reading the certificates of `--tls-…`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// What was read and is in use for new connections, a line each.
    pub read: Vec<String>,
    /// What could not be read, and why; what was in use before stays.
    pub failed: Vec<String>,
    /// What the operator should know: one has expired, or will soon.
    pub warnings: Vec<String>,
}

/// Who gets an answer about reading the token file: link and header of the command; `None` =
/// nobody, it was the start or a signal.
pub type Requester = Option<(LinkId, Header)>;

/// What the secret of a worker's login proves: the start that it was made for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// Which start.
    pub run: RunId,
    /// The configuration of the worker that it is of.
    pub digest: u32,
}

/// How a connection ended, from the best to the worst. Every frame that came before the end has
/// been given to the engine already. Of several ends that are noticed the worst holds, in whatever
/// order they are: only of [`Close::Eof`] alone it is sure that all came that the peer had sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Close {
    /// The peer closed in order.
    Eof,
    /// The peer closed in the middle of a frame.
    Torn,
    /// The connection broke.
    Reset,
    /// The peer's machine answered nothing for `silence_ms`, or can't be reached any more.
    TimedOut,
}

/// What an execd reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Its answer to the hello.
    Welcome(ExecWelcome),
    /// A process runs.
    Started(ExecStarted),
    /// A program could not be started.
    Failed(ExecFailed),
    /// A process ended.
    Exited(ExecExited),
    /// A process wrote a line.
    Output(ExecOutput),
    /// Which processes it has.
    Listed(ExecListed),
}

/// Everything that can happen.
#[derive(Clone, Debug)]
pub enum Input {
    /// Time passed: look at what is due. Spurious calls do nothing.
    Deadline,
    /// The clock on the wall was set, or local time is not as far from UTC as before.
    Clock {
        /// What it shows now.
        wall: Wall,
    },
    /// The broker listens.
    Listening(Box<Listening>),
    /// A script of commands from the state directory or `--source`.
    Script {
        /// Who is named in the facts.
        origin: Origin,
        /// The commands, one a line.
        text: String,
    },
    /// A program connected to the client port.
    ClientOpened {
        /// Its link.
        link: LinkId,
        /// Who it is.
        peer: Peer,
    },
    /// A program connected to the worker port.
    WorkerOpened {
        /// Its link.
        link: LinkId,
        /// Who it is.
        peer: Peer,
    },
    /// `Action::Dial` succeeded.
    HostOpened {
        /// Its link.
        link: LinkId,
        /// Which host was dialled.
        host: HostName,
        /// The descriptor.
        fd: i32,
        /// What the execd there must be; `None` = any will do, or this broker started it.
        must: Option<Box<Expected>>,
    },
    /// `Action::Dial` failed.
    HostRefused {
        /// Which host was dialled.
        host: HostName,
        /// What the system said.
        why: String,
    },
    /// A connection ended by itself (not by `Action::Close`).
    Closed {
        /// Its link.
        link: LinkId,
        /// How.
        how: Close,
    },
    /// More than `outbox_bytes_high` bytes wait to be sent to this link.
    Congested {
        /// Its link.
        link: LinkId,
    },
    /// Less than half of that waits now.
    Uncongested {
        /// Its link.
        link: LinkId,
    },
    /// More than `outbox_bytes_max` bytes wait to be sent to this link.
    OutboxFull {
        /// Its link.
        link: LinkId,
        /// How many.
        bytes: u64,
    },
    /// The link took none of the bytes waiting for it for `stall_ms`.
    Stalled {
        /// Its link.
        link: LinkId,
        /// How many wait.
        bytes: u64,
    },
    /// Bytes came that are no frame, or a frame that this side may not send.
    Garbage {
        /// Its link.
        link: LinkId,
        /// What is wrong; without `skip` the link must be closed.
        error: WireError,
    },
    /// The kernel was asked whose process stands at the other end; comes before a login to `op`.
    Known {
        /// Its link.
        link: LinkId,
        /// The user, where the kernel tells it.
        uid: Option<u32>,
        /// See [`Peer::is_owner`].
        is_owner: bool,
    },
    /// A client logs in.
    Login {
        /// Its link.
        link: LinkId,
        /// What it says.
        login: Box<Login>,
    },
    /// A client or worker answers a challenge.
    Proof {
        /// Its link.
        link: LinkId,
        /// What it says.
        proof: Box<Proof>,
    },
    /// `Action::Verify` is done: the signature that proves the broker, or why the proof is none.
    Proven {
        /// Whose proof.
        link: LinkId,
        /// For the log, not for the peer: which of the reasons it is.
        proven: Result<String, String>,
    },
    /// An execd wants the host's token proved.
    Challenged {
        /// Its link.
        link: LinkId,
        /// What it asks.
        challenge: Box<Challenge>,
    },
    /// The host's token can't be proved to an execd, or the execd has not proved that it knows it.
    Unproven {
        /// Its link.
        link: LinkId,
        /// Why.
        why: String,
    },
    /// The token file was read, or not: then those in force stay.
    TokensRead {
        /// Who wants to know.
        requester: Requester,
        /// What stands in it, or why it can't be read.
        tokens: Result<Box<Tokens>, String>,
    },
    /// The certificates were read, at the start or by `Action::ReadTokens`.
    CertificatesRead {
        /// Who wants to know.
        requester: Requester,
        /// What was read.
        found: Certificates,
        /// `TokensRead` follows, and answers for both.
        more: bool,
    },
    /// A client or worker says goodbye.
    Logout {
        /// Its link.
        link: LinkId,
    },
    /// A client's data frame.
    Request {
        /// Its link.
        link: LinkId,
        /// The header as it came.
        head: Header,
        /// The body.
        body: Bytes,
    },
    /// A worker logs in.
    WorkerLogin {
        /// Its link.
        link: LinkId,
        /// What it says.
        login: Box<WorkerLogin>,
        /// The start its secret proves; `None` = the secret is empty or proves nothing.
        proof: Option<Start>,
    },
    /// A worker's data frame.
    Reply {
        /// Its link.
        link: LinkId,
        /// The header as it came.
        head: Header,
        /// The body.
        body: Bytes,
    },
    /// A worker's answer to a status frame.
    StatusReply {
        /// Its link.
        link: LinkId,
        /// The status frame's.
        sequence: u32,
        /// What it says.
        text: String,
    },
    /// A report of an execd.
    Report {
        /// Its link.
        link: LinkId,
        /// What it reports.
        report: Box<Report>,
    },
    /// The peer sent an error.
    PeerError {
        /// Its link.
        link: LinkId,
        /// The worker that it is about; 0 = it is about the connection.
        worker: WorkerId,
        /// The start of that worker; 0 = not said.
        run: RunId,
        /// What it says.
        error: ErrorBody,
    },
    /// Are you there?
    Ping {
        /// Its link.
        link: LinkId,
        /// Goes back in the pong.
        sequence: u32,
    },
    /// I am.
    Pong {
        /// Its link.
        link: LinkId,
    },
    /// Bytes of a frame came that is not whole yet: whoever sends it can say nothing else before.
    Heard {
        /// From which link.
        link: LinkId,
    },
    /// The file of `Action::Source` was read, or not.
    Sourced {
        /// The operator's link.
        link: LinkId,
        /// The header of the operator's command.
        head: Header,
        /// The file.
        path: String,
        /// Its text, or why it can't be read.
        script: Result<String, String>,
    },
    /// `Action::Persist` failed, with the path and what the system said; comes at every failure.
    PersistFailed {
        /// Which file and why.
        why: String,
    },
    /// After a failure, `Action::Persist` succeeded.
    Persisted,
    /// The process was asked to end (TERM, INT), in order.
    Terminate {
        /// Name of the signal.
        signal: &'static str,
    },
}
