//! The hosts, machines with an execd: the broker dials them, greets their execds, asks which
//! processes they have, and dials again those that it lost. `starts` and `process` handle the
//! workers on them.

use super::action::{Action, Origin};
use super::due::Due;
use super::fact::{About, FactKind};
use super::input::{Expected, Peer, Report};
use super::keys::{HostKey, Table, WorkerKey};
use super::links::End;
use super::op_read::counted;
use super::quotas::{Class, LINE_BYTES_MAX, TEXT_BYTES_MAX};
use super::{Engine, Out};
use protocol::bodies::{ExecHello, ExecListed};
use protocol::frame::Frame;
use protocol::ids::{LinkId, WorkerId};
use protocol::names::HostName;
use protocol::proof::Challenge;
use protocol::settings::Setting;
use protocol::show;
use protocol::time::Tick;
use std::collections::BTreeMap;

/// How far the link to a host's execd is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum HostState {
    /// No link; `Due::Dial` dials again.
    Down,
    /// `Action::Dial` was given and has no answer yet.
    Dialing,
    /// The hello was sent, and the welcome has not come.
    Greeting(LinkId),
    /// The list of its processes was asked for and has not come.
    Listing(LinkId),
    /// It starts and ends processes for this broker.
    Up(LinkId),
}

/// A machine with an execd, as it was configured; or the built-in `localhost`.
#[derive(Debug)]
pub(crate) struct Host {
    /// Workers name their host by it; it never changes.
    pub(crate) name: HostName,
    /// Where its execd listens, as the operator wrote it. `config host` may change it.
    pub(crate) address: String,
    /// How far the link is.
    pub(crate) state: HostState,
    /// Whether it is `localhost`, whose execd this broker starts.
    pub(crate) is_builtin: bool,
    /// Milliseconds that the next dial waits after a loss.
    retry_ms: u64,
    /// Since when it is up, or since when it is not; further dials do not change it.
    pub(crate) since: Tick,
    /// Process id of its execd, from the last welcome; 0 = there was none.
    pub(crate) pid: u32,
    /// Version of its execd, from the last welcome.
    pub(crate) version: String,
    /// Digest of what its execd enforces on workers, from the last welcome.
    pub(crate) policy: String,
    /// Workers whose processes run under another policy, from the last welcome.
    pub(crate) older: Vec<WorkerId>,
    /// What its welcome must report; `None` = anything will do.
    pub(crate) must: Option<Box<Expected>>,
    /// Process id of the execd that was asked to hand over; 0 = none was.
    pub(crate) handing: u32,
    /// Why nothing may be started there although its execd answers.
    pub(crate) unfit: Option<String>,
    /// Why it is down or shutting down, for `hosts`; empty = it is up.
    pub(crate) why: String,
    /// Its present loss was recorded.
    is_loss_recorded: bool,
    /// The dial under way goes to an address that it had before.
    is_misdialled: bool,
    /// Its execd reported on this connection that it shuts down, so nothing is started there.
    pub(crate) is_shutting_down: bool,
    /// Invalid reports on this connection.
    pub(crate) rejected_reports: u64,
}

/// All hosts, by key and by name.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    table: Table<HostKey, Host>,
    names: BTreeMap<HostName, HostKey>,
}

/// Milliseconds that the first dial after a loss waits; each further one waits twice as long, up to
/// `host_retry_ms`.
const RETRY_MIN_MS: u64 = 50;

/// Milliseconds that a host may take to send welcome and list, although it answers pings. This is
/// longer than an execd lets a proof wait for its turn, and than many handshakes at once take.
const GREETING_MS: u64 = 30_000;

/// Milliseconds that a host must have been up before the next dial after a loss comes fast again;
/// `host_retry_ms` if that is shorter. A host that comes up and closes at once is not healthy, and
/// each dial may cost it a signature.
const STEADY_MS: u64 = 10_000;

impl HostState {
    /// The link to its execd, if there is one.
    pub(crate) const fn link(self) -> Option<LinkId> {
        match self {
            Self::Greeting(link) | Self::Listing(link) | Self::Up(link) => Some(link),
            Self::Down | Self::Dialing => None,
        }
    }

    /// The word that `hosts` shows for it.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Dialing => "dialing",
            Self::Greeting(_) | Self::Listing(_) => "greeting",
            Self::Up(_) => "up",
        }
    }
}

impl Hosts {
    /// Adds a host; it replaces one of the same name.
    fn add(&mut self, host: Host) -> HostKey {
        if let Some(key) = self.find(&host.name) {
            self.table[key] = host;
            return key;
        }
        let name = host.name.clone();
        let key = self.table.insert(host);
        self.names.insert(name, key);
        key
    }

