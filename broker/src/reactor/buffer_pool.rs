//! Buffers for large bodies and for the rests of frames, used again and again. The loop owns them;
//! a connection has one only while a frame of it is under way. So a large request costs no
//! allocation in the steady state. Small bodies are in `small_bodies`.

use super::frame_reader::LargeFrame;
use bytes::{Bytes, BytesMut};
use std::collections::VecDeque;

/// The smallest buffer; others are twice, four times … as large.
const SIZE_MIN: usize = 8 * 1024;
/// A larger body gets memory of its exact size, which goes when it goes.
const SIZE_MAX: usize = 1024 * 1024;
/// Most bytes that stand by or are lent out with a way back.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most spares of the other kinds.
const SPARES_MAX: usize = 64;

/// Buffers and boxes that are used again.
#[derive(Debug, Default)]
pub struct BufferPool {
    /// Every buffer once given out as a body, the longest ago first. One that nobody else holds any
    /// more can be written again.
    lent: VecDeque<Bytes>,
    lent_bytes: usize,
    /// Something was taken since the last look.
    is_used: bool,
    tails: Vec<Vec<u8>>,
    #[expect(clippy::vec_box, reason = "the boxes are what is kept")]
    large_frames: Vec<Box<LargeFrame>>,
}

impl BufferPool {
    /// How many bytes the buffer for so many has.
    pub(super) const fn size_for(len: usize) -> usize {
        if len > SIZE_MAX {
            return len;
        }
        let size = len.next_power_of_two();
        if size < SIZE_MIN { SIZE_MIN } else { size }
    }

    /// A buffer of at least this many bytes, with anything in it.
    pub(super) fn take(&mut self, len: usize) -> BytesMut {
        if len > SIZE_MAX {
            // Zeroed by the system, page by page as bytes come: a header alone costs no memory.
            return BytesMut::zeroed(len);
        }
        self.is_used = true;
        let size = Self::size_for(len);
        let found = self.lent.iter().position(|one| one.len() == size && one.is_unique());
        if let Some(lent) = found.and_then(|index| self.lent.remove(index)) {
            self.lent_bytes -= size;
            // It is this one's alone, as was just seen; else it is a copy, which is as good.
            return lent.try_into_mut().unwrap_or_else(|lent| BytesMut::from(&lent[..]));
        }
        let mut fresh = BytesMut::zeroed(size);
        // Makes it one that can be shared and taken back without another allocation.
        drop(fresh.split_off(size));
        fresh
    }

    /// Makes a body of the first `len` bytes of a buffer from [`take`](Self::take).
    pub(super) fn lend(&mut self, buffer: BytesMut, len: usize) -> Bytes {
        let whole = buffer.freeze();
        let size = whole.len();
        if size > SIZE_MAX {
            return whole;
        }
        let body = whole.slice(..len);
        while self.lent_bytes + size > BYTES_MAX {
            // Whoever still holds it frees it.
            let Some(oldest) = self.lent.pop_front() else { break };
            self.lent_bytes -= oldest.len();
        }
        self.lent_bytes += size;
        self.lent.push_back(whole);
        body
    }

    /// A body with a copy of these bytes.
    pub(super) fn copy(&mut self, bytes: &[u8]) -> Bytes {
        let mut buffer = self.take(bytes.len());
        buffer[..bytes.len()].copy_from_slice(bytes);
        self.lend(buffer, bytes.len())
    }

    /// A copy of these bytes that comes back with [`give_tail`](Self::give_tail).
    pub(super) fn tail(&mut self, bytes: &[u8]) -> Vec<u8> {
        let mut tail = self.tails.pop().unwrap_or_default();
        tail.extend_from_slice(bytes);
        tail
    }

    /// Takes a tail back.
    pub(super) fn give_tail(&mut self, mut tail: Vec<u8>) {
        if (1..=2 * super::frame_reader::TAIL_BYTES_MAX).contains(&tail.capacity())
            && self.tails.len() < SPARES_MAX
        {
            tail.clear();
            self.tails.push(tail);
        }
    }

    /// A box with this frame.
    pub(super) fn large_frame(&mut self, frame: LargeFrame) -> Box<LargeFrame> {
        match self.large_frames.pop() {
            Some(mut old) => {
                *old = frame;
                old
            }
            None => Box::new(frame),
        }
    }

    /// Takes such a box back.
    pub(super) fn give_large_frame(&mut self, frame: Box<LargeFrame>) {
        if self.large_frames.len() < SPARES_MAX {
            self.large_frames.push(frame);
        }
    }

    /// Whether something stands by and nothing was taken since the last time this was asked.
    pub(super) fn is_idle(&mut self) -> bool {
        let was_used = std::mem::take(&mut self.is_used);
        !was_used && (self.lent_bytes > 0 || !self.tails.is_empty())
    }

    /// Gives back everything that stands by.
    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_buffer_comes_back_when_its_body_is_gone_and_not_before() {
        let mut pool = BufferPool::default();
        let held = pool.copy(&[1; 70_000]);
        let first = pool.copy(&[2; 70_000]);
        let place = first.as_ptr();
        let part = first.slice(10..20);
        drop(first);
        assert_ne!(pool.copy(&[3; 70_000]).as_ptr(), place, "a part of it is still held");
        drop(part);
        let again = [pool.copy(&[4; 66_000]), pool.copy(&[5; 131_072]), pool.copy(&[6; 65_537])];
        assert!(again.iter().any(|body| body.as_ptr() == place), "it is used again");
        assert_eq!(held, [1; 70_000][..]);
        assert_eq!(again[0], [4; 66_000][..]);
        assert_eq!(again[1], [5; 131_072][..]);
    }

    #[test]
    fn what_stands_by_is_bounded_and_given_back() {
        let mut pool = BufferPool::default();
        let held: Vec<Bytes> = (0..40).map(|i| pool.copy(&vec![i; 1024 * 1024])).collect();
        assert!(pool.lent_bytes <= BYTES_MAX);
        assert!(held.iter().enumerate().all(|(i, body)| body.iter().all(|b| *b == i as u8)));
        let huge = pool.copy(&vec![9; SIZE_MAX + 1]);
        assert_eq!((huge.len(), pool.lent.len()), (SIZE_MAX + 1, 8));
        pool.clear();
        assert_eq!((pool.lent_bytes, pool.lent.len()), (0, 0));
        assert!(held.iter().enumerate().all(|(i, body)| body.iter().all(|b| *b == i as u8)));
    }
}
