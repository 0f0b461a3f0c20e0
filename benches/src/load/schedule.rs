//! The schedule of the open loop: request k is due at start + k/rate. A kernel timer wakes the
//! loop, since the timeout of epoll counts in milliseconds.

use crate::clock;
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use nix::sys::time::TimeSpec;
use nix::sys::timerfd::{ClockId, Expiration, TimerFd, TimerFlags, TimerSetTimeFlags};
use std::os::fd::{AsFd, AsRawFd};
use std::time::{Duration, Instant};

/// The timer's token.
pub(crate) const TIMER: Token = Token(usize::MAX - 1);

/// When the next request is meant to leave.
#[derive(Debug)]
pub(crate) struct Schedule {
    timer: TimerFd,
    rate: u64,
    begun: Instant,
    next: u64,
}

impl Schedule {
    /// So many requests a second, not begun yet.
    pub(crate) fn new(rate: u64) -> Result<Self, String> {
        if rate == 0 || rate > 10_000_000 {
            return Err(format!("--rate {rate}: 1 to 10000000 requests a second"));
        }
        let flags = TimerFlags::TFD_NONBLOCK | TimerFlags::TFD_CLOEXEC;
        let timer = TimerFd::new(ClockId::CLOCK_MONOTONIC, flags).map_err(|e| e.to_string())?;
        Ok(Self { timer, rate, begun: clock::now(), next: 0 })
    }

    pub(crate) fn register(&self, registry: &Registry) -> Result<(), String> {
        registry
            .register(&mut SourceFd(&self.timer.as_fd().as_raw_fd()), TIMER, Interest::READABLE)
            .map_err(|e| e.to_string())
    }

    /// Counts from now.
    pub(crate) fn begin(&mut self, now: Instant) -> Result<(), String> {
        (self.begun, self.next) = (now, 0);
        self.arm(now)
    }

    fn due_at(&self) -> Instant {
        let nanos = u128::from(self.next) * 1_000_000_000 / u128::from(self.rate);
        self.begun + Duration::from_nanos(u64::try_from(nanos).unwrap_or(u64::MAX))
    }

    /// The next request that was meant to leave by now: its number and its moment.
    pub(crate) fn next_due(&mut self, now: Instant) -> Option<(u64, Instant)> {
        let at = self.due_at();
        if at > now {
            return None;
        }
        self.next += 1;
        Some((self.next - 1, at))
    }

    /// Wakes the loop at the next request.
    pub(crate) fn arm(&mut self, now: Instant) -> Result<(), String> {
        let span = self.due_at().saturating_duration_since(now).max(Duration::from_nanos(1));
        self.timer
            .set(Expiration::OneShot(TimeSpec::from_duration(span)), TimerSetTimeFlags::empty())
            .map_err(|e| format!("timer: {e}"))
    }
}
