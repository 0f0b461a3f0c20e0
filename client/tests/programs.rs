//! Tests of the sample workers as real processes, against a played broker.
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(clippy::disallowed_methods, reason = "tests start programs and need clocks of their own")]

mod common;

use bytes::Bytes;
use client::protocol::bodies::{Logout, WorkerLoginOk};
use client::protocol::errors::ErrorCode;
use client::protocol::frame::Frame;
use client::protocol::header::Header;
use client::protocol::limits::WORKER_SECRET_VARIABLE;
use common::{FakeBroker, Peer, TIMEOUT, eventually, worker_login_ok};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::io::Read;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

const ECHO: &str = env!("CARGO_BIN_EXE_isdecho");
const EAT: &str = env!("CARGO_BIN_EXE_isdeat");
const CRASH: &str = env!("CARGO_BIN_EXE_isdcrash");
const PIPE: &str = env!("CARGO_BIN_EXE_isdpipe");

/// A process that is killed when its test ends.
struct Program(Child);

impl Drop for Program {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

impl Program {
    fn spawn(program: &str, args: &[&str]) -> Self {
        let child = Command::new(program)
            .args(args)
            .env(WORKER_SECRET_VARIABLE, "s3cret")
            .stdin(Stdio::null())
            .stderr(Stdio::piped())
            .spawn();
        Self(child.unwrap())
    }

    /// Starts the program as execd does, and waits for its login.
    fn start(broker: &FakeBroker, program: &str, own: &[&str]) -> (Self, Peer) {
        Self::start_with(broker, program, own, worker_login_ok())
    }

    fn start_with(
        broker: &FakeBroker,
        program: &str,
        own: &[&str],
        ok: WorkerLoginOk,
    ) -> (Self, Peer) {
        let [host, port] = broker.argv();
        let mut args = vec![host.as_str(), port.as_str(), "3", "echo"];
        args.extend(own);
        let process = Self::spawn(program, &args);
        let mut peer = broker.accept();
        assert_eq!(peer.worker_login().secret, "s3cret");
        peer.send(Frame::WorkerLoginOk(ok));
        (process, peer)
    }

    fn ends(&mut self) -> ExitStatus {
        let mut status = None;
        eventually("the program ends", || {
            status = self.0.try_wait().unwrap();
            status.is_some()
        });
        status.unwrap()
    }

    /// The whole stderr, once the process has ended.
    fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.0.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        text
    }

    /// Asks the process to end and waits for that.
    fn finish(mut self, mut peer: Peer) {
        peer.send(Frame::End);
        assert_eq!(self.ends().code(), Some(0), "{}", self.stderr());
        assert_eq!(peer.next(), None);
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(i32::try_from(self.0.id()).unwrap()), signal).unwrap();
    }
}

fn ask(peer: &mut Peer, body: &'static str) -> (Header, Bytes) {
    peer.request(1, body, false);
    peer.data()
}

fn pipe(peer: &mut Peer, body: &'static str) -> String {
    let (head, body) = ask(peer, body);
    assert_eq!((head.error, head.more), (0, 0), "{body:?}");
    String::from_utf8(body.to_vec()).unwrap()
}

fn is_alive(pid: &str) -> bool {
    sys::proc::running(pid.trim().parse().unwrap()).is_some()
}

#[test]
fn what_a_broker_says_reaches_no_terminal_raw() {
    let broker = FakeBroker::tcp();
    let [host, port] = broker.argv();
    let mut echo = Program::spawn(ECHO, &[&host, &port, "3", "echo"]);
    let mut peer = broker.accept();
    peer.worker_login();
    peer.error(Header::default(), ErrorCode::BadWorkerLogin, "no\u{1b}[2J\u{202e}\u{200b}!");
    assert_eq!(echo.ends().code(), Some(1));
    let said = echo.stderr();
    assert!(said.contains("no\\u{1b}[2J\\u{202e}\\u{200b}!"), "{said:?}");
}

