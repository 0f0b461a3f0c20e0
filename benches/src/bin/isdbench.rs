//! The program isdbench: measures isect, a bare relay and other brokers under the same load. This
//! file reads the command line and calls the library.

use clap::{Args, Parser, Subcommand};
use isect_benches::load::Plan;
use isect_benches::peers::{Batch, PEERS, Peer, Setup, worker_protocol};
use isect_benches::proc::Scheduling;
use isect_benches::round::{Course, run_and_tell, say};
use isect_benches::shape::Shape;
use isect_benches::sock::Endpoint;
use isect_benches::stop::Stop;
use isect_benches::topics::{fanout, instances, retained, subscriptions};
use isect_benches::{
    budgets, demand, echo, fairness, memory, noise, output, proc, relay, restart, steps, syscalls,
    table, usage, worst,
};
use std::io::Write;
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

/// Measures isect, a bare relay and other brokers under the same load, in interleaved rounds.
#[derive(Debug, Parser)]
#[command(name = "isdbench", version, max_term_width = 100)]
#[command(
    after_help = "A shape is letters with numbers: c clients, w workers, p bytes of payload \
    (0 to 1048576), d requests under way per client, i idle clients beside, s services beside, q queued \
    requests beside; c16w4p64d8i10000. What stands left out is d1i0s0q0.\n\
    Exit status: 0 done, 1 something failed or a reply was wrong, 2 usage."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Drives shapes through peers and compares them.
    Compare(Compare),
    /// Memory of a broker: alone, with idle connections, after a burst.
    Memory(Memory),
    /// Time from the SIGKILL of a worker to its replacement being IDLE.
    Restart(Restart),
    /// Time of the first request to a service whose worker it has started first.
    Demand(Restart),
    /// System calls of a broker for one request (needs strace).
    Syscalls(Syscalls),
    /// Latency of small requests beside clients that are a burden.
    Fairness(Fairness),
    /// One publisher and many subscribers, beside nats-server and redis-server.
    Fanout(Measured<fanout::Trial>),
    /// Very many subscriptions that change while a publisher goes on.
    Subscriptions(Measured<subscriptions::Trial>),
    /// Very many kept values, and subscribers that do not read.
    Retained(Measured<retained::Trial>),
    /// Very many instances that say that they go on.
    Instances(Measured<instances::Trial>),
    /// A worker that writes 100 MB/s: processor time of execd, lines lost, requests beside it.
    Output(Measured<output::Trial>),
    /// Instructions of single steps, counted by callgrind, against budgets.toml (needs valgrind).
    Budgets {
        /// File with the budgets.
        #[arg(long, default_value = "benches/budgets.toml")]
        file: PathBuf,
        /// Write down what is counted now.
        #[arg(long)]
        update: bool,
    },
    /// The worst step of each command and input, with 100,000 waiting requests.
    Worst {
        /// Times only: no instructions are counted, and nothing fails.
        #[arg(long)]
        times: bool,
    },
    /// Lists the peers and whether they are installed.
    Peers(SetupArgs),
    #[command(hide = true)]
    Relay { clients: Endpoint, workers: Endpoint },
    #[command(hide = true)]
    Echo(EchoArgs),
    #[command(hide = true)]
    Steps { name: String, count: u64 },
    #[command(hide = true)]
    WorstSteps { file: PathBuf },
    #[command(hide = true)]
    Write { mb: u64, seconds: f64 },
    #[command(hide = true)]
    Noise { name: String, endpoint: Endpoint },
    #[command(hide = true)]
    Run {
        #[arg(long)]
        core: Option<usize>,
        #[arg(long)]
        in_order: bool,
        #[arg(long, default_value = "plain")]
        scheduling: Scheduling,
        #[arg(last = true, required = true)]
        words: Vec<String>,
    },
}

#[derive(Debug, Args)]
struct EchoArgs {
    #[arg(long)]
    listen: Option<Endpoint>,
    #[arg(long, default_value = "limit")]
    protocol: String,
    #[arg(long, default_value_t = 1)]
    workers: usize,
    endpoint: Option<Endpoint>,
}

