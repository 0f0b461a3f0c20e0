//! Workers that take turns: those that are idle, or that have room. They are linked through their
//! seats, so that coming, going, and leaving from the middle cost the same however many there are.

use super::seat::{Neighbours, Seat};
use crate::engine::keys::{OptionKey, SideTable, WorkerKey};

/// The table of all seats, which has those of the list.
type Seats = SideTable<WorkerKey, Seat>;

/// No worker: the end of the list.
const NONE: OptionKey<WorkerKey> = OptionKey::NONE;

/// Workers by turn. A worker is in one such list at most.
#[derive(Debug)]
pub(crate) struct Turns {
    first: OptionKey<WorkerKey>,
    last: OptionKey<WorkerKey>,
    count: usize,
}

impl Default for Turns {
    fn default() -> Self {
        Self { first: NONE, last: NONE, count: 0 }
    }
}

impl Turns {
    /// How many there are.
    pub(crate) const fn len(&self) -> usize {
        self.count
    }

    /// Whether there is none.
    pub(crate) const fn is_empty(&self) -> bool {
        self.count == 0
    }

    /// The first one.
    pub(crate) fn first(&self) -> Option<WorkerKey> {
        self.first.get()
    }

    /// All of them, the first one first.
    pub(super) fn iter<'a>(&self, seats: &'a Seats) -> impl Iterator<Item = WorkerKey> + use<'a> {
        let mut at = self.first;
        std::iter::from_fn(move || {
            let key = at.get()?;
            at = seats[key].neighbours.after;
            Some(key)
        })
    }

    /// A worker comes, behind the others.
    pub(super) fn push(&mut self, key: WorkerKey, seats: &mut Seats) {
        let this = OptionKey::some(key);
        seats[key].neighbours = Neighbours { before: self.last, after: NONE };
        match self.last.get() {
            Some(last) => seats[last].neighbours.after = this,
            None => self.first = this,
        }
        self.last = this;
        self.count += 1;
    }

    /// Takes out the first one.
    pub(super) fn pop(&mut self, seats: &mut Seats) -> Option<WorkerKey> {
        let key = self.first.get()?;
        self.first = seats[key].neighbours.after;
        match self.first.get() {
            Some(first) => seats[first].neighbours.before = NONE,
            None => self.last = NONE,
        }
        self.count -= 1;
        Some(key)
    }

    /// Takes out a worker, which must be in this list.
    pub(super) fn remove(&mut self, key: WorkerKey, seats: &mut Seats) {
        let Neighbours { before, after } = seats[key].neighbours;
        match before.get() {
            Some(before) => seats[before].neighbours.after = after,
            None => self.first = after,
        }
        match after.get() {
            Some(after) => seats[after].neighbours.before = before,
            None => self.last = before,
        }
        self.count -= 1;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::keys::{Key, ServiceKey};
    use protocol::WorkerId;

    #[test]
    fn one_in_the_middle_leaves_and_the_others_keep_their_order() {
        let (mut seats, mut turns) = (Seats::default(), Turns::default());
        for index in 0..5 {
            let key = WorkerKey::of(index);
            seats.insert(key, Seat::new(WorkerId(index as u32), ServiceKey::of(0)));
            turns.push(key, &mut seats);
        }
        turns.remove(WorkerKey::of(2), &mut seats);
        assert_eq!(turns.pop(&mut seats), Some(WorkerKey::of(0)));
        turns.push(WorkerKey::of(0), &mut seats);
        let left: Vec<usize> = turns.iter(&seats).map(Key::index).collect();
        assert_eq!((left, turns.len()), (vec![1, 3, 4, 0], 4));
        turns.remove(WorkerKey::of(0), &mut seats);
        turns.remove(WorkerKey::of(1), &mut seats);
        let left: Vec<usize> = turns.iter(&seats).map(Key::index).collect();
        assert_eq!((left, turns.first()), (vec![3, 4], Some(WorkerKey::of(3))));
        for index in [3, 4] {
            assert_eq!(turns.pop(&mut seats), Some(WorkerKey::of(index)));
        }
        assert!(turns.is_empty() && turns.pop(&mut seats).is_none());
    }
}
