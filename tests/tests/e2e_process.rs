//! Tests what a worker process finds at its start – arguments, environment, descriptors, signals,
//! session – and what becomes of its output, as the kernel shows it.

use isect_tests::proc::{Broker, Execd, TIMEOUT, await_that, program, within};
use std::collections::BTreeMap;
use std::path::Path;
use std::time::Duration;

fn proc_file(pid: u32, name: &str) -> Vec<u8> {
    std::fs::read(format!("/proc/{pid}/{name}")).unwrap_or_else(|e| panic!("{pid}/{name}: {e}"))
}

/// Splits NUL-separated texts.
fn texts(bytes: &[u8]) -> Vec<String> {
    let whole = String::from_utf8_lossy(bytes).into_owned();
    whole.trim_end_matches('\0').split('\0').map(ToString::to_string).collect()
}

fn status_field(pid: u32, key: &str) -> String {
    let status = String::from_utf8(proc_file(pid, "status")).expect("UTF-8");
    let line = status.lines().find(|line| line.starts_with(key)).expect("a field");
    line.split_whitespace().nth(1).expect("a value").to_owned()
}

/// Field 41 of `stat`. It is counted from the end of field 2, which may contain anything.
fn scheduling_policy(pid: u32) -> String {
    let stat = String::from_utf8(proc_file(pid, "stat")).expect("UTF-8");
    let (_, rest) = stat.rsplit_once(')').expect("a name");
    rest.split_whitespace().nth(38).expect("a policy").to_owned()
}

#[test]
fn workers_are_scheduled_as_the_broker_if_that_is_asked_for() {
    let broker = Broker::start(&["--worker-scheduling", "inherit"]);
    broker.with_workers("echo", "isdecho", 1);
    assert_eq!(scheduling_policy(broker.worker_pid(1)), "0");
}

#[test]
fn a_worker_starts_with_what_it_needs_and_nothing_else() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho one \"two words\" 'single \"q\"' Grüße back\\\\slash", 1);
    let pid = broker.worker_pid(1);
    let socket = broker.port("worker_unix");
    let path = program("isdecho").to_string_lossy().into_owned();
    assert_eq!(
        texts(&proc_file(pid, "cmdline")),
        [
            path.as_str(),
            &socket,
            "0",
            "1",
            "echo",
            "one",
            "two words",
            "single \"q\"",
            "Grüße",
            "back\\slash"
        ]
    );
    let environment: BTreeMap<String, String> = texts(&proc_file(pid, "environ"))
        .iter()
        .filter_map(|text| text.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    let secret = environment.get("ISECT_WORKER_SECRET").expect("a secret");
    assert!(secret.len() > 16, "{secret}");
    assert!(!environment.keys().any(|name| name.starts_with("CARGO")), "{environment:?}");
    assert!(!broker.process.log().contains(secret), "the secret is in the log");
    for command in ["worker 1", "save", "workers"] {
        assert!(!broker.op(command).contains(secret), "the secret is in '{command}'");
    }
    // SCHED_BATCH: a worker that wakes does not preempt the broker.
    assert_eq!(scheduling_policy(pid), "3");
    // It has its standard streams and its connection, but no descriptor of execd or the broker.
    let open = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let targets: Vec<_> = open
        .filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok())
        .map(|target| target.to_string_lossy().into_owned())
        .collect();
    assert_eq!(targets.len(), 4, "{targets:?}");
    for field in ["SigBlk", "SigIgn"] {
        let mask = u64::from_str_radix(&status_field(pid, field), 16).expect("a mask");
        // SIGPIPE (13) is ignored by the runtime of the program; 32 and 33 belong to the C library.
        assert_eq!(mask & !(1 << 12 | 3 << 31), 0, "{field} {mask:x}");
    }
    let stat = String::from_utf8(proc_file(pid, "stat")).expect("UTF-8");
    let fields: Vec<&str> = stat.rsplit(')').next().expect("fields").split_whitespace().collect();
    assert_eq!((fields[2], fields[3]), (pid.to_string().as_str(), pid.to_string().as_str()));
    let cwd = std::fs::read_link(format!("/proc/{pid}/cwd")).expect("a directory");
    assert_eq!(cwd, Path::new("/"));
    assert_eq!(broker.end(), 0);
}

