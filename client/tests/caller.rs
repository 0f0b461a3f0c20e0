//! Tests of the caller against a broker that misbehaves as told, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests need clocks of their own")]

mod common;

use bytes::Bytes;
use client::address::Address;
use client::caller::{Caller, Options, Send};
use client::error::Code;
use client::protocol::bodies::{ErrorBody, LoginOk};
use client::protocol::encode;
use client::protocol::errors::{ErrorCode, Ran};
use client::protocol::frame::Frame;
use client::protocol::header::Header;
use client::protocol::ids::ClientId;
use common::{FakeBroker, Peer, TIMEOUT, beside, eventually, failed, login_ok, service};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

fn options() -> Options {
    Options { connect_timeout: TIMEOUT, ..Options::new(service("echo")) }
}

/// A caller that is logged in, and a thread that plays the broker after the login.
fn with_broker<T: std::marker::Send + 'static>(
    play: impl FnOnce(FakeBroker, Peer) -> T + std::marker::Send + 'static,
) -> (Caller, std::thread::JoinHandle<T>) {
    with_options(options(), login_ok(), play)
}

fn with_options<T: std::marker::Send + 'static>(
    options: Options,
    ok: LoginOk,
    play: impl FnOnce(FakeBroker, Peer) -> T + std::marker::Send + 'static,
) -> (Caller, std::thread::JoinHandle<T>) {
    at(FakeBroker::unix(), options, ok, play)
}

fn at<T: std::marker::Send + 'static>(
    broker: FakeBroker,
    options: Options,
    ok: LoginOk,
    play: impl FnOnce(FakeBroker, Peer) -> T + std::marker::Send + 'static,
) -> (Caller, std::thread::JoinHandle<T>) {
    let address = broker.address();
    let thread = beside(move || {
        let mut peer = broker.accept();
        peer.login();
        peer.send(Frame::LoginOk(ok));
        play(broker, peer)
    });
    (Caller::login(&[address], options).unwrap(), thread)
}

fn soon() -> Option<Duration> {
    Some(TIMEOUT)
}

#[test]
fn a_call_is_answered_over_tcp_and_over_a_unix_socket() {
    for broker in [FakeBroker::tcp(), FakeBroker::unix()] {
        let address = broker.address();
        let thread = beside(move || {
            let mut peer = broker.accept();
            let login = peer.login();
            peer.send(Frame::LoginOk(login_ok()));
            let (head, body) = peer.data();
            peer.answer(&head, "world");
            let end = (peer.frame(), peer.next());
            (login, head, body, end)
        });
        let mut options = options();
        options.name = Some("tester".into());
        options.priority = 3;
        let mut caller = Caller::login(std::slice::from_ref(&address), options).unwrap();
        assert_eq!((caller.address(), caller.limits().client.0), (Some(&address), 7));
        assert_eq!(caller.call("hello", Some(Duration::from_millis(1500))).unwrap(), "world");
        caller.logout().unwrap();
        let (login, head, body, end) = thread.join().unwrap();
        assert_eq!((login.service.as_str(), login.priority), ("echo", 3));
        assert_eq!((login.name.as_deref(), login.token), (Some("tester"), None));
        assert_eq!(login.hostpid, std::process::id());
        assert_eq!((head.reply, head.deadline_ms, &body[..]), (1, 1500, &b"hello"[..]));
        assert_eq!(end, (Frame::Logout(protocol::bodies::Logout::default()), None));
    }
}

#[test]
fn frames_that_come_byte_by_byte_are_whole_frames_in_the_end() {
    let broker = FakeBroker::tcp();
    let address = broker.address();
    let thread = beside(move || {
        let mut peer = broker.accept();
        peer.login();
        peer.dribble(Frame::LoginOk(login_ok()));
        let (head, _) = peer.data();
        let head = Header { sequence: head.sequence, ..Header::default() };
        peer.dribble(Frame::data(head, Bytes::from_static(&[9; 300])));
    });
    let mut caller = Caller::login(&[address], options()).unwrap();
    assert_eq!(caller.call("x", soon()).unwrap(), vec![9; 300]);
    thread.join().unwrap();
}

