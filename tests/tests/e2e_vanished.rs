//! A far machine that vanishes: its cable is pulled, so that nobody sends FIN or RST and no kernel
//! answers. Each side notices within `silence_ms` (3 s), whatever was under way; a far machine that
//! is there, but reads nothing, is left alone. Root only, see `isect_tests::cable`. Half-open
//! connections whose machine goes on answering are in `e2e_silent`.

use client::address::Address;
use client::caller::{Caller, Options, Send};
use client::error::Code;
use client::worker::{Worker, WorkerOptions};
use isect_tests::cable::{Cable, FAR, NEAR};
use isect_tests::figures::now;
use isect_tests::proc::{Broker, Execd, PATIENCE, program, within};
use nix::sys::signal::Signal;
use protocol::errors::{ErrorCode, Ran};
use protocol::names::ServiceName;
use std::net::TcpListener;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

/// The promise.
const SILENCE: Duration = Duration::from_millis(3000);
/// What a loaded machine may add in a test.
const SLACK: Duration = Duration::from_millis(1500);
/// How the broker names a machine that is gone, as its kernel tells it.
const VANISHED: &str = "vanished: its machine answers nothing (silence_ms is 3000)";

/// A far machine with its execd, host `far` of the broker here.
struct World {
    broker: Broker,
    execd: Option<Execd>,
    cable: Cable,
    /// Where far clients connect.
    clients: Address,
}

impl World {
    fn build(more: &[&str]) -> Option<Self> {
        let cable = Cable::lay()?;
        // Nobody else is in this network, so the port stays free.
        let free = TcpListener::bind((NEAR, 0)).expect("a port").local_addr().expect("an address");
        let (at, any) = (free.to_string(), format!("{NEAR}:0"));
        let mut usual = vec!["--insecure", "--worker-listen", &any];
        // Operators come over loopback, where the kernel knows them.
        usual.extend(["--listen", "127.0.0.1:0", "--listen", &at]);
        let broker = Broker::start(&[&usual, more].concat());
        let execd = cable.far.run(|| Execd::start_at(&format!("{FAR}:0"), &["--insecure"]));
        broker.op("config events 100000");
        broker.op(&format!("config host far {}", execd.address));
        broker.await_page("host far", "host->state = up");
        let clients = Address::Tcp(at);
        Some(Self { broker, execd: Some(execd), cable, clients })
    }

    fn execd(&self) -> &Execd {
        self.execd.as_ref().expect("it runs")
    }

    /// Workers on the far machine, idle when this returns.
    fn far_workers(&self, service: &str, words: &str, count: i64) {
        let broker = &self.broker;
        let (name, args) = words.split_once(' ').unwrap_or((words, ""));
        let before = broker.number("", "isdData.IdleWorkers");
        broker.op(&format!("config service {service}"));
        for _ in 0..count {
            let path = program(name);
            broker.op(&format!("config worker {service} far {} {args}", path.display()));
        }
        broker.op(&format!("start {service}"));
        broker.await_idle(before + count);
    }

    /// A client on the far machine.
    fn far_client(&self, service: &str, heartbeat: bool) -> Caller {
        let (address, service) = (self.clients.clone(), service.to_owned());
        self.cable.far.run(move || login_at(address, &service, heartbeat))
    }

    /// Waits until the newest events have this.
    fn noticed(&self, what: &str, begun: Instant, parts: &[&str]) {
        let mut page = String::new();
        let has = |line: &str| parts.iter().all(|part| line.contains(part));
        let found = within((SILENCE + SLACK).saturating_sub(begun.elapsed()), || {
            page = self.broker.op("listevents 100000");
            page.lines().any(has).then_some(())
        });
        assert!(found.is_some(), "{what} was not noticed: no {parts:?} in\n{page}");
        report(what, begun);
    }
}

