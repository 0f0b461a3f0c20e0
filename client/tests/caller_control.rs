//! Tests of what a caller says about its requests: cancel, flush, the end of what it sends, logout.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use bytes::Bytes;
use client::caller::{Caller, Options, Send};
use client::protocol::bodies::{Flushed, Logout};
use client::protocol::errors::{ErrorCode, Ran};
use client::protocol::frame::Frame;
use client::protocol::header::Header;
use common::{FakeBroker, Peer, TIMEOUT, beside, failed, login_ok, service};
use std::thread::JoinHandle;
use std::time::Duration;

const SILENT: Duration = Duration::from_millis(50);

fn options() -> Options {
    Options { connect_timeout: TIMEOUT, ..Options::new(service("echo")) }
}

/// A caller that is logged in, and a thread that plays the broker after the login.
fn with_options<T: std::marker::Send + 'static>(
    options: Options,
    play: impl FnOnce(Peer) -> T + std::marker::Send + 'static,
) -> (Caller, JoinHandle<T>) {
    let broker = FakeBroker::unix();
    let address = broker.address();
    let thread = beside(move || play(broker.client()));
    (Caller::login(&[address], options).unwrap(), thread)
}

fn soon() -> Option<Duration> {
    Some(TIMEOUT)
}

fn one_way() -> Send {
    Send { reply: false, ..Send::default() }
}

fn cancelled(peer: &mut Peer) -> u32 {
    match peer.frame() {
        Frame::Cancel { head, .. } => head.sequence,
        other => panic!("{other:?} is no cancel"),
    }
}

fn flush(peer: &mut Peer) -> u32 {
    match peer.frame() {
        Frame::Flush { sequence } => sequence,
        other => panic!("{other:?} is no flush"),
    }
}

#[test]
fn a_cancelled_request_ends_with_the_error_that_the_broker_gives() {
    let (mut caller, thread) = with_options(options(), |mut peer| {
        let (head, _) = peer.data();
        assert_eq!(cancelled(&mut peer), head.sequence);
        peer.error(head, ErrorCode::Cancelled, "its caller gave it up");
        assert_eq!(cancelled(&mut peer), head.sequence);
    });
    let sequence = caller.send("x", &Send::default()).unwrap();
    caller.cancel(sequence).unwrap();
    assert_eq!(caller.under_way(), 1, "its outcome is still to come");
    let reply = caller.recv(soon()).unwrap();
    let error = reply.error.unwrap();
    assert!(reply.sequence == sequence && error.is(ErrorCode::Cancelled), "{error}");
    caller.cancel(sequence).unwrap();
    thread.join().unwrap();
    failed(caller.recv(soon()), ErrorCode::BrokerLost);
    failed(caller.cancel(sequence), ErrorCode::BrokerLost);
}

#[test]
fn a_call_that_comes_too_late_or_is_given_up_is_cancelled() {
    let (mut caller, thread) = with_options(options(), |mut peer| {
        let (late, _) = peer.data();
        assert_eq!(cancelled(&mut peer), late.sequence);
        let (given_up, _) = peer.data();
        assert_eq!(cancelled(&mut peer), given_up.sequence);
        let (last, _) = peer.data();
        for head in [late, given_up] {
            peer.error(head, ErrorCode::Cancelled, "its caller gave it up");
        }
        peer.answer(&last, "last");
    });
    let error = failed(caller.call("x", Some(Duration::from_millis(1))), ErrorCode::Timeout);
    assert_eq!(error.ran, Ran::Maybe);
    let sequence = caller.send("x", &Send::default()).unwrap();
    caller.give_up(sequence);
    caller.give_up(sequence);
    assert_eq!(caller.call("x", soon()).unwrap(), "last");
    assert_eq!(caller.under_way(), 0);
    thread.join().unwrap();
}

#[test]
fn an_answer_that_grows_too_large_is_cancelled() {
    let options = Options { reply_bytes_max: 10, ..options() };
    let (mut caller, thread) = with_options(options, |mut peer| {
        let (head, _) = peer.data();
        let head = Header { sequence: head.sequence, more: 1, ..Header::default() };
        peer.send(Frame::data(head, Bytes::from_static(b"eleven byte")));
        assert_eq!(cancelled(&mut peer), head.sequence);
    });
    failed(caller.call("x", soon()), ErrorCode::BodyTooLarge);
    thread.join().unwrap();
}

#[test]
fn an_extendable_call_waits_for_as_long_as_its_worker_says() {
    let (mut caller, thread) = with_options(options(), |mut peer| {
        let (head, _) = peer.data();
        assert_eq!((head.flags, head.deadline_ms), (2, 1));
        let piece = Header { sequence: head.sequence, more: 1, ..Header::default() };
        let put_off = Header { deadline_ms: 20_000, ..piece };
        peer.send(Frame::data(put_off, Bytes::from_static(b"wait ")));
        // Longer than the deadline and the time that a caller waits past it.
        peer.waits_for_nothing(Duration::from_millis(700));
        peer.answer(&head, "for it");
    });
    let deadline = Some(Duration::from_millis(1));
    let send = Send { extendable: true, deadline, ..Send::default() };
    assert_eq!(caller.call_with("x", &send).unwrap(), "wait for it");
    thread.join().unwrap();
}

