//! Tests real processes when the broker or its execd ends, in order or not, and comes back: what is
//! kept, what is taken over, what callers are told. Scripts test the engine's rules for it.

use client::caller::{Caller, Options, Send};
use client::error::{Code, Error};
use isect_tests::proc::{Broker, TIMEOUT, await_that, is_alive, run, signal_pid};
use nix::sys::signal::Signal;
use protocol::errors::{ErrorCode, Ran};
use protocol::names::ServiceName;
use std::time::Duration;

fn execd_pid(broker: &Broker) -> u32 {
    u32::try_from(broker.number("host localhost", "host->hostpid")).expect("a process id")
}

fn pids(broker: &Broker, ids: std::ops::RangeInclusive<u32>) -> Vec<u32> {
    ids.map(|id| broker.worker_pid(id)).collect()
}

fn restarts(broker: &Broker, id: u32) -> i64 {
    broker.number(&format!("worker {id}"), "worker->restarts")
}

/// A caller that logs in again when its connection broke.
fn reconnecting(broker: &Broker, service: &str) -> Caller {
    let mut options = Options::new(ServiceName::new(service).expect("a name"));
    options.reconnect = true;
    Caller::login(&[broker.address()], options).expect("a login")
}

/// Sends a request that a worker gets and does not answer. Returns its sequence.
fn send_to_busy(broker: &Broker, caller: &mut Caller) -> u32 {
    let sequence = caller.send("x", &Send::default()).expect("sent");
    await_that("a busy worker", || (broker.number("", "isdData.BusyWorkers") == 1).then_some(()));
    sequence
}

fn outcome(caller: &mut Caller, sequence: u32) -> Error {
    match caller.recv_from(sequence, Some(TIMEOUT)) {
        Ok(reply) => reply.error.expect("no answer"),
        Err(error) => error,
    }
}

#[test]
fn a_script_that_is_piped_again_makes_nothing_again() {
    let broker = Broker::start(&[]);
    let echo = isect_tests::proc::program("isdecho");
    let line = format!("config worker echo localhost {}\n", echo.display());
    let script = format!("# setup\nconfig service echo retry=1\n{line}{line}start echo\n");
    for (run, summary) in [
        (0, "4 commands done, 0 unchanged, 0 failed"),
        (1, "0 commands done, 4 unchanged, 0 failed"),
        (2, "0 commands done, 4 unchanged, 0 failed"),
    ] {
        let done = broker.isdclient(&[], &script);
        assert_eq!((done.status, done.err.as_str()), (0, ""), "run {run}");
        assert_eq!(done.out.lines().last(), Some(summary), "run {run}");
        let saved = broker.op("save");
        assert_eq!(saved.matches("config worker").count(), 2, "run {run}: {saved}");
        // What `save` prints is a script, too.
        let done = broker.isdclient(&[], &saved);
        let last = done.out.lines().last();
        assert_eq!(last, Some("0 commands done, 5 unchanged, 0 failed"), "{saved}");
    }
    let read = broker.isdclient(&[], "services\n");
    assert_eq!(read.out, broker.isdclient(&["-c", "services"], "").out);
    assert_eq!(broker.end(), 0);
}

