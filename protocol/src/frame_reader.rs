//! Splits a stream of bytes into frames, as they come. Pure: the owner reads the socket.
//!
//! [`FrameReader`] has what must be known of one stream between two reads. The bytes lie in a
//! [`ReadBuffer`]: one for all streams of a loop, or one for each. A frame that is whole is taken
//! straight out of it. A large one that is not gets a buffer of its own, where the rest of its body
//! is received. [`Inbox`] is a reader with a buffer of its own, for a program with few streams.

use crate::decode::{self, Limits, WireError};
use crate::frame::Frame;
use crate::header::Header;
use crate::kinds::Kind;
use crate::limits::HEADER_BYTES;
use bytes::{Bytes, BytesMut};
use std::mem;

/// A frame of more bytes, header included, gets a buffer of its own while it is not whole.
pub const LARGE_FRAME_BYTES: usize = 16 * 1024;
/// Most bytes of one large body taken in one read.
const LARGE_READ_MAX: usize = 1024 * 1024;

/// Bytes that were read and not taken as frames.
#[derive(Clone, Debug, Default)]
pub struct ReadBuffer {
    bytes: Vec<u8>,
    start: usize,
    end: usize,
}

impl ReadBuffer {
    /// A buffer of this size, which must be more than [`LARGE_FRAME_BYTES`].
    pub fn new(size: usize) -> Self {
        Self { bytes: vec![0; size], start: 0, end: 0 }
    }

    /// Bytes that are in it.
    pub fn len(&self) -> usize {
        self.end - self.start
    }

    /// Whether nothing is in it.
    pub fn is_empty(&self) -> bool {
        self.start == self.end
    }

    /// Drops what is in it.
    pub fn clear(&mut self) {
        self.start = 0;
        self.end = 0;
    }

    /// All of an empty buffer, for bytes that nobody takes.
    pub fn scratch(&mut self) -> &mut [u8] {
        &mut self.bytes
    }

    fn left(&self) -> &[u8] {
        &self.bytes[self.start..self.end]
    }

    /// Room for the next read, after what is in it.
    fn space(&mut self) -> &mut [u8] {
        if self.is_empty() {
            self.clear();
        } else if self.start > 0 && self.bytes.len() - self.end < LARGE_FRAME_BYTES {
            self.bytes.copy_within(self.start..self.end, 0);
            self.end -= self.start;
            self.start = 0;
        }
        &mut self.bytes[self.end..]
    }

    /// Puts bytes behind what is in it; it grows where it must.
    fn push(&mut self, bytes: &[u8]) {
        let space = self.space();
        if space.len() < bytes.len() {
            let size = self.end + bytes.len();
            self.bytes.resize(size, 0);
        }
        self.bytes[self.end..self.end + bytes.len()].copy_from_slice(bytes);
        self.end += bytes.len();
    }
}

/// A large frame that is not whole.
#[derive(Clone, Debug)]
struct LargeFrame {
    kind: Kind,
    head: Header,
    /// At least as long as the body.
    body: BytesMut,
    /// Bytes of the body that have arrived.
    filled: usize,
}

impl LargeFrame {
    /// The bytes of the body that have not arrived.
    fn rest(&mut self) -> &mut [u8] {
        &mut self.body[self.filled..self.head.len as usize]
    }
}

/// What must be known of one stream between two reads. It owns no buffer while it is between two
/// frames.
#[derive(Clone, Debug, Default)]
pub struct FrameReader {
    /// Bytes that were in a shared buffer and make no whole frame yet, or were not taken.
    kept: Vec<u8>,
    large: Option<Box<LargeFrame>>,
    /// Bytes of a refused body that have not arrived.
    skip: usize,
    /// Bytes of that body that have.
    passed: usize,
    /// Counts frames and refused bodies that are over; it wraps.
    number: u32,
}

/// What is at the front of a stream.
#[derive(Debug)]
pub enum Next<'a> {
    /// A whole frame, whose body lies in the buffer.
    Whole(Kind, Header, &'a [u8]),
    /// A whole frame, whose body lies at the front of the buffer that was given to
    /// [`FrameReader::begin_large`].
    Large(Kind, Header, BytesMut),
    /// A large frame that is not whole: call [`FrameReader::begin_large`] or
    /// [`FrameReader::refuse`].
    Begun(Kind, Header),
    /// Nothing, or a part of a frame.
    Partial,
}

