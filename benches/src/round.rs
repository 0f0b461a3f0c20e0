//! Interleaved rounds: each round starts every peer anew and drives every shape. Peers with the
//! same shape run one after another, so compared results are close in time, and the order rotates
//! from round to round, so other load on the machine affects all of them alike. Only ratios within
//! a round are compared. `table` shows the result.

use crate::clock;
use crate::load::{Load, Plan};
use crate::peers::{Peer, Setup};
use crate::shape::Shape;
use crate::stop::Stop;
use crate::usage;
use std::io::Write;
use std::time::Duration;

/// The parameters of a series of interleaved rounds.
#[derive(Clone, Debug)]
pub struct Course {
    /// Peers to compare, each started anew in each round.
    pub peers: Vec<Peer>,
    /// Shapes of load that drive each peer.
    pub shapes: Vec<Shape>,
    /// Number of rounds.
    pub rounds: usize,
    /// How each is driven; its shape is replaced by each of `shapes`.
    pub plan: Plan,
    /// Options for starting the peers.
    pub setup: Setup,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    /// Label of the peer.
    pub peer: String,
    /// Shape of the load.
    pub shape: Shape,
    /// In which round, from 0.
    pub round: usize,
    /// Replies a second.
    pub throughput: f64,
    /// Latency in microseconds: median, 99 %, 99.9 %, longest.
    pub latency_us: [f64; 4],
    /// Processor time of the broker for one request, in microseconds; `None` = no broker.
    pub cpu_us: Option<f64>,
    /// Most memory that the broker had, in bytes.
    pub rss: Option<u64>,
    /// Part of the machine's time that was idle, 0 to 1.
    pub idle: f64,
    /// Requests that could not be sent at the rate.
    pub unsent: u64,
}

/// Measures everything; a progress line for each on stderr. Peers that are not installed and pairs
/// that make no sense are skipped and said.
///
/// # Errors
/// Something failed: a wrong reply, a peer that ended, a signal.
pub fn run(course: &Course, stop: &Stop) -> Result<Vec<Sample>, String> {
    let mut pairs = Vec::new();
    for peer in &course.peers {
        if let Some(why) = peer.missing(&course.setup) {
            say(&format!("{}: skipped: {why}", peer.label));
            continue;
        }
        for shape in &course.shapes {
            match peer.refuses(shape) {
                Some(why) => say(&format!("{} {shape}: skipped: {why}", peer.label)),
                None => pairs.push((shape, peer)),
            }
        }
    }
    let mut samples = Vec::new();
    for round in 0..course.rounds {
        let mut shapes = course.shapes.clone();
        let by = round % shapes.len().max(1);
        shapes.rotate_left(by);
        for shape in &shapes {
            let mut peers: Vec<&Peer> =
                pairs.iter().filter(|(other, _)| *other == shape).map(|(_, peer)| *peer).collect();
            if !peers.is_empty() {
                let by = round % peers.len();
                peers.rotate_left(by);
            }
            for peer in peers {
                stop.check()?;
                let sample = measure(course, (peer, shape), round, stop).map_err(|why| {
                    match stop.check() {
                        // The signal may have gone to the peers as well.
                        Err(stopped) => stopped,
                        Ok(()) => format!("{} {shape}, round {}: {why}", peer.label, round + 1),
                    }
                })?;
                progress(course, &sample);
                samples.push(sample);
            }
        }
    }
    Ok(samples)
}

/// One peer, one shape, once.
fn measure(
    course: &Course,
    (peer, shape): (&Peer, &Shape),
    round: usize,
    stop: &Stop,
) -> Result<Sample, String> {
    let mut running = peer.start(&course.setup, shape)?;
    let plan = Plan { shape: *shape, ..course.plan.clone() };
    let mut readings = Vec::with_capacity(2);
    let broker = running.broker;
    let tally = Load::connect(&running.endpoint, plan, &*running.new_client, stop)
        .and_then(|mut load| {
            load.run(stop, |_| {
                let cpu = broker.map(usage::cpu_nanos).transpose()?;
                readings.push((cpu, usage::machine()));
                Ok(())
            })
        })
        // If the peer is gone, that is the reason, and its last words say more.
        .map_err(|why| match running.check() {
            Ok(()) => why,
            Err(end) => format!("{why}; {end}"),
        })?;
    let [(cpu_before, machine_before), (cpu_after, machine_after)] = readings[..] else {
        return Err("the run was not measured".into());
    };
    let rss = broker.map(usage::peak_bytes).transpose()?;
    let replies = tally.replies.max(1) as f64;
    let cpu = cpu_before.zip(cpu_after).map(|(a, b)| b.saturating_sub(a) as f64 / 1000.0 / replies);
    let (idle, all) = (machine_after.0 - machine_before.0, machine_after.1 - machine_before.1);
    let at = |quantile: f64| tally.latency.value_at_quantile(quantile) as f64 / 1000.0;
    Ok(Sample {
        peer: peer.label.clone(),
        shape: *shape,
        round,
        throughput: tally.replies as f64 / tally.span.as_secs_f64(),
        latency_us: [at(0.5), at(0.99), at(0.999), tally.latency.max() as f64 / 1000.0],
        cpu_us: cpu,
        rss,
        idle: idle as f64 / all.max(1) as f64,
        unsent: if tally.is_behind() { tally.unsent } else { 0 },
    })
}

fn progress(course: &Course, sample: &Sample) {
    let [p50, p99, ..] = sample.latency_us;
    say(&format!(
        "round {}/{} {:<16} {:<16} {:>9.0} req/s  p50 {p50:.0} µs  p99 {p99:.0} µs",
        sample.round + 1,
        course.rounds,
        sample.shape,
        sample.peer,
        sample.throughput,
    ));
}

/// A line on stderr for those who wait.
pub fn say(line: &str) {
    // Nobody reads it if this fails.
    let _ = writeln!(std::io::stderr(), "{line}");
}

/// How long a course takes at least, for the first line of progress.
pub fn least_time(course: &Course) -> Duration {
    let runs = course.rounds * course.shapes.len() * course.peers.len();
    (course.plan.warm + course.plan.span) * u32::try_from(runs).unwrap_or(u32::MAX)
}

/// Measures and says beforehand how long that takes.
///
/// # Errors
/// As [`run`].
pub fn run_and_tell(course: &Course, stop: &Stop) -> Result<Vec<Sample>, String> {
    let begun = clock::now();
    say(&format!(
        "{} peers, {} shapes, {} rounds: at least {} s",
        course.peers.len(),
        course.shapes.len(),
        course.rounds,
        least_time(course).as_secs()
    ));
    let samples = run(course, stop)?;
    say(&format!("done in {} s", clock::nanos(begun, clock::now()) / 1_000_000_000));
    Ok(samples)
}
