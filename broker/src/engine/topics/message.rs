//! A message with its number, as it waits or is kept. Its topic stands in its body.

use bytes::Bytes;
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
        Self { number, body, at: at as u16, size: lines.topic.len() as u16 }
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
}
