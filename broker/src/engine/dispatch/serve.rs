//! Gives requests to workers. Nothing waits while a worker that could take it is idle: each change
//! that makes a worker or a request available ends in `serve`.

use super::machine::Dispatch;
use super::seat::InTurns;
use super::stage::{Stage, StageEvent};
use super::trace::Span;
use super::transaction::{Past, Transaction};
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::{ServiceKey, TransactionKey, WorkerKey};
use crate::engine::timers::Timer;
use bytes::Bytes;
use protocol::{Frame, Header, ServiceSetting, Setting, Tick};

/// Most requests that are given to workers of a service at once; the others follow in later turns.
const SERVED_MAX: usize = 256;

impl Dispatch {
    /// Gives a request to an idle worker, or puts it into the queue of its service. Only its first
    /// frame need have come: `on_piece` sends the further ones after it.
    pub(super) fn enqueue(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let service = self.transactions[key].service;
        if self.queues[service].queue.count() == 0
            && let Some(worker) = self.take_idle(service)
        {
            self.bind(key, worker, cx);
            return;
        }
        self.add_to_queue(key);
        if self.queues[service].is_down_until_asked {
            cx.effects.push(Effect::Asked { service });
        }
        if self.queues[service].may_serve() {
            self.serve(service, cx);
        }
    }

    /// Puts a request into the queue of its service, in its place by arrival.
    #[inline]
    pub(super) fn add_to_queue(&mut self, key: TransactionKey) {
        let transaction = &self.transactions[key];
        let must_run_alone = transaction.must_run_alone();
        let entry = &mut self.queues[transaction.service];
        entry.queue_of(must_run_alone).add(key, &mut self.transactions);
    }

    /// Takes a request out of the queue of its service. A worker that was reserved for it may be
    /// given others then.
    pub(super) fn take_out_of_queue(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let transaction = &self.transactions[key];
        let (service, must_run_alone) = (transaction.service, transaction.must_run_alone());
        let entry = &mut self.queues[service];
        entry.queue_of(must_run_alone).remove(key, &mut self.transactions);
        if must_run_alone && entry.alone.count() == 0 {
            self.unreserve(service);
            cx.effects.push(Effect::Serve { service });
        }
    }

    /// Gives waiting requests to idle workers, then to busy ones with room.
    pub(crate) fn serve(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        let mut left = SERVED_MAX;
        while self.queues[service].waiting() > 0 {
            let entry = &self.queues[service];
            let is_any_idle = !entry.idle.is_empty();
            if !is_any_idle && entry.alone.count() > 0 {
                self.reserve(service);
            }
            let entry = &self.queues[service];
            if !is_any_idle && (entry.room.is_empty() || entry.queue.count() == 0) {
                if cx.catalog[service].settings.get(ServiceSetting::Prefetch) > 0 {
                    self.hold_ahead(service, left, cx);
                }
                return;
            }
            if left == 0 {
                cx.effects.push(Effect::Serve { service });
                return;
            }
            left -= 1;
            let Some(key) = self.take_first(service, is_any_idle, cx) else { return };
            let worker =
                if is_any_idle { self.take_idle(service) } else { self.take_room(service) };
            let Some(worker) = worker else { return };
            self.bind(key, worker, cx);
        }
    }

    /// Takes the request to serve next out of a queue, if it may be given to a worker: not if its
    /// time is over, or its service stopped, and it is only to get its error yet
    /// (docs/decisions/0038). `is_idle`: the worker has none, so the request may be one that must
    /// run alone.
    pub(super) fn take_first(
        &mut self,
        service: ServiceKey,
        is_idle: bool,
        cx: &Context<'_>,
    ) -> Option<TransactionKey> {
        let entry = &mut self.queues[service];
        if entry.waiting() == 0 || cx.catalog[service].is_stopped {
            return None;
        }
        if entry.alone.count() > 0
            && is_idle
            && let Some(key) = self.take_alone(service, cx)
        {
            return Some(key);
        }
        let entry = &mut self.queues[service];
        let is_in_time = |first: &Transaction| first.deadline > cx.now;
        let (strict, all) = (self.is_strict_priority, &mut self.transactions);
        let key = entry.queue.take_first(strict, all, is_in_time)?;
        entry.rate.taken(cx.now, entry.queue.count());
        Some(key)
    }

