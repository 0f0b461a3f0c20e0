//! Workers that can't be reached: how long one that lost its connection is waited for, whether its
//! host can be asked to do anything, what silence means. A machine that is cut off keeps its
//! workers (docs/decisions/0021). Not what follows an end: `process`.

use super::fact::FactKind;
use super::heartbeat::Patience;
use super::hosts::HostState;
use super::hub::{Engine, Out};
use super::input::Close;
use super::keys::WorkerKey;
use super::timers::Timer;
use protocol::ids::LinkId;
use protocol::names::HostName;
use protocol::settings::Setting;

/// A worker may notice its loss later than the broker, and its last attempt to come back may begin
/// just before its time is over and take this long.
const RETURN_MARGIN_MS: u64 = 5000;

impl Engine {
    /// Whether a host does what it is asked now, as far as is known: it is up, and was heard of
    /// lately.
    pub(crate) fn is_reached(&self, host: &HostName) -> bool {
        let missed_max = self.patience(None).ping_each.saturating_add(1);
        let slot = self.host_link(host).and_then(|link| self.links.get(link));
        slot.is_some_and(|slot| slot.missed <= missed_max)
    }

    /// A host is not reached: what is due for a worker there is looked at again later.
    pub(crate) fn look_later(&mut self, key: WorkerKey, timer: Timer) {
        if self.host_link(&self.workers[key].host).is_some() {
            // It is silent, and not yet taken for lost.
            self.wait_for(key, self.settings.get(Setting::SilenceMs), timer);
        }
        // Else the host's next list decides.
    }

    /// A worker has so long to log in, to come back, or to end. What was due for it before, when
    /// its connection was lost an earlier time, is not any more.
    pub(crate) fn wait_for(&mut self, key: WorkerKey, wait_ms: u64, timer: Timer) {
        let until = self.now.plus_millis(wait_ms);
        self.workers[key].wait_until = until;
        self.timers.add(until, timer);
    }

    /// How long a worker that lost its connection is waited for. On another machine it may have
    /// been cut off, and tries to come back as long as was announced at its login; one that is busy
    /// looks for its broker only when it is done, in `work_ms` at most.
    pub(crate) fn return_wait_ms(&self, key: WorkerKey, work_ms: u64) -> u64 {
        let worker = &self.workers[key];
        let least = self.settings.get(Setting::ReturnMs);
        let set = self.settings.get(Setting::ReconnectMs);
        let (reconnect, silence) = worker.announced.unwrap_or_else(|| (set, self.silence_ms()));
        let is_builtin = self.hosts.named(&worker.host).is_some_and(|host| host.is_builtin);
        if is_builtin || worker.is_refused || reconnect == 0 {
            return least;
        }
        least.max(reconnect + silence + RETURN_MARGIN_MS + work_ms)
    }

    /// A worker that owes an answer was silent for this many beats: how many are the end? While
    /// another machine may still say by its kernel that it is cut off, that is waited for.
    pub(crate) fn beats_of_worker(&self, key: WorkerKey, patience: &Patience) -> u32 {
        match self.may_be_cut_off(key) {
            CutOff::No | CutOff::MayBe => patience.end,
            CutOff::KernelTells => {
                patience.end.saturating_add(patience.ping_each).saturating_add(2)
            }
        }
    }

    /// A worker was silent too long. One that hangs is killed; one that may be cut off loses its
    /// connection and is waited for.
    pub(crate) fn silent_worker(&mut self, link: LinkId, key: WorkerKey, why: &str, out: Out<'_>) {
        if self.may_be_cut_off(key) == CutOff::MayBe && !self.workers[key].is_self_started {
            self.close_link(link, out);
            self.worker_lost(key, Close::TimedOut, why, out);
            return;
        }
        let what = format!("{why}; it is killed");
        self.worker_fact(FactKind::WorkerKilled, key, &what, out);
        self.kill_worker(key, "was silent and is killed", out);
    }

    fn may_be_cut_off(&self, key: WorkerKey) -> CutOff {
        let worker = &self.workers[key];
        let host = self.hosts.named(&worker.host);
        if host.is_some_and(|host| host.is_builtin) && !worker.is_self_started {
            return CutOff::No;
        }
        let slot = self.dispatch.seat(key).link.and_then(|link| self.links.get(link));
        let is_other = slot.is_some_and(|slot| slot.peer.is_remote);
        let is_up = host.is_some_and(|host| matches!(host.state, HostState::Up(_)));
        match (is_other, is_up && self.is_reached(&worker.host)) {
            (true, true) => CutOff::KernelTells,
            (true, false) | (false, true | false) => CutOff::MayBe,
        }
    }
}

/// Whether a silent worker may be cut off instead of hanging.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum CutOff {
    /// It is on this machine.
    No,
    /// Its host is reached, and the kernel of its machine would say if only its own connection
    /// were gone.
    KernelTells,
    /// Its host is silent, too, or something stands between that answers for it.
    MayBe,
}
