//! Real programs under test: a broker, execds and clients as processes, on ports that the kernel
//! chooses, in a temporary directory. Waits are for a condition, with a time limit. Nothing is left
//! behind.

use broker::engine::fact::{FACTS, FactKind, FactRow};
use client::address::Address;
use client::caller::{Caller, Options};
use client::error::Error;
use client::trust::Trust;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use protocol::names::ServiceName;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

/// Time limit for anything in a test; far longer than it should take.
pub const TIMEOUT: Duration = Duration::from_secs(30);

/// Where a program of this workspace is. `cargo test --workspace` has built them all; a single
/// package's tests build them here.
pub fn program(name: &str) -> PathBuf {
    let mut folder = std::env::current_exe().expect("own path");
    folder.pop();
    if folder.ends_with("deps") {
        folder.pop();
    }
    let path = folder.join(name);
    if !path.is_file() {
        build(&folder);
    }
    assert!(path.is_file(), "{} is not built; run: cargo build --workspace --bins", path.display());
    path
}

/// Copies a program that is to be run. A separate process writes the copy: otherwise a child that
/// another test starts meanwhile would inherit the open file, and running it would fail (ETXTBSY).
#[expect(clippy::disallowed_methods, reason = "see above")]
pub fn copy_program(name: &str, to: &Path) {
    let status = Command::new("cp").arg(program(name)).arg(to).status().expect("cp runs");
    assert!(status.success(), "{name} can't be copied to {}", to.display());
}

/// Makes an executable file of this text. A separate process writes it, as in [`copy_program`].
#[expect(clippy::disallowed_methods, reason = "see above")]
pub fn write_program(path: &Path, text: &[u8]) {
    let mut shell = Command::new("/bin/sh");
    shell.args(["-c", "cat > \"$0\" && chmod 755 \"$0\""]).arg(path).stdin(Stdio::piped());
    let mut writer = shell.spawn().expect("sh runs");
    let written = writer.stdin.take().expect("a pipe").write_all(text);
    let is_done = writer.wait().expect("sh ends").success();
    assert!(written.is_ok() && is_done, "{} is not written: {written:?}", path.display());
}

#[expect(clippy::disallowed_methods, reason = "builds what the tests run")]
fn build(folder: &Path) {
    let mut cargo = Command::new(env!("CARGO"));
    cargo.args(["build", "--workspace", "--bins", "--quiet"]).current_dir(crate::docs::root());
    if folder.ends_with("release") {
        cargo.arg("--release");
    }
    if let Some(target) = folder.parent() {
        cargo.env("CARGO_TARGET_DIR", target);
    }
    let status = cargo.status().expect("cargo runs");
    assert!(status.success(), "cargo build failed");
}

/// Calls `look` until it gives something.
///
/// # Panics
/// If that takes longer than [`TIMEOUT`]; `what` says what was waited for.
pub fn await_that<T>(what: &str, look: impl FnMut() -> Option<T>) -> T {
    within(TIMEOUT, look).unwrap_or_else(|| panic!("waited {TIMEOUT:?} for {what}"))
}

/// Calls `look` until it gives something; `None` if that takes too long.
#[expect(clippy::disallowed_methods, reason = "waits for the thing itself, with a limit")]
pub fn within<T>(limit: Duration, mut look: impl FnMut() -> Option<T>) -> Option<T> {
    let begun = Instant::now();
    loop {
        let found = look();
        if found.is_some() || begun.elapsed() > limit {
            return found;
        }
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A process that is ended when the test is over.
#[derive(Debug)]
pub struct Process {
    child: Option<Child>,
    name: String,
    log: PathBuf,
}

impl Process {
    /// Starts a program with its output in a file.
    #[expect(
        clippy::disallowed_methods,
        reason = "this is the one place of the tests that starts programs"
    )]
    pub fn start(program: &Path, args: &[&str], log: PathBuf) -> Self {
        let file =
            std::fs::OpenOptions::new().create(true).append(true).open(&log).expect("log file");
        let folder = log.parent().expect("a folder").to_path_buf();
        let child = Command::new(program)
            .args(args)
            .current_dir(folder)
            .stdin(Stdio::null())
            .stdout(file.try_clone().expect("log file"))
            .stderr(file)
            .spawn()
            .unwrap_or_else(|e| panic!("{}: {e}", program.display()));
        let name = program.file_name().unwrap_or_default().to_string_lossy().into_owned();
        Self { child: Some(child), name, log }
    }

    /// The process id; 0 once it has been waited for.
    pub fn pid(&self) -> u32 {
        self.child.as_ref().map_or(0, Child::id)
    }

    /// What it has written to stdout and stderr so far.
    pub fn log(&self) -> String {
        std::fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Its log, when this text is in it at least `count` times. A thread of its own writes the log,
    /// so it may come later than the answer to a command.
    pub fn await_log(&self, part: &str, count: usize) -> String {
        let whole = || Some(self.log()).filter(|log| log.matches(part).count() >= count);
        within(TIMEOUT, whole)
            .unwrap_or_else(|| panic!("no {count} of {part:?} in the log:\n{}", self.log()))
    }

    /// Sends it a signal.
    pub fn signal(&self, signal: Signal) {
        signal_pid(self.pid(), signal);
    }

    /// Its exit status if it has ended; 128 + N after signal N.
    pub fn ended(&mut self) -> Option<i32> {
        use std::os::unix::process::ExitStatusExt;
        let status = self.child.as_mut()?.try_wait().expect("wait")?;
        self.child = None;
        Some(status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)))
    }

    /// Waits for its end.
    pub fn await_end(&mut self) -> i32 {
        let name = self.name.clone();
        await_that(&format!("the end of {name}"), || self.ended())
    }
}

