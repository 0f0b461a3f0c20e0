//! The laws of `dispatch`: what must hold after each step.

use super::machine::Dispatch;
use super::seat::{InTurns, Seat, WorkerList};
use super::service_queue::ServiceQueue;
use super::stage::Stage;
use crate::engine::catalog::Catalog;
use crate::engine::keys::{ServiceKey, TransactionKey, WorkerKey};
use crate::engine::law::law;
use protocol::time::Tick;
use std::collections::{BTreeMap, BTreeSet};

impl Dispatch {
    /// The law that is broken, if any. While long work is under way (`is_working`), requests may
    /// wait that are to get an error, or to be given to a worker.
    ///
    /// # Errors
    /// Names the law and the ids.
    pub(crate) fn check(
        &self,
        catalog: &Catalog,
        now: Tick,
        is_working: bool,
    ) -> Result<(), String> {
        self.check_seats(catalog)?;
        self.check_transactions(catalog, now, is_working)?;
        self.check_queues(catalog, is_working)?;
        law!(self.traces.is_sound(), "law 6: the bytes of the time lines are counted wrong");
        if !is_working {
            self.check_outlooks(catalog)?;
        }
        self.flow.check()
    }

    fn check_seats(&self, catalog: &Catalog) -> Result<(), String> {
        let mut counts: BTreeMap<ServiceKey, usize> = BTreeMap::new();
        let mut workers: BTreeMap<ServiceKey, BTreeSet<WorkerKey>> = BTreeMap::new();
        let (mut idle, mut busy) = (0, 0);
        for (key, seat) in self.seats.iter() {
            self.check_seat(key, catalog)?;
            self.check_work(key, seat)?;
            idle += usize::from(seat.list == WorkerList::Idle);
            busy += usize::from(seat.list == WorkerList::Busy);
            *counts.entry(seat.service).or_default() += usize::from(seat.list == WorkerList::Busy);
            workers.entry(seat.service).or_default().insert(key);
        }
        law!(
            (idle, busy) == (self.idle, self.busy),
            "law 1: counts {} idle and {} busy workers, are {idle} and {busy}",
            self.idle,
            self.busy
        );
        for (key, queue) in self.queues.iter() {
            self.check_turns(queue)?;
            let count = counts.get(&key).copied().unwrap_or(0);
            let name = &catalog[key].name;
            law!(count == queue.busy, "law 1: {name} counts {} busy, are {count}", queue.busy);
            let seats = workers.remove(&key).unwrap_or_default();
            law!(queue.workers == seats, "law 6: {name} lists {:?}, has {seats:?}", queue.workers);
        }
        Ok(())
    }

    fn check_seat(&self, key: WorkerKey, catalog: &Catalog) -> Result<(), String> {
        let seat = &self.seats[key];
        let (id, entry) = (seat.id, &self.queues[seat.service]);
        law!(
            seat.list == seat.list_by_state(),
            "law 1: worker {id} is {:?}, should be {:?}",
            seat.list,
            seat.list_by_state()
        );
        law!(
            seat.in_turns == self.turns_of(key, catalog),
            "law 1: worker {id} is in {:?}, should be in {:?}",
            seat.in_turns,
            self.turns_of(key, catalog)
        );
        law!(
            seat.is_reserved == (entry.reserved == Some(key)),
            "law 1: worker {id} is reserved: {}, for {:?}",
            seat.is_reserved,
            entry.reserved
        );
        law!(
            !seat.is_reserved || entry.alone.count() > 0,
            "law 1: worker {id} is reserved for nothing"
        );
        law!(
            seat.list == WorkerList::Lazy || seat.link.is_some(),
            "law 2: worker {id} is {:?} without a link",
            seat.list
        );
        law!(
            seat.current.is_some() || seat.held.is_empty(),
            "law 2: worker {id} holds requests and has none"
        );
        law!(
            seat.current.is_some() || seat.beside.is_empty(),
            "law 2: worker {id} has requests beside none"
        );
        law!(
            seat.running() <= seat.announced.concurrency as usize,
            "law 2: worker {id} has {} requests, and takes {}",
            seat.running(),
            seat.announced.concurrency
        );
        Ok(())
    }

