//! Tests, with real processes, every way in which a worker can die, hang or lie, and what its
//! client and the operator are told. The engine's scripts test the timing of restarts.

use client::caller::{Caller, Send};
use client::error::{Code, Error};
use isect_tests::proc::{Broker, await_that, is_alive, program, signal_pid, within, write_program};
use nix::sys::signal::Signal;
use protocol::errors::{ErrorCode, Ran};
use std::time::Duration;

/// A short restart backoff, so that loops of deaths are over soon.
const SOON: &[&str] = &["--set", "restart_min_ms=5", "--set", "restart_max_ms=20"];

fn why(answer: Result<impl std::fmt::Debug, Error>) -> (ErrorCode, Ran, String) {
    let error = answer.expect_err("an error");
    match error.code {
        Code::Isect(code) => (code, error.ran, error.to_string()),
        Code::Application(_) | Code::Newer(_) => panic!("{error}"),
    }
}

/// Sends a request and waits until a worker has it. Returns its sequence.
fn send_to_busy(broker: &Broker, caller: &mut Caller, send: &Send) -> u32 {
    let before = broker.number("", "isdData.BusyWorkers");
    let sequence = caller.send("x", send).expect("sent");
    await_that("a busy worker", || {
        (broker.number("", "isdData.BusyWorkers") > before).then_some(())
    });
    sequence
}

fn outcome(caller: &mut Caller, sequence: u32) -> Result<bytes::Bytes, Error> {
    let reply = caller.recv_from(sequence, Some(isect_tests::proc::TIMEOUT))?;
    reply.error.map_or(Ok(reply.body), Err)
}

/// Writes an executable script into the broker's folder, and returns its path.
fn script(broker: &Broker, name: &str, text: &str) -> String {
    let path = broker.folder.path().join(name);
    write_program(&path, format!("#!/bin/sh\n{text}").as_bytes());
    path.to_string_lossy().into_owned()
}

