//! The world of one simulation: all its parts, the queue of future events, and the clock that jumps
//! to the next one.

use super::access::Access;
use super::bus::BusClient;
use super::clients::SimClient;
use super::hosts::Host;
use super::links::{Conn, Direction, Peer};
use super::model::{Broken, Model};
use super::net::Broker;
use super::plan::Plan;
use super::procs::Proc;
use super::programs::Program;
use super::rng::Rng;
use super::tokens::Authenticator;
use super::trace::Trace;
use crate::shell::Player;
use broker::engine::input::Close;
use bytes::Bytes;
use execd::engine::child::ChildId;
use protocol::names::HostName;
use protocol::time::Tick;
use std::collections::BTreeMap;

/// Something that happens at its time.
#[derive(Clone, Debug)]
pub enum Event {
    /// Bytes of a connection arrive at the broker.
    Up(u64),
    /// Bytes of a connection arrive at its far end.
    Down(u64),
    /// Whether a connection took something from the broker's outbox since.
    Stall(u64),
    /// A process does the next thing it had in mind; the number tells whether it still has.
    Proc(u32, u64),
    /// A process with several requests goes on with this transaction.
    Work(u32, u64),
    /// The program of a child begins to run.
    Launched(usize, u32, ChildId),
    /// A process that was reaped is reported to its execd.
    Reaped(usize, u32, ChildId, protocol::bodies::ExitCause),
    /// A client does something.
    Client(usize),
    /// A client of topics does something.
    Bus(usize),
    /// A program with instances does something.
    Program(usize),
    /// An operator says something.
    Operator,
    /// The next fault is injected.
    Fault,
    /// The broker is started again.
    StartBroker,
    /// A host's execd is started.
    StartExecd(usize),
    /// A dial of the broker ends.
    Dialled(u32, HostName, String),
    /// The tokens change.
    Tokens,
    /// The token file was read, for the broker of this epoch.
    TokensRead(u32),
    /// A worker is started by hand.
    SelfStarted(usize, &'static str),
}

/// Why the broker ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ShutdownKind {
    /// It runs, or was killed.
    None,
    /// It ended in order.
    InOrder,
}

/// The state of one simulation.
pub struct World {
    /// The choices made by the seed.
    pub plan: Plan,
    /// The only source of random numbers.
    pub rng: Rng,
    /// Record of all events.
    pub trace: Trace,
    /// The outcomes that each request may have.
    pub model: Model,
    /// The access rights, and who is logged in.
    pub access: Access,
    pub(super) authenticator: Authenticator,
    /// Present time; it jumps from event to event.
    pub now: Tick,
    /// Faults are over, every program does its best.
    pub is_quiescent: bool,
    /// The broker, if it runs.
    pub broker: Option<Broker>,
    /// How often the broker was started.
    pub epoch: u32,
    /// How the last broker ended.
    pub shutdown: ShutdownKind,
    /// The broker is not started again.
    pub is_closing: bool,
    /// Content of the state directory: the saved configuration.
    pub saved: String,
    /// The state directory can't be written.
    pub persist_fails: bool,
    /// All connections.
    pub conns: BTreeMap<u64, Conn>,
    /// Hosts by index; 0 is the built-in one.
    pub hosts: Vec<Host>,
    /// All worker processes on all hosts.
    pub procs: BTreeMap<u32, Proc>,
    /// Client programs by index.
    pub clients: Vec<SimClient>,
    /// Clients of topics by index.
    pub buses: Vec<BusClient>,
    /// Programs with instances by index.
    pub programs: Vec<Program>,
    /// How many messages were published.
    pub published: u64,
    /// Requests that may still be sent.
    pub requests_left: u64,
    /// The first law that was found broken.
    pub broken: Option<Broken>,
    /// Steps of the broker's engine.
    pub steps: u64,
    /// Processes that were started.
    pub started: u32,
    pub(super) next_pid: u32,
    pub(super) next_sequence: u32,
    pub(super) sabotage_left: u32,
    events: BTreeMap<(Tick, u64), Event>,
    next_event: u64,
    next_conn: u64,
}

/// What happens when bytes, or an end, arrive in this direction.
const fn arrival(conn: u64, direction: Direction) -> Event {
    match direction {
        Direction::Up => Event::Up(conn),
        Direction::Down => Event::Down(conn),
    }
}