/// Where programs are and how they are started.
#[derive(Debug, Args)]
struct SetupArgs {
    /// Directory of isectd and isdecho [default: where isdbench is].
    #[arg(long, value_name = "DIR")]
    bin_dir: Option<PathBuf>,
    /// Put the broker on core 0 and the load on core 1.
    #[arg(long)]
    pin: bool,
    /// isect's workers: 'bench', one process of the bench for all, or 'real', isdecho under execd.
    #[arg(long, value_name = "KIND", default_value = "bench", value_parser = ["bench", "real"])]
    workers: String,
    /// Whose workers are scheduled as SCHED_BATCH: isect's, as its execd starts them, all peers',
    /// or nobody's.
    #[arg(long, value_name = "WHOSE", default_value = "isect")]
    batch: Batch,
    /// Requests that a worker of isect-concurrent takes at a time.
    #[arg(long, value_name = "N", default_value_t = 8,
          value_parser = clap::value_parser!(u32).range(1..=1024))]
    concurrency: u32,
    /// Requests that a worker of isect-prefetch may hold.
    #[arg(long, value_name = "N", default_value_t = 4)]
    prefetch: u32,
    /// A setting for isectd; may be given several times.
    #[arg(long, value_name = "NAME=VALUE")]
    set: Vec<String>,
}

#[derive(Debug, Args)]
struct Compare {
    /// Peers, as 'isdbench peers' lists them; isect peers take NAME@PATH for another isectd.
    #[arg(long, value_delimiter = ',', default_value = "limit,direct,isect,isect-tcp,isect-unix")]
    peers: Vec<Peer>,
    /// Shapes of load, such as c16w4p64.
    #[arg(long, value_delimiter = ',', default_value = "c1w1p64,c16w4p64,c512w16p64,c16w4p65536")]
    shapes: Vec<Shape>,
    /// How often each pair is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds measured each time.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Seconds before that.
    #[arg(long, default_value_t = 0.5)]
    warm: f64,
    /// Open loop: so many requests a second in all, and latency from when they were meant to leave.
    #[arg(long)]
    rate: Option<u64>,
    /// Write everything to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    setup: SetupArgs,
}

#[derive(Debug, Args)]
struct Memory {
    /// Peers to measure, as 'isdbench peers' lists them.
    #[arg(long, value_delimiter = ',', default_value = "isect,limit")]
    peers: Vec<Peer>,
    /// Idle connections.
    #[arg(long, default_value_t = 10_000)]
    connections: usize,
    /// Write everything to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    setup: SetupArgs,
}

#[derive(Debug, Args)]
struct Restart {
    /// How many times, one after another.
    #[arg(long, default_value_t = 100)]
    count: usize,
    /// Write everything to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    setup: SetupArgs,
}

#[derive(Debug, Args)]
struct Syscalls {
    /// Peers to measure, as 'isdbench peers' lists them.
    #[arg(long, value_delimiter = ',', default_value = "isect-tcp,isect,limit")]
    peers: Vec<Peer>,
    /// Shape of the load.
    #[arg(long, default_value = "c16w4p64")]
    shape: Shape,
    #[command(flatten)]
    setup: SetupArgs,
}

#[derive(Debug, Args)]
struct Fairness {
    /// The shape of the small requests.
    #[arg(long, default_value = "c16w4p64")]
    shape: Shape,
    /// Small requests a second in all.
    #[arg(long, default_value_t = 2000)]
    rate: u64,
    /// How often each noise is measured.
    #[arg(long, default_value_t = 5)]
    rounds: usize,
    /// Seconds measured each time.
    #[arg(long, default_value_t = 2.0)]
    seconds: f64,
    /// Run the burdens at nice 19: measures how the broker shares itself, where cores are
    /// too few for all processes.
    #[arg(long)]
    niced: bool,
    /// Only these burdens, with commas between them: stream, garbage, deaf, lister.
    #[arg(long, value_delimiter = ',')]
    noises: Vec<String>,
    #[command(flatten)]
    setup: SetupArgs,
}

