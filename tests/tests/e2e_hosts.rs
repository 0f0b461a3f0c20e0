//! Tests several hosts with real processes, each an `isdexecd`: hosts that end, refuse, hang, or
//! send garbage.

use isect_tests::proc::{
    Broker, Execd, TIMEOUT, await_that, is_alive, program, signal_pid, write_program,
};
use nix::sys::signal::Signal;
use std::io::{Read as _, Write as _};
use std::net::{TcpListener, TcpStream};
use std::time::Duration;

fn worker(broker: &Broker, service: &str, host: &str, rest: &str) {
    let (name, args) = rest.split_once(' ').unwrap_or((rest, ""));
    broker.op(&format!("config worker {service} {host} {} {args}", program(name).display()));
}

/// The row of one host in `hosts`.
fn row(broker: &Broker, host: &str) -> String {
    let hosts = broker.op("hosts");
    let is_it = |line: &&str| line.split_whitespace().next() == Some(host);
    hosts.lines().find(is_it).unwrap_or_else(|| panic!("no {host} in\n{hosts}")).to_owned()
}

fn await_host(broker: &Broker, host: &str, part: &str) {
    broker.await_page(&format!("host {host}"), part);
}

fn assert_echo(broker: &Broker, service: &str, count: usize) {
    let mut caller = broker.login(service);
    for index in 0..count {
        assert_eq!(caller.call(format!("{index}"), None).expect("an answer"), format!("{index}"));
    }
}

/// Has host `a` run one echo worker, and returns its process id.
fn one_echo(broker: &Broker, a: &Execd) -> u32 {
    broker.op("config service echo");
    broker.op(&format!("config host a {}", a.address));
    worker(broker, "echo", "a", "isdecho");
    broker.op("start echo");
    broker.await_idle(1);
    broker.worker_pid(1)
}

/// A listener of this test, where the broker expects an execd.
fn listener() -> (TcpListener, String) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address").to_string();
    (listener, address)
}

/// Waits for the next connection of the broker.
fn accept(listener: &TcpListener) -> TcpStream {
    listener.set_nonblocking(true).expect("non-blocking");
    let stream = await_that("the broker's connection", || Some(listener.accept().ok()?.0));
    stream.set_nonblocking(false).expect("blocking");
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    stream
}

#[test]
fn two_hosts_serve_one_service_and_one_of_them_may_go_and_come_back() {
    let broker = Broker::start(&["--set", "host_retry_ms=200"]);
    let mut a = Execd::start(&[]);
    let b = Execd::start(&[]);
    broker.op("config service echo");
    for (host, execd) in [("a", &a), ("b", &b)] {
        let said = broker.op(&format!("config host {host} {}", execd.address));
        assert!(said.contains(&execd.address), "{said}");
        for _ in 0..2 {
            worker(&broker, "echo", host, "isdecho");
        }
    }
    broker.op("start echo");
    broker.await_idle(4);
    assert_echo(&broker, "echo", 20);
    for id in 1..=4 {
        assert!(broker.number(&format!("worker {id}"), "worker->Transactions") == 5, "worker {id}");
    }
    let before: Vec<u32> = (1..=4).map(|id| broker.worker_pid(id)).collect();

    a.kill(&before[..2]);
    await_that("the loss", || (!broker.op("host a").contains("host->state = up")).then_some(()));
    assert_eq!(broker.number("", "isdData.IdleWorkers"), 4, "they keep working");
    assert_echo(&broker, "echo", 20);
    signal_pid(before[0], Signal::SIGKILL);
    await_that("its end", || (!broker.op("worker 1").contains("\"ready")).then_some(()));
    assert_echo(&broker, "echo", 20);
    a.restart();
    await_host(&broker, "a", "host->state = up");
    broker.await_new_pid(1, before[0]);
    for id in 2..=4 {
        assert_eq!(broker.worker_pid(id), before[id as usize - 1]);
    }
    assert!(row(&broker, "a").contains(&a.address));
    assert_eq!(broker.end(), 0);
    await_that("the end of all workers", || before.iter().all(|pid| !is_alive(*pid)).then_some(()));
    assert!(is_alive(a.process.pid()) && is_alive(b.process.pid()), "the hosts stay");
}

#[test]
fn a_host_that_ends_in_order_takes_its_workers_along_and_gets_them_back() {
    let broker = Broker::start(&["--set", "host_retry_ms=200"]);
    let mut a = Execd::start(&[]);
    let old = one_echo(&broker, &a);
    worker(&broker, "echo", "a", "isdecho");
    broker.op("start echo");
    broker.await_idle(2);
    a.process.signal(Signal::SIGTERM);
    assert_eq!(a.process.await_end(), 0);
    assert!(!is_alive(old));
    broker.await_page("worker 1", "host lost");
    let said = "its execd is shutting down, and its workers end when they have answered";
    let log = broker.process.await_log(said, 1);
    assert_eq!(log.matches(said).count(), 1, "{log}");
    assert_ended_with_host(&broker, 2);
    a.restart();
    broker.await_new_pid(1, old);
    broker.await_idle(2);
    assert_eq!(restarts(&broker), 0);
    assert_echo(&broker, "echo", 3);
    assert_eq!(broker.end(), 0);
}