    /// The transactions of a worker know that they are with it, and the other way round.
    fn check_work(&self, key: WorkerKey, seat: &Seat) -> Result<(), String> {
        let id = seat.id;
        for at in seat.works_on() {
            let t = self.transactions.get(at);
            let stage = t.map(|t| t.stage);
            let is_right = [Some(Stage::Bound(key)), Some(Stage::Ended(key))].contains(&stage);
            law!(is_right, "law 2: worker {id} has {at:?}, which is {stage:?}");
            law!(
                seat.running() == 1 || t.is_some_and(|t| !t.must_run_alone()),
                "law 2: worker {id} has {at:?}, which must run alone, among others"
            );
        }
        let beside = seat.beside.iter().map(|(number, at)| (number, at));
        for (number, &at) in beside.chain(&seat.parked) {
            let is_it = self.transactions.get(at).is_some_and(|t| t.id == *number);
            law!(is_it, "law 2: worker {id} knows transaction {number} by the wrong key");
        }
        for at in seat.parked() {
            let stage = self.transactions.get(at).map(|t| t.stage);
            let is_right =
                [Some(Stage::Parked(key)), Some(Stage::ParkedEnded(key))].contains(&stage);
            law!(is_right, "law 2: worker {id} has the conversation {at:?}, which is {stage:?}");
        }
        for &at in &seat.held {
            let stage = self.transactions.get(at).map(|t| t.stage);
            let is_right = [Some(Stage::Held(key)), Some(Stage::HeldEnded(key))].contains(&stage);
            law!(is_right, "law 2: worker {id} holds {at:?}, which is {stage:?}");
        }
        Ok(())
    }

    /// The lists of a service hold the workers that belong there, each once.
    fn check_turns(&self, queue: &ServiceQueue) -> Result<(), String> {
        for (list, turns) in [
            (InTurns::Idle, &queue.idle),
            (InTurns::Room, &queue.room),
            (InTurns::Ahead, &queue.ahead),
        ] {
            let listed: Vec<WorkerKey> = turns.iter(&self.seats).take(turns.len() + 1).collect();
            let belong = queue.workers.iter().filter(|&&key| self.seats[key].in_turns == list);
            let set: BTreeSet<WorkerKey> = listed.iter().copied().collect();
            law!(
                listed.len() == turns.len()
                    && set.len() == listed.len()
                    && belong.count() == listed.len()
                    && listed.iter().all(|&key| self.seats[key].in_turns == list),
                "law 1: {list:?} lists {listed:?}, counts {}",
                turns.len()
            );
        }
        Ok(())
    }

    fn check_transactions(
        &self,
        catalog: &Catalog,
        now: Tick,
        is_working: bool,
    ) -> Result<(), String> {
        let mut in_flight = 0;
        let mut kept = 0;
        let mut blocked = 0;
        for (key, t) in self.transactions.iter() {
            in_flight += u64::from(!t.stage.is_ended());
            kept += t.kept_bytes;
            blocked += usize::from(t.stage == Stage::Blocked);
            self.check_transaction(key, (catalog, is_working), now)?;
        }
        let totals = self.totals;
        law!(
            totals.accepted == totals.ended + in_flight,
            "law 4: {} accepted, {} ended, {in_flight} in flight",
            totals.accepted,
            totals.ended
        );
        law!(self.queue_bytes == kept, "law 6: {} bytes counted, {kept} kept", self.queue_bytes);
        let listed = self.blocked.len();
        law!(listed == blocked, "law 6: {listed} requests listed as blocked, {blocked} are");
        for (_, caller) in self.callers.iter() {
            let keys = caller.in_flight.iter().map(|(_, key)| self.transactions.get(key));
            let parked = keys.flatten().filter(|t| matches!(t.stage, Stage::Parked(_))).count();
            law!(
                parked == caller.parked,
                "law 6: client {} counts {} conversations, are {parked}",
                caller.id,
                caller.parked
            );
            for flush in &caller.flushes {
                let keys =
                    caller.in_flight.iter().filter_map(|(_, key)| self.transactions.get(key));
                let left = keys.filter(|t| t.id <= flush.last && !t.was_sent()).count();
                law!(
                    left == flush.left && left > 0,
                    "law 6: client {} has a flush that waits for {}, are {left}",
                    caller.id,
                    flush.left
                );
            }
            for (sequence, key) in caller.in_flight.iter() {
                law!(
                    self.transactions.contains(key),
                    "law 3: client {} has sequence {sequence} of nothing",
                    caller.id
                );
            }
        }
        Ok(())
    }

