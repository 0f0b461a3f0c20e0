//! The fault injector: chooses faults by a seed, applies each one to real processes, and undoes it.
//! `checker` and `quiescence` state what must hold.

use super::checker::{Cause, Excuse};
use super::clock::pause;
use super::history::State;
use super::proxy::{CloseBy, ConnFault, Proxy};
use super::quiescence::QUIESCENCE_MAX;
use super::world::World;
use crate::proc::{signal_pid, within};
use crate::sim::rng::Rng;
use nix::sys::signal::Signal;
use protocol::limits::TLS_PREFIX;
use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::TcpStream;
use std::time::Duration;

use secrets::{SECRETS, Secret};

mod secrets;

/// Connections of a flood: more than the broker has descriptors.
const FLOOD: usize = 400;

/// A kind of fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    KillWorker(State),
    StopWorker(State),
    KillExecd,
    StopExecd,
    KillFar,
    KillBroker,
    StopBroker,
    Close(ProxyOf),
    HalfOpen(ProxyOf),
    Stall(ProxyOf),
    DiskFull,
    DiskReadOnly,
    Flood,
    FloodExecd,
    ClockStep,
    Idle,
    Shutdown,
    Secret(Secret),
}

/// Whose connections go through the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ProxyOf {
    Clients,
    Workers,
    Hosts,
}

/// Each fault, how often it comes, and its name in the report.
const FAULTS: &[(Fault, u64, &str)] = &[
    (Fault::KillWorker(State::Busy), 14, "worker killed, busy"),
    (Fault::KillWorker(State::Ready), 6, "worker killed, idle"),
    (Fault::KillWorker(State::Started), 5, "worker killed, before it logs in"),
    (Fault::StopWorker(State::Busy), 6, "worker stopped and continued, busy"),
    (Fault::StopWorker(State::Ready), 4, "worker stopped and continued, idle"),
    (Fault::KillExecd, 3, "built-in execd killed"),
    (Fault::StopExecd, 2, "built-in execd stopped and continued"),
    (Fault::KillFar, 3, "far execd killed and started again"),
    (Fault::KillBroker, 4, "broker killed and started again"),
    (Fault::StopBroker, 3, "broker stopped and continued"),
    (Fault::Close(ProxyOf::Clients), 8, "client's connection closed"),
    (Fault::Close(ProxyOf::Workers), 5, "far worker's connection closed"),
    (Fault::Close(ProxyOf::Hosts), 3, "far execd's connection closed"),
    (Fault::HalfOpen(ProxyOf::Clients), 5, "client's connection half-opened"),
    (Fault::HalfOpen(ProxyOf::Workers), 3, "far worker's connection half-opened"),
    (Fault::HalfOpen(ProxyOf::Hosts), 2, "far execd's connection half-opened"),
    (Fault::Stall(ProxyOf::Clients), 5, "client's connection stalled"),
    (Fault::Stall(ProxyOf::Workers), 3, "far worker's connection stalled"),
    (Fault::Stall(ProxyOf::Hosts), 2, "far execd's connection stalled"),
    (Fault::DiskFull, 3, "state directory full"),
    (Fault::DiskReadOnly, 3, "state directory read-only"),
    (Fault::Flood, 2, "descriptors used up"),
    (Fault::FloodExecd, 1, "far execd flooded with connections"),
    (Fault::ClockStep, 4, "wall clock stepped"),
    (Fault::Idle, 3, "operator's idle"),
    (Fault::Shutdown, 2, "operator's shutdown of a worker's socket"),
];

/// The action that undoes a fault.
#[derive(Debug)]
enum Undo {
    Continue(u32),
    ContinueBroker,
    Mend,
    /// The connections of a flood close.
    Close(Vec<TcpStream>),
}

/// Injects faults and undoes them.
#[derive(Debug)]
pub struct FaultInjector {
    rng: Rng,
    undo: Vec<(u64, Undo)>,
    /// When the broker or the machine stood still.
    pub excuses: Vec<Excuse>,
    /// What was done, by name.
    pub counts: BTreeMap<&'static str, u64>,
    /// What must not be and was seen at once.
    pub wrong: Vec<String>,
    /// A file was changed and the broker does not know it yet.
    is_reload_due: bool,
}

impl FaultInjector {
    /// By this seed.
    pub fn new(seed: u64) -> Self {
        Self {
            rng: Rng::new(seed),
            undo: Vec::new(),
            excuses: Vec::new(),
            counts: BTreeMap::new(),
            wrong: Vec::new(),
            is_reload_due: false,
        }
    }