#[test]
fn a_worker_killed_while_idle_is_replaced_at_once() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    broker.with_workers("echo", "isdecho", 1);
    let old = broker.worker_pid(1);
    signal_pid(old, Signal::SIGKILL);
    broker.await_new_pid(1, old);
    assert_eq!(broker.number("worker 1", "worker->restarts"), 1);
    assert!(broker.op("worker 1").contains("signal 9"), "{}", broker.op("worker 1"));
    let events = broker.op("listevents 100");
    assert!(events.contains("worker_died worker 1 of service 'echo'"), "{events}");
    assert_eq!(broker.login("echo").call("still here", None).expect("an answer"), "still here");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_killed_while_busy_costs_its_client_one_typed_error() {
    let broker = Broker::start(&[]);
    broker.with_workers("frail", "isdcrash hang", 1);
    let mut caller = broker.login("frail");
    let sequence = send_to_busy(&broker, &mut caller, &Send::default());
    let old = broker.worker_pid(1);
    signal_pid(old, Signal::SIGKILL);
    let (code, ran, text) = why(outcome(&mut caller, sequence));
    assert_eq!((code, ran), (ErrorCode::WorkerDied, Ran::Maybe), "{text}");
    assert!(text.contains("worker 1 of service 'frail'"), "{text}");
    broker.await_new_pid(1, old);
    assert_eq!(broker.number("", "isdData.Orphaned"), 0);
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_idempotent_request_is_given_to_another_worker() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    broker.with_workers("mixed", "isdcrash hang", 1);
    broker.with_workers("mixed", "isdecho", 1);
    broker.op("pause 2");
    let mut caller = broker.login("mixed");
    let send = Send { idempotent: true, ..Send::default() };
    let sequence = send_to_busy(&broker, &mut caller, &send);
    broker.op("stop 1");
    broker.op("ready 2");
    signal_pid(broker.worker_pid(1), Signal::SIGKILL);
    assert_eq!(outcome(&mut caller, sequence).expect("an answer"), "x");
    let events = broker.op("listevents 100");
    assert!(events.contains("request_retried"), "{events}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_service_with_retry_repeats_requests_without_the_idempotent_flag() {
    let broker = Broker::start(&[]);
    broker.op("config service frail retry=1 poison_deaths=9");
    broker.with_workers("frail", "isdcrash exit 1", 2);
    let (code, ran, text) = why(broker.login("frail").call("x", None));
    assert_eq!((code, ran), (ErrorCode::WorkerDied, Ran::Maybe), "{text}");
    await_that("both restarts", || {
        let restarts = |id| broker.number(&format!("worker {id}"), "worker->restarts");
        (restarts(1) + restarts(2) == 2).then_some(())
    });
    assert_eq!(broker.number("", "isdData.Poisoned"), 0);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_request_that_kills_workers_is_set_aside_and_the_pool_lives() {
    let broker = Broker::start(SOON);
    broker.with_workers("frail", "isdcrash exit 1", 3);
    let mut caller = broker.login("frail");
    let send = Send { idempotent: true, ..Send::default() };
    let (code, ran, text) = why(caller.call_with("deadly bytes", &send));
    assert_eq!((code, ran), (ErrorCode::Poison, Ran::Maybe), "{text}");
    assert_eq!(broker.number("", "isdData.Poisoned"), 1);
    let list = broker.op("poison");
    assert!(list.contains("frail"), "{list}");
    let transaction = list.lines().nth(1).and_then(|line| line.split_whitespace().next());
    let shown = broker.op(&format!("poison {}", transaction.expect("a row")));
    assert!(shown.contains("|deadly bytes|"), "{shown}");
    broker.await_idle(3);
    let restarts: i64 =
        (1..=3).map(|id| broker.number(&format!("worker {id}"), "worker->restarts")).sum();
    assert_eq!(restarts, 2, "two workers died, not the pool");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_ends_says_how_and_its_last_words() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    broker.with_workers("frail", "isdcrash after 1 stderr last-words exit 7", 1);
    let mut caller = broker.login("frail");
    assert_eq!(caller.call("good", None).expect("an answer"), "good");
    assert_eq!(why(caller.call("bad", None)).0, ErrorCode::WorkerDied);
    let page = broker.await_page("worker 1", "worker->exit_cause = \"exit 7\"");
    assert!(page.contains("last-words"), "{page}");
    let events = broker.op("listevents 100");
    for part in ["ended unexpectedly: exit status 7", "worker_output", "last-words"] {
        assert!(events.contains(part), "no {part} in\n{events}");
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_dies_before_it_logs_in_fails_and_start_tries_again() {
    let broker = Broker::start(SOON);
    broker.remember_events();
    let flag = broker.folder.path().join("flag");
    let text = format!(
        "[ -e {} ] || {{ echo no flag >&2; exit 3; }}\nexec {} \"$@\"\n",
        flag.display(),
        program("isdecho").display()
    );
    let path = script(&broker, "early", &text);
    broker.op("config service early");
    broker.op(&format!("config worker early localhost {path}"));
    broker.op("start early");
    let page = broker.await_failed(1);
    assert!(page.contains("exit 3") && page.contains("no flag"), "{page}");
    let events = broker.op("listevents 100");
    assert!(events.contains("worker_failed worker 1 of service 'early'"), "{events}");
    assert!(broker.op("workers lazy").contains("failed"));
    std::fs::write(flag, "").expect("the flag");
    broker.op("start early");
    broker.await_ready(1);
    assert_eq!(broker.login("early").call("at last", None).expect("an answer"), "at last");
    assert_eq!(broker.end(), 0);
}

#[test]
fn isdcrash_login_fails_too_and_requests_are_refused() {
    let broker = Broker::start(SOON);
    broker.op("config service frail");
    broker.op(&format!("config worker frail localhost {} login", program("isdcrash").display()));
    broker.op("start frail");
    broker.await_failed(1);
    let (code, ran, text) = why(broker.login("frail").call("x", None));
    assert_eq!((code, ran), (ErrorCode::NoWorker, Ran::No), "{text}");
    assert!(text.contains("'start frail' tries again"), "{text}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_does_not_log_in_in_time_is_killed() {
    let mut settings = vec!["--set", "worker_login_ms=100", "--set", "stop_term_ms=100"];
    settings.extend(SOON);
    let broker = Broker::start(&settings);
    broker.remember_events();
    let path = script(&broker, "mute", "trap '' TERM\nsleep 1000 &\nwait\nsleep 1000\n");
    broker.op("config service mute");
    broker.op(&format!("config worker mute localhost {path}"));
    broker.op("start mute");
    broker.await_failed(1);
    let events = broker.op("listevents 200");
    assert!(events.contains("worker_killed worker 1 of service 'mute'"), "{events}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn garbage_half_a_frame_and_an_early_close_each_get_a_typed_error() {
    let broker = Broker::start(&["--set", "return_ms=100"]);
    for (id, (how, expected)) in [
        ("garbage", ErrorCode::BadReply),
        ("half", ErrorCode::WorkerDied),
        ("close", ErrorCode::WorkerDied),
    ]
    .into_iter()
    .enumerate()
    {
        let id = id as u32 + 1;
        broker.with_workers(how, &format!("isdcrash after 1 {how}"), 1);
        let old = broker.worker_pid(id);
        let mut caller = broker.login(how);
        assert_eq!(caller.call("good", None).expect("an answer"), "good");
        let (code, ran, text) = why(caller.call("bad", None));
        assert_eq!((code, ran), (expected, Ran::Maybe), "{how}: {text}");
        broker.await_new_pid(id, old);
        await_that("the end of the old process", || (!is_alive(old)).then_some(()));
        assert_eq!(caller.call("good", None).expect("an answer"), "good", "{how}");
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_hangs_stays_busy_past_the_deadline_until_idled() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    broker.with_workers("hang", "isdcrash hang", 1);
    let mut caller = broker.login("hang");
    let (code, ran, text) = why(caller.call("x", Some(Duration::from_millis(200))));
    assert_eq!((code, ran), (ErrorCode::Deadline, Ran::Maybe), "{text}");
    assert!(broker.op("workers busy").contains("hang"), "{}", broker.op("workers"));
    assert!(broker.op("listevents 100").contains("request_overdue"));
    assert!(broker.op("last 1").contains("|x|"), "{}", broker.op("last 1"));
    assert_eq!(broker.op("idle 1").trim_end(), "idled worker 1");
    assert!(broker.op("workers idle").contains("hang"));
    let sequence = send_to_busy(&broker, &mut caller, &Send::default());
    broker.op("idle 1");
    let (code, ran, text) = why(outcome(&mut caller, sequence));
    assert_eq!((code, ran), (ErrorCode::Intervention, Ran::Maybe), "{text}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_busy_past_kill_after_is_replaced() {
    let broker = Broker::start(&[]);
    broker.op("config service hang kill_after_ms=200");
    broker.with_workers("hang", "isdcrash after 1 hang", 1);
    let mut caller = broker.login("hang");
    caller.call("good", None).expect("an answer");
    let old = broker.worker_pid(1);
    let (code, ran, text) = why(caller.call("bad", None));
    assert_eq!((code, ran), (ErrorCode::WorkerDied, Ran::Maybe), "{text}");
    broker.await_new_pid(1, old);
    assert_eq!(caller.call("good", None).expect("an answer"), "good");
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_idle_worker_that_is_frozen_is_noticed_and_replaced() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 1);
    let old = broker.worker_pid(1);
    signal_pid(old, Signal::SIGSTOP);
    let replaced = within(Duration::from_secs(15), || {
        let pid = broker.worker_pid(1);
        (pid != old && pid != 0).then_some(())
    });
    assert!(replaced.is_some(), "{}", broker.op("worker 1"));
    broker.await_ready(1);
    await_that("the end of the frozen process", || (!is_alive(old)).then_some(()));
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    assert_eq!(broker.end(), 0);
}

#[test]
fn stop_asks_then_terminates_then_kills_the_whole_group() {
    let broker = Broker::start(&["--set", "stop_ask_ms=50", "--set", "stop_term_ms=50"]);
    let pids = broker.folder.path().join("pids");
    let text = format!(
        "trap '' TERM\nsh -c 'trap \"\" TERM; echo $$ > {0}.new; mv {0}.new {0}; while :; do sleep 1; done' &\n\
         while :; do sleep 1; done\n",
        pids.display()
    );
    let path = script(&broker, "stubborn", &text);
    broker.op("config service stubborn");
    broker.op(&format!("config worker stubborn localhost {path}"));
    broker.op("start stubborn");
    let child: u32 = await_that("the worker's own child", || {
        std::fs::read_to_string(&pids).ok()?.trim().parse().ok()
    });
    let parent = await_that("the pid", || Some(broker.worker_pid(1)).filter(|pid| *pid != 0));
    assert!(is_alive(parent) && is_alive(child));
    assert_eq!(broker.op("stop stubborn").trim_end(), "Ok.");
    broker.await_page("worker 1", "signal 9");
    await_that("the end of the group", || (!is_alive(parent) && !is_alive(child)).then_some(()));
    broker.op("delete worker 1");
    assert_eq!(broker.end(), 0);
}

#[test]
fn stop_lets_a_busy_worker_finish_and_a_second_stop_does_not() {
    let broker = Broker::start(&["--set", "stop_ask_ms=50", "--set", "stop_term_ms=50"]);
    let gate = broker.folder.path().join("gate");
    let wait = script(
        &broker,
        "wait",
        &format!("while [ ! -e {} ]; do sleep 0.01; done\necho done\n", gate.display()),
    );
    broker.with_workers("slow", &format!("isdpipe {wait}"), 1);
    let mut caller = broker.login("slow");
    let sequence = send_to_busy(&broker, &mut caller, &Send::default());
    let pid = broker.worker_pid(1);
    broker.op("stop slow");
    assert!(is_alive(pid), "it may finish");
    let (code, ran, _) = why(broker.login("slow").call("y", None));
    assert_eq!((code, ran), (ErrorCode::ServiceStopped, Ran::No));
    std::fs::write(&gate, "").expect("the gate");
    assert_eq!(outcome(&mut caller, sequence).expect("an answer"), "done\n");
    await_that("its end", || (!is_alive(pid)).then_some(()));
    std::fs::remove_file(&gate).expect("the gate");

    broker.op("start slow");
    broker.await_ready(1);
    let sequence = send_to_busy(&broker, &mut caller, &Send::default());
    let pid = broker.worker_pid(1);
    broker.op("stop slow");
    broker.op("stop slow");
    let (code, ran, text) = why(outcome(&mut caller, sequence));
    assert_eq!((code, ran), (ErrorCode::WorkerDied, Ran::Maybe), "{text}");
    await_that("its end", || (!is_alive(pid)).then_some(()));
    assert_eq!(broker.end(), 0);
}

#[test]
fn what_a_killed_worker_had_started_does_not_outlive_it() {
    let broker = Broker::start(&[]);
    let pids = broker.folder.path().join("pids");
    let text = format!("echo $$ > {0}.new; mv {0}.new {0}; exec sleep 1000\n", pids.display());
    let path = script(&broker, "long", &text);
    broker.with_workers("pipe", &format!("isdpipe {path}"), 1);
    let mut caller = broker.login("pipe");
    send_to_busy(&broker, &mut caller, &Send::default());
    let child: u32 = await_that("the worker's program", || {
        std::fs::read_to_string(&pids).ok()?.trim().parse().ok()
    });
    let old = broker.worker_pid(1);
    signal_pid(old, Signal::SIGKILL);
    broker.await_new_pid(1, old);
    await_that("the end of what it had started", || (!is_alive(child)).then_some(()));
    assert_eq!(broker.end(), 0);
}