    fn remove(&mut self, key: HostKey) -> Host {
        let host = self.table.remove(key);
        self.names.remove(&host.name);
        host
    }

    /// The host with this name.
    pub(crate) fn find(&self, name: &HostName) -> Option<HostKey> {
        self.names.get(name).copied()
    }

    /// The host that a worker names, if it is configured.
    pub(crate) fn named(&self, name: &HostName) -> Option<&Host> {
        self.find(name).map(|key| &self.table[key])
    }

    /// The host with this key, which may be gone.
    pub(crate) fn get(&self, key: HostKey) -> Option<&Host> {
        self.table.get(key)
    }

    /// All hosts in the order of their names.
    pub(crate) fn by_name(&self) -> impl Iterator<Item = (HostKey, &Host)> {
        self.names.values().map(|&key| (key, &self.table[key]))
    }
}

impl std::ops::Index<HostKey> for Hosts {
    type Output = Host;
    fn index(&self, key: HostKey) -> &Host {
        &self.table[key]
    }
}

impl std::ops::IndexMut<HostKey> for Hosts {
    fn index_mut(&mut self, key: HostKey) -> &mut Host {
        &mut self.table[key]
    }
}

impl Engine {
    /// Adds a host and dials it.
    pub(crate) fn add_host(
        &mut self,
        name: &HostName,
        address: String,
        is_builtin: bool,
        out: Out<'_>,
    ) {
        let key = self.hosts.add(Host {
            name: name.clone(),
            address,
            state: HostState::Down,
            is_builtin,
            retry_ms: RETRY_MIN_MS,
            since: self.now,
            pid: 0,
            version: String::new(),
            policy: String::new(),
            older: Vec::new(),
            must: None,
            handing: 0,
            unfit: None,
            why: "not dialled yet".into(),
            is_loss_recorded: false,
            is_misdialled: false,
            is_shutting_down: false,
            rejected_reports: 0,
        });
        self.dial(key, out);
    }

    /// `Due::Dial`: dials a host again, unless it was deleted.
    pub(crate) fn on_dial_due(&mut self, name: &HostName, out: Out<'_>) {
        if let Some(key) = self.hosts.find(name) {
            self.dial(key, out);
        }
    }

    /// Dials a host that is down, unless the broker shuts down.
    fn dial(&mut self, key: HostKey, out: Out<'_>) {
        let host = &mut self.hosts[key];
        if host.state == HostState::Down && self.shutdown.is_none() {
            host.state = HostState::Dialing;
            // Only one dial of a host at a time, because its outcome names the host and not the
            // address. `dial_ended` dials the new address.
            if !self.dials.insert(host.name.clone()) {
                host.is_misdialled = true;
                return;
            }
            out.push(Action::Dial { host: host.name.clone(), address: host.address.clone() });
        }
    }

    /// The link on which a host can be asked to start and end processes, if it is up.
    pub(crate) fn host_link(&self, name: &HostName) -> Option<LinkId> {
        match self.hosts.named(name)?.state {
            HostState::Up(link) => Some(link),
            HostState::Down
            | HostState::Dialing
            | HostState::Greeting(_)
            | HostState::Listing(_) => None,
        }
    }

    /// A dial succeeded: sends the hello, if the host still has the address that was dialled.
    pub(crate) fn on_host_opened(
        &mut self,
        link: LinkId,
        name: HostName,
        (fd, must): (i32, Option<Box<Expected>>),
        out: Out<'_>,
    ) {
        let key = self.dial_ended(&name, out);
        let Some(key) = key.filter(|&key| self.hosts[key].state == HostState::Dialing) else {
            // It was deleted or got another address while it was dialled.
            out.push(Action::Close { link });
            return;
        };
        let host = &mut self.hosts[key];
        host.state = HostState::Greeting(link);
        (host.rejected_reports, host.is_shutting_down) = (0, false);
        host.must = must;
        let peer = Peer { address: host.address.clone(), fd, ..Peer::default() };
        self.links.open(link, End::Host(key), peer, self.now);
        self.due.add(self.now.plus_millis(GREETING_MS), Due::Greeting(link));
        let is_builtin = host.is_builtin;
        let broker = self.instance.clone();
        let hello = ExecHello { host: name, broker, token: None };
        out.push(if is_builtin {
            Action::Send { link, frame: Frame::ExecHello(hello) }
        } else {
            Action::Greet { link, hello: Box::new(hello) }
        });
    }

