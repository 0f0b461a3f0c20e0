//! The TABLE of the peers, and how each one is started: its broker, its workers, the address for
//! clients and the protocol they use. `load` has the load, `protocols` their protocols.

mod alone;
mod external;
mod isect;
mod plain;

use crate::proc::{Process, Scheduling, Start, own_program};
use crate::protocols::{self, ClientProtocol, Protocol};
use crate::shape::Shape;
use crate::sock::Endpoint;
use protocol::names::ServiceName;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tempfile::TempDir;

pub use alone::{Alone, Hub};
pub use isect::{Isect, IsectOptions, Op};

/// How long a broker or its workers may take to be there.
pub const START_LIMIT: Duration = Duration::from_secs(30);
/// The service that is asked.
pub const SERVICE: &str = "echo";

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct PeerRow {
    /// Its name on the command line.
    pub name: &'static str,
    /// One-line description for `isdbench peers`.
    pub text: &'static str,
    kind: PeerKind,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum PeerKind {
    Direct,
    Limit { is_unix: bool },
    Isect { workers_unix: bool, clients_unix: bool, ahead: Ahead },
    IsectTls,
    Gearman { is_tuned: bool },
    Nats,
    Redis,
    Zmq,
}

/// What an isect worker is given beyond one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Ahead {
    Nothing,
    Prefetch,
    Concurrency,
}

impl PeerKind {
    const fn is_isect(self) -> bool {
        matches!(self, Self::Isect { .. } | Self::IsectTls)
    }
}

const fn row(name: &'static str, kind: PeerKind, text: &'static str) -> PeerRow {
    PeerRow { name, text, kind }
}

const fn of_isect(workers_unix: bool, clients_unix: bool, ahead: Ahead) -> PeerKind {
    PeerKind::Isect { workers_unix, clients_unix, ahead }
}

/// TABLE of peers.
pub const PEERS: &[PeerRow] = &[
    row("limit", PeerKind::Limit { is_unix: false }, "bare two-hop relay over TCP: the yardstick"),
    row(
        "limit-unix",
        PeerKind::Limit { is_unix: true },
        "the same relay, both sides on Unix sockets",
    ),
    row("direct", PeerKind::Direct, "no broker: clients talk to the workers' process over TCP"),
    row(
        "isect",
        of_isect(true, false, Ahead::Nothing),
        "isectd as installed: workers on its Unix socket, clients on TCP",
    ),
    row("isect-tcp", of_isect(false, false, Ahead::Nothing), "isectd, both sides on TCP"),
    row("isect-unix", of_isect(true, true, Ahead::Nothing), "isectd, both sides on Unix sockets"),
    row("isect-tls", PeerKind::IsectTls, "as isect, and clients come over TLS (1.3, AES-256-GCM)"),
    row(
        "isect-prefetch",
        of_isect(true, false, Ahead::Prefetch),
        "as isect, and workers hold further requests (--prefetch)",
    ),
    row(
        "isect-unix-prefetch",
        of_isect(true, true, Ahead::Prefetch),
        "as isect-unix, and workers hold further requests (--prefetch)",
    ),
    row(
        "isect-concurrent",
        of_isect(true, false, Ahead::Concurrency),
        "as isect, and workers take several requests at a time (--concurrency)",
    ),
    row(
        "isect-tcp-concurrent",
        of_isect(false, false, Ahead::Concurrency),
        "as isect-tcp, and workers take several requests at a time (--concurrency)",
    ),
    row("gearman", PeerKind::Gearman { is_tuned: true }, "gearmand with one thread"),
    row("gearman-stock", PeerKind::Gearman { is_tuned: false }, "gearmand as Debian starts it"),
    row("nats", PeerKind::Nats, "nats-server, request/reply with a queue group"),
    row("redis", PeerKind::Redis, "redis-server, RPUSH and BLPOP both ways"),
    row("zmq", PeerKind::Zmq, "the LRU queue of the ZeroMQ guide, in C"),
];

/// A peer to measure: a row, and which isectd if not the one beside this program.
#[derive(Clone, Debug)]
pub struct Peer {
    /// The name shown in result tables.
    pub label: String,
    row: PeerRow,
    program: Option<PathBuf>,
}

impl std::str::FromStr for Peer {
    type Err = String;

