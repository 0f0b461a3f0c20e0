//! What each signal means to a program that runs for long. Such a program blocks them all and reads
//! them from a descriptor, so no code runs inside a signal, and none of them ends it without a
//! word. Not what follows: the program decides that.
//!
//! | signal | what it does |
//! | --- | --- |
//! | TERM, INT, QUIT | [`Meaning::End`] |
//! | XCPU | [`Meaning::LastEnd`]: the time of the processor that a limit allows is used up |
//! | HUP | [`Meaning::Reload`] |
//! | CHLD | [`Meaning::Child`], for a program that starts others |
//! | USR1, USR2, ALRM, VTALRM, PROF, IO, PWR, STKFLT | [`Meaning::None`] |
//! | TTIN, TTOU, XFSZ, real-time | [`Meaning::None`] |
//! | PIPE | ignored since the start, as Rust arranges it: a broken pipe is an error of a write |
//! | SEGV, BUS, FPE, ILL, TRAP, SYS, ABRT | the end at once, with a core file: never taken |
//! | TSTP, STOP, CONT, KILL, URG, WINCH | what the kernel does with them |

use nix::libc;
use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};

/// What a program lets act as the kernel does: faults, and what stops and continues it. URG and
/// WINCH do nothing, and a PIPE would come with each write to a broken one.
const LEFT: [Signal; 12] = [
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

/// What a signal asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Meaning {
    /// End in order; a second one: at once.
    End,
    /// End in order; the kernel repeats it each second, so a second one says nothing new.
    LastEnd,
    /// Read the files again.
    Reload,
    /// A child ended.
    Child,
    /// Nothing; who sent it is told of.
    None,
}

/// A signal that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ReceivedSignal {
    /// Its number.
    pub number: i32,
    /// The process that sent it; 0 = the kernel.
    pub pid: u32,
    /// The user that sent it.
    pub uid: u32,
}

impl ReceivedSignal {
    /// What it asks for.
    pub fn meaning(self) -> Meaning {
        match Signal::try_from(self.number) {
            Ok(Signal::SIGTERM | Signal::SIGINT | Signal::SIGQUIT) => Meaning::End,
            Ok(Signal::SIGXCPU) => Meaning::LastEnd,
            Ok(Signal::SIGHUP) => Meaning::Reload,
            Ok(Signal::SIGCHLD) => Meaning::Child,
            Ok(_) | Err(_) => Meaning::None,
        }
    }

    /// `SIGUSR1`, `SIGRTMIN+2`, …
    pub fn name(self) -> String {
        name(self.number)
    }

    /// Who sent it, in words.
    pub fn sender(self) -> String {
        match self.pid {
            0 => "the kernel".to_owned(),
            pid => format!("process {pid} of user {}", self.uid),
        }
    }
}

/// The name of a signal.
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

/// The descriptor that signals are read from.
#[derive(Debug)]
pub struct Inbox {
    fd: SignalFd,
    told: u128,
}

impl Inbox {
    /// Begins to take signals, those of children too if wanted. To be called before other threads
    /// are started: they have to have them blocked, too.
    ///
    /// # Errors
    /// The kernel has no descriptor left.
    pub fn open(with_children: bool) -> nix::Result<Self> {
        default_faults();
        let mut set = taken();
        if with_children {
            set.add(Signal::SIGCHLD);
        }
        set.thread_block()?;
        let fd = SignalFd::with_flags(&set, SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC)?;
        Ok(Self { fd, told: 0 })
    }

    /// The next signal that came.
    pub fn take(&mut self) -> Option<ReceivedSignal> {
        let info = self.fd.read_signal().ok().flatten()?;
        let number = i32::try_from(info.ssi_signo).ok()?;
        Some(ReceivedSignal { number, pid: info.ssi_pid, uid: info.ssi_uid })
    }

    /// Whether a signal of this number is told of for the first time: whoever may send signals may
    /// send millions.
    pub fn is_news(&mut self, received: ReceivedSignal) -> bool {
        let bit = 1_u128.checked_shl(received.number.cast_unsigned()).unwrap_or(0);
        let is_news = self.told & bit == 0;
        self.told |= bit;
        is_news
    }
}

impl AsFd for Inbox {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl AsRawFd for Inbox {
    fn as_raw_fd(&self) -> RawFd {
        self.fd.as_raw_fd()
    }
}

/// The signals of [`Inbox`], without that of children.
pub fn taken() -> SigSet {
    let mut set = SigSet::all();
    for signal in LEFT.into_iter().chain([Signal::SIGCHLD]) {
        set.remove(signal);
    }
    set
}

/// Lets SIGSEGV and SIGBUS end this program whoever sends them. Rust's runtime takes both, to tell
/// of an overflowed stack, and forgets the first one that a `kill` sends.
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
                libc::SIGTERM | libc::SIGINT | libc::SIGQUIT => Meaning::End,
                libc::SIGXCPU => Meaning::LastEnd,
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
