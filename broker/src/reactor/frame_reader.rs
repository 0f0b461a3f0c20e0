//! Splits the bytes of one connection into frames. A frame that arrives whole is not copied: reads
//! go into the loop's buffer, and only an incomplete frame is kept here. The module is public for
//! the fuzzer, which feeds it streams split at any byte.

use super::buffer_pool::BufferPool;
use crate::engine::input::Close;
use bytes::{Bytes, BytesMut};
use protocol::decode::{self, WireError};
use protocol::errors::ErrorCode;
use protocol::header::Header;
use protocol::kinds::Kind;
use protocol::limits::HEADER_BYTES;
use std::io::{self, ErrorKind, IoSliceMut, Read};
use std::mem;

/// An incomplete frame larger than this gets a buffer of its exact size.
pub const TAIL_BYTES_MAX: usize = 16 * 1024;
/// Largest body of a connection that is not logged in.
const PRE_LOGIN_BYTES_MAX: u32 = 64 * 1024;
/// Most bytes of one large body taken in one read.
const LARGE_READ_MAX: usize = 1024 * 1024;

/// An incomplete large frame, whose body is received into a buffer of its own.
#[derive(Debug)]
pub struct LargeFrame {
    kind: Kind,
    head: Header,
    /// At least as long as the body.
    buffer: BytesMut,
    /// Bytes of the body that have arrived.
    filled: usize,
}

/// Reads frames from one connection, and keeps the received bytes that are no whole frame yet.
#[derive(Debug, Default)]
pub struct FrameReader {
    /// The system reported bytes that are not all read.
    pub is_readable: bool,
    /// The system reported that the peer closed, so reading goes on after a short read.
    pub is_hung_up: bool,
    /// The login was accepted, so large frames are allowed.
    pub is_known: bool,
    /// The last read returned bytes.
    pub has_heard: bool,
    /// How the connection ended; received frames may still wait to be delivered.
    pub ended: Option<Close>,
    /// Bytes of an incomplete small frame, or frames that were not delivered in their turn.
    tail: Vec<u8>,
    /// The incomplete large frame.
    large: Option<Box<LargeFrame>>,
    /// Bytes of a refused body that are still to be discarded.
    skip: usize,
    /// Bytes of that body that were discarded.
    passed: usize,
    /// How many checks of `partial_frames` found the present frame incomplete.
    pub looks: u32,
}

/// The result of looking for a frame at the front of a buffer.
#[derive(Debug, PartialEq)]
pub enum NextFrame {
    /// A whole frame of this many bytes, header included.
    Whole(Kind, Header, usize),
    /// An incomplete frame, or nothing.
    Partial,
    /// The header and part of the body of a large frame.
    Large(Kind, Header),
    /// A malformed frame.
    Invalid(WireError),
}

/// How a connection ended on which a system call failed with this error.
pub fn end_of(error: &io::Error) -> Close {
    match error.kind() {
        // Keepalive, or the limit of retransmissions.
        ErrorKind::TimedOut | ErrorKind::HostUnreachable | ErrorKind::NetworkUnreachable => {
            Close::TimedOut
        }
        _ => Close::Reset,
    }
}

impl FrameReader {
    /// Puts the kept bytes, and what one read gives, into `buffer`. Returns how many bytes are in
    /// it now.
    pub fn fill<R: Read>(
        &mut self,
        stream: &mut R,
        buffer: &mut [u8],
        pool: &mut BufferPool,
    ) -> usize {
        self.has_heard = false;
        let kept = self.tail.len();
        buffer[..kept].copy_from_slice(&self.tail);
        pool.give_tail(mem::take(&mut self.tail));
        // More than an incomplete small frame was kept, so there are whole frames, which go first.
        if kept >= TAIL_BYTES_MAX + HEADER_BYTES || self.ended.is_some() || !self.is_readable {
            return kept;
        }
        kept + self.read(stream, &mut buffer[kept..])
    }

