//! Tests of the worker against a broker that misbehaves as told, over real sockets.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests need clocks of their own")]

mod common;

use bytes::Bytes;
use client::address::Address;
use client::error::Error;
use client::protocol::bodies::WorkerLoginOk;
use client::protocol::encode;
use client::protocol::errors::ErrorCode;
use client::protocol::frame::Frame;
use client::protocol::header::Header;
use client::protocol::ids::WorkerId;
use client::worker::{Worker, WorkerOptions};
use common::{FakeBroker, Peer, beside, failed, service, worker_login_ok};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

fn options(address: Address) -> WorkerOptions {
    let base = WorkerOptions::self_started(address, service("echo"));
    WorkerOptions { worker: WorkerId(3), secret: "s3cret".into(), ..base }
}

/// A worker on its own thread, and the broker's end of its connection.
fn with_worker(
    broker: &FakeBroker,
    ok: WorkerLoginOk,
    work: fn(&mut Worker) -> Result<(), Error>,
) -> (Peer, JoinHandle<Result<(), Error>>) {
    let options = options(broker.address());
    let thread = beside(move || work(&mut Worker::connect(options)?));
    (broker.worker(ok), thread)
}

fn echo(worker: &mut Worker) -> Result<(), Error> {
    while let Some(request) = worker.next()? {
        let mut piece = request;
        loop {
            if !piece.more() {
                worker.reply(piece.body)?;
                break;
            }
            worker.reply_piece(piece.body)?;
            match worker.next_piece()? {
                Some(next) => piece = next,
                None => break,
            }
        }
    }
    Ok(())
}

fn answered(peer: &mut Peer, transaction: u64) -> Bytes {
    let (head, body) = peer.data();
    assert_eq!((head.transaction, head.more, head.error), (transaction, 0, 0));
    body
}

#[test]
fn a_request_is_answered_with_its_own_numbers() {
    for broker in [FakeBroker::tcp(), FakeBroker::unix()] {
        let options = options(broker.address());
        assert!(!format!("{options:?}").contains("s3cret"));
        let thread = beside(move || echo(&mut Worker::connect(options)?));
        let mut peer = broker.accept();
        let login = peer.worker_login();
        assert_eq!((login.worker, login.service.as_str()), (WorkerId(3), "echo"));
        assert_eq!((login.secret.as_str(), login.hostpid), ("s3cret", std::process::id()));
        peer.send(Frame::WorkerLoginOk(worker_login_ok()));
        let head = Header {
            sequence: 5,
            transaction: 6,
            reply: 1,
            deadline_ms: 100,
            attempt: 1,
            trace_id: [7; 16],
            span_id: 8,
            ..Header::default()
        };
        peer.send(Frame::data(head, Bytes::from_static(b"hi")));
        let (back, body) = peer.data();
        assert_eq!((back.sequence, back.transaction, back.workerid), (5, 6, 3));
        assert_eq!((back.trace_id, back.span_id, &body[..]), ([7; 16], 8, &b"hi"[..]));
        peer.send(Frame::End);
        thread.join().unwrap().unwrap();
        assert_eq!(peer.next(), None);
    }
}

#[test]
fn requests_that_came_before_the_end_are_still_answered() {
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), echo);
    peer.request(1, "a", false);
    peer.request(2, "b", false);
    peer.send(Frame::End);
    peer.pipe.end_writing();
    assert_eq!(answered(&mut peer, 1), "a");
    assert_eq!(answered(&mut peer, 2), "b");
    thread.join().unwrap().unwrap();
}

