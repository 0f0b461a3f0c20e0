//! The bytes of one stream, which become frames. The programs read with others, which
//! `fuzz::streams` tests.

use bytes::{Buf, Bytes, BytesMut};
use protocol::decode::{self, WireError};
use protocol::header::Header;
use protocol::kinds::Kind;
use protocol::limits::HEADER_BYTES;

/// What came and is not read yet.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// The bytes.
    pub bytes: BytesMut,
    /// How many of a body that is too large are still to be passed over.
    skip: usize,
    /// What came is no frame, and nothing after it is one.
    pub is_malformed: bool,
}

impl Inbox {
    /// Whether a frame has begun and is not whole.
    pub fn is_torn(&self) -> bool {
        !self.bytes.is_empty() || self.skip > 0
    }

    /// The next frame; `None` = none is whole.
    pub fn pull(
        &mut self,
        body_bytes_max: usize,
    ) -> Option<Result<(Kind, Header, Bytes), WireError>> {
        let passed = self.skip.min(self.bytes.len());
        self.bytes.advance(passed);
        self.skip -= passed;
        let first = self.bytes.first_chunk::<HEADER_BYTES>().filter(|_| !self.is_malformed)?;
        match decode::head(first, body_bytes_max) {
            Err(error) => {
                self.bytes.advance(HEADER_BYTES);
                self.skip = error.skip.unwrap_or_default() as usize;
                self.is_malformed = error.skip.is_none();
                Some(Err(error))
            }
            Ok((_, head)) if self.bytes.len() < HEADER_BYTES + head.len as usize => None,
            Ok((kind, head)) => {
                self.bytes.advance(HEADER_BYTES);
                Some(Ok((kind, head, self.bytes.split_to(head.len as usize).freeze())))
            }
        }
    }
}
