//! The machine `dispatch`: decides which request goes to which worker, and gives each request its
//! one outcome. It owns the transactions, what waits for each service, and what each client and
//! worker has under way.

use super::buckets::Buckets;
use super::caller::Caller;
use super::flow::Flow;
use super::poison::Poison;
use super::seat::{Announced, Availability, InTurns, Logout, Seat};
use super::service_queue::ServiceQueue;
use super::traces::Traces;
use super::transaction::Transaction;
use super::wheel::Wheel;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::keys::{
    ClientKey, Key, ServiceKey, SideTable, Table, TransactionKey, WorkerKey,
};
use protocol::{HostName, LinkId, ServiceSetting, ServiceSettings, Tick, TransactionId, WorkerId};
use std::collections::{BTreeMap, VecDeque};

/// Counters since the start or the last `reset`; `accepted = ended + in flight` always holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Requests accepted; each gets one outcome.
    pub accepted: u64,
    /// Accepted requests that have their outcome.
    pub ended: u64,
    /// Ended requests that a worker answered.
    pub completed: u64,
    /// Ended requests whose client was gone before.
    pub orphaned: u64,
    /// Ended requests that were set aside as poison.
    pub poisoned: u64,
    /// Requests refused at admission, which are not accepted ones.
    pub refused: u64,
}

/// Memory for this many requests is never given back.
const CAPACITY_KEPT: usize = 1024;
/// Requests and workers of a service that are looked at in one step.
const FEW: usize = 2048;