    /// `Due::Greeting`: closes a host that has not sent its welcome or its list in time.
    pub(crate) fn on_greeting_due(&mut self, link: LinkId, out: Out<'_>) {
        let Some(End::Host(key)) = self.links.get(link).map(|slot| slot.end) else { return };
        let what = match self.hosts[key].state {
            HostState::Greeting(at) if at == link => "exec-welcome",
            HostState::Listing(at) if at == link => "exec-listed",
            _ => return,
        };
        let why = format!("answers pings, but has sent no {what} for {GREETING_MS} ms; closing it");
        self.drop_link(link, why, out);
    }

    /// Whether the hello was sent on this link and no welcome has come.
    pub(crate) fn is_awaiting_welcome(&self, key: HostKey, link: LinkId) -> bool {
        self.hosts[key].state == HostState::Greeting(link)
    }

    /// Has the host's token proved to an execd that asks for it.
    pub(crate) fn on_challenged(&mut self, link: LinkId, challenge: Box<Challenge>, out: Out<'_>) {
        let Some(End::Host(key)) = self.links.get(link).map(|slot| slot.end) else { return };
        if self.is_awaiting_welcome(key, link) {
            out.push(Action::Prove { link, challenge });
        }
    }

    /// Closes a host whose token can't be proved, or whose execd has not proved that it knows the
    /// token.
    pub(crate) fn on_unproven(&mut self, link: LinkId, why: String, out: Out<'_>) {
        let Some(End::Host(key)) = self.links.get(link).map(|slot| slot.end) else { return };
        if self.may_cause(Class::Host, Some(link)) {
            let about = About { host: Some(self.hosts[key].name.clone()), ..About::default() };
            let why = show::brief(&why, TEXT_BYTES_MAX);
            self.record(FactKind::HostError, about, format!("the host's token: {why}"), out);
        }
        self.drop_link(link, "its token is not proved".into(), out);
    }

    /// A dial failed: the host is dialled again later.
    pub(crate) fn on_host_refused(&mut self, name: &HostName, why: String, out: Out<'_>) {
        if let Some(key) = self.dial_ended(name, out)
            && self.hosts[key].state == HostState::Dialing
        {
            self.host_down(key, why, out);
        }
    }

    /// The host of a dial that has its outcome; `None` = the host was deleted, or it has another
    /// address by now, which is dialled instead.
    fn dial_ended(&mut self, name: &HostName, out: Out<'_>) -> Option<HostKey> {
        self.dials.remove(name);
        let key = self.hosts.find(name)?;
        let host = &mut self.hosts[key];
        if std::mem::take(&mut host.is_misdialled) {
            host.state = HostState::Down;
            self.dial(key, out);
            return None;
        }
        Some(key)
    }

    /// The link to a host is gone, or could not be made: records that and dials again later.
    pub(crate) fn host_down(&mut self, key: HostKey, why: String, out: Out<'_>) {
        let retry_max = self.settings.get(Setting::HostRetryMs);
        // Parts of the text may come from the peer: its certificate, its error.
        let mut why = show::brief(&why, LINE_BYTES_MAX);
        let host = &mut self.hosts[key];
        let name = host.name.clone();
        let was_up = matches!(host.state, HostState::Up(_));
        host.state = HostState::Down;
        if std::mem::take(&mut host.is_shutting_down) {
            why = format!("its execd was shutting down; {why}");
        }
        if was_up {
            let up_ms = self.now.since(host.since).as_millis();
            if up_ms >= retry_max.min(STEADY_MS) {
                host.retry_ms = RETRY_MIN_MS;
            }
            host.since = self.now;
        }
        self.due.add(self.now.plus_millis(host.retry_ms.min(retry_max)), Due::Dial(name.clone()));
        host.retry_ms = (host.retry_ms * 2).min(retry_max);
        // A built-in execd that is being started refuses once or twice; that is not recorded.
        let is_news = !host.is_loss_recorded && (was_up || !host.is_builtin || host.retry_ms > 800);
        host.is_loss_recorded |= is_news;
        let more = match host.rejected_reports {
            0 | 1 => String::new(),
            count => format!("; {count} of its reports were ignored"),
        };
        let text = format!("host {name} at {}: {why}{more}", host.address);
        host.why = why;
        // A host that comes and goes as fast as it is dialled may cause only so many facts.
        if is_news && self.shutdown.is_none() && self.may_cause(Class::Host, None) {
            let about = About { host: Some(name), ..About::default() };
            self.record(FactKind::HostLost, about, text, out);
        }
        self.host_gone(key, out);
    }

