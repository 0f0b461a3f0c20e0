//! System calls on processes that nix does not have, each wrapped once: waiting for ended children,
//! signals by number, process descriptors; and what this process may do.

use nix::errno::Errno;
use nix::libc;
use protocol::bodies::ExitCause;
use rustix::process::{Pid, PidfdFlags, pidfd_open};
pub use rustix::thread::CapabilitySet;
use rustix::thread::{CapabilitySets, capabilities, set_capabilities};
use std::io;
use std::os::fd::OwnedFd;

/// A process that was reaped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Reaped {
    /// Exit status or signal.
    pub exit_cause: ExitCause,
    /// Processor time in milliseconds, user and system, with that of the children it waited for.
    pub cpu_ms: u64,
    /// Largest resident size in KiB.
    pub rss_kib_max: u64,
    /// The kernel wrote a core file.
    pub has_core: bool,
}

/// The process id of a child that has ended and is not reaped yet, so nobody else can have that id.
pub fn next_dead() -> Option<i32> {
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
pub fn reap(pid: i32) -> Option<Reaped> {
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
        has_core: libc::WIFSIGNALED(status) && libc::WCOREDUMP(status),
    })
}

/// A descriptor that becomes readable when a process that is not a child of execd ends.
///
/// # Errors
/// There is no such process, or no descriptor is left.
pub fn watch(pid: u32) -> io::Result<OwnedFd> {
    let pid = Pid::from_raw(pid.cast_signed()).ok_or(io::ErrorKind::InvalidInput)?;
    Ok(pidfd_open(pid, PidfdFlags::empty())?)
}

/// Whether this process has a capability in its effective set.
pub fn has_capability(wanted: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|own| own.effective.contains(wanted))
}

/// Makes these the effective capabilities of this thread; returns what they were.
///
/// # Errors
/// One of them is not permitted to it.
pub fn set_effective(wanted: CapabilitySet) -> io::Result<CapabilitySet> {
    let own = capabilities(None)?;
    if own.effective != wanted {
        set_capabilities(None, CapabilitySets { effective: wanted, ..own })?;
    }
    Ok(own.effective)
}

/// Gives up all capabilities of this thread for ever.
///
/// # Errors
/// A filter of system calls refuses that.
pub fn drop_capabilities() -> io::Result<()> {
    let none = CapabilitySet::empty();
    Ok(set_capabilities(
        None,
        CapabilitySets { effective: none, permitted: none, inheritable: none },
    )?)
}

/// Sends a signal by number to a process (positive) or a group (negative): nix's enum lacks the
/// real-time signals.
pub fn send_signal(target: i32, signal: i32) -> nix::Result<()> {
    #[expect(unsafe_code, reason = "nix's kill takes no real-time signals")]
    // SAFETY: kill takes two numbers and touches no memory.
    let result = unsafe { libc::kill(target, signal) };
    Errno::result(result).map(|_| ())
}

/// Ends this process at once: no destructors and no exit handlers run.
pub fn exit_now(status: i32) -> ! {
    #[expect(unsafe_code, reason = "nix has no _exit")]
    // SAFETY: _exit takes a number and never returns.
    unsafe {
        libc::_exit(status)
    }
}

/// Restores the default action of SIGCHLD. If execd inherited "ignore", the kernel would reap the
/// children itself.
pub fn default_sigchld() {
    #[expect(unsafe_code, reason = "nix's signal() is unsafe as well")]
    // SAFETY: the default disposition runs no code of ours.
    unsafe {
        libc::signal(libc::SIGCHLD, libc::SIG_DFL);
    }
}
