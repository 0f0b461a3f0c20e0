//! A message gets its number and goes to its subscriptions, so many in a step. While one is not
//! done, later ones wait behind it, and their publishers are read no further.

use super::machine::{STEP, Topics, refuse};
use super::message::{FanOut, Message};
use super::peers::Party;
use super::retained::Kept;
use super::subscription::{State, Subscriber};
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::{NodeKey, OptionKey, SubscriptionKey};
use bytes::Bytes;
use protocol::bodies::Published;
use protocol::messages::{MessageLines, MessageOf, Retain};
use protocol::{ErrorCode, Frame, Header, LinkId, Setting};

/// Most bytes that are sent to one link at one tick; what else comes waits until the next one.
pub(super) const LINK_BYTES: u64 = 256 << 10;
/// To visit so many nodes of the tree costs as much as to send one message.
const NODES_OF_ONE: usize = 8;

impl Topics {
    /// A client or worker publishes; it has the right to.
    pub(crate) fn publish(
        &mut self,
        (link, party): (LinkId, Party),
        head: &Header,
        body: &Bytes,
        lines: &MessageLines<'_>,
        cx: &mut Context<'_>,
    ) {
        self.begin_for_peer(cx);
        if lines.retain != Retain::No
            && let Err(text) = self.may_keep(lines.topic, body.len() as u64, cx)
        {
            return refuse(link, head.sequence, (ErrorCode::LimitReached, text), cx);
        }
        let message = Message::new(self.last + 1, body, lines);
        if lines.retain != Retain::No {
            let expires = lines.expires_ms.map(|ms| cx.now.plus_millis(ms));
            let owner = (lines.retain == Retain::Connected).then_some(link);
            let kept = Kept { message: message.clone(), at: cx.now, expires, party, owner };
            self.keep(kept);
        } else if lines.removed.is_some() {
            self.take_value(lines.topic);
        }
        let subscriptions = self.accept(message, Some(link), cx);
        if head.reply != 0 {
            let published =
                Published { publish: head.sequence, at: self.position(), subscriptions };
            cx.out.push(Action::Send { link, frame: Frame::Published(published) });
        }
        self.set_timer(cx);
    }

