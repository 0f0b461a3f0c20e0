//! [`Action`]: everything that the engine can ask of the reactor, as one closed list. The reactor
//! carries actions out in their order and decides nothing; what it gives in return is an `Input`.
//! An action of a link that is gone does nothing.

use super::counted::counted;
use super::fact::Fact;
use crate::engine::origin::{Origin, Requester};
use protocol::{
    Challenge, Claim, ExecStart, Format, Frame, Header, HostName, LinkId, OpReply, Proof, Role,
    ServiceName,
};
use std::fmt;

/// How the process of the broker is to end.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BrokerExit {
    /// In order, with this exit status.
    Exit(u8),
    /// By `abort()`, with a core file and without cleaning up.
    Abort,
}

/// What became of the commands of a script. Those that only showed something are not counted.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Summary {
    /// How many did something.
    pub done: usize,
    /// How many found everything as they say.
    pub unchanged: usize,
    /// How many were answered with an error.
    pub failed: usize,
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { done, unchanged, failed } = *self;
        write!(f, "{} done, {unchanged} unchanged, {failed} failed", counted(done, "command"))
    }
}

/// An action of the engine. Each comment names the input that answers it; where it names none,
/// none comes. What is owed when is said at `Engine::step`.
#[derive(Clone, Debug)]
pub enum Action {
    /// Puts a frame into the outbox of a link. No input confirms it.
    Send {
        /// The link of the receiver.
        link: LinkId,
        /// The frame; the reactor encodes it for the role of the receiver.
        frame: Frame,
    },
    /// Sends an operator the answer to a command; the reactor formats it. No input confirms it.
    Answer {
        /// The operator's link.
        link: LinkId,
        /// `sequence`, `transaction` and `more` of the reply.
        head: Header,
        /// The answer as tables, lines and values.
        reply: Box<OpReply>,
        /// Text or JSON, as the operator chose at the login.
        format: Format,
    },
    /// Makes a challenge for a token and sends it. `Input::Proof` follows when the peer answers,
    /// which it need not; `Input::Proven` with an error, if no challenge can be made.
    Challenge {
        /// The link that logs in.
        link: LinkId,
        /// The role in which it logs in: client or worker.
        role: Role,
        /// The service to which it logs in. The proof is bound to role, service and connection.
        target: ServiceName,
        /// The token that the login names, and its nonce.
        claim: Claim,
    },
    /// Checks a proof against the challenge that was sent; `Input::Proven` answers.
    Verify {
        /// The link that was challenged.
        link: LinkId,
        /// The proof as it came.
        proof: Box<Proof>,
    },
    /// Looks up the token that is to be proved to a host's execd, and makes a claim of it.
    /// `Input::Claimed` answers; `Input::Unproven`, if the token can't be read.
    Claim {
        /// The link of the execd. It gets no second `Claim`.
        link: LinkId,
        /// The host that the claim is for; the proof is bound to its name.
        host: HostName,
    },
    /// Answers an execd's challenge with a proof of the token that was claimed on the link; the
    /// reactor sends the proof. `Input::Unproven` follows if it can't be made; else the execd
    /// answers, with `Report::Welcome` or an error. A link gets one `Prove`, after an
    /// `Input::Claimed` with a claim.
    Prove {
        /// The link of the execd.
        link: LinkId,
        /// The challenge of `Input::Challenged`.
        challenge: Box<Challenge>,
    },
    /// Reads the certificates and the token file again, as far as they are configured.
    /// `Input::CertificatesRead` or `Input::TokensRead` follows, or both: the field `more` of the
    /// first one says so.
    ReadTokens {
        /// Goes back in these inputs.
        requester: Requester,
    },
    /// Sends an `exec-start` frame, so that a host starts a program. The execd answers with
    /// `Report::Started` or `Report::Failed` in `Input::Report`, unless the link is lost.
    Start {
        /// The link of the execd.
        link: LinkId,
        /// The program; its `secret` is empty, and the reactor fills it in.
        start: Box<ExecStart>,
        /// It gets one: it is a worker, which logs in with it.
        has_secret: bool,
    },
    /// Closes a connection once its outbox is sent, at the latest after `stall_ms`. It is the end
    /// of the link: no further input of it comes, not even `Input::Closed`.
    Close {
        /// The link to close.
        link: LinkId,
    },
    /// Shuts a connection for writing once its outbox is sent, and goes on reading. `Input::Closed`
    /// follows when the peer closes.
    ShutWrite {
        /// The link to shut.
        link: LinkId,
    },
    /// Takes the end of what a client sends for no end of the connection: `Input::HalfClosed`
    /// follows then in place of `Input::Closed`.
    AllowHalfClose {
        /// The link of the client.
        link: LinkId,
    },
    /// Stops reading from a connection, until `ResumeReading`. Frames received already are kept,
    /// and an orderly end behind them. A connection that broke is read to its end all the same.
    StopReading {
        /// The link to read no further.
        link: LinkId,
    },
    /// Goes on reading from a connection after `StopReading`.
    ResumeReading {
        /// The link to read again.
        link: LinkId,
    },
    /// Connects to the execd of a host. `Input::HostOpened` or `Input::HostRefused` answers.
    Dial {
        /// Goes back in these inputs. One dial of a host is under way at most.
        host: HostName,
        /// `HOST:PORT`, `tls://HOST:PORT` or `unix:PATH`.
        address: String,
    },
    /// The configuration changed: adds the changes to those in the state directory and brings them
    /// to the disk. `Input::Stored` answers. If several wait, one write may answer them all, by the
    /// highest number.
    Store {
        /// Goes back in the input; each is higher than the one before.
        number: u64,
        /// One command a line. A second engine that is given the lines of every `Store` in order,
        /// stored or not, has the same configuration. Empty = what could not be stored before is to
        /// be tried again.
        lines: String,
    },
    /// Reads a file of commands for an operator; `Input::Sourced` answers.
    Source {
        /// The operator's link.
        link: LinkId,
        /// The header of the command, which goes back in the input.
        head: Header,
        /// The path as the operator wrote it.
        path: String,
    },
    /// Writes a fact to the log. Operators who watch got it by `Answer` already.
    Record(Box<Fact>),
    /// Answers `Input::Script`. At the start the reactor ends the broker if a file failed, and
    /// keeps a copy of a saved configuration that failed.
    ScriptDone {
        /// As in `Input::Script`.
        origin: Origin,
        /// What became of its commands.
        summary: Summary,
        /// One text for each that failed, with the number of its line.
        failures: Vec<String>,
    },
    /// Ends the process. In order means: once the outboxes are sent and the peers have closed, at
    /// the latest after a second.
    End(BrokerExit),
}