#[test]
fn a_call_collects_pieces_up_to_its_limit_and_not_one_byte_more() {
    for (size, is_taken) in [(1000, true), (1001, false)] {
        let options = Options { reply_bytes_max: 1000, ..options() };
        let (mut caller, thread) = with_options(options, login_ok(), move |_, mut peer| {
            let (head, _) = peer.data();
            let piece = |more, size| {
                let sequence = head.sequence;
                let head = Header { sequence, more, workerid: 1, ..Header::default() };
                Frame::data(head, Bytes::from(vec![1; size]))
            };
            peer.send(piece(1, 400));
            peer.send(piece(1, 0));
            peer.send(piece(0, size - 400));
            let (head, _) = peer.data();
            peer.answer(&head, "next");
        });
        let result = caller.call("x", soon());
        if is_taken {
            assert_eq!(result.unwrap().len(), size);
        } else {
            let error = failed(result, ErrorCode::BodyTooLarge);
            assert!(error.text.contains("reply_bytes_max 1000") && error.ran == Ran::Yes);
        }
        assert_eq!(caller.call("y", soon()).unwrap(), "next", "the connection is still good");
        thread.join().unwrap();
    }
}

#[test]
fn a_broker_may_name_any_number_and_a_program_any_time() {
    for n in [0, 1, u64::MAX - 1, u64::MAX] {
        let ok = LoginOk {
            client: ClientId(n as u32),
            body_bytes_max: n.max(8),
            requests_max: n.max(4),
            deadline_ms: if n == 1 { 5000 } else { n },
            heartbeat_ms: n,
            silence_ms: if n == 1 { 10_000 } else { n },
            ..login_ok()
        };
        let options = Options { connect_timeout: Duration::MAX, ..options() };
        let (mut caller, thread) = with_options(options, ok, move |_, mut peer| {
            for _ in 0..3 {
                let (head, _) = peer.data();
                let (transaction, workerid, attempt) = (n, n as u32, n as u32);
                let answer = Header { transaction, workerid, attempt, ..Header::default() };
                let answer = Header { deadline_ms: n as u32, priority: n as u8, ..answer };
                let answer = Header { sequence: head.sequence, ..answer };
                peer.send(Frame::Ping { sequence: n as u32 });
                assert_eq!(peer.frame(), Frame::Pong { sequence: n as u32 });
                peer.send(Frame::data(answer, Bytes::from_static(b"yo")));
            }
        });
        assert_eq!(caller.call("x", Some(Duration::MAX)).unwrap(), "yo");
        assert_eq!(caller.call("x", None).unwrap(), "yo");
        caller.send("x", &Send { deadline: Some(Duration::MAX), ..Send::default() }).unwrap();
        assert_eq!(caller.recv(Some(Duration::MAX)).unwrap().body, "yo");
        thread.join().unwrap();
    }
}

#[test]
fn a_request_past_the_limit_of_the_login_is_refused_before_it_leaves() {
    let ok = LoginOk { body_bytes_max: 100, ..login_ok() };
    let (mut caller, thread) = with_options(options(), ok, |_, mut peer| {
        for size in [100, 3] {
            let (head, body) = peer.data();
            assert_eq!(body.len(), size);
            peer.answer(&head, "taken");
        }
    });
    assert_eq!(caller.call(vec![1; 100], soon()).unwrap(), "taken");
    let called = failed(caller.call(vec![1; 101], soon()), ErrorCode::BodyTooLarge);
    let sent = failed(caller.send(vec![1; 101], &Send::default()), ErrorCode::BodyTooLarge);
    for error in [called, sent] {
        assert!(error.text.contains("101 bytes exceeds body_bytes_max 100"), "{error}");
        assert!(error.is_retry_safe(), "{error}");
    }
    assert_eq!(caller.call("end", soon()).unwrap(), "taken", "the connection is still good");
    thread.join().unwrap();
}

