//! What `dispatch` knows of one service: who waits, which workers can take a request, how fast it
//! gets on, and its figures.

use super::histogram::Histogram;
use super::queue::Queue;
use super::retry_budget::{Level, RetryBudget};
use super::service_rate::ServiceRate;
use super::trace::Attempt;
use super::turns::Turns;
use crate::engine::keys::{TransactionKey, WorkerKey};
use crate::engine::no_worker::NoWorker;
use protocol::{ErrorCode, ServiceSetting, ServiceSettings, Tick, TransactionId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Counters and histograms of a service since the start or the last `reset`.
#[derive(Debug, Default)]
pub(crate) struct ServiceFigures {
    /// Requests answered by a worker.
    pub(crate) completed: u64,
    /// Requests that ended with an error, or were refused with one, by its code.
    pub(crate) failed: BTreeMap<ErrorCode, u64>,
    /// Requests given to another worker after one died.
    pub(crate) retried: u64,
    /// Requests not given to another worker because the retry budget was used up.
    pub(crate) denied: u64,
    /// Replies dropped because the transaction had ended already.
    pub(crate) late: u64,
    /// Microseconds from arrival to dispatch.
    pub(crate) wait: Histogram,
    /// Microseconds from dispatch to the final reply.
    pub(crate) run: Histogram,
}

impl ServiceFigures {
    /// Whether the service had any request, so that there are figures to show.
    pub(crate) fn was_asked(&self) -> bool {
        self.wait.count() > 0 || self.run.count() > 0 || !self.failed.is_empty()
    }

    /// Begins anew with zeros.
    pub(super) fn reset(&mut self) {
        (self.completed, self.late) = (0, 0);
        (self.retried, self.denied) = (0, 0);
        self.failed.clear();
        self.wait.reset();
        self.run.reset();
    }
}

/// What a worker that is gone leaves behind, if it had more conversations than end in one step.
#[derive(Debug)]
pub(super) struct LostConversations {
    /// The text of the error.
    pub(super) text: String,
    /// The worker, as `why` shows it.
    pub(super) worker: Attempt,
    /// Those that are left; some may have ended otherwise.
    pub(super) left: VecDeque<(TransactionId, TransactionKey)>,
}

/// The requests of a service that wait, and the workers that can take one.
#[derive(Debug, Default)]
pub(crate) struct ServiceQueue {
    /// The requests that wait, without those in `alone`.
    pub(crate) queue: Queue,
    /// The requests that wait for a worker that has no other one: their worker died while it had
    /// several.
    pub(crate) alone: Queue,
    /// The worker that gets none until it can take the first of `alone`.
    pub(super) reserved: Option<WorkerKey>,
    /// Its idle workers, longest idle first.
    pub(crate) idle: Turns,
    /// Its busy workers that may be given a further request (`concurrency`), in turn.
    pub(crate) room: Turns,
    /// Its busy workers that may hold a further request (`prefetch`), in turn.
    pub(crate) ahead: Turns,
    /// Its conversations without a deadline (`open_ended`).
    pub(crate) parked: usize,
    /// Conversations that are still to get their error, because their worker is gone.
    pub(super) lost: VecDeque<LostConversations>,
    /// Workers that are drained, and whose conversations are still to be ended.
    pub(super) draining: VecDeque<WorkerKey>,
    /// Why no worker can come that takes what waits, for the clients; `None` = one may.
    pub(super) no_worker: Option<NoWorker>,
    /// Its workers are down, and to be asked for when a request waits (`start=demand`). Independent
    /// of `no_worker`: they may come.
    pub(super) is_down_until_asked: bool,
    /// When a request of it last ended.
    pub(crate) used: Tick,
    /// All its workers.
    pub(super) workers: BTreeSet<WorkerKey>,
    /// How many of its workers are busy.
    pub(crate) busy: usize,
    /// How many clients are attached to it.
    pub(crate) callers: usize,
    /// What became of its requests.
    pub(crate) figures: ServiceFigures,
    /// What one that is completed counts in the buckets of all services: 1, and 0 of a built-in
    /// service.
    pub(super) bucket_step: u64,
    /// When refusals were last made a fact: one a second.
    pub(super) overload_recorded: Option<Tick>,
    /// Speed at which requests leave the queue, for early rejection.
    pub(super) rate: ServiceRate,
    /// How many requests may be repeated.
    pub(super) retry_budget: RetryBudget,
    /// When a repetition that was denied was last made a fact: one a second.
    pub(super) denial_recorded: Option<Tick>,
}

impl ServiceQueue {
    /// How many requests wait.
    pub(crate) const fn waiting(&self) -> usize {
        self.queue.count() + self.alone.count()
    }

    /// Whether a worker may take what waits, or is to be reserved for it.
    pub(super) const fn may_serve(&self) -> bool {
        !self.idle.is_empty()
            || !self.room.is_empty()
            || !self.ahead.is_empty()
            || self.alone.count() > 0
    }

    /// The queue of a request that waits.
    pub(super) const fn queue_of(&mut self, must_run_alone: bool) -> &mut Queue {
        if must_run_alone { &mut self.alone } else { &mut self.queue }
    }

    /// How the retry budget stands, by the settings of the service.
    pub(crate) fn retry_budget_level(&self, settings: &ServiceSettings, now: Tick) -> Level {
        let percent = settings.get(ServiceSetting::RetryPercent);
        let min = settings.get(ServiceSetting::RetryMin);
        let mut budget = self.retry_budget;
        budget.level(now, percent, min)
    }
}
