//! The clock of the bench. Only this file reads the time and sleeps.

use nix::poll::{PollTimeout, poll};
use nix::time::{ClockId, clock_gettime};
use std::time::{Duration, Instant};

/// The time on the monotonic clock.
#[expect(clippy::disallowed_methods, reason = "measuring time is what this crate is for")]
pub fn now() -> Instant {
    Instant::now()
}

/// Nanoseconds from `earlier` to `later`; 0 if it is in fact earlier.
pub fn nanos(earlier: Instant, later: Instant) -> u64 {
    u64::try_from(later.saturating_duration_since(earlier).as_nanos()).unwrap_or(u64::MAX)
}

/// Nanoseconds for which this thread has run, which does not count what others do on the machine.
pub fn thread_nanos() -> u64 {
    clock_gettime(ClockId::CLOCK_THREAD_CPUTIME_ID).map_or(0, |time| {
        u64::try_from(time.tv_sec()).unwrap_or(0) * 1_000_000_000
            + u64::try_from(time.tv_nsec()).unwrap_or(0)
    })
}

/// Lets some time pass between two looks at something that can only be looked at.
pub fn pause(span: Duration) {
    let millis = u16::try_from(span.as_millis()).unwrap_or(u16::MAX).max(1);
    // An interrupted wait only looks earlier.
    let _ = poll(&mut [], PollTimeout::from(millis));
}

/// Looks until there is something, or the time is over.
///
/// # Errors
/// What the look says, or that `what` was not there in time.
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, String>,
) -> Result<T, String> {
    let end = now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if now() >= end {
            return Err(format!("{what}: not there after {} ms", limit.as_millis()));
        }
        pause(Duration::from_millis(2));
    }
}
