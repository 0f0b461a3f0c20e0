//! Tests of the built-in execd of a broker as a real process: its own session, the ready line, the
//! end with its broker. This file has its own harness, because this program itself plays the execd,
//! which must not have other threads when it begins.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "it is its own test harness")]
#![allow(clippy::disallowed_methods, reason = "it starts itself in its role")]

mod common;

use common::{Wire, is_running, kill, script, wait_gone};
use execd::os::options::{Listen, Options};
use nix::sys::signal::Signal;
use protocol::bodies::{ExecEnd, ExitCause};
use protocol::frame::Frame;
use std::io::{BufRead, BufReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use tempfile::TempDir;

/// The name and the function of a test.
type Case = (&'static str, fn());

const CASES: &[Case] = &[
    ("it_tells_where_it_listens_and_is_a_session_of_its_own", ready_and_session),
    ("the_orderly_end_of_its_broker_ends_children_then_it", orderly_end),
    ("it_and_its_children_outlive_a_broker_that_crashes", outlives),
    ("without_state_it_ends_with_its_broker", ends_with_broker),
    ("left_alone_it_ends", left_alone),
    ("it_listens_on_a_socket_that_was_made_for_it", inherited_socket),
];

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().collect();
    if args.get(1).map(String::as_str) == Some("role") {
        return role(&args[2..]);
    }
    if args.iter().any(|arg| arg == "--list") {
        for (name, _) in CASES {
            println!("{name}: test");
        }
        return ExitCode::SUCCESS;
    }
    // A name that selects tests, as with other test programs; options are ignored.
    let wanted = args.iter().skip(1).find(|arg| !arg.starts_with('-'));
    for (name, case) in CASES {
        if wanted.is_none_or(|wanted| name.contains(wanted.as_str())) {
            case();
            println!("test {name} ... ok");
        }
    }
    ExitCode::SUCCESS
}

/// Plays isectd when it starts its execd.
fn role(args: &[String]) -> ExitCode {
    let listen = if args[0] == "stdin" {
        Listen::Fd(std::io::stdin().as_fd().try_clone_to_owned().unwrap())
    } else {
        Listen::Unix(PathBuf::from(&args[0]))
    };
    let mut options = Options::new(listen);
    options.built_in = true;
    options.allow = vec![PathBuf::from("/")];
    options.allow_root_workers = true;
    options.ready = Some(std::io::stdout().as_fd().try_clone_to_owned().unwrap());
    options.exits_with_broker = args.iter().any(|arg| arg == "exits-with-broker");
    if args.iter().any(|arg| arg == "soon") {
        options.limits.idle_ms = 500;
    }
    match execd::os::run::run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("{failure}");
            ExitCode::from(failure.exit.status())
        }
    }
}

struct BuiltIn {
    process: Child,
    address: String,
    directory: TempDir,
}

impl BuiltIn {
    fn start(args: &[&str]) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s").display().to_string();
        Self::start_on(directory, &path, Stdio::null(), args)
    }

    fn start_on(directory: TempDir, listen: &str, stdin: Stdio, args: &[&str]) -> Self {
        let mut process = Command::new(std::env::current_exe().unwrap())
            .args(["role", listen])
            .args(args)
            .stdin(stdin)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = String::new();
        BufReader::new(process.stdout.take().unwrap()).read_line(&mut line).unwrap();
        let ready: serde_json::Value = serde_json::from_str(&line).unwrap();
        let address = ready["execd"].as_str().unwrap().to_owned();
        Self { process, address, directory }
    }

    fn broker(&self) -> Wire {
        let mut wire = Wire::dial(&self.address);
        wire.hello("b");
        assert!(matches!(wire.next(), Frame::ExecWelcome(_)));
        wire
    }

    fn wait(&mut self) {
        let status = common::until("it ends", || self.process.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        assert!(!Path::new(self.address.strip_prefix("unix:").unwrap()).exists());
    }
}

impl Drop for BuiltIn {
    fn drop(&mut self) {
        if matches!(self.process.try_wait(), Ok(None)) {
            kill(self.process.id(), Signal::SIGTERM);
            kill(self.process.id(), Signal::SIGTERM);
            let _ = self.process.wait();
        }
    }
}

fn ready_and_session() {
    let execd = BuiltIn::start(&[]);
    assert!(execd.address.starts_with("unix:/"), "{}", execd.address);
    let pid = nix::unistd::Pid::from_raw(i32::try_from(execd.process.id()).unwrap());
    assert_eq!(nix::unistd::getsid(Some(pid)), Ok(pid));
    let meta = std::fs::metadata(execd.address.strip_prefix("unix:").unwrap()).unwrap();
    assert_eq!(std::os::unix::fs::PermissionsExt::mode(&meta.permissions()) & 0o777, 0o600);
}

fn orderly_end() {
    let mut execd = BuiltIn::start(&[]);
    let mut broker = execd.broker();
    let pid = broker.started(1, "/bin/sleep", &["1000"]);
    broker.send(Frame::ExecEnd(ExecEnd { grace_ms: 10_000, keep: false }));
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Signal(15));
    assert_eq!(broker.read(), None, "its end is the end of the connection");
    drop(broker);
    execd.wait();
    wait_gone(pid);
    let mut execd = BuiltIn::start(&[]);
    execd.broker().send(Frame::ExecEnd(ExecEnd { grace_ms: 10_000, keep: false }));
    execd.wait();
}

fn outlives() {
    let mut execd = BuiltIn::start(&["soon"]);
    let mut broker = execd.broker();
    let pid = broker.started(1, "/bin/sleep", &["1000"]);
    drop(broker);
    let program = script(execd.directory.path(), "soon", "sleep 0.3");
    let mut broker = execd.broker();
    assert_eq!(broker.list(), [(1, pid)]);
    broker.started(2, &program, &[]);
    drop(broker);
    // This is longer than it waits without children; one child is there, so it stays.
    common::until("the other child ended", || {
        let mut broker = execd.broker();
        (broker.list() == [(1, pid)]).then_some(())
    });
    assert!(is_running(pid));
    kill(pid, Signal::SIGKILL);
    execd.wait();
}

fn ends_with_broker() {
    let mut execd = BuiltIn::start(&["exits-with-broker"]);
    let stubborn = script(execd.directory.path(), "x", "sleep 1000 & echo $!; wait");
    let mut broker = execd.broker();
    let pid = broker.started(1, &stubborn, &[]);
    let grandchild: u32 = broker.line().parse().unwrap();
    drop(broker);
    execd.wait();
    wait_gone(pid);
    wait_gone(grandchild);
}

fn left_alone() {
    BuiltIn::start(&["soon"]).wait();
    let mut execd = BuiltIn::start(&["soon"]);
    drop(execd.broker());
    execd.wait();
}

fn inherited_socket() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("made");
    let listener = UnixListener::bind(&path).unwrap();
    let stdin = Stdio::from(std::os::fd::OwnedFd::from(listener));
    let execd = BuiltIn::start_on(directory, "stdin", stdin, &[]);
    assert_eq!(execd.address, format!("unix:{}", path.display()));
    assert!(execd.broker().list().is_empty());
}
