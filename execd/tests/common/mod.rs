//! Shared by the tests with real processes: an isdexecd for each test, a broker that sends frames
//! to it, and programs written for the test. Every wait has a deadline, nothing sleeps, and
//! everything ends with the test.
#![allow(dead_code, reason = "each test file uses its part of this")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on panics")]
#![allow(clippy::disallowed_methods, reason = "tests start programs, threads and read the time")]

mod lease;
mod wire;

#[allow(unused_imports, reason = "each test file uses its part of this")]
pub(crate) use lease::{beginning, hold};
use protocol::frame::Frame;
use std::fs;
use std::io::{BufRead, BufReader, Write as _};
use std::path::Path;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc::{Receiver, channel};
use std::time::{Duration, Instant};
use tempfile::TempDir;
#[allow(unused_imports, reason = "each test file uses its part of this")]
pub(crate) use wire::{Wire, start_frame};

/// Longest wait for anything.
pub(crate) const TIMEOUT: Duration = Duration::from_secs(20);

/// What `docs/systemd/isdexecd.service` leaves of root's rights, as setpriv wants it.
const UNIT_CAPABILITIES: &str = "-all,+setuid,+setgid,+kill,+chown,+sys_ptrace,+dac_read_search";

/// Rights of root that a unit gives to a user of its own (`AmbientCapabilities=`), and that user.
const AMBIENT_CAPABILITIES: &str = "-all,+setuid,+setgid,+kill,+chown,+dac_read_search";
pub(crate) const AMBIENT_USER: u32 = 4711;

/// A running isdexecd with a directory of its own.
pub(crate) struct Execd {
    process: Child,
    log: Receiver<String>,
    seen: Vec<String>,
    pub(crate) address: String,
    pub(crate) directory: TempDir,
}

/// Adds the arguments that most tests want: every program is allowed, and root may start workers as
/// root. `--no-allow`, `--no-root`, `--bounded` (only those of root's rights that the systemd
/// unit has) and `--ambient` (another user with some of them) are words of the tests.
pub(crate) fn usual(command: &mut Command, args: &[&str]) {
    let says = |word| args.contains(&word);
    if !says("--allow") && !says("--no-allow") {
        command.args(["--allow", "/"]);
    }
    if nix::unistd::geteuid().is_root() && !says("--user") && !says("--no-root") {
        command.arg("--allow-root-workers");
    }
    let own = |arg: &&&str| matches!(**arg, "--no-allow" | "--no-root" | "--bounded" | "--ambient");
    command.args(args.iter().filter(|arg| !own(arg)));
}

/// Whether this test may play other users; prints a note if not.
#[allow(clippy::print_stderr, reason = "a test that tries less than it could says so")]
pub(crate) fn is_root() -> bool {
    let is_root = nix::unistd::geteuid().is_root();
    if !is_root {
        eprintln!("not tried: only root can start programs as another user");
    }
    is_root
}

/// Runs isdexecd to its end, for command lines that are refused; returns status and stderr.
pub(crate) fn run_to_end(args: &[&str]) -> (i32, String) {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isdexecd"));
    usual(&mut command, args);
    let mut process = command.stdin(Stdio::null()).stderr(Stdio::piped()).spawn().unwrap();
    let end = Instant::now() + TIMEOUT;
    while process.try_wait().unwrap().is_none() && Instant::now() < end {
        std::thread::park_timeout(Duration::from_millis(2));
    }
    let _ = process.kill();
    let output = process.wait_with_output().unwrap();
    (output.status.code().unwrap_or(-1), String::from_utf8(output.stderr).unwrap())
}

impl Execd {
    /// Starts one that listens on a TCP port that the kernel chooses.
    pub(crate) fn tcp(args: &[&str]) -> Self {
        Self::start(tempfile::tempdir().unwrap(), "127.0.0.1:0", args)
    }

    /// Starts one that listens on a Unix socket in its directory.
    pub(crate) fn unix(args: &[&str]) -> Self {
        Self::unix_in(tempfile::tempdir().unwrap(), args)
    }

    pub(crate) fn unix_in(directory: TempDir, args: &[&str]) -> Self {
        let listen = format!("unix:{}", directory.path().join("execd.sock").display());
        Self::start(directory, &listen, args)
    }

    fn start(directory: TempDir, listen: &str, args: &[&str]) -> Self {
        let ports = directory.path().join("ports.json");
        let _ = fs::remove_file(&ports);
        let mut command = if args.contains(&"--bounded") {
            let mut command = Command::new("setpriv");
            command.args(["--no-new-privs", "--bounding-set", UNIT_CAPABILITIES]);
            command.arg(env!("CARGO_BIN_EXE_isdexecd"));
            command
        } else if args.contains(&"--ambient") {
            let (user, rights) = (AMBIENT_USER.to_string(), AMBIENT_CAPABILITIES);
            std::os::unix::fs::chown(directory.path(), Some(AMBIENT_USER), None).unwrap();
            let mut command = Command::new("setpriv");
            command.args(["--reuid", &user, "--regid", &user, "--clear-groups"]);
            command.args(["--inh-caps", rights, "--ambient-caps", rights]);
            command.arg(env!("CARGO_BIN_EXE_isdexecd"));
            command
        } else {
            Command::new(env!("CARGO_BIN_EXE_isdexecd"))
        };
        command.args(["--listen", listen, "--log", "debug", "--ports-file"]).arg(&ports);
        usual(&mut command, args);
        command.stdin(Stdio::null()).stderr(Stdio::piped());
        command.env("TEST_LEAK", "leaked").env("TEST_PASS", "passed");
        let mut process = command.spawn().unwrap();
        let stderr = BufReader::new(process.stderr.take().unwrap());
        let (sender, log) = channel();
        std::thread::spawn(move || {
            for line in stderr.lines().map_while(Result::ok) {
                if sender.send(line).is_err() {
                    return;
                }
            }
        });
        let mut execd = Self { process, log, seen: Vec::new(), address: String::new(), directory };
        execd.wait_log("listening");
        let ports: serde_json::Value = serde_json::from_slice(&fs::read(ports).unwrap()).unwrap();
        execd.address = ports["execd"].as_str().unwrap().to_owned();
        execd
    }

