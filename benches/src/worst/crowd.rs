//! An engine with as much as a broker is to hold: 1,000 hosts, 3,000 services and workers, 10,000
//! clients, 100,000 waiting requests. It plays the peers, so far as the engine waits for them, and
//! notes what each step costs.

use crate::clock;
use broker::engine::action::Action;
use broker::engine::input::{Close, Input, Listening, Peer, Report, Signature, Start};
use broker::engine::origin::Origin;
use broker::engine::{Engine, EngineOptions};
use bytes::Bytes;
use protocol::bodies::{
    Child, ExecListed, ExecStart, ExecStarted, ExecWelcome, Login, WorkerLogin,
};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::time::Tick;
use std::collections::{BTreeMap, VecDeque};
use std::fmt::Write as _;

/// Hosts, of which one has all workers.
pub const HOSTS: u32 = 1000;
/// Services, and workers as well.
pub const SERVICES: u32 = 3000;
/// Clients.
pub const CLIENTS: u32 = 10_000;
/// Requests that wait for one service.
pub const WAITING: u32 = 100_000;
/// Workers of the service that the requests wait for; each other worker has a service of its own.
pub const CROWDED: u32 = 1500;
/// Clients of that service.
const CROWDED_CLIENTS: u32 = 9000;
/// Most steps that one input may be followed by.
const STEPS_MAX: usize = 200_000;
static BODY: [u8; 64] = [7; 64];

/// Callgrind counts from the call of the function of this name to its return.
pub const STEP_NAME: &str = concat!(module_path!(), "::one_counted_step");

/// The cost of one step.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Its number among the steps of its case.
    pub index: usize,
    /// Nanoseconds that it took.
    pub nanos: u64,
}

/// Which steps of each case are counted: those whose numbers are in the list.
pub type Chosen = BTreeMap<String, Vec<usize>>;

/// What is noted of the steps of a case.
#[derive(Debug, Default)]
pub struct Notes {
    /// The steps of the present case.
    pub steps: Vec<Cost>,
    /// Under callgrind: which steps are counted, and the cases of those that were, in order.
    pub counted: Option<(Chosen, Vec<String>)>,
    case: String,
}

/// One step, whose instructions callgrind counts by the name of this function.
#[inline(never)]
fn one_counted_step(engine: &mut Engine, now: Tick, input: Input, out: &mut Vec<Action>) {
    engine.step(now, input, out);
    // So that the call above is not the last one, which would be a jump.
    std::hint::black_box(STEP_NAME);
}

/// A worker that runs.
#[derive(Clone, Debug)]
pub struct Running {
    /// As in its `exec-start`.
    pub run: RunId,
    /// As in its `exec-start`.
    pub digest: u32,
    /// As in its `exec-start`.
    pub service: ServiceName,
    /// Its connection.
    pub link: Option<LinkId>,
    /// What it was sent and has not replied to.
    pub has: VecDeque<u64>,
}

/// See the head of this file.
#[derive(Debug)]
pub struct Crowd {
    /// The engine.
    pub engine: Engine,
    /// Its time.
    pub now: Tick,
    /// What its steps cost.
    pub notes: Notes,
    /// The link of the operator.
    pub operator: LinkId,
    /// The clients of the crowded service.
    pub clients: Vec<LinkId>,
    /// The links of the hosts.
    pub hosts: BTreeMap<HostName, LinkId>,
    /// The workers' processes.
    pub workers: BTreeMap<WorkerId, Running>,
    /// Starts that the engine asked for.
    pub starts: VecDeque<ExecStart>,
    /// Writes of the configuration that were not answered.
    pub stores: VecDeque<u64>,
    /// Answers of `op` that came.
    pub answers: usize,
    /// The sequence of the last `status` frame.
    pub status_sequence: u32,
    /// A link that one case leaves for the next ones.
    pub noted: Option<LinkId>,
    by_link: BTreeMap<LinkId, WorkerId>,
    pongs: Vec<LinkId>,
    dials: Vec<HostName>,
    next_link: u32,
    sequence: u32,
    out: Vec<Action>,
}

/// The script of the whole configuration.
pub fn script(services: u32, workers: u32) -> String {
    let mut text = String::from("config events 10000\n");
    for index in 0..HOSTS {
        let _ = writeln!(text, "config host h{index:04} unix:/run/h{index:04}");
    }
    for index in 0..services {
        let more = if index == 0 { " selfstart=1 queue_max=1000000 admit_percent=0" } else { "" };
        let _ = writeln!(text, "config service s{index:04}{more}");
    }
    for index in 0..workers {
        let service = index.saturating_sub(CROWDED - 1).min(services - 1);
        let _ =
            writeln!(text, "config worker s{service:04} h0000 /usr/bin/program --number {index}");
    }
    for index in 0..workers {
        let _ = writeln!(text, "start {}", index + 1);
    }
    text
}

