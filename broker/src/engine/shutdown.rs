//! The broker's orderly shutdown: no new requests; those with workers may finish within
//! `stop_ask_ms`; workers are asked to end; hosts end what is left; then the process ends. `halt`
//! does not wait for requests, and `abort` skips everything. `keep` has what is different where
//! workers stay for the next broker. Each orderly end goes on to refuse requests for a moment when
//! nothing runs any more: a client that just had the last answer sends its next request, and would
//! lose its connection without an outcome.

use super::action::{Action, BrokerExit};
use super::context::context;
use super::hub::Engine;
use super::keep;
use super::keys::HostKey;
use super::shutdown_begin::{self, MARGIN_MS};
use super::timers::Timer;
use super::work::Work;
use crate::engine::shutdown_step::{Shutdown, Step};
use protocol::ids::BUILTIN_IDS;
use protocol::{ErrorBody, ErrorCode, Ran, Setting};
use std::collections::VecDeque;

/// Milliseconds that requests are still refused when nothing runs any more: enough for a client
/// that had an answer to send its next request. One that goes on sending can't have all answered.
const REFUSING_MS: u64 = 250;

impl Engine {
    /// Whether `Action::End` was given.
    pub fn has_shut_down(&self) -> bool {
        self.shutdown.as_ref().is_some_and(|shutdown| shutdown.step == Step::Done)
    }
}

/// TERM or INT: begins the shutdown, with status 0. A second one ends the broker at once; hosts
/// still kill the processes that they have.
pub(crate) fn on_terminate(hub: &mut Engine, signal: &str) {
    if let Some(shutdown) = &hub.shutdown {
        if !shutdown.keeps && !hub.has_shut_down() {
            hub.supervision.end_hosts(0, context!(hub));
        }
        end_now(hub);
    } else {
        on_first_signal(hub, signal);
    }
}

/// The first TERM or INT: ends the broker as `on_term` says.
fn on_first_signal(hub: &mut Engine, signal: &str) {
    let why = format!("signal {signal}");
    match keep::obstacle(hub) {
        _ if hub.settings.get(Setting::OnTerm) != keep::ON_TERM_KEEP => {
            begin_shutdown(hub, 0, &why, true);
        }
        None => keep::begin(hub, &why),
        Some(obstacle) => {
            let why = format!("{why}; workers end, too, whatever on_term says: {obstacle}");
            begin_shutdown(hub, 0, &why, true);
        }
    }
}

/// Begins the shutdown: records it and fails the waiting requests. `may_finish`: requests that
/// workers have may finish first.
pub(crate) fn begin_shutdown(hub: &mut Engine, status: u8, why: &str, may_finish: bool) {
    let wait = if may_finish { hub.settings.get(Setting::StopAskMs) } else { 0 };
    let until = hub.now.plus_millis(wait);
    shutdown_begin::begin(hub, Shutdown { status, step: Step::Draining, until, keeps: false }, why);
    if !may_finish {
        stop_all(hub);
    }
}

/// Takes the next step of the shutdown, if nothing is missing. Called after each input.
pub(crate) fn check_shutdown(hub: &mut Engine) {
    if hub.works.is_busy() {
        return;
    }
    let Some(shutdown) = &hub.shutdown else { return };
    if shutdown.step == Step::Draining && hub.dispatch.counts().1 == 0 {
        end_workers(hub);
    }
    keep::check_not_kept(hub);
    if hub.shutdown.as_ref().is_some_and(|shutdown| shutdown.step == Step::Stopping(Vec::new())) {
        refuse_on(hub);
    }
    match hub.shutdown.as_ref().map(|shutdown| &shutdown.step) {
        Some(Step::Refusing { .. }) if !has_clients(hub) => store_rest(hub),
        Some(Step::Storing) if !hub.store.is_busy() => end_now(hub),
        Some(
            Step::Draining
            | Step::KeepingOthers(_)
            | Step::Stopping(_)
            | Step::Refusing { .. }
            | Step::Storing
            | Step::Done,
        )
        | None => {}
    }
}

