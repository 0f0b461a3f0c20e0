//! Tests of children of a real isdexecd: start, output, end, stop, groups. `refusals` has programs
//! that can't be started, `links` the connections.

mod common;

use common::{Execd, is_running, kill, until, wait_gone};
use nix::sys::signal::Signal;
use protocol::bodies::{ExecSignal, ExitCause};
use protocol::frame::Frame;
use protocol::ids::{RunId, WorkerId};
use std::fs;

#[test]
fn a_program_runs_writes_and_ends_and_all_of_it_is_told() {
    for execd in [Execd::tcp(&[]), Execd::unix(&[])] {
        let program = execd.script(
            "talk",
            "echo \"$# $1 $2\"; printf 'no end'; echo first >&2; echo second >&2; exit 7",
        );
        let mut broker = execd.broker("b");
        let pid = broker.started(3, &program, &["a b", "$HOME;`id`"]);
        let (exited, lines) = broker.exited();
        assert_eq!((exited.worker, exited.run, exited.pid), (WorkerId(3), RunId(3), pid));
        assert_eq!(exited.exit_cause, ExitCause::Exit(7));
        assert_eq!(exited.tail, ["first", "second"]);
        assert!(exited.rss_kib_max > 100, "{exited:?}");
        let on = |stream: &str| -> Vec<&str> {
            lines.iter().filter_map(|line| line.strip_prefix(stream)).collect()
        };
        assert_eq!(on("stdout 0 "), ["2 a b $HOME;`id`", "no end"], "never a shell");
        assert_eq!(on("stderr 0 "), ["first", "second"]);
        assert!(broker.list().is_empty());
    }
}

#[test]
fn a_child_stands_alone_with_a_clean_environment_and_no_descriptors() {
    let execd = Execd::unix(&["--pass-env", "TEST_PASS", "--directory", "/usr"]);
    let program = execd.script(
        "look",
        "env; pwd; umask; read -r line || echo no-input; ls /proc/$$/fd; cat /proc/$$/stat; \
         grep Sig /proc/self/status; tr '\\0' ' ' </proc/$$/cmdline; echo",
    );
    let mut broker = execd.broker("b");
    let pid = broker.started(1, &program, &["x"]);
    let (exited, lines) = broker.exited();
    assert_eq!(exited.exit_cause, ExitCause::Exit(0), "{lines:?}");
    let lines: Vec<&str> = lines.iter().filter_map(|line| line.strip_prefix("stdout 0 ")).collect();
    assert!(lines.contains(&"ISECT_WORKER_SECRET=very-secret"), "{lines:?}");
    assert!(lines.contains(&"TEST_PASS=passed") && lines.iter().any(|l| l.starts_with("PATH=")));
    assert!(!lines.iter().any(|line| line.contains("TEST_LEAK")), "{lines:?}");
    assert!(lines.contains(&"/usr") && lines.contains(&"0022") && lines.contains(&"no-input"));
    // Only the shell's own script is open.
    let fds = lines.iter().filter(|line| line.parse::<u32>().is_ok_and(|fd| fd < 1000 && fd > 2));
    let fds: Vec<&&str> = fds.filter(|fd| **fd != "0022").collect();
    assert!(fds.len() <= 1, "{fds:?}");
    let stat = lines.iter().find(|line| line.contains("(look)")).unwrap();
    let words: Vec<&str> = stat.rsplit_once(") ").unwrap().1.split(' ').collect();
    assert_eq!(words[2], pid.to_string(), "process group");
    assert_eq!(words[3], pid.to_string(), "session");
    for name in ["SigBlk", "SigIgn"] {
        let line = lines.iter().find(|line| line.starts_with(name)).unwrap();
        let set = u64::from_str_radix(line.rsplit_once('\t').unwrap().1, 16).unwrap();
        // The C library keeps 32 and 33 for itself.
        assert_eq!(set & !(0b11 << 31), 0, "{line}");
    }
    let command_line = lines.iter().find(|line| line.starts_with("/bin/sh ")).unwrap();
    assert!(!command_line.contains("secret"), "{command_line}");
}

#[test]
fn the_secret_is_never_in_the_log() {
    let mut execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    broker.started(1, "/bin/true", &["arg-in-log"]);
    broker.exited();
    broker.failed(2, "/does/not/exist", &[]);
    execd.signal(Signal::SIGTERM);
    assert_eq!(execd.wait().code(), Some(0));
    let log = execd.whole_log();
    assert!(log.contains("arg-in-log") && !log.contains("very-secret"), "{log}");
}

#[test]
fn a_killed_program_is_reported_with_its_signal() {
    let execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    for (worker, signal) in [(1, Signal::SIGKILL), (2, Signal::SIGSEGV), (3, Signal::SIGUSR1)] {
        let pid = broker.started(worker, "/bin/sleep", &["1000"]);
        kill(pid, signal);
        let (exited, _) = broker.exited();
        assert_eq!((exited.pid, exited.exit_cause), (pid, ExitCause::Signal(signal as i32)));
    }
    // A signal without a name.
    broker.started(4, "/bin/sleep", &["1000"]);
    let signal = ExecSignal { worker: WorkerId(4), run: RunId(4), signal: 40 };
    broker.send(Frame::ExecSignal(signal));
    assert_eq!(broker.exited().0.exit_cause, ExitCause::Signal(40));
}

