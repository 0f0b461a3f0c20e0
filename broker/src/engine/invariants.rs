//! The laws of the engine, checked over its whole state: after each step in scripts, in the
//! simulation and in fuzzers, never in production. docs/architecture.md lists them by their
//! numbers.

use super::Engine;
use super::keys::{ServiceKey, TransactionKey};
use super::links::End;
use super::transaction::Stage;
use super::workers::{ProcessState, WorkerList};
use protocol::errors::ErrorCode;
use std::collections::BTreeMap;

macro_rules! law {
    ($holds:expr, $($text:tt)*) => {
        if !$holds {
            return Err(format!($($text)*));
        }
    };
}

impl Engine {
    /// Checks all laws.
    ///
    /// # Errors
    /// A law is broken; the text names it, and the ids.
    pub fn check_all(&self) -> Result<(), String> {
        self.check_workers()?;
        self.check_transactions()?;
        self.check_queues()?;
        self.check_links()
    }

    /// Laws 1 and 2: each worker is in the list that its state says, and has the transactions that
    /// name it.
    fn check_workers(&self) -> Result<(), String> {
        let mut counts = [0; 3];
        for (key, worker) in self.workers.by_id() {
            let id = worker.id;
            let service = &self.registry[worker.service];
            let in_idle = service.idle.iter().filter(|&&idle| idle == key).count();
            let in_with_room = service.with_room.iter().filter(|&&other| other == key).count();
            counts[worker.list as usize] += 1;
            law!(
                worker.list == self.list_of(key),
                "law 1: worker {id} is {:?}, should be {:?}",
                worker.list,
                self.list_of(key)
            );
            law!(
                in_idle == usize::from(worker.list == WorkerList::Idle),
                "law 1: worker {id} is {in_idle} times in the idle list"
            );
            law!(
                in_with_room == usize::from(worker.has_room),
                "law 1: worker {id} is {in_with_room} times in the list of those with room"
            );
            law!(
                worker.has_room == self.has_room(key),
                "law 1: worker {id} is listed with room: {}, has room: {}",
                worker.has_room,
                self.has_room(key)
            );
            law!(
                (worker.list == WorkerList::Busy) == worker.current.is_some(),
                "law 2: worker {id} is {:?} with {:?}",
                worker.list,
                worker.current
            );
            law!(
                worker.list == WorkerList::Lazy || worker.link.is_some(),
                "law 2: worker {id} is {:?} without a link",
                worker.list
            );
            law!(
                worker.current.is_some() || worker.held.is_empty(),
                "law 2: worker {id} holds requests and has none"
            );
            law!(
                worker.state != ProcessState::Ready || worker.link.is_some(),
                "law 2: worker {id} is ready without a link"
            );
            for (at, bound) in worker
                .current
                .iter()
                .map(|c| (c, true))
                .chain(worker.held.iter().map(|h| (h, false)))
            {
                let stage = self.transactions.get(*at).map(|t| t.stage);
                let expected = if bound { Stage::Bound(key) } else { Stage::Held(key) };
                law!(stage == Some(expected), "law 2: worker {id} has {at:?}, which is {stage:?}");
            }
        }
        for list in [WorkerList::Lazy, WorkerList::Idle, WorkerList::Busy] {
            law!(
                counts[list as usize] == self.workers.count(list),
                "law 1: {list:?} counts {}, are {}",
                self.workers.count(list),
                counts[list as usize]
            );
        }
        Ok(())
    }

