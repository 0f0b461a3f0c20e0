//! Ends in order with real processes under load: a broker that keeps its workers for the next one,
//! a host that is drained, an execd that is asked to end. Every request has one outcome, which says
//! the truth of what ran, and no worker's process is interrupted.

use client::caller::Caller;
use client::error::Code;
use isect_tests::fault::ask::{Act, Ask};
use isect_tests::fault::history::{Folder, State};
use isect_tests::proc::{Broker, Execd, await_that, is_alive, program};
use nix::sys::signal::Signal;
use protocol::errors::{ErrorCode, Ran};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// Clients that ask all the time.
const CLIENTS: usize = 6;
/// The id of the request that takes long; those of the clients are lower.
const LONG: u64 = 1 << 40;

/// What a client was told of a request: an answer, or an error and whether the work ran.
type Outcome = Result<(), (Code, Ran)>;

/// Clients that ask as long as they are not stopped, and what they were told.
#[derive(Debug, Default)]
struct Load {
    is_over: AtomicBool,
    next: AtomicU64,
    answered: AtomicU64,
    told: Mutex<BTreeMap<u64, Outcome>>,
}

impl Load {
    fn ask(&self, caller: &mut Caller, id: u64, work_us: u64) -> Outcome {
        let ask = Ask { id, work_us, act: Act::Answer, filling: 0 };
        let told = match caller.call(ask.to_string(), Some(Duration::from_secs(20))) {
            Ok(answer) => {
                let text = String::from_utf8_lossy(&answer).into_owned();
                assert!(text.starts_with(&format!("got {id} ")), "{id}: {text}");
                self.answered.fetch_add(1, Ordering::AcqRel);
                Ok(())
            }
            Err(error) => Err((error.code, error.ran)),
        };
        let known = self.told.lock().expect("no thread panics").insert(id, told);
        assert!(known.is_none(), "{id} has two outcomes");
        told
    }

    /// Asks until the load is over; logs in again where the connection is lost.
    fn client(&self, broker: &Mutex<Broker>) {
        let mut caller = None;
        while !self.is_over.load(Ordering::Acquire) {
            let Some(mut present) = caller.take().or_else(|| log_in(broker)) else { continue };
            let id = self.next.fetch_add(1, Ordering::AcqRel);
            if self.ask(&mut present, id, 500 + id % 7 * 1000).is_ok() {
                caller = Some(present);
            }
        }
    }

    /// Waits until so many more requests were answered.
    fn await_answers(&self, more: u64) {
        let until = self.answered.load(Ordering::Acquire) + more;
        await_that("answers", || (self.answered.load(Ordering::Acquire) >= until).then_some(()));
    }
}

/// The address alone is taken under the lock: who logs in may wait for a broker that is to be
/// started again.
fn log_in(broker: &Mutex<Broker>) -> Option<Caller> {
    let address = broker.lock().expect("no thread panics").address();
    let name = protocol::names::ServiceName::new("echo").expect("a name");
    Caller::login(&[address], client::caller::Options::new(name)).ok()
}

/// Runs `act` while clients ask a broker with these workers, each named by its host; the execd at
/// the address `far` is the host of that name. Returns what the clients were told, and what the
/// workers did.
fn under_load(
    args: &[&str],
    far: &str,
    hosts: &[&str],
    act: impl FnOnce(&Load, &Mutex<Broker>),
) -> (Load, Folder) {
    let broker = Broker::start(args);
    let history = TempDir::with_prefix("isect-").expect("temporary folder");
    let mut folder = Folder::new(history.path().to_owned());
    broker.op("config service echo queue_max=1000");
    broker.op(&format!("config host far {far}"));
    let (witness, path) = (program("isdwitness"), history.path().display());
    for host in hosts {
        broker.op(&format!("config worker echo {host} {} history={path}", witness.display()));
    }
    broker.op("start echo");
    broker.await_idle(hosts.len() as i64);
    let (load, broker) = (Load::default(), Mutex::new(broker));
    std::thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| load.client(&broker));
        }
        load.await_answers(50);
        // The clients stop also when this fails, or nobody would hear of it.
        let done = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| act(&load, &broker)));
        load.is_over.store(true, Ordering::Release);
        if let Err(panic) = done {
            std::panic::resume_unwind(panic);
        }
    });
    let broker = broker.into_inner().expect("no thread panics");
    // What clients were refused may still run; the end of a broker waits for it, but not for ever.
    let busy = || broker.number("", "isdData.BusyWorkers");
    await_that("no worker is busy", || (busy() == 0).then_some(()));
    assert_eq!(broker.end(), 0);
    folder.read();
    (load, folder)
}

