//! Tests overload with real processes: five times the work that the workers can do, more clients
//! than places, readers that do not read, peers that send a byte now and then. Admitted requests
//! keep their deadline, the rest is refused at once, and the operator is served throughout.
//! `OVERLOAD=long` makes it larger and asserts figures that a busy machine would spoil.

use client::address::Address;
use client::caller::Send;
use client::error::{Code, Error};
use client::worker::{Worker, WorkerOptions};
use isect_tests::figures::{is_long, now, say};
use isect_tests::proc::{Broker, TIMEOUT, await_that, within};
use isect_tests::wire::Wire;
use protocol::errors::{ErrorCode, Ran};
use protocol::names::ServiceName;
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Starts workers that take `work` for each request, and end with the broker.
#[expect(clippy::disallowed_methods, reason = "the work of these workers is to take their time")]
fn workers(broker: &Broker, service: &str, count: usize, work: Duration) -> Vec<JoinHandle<()>> {
    let name = ServiceName::new(service).expect("a name");
    let address = Address::parse(&broker.port("worker")).expect("an address");
    let serve = move |mut worker: Worker| {
        while let Ok(Some(request)) = worker.next() {
            // The work itself, which takes time; nothing is waited for.
            std::thread::sleep(work);
            worker.reply(request.body).expect("a reply");
        }
    };
    let threads = (0..count).map(|_| {
        let options = WorkerOptions::self_started(address.clone(), name.clone());
        let worker = Worker::connect(options).expect("a login");
        std::thread::spawn(move || serve(worker))
    });
    let threads = threads.collect();
    broker.await_idle(count as i64);
    threads
}

/// The outcome of one request, and how long it took.
struct Seen {
    took: Duration,
    error: Option<Error>,
}

/// Sends requests at a steady rate, whatever comes back, for some time. Returns all outcomes.
fn offer(
    broker: &Broker,
    service: &str,
    rate: u64,
    span: Duration,
    deadline: Duration,
) -> Vec<Seen> {
    let mut caller = broker.login(service);
    let send = Send { deadline: Some(deadline), ..Send::default() };
    let (begun, mut sent) = (now(), BTreeMap::new());
    let (mut seen, mut count) = (Vec::new(), 0);
    loop {
        let elapsed = begun.elapsed();
        let is_over = elapsed > span;
        let due = elapsed.as_micros() as u64 * rate / 1_000_000;
        while !is_over && count < due {
            sent.insert(caller.send("x", &send).expect("sent"), now());
            count += 1;
        }
        if is_over && sent.is_empty() {
            return seen;
        }
        if let Ok(reply) = caller.recv(Some(Duration::from_millis(1))) {
            let at = sent.remove(&reply.sequence).expect("one outcome");
            seen.push(Seen { took: at.elapsed(), error: reply.error });
        }
        assert!(elapsed < span + TIMEOUT, "{} requests have no outcome", sent.len());
    }
}

/// Requests a second that the workers can do, measured with as many clients as keep them busy.
fn capacity(broker: &Broker, service: &str, clients: usize) -> u64 {
    let (span, begun) = (Duration::from_millis(1500), now());
    let work = || {
        let mut caller = broker.login(service);
        let mut done = 0;
        while begun.elapsed() < span {
            caller.call("x", None).expect("an answer");
            done += 1;
        }
        done
    };
    let total: u64 = std::thread::scope(|scope| {
        let all: Vec<_> = (0..clients).map(|_| scope.spawn(work)).collect();
        all.into_iter().map(|one| one.join().expect("a client")).sum()
    });
    total * 1000 / begun.elapsed().as_millis() as u64
}

/// Measures the operator's commands until `stop` is set.
fn ask_operator(broker: &Broker, stop: &AtomicBool) -> Vec<(Duration, &'static str)> {
    let mut took = Vec::new();
    while !stop.load(Ordering::Relaxed) {
        for command in ["", "workers", "clients", "load", "latency", "settings"] {
            // The time includes the login, as with `isdclient -c`.
            let begun = now();
            broker.op(command);
            took.push((begun.elapsed(), command));
        }
    }
    took.sort();
    took
}

fn at(sorted: &[Duration], per_mille: usize) -> Duration {
    sorted
        .get((sorted.len() * per_mille / 1000).min(sorted.len().saturating_sub(1)))
        .copied()
        .unwrap_or_default()
}

fn is(error: Option<&Error>, code: ErrorCode) -> bool {
    error.is_some_and(|error| error.code == Code::Isect(code))
}

