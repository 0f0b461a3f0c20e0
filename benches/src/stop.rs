//! Ends a run in order at Ctrl-C, so that no process and no directory is left behind. If the bench
//! itself is killed, the kernel kills its children (see `proc`).

use nix::sys::signal::{SigSet, Signal};
use nix::sys::signalfd::{SfdFlags, SignalFd};

/// Looks whether somebody asked to stop.
#[derive(Debug)]
pub struct Stop {
    signals: SignalFd,
}

impl Stop {
    /// Takes INT and TERM over.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> Result<Self, String> {
        let mut set = SigSet::empty();
        set.add(Signal::SIGINT);
        set.add(Signal::SIGTERM);
        set.thread_block().map_err(|e| format!("signals: {e}"))?;
        let flags = SfdFlags::SFD_NONBLOCK | SfdFlags::SFD_CLOEXEC;
        let signals = SignalFd::with_flags(&set, flags).map_err(|e| format!("signalfd: {e}"))?;
        Ok(Self { signals })
    }

    /// Goes on, or not.
    ///
    /// # Errors
    /// A signal came.
    pub fn check(&self) -> Result<(), String> {
        match self.signals.read_signal() {
            Ok(Some(_)) => Err("stopped by a signal".into()),
            Ok(None) | Err(_) => Ok(()),
        }
    }
}
