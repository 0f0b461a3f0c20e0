//! Measures the first request to a service that is down (`start=demand`), from its sending to its
//! reply, beside one whose worker runs already: a real `isdecho` process under the broker's own
//! execd.

use crate::clock;
use crate::json::rows;
use crate::peers::{Isect, IsectOptions, Op, SERVICE, Setup};
use crate::stop::Stop;
use client::address::Address;
use client::caller::{Caller, Options};
use protocol::bodies::Format;
use protocol::names::ServiceName;
use std::time::Duration;

/// Longest time for a reply, or for the end of a worker.
const LIMIT: Duration = Duration::from_secs(10);
/// How long nothing is to be done until the worker ends.
const IDLE_STOP_MS: u64 = 20;

/// What was measured, in milliseconds.
#[derive(Clone, Debug, Default)]
pub struct FirstRequests {
    /// Requests that started the worker.
    pub down: Vec<f64>,
    /// Requests that found it.
    pub up: Vec<f64>,
}

/// Asks a service that is down, and once more at once, this many times.
///
/// # Errors
/// Something failed, or the worker did not start or end in time.
pub fn measure(setup: &Setup, count: usize, stop: &Stop) -> Result<FirstRequests, String> {
    let options = IsectOptions {
        program: setup.bin_dir.join("isectd"),
        workers_unix: true,
        clients_unix: true,
        clients_tls: false,
        prefetch: 0,
        concurrency: 1,
    };
    let isect = Isect::start(setup, &options)?;
    let mut op = isect.op(Format::Json)?;
    let echo = setup.bin_dir.join("isdecho");
    for command in [
        format!("config service {SERVICE} start=demand idle_stop_ms={IDLE_STOP_MS}"),
        format!("config worker {SERVICE} localhost \"{}\"", echo.display()),
        format!("start {SERVICE}"),
    ] {
        op.run(&command)?;
    }
    let endpoint = isect.endpoint("client_unix")?.to_string();
    let address = Address::parse(&endpoint).map_err(|e| e.to_string())?;
    let service = ServiceName::new(SERVICE).map_err(|e| e.to_string())?;
    let mut caller = Caller::login(&[address], Options::new(service)).map_err(|e| e.to_string())?;
    let mut found = FirstRequests::default();
    for _ in 0..count {
        stop.check()?;
        await_down(&mut op)?;
        found.down.push(ask(&mut caller)?);
        found.up.push(ask(&mut caller)?);
    }
    Ok(found)
}

/// Milliseconds until the reply to a request.
fn ask(caller: &mut Caller) -> Result<f64, String> {
    let begun = clock::now();
    caller.call("x", Some(LIMIT)).map_err(|e| e.to_string())?;
    Ok(clock::nanos(begun, clock::now()) as f64 / 1e6)
}

fn await_down(op: &mut Op) -> Result<(), String> {
    clock::until("the worker is down", LIMIT, || {
        let answer = op.json("workers lazy")?;
        let is_down = rows(&answer).iter().any(|row| row["state"] == "down");
        Ok(is_down.then_some(()))
    })
}