#[test]
fn neither_loop_ever_waits_for_room_for_a_descriptor() {
    let execd = Execd::start(&[]);
    let broker = Broker::start(&[]);
    let built_in = broker.execd_pid();
    for pid in [broker.process.pid(), built_in, execd.process.pid()] {
        let limits = String::from_utf8(proc_file(pid, "limits")).expect("UTF-8");
        let line = limits.lines().find(|line| line.starts_with("Max open files")).expect("a line");
        let limit: u64 =
            line.split_whitespace().nth(3).expect("a limit").parse().expect("a number");
        let room: u64 = status_field(pid, "FDSize:").parse().expect("a number");
        // If the limit is higher than anybody needs, the table is large all the same.
        assert!(room >= limit.min(sys::descriptors::ROOM_MAX), "{pid}: {room} of {limit}");
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn arguments_survive_save_kill_and_clone_exactly() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("p", "isdpipe printf %s| \"a b\" '' \"q\\\"q\" # $HOME * é", 1);
    let expected = "a b||q\"q|#|$HOME|*|é|";
    assert_eq!(broker.login("p").call("", None).expect("an answer"), expected);
    let saved = broker.op("save");
    broker.kill();
    broker.restart();
    assert_eq!(broker.op("save"), saved);
    broker.op("clone 1");
    broker.op("stop 1");
    broker.op("start 2");
    broker.await_ready(2);
    assert_eq!(broker.login("p").call("", None).expect("an answer"), expected);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_writes_without_end_is_bounded_and_disturbs_nobody() {
    let broker = Broker::start(&["--log", "error"]);
    broker.remember_events();
    broker.with_workers("echo", "isdecho", 1);
    broker.with_workers("loud", "isdpipe sh -c 'yes nonsense >&2'", 1);
    let mut loud = broker.login("loud");
    let mut others = broker.login("echo");
    std::thread::scope(|scope| {
        let asks = scope.spawn(move || loud.call("x", Some(Duration::from_millis(1500))));
        within(TIMEOUT, || {
            assert_eq!(others.call("x", None).expect("an answer"), "x");
            asks.is_finished().then_some(())
        });
        let error = asks.join().expect("an end").expect_err("it has no answer");
        assert!(!error.to_string().is_empty());
    });
    let events = broker.op("listevents 100");
    assert!(events.contains("nonsense"), "{events}");
    let kib = broker.peak_kib();
    assert!(kib < 64 * 1024, "{kib} KiB");
    assert_eq!(broker.end(), 0);
}

#[test]
fn lines_of_workers_reach_the_events_whole_and_clean() {
    let broker = Broker::start(&[]);
    broker.op("config events 1000 worker_output");
    let script = broker.folder.path().join("say");
    let text =
        "printf 'plain\\ntab\\tand \\033[31mred\\n\\377\\nGrüße\\n' >&2\nprintf 'no end' >&2\n";
    std::fs::write(&script, text).expect("a script");
    broker.with_workers("say", &format!("isdpipe sh {}", script.display()), 1);
    broker.login("say").call("x", None).expect("an answer");
    let events = broker.await_page("listevents 1000", "Grüße");
    assert!(events.contains("plain"), "{events}");
    assert!(!events.contains('\u{1b}'), "{events:?}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn two_hundred_workers_start_serve_and_end_together() {
    let broker = Broker::start(&["--log", "warn"]);
    broker.op("config service many");
    broker.op(&format!("config worker many localhost {}", program("isdecho").display()));
    let mut op = broker.login("op");
    for _ in 1..200 {
        op.call("clone 1", None).expect("an answer");
    }
    broker.op("start many");
    broker.await_idle(200);
    let mut caller = broker.login("many");
    for index in 0..400 {
        assert_eq!(caller.call(format!("{index}"), None).expect("an answer"), format!("{index}"));
    }
    // The worker that was idle longest is first, so each had two requests.
    for id in [1, 77, 200] {
        assert_eq!(broker.number(&format!("worker {id}"), "worker->Transactions"), 2);
    }
    broker.op("stop many");
    await_that("the end of all", || {
        (broker.number("", "isdData.LazyWorkers") == 200).then_some(())
    });
    broker.op("start many");
    broker.await_idle(200);
    assert_eq!(broker.end(), 0);
}
