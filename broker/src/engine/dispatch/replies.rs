//! What a worker's frames mean for the request that it has, and what it does next. `serve` has who
//! gets a request first.

use super::machine::Dispatch;
use super::seat::{Availability, InTurns};
use super::stage::{Stage, StageEvent};
use super::transaction::Conversation;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::keys::{TransactionKey, WorkerKey};
use crate::engine::quotas::Class;
use bytes::Bytes;
use protocol::{ErrorBody, ErrorCode, Frame, Header, LinkId, Micros, TransactionId};

impl Dispatch {
    /// Handles a data frame of a worker: a reply to its present transaction, or to another one.
    pub(crate) fn on_reply(
        &mut self,
        link: LinkId,
        worker: WorkerKey,
        (head, body): (Header, Bytes),
        cx: &mut Context<'_>,
    ) {
        let seat = &mut self.seats[worker];
        seat.from_count += 1;
        let current = seat.current;
        let is_current = |&key: &TransactionKey| self.transactions[key].id.0 == head.transaction;
        let Some(key) = current.filter(is_current).or_else(|| seat.other(head.transaction)) else {
            self.on_stray(link, worker, &head, cx);
            return;
        };
        if head.error < 0 {
            let text = format!(
                "worker {} answered with error {}; workers' own errors are positive",
                self.seats[worker].id, head.error
            );
            self.on_bad_reply(link, (worker, Some(key)), text, cx);
            return;
        }
        self.seats[worker].late_work_since = None;
        let is_last = head.more == 0;
        let transaction = &mut self.transactions[key];
        transaction.worker_said(is_last, head.error);
        transaction.replied += body.len() as u64;
        let (request, id) = (transaction.head, transaction.id);
        if transaction.stage.is_ended() {
            if is_last {
                self.drop_late(worker, id.0, cx);
                self.freed(worker, key, cx);
            } else {
                // It may be waiting for the next frame of the client.
                let why = "its client waits for no answer any more";
                self.abandon(key, worker, (ErrorCode::Cancelled, why), cx);
            }
            return;
        }
        if !is_last && !self.goes_on((key, worker), head.deadline_ms, cx) {
            return;
        }
        let transaction = &self.transactions[key];
        let client = transaction.client;
        if let Some(client) = client.filter(|_| request.reply != 0) {
            let to = self.callers[client].link;
            let head = Header {
                sequence: request.sequence,
                reply: 0,
                error: head.error,
                workerid: if is_last { 0 } else { self.seats[worker].id.0 },
                more: u16::from(!is_last),
                deadline_ms: if is_last { 0 } else { self.extended_by(key, cx.now) },
                transaction: id.0,
                trace_id: request.trace_id,
                span_id: request.span_id,
                ..Header::default()
            };
            cx.out.push(Action::Send { link: to, frame: Frame::Data { head, body } });
            if !is_last {
                self.flow.hold_back(link, to, cx.out);
            }
        }
        if is_last {
            self.completed(key, worker, cx);
        } else {
            self.holds_no_more(key, worker);
        }
    }

    /// A worker sent a part of a reply: it is sent nothing ahead while that request goes on.
    fn holds_no_more(&mut self, key: TransactionKey, worker: WorkerKey) {
        let seat = &self.seats[worker];
        if seat.in_turns == InTurns::Ahead && seat.current == Some(key) {
            self.set_turns(worker, InTurns::Nowhere);
        }
    }

    /// A worker sent what is no reply: its request fails, and its connection is closed. It is the
    /// request with this key, or, if nobody knows which one is meant, the only one that it has.
    pub(crate) fn on_bad_reply(
        &mut self,
        link: LinkId,
        (worker, meant): (WorkerKey, Option<TransactionKey>),
        text: String,
        cx: &mut Context<'_>,
    ) {
        let error = ErrorBody::new(ErrorCode::BadReply, text);
        let seat = &self.seats[worker];
        let only = seat.current.filter(|_| seat.running() == 1);
        let failed = meant.or(only).filter(|&at| !self.transactions[at].stage.is_ended());
        if let Some(failed) = failed {
            self.fail(failed, error.clone(), cx);
        }
        cx.effects.push(Effect::Refuse { link, error });
    }