#[test]
fn a_ping_is_answered_while_waiting() {
    let (mut caller, thread) = with_broker(|_, mut peer| {
        let (head, _) = peer.data();
        peer.send(Frame::Ping { sequence: 77 });
        assert_eq!(peer.frame(), Frame::Pong { sequence: 77 });
        peer.answer(&head, "after the pong");
    });
    assert_eq!(caller.call("x", soon()).unwrap(), "after the pong");
    thread.join().unwrap();
}

#[test]
fn many_under_way_are_answered_in_any_order() {
    let (mut caller, thread) = with_broker(|_, mut peer| {
        let heads: Vec<Header> = (0..3).map(|_| peer.data().0).collect();
        for (head, text) in heads.iter().rev().zip(["c", "b", "a"]) {
            peer.answer(head, text);
        }
        let (head, _) = peer.data();
        peer.answer(&head, "d");
    });
    let sent: Vec<u32> = (0..3).map(|_| caller.send("x", &Send::default()).unwrap()).collect();
    assert_eq!(caller.under_way(), 3);
    let middle = caller.recv_from(sent[1], soon()).unwrap();
    assert_eq!((middle.sequence, &middle.body[..]), (sent[1], &b"b"[..]));
    assert_eq!(caller.call("y", soon()).unwrap(), "d", "a call does not take others' answers");
    let rest = [caller.recv(soon()).unwrap(), caller.recv(soon()).unwrap()];
    assert_eq!((rest[0].sequence, &rest[0].body[..]), (sent[2], &b"c"[..]));
    assert_eq!((rest[1].sequence, &rest[1].body[..]), (sent[0], &b"a"[..]));
    failed(caller.recv(None), ErrorCode::BadState);
    failed(caller.recv_from(sent[0], soon()), ErrorCode::BadState);
    thread.join().unwrap();
}

#[test]
fn errors_arrive_with_everything_the_broker_and_the_worker_said() {
    let (mut caller, thread) = with_broker(|_, mut peer| {
        let (head, _) = peer.data();
        let error = ErrorBody { ran: Ran::No, ..ErrorBody::new(ErrorCode::Deadline, "queued") };
        peer.send(Frame::Error { head, error });
        let (head, _) = peer.data();
        let head = Header { sequence: head.sequence, error: 42, ..Header::default() };
        peer.send(Frame::data(head, Bytes::from_static(b"no paper")));
        let (head, _) = peer.data();
        peer.error(head, ErrorCode::Intervention, "");
    });
    let error = failed(caller.call("x", soon()), ErrorCode::Deadline);
    assert!(error.is_retry_safe() && error.text == "queued");
    let error = caller.call("x", soon()).unwrap_err();
    assert_eq!((error.code, error.text.as_str()), (Code::Application(42), "no paper"));
    let error = failed(caller.call("x", soon()), ErrorCode::Intervention);
    assert_eq!(error.ran, Ran::Maybe);
    thread.join().unwrap();
}

#[test]
fn a_late_answer_is_dropped_and_not_mixed_up() {
    let (mut caller, thread) = with_broker(|_, mut peer| {
        let (first, _) = peer.data();
        assert!(matches!(peer.frame(), Frame::Cancel { .. }));
        let (second, _) = peer.data();
        peer.answer(&first, "late");
        peer.answer(&second, "in time");
        peer
    });
    let begun = Instant::now();
    let error = failed(caller.call("x", Some(Duration::from_millis(50))), ErrorCode::Timeout);
    assert!(error.ran == Ran::Maybe && begun.elapsed() >= Duration::from_millis(50));
    assert_eq!(caller.call("y", soon()).unwrap(), "in time");
    let error = failed(caller.recv(Some(Duration::from_millis(5))), ErrorCode::Timeout);
    assert!(error.text.contains("within 5 ms"), "{error}");
    thread.join().unwrap();
}

