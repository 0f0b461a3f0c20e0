//! One run of the program of `isdpipe`: started in its own process group, fed and read at the same
//! time, ended with everything it left behind.

use crate::error::Error;
use crate::worker::{Request, Worker};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::signal::{SigSet, Signal, killpg};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Pid;
use protocol::limits::{TOKEN_FILE_VARIABLE, TOKEN_VARIABLE, WORKER_SECRET_VARIABLE};
use std::ffi::OsString;
use std::io::{self, Read, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::Path;
use std::process::{ChildStderr, ChildStdin, ChildStdout, Command, ExitCode, ExitStatus, Stdio};
use sys::stderr::{LAST_WORDS_TIME, Stderr, last_words};

/// First argument of this program when it will become the program of the worker.
const BECOME: &str = "--become";

/// Most bytes of stderr that go to the client.
const TAIL_BYTES_MAX: usize = 4096;

/// Bytes of one read from the program.
const CHUNK_BYTES: usize = 64 * 1024;

/// Looks for the program as a shell would, once, so that a wrong name fails at the start and not at
/// the first request. Returns its path.
pub(crate) fn find(command: &[String]) -> Result<String, String> {
    let Some(name) = command.first() else {
        return Err("it is not said which program to run".to_owned());
    };
    let runs = |path: &Path| {
        path.metadata().is_ok_and(|m| m.is_file() && m.permissions().mode() & 0o111 != 0)
    };
    if name.contains('/') {
        let good = runs(Path::new(name));
        return if good { Ok(name.clone()) } else { Err(format!("'{name}' is no program to run")) };
    }
    let dirs = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&dirs)
        .map(|dir| dir.join(name))
        .find(|path| runs(path))
        .and_then(|path| path.into_os_string().into_string().ok())
        .ok_or_else(|| format!("no program '{name}' in PATH ({})", dirs.display()))
}

/// Runs between fork and exec, as a second start of this program: asks the kernel for a signal when
/// the worker dies (which needs no unsafe code here), then becomes the program. `None` = this is
/// the worker itself.
#[expect(clippy::disallowed_methods, reason = "exec of the operator's program is what this is for")]
pub(crate) fn become_program(args: Vec<OsString>) -> Option<ExitCode> {
    let (first, rest) = (args.get(1)?, args.get(2..)?);
    if first != BECOME {
        return None;
    }
    let [parent, program, rest @ ..] = rest else { return Some(ExitCode::from(126)) };
    #[cfg(target_os = "linux")]
    if let Err(e) = nix::sys::prctl::set_pdeathsig(Signal::SIGKILL) {
        last_words(&format!("can't tie the program to its worker: {e}"));
        return Some(ExitCode::from(126));
    }
    if Pid::parent().to_string() != parent.to_string_lossy() {
        return Some(ExitCode::from(126));
    }
    let why = Command::new(program).args(rest).exec();
    last_words(&format!("can't run '{}': {why}", program.display()));
    Some(ExitCode::from(if why.kind() == io::ErrorKind::NotFound { 127 } else { 126 }))
}

/// What the program waits for.
pub(crate) enum Step {
    /// It waits for the next piece of the request.
    Hungry,
    /// It has ended.
    Ended(Ended),
}

/// How the program ended.
pub(crate) struct Ended {
    /// 0, its exit status, or 128 plus the signal.
    pub(crate) code: i16,
    /// The end of its stderr, or the status in words.
    pub(crate) text: String,
}

/// The running program.
pub(crate) struct Child {
    /// Output that was not sent yet.
    pub(crate) out: Vec<u8>,
    process: std::process::Child,
    stdin: Option<ChildStdin>,
    stdout: Option<ChildStdout>,
    stderr: Option<ChildStderr>,
    tail: Vec<u8>,
    own_stderr: Stderr,
    chunk: Vec<u8>,
    request: Request,
    signals: Signals,
    is_reaped: bool,
    is_unheard: bool,
}

/// Receives signals that would end the worker while a program runs, so that the program ends first.
struct Signals {
    set: SigSet,
    fd: SignalFd,
}

