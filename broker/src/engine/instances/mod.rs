//! The machine `instances`: what is alive, goes on, is stalled or gone. It owns the instances that
//! programs announce, their states, and those that ended lately.

use super::context::Context;
use protocol::LinkId;
use protocol::bodies::{Announce, Beat, StateChange, Withdraw};

/// See the head of this file.
#[derive(Debug, Default)]
pub(crate) struct Instances {
    last_incarnation: u64,
}

impl Instances {
    /// A program announces an instance.
    pub(crate) fn announce(&mut self, link: LinkId, body: Announce, cx: &mut Context<'_>) {
        self.last_incarnation += 1;
        let _ = (link, body, cx);
    }

    /// A program says that an instance has another state.
    pub(crate) fn state_change(&mut self, link: LinkId, body: StateChange, cx: &mut Context<'_>) {
        let _ = (link, body, cx, self.last_incarnation);
    }

    /// A program says that its instances go on.
    pub(crate) fn beat(&mut self, link: LinkId, body: &Beat, cx: &mut Context<'_>) {
        let _ = (link, body, cx, self.last_incarnation);
    }

    /// A program ends an instance.
    pub(crate) fn withdraw(&mut self, link: LinkId, body: Withdraw, cx: &mut Context<'_>) {
        let _ = (link, body, cx, self.last_incarnation);
    }

    /// A link is gone, with its instances.
    pub(crate) fn link_gone(&mut self, link: LinkId, cx: &mut Context<'_>) {
        let _ = (link, cx, self.last_incarnation);
    }

    /// `Timer::Instances`.
    pub(crate) fn on_due(&mut self, cx: &mut Context<'_>) {
        let _ = (cx, self.last_incarnation);
    }
}
