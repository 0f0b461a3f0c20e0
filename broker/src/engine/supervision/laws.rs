//! The laws of `supervision`: what must hold after each step.

use super::machine::Supervision;
use super::process_state::ProcessState;
use super::rollout::Phase;
use super::workers::Standing;
use crate::engine::law::law;

impl Supervision {
    /// The law that is broken, if any.
    ///
    /// # Errors
    /// Names the law and the ids.
    pub(crate) fn check(&self) -> Result<(), String> {
        for (_, worker) in self.workers.by_id() {
            law!(
                worker.failed.is_none() || worker.state == ProcessState::Down,
                "law 2: worker {} has failed and is {:?}",
                worker.id,
                worker.state
            );
        }
        law!(
            self.workers.are_lists_whole(),
            "law 6: the lists of the workers of services and hosts are not whole"
        );
        self.check_rollouts()?;
        self.check_outlooks()
    }

    /// A temporary worker belongs to what is under way, one to each service; and no more are being
    /// replaced than may be.
    fn check_rollouts(&self) -> Result<(), String> {
        for (_, worker) in self.workers.by_id() {
            let rollout = self.rollouts.by_service.get(&worker.service);
            law!(
                worker.standing != Standing::Temporary
                    || rollout.is_some_and(|rollout| rollout.temporary == Some(worker.id)),
                "law 6: worker {} is temporary and stands in for nobody",
                worker.id
            );
            law!(
                worker.standing != Standing::Draining || worker.state != ProcessState::Down,
                "law 6: worker {} has left and is still there",
                worker.id
            );
        }
        for rollout in self.rollouts.by_service.values() {
            law!(
                rollout.steps.len() <= rollout.batch.max(1) && rollout.done <= rollout.all,
                "law 6: {} replaced at a time: {rollout:?}",
                rollout.steps.len()
            );
            law!(
                rollout.phase == Phase::Holding
                    || rollout.temporary.is_none()
                    || rollout.temporary.is_some_and(|id| self.workers.find(id).is_some()),
                "law 6: the temporary worker is gone: {rollout:?}"
            );
        }
        Ok(())
    }
}
