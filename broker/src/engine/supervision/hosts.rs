//! The hosts, machines with an execd: the broker dials them, asks which processes they have, and
//! dials again those that it lost. `greeting` says which execds are trusted; `starts` and `process`
//! handle the workers on them.

use super::host::RETRY_MIN_MS;
use super::host_state::HostEvent;
use super::machine::Supervision;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::counted::counted;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::input::{Expected, Report};
use crate::engine::keys::{HostKey, WorkerKey};
use crate::engine::quotas::{Class, LINE_BYTES_MAX};
use crate::engine::supervision::host::{Host, HostConnection, KeptOutput};
use crate::engine::supervision::host_state::HostState;
use crate::engine::timers::Timer;
use protocol::bodies::ExecListed;
use protocol::{HostName, LinkId, Setting, show};

/// Milliseconds that a host must have been up before the next dial after a loss comes fast again;
/// `host_retry_ms` if that is shorter. A host that comes up and closes at once is not healthy, and
/// each dial may cost it a signature.
const STEADY_MS: u64 = 10_000;

impl Supervision {
    /// Adds a host and dials it, or has it dialled at the end of the start.
    pub(crate) fn add_host(
        &mut self,
        name: &HostName,
        address: String,
        is_builtin: bool,
        cx: &mut Context<'_>,
    ) {
        let key = self.hosts.add(Host {
            name: name.clone(),
            address,
            state: HostState::START,
            is_builtin,
            is_drained: false,
            retry_ms: RETRY_MIN_MS,
            since: cx.now,
            pid: 0,
            version: String::new(),
            policy: String::new(),
            older: Vec::new(),
            must: None,
            handing: 0,
            unfit: None,
            why: "not dialled yet".into(),
            is_loss_recorded: false,
            connection: HostConnection::default(),
        });
        self.dial(key, cx);
    }

    /// `Timer::Dial`: dials a host again, unless it was deleted.
    pub(crate) fn on_dial_due(&mut self, name: &HostName, cx: &mut Context<'_>) {
        if let Some(key) = self.hosts.find(name) {
            self.dial(key, cx);
        }
    }

    /// Dials all hosts, at the end of the start.
    pub(crate) fn dial_all(&mut self, cx: &mut Context<'_>) {
        let keys: Vec<HostKey> = self.hosts.by_name().map(|(key, _)| key).collect();
        keys.into_iter().for_each(|key| self.dial(key, cx));
    }

    /// Dials a host that is down, unless the broker still starts, or shuts down. An execd that was
    /// asked to hand over is awaited then, too: the next one has its workers.
    fn dial(&mut self, key: HostKey, cx: &mut Context<'_>) {
        let host = &mut self.hosts[key];
        let is_awaited = !cx.is_shutting_down || (host.is_builtin && host.handing != 0);
        if host.state == HostState::Down && cx.is_started && is_awaited {
            // Only one dial of a host at a time, because its outcome names the host and not the
            // address. `dial_ended` dials the new address.
            if !self.dials.insert(host.name.clone()) {
                host.enter(HostEvent::Wait);
                return;
            }
            host.enter(HostEvent::Dial);
            cx.out.push(Action::Dial { host: host.name.clone(), address: host.address.clone() });
        }
    }

    /// The link on which a host can be asked to start and end processes, if it is up.
    pub(crate) fn host_link(&self, name: &HostName) -> Option<LinkId> {
        let HostState::Up(link) = self.hosts.named(name)?.state else { return None };
        Some(link)
    }

    /// Whether the execd of a host keeps output; if not, its version.
    pub(crate) fn keeps_output(&self, name: &HostName) -> Result<(), &str> {
        match self.hosts.named(name) {
            Some(host) if host.connection.kept_output != KeptOutput::No => Ok(()),
            host => Err(host.map_or("", |host| host.version.as_str())),
        }
    }

