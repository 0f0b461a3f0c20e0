//! The bytes that wait to be written to one connection. Headers and small bodies are in one
//! contiguous buffer; large bodies are kept by reference between them. The buffers come from the
//! loop's [`OutboxPool`], so a connection with nothing to send owns none.

use protocol::encode::EncodedFrame;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Write};
use transport::stream::Stream;

/// A body of at least this many bytes is kept by reference and not copied.
const LARGE_BYTES_MIN: usize = 16 * 1024;
/// Most pieces in one system call.
const PIECES_MAX: usize = 64;
/// Empty buffers kept for the next connections.
const POOL_MAX: usize = 64;
/// A buffer that grew larger than this is given back to the system.
const KEEP_BYTES_MAX: usize = 64 * 1024;
/// Sent bytes at the front of a buffer are removed once there are this many.
const REMOVE_BYTES_MIN: usize = 256 * 1024;

/// A large body and where in the small bytes it stands.
#[derive(Debug)]
struct LargeBody {
    at: usize,
    body: bytes::Bytes,
}

/// The buffers of an outbox that has something in it.
#[derive(Debug, Default)]
struct Queue {
    small: Vec<u8>,
    /// Bytes of `small` that are sent.
    sent: usize,
    large_bodies: VecDeque<LargeBody>,
    /// Bytes of the first large body that are sent, when it stands at `sent`.
    large_sent: usize,
}

/// Empty queues for the next outbox that needs one.
#[allow(clippy::vec_box, reason = "they move between pool and outboxes as boxes")]
#[derive(Debug, Default)]
pub(super) struct OutboxPool {
    free: Vec<Box<Queue>>,
    /// Bytes in all outboxes.
    pub(super) waiting: usize,
}

/// Bytes that wait for one connection.
#[derive(Debug, Default)]
pub(super) struct Outbox {
    queue: Option<Box<Queue>>,
    bytes: usize,
}

/// The result of a flush.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Flushed {
    /// All is sent.
    All,
    /// The socket is full.
    Some {
        /// Whether it accepted at least one byte in this flush.
        progress: bool,
    },
}

impl OutboxPool {
    fn take(&mut self) -> Box<Queue> {
        self.free.pop().unwrap_or_default()
    }

    fn give(&mut self, mut queue: Box<Queue>) {
        if self.free.len() < POOL_MAX && queue.small.capacity() <= KEEP_BYTES_MAX {
            queue.small.clear();
            queue.large_bodies.clear();
            (queue.sent, queue.large_sent) = (0, 0);
            self.free.push(queue);
        }
    }
}

impl Outbox {
    /// Bytes not yet accepted by the socket.
    pub(super) const fn bytes(&self) -> usize {
        self.bytes
    }

    /// Appends a frame.
    pub(super) fn push(&mut self, encoded: EncodedFrame, pool: &mut OutboxPool) {
        let queue = self.queue.get_or_insert_with(|| pool.take());
        queue.small.extend_from_slice(&encoded.head);
        let bytes = encoded.head.len() + encoded.body.len();
        self.bytes += bytes;
        pool.waiting += bytes;
        if encoded.body.len() < LARGE_BYTES_MIN {
            queue.small.extend_from_slice(&encoded.body);
        } else {
            queue.large_bodies.push_back(LargeBody { at: queue.small.len(), body: encoded.body });
        }
    }

    /// Drops all unsent bytes.
    pub(super) fn clear(&mut self, pool: &mut OutboxPool) {
        pool.waiting -= std::mem::take(&mut self.bytes);
        if let Some(queue) = self.queue.take() {
            pool.give(queue);
        }
    }

    /// Writes until all is sent or the system takes no more.
    ///
    /// # Errors
    /// The connection broke.
    pub(super) fn flush(
        &mut self,
        stream: &mut Stream,
        pool: &mut OutboxPool,
    ) -> io::Result<Flushed> {
        let before = stream.progress();
        let flushed = self.flush_to(stream, pool)?;
        Ok(match flushed {
            Flushed::Some { .. } if stream.progress() > before => Flushed::Some { progress: true },
            flushed => flushed,
        })
    }

