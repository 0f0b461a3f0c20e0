//! Groups: how many of their members there are and run, and the state that follows from it.

use super::instance::{Condition, Instance};
use crate::engine::effect::{Effect, Effects};
use crate::engine::keys::InstanceKey;
use protocol::ServiceName;
use protocol::Tick;
use protocol::instances::InstanceState;
use protocol::topics::escape_word;
use std::collections::{BTreeMap, BTreeSet};

/// The state of a group, which follows from those of its members.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum GroupState {
    /// No member runs or starts.
    #[default]
    Down,
    /// Fewer members run than are needed, and others may follow.
    Starting,
    /// Enough members run.
    Running,
    /// Fewer members run than are needed, and one is timed out or has failed.
    Error,
}

impl GroupState {
    /// The word for it in messages and lists.
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Down => "down",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Error => "error",
        }
    }
}

/// What `config group` says.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct GroupConfig {
    /// How many members have to run; `None` = all that are named, or one.
    pub(crate) min: Option<u64>,
    /// Names of instances that are expected in it, whatever groups they name.
    pub(crate) members: Vec<ServiceName>,
}

/// A group that is configured, has members, or had one that failed.
#[derive(Debug, Default)]
pub(crate) struct Group {
    /// What `config group` says of it; `None` = nothing.
    pub(crate) config: Option<GroupConfig>,
    /// The instances in it.
    pub(super) members: BTreeSet<InstanceKey>,
    /// How many of them run.
    pub(crate) joined: u64,
    /// How many of them start.
    pub(super) starting: u64,
    /// How many of them are timed out.
    pub(super) timed_out: u64,
    /// How many failed, are remembered, and were not replaced.
    pub(super) failed: u64,
    pub(crate) state: GroupState,
    /// Since when it has its state; `None` = it never had another one.
    pub(crate) since: Option<Tick>,
}

impl Group {
    /// How many members have to run.
    pub(crate) fn min(&self) -> u64 {
        let Some(config) = &self.config else { return 1 };
        config.min.unwrap_or(config.members.len() as u64).max(1)
    }

    /// How many members are timed out, or failed without having been replaced.
    pub(crate) const fn error(&self) -> u64 {
        self.timed_out + self.failed
    }

    /// The instances in it.
    pub(crate) const fn members(&self) -> &BTreeSet<InstanceKey> {
        &self.members
    }

    /// The state that follows from the members.
    pub(super) fn derive(&self) -> GroupState {
        if self.joined >= self.min() {
            GroupState::Running
        } else if self.error() > 0 {
            GroupState::Error
        } else if self.starting > 0 || self.joined > 0 {
            GroupState::Starting
        } else {
            GroupState::Down
        }
    }

    fn is_empty(&self) -> bool {
        self.config.is_none() && self.members.is_empty() && self.failed == 0
    }

    /// The count in which an instance stands; `None` = in none.
    const fn count_of(&mut self, condition: Condition) -> Option<&mut u64> {
        match condition {
            Condition::Alive(InstanceState::Running | InstanceState::Own(_)) => {
                Some(&mut self.joined)
            }
            Condition::Alive(InstanceState::Starting) => Some(&mut self.starting),
            Condition::Alive(InstanceState::Stopping | InstanceState::Stopped) => None,
            Condition::TimedOut { .. } => Some(&mut self.timed_out),
        }
    }
}

/// All groups but those of services without instances.
#[derive(Debug, Default)]
pub(crate) struct Groups {
    by_name: BTreeMap<ServiceName, Group>,
    /// The groups that expect instances of a name.
    expecting: BTreeMap<ServiceName, BTreeSet<ServiceName>>,
    /// Those whose counts changed in this step.
    changed: BTreeSet<ServiceName>,
}

impl Groups {
    /// The group of this name, if there is something to say of it.
    pub(crate) fn get(&self, name: &ServiceName) -> Option<&Group> {
        self.by_name.get(name)
    }

