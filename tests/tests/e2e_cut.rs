//! A far machine that is cut off for a while and comes back: its workers have lived on, are taken
//! over as they are, and count as no crash; nothing was started in their place. Root only, see
//! `isect_tests::cable`. How soon a cut is noticed is in `e2e_vanished`.

use client::caller::Send;
use client::error::Code;
use isect_tests::cable::{Cable, FAR, NEAR};
use isect_tests::figures::now;
use isect_tests::proc::{Broker, Execd, PATIENCE, await_that, is_alive, program, within};
use nix::sys::signal::Signal;
use protocol::errors::{ErrorCode, Ran};
use std::time::Duration;

/// Longer than `silence_ms` and `return_ms` together.
const CUT: Duration = Duration::from_secs(9);

struct World {
    broker: Broker,
    execd: Option<Execd>,
    cable: Cable,
}

impl World {
    fn build(more: &[&str]) -> Option<Self> {
        let cable = Cable::lay()?;
        let any = format!("{NEAR}:0");
        let usual = ["--insecure", "--worker-listen", &any];
        let broker = Broker::start(&[&usual, more].concat());
        let execd = cable.far.run(|| Execd::start_at(&format!("{FAR}:0"), &["--insecure"]));
        broker.remember_events();
        broker.op(&format!("config host far {}", execd.address));
        broker.await_page("host far", "host->state = up");
        Some(Self { broker, execd: Some(execd), cable })
    }

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

    fn pids(&self, ids: std::ops::RangeInclusive<u32>) -> Vec<u32> {
        ids.map(|id| self.broker.worker_pid(id)).collect()
    }

    /// The cable is out for so long.
    fn cut(&self, span: Duration) {
        let begun = now();
        self.cable.pull();
        let over = within(span + PATIENCE, || (begun.elapsed() >= span).then_some(()));
        assert!(over.is_some());
        self.cable.plug();
    }

    fn events(&self) -> String {
        self.broker.op("listevents 1000")
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

#[test]
fn workers_of_a_machine_that_is_cut_off_for_a_while_are_taken_over_as_they_are() {
    let Some(world) = World::build(&[]) else { return };
    let broker = &world.broker;
    world.far_workers("echo", "isdecho", 3);
    world.far_workers("slow", "isdpipe sleep 4", 1);
    let before = world.pids(1..=4);
    let mut caller = broker.login("slow");
    caller.send("x", &Send::default()).expect("sent");
    broker.await_page("workers", "BUSY");
    world.cut(CUT);
    let reply = caller.recv(Some(PATIENCE)).expect("an outcome");
    let error = reply.error.expect("an error");
    let died = (Code::Isect(ErrorCode::WorkerDied), Ran::Maybe);
    assert_eq!((error.code, error.ran), died, "{error}");
    broker.await_page("host far", "host->state = up");
    broker.await_idle(4);
    assert_eq!(world.pids(1..=4), before, "{}", world.events());
    assert!(before.iter().all(|pid| is_alive(*pid)));
    for id in 1..=4 {
        assert_eq!(broker.number(&format!("worker {id}"), "worker->restarts"), 0);
    }
    let events = world.events();
    for untrue in ["process is ended", "worker_killed", "bad_badge", "worker_failed"] {
        assert!(!events.contains(untrue), "{untrue}: {events}");
    }
    assert_eq!(broker.login("echo").call("hi", None).expect("an answer"), "hi");
}

#[test]
fn a_cut_longer_than_they_try_to_come_back_ends_them_and_counts_as_no_crash() {
    let more = ["--set", "reconnect_ms=1000", "--set", "restart_early_max=1"];
    let Some(world) = World::build(&more) else { return };
    let broker = &world.broker;
    world.far_workers("echo", "isdecho", 2);
    let before = world.pids(1..=2);
    world.cable.pull();
    await_that("the end of both", || before.iter().all(|pid| !is_alive(*pid)).then_some(()));
    world.cable.plug();
    broker.await_page("host far", "host->state = up");
    broker.await_idle(2);
    assert!(world.pids(1..=2).iter().all(|pid| !before.contains(pid)));
    let events = world.events();
    for untrue in ["process is ended", "worker_failed", "ended unexpectedly"] {
        assert!(!events.contains(untrue), "{untrue}: {events}");
    }
}
