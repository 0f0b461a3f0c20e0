//! The frames of workers: what a reply means for the request that the worker has, and what the
//! worker does next. `dispatch` gives requests to workers in the first place.

use super::action::Action;
use super::fact::{About, FactKind};
use super::keys::{TransactionKey, WorkerKey};
use super::links::End;
use super::quotas::Class;
use super::workers::WorkerList;
use super::{Engine, Out};
use bytes::Bytes;
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;

impl Engine {
    /// Handles a data frame of a worker: a reply to its present transaction, or to another one.
    pub(crate) fn on_reply(&mut self, link: LinkId, head: Header, body: Bytes, out: Out<'_>) {
        let worker = match self.links.get(link).map(|slot| &slot.end) {
            Some(End::Worker(worker)) => *worker,
            Some(_) => {
                let text = "a reply came before the login";
                self.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text), out);
                return;
            }
            None => return,
        };
        self.workers[worker].from_count += 1;
        let current = self.workers[worker].current;
        let Some(key) = current.filter(|&key| self.transactions[key].id.0 == head.transaction)
        else {
            self.on_stray(link, worker, &head, out);
            return;
        };
        if head.error < 0 {
            let text = format!(
                "worker {} answered with error {}; workers' own errors are positive",
                self.workers[worker].id, head.error
            );
            self.bad_worker(link, text, out);
            return;
        }
        self.workers[worker].late_work_since = None;
        let is_last = head.more == 0;
        let transaction = &mut self.transactions[key];
        transaction.in_conversation = !is_last;
        let (is_ended, request, id) = (transaction.is_ended, transaction.head, transaction.id);
        if is_ended {
            if is_last {
                self.drop_late(worker, id.0, out);
                self.freed(worker, out);
            } else {
                // It may be waiting for the next frame of the client.
                self.abandon(worker, "its client waits for no answer any more", out);
            }
            return;
        }
        let client = transaction.client;
        if let Some(client) = client.filter(|_| request.reply != 0) {
            let to = self.clients[client].link;
            let head = Header {
                sequence: request.sequence,
                reply: 0,
                error: head.error,
                workerid: if is_last { 0 } else { self.workers[worker].id.0 },
                more: u16::from(!is_last),
                transaction: id.0,
                trace_id: request.trace_id,
                span_id: request.span_id,
                ..Header::default()
            };
            out.push(Action::Send { link: to, frame: Frame::Data { head, body } });
            if !is_last {
                self.links.hold_back(link, to, out);
            }
        }
        if is_last {
            self.completed(key, worker, out);
        } else {
            self.set_has_room(worker, false);
        }
    }

    /// Handles a reply to another transaction than the present one: it is late, or breaks the
    /// protocol. After a breach nobody knows which request the next reply answers, so the worker is
    /// ended and its requests are lost as if it had died.
    fn on_stray(&mut self, link: LinkId, worker: WorkerKey, head: &Header, out: Out<'_>) {
        let (which, now) = (head.transaction, self.now);
        let entry = &mut self.workers[worker];
        let late = entry.taken_away.iter().position(|&taken_away| taken_away == which);
        let Some(current) = entry.current.filter(|_| late.is_none()) else {
            if let Some(at) = late.filter(|_| head.more == 0) {
                entry.late_reply_came(at, now);
            }
            self.drop_late(worker, which, out);
            if head.more != 0 {
                // It may be waiting for a client that got its outcome long ago.
                self.notify_over(worker, which, out);
            }
            return;
        };
        let (id, has) = (entry.id, self.transactions[current].id);
        let is_held = entry.held.iter().any(|&held| self.transactions[held].id.0 == which);
        let text = if is_held {
            format!("worker {id} answered transaction {which} before {has}, which it got first")
        } else {
            format!(
                "worker {id} answered transaction {which}, which it does not have; it has {has}"
            )
        };
        self.refuse_link(link, ErrorBody::new(ErrorCode::BadReply, text), out);
    }

    /// Handles the final reply: counts it, ends the transaction and frees the worker.
    fn completed(&mut self, key: TransactionKey, worker: WorkerKey, out: Out<'_>) {
        let transaction = &self.transactions[key];
        let ran = self.now.since(transaction.dispatched);
        let service = &mut self.registry[transaction.service];
        service.rate.finished(ran);
        let figures = &mut service.figures;
        figures.completed += 1;
        figures.run.add(ran.0);
        if let Some(client) = transaction.client {
            self.clients[client].answered += 1;
        }
        self.buckets.add(self.now);
        self.totals.completed += 1;
        let entry = &mut self.workers[worker];
        entry.transactions += 1;
        entry.busy_micros += ran.0;
        entry.last_micros = ran.0;
        self.finish(key, out);
        self.freed(worker, out);
    }

    /// Counts and records a reply to a transaction that had ended; it is not sent on.
    fn drop_late(&mut self, worker_key: WorkerKey, transaction: u64, out: Out<'_>) {
        let worker = &mut self.workers[worker_key];
        worker.late += 1;
        let link = worker.link;
        self.registry[worker.service].figures.late += 1;
        if !self.may_cause(Class::LoggedInDebug, link) {
            return;
        }
        let worker = &self.workers[worker_key];
        let text = format!(
            "worker {}: a reply to transaction {transaction}, which had ended, was dropped",
            worker.id
        );
        let service = &self.registry[worker.service];
        let about = About {
            worker: Some(worker.id),
            service: Some(service.name.clone()),
            ..About::default()
        };
        self.record(FactKind::LateReply, about, text, out);
    }

    /// A worker is done with a transaction that has its outcome: it gets the next one that it holds
    /// or that waits, or becomes idle, or ends if it was stopped.
    pub(crate) fn freed(&mut self, worker: WorkerKey, out: Out<'_>) {
        let Some(key) = self.workers[worker].current.take() else { return };
        debug_assert!(self.transactions[key].is_ended, "a worker is freed of what has ended");
        self.transactions.remove(key);
        let service = self.workers[worker].service;
        if let Some(next) = self.workers[worker].held.pop_front() {
            self.workers[worker].current = Some(next);
            self.begin(next, worker);
        } else if self.list_of(worker) == WorkerList::Idle
            && let Some(next) = self.take_first(service)
        {
            // From one request straight to the next: the worker stays in the list of busy ones.
            self.bind(next, worker, out);
            return;
        }
        self.settle(worker);
        if self.is_drained(worker) {
            self.ask_to_end(worker, out);
        } else if self.workers[worker].current.is_none() {
            self.wait_for_end(worker);
        }
        self.serve(service, out);
    }

    /// Carries out `idle`: takes the present request away from its worker. Its late reply is
    /// awaited.
    pub(crate) fn intervene(&mut self, worker: WorkerKey, out: Out<'_>) {
        let Some(key) = self.workers[worker].current else { return };
        if !self.transactions[key].is_ended {
            let text = "the operator took the request away from its worker";
            self.fail(key, ErrorBody::new(ErrorCode::Intervention, text), out);
        }
        let (id, begun) = (self.transactions[key].id, self.transactions[key].dispatched);
        self.workers[worker].take_away(id.0, begun);
        self.freed(worker, out);
    }

    /// Tells a worker, once, that nobody waits for its transaction any more, so that it ends it
    /// with a reply.
    pub(crate) fn abandon(&mut self, worker: WorkerKey, why: &str, out: Out<'_>) {
        let Some(key) = self.workers[worker].current else { return };
        let transaction = &mut self.transactions[key];
        if std::mem::replace(&mut transaction.is_abandoned, true) {
            return;
        }
        let (sequence, id) = (transaction.head.sequence, transaction.id);
        self.send_over(worker, (sequence, id.0), why, out);
    }

    /// The same for a transaction that `idle` took away from it.
    fn notify_over(&mut self, worker: WorkerKey, transaction: u64, out: Out<'_>) {
        let entry = &mut self.workers[worker];
        if std::mem::replace(&mut entry.notified_over, transaction) != transaction {
            self.send_over(worker, (0, transaction), "it has ended", out);
        }
    }

    /// Sends a worker the error frame that says that a transaction is over.
    fn send_over(
        &self,
        worker: WorkerKey,
        (sequence, transaction): (u32, u64),
        why: &str,
        out: Out<'_>,
    ) {
        let worker = &self.workers[worker];
        let Some(link) = worker.link else { return };
        let head = Header { sequence, transaction, workerid: worker.id.0, ..Header::default() };
        let error = ErrorBody::new(ErrorCode::Deadline, why);
        out.push(Action::Send { link, frame: Frame::Error { head, error } });
    }
}
