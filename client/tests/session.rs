//! Tests of the pure session: what a client may send, and what it may expect next.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use bytes::Bytes;
use client::error::{Code, Error};
use client::protocol::bodies::{ErrorBody, Flushed, Login, LoginOk, Published};
use client::protocol::errors::{ErrorCode, Ran};
use client::protocol::frame::Frame;
use client::protocol::header::Header;
use client::protocol::ids::ClientId;
use client::protocol::messages::Position;
use client::protocol::names::ServiceName;
use client::session::{Event, Reply, Send, Session};
use std::collections::BTreeMap;
use std::time::Duration;

fn login() -> Login {
    Login::to(ServiceName::new("echo").unwrap())
}

fn limits() -> LoginOk {
    LoginOk {
        client: ClientId(1),
        body_bytes_max: 100,
        requests_max: 3,
        deadline_ms: 0,
        heartbeat_ms: 0,
        silence_ms: 0,
        version: String::new(),
        signature: None,
    }
}

fn open() -> Session {
    let mut session = Session::new();
    session.login(login()).unwrap();
    let event = session.receive(Frame::LoginOk(limits())).unwrap();
    assert!(matches!(event, Event::LoggedIn(_)) && session.is_open());
    session
}

fn ask(session: &mut Session, send: &Send) -> u32 {
    let (sequence, _) = session.send(Bytes::from_static(b"x"), send).unwrap();
    session.handed_over(sequence);
    sequence
}

fn data(sequence: u32, more: u16, workerid: u32) -> Frame {
    Frame::data(Header { sequence, more, workerid, ..Header::default() }, Bytes::new())
}

fn error(sequence: u32, code: ErrorCode) -> Frame {
    let head = Header { sequence, ..Header::default() };
    Frame::Error { head, error: ErrorBody::new(code, "text") }
}

fn reply(event: Event) -> Reply {
    match event {
        Event::Reply(reply) => reply,
        other => panic!("{other:?} is no reply"),
    }
}

fn refused(result: Result<(u32, Frame), Error>, code: ErrorCode) -> Error {
    let error = result.unwrap_err();
    assert!(error.is(code) && error.is_retry_safe(), "{error}");
    error
}

#[test]
fn nothing_is_sent_before_the_login_is_accepted() {
    let mut session = Session::new();
    let body = Bytes::new;
    refused(session.send(body(), &Send::default()), ErrorCode::BadState);
    session.login(login()).unwrap();
    refused(session.send(body(), &Send::default()), ErrorCode::BadState);
    assert!(session.login(login()).unwrap_err().is(ErrorCode::BadState));
    let event = session.receive(error(0, ErrorCode::UnknownService)).unwrap();
    assert!(matches!(event, Event::Refused(e) if e.is(ErrorCode::UnknownService)));
    assert!(!session.is_open());
    session.login(login()).unwrap();
}

#[test]
fn the_header_says_what_was_asked() {
    let mut session = open();
    let send = Send {
        idempotent: true,
        priority: 9,
        deadline: Some(Duration::from_micros(1)),
        trace_id: [5; 16],
        span_id: 6,
        ..Send::default()
    };
    let (sequence, frame) = session.send(Bytes::from_static(b"hi"), &send).unwrap();
    let Frame::Data { head, body } = frame else { panic!("{frame:?}") };
    assert_eq!((sequence, &body[..]), (1, &b"hi"[..]));
    assert_eq!((head.sequence, head.reply, head.flags, head.priority), (1, 1, 1, 9));
    assert_eq!((head.deadline_ms, head.trace_id, head.span_id), (1, [5; 16], 6));
    let long = Send { deadline: Some(Duration::from_secs(99_999)), ..Send::default() };
    let (_, frame) = session.send(Bytes::new(), &long).unwrap();
    assert!(matches!(frame, Frame::Data { head, .. } if head.deadline_ms == 3_600_000));
}

#[test]
fn the_limits_of_the_login_hold_at_the_limit_and_one_over() {
    let mut session = open();
    let error =
        refused(session.send(Bytes::from(vec![0; 101]), &Send::default()), ErrorCode::BodyTooLarge);
    assert!(error.text.contains("101 bytes exceeds body_bytes_max 100"), "{error}");
    for _ in 0..3 {
        session.send(Bytes::from(vec![0; 100]), &Send::default()).unwrap();
    }
    refused(session.send(Bytes::new(), &Send::default()), ErrorCode::TooManyRequests);
    session.receive(data(2, 0, 0)).unwrap();
    assert_eq!(ask(&mut session, &Send::default()), 4);
}