    /// The execd of a host is asked for output that it keeps.
    pub(crate) fn output_asked(&mut self, name: &HostName) {
        if let Some(key) = self.hosts.find(name) {
            self.hosts[key].connection.kept_output = KeptOutput::Asked;
        }
    }

    /// `Action::Dial` succeeded. Returns which host is at the link, and its address; `None` if the
    /// link is to be closed.
    pub(crate) fn on_host_opened(
        &mut self,
        link: LinkId,
        name: HostName,
        must: Option<Box<Expected>>,
        cx: &mut Context<'_>,
    ) -> Option<(HostKey, String)> {
        let key = self.dial_ended(&name, cx);
        let Some(key) = key.filter(|&key| self.hosts[key].state == HostState::Dialing) else {
            // It was deleted or got another address while it was dialled.
            return None;
        };
        let host = &mut self.hosts[key];
        host.enter(HostEvent::Open(link));
        host.connection = HostConnection::default();
        host.must = must;
        let address = host.address.clone();
        self.begin_greeting(link, key, cx);
        Some((key, address))
    }

    pub(crate) fn on_host_refused(&mut self, name: &HostName, why: String, cx: &mut Context<'_>) {
        if let Some(key) = self.dial_ended(name, cx)
            && self.hosts[key].state == HostState::Dialing
        {
            self.host_down(key, why, cx);
        }
    }

    /// The host of a dial that has its outcome; `None` = the host was deleted, or it has another
    /// address by now, which is dialled instead.
    fn dial_ended(&mut self, name: &HostName, cx: &mut Context<'_>) -> Option<HostKey> {
        self.dials.remove(name);
        let key = self.hosts.find(name)?;
        let host = &mut self.hosts[key];
        if host.state == HostState::WaitingToDial {
            host.enter(HostEvent::Fail);
            self.dial(key, cx);
            return None;
        }
        Some(key)
    }

    /// The link to a host is gone, or could not be made: records that and dials again later.
    pub(crate) fn host_down(&mut self, key: HostKey, why: String, cx: &mut Context<'_>) {
        let retry_max = cx.settings.get(Setting::HostRetryMs);
        // Parts of the text may come from the peer: its certificate, its error.
        let mut why = show::brief(&why, LINE_BYTES_MAX);
        let host = &mut self.hosts[key];
        let name = host.name.clone();
        let was_up = matches!(host.state, HostState::Up(_));
        host.enter(HostEvent::Fail);
        if std::mem::take(&mut host.connection.is_shutting_down) {
            why = format!("its execd was shutting down; {why}");
        }
        if was_up {
            let up_ms = cx.now.since(host.since).as_millis();
            if up_ms >= retry_max.min(STEADY_MS) {
                host.retry_ms = RETRY_MIN_MS;
            }
            host.since = cx.now;
        }
        cx.timers.add(cx.now.plus_millis(host.retry_ms.min(retry_max)), Timer::Dial(name.clone()));
        host.retry_ms = (host.retry_ms * 2).min(retry_max);
        // A built-in execd that is being started refuses once or twice; that is not recorded.
        let is_news = !host.is_loss_recorded && (was_up || !host.is_builtin || host.retry_ms > 800);
        host.is_loss_recorded |= is_news;
        let more = match host.connection.rejected_reports {
            0 | 1 => String::new(),
            count => format!("; {count} of its reports were ignored"),
        };
        let text = format!("host {name} at {}: {why}{more}", host.address);
        host.why = why;
        // A host that comes and goes as fast as it is dialled may cause only so many facts.
        if is_news && !cx.is_shutting_down && cx.may_cause(Class::Host, None) {
            let about = About { host: Some(name), ..About::default() };
            cx.record(FactKind::HostLost, about, text);
        }
        self.host_gone(key, cx);
    }

