//! Tests, with real processes, services whose workers are started on demand, and programs that are
//! no workers (`protocol=none`).

use isect_tests::proc::{
    Broker, await_that, is_alive, processes_of, program, signal_pid, write_program,
};
use nix::sys::signal::Signal;
use protocol::errors::ErrorCode;
use std::fs;

/// Configures a service of one worker on demand.
fn on_demand(broker: &Broker, service: &str, settings: &str, path: &str) {
    broker.op(&format!("config service {service} start=demand {settings}"));
    broker.op(&format!("config worker {service} localhost {path}"));
    broker.op(&format!("start {service}"));
}

#[test]
fn the_first_request_starts_the_worker_and_silence_ends_it() {
    let broker = Broker::start(&[]);
    let echo = program("isdecho").display().to_string();
    on_demand(&broker, "echo", "idle_stop_ms=100", &echo);
    broker.execd_pid();
    assert!(broker.op("worker 1").contains("worker->state = \"down, on demand\""));
    let mut caller = broker.login("echo");
    for round in 0..3 {
        assert_eq!(caller.call("still here", None).expect("an answer"), "still here");
        let page = broker.await_page("worker 1", "worker->state = \"down, on demand\"");
        assert!(page.contains("worker->restarts = 0"), "round {round}: {page}");
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_can_not_start_is_slowed_down_and_never_off_for_good() {
    let settings = ["restart_min_ms=400", "restart_max_ms=400", "restart_early_max=2"];
    let args: Vec<&str> = settings.iter().flat_map(|setting| ["--set", setting]).collect();
    let broker = Broker::start(&args);
    let folder = broker.folder.path().to_owned();
    let (starts, mended) = (folder.join("starts"), folder.join("mended"));
    let path = folder.join("frail");
    let text = format!(
        "#!/bin/sh\necho start >> {}\nif [ -e {} ]; then exec {} \"$@\"; fi\n",
        starts.display(),
        mended.display(),
        program("isdecho").display()
    );
    write_program(&path, text.as_bytes());
    on_demand(&broker, "frail", "idle_stop_ms=50", &path.display().to_string());
    broker.execd_pid();
    let mut caller = broker.login("frail");
    let mut refused = 0;
    // As many requests as fit, for a while that is known by how many starts there were.
    await_that("five starts", || {
        let error = caller.call("x", None).expect_err("it can't start");
        assert!(error.is(ErrorCode::NoWorker), "{error}");
        let wait = error.retry_after().expect("when to ask again");
        assert!(wait.as_millis() <= 400, "{wait:?}");
        refused += 1;
        (fs::read_to_string(&starts).map_or(0, |text| text.lines().count()) >= 5).then_some(())
    });
    assert!(refused > 20, "{refused} refused for 5 starts: requests caused starts");
    fs::write(&mended, "").expect("written");
    let answer = await_that("an answer", || caller.call("x", None).ok());
    assert_eq!(answer, "x");
    assert_eq!(broker.end(), 0);
}

/// The process that a program wrote down.
fn pid_in(path: &std::path::Path) -> Option<u32> {
    fs::read_to_string(path).ok()?.lines().last()?.trim().parse().ok()
}

#[test]
fn a_program_gets_neither_a_secret_nor_arguments_of_the_broker_and_is_watched() {
    let mut broker = Broker::start(&[]);
    let folder = broker.folder.path().to_owned();
    let (pids, seen, path) = (folder.join("pids"), folder.join("seen"), folder.join("daemon"));
    let text = format!(
        "#!/bin/sh\necho \"$# $1 ${{ISECT_WORKER_SECRET-none}}\" > {}\n\
         echo $$ >> {}\nexec sleep 1000\n",
        seen.display(),
        pids.display()
    );
    write_program(&path, text.as_bytes());
    broker.op("config service daemon protocol=none stable_ms=20");
    broker.op(&format!("config worker daemon localhost {} --own", path.display()));
    broker.op("start daemon");
    let first = await_that("its process", || pid_in(&pids));
    assert_eq!(fs::read_to_string(&seen).expect("written"), "1 --own none\n");
    broker.await_page("groups", "running");
    assert!(broker.op("worker 1").contains("worker->state = \"up\""));
    let error = broker.try_login("daemon").expect_err("it is no service");
    assert!(error.is(ErrorCode::NotAService), "{error}");

    signal_pid(first, Signal::SIGKILL);
    let second = await_that("another one", || pid_in(&pids).filter(|pid| *pid != first));
    broker.await_page("groups", "running");

    broker.kill();
    assert!(is_alive(second));
    broker.restart();
    broker.execd_pid();
    broker.await_page("worker 1", "worker->state = \"up\"");
    assert_eq!((broker.worker_pid(1), pid_in(&pids)), (second, Some(second)), "it is adopted");

    broker.op("stop daemon");
    await_that("its end", || (!is_alive(second)).then_some(()));
    broker.await_page("worker 1", "worker->state = \"down, stopped\"");
    assert_eq!(broker.end(), 0);
    assert!(processes_of(&folder.display().to_string()).is_empty(), "none is left");
}
