//! A broker as a process: how it is started, killed, started again and ended, and that it leaves
//! nothing behind.

use super::execd::await_recorded;
use super::pids::{processes_of, signal_pid};
use super::process::Process;
use super::programs::program;
use super::wait::{TIMEOUT, await_that, within};
use client::address::Address;
use client::trust::Trust;
use nix::sys::signal::Signal;
use std::path::Path;
use sys::proc;
use tempfile::TempDir;

/// A broker with its own state directory and built-in execd.
#[derive(Debug)]
pub struct Broker {
    /// The running isectd.
    pub process: Process,
    /// Its folder: `state`, `ports.json`, `isectd.log`.
    pub folder: TempDir,
    /// Content of its ports file.
    pub ports: serde_json::Value,
    /// CA and certificate of clients that log in here; `None` = those of the environment.
    pub trust: Option<Trust>,
    args: Vec<String>,
    /// A program, with arguments, that executes the broker, for example a shell that lowers limits
    /// first.
    wrap: Vec<String>,
}

impl Broker {
    /// Starts a broker in a new folder and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_in(TempDir::with_prefix("isect-").expect("temporary folder"), args)
    }

    /// Starts a broker in this folder.
    pub fn start_in(folder: TempDir, args: &[&str]) -> Self {
        Self::start_wrapped(folder, args, &[])
    }

    /// Starts a broker in this folder through a program that executes it: `wrap` and its arguments
    /// are put before the broker's path.
    pub fn start_wrapped(folder: TempDir, args: &[&str], wrap: &[&str]) -> Self {
        let own = |words: &[&str]| words.iter().map(ToString::to_string).collect::<Vec<_>>();
        let (args, wrap) = (own(args), own(wrap));
        let process = Self::launch(&folder, &args, &wrap);
        let ports = serde_json::Value::Null;
        let mut broker = Self { process, folder, ports, trust: None, args, wrap };
        broker.await_ports();
        broker
    }

    fn launch(folder: &TempDir, args: &[String], wrap: &[String]) -> Process {
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let _ = std::fs::remove_file(folder.path().join("ports.json"));
        let (state, ports) = (at("state"), at("ports.json"));
        let mut all = vec!["--ports-file", &ports];
        for usual in [["--listen", "127.0.0.1:0"], ["--state", &state], ["--log", "debug"]] {
            if !args.iter().any(|arg| arg == usual[0]) {
                all.extend(usual);
            }
        }
        all.extend(args.iter().map(String::as_str));
        let log = folder.path().join("isectd.log");
        let isectd = program("isectd");
        let Some((first, rest)) = wrap.split_first() else {
            return Process::start(&isectd, &all, log);
        };
        let isectd = isectd.to_string_lossy();
        let before: Vec<&str> = rest.iter().map(String::as_str).chain([isectd.as_ref()]).collect();
        Process::start(Path::new(first), &[before, all].concat(), log)
    }

    fn await_ports(&mut self) {
        if let Err(status) = self.try_await_ports() {
            panic!("the broker ended at the start with status {status}:\n{}", self.process.log());
        }
    }

    fn try_await_ports(&mut self) -> Result<(), i32> {
        let path = self.folder.path().join("ports.json");
        let process = &mut self.process;
        self.ports = await_that("the ports file", || {
            if let Some(status) = process.ended() {
                return Some(Err(status));
            }
            serde_json::from_slice(&std::fs::read(&path).ok()?).ok().map(Ok)
        })?;
        Ok(())
    }

    /// Kills it with SIGKILL; its execd and workers stay.
    pub fn kill(&mut self) {
        self.process.signal(Signal::SIGKILL);
        self.process.await_end();
    }

    /// Starts it again after it ended.
    pub fn restart(&mut self) {
        self.process = Self::launch(&self.folder, &self.args, &self.wrap);
        self.await_ports();
    }

    /// Starts it again after it ended, with these arguments and by this program (see
    /// [`start_wrapped`](Self::start_wrapped)).
    pub fn restart_as(&mut self, args: &[&str], wrap: &[&str]) {
        self.args = args.iter().map(ToString::to_string).collect();
        self.wrap = wrap.iter().map(ToString::to_string).collect();
        self.restart();
    }

    /// Starts it again after it ended, where that may fail.
    ///
    /// # Errors
    /// It ended before it listened: its exit status.
    pub fn try_restart(&mut self) -> Result<(), i32> {
        self.process = Self::launch(&self.folder, &self.args, &self.wrap);
        self.try_await_ports()
    }

    /// An address of its ports file (`client`, `worker`, `client_unix`, `execd`).
    pub fn port(&self, name: &str) -> String {
        self.ports[name]
            .as_str()
            .unwrap_or_else(|| panic!("no {name} in {}", self.ports))
            .to_owned()
    }

    /// Where clients connect over TCP.
    pub fn address(&self) -> Address {
        Address::parse(&self.port("client")).expect("an address")
    }

    /// Kills its built-in execd with SIGKILL, once these processes are recorded: the next execd
    /// ends what this one had not recorded yet. Returns the pid of the execd that was killed.
    ///
    /// # Panics
    /// If no execd comes, or a process is not recorded in time.
    pub fn kill_execd(&self, pids: &[u32]) -> u32 {
        let execd = self.execd_pid();
        await_recorded(&self.folder.path().join("state/execd"), pids);
        signal_pid(execd, Signal::SIGKILL);
        execd
    }

    /// Memory in use, in KiB.
    pub fn rss_kib(&self) -> u64 {
        let status = proc::status(self.process.pid()).expect("the broker runs");
        status.vmrss.expect("a figure")
    }

    /// Most memory that was in use so far, in KiB.
    pub fn peak_kib(&self) -> u64 {
        let status = proc::status(self.process.pid()).expect("the broker runs");
        status.vmhwm.expect("a figure")
    }

    /// Processes that name one of this broker's sockets or files.
    pub fn processes(&self) -> Vec<u32> {
        let mut pids = processes_of(&self.folder.path().to_string_lossy());
        for name in ["worker_unix", "execd"] {
            if let Some(path) = self.ports[name].as_str().and_then(|a| a.strip_prefix("unix:")) {
                pids.extend(processes_of(path));
            }
        }
        pids
    }

    /// Waits until none of its processes runs any more.
    pub fn await_nothing_left(&self) {
        let left = within(TIMEOUT, || self.processes().is_empty().then_some(()));
        assert!(left.is_some(), "still there: {:?}", self.processes());
    }

    /// Ends it by SIGTERM and returns its exit status. None of its processes may be left.
    pub fn end(mut self) -> i32 {
        self.process.signal(Signal::SIGTERM);
        let status = self.process.await_end();
        self.await_nothing_left();
        status
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // After a failed test: kill the broker first, then the processes it would have ended.
        self.process.kill_now();
        for pid in self.processes() {
            signal_pid(pid, Signal::SIGKILL);
        }
    }
}
