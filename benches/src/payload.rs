//! The bytes of a request. Each payload carries its number and its connection; the rest is a
//! pattern whose start depends on both. So a check finds a reply that is mixed up, cut or doubled.

use std::sync::LazyLock;

/// Most bytes of a payload.
pub const PAYLOAD_BYTES_MAX: usize = 1 << 20;
/// Number and connection stand in this many bytes at the front.
const FRONT: usize = 8;
/// The pattern may begin at so many places; a prime.
const STARTS: usize = 251;

static PATTERN: LazyLock<Vec<u8>> = LazyLock::new(|| {
    let mut state = 0x2545_f491u32;
    (0..PAYLOAD_BYTES_MAX + STARTS)
        .map(|_| {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            (state & 0xff) as u8
        })
        .collect()
});

/// One request's bytes, not yet written anywhere.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Payload {
    /// Index of the client's connection.
    pub conn: u32,
    /// Number of the request on that connection.
    pub number: u32,
    /// Length in bytes.
    pub size: usize,
}

impl Payload {
    fn front(&self) -> [u8; FRONT] {
        let mut front = [0; FRONT];
        front[..4].copy_from_slice(&self.number.to_le_bytes());
        front[4..].copy_from_slice(&self.conn.to_le_bytes());
        front
    }

    fn rest(&self) -> &'static [u8] {
        let start = (self.number as usize).wrapping_mul(31).wrapping_add(self.conn as usize);
        let start = start % STARTS;
        &PATTERN[start..start + self.size.saturating_sub(FRONT)]
    }

    /// Appends the bytes.
    pub fn append(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.front()[..self.size.min(FRONT)]);
        out.extend_from_slice(self.rest());
    }

    /// Whether these are the bytes.
    pub fn is(&self, bytes: &[u8]) -> bool {
        bytes.len() == self.size
            && bytes[..self.size.min(FRONT)] == self.front()[..self.size.min(FRONT)]
            && bytes[self.size.min(FRONT)..] == *self.rest()
    }

    /// The number that a reply carries, if it is long enough to carry one.
    pub fn number_in(bytes: &[u8]) -> Option<u32> {
        bytes.first_chunk::<4>().map(|four| u32::from_le_bytes(*four))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_difference_is_seen() {
        for size in [0, 1, 7, 8, 9, 64, PAYLOAD_BYTES_MAX] {
            let payload = Payload { conn: 3, number: 77, size };
            let mut bytes = vec![];
            payload.append(&mut bytes);
            assert!(payload.is(&bytes));
            for at in [0, size / 2, size.saturating_sub(1)] {
                if at < size {
                    bytes[at] ^= 1;
                    assert!(!payload.is(&bytes), "byte {at} of {size}");
                    bytes[at] ^= 1;
                }
            }
            bytes.push(0);
            assert!(!payload.is(&bytes));
            if size >= 4 {
                assert_eq!(Payload::number_in(&bytes), Some(77));
                assert!(!Payload { number: 78, ..payload }.is(&bytes[..size]));
            }
            if size >= 8 {
                assert!(!Payload { conn: 4, ..payload }.is(&bytes[..size]));
            }
        }
    }
}