    fn check_transaction(
        &self,
        key: TransactionKey,
        (catalog, is_working): (&Catalog, bool),
        now: Tick,
    ) -> Result<(), String> {
        let t = &self.transactions[key];
        let id = t.id;
        match t.stage {
            Stage::Bound(worker) | Stage::Ended(worker) => law!(
                self.seats.get(worker).is_some_and(|seat| seat.works_on().any(|at| at == key)),
                "law 2: transaction {id} is bound to nobody"
            ),
            Stage::Parked(worker) | Stage::ParkedEnded(worker) => law!(
                self.seats.get(worker).is_some_and(|seat| seat.parked.get(&id) == Some(&key)),
                "law 2: conversation {id} is with nobody"
            ),
            Stage::Held(worker) | Stage::HeldEnded(worker) => law!(
                self.seats.get(worker).is_some_and(|seat| seat.held.contains(&key)),
                "law 2: transaction {id} is held by nobody"
            ),
            Stage::Waiting | Stage::Blocked => {}
            // It is still to get its error.
            Stage::Lost if is_working => {}
            Stage::Lost | Stage::Gone => {
                law!(false, "law 4: transaction {id} is {:?} and is there", t.stage)
            }
        }
        let is_blocked = t.client.map(|client| self.callers[client].is_blocked);
        law!(
            t.stage != Stage::Blocked || is_blocked == Some(true),
            "law 5: transaction {id} is blocked by nobody"
        );
        law!(
            t.stage != Stage::Waiting || is_blocked != Some(true),
            "law 5: transaction {id} waits to be served, though its client is blocked"
        );
        law!(
            is_working || !t.stage.waits() || !catalog[t.service].is_stopped,
            "law 5: transaction {id} waits for a service that is stopped"
        );
        law!(
            t.stage.is_ended() || t.deadline >= now || self.wheel.is_due(now),
            "law 6: transaction {id} is past its deadline"
        );
        let is_listed = self.blocked.get(&(t.service, t.id)) == Some(&key);
        law!(
            is_listed == (t.stage == Stage::Blocked),
            "law 6: transaction {id} is among the blocked ones: {is_listed}"
        );
        match t.client {
            Some(client) => {
                let known = self.callers.get(client).map(|c| c.in_flight.get(t.head.sequence));
                law!(
                    !t.stage.is_ended() && known == Some(Some(key)),
                    "law 3: transaction {id} is not its client's"
                );
            }
            None => {
                law!(
                    t.stage.is_ended() || t.head.reply == 0,
                    "law 4: transaction {id} has neither client nor outcome"
                );
            }
        }
        Ok(())
    }

    fn check_queues(&self, catalog: &Catalog, is_working: bool) -> Result<(), String> {
        let mut waiting: BTreeMap<ServiceKey, usize> = BTreeMap::new();
        for (_, t) in self.transactions.iter().filter(|(_, t)| t.stage == Stage::Waiting) {
            *waiting.entry(t.service).or_default() += 1;
        }
        let mut callers: BTreeMap<ServiceKey, usize> = BTreeMap::new();
        for (_, caller) in self.callers.iter() {
            *callers.entry(caller.service).or_default() += 1;
        }
        for (key, entry) in self.queues.iter() {
            let name = &catalog[key].name;
            let count = callers.get(&key).copied().unwrap_or(0);
            law!(
                entry.callers == count,
                "law 6: {name} counts {} clients, are {count}",
                entry.callers
            );
            let mut listed = 0;
            for (queue, alone) in [(&entry.queue, false), (&entry.alone, true)] {
                let keys: Vec<TransactionKey> = queue.iter(&self.transactions).collect();
                law!(
                    keys.len() == queue.count(),
                    "law 6: queue of {name} counts {}, lists {}",
                    queue.count(),
                    keys.len()
                );
                listed += keys.len();
                for pair in keys.windows(2) {
                    let (a, b) = (&self.transactions[pair[0]], &self.transactions[pair[1]]);
                    law!(
                        (a.priority, a.id) < (b.priority, b.id),
                        "law 6: queue of {name} is out of order at {}",
                        b.id
                    );
                }
                let is_right = keys.iter().all(|&k| self.transactions[k].must_run_alone() == alone);
                law!(is_right, "law 6: a request waits in the wrong queue of {name}");
            }
            let count = waiting.get(&key).copied().unwrap_or(0);
            law!(count == listed, "law 6: queues of {name} list {listed}, {count} wait");
            let is_any_free = !entry.idle.is_empty()
                || entry.queue.count() > 0 && !entry.room.is_empty()
                || entry.alone.count() > 0 && entry.reserved.is_none() && entry.room.len() > 1;
            law!(
                listed == 0 || !is_any_free || is_working,
                "law 5: {listed} wait for {name}, {} workers are idle and {} have room",
                entry.idle.len(),
                entry.room.len()
            );
            let parked = self.seats.iter().filter(|(_, seat)| seat.service == key);
            let parked: usize = parked.map(|(_, seat)| seat.parked.len()).sum();
            law!(
                parked == entry.parked,
                "law 6: {name} counts {} conversations, are {parked}",
                entry.parked
            );
        }
        Ok(())
    }
}
