//! The reactor's own timeouts: closings that take too long, dials without an answer, connections
//! that accept no bytes. The engine keeps its deadlines itself.

use super::conn::Phase;
use super::dial::DIAL_MS;
use super::io::Io;
use crate::engine::input::Input;
use protocol::{LinkId, Micros, Tick};
use std::cmp::Reverse;
use std::mem;

/// If a turn begins this much later than something was due, the process or its machine stood still.
const STANDSTILL: Micros = Micros::from_millis(250);

impl Io {
    /// Schedules a check of a link at this tick.
    pub(super) fn watch_deadline(&mut self, at: Tick, link: LinkId) {
        self.deadlines.push(Reverse((at, link)));
    }

    /// Called with the tick at which something was due. If `now` is much later, this process stood
    /// still: all timeouts of peers are extended by that time, because they had no chance to send
    /// or to receive anything.
    pub(super) fn excuse_standstill(&mut self, due: Tick) {
        let late = self.now.since(due);
        if late < STANDSTILL {
            return;
        }
        self.deadlines.clear();
        let mut watched = Vec::new();
        self.links.each(|link, conn| {
            conn.progress_at = conn.progress_at + late;
            match &mut conn.phase {
                Phase::Dialling { until, .. }
                | Phase::Closing { until }
                | Phase::Lingering { until } => {
                    *until = *until + late;
                    watched.push(Reverse((*until, link)));
                }
                Phase::Open | Phase::Malformed => {}
            }
        });
        self.deadlines.extend(watched);
    }

    /// Tick of the reactor's next timeout; `None` = there is none.
    pub(super) fn next_due(&self) -> Option<Tick> {
        let deadline = self.deadlines.peek().map(|Reverse((at, _))| *at);
        let redial = self.redials.iter().map(|redial| redial.at).min();
        let partial = Some(self.partial_frames.look_at);
        let looks = [self.sweep_at, self.liveness.look_at, self.acceptor.retry_at, partial];
        looks.into_iter().chain([deadline, redial]).flatten().min()
    }

    /// Handles all timeouts that have passed.
    pub(super) fn due(&mut self) {
        if !self.redials.is_empty() {
            self.redial();
        }
        while let Some(Reverse((at, link))) = self.deadlines.peek().copied() {
            if at > self.now {
                break;
            }
            self.deadlines.pop();
            self.expire(link);
        }
        if self.sweep_at.is_some_and(|at| at <= self.now) {
            self.sweep();
        }
        if self.liveness.look_at.is_some_and(|at| at <= self.now) {
            self.check_liveness();
        }
    }

    fn expire(&mut self, link: LinkId) {
        let now = self.now;
        match self.links.get(link).map(|conn| &conn.phase) {
            Some(Phase::Closing { until } | Phase::Lingering { until }) if *until <= now => {
                self.drop_link(link);
            }
            Some(Phase::Dialling { host, until }) if *until <= now => {
                let host = host.clone();
                self.drop_link(link);
                self.refused(host, format!("no answer within {DIAL_MS} ms"));
            }
            // The entry is stale: the connection is gone, or in another phase with its own
            // deadline.
            Some(
                Phase::Open
                | Phase::Malformed
                | Phase::Dialling { .. }
                | Phase::Closing { .. }
                | Phase::Lingering { .. },
            )
            | None => {}
        }
    }

    /// Checks the links with unsent bytes, and reports those that accepted none for too long.
    fn sweep(&mut self) {
        let (now, stall) = (self.now, Micros::from_millis(self.limits.stall_ms));
        let mut list = mem::take(&mut self.waiting);
        list.retain(|link| {
            let Some(conn) = self.links.get(*link) else { return false };
            if conn.is_waiting && !conn.is_too_slow && now.since(conn.progress_at) >= stall {
                conn.is_too_slow = true;
                let bytes = conn.outbox.bytes() as u64;
                self.inputs.push_back((Some(*link), Input::Stalled { link: *link, bytes }));
            }
            conn.is_waiting
        });
        self.waiting = list;
        let interval = self.limits.stall_ms / 4 + 1;
        self.sweep_at = (!self.waiting.is_empty()).then(|| now.plus_millis(interval));
    }
}