/// A name that is right.
///
/// # Errors
/// It is not.
pub fn service(index: u32) -> Result<ServiceName, String> {
    ServiceName::new(&format!("s{index:04}")).map_err(|e| e.to_string())
}

/// The host with all the workers, or another one.
///
/// # Errors
/// There is none.
pub fn host(index: u32) -> Result<HostName, String> {
    HostName::new(&format!("h{index:04}")).map_err(|e| e.to_string())
}

impl Crowd {
    /// All of it, with the requests.
    ///
    /// # Errors
    /// The engine refuses something.
    pub fn new(counted: Option<Chosen>) -> Result<Self, String> {
        let mut crowd = Self::configured(counted);
        crowd.follow()?;
        crowd.operator = crowd.attach(ServiceName::op())?;
        for index in 0..CLIENTS {
            let crowded = index < CROWDED_CLIENTS;
            let link = crowd.attach(service(if crowded { 0 } else { index % SERVICES })?)?;
            if crowded {
                crowd.clients.push(link);
            }
        }
        crowd.fill()?;
        Ok(crowd)
    }

    /// An engine with the configuration, which has dialled its hosts.
    pub fn configured(counted: Option<Chosen>) -> Self {
        let mut crowd = Self::empty(counted);
        let origin = Origin::State;
        crowd.give(Input::Script { origin, text: script(SERVICES, SERVICES) });
        crowd.give(Input::Started);
        crowd
    }

    /// An engine that listens.
    pub fn empty(counted: Option<Chosen>) -> Self {
        let nobody = LinkId { index: u32::MAX, generation: 0 };
        let mut crowd = Self {
            engine: Engine::new(EngineOptions::default()),
            now: Tick(0),
            notes: Notes { counted: counted.map(|c| (c, Vec::new())), ..Notes::default() },
            operator: nobody,
            clients: Vec::new(),
            hosts: BTreeMap::new(),
            workers: BTreeMap::new(),
            starts: VecDeque::new(),
            stores: VecDeque::new(),
            answers: 0,
            status_sequence: 0,
            noted: None,
            by_link: BTreeMap::new(),
            pongs: Vec::new(),
            dials: Vec::new(),
            next_link: 0,
            sequence: 0,
            out: Vec::new(),
        };
        crowd.give(Input::Listening(Box::new(Listening {
            client_port: 5501,
            worker_port: 1,
            worker_host: "broker".to_owned(),
            descriptors_max: 1 << 20,
            ..Listening::default()
        })));
        crowd
    }

