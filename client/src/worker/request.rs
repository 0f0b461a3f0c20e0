//! A request as the worker's program sees it. [`Worker`](super::Worker) answers it.

use crate::clock;
use bytes::Bytes;
use protocol::header::{FLAG_EXTENDABLE, Header};
use std::time::{Duration, Instant};

/// A request, or with `more` the next piece of one.
#[derive(Clone, Debug)]
pub struct Request {
    /// The bytes that the client sent.
    pub body: Bytes,
    /// The header as the broker sent it.
    pub head: Header,
    pub(super) received: Instant,
    /// Counts the requests of the connection; a further piece has that of its request, or 0.
    pub(super) number: u32,
    /// Nobody waits for it any more, and the program was not given it.
    pub(super) is_over: bool,
}

impl Request {
    /// The broker's number for the transaction, as events and logs show it.
    pub fn transaction(&self) -> u64 {
        self.head.transaction
    }

    /// Whether further frames of the same request follow;
    /// [`Worker::next_piece`](super::Worker::next_piece) returns them.
    pub fn more(&self) -> bool {
        self.head.more != 0
    }

    /// Counts the deliveries of this request: 1 for the first, 2 for the first repetition after its
    /// worker died.
    pub fn attempt(&self) -> u32 {
        self.head.attempt
    }

    /// Whether the client allows a repetition on another worker.
    pub fn idempotent(&self) -> bool {
        self.head.is_idempotent()
    }

    /// Whether the client allows that the deadline is put off
    /// ([`Worker::reply_piece_within`](super::Worker::reply_piece_within)).
    pub fn extendable(&self) -> bool {
        self.head.flags & FLAG_EXTENDABLE != 0
    }

    /// Whether the client waits for an answer. The worker must answer in any case, which frees it.
    pub fn is_reply_wanted(&self) -> bool {
        self.head.reply != 0
    }

    /// The W3C trace id; zero = none.
    pub fn trace_id(&self) -> [u8; 16] {
        self.head.trace_id
    }

    /// The W3C parent id; zero = none.
    pub fn span_id(&self) -> u64 {
        self.head.span_id
    }

    /// The time left of the request's deadline, zero once it has passed; `None` = it has none.
    pub fn remaining(&self) -> Option<Duration> {
        self.until().map(clock::left)
    }

    pub(super) fn until(&self) -> Option<Instant> {
        match self.head.deadline_ms {
            0 => None,
            millis => self.received.checked_add(Duration::from_millis(u64::from(millis))),
        }
    }
}