/// What was told is true of what ran.
fn assert_true(load: &Load, folder: &Folder) {
    let mut begun: BTreeMap<u64, usize> = BTreeMap::new();
    folder.begun.iter().for_each(|begin| *begun.entry(begin.id).or_default() += 1);
    let told = load.told.lock().expect("no thread panics");
    for (id, told) in told.iter() {
        let times = begun.remove(id).unwrap_or(0);
        let is_true = match told {
            Ok(()) | Err((_, Ran::Yes)) => times == 1,
            Err((_, Ran::Maybe)) => times <= 1,
            Err((_, Ran::No)) => times == 0,
        };
        assert!(is_true, "request {id} ran {times} times, and its client was told {told:?}");
    }
    assert!(begun.is_empty(), "nobody asked for {begun:?}");
}

fn pids(broker: &Broker, count: u32) -> Vec<u32> {
    (1..=count).map(|id| broker.worker_pid(id)).collect()
}

#[test]
fn a_broker_is_replaced_under_load_and_its_workers_work_on() {
    let execd = Execd::start(&[]);
    let args = ["--set", "halt_ms=400", "--set", "host_retry_ms=100"];
    let hosts = ["localhost", "localhost", "localhost", "far"];
    let mut before = Vec::new();
    let (load, folder) = under_load(&args, &execd.address, &hosts, |load, broker| {
        let mut long = log_in(broker).expect("a login");
        before = pids(&broker.lock().expect("no thread panics"), 4);
        std::thread::scope(|scope| {
            let told = scope.spawn(move || load.ask(&mut long, LONG, 2_500_000));
            for _ in 0..3 {
                load.await_answers(50);
                // It may wait for its turn, and then nothing of it runs.
                let mut broker = broker.lock().expect("no thread panics");
                let said = broker.op("halt keep");
                assert!(said.contains("its workers stay"), "{said}");
                assert_eq!(broker.process.await_end(), 0);
                assert!(before.iter().all(|pid| is_alive(*pid)));
                broker.restart();
                drop(broker);
                load.await_answers(50);
            }
            let told = told.join().expect("the client of the long request");
            assert!(matches!(told, Err((Code::Isect(ErrorCode::ShuttingDown), _))), "{told:?}");
        });
        let broker = broker.lock().expect("no thread panics");
        await_that("all workers", || (pids(&broker, 4) == before).then_some(()));
        for id in 1..=4 {
            broker.await_page(&format!("worker {id}"), "\"ready");
            assert_eq!(broker.number(&format!("worker {id}"), "worker->restarts"), 0);
        }
    });
    assert_true(&load, &folder);
    let mut witnesses: Vec<u32> = folder.witnesses.keys().map(|witness| witness.pid).collect();
    witnesses.sort_unstable();
    before.sort_unstable();
    assert_eq!(witnesses, before, "each worker has been one process all the time");
    assert!(folder.witnesses.values().all(|state| *state == State::Ready), "none was cut short");
    let told = load.told.lock().expect("no thread panics");
    for (id, told) in told.iter() {
        let is_expected = match told {
            Ok(()) => true,
            Err((Code::Isect(code), _)) => {
                matches!(code, ErrorCode::ShuttingDown | ErrorCode::BrokerLost)
            }
            Err((Code::Application(_) | Code::Newer(_), _)) => false,
        };
        assert!(is_expected, "{id}: {told:?}");
    }
}

