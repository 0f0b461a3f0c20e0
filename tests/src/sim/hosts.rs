//! The simulated hosts: execd's real engine in a simulated loop, its state directory, and a machine
//! that can be partitioned or restarted. `procs` has the processes.

use super::links::{Peer, ReadResult};
use super::tokens;
use super::world::{Event, World};
use crate::shell::{self, Player};
use broker::engine::input::{Close, Input as BrokerInput};
use bytes::Bytes;
use execd::engine::action::{Action, Signal};
use execd::engine::child::ChildId;
use execd::engine::input::{Input, ProcessEnd, RecordedProcess, Watched};
use execd::engine::limits::Limits;
use execd::engine::{Config, Engine};
use protocol::bodies::{ExecStart, ExitCause, Stream};
use protocol::decode;
use protocol::encode;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::limits::CONTROL_BODY_BYTES_MAX;
use protocol::names::HostName;
use protocol::peer_group::PeerGroup;
use protocol::time::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// The record of a child in execd's state directory.
#[derive(Clone, Debug)]
struct Record {
    broker: String,
    worker: WorkerId,
    run: RunId,
    digest: u32,
}

/// A machine with an execd.
pub struct Host {
    /// Name of the host in the broker's configuration.
    pub name: HostName,
    /// Address of its execd, as the operator configures it.
    pub address: String,
    execd: Option<Engine>,
    /// When its execd was started: its own clock begins there.
    start: Tick,
    /// How often its execd was started.
    pub incarnation: u32,
    /// The last of its execds that was asked to end; a second request would hurry it.
    asked_to_end: u32,
    links: BTreeMap<LinkId, u64>,
    next_link: u32,
    children: BTreeMap<ChildId, u32>,
    /// Those whose program does not run yet, and whether they were given up.
    launching: BTreeMap<ChildId, bool>,
    records: BTreeMap<u32, Record>,
    pending: VecDeque<Input>,
    is_stepping: bool,
    /// The host is partitioned from all others until this tick.
    pub partitioned_until: Tick,
    /// The secret of the token that its execd wants proved.
    pub token: u64,
    /// Links of its execd whose broker has proved it, or need not.
    proven: BTreeSet<LinkId>,
}

impl Host {
    /// A host with its execd not started.
    pub fn new(index: usize) -> Self {
        let (name, address) = match index {
            0 => ("localhost".to_owned(), "unix:/sim/execd.sock".to_owned()),
            n => (format!("h{n}"), format!("10.0.0.{n}:5502")),
        };
        Self {
            name: HostName::new(&name).expect("the names of hosts are spelled right"),
            address,
            execd: None,
            start: Tick(0),
            incarnation: 0,
            asked_to_end: 0,
            links: BTreeMap::new(),
            next_link: 0,
            children: BTreeMap::new(),
            launching: BTreeMap::new(),
            records: BTreeMap::new(),
            pending: VecDeque::new(),
            is_stepping: false,
            partitioned_until: Tick(0),
            token: 0,
            proven: BTreeSet::new(),
        }
    }

    /// When its execd has something to do.
    pub fn next_deadline(&self) -> Option<Tick> {
        let due = self.execd.as_ref().and_then(Engine::next_deadline);
        due.map(|at| Tick(at.0.saturating_add(self.start.0)))
    }

    /// Whether its execd does not run.
    pub const fn is_gone(&self) -> bool {
        self.execd.is_none()
    }
}

impl World {
    /// A host's execd is started; it finds what an earlier one left.
    pub fn start_execd(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.execd.is_some() || (index == 0 && self.is_closing) {
            return;
        }
        host.incarnation += 1;
        host.start = self.now;
        host.is_stepping = false;
        let config = Config {
            limits: Limits::default(),
            hostpid: 10 + index as u32,
            version: "sim".into(),
            built_in: index == 0,
            exits_with_broker: false,
            policy: String::new(),
            binary: String::new(),
            hands_over: false,
            kept: None,
        };
        host.execd = Some(Engine::new(config));
        let records: Vec<(u32, Record)> =
            host.records.iter().map(|(pid, record)| (*pid, record.clone())).collect();
        let name = host.name.clone();
        self.note(format_args!("execd of {name} starts and finds {}", records.len()));
        for (pid, Record { broker, worker, run, digest }) in records {
            let alive = self.procs.contains_key(&pid);
            if !alive {
                self.hosts[index].records.remove(&pid);
            }
            let (is_older, watched) = (false, Watched::default());
            let recorded =
                RecordedProcess { broker, worker, run, digest, pid, alive, is_older, watched };
            self.feed_execd(index, Input::Recorded(recorded));
        }
    }