    /// The broker publishes, because of what came from `source` if it names one: the lines are the
    /// payload. If nobody has been there to get it for a while, it only has a number.
    pub(crate) fn publish_own(
        &mut self,
        topic: &str,
        lines: &[(&'static str, String)],
        source: Option<LinkId>,
        cx: &mut Context<'_>,
    ) {
        if !self.keeps_own(cx.now) {
            self.pass_over_own();
            return;
        }
        self.begin_for_peer(cx);
        let mut payload = String::new();
        for (key, value) in lines {
            payload += &format!("{key} {}\n", protocol::show::one_line(value.clone()));
        }
        self.publish_body(&MessageOf::new(topic, payload.as_bytes()).body(), source, cx);
        self.set_timer(cx);
    }

    /// The broker publishes a body that it made itself.
    pub(super) fn publish_body(
        &mut self,
        body: &Bytes,
        source: Option<LinkId>,
        cx: &mut Context<'_>,
    ) {
        if let Ok(lines) = MessageLines::read(body) {
            let message = Message::new(self.last + 1, body, &lines);
            self.accept(message, source, cx);
        }
    }

    /// The next message, whose number is the next one, goes to its subscriptions. Returns how many
    /// these are.
    fn accept(&mut self, message: Message, source: Option<LinkId>, cx: &mut Context<'_>) -> u64 {
        self.last = message.number;
        let mut found = std::mem::take(&mut self.found);
        found.clear();
        let count = self.find(message.topic(), &mut found);
        self.ring.push(message.clone());
        self.trim_ring(cx);
        // A publisher for which no more may be done now waits, whether anybody gets its message.
        if count > 0 || (source.is_some() && !self.has_left()) {
            let is_first = self.fan_outs.is_empty();
            let is_found = is_first || count == 0;
            let nodes = is_found.then(|| std::mem::take(&mut found));
            let mut fan_out = FanOut { message, nodes, at: OptionKey::NONE, source: None };
            if is_first && count > 0 && self.go_on(&mut fan_out, cx) {
                found = fan_out.nodes.unwrap_or_default();
            } else {
                self.hold_source(&mut fan_out, source, cx);
                self.fan_outs.push_back(fan_out);
            }
        }
        self.found = found;
        count
    }

    /// The nodes whose patterns match. To look for them may cost much more than to send to them.
    fn find(&mut self, topic: &str, found: &mut Vec<NodeKey>) -> u64 {
        let (count, visited) = self.tree.find(topic, found);
        self.spend_many(visited / NODES_OF_ONE);
        count
    }

    /// Gives up what the ring may not have, some of it in a step.
    pub(super) fn trim_ring(&mut self, cx: &mut Context<'_>) {
        let count = cx.settings.get(Setting::TopicRingMax);
        let bytes = cx.settings.get(Setting::TopicRingBytesMax);
        for done in 0..STEP {
            // More than one, so that it has no more some time.
            if done > 1 && !self.has_left() {
                return;
            }
            let Some(message) = self.ring.pop_excess(count, bytes) else { return };
            self.miss(&message, cx);
        }
    }

    /// Whether the ring has more than it may, because a limit was lowered.
    pub(super) fn has_ring_excess(&self, cx: &Context<'_>) -> bool {
        let count = cx.settings.get(Setting::TopicRingMax);
        self.ring.has_excess(count, cx.settings.get(Setting::TopicRingBytesMax))
    }

    /// The publisher of a message that is not done is read no further.
    fn hold_source(&mut self, fan_out: &mut FanOut, source: Option<LinkId>, cx: &mut Context<'_>) {
        let Some(link) = source else { return };
        fan_out.source = source;
        let peer = self.peers.entry(link);
        peer.fan_outs += 1;
        if peer.fan_outs == 1 {
            cx.effects.push(Effect::StopReading { link });
        }
    }

    /// It is read again once all its messages are done.
    fn release_source(&mut self, fan_out: &FanOut, cx: &mut Context<'_>) {
        let Some(link) = fan_out.source else { return };
        let Some(peer) = self.peers.get_mut(link) else { return };
        peer.fan_outs -= 1;
        if peer.fan_outs == 0 {
            self.peers.tidy(link);
            cx.effects.push(Effect::ResumeReading { link });
        }
    }

    /// Goes on with the messages that are not done, oldest first.
    pub(super) fn go_on_fan_outs(&mut self, cx: &mut Context<'_>) {
        while let Some(mut fan_out) = self.fan_outs.pop_front() {
            if !self.has_left() {
                self.fan_outs.push_front(fan_out);
                return;
            }
            if fan_out.nodes.is_none() {
                let mut nodes = Vec::new();
                self.find(fan_out.message.topic(), &mut nodes);
                fan_out.nodes = Some(nodes);
            }
            if !self.go_on(&mut fan_out, cx) {
                self.fan_outs.push_front(fan_out);
                return;
            }
            self.release_source(&fan_out, cx);
        }
    }

    /// Goes on with one message. Returns whether it is done.
    fn go_on(&mut self, fan_out: &mut FanOut, cx: &mut Context<'_>) -> bool {
        let nodes = fan_out.nodes.get_or_insert_default();
        loop {
            let Some(key) = fan_out.at.get() else {
                let Some(node) = nodes.pop() else { return true };
                // One that is gone had no subscriptions left.
                fan_out.at = self.tree.node(node).map_or(OptionKey::NONE, |node| node.first);
                continue;
            };
            if !self.has_left() {
                return false;
            }
            self.spend();
            let subscription = &self.subscriptions[key];
            fan_out.at = subscription.next;
            // One that began later is not to get it, whatever pattern its node has by now.
            if subscription.since < fan_out.message.number {
                self.deliver(key, &fan_out.message, cx);
            }
        }
    }

    /// A message is sent to one subscription, or waits for it.
    fn deliver(&mut self, key: SubscriptionKey, message: &Message, cx: &mut Context<'_>) {
        let subscription = &mut self.subscriptions[key];
        let (link, number) = match subscription.subscriber {
            Subscriber::Link { link, number } => (link, number),
            Subscriber::Service(service) => {
                subscription.delivered += 1;
                let body = message.body.clone();
                cx.effects.push(Effect::Enqueue { service, body });
                return;
            }
        };
        let Some(peer) = self.peers.get_mut(link) else { return };
        let is_live = matches!(subscription.state, State::Live);
        if is_live && peer.has_room(message.frame_bytes(), LINK_BYTES, cx.now) {
            peer.spend(message.frame_bytes(), cx.now);
            cx.out.push(subscription.message((link, number), message, None));
            self.spend_bytes(message.frame_bytes());
            return;
        }
        let limits = Self::queue_limits(cx);
        let before = subscription.dropped;
        subscription.push(message.clone(), limits, &mut self.queued_bytes);
        let dropped = subscription.dropped - before;
        if is_live {
            self.has_waiting(link, key);
        }
        if dropped > 0 {
            self.dropped(link, dropped, cx);
        }
    }
}
