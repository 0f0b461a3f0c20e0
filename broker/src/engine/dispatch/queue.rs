//! The requests of one service that wait for a worker, in serving order: by priority (lower first),
//! then by arrival; with `preempt off` a request gains one level each second it waits.
//! The chain runs through the transactions themselves, so that taking one out of the middle is
//! cheap.

use super::transaction::Transaction;
use crate::engine::keys::{OptionKey, Table, TransactionKey};

/// All requests, those that wait among them.
type Transactions = Table<TransactionKey, Transaction>;

/// Nobody: the end of the chain.
const NONE: OptionKey<TransactionKey> = OptionKey::NONE;

/// Microseconds of waiting that weigh as much as one level of priority (`preempt off`).
const LEVEL_MICROS: u64 = 1_000_000;

#[derive(Debug)]
struct Level {
    priority: u8,
    head: OptionKey<TransactionKey>,
    tail: OptionKey<TransactionKey>,
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
    pub(crate) fn add(&mut self, key: TransactionKey, transactions: &mut Transactions) {
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
        while let Some(other) = before.get().filter(|other| transactions[*other].id > id) {
            before = transactions[other].prev;
        }
        let after = before.get().map_or(level.head, |before| transactions[before].next);
        transactions[key].prev = before;
        transactions[key].next = after;
        let this = OptionKey::some(key);
        match before.get() {
            Some(before) => transactions[before].next = this,
            None => level.head = this,
        }
        match after.get() {
            Some(after) => transactions[after].prev = this,
            None => level.tail = this,
        }
        self.count += 1;
    }

    /// Takes a transaction out that is in this queue.
    pub(crate) fn remove(&mut self, key: TransactionKey, transactions: &mut Transactions) {
        let Transaction { priority, prev, next, .. } = transactions[key];
        let Ok(index) = self.levels.binary_search_by_key(&priority, |level| level.priority) else {
            debug_assert!(false, "transaction {key:?} is in no level");
            return;
        };
        let level = &mut self.levels[index];
        match prev.get() {
            Some(prev) => transactions[prev].next = next,
            None => level.head = next,
        }
        match next.get() {
            Some(next) => transactions[next].prev = prev,
            None => level.tail = prev,
        }
        self.count -= 1;
    }

    /// How many a request of this priority would find before it: none if all that wait are served
    /// after it, else taken for all of them.
    pub(crate) fn ahead_of(&self, priority: u8) -> usize {
        let first = self.levels.iter().find(|level| !level.head.is_none());
        match first {
            Some(level) if level.priority <= priority => self.count,
            Some(_) | None => 0,
        }
    }

    /// The transaction to serve next.
    pub(crate) fn first(
        &self,
        preempt: bool,
        transactions: &Transactions,
    ) -> Option<TransactionKey> {
        self.lead(preempt, transactions).map(|(_, head)| head)
    }

    /// Takes the transaction to serve next out.
    pub(crate) fn take_first(
        &mut self,
        preempt: bool,
        transactions: &mut Transactions,
    ) -> Option<TransactionKey> {
        let (index, key) = self.lead(preempt, transactions)?;
        let level = &mut self.levels[index];
        level.head = transactions[key].next;
        match level.head.get() {
            Some(head) => transactions[head].prev = NONE,
            None => level.tail = NONE,
        }
        self.count -= 1;
        Some(key)
    }

    /// The level whose head is to be served next, and that head.
    #[inline]
    fn lead(&self, preempt: bool, transactions: &Transactions) -> Option<(usize, TransactionKey)> {
        // Most services see one priority only.
        match self.levels.as_slice() {
            [only] => Some((0, only.head.get()?)),
            levels => lead_of_many(levels, preempt, transactions),
        }
    }

    /// All of them, level by level, for listings.
    pub(crate) fn iter<'a>(
        &'a self,
        transactions: &'a Transactions,
    ) -> impl Iterator<Item = TransactionKey> + 'a {
        self.levels.iter().flat_map(move |level| {
            let mut at = level.head;
            std::iter::from_fn(move || {
                let key = at.get()?;
                at = transactions[key].next;
                Some(key)
            })
        })
    }
}

/// The same with several levels, or none.
fn lead_of_many(
    levels: &[Level],
    preempt: bool,
    transactions: &Transactions,
) -> Option<(usize, TransactionKey)> {
    let heads = levels.iter().enumerate();
    let filled =
        heads.filter_map(|(index, level)| Some((index, level.priority, level.head.get()?)));
    let weight = |(_, priority, head): &(usize, u8, TransactionKey)| {
        let head = &transactions[*head];
        if preempt {
            (u64::from(*priority), head.id)
        } else {
            // Gaining a level each second is the same as starting from the arrival.
            (u64::from(*priority) * LEVEL_MICROS + head.arrived.0, head.id)
        }
    };
    filled.min_by_key(weight).map(|(index, _, head)| (index, head))
}
