//! A child: one process from the request to start it to the report of its end, as one exhaustive
//! match of state and event. Not who is told: the engine carries out the effects.

use super::output::Output;
use protocol::bodies::Ending;
use protocol::ids::{RunId, WorkerId};
use protocol::time::Tick;
use std::fmt;
use std::sync::Arc;

/// A child as engine and `os` call it; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChildId(pub u64);

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// Where a child stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Asked for; its program does not run yet.
    Starting,
    /// The same, and its process is being ended; if its program runs after all, it is stopped.
    StopEarly {
        /// Time between TERM and KILL.
        grace_ms: u64,
    },
    /// It runs.
    Up,
    /// TERM was sent, KILL is due at the child's deadline.
    Stopping,
    /// KILL was sent.
    Killing,
    /// It was reaped; its last output is awaited until the child's deadline.
    Ended,
    /// All was said; to be removed.
    Gone,
}

/// What happens to a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// It runs.
    Spawned,
    /// It can't be started.
    Refused,
    /// It shall end.
    Stop {
        /// Time between TERM and KILL; 0 = KILL at once.
        grace_ms: u64,
    },
    /// The deadline of its state passed.
    Due,
    /// It was reaped.
    Exited,
    /// Both its streams are at their end.
    Drained,
}

/// What follows from an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Tell that it runs.
    Announce,
    /// Tell that it could not be started.
    Fail,
    /// End its process before its program runs.
    GiveUp,
    /// TERM to the group, and a deadline for the KILL.
    Term {
        /// Time between TERM and KILL.
        grace_ms: u64,
    },
    /// A KILL that is due no later than this from now on.
    Hurry {
        /// Time until the KILL.
        grace_ms: u64,
    },
    /// KILL to the group.
    Kill,
    /// A deadline for the last output.
    Await,
    /// Tell how it ended.
    Report,
}

impl State {
    /// The next state, and what is to be done on the way.
    pub(super) fn on(self, event: Event) -> (Self, Vec<Effect>) {
        use Effect::{Announce, Await, Fail, GiveUp, Hurry, Kill, Report, Term};
        match (self, event) {
            (Self::Starting | Self::StopEarly { .. }, Event::Refused) => (Self::Gone, vec![Fail]),
            (Self::Starting, Event::Spawned) => (Self::Up, vec![Announce]),
            (Self::Starting | Self::StopEarly { .. }, Event::Stop { grace_ms }) => {
                (Self::StopEarly { grace_ms }, vec![GiveUp])
            }
            (Self::StopEarly { grace_ms: 0 }, Event::Spawned) => {
                (Self::Killing, vec![Announce, Kill])
            }
            (Self::StopEarly { grace_ms }, Event::Spawned) => {
                (Self::Stopping, vec![Announce, Term { grace_ms }])
            }
            (Self::Up | Self::Stopping, Event::Stop { grace_ms: 0 }) => (Self::Killing, vec![Kill]),
            (Self::Up, Event::Stop { grace_ms }) => (Self::Stopping, vec![Term { grace_ms }]),
            // Asked again: it may only become earlier, else a repeated stop would put off the end.
            (Self::Stopping, Event::Stop { grace_ms }) => {
                (Self::Stopping, vec![Hurry { grace_ms }])
            }
            (Self::Stopping, Event::Due) => (Self::Killing, vec![Kill]),
            (Self::Up | Self::Stopping | Self::Killing, Event::Exited) => {
                (Self::Ended, vec![Await])
            }
            (Self::Ended, Event::Drained | Event::Due) => (Self::Gone, vec![Report]),
            // Late, early or repeated: nothing to do. A killed process that can't die yet (it hangs
            // in the kernel) stays here until it can.
            (
                Self::Starting | Self::StopEarly { .. },
                Event::Due | Event::Exited | Event::Drained,
            )
            | (Self::Up, Event::Spawned | Event::Refused | Event::Due | Event::Drained)
            | (Self::Stopping, Event::Spawned | Event::Refused | Event::Drained)
            | (
                Self::Killing,
                Event::Spawned | Event::Refused | Event::Stop { .. } | Event::Due | Event::Drained,
            )
            | (Self::Ended, Event::Spawned | Event::Refused | Event::Stop { .. } | Event::Exited)
            | (
                Self::Gone,
                Event::Spawned
                | Event::Refused
                | Event::Stop { .. }
                | Event::Due
                | Event::Exited
                | Event::Drained,
            ) => (self, vec![]),
        }
    }

