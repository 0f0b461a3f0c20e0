//! Stores the bodies of received frames. Small ones are packed into the loop's chunks, and a chunk
//! is reused when all its bodies are dropped; large ones get a buffer of `buffer_pool`. So a
//! request allocates nothing in the steady state.

use super::buffer_pool::BufferPool;
use bytes::{Bytes, BytesMut};

/// A body of at most this size is copied into a chunk.
pub(super) const SMALL_BYTES_MAX: usize = 4096;
/// Size of a chunk. One body that is kept for long holds a whole chunk, so they are not large.
const CHUNK_BYTES: usize = 32 * 1024;
/// Number of chunks, used in rotation: while one is filled, bodies in the others are dropped.
const CHUNKS: usize = 8;

/// Chunks of memory with small bodies in them.
#[derive(Debug, Default)]
pub(super) struct SmallBodies {
    chunks: [BytesMut; CHUNKS],
    current: usize,
}

impl SmallBodies {
    /// Copies the bytes to a chunk; returns a body that can be kept and shared.
    pub(super) fn keep(&mut self, bytes: &[u8], pool: &mut BufferPool) -> Bytes {
        if bytes.is_empty() {
            return Bytes::new();
        }
        if bytes.len() > SMALL_BYTES_MAX {
            return pool.copy(bytes);
        }
        if self.chunks[self.current].capacity() < bytes.len() {
            self.turn(bytes.len());
        }
        let chunk = &mut self.chunks[self.current];
        chunk.extend_from_slice(bytes);
        chunk.split().freeze()
    }

    /// Goes on to the next chunk: the same memory if nobody holds a part of it any more.
    fn turn(&mut self, size: usize) {
        self.current = (self.current + 1) % CHUNKS;
        let chunk = &mut self.chunks[self.current];
        if chunk.capacity() >= size || chunk.try_reclaim(CHUNK_BYTES) {
            return;
        }
        *chunk = BytesMut::with_capacity(CHUNK_BYTES);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_keep_their_bytes_while_others_come_and_go() {
        let (mut small_bodies, mut pool) = (SmallBodies::default(), BufferPool::default());
        let mut held = vec![];
        for round in 0..5000_usize {
            let body = vec![(round % 256) as u8; round * 7 % (SMALL_BYTES_MAX + 100)];
            let kept = small_bodies.keep(&body, &mut pool);
            assert_eq!(kept, body);
            if round % 10 == 0 {
                held.push((kept, body));
            }
        }
        assert!(held.iter().all(|(kept, body)| kept == body));
    }

    #[test]
    fn chunks_are_used_again_when_their_bodies_are_gone() {
        let (mut small_bodies, mut pool) = (SmallBodies::default(), BufferPool::default());
        let mut places = std::collections::BTreeSet::new();
        for _ in 0..CHUNKS * CHUNK_BYTES {
            places.insert(small_bodies.keep(&[1; 64], &mut pool).as_ptr() as usize / CHUNK_BYTES);
        }
        // A chunk may lie across two places of its size.
        assert!(places.len() <= CHUNKS * 2, "{} places", places.len());
    }
}
