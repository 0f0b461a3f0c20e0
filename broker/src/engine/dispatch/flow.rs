//! Holds readers back: who sends more than another link takes is read no further until that has
//! room again. How much waits for a link is known to the net.

use crate::engine::action::Action;
use crate::engine::effect::{Effect, Effects};
use protocol::ids::LinkId;

/// What waits where.
#[derive(Debug, Default)]
struct LinkFlow {
    generation: u32,
    is_open: bool,
    /// More than `outbox_bytes_high` wait to be sent to it.
    is_congested: bool,
    /// Links that are read no further until this one has room again.
    waiters: Vec<LinkId>,
    /// How many reasons there are to read this link no further.
    pauses: u32,
}

/// The flow of every link, by the index of its id.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    links: Vec<LinkFlow>,
    /// How many are read no further for now.
    paused: usize,
}

impl Flow {
    /// A link is open: it is read, and nothing waits for it.
    pub(crate) fn open(&mut self, link: LinkId) {
        let index = link.index as usize;
        if self.links.len() <= index {
            self.links.resize_with(index + 1, LinkFlow::default);
        }
        let flow = &mut self.links[index];
        debug_assert!(!flow.is_open, "link {link} is open already");
        (flow.generation, flow.is_open) = (link.generation, true);
    }

    fn get(&self, link: LinkId) -> Option<&LinkFlow> {
        let flow = self.links.get(link.index as usize)?;
        (flow.is_open && flow.generation == link.generation).then_some(flow)
    }

    fn get_mut(&mut self, link: LinkId) -> Option<&mut LinkFlow> {
        let flow = self.links.get_mut(link.index as usize)?;
        (flow.is_open && flow.generation == link.generation).then_some(flow)
    }

    /// A link is gone: who waited for it is read again.
    pub(crate) fn close(&mut self, link: LinkId, effects: &mut Effects, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(link) else { return };
        flow.waiters.retain(|&waiter| waiter != link);
        self.has_room(link, effects, out);
        let Some(flow) = self.get_mut(link) else { return };
        flow.is_open = false;
        let was_paused = std::mem::take(&mut flow.pauses) > 0;
        self.paused -= usize::from(was_paused);
    }

    /// Gives up the room behind the first `used` links.
    pub(crate) fn shrink(&mut self, used: usize) {
        self.links.truncate(used);
        self.links.shrink_to_fit();
    }

    /// Too much waits to be sent to a link. A client that takes no answers is asked for no further
    /// requests: their answers would pile up, too, for each of 10,000 such clients.
    pub(crate) fn congested(&mut self, link: LinkId, is_client: bool, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(link) else { return };
        flow.is_congested = true;
        if is_client && !flow.waiters.contains(&link) {
            flow.waiters.push(link);
            self.pause(link, out);
        }
    }

    /// Whether too much waits to be sent to a link.
    pub(crate) fn is_congested(&self, link: LinkId) -> bool {
        self.get(link).is_some_and(|flow| flow.is_congested)
    }

    /// A link has room again: who waited for that is read again.
    pub(crate) fn has_room(&mut self, link: LinkId, effects: &mut Effects, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(link) else { return };
        flow.is_congested = false;
        if flow.waiters.is_empty() {
            return;
        }
        for source in std::mem::take(&mut flow.waiters) {
            self.resume(source, effects, out);
        }
    }

    /// After something of `source` was sent to `to`: if that is congested, `source` waits.
    pub(crate) fn hold_back(&mut self, source: LinkId, to: LinkId, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(to) else { return };
        if !flow.is_congested || source == to || flow.waiters.contains(&source) {
            return;
        }
        flow.waiters.push(source);
        self.pause(source, out);
    }

    /// `source` sends nothing more to `to`, and need not wait for it.
    pub(crate) fn release(
        &mut self,
        source: LinkId,
        to: LinkId,
        effects: &mut Effects,
        out: &mut Vec<Action>,
    ) {
        let Some(flow) = self.get_mut(to) else { return };
        let count = flow.waiters.len();
        flow.waiters.retain(|&waiter| waiter != source);
        if flow.waiters.len() < count {
            self.resume(source, effects, out);
        }
    }

    /// One more reason to read a link no further.
    pub(crate) fn pause(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(link) else { return };
        flow.pauses += 1;
        if flow.pauses == 1 {
            self.paused += 1;
            out.push(Action::Pause { link });
        }
    }

    /// One reason less. With the last one its silence counts from now on: what it said meanwhile is
    /// not read yet.
    pub(crate) fn resume(&mut self, link: LinkId, effects: &mut Effects, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(link) else { return };
        if flow.pauses == 0 {
            return;
        }
        flow.pauses -= 1;
        if flow.pauses == 0 {
            self.paused -= 1;
            effects.push(Effect::Resumed { link });
            out.push(Action::Resume { link });
        }
    }

    /// Whether a link is not read for now, so that its silence says nothing.
    pub(crate) fn is_paused(&self, link: LinkId) -> bool {
        self.get(link).is_some_and(|flow| flow.pauses > 0)
    }

    /// All links that are not read for now.
    pub(crate) fn paused(&self) -> Vec<LinkId> {
        if self.paused == 0 {
            return Vec::new();
        }
        let ids = self.links.iter().enumerate().filter(|(_, flow)| flow.is_open && flow.pauses > 0);
        ids.map(|(index, flow)| LinkId { index: index as u32, generation: flow.generation })
            .collect()
    }
}
