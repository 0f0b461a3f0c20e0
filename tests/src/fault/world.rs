//! The processes of the fault run: a broker, a second host, and the proxies between them; starts
//! and ends them.

use super::clock::Clock;
use super::conn::Endpoint;
use super::disk::Disk;
use super::history::Folder;
use super::load::{DEADLINE_MS, SERVICES};
use super::proxy::Proxy;
use super::quiescence::{QUIESCENCE_MAX, Usage};
use super::run_secrets::RunSecrets;
use super::watch::Watch;
use crate::proc::{Broker, Execd, processes_of, program, within};
use client::address::Address;
use client::caller::{Caller, Options};
use client::error::Error;
use nix::sys::signal::Signal;
use protocol::bodies::Format;
use protocol::limits::TLS_PREFIX;
use protocol::names::ServiceName;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;
use tempfile::TempDir;

/// Most descriptors of the broker: few, so that they can be used up.
pub const DESCRIPTORS: u64 = 300;
/// How a broker is started: with few descriptors, and a wall clock that the run can step.
const WRAP: &str = "ulimit -n \"$1\" && shift && exec \"$@\"";

/// Deaths by the dozen are no reason to give up here.
const SETTINGS: &[&str] = &[
    "restart_min_ms=1",
    "restart_max_ms=50",
    "restart_early_max=1000",
    "restart_minute_max=100000",
    "host_retry_ms=100",
    "worker_login_ms=3000",
    "return_ms=1000",
    "reconnect_ms=8000",
];

