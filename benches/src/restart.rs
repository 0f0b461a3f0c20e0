//! Measures the time from the SIGKILL of a worker until its replacement is IDLE, with real
//! `isdecho` processes under the broker's own execd. The end is seen by an operator who watches.
//! Each worker dies only once, so the time contains no backoff.

use crate::clock;
use crate::json::rows;
use crate::peers::{Isect, IsectOptions, Op, SERVICE, Setup};
use crate::stop::Stop;
use client::caller::Caller;
use client::session::Send;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::bodies::Format;
use serde_json::Value;
use std::time::Duration;

/// Workers that take turns to die; each has been ready longer than `restart_quiet_ms` when it does.
const WORKERS: usize = 4;
const LIMIT: Duration = Duration::from_secs(10);
/// Settings that make every death a first one.
const SETTINGS: [&str; 2] = ["restart_quiet_ms=10", "restart_minute_max=100000"];

/// Kills workers one after another; milliseconds until each replacement is IDLE.
///
/// # Errors
/// Something failed, or a replacement did not come.
pub fn measure(setup: &Setup, count: usize, stop: &Stop) -> Result<Vec<f64>, String> {
    let mut setup = setup.clone();
    setup.set.extend(SETTINGS.map(str::to_owned));
    let options = IsectOptions {
        program: setup.bin_dir.join("isectd"),
        workers_unix: true,
        clients_unix: true,
        clients_tls: false,
        prefetch: 0,
        concurrency: 1,
    };
    let isect = Isect::start(&setup, &options)?;
    let mut op = isect.op(Format::Json)?;
    op.run(&format!("config service {SERVICE}"))?;
    isect.real_workers(&setup, WORKERS, &mut op)?;
    let mut watcher = isect.op(Format::Json)?;
    let watcher = watcher.caller();
    let watch = watcher.send("watch worker_ready", &Send::default()).map_err(|e| e.to_string())?;
    watcher.recv_from(watch, Some(LIMIT)).map_err(|e| format!("watch: {e}"))?;
    let mut millis = Vec::new();
    for _ in 0..count {
        stop.check()?;
        // Longer than restart_quiet_ms.
        clock::pause(Duration::from_millis(30));
        let (worker, pid) = oldest(&mut op)?;
        let begun = clock::now();
        kill(pid, Signal::SIGKILL).map_err(|e| format!("worker {worker}, pid {pid}: {e}"))?;
        await_ready(watcher, watch, worker)?;
        millis.push(clock::nanos(begun, clock::now()) as f64 / 1e6);
    }
    Ok(millis)
}

/// The worker that has been idle longest: the head of the idle list.
fn oldest(op: &mut Op) -> Result<(u64, Pid), String> {
    let answer = op.json("workers idle")?;
    let list = rows(&answer);
    let worker = list.iter().min_by_key(|row| row["restarts"].as_u64());
    let number = |name: &str| worker.and_then(|row| row[name].as_u64());
    match (number("worker"), number("pid").and_then(|pid| i32::try_from(pid).ok())) {
        // Never 0 or less: those are no single process.
        (Some(worker), Some(pid)) if pid > 1 => Ok((worker, Pid::from_raw(pid))),
        _ => Err(format!("no idle worker: {answer}")),
    }
}

fn await_ready(watcher: &mut Caller, watch: u32, worker: u64) -> Result<(), String> {
    let end = clock::now() + LIMIT;
    while clock::now() < end {
        let reply = watcher
            .recv_from(watch, Some(LIMIT))
            .map_err(|e| format!("worker {worker} was not ready again: {e}"))?;
        let fact: Value = serde_json::from_slice(&reply.body).map_err(|e| e.to_string())?;
        if rows(&fact).iter().any(|row| row["worker"].as_u64() == Some(worker)) {
            return Ok(());
        }
    }
    Err(format!("worker {worker} was not ready again within {} s", LIMIT.as_secs()))
}