#[test]
fn a_broker_that_closes_early_leaves_each_request_its_outcome() {
    let (mut caller, thread) = with_broker(|_, mut peer| {
        let (first, _) = peer.data();
        peer.data();
        peer.data();
        peer.answer(&first, "done");
    });
    let sent: Vec<u32> = (0..3).map(|_| caller.send("x", &Send::default()).unwrap()).collect();
    let mut left = Vec::new();
    for _ in 0..3 {
        let reply = caller.recv(soon()).unwrap();
        match reply.error {
            None => assert_eq!((reply.sequence, &reply.body[..]), (sent[0], &b"done"[..])),
            Some(error) => {
                assert!(error.is(ErrorCode::BrokerLost) && error.ran == Ran::Maybe, "{error}");
                left.push(reply.sequence);
            }
        }
    }
    assert_eq!(left, sent[1..]);
    thread.join().unwrap();
    assert!(failed(caller.recv(soon()), ErrorCode::BrokerLost).is_retry_safe());
    let error = failed(caller.call("x", soon()), ErrorCode::BrokerLost);
    assert!(error.is_retry_safe() && error.is_connection(), "{error}");
    failed(caller.logout(), ErrorCode::BrokerLost);
}

#[test]
fn garbage_ends_the_connection_with_an_error_that_names_it() {
    let version = Header { version: 1, ..Header::default() }.write().to_vec();
    let large = Header { len: u32::MAX, ..Header::default() }.write().to_vec();
    let kind = Header { command: 999, ..Header::default() }.write().to_vec();
    let body_of_ping = Header { len: 1, command: 6, ..Header::default() }.write().to_vec();
    let half = encode::to_bytes(Frame::Ping { sequence: 1 })[..30].to_vec();
    for (bytes, code) in [
        (version, ErrorCode::Version),
        (large, ErrorCode::BodyTooLarge),
        (kind, ErrorCode::BadFrame),
        (body_of_ping, ErrorCode::BadFrame),
        (vec![0xff; 500], ErrorCode::Version),
        (encode::to_bytes(Frame::End).to_vec(), ErrorCode::BadState),
        (half, ErrorCode::BrokerLost),
    ] {
        let (mut caller, thread) = with_broker(move |_, mut peer| {
            peer.data();
            peer.raw(&bytes);
        });
        let error = failed(caller.call("x", soon()), code);
        assert_eq!(error.ran, Ran::Maybe, "{error}");
        failed(caller.send("x", &Send::default()), code);
        thread.join().unwrap();
    }
}

#[test]
fn why_a_login_fails_is_said_exactly() {
    let refused = |play: fn(Peer)| {
        let broker = FakeBroker::tcp();
        let address = broker.address();
        let thread = beside(move || {
            let mut peer = broker.accept();
            peer.login();
            play(peer);
        });
        let options = Options { connect_timeout: Duration::from_millis(300), ..options() };
        let error = Caller::login(&[address], options).unwrap_err();
        thread.join().unwrap();
        error
    };
    let error = refused(|mut peer| {
        peer.error(Header::default(), ErrorCode::UnknownService, "no service 'echo'");
    });
    assert!(error.is(ErrorCode::UnknownService), "{error}");
    assert!(error.to_string().starts_with("login at 127.0.0.1:"), "{error}");
    assert!(refused(drop).is(ErrorCode::BrokerLost));
    assert!(refused(|mut peer| peer.send(Frame::End)).is(ErrorCode::BadState));
    assert!(
        refused(|mut peer| peer.raw(b"HTTP/1.1 400 Bad Request\r\n\r\n".repeat(9).as_slice()))
            .is(ErrorCode::Version)
    );
    let error = refused(|mut peer| assert_eq!(peer.next(), None));
    assert!(error.is(ErrorCode::Unreachable) && error.text.contains("did not answer"), "{error}");
    let bad = Options { priority: 0, ..options() };
    failed(Caller::login(&[], bad), ErrorCode::BadLogin);
}