/// A measurement of topics or instances.
#[derive(Debug, Args)]
struct Measured<T: Args> {
    #[command(flatten)]
    trial: T,
    /// Write everything to this file as well.
    #[arg(long, value_name = "FILE")]
    json: Option<PathBuf>,
    #[command(flatten)]
    setup: SetupArgs,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            // If even stderr is gone, the status still says it.
            let _ = writeln!(std::io::stderr(), "isdbench: {why}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<(), String> {
    match cli.command {
        Command::Compare(compare) => run_compare(&compare),
        Command::Peers(setup) => list_peers(&setup.to_setup()?),
        Command::Memory(args) => run_memory(&args),
        Command::Restart(args) => run_restart(&args),
        Command::Demand(args) => run_demand(&args),
        Command::Syscalls(args) => run_syscalls(&args),
        Command::Fairness(args) => run_fairness(&args),
        Command::Fanout(args) => {
            let samples = fanout::run(&args.trial, &args.setup.to_setup()?, &Stop::new()?)?;
            print(&fanout::render(&samples))?;
            write_json(args.json.as_ref(), &fanout::json(&samples))
        }
        Command::Subscriptions(args) => {
            let samples = subscriptions::run(&args.trial, &args.setup.to_setup()?, &Stop::new()?)?;
            print(&subscriptions::render(&samples))?;
            write_json(args.json.as_ref(), &subscriptions::json(&samples))
        }
        Command::Retained(args) => {
            let outcome = retained::run(&args.trial, &args.setup.to_setup()?, &Stop::new()?)?;
            write_json(args.json.as_ref(), &retained::json(&outcome))?;
            print(&retained::render(&outcome)?)
        }
        Command::Instances(args) => {
            let outcome = instances::run(&args.trial, &args.setup.to_setup()?, &Stop::new()?)?;
            print(&instances::render(&args.trial, &outcome))?;
            write_json(args.json.as_ref(), &instances::json(&outcome))
        }
        Command::Output(args) => {
            let samples = output::run(&args.trial, &args.setup.to_setup()?, &Stop::new()?)?;
            print(&output::render(&args.trial, &samples))?;
            write_json(args.json.as_ref(), &output::json(&samples))
        }
        Command::Write { mb, seconds } => output::write(mb, seconds),
        Command::Worst { times } => print(&worst::check(!times)?),
        Command::WorstSteps { file } => worst::child(&file),
        Command::Budgets { file, update } => print(&budgets::check(&file, update)?),
        Command::Steps { name, count } => steps::run(&name, count),
        Command::Noise { name, endpoint } => {
            print("ready\n")?;
            noise::run(&name, &endpoint)
        }
        Command::Relay { clients, workers } => relay::run(&clients, &workers),
        Command::Echo(args) => match (&args.listen, &args.endpoint) {
            (Some(listen), _) => echo::listen(listen),
            (None, Some(endpoint)) => {
                echo::serve(endpoint, args.workers, worker_protocol(&args.protocol)?)
            }
            (None, None) => Err("echo: neither --listen nor an endpoint".into()),
        },
        Command::Run { core, in_order, scheduling, words } => {
            Err(proc::become_program(core, in_order, scheduling, &words))
        }
    }
}

impl SetupArgs {
    fn to_setup(&self) -> Result<Setup, String> {
        let own = proc::own_program()?;
        proc::raise_descriptors()?;
        let beside = own.parent().map(PathBuf::from).unwrap_or_default();
        let cores = self.pin.then_some((0, 1));
        if let Some((_, load)) = cores {
            proc::pin(load)?;
        }
        Ok(Setup {
            bin_dir: self.bin_dir.clone().unwrap_or(beside),
            cores,
            is_real: self.workers == "real",
            batch: self.batch,
            prefetch: self.prefetch,
            concurrency: self.concurrency,
            set: self.set.clone(),
        })
    }
}

fn seconds(name: &str, value: f64) -> Result<Duration, String> {
    if (0.0..=3600.0).contains(&value) {
        Ok(Duration::from_secs_f64(value))
    } else {
        Err(format!("{name} {value}: 0 to 3600 seconds"))
    }
}

fn print(text: &str) -> Result<(), String> {
    std::io::stdout().write_all(text.as_bytes()).map_err(|e| format!("stdout: {e}"))
}

fn run_compare(args: &Compare) -> Result<(), String> {
    let stop = Stop::new()?;
    let about = serde_json::json!({
        "machine": usage::describe(),
        "command": std::env::args().collect::<Vec<_>>().join(" "),
    });
    let plan = Plan {
        shape: *args.shapes.first().ok_or("no shape is named")?,
        rate: args.rate,
        warm: seconds("--warm", args.warm)?,
        span: seconds("--seconds", args.seconds)?,
    };
    let course = Course {
        peers: args.peers.clone(),
        shapes: args.shapes.clone(),
        rounds: args.rounds,
        plan,
        setup: args.setup.to_setup()?,
    };
    let samples = run_and_tell(&course, &stop)?;
    let order: Vec<String> = course.peers.iter().map(|peer| peer.label.clone()).collect();
    print(&table::render(&samples, &order))?;
    write_json(args.json.as_ref(), &table::json(&samples, &order, about))
}

/// Those of the peers that are here; the others are said.
fn present<'a>(peers: &'a [Peer], setup: &Setup) -> Vec<&'a Peer> {
    let mut found = Vec::new();
    for peer in peers {
        match peer.missing(setup) {
            Some(why) => say(&format!("{}: skipped: {why}", peer.label)),
            None => found.push(peer),
        }
    }
    found
}

