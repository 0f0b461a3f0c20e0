//! Rolls out a new version of a program with real processes: under load no request is lost, refused
//! or repeated; a version that crashes leaves the old one serving. Also, what is recycled by
//! memory. `OVERLOAD=long` takes 64 workers and 100,000 requests, and prints figures.

use client::caller::{Caller, Send};
use isect_tests::figures::{is_long, now, say};
use isect_tests::proc::{Broker, TIMEOUT, await_that, program};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// How long a rolling restart may take.
const LIMIT: Duration = Duration::from_secs(300);

/// Puts a program where workers are started from, in place of the one that is there.
fn roll_out(path: &Path, bytes: &[u8]) {
    use std::os::unix::fs::PermissionsExt;
    let new = path.with_extension("new");
    std::fs::write(&new, bytes).expect("written");
    std::fs::set_permissions(&new, std::fs::Permissions::from_mode(0o755)).expect("executable");
    std::fs::rename(&new, path).expect("renamed");
}

/// A broker whose service `echo` has so many workers of a program that can be replaced.
fn with_program(count: usize) -> (Broker, PathBuf) {
    let broker = Broker::start(&[]);
    let path = broker.folder.path().join("version");
    roll_out(&path, &std::fs::read(program("isdecho")).expect("isdecho"));
    broker.op("config service echo stable_ms=200");
    broker.op(&format!("config worker echo localhost {}", path.display()));
    if count > 1 {
        broker.op(&format!("scale echo {count}"));
    }
    broker.op("start echo");
    broker.await_idle(count as i64);
    (broker, path)
}

fn restart(broker: &Broker, words: &str) -> Result<String, String> {
    let answer = broker.login("op").call(format!("restart {words}"), Some(LIMIT));
    answer
        .map(|text| String::from_utf8_lossy(&text).into_owned())
        .map_err(|error| error.to_string())
}

/// Asks one request after another until the load ends; the times that they took, in microseconds.
fn load(mut caller: Caller, who: usize, least: usize, is_over: &AtomicBool) -> Vec<u64> {
    let mut times = Vec::new();
    while !is_over.load(Ordering::Relaxed) || times.len() < least {
        let body = format!("{who}/{}", times.len());
        let begun = now();
        caller.send(body.clone(), &Send::default()).expect("sent");
        let reply = caller.recv(Some(TIMEOUT)).expect("an outcome");
        assert!(reply.error.is_none(), "request {body}: {:?}", reply.error);
        assert_eq!(reply.body, body.as_bytes());
        times.push(u64::try_from(begun.elapsed().as_micros()).unwrap_or(u64::MAX));
    }
    times
}

fn p99(mut times: Vec<u64>) -> u64 {
    times.sort_unstable();
    times.get(times.len() * 99 / 100).copied().unwrap_or_default()
}

/// Restarts a service under load; how long that took, and p99 before it and meanwhile.
fn rolled(count: usize, requests: usize, callers: usize) -> (Duration, u64, u64) {
    let (broker, _) = with_program(count);
    broker.remember_events();
    let ids: Vec<u32> = (1..=count as u32).collect();
    let before: Vec<u32> = ids.iter().map(|&id| broker.worker_pid(id)).collect();
    let under_load = |work: &(dyn Fn() + Sync), least: usize| -> Vec<u64> {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let threads: Vec<_> = (0..callers)
                .map(|who| {
                    let (caller, is_over) = (broker.login("echo"), &is_over);
                    scope.spawn(move || load(caller, who, least / callers, is_over))
                })
                .collect();
            work();
            is_over.store(true, Ordering::Relaxed);
            threads.into_iter().flat_map(|thread| thread.join().expect("all right")).collect()
        })
    };
    let before_it = under_load(&|| {}, requests / 5);
    let took = std::sync::Mutex::new(Duration::ZERO);
    let restarting = || {
        let begun = now();
        let said = restart(&broker, "echo").expect("restarted");
        let workers = if count == 1 { "1 worker".to_owned() } else { format!("{count} workers") };
        assert_eq!(said.trim_end(), format!("restarted {workers} of echo"));
        *took.lock().expect("unlocked") = begun.elapsed();
    };
    let times = under_load(&restarting, requests);
    let sent = (times.len() + before_it.len()) as i64;
    assert_eq!(broker.number("", "isdData.Completed"), sent);
    assert_eq!(broker.number("", "isdData.Refused"), 0);
    let events = broker.op("listevents");
    for kind in ["request_failed", "request_retried", "worker_died", "worker_killed", "overloaded"]
    {
        assert!(!events.contains(kind), "{events}");
    }
    let after: Vec<u32> = ids.iter().map(|&id| broker.worker_pid(id)).collect();
    assert!(before.iter().all(|pid| !after.contains(pid)), "{before:?} {after:?}");
    broker.await_idle(count as i64);
    assert_eq!(broker.end(), 0);
    (took.into_inner().expect("unlocked"), p99(before_it), p99(times))
}

