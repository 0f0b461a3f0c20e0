//! The requests of one client that have no outcome yet, by sequence. Sequences usually grow and
//! requests usually end in about that order, so the entries are kept in one sorted row: a new one
//! goes to its end, and one that ends early leaves a gap. The row allocates nothing in the steady
//! state and keeps no memory of a burst. The requests themselves are in `transaction`.

use super::keys::{OptionKey, TransactionKey};
use std::collections::VecDeque;

/// A gap: the request of this slot has ended.
const GAP: OptionKey<TransactionKey> = OptionKey::NONE;
/// Slots whose memory is kept when no request is under way.
const SLOTS_KEPT: usize = 64;

/// The sequences of requests under way, with the keys of their transactions.
#[derive(Debug, Default)]
pub(crate) struct InFlight {
    /// Sorted by sequence; the first and the last are no gaps.
    slots: VecDeque<(u32, OptionKey<TransactionKey>)>,
    gaps: usize,
}

impl InFlight {
    /// Number of requests under way.
    pub(crate) fn len(&self) -> usize {
        self.slots.len() - self.gaps
    }

    /// Whether no request is under way.
    pub(crate) fn is_empty(&self) -> bool {
        self.slots.is_empty()
    }

    /// The transaction with this sequence, if it is under way.
    pub(crate) fn get(&self, sequence: u32) -> Option<TransactionKey> {
        let index = self.find(sequence).ok()?;
        self.slots[index].1.get()
    }

    /// Adds a transaction; its sequence must not be under way.
    pub(crate) fn insert(&mut self, sequence: u32, key: TransactionKey) {
        let slot = (sequence, OptionKey::some(key));
        if self.slots.back().is_none_or(|(last, _)| *last < sequence) {
            self.slots.push_back(slot);
            return;
        }
        match self.find(sequence) {
            Ok(index) => {
                debug_assert_eq!(self.slots[index].1, GAP, "{sequence} is under way already");
                self.slots[index] = slot;
                self.gaps -= 1;
            }
            Err(index) => self.slots.insert(index, slot),
        }
    }

    /// Takes out a transaction; if it is not there, nothing happens.
    pub(crate) fn remove(&mut self, sequence: u32) {
        let Ok(index) = self.find(sequence) else { return };
        if self.slots[index].1 == GAP {
            return;
        }
        self.slots[index].1 = GAP;
        self.gaps += 1;
        while self.slots.front().is_some_and(|(_, key)| *key == GAP) {
            self.slots.pop_front();
            self.gaps -= 1;
        }
        while self.slots.back().is_some_and(|(_, key)| *key == GAP) {
            self.slots.pop_back();
            self.gaps -= 1;
        }
        // Once gaps are the majority, closing them costs less than the removals that made them.
        if self.gaps > self.slots.len() / 2 {
            self.slots.retain(|(_, key)| *key != GAP);
            self.gaps = 0;
        }
        if self.slots.is_empty() && self.slots.capacity() > SLOTS_KEPT {
            self.slots = VecDeque::new();
        }
    }

    /// Sequences and keys of all, by sequence.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (u32, TransactionKey)> + '_ {
        self.slots.iter().filter_map(|(at, key)| Some((*at, key.get()?)))
    }

    /// The keys of all, by sequence.
    pub(crate) fn keys(&self) -> impl Iterator<Item = TransactionKey> + '_ {
        self.iter().map(|(_, key)| key)
    }

    /// The slot with this sequence, or where it would be inserted.
    fn find(&self, sequence: u32) -> Result<usize, usize> {
        // The oldest is the likeliest to end, and a new one usually goes behind the youngest.
        let (Some((first, _)), Some((last, _))) = (self.slots.front(), self.slots.back()) else {
            return Err(0);
        };
        if *first == sequence {
            return Ok(0);
        }
        if *last < sequence {
            return Err(self.slots.len());
        }
        self.slots.binary_search_by_key(&sequence, |(at, _)| *at)
    }
}

#[cfg(test)]
mod tests {
    use super::super::keys::Key;
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn agrees_with_a_tree_over_many_random_operations() {
        let mut in_flight = InFlight::default();
        let mut model = BTreeMap::new();
        let (mut seed, mut next_sequence) = (11_u64, u32::MAX - 300);
        for round in 0..200_000_usize {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            let random = (seed >> 33) as u32;
            let most = if round / 10_000 % 2 == 0 { 8 } else { 200 };
            if model.len() < most && !random.is_multiple_of(3) {
                // Mostly upwards, past the largest number, now and then anywhere.
                next_sequence = next_sequence.wrapping_add(1);
                let sequence = if random.is_multiple_of(7) { random % 500 } else { next_sequence };
                let key = TransactionKey::of(round);
                if model.insert(sequence, key).is_none() {
                    in_flight.insert(sequence, key);
                } else {
                    in_flight.remove(sequence);
                    in_flight.insert(sequence, key);
                }
            } else if !model.is_empty() {
                let nth = if random.is_multiple_of(2) { 0 } else { random as usize % model.len() };
                let sequence = *model.keys().nth(nth).expect("it has as many");
                model.remove(&sequence);
                in_flight.remove(sequence);
                in_flight.remove(sequence);
                assert_eq!(in_flight.get(sequence), None);
            }
            assert_eq!((in_flight.len(), in_flight.is_empty()), (model.len(), model.is_empty()));
            assert!(in_flight.slots.len() <= 2 * model.len() + 2, "gaps are closed");
            if round % 64 == 0 {
                assert!(in_flight.iter().eq(model.iter().map(|(at, key)| (*at, *key))));
            }
            if let Some((at, key)) = model.iter().next_back() {
                assert_eq!(in_flight.get(*at), Some(*key));
            }
        }
    }

    #[test]
    fn a_burst_leaves_no_memory() {
        let mut in_flight = InFlight::default();
        (0..10_000).for_each(|at| in_flight.insert(at, TransactionKey::of(at as usize)));
        (0..10_000).rev().for_each(|at| in_flight.remove(at));
        assert_eq!(in_flight.slots.capacity(), 0);
    }
}
