//! Request and reply over Redis lists: clients push to `q` and block on their own list; workers
//! block on `q` and push to the list named in the request's first line.

use super::{ClientProtocol, Parsed, Protocol, line, number};
use crate::payload::Payload;
use std::io::Write;
use std::ops::Range;

const PING: &[u8] = b"PING\r\n";
const PONG: &[u8] = b"+PONG\r\n";

/// A client with its own list.
#[derive(Debug)]
pub struct Client {
    list: String,
}

/// A worker that blocks on the list `q`.
#[derive(Debug, Default)]
pub struct Worker;

fn write(out: &mut Vec<u8>, text: std::fmt::Arguments<'_>) {
    // Writing into memory does not fail.
    let _ = out.write_fmt(text);
}

/// An answer: its bytes, and where the value stands if it was one to BLPOP and not to RPUSH.
type Answer = (usize, Option<Range<usize>>);

/// The answer at the front; `None` = more is needed.
fn value(bytes: &[u8]) -> Result<Option<Answer>, String> {
    let Some((text, mut at)) = line(bytes)? else {
        return Ok(None);
    };
    if text.starts_with(':') {
        return Ok(Some((at, None)));
    }
    if text != "*2" {
        return Err(format!("redis-server sent '{text}'"));
    }
    let mut last = 0..0;
    for _ in 0..2 {
        let Some((text, used)) = line(&bytes[at..])? else {
            return Ok(None);
        };
        let size = text.strip_prefix('$').ok_or_else(|| format!("redis-server sent '{text}'"))?;
        let begin = at + used;
        let end = begin + number::<usize>(size)?;
        if bytes.len() < end + 2 {
            return Ok(None);
        }
        (last, at) = (begin..end, end + 2);
    }
    Ok(Some((at, Some(last))))
}

fn blpop(list: &str, out: &mut Vec<u8>) {
    write(out, format_args!("*3\r\n$5\r\nBLPOP\r\n${}\r\n{list}\r\n$1\r\n0\r\n", list.len()));
}

impl Client {
    /// A client with this number.
    pub fn new(index: usize) -> Self {
        Self { list: format!("r{index}") }
    }
}

impl Protocol for Client {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(PING);
        false
    }

    fn parse(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> Result<Parsed, String> {
        if bytes.starts_with(PONG) {
            return Ok(Parsed::Ready { used: PONG.len() });
        }
        Ok(match value(bytes)? {
            None => Parsed::Part,
            Some((used, None)) => Parsed::Passed { used },
            Some((used, Some(body))) => Parsed::Reply { used, number: None, body },
        })
    }
}

impl ClientProtocol for Client {
    fn ask(&mut self, payload: Payload, out: &mut Vec<u8>) {
        let list = &self.list;
        let size = list.len() + 1 + payload.size;
        write(out, format_args!("*3\r\n$5\r\nRPUSH\r\n$1\r\nq\r\n${size}\r\n{list}\n"));
        payload.append(out);
        out.extend_from_slice(b"\r\n");
        blpop(list, out);
    }
}

impl Protocol for Worker {
    fn hello(&mut self, out: &mut Vec<u8>) -> bool {
        out.extend_from_slice(PING);
        blpop("q", out);
        false
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Parsed, String> {
        if bytes.starts_with(PONG) {
            return Ok(Parsed::Ready { used: PONG.len() });
        }
        let (used, range) = match value(bytes)? {
            None => return Ok(Parsed::Part),
            Some((used, None)) => return Ok(Parsed::Passed { used }),
            Some((used, Some(range))) => (used, range),
        };
        let (list, size) = line(&bytes[range.clone()])?.ok_or("a request without a list")?;
        let body = &bytes[range.start + size..range.end];
        write(
            out,
            format_args!("*3\r\n$5\r\nRPUSH\r\n${}\r\n{list}\r\n${}\r\n", list.len(), body.len()),
        );
        out.extend_from_slice(body);
        out.extend_from_slice(b"\r\n");
        blpop("q", out);
        Ok(Parsed::Passed { used })
    }
}
