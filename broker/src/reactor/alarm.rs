//! The alarm that ends a wait when something is due. It is set only when something is due earlier
//! than it rings anyway, so an ordinary turn waits without a time limit: the kernel sets no timer,
//! and takes none back, for each of them.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use protocol::time::Tick;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// The alarm.
#[derive(Debug)]
pub(super) struct Alarm {
    fd: TimerFd,
    /// When it rings.
    at: Option<Tick>,
}

impl Alarm {
    /// An alarm that is not set.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self { fd: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, at: None })
    }

    /// Tells the loop when it rings.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let fd = self.fd.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Makes sure that it rings at `due` or before.
    pub(super) fn set(&mut self, now: Tick, due: Tick) -> io::Result<()> {
        if self.at.is_some_and(|at| at <= due) {
            return Ok(());
        }
        // Zero would take the alarm back.
        let wait = Duration::from_micros(due.since(now).0.max(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(wait));
        self.fd.set(once, TimerSetTimeFlags::empty())?;
        self.at = Some(due);
        Ok(())
    }

    /// It rang.
    pub(super) fn rang(&mut self) {
        // The next time it is set makes it quiet again; nothing needs to be read.
        self.at = None;
    }
}
