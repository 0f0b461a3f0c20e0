//! What the machine owns, and how subscriptions begin and end.

use super::catch_up::{CatchUp, ValuesLeft};
use super::message::{FanOut, Message};
use super::peers::{Party, Peers};
use super::queue::QueueLimits;
use super::retained::{Orphans, Retained};
use super::ring::Ring;
use super::subscription::{State, Subscriber, Subscription};
use super::tree::Tree;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::keys::{NodeKey, OptionKey, ServiceKey, SubscriptionKey, Table};
use crate::engine::timers::Timer;
use protocol::bodies::{CaughtUp, Subscribe, Subscribed, Unsubscribed};
use protocol::messages::{Missing, Position};
use protocol::topics::Pattern;
use protocol::{ErrorBody, ErrorCode, Frame, Header, LinkId, Setting, Tick};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// Most messages that are sent, or values that are looked at, in one step.
pub(super) const STEP: usize = 2000;
/// Most bytes of the messages that are sent in one step, so that a large one to many readers does
/// not stand in all outboxes at once.
const STEP_BYTES: u64 = 16 << 20;
/// Most messages that are sent, or values that are looked at, because of what peers sent at one
/// tick: the reactor reads many frames before it sends anything.
const TICK: usize = 20 * STEP;
/// Room for so many subscriptions is never too much.
const CAPACITY_KEPT: usize = 4096;
/// How long what the broker itself publishes is kept after nobody subscribes to it any more, so
/// that who comes back at once misses nothing.
const KEEP_OWN_MS: u64 = 60_000;

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Topics {
    /// Tells this start of the broker from all others.
    pub(super) epoch: u64,
    /// Number of the newest message.
    pub(super) last: u64,
    /// Number of the newest message of the broker itself that nobody could get, so that it is not
    /// kept for those who come back.
    pub(super) unkept: u64,
    pub(super) tree: Tree,
    pub(super) subscriptions: Table<SubscriptionKey, Subscription>,
    /// How many of them are about the topics of the broker itself.
    pub(super) own: usize,
    /// When the last one of these ended; `None` = none has.
    own_left: Option<Tick>,
    pub(super) peers: Peers,
    /// The subscriptions of services.
    pub(super) services: BTreeMap<ServiceKey, SubscriptionKey>,
    pub(super) retained: Retained,
    pub(super) ring: Ring,
    /// Subscriptions that are still to be sent something of the ring, by the message that they look
    /// at next.
    pub(super) ring_readers: BTreeSet<(u64, SubscriptionKey)>,
    /// Messages that have not gone to all their subscriptions, oldest first. Those behind the first
    /// one have gone to none.
    pub(super) fan_outs: VecDeque<FanOut>,
    /// Links that are to be sent what waits for them.
    pub(super) turns: VecDeque<LinkId>,
    /// Subscriptions whose links are gone, to be removed.
    pub(super) gone: VecDeque<BTreeMap<u32, SubscriptionKey>>,
    /// Values whose publishers are gone.
    pub(super) orphans: Orphans,
    /// When to record how many messages to which link were dropped.
    pub(super) tellers: VecDeque<(Tick, LinkId)>,
    /// Bytes that wait for all subscriptions.
    pub(super) queued_bytes: u64,
    /// Used again for each message: the nodes that match.
    pub(super) found: Vec<NodeKey>,
    /// What is left to do in this step.
    left: usize,
    /// The same in bytes.
    bytes_left: u64,
    /// What is left to do at this tick because of what peers sent.
    left_at: (Option<Tick>, usize),
    /// When `Timer::Topics` is due.
    due: Option<Tick>,
}

impl Topics {
    /// Without subscriptions; `epoch` tells this start of the broker from all others.
    pub(crate) fn new(epoch: u64) -> Self {
        Self { epoch, ..Self::default() }
    }

    /// Something begins for which so much may be done in this step.
    pub(super) const fn begin(&mut self, left: usize) {
        (self.left, self.bytes_left) = (left, STEP_BYTES);
    }

    /// A peer has something done: less is done at once when much was at the same tick.
    pub(super) fn begin_for_peer(&mut self, cx: &Context<'_>) {
        if self.left_at.0 != Some(cx.now) {
            self.left_at = (Some(cx.now), TICK);
        }
        self.begin(STEP.min(self.left_at.1));
    }

    /// Whether more may be done in this step.
    pub(super) const fn has_left(&self) -> bool {
        self.left > 0 && self.bytes_left > 0
    }

    /// So many bytes were sent.
    pub(super) const fn spend_bytes(&mut self, bytes: u64) {
        self.bytes_left = self.bytes_left.saturating_sub(bytes);
    }

    /// One message was sent, or one value looked at.
    pub(super) const fn spend(&mut self) {
        self.spend_many(1);
    }

