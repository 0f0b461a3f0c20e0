//! Tests a built-in execd that outlived its broker. The next broker asks what it enforces; if that
//! differs from what it would start itself, another execd takes its place and adopts the workers,
//! or nothing is started. Without a broker it ends after its time.

use isect_tests::proc::{Broker, Process, await_that, copy_program, is_alive, program, signal_pid};
use nix::sys::signal::Signal;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use tempfile::TempDir;

/// The policy in force, as `host localhost` shows it.
fn policy(broker: &Broker) -> String {
    let page = broker.op("host localhost");
    let line = page.lines().find(|line| line.starts_with("host->policy = ")).expect("a policy");
    line.to_owned()
}

fn restarted(broker: &mut Broker, args: &[&str], wrap: &[&str]) -> u32 {
    broker.kill();
    broker.restart_as(args, wrap);
    broker.execd_pid()
}

#[test]
fn an_execd_with_other_rights_is_replaced_and_its_workers_are_adopted() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 2);
    let workers = [broker.worker_pid(1), broker.worker_pid(2)];
    let (first, before) = (broker.execd_pid(), policy(&broker));
    // The options are the same, so the execd stays.
    assert_eq!(restarted(&mut broker, &[], &[]), first);
    assert_eq!(policy(&broker), before);
    broker.await_idle(2);
    assert!(!broker.process.log().contains("takes its place"), "{}", broker.process.log());
    let folder = TempDir::new().expect("temporary folder");
    let copy = folder.path().join("isdecho");
    copy_program("isdecho", &copy);
    let (one, link) = (folder.path().display().to_string(), folder.path().join("link"));
    symlink("/usr", &link).expect("a link");
    let link = link.display().to_string();
    let changes: [&[&str]; 6] = [
        &["--worker-limit", "core=0"],
        &["--worker-env", "NEW=1"],
        &["--worker-scheduling", "inherit"],
        &["--orphan-ms", "500000"],
        &["--allow", "/", "--allow", &link],
        &["--allow", &one],
    ];
    let (mut pid, mut seen) = (first, vec![before]);
    for (at, args) in changes.into_iter().enumerate() {
        let next = restarted(&mut broker, args, &[]);
        assert_ne!(next, pid, "{args:?}");
        assert!(!is_alive(pid), "{args:?}: the old one is gone");
        assert!(!seen.contains(&policy(&broker)), "{args:?}");
        (pid, seen) = (next, [seen, vec![policy(&broker)]].concat());
        broker.await_idle(2);
        assert_eq!([broker.worker_pid(1), broker.worker_pid(2)], workers, "{args:?}: adopted");
        // The warning comes after each restart, also for workers that an earlier change left. A
        // thread of its own writes the log, and the kill of the next round loses what it has not
        // written.
        await_that("what the log says of it", || {
            let log = broker.process.log();
            let count = |text: &str| log.matches(text).count() == at + 1;
            let is_said = count("takes its place and adopts its workers");
            (is_said && count("was started under other rights")).then_some(())
        });
    }
    // The last policy applies to all later starts, also to those of adopted workers.
    signal_pid(workers[0], Signal::SIGKILL);
    let page = broker.await_failed(1);
    assert!(page.contains("is not below an allowed directory"), "{page}");
    broker.op(&format!("config worker echo localhost {}", copy.display()));
    broker.op("start 3");
    broker.await_ready(3);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_directory_that_leads_elsewhere_by_now_is_another_policy() {
    let folder = TempDir::new().expect("temporary folder");
    let link = folder.path().join("link");
    symlink("/usr", &link).expect("a link");
    let allow = ["--allow", &*link.display().to_string()].map(ToOwned::to_owned);
    let allow: Vec<&str> = allow.iter().map(String::as_str).collect();
    let mut broker = Broker::start(&allow);
    let first = broker.execd_pid();
    assert_eq!(restarted(&mut broker, &allow, &[]), first);
    fs::remove_file(&link).expect("removed");
    symlink("/bin", &link).expect("a link");
    if fs::canonicalize(&link).expect("a place") == Path::new("/usr/bin") {
        assert_ne!(restarted(&mut broker, &allow, &[]), first);
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn what_the_broker_was_given_by_whoever_started_it_counts_as_well() {
    let mut broker = Broker::start(&[]);
    let mut pid = broker.execd_pid();
    for line in ["ulimit -c 0", "export TMPDIR=/tmp/other", "renice -n 5 $$ >&2", "ulimit -Sn 200"]
    {
        let line = format!("{line}; exec \"$@\"");
        let wrap = ["/bin/bash", "-c", line.as_str(), "sh"];
        let next = restarted(&mut broker, &[], &wrap);
        assert_ne!(next, pid, "{line}");
        assert_eq!(restarted(&mut broker, &[], &wrap), next, "{line}: once");
        pid = next;
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_execd_of_an_older_program_file_is_replaced() {
    let folder = TempDir::new().expect("temporary folder");
    let file = folder.path().join("isectd");
    let install = || {
        let new = folder.path().join("new");
        copy_program("isectd", &new);
        fs::set_permissions(&new, PermissionsExt::from_mode(0o755)).expect("permissions");
        fs::rename(&new, &file).expect("in its place");
    };
    install();
    let line = format!("shift; exec {} \"$@\"", file.display());
    let wrap = ["/bin/sh", "-c", line.as_str(), "sh"];
    let state = TempDir::with_prefix("isect-").expect("temporary folder");
    let mut broker = Broker::start_wrapped(state, &[], &wrap);
    broker.with_workers("echo", "isdecho", 1);
    let (first, worker) = (broker.execd_pid(), broker.worker_pid(1));
    assert_eq!(restarted(&mut broker, &[], &wrap), first);
    install();
    assert_ne!(restarted(&mut broker, &[], &wrap), first);
    broker.await_idle(1);
    assert_eq!(broker.worker_pid(1), worker);
    broker.process.await_log("is another program file", 1);
    assert_eq!(broker.end(), 0);
}

#[test]
fn nothing_is_started_by_an_execd_that_is_not_the_brokers_and_stays() {
    let folder = TempDir::with_prefix("isect-").expect("temporary folder");
    let state = folder.path().join("state");
    fs::create_dir(&state).expect("a folder");
    fs::set_permissions(&state, PermissionsExt::from_mode(0o700)).expect("permissions");
    let listen = format!("unix:{}", state.join("execd.sock").display());
    let ports = folder.path().join("execd.json").display().to_string();
    let args = ["--listen", &listen, "--allow", "/", "--allow-root-workers", "--state", "none"];
    let args = [&args[..], &["--ports-file", &ports]].concat();
    let mut other = Process::start(&program("isdexecd"), &args, folder.path().join("isdexecd.log"));
    await_that("its socket", || Path::new(&ports).exists().then_some(()));
    let mut broker = Broker::start_in(folder, &[]);
    broker.op("config service echo");
    broker.op(&format!("config worker echo localhost {}", program("isdecho").display()));
    let page = broker.await_page("host localhost", "does not hand over");
    assert!(page.contains(&format!("kill -KILL {}", other.pid())), "{page}");
    let why = await_that("a refusal", || broker.try_op("start echo").err()).to_string();
    assert!(why.contains("nothing can be started on host localhost"), "{why}");
    assert_eq!(broker.worker_pid(1), 0);
    // Does what the warning advises.
    other.signal(Signal::SIGKILL);
    other.await_end();
    broker.execd_pid();
    broker.op("start echo");
    broker.await_idle(1);
    broker.process.signal(Signal::SIGTERM);
    assert_eq!(broker.process.await_end(), 0);
}

#[test]
fn without_a_broker_execd_and_its_workers_end_after_their_time() {
    let mut broker = Broker::start(&["--orphan-ms", "500"]);
    broker.with_workers("echo", "isdecho", 2);
    let (pid, worker) = (broker.execd_pid(), broker.worker_pid(1));
    broker.kill();
    broker.await_nothing_left();
    assert!(!is_alive(pid) && !is_alive(worker));
    broker.process.await_log("no broker came for orphan_ms", 1);
    // The next broker starts all workers anew.
    broker.restart();
    broker.await_idle(2);
    assert_eq!(broker.end(), 0);
}

#[test]
fn without_a_state_directory_all_ends_with_a_killed_broker_at_once() {
    for is_early in [true, false] {
        let mut broker = Broker::start(&["--state", "none"]);
        let mut pid = 0;
        if !is_early {
            broker.with_workers("echo", "isdecho", 2);
            pid = broker.worker_pid(1);
        }
        broker.kill();
        broker.await_nothing_left();
        assert!(pid == 0 || !is_alive(pid));
    }
}
