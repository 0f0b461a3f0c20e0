//! What is promised to publishers and subscribers: lists, and `Pattern::matches`. It sees the
//! frames at the broker's port. All messages become known, because one subscriber that is never
//! slow has all topics.

use super::Broken;
use super::subscription::{Subscription, Wanted};
use bytes::Bytes;
use protocol::bodies::{CaughtUp, Published, Subscribe, Subscribed, Unsubscribed};
use protocol::errors::ErrorCode;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::messages::{MessageLines, Position, Removed, Retain};
use protocol::time::Tick;
use protocol::topics::{OWN_WORD, Pattern};
use std::collections::{BTreeMap, VecDeque};

/// How late the broker may be with what is due, in microseconds of its own time.
const LATE_US: u64 = 1_500_000;

/// A message that the broker took.
#[derive(Clone, Debug)]
pub struct Message {
    /// Its topic.
    pub topic: String,
    /// The lines and the payload.
    pub body: Bytes,
}

/// The value that is kept of a topic.
#[derive(Clone, Copy, Debug)]
pub struct Kept {
    /// The number of its message.
    pub number: u64,
    publisher: LinkId,
    is_connected: bool,
    expires: Option<Due>,
    /// Its publisher's connection is gone since.
    orphaned: Option<Due>,
}

/// A publish that came in, and whose message has no number yet.
#[derive(Clone, Debug)]
struct Waiting {
    link: LinkId,
    sequence: u32,
    body: Bytes,
    came: Due,
    /// Its link is gone, so that nobody knows what became of it.
    is_orphan: bool,
}

/// When something is due, and how long the broker had stood still before.
#[derive(Clone, Copy, Debug)]
struct Due {
    at: Tick,
    stood: u64,
}

/// Limits that the broker has.
#[derive(Clone, Copy, Debug, Default)]
pub struct Limits {
    /// `retained_max`.
    pub retained: u64,
    /// `subscriptions_max`.
    pub subscriptions: u64,
}

/// All that is known of topics.
#[derive(Debug, Default)]
pub struct Topics {
    /// The present broker's.
    messages: BTreeMap<u64, Message>,
    epoch: Option<u64>,
    epochs: Vec<u64>,
    last: u64,
    kept: BTreeMap<String, Kept>,
    waiting: VecDeque<Waiting>,
    wanted: BTreeMap<(LinkId, u32), VecDeque<Wanted>>,
    subscriptions: BTreeMap<(LinkId, u32), Subscription>,
    /// Unsubscribes that have no answer yet, and whether there was such a subscription.
    unsubscribes_open: VecDeque<(LinkId, u32, bool)>,
    /// Frames that were too large to be looked at.
    too_large: Vec<(LinkId, u32)>,
    limits: Limits,
    /// How long the broker has stood still so far, in microseconds.
    pub stood: u64,
}

fn is_own(topic: &str) -> bool {
    topic.split('.').next() == Some(OWN_WORD)
}

impl Topics {
    /// The broker has these limits.
    pub fn limit(&mut self, limits: Limits) {
        self.limits = limits;
    }

    /// The broker is gone, and all that it kept.
    pub fn broker_gone(&mut self) {
        let epochs = std::mem::take(&mut self.epochs);
        *self = Self { epochs, limits: self.limits, stood: self.stood, ..Self::default() };
    }

    /// A link is gone, and its subscriptions.
    pub fn link_gone(&mut self, link: LinkId, now: Tick) {
        let gone = self.due(now);
        self.subscriptions.retain(|(of, _), _| *of != link);
        self.wanted.retain(|(of, _), _| *of != link);
        self.unsubscribes_open.retain(|(of, ..)| *of != link);
        self.too_large.retain(|(of, _)| *of != link);
        for waiting in self.waiting.iter_mut().filter(|waiting| waiting.link == link) {
            waiting.is_orphan = true;
        }
        for kept in self.kept.values_mut().filter(|kept| kept.publisher == link) {
            if kept.is_connected {
                kept.orphaned = Some(gone);
            }
        }
    }

    const fn due(&self, at: Tick) -> Due {
        Due { at, stood: self.stood }
    }

    /// A message by its number.
    pub fn message(&self, number: u64) -> Option<&Message> {
        self.messages.get(&number)
    }

    /// The numbers of the messages that a pattern matches, after the first number.
    pub fn matching(&self, pattern: &Pattern, after: u64) -> Vec<u64> {
        let later = self.messages.range(after + 1..);
        later.filter(|(_, m)| pattern.matches(&m.topic)).map(|(number, _)| *number).collect()
    }

    /// The present start of the broker, if anybody was told.
    pub const fn epoch(&self) -> Option<u64> {
        self.epoch
    }