    /// Something was done that costs as much as so many of these.
    pub(super) const fn spend_many(&mut self, count: usize) {
        self.left = self.left.saturating_sub(count);
        self.left_at.1 = self.left_at.1.saturating_sub(count);
    }

    /// The newest message.
    pub(super) const fn position(&self) -> Position {
        Position { epoch: self.epoch, number: self.last }
    }

    /// What may wait for subscriptions.
    pub(super) fn queue_limits(cx: &Context<'_>) -> QueueLimits {
        QueueLimits {
            count: cx.settings.get(Setting::SubscriptionQueueMax),
            bytes: cx.settings.get(Setting::SubscriptionQueueBytesMax),
            all_bytes: cx.settings.get(Setting::SubscriptionQueuesBytesMax),
        }
    }

    /// A client or worker subscribes; it has the right to.
    pub(crate) fn subscribe(
        &mut self,
        (link, party): (LinkId, Party),
        body: &Subscribe,
        pattern: Pattern,
        cx: &mut Context<'_>,
    ) {
        self.begin_for_peer(cx);
        let number = body.subscription;
        let peer = self.peers.entry(link);
        peer.party = Some(party);
        if peer.subscriptions.contains_key(&number) {
            let text = format!("subscription {number} is there already; choose another number");
            return refuse(link, number, (ErrorCode::DuplicateSequence, text), cx);
        }
        let max = cx.settings.get(Setting::SubscriptionsMax);
        if peer.subscriptions.len() as u64 >= max {
            let text = format!(
                "this connection has {max} subscriptions already, and may have no more \
                 (subscriptions_max); end one, or raise the setting"
            );
            self.peers.tidy(link);
            return refuse(link, number, (ErrorCode::LimitReached, text), cx);
        }
        let key = self.insert(Subscriber::Link { link, number }, &pattern);
        self.peers.entry(link).subscriptions.insert(number, key);
        let (catch_up, missing) = self.before(pattern, body);
        let subscribed = Subscribed { subscription: number, at: self.position(), missing };
        cx.out.push(Action::Send { link, frame: Frame::Subscribed(subscribed) });
        if catch_up.values.is_none() && catch_up.ring.is_none() {
            let caught_up = CaughtUp { subscription: number, kept: 0, dropped: 0 };
            cx.out.push(Action::Send { link, frame: Frame::CaughtUp(caught_up) });
            return;
        }
        if let Some(next) = catch_up.ring {
            self.ring_readers.insert((next, key));
        }
        self.subscriptions[key].state = State::CatchingUp(Box::new(catch_up));
        self.has_waiting(link, key);
        self.drain(cx);
        self.set_timer(cx);
    }

    /// What a new subscription is sent from before, and what of it is not there any more.
    fn before(&self, pattern: Pattern, body: &Subscribe) -> (CatchUp, Option<Missing>) {
        // Behind this one, nothing is missing that the pattern may match.
        let lost = if pattern.is_own() { self.unkept } else { 0 }.max(self.ring.lost());
        let (missing, ring) = match body.from {
            None => (None, None),
            Some(from) if from.epoch != self.epoch || from.number > self.last => {
                (Some(Missing::Epoch), Some(lost + 1))
            }
            Some(from) if from.number < lost => {
                (Some(Missing::Numbers(from.number + 1, lost)), Some(lost + 1))
            }
            Some(from) => (None, Some(from.number + 1)),
        };
        let has_values = body.retained && (body.from.is_none() || missing.is_some());
        let up_to = ring.map_or(self.last, |next| next - 1);
        let values =
            (has_values && self.retained.len() > 0).then_some(ValuesLeft { after: None, up_to });
        let ring = ring.filter(|next| *next <= self.last);
        let queue = super::queue::Queue::default();
        (CatchUp { pattern, values, ring, missed: 0, sent: 0, queue }, missing)
    }

    /// The messages of a pattern become requests of a service. Another pattern replaces the one
    /// before.
    pub(crate) fn subscribe_service(&mut self, service: ServiceKey, pattern: &Pattern, now: Tick) {
        self.unsubscribe_service(service, now);
        let key = self.insert(Subscriber::Service(service), pattern);
        self.services.insert(service, key);
    }

    /// No messages become requests of a service any more.
    pub(crate) fn unsubscribe_service(&mut self, service: ServiceKey, now: Tick) {
        if let Some(key) = self.services.remove(&service) {
            self.remove(key, now);
        }
    }

    /// Whether what the broker itself publishes is kept: somebody subscribes to its topics, or did
    /// so a short while ago and may come back.
    pub(crate) fn keeps_own(&self, now: Tick) -> bool {
        self.own > 0 || self.own_left.is_some_and(|at| now < at.plus_millis(KEEP_OWN_MS))
    }

