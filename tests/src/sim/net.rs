//! The simulated network around the broker: its process that comes and goes, its connections, what
//! arrives on them. `apply` is what becomes of the engine's actions. The real reactor is tested on
//! real sockets.

mod apply;
mod bus;
mod requests;

use super::links::{Conn, Peer, ReadResult};
use super::world::{Event, ShutdownKind, World};
use crate::shell::{self, Choices, Player, TestShell};
use broker::engine::EngineOptions;
use broker::engine::input::{Close, Input, Listening, Peer as From};
use broker::engine::origin::Origin;
use broker::translate::inbound;
use bytes::Bytes;
use protocol::bodies::{ErrorBody, Login};
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::names::{HostName, ServiceName};
use protocol::op::reply::OpReply;
use protocol::peer_group::PeerGroup;
use protocol::settings::{Setting, Settings};
use protocol::time::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Name of the simulation's operator. It is local to the broker, so its commands pass no simulated
/// connection.
const OPERATOR: &str = "operator";
/// Name of the one that sees all messages, who is local to the broker, too.
pub(super) const SPY: &str = "spy";
/// Links are numbered as in the reactor.
pub(super) const CHOICES: Choices =
    Choices { secret: "secret", generation: 0, lowest_first: false, has_replica: false };

/// The broker's process.
pub struct Broker {
    /// The real engine, its clock and its links. At a link is a connection, or nothing where the
    /// operator is.
    pub shell: TestShell<Option<u64>>,
    /// When it was started: its own clock begins there.
    start: Tick,
    /// The operator's link.
    pub operator: Option<LinkId>,
    /// The link of the one that sees all messages.
    pub spy: Option<LinkId>,
    /// Answers to the operator, by sequence.
    pub answers: VecDeque<(u32, Result<OpReply, ErrorBody>)>,
    /// Connections to the client port so far, whatever their roles. Ids of clients count up with
    /// them, so the operator picks ids near this number.
    pub client_port_conns: u64,
    /// Sequences on the operator's present link that have no answer yet.
    pub asked: BTreeSet<u32>,
    /// The first frame of each request that a process was given, by transaction and process id.
    pub given: BTreeMap<(u64, u32), Bytes>,
}

impl Broker {
    /// When the engine has something to do, by the world's clock.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.shell.engine.next_deadline().map(|at| Tick(at.0.saturating_add(self.start.0)))
    }
}

impl World {
    /// The broker is started, with what the last one saved.
    pub fn start_broker(&mut self) {
        if self.broker.is_some() || self.is_closing {
            return;
        }
        self.epoch += 1;
        self.shutdown = ShutdownKind::None;
        let mut settings = Settings::default();
        for (setting, value) in self.plan.settings.iter().chain(&self.plan.bus.settings) {
            settings.set(*setting, *value);
        }
        let base = u64::from(self.epoch) * 1_000_000;
        let options = EngineOptions { settings, run_base: base, transaction_base: base };
        let epoch = self.epoch;
        self.note(format_args!("broker {epoch} starts"));
        self.broker = Some(Broker {
            shell: TestShell::new(options, CHOICES),
            start: self.now,
            operator: None,
            spy: None,
            answers: VecDeque::new(),
            client_port_conns: 0,
            asked: BTreeSet::new(),
            given: BTreeMap::new(),
        });
        if self.hosts[0].is_gone() {
            self.at(self.now, Event::StartExecd(0));
        }
        let listening = Listening {
            host: "sim".into(),
            worker_port: 5500,
            worker_host: "sim".into(),
            client_port: 5501,
            execd: Some(self.hosts[0].address.clone()),
            is_state_kept: true,
            directory_id: "instance".into(),
            version: "sim".into(),
            ..Listening::default()
        };
        self.feed(Input::Listening(Box::new(listening)));
        if self.access.is_on {
            let tokens = Ok(self.put_file());
            self.feed(Input::TokensRead { requester: None, tokens });
        }
        let text = if self.saved.is_empty() { self.first_script() } else { self.saved.clone() };
        // Reading the saved configuration must not save it again; new commands must.
        let origin =
            if self.saved.is_empty() { Origin::File("first".into()) } else { Origin::State };
        self.feed(Input::Script { origin, text });
        self.feed(Input::Started);
        if self.plan.bus.is_on() {
            self.limit_topics();
            self.open_spy();
        }
    }

    fn first_script(&self) -> String {
        let mut script = String::new();
        for host in &self.hosts[1..] {
            script += &format!("config host {} {}\n", host.name, host.address);
        }
        for index in 0..self.plan.services.len() {
            script += &self.service_command(index);
            script.push('\n');
            let service = &self.plan.services[index];
            if !service.self_started.is_empty() {
                script += &format!("config service {} selfstart=1\n", service.name);
            }
            for (host, behaviour) in &service.workers {
                let host = &self.hosts[*host].name;
                script += &format!("config worker {} {host} {}\n", service.name, behaviour.path());
            }
        }
        script += &self.plan.daemons.script(|host| self.hosts[host].name.to_string());
        script + "start all\n"
    }

    /// The command that makes a service as the seed wants it.
    pub fn service_command(&self, index: usize) -> String {
        let service = &self.plan.services[index];
        let mut command = format!("config service {}", service.name);
        for (setting, value) in &service.settings {
            command += &format!(" {}={}", setting.row().name, setting.row().written(*value));
        }
        command
    }

    /// Kills the broker's process.
    pub fn kill_broker(&mut self) {
        let Some(broker) = self.broker.take() else { return };
        let epoch = self.epoch;
        self.note(format_args!("broker {epoch} is gone"));
        self.model.broker_gone();
        self.reset_authenticator();
        for conn in broker.shell.ends.into_values().flatten() {
            let how = if self.rng.hits(500) { Close::Eof } else { Close::Reset };
            if let Some(conn) = self.conns.get_mut(&conn) {
                conn.at_broker = false;
                conn.up.discard();
            }
            self.end_down(conn, how);
            self.sweep(conn);
        }
    }

