//! Simulated worker programs: they connect, log in, answer one request after another, log in again
//! after the broker was away, and misbehave as their path says. Each has one thread, so it reads
//! nothing while it works.

mod many;
mod serving;

use super::access::Token;
use super::body::PieceId;
use super::daemons::DAEMON;
use super::links::{Peer, ReadResult};
use super::net::CHOICES;
use super::plan::{Behaviour, ServicePlan};
use super::tokens::claim;
use super::world::{Event, World};
use crate::shell;
use broker::engine::input::Start;
use bytes::Bytes;
use protocol::bodies::{ErrorBody, ExecStart, ExitCause, WorkerLogin, WorkerLoginOk};
use protocol::decode;
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{RunId, WorkerId};
use protocol::kinds::{Kind, Role};
use protocol::limits::BODY_BYTES_DEFAULT;
use protocol::names::ServiceName;
use protocol::settings::ServiceSetting;
use protocol::time::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The state of a worker program.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// Not connected; it tries at its next act.
    Trying,
    /// It sent its login; the answer is awaited.
    LoginSent,
    /// It reads.
    Serving,
    /// It works on an answer, which it gives at its next act.
    Working,
    /// It never answers.
    Hung,
    /// It exits at its next act.
    Exiting,
    /// It is no worker, and runs.
    Daemon,
}

/// The request that a program has.
#[derive(Clone, Debug)]
struct Work {
    head: Header,
    piece: Option<PieceId>,
    client_more: bool,
    /// It was answered with `more`, so a frame of its client may still arrive after its end.
    was_open: bool,
    /// It was answered with `more`, and its client is to go on.
    is_answered: bool,
    /// Of a program with several requests: it will be answered at `Event::Work`.
    is_ready: bool,
    /// Nobody waits for it any more, so it ends with its next frame.
    is_given_up: bool,
}

/// A worker's process.
#[derive(Debug)]
pub struct Proc {
    /// The host it runs on.
    pub host: usize,
    /// Id of the worker it runs as.
    pub worker: WorkerId,
    /// Number of this start of the worker.
    pub run: RunId,
    /// The behaviour chosen by its program path.
    pub behaviour: Behaviour,
    service: ServiceName,
    secret: String,
    /// The token that it has, if it started itself.
    token: Option<Token>,
    state: State,
    stamp: u64,
    /// Key of its connection in the world; `None` = not connected.
    pub conn: Option<u64>,
    /// The request that it has before it.
    work: Option<Work>,
    /// The others, if it works on several at a time.
    works: BTreeMap<u64, Work>,
    /// It works on several at a time.
    has_many: bool,
    announces: u32,
    hears_cancel: bool,
    /// How many requests it took on this connection.
    got: u32,
    /// It takes no further request, and said so.
    has_logged_out: bool,
    /// Transactions that were given up before it began them.
    given_up: BTreeSet<u64>,
    held: VecDeque<(Header, Bytes)>,
    /// Transactions that ended here before their last piece came.
    ended_early: BTreeSet<u64>,
    is_ended: bool,
    /// It has read the end of what the broker sends, and answers first what it can.
    is_shut: bool,
    is_termed: bool,
    limits: WorkerLoginOk,
    lost: Tick,
    reconnect_ms: u64,
    /// The process is stopped until this tick.
    pub frozen: Tick,
    /// It never connects or listens again, also after the faults.
    pub is_isolated: bool,
    /// execd has forgotten it, so nobody could end it: it need not be isolated.
    pub is_orphan: bool,
}

/// Stamp of an act that is never out of date.
const ALWAYS: u64 = u64::MAX;
/// The number of an application's error that a program makes up.
const OWN_ERROR: i16 = 7;
/// How long one that started itself tries, each time.
const SELF_STARTED_RECONNECT_MS: u64 = 30_000;
/// How long a program tries to reach the broker for the first time.
const RECONNECT_MS: u64 = 10_000;