impl Signals {
    fn hold() -> nix::Result<Self> {
        let mut set = SigSet::empty();
        // All signals that end a process by default.
        for signal in [
            Signal::SIGTERM,
            Signal::SIGINT,
            Signal::SIGHUP,
            Signal::SIGQUIT,
            Signal::SIGUSR1,
            Signal::SIGUSR2,
            Signal::SIGALRM,
            Signal::SIGVTALRM,
            Signal::SIGPROF,
            Signal::SIGIO,
            Signal::SIGPWR,
            Signal::SIGXCPU,
            Signal::SIGCHLD,
        ] {
            set.add(signal);
        }
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        set.thread_block()?;
        Ok(Self { set, fd })
    }
}

impl Drop for Signals {
    fn drop(&mut self) {
        // Signals that are still pending take effect here.
        let _ = self.set.thread_unblock();
    }
}

impl Child {
    /// Starts the program.
    #[expect(clippy::disallowed_methods, reason = "to start the operator's program is its purpose")]
    pub(crate) fn start(
        command: &[String],
        request: &Request,
        worker: &Worker,
        own_stderr: &Stderr,
    ) -> io::Result<Self> {
        let signals = Signals::hold()?;
        let mut process = Command::new("/proc/self/exe")
            .arg0("isdpipe")
            .arg(BECOME)
            .arg(Pid::this().to_string())
            .args(command)
            .env_remove(WORKER_SECRET_VARIABLE)
            .env_remove(TOKEN_VARIABLE)
            .env_remove(TOKEN_FILE_VARIABLE)
            .env("ISECT_SERVICE", worker.service().as_str())
            .env("ISECT_TRANSACTION", request.transaction().to_string())
            .env("ISECT_ATTEMPT", request.attempt().to_string())
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()?;
        let child = Self {
            out: Vec::new(),
            stdin: process.stdin.take(),
            stdout: process.stdout.take(),
            stderr: process.stderr.take(),
            process,
            tail: Vec::new(),
            own_stderr: own_stderr.clone(),
            chunk: vec![0; CHUNK_BYTES],
            request: request.clone(),
            signals,
            is_reaped: false,
            is_unheard: false,
        };
        for fd in [
            child.stdin.as_ref().map(AsFd::as_fd),
            child.stdout.as_ref().map(AsFd::as_fd),
            child.stderr.as_ref().map(AsFd::as_fd),
        ] {
            fcntl(fd.ok_or(io::ErrorKind::BrokenPipe)?, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
        }
        Ok(child)
    }

    /// Writes `input` to the program and reads its output meanwhile. Without `more` it closes the
    /// program's stdin and waits for its end.
    pub(crate) fn feed(
        &mut self,
        mut input: &[u8],
        more: bool,
        worker: &mut Worker,
    ) -> Result<Step, Error> {
        loop {
            if input.is_empty() && more {
                return Ok(Step::Hungry);
            }
            if input.is_empty() {
                self.stdin = None;
            }
            if self.is_late() {
                self.kill();
                let text = "killed: the request's deadline passed".to_owned();
                return Ok(Step::Ended(Ended { code: 128 + 9, text }));
            }
            // Also while the program writes nothing.
            self.is_unheard = worker.is_over();
            if let Err(e) = self.wait(!input.is_empty(), worker) {
                self.kill();
                let text = format!("lost sight of the program: {e}");
                return Ok(Step::Ended(Ended { code: 126, text }));
            }
            let done = match self.stdin.as_mut().map(|stdin| stdin.write(input)) {
                Some(Ok(size)) => size,
                Some(Err(e)) if is_later(&e) => 0,
                // The program reads no further; the rest is dropped.
                Some(Err(_)) | None => {
                    self.stdin = None;
                    input.len()
                }
            };
            input = &input[done..];
            self.take_output(worker)?;
            if self.is_unheard {
                self.kill();
                let text = "killed: nobody waits for its output any more".to_owned();
                return Ok(Step::Ended(Ended { code: 128 + 9, text }));
            }
            if let Some(ended) = self.look(worker)? {
                return Ok(Step::Ended(ended));
            }
        }
    }

    /// Waits until something can be done: input is taken, output is there, a signal comes, the
    /// deadline passes, the broker says something.
    fn wait(&self, feeding: bool, worker: &Worker) -> nix::Result<()> {
        if self.is_unheard {
            return Ok(());
        }
        let stdin = self.stdin.as_ref().filter(|_| feeding);
        let mut fds = vec![PollFd::new(self.signals.fd.as_fd(), PollFlags::POLLIN)];
        fds.extend(stdin.map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLOUT)));
        fds.extend(self.stdout.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        fds.extend(self.stderr.as_ref().map(|fd| PollFd::new(fd.as_fd(), PollFlags::POLLIN)));
        fds.extend(worker.descriptor().map(|fd| PollFd::new(fd, PollFlags::POLLIN)));
        let timeout = match self.request.remaining() {
            None => PollTimeout::NONE,
            Some(left) => PollTimeout::try_from(left.as_millis() + 1).unwrap_or(PollTimeout::MAX),
        };
        match poll(&mut fds, timeout) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(e),
        }
    }

    /// Reads what the program has written. Output of more than one frame is sent at once, in
    /// pieces. Returns whether there may be more; it must not stay here for a program that writes
    /// without end.
    fn take_output(&mut self, worker: &mut Worker) -> Result<bool, Error> {
        let mut is_more = false;
        if let Some(size) = read(&mut self.stdout, &mut self.chunk) {
            is_more = true;
            self.out.extend_from_slice(&self.chunk[..size]);
            while self.out.len() > worker.body_bytes_max() {
                let rest = self.out.split_off(worker.body_bytes_max());
                worker.reply_piece(std::mem::replace(&mut self.out, rest))?;
                self.is_unheard = worker.is_over();
            }
        }
        if let Some(size) = read(&mut self.stderr, &mut self.chunk) {
            is_more = true;
            // The operator sees it as this worker's own stderr, if somebody reads that.
            self.own_stderr.put(&self.chunk[..size]);
            self.tail.extend_from_slice(&self.chunk[..size]);
            let over = self.tail.len().saturating_sub(TAIL_BYTES_MAX);
            self.tail.drain(..over);
        }
        Ok(is_more)
    }

    /// Checks whether the program has ended, and whether somebody asked this worker to end.
    fn look(&mut self, worker: &mut Worker) -> Result<Option<Ended>, Error> {
        while let Ok(Some(signal)) = self.signals.fd.read_signal() {
            if signal.ssi_signo != Signal::SIGCHLD as u32 {
                self.kill();
                self.own_stderr.flush_within(LAST_WORDS_TIME);
                let number = i32::try_from(signal.ssi_signo).unwrap_or(15);
                std::process::exit(128 + number);
            }
        }
        let pid = self.pid();
        let flags = WaitPidFlag::WEXITED | WaitPidFlag::WNOHANG | WaitPidFlag::WNOWAIT;
        if matches!(waitid(Id::Pid(pid), flags), Ok(WaitStatus::StillAlive)) {
            return Ok(None);
        }
        let status = self.end();
        // A process that left the group may go on writing; it is read until the deadline at most.
        while self.take_output(worker)? && !self.is_late() {}
        Ok(Some(self.ended(status)))
    }

    fn ended(&self, status: io::Result<ExitStatus>) -> Ended {
        let (code, words) = match status {
            Ok(status) => match (status.code(), status.signal()) {
                (Some(code), _) => (code, format!("exit status {code}")),
                (None, Some(signal)) => (128 + signal, format!("killed by signal {signal}")),
                (None, None) => (126, "ended nobody knows how".to_owned()),
            },
            Err(e) => (126, format!("lost sight of the program: {e}")),
        };
        let tail = String::from_utf8_lossy(&self.tail);
        let text = if tail.trim().is_empty() { words } else { tail.trim_end().to_owned() };
        Ended { code: i16::try_from(code).unwrap_or(i16::MAX), text }
    }

    fn is_late(&self) -> bool {
        self.request.remaining().is_some_and(|left| left.is_zero())
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(i32::try_from(self.process.id()).unwrap_or(0))
    }

    fn kill(&mut self) {
        drop(self.end());
    }

    /// Ends what is left of the program's process group, and waits for the program. Until that wait
    /// nobody else can have the group's number.
    fn end(&mut self) -> io::Result<ExitStatus> {
        if !self.is_reaped && self.pid().as_raw() > 0 {
            let _ = killpg(self.pid(), Signal::SIGKILL);
            self.is_reaped = true;
        }
        self.process.wait()
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.kill();
    }
}

fn is_later(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted)
}

/// Reads once without waiting; `None` = nothing is there now. At the end it drops the pipe.
fn read(pipe: &mut Option<impl Read>, chunk: &mut [u8]) -> Option<usize> {
    match pipe.as_mut()?.read(chunk) {
        Ok(0) => {
            *pipe = None;
            None
        }
        Ok(size) => Some(size),
        Err(e) if is_later(&e) => None,
        Err(_) => {
            *pipe = None;
            None
        }
    }
}
