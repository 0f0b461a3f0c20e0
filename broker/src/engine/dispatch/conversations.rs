//! Replies that go on: a deadline that the worker puts off, and conversations without a deadline
//! (`open_ended`), which take no room in their worker, on which locks and watches stand.

use super::machine::Dispatch;
use super::stage::{Stage, StageEvent};
use super::transaction::NEVER;
use crate::engine::context::Context;
use crate::engine::keys::{TransactionKey, WorkerKey};
use protocol::header::FLAG_EXTENDABLE;
use protocol::limits::DEADLINE_MS_MAX;
use protocol::{ErrorBody, ErrorCode, Ran, ServiceSetting, Setting, Tick};

impl Dispatch {
    /// A worker sent a part of a reply, and `deadline_ms` with it. Returns whether the part may be
    /// passed on.
    pub(super) fn goes_on(
        &mut self,
        (key, worker): (TransactionKey, WorkerKey),
        deadline_ms: u32,
        cx: &mut Context<'_>,
    ) -> bool {
        let transaction = &self.transactions[key];
        let settings = &cx.catalog[transaction.service].settings;
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
            self.fail(key, ErrorBody { code, ran: Ran::Maybe, text }, cx);
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

    /// A conversation without a deadline is no more with its worker.
    pub(super) fn unpark(&mut self, key: TransactionKey, worker: WorkerKey) {
        let transaction = &self.transactions[key];
        self.queues[transaction.service].parked -= 1;
        self.seats[worker].parked.remove(&transaction.id);
    }

    /// The conversations of a worker that is drained end.
    pub(super) fn end_conversations(&mut self, worker: WorkerKey, cx: &mut Context<'_>) {
        let seat = &self.seats[worker];
        if seat.parked.is_empty() {
            return;
        }
        let text = format!("worker {} is drained, stopped or restarted", seat.id);
        let error = ErrorBody::new(ErrorCode::ConversationEnded, text);
        for key in seat.parked().collect::<Vec<_>>() {
            if !self.transactions[key].stage.is_ended() {
                self.fail(key, error.clone(), cx);
            }
        }
    }
}
