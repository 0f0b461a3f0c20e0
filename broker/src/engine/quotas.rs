//! Limits how many facts peers may cause, so that they can't flood the log. Facts about what
//! operators and the broker itself do are always recorded. Each class of facts has a rate for one
//! connection and one for all peers together; facts beyond it are counted, and the count is
//! recorded once a second. `show::brief` limits the length of texts.

use protocol::quota::{Quota, Rate};
use protocol::{LinkId, Tick};
use std::collections::BTreeMap;

/// Most bytes of a peer's text in a fact.
pub(crate) const TEXT_BYTES_MAX: usize = 256;
/// The same for a line that a program wrote; its end may be what matters.
pub(crate) const LINE_BYTES_MAX: usize = 2048;
/// Most bytes in the text of a fact.
pub(crate) const FACT_BYTES_MAX: usize = 4096;
/// Milliseconds between two facts about facts that were left out.
pub(super) const TELL_MS: u64 = 1000;
/// Most connections whose left-out facts are counted one by one, so that the worst can be named.
const NAMED_MAX: usize = 16;

/// The class of a fact, by who caused it and how often that is usual.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Class {
    /// About a program that has not logged in.
    PreLogin,
    /// About a client or worker that has logged in, at a level above `Level::Debug`.
    LoggedIn,
    /// About a client or worker, at the level `Level::Debug`.
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
struct Share([(Class, Quota); 2]);

impl Default for Share {
    fn default() -> Self {
        let of = |class: Class| (class, Quota::new(class.share()));
        Self([of(Class::PreLogin), of(Class::LoggedInDebug)])
    }
}

impl Share {
    /// What is left of this class. Each of the two entries is used by one class as long as the same
    /// end stands at the connection.
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
    /// Of each connection that is open, by the index of its link.
    shares: Vec<Share>,
    dropped: [u64; CLASSES.len()],
    /// Facts left out of some connections; who is there is noted when it goes.
    by: BTreeMap<LinkId, (u64, Option<String>)>,
    is_due: bool,
}

impl Default for Quotas {
    fn default() -> Self {
        Self {
            all: CLASSES.map(|class| Quota::new(class.rate())),
            shares: Vec::new(),
            dropped: [0; CLASSES.len()],
            by: BTreeMap::new(),
            is_due: false,
        }
    }
}

impl Quotas {
    /// A link is open: it has its whole share.
    pub(crate) fn opened(&mut self, link: LinkId) {
        let index = link.index as usize;
        if self.shares.len() <= index {
            self.shares.resize_with(index + 1, Share::default);
        }
        self.shares[index] = Share::default();
    }

    /// A link is closed; `from` names who was there.
    pub(crate) fn closed(&mut self, link: LinkId, from: impl FnOnce() -> String) {
        if let Some((_, name)) = self.by.get_mut(&link) {
            name.get_or_insert_with(from);
        }
    }

    /// Gives up the room behind the last `used` links.
    pub(crate) fn shrink(&mut self, used: usize) {
        self.shares.truncate(used);
        self.shares.shrink_to_fit();
    }

    /// Whether `count` facts more may be caused by a peer, and takes them if so.
    pub(crate) fn take(
        &mut self,
        count: u32,
        (class, link): (Class, Option<LinkId>),
        now: Tick,
    ) -> bool {
        let all = &mut self.all[class.index()];
        let Some(share) = link.and_then(|link| self.shares.get_mut(link.index as usize)) else {
            return all.take_all(count, now);
        };
        // The connection's quota is used only if that of all peers has something left.
        let share = share.of(class);
        share.has(count, now) && all.take_all(count, now) && share.take_all(count, now)
    }

    /// A fact was left out. Returns whether that is the first one since it was last told.
    pub(crate) fn left_out(&mut self, class: Class, link: Option<LinkId>) -> bool {
        self.dropped[class.index()] += 1;
        if let Some(link) = link
            && (self.by.len() < NAMED_MAX || self.by.contains_key(&link))
        {
            self.by.entry(link).or_insert((0, None)).0 += 1;
        }
        !std::mem::replace(&mut self.is_due, true)
    }

    /// Says what was left out since the last call; `from` names who is at a link.
    pub(crate) fn tell(&mut self, from: impl Fn(LinkId) -> String) -> String {
        self.is_due = false;
        let dropped = std::mem::take(&mut self.dropped);
        let by = std::mem::take(&mut self.by).into_iter();
        let most =
            by.map(|(link, (count, name))| (count, name.unwrap_or_else(|| from(link)))).max();
        let parts: Vec<String> = CLASSES
            .iter()
            .filter(|class| dropped[class.index()] > 0)
            .map(|class| format!("{} {}", dropped[class.index()], class.word()))
            .collect();
        let count: u64 = dropped.iter().sum();
        let most = most.map_or_else(String::new, |(count, from)| format!("; {count} of {from}"));
        format!(
            "{count} facts were left out, more than are recorded in a second: {}{most}",
            parts.join(", ")
        )
    }
}