#[test]
fn workers_serve_while_their_execd_is_gone_and_the_next_one_takes_them_over() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 2);
    let before = pids(&broker, 1..=2);
    let execd = broker.kill_execd(&before);
    let mut caller = broker.login("echo");
    for index in 0..100 {
        assert_eq!(caller.call(format!("{index}"), None).expect("an answer"), format!("{index}"));
    }
    let new = await_that("another execd", || {
        let page = broker.op("host localhost");
        let pid = execd_pid(&broker);
        (page.contains("host->state = up") && pid != execd && pid != 0).then_some(pid)
    });
    assert!(is_alive(new));
    assert_eq!(pids(&broker, 1..=2), before);
    assert_eq!((restarts(&broker, 1), restarts(&broker, 2)), (0, 0));
    // The new execd notices their end, and can end them, although it did not start them.
    signal_pid(before[0], Signal::SIGKILL);
    broker.await_new_pid(1, before[0]);
    broker.op("stop 2");
    await_that("the end of worker 2", || (!is_alive(before[1])).then_some(()));
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_ends_while_its_execd_is_gone_is_started_by_the_next_one() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 1);
    let old = broker.worker_pid(1);
    broker.kill_execd(&[old]);
    signal_pid(old, Signal::SIGKILL);
    broker.await_new_pid(1, old);
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_killed_broker_comes_back_with_its_configuration_and_takes_its_workers_over() {
    let mut broker = Broker::start(&[]);
    broker.op("config service \"echo\" queue_max=77");
    broker.with_workers("echo", "isdecho", 3);
    broker.op("config service eat");
    broker.op("stop eat");
    broker.op("pause 3");
    broker.op("set stall_ms 7000");
    broker.op("buckets 12 5");
    broker.remember_events();
    let (saved, before, execd) = (broker.op("save"), pids(&broker, 1..=3), execd_pid(&broker));
    let ports = broker.ports.clone();
    broker.kill();
    assert!(before.iter().all(|pid| is_alive(*pid)) && is_alive(execd));
    broker.restart();
    for key in ["client", "worker", "client_unix", "worker_unix", "execd"] {
        assert_eq!(broker.ports[key], ports[key], "{key}");
    }
    broker.await_idle(2);
    assert_eq!(broker.op("save"), saved);
    await_that("the same processes", || (pids(&broker, 1..=3) == before).then_some(()));
    assert_eq!(execd_pid(&broker), execd);
    assert_eq!((1..=3).map(|id| restarts(&broker, id)).sum::<i64>(), 0);
    let events = broker.await_page("listevents 1000", "worker_adopted worker 3");
    assert!(events.contains("worker_adopted worker 1"), "{events}");
    assert!(broker.op("workers lazy").contains("paused"), "{}", broker.op("workers"));
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    assert_eq!(broker.end(), 0);
}

#[test]
fn callers_are_told_that_the_broker_is_lost_and_can_go_on_when_it_is_back() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("frail", "isdcrash after 2 hang", 1);
    broker.with_workers("echo", "isdecho", 1);
    let mut plain = broker.login("frail");
    let mut patient = reconnecting(&broker, "echo");
    for _ in 0..2 {
        plain.call("x", None).expect("an answer");
    }
    patient.call("x", None).expect("an answer");
    let sequence = send_to_busy(&broker, &mut plain);
    broker.kill();
    let error = outcome(&mut plain, sequence);
    assert_eq!((error.code, error.ran), (Code::Isect(ErrorCode::BrokerLost), Ran::Maybe));
    let error = plain.call("y", None).expect_err("no broker");
    assert_eq!((error.code, error.ran), (Code::Isect(ErrorCode::BrokerLost), Ran::No), "{error}");
    // The client notices the loss before it sends, so the request is not lost with the connection.
    assert!(patient.recv(Some(TIMEOUT)).expect_err("no broker").is(ErrorCode::BrokerLost));
    let answer = std::thread::scope(|scope| {
        let waiting = scope.spawn(|| patient.call("later", Some(TIMEOUT)));
        broker.restart();
        waiting.join().expect("no panic")
    });
    assert_eq!(answer.expect("an answer"), "later");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_stream_of_idempotent_requests_survives_three_kills_of_the_broker() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 2);
    let before = pids(&broker, 1..=2);
    let mut caller = reconnecting(&broker, "echo");
    let is_over = std::sync::atomic::AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let asking = scope.spawn(|| {
            let mut answered = 0_u64;
            while !is_over.load(std::sync::atomic::Ordering::Relaxed) {
                let body = answered.to_be_bytes().to_vec();
                let send = Send { idempotent: true, deadline: Some(TIMEOUT), ..Send::default() };
                let answer = caller.call_with(body.clone(), &send).expect("an answer");
                assert!(answer == body, "the answer to another request");
                answered += 1;
            }
            answered
        });
        for _ in 0..3 {
            let before = broker.number("", "isdData.Completed");
            await_that("some answers", || {
                (broker.number("", "isdData.Completed") > before + 20).then_some(())
            });
            broker.kill();
            broker.restart();
        }
        await_that("answers again", || (broker.number("", "isdData.Completed") > 20).then_some(()));
        is_over.store(true, std::sync::atomic::Ordering::Relaxed);
        asking.join().expect("every answer is right")
    });
    assert!(answered > 80, "{answered}");
    assert_eq!(pids(&broker, 1..=2), before);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_was_busy_when_the_broker_died_is_not_restarted() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("pipe", "isdpipe sleep 0.5", 1);
    let pid = broker.worker_pid(1);
    let mut caller = broker.login("pipe");
    let sequence = send_to_busy(&broker, &mut caller);
    broker.kill();
    assert!(outcome(&mut caller, sequence).is(ErrorCode::BrokerLost));
    broker.restart();
    broker.await_ready(1);
    assert_eq!((broker.worker_pid(1), restarts(&broker, 1)), (pid, 0));
    assert_eq!(broker.login("pipe").call("x", None).expect("an answer"), "");
    assert_eq!(broker.end(), 0);
}

