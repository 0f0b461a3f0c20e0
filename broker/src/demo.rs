//! `isectd demo`: shows services, workers, a death and a restart with real processes on one
//! machine, in a temporary directory. It uses only `op` commands and the client library, as any
//! program would. Its figures are a sample of this machine at this moment; `benches` measures.

use client::address::Address;
use client::caller::{Caller, Options};
use client::error::{Code, Error};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use protocol::{ErrorCode, ServiceName};
use serde_json::Value;
use std::collections::BTreeMap;
use std::io::{self, Write};
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use sys::signals::handled;
use sys::stderr::last_words;

/// Time limit for each step of the demonstration.
const TIMEOUT: Duration = Duration::from_secs(20);
/// Clients that ask while a worker is killed.
const CLIENTS: usize = 4;

/// The error that ends the demonstration.
#[derive(Debug)]
struct DemoError(String);

impl From<Error> for DemoError {
    fn from(error: Error) -> Self {
        Self(error.to_string())
    }
}

impl From<io::Error> for DemoError {
    fn from(error: io::Error) -> Self {
        Self(error.to_string())
    }
}

type Step<T = ()> = Result<T, DemoError>;

/// Runs the demonstration; `once` = end by itself. Returns the exit status of the program.
pub(crate) fn run(once: bool) -> u8 {
    match show(once) {
        Ok(()) => broker::exit::DONE,
        Err(DemoError(text)) => {
            // If nobody reads stderr, the exit status still shows the error.
            last_words(&format!("isectd demo: {text}"));
            broker::exit::HALT
        }
    }
}

/// Prints a line; a closed stdout ends the demonstration.
fn say(text: impl AsRef<str>) -> Step {
    let mut out = io::stdout().lock();
    writeln!(out, "{}", text.as_ref())?;
    Ok(out.flush()?)
}

fn show(once: bool) -> Step {
    // These signals would end this program and leave the broker behind. They are blocked until the
    // demonstration waits for them at its end.
    let signals = handled();
    signals.thread_block().map_err(io::Error::from)?;
    let folder = Folder::new()?;
    let mut broker = Broker::start(&folder.0)?;
    say(format!(
        "isectd runs with its own execd: pid {}, clients at {}\n",
        broker.child.id(),
        broker.address
    ))?;
    let shown = tour(&broker, &folder.0);
    if shown.is_ok() && !once {
        let at = &broker.address;
        say("It goes on until Ctrl-C. In another terminal, type for example:\n")?;
        for args in ["-c workers", "-c 'last 1'", "-c hello upper", "-c watch", ""] {
            say(format!("  isdclient -h {at} {args}"))?;
        }
        say("")?;
        await_end(&signals);
    }
    say("the broker is asked to end (SIGTERM); it ends its workers first")?;
    let ended = broker.end();
    shown?;
    ended?;
    say("all processes are gone")
}

/// Waits for one of the signals that ask for an end, or for the end of the terminal.
fn await_end(signals: &SigSet) {
    loop {
        // An error is a signal without a name: a real-time one.
        if let Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT | Signal::SIGHUP) =
            signals.wait()
        {
            return;
        }
    }
}

fn tour(broker: &Broker, folder: &Path) -> Step {
    let mut op = Op { caller: broker.login("op")?, address: broker.address.clone() };
    let (echo, pipe) = (sample(folder, "isdecho")?, sample(folder, "isdpipe")?);
    op.run("config events 1000")?;
    op.run("config service echo")?;
    op.run(&format!("config worker echo localhost {}", echo.display()))?;
    op.run("clone 1")?;
    op.run("config service upper")?;
    op.run(&format!("config worker upper localhost {} tr a-z A-Z", pipe.display()))?;
    op.run("start all")?;
    broker.await_idle(&mut op, 3)?;

    let mut caller = broker.login("upper")?;
    let answer = caller.call("any program can be a worker", Some(TIMEOUT))?;
    say("\n# a request to the command line 'tr a-z A-Z', through the library")?;
    say(format!("  → {}", String::from_utf8_lossy(&answer)))?;
    let answer = broker.login("nosuch").err().map_or_else(String::new, |error| error.to_string());
    say("# a request to a service that does not exist")?;
    say(format!("  → {answer}\n"))?;

    kill_under_load(broker, &mut op)?;
    op.run("deaths")?;
    say("")?;
    restart_under_load(broker, &mut op)?;
    op.run("scale echo 3")?;
    broker.await_idle(&mut op, 4)?;
    op.run("services")?;
    op.run("workers")?;
    op.run("latency")?;
    op.run("listevents 20 kind=worker_died kind=worker_start kind=worker_ready")?;
    say("")
}

