//! Topics of nats-server. It does not answer SUB and UNSUB; a PING after each does it.

use super::{Message, TopicProtocol, What};
use crate::payload::Payload;
use crate::protocols::{line, number};
use std::collections::VecDeque;
use std::io::Write;

const CONNECT: &str = "CONNECT {\"verbose\":false,\"pedantic\":false,\"headers\":false}\r\n";

/// One end of a connection to nats-server.
#[derive(Debug, Default)]
pub struct Nats {
    /// What the PONGs to come answer.
    pinged: VecDeque<What>,
}

impl Nats {
    fn ping(&mut self, what: What, text: std::fmt::Arguments<'_>, out: &mut Vec<u8>) {
        // Writing into memory does not fail.
        let _ = write!(out, "{text}PING\r\n");
        self.pinged.push_back(what);
    }
}

impl TopicProtocol for Nats {
    fn hello(&mut self, out: &mut Vec<u8>) {
        self.ping(What::Ready, format_args!("{CONNECT}"), out);
    }

    fn subscribe(&mut self, number: u32, pattern: &str, out: &mut Vec<u8>) {
        let text = format_args!("SUB {pattern} {number}\r\n");
        self.ping(What::Subscribed(number), text, out);
    }

    fn unsubscribe(&mut self, number: u32, out: &mut Vec<u8>) {
        self.ping(What::Unsubscribed(number), format_args!("UNSUB {number}\r\n"), out);
    }

    fn publish(&mut self, topic: &str, payload: Payload, out: &mut Vec<u8>) {
        // Writing into memory does not fail.
        let _ = write!(out, "PUB {topic} {}\r\n", payload.size);
        payload.append(out);
        out.extend_from_slice(b"\r\n");
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, What)>, String> {
        let Some((text, at)) = line(bytes)? else {
            return Ok(None);
        };
        let wrong = || format!("nats-server sent '{text}'");
        if let Some(words) = text.strip_prefix("MSG ") {
            let end = at + number::<usize>(words.rsplit(' ').next().ok_or_else(wrong)?)?;
            if bytes.len() < end + 2 {
                return Ok(None);
            }
            let (dropped, is_kept, topic) = (0, false, 0..0);
            let message = Message { dropped, is_kept, topic, payload: at..end };
            return Ok(Some((end + 2, What::Message(message))));
        }
        let what = match text {
            "PONG" => self.pinged.pop_front().ok_or_else(wrong)?,
            "PING" => {
                out.extend_from_slice(b"PONG\r\n");
                What::Passed
            }
            text if text.starts_with("INFO ") => What::Passed,
            _ => return Err(wrong()),
        };
        Ok(Some((at, what)))
    }
}
