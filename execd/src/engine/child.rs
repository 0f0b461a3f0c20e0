//! A child: one process from the request to start it to the report of its end, as one exhaustive
//! match of state and event. The engine carries out the effects.

use super::input::ProcessEnd;
use super::memory::MemoryWatch;
use super::output::Output;
use protocol::{RunId, Tick, WorkerId, all_variants};
use std::fmt;
use std::sync::Arc;

/// The id of a child in the engine and in `os`; never used again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ChildId(pub u64);

impl fmt::Display for ChildId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The state of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// The start was requested; the program does not run yet.
    Starting,
    /// As `Starting`, but the process is being ended. If its program starts after all, it is
    /// stopped.
    StopEarly {
        /// Milliseconds between TERM and KILL.
        grace_ms: u64,
    },
    /// The program runs.
    Up,
    /// TERM was sent, KILL is due at the child's deadline.
    Terminating,
    /// KILL was sent; the end is awaited.
    Killing,
    /// The process was reaped; its last output is awaited until the child's deadline.
    Ended,
    /// The end was reported; the child is to be removed.
    Gone,
}

/// An event in the life of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Event {
    /// The program runs.
    Spawned,
    /// The program can't be started.
    Refused,
    /// The broker or execd wants the process to end.
    Stop {
        /// Milliseconds between TERM and KILL; 0 = KILL at once.
        grace_ms: u64,
    },
    /// The deadline of the state has passed.
    Due,
    /// The process was reaped.
    Exited,
    /// Both streams have ended.
    OutputEnded,
}

/// What the engine does because of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Reports to the broker that the program runs.
    Announce,
    /// Reports to the broker that the program could not be started.
    Fail,
    /// Ends the process before its program runs.
    GiveUp,
    /// Sends TERM to the group, and sets a deadline for the KILL.
    Term {
        /// Milliseconds between TERM and KILL.
        grace_ms: u64,
    },
    /// Makes the deadline of the KILL earlier, if it is later than this.
    Hurry {
        /// Milliseconds until the KILL.
        grace_ms: u64,
    },
    /// Sends KILL to the group.
    Kill,
    /// Sets a deadline for the last output.
    Await,
    /// Reports to the broker how the process ended.
    Report,
}

/// The first state of a child, by name.
pub fn start() -> String {
    name(State::START)
}

fn name(variant: impl fmt::Debug) -> String {
    let text = format!("{variant:?}");
    text.split([' ', '{']).next().unwrap_or_default().to_owned()
}

/// The transitions of a child, by name: from a state, by an event, to a state. For the drawing in
/// `docs/architecture.md`.
pub fn transitions() -> Vec<(String, String, String)> {
    let states = all_variants![State:
        Starting, StopEarly { grace_ms: 1 }, StopEarly { grace_ms: 0 }, Up, Terminating, Killing,
        Ended, Gone
    ];
    let events = all_variants![Event:
        Spawned, Refused, Stop { grace_ms: 1 }, Stop { grace_ms: 0 }, Due, Exited, OutputEnded
    ];
    let mut all = Vec::new();
    for state in states {
        for event in events {
            let (next, effects) = state.on(event);
            if next != state || !effects.is_empty() {
                all.push((name(state), name(event), name(next)));
            }
        }
    }
    all
}

impl State {
    /// Of a child that is to be started.
    pub(super) const START: Self = Self::Starting;