impl FrameReader {
    /// Where the next read may put its bytes: the rest of a large body, then the buffer behind it.
    /// Read into both, or into the first of them that is not empty. Both are empty only if whole
    /// frames fill the buffer. Call [`filled`](Self::filled) then.
    #[inline]
    pub fn space<'a>(&'a mut self, buffer: &'a mut ReadBuffer) -> (&'a mut [u8], &'a mut [u8]) {
        let Some(large) = &mut self.large else { return (&mut [], buffer.space()) };
        let rest = large.rest();
        if rest.len() > LARGE_READ_MAX {
            return (&mut rest[..LARGE_READ_MAX], &mut []);
        }
        (rest, buffer.space())
    }

    /// Notes that `count` bytes were put into [`space`](Self::space).
    #[inline]
    pub fn filled(&mut self, buffer: &mut ReadBuffer, count: usize) {
        let of_large = self.large.as_mut().map_or(0, |large| {
            let of_large = count.min(large.rest().len());
            large.filled += of_large;
            of_large
        });
        buffer.end += count - of_large;
    }

    /// Adds bytes that came.
    fn push(&mut self, buffer: &mut ReadBuffer, bytes: &[u8]) {
        let rest = self.large.as_mut().map_or(&mut [][..], |large| large.rest());
        let count = rest.len().min(bytes.len());
        rest[..count].copy_from_slice(&bytes[..count]);
        self.filled(buffer, count);
        buffer.push(&bytes[count..]);
    }

    /// Takes the next frame.
    ///
    /// # Errors
    /// What is there is no frame, or a frame that is refused. If the error has `skip`, the body is
    /// passed over, and the frames behind it can be taken; otherwise the stream is of no more use.
    #[inline]
    pub fn next<'a>(
        &mut self,
        buffer: &'a mut ReadBuffer,
        limits: Limits,
    ) -> Result<Next<'a>, WireError> {
        if self.large.is_some() {
            return Ok(self.take_large());
        }
        if self.skip > 0 {
            self.pass_over(buffer);
        }
        let Some(first) = buffer.left().first_chunk::<HEADER_BYTES>() else {
            return Ok(Next::Partial);
        };
        let (kind, head) = match decode::head(first, limits) {
            Ok(read) => read,
            Err(error) => {
                if let Some(count) = error.skip {
                    self.skip(buffer, count);
                }
                return Err(error);
            }
        };
        let size = HEADER_BYTES + head.len as usize;
        let start = buffer.start;
        if buffer.end - start >= size {
            buffer.start += size;
            self.number = self.number.wrapping_add(1);
            Ok(Next::Whole(kind, head, &buffer.bytes[start + HEADER_BYTES..start + size]))
        } else if size > LARGE_FRAME_BYTES {
            Ok(Next::Begun(kind, head))
        } else {
            Ok(Next::Partial)
        }
    }

    fn take_large<'a>(&mut self) -> Next<'a> {
        let Some(large) = self.large.take_if(|large| large.rest().is_empty()) else {
            return Next::Partial;
        };
        self.number = self.number.wrapping_add(1);
        let LargeFrame { kind, head, body, .. } = *large;
        Next::Large(kind, head, body)
    }

    /// Receives the large frame that has [`Begun`](Next::Begun) in `body`, which is at least as
    /// long as its body.
    pub fn begin_large(
        &mut self,
        kind: Kind,
        head: Header,
        mut body: BytesMut,
        buffer: &mut ReadBuffer,
    ) {
        let there = &buffer.left()[HEADER_BYTES..];
        let filled = there.len();
        body[..filled].copy_from_slice(there);
        buffer.clear();
        self.large = Some(Box::new(LargeFrame { kind, head, body, filled }));
    }

    /// Passes over the large frame that has [`Begun`](Next::Begun).
    pub fn refuse(&mut self, head: &Header, buffer: &mut ReadBuffer) {
        self.skip(buffer, head.len);
    }

    fn skip(&mut self, buffer: &mut ReadBuffer, count: u32) {
        buffer.start += HEADER_BYTES;
        self.skip = count as usize;
        self.passed = 0;
        self.number = self.number.wrapping_add(1);
    }

    fn pass_over(&mut self, buffer: &mut ReadBuffer) {
        let count = self.skip.min(buffer.len());
        buffer.start += count;
        self.skip -= count;
        self.passed += count;
        if self.skip == 0 {
            self.number = self.number.wrapping_add(1);
        }
    }

    /// Ends the use of a shared buffer, and keeps what is left in it. `spare` gives an empty vector
    /// for that.
    pub fn keep(&mut self, buffer: &mut ReadBuffer, spare: impl FnOnce() -> Vec<u8>) {
        if !buffer.is_empty() {
            let mut kept = spare();
            kept.extend_from_slice(buffer.left());
            self.kept = kept;
        }
        buffer.clear();
    }

    /// Begins to use a shared buffer, which is empty: puts the kept bytes into it. Returns the
    /// vector that held them, to be used again.
    #[inline]
    pub fn restore(&mut self, buffer: &mut ReadBuffer) -> Vec<u8> {
        let kept = mem::take(&mut self.kept);
        buffer.clear();
        buffer.bytes[..kept.len()].copy_from_slice(&kept);
        buffer.end = kept.len();
        kept
    }

    /// Bytes that have arrived of the frame that is not whole, or of the refused body; those in the
    /// buffer do not count.
    pub fn partial_bytes(&self) -> usize {
        let large = self.large.as_ref().map_or(0, |large| large.filled);
        if self.skip > 0 { self.passed } else { self.kept.len() + large }
    }

    /// Whether something has arrived of a frame, or a refused body is passed over; what is in the
    /// buffer does not count.
    pub fn has_partial(&self) -> bool {
        !self.kept.is_empty() || self.large.is_some() || self.skip > 0
    }

    /// A number that changes whenever a frame or a refused body is over.
    pub const fn number(&self) -> u32 {
        self.number
    }
}