    /// Fault after fault for so long.
    pub fn inject_for(&mut self, world: &mut World, span: Duration) {
        let until = world.clock.now() + u64::try_from(span.as_micros()).unwrap_or(0);
        let more = if world.secrets.is_some() { SECRETS } else { &[] };
        let all: u64 = FAULTS.iter().chain(more).map(|(_, weight, _)| weight).sum();
        while world.clock.now() < until && self.wrong.is_empty() {
            let mut at = self.rng.below(all);
            let row = FAULTS.iter().chain(more).find(|(_, weight, _)| {
                let is_it = at < *weight;
                at = at.saturating_sub(*weight);
                is_it
            });
            if let Some((fault, _, name)) = row
                && self.strike(world, *fault)
            {
                *self.counts.entry(name).or_default() += 1;
            }
            pause(Duration::from_millis(self.rng.between(10, 250)));
            self.undo_due(world, world.clock.now());
        }
    }

    /// All faults are undone.
    pub fn end(&mut self, world: &mut World) {
        self.undo_due(world, u64::MAX);
        world.set_impaired(0);
        // What could not be said while its connections were used up.
        if self.is_reload_due
            && within(QUIESCENCE_MAX, || self.reload(world).then_some(())).is_none()
        {
            self.wrong.push("no reload although the faults are over".to_owned());
        }
    }

    fn later(&mut self, world: &World, millis: (u64, u64), undo: Undo) -> u64 {
        let at = world.clock.now() + self.rng.between(millis.0, millis.1) * 1000;
        self.undo.push((at, undo));
        at
    }

    fn undo_due(&mut self, world: &mut World, now: u64) {
        let (due, later) =
            std::mem::take(&mut self.undo).into_iter().partition(|(at, _)| *at <= now);
        self.undo = later;
        let due: Vec<(u64, Undo)> = due;
        for (_, undo) in due {
            match undo {
                Undo::Continue(pid) => signal_pid(pid, Signal::SIGCONT),
                Undo::ContinueBroker => {
                    world.broker.process.signal(Signal::SIGCONT);
                    let now = world.clock.now();
                    let stop = self.excuses.iter_mut().rev().find(|e| e.cause == Cause::Stopped);
                    if let Some(stop) = stop {
                        stop.until = now;
                    }
                }
                Undo::Mend => world.disk.mend(),
                Undo::Close(streams) => drop(streams),
            }
        }
    }

    fn is_stopped(&self) -> bool {
        self.undo.iter().any(|(_, undo)| matches!(undo, Undo::ContinueBroker))
    }

    fn is_disk_bad(&self) -> bool {
        self.undo.iter().any(|(_, undo)| matches!(undo, Undo::Mend))
    }

    /// Does it; `false` = it can't be done now.
    fn strike(&mut self, world: &mut World, fault: Fault) -> bool {
        match fault {
            Fault::KillWorker(state) => self.signal_worker(world, state, Signal::SIGKILL).is_some(),
            Fault::StopWorker(state) => {
                let Some(pid) = self.signal_worker(world, state, Signal::SIGSTOP) else {
                    return false;
                };
                self.later(world, (20, 2500), Undo::Continue(pid));
                true
            }
            Fault::KillExecd | Fault::StopExecd => self.hit_execd(world, fault),
            Fault::KillFar => {
                world.far.kill(&[]);
                world.far.restart();
                true
            }
            Fault::KillBroker => self.kill_broker(world),
            Fault::StopBroker => self.stop_broker(world),
            Fault::Close(of) => {
                let how = self.rng.pick(&[CloseBy::Fin, CloseBy::Rst]);
                self.inject(proxy(world, of), ConnFault::Close(how))
            }
            Fault::HalfOpen(of) => self.inject(proxy(world, of), ConnFault::HalfOpen),
            Fault::Stall(of) => {
                let span = Duration::from_millis(self.rng.between(50, 4000));
                let span = (!self.rng.hits(200)).then_some(span);
                let is_up = self.rng.hits(500);
                self.inject(proxy(world, of), ConnFault::Stall(is_up, span))
            }
            Fault::DiskFull | Fault::DiskReadOnly => self.hit_disk(world, fault),
            Fault::Flood => self.flood(world, &world.broker.port("client")),
            Fault::FloodExecd => self.flood(world, &world.far.address),
            Fault::ClockStep => self.step_clock(world),
            Fault::Idle | Fault::Shutdown => self.operate(world, fault),
            Fault::Secret(secret) => self.change_secrets(world, secret),
        }
    }

    fn inject(&mut self, proxy: &Proxy, fault: ConnFault) -> bool {
        let is_possible = proxy.live() > 0;
        proxy.inject(self.rng.bits(), fault);
        is_possible
    }