#[test]
fn started_by_hand_each_explains_itself() {
    for program in [ECHO, EAT, CRASH, PIPE] {
        for args in [&[][..], &["foo", "bar"], &["localhost", "0", "1", "echo", "hang"]] {
            let mut process = Program::spawn(program, args);
            assert_eq!(process.ends().code(), Some(2), "{program} {args:?}");
            let text = process.stderr();
            assert!(text.contains("usage: isd"), "{program} {args:?}: {text}");
        }
    }
}

#[test]
fn asked_for_help_each_gives_it_on_stdout() {
    for program in [ECHO, EAT, CRASH, PIPE] {
        for args in [&["--help"][..], &["-h"], &["--help", "more"]] {
            let out = Command::new(program).args(args).stdin(Stdio::null()).output().unwrap();
            assert_eq!(out.status.code(), Some(0), "{program} {args:?}");
            let text = String::from_utf8(out.stdout).unwrap();
            assert!(text.contains("usage: isd"), "{program} {args:?}: {text}");
            assert_eq!(String::from_utf8(out.stderr).unwrap(), "", "{program} {args:?}");
        }
    }
}

#[test]
fn a_program_that_nobody_reads_ends_with_its_status() {
    let closed = || {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        Stdio::from(writer)
    };
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("unix:{}", dir.path().join("nobody").display());
    for program in [ECHO, EAT, CRASH, PIPE] {
        let own = match program {
            ECHO => &["end", "1"][..],
            PIPE => &["cat"],
            _ => &["login"],
        };
        let absent = [&[nobody.as_str(), "0", "1", "echo"], own].concat();
        for (args, code) in [(&[][..], 2), (&["foo", "bar"], 2), (&["-h"], 0), (&absent, 1)] {
            let child = Command::new(program).args(args).stdout(closed()).stderr(closed()).spawn();
            let status = Program(child.unwrap()).ends();
            assert_eq!(status.code(), Some(code), "{program} {args:?}: {status}");
        }
    }
    let args = ["localhost", "0", "1", "echo", "stderr", "last words", "login"];
    let child = Command::new(CRASH).args(args).stderr(closed()).spawn();
    assert_eq!(Program(child.unwrap()).ends().code(), Some(1));
}

#[test]
fn a_worker_whose_broker_is_gone_is_not_told_to_start_one() {
    let dir = tempfile::tempdir().unwrap();
    let nobody = format!("unix:{}", dir.path().join("worker.sock").display());
    let mut process = Program::spawn(ECHO, &[&nobody, "0", "1", "echo"]);
    assert_eq!(process.ends().code(), Some(1));
    let text = process.stderr();
    assert!(text.starts_with(&format!("the broker does not listen at {nobody}: ")), "{text}");
    assert!(text.ends_with("it may be restarting, or its state directory was removed\n"), "{text}");
}

#[test]
fn echo_gives_back_what_it_gets_piece_for_piece() {
    for broker in [FakeBroker::tcp(), FakeBroker::unix()] {
        let (process, mut peer) = Program::start(&broker, ECHO, &[]);
        assert_eq!(ask(&mut peer, "hi").1, "hi");
        for (text, more) in [("one", true), ("two", true), ("three", false)] {
            peer.request(2, text, more);
            let (head, body) = peer.data();
            assert_eq!((head.transaction, head.more, &body[..]), (2, more.into(), text.as_bytes()));
        }
        process.finish(peer);
    }
}

