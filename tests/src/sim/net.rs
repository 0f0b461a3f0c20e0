//! The broker's end of the simulated net: does what the broker's reactor does around the engine,
//! and checks the engine's laws after every step. Bytes travel in `links`. The real reactor is
//! tested on real sockets.

mod apply;

use super::body::PieceId;
use super::links::{Conn, Peer, ReadResult};
use super::world::{Event, ShutdownKind, World};
use broker::engine::action::Origin;
use broker::engine::input::{Close, Input, Listening, Peer as From, Report, Start};
use broker::engine::{Engine, EngineOptions};
use broker::translate::inbound;
use bytes::Bytes;
use protocol::bodies::{ErrorBody, Login};
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::kinds::{Kind, Role};
use protocol::limits::DEADLINE_MS_MAX;
use protocol::names::{HostName, ServiceName};
use protocol::op::reply::OpReply;
use protocol::peer_group::PeerGroup;
use protocol::settings::{ServiceSetting, Setting, Settings};
use protocol::time::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Name of the simulation's operator. It is local to the broker, so its commands pass no simulated
/// connection.
const OPERATOR: &str = "operator";
/// More steps than this at one moment count as an endless loop of the engine.
const CIRCLE: u32 = 1000;

/// The broker's process.
pub struct Broker {
    /// The real engine under test.
    pub engine: Engine,
    /// When it was started: its own clock begins there.
    start: Tick,
    /// Connections by link.
    links: BTreeMap<LinkId, Option<u64>>,
    /// Places for links, with their next generation.
    slots: Vec<u32>,
    free: Vec<u32>,
    pending: VecDeque<Input>,
    is_stepping: bool,
    /// The operator's link.
    pub operator: Option<LinkId>,
    /// Answers to the operator, by sequence.
    pub answers: VecDeque<(u32, Result<OpReply, ErrorBody>)>,
    /// Connections to the client port so far, whatever their roles. Ids of clients count up with
    /// them, so the operator picks ids near this number.
    pub client_port_conns: u64,
    /// Sequences on the operator's present link that have no answer yet.
    pub asked: BTreeSet<u32>,
}

impl Broker {
    /// When the engine has something to do, by the world's clock.
    pub fn next_deadline(&self) -> Option<Tick> {
        self.engine.next_deadline().map(|at| Tick(at.0.saturating_add(self.start.0)))
    }

    /// A slot for a new link.
    pub fn open_link(&mut self, conn: Option<u64>) -> LinkId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(0);
            self.slots.len() as u32 - 1
        });
        let generation = self.slots[index as usize];
        self.slots[index as usize] += 1;
        let link = LinkId { index, generation };
        self.links.insert(link, conn);
        link
    }

    /// Something happens after this step and all inputs that wait already.
    pub(super) fn push(&mut self, input: Input) {
        self.pending.push_back(input);
    }

    fn close_link(&mut self, link: LinkId) -> Option<u64> {
        let conn = self.links.remove(&link)?;
        self.free.push(link.index);
        if self.operator == Some(link) {
            self.operator = None;
            self.asked.clear();
        }
        conn
    }
}

/// The secret that a start of a worker gets.
pub fn secret(worker: WorkerId, start: Start) -> String {
    let Start { run, digest } = start;
    format!("secret.{worker}.{run}.{digest}")
}

fn prove(worker: WorkerId, given: &str) -> Option<Start> {
    let mut words = given.split('.').skip(1);
    let of: u32 = words.next()?.parse().ok()?;
    let run = RunId(words.next()?.parse().ok()?);
    let digest = words.next()?.parse().ok()?;
    (of == worker.0).then_some(Start { run, digest })
}

