//! How messages are published and subscribed to at each peer, as pure readers and writers of bytes.
//! The loop of `topics` drives all of them.

mod isect;
mod nats;
mod redis;

use crate::payload::Payload;
use std::ops::Range;

pub use isect::{Isect, send};
pub use nats::Nats;
pub use redis::Redis;

/// What a whole piece of the bytes that came means.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum What {
    /// Nothing for the bench; what had to be answered is in the outbox.
    Passed,
    /// The connection is set up.
    Ready,
    /// The subscription of this number is made.
    Subscribed(u32),
    /// The subscription of this number is no more.
    Unsubscribed(u32),
    /// A message.
    Message(Message),
    /// isect: all values that were kept were sent, so many.
    CaughtUp {
        /// How many.
        kept: u64,
        /// How many messages were dropped since the last one.
        dropped: u64,
    },
    /// isect: the publish with this sequence is accepted.
    Published(u32),
    /// isect: the answer to a beat.
    BeatOk {
        /// The number of the beat.
        beat: u32,
        /// How many instances it names that the broker does not know.
        unknown: usize,
    },
    /// isect: the instance with this id is watched.
    Announced(u64),
}

/// A message that came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// isect: how many were dropped right before it.
    pub dropped: u32,
    /// isect: it is a value that was kept.
    pub is_kept: bool,
    /// isect: where the topic stands, which others are not asked for.
    pub topic: Range<usize>,
    /// Where the payload stands.
    pub payload: Range<usize>,
}

/// One end of a connection that publishes and subscribes.
pub trait TopicProtocol {
    /// What is sent first; [`What::Ready`] is the answer.
    fn hello(&mut self, out: &mut Vec<u8>);

    /// Subscribes; [`What::Subscribed`] is the answer.
    fn subscribe(&mut self, number: u32, pattern: &str, out: &mut Vec<u8>);

    /// Ends a subscription; [`What::Unsubscribed`] is the answer.
    fn unsubscribe(&mut self, number: u32, out: &mut Vec<u8>);

    /// Publishes.
    fn publish(&mut self, topic: &str, payload: Payload, out: &mut Vec<u8>);

    /// The bytes of the piece at the front, and what it means; `None` = it is not whole yet.
    ///
    /// # Errors
    /// It makes no sense, or tells that something failed.
    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, What)>, String>;
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(protocol: &mut dyn TopicProtocol, bytes: &[u8]) -> Vec<What> {
        let (mut found, mut at) = (vec![], 0);
        while let Some((used, what)) = protocol.parse(&bytes[at..], &mut vec![]).unwrap() {
            for end in at..at + used {
                assert_eq!(protocol.parse(&bytes[at..end], &mut vec![]), Ok(None), "to {end}");
            }
            at += used;
            found.push(what);
        }
        assert_eq!(at, bytes.len());
        found
    }

    fn payload(what: &What, bytes: &[u8]) -> Vec<u8> {
        let What::Message(message) = what else { panic!("{what:?}") };
        bytes[message.payload.clone()].to_vec()
    }

    #[test]
    fn nats_answers_in_the_order_of_the_pings() {
        let mut nats = Nats::default();
        let mut out = vec![];
        nats.hello(&mut out);
        nats.subscribe(7, "a.*", &mut out);
        nats.unsubscribe(7, &mut out);
        let text = b"INFO {}\r\nPONG\r\nPONG\r\nPONG\r\n";
        let wanted = [What::Passed, What::Ready, What::Subscribed(7), What::Unsubscribed(7)];
        assert_eq!(all(&mut nats, text), wanted);
        let message = b"MSG a.b 7 5\r\nhello\r\n";
        assert_eq!(payload(&all(&mut nats, message)[0], message), b"hello");
    }

    #[test]
    fn redis_tells_messages_from_answers() {
        let mut redis = Redis::default();
        let mut out = vec![];
        redis.hello(&mut out);
        redis.subscribe(7, "a", &mut out);
        redis.subscribe(8, "a*", &mut out);
        assert!(out.ends_with(b"*2\r\n$10\r\nPSUBSCRIBE\r\n$2\r\na*\r\n"));
        let text = b"+PONG\r\n*3\r\n$9\r\nsubscribe\r\n$1\r\na\r\n:1\r\n\
            *3\r\n$10\r\npsubscribe\r\n$2\r\na*\r\n:2\r\n:3\r\n";
        let wanted = [What::Ready, What::Subscribed(7), What::Subscribed(8), What::Passed];
        assert_eq!(all(&mut redis, text), wanted);
        let message = b"*3\r\n$7\r\nmessage\r\n$1\r\na\r\n$5\r\nhello\r\n";
        assert_eq!(payload(&all(&mut redis, message)[0], message), b"hello");
        let message = b"*4\r\n$8\r\npmessage\r\n$2\r\na*\r\n$1\r\na\r\n$5\r\nhello\r\n";
        assert_eq!(payload(&all(&mut redis, message)[0], message), b"hello");
    }
}
