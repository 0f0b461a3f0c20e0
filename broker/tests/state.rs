//! Tests a real `isectd`: its state directory, its built-in execd, and the ways to start and to end
//! it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use common::*;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use std::fs;
use std::io::Read;
use std::path::PathBuf;
use std::process::Stdio;

#[test]
fn it_ends_in_order_and_leaves_no_socket_behind() {
    let mut broker = Broker::start(&[]);
    let mut client = tcp(&broker.client).login("op");
    broker.signal(nix::sys::signal::Signal::SIGINT);
    while client.next().is_some() {}
    assert_eq!(broker.wait().code(), Some(0));
    let left = |name: &str| broker.state().join(name).exists();
    assert!(!left("client.sock") && !left("worker.sock"));
    assert!(left("key") && left("ports"));
}

#[test]
fn what_was_configured_and_where_it_listened_is_remembered() {
    let mut broker = Broker::start(&[]);
    tcp(&broker.client).login("op").op(1, ECHO);
    let before = (broker.client.clone(), broker.worker.clone());
    broker.end();
    let dir = std::mem::replace(&mut broker.dir, tempfile::tempdir().unwrap());
    let mut broker = Broker::start_in(dir, &[]);
    assert_eq!((broker.client.clone(), broker.worker.clone()), before);
    let services = tcp(&broker.client).login("op").op(1, "services");
    assert!(services.contains("echo"), "{services}");
    let config = fs::read_to_string(broker.state().join("config.isect")).unwrap();
    assert!(config.contains("echo"), "{config}");
    broker.end();
}

#[test]
fn a_saved_line_that_is_not_understood_is_kept_for_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let text = "config service echo\nnonsense here\n";
    fs::write(state.join("config.isect"), text).unwrap();
    let mut broker = Broker::start_in(dir, &[]);
    let mut op = tcp(&broker.client).login("op");
    assert!(op.op(1, "services").contains("echo"));
    assert_eq!(fs::read_to_string(state.join("config.isect")).unwrap(), text);
    assert_eq!(fs::read_to_string(state.join("config.isect.bad")).unwrap(), text);
    op.op(2, "config service other");
    let saved = fs::read_to_string(state.join("config.isect")).unwrap();
    assert!(saved.contains("other") && !saved.contains("nonsense"), "{saved}");
    broker.end();
}

#[test]
fn what_is_in_the_way_at_the_start_is_said_with_a_status_of_its_own() {
    let mut broker = Broker::start(&[]);
    let state = broker.state();
    let state = state.to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    fs::write(&script, "nonsense\n").unwrap();
    let script = script.to_str().unwrap();
    for (words, status, part) in [
        (&["--set", "logn_ms=1"][..], 2, "did you mean 'login_ms'"),
        (&["--state", "/proc/nowhere"], 3, "--state"),
        (&["--state", state], 4, "runs on the state directory"),
        (&["--state", "none", "--listen", &broker.client], 5, "can't listen"),
        (&["--state", "none", "--source", "/no/such"], 6, "/no/such"),
        (&["--state", "none", "--listen", "127.0.0.1:0", "--source", script], 6, "nonsense"),
    ] {
        let mut child = isectd(words).stderr(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(wait(&mut child).code(), Some(status), "{words:?}: {text}");
        assert!(text.contains(part), "{words:?}: {text}");
    }
    broker.end();
}

#[test]
fn the_built_in_execd_outlives_a_crash_and_comes_back_after_its_own() {
    let mut broker = Broker::start(&[]);
    let first = linked(&broker, 0);
    broker.child.kill().unwrap();
    broker.wait();
    assert!(is_alive(first));
    let dir = std::mem::replace(&mut broker.dir, tempfile::tempdir().unwrap());
    let mut broker = Broker::start_in(dir, &[]);
    assert_eq!(linked(&broker, 0), first, "found again by its socket");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let second = linked(&broker, first);
    broker.end();
    let until = deadline();
    while is_alive(second) {
        assert!(!is_over(until), "the built-in execd outlives an orderly end");
    }
}

#[test]
fn without_state_nothing_is_left() {
    let mut broker = Broker::start(&["--state", "none"]);
    let ports = fs::read_to_string(broker.dir.path().join("ports.json")).unwrap();
    let socket = PathBuf::from(field(&ports, "client_unix").replace("unix:", ""));
    unix(&socket).login("op");
    let pid = linked(&broker, 0);
    broker.child.kill().unwrap();
    broker.wait();
    let until = deadline();
    while is_alive(pid) {
        assert!(!is_over(until), "the built-in execd outlives the broker");
    }
    fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    let mut broker = Broker::start(&["--state", "none"]);
    let ports = fs::read_to_string(broker.dir.path().join("ports.json")).unwrap();
    let socket = PathBuf::from(field(&ports, "client_unix").replace("unix:", ""));
    assert!(socket.exists());
    broker.end();
    assert!(!socket.parent().unwrap().exists());
}

#[test]
fn halt_abort_and_a_second_signal_end_it_as_they_say() {
    let mut broker = Broker::start(&[]);
    tcp(&broker.client).login("op").ask(1, "halt");
    assert_eq!(broker.wait().code(), Some(1));

    let mut broker = Broker::start(&[]);
    tcp(&broker.client).login("op").ask(1, "abort");
    let status = broker.wait();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6));
    // Its execd is left, as after a crash; a broker that is started again ends it.
    let dir = std::mem::replace(&mut broker.dir, tempfile::tempdir().unwrap());
    Broker::start_in(dir, &[]).end();

    // A worker that has a request holds up the orderly end; the second signal does not wait.
    let mut broker = Broker::start(&["--set", "stop_ask_ms=60000"]);
    tcp(&broker.client).login("op").op(1, ECHO);
    let mut worker = tcp(&broker.worker).worker_login();
    let mut client = tcp(&broker.client).login("echo");
    client.ask(1, "x");
    while !matches!(worker.next(), Some(Frame::Data { .. })) {}
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    client.ask(2, "y");
    match client.next() {
        Some(Frame::Error { head, error }) => {
            assert_eq!((head.sequence, error.code), (2, ErrorCode::ShuttingDown));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(broker.child.try_wait(), Ok(None)), "it waits for the worker");
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(broker.wait().code(), Some(8));
}

#[test]
fn a_configuration_that_cannot_be_written_is_told_and_the_broker_goes_on() {
    let mut broker = Broker::start(&[]);
    fs::create_dir(broker.state().join("config.isect.tmp")).unwrap();
    let mut op = tcp(&broker.client).login("op");
    op.op(1, "config events 50");
    op.op(2, "config service echo");
    let until = deadline();
    while !op.op(3, "listevents").contains("config.isect") {
        assert!(!is_over(until));
    }
    fs::remove_dir(broker.state().join("config.isect.tmp")).unwrap();
    op.op(4, "config service other");
    let saved = fs::read_to_string(broker.state().join("config.isect")).unwrap();
    assert!(saved.contains("echo") && saved.contains("other"));
    broker.end();
}
