//! [`Input`]: everything that can happen to the engine, as one closed list. The reactor makes the
//! inputs and gives them to `Engine::step` one by one; in tests, scripts and the simulation take
//! its place. An input of a link comes only between the `…Opened` of this link and its end.

use crate::engine::builtin::BuiltInProgram;
use crate::engine::origin::{Origin, Requester};
use bytes::Bytes;
use core::net::SocketAddr;
use protocol::bodies::{
    Announce, Beat, ExecExited, ExecFailed, ExecLines, ExecListed, ExecMemory, ExecOutput,
    ExecStarted, ExecWelcome, StateChange, Subscribe, Withdraw,
};
use protocol::peer_group::{canonical, is_this_machine};
use protocol::{
    Challenge, Claim, ErrorBody, Header, HostName, LinkId, Login, PeerGroup, Proof, Rights, RunId,
    ServiceName, TokenName, Wall, WireError, WorkerId, WorkerLogin,
};
use std::collections::BTreeMap;
use std::fmt;

/// Addresses, descriptors and the identity of this broker. The reactor fills it in once, when its
/// listeners are open.
#[derive(Clone, Debug, Default)]
pub struct Listening {
    /// Name of this machine (`isdData.host`).
    pub host: String,
    /// Descriptor of the first TCP worker listener (`isdData.socket`); -1 = workers use Unix
    /// sockets only.
    pub worker_fd: i32,
    /// Port of that listener (`isdData.port`); 0 = there is none.
    pub worker_port: u16,
    /// What a worker on another host dials: an address or name of this machine (`argv[1]`).
    pub worker_host: String,
    /// `unix:PATH` of the worker socket, which workers of the built-in execd dial; `None` = they
    /// run as another user, who may not open it, and use TCP.
    pub worker_unix: Option<String>,
    /// Warning about the user or the rights of workers of the built-in execd, recorded each time
    /// that the host `localhost` comes up; `None` = there is nothing to warn of.
    pub local_warning: Option<String>,
    /// Descriptor of the first TCP client listener (`isdData.req_socket`); -1 = clients use Unix
    /// sockets only.
    pub client_fd: i32,
    /// Port of that listener (`isdData.req_port`); 0 = there is none.
    pub client_port: u16,
    /// Most descriptors this process may have open.
    pub descriptors_max: u64,
    /// Where the built-in execd listens (`unix:PATH`). The engine makes the host `localhost` of it.
    pub execd: Option<String>,
    /// Whether a later broker finds the state directory again; with `--state none` it does not.
    pub is_state_kept: bool,
    /// Names this broker to execds. It is the same after a restart on the same state directory, so
    /// that the broker finds its workers again.
    pub directory_id: String,
    /// Version of isectd, for `version` and for logins.
    pub version: String,
    /// Process id of the broker.
    pub pid: u32,
    /// Wall clock time at this input. The engine decides nothing by it; it only shows times.
    pub wall: Wall,
    /// What was wrong with the saved configuration and was left out; operators are told. `None` =
    /// nothing.
    pub mended: Option<String>,
    /// The built-in services that are on.
    pub builtin: BuiltInProgram,
}

/// What the built-in execd would report if this broker started it now. An execd that outlived an
/// earlier broker is compared with it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Expected {
    /// Digest of the rights, limits and bounds that it would enforce on workers.
    pub policy: String,
    /// Digest of the program file that it would run.
    pub binary: String,
}

/// The program at the other end of a connection, as the kernel reports it, and the token that it
/// proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Peer {
    /// Address and port, as in `127.0.0.1:40312`, or `unix`.
    pub address: String,
    /// Descriptor of the connection in the broker (column `fd`, command `shutdown`).
    pub fd: i32,
    /// Process id, known only on Unix sockets.
    pub pid: Option<u32>,
    /// User id; `None` = the kernel does not tell it. [`Input::Known`] sets it for TCP peers of
    /// this machine.
    pub uid: Option<u32>,
    /// Whether this user may log in to `op` without a token: the broker's own user, or root.
    pub is_owner: bool,
    /// Whether the peer is on another machine, so that it may get out of reach.
    pub is_remote: bool,
    /// The token that the peer has proved; the engine sets it after [`Input::Proven`].
    pub token: Option<TokenName>,
    /// The start of a worker whose secret it proved; the engine sets it. It has the rights of that
    /// start and no others, whoever it is besides.
    pub start: Option<Box<StartRights>>,
    /// The peers whose failed logins are counted together with those of this one.
    pub group: PeerGroup,
}

