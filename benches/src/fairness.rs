//! Measures how clients that are a burden slow small requests down. An open loop measures the
//! requests alone and beside each noise, in interleaved rounds. `noise` has the noises.

use crate::load::{Load, Plan};
use crate::noise::{BULK, NOISES, bulk_protocol};
use crate::peers::{Isect, IsectOptions, START_LIMIT, Setup, workers};
use crate::proc::{Process, Scheduling, Start, own_program};
use crate::round::say;
use crate::shape::Shape;
use crate::sock::Endpoint;
use crate::stop::Stop;
use crate::table::Spread;
use protocol::bodies::Format;
use std::path::Path;
use std::time::Duration;

/// Without any noise.
const QUIET: &str = "quiet";

/// The parameters of one fairness measurement.
#[derive(Clone, Debug)]
pub struct Trial {
    /// The shape of the small requests.
    pub shape: Shape,
    /// Requests a second in all.
    pub rate: u64,
    /// Number of rounds; each measures every noise and the quiet broker once.
    pub rounds: usize,
    /// Time of each.
    pub span: Duration,
    /// The burdens run at nice 19.
    pub niced: bool,
    /// The burdens to measure; empty = all.
    pub noises: Vec<String>,
}

/// Small requests beside one noise.
#[derive(Clone, Debug)]
pub struct Disturbed {
    /// Name of the noise, or `quiet`.
    pub noise: String,
    /// Round of the measurement, from 0.
    pub round: usize,
    /// Median and 99 % in microseconds.
    pub latency_us: [f64; 2],
}

/// Measures all noises.
///
/// # Errors
/// Something failed, or a small request got a wrong reply or none.
pub fn run(trial: &Trial, setup: &Setup, stop: &Stop) -> Result<Vec<Disturbed>, String> {
    let mut names: Vec<&str> = vec![QUIET];
    if let Some(unknown) = trial.noises.iter().find(|one| !NOISES.iter().any(|(n, _)| n == one)) {
        let known: Vec<&str> = NOISES.iter().map(|(name, _)| *name).collect();
        return Err(format!("there is no noise '{unknown}'; there are {}", known.join(", ")));
    }
    let is_asked = |name: &str| trial.noises.is_empty() || trial.noises.iter().any(|n| n == name);
    names.extend(NOISES.iter().map(|(name, _)| *name).filter(|name| is_asked(name)));
    let mut all = Vec::new();
    for round in 0..trial.rounds {
        names.rotate_left(1);
        for name in &names {
            stop.check()?;
            let latency_us = one(trial, setup, name, stop).map_err(|e| format!("{name}: {e}"))?;
            let [p50, p99] = latency_us;
            say(&format!(
                "round {}/{} {name:<8} p50 {p50:.0} µs  p99 {p99:.0} µs",
                round + 1,
                trial.rounds
            ));
            all.push(Disturbed { noise: (*name).to_owned(), round, latency_us });
        }
    }
    Ok(all)
}

fn one(trial: &Trial, setup: &Setup, noise: &str, stop: &Stop) -> Result<[f64; 2], String> {
    let options = IsectOptions {
        program: setup.bin_dir.join("isectd"),
        workers_unix: true,
        clients_unix: false,
        clients_tls: false,
        prefetch: 0,
        concurrency: 1,
    };
    let isect = Isect::start(setup, &options)?;
    isect.op(Format::Text)?.run(&format!("config service {BULK} selfstart=1"))?;
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let worker_endpoint = isect.endpoint("worker_unix")?;
    let endpoint = isect.endpoint("client")?;
    let op_endpoint = isect.endpoint("client_unix")?;
    let running = isect.into_running(setup, &trial.shape, &options)?;
    let _bulk = workers(setup, dir.path(), (&bulk_protocol(), &worker_endpoint), 2)?;
    let plan = Plan {
        shape: trial.shape,
        rate: Some(trial.rate),
        warm: Duration::from_millis(500),
        span: trial.span,
    };
    let mut load = Load::connect(&running.endpoint, plan, &*running.new_client, stop)?;
    let mut burden = None;
    if noise != QUIET {
        let endpoint = if noise == "lister" { &op_endpoint } else { &endpoint };
        burden = Some(begin((noise, trial.niced), endpoint, setup, dir.path())?);
    }
    let tally = load.run(stop, |_| burden.as_mut().map_or(Ok(()), Process::check))?;
    if tally.is_behind() {
        return Err(format!("{} requests could not be sent at the rate", tally.unsent));
    }
    Ok([0.5, 0.99].map(|q| tally.latency.value_at_quantile(q) as f64 / 1000.0))
}

fn begin(
    (noise, niced): (&str, bool),
    endpoint: &Endpoint,
    setup: &Setup,
    dir: &Path,
) -> Result<Process, String> {
    let mut process = Start {
        program: &own_program()?,
        args: vec!["noise".into(), noise.into(), endpoint.to_string()],
        core: setup.cores.map(|(_, load)| load),
        log: &dir.join("noise.log"),
        talks: true,
        in_order: false,
        // It takes what the broker gives it and the machine has left: measured is how the broker
        // shares itself, not how the kernel shares the cores among too many processes.
        scheduling: if niced { Scheduling::Niced } else { Scheduling::Plain },
    }
    .spawn()?;
    process.line(START_LIMIT)?;
    Ok(process)
}

/// The table for people.
pub fn render(all: &[Disturbed]) -> String {
    let mut out =
        format!("{:<10}{:>9}{:>9}{:>9}{:>14}\n", "beside", "p50 µs", "p99 µs", "× quiet", "spread");
    let names = std::iter::once(QUIET).chain(NOISES.iter().map(|(name, _)| *name));
    for name in names {
        let of = |name: &str| all.iter().filter(|one| one.noise == name).collect::<Vec<_>>();
        let (these, quiet) = (of(name), of(QUIET));
        let over = |index: usize| Spread::of(these.iter().map(|one| one.latency_us[index]));
        let ratio = Spread::of(these.iter().filter_map(|one| {
            let other = quiet.iter().find(|other| other.round == one.round)?;
            Some(one.latency_us[1] / other.latency_us[1])
        }));
        let (Some(p50), Some(p99), Some(ratio)) = (over(0), over(1), ratio) else {
            continue;
        };
        out.push_str(&format!(
            "{name:<10}{:>9.0}{:>9.0}{:>9.2}{:>14}\n",
            p50.median,
            p99.median,
            ratio.median,
            format!("{:.2}–{:.2}", ratio.min, ratio.max)
        ));
    }
    out
}