#[test]
fn broker_and_execd_killed_at_once_still_lose_no_worker() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 2);
    let before = pids(&broker, 1..=2);
    broker.kill_execd(&before);
    broker.kill();
    broker.restart();
    broker.await_idle(2);
    assert_eq!(pids(&broker, 1..=2), before);
    signal_pid(before[1], Signal::SIGKILL);
    broker.await_new_pid(2, before[1]);
    assert_eq!(broker.end(), 0);
}

#[test]
fn workers_that_died_while_the_broker_was_gone_are_started_again() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 2);
    let before = pids(&broker, 1..=2);
    broker.kill();
    signal_pid(before[0], Signal::SIGKILL);
    broker.restart();
    broker.await_new_pid(1, before[0]);
    broker.await_ready(2);
    assert_eq!(broker.worker_pid(2), before[1]);
    assert_eq!(broker.end(), 0);
}

#[test]
fn what_was_answered_before_a_kill_is_there_after_it() {
    let mut broker = Broker::start(&[]);
    let mut count = 0;
    for round in 0..4 {
        let mut op = broker.login("op");
        for _ in 0..=round {
            op.call(format!("config service s{count}"), None).expect("an answer");
            count += 1;
        }
        broker.kill();
        broker.restart();
        let services = broker.op("services");
        for index in 0..count {
            assert!(services.contains(&format!("s{index} ")), "s{index} of {count}:\n{services}");
        }
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_orderly_end_fails_what_waits_ends_all_processes_and_the_next_start_has_them_again() {
    let mut broker = Broker::start(&["--set", "stop_ask_ms=100"]);
    broker.with_workers("hang", "isdcrash after 1 hang", 1);
    broker.with_workers("echo", "isdecho", 1);
    broker.with_workers("pipe", "isdpipe sleep 1000", 1);
    let (mut busy, mut waiting) = (broker.login("hang"), broker.login("hang"));
    busy.call("x", None).expect("an answer");
    let busy_sequence = send_to_busy(&broker, &mut busy);
    let waiting_sequence = waiting.send("y", &Send::default()).expect("sent");
    let mut pipe = broker.login("pipe");
    pipe.send("z", &Send::default()).expect("sent");
    await_that("two busy", || (broker.number("", "isdData.BusyWorkers") == 2).then_some(()));
    let sleeper = await_that("the program", || {
        let pid = broker.worker_pid(3);
        let children = format!("/proc/{pid}/task/{pid}/children");
        std::fs::read_to_string(children).ok()?.split_whitespace().next()?.parse::<u32>().ok()
    });
    broker.process.signal(Signal::SIGTERM);
    let error = outcome(&mut waiting, waiting_sequence);
    assert_eq!((error.code, error.ran), (Code::Isect(ErrorCode::ShuttingDown), Ran::No));
    let error = outcome(&mut busy, busy_sequence);
    assert_eq!(error.ran, Ran::Maybe, "{error}");
    assert_eq!(broker.process.await_end(), 0);
    broker.await_nothing_left();
    await_that("the end of a worker's child", || (!is_alive(sleeper)).then_some(()));
    broker.restart();
    broker.await_idle(3);
    assert_eq!(broker.login("echo").call("again", None).expect("an answer"), "again");
    assert_eq!(broker.end(), 0);
}

#[test]
fn halt_ends_with_status_1_and_leaves_nothing() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 2);
    // The broker ends, so its answer may or may not come.
    drop(broker.try_op("halt"));
    assert_eq!(broker.process.await_end(), 1);
    broker.await_nothing_left();
}

#[test]
fn abort_ends_with_sigabrt_and_the_workers_are_taken_over() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 1);
    let pid = broker.worker_pid(1);
    drop(broker.try_op("abort"));
    assert_eq!(broker.process.await_end(), 134);
    assert!(is_alive(pid));
    broker.restart();
    broker.await_idle(1);
    assert_eq!(broker.worker_pid(1), pid);
    assert_eq!(broker.end(), 0);
}