    /// Waits for a line of the log that contains `part`.
    pub(crate) fn wait_log(&mut self, part: &str) -> String {
        let end = Instant::now() + TIMEOUT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let line = self.log.recv_timeout(left).unwrap_or_else(|_| {
                panic!("no '{part}' in the log:\n{}", self.seen.join("\n"));
            });
            self.seen.push(line.clone());
            if line.contains(part) {
                return line;
            }
        }
    }

    /// The whole log, once the process has ended.
    pub(crate) fn whole_log(&mut self) -> String {
        self.seen.extend(self.log.iter());
        self.seen.join("\n")
    }

    pub(crate) fn pid(&self) -> u32 {
        self.process.id()
    }

    pub(crate) fn signal(&self, signal: nix::sys::signal::Signal) {
        kill(self.pid(), signal);
    }

    /// Waits until isdexecd has ended.
    pub(crate) fn wait(&mut self) -> ExitStatus {
        until("isdexecd ends", || self.process.try_wait().unwrap())
    }

    /// Opens a connection and sends nothing.
    pub(crate) fn dial(&self) -> Wire {
        Wire::dial(&self.address)
    }

    /// Connects as a broker and says hello.
    pub(crate) fn broker(&self, name: &str) -> Wire {
        let mut wire = self.dial();
        wire.hello(name);
        let frame = wire.next();
        assert!(matches!(frame, Frame::ExecWelcome(_)), "{frame:?}");
        wire
    }

    /// Writes a shell script that can be executed.
    pub(crate) fn script(&self, name: &str, body: &str) -> String {
        script(self.directory.path(), name, body)
    }

    pub(crate) fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }
}

impl Drop for Execd {
    fn drop(&mut self) {
        // First in order, so that no child of it is left; then by KILL.
        if matches!(self.process.try_wait(), Ok(None)) {
            let pid = self.process.id();
            kill(pid, nix::sys::signal::Signal::SIGTERM);
            kill(pid, nix::sys::signal::Signal::SIGTERM);
            let end = Instant::now() + TIMEOUT;
            while matches!(self.process.try_wait(), Ok(None)) && Instant::now() < end {
                std::thread::park_timeout(Duration::from_millis(2));
            }
        }
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

pub(crate) fn script(directory: &Path, name: &str, body: &str) -> String {
    program(directory, name, format!("#!/bin/sh\n{body}\n").as_bytes())
}

/// Makes an executable file of these bytes. Another process writes it: a child that another test
/// starts meanwhile would inherit the open file, and running the program would fail (ETXTBSY).
pub(crate) fn program(directory: &Path, name: &str, bytes: &[u8]) -> String {
    let path = directory.join(name);
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(&path).stdin(Stdio::piped());
    let mut writer = shell.spawn().unwrap();
    writer.stdin.take().unwrap().write_all(bytes).unwrap();
    assert!(writer.wait().unwrap().success(), "{} is not written", path.display());
    path.display().to_string()
}

/// Makes a copy of a program.
pub(crate) fn copy(from: &str, directory: &Path, name: &str) -> String {
    program(directory, name, &fs::read(from).unwrap())
}

pub(crate) fn kill(pid: u32, signal: nix::sys::signal::Signal) {
    let pid = nix::unistd::Pid::from_raw(i32::try_from(pid).unwrap());
    let _ = nix::sys::signal::kill(pid, signal);
}

/// Polls until `ask` returns something, for what can't be waited for.
pub(crate) fn until<T>(what: &str, mut ask: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + TIMEOUT;
    loop {
        if let Some(answer) = ask() {
            return answer;
        }
        assert!(Instant::now() < end, "waited too long until {what}");
        std::thread::park_timeout(Duration::from_millis(2));
    }
}

/// Whether a process exists and is not a zombie.
pub(crate) fn is_running(pid: u32) -> bool {
    sys::proc::running(pid).is_some()
}

pub(crate) fn wait_gone(pid: u32) {
    until("the process is gone", || (!is_running(pid)).then_some(()));
}

/// Waits until these processes are in the file of a state directory. An execd reports a start
/// earlier when its disk or a processor is slow, and the next execd ends such a start.
pub(crate) fn await_recorded(state: &str, pids: &[u32]) {
    let file = Path::new(state).join("execd.children");
    for pid in pids {
        until("a start is in the file", || {
            fs::read_to_string(&file).ok()?.contains(&format!(" {pid} ")).then_some(())
        });
    }
}