impl Proc {
    /// The service that it answers for.
    pub fn service(&self) -> &str {
        self.service.as_str()
    }
}

impl World {
    /// A program is started.
    pub fn new_proc(&mut self, host: usize, start: &ExecStart) -> u32 {
        self.next_pid += 1;
        self.started += 1;
        let pid = self.next_pid;
        let is_daemon = start.service.as_str() == DAEMON;
        let given = Start { run: start.run, digest: start.digest };
        if is_daemon {
            self.check_daemon(start);
        } else if start.secret != shell::secret(CHOICES.secret, start.worker, given) {
            self.hold(Err(format!("worker {} is started without its secret", start.worker)));
        }
        let limits = WorkerLoginOk {
            worker: start.worker,
            body_bytes_max: BODY_BYTES_DEFAULT as u64,
            heartbeat_ms: 0,
            silence_ms: 0,
            reconnect_ms: 0,
            concurrency: 1,
            signature: None,
        };
        let mut services = self.plan.services.iter();
        let service = services.find(|service| service.name == start.service.as_str());
        if service.is_some_and(|service| service.value(ServiceSetting::Start) == 1) {
            self.model.count("starts of services on demand");
        }
        let proc = Proc {
            host,
            worker: start.worker,
            run: start.run,
            behaviour: Behaviour::of(&start.path),
            service: start.service.clone(),
            secret: start.secret.clone(),
            token: None,
            state: State::Trying,
            stamp: 0,
            conn: None,
            work: None,
            works: BTreeMap::new(),
            has_many: service.is_some_and(ServicePlan::has_many),
            announces: service.map_or(1, |service| service.announces),
            hears_cancel: service.is_some_and(|service| service.hears_cancel),
            got: 0,
            has_logged_out: false,
            given_up: BTreeSet::new(),
            held: VecDeque::new(),
            ended_early: BTreeSet::new(),
            is_ended: false,
            is_shut: false,
            is_termed: false,
            limits,
            lost: self.now,
            reconnect_ms: RECONNECT_MS,
            frozen: Tick(0),
            is_isolated: false,
            is_orphan: false,
        };
        self.note(format_args!("pid {pid} is worker {} run {}", start.worker, start.run));
        self.procs.insert(pid, proc);
        if is_daemon {
            self.daemon_runs(pid);
            return pid;
        }
        let boot = self.rng.between(100, 50_000);
        self.act_in(pid, boot, State::Trying);
        pid
    }

    /// A program that nobody started but itself.
    pub fn new_self_started(&mut self, host: usize, service: &'static str) {
        let service = ServiceName::new(service).expect("the names of services are spelled right");
        let (worker, run) = (WorkerId(0), RunId(0));
        let path = Behaviour::Echo.path().to_owned();
        let secret = shell::secret(CHOICES.secret, worker, Start { run, digest: 0 });
        let start = ExecStart {
            worker,
            run,
            service,
            path,
            args: Vec::new(),
            secret,
            digest: 0,
            process: None,
            memory_max: 0,
            output_bytes: 0,
            output_files: 1,
        };
        let pid = self.new_proc(host, &start);
        if let Some(proc) = self.procs.get_mut(&pid) {
            proc.secret.clear();
            proc.reconnect_ms = SELF_STARTED_RECONNECT_MS;
        }
    }

