//! The laws of `supervision`: what must hold after each step.

use super::machine::Supervision;
use super::process_state::ProcessState;
use crate::engine::keys::ServiceKey;
use crate::engine::law::law;
use std::collections::BTreeMap;

impl Supervision {
    /// The law that is broken, if any.
    ///
    /// # Errors
    /// Names the law and the ids.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut counts: BTreeMap<ServiceKey, usize> = BTreeMap::new();
        for (_, worker) in self.workers.by_id() {
            *counts.entry(worker.service).or_default() += 1;
            law!(
                worker.failed.is_none() || worker.state == ProcessState::Down,
                "law 2: worker {} has failed and is {:?}",
                worker.id,
                worker.state
            );
        }
        law!(
            self.workers.counts() == counts,
            "law 6: workers of services are counted as {:?}, are {counts:?}",
            self.workers.counts()
        );
        Ok(())
    }
}