    /// execd is killed; its children go on.
    pub fn kill_execd(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        if host.execd.take().is_none() {
            return;
        }
        host.pending.clear();
        host.children.clear();
        host.launching.clear();
        host.proven.clear();
        let links = std::mem::take(&mut host.links);
        let name = host.name.clone();
        self.note(format_args!("execd of {name} is gone"));
        for conn in links.into_values() {
            self.peer_closes(conn);
        }
    }

    /// execd is asked to end, once.
    pub fn end_execd(&mut self, index: usize) {
        let host = &mut self.hosts[index];
        let incarnation = host.incarnation;
        if host.execd.is_some()
            && std::mem::replace(&mut host.asked_to_end, incarnation) != incarnation
        {
            self.model.count("execds asked to end");
            self.feed_execd(index, Input::Terminate);
        }
    }

    /// execd has forgotten its children.
    pub fn forget_records(&mut self, index: usize) {
        self.hosts[index].records.clear();
        self.orphan(index);
    }

    /// The machine starts anew: nobody says goodbye if it is unreachable first.
    pub fn reboot(&mut self, index: usize, is_silent: bool) {
        let name = self.hosts[index].name.clone();
        self.note(format_args!("host {name} starts anew, silent: {is_silent}"));
        let pids = self.pids_on(index);
        if is_silent {
            // Whoever is connected learns of it when the host is back and knows nothing of the
            // link.
            let back = self.now.plus_millis(self.rng.between(10, 20_000));
            self.hosts[index].partitioned_until = back;
            self.freeze_host(index, back);
        }
        self.kill_execd(index);
        for pid in pids {
            self.kill_proc(pid, ExitCause::Unknown);
        }
        let wait = self.rng.between(10, 20_000);
        self.later(wait * 1000, Event::StartExecd(index));
    }

    /// Pids of the processes on a host.
    pub fn pids_on(&self, index: usize) -> Vec<u32> {
        self.procs.iter().filter(|(_, proc)| proc.host == index).map(|(pid, _)| *pid).collect()
    }

    /// All connections of a host are silent until then.
    pub fn freeze_host(&mut self, index: usize, until: Tick) {
        let procs = &self.procs;
        for conn in self.conns.values_mut() {
            let is_there = match conn.peer {
                Peer::Client(_) | Peer::Bus(_) | Peer::Program(_) => false,
                Peer::Proc(pid) => procs.get(&pid).is_some_and(|proc| proc.host == index),
                Peer::Execd(host, _) => host == index,
            };
            if is_there {
                conn.frozen = conn.frozen.max(until);
            }
        }
    }

    /// A dial of the broker reaches the host, or not.
    pub fn dialled(&mut self, epoch: u32, name: &HostName, address: &str) {
        if epoch != self.epoch || self.broker.is_none() {
            return;
        }
        let index = self.hosts.iter().position(|host| host.address == address);
        let index = index.filter(|&index| {
            self.hosts[index].execd.is_some() && self.hosts[index].partitioned_until <= self.now
        });
        let Some(index) = index else {
            if address == self.hosts[0].address && self.hosts[0].partitioned_until <= self.now {
                // The broker's reactor starts the execd that it brings along when nobody answers.
                self.later(1000, Event::StartExecd(0));
            }
            let why = "connection refused".to_owned();
            self.feed(BrokerInput::HostRefused { host: name.clone(), why });
            return;
        };
        let host = &mut self.hosts[index];
        host.next_link += 1;
        let link = LinkId { index: host.next_link, generation: 0 };
        let Some(conn) = self.host_opened(name, Peer::Execd(index, link)) else { return };
        if self.conns.contains_key(&conn) {
            self.hosts[index].links.insert(link, conn);
            let must_prove = self.must_prove_at(index);
            if !must_prove {
                self.hosts[index].proven.insert(link);
            }
            let peer_group = PeerGroup::default();
            self.feed_execd(index, Input::Opened { link, denied: None, must_prove, peer_group });
        }
    }

