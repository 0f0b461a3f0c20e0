//! What a program sends and gets: a frame of a request, and a frame of an answer.

use crate::error::Error;
use bytes::Bytes;
use protocol::header::{FLAG_EXTENDABLE, FLAG_IDEMPOTENT};
use protocol::limits::DEADLINE_MS_MAX;
use std::time::Duration;

/// The properties of one frame of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Send {
    /// Whether further frames of the same request follow.
    pub more: bool,
    /// Whether the broker may give the request to another worker if its worker dies.
    pub idempotent: bool,
    /// Priority of this request, 1 to 255, lower is served first; 0 = the login's.
    pub priority: u8,
    /// How long the answer is worth waiting for, at most an hour; `None` = the service's default.
    pub deadline: Option<Duration>,
    /// Whether the worker may put the deadline off, with what it sends before its last frame; in
    /// all up to an hour.
    pub extendable: bool,
    /// Whether an answer is wanted. Without one nothing comes back, not even an error.
    pub reply: bool,
    /// For the second and later frames: the sequence of the first frame, and the worker of the
    /// reply that this answers; 0 while no worker has replied.
    pub conversation: Option<(u32, u32)>,
    /// W3C trace id, zero = none.
    pub trace_id: [u8; 16],
    /// W3C parent id, zero = none.
    pub span_id: u64,
}

impl Default for Send {
    fn default() -> Self {
        Self {
            more: false,
            idempotent: false,
            priority: 0,
            deadline: None,
            extendable: false,
            reply: true,
            conversation: None,
            trace_id: [0; 16],
            span_id: 0,
        }
    }
}

impl Send {
    /// The flags of the header.
    pub(super) fn flags(&self) -> u8 {
        let idempotent = if self.idempotent { FLAG_IDEMPOTENT } else { 0 };
        let extendable = if self.extendable { FLAG_EXTENDABLE } else { 0 };
        idempotent | extendable
    }
}

/// One frame of an answer, or the error that ended the request.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The sequence of the request.
    pub sequence: u32,
    /// The bytes of the worker; empty with an error of the broker. With an error of the worker they
    /// are the text that it gave.
    pub body: Bytes,
    /// Whether further frames of the same answer follow.
    pub more: bool,
    /// With `more`: the worker that may wait for the next frame of the conversation.
    pub worker: u32,
    /// With `more`, of an extendable request: the next frame comes within this time, which replaces
    /// the deadline. `None` = the deadline stays.
    pub next_within: Option<Duration>,
    /// The broker's number for the transaction, as events and logs show it.
    pub transaction: u64,
    /// Why the request ended without an answer, or the worker's own error, which is an answer with
    /// a body; `None` = there is no error.
    pub error: Option<Error>,
}

/// A deadline in milliseconds for the header; never 0, because that would mean none.
pub(crate) fn millis(span: Duration) -> u32 {
    let millis = span.as_nanos().div_ceil(1_000_000).clamp(1, u128::from(DEADLINE_MS_MAX));
    u32::try_from(millis).unwrap_or(u32::MAX)
}
