//! Tests malicious workers: what a program that the broker starts as another user can reach of the
//! broker, its execd and its state; and a host that delays starts. Real processes; most tests need
//! root, because only root can act as another user.
#![allow(clippy::print_stderr, reason = "a test that tries less than it could says so")]

use isect_tests::proc::{Broker, Execd, await_that, copy_program, program, write_program};
use nix::unistd::Uid;
use protocol::settings::Setting;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Users that nothing else on the machine runs as, one for each test, because a limit of processes
/// counts all processes of a user.
const EVIL: u32 = 64_991;
const BOMBER: u32 = 64_992;

#[expect(clippy::print_stderr, reason = "a test that is not tried says so")]
fn is_root() -> bool {
    let is_root = Uid::effective().is_root();
    if !is_root {
        eprintln!("not tried: only root can start workers as another user");
    }
    is_root
}

fn processes_of_user(uid: u32) -> Vec<u32> {
    let entries = fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let is_theirs = |pid: &u32| {
        fs::metadata(format!("/proc/{pid}")).is_ok_and(|meta| meta.uid() == uid)
            && isect_tests::proc::is_alive(*pid)
    };
    pids.filter(is_theirs).collect()
}

/// A folder that every user may enter, with a copy of a program in it.
fn open_folder(name: &str) -> (tempfile::TempDir, String) {
    let folder = tempfile::tempdir().expect("temporary folder");
    let open = |path: &Path| {
        fs::set_permissions(path, PermissionsExt::from_mode(0o755)).expect("permissions");
    };
    open(folder.path());
    let copy = folder.path().join(name);
    copy_program(name, &copy);
    open(&copy);
    let copy = copy.to_string_lossy().into_owned();
    (folder, copy)
}

/// Has a worker run a shell line as its request. Returns its output and its errors.
fn evil(broker: &Broker, line: &str) -> String {
    let mut caller = broker.login("evil");
    let answer = caller.call(format!("{{ {line}\n}} 2>&1; true"), None).expect("an answer");
    String::from_utf8_lossy(&answer).into_owned()
}

#[test]
fn a_worker_of_another_user_reaches_nothing_but_its_own_port() {
    if !is_root() {
        return;
    }
    let user = format!("{EVIL}:{EVIL}");
    let broker = Broker::start(&["--worker-user", &user]);
    broker.with_workers("evil", "isdpipe /bin/sh", 1);
    assert_eq!(evil(&broker, "id -u; id -G").trim(), format!("{EVIL}\n{EVIL}"));
    // The state: the key of the worker secrets, the configuration, execd's record of its processes.
    let state = broker.folder.path().join("state");
    for name in ["key", "config.isect", "execd/execd.children", "lock", "."] {
        let path = state.join(name);
        let path = path.display();
        let told = evil(&broker, &format!("cat {path}; echo x > {path}; ls {path}"));
        assert_eq!(told.matches("denied").count(), 3, "{name}: {told}");
    }
    // The sockets: as an operator, and as a broker that wants a program started.
    let (_folder, isdclient) = open_folder("isdclient");
    for (address, command) in [
        (broker.port("client_unix"), "workers"),
        (broker.port("execd"), "workers"),
        (broker.port("client"), "halt"),
        (broker.port("client"), "workers"),
    ] {
        let told = evil(&broker, &format!("{isdclient} -h {address} -c {command}"));
        assert!(told.to_lowercase().contains("denied"), "{address} {command}: {told}");
    }
    // Signals to the broker and the execd, and their memory.
    let execd: u32 = broker.number("host localhost", "host->hostpid").try_into().expect("a pid");
    for pid in [broker.process.pid(), execd] {
        let told =
            evil(&broker, &format!("kill -9 {pid}; cat /proc/{pid}/environ; ls /proc/{pid}/fd"));
        assert_eq!(told.to_lowercase().matches("not permitted").count(), 1, "{told}");
        assert_eq!(told.to_lowercase().matches("denied").count(), 2, "{told}");
    }
    assert!(broker.op("services").contains("evil"), "all of it goes on");
    assert_eq!(broker.end(), 0);
    assert!(processes_of_user(EVIL).is_empty());
}

#[test]
fn a_fork_bomb_stays_within_its_limit_and_ends_with_its_worker() {
    if !is_root() {
        return;
    }
    let user = format!("{BOMBER}:{BOMBER}");
    let broker = Broker::start(&["--worker-user", &user, "--worker-limit", "nproc=25"]);
    broker.with_workers("evil", "isdpipe /bin/sh", 1);
    // bash, because sh gives up when it can't fork. Each process leaves its group, begins a session
    // with a clean environment, and starts the next one.
    let (folder, _) = open_folder("isdecho");
    let bomb = folder.path().join("bomb");
    write_program(
        &bomb,
        b"#!/bin/bash\nwhile :; do setsid env -i /bin/bash \"$0\" >/dev/null 2>&1 & sleep 0.1; done\n",
    );
    let bomb = bomb.display();
    // isdpipe ends the process group of a request, so the bomb must have left it by then.
    let left = "until [ $(cut -d' ' -f6 /proc/$!/stat) = $! ]; do :; done";
    evil(&broker, &format!("setsid {bomb} >/dev/null 2>&1 </dev/null & {left}"));
    await_that("the bomb to go off", || (processes_of_user(BOMBER).len() >= 20).then_some(()));
    assert!(processes_of_user(BOMBER).len() <= 25);
    assert!(broker.op("services").contains("evil"), "the operator is served meanwhile");
    broker.op("stop evil");
    await_that("its end", || processes_of_user(BOMBER).is_empty().then_some(()));
    assert_eq!(broker.end(), 0);
}

