//! The requests of one service that wait for a worker, in serving order: by priority (lower first),
//! then by arrival; with `preempt off` a request gains one level each second it waits.
//! The chain runs through the transactions themselves, so that taking one out of the middle is
//! cheap.

use super::transaction::Transaction;
use slab::Slab;

pub(crate) const NONE: u32 = u32::MAX;

/// Microseconds of waiting that weigh as much as one level of priority (`preempt off`).
const LEVEL_MICROS: u64 = 1_000_000;

#[derive(Debug)]
struct Level {
    priority: u8,
    head: u32,
    tail: u32,
}

/// The waiting requests of one service.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Levels in use or used before, by priority.
    levels: Vec<Level>,
    count: usize,
}

impl Queue {
    /// How many wait.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Adds a transaction behind those of its priority that arrived before it, ahead of those
    /// after.
    pub(crate) fn add(&mut self, key: usize, transactions: &mut Slab<Transaction>) {
        let (priority, id) = (transactions[key].priority, transactions[key].id);
        let level = match self.levels.binary_search_by_key(&priority, |level| level.priority) {
            Ok(index) => &mut self.levels[index],
            Err(index) => {
                self.levels.insert(index, Level { priority, head: NONE, tail: NONE });
                &mut self.levels[index]
            }
        };
        // Usually it is the youngest; only a retried or unblocked one looks for its place.
        let mut before = level.tail;
        while before != NONE && transactions[before as usize].id > id {
            before = transactions[before as usize].prev;
        }
        let after = if before == NONE { level.head } else { transactions[before as usize].next };
        transactions[key].prev = before;
        transactions[key].next = after;
        if before == NONE {
            level.head = key as u32;
        } else {
            transactions[before as usize].next = key as u32;
        }
        if after == NONE {
            level.tail = key as u32;
        } else {
            transactions[after as usize].prev = key as u32;
        }
        self.count += 1;
    }

    /// Takes a transaction out that is in this queue.
    pub(crate) fn remove(&mut self, key: usize, transactions: &mut Slab<Transaction>) {
        let Transaction { priority, prev, next, .. } = transactions[key];
        let Ok(index) = self.levels.binary_search_by_key(&priority, |level| level.priority) else {
            debug_assert!(false, "transaction {key} is in no level");
            return;
        };
        let level = &mut self.levels[index];
        if prev == NONE {
            level.head = next;
        } else {
            transactions[prev as usize].next = next;
        }
        if next == NONE {
            level.tail = prev;
        } else {
            transactions[next as usize].prev = prev;
        }
        self.count -= 1;
    }

    /// How many a request of this priority would find before it: none if all that wait are served
    /// after it, else taken for all of them.
    pub(crate) fn ahead_of(&self, priority: u8) -> usize {
        let first = self.levels.iter().find(|level| level.head != NONE);
        match first {
            Some(level) if level.priority <= priority => self.count,
            Some(_) | None => 0,
        }
    }

    /// The transaction to serve next.
    pub(crate) fn first(&self, preempt: bool, transactions: &Slab<Transaction>) -> Option<usize> {
        self.lead(preempt, transactions).map(|index| self.levels[index].head as usize)
    }

    /// Takes the transaction to serve next out.
    pub(crate) fn take_first(
        &mut self,
        preempt: bool,
        transactions: &mut Slab<Transaction>,
    ) -> Option<usize> {
        let index = self.lead(preempt, transactions)?;
        let level = &mut self.levels[index];
        let key = level.head as usize;
        level.head = transactions[key].next;
        if level.head == NONE {
            level.tail = NONE;
        } else {
            transactions[level.head as usize].prev = NONE;
        }
        self.count -= 1;
        Some(key)
    }

    /// The level whose head is to be served next.
    fn lead(&self, preempt: bool, transactions: &Slab<Transaction>) -> Option<usize> {
        if let [only] = self.levels.as_slice() {
            return (only.head != NONE).then_some(0);
        }
        let filled = self.levels.iter().enumerate().filter(|(_, level)| level.head != NONE);
        let weight = |(_, level): &(usize, &Level)| {
            let head = &transactions[level.head as usize];
            if preempt {
                (u64::from(level.priority), head.id)
            } else {
                // Gaining a level each second is the same as starting from the arrival.
                (u64::from(level.priority) * LEVEL_MICROS + head.arrived.0, head.id)
            }
        };
        filled.min_by_key(weight).map(|(index, _)| index)
    }

    /// All of them, level by level, for listings.
    pub(crate) fn iter<'a>(
        &'a self,
        transactions: &'a Slab<Transaction>,
    ) -> impl Iterator<Item = usize> + 'a {
        self.levels.iter().flat_map(move |level| {
            let mut at = level.head;
            std::iter::from_fn(move || {
                let key = at;
                if key == NONE {
                    return None;
                }
                at = transactions[key as usize].next;
                Some(key as usize)
            })
        })
    }
}
