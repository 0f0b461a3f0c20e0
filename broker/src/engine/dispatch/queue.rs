//! The requests of one service that wait for a worker, in the order in which they are served: by
//! priority (lower first), then by arrival; with `preempt off` a request gains one level of
//! priority for each second that it waits. The list is linked through the transactions themselves,
//! so taking one out of the middle is cheap.

use super::transaction::Transaction;
use crate::engine::keys::{OptionKey, Table, TransactionKey};

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
                self.levels.insert(index, Level { priority, head: NONE, tail: NONE });
                &mut self.levels[index]
            }
        };
        // Usually it is the youngest; only one that is repeated or unblocked belongs further ahead.
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

    /// Takes out a transaction, which must be in this queue.
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

    /// How many requests a new one of this priority would wait for, as an estimate: none if all
    /// others are served after it, otherwise all of them.
    pub(crate) fn ahead_of(&self, priority: u8) -> usize {
        let first = self.levels.iter().find(|level| !level.head.is_none());
        match first {
            Some(level) if level.priority <= priority => self.count,
            Some(_) | None => 0,
        }
    }

    /// The transaction to serve next. `is_strict`: by priority, however long others wait.
    pub(crate) fn first(
        &self,
        is_strict: bool,
        transactions: &Transactions,
    ) -> Option<TransactionKey> {
        self.lead(is_strict, transactions).map(|(_, head)| head)
    }

    /// Takes out the transaction to serve next.
    pub(crate) fn take_first(
        &mut self,
        is_strict: bool,
        transactions: &mut Transactions,
    ) -> Option<TransactionKey> {
        let (index, key) = self.lead(is_strict, transactions)?;
        let level = &mut self.levels[index];
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
            [only] => Some((0, only.head.get()?)),
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
            std::iter::from_fn(move || {
                let key = at.get()?;
                at = transactions[key].next;
                Some(key)
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
    let filled =
        heads.filter_map(|(index, level)| Some((index, level.priority, level.head.get()?)));
    let weight = |(_, priority, head): &(usize, u8, TransactionKey)| {
        let head = &transactions[*head];
        if is_strict {
            (u64::from(*priority), head.id)
        } else {
            // All gain one level a second, so priority plus arrival gives the order at any moment.
            (u64::from(*priority) * LEVEL_MICROS + head.arrived.0, head.id)
        }
    };
    filled.min_by_key(weight).map(|(index, _, head)| (index, head))
}
