//! Gives requests to workers, and decides what becomes of a request whose worker was lost. No
//! request waits while a worker that could take it is idle: each change that makes a worker or a
//! request available ends in `serve`.

use super::action::Action;
use super::fact::{About, FactKind};
use super::input::Close;
use super::keys::{ServiceKey, TransactionKey, WorkerKey};
use super::poison::Poison;
use super::retry_budget::Level;
use super::transaction::Stage;
use super::workers::ProcessState;
use super::{Engine, Out};
use bytes::Bytes;
use protocol::bodies::ErrorBody;
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::settings::{ServiceSetting, Setting};
use std::collections::VecDeque;

impl Engine {
    /// Gives a request to an idle worker, or puts it into the queue of its service. Only its first
    /// frame need have come: `on_piece` sends the further ones after it.
    pub(crate) fn enqueue(&mut self, key: TransactionKey, out: Out<'_>) {
        let service = self.transactions[key].service;
        if self.registry[service].queue.count() == 0
            && let Some(worker) = self.take_idle(service)
        {
            self.bind(key, worker, out);
            return;
        }
        self.transactions[key].stage = Stage::Waiting;
        self.registry[service].queue.add(key, &mut self.transactions);
        self.serve(service, out);
    }

    /// Gives waiting requests to idle workers, then to busy ones with room (`prefetch`).
    pub(crate) fn serve(&mut self, service: ServiceKey, out: Out<'_>) {
        while self.registry[service].queue.count() > 0 {
            let Some(worker) = self.take_idle(service) else {
                if self.registry[service].settings.get(ServiceSetting::Prefetch) > 0 {
                    self.hold_ahead(service, out);
                }
                return;
            };
            let Some(key) = self.take_first(service) else { return };
            self.bind(key, worker, out);
        }
    }

    /// Takes the first request out of the queue of a service, and measures the service rate by it.
    pub(crate) fn take_first(&mut self, service: ServiceKey) -> Option<TransactionKey> {
        let queue = &mut self.registry[service].queue;
        let key = queue.take_first(self.is_strict_priority, &mut self.transactions)?;
        let left = queue.count();
        self.registry[service].rate.taken(self.now, left);
        Some(key)
    }

    /// Carries out `prefetch`: sends requests of one frame ahead to busy workers, which take turns.
    fn hold_ahead(&mut self, service: ServiceKey, out: Out<'_>) {
        while let Some(&worker) = self.registry[service].with_room.front() {
            let queue = &self.registry[service].queue;
            let Some(key) = queue.first(self.is_strict_priority, &self.transactions) else {
                return;
            };
            // The pieces of a request could come between those of the one that the worker has, so
            // it waits for an idle worker.
            if !self.transactions[key].is_complete || !self.transactions[key].pieces.is_empty() {
                return;
            }
            let entry = &mut self.registry[service];
            entry.queue.remove(key, &mut self.transactions);
            entry.rate.taken(self.now, entry.queue.count());
            entry.with_room.rotate_left(1);
            self.transactions[key].stage = Stage::Held(worker);
            self.workers[worker].held.push_back(key);
            self.send_request(key, worker, out);
            let has_room = self.has_room(worker);
            self.set_has_room(worker, has_room);
        }
    }

    /// Whether a busy worker may hold one more request.
    pub(crate) fn has_room(&self, key: WorkerKey) -> bool {
        let worker = &self.workers[key];
        let prefetch = self.registry[worker.service].settings.get(ServiceSetting::Prefetch);
        // No further frame of its request comes, and the request is not overdue.
        let is_current_whole = worker.current.is_some_and(|current| {
            let current = &self.transactions[current];
            current.is_complete && !current.in_conversation && !current.is_ended
        });
        prefetch > worker.held.len() as u64
            && is_current_whole
            && worker.state == ProcessState::Ready
            && !worker.is_paused
            && worker.is_wanted
            && !self.registry[worker.service].is_paused
    }

    /// Gives a request to an idle worker, complete or not.
    pub(crate) fn bind(&mut self, key: TransactionKey, worker: WorkerKey, out: Out<'_>) {
        self.transactions[key].stage = Stage::Bound(worker);
        self.workers[worker].current = Some(key);
        self.send_request(key, worker, out);
        self.begin(key, worker);
    }

    /// Notes that a worker begins a request, as far as the broker knows: it was bound to it, or it
    /// held the request and finished the one before.
    pub(crate) fn begin(&mut self, key: TransactionKey, worker: WorkerKey) {
        let transaction = &mut self.transactions[key];
        transaction.stage = Stage::Bound(worker);
        transaction.dispatched = self.now;
        let waited = self.now.since(transaction.arrived);
        let service = &mut self.registry[transaction.service];
        service.figures.wait.add(waited.0);
        let kill_after_ms = service.settings.get(ServiceSetting::KillAfterMs);
        if !self.must_keep(key) {
            // It was kept only so that a held request could go back to the queue.
            let transaction = &mut self.transactions[key];
            self.queue_bytes -= std::mem::take(&mut transaction.kept_bytes);
            transaction.body = Bytes::new();
        }
        if kill_after_ms > 0 {
            self.watch_overlong(worker, self.now.plus_millis(kill_after_ms));
        }
        let service = &self.registry[self.workers[worker].service];
        if service.settings.get(ServiceSetting::Prefetch) > 0 {
            let has_room = self.has_room(worker);
            self.set_has_room(worker, has_room);
        }
    }

