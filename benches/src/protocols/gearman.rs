//! The part of gearmand's binary protocol that a waiting client and a worker need.

use super::{ClientProtocol, Parsed, Protocol};
use crate::payload::Payload;
use std::ops::Range;

const HEAD_BYTES: usize = 12;
const CAN_DO: u32 = 1;
const PRE_SLEEP: u32 = 4;
const NOOP: u32 = 6;
const SUBMIT_JOB: u32 = 7;
const JOB_CREATED: u32 = 8;
const GRAB_JOB: u32 = 9;
const NO_JOB: u32 = 10;
const JOB_ASSIGN: u32 = 11;
const WORK_COMPLETE: u32 = 13;
const ECHO_REQ: u32 = 16;
const ECHO_RES: u32 = 17;
const FUNCTION: &[u8] = b"echo";

/// A client that submits foreground jobs and waits for each result.
#[derive(Debug, Default)]
pub struct Client;

/// A worker: takes a job, answers it, takes the next; sleeps when there is none.
#[derive(Debug, Default)]
pub struct Worker;

fn append(kind: u32, parts: &[&[u8]], out: &mut Vec<u8>) {
    head(kind, parts.iter().map(|part| part.len()).sum(), out);
    parts.iter().for_each(|part| out.extend_from_slice(part));
}

fn head(kind: u32, size: usize, out: &mut Vec<u8>) {
    out.extend_from_slice(b"\0REQ");
    out.extend_from_slice(&kind.to_be_bytes());
    out.extend_from_slice(&(size as u32).to_be_bytes());
}

/// Kind and size of the whole packet at the front, if it is there.
fn packet(bytes: &[u8]) -> Result<Option<(u32, usize)>, String> {
    let Some(head) = bytes.first_chunk::<HEAD_BYTES>() else {
        return Ok(None);
    };
    if !head.starts_with(b"\0RES") {
        return Err(format!("gearmand sent '{}'", head.escape_ascii()));
    }
    let kind = u32::from_be_bytes([head[4], head[5], head[6], head[7]]);
    let size = HEAD_BYTES + u32::from_be_bytes([head[8], head[9], head[10], head[11]]) as usize;
    Ok((bytes.len() >= size).then_some((kind, size)))
}

/// What stands behind the first `count` zero bytes of a packet.
fn behind(bytes: &[u8], used: usize, count: usize) -> Result<Range<usize>, String> {
    let mut at = HEAD_BYTES;
    for _ in 0..count {
        let zero = bytes[at..used].iter().position(|byte| *byte == 0);
        at += zero.ok_or("gearmand sent a packet with too few arguments")? + 1;
    }
    Ok(at..used)
}

impl Protocol for Client {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        append(ECHO_REQ, &[], out);
        false
    }

    fn parse(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> Result<Parsed, String> {
        let Some((kind, used)) = packet(bytes)? else {
            return Ok(Parsed::Part);
        };
        match kind {
            ECHO_RES => Ok(Parsed::Ready { used }),
            JOB_CREATED => Ok(Parsed::Passed { used }),
            WORK_COMPLETE => {
                Ok(Parsed::Reply { used, number: None, body: behind(bytes, used, 1)? })
            }
            other => Err(format!("gearmand sent the client a packet of kind {other}")),
        }
    }
}

impl ClientProtocol for Client {
    fn ask(&mut self, payload: Payload, out: &mut Vec<u8>) {
        // Function, an empty unique id, the workload.
        head(SUBMIT_JOB, FUNCTION.len() + 2 + payload.size, out);
        out.extend_from_slice(FUNCTION);
        out.extend_from_slice(&[0, 0]);
        payload.append(out);
    }
}

impl Protocol for Worker {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        append(CAN_DO, &[FUNCTION], out);
        append(ECHO_REQ, &[], out);
        append(GRAB_JOB, &[], out);
        false
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Parsed, String> {
        let Some((kind, used)) = packet(bytes)? else {
            return Ok(Parsed::Part);
        };
        match kind {
            ECHO_RES => return Ok(Parsed::Ready { used }),
            NO_JOB => append(PRE_SLEEP, &[], out),
            NOOP => append(GRAB_JOB, &[], out),
            JOB_ASSIGN => {
                let handle = HEAD_BYTES..behind(bytes, used, 1)?.start;
                let body = behind(bytes, used, 2)?;
                append(WORK_COMPLETE, &[&bytes[handle], &bytes[body]], out);
                append(GRAB_JOB, &[], out);
            }
            other => return Err(format!("gearmand sent the worker a packet of kind {other}")),
        }
        Ok(Parsed::Passed { used })
    }
}