/// Checks that `count` workers ended with their host, and that none counted as dead or was started
/// meanwhile.
fn assert_ended_with_host(broker: &Broker, count: usize) {
    let said = "ended with its host, whose execd is shutting down";
    let log = broker.process.await_log(said, count);
    assert_eq!(log.matches(said).count(), count, "{log}");
    for wrong in ["ended unexpectedly", "is put off", "its process may come back"] {
        assert!(!log.contains(wrong), "{wrong}: {log}");
    }
}

#[test]
fn a_built_in_execd_that_ends_in_order_is_replaced_and_its_workers_are_not_blamed() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 3);
    broker.await_idle(3);
    let old = broker.worker_pid(1);
    let execd = broker.number("host localhost", "host->hostpid").try_into().expect("a pid");
    signal_pid(execd, Signal::SIGTERM);
    broker.await_new_pid(1, old);
    broker.await_idle(3);
    assert_ended_with_host(&broker, 3);
    assert_eq!(restarts(&broker), 0);
    assert_echo(&broker, "echo", 3);
    assert_eq!(broker.end(), 0);
}

#[test]
fn workers_that_ignore_the_end_of_their_host_are_killed_by_it_and_not_blamed() {
    let broker = Broker::start(&["--set", "host_retry_ms=200"]);
    let mut a = Execd::start(&[]);
    broker.op("config service echo");
    broker.op(&format!("config host a {}", a.address));
    let (path, flag) = (broker.folder.path().join("stubborn"), broker.folder.path().join("flag"));
    let text =
        format!("#!/bin/sh\ntrap '' TERM\n: > {}\nwhile :; do sleep 1; done\n", flag.display());
    write_program(&path, text.as_bytes());
    broker.op(&format!("config worker echo a {}", path.display()));
    broker.op("start echo");
    await_that("a process that ignores TERM", || flag.exists().then_some(()));
    let old = await_that("its pid", || Some(broker.worker_pid(1)).filter(|pid| *pid != 0));
    // A second signal has them ended at once, a third one without waiting.
    a.process.signal(Signal::SIGTERM);
    let said = "its execd is shutting down, and its workers end when they have answered";
    broker.await_page("host a", said);
    let status = await_that("its end", || {
        a.process.signal(Signal::SIGTERM);
        a.process.ended()
    });
    assert_eq!(status, 0);
    assert!(!is_alive(old));
    broker.await_page("worker 1", "host lost");
    assert_ended_with_host(&broker, 1);
    assert_eq!(broker.end(), 0);
}

#[test]
fn two_brokers_share_a_host_and_leave_each_others_workers_alone() {
    let (one, two) = (Broker::start(&[]), Broker::start(&[]));
    let shared = Execd::start(&[]);
    for broker in [&one, &two] {
        broker.op("config service echo");
        broker.op(&format!("config host shared {}", shared.address));
        worker(broker, "echo", "shared", "isdecho");
        broker.op("start echo");
        broker.await_idle(1);
    }
    let (first, second) = (one.worker_pid(1), two.worker_pid(1));
    assert_ne!(first, second);
    assert_eq!(one.end(), 0);
    await_that("the end of its worker", || (!is_alive(first)).then_some(()));
    assert_eq!(two.worker_pid(1), second);
    assert_echo(&two, "echo", 3);
    assert_eq!(two.end(), 0);
}

