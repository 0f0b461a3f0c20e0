//! Clients come, go, are blocked, get another priority or another service: what that means for
//! their requests.

use super::caller::Caller;
use super::machine::Dispatch;
use super::stage::{Stage, StageEvent};
use crate::engine::context::Context;
use crate::engine::keys::{ClientKey, ServiceKey, TransactionKey};
use protocol::{ClientId, ErrorBody, ErrorCode, LinkId};
use std::collections::BTreeSet;

impl Dispatch {
    /// A client logged in to a service.
    pub(crate) fn attach(
        &mut self,
        key: ClientKey,
        (id, link): (ClientId, LinkId),
        place: (ServiceKey, u8),
        promised: (u64, bool),
    ) {
        self.queues[place.0].callers += 1;
        self.callers.insert(key, Caller::new(id, link, place, promised));
    }

    /// Removes a client whose link is gone: its waiting requests are removed, those with a worker
    /// go on without it.
    pub(crate) fn detach(&mut self, key: ClientKey, cx: &mut Context<'_>) {
        for transaction in self.under_way(key) {
            self.client_left(transaction, cx);
        }
        if let Some(caller) = self.callers.remove(key) {
            self.queues[caller.service].callers -= 1;
        }
    }

    /// A request waits in no queue, because its client is blocked.
    pub(super) fn block(&mut self, key: TransactionKey) {
        let transaction = &mut self.transactions[key];
        transaction.enter(StageEvent::Block);
        self.blocked.insert((transaction.service, transaction.id), key);
    }

    fn under_way(&self, client: ClientKey) -> Vec<TransactionKey> {
        self.callers[client].in_flight.keys().collect()
    }

    /// Carries out `block` and `unblock`: the client's waiting requests leave the queue, or return
    /// to their places in it.
    pub(crate) fn set_blocked(&mut self, key: ClientKey, is_blocked: bool, cx: &mut Context<'_>) {
        if self.callers[key].is_blocked == is_blocked {
            return;
        }
        self.callers[key].is_blocked = is_blocked;
        let mut services = BTreeSet::new();
        for at in self.under_way(key) {
            let service = self.transactions[at].service;
            match (self.transactions[at].stage, is_blocked) {
                (Stage::Waiting, true) => {
                    self.take_out_of_queue(at, cx);
                    self.block(at);
                }
                (Stage::Blocked, false) => {
                    self.blocked.remove(&(service, self.transactions[at].id));
                    self.transactions[at].enter(StageEvent::Unblock);
                    self.add_to_queue(at);
                    services.insert(service);
                }
                // With a worker, which goes on.
                (_, true | false) => {}
            }
        }
        for service in services {
            self.serve(service, cx);
            self.ask_if_waiting(service, cx);
        }
    }

    /// Carries out `pri`: the new priority also counts for waiting requests that have none of their
    /// own.
    pub(crate) fn set_priority(&mut self, key: ClientKey, priority: u8, cx: &mut Context<'_>) {
        self.callers[key].priority = priority;
        for at in self.under_way(key) {
            if self.transactions[at].head.priority != 0 {
                continue;
            }
            let is_waiting = self.transactions[at].stage == Stage::Waiting;
            if is_waiting {
                self.take_out_of_queue(at, cx);
            }
            self.transactions[at].priority = priority;
            if is_waiting {
                self.add_to_queue(at);
            }
        }
    }

    /// Carries out `service`: later requests and those that wait go to the new service; one that a
    /// worker has stays there.
    pub(crate) fn move_client(
        &mut self,
        key: ClientKey,
        service: ServiceKey,
        cx: &mut Context<'_>,
    ) {
        let before = std::mem::replace(&mut self.callers[key].service, service);
        self.queues[before].callers -= 1;
        self.queues[service].callers += 1;
        for at in self.under_way(key) {
            let (stage, from) = (self.transactions[at].stage, self.transactions[at].service);
            if !stage.waits() {
                continue;
            }
            if cx.catalog[service].is_stopped {
                let name = &cx.catalog[service].name;
                let text = format!("its client was moved to service '{name}', which is stopped");
                self.fail(at, ErrorBody::new(ErrorCode::ServiceStopped, text), cx);
            } else if stage == Stage::Waiting {
                self.take_out_of_queue(at, cx);
                self.transactions[at].service = service;
                self.add_to_queue(at);
            } else {
                let id = self.transactions[at].id;
                self.blocked.remove(&(from, id));
                self.blocked.insert((service, id), at);
                self.transactions[at].service = service;
            }
        }
        self.serve(service, cx);
        self.ask_if_waiting(service, cx);
    }
}
