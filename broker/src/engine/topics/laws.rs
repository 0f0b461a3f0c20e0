//! The laws of `topics`: what must hold after each step.

use super::machine::Topics;
use super::peers::Peer;
use super::subscription::{State, Subscriber, Subscription};
use crate::engine::keys::{Key as _, SubscriptionKey};
use crate::engine::law::law;
use protocol::LinkId;
use protocol::topics::Pattern;

impl Topics {
    /// The law that is broken, if any.
    ///
    /// # Errors
    /// Names the law and the ids.
    pub(crate) fn check(&self) -> Result<(), String> {
        self.check_tree()?;
        self.check_sums()?;
        for (key, subscription) in self.subscriptions.iter() {
            self.check_subscription(key, subscription)?;
        }
        for peer in self.peers.iter() {
            self.check_peer(peer)?;
        }
        for (service, key) in &self.services {
            let subscriber = self.subscriptions.get(*key).map(|s| s.subscriber);
            law!(
                subscriber == Some(Subscriber::Service(*service)),
                "law 8: service {} has subscription {}, whose is {subscriber:?}",
                service.index(),
                key.index()
            );
        }
        self.check_values()
    }

    /// The links of which it knows something.
    pub(crate) fn links(&self) -> impl Iterator<Item = LinkId> {
        self.peers.iter().map(|peer| peer.link)
    }

    fn check_tree(&self) -> Result<(), String> {
        let (nodes, words, texts, named) = self.tree.sizes();
        law!(words == texts, "law 6: the tree has {words} words and finds {texts}");
        let mut counts = (0, 0);
        for (key, node) in self.tree.nodes() {
            let (mut at, mut count) = (node.first.get(), 0_u32);
            let mut before = None;
            while let Some(subscription) = at {
                let here = &self.subscriptions[subscription];
                law!(
                    here.node == key && here.previous.get() == before,
                    "law 8: subscription {} is listed at node {} and knows node {}",
                    subscription.index(),
                    key.index(),
                    here.node.index()
                );
                (before, at, count) = (at, here.next.get(), count + 1);
            }
            law!(
                count == node.count && node.last.get() == before,
                "law 6: node {} counts {} subscriptions, has {count}",
                key.index(),
                node.count
            );
            counts.0 += count as usize;
            counts.1 += node.named as usize;
            law!(
                node.parent.is_none() || !node.is_unused(),
                "law 8: node {} of the tree is there for nothing",
                key.index()
            );
        }
        law!(
            counts == (self.subscriptions.len(), named),
            "law 6: the {nodes} nodes of the tree have {counts:?} subscriptions and words, there \
             are {} and {named}",
            self.subscriptions.len()
        );
        Ok(())
    }

    fn check_sums(&self) -> Result<(), String> {
        let queues = || self.subscriptions.iter().filter_map(|(_, s)| s.queue());
        let bytes: u64 = queues().map(|queue| queue.counted_bytes()).sum();
        law!(
            bytes == self.queued_bytes,
            "law 6: {} bytes wait as counted, {bytes} do",
            self.queued_bytes
        );
        law!(
            queues().all(|queue| queue.bytes() == queue.counted_bytes() && queue.is_sorted()),
            "law 6: a queue counts other bytes than it has, or is not sorted"
        );
        let is_own = |at| Pattern::new(&self.tree.pattern(at)).is_ok_and(|p| p.is_own());
        let marked = self.subscriptions.iter().filter(|(_, s)| s.is_own).count();
        law!(marked == self.own, "law 6: {marked} subscriptions are marked as to own topics");
        let own = self.tree.nodes().filter(|(at, node)| node.count > 0 && is_own(*at));
        let own: usize = own.map(|(_, node)| node.count as usize).sum();
        law!(own == self.own, "law 6: {} subscriptions to own topics, are {own}", self.own);
        let (count, bytes) = self.ring.counted();
        law!(
            (count, bytes) == (self.ring.len(), self.ring.bytes()),
            "law 6: the ring has {count} messages and {bytes} bytes, counts {} bytes",
            self.ring.bytes()
        );
        let held =
            |link| self.fan_outs.iter().filter(|fan_out| fan_out.source == Some(link)).count();
        for peer in self.peers.iter() {
            law!(
                peer.fan_outs as usize == held(peer.link),
                "law 6: {} messages of link {} are under way, counted {}",
                held(peer.link),
                peer.link,
                peer.fan_outs
            );
        }
        let begun = self.fan_outs.iter().filter(|fan_out| fan_out.has_begun()).count();
        law!(begun <= 1, "law 6: {begun} messages are on their way to subscriptions at once");
        Ok(())
    }

