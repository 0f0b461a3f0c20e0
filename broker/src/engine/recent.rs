//! A ring of the last facts, for `listevents` and `config events`. Older facts are dropped, and a
//! restart begins with an empty ring.

use super::fact::{Fact, FactKind};
use protocol::ids::FactSeq;
use std::collections::VecDeque;

/// The last facts of the kinds that are kept.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    max: usize,
    kinds: Vec<FactKind>,
    facts: VecDeque<Fact>,
}

impl Recent {
    /// Sets how many facts are kept, and of which kinds (empty = all). Of the facts in the ring,
    /// the newest `max` stay.
    pub(crate) fn configure(&mut self, max: usize, kinds: Vec<FactKind>) {
        self.max = max;
        self.kinds = kinds;
        while self.facts.len() > max {
            self.facts.pop_front();
        }
        self.facts.shrink_to_fit();
    }

    /// Keeps a fact, if its kind is wanted.
    pub(crate) fn add(&mut self, fact: &Fact) {
        if self.max == 0 || !(self.kinds.is_empty() || self.kinds.contains(&fact.kind)) {
            return;
        }
        if self.facts.len() == self.max {
            self.facts.pop_front();
        }
        self.facts.push_back(fact.clone());
    }

    /// The facts in the ring that were recorded before this one, newest first.
    pub(crate) fn before(&self, seq: FactSeq) -> impl Iterator<Item = &Fact> {
        let end = self.facts.partition_point(|fact| fact.seq < seq);
        self.facts.range(..end).rev()
    }

    /// Number of facts in the ring (`isdData.Events`).
    pub(crate) fn count(&self) -> usize {
        self.facts.len()
    }

    /// Most facts in the ring (`isdData.NumEvents`).
    pub(crate) const fn max(&self) -> usize {
        self.max
    }

    /// The kinds that are kept; empty = all.
    pub(crate) fn kinds(&self) -> &[FactKind] {
        &self.kinds
    }
}
