//! Measures what a worker that writes very much costs: the processor time of its execd, with its
//! output kept in files and without; the lines that are lost; and how requests beside it fare.

use crate::clock;
use crate::load::{Load, Plan};
use crate::peers::{Isect, IsectOptions, START_LIMIT, Setup};
use crate::proc::{Process, Scheduling, Start, own_program};
use crate::round::say;
use crate::shape::Shape;
use crate::stop::Stop;
use crate::table::Spread;
use crate::usage;
use nix::unistd::Uid;
use protocol::bodies::Format;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::time::Duration;

/// Bytes of a line, its end included.
const LINE_BYTES: usize = 100;
/// Largest file of kept output, so that none is removed and lost lines can be counted.
const FILE_BYTES: u64 = 1 << 30;

/// The parameters of the measurement.
#[derive(Clone, Debug, clap::Args)]
pub struct Trial {
    /// Megabytes a second that the worker writes.
    #[arg(long, default_value_t = 100)]
    pub mb: u64,
    /// Seconds that it writes, and that are measured.
    #[arg(long, default_value_t = 10.0)]
    pub seconds: f64,
    /// How often each is measured.
    #[arg(long, default_value_t = 3)]
    pub rounds: usize,
    /// The shape of the requests beside it.
    #[arg(long, default_value = "c4w2p64")]
    pub shape: Shape,
    /// Requests a second in all.
    #[arg(long, default_value_t = 1000)]
    pub rate: u64,
}

/// One measurement.
#[derive(Clone, Debug)]
pub struct Sample {
    /// What was measured: no output at all, output that is not kept, output that is.
    pub what: &'static str,
    /// Processor time of execd in seconds, for each second that was measured.
    pub cpu: f64,
    /// Lines that are in the files.
    pub kept: u64,
    /// Lines that are counted as lost there.
    pub lost: u64,
    /// Median and 99 % of the requests in microseconds.
    pub latency_us: [f64; 2],
}

const CASES: [&str; 3] = ["silent", "discarded", "kept"];

/// Measures all cases, in interleaved rounds.
///
/// # Errors
/// Something failed.
pub fn run(trial: &Trial, setup: &Setup, stop: &Stop) -> Result<Vec<Sample>, String> {
    let mut all = Vec::new();
    for round in 0..trial.rounds {
        for what in CASES {
            stop.check()?;
            let sample = one(trial, setup, what, stop).map_err(|e| format!("{what}: {e}"))?;
            let Sample { cpu, kept, lost, latency_us: [p50, p99], .. } = sample;
            say(&format!(
                "round {}/{} {what:<10} execd {cpu:.3} s/s  kept {kept}  lost {lost}  p50 {p50:.0} \
                 µs  p99 {p99:.0} µs",
                round + 1,
                trial.rounds
            ));
            all.push(sample);
        }
    }
    Ok(all)
}

fn one(trial: &Trial, setup: &Setup, what: &'static str, stop: &Stop) -> Result<Sample, String> {
    let options = IsectOptions {
        program: setup.bin_dir.join("isectd"),
        workers_unix: true,
        clients_unix: false,
        clients_tls: false,
        prefetch: 0,
        concurrency: 1,
    };
    let dir = tempfile::tempdir().map_err(|e| e.to_string())?;
    let isect = Isect::start(setup, &options)?;
    let mut op = isect.op(Format::Text)?;
    let execd = execd(setup, dir.path())?;
    let bytes = if what == "kept" { FILE_BYTES } else { 0 };
    op.run("set worker_login_ms 600000")?;
    op.run(&format!("config service flood output_bytes={bytes} output_files=2"))?;
    op.run(&format!("config host far unix:{}", dir.path().join("execd.sock").display()))?;
    let writer = writer(trial, what, dir.path())?;
    op.run(&format!("config worker flood far \"{writer}\""))?;
    let running = isect.into_running(setup, &trial.shape, &options)?;
    let span = Duration::from_secs_f64(trial.seconds);
    let warm = Duration::from_millis(100);
    let plan = Plan { shape: trial.shape, rate: Some(trial.rate), warm, span };
    let mut load = Load::connect(&running.endpoint, plan, &*running.new_client, stop)?;
    op.run("start flood")?;
    let begun = (usage::cpu_nanos(execd.pid())?, clock::now());
    let tally = load.run(stop, |_| Ok(()))?;
    let cpu = usage::cpu_nanos(execd.pid())?.saturating_sub(begun.0) as f64;
    let cpu = cpu / clock::nanos(begun.1, clock::now()).max(1) as f64;
    if what == "kept" {
        // All that was queued is written when a read is answered.
        op.run("logs flood -n 1")?;
    }
    let (kept, lost) = lines(&dir.path().join("state/output"));
    let latency_us = [0.5, 0.99].map(|q| tally.latency.value_at_quantile(q) as f64 / 1000.0);
    Ok(Sample { what, cpu, kept, lost, latency_us })
}