#[test]
fn five_times_too_much_is_refused_at_once_and_what_is_admitted_keeps_its_deadline() {
    let span = Duration::from_secs(if is_long() { 30 } else { 4 });
    let deadline = Duration::from_millis(500);
    let broker = Broker::start(&[]);
    broker.op("config service work selfstart=1");
    let threads = workers(&broker, "work", 4, Duration::from_millis(10));
    let can = capacity(&broker, "work", 8);
    let rate = can * 5 / 4;
    let stop = AtomicBool::new(false);
    let (seen, operator) = std::thread::scope(|scope| {
        let operator = scope.spawn(|| ask_operator(&broker, &stop));
        let clients: Vec<_> =
            (0..4).map(|_| scope.spawn(|| offer(&broker, "work", rate, span, deadline))).collect();
        let seen: Vec<Seen> =
            clients.into_iter().flat_map(|client| client.join().expect("a client")).collect();
        stop.store(true, Ordering::Relaxed);
        (seen, operator.join().expect("the operator"))
    });
    let times = |wanted: &dyn Fn(&Seen) -> bool| {
        let mut times: Vec<Duration> = seen.iter().filter(|s| wanted(s)).map(|s| s.took).collect();
        times.sort_unstable();
        times
    };
    let good = times(&|s| s.error.is_none() && s.took <= deadline);
    let refused = times(&|s| is(s.error.as_ref(), ErrorCode::Overloaded));
    let late = times(&|s| is(s.error.as_ref(), ErrorCode::Deadline));
    let all = times(&|_| true);
    let goodput = good.len() as u64 * 1000 / span.as_millis() as u64;
    say(&format!(
        "capacity {can}/s, offered {}/s: {} requests, {} answered in time ({goodput}/s), \
         {} refused (p50 {:?}, p99 {:?}, max {:?}), {} past their deadline, the longest took {:?}",
        rate * 4,
        all.len(),
        good.len(),
        refused.len(),
        at(&refused, 500),
        at(&refused, 990),
        at(&refused, 1000),
        late.len(),
        at(&all, 1000),
    ));
    let operators: Vec<Duration> = operator.iter().map(|(took, _)| *took).collect();
    say(&format!(
        "operator: {} commands, p50 {:?}, p99 {:?}, the slowest {:?}",
        operators.len(),
        at(&operators, 500),
        at(&operators, 990),
        operator.last(),
    ));
    assert!(at(&all, 1000) < deadline + Duration::from_secs(1), "one was answered too late");
    assert!(refused.len() > all.len() / 2, "{} of {}", refused.len(), all.len());
    assert!(seen.iter().all(|s| !is(s.error.as_ref(), ErrorCode::Overloaded)
        || s.error.as_ref().is_some_and(|error| error.ran == Ran::No)));
    assert!(
        goodput * 100 >= can * if is_long() { 90 } else { 30 },
        "goodput {goodput}/s of {can}/s"
    );
    let limit = Duration::from_millis(100);
    assert!(at(&operators, if is_long() { 1000 } else { 900 }) < limit, "the operator waits");
    assert_eq!(broker.end(), 0);
    threads.into_iter().for_each(|thread| thread.join().expect("a worker"));
}

#[test]
fn a_reader_past_its_outbox_limit_is_dropped_with_an_event_and_others_do_not_notice() {
    let broker =
        Broker::start(&["--set", "body_bytes_max=65536", "--set", "outbox_bytes_max=131072"]);
    broker.remember_events();
    broker.with_workers("echo", "isdecho", 2);
    let mut deaf = Wire::login(&broker.port("client"), "echo");
    let mut other = broker.login("echo");
    let body = vec![5_u8; 60_000];
    let dropped = within(TIMEOUT, || {
        for sequence in 1..=50 {
            // It is refused past `requests_max`, and fails once the connection is closed.
            let head = isect_tests::wire::request(sequence);
            let frame = protocol::frame::Frame::data(head, body.clone().into());
            let _ = deaf.write(&protocol::encode::to_bytes(frame));
        }
        assert_eq!(other.call("x", None).expect("an answer"), "x");
        broker.op("listevents 100").contains("outbox is full").then_some(())
    });
    assert!(dropped.is_some(), "{}", broker.op("listevents 100"));
    assert_eq!(other.call("x", None).expect("an answer"), "x");
    let rss = broker.peak_kib();
    say(&format!("a reader that takes nothing: the broker was never larger than {rss} KiB"));
    assert_eq!(broker.number("worker 1", "worker->restarts"), 0);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_flood_of_clients_stops_at_the_limit_and_goes_on_below_it() {
    let broker = Broker::start(&["--set", "connections_max=20"]);
    broker.with_workers("echo", "isdecho", 1);
    let mut inside = Vec::new();
    let refused = loop {
        match broker.try_login("echo") {
            Ok(caller) => inside.push(caller),
            Err(error) => break error,
        }
        assert!(inside.len() <= 20);
    };
    assert_eq!(refused.code, Code::Isect(ErrorCode::TooManyConnections), "{refused}");
    // One free place is not enough: new clients are let in when a tenth is free.
    let full = inside.len();
    drop(inside.pop());
    assert_eq!(inside[0].call("x", None).expect("an answer"), "x");
    inside.truncate(full - 4);
    let back = await_that("a login", || broker.try_login("echo").ok());
    drop((back, inside));
    await_that("an operator", || broker.try_op("clients").ok());
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_peer_that_sends_a_byte_now_and_then_is_dropped_at_login_ms_on_both_ports() {
    let broker = Broker::start(&["--set", "login_ms=300", "--log", "info"]);
    for port in ["client", "worker"] {
        for give in [0_usize, 1, 63] {
            let mut slow = TcpStream::connect(broker.port(port)).expect("connected");
            slow.write_all(&vec![0; give]).expect("written");
            slow.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            let (begun, mut rest) = (now(), Vec::new());
            // An error may come before the end of the connection.
            let _ = slow.read_to_end(&mut rest);
            assert!(begun.elapsed() < Duration::from_secs(5), "{port} port, {give} bytes");
        }
    }
    assert_eq!(broker.end(), 0);
}