    /// Handles the frames that arrived at an execd.
    pub fn execd_reads(&mut self, index: usize, link: LinkId, id: u64) {
        while self.broken.is_none() {
            let Some(conn) = self.conns.get_mut(&id).filter(|conn| conn.at_peer) else { return };
            match conn.down.pull(self.now, CONTROL_BODY_BYTES_MAX) {
                ReadResult::Nothing => return,
                ReadResult::Frame(kind, head, body) => match decode::frame(kind, head, body) {
                    Ok(frame) => self.feed_execd(index, Input::Frame { link, frame }),
                    Err(error) => self.hold(Err(format!("the broker sent an execd {error}"))),
                },
                ReadResult::Bad(error) => {
                    self.hold(Err(format!("the broker sent an execd {error}")))
                }
                ReadResult::Ended(_) => {
                    self.peer_closes(id);
                    self.hosts[index].links.remove(&link);
                    self.feed_execd(index, Input::Closed { link, why: "closed its connection" });
                }
            }
        }
    }

    /// Gives an execd's engine an input and carries out its actions.
    pub fn feed_execd(&mut self, index: usize, input: Input) {
        let host = &mut self.hosts[index];
        if host.execd.is_none() {
            return;
        }
        host.pending.push_back(input);
        if std::mem::replace(&mut host.is_stepping, true) {
            return;
        }
        loop {
            let host = &mut self.hosts[index];
            let Some(execd) = &mut host.execd else { return };
            let Some(input) = host.pending.pop_front() else { break };
            let mut actions = Vec::new();
            execd.step(Tick(self.now.0 - host.start.0), input, &mut actions);
            for action in actions {
                self.apply_execd(index, action);
            }
        }
        self.hosts[index].is_stepping = false;
    }

    fn apply_execd(&mut self, index: usize, action: Action) {
        match action {
            Action::Send { link, frame } => {
                let Some(conn) = self.hosts[index].links.get(&link).copied() else {
                    self.hold(Err(format!("execd sends {} to a link that is gone", frame.kind())));
                    return;
                };
                self.write_up(conn, encode::to_bytes(frame));
            }
            Action::Close { link } => {
                if let Some(conn) = self.hosts[index].links.remove(&link) {
                    self.end_up(conn, Close::Eof);
                    if let Some(conn) = self.conns.get_mut(&conn) {
                        conn.at_peer = false;
                        conn.down.discard();
                    }
                    self.sweep(conn);
                }
            }
            Action::Challenge { link, .. } => {
                if let Some(conn) = self.hosts[index].links.get(&link).copied() {
                    self.write_up(conn, encode::to_bytes(shell::challenge()));
                }
            }
            Action::Verify { link, proof } => {
                let host = &mut self.hosts[index];
                let proven = if tokens::secret_of(&proof) == host.token {
                    host.proven.insert(link);
                    Ok(tokens::signature(host.token))
                } else {
                    Err("it is wrong".to_owned())
                };
                host.pending.push_back(Input::Proven { link, proven });
            }
            Action::Spawn { child, broker, start } => self.spawn(index, child, &broker, &start),
            Action::GiveUp { child } => {
                let Some(is_given_up) = self.hosts[index].launching.get_mut(&child) else {
                    self.hold(Err(format!("execd gives child {child} up, which runs")));
                    return;
                };
                *is_given_up = true;
                if let Some(pid) = self.hosts[index].children.get(&child).copied() {
                    self.kill_proc(pid, ExitCause::Signal(9));
                }
            }
            Action::Adopt { child, pid } => {
                self.hosts[index].children.insert(child, pid);
            }
            Action::Signal { child, signal } => {
                let Some(pid) = self.hosts[index].children.get(&child).copied() else {
                    self.hold(Err(format!("execd signals child {child}, which is not there")));
                    return;
                };
                match signal {
                    Signal::TermGroup | Signal::AskGroup(_) => self.term_proc(pid),
                    Signal::KillGroup => self.kill_proc(pid, ExitCause::Signal(9)),
                    Signal::Process(_) => {}
                }
            }
            // The hosts of this world keep nothing and watch no memory.
            Action::Keep { .. } | Action::ReadKept { .. } | Action::Measure { .. } => {}
            Action::Forget { child } => {
                let host = &mut self.hosts[index];
                if let Some(pid) = host.children.remove(&child) {
                    host.records.remove(&pid);
                }
            }
            Action::Note(note) => {
                let name = self.hosts[index].name.clone();
                self.note(format_args!("{name}: {note:?}"));
            }
            Action::Exit | Action::HandOver => {
                self.kill_execd(index);
                self.hosts[index].is_stepping = false;
                if index != 0 {
                    self.later(1_000_000, Event::StartExecd(index));
                }
            }
        }
    }

