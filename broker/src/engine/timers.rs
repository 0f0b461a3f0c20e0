//! Everything but the deadlines of transactions that happens because time passed: few entries, each
//! with its reason. An entry may be stale (its worker gone, its run over); whoever handles it
//! checks.

use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::HostName;
use protocol::time::{Micros, Tick};
use std::collections::{BTreeMap, BTreeSet};

/// Why something is due.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Timer {
    /// When to close a connection that has not logged in.
    Login(LinkId),
    /// When to close a host that was dialled and has not said that it serves the broker.
    Greeting(LinkId),
    /// When to check a proof that had to wait for its turn.
    Proof(LinkId),
    /// When to kill a started worker that has not logged in.
    WorkerLogin(WorkerId, RunId),
    /// When to say that a worker has lost its connection, if it has neither ended nor come back.
    Lost(WorkerId, RunId),
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
    /// When to try to reach a host again. By name: it may be deleted meanwhile, and hosts that are
    /// due at the same time are reached in the order of their names.
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
pub(crate) struct Timers {
    entries: BTreeSet<(Tick, Timer)>,
    /// The latest entry for each state of a worker or host that ends by itself, for those who ask
    /// until when it lasts.
    states: BTreeMap<Timer, Tick>,
}

/// Whether it ends a state of a worker or host.
const fn ends_state(due: &Timer) -> bool {
    match due {
        Timer::WorkerLogin(..)
        | Timer::Return(..)
        | Timer::StopAsk(..)
        | Timer::Restart(..)
        | Timer::Dial(_) => true,
        Timer::Login(_)
        | Timer::Greeting(_)
        | Timer::Proof(_)
        | Timer::LeftOut
        | Timer::Lost(..)
        | Timer::Absent(..)
        | Timer::Overlong(_)
        | Timer::Heartbeat
        | Timer::StatusAnswer(_)
        | Timer::Persist
        | Timer::Listing
        | Timer::End => false,
    }
}

impl Timers {
    /// Adds an entry.
    pub(crate) fn add(&mut self, at: Tick, due: Timer) {
        if ends_state(&due) {
            self.states.insert(due.clone(), at);
        }
        self.entries.insert((at, due));
    }

    /// Puts off what others are to do: they had no chance to for this long.
    pub(crate) fn put_off(&mut self, late: Micros) {
        // What the broker itself is to do need not wait for anybody.
        let own = |due: &Timer| {
            matches!(
                due,
                Timer::Heartbeat
                    | Timer::Persist
                    | Timer::Listing
                    | Timer::Dial(_)
                    | Timer::Restart(..)
            )
        };
        let put_off = |(at, due)| if own(&due) { (at, due) } else { (at + late, due) };
        self.entries = std::mem::take(&mut self.entries).into_iter().map(put_off).collect();
        let states = std::mem::take(&mut self.states).into_iter();
        let put_off = |(due, at)| if own(&due) { (due, at) } else { (due, at + late) };
        self.states = states.map(put_off).collect();
    }

    /// Until when the state lasts that this ends.
    pub(crate) fn until(&self, due: &Timer) -> Option<Tick> {
        self.states.get(due).copied()
    }

    /// The first moment at which something is due.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes out the first entry if it is due at `now`.
    pub(crate) fn take(&mut self, now: Tick) -> Option<Timer> {
        if self.next()? > now {
            return None;
        }
        let (at, due) = self.entries.pop_first()?;
        if ends_state(&due) && self.states.get(&due) == Some(&at) {
            self.states.remove(&due);
        }
        Some(due)
    }
}