    /// All of them, by name.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&ServiceName, &Group)> {
        self.by_name.iter()
    }

    /// The groups of an instance: those that its program named, and those that expect it.
    pub(super) fn of(&self, name: &ServiceName, own: &[ServiceName]) -> Vec<ServiceName> {
        let expecting = self.expecting.get(name).into_iter().flatten();
        let others = expecting.filter(|group| !own.contains(group));
        own.iter().chain(others).cloned().collect()
    }

    fn change(&mut self, name: &ServiceName, change: impl FnOnce(&mut Group)) {
        change(self.by_name.entry(name.clone()).or_default());
        self.changed.insert(name.clone());
    }

    /// An instance is in its groups from now on.
    pub(super) fn join(&mut self, key: InstanceKey, instance: &Instance) {
        for name in &instance.groups {
            self.change(name, |group| {
                group.members.insert(key);
                group.count_of(instance.condition).into_iter().for_each(|count| *count += 1);
            });
        }
    }

    /// An instance is in none of its groups any more.
    pub(super) fn part(&mut self, key: InstanceKey, instance: &Instance) {
        for name in &instance.groups {
            self.change(name, |group| {
                group.members.remove(&key);
                group.count_of(instance.condition).into_iter().for_each(|count| *count -= 1);
            });
        }
    }

    /// The condition of an instance was another one.
    pub(super) fn turn(&mut self, instance: &Instance, was: Condition) {
        for name in &instance.groups {
            self.change(name, |group| {
                group.count_of(was).into_iter().for_each(|count| *count -= 1);
                group.count_of(instance.condition).into_iter().for_each(|count| *count += 1);
            });
        }
    }

    /// A member of these groups failed.
    pub(super) fn failed(&mut self, names: &[ServiceName]) {
        names.iter().for_each(|name| self.change(name, |group| group.failed += 1));
    }

    /// One that failed was replaced, or is remembered no longer.
    pub(super) fn forgot(&mut self, names: &[ServiceName]) {
        names.iter().for_each(|name| self.change(name, |group| group.failed -= 1));
    }

    /// `config group`, or `delete group` if there is none. The instances of the names in either the
    /// old or the new one have other groups from now on.
    pub(super) fn configure(
        &mut self,
        name: &ServiceName,
        config: Option<GroupConfig>,
    ) -> BTreeSet<ServiceName> {
        let names = |config: Option<&GroupConfig>| -> BTreeSet<ServiceName> {
            config.into_iter().flat_map(|config| config.members.iter().cloned()).collect()
        };
        let old = names(self.by_name.get(name).and_then(|group| group.config.as_ref()));
        let new = names(config.as_ref());
        for member in old.difference(&new) {
            if let Some(groups) = self.expecting.get_mut(member) {
                groups.remove(name);
                if groups.is_empty() {
                    self.expecting.remove(member);
                }
            }
        }
        for member in new.difference(&old) {
            self.expecting.entry(member.clone()).or_default().insert(name.clone());
        }
        let touched = old.symmetric_difference(&new).cloned().collect();
        self.change(name, |group| group.config = config);
        touched
    }

    /// Publishes which groups have another state after this event, each with topic
    /// `isect.state.GROUP`. How many members are expected is still to be said.
    pub(super) fn settle(&mut self, now: Tick, effects: &mut Effects) {
        if self.changed.is_empty() {
            return;
        }
        for name in std::mem::take(&mut self.changed) {
            let Some(group) = self.by_name.get_mut(&name) else { continue };
            let state = group.derive();
            let was = std::mem::replace(&mut group.state, state);
            if was != state {
                group.since = Some(now);
                let lines = vec![
                    ("group", name.to_string()),
                    ("state", state.word().to_owned()),
                    ("was", was.word().to_owned()),
                    ("joined", group.joined.to_string()),
                    ("min", group.min().to_string()),
                    ("error", group.error().to_string()),
                ];
                let topic = format!("isect.state.{}", escape_word(name.as_str()));
                let members = group.config.as_ref().map_or(0, |config| config.members.len());
                let group = name.clone();
                effects.push(Effect::GroupTurned { group, members, topic, lines });
            }
            if group.is_empty() {
                self.by_name.remove(&name);
            }
        }
    }

    /// Whether all changes of this step are published.
    pub(super) fn is_settled(&self) -> bool {
        self.changed.is_empty()
    }
}
