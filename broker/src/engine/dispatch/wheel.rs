//! The deadlines of transactions: a timing wheel whose entries are keys of transactions. Insert and
//! remove cost the same with one entry and with a million, and allocate nothing in the steady
//! state. The other timers are few, and are in `due`.

use crate::engine::keys::{Key, OptionKey, TransactionKey};
use protocol::time::Tick;

/// The width of a slot is 2^13 µs, about 8 ms; entries still expire at their exact tick.
const SLOT_SHIFT: u32 = 13;
/// Slots of the wheel; one round is about 33 s. Later entries stay in their slot for several
/// rounds.
const SLOTS: u64 = 4096;
const NONE: OptionKey<TransactionKey> = OptionKey::NONE;

/// An entry of the wheel, at the index of its key; the entries of a slot are linked.
#[derive(Clone, Copy, Debug)]
struct Node {
    prev: OptionKey<TransactionKey>,
    next: OptionKey<TransactionKey>,
    at: u64,
    is_in: bool,
}

/// A timing wheel over the keys of transactions.
#[derive(Debug)]
pub(crate) struct Wheel {
    /// The first entry of each slot.
    heads: Vec<OptionKey<TransactionKey>>,
    /// A bit for each slot that has entries.
    filled: [u64; (SLOTS / 64) as usize],
    /// The entries, by the index of their key.
    nodes: Vec<Node>,
    /// Number of the slot that was looked at last, counted from tick 0; all entries of earlier
    /// slots were given out.
    cursor: u64,
    /// No entry is due before this tick, in microseconds; it may be too early after a removal.
    soonest: u64,
    count: usize,
}

impl Default for Wheel {
    fn default() -> Self {
        Self {
            heads: vec![NONE; SLOTS as usize],
            filled: [0; (SLOTS / 64) as usize],
            nodes: Vec::new(),
            cursor: 0,
            soonest: u64::MAX,
            count: 0,
        }
    }
}

impl Wheel {
    /// Adds a key, which must not be in the wheel.
    pub(crate) fn insert(&mut self, key: TransactionKey, at: Tick) {
        while self.nodes.len() <= key.index() {
            self.nodes.push(Node { prev: NONE, next: NONE, at: 0, is_in: false });
        }
        debug_assert!(!self.nodes[key.index()].is_in, "{key:?} is in the wheel already");
        // An entry that is due already goes to the slot that is looked at next.
        let slot = ((at.0 >> SLOT_SHIFT).max(self.cursor) % SLOTS) as usize;
        let head = self.heads[slot];
        self.nodes[key.index()] = Node { prev: NONE, next: head, at: at.0, is_in: true };
        let this = OptionKey::some(key);
        if let Some(head) = head.get() {
            self.nodes[head.index()].prev = this;
        }
        self.heads[slot] = this;
        self.filled[slot / 64] |= 1 << (slot % 64);
        self.soonest = self.soonest.min(at.0);
        self.count += 1;
    }

    /// Takes out a key; if it is not in the wheel, nothing happens.
    pub(crate) fn remove(&mut self, key: TransactionKey) {
        let Some(&Node { prev, next, at, is_in: true }) = self.nodes.get(key.index()) else {
            return;
        };
        if let Some(next) = next.get() {
            self.nodes[next.index()].prev = prev;
        }
        match prev.get() {
            Some(prev) => self.nodes[prev.index()].next = next,
            None => self.unlink_head(OptionKey::some(key), next, at),
        }
        self.nodes[key.index()].is_in = false;
        self.count -= 1;
        if self.count == 0 {
            self.soonest = u64::MAX;
        }
    }

    /// Takes out the first entry of a slot. One that was late when it was added is in another slot
    /// than its tick says, so that slot is found by its first entry.
    fn unlink_head(
        &mut self,
        first: OptionKey<TransactionKey>,
        next: OptionKey<TransactionKey>,
        at: u64,
    ) {
        let mut slot = ((at >> SLOT_SHIFT) % SLOTS) as usize;
        if self.heads[slot] != first {
            slot = self.heads.iter().position(|&head| head == first).unwrap_or(slot);
        }
        self.heads[slot] = next;
        if next.is_none() {
            self.filled[slot / 64] &= !(1 << (slot % 64));
        }
    }

    /// Gives back the memory behind the last key in the wheel.
    pub(crate) fn shrink(&mut self) {
        let used = self.nodes.iter().rposition(|node| node.is_in);
        self.nodes.truncate(used.map_or(0, |last| last + 1));
        self.nodes.shrink_to_fit();
    }

    /// A tick before which nothing is due; it may be earlier than needed.
    pub(crate) fn next(&self) -> Option<Tick> {
        (self.count > 0).then_some(Tick(self.soonest))
    }

    /// Whether something may be due at `now`.
    pub(crate) const fn is_due(&self, now: Tick) -> bool {
        self.soonest <= now.0
    }

