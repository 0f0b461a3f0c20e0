//! The one outcome of a transaction, unless a worker replies: an error, a client that is gone, a
//! deadline. Replies are in `replies`.

use super::action::Action;
use super::fact::{About, FactKind};
use super::keys::{ServiceKey, TransactionKey, WorkerKey};
use super::quotas::{Class, LINE_BYTES_MAX};
use super::transaction::Stage;
use super::{Engine, Out};
use protocol::bodies::ErrorBody;
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{ClientId, LinkId};
use protocol::show;

impl Engine {
    /// Marks a transaction as ended, with its outcome sent. Nothing more is sent to its client for
    /// it. A worker that has it stays busy with it.
    pub(crate) fn finish(&mut self, key: TransactionKey, out: Out<'_>) {
        debug_assert!(!self.transactions[key].is_ended, "a transaction ends once");
        self.wheel.remove(key);
        self.release_bytes(key, out);
        self.let_go(key, out);
        self.totals.ended += 1;
        let transaction = &mut self.transactions[key];
        transaction.is_ended = true;
        let (sequence, is_complete) = (transaction.head.sequence, transaction.is_complete);
        let (stage, client) = (transaction.stage, transaction.client.take());
        if let Stage::Bound(worker) = stage {
            // Requests that it holds beyond an overdue one would have to wait for that one.
            self.set_has_room(worker, false);
        }
        if let Some(client) = client {
            let client = &mut self.clients[client];
            client.in_flight.remove(sequence);
            if !is_complete {
                client.discard_rest(sequence, self.now);
            }
        }
    }

    /// Lets the client and the worker of a transaction be read again, if one waited for the other:
    /// no further frame passes between them.
    fn let_go(&mut self, key: TransactionKey, out: Out<'_>) {
        let transaction = &self.transactions[key];
        let client = transaction.client.and_then(|client| self.clients.get(client));
        let (Some(client), Stage::Bound(worker)) = (client, transaction.stage) else { return };
        if let Some(worker) = self.workers.get(worker).and_then(|worker| worker.link) {
            let client = client.link;
            self.links.let_go(worker, client, out);
            self.links.let_go(client, worker, out);
        }
    }

    /// Ends a transaction with an error. A transaction that a worker has stays with it until the
    /// worker replies or dies.
    pub(crate) fn fail(&mut self, key: TransactionKey, mut error: ErrorBody, out: Out<'_>) {
        let transaction = &self.transactions[key];
        if error.ran == Ran::No && transaction.attempt > 0 {
            // It waits to be repeated, and a worker that died had it: it may have run.
            error.ran = Ran::Maybe;
        }
        let (id, service, stage, head) =
            (transaction.id, transaction.service, transaction.stage, transaction.head);
        let client = transaction.client;
        if stage == Stage::Waiting {
            self.registry[service].queue.remove(key, &mut self.transactions);
        }
        *self.registry[service].figures.failed.entry(error.code).or_default() += 1;
        let client_id = client.map(|client| {
            self.clients[client].failed += 1;
            (self.clients[client].id, self.clients[client].link)
        });
        let why = error.text.clone();
        if self.may_cause(Class::LoggedInDebug, client_id.map(|(_, link)| link)) {
            self.record_failed(key, client_id.map(|(id, _)| id), &error, out);
        }
        if let Some((_, link)) = client_id {
            let head = Header { transaction: id.0, ..head };
            self.answer_error(link, &head, error, out);
        }
        self.finish(key, out);
        match stage {
            Stage::Waiting | Stage::Blocked => {
                self.transactions.remove(key);
            }
            Stage::Bound(worker) => self.abandon_if_incomplete(key, worker, &why, out),
            Stage::Held(_) => {}
        }
    }

    /// Records that a request ended with an error, with the worker that has it.
    fn record_failed(
        &mut self,
        key: TransactionKey,
        client: Option<ClientId>,
        error: &ErrorBody,
        out: Out<'_>,
    ) {
        let transaction = &self.transactions[key];
        let about = About {
            client,
            service: Some(self.registry[transaction.service].name.clone()),
            transaction: Some(transaction.id),
            worker: match transaction.stage {
                Stage::Bound(worker) | Stage::Held(worker) => Some(self.workers[worker].id),
                Stage::Waiting | Stage::Blocked => None,
            },
            ..About::default()
        };
        let said = show::brief(&error.text, LINE_BYTES_MAX);
        let text = format!("{} (ran: {}): {said}", error.code, error.ran);
        self.record(FactKind::RequestFailed, about, text, out);
    }

    /// Tells a worker that a transaction is over, if it may be waiting for a frame of the client.
    fn abandon_if_incomplete(
        &mut self,
        key: TransactionKey,
        worker: WorkerKey,
        why: &str,
        out: Out<'_>,
    ) {
        let transaction = &self.transactions[key];
        if !transaction.is_complete || transaction.in_conversation {
            self.abandon(worker, why, out);
        }
    }

