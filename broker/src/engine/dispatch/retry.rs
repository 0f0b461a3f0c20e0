//! What becomes of the requests of a worker that is gone: they are given to another worker, set
//! aside as poison, or fail.

use super::machine::Dispatch;
use super::poison::Poison;
use super::retry_budget::Level;
use super::seat::{Availability, Logout};
use super::stage::StageEvent;
use super::transaction::Past;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::had::Had;
use crate::engine::keys::{ServiceKey, TransactionKey, WorkerKey};
use protocol::{ErrorBody, ErrorCode, Ran, ServiceSetting, Setting, TransactionId, WorkerId};
use std::collections::VecDeque;

/// How a worker was lost.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Loss<'a> {
    /// It closed its connection in order: what it held and had not begun never ran.
    pub(crate) is_orderly: bool,
    /// The request that it had may be the cause.
    pub(crate) is_death: bool,
    /// In words, after the name of the worker.
    pub(crate) why: &'a str,
}

impl Dispatch {
    /// The connection of a worker is gone: what becomes of its transactions. Returns what it had.
    pub(crate) fn lose(&mut self, worker: WorkerKey, loss: Loss<'_>, cx: &mut Context<'_>) -> Had {
        let had = self.had(worker, cx);
        let seat = &mut self.seats[worker];
        (seat.link, seat.availability) = (None, Availability::Unavailable);
        let held = std::mem::take(&mut seat.held);
        let parked = std::mem::take(&mut seat.parked);
        let has_logged_out = seat.logout == Logout::Unbegun;
        (seat.taken_away, seat.late_work_since) = (VecDeque::new(), None);
        (seat.logout, seat.overlong) = (Logout::None, None);
        let current = seat.current.take();
        let beside = std::mem::take(&mut seat.beside);
        let (id, service) = (seat.id, seat.service);
        self.arrange(worker, cx);
        // In the order of arrival, which those that are repeated keep. Of a worker that was sent
        // more than one, the first did not cross its logout: it came before the others.
        let is_alone = beside.is_empty();
        for key in current.into_iter().chain(beside.into_iter().map(|(_, key)| key)) {
            self.note_lost(key, worker, loss.why, cx.now);
            if self.transactions[key].stage.is_ended() {
                self.free(key);
            } else if has_logged_out && held.is_empty() {
                self.never_begun(key, (id, loss.why), cx);
            } else {
                let transaction = &mut self.transactions[key];
                // Nobody knows which of several it was.
                transaction.deaths += u32::from(loss.is_death && is_alone);
                if loss.is_death && !is_alone {
                    transaction.past = Past::SentAmongOthers;
                }
                self.lost_with_worker(key, id, Ran::Maybe, loss.why, cx);
            }
        }
        for key in held {
            self.note_lost(key, worker, loss.why, cx.now);
            if self.transactions[key].stage.is_ended() {
                self.free(key);
            } else if loss.is_orderly || has_logged_out {
                // It closed in order, and the one before had no answer yet.
                self.never_begun(key, (id, loss.why), cx);
            } else {
                self.lost_with_worker(key, id, Ran::Maybe, loss.why, cx);
            }
        }
        self.lose_conversations(parked, (worker, service), loss.why, cx);
        self.serve(service, cx);
        had
    }

    /// A worker that is gone or has logged out never began a request that it was sent: that goes to
    /// another one, if it is still in memory.
    pub(super) fn never_begun(
        &mut self,
        key: TransactionKey,
        (worker, why): (WorkerId, &str),
        cx: &mut Context<'_>,
    ) {
        if self.transactions[key].stage.is_ended() {
            self.free(key);
            return;
        }
        if self.transactions[key].was_replied_to() {
            // A part of its reply came, whatever the worker says.
            self.lost_with_worker(key, worker, Ran::Maybe, why, cx);
            return;
        }
        self.transactions[key].attempt -= 1;
        if self.transactions[key].is_whole_in_memory() && self.may_go_on(key, cx) {
            self.wait_again(key, cx);
        } else {
            self.lost_with_worker(key, worker, Ran::No, why, cx);
        }
    }

    fn had(&self, worker: WorkerKey, cx: &Context<'_>) -> Had {
        let seat = &self.seats[worker];
        let work_ms = seat.current.map_or(0, |at| {
            let transaction = &self.transactions[at];
            let left = transaction.deadline.since(cx.now).as_millis();
            match cx.catalog[seat.service].settings.get(ServiceSetting::KillAfterMs) {
                0 => left,
                most => {
                    let end = transaction.dispatched.plus_millis(most);
                    left.min(end.since(cx.now).as_millis())
                }
            }
        });
        Had { is_busy: seat.current.is_some(), work_ms, has_answered: seat.has_answered }
    }

    /// Whether there is time for it, and a service that takes it.
    fn may_go_on(&self, key: TransactionKey, cx: &Context<'_>) -> bool {
        let transaction = &self.transactions[key];
        transaction.deadline > cx.now
            && !cx.catalog[transaction.service].is_stopped
            && !cx.is_shutting_down
    }

    /// Whether a request whose worker was lost may be repeated, apart from the retry budget.
    fn is_worth_repeating(&self, key: TransactionKey, cx: &Context<'_>) -> bool {
        let transaction = &self.transactions[key];
        let settings = &cx.catalog[transaction.service].settings;
        transaction.is_whole_in_memory()
            && transaction.may_repeat(settings)
            && self.may_go_on(key, cx)
    }

