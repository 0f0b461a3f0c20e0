//! Workers that take turns: those that are idle, or that have room. A worker that comes is last;
//! one in the middle is found by its turn, so that thousands can leave at once.

use crate::engine::keys::WorkerKey;
use std::collections::VecDeque;

/// Workers by turn, the first at the front.
#[derive(Debug, Default)]
pub(crate) struct Turns {
    workers: VecDeque<(u64, WorkerKey)>,
    /// The turn of the next one that comes.
    next: u64,
}

impl Turns {
    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.workers.len()
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.workers.is_empty()
    }

    /// The first one.
    pub(crate) fn first(&self) -> Option<WorkerKey> {
        self.workers.front().map(|(_, key)| *key)
    }

    /// All of them, the first one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = WorkerKey> {
        self.workers.iter().map(|(_, key)| *key)
    }

    /// A worker comes. Returns its turn, with which it is taken out.
    pub(super) fn push(&mut self, key: WorkerKey) -> u64 {
        self.next += 1;
        self.workers.push_back((self.next, key));
        self.next
    }

    /// Takes out the first one.
    pub(super) fn pop(&mut self) -> Option<WorkerKey> {
        self.workers.pop_front().map(|(_, key)| key)
    }

    /// Takes out the one with this turn.
    pub(super) fn remove(&mut self, turn: u64) {
        if let Ok(at) = self.workers.binary_search_by_key(&turn, |(of, _)| *of) {
            self.workers.remove(at);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::keys::Key;

    #[test]
    fn one_in_the_middle_leaves_and_the_others_keep_their_order() {
        let mut turns = Turns::default();
        let given: Vec<u64> = (0..5).map(|index| turns.push(WorkerKey::of(index))).collect();
        turns.remove(given[2]);
        turns.remove(given[2]);
        assert_eq!(turns.pop(), Some(WorkerKey::of(0)));
        turns.push(WorkerKey::of(0));
        let left: Vec<usize> = turns.iter().map(Key::index).collect();
        assert_eq!((left, turns.len()), (vec![1, 3, 4, 0], 4));
    }
}
