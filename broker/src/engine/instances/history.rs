//! The instances that ended last, and those among them that failed and were not replaced.

use super::groups::Groups;
use super::instance::{Condition, EndReason, Instance, InstanceName};
use protocol::{ServiceName, Tick};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// An instance that ended.
#[derive(Debug)]
pub(crate) struct EndedInstance {
    pub(crate) name: InstanceName,
    /// Where it ran: the machine, or the host of a worker.
    pub(crate) machine: String,
    pub(crate) incarnation: u64,
    /// The groups that its program named.
    named_groups: Vec<ServiceName>,
    /// The groups that it was in.
    pub(crate) groups: Vec<ServiceName>,
    /// How it was right before its end.
    pub(crate) condition: Condition,
    /// What its program called that.
    pub(crate) state_name: Option<String>,
    pub(crate) text: String,
    pub(crate) checkpoint: u64,
    pub(crate) reason: EndReason,
    pub(crate) began: Tick,
    /// Since when it was so.
    pub(crate) since: Tick,
    pub(crate) ended: Tick,
    /// It was a worker.
    pub(crate) is_worker: bool,
    /// It failed, and no other of its name has begun since.
    pub(super) is_missed: bool,
}

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct History {
    ended: VecDeque<EndedInstance>,
    /// How many were dropped from the front.
    dropped: u64,
    /// The numbers of those that are missed, by name.
    missed: BTreeSet<(ServiceName, u64)>,
    /// The same, each by its whole name.
    missed_as: BTreeMap<InstanceName, u64>,
}

impl History {
    /// Those that ended, the last one first.
    pub(crate) fn iter(&self) -> impl Iterator<Item = &EndedInstance> {
        self.ended.iter().rev()
    }

    /// The same with their numbers, from the one before this number on.
    pub(crate) fn before(&self, number: u64) -> impl Iterator<Item = (u64, &EndedInstance)> {
        let count = number.saturating_sub(self.dropped).min(self.ended.len() as u64);
        let ended = self.ended.iter().enumerate().take(count as usize).rev();
        ended.map(|(at, ended)| (self.dropped + at as u64, ended))
    }

    /// Those of a group that failed and were not replaced.
    pub(crate) fn missed_of(&self, group: &ServiceName) -> impl Iterator<Item = &EndedInstance> {
        let missed = self.missed_as.values();
        let missed = missed.filter_map(|number| self.ended.get((number - self.dropped) as usize));
        missed.filter(|ended| ended.groups.contains(group))
    }

    /// How many are remembered.
    pub(crate) fn len(&self) -> usize {
        self.ended.len()
    }

    /// Remembers an instance that ended.
    pub(super) fn add(
        &mut self,
        instance: Instance,
        (reason, now): (EndReason, Tick),
        max: usize,
        groups: &mut Groups,
    ) {
        let is_missed = max > 0 && reason.is_failure(instance.condition);
        if is_missed {
            groups.failed(&instance.groups);
            let number = self.dropped + self.ended.len() as u64;
            self.missed.insert((instance.name.name.clone(), number));
            self.missed_as.insert(instance.name.clone(), number);
        }
        self.ended.push_back(EndedInstance {
            machine: instance.machine().to_owned(),
            state_name: instance.state_name().map(str::to_owned),
            name: instance.name,
            incarnation: instance.incarnation,
            named_groups: instance.named_groups,
            groups: instance.groups,
            condition: instance.condition,
            text: instance.text,
            checkpoint: instance.checkpoint,
            reason,
            began: instance.began,
            since: instance.since,
            is_worker: instance.owner.link().is_none(),
            ended: now,
            is_missed,
        });
        while self.ended.len() > max {
            let number = self.dropped;
            let Some(old) = self.ended.pop_front() else { break };
            self.dropped += 1;
            if old.is_missed {
                self.missed.remove(&(old.name.name.clone(), number));
                self.missed_as.remove(&old.name);
                groups.forgot(&old.groups);
            }
        }
    }

    /// An instance began: it replaces one that failed, the one with the same id if there is one.
    pub(super) fn replaced(&mut self, name: &InstanceName, groups: &mut Groups) {
        let of_name = || {
            let from = (name.name.clone(), 0);
            let first = self.missed.range(from..).next()?;
            (first.0 == name.name).then_some(first.1)
        };
        let number = self.missed_as.get(name).copied().or_else(of_name);
        number.into_iter().for_each(|number| self.not_missed(number, groups));
    }

    /// An instance of this whole name is missed no more.
    pub(super) fn forget(&mut self, name: &InstanceName, groups: &mut Groups) {
        let number = self.missed_as.get(name).copied();
        number.into_iter().for_each(|number| self.not_missed(number, groups));
    }

    fn not_missed(&mut self, number: u64, groups: &mut Groups) {
        let Some(ended) = self.ended.get_mut((number - self.dropped) as usize) else { return };
        ended.is_missed = false;
        groups.forgot(&ended.groups);
        self.missed.remove(&(ended.name.name.clone(), number));
        self.missed_as.remove(&ended.name);
    }

    /// The groups that expect instances of this name are other ones: those of it that are missed
    /// are missed there.
    pub(super) fn regroup(&mut self, name: &ServiceName, groups: &mut Groups) {
        let from = (name.clone(), 0);
        let missed = self.missed.range(from..).take_while(|(other, _)| other == name);
        for (_, number) in missed {
            let Some(ended) = self.ended.get_mut((number - self.dropped) as usize) else { return };
            groups.forgot(&ended.groups);
            ended.groups = groups.of(name, &ended.named_groups);
            groups.failed(&ended.groups);
        }
    }

    /// Whether the lists of those that are missed are whole.
    pub(super) fn is_sound(&self) -> bool {
        let missed = self.ended.iter().filter(|ended| ended.is_missed).count();
        (missed, missed) == (self.missed.len(), self.missed_as.len())
    }
}
