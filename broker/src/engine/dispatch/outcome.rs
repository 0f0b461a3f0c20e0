//! The one outcome of a transaction: an error given instead of a reply, a client that is gone, a
//! time that is over. `replies` has the reply itself.

use super::machine::Dispatch;
use super::messages::is_of_broker;
use super::seat::{Availability, InTurns};
use super::stage::{Stage, StageEvent};
use super::transaction::Transaction;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind, Values};
use crate::engine::keys::{ClientKey, ServiceKey, TransactionKey, WorkerKey};
use crate::engine::quotas::{Class, LINE_BYTES_MAX};
use protocol::{ClientId, ErrorBody, ErrorCode, Header, Ran, show};
use std::collections::BTreeSet;

/// Most requests that end in one step because their time is over.
const EXPIRED_MAX: usize = 192;

impl Dispatch {
    /// Marks a transaction as ended, with its outcome sent. Nothing more is sent to its client for
    /// it. A worker that has it stays busy with it.
    pub(super) fn finish(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        self.wheel.remove(key);
        self.release_bytes(key, cx);
        self.release_links(key, cx);
        self.totals.ended += 1;
        let transaction = &mut self.transactions[key];
        transaction.enter(StageEvent::End);
        let (sequence, is_complete) = (transaction.head.sequence, transaction.is_complete);
        let (stage, client) = (transaction.stage, transaction.client.take());
        if let Stage::Ended(worker) = stage
            && self.seats[worker].in_turns == InTurns::Ahead
        {
            // Requests that it holds beyond an overdue one would have to wait for that one.
            self.set_turns(worker, InTurns::Nowhere);
        }
        if let Some(client) = client {
            let caller = &mut self.callers[client];
            caller.in_flight.remove(sequence);
            if !is_complete {
                caller.discard_rest(sequence, cx.now);
            }
            if let Stage::ParkedEnded(_) = stage {
                caller.parked -= 1;
            }
            if caller.is_half_closed && caller.in_flight.is_empty() {
                cx.effects.push(Effect::Answered { link: caller.link });
            }
        }
    }

    /// Lets the client and the worker of a transaction be read again, if one waited for the other:
    /// no further frame passes between them.
    fn release_links(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let transaction = &self.transactions[key];
        let caller = transaction.client.and_then(|client| self.callers.get(client));
        let (Some(caller), Stage::Bound(worker) | Stage::Parked(worker)) =
            (caller, transaction.stage)
        else {
            return;
        };
        if let Some(worker) = self.seats.get(worker).and_then(|seat| seat.link) {
            let client = caller.link;
            self.flow.release(worker, client, cx.effects, cx.out);
            self.flow.release(client, worker, cx.effects, cx.out);
        }
    }

    /// Ends a transaction with an error. A transaction that a worker has stays with it until the
    /// worker replies or dies.
    pub(crate) fn fail(&mut self, key: TransactionKey, mut error: ErrorBody, cx: &mut Context<'_>) {
        let transaction = &self.transactions[key];
        if error.ran == Ran::No && transaction.attempt > 0 {
            // It waits to be repeated, and a worker that died had it: it may have run.
            error.ran = Ran::Maybe;
        }
        let (id, service, stage, head) =
            (transaction.id, transaction.service, transaction.stage, transaction.head);
        let client = transaction.client;
        let code = error.code;
        self.stop_waiting(key, cx);
        if !self.transactions[key].was_sent() {
            self.not_taken(key, cx);
        }
        self.queues[service].used = cx.now;
        *self.queues[service].figures.failed.entry(error.code).or_default() += 1;
        let client = client.map(|client| {
            self.callers[client].failed += 1;
            (self.callers[client].id, self.callers[client].link)
        });
        let why = error.text.clone();
        let is_quiet = is_of_broker(self.transactions[key].trace.client);
        if !is_quiet && cx.may_cause(Class::LoggedInDebug, client.map(|(_, link)| link)) {
            self.record_failed(key, client.map(|(id, _)| id), &error, cx);
        }
        self.keep_failed(key, &error, cx);
        if let Some((_, link)) = client {
            let head = Header { transaction: id.0, ..head };
            cx.answer_error(link, &head, error);
        }
        self.finish(key, cx);
        match stage {
            Stage::Waiting | Stage::Blocked | Stage::Lost | Stage::Gone => {
                self.transactions.remove(key);
            }
            Stage::Bound(worker) | Stage::Parked(worker) | Stage::Held(worker) => {
                self.abandon_if_heard(key, worker, (code, &why), cx);
            }
            Stage::HeldEnded(_) | Stage::Ended(_) | Stage::ParkedEnded(_) => {}
        }
    }