#[test]
fn echo_has_as_many_requests_at_a_time_as_it_is_told() {
    let broker = FakeBroker::tcp();
    let [host, port] = broker.argv();
    let own = ["concurrency", "3", "end", "5"];
    let args = [&[host.as_str(), &port, "3", "echo"][..], &own].concat();
    let mut process = Program::spawn(ECHO, &args);
    let mut peer = broker.accept();
    assert_eq!(peer.worker_login().concurrency, 3);
    peer.send(Frame::WorkerLoginOk(WorkerLoginOk { concurrency: 3, ..worker_login_ok() }));
    // One waits for its client, and others go on.
    peer.request(1, "one", true);
    assert_eq!(peer.data().1, "one");
    for transaction in 2..=4 {
        peer.request(transaction, "whole", false);
        assert_eq!(peer.data().1, "whole");
    }
    peer.request(1, "two", false);
    let (head, body) = peer.data();
    assert_eq!((head.transaction, head.more, &body[..]), (1, 0, &b"two"[..]));
    peer.request(5, "last", false);
    let logout = Frame::Logout(Logout { received: Some(5) });
    assert_eq!(peer.frame(), logout);
    assert_eq!(peer.data().1, "last");
    peer.send(Frame::End);
    assert_eq!(process.ends().code(), Some(0));
    assert_eq!(peer.next(), None);

    let (mut process, mut peer) = Program::start(&broker, ECHO, &["end", "1"]);
    peer.request(1, "only", false);
    assert_eq!(peer.frame(), Frame::Logout(Logout { received: Some(1) }));
    assert_eq!(peer.data().1, "only");
    peer.send(Frame::End);
    assert_eq!(process.ends().code(), Some(0));
    let mut process = Program::spawn(ECHO, &[host.as_str(), &port, "3", "echo", "end"]);
    assert_eq!(process.ends().code(), Some(2));
    assert!(process.stderr().contains("'end' lacks its number"));
}

#[test]
fn eat_swallows_all_pieces_and_answers_once_with_nothing() {
    let (process, mut peer) = Program::start(&FakeBroker::unix(), EAT, &[]);
    let piece = Bytes::from(vec![1; 1 << 20]);
    for _ in 0..256 {
        peer.request(1, piece.clone(), true);
    }
    peer.request(1, "last", false);
    let (head, body) = peer.data();
    assert_eq!((head.transaction, head.more, body.len()), (1, 0, 0));
    let kib = sys::proc::status(process.0.id()).unwrap().vmhwm.unwrap();
    assert!(kib < 32 << 10, "256 MiB in pieces took {kib} KiB of memory");
    assert_eq!(ask(&mut peer, "more").1, "");
    process.finish(peer);
}

#[test]
fn crash_dies_as_it_is_told() {
    let broker = FakeBroker::unix();
    let (mut process, mut peer) =
        Program::start(&broker, CRASH, &["after", "2", "stderr", "last words", "exit", "7"]);
    assert_eq!(ask(&mut peer, "a").1, "a");
    assert_eq!(ask(&mut peer, "b").1, "b");
    peer.request(3, "c", false);
    assert_eq!(peer.next(), None);
    assert_eq!(process.ends().code(), Some(7));
    assert_eq!(process.stderr(), "last words\n");

    let (mut process, mut peer) = Program::start(&broker, CRASH, &["signal", "9"]);
    peer.request(1, "", false);
    assert_eq!(process.ends().signal(), Some(9));

    for (how, bytes) in [("garbage", 200), ("half", 32)] {
        let (mut process, mut peer) = Program::start(&broker, CRASH, &[how]);
        peer.request(1, "", false);
        let mut rest = Vec::new();
        peer.pipe.read_to_end(&mut rest).unwrap();
        assert_eq!((rest.len(), process.ends().code()), (bytes, Some(0)), "{how}");
    }

    let (mut process, mut peer) = Program::start(&broker, CRASH, &["close"]);
    peer.request(1, "", false);
    assert_eq!(peer.next(), None);
    assert_eq!(process.0.try_wait().unwrap(), None, "it stays");

    let (mut process, mut peer) = Program::start(&broker, CRASH, &["hang"]);
    peer.request(1, "", false);
    peer.send(Frame::End);
    eventually("it sleeps instead of answering", || {
        let path = format!("/proc/{}/wchan", process.0.id());
        std::fs::read_to_string(path).is_ok_and(|text| text.contains("nanosleep"))
            || std::fs::read_to_string(format!("/proc/{}/syscall", process.0.id()))
                .is_ok_and(|text| text.starts_with("230 ") || text.starts_with("115 "))
    });
    assert_eq!(process.0.try_wait().unwrap(), None);

    let [host, port] = broker.argv();
    let mut process = Program::spawn(CRASH, &[&host, &port, "3", "echo", "login"]);
    assert_eq!(process.ends().code(), Some(1));
}