    /// Handles a reply to another transaction than the present one: it is late, or breaks the
    /// protocol. After a breach nobody knows which request the next reply answers, so the worker is
    /// ended and its requests are lost as if it had died.
    fn on_stray(&mut self, link: LinkId, worker: WorkerKey, head: &Header, cx: &mut Context<'_>) {
        let (which, now) = (head.transaction, cx.now);
        let seat = &mut self.seats[worker];
        let taken_away = seat.taken_away.iter().position(|&taken_away| taken_away == which);
        if (1..=self.transaction_base).contains(&which) && taken_away.is_none() {
            // An earlier broker gave it to the worker.
            self.drop_late(worker, which, cx);
            return;
        }
        let Some(current) = seat.current.filter(|_| taken_away.is_none()) else {
            if let Some(at) = taken_away.filter(|_| head.more == 0) {
                seat.late_reply_came(at, now);
            }
            self.drop_late(worker, which, cx);
            if head.more != 0 {
                // It may be waiting for a client that got its outcome long ago.
                self.notify_over(worker, which, cx);
            }
            return;
        };
        let (id, has) = (seat.id, self.transactions[current].id);
        let is_held = seat.held.iter().any(|&held| self.transactions[held].id.0 == which);
        let text = if is_held {
            format!("worker {id} answered transaction {which} before {has}, which it got first")
        } else {
            format!(
                "worker {id} answered transaction {which}, which it does not have; it has {has}"
            )
        };
        let error = ErrorBody::new(ErrorCode::BadReply, text);
        cx.effects.push(Effect::Refuse { link, error });
    }

    /// Handles the final reply: counts it, ends the transaction and frees the worker.
    fn completed(&mut self, key: TransactionKey, worker: WorkerKey, cx: &mut Context<'_>) {
        let transaction = &self.transactions[key];
        let mut ran = cx.now.since(transaction.dispatched);
        let entry = &mut self.queues[transaction.service];
        entry.figures.completed += 1;
        entry.used = cx.now;
        let bucket_step = entry.bucket_step;
        if let Stage::Parked(_) = transaction.stage {
            // Its worker was not at work on it.
            ran = Micros(0);
        } else {
            entry.rate.finished(ran);
            entry.figures.run.add(ran.0);
        }
        if let Some(client) = transaction.client {
            self.callers[client].answered += 1;
        }
        self.buckets.add(cx.now, bucket_step);
        self.totals.completed += 1;
        let seat = &mut self.seats[worker];
        seat.has_answered = true;
        seat.transactions += 1;
        seat.busy_micros += ran.0;
        seat.last_micros = ran.0;
        self.keep_answered(key, cx);
        self.finish(key, cx);
        self.freed(worker, key, cx);
    }

    fn drop_late(&mut self, worker: WorkerKey, transaction: u64, cx: &mut Context<'_>) {
        let seat = &mut self.seats[worker];
        seat.late += 1;
        self.queues[seat.service].figures.late += 1;
        if !cx.may_cause(Class::LoggedInDebug, seat.link) {
            return;
        }
        let text = format!(
            "worker {}: a reply to transaction {transaction}, which had ended, was dropped",
            seat.id
        );
        let about = About {
            worker: Some(seat.id),
            service: Some(cx.catalog[seat.service].name.clone()),
            transaction: Some(TransactionId(transaction)),
            ..About::default()
        };
        cx.record(FactKind::LateReply, about, text);
    }

    /// Removes a transaction that has its outcome: its worker is done with it, or gone.
    #[inline]
    pub(super) fn free(&mut self, key: TransactionKey) {
        self.transactions.remove(key).enter(StageEvent::Free);
    }

    /// A worker is done with a transaction that has its outcome: it gets the next one that it holds
    /// or that waits, or becomes idle, or ends if it was stopped.
    #[inline]
    pub(super) fn freed(&mut self, worker: WorkerKey, key: TransactionKey, cx: &mut Context<'_>) {
        if let Stage::ParkedEnded(_) = self.transactions[key].stage {
            self.unpark(key, worker);
            self.free(key);
            return;
        }
        self.seats[worker].give_up(key);
        self.free(key);
        self.next_for(worker, cx);
    }

    /// A worker has room for one transaction more: it begins the next one that it holds, is given
    /// one that waits, becomes idle, or ends if it was stopped.
    pub(super) fn next_for(&mut self, worker: WorkerKey, cx: &mut Context<'_>) {
        let seat = &mut self.seats[worker];
        let service = seat.service;
        if let Some(next) = seat.held.pop_front() {
            seat.current = Some(next);
            self.transactions[next].enter(StageEvent::Begin);
            let transaction = &self.transactions[next];
            if !transaction.must_keep(&cx.catalog[transaction.service].settings) {
                // It was kept so that a held request could go back to the queue.
                self.keep_no_more(next);
            }
            self.begun(next, worker, cx);
        } else if self.queues[service].waiting() > 0
            && self.may_go_straight_on(worker)
            && let Some(next) = self.take_first(service, self.seats[worker].current.is_none(), cx)
        {
            // From one request straight to the next: the worker stays in the list of busy ones.
            self.bind(next, worker, cx);
            if !self.queues[service].room.is_empty() {
                // It got none while it was overlong with one (`kill_after_ms`), or it took the
                // last one that must run alone, for which another worker was reserved.
                self.serve(service, cx);
            }
            return;
        }
        if self.becomes_idle(worker) {
            if self.queues[service].waiting() > 0 {
                self.serve(service, cx);
            }
            return;
        }
        self.arrange(worker, cx);
        let seat = &self.seats[worker];
        if seat.availability == Availability::Draining && seat.current.is_none() {
            cx.effects.push(Effect::Emptied { worker, is_overdue: false });
        }
        self.serve(service, cx);
    }