    fn record_failed(
        &self,
        key: TransactionKey,
        client: Option<ClientId>,
        error: &ErrorBody,
        cx: &mut Context<'_>,
    ) {
        let transaction = &self.transactions[key];
        let about = About {
            client,
            service: Some(cx.catalog[transaction.service].name.clone()),
            transaction: Some(transaction.id),
            worker: transaction.stage.worker().map(|worker| self.seats[worker].id),
            values: Values {
                error: Some(error.code),
                ran: Some(error.ran),
                ..transaction.values(cx.now)
            },
            ..About::default()
        };
        let said = show::brief(&error.text, LINE_BYTES_MAX);
        let text = format!("{} (ran: {}): {said}", error.code, error.ran);
        cx.record(FactKind::RequestFailed, about, text);
    }

    /// Tells a worker that a transaction is over, if it understands that, or may be waiting for a
    /// frame of the client.
    fn abandon_if_heard(
        &mut self,
        key: TransactionKey,
        worker: WorkerKey,
        why: (ErrorCode, &str),
        cx: &mut Context<'_>,
    ) {
        let transaction = &self.transactions[key];
        let waits = transaction.takes_frames() && !matches!(transaction.stage, Stage::HeldEnded(_));
        if self.seats[worker].announced.hears_cancel || waits {
            self.abandon(key, worker, why, cx);
        }
    }

    /// Ends all requests of a client with an error, each with the word whether it ran.
    pub(crate) fn fail_all(&mut self, client: ClientKey, error: &ErrorBody, cx: &mut Context<'_>) {
        for key in self.callers[client].in_flight.keys().collect::<Vec<_>>() {
            let ran = if self.transactions[key].stage.waits() { Ran::No } else { Ran::Maybe };
            self.fail(key, ErrorBody { ran, ..error.clone() }, cx);
        }
    }

    /// Takes a transaction out of what waits, if it waits.
    fn stop_waiting(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let Transaction { stage, service, id, .. } = self.transactions[key];
        match stage {
            Stage::Waiting => self.take_out_of_queue(key, cx),
            Stage::Blocked => {
                self.blocked.remove(&(service, id));
            }
            Stage::Held(_)
            | Stage::Bound(_)
            | Stage::Parked(_)
            | Stage::HeldEnded(_)
            | Stage::Ended(_)
            | Stage::ParkedEnded(_)
            | Stage::Lost
            | Stage::Gone => {}
        }
    }

    /// The client of a transaction is gone: a waiting request is removed, one with a worker goes on
    /// without it. One that wants no reply has nothing to do with its client any more, and runs all
    /// the same; that of a client that is blocked could wait for no `unblock`.
    pub(super) fn client_left(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let transaction = &mut self.transactions[key];
        let stage = transaction.stage;
        if transaction.head.reply == 0 && transaction.is_complete && stage != Stage::Blocked {
            transaction.client = None;
            transaction.holds_reader = false;
            return;
        }
        self.totals.orphaned += 1;
        self.stop_waiting(key, cx);
        self.keep_left(key, cx);
        self.finish(key, cx);
        match stage {
            Stage::Waiting | Stage::Blocked | Stage::Lost | Stage::Gone => {
                self.transactions.remove(key);
            }
            Stage::HeldEnded(_) | Stage::Ended(_) | Stage::ParkedEnded(_) => {}
            Stage::Bound(worker) | Stage::Parked(worker) | Stage::Held(worker) => {
                let why = "its client is gone";
                self.abandon_if_heard(key, worker, (ErrorCode::Cancelled, why), cx);
            }
        }
    }

    /// Takes out transactions whose time is over at this tick; if they are many, the others follow
    /// in later steps. Give the list back to
    /// [`expired`](Self::expired), which keeps its memory.
    pub(crate) fn take_expired(&mut self, cx: &mut Context<'_>) -> Vec<TransactionKey> {
        let mut due = std::mem::take(&mut self.due_keys);
        self.wheel.take_due(cx.now, EXPIRED_MAX, &mut due);
        due
    }