/// The requests of one client, counted by outcome.
type Outcomes = BTreeMap<String, u64>;

/// Kills worker 1 with SIGKILL while four clients send requests; once more if the first kill hit it
/// idle.
fn kill_under_load(broker: &Broker, op: &mut Op) -> Step {
    say(format!(
        "# {CLIENTS} clients ask 'echo' as fast as they can; worker 1 is killed with SIGKILL"
    ))?;
    for _ in 0..5 {
        let ((pid, back), outcomes) = under_load(broker, || kill_one(op))?;
        say(format!(
            "  worker 1 (pid {pid}) was killed; its replacement was ready {:.1} ms later",
            back.as_secs_f64() * 1e3
        ))?;
        say_all(&outcomes)?;
        broker.await_idle(op, 3)?;
        if outcomes.len() > 1 {
            return say("");
        }
        say("  (it was idle at that moment: nobody lost anything. Once more.)")?;
    }
    say("")
}

/// Starts new processes of all workers of 'echo' while four clients send requests.
fn restart_under_load(broker: &Broker, op: &mut Op) -> Step {
    say(format!("# {CLIENTS} clients go on asking; every process is replaced by a new one"))?;
    let ((), outcomes) = under_load(broker, || op.run("restart echo"))?;
    say_all(&outcomes)?;
    say("")
}

fn say_all(outcomes: &Outcomes) -> Step {
    outcomes.iter().try_for_each(|(what, count)| say(format!("  {count:>8} × {what}")))
}

/// What something comes to while four clients ask 'echo' as fast as they can, and what these got.
fn under_load<T>(broker: &Broker, act: impl FnOnce() -> Step<T>) -> Step<(T, Outcomes)> {
    let is_over = Arc::new(AtomicBool::new(false));
    let callers = (0..CLIENTS).map(|_| broker.login("echo")).collect::<Result<Vec<_>, _>>()?;
    let load: Vec<_> =
        callers.into_iter().map(|caller| start_load(caller, &is_over)).collect::<Result<_, _>>()?;
    let done = act();
    is_over.store(true, Ordering::Relaxed);
    let mut outcomes = Outcomes::new();
    for thread in load {
        for (what, count) in thread.join().unwrap_or_default() {
            *outcomes.entry(what).or_default() += count;
        }
    }
    Ok((done?, outcomes))
}

fn start_load(
    mut caller: Caller,
    is_over: &Arc<AtomicBool>,
) -> Step<std::thread::JoinHandle<Outcomes>> {
    let is_over = Arc::clone(is_over);
    let body = vec![b'x'; 64];
    let load = move || {
        let mut outcomes = Outcomes::new();
        while !is_over.load(Ordering::Relaxed) {
            let what = match caller.call(body.clone(), Some(TIMEOUT)) {
                Ok(answer) if answer == body => "answered, every byte right".to_owned(),
                Ok(_) => "answered WRONGLY".to_owned(),
                Err(error) if error.code == Code::Isect(ErrorCode::WorkerDied) => {
                    format!("told: {error}")
                }
                Err(error) => {
                    *outcomes.entry(format!("told: {error}")).or_default() += 1;
                    break;
                }
            };
            *outcomes.entry(what).or_default() += 1;
        }
        outcomes
    };
    Ok(std::thread::Builder::new().name("load".into()).spawn(load)?)
}

/// Kills worker 1; returns its process id, and the time until its replacement was ready.
#[expect(clippy::disallowed_methods, reason = "it shows how long it took")]
fn kill_one(op: &mut Op) -> Step<(i32, Duration)> {
    let wait = Instant::now();
    // Let the load run until the broker has counted 500 transactions.
    while op.field("worker 1", "worker->Transactions")? < 500 && wait.elapsed() < TIMEOUT {}
    let pid = i32::try_from(op.field("worker 1", "worker->hostpid")?).unwrap_or(0);
    if pid <= 1 {
        return Err(DemoError("worker 1 has no process to kill".into()));
    }
    let begun = Instant::now();
    kill(Pid::from_raw(pid), Signal::SIGKILL).map_err(io::Error::from)?;
    while begun.elapsed() < TIMEOUT {
        let page = op.ask("worker 1")?;
        let is_new =
            number(&page, "worker->hostpid").is_some_and(|new| new != i64::from(pid) && new != 0);
        if is_new && page.contains("worker->state = \"ready\"") {
            return Ok((pid, begun.elapsed()));
        }
    }
    Err(DemoError("worker 1 did not come back".into()))
}

