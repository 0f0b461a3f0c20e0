//! Holds readers back: who sends more than another link takes is read no further until that has
//! room again. How much waits for a link is known to the net.

use crate::engine::action::Action;
use crate::engine::effect::{Effect, Effects};
use crate::engine::law::law;
use protocol::ids::LinkId;

/// What waits where.
#[derive(Debug, Default)]
struct LinkFlow {
    generation: u32,
    is_open: bool,
    /// More than `outbox_bytes_high` bytes wait to be sent to it.
    is_congested: bool,
    /// Links that are read no further until this one has room again.
    waiters: Vec<LinkId>,
    /// Number of reasons not to read this link; it is read again at 0.
    read_stops: u32,
}

/// The flow of every link, by the index of its id.
#[derive(Debug, Default)]
pub(crate) struct Flow {
    links: Vec<LinkFlow>,
    /// How many links are not read.
    unread: usize,
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

    /// Removes a link; the links that waited for it are read again, and it waits for none.
    pub(crate) fn close(&mut self, link: LinkId, effects: &mut Effects, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(link) else { return };
        flow.waiters.retain(|&waiter| waiter != link);
        self.has_room(link, effects, out);
        let Some(flow) = self.get_mut(link) else { return };
        flow.is_open = false;
        if std::mem::take(&mut flow.read_stops) > 0 {
            self.unread -= 1;
            self.links.iter_mut().for_each(|flow| flow.waiters.retain(|&waiter| waiter != link));
        }
    }

    /// Gives up the room behind the first `used` links.
    pub(crate) fn shrink(&mut self, used: usize) {
        self.links.truncate(used);
        self.links.shrink_to_fit();
    }

    /// Marks a link as congested. A client is read no further then: as long as it takes no answers,
    /// it gets no further requests in, whose answers would pile up as well.
    pub(crate) fn congested(&mut self, link: LinkId, is_client: bool, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(link) else { return };
        flow.is_congested = true;
        if is_client && !flow.waiters.contains(&link) {
            flow.waiters.push(link);
            self.stop_reading(link, out);
        }
    }

    /// Whether too many bytes wait to be sent to a link.
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
            self.resume_reading(source, effects, out);
        }
    }

    /// Stops reading `source` if `to` is congested. Called after a frame from `source` was sent on
    /// to `to`.
    pub(crate) fn hold_back(&mut self, source: LinkId, to: LinkId, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(to) else { return };
        if !flow.is_congested || source == to || flow.waiters.contains(&source) {
            return;
        }
        flow.waiters.push(source);
        self.stop_reading(source, out);
    }

    /// Ends the wait of `source` for `to`, because it sends nothing more to it.
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
            self.resume_reading(source, effects, out);
        }
    }

    /// Adds a reason not to read a link.
    pub(crate) fn stop_reading(&mut self, link: LinkId, out: &mut Vec<Action>) {
        let Some(flow) = self.get_mut(link) else { return };
        flow.read_stops += 1;
        if flow.read_stops == 1 {
            self.unread += 1;
            out.push(Action::StopReading { link });
        }
    }

    /// One reason less. With the last one its silence counts from now on: what it said meanwhile is
    /// not read yet.
    pub(crate) fn resume_reading(
        &mut self,
        link: LinkId,
        effects: &mut Effects,
        out: &mut Vec<Action>,
    ) {
        let Some(flow) = self.get_mut(link) else { return };
        if flow.read_stops == 0 {
            return;
        }
        flow.read_stops -= 1;
        if flow.read_stops == 0 {
            self.unread -= 1;
            effects.push(Effect::Resumed { link });
            out.push(Action::ResumeReading { link });
        }
    }

    /// Whether a link is not read, so that its silence says nothing.
    pub(crate) fn is_unread(&self, link: LinkId) -> bool {
        self.get(link).is_some_and(|flow| flow.read_stops > 0)
    }

    /// The law that is broken, if any.
    ///
    /// # Errors
    /// Names the law and the ids.
    pub(super) fn check(&self) -> Result<(), String> {
        let (mut unread, mut waits) = (0, vec![0; self.links.len()]);
        for flow in &self.links {
            unread += usize::from(flow.read_stops > 0);
            law!(
                flow.is_open || (flow.read_stops == 0 && flow.waiters.is_empty()),
                "law 8: a link that is gone is held back, or holds others back"
            );
            for waiter in &flow.waiters {
                law!(self.get(*waiter).is_some(), "law 8: link {waiter} is gone and held back");
                waits[waiter.index as usize] += 1;
            }
        }
        law!(unread == self.unread, "law 6: {} unread links counted, are {unread}", self.unread);
        for (flow, waits) in self.links.iter().zip(waits) {
            law!(
                flow.read_stops >= waits,
                "law 6: {waits} links hold one back {} times",
                flow.read_stops
            );
        }
        Ok(())
    }

    /// All links that are not read.
    pub(crate) fn unread(&self) -> Vec<LinkId> {
        if self.unread == 0 {
            return Vec::new();
        }
        let ids =
            self.links.iter().enumerate().filter(|(_, flow)| flow.is_open && flow.read_stops > 0);
        ids.map(|(index, flow)| LinkId { index: index as u32, generation: flow.generation })
            .collect()
    }
}