impl Drop for Process {
    #[expect(clippy::print_stderr, reason = "a failed test shows what its processes said")]
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("== log of {}\n{}", self.name, self.log());
        }
    }
}

/// The result of a program that ran to its end.
#[derive(Clone, Debug)]
pub struct Done {
    /// Its exit status; 128 + N after signal N.
    pub status: i32,
    /// Its stdout.
    pub out: String,
    /// Its stderr.
    pub err: String,
}

/// Runs a program of this workspace to its end, with this text on its stdin.
#[expect(clippy::disallowed_methods, reason = "tests start the real programs")]
pub fn run(name: &str, args: &[&str], input: &[u8]) -> Done {
    use std::os::unix::process::ExitStatusExt;
    let mut child = Command::new(program(name))
        .args(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .env_remove("ISECT_HOST")
        .spawn()
        .unwrap_or_else(|e| panic!("{name}: {e}"));
    let mut stdin = child.stdin.take().expect("a pipe");
    let ended = std::thread::scope(|scope| {
        // The program may end without reading all of its stdin.
        scope.spawn(move || drop(stdin.write_all(input)));
        child.wait_with_output().unwrap_or_else(|e| panic!("{name}: {e}"))
    });
    let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
    let status = ended.status;
    Done {
        status: status.code().unwrap_or_else(|| 128 + status.signal().unwrap_or(0)),
        out: text(ended.stdout),
        err: text(ended.stderr),
    }
}

/// Sends a signal to a process of this test.
pub fn signal_pid(pid: u32, signal: Signal) {
    let pid = i32::try_from(pid).expect("a process id");
    assert!(pid > 1, "not a process of a test");
    // The process may just have ended.
    let _ = kill(Pid::from_raw(pid), signal);
}

/// Sends a signal by number, also one that nix has no name for, so many times. Real-time signals
/// are queued, so the process takes each of them.
///
/// # Panics
/// If the process is gone, or there is no bash.
#[expect(
    clippy::disallowed_methods,
    reason = "only kill(1) sends real-time signals without unsafe"
)]
pub fn signal_number(pid: u32, number: i32, times: usize) {
    assert!(pid > 1, "not a process of a test");
    let kill =
        format!("for ((at = 0; at < {times}; at++)); do kill -{number} {pid} || exit 1; done");
    let status = Command::new("/bin/bash").args(["-c", &kill]).status();
    assert!(status.expect("bash").success(), "{kill}");
}

/// Whether a process is there (and not a zombie).
pub fn is_alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat.rsplit(')').next().unwrap_or("").trim_start().starts_with('Z'))
}

/// When a process began, ticks since the machine's start (field 22 of its `stat`); `None` = it is
/// gone. Together with its id that names one process: ids are used again, within minutes where many
/// processes are started.
pub fn began_at(pid: u32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name in field 2 may contain anything.
    let (_, behind) = stat.rsplit_once(')')?;
    behind.split_whitespace().nth(19)?.parse().ok()
}

