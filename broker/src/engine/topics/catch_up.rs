//! What a subscription is sent from before: kept values in the order of their topics, then what the
//! ring still has. Two cursors say how far it is, so that a reader that is slow costs no memory
//! however much there is.

use super::queue::Queue;
use protocol::topics::Pattern;
use std::sync::Arc;

/// See the head of this file.
#[derive(Debug)]
pub(super) struct CatchUp {
    /// What it subscribed to.
    pub(super) pattern: Pattern,
    /// The kept values that are still to be looked at; `None` = all were.
    pub(super) values: Option<ValuesLeft>,
    /// The message of the ring that is to be looked at next; `None` = none is.
    pub(super) ring: Option<u64>,
    /// How many messages of the ring were given up before they could be sent, and are told with the
    /// next one.
    pub(super) missed: u64,
    /// How many messages from before were sent.
    pub(super) sent: u64,
    /// What came meanwhile.
    pub(super) queue: Queue,
}

/// A cursor over the kept values.
#[derive(Clone, Debug)]
pub(super) struct ValuesLeft {
    /// The last topic that was looked at; `None` = none was.
    pub(super) after: Option<Arc<str>>,
    /// Values of later messages are sent in another way: from the ring, or as they come.
    pub(super) up_to: u64,
}
