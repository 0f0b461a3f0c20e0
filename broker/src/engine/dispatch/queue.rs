//! The requests of one service that wait for a worker, in the order in which they are served: by
//! priority (lower first), then by arrival; with `preempt off` a request gains one level of
//! priority for each second that it waits. The list is linked through the transactions themselves,
//! so taking one out of the middle is cheap.

use super::transaction::Transaction;
use crate::engine::keys::{OptionKey, Table, TransactionKey};
use protocol::ids::TransactionId;
use std::collections::BTreeMap;

/// The table of all transactions, which has those of the queue.
type Transactions = Table<TransactionKey, Transaction>;

/// No transaction: the end of the list.
const NONE: OptionKey<TransactionKey> = OptionKey::NONE;

/// Microseconds of waiting that count as much as one level of priority (`preempt off`).
const LEVEL_MICROS: u64 = 1_000_000;

/// The waiting requests of one priority, by arrival.
#[derive(Debug)]
struct Level {
    priority: u8,
    head: OptionKey<TransactionKey>,
    tail: OptionKey<TransactionKey>,
    /// Those that came back, because a worker was lost, or their client was unblocked, moved or
    /// given another priority. They belong further ahead, and no list is walked for their places:
    /// whoever is served first is the first of the two. Usually there are none.
    returned: BTreeMap<TransactionId, TransactionKey>,
}

impl Level {
    fn is_empty(&self) -> bool {
        self.head.is_none() && self.returned.is_empty()
    }

    /// The oldest one.
    #[inline]
    fn first(&self, transactions: &Transactions) -> Option<TransactionKey> {
        match self.returned.first_key_value() {
            None => self.head.get(),
            Some((id, &key)) => match self.head.get() {
                Some(head) if transactions[head].id < *id => Some(head),
                Some(_) | None => Some(key),
            },
        }
    }
}

/// The waiting requests of one service.
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// Levels that are in use or were, by priority.
    levels: Vec<Level>,
    count: usize,
}

impl Queue {
    /// Number of waiting requests.
    pub(crate) const fn count(&self) -> usize {
        self.count
    }

    /// Adds a transaction to its level, by arrival.
    pub(crate) fn add(&mut self, key: TransactionKey, transactions: &mut Transactions) {
        let (priority, id) = (transactions[key].priority, transactions[key].id);
        let level = match self.levels.binary_search_by_key(&priority, |level| level.priority) {
            Ok(index) => &mut self.levels[index],
            Err(index) => {
                let returned = BTreeMap::new();
                self.levels.insert(index, Level { priority, head: NONE, tail: NONE, returned });
                &mut self.levels[index]
            }
        };
        self.count += 1;
        // Usually it is the youngest.
        let last = level.tail;
        if last.get().is_some_and(|last| transactions[last].id > id) {
            level.returned.insert(id, key);
            return;
        }
        let this = OptionKey::some(key);
        transactions[key].prev = last;
        transactions[key].next = NONE;
        match last.get() {
            Some(last) => transactions[last].next = this,
            None => level.head = this,
        }
        level.tail = this;
    }