    fn is_at(&mut self, at: Position) -> Result<(), Broken> {
        match self.epoch {
            Some(epoch) if epoch == at.epoch => Ok(()),
            Some(epoch) => Err(format!("the epoch was {epoch} and is {}", at.epoch)),
            None if self.epochs.last().is_some_and(|last| *last >= at.epoch) => {
                Err(format!("epoch {} follows {:?}", at.epoch, self.epochs))
            }
            None => {
                self.epoch = Some(at.epoch);
                self.epochs.push(at.epoch);
                Ok(())
            }
        }
    }

    /// A frame came in that was too large to be looked at.
    pub fn came_too_large(&mut self, link: LinkId, sequence: u32) {
        self.too_large.push((link, sequence));
    }

    /// A publish comes in.
    pub fn publishes(&mut self, link: LinkId, head: &Header, body: &Bytes, now: Tick) {
        let (sequence, body) = (head.sequence, body.clone());
        let came = self.due(now);
        self.waiting.push_back(Waiting { link, sequence, body, came, is_orphan: false });
    }

    /// For what a publish must be refused when the broker decides about it, which is not when it
    /// came: before that the broker may look at its clock, and remove values that are over.
    fn refusal(&self, body: &[u8]) -> Option<ErrorCode> {
        let Ok(lines) = MessageLines::read(body) else { return Some(ErrorCode::BadMessage) };
        if lines.removed.is_some_and(|removed| removed != Removed::Deleted) {
            return Some(ErrorCode::BadMessage);
        }
        if is_own(lines.topic) {
            return Some(ErrorCode::Denied);
        }
        let is_full = self.kept.len() as u64 >= self.limits.retained;
        let is_further = lines.retain != Retain::No && !self.kept.contains_key(lines.topic);
        (is_full && is_further).then_some(ErrorCode::LimitReached)
    }

    /// An error goes to a publisher, subscriber or unsubscriber.
    ///
    /// # Errors
    /// Nothing that it sent is to be answered so.
    pub fn refused(&mut self, link: LinkId, sequence: u32, code: ErrorCode) -> Result<(), Broken> {
        let large = self.too_large.iter().position(|large| *large == (link, sequence));
        if let Some(at) = large.filter(|_| code == ErrorCode::BodyTooLarge) {
            self.too_large.remove(at);
            return Ok(());
        }
        let of = |w: &Waiting| w.link == link && w.sequence == sequence;
        if let Some(at) = self.waiting.iter().position(of) {
            let waiting = self.waiting.remove(at);
            let must = waiting.and_then(|waiting| self.refusal(&waiting.body));
            return if must == Some(code) {
                Ok(())
            } else {
                Err(format!("publish {sequence} of link {link} is told {code}, not {must:?}"))
            };
        }
        if let Some(wanted) = self.wanted.get_mut(&(link, sequence)).and_then(VecDeque::pop_front) {
            return if wanted.refusals.contains(&code) {
                Ok(())
            } else {
                Err(format!("{wanted:?} of link {link} is told {code}"))
            };
        }
        match self
            .unsubscribes_open
            .iter()
            .position(|(of, number, _)| (*of, *number) == (link, sequence))
        {
            Some(at) => {
                let left = self.unsubscribes_open.remove(at);
                if code == ErrorCode::NotFound && left.is_some_and(|(.., was)| !was) {
                    Ok(())
                } else {
                    Err(format!("an unsubscribe of {sequence} of link {link} is told {code}"))
                }
            }
            None => Err(format!("link {link} is told {code} for {sequence}, which it never sent")),
        }
    }

    /// A message has its number.
    fn learn(&mut self, number: u64, body: &Bytes, now: Tick) -> Result<(), Broken> {
        if let Some(known) = self.messages.get(&number) {
            return if known.body == *body {
                Ok(())
            } else {
                Err(format!("message {number} is {:?}, and {:?}", text(&known.body), text(body)))
            };
        }
        if number <= self.last {
            return Err(format!("message {number} is new, and {} was before", self.last));
        }
        self.last = number;
        let Ok(lines) = MessageLines::read(body) else {
            return Err(format!("message {number} can't be read: {:?}", text(body)));
        };
        let topic = lines.topic.to_owned();
        let at = self.waiting.iter().position(|waiting| waiting.body == *body);
        let publisher = match at {
            Some(at) => {
                let link = self.waiting[at].link;
                let mut before = self.waiting.iter().take(at);
                if before.any(|w| w.link == link && self.refusal(&w.body).is_none()) {
                    return Err(format!("message {number} of link {link} overtakes another one"));
                }
                self.waiting.remove(at);
                if let Some(code) = self.refusal(body) {
                    return Err(format!("message {number} is published, {code} was due: {topic}"));
                }
                Some(link)
            }
            None => None,
        };
        match publisher {
            Some(link) => {
                let kept = Kept {
                    number,
                    publisher: link,
                    is_connected: lines.retain == Retain::Connected,
                    expires: lines.expires_ms.map(|ms| self.due(now.plus_millis(ms))),
                    orphaned: None,
                };
                if lines.retain != Retain::No {
                    self.kept.insert(topic.clone(), kept);
                } else if lines.removed.is_some() {
                    self.kept.remove(&topic);
                }
            }
            None => self.brokers_own(number, &lines, now)?,
        }
        for subscription in self.subscriptions.values_mut() {
            if number > subscription.at.number && subscription.pattern.matches(&topic) {
                subscription.owed.push_back(number);
            }
        }
        self.messages.insert(number, Message { topic, body: body.clone() });
        Ok(())
    }

