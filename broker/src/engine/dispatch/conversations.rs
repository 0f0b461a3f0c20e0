//! Replies that go on: a deadline that the worker puts off, and conversations without a deadline
//! (`open_ended`), which take no room in their worker, on which locks and watches stand.

use super::machine::Dispatch;
use super::service_queue::LostConversations;
use super::stage::{Stage, StageEvent};
use super::transaction::NEVER;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::{ServiceKey, TransactionKey, WorkerKey};
use protocol::header::FLAG_EXTENDABLE;
use protocol::limits::DEADLINE_MS_MAX;
use protocol::{ErrorBody, ErrorCode, Ran, ServiceSetting, Setting, Tick, TransactionId};
use std::collections::{BTreeMap, VecDeque};
use std::ops::Bound;

/// Most conversations that end in one step because their worker is gone or drained.
const ENDED_MAX: usize = 256;

impl Dispatch {
    /// A worker sent a part of a reply, and `deadline_ms` with it. Returns whether the part may be
    /// passed on.
    pub(super) fn goes_on(
        &mut self,
        (key, worker): (TransactionKey, WorkerKey),
        deadline_ms: u32,
        cx: &mut Context<'_>,
    ) -> bool {
        let transaction = &mut self.transactions[key];
        transaction.trace.piece_came(transaction.arrived, cx.now);
        let transaction = &self.transactions[key];
        let settings = &cx.catalog[transaction.service].settings;
        if matches!(transaction.stage, Stage::Parked(_)) && transaction.has_deadline() {
            // It was owed, and came.
            self.wheel.remove(key);
            self.transactions[key].deadline = NEVER;
            return true;
        }
        let is_bound = matches!(transaction.stage, Stage::Bound(_));
        if is_bound
            && settings.get(ServiceSetting::OpenEnded) > 0
            && transaction.head.reply != 0
            && transaction.is_complete
        {
            return self.park(key, worker, cx);
        }
        if is_bound && deadline_ms > 0 && transaction.head.flags & FLAG_EXTENDABLE != 0 {
            let most = transaction.arrived.plus_millis(DEADLINE_MS_MAX);
            let deadline = cx.now.plus_millis(deadline_ms.into()).min(most);
            self.wheel.remove(key);
            self.wheel.insert(key, deadline);
            self.transactions[key].deadline = deadline;
        }
        true
    }

    /// Milliseconds that are left of a deadline that its worker may put off; 0 = it may not.
    pub(super) fn extended_by(&self, key: TransactionKey, now: Tick) -> u32 {
        let transaction = &self.transactions[key];
        if transaction.head.flags & FLAG_EXTENDABLE == 0 || !transaction.has_deadline() {
            return 0;
        }
        let left = transaction.deadline.since(now).as_millis().max(1);
        u32::try_from(left).unwrap_or(u32::MAX)
    }

    /// A conversation loses its deadline, and takes no room in its worker from now on. Returns
    /// whether it may.
    fn park(&mut self, key: TransactionKey, worker: WorkerKey, cx: &mut Context<'_>) -> bool {
        if let Err(text) = self.may_park(key, cx) {
            let code = ErrorCode::ConversationRefused;
            self.fail(key, ErrorBody::new(code, text).with_ran(Ran::Maybe), cx);
            return false;
        }
        let transaction = &mut self.transactions[key];
        transaction.enter(StageEvent::Park);
        transaction.deadline = NEVER;
        let (id, service) = (transaction.id, transaction.service);
        if let Some(client) = transaction.client {
            self.callers[client].parked += 1;
        }
        self.wheel.remove(key);
        self.release_bytes(key, cx);
        self.queues[service].parked += 1;
        let seat = &mut self.seats[worker];
        seat.give_up(key);
        seat.parked.insert(id, key);
        let is_draining = !seat.is_available();
        self.next_for(worker, cx);
        if is_draining {
            self.seats[worker].ended_up_to = TransactionId(0);
            self.end_conversations(worker, cx);
        }
        true
    }

    /// Whether a conversation without a deadline may begin.
    ///
    /// # Errors
    /// Says why not.
    fn may_park(&self, key: TransactionKey, cx: &Context<'_>) -> Result<(), String> {
        let transaction = &self.transactions[key];
        let service = &cx.catalog[transaction.service];
        let of_service = service.settings.get(ServiceSetting::ConversationsMax);
        if self.queues[transaction.service].parked as u64 >= of_service {
            return Err(format!(
                "service '{}' has {of_service} of {of_service} conversations without a deadline \
                 (conversations_max of the service)",
                service.name
            ));
        }
        let Some(caller) = transaction.client.map(|client| &self.callers[client]) else {
            return Err("its client is gone".to_owned());
        };
        if caller.is_half_closed {
            return Err("its client has shut its side, and can't end it".to_owned());
        }
        if !caller.has_heartbeat {
            return Err(format!(
                "service '{}' holds conversations without a deadline (open_ended), and its client \
                 has not promised to answer pings ('heartbeat yes' in its login)",
                service.name
            ));
        }
        let of_client = cx.settings.get(Setting::ConversationsMax);
        if caller.parked as u64 >= of_client {
            return Err(format!(
                "client {} has {of_client} of {of_client} conversations without a deadline \
                 (conversations_max of the broker)",
                caller.id
            ));
        }
        Ok(())
    }

