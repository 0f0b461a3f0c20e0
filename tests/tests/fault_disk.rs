//! Tests a full or read-only disk under the state directory: serving goes on, a change is accepted
//! with the warning that it is not saved, and once the disk works again everything is saved.

use broker::reactor::kept_script;
use isect_tests::fault::disk::Disk;
use isect_tests::proc::{Broker, await_that, signal_pid};
use nix::sys::signal::Signal;
use tempfile::TempDir;

fn broker() -> (Disk, Broker) {
    let folder = TempDir::with_prefix("isect-").expect("temporary folder");
    let disk = Disk::new(folder.path().join("state"));
    let broker = Broker::start_in(folder, &["--set", "restart_min_ms=1"]);
    broker.with_workers("echo", "isdecho", 2);
    broker.remember_events();
    (disk, broker)
}

fn kept(disk: &Disk) -> String {
    kept_script(disk.path()).expect("the configuration")
}

#[test]
fn on_a_bad_disk_work_goes_on_and_what_changed_is_kept_when_it_is_mended() {
    for spoil in [Disk::fill, Disk::protect] {
        let (disk, broker) = broker();
        let before = kept(&disk);
        spoil(&disk);
        // The change is accepted, not saved, and the answer says so. A short one may have room in
        // the last block of the journal.
        let long = format!("config worker echo localhost /bin/true {}", "x".repeat(10_000));
        let said = broker.op(&long);
        assert!(said.contains("warning: the configuration is not saved"), "{said}");
        assert_eq!(kept(&disk), before);
        broker.await_page("listevents", "persist_failed");
        let mut caller = broker.login("echo");
        for index in 0..50 {
            let body = format!("{index}");
            assert_eq!(caller.call(body.clone(), None).expect("an answer"), body);
        }
        // A worker that dies is started again.
        let old = broker.worker_pid(1);
        signal_pid(old, Signal::SIGKILL);
        broker.await_new_pid(1, old);
        disk.mend();
        // It is saved without a further change.
        await_that("the configuration is kept", || {
            kept(&disk).contains("/bin/true xxx").then_some(())
        });
        assert!(disk.keeps(&broker.op("save")), "{}", kept(&disk));
        assert_eq!(broker.end(), 0);
    }
}

#[test]
fn a_broker_killed_on_a_full_disk_comes_back_to_its_workers() {
    let (disk, mut broker) = broker();
    let before: Vec<u32> = [1, 2].map(|id| broker.worker_pid(id)).to_vec();
    let ports = broker.ports.clone();
    disk.fill();
    broker.kill();
    assert_eq!(broker.try_restart(), Ok(()), "{}", broker.process.log());
    broker.await_idle(2);
    assert_eq!([1, 2].map(|id| broker.worker_pid(id)).to_vec(), before);
    assert_eq!(broker.ports["client"], ports["client"]);
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    disk.mend();
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_execd_killed_on_a_full_disk_comes_back_to_its_workers_at_once() {
    let (disk, broker) = broker();
    let before: Vec<u32> = [1, 2].map(|id| broker.worker_pid(id)).to_vec();
    let execd = || broker.number("host localhost", "host->hostpid");
    let old = execd();
    disk.fill();
    signal_pid(u32::try_from(old).expect("a process id"), Signal::SIGKILL);
    await_that("another execd", || (![0, old].contains(&execd())).then_some(()));
    broker.await_page("host localhost", "host->state = up");
    assert_eq!([1, 2].map(|id| broker.worker_pid(id)).to_vec(), before);
    // The new execd works: a worker that dies is started again, on the full disk.
    signal_pid(before[0], Signal::SIGKILL);
    broker.await_new_pid(1, before[0]);
    disk.mend();
    // The next execd understands what it recorded meanwhile.
    let old = execd();
    let workers: Vec<u32> = [1, 2].map(|id| broker.worker_pid(id)).to_vec();
    signal_pid(u32::try_from(old).expect("a process id"), Signal::SIGKILL);
    await_that("another execd", || (![0, old].contains(&execd())).then_some(()));
    assert_eq!([1, 2].map(|id| broker.worker_pid(id)).to_vec(), workers);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_broker_killed_on_a_read_only_disk_says_why_it_can_not_start() {
    let (disk, mut broker) = broker();
    disk.protect();
    broker.kill();
    assert_eq!(broker.try_restart(), Err(3), "{}", broker.process.log());
    let log = broker.process.log();
    assert!(log.contains("--state"), "{log}");
    disk.mend();
    broker.restart();
    broker.await_idle(2);
    assert_eq!(broker.end(), 0);
}