    /// The next state, and the effects on the way to it.
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
                (Self::Terminating, vec![Announce, Term { grace_ms }])
            }
            (Self::Up | Self::Terminating, Event::Stop { grace_ms: 0 }) => {
                (Self::Killing, vec![Kill])
            }
            (Self::Up, Event::Stop { grace_ms }) => (Self::Terminating, vec![Term { grace_ms }]),
            // A repeated stop can only make the end earlier; otherwise repeating it would put the
            // end off.
            (Self::Terminating, Event::Stop { grace_ms }) => {
                (Self::Terminating, vec![Hurry { grace_ms }])
            }
            (Self::Terminating, Event::Due) => (Self::Killing, vec![Kill]),
            (Self::Up | Self::Terminating | Self::Killing, Event::Exited) => {
                (Self::Ended, vec![Await])
            }
            (Self::Ended, Event::OutputEnded | Event::Due) => (Self::Gone, vec![Report]),
            // The event came late, early or again: nothing to do. A killed process that can't die
            // yet (it hangs in the kernel) stays in this state until it can.
            (
                Self::Starting | Self::StopEarly { .. },
                Event::Due | Event::Exited | Event::OutputEnded,
            )
            | (Self::Up, Event::Spawned | Event::Refused | Event::Due | Event::OutputEnded)
            | (Self::Terminating, Event::Spawned | Event::Refused | Event::OutputEnded)
            | (
                Self::Killing,
                Event::Spawned
                | Event::Refused
                | Event::Stop { .. }
                | Event::Due
                | Event::OutputEnded,
            )
            | (Self::Ended, Event::Spawned | Event::Refused | Event::Stop { .. } | Event::Exited)
            | (
                Self::Gone,
                Event::Spawned
                | Event::Refused
                | Event::Stop { .. }
                | Event::Due
                | Event::Exited
                | Event::OutputEnded,
            ) => (self, vec![]),
        }
    }

    /// Whether the child has a process, perhaps without its program yet.
    pub(super) const fn has_process(self) -> bool {
        match self {
            Self::Starting | Self::StopEarly { .. } => true,
            Self::Up | Self::Terminating | Self::Killing => true,
            Self::Ended | Self::Gone => false,
        }
    }

    /// Whether the process may get a signal.
    pub(super) const fn is_running(self) -> bool {
        match self {
            Self::Up | Self::Terminating | Self::Killing => true,
            Self::Starting | Self::StopEarly { .. } | Self::Ended | Self::Gone => false,
        }
    }
}

/// One process and what execd knows of it.
#[derive(Debug)]
pub(super) struct Child {
    /// The broker that asked for the start.
    pub(super) broker: Arc<str>,
    /// The worker that the process is.
    pub(super) worker: WorkerId,
    /// The start that made the process.
    pub(super) run: RunId,
    /// The `digest` of the `exec-start`; 0 = not known. Independent of the state: it never changes.
    pub(super) digest: u32,
    /// The process id; 0 = there is no process yet. Independent of the state: a child has it as
    /// soon as it is forked, while its program does not run yet.
    pub(super) pid: u32,
    /// Whether an earlier execd started it under another policy. Independent of the state: it never
    /// changes.
    pub(super) is_older: bool,
    /// The signal number that asks it to end in place of TERM; `None` = TERM. Independent of the
    /// state: it never changes.
    pub(super) stop_signal: Option<i32>,
    pub(super) state: State,
    /// The deadline of the state, if it has one. Valid in `Terminating` and `Ended`.
    pub(super) due: Option<Tick>,
    /// How it ended, its processor time in milliseconds and its largest resident size in KiB, once
    /// it has ended. Valid in `Ended`.
    pub(super) end: Option<ProcessEnd>,
    /// The lines that it writes.
    pub(super) output: Output,
    /// How its memory is watched.
    pub(super) memory: MemoryWatch,
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATES: [State; 7] = [
        State::Starting,
        State::StopEarly { grace_ms: 5 },
        State::Up,
        State::Terminating,
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
        Event::OutputEnded,
    ];

    #[test]
    fn the_whole_table_of_states_and_events() {
        // Columns: spawned, refused, stop 9, stop 0, due, exited, output ended; '.' = nothing
        // changes.
        let want = [
            "up:announce | gone:fail | early9:give up | early0:give up | . | . | .",
            "terminating:announce,term5 | gone:fail | early9:give up | early0:give up | . | . | .",
            ". | . | terminating:term9 | killing:kill | . | ended:await | .",
            ". | . | terminating:hurry9 | killing:kill | killing:kill | ended:await | .",
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
            State::Terminating => "terminating".into(),
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