#[test]
fn answers_find_their_requests_in_any_order() {
    let mut session = open();
    let first = ask(&mut session, &Send::default());
    let second = ask(&mut session, &Send::default());
    assert_eq!(reply(session.receive(data(second, 0, 0)).unwrap()).sequence, second);
    let piece = reply(session.receive(data(first, 1, 5)).unwrap());
    assert!(piece.more && piece.worker == 5 && session.is_under_way(first));
    assert!(!reply(session.receive(data(first, 0, 0)).unwrap()).more);
    assert!(matches!(session.receive(data(first, 0, 0)).unwrap(), Event::Dropped(s) if s == first));
    assert_eq!(session.under_way(), 0);
}

#[test]
fn a_request_that_was_given_up_gets_no_late_answer() {
    let mut session = open();
    let sequence = ask(&mut session, &Send::default());
    session.give_up(sequence);
    assert!(matches!(session.receive(data(sequence, 0, 0)).unwrap(), Event::Dropped(_)));
    assert_ne!(ask(&mut session, &Send::default()), sequence);
}

#[test]
fn a_half_request_that_the_broker_ended_is_ended_here_too_and_no_other() {
    let mut session = open();
    let more = Send { more: true, ..Send::default() };
    assert!(session.finish_half().is_none());
    // The outcome comes before the last piece: an error, an early answer, or a request given up.
    let failed = ask(&mut session, &more);
    session.receive(error(failed, ErrorCode::Deadline)).unwrap();
    let early = ask(&mut session, &more);
    session.receive(data(early, 0, 0)).unwrap();
    let given_up = ask(&mut session, &more);
    session.give_up(given_up);
    // These requests are not incomplete: sent at once, completed later, never handed over, or
    // waiting for the worker's turn.
    let whole = ask(&mut session, &Send::default());
    session.receive(error(whole, ErrorCode::Deadline)).unwrap();
    let pieces = ask(&mut session, &more);
    ask(&mut session, &Send { conversation: Some((pieces, 0)), ..Send::default() });
    session.receive(error(pieces, ErrorCode::Deadline)).unwrap();
    let (unsent, _) = session.send(Bytes::new(), &more).unwrap();
    assert_eq!(session.withdraw(unsent), Ran::No);
    let talk = ask(&mut session, &Send::default());
    session.receive(data(talk, 1, 5)).unwrap();
    let turn = Send { conversation: Some((talk, 5)), more: true, ..Send::default() };
    session.send(Bytes::new(), &turn).unwrap();
    assert_eq!(session.withdraw(talk), Ran::Maybe);
    let mut finished = BTreeMap::new();
    let mut take = |session: &mut Session| {
        while let Some(Frame::Data { head, body }) = session.finish_half() {
            assert!(body.is_empty());
            finished.insert(head.sequence, (head.more, head.reply, head.workerid));
        }
        finished.clone()
    };
    let expected = BTreeMap::from([(failed, (0, 0, 0)), (early, (0, 0, 0))]);
    assert_eq!(take(&mut session), expected);
    // The broker still has the request: an empty last piece now would complete it.
    session.receive(error(given_up, ErrorCode::Deadline)).unwrap();
    assert!(take(&mut session).contains_key(&given_up));
    session.lost(Error::new(ErrorCode::BrokerLost, "text"));
    assert!(session.finish_half().is_none());
}

#[test]
fn a_request_without_an_answer_whose_last_piece_was_not_written_may_have_run() {
    for reply in [false, true] {
        let mut session = open();
        let piece = Send { reply, more: true, ..Send::default() };
        let request = ask(&mut session, &piece);
        let last = Send { reply, conversation: Some((request, 0)), ..Send::default() };
        session.send(Bytes::new(), &last).unwrap();
        assert_eq!(session.withdraw(request), Ran::Maybe, "reply: {reply}");
        assert_eq!(session.under_way(), 0);
        // Written as a whole, it is under way only if an answer is to come.
        let request = ask(&mut session, &piece);
        ask(&mut session, &Send { conversation: Some((request, 0)), ..last });
        assert_eq!(session.is_under_way(request), reply);
        // A first frame that was not written is nowhere.
        let (unsent, _) = session.send(Bytes::new(), &Send { reply, ..Send::default() }).unwrap();
        assert_eq!(session.withdraw(unsent), Ran::No, "reply: {reply}");
    }
}

