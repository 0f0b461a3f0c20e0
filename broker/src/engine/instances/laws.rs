//! The laws of `instances`: what must hold after each step.

use super::instance::{Condition, Owner};
use super::machine::Instances;
use crate::engine::law::law;

impl Instances {
    /// The law that is broken, if any.
    ///
    /// # Errors
    /// Names the law and the ids.
    pub(crate) fn check(&self) -> Result<(), String> {
        let (mut watched, mut announced) = (0, 0);
        for (key, instance) in self.table.iter() {
            let id = instance.name.id;
            law!(
                self.table.named(&instance.name) == Some(key),
                "law 6: instance {id} is not found by its name"
            );
            let is_watched = instance.look.is_some_and(|look| self.overdue.has(look, key));
            let Owner::Link(link) = instance.owner else {
                law!(instance.look.is_none(), "law 7: worker {id} may be timed out");
                continue;
            };
            announced += 1;
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
        law!(watched == self.overdue.len(), "law 7: {watched} instances may be timed out, not all");
        law!(
            announced == self.table.announced(),
            "law 6: {} announced instances are counted, are {announced}",
            self.table.announced()
        );
        law!(watched == 0 || self.due().is_some(), "law 7: nobody looks at {watched} instances");
        let of_links: usize = self.table.links().map(|(_, of_link)| of_link.by_id.len()).sum();
        law!(of_links == announced, "law 8: links know {of_links} instances, are {announced}");
        Ok(())
    }

    /// The links that have announced something.
    pub(crate) fn links(&self) -> impl Iterator<Item = protocol::LinkId> {
        self.table.links().map(|(link, _)| link)
    }
}