#[test]
fn a_rolling_restart_under_load_loses_no_request() {
    let steps: &[(usize, usize)] =
        if is_long() { &[(1, 10_000), (8, 20_000), (64, 100_000)] } else { &[(1, 300), (4, 2000)] };
    for &(count, requests) in steps {
        let (took, before, during) = rolled(count, requests, 8.min(count * 2));
        say(&format!(
            "restart of {count} workers: {} ms; p99 of requests {before} us before, {during} us \
             meanwhile",
            took.as_millis()
        ));
    }
}

#[test]
fn a_new_version_that_crashes_leaves_the_old_one_serving() {
    let (broker, path) = with_program(3);
    let before: Vec<u32> = (1..=3).map(|id| broker.worker_pid(id)).collect();
    roll_out(&path, b"#!/bin/sh\necho 'no database' >&2\nexit 3\n");
    let address = broker.port("client");
    let done = isect_tests::proc::run("isdclient", &["-h", &address, "-c", "restart echo"], b"");
    assert_ne!(done.status, 0, "{}{}", done.out, done.err);
    assert!(done.err.contains("no old one was touched"), "{}", done.err);
    assert!(done.err.contains("exit status 3; last line of stderr: no database"), "{}", done.err);
    let after: Vec<u32> = (1..=3).map(|id| broker.worker_pid(id)).collect();
    assert_eq!(before, after);
    assert_eq!(broker.login("echo").call("x", Some(TIMEOUT)).expect("an answer"), "x");
    // The temporary one is gone.
    await_that("no temporary worker", || {
        (!broker.op("workers").contains("temporary")).then_some(())
    });
    roll_out(&path, &std::fs::read(program("isdecho")).expect("isdecho"));
    assert_eq!(
        restart(&broker, "echo").expect("restarted").trim_end(),
        "restarted 3 workers of echo"
    );
    assert_eq!(broker.end(), 0);
}

#[test]
fn recycling_replaces_workers_and_loses_no_request() {
    let (broker, _) = with_program(2);
    broker.op("config service echo recycle_requests=50");
    let before: Vec<u32> = (1..=2).map(|id| broker.worker_pid(id)).collect();
    let is_over = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let caller = broker.login("echo");
        let thread = scope.spawn(|| load(caller, 0, 200, &is_over));
        for (id, &pid) in (1..).zip(&before) {
            broker.await_new_pid(id, pid);
        }
        is_over.store(true, Ordering::Relaxed);
        let sent = thread.join().expect("all right").len() as i64;
        assert_eq!(broker.number("", "isdData.Completed"), sent);
    });
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_broker_that_is_killed_meanwhile_leaves_no_temporary_worker() {
    let (mut broker, _) = with_program(2);
    broker.op("config service echo stable_ms=3600000");
    let mut operator = broker.login("op");
    operator.send("restart echo", &Send::default()).expect("sent");
    broker.await_page("workers", "temporary");
    broker.await_idle(3);
    broker.kill();
    broker.restart();
    broker.await_idle(2);
    assert!(!broker.op("workers").contains("temporary"), "{}", broker.op("workers"));
    assert_eq!(broker.number("", "isdData.IdleWorkers"), 2);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_with_too_much_memory_is_replaced_once_it_has_answered_enough() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    broker.op("config service eat recycle_memory=40000000 stable_ms=0");
    broker.with_workers("eat", "isdcrash after 25 memory 64", 1);
    let before = broker.worker_pid(1);
    let mut caller = broker.login("eat");
    for _ in 0..25 {
        assert_eq!(caller.call("a", Some(TIMEOUT)).expect("a reply"), "a");
    }
    assert_eq!(broker.worker_pid(1), before);
    assert!(!broker.op("listevents 1000").contains("worker_recycled"));
    // It takes memory in place of an answer, which ends that request and no other one.
    assert!(caller.call("b", Some(Duration::from_millis(500))).is_err());
    broker.await_new_pid(1, before);
    broker.await_ready(1);
    assert_eq!(caller.call("c", Some(TIMEOUT)).expect("a reply"), "c");
    let events = broker.op("listevents 1000");
    assert!(events.contains("worker_recycled") && events.contains("recycle_memory"), "{events}");
    assert!(!events.contains("worker_died"), "{events}");
    assert_eq!(broker.op("deaths").trim_end(), "no worker's process has ended unexpectedly");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_limit_of_memory_below_that_of_a_new_process_does_not_spin() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    broker.op("config service low recycle_memory=4096");
    broker.with_workers("low", "isdecho", 2);
    let pids = [broker.worker_pid(1), broker.worker_pid(2)];
    broker.await_page("listevents 100", "memory_max_too_low");
    // The other one is as big. It may have had many requests before its host looks, and is replaced
    // once for that; its next process shows that this was of no use.
    let mut caller = broker.login("low");
    let begun = now();
    while begun.elapsed() < Duration::from_secs(5) {
        caller.call("a", Some(TIMEOUT)).expect("a reply");
    }
    let events = broker.op("listevents 1000");
    assert_eq!(events.matches("memory_max_too_low").count(), 1, "{events}");
    assert!(events.matches("worker_recycled").count() <= 2, "{events}");
    assert!(pids.contains(&broker.worker_pid(1)) || pids.contains(&broker.worker_pid(2)));
    assert_eq!(broker.end(), 0);
}