fn write_json(path: Option<&PathBuf>, value: &serde_json::Value) -> Result<(), String> {
    path.map_or(Ok(()), |path| {
        std::fs::write(path, value.to_string()).map_err(|e| format!("{}: {e}", path.display()))
    })
}

fn run_memory(args: &Memory) -> Result<(), String> {
    let (stop, setup) = (Stop::new()?, args.setup.to_setup()?);
    let (mut all, mut failed) = (Vec::new(), Vec::new());
    for peer in present(&args.peers, &setup) {
        // One that does not bear so many connections is no reason to lose the others' figures.
        match memory::measure(peer, &setup, args.connections, &stop) {
            Ok(footprint) => all.push(footprint),
            Err(why) => failed.push(format!("{}: {why}", peer.label)),
        }
        stop.check()?;
    }
    print(&memory::render(&all))?;
    let values: Vec<_> = all.iter().map(memory::Footprint::json).collect();
    write_json(args.json.as_ref(), &values.into())?;
    if failed.is_empty() { Ok(()) } else { Err(failed.join("; ")) }
}

fn run_restart(args: &Restart) -> Result<(), String> {
    let (stop, setup) = (Stop::new()?, args.setup.to_setup()?);
    let millis = restart::measure(&setup, args.count, &stop)?;
    let spread = table::Spread::of(millis.iter().copied()).ok_or("nothing was measured")?;
    let p90 = table::percentile(&millis, 90);
    print(&format!(
        "SIGKILL to IDLE, {} deaths: median {:.2} ms, 90 % {p90:.2} ms, {:.2} to {:.2} ms\n",
        millis.len(),
        spread.median,
        spread.min,
        spread.max
    ))?;
    write_json(args.json.as_ref(), &serde_json::json!({ "millis": millis }))
}

fn run_demand(args: &Restart) -> Result<(), String> {
    let (stop, setup) = (Stop::new()?, args.setup.to_setup()?);
    let found = demand::measure(&setup, args.count, &stop)?;
    for (name, millis) in [("down", &found.down), ("up", &found.up)] {
        let [p50, p99] = [50, 99].map(|percent| table::percentile(millis, percent));
        let count = millis.len();
        print(&format!(
            "request to a service that is {name}, {count} times: p50 {p50:.2} ms, p99 {p99:.2} ms\n"
        ))?;
    }
    let json = serde_json::json!({ "down_ms": found.down, "up_ms": found.up });
    write_json(args.json.as_ref(), &json)
}

fn run_syscalls(args: &Syscalls) -> Result<(), String> {
    let (stop, setup) = (Stop::new()?, args.setup.to_setup()?);
    for peer in present(&args.peers, &setup) {
        let found = syscalls::count(peer, args.shape, &setup, &stop)
            .map_err(|e| format!("{}: {e}", peer.label))?;
        let mut calls: Vec<_> = found.calls.iter().collect();
        calls.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let parts: Vec<String> = calls
            .iter()
            .map(|(name, count)| {
                format!("{name} {:.2}", **count as f64 / found.replies.max(1) as f64)
            })
            .collect();
        print(&format!(
            "{:<24}{} {:.2} a request: {}\n",
            peer.label,
            args.shape,
            found.per_request(),
            parts.join(", ")
        ))?;
    }
    Ok(())
}

fn run_fairness(args: &Fairness) -> Result<(), String> {
    let (stop, setup) = (Stop::new()?, args.setup.to_setup()?);
    let trial = fairness::Trial {
        shape: args.shape,
        rate: args.rate,
        rounds: args.rounds,
        span: seconds("--seconds", args.seconds)?,
        niced: args.niced,
        noises: args.noises.clone(),
    };
    print(&fairness::render(&fairness::run(&trial, &setup, &stop)?))
}

fn list_peers(setup: &Setup) -> Result<(), String> {
    let mut out = String::new();
    for row in PEERS {
        let peer: Peer = row.name.parse()?;
        let state = peer.missing(setup).unwrap_or_else(|| "ready".to_owned());
        out.push_str(&format!("{:<22}{} — {state}\n", row.name, row.text));
    }
    print(&out)
}