#[test]
fn a_flush_waits_until_all_was_taken_and_counts_what_was_refused() {
    let (mut caller, thread) = with_options(options(), |mut peer| {
        let (head, _) = peer.data();
        peer.data();
        let number = flush(&mut peer);
        peer.send(Frame::Ping { sequence: 3 });
        assert_eq!(peer.frame(), Frame::Pong { sequence: 3 });
        peer.answer(&head, "meanwhile");
        peer.send(Frame::Flushed(Flushed { flush: number, refused: 1 }));
        // One that is answered too late.
        let late = flush(&mut peer);
        let number = flush(&mut peer);
        peer.send(Frame::Flushed(Flushed { flush: late, refused: 2 }));
        peer.send(Frame::Flushed(Flushed { flush: number, refused: 3 }));
        flush(&mut peer);
    });
    caller.send("x", &Send::default()).unwrap();
    caller.send("y", &one_way()).unwrap();
    assert_eq!(caller.flush(soon()).unwrap(), 1);
    assert_eq!(caller.recv(soon()).unwrap().body, "meanwhile");
    let error = failed(caller.flush(Some(SILENT)), ErrorCode::Timeout);
    assert!(error.text.contains("after 50 ms"), "{error}");
    assert_eq!(caller.flush(soon()).unwrap(), 5);
    failed(caller.flush(soon()), ErrorCode::BrokerLost);
    thread.join().unwrap();
}

#[test]
fn a_logout_flushes_what_wants_no_answer_first_and_only_that() {
    let (mut caller, thread) = with_options(options(), |mut peer| {
        peer.data();
        let number = flush(&mut peer);
        peer.send(Frame::Flushed(Flushed { flush: number, refused: 1 }));
        assert_eq!((peer.frame(), peer.next()), (Frame::Logout(Logout::default()), None));
    });
    caller.send("x", &one_way()).unwrap();
    assert_eq!(caller.logout().unwrap(), 1);
    thread.join().unwrap();

    let (mut caller, thread) = with_options(options(), |mut peer| {
        peer.data();
        assert_eq!((peer.frame(), peer.next()), (Frame::Logout(Logout::default()), None));
    });
    caller.send("x", &Send::default()).unwrap();
    assert_eq!(caller.logout().unwrap(), 0);
    thread.join().unwrap();

    let short = Options { flush_timeout: SILENT, ..options() };
    let (mut caller, thread) = with_options(short, |mut peer| {
        peer.data();
        flush(&mut peer);
        assert_eq!((peer.frame(), peer.next()), (Frame::Logout(Logout::default()), None));
    });
    caller.send("x", &one_way()).unwrap();
    failed(caller.logout(), ErrorCode::Timeout);
    thread.join().unwrap();
}

#[test]
fn a_client_that_sends_nothing_more_still_gets_its_answers() {
    for broker in [FakeBroker::tcp(), FakeBroker::unix()] {
        let address = broker.address();
        let thread = beside(move || {
            let mut peer = broker.accept();
            assert!(peer.login().half_close);
            peer.send(Frame::LoginOk(login_ok()));
            let heads: Vec<Header> = (0..3).map(|_| peer.data().0).collect();
            assert_eq!(peer.next(), None, "its side is shut, and nothing is answered yet");
            peer.send(Frame::Ping { sequence: 1 });
            for (head, text) in heads.iter().rev().zip(["c", "b", "a"]) {
                peer.answer(head, text);
            }
        });
        let mut caller =
            Caller::login(&[address], Options { half_close: true, ..options() }).unwrap();
        for _ in 0..3 {
            caller.send("x", &Send::default()).unwrap();
        }
        caller.finish_sending().unwrap();
        failed(caller.send("x", &Send::default()), ErrorCode::BadState);
        failed(caller.ping(), ErrorCode::BadState);
        let mut got = Vec::new();
        while caller.under_way() > 0 {
            got.push(caller.recv(soon()).unwrap().body);
        }
        assert_eq!(got, ["c", "b", "a"]);
        caller.logout().unwrap();
        thread.join().unwrap();
    }
}

#[test]
fn nothing_can_come_once_all_is_answered_and_the_side_is_shut() {
    let half_close = Options { half_close: true, ..options() };
    let (mut caller, thread) = with_options(half_close, |mut peer| {
        let (head, _) = peer.data();
        peer.answer(&head, "x");
        assert_eq!(peer.next(), None);
        peer
    });
    caller.call("x", soon()).unwrap();
    caller.finish_sending().unwrap();
    failed(caller.recv(soon()), ErrorCode::BadState);
    drop(thread.join().unwrap());

    let (mut caller, thread) = with_options(options(), |mut peer| peer.next());
    let error = failed(caller.finish_sending(), ErrorCode::BadState);
    assert!(error.text.contains("set it in the options"), "{error}");
    caller.logout().unwrap();
    assert_eq!(thread.join().unwrap(), Some(Frame::Logout(Logout::default())));
}
