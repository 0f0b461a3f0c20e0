//! The states of the engine as drawings: who draws them in `docs/architecture.md` asks here, so
//! that the picture has the transitions of the code.

use super::dispatch::stage::{Stage, StageEvent};
use super::keys::{Key, WorkerKey};
use super::sessions::phase::{Phase, PhaseEvent};
use super::supervision::host_state::{HostEvent, HostState};
use super::supervision::process_state::{ProcessEvent, ProcessState};
use protocol::ids::LinkId;
use std::fmt::Debug;

/// One transition: from a state, by an event, to a state.
pub type Edge = (String, String, String);

/// The name of a variant, without what it holds.
fn name(variant: impl Debug) -> String {
    let text = format!("{variant:?}");
    text.split(['(', ' ', '{']).next().unwrap_or_default().to_owned()
}

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
    let states = [
        Stage::Waiting,
        Stage::Blocked,
        Stage::Held(worker),
        Stage::Bound(worker),
        Stage::HeldEnded(worker),
        Stage::Ended(worker),
        Stage::Gone,
    ];
    let events = [
        StageEvent::Block,
        StageEvent::Unblock,
        StageEvent::Give(worker),
        StageEvent::Hold(worker),
        StageEvent::Begin,
        StageEvent::End,
        StageEvent::Repeat,
        StageEvent::Free,
    ];
    edges(&states, &events, Stage::on)
}

/// Of the login of a connection.
fn connection() -> Vec<Edge> {
    let states = [
        Phase::New,
        Phase::Challenged,
        Phase::Deferred,
        Phase::Checking,
        Phase::LoggedIn,
        Phase::Closed,
    ];
    let events = [
        PhaseEvent::Challenge,
        PhaseEvent::Defer,
        PhaseEvent::Check,
        PhaseEvent::Admit,
        PhaseEvent::Close,
    ];
    edges(&states, &events, Phase::on)
}

/// Of a worker's process.
fn process() -> Vec<Edge> {
    let states = [
        ProcessState::Down,
        ProcessState::Backoff,
        ProcessState::Starting,
        ProcessState::Up,
        ProcessState::Ready,
        ProcessState::Returning,
        ProcessState::Exiting,
        ProcessState::Terminating,
    ];
    let events = [
        ProcessEvent::Start,
        ProcessEvent::Run,
        ProcessEvent::LogIn,
        ProcessEvent::Lose,
        ProcessEvent::AskToEnd,
        ProcessEvent::Terminate,
        ProcessEvent::End,
        ProcessEvent::Wait,
        ProcessEvent::Unplan,
    ];
    edges(&states, &events, ProcessState::on)
}

/// Of the link to a host's execd.
fn host() -> Vec<Edge> {
    let link = LinkId { index: 0, generation: 0 };
    let states = [
        HostState::Down,
        HostState::Dialing,
        HostState::WaitingToDial,
        HostState::Greeting(link),
        HostState::Greeted(link),
        HostState::Claimed(link),
        HostState::Proving(link),
        HostState::Untrusted(link, ""),
        HostState::Listing(link),
        HostState::Up(link),
    ];
    let events = [
        HostEvent::Dial,
        HostEvent::Wait,
        HostEvent::Open(link),
        HostEvent::Greet,
        HostEvent::Claim,
        HostEvent::Challenge,
        HostEvent::Welcome,
        HostEvent::SignedWelcome,
        HostEvent::List,
        HostEvent::Fail,
    ];
    edges(&states, &events, HostState::on)
}

/// The transitions of each state machine, by its name.
pub fn machines() -> [(&'static str, Vec<Edge>); 4] {
    [
        ("transaction", transaction()),
        ("connection", connection()),
        ("process", process()),
        ("host", host()),
    ]
}