    /// A program connects to the broker; `None` = nobody listens.
    pub fn dial_broker(&mut self, role: Role, peer: Peer) -> Option<u64> {
        let (link, id) = self.open_conn(role, peer)?;
        let from = match peer {
            Peer::Program(index) => self.program_from(index, link),
            // Each has a machine of its own.
            Peer::Client(_) | Peer::Proc(_) | Peer::Bus(_) | Peer::Execd(..) => From {
                address: format!("{peer:?}"),
                fd: link.index as i32 + 5,
                group: PeerGroup::V4(link.index),
                ..From::default()
            },
        };
        match role {
            Role::Worker => self.feed(Input::WorkerOpened { link, peer: from }),
            Role::Client | Role::Host | Role::Broker => {
                if let Some(broker) = &mut self.broker {
                    broker.client_port_conns += 1;
                }
                self.feed(Input::ClientOpened { link, peer: from });
            }
        }
        Some(id)
    }

    fn open_conn(&mut self, role: Role, peer: Peer) -> Option<(LinkId, u64)> {
        let link = self.broker.as_mut()?.shell.open(None);
        let id = self.connect(Conn::new(link, role, peer, self.now));
        self.broker.as_mut()?.shell.ends.insert(link, Some(id));
        Some((link, id))
    }

    /// The connection to an execd that the broker dialled is there.
    pub fn host_opened(&mut self, name: &HostName, peer: Peer) -> Option<u64> {
        let (link, id) = self.open_conn(Role::Host, peer)?;
        self.feed(Input::HostOpened {
            link,
            host: name.clone(),
            fd: link.index as i32 + 5,
            must: None,
        });
        Some(id)
    }

    /// Handles the frames that arrived at the broker on a connection, until the engine stops
    /// reading it.
    pub fn read_up(&mut self, id: u64) {
        let settings = self.broker.as_ref().map(|broker| broker.shell.engine.settings());
        let body_bytes_max = settings.map_or(0, |all| all.get(Setting::BodyBytesMax) as usize);
        while self.broken.is_none() {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            let is_unread = |broker: &Broker| broker.shell.is_unread(conn.link);
            if !conn.at_broker || self.broker.as_ref().is_some_and(is_unread) {
                return;
            }
            if conn.frozen > self.now {
                let thaw = conn.frozen;
                self.at(thaw, Event::Up(id));
                return;
            }
            let (link, role) = (conn.link, conn.role);
            match conn.up.pull(self.now, body_bytes_max) {
                ReadResult::Nothing => return,
                ReadResult::Bad(error) => {
                    if error.skip.is_some() {
                        self.model.came_too_large(link, error.sequence);
                        self.model.topics.came_too_large(link, error.sequence);
                    }
                    self.feed(Input::Garbage { link, error });
                }
                ReadResult::Frame(kind, head, body) => {
                    let came = self.comes((id, link, role), kind, &head, &body);
                    let is_lost = came.is_some_and(|came| self.loses(&head, came));
                    if is_lost || self.loses_beat(kind) {
                        continue;
                    }
                    let arrived = inbound::Arrived { link, role, kind, head, body };
                    let check = |given: Option<&str>| self.check_signature(link, given);
                    match inbound::input(arrived, shell::prove, check) {
                        Ok(input) => self.feed(input),
                        Err(error) => {
                            if let Some(conn) = self.conns.get_mut(&id) {
                                conn.up.discard();
                            }
                            self.feed(Input::Garbage { link, error });
                        }
                    }
                    self.is_taken_in(id, came);
                }
                ReadResult::Ended(Close::Eof) if std::mem::take(&mut conn.may_half_close) => {
                    conn.up.reopen();
                    if !conn.at_peer {
                        self.end_up(id, Close::Eof);
                    }
                    if !self.is_wild(id) {
                        self.model.half_closed(link, self.now);
                    }
                    self.feed(Input::HalfClosed { link });
                }
                ReadResult::Ended(how) => {
                    conn.at_broker = false;
                    self.end_down(id, Close::Eof);
                    self.sweep(id);
                    self.link_gone(link);
                    self.feed(Input::Closed { link, how });
                }
            }
        }
    }

    /// A link of the broker is gone, maybe the operator's.
    fn link_gone(&mut self, link: LinkId) {
        if let Some(broker) = &mut self.broker {
            broker.shell.close(link);
            if broker.operator == Some(link) {
                broker.operator = None;
                broker.asked.clear();
            }
        }
        self.model.link_gone(link);
        self.model.topics.link_gone(link, self.now);
        self.model.instances.link_gone(link);
        self.access.link_gone(link);
    }

    /// The operator's link, opened if there is none.
    pub fn operator_link(&mut self) -> Option<LinkId> {
        let broker = self.broker.as_mut()?;
        if let Some(link) = broker.operator {
            return Some(link);
        }
        let link = broker.shell.open(None);
        broker.operator = Some(link);
        let address = OPERATOR.into();
        let from = From { address, fd: 4, uid: Some(0), is_owner: true, ..From::default() };
        self.feed(Input::ClientOpened { link, peer: from });
        let login = Box::new(Login::to(ServiceName::op()));
        self.feed(Input::Login { link, login });
        self.broker.as_ref()?.operator
    }

    /// Closes the operator's link, also with commands unanswered.
    pub fn close_operator(&mut self) {
        let Some(link) = self.broker.as_ref().and_then(|broker| broker.operator) else { return };
        self.link_gone(link);
        self.feed(Input::Closed { link, how: Close::Eof });
    }
}