/// A [`FrameReader`] with a buffer of its own.
#[derive(Clone, Debug, Default)]
pub struct Inbox {
    /// What it accepts.
    pub limits: Limits,
    reader: FrameReader,
    buffer: ReadBuffer,
    /// What came is no frame, and nothing behind it is one.
    is_malformed: bool,
}

impl Inbox {
    /// An inbox that bytes are given to with [`push`](Self::push); it grows with them.
    pub fn new(limits: Limits) -> Self {
        Self { limits, ..Self::default() }
    }

    /// An inbox for reads into [`space`](Self::space), with a buffer of this size in bytes.
    pub fn with_buffer(limits: Limits, size: usize) -> Self {
        Self { buffer: ReadBuffer::new(size), ..Self::new(limits) }
    }

    /// An inbox with these bytes.
    pub fn of(limits: Limits, bytes: &[u8]) -> Self {
        let mut inbox = Self::new(limits);
        inbox.push(bytes);
        inbox
    }

    /// Adds bytes that came.
    pub fn push(&mut self, bytes: &[u8]) {
        self.reader.push(&mut self.buffer, bytes);
    }

    /// Where the next read may put its bytes; it is never empty if all frames were taken.
    pub fn space(&mut self) -> &mut [u8] {
        let (large, rest) = self.reader.space(&mut self.buffer);
        if large.is_empty() { rest } else { large }
    }

    /// Notes that `count` bytes were put into [`space`](Self::space).
    pub fn filled(&mut self, count: usize) {
        self.reader.filled(&mut self.buffer, count);
    }

    /// The next whole frame with its body; `None` = more bytes are needed.
    ///
    /// # Errors
    /// As [`FrameReader::next`]. After an error without `skip` nothing more is taken.
    pub fn take(&mut self) -> Result<Option<(Kind, Header, Bytes)>, WireError> {
        while !self.is_malformed {
            match self.reader.next(&mut self.buffer, self.limits) {
                Ok(Next::Whole(kind, head, body)) => {
                    return Ok(Some((kind, head, Bytes::copy_from_slice(body))));
                }
                Ok(Next::Large(kind, head, body)) => return Ok(Some((kind, head, body.freeze()))),
                Ok(Next::Begun(kind, head)) => {
                    let body = BytesMut::zeroed(head.len as usize);
                    self.reader.begin_large(kind, head, body, &mut self.buffer);
                }
                Ok(Next::Partial) => break,
                Err(error) => {
                    self.is_malformed = error.skip.is_none();
                    return Err(error);
                }
            }
        }
        Ok(None)
    }

    /// The next whole frame; `None` = more bytes are needed.
    ///
    /// # Errors
    /// As [`take`](Self::take), or the body of a control frame can't be read.
    pub fn next_frame(&mut self) -> Result<Option<Frame>, WireError> {
        let Some((kind, head, body)) = self.take()? else { return Ok(None) };
        let frame = match self.limits.is_broker {
            true => decode::frame_of_broker(kind, head, body),
            false => decode::frame(kind, head, body),
        };
        self.is_malformed = frame.is_err();
        frame.map(Some)
    }

    /// Takes nothing more: what came makes no sense at this place.
    pub fn set_malformed(&mut self) {
        self.is_malformed = true;
    }

    /// Whether what came is no frame, and nothing behind it is one.
    pub const fn is_malformed(&self) -> bool {
        self.is_malformed
    }

