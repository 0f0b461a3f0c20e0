//! Fuzzes the reader of streams, with the three kinds of buffer that it is used with. Law: for any
//! bytes, split at any place, all return the frames that are found in the whole stream, in the same
//! order, up to the first fatal error.

use super::source::Source;
use bytes::{Bytes, BytesMut};
use protocol::decode::{self, Limits, WireError};
use protocol::frame::Frame;
use protocol::frame_reader::{FrameReader, Inbox, Next, ReadBuffer};
use protocol::limits::HEADER_BYTES;

/// The result of reading a stream: frames, and errors that leave it usable; a fatal error is the
/// last.
pub(super) type ReadFrames = Vec<Result<Frame, WireError>>;

/// Room of a buffer.
const BUFFER_BYTES: usize = 64 * 1024;

/// A stream of bytes into a reader, split as the first bytes say.
pub fn streams(data: &[u8]) {
    let mut source = Source::new(data);
    let limits = Limits::new(usize::from(source.byte()) * 256);
    let step = usize::from(source.byte()) + 1;
    let sizes: Vec<usize> =
        source.bytes(16, 1).iter().map(|size| usize::from(*size) * step).collect();
    // Large bodies are of no interest byte by byte.
    let padding = usize::from(source.byte()) * 256;
    let mut stream = source.rest().to_vec();
    stream.resize(stream.len() + padding, b'x');
    for limits in [limits, Limits::from_broker(limits.body_bytes_max)] {
        let whole = at_once(&stream, limits);
        let mut buffer = ReadBuffer::new(BUFFER_BYTES);
        for sizes in [&sizes[..], &[]] {
            assert_eq!(by_push(&stream, sizes, limits), whole, "pushed, split by {sizes:?}");
            assert_eq!(by_space(&stream, sizes, limits), whole, "read, split by {sizes:?}");
            // The same buffer again: nothing of the last stream may show.
            let shared = by_shared(&stream, sizes, limits, &mut buffer);
            assert_eq!(shared, whole, "with a shared buffer, split by {sizes:?}");
        }
    }
}

/// What is in the stream, all of which is there: no reader is used.
pub(super) fn at_once(mut stream: &[u8], limits: Limits) -> ReadFrames {
    let mut frames = ReadFrames::new();
    while let Some((first, rest)) = stream.split_first_chunk::<HEADER_BYTES>() {
        let read = decode::head(first, limits);
        let size = match &read {
            Ok((_, head)) => head.len as usize,
            Err(error) => error.skip.unwrap_or_default() as usize,
        };
        let body = rest.get(..size);
        match (read, body) {
            (Ok((kind, head)), Some(body)) => {
                let frame = decode::frame(kind, head, Bytes::copy_from_slice(body));
                if !take(frame, &mut frames) {
                    return frames;
                }
            }
            (Ok(_), None) => return frames,
            (Err(error), _) => {
                let is_fatal = error.skip.is_none();
                frames.push(Err(error));
                if is_fatal {
                    return frames;
                }
            }
        }
        stream = rest.get(size..).unwrap_or_default();
    }
    frames
}

/// Sizes of the pieces: these, round and round; 0 or none = all that is left.
fn pieces(sizes: &[usize]) -> impl Iterator<Item = usize> {
    let sizes = if sizes.is_empty() { &[0] } else { sizes };
    sizes.iter().map(|size| if *size == 0 { usize::MAX } else { *size }).cycle()
}

/// Takes a frame or the error that ends everything; whether to go on.
fn take(frame: Result<Frame, WireError>, frames: &mut ReadFrames) -> bool {
    let is_good = frame.is_ok();
    frames.push(frame);
    is_good
}

/// Takes all frames out of an inbox.
fn drain(inbox: &mut Inbox, frames: &mut ReadFrames) {
    while let Some(frame) = inbox.next_frame().transpose() {
        frames.push(frame);
    }
}

/// Bytes are pushed, as execd and the tests do.
pub(super) fn by_push(mut stream: &[u8], sizes: &[usize], limits: Limits) -> ReadFrames {
    let (mut inbox, mut frames) = (Inbox::new(limits), ReadFrames::new());
    for size in pieces(sizes) {
        let (piece, rest) = stream.split_at(size.min(stream.len()));
        inbox.push(piece);
        drain(&mut inbox, &mut frames);
        stream = rest;
        if stream.is_empty() {
            break;
        }
    }
    frames
}

/// Bytes are read into the inbox, as the client library does.
fn by_space(mut stream: &[u8], sizes: &[usize], limits: Limits) -> ReadFrames {
    let (mut inbox, mut frames) = (Inbox::with_buffer(limits, BUFFER_BYTES), ReadFrames::new());
    for size in pieces(sizes) {
        let space = inbox.space();
        assert!(!space.is_empty(), "there is always space");
        let count = put(&mut stream, size, space);
        inbox.filled(count);
        drain(&mut inbox, &mut frames);
        if stream.is_empty() || inbox.is_malformed() {
            break;
        }
    }
    frames
}

/// Copies the next piece of a stream, as much as there is space for.
fn put(stream: &mut &[u8], size: usize, space: &mut [u8]) -> usize {
    let (piece, rest) = stream.split_at(size.min(space.len()).min(stream.len()));
    space[..piece.len()].copy_from_slice(piece);
    *stream = rest;
    piece.len()
}

/// Bytes are read into a buffer for all connections, as the broker does.
fn by_shared(
    mut stream: &[u8],
    sizes: &[usize],
    limits: Limits,
    buffer: &mut ReadBuffer,
) -> ReadFrames {
    let (mut reader, mut frames) = (FrameReader::default(), ReadFrames::new());
    for size in pieces(sizes) {
        let mut spare = reader.restore(buffer);
        let (large, rest) = reader.space(buffer);
        let mut count = put(&mut stream, size, large);
        if count == large.len() {
            count += put(&mut stream, size - count, rest);
        }
        reader.filled(buffer, count);
        loop {
            let frame = match reader.next(buffer, limits) {
                Ok(Next::Whole(kind, head, body)) => {
                    decode::frame(kind, head, Bytes::copy_from_slice(body))
                }
                Ok(Next::Large(kind, head, body)) => {
                    decode::frame(kind, head, body.freeze().slice(..head.len as usize))
                }
                Ok(Next::Begun(kind, head)) => {
                    // The buffers of a pool have their own sizes.
                    let body = BytesMut::zeroed(head.len as usize + 7);
                    reader.begin_large(kind, head, body, buffer);
                    continue;
                }
                Ok(Next::Partial) => break,
                Err(error) if error.skip.is_some() => {
                    frames.push(Err(error));
                    continue;
                }
                Err(error) => Err(error),
            };
            if !take(frame, &mut frames) {
                return frames;
            }
        }
        spare.clear();
        reader.keep(buffer, || spare);
        if stream.is_empty() {
            break;
        }
    }
    frames
}