#[test]
fn a_conversation_goes_on_only_while_one_side_said_more() {
    let mut session = open();
    let first = ask(&mut session, &Send::default());
    let next = |more| Send { more, conversation: Some((first, 5)), ..Send::default() };
    refused(session.send(Bytes::new(), &next(false)), ErrorCode::NoConversation);
    session.receive(data(first, 1, 5)).unwrap();
    let (sequence, frame) = session.send(Bytes::new(), &next(false)).unwrap();
    assert_eq!(sequence, first);
    assert!(matches!(frame, Frame::Data { head, .. } if head.workerid == 5 && head.more == 0));
    session.receive(data(first, 0, 5)).unwrap();
    refused(session.send(Bytes::new(), &next(false)), ErrorCode::NoConversation);

    let pieces = ask(&mut session, &Send { more: true, ..Send::default() });
    let more = Send { more: true, conversation: Some((pieces, 0)), ..Send::default() };
    ask(&mut session, &more);
    ask(&mut session, &Send { more: false, ..more });
    refused(session.send(Bytes::new(), &more), ErrorCode::NoConversation);
    assert!(session.is_under_way(pieces));
}

#[test]
fn without_a_wish_for_an_answer_nothing_is_under_way() {
    let mut session = open();
    let silent = Send { reply: false, ..Send::default() };
    let (sequence, frame) = session.send(Bytes::new(), &silent).unwrap();
    assert!(matches!(frame, Frame::Data { head, .. } if head.reply == 0));
    assert!(!session.is_under_way(sequence));
    let first = ask(&mut session, &Send { more: true, ..silent });
    assert!(session.is_under_way(first));
    ask(&mut session, &Send { conversation: Some((first, 0)), ..silent });
    assert!(!session.is_under_way(first));
}

#[test]
fn errors_end_their_request_and_keep_what_the_frame_knows() {
    let mut session = open();
    let first = ask(&mut session, &Send::default());
    let second = ask(&mut session, &Send::default());
    let error = reply(session.receive(error(first, ErrorCode::WorkerDied)).unwrap()).error.unwrap();
    assert!(error.is(ErrorCode::WorkerDied) && error.ran == Ran::Maybe);
    let head = Header { sequence: second, error: 12, ..Header::default() };
    let own = Frame::data(head, Bytes::from_static(b"no such account"));
    let error = reply(session.receive(own).unwrap()).error.unwrap();
    assert_eq!((error.code, error.text.as_str()), (Code::Application(12), "no such account"));
    assert_eq!((error.ran, session.under_way()), (Ran::Yes, 0));
}

#[test]
fn a_loss_gives_each_request_its_outcome_and_says_what_may_have_run() {
    let mut session = open();
    let handed = ask(&mut session, &Send::default());
    let (half, _) = session.send(Bytes::new(), &Send::default()).unwrap();
    let (error, replies) = session.lost(Error::new(ErrorCode::BrokerLost, "gone"));
    assert!(error.is(ErrorCode::BrokerLost));
    let outcome: BTreeMap<u32, Ran> =
        replies.into_iter().map(|r| (r.sequence, r.error.unwrap().ran)).collect();
    assert_eq!(outcome, BTreeMap::from([(handed, Ran::Maybe), (half, Ran::No)]));
    assert!(session.under_way() == 0 && !session.is_open());
}

#[test]
fn why_the_broker_closes_is_a_better_reason_than_the_loss() {
    let mut session = open();
    let first = ask(&mut session, &Send::default());
    let event = session.receive(error(0, ErrorCode::ShuttingDown)).unwrap();
    assert!(matches!(event, Event::Closing(e) if e.is(ErrorCode::ShuttingDown)));
    let (why, replies) = session.lost(Error::new(ErrorCode::BrokerLost, "gone"));
    assert!(why.is(ErrorCode::ShuttingDown));
    assert_eq!(replies[0].sequence, first);
    let error = replies[0].error.clone().unwrap();
    assert!(error.is(ErrorCode::ShuttingDown) && error.ran == Ran::Maybe);
    session.login(login()).unwrap();
    let (why, _) = session.lost(Error::new(ErrorCode::BrokerLost, "gone"));
    assert!(why.is(ErrorCode::BrokerLost), "the reason belongs to the connection before");
}