    /// Answers a request with an error, unless its sender wants no reply.
    pub(crate) fn answer_error(
        &mut self,
        link: LinkId,
        request: &Header,
        error: ErrorBody,
        out: Out<'_>,
    ) {
        if request.reply == 0 {
            return;
        }
        let head = Header {
            sequence: request.sequence,
            transaction: request.transaction,
            trace_id: request.trace_id,
            span_id: request.span_id,
            ..Header::default()
        };
        out.push(Action::Send { link, frame: Frame::Error { head, error } });
    }

    /// The client of a transaction is gone: a waiting request is removed, one with a worker goes on
    /// without it.
    pub(crate) fn client_left(&mut self, key: TransactionKey, out: Out<'_>) {
        let transaction = &self.transactions[key];
        let (stage, service) = (transaction.stage, transaction.service);
        self.totals.orphaned += 1;
        match stage {
            Stage::Waiting => {
                self.registry[service].queue.remove(key, &mut self.transactions);
                self.finish(key, out);
                self.transactions.remove(key);
            }
            Stage::Blocked => {
                self.finish(key, out);
                self.transactions.remove(key);
            }
            Stage::Held(_) => self.finish(key, out),
            Stage::Bound(worker) => {
                self.finish(key, out);
                let why = "its client is gone in the middle of a conversation";
                self.abandon_if_incomplete(key, worker, why, out);
            }
        }
    }

    /// Ends the transactions whose deadline has passed.
    pub(crate) fn on_deadlines(&mut self, out: Out<'_>) {
        let mut due = std::mem::take(&mut self.due_keys);
        self.wheel.take_due(self.now, &mut due);
        for &key in &due {
            // It may have ended with an earlier one of this round, when a worker was abandoned.
            if self.transactions.get(key).is_some_and(|t| !t.is_ended && t.deadline <= self.now) {
                self.on_deadline(key, out);
            }
        }
        due.clear();
        self.due_keys = due;
    }

    /// Fails the waiting requests of a service that was stopped.
    pub(crate) fn fail_waiting(&mut self, service: ServiceKey, out: Out<'_>) {
        let name = self.registry[service].name.clone();
        let waiting: Vec<TransactionKey> = self
            .transactions
            .iter()
            .filter(|(_, t)| {
                t.service == service && matches!(t.stage, Stage::Waiting | Stage::Blocked)
            })
            .map(|(key, _)| key)
            .collect();
        for key in waiting {
            let text = format!("service '{name}' was stopped while the request waited");
            let error = ErrorBody::new(ErrorCode::ServiceStopped, text);
            self.fail(key, error, out);
        }
    }

    /// Ends one transaction with `deadline`. If a worker has it, it is recorded as overdue.
    fn on_deadline(&mut self, key: TransactionKey, out: Out<'_>) {
        let transaction = &self.transactions[key];
        let waited = self.now.since(transaction.arrived).as_millis();
        let name = self.registry[transaction.service].name.clone();
        let worker = match transaction.stage {
            Stage::Waiting | Stage::Blocked => {
                let why = self.why_waiting(transaction.service, transaction.stage);
                let (had, died) = (transaction.attempt, transaction.deaths);
                let text = if had == 0 {
                    format!(
                        "it waited {waited} ms in the queue of service '{name}' and never reached \
                         a worker: {why}"
                    )
                } else {
                    let workers = if had == 1 { "worker" } else { "workers" };
                    format!(
                        "it came {waited} ms ago and waits in the queue of service '{name}' again \
                         after {had} {workers} had it ({died} died): {why}"
                    )
                };
                self.fail(key, ErrorBody { code: ErrorCode::Deadline, ran: Ran::No, text }, out);
                return;
            }
            // A held request is in the worker's socket already, so it may yet be begun.
            Stage::Held(worker) | Stage::Bound(worker) => worker,
        };
        let (id, worker_id) = (transaction.id, self.workers[worker].id);
        let had = self.now.since(transaction.dispatched).as_millis();
        let text = format!(
            "worker {worker_id} of service '{name}' has it since {had} ms and has not answered"
        );
        let link = transaction.client.map(|client| self.clients[client].link);
        if self.may_cause(Class::LoggedIn, link) {
            let about = About {
                worker: Some(worker_id),
                service: Some(name),
                transaction: Some(id),
                ..About::default()
            };
            self.record(FactKind::RequestOverdue, about, text.clone(), out);
        }
        self.fail(key, ErrorBody { code: ErrorCode::Deadline, ran: Ran::Maybe, text }, out);
        self.drain_overdue(worker, out);
    }
}
