//! Long listings that are under way.

use crate::engine::keys::{ServiceKey, TransactionKey};
use protocol::header::Header;
use protocol::ids::{ClientId, LinkId, TransactionId, WorkerId};
use protocol::names::ServiceName;
use protocol::op::reply::Value;
use protocol::op::spec::WorkerFilter;
use std::collections::VecDeque;

/// The rows of a table.
pub(crate) type Rows = Vec<Vec<Value>>;

/// A listing under way: the entries whose rows are still to be made, and the rows made so far.
#[derive(Debug)]
pub(crate) enum Listing {
    Clients {
        left: VecDeque<ClientId>,
        rows: Rows,
    },
    Workers {
        filter: WorkerFilter,
        left: VecDeque<WorkerId>,
        /// Rows of the lists LAZY, IDLE and BUSY.
        rows: [Rows; 3],
    },
    Requests {
        left: VecDeque<(TransactionKey, TransactionId)>,
        rows: Rows,
    },
    Queue {
        left: VecDeque<(TransactionKey, TransactionId)>,
        rows: Rows,
        /// The services that requests wait for.
        services: Vec<WaitingCount>,
    },
}

/// The requests that wait for one service.
#[derive(Debug)]
pub(crate) struct WaitingCount {
    pub(super) service: ServiceKey,
    pub(crate) name: ServiceName,
    pub(crate) count: usize,
    /// Why no worker serves them.
    pub(crate) why: String,
}

/// A listing under way, and the command that it answers.
#[derive(Debug)]
pub(super) struct OpenListing {
    pub(super) link: LinkId,
    pub(super) head: Header,
    pub(super) listing: Listing,
    /// Entries that the answer has no room for.
    pub(super) left_out: usize,
}

/// The listings under way, which take turns.
#[derive(Debug, Default)]
pub(crate) struct Listings(pub(super) VecDeque<OpenListing>);
