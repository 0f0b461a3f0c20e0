//! What a forked child does before it becomes the program: session, signals, limits, user, rights,
//! directory; then the exec. No allocation and no lock here. Not which program: `check`; not the
//! fork and the way back to execd: `spawn`, `launch`.

use super::user::Account;
use nix::errno::Errno;
use nix::libc;
use nix::sys::prctl;
use nix::sys::resource::{Resource, setrlimit};
use nix::unistd::ROOT;
use nix::unistd::{chdir, getresgid, getresuid, setgroups, setresgid, setresuid, setsid, setuid};
use std::ffi::{CString, c_char};
use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::ptr;

/// Which step between fork and exec failed; travels to the parent above the error number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// A session of its own.
    Session = 1,
    /// The resource limits.
    Limits,
    /// Groups and user.
    User,
    /// No new rights through the exec.
    Rights,
    /// The working directory.
    Directory,
    /// The exec itself.
    Exec,
}

const STEP_SHIFT: u32 = 16;

impl Step {
    const ALL: [Self; 6] =
        [Self::Session, Self::Limits, Self::User, Self::Rights, Self::Directory, Self::Exec];

    fn failed(self, errno: Errno) -> io::Error {
        io::Error::from_raw_os_error(errno as i32 | ((self as i32) << STEP_SHIFT))
    }

    /// The step and the error number of a child that did not become the program; no step if the
    /// fork itself failed.
    pub(super) fn of(error: &io::Error) -> (Option<Self>, io::Error) {
        let Some(code) = error.raw_os_error() else {
            return (None, io::Error::new(error.kind(), error.to_string()));
        };
        let step = Self::ALL.into_iter().find(|step| *step as i32 == code >> STEP_SHIFT);
        (step, io::Error::from_raw_os_error(code & ((1 << STEP_SHIFT) - 1)))
    }
}

/// One resource limit: soft and hard.
pub(super) type Limit = (Resource, libc::rlim_t, libc::rlim_t);

/// What every child is made to be.
#[derive(Clone, Debug)]
pub(super) struct Shape {
    /// Its limits.
    pub(super) limits: Vec<Limit>,
    /// Whom it runs as, if not execd's own user.
    pub(super) account: Option<Account>,
    /// Its working directory.
    pub(super) directory: CString,
    /// Rights that its new files do not get.
    pub(super) umask: libc::mode_t,
    /// It is scheduled as `SCHED_BATCH`.
    pub(super) batch: bool,
}

/// The program and the arguments of its exec.
pub(super) struct Image {
    /// The program that was checked.
    fd: OwnedFd,
    /// Where it was when it was checked, no symbolic link in it.
    real: CString,
    /// It must be opened again by its interpreter, hence is named, not handed over.
    is_script: bool,
    argv: Vec<*const c_char>,
    envp: Vec<*const c_char>,
    /// What the pointers point into.
    _texts: Vec<CString>,
}

impl Image {
    /// The program with its words and its environment.
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

    /// Becomes the program; comes back only with an error. The file that was checked is executed
    /// through its descriptor, whatever its path leads to by now. What the kernel hands to an
    /// interpreter can't go that way (the interpreter opens it by name, and `$0` must be of use),
    /// so it goes by its resolved path. Never through a shell, as `execvp` would.
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
                // A foreign binary has an interpreter, too (binfmt_misc), and the kernel says so by
                // ENOENT: the descriptor closes at the exec.
                if Errno::last() != Errno::ENOENT {
                    return Errno::last();
                }
            }
            libc::execve(self.real.as_ptr(), self.argv.as_ptr(), self.envp.as_ptr());
        }
        Errno::last()
    }
}

/// Makes the forked child what it shall be, then the program. Comes back only with an error.
pub(super) fn enter(shape: &Shape, image: &Image) -> io::Error {
    match before_exec(shape) {
        Ok(()) => Step::Exec.failed(image.exec()),
        Err(error) => error,
    }
}

fn before_exec(shape: &Shape) -> io::Result<()> {
    setsid().map_err(|errno| Step::Session.failed(errno))?;
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
        libc::umask(shape.umask);
        // Whatever else is open here closes at the exec. The pipe through which a failed exec is
        // reported must stay open until then, hence a mark instead of a close. An old kernel
        // refuses; execd's own descriptors all have the mark anyway.
        libc::syscall(libc::SYS_close_range, 3, libc::c_uint::MAX, libc::CLOSE_RANGE_CLOEXEC);
    }
    for (resource, soft, hard) in &shape.limits {
        setrlimit(*resource, *soft, *hard).map_err(|errno| Step::Limits.failed(errno))?;
    }
    if shape.batch {
        schedule_as_batch();
    }
    if let Some(account) = &shape.account {
        become_user(account).map_err(|errno| Step::User.failed(errno))?;
    }
    // Neither a setuid bit nor capabilities of a file count from here on, for all that follow; and
    // what was handed down to execd itself (a unit's AmbientCapabilities) stays with execd.
    prctl::set_no_new_privs().map_err(|errno| Step::Rights.failed(errno))?;
    #[expect(unsafe_code, reason = "nix has no call for ambient capabilities")]
    // SAFETY: prctl takes numbers here and touches no memory of ours.
    unsafe {
        let none: libc::c_ulong = 0;
        libc::prctl(libc::PR_CAP_AMBIENT, libc::PR_CAP_AMBIENT_CLEAR_ALL, none, none, none);
    }
    chdir(shape.directory.as_c_str()).map_err(|errno| Step::Directory.failed(errno))
}

/// Has a woken worker wait until whoever runs pauses, instead of pushing it aside: on few cores
/// that is often the broker, in the middle of handing out requests. What the worker starts itself
/// is scheduled as usual again. A policy that someone chose for execd stays, and a refusal does no
/// harm.
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

/// Groups first, while that is still allowed; then the user, real, effective and saved, and a look
/// whether there is a way back.
fn become_user(account: &Account) -> nix::Result<()> {
    let (uid, gid) = (account.uid, account.gid);
    setgroups(&account.groups)?;
    setresgid(gid, gid, gid)?;
    setresuid(uid, uid, uid)?;
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
