//! A ring of the last facts, for `listevents` and `config events`. Older facts are dropped, and a
//! restart begins with an empty ring.

use super::fact::{Fact, FactKind};
use protocol::ids::FactSeq;
use std::collections::VecDeque;

/// The last facts of the kinds that are kept.
#[derive(Debug, Default)]
pub(crate) struct Recent {
    max: usize,
    /// Most bytes that they may take.
    bytes_max: u64,
    kinds: Vec<FactKind>,
    facts: VecDeque<Fact>,
    /// About how many bytes they take.
    bytes: u64,
}

impl Recent {
    /// Sets how many facts are kept, and of which kinds (empty = all). Of the facts in the ring,
    /// the newest `max` of these kinds stay.
    pub(crate) fn configure(&mut self, max: usize, kinds: Vec<FactKind>) {
        self.max = max;
        self.kinds = kinds;
        let kinds = &self.kinds;
        self.facts.retain(|fact| kinds.is_empty() || kinds.contains(&fact.kind));
        self.bytes = self.facts.iter().map(size).sum();
        self.drop_oldest();
        self.facts.shrink_to_fit();
    }

    /// Sets how many bytes they may take. The newest that fit stay.
    pub(crate) fn set_bytes_max(&mut self, bytes_max: u64) {
        if self.bytes_max != bytes_max {
            self.bytes_max = bytes_max;
            self.drop_oldest();
            self.facts.shrink_to_fit();
        }
    }

    fn drop_oldest(&mut self) {
        while self.facts.len() > self.max || self.bytes > self.bytes_max {
            let Some(oldest) = self.facts.pop_front() else { return };
            self.bytes -= size(&oldest);
        }
    }

    /// Keeps a fact, if its kind is wanted.
    pub(crate) fn add(&mut self, fact: &Fact) {
        if self.max == 0 || !(self.kinds.is_empty() || self.kinds.contains(&fact.kind)) {
            return;
        }
        self.bytes += size(fact);
        self.facts.push_back(fact.clone());
        self.drop_oldest();
    }

    /// Whether it keeps no more than it may, and counts it right.
    pub(crate) fn is_sound(&self) -> bool {
        let bytes = self.facts.iter().map(size).sum::<u64>();
        let is_bounded = self.facts.len() <= self.max && bytes <= self.bytes_max;
        bytes == self.bytes && is_bounded
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

/// About how many bytes a fact takes.
fn size(fact: &Fact) -> u64 {
    let about = &fact.about;
    let names = [
        about.service.as_ref().map_or(0, |name| name.as_str().len()),
        about.host.as_ref().map_or(0, |name| name.as_str().len()),
        about.instance.as_ref().map_or(0, String::len),
        about.who.as_ref().map_or(0, String::len),
    ];
    (size_of::<Fact>() + fact.text.len() + names.iter().sum::<usize>()) as u64
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::fact::About;
    use protocol::Wall;

    fn fact(seq: u64, kind: FactKind, bytes: usize) -> Fact {
        let text = "x".repeat(bytes);
        Fact { seq: FactSeq(seq), at: Wall::default(), kind, about: About::default(), text }
    }

    #[test]
    fn a_flood_of_facts_takes_no_more_than_the_limits() {
        let mut recent = Recent::default();
        recent.configure(1000, Vec::new());
        recent.set_bytes_max(1 << 20);
        for seq in 1..=100_000 {
            recent.add(&fact(seq, FactKind::WorkerOutput, (seq % 3000) as usize));
            assert!(recent.count() <= 1000 && recent.bytes <= 1 << 20, "{seq}");
        }
        assert!(recent.is_sound());
        assert!(recent.facts.capacity() <= 2048, "{}", recent.facts.capacity());
        let newest: Vec<u64> = recent.before(FactSeq(u64::MAX)).map(|f| f.seq.0).take(2).collect();
        assert_eq!(newest, [100_000, 99_999]);
        // Small ones: the count is the limit.
        (1..=2000).for_each(|at| recent.add(&fact(100_000 + at, FactKind::WorkerOutput, 10)));
        assert_eq!(recent.count(), 1000);
        assert!(recent.is_sound());
    }

    #[test]
    fn what_no_longer_fits_is_dropped_at_once() {
        let mut recent = Recent::default();
        recent.configure(10, Vec::new());
        recent.add(&fact(1, FactKind::WorkerUp, 10));
        assert_eq!(recent.count(), 0, "no bytes are allowed yet");
        let one = size(&fact(1, FactKind::WorkerUp, 10));
        recent.set_bytes_max(2 * one);
        (1..=3).for_each(|seq| recent.add(&fact(seq, FactKind::WorkerUp, 10)));
        assert_eq!(recent.count(), 2, "at the limit");
        recent.set_bytes_max(2 * one - 1);
        assert_eq!(recent.count(), 1, "one byte less");
        recent.add(&fact(4, FactKind::WorkerDied, 10));
        recent.configure(10, vec![FactKind::WorkerUp]);
        assert_eq!(recent.count(), 0, "kinds that are not wanted any more go, too");
        recent.add(&fact(5, FactKind::WorkerDied, 10));
        assert_eq!(recent.count(), 0);
        assert!(recent.is_sound());
    }
}