#[test]
fn each_address_is_tried_and_named_in_the_error() {
    let (closed, _reserved) = common::nobody_listens();
    let none = Address::Unix("/nonexistent/isect.sock".into());
    let error =
        failed(Caller::login(&[none.clone(), closed.clone()], options()), ErrorCode::Unreachable);
    assert!(error.text.contains("unix:/nonexistent/isect.sock: "), "{error}");
    assert!(error.text.contains(&closed.to_string()) && error.is_retry_safe(), "{error}");
    assert!(std::error::Error::source(&error).is_some());
    failed(Caller::login(&[], options()), ErrorCode::Unreachable);
    let broker = FakeBroker::tcp();
    let address = broker.address();
    let thread = beside(move || drop(broker.client()));
    let caller = Caller::login(&[none, closed, address.clone()], options()).unwrap();
    assert_eq!(caller.address(), Some(&address));
    thread.join().unwrap();
}

#[test]
fn both_sides_may_write_more_than_the_kernel_holds() {
    both_write(FakeBroker::tcp());
    both_write(FakeBroker::unix());
}

fn both_write(broker: FakeBroker) {
    const PIECES: usize = 24;
    const SIZE: usize = 1 << 20;
    let (mut caller, thread) = at(broker, options(), login_ok(), |_, mut peer| {
        // Echoes each piece before it reads the next; without reading ahead this would block.
        for _ in 0..PIECES {
            let (head, body) = peer.data();
            let back = Header { sequence: head.sequence, more: head.more, ..Header::default() };
            peer.send(Frame::data(back, body));
        }
    });
    let mut conversation = None;
    for at in 0..PIECES {
        let body = Bytes::from(vec![at as u8; SIZE]);
        let send = Send { more: at + 1 < PIECES, conversation, ..Send::default() };
        let sequence = caller.send(body, &send).unwrap();
        conversation = Some((sequence, 0));
    }
    for at in 0..PIECES {
        let reply = caller.recv(soon()).unwrap();
        assert!(reply.body.len() == SIZE && reply.body[SIZE / 2] == at as u8, "piece {at}");
        assert_eq!(reply.more, at + 1 < PIECES);
    }
    thread.join().unwrap();
}

#[test]
fn answers_that_nobody_takes_stop_further_requests() {
    let options = Options { reply_bytes_max: 10, ..options() };
    let (mut caller, thread) = with_options(options, login_ok(), |_, mut peer| {
        let (first, _) = peer.data();
        let (second, _) = peer.data();
        peer.answer(&first, "eleven byte");
        peer.answer(&second, "");
    });
    caller.send("x", &Send::default()).unwrap();
    caller.call("y", soon()).unwrap();
    let error = failed(caller.send("z", &Send::default()), ErrorCode::TooManyRequests);
    assert!(error.is_retry_safe() && error.text.contains("11 bytes"), "{error}");
    assert_eq!(caller.recv(soon()).unwrap().body, "eleven byte");
    thread.join().unwrap();
}

#[test]
fn a_broker_that_does_not_read_means_that_nothing_ran() {
    let ok = LoginOk { body_bytes_max: 256 << 20, ..login_ok() };
    let (given_up, wait) = std::sync::mpsc::channel::<()>();
    let (mut caller, thread) = with_options(options(), ok, move |_, mut peer| {
        wait.recv().unwrap_err();
        let mut size = 0;
        while let Ok(read @ 1..) = peer.pipe.read(&mut [0; 65_536]) {
            size += read;
        }
        size
    });
    let body = Bytes::from(vec![1; 200 << 20]);
    let error = failed(caller.call(body, Some(Duration::from_millis(100))), ErrorCode::BrokerLost);
    assert_eq!(error.ran, Ran::No, "{error}");
    drop((caller, given_up));
    assert!(thread.join().unwrap() < 200 << 20);
}

#[test]
fn why_the_broker_closed_is_told_even_if_writing_is_what_failed() {
    told_why(FakeBroker::tcp());
    told_why(FakeBroker::unix());
}