    /// `NAME`, or `NAME@PATH` for an isectd that stands elsewhere.
    fn from_str(text: &str) -> Result<Self, String> {
        let (name, program) = match text.split_once('@') {
            Some((name, path)) => (name, Some(PathBuf::from(path))),
            None => (text, None),
        };
        let names = || PEERS.iter().map(|row| row.name).collect::<Vec<_>>().join(", ");
        let row = PEERS
            .iter()
            .find(|row| row.name == name)
            .ok_or_else(|| format!("there is no peer '{name}'; there are {}", names()))?;
        if program.is_some() && !row.kind.is_isect() {
            return Err(format!("'{text}': only isect peers take a path"));
        }
        Ok(Self { label: text.to_owned(), row: *row, program })
    }
}

/// Whose workers are scheduled as `SCHED_BATCH`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Batch {
    /// isect's, as its execd starts them.
    #[default]
    Isect,
    /// Workers of all peers.
    All,
    /// No peer's workers.
    None,
}

impl Batch {
    fn scheduling(self, protocol: &str) -> Scheduling {
        let is_batch = match self {
            Self::Isect => protocol.starts_with("isect"),
            Self::All => true,
            Self::None => false,
        };
        if is_batch { Scheduling::Batch } else { Scheduling::Plain }
    }
}

/// Options for starting peers, the same in all rounds of a run.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Directory with isectd and isdecho.
    pub bin_dir: PathBuf,
    /// The broker's core and the load's, if they are pinned.
    pub cores: Option<(usize, usize)>,
    /// Whether isect's workers are real `isdecho` under execd.
    pub is_real: bool,
    /// Whose workers are scheduled as `SCHED_BATCH`.
    pub batch: Batch,
    /// What `isect-prefetch` gives a worker to hold.
    pub prefetch: u32,
    /// How many requests at a time a worker of `isect-concurrent` takes.
    pub concurrency: u32,
    /// Settings for isectd, `NAME=VALUE`.
    pub set: Vec<String>,
}

impl Setup {
    fn broker_core(&self) -> Option<usize> {
        self.cores.map(|(broker, _)| broker)
    }

    fn load_core(&self) -> Option<usize> {
        self.cores.map(|(_, load)| load)
    }
}

/// A peer that runs, with its workers ready. Everything ends when it is dropped: workers first.
pub struct Running {
    /// The address that clients connect to.
    pub endpoint: Endpoint,
    /// Makes a client's end.
    pub new_client: Box<dyn Fn() -> Box<dyn ClientProtocol>>,
    /// The broker's process id; `None` = there is no broker.
    pub broker: Option<u32>,
    /// Something wants to be kept until the end: a connection that holds queued requests.
    pub held: Option<Box<dyn std::any::Any>>,
    processes: Vec<Process>,
    /// Ends after the processes that write there.
    _dir: TempDir,
}

impl Running {
    /// Whether all its processes are there.
    ///
    /// # Errors
    /// One ended; its last words.
    pub fn check(&mut self) -> Result<(), String> {
        self.processes.iter_mut().try_for_each(Process::check)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        self.held = None;
        while let Some(process) = self.processes.pop() {
            drop(process);
        }
    }
}

impl Peer {
    /// Why it can't be measured here, and what would help; `None` = it can.
    pub fn missing(&self, setup: &Setup) -> Option<String> {
        match self.row.kind {
            PeerKind::Direct | PeerKind::Limit { .. } => None,
            PeerKind::Isect { .. } | PeerKind::IsectTls => {
                let program = self.isectd(setup);
                (!program.is_file()).then(|| {
                    format!(
                        "{} is not there: cargo build --release --bin isectd, or --bin-dir",
                        program.display()
                    )
                })
            }
            PeerKind::Gearman { .. } => external::missing("gearmand", "gearman-job-server"),
            PeerKind::Nats => external::missing("nats-server", "nats-server"),
            PeerKind::Redis => external::missing("redis-server", "redis-server"),
            PeerKind::Zmq => external::missing_zmq(),
        }
    }

    /// Why it does not take this shape; `None` = it does.
    pub fn refuses(&self, shape: &Shape) -> Option<String> {
        let is_isect = self.row.kind.is_isect();
        if !is_isect && (shape.services > 0 || shape.queued > 0) {
            return Some("s and q are for isect".into());
        }
        if self.row.kind == PeerKind::Direct && shape.idle > 0 {
            return None;
        }
        if self.row.kind == PeerKind::Redis && shape.depth > 1 {
            return Some("a connection in BLPOP takes no further request".into());
        }
        let has_number = is_isect
            || matches!(self.row.kind, PeerKind::Direct | PeerKind::Limit { .. } | PeerKind::Nats);
        (!has_number && shape.depth > 1 && shape.payload < 4)
            .then(|| "its replies carry no number, so they can't be told apart below p4".into())
    }

