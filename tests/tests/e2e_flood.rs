//! Tests crowds of real processes: ten thousand clients before a full queue, connections beyond
//! every limit on both ports, workers that die in a row. The operator is served throughout.
//! `OVERLOAD=long` runs the long form. Single peers that are a burden are in `e2e_slow`.

use client::address::Address;
use client::caller::{Caller, Options, Send};
use client::error::Code;
use client::worker::{Worker, WorkerOptions};
use isect_tests::figures::{is_long, now, say};
use isect_tests::proc::{Broker, TIMEOUT, await_that};
use isect_tests::wire::{self, Wire};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use protocol::bodies::Login;
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::names::ServiceName;
use std::collections::BTreeMap;
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// `wanted` connections, or as many as the limit of descriptors lets this process have.
fn fitting(wanted: usize) -> usize {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE).expect("a limit");
    // The broker has the same limit, and keeps an eighth of it for workers and files.
    let free = usize::try_from(hard / 8 * 7).unwrap_or(usize::MAX).saturating_sub(300);
    if soft < hard {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard).expect("the limit is raised");
    }
    if free < wanted {
        say(&format!("{free} connections instead of {wanted}: the limit of descriptors is {hard}"));
    }
    free.min(wanted)
}

fn at(sorted: &[Duration], per_mille: usize) -> Duration {
    let last = sorted.len().saturating_sub(1);
    sorted.get((sorted.len() * per_mille / 1000).min(last)).copied().unwrap_or_default()
}

/// Opens `count` connections that are logged in; the logins are under way at the same time.
fn crowd(address: &str, frame: &Frame, count: usize) -> Vec<Wire> {
    let mut wires = Vec::with_capacity(count);
    while wires.len() < count {
        let part = (count - wires.len()).min(250);
        let first = wires.len();
        wires.extend((0..part).map(|_| {
            let mut wire = Wire::connect(address);
            wire.send(frame.clone());
            wire
        }));
        for wire in &mut wires[first..] {
            let answer = wire.next_frame();
            assert!(
                matches!(answer, Some(Frame::LoginOk(_) | Frame::WorkerLoginOk(_))),
                "{answer:?}"
            );
        }
    }
    wires
}

/// Starts workers that take `work` for each request, and end with the broker.
#[expect(clippy::disallowed_methods, reason = "the work of these workers is to take their time")]
fn workers(broker: &Broker, service: &str, count: usize, work: Duration) {
    let name = ServiceName::new(service).expect("a name");
    let address = Address::parse(&broker.port("worker")).expect("an address");
    for _ in 0..count {
        let options = WorkerOptions::self_started(address.clone(), name.clone());
        let mut worker = Worker::connect(options).expect("a login");
        std::thread::spawn(move || {
            while let Ok(Some(request)) = worker.next() {
                // The work itself, which takes time; nothing is waited for.
                std::thread::sleep(work);
                worker.reply(request.body).expect("a reply");
            }
        });
    }
    broker.await_idle(count as i64);
}

/// How many requests of a crowd had which outcome, and the longest time to one.
#[derive(Debug, Default)]
struct Outcomes {
    answered: usize,
    refused: usize,
    longest: Duration,
}

/// Sends one request on each connection, and adds all outcomes to `seen`.
fn ask_all(wires: &mut [Wire], sequence: u32, deadline: Duration, seen: &mut Outcomes) {
    let deadline_ms = deadline.as_millis() as u32;
    let mut sent = Vec::with_capacity(wires.len());
    for wire in wires.iter_mut() {
        sent.push(now());
        let head = Header { deadline_ms, ..wire::request(sequence) };
        wire.send(Frame::data(head, "x".into()));
    }
    for (wire, sent) in wires.iter_mut().zip(sent) {
        match wire.next_frame() {
            Some(Frame::Data { head, .. }) if head.sequence == sequence => seen.answered += 1,
            Some(Frame::Error { error, .. }) if error.code == ErrorCode::Overloaded => {
                assert_eq!(error.ran, Ran::No, "{error}");
                seen.refused += 1;
            }
            other => panic!("neither an answer nor overloaded: {other:?}"),
        }
        seen.longest = seen.longest.max(sent.elapsed());
    }
}

