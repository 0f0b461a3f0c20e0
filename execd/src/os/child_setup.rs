//! What a forked child does before it becomes the program: session, signals, limits, user, rights,
//! directory, then the exec. No allocation and no lock here, because other threads may hold a lock
//! at the fork. `check` decides which program; `spawn` and `launch` have the fork and the answer to
//! execd.

use super::user::Account;
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::{
    ROOT, chdir, fchdir, getresgid, getresuid, setgroups, setresgid, setresuid, setsid, setuid,
};
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use std::ptr;
use sys::processes::drop_capabilities;

/// A step between fork and exec that failed; the child sends it to execd with the error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// `setsid`.
    Session = 1,
    /// The resource limits.
    Limits,
    /// Groups and user.
    User,
    /// `no_new_privs` and the ambient capabilities.
    Rights,
    /// The nice value.
    Nice,
    /// The working directory.
    Directory,
    /// `execve`, or `execveat` for a binary.
    Exec,
}

const STEP_SHIFT: u32 = 16;

impl Step {
    const ALL: [Self; 7] = [
        Self::Session,
        Self::Limits,
        Self::User,
        Self::Rights,
        Self::Nice,
        Self::Directory,
        Self::Exec,
    ];

    fn failed(self, errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno as i32 | ((self as i32) << STEP_SHIFT))
    }

    /// The step and the error number of a child that did not become the program; `None` = the fork
    /// itself failed.
    pub(super) fn of(error: &io::Error) -> (Option<Self>, io::Error) {
        let Some(code) = error.raw_os_error() else {
            return (None, io::Error::new(error.kind(), error.to_string()));
        };
        let step = Self::ALL.into_iter().find(|step| *step as i32 == code >> STEP_SHIFT);
        (step, io::Error::from_raw_os_error(code & ((1 << STEP_SHIFT) - 1)))
    }
}

/// A resource limit: which one, soft and hard.
pub(super) type Limit = (Resource, libc::rlim_t, libc::rlim_t);

/// What every child gets.
#[derive(Clone, Debug)]
pub(super) struct ChildAttributes {
    /// Resource limits.
    pub(super) limits: Vec<Limit>,
    /// The user it runs as; `None` = execd's own user.
    pub(super) account: Option<Account>,
    /// The working directory.
    pub(super) directory: CString,
    /// The umask: permission bits that new files don't get.
    pub(super) umask: libc::mode_t,
    /// Whether it is scheduled as `SCHED_BATCH`.
    pub(super) batch: bool,
    /// The nice value; `None` = execd's own.
    pub(super) nice: Option<i32>,
}

/// The program and the arguments of its exec.
pub(super) struct Image {
    /// The file that was checked.
    fd: OwnedFd,
    /// The resolved path of the file when it was checked.
    real: CString,
    /// Whether an interpreter opens the file again by its path.
    is_script: bool,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// Owns what the pointers point to.
    _texts: Vec<CString>,
}

impl Image {
    /// An image of this program with its arguments and its environment.
    pub(super) fn new(
        program: super::check::Program,
        args: Vec<CString>,
        environment: Vec<CString>,
    ) -> Self {
        let args_count = args.len();
        let mut texts = args;
        texts.extend(environment);
        let list = |texts: &[CString]| -> Vec<*const c_char> {
            texts.iter().map(|text| text.as_ptr()).chain([ptr::null()]).collect()
        };
        let (argv, envp) = (list(&texts[..args_count]), list(&texts[args_count..]));
        let super::check::Program { fd, real, is_script } = program;
        Self { fd, real, is_script, argv, envp, _texts: texts }
    }