    /// The broker published something that nobody could get, and that is not kept.
    pub(crate) const fn pass_over_own(&mut self) {
        self.last += 1;
        self.unkept = self.last;
    }

    fn insert(&mut self, subscriber: Subscriber, pattern: &Pattern) -> SubscriptionKey {
        let of = (self.tree.grow(pattern.as_str()), pattern.is_own());
        self.own += usize::from(pattern.is_own());
        let key = self.subscriptions.insert(Subscription::new(subscriber, of, self.last));
        self.tree.append(key, &mut self.subscriptions);
        key
    }

    /// Ends a subscription; that it ends is known to its link already.
    fn remove(&mut self, key: SubscriptionKey, now: Tick) -> Subscription {
        // The message that is on its way goes on behind it.
        if let Some(fan_out) = self.fan_outs.front_mut()
            && fan_out.at == OptionKey::some(key)
        {
            fan_out.at = self.subscriptions[key].next;
        }
        self.tree.unlink(key, &mut self.subscriptions);
        let subscription = self.subscriptions.remove(key);
        if subscription.is_own {
            self.own -= 1;
            self.own_left = Some(now);
        }
        self.queued_bytes -= subscription.queue().map_or(0, super::queue::Queue::bytes);
        if let State::CatchingUp(catch_up) = &subscription.state
            && let Some(next) = catch_up.ring
        {
            self.ring_readers.remove(&(next, key));
        }
        subscription
    }

    /// Ends a subscription of a link, and frees its number.
    fn end(&mut self, link: LinkId, number: u32, now: Tick) -> Option<Subscription> {
        let peer = self.peers.get_mut(link)?;
        let key = peer.subscriptions.remove(&number)?;
        peer.waiting.remove(&key);
        let subscription = self.remove(key, now);
        self.peers.tidy(link);
        Some(subscription)
    }

    /// A client or worker ends a subscription.
    pub(crate) fn unsubscribe(&mut self, link: LinkId, number: u32, cx: &mut Context<'_>) {
        let Some(ended) = self.end(link, number, cx.now) else {
            let text = format!("this connection has no subscription {number}");
            return refuse(link, number, (ErrorCode::NotFound, text), cx);
        };
        let waiting = ended.queue().map_or(0, super::queue::Queue::len) as u64;
        let Subscription { delivered, dropped, .. } = ended;
        let dropped = dropped + waiting;
        let unsubscribed = Unsubscribed { subscription: number, delivered, dropped };
        cx.out.push(Action::Send { link, frame: Frame::Unsubscribed(unsubscribed) });
    }

    /// The rights of a link changed: ends its subscriptions that it may not have any more. Returns
    /// how many it had.
    pub(crate) fn end_denied(
        &mut self,
        link: LinkId,
        may: impl Fn(&Pattern) -> bool,
        cx: &mut Context<'_>,
    ) -> usize {
        let Some(peer) = self.peers.get(link) else { return 0 };
        let count = peer.subscriptions.len();
        let pattern = |key: SubscriptionKey| {
            Pattern::new(&self.tree.pattern(self.subscriptions[key].node)).ok()
        };
        let patterns = peer.subscriptions.iter().map(|(number, key)| (*number, pattern(*key)));
        let denied: Vec<(u32, Pattern)> = patterns
            .filter_map(|(number, pattern)| Some((number, pattern?)))
            .filter(|(_, pattern)| !may(pattern))
            .collect();
        for (number, pattern) in denied {
            self.end(link, number, cx.now);
            let text = format!(
                "subscription {number} to '{pattern}' ended: its rights changed, and the role \
                 subscribe:{pattern} is needed"
            );
            refuse(link, number, (ErrorCode::Denied, text), cx);
        }
        count
    }

    /// A link is gone.
    pub(crate) fn link_gone(&mut self, link: LinkId, cx: &mut Context<'_>) {
        let Some(peer) = self.peers.remove(link) else { return };
        if !peer.values.is_empty() {
            self.orphans.push_back((link, peer.values));
        }
        if !peer.subscriptions.is_empty() {
            self.gone.push_back(peer.subscriptions);
            self.begin_for_peer(cx);
            self.remove_gone(cx.now);
        }
        self.set_timer(cx);
    }

    /// Removes subscriptions whose links are gone, some in a step. Nothing is sent to them any
    /// more.
    fn remove_gone(&mut self, now: Tick) {
        while self.has_left()
            && let Some(subscriptions) = self.gone.front_mut()
        {
            let Some((_, key)) = subscriptions.pop_first() else {
                self.gone.pop_front();
                continue;
            };
            self.remove(key, now);
            self.spend();
        }
        if self.gone.front().is_some_and(BTreeMap::is_empty) {
            self.gone.pop_front();
        }
    }

