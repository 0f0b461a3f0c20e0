//! What waits is sent when there is room: to each link so many bytes, to all so many messages in a
//! step. The links take turns, and so do the subscriptions of a link.

use super::catch_up::CatchUp;
use super::fan_out::LINK_BYTES;
use super::machine::Topics;
use super::message::Message;
use super::queue::Queue;
use super::subscription::{State, Subscriber, Subscription};
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::keys::SubscriptionKey;
use protocol::bodies::CaughtUp;
use protocol::{Frame, Header, LinkId};

/// Most bytes from before that are sent to one link at one tick.
const BEFORE_BYTES: u64 = 64 << 10;
/// Most messages that one subscription is sent before it is the turn of the next one of its link.
const TURN: usize = 64;

/// Whether a subscription has been sent all that waited for it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Progress {
    /// All of it.
    Done,
    /// Something waits still; it was sent as much as it may be before others are.
    More,
    /// Nothing more can be sent to its link at this tick, or in this step.
    NoRoom,
}

impl Subscription {
    /// The frame with a message, which is counted with that. `missed`: it is one from before, and
    /// so many in front of it were missed.
    pub(super) fn message(
        &mut self,
        (link, number): (LinkId, u32),
        message: &Message,
        missed: Option<&mut u64>,
    ) -> Action {
        self.delivered += 1;
        let is_before = missed.is_some();
        let untold = missed.unwrap_or(&mut self.untold);
        // Those that do not fit are told with the next message.
        let attempt = u32::try_from(*untold).unwrap_or(u32::MAX);
        *untold -= u64::from(attempt);
        let head = Header {
            sequence: number,
            transaction: message.number,
            attempt,
            more: is_before.into(),
            ..Header::default()
        };
        Action::Send { link, frame: Frame::Message { head, body: message.body.clone() } }
    }
}

impl Topics {
    /// Something waits for a subscription of a link.
    pub(super) fn has_waiting(&mut self, link: LinkId, key: SubscriptionKey) {
        let Some(peer) = self.peers.get_mut(link) else { return };
        peer.waiting.insert(key);
        self.take_turn(link);
    }

    /// What waits for a link is to be sent, unless it takes nothing now.
    pub(super) fn take_turn(&mut self, link: LinkId) {
        let Some(peer) = self.peers.get_mut(link) else { return };
        if !peer.is_congested && !peer.is_in_turn {
            peer.is_in_turn = true;
            self.turns.push_back(link);
        }
    }

    /// Sends what waits, each link in turn once.
    pub(super) fn drain(&mut self, cx: &mut Context<'_>) {
        for _ in 0..self.turns.len() {
            if !self.has_left() {
                return;
            }
            let Some(link) = self.turns.pop_front() else { return };
            let Some(peer) = self.peers.get_mut(link) else { continue };
            peer.is_in_turn = false;
            self.drain_link(link, cx);
            if self.peers.get(link).is_some_and(|peer| !peer.waiting.is_empty()) {
                self.take_turn(link);
            }
        }
    }

    fn drain_link(&mut self, link: LinkId, cx: &mut Context<'_>) {
        while self.has_left()
            && let Some(peer) = self.peers.get_mut(link)
            && let Some(key) = peer.next_waiting()
        {
            peer.served = Some(key);
            match self.drain_one(link, key, cx) {
                Progress::Done => {
                    if let Some(peer) = self.peers.get_mut(link) {
                        peer.waiting.remove(&key);
                    }
                }
                Progress::More => {}
                // To find that out counts too: very many may be in turn at each call.
                Progress::NoRoom => return self.spend(),
            }
        }
    }

    /// Sends some of what waits for one subscription.
    fn drain_one(&mut self, link: LinkId, key: SubscriptionKey, cx: &mut Context<'_>) -> Progress {
        let state = std::mem::replace(&mut self.subscriptions[key].state, State::Live);
        let (state, progress) = match state {
            State::Live => (State::Live, Progress::Done),
            State::CatchingUp(catch_up) => self.send_before((link, key), catch_up, cx),
            State::Queued(queue) => self.send_queue((link, key), queue, cx),
        };
        self.subscriptions[key].state = state;
        progress
    }

