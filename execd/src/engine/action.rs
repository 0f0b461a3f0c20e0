//! Action: everything execd can do, a closed list, and Note: everything worth a line in the log.
//! Not how it is done: `os` knows.

use super::child::ChildId;
use protocol::bodies::{Ending, ExecStart};
use protocol::frame::Frame;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::HostName;
use protocol::proof::{Claim, Proof};
use std::sync::Arc;

/// Something to do, in the order given.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Action {
    /// Queue a frame on a link.
    Send {
        /// Which link.
        link: LinkId,
        /// What.
        frame: Frame,
    },
    /// Close a link after what is queued on it was sent. The engine has forgotten it already.
    Close {
        /// Which link.
        link: LinkId,
    },
    /// Send the challenge to a token; if there can be none, `Proven` says so.
    Challenge {
        /// Which link.
        link: LinkId,
        /// What the broker calls this host.
        host: HostName,
        /// Its claim.
        claim: Claim,
    },
    /// Check the answer to a challenge; `Proven` follows.
    Verify {
        /// Which link.
        link: LinkId,
        /// The answer.
        proof: Proof,
    },
    /// Start a program; answered by `Forked` and then `Spawned`, or by `SpawnFailed`.
    Spawn {
        /// The child's name from now on.
        child: ChildId,
        /// For which broker.
        broker: Arc<str>,
        /// What to start.
        start: ExecStart,
    },
    /// End the process of a child whose program does not run yet; `SpawnFailed` follows when it has
    /// ended, or `Spawned` if its program has begun to run after all.
    GiveUp {
        /// Which child.
        child: ChildId,
    },
    /// Watch a process that an earlier execd started.
    Adopt {
        /// The child's name from now on.
        child: ChildId,
        /// Its process id.
        pid: u32,
    },
    /// Send a signal to a child that was not reported as exited.
    Signal {
        /// Which child.
        child: ChildId,
        /// The signal's number.
        signal: Signal,
    },
    /// Drop everything kept for a child: its streams, its line in the state directory.
    Forget {
        /// Which child.
        child: ChildId,
    },
    /// Log something.
    Note(Note),
    /// Flush what is queued and end with status 0. Nothing follows.
    Exit,
    /// The same, but the processes are left for the next execd of the state directory.
    HandOver,
}

/// A signal and whom it is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Signal {
    /// TERM to the whole group.
    TermGroup,
    /// KILL to the whole group.
    KillGroup,
    /// A signal of the broker's choice to the process alone.
    Process(i32),
}

/// Something worth a line in the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Note {
    /// A broker said hello.
    BrokerUp {
        /// Its link.
        link: LinkId,
        /// Its name.
        broker: Arc<str>,
        /// What it calls this host.
        host: String,
        /// How many of its children are here.
        children: usize,
    },
    /// A broker's link is gone; its children go on.
    BrokerGone {
        /// Its name.
        broker: Arc<str>,
        /// Why.
        why: &'static str,
        /// It had said that it shuts down.
        in_order: bool,
        /// How many of its children are here.
        children: usize,
    },
    /// A connection was refused or closed for what came on it.
    Refused {
        /// Its link.
        link: LinkId,
        /// What it was told.
        text: String,
    },
    /// The broker sent an error.
    PeerError {
        /// Its name.
        broker: Arc<str>,
        /// What it said.
        text: String,
    },
    /// A program runs.
    Started {
        /// For whom.
        who: Who,
        /// Its process id.
        pid: u32,
    },
    /// A program can't be started.
    Failed {
        /// For whom.
        who: Who,
        /// Why.
        text: String,
    },
    /// A process of an earlier execd is watched again.
    Adopted {
        /// For whom.
        who: Who,
        /// Its process id.
        pid: u32,
    },
    /// A process is being ended.
    Stopping {
        /// For whom.
        who: Who,
        /// Its process id.
        pid: u32,
        /// Whether the KILL was sent, else the TERM.
        kill: bool,
    },
    /// A process ended.
    Exited {
        /// For whom.
        who: Who,
        /// Its process id.
        pid: u32,
        /// How.
        ending: Ending,
    },
    /// A report was dropped because its broker stayed away and too many were kept.
    ReportDropped {
        /// The broker.
        broker: Arc<str>,
    },
    /// execd ends all its children and then itself.
    ShuttingDown {
        /// Why.
        why: &'static str,
        /// How many children are to be ended.
        children: usize,
    },
}

/// For whom a process runs, for the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Who {
    /// For which broker.
    pub broker: Arc<str>,
    /// For which worker.
    pub worker: WorkerId,
    /// Which start of it.
    pub run: RunId,
}