    /// Begins a case: what is done in `act` is measured under its name.
    ///
    /// # Errors
    /// As of `act`.
    pub fn case(
        &mut self,
        name: &str,
        act: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<Vec<Cost>, String> {
        name.clone_into(&mut self.notes.case);
        self.notes.steps.clear();
        let result = act(self);
        self.notes.case.clear();
        result
            .map(|()| std::mem::take(&mut self.notes.steps))
            .map_err(|why| format!("{name}: {why}"))
    }

    /// What is done in `act` is not measured.
    ///
    /// # Errors
    /// As of `act`.
    pub fn quietly(
        &mut self,
        act: impl FnOnce(&mut Self) -> Result<(), String>,
    ) -> Result<(), String> {
        let case = std::mem::take(&mut self.notes.case);
        let result = act(self);
        self.notes.case = case;
        result
    }

    /// Gives one input, and notes what came of it.
    pub fn give(&mut self, input: Input) {
        let mut out = std::mem::take(&mut self.out);
        if self.notes.case.is_empty() {
            self.engine.step(self.now, input, &mut out);
        } else {
            self.measured(input, &mut out);
        }
        for action in out.drain(..) {
            self.take(action);
        }
        self.out = out;
    }

    fn measured(&mut self, input: Input, out: &mut Vec<Action>) {
        let index = self.notes.steps.len();
        let case = &self.notes.case;
        let is_counted = self.notes.counted.as_ref().is_some_and(|(chosen, _)| {
            chosen.get(case).is_some_and(|steps| steps.contains(&index))
        });
        let begun = clock::thread_nanos();
        if is_counted {
            one_counted_step(&mut self.engine, self.now, input, out);
        } else {
            self.engine.step(self.now, input, out);
        }
        let nanos = clock::thread_nanos() - begun;
        if let (true, Some((_, done))) = (is_counted, &mut self.notes.counted) {
            done.push(case.clone());
        }
        self.notes.steps.push(Cost { index, nanos });
    }

    /// What the engine did, so far as it must be answered.
    fn take(&mut self, action: Action) {
        match action {
            Action::Answer { .. } => self.answers += 1,
            Action::Start { start, .. } => self.starts.push_back(*start),
            Action::Store { number, .. } => self.stores.push_back(number),
            Action::Dial { host, .. } => self.dials.push(host),
            Action::Close { link } => self.gone(link),
            Action::Send { link, frame: Frame::Ping { .. } } => self.pongs.push(link),
            Action::Send { frame: Frame::Status { sequence }, .. } => {
                self.status_sequence = sequence;
            }
            Action::Send { link, frame: Frame::Data { head, .. } } if head.attempt > 0 => {
                let worker = self.by_link.get(&link).and_then(|id| self.workers.get_mut(id));
                worker.into_iter().for_each(|worker| worker.has.push_back(head.transaction));
            }
            _ => {}
        }
    }

    fn gone(&mut self, link: LinkId) {
        if let Some(id) = self.by_link.remove(&link)
            && let Some(worker) = self.workers.get_mut(&id)
            && worker.link == Some(link)
        {
            (worker.link, worker.has) = (None, VecDeque::new());
        }
        self.hosts.retain(|_, at| *at != link);
    }

    /// The end of a link that its peer closed.
    pub fn close(&mut self, link: LinkId, how: Close) {
        self.gone(link);
        self.give(Input::Closed { link, how });
    }

    /// Gives deadlines and answers until the engine waits for nothing.
    ///
    /// # Errors
    /// It never does.
    pub fn follow(&mut self) -> Result<(), String> {
        for _ in 0..STEPS_MAX {
            if let Some(link) = self.pongs.pop() {
                self.quietly(|crowd| {
                    crowd.give(Input::Pong { link });
                    Ok(())
                })?;
            } else if let Some(host) = self.dials.pop() {
                self.quietly(|crowd| crowd.opened(&host))?;
            } else if let Some(start) = self.starts.pop_front() {
                self.quietly(|crowd| crowd.run(start))?;
            } else {
                self.now = Tick(self.now.0 + 1);
                if self.engine.next_deadline().is_none_or(|due| due > self.now) {
                    return Ok(());
                }
                self.give(Input::Deadline);
            }
        }
        Err("something stays due, again and again".to_owned())
    }

    /// Lets time pass, as much as the loop would notice of it.
    ///
    /// # Errors
    /// As of [`follow`](Self::follow).
    pub fn pass(&mut self, ms: u64) -> Result<(), String> {
        let until = self.now.plus_millis(ms);
        while let Some(due) = self.engine.next_deadline().filter(|due| *due <= until) {
            self.now = self.now.max(due);
            self.give(Input::Deadline);
            self.follow()?;
        }
        self.now = self.now.max(until);
        Ok(())
    }

    /// A number for a new connection.
    pub fn link(&mut self) -> LinkId {
        self.next_link += 1;
        LinkId { index: self.next_link, generation: 0 }
    }

    fn opened(&mut self, name: &HostName) -> Result<(), String> {
        let link = self.greeted(name);
        self.give(Input::Report { link, report: Box::new(listed(Vec::new())) });
        Ok(())
    }

    /// The execd of a host answers a dial, as far as its list.
    pub fn greeted(&mut self, name: &HostName) -> LinkId {
        let link = self.link();
        self.hosts.insert(name.clone(), link);
        self.give(Input::HostOpened { link, host: name.clone(), fd: 9, must: None });
        self.give(Input::Claimed { link, claim: None });
        self.give(Input::Report { link, report: Box::new(welcome()) });
        link
    }

    /// Whether the engine dialled this host; the answer is up to the caller.
    pub fn takes_dial(&mut self, name: &HostName) -> bool {
        let count = self.dials.len();
        self.dials.retain(|host| host != name);
        self.dials.len() < count
    }

    /// A start as the engine asked for it: the process is up and logs in.
    ///
    /// # Errors
    /// There is no host.
    pub fn run(&mut self, start: ExecStart) -> Result<(), String> {
        let ExecStart { worker, run, service, digest, .. } = start;
        let host = *self.hosts.get(&host(0)?).ok_or("the host of the workers is gone")?;
        let started = ExecStarted { worker, run, pid: 100 + worker.0 };
        self.give(Input::Report { link: host, report: Box::new(Report::Started(started)) });
        let running = Running { run, digest, service, link: None, has: VecDeque::new() };
        self.workers.insert(worker, running);
        self.log_in(worker)
    }

    /// The process of a worker logs in.
    ///
    /// # Errors
    /// There is none.
    pub fn log_in(&mut self, worker: WorkerId) -> Result<(), String> {
        let link = self.link();
        self.give(Input::WorkerOpened { link, peer: Peer::default() });
        let running = self.workers.get_mut(&worker).ok_or("there is no such worker")?;
        running.link = Some(link);
        let proof = Some(Start { run: running.run, digest: running.digest });
        let login = WorkerLogin {
            worker,
            service: running.service.clone(),
            host: host(0)?,
            hostpid: 100 + worker.0,
            secret: "secret".to_owned(),
            concurrency: 1,
            cancel: false,
            token: None,
        };
        self.by_link.insert(link, worker);
        self.give(Input::WorkerLogin { link, login: Box::new(login), proof });
        Ok(())
    }

    /// A new client.
    ///
    /// # Errors
    /// It was not let in.
    pub fn attach(&mut self, service: ServiceName) -> Result<LinkId, String> {
        let link = self.link();
        let peer = Peer { is_owner: service.is_op(), fd: link.index as i32, ..Peer::default() };
        self.give(Input::ClientOpened { link, peer });
        self.give(Input::Login { link, login: Box::new(Login::to(service)) });
        Ok(link)
    }

    /// As many requests that it is full again.
    ///
    /// # Errors
    /// There is no client.
    pub fn fill(&mut self) -> Result<(), String> {
        self.quietly(|crowd| {
            let clients = crowd.clients.clone();
            let there = crowd.engine.totals();
            let missing = u64::from(WAITING + CROWDED) - (there.accepted - there.ended);
            let asking = clients.iter().cycle().take(missing as usize);
            asking.for_each(|&link| crowd.ask(link, &BODY));
            let there = crowd.engine.totals();
            let count = there.accepted - there.ended;
            if count < u64::from(WAITING) { Err(format!("only {count} requests")) } else { Ok(()) }
        })
    }

    /// One request.
    pub fn ask(&mut self, link: LinkId, body: &'static [u8]) {
        let head = self.head(body);
        self.give(Input::Request { link, head, body: Bytes::from_static(body) });
    }

    fn head(&mut self, body: &[u8]) -> Header {
        self.sequence += 1;
        let len = body.len() as u32;
        Header { len, sequence: self.sequence, reply: 1, ..Header::default() }
    }

    /// One command of the operator.
    pub fn command(&mut self, text: &str) {
        let head = self.head(text.as_bytes());
        let body = Bytes::copy_from_slice(text.as_bytes());
        self.give(Input::Request { link: self.operator, head, body });
    }

    /// A worker of the crowded service that has a request, and what it has.
    ///
    /// # Errors
    /// There is none.
    pub fn busy(&self) -> Result<(WorkerId, LinkId, u64), String> {
        let mut busy = self
            .workers
            .iter()
            .filter_map(|(&id, worker)| Some((id, worker.link?, *worker.has.front()?)));
        busy.next_back().ok_or_else(|| "no worker is busy".to_owned())
    }

    /// The reply of a worker to what it has.
    ///
    /// # Errors
    /// There is none that has anything.
    pub fn reply(&mut self) -> Result<(), String> {
        let (id, link, transaction) = self.busy()?;
        if let Some(worker) = self.workers.get_mut(&id) {
            worker.has.pop_front();
        }
        let head = Header { len: 64, transaction, ..Header::default() };
        self.give(Input::Reply { link, head, body: Bytes::from_static(&BODY) });
        Ok(())
    }

    /// What an execd would list.
    pub fn children(&self) -> Vec<Child> {
        let child = |(&worker, running): (&WorkerId, &Running)| Child {
            worker,
            run: running.run,
            pid: 100 + worker.0,
            digest: running.digest,
        };
        self.workers.iter().map(child).collect()
    }
}

/// The list of an execd.
pub fn listed(children: Vec<Child>) -> Report {
    Report::Listed(ExecListed { children })
}

/// The welcome of an execd.
pub fn welcome() -> Report {
    let welcome = ExecWelcome {
        hostpid: 7,
        version: "1".to_owned(),
        children_max: 100_000,
        policy: String::new(),
        binary: String::new(),
        hands_over: true,
        keeps_output: true,
        older: Vec::new(),
        signature: None,
    };
    Report::Welcome(welcome, Signature::Missing)
}
