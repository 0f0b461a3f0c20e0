//! Sends every signal to the programs: none ends isectd or isdexecd silently, and none is ignored
//! where it should end a program. docs/signals.md lists them.

use client::caller::Send;
use isect_tests::proc::{Broker, Execd, await_that, signal_number};
use nix::sys::signal::Signal;

/// Signals that mean nothing to isectd and isdexecd.
const UNUSED: &[i32] = &[
    10, // USR1
    12, // USR2
    14, // ALRM
    16, // STKFLT
    21, // TTIN
    22, // TTOU
    25, // XFSZ
    26, // VTALRM
    27, // PROF
    29, // IO
    30, // PWR
    34, // RTMIN
    50, // RTMIN+16
    64, // RTMAX
];

/// A broker reports its ports before its execd is up.
#[test]
fn a_broker_that_is_stopped_while_its_execd_starts_leaves_no_execd() {
    for _ in 0..10 {
        assert_eq!(Broker::start(&[]).end(), 0);
    }
}

/// A short restart backoff.
const SOON: &[&str] = &["--set", "restart_min_ms=5", "--set", "restart_max_ms=20"];

#[test]
fn signals_without_a_meaning_are_told_of_and_end_neither_broker_nor_execd() {
    let execd = Execd::start(&[]);
    let broker = Broker::start(&[]);
    let built_in = broker.execd_pid();
    for number in UNUSED {
        for pid in [broker.process.pid(), built_in, execd.process.pid()] {
            signal_number(pid, *number, 1);
        }
    }
    let all = |log: String, who: &str| {
        log.matches(&format!("means nothing to {who} and is ignored")).count() >= UNUSED.len()
    };
    await_that("a line for each", || {
        let log = broker.process.log();
        (all(log.clone(), "isectd") && all(log, "execd")).then_some(())
    });
    await_that("a line for each", || all(execd.process.log(), "execd").then_some(()));
    let log = broker.process.log();
    for name in ["SIGUSR1", "SIGALRM", "SIGPWR", "SIGRTMIN", "SIGRTMIN+16"] {
        assert!(log.contains(&format!("signal {name} from process")), "{name}");
    }
    // SIGPIPE, SIGWINCH, SIGURG, SIGCHLD and SIGCONT do nothing and are not logged.
    for number in [13, 28, 23, 17, 18] {
        for pid in [broker.process.pid(), built_in, execd.process.pid()] {
            signal_number(pid, number, 1);
        }
    }
    assert_eq!(broker.number("host localhost", "host->hostpid"), i64::from(built_in));
    broker.with_workers("echo", "isdecho", 1);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_quit_and_a_used_up_processor_time_end_in_order() {
    // The kernel repeats SIGXCPU each second, which must not hurry the shutdown.
    for numbers in [&[3][..], &[24, 24, 24]] {
        let mut broker = Broker::start(&[]);
        broker.with_workers("echo", "isdecho", 1);
        let mut execd = Execd::start(&[]);
        for number in numbers {
            signal_number(broker.process.pid(), *number, 1);
            signal_number(execd.process.pid(), *number, 1);
        }
        assert_eq!(broker.process.await_end(), 0, "{numbers:?}");
        assert_eq!(execd.process.await_end(), 0, "{numbers:?}");
        broker.await_nothing_left();
    }
}

#[test]
fn a_fault_that_is_sent_ends_each_program_at_once() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 1);
    broker.with_workers("eat", "isdeat", 1);
    broker.with_workers("pipe", "isdpipe /bin/cat", 1);
    broker.with_workers("frail", "isdcrash hang", 1);
    for (id, signal) in
        [(1, Signal::SIGSEGV), (2, Signal::SIGBUS), (3, Signal::SIGSEGV), (4, Signal::SIGSEGV)]
    {
        let old = broker.worker_pid(id);
        signal_number(old, signal as i32, 1);
        broker.await_new_pid(id, old);
        let page = broker.op(&format!("worker {id}"));
        assert!(page.contains(&format!("signal {}", signal as i32)), "{page}");
    }
    let mut execd = Execd::start(&[]);
    signal_number(execd.process.pid(), 11, 1);
    assert_eq!(execd.process.await_end(), 128 + 11);
    signal_number(broker.process.pid(), 11, 1);
    assert_eq!(broker.process.await_end(), 128 + 11);
}

#[test]
fn what_ends_isdpipe_ends_the_program_that_it_runs() {
    let broker = Broker::start(SOON);
    broker.with_workers("pipe", "isdpipe /bin/sh -c 'sleep 1000 & echo $! >&2; wait'", 1);
    for number in [10, 12, 14, 3, 1, 24] {
        let mut caller = broker.login("pipe");
        caller.send("x", &Send::default()).expect("it is sent");
        broker.await_page("worker 1", "worker->node.queue = \"BUSY\"");
        let old = broker.worker_pid(1);
        let group = await_that("its program", || {
            let children = std::fs::read_to_string(format!("/proc/{old}/task/{old}/children"));
            children.ok()?.split_whitespace().next().map(ToString::to_string)
        });
        signal_number(old, number, 1);
        broker.await_new_pid(1, old);
        await_that("the end of its program", || {
            (!std::path::Path::new(&format!("/proc/{group}")).exists()).then_some(())
        });
        drop(caller);
    }
    assert_eq!(broker.end(), 0);
}
