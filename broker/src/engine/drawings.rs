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

/// The states of a transaction, a connection, a worker's process and a host, by name.
pub fn machines() -> Vec<(&'static str, Vec<Edge>)> {
    let worker = WorkerKey::of(0);
    let link = LinkId { index: 0, generation: 0 };
    let stages = [
        Stage::Waiting,
        Stage::Blocked,
        Stage::Held(worker),
        Stage::Bound(worker),
        Stage::HeldEnded(worker),
        Stage::Ended(worker),
        Stage::Gone,
    ];
    let stage_events = [
        StageEvent::Block,
        StageEvent::Unblock,
        StageEvent::Give(worker),
        StageEvent::Hold(worker),
        StageEvent::Begin,
        StageEvent::End,
        StageEvent::Repeat,
        StageEvent::Free,
    ];
    let phases = [
        Phase::New,
        Phase::Challenged,
        Phase::Deferred,
        Phase::Checking,
        Phase::LoggedIn,
        Phase::Closed,
    ];
    let phase_events = [
        PhaseEvent::Challenge,
        PhaseEvent::Defer,
        PhaseEvent::Check,
        PhaseEvent::Admit,
        PhaseEvent::Close,
    ];
    let processes = [
        ProcessState::Down,
        ProcessState::Backoff,
        ProcessState::Starting,
        ProcessState::Up,
        ProcessState::Ready,
        ProcessState::Returning,
        ProcessState::Exiting,
        ProcessState::Terminating,
    ];
    let process_events = [
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
    let hosts = [
        HostState::Down,
        HostState::Dialing,
        HostState::Greeting(link),
        HostState::Listing(link),
        HostState::Up(link),
    ];
    let host_events = [
        HostEvent::Dial,
        HostEvent::Open(link),
        HostEvent::Welcome,
        HostEvent::List,
        HostEvent::Fail,
    ];
    vec![
        ("transaction", edges(&stages, &stage_events, Stage::on)),
        ("connection", edges(&phases, &phase_events, Phase::on)),
        ("process", edges(&processes, &process_events, ProcessState::on)),
        ("host", edges(&hosts, &host_events, HostState::on)),
    ]
}