/// Where libfaketime is, if it is installed.
fn faketime() -> Option<PathBuf> {
    let folders =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    folders
        .iter()
        .map(|folder| PathBuf::from(folder).join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
}

/// The processes and proxies of a fault run, and what they share.
#[derive(Debug)]
pub struct World {
    /// The run's clock.
    pub clock: Clock,
    /// The broker with its built-in execd.
    pub broker: Broker,
    /// The second host.
    pub far: Execd,
    /// Proxy between clients and the broker.
    pub clients: Proxy,
    /// Proxy between the far host's workers and the broker.
    pub workers: Proxy,
    /// Proxy between the broker and the far host's execd.
    pub hosts: Proxy,
    /// Folder of the workers' histories.
    pub histories: Folder,
    /// The disk under the state directory, which can fail.
    pub disk: Disk,
    /// The file that says what the wall clock shows, where that can be done.
    pub wall: Option<PathBuf>,
    /// Tokens and certificates, if the run goes with them.
    pub secrets: Option<Arc<RunSecrets>>,
    /// Measures when the machine or the broker stood still.
    pub watch: Arc<Watch>,
    /// Memory and descriptors of the broker, its execd and the far execd before any fault.
    pub baseline: [Usage; 3],
}

impl World {
    /// Starts everything and waits until all workers are idle.
    pub fn build(clock: Clock, seed: u64, is_secured: bool) -> Self {
        let folder = TempDir::with_prefix("isect-").expect("temporary folder");
        let disk = Disk::new(folder.path().join("state"));
        let histories = Folder::new(folder.path().join("histories"));
        let wall = folder.path().join("wall");
        std::fs::write(&wall, "+0").expect("a file");
        let preload = faketime().filter(|_| disk.is_mounted());
        let secrets = is_secured.then(|| Arc::new(RunSecrets::new()));
        let more = secrets.as_ref().map(|secrets| secrets.host_words()).unwrap_or_default();
        let more: Vec<&str> = more.iter().map(String::as_str).collect();
        let far = Execd::start_at(&format!("{}127.0.0.1:0", scheme(is_secured)), &more);
        let more = secrets.as_ref().map(|secrets| secrets.broker_words()).unwrap_or_default();
        let fake = preload.as_deref().map(|lib| (lib, wall.as_path()));
        let broker = start_broker(folder, fake, &more);
        let tcp = |name: &str| socket_address(&broker.port(name));
        let clients = Proxy::start(tcp("client"), clock, seed);
        let workers = Proxy::start(tcp("worker"), clock, seed + 1);
        let hosts = Proxy::start(socket_address(&far.address), clock, seed + 2);
        let wall = preload.map(|_| wall);
        let mut world = Self {
            clock,
            broker,
            far,
            clients,
            workers,
            hosts,
            histories,
            disk,
            wall,
            secrets,
            watch: Arc::new(Watch::new(clock)),
            baseline: [Usage::default(); 3],
        };
        world.configure();
        let complaints = world.await_quiescence();
        assert!(complaints.is_empty(), "before any fault:\n{}", complaints.join("\n"));
        world.baseline = world.usage();
        // The watch has a connection of its own from now on.
        world.baseline[0].descriptors += 1;
        world.watch.attend(world.broker.process.pid());
        world
    }

    /// The broker's Unix socket for clients.
    pub fn client_socket(&self) -> PathBuf {
        let unix = self.broker.port("client_unix");
        PathBuf::from(unix.strip_prefix("unix:").expect("a path"))
    }

    fn configure(&self) {
        let op = |command: &str| self.op(command).unwrap_or_else(|e| panic!("'{command}': {e}"));
        op(&format!("config host far {}{}", self.scheme(), self.hosts.address));
        for service in &SERVICES {
            let name = service.name;
            op(&format!("config service {name} deadline_ms={DEADLINE_MS} {}", service.settings));
            for index in 0..service.workers {
                // Some are slow to log in, so that they can die before it.
                op(&self.worker(name, service.is_far, if index == 0 { 150 } else { 0 }));
            }
            op(&format!("start {name}"));
        }
    }

    /// The command that configures one more worker of a service, which logs in so many
    /// milliseconds late.
    pub fn worker(&self, service: &str, is_far: bool, wait: u64) -> String {
        let (host, via) = match is_far {
            true => ("far", format!(" via={}{}", self.scheme(), self.workers.address)),
            false => ("localhost", String::new()),
        };
        let witness = program("isdwitness");
        let (witness, histories) = (witness.display(), self.histories.path().display());
        format!("config worker {service} {host} {witness} history={histories}{via} wait={wait}")
    }

    /// What stands before the addresses of this run.
    const fn scheme(&self) -> &'static str {
        scheme(self.secrets.is_some())
    }

    /// Of a thousand new connections through the proxies so many are impaired.
    pub fn set_impaired(&self, permille: u64) {
        for proxy in [&self.clients, &self.workers, &self.hosts] {
            proxy.set_impaired(permille);
        }
    }

    /// All proxies pass on as they should, impaired ones as well.
    pub fn heal(&self) {
        self.set_impaired(0);
        for proxy in [&self.clients, &self.workers, &self.hosts] {
            proxy.heal();
        }
    }

    /// Where clients connect; one of them as often as it is to be chosen.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        let proxy = Endpoint::Proxy(self.clients.address);
        vec![
            proxy.clone(),
            proxy.clone(),
            proxy,
            Endpoint::Tcp(socket_address(&self.broker.port("client"))),
            Endpoint::Unix(self.client_socket()),
        ]
    }

    /// An operator's command, by the Unix socket.
    ///
    /// # Errors
    /// What the broker or the library says.
    pub fn op(&self, command: &str) -> Result<String, Error> {
        self.op_as(command, Format::Text)
    }

    fn op_as(&self, command: &str, format: Format) -> Result<String, Error> {
        let address = Address::parse(&self.broker.port("client_unix")).expect("an address");
        let mut options = Options::new(ServiceName::new("op").expect("a service name"));
        options.format = format;
        options.connect_timeout = Duration::from_secs(2);
        let mut caller = Caller::login(&[address], options)?;
        let answer = caller.call(command.to_owned(), Some(Duration::from_secs(5)))?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    /// The same as JSON; null if there is no answer.
    pub fn json(&self, command: &str) -> serde_json::Value {
        let text = self.op_as(command, Format::Json).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The built-in execd's process; 0 if it is not known.
    pub fn execd_pid(&self) -> u32 {
        number(&self.json("host localhost")["host"]["pid"])
    }

    /// Processes of workers, and of what they started.
    pub fn worker_processes(&self) -> Vec<u32> {
        processes_of(&self.histories.path().to_string_lossy())
            .into_iter()
            .filter(|pid| *pid != self.broker.process.pid())
            .collect()
    }

    /// Broker, its execd, the far one.
    pub fn pids(&self) -> [u32; 3] {
        [self.broker.process.pid(), self.execd_pid(), self.far.process.pid()]
    }

    /// Memory and descriptors of these.
    pub fn usage(&self) -> [Usage; 3] {
        self.pids().map(Usage::of)
    }

    /// Keeps the logs of broker and execds where the next run does not find them; where that is.
    pub fn keep_logs(&self, seed: u64) -> PathBuf {
        let folder = crate::docs::root().join("target/fault");
        // Without it the violations are told all the same.
        let _ = std::fs::create_dir_all(&folder);
        let logs = [("isectd", self.broker.process.log()), ("isdexecd", self.far.process.log())];
        for (name, log) in logs {
            let how = if self.secrets.is_some() { "-secured" } else { "" };
            let _ = std::fs::write(folder.join(format!("{name}-{seed}{how}.log")), log);
        }
        folder
    }

    /// Memory and descriptors of broker, its execd and the far one: before, and now.
    pub fn usages(&self) -> [(Usage, Usage); 3] {
        let now = self.usage();
        [0, 1, 2].map(|at| (self.baseline[at], now[at]))
    }

    /// Ends everything in order: what is wrong then.
    pub fn end(self) -> Vec<String> {
        let mut wrong = Vec::new();
        let Self { broker, mut far, histories, disk, clients, workers, hosts, .. } = self;
        let status = broker.end();
        if status != 0 {
            wrong.push(format!("the broker ended with status {status}"));
        }
        far.process.signal(Signal::SIGTERM);
        let status = far.process.await_end();
        if status != 0 {
            wrong.push(format!("the far execd ended with status {status}"));
        }
        drop((clients, workers, hosts, disk));
        let left = || processes_of(&histories.path().to_string_lossy());
        if within(QUIESCENCE_MAX, || left().is_empty().then_some(())).is_none() {
            wrong.push(format!("still there: {:?}", left()));
        }
        wrong
    }
}

/// The address without what stands before it.
fn socket_address(address: &str) -> SocketAddr {
    address.trim_start_matches(TLS_PREFIX).parse().expect("an address")
}

const fn scheme(is_secured: bool) -> &'static str {
    if is_secured { TLS_PREFIX } else { "" }
}