#[test]
fn frames_that_come_byte_by_byte_are_whole_frames_in_the_end() {
    let broker = FakeBroker::tcp();
    let options = options(broker.address());
    let thread = beside(move || echo(&mut Worker::connect(options)?));
    let mut peer = broker.accept();
    peer.worker_login();
    peer.dribble(Frame::WorkerLoginOk(worker_login_ok()));
    let head = Header { transaction: 1, ..Header::default() };
    peer.dribble(Frame::data(head, Bytes::from_static(&[7; 200])));
    assert_eq!(answered(&mut peer, 1), vec![7; 200]);
    peer.dribble(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn pieces_and_large_bodies_pass_through_whole() {
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), echo);
    let sizes = [1 << 20, 70_000, 0, 1, 65_536, 65_600];
    for (at, size) in sizes.into_iter().enumerate() {
        let more = at + 1 < sizes.len();
        let body: Vec<u8> = (0..size).map(|byte| (byte % 253) as u8).collect();
        peer.request(9, body.clone(), more);
        let (head, back) = peer.data();
        assert_eq!((head.transaction, head.more), (9, u16::from(more)));
        assert!(back == body, "piece {at}");
    }
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn an_answer_larger_than_a_frame_leaves_in_pieces() {
    let ok = WorkerLoginOk { body_bytes_max: 1000, ..worker_login_ok() };
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), ok, |worker| {
        assert_eq!(worker.body_bytes_max(), 1000);
        while worker.next()?.is_some() {
            worker.reply(vec![1; 2001])?;
        }
        Ok(())
    });
    peer.request(1, "", false);
    let sizes: Vec<(usize, u16)> =
        (0..3).map(|_| peer.data()).map(|(head, body)| (body.len(), head.more)).collect();
    assert_eq!(sizes, [(1000, 1), (1000, 1), (1, 0)]);
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn pings_status_and_reinit_are_served_between_requests() {
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), |worker| {
        let asked = std::sync::Arc::new(std::sync::atomic::AtomicU32::new(0));
        let seen = asked.clone();
        worker.on_reinit(move || {
            asked.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        });
        worker.on_status(move || {
            format!("read again {} times", seen.load(std::sync::atomic::Ordering::Relaxed))
        });
        echo(worker)
    });
    peer.send(Frame::Ping { sequence: 5 });
    assert_eq!(peer.frame(), Frame::Pong { sequence: 5 });
    peer.send(Frame::Reinit);
    peer.send(Frame::Status { sequence: 6 });
    let text = "read again 1 times".to_owned();
    assert_eq!(peer.frame(), Frame::StatusReply { sequence: 6, text });
    peer.send(Frame::Pong { sequence: 9 });
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn after_a_loss_it_logs_in_again_and_drops_the_old_answer() {
    let broker = FakeBroker::tcp();
    let (mut peer, thread) = with_worker(&broker, worker_login_ok(), echo);
    peer.request(1, "a", false);
    assert_eq!(answered(&mut peer, 1), "a");
    peer.request(2, "b", true);
    assert_eq!(peer.data().1, "b");
    drop(peer);
    let mut peer = broker.accept();
    let login = peer.worker_login();
    assert_eq!((login.worker, login.secret.as_str()), (WorkerId(3), "s3cret"));
    peer.send(Frame::WorkerLoginOk(worker_login_ok()));
    peer.request(2, "b again", false);
    assert_eq!(answered(&mut peer, 2), "b again");
    // During the restart, connections are accepted and dropped, or refused for a while.
    drop(peer);
    drop(broker.accept());
    let mut peer = broker.accept();
    peer.worker_login();
    peer.error(Header::default(), ErrorCode::ShuttingDown, "not yet");
    drop(peer);
    let mut peer = broker.worker(worker_login_ok());
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_broker_that_closes_after_each_login_is_not_tried_without_end() {
    let broker = FakeBroker::tcp();
    let (peer, thread) = with_worker(&broker, worker_login_ok(), echo);
    drop(peer);
    let begun = Instant::now();
    for _ in 0..5 {
        drop(broker.worker(worker_login_ok()));
    }
    // Each wait is at least half of 50, 100, 200, 400 and 800 ms.
    assert!(begun.elapsed() >= Duration::from_millis(775), "{:?}", begun.elapsed());
    let mut peer = broker.worker(worker_login_ok());
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_refused_login_ends_the_worker() {
    let broker = FakeBroker::tcp();
    let refuse = |broker: &FakeBroker| {
        let mut peer = broker.accept();
        peer.worker_login();
        peer.error(Header::default(), ErrorCode::BadWorkerLogin, "worker 3 was deleted");
    };
    let (peer, thread) = with_worker(&broker, worker_login_ok(), echo);
    drop(peer);
    refuse(&broker);
    let error = failed(thread.join().unwrap(), ErrorCode::BadWorkerLogin);
    assert!(error.text.contains("deleted"), "{error}");
    let (mut peer, thread) = with_worker(&broker, worker_login_ok(), echo);
    peer.error(Header::default(), ErrorCode::BadWorkerLogin, "worker 3 was deleted");
    failed(thread.join().unwrap(), ErrorCode::BadWorkerLogin);
    let options = options(broker.address());
    let thread = beside(move || Worker::connect(options).map(drop));
    refuse(&broker);
    failed(thread.join().unwrap(), ErrorCode::BadWorkerLogin);
}

#[test]
fn a_broker_that_stays_away_ends_the_worker_in_time() {
    let broker = FakeBroker::unix();
    let ok = WorkerLoginOk { reconnect_ms: 100, ..worker_login_ok() };
    let (peer, thread) = with_worker(&broker, ok, echo);
    drop((peer, broker));
    failed(thread.join().unwrap(), ErrorCode::Unreachable);
    let broker = FakeBroker::unix();
    let ok = WorkerLoginOk { reconnect_ms: 0, ..worker_login_ok() };
    let (peer, thread) = with_worker(&broker, ok, echo);
    drop(peer);
    failed(thread.join().unwrap(), ErrorCode::BrokerLost);
}

#[test]
fn a_broker_may_name_any_number() {
    for n in [0, 1, u64::MAX - 1, u64::MAX] {
        let broker = FakeBroker::unix();
        // 0 would mean: do not come back.
        let reconnect_ms = n.max(30_000);
        let ok = WorkerLoginOk {
            worker: WorkerId(n as u32),
            body_bytes_max: n.max(1),
            heartbeat_ms: n,
            silence_ms: if n == 1 { 10_000 } else { n },
            reconnect_ms,
            concurrency: 1,
            signature: None,
        };
        let (mut peer, thread) = with_worker(&broker, ok.clone(), echo);
        let head = Header {
            sequence: n as u32,
            transaction: n.max(1),
            deadline_ms: n as u32,
            attempt: n as u32,
            workerid: n as u32,
            priority: n as u8,
            reply: 1,
            ..Header::default()
        };
        peer.send(Frame::data(head, Bytes::from_static(b"x")));
        assert_eq!(peer.data().0.transaction, n.max(1));
        drop(peer);
        let mut peer = broker.worker(ok);
        peer.send(Frame::Status { sequence: n as u32 });
        peer.send(Frame::End);
        thread.join().unwrap().unwrap();
    }
    let options = WorkerOptions {
        start_timeout: Duration::MAX,
        connect_timeout: Duration::MAX,
        ..options(FakeBroker::unix().address())
    };
    let broker = FakeBroker::unix();
    let options = WorkerOptions { address: broker.address(), ..options };
    let thread = beside(move || echo(&mut Worker::connect(options)?));
    broker.worker(worker_login_ok()).send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_self_started_worker_may_wait_for_its_broker() {
    let broker = FakeBroker::unix();
    let address = broker.address();
    let nobody = FakeBroker::unix().address();
    failed(Worker::connect(options(nobody)).map(drop), ErrorCode::Unreachable);
    let options = WorkerOptions { start_timeout: Duration::from_secs(20), ..options(address) };
    let thread = beside(move || echo(&mut Worker::connect(options)?));
    drop(broker.accept());
    broker.worker(worker_login_ok()).send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn garbage_ends_the_worker_with_an_error_that_names_it() {
    for (frame, code) in [
        (vec![0xff; 100], ErrorCode::Version),
        (Header { len: u32::MAX, ..Header::default() }.write().to_vec(), ErrorCode::BodyTooLarge),
        (
            encode::to_bytes(Frame::Logout(protocol::bodies::Logout::default())).to_vec(),
            ErrorCode::BadState,
        ),
    ] {
        let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), echo);
        peer.raw(&frame);
        failed(thread.join().unwrap(), code);
    }
}

#[test]
fn a_request_must_be_answered_before_the_next() {
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), |worker| {
        failed(worker.reply("nothing to answer"), ErrorCode::BadState);
        assert!(worker.next_piece()?.is_none());
        worker.next()?;
        failed(worker.fail(0, "zero"), ErrorCode::BadReply);
        failed(worker.fail(-1, "isect's"), ErrorCode::BadReply);
        let error = failed(worker.next(), ErrorCode::BadState);
        assert!(error.text.contains("transaction 8 is not answered"), "{error}");
        worker.fail(i16::MAX, "no paper")?;
        assert!(worker.next()?.is_none());
        Ok(())
    });
    peer.request(8, "", false);
    let (head, body) = peer.data();
    assert_eq!((head.error, head.more, &body[..]), (i16::MAX, 0, &b"no paper"[..]));
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn the_rest_of_a_request_that_was_answered_early_is_dropped() {
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), |worker| {
        while let Some(request) = worker.next()? {
            worker.reply(request.body)?;
        }
        Ok(())
    });
    peer.request(1, "head", true);
    peer.request(1, "piece", true);
    peer.request(2, "other", false);
    peer.request(1, "tail", false);
    peer.request(3, "last", false);
    assert_eq!(answered(&mut peer, 1), "head");
    assert_eq!(answered(&mut peer, 2), "other");
    assert_eq!(answered(&mut peer, 3), "last");
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_request_that_nobody_waits_for_is_ended_and_frees_the_worker() {
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), |worker| {
        let mut talks = 0;
        while let Some(request) = worker.next()? {
            if !request.more() {
                worker.reply(request.body)?;
                continue;
            }
            assert!(worker.over().is_none());
            assert!(worker.next_piece()?.is_none() && worker.is_over());
            assert!(worker.over().is_some_and(|why| why.is(ErrorCode::Deadline)));
            talks += 1;
            if talks == 1 {
                worker.reply("nobody hears it")?;
            }
        }
        Ok(())
    });
    for transaction in [1, 2] {
        peer.request(transaction, "never finished", true);
        let head = Header { transaction, ..Header::default() };
        peer.error(head, ErrorCode::Deadline, "its client is gone");
        let (head, _) = peer.data();
        assert_eq!((head.transaction, head.more), (transaction, 0));
        // The library ends what the program does not end, and as a failure.
        assert_eq!(head.error, 1);
    }
    // A request that the worker had not begun: it was held while a conversation went on.
    peer.request(4, "never finished", true);
    peer.request(5, "held", true);
    peer.request(6, "last", false);
    for transaction in [5, 4] {
        peer.error(Header { transaction, ..Header::default() }, ErrorCode::Deadline, "gone");
    }
    // Its turn comes when the one before is answered.
    for transaction in [4, 5] {
        let (head, _) = peer.data();
        assert_eq!((head.transaction, head.more), (transaction, 0));
    }
    assert_eq!(answered(&mut peer, 6), "last");
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn half_a_request_is_never_answered_with_success() {
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), |worker| {
        while let Some(request) = worker.next()? {
            let mut more = request.more();
            while more {
                more = worker.next_piece()?.is_some_and(|piece| piece.more());
            }
            // Like `isdeat`, it did not check why there was no further piece.
            worker.reply_piece("all of it ")?;
            worker.reply("is eaten")?;
        }
        Ok(())
    });
    let deadline_ms = 50;
    let head = Header { sequence: 1, transaction: 9, reply: 1, more: 1, ..Header::default() };
    // By the broker's own clock the deadline has not passed yet, or its error is on the way.
    peer.send(Frame::data(Header { deadline_ms, ..head }, Bytes::from_static(b"half of it")));
    let (head, body) = peer.data();
    assert_eq!((head.transaction, head.more, head.error), (9, 0, 1), "{body:?}");
    peer.request(10, "whole", false);
    let (head, body) = peer.data();
    assert_eq!((head.transaction, head.more, &body[..]), (10, 1, &b"all of it "[..]));
    assert_eq!(answered(&mut peer, 10), "is eaten");
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_long_answer_stops_when_nobody_reads_it() {
    let (mut peer, thread) = with_worker(&FakeBroker::unix(), worker_login_ok(), |worker| {
        while worker.next()?.is_some() {
            while !worker.is_over() {
                worker.reply_piece("more")?;
            }
            worker.fail(1, "stopped")?;
        }
        Ok(())
    });
    peer.request(1, "", false);
    assert_eq!(peer.data().1, "more");
    peer.error(Header { transaction: 1, ..Header::default() }, ErrorCode::Deadline, "gone");
    while peer.data().0.more != 0 {}
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn once_a_piece_has_left_the_broker_alone_says_when_the_time_is_over() {
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), echo);
    let head = Header { transaction: 1, more: 1, deadline_ms: 50, ..Header::default() };
    peer.send(Frame::data(head, Bytes::from_static(b"a")));
    assert_eq!(peer.data().0.more, 1);
    // A conversation without a deadline goes on.
    peer.waits_for_nothing(Duration::from_millis(100));
    peer.error(Header { transaction: 1, ..Header::default() }, ErrorCode::Deadline, "late");
    let (head, _) = peer.data();
    assert_eq!((head.transaction, head.more), (1, 0));
    assert!(head.error > 0);
    peer.request(2, "next", false);
    assert_eq!(answered(&mut peer, 2), "next");
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn in_a_conversation_others_wait_their_turn() {
    let (mut peer, thread) = with_worker(&FakeBroker::tcp(), worker_login_ok(), |worker| {
        while let Some(request) = worker.next()? {
            assert!(request.remaining().unwrap() <= Duration::from_secs(20));
            if request.body == "talk" {
                worker.reply_piece("go on")?;
                let piece = worker.next_piece()?.unwrap();
                assert!(worker.next_piece()?.is_none());
                worker.reply(piece.body)?;
            } else {
                worker.reply(request.body)?;
            }
        }
        Ok(())
    });
    peer.request(1, "talk", false);
    peer.request(2, "held", false);
    assert_eq!(peer.data().1, "go on");
    peer.request(1, "more", false);
    assert_eq!(answered(&mut peer, 1), "more");
    assert_eq!(answered(&mut peer, 2), "held");
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn arguments_that_are_not_a_workers_say_what_is_wrong() {
    let read = |args: &[&str]| {
        let args = std::iter::once("prog").chain(args.iter().copied()).map(str::to_owned);
        WorkerOptions::from_args(args, String::new())
    };
    let good = read(&["unix:/tmp/w", "0", "12", "echo", "own"]).unwrap();
    assert_eq!((good.worker, good.address.to_string()), (WorkerId(12), "unix:/tmp/w".into()));
    for (args, part) in [
        (&["h", "1", "2"][..], "3 arguments"),
        (&[], "0 arguments"),
        (&["h", "0", "2", "echo"], "no port"),
        (&["h", "1", "-2", "echo"], "worker id '-2'"),
        (&["h", "1", "2", "e cho"], "is no name"),
        (&["", "1", "2", "echo"], "no host"),
    ] {
        let error = failed(read(args), ErrorCode::Usage);
        assert!(error.text.contains(part), "{args:?}: {error}");
    }
}
