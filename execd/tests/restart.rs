//! Tests of an execd that dies and the next one: with a state directory it finds the processes,
//! reads on their output, and stops them. Also tests of the command line.

mod common;

use common::{Execd, await_recorded, is_root, is_running, kill, run_to_end, until, wait_gone};
use nix::sys::signal::Signal;
use protocol::bodies::ExitCause;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use tempfile::tempdir;

/// Kills an execd with SIGKILL, once it has recorded these processes; returns its directory for the
/// next one.
#[expect(clippy::unwrap_used, reason = "a test that can't go on panics")]
fn crash(mut execd: Execd, state: &str, pids: &[u32]) -> tempfile::TempDir {
    await_recorded(state, pids);
    execd.signal(Signal::SIGKILL);
    execd.wait();
    std::mem::replace(&mut execd.directory, tempdir().unwrap())
}

#[test]
fn the_next_execd_adopts_what_runs_reads_on_and_reports_what_ended() {
    let home = tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let mut execd = Execd::unix(&["--state", &state]);
    let writer = execd.script(
        "writer",
        "echo up; n=0; while [ $n -lt 50 ]; do n=$((n+1)); echo line $n; sleep 0.02; done; \
         sleep 1000 & echo $!; wait",
    );
    let mut broker = execd.broker("a broker");
    let stays = broker.started(1, &writer, &["x"]);
    assert_eq!(broker.line(), "up");
    let dies = broker.started_among_output(2, "/bin/sleep", &["1000"]);
    drop(broker);
    execd.wait_log("broker disconnected");
    let directory = crash(execd, &state, &[stays, dies]);
    assert!(is_running(stays) && is_running(dies));
    kill(dies, Signal::SIGKILL);
    wait_gone(dies);

    let execd = Execd::unix_in(directory, &["--state", &state]);
    let mut broker = execd.broker("a broker");
    // Its output continues, and none of its writes failed.
    let (listed, exited, grandchild) = broker.collect_after_restart();
    assert_eq!(listed, [(1, stays)]);
    assert_eq!((exited.pid, exited.exit_cause), (dies, ExitCause::Unknown));
    assert!(is_running(grandchild));
    broker.stop(1, 10_000);
    let (exited, _) = broker.exited();
    assert_eq!((exited.pid, exited.exit_cause), (stays, ExitCause::Unknown));
    wait_gone(stays);
    wait_gone(grandchild);
    assert!(broker.list().is_empty());
    let written = || fs::read_to_string(home.path().join("state/execd.children")).unwrap();
    until("nothing is written down", || (written().lines().count() == 1).then_some(()));
}

/// With the rights of the systemd unit, under which execd may not write to files of others.
#[test]
fn the_output_of_a_worker_of_another_user_is_read_on_without_all_of_roots_rights() {
    if !is_root() {
        return;
    }
    let home = tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let args = ["--state", &state, "--user", "65534:65534", "--bounded"];
    let execd = Execd::unix(&args);
    let open = |path: &std::path::Path| {
        fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
    };
    open(execd.directory.path());
    let writer = execd.script(
        "writer",
        "echo up; echo opened >/dev/stdout; n=0; while :; do n=$((n+1)); echo line $n; sleep 0.02; done",
    );
    let mut broker = execd.broker("b");
    let pid = broker.started(1, &writer, &[]);
    assert_eq!(broker.line(), "up");
    assert_eq!(broker.line(), "opened", "its own stdout can be opened by name");
    let execd = Execd::unix_in(crash(execd, &state, &[pid]), &args);
    let mut broker = execd.broker("b");
    assert_eq!(broker.list(), [(1, pid)]);
    assert!(broker.line().starts_with("line "));
    broker.stop(1, 0);
    broker.exited();
    wait_gone(pid);
}

#[test]
fn what_a_process_left_behind_that_ended_between_two_execds_is_ended_by_the_second() {
    let home = tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let execd = Execd::unix(&["--state", &state]);
    let parent = execd.script("parent", "sleep 1000 & echo $!; wait");
    let mut broker = execd.broker("a broker");
    let pid = broker.started(1, &parent, &["x"]);
    let child: u32 = broker.line().parse().unwrap();
    drop(broker);
    let directory = crash(execd, &state, &[pid]);
    kill(pid, Signal::SIGKILL);
    wait_gone(pid);
    assert!(is_running(child), "nobody was there to end it");
    let execd = Execd::unix_in(directory, &["--state", &state]);
    wait_gone(child);
    drop(execd);
}

/// An execd can die between a start and its line in the state directory; the fault run hit that
/// moment.
#[test]
fn what_was_started_and_not_written_down_is_ended_by_the_next_execd_and_the_rest_is_not() {
    let home = tempdir().unwrap();
    let state = home.path().join("state").display().to_string();
    let execd = Execd::unix(&["--state", &state]);
    let mut broker = execd.broker("a broker");
    let known = broker.started(1, "/bin/sleep", &["1000"]);
    let unknown = broker.started(2, "/bin/sleep", &["1000"]);
    drop(broker);
    let other = Execd::unix(&["--state", &home.path().join("other").display().to_string()]);
    let others = other.broker("another broker").started(2, "/bin/sleep", &["1000"]);
    let directory = crash(execd, &state, &[known, unknown]);
    let file = home.path().join("state/execd.children");
    let written = fs::read_to_string(&file).unwrap();
    let line = |line: &&str| !line.contains(&format!(" {unknown} "));
    let without: Vec<&str> = written.lines().filter(line).collect();
    assert_eq!(without.len(), written.lines().count() - 1, "{written}");
    fs::write(&file, without.join("\n") + "\n").unwrap();
    let execd = Execd::unix_in(directory, &["--state", &state]);
    wait_gone(unknown);
    assert_eq!(execd.broker("a broker").list(), [(1, known)]);
    assert!(is_running(others), "another execd's");
}