    fn flush_to<W: Write>(&mut self, out: &mut W, pool: &mut OutboxPool) -> io::Result<Flushed> {
        let mut progress = false;
        while let Some(queue) = self.queue.as_mut() {
            if self.bytes == 0 {
                self.clear(pool);
                break;
            }
            match queue.write(out) {
                Ok((0, _)) => return Err(ErrorKind::WriteZero.into()),
                Ok((taken, offered)) => {
                    progress = true;
                    queue.advance(taken);
                    self.bytes -= taken;
                    pool.waiting -= taken;
                    if taken < offered {
                        return Ok(Flushed::Some { progress });
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => {
                    return Ok(Flushed::Some { progress });
                }
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
        }
        // A plain socket has nothing to flush; a TLS session may hold a bounded number of bytes.
        match out.flush() {
            Ok(()) => Ok(Flushed::All),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(Flushed::Some { progress }),
            Err(error) => Err(error),
        }
    }
}

impl Queue {
    /// Makes one write call; returns the bytes accepted and the bytes offered.
    fn write<W: Write>(&self, out: &mut W) -> io::Result<(usize, usize)> {
        if self.large_bodies.is_empty() {
            let rest = &self.small[self.sent..];
            return Ok((out.write(rest)?, rest.len()));
        }
        let mut pieces = [IoSlice::new(&[]); PIECES_MAX];
        let (mut count, mut offered, mut at, mut skip) = (0, 0, self.sent, self.large_sent);
        let mut add = |piece| {
            let piece: &[u8] = piece;
            if !piece.is_empty() && count < PIECES_MAX {
                pieces[count] = IoSlice::new(piece);
                count += 1;
                offered += piece.len();
            }
        };
        // A body takes two pieces; what does not fit in this call waits for the next.
        for large in self.large_bodies.iter().take(PIECES_MAX / 2) {
            add(&self.small[at..large.at]);
            add(&large.body[skip..]);
            (at, skip) = (large.at, 0);
        }
        if self.large_bodies.len() < PIECES_MAX / 2 {
            add(&self.small[at..]);
        }
        Ok((out.write_vectored(&pieces[..count])?, offered))
    }

    /// Marks bytes as sent, in the order in which [`write`](Self::write) offers them.
    fn advance(&mut self, mut taken: usize) {
        while let Some(large) = self.large_bodies.front() {
            let small = (large.at - self.sent).min(taken);
            self.sent += small;
            taken -= small;
            if self.sent < large.at {
                return;
            }
            let rest = large.body.len() - self.large_sent;
            if taken < rest {
                self.large_sent += taken;
                return;
            }
            taken -= rest;
            self.large_sent = 0;
            self.large_bodies.pop_front();
        }
        self.sent += taken;
        if self.sent >= REMOVE_BYTES_MIN && self.sent * 2 > self.small.len() {
            self.small.drain(..self.sent);
            for large in &mut self.large_bodies {
                large.at -= self.sent;
            }
            self.sent = 0;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use bytes::Bytes;
    use protocol::limits::HEADER_BYTES;

    /// Takes at most `most` bytes a call, and refuses every other call.
    struct Narrow {
        most: usize,
        refuse: bool,
        got: Vec<u8>,
    }

    impl Write for Narrow {
        fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
            self.refuse = !self.refuse;
            if self.refuse {
                return Err(ErrorKind::WouldBlock.into());
            }
            let taken = buf.len().min(self.most);
            self.got.extend_from_slice(&buf[..taken]);
            Ok(taken)
        }

        fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
            let all: Vec<u8> =
                bufs.iter().flat_map(|buf| buf.iter().copied()).take(self.most).collect();
            self.write(&all)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn encoded(seed: u8, size: usize) -> EncodedFrame {
        let body: Vec<u8> = (0..size).map(|i| seed.wrapping_add((i % 251) as u8)).collect();
        EncodedFrame { head: [seed; HEADER_BYTES], body: Bytes::from(body) }
    }

    #[test]
    fn what_goes_in_comes_out_in_order_whatever_the_system_takes() {
        let sizes =
            [0, 5, LARGE_BYTES_MIN - 1, LARGE_BYTES_MIN, 3, LARGE_BYTES_MIN * 2, 0, 70_000, 1];
        for most in [1000, 4096, 17_000, usize::MAX] {
            let (mut pool, mut outbox, mut want) =
                (OutboxPool::default(), Outbox::default(), vec![]);
            let mut out = Narrow { most, refuse: false, got: vec![] };
            for (seed, size) in sizes.iter().cycle().take(90).enumerate() {
                let encoded = encoded(seed as u8, *size);
                want.extend_from_slice(&encoded.head);
                want.extend_from_slice(&encoded.body);
                outbox.push(encoded, &mut pool);
                outbox.flush_to(&mut out, &mut pool).unwrap();
                assert_eq!(outbox.bytes() + out.got.len(), want.len());
            }
            while outbox.flush_to(&mut out, &mut pool).unwrap() != Flushed::All {}
            assert!(out.got == want, "at most {most} bytes a call");
            assert!(outbox.bytes() == 0 && outbox.queue.is_none());
            assert_eq!(pool.waiting, 0);
        }
    }

    #[test]
    fn many_big_bodies_go_out_in_several_calls() {
        let (mut pool, mut outbox) = (OutboxPool::default(), Outbox::default());
        let mut out = Narrow { most: usize::MAX, refuse: true, got: vec![] };
        let mut want = vec![];
        for seed in 0..100 {
            let encoded = encoded(seed, LARGE_BYTES_MIN);
            want.extend_from_slice(&encoded.head);
            want.extend_from_slice(&encoded.body);
            outbox.push(encoded, &mut pool);
        }
        while outbox.flush_to(&mut out, &mut pool).unwrap() != Flushed::All {}
        assert!(out.got == want);
    }

    #[test]
    fn an_empty_outbox_owns_no_buffer_and_the_pool_is_bounded() {
        let mut pool = OutboxPool::default();
        let mut boxes: Vec<Outbox> = (0..POOL_MAX + 5).map(|_| Outbox::default()).collect();
        for outbox in &mut boxes {
            outbox.push(encoded(1, 10), &mut pool);
        }
        for outbox in &mut boxes {
            outbox.clear(&mut pool);
            assert!(outbox.queue.is_none() && outbox.bytes() == 0);
        }
        assert_eq!(pool.free.len(), POOL_MAX);
        let mut large = Outbox::default();
        for _ in 0..20 {
            large.push(encoded(1, LARGE_BYTES_MIN - 1), &mut pool);
        }
        let before = pool.free.len();
        large.clear(&mut pool);
        assert_eq!(pool.free.len(), before, "a grown buffer is given back to the system");
    }
}
