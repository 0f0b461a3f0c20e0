//! The part of ZMTP 3.0 (ZeroMQ's wire protocol) that a client and a worker of the guide's LRU
//! queue need. Both are REQ sockets. A worker sends READY first and then returns every frame of a
//! request, addresses included.

use super::{ClientProtocol, Parsed, Protocol};
use crate::payload::Payload;

const GREETING_BYTES: usize = 64;
const MORE: u8 = 1;
const LONG: u8 = 2;
const COMMAND: u8 = 4;

/// A REQ socket that sends requests.
#[derive(Debug, Default)]
pub struct Client {
    setup: Setup,
}

/// A REQ socket that sends READY and then answers requests.
#[derive(Debug, Default)]
pub struct Worker {
    setup: Setup,
}

/// How far the handshake is.
#[derive(Debug, Default)]
struct Setup {
    is_greeted: bool,
    is_ready: bool,
}

/// One frame: its flags, where its body begins and where it ends.
fn frame(bytes: &[u8]) -> Option<(u8, usize, usize)> {
    let flags = *bytes.first()?;
    let (begin, size): (usize, usize) = if flags & LONG == 0 {
        (2, usize::from(*bytes.get(1)?))
    } else {
        let long = bytes.get(1..)?.first_chunk::<8>()?;
        (9, usize::try_from(u64::from_be_bytes(*long)).ok()?)
    };
    let end = begin.checked_add(size)?;
    (bytes.len() >= end).then_some((flags, begin, end))
}

/// The last frame of the whole message at the front: where its body begins and where it ends.
fn message(bytes: &[u8]) -> Option<(usize, usize)> {
    let mut at = 0;
    loop {
        let (flags, begin, end) = frame(&bytes[at..])?;
        if flags & MORE == 0 {
            return Some((at + begin, at + end));
        }
        at += end;
    }
}

fn frame_head(flags: u8, size: usize, out: &mut Vec<u8>) {
    match u8::try_from(size) {
        Ok(short) => out.extend_from_slice(&[flags, short]),
        Err(_) => {
            out.push(flags | LONG);
            out.extend_from_slice(&(size as u64).to_be_bytes());
        }
    }
}

impl Setup {
    fn hello(out: &mut Vec<u8>) {
        let mut greeting = [0; GREETING_BYTES];
        greeting[0] = 0xff;
        greeting[9] = 0x7f;
        greeting[10] = 3;
        greeting[12..16].copy_from_slice(b"NULL");
        out.extend_from_slice(&greeting);
        let ready = b"\x05READY\x0bSocket-Type\0\0\0\x03REQ\x08Identity\0\0\0\0";
        frame_head(COMMAND, ready.len(), out);
        out.extend_from_slice(ready);
    }

    /// The next step of the handshake; `None` = it is done.
    fn parse(&mut self, bytes: &[u8]) -> Result<Option<Parsed>, String> {
        if self.is_ready {
            return Ok(None);
        }
        if !self.is_greeted {
            if bytes.len() < GREETING_BYTES {
                return Ok(Some(Parsed::Part));
            }
            if bytes[10] < 3 || &bytes[12..16] != b"NULL" {
                return Err("the queue does not speak ZMTP 3 without security".into());
            }
            self.is_greeted = true;
            return Ok(Some(Parsed::Passed { used: GREETING_BYTES }));
        }
        let Some((flags, begin, end)) = frame(bytes) else {
            return Ok(Some(Parsed::Part));
        };
        if flags & COMMAND == 0 || !bytes[begin..end].starts_with(b"\x05READY") {
            return Err(format!("the queue sent '{}'", bytes[begin..end].escape_ascii()));
        }
        self.is_ready = true;
        Ok(Some(Parsed::Ready { used: end }))
    }
}

impl Protocol for Client {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        Setup::hello(out);
        false
    }

    fn parse(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> Result<Parsed, String> {
        if let Some(heard) = self.setup.parse(bytes)? {
            return Ok(heard);
        }
        Ok(match message(bytes) {
            None => Parsed::Part,
            Some((begin, used)) => Parsed::Reply { used, number: None, body: begin..used },
        })
    }
}

impl ClientProtocol for Client {
    fn ask(&mut self, payload: Payload, out: &mut Vec<u8>) {
        frame_head(MORE, 0, out);
        frame_head(0, payload.size, out);
        payload.append(out);
    }
}

impl Protocol for Worker {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        Setup::hello(out);
        false
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Parsed, String> {
        if let Some(heard) = self.setup.parse(bytes)? {
            if matches!(heard, Parsed::Ready { .. }) {
                frame_head(MORE, 0, out);
                frame_head(0, 5, out);
                out.extend_from_slice(b"READY");
            }
            return Ok(heard);
        }
        let Some((_, used)) = message(bytes) else {
            return Ok(Parsed::Part);
        };
        out.extend_from_slice(&bytes[..used]);
        Ok(Parsed::Passed { used })
    }
}