    /// Whether a worker that has ended a request may be given one that waits without any other
    /// worker being asked.
    fn may_go_straight_on(&self, worker: WorkerKey) -> bool {
        let seat = &self.seats[worker];
        if seat.current.is_none() {
            return seat.is_available();
        }
        // The first one of `alone` may need this worker to become idle.
        self.has_room_beside(worker) && self.queues[seat.service].alone.count() == 0
    }

    /// `supervision` is to be told when a worker has nothing more to reply to, and perhaps that is
    /// now. A reply that nobody waits for any more is not waited for.
    pub(crate) fn drain(&mut self, worker: WorkerKey, cx: &mut Context<'_>) {
        let seat = &mut self.seats[worker];
        debug_assert!(!seat.is_available(), "worker {} is drained and available", seat.id);
        seat.availability = Availability::Draining;
        let is_overdue = seat.current.is_some();
        if !self.owes_answers(worker) {
            cx.effects.push(Effect::Emptied { worker, is_overdue });
        }
        self.seats[worker].ended_up_to = TransactionId(0);
        self.end_conversations(worker, cx);
    }

    /// The broker leaves this worker to the next one: it is not told who gives up what it works on.
    pub(crate) fn say_no_more(&mut self, worker: WorkerKey) {
        self.seats[worker].announced.hears_cancel = false;
    }

    /// Whether somebody waits for an answer of a worker, apart from its conversations without a
    /// deadline.
    pub(crate) fn owes_answers(&self, worker: WorkerKey) -> bool {
        self.seats[worker].works_on().any(|at| !self.transactions[at].stage.is_ended())
    }

    /// Carries out `idle`: takes the requests that a worker works on away from it, all or the one
    /// with this id. Their late replies are awaited. Returns how many they were.
    pub(crate) fn intervene(
        &mut self,
        worker: WorkerKey,
        only: Option<TransactionId>,
        cx: &mut Context<'_>,
    ) -> usize {
        let is_meant = |&at: &TransactionKey| only.is_none_or(|id| id == self.transactions[at].id);
        let keys: Vec<TransactionKey> = self.seats[worker].works_on().filter(is_meant).collect();
        for &key in &keys {
            if !self.transactions[key].stage.is_ended() {
                let text = "the operator took the request away from its worker";
                self.fail(key, ErrorBody::new(ErrorCode::Intervention, text), cx);
            }
            let (id, begun) = (self.transactions[key].id, self.transactions[key].dispatched);
            self.seats[worker].take_away(id.0, begun);
            self.freed(worker, key, cx);
        }
        keys.len()
    }

    /// Tells a worker, once, that nobody waits for a transaction of it any more, so that it ends it
    /// with a reply: always if it understands `cancel`, otherwise if it may be waiting for a frame
    /// of the client.
    pub(super) fn abandon(
        &mut self,
        key: TransactionKey,
        worker: WorkerKey,
        why: (ErrorCode, &str),
        cx: &mut Context<'_>,
    ) {
        let transaction = &mut self.transactions[key];
        if transaction.conversation == Conversation::Over {
            return;
        }
        transaction.conversation = Conversation::Over;
        let (sequence, id) = (transaction.head.sequence, transaction.id);
        self.send_over(worker, (sequence, id.0), why, cx);
    }

    /// The same for a transaction that `idle` took away from it.
    fn notify_over(&mut self, worker: WorkerKey, transaction: u64, cx: &mut Context<'_>) {
        let seat = &mut self.seats[worker];
        if std::mem::replace(&mut seat.notified_over, transaction) != transaction {
            self.send_over(worker, (0, transaction), (ErrorCode::Intervention, "it has ended"), cx);
        }
    }

    fn send_over(
        &self,
        worker: WorkerKey,
        (sequence, transaction): (u32, u64),
        (code, why): (ErrorCode, &str),
        cx: &mut Context<'_>,
    ) {
        let seat = &self.seats[worker];
        let Some(link) = seat.link else { return };
        let head = Header { sequence, transaction, workerid: seat.id.0, ..Header::default() };
        let frame = if seat.announced.hears_cancel {
            let head = Header { error: code.number(), ..head };
            Frame::Cancel { head, text: why.to_owned() }
        } else {
            Frame::Error { head, error: ErrorBody::new(ErrorCode::Deadline, why) }
        };
        cx.out.push(Action::Send { link, frame });
    }
}
