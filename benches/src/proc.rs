//! Starts, waits for and ends the processes of a round, so that none is left behind. Each one is
//! started through `isdbench run`, which pins it to a core and asks the kernel to kill it when the
//! bench dies for any reason.

use crate::clock;
use nix::libc;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sched::{CpuSet, sched_setaffinity};
use nix::sys::prctl::set_pdeathsig;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal, kill};
use nix::unistd::Pid;
use std::fs::File;
use std::io::Read;
use std::os::fd::AsFd;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdout, Command, Stdio};
use std::time::Duration;

/// How long a process may take to end in order.
const END_LIMIT: Duration = Duration::from_secs(5);
const LINE_BYTES_MAX: usize = 4096;

/// How a program is started.
#[derive(Clone, Debug)]
pub struct Start<'a> {
    /// Path of the program.
    pub program: &'a Path,
    /// Arguments, without the program's name.
    pub args: Vec<String>,
    /// The core it is put on, if any.
    pub core: Option<usize>,
    /// Where its stderr (and stdout, if it is not read) goes.
    pub log: &'a Path,
    /// Whether its stdout is read with [`Process::line`].
    pub talks: bool,
    /// Whether it is asked to end and waited for, because it has processes of its own.
    pub in_order: bool,
    /// How the kernel schedules it.
    pub scheduling: Scheduling,
}

/// How the kernel schedules a process.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Scheduling {
    /// As any other.
    #[default]
    Plain,
    /// `SCHED_BATCH`, as execd starts workers: when woken it pushes nobody aside.
    Batch,
    /// At nice 19: it has what the others leave.
    Niced,
}

/// A process that ends when this is dropped.
#[derive(Debug)]
pub struct Process {
    child: Child,
    stdout: Option<ChildStdout>,
    log: PathBuf,
    in_order: bool,
}

/// This program.
///
/// # Errors
/// The system does not say.
pub fn own_program() -> Result<PathBuf, String> {
    std::env::current_exe().map_err(|e| format!("own path: {e}"))
}

/// Runs this program with this command under callgrind until it ends, and returns how it ended.
///
/// # Errors
/// Valgrind is not installed, or can't be run.
pub fn callgrind(
    flags: &[&str],
    command: &[&str],
    log: &Path,
    limit: Duration,
) -> Result<String, String> {
    let valgrind =
        find_program("valgrind").ok_or("valgrind is not installed: apt-get install valgrind")?;
    let own = own_program()?.display().to_string();
    let mut args = vec!["--tool=callgrind".to_owned()];
    args.extend(flags.iter().chain(&[own.as_str()]).chain(command).map(|&arg| arg.to_owned()));
    let start = Start {
        program: &valgrind,
        args,
        core: None,
        log,
        talks: true,
        in_order: false,
        scheduling: Scheduling::Plain,
    };
    // It says nothing on stdout; its end is waited for.
    Ok(start.spawn()?.line(limit).err().unwrap_or_default())
}

/// The first of these that is an executable file in `PATH` or where Debian puts daemons.
#[expect(clippy::disallowed_methods, reason = "where programs are is the environment's")]
pub fn find_program(name: &str) -> Option<PathBuf> {
    let path = std::env::var("PATH").unwrap_or_default();
    path.split(':')
        .chain(["/usr/sbin", "/usr/local/sbin"])
        .map(|dir| Path::new(dir).join(name))
        .find(|file| file.is_file())
}

impl Start<'_> {
    /// Starts it.
    ///
    /// # Errors
    /// It can't be started, or its log can't be written.
    #[expect(clippy::disallowed_methods, reason = "the bench starts its peers here and only here")]
    pub fn spawn(&self) -> Result<Process, String> {
        let name = self.program.display();
        if !self.program.is_file() {
            return Err(format!("{name}: there is no such program"));
        }
        let log = File::options().create(true).append(true).open(self.log);
        let log = log.map_err(|e| format!("{}: {e}", self.log.display()))?;
        let out = log.try_clone().map_err(|e| e.to_string())?;
        let mut command = Command::new(own_program()?);
        command.arg("run");
        if let Some(core) = self.core {
            command.arg("--core").arg(core.to_string());
        }
        if self.in_order {
            command.arg("--in-order");
        }
        match self.scheduling {
            Scheduling::Plain => {}
            Scheduling::Batch => drop(command.args(["--scheduling", "batch"])),
            Scheduling::Niced => drop(command.args(["--scheduling", "niced"])),
        }
        command.arg("--").arg(self.program).args(&self.args);
        command.stdin(Stdio::null()).stderr(log);
        command.stdout(if self.talks { Stdio::piped() } else { out.into() });
        let mut child = command.spawn().map_err(|e| format!("{name}: {e}"))?;
        let stdout = child.stdout.take();
        Ok(Process { child, stdout, log: self.log.to_owned(), in_order: self.in_order })
    }
}

