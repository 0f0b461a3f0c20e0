//! Tests isdbench as a user runs it: it drives peers, makes a table and JSON, and leaves nothing
//! behind. Only peers that need no installation, and isectd where it is built.
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

const BENCH: &str = env!("CARGO_BIN_EXE_isdbench");
const LIMIT: Duration = Duration::from_secs(60);

#[expect(clippy::disallowed_methods, reason = "a test of a program starts it")]
fn bench(args: &[&str]) -> Command {
    let mut command = Command::new(BENCH);
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

fn run(args: &[&str]) -> (Output, String, String) {
    let output = bench(args).output().unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let (out, err) = (text(&output.stdout), text(&output.stderr));
    (output, out, err)
}

#[expect(clippy::disallowed_methods, reason = "a test has deadlines")]
fn until(what: &str, mut look: impl FnMut() -> bool) {
    let end = Instant::now() + LIMIT;
    while !look() {
        assert!(Instant::now() < end, "{what}: not within {LIMIT:?}");
        isect_benches::clock::pause(Duration::from_millis(5));
    }
}

fn children(pid: u32) -> Vec<u32> {
    let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap_or_default();
    text.split_whitespace().filter_map(|word| word.parse().ok()).collect()
}

fn signal(child: &Child, signal: Signal) {
    kill(Pid::from_raw(i32::try_from(child.id()).unwrap()), signal).unwrap();
}

#[test]
fn peers_are_driven_and_compared() {
    let has_isectd = Path::new(BENCH).with_file_name("isectd").is_file();
    let peers = if has_isectd { "limit,direct,isect" } else { "limit,direct" };
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("result.json");
    let shapes = "c3w2p0,c3w2p64d8,c2w2p1048576,c2w1p64i20";
    let args = ["compare", "--peers", peers, "--shapes", shapes, "--rounds", "2"];
    let times = ["--seconds", "0.1", "--warm", "0.02", "--json", file.to_str().unwrap()];
    let (output, out, err) = run(&[&args[..], &times[..]].concat());
    assert!(output.status.success(), "{err}");
    assert!(out.contains("c3w2p64d8\n") && out.contains("  direct "), "{out}");
    assert!(err.contains("round 2/2"), "{err}");
    let json: serde_json::Value = serde_json::from_slice(&fs::read(&file).unwrap()).unwrap();
    let samples = json["samples"].as_array().unwrap();
    assert_eq!(samples.len(), peers.split(',').count() * 4 * 2);
    assert!(samples.iter().all(|sample| sample["throughput"].as_f64().unwrap() > 0.0), "{json}");
}

#[test]
fn an_open_loop_that_can_not_keep_its_rate_says_so() {
    let args = ["compare", "--peers", "limit", "--rounds", "1", "--seconds", "0.5"];
    let rate = ["--shapes", "c1w1p64", "--rate", "5000000"];
    let (output, out, err) = run(&[&args[..], &rate[..]].concat());
    assert!(output.status.success(), "{err}");
    assert!(out.contains("could not be sent"), "{out}");
}

#[test]
fn wrong_words_are_refused() {
    for (args, part) in [
        (["compare", "--shapes", "c16w4"], "bytes of payload (p) are missing"),
        (["compare", "--peers", "limit,rabbit"], "no peer 'rabbit'"),
        (["compare", "--peers", "limit@/bin/true"], "only isect peers take a path"),
    ] {
        let (output, _, err) = run(&args);
        assert_eq!(output.status.code(), Some(2), "{err}");
        assert!(err.contains(part), "{err}");
    }
    let (output, _, err) = run(&["compare", "--seconds", "-1"]);
    assert!(!output.status.success(), "{err}");
}

#[test]
fn a_peer_that_is_not_there_is_skipped_and_said() {
    let args = ["compare", "--peers", "isect", "--bin-dir", "/nowhere", "--seconds", "0.1"];
    let (output, _, err) = run(&args);
    assert!(output.status.success(), "{err}");
    assert!(err.contains("isect: skipped") && err.contains("--bin-dir"), "{err}");
}

#[test]
fn topics_and_instances_are_measured() {
    if !Path::new(BENCH).with_file_name("isectd").is_file() {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("result.json");
    let json = file.to_str().unwrap();
    for (args, part) in [
        ("fanout --peers isect,isect-unix --subscribers 20 --rounds 1 --seconds 0.2", "isect-unix"),
        (
            "subscriptions --peers isect --subscriptions 400 --connections 2 --changes 300 \
             --seconds 0.3",
            "isect",
        ),
        ("retained --values 300 --stalled 3 --before 300 --settle 0.5 --seconds 0.5", "all values"),
        ("instances --instances 20 --connections 2 --changes 50 --seconds 0.8", "time-outs"),
    ] {
        let mut words: Vec<&str> = args.split_whitespace().collect();
        words.extend(["--json", json]);
        let (output, out, err) = run(&words);
        assert!(output.status.success(), "{args}: {err}");
        assert!(out.contains(part), "{args}: {out}");
        let text = fs::read(&file).unwrap();
        assert!(serde_json::from_slice::<serde_json::Value>(&text).is_ok(), "{args}");
    }
}

/// Whether it is stopped in order or killed, its relay and its workers end with it.
#[test]
fn nothing_is_left_behind() {
    for (how, code) in [(Signal::SIGINT, Some(1)), (Signal::SIGKILL, None)] {
        let args = ["compare", "--peers", "limit", "--shapes", "c2w2p64", "--seconds", "60"];
        // What is killed can't remove its directory.
        let dir = tempfile::tempdir().unwrap();
        let mut child = bench(&args).env("TMPDIR", dir.path()).spawn().unwrap();
        let mut found = vec![];
        until("relay and workers", || {
            found = children(child.id());
            found.len() == 2
        });
        signal(&child, how);
        assert_eq!(child.wait().unwrap().code(), code);
        for pid in found {
            until("the end of a child", || {
                // A zombie has ended; whoever reaps orphans here may take a while.
                sys::proc::running(pid).is_none()
            });
        }
    }
}

#[test]
fn a_worker_that_writes_much_is_measured() {
    if !["isectd", "isdexecd"].iter().all(|name| Path::new(BENCH).with_file_name(name).is_file()) {
        return;
    }
    let args = ["output", "--mb", "2", "--seconds", "0.5", "--rounds", "1", "--rate", "100"];
    let (output, out, err) = run(&args);
    assert!(output.status.success(), "{err}");
    let row = |name: &str| -> Vec<f64> {
        let line = out.lines().find(|line| line.starts_with(name)).unwrap_or_default();
        line.split_whitespace().skip(1).map(|word| word.parse().unwrap()).collect()
    };
    assert_eq!(row("silent")[1..3], [0.0, 0.0], "{out}");
    assert_eq!(row("discarded")[1..3], [0.0, 0.0], "{out}");
    assert!(row("kept")[1] >= 1000.0, "{out}");
}
