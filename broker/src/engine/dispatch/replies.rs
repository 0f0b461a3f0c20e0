//! What a worker's frames mean for the request that it has, and what it does next. `serve` has who
//! gets a request first.

use super::machine::Dispatch;
use super::seat::{Availability, WorkerList};
use super::stage::StageEvent;
use super::transaction::Conversation;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::keys::{TransactionKey, WorkerKey};
use crate::engine::quotas::Class;
use bytes::Bytes;
use protocol::{ErrorBody, ErrorCode, Frame, Header, LinkId, ServiceSetting, Tick, TransactionId};

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
        let Some(key) = current.filter(|&key| self.transactions[key].id.0 == head.transaction)
        else {
            self.on_stray(link, worker, &head, cx);
            return;
        };
        if head.error < 0 {
            let text = format!(
                "worker {} answered with error {}; workers' own errors are positive",
                self.seats[worker].id, head.error
            );
            self.on_bad_reply(link, worker, text, cx);
            return;
        }
        self.seats[worker].late_work_since = None;
        let is_last = head.more == 0;
        let transaction = &mut self.transactions[key];
        transaction.worker_said(is_last);
        transaction.replied += body.len() as u64;
        transaction.trace.error = head.error;
        let (request, id) = (transaction.head, transaction.id);
        if transaction.stage.is_ended() {
            if is_last {
                self.drop_late(worker, id.0, cx);
                self.freed(worker, cx);
            } else {
                // It may be waiting for the next frame of the client.
                self.abandon(worker, "its client waits for no answer any more", cx);
            }
            return;
        }
        let client = transaction.client;
        if let Some(client) = client.filter(|_| request.reply != 0) {
            let to = self.callers[client].link;
            let head = Header {
                sequence: request.sequence,
                reply: 0,
                error: head.error,
                workerid: if is_last { 0 } else { self.seats[worker].id.0 },
                more: u16::from(!is_last),
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
            self.transactions[key].trace.piece_came(cx.now);
            self.set_has_room(worker, false);
        }
    }

    /// A worker sent what is no reply: its request fails, and its connection is closed.
    pub(crate) fn on_bad_reply(
        &mut self,
        link: LinkId,
        worker: WorkerKey,
        text: String,
        cx: &mut Context<'_>,
    ) {
        let error = ErrorBody::new(ErrorCode::BadReply, text);
        let current = self.seats[worker].current;
        if let Some(current) = current.filter(|&at| !self.transactions[at].stage.is_ended()) {
            self.fail(current, error.clone(), cx);
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
        let ran = cx.now.since(transaction.dispatched);
        let entry = &mut self.queues[transaction.service];
        entry.rate.finished(ran);
        entry.figures.completed += 1;
        entry.figures.run.add(ran.0);
        if let Some(client) = transaction.client {
            self.callers[client].answered += 1;
        }
        self.buckets.add(cx.now);
        self.totals.completed += 1;
        let seat = &mut self.seats[worker];
        seat.transactions += 1;
        seat.busy_micros += ran.0;
        seat.last_micros = ran.0;
        self.keep_answered(key, cx);
        self.finish(key, cx);
        self.freed(worker, cx);
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
    fn freed(&mut self, worker: WorkerKey, cx: &mut Context<'_>) {
        let Some(key) = self.seats[worker].current.take() else { return };
        self.free(key);
        let seat = &mut self.seats[worker];
        let service = seat.service;
        if let Some(next) = seat.held.pop_front() {
            seat.current = Some(next);
            self.transactions[next].enter(StageEvent::Begin);
            let transaction = &self.transactions[next];
            let must_keep = transaction.must_keep(&cx.catalog[transaction.service].settings);
            self.begun(next, worker, must_keep, cx);
        } else if seat.list_by_state() == WorkerList::Idle
            && let Some(next) = self.take_first(service, cx)
        {
            // From one request straight to the next: the worker stays in the list of busy ones.
            self.bind(next, worker, cx);
            return;
        }
        self.arrange(worker, cx);
        let seat = &self.seats[worker];
        if seat.availability == Availability::Draining && seat.current.is_none() {
            cx.effects.push(Effect::Emptied { worker, is_overdue: false });
        }
        self.serve(service, cx);
    }

    /// `supervision` is to be told when a worker has nothing more to reply to, and perhaps that is
    /// now. A reply that nobody waits for any more is not waited for.
    pub(crate) fn drain(&mut self, worker: WorkerKey, cx: &mut Context<'_>) {
        let seat = &mut self.seats[worker];
        debug_assert!(!seat.is_available(), "worker {} is drained and available", seat.id);
        seat.availability = Availability::Draining;
        let is_overdue = seat.current.is_some();
        if seat.current.is_none_or(|at| self.transactions[at].stage.is_ended()) {
            cx.effects.push(Effect::Emptied { worker, is_overdue });
        }
    }

    /// Carries out `idle`: takes the present request away from its worker. Its late reply is
    /// awaited.
    pub(crate) fn intervene(&mut self, worker: WorkerKey, cx: &mut Context<'_>) {
        let Some(key) = self.seats[worker].current else { return };
        if !self.transactions[key].stage.is_ended() {
            let text = "the operator took the request away from its worker";
            self.fail(key, ErrorBody::new(ErrorCode::Intervention, text), cx);
        }
        let (id, begun) = (self.transactions[key].id, self.transactions[key].dispatched);
        self.seats[worker].take_away(id.0, begun);
        self.freed(worker, cx);
    }

    /// Tells a worker, once, that nobody waits for its transaction any more, so that it ends it
    /// with a reply.
    pub(super) fn abandon(&mut self, worker: WorkerKey, why: &str, cx: &mut Context<'_>) {
        let Some(key) = self.seats[worker].current else { return };
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
            self.send_over(worker, (0, transaction), "it has ended", cx);
        }
    }

    fn send_over(
        &self,
        worker: WorkerKey,
        (sequence, transaction): (u32, u64),
        why: &str,
        cx: &mut Context<'_>,
    ) {
        let seat = &self.seats[worker];
        let Some(link) = seat.link else { return };
        let head = Header { sequence, transaction, workerid: seat.id.0, ..Header::default() };
        let error = ErrorBody::new(ErrorCode::Deadline, why);
        cx.out.push(Action::Send { link, frame: Frame::Error { head, error } });
    }

    /// The transaction that a worker works on, since when, and a remark for the text; as far as the
    /// broker knows. A transaction that `idle` took away comes before one that the worker got
    /// later, because it has one thread.
    fn at_work_on(&self, key: WorkerKey) -> Option<(u64, Tick, &'static str)> {
        let seat = &self.seats[key];
        if let Some((since, &transaction)) = seat.late_work_since.zip(seat.taken_away.front()) {
            return Some((transaction, since, ", which 'idle' took away,"));
        }
        let transaction = &self.transactions[seat.current?];
        Some((transaction.id.0, transaction.dispatched.max(seat.late_reply_at), ""))
    }

    /// `Timer::Overlong`: looks for a worker that is busy too long with one request, also if `idle`
    /// took that away: a worker that hangs would stand there for ever, since it owes no sign of
    /// life until its late reply.
    pub(crate) fn on_overlong_due(&mut self, worker: WorkerKey, cx: &mut Context<'_>) {
        self.seats[worker].is_timed = false;
        let service = self.seats[worker].service;
        let limit_ms = cx.catalog[service].settings.get(ServiceSetting::KillAfterMs);
        let work = self.at_work_on(worker).filter(|_| limit_ms > 0);
        let Some((transaction, since, how)) = work else { return };
        let at = since.plus_millis(limit_ms);
        if at > cx.now {
            self.watch_overlong(worker, at, cx);
            return;
        }
        let what = format!(
            "is busy with transaction {transaction}{how} for more than {limit_ms} ms \
             (kill_after_ms) and is killed"
        );
        cx.effects.push(Effect::Overlong { worker, what });
    }
}
