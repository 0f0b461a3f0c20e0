//! Keys: what names a slot of one of the engine's tables. Each table has its own type of key, so
//! the key of a worker opens no client. A key is known to the engine only, and its slot is used
//! again once it is free; what operators and peers see are the ids (`protocol::ids`).

use slab::Slab;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// Names a slot of the one table that it is the key of.
pub(crate) trait Key: Copy {
    /// The key of a slot.
    fn of(index: usize) -> Self;
    /// The slot.
    fn index(self) -> usize;
}

// A whole word each: four bytes would be widened at each look-up, some fifty a request.
macro_rules! keys {
    ($($(#[$doc:meta])+ $name:ident)+) => {$(
        $(#[$doc])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub(crate) struct $name(usize);

        impl Key for $name {
            fn of(index: usize) -> Self {
                Self(index)
            }
            fn index(self) -> usize {
                self.0
            }
        }
    )+};
}

keys! {
    /// Names a client in `Clients`, from its login until its link is gone.
    ClientKey
    /// Names a host in `Hosts`, from its configuration until it is deleted. A worker names its host
    /// by name: one that started itself may run where no host is configured.
    HostKey
    /// Names a service in `Registry`, from its configuration until it is deleted; that of `op` is
    /// valid for ever. A service with workers, clients or requests is not deleted.
    ServiceKey
    /// Names a request in `Engine::transactions`, from its admission until it has its outcome and
    /// its worker, if it has one, is done with it.
    TransactionKey
    /// Names a worker in `Workers`, from its configuration until it is deleted; one that started
    /// itself, from its login until it is gone.
    WorkerKey
}

/// An `Option` of a key in four bytes instead of sixteen, for what there is once a request.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OptionKey<K> {
    index: u32,
    key: PhantomData<K>,
}

impl<K: Key> OptionKey<K> {
    /// No key; a table has no such slot.
    pub(crate) const NONE: Self = Self { index: u32::MAX, key: PhantomData };

    /// A key.
    pub(crate) fn some(key: K) -> Self {
        Self { index: key.index() as u32, key: PhantomData }
    }

    /// The key, if there is one.
    pub(crate) fn get(self) -> Option<K> {
        (self.index != u32::MAX).then(|| K::of(self.index as usize))
    }

    /// There is none.
    pub(crate) fn is_none(self) -> bool {
        self.index == u32::MAX
    }
}

impl<K: Key + fmt::Debug> fmt::Debug for OptionKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A table whose slots are named by keys of one type. Insert, remove and look-up cost the same
/// with one entry and with a million.
pub(crate) struct Table<K, T> {
    slab: Slab<T>,
    key: PhantomData<K>,
}

impl<K, T> Default for Table<K, T> {
    fn default() -> Self {
        Self { slab: Slab::new(), key: PhantomData }
    }
}

impl<K, T: fmt::Debug> fmt::Debug for Table<K, T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.slab.fmt(f)
    }
}

impl<K: Key, T> Table<K, T> {
    /// Adds an entry, in a free slot.
    pub(crate) fn insert(&mut self, entry: T) -> K {
        let index = self.slab.insert(entry);
        debug_assert!(index < u32::MAX as usize, "an OptionKey has four bytes");
        K::of(index)
    }

    /// Takes an entry out that is in; its key may be given again from now on.
    pub(crate) fn remove(&mut self, key: K) -> T {
        self.slab.remove(key.index())
    }

    /// An entry that may be gone.
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        self.slab.get(key.index())
    }

    /// Whether there is an entry with this key.
    pub(crate) fn contains(&self, key: K) -> bool {
        self.slab.contains(key.index())
    }

    /// All entries, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.slab.iter().map(|(index, entry)| (K::of(index), entry))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// For how many there is room.
    pub(crate) fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    /// Gives up the room behind the last entry.
    pub(crate) fn shrink_to_fit(&mut self) {
        self.slab.shrink_to_fit();
    }
}

impl<K: Key, T> Index<K> for Table<K, T> {
    type Output = T;
    fn index(&self, key: K) -> &T {
        &self.slab[key.index()]
    }
}

impl<K: Key, T> IndexMut<K> for Table<K, T> {
    fn index_mut(&mut self, key: K) -> &mut T {
        &mut self.slab[key.index()]
    }
}
