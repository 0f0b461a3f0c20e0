//! The few system calls that nix does not have, each wrapped once: waiting for ended children,
//! signals by number, process descriptors, extended attributes. `spawn` and `child_setup` have fork
//! and exec.

use nix::errno::Errno;
use nix::fcntl::{FcntlArg, FdFlag, OFlag, fcntl, open};
use nix::libc;
use nix::sys::stat::Mode;
use protocol::bodies::ExitCause;
use std::ffi::CStr;
use std::os::fd::{AsRawFd, FromRawFd, IntoRawFd, OwnedFd};
use std::ptr;

/// A process that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Reaped {
    /// Exit status or signal.
    pub(super) exit_cause: ExitCause,
    /// Processor time in milliseconds, user and system, with that of the children it waited for.
    pub(super) cpu_ms: u64,
    /// Largest resident size in KiB.
    pub(super) rss_kib_max: u64,
}

/// The process id of a child that has ended and is not reaped yet, so nobody else can have that id.
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
    let exit_cause = if libc::WIFEXITED(status) {
        ExitCause::Exit(libc::WEXITSTATUS(status))
    } else if libc::WIFSIGNALED(status) {
        ExitCause::Signal(libc::WTERMSIG(status))
    } else {
        ExitCause::Unknown
    };
    let millis = |time: libc::timeval| {
        u64::try_from(time.tv_sec).unwrap_or(0).saturating_mul(1000)
            + u64::try_from(time.tv_usec).unwrap_or(0) / 1000
    };
    Some(Reaped {
        exit_cause,
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

/// Occupies the numbers below this one where nothing is open, for good: a forked child puts there
/// what it needs, and must not find it there already.
pub(super) fn occupy_below(number: i32) {
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
    while let Ok(null) = open("/dev/null", flags, Mode::empty()) {
        if null.as_raw_fd() >= number {
            return;
        }
        let _ = null.into_raw_fd();
    }
}

/// Puts an open descriptor at a number, and closes what was there. It stays open over an exec
/// unless it is to close there.
pub(super) fn put_at(fd: &OwnedFd, at: i32, closes_at_exec: bool) -> nix::Result<()> {
    let (from, flags) = (fd.as_raw_fd(), if closes_at_exec { libc::O_CLOEXEC } else { 0 });
    if from == at {
        let flags = if closes_at_exec { FdFlag::FD_CLOEXEC } else { FdFlag::empty() };
        return fcntl(fd, FcntlArg::F_SETFD(flags)).map(|_| ());
    }
    #[expect(unsafe_code, reason = "nix owns what it puts there")]
    // SAFETY: dup3 takes numbers. Only a forked child calls this, in which nothing else uses the
    // descriptor at that number any more.
    let result = unsafe { libc::dup3(from, at, flags) };
    Errno::result(result).map(|_| ())
}

/// Closes all descriptors from this number on. A kernel before 5.9 can't; there they close at the
/// exec, because all descriptors of execd have that flag.
pub(super) fn close_from(first: i32) {
    #[expect(unsafe_code, reason = "nix has no close_range")]
    // SAFETY: close_range takes numbers. Only a forked child calls this: what owns a descriptor
    // there is never dropped.
    unsafe {
        libc::syscall(libc::SYS_close_range, first, libc::c_uint::MAX, 0);
    }
}

/// Ends this process at once: no destructors and no exit handlers run.
pub(super) fn exit_now(status: i32) -> ! {
    #[expect(unsafe_code, reason = "nix has no _exit")]
    // SAFETY: _exit takes a number and never returns.
    unsafe {
        libc::_exit(status)
    }
}

/// Restores the default action of SIGCHLD. If execd inherited "ignore", the kernel would reap the
/// children itself.
pub(super) fn default_sigchld() {
    #[expect(unsafe_code, reason = "nix's signal() is unsafe as well")]
    // SAFETY: the default disposition runs no code of ours.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}

/// The bytes of a file's access list; empty if it has none, or if it can't be read as a whole.
pub(super) fn access_list(path: &CStr) -> Vec<u8> {
    let name = c"system.posix_acl_access".as_ptr();
    let read = |into: &mut [u8]| {
        #[expect(unsafe_code, reason = "nix has no getxattr")]
        // SAFETY: both names are NUL-terminated, and the kernel writes at most as many bytes as are
        // named, into a buffer that has so many; for none it tells how many there are.
        let size = unsafe {
            libc::getxattr(
                path.as_ptr(),
                name,
                into.as_mut_ptr().cast::<libc::c_void>(),
                into.len(),
            )
        };
        usize::try_from(size).unwrap_or(0)
    };
    let mut bytes = vec![0; read(&mut [])];
    let size = if bytes.is_empty() { 0 } else { read(&mut bytes) };
    bytes.truncate(size);
    bytes
}

/// Whether a file has capabilities, which give a program more rights than its user has.
pub(super) fn has_capabilities(path: &CStr) -> bool {
    #[expect(unsafe_code, reason = "nix has no getxattr")]
    // SAFETY: both names are NUL-terminated; a size of 0 asks for the length alone, so nothing is
    // written to the null pointer.
    let size = unsafe {
        libc::getxattr(path.as_ptr(), c"security.capability".as_ptr(), ptr::null_mut(), 0)
    };
    // The file has no such attribute, or the file system has no attributes.
    size >= 0
}