impl Drop for World {
    fn drop(&mut self) {
        // In order, so that its workers end with it.
        if let Some(mut execd) = self.execd.take() {
            execd.process.signal(Signal::SIGTERM);
            within(PATIENCE, || execd.process.ended());
        }
    }
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

/// The outcome of the only request under way: the worker died, and it may have run.
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
fn busy_workers_of_a_vanished_machine_are_noticed_whatever_was_under_way() {
    let Some(world) = World::build(&[]) else { return };
    let broker = &world.broker;
    for service in ["acked", "lost", "late"] {
        world.far_workers(service, "isdcrash hang", 1);
    }
    let mut acked = broker.login("acked");
    let mut lost = broker.login("lost");
    let mut late = broker.login("late");
    acked.send("x", &Send::default()).expect("sent");
    broker.await_page("workers", "BUSY");
    // All of it is acknowledged when the far kernel has answered a keepalive probe.
    assert!(acked.recv(Some(Duration::from_millis(1200))).is_err(), "it never answers");
    world.cable.pull();
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
        world.noticed("a host", begun, &["host_lost", "far"]);
    });
    let events = broker.op("listevents 100000");
    assert!(events.contains(VANISHED), "{events}");
}

#[test]
fn clients_and_idle_workers_of_a_vanished_machine_are_noticed() {
    let Some(world) = World::build(&["--set", "reconnect_ms=0"]) else { return };
    let broker = &world.broker;
    broker.with_workers("slow", "isdpipe sleep 1", 2);
    broker.with_workers("hang", "isdcrash hang", 1);
    broker.op("config service self selfstart=1");
    let address = Address::parse(&broker.port("worker")).expect("an address");
    let (told, is_over) = channel();
    let mut worker = world.cable.far.run(move || {
        let service = ServiceName::new("self").expect("a name");
        Worker::connect(WorkerOptions::self_started(address, service)).expect("a badge")
    });
    let ends = move || told.send(worker.next().map(|_| ()).expect_err("an end"));
    std::thread::Builder::new().spawn(ends).expect("a thread");
    broker.await_idle(4);
    let beats = world.far_client("slow", true);
    let quiet = world.far_client("slow", false);
    let mut waits = world.far_client("hang", false);
    let mut owed = world.far_client("slow", false);
    waits.send("x", &Send::default()).expect("sent");
    broker.await_page("workers", "BUSY");
    owed.send("", &Send::default()).expect("sent");
    broker.await_page("", "isdData.BusyWorkers      = 2\n");
    let gone = [
        ("a client with a heartbeat", beats.limits().client),
        ("a client that says nothing", quiet.limits().client),
        ("a client that waits", waits.limits().client),
        ("a client whose reply is unacknowledged", owed.limits().client),
    ];
    world.cable.pull();
    let begun = now();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let reply = waits.recv(Some(PATIENCE)).expect("the outcome");
            report("the broker, by its far client", begun);
            let error = reply.error.expect("an error");
            let lost = (Code::Isect(ErrorCode::BrokerLost), Ran::Maybe);
            assert_eq!((error.code, error.ran), lost, "{error}");
        });
        scope.spawn(move || {
            let error = is_over.recv_timeout(PATIENCE).expect("the end of the worker");
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
                world.noticed(what, begun, &["client_out", &format!("client {id} ")])
            });
        }
        world.noticed("an idle worker", begun, &["worker 4 ", "silen"]);
    });
}

#[test]
fn a_far_machine_that_reads_nothing_is_left_alone() {
    let Some(world) = World::build(&[]) else { return };
    let broker = &world.broker;
    broker.with_workers("echo", "isdecho", 1);
    broker.with_workers("big", "isdpipe head -c 4194304 /dev/zero", 1);
    let mut slow = world.far_client("big", false);
    let mut tiny = world.far_client("echo", false);
    for _ in 0..5 {
        slow.send("", &Send::default()).expect("sent");
    }
    for _ in 0..1000 {
        tiny.send("tiny", &Send::default()).expect("sent");
    }
    // Nothing is read meanwhile; the far kernel alone answers.
    let mut other = broker.login("echo");
    let begun = now();
    while begun.elapsed() < Duration::from_secs(7) {
        let wait = Some(Duration::from_millis(500));
        assert!(other.recv(wait).is_err(), "nothing is under way");
    }
    for index in 0..5 {
        let reply = slow.recv(Some(PATIENCE)).expect("an outcome");
        assert!(reply.error.is_none(), "{index}: {reply:?}");
        assert_eq!(reply.body.len(), 4 << 20, "{index}");
    }
    for index in 0..1000 {
        let reply = tiny.recv(Some(PATIENCE)).expect("an outcome");
        assert!(reply.error.is_none(), "{index}: {reply:?}");
    }
}
