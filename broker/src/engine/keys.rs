//! Keys of the engine's tables. Each table has a type of key of its own, so that the key of a
//! worker can't be used for a client. Only the engine knows keys, and a key is given again once its
//! slot is free; operators and peers see ids (`protocol::ids`).

use slab::Slab;
use std::fmt;
use std::marker::PhantomData;
use std::ops::{Index, IndexMut};

/// A key: the index of a slot in the one table that it belongs to.
pub(crate) trait Key: Copy {
    /// The key of the slot with this index.
    fn of(index: usize) -> Self;
    /// The index of its slot.
    fn index(self) -> usize;
}

// They are `usize`, because `u32` would be widened at each of the fifty look-ups of a request.
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
    /// Names an instance in `Instances`, from its announcement, or the start of a worker, until it
    /// ends.
    InstanceKey
    /// Names a node in the tree of patterns, as long as a subscription stands at it or below it.
    NodeKey
    /// Names a service in `Catalog`, from its configuration until it is deleted; that of `op` is
    /// valid for ever. A service with workers, clients or requests is not deleted.
    ServiceKey
    /// Names a subscription in `Topics`, until it or its connection ends.
    SubscriptionKey
    /// Names a request in `Dispatch::transactions`, from its admission until it has its outcome and
    /// its worker, if it has one, is done with it.
    TransactionKey
    /// Names a worker in `Workers`, from its configuration until it is deleted; one that started
    /// itself, from its login until it is gone.
    WorkerKey
    /// Names a word of patterns in their tree, as long as a node has it.
    WordKey
}

/// An optional key in four bytes instead of sixteen, for structs of which each request has one.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) struct OptionKey<K> {
    index: u32,
    key: PhantomData<K>,
}

impl<K: Key> OptionKey<K> {
    /// No key; no table has a slot with this index.
    pub(crate) const NONE: Self = Self { index: u32::MAX, key: PhantomData };

    /// Wraps a key.
    pub(crate) fn some(key: K) -> Self {
        Self { index: key.index() as u32, key: PhantomData }
    }

    /// The key; `None` = there is none.
    pub(crate) fn get(self) -> Option<K> {
        (self.index != u32::MAX).then(|| K::of(self.index as usize))
    }

    /// Whether there is no key.
    pub(crate) fn is_none(self) -> bool {
        self.index == u32::MAX
    }
}

impl<K: Key + fmt::Debug> fmt::Debug for OptionKey<K> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.get().fmt(f)
    }
}

/// A table whose entries are found by keys of one type. Insert, remove and look-up cost the same
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
    /// Adds an entry in a free slot.
    pub(crate) fn insert(&mut self, entry: T) -> K {
        let index = self.slab.insert(entry);
        debug_assert!(index < u32::MAX as usize, "an OptionKey has four bytes");
        K::of(index)
    }

    /// Takes out an entry, which must exist; its key may be given again from now on.
    pub(crate) fn remove(&mut self, key: K) -> T {
        self.slab.remove(key.index())
    }

    /// The entry with this key, which may be gone.
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        self.slab.get(key.index())
    }

    /// Whether there is an entry with this key.
    pub(crate) fn contains(&self, key: K) -> bool {
        self.slab.contains(key.index())
    }

    /// All entries in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        self.slab.iter().map(|(index, entry)| (K::of(index), entry))
    }

    /// All entries, to change them.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.slab.iter_mut().map(|(_, entry)| entry)
    }

    /// Number of entries.
    pub(crate) fn len(&self) -> usize {
        self.slab.len()
    }

    /// Number of entries that fit without allocating.
    pub(crate) fn capacity(&self) -> usize {
        self.slab.capacity()
    }

    /// Gives back the memory of the free slots at the end.
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

/// What one machine knows of the entries of a [`Table`] that another one owns, by the same keys.
#[derive(Debug)]
pub(crate) struct SideTable<K, T> {
    entries: Vec<Option<T>>,
    key: PhantomData<K>,
}

impl<K, T> Default for SideTable<K, T> {
    fn default() -> Self {
        Self { entries: Vec::new(), key: PhantomData }
    }
}

impl<K: Key, T> SideTable<K, T> {
    /// Adds the entry of a key that has none.
    pub(crate) fn insert(&mut self, key: K, entry: T) {
        let index = key.index();
        if self.entries.len() <= index {
            self.entries.resize_with(index + 1, || None);
        }
        debug_assert!(self.entries[index].is_none(), "entry {index} is there already");
        self.entries[index] = Some(entry);
    }

    /// Takes an entry out.
    pub(crate) fn remove(&mut self, key: K) -> Option<T> {
        self.entries.get_mut(key.index())?.take()
    }

    /// The entry with this key, which may be gone.
    pub(crate) fn get(&self, key: K) -> Option<&T> {
        self.entries.get(key.index())?.as_ref()
    }

    /// The same, to change it.
    pub(crate) fn get_mut(&mut self, key: K) -> Option<&mut T> {
        self.entries.get_mut(key.index())?.as_mut()
    }

    /// The entry with this key; one that is not there is made.
    pub(crate) fn get_or_default(&mut self, key: K) -> &mut T
    where
        T: Default,
    {
        if self.get(key).is_none() {
            self.insert(key, T::default());
        }
        &mut self[key]
    }

    /// All entries in the order of their keys.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (K, &T)> {
        let entries = self.entries.iter().enumerate();
        entries.filter_map(|(index, entry)| Some((K::of(index), entry.as_ref()?)))
    }

    /// The same, to change them.
    pub(crate) fn values_mut(&mut self) -> impl Iterator<Item = &mut T> {
        self.entries.iter_mut().flatten()
    }

    /// Gives back the memory of the free slots at the end.
    pub(crate) fn shrink_to_fit(&mut self) {
        let used = self.entries.iter().rposition(Option::is_some);
        self.entries.truncate(used.map_or(0, |last| last + 1));
        self.entries.shrink_to_fit();
    }
}

impl<K: Key, T> Index<K> for SideTable<K, T> {
    type Output = T;
    #[inline]
    fn index(&self, key: K) -> &T {
        match &self.entries[key.index()] {
            Some(entry) => entry,
            None => no_entry(key.index()),
        }
    }
}

impl<K: Key, T> IndexMut<K> for SideTable<K, T> {
    #[inline]
    fn index_mut(&mut self, key: K) -> &mut T {
        match &mut self.entries[key.index()] {
            Some(entry) => entry,
            None => no_entry(key.index()),
        }
    }
}

/// A key outlived its entry: a broken law of our own, which stops the broker.
#[cold]
#[expect(clippy::panic, reason = "as the index of any table")]
fn no_entry(index: usize) -> ! {
    panic!("there is no entry {index}")
}
