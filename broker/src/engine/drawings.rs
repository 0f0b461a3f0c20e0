//! The states of the engine as drawings: who draws them in `docs/architecture.md` asks here, so
//! that the picture has the transitions of the code.

use super::dispatch::stage::{Stage, StageEvent};
use super::keys::{Key, WorkerKey};
use super::sessions::phase::{Phase, PhaseEvent};
use super::supervision::host_state::{HostEvent, HostState};
use super::supervision::process_state::{ProcessEvent, ProcessState};
use protocol::all_variants;
use protocol::ids::LinkId;
use std::fmt::Debug;

/// One transition: from a state, by an event, to a state.
pub type Edge = (String, String, String);

/// A state machine.
#[derive(Debug)]
pub struct Machine {
    /// As `docs/architecture.md` names its drawing.
    pub name: &'static str,
    /// The name of its first state.
    pub start: String,
    /// All transitions.
    pub edges: Vec<Edge>,
}

/// The name of a variant, without what it holds.
fn name(variant: impl Debug) -> String {
    let text = format!("{variant:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

/// What `on` says of each state and event; what it refuses is no transition.
fn edges<S: Copy + Debug, E: Copy + Debug>(
    states: &[S],
    events: &[E],
    on: impl Fn(S, E) -> Option<S>,
) -> Vec<Edge> {
    let mut all = Vec::new();
    for &state in states {
        for &event in events {
            all.extend(on(state, event).map(|next| (name(state), name(event), name(next))));
        }
    }
    all
}

/// Of a transaction.
fn transaction() -> Vec<Edge> {
    let worker = WorkerKey::of(0);
    let states = all_variants![Stage:
        Waiting, Blocked, Held(worker), Bound(worker), Parked(worker), HeldEnded(worker),
        Ended(worker), ParkedEnded(worker), Lost, Gone
    ];
    let events = all_variants![StageEvent:
        Block, Unblock, Give(worker), Hold(worker), Begin, Park, End, Repeat, Lose, Free
    ];
    edges(&states, &events, Stage::on)
}

/// Of the login of a connection.
fn connection() -> Vec<Edge> {
    let states = all_variants![Phase: New, Challenged, Deferred, Checking, LoggedIn, Closed];
    let events = all_variants![PhaseEvent: Open, OpenHost, Challenge, Defer, Check, Admit, Close];
    edges(&states, &events, Phase::on)
}

/// Of a worker's process.
fn process() -> Vec<Edge> {
    let states = all_variants![ProcessState:
        Down, Backoff, Starting, Up, Ready, Returning, Exiting, Terminating
    ];
    let events = all_variants![ProcessEvent:
        Start, Run, LogIn, Lose, AskToEnd, Terminate, End, Wait, Unplan
    ];
    edges(&states, &events, ProcessState::on)
}

/// Of the link to a host's execd.
fn host() -> Vec<Edge> {
    let link = LinkId { index: 0, generation: 0 };
    let states = all_variants![HostState:
        Down, Dialing, WaitingToDial, Greeting(link), Greeted(link), Claimed(link), Proving(link),
        Untrusted(link, ""), Listing(link), Up(link)
    ];
    let events = all_variants![HostEvent:
        Dial, Wait, Open(link), Greet, Claim, Challenge, Welcome, SignedWelcome, List, Fail
    ];
    edges(&states, &events, HostState::on)
}

/// All state machines of the engine.
pub fn machines() -> [Machine; 4] {
    let machine = |name, start, edges| Machine { name, start, edges };
    [
        machine("transaction", name(Stage::START), transaction()),
        machine("connection", name(Phase::START), connection()),
        machine("process", name(ProcessState::START), process()),
        machine("host", name(HostState::START), host()),
    ]
}