/// What a client is that proved the secret of a worker's start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StartRights {
    /// The worker.
    pub worker: WorkerId,
    /// The start; when its process has ended, the client is closed.
    pub run: RunId,
    /// The service of the worker, for texts.
    pub service: ServiceName,
    /// What it may do: the setting `rights` of the worker, or of its service.
    pub rights: Rights,
}

impl fmt::Display for StartRights {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "worker {} of {}", self.worker, self.service)
    }
}

impl Peer {
    /// A TCP peer. The address is brought into its canonical form.
    pub fn tcp(address: SocketAddr, fd: i32) -> Self {
        let group = PeerGroup::of(address.ip());
        let address = canonical(address);
        let is_remote = !is_this_machine(address.ip());
        Self { address: address.to_string(), fd, group, is_remote, ..Self::default() }
    }

    /// A peer on a Unix socket of this machine.
    pub fn unix(uid: Option<u32>, fd: i32) -> Self {
        Self { address: "unix".to_owned(), fd, uid, group: PeerGroup::User(uid), ..Self::default() }
    }
}

/// What the engine knows of a token. The secret and its verifier stay in the reactor.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenRights {
    /// The roles of the token.
    pub rights: Rights,
    /// Changes when the token is renewed: then its connections are closed.
    pub stamp: u64,
}

/// The contents of the token file that are in force.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tokens {
    /// Path of the token file, for messages.
    pub file: String,
    /// What a peer that proves the token may do; a name that is missing can't be proved.
    pub tokens: BTreeMap<TokenName, TokenRights>,
    /// Rights of a peer that proves no token and is not the owner.
    pub anonymous: Rights,
}

/// The result of reading the certificates of `--tls-…`, as texts for facts and for the answer to
/// `reload`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Certificates {
    /// One line for each certificate that was read; new connections use it.
    pub read: Vec<String>,
    /// One line for each certificate that could not be read, with the reason; the one that was in
    /// use stays in use.
    pub failed: Vec<String>,
    /// One line for each certificate that has expired, or will soon.
    pub warnings: Vec<String>,
}

/// The start of a worker that the secret of its login proves. The reactor made the secret at
/// [`Action::Start`](super::action::Action::Start).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Start {
    /// The run that the broker gave to this start.
    pub run: RunId,
    /// Digest of the worker's configuration at that start (`Engine::digest`).
    pub digest: u32,
}

/// How a connection ended, from the best to the worst. All frames that were received before the end
/// have been given to the engine already. If several of these are noticed, the worst counts, in
/// whatever order they come; only after [`Close::Eof`] is it certain that everything arrived that
/// the peer had sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Close {
    /// The peer closed after a whole frame.
    Eof,
    /// The peer closed in the middle of a frame.
    Torn,
    /// The connection was reset, or an operation on it failed. The engine also names so what it
    /// closes itself because of a fault.
    Reset,
    /// The peer's machine acknowledged nothing for `silence_ms`, or the kernel found it
    /// unreachable.
    TimedOut,
}

/// What the signature of an execd's welcome says. The reactor has checked it, because it alone
/// knows the token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signature {
    /// The welcome has none.
    Missing,
    /// It does not prove that the execd knows the token that was claimed on the link; or none was
    /// claimed, or none was proved yet.
    Wrong,
    /// It proves that the execd knows the token that was claimed on the link.
    Right,
}

/// A report of an execd, one variant for each frame that it may send.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Report {
    /// Answers the hello: process id, version, policy; and what its signature is worth. The engine
    /// decides whether it needs one.
    Welcome(ExecWelcome, Signature),
    /// A process of a worker runs.
    Started(ExecStarted),
    /// A worker could not be started, for good or for now.
    Failed(ExecFailed),
    /// A process of a worker ended.
    Exited(ExecExited),
    /// A process of a worker wrote a line to stdout or stderr.
    Output(ExecOutput),
    /// Answers `exec-read`: lines that a worker's processes wrote.
    Lines(ExecLines),
    /// A process has more memory than its service allows.
    Memory(ExecMemory),
    /// Answers `exec-list`: the processes that this execd has for this broker.
    Listed(ExecListed),
}