impl World {
    /// A world before its first moment.
    pub fn new(plan: Plan, is_kept: bool) -> Self {
        let hosts = (0..plan.hosts).map(Host::new).collect();
        let clients = (0..plan.clients).map(|_| SimClient::default()).collect();
        let buses = (0..plan.bus.clients).map(|_| BusClient::default()).collect();
        let programs = (0..plan.bus.programs).map(Program::new).collect();
        Self {
            rng: Rng::new(plan.seed),
            trace: Trace::new(is_kept),
            model: Model::default(),
            access: Access::default(),
            authenticator: Authenticator::default(),
            now: Tick(0),
            is_quiescent: false,
            broker: None,
            epoch: 0,
            shutdown: ShutdownKind::None,
            is_closing: false,
            saved: String::new(),
            persist_fails: false,
            conns: BTreeMap::new(),
            hosts,
            procs: BTreeMap::new(),
            clients,
            buses,
            programs,
            published: 0,
            requests_left: plan.requests,
            broken: None,
            steps: 0,
            started: 0,
            next_pid: 100,
            next_sequence: 0,
            sabotage_left: 20,
            events: BTreeMap::new(),
            next_event: 0,
            next_conn: 0,
            plan,
        }
    }

    /// A line of the trace.
    pub fn note(&mut self, line: std::fmt::Arguments<'_>) {
        self.trace.note(self.now, line);
    }

    /// A law is broken, if it is; the first one counts.
    pub fn hold(&mut self, verdict: Result<(), Broken>) {
        if let Err(broken) = verdict
            && self.broken.is_none()
        {
            self.note(format_args!("BROKEN: {broken}"));
            self.broken = Some(broken);
        }
    }

    /// Schedules an event in this many microseconds.
    pub fn later(&mut self, micros: u64, event: Event) {
        self.at(Tick(self.now.0 + micros), event);
    }

    /// Something happens at a moment.
    pub fn at(&mut self, at: Tick, event: Event) {
        self.next_event += 1;
        self.events.insert((at, self.next_event), event);
    }

