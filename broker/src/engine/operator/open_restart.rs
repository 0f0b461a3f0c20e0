//! A `restart` that is under way.

use protocol::{Block, ClientId, Header, ServiceId, WorkerId};
use std::collections::VecDeque;

/// A `restart` that has not ended.
#[derive(Debug)]
pub(crate) struct OpenRestart {
    /// Who asked; it may be gone by now.
    pub(super) client: ClientId,
    /// The header of the command.
    pub(super) head: Header,
    /// Named in facts.
    pub(super) who: String,
    /// So many of each service stay ready; `None` = as many as is usual.
    pub(super) min: Option<u64>,
    /// The services that are still to come, each with its workers.
    pub(super) services: VecDeque<(ServiceId, Vec<WorkerId>)>,
    /// The answer so far.
    pub(super) blocks: Vec<Block>,
    /// One text for each service that failed.
    pub(super) failures: Vec<String>,
}