    fn spawn(&mut self, index: usize, child: ChildId, broker: &str, start: &ExecStart) {
        if self.hosts[index].proven.is_empty() {
            self.hold(Err(format!(
                "a host starts worker {} for somebody who has proved nothing",
                start.worker
            )));
        }
        if !self.is_quiescent && self.rng.hits(self.plan.start_fails) {
            let permanent = self.rng.hits(100);
            let text = format!("{} can't be started in this simulation", start.path);
            let host = &mut self.hosts[index];
            host.pending.push_back(Input::SpawnFailed { child, permanent, text });
            return;
        }
        let pid = self.new_proc(index, start);
        let host = &mut self.hosts[index];
        host.children.insert(child, pid);
        let (broker, worker, run) = (broker.to_owned(), start.worker, start.run);
        let record = Record { broker, worker, run, digest: start.digest };
        host.records.insert(pid, record);
        host.pending.push_back(Input::Forked { child, pid });
        host.launching.insert(child, false);
        let incarnation = host.incarnation;
        let mut wait_ms = 0;
        if !self.is_quiescent && self.rng.hits(self.plan.start_waits) {
            wait_ms = self.rng.pick(&[1, 50, 1000, 10_000, 600_000]);
            let until = self.now.plus_millis(wait_ms);
            if let Some(proc) = self.procs.get_mut(&pid) {
                proc.frozen = until;
            }
        }
        self.later(wait_ms * 1000, Event::Launched(index, incarnation, child));
    }

    /// The program of a child begins to run, unless the child is gone.
    pub fn launched(&mut self, index: usize, incarnation: u32, child: ChildId) {
        let host = &mut self.hosts[index];
        let Some(pid) = host.children.get(&child).copied() else { return };
        let is_pending = host.launching.get(&child) == Some(&false);
        if host.incarnation == incarnation && is_pending && self.procs.contains_key(&pid) {
            self.hosts[index].launching.remove(&child);
            self.feed_execd(index, Input::Spawned { child, pid });
        }
    }

    /// A process ended: its execd, if it watches, learns of it a little later.
    pub fn died_on(&mut self, index: usize, pid: u32, exit_cause: ExitCause) {
        let host = &self.hosts[index];
        let child = host.children.iter().find(|(_, of)| **of == pid).map(|(child, _)| *child);
        if let Some(child) = child {
            let (wait, incarnation) = (self.rng.below(5000), host.incarnation);
            self.later(wait, Event::Reaped(index, incarnation, child, exit_cause));
        }
    }

    /// execd reaps a process.
    pub fn reaped(
        &mut self,
        index: usize,
        incarnation: u32,
        child: ChildId,
        exit_cause: ExitCause,
    ) {
        if self.hosts[index].incarnation != incarnation {
            return;
        }
        let host = &mut self.hosts[index];
        match host.launching.remove(&child) {
            Some(true) => {
                let text = "it was ended before it began to run".to_owned();
                self.feed_execd(index, Input::SpawnFailed { child, permanent: false, text });
                return;
            }
            Some(false) => {
                let Some(pid) = host.children.get(&child).copied() else { return };
                self.feed_execd(index, Input::Spawned { child, pid });
            }
            None => {}
        }
        let last = Bytes::from_static(b"last words");
        let stream = Stream::Stderr;
        self.feed_execd(index, Input::Output { child, stream, bytes: last.to_vec() });
        let end = ProcessEnd { cpu_ms: 1, rss_kib_max: 1, ..ProcessEnd::of(exit_cause) };
        self.feed_execd(index, Input::Exited { child, end });
        // Sometimes a grandchild keeps the streams open.
        if self.is_quiescent || self.rng.hits(800) {
            for stream in [Stream::Stdout, Stream::Stderr] {
                self.feed_execd(index, Input::OutputEnd { child, stream });
            }
        }
    }
}