#[test]
fn a_host_that_refuses_is_tried_until_it_is_there() {
    let broker = Broker::start(&["--set", "host_retry_ms=100"]);
    broker.remember_events();
    let (closed, address) = listener();
    drop(closed);
    broker.op(&format!("config host far {address}"));
    broker.op("config service echo");
    worker(&broker, "echo", "far", "isdecho");
    broker.op("start echo");
    await_host(&broker, "far", "refused");
    assert!(row(&broker, "far").contains("refused"), "{}", row(&broker, "far"));
    assert!(broker.op("listevents 1000").contains("host_lost"));
    assert!(broker.op("worker 1").contains("host lost"), "{}", broker.op("worker 1"));
    let error = broker
        .login("echo")
        .call("x", Some(Duration::from_millis(200)))
        .expect_err("nobody is there");
    assert!(error.is(protocol::errors::ErrorCode::Deadline), "{error}");
    let _far = Execd::start_at(&address, &[]);
    broker.await_ready(1);
    assert_echo(&broker, "echo", 3);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_host_that_takes_the_connection_and_says_nothing_holds_up_nobody() {
    let broker = Broker::start(&["--set", "host_retry_ms=100", "--set", "login_ms=200"]);
    broker.with_workers("echo", "isdecho", 1);
    let (silent, address) = listener();
    broker.op(&format!("config host silent {address}"));
    worker(&broker, "echo", "silent", "isdecho");
    broker.op("start echo");
    let mut first = accept(&silent);
    assert_echo(&broker, "echo", 20);
    // The broker gives up: it closes this connection and dials again.
    let mut heard = Vec::new();
    first.read_to_end(&mut heard).expect("an end");
    assert!(!heard.is_empty(), "a hello came");
    let _second = accept(&silent);
    assert!(!broker.op("host silent").contains("host->state = up"));
    assert_echo(&broker, "echo", 20);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_host_that_talks_nonsense_is_left_and_tried_again() {
    let broker = Broker::start(&["--set", "host_retry_ms=100"]);
    broker.with_workers("echo", "isdecho", 1);
    let (web, address) = listener();
    broker.op(&format!("config host web {address}"));
    for _ in 0..3 {
        let mut stream = accept(&web);
        let page = [b"HTTP/1.1 400 Bad Request\r\n\r\n".as_slice(), &[b'x'; 500]].concat();
        // The broker may close before it has read all of this.
        let _ = stream.write_all(&page);
        let mut heard = Vec::new();
        let _ = stream.read_to_end(&mut heard);
        assert_echo(&broker, "echo", 3);
    }
    let page = broker.await_page("host web", "version");
    assert!(!page.contains("host->state = up"), "{page}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_host_that_closes_at_once_is_tried_again() {
    let broker = Broker::start(&["--set", "host_retry_ms=50"]);
    let (listener, address) = listener();
    broker.op(&format!("config host closing {address}"));
    for _ in 0..5 {
        drop(accept(&listener));
    }
    drop(listener);
    await_host(&broker, "closing", "refused");
    let _execd = Execd::start_at(&address, &[]);
    await_host(&broker, "closing", "host->state = up");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_host_may_move_and_be_deleted_when_it_has_no_workers() {
    let broker = Broker::start(&["--set", "host_retry_ms=100"]);
    let (a, b) = (Execd::start(&[]), Execd::start(&[]));
    broker.op("config service echo");
    broker.op(&format!("config host h {}", a.address));
    worker(&broker, "echo", "h", "isdecho");
    broker.op("start echo");
    broker.await_idle(1);
    let error = broker.try_op("delete host h").expect_err("it has a worker");
    assert!(error.to_string().contains("worker"), "{error}");
    broker.op("stop echo");
    broker.await_page("worker 1", "worker->hostpid = 0");
    broker.op(&format!("config host h {}", b.address));
    await_host(&broker, "h", "host->state = up");
    broker.op("start echo");
    broker.await_ready(1);
    await_that("the start in its log", || b.process.log().contains("started").then_some(()));
    broker.op("stop echo");
    broker.await_page("worker 1", "worker->hostpid = 0");
    broker.op("delete worker 1");
    broker.op("delete host h");
    let error = broker.try_op("host h").expect_err("it is gone");
    assert!(error.is(protocol::errors::ErrorCode::NotFound), "{error}");
    assert!(!broker.op("save").contains("config host"));
    let error = broker.try_op("delete host localhost").expect_err("it is built in");
    assert!(error.to_string().contains("built in"), "{error}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn hosts_and_their_workers_are_taken_over_by_a_broker_that_was_killed() {
    let mut broker = Broker::start(&["--set", "host_retry_ms=100"]);
    let a = Execd::start(&[]);
    broker.op("config service echo");
    broker.op(&format!("config host a {}", a.address));
    worker(&broker, "echo", "a", "isdecho");
    worker(&broker, "echo", "localhost", "isdecho");
    broker.op("start echo");
    broker.await_idle(2);
    let before = (broker.worker_pid(1), broker.worker_pid(2));
    broker.kill();
    broker.restart();
    broker.await_idle(2);
    await_host(&broker, "a", "host->state = up");
    assert_eq!((broker.worker_pid(1), broker.worker_pid(2)), before);
    assert_echo(&broker, "echo", 4);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_host_starts_only_what_it_is_allowed_to() {
    let broker = Broker::start(&[]);
    let allowed = program("isdecho").parent().expect("a folder").to_string_lossy().into_owned();
    let strict = Execd::start(&["--allow", &allowed]);
    broker.op("config service echo");
    broker.op("config service sleep");
    broker.op(&format!("config host strict {}", strict.address));
    worker(&broker, "echo", "strict", "isdecho");
    broker.op("config worker sleep strict /bin/sleep 1000");
    broker.op("start all");
    broker.await_ready(1);
    let page = broker.await_page("worker 2", "allow");
    assert!(page.contains("failed"), "{page}");
    assert_echo(&broker, "echo", 3);
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_execd_that_is_frozen_is_lost_and_found_again_and_its_workers_serve_on() {
    let broker = Broker::start(&["--set", "heartbeat_ms=100", "--set", "host_retry_ms=100"]);
    let a = Execd::start(&[]);
    let pid = one_echo(&broker, &a);
    a.process.signal(Signal::SIGSTOP);
    await_that("the loss", || (!broker.op("host a").contains("host->state = up")).then_some(()));
    assert_echo(&broker, "echo", 10);
    a.process.signal(Signal::SIGCONT);
    await_host(&broker, "a", "host->state = up");
    assert_eq!((broker.worker_pid(1), restarts(&broker)), (pid, 0));
    assert_echo(&broker, "echo", 10);
    assert_eq!(broker.end(), 0);
}

fn restarts(broker: &Broker) -> i64 {
    broker.number("worker 1", "worker->restarts")
}
