//! fork and exec: a session and group of its own, default signals, nothing inherited but three
//! streams, a clean environment, never a shell; and the few calls that nix does not have. The only
//! file with `unsafe`. Not whether the program may run: `check`.

use super::check::{Refusal, explain};
use nix::errno::Errno;
use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::libc;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::Mode;
use nix::unistd::pipe2;
use protocol::bodies::{Ending, ExecStart};
use protocol::limits::BADGE_VARIABLE;
use std::ffi::{CString, OsString, c_char};
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::ptr;

/// What children get of execd's own environment; whatever else is there stays with execd.
const KEPT: &[&str] = &[
    "PATH", "HOME", "USER", "LOGNAME", "SHELL", "LANG", "LANGUAGE", "LC_ALL", "LC_CTYPE", "TZ",
    "TMPDIR",
];

/// What a child gets for `PATH` if execd has none.
const PATH_DEFAULT: &str = "PATH=/usr/local/bin:/usr/bin:/bin";

/// What is the same for all children.
#[derive(Debug)]
pub(super) struct Recipe {
    directory: PathBuf,
    environment: Vec<CString>,
    files_soft: libc::rlim_t,
    files_hard: libc::rlim_t,
    /// The children's streams stay open when execd dies, so that the next one can read on.
    outlives: bool,
}

/// A process that was just started.
#[derive(Debug)]
pub(super) struct Spawned {
    /// Its process id, and that of its session and group.
    pub(super) pid: u32,
    /// What it writes to stdout.
    pub(super) stdout: OwnedFd,
    /// What it writes to stderr.
    pub(super) stderr: OwnedFd,
}

impl Recipe {
    /// Raises execd's own descriptor limit as far as it goes; children get the old one.
    pub(super) fn new(directory: PathBuf, pass_env: &[String], outlives: bool) -> io::Result<Self> {
        let (files_soft, files_hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
        setrlimit(Resource::RLIMIT_NOFILE, files_hard, files_hard)?;
        let names = KEPT.iter().copied().chain(pass_env.iter().map(String::as_str));
        let mut environment: Vec<CString> = names
            .filter(|name| *name != BADGE_VARIABLE)
            .filter_map(|name| {
                let mut pair = OsString::from(name);
                pair.push("=");
                pair.push(std::env::var_os(name)?);
                CString::new(pair.into_vec()).ok()
            })
            .collect();
        if !environment.iter().any(|pair| pair.to_bytes().starts_with(b"PATH=")) {
            environment.extend(CString::new(PATH_DEFAULT));
        }
        Ok(Self { directory, environment, files_soft, files_hard, outlives })
    }

    /// Descriptors that execd may have.
    pub(super) fn files_max(&self) -> u64 {
        self.files_hard
    }
}

/// The arguments of `execve`, made before the fork because nothing may be allocated after it.
struct Image {
    path: CString,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// What the pointers point into.
    _texts: Vec<CString>,
}

#[expect(unsafe_code, reason = "raw pointers are not Send and Sync by themselves")]
// SAFETY: the pointers point into heap memory of `_texts`, which moves along and is never changed.
unsafe impl Send for Image {}
#[expect(unsafe_code, reason = "raw pointers are not Send and Sync by themselves")]
// SAFETY: as above; it is only read.
unsafe impl Sync for Image {}

impl Image {
    fn new(recipe: &Recipe, start: &ExecStart) -> Result<Self, Refusal> {
        let nul = |_| (true, "a NUL byte is in the path, an argument or the secret".to_owned());
        let text = |text: &str| CString::new(text).map_err(nul);
        let path = text(&start.path)?;
        let mut texts = vec![path.clone()];
        for arg in &start.args {
            texts.push(text(arg)?);
        }
        let args_count = texts.len();
        texts.extend(recipe.environment.iter().cloned());
        if !start.secret.is_empty() {
            texts.push(text(&format!("{BADGE_VARIABLE}={}", start.secret))?);
        }
        let list = |texts: &[CString]| -> Vec<*const c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
        };
        let (argv, envp) = (list(&texts[..args_count]), list(&texts[args_count..]));
        Ok(Self { path, argv, envp, _texts: texts })
    }