/// The link of an input about the flow on it. The reactor drops such an input if the link closes
/// first; others, as frames, come from a link that is there.
const fn flow_link(input: &Input) -> Option<LinkId> {
    match input {
        Input::Congested { link }
        | Input::Uncongested { link }
        | Input::OutboxFull { link, .. }
        | Input::Stalled { link, .. } => Some(*link),
        _ => None,
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
        for (setting, value) in &self.plan.settings {
            settings.set(*setting, *value);
        }
        let options = EngineOptions { settings, run_base: u64::from(self.epoch) * 1_000_000 };
        let epoch = self.epoch;
        self.note(format_args!("broker {epoch} starts"));
        self.broker = Some(Broker {
            engine: Engine::new(options),
            start: self.now,
            links: BTreeMap::new(),
            slots: Vec::new(),
            free: Vec::new(),
            pending: VecDeque::new(),
            is_stepping: false,
            operator: None,
            answers: VecDeque::new(),
            client_port_conns: 0,
            asked: BTreeSet::new(),
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
            instance: "instance".into(),
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
        let origin = if self.saved.is_empty() { Origin::Broker } else { Origin::State };
        self.feed(Input::Script { origin, text });
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
        script + "start all\n"
    }

    /// The command that makes a service as the seed wants it.
    pub fn service_command(&self, index: usize) -> String {
        let service = &self.plan.services[index];
        let mut command = format!("config service {}", service.name);
        for (setting, value) in &service.settings {
            command += &format!(" {}={value}", setting.row().name);
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
        for conn in broker.links.into_values().flatten() {
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
        let link = self.broker.as_mut()?.open_link(None);
        let id = self.connect(Conn::new(link, role, peer, self.now));
        self.broker.as_mut()?.links.insert(link, Some(id));
        // Each has a machine of its own.
        let group = PeerGroup::V4(link.index);
        let from = From {
            address: format!("{peer:?}"),
            fd: link.index as i32 + 5,
            group,
            ..From::default()
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

    /// The connection to an execd that the broker dialled is there.
    pub fn host_opened(
        &mut self,
        name: &HostName,
        peer: impl FnOnce(LinkId) -> Peer,
    ) -> Option<u64> {
        let link = self.broker.as_mut()?.open_link(None);
        let id = self.connect(Conn::new(link, Role::Host, peer(link), self.now));
        self.broker.as_mut()?.links.insert(link, Some(id));
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
        let body_bytes_max = self.body_bytes_max();
        while self.broken.is_none() {
            let Some(conn) = self.conns.get_mut(&id) else { return };
            if !conn.at_broker || conn.is_unread {
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
                    }
                    self.feed(Input::Garbage { link, error });
                }
                ReadResult::Frame(kind, head, body) => {
                    if role == Role::Client && kind == Kind::Data && !self.is_wild(id) {
                        self.comes_in(link, &head, &body);
                    }
                    let arrived = inbound::Arrived { link, role, kind, head, body };
                    match inbound::input(arrived, prove) {
                        Ok(Input::Report { link, report }) => {
                            let unproven = match &*report {
                                Report::Welcome(welcome) => self.why_unproven(link, welcome),
                                _ => None,
                            };
                            self.feed(unproven.unwrap_or(Input::Report { link, report }));
                        }
                        Ok(input) => self.feed(input),
                        Err(error) => {
                            if let Some(conn) = self.conns.get_mut(&id) {
                                conn.up.discard();
                            }
                            self.feed(Input::Garbage { link, error });
                        }
                    }
                }
                ReadResult::Ended(how) => {
                    conn.at_broker = false;
                    self.end_down(id, Close::Eof);
                    self.sweep(id);
                    if let Some(broker) = &mut self.broker {
                        broker.close_link(link);
                    }
                    self.model.link_gone(link);
                    self.access.link_gone(link);
                    self.feed(Input::Closed { link, how });
                }
            }
        }
    }

    fn body_bytes_max(&self) -> usize {
        let broker = self.broker.as_ref();
        broker.map_or(0, |broker| broker.engine.settings().get(Setting::BodyBytesMax) as usize)
    }

    /// The model is told of a request that comes in.
    fn comes_in(&mut self, link: LinkId, head: &Header, body: &Bytes) {
        let Ok(Some(PieceId { uid, part: 0, turn: 0, .. })) = PieceId::read(body) else { return };
        let deadline_ms = match head.deadline_ms {
            0 => ServiceSetting::DeadlineMs.row().default,
            asked => u64::from(asked).min(DEADLINE_MS_MAX),
        };
        self.access.asks(link, uid);
        self.model.came_in(link, head.sequence, uid, self.now.plus_millis(deadline_ms));
    }

    /// Gives the engine an input and carries out its actions.
    pub fn feed(&mut self, input: Input) {
        let Some(broker) = &mut self.broker else { return };
        broker.pending.push_back(input);
        if std::mem::replace(&mut broker.is_stepping, true) {
            return;
        }
        let mut rounds = 0;
        loop {
            let Some(broker) = &mut self.broker else { return };
            let Some(input) = broker.pending.pop_front() else { break };
            if flow_link(&input).is_some_and(|link| !broker.links.contains_key(&link)) {
                continue;
            }
            let is_due = broker.next_deadline().is_some_and(|due| due <= self.now);
            // That a link is gone the engine learns before anything else happens.
            let is_end = matches!(input, Input::Closed { .. });
            if is_due && !is_end && self.rng.hits(self.plan.deadline_first) {
                self.step(Input::Deadline);
            }
            self.step(input);
            while self.is_due() {
                self.step(Input::Deadline);
                rounds += 1;
                if rounds > CIRCLE {
                    self.hold(Err("the engine has something due at once, again and again".into()));
                    return;
                }
            }
            let Some(broker) = &self.broker else { return };
            let (laws, now) = (broker.engine.check_all(), self.now);
            self.hold(laws);
            let verdict = self.model.check_unanswered(now);
            self.hold(verdict);
            let access = self.access.check();
            self.hold(access);
            if self.broken.is_some() {
                return;
            }
        }
        if let Some(broker) = &mut self.broker {
            broker.is_stepping = false;
        }
    }

    fn is_due(&self) -> bool {
        let due = self.broker.as_ref().and_then(|broker| broker.next_deadline());
        self.broken.is_none() && due.is_some_and(|due| due <= self.now)
    }

    /// Tells the engine that its deadline has passed.
    pub fn feed_deadline(&mut self) {
        self.feed(Input::Deadline);
    }

    fn step(&mut self, input: Input) {
        self.access_input(&input);
        let Some(broker) = &mut self.broker else { return };
        self.steps += 1;
        let mut actions = Vec::new();
        let now = Tick(self.now.0 - broker.start.0);
        broker.engine.step(now, input, &mut actions);
        for action in actions {
            self.apply(action);
        }
    }

    /// The operator's link, opened if there is none.
    pub fn operator_link(&mut self) -> Option<LinkId> {
        let broker = self.broker.as_mut()?;
        if let Some(link) = broker.operator {
            return Some(link);
        }
        let link = broker.open_link(None);
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
        let Some(broker) = &mut self.broker else { return };
        let Some(link) = broker.operator else { return };
        broker.close_link(link);
        self.feed(Input::Closed { link, how: Close::Eof });
    }
}