/// Keeps the queue of a service full, from one connection, until `stop` is set.
fn keep_full(broker: &Broker, service: &str, queue_max: usize, stop: &AtomicBool) {
    let mut caller = broker.login(service);
    let send = Send { deadline: Some(TIMEOUT * 4), ..Send::default() };
    let mut under_way = 0;
    while !stop.load(Ordering::Relaxed) {
        // A few more than fit, so that a free place is taken at once.
        while under_way < queue_max + 20 {
            caller.send("x", &send).expect("sent");
            under_way += 1;
        }
        if let Ok(reply) = caller.recv(Some(Duration::from_millis(5))) {
            under_way -= 1;
            let is_full = reply.error.is_some_and(|e| e.code == Code::Isect(ErrorCode::Overloaded));
            if is_full {
                // Leaves some of the time to the others.
                let _ = caller.recv(Some(Duration::from_millis(1))).map(|_| under_way -= 1);
            }
        }
    }
}

/// Measures an operator's commands, each with its login, until `stop` is set.
fn ask_operator(
    broker: &Broker,
    stop: &AtomicBool,
    rows: usize,
) -> BTreeMap<&'static str, Vec<Duration>> {
    let mut took: BTreeMap<&'static str, Vec<Duration>> = BTreeMap::new();
    while !stop.load(Ordering::Relaxed) {
        for command in ["", "workers", "clients", "services", "queue", "load"] {
            let begun = now();
            let page = broker.op(command);
            took.entry(command).or_default().push(begun.elapsed());
            let lines = page.lines().count();
            assert!(command != "clients" || lines > rows, "{lines} lines for {rows} clients");
        }
    }
    took.values_mut().for_each(|times| times.sort_unstable());
    took
}

#[test]
fn a_crowd_before_a_full_queue_is_refused_at_once_and_the_operator_is_heard() {
    let clients = fitting(if is_long() { 10_000 } else { 2_000 });
    let idlers = if is_long() { 2_000 } else { 300 };
    let deadline = Duration::from_secs(if is_long() { 20 } else { 10 });
    let broker = Broker::start(&[
        "--set",
        "silence_ms=600000",
        "--set",
        "requests_max=100000",
        "--log",
        "warn",
    ]);
    let queue_max = clients / 4;
    broker.op(&format!("config service work selfstart=1 queue_max={queue_max} admit_percent=0"));
    broker.op("config service many selfstart=1");
    workers(&broker, "work", 4, Duration::from_millis(4));
    let idle =
        crowd(&broker.port("worker"), &Frame::WorkerLogin(wire::worker_login("many")), idlers);
    let login = Frame::Login(Login { heartbeat: false, ..wire::login("work") });
    let mut wires = crowd(&broker.port("client"), &login, clients);
    let rss = broker.rss_kib();
    let span = Duration::from_secs(if is_long() { 60 } else { 5 });
    let (stop, begun) = (AtomicBool::new(false), now());
    let (seen, refusals, operator) = std::thread::scope(|scope| {
        scope.spawn(|| keep_full(&broker, "work", queue_max, &stop));
        broker.await_page("queue work", &format!("work: {queue_max} wait"));
        let operator = scope.spawn(|| ask_operator(&broker, &stop, clients));
        let probe = scope.spawn(|| {
            let (mut caller, mut times) = (broker.login("work"), Vec::new());
            while !stop.load(Ordering::Relaxed) {
                let begun = now();
                match caller.call("x", None) {
                    Ok(_) => {}
                    Err(e) if e.code == Code::Isect(ErrorCode::Overloaded) => {
                        times.push(begun.elapsed());
                    }
                    Err(e) => panic!("{e}"),
                }
            }
            times.sort_unstable();
            times
        });
        let mut seen = Outcomes::default();
        for sequence in 1.. {
            ask_all(&mut wires, sequence, deadline, &mut seen);
            if begun.elapsed() > span {
                break;
            }
        }
        stop.store(true, Ordering::Relaxed);
        (seen, probe.join().expect("a probe"), operator.join().expect("the operator"))
    });
    say(&format!(
        "{clients} clients, {idlers} idle workers, {:?}: {} answered, {} refused, the last outcome \
         after {:?}; a refusal takes p50 {:?}, p99 {:?}, max {:?} of {}; broker {rss} KiB before, \
         at most {} KiB",
        begun.elapsed(),
        seen.answered,
        seen.refused,
        seen.longest,
        at(&refusals, 500),
        at(&refusals, 990),
        at(&refusals, 1000),
        refusals.len(),
        broker.peak_kib(),
    ));
    let limit = Duration::from_millis(100);
    for (command, times) in &operator {
        say(&format!(
            "operator: '{command}' {} times, p50 {:?}, p99 {:?}, max {:?}",
            times.len(),
            at(times, 500),
            at(times, 990),
            at(times, 1000)
        ));
        // A list of 10,000 sometimes takes longer, when the crowd has both processors.
        let asked = if is_long() { at(times, 990) } else { at(times, 500) };
        assert!(asked < limit * if is_long() { 1 } else { 5 }, "'{command}' took {asked:?}");
    }
    assert!(seen.longest < deadline + Duration::from_secs(1), "{seen:?}");
    assert!(seen.refused > 0 && seen.answered > 0 && !refusals.is_empty(), "{seen:?}");
    drop((wires, idle));
    assert_eq!(broker.end(), 0);
}

