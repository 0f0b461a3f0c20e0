//! Tests of workers that are told that nobody waits, that put a deadline off, and that log out.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use bytes::Bytes;
use client::error::Error;
use client::protocol::bodies::Logout;
use client::protocol::errors::{ErrorCode, Ran};
use client::protocol::frame::Frame;
use client::protocol::header::Header;
use client::protocol::ids::WorkerId;
use client::worker::{Worker, WorkerOptions};
use common::{FakeBroker, Peer, beside, service, worker_login_ok};
use std::thread::JoinHandle;
use std::time::Duration;

/// A worker on its own thread, and the broker's end of its connection.
fn with_worker(work: fn(Worker) -> Result<(), Error>) -> (Peer, JoinHandle<Result<(), Error>>) {
    let (broker, thread) = at_broker(work);
    (broker.worker(worker_login_ok()), thread)
}

fn at_broker(work: fn(Worker) -> Result<(), Error>) -> (FakeBroker, JoinHandle<Result<(), Error>>) {
    let broker = FakeBroker::unix();
    let base = WorkerOptions::self_started(broker.address(), service("echo"));
    let options = WorkerOptions { worker: WorkerId(3), secret: "s3cret".into(), ..base };
    let thread = beside(move || work(Worker::connect(options)?));
    (broker, thread)
}

fn cancel(peer: &mut Peer, transaction: u64, code: ErrorCode) {
    let head = Header { transaction, error: code.number(), ..Header::default() };
    peer.send(Frame::Cancel { head, text: "its caller gave it up".into() });
}

fn logout(received: u32) -> Frame {
    Frame::Logout(Logout { received: Some(received) })
}

fn answered(peer: &mut Peer, transaction: u64) -> Bytes {
    let (head, body) = peer.data();
    assert_eq!((head.transaction, head.more, head.error), (transaction, 0, 0));
    body
}

