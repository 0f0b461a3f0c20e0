//! Tests a far machine that becomes unreachable: its link is set down, so nobody sends FIN or RST
//! and no kernel answers. Each side notices within `silence_ms` (3 s), whatever it was doing; a
//! reachable far machine that reads nothing is left alone. Needs root, see
//! `isect_tests::netns_link`. Half-open connections whose machine still answers are in
//! `e2e_silent`.

use client::address::Address;
use client::caller::{Caller, Options, Send};
use client::error::Code;
use client::worker::{Worker, WorkerOptions};
use isect_tests::far_host::FarHost;
use isect_tests::figures::now;
use isect_tests::proc::{TIMEOUT, within};
use protocol::errors::{ErrorCode, Ran};
use protocol::names::ServiceName;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// The default of `silence_ms`, within which a silent peer must be noticed.
const SILENCE: Duration = Duration::from_millis(3000);
/// The time that a loaded machine may add in a test.
const SLACK: Duration = Duration::from_millis(1500);
/// The text for a peer whose machine acknowledges nothing any more.
const TIMED_OUT: &str = "timed out: its machine answers nothing (silence_ms is 3000)";

/// A client on the far machine.
fn far_client(world: &FarHost, service: &str, heartbeat: bool) -> Caller {
    let (address, service) = (world.clients.clone(), service.to_owned());
    world.netns.far.run(move || login_at(address, &service, heartbeat))
}

/// Waits until an event has all these parts, within the time that was promised since `begun`.
fn noticed(world: &FarHost, what: &str, begun: Instant, parts: &[&str]) {
    let mut page = String::new();
    let has = |line: &str| parts.iter().all(|part| line.contains(part));
    let found = within((SILENCE + SLACK).saturating_sub(begun.elapsed()), || {
        page = world.broker.op("listevents 100000");
        page.lines().any(has).then_some(())
    });
    assert!(found.is_some(), "{what} was not noticed: no {parts:?} in\n{page}");
    report(what, begun);
}

#[expect(clippy::print_stdout, reason = "the figure, for the documents")]
fn report(what: &str, begun: Instant) {
    let took = begun.elapsed();
    println!("{what}: noticed after {} ms", took.as_millis());
    assert!(took < SILENCE + SLACK, "{what} was noticed after {took:?}");
}

fn login_at(address: Address, service: &str, heartbeat: bool) -> Caller {
    let name = ServiceName::new(service).expect("a name");
    let options = Options { heartbeat, ..Options::new(name) };
    Caller::login(&[address], options).expect("a login")
}

/// The outcome of the only request under way must be that its worker died and that it may have run.
fn assert_died(what: &str, caller: &mut Caller, begun: Instant) {
    let left = (SILENCE + SLACK).saturating_sub(begun.elapsed());
    let reply = caller.recv(Some(left)).unwrap_or_else(|e| panic!("{what}: {e}"));
    report(what, begun);
    let error = reply.error.expect("an error");
    assert_eq!(
        (error.code, error.ran),
        (Code::Isect(ErrorCode::WorkerDied), Ran::Maybe),
        "{error}"
    );
}

#[test]
fn busy_workers_of_an_unreachable_machine_are_noticed_whatever_was_under_way() {
    let Some(world) = FarHost::build(&[]) else { return };
    let broker = &world.broker;
    for service in ["acked", "lost", "late"] {
        world.far_workers(service, "isdcrash hang", 1);
    }
    let mut acked = broker.login("acked");
    let mut lost = broker.login("lost");
    let mut late = broker.login("late");
    acked.send("x", &Send::default()).expect("sent");
    broker.await_page("workers", "BUSY");
    // All sent bytes are acknowledged when the far kernel has answered a keepalive probe.
    assert!(acked.recv(Some(Duration::from_millis(1200))).is_err(), "it never answers");
    world.netns.set_down();
    let begun = now();
    lost.send("x", &Send::default()).expect("sent");
    std::thread::scope(|scope| {
        scope.spawn(|| assert_died("a busy worker, all acknowledged", &mut acked, begun));
        scope.spawn(|| assert_died("a busy worker, its request unacknowledged", &mut lost, begun));
        scope.spawn(|| {
            assert!(late.recv(Some(Duration::from_millis(1300))).is_err(), "nothing is under way");
            late.send("x", &Send::default()).expect("sent");
            assert_died("a worker that got its request after 1300 ms", &mut late, begun);
        });
        noticed(&world, "a host", begun, &["host_lost", "far"]);
    });
    let events = broker.op("listevents 100000");
    assert!(events.contains(TIMED_OUT), "{events}");
}

