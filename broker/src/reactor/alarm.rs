//! A timer descriptor that wakes the loop when something is due. It is set again only when
//! something is due earlier than the time it is set to. So an ordinary turn waits without a
//! timeout, and the kernel need not set and cancel a timer for each turn.

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use protocol::time::Tick;
use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

/// A one-shot timer that the loop polls with its sockets.
#[derive(Debug)]
pub(super) struct Alarm {
    fd: TimerFd,
    /// The time it is set to; `None` = not set.
    at: Option<Tick>,
}

impl Alarm {
    /// Makes an alarm that is not set.
    pub(super) fn new() -> io::Result<Self> {
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        Ok(Self { fd: TimerFd::new(ClockId::CLOCK_MONOTONIC, flags)?, at: None })
    }

    /// Adds the timer's descriptor to the loop.
    pub(super) fn register(&self, registry: &Registry, token: Token) -> io::Result<()> {
        let fd = self.fd.as_fd().as_raw_fd();
        registry.register(&mut SourceFd(&fd), token, Interest::READABLE)
    }

    /// Sets the alarm to `due`, unless it is set to an earlier time.
    pub(super) fn set(&mut self, now: Tick, due: Tick) -> io::Result<()> {
        if self.at.is_some_and(|at| at <= due) {
            return Ok(());
        }
        // The kernel takes zero as "disarm" (timerfd_settime(2)).
        let wait = Duration::from_micros(due.since(now).0.max(1));
        let once = Expiration::OneShot(TimeSpec::from_duration(wait));
        self.fd.set(once, TimerSetTimeFlags::empty())?;
        self.at = Some(due);
        Ok(())
    }

    /// Notes that the alarm rang; called when the loop reports its descriptor as readable.
    pub(super) fn rang(&mut self) {
        // The next time it is set makes it quiet again; nothing needs to be read.
        self.at = None;
    }
}
