//! Tests, with real processes, workers that log out, and requests that no worker can take.

use client::error::Code;
use isect_tests::figures::now;
use isect_tests::proc::{Broker, program};
use protocol::errors::{ErrorCode, Ran};
use std::time::Duration;

const CLIENTS: usize = 4;
const REQUESTS_EACH: usize = 250;

#[test]
fn a_pool_whose_workers_end_after_five_requests_each_answers_all() {
    let broker = Broker::start(&[]);
    broker.op(
        "config events 1000 worker_died worker_restart worker_killed worker_failed worker_ended",
    );
    broker.with_workers("pool", "isdcrash after 4 logout", 3);
    std::thread::scope(|scope| {
        for client in 0..CLIENTS {
            let broker = &broker;
            scope.spawn(move || {
                let mut caller = broker.login("pool");
                for number in 0..REQUESTS_EACH {
                    let text = format!("{client}.{number}");
                    assert_eq!(caller.call(text.clone(), None).expect("an answer"), text);
                }
            });
        }
    });
    let events = broker.op("listevents 1000");
    assert!(events.contains("ended as it had announced: exit status 0"), "{events}");
    // None was a crash, so none was waited for.
    for kind in ["worker_died", "worker_restart", "worker_killed", "worker_failed"] {
        assert!(!events.contains(kind), "{kind} in {events}");
    }
    let restarts = |id| broker.number(&format!("worker {id}"), "worker->restarts");
    let least = (CLIENTS * REQUESTS_EACH / 5 - 3) as i64;
    assert!(restarts(1) + restarts(2) + restarts(3) >= least, "{}", broker.op("workers"));
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_service_whose_workers_failed_refuses_within_a_millisecond() {
    let broker = Broker::start(&["--set", "restart_early_max=1"]);
    broker.op("config service frail");
    let crash = program("isdcrash");
    broker.op(&format!("config worker frail localhost {} login", crash.display()));
    broker.op("start frail");
    broker.await_failed(1);
    let mut caller = broker.login("frail");
    let mut refuse = || {
        let before = now();
        let error = caller.call("x", None).expect_err("an error");
        assert_eq!((error.code, error.ran), (Code::Isect(ErrorCode::NoWorker), Ran::No), "{error}");
        assert!(error.to_string().contains("'start frail' tries again"), "{error}");
        before.elapsed()
    };
    // Another process may have had the processor meanwhile.
    let shortest = (0..200).map(|_| refuse()).min();
    assert!(shortest < Some(Duration::from_millis(1)), "{shortest:?}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn requests_of_a_service_without_workers_are_told_what_helps() {
    let broker = Broker::start(&[]);
    broker.op("config service echo");
    let mut caller = broker.login("echo");
    let error = caller.call("x", None).expect_err("an error");
    assert_eq!((error.code, error.ran), (Code::Isect(ErrorCode::NoWorker), Ran::No), "{error}");
    let text = error.to_string();
    assert!(text.contains("'config worker echo HOST PROGRAM' adds one"), "{text}");
    broker.with_workers("echo", "isdecho", 1);
    assert_eq!(caller.call("x", None).expect("an answer"), "x");
    assert_eq!(broker.end(), 0);
}
