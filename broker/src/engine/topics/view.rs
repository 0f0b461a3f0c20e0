//! What the commands show of the machine.

use super::machine::Topics;
use super::peers::Party;
use super::queue::Queue;
use super::subscription::{State, Subscriber};
use crate::engine::keys::{Key as _, SubscriptionKey};
use protocol::messages::Position;
use protocol::topics::Pattern;
use protocol::{LinkId, Tick};
use std::sync::Arc;

/// A value that is kept.
#[derive(Debug)]
pub(crate) struct ShownValue {
    pub(crate) topic: Arc<str>,
    /// Bytes of its message, the lines among them.
    pub(crate) bytes: u64,
    pub(crate) number: u64,
    pub(crate) at: Tick,
    pub(crate) expires: Option<Tick>,
    pub(crate) party: Party,
    pub(crate) is_connected: bool,
}

/// A subscription.
#[derive(Debug)]
pub(crate) struct ShownSubscription {
    pub(crate) subscriber: Subscriber,
    /// Whose it is; none if it is that of a service.
    pub(crate) party: Option<Party>,
    pub(crate) pattern: Pattern,
    pub(crate) delivered: u64,
    pub(crate) dropped: u64,
    pub(crate) queued: usize,
    pub(crate) queued_max: u32,
    pub(crate) state: &'static str,
}

/// The sums of the machine.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) kept: usize,
    pub(crate) kept_bytes: u64,
    pub(crate) remembered: usize,
    pub(crate) remembered_bytes: u64,
    pub(crate) position: Position,
    pub(crate) subscriptions: usize,
    pub(crate) queued_bytes: u64,
    pub(crate) under_way: usize,
}

impl Topics {
    /// How many values are kept.
    pub(crate) fn values(&self) -> usize {
        self.retained.len()
    }

    /// Up to `most` values whose topics stand behind `after`. With a pattern only those whose
    /// topics begin as it does; the caller looks whether they match.
    pub(crate) fn values_behind(
        &self,
        after: Option<&Arc<str>>,
        pattern: Option<&Pattern>,
        most: usize,
    ) -> Vec<ShownValue> {
        let found = self.retained.behind(after, pattern).take(most);
        let shown = found.map(|(topic, kept)| ShownValue {
            topic: topic.clone(),
            bytes: kept.message.bytes(),
            number: kept.message.number,
            at: kept.at,
            expires: kept.expires,
            party: kept.party,
            is_connected: kept.owner.is_some(),
        });
        shown.collect()
    }

    /// How many subscriptions are to be looked at to see all, or those of one link.
    pub(crate) fn subscriptions_to_show(&self, link: Option<LinkId>) -> usize {
        match link {
            None => self.subscriptions.capacity(),
            Some(link) => self.peers.get(link).map_or(0, |peer| peer.subscriptions.len()),
        }
    }

    /// The subscriptions of the next `most` slots, or of a link from this number on; and where to
    /// go on.
    pub(crate) fn subscriptions_from(
        &self,
        link: Option<LinkId>,
        next: usize,
        most: usize,
    ) -> (Vec<ShownSubscription>, usize) {
        let Some(link) = link else {
            let end = next.saturating_add(most).min(self.subscriptions.capacity());
            let keys = (next..end).map(SubscriptionKey::of);
            return (keys.filter_map(|key| self.shown(key)).collect(), end);
        };
        let Some(peer) = self.peers.get(link) else { return (Vec::new(), next) };
        let Ok(from) = u32::try_from(next) else { return (Vec::new(), next) };
        let found: Vec<(u32, SubscriptionKey)> =
            peer.subscriptions.range(from..).take(most).map(|(at, key)| (*at, *key)).collect();
        let end = found.last().map_or(next, |(last, _)| *last as usize + 1);
        (found.into_iter().filter_map(|(_, key)| self.shown(key)).collect(), end)
    }

    fn shown(&self, key: SubscriptionKey) -> Option<ShownSubscription> {
        let subscription = self.subscriptions.get(key)?;
        let party = match subscription.subscriber {
            // Where the link is gone, it is not there any more.
            Subscriber::Link { link, .. } => self.peers.get(link)?.party,
            Subscriber::Service(_) => None,
        };
        Some(ShownSubscription {
            subscriber: subscription.subscriber,
            party,
            pattern: Pattern::new(&self.tree.pattern(subscription.node)).ok()?,
            delivered: subscription.delivered,
            dropped: subscription.dropped,
            queued: subscription.queue().map_or(0, Queue::len),
            queued_max: subscription.queued_max,
            state: match subscription.state {
                State::Live => "live",
                State::CatchingUp(_) => "catching_up",
                State::Queued(_) => "congested",
            },
        })
    }

    /// The sums.
    pub(crate) fn totals(&self) -> Totals {
        Totals {
            kept: self.retained.len(),
            kept_bytes: self.retained.bytes(),
            remembered: self.ring.len(),
            remembered_bytes: self.ring.bytes(),
            position: self.position(),
            subscriptions: self.subscriptions.len(),
            queued_bytes: self.queued_bytes,
            under_way: self.fan_outs.len(),
        }
    }
}