    /// Sends a worker a request and the pieces that came so far.
    fn send_request(&mut self, key: TransactionKey, worker: WorkerKey, out: Out<'_>) {
        let transaction = &mut self.transactions[key];
        transaction.attempt += 1;
        if transaction.attempt == 1 {
            self.registry[transaction.service].retry_budget.first(self.now);
        }
        let is_one_frame = transaction.is_complete && transaction.pieces.is_empty();
        let body = transaction.body.clone();
        let head = transaction.head;
        let pieces = std::mem::take(&mut transaction.pieces);
        let is_held = matches!(transaction.stage, Stage::Held(_));
        let is_still_needed = is_one_frame && (is_held || self.must_keep(key));
        let client = self.transactions[key].client.map(|client| self.clients[client].id);
        let last = (self.transactions[key].id, client, self.now);
        let max = self.settings.get(Setting::LastBytesMax) as usize;
        self.workers[worker].remember(&body, last, max);
        self.send_piece(worker, key, head, body, out);
        for (head, body) in pieces {
            self.send_piece(worker, key, head, body, out);
        }
        if is_still_needed {
            self.read_client_again(key, out);
        } else {
            self.release_bytes(key, out);
        }
    }

    /// Sends a worker one frame of a request, with the header fields that the broker gives.
    pub(crate) fn send_piece(
        &mut self,
        worker: WorkerKey,
        key: TransactionKey,
        head: Header,
        body: Bytes,
        out: Out<'_>,
    ) {
        let transaction = &self.transactions[key];
        let worker = &mut self.workers[worker];
        let Some(link) = worker.link else { return };
        worker.to_count += 1;
        let left = transaction.deadline.since(self.now).as_millis().max(1);
        let head = Header {
            reply: transaction.head.reply,
            error: 0,
            workerid: worker.id.0,
            priority: transaction.priority,
            transaction: transaction.id.0,
            deadline_ms: u32::try_from(left).unwrap_or(u32::MAX),
            attempt: transaction.attempt,
            ..head
        };
        out.push(Action::Send { link, frame: Frame::Data { head, body } });
    }

    /// Whether a request may be given to one more worker if the present one is lost, by the
    /// settings `retry` and `retry_idempotent`.
    fn may_repeat(&self, key: TransactionKey) -> bool {
        let transaction = &self.transactions[key];
        let settings = &self.registry[transaction.service].settings;
        let retry = if transaction.head.is_idempotent() {
            settings.get(ServiceSetting::RetryIdempotent).max(settings.get(ServiceSetting::Retry))
        } else {
            settings.get(ServiceSetting::Retry)
        };
        // `attempt` counts the one under way.
        u64::from(transaction.attempt) <= retry
    }

    /// Whether the bytes of a request must be kept after a worker got them, to repeat it or to keep
    /// it as poison.
    fn must_keep(&self, key: TransactionKey) -> bool {
        let transaction = &self.transactions[key];
        let settings = &self.registry[transaction.service].settings;
        transaction.is_complete
            && transaction.head.more == 0
            && (self.may_repeat(key)
                || transaction.deaths + 1 >= settings.get(ServiceSetting::PoisonDeaths))
    }

    /// Whether the whole request is still in memory, so that it could be given to another worker.
    fn is_whole_in_memory(&self, key: TransactionKey) -> bool {
        let transaction = &self.transactions[key];
        transaction.is_complete
            && !transaction.in_conversation
            && transaction.head.more == 0
            && transaction.body.len() == transaction.head.len as usize
    }

