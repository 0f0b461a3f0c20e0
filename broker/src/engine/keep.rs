//! An end of the broker that leaves the workers to the next one: `halt keep`, and signals under
//! `on_term keep`. Requests that wait fail; those that workers have may finish within `halt_ms`.
//! Then the connections are closed, as if the broker had died: workers look for their broker, hosts
//! keep their processes, and the next broker on the state directory adopts both.

use super::context::context;
use super::hub::Engine;
use super::shutdown::{self, MARGIN_MS};
use super::timers::Timer;
use super::work::Work;
use crate::engine::shutdown_step::{Shutdown, Step};
use protocol::{ErrorBody, ErrorCode, Ran, Setting};
use std::collections::VecDeque;

/// The value of `on_term` that means this end.
const ON_TERM_KEEP: u64 = 1;

/// Why no later broker could adopt the workers; `None` = one can.
pub(crate) fn obstacle(hub: &Engine) -> Option<&'static str> {
    (!hub.listening.is_state_kept).then_some(
        "no later broker knows the workers of one without a state directory (--state none)",
    )
}

/// The first TERM or INT: ends the broker as `on_term` says.
pub(super) fn on_first_signal(hub: &mut Engine, signal: &str) {
    let why = format!("signal {signal}");
    match obstacle(hub) {
        _ if hub.settings.get(Setting::OnTerm) != ON_TERM_KEEP => {
            shutdown::begin_shutdown(hub, 0, &why, true);
        }
        None => begin(hub, &why),
        Some(obstacle) => {
            let why = format!("{why}; workers end, too, whatever on_term says: {obstacle}");
            shutdown::begin_shutdown(hub, 0, &why, true);
        }
    }
}

/// Begins the end: nobody logs in any more, operators excepted, and no request is accepted.
pub(crate) fn begin(hub: &mut Engine, why: &str) {
    let wait = hub.settings.get(Setting::HaltMs);
    let until = hub.now.plus_millis(wait);
    hub.sessions.turn_away();
    let why = format!("{why}; workers stay for the next one");
    let shutdown = Shutdown { status: 0, step: Step::Draining, until, keeps: true };
    shutdown::begin(hub, shutdown, &why);
    if wait == 0 {
        leave(hub);
    }
}

/// Leaves the workers as they are. Each request that one of them still has gets its outcome; the
/// worker is not told of it, and works on.
pub(super) fn leave(hub: &mut Engine) {
    let text = "the broker ends, and leaves the worker that has the request to the next one";
    let error = ErrorBody { code: ErrorCode::ShuttingDown, ran: Ran::Maybe, text: text.to_owned() };
    let keys = hub.supervision.worker_keys();
    keys.iter().for_each(|&key| hub.dispatch.say_no_more(key));
    let id_of = |&key: &_| hub.supervision.worker(key).id;
    let workers: VecDeque<_> = keys.iter().map(id_of).collect();
    let not_kept = hub.supervision.not_kept();
    let ending: VecDeque<_> = not_kept.iter().map(id_of).collect();
    hub.works.begin(Work::FailWith { workers, error }, &mut hub.effects);
    let mut wait = MARGIN_MS;
    if !ending.is_empty() {
        hub.works.begin(Work::EndWithBroker { workers: ending }, &mut hub.effects);
        wait += hub.settings.get(Setting::StopAskMs) + hub.settings.get(Setting::StopTermMs);
    }
    let until = hub.now.plus_millis(wait);
    if let Some(shutdown) = &mut hub.shutdown {
        (shutdown.step, shutdown.until) = (Step::Leaving(not_kept), until);
    }
    hub.timers.add(until, Timer::End);
}

/// Goes on when the workers that are not kept have ended.
pub(super) fn check_leaving(hub: &mut Engine) {
    let supervision = &hub.supervision;
    let Some(Shutdown { step, .. }) = &mut hub.shutdown else { return };
    let Step::Leaving(ending) = step else { return };
    ending.retain(|&key| supervision.get_worker(key).is_some_and(|w| w.state.has_process()));
    if ending.is_empty() {
        *step = Step::Stopping(Vec::new());
    }
}

/// Ends a worker that is not kept.
pub(super) fn end_one(hub: &mut Engine, key: crate::engine::keys::WorkerKey) {
    hub.supervision.end_with_broker(key, context!(hub));
}