#[test]
fn long_lists_of_workers_and_waiting_requests_are_whole() {
    let broker = Broker::start(&["--set", "silence_ms=600000"]);
    broker.op("config service self selfstart=1");
    broker.op("config service other queue_max=1000");
    broker.op("pause other");
    let workers =
        crowd(&broker.port("worker"), &Frame::WorkerLogin(wire::worker_login("self")), 400);
    let mut asks = Wire::login(&broker.port("client"), "other");
    let mut caller = Wire::login(&broker.port("client"), "self");
    (1..=700).for_each(|sequence| asks.ask(sequence, "x"));
    broker.await_page("", "isdData.Waiting          = 700\n");
    // One worker becomes busy and moves to the other list.
    caller.ask(1, "x");
    broker.await_page("workers busy", "self");
    let page = broker.op("workers");
    let rows = page.lines().filter(|line| line.trim_start().starts_with("self ")).count();
    assert_eq!(rows, 400, "{page}");
    let idle = broker.op("workers idle");
    assert_eq!(idle.lines().filter(|line| line.trim_start().starts_with("self ")).count(), 399);
    for command in ["queue", "queue other"] {
        let page = broker.op(command);
        let mut ids: Vec<&str> = page
            .lines()
            .filter(|line| line.trim_start().starts_with("other "))
            .filter_map(|line| line.split_whitespace().nth(1))
            .collect();
        assert_eq!(ids.len(), 700, "{page}");
        ids.dedup();
        assert_eq!(ids.len(), 700, "each stands there once");
        assert!(page.contains("other: 700 wait; the service is paused"), "{page}");
    }
    let error = broker.try_op("queue nobody").expect_err("no such service");
    assert_eq!(error.code, Code::Isect(ErrorCode::NotFound), "{error}");
    drop(workers);
    assert_eq!(broker.end(), 0);
}

/// Connects again and again and keeps the newest connections, until `stop` is set.
fn flood(address: &str, most: usize, stop: &AtomicBool) -> usize {
    let mut kept = std::collections::VecDeque::new();
    let mut count = 0;
    while !stop.load(Ordering::Relaxed) {
        if let Ok(stream) = TcpStream::connect(address) {
            kept.push_back(stream);
            count += 1;
        }
        if kept.len() > most {
            kept.pop_front();
        }
    }
    count
}

