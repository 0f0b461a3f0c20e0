//! A ring of the last facts, for `listevents` and `config events`. Older facts are dropped, and a
//! restart begins with an empty ring.

use super::fact::{Fact, FactKind};
use std::collections::VecDeque;

/// The last facts of the kinds wanted.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    max: usize,
    kinds: Vec<FactKind>,
    facts: VecDeque<Fact>,
}

impl Recent {
    /// Remembers `max` facts of `kinds` (empty = all); keeps what fits of those it has.
    pub(crate) fn configure(&mut self, max: usize, kinds: Vec<FactKind>) {
        self.max = max;
        self.kinds = kinds;
        while self.facts.len() > max {
            self.facts.pop_front();
        }
        self.facts.shrink_to_fit();
    }

    /// Remembers a fact if it is wanted.
    pub(crate) fn add(&mut self, fact: &Fact) {
        if self.max == 0 || !(self.kinds.is_empty() || self.kinds.contains(&fact.kind)) {
            return;
        }
        if self.facts.len() == self.max {
            self.facts.pop_front();
        }
        self.facts.push_back(fact.clone());
    }

    /// The facts, newest first.
    pub(crate) fn newest_first(&self) -> impl Iterator<Item = &Fact> {
        self.facts.iter().rev()
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.facts.len()
    }

    /// How many there may be.
    pub(crate) const fn max(&self) -> usize {
        self.max
    }

    /// The kinds that are remembered; empty = all.
    pub(crate) fn kinds(&self) -> &[FactKind] {
        &self.kinds
    }
}
