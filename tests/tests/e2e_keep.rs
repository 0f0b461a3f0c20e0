//! Tests `halt keep` and SIGTERM under `on_term keep` with real processes: the broker ends, workers
//! and the built-in execd stay, the next broker adopts them; and when nobody comes, they end.

use isect_tests::proc::{Broker, await_that, is_alive, run};
use nix::sys::signal::Signal;

/// The broker was hurried by a second signal.
const HURRIED: i32 = 8;

/// One worker of each kind of program, and their processes.
fn with_all_kinds(broker: &Broker) -> Vec<u32> {
    broker.with_workers("echo", "isdecho", 1);
    broker.with_workers("eat", "isdeat", 1);
    broker.with_workers("pipe", "isdpipe /bin/cat", 1);
    pids(broker)
}

fn pids(broker: &Broker) -> Vec<u32> {
    (1..=3).map(|id| broker.worker_pid(id)).collect()
}

/// The next broker has the same processes, and they serve.
fn assert_adopted(broker: &mut Broker, before: &[u32], execd: u32) {
    assert!(before.iter().chain([&execd]).all(|pid| is_alive(*pid)));
    broker.restart();
    broker.await_idle(3);
    assert_eq!((pids(broker).as_slice(), broker.execd_pid()), (before, execd));
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    assert_eq!(broker.login("pipe").call("x", None).expect("an answer"), "x");
    for id in 1..=3 {
        assert_eq!(broker.number(&format!("worker {id}"), "worker->restarts"), 0);
    }
}

#[test]
fn a_signal_leaves_the_workers_to_the_next_broker_if_on_term_says_so() {
    let mut broker = Broker::start(&[]);
    broker.op("set on_term keep");
    let before = with_all_kinds(&broker);
    let execd = broker.execd_pid();
    for _ in 0..2 {
        broker.process.signal(Signal::SIGTERM);
        assert_eq!(broker.process.await_end(), 0);
        assert_adopted(&mut broker, &before, execd);
    }
    broker.op("set on_term end");
    assert_eq!(broker.end(), 0);
    assert!(!before.iter().any(|pid| is_alive(*pid)));
}

#[test]
fn halt_keep_leaves_them_too_and_halt_does_not() {
    let mut broker = Broker::start(&[]);
    let before = with_all_kinds(&broker);
    let execd = broker.execd_pid();
    let told = broker.isdclient(&["-c", "halt keep"], "");
    assert_eq!((told.status, told.out.contains("workers stay")), (0, true), "{}", told.out);
    assert_eq!(broker.process.await_end(), 0);
    assert_adopted(&mut broker, &before, execd);
    broker.op("halt");
    assert_eq!(broker.process.await_end(), 1);
    broker.await_nothing_left();
}

#[test]
fn a_second_signal_ends_the_broker_at_once_and_keeps_the_workers() {
    let mut broker = Broker::start(&["--set", "on_term=keep"]);
    let before = with_all_kinds(&broker);
    broker.with_workers("frail", "isdcrash hang", 1);
    let execd = broker.execd_pid();
    let mut caller = broker.login("frail");
    caller.send("x", &client::caller::Send::default()).expect("sent");
    await_that("a busy worker", || (broker.number("", "isdData.BusyWorkers") == 1).then_some(()));
    broker.process.signal(Signal::SIGTERM);
    broker.process.await_log("workers stay for the next one", 1);
    broker.process.signal(Signal::SIGTERM);
    assert_eq!(broker.process.await_end(), HURRIED);
    assert_adopted(&mut broker, &before, execd);
    broker.op("halt");
    assert_eq!(broker.process.await_end(), 1);
    broker.await_nothing_left();
}

#[test]
fn without_a_state_directory_nothing_can_be_kept() {
    let broker = Broker::start(&["--state", "none", "--set", "on_term=keep"]);
    broker.with_workers("echo", "isdecho", 1);
    let error = broker.try_op("halt keep").expect_err("refused").to_string();
    assert!(error.contains("--state none") && error.contains("--state DIR"), "{error}");
    broker.await_idle(1);
    assert_eq!(broker.end(), 0);
}

#[test]
fn what_is_kept_ends_when_no_broker_comes() {
    let mut broker = Broker::start(&["--orphan-ms", "300"]);
    let before = with_all_kinds(&broker);
    let execd = broker.execd_pid();
    broker.op("halt keep");
    assert_eq!(broker.process.await_end(), 0);
    await_that("their ends", || {
        (!before.iter().chain([&execd]).any(|pid| is_alive(*pid))).then_some(())
    });
    broker.restart();
    broker.await_idle(3);
    assert_eq!(broker.end(), 0);
    for (program, usual) in [("isectd", "[default: 600000]"), ("isdexecd", "[default: 0]")] {
        let help = run(program, &["--help"], b"").out;
        let after = help.split("--orphan-ms").nth(1).expect("the option");
        assert!(after.split("\n  -").next().is_some_and(|text| text.contains(usual)), "{after}");
    }
}
