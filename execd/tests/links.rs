//! Tests of connections to a real isdexecd: invalid bytes, hello, several brokers, a broker that
//! comes back, one that does not read. No connection disturbs the others.
#![allow(clippy::disallowed_methods, reason = "tests start programs and measure")]

mod common;

use common::{Execd, is_running, wait_gone};
use nix::sys::signal::Signal;
use protocol::bodies::{ExecEnd, ExitCause, Login};
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::names::ServiceName;
use std::os::unix::process::CommandExt;
use std::time::{Duration, Instant};

#[test]
fn nonsense_on_the_port_gets_a_typed_error_and_disturbs_nobody() {
    let execd = Execd::tcp(&[]);
    let mut broker = execd.broker("b");
    let pid = broker.started(1, "/bin/sleep", &["1000"]);
    let valid = encode::to_bytes(Frame::ExecList);
    let patched = |at: usize, bytes: &[u8]| {
        let mut frame = valid.to_vec();
        frame[at..at + bytes.len()].copy_from_slice(bytes);
        frame
    };
    let cases: &[(&str, Vec<u8>, ErrorCode)] = &[
        ("http", b"GET / HTTP/1.1\r\n\r\n".repeat(20), ErrorCode::Version),
        ("zeros", vec![0; 64], ErrorCode::Version),
        ("ones", vec![0xff; 200_000], ErrorCode::Version),
        ("version 1", patched(14, &[0, 1]), ErrorCode::Version),
        ("no such kind", patched(12, &[0x7f, 0]), ErrorCode::BadFrame),
        ("a body where none may be", patched(3, &[1]), ErrorCode::BadFrame),
        ("flags", patched(23, &[0x80]), ErrorCode::BadFrame),
        (
            "huge hello",
            {
                let mut frame = patched(12, &[0, 20]);
                frame[0..4].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
                frame
            },
            ErrorCode::BodyTooLarge,
        ),
        (
            "huge data",
            {
                let mut frame = patched(12, &[0, 0]);
                frame[0..4].copy_from_slice(&[0x7f, 0xff, 0xff, 0xff]);
                frame
            },
            ErrorCode::BodyTooLarge,
        ),
        ("hello without a body", patched(12, &[0, 20]), ErrorCode::BadFrame),
        ("list before hello", valid.to_vec(), ErrorCode::BadState),
    ];
    for (name, bytes, code) in cases {
        let mut wire = execd.dial();
        wire.send_bytes(bytes);
        let error = wire.expect_refusal(*code);
        assert!(!error.text.is_empty(), "{name}");
        assert_eq!(broker.list(), [(1, pid)], "{name}");
    }
    // Half a header, then half a body, then the end.
    for half in [&valid[..31], &patched(3, &[9])[..]] {
        drop_after(&execd, half);
    }
    assert_eq!(broker.list(), [(1, pid)]);
}

fn drop_after(execd: &Execd, bytes: &[u8]) {
    let mut wire = execd.dial();
    wire.send_bytes(bytes);
}

#[test]
fn another_user_of_this_machine_is_denied() {
    if !nix::unistd::geteuid().is_root() {
        // Only root can play another user.
        return;
    }
    let execd = Execd::tcp(&[]);
    let (_, port) = execd.address.rsplit_once(':').unwrap();
    let output = std::process::Command::new("/bin/bash")
        .args(["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}; exec cat <&3")])
        .uid(65_534)
        .gid(65_534)
        .output()
        .unwrap();
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(text.contains("name denied"), "{text}");
    assert!(text.contains("run the broker as the same user"), "{text}");
    execd.broker("b");
}

#[test]
fn the_end_of_a_child_is_known_within_milliseconds() {
    let execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    let mut times: Vec<Duration> = (1..=40)
        .map(|worker| {
            let pid = broker.started(worker, "/bin/sleep", &["1000"]);
            let begin = Instant::now();
            common::kill(pid, Signal::SIGKILL);
            assert_eq!(broker.exited().0.pid, pid);
            begin.elapsed()
        })
        .collect();
    times.sort();
    println!("from KILL to the report: median {:?}, worst {:?}", times[20], times[39]);
    // Polling would take longer than this even on a busy machine.
    assert!(times[10] < Duration::from_millis(20), "{times:?}");
}

#[test]
fn after_hello_only_frames_for_execd_are_taken() {
    let execd = Execd::unix(&[]);
    let mut other = execd.broker("other");
    for frame in [
        Frame::Login(Login::to(ServiceName::op())),
        Frame::Logout(protocol::bodies::Logout::default()),
        Frame::End,
        Frame::data(Default::default(), bytes::Bytes::from_static(b"x")),
    ] {
        let mut wire = execd.broker("b");
        wire.send(frame);
        wire.expect_refusal(ErrorCode::BadState);
    }
    let mut wire = execd.broker("b");
    wire.hello("b");
    wire.expect_refusal(ErrorCode::BadState);
    // A start whose body is not valid.
    let mut wire = execd.broker("b");
    let mut bytes = encode::to_bytes(Frame::ExecList).to_vec();
    bytes[12..14].copy_from_slice(&22_u16.to_be_bytes());
    wire.send_bytes(&bytes);
    let error = wire.expect_refusal(ErrorCode::BadFrame);
    assert!(error.text.contains("worker"), "{error}");
    assert!(other.list().is_empty());
}

#[test]
fn who_says_nothing_is_closed_and_too_many_are_refused() {
    let execd = Execd::tcp(&[]);
    let mut silent: Vec<_> = (0..17).map(|_| execd.dial()).collect();
    // Connections are accepted in order, so the last one replaced the first.
    silent.remove(0).expect_refusal(ErrorCode::TooManyConnections);
    for wire in &mut silent {
        let error = wire.expect_refusal(ErrorCode::LoginTimeout);
        assert!(error.text.contains("2000 ms"), "{error}");
    }
    execd.broker("b");
}

