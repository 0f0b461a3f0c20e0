//! Limits how many facts peers may cause. What operators and the broker itself do is always
//! recorded. Clients, workers, hosts and connections before their login each have a rate for one
//! connection and one for the whole class; what exceeds it is counted, and the count is recorded
//! once a second. `show::brief` limits the length of texts.

use super::clients;
use super::due::Due;
use super::fact::{About, FactKind};
use super::{Engine, Out};
use protocol::ids::LinkId;
use protocol::quota::{Quota, Rate};
use std::collections::BTreeMap;

/// Most bytes of a text of a peer that stand in a fact.
pub(crate) const TEXT_BYTES_MAX: usize = 256;
/// The same for a line that a program wrote, whose end may be what matters.
pub(crate) const LINE_BYTES_MAX: usize = 2048;
/// Most bytes of the text of any fact.
pub(crate) const FACT_BYTES_MAX: usize = 4096;
/// How often it is recorded what was left out.
const TELL_MS: u64 = 1000;
/// Connections whose share in that is counted.
const NAMED_MAX: usize = 16;

/// Who caused a fact.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// Somebody who has not logged in.
    PreLogin,
    /// A client or worker, and the fact stands in the log.
    Logged,
    /// A client or worker, and the fact is of interest only when looking for something.
    Unlogged,
    /// A worker that starts itself came or went.
    SelfStarted,
    /// A host, of itself or its link.
    Host,
    /// A line that a program on a host wrote.
    Output,
}

const CLASSES: [Class; 6] = [
    Class::PreLogin,
    Class::Logged,
    Class::Unlogged,
    Class::SelfStarted,
    Class::Host,
    Class::Output,
];

impl Class {
    const fn index(self) -> usize {
        match self {
            Self::PreLogin => 0,
            Self::Logged => 1,
            Self::Unlogged => 2,
            Self::SelfStarted => 3,
            Self::Host => 4,
            Self::Output => 5,
        }
    }

    /// For all peers together.
    const fn rate(self) -> Rate {
        let (burst, per_second) = match self {
            Self::PreLogin | Self::Logged => (200, 20),
            Self::Unlogged => (10_000, 1000),
            // Each of some thousand comes back after the broker was away.
            Self::SelfStarted => (5000, 50),
            Self::Host => (500, 20),
            // An execd passes on 5000 a second. One that is longer than 256 bytes is several.
            Self::Output => (20_000, 10_000),
        };
        Rate { burst, per_second }
    }

    /// For one connection.
    const fn share(self) -> Rate {
        let (burst, per_second) = match self {
            Self::PreLogin | Self::Logged | Self::SelfStarted => (20, 2),
            Self::Unlogged => (1000, 100),
            Self::Host => (100, 5),
            Self::Output => (12_000, 5000),
        };
        Rate { burst, per_second }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::PreLogin => "about programs that have not logged in",
            Self::Logged | Self::Unlogged => "caused by clients and workers",
            Self::SelfStarted => "about workers that start themselves",
            Self::Host => "about hosts",
            Self::Output => "with lines that workers wrote",
        }
    }
}

/// The shares of one connection: one for facts about it, one for what it makes much of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share([(Class, Quota); 2]);

impl Default for Share {
    fn default() -> Self {
        let of = |class: Class| (class, Quota::new(class.share()));
        Self([of(Class::PreLogin), of(Class::Unlogged)])
    }
}

impl Share {
    /// What is left of this class. Each of the two places is used by one class as long as the same
    /// end stands at the connection.
    fn of(&mut self, class: Class) -> &mut Quota {
        let at = match class {
            Class::PreLogin | Class::Logged | Class::SelfStarted | Class::Host => 0,
            Class::Unlogged | Class::Output => 1,
        };
        let (of, quota) = &mut self.0[at];
        if *of != class {
            (*of, *quota) = (class, Quota::new(class.share()));
        }
        quota
    }
}

/// What is left for all, and what was left out.
#[derive(Debug)]
pub(crate) struct Quotas {
    all: [Quota; CLASSES.len()],
    dropped: [u64; CLASSES.len()],
    by: BTreeMap<LinkId, (u64, String)>,
    is_due: bool,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            all: CLASSES.map(|class| Quota::new(class.rate())),
            dropped: [0; CLASSES.len()],
            by: BTreeMap::new(),
            is_due: false,
        }
    }
}

impl Engine {
    /// Whether a peer may cause one more fact; if not, that is counted. Asked before the fact's
    /// text is made, which would be work, too.
    pub(crate) fn may_cause(&mut self, class: Class, link: Option<LinkId>) -> bool {
        self.may_cause_for(1, class, link)
    }

    /// The same for a line that a program wrote: a long one counts as several.
    pub(crate) fn may_pass_on(&mut self, line: &str, link: LinkId) -> bool {
        let bytes = line.len().min(FACT_BYTES_MAX);
        let count = 1 + (bytes / TEXT_BYTES_MAX) as u32;
        self.may_cause_for(count, Class::Output, Some(link))
    }

    fn may_cause_for(&mut self, count: u32, class: Class, link: Option<LinkId>) -> bool {
        let now = self.now;
        if let Some(slot) = link.and_then(|link| self.links.get_mut(link)) {
            let share = slot.share.of(class);
            // Taken only with one of all: whoever gets none has not used his own.
            if share.has(count, now) && self.quotas.all[class.index()].take_all(count, now) {
                return share.take_all(count, now);
            }
        } else if self.quotas.all[class.index()].take_all(count, now) {
            return true;
        }
        self.left_out(class, link);
        false
    }

    /// A fact was left out.
    pub(crate) fn left_out(&mut self, class: Class, link: Option<LinkId>) {
        let quotas = &mut self.quotas;
        quotas.dropped[class.index()] += 1;
        if let Some(link) = link
            && let Some(slot) = self.links.get(link)
            && (quotas.by.len() < NAMED_MAX || quotas.by.contains_key(&link))
        {
            let name = || (0, clients::from(&slot.peer));
            quotas.by.entry(link).or_insert_with(name).0 += 1;
        }
        if !std::mem::replace(&mut quotas.is_due, true) {
            self.due.add(self.now.plus_millis(TELL_MS), Due::LeftOut);
        }
    }

    /// Says what was left out in the last second.
    pub(crate) fn on_left_out_due(&mut self, out: Out<'_>) {
        let quotas = &mut self.quotas;
        quotas.is_due = false;
        let dropped = std::mem::take(&mut quotas.dropped);
        let most = std::mem::take(&mut quotas.by).into_values().max();
        let parts: Vec<String> = CLASSES
            .iter()
            .filter(|class| dropped[class.index()] > 0)
            .map(|class| format!("{} {}", dropped[class.index()], class.word()))
            .collect();
        let count: u64 = dropped.iter().sum();
        let most = most.map_or_else(String::new, |(count, from)| format!("; {count} of {from}"));
        let text = format!(
            "{count} facts were left out, more than are recorded in a second: {}{most}",
            parts.join(", ")
        );
        self.record(FactKind::FactsLeftOut, About::default(), text, out);
    }
}
