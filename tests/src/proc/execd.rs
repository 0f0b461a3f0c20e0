//! An `isdexecd` of its own, which a broker sees as a host.

use super::process::Process;
use super::programs::program;
use super::wait::await_that;
use nix::sys::signal::Signal;
use std::path::Path;
use tempfile::TempDir;

/// A separate `isdexecd`, which a broker sees as a host.
#[derive(Debug)]
pub struct Execd {
    /// The running isdexecd.
    pub process: Process,
    /// Where it listens, `ADDR:PORT`.
    pub address: String,
    folder: TempDir,
    args: Vec<String>,
}

impl Execd {
    /// Starts one and waits until it listens.
    pub fn start(args: &[&str]) -> Self {
        Self::start_at("127.0.0.1:0", args)
    }

    /// Starts one at this address.
    pub fn start_at(address: &str, args: &[&str]) -> Self {
        let folder = TempDir::with_prefix("isect-").expect("temporary folder");
        let args: Vec<String> = args.iter().map(ToString::to_string).collect();
        let process = Self::launch(&folder, address, &args);
        let mut execd = Self { process, address: String::new(), folder, args };
        execd.await_port();
        execd
    }

    fn launch(folder: &TempDir, address: &str, args: &[String]) -> Process {
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let _ = std::fs::remove_file(folder.path().join("ports.json"));
        let (state, ports) = (at("state"), at("ports.json"));
        let mut all = vec!["--listen", address, "--state", &state, "--ports-file", &ports];
        all.extend(["--log", "debug"]);
        if !args.iter().any(|arg| arg == "--allow") {
            all.extend(["--allow", "/"]);
        }
        if nix::unistd::geteuid().is_root() && !args.iter().any(|arg| arg == "--user") {
            all.push("--allow-root-workers");
        }
        all.extend(args.iter().map(String::as_str));
        Process::start(&program("isdexecd"), &all, folder.path().join("isdexecd.log"))
    }

    fn await_port(&mut self) {
        let path = self.folder.path().join("ports.json");
        let process = &mut self.process;
        let ports: serde_json::Value = await_that("the ports file", || {
            assert!(process.ended().is_none(), "execd ended at the start:\n{}", process.log());
            serde_json::from_slice(&std::fs::read(&path).ok()?).ok()
        });
        self.address = ports["execd"].as_str().expect("an address").to_owned();
    }

    /// Kills it with SIGKILL, once these workers of it are recorded; they stay.
    pub fn kill(&mut self, pids: &[u32]) {
        await_recorded(&self.folder.path().join("state"), pids);
        self.process.signal(Signal::SIGKILL);
        self.process.await_end();
    }

    /// Starts it again where it was.
    pub fn restart(&mut self) {
        self.process = Self::launch(&self.folder, &self.address, &self.args);
        self.await_port();
    }
}

/// Waits until an execd has recorded these processes. It reports a start earlier when its disk or
/// a processor is slow, and a worker logs in without asking it.
pub(super) fn await_recorded(state: &Path, pids: &[u32]) {
    let file = state.join("execd.children");
    for pid in pids {
        await_that("a start in the file", || {
            std::fs::read_to_string(&file).ok()?.contains(&format!(" {pid} ")).then_some(())
        });
    }
}
