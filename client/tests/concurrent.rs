//! Tests of workers that answer several requests at a time, against a played broker.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use bytes::Bytes;
use client::error::Error;
use client::protocol::bodies::{Logout, WorkerLoginOk};
use client::protocol::encode;
use client::protocol::errors::ErrorCode;
use client::protocol::frame::Frame;
use client::protocol::header::Header;
use client::protocol::ids::WorkerId;
use client::worker::{ConcurrentWorker, OwnedRequest, WorkerOptions, serve_concurrently};
use common::{FakeBroker, Peer, TIMEOUT, beside, failed, service, worker_login_ok};
use std::collections::BTreeSet;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::JoinHandle;
use std::time::Duration;

fn options(broker: &FakeBroker) -> WorkerOptions {
    let base = WorkerOptions::self_started(broker.address(), service("echo"));
    WorkerOptions { worker: WorkerId(3), secret: "s3cret".into(), concurrency: 4, ..base }
}

fn login_ok() -> WorkerLoginOk {
    WorkerLoginOk { concurrency: 4, ..worker_login_ok() }
}

fn connect(broker: &FakeBroker) -> (Peer, ConcurrentWorker) {
    let options = options(broker);
    let thread = beside(move || ConcurrentWorker::connect(options).unwrap());
    (broker.worker(login_ok()), thread.join().unwrap())
}

/// A worker that serves on threads of its own, and the broker's end of its connection.
fn serving(
    broker: &FakeBroker,
    answer: impl Fn(OwnedRequest) + Sync + Send + 'static,
) -> (Peer, JoinHandle<Result<(), Error>>) {
    let (peer, worker) = connect(broker);
    (peer, beside(move || serve_concurrently(worker, answer)))
}

fn echo(mut request: OwnedRequest) {
    let body = request.take_body();
    request.reply(body);
}

fn cancel(peer: &mut Peer, transaction: u64) {
    let head = Header { transaction, error: ErrorCode::Cancelled.number(), ..Header::default() };
    peer.send(Frame::Cancel { head, text: "given up".into() });
}

fn answered(peer: &mut Peer, transaction: u64) -> Bytes {
    let (head, body) = peer.data();
    assert_eq!((head.transaction, head.more, head.error), (transaction, 0, 0));
    body
}

fn failure(peer: &mut Peer, transaction: u64) -> Bytes {
    let (head, body) = peer.data();
    assert_eq!((head.transaction, head.more, head.error), (transaction, 0, 1));
    body
}

fn logout(received: u32) -> Frame {
    Frame::Logout(Logout { received: Some(received) })
}

/// Requests whose threads wait until the test lets them go on.
fn held() -> (Sender<OwnedRequest>, Receiver<OwnedRequest>) {
    channel()
}

#[test]
fn requests_are_answered_in_any_order_with_their_own_numbers() {
    for broker in [FakeBroker::tcp(), FakeBroker::unix()] {
        let options = options(&broker);
        let thread = beside(move || ConcurrentWorker::connect(options).unwrap());
        let mut peer = broker.accept();
        let login = peer.worker_login();
        assert!(login.cancel && login.concurrency == 4);
        peer.send(Frame::WorkerLoginOk(WorkerLoginOk { concurrency: 3, ..worker_login_ok() }));
        let mut worker = thread.join().unwrap();
        assert_eq!(worker.concurrency(), 3);
        for transaction in 1..=3 {
            peer.request(transaction, format!("body {transaction}"), false);
        }
        let mut requests: Vec<_> = (0..3).map(|_| worker.next().unwrap().unwrap()).collect();
        let first = requests.remove(0);
        for request in requests.into_iter().rev() {
            beside(move || echo(request)).join().unwrap();
        }
        assert_eq!(answered(&mut peer, 3), "body 3");
        assert_eq!(answered(&mut peer, 2), "body 2");
        first.fail(7, "no paper").unwrap();
        let (head, body) = peer.data();
        assert_eq!((head.transaction, head.error, head.workerid), (1, 7, 3));
        assert_eq!((head.sequence, &body[..]), (40, &b"no paper"[..]));
        peer.send(Frame::End);
        assert!(worker.next().unwrap().is_none());
        drop(worker);
        assert_eq!(peer.next(), None);
    }
}

