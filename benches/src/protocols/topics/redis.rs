//! Publish and subscribe of redis-server: channels, and patterns where there is a `*`.

use super::{Message, TopicProtocol, What};
use crate::payload::Payload;
use crate::protocols::{line, number};
use std::collections::{BTreeMap, VecDeque};
use std::io::Write;
use std::ops::Range;

/// One end of a connection to redis-server.
#[derive(Debug, Default)]
pub struct Redis {
    patterns: BTreeMap<u32, String>,
    /// What the answers to come mean.
    asked: VecDeque<What>,
}

/// A command of several words.
fn command(words: &[&str], out: &mut Vec<u8>) {
    // Writing into memory does not fail.
    let _ = write!(out, "*{}\r\n", words.len());
    for word in words {
        let _ = write!(out, "${}\r\n{word}\r\n", word.len());
    }
}

/// The item at `at`, a text or a number, and where the next one begins.
fn item(bytes: &[u8], at: usize) -> Result<Option<(Range<usize>, usize)>, String> {
    let Some((text, used)) = line(&bytes[at..])? else {
        return Ok(None);
    };
    let begin = at + used;
    if text.starts_with(':') {
        return Ok(Some((at + 1..begin, begin)));
    }
    let size = text.strip_prefix('$').ok_or_else(|| format!("redis-server sent '{text}'"))?;
    let end = begin + number::<usize>(size)?;
    Ok((bytes.len() >= end + 2).then_some((begin..end, end + 2)))
}

impl Redis {
    fn of_pattern(pattern: &str, [plain, with_star]: [&'static str; 2], out: &mut Vec<u8>) {
        let verb = if pattern.contains('*') { with_star } else { plain };
        command(&[verb, pattern], out);
    }

    fn answer(&mut self) -> Result<What, String> {
        self.asked.pop_front().ok_or_else(|| "redis-server answered what was not asked".to_owned())
    }
}

impl TopicProtocol for Redis {
    fn hello(&mut self, out: &mut Vec<u8>) {
        self.asked.push_back(What::Ready);
        command(&["PING"], out);
    }

    fn subscribe(&mut self, number: u32, pattern: &str, out: &mut Vec<u8>) {
        Self::of_pattern(pattern, ["SUBSCRIBE", "PSUBSCRIBE"], out);
        self.patterns.insert(number, pattern.to_owned());
        self.asked.push_back(What::Subscribed(number));
    }

    fn unsubscribe(&mut self, number: u32, out: &mut Vec<u8>) {
        let pattern = self.patterns.remove(&number).unwrap_or_default();
        Self::of_pattern(&pattern, ["UNSUBSCRIBE", "PUNSUBSCRIBE"], out);
        self.asked.push_back(What::Unsubscribed(number));
    }

    fn publish(&mut self, topic: &str, payload: Payload, out: &mut Vec<u8>) {
        let size = payload.size;
        // Writing into memory does not fail.
        let _ = write!(out, "*3\r\n$7\r\nPUBLISH\r\n${}\r\n{topic}\r\n${size}\r\n", topic.len());
        payload.append(out);
        out.extend_from_slice(b"\r\n");
    }

    fn parse(&mut self, bytes: &[u8], _out: &mut Vec<u8>) -> Result<Option<(usize, What)>, String> {
        let Some((text, used)) = line(bytes)? else {
            return Ok(None);
        };
        let count: usize = match text {
            "+PONG" => return self.answer().map(|what| Some((used, what))),
            // The answer to PUBLISH.
            text if text.starts_with(':') => return Ok(Some((used, What::Passed))),
            text => match text.strip_prefix('*') {
                Some(count) => number(count)?,
                None => return Err(format!("redis-server sent '{text}'")),
            },
        };
        let Some((name, mut at)) = item(bytes, used)? else {
            return Ok(None);
        };
        let mut last = name.clone();
        for _ in 1..count {
            let Some(next) = item(bytes, at)? else {
                return Ok(None);
            };
            (last, at) = next;
        }
        let what = match &bytes[name] {
            b"message" | b"pmessage" => {
                What::Message(Message { dropped: 0, is_kept: false, topic: 0..0, payload: last })
            }
            _ => self.answer()?,
        };
        Ok(Some((at, what)))
    }
}