    /// Whether a link has subscriptions.
    pub(crate) fn has_subscriptions(&self, link: LinkId) -> bool {
        self.peers.get(link).is_some_and(|peer| !peer.subscriptions.is_empty())
    }

    /// Too much waits to be sent to a link.
    pub(crate) fn congested(&mut self, link: LinkId) {
        self.peers.entry(link).is_congested = true;
    }

    /// No more.
    pub(crate) fn uncongested(&mut self, link: LinkId, cx: &mut Context<'_>) {
        let Some(peer) = self.peers.get_mut(link) else { return };
        peer.is_congested = false;
        let has_waiting = !peer.waiting.is_empty();
        self.peers.tidy(link);
        if has_waiting {
            self.begin_for_peer(cx);
            self.take_turn(link);
            self.drain(cx);
            self.set_timer(cx);
        }
    }

    /// `Timer::Topics`: goes on with what was not finished.
    pub(crate) fn on_due(&mut self, cx: &mut Context<'_>) {
        if self.due.is_some_and(|due| due <= cx.now) {
            self.due = None;
        }
        // Neither new messages nor those that wait keep the others from being sent.
        let (fan_outs, drain) = match (self.fan_outs.is_empty(), self.turns.is_empty()) {
            (false, true) => (STEP, 0),
            (true, _) => (0, STEP),
            (false, false) => (STEP / 2, STEP / 2),
        };
        self.begin(fan_outs);
        self.go_on_fan_outs(cx);
        self.begin(drain);
        self.drain(cx);
        self.begin(STEP / 2);
        self.remove_gone(cx.now);
        self.begin(STEP / 2);
        self.remove_values(cx);
        self.begin(STEP);
        self.trim_ring(cx);
        self.tell_drops(cx);
        self.set_timer(cx);
    }

    /// Sets the timer for what is to be done next.
    pub(super) fn set_timer(&mut self, cx: &mut Context<'_>) {
        let is_busy = !self.fan_outs.is_empty()
            || !self.turns.is_empty()
            || !self.orphans.is_empty()
            || !self.gone.is_empty()
            || self.has_excess(cx)
            || self.has_ring_excess(cx);
        let next = if is_busy {
            // At the next tick, so after everything that can be done now.
            Some(Tick(cx.now.0 + 1))
        } else {
            let expiry = self.retained.first_expiry().map(|(at, _)| at);
            let teller = self.tellers.front().map(|(at, _)| *at);
            expiry.into_iter().chain(teller).min().map(|at| at.max(Tick(cx.now.0 + 1)))
        };
        let Some(next) = next else { return };
        if self.due.is_none_or(|due| next < due) {
            self.due = Some(next);
            cx.timers.add(next, Timer::Topics);
        }
    }

    /// Whether it holds memory for many more subscriptions than there are.
    pub(crate) fn has_spare_capacity(&self) -> bool {
        let room = self.subscriptions.capacity();
        room > CAPACITY_KEPT && self.subscriptions.len() < room / 4
    }

    /// Gives back the memory of a burst.
    pub(crate) fn shrink(&mut self) {
        self.tree.shrink();
        self.subscriptions.shrink_to_fit();
        self.peers.shrink();
        self.ring.shrink();
        self.fan_outs.shrink_to_fit();
        self.turns.shrink_to_fit();
        self.found = Vec::new();
    }

    /// A message of the ring was given up, and subscriptions that were to be sent it miss it.
    pub(super) fn miss(&mut self, message: &Message, cx: &mut Context<'_>) {
        while let Some(&(next, key)) = self.ring_readers.first()
            && next <= message.number
        {
            self.ring_readers.pop_first();
            self.spend();
            let Subscription { subscriber, since, .. } = self.subscriptions[key];
            let State::CatchingUp(catch_up) = &mut self.subscriptions[key].state else { continue };
            let next = Some(message.number + 1).filter(|next| *next <= since);
            catch_up.ring = next;
            let is_missed = message.number <= since && catch_up.pattern.matches(message.topic());
            catch_up.missed += u64::from(is_missed);
            if let Some(next) = next {
                self.ring_readers.insert((next, key));
            }
            if is_missed {
                self.subscriptions[key].dropped += 1;
                if let Subscriber::Link { link, .. } = subscriber {
                    self.dropped(link, 1, cx);
                }
            }
        }
    }
}

/// Sends an error about a subscription or a message; the connection stays.
pub(crate) fn refuse(
    link: LinkId,
    sequence: u32,
    (code, text): (ErrorCode, String),
    cx: &mut Context<'_>,
) {
    let head = Header { sequence, ..Header::default() };
    let error = ErrorBody::new(code, text);
    cx.out.push(Action::Send { link, frame: Frame::Error { head, error } });
}