    /// Takes out up to `most` entries that are due at `now`, and appends their keys to `due`. While
    /// there are more, [`is_due`](Self::is_due) says so.
    pub(crate) fn take_due(&mut self, now: Tick, most: usize, due: &mut Vec<TransactionKey>) {
        if self.count == 0 || now.0 < self.soonest {
            return;
        }
        let last = now.0 >> SLOT_SHIFT;
        let first = self.cursor.min(last);
        let start = due.len();
        let mut reached = None;
        'slots: for slot in first..=last.min(first + SLOTS - 1) {
            let mut at = self.heads[(slot % SLOTS) as usize];
            while let Some(key) = at.get() {
                if due.len() - start == most {
                    reached = Some(slot);
                    break 'slots;
                }
                let node = self.nodes[key.index()];
                if node.at <= now.0 {
                    due.push(key);
                }
                at = node.next;
            }
        }
        for &key in &due[start..] {
            self.remove(key);
        }
        // By tick, then by key, so that the same inputs give the same actions.
        let nodes = &self.nodes;
        due[start..].sort_unstable_by_key(|&key| (nodes[key.index()].at, key));
        self.cursor = reached.unwrap_or(last);
        if reached.is_none() || self.count == 0 {
            self.soonest = self.find_soonest();
        }
    }

    /// The first tick at which an entry is due.
    fn find_soonest(&self) -> u64 {
        let mut best = u64::MAX;
        for slot in self.cursor..self.cursor + SLOTS {
            let index = (slot % SLOTS) as usize;
            if self.filled[index / 64] & (1 << (index % 64)) == 0 {
                continue;
            }
            let mut at = self.heads[index];
            while let Some(key) = at.get() {
                let node = self.nodes[key.index()];
                best = best.min(node.at);
                at = node.next;
            }
            // Later slots of this round have no earlier entries.
            if best >> SLOT_SHIFT <= slot {
                break;
            }
        }
        best
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn due(wheel: &mut Wheel, now: u64) -> Vec<usize> {
        let mut keys = Vec::new();
        wheel.take_due(Tick(now), usize::MAX, &mut keys);
        keys.into_iter().map(Key::index).collect()
    }

    fn key(index: usize) -> TransactionKey {
        TransactionKey::of(index)
    }

    #[test]
    fn entries_come_out_at_their_time_and_in_order() {
        let mut wheel = Wheel::default();
        wheel.insert(key(0), Tick::from_millis(30_000));
        wheel.insert(key(1), Tick::from_millis(5));
        wheel.insert(key(2), Tick::from_millis(4));
        wheel.insert(key(3), Tick::from_millis(3_600_000));
        assert_eq!(wheel.next(), Some(Tick::from_millis(4)));
        assert_eq!(due(&mut wheel, 3_999), [0_usize; 0]);
        assert_eq!(due(&mut wheel, 5_000), [2, 1]);
        assert_eq!(wheel.next(), Some(Tick::from_millis(30_000)));
        assert_eq!(due(&mut wheel, 29_999_999), [0_usize; 0]);
        assert_eq!(due(&mut wheel, 30_000_000), [0]);
        wheel.remove(key(3));
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn many_come_out_in_parts() {
        let mut wheel = Wheel::default();
        (0..100).for_each(|index| wheel.insert(key(index), Tick(5_000 + 100 * index as u64)));
        let mut keys = Vec::new();
        for _ in 0..11 {
            assert!(wheel.is_due(Tick(20_000)) || keys.len() == 100);
            wheel.take_due(Tick(20_000), 10, &mut keys);
        }
        keys.sort_unstable();
        assert_eq!(keys, (0..100).map(key).collect::<Vec<_>>());
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn late_entries_and_long_jumps_lose_nothing() {
        let mut wheel = Wheel::default();
        assert_eq!(due(&mut wheel, 900_000_000), [0_usize; 0]);
        wheel.insert(key(1), Tick(800_000_000));
        wheel.insert(key(2), Tick(2_000_000_000));
        assert_eq!(due(&mut wheel, 900_000_001), [1]);
        wheel.insert(key(3), Tick(1));
        wheel.remove(key(3));
        assert_eq!(due(&mut wheel, 9_000_000_000), [2]);
        assert_eq!(wheel.next(), None);
    }

    #[test]
    fn agrees_with_a_sorted_list_over_many_random_operations() {
        let mut wheel = Wheel::default();
        let mut model: Vec<(u64, usize)> = Vec::new();
        let (mut seed, mut now) = (7u64, 0u64);
        let mut next = move || {
            seed = seed
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            seed >> 33
        };
        for _ in 0..20_000 {
            match next() % 5 {
                0 | 1 => {
                    let free = (0..).find(|k| model.iter().all(|(_, m)| m != k)).unwrap();
                    let at = now + next() % 50_000_000;
                    wheel.insert(key(free), Tick(at));
                    model.push((at, free));
                }
                2 if !model.is_empty() => {
                    let (_, taken) = model.swap_remove(next() as usize % model.len());
                    wheel.remove(key(taken));
                }
                3 => wheel.shrink(),
                _ => {
                    now += next() % 3_000_000;
                    let mut expected: Vec<_> = model.extract_if(.., |(at, _)| *at <= now).collect();
                    expected.sort_unstable();
                    let keys: Vec<_> = expected.into_iter().map(|(_, key)| key).collect();
                    assert_eq!(due(&mut wheel, now), keys);
                }
            }
            let soonest = model.iter().map(|(at, _)| *at).min();
            assert!(wheel.next().map_or(u64::MAX, |t| t.0) <= soonest.unwrap_or(u64::MAX));
            assert_eq!(wheel.next().is_none(), model.is_empty());
        }
    }
}
