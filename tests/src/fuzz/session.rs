//! Fuzzes the client's session against a broker that may be malicious: bytes become requests of the
//! program and frames of the broker. Laws: it never panics; every request that wants a reply ends
//! exactly once; a broker can decode what is sent; `requests_max` bounds the memory.

use super::source::Source;
use bytes::Bytes;
use client::error::Error;
use client::session::{Event, Reply, Send, Session};
use protocol::bodies::{
    BeatOk, CaughtUp, ErrorBody, Flushed, Login, LoginOk, Published, Unsubscribed,
};
use protocol::decode::Limits;
use protocol::encode;
use protocol::errors::{ERRORS, ErrorCode};
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::header::Header;
use protocol::ids::ClientId;
use protocol::kinds::{Kind, Role};
use protocol::limits::BODY_BYTES_DEFAULT;
use protocol::messages::Position;
use protocol::names::ServiceName;
use protocol::proof::Proof;
use std::collections::BTreeSet;
use std::time::Duration;

const MOVES_MAX: usize = 400;
const LIMITS: Limits = Limits::new(BODY_BYTES_DEFAULT);

struct World {
    session: Session,
    /// Requests that wait for their end.
    open: BTreeSet<u32>,
}

/// Bytes as what happens to a client.
pub fn session(data: &[u8]) {
    let mut source = Source::new(data);
    let mut world = World { session: Session::new(), open: BTreeSet::new() };
    for _ in 0..MOVES_MAX {
        if source.is_empty() {
            break;
        }
        world.next(&mut source);
        let under_way = world.session.under_way();
        assert!(world.open.len() <= under_way, "{:?} of {under_way}", world.open);
    }
    world.lost();
}

impl World {
    fn next(&mut self, source: &mut Source<'_>) {
        match source.below(16) {
            0 => {
                let login = Login::to(ServiceName::new("echo").expect("a name"));
                if let Ok(frame) = self.session.login(login) {
                    check_sent(frame);
                    let ok = login_ok(source);
                    self.receive(Frame::LoginOk(ok));
                }
            }
            1..=4 => self.send(source),
            5 => {
                let sequence = source.below(16) as u32;
                self.open.remove(&sequence);
                if source.is_yes() {
                    self.session.give_up(sequence);
                } else {
                    let _ = self.session.withdraw(sequence);
                }
            }
            6..=11 => self.receive(frame(source)),
            12 | 13 => {
                let bytes = source.bytes(512, 2);
                if let Ok(Some(frame)) = Inbox::of(LIMITS, bytes).next_frame() {
                    self.receive(frame);
                }
            }
            14 => {
                self.goodbye(source);
            }
            _ => self.lost(),
        }
    }

    fn goodbye(&mut self, source: &mut Source<'_>) {
        let is_open = self.session.is_open();
        let under_way = self.session.under_way();
        match source.below(5) {
            0 => {
                check_sent(self.session.logout());
                self.open.clear();
                return;
            }
            1 => {
                assert_eq!(self.session.finish().is_ok(), is_open);
                assert!(!self.session.is_open() && self.session.finish_half().is_none());
            }
            2 => {
                let flush = self.session.flush();
                assert_eq!(flush.is_ok(), is_open);
                if let Ok((_, frame)) = flush {
                    check_sent(frame);
                    assert!(!self.session.has_unflushed());
                }
            }
            3 => {
                if let Ok((sequence, frame)) = self.session.publish(Bytes::from("topic a\n\n")) {
                    check_sent(frame);
                    assert!(self.open.insert(sequence), "{sequence} is under way already");
                    return;
                }
            }
            _ => {
                let cancel = self.session.cancel(source.below(16) as u32);
                assert_eq!(cancel.is_ok(), is_open);
                cancel.into_iter().for_each(check_sent);
            }
        }
        assert_eq!(self.session.under_way(), under_way, "what is under way keeps its outcome");
    }

    fn send(&mut self, source: &mut Source<'_>) {
        let flags = source.byte();
        let conversation =
            (flags & 1 != 0).then(|| (source.below(16) as u32, source.below(4) as u32));
        let send = Send {
            more: flags & 6 == 6,
            idempotent: flags & 8 != 0,
            extendable: flags & 128 != 0,
            reply: flags & 16 == 0,
            deadline: (flags & 32 != 0).then(|| Duration::from_nanos(source.number())),
            conversation,
            ..Send::default()
        };
        let before = self.session.under_way();
        match self.session.send(Bytes::copy_from_slice(source.bytes(64, 1)), &send) {
            Ok((sequence, frame)) => {
                check_sent(frame);
                let is_first = conversation.is_none();
                if is_first && send.reply {
                    assert!(self.open.insert(sequence), "sequence {sequence} is given twice");
                }
                assert!(sequence != 0 || !is_first, "0 stands for no request");
                if flags & 64 == 0 {
                    self.session.handed_over(sequence);
                }
            }
            Err(error) => {
                assert_eq!(self.session.under_way(), before, "{error}: nothing has changed");
            }
        }
        let max = self.session.limits().requests_max;
        let under_way = self.session.under_way() as u64;
        assert!(under_way <= max.max(before as u64), "{under_way} under way, {max} allowed");
    }

