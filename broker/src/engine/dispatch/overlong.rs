//! Workers that are busy with one request for too long (`kill_after_ms`).

use super::machine::Dispatch;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::WorkerKey;
use protocol::{ErrorBody, ErrorCode, Ran, ServiceSetting, Setting, Tick};

impl Dispatch {
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
        if self.asks_to_end_first((worker, transaction), limit_ms, cx) {
            return;
        }
        let what = format!(
            "is busy with transaction {transaction}{how} for more than {limit_ms} ms \
             (kill_after_ms) and is killed"
        );
        cx.effects.push(Effect::Overlong { worker, what });
    }

    /// A worker has had a transaction for too long. One that has others beside it is not killed at
    /// once: it is told that nobody waits for the late one any more, if it understands that, gets
    /// no further request, and the others have `stop_ask_ms` to be answered. Returns whether that
    /// is so.
    fn asks_to_end_first(
        &mut self,
        (worker, transaction): (WorkerKey, u64),
        limit_ms: u64,
        cx: &mut Context<'_>,
    ) -> bool {
        let seat = &mut self.seats[worker];
        let Some(key) = seat.current.filter(|&at| self.transactions[at].id.0 == transaction) else {
            return false;
        };
        if seat.overlong == Some(key) || seat.running() == 1 {
            return false;
        }
        seat.overlong = Some(key);
        let id = seat.id;
        self.arrange(worker, cx);
        let text = format!("worker {id} has it for more than {limit_ms} ms (kill_after_ms)");
        if self.seats[worker].announced.hears_cancel && !self.transactions[key].stage.is_ended() {
            self.fail(key, ErrorBody::new(ErrorCode::Deadline, text).with_ran(Ran::Maybe), cx);
        }
        let wait = cx.settings.get(Setting::StopAskMs);
        self.watch_overlong(worker, cx.now.plus_millis(wait), cx);
        true
    }
}