#[test]
fn clients_and_idle_workers_of_an_unreachable_machine_are_noticed() {
    let Some(world) = FarHost::build(&["--set", "reconnect_ms=0"]) else { return };
    let broker = &world.broker;
    broker.with_workers("slow", "isdpipe sleep 1", 2);
    broker.with_workers("hang", "isdcrash hang", 1);
    broker.op("config service self selfstart=1");
    let address = Address::parse(&broker.port("worker")).expect("an address");
    let (told, is_over) = channel();
    let mut worker = world.netns.far.run(move || {
        let service = ServiceName::new("self").expect("a name");
        Worker::connect(WorkerOptions::self_started(address, service)).expect("a login")
    });
    let ends = move || told.send(worker.next().map(|_| ()).expect_err("an end"));
    std::thread::Builder::new().spawn(ends).expect("a thread");
    broker.await_idle(4);
    let beats = far_client(&world, "slow", true);
    let quiet = far_client(&world, "slow", false);
    let mut waits = far_client(&world, "hang", false);
    let mut unacknowledged = far_client(&world, "slow", false);
    waits.send("x", &Send::default()).expect("sent");
    broker.await_page("workers", "BUSY");
    unacknowledged.send("", &Send::default()).expect("sent");
    broker.await_page("", "isdData.BusyWorkers      = 2\n");
    let gone = [
        ("a client with a heartbeat", beats.limits().client),
        ("a client that says nothing", quiet.limits().client),
        ("a client that waits", waits.limits().client),
        ("a client whose reply is unacknowledged", unacknowledged.limits().client),
    ];
    world.netns.set_down();
    let begun = now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let reply = waits.recv(Some(TIMEOUT)).expect("the outcome");
            report("the broker, by its far client", begun);
            let error = reply.error.expect("an error");
            let lost = (Code::Isect(ErrorCode::BrokerLost), Ran::Maybe);
            assert_eq!((error.code, error.ran), lost, "{error}");
        });
        scope.spawn(move || {
            let error = is_over.recv_timeout(TIMEOUT).expect("the end of the worker");
            report("the broker, by its far worker", begun);
            assert_eq!(error.code, Code::Isect(ErrorCode::BrokerLost), "{error}");
        });
        scope.spawn(|| {
            let said = within(SILENCE + SLACK, || {
                world
                    .execd()
                    .process
                    .log()
                    .contains("was silent and answered no ping")
                    .then_some(())
            });
            assert!(said.is_some(), "{}", world.execd().process.log());
            report("the broker, by its far execd", begun);
        });
        for (what, id) in gone {
            let world = &world;
            scope.spawn(move || {
                noticed(world, what, begun, &["client_out", &format!("client {id} ")])
            });
        }
        noticed(&world, "an idle worker", begun, &["worker 4 ", "silen"]);
    });
}

#[test]
fn a_far_machine_that_reads_nothing_is_left_alone() {
    let Some(world) = FarHost::build(&[]) else { return };
    let broker = &world.broker;
    broker.with_workers("echo", "isdecho", 1);
    broker.with_workers("big", "isdpipe head -c 4194304 /dev/zero", 1);
    let mut slow = far_client(&world, "big", false);
    let mut tiny = far_client(&world, "echo", false);
    for _ in 0..5 {
        slow.send("", &Send::default()).expect("sent");
    }
    for _ in 0..1000 {
        tiny.send("tiny", &Send::default()).expect("sent");
    }
    // Nothing is read meanwhile; only the far kernel answers.
    let mut other = broker.login("echo");
    let begun = now();
    while begun.elapsed() < Duration::from_secs(7) {
        let wait = Some(Duration::from_millis(500));
        assert!(other.recv(wait).is_err(), "nothing is under way");
    }
    for index in 0..5 {
        let reply = slow.recv(Some(TIMEOUT)).expect("an outcome");
        assert!(reply.error.is_none(), "{index}: {reply:?}");
        assert_eq!(reply.body.len(), 4 << 20, "{index}");
    }
    for index in 0..1000 {
        let reply = tiny.recv(Some(TIMEOUT)).expect("an outcome");
        assert!(reply.error.is_none(), "{index}: {reply:?}");
    }
}
