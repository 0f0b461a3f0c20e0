//! The timers of the engine, except the deadlines of transactions, which are in `wheel`. An entry
//! may be stale when it is due, because its worker is gone or its run is over; the code that
//! handles it checks.

use protocol::{HostName, LinkId, Micros, RunId, ServiceId, Tick, WorkerId};
use std::collections::{BTreeMap, BTreeSet};

/// A timer: when to do what.
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
    /// When to record that a worker lost its connection, if it has neither ended nor come back.
    Lost(WorkerId, RunId),
    /// When to end the process of a worker whose connection broke and that did not come back.
    Return(WorkerId, RunId),
    /// When to take a process for ended that its execd did not list.
    Unlisted(WorkerId, RunId),
    /// When to send TERM to a worker that was asked to end.
    StopAsk(WorkerId, RunId),
    /// When to start a worker again whose run ended.
    Restart(WorkerId, RunId),
    /// When to check whether a worker is busy for too long with one request (`kill_after_ms`).
    Overlong(WorkerId),
    /// When to wait no longer for a worker of a service that starts itself.
    SelfStart(ServiceId),
    /// When to look how far the workers of a service are that are replaced one after another.
    Rollout(ServiceId),
    /// When to look which workers are to be replaced by new ones (`recycle_requests` …).
    Recycle,
    /// When to go on with the services of a `restart`.
    NextRestart(u64),
    /// When to look whether a service that was started on demand is still used.
    Demand(ServiceId),
    /// When a program counts as ready, if it is still up.
    Stable(WorkerId, RunId),
    /// When to record how many facts were left out.
    LeftOut,
    /// When to dial a host again. It names the host, which may be deleted by then; hosts that are
    /// due at the same tick are dialled in the order of their names.
    Dial(HostName),
    /// When to look for silent links, and ping them.
    Heartbeat,
    /// When to answer the `send … status` with this number with what has come.
    StatusAnswer(u64),
    /// When to answer the `logs` with this number with what has come.
    LogsAnswer(u64),
    /// When to try again to store the configuration.
    Store,
    /// When to answer operators whose changes wait for the `Action::Store` with this number.
    StoreWait(u64),
    /// When to make the next part of a long listing.
    Listing,
    /// When to do the next part of long work.
    Work,
    /// When to go on with messages that are sent part by part, or a value is kept no longer.
    Topics,
    /// When to look which instances are timed out or stalled.
    Instances,
    /// When to take the next step of the shutdown, whatever is still missing.
    End,
}

/// All timers, by tick.
#[derive(Debug, Default)]
pub(crate) struct Timers {
    entries: BTreeSet<(Tick, Timer)>,
    /// For each timer that ends a state of a worker or host: its latest tick, to show until when
    /// the state lasts.
    states: BTreeMap<Timer, Tick>,
}

/// Whether a timer ends a state of a worker or host.
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
        | Timer::Unlisted(..)
        | Timer::Overlong(_)
        | Timer::SelfStart(_)
        | Timer::Rollout(_)
        | Timer::Recycle
        | Timer::NextRestart(_)
        | Timer::Demand(_)
        | Timer::Stable(..)
        | Timer::Heartbeat
        | Timer::StatusAnswer(_)
        | Timer::LogsAnswer(_)
        | Timer::Store
        | Timer::StoreWait(_)
        | Timer::Listing
        | Timer::Work
        | Timer::Topics
        | Timer::Instances
        | Timer::End => false,
    }
}

impl Timers {
    /// Adds a timer. One that was added before stays.
    pub(crate) fn add(&mut self, at: Tick, due: Timer) {
        if ends_state(&due) {
            self.states.insert(due.clone(), at);
        }
        self.entries.insert((at, due));
    }

    /// Puts off the timers for what others are to do, by a time in which they could do nothing.
    pub(crate) fn put_off(&mut self, late: Micros) {
        // What the broker itself is to do need not wait.
        let own = |due: &Timer| {
            matches!(
                due,
                Timer::Heartbeat
                    | Timer::Recycle
                    | Timer::Store
                    | Timer::Listing
                    | Timer::Work
                    | Timer::Topics
                    | Timer::Instances
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

    /// The tick at which the state ends that this timer ends.
    pub(crate) fn until(&self, due: &Timer) -> Option<Tick> {
        self.states.get(due).copied()
    }

    /// The first tick at which something is due.
    pub(crate) fn next(&self) -> Option<Tick> {
        self.entries.first().map(|(at, _)| *at)
    }

    /// Takes out the first timer, if it is due at `now`.
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