    /// What nobody published the broker says itself: under its own word, or that a value is gone.
    fn brokers_own(
        &mut self,
        number: u64,
        lines: &MessageLines<'_>,
        now: Tick,
    ) -> Result<(), Broken> {
        if lines.retain != Retain::No {
            return Err(format!("message {number}, to be kept, was published by nobody"));
        }
        let Some(removed) = lines.removed else {
            return if is_own(lines.topic) {
                Ok(())
            } else {
                Err(format!("message {number} of '{}' was published by nobody", lines.topic))
            };
        };
        let Some(kept) = self.kept.remove(lines.topic) else {
            return Err(format!("'{}' is {}, and was not kept", lines.topic, removed.word()));
        };
        let is_true = match removed {
            Removed::Expired => kept.expires.is_some_and(|due| due.at <= now),
            Removed::OwnerGone => kept.orphaned.is_some(),
            Removed::Deleted | Removed::Evicted => false,
        };
        if is_true {
            Ok(())
        } else {
            Err(format!("'{}' is {} at {now:?}: {kept:?}", lines.topic, removed.word()))
        }
    }

    /// The answer to a publish leaves.
    ///
    /// # Errors
    /// It has another number, or matches more or fewer.
    pub fn published(&mut self, link: LinkId, said: &Published, now: Tick) -> Result<(), Broken> {
        self.is_at(said.at)?;
        let of = |w: &&Waiting| w.link == link && w.sequence == said.publish;
        let waiting = self.waiting.iter().find(of).map(|waiting| waiting.body.clone());
        if let Some(body) = waiting {
            self.learn(said.at.number, &body, now)?;
        }
        let Some(message) = self.messages.get(&said.at.number) else {
            return Err(format!("{said:?} of link {link}, which published nothing"));
        };
        let all = self.subscriptions.values();
        let count = all.filter(|s| s.pattern.matches(&message.topic)).count() as u64;
        if count == said.subscriptions {
            Ok(())
        } else {
            Err(format!("{said:?}: '{}' matches {count} subscriptions", message.topic))
        }
    }

    /// A message leaves for a subscriber.
    ///
    /// # Errors
    /// It does not match, comes twice or out of order, or what was dropped is miscounted.
    pub fn message_goes(
        &mut self,
        link: LinkId,
        head: &Header,
        body: &Bytes,
        now: Tick,
    ) -> Result<(), Broken> {
        self.learn(head.transaction, body, now)?;
        let Some(message) = self.messages.get(&head.transaction) else { return Ok(()) };
        let Some(subscription) = self.subscriptions.get_mut(&(link, head.sequence)) else {
            return Err(format!(
                "link {link} gets message {} of subscription {}, which it has not",
                head.transaction, head.sequence
            ));
        };
        if !subscription.pattern.matches(&message.topic) {
            return Err(format!(
                "'{}' goes to link {link} subscription {} of '{}'",
                message.topic, head.sequence, subscription.pattern
            ));
        }
        let kept = self.kept.get(&message.topic).map(|kept| kept.number);
        subscription
            .goes(head, kept)
            .map_err(|why| format!("link {link} subscription {}: {why}", head.sequence))
    }

    /// A client subscribes.
    pub fn subscribes(&mut self, link: LinkId, subscribe: &Subscribe) {
        let number = subscribe.subscription;
        let mut refusals = Vec::new();
        let pattern = Pattern::new(&subscribe.pattern);
        match &pattern {
            Err(_) => refusals.push(ErrorCode::BadMessage),
            Ok(pattern) => {
                let words: Vec<&str> = pattern.words().take(2).collect();
                if words[0] == OWN_WORD && words.get(1) != Some(&"state") {
                    refusals.push(ErrorCode::Denied);
                }
            }
        }
        if self.subscriptions.contains_key(&(link, number)) {
            refusals.push(ErrorCode::DuplicateSequence);
        }
        let count = self.subscriptions.keys().filter(|(of, _)| *of == link).count() as u64;
        if count >= self.limits.subscriptions {
            refusals.push(ErrorCode::LimitReached);
        }
        let (from, retained) = (subscribe.from, subscribe.retained);
        let wanted = Wanted { pattern: pattern.ok(), from, retained, refusals };
        self.wanted.entry((link, number)).or_default().push_back(wanted);
    }