    /// Laws 2 to 6 of each transaction: its worker, its client, its outcome, its deadline, the
    /// sums.
    fn check_transactions(&self) -> Result<(), String> {
        let mut in_flight = 0;
        let mut kept = 0;
        for (key, t) in self.transactions.iter() {
            let id = t.id;
            in_flight += u64::from(!t.is_ended);
            kept += t.kept_bytes;
            match t.stage {
                Stage::Bound(worker) => law!(
                    self.workers.get(worker).is_some_and(|w| w.current == Some(key)),
                    "law 2: transaction {id} is bound to nobody"
                ),
                Stage::Held(worker) => law!(
                    self.workers.get(worker).is_some_and(|w| w.held.contains(&key)),
                    "law 2: transaction {id} is held by nobody"
                ),
                Stage::Waiting | Stage::Blocked => {
                    law!(!t.is_ended, "law 4: transaction {id} has ended and waits")
                }
            }
            law!(
                t.stage != Stage::Blocked || t.client.is_some_and(|c| self.clients[c].is_blocked),
                "law 5: transaction {id} is blocked by nobody"
            );
            law!(
                t.stage != Stage::Waiting || t.client.is_some_and(|c| !self.clients[c].is_blocked),
                "law 5: transaction {id} waits to be served, though its client is blocked"
            );
            law!(
                !matches!(t.stage, Stage::Waiting | Stage::Blocked)
                    || !self.registry[t.service].is_stopped,
                "law 5: transaction {id} waits for a service that is stopped"
            );
            law!(
                t.is_ended || t.deadline >= self.now,
                "law 6: transaction {id} is past its deadline"
            );
            match t.client {
                Some(client) => law!(
                    !t.is_ended
                        && self
                            .clients
                            .get(client)
                            .is_some_and(|c| c.in_flight.get(t.head.sequence) == Some(key)),
                    "law 3: transaction {id} is not its client's"
                ),
                None => law!(t.is_ended, "law 4: transaction {id} has neither client nor outcome"),
            }
        }
        let totals = self.totals;
        law!(
            totals.accepted == totals.ended + in_flight,
            "law 4: {} accepted, {} ended, {in_flight} in flight",
            totals.accepted,
            totals.ended
        );
        law!(self.queue_bytes == kept, "law 6: {} bytes counted, {kept} kept", self.queue_bytes);
        for (_, client) in self.clients.by_id() {
            for (sequence, key) in client.in_flight.iter() {
                law!(
                    self.transactions.contains(key),
                    "law 3: client {} has sequence {sequence} of nothing",
                    client.id
                );
            }
        }
        Ok(())
    }

    /// Laws 5 to 7 of each queue: its count, its order, and that nobody waits while a worker is
    /// idle.
    fn check_queues(&self) -> Result<(), String> {
        let mut waiting: BTreeMap<ServiceKey, usize> = BTreeMap::new();
        for (_, t) in self.transactions.iter().filter(|(_, t)| t.stage == Stage::Waiting) {
            *waiting.entry(t.service).or_default() += 1;
        }
        for (key, service) in self.registry.by_id() {
            let name = &service.name;
            let listed: Vec<TransactionKey> = service.queue.iter(&self.transactions).collect();
            let count = waiting.get(&key).copied().unwrap_or(0);
            law!(
                listed.len() == service.queue.count() && count == listed.len(),
                "law 6: queue of {name} counts {}, lists {}, {count} wait",
                service.queue.count(),
                listed.len()
            );
            for pair in listed.windows(2) {
                let (a, b) = (&self.transactions[pair[0]], &self.transactions[pair[1]]);
                law!(
                    (a.priority, a.id) < (b.priority, b.id),
                    "law 7: queue of {name} is out of order at {}",
                    b.id
                );
            }
            law!(
                listed.is_empty() || service.idle.is_empty(),
                "law 5: {} wait for {name} and {} workers are idle",
                listed.len(),
                service.idle.len()
            );
        }
        Ok(())
    }

    /// Law 8: a link and its client, worker or host name each other.
    fn check_links(&self) -> Result<(), String> {
        for (link, slot) in self.links.iter() {
            let is_right = match &slot.end {
                End::Free => false,
                End::NewClient | End::NewWorker => true,
                End::Client(key) => self.clients.get(*key).is_some_and(|c| c.link == link),
                End::Worker(key) => self.workers.get(*key).is_some_and(|w| w.link == Some(link)),
                End::Host(key) => {
                    self.hosts.get(*key).is_some_and(|h| h.state.link() == Some(link))
                }
            };
            law!(is_right, "law 8: link {link} is {:?}, who does not know it", slot.end);
        }
        for (_, client) in self.clients.by_id() {
            law!(
                self.links.get(client.link).is_some(),
                "law 8: client {} has no link ({})",
                client.id,
                ErrorCode::Internal
            );
        }
        for (_, worker) in self.workers.by_id() {
            law!(
                worker.link.is_none_or(|link| self.links.get(link).is_some()),
                "law 8: worker {} has a link that is gone",
                worker.id
            );
        }
        Ok(())
    }
}
