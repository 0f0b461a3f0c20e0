//! The laws of `supervision`: what must hold after each step.

use super::machine::Supervision;
use super::process_state::ProcessState;
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
}
