//! Tests the black box with real processes: how each of them ended, and the request that it had,
//! byte by byte.

use client::caller::{Caller, Send};
use isect_tests::proc::{Broker, await_that, program, signal_pid, write_program};
use nix::sys::signal::Signal;
use serde_json::Value;
use std::fs;
use std::path::{Path, PathBuf};

/// Waits for a death, and returns it as JSON.
fn death(broker: &Broker, id: u32) -> Value {
    let command = format!("death {id}");
    await_that("the death", || broker.try_op(&command).ok());
    let done = broker.isdclient(&["--json", "-c", &command], "");
    serde_json::from_str(&done.out).unwrap_or_else(|e| panic!("{e}: {}", done.out))
}

/// The only request of a death, as hexadecimal digits.
fn hex(death: &Value) -> &str {
    assert_eq!(death["lost_bytes"].as_array().map(Vec::len), Some(1), "{death}");
    death["lost_bytes"][0]["hex"].as_str().expect("digits")
}

fn digits(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Sends a request of these bytes, and nobody waits for its outcome here.
fn ask(broker: &Broker, service: &str, bytes: &[u8]) -> Caller {
    let mut caller = broker.login(service);
    caller.send(bytes.to_vec(), &Send::default()).expect("sent");
    caller
}

/// Configures a worker of a script that ends with `exec isdcrash HOW`, and starts it.
fn start_script(broker: &Broker, text: &str, how: &str) {
    let path = broker.folder.path().join("frail");
    let program = program("isdcrash");
    let text = format!("#!/bin/sh\n{text}\nexec {} \"$@\"\n", program.display());
    write_program(&path, text.as_bytes());
    broker.op("config service frail");
    broker.op(&format!("config worker frail localhost {} {how}", path.display()));
    broker.op("start frail");
    broker.await_ready(1);
}

#[test]
fn a_worker_that_segfaults_leaves_its_request() {
    let broker = Broker::start(&[]);
    broker.with_workers("frail", "isdcrash stderr 'it is too hot' signal 11", 1);
    let pid = broker.worker_pid(1);
    let bytes: Vec<u8> = (0..=255).collect();
    let caller = ask(&broker, "frail", &bytes);
    let death = death(&broker, 1);
    assert_eq!(hex(&death), digits(&bytes), "{death}");
    assert_eq!(death["lost"][0]["bytes"], 256, "{death}");
    assert_eq!(death["lost"][0]["state"], "running", "{death}");
    let from = death["lost"][0]["from"].as_str().expect("a client");
    assert!(from.contains(&format!("pid {}", std::process::id())), "{from}");
    let of = &death["death"];
    assert_eq!(of["pid"], pid, "{of}");
    assert_eq!((&of["exit_cause"], &of["signal"]), (&"signal 11".into(), &"SIGSEGV".into()));
    assert_eq!(of["stderr"][0], "it is too hot", "{of}");
    assert!(of["memory_kib_max"].as_u64().is_some_and(|kib| kib > 100), "{of}");
    assert_eq!((&of["killed"], &of["oom"]), (&Value::Null, &false.into()), "{of}");
    // The death is named where people look first.
    assert_eq!(broker.number("worker 1", "worker->death"), 1);
    let events = broker.op("listevents kind=worker_died");
    assert!(events.contains("death 1 has its request"), "{events}");
    let why = broker.op(&format!("why {}", death["lost"][0]["transaction"]));
    assert!(why.contains("'death 1' had it"), "{why}");
    let text = broker.op("death 1");
    assert!(text.contains("00000010  10 11 12 13"), "{text}");
    drop(caller);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_core_file_is_told_where_the_kernel_wrote_one() {
    let broker = Broker::start(&[]);
    let folder = broker.folder.path().to_owned();
    let script = format!("cd {} && ulimit -c unlimited 2> /dev/null", folder.display());
    start_script(&broker, &script, "signal 11");
    let caller = ask(&broker, "frail", b"x");
    let death = death(&broker, 1);
    let pattern = fs::read_to_string("/proc/sys/kernel/core_pattern").expect("a pattern");
    if pattern.starts_with('|') || pattern.starts_with('/') {
        eprintln!("not tried: core files go elsewhere ({pattern})");
    } else {
        let names = fs::read_dir(&folder).expect("the folder").filter_map(Result::ok);
        let has_core = names.map(|entry| entry.file_name()).any(|name| {
            let name = name.to_string_lossy().into_owned();
            name.starts_with("core")
        });
        assert_eq!(death["death"]["core"], has_core, "{death}");
        eprintln!("a core file was written: {has_core}");
    }
    drop(caller);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_somebody_kills_leaves_its_request() {
    let broker = Broker::start(&[]);
    broker.with_workers("frail", "isdcrash hang", 1);
    let caller = ask(&broker, "frail", b"no end\n");
    await_that("a busy worker", || (broker.number("", "isdData.BusyWorkers") == 1).then_some(()));
    signal_pid(broker.worker_pid(1), Signal::SIGKILL);
    let death = death(&broker, 1);
    assert_eq!(hex(&death), digits(b"no end\n"));
    let of = &death["death"];
    assert_eq!((&of["signal"], &of["core"]), (&"SIGKILL".into(), &false.into()), "{of}");
    assert_eq!(of["killed"], Value::Null, "{of}");
    drop(caller);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_the_broker_kills_says_why() {
    let broker = Broker::start(&[]);
    broker.op("config service frail kill_after_ms=200");
    broker.with_workers("frail", "isdcrash hang", 1);
    let caller = ask(&broker, "frail", b"slow");
    let death = death(&broker, 1);
    assert_eq!(hex(&death), digits(b"slow"));
    let of = &death["death"];
    let killed = of["killed"].as_str().expect("a reason");
    assert!(killed.contains("kill_after_ms"), "{of}");
    assert_eq!(of["oom"], false, "{of}");
    drop(caller);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_exits_leaves_its_last_lines() {
    let broker = Broker::start(&[]);
    let how = "isdcrash stderr 'no paint' stderr 'no brush' exit 3";
    broker.with_workers("frail", how, 1);
    let caller = ask(&broker, "frail", b"draw");
    let death = death(&broker, 1);
    assert_eq!(hex(&death), digits(b"draw"));
    let of = &death["death"];
    assert_eq!((&of["exit_cause"], &of["signal"]), (&"exit 3".into(), &Value::Null), "{of}");
    let lines = serde_json::json!(["no paint", "no brush"]);
    assert_eq!(of["stderr"], lines, "{of}");
    drop(caller);
    assert_eq!(broker.end(), 0);
}

/// A cgroup with little memory; removed when it is dropped.
struct Cgroup(PathBuf);

impl Cgroup {
    /// `None` = none can be made here.
    fn with_limit(name: &str, bytes: u64) -> Option<Self> {
        let old = Path::new("/sys/fs/cgroup/memory");
        let (root, key) = match old.is_dir() {
            true => (old, "memory.limit_in_bytes"),
            false => (Path::new("/sys/fs/cgroup"), "memory.max"),
        };
        let path = root.join(format!("{name}-{}", std::process::id()));
        fs::create_dir(&path).ok()?;
        let made = Self(path);
        fs::write(made.0.join(key), bytes.to_string()).ok()?;
        // What is swapped out takes no memory.
        let _ = fs::write(made.0.join("memory.swappiness"), "0");
        let _ = fs::write(made.0.join("memory.swap.max"), "0");
        Some(made)
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        await_that("the cgroup is empty", || fs::remove_dir(&self.0).ok());
    }
}

#[test]
fn a_worker_that_the_kernel_kills_for_want_of_memory_is_told() {
    let Some(cgroup) = Cgroup::with_limit("isect-deaths", 64 << 20) else {
        eprintln!("not tried: no cgroup with a limit of memory can be made here");
        return;
    };
    let broker = Broker::start(&[]);
    let script = format!("echo $$ > {}/cgroup.procs || exit 1", cgroup.0.display());
    start_script(&broker, &script, "memory 512");
    let caller = ask(&broker, "frail", b"all the memory");
    let death = death(&broker, 1);
    assert_eq!(hex(&death), digits(b"all the memory"));
    let of = &death["death"];
    assert_eq!((&of["signal"], &of["oom"]), (&"SIGKILL".into(), &true.into()), "{of}");
    assert!(of["how"].as_str().is_some_and(|how| how.contains("want of memory")), "{of}");
    assert!(of["memory_kib_max"].as_u64().is_some_and(|kib| kib > 16 << 10), "{of}");
    // A kill of another kind in the same place is none.
    broker.await_new_pid(1, 0);
    signal_pid(broker.worker_pid(1), Signal::SIGKILL);
    let second = self::death(&broker, 2);
    assert_eq!(second["death"]["oom"], false, "{second}");
    drop(caller);
    assert_eq!(broker.end(), 0);
    drop(cgroup);
}