    /// The spy subscribes: it may all.
    pub fn spy_subscribes(&mut self, link: LinkId, subscription: u32, pattern: &str) {
        let pattern = Pattern::new(pattern).ok();
        let wanted = Wanted { pattern, from: None, retained: true, refusals: Vec::new() };
        self.wanted.entry((link, subscription)).or_default().push_back(wanted);
    }

    /// The answer to a subscribe leaves.
    ///
    /// # Errors
    /// It was to be refused, or what is missing is not true.
    pub fn subscribed(&mut self, link: LinkId, said: &Subscribed) -> Result<(), Broken> {
        self.is_at(said.at)?;
        let key = (link, said.subscription);
        let wanted = self.wanted.get_mut(&key).and_then(VecDeque::pop_front);
        let Some(Wanted { pattern: Some(pattern), from, retained, refusals }) = wanted else {
            return Err(format!("{said:?} of link {link}, which wanted nothing valid"));
        };
        if !refusals.is_empty() {
            return Err(format!("{said:?} of link {link}, {refusals:?} was due"));
        }
        if said.at.number < self.last {
            return Err(format!("{said:?} of link {link}, message {} was before", self.last));
        }
        let mut subscription = Subscription::new(pattern, said);
        subscription.is_from(from, retained, &self.messages, &self.kept)?;
        self.subscriptions.insert(key, subscription);
        Ok(())
    }

    /// All from before was sent.
    ///
    /// # Errors
    /// It was not.
    pub fn caught_up(&mut self, link: LinkId, said: &CaughtUp) -> Result<(), Broken> {
        let Some(subscription) = self.subscriptions.get_mut(&(link, said.subscription)) else {
            return Err(format!("{said:?} of link {link}, which has no such subscription"));
        };
        let kept = self.kept.values().map(|kept| kept.number).collect();
        subscription.is_caught_up(said, &kept).map_err(|why| {
            format!(
                "link {link} subscription {} of '{}': {why}",
                said.subscription, subscription.pattern
            )
        })
    }

    /// A client wants no more messages of a subscription.
    pub fn unsubscribes(&mut self, link: LinkId, number: u32) {
        let is_there = self.subscriptions.contains_key(&(link, number));
        self.unsubscribes_open.push_back((link, number, is_there));
    }

    /// The answer to an unsubscribe leaves.
    ///
    /// # Errors
    /// The figures are wrong.
    pub fn unsubscribed(&mut self, link: LinkId, said: &Unsubscribed) -> Result<(), Broken> {
        let of =
            |(at, number, _): &(LinkId, u32, bool)| (*at, *number) == (link, said.subscription);
        let at = self.unsubscribes_open.iter().position(of);
        if at.and_then(|at| self.unsubscribes_open.remove(at)).is_none() {
            return Err(format!("{said:?} of link {link}, which did not unsubscribe"));
        }
        let Some(subscription) = self.subscriptions.remove(&(link, said.subscription)) else {
            return Err(format!("{said:?} of link {link}, which has no such subscription"));
        };
        subscription.has_left(said)
    }

    /// After each step, by the time in which the broker did not stand still: what was taken is
    /// published, and no value is kept too long.
    ///
    /// # Errors
    /// Names it.
    pub fn check(&self, now: Tick) -> Result<(), Broken> {
        let is_late = |due: Due| due.at.0 + LATE_US + (self.stood - due.stood) < now.0;
        let lost = self.waiting.iter().find(|w| !w.is_orphan && is_late(w.came));
        if let Some(lost) = lost {
            return Err(format!(
                "publish {} of link {} is neither published nor refused ({:?} was due)",
                lost.sequence,
                lost.link,
                self.refusal(&lost.body)
            ));
        }
        for (topic, kept) in &self.kept {
            if kept.expires.is_some_and(is_late) {
                return Err(format!("'{topic}' has expired and is still kept: {kept:?}"));
            }
            if kept.orphaned.is_some_and(is_late) {
                return Err(format!("'{topic}' is kept without its publisher: {kept:?}"));
            }
        }
        Ok(())
    }

    /// The subscriptions, with who has them.
    pub fn subscriptions(&self) -> impl Iterator<Item = (&(LinkId, u32), &Subscription)> {
        self.subscriptions.iter()
    }
}

/// The beginning of a body, to be read by people.
fn text(body: &[u8]) -> String {
    String::from_utf8_lossy(&body[..body.len().min(80)]).into_owned()
}