/// An execd of its own, with a state directory.
fn execd(setup: &Setup, dir: &Path) -> Result<Process, String> {
    let at = |name: &str| dir.join(name).display().to_string();
    let listen = format!("unix:{}", at("execd.sock"));
    let mut args =
        ["--listen", &listen, "--state", &at("state"), "--allow", "/"].map(str::to_owned).to_vec();
    if Uid::effective().is_root() {
        args.push("--allow-root-workers".to_owned());
    }
    let mut process = Start {
        program: &setup.bin_dir.join("isdexecd"),
        args,
        core: setup.cores.map(|(_, load)| load),
        log: &dir.join("execd.log"),
        talks: false,
        in_order: true,
        scheduling: Scheduling::Plain,
    }
    .spawn()?;
    clock::until("its socket", START_LIMIT, || {
        process.check()?;
        Ok(dir.join("execd.sock").exists().then_some(()))
    })?;
    Ok(process)
}

/// A program that writes as the trial says, and then waits.
fn writer(trial: &Trial, what: &str, dir: &Path) -> Result<String, String> {
    let path = dir.join("writer");
    let own = own_program()?;
    let mb = if what == "silent" { 0 } else { trial.mb };
    let text =
        format!("#!/bin/sh\n\"{}\" write {mb} {}\nexec sleep 3600\n", own.display(), trial.seconds);
    let written = std::fs::write(&path, text);
    let done =
        written.and_then(|()| std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)));
    done.map_err(|e| format!("{}: {e}", path.display()))?;
    Ok(path.display().to_string())
}

/// Writes so many megabytes a second in lines on stdout, for so long.
///
/// # Errors
/// stdout is gone.
pub fn write(mb: u64, seconds: f64) -> Result<(), String> {
    let piece = format!("{}\n", "x".repeat(LINE_BYTES - 1)).repeat(1000);
    let mut out = std::io::stdout().lock();
    let begun = clock::now();
    let mut written = 0_u64;
    loop {
        let passed = clock::nanos(begun, clock::now()) as f64 / 1e9;
        if passed >= seconds {
            return Ok(());
        }
        let due = (passed * mb as f64 * 1e6) as u64;
        if written + piece.len() as u64 > due {
            clock::pause(Duration::from_millis(1));
            continue;
        }
        out.write_all(piece.as_bytes()).map_err(|e| e.to_string())?;
        written += piece.len() as u64;
    }
}

/// How many lines the files have, and how many they say are lost.
fn lines(output: &Path) -> (u64, u64) {
    let (mut kept, mut lost) = (0, 0);
    let below = |dir: &Path| std::fs::read_dir(dir).into_iter().flatten().flatten();
    for file in below(output).flat_map(|broker| below(&broker.path()).collect::<Vec<_>>()) {
        let Ok(file) = std::fs::File::open(file.path()) else { continue };
        for line in std::io::BufRead::lines(std::io::BufReader::new(file)).map_while(Result::ok) {
            let mut words = line.splitn(5, ' ').skip(2);
            match words.next() {
                Some("stdout" | "stderr") => kept += 1,
                Some("lost") => lost += words.next().and_then(|n| n.parse().ok()).unwrap_or(0),
                Some(_) | None => {}
            }
        }
    }
    (kept, lost)
}

/// The table for people.
pub fn render(trial: &Trial, all: &[Sample]) -> String {
    let mut out = format!(
        "{} MB/s in lines of {LINE_BYTES} bytes, for {} s\n{:<10}{:>12}{:>12}{:>10}{:>9}{:>9}\n",
        trial.mb, trial.seconds, "output", "execd s/s", "kept", "lost", "p50 µs", "p99 µs"
    );
    for what in CASES {
        let of = |figure: fn(&Sample) -> f64| {
            Spread::of(all.iter().filter(|one| one.what == what).map(figure))
                .map_or(0.0, |spread| spread.median)
        };
        out.push_str(&format!(
            "{what:<10}{:>12.3}{:>12.0}{:>10.0}{:>9.0}{:>9.0}\n",
            of(|one| one.cpu),
            of(|one| one.kept as f64),
            of(|one| one.lost as f64),
            of(|one| one.latency_us[0]),
            of(|one| one.latency_us[1])
        ));
    }
    out
}

/// All of it as JSON.
pub fn json(all: &[Sample]) -> serde_json::Value {
    let one = |one: &Sample| {
        serde_json::json!({
            "output": one.what,
            "execd_cpu": one.cpu,
            "kept": one.kept,
            "lost": one.lost,
            "p50_us": one.latency_us[0],
            "p99_us": one.latency_us[1],
        })
    };
    serde_json::json!({ "samples": all.iter().map(one).collect::<Vec<_>>() })
}
