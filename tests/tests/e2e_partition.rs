//! Tests a far machine that a network partition makes unreachable for a while and comes back: its
//! workers survived, are taken over as they are, count as no crash, and nothing was started in
//! their place. Needs root, see `isect_tests::netns_link`. `e2e_peer_liveness` tests how soon a
//! partition is noticed.

use client::caller::Send;
use client::error::Code;
use isect_tests::far_host::FarHost;
use isect_tests::figures::now;
use isect_tests::proc::{TIMEOUT, await_that, is_alive, within};
use protocol::errors::{ErrorCode, Ran};
use std::time::Duration;

/// Longer than `silence_ms` and `return_ms` together.
const PARTITION: Duration = Duration::from_secs(9);

fn pids(world: &FarHost, ids: std::ops::RangeInclusive<u32>) -> Vec<u32> {
    ids.map(|id| world.broker.worker_pid(id)).collect()
}

/// Sets the link to the far machine down for this time.
fn partition(world: &FarHost, span: Duration) {
    let begun = now();
    world.netns.set_down();
    let over = within(span + TIMEOUT, || (begun.elapsed() >= span).then_some(()));
    assert!(over.is_some());
    world.netns.set_up();
}

fn events(world: &FarHost) -> String {
    world.broker.op("listevents 100000")
}

#[test]
fn workers_of_a_machine_that_is_unreachable_for_a_while_are_taken_over_as_they_are() {
    let Some(world) = FarHost::build(&[]) else { return };
    let broker = &world.broker;
    world.far_workers("echo", "isdecho", 3);
    world.far_workers("slow", "isdpipe sleep 4", 1);
    let before = pids(&world, 1..=4);
    let mut caller = broker.login("slow");
    caller.send("x", &Send::default()).expect("sent");
    broker.await_page("workers", "BUSY");
    partition(&world, PARTITION);
    let reply = caller.recv(Some(TIMEOUT)).expect("an outcome");
    let error = reply.error.expect("an error");
    let died = (Code::Isect(ErrorCode::WorkerDied), Ran::Maybe);
    assert_eq!((error.code, error.ran), died, "{error}");
    broker.await_page("host far", "host->state = up");
    broker.await_idle(4);
    assert_eq!(pids(&world, 1..=4), before, "{}", events(&world));
    assert!(before.iter().all(|pid| is_alive(*pid)));
    for id in 1..=4 {
        assert_eq!(broker.number(&format!("worker {id}"), "worker->restarts"), 0);
    }
    let events = events(&world);
    for untrue in ["process is ended", "worker_killed", "bad_worker_login", "worker_failed"] {
        assert!(!events.contains(untrue), "{untrue}: {events}");
    }
    assert_eq!(broker.login("echo").call("hi", None).expect("an answer"), "hi");
}

#[test]
fn a_partition_longer_than_they_try_to_come_back_ends_them_and_counts_as_no_crash() {
    let more = ["--set", "reconnect_ms=1000", "--set", "restart_early_max=1"];
    let Some(world) = FarHost::build(&more) else { return };
    let broker = &world.broker;
    world.far_workers("echo", "isdecho", 2);
    let before = pids(&world, 1..=2);
    world.netns.set_down();
    await_that("the end of both", || before.iter().all(|pid| !is_alive(*pid)).then_some(()));
    world.netns.set_up();
    broker.await_page("host far", "host->state = up");
    broker.await_idle(2);
    assert!(pids(&world, 1..=2).iter().all(|pid| !before.contains(pid)));
    let events = events(&world);
    for untrue in ["process is ended", "worker_failed", "ended unexpectedly"] {
        assert!(!events.contains(untrue), "{untrue}: {events}");
    }
}