#[test]
fn root_is_warned_of_workers_that_run_as_root_unless_that_is_meant() {
    if !is_root() {
        return;
    }
    let folder = tempfile::tempdir().expect("temporary folder");
    let source = folder.path().join("remember").to_string_lossy().into_owned();
    fs::write(&source, "config events 100\n").expect("a file");
    let broker = Broker::start(&["--source", &source]);
    let page = broker.await_page("listevents 100", "host_warning");
    assert!(page.contains("--worker-user NAME"), "{page}");
    broker.process.await_log("--worker-user NAME", 1);
    assert_eq!(broker.end(), 0);
    let broker = Broker::start(&["--source", &source, "--allow-root-workers"]);
    // The warning would come right after "host_up", long before a worker that this execd starts is
    // ready.
    broker.with_workers("echo", "isdecho", 1);
    let page = broker.await_page("listevents 100", "host_up");
    assert!(!page.contains("host_warning"), "{page}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn only_what_is_allowed_is_started_on_the_brokers_own_machine() {
    let (folder, echo) = open_folder("isdecho");
    let broker = Broker::start(&["--allow", &folder.path().to_string_lossy()]);
    broker.op("config service echo");
    broker.op(&format!("config worker echo localhost {echo}"));
    broker.op("config worker echo localhost /bin/sh -c id");
    broker.op("start echo");
    broker.await_ready(1);
    let page = broker.await_failed(2);
    assert!(page.contains("is not below an allowed directory"), "{page}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_host_that_puts_starts_off_gets_all_its_workers_in_the_end_and_none_is_failed() {
    let execd = Execd::start(&["--start-burst", "3", "--start-rate", "20"]);
    let broker = Broker::start(&[]);
    broker.remember_events();
    broker.op(&format!("config host far {}", execd.address));
    broker.op("config service echo");
    for _ in 0..15 {
        broker.op(&format!("config worker echo far {}", program("isdecho").display()));
    }
    broker.op("start echo");
    broker.await_idle(15);
    for id in 1..=15 {
        assert_eq!(broker.number(&format!("worker {id}"), "worker->restarts"), 0);
    }
    let events = broker.op("listevents 1000");
    let put_off = events.matches("is put off for").count();
    assert!((12..40).contains(&put_off), "{put_off} times put off:\n{events}");
    assert!(!events.contains("worker_failed") && !events.contains("worker_died"), "{events}");
    assert_eq!(broker.end(), 0);
}

/// Every option in the units of docs/systemd exists in its program, and systemd, where it is
/// installed, accepts the units.
#[test]
#[expect(clippy::disallowed_methods, reason = "runs the programs for what they print")]
fn the_systemd_units_name_options_that_exist() {
    let folder = tempfile::tempdir().expect("temporary folder");
    for name in ["isectd", "isdexecd"] {
        let file = isect_tests::docs::root().join(format!("docs/systemd/{name}.service"));
        let unit = fs::read_to_string(&file).expect("a unit");
        let begin = format!("ExecStart=/usr/local/bin/{name} ");
        let joined = unit.replace("\\\n", "");
        let line = joined.lines().find_map(|line| line.strip_prefix(&begin)).expect("ExecStart");
        let help = std::process::Command::new(program(name)).arg("--help").output().expect("help");
        let help = String::from_utf8_lossy(&help.stdout).into_owned();
        for option in line.split_ascii_whitespace().filter(|word| word.starts_with("--")) {
            assert!(help.contains(&format!("{option} <")), "{name}: {option}");
        }
        // What is kept, or drained, must not be ended by systemd meanwhile.
        assert!(unit.lines().any(|line| line == "KillMode=process"), "{name}");
        let stop = unit.lines().find_map(|line| line.strip_prefix("TimeoutStopSec="));
        let stop_ms = stop.and_then(|secs| secs.parse::<u64>().ok()).expect("seconds") * 1000;
        let limits = execd::engine::limits::Limits::default();
        let needed = match name {
            "isectd" => Setting::HaltMs.row().default,
            _ => limits.drain_ms + limits.give_up_ms,
        };
        assert!(stop_ms >= needed + 10_000, "{name} needs {needed} ms, systemd gives {stop_ms}");
        let copy = folder.path().join(format!("{name}.service"));
        let here = program(name).to_string_lossy().into_owned();
        fs::write(&copy, unit.replace(&format!("/usr/local/bin/{name}"), &here)).expect("a copy");
        let verified = std::process::Command::new("systemd-analyze")
            .args(["verify", "--man=no"])
            .arg(&copy)
            .output();
        match verified {
            Ok(done) => {
                let told = String::from_utf8_lossy(&done.stderr).into_owned();
                assert!(!told.contains(&*copy.to_string_lossy()), "{told}");
            }
            Err(_) => eprintln!("not verified: systemd-analyze is not installed"),
        }
    }
}
