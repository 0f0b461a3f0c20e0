//! Replaces a built-in execd that outlived its broker, if it enforces what was set for the broker
//! before, or runs another program file. Its welcome says so. It hands its workers over to a new
//! execd, which adopts them; until then nothing is started on the host (docs/decisions/0029).

use super::machine::Supervision;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::quotas::Class;
use crate::engine::supervision::host::Host;
use protocol::bodies::{ExecEnd, ExecWelcome};
use protocol::{Frame, LinkId};

/// Most workers that a warning lists by id.
const NAMED_MAX: usize = 10;

impl Host {
    /// How its execd differs from what it must be; goes on after "its execd". `None` = it does not.
    pub(crate) fn differs(&self, welcome: &ExecWelcome) -> Option<&'static str> {
        let must = self.must.as_ref()?;
        match (must.policy == welcome.policy, must.binary == welcome.binary) {
            (true, true) => None,
            (false, true) => {
                Some("enforces other rights, limits or bounds than isectd now asks for")
            }
            (true, false) => Some("is another program file than isectd"),
            (false, false) => Some(
                "is another program file than isectd, and enforces other rights, limits or bounds \
                 than isectd now asks for",
            ),
        }
    }
}

impl Supervision {
    /// Asks an execd that is not what it must be to hand over to a new one. If it can't, that is
    /// recorded, and nothing is started on the host.
    pub(crate) fn replace_execd(
        &mut self,
        link: LinkId,
        key: HostKey,
        welcome: &ExecWelcome,
        what: &str,
        cx: &mut Context<'_>,
    ) {
        let host = &mut self.hosts[key];
        let name = host.name.clone();
        let pid = welcome.hostpid;
        let text = format!("its execd (pid {pid}, version {}) {what}", welcome.version);
        let was_asked = std::mem::replace(&mut host.handing, pid) == pid;
        let why = if welcome.hands_over && !was_asked {
            let text =
                format!("host {name}: {text}; a new one takes its place and adopts its workers");
            let about = About { host: Some(name.clone()), ..About::default() };
            cx.record(FactKind::HostWarning, about, text);
            "its execd hands over to a new one".to_owned()
        } else {
            let why = format!(
                "{text}, and does not hand over; nothing is started by it: end it with 'kill -KILL \
                 {pid}', its workers go on and the new one adopts them"
            );
            if host.unfit.replace(why.clone()).is_none() {
                let about = About { host: Some(name.clone()), ..About::default() };
                cx.record(FactKind::HostWarning, about, format!("host {name}: {why}"));
            }
            why
        };
        if welcome.hands_over {
            let end = ExecEnd { grace_ms: 0, keep: true };
            cx.out.push(Action::Send { link, frame: Frame::ExecEnd(end) });
        }
        cx.effects.push(Effect::CloseLink { link });
        self.host_down(key, why, cx);
    }

    /// Refuses a `start` of workers that are all on hosts where nothing can be started.
    pub(crate) fn all_startable(&self, keys: &[WorkerKey]) -> Result<(), String> {
        let unfit = |key: &WorkerKey| self.hosts.named(&self.workers[*key].host)?.unfit.as_ref();
        let Some(why) = keys.first().and_then(unfit) else { return Ok(()) };
        if keys.iter().any(|key| unfit(key).is_none()) {
            return Ok(());
        }
        let host = &self.workers[keys[0]].host;
        Err(format!("nothing can be started on host {host}: {why}"))
    }

    /// Records that the execd of a configured host enforces something else than at its last
    /// welcome. The operator of that execd decides it, and new workers obey it.
    pub(crate) fn record_policy(&mut self, key: HostKey, before: &str, cx: &mut Context<'_>) {
        let host = &self.hosts[key];
        if host.is_builtin || before.is_empty() || before == host.policy {
            return;
        }
        let name = host.name.clone();
        let text = format!(
            "host {name}: its execd (pid {}) enforces other rights, limits or bounds than before; \
             workers that are started from now on obey those (policy {}, was {before})",
            host.pid, host.policy
        );
        if cx.may_cause(Class::Host, None) {
            let about = About { host: Some(name), ..About::default() };
            cx.record(FactKind::HostWarning, about, text);
        }
    }

    /// Records which workers run under a policy that is not in force any more.
    pub(crate) fn record_older(&mut self, key: HostKey, cx: &mut Context<'_>) {
        let host = &self.hosts[key];
        if host.older.is_empty() {
            return;
        }
        let name = host.name.clone();
        let count = host.older.len();
        let mut list: Vec<String> =
            host.older.iter().take(NAMED_MAX).map(ToString::to_string).collect();
        if count > NAMED_MAX {
            list.push(format!("{} more", count - NAMED_MAX));
        }
        let text = format!(
            "host {name}: worker {} was started under other rights, limits or bounds than are in \
             force now and keeps them until it is started again ('stop', then 'start')",
            list.join(", ")
        );
        let about = About { host: Some(name), ..About::default() };
        cx.record(FactKind::HostWarning, about, text);
    }
}
