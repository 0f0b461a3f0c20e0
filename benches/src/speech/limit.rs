//! The words of the bare relay, and of no broker at all: a 16-byte header (length, number, client,
//! zero; little-endian) and the payload. A worker sends back what it got.

use super::{Asks, Heard, Speech};
use crate::payload::Payload;

/// Bytes of the header.
pub const HEAD_BYTES: usize = 16;

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

/// A worker.
#[derive(Debug, Default)]
pub struct Worker;

impl Speech for Client {
    fn hello(&mut self, _out: &mut Vec<u8>) -> bool {
        true
    }

    fn hear(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> Result<Heard, String> {
        let Some(used) = frame(bytes)? else {
            return Ok(Heard::Part);
        };
        let number = u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]);
        Ok(Heard::Reply { used, number: Some(number), body: HEAD_BYTES..used })
    }
}

impl Asks for Client {
    fn ask(&mut self, payload: Payload, out: &mut Vec<u8>) {
        out.extend_from_slice(&(payload.size as u32).to_le_bytes());
        out.extend_from_slice(&payload.number.to_le_bytes());
        out.extend_from_slice(&[0; 8]);
        payload.append(out);
    }
}

impl Speech for Worker {
    fn hello(&mut self, _out: &mut Vec<u8>) -> bool {
        true
    }

    fn hear(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Heard, String> {
        let Some(used) = frame(bytes)? else {
            return Ok(Heard::Part);
        };
        out.extend_from_slice(&bytes[..used]);
        Ok(Heard::Passed { used })
    }
}