#[test]
fn a_concurrency_out_of_range_is_refused_before_the_login() {
    for concurrency in [0, 1025] {
        let options = WorkerOptions { concurrency, ..options(&FakeBroker::unix()) };
        let error = failed(ConcurrentWorker::connect(options), ErrorCode::BadWorkerLogin);
        assert!(error.text.contains("1 to 1024"), "{error}");
    }
}

#[test]
fn requests_that_came_with_the_login_are_not_missed() {
    let broker = FakeBroker::unix();
    let options = options(&broker);
    let thread = beside(move || serve_concurrently(ConcurrentWorker::connect(options)?, echo));
    let mut peer = broker.accept();
    peer.worker_login();
    let head = Header { transaction: 1, ..Header::default() };
    let frames = [Frame::WorkerLoginOk(login_ok()), Frame::data(head, Bytes::from_static(b"x"))];
    let bytes: Vec<u8> = frames.into_iter().flat_map(encode::to_bytes).collect();
    peer.raw(&bytes);
    assert_eq!(answered(&mut peer, 1), "x");
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn pings_are_answered_and_cancels_heard_while_all_threads_work() {
    let (tell, told) = channel();
    let (mut peer, thread) = serving(&FakeBroker::unix(), move |mut request| {
        tell.send(request.transaction()).unwrap();
        // It waits for a further piece, which never comes.
        assert!(request.next_piece().is_none());
        assert!(request.over().is_some_and(|why| why.is(ErrorCode::Cancelled)));
        request.reply("nobody hears it");
    });
    for transaction in 1..=4 {
        peer.request(transaction, "", true);
    }
    let begun: BTreeSet<u64> = (0..4).map(|_| told.recv_timeout(TIMEOUT).unwrap()).collect();
    assert_eq!(begun, (1..=4).collect());
    peer.send(Frame::Ping { sequence: 9 });
    assert_eq!(peer.frame(), Frame::Pong { sequence: 9 });
    peer.send(Frame::Status { sequence: 8 });
    let text = "0 requests answered".to_owned();
    assert_eq!(peer.frame(), Frame::StatusReply { sequence: 8, text });
    for transaction in [3, 1, 4, 2] {
        cancel(&mut peer, transaction);
        failure(&mut peer, transaction);
    }
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_request_that_is_cancelled_before_a_thread_has_it_is_never_given_out() {
    let (mut peer, mut worker) = connect(&FakeBroker::unix());
    peer.request(1, "first", false);
    let first = worker.next().unwrap().unwrap();
    peer.request(2, "second", false);
    cancel(&mut peer, 2);
    peer.request(3, "third", false);
    let third = worker.next().unwrap().unwrap();
    assert_eq!(third.transaction(), 3);
    echo(third);
    failure(&mut peer, 2);
    assert_eq!(answered(&mut peer, 3), "third");
    echo(first);
    assert_eq!(answered(&mut peer, 1), "first");
}

#[test]
fn a_request_that_is_dropped_is_answered_as_a_failure() {
    let (mut peer, thread) = serving(&FakeBroker::unix(), |request| {
        if request.body == "code" {
            assert!(request.fail(0, "zero").is_err());
        }
    });
    for (transaction, body) in [(1, ""), (2, "code")] {
        peer.request(transaction, body, false);
        let text = failure(&mut peer, transaction);
        assert!(text.starts_with(b"the worker dropped"), "{text:?}");
    }
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_panic_fails_its_request_and_no_other() {
    let (mut peer, thread) = serving(&FakeBroker::unix(), |request| {
        assert_ne!(request.body, "panic", "as asked");
        echo(request);
    });
    for transaction in 1..=8 {
        peer.request(transaction * 2, "panic", false);
        failure(&mut peer, transaction * 2);
        peer.request(transaction * 2 + 1, "well", false);
        assert_eq!(answered(&mut peer, transaction * 2 + 1), "well");
    }
    peer.send(Frame::End);
    assert!(thread.join().is_err(), "the panic comes out at the end");
}

#[test]
fn what_runs_is_finished_after_the_brokers_end() {
    let (give, take) = held();
    let (mut peer, thread) = serving(&FakeBroker::tcp(), move |request| {
        give.send(request).unwrap();
    });
    peer.request(1, "one", false);
    peer.request(2, "two", false);
    let requests = [take.recv_timeout(TIMEOUT).unwrap(), take.recv_timeout(TIMEOUT).unwrap()];
    peer.send(Frame::End);
    peer.pipe.end_writing();
    // The threads have handed the requests over, and end; the requests keep the connection.
    thread.join().unwrap().unwrap();
    for request in requests {
        let (transaction, body) = (request.transaction(), request.body.clone());
        echo(request);
        assert_eq!(answered(&mut peer, transaction), body);
    }
    assert_eq!(peer.next(), None, "the last one closes");
}

#[test]
fn a_worker_that_ends_after_some_requests_finishes_those_that_it_has() {
    let (mut peer, mut worker) = connect(&FakeBroker::unix());
    worker.end_after(2);
    for transaction in 1..=3 {
        peer.request(transaction, "x", false);
    }
    let first = worker.next().unwrap().unwrap();
    let second = worker.next().unwrap().unwrap();
    // The third one came before the logout, and the program was not given it.
    assert_eq!(peer.frame(), logout(2));
    peer.request(4, "crossed", false);
    let thread = beside(move || {
        assert!(worker.next().unwrap().is_none());
        worker
    });
    echo(second);
    assert_eq!(answered(&mut peer, 2), "x");
    peer.send(Frame::End);
    let worker = thread.join().unwrap();
    echo(first);
    assert_eq!(answered(&mut peer, 1), "x");
    drop(worker);
    assert_eq!(peer.next(), None);
}

#[test]
fn a_worker_that_ends_takes_the_rest_of_what_it_has_first() {
    let broker = FakeBroker::unix();
    let (mut peer, mut worker) = connect(&broker);
    worker.end_after(1);
    let thread = beside(move || {
        serve_concurrently(worker, |mut request| {
            let mut body = request.take_body().to_vec();
            while let Some(piece) = request.next_piece() {
                body.extend_from_slice(&piece.body);
            }
            request.reply(body);
        })
    });
    peer.request(1, "in ", true);
    peer.request(2, "of another worker", false);
    peer.waits_for_nothing(Duration::from_millis(20));
    peer.request(1, "two pieces", false);
    let mut frames = [peer.frame(), peer.frame()];
    // The logout and the answer leave in any order.
    frames.sort_by_key(|frame| matches!(frame, Frame::Data { .. }));
    assert_eq!(frames[0], logout(1));
    assert!(matches!(&frames[1], Frame::Data { body, .. } if body == "in two pieces"));
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
    assert_eq!(peer.next(), None);
}

#[test]
fn a_loss_ends_what_came_by_the_connection_and_the_next_one_counts_anew() {
    let broker = FakeBroker::unix();
    let (give, take) = held();
    let (mut peer, thread) = serving(&broker, move |request| match &request.body[..] {
        b"hold" => give.send(request).unwrap(),
        _ => echo(request),
    });
    peer.request(1, "hold", false);
    let request = take.recv_timeout(TIMEOUT).unwrap();
    assert!(!request.is_over());
    drop(peer);
    let mut peer = broker.worker(login_ok());
    assert!(request.over().is_some_and(|why| why.is(ErrorCode::BrokerLost)));
    echo(request);
    peer.request(2, "well", false);
    assert_eq!(answered(&mut peer, 2), "well");
    peer.error(Header::default(), ErrorCode::BadWorkerLogin, "worker 3 was deleted");
    failed(thread.join().unwrap(), ErrorCode::BadWorkerLogin);
}

#[test]
fn garbage_ends_the_worker_with_an_error_that_names_it() {
    let (mut peer, thread) = serving(&FakeBroker::unix(), echo);
    peer.raw(&[0xff; 100]);
    failed(thread.join().unwrap(), ErrorCode::Version);
    let (mut peer, thread) = serving(&FakeBroker::unix(), echo);
    peer.send(Frame::Flush { sequence: 1 });
    failed(thread.join().unwrap(), ErrorCode::BadState);
}

#[test]
fn a_broker_that_reads_nothing_holds_up_those_that_write_and_not_the_reader() {
    const SIZE: usize = 48 << 20;
    let (tell, told) = channel();
    let (mut peer, thread) =
        serving(&FakeBroker::unix(), move |mut request| match &request.body[..] {
            b"large" => request.reply(vec![5; SIZE]),
            _ => {
                tell.send("begun").unwrap();
                assert!(request.next_piece().is_none());
                tell.send("over").unwrap();
                request.reply("over");
            }
        });
    peer.request(1, "large", false);
    peer.request(2, "large", false);
    peer.request(3, "wait", true);
    assert_eq!(told.recv_timeout(TIMEOUT).unwrap(), "begun");
    cancel(&mut peer, 3);
    assert_eq!(told.recv_timeout(TIMEOUT).unwrap(), "over");
    let mut sizes = [0; 4];
    let mut is_failed = false;
    let mut left = 3;
    while left > 0 {
        let (head, body) = peer.data();
        let which = head.transaction as usize;
        sizes[which] += if head.error == 0 { body.len() } else { 0 };
        is_failed |= which == 3 && head.error == 1;
        left -= usize::from(head.more == 0);
    }
    assert_eq!((sizes, is_failed), ([0, SIZE, SIZE, 0], true));
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn batched_answers_leave_when_the_worker_waits() {
    let (mut peer, mut worker) = connect(&FakeBroker::unix());
    let head = |transaction| Header { transaction, ..Header::default() };
    let frames = (1..=3).map(|at| Frame::data(head(at), Bytes::from_static(b"x")));
    let bytes: Vec<u8> = frames.flat_map(encode::to_bytes).collect();
    peer.raw(&bytes);
    for _ in 0..3 {
        worker.next().unwrap().unwrap().reply_batched("y");
    }
    let (tell, told) = channel();
    let thread = beside(move || {
        told.recv_timeout(TIMEOUT).unwrap();
        let request = worker.next().unwrap().unwrap();
        // Now that somebody else waits for requests, it leaves at once.
        let thread = beside(move || worker.next().unwrap().is_none());
        std::thread::yield_now();
        request.reply_batched("z");
        assert!(thread.join().unwrap());
    });
    peer.waits_for_nothing(Duration::from_millis(20));
    tell.send(()).unwrap();
    let mut bytes = [0; 65_536];
    let size = peer.pipe.read(&mut bytes).unwrap();
    peer.push(&bytes[..size]);
    for transaction in 1..=3 {
        let frame = peer.buffered();
        assert!(matches!(frame, Some(Frame::Data { head, .. }) if head.transaction == transaction));
    }
    peer.request(4, "x", false);
    assert_eq!(answered(&mut peer, 4), "z");
    peer.send(Frame::End);
    thread.join().unwrap();
}

#[test]
fn batched_answers_leave_before_the_worker_ends() {
    let (mut peer, mut worker) = connect(&FakeBroker::unix());
    let head = |transaction| Header { transaction, ..Header::default() };
    let request = |transaction| Frame::data(head(transaction), Bytes::from_static(b"x"));
    let frames = [request(1), request(2), Frame::End];
    let bytes: Vec<u8> = frames.into_iter().flat_map(encode::to_bytes).collect();
    peer.raw(&bytes);
    let thread = beside(move || {
        while let Some(request) = worker.next().unwrap() {
            request.reply_batched("answer");
        }
        // A program that ends does not wait for anything else.
    });
    assert_eq!(answered(&mut peer, 1), "answer");
    assert_eq!(answered(&mut peer, 2), "answer");
    thread.join().unwrap();
}

#[test]
fn conversations_go_on_beside_each_other() {
    let (mut peer, thread) = serving(&FakeBroker::tcp(), |mut request| {
        let mut body = request.take_body();
        loop {
            request.reply_piece(body);
            match request.next_piece() {
                None => return,
                Some(piece) if piece.body == "last" => return request.reply("bye"),
                Some(piece) => body = piece.body,
            }
        }
    });
    for transaction in 1..=3 {
        peer.request(transaction, "begin", false);
        assert_eq!(peer.data().1, "begin");
    }
    for _ in 0..10 {
        for transaction in [2, 1, 3] {
            peer.request(transaction, format!("turn of {transaction}"), false);
            let (head, body) = peer.data();
            assert_eq!((head.transaction, head.more), (transaction, 1));
            assert_eq!(body, format!("turn of {transaction}"));
        }
    }
    for transaction in [1, 3] {
        peer.request(transaction, "last", false);
        assert_eq!(answered(&mut peer, transaction), "bye");
        // It crossed the answer, and belongs to nothing.
        peer.request(transaction, "crossed", false);
    }
    cancel(&mut peer, 2);
    failure(&mut peer, 2);
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_request_that_takes_long_says_so_and_an_unfinished_one_ends_at_its_deadline() {
    let (mut peer, thread) = serving(&FakeBroker::unix(), |mut request| {
        if request.body != "early" {
            request.extend(Duration::from_secs(2));
        }
        if request.next_piece().is_some() || request.body.is_empty() {
            request.reply("done");
        }
    });
    let head = Header { transaction: 1, flags: 2, deadline_ms: 50, ..Header::default() };
    peer.send(Frame::data(head, Bytes::new()));
    let (answer, body) = peer.data();
    assert_eq!((answer.more, answer.deadline_ms, body.len()), (1, 2000, 0));
    peer.waits_for_nothing(Duration::from_millis(100));
    peer.request(1, "go on", false);
    assert_eq!(answered(&mut peer, 1), "done");
    // Its deadline stays, and the broker says when it is over.
    let head = Header { transaction: 2, more: 1, deadline_ms: 50, ..Header::default() };
    peer.send(Frame::data(head, Bytes::from_static(b"half")));
    assert_eq!(peer.data().0.more, 1);
    cancel(&mut peer, 2);
    failure(&mut peer, 2);
    // No piece of the answer has left.
    peer.send(Frame::data(Header { transaction: 3, ..head }, Bytes::from_static(b"early")));
    failure(&mut peer, 3);
    // What waits for its client when nothing more comes is over.
    peer.request(4, "half", true);
    assert_eq!(peer.data().0.more, 1);
    peer.send(Frame::End);
    failure(&mut peer, 4);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_silent_broker_is_pinged_and_given_up() {
    let broker = FakeBroker::unix();
    let options = options(&broker);
    let thread = beside(move || serve_concurrently(ConcurrentWorker::connect(options)?, echo));
    let mut peer = broker.worker(WorkerLoginOk { silence_ms: 300, reconnect_ms: 0, ..login_ok() });
    assert_eq!(peer.frame(), Frame::Ping { sequence: 0 });
    let error = failed(thread.join().unwrap(), ErrorCode::BrokerLost);
    assert!(error.text.contains("said nothing for"), "{error}");
}

#[test]
fn a_thousand_requests_are_answered_once_each() {
    let (mut peer, thread) = serving(&FakeBroker::tcp(), echo);
    let mut open = BTreeSet::new();
    let mut next = 0;
    let mut done = 0;
    while done < 1000 {
        while open.len() < 4 && next < 1000 {
            next += 1;
            open.insert(next);
            peer.request(next, next.to_string(), false);
        }
        let (head, body) = peer.data();
        assert!(open.remove(&head.transaction), "{} was open", head.transaction);
        assert_eq!(body, head.transaction.to_string());
        done += 1;
    }
    peer.send(Frame::End);
    thread.join().unwrap().unwrap();
}

#[test]
fn a_request_publishes_by_its_connection_and_refusals_are_told() {
    let broker = FakeBroker::tcp();
    let (mut peer, mut worker) = connect(&broker);
    peer.request(1, "hi", false);
    let request = worker.next().unwrap().unwrap();
    request.publish("orders.eu", "17").unwrap();
    failed(request.publish("a..b", ""), ErrorCode::BadMessage);
    failed(request.publish("a", vec![0; 2 << 20]), ErrorCode::BodyTooLarge);
    let Frame::Publish { head, body } = peer.frame() else { panic!("a publish") };
    assert_eq!(body, "topic orders.eu\n\n17");
    let about = Header { sequence: head.sequence, ..Header::default() };
    peer.error(about, ErrorCode::Denied, "publish:orders.eu");
    request.reply("done");
    assert_eq!(answered(&mut peer, 1), "done");
    peer.request(2, "again", false);
    // The refusal came before; it ended nothing.
    worker.next().unwrap().unwrap().reply("done");
    let refused = worker.refused();
    assert!(refused.len() == 1 && refused[0].is(ErrorCode::Denied), "{refused:?}");
    assert!(worker.refused().is_empty());
}

/// A worker that answers one request at a time, though any thread may answer it.
fn alone(broker: &FakeBroker) -> (Peer, ConcurrentWorker) {
    let options = WorkerOptions { concurrency: 1, ..options(broker) };
    let thread = beside(move || ConcurrentWorker::connect(options).unwrap());
    (broker.worker(worker_login_ok()), thread.join().unwrap())
}

#[test]
fn with_a_concurrency_of_one_what_was_sent_ahead_waits_for_its_turn() {
    let (mut peer, mut worker) = alone(&FakeBroker::unix());
    peer.request(1, "one", false);
    let first = worker.next().unwrap().unwrap();
    // What comes now is read before the answer is given, and not begun.
    for transaction in 2..=4 {
        peer.request(transaction, "ahead", false);
    }
    cancel(&mut peer, 3);
    let (tell, told) = channel();
    let thread = beside(move || {
        while let Some(request) = worker.next().unwrap() {
            tell.send(request).unwrap();
        }
    });
    peer.send(Frame::Ping { sequence: 5 });
    assert_eq!(peer.next(), Some(Frame::Pong { sequence: 5 }));
    assert!(told.try_recv().is_err(), "it is begun beside the first");
    first.reply("ONE");
    assert_eq!(answered(&mut peer, 1), "ONE");
    let second = told.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(second.transaction(), 2);
    peer.send(Frame::End);
    second.reply_batched("TWO");
    assert_eq!(answered(&mut peer, 2), "TWO");
    // Its client gave it up before its turn came.
    failure(&mut peer, 3);
    let last = told.recv_timeout(TIMEOUT).unwrap();
    assert_eq!(last.transaction(), 4);
    last.reply("FOUR");
    assert_eq!(answered(&mut peer, 4), "FOUR");
    thread.join().unwrap();
}

#[test]
fn with_a_concurrency_of_one_answers_of_many_threads_keep_the_order_of_the_requests() {
    let (mut peer, mut worker) = alone(&FakeBroker::unix());
    let thread = beside(move || {
        let mut threads = Vec::new();
        while let Some(request) = worker.next().unwrap() {
            threads.push(beside(move || echo(request)));
        }
        threads.into_iter().for_each(|thread| thread.join().unwrap());
    });
    for transaction in 1..=500 {
        peer.request(transaction, "x", false);
    }
    for transaction in 1..=500 {
        assert_eq!(answered(&mut peer, transaction), "x");
    }
    peer.send(Frame::End);
    thread.join().unwrap();
}