/// Asks one request after the other, and stops at the first error, which it returns.
fn ask_until_error(mut caller: Caller, answered: &AtomicU64) -> Code {
    loop {
        match caller.call("x", Some(Duration::from_secs(20))) {
            Ok(answer) => assert_eq!(answer, "x"),
            Err(error) => return error.code,
        }
        answered.fetch_add(1, Ordering::AcqRel);
    }
}

/// How a broker is told to end.
type End<'a> = &'a dyn Fn(&Broker);

/// A client that has the last answer sends its next request when nothing runs any more.
#[test]
fn whoever_stops_at_the_first_error_has_an_outcome_of_each_request() {
    let mut broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 4);
    let by_signal = |broker: &Broker| broker.process.signal(Signal::SIGTERM);
    let by_halt = |broker: &Broker| drop(broker.op("halt"));
    let by_halt_keep = |broker: &Broker| drop(broker.op("halt keep"));
    let kept: [(End<'_>, i32); 5] = [(&by_halt_keep, 0); 5];
    let ended: [(End<'_>, i32); 2] = [(&by_signal, 0), (&by_halt, 1)];
    for (end, status) in kept.into_iter().chain(ended) {
        let answered = AtomicU64::new(0);
        let told: Vec<Code> = std::thread::scope(|scope| {
            let one = || {
                let caller = broker.login("echo");
                scope.spawn(|| ask_until_error(caller, &answered))
            };
            let clients: Vec<_> = std::iter::repeat_with(one).take(20).collect();
            await_that("answers", || (answered.load(Ordering::Acquire) > 500).then_some(()));
            end(&broker);
            clients.into_iter().map(|client| client.join().expect("a client")).collect()
        });
        assert_eq!(told, [Code::Isect(ErrorCode::ShuttingDown); 20]);
        assert_eq!(broker.process.await_end(), status);
        broker.restart();
        broker.await_idle(4);
    }
    assert_eq!(broker.end(), 0);
}

/// All were answered.
fn assert_nothing_lost(load: &Load, folder: &Folder) {
    assert_true(load, folder);
    let told = load.told.lock().expect("no thread panics");
    let lost: Vec<_> = told.iter().filter(|(_, told)| told.is_err()).collect();
    assert!(lost.is_empty(), "{lost:?}");
}

#[test]
fn a_host_that_is_drained_under_load_loses_nothing() {
    let execd = Execd::start(&[]);
    let hosts = ["localhost", "far", "far"];
    let (load, folder) = under_load(&[], &execd.address, &hosts, |load, broker| {
        let broker = broker.lock().expect("no thread panics");
        for _ in 0..3 {
            let far = [broker.worker_pid(2), broker.worker_pid(3)];
            broker.op("drain host far");
            await_that("their ends", || (!far.iter().any(|pid| is_alive(*pid))).then_some(()));
            assert!(broker.op("hosts").contains("up, drained"));
            load.await_answers(50);
            assert_eq!((broker.worker_pid(2), broker.worker_pid(3)), (0, 0));
            broker.op("undrain host far");
            broker.await_page("worker 2", "\"ready");
            broker.await_page("worker 3", "\"ready");
            load.await_answers(50);
        }
    });
    assert_nothing_lost(&load, &folder);
    assert_eq!(folder.witnesses.len(), 1 + 2 * 4);
}

#[test]
fn an_execd_that_is_asked_to_end_under_load_loses_nothing() {
    let mut execd = Execd::start(&["--drain-ms", "60000"]);
    let (hosts, address) = (["localhost", "far", "far"], execd.address.clone());
    let args = ["--set", "host_retry_ms=100"];
    let (load, folder) = under_load(&args, &address, &hosts, |load, broker| {
        let broker = broker.lock().expect("no thread panics");
        for _ in 0..3 {
            execd.process.signal(Signal::SIGTERM);
            assert_eq!(execd.process.await_end(), 0);
            load.await_answers(50);
            execd.restart();
            broker.await_page("worker 2", "\"ready");
            broker.await_page("worker 3", "\"ready");
            load.await_answers(50);
        }
        assert_eq!(broker.number("worker 2", "worker->restarts"), 0);
    });
    assert_nothing_lost(&load, &folder);
    assert_eq!(folder.witnesses.len(), 1 + 2 * 4);
}
