//! One subscription. There may be very many, most of which have nothing that waits, so what only
//! those need for which something does is in a box.

use super::catch_up::CatchUp;
use super::message::Message;
use super::queue::{Queue, QueueLimits};
use crate::engine::keys::{NodeKey, OptionKey, ServiceKey, SubscriptionKey};
use protocol::LinkId;

/// Who gets the messages of a subscription.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Subscriber {
    /// A client or worker.
    Link {
        /// Its connection.
        link: LinkId,
        /// The number that it gave the subscription.
        number: u32,
    },
    /// A service: each message becomes a request of it.
    Service(ServiceKey),
}

/// How far a subscription is.
#[derive(Debug)]
pub(super) enum State {
    /// What comes is sent at once.
    Live,
    /// It is sent what is kept from before; what comes meanwhile waits.
    CatchingUp(Box<CatchUp>),
    /// Its reader is too slow: what comes waits behind what waits already.
    Queued(Box<Queue>),
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Subscription {
    pub(super) subscriber: Subscriber,
    /// The node of its pattern.
    pub(super) node: NodeKey,
    /// Its neighbours in the list of the node.
    pub(super) previous: OptionKey<SubscriptionKey>,
    pub(super) next: OptionKey<SubscriptionKey>,
    /// The newest message of the broker when it began: those up to it are from before.
    pub(super) since: u64,
    pub(super) delivered: u64,
    pub(super) dropped: u64,
    /// How many of those that waited were dropped since the last message, and are told with the
    /// next one, or with `caught-up`.
    pub(super) untold: u64,
    /// Most messages that waited at once.
    pub(super) queued_max: u32,
    /// It is about topics of the broker itself. Independent of the state: it never changes.
    pub(super) is_own: bool,
    pub(super) state: State,
}

impl Subscription {
    /// A subscription that is to get what comes after message `since`.
    pub(super) const fn new(
        subscriber: Subscriber,
        (node, is_own): (NodeKey, bool),
        since: u64,
    ) -> Self {
        Self {
            subscriber,
            node,
            is_own,
            previous: OptionKey::NONE,
            next: OptionKey::NONE,
            since,
            delivered: 0,
            dropped: 0,
            untold: 0,
            queued_max: 0,
            state: State::Live,
        }
    }

    /// What waits for it, if anything may.
    pub(super) fn queue(&self) -> Option<&Queue> {
        match &self.state {
            State::Live => None,
            State::CatchingUp(catch_up) => Some(&catch_up.queue),
            State::Queued(queue) => Some(queue),
        }
    }

    /// Has a message wait, and drops older ones where too much waits.
    pub(super) fn push(&mut self, message: Message, limits: QueueLimits, all: &mut u64) {
        let (dropped, left) = match &mut self.state {
            State::Live => {
                let mut queue: Box<Queue> = Box::default();
                let dropped = queue.push(message, limits, all);
                self.state = State::Queued(queue);
                (dropped, 1)
            }
            State::CatchingUp(catch_up) => {
                (catch_up.queue.push(message, limits, all), catch_up.queue.len())
            }
            State::Queued(queue) => (queue.push(message, limits, all), queue.len()),
        };
        self.queued_max = self.queued_max.max(left as u32);
        self.dropped += dropped;
        self.untold += dropped;
    }
}
