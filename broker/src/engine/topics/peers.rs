//! What is known of the link of a subscriber or publisher: its subscriptions, the values that end
//! with it, and whether it takes more.

use crate::engine::keys::SubscriptionKey;
use protocol::{ClientId, LinkId, Tick, WorkerId};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// Who publishes or subscribes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Party {
    /// A client.
    Client(ClientId),
    /// A worker.
    Worker(WorkerId),
}

/// See the head of this file.
#[derive(Debug)]
pub(super) struct Peer {
    pub(super) link: LinkId,
    /// `None` = it neither subscribed nor published so far.
    pub(super) party: Option<Party>,
    /// By the numbers that it gave them.
    pub(super) subscriptions: BTreeMap<u32, SubscriptionKey>,
    /// Those of them for which something waits.
    pub(super) waiting: BTreeSet<SubscriptionKey>,
    /// The one of these that was sent something last.
    pub(super) served: Option<SubscriptionKey>,
    /// Topics whose values are kept as long as it is connected.
    pub(super) values: BTreeSet<Arc<str>>,
    /// More than `outbox_bytes_high` bytes wait to be sent to it.
    pub(super) is_congested: bool,
    /// It is in the list of those to which what waits is sent.
    pub(super) is_in_turn: bool,
    /// Its messages that have not gone to all subscriptions yet. It is read no further meanwhile.
    pub(super) fan_outs: u32,
    /// Messages to it that were dropped since the last fact about it.
    pub(super) untold: u64,
    /// Bytes that were sent to it at this tick.
    spent: (Tick, u64),
}

impl Peer {
    const fn new(link: LinkId) -> Self {
        Self {
            link,
            party: None,
            subscriptions: BTreeMap::new(),
            waiting: BTreeSet::new(),
            served: None,
            values: BTreeSet::new(),
            is_congested: false,
            is_in_turn: false,
            fan_outs: 0,
            untold: 0,
            spent: (Tick(0), 0),
        }
    }

    /// Whether a message of this size may be sent to it now, so that at most `most` bytes are sent
    /// to it at one tick. That too much waits for it is known only after a step.
    pub(super) fn has_room(&self, size: u64, most: u64, now: Tick) -> bool {
        let spent = if self.spent.0 == now { self.spent.1 } else { 0 };
        !self.is_congested && (spent == 0 || spent + size <= most)
    }

    /// Notes that something was sent.
    pub(super) fn spend(&mut self, size: u64, now: Tick) {
        if self.spent.0 != now {
            self.spent = (now, 0);
        }
        self.spent.1 += size;
    }

    /// The next subscription for which something waits: they take turns.
    pub(super) fn next_waiting(&self) -> Option<SubscriptionKey> {
        let behind = self.served.and_then(|served| {
            use std::ops::Bound::{Excluded, Unbounded};
            self.waiting.range((Excluded(served), Unbounded)).next()
        });
        behind.or_else(|| self.waiting.first()).copied()
    }

    /// Whether nothing need be known of it any more.
    fn is_unused(&self) -> bool {
        self.subscriptions.is_empty()
            && self.values.is_empty()
            && !self.is_congested
            && self.fan_outs == 0
            && self.untold == 0
    }
}

/// All of them, by the index of the link.
#[derive(Debug, Default)]
pub(super) struct Peers {
    slots: Vec<Option<Box<Peer>>>,
}

impl Peers {
    /// What is known of a link.
    pub(super) fn get(&self, link: LinkId) -> Option<&Peer> {
        let peer = self.slots.get(link.index as usize)?.as_deref()?;
        (peer.link == link).then_some(peer)
    }

    /// The same, to change it.
    pub(super) fn get_mut(&mut self, link: LinkId) -> Option<&mut Peer> {
        let peer = self.slots.get_mut(link.index as usize)?.as_deref_mut()?;
        (peer.link == link).then_some(peer)
    }

    /// The same; what is not there is made.
    pub(super) fn entry(&mut self, link: LinkId) -> &mut Peer {
        let index = link.index as usize;
        if self.slots.len() <= index {
            self.slots.resize_with(index + 1, || None);
        }
        let slot = &mut self.slots[index];
        if slot.as_ref().is_some_and(|peer| peer.link != link) {
            *slot = None;
        }
        slot.get_or_insert_with(|| Box::new(Peer::new(link)))
    }

    /// Takes out what is known of a link that is gone.
    pub(super) fn remove(&mut self, link: LinkId) -> Option<Box<Peer>> {
        self.get(link)?;
        self.slots.get_mut(link.index as usize)?.take()
    }

    /// Forgets a link of which nothing need be known any more.
    pub(super) fn tidy(&mut self, link: LinkId) {
        if self.get(link).is_some_and(Peer::is_unused) {
            self.remove(link);
        }
    }

    /// All of them.
    pub(super) fn iter(&self) -> impl Iterator<Item = &Peer> {
        self.slots.iter().filter_map(|slot| slot.as_deref())
    }

    /// Gives back the memory of a burst.
    pub(super) fn shrink(&mut self) {
        let used = self.slots.iter().rposition(Option::is_some);
        self.slots.truncate(used.map_or(0, |last| last + 1));
        self.slots.shrink_to_fit();
    }
}