/// Becomes another program, as `isdbench run` does: on a core, and ended with its parent.
///
/// # Errors
/// Always, if it returns.
#[expect(clippy::disallowed_methods, reason = "the bench starts its peers here and only here")]
pub fn become_program(
    core: Option<usize>,
    in_order: bool,
    scheduling: Scheduling,
    words: &[String],
) -> String {
    let [program, args @ ..] = words else {
        return "no program is named".into();
    };
    let signal = if in_order { Signal::SIGTERM } else { Signal::SIGKILL };
    if let Err(error) = set_pdeathsig(signal) {
        return format!("prctl: {error}");
    }
    if let Err(error) = SigSet::all().thread_unblock() {
        return format!("signals: {error}");
    }
    if let Some(Err(error)) = core.map(pin) {
        return error;
    }
    if let Err(error) = schedule(scheduling) {
        return format!("scheduling: {error}");
    }
    format!("{program}: {}", Command::new(program).args(args).exec())
}

/// Has the kernel schedule this process so.
fn schedule(scheduling: Scheduling) -> nix::Result<()> {
    let result = match scheduling {
        Scheduling::Plain => 0,
        Scheduling::Batch => {
            let parameter = libc::sched_param { sched_priority: 0 };
            #[expect(unsafe_code, reason = "nix has no sched_setscheduler")]
            // SAFETY: the parameter is plain data that is only read.
            unsafe {
                libc::sched_setscheduler(0, libc::SCHED_BATCH, &raw const parameter)
            }
        }
        Scheduling::Niced => {
            #[expect(unsafe_code, reason = "nix has no setpriority")]
            // SAFETY: setpriority takes numbers.
            unsafe {
                libc::setpriority(libc::PRIO_PROCESS, 0, 19)
            }
        }
    };
    nix::errno::Errno::result(result).map(drop)
}

/// Puts this process, and those that it starts from now on, on one core.
///
/// # Errors
/// There is no such core.
pub fn pin(core: usize) -> Result<(), String> {
    let mut set = CpuSet::new();
    set.set(core)
        .and_then(|()| sched_setaffinity(Pid::from_raw(0), &set))
        .map_err(|e| format!("core {core}: {e}"))
}

/// Lets this process, and those that it starts, have as many descriptors as the system allows.
///
/// # Errors
/// The system refuses.
pub fn raise_descriptors() -> Result<(), String> {
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(|e| format!("descriptors: {e}"))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(|e| format!("descriptors: {e}"))
}

impl Process {
    /// The process id; valid until the process is waited for.
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it still runs.
    ///
    /// # Errors
    /// It ended; the last of its log.
    pub fn check(&mut self) -> Result<(), String> {
        match self.child.try_wait() {
            Ok(None) => Ok(()),
            Ok(Some(status)) => Err(format!("it ended with {status}: {}", self.last_words())),
            Err(error) => Err(error.to_string()),
        }
    }

    fn last_words(&self) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let from = text.len().saturating_sub(2000);
        String::from_utf8_lossy(&text[from..]).trim().to_owned()
    }

    /// The next line of its stdout.
    ///
    /// # Errors
    /// It ended, or said nothing in time.
    pub fn line(&mut self, limit: Duration) -> Result<String, String> {
        let end = clock::now() + limit;
        let mut text = Vec::new();
        while text.last() != Some(&b'\n') {
            let Some(stdout) = &mut self.stdout else {
                return Err("its output is not read".into());
            };
            let left = end.saturating_duration_since(clock::now()).as_millis();
            let left = PollTimeout::from(u16::try_from(left).unwrap_or(u16::MAX));
            let mut fds = [PollFd::new(stdout.as_fd(), PollFlags::POLLIN)];
            match poll(&mut fds, left) {
                Ok(0) if clock::now() >= end => {
                    return Err(format!("it said nothing within {} ms", limit.as_millis()));
                }
                // The wait of a call is shorter than a long limit.
                Ok(0) => continue,
                Ok(_) => {}
                Err(nix::errno::Errno::EINTR) => continue,
                Err(error) => return Err(format!("poll: {error}")),
            }
            let mut byte = [0];
            match stdout.read(&mut byte) {
                Ok(1) if text.len() < LINE_BYTES_MAX => text.push(byte[0]),
                Ok(0) => {
                    // Its status comes with its end.
                    let limit = Duration::from_secs(1);
                    return match clock::until("its end", limit, || Ok(self.check().err())) {
                        Ok(why) | Err(why) => Err(why),
                    };
                }
                Ok(_) => return Err("it wrote a line that is too long".into()),
                Err(error) => return Err(error.to_string()),
            }
        }
        Ok(String::from_utf8_lossy(&text).trim_end().to_owned())
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        if self.in_order
            && matches!(self.child.try_wait(), Ok(None))
            && let Ok(pid) = i32::try_from(self.child.id())
        {
            // If it is gone already, that is what was wanted.
            let _ = kill(Pid::from_raw(pid), Signal::SIGTERM);
            let child = &mut self.child;
            let _ = clock::until("its end", END_LIMIT, || {
                Ok(child.try_wait().map_err(|e| e.to_string())?.map(drop))
            });
        }
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