    /// Whether bytes are there that are no whole frame, or that were not taken.
    pub fn has_bytes(&self) -> bool {
        self.reader.has_partial() || !self.buffer.is_empty()
    }

    /// How many bytes are there, of a frame that is not whole and of those that were not taken.
    pub fn bytes_count(&self) -> usize {
        self.reader.partial_bytes() + self.buffer.len()
    }

    /// Drops all that came.
    pub fn clear(&mut self) {
        self.reader = FrameReader::default();
        self.buffer.clear();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::encode;
    use crate::errors::{ErrorCode, Ran};

    const BODY_MAX: usize = 40_000;

    #[test]
    fn an_error_that_the_table_does_not_have_is_read_of_a_broker_alone() {
        let body = b"code -999\nname brand_new\nwhose host\nran yes\n\nsomething new";
        let frame = |error, body: &[u8]| {
            let command = Kind::Error.number();
            let len = u32::try_from(body.len()).unwrap();
            let head = Header { len, error, command, ..Header::default() };
            [&head.write()[..], body].concat()
        };
        let read = |limits, error, body: &[u8]| {
            Inbox::of(limits, &frame(error, body)).next_frame().map_err(|error| error.code)
        };
        for limits in [Limits::default(), Limits::new(BODY_MAX)] {
            assert_eq!(read(limits, -999, body), Err(ErrorCode::BadFrame));
        }
        let broker = Limits::from_broker(BODY_MAX);
        let Ok(Some(Frame::Error { error, .. })) = read(broker, -999, body) else {
            panic!("it is read");
        };
        let newer = error.newer.as_ref().expect("it is new");
        assert_eq!((newer.number, newer.name.as_str()), (-999, "brand_new"));
        assert_eq!((error.ran, error.text.as_str()), (Ran::Yes, "something new"));
        for number in [0, 1, i16::MAX] {
            assert_eq!(read(broker, number, body), Err(ErrorCode::BadFrame), "{number}");
        }
        assert_eq!(read(broker, -999, b"name \xff\n"), Err(ErrorCode::BadFrame));
    }

    fn body(sequence: u32, size: usize) -> Vec<u8> {
        (0..size).map(|i| (i % 253) as u8 ^ sequence as u8).collect()
    }

    fn frame(sequence: u32, size: usize) -> Vec<u8> {
        let head = Header { sequence, ..Header::default() };
        encode::to_bytes(Frame::data(head, Bytes::from(body(sequence, size)))).to_vec()
    }

    /// Reads a stream in pieces of this size through a shared buffer, as the loop of a broker does.
    /// Returns sequence and size of each frame, the number of errors, and the reader at the end.
    fn read_all(
        mut bytes: &[u8],
        size: usize,
        buffer: &mut ReadBuffer,
    ) -> (Vec<(u32, usize)>, u32, FrameReader) {
        let mut reader = FrameReader::default();
        let (mut got, mut bad) = (vec![], 0);
        let mut check = |head: &Header, read: &[u8]| {
            assert_eq!(read, body(head.sequence, read.len()), "body of frame {}", head.sequence);
            got.push((head.sequence, read.len()));
        };
        while !bytes.is_empty() {
            reader.restore(buffer);
            let (large, rest) = reader.space(buffer);
            let space = if large.is_empty() { rest } else { large };
            let (piece, left) = bytes.split_at(size.min(space.len()).min(bytes.len()));
            space[..piece.len()].copy_from_slice(piece);
            bytes = left;
            reader.filled(buffer, piece.len());
            loop {
                match reader.next(buffer, Limits::new(BODY_MAX)) {
                    Ok(Next::Whole(_, head, body)) => check(&head, body),
                    Ok(Next::Large(_, head, body)) => check(&head, &body[..head.len as usize]),
                    Ok(Next::Begun(kind, head)) => {
                        let body = BytesMut::zeroed(64 * 1024);
                        reader.begin_large(kind, head, body, buffer);
                    }
                    Ok(Next::Partial) => break,
                    Err(error) => {
                        assert!(error.skip.is_some(), "only large bodies here: {error}");
                        bad += 1;
                    }
                }
            }
            reader.keep(buffer, Vec::new);
        }
        (got, bad, reader)
    }

    #[test]
    fn frames_come_out_whole_wherever_the_stream_is_split() {
        let sizes = [0, 1, 64, 300, 20_000, 3, BODY_MAX, BODY_MAX + 1, 0, 4097, 5];
        let (mut bytes, mut want) = (vec![], vec![]);
        for (sequence, size) in sizes.iter().enumerate() {
            bytes.extend(frame(sequence as u32, *size));
            if *size <= BODY_MAX {
                want.push((sequence as u32, *size));
            }
        }
        let mut buffer = ReadBuffer::new(64 * 1024);
        for size in [1, 2, 63, 64, 65, 100, 1000, 4096, 30_000, usize::MAX] {
            let (got, bad, reader) = read_all(&bytes, size, &mut buffer);
            assert_eq!(got, want, "in pieces of {size}");
            assert_eq!((bad, reader.has_partial()), (1, false));
            // Each frame, and the refused one twice: when it is refused and when it is over.
            assert_eq!(reader.number(), sizes.len() as u32 + 1);
        }
    }

    #[test]
    fn a_stream_truncated_at_any_byte_gives_the_whole_frames_before_it() {
        let bytes = [frame(0, 10), frame(1, 0), frame(2, 17_000)].concat();
        let ends = [74, 138, 138 + 64 + 17_000];
        let mut buffer = ReadBuffer::new(64 * 1024);
        for at in (0..400).chain(bytes.len() - 100..=bytes.len()) {
            let (got, _, reader) = read_all(&bytes[..at], usize::MAX, &mut buffer);
            assert_eq!(got.len(), ends.iter().filter(|end| **end <= at).count(), "cut at {at}");
            assert_eq!(reader.has_partial(), at != 0 && !ends.contains(&at), "cut at {at}");
        }
    }

    #[test]
    fn it_is_known_how_much_of_a_frame_has_arrived() {
        let mut buffer = ReadBuffer::new(64 * 1024);
        // The header of a large one does not count.
        for (came, counted) in [(63, 63), (64, 0), (100, 36), (64 + 20_000, 20_000)] {
            let (_, _, reader) = read_all(&frame(1, 30_000)[..came], 50, &mut buffer);
            assert_eq!(reader.partial_bytes(), counted, "{came} bytes of a large frame");
            let (_, _, reader) = read_all(&frame(1, BODY_MAX + 1)[..came], 50, &mut buffer);
            assert_eq!(reader.partial_bytes(), counted, "{came} bytes of a refused frame");
        }
        let (_, _, reader) = read_all(&frame(1, 300)[..200], 50, &mut buffer);
        assert_eq!(reader.partial_bytes(), 200);
    }

    #[test]
    fn no_large_frame_may_come_before_the_login() {
        let limits = Limits { is_pre_login: true, ..Limits::default() };
        let mut inbox = Inbox::of(limits, &frame(1, 65_536));
        assert!(inbox.take().unwrap().is_some());
        inbox.push(&frame(2, 65_537)[..HEADER_BYTES]);
        let error = inbox.take().unwrap_err();
        assert_eq!((error.code, error.skip), (ErrorCode::BadState, None));
        assert_eq!(inbox.take(), Ok(None), "nothing is taken after a fatal error");
    }

    #[test]
    fn a_body_over_the_limit_fails_before_memory_is_reserved() {
        let mut inbox = Inbox::of(Limits::new(100_000), &frame(1, 100_000));
        assert!(inbox.take().unwrap().is_some());
        inbox.push(&frame(2, 100_001)[..HEADER_BYTES]);
        assert_eq!(inbox.take().unwrap_err().code, ErrorCode::BodyTooLarge);
        assert!(inbox.reader.large.is_none());
        inbox.push(&[b'x'; 100_001]);
        inbox.push(&frame(3, 1));
        assert_eq!(inbox.take().unwrap().map(|(_, head, _)| head.sequence), Some(3));
        assert!(!inbox.has_bytes());
    }

    #[test]
    fn an_inbox_has_space_while_its_frames_are_taken() {
        let sizes = [0, 1, 64, 4000, 16_320, 16_321, 65_536, 65_537, 200_000, 3, 0];
        let frames = sizes.iter().enumerate().map(|(at, size)| frame(at as u32, *size));
        let bytes = frames.collect::<Vec<_>>().concat();
        for size in [1, 63, 64, 65, 4096, 65_536, 70_000, usize::MAX] {
            let mut inbox = Inbox::with_buffer(Limits::new(200_000), 64 * 1024);
            let (mut left, mut got) = (&bytes[..], vec![]);
            while !left.is_empty() {
                let space = inbox.space();
                let count = space.len().min(size).min(left.len());
                assert!(count > 0, "there is always space");
                space[..count].copy_from_slice(&left[..count]);
                inbox.filled(count);
                left = &left[count..];
                while let Some((_, head, read)) = inbox.take().unwrap() {
                    assert_eq!(read, body(head.sequence, read.len()));
                    got.push(read.len());
                }
            }
            assert_eq!(got, sizes, "in pieces of {size}");
        }
    }
}
