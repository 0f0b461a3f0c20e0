//! The laws of `instances`: what must hold after each step.

use super::instance::{Condition, Instance};
use super::machine::Instances;
use super::table::LinkState;
use crate::engine::keys::InstanceKey;
use crate::engine::law::law;
use protocol::LinkId;

impl Instances {
    /// The law that is broken, if any.
    ///
    /// # Errors
    /// Names the law and the ids.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut watched, mut announced, mut bytes) = (0, 0, 0);
        for (key, instance) in self.table.iter() {
            let id = instance.name.id;
            law!(
                self.table.named(&instance.name) == Some(key),
                "law 6: instance {id} is not found by its name"
            );
            let is_watched = instance.look.is_some_and(|look| self.looks.has(look, key));
            let Some(link) = instance.owner.link() else {
                law!(instance.look.is_none(), "law 7: worker {id} may be timed out");
                continue;
            };
            announced += 1;
            bytes += instance.bytes();
            law!(
                self.table.at(link, id) == Some(key),
                "law 8: link {link} does not know its instance {id}"
            );
            let is_alive = matches!(instance.condition, Condition::Alive(_));
            law!(
                is_watched == is_alive,
                "law 7: instance {id} is {}, and is watched: {is_watched}",
                instance.condition
            );
            law!(
                !instance.is_stalled || instance.condition.is_running(),
                "law 7: instance {id} is {} and stalled",
                instance.condition
            );
            watched += usize::from(is_alive);
        }
        law!(watched == self.looks.len(), "law 7: {watched} instances may be timed out, not all");
        law!(
            announced == self.table.announced(),
            "law 6: {} announced instances are counted, are {announced}",
            self.table.announced()
        );
        law!(
            bytes == self.table.bytes(),
            "law 6: {} bytes of instances are counted, are {bytes}",
            self.table.bytes()
        );
        law!(watched == 0 || self.due().is_some(), "law 7: nobody looks at {watched} instances");
        let of_links: usize = self.table.links().map(|(_, of_link)| of_link.by_id.len()).sum();
        law!(of_links == announced, "law 8: links know {of_links} instances, are {announced}");
        self.check_groups()
    }

    /// The links that have announced something and are not gone.
    pub(crate) fn links(&self) -> impl Iterator<Item = LinkId> {
        let is_gone = |state| matches!(state, LinkState::Gone(_));
        let links = self.table.links().filter(move |(_, of_link)| !is_gone(of_link.state));
        links.map(|(link, _)| link)
    }

    fn check_groups(&self) -> Result<(), String> {
        law!(self.groups.is_settled(), "law 7: a change of a group is not published");
        law!(self.history.is_sound(), "law 6: the instances that failed are listed wrong");
        for (name, group) in self.groups.iter() {
            law!(
                group.state == group.derive(),
                "law 7: group {name} is {}, should be {}",
                group.state.word(),
                group.derive().word()
            );
            let members = group.members.iter().map(|&key| &self.table[key]);
            let count = |is: fn(Condition) -> bool| {
                members.clone().filter(|instance| is(instance.condition)).count() as u64
            };
            let joined = count(Condition::is_running);
            let timed_out = count(|condition| matches!(condition, Condition::TimedOut { .. }));
            let missed = self.history.iter();
            let missed = missed.filter(|ended| ended.is_missed && ended.groups.contains(name));
            let is = (joined, timed_out, missed.count() as u64);
            law!(
                (group.joined, group.timed_out, group.failed) == is,
                "law 6: group {name} counts {} joined, {} timed out, {} failed, are {is:?}",
                group.joined,
                group.timed_out,
                group.failed
            );
        }
        let is_listed = |(key, instance): (InstanceKey, &Instance)| {
            let groups = self.groups.of(&instance.name.name, &instance.named_groups);
            // Those that are still to be moved have the groups of before.
            (groups == instance.groups || !self.regrouped.is_empty())
                && instance.groups.iter().all(|name| {
                    self.groups.get(name).is_some_and(|group| group.members.contains(&key))
                })
        };
        let members: usize = self.groups.iter().map(|(_, group)| group.members.len()).sum();
        let joins: usize = self.table.iter().map(|(_, instance)| instance.groups.len()).sum();
        law!(
            members == joins && self.table.iter().all(is_listed),
            "law 6: groups have {members} members, instances are in {joins} groups"
        );
        Ok(())
    }
}