    fn isectd(&self, setup: &Setup) -> PathBuf {
        self.program.clone().unwrap_or_else(|| setup.bin_dir.join("isectd"))
    }

    /// Starts it.
    ///
    /// # Errors
    /// Something can't be started or is not ready in time.
    pub fn start(&self, setup: &Setup, shape: &Shape) -> Result<Running, String> {
        let started = match self.row.kind {
            PeerKind::Direct => plain::direct(setup),
            PeerKind::Limit { is_unix } => plain::limit(setup, shape, is_unix),
            PeerKind::Isect { workers_unix, clients_unix, ahead } => {
                let options = IsectOptions {
                    program: self.isectd(setup),
                    workers_unix,
                    clients_unix,
                    clients_tls: false,
                    prefetch: if ahead == Ahead::Prefetch { setup.prefetch } else { 0 },
                    concurrency: if ahead == Ahead::Concurrency { setup.concurrency } else { 1 },
                };
                Isect::start(setup, &options)
                    .and_then(|isect| isect.into_running(setup, shape, &options))
            }
            PeerKind::IsectTls => {
                let options = IsectOptions {
                    program: self.isectd(setup),
                    workers_unix: true,
                    clients_unix: false,
                    clients_tls: true,
                    prefetch: 0,
                    concurrency: 1,
                };
                Isect::start(setup, &options)
                    .and_then(|isect| isect.into_running(setup, shape, &options))
            }
            PeerKind::Gearman { is_tuned } => external::gearman(setup, shape, is_tuned),
            PeerKind::Nats => external::nats(setup, shape),
            PeerKind::Redis => external::redis(setup, shape),
            PeerKind::Zmq => external::zmq(setup, shape),
        };
        started.map_err(|why| format!("{}: {why}", self.label))
    }
}

/// A directory for one round's sockets and logs.
fn temp_dir() -> Result<TempDir, String> {
    tempfile::Builder::new()
        .prefix("isdbench-")
        .tempdir()
        .map_err(|e| format!("temporary directory: {e}"))
}

/// The process of the workers, ready.
///
/// # Errors
/// They can't be started or are not ready in time.
pub fn workers(
    setup: &Setup,
    dir: &Path,
    (protocol, endpoint): (&str, &Endpoint),
    count: usize,
) -> Result<Process, String> {
    let args =
        ["echo", "--protocol", protocol, "--workers", &count.to_string(), &endpoint.to_string()];
    let mut process = Start {
        program: &own_program()?,
        args: args.map(str::to_owned).to_vec(),
        core: setup.load_core(),
        log: &dir.join("workers.log"),
        talks: true,
        in_order: false,
        scheduling: setup.batch.scheduling(protocol),
    }
    .spawn()?;
    match process.line(START_LIMIT)?.as_str() {
        "ready" => Ok(process),
        other => Err(format!("the workers said '{other}'")),
    }
}

/// A worker's end, by the name that [`workers`] passes on; for isect with `:SERVICE` if it is
/// another, or `:SERVICE:N` if it takes N requests at a time.
///
/// # Errors
/// There is no such name.
pub fn worker_protocol(name: &str) -> Result<Box<dyn Fn() -> Box<dyn Protocol>>, String> {
    let (name, service) = name.split_once(':').unwrap_or((name, SERVICE));
    let (service, concurrency) = service.split_once(':').unwrap_or((service, "1"));
    let concurrency: u32 = concurrency.parse().map_err(|e| format!("'{concurrency}': {e}"))?;
    let service = ServiceName::new(service).map_err(|e| e.to_string())?;
    Ok(match name {
        "limit" => Box::new(|| Box::<protocols::limit::Worker>::default()),
        "isect" => {
            Box::new(move || Box::new(protocols::isect::Worker::new(service.clone(), concurrency)))
        }
        "gearman" => Box::new(|| Box::new(protocols::gearman::Worker)),
        "nats" => Box::new(|| Box::new(protocols::nats::Worker)),
        "redis" => Box::new(|| Box::new(protocols::redis::Worker)),
        "zmq" => Box::new(|| Box::<protocols::zmtp::Worker>::default()),
        other => return Err(format!("no workers speak '{other}'")),
    })
}
