//! Workers that can't be reached: how long one that lost its connection is waited for, whether its
//! host can be asked to do anything, what silence means. A machine that is unreachable keeps its
//! workers (docs/decisions/0021). Not what follows an end: `process`.

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

/// A worker may notice its loss later than the broker, and its last attempt to come back may begin
/// just before its time is over and take this long.
const RETURN_MARGIN_MS: u64 = 5000;

impl Engine {
    /// Whether a host does what it is asked now, as far as is known: it is up, and was heard of
    /// lately.
    pub(crate) fn is_reached(&self, host: &HostName) -> bool {
        let missed_max = self.silence_limits(None).ping_each.saturating_add(1);
        let slot = self.host_link(host).and_then(|link| self.links.get(link));
        slot.is_some_and(|slot| slot.missed <= missed_max)
    }

    /// A host is not reached: what is due for a worker there is looked at again later.
    pub(crate) fn look_later(&mut self, key: WorkerKey, due: Due) {
        if self.host_link(&self.workers[key].host).is_some() {
            // It is silent, and not yet taken for lost.
            self.wait_for(key, self.settings.get(Setting::SilenceMs), due);
        }
        // Else the host's next list decides.
    }

    /// A worker has so long to log in, to come back, or to end. What was due for it before, when
    /// its connection was lost an earlier time, is not any more.
    pub(crate) fn wait_for(&mut self, key: WorkerKey, wait_ms: u64, due: Due) {
        let until = self.now.plus_millis(wait_ms);
        self.workers[key].wait_until = until;
        self.due.add(until, due);
    }

    /// How long a worker that lost its connection is waited for. On another machine it may have
    /// been unreachable since, and tries to come back as long as was announced at its login; one
    /// that is busy looks for its broker only when it is done.
    pub(crate) fn return_wait_ms(&self, key: WorkerKey) -> u64 {
        let worker = &self.workers[key];
        let least = self.settings.get(Setting::ReturnMs);
        let set = self.settings.get(Setting::ReconnectMs);
        let (reconnect, silence) = worker.announced.unwrap_or_else(|| (set, self.silence_ms()));
        let is_builtin = self.hosts.named(&worker.host).is_some_and(|host| host.is_builtin);
        if is_builtin || worker.is_refused || reconnect == 0 {
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

    /// A worker that owes an answer was silent for this many beats: how many are the end? While
    /// another machine may still say by its kernel that it is unreachable, that is waited for.
    pub(crate) fn beats_of_worker(&self, key: WorkerKey, limits: &SilenceLimits) -> u32 {
        match self.may_be_unreachable(key) {
            Unreachable::No | Unreachable::MayBe => limits.end,
            Unreachable::KernelTells => {
                limits.end.saturating_add(limits.ping_each).saturating_add(2)
            }
        }
    }

    /// A worker was silent too long. One that hangs is killed; one that may be unreachable loses
    /// its connection and is waited for.
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

/// Whether a silent worker may be unreachable instead of hanging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Unreachable {
    /// It is on this machine.
    No,
    /// Its host is reached, and the kernel of its machine would say if only its own connection
    /// were gone.
    KernelTells,
    /// Its host is silent, too, or something stands between that answers for it.
    MayBe,
}
