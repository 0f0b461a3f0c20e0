//! A `send … status` that is under way.

use protocol::{Block, ClientId, Header, LinkId};
use std::collections::BTreeSet;

/// A `send … status` that not all workers have answered.
#[derive(Debug)]
pub(crate) struct StatusQuery {
    pub(super) client: ClientId,
    pub(super) head: Header,
    /// Links of the workers that have not answered.
    pub(super) waiting: BTreeSet<LinkId>,
    pub(super) blocks: Vec<Block>,
}