#[test]
fn stop_is_a_term_first() {
    let execd = Execd::unix(&[]);
    let program = execd.script(
        "polite",
        "trap 'echo bye >&2; exit 5' TERM; echo up; while :; do sleep 0.05; done",
    );
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    assert_eq!(broker.line(), "up");
    broker.stop(1, 60_000);
    let (exited, _) = broker.exited();
    assert_eq!(exited.exit_cause, ExitCause::Exit(5));
    assert_eq!(exited.tail.last().unwrap(), "bye");
}

#[test]
fn who_ignores_the_term_is_killed_with_its_whole_group() {
    let execd = Execd::unix(&[]);
    let program = execd.script(
        "stubborn",
        "trap '' TERM\n(trap '' TERM; exec sleep 1000) &\nfirst=$!\nsleep 1000 &\n\
         echo \"$first $!\"\nwhile :; do sleep 1000; done",
    );
    let mut broker = execd.broker("b");
    let pid = broker.started(1, &program, &[]);
    let grandchildren: Vec<u32> =
        broker.line().split(' ').map(|word| word.parse().unwrap()).collect();
    assert!(grandchildren.iter().all(|pid| is_running(*pid)));
    broker.stop(1, 200);
    let (exited, _) = broker.exited();
    assert_eq!((exited.pid, exited.exit_cause), (pid, ExitCause::Signal(9)));
    grandchildren.into_iter().for_each(wait_gone);
}

#[test]
fn what_a_program_leaves_behind_in_its_group_ends_with_it() {
    let execd = Execd::unix(&[]);
    let program = execd.script("parent", "sleep 1000 & echo $!; exit 3");
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    let grandchild: u32 = broker.line().parse().unwrap();
    let (exited, _) = broker.exited();
    assert_eq!(
        exited.exit_cause,
        ExitCause::Exit(3),
        "and its open pipes do not hold up the report"
    );
    wait_gone(grandchild);
}

#[test]
fn a_daemon_that_keeps_the_pipes_open_does_not_hold_up_the_report() {
    let execd = Execd::unix(&[]);
    let program = execd.script("daemon", "setsid sleep 1000 & echo $!; exit 4");
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    let daemon: u32 = broker.line().parse().unwrap();
    let (exited, _) = broker.exited();
    assert_eq!(exited.exit_cause, ExitCause::Exit(4));
    kill(daemon, Signal::SIGKILL);
    wait_gone(daemon);
}

#[test]
fn a_flood_of_output_is_counted_not_sent_and_does_not_hold_up_the_others() {
    let execd = Execd::unix(&[]);
    let flood = execd.script("flood", "yes 'a line of text' | head -n 300000 >&2; echo done");
    let mut broker = execd.broker("b");
    broker.started(1, &flood, &[]);
    broker.start(2, "/bin/true", &[]);
    let (mut sent, mut dropped, mut ended) = (0, 0, 0);
    while ended < 2 {
        match broker.next() {
            Frame::ExecOutput(output) => {
                sent += 1;
                dropped += output.dropped;
            }
            Frame::ExecExited(exited) => {
                ended += 1;
                if exited.worker == WorkerId(1) {
                    assert_eq!(exited.tail.len(), 20);
                    assert!(exited.cpu_ms > 0, "{exited:?}");
                }
            }
            Frame::ExecStarted(_) => {}
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(sent + dropped, 300_001, "every line is sent or counted");
    assert!(sent < 5000, "{sent}");
}

#[test]
fn long_lines_and_bytes_that_are_no_text_arrive_cut_and_marked() {
    let execd = Execd::unix(&[]);
    let program = execd.script(
        "binary",
        "printf 'a\\377b\\n'; head -c 100000 /dev/zero | tr '\\0' x; echo; echo after",
    );
    let mut broker = execd.broker("b");
    broker.started(1, &program, &[]);
    let (_, lines) = broker.exited();
    assert_eq!(lines.len(), 3, "{lines:?}");
    assert_eq!(lines[0], "stdout 0 a\u{fffd}b");
    assert!(lines[1].ends_with("xx…") && lines[1].len() < 2100);
    assert_eq!(lines[2], "stdout 0 after");
}

#[test]
fn many_children_start_and_end() {
    let execd = Execd::unix(&[]);
    let mut broker = execd.broker("b");
    let files = || fs::read_dir(format!("/proc/{}/fd", execd.pid())).unwrap().count();
    let before = files();
    for worker in 0..200 {
        broker.start(worker, "/bin/sleep", &["1000"]);
    }
    for _ in 0..200 {
        assert!(matches!(broker.next(), Frame::ExecStarted(_)));
    }
    let listed = broker.list();
    assert_eq!(listed.len(), 200);
    for (worker, _) in &listed {
        broker.stop(*worker, 10_000);
    }
    for _ in 0..200 {
        assert_eq!(broker.exited().0.exit_cause, ExitCause::Signal(15));
    }
    assert!(broker.list().is_empty());
    // Every descriptor was given back.
    until("descriptors are closed", || (files() <= before).then_some(()));
}

#[test]
fn the_limit_of_children_is_told_and_not_permanent() {
    let execd = Execd::unix(&["--children", "2"]);
    let mut broker = execd.broker("b");
    broker.started(1, "/bin/sleep", &["1000"]);
    broker.started(2, "/bin/sleep", &["1000"]);
    let (permanent, text) = broker.failed(3, "/bin/sleep", &["1000"]);
    assert!(!permanent && text.contains("2 processes"), "{text}");
    broker.stop(1, 0);
    broker.exited();
    broker.started(3, "/bin/sleep", &["1000"]);
}
