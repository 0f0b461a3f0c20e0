//! Workers that can't be reached: how long the broker waits for one that lost its connection,
//! whether its host can be asked to do something, and what the silence of a worker means. The
//! processes of a machine that can't be reached are kept (docs/decisions/0021).

use super::machine::Supervision;
use super::run::Reconnect;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::FactKind;
use crate::engine::input::Close;
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::silence_limits::{SilenceLimits, silence_ms};
use crate::engine::supervision::host::Host;
use crate::engine::supervision::host_state::HostState;
use crate::engine::timers::Timer;
use protocol::{HostName, Setting};

/// Milliseconds added to the wait for a worker's return: it may notice the loss later than the
/// broker, and begin its last attempt just before its time is over.
const RETURN_MARGIN_MS: u64 = 5000;

impl Supervision {
    /// Whether a host can be asked to do something, as far as is known: it is up, and was heard
    /// lately.
    pub(crate) fn is_reached(&self, host: &HostName) -> bool {
        let is_up = |host: &Host| matches!(host.state, HostState::Up(_));
        self.hosts.named(host).is_some_and(|host| is_up(host) && !host.connection.is_silent)
    }

    /// Whether a worker whose connection is lost may work on, on a machine that is unreachable. An
    /// end that its machine sends shows that it is not.
    pub(super) fn is_lost_with_machine(&self, key: WorkerKey, how: Close) -> bool {
        let worker = &self.workers[key];
        match how {
            Close::TimedOut => return true,
            Close::Eof | Close::Torn => return false,
            Close::Reset if worker.run.has_exited() => return false,
            Close::Reset => {}
        }
        let host = self.hosts.named(&worker.host);
        let is_elsewhere = !worker.is_self_started && host.is_some_and(|host| !host.is_builtin);
        is_elsewhere && !self.is_reached(&worker.host)
    }

    /// Looks at a worker again later, because its host can't be reached now.
    pub(super) fn look_later(&mut self, key: WorkerKey, timer: Timer, cx: &mut Context<'_>) {
        if self.host_link(&self.workers[key].host).is_some() {
            // The host is silent, and does not count as lost yet.
            self.wait_for(key, cx.settings.get(Setting::SilenceMs), timer, cx);
        }
        // Otherwise the next list of the host decides.
    }

    /// Gives a worker this time to log in or to come back, or its connection to end after its
    /// process. It replaces an earlier time. For one that was asked to end see `wait_for_end`.
    pub(super) fn wait_for(
        &mut self,
        key: WorkerKey,
        wait_ms: u64,
        timer: Timer,
        cx: &mut Context<'_>,
    ) {
        let until = cx.now.plus_millis(wait_ms);
        self.workers[key].run.wait_until = until;
        cx.timers.add(until, timer);
    }

    /// How long a worker that lost its connection is waited for. On another machine it may have
    /// been cut off, and tries to come back as long as was announced at its login; one that is busy
    /// looks for its broker only when it is done, in `work_ms` at most.
    pub(super) fn return_wait_ms(&self, key: WorkerKey, work_ms: u64, cx: &Context<'_>) -> u64 {
        let worker = &self.workers[key];
        let least = cx.settings.get(Setting::ReturnMs);
        let (reconnect, silence) = match worker.run.reconnect {
            Reconnect::AsSet => (cx.settings.get(Setting::ReconnectMs), silence_ms(cx.settings)),
            Reconnect::Announced { reconnect_ms, silence_ms } => (reconnect_ms, silence_ms),
            Reconnect::Refused => return least,
        };
        let is_builtin = self.hosts.named(&worker.host).is_some_and(|host| host.is_builtin);
        if is_builtin || reconnect == 0 {
            return least;
        }
        least.max(reconnect + silence + RETURN_MARGIN_MS + work_ms)
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
    pub(crate) fn silent_worker(&mut self, key: WorkerKey, why: &str, cx: &mut Context<'_>) {
        if self.may_be_unreachable(key) == Unreachable::MayBe && !self.workers[key].is_self_started
        {
            let (how, why) = (Close::TimedOut, why.to_owned());
            cx.effects.push(Effect::Disconnect { worker: key, how, why });
            return;
        }
        let what = format!("{why}; it is killed");
        self.worker_fact(FactKind::WorkerKilled, key, &what, cx);
        self.kill_worker(key, "was silent and is killed", cx);
    }

    fn may_be_unreachable(&self, key: WorkerKey) -> Unreachable {
        let worker = &self.workers[key];
        let host = self.hosts.named(&worker.host);
        if host.is_some_and(|host| host.is_builtin) && !worker.is_self_started {
            return Unreachable::No;
        }
        let is_up = host.is_some_and(|host| matches!(host.state, HostState::Up(_)));
        let is_remote = worker.connection.is_some_and(|connection| connection.is_remote);
        match (is_remote, is_up && self.is_reached(&worker.host)) {
            (true, true) => Unreachable::KernelTells,
            (true, false) | (false, true | false) => Unreachable::MayBe,
        }
    }

    /// The host has answered no ping for a while.
    pub(crate) fn silent_host(&mut self, key: HostKey) {
        self.hosts[key].connection.is_silent = true;
    }

    /// Something came of a host.
    pub(crate) fn heard_host(&mut self, key: HostKey) {
        self.hosts[key].connection.is_silent = false;
    }

    /// Silence is counted from now on.
    pub(crate) fn all_heard(&mut self) {
        self.hosts.all_mut().for_each(|host| host.connection.is_silent = false);
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
