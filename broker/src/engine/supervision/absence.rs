//! Workers that can't be reached: how long one that lost its connection is waited for, whether its
//! host can be asked to do anything, what silence means. A machine that is cut off keeps its
//! workers (docs/decisions/0021). Not what follows an end: `process`.

use super::hosts::{Host, HostState};
use super::machine::Supervision;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::FactKind;
use crate::engine::heartbeat::Patience;
use crate::engine::heartbeat::silence_ms;
use crate::engine::input::Close;
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::timers::Timer;
use protocol::names::HostName;
use protocol::settings::Setting;

/// A worker may notice its loss later than the broker, and its last attempt to come back may begin
/// just before its time is over and take this long.
const RETURN_MARGIN_MS: u64 = 5000;

impl Supervision {
    /// Whether a host does what it is asked now, as far as is known: it is up, and was heard of
    /// lately.
    pub(crate) fn is_reached(&self, host: &HostName) -> bool {
        let is_up = |host: &Host| matches!(host.state, HostState::Up(_));
        self.hosts.named(host).is_some_and(|host| is_up(host) && !host.is_silent)
    }

    /// A host is not reached: what is due for a worker there is looked at again later.
    pub(super) fn look_later(&mut self, key: WorkerKey, timer: Timer, cx: &mut Context<'_>) {
        if self.host_link(&self.workers[key].host).is_some() {
            // It is silent, and not yet taken for lost.
            self.wait_for(key, cx.settings.get(Setting::SilenceMs), timer, cx);
        }
        // Else the host's next list decides.
    }

    /// A worker has so long to log in, to come back, or to end. What was due for it before, when
    /// its connection was lost an earlier time, is not any more.
    pub(super) fn wait_for(
        &mut self,
        key: WorkerKey,
        wait_ms: u64,
        timer: Timer,
        cx: &mut Context<'_>,
    ) {
        let until = cx.now.plus_millis(wait_ms);
        self.workers[key].wait_until = until;
        cx.timers.add(until, timer);
    }

    /// How long a worker that lost its connection is waited for. On another machine it may have
    /// been cut off, and tries to come back as long as was announced at its login; one that is busy
    /// looks for its broker only when it is done, in `work_ms` at most.
    pub(super) fn return_wait_ms(&self, key: WorkerKey, work_ms: u64, cx: &Context<'_>) -> u64 {
        let worker = &self.workers[key];
        let least = cx.settings.get(Setting::ReturnMs);
        let set = cx.settings.get(Setting::ReconnectMs);
        let (reconnect, silence) =
            worker.announced.unwrap_or_else(|| (set, silence_ms(cx.settings)));
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
    pub(crate) fn silent_worker(&mut self, key: WorkerKey, why: &str, cx: &mut Context<'_>) {
        if self.may_be_cut_off(key) == CutOff::MayBe && !self.workers[key].is_self_started {
            let (how, why) = (Close::TimedOut, why.to_owned());
            cx.effects.push(Effect::Disconnect { worker: key, how, why });
            return;
        }
        let what = format!("{why}; it is killed");
        self.worker_fact(FactKind::WorkerKilled, key, &what, cx);
        self.kill_worker(key, "was silent and is killed", cx);
    }

    fn may_be_cut_off(&self, key: WorkerKey) -> CutOff {
        let worker = &self.workers[key];
        let host = self.hosts.named(&worker.host);
        if host.is_some_and(|host| host.is_builtin) && !worker.is_self_started {
            return CutOff::No;
        }
        let is_up = host.is_some_and(|host| matches!(host.state, HostState::Up(_)));
        match (worker.is_remote, is_up && self.is_reached(&worker.host)) {
            (true, true) => CutOff::KernelTells,
            (true, false) | (false, true | false) => CutOff::MayBe,
        }
    }

    /// The host has answered no ping for a while.
    pub(crate) fn silent_host(&mut self, key: HostKey) {
        self.hosts[key].is_silent = true;
    }

    /// Something came of a host.
    pub(crate) fn heard_host(&mut self, key: HostKey) {
        self.hosts[key].is_silent = false;
    }

    /// Silence is counted from now on.
    pub(crate) fn all_heard(&mut self) {
        self.hosts.all_mut().for_each(|host| host.is_silent = false);
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