    /// A report of the execd at a link.
    pub(crate) fn on_report(
        &mut self,
        link: LinkId,
        key: HostKey,
        report: Report,
        cx: &mut Context<'_>,
    ) {
        let host = &mut self.hosts[key];
        match (report, host.state) {
            (Report::Welcome(welcome, signature), state) if state.is_awaiting_welcome() => {
                self.on_welcome(link, key, welcome, signature, cx);
            }
            (Report::Listed(listed), HostState::Listing(at)) if at == link => {
                if let Some(why) = self.duplicate_host(key, &listed.children, cx.catalog) {
                    cx.effects.push(Effect::CloseLink { link });
                    self.host_down(key, why, cx);
                } else {
                    self.on_listed(link, key, &listed, cx);
                }
            }
            (Report::Output(output), _) if !cx.may_pass_on(&output.line, link) => {}
            // `logs` has taken it, if it waits for it.
            (Report::Lines(_), HostState::Up(at))
                if at == link && host.connection.kept_output == KeptOutput::Asked => {}
            (report, _) => {
                if let Some(worker) = self.worker_of_report(link, key, &report, cx) {
                    self.on_valid_report(worker, &report, cx);
                }
            }
        }
    }

    /// Handles a report about a worker that `worker_of_report` found valid.
    fn on_valid_report(&mut self, key: WorkerKey, report: &Report, cx: &mut Context<'_>) {
        match report {
            Report::Welcome(..) | Report::Listed(_) | Report::Lines(_) => {}
            Report::Memory(memory) => {
                let bytes = memory.rss_bytes;
                cx.effects.push(Effect::Memory { worker: key, bytes });
            }
            Report::Started(started) => self.on_started(key, started, cx),
            Report::Failed(failed) => self.on_start_failed(key, failed, cx),
            Report::Exited(exited) => self.on_exited(key, exited, cx),
            Report::Output(output) => self.on_output(key, output, cx),
        }
    }

    fn on_listed(&mut self, link: LinkId, key: HostKey, listed: &ExecListed, cx: &mut Context<'_>) {
        let host = &mut self.hosts[key];
        let name = host.name.clone();
        host.enter(HostEvent::List);
        let away = std::mem::replace(&mut host.since, cx.now);
        (host.handing, host.unfit) = (0, None);
        if !host.connection.is_shutting_down {
            host.why.clear();
        }
        let mut text = format!(
            "host {name} at {} is up with {}",
            host.address,
            counted(listed.children.len(), "running worker")
        );
        if std::mem::take(&mut host.is_loss_recorded) {
            text += &format!("; it was away for {} ms", cx.now.since(away).as_millis());
        }
        let is_builtin = host.is_builtin;
        let about = || About { host: Some(name.clone()), ..About::default() };
        if cx.may_cause(Class::Host, None) {
            cx.record(FactKind::HostUp, about(), text);
        }
        if let Some(warning) = cx.listening.local_warning.clone().filter(|_| is_builtin) {
            cx.record(FactKind::HostWarning, about(), format!("host {name}: {warning}"));
        }
        self.record_older(key, cx);
        self.host_listed(key, link, &listed.children, cx);
        if self.hosts[key].connection.is_shutting_down {
            self.end_with_host(key, cx);
        }
    }

    /// Removes a host, on which no worker may be configured, and closes its link.
    pub(crate) fn remove_host(&mut self, key: HostKey, cx: &mut Context<'_>) {
        if let Some(link) = self.hosts.remove(key).state.link() {
            cx.effects.push(Effect::CloseLink { link });
        }
    }

    /// Changes the address of a host: closes the link to the old one and dials the new one.
    pub(crate) fn move_host(&mut self, key: HostKey, address: String, cx: &mut Context<'_>) {
        let host = &mut self.hosts[key];
        let old = host.state.link();
        host.address = address;
        if matches!(host.state, HostState::Up(_)) {
            host.since = cx.now;
        }
        host.enter(HostEvent::Fail);
        host.connection.is_shutting_down = false;
        host.retry_ms = RETRY_MIN_MS;
        if let Some(link) = old {
            cx.effects.push(Effect::CloseLink { link });
            self.host_gone(key, cx);
        }
        self.dial(key, cx);
    }
}