#[test]
fn pipe_makes_any_program_a_worker() {
    let broker = FakeBroker::unix();
    let (process, mut peer) = Program::start(&broker, PIPE, &["tr", "a-z", "A-Z"]);
    assert_eq!(pipe(&mut peer, "hello"), "HELLO");
    assert_eq!(pipe(&mut peer, ""), "");
    peer.request(2, "in ", true);
    peer.request(2, "two ", true);
    peer.request(2, "pieces", false);
    assert_eq!(peer.data().1, "IN TWO PIECES");
    process.finish(peer);

    let (process, mut peer) = Program::start(&broker, PIPE, &["env"]);
    let text = pipe(&mut peer, "");
    assert!(text.contains("ISECT_SERVICE=echo\n") && text.contains("ISECT_TRANSACTION=1\n"));
    assert!(!text.contains("s3cret"), "the secret is nobody else's");
    process.finish(peer);

    // Arguments are passed on as they are; no shell reads them.
    let (process, mut peer) = Program::start(&broker, PIPE, &["echo", "$HOME; ls *", ""]);
    assert_eq!(pipe(&mut peer, ""), "$HOME; ls * \n");
    process.finish(peer);
}

#[test]
fn pipe_tells_the_client_how_the_program_failed() {
    let broker = FakeBroker::unix();
    let script = "read how; echo \"why: $how\" >&2; eval \"$how\"";
    let (process, mut peer) = Program::start(&broker, PIPE, &["sh", "-c", script]);
    for (how, code, text) in [
        ("exit 3\n", 3, "why: exit 3"),
        ("exit 255\n", 255, "why: exit 255"),
        ("kill -9 $$\n", 137, "why: kill -9 $$"),
        ("kill -TERM $$; sleep 60\n", 143, "why: kill -TERM $$; sleep 60"),
        ("kill -PIPE $$; sleep 60\n", 141, "why: kill -PIPE $$; sleep 60"),
    ] {
        let (head, body) = ask(&mut peer, how);
        assert_eq!((head.error, &body[..]), (code, text.as_bytes()), "{how}");
    }
    assert_eq!(pipe(&mut peer, "echo fine\n"), "fine\n");
    process.finish(peer);

    let (process, mut peer) = Program::start(&broker, PIPE, &["false"]);
    assert_eq!(ask(&mut peer, "").1, "exit status 1");
    process.finish(peer);

    for args in [&["nosuchprogram"][..], &["/etc/passwd"], &["/nonexistent/x"], &["/tmp"]] {
        let mut all = vec!["localhost", "1", "3", "echo"];
        all.extend(args);
        let mut process = Program::spawn(PIPE, &all);
        assert_eq!(process.ends().code(), Some(2), "{args:?}");
        assert!(process.stderr().contains(args[0]));
    }
}

#[test]
fn pipe_feeds_and_reads_at_the_same_time() {
    let broker = FakeBroker::unix();
    let ok = WorkerLoginOk { body_bytes_max: 4 << 20, ..worker_login_ok() };
    let (process, mut peer) = Program::start_with(&broker, PIPE, &["cat"], ok);
    let body: Vec<u8> = (0..4usize << 20).map(|at| (at % 251) as u8).collect();
    peer.request(1, body.clone(), true);
    peer.request(1, body.clone(), false);
    let mut back = Vec::new();
    let mut frames = 0;
    loop {
        let (head, piece) = peer.data();
        back.extend_from_slice(&piece);
        frames += 1;
        if head.more == 0 {
            break;
        }
    }
    assert!(back == [body.clone(), body].concat(), "{} bytes", back.len());
    assert!(frames >= 2, "more than a frame may hold leaves in pieces");
    process.finish(peer);

    // The program stops reading early.
    let (process, mut peer) = Program::start(&broker, PIPE, &["head", "-c", "3"]);
    peer.request(1, vec![b'x'; 1 << 20], true);
    peer.request(1, vec![b'y'; 1 << 20], false);
    assert_eq!(peer.data().1, "xxx");
    process.finish(peer);
}