    /// Lets things happen until `end`, or until a law is broken.
    pub fn run_until(&mut self, end: Tick) {
        while self.broken.is_none() {
            let event = self.events.first_key_value().map(|((at, _), _)| *at);
            let lag = self.plan.lag_micros;
            let broker = self.broker.as_ref().and_then(Broker::next_deadline);
            let broker = broker.map(|at| Tick(at.0 + if self.is_quiescent { 0 } else { lag }));
            let execd = self.hosts.iter().enumerate();
            let execd = execd.filter_map(|(at, host)| Some((host.next_deadline()?, at))).min();
            let times = [event, broker, execd.map(|(at, _)| at)];
            let Some(next) = times.into_iter().flatten().min().filter(|next| *next <= end) else {
                break;
            };
            self.now = self.now.max(next);
            if broker == Some(next) {
                self.feed(broker::engine::input::Input::Deadline);
            } else if let Some((_, host)) = execd.filter(|(at, _)| *at == next) {
                self.feed_execd(host, execd::engine::input::Input::Deadline);
            } else if let Some((_, event)) = self.events.pop_first() {
                self.happen(event);
            }
        }
        self.now = self.now.max(end);
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Up(conn) => self.read_up(conn),
            Event::Down(conn) => self.read_down(conn),
            Event::Stall(conn) => self.check_stall(conn),
            Event::Proc(pid, stamp) => self.proc_acts(pid, stamp),
            Event::Work(pid, transaction) => self.work_acts(pid, transaction),
            Event::Launched(host, incarnation, child) => self.launched(host, incarnation, child),
            Event::Reaped(host, incarnation, child, exit_cause) => {
                self.reaped(host, incarnation, child, exit_cause);
            }
            Event::Client(index) => self.client_acts(index),
            Event::Bus(index) => self.bus_acts(index),
            Event::Program(index) => self.program_acts(index),
            Event::Operator => self.operator_acts(),
            Event::Fault => self.fault_happens(),
            Event::StartBroker => self.start_broker(),
            Event::StartExecd(host) => self.start_execd(host),
            Event::Dialled(epoch, host, address) => self.dialled(epoch, &host, &address),
            Event::Tokens => self.tokens_change(),
            Event::TokensRead(epoch) => self.tokens_read(epoch),
            Event::SelfStarted(host, service) => {
                self.new_self_started(host, service);
            }
        }
    }

    /// A new connection.
    pub fn connect(&mut self, conn: Conn) -> u64 {
        self.next_conn += 1;
        self.conns.insert(self.next_conn, conn);
        self.next_conn
    }

    /// How long bytes are under way.
    pub fn way(&mut self) -> u64 {
        let (low, high) = if self.is_quiescent { (20, 500) } else { self.plan.way_micros };
        self.rng.between(low, high)
    }

    /// Writes bytes to the broker's end of a connection.
    pub fn write_up(&mut self, id: u64, bytes: Bytes) {
        self.write(id, Direction::Up, bytes);
    }

    /// Writes bytes to the far end of a connection.
    pub fn write_down(&mut self, id: u64, bytes: Bytes) {
        self.write(id, Direction::Down, bytes);
    }

    fn write(&mut self, id: u64, direction: Direction, bytes: Bytes) {
        let (first, second) = (self.way(), self.way());
        let split = self.rng.hits(self.plan.split).then(|| self.rng.index(bytes.len()));
        let now = self.now;
        let Some(conn) = self.conns.get_mut(&id) else { return };
        if direction == Direction::Up && conn.is_shut {
            return;
        }
        let pipe = conn.pipe(direction);
        let due = Tick(now.0 + first);
        let split = split.map(|at| (at, Tick(due.0 + second)));
        for due in pipe.write(bytes, due, split) {
            self.at(due, arrival(id, direction));
        }
    }

    /// Ends the direction to the broker of a connection, after what is under way.
    pub fn end_up(&mut self, id: u64, how: Close) {
        self.end(id, Direction::Up, how);
    }

    /// Ends the direction from the broker of a connection, after what is under way.
    pub fn end_down(&mut self, id: u64, how: Close) {
        self.end(id, Direction::Down, how);
    }

    fn end(&mut self, id: u64, direction: Direction, how: Close) {
        let due = Tick(self.now.0 + self.way());
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let pipe = conn.pipe(direction);
        if let Some(due) = pipe.end(how, due) {
            self.at(due, arrival(id, direction));
        }
    }

    /// Closes a connection at the far end. If it had unread bytes, the connection is reset, as
    /// kernels do.
    pub fn peer_closes(&mut self, id: u64) {
        let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.at_peer) else { return };
        let how = if conn.down.is_read() { Close::Eof } else { Close::Reset };
        conn.at_peer = false;
        conn.down.discard();
        self.end_up(id, how);
        // Bytes that waited for it can't be written; the reactor counts them as sent.
        self.took(id);
        self.sweep(id);
    }

    /// Forgets a connection that nobody has.
    pub fn sweep(&mut self, id: u64) {
        if self.conns.get(&id).is_some_and(|conn| !conn.at_broker && !conn.at_peer) {
            self.conns.remove(&id);
        }
    }

    /// Breaks a connection: both ends notice after a while, the broker `late`; something is lost.
    pub fn break_conn(&mut self, id: u64, late: u64) {
        let (up, down) = (Tick(self.now.0 + self.way() + late), Tick(self.now.0 + self.way()));
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let up = conn.at_broker.then(|| conn.up.break_off(&mut self.rng, up));
        let down = conn.at_peer.then(|| conn.down.break_off(&mut self.rng, down));
        if let Some(due) = up {
            self.at(due, Event::Up(id));
        }
        if let Some(due) = down {
            self.at(due, Event::Down(id));
        }
    }

    fn read_down(&mut self, id: u64) {
        let Some(conn) = self.conns.get(&id).filter(|conn| conn.at_peer) else { return };
        if conn.frozen > self.now {
            self.at(conn.frozen, Event::Down(id));
            return;
        }
        match conn.peer {
            Peer::Client(index) => self.client_reads(index, id),
            Peer::Proc(pid) => self.proc_reads(pid),
            Peer::Bus(index) => self.bus_reads(index, id),
            Peer::Program(index) => self.program_reads(index, id),
            Peer::Execd(host, link) => self.execd_reads(host, link, id),
        }
        self.took(id);
    }

    /// Whether `end` of a run that takes this long is near enough; for loops that wait for
    /// something.
    pub fn wait_for(&mut self, millis: u64, mut is_done: impl FnMut(&mut Self) -> bool) -> bool {
        let end = self.now.plus_millis(millis);
        while self.broken.is_none() && self.now < end {
            if is_done(self) {
                return true;
            }
            self.run_until(self.now.plus_millis(250).min(end));
        }
        is_done(self)
    }
}