    fn check_subscription(
        &self,
        key: SubscriptionKey,
        subscription: &Subscription,
    ) -> Result<(), String> {
        let id = key.index();
        law!(
            subscription.untold <= subscription.dropped && subscription.since <= self.last,
            "law 6: subscription {id} has dropped {} and tells {}",
            subscription.dropped,
            subscription.untold
        );
        let waits = match subscription.subscriber {
            Subscriber::Link { link, number } => {
                let Some(peer) = self.peers.get(link) else {
                    let is_going = self.gone.iter().any(|them| them.get(&number) == Some(&key));
                    law!(is_going, "law 8: subscription {id} is that of link {link}, who is gone");
                    return Ok(());
                };
                law!(
                    peer.subscriptions.get(&number) == Some(&key),
                    "law 8: link {link} does not know subscription {number}"
                );
                peer.waiting.contains(&key)
            }
            Subscriber::Service(service) => {
                law!(
                    self.services.get(&service) == Some(&key),
                    "law 8: service {} does not know subscription {id}",
                    service.index()
                );
                false
            }
        };
        let (is_live, ring) = match &subscription.state {
            State::Live => (true, None),
            State::CatchingUp(catch_up) => (false, catch_up.ring),
            State::Queued(queue) => {
                law!(!queue.is_empty(), "law 8: subscription {id} waits for nothing");
                (false, None)
            }
        };
        law!(waits != is_live, "law 8: subscription {id} is live: {is_live}, and waits: {waits}");
        law!(
            ring.is_none_or(|next| self.ring_readers.contains(&(next, key))),
            "law 8: subscription {id} is at message {ring:?} of the ring, which is not noted"
        );
        Ok(())
    }

    fn check_peer(&self, peer: &Peer) -> Result<(), String> {
        let link = peer.link;
        for (number, key) in &peer.subscriptions {
            let subscriber = self.subscriptions.get(*key).map(|s| s.subscriber);
            law!(
                subscriber == Some(Subscriber::Link { link, number: *number }),
                "law 8: link {link} has subscription {number}, whose is {subscriber:?}"
            );
        }
        law!(
            peer.waiting.iter().all(|key| self.subscriptions.contains(*key)),
            "law 8: link {link} waits for a subscription that is gone"
        );
        law!(
            peer.is_congested || peer.waiting.is_empty() || peer.is_in_turn,
            "law 8: link {link} takes more, and nobody sends it what waits"
        );
        law!(
            peer.is_in_turn == self.turns.contains(&link),
            "law 8: link {link} is in turn: {}",
            peer.is_in_turn
        );
        for topic in &peer.values {
            let owner = self.retained.get(topic).and_then(|kept| kept.owner);
            law!(
                owner == Some(link),
                "law 8: link {link} owns the value of {topic}, whose owner is {owner:?}"
            );
        }
        Ok(())
    }

    fn check_values(&self) -> Result<(), String> {
        let values = || self.retained.iter().map(|(_, kept)| kept);
        let bytes: u64 = values().map(|kept| kept.message.bytes()).sum();
        law!(
            bytes == self.retained.bytes(),
            "law 6: the values that are kept count {} bytes, have {bytes}",
            self.retained.bytes()
        );
        let expiring = values().filter(|kept| kept.expires.is_some()).count();
        law!(
            self.retained.listed() == (self.retained.len(), expiring),
            "law 6: {} values are kept, {expiring} expire, listed are {:?}",
            self.retained.len(),
            self.retained.listed()
        );
        for (topic, kept) in self.retained.iter() {
            let Some(owner) = kept.owner else { continue };
            let is_known = self.peers.get(owner).is_some_and(|peer| peer.values.contains(topic))
                || self
                    .orphans
                    .iter()
                    .any(|(link, topics)| *link == owner && topics.contains(topic));
            law!(is_known, "law 8: the value of {topic} is owned by link {owner}, who is not told");
        }
        let readers = self.ring_readers.iter().all(|(next, key)| {
            let state = self.subscriptions.get(*key).map(|s| &s.state);
            matches!(state, Some(State::CatchingUp(it)) if it.ring == Some(*next))
        });
        law!(readers, "law 8: a subscription is noted at a message of the ring where it is not");
        Ok(())
    }
}