    /// The client of a parked conversation has sent a frame without `more`: its worker owes the
    /// next one, within the deadline of the service.
    pub(super) fn expect_frame(&mut self, key: TransactionKey, cx: &Context<'_>) {
        let transaction = &mut self.transactions[key];
        if !transaction.has_deadline() {
            let settings = &cx.catalog[transaction.service].settings;
            let deadline = cx.now.plus_millis(settings.get(ServiceSetting::DeadlineMs));
            transaction.deadline = deadline;
            self.wheel.insert(key, deadline);
        }
    }

    /// A conversation without a deadline is no more with its worker.
    pub(super) fn unpark(&mut self, key: TransactionKey, worker: WorkerKey) {
        let transaction = &self.transactions[key];
        self.queues[transaction.service].parked -= 1;
        self.seats[worker].parked.remove(&transaction.id);
    }

    /// The conversations of a worker that is drained end; if they are many, part by part.
    pub(super) fn end_conversations(&mut self, worker: WorkerKey, cx: &mut Context<'_>) {
        let seat = &self.seats[worker];
        let entry = &mut self.queues[seat.service];
        if seat.parked.is_empty() || entry.draining.contains(&worker) {
            return;
        }
        entry.draining.push_back(worker);
        let service = seat.service;
        self.end_some(service, cx);
    }

    /// The conversations without a deadline of a worker that is gone end; if they are many, part by
    /// part.
    pub(super) fn lose_conversations(
        &mut self,
        parked: BTreeMap<TransactionId, TransactionKey>,
        (worker, service): (WorkerKey, ServiceKey),
        why: &str,
        cx: &mut Context<'_>,
    ) {
        if parked.is_empty() {
            return;
        }
        self.queues[service].parked -= parked.len();
        let name = &cx.catalog[service].name;
        let worker = self.lost_worker(worker, why, cx.now);
        let text =
            format!("worker {} of service '{name}' {why} in the conversation", worker.worker);
        let mut left = VecDeque::with_capacity(parked.len());
        for (id, key) in parked {
            if self.transactions[key].stage.is_ended() {
                self.free(key);
                continue;
            }
            let transaction = &mut self.transactions[key];
            transaction.enter(StageEvent::Lose);
            if let Some(client) = transaction.client {
                self.callers[client].parked -= 1;
            }
            left.push_back((id, key));
        }
        self.queues[service].lost.push_back(LostConversations { text, worker, left });
        self.end_some(service, cx);
    }

    /// What is left of long work for a service: conversations that end, and requests that are given
    /// to workers.
    pub(crate) fn serve_next(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        self.end_some(service, cx);
        self.serve(service, cx);
    }

    /// Ends some of the conversations of workers that are gone or drained.
    fn end_some(&mut self, service: ServiceKey, cx: &mut Context<'_>) {
        for _ in 0..ENDED_MAX {
            if let Some(lost) = self.queues[service].lost.front_mut() {
                let Some((id, key)) = lost.left.pop_front() else {
                    self.queues[service].lost.pop_front();
                    continue;
                };
                let error = ErrorBody::new(ErrorCode::WorkerDied, lost.text.as_str());
                if self.transactions.get(key).is_some_and(|t| t.id == id) {
                    let worker = lost.worker.clone();
                    self.transactions[key].note_lost(worker);
                    self.fail(key, error, cx);
                }
            } else if let Some(&worker) = self.queues[service].draining.front() {
                if !self.end_next(worker, cx) {
                    self.queues[service].draining.pop_front();
                }
            } else {
                return;
            }
        }
        cx.effects.push(Effect::Serve { service });
    }

    /// Ends the next conversation of a worker that is drained; `false` = there is none.
    fn end_next(&mut self, worker: WorkerKey, cx: &mut Context<'_>) -> bool {
        let Some(seat) = self.seats.get(worker).filter(|seat| !seat.is_available()) else {
            return false;
        };
        // Those that have ended stay until the worker's last frame: the others are behind them.
        let from = seat.ended_up_to;
        let next = seat.parked.range((Bound::Excluded(from), Bound::Unbounded)).next();
        let Some((&id, &key)) = next else { return false };
        let text =
            format!("worker {} is drained, stopped or restarted, or has logged out", seat.id);
        self.seats[worker].ended_up_to = id;
        if !self.transactions[key].stage.is_ended() {
            self.fail(key, ErrorBody::new(ErrorCode::ConversationEnded, text), cx);
        }
        true
    }
}
