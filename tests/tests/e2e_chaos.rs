//! Kills real processes at any moment while many clients send requests: every request has exactly
//! one outcome, and afterwards everything is as before. The simulation does the same without
//! processes, thousands of times.

use client::caller::{Caller, Options, Send};
use isect_tests::proc::{Broker, TIMEOUT, await_that, signal_pid};
use isect_tests::wire::{self, Wire};
use nix::sys::signal::Signal;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::names::ServiceName;
use std::collections::BTreeSet;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// Settings that never give up a worker, however often it dies.
const TOUGH: &[&str] = &[
    "--set",
    "restart_min_ms=1",
    "--set",
    "restart_max_ms=5",
    "--set",
    "restart_minute_max=100000",
    "--set",
    "host_retry_ms=50",
];

fn reconnecting(broker: &Broker, service: &str) -> Caller {
    let mut options = Options::new(ServiceName::new(service).expect("a name"));
    options.reconnect = true;
    Caller::login(&[broker.address()], options).expect("a login")
}

#[test]
fn kills_of_workers_execd_and_broker_under_load_lose_no_idempotent_request() {
    const WORKERS: u32 = 4;
    const KILLS: u64 = 24;
    let mut broker = Broker::start(TOUGH);
    broker.op("config service echo poison_deaths=100 retry_idempotent=100");
    broker.with_workers("echo", "isdecho", WORKERS as usize);
    let callers: Vec<Caller> = (0..4).map(|_| reconnecting(&broker, "echo")).collect();
    let (is_over, answered) = (AtomicBool::new(false), AtomicU64::new(0));
    let ask = |who: usize, mut caller: Caller| {
        let mut number = 0_u64;
        let send = Send { idempotent: true, deadline: Some(TIMEOUT), ..Send::default() };
        while !is_over.load(Ordering::Relaxed) {
            let body = format!("{who}:{number}");
            let answer = caller.call_with(body.clone(), &send);
            assert_eq!(answer.unwrap_or_else(|e| panic!("{body}: {e}")), body);
            number += 1;
            answered.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        let ask = &ask;
        let threads: Vec<_> =
            callers.into_iter().enumerate().map(|(n, c)| scope.spawn(move || ask(n, c))).collect();
        let over = Over(&is_over);
        for kill in 0..KILLS {
            let before = answered.load(Ordering::Relaxed);
            await_that("answers between two kills", || {
                (answered.load(Ordering::Relaxed) > before + 50).then_some(())
            });
            match kill % 6 {
                0 => {
                    broker.kill();
                    broker.restart();
                }
                3 => {
                    // Workers may answer before their execd is linked; then the page shows no
                    // process id yet.
                    let execd = await_that("an execd", || {
                        let pid = broker.number("host localhost", "host->hostpid");
                        u32::try_from(pid).ok().filter(|pid| *pid != 0)
                    });
                    signal_pid(execd, Signal::SIGKILL);
                }
                _ => {
                    let id = 1 + u32::try_from(kill).expect("small") % WORKERS;
                    let pid = broker.worker_pid(id);
                    if pid != 0 {
                        signal_pid(pid, Signal::SIGKILL);
                    }
                }
            }
        }
        drop(over);
        for thread in threads {
            thread.join().expect("every answer is right");
        }
    });
    broker.await_idle(i64::from(WORKERS));
    let pids: BTreeSet<u32> = (1..=WORKERS).map(|id| broker.worker_pid(id)).collect();
    assert_eq!(pids.len(), WORKERS as usize);
    assert_eq!(broker.number("", "isdData.Waiting"), 0);
    assert_eq!(broker.end(), 0);
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

#[test]
fn each_of_many_requests_under_way_has_one_outcome_when_its_worker_is_killed() {
    for prefetch in [0, 16] {
        let broker = Broker::start(TOUGH);
        broker.op(&format!("config service echo prefetch={prefetch} poison_deaths=100"));
        broker.with_workers("echo", "isdecho", 2);
        let mut wire = Wire::login(&broker.port("client"), "echo");
        for sequence in 1..=800 {
            wire.ask(sequence, format!("{sequence}"));
            if sequence % 200 == 100 {
                let pid = broker.worker_pid(1 + sequence / 200 % 2);
                if pid != 0 {
                    signal_pid(pid, Signal::SIGKILL);
                }
            }
        }
        let mut outcomes = BTreeSet::new();
        for _ in 0..800 {
            let sequence = match wire.next_frame() {
                Some(Frame::Data { head, body }) => {
                    assert_eq!(body, head.sequence.to_string());
                    head.sequence
                }
                Some(Frame::Error { head, error }) => {
                    assert_eq!(error.code, ErrorCode::WorkerDied, "{error}");
                    head.sequence
                }
                other => panic!("{other:?}"),
            };
            assert!(outcomes.insert(sequence), "{sequence} has two outcomes");
        }
        // No second outcome comes.
        wire.send(Frame::Ping { sequence: 1 });
        assert_eq!(wire.next_frame(), Some(Frame::Pong { sequence: 1 }));
        broker.await_idle(2);
        assert_eq!(broker.end(), 0);
    }
}

#[test]
fn clients_that_leave_in_the_middle_of_pieces_leave_the_worker_idle() {
    let broker = Broker::start(&[]);
    broker.with_workers("eat", "isdeat", 2);
    broker.with_workers("echo", "isdecho", 2);
    let before: Vec<u32> = (1..=4).map(|id| broker.worker_pid(id)).collect();
    for service in ["eat", "echo"] {
        for round in 0..20 {
            let mut wire = Wire::login(&broker.port("client"), service);
            let head = Header { more: 1, ..wire::request(1) };
            for _ in 0..=round % 3 {
                wire.send(Frame::data(head, bytes::Bytes::from_static(b"a piece")));
            }
            match round % 4 {
                0 => wire.send(Frame::Logout(protocol::bodies::Logout::default())),
                // Leaves in the middle of a frame.
                1 => wire.write(&[0; 40]).expect("sent"),
                _ => {}
            }
        }
    }
    broker.await_idle(4);
    assert_eq!((1..=4).map(|id| broker.worker_pid(id)).collect::<Vec<_>>(), before);
    assert_eq!(broker.login("eat").call("x", None).expect("an answer"), "");
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_conversation_whose_worker_dies_ends_with_one_error_and_its_rest_is_run_by_nobody() {
    let broker = Broker::start(TOUGH);
    broker.with_workers("echo", "isdecho", 1);
    let mut wire = Wire::login(&broker.port("client"), "echo");
    let more = Header { more: 1, ..wire::request(1) };
    wire.send(Frame::data(more, bytes::Bytes::from_static(b"one")));
    assert_eq!(wire.answer(1), "one");
    let old = broker.worker_pid(1);
    signal_pid(old, Signal::SIGKILL);
    assert_eq!(wire.error(), ErrorCode::WorkerDied);
    broker.await_new_pid(1, old);
    // The client may not have known of the death, so its further pieces are discarded. The last one
    // looks like a new request with the same sequence, so it is answered (docs/decisions/0022).
    wire.send(Frame::data(more, bytes::Bytes::from_static(b"two")));
    wire.send(Frame::data(wire::request(1), bytes::Bytes::from_static(b"three")));
    assert_eq!(wire.error(), ErrorCode::NoConversation);
    wire.ask(2, "again");
    assert_eq!(wire.answer(2), "again");
    assert_eq!(broker.number("worker 1", "worker->toCount"), 2);
    assert_eq!(broker.end(), 0);
}