    pub(super) fn act_in(&mut self, pid: u32, micros: u64, state: State) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        proc.stamp += 1;
        proc.state = state;
        let stamp = proc.stamp;
        self.later(micros, Event::Proc(pid, stamp));
    }

    /// Whether a program of this behaviour misbehaves now.
    pub(super) fn is_bad(&mut self, pid: u32, behaviour: Behaviour, permille: u64) -> bool {
        let is_it = self.procs.get(&pid).is_some_and(|proc| proc.behaviour == behaviour);
        is_it && !self.is_quiescent && self.rng.hits(permille)
    }

    /// Whether a program hides from now on, until it is killed.
    fn hides(&mut self, pid: u32, behaviour: Behaviour, permille: u64) -> bool {
        let is_found = self.procs.get(&pid).is_some_and(|proc| proc.is_orphan);
        if is_found || !self.is_bad(pid, behaviour, permille) {
            return false;
        }
        if let Some(proc) = self.procs.get_mut(&pid) {
            proc.is_isolated = true;
        }
        self.note(format_args!("pid {pid} hides"));
        self.act_in(pid, 0, State::Hung);
        true
    }

    /// Nobody could find these any more: who hides is gone, the others go on in the open.
    pub fn orphan(&mut self, host: usize) {
        for pid in self.pids_on(host) {
            let Some(proc) = self.procs.get_mut(&pid) else { continue };
            proc.is_orphan = true;
            // A program is nobody's who would tell it to end.
            if proc.is_isolated || proc.state == State::Daemon {
                self.kill_proc(pid, ExitCause::Unknown);
            }
        }
    }

    /// A process is gone from one moment to the next.
    pub fn kill_proc(&mut self, pid: u32, exit_cause: ExitCause) {
        let Some(proc) = self.procs.remove(&pid) else { return };
        self.note(format_args!("pid {pid} (worker {}) ends: {exit_cause}", proc.worker));
        if let Some(conn) = proc.conn {
            self.peer_closes(conn);
        }
        self.died_on(proc.host, pid, exit_cause);
    }

    /// TERM for a process.
    pub fn term_proc(&mut self, pid: u32) {
        if self.is_bad(pid, Behaviour::Stubborn, 1000) {
            return;
        }
        let wait = self.rng.below(20_000);
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        if proc.behaviour == Behaviour::Stubborn && proc.is_isolated {
            return;
        }
        proc.is_termed = true;
        self.later(wait, Event::Proc(pid, ALWAYS));
    }

    /// A program does what it had in mind.
    pub fn proc_acts(&mut self, pid: u32, stamp: u64) {
        let Some(proc) = self.procs.get(&pid) else { return };
        if stamp != proc.stamp && stamp != ALWAYS {
            return;
        }
        if proc.frozen > self.now {
            let thaw = proc.frozen;
            self.at(thaw, Event::Proc(pid, stamp));
            return;
        }
        if proc.is_termed {
            self.kill_proc(pid, ExitCause::Signal(15));
            return;
        }
        match proc.state {
            State::Trying => self.try_connect(pid),
            State::Working if proc.has_many => self.works_again(pid),
            State::Working => self.proc_answers(pid),
            State::Exiting => self.kill_proc(pid, ExitCause::Exit(0)),
            State::Serving => {
                if !proc.has_work() && self.is_bad(pid, Behaviour::Quitter, 1000) {
                    if self.rng.hits(500) {
                        self.logs_out(pid);
                    } else {
                        self.kill_proc(pid, ExitCause::Exit(0));
                    }
                }
            }
            State::Daemon => self.daemon_acts(pid),
            State::LoginSent | State::Hung => {}
        }
    }

    fn try_connect(&mut self, pid: u32) {
        if self.is_bad(pid, Behaviour::Crash, 50) {
            self.kill_proc(pid, ExitCause::Signal(11));
            return;
        }
        if self.hides(pid, Behaviour::Mute, 150) {
            return;
        }
        let is_mute = self.is_bad(pid, Behaviour::Mute, 700);
        let Some(proc) = self.procs.get(&pid) else { return };
        let is_partitioned = self.hosts[proc.host].partitioned_until > self.now;
        let is_late = proc.lost.plus_millis(proc.reconnect_ms) < self.now;
        let conn =
            if is_partitioned { None } else { self.dial_broker(Role::Worker, Peer::Proc(pid)) };
        let Some(conn) = conn else {
            if is_late {
                self.kill_proc(pid, ExitCause::Exit(1));
            } else {
                let wait = self.rng.between(10_000, 500_000);
                self.act_in(pid, wait, State::Trying);
            }
            return;
        };
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        proc.conn = Some(conn);
        proc.state = State::LoginSent;
        proc.is_shut = false;
        proc.got = 0;
        if is_mute {
            return;
        }
        let (is_self_started, token) = (proc.secret.is_empty(), proc.token);
        let token = if is_self_started { self.now_holds(token) } else { None };
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        proc.token = token;
        let login = WorkerLogin {
            worker: if is_self_started { WorkerId(0) } else { proc.worker },
            service: proc.service.clone(),
            host: self.hosts[proc.host].name.clone(),
            hostpid: pid,
            secret: proc.secret.clone(),
            concurrency: proc.announces,
            cancel: proc.hears_cancel,
            token: token.map(|token| claim(token.name)),
        };
        self.proc_writes(pid, Frame::WorkerLogin(login));
    }

    fn proc_writes(&mut self, pid: u32, frame: Frame) {
        if let Some(conn) = self.procs.get(&pid).and_then(|proc| proc.conn) {
            self.write_up(conn, encode::to_bytes(frame));
        }
    }

    /// Handles the frames that arrived at a program, as far as it reads.
    pub fn proc_reads(&mut self, pid: u32) {
        while self.broken.is_none() {
            let Some(proc) = self.procs.get(&pid) else { return };
            let Some(conn) = proc.conn else { return };
            if proc.frozen > self.now {
                let thaw = proc.frozen;
                self.at(thaw, Event::Down(conn));
                return;
            }
            if !matches!(proc.state, State::LoginSent | State::Serving) {
                return;
            }
            let Some(way) = self.conns.get_mut(&conn) else { return };
            match way.down.pull(self.now, usize::MAX) {
                ReadResult::Nothing => return,
                ReadResult::Frame(kind, head, body) => match decode::frame(kind, head, body) {
                    Ok(frame) => self.proc_takes(pid, frame),
                    Err(error) => self.hold(Err(format!("the broker sent a worker {error}"))),
                },
                ReadResult::Bad(error) => {
                    self.hold(Err(format!("the broker sent a worker {error}")))
                }
                ReadResult::Ended(how) if self.answers_first(pid, how) => return,
                ReadResult::Ended(_) => self.proc_lost(pid),
            }
        }
    }

    /// The connection of a program is gone: it tries to come back, unless it was asked to end.
    fn proc_lost(&mut self, pid: u32) {
        let now = self.now;
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        proc.work = None;
        proc.works.clear();
        proc.given_up.clear();
        proc.held.clear();
        proc.ended_early.clear();
        proc.lost = now;
        let is_ended = proc.is_ended || proc.has_logged_out;
        if let Some(conn) = proc.conn.take() {
            self.peer_closes(conn);
        }
        if self.hides(pid, Behaviour::Mute, 300) || self.hides(pid, Behaviour::Stubborn, 200) {
            return;
        }
        let wait = self.rng.below(50_000);
        self.act_in(pid, wait, if is_ended { State::Exiting } else { State::Trying });
    }

    fn proc_takes(&mut self, pid: u32, frame: Frame) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        match frame {
            Frame::WorkerLoginOk(ok) => {
                if proc.secret.is_empty() {
                    proc.worker = ok.worker;
                } else {
                    proc.reconnect_ms = ok.reconnect_ms;
                }
                proc.limits = ok;
                proc.state = State::Serving;
            }
            // After its logout it takes only what belongs to a request that it has.
            Frame::Data { head, .. } if proc.has_logged_out && !proc.has(head.transaction) => {}
            Frame::Data { head, body } => {
                proc.held.push_back((head, body));
            }
            Frame::Cancel { head, .. } if proc.hears_cancel => self.proc_may_stop(pid, &head),
            Frame::Challenge(_) => {
                if let (token, Some(conn)) = (proc.token, proc.conn) {
                    self.answer_challenge(conn, token);
                }
            }
            Frame::Ping { sequence } => self.proc_writes(pid, Frame::Pong { sequence }),
            Frame::Pong { .. } | Frame::Reinit => {}
            Frame::Status { sequence } => {
                self.proc_writes(pid, Frame::StatusReply { sequence, text: "well".into() });
            }
            Frame::End => proc.is_ended = true,
            Frame::Error { head, error } => self.proc_is_told(pid, &head, &error),
            frame => {
                self.hold(Err(format!("the broker sent a worker a {} frame", frame.kind())));
            }
        }
        self.go_on(pid);
    }

    fn proc_is_told(&mut self, pid: u32, head: &Header, error: &ErrorBody) {
        let Some(proc) = self.procs.get_mut(&pid) else { return };
        if head.transaction == 0 {
            let is_worth_returning = matches!(
                error.code,
                ErrorCode::ShuttingDown | ErrorCode::SlowReader | ErrorCode::IdleTimeout
            );
            let self_started =
                proc.secret.is_empty().then(|| (proc.host, proc.service.to_string()));
            if !is_worth_returning && !self.hides(pid, Behaviour::Stubborn, 500) {
                self.kill_proc(pid, ExitCause::Exit(1));
                if let Some((host, service)) = self_started {
                    self.self_started_refused(host, &service);
                }
            }
            return;
        }
        if proc.has_many {
            return self.proc_may_stop(pid, head);
        }
        let is_current =
            proc.work.as_ref().is_some_and(|work| work.head.transaction == head.transaction);
        if is_current {
            self.reply(pid, b"the rest never came", false, 1);
        } else if proc.held.iter().any(|(held, _)| held.transaction == head.transaction) {
            proc.held.retain(|(held, _)| held.transaction != head.transaction);
            proc.got += 1;
            let head = Header { transaction: head.transaction, error: 1, ..Header::default() };
            self.proc_writes(pid, Frame::data(head, Bytes::from_static(b"the rest never came")));
        }
    }

    /// Every program does its best from now on.
    pub fn soothe_procs(&mut self) {
        let now = self.now;
        let pids: Vec<u32> = self.procs.keys().copied().collect();
        for pid in pids {
            let Some(proc) = self.procs.get_mut(&pid) else { continue };
            proc.frozen = now;
            let (state, conn, stamp) = (proc.state, proc.conn, proc.stamp);
            if proc.is_isolated {
                continue;
            } else if state == State::Hung {
                self.act_in(pid, 0, State::Working);
            } else {
                self.later(0, Event::Proc(pid, stamp));
            }
            if let Some(conn) = conn {
                self.at(now, Event::Down(conn));
            }
        }
    }

    /// Whether a process will never answer again.
    pub fn is_isolated(&self, pid: &str) -> bool {
        self.procs.iter().any(|(of, proc)| proc.is_isolated && of.to_string() == pid)
    }

    /// Whether a process will never answer a request that it has, or that waits for it unread.
    pub fn is_stuck(&self, pid: &str) -> bool {
        let has_unread = |proc: &Proc| {
            let conn = proc.conn.and_then(|conn| self.conns.get(&conn));
            conn.is_some_and(|conn| conn.down.has_unread(Kind::Data))
        };
        let has_one = |proc: &Proc| proc.has_work() || !proc.held.is_empty() || has_unread(proc);
        let mut procs = self.procs.iter();
        procs.any(|(of, proc)| proc.is_isolated && of.to_string() == pid && has_one(proc))
    }

    /// Whether a process is the one that this worker is known by.
    pub fn is_worker(&self, pid: u32, worker: WorkerId) -> bool {
        self.procs.get(&pid).is_some_and(|proc| proc.worker == worker && proc.conn.is_some())
    }
}