/// An input of the engine. Each comment says when the reactor gives it.
#[derive(Clone, Debug)]
pub enum Input {
    /// When `Engine::next_deadline` has passed. An input that comes too early does nothing.
    Deadline,
    /// When the wall clock was set, the machine slept, or the offset of the local time changed.
    /// Only times that are shown depend on it.
    Clock {
        /// The wall clock's time at this input.
        wall: Wall,
    },
    /// Once, before all other inputs.
    Listening(Box<Listening>),
    /// Once, after `Listening` and the scripts of the start, if the broker is to run: hosts are
    /// dialled from now on. No input of a link comes before it.
    Started,
    /// A script is to be run at the start: the saved configuration, the settings of the command
    /// line that override it, a file of `--source`. `Action::ScriptDone` answers it.
    Script {
        /// The source of the script, named in facts and in the answer.
        origin: Origin,
        /// The commands, one a line.
        text: String,
    },
    /// A connection was accepted at a client listener. A login must follow within `login_ms`, the
    /// TLS handshake included.
    ClientOpened {
        /// The new link.
        link: LinkId,
        /// What the kernel reports of the peer.
        peer: Peer,
    },
    /// A connection was accepted at a worker listener. A worker login must follow within
    /// `login_ms`.
    WorkerOpened {
        /// The new link.
        link: LinkId,
        /// What the kernel reports of the peer.
        peer: Peer,
    },
    /// `Action::Dial` succeeded, the TLS handshake included.
    HostOpened {
        /// The new link.
        link: LinkId,
        /// The host of the `Dial`; it may be deleted or have another address by now.
        host: HostName,
        /// Descriptor of the connection.
        fd: i32,
        /// What the execd must report in its welcome; `None` = it is not the built-in one, or this
        /// broker started it itself.
        must: Option<Box<Expected>>,
    },
    /// `Action::Dial` failed, or had no answer within its time limit.
    HostRefused {
        /// The host of the `Dial`.
        host: HostName,
        /// The error of the system, for the fact and for `hosts`.
        why: String,
    },
    /// A connection ended without `Action::Close`. It is the last input of the link.
    Closed {
        /// The link that ended.
        link: LinkId,
        /// How it ended; it decides whether requests that the peer held may have run.
        how: Close,
    },
    /// More than `outbox_bytes_high` bytes wait to be sent to the link. It comes once, until
    /// `Uncongested`.
    Congested {
        /// The link whose outbox is too long.
        link: LinkId,
    },
    /// After `Congested`, less than half of `outbox_bytes_high` waits for the link, or the
    /// connection broke and its outbox was dropped.
    Uncongested {
        /// The link that was congested.
        link: LinkId,
    },
    /// More than `outbox_bytes_max` bytes wait to be sent to the link, or more than
    /// `outboxes_bytes_max` to all peers and much of it to this one, a client. The engine must
    /// close the link.
    OutboxFull {
        /// The link whose outbox is full.
        link: LinkId,
        /// Bytes that wait in its outbox.
        bytes: u64,
    },
    /// The link accepted no bytes for `stall_ms` although some wait for it. The engine must close
    /// it.
    Stalled {
        /// The link that stalled.
        link: LinkId,
        /// Bytes that wait in its outbox.
        bytes: u64,
    },
    /// The link sent bytes that are no frame, a frame that its role may not send, a body that can't
    /// be decoded, or bytes that TLS refuses.
    Garbage {
        /// The link that sent them; it may not have logged in.
        link: LinkId,
        /// What is wrong. With `skip` only this frame is lost and the link is read on; without, the
        /// reactor reads it no further and the engine must close it.
        error: WireError,
    },
    /// Comes before a login without a token whose rights depend on the user, from a TCP peer: the
    /// kernel was asked whose process is at the other end.
    Known {
        /// The link that logs in next.
        link: LinkId,
        /// Replaces [`Peer::uid`]; `None` = the peer is on another machine, or the kernel does not
        /// tell.
        uid: Option<u32>,
        /// Replaces [`Peer::is_owner`].
        is_owner: bool,
    },
    /// A client's `login` frame.
    Login {
        /// The link of the client.
        link: LinkId,
        /// Service, format, heartbeat and, if it names a token, the claim.
        login: Box<Login>,
    },
    /// A client's `login` frame that shows the secret of a worker's start in place of a token.
    StartLogin {
        /// The link of the client.
        link: LinkId,
        /// The login; its `start` names the worker.
        login: Box<Login>,
        /// The start that the secret proves, already checked; `None` = it is none of this broker.
        proof: Option<Start>,
    },
    /// The `proof` frame of a client or worker, which answers a challenge.
    Proof {
        /// The link that was challenged, or should have been.
        link: LinkId,
        /// The proof, unchecked; `Action::Verify` has it checked.
        proof: Box<Proof>,
    },
    /// `Action::Verify` is done, or `Action::Challenge` could make no challenge.
    Proven {
        /// The link that logs in.
        link: LinkId,
        /// The signature by which the broker proves that it knows the token, too; or the reason why
        /// the proof does not hold. The reason is for the log: the peer is not told which it is.
        proven: Result<String, String>,
    },
    /// `Action::Claim` is done. The engine sends the hello.
    Claimed {
        /// The link of the execd.
        link: LinkId,
        /// The claim for the hello; `None` = no token is configured for the host.
        claim: Option<Claim>,
    },
    /// The `challenge` frame of an execd, which wants the host's token proved.
    Challenged {
        /// The link of the execd.
        link: LinkId,
        /// What the proof must answer; goes back in `Action::Prove`.
        challenge: Box<Challenge>,
    },
    /// After `Action::Claim` or `Action::Prove`: the host's token can't be read or proved. The
    /// engine must close the link.
    Unproven {
        /// The link of the execd.
        link: LinkId,
        /// The reason, for the fact.
        why: String,
    },
    /// The token file was read: at the start, or because `Action::ReadTokens` or SIGHUP asked for
    /// it.
    TokensRead {
        /// As in `Action::ReadTokens`.
        requester: Requester,
        /// The new tokens, or why there are none; then the tokens in force stay.
        tokens: Result<Box<Tokens>, String>,
    },
    /// The certificates were read: at the start, or because `Action::ReadTokens` or SIGHUP asked
    /// for it.
    CertificatesRead {
        /// As in `Action::ReadTokens`.
        requester: Requester,
        /// What was read, what failed, and warnings; in use already.
        found: Certificates,
        /// Whether `TokensRead` follows for the same requester. Then the operator's answer waits
        /// for it.
        more: bool,
    },
    /// The `logout` frame of a client or worker.
    Logout {
        /// The link that logs out.
        link: LinkId,
        /// Of a worker: how many requests it got on this connection; `None` = it does not say.
        received: Option<u32>,
    },
    /// A client that may close its side (`Action::AllowHalfClose`) shut it for writing. It is the
    /// last that it sends; `Closed` follows only if the connection breaks. The engine must close
    /// the link when all is answered.
    HalfClosed {
        /// The link of the client.
        link: LinkId,
    },
    /// The `cancel` frame of a client: it gives up a request.
    Cancel {
        /// The link of the client.
        link: LinkId,
        /// The request, which may have ended.
        sequence: u32,
    },
    /// The `flush` frame of a client.
    Flush {
        /// The link of the client.
        link: LinkId,
        /// Goes back in the answer.
        sequence: u32,
    },
    /// The `subscribe` frame of a client or worker.
    Subscribe {
        /// The link of the subscriber.
        link: LinkId,
        /// Number, pattern, and from where; the pattern may be none.
        subscribe: Box<Subscribe>,
    },
    /// The `unsubscribe` frame of a client or worker.
    Unsubscribe {
        /// The link of the subscriber.
        link: LinkId,
        /// The number that it gave the subscription; there may be none.
        subscription: u32,
    },
    /// The `publish` frame of a client or worker.
    Publish {
        /// The link of the publisher.
        link: LinkId,
        /// The header as received.
        head: Header,
        /// The lines and the payload, unchecked; at most `body_bytes_max` bytes.
        body: Bytes,
    },
    /// The `announce` frame of a client or worker.
    Announce {
        /// The link of the program.
        link: LinkId,
        /// The instance as the program describes it; nothing of it is checked.
        announce: Box<Announce>,
    },
    /// The `state-change` frame of a client or worker.
    StateChange {
        /// The link of the program.
        link: LinkId,
        /// Which instance, and its state; the connection may have none of this id.
        change: Box<StateChange>,
    },
    /// The `beat` frame of a client or worker.
    Beat {
        /// The link of the program.
        link: LinkId,
        /// Its instances, with their checkpoints; the connection may not have them.
        beat: Beat,
    },
    /// The `withdraw` frame of a client or worker.
    Withdraw {
        /// The link of the program.
        link: LinkId,
        /// Which instance, and why; the connection may have none of this id.
        withdraw: Box<Withdraw>,
    },
    /// A `data` frame of a client: a request, or a further piece of one.
    Request {
        /// The link of the client.
        link: LinkId,
        /// The header as received; its `transaction` and `attempt` are not to be trusted.
        head: Header,
        /// The whole body, of at most `body_bytes_max` bytes.
        body: Bytes,
    },
    /// A worker's `worker-login` frame.
    WorkerLogin {
        /// The link of the worker.
        link: LinkId,
        /// Worker id, service, host and process id, as the worker says.
        login: Box<WorkerLogin>,
        /// The start that its secret proves, already checked; `None` = the secret is empty or none
        /// of this broker.
        proof: Option<Start>,
    },
    /// A `data` frame of a worker: a reply, or a piece of one.
    Reply {
        /// The link of the worker.
        link: LinkId,
        /// The header as received; `transaction` says which request it answers.
        head: Header,
        /// The whole body, of at most `body_bytes_max` bytes.
        body: Bytes,
    },
    /// The `status-reply` frame of a worker. It may come although nobody asked.
    StatusReply {
        /// The link of the worker.
        link: LinkId,
        /// The sequence of the status frame that it answers.
        sequence: u32,
        /// The answer; it may have any content and as many bytes as a body.
        text: String,
    },
    /// A frame of an execd about itself or its processes.
    Report {
        /// The link of the execd.
        link: LinkId,
        /// The report; long texts are shortened already.
        report: Box<Report>,
    },
    /// An `error` frame of a client, worker or execd.
    PeerError {
        /// The link that sent it.
        link: LinkId,
        /// The worker that an execd complains of; 0 = the error is about the connection.
        worker: WorkerId,
        /// The run of that worker; 0 = not said.
        run: RunId,
        /// Code and text, as the peer wrote them.
        error: ErrorBody,
    },
    /// A `ping` frame. The engine must answer it with a pong.
    Ping {
        /// The link that pings.
        link: LinkId,
        /// Goes back in the pong.
        sequence: u32,
    },
    /// A `pong` frame: the peer is there.
    Pong {
        /// The link that answers.
        link: LinkId,
    },
    /// Bytes arrived, but no whole frame. A peer in the middle of a long frame can send no pong, so
    /// this counts as a sign of life.
    Heard {
        /// The link that sent them.
        link: LinkId,
    },
    /// The file of `Action::Source` was read, or not.
    Sourced {
        /// The operator's link; closed links get no such input.
        link: LinkId,
        /// The header of the operator's command, for the answer.
        head: Header,
        /// The path as the operator wrote it.
        path: String,
        /// The commands, or why the file can't be read.
        script: Result<String, String>,
    },
    /// The changes of an `Action::Store` were brought to the disk, or not.
    Stored {
        /// The number of the `Action::Store`; those with lower numbers are answered with it.
        number: u64,
        /// The path and the error of the system, if it failed.
        result: Result<(), String>,
    },
    /// A signal asked the process to end in order. It comes for each such signal; after a second
    /// one the reactor ends the broker at once.
    Terminate {
        /// Name of the signal, as in `SIGTERM`.
        signal: &'static str,
    },
}