    /// Becomes the program; returns only on an error. The file that was checked is executed through
    /// its descriptor, whatever its path leads to by now. A script can't be executed that way: the
    /// interpreter opens it by name, and `$0` must be useful. So a script is executed by its
    /// resolved path. Never through a shell, as `execvp` would.
    fn exec(&self) -> Errno {
        #[expect(unsafe_code, reason = "nix's execveat wants its lists made anew")]
        // SAFETY: real, the empty path, argv and envp are NUL-terminated and outlive the call; both
        // lists end in null; fd is open.
        unsafe {
            if !self.is_script {
                libc::syscall(
                    libc::SYS_execveat,
                    self.fd.as_raw_fd(),
                    c"".as_ptr(),
                    self.argv.as_ptr(),
                    self.envp.as_ptr(),
                    libc::AT_EMPTY_PATH,
                );
                // A foreign binary has an interpreter, too (binfmt_misc). The kernel reports it by
                // ENOENT, because the descriptor closes at the exec.
                if Errno::last() != Errno::ENOENT {
                    return Errno::last();
                }
            }
            libc::execve(self.real.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
        }
        Errno::last()
    }
}

/// Prepares the forked child, then becomes the program. Returns only on an error. A directory that
/// was opened before takes the place of the usual one.
pub(super) fn enter(
    attributes: &ChildAttributes,
    directory: Option<BorrowedFd<'_>>,
    image: &Image,
) -> io::Error {
    match before_exec(attributes, directory) {
        Ok(()) => Step::Exec.failed(image.exec()),
        Err(error) => error,
    }
}

fn before_exec(attributes: &ChildAttributes, directory: Option<BorrowedFd<'_>>) -> io::Result<()> {
    setsid().map_err(|errno| Step::Session.failed(errno))?;
    #[expect(unsafe_code, reason = "nix has no call that resets all signals")]
    // SAFETY: signal, sigemptyset, sigprocmask, umask and close_range are async-signal-safe; the
    // set is initialised by sigemptyset before it is used.
    unsafe {
        for signal in 1..=64 {
            // KILL, STOP and two signals of the C library refuse this, as they should.
            libc::signal(signal, libc::SIG_DFL);
        }
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        libc::sigprocmask(libc::SIG_SETMASK, &raw const none, ptr::null_mut());
        libc::umask(attributes.umask);
        // Other open descriptors close at the exec. The pipe that reports a failed exec must stay
        // open until then, so descriptors get the flag instead of being closed. An old kernel
        // refuses the call; execd's own descriptors all have the flag anyway.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    for (resource, soft, hard) in &attributes.limits {
        setrlimit(*resource, *soft, *hard).map_err(|errno| Step::Limits.failed(errno))?;
    }
    if attributes.batch {
        schedule_as_batch();
    }
    if let Some(account) = &attributes.account {
        become_user(account).map_err(|errno| Step::User.failed(errno))?;
    }
    // From here on setuid bits and file capabilities have no effect, for everything that follows.
    // Ambient capabilities that execd was given (AmbientCapabilities of a unit) stay with execd.
    prctl::set_no_new_privs().map_err(|errno| Step::Rights.failed(errno))?;
    #[expect(unsafe_code, reason = "nix has no call for ambient capabilities")]
    // SAFETY: prctl takes numbers here and touches no memory of ours.
    unsafe {
        let none: libc::c_ulong = 0;
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, none, none, none);
    }
    if let Some(nice) = attributes.nice {
        be_nice(nice).map_err(|errno| Step::Nice.failed(errno))?;
    }
    match directory {
        Some(directory) => fchdir(directory),
        None => chdir(attributes.directory.as_c_str()),
    }
    .map_err(|errno| Step::Directory.failed(errno))
}

/// Sets the nice value with the rights of the worker's user, so that it is raised only as far as
/// the host lets that user (`LimitNICE`), not as far as execd could.
fn be_nice(nice: i32) -> nix::Result<()> {
    #[expect(unsafe_code, reason = "nix has no setpriority")]
    // SAFETY: setpriority takes numbers and touches no memory.
    let result = unsafe { libc::setpriority(libc::PRIO_PROCESS, 0, nice) };
    Errno::result(result).map(|_| ())
}

/// Makes a woken worker wait until the running process pauses, instead of preempting it. On few
/// cores that process is often the broker while it hands out requests. Processes that the worker
/// starts are scheduled normally again. A policy that somebody chose for execd stays, and a refusal
/// is harmless.
fn schedule_as_batch() {
    #[expect(unsafe_code, reason = "nix has no sched_setscheduler")]
    // SAFETY: both are system calls, async-signal-safe; the parameter is plain data that is only
    // read.
    unsafe {
        let parameter = libc::sched_param { sched_priority: 0 };
        if libc::sched_getscheduler(0) == libc::SCHED_OTHER {
            let policy = libc::SCHED_BATCH | libc::SCHED_RESET_ON_FORK;
            libc::sched_setscheduler(0, policy, &raw const parameter);
        }
    }
}

/// Sets the groups first, while that is still allowed; then the real, effective and saved user;
/// then checks that there is no way back.
fn become_user(account: &Account) -> nix::Result<()> {
    let (uid, gid) = (account.uid, account.gid);
    setgroups(&account.groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
    // Root loses its capabilities by that. A user that was given some keeps them, and with them a
    // way back.
    if !uid.is_root() {
        drop_capabilities().map_err(|_| Errno::EPERM)?;
    }
    let (uids, gids) = (getresuid()?, getresgid()?);
    let is_all = uids.real == uid
        && uids.effective == uid
        && uids.saved == uid
        && gids.real == gid
        && gids.effective == gid
        && gids.saved == gid;
    if !is_all || (!uid.is_root() && setuid(ROOT).is_ok()) {
        return Err(Errno::EPERM);
    }
    Ok(())
}
