//! Notes how requests go, for `why`, and decides what is kept of one that ends. The calls stand
//! where requests wait, are given to workers, lose them, and end.

use super::machine::Dispatch;
use super::stage::Stage;
use super::trace::Attempt;
use super::traces::{Kept, Outcome, Standing, TimeLine};
use super::transaction::NEVER;
use crate::engine::catalog::Catalog;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::{TransactionKey, WorkerKey};
use crate::engine::quotas::{LINE_BYTES_MAX, TEXT_BYTES_MAX};
use crate::engine::wall_clock::WallClock;
use protocol::{ErrorBody, Micros, Setting, Settings, Tick, TransactionId, show};

/// Requests of a queue that are looked at to say how many are before one of them.
const LOOKED_AT_MAX: usize = 2048;

/// Whether what became of a request that was answered is kept, and why.
#[inline]
fn is_worth_it(settings: &Settings, id: TransactionId, took: Micros) -> Option<Kept> {
    let slow_ms = settings.get(Setting::TraceSlowMs);
    if slow_ms > 0 && took >= Micros::from_millis(slow_ms) {
        return Some(Kept::Slow);
    }
    let sample = settings.get(Setting::TraceSample);
    (sample > 0 && id.0.is_multiple_of(sample)).then_some(Kept::Sampled)
}

impl Dispatch {
    /// The worker that has or holds a request is lost; `why` goes on after its name.
    pub(super) fn note_lost(
        &mut self,
        key: TransactionKey,
        worker: WorkerKey,
        why: &str,
        now: Tick,
    ) {
        if !self.transactions[key].stage.is_ended() {
            let worker = self.lost_worker(worker, why, now);
            let begun = self.transactions[key].stage.has_begun().then_some(now);
            self.transactions[key].note_lost(Attempt { begun, ..worker });
        }
    }

    /// A worker that is lost, without what differs from request to request.
    pub(super) fn lost_worker(&self, worker: WorkerKey, why: &str, now: Tick) -> Attempt {
        let seat = &self.seats[worker];
        Attempt {
            number: 0,
            worker: seat.id,
            pid: seat.pid,
            host: seat.host.clone(),
            given: now,
            begun: None,
            lost: Some((now, show::brief(why, TEXT_BYTES_MAX))),
        }
    }

    fn present_attempt(&self, key: TransactionKey, worker: WorkerKey) -> Attempt {
        let (transaction, seat) = (&self.transactions[key], &self.seats[worker]);
        Attempt {
            number: transaction.attempt,
            worker: seat.id,
            pid: seat.pid,
            host: seat.host.clone(),
            given: transaction.arrived + transaction.trace.given.into(),
            begun: transaction.stage.has_begun().then_some(transaction.dispatched),
            lost: None,
        }
    }

    /// A worker answered: what became of the request is kept if it was slow or is sampled.
    #[inline]
    pub(super) fn keep_answered(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let transaction = &self.transactions[key];
        let took = cx.now.since(transaction.arrived);
        if let Some(kept) = is_worth_it(cx.settings, transaction.id, took) {
            // A conversation without a deadline is not slow.
            let is_sampled = || is_worth_it(cx.settings, transaction.id, Micros(0)).is_some();
            if kept == Kept::Slow && matches!(transaction.stage, Stage::Parked(_)) && !is_sampled()
            {
                return;
            }
            let outcome = Outcome::Answered { error: transaction.trace.error };
            self.keep_trace(key, (outcome, kept), cx);
        }
    }

    /// A request ends with an error.
    pub(super) fn keep_failed(
        &mut self,
        key: TransactionKey,
        error: &ErrorBody,
        cx: &mut Context<'_>,
    ) {
        let (code, ran) = (error.code, error.ran);
        let text = show::brief(&error.text, LINE_BYTES_MAX);
        self.keep_trace(key, (Outcome::Failed { code, ran, text }, Kept::Failed), cx);
    }

    /// The client of a request is gone.
    pub(super) fn keep_left(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        self.keep_trace(key, (Outcome::Left, Kept::Failed), cx);
    }

    #[cold]
    fn keep_trace(
        &mut self,
        key: TransactionKey,
        (outcome, kept): (Outcome, Kept),
        cx: &mut Context<'_>,
    ) {
        let most = cx.settings.get(Setting::TracesMax);
        if most == 0 {
            return;
        }
        let standing = Standing::Ended { at: cx.now, outcome, kept };
        let line = self.time_line(key, standing, cx.catalog, (cx.now, cx.wall_clock));
        if self.traces.add(line) {
            cx.effects.push(Effect::Traced);
        }
        self.traces.drop_oldest(most, cx.settings.get(Setting::TracesBytesMax));
    }

    /// How a request that is under way has gone so far.
    pub(crate) fn time_line_so_far(
        &self,
        key: TransactionKey,
        catalog: &Catalog,
        (now, wall_clock): (Tick, &WallClock),
    ) -> TimeLine {
        let transaction = &self.transactions[key];
        let standing = match transaction.stage {
            Stage::Waiting => {
                let entry = &self.queues[transaction.service];
                let is_alone = transaction.must_run_alone();
                let queue = if is_alone { &entry.alone } else { &entry.queue };
                let (is_strict, all) = (self.is_strict_priority, &self.transactions);
                let (ahead, is_all) = queue.before(key, is_strict, all, LOOKED_AT_MAX);
                Standing::Waits { ahead, is_all }
            }
            Stage::Blocked => Standing::Blocked,
            Stage::Held(_) => Standing::Held,
            Stage::Bound(_) | Stage::Lost => Standing::Runs,
            Stage::Parked(_) => Standing::Parked,
            Stage::HeldEnded(_) | Stage::Ended(_) | Stage::ParkedEnded(_) | Stage::Gone => {
                Standing::Unheard
            }
        };
        self.time_line(key, standing, catalog, (now, wall_clock))
    }

    fn time_line(
        &self,
        key: TransactionKey,
        standing: Standing,
        catalog: &Catalog,
        (now, wall_clock): (Tick, &WallClock),
    ) -> TimeLine {
        let transaction = &self.transactions[key];
        let trace = &transaction.trace;
        let present = transaction.stage.worker().map(|worker| self.present_attempt(key, worker));
        let values = transaction.values(now);
        TimeLine {
            key,
            transaction: transaction.id,
            service: catalog[transaction.service].name.clone(),
            client: trace.client,
            from: String::new(),
            sequence: transaction.head.sequence,
            trace_id: transaction.head.trace_id,
            priority: transaction.priority,
            received: transaction.received,
            replied: transaction.replied,
            arrived: transaction.arrived,
            wall: wall_clock.wall(transaction.arrived),
            allowed: (transaction.deadline < NEVER)
                .then(|| transaction.deadline.since(transaction.arrived)),
            waited: values.waited.unwrap_or_default(),
            ahead: trace.ahead,
            attempt: transaction.attempt,
            deaths: transaction.deaths.into(),
            attempts: trace
                .earlier
                .iter()
                .flat_map(|all| all.iter())
                .cloned()
                .chain(present)
                .collect(),
            first_piece: trace.replied.map(|after| transaction.arrived + after.into()),
            standing,
        }
    }
}