    /// Reads once, into a large frame first and into `rest` after it. Returns the bytes in `rest`.
    fn read<R: Read>(&mut self, stream: &mut R, rest: &mut [u8]) -> usize {
        let (room, wanted, result) = match &mut self.large {
            None => (0, rest.len(), stream.read(rest)),
            Some(large) => {
                let body = &mut large.buffer[large.filled..large.head.len as usize];
                let room = body.len();
                if room > LARGE_READ_MAX {
                    (room, LARGE_READ_MAX, stream.read(&mut body[..LARGE_READ_MAX]))
                } else {
                    let mut both = [IoSliceMut::new(body), IoSliceMut::new(rest)];
                    let result = stream.read_vectored(&mut both);
                    (room, room + rest.len(), result)
                }
            }
        };
        match result {
            Ok(0) => self.end(Close::Eof),
            Ok(count) => {
                // A short read got all there is: these are stream sockets, watched edge by edge.
                self.is_readable = count == wanted || self.is_hung_up;
                self.has_heard = true;
                if let Some(large) = &mut self.large {
                    large.filled += count.min(room);
                }
                return count.saturating_sub(room);
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => self.is_readable = false,
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => self.end(end_of(&error)),
        }
        0
    }

    /// Notes that the connection ended; nothing more is read.
    pub fn end(&mut self, how: Close) {
        self.is_readable = false;
        self.ended = Some(how);
    }

    /// The large frame, if it is complete.
    pub fn take_large(&mut self, pool: &mut BufferPool) -> Option<(Kind, Header, Bytes)> {
        let len = |large: &LargeFrame| large.head.len as usize;
        let mut large = self.large.take_if(|large| large.filled == len(large))?;
        self.looks = 0;
        let body = pool.lend(mem::take(&mut large.buffer), len(&large));
        let (kind, head) = (large.kind, large.head);
        pool.give_large_frame(large);
        Some((kind, head, body))
    }

    /// How many of `count` bytes at the front of the buffer are discarded, as part of a refused
    /// body.
    pub fn pass_over(&mut self, count: usize) -> usize {
        let passed = self.skip.min(count);
        self.skip -= passed;
        self.passed += passed;
        if passed > 0 && self.skip == 0 {
            self.looks = 0;
        }
        passed
    }

    /// Discards the next `count` bytes, the body of a refused frame.
    pub fn skip(&mut self, count: u32) {
        self.skip = count as usize;
        self.passed = 0;
        self.looks = 0;
    }

    /// Looks for a frame at the front of these bytes; `body_bytes_max` is the limit after a login.
    #[inline]
    pub fn next_frame(&self, bytes: &[u8], body_bytes_max: usize) -> NextFrame {
        let Some(first) = bytes.first_chunk::<HEADER_BYTES>() else {
            return NextFrame::Partial;
        };
        let (kind, head) = match decode::head(first, body_bytes_max) {
            Ok(read) => read,
            Err(error) => return NextFrame::Invalid(error),
        };
        if !self.is_known && head.len > PRE_LOGIN_BYTES_MAX {
            let text = format!(
                "{kind} frame of {} bytes before login exceeds {PRE_LOGIN_BYTES_MAX}",
                head.len
            );
            return NextFrame::Invalid(WireError::fatal(ErrorCode::BadState, text, head.sequence));
        }
        let size = HEADER_BYTES + head.len as usize;
        if bytes.len() >= size {
            NextFrame::Whole(kind, head, size)
        } else if size > TAIL_BYTES_MAX {
            NextFrame::Large(kind, head)
        } else {
            NextFrame::Partial
        }
    }

    /// Keeps bytes for the next `fill`.
    pub fn keep(&mut self, bytes: &[u8], pool: &mut BufferPool) {
        if !bytes.is_empty() {
            self.tail = pool.tail(bytes);
        }
    }

    /// Begins a large frame; `bytes` are the ones of its body that have arrived.
    pub fn begin_large(&mut self, kind: Kind, head: Header, bytes: &[u8], pool: &mut BufferPool) {
        let mut buffer = pool.take(head.len as usize);
        buffer[..bytes.len()].copy_from_slice(bytes);
        self.large = Some(pool.large_frame(LargeFrame { kind, head, buffer, filled: bytes.len() }));
    }

    /// Bytes of the incomplete frame that have arrived.
    pub fn partial_bytes(&self) -> usize {
        let large = self.large.as_ref().map_or(0, |large| large.filled);
        if self.skip > 0 { self.passed } else { self.tail.len() + large }
    }

    /// Whether bytes are kept, or a body is being discarded.
    pub fn has_partial(&self) -> bool {
        !self.tail.is_empty() || self.large.is_some() || self.skip > 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::encode;
    use protocol::frame::Frame;

    const BODY_MAX: usize = 40_000;

    /// A stream that gives its bytes in pieces of this size, with `WouldBlock` between them, then
    /// the end.
    struct Pieces<'a> {
        left: &'a [u8],
        size: usize,
        blocked: bool,
    }

    impl Read for Pieces<'_> {
        fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
            self.blocked = !self.blocked;
            if self.blocked && !self.left.is_empty() {
                return Err(ErrorKind::WouldBlock.into());
            }
            let count = buf.len().min(self.size).min(self.left.len());
            buf[..count].copy_from_slice(&self.left[..count]);
            self.left = &self.left[count..];
            Ok(count)
        }

        fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
            let mut all = vec![0; bufs.iter().map(|buf| buf.len()).sum()];
            let count = self.read(&mut all)?;
            let mut at = 0;
            for buf in bufs {
                let part = buf.len().min(count - at);
                buf[..part].copy_from_slice(&all[at..at + part]);
                at += part;
            }
            Ok(count)
        }
    }

    fn frame(sequence: u32, size: usize) -> Vec<u8> {
        let head = Header { sequence, ..Header::default() };
        let body: Vec<u8> = (0..size).map(|i| (i % 253) as u8 ^ sequence as u8).collect();
        encode::to_bytes(Frame::data(head, Bytes::from(body))).to_vec()
    }

    /// Reads a stream as the loop does. Returns sequence and size of each frame, the number of
    /// errors, and the reader at the end.
    fn read_all(
        bytes: &[u8],
        size: usize,
        buffer: &mut [u8],
    ) -> (Vec<(u32, usize)>, u32, FrameReader) {
        let mut reader = FrameReader { is_known: true, ..FrameReader::default() };
        let mut pieces = Pieces { left: bytes, size, blocked: false };
        let mut pool = BufferPool::default();
        let (mut got, mut bad) = (vec![], 0);
        let check = |head: &Header, body: &[u8]| {
            let is_right =
                body.iter().enumerate().all(|(i, b)| *b == (i % 253) as u8 ^ head.sequence as u8);
            assert!(is_right, "body of frame {}", head.sequence);
            (head.sequence, body.len())
        };
        while reader.ended.is_none() {
            reader.is_readable = true;
            let end = reader.fill(&mut pieces, buffer, &mut pool);
            if let Some((_, head, body)) = reader.take_large(&mut pool) {
                got.push(check(&head, &body));
            }
            let mut at = 0;
            loop {
                at += reader.pass_over(end - at);
                match reader.next_frame(&buffer[at..end], BODY_MAX) {
                    NextFrame::Whole(_, head, size) => {
                        got.push(check(&head, &buffer[at + HEADER_BYTES..at + size]));
                        at += size;
                    }
                    NextFrame::Partial => {
                        reader.keep(&buffer[at..end], &mut pool);
                        break;
                    }
                    NextFrame::Large(kind, head) => {
                        reader.begin_large(kind, head, &buffer[at + HEADER_BYTES..end], &mut pool);
                        break;
                    }
                    NextFrame::Invalid(error) => {
                        bad += 1;
                        at += HEADER_BYTES;
                        reader.skip(error.skip.expect("only large bodies here"));
                    }
                }
            }
        }
        (got, bad, reader)
    }

    #[test]
    fn frames_come_out_whole_wherever_the_stream_is_split() {
        let sizes = [0, 1, 64, 300, 20_000, 3, BODY_MAX, BODY_MAX + 1, 0, 4097, 5];
        let mut bytes = vec![];
        let mut want = vec![];
        for (sequence, size) in sizes.iter().enumerate() {
            bytes.extend(frame(sequence as u32, *size));
            if *size <= BODY_MAX {
                want.push((sequence as u32, *size));
            }
        }
        let mut buffer = vec![0; 64 * 1024];
        for size in [1, 2, 63, 64, 65, 100, 1000, 4096, 30_000, usize::MAX] {
            let (got, bad, reader) = read_all(&bytes, size, &mut buffer);
            assert_eq!(got, want, "in pieces of {size}");
            assert_eq!((bad, reader.has_partial(), reader.ended), (1, false, Some(Close::Eof)));
        }
    }

    #[test]
    fn a_stream_truncated_at_any_byte_gives_the_whole_frames_before_it() {
        let bytes = [frame(0, 10), frame(1, 0), frame(2, 17_000)].concat();
        let ends = [74, 138, 138 + 64 + 17_000];
        let mut buffer = vec![0; 64 * 1024];
        for at in (0..400).chain(bytes.len() - 100..=bytes.len()) {
            let (got, _, reader) = read_all(&bytes[..at], usize::MAX, &mut buffer);
            assert_eq!(
                got.len(),
                ends.iter().filter(|end| **end <= at).count(),
                "truncated at {at}"
            );
            assert_eq!(reader.has_partial(), at != 0 && !ends.contains(&at), "truncated at {at}");
        }
    }

    #[test]
    fn no_large_frame_may_come_before_the_login() {
        let reader = FrameReader::default();
        let at_limit = frame(1, PRE_LOGIN_BYTES_MAX as usize);
        assert!(matches!(reader.next_frame(&at_limit, usize::MAX), NextFrame::Whole(..)));
        let past = frame(1, PRE_LOGIN_BYTES_MAX as usize + 1);
        let NextFrame::Invalid(error) = reader.next_frame(&past[..64], usize::MAX) else {
            panic!("one byte past the limit is refused");
        };
        assert_eq!((error.code, error.skip), (ErrorCode::BadState, None));
    }
}
