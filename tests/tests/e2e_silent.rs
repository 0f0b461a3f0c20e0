//! Tests peers that are connected but gone: half-open connections made by a blackhole proxy, and
//! stopped processes. Each side notices within `silence_ms` (3 s) by itself. Machines that are
//! unreachable are in `e2e_peer_liveness`.

use client::address::Address;
use client::caller::{Caller, Options, Send};
use client::error::{Code, Error};
use client::worker::{Worker, WorkerOptions};
use isect_tests::blackhole::Blackhole;
use isect_tests::proc::{
    Broker, Execd, TIMEOUT, await_that, is_alive, processes_of, program, signal_pid, within,
};
use nix::sys::signal::Signal;
use protocol::errors::{ErrorCode, Ran};
use protocol::names::ServiceName;
use std::time::{Duration, Instant};

/// The default of `silence_ms`, within which a silent peer must be noticed.
const SILENCE: Duration = Duration::from_millis(3000);
/// The time that a loaded machine may add in a test: turns of the scheduler, and the check itself.
const SLACK: Duration = Duration::from_millis(1500);

/// Waits until something is noticed, and prints how long that took.
#[expect(clippy::disallowed_methods, reason = "it is the time that is tested")]
#[expect(clippy::print_stdout, reason = "the figure, for the documents")]
fn noticed(what: &str, look: impl FnMut() -> Option<()>) {
    let begun = Instant::now();
    let found = within(SILENCE + SLACK, look);
    println!("{what}: noticed after {} ms", begun.elapsed().as_millis());
    assert!(
        found.is_some(),
        "{what} was not noticed within {SILENCE:?} (and {SLACK:?} for the machine)"
    );
}

#[expect(clippy::disallowed_methods, reason = "it is the time that is tested")]
#[expect(clippy::print_stdout, reason = "the figure, for the documents")]
fn timed<T>(what: &str, work: impl FnOnce() -> T) -> T {
    let begun = Instant::now();
    let done = work();
    let took = begun.elapsed();
    println!("{what}: noticed after {} ms", took.as_millis());
    assert!(took < SILENCE + SLACK, "{what} was noticed after {took:?}");
    done
}

fn login_at(address: &str, service: &str, heartbeat: bool) -> Caller {
    let name = ServiceName::new(service).expect("a name");
    let options = Options { heartbeat, ..Options::new(name) };
    Caller::login(&[Address::Tcp(address.to_owned())], options).expect("a login")
}

fn assert_lost(error: &Error, ran: Ran) {
    assert_eq!((error.code, error.ran), (Code::Isect(ErrorCode::BrokerLost), ran), "{error}");
    assert!(error.text.contains("answered no ping"), "{error}");
}

