//! Each heartbeat: pings idle workers, hosts and the clients that promised to answer, and closes
//! clients that ask for nothing. `sessions::silence` counts what they miss.

use super::context::context;
use super::hub::Engine;
use super::keys::WorkerKey;
use super::operator::answer;
use super::sessions::connection::End;
use super::supervision::process_state::ProcessState;
use super::work::{Look, Work};
use protocol::{ErrorBody, ErrorCode, LinkId, Setting};
use std::collections::VecDeque;

/// Sets the next heartbeat.
pub(crate) fn start_heartbeat(hub: &mut Engine) {
    if hub.sessions.start_heartbeat(context!(hub)) {
        hub.supervision.all_heard();
    }
}

/// `heartbeat_ms` or `silence_ms` was set.
pub(crate) fn heartbeat_changed(hub: &mut Engine) {
    hub.sessions.heartbeat_changed(context!(hub));
    hub.supervision.all_heard();
}

/// Nobody is blamed for the time in which the broker stood still.
pub(crate) fn excuse_standstill(hub: &mut Engine) {
    if let Some(late) = hub.sessions.standstill(context!(hub)) {
        hub.timers.put_off(late);
        hub.sessions.put_off(late, hub.now);
    }
}

/// `Timer::Heartbeat`: looks at all links that owe a sign of life, and sets the next
/// heartbeat.
pub(crate) fn on_heartbeat(hub: &mut Engine) {
    if hub.sessions.is_before_beat(context!(hub)) {
        return;
    }
    start_heartbeat(hub);
    let mut silent: VecDeque<LinkId> = VecDeque::new();
    silent.extend(hub.supervision.hosts().filter_map(|(_, host)| host.state.link()));
    let ready = hub.supervision.workers().filter(|(_, w)| w.state == ProcessState::Ready);
    let seats = ready.map(|(key, _)| hub.dispatch.seat(key));
    silent.extend(seats.filter(|seat| seat.must_answer()).filter_map(|seat| seat.link));
    silent.extend(hub.sessions.pinged_clients());
    hub.works.begin(Work::Beat { links: silent, look: Look::Ping }, &mut hub.effects);
    for link in hub.dispatch.flow().unread() {
        hub.sessions.pong_unread(link, context!(hub));
    }
    let idle_ms = hub.settings.get(Setting::IdleMs);
    if idle_ms > 0 {
        let links = hub.sessions.clients().map(|(_, client)| client.link).collect();
        hub.works.begin(Work::Beat { links, look: Look::Idle { idle_ms } }, &mut hub.effects);
    }
}

/// Looks at one link.
pub(crate) fn look_at(hub: &mut Engine, link: LinkId, look: Look) {
    match look {
        Look::Ping => ping(hub, link),
        Look::Idle { idle_ms } => close_idle(hub, link, idle_ms),
    }
}

fn ping(hub: &mut Engine, link: LinkId) {
    if hub.dispatch.flow().is_unread(link) {
        return;
    }
    let Some(limits) = hub.sessions.limits_of(link, context!(hub)) else { return };
    let end = match hub.sessions.end(link) {
        Some(End::Worker(key)) => hub.supervision.worker_silence_end(key, &limits),
        Some(_) | None => limits.end,
    };
    hub.sessions.ping(link, end, context!(hub));
    hub.settle();
}

/// A worker was silent for too long.
pub(crate) fn silent_worker(hub: &mut Engine, key: WorkerKey, why: &str) {
    hub.supervision.silent_worker(key, why, context!(hub));
}

/// Closes a client that has nothing under way and sent nothing for `idle_ms`.
fn close_idle(hub: &mut Engine, link: LinkId, idle_ms: u64) {
    let Some(key) = hub.sessions.client_at(link) else { return };
    let id = hub.sessions.client(key).id;
    // What a link that is not read has sent is not known.
    let is_over = !hub.dispatch.flow().is_unread(link)
        && hub.dispatch.caller(key).in_flight.is_empty()
        && hub.facts.watch_of(id).is_none()
        && hub.logs.follows(id).is_none()
        && !hub.topics.has_subscriptions(link)
        && hub.sessions.is_silent_for(link, idle_ms, context!(hub))
        && !answer::owes_answer(hub, id, link);
    if is_over {
        let text = format!("nothing was asked for {idle_ms} ms (idle_ms)");
        hub.refuse_link(link, ErrorBody::new(ErrorCode::IdleTimeout, text));
    }
}
