//! The last messages of all topics, for subscribers that come back and say which one they had last.

use super::message::Message;
use std::collections::VecDeque;

/// See the head of this file. A number may have no message: nobody could have matched it.
#[derive(Debug, Default)]
pub(super) struct Ring {
    /// By number.
    messages: VecDeque<Message>,
    bytes: u64,
    /// The newest message that is not there any more; 0 = all are.
    lost: u64,
}

impl Ring {
    /// Adds the newest message.
    pub(super) fn push(&mut self, message: Message) {
        self.bytes += message.bytes();
        self.messages.push_back(message);
    }

    /// Whether there are more messages than may be.
    pub(super) fn has_excess(&self, count: u64, bytes: u64) -> bool {
        self.messages.len() as u64 > count || self.bytes > bytes
    }

    /// Takes the oldest message out, if there are more than may be.
    pub(super) fn pop_excess(&mut self, count: u64, bytes: u64) -> Option<Message> {
        if !self.has_excess(count, bytes) {
            return None;
        }
        let message = self.messages.pop_front()?;
        self.bytes -= message.bytes();
        self.lost = message.number;
        Some(message)
    }

    /// The newest message that is not there any more.
    pub(super) const fn lost(&self) -> u64 {
        self.lost
    }

    /// The messages from this number on.
    pub(super) fn from(&self, number: u64) -> impl Iterator<Item = &Message> {
        let at = self.messages.partition_point(|message| message.number < number);
        self.messages.range(at..)
    }

    /// Number of messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Bytes of them.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Number of messages and their bytes, counted anew; for the laws.
    pub(super) fn counted(&self) -> (usize, u64) {
        (self.messages.len(), self.messages.iter().map(Message::bytes).sum())
    }

    /// Gives back the memory of a burst.
    pub(super) fn shrink(&mut self) {
        self.messages.shrink_to_fit();
    }
}