    /// Handles a report of an execd: its welcome, its list, or a report about one worker.
    pub(crate) fn on_report(&mut self, link: LinkId, report: Report, out: Out<'_>) {
        let Some(End::Host(key)) = self.links.get(link).map(|slot| slot.end) else { return };
        let host = &mut self.hosts[key];
        match (report, host.state) {
            (Report::Welcome(welcome), HostState::Greeting(at)) if at == link => {
                host.pid = welcome.hostpid;
                host.version.clone_from(&welcome.version);
                let before = std::mem::replace(&mut host.policy, welcome.policy.clone());
                if let Some(what) = host.differs(&welcome) {
                    self.replace_execd(link, key, &welcome, what, out);
                    return;
                }
                host.older = welcome.older;
                host.state = HostState::Listing(link);
                out.push(Action::Send { link, frame: Frame::ExecList });
                self.record_policy(key, &before, out);
            }
            (Report::Listed(listed), HostState::Listing(at)) if at == link => {
                if let Some(why) = self.duplicate_host(key, &listed.children) {
                    self.close_link(link, out);
                    self.host_down(key, why, out);
                } else {
                    self.on_listed(link, key, &listed, out);
                }
            }
            (Report::Output(output), _) if !self.may_pass_on(&output.line, link) => {}
            (report, _) => {
                if let Some(worker) = self.worker_of_report(link, key, &report, out) {
                    self.on_valid_report(worker, &report, out);
                }
            }
        }
    }

    /// Handles a report about a worker that `worker_of_report` found valid.
    fn on_valid_report(&mut self, key: WorkerKey, report: &Report, out: Out<'_>) {
        match report {
            Report::Welcome(_) | Report::Listed(_) => {}
            Report::Started(started) => self.on_started(key, started, out),
            Report::Failed(failed) => self.on_start_failed(key, failed, out),
            Report::Exited(exited) => self.on_exited(key, exited, out),
            Report::Output(output) => self.on_output(key, output, out),
        }
    }

    /// A host listed its processes, so it is up: adopts, ends and starts workers by the list.
    fn on_listed(&mut self, link: LinkId, key: HostKey, listed: &ExecListed, out: Out<'_>) {
        let host = &mut self.hosts[key];
        let name = host.name.clone();
        host.state = HostState::Up(link);
        let away = std::mem::replace(&mut host.since, self.now);
        (host.handing, host.unfit) = (0, None);
        if !host.is_shutting_down {
            host.why.clear();
        }
        let mut text = format!(
            "host {name} at {} is up with {}",
            host.address,
            counted(listed.children.len(), "running worker")
        );
        if std::mem::take(&mut host.is_loss_recorded) {
            text += &format!("; it was away for {} ms", self.now.since(away).as_millis());
        }
        let is_builtin = host.is_builtin;
        let about = || About { host: Some(name.clone()), ..About::default() };
        if self.may_cause(Class::Host, None) {
            self.record(FactKind::HostUp, about(), text, out);
        }
        if let Some(warning) = self.listening.local_warning.clone().filter(|_| is_builtin) {
            self.record(FactKind::HostWarning, about(), format!("host {name}: {warning}"), out);
        }
        self.record_older(key, out);
        self.host_listed(key, link, &listed.children, out);
        if self.hosts[key].is_shutting_down {
            self.end_with_host(key);
        }
    }

    /// Removes a host, on which no worker may be configured, and closes its link.
    pub(crate) fn remove_host(&mut self, key: HostKey, out: Out<'_>) {
        if let Some(link) = self.hosts.remove(key).state.link() {
            self.close_link(link, out);
        }
    }

    /// Changes the address of a host: closes the link to the old one and dials the new one.
    pub(crate) fn move_host(&mut self, key: HostKey, address: String, out: Out<'_>) {
        let host = &mut self.hosts[key];
        let old = host.state.link();
        host.address = address;
        if matches!(host.state, HostState::Up(_)) {
            host.since = self.now;
        }
        host.state = HostState::Down;
        host.is_shutting_down = false;
        host.retry_ms = RETRY_MIN_MS;
        if let Some(link) = old {
            self.close_link(link, out);
            self.host_gone(key, out);
        }
        self.dial(key, out);
    }

    /// The origin of a change as facts name it.
    pub(crate) fn who(origin: &Origin) -> String {
        match origin {
            Origin::State => "the saved configuration".into(),
            Origin::File(path) => format!("file {path}"),
            Origin::Operator { client, from, uid, token } => {
                let uid = uid.map_or_else(String::new, |uid| format!(", uid {uid}"));
                let token =
                    token.as_ref().map_or_else(String::new, |token| format!(", token {token}"));
                format!("client {client} ({from}{uid}{token})")
            }
            Origin::Broker => "the broker".into(),
        }
    }
}