#[test]
fn pings_are_answered_in_every_state_and_other_kinds_are_not_taken() {
    let ping = || Frame::Ping { sequence: 9 };
    let mut fresh = Session::new();
    let mut waiting = Session::new();
    waiting.login(login()).unwrap();
    for session in [&mut fresh, &mut waiting, &mut open()] {
        let event = session.receive(ping()).unwrap();
        assert!(matches!(event, Event::Answer(Frame::Pong { sequence: 9 })));
        for frame in [
            Frame::End,
            Frame::Reinit,
            Frame::Login(login()),
            Frame::Logout(protocol::bodies::Logout::default()),
        ] {
            assert!(session.receive(frame).unwrap_err().is(ErrorCode::BadState));
        }
    }
    assert!(waiting.receive(data(1, 0, 0)).is_err(), "data before login-ok");
    assert!(open().receive(Frame::LoginOk(limits())).is_err(), "login-ok twice");
    let negative = Header { sequence: 1, error: -3, ..Header::default() };
    assert!(open().receive(Frame::data(negative, Bytes::new())).is_err());
}

#[test]
fn a_request_that_is_cancelled_still_has_its_one_outcome() {
    let session = Session::new();
    assert!(session.cancel(1).unwrap_err().is(ErrorCode::BadState));
    let mut session = open();
    let first = ask(&mut session, &Send::default());
    let frame = session.cancel(first).unwrap();
    assert!(matches!(frame, Frame::Cancel { head, .. } if head.sequence == first));
    assert!(session.is_under_way(first));
    let outcome = reply(session.receive(error(first, ErrorCode::Cancelled)).unwrap());
    assert!(outcome.error.unwrap().is(ErrorCode::Cancelled));
    // Cancelled behind its answer, and given up as well: no fault.
    session.cancel(first).unwrap();
    let second = ask(&mut session, &Send::default());
    session.cancel(second).unwrap();
    session.give_up(second);
    let event = session.receive(error(second, ErrorCode::Cancelled)).unwrap();
    assert!(matches!(event, Event::Dropped(at) if at == second));
}

#[test]
fn a_flush_is_owed_for_requests_without_an_answer_alone() {
    let mut session = open();
    assert!(!session.has_unflushed());
    ask(&mut session, &Send::default());
    assert!(!session.has_unflushed());
    let silent = Send { reply: false, ..Send::default() };
    let (unsent, _) = session.send(Bytes::new(), &silent).unwrap();
    session.withdraw(unsent);
    assert!(!session.has_unflushed(), "it did not leave");
    ask(&mut session, &silent);
    assert!(session.has_unflushed());
    let (number, frame) = session.flush().unwrap();
    assert_eq!(frame, Frame::Flush { sequence: number });
    assert!(!session.has_unflushed());
    let first = ask(&mut session, &Send { more: true, ..silent });
    assert!(!session.has_unflushed(), "it is not whole");
    ask(&mut session, &Send { conversation: Some((first, 0)), ..silent });
    assert!(session.has_unflushed());
    let flushed = Flushed { flush: number, refused: 2 };
    let event = session.receive(Frame::Flushed(flushed)).unwrap();
    assert!(matches!(event, Event::Flushed(Flushed { refused: 2, .. })));
    session.lost(Error::new(ErrorCode::BrokerLost, "gone"));
    assert!(!session.has_unflushed() && session.flush().is_err());
}

#[test]
fn a_side_that_is_shut_sends_nothing_and_gets_what_is_under_way() {
    let mut session = Session::new();
    assert!(session.finish().unwrap_err().is(ErrorCode::BadState));
    let mut session = open();
    let first = ask(&mut session, &Send::default());
    let second = ask(&mut session, &Send::default());
    let half = ask(&mut session, &Send { more: true, ..Send::default() });
    session.finish().unwrap();
    assert!(!session.is_open() && session.under_way() == 3);
    let refusal = refused(session.send(Bytes::new(), &Send::default()), ErrorCode::BadState);
    assert!(refusal.text.contains("has shut its side"), "{refusal}");
    assert!(session.finish().is_err() && session.flush().is_err());
    assert!(session.cancel(first).is_err() && session.login(login()).is_err());
    assert!(matches!(session.receive(Frame::Ping { sequence: 9 }).unwrap(), Event::Quiet));
    assert_eq!(reply(session.receive(data(second, 0, 0)).unwrap()).sequence, second);
    reply(session.receive(error(half, ErrorCode::Deadline)).unwrap());
    assert!(session.finish_half().is_none());
    let (_, rest) = session.lost(Error::new(ErrorCode::BrokerLost, "gone"));
    assert_eq!(rest.iter().map(|reply| reply.sequence).collect::<Vec<_>>(), [first]);
    session.login(login()).unwrap();
}

