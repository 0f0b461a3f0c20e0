//! Splits the bytes of a connection into frames. Small frames are collected in one buffer that
//! lives as long as the connection; a large body gets its own memory and is read straight into it.
//! Pure: `conn` does the reading. It is public only for the fuzzer.

use bytes::{Bytes, BytesMut};
use protocol::decode::{self, WireError};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::kinds::Kind;
use protocol::limits::HEADER_BYTES;

/// Bytes of the buffer: one frame of 64 KiB, so that requests up to that size come with one read.
const GATHER_BYTES: usize = HEADER_BYTES + 64 * 1024;

/// A large frame that is not complete yet.
struct LargeFrame {
    kind: Kind,
    header: Header,
    body: BytesMut,
    filled: usize,
}

/// The bytes that were read and not yet taken as frames.
pub struct FrameReader {
    gather: Box<[u8]>,
    start: usize,
    end: usize,
    large: Option<LargeFrame>,
    body_bytes_max: usize,
}

impl FrameReader {
    /// An empty reader. `body_bytes_max` limits the memory that a header can make it reserve.
    pub fn new(body_bytes_max: usize) -> Self {
        Self {
            gather: vec![0; GATHER_BYTES].into_boxed_slice(),
            start: 0,
            end: 0,
            large: None,
            body_bytes_max,
        }
    }

    /// Changes the limit of a body, in bytes, when the broker has named its own.
    pub fn set_body_bytes_max(&mut self, body_bytes_max: usize) {
        self.body_bytes_max = body_bytes_max;
    }

    /// The buffer for the next read; never empty. Call [`FrameReader::filled`] after writing to it.
    pub fn space(&mut self) -> &mut [u8] {
        match &mut self.large {
            Some(large) if large.filled < large.body.len() => &mut large.body[large.filled..],
            Some(_) | None => {
                if self.start == self.end {
                    self.start = 0;
                    self.end = 0;
                } else if self.end == self.gather.len() {
                    self.gather.copy_within(self.start..self.end, 0);
                    self.end -= self.start;
                    self.start = 0;
                }
                &mut self.gather[self.end..]
            }
        }
    }

    /// Notes that `size` bytes were written to [`FrameReader::space`].
    pub fn filled(&mut self, size: usize) {
        match &mut self.large {
            Some(large) if large.filled < large.body.len() => large.filled += size,
            Some(_) | None => self.end += size,
        }
    }

    /// Whether the bytes end in the middle of a frame.
    pub fn is_inside_frame(&self) -> bool {
        self.large.is_some() || self.start < self.end
    }

    /// Takes the next whole frame; `None` = more bytes are needed.
    ///
    /// # Errors
    /// The bytes are not a frame; nothing after them can be used.
    pub fn take(&mut self) -> Result<Option<Frame>, WireError> {
        if let Some(large) = self.large.take() {
            if large.filled < large.body.len() {
                self.large = Some(large);
                return Ok(None);
            }
            return decode::frame(large.kind, large.header, large.body.freeze()).map(Some);
        }
        let waiting = &self.gather[self.start..self.end];
        let Some(bytes) = waiting.first_chunk::<HEADER_BYTES>() else {
            return Ok(None);
        };
        let (kind, header) = decode::head_from_broker(bytes, self.body_bytes_max)?;
        let size = header.len as usize;
        let there = &waiting[HEADER_BYTES..];
        if let Some(body) = there.get(..size) {
            let body = Bytes::copy_from_slice(body);
            self.start += HEADER_BYTES + size;
            return decode::frame(kind, header, body).map(Some);
        }
        if HEADER_BYTES + size > self.gather.len() {
            let mut body = BytesMut::zeroed(size);
            let filled = there.len();
            body[..filled].copy_from_slice(there);
            self.start = 0;
            self.end = 0;
            self.large = Some(LargeFrame { kind, header, body, filled });
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::encode;
    use protocol::errors::ErrorCode;

    fn data(sequence: u32, size: usize) -> Frame {
        let body: Vec<u8> = (0..size).map(|at| (at % 251) as u8).collect();
        let len = u32::try_from(size).unwrap();
        Frame::data(Header { sequence, len, ..Header::default() }, Bytes::from(body))
    }

    /// Feeds the bytes in portions of at most `portion` bytes and takes frames as they become
    /// complete.
    fn feed(
        reader: &mut FrameReader,
        mut bytes: &[u8],
        portion: usize,
    ) -> Result<Vec<Frame>, WireError> {
        let mut frames = Vec::new();
        while !bytes.is_empty() {
            let space = reader.space();
            let size = space.len().min(portion).min(bytes.len());
            assert!(size > 0, "there is always space");
            space[..size].copy_from_slice(&bytes[..size]);
            reader.filled(size);
            bytes = &bytes[size..];
            while let Some(frame) = reader.take()? {
                frames.push(frame);
            }
        }
        Ok(frames)
    }

    #[test]
    fn frames_come_out_as_they_went_in_whatever_the_portions() {
        let sizes = [0, 1, 64, 4000, GATHER_BYTES - 64, GATHER_BYTES - 63, 200_000, 3, 0];
        let frames: Vec<Frame> =
            sizes.iter().enumerate().map(|(at, size)| data(at as u32, *size)).collect();
        let mut bytes = BytesMut::new();
        for frame in &frames {
            encode::append(frame.clone(), &mut bytes);
        }
        for portion in [1, 63, 64, 65, 4096, 65_536, 70_000, usize::MAX] {
            let mut reader = FrameReader::new(200_000);
            assert_eq!(feed(&mut reader, &bytes, portion).unwrap(), frames, "portion {portion}");
            assert!(!reader.is_inside_frame());
        }
    }

    #[test]
    fn a_truncated_frame_is_known_as_one() {
        let bytes = encode::to_bytes(data(1, 10));
        for at in 1..bytes.len() {
            let mut reader = FrameReader::new(100);
            assert_eq!(feed(&mut reader, &bytes[..at], usize::MAX).unwrap(), vec![]);
            assert!(reader.is_inside_frame(), "truncated at {at}");
        }
    }

    #[test]
    fn a_body_at_the_limit_passes_and_one_over_fails_before_memory_is_reserved() {
        let mut reader = FrameReader::new(100_000);
        assert_eq!(feed(&mut reader, &encode::to_bytes(data(1, 100_000)), 4096).unwrap().len(), 1);
        let over = encode::to_bytes(data(1, 100_001));
        let error = feed(&mut reader, &over[..HEADER_BYTES], 4096).unwrap_err();
        assert_eq!(error.code, ErrorCode::BodyTooLarge);
        assert!(reader.large.is_none());
    }
}