/// Processes whose command line contains this text.
pub fn processes_of(text: &str) -> Vec<u32> {
    let entries = std::fs::read_dir("/proc").expect("/proc");
    let pids = entries.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok());
    let names = |pid: &u32| {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        String::from_utf8_lossy(&line).contains(text) && is_alive(*pid)
    };
    pids.filter(names).filter(|pid| *pid != std::process::id()).collect()
}

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

    /// Logs in.
    ///
    /// # Errors
    /// What the library says.
    pub fn try_login(&self, service: &str) -> Result<Caller, Error> {
        let name = ServiceName::new(service).expect("a service name");
        let options = Options { trust: self.trust.clone(), ..Options::new(name) };
        Caller::login(&[self.address()], options)
    }

    /// Logs in to a service that is there.
    pub fn login(&self, service: &str) -> Caller {
        self.try_login(service).unwrap_or_else(|e| panic!("login to {service}: {e}"))
    }

    /// Runs an operator command.
    ///
    /// # Errors
    /// What the broker answers.
    pub fn try_op(&self, command: &str) -> Result<String, Error> {
        let answer = self.try_login("op")?.call(command.to_owned(), Some(TIMEOUT))?;
        Ok(String::from_utf8(answer.to_vec()).expect("UTF-8"))
    }

    /// Runs an operator command that succeeds.
    pub fn op(&self, command: &str) -> String {
        self.try_op(command).unwrap_or_else(|e| panic!("'{command}': {e}"))
    }

    /// Has the broker remember the events to come, but for the logins and logouts of clients: each
    /// command of a test that looks again and again makes two of those, and they would push out
    /// what it looks for.
    pub fn remember_events(&self) {
        let is_news =
            |row: &&FactRow| !matches!(row.kind, FactKind::ClientIn | FactKind::ClientOut);
        let kinds: Vec<&str> = FACTS.iter().filter(is_news).map(|row| row.name).collect();
        self.op(&format!("config events 1000 {}", kinds.join(" ")));
    }

    /// A number of a page (`worker->hostpid`, `isdData.IdleWorkers`).
    pub fn number(&self, command: &str, key: &str) -> i64 {
        let page = self.op(command);
        let line =
            page.lines().find(|line| line.split(" =").next().is_some_and(|k| k.trim_end() == key));
        let value = line
            .and_then(|line| line.split("= ").nth(1))
            .unwrap_or_else(|| panic!("no {key} in\n{page}"));
        value.trim().parse().unwrap_or_else(|_| panic!("{key} of '{command}' is {value}"))
    }

    /// The process of the built-in execd, once it is up.
    ///
    /// # Panics
    /// If it does not come.
    pub fn execd_pid(&self) -> u32 {
        self.await_page("host localhost", "host->state = up");
        u32::try_from(self.number("host localhost", "host->hostpid")).expect("a pid")
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

    /// The process id of a worker; 0 if it has none.
    pub fn worker_pid(&self, id: u32) -> u32 {
        u32::try_from(self.number(&format!("worker {id}"), "worker->hostpid"))
            .expect("a process id")
    }

    /// A figure of its `/proc/PID/status` in KiB (`VmRSS`, `VmHWM`).
    pub fn memory_kib(&self, key: &str) -> u64 {
        let path = format!("/proc/{}/status", self.process.pid());
        let status = std::fs::read_to_string(path).expect("the broker runs");
        let line = status.lines().find(|line| line.starts_with(key)).expect("a figure");
        line.split_whitespace().nth(1).and_then(|n| n.parse().ok()).expect("a number")
    }

    /// Waits until that many workers are idle.
    pub fn await_idle(&self, count: i64) {
        await_that(&format!("{count} idle workers:\n{}", self.op("workers")), || {
            (self.number("", "isdData.IdleWorkers") == count).then_some(())
        });
    }

    /// Runs a command until its page contains a text; the page.
    pub fn await_page(&self, command: &str, part: &str) -> String {
        let mut page = String::new();
        let found = within(TIMEOUT, || {
            page = self.op(command);
            page.contains(part).then_some(())
        });
        assert!(found.is_some(), "no '{part}' in '{command}':\n{page}");
        page
    }

    /// Waits until a worker is ready.
    pub fn await_ready(&self, id: u32) -> String {
        self.await_page(&format!("worker {id}"), "worker->state = \"ready\"")
    }

    /// Waits until a worker is failed.
    pub fn await_failed(&self, id: u32) -> String {
        self.await_page(&format!("worker {id}"), "worker->state = \"down, failed\"")
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

    /// Waits until a worker is ready with another process than this one; the new one.
    pub fn await_new_pid(&self, id: u32, old: u32) -> u32 {
        await_that(&format!("a new process of worker {id}"), || {
            let page = self.op(&format!("worker {id}"));
            let is_ready = page.contains("worker->state = \"ready\"");
            let pid = self.worker_pid(id);
            (is_ready && pid != old && pid != 0).then_some(pid)
        })
    }

    /// Runs `isdclient` against this broker.
    pub fn isdclient(&self, args: &[&str], input: &str) -> Done {
        let address = self.port("client");
        run("isdclient", &[&["-h", &address], args].concat(), input.as_bytes())
    }

    /// Configures a service with workers of a sample program on `localhost`, starts it, waits until
    /// they are idle.
    pub fn with_workers(&self, service: &str, program_and_args: &str, count: usize) {
        let (name, args) = program_and_args.split_once(' ').unwrap_or((program_and_args, ""));
        let before = self.number("", "isdData.IdleWorkers");
        // It may be there already, with settings of the test's own.
        drop(self.try_op(&format!("config service {service}")));
        for _ in 0..count {
            self.op(&format!(
                "config worker {service} localhost {} {args}",
                program(name).display()
            ));
        }
        self.op(&format!("start {service}"));
        self.await_idle(before + count as i64);
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
        if let Some(child) = &mut self.process.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        for pid in self.processes() {
            signal_pid(pid, Signal::SIGKILL);
        }
    }
}

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
fn await_recorded(state: &Path, pids: &[u32]) {
    let file = state.join("execd.children");
    for pid in pids {
        await_that("a start in the file", || {
            std::fs::read_to_string(&file).ok()?.contains(&format!(" {pid} ")).then_some(())
        });
    }
}
