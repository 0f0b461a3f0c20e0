//! Long listings that are under way.

use crate::engine::fact_filter::FactFilter;
use crate::engine::instances::table::Start;
use crate::engine::keys::{InstanceKey, ServiceKey, TransactionKey};
use protocol::op::spec::InstancesOf;
use protocol::topics::Pattern;
use protocol::{
    Block, ClientId, FactSeq, Header, HostName, LinkId, ServiceId, ServiceName, TransactionId,
    Value, WorkerFilter, WorkerId,
};
use std::cmp::Reverse;
use std::collections::{BinaryHeap, VecDeque};
use std::sync::Arc;

/// Most rows of an answer; the others are counted. So many take less than `outbox_bytes_max` has by
/// default, beyond which the operator's connection would be closed.
pub(super) const ROWS_MAX: usize = 50_000;

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
        left: ListedRequests,
        rows: Rows,
    },
    Instances {
        left: InstancesLeft,
        rows: Rows,
    },
    /// Instances that ended.
    Ended {
        /// How many are still to be shown; those with a number before this one.
        left: usize,
        before: u64,
        rows: Rows,
    },
    Groups {
        left: VecDeque<ServiceName>,
        rows: Rows,
    },
    /// Topics whose last message is kept.
    Topics {
        pattern: Option<Pattern>,
        /// The last topic that was looked at.
        after: Option<Arc<str>>,
        /// How many are still to be looked at.
        left: usize,
        rows: Rows,
    },
    Subscriptions {
        left: SubscriptionsLeft,
        rows: Rows,
    },
    /// `services`, `load` or `latency`.
    Services {
        of: ServiceTable,
        left: VecDeque<ServiceId>,
        rows: Rows,
        /// Services of which `latency` has nothing to show.
        without: usize,
    },
    Hosts {
        left: VecDeque<HostName>,
        rows: Rows,
    },
    Events {
        /// How many are still to be looked at; those before this one.
        left: usize,
        before: FactSeq,
        filter: Box<FactFilter>,
        /// How many may be shown.
        most: usize,
        lines: Vec<Block>,
    },
    Queue {
        left: ListedRequests,
        rows: Rows,
        /// The services that requests wait for.
        services: Vec<WaitingCount>,
    },
}

/// The tables with rows for services.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ServiceTable {
    Names,
    Load,
    Latency {
        /// It was asked of one service.
        is_one: bool,
    },
}

/// Where a request stands in a listing: group, then priority, then arrival.
pub(super) type Order = (usize, u64, u64);

/// The requests of a listing. All slots of the table are looked at, part by part; then they are
/// taken out in order.
#[derive(Debug, Default)]
pub(crate) struct ListedRequests {
    /// The slot that is looked at next; `None` = all were.
    pub(super) next: Option<usize>,
    /// The service that is listed; `None` = all.
    pub(super) service: Option<ServiceKey>,
    pub(super) heap: BinaryHeap<Reverse<(Order, TransactionKey, TransactionId)>>,
}

/// The instances of a listing.
#[derive(Debug)]
pub(crate) enum InstancesLeft {
    /// They are few: their keys and incarnations.
    Few(VecDeque<(InstanceKey, u64)>),
    /// They are found part by part, in the order of their names.
    Walk {
        /// Which of those that are looked at are listed.
        of: InstancesOf,
        /// Where it goes on.
        start: Start,
        /// How many are still to be looked at, about.
        left: usize,
    },
}

/// The subscriptions of a listing.
#[derive(Debug)]
pub(crate) struct SubscriptionsLeft {
    /// Those of one connection; `None` = all.
    pub(super) link: Option<LinkId>,
    /// Only those that have to do with this pattern.
    pub(super) pattern: Option<Pattern>,
    /// The slot, or the number on the connection, that is looked at next.
    pub(super) next: usize,
    /// How many are still to be looked at.
    pub(super) left: usize,
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