/// Most requests that a worker gets at a time.
fn capacity(announced: u32, settings: &ServiceSettings) -> u32 {
    match settings.get(ServiceSetting::Concurrency) {
        0 => announced,
        most => u64::from(announced).min(most) as u32,
    }
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Dispatch {
    pub(super) transactions: Table<TransactionKey, Transaction>,
    pub(super) callers: SideTable<ClientKey, Caller>,
    pub(super) seats: SideTable<WorkerKey, Seat>,
    pub(super) queues: SideTable<ServiceKey, ServiceQueue>,
    /// The requests of clients that are blocked, by the service that they would wait for.
    pub(super) blocked: BTreeMap<(ServiceKey, TransactionId), TransactionKey>,
    pub(super) flow: Flow,
    pub(super) wheel: Wheel,
    /// Scratch space of `take_expired`, kept so that expiry allocates nothing.
    pub(super) due_keys: Vec<TransactionKey>,
    pub(super) next_transaction: u64,
    /// The last number that an earlier broker may have given to a transaction.
    pub(super) transaction_base: u64,
    /// Bytes of requests that wait, or are kept so that they can be repeated (`queue_bytes_max`).
    pub(super) queue_bytes: u64,
    /// How many workers are idle.
    pub(super) idle: usize,
    /// How many are busy.
    pub(super) busy: usize,
    /// Whether priority alone decides who is served next (`preempt on`).
    pub(super) is_strict_priority: bool,
    pub(super) poison: VecDeque<Poison>,
    pub(super) traces: Traces,
    pub(super) buckets: Buckets,
    pub(super) totals: Totals,
}

/// What others may ask; nothing of it changes anything.
impl Dispatch {
    /// A transaction that may be gone.
    pub(crate) fn transaction(&self, key: TransactionKey) -> Option<&Transaction> {
        self.transactions.get(key)
    }

    /// The transactions in up to `most` slots of their table, from one on.
    pub(crate) fn transactions_from(
        &self,
        slot: usize,
        most: usize,
    ) -> impl Iterator<Item = (TransactionKey, &Transaction)> {
        let slots = slot..slot.saturating_add(most).min(self.transaction_slots());
        let keys = slots.map(TransactionKey::of);
        keys.filter_map(|key| Some((key, self.transactions.get(key)?)))
    }

    /// How many slots their table has.
    pub(crate) fn transaction_slots(&self) -> usize {
        self.transactions.capacity()
    }

    /// Whether few requests are for a service.
    pub(crate) fn has_few(&self, service: ServiceKey) -> bool {
        let entry = &self.queues[service];
        let blocked = self.blocked(service).take(FEW).count();
        entry.waiting() + entry.workers.len() + blocked < FEW
    }

    /// The requests that wait for a service, in the order in which they are served if there is one
    /// priority.
    pub(crate) fn waiting(
        &self,
        service: ServiceKey,
    ) -> impl Iterator<Item = (TransactionKey, &Transaction)> {
        let entry = &self.queues[service];
        let alone = entry.alone.iter(&self.transactions);
        let keys = alone.chain(entry.queue.iter(&self.transactions));
        keys.map(|key| (key, &self.transactions[key]))
    }

    /// The requests for a service whose clients are blocked, by arrival.
    pub(crate) fn blocked(
        &self,
        service: ServiceKey,
    ) -> impl Iterator<Item = (TransactionKey, &Transaction)> {
        let all = (service, TransactionId(0))..=(service, TransactionId(u64::MAX));
        self.blocked.range(all).map(|(_, &key)| (key, &self.transactions[key]))
    }

    /// Whether a request waits for a service, be its client blocked or not.
    pub(crate) fn is_awaited(&self, service: ServiceKey) -> bool {
        self.queues[service].waiting() > 0 || self.blocked(service).next().is_some()
    }

    /// How many requests wait, those of blocked clients among them.
    pub(crate) fn waiting_count(&self) -> usize {
        let queues = self.queues.iter().map(|(_, entry)| entry.waiting());
        queues.sum::<usize>() + self.blocked.len()
    }

    /// The requests that the workers of a service have or hold.
    pub(crate) fn with_workers(&self, service: ServiceKey) -> Vec<TransactionKey> {
        self.queues[service].workers.iter().flat_map(|&key| self.with_worker(key)).collect()
    }

    /// The requests that a worker has or holds.
    pub(crate) fn with_worker(&self, key: WorkerKey) -> impl Iterator<Item = TransactionKey> {
        let seat = &self.seats[key];
        seat.works_on().chain(seat.parked()).chain(seat.held.iter().copied())
    }

    /// What a client has under way.
    pub(crate) fn caller(&self, key: ClientKey) -> &Caller {
        &self.callers[key]
    }

    /// What a worker has.
    pub(crate) fn seat(&self, key: WorkerKey) -> &Seat {
        &self.seats[key]
    }

    /// The transaction that a worker has.
    pub(crate) fn current(&self, key: WorkerKey) -> Option<&Transaction> {
        self.seats[key].current.map(|at| &self.transactions[at])
    }

    /// What waits for a service.
    pub(crate) fn queue(&self, key: ServiceKey) -> &ServiceQueue {
        &self.queues[key]
    }

    /// How many workers are idle, and how many busy.
    pub(crate) const fn counts(&self) -> (usize, usize) {
        (self.idle, self.busy)
    }

    /// Bytes of requests that wait, or are kept so that they can be repeated (`queue_bytes_max`).
    pub(crate) const fn queue_bytes(&self) -> u64 {
        self.queue_bytes
    }

    /// Whether priority alone decides who is served next.
    pub(crate) const fn is_strict_priority(&self) -> bool {
        self.is_strict_priority
    }

    /// Counters since the start or the last `reset`.
    pub(crate) const fn totals(&self) -> Totals {
        self.totals
    }

    /// The histogram of load.
    pub(crate) const fn buckets(&self) -> &Buckets {
        &self.buckets
    }

    /// Requests set aside, oldest first.
    pub(crate) const fn poison(&self) -> &VecDeque<Poison> {
        &self.poison
    }

    /// How requests went that ended.
    pub(crate) const fn traces(&self) -> &Traces {
        &self.traces
    }

    /// The number of the transaction that was accepted last.
    pub(crate) const fn last_transaction(&self) -> TransactionId {
        TransactionId(self.next_transaction)
    }

    /// Which links are held back.
    pub(crate) const fn flow(&self) -> &Flow {
        &self.flow
    }

    /// When a deadline is due next; may be earlier than needed, never later.
    pub(crate) fn next_deadline(&self) -> Option<Tick> {
        self.wheel.next()
    }

    /// Whether a deadline may be due.
    pub(crate) const fn is_due(&self, now: Tick) -> bool {
        self.wheel.is_due(now)
    }

    /// Whether it holds memory for more than four times as many requests as there are, so that
    /// [`shrink`](Self::shrink) is worth its time.
    pub(crate) fn has_spare_capacity(&self) -> bool {
        let room = self.transactions.capacity();
        room > CAPACITY_KEPT && self.transactions.len() < room / 4
    }
}

/// What the hub and its commands change.
impl Dispatch {
    /// Nothing is under way; transactions are numbered from `transaction_base` on.
    pub(crate) fn new(transaction_base: u64) -> Self {
        Self { next_transaction: transaction_base, transaction_base, ..Self::default() }
    }

    /// There is a new service.
    pub(crate) fn add_service(&mut self, key: ServiceKey) {
        self.queues.insert(key, ServiceQueue { bucket_step: 1, ..ServiceQueue::default() });
    }

    /// A service is none whose completed requests stand in the buckets.
    pub(crate) fn count_in_no_bucket(&mut self, key: ServiceKey) {
        self.queues[key].bucket_step = 0;
    }

    /// A service is gone that has neither workers nor clients nor requests.
    pub(crate) fn remove_service(&mut self, key: ServiceKey) {
        self.queues.remove(key);
    }

    /// The settings of a service changed: `concurrency` and `prefetch` may have opened or closed
    /// room with its busy workers.
    pub(crate) fn service_changed(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        for key in self.queues[service].workers.clone() {
            let seat = &mut self.seats[key];
            seat.capacity = capacity(seat.announced.concurrency, &cx.catalog[service].settings);
            self.arrange(key, cx);
        }
        self.serve(service, cx);
    }

    /// There is a new worker, which has not logged in.
    pub(crate) fn add_worker(&mut self, key: WorkerKey, id: WorkerId, service: ServiceKey) {
        self.seats.insert(key, Seat::new(id, service));
        self.queues[service].workers.insert(key);
    }

    /// A lazy worker is gone from the configuration.
    pub(crate) fn remove_worker(&mut self, key: WorkerKey) {
        self.set_turns(key, InTurns::Nowhere);
        if let Some(seat) = self.seats.remove(key) {
            self.queues[seat.service].workers.remove(&key);
        }
    }

    /// A worker logged in, and said how many requests it takes at a time and whether it understands
    /// `cancel`. Returns how many it gets at a time.
    pub(crate) fn open(
        &mut self,
        key: WorkerKey,
        link: LinkId,
        announced: Announced,
        catalog: &Catalog,
    ) -> u32 {
        let seat = &mut self.seats[key];
        (seat.link, seat.has_answered) = (Some(link), false);
        seat.announced = announced;
        seat.capacity = capacity(seat.announced.concurrency, &catalog[seat.service].settings);
        (seat.logout, seat.requests_sent) = (Logout::None, 0);
        if seat.availability == Availability::Draining {
            seat.availability = Availability::Unavailable;
        }
        seat.capacity
    }

    /// A worker may be given requests from now on, or no more.
    pub(crate) fn set_available(
        &mut self,
        key: WorkerKey,
        is_available: bool,
        cx: &mut Context<'_>,
    ) {
        let seat = &mut self.seats[key];
        if seat.is_available() == is_available {
            return;
        }
        seat.availability =
            if is_available { Availability::Available } else { Availability::Unavailable };
        let service = seat.service;
        self.arrange(key, cx);
        if is_available {
            self.serve(service, cx);
        }
    }

    /// A frame that is no request is sent to a worker.
    pub(crate) fn count_sent(&mut self, key: WorkerKey) {
        self.seats[key].to_count += 1;
    }

    /// Notes which process logged in as a worker, and where it runs.
    pub(crate) fn name_process(&mut self, key: WorkerKey, pid: u32, host: HostName) {
        let seat = &mut self.seats[key];
        (seat.pid, seat.host) = (pid, Some(host));
    }

    /// See [`traces`](Self::traces).
    pub(crate) const fn traces_mut(&mut self) -> &mut Traces {
        &mut self.traces
    }

    /// See [`flow`](Self::flow).
    pub(crate) const fn flow_mut(&mut self) -> &mut Flow {
        &mut self.flow
    }

    /// See [`buckets`](Self::buckets).
    pub(crate) const fn buckets_mut(&mut self) -> &mut Buckets {
        &mut self.buckets
    }

    /// See [`is_strict_priority`](Self::is_strict_priority).
    pub(crate) const fn set_strict_priority(&mut self, is_strict_priority: bool) {
        self.is_strict_priority = is_strict_priority;
    }

    /// Forgets the requests that were set aside. Returns how many they were.
    pub(crate) fn clear_poison(&mut self) -> usize {
        std::mem::take(&mut self.poison).len()
    }

    /// Begins the figures of a service, which may be gone, anew with zeros.
    pub(crate) fn reset_service(&mut self, key: ServiceKey) {
        if self.queues.get(key).is_some() {
            self.queues[key].figures.reset();
        }
    }

    /// Begins all figures but those of the services anew with zeros.
    pub(crate) fn reset(&mut self) {
        self.seats.values_mut().for_each(Seat::reset);
        for caller in self.callers.values_mut() {
            (caller.requests, caller.answered, caller.failed) = (0, 0, 0);
        }
        self.buckets.reset();
        // Requests under way stay counted, so that accepted = ended + in flight still holds.
        let in_flight = self.totals.accepted - self.totals.ended;
        self.totals = Totals { accepted: in_flight, ..Totals::default() };
    }

    /// Gives back the memory that a burst of clients or requests took. Changes nothing else.
    pub(crate) fn shrink(&mut self) {
        self.transactions.shrink_to_fit();
        self.wheel.shrink();
        self.due_keys = Vec::new();
        self.callers.shrink_to_fit();
    }
}