    /// Becomes the program; comes back only with an error. Not the `execvp` of the C library: that
    /// gives a file which is no program to a shell.
    fn exec(&self) -> io::Error {
        #[expect(unsafe_code, reason = "nix's execve allocates, which a forked child may not")]
        // SAFETY: path, argv and envp are NUL-terminated and outlive the call; both lists end in
        // null.
        unsafe {
            libc::execve(self.path.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
        }
        io::Error::last_os_error()
    }
}

/// Starts a program that `check` has passed.
pub(super) fn spawn(recipe: &Recipe, start: &ExecStart) -> Result<Spawned, Refusal> {
    let path = Path::new(&start.path);
    let image = Image::new(recipe, start)?;
    let refused = |errno: Errno| explain(path, &io::Error::from(errno));
    let (stdout, child_stdout) = stream(recipe.outlives).map_err(refused)?;
    let (stderr, child_stderr) = stream(recipe.outlives).map_err(refused)?;
    let (soft, hard) = (recipe.files_soft, recipe.files_hard);

    #[expect(clippy::disallowed_methods, reason = "execd is the one that starts programs")]
    let mut command = Command::new(&start.path);
    command
        .stdin(Stdio::null())
        .stdout(Stdio::from(child_stdout))
        .stderr(Stdio::from(child_stderr))
        .current_dir(&recipe.directory);
    #[expect(unsafe_code, reason = "session, signals and limits are set between fork and exec")]
    // SAFETY: between fork and exec only async-signal-safe calls are made: nothing is allocated, no
    // lock is taken; `image` was made before the fork.
    unsafe {
        command.pre_exec(move || {
            before_exec(soft, hard)?;
            Err(image.exec())
        });
    }
    let child = command.spawn().map_err(|error| {
        if recipe.directory.is_dir() {
            explain(path, &error)
        } else {
            let directory = recipe.directory.display();
            (false, format!("the working directory {directory} is gone: {error}"))
        }
    })?;
    Ok(Spawned { pid: child.id(), stdout, stderr })
}

/// A pipe: the end that execd reads (non-blocking) and the one that the child writes.
///
/// If the child outlives execd, its end is opened for reading too: then its pipe never breaks, it
/// gets no SIGPIPE, and the next execd opens the pipe again through /proc. Until that reads, the
/// child can write what fits into a pipe (64 KiB), then it waits.
fn stream(outlives: bool) -> nix::Result<(OwnedFd, OwnedFd)> {
    let (read, mut write) = pipe2(OFlag::O_CLOEXEC)?;
    if outlives {
        let path = format!("/proc/self/fd/{}", write.as_raw_fd());
        write = open(path.as_str(), OFlag::O_RDWR | OFlag::O_CLOEXEC, Mode::empty())?;
    }
    fcntl(&read, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok((read, write))
}

/// Makes the forked child a process of its own: session, signals, descriptors, umask, limits.
fn before_exec(files_soft: libc::rlim_t, files_hard: libc::rlim_t) -> io::Result<()> {
    nix::unistd::setsid()?;
    #[expect(unsafe_code, reason = "nix has no call that resets all signals")]
    // SAFETY: signal, sigemptyset, sigprocmask, umask and close_range are async-signal-safe; the
    // set is initialised by sigemptyset before it is used.
    unsafe {
        for signal in 1..=64 {
            // KILL, STOP and two that belong to the C library refuse; that is as it should be.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::umask(0o022);
        // Whatever else is open here closes at the exec. The pipe through which a failed exec is
        // reported must stay open until then, hence a mark instead of a close. An old kernel
        // refuses; execd's own descriptors all have the mark anyway.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    setrlimit(Resource::RLIMIT_NOFILE, files_soft, files_hard)?;
    Ok(())
}

/// A process that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reaped {
    /// How it ended.
    pub(super) ending: Ending,
    /// Processor time in milliseconds, user and system, with what it waited for itself.
    pub(super) cpu_ms: u64,
    /// Largest resident size.
    pub(super) rss_kib_max: u64,
}

/// A child of execd that has ended and is not reaped yet: its process id can't be anyone else's.
pub(super) fn next_dead() -> Option<i32> {
    #[expect(unsafe_code, reason = "nix's waitid fails on the real-time signals")]
    // SAFETY: siginfo_t is plain data that the kernel fills in; zero is a valid value of it, and
    // si_pid stays zero if no child has ended.
    let pid = unsafe {
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let flags = libc::WEXITED | libc::WNOHANG | libc::WNOWAIT;
        if libc::waitid(libc::P_ALL, 0, &raw mut info, flags) == -1 {
            return None;
        }
        info.si_pid()
    };
    (pid > 0).then_some(pid)
}

/// Reaps a child that [`next_dead`] has named.
pub(super) fn reap(pid: i32) -> Option<Reaped> {
    let mut status = 0;
    #[expect(unsafe_code, reason = "nix has no wait4")]
    // SAFETY: status and usage are plain data that the kernel fills in; zero is a valid value.
    let (reaped, usage) = unsafe {
        let mut usage: libc::rusage = std::mem::zeroed();
        let reaped = libc::wait4(pid, &raw mut status, libc::WNOHANG, &raw mut usage);
        (reaped, usage)
    };
    if reaped != pid {
        return None;
    }
    let ending = if libc::WIFEXITED(status) {
        Ending::Exit(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        Ending::Signal(libc::WTERMSIG(status))
    } else {
        Ending::Unknown
    };
    let millis = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1000)
            + u64::try_from(time.tv_usec).unwrap_or(0) / 1000
    };
    Some(Reaped {
        ending,
        cpu_ms: millis(usage.ru_utime).saturating_add(millis(usage.ru_stime)),
        rss_kib_max: u64::try_from(usage.ru_maxrss).unwrap_or(0),
    })
}

/// A descriptor that becomes readable when a process that is not a child of execd ends.
pub(super) fn watch(pid: u32) -> nix::Result<OwnedFd> {
    #[expect(unsafe_code, reason = "nix has no pidfd_open")]
    // SAFETY: pidfd_open takes two numbers and gives a new descriptor (with CLOEXEC) or -1, which
    // is sorted out before it is owned.
    unsafe {
        let fd = Errno::result(libc::syscall(libc::SYS_pidfd_open, pid, 0))?;
        let fd = i32::try_from(fd).map_err(|_| Errno::EBADF)?;
        Ok(OwnedFd::from_raw_fd(fd))
    }
}

/// Sends a signal by number to a process (positive) or a group (negative): nix's enum lacks the
/// real-time signals.
pub(super) fn send_signal(target: i32, signal: i32) -> nix::Result<()> {
    #[expect(unsafe_code, reason = "nix's kill takes no real-time signals")]
    // SAFETY: kill takes two numbers and touches no memory.
    let result = unsafe { libc::kill(target, signal) };
    Errno::result(result).map(|_| ())
}

/// Undoes an inherited "ignore" of SIGCHLD, with which the kernel would reap the children itself.
pub(super) fn default_sigchld() {
    #[expect(unsafe_code, reason = "nix's signal() is unsafe as well")]
    // SAFETY: the default disposition runs no code of ours.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}
