//! The protocol of the bare relay, also used without a broker: a 16-byte header (length, number,
//! client, zero; little-endian), then the payload. A worker sends back what it received.

use super::{ClientProtocol, Parsed, Protocol};
use crate::payload::Payload;

/// Bytes of the header.
pub const HEAD_BYTES: usize = 16;

/// The number of the empty frame that a relay, or a worker that listens, sends first: the
/// connection is accepted. Without it thousands of connects at once would overflow the listener's
/// backlog unseen.
const GREETING: u32 = u32::MAX;

/// The greeting as bytes.
pub fn greeting() -> [u8; HEAD_BYTES] {
    let mut head = [0; HEAD_BYTES];
    head[4..8].copy_from_slice(&GREETING.to_le_bytes());
    head
}

fn number(frame: &[u8]) -> u32 {
    u32::from_le_bytes([frame[4], frame[5], frame[6], frame[7]])
}

/// The size of the whole frame at the front, if it is there.
///
/// # Errors
/// No payload of this bench is so large.
pub fn frame(bytes: &[u8]) -> Result<Option<usize>, String> {
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    let size = u32::from_le_bytes([head[0], head[1], head[2], head[3]]) as usize;
    if size > crate::payload::PAYLOAD_BYTES_MAX {
        return Err(format!("a frame of {size} bytes"));
    }
    Ok((bytes.len() >= HEAD_BYTES + size).then_some(HEAD_BYTES + size))
}

/// A client of the relay, or of a worker directly.
#[derive(Debug, Default)]
pub struct Client;

/// A worker behind the bare relay.
#[derive(Debug, Default)]
pub struct Worker {
    /// It was connected to, so that it greets.
    pub listens: bool,
}

impl Protocol for Client {
    fn hello(&mut self, _out: &mut Vec<u8>) -> bool {
        false
    }

    fn parse(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> Result<Parsed, String> {
        let Some(used) = frame(bytes)? else {
            return Ok(Parsed::Part);
        };
        match number(bytes) {
            GREETING => Ok(Parsed::Ready { used }),
            number => Ok(Parsed::Reply { used, number: Some(number), body: HEAD_BYTES..used }),
        }
    }
}

impl ClientProtocol for Client {
    fn ask(&mut self, payload: Payload, out: &mut Vec<u8>) {
        out.extend_from_slice(&(payload.size as u32).to_le_bytes());
        out.extend_from_slice(&payload.number.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        payload.append(out);
    }
}

impl Protocol for Worker {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        if self.listens {
            out.extend_from_slice(&greeting());
        }
        self.listens
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Parsed, String> {
        let Some(used) = frame(bytes)? else {
            return Ok(Parsed::Part);
        };
        if number(bytes) == GREETING {
            return Ok(Parsed::Ready { used });
        }
        out.extend_from_slice(&bytes[..used]);
        Ok(Parsed::Passed { used })
    }
}
