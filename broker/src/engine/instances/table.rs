//! The instances, found by name and by connection.

use super::activity::Activity;
use super::announced::Announcer;
use super::instance::{EndReason, Instance, InstanceName};
use crate::engine::keys::{InstanceKey, Table};
use protocol::instances::BeatOf;
use protocol::{LinkId, ServiceName};
use std::collections::BTreeMap;
use std::ops::{Bound, Index};

/// What a connection has announced.
#[derive(Debug)]
pub(crate) struct LinkInstances {
    /// The program at it.
    pub(crate) who: Announcer,
    pub(crate) by_id: BTreeMap<u64, InstanceKey>,
    /// Until then it was not read, so that the silence of its instances counts from then on.
    pub(crate) read_since: Activity,
    /// How it goes on with the connection.
    pub(crate) state: LinkState,
}

/// How it goes on with a connection that has announced instances.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum LinkState {
    /// As before.
    Open,
    /// Its peer has logged out, or was asked to end: its end will be in order.
    Closing,
    /// It is gone; its instances end part by part, for this reason.
    Gone(EndReason),
}

/// Where a walk over the instances, in the order of their names, goes on.
#[derive(Clone, Debug)]
pub(crate) enum Start {
    /// At the first one.
    Beginning,
    /// At the first one of this name.
    Name(ServiceName),
    /// Behind this one, which may be gone.
    After(InstanceName),
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct InstanceTable {
    entries: Table<InstanceKey, Instance>,
    by_name: BTreeMap<InstanceName, InstanceKey>,
    by_link: BTreeMap<LinkId, LinkInstances>,
    /// How many were announced by programs.
    announced: usize,
    /// How many bytes these take.
    bytes: u64,
}

impl InstanceTable {
    /// Adds an instance of the broker's own, or one that a program announces; there must be none
    /// of its name.
    pub(crate) fn insert(&mut self, instance: Instance, who: Option<Announcer>) -> InstanceKey {
        let name = instance.name.clone();
        let id = name.id;
        debug_assert_eq!(instance.owner.link(), who.as_ref().map(|who| who.link));
        let bytes = instance.bytes();
        let key = self.entries.insert(instance);
        let old = self.by_name.insert(name, key);
        debug_assert!(old.is_none(), "instance {id} is there already");
        if let Some(who) = who {
            self.announced += 1;
            self.bytes += bytes;
            let of_link = self.by_link.entry(who.link).or_insert_with(|| LinkInstances {
                by_id: BTreeMap::new(),
                read_since: Activity::default(),
                state: LinkState::Open,
                who: who.clone(),
            });
            of_link.who = who;
            of_link.by_id.insert(id, key);
        }
        key
    }

    /// Takes an instance out.
    pub(crate) fn remove(&mut self, key: InstanceKey) -> Instance {
        let instance = self.entries.remove(key);
        self.by_name.remove(&instance.name);
        let Some(link) = instance.owner.link() else { return instance };
        self.announced -= 1;
        self.bytes -= instance.bytes();
        if let Some(of_link) = self.by_link.get_mut(&link) {
            of_link.by_id.remove(&instance.name.id);
            if of_link.by_id.is_empty() {
                self.by_link.remove(&link);
            }
        }
        instance
    }

    /// The instance with this key, which may be gone.
    pub(crate) fn get(&self, key: InstanceKey) -> Option<&Instance> {
        self.entries.get(key)
    }

    /// An instance that is there, to change it.
    pub(crate) fn get_mut(&mut self, key: InstanceKey) -> &mut Instance {
        &mut self.entries[key]
    }

    /// The instance of this name.
    pub(crate) fn named(&self, name: &InstanceName) -> Option<InstanceKey> {
        self.by_name.get(name).copied()
    }

    /// What a connection has announced.
    pub(crate) fn of_link(&self, link: LinkId) -> Option<&LinkInstances> {
        self.by_link.get(&link)
    }

    /// The same, to note something of the connection.
    pub(crate) fn of_link_mut(&mut self, link: LinkId) -> Option<&mut LinkInstances> {
        self.by_link.get_mut(&link)
    }

    /// Looks at the instances of a connection that a beat names; `None` = it has none of this id.
    pub(crate) fn each_of<'a>(
        &mut self,
        link: LinkId,
        beats: &'a [BeatOf],
        mut look: impl FnMut(&'a BeatOf, Option<(InstanceKey, &mut Instance)>),
    ) {
        let by_id = self.by_link.get(&link).map(|of_link| &of_link.by_id);
        for beat in beats {
            let key = by_id.and_then(|by_id| by_id.get(&beat.id)).copied();
            look(beat, key.map(|key| (key, &mut self.entries[key])));
        }
    }

    /// The instance of a connection with this id.
    pub(crate) fn at(&self, link: LinkId, id: u64) -> Option<InstanceKey> {
        self.by_link.get(&link)?.by_id.get(&id).copied()
    }

    /// The keys of all instances of a name, or of those with this id, in the order of their names.
    pub(crate) fn of_name(
        &self,
        name: &ServiceName,
        id: Option<u64>,
    ) -> impl Iterator<Item = InstanceKey> {
        let from = InstanceName::first(name, id.unwrap_or(0));
        let is_meant =
            move |key: &InstanceName| key.name == *name && id.is_none_or(|id| key.id == id);
        let of_name = self.by_name.range(from..).take_while(move |(key, _)| is_meant(key));
        of_name.map(|(_, &key)| key)
    }

    /// All instances behind one of this name, or all those of a name and what comes behind it.
    pub(crate) fn behind(&self, start: &Start) -> impl Iterator<Item = (InstanceKey, &Instance)> {
        let from = match start {
            Start::Beginning => Bound::Unbounded,
            Start::Name(name) => Bound::Included(InstanceName::first(name, 0)),
            Start::After(after) => Bound::Excluded(after.clone()),
        };
        let behind = self.by_name.range((from, Bound::Unbounded));
        behind.map(|(_, &key)| (key, &self.entries[key]))
    }

    /// How many there are.
    pub(crate) fn len(&self) -> usize {
        self.by_name.len()
    }

    /// All instances, in the order of their names.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (InstanceKey, &Instance)> {
        self.by_name.values().map(|&key| (key, &self.entries[key]))
    }

    /// All connections with instances.
    pub(super) fn links(&self) -> impl Iterator<Item = (LinkId, &LinkInstances)> {
        self.by_link.iter().map(|(&link, of_link)| (link, of_link))
    }

    /// How many bytes the instances take that programs announced.
    pub(crate) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// How many were announced by programs.
    pub(crate) const fn announced(&self) -> usize {
        self.announced
    }
}

impl Index<InstanceKey> for InstanceTable {
    type Output = Instance;
    fn index(&self, key: InstanceKey) -> &Instance {
        &self.entries[key]
    }
}