#[test]
fn a_worker_announces_that_it_understands_cancel_and_takes_one_request() {
    let (broker, thread) = at_broker(|mut worker| {
        assert!(worker.next()?.is_none());
        Ok(())
    });
    let mut peer = broker.accept();
    let login = peer.worker_login();
    assert!(login.cancel && login.concurrency == 1);
    peer.send(Frame::WorkerLoginOk(worker_login_ok()));
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_cancel_says_why_nobody_waits_and_ends_what_is_held() {
    let (mut peer, thread) = with_worker(|mut worker| {
        let request = worker.next()?.unwrap();
        worker.reply_piece(request.body)?;
        assert!(worker.next_piece()?.is_none());
        let why = worker.over().unwrap();
        assert!(why.is(ErrorCode::Cancelled) && why.ran == Ran::Maybe, "{why}");
        assert_eq!(why.text, "its caller gave it up");
        worker.reply("too late")?;
        let request = worker.next()?.unwrap();
        assert!(worker.over().is_none());
        worker.reply(request.body)?;
        assert!(worker.next()?.is_none());
        Ok(())
    });
    peer.request(1, "first", true);
    assert_eq!(peer.data().1, "first");
    peer.request(2, "held", true);
    peer.request(3, "third", false);
    cancel(&mut peer, 2, ErrorCode::Deadline);
    cancel(&mut peer, 1, ErrorCode::Cancelled);
    // In the order in which they came.
    for transaction in [1, 2] {
        let (head, _) = peer.data();
        assert_eq!((head.transaction, head.more, head.error), (transaction, 0, 1));
    }
    assert_eq!(answered(&mut peer, 3), "third");
    // Pieces that crossed the cancel belong to nothing.
    peer.request(2, "crossed", false);
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_cancel_of_nothing_is_passed_over_and_one_without_a_transaction_is_refused() {
    let (mut peer, thread) = with_worker(|mut worker| {
        let request = worker.next()?.unwrap();
        worker.reply(request.body)?;
        worker.next().map(drop)
    });
    cancel(&mut peer, 77, ErrorCode::Cancelled);
    peer.request(1, "first", false);
    assert_eq!(answered(&mut peer, 1), "first");
    cancel(&mut peer, 1, ErrorCode::Cancelled);
    cancel(&mut peer, 0, ErrorCode::Cancelled);
    assert!(thread.join().unwrap().unwrap_err().is(ErrorCode::BadState));
}

#[test]
fn a_conversation_is_over_when_the_broker_sends_nothing_more() {
    let (mut peer, thread) = with_worker(|mut worker| {
        worker.next()?.unwrap();
        worker.reply_piece("go on")?;
        assert!(worker.next_piece()?.is_none());
        assert!(worker.over().is_some_and(|why| why.is(ErrorCode::ConversationEnded)));
        assert!(worker.next()?.is_none());
        Ok(())
    });
    peer.request(1, "", false);
    assert_eq!(peer.data().1, "go on");
    peer.send(Frame::End);
    peer.pipe.end_writing();
    let (head, _) = peer.data();
    assert_eq!((head.transaction, head.more, head.error), (1, 0, 1));
    thread.join().unwrap().unwrap();
}

#[test]
fn a_piece_says_when_the_next_one_comes() {
    let (mut peer, thread) = with_worker(|mut worker| {
        let request = worker.next()?.unwrap();
        assert!(request.extendable());
        worker.reply_piece_within("working", Duration::from_millis(1500))?;
        worker.reply_piece("still")?;
        worker.reply_piece_within("", Duration::MAX)?;
        worker.reply("done")?;
        assert!(!worker.next()?.unwrap().extendable());
        worker.logout();
        Ok(())
    });
    let head = Header { transaction: 1, flags: 2, deadline_ms: 1000, ..Header::default() };
    peer.send(Frame::data(head, Bytes::new()));
    for (text, more, deadline_ms) in
        [("working", 1, 1500), ("still", 1, 0), ("", 1, 3_600_000), ("done", 0, 0)]
    {
        let (head, body) = peer.data();
        assert_eq!((head.more, head.deadline_ms, &body[..]), (more, deadline_ms, text.as_bytes()));
    }
    peer.request(2, "", false);
    assert_eq!(peer.frame(), logout(2));
    drop(peer);
    thread.join().unwrap().unwrap();
}

#[test]
fn what_crosses_a_logout_is_never_given_to_the_program() {
    let (mut peer, thread) = with_worker(|mut worker| {
        let request = worker.next()?.unwrap();
        worker.reply_and_logout(request.body)?;
        assert!(worker.next()?.is_none());
        Ok(())
    });
    peer.request(1, "first", false);
    // Held, and begun by nobody.
    peer.request(2, "second", false);
    // One write: the logout first, so that the reply brings no request.
    let mut bytes = [0; 65_536];
    let size = peer.pipe.read(&mut bytes).unwrap();
    peer.push(&bytes[..size]);
    assert_eq!(peer.buffered(), Some(logout(1)));
    let reply = peer.buffered();
    assert!(matches!(reply, Some(Frame::Data { head, .. }) if head.transaction == 1));
    peer.request(3, "crossed", false);
    peer.send(Frame::Ping { sequence: 5 });
    assert_eq!(peer.frame(), Frame::Pong { sequence: 5 });
    peer.send(Frame::End);
    assert_eq!(peer.next(), None, "nothing more, and the worker closes behind the end");
    thread.join().unwrap().unwrap();
}

#[test]
fn a_large_last_reply_is_whole() {
    let (mut peer, thread) = with_worker(|mut worker| {
        let request = worker.next()?.unwrap();
        assert_eq!(request.body, "x");
        worker.reply_and_logout(vec![7; 3 << 20])
    });
    peer.request(1, "x", false);
    let mut size = 0;
    loop {
        match peer.frame() {
            Frame::Logout(logout) => assert_eq!(logout.received, Some(1)),
            Frame::Data { head, body } => {
                size += body.len();
                if head.more == 0 {
                    break;
                }
            }
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(size, 3 << 20);
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_worker_that_ends_after_some_requests_counts_those_of_each_connection() {
    let (broker, thread) = at_broker(|mut worker| {
        worker.end_after(3);
        while let Some(request) = worker.next()? {
            match &request.body[..] {
                b"fail" => worker.fail(7, "as asked")?,
                _ => worker.reply(request.body)?,
            }
        }
        assert!(worker.next()?.is_none());
        Ok(())
    });
    let mut peer = broker.worker(worker_login_ok());
    peer.request(1, "a", false);
    assert_eq!(answered(&mut peer, 1), "a");
    drop(peer);
    let mut peer = broker.worker(worker_login_ok());
    peer.request(2, "b", false);
    assert_eq!(answered(&mut peer, 2), "b");
    peer.request(3, "fail", false);
    peer.request(4, "too much", false);
    assert_eq!(peer.frame(), logout(2));
    assert_eq!(peer.data().0.error, 7);
    peer.send(Frame::End);
    assert_eq!(peer.next(), None);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_worker_that_ends_before_its_first_request_says_that_it_got_none() {
    let (mut peer, thread) = with_worker(|mut worker| {
        worker.end_after(0);
        assert!(worker.next()?.is_none());
        Ok(())
    });
    assert_eq!(peer.frame(), logout(0));
    peer.request(1, "crossed", false);
    peer.send(Frame::End);
    assert_eq!(peer.next(), None);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_broker_that_never_says_the_end_is_waited_for_two_seconds() {
    let (mut peer, thread) = with_worker(|worker| {
        worker.logout();
        Ok(())
    });
    assert_eq!(peer.frame(), logout(0));
    // A silent broker is pinged meanwhile.
    assert_eq!(peer.frame(), Frame::Ping { sequence: 0 });
    assert_eq!(peer.next(), None);
    thread.join().unwrap().unwrap();
}
