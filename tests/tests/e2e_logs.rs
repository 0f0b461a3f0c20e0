//! `logs` with real processes: what workers write is kept by the execd built in, shown, and
//! followed, also over restarts of the worker, of execd, and while more comes than is passed on.

use isect_tests::proc::{Broker, Process, await_that, program, signal_pid, write_program};
use nix::sys::signal::Signal;

/// A broker whose workers of `echo` write some lines before they become isdecho.
fn talking(lines: &str) -> Broker {
    let broker = Broker::start(&[]);
    let path = broker.folder.path().join("talker");
    let echo = program("isdecho");
    let text = format!("#!/bin/sh\n{lines}\nexec {} \"$@\"\n", echo.display());
    write_program(&path, text.as_bytes());
    for setting in ["restart_minute_max 1000", "restart_quiet_ms 10"] {
        broker.op(&format!("set {setting}"));
    }
    broker.op("config service echo");
    broker.op(&format!("config worker echo localhost {}", path.display()));
    broker.op("start echo");
    broker.await_ready(1);
    broker
}

fn follow(broker: &Broker, args: &[&str]) -> Process {
    let address = broker.port("client");
    let log = broker.folder.path().join("follower.log");
    Process::start(&program("isdclient"), &[&["-h", &address], args].concat(), log)
}

#[test]
fn what_follows_is_seen_once_over_restarts_of_the_worker_and_ctrl_c_ends_it_in_order() {
    let broker = talking("echo begins $$; echo to stderr $$ >&2");
    broker.await_page("logs 1", "begins");
    let mut follower = follow(&broker, &["logs", "echo", "-f"]);
    follower.await_log("following; end with Ctrl-C", 1);
    let mut pids = vec![broker.worker_pid(1)];
    for _ in 0..5 {
        let old = broker.worker_pid(1);
        signal_pid(old, Signal::SIGKILL);
        pids.push(broker.await_new_pid(1, old));
    }
    follower.await_log("begins", 6);
    follower.await_log("to stderr", 6);
    follower.signal(Signal::SIGINT);
    assert_eq!(follower.await_end(), 0, "{}", follower.log());
    let seen = follower.log();
    for pid in &pids {
        assert_eq!(seen.matches(&format!(" stdout begins {pid}\n")).count(), 1, "{seen}");
        assert_eq!(seen.matches(&format!(" stderr to stderr {pid}\n")).count(), 1, "{seen}");
    }
    assert!(!seen.contains("not passed on"), "{seen}");
    // The same lines are kept, and a plain question shows the last of them.
    let page = broker.op("logs 1 -n 2");
    assert_eq!(page.matches(&format!(" {}", pids[5])).count(), 2, "{page}");
    let page = broker.op("logs echo -n 1");
    assert!(page.starts_with("1 20") && page.trim_end().lines().count() == 1, "{page}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_flood_is_counted_and_the_files_have_it() {
    let broker = talking("seq 1 5000");
    let page = await_that("all is kept", || {
        Some(broker.op("logs 1 -n 5000")).filter(|page| page.contains(" stdout 5000\n"))
    });
    assert_eq!(page.lines().filter(|line| line.contains(" stdout ")).count(), 5000, "{page}");
    let mut follower = follow(&broker, &["logs", "1", "-f", "-n", "1"]);
    follower.await_log("following; end with Ctrl-C", 1);
    let old = broker.worker_pid(1);
    signal_pid(old, Signal::SIGKILL);
    broker.await_new_pid(1, old);
    signal_pid(broker.worker_pid(1), Signal::SIGKILL);
    // Each line is shown once, or counted among those that were not passed on.
    let seen = await_that("all are shown or counted", || {
        let seen = follower.log();
        let of = |line: &str| -> Option<u64> {
            let (count, rest) = line.strip_prefix('(')?.split_once(' ')?;
            rest.contains("not passed on").then(|| count.parse().ok())?
        };
        let counted: u64 = seen.lines().filter_map(of).sum();
        let shown = seen.lines().filter(|line| line.contains(" stdout ")).count() as u64;
        (counted + shown > 5001).then_some(seen)
    });
    assert!(seen.contains("its host keeps them"), "{seen}");
    follower.signal(Signal::SIGINT);
    assert_eq!(follower.await_end(), 0);
}

#[test]
fn an_execd_that_is_killed_goes_on_with_the_files_of_the_one_before() {
    let broker = talking("echo begins $$");
    let pid = broker.worker_pid(1);
    broker.await_page("logs 1", &format!("begins {pid}"));
    broker.kill_execd(&[pid]);
    broker.await_page("hosts", "up");
    signal_pid(pid, Signal::SIGKILL);
    let new = broker.await_new_pid(1, pid);
    let page = broker.await_page("logs 1", &format!("begins {new}"));
    let json = broker.isdclient(&["--json", "logs", "1"], "");
    let json: serde_json::Value = serde_json::from_str(&json.out).expect("JSON");
    let numbers = json["lines"].as_array().expect("lines").iter().map(|line| &line["number"]);
    assert_eq!(numbers.collect::<Vec<_>>(), [1, 2], "{page}");
}

#[test]
fn nothing_is_kept_if_a_service_wants_that() {
    let broker = talking("echo begins");
    broker.op("config service echo output_bytes=0");
    broker.await_page("logs 1", "begins");
    let old = broker.worker_pid(1);
    signal_pid(old, Signal::SIGKILL);
    broker.await_new_pid(1, old);
    let page = broker.op("logs 1");
    assert_eq!(page.matches("begins").count(), 1, "{page}");
    assert!(broker.try_op("logs 9").is_err());
}
