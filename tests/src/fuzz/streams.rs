//! Fuzzes the three stream readers: `decode::next` (execd, tests), the broker's `FrameReader`, and
//! the client's `FrameReader`. Law: for any bytes, split at any place, all three return the same
//! frames in the same order, up to the first fatal error. One difference is allowed: the client's
//! reader accepts a deadline above the limit, since it trusts its broker.

use super::source::Source;
use broker::reactor::buffer_pool::BufferPool;
use broker::reactor::frame_reader::{FrameReader, NextFrame};
use bytes::{Buf, Bytes, BytesMut};
use client::frame_reader::FrameReader as ClientFrameReader;
use protocol::decode::{self, WireError};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::limits::HEADER_BYTES;
use std::io::{self, ErrorKind, Read};

/// The result of reading a stream: frames, and errors that leave it usable; a fatal error is the
/// last.
pub(super) type ReadFrames = Vec<Result<Frame, WireError>>;

/// Room of the loop's buffer.
const BUFFER_BYTES: usize = 64 * 1024;

/// A stream of bytes into each reader, split as the first bytes say.
pub fn streams(data: &[u8]) {
    let mut source = Source::new(data);
    let body_bytes_max = usize::from(source.byte()) * 256;
    let step = usize::from(source.byte()) + 1;
    let sizes: Vec<usize> =
        source.bytes(16, 1).iter().map(|size| usize::from(*size) * step).collect();
    // Large bodies are of no interest byte by byte.
    let padding = usize::from(source.byte()) * 256;
    let mut stream = source.rest().to_vec();
    stream.resize(stream.len() + padding, b'x');
    let whole = by_next(&stream, &[], body_bytes_max);
    assert_eq!(by_next(&stream, &sizes, body_bytes_max), whole, "next, split by {sizes:?}");
    // Buffers are used again: neither may show in the other, nor change what is still held.
    let mut pool = BufferPool::default();
    let first = by_frame_reader(&stream, &sizes, body_bytes_max, &mut pool);
    let second = by_frame_reader(&stream, &[], body_bytes_max, &mut pool);
    assert_eq!(first, whole, "frame reader, split by {sizes:?}");
    drop(first);
    assert_eq!(
        by_frame_reader(&stream, &sizes, body_bytes_max, &mut pool),
        whole,
        "frame reader again"
    );
    assert_eq!(second, whole, "frame reader, at once");
    let inbox = by_inbox(&stream, &sizes, body_bytes_max);
    let bad = whole.iter().position(Result::is_err);
    match bad.map(|at| (at, &whole[at])) {
        Some((at, Err(error))) if is_late(error) => {
            assert_eq!(inbox[..at], whole[..at], "inbox, split by {sizes:?}");
            assert!(
                inbox.get(at).is_none_or(|next| next.as_ref().err() != Some(error)),
                "the client's reader refuses a deadline of its broker, split by {sizes:?}"
            );
        }
        Some((at, _)) => assert_eq!(inbox, whole[..=at], "inbox, split by {sizes:?}"),
        None => assert_eq!(inbox, whole, "inbox, split by {sizes:?}"),
    }
}

/// Whether this is the error that only a broker's reader makes.
fn is_late(error: &WireError) -> bool {
    error.code == ErrorCode::OutOfRange && error.text.starts_with("deadline_ms ")
}

/// Sizes of the pieces: these, round and round; 0 or none = all that is left.
fn pieces(sizes: &[usize]) -> impl Iterator<Item = usize> {
    let sizes = if sizes.is_empty() { &[0] } else { sizes };
    sizes.iter().map(|size| if *size == 0 { usize::MAX } else { *size }).cycle()
}

