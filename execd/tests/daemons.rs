//! Tests of processes that leave their worker's group and session and lose their parent. A real
//! isdexecd takes them in and ends them with their worker.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

mod common;

use common::{Execd, Wire, is_running, until, usual, wait_gone};
use nix::sys::signal::Signal;
use protocol::bodies::ExitCause;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use std::fs;
use std::process::Command;

/// A shell line that makes `command` a classic daemon: it has its own session and lost its parent.
/// It prints the daemon's process id.
fn daemon(command: &str) -> String {
    format!("(setsid sh -c 'echo $$; exec {command}' </dev/null &)")
}

fn pid(line: &str) -> u32 {
    line.parse().unwrap_or_else(|_| panic!("no process id: {line}"))
}

#[test]
fn a_daemon_lives_as_long_as_its_worker_and_not_longer() {
    let execd = Execd::unix(&[]);
    let program = execd.script("parent", &format!("{}; exec sleep 1000", daemon("sleep 1000")));
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    let left = pid(&broker.line());
    // The end of another worker changes nothing.
    broker.started(2, "/bin/true", &[]);
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Exit(0));
    assert!(is_running(left));
    broker.stop(1, 10_000);
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Signal(15));
    wait_gone(left);
}

#[test]
fn daemons_of_daemons_end_too() {
    let execd = Execd::unix(&[]);
    let nested = execd.script("nested", &format!("{}; exec sleep 1000", daemon("sleep 1000")));
    let program = execd.script("parent", &format!("{}; exec sleep 1000", daemon(&nested)));
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    let (one, other) = (pid(&broker.line()), pid(&broker.line()));
    broker.stop(1, 0);
    broker.exited();
    wait_gone(one);
    wait_gone(other);
}

#[test]
fn who_wipes_its_environment_is_ended_all_the_same() {
    let execd = Execd::unix(&[]);
    let program = execd.script("parent", &format!("{}; exit 3", daemon("env -i sleep 1000")));
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    let (exited, lines) = broker.exited();
    assert_eq!(exited.exit_cause, ExitCause::Exit(3));
    let line = lines.first().and_then(|line| line.strip_prefix("stdout 0 "));
    // It may have been ended before it could print its id.
    line.into_iter().for_each(|line| wait_gone(pid(line)));
}

#[test]
fn nothing_is_left_when_execd_ends() {
    let mut execd = Execd::unix(&[]);
    let program = execd.script("parent", &format!("{}; exec sleep 1000", daemon("sleep 1000")));
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    let left = pid(&broker.line());
    execd.signal(Signal::SIGTERM);
    broker.expect_error(ErrorCode::ShuttingDown);
    broker.exited();
    drop(broker);
    assert_eq!(execd.wait().code(), Some(0));
    // It is gone before execd ends, not some time after.
    assert!(!is_running(left));
}

/// A script may start processes before it becomes execd; they don't belong to its workers.
#[test]
fn what_execd_was_started_with_is_left_alone() {
    let home = tempfile::tempdir().unwrap();
    let (ports, socket) = (home.path().join("ports"), home.path().join("s"));
    #[expect(clippy::disallowed_methods, reason = "the test plays the script")]
    let mut command = Command::new("/bin/sh");
    let script = "sleep 1000 & exec \"$0\" \"$@\"";
    command.args(["-c", script, env!("CARGO_BIN_EXE_isdexecd"), "--ports-file"]).arg(&ports);
    let listen = format!("unix:{}", socket.display());
    usual(&mut command, &["--log", "error", "--state", "none", "--listen", &listen]);
    let mut execd = command.spawn().unwrap();
    until("it listens", || fs::metadata(&ports).ok());
    let list = format!("/proc/{0}/task/{0}/children", execd.id());
    let other = pid(fs::read_to_string(list).unwrap().trim());
    let mut broker = Wire::dial(&listen);
    broker.hello("b");
    assert!(matches!(broker.next(), Frame::ExecWelcome(_)));
    broker.started(1, "/bin/true", &[]);
    broker.exited();
    assert!(is_running(other));
    drop(broker);
    common::kill(execd.id(), Signal::SIGTERM);
    assert_eq!(execd.wait().unwrap().code(), Some(0));
    assert!(is_running(other));
    common::kill(other, Signal::SIGKILL);
}