    fn send_queue(
        &mut self,
        (link, key): (LinkId, SubscriptionKey),
        mut queue: Box<Queue>,
        cx: &mut Context<'_>,
    ) -> (State, Progress) {
        for _ in 0..TURN {
            let Some(message) = queue.first() else { return (State::Live, Progress::Done) };
            if !self.has_left() || !self.send((link, key), message, None, cx) {
                return (State::Queued(queue), Progress::NoRoom);
            }
            queue.pop(&mut self.queued_bytes);
        }
        match queue.is_empty() {
            true => (State::Live, Progress::Done),
            false => (State::Queued(queue), Progress::More),
        }
    }

    /// Sends a message to a subscription, if its link has room for it.
    fn send(
        &mut self,
        (link, key): (LinkId, SubscriptionKey),
        message: &Message,
        missed: Option<&mut u64>,
        cx: &mut Context<'_>,
    ) -> bool {
        let most = if missed.is_some() { BEFORE_BYTES } else { LINK_BYTES };
        let Some(peer) = self.peers.get_mut(link) else { return false };
        if !peer.has_room(message.frame_bytes(), most, cx.now) {
            return false;
        }
        peer.spend(message.frame_bytes(), cx.now);
        self.spend();
        self.spend_bytes(message.frame_bytes());
        let subscription = &mut self.subscriptions[key];
        if let Subscriber::Link { link, number } = subscription.subscriber {
            cx.out.push(subscription.message((link, number), message, missed));
        }
        true
    }

    fn send_before(
        &mut self,
        (link, key): (LinkId, SubscriptionKey),
        mut catch_up: Box<CatchUp>,
        cx: &mut Context<'_>,
    ) -> (State, Progress) {
        let old = catch_up.ring;
        let is_done = self.send_values((link, key), &mut catch_up, cx)
            && self.send_ring((link, key), &mut catch_up, cx);
        if old != catch_up.ring {
            if let Some(next) = old {
                self.ring_readers.remove(&(next, key));
            }
            if let Some(next) = catch_up.ring {
                self.ring_readers.insert((next, key));
            }
        }
        if !is_done {
            return (State::CatchingUp(catch_up), Progress::NoRoom);
        }
        let subscription = &mut self.subscriptions[key];
        if let Subscriber::Link { number, .. } = subscription.subscriber {
            let dropped = std::mem::take(&mut subscription.untold) + catch_up.missed;
            let caught_up = CaughtUp { subscription: number, kept: catch_up.sent, dropped };
            self.spend();
            cx.out.push(Action::Send { link, frame: Frame::CaughtUp(caught_up) });
        }
        match catch_up.queue.is_empty() {
            true => (State::Live, Progress::Done),
            false => (State::Queued(Box::new(catch_up.queue)), Progress::More),
        }
    }

    /// Sends values that are kept. Returns whether none is left.
    fn send_values(
        &mut self,
        (link, key): (LinkId, SubscriptionKey),
        catch_up: &mut CatchUp,
        cx: &mut Context<'_>,
    ) -> bool {
        let Some(left) = &mut catch_up.values else { return true };
        loop {
            let next = self.retained.behind(left.after.as_ref(), Some(&catch_up.pattern)).next();
            let Some((topic, kept)) = next else {
                catch_up.values = None;
                return true;
            };
            if !self.has_left() {
                return false;
            }
            let topic = topic.clone();
            if kept.message.number <= left.up_to && catch_up.pattern.matches(&topic) {
                let message = kept.message.clone();
                if !self.send((link, key), &message, Some(&mut catch_up.missed), cx) {
                    return false;
                }
                catch_up.sent += 1;
            } else {
                self.spend();
            }
            left.after = Some(topic);
        }
    }

    /// Sends messages of the ring. Returns whether none is left.
    fn send_ring(
        &mut self,
        (link, key): (LinkId, SubscriptionKey),
        catch_up: &mut CatchUp,
        cx: &mut Context<'_>,
    ) -> bool {
        let since = self.subscriptions[key].since;
        while let Some(next) = catch_up.ring {
            let message = self.ring.from(next).next().filter(|message| message.number <= since);
            let Some(message) = message else {
                catch_up.ring = None;
                break;
            };
            if !self.has_left() {
                return false;
            }
            let number = message.number;
            if catch_up.pattern.matches(message.topic()) {
                let message = message.clone();
                if !self.send((link, key), &message, Some(&mut catch_up.missed), cx) {
                    return false;
                }
                catch_up.sent += 1;
            } else {
                self.spend();
            }
            catch_up.ring = Some(number + 1).filter(|next| *next <= since);
        }
        true
    }
}
