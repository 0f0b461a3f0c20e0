//! The meaning of each signal for a program that runs for long. Such a program blocks all signals
//! and reads them from a descriptor, so no code runs inside a signal handler, and no signal ends
//! the program without a log line. The program decides what to do.
//!
//! | signal | what it does |
//! | --- | --- |
//! | TERM, INT, QUIT | [`Meaning::Shutdown`] |
//! | XCPU | [`Meaning::ShutdownOnce`]: the processor time that a limit allows is used up |
//! | HUP | [`Meaning::Reload`] |
//! | CHLD | [`Meaning::Child`], for a program that starts others |
//! | USR1, USR2, ALRM, VTALRM, PROF, IO, PWR, STKFLT | [`Meaning::None`] |
//! | TTIN, TTOU, XFSZ, real-time | [`Meaning::None`] |
//! | PIPE | ignored since the start, as Rust arranges it: a broken pipe is an error of a write |
//! | SEGV, BUS, FPE, ILL, TRAP, SYS, ABRT | the end at once, with a core file: never handled |
//! | TSTP, STOP, CONT, KILL, URG, WINCH | what the kernel does with them |

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::process::CommandExt as _;
use std::process::Command;

/// Signals that keep their default action: faults, and those that stop and continue a process. URG
/// and WINCH do nothing by default, and PIPE would come with each write to a broken pipe.
const UNHANDLED: [Signal; 12] = [
    Signal::SIGSEGV,
    Signal::SIGBUS,
    Signal::SIGFPE,
    Signal::SIGILL,
    Signal::SIGTRAP,
    Signal::SIGSYS,
    Signal::SIGABRT,
    Signal::SIGTSTP,
    Signal::SIGCONT,
    Signal::SIGURG,
    Signal::SIGWINCH,
    Signal::SIGPIPE,
];

/// What a signal asks the program to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// End in order; a second signal: end at once.
    Shutdown,
    /// End in order. The kernel repeats this signal each second, so a second one has no further
    /// meaning.
    ShutdownOnce,
    /// Read the configuration files again.
    Reload,
    /// Reap a child that ended.
    Child,
    /// Nothing; the program only logs who sent it.
    None,
}

/// A signal that was read from the descriptor.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedSignal {
    /// The signal's number.
    pub number: i32,
    /// The process that sent it; 0 = the kernel.
    pub pid: u32,
    /// The user id of the sender.
    pub uid: u32,
}

impl ReceivedSignal {
    /// What the signal asks for.
    pub fn meaning(self) -> Meaning {
        match Signal::try_from(self.number) {
            Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) => Meaning::Shutdown,
            Ok(Signal::SIGXCPU) => Meaning::ShutdownOnce,
            Ok(Signal::SIGHUP) => Meaning::Reload,
            Ok(Signal::SIGCHLD) => Meaning::Child,
            Ok(_) | Err(_) => Meaning::None,
        }
    }

    /// The name: `SIGUSR1`, `SIGRTMIN+2`, …
    pub fn name(self) -> String {
        name(self.number)
    }

    /// The sender in words, for the log.
    pub fn sender(self) -> String {
        match self.pid {
            0 => "the kernel".to_owned(),
            pid => format!("process {pid} of user {}", self.uid),
        }
    }
}

/// The name of a signal: `SIGUSR1`, `SIGRTMIN+2`, …
pub fn name(number: i32) -> String {
    match Signal::try_from(number) {
        Ok(signal) => signal.as_str().to_owned(),
        Err(_) => match number - libc::SIGRTMIN() {
            0 => "SIGRTMIN".to_owned(),
            above if above > 0 && number <= libc::SIGRTMAX() => format!("SIGRTMIN+{above}"),
            _ => format!("signal {number}"),
        },
    }
}

/// The descriptor from which signals are read.
#[derive(Debug)]
pub struct SignalReader {
    fd: SignalFd,
    seen: u128,
}

impl SignalReader {
    /// Starts to receive signals, without SIGCHLD. Call it before other threads start, because they
    /// inherit the blocked signals.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub fn open() -> nix::Result<Self> {
        Self::receiving(handled())
    }

    /// As [`open`](Self::open), for a program that starts others: with SIGCHLD.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub fn open_with_children() -> nix::Result<Self> {
        let mut set = handled();
        set.add(Signal::SIGCHLD);
        Self::receiving(set)
    }

    fn receiving(set: SigSet) -> nix::Result<Self> {
        default_faults();
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, seen: 0 })
    }

    /// Takes the next signal; `None` = none has come.
    pub fn take(&mut self) -> Option<ReceivedSignal> {
        let info = self.fd.read_signal().ok().flatten()?;
        let number = i32::try_from(info.ssi_signo).ok()?;
        Some(ReceivedSignal { number, pid: info.ssi_pid, uid: info.ssi_uid })
    }

    /// Whether this is the first signal of its number. Only the first is worth a log line, because
    /// a sender may send millions.
    pub fn is_first(&mut self, received: ReceivedSignal) -> bool {
        let bit = 1_u128.checked_shl(received.number.cast_unsigned()).unwrap_or(0);
        let is_first = self.seen & bit == 0;
        self.seen |= bit;
        is_first
    }
}

impl AsFd for SignalReader {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for SignalReader {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The signals that a [`SignalReader`] receives, without SIGCHLD.
pub fn handled() -> SigSet {
    let mut set = SigSet::all();
    for signal in UNHANDLED.into_iter().chain([Signal::SIGCHLD]) {
        set.remove(signal);
    }
    set
}

/// Has the program of a command receive all signals from its start on, although this program may
/// block them to read them from a descriptor. A process inherits what is blocked.
pub fn unblock_in(command: &mut Command) {
    let unblock = || SigSet::all().thread_unblock().map_err(io::Error::from);
    #[expect(unsafe_code, reason = "std has no other way to change what a child inherits")]
    // SAFETY: pthread_sigmask may be called between fork and exec, and nothing is allocated.
    unsafe {
        command.pre_exec(unblock);
    }
}

/// Restores the default action of SIGSEGV and SIGBUS, so that both end the program also when
/// somebody sends them. Rust's runtime handles both to report a stack overflow, and ignores the
/// first one that `kill` sends.
pub fn default_faults() {
    for signal in [libc::SIGSEGV, libc::SIGBUS] {
        #[expect(unsafe_code, reason = "nix's signal() is unsafe as well")]
        // SAFETY: the default disposition runs no code of ours.
        unsafe {
            libc::signal(signal, libc::SIG_DFL);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_signal_has_one_meaning_and_a_name() {
        let meaning = |number| ReceivedSignal { number, pid: 1, uid: 2 }.meaning();
        for number in 1..=libc::SIGRTMAX() {
            let want = match number {
                libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => Meaning::Shutdown,
                libc::SIGXCPU => Meaning::ShutdownOnce,
                libc::SIGHUP => Meaning::Reload,
                libc::SIGCHLD => Meaning::Child,
                _ => Meaning::None,
            };
            assert_eq!(meaning(number), want, "{number}");
        }
        assert_eq!(name(libc::SIGUSR1), "SIGUSR1");
        assert_eq!(name(libc::SIGRTMIN()), "SIGRTMIN");
        assert_eq!(name(libc::SIGRTMIN() + 3), "SIGRTMIN+3");
        assert_eq!(name(99), "signal 99");
    }
}
