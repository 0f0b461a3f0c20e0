//! One publisher and many subscribers, each on a connection of its own: deliveries a second in a
//! closed loop, latency at a fixed rate, and the latency of the others while one subscriber does
//! not read. A message that is lost, or comes in another order, ends the run.

mod crowd;
mod table;

use crate::peers::{Hub, Setup};
use crate::round::say;
use crate::stop::Stop;
use crate::usage;
use crowd::Crowd;
use std::time::Duration;

pub use table::{json, render};

/// The parameters of a measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Trial {
    /// Peers that publish, with commas between them.
    #[arg(long, value_delimiter = ',', default_value = "isect,nats,redis")]
    pub peers: Vec<Hub>,
    /// Subscribers, each on a connection of its own.
    #[arg(long, default_value_t = 1000)]
    pub subscribers: usize,
    /// Bytes of payload.
    #[arg(long, default_value_t = 128)]
    pub payload: usize,
    /// Messages that may be on their way in the closed loop.
    #[arg(long, default_value_t = 64, value_parser = clap::value_parser!(u32).range(1..=4096))]
    pub window: u32,
    /// Messages a second while latency is measured.
    #[arg(long, default_value_t = 100)]
    pub rate: u64,
    /// How often each peer is measured.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// Seconds of each of the three measurements.
    #[arg(long, default_value_t = 1.5)]
    pub seconds: f64,
}

/// What one part of a measurement gave.
#[derive(Clone, Copy, Debug, Default)]
pub struct Part {
    /// Deliveries a second.
    pub throughput: f64,
    /// Median and 99 % from publish to receipt, in microseconds.
    pub latency_us: [f64; 2],
    /// Processor time of the broker for one delivery, in microseconds.
    pub cpu_us: f64,
    /// Messages that could not be sent at the rate.
    pub unsent: u64,
}

/// One peer, once.
#[derive(Clone, Debug)]
pub struct Sample {
    /// The peer.
    pub hub: Hub,
    /// In which round, from 0.
    pub round: usize,
    /// As fast as it goes.
    pub closed: Part,
    /// At the rate.
    pub open: Part,
    /// At the rate, beside one subscriber that does not read.
    pub beside: Part,
    /// What became of that one.
    pub stopped: String,
    /// Most memory that the broker had, in bytes.
    pub peak: u64,
}

/// Measures all peers in interleaved rounds.
///
/// # Errors
/// Something failed, or a message was lost.
pub fn run(trial: &Trial, setup: &Setup, stop: &Stop) -> Result<Vec<Sample>, String> {
    let mut hubs = Vec::new();
    for &hub in &trial.peers {
        match hub.missing() {
            Some(why) => say(&format!("{hub}: skipped: {why}")),
            None => hubs.push(hub),
        }
    }
    let mut samples = Vec::new();
    for round in 0..trial.rounds {
        for &hub in &hubs {
            stop.check()?;
            let sample = one(trial, setup, (hub, round), stop)
                .map_err(|why| format!("{hub}, round {}: {why}", round + 1))?;
            let Sample { closed, open, beside, .. } = &sample;
            say(&format!(
                "round {}/{} {hub:<11} {:>9.0} deliveries/s, p99 {:.0} µs, beside a stopped one \
                 {:.0} µs: {}",
                round + 1,
                trial.rounds,
                closed.throughput,
                open.latency_us[1],
                beside.latency_us[1],
                sample.stopped
            ));
            samples.push(sample);
        }
        let by = usize::from(hubs.len() > 1);
        hubs.rotate_left(by);
    }
    Ok(samples)
}

fn one(
    trial: &Trial,
    setup: &Setup,
    (hub, round): (Hub, usize),
    stop: &Stop,
) -> Result<Sample, String> {
    let mut alone = hub.start(setup)?;
    let pid = alone.process.pid();
    let span = super::seconds(trial.seconds)?;
    let mut crowd = Crowd::new((hub, &alone), trial, stop)?;
    let measured = (|| {
        let part = |crowd: &mut Crowd, rate: u64| {
            crowd.go(rate, span / 4, stop)?;
            let before = usage::cpu_nanos(pid)?;
            let tally = crowd.go(rate, span, stop)?;
            let cpu = usage::cpu_nanos(pid)?.saturating_sub(before);
            Ok::<Part, String>(Part {
                throughput: tally.deliveries as f64 / tally.span.as_secs_f64(),
                latency_us: super::p50_p99(&tally.latency),
                cpu_us: cpu as f64 / 1000.0 / tally.deliveries.max(1) as f64,
                unsent: tally.unsent,
            })
        };
        let closed = part(&mut crowd, 0)?;
        let open = part(&mut crowd, trial.rate)?;
        crowd.stop_one(stop)?;
        let beside = part(&mut crowd, trial.rate)?;
        let stopped = crowd.resume_one(stop)?;
        let peak = usage::peak_bytes(pid)?;
        Ok(Sample { hub, round, closed, open, beside, stopped, peak })
    })();
    // If the broker is gone, that is the reason, and its last words say more.
    measured.map_err(|why: String| match alone.process.check() {
        Ok(()) => why,
        Err(end) => format!("{why}; {end}"),
    })
}

/// How long the last messages may take.
const DRAIN: Duration = Duration::from_secs(20);
