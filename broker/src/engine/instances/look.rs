//! When instances are looked at. Each that is alive has one entry, at the time of this machine's
//! clock at which it is timed out if nothing is heard of it; a beat does not move the entry, so
//! that beats cost little.

use super::activity::Activity;
use crate::engine::keys::InstanceKey;
use std::collections::BTreeSet;

/// When an instance is looked at next.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Look {
    pub(super) at: Activity,
    /// How often in a row it was overdue right after a standstill.
    pub(super) put_off: u8,
}

/// The entries of the instances that are alive.
#[derive(Debug, Default)]
pub(super) struct Looks(BTreeSet<(Look, InstanceKey)>);

impl Looks {
    /// How many instances are watched.
    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether an instance is watched with this entry.
    pub(super) fn has(&self, look: Look, key: InstanceKey) -> bool {
        self.0.contains(&(look, key))
    }

    /// Adds an entry.
    pub(super) fn insert(&mut self, look: Look, key: InstanceKey) {
        self.0.insert((look, key));
    }

    /// Takes an entry out.
    pub(super) fn remove(&mut self, look: Look, key: InstanceKey) {
        self.0.remove(&(look, key));
    }

    /// The one that is due first.
    pub(super) fn first(&self) -> Option<(Look, InstanceKey)> {
        self.0.first().copied()
    }
}