    /// The same for one that must run alone.
    #[cold]
    fn take_alone(&mut self, service: ServiceKey, cx: &Context<'_>) -> Option<TransactionKey> {
        let entry = &mut self.queues[service];
        let is_in_time = |first: &Transaction| first.deadline > cx.now;
        let (strict, all) = (self.is_strict_priority, &mut self.transactions);
        // By priority and arrival, as if all waited in one queue.
        let own = entry.alone.weight_of_first(strict, all);
        if entry.queue.weight_of_first(strict, all).is_some_and(|other| own > Some(other)) {
            return None;
        }
        let key = entry.alone.take_first(strict, all, is_in_time)?;
        if entry.alone.count() == 0 {
            self.unreserve(service);
        }
        Some(key)
    }

    /// Carries out `prefetch`: sends requests of one frame ahead to busy workers, which take turns.
    fn hold_ahead(&mut self, service: ServiceKey, mut left: usize, cx: &mut Context<'_>) {
        while let Some(worker) = self.queues[service].ahead.first() {
            if left == 0 {
                cx.effects.push(Effect::Serve { service });
                return;
            }
            left -= 1;
            let queue = &self.queues[service].queue;
            let Some(key) = queue.first(self.is_strict_priority, &self.transactions) else {
                return;
            };
            let is_late = self.transactions[key].deadline <= cx.now;
            if is_late || cx.catalog[service].is_stopped {
                return;
            }
            // The pieces of a request could come between those of the one that the worker has, so
            // it waits for an idle worker.
            if !self.transactions[key].is_one_frame() {
                return;
            }
            let entry = &mut self.queues[service];
            entry.queue.remove(key, &mut self.transactions);
            entry.rate.taken(cx.now, entry.queue.count());
            self.set_turns(worker, InTurns::Nowhere);
            self.transactions[key].enter(StageEvent::Hold(worker));
            self.seats[worker].held.push_back(key);
            self.send_request(key, worker, cx);
            self.update_turns(worker, cx);
        }
    }

    /// Gives a request to a worker that may take it, complete or not.
    pub(super) fn bind(&mut self, key: TransactionKey, worker: WorkerKey, cx: &mut Context<'_>) {
        let transaction = &mut self.transactions[key];
        transaction.enter(StageEvent::Give(worker));
        self.seats[worker].take(transaction.id, key);
        self.send_request(key, worker, cx);
        self.begun(key, worker, cx);
    }

    /// Notes that a worker begins a request, as far as the broker knows: it was bound to it, or it
    /// held the request and finished the one before.
    pub(super) fn begun(&mut self, key: TransactionKey, worker: WorkerKey, cx: &mut Context<'_>) {
        let transaction = &mut self.transactions[key];
        transaction.dispatched = cx.now;
        let waited = cx.now.since(transaction.arrived);
        let service = transaction.service;
        self.queues[service].figures.wait.add(waited.0);
        let settings = &cx.catalog[service].settings;
        let kill_after_ms = settings.get(ServiceSetting::KillAfterMs);
        let has_prefetch = settings.get(ServiceSetting::Prefetch) > 0;
        if kill_after_ms > 0 {
            self.watch_overlong(worker, cx.now.plus_millis(kill_after_ms), cx);
        }
        if has_prefetch || self.seats[worker].capacity > 1 {
            self.update_turns(worker, cx);
        }
    }

    /// Sets `Timer::Overlong` of a worker to this tick, unless it is set already.
    pub(super) fn watch_overlong(&mut self, key: WorkerKey, at: Tick, cx: &mut Context<'_>) {
        let seat = &mut self.seats[key];
        if !std::mem::replace(&mut seat.is_timed, true) {
            cx.timers.add(at, Timer::Overlong(seat.id));
        }
    }

