//! The processes of the fault run: a broker, a second host, the proxies between them, and what must
//! be true of all of them once the storm is over. Not the storm.

use super::clock::Clock;
use super::disk::Disk;
use super::history::Folder;
use super::line::Door;
use super::load::{DEADLINE_MS, SERVICES};
use super::proxy::Proxy;
use crate::proc::{Broker, Execd, is_alive, processes_of, program, within};
use client::address::Address;
use client::caller::{Caller, Options};
use client::error::Error;
use nix::sys::signal::Signal;
use protocol::bodies::Format;
use protocol::names::ServiceName;
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Most descriptors of the broker: few, so that they can be used up.
pub const DESCRIPTORS: u64 = 300;
/// How long everything may take to be as before once the faults are over.
const CALM: Duration = Duration::from_secs(20);
/// Memory that may stay in use after a storm, KiB: buffers, lists and the allocator's leftovers.
const BROKER_MORE_KIB: u64 = 96 * 1024;
/// The same for an execd.
const EXECD_MORE_KIB: u64 = 16 * 1024;
/// How a broker is started: with few descriptors, and a wall clock that the run can step.
const WRAP: &str = "ulimit -n \"$1\" && shift && exec \"$@\"";

/// Deaths by the dozen are no reason to give up here.
const SETTINGS: &[&str] = &[
    "restart_min_ms=1",
    "restart_max_ms=50",
    "restart_early_max=1000",
    "restart_minute_max=100000",
    "host_retry_ms=100",
    "badge_ms=3000",
    "return_ms=1000",
    "reconnect_ms=8000",
];

/// What a process has in use.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Usage {
    /// Open descriptors.
    pub descriptors: u64,
    /// Memory, KiB.
    pub rss_kib: u64,
}

impl Usage {
    /// Of this process.
    pub fn of(pid: u32) -> Self {
        let descriptors = std::fs::read_dir(format!("/proc/{pid}/fd"))
            .map_or(0, |entries| entries.count() as u64);
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
        let rss = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
        let rss_kib = rss.and_then(|rss| rss.split_whitespace().next()?.parse().ok()).unwrap_or(0);
        Self { descriptors, rss_kib }
    }
}

/// Where libfaketime is, if it is installed.
fn faketime() -> Option<PathBuf> {
    let folders =
        ["/usr/lib/x86_64-linux-gnu", "/usr/lib/aarch64-linux-gnu", "/usr/lib64", "/usr/lib"];
    folders
        .iter()
        .map(|folder| PathBuf::from(folder).join("faketime/libfaketimeMT.so.1"))
        .find(|path| path.is_file())
}

/// Everything that runs.
#[derive(Debug)]
pub struct World {
    /// The run's clock.
    pub clock: Clock,
    /// The broker with its built-in execd.
    pub broker: Broker,
    /// The second host.
    pub far: Execd,
    /// Between clients and the broker.
    pub clients: Proxy,
    /// Between the far host's workers and the broker.
    pub workers: Proxy,
    /// Between the broker and the far host's execd.
    pub hosts: Proxy,
    /// What workers write down.
    pub histories: Folder,
    /// Under the state directory.
    pub disk: Disk,
    /// The file that says what the wall clock shows, where that can be done.
    pub wall: Option<PathBuf>,
    /// Broker, its execd, the far one, before any fault.
    baseline: [Usage; 3],
}