fn number(page: &str, key: &str) -> Option<i64> {
    let line =
        page.lines().find(|line| line.starts_with(key) && line[key.len()..].starts_with(" = "))?;
    line[key.len() + 3..].parse().ok()
}

/// The operator's connection.
struct Op {
    caller: Caller,
    address: String,
}

impl Op {
    /// Runs a command and prints it as an operator would type it, with its answer.
    fn run(&mut self, command: &str) -> Step {
        say(format!("$ isdclient -h {} -c \"{command}\"", self.address))?;
        let answer = self.ask(command)?;
        say(answer.trim_end_matches('\n'))
    }

    fn ask(&mut self, command: &str) -> Step<String> {
        let answer = self.caller.call(command.to_owned(), Some(TIMEOUT))?;
        Ok(String::from_utf8_lossy(&answer).into_owned())
    }

    fn field(&mut self, command: &str, key: &str) -> Step<i64> {
        let page = self.ask(command)?;
        number(&page, key).ok_or_else(|| DemoError(format!("'{command}' does not show {key}")))
    }
}

/// The broker as a process of its own.
struct Broker {
    child: Child,
    address: String,
}

impl Broker {
    #[expect(
        clippy::disallowed_methods,
        reason = "the demonstration starts the broker as a user would"
    )]
    fn start(folder: &Path) -> Step<Self> {
        let ports = folder.join("ports.json");
        let mut child = Command::new(std::env::current_exe()?)
            .args(["--listen", "127.0.0.1:0", "--log", "error", "--state"])
            .arg(folder.join("state"))
            .arg("--ports-file")
            .arg(&ports)
            // Ctrl-C must reach only the demonstration, which then asks the broker to end.
            .process_group(0)
            .spawn()?;
        let begun = Instant::now();
        // The file is renamed into place, so it is whole when it exists.
        while begun.elapsed() < TIMEOUT {
            if let Some(status) = child.try_wait()? {
                return Err(DemoError(format!("the broker ended at the start: {status}")));
            }
            if let Ok(text) = std::fs::read_to_string(&ports) {
                let address = client_address(&text)
                    .ok_or_else(|| DemoError(format!("no client address in {text}")))?;
                return Ok(Self { child, address });
            }
            std::thread::yield_now();
        }
        let _ = child.kill();
        Err(DemoError("the broker did not write its ports file".into()))
    }

    fn login(&self, service: &str) -> Result<Caller, Error> {
        let name = ServiceName::new(service)
            .map_err(|e| Error::new(ErrorCode::BadLogin, e.to_string()))?;
        Caller::login(&[Address::parse(&self.address)?], Options::new(name))
    }

    /// Waits until that many workers are idle.
    #[expect(clippy::disallowed_methods, reason = "it waits for the thing itself, with a limit")]
    fn await_idle(&self, op: &mut Op, count: i64) -> Step {
        let begun = Instant::now();
        while op.field("", "isdData.IdleWorkers     ")? < count {
            if begun.elapsed() > TIMEOUT {
                return Err(DemoError(format!(
                    "the workers did not become idle:\n{}",
                    op.ask("workers")?
                )));
            }
        }
        Ok(())
    }

    /// Asks the broker to end and waits until it has.
    fn end(&mut self) -> Step {
        if let Ok(pid) = i32::try_from(self.child.id()) {
            kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(io::Error::from)?;
        }
        let status = self.child.wait()?;
        if status.success() {
            Ok(())
        } else {
            Err(DemoError(format!("the broker ended with {status}")))
        }
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // Only after an error; otherwise the broker has ended already.
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.end();
        }
    }
}

fn client_address(ports: &str) -> Option<String> {
    let ports: Value = serde_json::from_str(ports).ok()?;
    ports["client"].as_str().map(str::to_owned)
}

/// A sample worker: the installed one beside this program, else this program under that name.
fn sample(folder: &Path, name: &str) -> Step<PathBuf> {
    let own = std::env::current_exe()?;
    let beside = own.with_file_name(name);
    if beside.is_file() {
        return Ok(beside);
    }
    let link = folder.join(name);
    std::os::unix::fs::symlink(own, &link)?;
    Ok(link)
}

/// A directory that is removed at the end.
struct Folder(PathBuf);

impl Folder {
    fn new() -> Step<Self> {
        let name = format!("isect-demo-{}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::create_dir(&path)?;
        Ok(Self(path))
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = std::fs::remove_dir_all(&self.0);
    }
}
