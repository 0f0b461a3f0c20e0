//! A message with its number, as it waits or is kept; and one on its way to its subscriptions. Its
//! topic stands in its body.

use crate::engine::keys::{NodeKey, OptionKey, SubscriptionKey};
use bytes::Bytes;
use protocol::LinkId;
use protocol::limits::HEADER_BYTES;
use protocol::messages::MessageLines;

/// A body of at most this size is copied before it is kept: as it came, it shares a buffer with
/// others, which would be kept with it.
const COPIED_BYTES_MAX: usize = 4096;

/// A message that has its number.
#[derive(Clone, Debug)]
pub(super) struct Message {
    pub(super) number: u64,
    /// Lines and payload, as they came.
    pub(super) body: Bytes,
    /// Where the topic stands in the body.
    at: u16,
    size: u16,
}

impl Message {
    /// A message of which the lines were read: the topic is part of the body.
    pub(super) fn new(number: u64, body: &Bytes, lines: &MessageLines<'_>) -> Self {
        let at = (lines.topic.as_ptr() as usize).saturating_sub(body.as_ptr() as usize);
        let body = match body.len() {
            ..=COPIED_BYTES_MAX => Bytes::copy_from_slice(body),
            _ => body.clone(),
        };
        let message = Self { number, body, at: at as u16, size: lines.topic.len() as u16 };
        debug_assert_eq!(message.topic(), lines.topic, "the lines are those of another body");
        message
    }

    /// The topic.
    pub(super) fn topic(&self) -> &str {
        let at = usize::from(self.at);
        let bytes = self.body.get(at..at + usize::from(self.size)).unwrap_or_default();
        std::str::from_utf8(bytes).unwrap_or_default()
    }

    /// The bytes of its body.
    pub(super) fn bytes(&self) -> u64 {
        self.body.len() as u64
    }

    /// The bytes of its frame.
    pub(super) fn frame_bytes(&self) -> u64 {
        (HEADER_BYTES + self.body.len()) as u64
    }
}

/// A message on its way to its subscriptions.
#[derive(Debug)]
pub(super) struct FanOut {
    pub(super) message: Message,
    /// The nodes that are left, the next one last; `None` = it was not looked for them yet.
    pub(super) nodes: Option<Vec<NodeKey>>,
    /// The subscription that is next; none = the first one of the next node.
    pub(super) at: OptionKey<SubscriptionKey>,
    /// The connection that it came from, which is read no further meanwhile.
    pub(super) source: Option<LinkId>,
}

impl FanOut {
    /// Whether it is on its way to subscriptions.
    pub(super) fn has_begun(&self) -> bool {
        self.at.get().is_some() || self.nodes.as_ref().is_some_and(|nodes| !nodes.is_empty())
    }
}