/// `Timer::End`: the time of the present step is over, so the next one is taken.
pub(crate) fn on_shutdown_due(hub: &mut Engine) {
    // The timer may be that of an earlier step.
    let shutdown = hub.shutdown.as_ref().filter(|shutdown| shutdown.until <= hub.now);
    match shutdown.map(|shutdown| &shutdown.step) {
        Some(Step::Draining) => end_workers(hub),
        Some(Step::Stopping(_) | Step::KeepingOthers(_)) => refuse_on(hub),
        Some(Step::Refusing { .. }) => store_rest(hub),
        Some(Step::Storing) => end_now(hub),
        Some(Step::Done) | None => {}
    }
}

/// No request is waited for any more: workers end, or are left to the next broker.
fn end_workers(hub: &mut Engine) {
    if hub.shutdown.as_ref().is_some_and(|shutdown| shutdown.keeps) {
        keep::keep_workers(hub);
    } else {
        stop_all(hub);
    }
}

/// Fails the requests that workers still have, asks workers to end, and has hosts end all
/// processes.
fn stop_all(hub: &mut Engine) {
    let text = "the broker is shutting down and waits no longer for the worker".to_owned();
    let error = ErrorBody::new(ErrorCode::ShuttingDown, text).with_ran(Ran::Maybe);
    let workers: VecDeque<_> = hub.supervision.workers().map(|(_, worker)| worker.id).collect();
    hub.works.begin(Work::FailWith { workers: workers.clone(), error }, &mut hub.effects);
    let grace_ms = hub.settings.get(Setting::StopTermMs).min(5000);
    // Workers hear of it before their hosts.
    hub.works.begin(Work::AskToEnd { workers }, &mut hub.effects);
    hub.works.begin(Work::EndHosts { grace_ms }, &mut hub.effects);
    let waiting = hub.supervision.builtin_hosts();
    let until = hub.now.plus_millis(grace_ms + MARGIN_MS);
    if let Some(shutdown) = &mut hub.shutdown {
        shutdown.step = Step::Stopping(waiting);
        shutdown.until = until;
    }
    hub.timers.add(until, Timer::End);
}

/// The link to a host is gone during the shutdown: the built-in execd ends when its processes
/// have ended.
pub(crate) fn on_host_ended(hub: &mut Engine, key: HostKey) {
    if let Some(Shutdown { step: Step::Stopping(hosts), .. }) = &mut hub.shutdown {
        hosts.retain(|&host| host != key);
    }
    check_shutdown(hub);
}

/// Nothing runs any more: requests are refused until no client is left, or for a moment.
fn refuse_on(hub: &mut Engine) {
    let until = hub.now.plus_millis(REFUSING_MS);
    if let Some(shutdown) = &mut hub.shutdown {
        shutdown.step = Step::Refusing { stored_until: shutdown.until };
        shutdown.until = until;
    }
    hub.timers.add(until, Timer::End);
    if !has_clients(hub) {
        store_rest(hub);
    }
}

/// Whether a client is logged in that may send a request. An operator is none: its commands are
/// answered at once, and whoever leaves a shell open makes no end take longer.
fn has_clients(hub: &Engine) -> bool {
    let of_op = |key| hub.dispatch.caller(key).service == hub.catalog.op();
    hub.sessions.clients().any(|(key, client)| client.id.0 < BUILTIN_IDS && !of_op(key))
}

/// Nobody asks any more: what is changed is stored, for which `Timer::End` limits the time.
fn store_rest(hub: &mut Engine) {
    let least = hub.now.plus_millis(MARGIN_MS);
    if let Some(shutdown) = &mut hub.shutdown
        && let Step::Refusing { stored_until } = shutdown.step
    {
        (shutdown.step, shutdown.until) = (Step::Storing, stored_until.max(least));
        hub.timers.add(shutdown.until, Timer::End);
    }
    if !hub.store.is_busy() {
        end_now(hub);
    }
}

fn end_now(hub: &mut Engine) {
    if let Some(shutdown) = &mut hub.shutdown
        && shutdown.step != Step::Done
    {
        shutdown.step = Step::Done;
        hub.store.give_up(&mut hub.out);
        hub.out.push(Action::End(BrokerExit::Exit(shutdown.status)));
    }
}