#[test]
fn the_owner_gets_in_over_the_unix_socket_while_both_ports_are_flooded() {
    let folder = TempDir::with_prefix("isect-").expect("temporary folder");
    // The broker may have 300 descriptors.
    let wrap = ["sh", "-c", "ulimit -n 300; exec \"$@\"", "sh"];
    let broker = Broker::start_wrapped(folder, &["--log", "error"], &wrap);
    broker.with_workers("echo", "isdecho", 1);
    let mut inside = broker.login("echo");
    let unix = Address::parse(&broker.port("client_unix")).expect("an address");
    let (stop, mut times) = (AtomicBool::new(false), Vec::new());
    std::thread::scope(|scope| {
        let floods: Vec<_> = ["client", "worker"]
            .map(|port| {
                let (address, stop) = (broker.port(port), &stop);
                scope.spawn(move || flood(&address, 400, stop))
            })
            .into_iter()
            .collect();
        let (begun, mut tries) = (now(), 0);
        while begun.elapsed() < Duration::from_secs(if is_long() { 30 } else { 4 }) {
            let asked = now();
            for command in ["", "clients", "workers"] {
                let options = Options::new(ServiceName::op());
                let page = Caller::login(std::slice::from_ref(&unix), options)
                    .and_then(|mut op| op.call(command, Some(TIMEOUT)));
                assert!(page.is_ok(), "try {tries}: {page:?}");
            }
            times.push(asked.elapsed() / 3);
            tries += 1;
            // Clients that are logged in are served.
            assert_eq!(inside.call("x", None).expect("an answer"), "x");
        }
        stop.store(true, Ordering::Relaxed);
        let counts: Vec<usize> =
            floods.into_iter().map(|one| one.join().expect("a flood")).collect();
        times.sort_unstable();
        say(&format!(
            "flood of {counts:?} connections on the ports of clients and workers, descriptor limit \
             300: an operator's command over the Unix socket took p50 {:?}, max {:?} of {}",
            at(&times, 500),
            at(&times, 1000),
            times.len()
        ));
    });
    // Below the limit, new clients are let in again.
    await_that("a place", || broker.try_login("echo").ok());
    assert_eq!(broker.number("worker 1", "worker->restarts"), 0);
    assert_eq!(broker.end(), 0);
}

#[test]
fn repetitions_stay_within_the_retry_budget_while_workers_die_in_a_row() {
    let fast = ["restart_min_ms=1", "restart_max_ms=1", "restart_minute_max=100000"];
    let args: Vec<&str> = fast.iter().flat_map(|set| ["--set", set]).collect();
    let broker = Broker::start(&args);
    let requests = if is_long() { 2000 } else { 240 };
    for (service, program) in [("dies", "isdcrash exit 1"), ("some", "isdcrash after 3 exit 1")] {
        broker.op(&format!("config service {service} poison_deaths=100 retry_idempotent=10"));
        broker.with_workers(service, program, 4);
        let begun = now();
        let ask = || {
            let mut caller = broker.login(service);
            let send = Send { idempotent: true, ..Send::default() };
            let mut answered = 0;
            for _ in 0..requests / 4 {
                caller.send("x", &send).expect("sent");
                let reply = caller.recv(Some(TIMEOUT)).expect("an outcome");
                match reply.error {
                    None => answered += 1,
                    Some(e) => assert_eq!(e.code, Code::Isect(ErrorCode::WorkerDied), "{e}"),
                }
            }
            answered
        };
        let answered: u64 = std::thread::scope(|scope| {
            let all: Vec<_> = (0..4).map(|_| scope.spawn(ask)).collect();
            all.into_iter().map(|one| one.join().expect("a client")).sum()
        });
        let took = begun.elapsed();
        let page = broker.op(&format!("load {service}"));
        let row: Vec<u64> = page
            .lines()
            .last()
            .map(|line| line.split_whitespace().filter_map(|word| word.parse().ok()).collect())
            .unwrap_or_default();
        let [.., retried, denied, _, _] = row[..] else { panic!("{page}") };
        say(&format!(
            "'{program}': {requests} idempotent requests in {took:?}, {answered} answered, \
             {retried} repetitions, {denied} denied"
        ));
        // The budget allows three in each window of ten seconds, and a tenth of the requests.
        let windows = 1 + took.as_secs() / 10;
        assert!(retried <= requests / 10 + 3 * windows, "{page}");
        assert!(retried >= 3 && denied > 0, "{page}");
        broker.op(&format!("stop {service}"));
    }
    assert_eq!(broker.end(), 0);
}