    /// Sends a signal to a worker in that state, as far as its history tells.
    fn signal_worker(&mut self, world: &mut World, state: State, signal: Signal) -> Option<u32> {
        world.histories.read();
        let of = |wanted: State, world: &World| -> Vec<u32> {
            let all = world.histories.witnesses.iter();
            all.filter(|(who, state)| **state == wanted && who.is_alive())
                .map(|(who, _)| who.pid)
                .collect()
        };
        let mut pids = of(state, world);
        if pids.is_empty() && state == State::Started {
            // One is made to start: then it can be met before it logs in.
            let first = of(State::Ready, world).first().copied()?;
            signal_pid(first, Signal::SIGKILL);
            pause(Duration::from_millis(40));
            world.histories.read();
            pids = of(state, world);
        }
        let pid = *pids.get(self.rng.index(pids.len()))?;
        signal_pid(pid, signal);
        Some(pid)
    }

    fn hit_execd(&mut self, world: &World, fault: Fault) -> bool {
        if self.is_stopped() {
            return false;
        }
        let pid = world.execd_pid();
        if pid == 0 {
            return false;
        }
        if fault == Fault::KillExecd {
            signal_pid(pid, Signal::SIGKILL);
        } else {
            signal_pid(pid, Signal::SIGSTOP);
            self.later(world, (20, 2500), Undo::Continue(pid));
        }
        true
    }

    fn kill_broker(&mut self, world: &mut World) -> bool {
        if self.is_stopped() {
            return false;
        }
        let from = world.clock.now();
        self.excuses.push(Excuse { cause: Cause::Killed, from, until: u64::MAX });
        world.broker.kill();
        if let Err(status) = world.broker.try_restart() {
            if !self.is_disk_bad() {
                let log = world.broker.process.log();
                let tail = &log[log.len().saturating_sub(2000)..];
                self.wrong.push(format!("the broker ended with status {status}:\n{tail}"));
                return true;
            }
            // It can't start on a bad disk; somebody mends it and starts it again.
            *self.counts.entry("broker did not start on a bad disk").or_default() += 1;
            world.disk.mend();
            world.broker.restart();
        }
        world.watch.attend(world.broker.process.pid());
        let until = world.clock.now();
        if let Some(excuse) = self.excuses.last_mut() {
            excuse.until = until;
        }
        true
    }

    fn stop_broker(&mut self, world: &World) -> bool {
        if self.is_stopped() {
            return false;
        }
        let from = world.clock.now();
        world.broker.process.signal(Signal::SIGSTOP);
        self.excuses.push(Excuse { cause: Cause::Stopped, from, until: u64::MAX });
        self.later(world, (20, 1500), Undo::ContinueBroker);
        true
    }

    /// The disk is full or read-only; meanwhile the configuration changes.
    fn hit_disk(&mut self, world: &World, fault: Fault) -> bool {
        if self.is_stopped() || self.is_disk_bad() {
            return false;
        }
        match fault {
            Fault::DiskFull => world.disk.fill(),
            _ => world.disk.protect(),
        }
        self.later(world, (300, 3000), Undo::Mend);
        let queue = self.rng.between(5000, 20_000);
        // Whether it is taken or refused: afterwards what is kept must be what is configured.
        let _ = world.op(&format!("config service plain queue_max={queue}"));
        true
    }

    /// Uses up descriptors: mute connections, and some that send half a header.
    fn flood(&mut self, world: &World, address: &str) -> bool {
        let Ok(address) = address.trim_start_matches(TLS_PREFIX).parse() else { return false };
        let mut streams = Vec::new();
        for index in 0..FLOOD {
            let Ok(mut stream) = TcpStream::connect_timeout(&address, Duration::from_millis(200))
            else {
                break;
            };
            if index % 3 == 0 {
                // It may be refused already.
                let _ = stream.write_all(&[0; 32]);
            }
            streams.push(stream);
        }
        self.later(world, (100, 1500), Undo::Close(streams));
        true
    }

    fn step_clock(&mut self, world: &World) -> bool {
        let Some(wall) = &world.wall else { return false };
        let step = self.rng.pick(&["-400d", "-1h", "-1", "+0", "+1", "+1h", "+400d"]);
        // In its place at once: it may be read at any moment.
        let beside = wall.with_extension("new");
        std::fs::write(&beside, format!("{step}\n")).is_ok()
            && std::fs::rename(&beside, wall).is_ok()
    }

    fn operate(&mut self, world: &World, fault: Fault) -> bool {
        if self.is_stopped() {
            return false;
        }
        let id = self.rng.between(1, 14);
        let command = match fault {
            Fault::Idle => format!("idle {id}"),
            _ => {
                let page = world.op(&format!("worker {id}")).unwrap_or_default();
                let fd = page.lines().find_map(|line| line.strip_prefix("worker->fd = "));
                let Some(fd) = fd else { return false };
                format!("shutdown {fd}")
            }
        };
        world.op(&command).is_ok()
    }
}

const fn proxy(world: &World, of: ProxyOf) -> &Proxy {
    match of {
        ProxyOf::Clients => &world.clients,
        ProxyOf::Workers => &world.workers,
        ProxyOf::Hosts => &world.hosts,
    }
}
