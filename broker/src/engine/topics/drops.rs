//! The facts about messages that were dropped: one for each subscriber and second at most.

use super::machine::Topics;
use super::peers::Party;
use crate::engine::context::Context;
use crate::engine::counted::counted;
use crate::engine::fact::{About, FactKind};
use crate::engine::quotas::Class;
use protocol::LinkId;

/// Milliseconds between two facts about one subscriber.
const TELL_MS: u64 = 1000;

impl Topics {
    /// Messages to a link were dropped: a fact will say how many.
    pub(super) fn dropped(&mut self, link: LinkId, count: u64, cx: &mut Context<'_>) {
        let Some(peer) = self.peers.get_mut(link) else { return };
        if peer.untold == 0 {
            self.tellers.push_back((cx.now.plus_millis(TELL_MS), link));
        }
        peer.untold += count;
    }

    /// Records how many were dropped in the last second.
    pub(super) fn tell_drops(&mut self, cx: &mut Context<'_>) {
        while let Some(&(at, link)) = self.tellers.front()
            && at <= cx.now
        {
            self.tellers.pop_front();
            let Some(peer) = self.peers.get_mut(link) else { continue };
            let count = std::mem::take(&mut peer.untold);
            let party = peer.party;
            self.peers.tidy(link);
            let mut about = About::default();
            let name = match party {
                Some(Party::Client(id)) => {
                    about.client = Some(id);
                    format!("client {id}")
                }
                Some(Party::Worker(id)) => {
                    about.worker = Some(id);
                    format!("worker {id}")
                }
                None => continue,
            };
            if cx.may_cause(Class::LoggedIn, Some(link)) {
                let what = counted(count as usize, "message");
                let text = format!("{name} reads too slowly: {what} to it were dropped");
                cx.record(FactKind::MessagesDropped, about, text);
            }
        }
    }
}
