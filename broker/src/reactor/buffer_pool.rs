//! Reuses buffers for large bodies and for incomplete frames. The loop owns them; a connection
//! holds one only while it receives a frame. So a large request allocates nothing in the steady
//! state. Small bodies are in `small_bodies`.

use bytes::{Bytes, BytesMut};
use protocol::frame_reader::LARGE_FRAME_BYTES;
use std::collections::VecDeque;

/// Size of the smallest buffer in bytes; each further size is twice the one before.
const SIZE_MIN: usize = 8 * 1024;
/// A body of more bytes gets memory of its exact size, which is freed with it.
const SIZE_MAX: usize = 1024 * 1024;
/// Most bytes of all buffers that are spare or lent to bodies and tracked in `lent`.
const BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most spare tails.
const SPARES_MAX: usize = 64;

/// Buffers that are used again.
#[derive(Debug, Default)]
pub(super) struct BufferPool {
    /// All buffers lent to bodies, the oldest first. A buffer whose body is dropped can be reused.
    lent: VecDeque<Bytes>,
    lent_bytes: usize,
    /// A buffer was taken since the last call of [`is_idle`](Self::is_idle).
    is_used: bool,
    tails: Vec<Vec<u8>>,
}

impl BufferPool {
    /// Size of the buffer for a body of `len` bytes.
    pub(super) const fn size_for(len: usize) -> usize {
        if len > SIZE_MAX {
            return len;
        }
        let size = len.next_power_of_two();
        if size < SIZE_MIN { SIZE_MIN } else { size }
    }

    /// Returns a buffer of at least `len` bytes. Its content is undefined but initialised.
    pub(super) fn take(&mut self, len: usize) -> BytesMut {
        if len > SIZE_MAX {
            // The system zeroes each page at its first use, so an announced body takes no memory
            // before its bytes arrive.
            return BytesMut::zeroed(len);
        }
        self.is_used = true;
        let size = Self::size_for(len);
        let found = self.lent.iter().position(|one| one.len() == size && one.is_unique());
        if let Some(lent) = found.and_then(|index| self.lent.remove(index)) {
            self.lent_bytes -= size;
            // The check above found no other holder, so this takes the memory over; a copy would be
            // correct, too.
            return lent.try_into_mut().unwrap_or_else(|lent| BytesMut::from(&lent[..]));
        }
        let mut fresh = BytesMut::zeroed(size);
        // Splitting makes `BytesMut` allocate its shared state now and not at each `freeze`.
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
            // Its last holder frees it.
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

    /// An empty buffer for the bytes of an incomplete frame; [`give_tail`](Self::give_tail) returns
    /// it.
    pub(super) fn tail(&mut self) -> Vec<u8> {
        self.tails.pop().unwrap_or_default()
    }

    /// Takes back the buffer of an incomplete frame, for reuse.
    pub(super) fn give_tail(&mut self, mut tail: Vec<u8>) {
        if (1..=2 * LARGE_FRAME_BYTES).contains(&tail.capacity()) && self.tails.len() < SPARES_MAX {
            tail.clear();
            self.tails.push(tail);
        }
    }

    /// Whether there are spare buffers and none was taken since the last call.
    pub(super) fn is_idle(&mut self) -> bool {
        let was_used = std::mem::take(&mut self.is_used);
        !was_used && (self.lent_bytes > 0 || !self.tails.is_empty())
    }

    /// Frees all spare buffers.
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
