//! What waits for a subscription whose reader is too slow: the oldest is dropped when there is too
//! much, and each one that is dropped is counted.

use super::message::Message;
use std::collections::VecDeque;

/// What a message that waits counts beside its body: for each subscription something is noted.
const NOTE_BYTES: u64 = 64;

/// How much may wait.
#[derive(Clone, Copy, Debug)]
pub(super) struct QueueLimits {
    /// Messages of one subscription.
    pub(super) count: u64,
    /// Bytes of one subscription.
    pub(super) bytes: u64,
    /// Bytes of all subscriptions.
    pub(super) all_bytes: u64,
}

/// Messages that wait for one subscription, oldest first.
#[derive(Debug, Default)]
pub(super) struct Queue {
    messages: VecDeque<Message>,
    bytes: u64,
}

/// What a message counts while it waits.
fn counted(message: &Message) -> u64 {
    message.bytes() + NOTE_BYTES
}

impl Queue {
    /// Adds a message, and drops the oldest ones until the limits hold; the newest stays in any
    /// case. `all` is the sum over all queues. Returns how many were dropped.
    pub(super) fn push(&mut self, message: Message, limits: QueueLimits, all: &mut u64) -> u64 {
        let size = counted(&message);
        self.bytes += size;
        *all += size;
        self.messages.push_back(message);
        let mut dropped = 0;
        while self.messages.len() > 1
            && (self.messages.len() as u64 > limits.count
                || self.bytes > limits.bytes
                || *all > limits.all_bytes)
        {
            self.pop(all);
            dropped += 1;
        }
        dropped
    }

    /// The oldest message.
    pub(super) fn first(&self) -> Option<&Message> {
        self.messages.front()
    }

    /// Takes the oldest message out.
    pub(super) fn pop(&mut self, all: &mut u64) -> Option<Message> {
        let message = self.messages.pop_front()?;
        self.bytes -= counted(&message);
        *all -= counted(&message);
        Some(message)
    }

    /// Number of messages.
    pub(super) fn len(&self) -> usize {
        self.messages.len()
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.messages.is_empty()
    }

    /// What they count.
    pub(super) const fn bytes(&self) -> u64 {
        self.bytes
    }

    /// What they count, each counted anew; for the laws.
    pub(super) fn counted_bytes(&self) -> u64 {
        self.messages.iter().map(counted).sum()
    }

    /// Whether they stand in the order of their numbers.
    pub(super) fn is_sorted(&self) -> bool {
        self.messages.iter().is_sorted_by_key(|message| message.number)
    }
}