#[test]
fn without_a_state_directory_nothing_outlives_the_broker() {
    for is_killed in [false, true] {
        let mut broker = Broker::start(&["--state", "none"]);
        broker.with_workers("echo", "isdecho", 2);
        let pids = pids(&broker, 1..=2);
        assert!(!broker.folder.path().join("state").exists());
        broker.process.signal(if is_killed { Signal::SIGKILL } else { Signal::SIGTERM });
        assert_eq!(broker.process.await_end(), if is_killed { 137 } else { 0 });
        broker.await_nothing_left();
        assert!(pids.iter().all(|pid| !is_alive(*pid)));
    }
}

#[test]
fn a_second_broker_on_the_same_directory_is_refused() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 1);
    let state = broker.folder.path().join("state");
    let args = ["--listen", "127.0.0.1:0", "--state", state.to_str().expect("UTF-8")];
    let second = run("isectd", &args, b"");
    assert_eq!(second.status, 4, "{second:?}");
    assert!(second.err.contains("runs on the state directory"), "{second:?}");
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_second_signal_does_not_wait() {
    let mut broker = Broker::start(&["--set", "stop_ask_ms=60000"]);
    broker.with_workers("hang", "isdcrash hang", 1);
    let mut caller = broker.login("hang");
    send_to_busy(&broker, &mut caller);
    broker.process.signal(Signal::SIGTERM);
    await_that("the first one is heard", || {
        broker.process.log().contains("the broker ends").then_some(())
    });
    broker.process.signal(Signal::SIGTERM);
    assert_eq!(broker.process.await_end(), 8);
    broker.await_nothing_left();
}

#[test]
fn a_broker_that_was_frozen_blames_nobody_for_its_own_silence() {
    let broker = Broker::start(&["--set", "heartbeat_ms=100", "--set", "return_ms=100"]);
    broker.with_workers("echo", "isdecho", 2);
    let before = pids(&broker, 1..=2);
    let mut caller = broker.login("echo");
    caller.call("x", None).expect("an answer");
    broker.process.signal(Signal::SIGSTOP);
    // Nobody is answered for many heartbeats.
    let error = caller.call("y", Some(Duration::from_millis(1500))).expect_err("no answer");
    assert!(error.is(ErrorCode::Timeout), "{error}");
    broker.process.signal(Signal::SIGCONT);
    assert_eq!(broker.login("echo").call("z", None).expect("an answer"), "z");
    assert_eq!(broker.login("op").call("version", None).map(|_| ()).ok(), Some(()));
    for _ in 0..20 {
        assert_eq!(caller.call("w", None).expect("an answer"), "w");
    }
    assert_eq!(pids(&broker, 1..=2), before);
    assert_eq!((restarts(&broker, 1), restarts(&broker, 2)), (0, 0));
    assert!(broker.op("host localhost").contains("host->state = up"));
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_command_that_was_taken_is_read_again_however_it_is_quoted() {
    let mut broker = Broker::start(&[]);
    broker.op("config service echo");
    // Each character of this word is saved as two bytes.
    let doubled = |count: usize| format!("'{}'\\'", "\"\\".repeat(count / 2));
    let config =
        |arg: &str| broker.try_op(&format!("config worker echo localhost /bin/echo {arg}"));
    let error = config(&doubled(16_000)).expect_err("it could not be read again");
    assert!(error.text.contains("at most 16384 can be read again"), "{error}");
    let at = |count: usize| config(&doubled(count)).is_ok();
    let most = (8_000..8_200).rev().find(|count| at(count / 2 * 2)).expect("half of it is well");
    assert!(most > 8_100, "{most}");
    config(r#"'a b' "it's" '' "\\\"" \\\' a"b"'c' \ x é"#).expect("words of all kinds");
    // Together they are longer than a script that an operator may give.
    let plain = "x".repeat(16_000);
    for _ in 0..80 {
        config(&plain).expect("a worker");
    }
    let before = broker.op("save");
    assert!(before.len() > 1 << 20, "{}", before.len());
    broker.kill();
    broker.restart();
    assert_eq!(broker.op("save"), before);
    assert!(!broker.process.log().contains("saved configuration:"), "{}", broker.process.log());
    // `save` prints an ordinary script, too.
    let one = before.lines().find(|line| line.contains("é")).expect("a line");
    broker.op("delete worker 2");
    broker.op(one);
    assert_eq!(broker.op("save"), before);
    assert_eq!(broker.end(), 0);
}