/// With `decode::next`, as execd does.
pub(super) fn by_next(mut stream: &[u8], sizes: &[usize], body_bytes_max: usize) -> ReadFrames {
    let mut buffer = BytesMut::new();
    let (mut frames, mut skip) = (ReadFrames::new(), 0);
    for size in pieces(sizes) {
        let (piece, rest) = stream.split_at(size.min(stream.len()));
        buffer.extend_from_slice(piece);
        stream = rest;
        loop {
            let passed = skip.min(buffer.len());
            buffer.advance(passed);
            skip -= passed;
            if skip > 0 {
                break;
            }
            match decode::next(&mut buffer, body_bytes_max) {
                Ok(None) => break,
                Ok(Some(frame)) => frames.push(Ok(frame)),
                Err(error) => {
                    let more = error.skip;
                    frames.push(Err(error));
                    match more {
                        Some(count) => skip = count as usize,
                        None => return frames,
                    }
                }
            }
        }
        if stream.is_empty() {
            break;
        }
    }
    frames
}

/// A socket that gives what there is in pieces, and `WouldBlock` between them.
struct Pieces<'a, I> {
    left: &'a [u8],
    sizes: I,
    is_dry: bool,
}

impl<I: Iterator<Item = usize>> Read for Pieces<'_, I> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.is_dry = !self.is_dry;
        if self.is_dry && !self.left.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        let size = self.sizes.next().unwrap_or(usize::MAX);
        let (piece, left) = self.left.split_at(size.min(buf.len()).min(self.left.len()));
        buf[..piece.len()].copy_from_slice(piece);
        self.left = left;
        Ok(piece.len())
    }
}

/// With the broker's reader, as its loop does.
fn by_frame_reader(
    stream: &[u8],
    sizes: &[usize],
    body_bytes_max: usize,
    pool: &mut BufferPool,
) -> ReadFrames {
    let mut reader = FrameReader::default();
    reader.is_known = true;
    let mut socket = Pieces { left: stream, sizes: pieces(sizes), is_dry: false };
    let mut buffer = vec![0; BUFFER_BYTES];
    let mut frames = ReadFrames::new();
    while reader.ended.is_none() {
        reader.is_readable = true;
        let end = reader.fill(&mut socket, &mut buffer, pool);
        if let Some((kind, head, body)) = reader.take_large(pool)
            && !take(decode::frame(kind, head, body), &mut frames)
        {
            return frames;
        }
        let mut at = 0;
        loop {
            at += reader.pass_over(end - at);
            let rest = &buffer[at..end];
            match reader.next_frame(rest, body_bytes_max) {
                NextFrame::Whole(kind, head, size) => {
                    let body = Bytes::copy_from_slice(&rest[HEADER_BYTES..size]);
                    at += size;
                    if !take(decode::frame(kind, head, body), &mut frames) {
                        return frames;
                    }
                }
                NextFrame::Partial => {
                    reader.keep(rest, pool);
                    break;
                }
                NextFrame::Large(kind, head) => {
                    reader.begin_large(kind, head, &rest[HEADER_BYTES..], pool);
                    break;
                }
                NextFrame::Invalid(error) => {
                    at += HEADER_BYTES;
                    let more = error.skip;
                    frames.push(Err(error));
                    match more {
                        Some(count) => reader.skip(count),
                        None => return frames,
                    }
                }
            }
        }
    }
    frames
}

/// Takes a frame or the error that ends everything; whether to go on.
fn take(frame: Result<Frame, WireError>, frames: &mut ReadFrames) -> bool {
    let is_good = frame.is_ok();
    frames.push(frame);
    is_good
}

/// With the client's reader, for which every error is the last.
fn by_inbox(mut stream: &[u8], sizes: &[usize], body_bytes_max: usize) -> ReadFrames {
    let mut inbox = ClientFrameReader::new(body_bytes_max);
    let mut frames = ReadFrames::new();
    for size in pieces(sizes) {
        let space = inbox.space();
        assert!(!space.is_empty(), "there is always space");
        let (piece, rest) = stream.split_at(size.min(space.len()).min(stream.len()));
        space[..piece.len()].copy_from_slice(piece);
        inbox.filled(piece.len());
        stream = rest;
        while let Some(frame) = inbox.take().transpose() {
            if !take(frame, &mut frames) {
                return frames;
            }
        }
        if stream.is_empty() {
            break;
        }
    }
    frames
}