#[test]
fn pipe_ends_what_is_late_with_all_its_children() {
    let broker = FakeBroker::unix();
    let dir = tempfile::tempdir().unwrap();
    let pids = dir.path().join("pids");
    let script = format!("sleep 60 & echo $! > {0}; echo $$ >> {0}; wait", pids.display());
    let (process, mut peer) = Program::start(&broker, PIPE, &["sh", "-c", &script]);
    let begun = Instant::now();
    let head = Header { transaction: 1, deadline_ms: 700, ..Header::default() };
    peer.send(Frame::data(head, Bytes::new()));
    let (head, body) = peer.data();
    assert_eq!((head.error, &body[..]), (137, &b"killed: the request's deadline passed"[..]));
    assert!(begun.elapsed() < TIMEOUT);
    let pids = std::fs::read_to_string(pids).unwrap();
    assert_eq!(pids.lines().count(), 2);
    for pid in pids.lines() {
        eventually("the program and its children are gone", || !is_alive(pid));
    }
    process.finish(peer);

    // The program writes without end, or leaves a child that has its stdout.
    let (process, mut peer) = Program::start(&broker, PIPE, &["yes"]);
    let head = Header { transaction: 1, deadline_ms: 200, ..Header::default() };
    peer.send(Frame::data(head, Bytes::new()));
    while peer.data().0.more != 0 {}
    // The same when the client is gone.
    peer.request(2, "", false);
    while peer.data().0.transaction != 2 {}
    peer.error(Header { transaction: 2, ..Header::default() }, ErrorCode::Deadline, "gone");
    while peer.data().0.more != 0 {}
    process.finish(peer);
    // One that writes nothing, when its caller gives it up. The broker's end does not end it.
    let script = "read how; eval \"$how\"";
    let (process, mut peer) = Program::start(&broker, PIPE, &["sh", "-c", script]);
    peer.request(3, "sleep 60\n", false);
    let head = Header { transaction: 3, error: ErrorCode::Cancelled.number(), ..Header::default() };
    peer.send(Frame::Cancel { head, text: "given up".into() });
    let (head, body) = peer.data();
    assert_eq!((head.transaction, head.error), (3, 137), "{body:?}");
    peer.request(4, "sleep 0.1; echo done\n", false);
    peer.send(Frame::End);
    peer.pipe.end_writing();
    assert_eq!(peer.data().1, "done\n");
    drop(process);
    let (process, mut peer) = Program::start(&broker, PIPE, &["sh", "-c", "sleep 60 & echo $!"]);
    let begun = Instant::now();
    let pid = pipe(&mut peer, "");
    assert!(begun.elapsed() < Duration::from_secs(10), "it does not wait for the child");
    eventually("what was left behind is gone", || !is_alive(&pid));
    process.finish(peer);
}

#[test]
fn a_pipe_that_is_ended_takes_its_program_with_it() {
    let broker = FakeBroker::unix();
    let dir = tempfile::tempdir().unwrap();
    for signal in [Signal::SIGTERM, Signal::SIGKILL] {
        let file = dir.path().join(signal.as_str());
        let script = format!("echo $$ > {}; exec sleep 60", file.display());
        let (mut process, mut peer) = Program::start(&broker, PIPE, &["sh", "-c", &script]);
        peer.request(1, "", false);
        let mut pid = String::new();
        eventually("the program runs", || {
            pid = std::fs::read_to_string(&file).unwrap_or_default();
            pid.ends_with('\n')
        });
        assert!(is_alive(&pid));
        process.signal(signal);
        process.ends();
        eventually("its program is gone", || !is_alive(&pid));
    }
    let (mut process, _peer) = Program::start(&broker, PIPE, &["cat"]);
    process.signal(Signal::SIGTERM);
    assert_eq!(process.ends().signal(), Some(15), "an idle one ends at once");
}
