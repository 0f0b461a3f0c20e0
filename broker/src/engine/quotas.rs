//! Limits how many facts peers may cause, so that they can't flood the log. Facts about what
//! operators and the broker itself do are always recorded. Each class of facts has a rate for one
//! connection and one for all peers together; facts beyond it are counted, and the count is
//! recorded once a second. `show::brief` limits the length of texts.

use super::clients;
use super::due::Due;
use super::fact::{About, FactKind};
use super::{Engine, Out};
use protocol::ids::LinkId;
use protocol::quota::{Quota, Rate};
use std::collections::BTreeMap;

/// Most bytes of a peer's text in a fact.
pub(crate) const TEXT_BYTES_MAX: usize = 256;
/// The same for a line that a program wrote; its end may be what matters.
pub(crate) const LINE_BYTES_MAX: usize = 2048;
/// Most bytes in the text of a fact.
pub(crate) const FACT_BYTES_MAX: usize = 4096;
/// Milliseconds between two facts about facts that were left out.
const TELL_MS: u64 = 1000;
/// Most connections whose left-out facts are counted one by one, so that the worst can be named.
const NAMED_MAX: usize = 16;

/// The class of a fact, by who caused it and how often that is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// About a program that has not logged in.
    PreLogin,
    /// About a client or worker that has logged in, at a level above `debug`.
    LoggedIn,
    /// About a client or worker, at the level `debug`.
    LoggedInDebug,
    /// A self-started worker came or went.
    SelfStarted,
    /// About a host or its link.
    Host,
    /// A line that a program on a host wrote.
    Output,
}

const CLASSES: [Class; 6] = [
    Class::PreLogin,
    Class::LoggedIn,
    Class::LoggedInDebug,
    Class::SelfStarted,
    Class::Host,
    Class::Output,
];

impl Class {
    const fn index(self) -> usize {
        match self {
            Self::PreLogin => 0,
            Self::LoggedIn => 1,
            Self::LoggedInDebug => 2,
            Self::SelfStarted => 3,
            Self::Host => 4,
            Self::Output => 5,
        }
    }

    /// The rate for all peers together.
    const fn rate(self) -> Rate {
        let (burst, per_second) = match self {
            Self::PreLogin | Self::LoggedIn => (200, 20),
            Self::LoggedInDebug => (10_000, 1000),
            // After a restart of the broker, thousands of them may come back at once.
            Self::SelfStarted => (5000, 50),
            Self::Host => (500, 20),
            // An execd passes on 5000 lines a second; a line of more than 256 bytes counts as
            // several.
            Self::Output => (20_000, 10_000),
        };
        Rate { burst, per_second }
    }

    /// The rate for one connection.
    const fn share(self) -> Rate {
        let (burst, per_second) = match self {
            Self::PreLogin | Self::LoggedIn | Self::SelfStarted => (20, 2),
            Self::LoggedInDebug => (1000, 100),
            Self::Host => (100, 5),
            Self::Output => (12_000, 5000),
        };
        Rate { burst, per_second }
    }

    const fn word(self) -> &'static str {
        match self {
            Self::PreLogin => "about programs that have not logged in",
            Self::LoggedIn | Self::LoggedInDebug => "caused by clients and workers",
            Self::SelfStarted => "about workers that start themselves",
            Self::Host => "about hosts",
            Self::Output => "with lines that workers wrote",
        }
    }
}

/// The quotas of one connection: one for facts about it, one for the class that it causes many of.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Share([(Class, Quota); 2]);

impl Default for Share {
    fn default() -> Self {
        let of = |class: Class| (class, Quota::new(class.share()));
        Self([of(Class::PreLogin), of(Class::LoggedInDebug)])
    }
}

impl Share {
    /// The quota of this class. Each of the two entries is used by one class as long as the
    /// connection has the same end; a new class begins with a full quota.
    fn of(&mut self, class: Class) -> &mut Quota {
        let at = match class {
            Class::PreLogin | Class::LoggedIn | Class::SelfStarted | Class::Host => 0,
            Class::LoggedInDebug | Class::Output => 1,
        };
        let (of, quota) = &mut self.0[at];
        if *of != class {
            (*of, *quota) = (class, Quota::new(class.share()));
        }
        quota
    }
}

/// The quotas of all peers together, and the counts of facts left out in this second.
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
    /// Whether a peer may cause one more fact; if not, that is counted. Ask before making the text
    /// of the fact, because making it costs time, too.
    pub(crate) fn may_cause(&mut self, class: Class, link: Option<LinkId>) -> bool {
        self.may_cause_for(1, class, link)
    }

    /// The same for a line that a program wrote: each 256 bytes of it count as one more fact.
    pub(crate) fn may_pass_on(&mut self, line: &str, link: LinkId) -> bool {
        let bytes = line.len().min(FACT_BYTES_MAX);
        let count = 1 + (bytes / TEXT_BYTES_MAX) as u32;
        self.may_cause_for(count, Class::Output, Some(link))
    }

    fn may_cause_for(&mut self, count: u32, class: Class, link: Option<LinkId>) -> bool {
        let now = self.now;
        if let Some(slot) = link.and_then(|link| self.links.get_mut(link)) {
            let share = slot.share.of(class);
            // The connection's quota is used only if that of all peers has something left.
            if share.has(count, now) && self.quotas.all[class.index()].take_all(count, now) {
                return share.take_all(count, now);
            }
        } else if self.quotas.all[class.index()].take_all(count, now) {
            return true;
        }
        self.left_out(class, link);
        false
    }

    /// Counts a fact that is not recorded.
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

    /// `Due::LeftOut`: records how many facts were left out in the last second.
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