    /// See [`take_expired`](Self::take_expired).
    pub(crate) fn expired(
        &mut self,
        mut due: Vec<TransactionKey>,
        services: BTreeSet<ServiceKey>,
        cx: &mut Context<'_>,
    ) {
        // Those in front of others may have kept these from being served.
        for service in services {
            self.serve(service, cx);
        }
        due.clear();
        self.due_keys = due;
    }

    /// Whether a transaction whose time is over waits, and for which service. `None`: it does not
    /// wait, or has ended meanwhile.
    pub(crate) fn waits_for(&self, key: TransactionKey) -> Option<(ServiceKey, Stage)> {
        let transaction = self.transactions.get(key).filter(|t| t.stage.waits())?;
        Some((transaction.service, transaction.stage))
    }

    /// The time of a transaction is over; `why` says why it still waits, if it does.
    pub(crate) fn expire(&mut self, key: TransactionKey, why: &str, cx: &mut Context<'_>) {
        // It may have ended with an earlier one of this round, when a worker was abandoned.
        let is_due = |t: &&Transaction| !t.stage.is_ended() && t.deadline <= cx.now;
        let Some(transaction) = self.transactions.get(key).filter(is_due) else { return };
        let waited = cx.now.since(transaction.arrived).as_millis();
        let name = cx.catalog[transaction.service].name.clone();
        // A held request is in the worker's socket already, so it may yet be begun.
        let Some(worker) = transaction.stage.worker() else {
            let (had, died) = (transaction.attempt, transaction.deaths);
            let text = if had == 0 {
                format!(
                    "it waited {waited} ms in the queue of service '{name}' and never reached a \
                     worker: {why}"
                )
            } else {
                let workers = if had == 1 { "worker" } else { "workers" };
                format!(
                    "it came {waited} ms ago and waits in the queue of service '{name}' again \
                     after {had} {workers} had it ({died} died): {why}"
                )
            };
            self.fail(key, ErrorBody::new(ErrorCode::Deadline, text).with_ran(Ran::No), cx);
            return;
        };
        let (id, worker_id) = (transaction.id, self.seats[worker].id);
        let values = Values { deaths: None, ..transaction.values(cx.now) };
        let had = cx.now.since(transaction.dispatched).as_millis();
        let text = format!(
            "worker {worker_id} of service '{name}' has it since {had} ms and has not answered"
        );
        let link = transaction.client.map(|client| self.callers[client].link);
        if cx.may_cause(Class::LoggedIn, link) {
            let about = About {
                worker: Some(worker_id),
                service: Some(name),
                transaction: Some(id),
                values,
                ..About::default()
            };
            cx.record(FactKind::RequestOverdue, about, text.clone());
        }
        self.fail(key, ErrorBody::new(ErrorCode::Deadline, text).with_ran(Ran::Maybe), cx);
        let seat = &self.seats[worker];
        if seat.availability == Availability::Draining
            && seat.current.is_some()
            && !self.owes_answers(worker)
        {
            cx.effects.push(Effect::Emptied { worker, is_overdue: true });
        }
    }

    /// Ends up to `most` of the requests that wait for a service with an error, those first that
    /// would be served first. Returns how many more it could have ended.
    pub(crate) fn fail_waiting(
        &mut self,
        service: ServiceKey,
        error: &ErrorBody,
        most: usize,
        cx: &mut Context<'_>,
    ) -> usize {
        for done in 0..most {
            let queue = self.queues.get(service).map(|entry| &entry.queue);
            let alone = self.queues.get(service).map(|entry| &entry.alone);
            let first = queue.and_then(|queue| queue.first(true, &self.transactions));
            let first =
                first.or_else(|| alone.and_then(|queue| queue.first(true, &self.transactions)));
            let Some(key) = first.or_else(|| self.blocked(service).next().map(|(key, _)| key))
            else {
                return most - done;
            };
            self.fail(key, error.clone(), cx);
        }
        0
    }

    /// Ends what a worker has or holds and has no outcome yet with an error.
    pub(crate) fn fail_with(&mut self, worker: WorkerKey, error: &ErrorBody, cx: &mut Context<'_>) {
        for key in self.with_worker(worker).collect::<Vec<_>>() {
            if !self.transactions[key].stage.is_ended() {
                self.fail(key, error.clone(), cx);
            }
        }
    }
}
