//! Values that are kept no longer: each is told to the subscribers of its topic in a message of its
//! own, never as an empty value.

use super::machine::{STEP, Topics};
use super::retained::Kept;
use crate::engine::context::Context;
use protocol::Setting;
use protocol::messages::{MessageOf, Removed};
use std::sync::Arc;

/// Values are removed as long as fewer messages are under way.
const UNDER_WAY_MAX: usize = 16;
/// To remove a value costs as much as to send so many messages.
const REMOVAL_COST: usize = 4;

impl Topics {
    /// Whether a value of a topic may be kept.
    pub(super) fn may_keep(&self, topic: &str, size: u64, cx: &Context<'_>) -> Result<(), String> {
        let (count, bytes) = self.retained.with(topic, size);
        let max = cx.settings.get(Setting::RetainedMax);
        if count > max && self.retained.get(topic).is_none() {
            return Err(format!(
                "the value of topic '{topic}' can't be kept: {} topics have one, and at most {max} \
                 may (retained_max); remove some, or raise the setting",
                count - 1
            ));
        }
        let max = cx.settings.get(Setting::RetainedBytesMax);
        if bytes > max {
            return Err(format!(
                "the value of topic '{topic}' can't be kept: all values would have {bytes} bytes, \
                 and at most {max} are kept (retained_bytes_max); remove some, or raise the setting"
            ));
        }
        Ok(())
    }

    /// Keeps a value in place of the one before.
    pub(super) fn keep(&mut self, kept: Kept) {
        let owner = kept.owner;
        self.take_value(kept.message.topic());
        let topic = self.retained.put(kept);
        if let Some(owner) = owner {
            self.peers.entry(owner).values.insert(topic);
        }
    }

    /// Takes a value out.
    pub(super) fn take_value(&mut self, topic: &str) -> Option<Kept> {
        let kept = self.retained.remove(topic)?;
        if let Some(owner) = kept.owner
            && let Some(peer) = self.peers.get_mut(owner)
        {
            peer.values.remove(topic);
            self.peers.tidy(owner);
        }
        Some(kept)
    }

    /// Removes values whose time is over, whose publisher is gone, or for which there is no room
    /// any more, some in a step, and so many that few messages about them are under way at once.
    pub(super) fn remove_values(&mut self, cx: &mut Context<'_>) {
        while self.has_left() && self.fan_outs.len() < UNDER_WAY_MAX {
            let Some((topic, removed)) = self.next_removal(cx) else { return };
            self.spend_many(REMOVAL_COST);
            if self.take_value(&topic).is_some() {
                let message = MessageOf { removed: Some(removed), ..MessageOf::new(&topic, b"") };
                self.publish_body(&message.body(), None, cx);
            }
        }
    }

    fn next_removal(&mut self, cx: &Context<'_>) -> Option<(Arc<str>, Removed)> {
        while let Some((link, topics)) = self.orphans.front_mut() {
            let link = *link;
            let Some(topic) = topics.pop_first() else {
                self.orphans.pop_front();
                continue;
            };
            // Another publisher may have given it another value.
            if self.retained.get(&topic).is_some_and(|kept| kept.owner == Some(link)) {
                return Some((topic, Removed::OwnerGone));
            }
        }
        if let Some((at, topic)) = self.retained.first_expiry()
            && at <= cx.now
        {
            return Some((topic.clone(), Removed::Expired));
        }
        let oldest = self.retained.oldest().filter(|_| self.has_excess(cx))?;
        Some((oldest.clone(), Removed::Evicted))
    }

    /// Whether more is kept than may be, because a limit was lowered.
    pub(super) fn has_excess(&self, cx: &Context<'_>) -> bool {
        self.retained.len() as u64 > cx.settings.get(Setting::RetainedMax)
            || self.retained.bytes() > cx.settings.get(Setting::RetainedBytesMax)
    }

    /// A limit may have been lowered.
    pub(crate) fn limits_set(&mut self, cx: &mut Context<'_>) {
        self.begin(STEP);
        self.trim_ring(cx);
        self.set_timer(cx);
    }
}
