//! Start failures: a host can't start a process for good, or for now, or because it is at a limit
//! of its own. `process` handles the ends of processes that did start.

use super::machine::Supervision;
use super::process_state::ProcessEvent;
use super::run::ExpectedEnd;
use super::workers::WorkerEnd;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::FactKind;
use crate::engine::keys::WorkerKey;
use crate::engine::quotas::LINE_BYTES_MAX;
use crate::engine::timers::Timer;
use protocol::bodies::ExecFailed;
use protocol::show;

/// Longest time in milliseconds that a host may put off a start; then it is asked again.
const AGAIN_MS_MAX: u64 = 60_000;

impl Supervision {
    pub(crate) fn on_start_failed(
        &mut self,
        key: WorkerKey,
        failed: &ExecFailed,
        cx: &mut Context<'_>,
    ) {
        let worker = &self.workers[key];
        if !worker.state.has_process() {
            return;
        }
        let is_stopping = worker.run.expected_end == ExpectedEnd::Stop;
        // Shortened, because it is kept and shown in each list of workers.
        let said = show::brief(&failed.text, LINE_BYTES_MAX);
        if failed.permanent && worker.is_wanted {
            self.workers[key].gone(cx.now);
            self.workers[key].last_end = WorkerEnd::Failed;
            self.give_up(key, said, "", cx);
        } else if failed.again_ms > 0 && worker.is_wanted && !is_stopping {
            self.put_off(key, failed, said, cx);
        } else {
            self.ended_so(key, format!("it could not be started: {said}"), cx);
        }
        // It may have logged in and had requests before its host said so.
        cx.effects.push(Effect::Ended { worker: key });
    }

    /// The host is busy and said when to ask again. This is no end of the worker: it counts neither
    /// for its backoff nor as a failure.
    fn put_off(&mut self, key: WorkerKey, failed: &ExecFailed, said: String, cx: &mut Context<'_>) {
        let wait_ms = failed.again_ms.min(AGAIN_MS_MAX);
        let worker = &mut self.workers[key];
        worker.gone(cx.now);
        worker.enter(ProcessEvent::Wait, cx.now);
        let what = format!("is put off for {wait_ms} ms: {said}");
        worker.why = said;
        self.update_available(key, cx);
        let at = cx.now.plus_millis(wait_ms);
        self.workers[key].restart.put_off(at);
        cx.timers.add(at, Timer::Restart(failed.worker, failed.run));
        self.worker_fact(FactKind::WorkerRestart, key, &what, cx);
    }

    /// Marks a worker as failed until `start`. `cure` is further advice, and begins with "; ".
    pub(crate) fn give_up(
        &mut self,
        key: WorkerKey,
        why: String,
        cure: &str,
        cx: &mut Context<'_>,
    ) {
        let id = self.workers[key].id;
        let what = match self.try_later(key, cx) {
            None => format!("is failed: {why}; 'start {id}' tries again{cure}"),
            Some(at) => {
                let wait_ms = at.since(cx.now).as_millis();
                format!("is failed: {why}; it is started on demand, again in {wait_ms} ms{cure}")
            }
        };
        self.workers[key].failed = Some(why + cure);
        self.workers[key].since = cx.now;
        self.update_available(key, cx);
        self.ask_anew(self.workers[key].service, cx);
        self.worker_fact(FactKind::WorkerFailed, key, &what, cx);
    }
}
