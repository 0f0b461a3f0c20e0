//! Injects the simulation's faults, one at a time, at random moments. Faults act on the connections
//! and around the engines, never inside them.

use super::plan::{Fault, Sabotage};
use super::world::{Event, World};
use crate::shell::Player;
use protocol::bodies::{ErrorBody, ExitCause};
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::kinds::Role;
use protocol::time::Tick;

impl World {
    /// Injects one fault and schedules the next.
    pub fn fault_happens(&mut self) {
        if self.is_quiescent || self.plan.fault_ms == 0 {
            return;
        }
        let wait = self.rng.between(1, self.plan.fault_ms * 1000);
        self.later(wait, Event::Fault);
        let sum: u64 = self.plan.faults.iter().map(|(_, weight)| weight).sum();
        let mut at = self.rng.below(sum.max(1));
        let faults = self.plan.faults.clone();
        for (fault, weight) in faults {
            if at < weight {
                self.note(format_args!("fault: {fault:?}"));
                return self.inflict(fault);
            }
            at -= weight;
        }
    }

    fn inflict(&mut self, fault: Fault) {
        let until = Tick(self.now.0 + self.rng.between(1000, 15_000_000));
        let pids: Vec<u32> = self.procs.keys().copied().collect();
        let pid = (!pids.is_empty()).then(|| self.rng.pick(&pids));
        let conns: Vec<u64> = self.conns.keys().copied().collect();
        let conn = (!conns.is_empty()).then(|| self.rng.pick(&conns));
        let host = self.rng.index(self.hosts.len());
        match fault {
            Fault::KillWorker => {
                if let Some(pid) = pid {
                    self.kill_proc(pid, ExitCause::Signal(9));
                }
            }
            Fault::DropLink => {
                if let Some(conn) = conn {
                    self.break_conn(conn, 0);
                }
            }
            Fault::DropWorkerLink => {
                let late = if self.rng.hits(500) { self.rng.below(8_000_000) } else { 0 };
                let conn = pid.and_then(|pid| self.procs.get(&pid)).and_then(|proc| proc.conn);
                if let Some(conn) = conn {
                    self.break_conn(conn, late);
                }
            }
            Fault::FreezeLink => {
                if let Some(conn) = conn.and_then(|conn| self.conns.get_mut(&conn)) {
                    conn.frozen = until;
                }
            }
            Fault::FreezeWorker => {
                if let Some(proc) = pid.and_then(|pid| self.procs.get_mut(&pid)) {
                    proc.frozen = until;
                }
            }
            Fault::PartitionHost => {
                self.hosts[host].partitioned_until = until;
                self.freeze_host(host, until);
            }
            Fault::PartitionFar => {
                let far = 1 + self.rng.index(self.hosts.len().saturating_sub(1).max(1));
                if far < self.hosts.len() {
                    let until = self.now.plus_millis(self.rng.between(3000, 55_000));
                    self.hosts[far].partitioned_until = until;
                    self.freeze_host(far, until);
                    self.model.count("machines partitioned");
                }
            }
            Fault::Reboot => {
                let is_silent = self.rng.hits(500);
                // The built-in execd is on the broker's own machine.
                if host != 0 {
                    self.reboot(host, is_silent);
                }
            }
            Fault::RestartExecd | Fault::ForgetfulExecd => {
                self.kill_execd(host);
                if fault == Fault::ForgetfulExecd {
                    self.forget_records(host);
                }
                let wait = self.rng.between(1, 3_000_000);
                self.later(wait, Event::StartExecd(host));
            }
            Fault::KillBroker => {
                self.kill_broker();
                let wait = self.rng.between(1, 3_000_000);
                self.later(wait, Event::StartBroker);
            }
            Fault::EndBroker => {
                let input = broker::engine::input::Input::Terminate { signal: "TERM" };
                self.feed(input);
            }
            Fault::KeepBroker => {
                if self.broker.is_some() {
                    self.model.count("brokers that kept their workers");
                }
                self.operate("halt keep");
            }
            Fault::DrainHost => {
                let verb = if self.rng.hits(500) { "drain" } else { "undrain" };
                let command = format!("{verb} host {}", self.hosts[host].name);
                self.operate(&command);
                self.model.count(verb);
            }
            Fault::EndExecd => self.end_execd(host),
            Fault::Leap => {
                let leap = self.rng.between(1, 60_000);
                self.now = self.now.plus_millis(leap);
                self.model.stands_still(leap * 1000);
            }
            Fault::PersistFails => self.persist_fails = !self.persist_fails,
        }
    }

    /// Breaks a rule on purpose, once. Returns the frame to send instead.
    pub fn sabotage(&mut self, id: u64, frame: Frame) -> Option<Frame> {
        let Some(role) = self.conns.get(&id).map(|conn| conn.role) else { return Some(frame) };
        let sabotage = self.plan.sabotage;
        let frame = match (sabotage, role, frame) {
            (Sabotage::DropReply, Role::Client, Frame::Data { head, .. })
                if head.more == 0 && self.is_time() =>
            {
                return None;
            }
            (Sabotage::LieAboutRan, Role::Client, Frame::Error { head, error })
                if error.code == ErrorCode::WorkerDied =>
            {
                let error = ErrorBody { ran: Ran::No, ..error };
                Frame::Error { head, error }
            }
            (Sabotage::WrongClient, Role::Client, Frame::Data { head, body })
                if head.more == 0 && self.is_time() =>
            {
                let head = protocol::header::Header { sequence: head.sequence + 1, ..head };
                Frame::Data { head, body }
            }
            (Sabotage::RunTwice, Role::Worker, Frame::Data { head, body }) => {
                let other = self.conns.iter().find(|(other, conn)| {
                    **other != id && conn.role == Role::Worker && conn.at_peer
                });
                if let Some((&other, _)) = other
                    && head.more == 0
                    && self.is_time()
                {
                    let frame = Frame::Data { head, body: body.clone() };
                    self.write_down(other, protocol::encode::to_bytes(frame));
                }
                Frame::Data { head, body }
            }
            (Sabotage::LieAboutCancel, Role::Client, Frame::Error { head, error })
                if error.code == ErrorCode::Cancelled =>
            {
                let error = ErrorBody { ran: Ran::No, ..error };
                Frame::Error { head, error }
            }
            (Sabotage::Overfill, Role::Worker, Frame::Data { head, body }) => {
                return self.overfill(id, Frame::Data { head, body });
            }
            (_, _, frame) => frame,
        };
        Some(frame)
    }

    /// A request goes to another worker, which has as many as it takes.
    fn overfill(&mut self, id: u64, frame: Frame) -> Option<Frame> {
        let is_full = |(other, conn): &(&u64, &super::links::Conn)| {
            let service = self.service_at(**other);
            let is_full = service.is_some_and(|service| self.model.is_full(conn.link, service));
            **other != id && conn.at_peer && is_full
        };
        let full = self.conns.iter().find(is_full).map(|(other, _)| *other);
        let Some(other) = full.filter(|_| self.is_time()) else { return Some(frame) };
        self.gives_work(other, &frame);
        self.write_down(other, protocol::encode::to_bytes(frame));
        None
    }

    /// Counts down to the sabotage; `true` once, when the count reaches zero.
    pub(super) fn is_time(&mut self) -> bool {
        if self.sabotage_left == 0 {
            return false;
        }
        self.sabotage_left -= 1;
        self.sabotage_left == 0
    }
}
