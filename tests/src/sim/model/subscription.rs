//! One subscription as it was promised: what it is owed, what it got, what was dropped.

use super::Broken;
use super::topics::{Kept, Message};
use protocol::bodies::{CaughtUp, Subscribed, Unsubscribed};
use protocol::errors::ErrorCode;
use protocol::header::Header;
use protocol::messages::{Missing, Position};
use protocol::topics::Pattern;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// A subscribe that has no answer yet.
#[derive(Clone, Debug)]
pub(super) struct Wanted {
    /// `None` = it is none.
    pub pattern: Option<Pattern>,
    /// Where its messages begin.
    pub from: Option<Position>,
    /// Kept values are to come first.
    pub retained: bool,
    /// It must be refused for one of these, if there are any.
    pub refusals: Vec<ErrorCode>,
}

/// A subscription.
#[derive(Debug)]
pub struct Subscription {
    /// What it matches.
    pub pattern: Pattern,
    /// The newest message when it began.
    pub at: Position,
    missing: Option<Missing>,
    /// Messages from before that must come, in order.
    before: BTreeSet<u64>,
    /// Values that were kept when it began, and must come if they still are: those of messages that
    /// are not among `before`. The others come as these do, and may be dropped and counted as they.
    values: BTreeSet<u64>,
    /// Messages from before that came.
    came: BTreeSet<u64>,
    /// The last of them that was no kept value.
    last_before: u64,
    /// How many from before were dropped, by the headers.
    dropped_before: u64,
    is_live: bool,
    /// Live messages that it has not got.
    pub owed: VecDeque<u64>,
    /// How many it got.
    pub delivered: u64,
    /// How many were dropped, as it was told.
    pub dropped: u64,
}

impl Subscription {
    pub(super) fn new(pattern: Pattern, said: &Subscribed) -> Self {
        Self {
            pattern,
            at: said.at,
            missing: said.missing,
            before: BTreeSet::new(),
            values: BTreeSet::new(),
            came: BTreeSet::new(),
            last_before: 0,
            dropped_before: 0,
            is_live: false,
            owed: VecDeque::new(),
            delivered: 0,
            dropped: 0,
        }
    }

    /// Whether all from before was sent.
    pub const fn is_live(&self) -> bool {
        self.is_live
    }

    /// What it is owed from before.
    pub(super) fn is_from(
        &mut self,
        from: Option<Position>,
        retained: bool,
        messages: &BTreeMap<u64, Message>,
        kept: &BTreeMap<String, Kept>,
    ) -> Result<(), Broken> {
        let at = self.at;
        let is_true = match (from, self.missing) {
            (None, missing) => missing.is_none(),
            (Some(from), Some(Missing::Epoch)) => from.epoch != at.epoch,
            (Some(from), None) => from.epoch == at.epoch,
            (Some(from), Some(Missing::Numbers(first, last))) => {
                let is_between = from.number < first && first <= last && last <= at.number;
                from.epoch == at.epoch && is_between
            }
        };
        if !is_true {
            return Err(format!("from {from:?} at {at:?}, missing is {:?}", self.missing));
        }
        let is_there = |number: &u64| match self.missing {
            None => true,
            Some(Missing::Epoch) => false,
            Some(Missing::Numbers(first, last)) => !(first..=last).contains(number),
        };
        if let Some(from) = from.filter(|from| from.epoch == at.epoch) {
            let since = messages.range(from.number + 1..);
            let since = since.filter(|(_, message)| self.pattern.matches(&message.topic));
            self.before = since.map(|(number, _)| *number).filter(is_there).collect();
        }
        if retained && (from.is_none() || self.missing.is_some()) {
            let values = kept.iter().filter(|(topic, _)| self.pattern.matches(topic));
            let values = values.map(|(_, kept)| kept.number);
            self.values = values.filter(|number| !self.before.contains(number)).collect();
        }
        Ok(())
    }

    /// A message goes to it, which matches; `kept` is the value of its topic now.
    pub(super) fn goes(&mut self, head: &Header, kept: Option<u64>) -> Result<(), Broken> {
        self.delivered += 1;
        let (number, dropped) = (head.transaction, u64::from(head.attempt));
        self.dropped += dropped;
        if head.more != 0 {
            return self.goes_before(number, dropped, kept);
        }
        if !self.is_live {
            return Err(format!("message {number} is live before all from before was sent"));
        }
        self.drops(dropped)?;
        match self.owed.pop_front() {
            Some(next) if next == number => Ok(()),
            next => Err(format!(
                "message {number} comes after {dropped} that were dropped, {next:?} is next"
            )),
        }
    }

    fn drops(&mut self, count: u64) -> Result<(), Broken> {
        let owed = self.owed.len() as u64;
        if count > owed {
            return Err(format!("{count} are said to be dropped, {owed} are owed"));
        }
        self.owed.drain(..count as usize);
        Ok(())
    }

    fn goes_before(&mut self, number: u64, dropped: u64, kept: Option<u64>) -> Result<(), Broken> {
        if self.is_live || number > self.at.number {
            return Err(format!("message {number} comes as one from before, {self:?}"));
        }
        if !self.came.insert(number) {
            return Err(format!("message {number} from before comes twice"));
        }
        self.dropped_before += dropped;
        // A value of a topic may also be one of those that came since; then it comes once.
        if self.values.contains(&number) && kept == Some(number) {
            return Ok(());
        }
        if self.before.contains(&number) && number > self.last_before {
            self.last_before = number;
            return Ok(());
        }
        // What the broker of another start had is not known: all that it has now may come.
        if self.missing == Some(Missing::Epoch) {
            return Ok(());
        }
        Err(format!("message {number} from before is not owed, or comes too late: {self:?}"))
    }

    /// All from before was sent; `kept` are all values that are kept now.
    pub(super) fn is_caught_up(
        &mut self,
        said: &CaughtUp,
        kept: &BTreeSet<u64>,
    ) -> Result<(), Broken> {
        if std::mem::replace(&mut self.is_live, true) {
            return Err("it has caught up twice".to_owned());
        }
        if said.kept != self.came.len() as u64 {
            return Err(format!("{said:?}, but {} came", self.came.len()));
        }
        let lacks = self.values.iter().find(|n| kept.contains(n) && !self.came.contains(n));
        if let Some(number) = lacks {
            return Err(format!("the kept value {number} was not sent"));
        }
        let lost = self.before.difference(&self.came).count() as u64;
        let told = self.dropped_before + said.dropped;
        self.dropped += said.dropped;
        if told < lost {
            let first = self.before.difference(&self.came).next();
            return Err(format!("{lost} from before are lacking, {told} counted: {first:?}"));
        }
        self.drops(told - lost)
    }

    /// It ends: all that it was not sent is counted.
    pub(super) fn has_left(&self, said: &Unsubscribed) -> Result<(), Broken> {
        if said.delivered != self.delivered {
            return Err(format!("{said:?}, but {} were sent", self.delivered));
        }
        let most = self.values.union(&self.before).filter(|n| !self.came.contains(n)).count();
        let most = if self.is_live { 0 } else { most as u64 };
        let least = self.dropped + self.owed.len() as u64;
        if (least..=least + most).contains(&said.dropped) {
            Ok(())
        } else {
            Err(format!(
                "{said:?}: {} were dropped before, {} are owed: {self:?}",
                self.dropped,
                self.owed.len()
            ))
        }
    }
}