    /// A worker's connection is gone: repeats, fails or removes its transactions.
    pub(crate) fn lose_requests(&mut self, worker: WorkerKey, how: Close, why: &str, out: Out<'_>) {
        let held: Vec<TransactionKey> = self.workers[worker].held.drain(..).collect();
        // On a lost connection no late reply comes any more.
        self.workers[worker].taken_away = VecDeque::new();
        self.workers[worker].late_work_since = None;
        let current = self.workers[worker].current.take();
        let id = self.workers[worker].id;
        let service = self.workers[worker].service;
        self.settle(worker);
        // In the order of arrival, which those that are repeated keep.
        if let Some(key) = current {
            if self.transactions[key].is_ended {
                self.transactions.remove(key);
            } else {
                let is_death = !self.workers[worker].ends_with_host;
                self.transactions[key].deaths += u64::from(is_death);
                self.lost_with_worker(key, id, Ran::Maybe, why, out);
            }
        }
        for key in held {
            let is_ended = self.transactions[key].is_ended;
            if how == Close::Eof {
                self.transactions[key].attempt -= 1;
            }
            if is_ended {
                self.transactions.remove(key);
            } else if how == Close::Eof
                && self.is_whole_in_memory(key)
                && self.transactions[key].deadline > self.now
                && !self.registry[self.transactions[key].service].is_stopped
                && self.shutdown.is_none()
            {
                // The worker never began it: it closed in order, and the one before had no answer
                // yet.
                self.wait_again(key, out);
            } else {
                let ran = if how == Close::Eof { Ran::No } else { Ran::Maybe };
                self.lost_with_worker(key, id, ran, why, out);
            }
        }
        self.serve(service, out);
    }

    /// A request was lost with its worker, or with the worker's connection: it is set aside as
    /// poison, repeated, or failed.
    fn lost_with_worker(
        &mut self,
        key: TransactionKey,
        worker: protocol::ids::WorkerId,
        ran: Ran,
        why: &str,
        out: Out<'_>,
    ) {
        let transaction = &self.transactions[key];
        let level = self.registry[transaction.service].retry_budget_level(self.now);
        let service = &self.registry[transaction.service];
        let deaths = transaction.deaths;
        let is_whole_in_memory = self.is_whole_in_memory(key);
        let about = About {
            service: Some(service.name.clone()),
            transaction: Some(transaction.id),
            worker: Some(worker),
            ..About::default()
        };
        if is_whole_in_memory && deaths >= service.settings.get(ServiceSetting::PoisonDeaths) {
            let text = format!(
                "{deaths} workers died of transaction {}; its bytes are kept ('poison')",
                transaction.id
            );
            self.keep_poison(Poison::of(transaction, self));
            self.record(FactKind::RequestPoison, about, text.clone(), out);
            self.fail_unbound(
                key,
                ErrorBody { code: ErrorCode::Poison, ran: Ran::Maybe, text },
                out,
            );
        } else if self.is_worth_repeating(key) && level.has_room() {
            let text = format!(
                "transaction {} is given to another worker (attempt {})",
                transaction.id,
                transaction.attempt + 1
            );
            let service = &mut self.registry[transaction.service];
            service.figures.retried += 1;
            service.retry_budget.repeat(self.now);
            self.record(FactKind::RequestRetried, about, text, out);
            self.wait_again(key, out);
        } else {
            let mut text = format!(
                "worker {worker} of service '{}' {why} while it had the request",
                service.name
            );
            if self.is_worth_repeating(key) {
                text += &self.deny_repeat(transaction.service, level, out);
            }
            self.fail_unbound(key, ErrorBody { code: ErrorCode::WorkerDied, ran, text }, out);
        }
    }

    /// Whether a request whose worker was lost may be repeated, apart from the retry budget.
    fn is_worth_repeating(&self, key: TransactionKey) -> bool {
        let transaction = &self.transactions[key];
        self.is_whole_in_memory(key)
            && self.may_repeat(key)
            && transaction.deadline > self.now
            && !self.registry[transaction.service].is_stopped
            && self.shutdown.is_none()
    }

    /// Counts a repetition that the retry budget does not allow, and records it once a second.
    /// Returns the text for the client.
    fn deny_repeat(&mut self, service: ServiceKey, level: Level, out: Out<'_>) -> String {
        let now = self.now;
        let service = &mut self.registry[service];
        service.figures.denied += 1;
        let percent = service.settings.get(ServiceSetting::RetryPercent);
        let min = service.settings.get(ServiceSetting::RetryMin);
        let text = format!(
            "the retry budget is used up: {} of {} repetitions ({percent} % of {} requests, \
             retry_percent, and {min}, retry_min)",
            level.used, level.most, level.fresh
        );
        if service.denial_recorded.is_none_or(|at| now.since(at).as_millis() >= 1000) {
            service.denial_recorded = Some(now);
            let about = About { service: Some(service.name.clone()), ..About::default() };
            let what = format!("service '{}': {text}", service.name);
            self.record(FactKind::RetryDenied, about, what, out);
        }
        format!("; {text}")
    }

    /// Has a request that a worker had wait again, in its place by arrival.
    fn wait_again(&mut self, key: TransactionKey, out: Out<'_>) {
        let client = self.transactions[key].client;
        if client.is_some_and(|client| self.clients[client].is_blocked) {
            self.transactions[key].stage = Stage::Blocked;
        } else {
            self.enqueue(key, out);
        }
    }

    /// Ends a transaction whose worker is gone with an error.
    fn fail_unbound(&mut self, key: TransactionKey, error: ErrorBody, out: Out<'_>) {
        self.transactions[key].stage = Stage::Blocked;
        self.fail(key, error, out);
    }
}