    fn receive(&mut self, frame: Frame) {
        match self.session.receive(frame) {
            Ok(Event::Reply(reply)) => self.reply(&reply),
            Ok(Event::Answer(frame)) => check_sent(frame),
            Ok(Event::Dropped(sequence)) => {
                assert!(!self.open.contains(&sequence), "{sequence} was waited for");
            }
            Ok(Event::LoggedIn(_)) => assert!(self.session.is_open()),
            Ok(Event::Refused(_)) => assert!(!self.session.is_open()),
            Ok(Event::Challenged(_)) => {
                let proof = Proof { proof: [7; 32], channel: None };
                check_sent(self.session.prove(proof));
            }
            Ok(Event::Published(said)) => {
                assert!(self.open.remove(&said.publish), "nothing was published: {said:?}");
                assert!(!self.session.is_under_way(said.publish));
            }
            Ok(Event::Flushed(_) | Event::Closing(_) | Event::Quiet) => {}
            // The connection can't be trusted: the caller closes it.
            Err(error) => {
                assert!(!error.to_string().is_empty());
                self.lost();
            }
        }
    }

    fn reply(&mut self, reply: &Reply) {
        assert!(
            self.open.contains(&reply.sequence),
            "an answer to what was not asked, or has its end: {reply:?}"
        );
        if !reply.more {
            self.open.remove(&reply.sequence);
            assert!(!self.session.is_under_way(reply.sequence));
        }
    }

    fn lost(&mut self) {
        let why = Error::new(ErrorCode::BrokerLost, "fuzz");
        let (_, replies) = self.session.lost(why);
        for reply in &replies {
            assert!(reply.error.is_some() && !reply.more);
            assert!(self.open.remove(&reply.sequence), "an end of nothing: {reply:?}");
        }
        assert!(self.open.is_empty(), "these have no end: {:?}", self.open);
        assert_eq!(self.session.under_way(), 0);
    }
}

/// Checks that the frames to the broker are ones that a client may send.
fn check_sent(frame: Frame) {
    let kind: Kind = frame.kind();
    assert!(kind.may_send(Role::Client), "a client sends {kind}");
    let mut inbox = Inbox::of(LIMITS, &encode::to_bytes(frame));
    let read = inbox.next_frame();
    assert!(matches!(read, Ok(Some(_))) && !inbox.has_bytes(), "a broker reads {read:?}");
}

fn login_ok(source: &mut Source<'_>) -> LoginOk {
    let body = format!(
        "client 7\nbody_bytes_max {}\nrequests_max {}\n",
        source.number() >> source.below(64),
        source.byte()
    );
    LoginOk::parse(body.as_bytes())
        .unwrap_or_else(|error| panic!("{error} of {body} for {}", ClientId(7)))
}

fn frame(source: &mut Source<'_>) -> Frame {
    let flags = source.byte();
    let head = Header {
        sequence: source.below(16) as u32,
        more: u16::from(flags & 3 == 3),
        error: if flags & 12 == 12 { i16::from(source.byte() as i8) } else { 0 },
        workerid: source.below(4) as u32,
        transaction: u64::from(flags),
        deadline_ms: u32::from(flags >> 4),
        ..Header::default()
    };
    match source.below(9) {
        8 => Frame::Flushed(Flushed { flush: source.word(), refused: source.number() }),
        0 | 1 => {
            let row = ERRORS[source.below(ERRORS.len())];
            let code = ErrorCode::of(row.number).unwrap_or(ErrorCode::Internal);
            Frame::Error { head, error: ErrorBody::new(code, source.text()) }
        }
        2 if flags & 64 != 0 => Frame::Published(Published {
            publish: source.below(16) as u32,
            at: Position { epoch: source.number(), number: source.number() },
            subscriptions: source.number(),
        }),
        3 if flags & 64 != 0 => bus_frame(head, source),
        2 => Frame::Ping { sequence: source.word() },
        3 => Frame::Pong { sequence: source.word() },
        _ => Frame::data(head, Bytes::copy_from_slice(source.bytes(64, 1))),
    }
}

/// A frame of topics or instances that this session never asked for.
fn bus_frame(head: Header, source: &mut Source<'_>) -> Frame {
    let subscription = head.sequence;
    match source.below(4) {
        0 => Frame::Message { head, body: Bytes::copy_from_slice(source.bytes(64, 1)) },
        1 => Frame::CaughtUp(CaughtUp { subscription, kept: source.number(), dropped: 0 }),
        2 => Frame::BeatOk(BeatOk { beat: subscription, unknown: vec![source.number()] }),
        _ => {
            let (delivered, dropped) = (source.number(), source.number());
            Frame::Unsubscribed(Unsubscribed { subscription, delivered, dropped })
        }
    }
}
