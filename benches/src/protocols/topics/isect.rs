//! Topics of isect: kinds 32 to 39, and of instances so much as the bench measures.

use super::{Message, TopicProtocol, What};
use crate::payload::Payload;
use crate::protocols::isect::{append, frame, wrong};
use protocol::bodies::{
    Announced, BeatOk, CaughtUp, Login, Published, Subscribe, Subscribed, Unsubscribe, Unsubscribed,
};
use protocol::decode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::kinds::Kind;
use protocol::limits::{BUS_SERVICE, HEADER_BYTES};
use protocol::names::ServiceName;

const MESSAGE: u16 = Kind::Message.number();
/// In front of the topic.
const TOPIC: &[u8] = b"topic ";

/// One end of a connection to isectd, logged in to the service for those who do nothing else.
#[derive(Debug, Default)]
pub struct Isect {
    /// The published messages are kept as the values of their topics, and each is answered.
    retains: bool,
    sequence: u32,
}

impl Isect {
    /// One whose messages are kept as the values of their topics, if so; each of these is answered.
    pub fn retaining(retains: bool) -> Self {
        Self { retains, sequence: 0 }
    }
}

/// Appends any frame.
pub fn send(frame: Frame, out: &mut Vec<u8>) {
    append(frame, out);
}

/// A message, without a look at more of its lines than where they end.
fn message(head: &Header, bytes: &[u8]) -> Result<Message, String> {
    let body = &bytes[HEADER_BYTES..];
    let lines = body.windows(2).position(|two| two == b"\n\n");
    let lines = lines.filter(|_| body.starts_with(TOPIC)).ok_or("a message without a topic")?;
    let size = body[TOPIC.len()..].iter().position(|byte| *byte == b'\n').unwrap_or_default();
    let begin = HEADER_BYTES + TOPIC.len();
    Ok(Message {
        dropped: head.attempt,
        is_kept: head.more != 0,
        topic: begin..begin + size,
        payload: HEADER_BYTES + lines + 2..bytes.len(),
    })
}

impl TopicProtocol for Isect {
    fn hello(&mut self, out: &mut Vec<u8>) {
        if let Ok(service) = ServiceName::new(BUS_SERVICE) {
            append(Frame::Login(Login::to(service)), out);
        }
    }

    fn subscribe(&mut self, number: u32, pattern: &str, out: &mut Vec<u8>) {
        let pattern = pattern.to_owned();
        let (subscription, from, retained) = (number, None, true);
        append(Frame::Subscribe(Subscribe { subscription, pattern, from, retained }), out);
    }

    fn unsubscribe(&mut self, number: u32, out: &mut Vec<u8>) {
        append(Frame::Unsubscribe(Unsubscribe { subscription: number }), out);
    }

    fn publish(&mut self, topic: &str, payload: Payload, out: &mut Vec<u8>) {
        self.sequence = self.sequence.wrapping_add(1);
        let lines: &[&[u8]] = if self.retains {
            &[TOPIC, topic.as_bytes(), b"\nretain yes\n\n"]
        } else {
            &[TOPIC, topic.as_bytes(), b"\n\n"]
        };
        let size: usize = lines.iter().map(|part| part.len()).sum();
        let head = Header {
            len: (size + payload.size) as u32,
            sequence: self.sequence,
            reply: u16::from(self.retains),
            command: Kind::Publish.number(),
            ..Header::default()
        };
        out.extend_from_slice(&head.write());
        lines.iter().for_each(|part| out.extend_from_slice(part));
        payload.append(out);
    }

    fn parse(&mut self, bytes: &[u8], out: &mut Vec<u8>) -> Result<Option<(usize, What)>, String> {
        let Some((head, used)) = frame(bytes) else {
            return Ok(None);
        };
        if head.command == MESSAGE {
            return Ok(Some((used, What::Message(message(&head, &bytes[..used])?))));
        }
        let body = &bytes[HEADER_BYTES..used];
        let refused = || wrong("subscriber", &head, body);
        let kind = Kind::of(head.command).ok_or_else(refused)?;
        let read = decode::frame(kind, head, bytes::Bytes::copy_from_slice(body));
        let what = match read.map_err(|e| e.to_string())? {
            Frame::LoginOk(_) => What::Ready,
            Frame::Subscribed(Subscribed { subscription, .. }) => What::Subscribed(subscription),
            Frame::Unsubscribed(Unsubscribed { subscription, .. }) => {
                What::Unsubscribed(subscription)
            }
            Frame::CaughtUp(CaughtUp { kept, dropped, .. }) => What::CaughtUp { kept, dropped },
            Frame::Published(Published { publish, .. }) => What::Published(publish),
            Frame::BeatOk(BeatOk { beat, unknown }) => {
                What::BeatOk { beat, unknown: unknown.len() }
            }
            Frame::Announced(Announced { id, .. }) => What::Announced(id),
            Frame::Ping { sequence } => {
                append(Frame::Pong { sequence }, out);
                What::Passed
            }
            // One comes now and then to a link that is not read.
            Frame::Pong { .. } => What::Passed,
            _ => return Err(refused()),
        };
        Ok(Some((used, what)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::messages::{MessageOf, Retain};

    #[test]
    fn a_message_is_read_as_the_library_reads_it() {
        let payload = Payload { conn: 1, number: 7, size: 16 };
        let mut out = vec![];
        Isect::retaining(true).publish("a.b", payload, &mut out);
        let (mut head, used) = frame(&out).unwrap();
        assert_eq!((used, head.reply), (out.len(), 1));
        let mut wanted = vec![];
        payload.append(&mut wanted);
        let retain = Retain::Yes;
        let body = MessageOf { retain, ..MessageOf::new("a.b", &wanted) }.body();
        assert_eq!(out[HEADER_BYTES..], body[..]);
        (head.command, head.attempt, head.more) = (MESSAGE, 3, 1);
        out[..HEADER_BYTES].copy_from_slice(&head.write());
        let parsed = Isect::default().parse(&out, &mut vec![]).unwrap();
        let Some((_, What::Message(message))) = parsed else { panic!("{parsed:?}") };
        assert_eq!((message.dropped, message.is_kept), (3, true));
        assert_eq!((&out[message.topic], &out[message.payload]), (&b"a.b"[..], &wanted[..]));
    }
}