fn start_broker(folder: TempDir, fake: Option<(&Path, &Path)>, more: &[String]) -> Broker {
    let mut args: Vec<&str> = more.iter().map(String::as_str).collect();
    for setting in SETTINGS {
        args.extend(["--set", setting]);
    }
    args.extend(["--log", "info"]);
    let descriptors = DESCRIPTORS.to_string();
    let mut words = vec!["/bin/sh", "-c", WRAP, "sh", &descriptors];
    let mut variables = Vec::new();
    if let Some((library, wall)) = fake {
        variables = vec![
            format!("LD_PRELOAD={}", library.display()),
            format!("FAKETIME_TIMESTAMP_FILE={}", wall.display()),
            "FAKETIME_NO_CACHE=1".to_owned(),
            // Nobody can step the monotonic clock; that all deadlines hold shows that it is used.
            "FAKETIME_DONT_FAKE_MONOTONIC=1".to_owned(),
            "NO_FAKE_STAT=1".to_owned(),
        ];
        words.push("/usr/bin/env");
        words.extend(variables.iter().map(String::as_str));
    }
    let broker = Broker::start_wrapped(folder, &args, &words);
    drop(variables);
    broker
}

/// A process id; 0 if it is none.
pub fn number(value: &serde_json::Value) -> u32 {
    value.as_u64().and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}