impl World {
    /// Starts everything and waits until all workers are idle.
    pub fn build(clock: Clock, seed: u64) -> Self {
        let folder = TempDir::with_prefix("isect-").expect("temporary folder");
        let disk = Disk::new(folder.path().join("state"));
        let histories = Folder::new(folder.path().join("histories"));
        let wall = folder.path().join("wall");
        std::fs::write(&wall, "+0").expect("a file");
        let preload = faketime().filter(|_| disk.is_mounted());
        let far = Execd::start(&[]);
        let broker = start_broker(folder, preload.as_deref().map(|lib| (lib, wall.as_path())));
        let tcp = |name: &str| broker.port(name).parse().expect("an address");
        let clients = Proxy::start(tcp("client"), clock, seed);
        let workers = Proxy::start(tcp("worker"), clock, seed + 1);
        let hosts = Proxy::start(far.address.parse().expect("an address"), clock, seed + 2);
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
            baseline: [Usage::default(); 3],
        };
        world.configure();
        let complaints = world.calm();
        assert!(complaints.is_empty(), "before any fault:\n{}", complaints.join("\n"));
        world.baseline = world.usage();
        world
    }

    fn configure(&self) {
        let op = |command: &str| self.op(command).unwrap_or_else(|e| panic!("'{command}': {e}"));
        op(&format!("config host far {}", self.hosts.address));
        let witness = program("isdwitness");
        for service in &SERVICES {
            let name = service.name;
            op(&format!("config service {name} deadline_ms={DEADLINE_MS} {}", service.settings));
            let host = if service.is_far { "far" } else { "localhost" };
            let mut args = format!("history={}", self.histories.path().display());
            if service.is_far {
                args.push_str(&format!(" via={}", self.workers.address));
            }
            for index in 0..service.workers {
                // Some are slow to show their badge, so that they can die before it.
                let wait = if index == 0 { 150 } else { 0 };
                op(&format!(
                    "config worker {name} {host} {} {args} wait={wait}",
                    witness.display()
                ));
            }
            op(&format!("start {name}"));
        }
    }

    /// Of a thousand new connections through the proxies so many meet bad weather.
    pub fn set_roughness(&self, permille: u64) {
        for proxy in [&self.clients, &self.workers, &self.hosts] {
            proxy.set_roughness(permille);
        }
    }

    /// All roads are clear, those as well that were cut off.
    pub fn heal(&self) {
        self.set_roughness(0);
        for proxy in [&self.clients, &self.workers, &self.hosts] {
            proxy.heal();
        }
    }

    /// The ways in for clients.
    pub fn doors(&self) -> Vec<Door> {
        let proxy = Door::Proxy(self.clients.address);
        let unix = self.broker.port("client_unix");
        vec![
            proxy.clone(),
            proxy.clone(),
            proxy,
            Door::Tcp(self.broker.port("client").parse().expect("an address")),
            Door::Unix(PathBuf::from(unix.strip_prefix("unix:").expect("a path"))),
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

    fn json(&self, command: &str) -> serde_json::Value {
        let text = self.op_as(command, Format::Json).unwrap_or_default();
        serde_json::from_str(&text).unwrap_or_default()
    }

    /// The built-in execd's process; 0 if it is not known.
    pub fn execd_pid(&self) -> u32 {
        number(&self.json("host localhost")["host"]["hostpid"])
    }

    /// Processes of workers, and of what they started.
    fn worker_processes(&self) -> Vec<u32> {
        processes_of(&self.histories.path().to_string_lossy())
            .into_iter()
            .filter(|pid| *pid != self.broker.process.pid())
            .collect()
    }

    fn pids(&self) -> [u32; 3] {
        [self.broker.process.pid(), self.execd_pid(), self.far.process.pid()]
    }

    fn usage(&self) -> [Usage; 3] {
        self.pids().map(Usage::of)
    }

    /// Looks until all is as it was before the storm; what is not, in words.
    pub fn calm(&mut self) -> Vec<String> {
        let mut complaints = Vec::new();
        let settled = within(CALM, || {
            complaints = self.unsettled();
            complaints.is_empty().then_some(())
        });
        if settled.is_none() {
            for page in ["", "workers", "queue", "hosts"] {
                complaints.push(self.op(page).unwrap_or_else(|e| format!("'{page}': {e}")));
            }
        }
        complaints
    }

    /// What is not yet as it should be.
    fn unsettled(&mut self) -> Vec<String> {
        let mut wrong = Vec::new();
        let expected: usize = SERVICES.iter().map(|service| service.workers).sum();
        let pages = self.json("workers");
        let count = |list: &str| pages[list].as_array().map_or(0, Vec::len);
        if (count("lazy"), count("idle"), count("busy")) != (0, expected, 0) {
            wrong.push(format!("of {expected} workers {} are idle", count("idle")));
        }
        let queue = self.json("queue");
        if queue["queue"].as_array().is_none_or(|waiting| !waiting.is_empty()) {
            wrong.push(format!("something waits for ever: {queue}"));
        }
        let status = &self.json("")["status"];
        if status["Waiting"] != 0 || status["WaitingBytes"] != 0 {
            let bytes = &status["WaitingBytes"];
            wrong.push(format!("{} wait with {bytes} bytes", status["Waiting"]));
        }
        let pids: BTreeSet<u32> = ["lazy", "idle", "busy"]
            .iter()
            .filter_map(|list| pages[list].as_array())
            .flatten()
            .map(|worker| number(&worker["pid"]))
            .collect();
        for pid in self.worker_processes() {
            if !pids.contains(&pid) && !pids.contains(&group_of(pid)) && is_alive(pid) {
                let (group, line) = (group_of(pid), command_line(pid));
                wrong.push(format!("process {pid} of group {group} belongs to nobody: {line}"));
            }
        }
        let execds = processes_of(&format!("unix:{}", self.disk.path().display()));
        let execds =
            execds.iter().filter(|pid| command_line(**pid).contains("--role-execd")).count();
        if execds != 1 {
            wrong.push(format!("{execds} built-in execds"));
        }
        let saved = self.op("save").unwrap_or_default();
        let kept = std::fs::read_to_string(self.disk.path().join("config.isect"));
        if kept.unwrap_or_default() != saved {
            wrong.push("what is kept is not the configuration".to_owned());
        }
        self.check_usage(&mut wrong);
        for pid in self.pids() {
            wrong.extend(
                other_clocks(pid).map(|clock| format!("process {pid} has a timer on {clock}")),
            );
        }
        wrong
    }

    fn check_usage(&self, wrong: &mut Vec<String>) {
        if self.baseline[0].descriptors == 0 {
            return;
        }
        let names = ["the broker", "its execd", "the far execd"];
        let more = [BROKER_MORE_KIB, EXECD_MORE_KIB, EXECD_MORE_KIB];
        let on = |is_far| -> u64 {
            let there = SERVICES.iter().filter(|service| service.is_far == is_far);
            there.map(|service| service.workers as u64).sum()
        };
        // An execd watches each worker that an earlier execd started by one more descriptor.
        let watched = [0, on(false), on(true)];
        for (at, pid) in self.pids().into_iter().enumerate() {
            let now = Usage::of(pid);
            let (before, name) = (self.baseline[at], names[at]);
            if now.descriptors > before.descriptors + watched[at] {
                let open = descriptors(pid).join(" ");
                wrong.push(format!("{name} has {now:?}, before the storm {before:?}: {open}"));
            }
            if now.rss_kib > before.rss_kib + more[at] {
                wrong.push(format!("{name} has {now:?}, before the storm {before:?}"));
            }
        }
    }

    /// Keeps the logs of broker and execds where the next run does not find them; where that is.
    pub fn keep_logs(&self, seed: u64) -> PathBuf {
        let folder = crate::docs::root().join("target/fault");
        // Without it the violations are told all the same.
        let _ = std::fs::create_dir_all(&folder);
        let logs = [("isectd", self.broker.process.log()), ("isdexecd", self.far.process.log())];
        for (name, log) in logs {
            let _ = std::fs::write(folder.join(format!("{name}-{seed}.log")), log);
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
        if within(CALM, || left().is_empty().then_some(())).is_none() {
            wrong.push(format!("still there: {:?}", left()));
        }
        wrong
    }
}

fn start_broker(folder: TempDir, fake: Option<(&std::path::Path, &std::path::Path)>) -> Broker {
    let mut args = Vec::new();
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

fn number(value: &serde_json::Value) -> u32 {
    value.as_u64().and_then(|value| u32::try_from(value).ok()).unwrap_or(0)
}

/// What the descriptors of a process are.
fn descriptors(pid: u32) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten();
    let links = entries.filter_map(|entry| std::fs::read_link(entry.ok()?.path()).ok());
    links.map(|link| link.to_string_lossy().into_owned()).collect()
}

/// Timers of a process that are not on the monotonic clock, as the kernel shows them.
fn other_clocks(pid: u32) -> impl Iterator<Item = String> {
    let entries = std::fs::read_dir(format!("/proc/{pid}/fdinfo")).into_iter().flatten();
    entries.filter_map(|entry| {
        let text = std::fs::read_to_string(entry.ok()?.path()).ok()?;
        let line = text.lines().find(|line| line.starts_with("clockid:"))?;
        (line.split_whitespace().nth(1) != Some("1")).then(|| line.to_owned())
    })
}

/// The process group of a process; 0 if it is gone.
fn group_of(pid: u32) -> u32 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    let behind = stat.rsplit(')').next().unwrap_or_default();
    behind.split_whitespace().nth(2).and_then(|group| group.parse().ok()).unwrap_or(0)
}

/// The words of a process.
pub fn command_line(pid: u32) -> String {
    let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    String::from_utf8_lossy(&bytes).replace('\0', " ")
}