#[test]
fn a_half_open_client_and_its_broker_notice_each_other() {
    let broker = Broker::start(&[]);
    broker.with_workers("hang", "isdcrash hang", 1);
    let proxy = Blackhole::before(&broker.port("client"));
    let mut waits = login_at(&proxy.address, "hang", true);
    let mut op = broker.login("op");
    let mut clients = || op.call("clients", None).expect("a page");
    let has_gone = |page: &[u8]| !String::from_utf8_lossy(page).contains("hang");
    assert!(!has_gone(&clients()));
    let sequence = waits.send("x", &Send::default()).expect("sent");
    broker.await_page("workers", "BUSY");
    proxy.blackhole();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let error = timed("a silent broker, by its client", || {
                waits.recv(Some(TIMEOUT)).expect("the outcome").error.expect("an error")
            });
            assert_lost(&error, Ran::Maybe);
            assert!(!waits.limits().version.is_empty());
        });
        noticed("a silent client, by the broker", || has_gone(&clients()).then_some(()));
    });
    assert_eq!(waits.recv(None).expect_err("the end").ran, Ran::No);
    assert!(sequence > 0);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_request_of_a_silent_client_that_waited_is_removed() {
    let broker = Broker::start(&[]);
    broker.with_workers("hang", "isdcrash hang", 1);
    let proxy = Blackhole::before(&broker.port("client"));
    let mut busy = broker.login("hang");
    busy.send("x", &Send::default()).expect("sent");
    broker.await_page("workers", "BUSY");
    let mut waits = login_at(&proxy.address, "hang", true);
    waits.send("waits", &Send::default()).expect("sent");
    broker.await_page("", "isdData.Waiting          = 1\n");
    proxy.blackhole();
    noticed("a silent client whose request waits", || {
        (broker.number("", "isdData.Waiting") == 0).then_some(())
    });
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_half_open_idle_worker_comes_back_on_a_new_connection() {
    let broker = Broker::start(&[]);
    broker.op("config service self selfstart=1");
    broker.remember_events();
    let proxy = Blackhole::before(&broker.port("worker"));
    let service = ServiceName::new("self").expect("a name");
    let options = WorkerOptions::self_started(Address::Tcp(proxy.address.clone()), service);
    let mut worker = Worker::connect(options).expect("a login");
    assert_eq!(worker.id().0, 1);
    let answering = std::thread::Builder::new()
        .spawn(move || {
            while let Ok(Some(request)) = worker.next() {
                worker.reply(request.body).expect("a reply");
            }
        })
        .expect("a thread");
    broker.await_idle(1);
    proxy.blackhole();
    noticed("a silent worker, by the broker", || {
        broker.op("listevents 100").contains("answered no ping").then_some(())
    });
    // The worker noticed it, too, and came back through the same proxy, as another self-started
    // worker.
    broker.await_idle(1);
    let mut caller = broker.login("self");
    assert_eq!(caller.call("again", Some(TIMEOUT)).expect("an answer"), "again");
    assert_eq!(broker.end(), 0);
    answering.join().expect("the worker ends with its broker");
}

#[test]
fn a_half_open_host_is_lost_and_dialled_again() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    let execd = Execd::start(&[]);
    let proxy = Blackhole::before(&execd.address);
    broker.op("config service echo");
    broker.op(&format!("config host a {}", proxy.address));
    broker.op(&format!("config worker echo a {}", program("isdecho").display()));
    broker.op("start echo");
    broker.await_idle(1);
    let pid = broker.worker_pid(1);
    proxy.blackhole();
    noticed("a silent host, by the broker", || {
        broker.op("listevents 100").contains("host a: was silent").then_some(())
    });
    broker.await_page("host a", "host->state = up");
    assert_eq!(broker.worker_pid(1), pid, "its worker went on");
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_stopped_broker_is_noticed_by_all_and_blames_nobody_when_it_goes_on() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    let execd = Execd::start(&[]);
    broker.with_workers("hang", "isdcrash hang", 1);
    broker.with_workers("idle", "isdecho", 2);
    broker.op(&format!("config host a {}", execd.address));
    broker.await_page("host a", "host->state = up");
    let pids: Vec<u32> = [1, 2, 3].map(|id| broker.worker_pid(id)).to_vec();
    let mut promises = login_at(&broker.port("client"), "idle", true);
    let mut waits = broker.login("hang");
    waits.send("x", &Send::default()).expect("sent");
    broker.await_page("workers", "BUSY");
    broker.process.signal(Signal::SIGSTOP);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let error = timed("a stopped broker, by its client", || {
                waits.recv(Some(TIMEOUT)).expect("the outcome").error.expect("an error")
            });
            assert_lost(&error, Ran::Maybe);
        });
        noticed("a stopped broker, by its host", || {
            execd.process.log().contains("was silent and answered no ping").then_some(())
        });
    });
    broker.process.signal(Signal::SIGCONT);
    broker.await_page("host a", "host->state = up");
    broker.await_idle(2);
    assert_eq!(promises.call("still there", None).expect("an answer"), "still there");
    // Nobody is blamed for silence while the broker could ask nobody.
    assert_eq!([1, 2, 3].map(|id| broker.worker_pid(id)).to_vec(), pids);
    let events = broker.op("listevents 100");
    assert!(!events.contains("answered no ping"), "{events}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_stopped_in_the_middle_of_a_request_is_overdue_and_ended_with_its_group() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    broker.op("config service hang kill_after_ms=3000 deadline_ms=1500");
    // The worker has a child, which must not survive it.
    let seconds = format!("{}.{}", 3600, std::process::id());
    broker.with_workers("hang", &format!("isdpipe sleep {seconds}"), 1);
    let old = broker.worker_pid(1);
    let mut caller = broker.login("hang");
    let sequence = caller.send("x", &Send::default()).expect("sent");
    let is_child = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        line.split(|byte| *byte == 0).next().is_some_and(|word| word.ends_with(b"sleep"))
    };
    let child = await_that("the worker's child", || {
        processes_of(&seconds).into_iter().find(|pid| is_child(pid))
    });
    for pid in [old, child] {
        signal_pid(pid, Signal::SIGSTOP);
    }
    let reply = caller.recv_from(sequence, Some(TIMEOUT)).expect("the outcome");
    let error = reply.error.expect("an error");
    assert_eq!((error.code, error.ran), (Code::Isect(ErrorCode::Deadline), Ran::Maybe), "{error}");
    assert!(broker.op("worker 1").contains("overdue"), "{}", broker.op("worker 1"));
    let events = broker.op("listevents 100");
    assert!(events.contains("request_overdue"), "{events}");
    let new = broker.await_new_pid(1, old);
    assert!(is_alive(new));
    await_that("the end of the group", || (!is_alive(old) && !is_alive(child)).then_some(()));
    let events = broker.op("listevents 100");
    assert!(events.contains("kill_after_ms"), "{events}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_is_busy_far_longer_than_the_silence_is_left_alone() {
    let broker = Broker::start(&["--set", "silence_ms=300", "--set", "heartbeat_ms=100"]);
    broker.with_workers("slow", "isdpipe sleep 2", 1);
    let mut caller = broker.login("slow");
    // The client waits as long, sends pings meanwhile, and gets its answer.
    assert_eq!(caller.call("", Some(TIMEOUT)).expect("an answer"), "");
    assert_eq!(broker.number("worker 1", "worker->restarts"), 0);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_client_that_is_held_back_hears_that_the_broker_is_there() {
    let broker = Broker::start(&["--set", "silence_ms=400", "--set", "heartbeat_ms=100"]);
    // The worker reads nothing for two seconds, then everything. Meanwhile its client is not read,
    // in the middle of a frame; later it waits for its answer behind pieces that are not read yet.
    broker.with_workers("late", "isdpipe sh -c 'sleep 2;cat>/dev/null'", 1);
    let mut caller = broker.login("late");
    let more = Send { more: true, ..Send::default() };
    let piece = vec![7_u8; 1 << 20];
    let sequence = caller.send(piece.clone(), &more).expect("sent");
    for index in 1..40 {
        let send = Send { more: index < 39, conversation: Some((sequence, 0)), ..more };
        caller.send(piece.clone(), &send).expect("sent");
    }
    let reply = caller.recv(Some(TIMEOUT)).expect("an outcome");
    assert!(reply.error.is_none(), "{reply:?}");
    assert_eq!(broker.number("worker 1", "worker->restarts"), 0);
    assert_eq!(broker.end(), 0);
}
