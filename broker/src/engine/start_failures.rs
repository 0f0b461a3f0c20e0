//! Start failures: a host can't start a process for good, or for now, or because it is at a limit
//! of its own. `process` handles the ends of processes that did start.

use super::due::Due;
use super::fact::FactKind;
use super::keys::WorkerKey;
use super::quotas::LINE_BYTES_MAX;
use super::workers::ProcessState;
use super::{Engine, Out};
use protocol::bodies::ExecFailed;
use protocol::show;

/// Longest time in milliseconds that a host may put off a start; then it is asked again.
const AGAIN_MS_MAX: u64 = 60_000;

impl Engine {
    /// Handles the report that a process could not be started.
    pub(crate) fn on_start_failed(&mut self, key: WorkerKey, failed: &ExecFailed, out: Out<'_>) {
        let worker = &self.workers[key];
        if !worker.state.has_process() {
            return;
        }
        // Shortened, because it is kept and shown in each list of workers.
        let said = show::brief(&failed.text, LINE_BYTES_MAX);
        if failed.permanent && worker.is_wanted {
            self.workers[key].enter(ProcessState::Down, self.now);
            self.give_up(key, said, "", out);
        } else if failed.again_ms > 0 && worker.is_wanted && !worker.is_stopping {
            self.put_off(key, failed, said, out);
        } else {
            self.ended_so(key, format!("it could not be started: {said}"), out);
        }
    }

    /// The host is busy and said when to ask again. This is no end of the worker: it counts neither
    /// for its backoff nor as a failure.
    fn put_off(&mut self, key: WorkerKey, failed: &ExecFailed, said: String, out: Out<'_>) {
        let wait_ms = failed.again_ms.min(AGAIN_MS_MAX);
        let worker = &mut self.workers[key];
        worker.enter(ProcessState::Backoff, self.now);
        let what = format!("is put off for {wait_ms} ms: {said}");
        worker.why = said;
        worker.pid = 0;
        self.settle(key);
        self.due.add(self.now.plus_millis(wait_ms), Due::Restart(failed.worker, failed.run));
        self.worker_fact(FactKind::WorkerRestart, key, &what, out);
    }

    /// Marks a worker as failed until `start`. `cure` is further advice, and begins with "; ".
    pub(crate) fn give_up(&mut self, key: WorkerKey, why: String, cure: &str, out: Out<'_>) {
        let id = self.workers[key].id;
        let what = format!("is failed: {why}; 'start {id}' tries again{cure}");
        self.workers[key].failed = Some(why + cure);
        self.workers[key].since = self.now;
        self.settle(key);
        self.worker_fact(FactKind::WorkerFailed, key, &what, out);
    }
}