#[test]
fn stops_for_nobody_are_answered_and_the_link_goes_on() {
    let execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    broker.stop(9, 0);
    let error = broker.expect_error(ErrorCode::NotFound);
    assert!(error.text.contains("worker 9 run 9"), "{error}");
    assert!(broker.list().is_empty());
    broker.send(Frame::Ping { sequence: 77 });
    assert_eq!(broker.next(), Frame::Pong { sequence: 77 });
}

#[test]
fn two_brokers_have_children_of_their_own() {
    let execd = Execd::tcp(&[]);
    let (mut one, mut two) = (execd.broker("one"), execd.broker("two"));
    let first = one.started(1, "/bin/sleep", &["1000"]);
    let second = two.started(1, "/bin/sleep", &["1000"]);
    assert_eq!((one.list(), two.list()), (vec![(1, first)], vec![(1, second)]));
    one.stop(1, 1000);
    assert_eq!(one.exited().0.pid, first);
    assert_eq!(two.list(), [(1, second)]);
    one.send(Frame::ExecEnd(ExecEnd { grace_ms: 0, keep: false }));
    assert!(one.list().is_empty());
    assert!(is_running(second));
    two.send(Frame::ExecEnd(ExecEnd { grace_ms: 1000, keep: false }));
    assert_eq!(two.exited().0.exit_cause, ExitCause::Signal(15));
}

#[test]
fn a_broker_that_comes_back_finds_its_children_and_hears_what_it_missed() {
    let mut execd = Execd::tcp(&[]);
    let program = execd.script("fails", "echo 'why it failed' >&2; exit 9");
    let mut broker = execd.broker("b");
    let stays = broker.started(1, "/bin/sleep", &["1000"]);
    let waits =
        execd.script("waits", "while ! [ -e \"$1\" ]; do sleep 0.02; done; echo late >&2; exit 9");
    let flag = execd.path("flag");
    let ends = broker.started(2, &waits, &[&flag]);
    drop(broker);
    execd.wait_log("broker disconnected");
    std::fs::write(&flag, "").unwrap();
    execd.wait_log("ended");
    assert!(is_running(stays));
    let mut broker = execd.broker("b");
    assert_eq!(broker.list(), [(1, stays)]);
    let (exited, lines) = broker.exited();
    assert_eq!((exited.pid, exited.exit_cause), (ends, ExitCause::Exit(9)));
    assert_eq!(exited.tail, ["late"]);
    assert!(lines.is_empty());
    broker.started(3, &program, &[]);
    assert_eq!(broker.exited().0.tail, ["why it failed"]);
}

#[test]
fn a_second_connection_of_a_broker_replaces_the_first() {
    let execd = Execd::tcp(&[]);
    let mut old = execd.broker("b");
    let pid = old.started(1, "/bin/sleep", &["1000"]);
    let mut new = execd.broker("b");
    let error = old.expect_refusal(ErrorCode::BadState);
    assert!(error.text.contains("took over"), "{error}");
    assert_eq!(new.list(), [(1, pid)]);
}

#[test]
fn a_broker_that_does_not_read_is_disconnected_and_its_children_stay() {
    let mut execd = Execd::unix(&[]);
    let mut deaf = execd.broker("deaf");
    let stays = deaf.started(1, "/bin/sleep", &["1000"]);
    // Each answer is larger than its question, so the answers pile up; past the limit the link is
    // closed.
    let ping = encode::to_bytes(Frame::ExecList).repeat(1000);
    for _ in 0..400 {
        deaf.send_bytes(&ping);
    }
    execd.wait_log("reads too slowly");
    drop(deaf);
    let mut back = execd.broker("deaf");
    assert_eq!(back.list(), [(1, stays)]);
}

#[test]
fn a_signal_ends_all_children_of_all_brokers_in_order() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut execd = Execd::unix(&["--drain-ms", "0"]);
        let (mut one, mut two) = (execd.broker("one"), execd.broker("two"));
        let first = one.started(1, "/bin/sleep", &["1000"]);
        let second = two.started(1, "/bin/sleep", &["1000"]);
        execd.signal(signal);
        // The error comes before anything that follows from it.
        one.expect_error(ErrorCode::ShuttingDown);
        two.expect_error(ErrorCode::ShuttingDown);
        assert_eq!(one.exited().0.exit_cause, ExitCause::Signal(15));
        assert_eq!(two.exited().0.exit_cause, ExitCause::Signal(15));
        assert_eq!((one.read(), two.read()), (None, None));
        drop((one, two));
        assert_eq!(execd.wait().code(), Some(0), "{signal}");
        wait_gone(first);
        wait_gone(second);
        assert!(!std::path::Path::new(&execd.path("execd.sock")).exists());
    }
}

#[test]
fn a_second_signal_does_not_wait() {
    let execd_program = "trap '' TERM; echo up; while :; do sleep 1000; done";
    let mut execd = Execd::unix(&[]);
    let program = execd.script("stubborn", execd_program);
    let mut broker = execd.broker("b");
    let pid = broker.started(1, &program, &[]);
    assert_eq!(broker.line(), "up");
    execd.signal(Signal::SIGTERM);
    broker.expect_error(ErrorCode::ShuttingDown);
    execd.signal(Signal::SIGTERM);
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Signal(9));
    drop(broker);
    assert_eq!(execd.wait().code(), Some(0));
    wait_gone(pid);
}
