//! Tests of programs whose file does not answer. The file has a lease, which acts like a file
//! server that is down: whoever opens or executes the file waits until the lease is given back.

#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{Execd, Wire, beginning, hold, is_running, until, wait_gone};
use nix::sys::signal::Signal;
use protocol::bodies::{ExecSignal, ExitCause};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::{RunId, WorkerId};

/// Has a broker start worker 1 with a program that is held; gives both when it is forked.
fn start_hanging(execd: &Execd, program: &str) -> (Wire, u32) {
    let mut broker = execd.broker("b");
    broker.start(1, program, &[]);
    (broker, until("it is forked", || beginning(execd).first().copied()))
}

#[test]
fn a_program_that_does_not_answer_keeps_nobody_waiting() {
    let mut execd = Execd::unix(&[]);
    let mute = execd.script("mute", "sleep 1000");
    let other = execd.script("other", "sleep 1000");
    let Some(lease) = hold(&mute) else { return };
    let (mut broker, pid) = start_hanging(&execd, &mute);
    // Meanwhile execd serves this broker and others, and starts other programs.
    assert_eq!(broker.list(), [(1, pid)]);
    let second = broker.started(2, &other, &[]);
    assert!(is_running(second));
    drop(execd.broker("c"));
    let signal = ExecSignal { worker: WorkerId(1), run: RunId(1), signal: 10 };
    broker.send(Frame::ExecSignal(signal));
    let error = broker.expect_error(ErrorCode::Refused);
    assert!(error.text.contains("worker 1 run 1 does not run yet"), "{error}");
    // The program runs as soon as its file answers.
    assert_eq!(beginning(&execd), [pid]);
    drop(lease);
    let frame = broker.next();
    let Frame::ExecStarted(started) = frame else { panic!("{frame:?}") };
    assert_eq!((started.worker, started.pid), (WorkerId(1), pid));
    execd.wait_log(&format!("pid={pid} path=\"{mute}\""));
    broker.stop(1, 5000);
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Signal(15));
}

#[test]
fn a_start_that_hangs_can_be_stopped() {
    let execd = Execd::unix(&[]);
    let mute = execd.script("mute", "sleep 1000");
    let Some(_lease) = hold(&mute) else { return };
    let (mut broker, pid) = start_hanging(&execd, &mute);
    broker.stop(1, 600_000);
    let frame = broker.next();
    let Frame::ExecFailed(failed) = frame else { panic!("{frame:?}") };
    assert_eq!((failed.worker, failed.permanent, failed.again_ms), (WorkerId(1), false, 0));
    assert!(failed.text.contains("ended before it began to run"), "{}", failed.text);
    assert!(failed.text.contains(&mute), "{}", failed.text);
    wait_gone(pid);
    assert!(broker.list().is_empty());
}

#[test]
fn execd_ends_in_order_although_a_start_hangs() {
    let mut execd = Execd::unix(&[]);
    let mute = execd.script("mute", "sleep 1000");
    let Some(_lease) = hold(&mute) else { return };
    let (_broker, pid) = start_hanging(&execd, &mute);
    execd.signal(Signal::SIGTERM);
    assert_eq!(execd.wait().code(), Some(0));
    wait_gone(pid);
}

#[test]
fn a_start_that_is_killed_before_its_program_runs_is_no_process_that_ran() {
    let execd = Execd::unix(&[]);
    let mute = execd.script("mute", "sleep 1000");
    let Some(_lease) = hold(&mute) else { return };
    let (mut broker, pid) = start_hanging(&execd, &mute);
    common::kill(pid, Signal::SIGKILL);
    let frame = broker.next();
    let Frame::ExecFailed(failed) = frame else { panic!("{frame:?}") };
    assert!(failed.text.contains("was killed before it began to run"), "{}", failed.text);
    assert!(broker.list().is_empty());
}

#[test]
fn a_start_that_hangs_outlives_an_execd_that_is_killed_and_can_be_stopped_by_the_next() {
    let home = tempfile::tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let mute = common::script(home.path(), "mute", "sleep 1000");
    let Some(_lease) = hold(&mute) else { return };
    let mut execd = Execd::unix(&["--state", &state]);
    let (mut broker, pid) = start_hanging(&execd, &mute);
    assert_eq!(broker.list(), [(1, pid)]);
    common::await_recorded(&state, &[pid]);
    execd.signal(Signal::SIGKILL);
    execd.wait();
    drop(broker);
    let next = Execd::unix(&["--state", &state]);
    let mut broker = next.broker("b");
    assert_eq!(broker.list(), [(1, pid)]);
    assert!(is_running(pid));
    // There is nothing that could end in order.
    broker.stop(1, 600_000);
    assert_eq!(broker.exited().0.pid, pid);
    wait_gone(pid);
}

#[test]
fn the_descriptors_of_a_start_are_its_streams_and_the_way_back() {
    let execd = Execd::tcp(&[]);
    let mute = execd.script("mute", "sleep 1000");
    let Some(_lease) = hold(&mute) else { return };
    let (_broker, pid) = start_hanging(&execd, &mute);
    let folder = format!("/proc/{pid}/fd");
    let targets = until("it has them in place", || {
        let at = |fd: u32| std::fs::read_link(format!("{folder}/{fd}")).ok();
        let all = [at(0)?, at(1)?, at(2)?, at(3)?].map(|path| path.display().to_string());
        let is_in_place = all[0] == "/dev/null" && all[1..].iter().all(|p| p.starts_with("pipe:"));
        is_in_place.then_some(all)
    });
    // Besides these it has the file that it checks.
    let paths = until("all else is closed", || {
        let entries = std::fs::read_dir(&folder).ok()?;
        let paths = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
        let paths: Vec<String> = paths.map(|path| path.display().to_string()).collect();
        paths.iter().all(|path| targets.contains(path) || *path == mute).then_some(paths)
    });
    assert!(paths.len() <= 6, "{paths:?}");
}
