//! Action: everything execd can do, a closed list. Note: everything worth a line in the log. `os`
//! carries both out.

use super::child::ChildId;
use protocol::bodies::{ExecRead, Stream};
use protocol::{Claim, ExecStart, ExitCause, Frame, HostName, LinkId, Proof, RunId, WorkerId};
use std::sync::Arc;

/// Something to do. Actions are carried out in the order given.
#[expect(missing_docs, reason = "each variant says what it does; the rest are keys and values")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Queues a frame on a link.
    Send { link: LinkId, frame: Frame },
    /// Closes a link after what is queued on it was sent. The engine has already forgotten the
    /// link.
    Close { link: LinkId },
    /// Sends the challenge to a claim. If no challenge can be made, `Proven` says why.
    Challenge {
        link: LinkId,
        /// The name of this host in the broker's configuration, for the text that is signed.
        host: HostName,
        /// The claim of the broker's hello.
        claim: Claim,
    },
    /// Checks the answer to a challenge; `Proven` follows.
    Verify { link: LinkId, proof: Proof },
    /// Starts a program. `Forked` and then `Spawned` follow, or `SpawnFailed`.
    Spawn {
        /// The id of the child from now on.
        child: ChildId,
        /// The broker that asked for the start.
        broker: Arc<str>,
        /// The request of the broker.
        start: ExecStart,
    },
    /// Ends the process of a child whose program does not run yet. `SpawnFailed` follows when the
    /// process has ended, or `Spawned` if its program did start.
    GiveUp { child: ChildId },
    /// Watches a process that an earlier execd started.
    Adopt {
        /// The id of the child from now on.
        child: ChildId,
        /// Process id, from the state directory.
        pid: u32,
    },
    /// Sends a signal to a child that was not reported as exited.
    Signal { child: ChildId, signal: Signal },
    /// Keeps lines that a child wrote.
    Keep { child: ChildId, lines: KeptText },
    /// Sends the last lines that are kept of a worker, after those that were kept before.
    ReadKept {
        /// The link that gets the answer.
        link: LinkId,
        /// The broker that the worker belongs to.
        broker: Arc<str>,
        /// Which worker, and how many lines.
        read: ExecRead,
    },
    /// Looks how much memory a child has; `Memory` follows, unless it is gone.
    Measure { child: ChildId },
    /// Drops everything kept for a child: its streams and its line in the state directory.
    Forget { child: ChildId },
    /// Writes a line to the log.
    Note(Note),
    /// Sends what is queued and ends execd with status 0. No action follows.
    Exit,
    /// As `Exit`, but the processes stay for the next execd of the state directory.
    HandOver,
}

/// Lines of one stream, in the order in which they were read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptText {
    /// The stream that they came from.
    pub stream: Stream,
    /// The number of the first line; each further one has the next number.
    pub first: u64,
    /// The lines, each with a line end.
    pub text: String,
}

impl KeptText {
    /// No lines yet.
    pub(super) const fn new(stream: Stream, first: u64) -> Self {
        Self { stream, first, text: String::new() }
    }
}

/// A signal and the processes that get it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM to the process group.
    TermGroup,
    /// This signal number, which a start named in place of TERM, to the process group.
    AskGroup(i32),
    /// KILL to the process group.
    KillGroup,
    /// This signal number, chosen by the broker, to the process only.
    Process(i32),
}

/// Something worth a line in the log.
#[expect(missing_docs, reason = "each variant says what happened; the rest are its facts")]
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A broker said hello and was welcomed.
    BrokerUp {
        link: LinkId,
        broker: Arc<str>,
        /// The name of this host in the broker's configuration.
        host: String,
        /// How many children of the broker execd has.
        children: usize,
    },
    /// The link of a broker is gone; its children go on.
    BrokerGone {
        broker: Arc<str>,
        why: &'static str,
        /// Whether the broker had said that it shuts down.
        in_order: bool,
        /// How many children of the broker execd has.
        children: usize,
    },
    /// A connection was refused, or closed because of what came on it.
    Refused {
        link: LinkId,
        /// The error text that the peer was sent.
        text: String,
    },
    /// The broker sent an error.
    PeerError { broker: Arc<str>, text: String },
    /// A program runs.
    Started { who: Who, pid: u32 },
    /// A program can't be started.
    Failed { who: Who, text: String },
    /// A process of an earlier execd is watched again.
    Adopted { who: Who, pid: u32 },
    /// A process is being ended.
    Terminating {
        who: Who,
        pid: u32,
        /// Whether KILL was sent; otherwise the signal that asks it to end.
        kill: bool,
        /// The number of that signal if it is another than TERM.
        stop_signal: Option<i32>,
    },
    /// A process ended.
    Exited { who: Who, pid: u32, exit_cause: ExitCause },
    /// A report was dropped, because its broker was away and too many reports were kept.
    ReportDropped { broker: Arc<str> },
    /// execd ends all its children and then itself.
    ShuttingDown {
        why: &'static str,
        /// How many children are to be ended.
        children: usize,
    },
}

/// The start that a process belongs to, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// The broker that asked for the start.
    pub broker: Arc<str>,
    /// The worker that the process is.
    pub worker: WorkerId,
    /// The start that made the process.
    pub run: RunId,
}
