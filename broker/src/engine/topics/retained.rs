//! The last message of each topic that is kept (`retain`), within two limits.

use super::message::Message;
use super::peers::Party;
use protocol::topics::Pattern;
use protocol::{LinkId, Tick};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::ops::Bound::{Excluded, Included, Unbounded};
use std::sync::Arc;

/// Links that are gone, and the topics of the values that were to end with them.
pub(super) type Orphans = VecDeque<(LinkId, BTreeSet<Arc<str>>)>;

/// The value of a topic.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) message: Message,
    /// When it was published.
    pub(super) at: Tick,
    /// When it is kept no longer; `None` = at no time.
    pub(super) expires: Option<Tick>,
    /// Who published it.
    pub(super) party: Party,
    /// The connection with which it ends (`retain connected`).
    pub(super) owner: Option<LinkId>,
}

/// All values, by topic.
#[derive(Debug, Default)]
pub(super) struct Retained {
    values: BTreeMap<Arc<str>, Kept>,
    by_number: BTreeMap<u64, Arc<str>>,
    expiries: BTreeSet<(Tick, Arc<str>)>,
    bytes: u64,
}

impl Retained {
    /// The value of a topic.
    pub(super) fn get(&self, topic: &str) -> Option<&Kept> {
        self.values.get(topic)
    }

    /// How many values there are, and the bytes of their messages, if this topic had a value of
    /// this size.
    pub(super) fn with(&self, topic: &str, size: u64) -> (u64, u64) {
        let old = self.values.get(topic);
        let count = self.values.len() as u64 + u64::from(old.is_none());
        (count, self.bytes - old.map_or(0, |kept| kept.message.bytes()) + size)
    }

    /// Keeps a value in place of the one before. Returns its topic.
    pub(super) fn put(&mut self, kept: Kept) -> Arc<str> {
        let topic: Arc<str> = kept.message.topic().into();
        self.by_number.insert(kept.message.number, topic.clone());
        self.bytes += kept.message.bytes();
        if let Some(at) = kept.expires {
            self.expiries.insert((at, topic.clone()));
        }
        self.values.insert(topic.clone(), kept);
        topic
    }

    /// Takes the value of a topic out.
    pub(super) fn remove(&mut self, topic: &str) -> Option<Kept> {
        let (topic, kept) = self.values.remove_entry(topic)?;
        self.by_number.remove(&kept.message.number);
        self.bytes -= kept.message.bytes();
        if let Some(at) = kept.expires {
            self.expiries.remove(&(at, topic));
        }
        Some(kept)
    }

    /// The topic whose value is over first, and when.
    pub(super) fn first_expiry(&self) -> Option<(Tick, &Arc<str>)> {
        self.expiries.first().map(|(at, topic)| (*at, topic))
    }

    /// The topic whose value is oldest.
    pub(super) fn oldest(&self) -> Option<&Arc<str>> {
        self.by_number.values().next()
    }

    /// The topics behind `after` that a pattern may match, in order. Where the pattern begins with
    /// words that it names, only those that begin with them.
    pub(super) fn behind<'a>(
        &'a self,
        after: Option<&Arc<str>>,
        pattern: Option<&'a Pattern>,
    ) -> impl Iterator<Item = (&'a Arc<str>, &'a Kept)> {
        let text = pattern.map_or(">", Pattern::as_str);
        // A pattern without wildcards is a topic; what else begins with it is no match.
        let prefix = &text[..text.find(['*', '>']).unwrap_or(text.len())];
        let from = match after {
            Some(after) => Excluded(&**after),
            None => Included(prefix),
        };
        let is_one = prefix.len() == text.len();
        let range = self.values.range::<str, _>((from, Unbounded));
        range.take_while(move |(topic, _)| match is_one {
            true => topic.as_ref() == prefix,
            false => topic.starts_with(prefix),
        })
    }

    /// Number of values.
    pub(super) fn len(&self) -> usize {
        self.values.len()
    }

    /// Bytes of their messages.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// All values, by topic.
    pub(super) fn iter(&self) -> impl Iterator<Item = (&Arc<str>, &Kept)> {
        self.values.iter()
    }

    /// How many values the lists by number and by expiry have; for the laws.
    pub(super) fn listed(&self) -> (usize, usize) {
        (self.by_number.len(), self.expiries.len())
    }
}
