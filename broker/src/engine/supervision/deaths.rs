//! What is told of an unexpected end of a worker's process, for the black box.

use super::machine::Supervision;
use super::restart::Decision;
use super::run::{ExpectedEnd, RunOrigin};
use crate::engine::context::Context;
use crate::engine::death::{Death, ProcessReport};
use crate::engine::effect::Effect;
use crate::engine::keys::WorkerKey;
use protocol::bodies::ExecExited;
use protocol::{Micros, Setting};

impl Supervision {
    /// Whether a worker whose connection is about to be lost may have died: it is not asked to
    /// end, or was killed for a fault, and it has a process that a host watches.
    pub(crate) fn may_die(&self, key: WorkerKey) -> bool {
        let worker = &self.workers[key];
        let is_stopped = worker.run.expected_end == ExpectedEnd::Stop;
        // A login that was found not to be valid has no process any more; a further one may be
        // starting already.
        worker.state.has_process()
            && worker.has_connection_of_run()
            && !worker.is_self_started
            && (!is_stopped || worker.run.killed.is_some())
    }

    /// Notes what a host said of the end of a worker's process.
    pub(super) fn note_report(&mut self, key: WorkerKey, exited: &ExecExited) {
        let run = &mut self.workers[key].run;
        run.report = Some(ProcessReport {
            pid: if exited.pid == 0 { run.pid } else { exited.pid },
            exit_cause: exited.exit_cause,
            cpu_ms: exited.cpu_ms,
            rss_kib_max: exited.rss_kib_max,
            has_core: exited.core,
            is_oom: exited.oom,
        });
    }

    /// Gives an unexpected end of a process its number. `None` = there was no process, or no death
    /// is kept.
    pub(super) fn number_death(&mut self, key: WorkerKey, cx: &Context<'_>) -> Option<u64> {
        self.workers[key].run.report?;
        if cx.settings.get(Setting::DeathsMax) == 0 {
            return None;
        }
        self.deaths += 1;
        Some(self.deaths)
    }

    /// What a fact about an end says of its death.
    pub(super) fn death_words(&self, key: WorkerKey, id: Option<u64>) -> String {
        match id {
            Some(id) if self.workers[key].run.was_busy => format!("; death {id} has its request"),
            Some(id) => format!("; death {id}"),
            None => String::new(),
        }
    }

    /// Tells of an unexpected end, and of what follows.
    pub(super) fn tell_death(
        &self,
        key: WorkerKey,
        (id, ran): (Option<u64>, Micros),
        (how, decision): (&str, &Decision),
        cx: &mut Context<'_>,
    ) {
        let worker = &self.workers[key];
        let (Some(id), Some(report)) = (id, worker.run.report) else { return };
        let follows = match decision {
            Decision::Now => "is started again at once".to_owned(),
            Decision::At(at) => {
                format!("is started again in {} ms", at.since(cx.now).as_millis())
            }
            Decision::GiveUp(why) => format!("is not started again: {why}"),
        };
        let own = worker.tail.len().saturating_sub(worker.run.tail_new);
        let death = Death {
            id,
            at: cx.wall_clock.wall(cx.now),
            worker: worker.id,
            service: cx.catalog[worker.service].name.clone(),
            host: worker.host.clone(),
            run: worker.run.id,
            ran,
            is_adopted: worker.run.origin == RunOrigin::Adopted,
            report,
            how: how.to_owned(),
            killed: worker.run.killed.clone(),
            tail: worker.tail.iter().skip(own).cloned().collect(),
            follows,
        };
        cx.effects.push(Effect::Died { worker: key, death: Box::new(death) });
    }
}
