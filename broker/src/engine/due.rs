//! Everything but the deadlines of transactions that happens because time passed: few entries, each
//! with its reason. An entry may be stale (its worker gone, its run over); whoever handles it
//! checks.

use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::HostName;
use protocol::time::{Micros, Tick};
use std::collections::BTreeSet;

/// Why something is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Due {
    /// When to close a connection that has not logged in.
    Login(LinkId),
    /// When to check a proof that had to wait for its turn.
    Proof(LinkId),
    /// When to kill a started worker that has not shown its badge.
    Badge(WorkerId, RunId),
    /// When to end the process of a worker whose connection broke and that did not come back.
    Return(WorkerId, RunId),
    /// When to take a worker for ended that its execd did not list.
    Absent(WorkerId, RunId),
    /// When to send TERM to a worker that was asked to end.
    StopAsk(WorkerId, RunId),
    /// When to start a worker again whose run ended.
    Restart(WorkerId, RunId),
    /// When to look whether a worker is busy too long with one request (`kill_after_ms`).
    Overlong(WorkerId),
    /// When to say how many facts were left out.
    LeftOut,
    /// When to try to reach a host again.
    Dial(HostName),
    /// When to ping who was silent.
    Heartbeat,
    /// When to answer `send … status` with what has come.
    StatusAnswer(u64),
    /// When to try again to write the configuration.
    Persist,
    /// When to make the next part of a long listing.
    Listing,
    /// When to end, though some host has not said that its processes are gone.
    End,
}

/// What is due, in order of time.
#[derive(Debug, Default)]
pub(crate) struct DueList {
    entries: BTreeSet<(Tick, Due)>,
}

impl DueList {
    /// Adds an entry.
    pub(crate) fn add(&mut self, at: Tick, due: Due) {
        self.entries.insert((at, due));
    }

    /// Puts off what others are to do: they had no chance to for this long.
    pub(crate) fn put_off(&mut self, late: Micros) {
        let own = |due: &Due| matches!(due, Due::Heartbeat | Due::Persist | Due::Listing);
        let put_off = |(at, due)| if own(&due) { (at, due) } else { (at + late, due) };
        self.entries = std::mem::take(&mut self.entries).into_iter().map(put_off).collect();
    }

    /// The first moment at which something is due.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes out the first entry if it is due at `now`.
    pub(crate) fn take(&mut self, now: Tick) -> Option<Due> {
        if self.next()? > now {
            return None;
        }
        self.entries.pop_first().map(|(_, due)| due)
    }
}