fn told_why(broker: FakeBroker) {
    let (mut caller, thread) = at(broker, options(), login_ok(), |_, mut peer| {
        peer.error(Header::default(), ErrorCode::ClientDeleted, "deleted by the operator");
    });
    thread.join().unwrap();
    // The peer is closed; whether the write or the read notices it depends on the kernel.
    let sent = caller.send("x", &Send::default()).and_then(|_| caller.recv(soon()));
    let error = match sent {
        Err(error) => error,
        Ok(reply) => reply.error.expect("an error, not an answer"),
    };
    assert!(error.is(ErrorCode::ClientDeleted), "{error}");
}

#[test]
fn after_a_loss_the_next_call_logs_in_again_if_that_is_wanted() {
    let options = Options { reconnect: true, ..options() };
    let (mut caller, thread) = with_options(options, login_ok(), |broker, mut peer| {
        let (head, _) = peer.data();
        peer.answer(&head, "one");
        drop(peer);
        let mut peer = broker.client();
        let (head, body) = peer.data();
        peer.answer(&head, "two");
        body
    });
    assert_eq!(caller.call("first", soon()).unwrap(), "one");
    // The loss of an idle connection is noticed before a request is wasted on it.
    let idle_since = Instant::now();
    eventually("the connection is quiet", || idle_since.elapsed() > Duration::from_millis(120));
    assert_eq!(caller.call("second", soon()).unwrap(), "two");
    assert_eq!(thread.join().unwrap(), "second");
}

#[test]
fn only_what_is_idempotent_is_asked_again_by_itself() {
    for idempotent in [false, true] {
        let options = Options { reconnect: true, ..options() };
        let (mut caller, thread) = with_options(options, login_ok(), |broker, mut peer| {
            peer.data();
            drop(peer);
            let mut peer = broker.client();
            let (head, body) = peer.data();
            peer.answer(&head, "again");
            body
        });
        let send = Send { idempotent, deadline: soon(), ..Send::default() };
        let result = caller.call_with("first", &send);
        if idempotent {
            assert_eq!(result.unwrap(), "again");
            assert_eq!(thread.join().unwrap(), "first");
        } else {
            assert_eq!(failed(result, ErrorCode::BrokerLost).ran, Ran::Maybe);
            assert_eq!(caller.call("second", soon()).unwrap(), "again");
            assert_eq!(thread.join().unwrap(), "second");
        }
    }
}

#[test]
fn what_may_have_run_before_it_was_asked_again_is_never_said_not_to_have_run() {
    let options = Options { reconnect: true, ..options() };
    let (mut caller, thread) = with_options(options, login_ok(), |broker, mut peer| {
        // A worker may have the request by now.
        peer.data();
        drop(peer);
        let mut peer = broker.client();
        let (head, _) = peer.data();
        let error = ErrorBody { ran: Ran::No, ..ErrorBody::new(ErrorCode::Deadline, "queued") };
        peer.send(Frame::Error { head, error });
    });
    let send = Send { idempotent: true, deadline: soon(), ..Send::default() };
    let error = failed(caller.call_with("x", &send), ErrorCode::Deadline);
    assert_eq!(error.ran, Ran::Maybe, "{error}");
    thread.join().unwrap();
}

#[test]
fn a_broker_that_closes_after_each_login_is_not_tried_without_end() {
    let broker = FakeBroker::unix();
    let address = broker.address();
    let logins = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&logins);
    let _thread = beside(move || {
        loop {
            let mut peer = broker.accept();
            counted.fetch_add(1, Ordering::SeqCst);
            peer.login();
            peer.send(Frame::LoginOk(login_ok()));
            peer.data();
        }
    });
    let options = Options { reconnect: true, ..options() };
    let mut caller = Caller::login(&[address], options).unwrap();
    let deadline = Some(Duration::from_secs(1));
    let send = Send { idempotent: true, deadline, ..Send::default() };
    let error = caller.call_with("x", &send).unwrap_err();
    assert!(error.is_connection() || error.is(ErrorCode::Timeout), "{error}");
    let logins = logins.load(Ordering::SeqCst);
    assert!((2..20).contains(&logins), "{logins} logins in a second");
}

