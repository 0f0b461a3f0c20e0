//! Workers that can't be reached: how long the broker waits for one that lost its connection,
//! whether its host can be asked to do something, and what the silence of a worker means. The
//! processes of a machine that can't be reached are kept (docs/decisions/0021).

use super::due::Due;
use super::fact::FactKind;
use super::heartbeat::SilenceLimits;
use super::hosts::HostState;
use super::input::Close;
use super::keys::WorkerKey;
use super::{Engine, Out};
use protocol::ids::LinkId;
use protocol::names::HostName;
use protocol::settings::{ServiceSetting, Setting};

/// Milliseconds added to the wait for a worker's return: it may notice the loss later than the
/// broker, and begin its last attempt just before its time is over.
const RETURN_MARGIN_MS: u64 = 5000;

impl Engine {
    /// Whether a host can be asked to do something, as far as is known: it is up, and was heard
    /// lately.
    pub(crate) fn is_reached(&self, host: &HostName) -> bool {
        let missed_max = self.silence_limits_of_hosts().ping_each.saturating_add(1);
        let slot = self.host_link(host).and_then(|link| self.links.get(link));
        slot.is_some_and(|slot| slot.missed <= missed_max)
    }

    /// Looks at a worker again later, because its host can't be reached now.
    pub(crate) fn look_later(&mut self, key: WorkerKey, due: Due) {
        if self.host_link(&self.workers[key].host).is_some() {
            // The host is silent, and does not count as lost yet.
            self.wait_for(key, self.settings.get(Setting::SilenceMs), due);
        }
        // Otherwise the next list of the host decides.
    }

    /// Gives a worker this time to log in or to come back, or its connection to end after its
    /// process. It replaces an earlier time. For one that was asked to end see `wait_for_end`.
    pub(crate) fn wait_for(&mut self, key: WorkerKey, wait_ms: u64, due: Due) {
        let until = self.now.plus_millis(wait_ms);
        self.workers[key].wait_until = until;
        self.due.add(until, due);
    }

    /// Milliseconds that the broker waits for a worker that lost its connection. A worker on
    /// another machine may not have reached the broker, and tries to come back for as long as was
    /// announced at its login; a busy one looks for its broker only when it has finished its
    /// request.
    pub(crate) fn return_wait_ms(&self, key: WorkerKey) -> u64 {
        let worker = &self.workers[key];
        let least = self.settings.get(Setting::ReturnMs);
        let set = self.settings.get(Setting::ReconnectMs);
        let (reconnect, silence) = worker.announced.unwrap_or_else(|| (set, self.silence_ms()));
        let is_builtin = self.hosts.named(&worker.host).is_some_and(|host| host.is_builtin);
        if is_builtin || worker.is_closed_with_error || reconnect == 0 {
            return least;
        }
        let work = worker.current.map_or(0, |at| {
            let transaction = &self.transactions[at];
            let left = transaction.deadline.since(self.now).as_millis();
            let settings = &self.registry[worker.service].settings;
            match settings.get(ServiceSetting::KillAfterMs) {
                0 => left,
                most => {
                    let end = transaction.dispatched.plus_millis(most);
                    left.min(end.since(self.now).as_millis())
                }
            }
        });
        least.max(reconnect + silence + RETURN_MARGIN_MS + work)
    }

    /// How many missed heartbeats are the end of a worker that is pinged, which a busy one is not.
    /// If its machine may still turn out to be alive with only this connection gone, some more are
    /// allowed: the kernel then reports a reset, or the reactor's `liveness` finds what it sent
    /// unacknowledged (`Close::TimedOut`).
    pub(crate) fn worker_silence_end(&self, key: WorkerKey, limits: &SilenceLimits) -> u32 {
        match self.may_be_unreachable(key) {
            Unreachable::No | Unreachable::MayBe => limits.end,
            Unreachable::KernelTells => {
                limits.end.saturating_add(limits.ping_each).saturating_add(2)
            }
        }
    }

    /// Handles a worker that was silent for too long: if its machine may be out of reach, it loses
    /// its connection and may come back; if it hangs, it is killed.
    pub(crate) fn silent_worker(&mut self, link: LinkId, key: WorkerKey, why: &str, out: Out<'_>) {
        if self.may_be_unreachable(key) == Unreachable::MayBe && !self.workers[key].is_self_started
        {
            self.close_link(link, out);
            self.worker_lost(key, Close::TimedOut, why, out);
            return;
        }
        let what = format!("{why}; it is killed");
        self.worker_fact(FactKind::WorkerKilled, key, &what, out);
        self.kill_worker(key, "was silent and is killed", out);
    }

    /// Whether the machine of a silent worker may be out of reach.
    fn may_be_unreachable(&self, key: WorkerKey) -> Unreachable {
        let worker = &self.workers[key];
        let host = self.hosts.named(&worker.host);
        if host.is_some_and(|host| host.is_builtin) && !worker.is_self_started {
            return Unreachable::No;
        }
        let slot = worker.link.and_then(|link| self.links.get(link));
        let is_other = slot.is_some_and(|slot| slot.peer.is_remote);
        let is_up = host.is_some_and(|host| matches!(host.state, HostState::Up(_)));
        match (is_other, is_up && self.is_reached(&worker.host)) {
            (true, true) => Unreachable::KernelTells,
            (true, false) | (false, true | false) => Unreachable::MayBe,
        }
    }
}

/// Whether a silent worker may be out of reach instead of hanging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unreachable {
    /// It can't: it is on this machine.
    No,
    /// Its host is reached. If only its own connection is gone, the kernel will show that: by a
    /// reset, or by what stays unacknowledged (the reactor's `liveness`, `Close::TimedOut`).
    KernelTells,
    /// It may: its host is silent, too, or something in between answers for its machine.
    MayBe,
}