    /// The bytes of a request need not be kept any more, but for those of a small one.
    pub(super) fn keep_no_more(&mut self, key: TransactionKey) {
        let transaction = &mut self.transactions[key];
        self.queue_bytes -= std::mem::take(&mut transaction.kept_bytes);
        if !transaction.is_small() {
            transaction.body = Bytes::new();
        }
    }

    /// Sends a worker a request and the pieces that came so far.
    fn send_request(&mut self, key: TransactionKey, worker: WorkerKey, cx: &mut Context<'_>) {
        let transaction = &mut self.transactions[key];
        transaction.attempt += 1;
        transaction.trace.given = Span::since(transaction.arrived, cx.now);
        if transaction.attempt == 1 {
            self.queues[transaction.service].retry_budget.first(cx.now);
        }
        let is_first = !transaction.was_sent();
        if is_first {
            transaction.past = Past::Sent;
        }
        let must_keep = transaction.must_keep(&cx.catalog[transaction.service].settings);
        let is_held = matches!(transaction.stage, Stage::Held(_));
        let is_kept = transaction.is_one_frame() && (is_held || must_keep);
        let (head, body) = (transaction.head, transaction.body.clone());
        let pieces = transaction.pieces.take();
        let caller = transaction.client.map(|client| &self.callers[client]);
        let is_awaited = is_first && caller.is_some_and(|caller| !caller.flushes.is_empty());
        let last = (transaction.id, caller.map(|caller| caller.id), cx.now);
        let max = cx.settings.get(Setting::LastBytesMax) as usize;
        let seat = &mut self.seats[worker];
        seat.requests_sent = seat.requests_sent.wrapping_add(1);
        seat.remember(&body, last, max);
        self.send_piece(worker, key, head, body, cx);
        if let Some(pieces) = pieces {
            for (head, body) in *pieces {
                self.send_piece(worker, key, head, body, cx);
            }
        }
        if is_awaited {
            self.settled(key, cx);
        }
        let transaction = &mut self.transactions[key];
        if is_kept {
            self.read_client_again(key, cx);
        } else if transaction.is_small() {
            self.queue_bytes -= std::mem::take(&mut transaction.kept_bytes);
            self.read_client_again(key, cx);
        } else {
            self.release_bytes(key, cx);
        }
    }

    /// Sends a worker one frame of a request, with the header fields that the broker gives.
    pub(super) fn send_piece(
        &mut self,
        worker: WorkerKey,
        key: TransactionKey,
        head: Header,
        body: Bytes,
        cx: &mut Context<'_>,
    ) {
        let transaction = &self.transactions[key];
        let seat = &mut self.seats[worker];
        let Some(link) = seat.link else { return };
        seat.to_count += 1;
        // A conversation without a deadline has more than fits, and 0 says so.
        let left = transaction.deadline.since(cx.now).as_millis().max(1);
        let head = Header {
            reply: transaction.head.reply,
            error: 0,
            workerid: seat.id.0,
            priority: transaction.priority,
            transaction: transaction.id.0,
            deadline_ms: u32::try_from(left).unwrap_or(0),
            attempt: transaction.attempt,
            ..head
        };
        cx.out.push(Action::Send { link, frame: Frame::Data { head, body } });
    }

    /// Frees the bytes of a request that are not needed any more, and reads its client again if
    /// they were why it was not read.
    pub(super) fn release_bytes(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let transaction = &mut self.transactions[key];
        self.queue_bytes -= std::mem::take(&mut transaction.kept_bytes);
        transaction.body = Bytes::new();
        transaction.pieces = None;
        self.read_client_again(key, cx);
    }

    /// Reads the client of a request again, if it was not read because of this request's waiting
    /// bytes.
    #[inline]
    pub(super) fn read_client_again(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let transaction = &mut self.transactions[key];
        if std::mem::take(&mut transaction.holds_reader)
            && let Some(caller) = transaction.client.and_then(|client| self.callers.get(client))
        {
            self.flow.resume_reading(caller.link, cx.effects, cx.out);
        }
    }
}