    /// Whether there is a process, perhaps without its program yet.
    pub(super) const fn has_process(self) -> bool {
        match self {
            Self::Starting | Self::StopEarly { .. } => true,
            Self::Up | Self::Stopping | Self::Killing => true,
            Self::Ended | Self::Gone => false,
        }
    }

    /// Whether its process may get a signal.
    pub(super) const fn is_running(self) -> bool {
        match self {
            Self::Up | Self::Stopping | Self::Killing => true,
            Self::Starting | Self::StopEarly { .. } | Self::Ended | Self::Gone => false,
        }
    }
}

/// One process and what is known of it.
#[derive(Debug)]
pub(super) struct Child {
    /// For which broker.
    pub(super) broker: Arc<str>,
    /// For which worker.
    pub(super) worker: WorkerId,
    /// Which start of it.
    pub(super) run: RunId,
    /// What its start said of the worker's configuration.
    pub(super) digest: u32,
    /// Its process id; 0 until it has one.
    pub(super) pid: u32,
    /// An earlier execd started it, under another policy.
    pub(super) is_older: bool,
    /// Where it stands.
    pub(super) state: State,
    /// When its state is over by itself.
    pub(super) due: Option<Tick>,
    /// How it ended and what it used, once it did.
    pub(super) end: Option<(Ending, u64, u64)>,
    /// What it writes.
    pub(super) output: Output,
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Starting,
        State::StopEarly { grace_ms: 5 },
        State::Up,
        State::Stopping,
        State::Killing,
        State::Ended,
        State::Gone,
    ];
    const EVENTS: [Event; 7] = [
        Event::Spawned,
        Event::Refused,
        Event::Stop { grace_ms: 9 },
        Event::Stop { grace_ms: 0 },
        Event::Due,
        Event::Exited,
        Event::Drained,
    ];

    #[test]
    fn the_whole_table_of_states_and_events() {
        // Columns: spawned, refused, stop 9, stop 0, due, exited, drained; '.' = nothing happens.
        let want = [
            "up:announce | gone:fail | early9:give up | early0:give up | . | . | .",
            "stopping:announce,term5 | gone:fail | early9:give up | early0:give up | . | . | .",
            ". | . | stopping:term9 | killing:kill | . | ended:await | .",
            ". | . | stopping:hurry9 | killing:kill | killing:kill | ended:await | .",
            ". | . | . | . | . | ended:await | .",
            ". | . | . | . | gone:report | . | gone:report",
            ". | . | . | . | . | . | .",
        ];
        for (state, want) in STATES.into_iter().zip(want) {
            let got: Vec<String> = EVENTS.into_iter().map(|event| cell(state, event)).collect();
            assert_eq!(got.join(" | "), want, "{state:?}");
        }
    }

    fn cell(state: State, event: Event) -> String {
        let (next, effects) = state.on(event);
        if next == state && effects.is_empty() {
            return ".".into();
        }
        let name = match next {
            State::Starting => "starting".into(),
            State::StopEarly { grace_ms } => format!("early{grace_ms}"),
            State::Up => "up".into(),
            State::Stopping => "stopping".into(),
            State::Killing => "killing".into(),
            State::Ended => "ended".into(),
            State::Gone => "gone".into(),
        };
        let effects: Vec<String> = effects
            .into_iter()
            .map(|effect| match effect {
                Effect::Announce => "announce".into(),
                Effect::Fail => "fail".into(),
                Effect::GiveUp => "give up".into(),
                Effect::Term { grace_ms } => format!("term{grace_ms}"),
                Effect::Hurry { grace_ms } => format!("hurry{grace_ms}"),
                Effect::Kill => "kill".into(),
                Effect::Await => "await".into(),
                Effect::Report => "report".into(),
            })
            .collect();
        if effects.is_empty() { name } else { format!("{name}:{}", effects.join(",")) }
    }

    #[test]
    fn a_stop_at_once_before_the_start_kills_at_once() {
        let (state, effects) = State::StopEarly { grace_ms: 0 }.on(Event::Spawned);
        assert_eq!((state, effects), (State::Killing, vec![Effect::Announce, Effect::Kill]));
    }
}