    /// Takes out a transaction, which must be in this queue.
    pub(crate) fn remove(&mut self, key: TransactionKey, transactions: &mut Transactions) {
        let Transaction { id, priority, prev, next, .. } = transactions[key];
        let Ok(index) = self.levels.binary_search_by_key(&priority, |level| level.priority) else {
            debug_assert!(false, "transaction {key:?} is in no level");
            return;
        };
        let level = &mut self.levels[index];
        if !level.returned.is_empty() && level.returned.remove(&id).is_some() {
            self.count -= 1;
            return;
        }
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

    /// How many requests a new one of this priority would wait for, as an estimate: none if all
    /// others are served after it, otherwise all of them.
    pub(crate) fn ahead_of(&self, priority: u8) -> usize {
        let first = self.levels.iter().find(|level| !level.is_empty());
        match first {
            Some(level) if level.priority <= priority => self.count,
            Some(_) | None => 0,
        }
    }

    /// How many are served before one that waits, as things are, and whether all were looked at:
    /// of a long queue, that are the first `most` of the list.
    pub(crate) fn before(
        &self,
        key: TransactionKey,
        is_strict: bool,
        transactions: &Transactions,
        most: usize,
    ) -> (usize, bool) {
        let own = weight(&transactions[key], is_strict);
        let others = self.iter(transactions).take(most);
        let count = others.filter(|&at| weight(&transactions[at], is_strict) < own).count();
        (count, self.count <= most)
    }

    /// The transaction to serve next. `is_strict`: by priority, however long others wait.
    pub(crate) fn first(
        &self,
        is_strict: bool,
        transactions: &Transactions,
    ) -> Option<TransactionKey> {
        self.lead(is_strict, transactions).map(|(_, head)| head)
    }

    /// The weight of the transaction to serve next, to compare it with that of another queue: the
    /// lower one goes first.
    pub(super) fn weight_of_first(
        &self,
        is_strict: bool,
        transactions: &Transactions,
    ) -> Option<(u64, TransactionId)> {
        Some(weight(&transactions[self.first(is_strict, transactions)?], is_strict))
    }

    /// Takes out the transaction to serve next, if it `is_meant`.
    pub(crate) fn take_first(
        &mut self,
        is_strict: bool,
        transactions: &mut Transactions,
        is_meant: impl FnOnce(&Transaction) -> bool,
    ) -> Option<TransactionKey> {
        let (index, key) = self.lead(is_strict, transactions)?;
        if !is_meant(&transactions[key]) {
            return None;
        }
        let level = &mut self.levels[index];
        if !level.returned.is_empty() {
            self.remove(key, transactions);
            return Some(key);
        }
        level.head = transactions[key].next;
        match level.head.get() {
            Some(head) => transactions[head].prev = NONE,
            None => level.tail = NONE,
        }
        self.count -= 1;
        Some(key)
    }

    /// The level whose first transaction is served next, and that transaction.
    #[inline]
    fn lead(
        &self,
        is_strict: bool,
        transactions: &Transactions,
    ) -> Option<(usize, TransactionKey)> {
        // Most services have requests of one priority only, and those without a queue none.
        match self.levels.as_slice() {
            [] => None,
            [only] => Some((0, only.first(transactions)?)),
            levels => lead_of_many(levels, is_strict, transactions),
        }
    }

    /// All transactions, level by level, for listings and checks.
    pub(crate) fn iter<'a>(
        &'a self,
        transactions: &'a Transactions,
    ) -> impl Iterator<Item = TransactionKey> + 'a {
        self.levels.iter().flat_map(move |level| {
            let mut at = level.head;
            let mut returned = level.returned.iter().peekable();
            std::iter::from_fn(move || {
                let head = at.get();
                let is_ahead = |(id, _): &(&TransactionId, &TransactionKey)| {
                    head.is_none_or(|head| **id < transactions[head].id)
                };
                if let Some((_, &key)) = returned.next_if(is_ahead) {
                    return Some(key);
                }
                at = transactions[head?].next;
                head
            })
        })
    }
}

/// The same for several levels.
fn lead_of_many(
    levels: &[Level],
    is_strict: bool,
    transactions: &Transactions,
) -> Option<(usize, TransactionKey)> {
    let heads = levels.iter().enumerate();
    let filled = heads.filter_map(|(index, level)| Some((index, level.first(transactions)?)));
    let filled = filled.map(|(index, head)| (index, head, weight(&transactions[head], is_strict)));
    filled.min_by_key(|(.., weight)| *weight).map(|(index, head, _)| (index, head))
}

/// Of several requests, that of the least weight is served first.
fn weight(transaction: &Transaction, is_strict: bool) -> (u64, TransactionId) {
    let priority = u64::from(transaction.priority);
    if is_strict {
        (priority, transaction.id)
    } else {
        // All gain one level a second, so priority plus arrival gives the order at any moment.
        (priority * LEVEL_MICROS + transaction.arrived.0, transaction.id)
    }
}
