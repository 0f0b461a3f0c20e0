//! The lists in which the workers of a service take turns: idle, with room for one more
//! (`concurrency`), able to hold one ahead (`prefetch`), or in none. `serve` gives them requests.

use super::machine::Dispatch;
use super::seat::{InTurns, WorkerList};
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::keys::{ServiceKey, WorkerKey};
use protocol::ServiceSetting;

/// Workers with room that are looked at to reserve the one that has the least.
const RESERVE_OF: usize = 64;

impl Dispatch {
    /// Takes the worker that has been idle longest off the idle list of a service. The caller must
    /// bind a request to it.
    pub(super) fn take_idle(&mut self, service: ServiceKey) -> Option<WorkerKey> {
        let entry = &mut self.queues[service];
        let key = entry.idle.pop(&mut self.seats)?;
        entry.busy += 1;
        self.idle -= 1;
        self.busy += 1;
        let seat = &mut self.seats[key];
        (seat.list, seat.in_turns) = (WorkerList::Busy, InTurns::Nowhere);
        Some(key)
    }

    /// Takes the first one off the list of workers that may be given one more. The caller must bind
    /// a request to it.
    pub(super) fn take_room(&mut self, service: ServiceKey) -> Option<WorkerKey> {
        let key = self.queues[service].room.pop(&mut self.seats)?;
        self.seats[key].in_turns = InTurns::Nowhere;
        Some(key)
    }

    /// One worker gets no further request, so that it becomes idle for one that must run alone: of
    /// those with room the one that has the least. The only one with room is never kept from what
    /// else waits (docs/decisions/0040).
    pub(super) fn reserve(&mut self, service: ServiceKey) {
        let entry = &self.queues[service];
        if entry.reserved.is_some() || entry.room.len() < 2 {
            return;
        }
        let looked_at = entry.room.iter(&self.seats).take(RESERVE_OF);
        if let Some(worker) = looked_at.min_by_key(|&key| self.seats[key].running()) {
            self.queues[service].reserved = Some(worker);
            self.seats[worker].is_reserved = true;
            self.set_turns(worker, InTurns::Nowhere);
        }
    }

    /// The worker that was reserved may be given requests again; the caller arranges it.
    pub(super) fn unreserve(&mut self, service: ServiceKey) {
        if let Some(worker) = self.queues[service].reserved.take() {
            self.seats[worker].is_reserved = false;
            self.update_room(worker);
        }
    }

    /// The list of its service that a worker belongs in.
    pub(super) fn turns_of(&self, key: WorkerKey, catalog: &Catalog) -> InTurns {
        let seat = &self.seats[key];
        let Some(current) = seat.current.map(|current| &self.transactions[current]) else {
            return if seat.list == WorkerList::Idle { InTurns::Idle } else { InTurns::Nowhere };
        };
        // One that takes several answers them in any order, also while its service allows one.
        if seat.announced.concurrency > 1 {
            return if self.has_room_beside(key) { InTurns::Room } else { InTurns::Nowhere };
        }
        let settings = &catalog[seat.service].settings;
        let prefetch = settings.get(ServiceSetting::Prefetch);
        // It could begin the next one behind a conversation that it does not know to be refused.
        let is_timed = settings.get(ServiceSetting::OpenEnded) == 0;
        let is_one_frame = !current.takes_frames() && !current.stage.is_ended();
        let may_hold = is_timed && is_one_frame && seat.is_available();
        if prefetch > seat.held.len() as u64 && may_hold {
            InTurns::Ahead
        } else {
            InTurns::Nowhere
        }
    }

    /// Whether a worker may be given a request beside those that it has.
    pub(super) fn has_room_beside(&self, key: WorkerKey) -> bool {
        let seat = &self.seats[key];
        let runs_alone = seat.current.is_some_and(|at| self.transactions[at].must_run_alone());
        seat.has_room() && !runs_alone
    }

    /// Puts a worker into the list of its service that it belongs in.
    pub(super) fn update_turns(&mut self, key: WorkerKey, cx: &Context<'_>) {
        let turns = self.turns_of(key, cx.catalog);
        self.set_turns(key, turns);
    }

    /// The same for a busy worker that was reserved.
    pub(super) fn update_room(&mut self, key: WorkerKey) {
        let seat = &self.seats[key];
        if seat.capacity > 1 && seat.list == WorkerList::Busy && self.has_room_beside(key) {
            self.set_turns(key, InTurns::Room);
        }
    }

    /// Puts a worker into this list of its service, at its end.
    pub(super) fn set_turns(&mut self, key: WorkerKey, turns: InTurns) {
        let seat = &mut self.seats[key];
        if seat.in_turns == turns {
            return;
        }
        let before = std::mem::replace(&mut seat.in_turns, turns);
        let entry = &mut self.queues[seat.service];
        match before {
            InTurns::Nowhere => {}
            InTurns::Idle => entry.idle.remove(key, &mut self.seats),
            InTurns::Room => entry.room.remove(key, &mut self.seats),
            InTurns::Ahead => entry.ahead.remove(key, &mut self.seats),
        }
        match turns {
            InTurns::Nowhere => {}
            InTurns::Idle => entry.idle.push(key, &mut self.seats),
            InTurns::Room => entry.room.push(key, &mut self.seats),
            InTurns::Ahead => entry.ahead.push(key, &mut self.seats),
        }
    }

    /// Does what [`arrange`](Self::arrange) would do with a busy worker that has nothing any more
    /// and may be given requests: the usual case, which costs the least. Returns whether it was
    /// that.
    pub(super) fn becomes_idle(&mut self, key: WorkerKey) -> bool {
        let seat = &mut self.seats[key];
        let is_usual = seat.current.is_none()
            && seat.is_available()
            && seat.in_turns == InTurns::Nowhere
            && seat.list == WorkerList::Busy
            && !seat.is_reserved;
        if is_usual {
            (seat.list, seat.in_turns) = (WorkerList::Idle, InTurns::Idle);
            let entry = &mut self.queues[seat.service];
            entry.busy -= 1;
            self.busy -= 1;
            self.idle += 1;
            entry.idle.push(key, &mut self.seats);
        }
        is_usual
    }

    /// Puts a worker into the lists it belongs in. Whoever calls this with one that may have become
    /// idle serves its service next.
    pub(super) fn arrange(&mut self, key: WorkerKey, cx: &Context<'_>) {
        let seat = &mut self.seats[key];
        let (before, list) = (seat.list, seat.list_by_state());
        if list != before {
            seat.list = list;
            let entry = &mut self.queues[seat.service];
            match before {
                WorkerList::Idle => self.idle -= 1,
                WorkerList::Busy => {
                    entry.busy -= 1;
                    self.busy -= 1;
                }
                WorkerList::Lazy => {}
            }
            match list {
                WorkerList::Idle => self.idle += 1,
                WorkerList::Busy => {
                    entry.busy += 1;
                    self.busy += 1;
                }
                WorkerList::Lazy => {}
            }
        }
        if self.seats[key].is_reserved
            && !(list == WorkerList::Busy && self.seats[key].is_available())
        {
            // It has become idle, or can't: then another one is reserved.
            self.queues[self.seats[key].service].reserved = None;
            self.seats[key].is_reserved = false;
        }
        self.update_turns(key, cx);
    }
}