#[test]
fn only_the_worker_of_an_extendable_request_puts_its_deadline_off() {
    let mut session = open();
    let plain = ask(&mut session, &Send::default());
    let (sequence, frame) =
        session.send(Bytes::new(), &Send { extendable: true, ..Send::default() }).unwrap();
    assert!(matches!(frame, Frame::Data { head, .. } if head.flags == 2));
    for (sequence, more, deadline_ms, wanted) in [
        (plain, 1, 500, None),
        (sequence, 1, 0, None),
        (sequence, 1, 500, Some(Duration::from_millis(500))),
        (sequence, 1, u32::MAX, Some(Duration::from_millis(u32::MAX.into()))),
        (sequence, 0, 500, None),
    ] {
        let head = Header { sequence, more, deadline_ms, ..Header::default() };
        let piece = reply(session.receive(Frame::data(head, Bytes::new())).unwrap());
        assert_eq!(piece.next_within, wanted, "more={more} deadline_ms={deadline_ms}");
    }
}

/// Any order of sending, cancelling, giving up, answers and errors: each request has at most one
/// final outcome, and exactly one by the end of the connection, unless it was given up.
#[test]
fn every_request_has_exactly_one_outcome() {
    for seed in 0..200u64 {
        let mut rng = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = move |below: u64| {
            rng ^= rng << 13;
            rng ^= rng >> 7;
            rng ^= rng << 17;
            rng % below
        };
        let mut session = open();
        let mut outcomes: BTreeMap<u32, u32> = BTreeMap::new();
        let mut note = |reply: &Reply| {
            if !reply.more || reply.error.is_some() {
                *outcomes.entry(reply.sequence).or_default() += 1;
            }
        };
        let (mut sent, mut given_up) = (Vec::new(), Vec::new());
        for _ in 0..100 {
            let target = u32::try_from(roll(20)).unwrap();
            match roll(7) {
                0 | 1 => {
                    if let Ok((sequence, _)) = session.send(Bytes::new(), &Send::default()) {
                        sent.push(sequence);
                    }
                }
                2 => {
                    let more = u16::try_from(roll(2)).unwrap();
                    if let Event::Reply(r) = session.receive(data(target, more, 1)).unwrap() {
                        note(&r);
                    }
                }
                3 => {
                    let frame = error(target, ErrorCode::WorkerDied);
                    if let Event::Reply(r) = session.receive(frame).unwrap() {
                        note(&r);
                    }
                }
                4 => {
                    let _ = session.cancel(target);
                }
                5 if roll(20) == 0 => {
                    let _ = session.finish();
                }
                _ => {
                    if session.is_under_way(target) {
                        session.give_up(target);
                        given_up.push(target);
                    }
                }
            }
        }
        let (_, rest) = session.lost(Error::new(ErrorCode::BrokerLost, "gone"));
        rest.iter().for_each(note);
        for sequence in sent {
            let wanted = u32::from(!given_up.contains(&sequence));
            assert_eq!(outcomes.get(&sequence).copied().unwrap_or(0), wanted, "seed {seed}");
        }
    }
}

#[test]
fn only_a_publish_is_answered_as_one() {
    let mut session = open();
    let (asked, _) = session.send(Bytes::new(), &Send::default()).unwrap();
    let (publish, frame) = session.publish(Bytes::from("topic a\n\n")).unwrap();
    assert!(matches!(frame, Frame::Publish { head, .. } if head.sequence == publish));
    assert_ne!(asked, publish);
    let answer = |publish| {
        let at = Position { epoch: 1, number: 2 };
        Frame::Published(Published { publish, at, subscriptions: 0 })
    };
    assert!(matches!(session.receive(answer(publish)), Ok(Event::Published(_))));
    // Again, or of one that was given up.
    assert!(matches!(session.receive(answer(publish)), Ok(Event::Quiet)));
    session.receive(answer(asked)).unwrap_err();
    assert_eq!(session.under_way(), 1);
}
