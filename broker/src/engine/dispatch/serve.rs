//! Gives requests to workers. Nothing waits while a worker that could take it is idle: each change
//! that makes a worker or a request available ends in `serve`.

use super::machine::Dispatch;
use super::seat::WorkerList;
use super::stage::{Stage, StageEvent};
use super::transaction::Transaction;
use crate::engine::action::Action;
use crate::engine::catalog::Catalog;
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
        self.note_ahead(key);
        self.queues[service].queue.add(key, &mut self.transactions);
        self.serve(service, cx);
    }

    /// Gives waiting requests to idle workers, then to busy ones with room (`prefetch`).
    pub(crate) fn serve(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        let mut left = SERVED_MAX;
        while self.queues[service].queue.count() > 0 {
            if self.queues[service].idle.is_empty() {
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
            let Some(key) = self.take_first(service, cx) else { return };
            let Some(worker) = self.take_idle(service) else { return };
            self.bind(key, worker, cx);
        }
    }

    /// Takes the request to serve next out of a queue, if it may be given to a worker: not if its
    /// time is over, or its service stopped, and it is only to get its error yet
    /// (docs/decisions/0038).
    pub(super) fn take_first(
        &mut self,
        service: ServiceKey,
        cx: &Context<'_>,
    ) -> Option<TransactionKey> {
        let entry = &mut self.queues[service];
        if entry.queue.count() == 0 || cx.catalog[service].is_stopped {
            return None;
        }
        let is_in_time = |first: &Transaction| first.deadline > cx.now;
        let (strict, all) = (self.is_strict_priority, &mut self.transactions);
        let key = entry.queue.take_first(strict, all, is_in_time)?;
        entry.rate.taken(cx.now, entry.queue.count());
        Some(key)
    }

    /// Takes the worker that has been idle longest off the idle list of a service. The caller must
    /// bind a request to it.
    fn take_idle(&mut self, service: ServiceKey) -> Option<WorkerKey> {
        let entry = &mut self.queues[service];
        let key = entry.idle.pop()?;
        entry.busy += 1;
        self.idle -= 1;
        self.busy += 1;
        self.seats[key].list = WorkerList::Busy;
        Some(key)
    }

    /// Carries out `prefetch`: sends requests of one frame ahead to busy workers, which take turns.
    fn hold_ahead(&mut self, service: ServiceKey, mut left: usize, cx: &mut Context<'_>) {
        while let Some(worker) = self.queues[service].with_room.first() {
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
            entry.with_room.pop();
            self.seats[worker].turn = entry.with_room.push(worker);
            self.transactions[key].enter(StageEvent::Hold(worker));
            self.seats[worker].held.push_back(key);
            self.send_request(key, worker, cx);
            self.update_room(worker, cx);
        }
    }

    /// Whether a busy worker may hold one more request.
    pub(super) fn has_room(&self, key: WorkerKey, catalog: &Catalog) -> bool {
        let seat = &self.seats[key];
        let prefetch = catalog[seat.service].settings.get(ServiceSetting::Prefetch);
        let is_one_frame = seat.current.is_some_and(|current| {
            let current = &self.transactions[current];
            !current.takes_frames() && !current.stage.is_ended()
        });
        prefetch > seat.held.len() as u64 && is_one_frame && seat.is_available()
    }

    fn update_room(&mut self, key: WorkerKey, cx: &Context<'_>) {
        let has_room = self.has_room(key, cx.catalog);
        self.set_has_room(key, has_room);
    }

    /// Puts a worker into the list `with_room` of its service, or takes it out.
    pub(super) fn set_has_room(&mut self, key: WorkerKey, has_room: bool) {
        let seat = &mut self.seats[key];
        if seat.has_room == has_room {
            return;
        }
        seat.has_room = has_room;
        let entry = &mut self.queues[seat.service];
        if has_room {
            seat.turn = entry.with_room.push(key);
        } else {
            entry.with_room.remove(seat.turn);
        }
    }

    /// Puts a worker into the list it belongs in. Whoever calls this with one that may have become
    /// idle serves its service next.
    pub(super) fn arrange(&mut self, key: WorkerKey, cx: &Context<'_>) {
        let seat = &mut self.seats[key];
        let (before, list) = (seat.list, seat.list_by_state());
        if list != before {
            seat.list = list;
            let entry = &mut self.queues[seat.service];
            match before {
                WorkerList::Idle => {
                    entry.idle.remove(seat.turn);
                    self.idle -= 1;
                }
                WorkerList::Busy => {
                    entry.busy -= 1;
                    self.busy -= 1;
                }
                WorkerList::Lazy => {}
            }
            match list {
                WorkerList::Idle => {
                    seat.turn = entry.idle.push(key);
                    self.idle += 1;
                }
                WorkerList::Busy => {
                    entry.busy += 1;
                    self.busy += 1;
                }
                WorkerList::Lazy => {}
            }
        }
        let has_room = list == WorkerList::Busy && self.has_room(key, cx.catalog);
        self.set_has_room(key, has_room);
    }

    /// Gives a request to an idle worker, complete or not.
    pub(super) fn bind(&mut self, key: TransactionKey, worker: WorkerKey, cx: &mut Context<'_>) {
        self.transactions[key].enter(StageEvent::Give(worker));
        self.seats[worker].current = Some(key);
        let must_keep = self.send_request(key, worker, cx);
        self.begun(key, worker, must_keep, cx);
    }

    /// Notes that a worker begins a request, as far as the broker knows: it was bound to it, or it
    /// held the request and finished the one before.
    pub(super) fn begun(
        &mut self,
        key: TransactionKey,
        worker: WorkerKey,
        must_keep: bool,
        cx: &mut Context<'_>,
    ) {
        let transaction = &mut self.transactions[key];
        transaction.dispatched = cx.now;
        let waited = cx.now.since(transaction.arrived);
        if !must_keep {
            // It was kept only so that a held request could go back to the queue.
            self.queue_bytes -= std::mem::take(&mut transaction.kept_bytes);
            transaction.body = Bytes::new();
        }
        let service = transaction.service;
        self.queues[service].figures.wait.add(waited.0);
        let settings = &cx.catalog[service].settings;
        let kill_after_ms = settings.get(ServiceSetting::KillAfterMs);
        let has_prefetch = settings.get(ServiceSetting::Prefetch) > 0;
        if kill_after_ms > 0 {
            self.watch_overlong(worker, cx.now.plus_millis(kill_after_ms), cx);
        }
        if has_prefetch {
            self.update_room(worker, cx);
        }
    }

    /// Sets `Timer::Overlong` of a worker to this tick, unless it is set already.
    pub(super) fn watch_overlong(&mut self, key: WorkerKey, at: Tick, cx: &mut Context<'_>) {
        let seat = &mut self.seats[key];
        if !std::mem::replace(&mut seat.is_timed, true) {
            cx.timers.add(at, Timer::Overlong(seat.id));
        }
    }

    /// Sends a worker a request and the pieces that came so far. Returns whether its bytes must be
    /// kept after that.
    fn send_request(
        &mut self,
        key: TransactionKey,
        worker: WorkerKey,
        cx: &mut Context<'_>,
    ) -> bool {
        let transaction = &mut self.transactions[key];
        transaction.attempt += 1;
        transaction.trace.given = cx.now;
        if transaction.attempt == 1 {
            self.queues[transaction.service].retry_budget.first(cx.now);
        }
        let must_keep = transaction.must_keep(&cx.catalog[transaction.service].settings);
        let is_held = matches!(transaction.stage, Stage::Held(_));
        let is_kept = transaction.is_one_frame() && (is_held || must_keep);
        let (head, body) = (transaction.head, transaction.body.clone());
        let pieces = std::mem::take(&mut transaction.pieces);
        let client = transaction.client.map(|client| self.callers[client].id);
        let last = (transaction.id, client, cx.now);
        let max = cx.settings.get(Setting::LastBytesMax) as usize;
        self.seats[worker].remember(&body, last, max);
        self.send_piece(worker, key, head, body, cx);
        for (head, body) in pieces {
            self.send_piece(worker, key, head, body, cx);
        }
        if is_kept {
            self.read_client_again(key, cx);
        } else {
            self.release_bytes(key, cx);
        }
        must_keep
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
        let left = transaction.deadline.since(cx.now).as_millis().max(1);
        let head = Header {
            reply: transaction.head.reply,
            error: 0,
            workerid: seat.id.0,
            priority: transaction.priority,
            transaction: transaction.id.0,
            deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
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
        transaction.pieces.clear();
        self.read_client_again(key, cx);
    }

    /// Reads the client of a request again, if it was not read because of this request's waiting
    /// bytes.
    pub(super) fn read_client_again(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let transaction = &mut self.transactions[key];
        if std::mem::take(&mut transaction.holds_reader)
            && let Some(caller) = transaction.client.and_then(|client| self.callers.get(client))
        {
            self.flow.resume_reading(caller.link, cx.effects, cx.out);
        }
    }
}