#[test]
fn coming_back_ends_with_the_deadline() {
    let options = Options { reconnect: true, ..options() };
    let (mut caller, thread) = with_options(options, login_ok(), |_, peer| drop(peer));
    thread.join().unwrap();
    let begun = Instant::now();
    let send =
        Send { idempotent: true, deadline: Some(Duration::from_millis(300)), ..Send::default() };
    let error = caller.call_with("x", &send).unwrap_err();
    assert!(error.is_connection(), "{error}");
    assert!(begun.elapsed() < TIMEOUT / 2);
}

#[test]
fn without_a_deadline_coming_back_ends_where_connections_are_taken_and_dropped() {
    let options =
        Options { reconnect: true, connect_timeout: Duration::from_millis(200), ..options() };
    let (is_over, over) = std::sync::mpsc::channel::<()>();
    let ok = LoginOk { deadline_ms: 0, ..login_ok() };
    let (mut caller, thread) = with_options(options, ok, move |broker, mut peer| {
        peer.data();
        drop(peer);
        let mut count = 0;
        // The test's own connection is the last one.
        while over.try_recv().is_err() {
            broker.accept();
            count += 1;
        }
        count
    });
    let begun = Instant::now();
    let address = caller.address().cloned().expect("it is connected");
    let send = Send { idempotent: true, ..Send::default() };
    let error = caller.call_with("x", &send).unwrap_err();
    assert!(error.is_connection() && error.ran == Ran::Maybe, "{error}");
    assert!(begun.elapsed() < TIMEOUT / 2);
    is_over.send(()).unwrap();
    let _ = Caller::login(&[address], self::options());
    assert!(thread.join().unwrap() > 1);
}

#[test]
fn a_reason_that_passes_is_no_reason_to_give_a_request_up() {
    for (code, is_asked_again) in [(ErrorCode::ShuttingDown, true), (ErrorCode::BadFrame, false)] {
        let options = Options { reconnect: true, ..options() };
        let (mut caller, thread) = with_options(options, login_ok(), move |broker, mut peer| {
            peer.data();
            peer.error(Header::default(), code, "for this reason");
            drop(peer);
            if is_asked_again {
                let mut peer = broker.client();
                let (head, _) = peer.data();
                peer.answer(&head, "again");
            }
        });
        let send = Send { idempotent: true, deadline: soon(), ..Send::default() };
        let result = caller.call_with("x", &send);
        match is_asked_again {
            true => assert_eq!(result.unwrap(), "again"),
            false => assert_eq!(failed(result, code).ran, Ran::Maybe),
        }
        thread.join().unwrap();
    }
}

#[test]
fn a_conversation_goes_back_and_forth_with_its_worker() {
    let (mut caller, thread) = with_broker(|_, mut peer| {
        let (first, _) = peer.data();
        let ask = Header { sequence: first.sequence, more: 1, workerid: 4, ..Header::default() };
        peer.send(Frame::data(ask, Bytes::from_static(b"which?")));
        let (second, body) = peer.data();
        peer.answer(&first, "that");
        (first, second, body)
    });
    let sequence = caller.send("give", &Send::default()).unwrap();
    let question = caller.recv(soon()).unwrap();
    assert!(question.more && question.worker == 4);
    let send = Send { conversation: Some((sequence, question.worker)), ..Send::default() };
    caller.send("this one", &send).unwrap();
    assert_eq!(caller.recv(soon()).unwrap().body, "that");
    failed(caller.send("more", &send), ErrorCode::NoConversation);
    let (first, second, body) = thread.join().unwrap();
    assert_eq!(
        (second.sequence, second.workerid, &body[..]),
        (first.sequence, 4, &b"this one"[..])
    );
}