#[test]
fn an_adopted_process_that_ends_is_noticed_at_once_and_its_group_goes_with_it() {
    let home = tempdir().unwrap();
    let state = home.path().display().to_string();
    let execd = Execd::unix(&["--state", &state]);
    let program = execd.script("parent", "sleep 1000 & echo $!; wait");
    let mut broker = execd.broker("b");
    let pid = broker.started(1, &program, &[]);
    let grandchild: u32 = broker.line().parse().unwrap();
    let execd = Execd::unix_in(crash(execd, &state, &[pid]), &["--state", &state]);
    let mut broker = execd.broker("b");
    assert_eq!(broker.list(), [(1, pid)]);
    kill(pid, Signal::SIGKILL);
    let (exited, _) = broker.exited();
    assert_eq!((exited.pid, exited.exit_cause), (pid, ExitCause::Unknown));
    wait_gone(grandchild);
}

#[test]
fn another_execd_on_the_same_socket_or_state_is_refused_and_a_dead_ones_socket_is_replaced() {
    let home = tempdir().unwrap();
    let state = home.path().display().to_string();
    let execd = Execd::unix(&["--state", &state]);
    let (status, text) = run_to_end(&["--listen", &execd.address]);
    assert_eq!(status, 5);
    assert!(text.contains("another execd listens"), "{text}");
    let (status, text) = run_to_end(&["--listen", "127.0.0.1:0", "--state", &state]);
    assert_eq!(status, 5);
    assert!(text.contains("another execd uses the state directory"), "{text}");
    let execd = Execd::unix_in(crash(execd, &state, &[]), &["--state", &state]);
    assert!(execd.broker("b").list().is_empty());
}

#[test]
fn command_lines_that_make_no_sense_end_with_their_status_and_the_cure() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().to_string();
    let home = tempdir().unwrap();
    let file = home.path().join("file").display().to_string();
    fs::write(&file, "not a socket").unwrap();
    let open = home.path().join("open");
    fs::create_dir(&open).unwrap();
    fs::set_permissions(&open, fs::Permissions::from_mode(0o777)).unwrap();
    let open_address = format!("unix:{}", open.join("s").display());
    let in_file = format!("{file}/x");
    let socket_in_file = format!("unix:{file}");
    let cases: &[(&[&str], i32, &str)] = &[
        (&["--listen", "0.0.0.0:0"], 2, "or say --insecure"),
        (&["--listen", "0.0.0.0:0"], 2, "--tokens FILE"),
        (&["--listen", "127.0.0.1:0", "--no-allow"], 2, "nothing is allowed"),
        (&["--listen", "127.0.0.1:0", "--no-allow"], 2, "--allow DIR"),
        (&["--user", "no-such-user"], 2, "there is no user 'no-such-user'"),
        (&["--user", "4000000"], 2, "4000000:GROUP"),
        (&["--limit", "cores=1"], 2, "there is no limit"),
        (&["--limit", "core=2:1"], 2, "above the hard one"),
        (&["--umask", "999"], 2, "octal"),
        (&["--start-rate", "0"], 2, "at least 1"),
        (&["--env", "ISECT_WORKER_SECRET=x"], 2, "--env"),
        (&["--listen", "nonsense"], 2, "one of ADDR:PORT, tls://ADDR:PORT and unix:PATH"),
        (&["--listen", &taken, "--state", "none"], 3, "another program listens there"),
        (&["--listen", "unix:/no/such/directory/s"], 3, "can't listen"),
        (&["--listen", &socket_in_file], 3, "is no socket"),
        (&["--listen", &open_address], 3, "everybody can write to"),
        (&["--allow", "/no/such/directory"], 2, "--allow /no/such/directory"),
        (&["--allow", "/bin/sh"], 2, "not a directory"),
        (&["--directory", "/no/such"], 2, "working directory"),
        (&["--children", "0"], 2, "1 to 4000"),
        (&["--children", "4001"], 2, "1 to 4000"),
        (&["--env", "=B"], 2, "no name of a variable"),
        (&["--listen", "127.0.0.1:0", "--state", &in_file], 4, "state directory"),
        (&["--listen", "127.0.0.1:0", "--ports-file", &in_file], 6, "ports file"),
        (&["--nonsense"], 2, "--nonsense"),
        (&["--log", "loud"], 2, "loud"),
    ];
    for (args, want, part) in cases {
        let (status, text) = run_to_end(args);
        assert_eq!(status, *want, "{args:?}: {text}");
        assert!(text.contains(part), "{args:?}: {text}");
    }
}

#[test]
fn an_open_execd_serves_other_addresses_within_its_directories() {
    let execd = Execd::tcp(&["--insecure", "--allow", "/bin", "--log-format", "json"]);
    let mut broker = execd.broker("b");
    broker.started(1, "/bin/true", &[]);
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Exit(0));
}