    /// A request was lost with its worker, or with the worker's connection: it is set aside as
    /// poison, repeated, or failed.
    fn lost_with_worker(
        &mut self,
        key: TransactionKey,
        worker: WorkerId,
        ran: Ran,
        why: &str,
        cx: &mut Context<'_>,
    ) {
        let transaction = &self.transactions[key];
        let service = &cx.catalog[transaction.service];
        let queue = &self.queues[transaction.service];
        let level = queue.retry_budget_level(&service.settings, cx.now);
        let deaths = transaction.deaths;
        let about = About {
            service: Some(service.name.clone()),
            transaction: Some(transaction.id),
            worker: Some(worker),
            values: transaction.values(cx.now),
            ..About::default()
        };
        if self.transactions[key].is_whole_in_memory()
            && u64::from(deaths) >= service.settings.get(ServiceSetting::PoisonDeaths)
        {
            let text = format!(
                "{deaths} workers died of transaction {}; its bytes are kept ('poison')",
                transaction.id
            );
            let client = transaction.client.map(|client| self.callers[client].id);
            let poison = Poison::of(transaction, client, service.name.clone(), cx.now);
            self.keep_poison(poison, cx);
            cx.record(FactKind::RequestPoison, about, text.clone());
            let error = ErrorBody::new(ErrorCode::Poison, text).with_ran(Ran::Maybe);
            self.fail_lost(key, error, cx);
        } else if self.is_worth_repeating(key, cx) && level.has_room() {
            let text = format!(
                "transaction {} is given to another worker (attempt {})",
                transaction.id,
                transaction.attempt + 1
            );
            let queue = &mut self.queues[transaction.service];
            queue.figures.retried += 1;
            queue.retry_budget.repeat(cx.now);
            cx.record(FactKind::RequestRetried, about, text);
            self.wait_again(key, cx);
        } else {
            let mut text = format!(
                "worker {worker} of service '{}' {why} while it had the request",
                service.name
            );
            let service = transaction.service;
            if self.is_worth_repeating(key, cx) {
                text += &self.deny_repeat(service, level, cx);
            }
            self.fail_lost(key, ErrorBody::new(ErrorCode::WorkerDied, text).with_ran(ran), cx);
        }
    }

    /// Counts a repetition that the retry budget does not allow, and records it once a second.
    /// Returns the text for the client.
    fn deny_repeat(&mut self, key: ServiceKey, level: Level, cx: &mut Context<'_>) -> String {
        let queue = &mut self.queues[key];
        queue.figures.denied += 1;
        let service = &cx.catalog[key];
        let percent = service.settings.get(ServiceSetting::RetryPercent);
        let min = service.settings.get(ServiceSetting::RetryMin);
        let text = format!(
            "the retry budget is used up: {} of {} repetitions ({percent} % of {} requests, \
             retry_percent, and {min}, retry_min)",
            level.used, level.most, level.fresh
        );
        if queue.denial_recorded.is_none_or(|at| cx.now.since(at).as_millis() >= 1000) {
            queue.denial_recorded = Some(cx.now);
            let about = About { service: Some(service.name.clone()), ..About::default() };
            let what = format!("service '{}': {text}", service.name);
            cx.record(FactKind::RetryDenied, about, what);
        }
        format!("; {text}")
    }

    /// Has a request that a worker had wait again, in its place by arrival.
    fn wait_again(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let transaction = &mut self.transactions[key];
        transaction.enter(StageEvent::Repeat);
        if transaction.kept_bytes == 0 {
            transaction.kept_bytes = transaction.body.len() as u64;
            self.queue_bytes += transaction.kept_bytes;
        }
        let client = self.transactions[key].client;
        if client.is_some_and(|client| self.callers[client].is_blocked) {
            self.block(key);
        } else {
            self.enqueue(key, cx);
        }
    }

    /// Ends a transaction whose worker is gone with an error.
    fn fail_lost(&mut self, key: TransactionKey, error: ErrorBody, cx: &mut Context<'_>) {
        self.transactions[key].enter(StageEvent::Lose);
        self.fail(key, error, cx);
    }

    /// Keeps a request. Beyond `poison_max`, the oldest is dropped.
    pub(super) fn keep_poison(&mut self, poison: Poison, cx: &mut Context<'_>) {
        self.totals.poisoned += 1;
        if poison.client.is_some() {
            cx.effects.push(Effect::Poisoned { transaction: poison.transaction });
        }
        self.poison.push_back(poison);
        self.drop_poison(cx.settings.get(Setting::PoisonMax));
    }

    /// Keeps at most `max` of them.
    pub(crate) fn drop_poison(&mut self, max: u64) {
        while self.poison.len() as u64 > max {
            self.poison.pop_front();
        }
    }

    /// Names who sent the request of a transaction that was set aside just now.
    pub(crate) fn name_poison(&mut self, transaction: TransactionId, from: String) {
        let mut all = self.poison.iter_mut().rev();
        if let Some(poison) = all.find(|poison| poison.transaction == transaction) {
            poison.from = from;
        }
    }
}
