//! The only place that reads a clock. Everything else is given a [`Tick`].

use protocol::time::Tick;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Time since the start of the program.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock {
    start: Instant,
    epoch_ms: u64,
}

impl Clock {
    /// Starts counting; this moment is tick 0.
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    pub(super) fn start() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self { start: Instant::now(), epoch_ms: whole(since.as_millis()) }
    }

    /// The present moment.
    pub(super) fn now(&self) -> Tick {
        Tick(whole(self.start.elapsed().as_micros()))
    }

    /// Wall clock at tick 0, milliseconds since 1970.
    pub(super) const fn epoch_ms(&self) -> u64 {
        self.epoch_ms
    }
}

/// How long to wait from `now` to `due`: whole milliseconds, rounded up, as the system counts them.
/// A deadline that is near costs one wait of a millisecond, not a spin.
pub(super) fn wait(now: Tick, due: Option<Tick>) -> Option<Duration> {
    due.map(|due| Duration::from_millis(due.since(now).0.div_ceil(1000)))
}

fn whole(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_are_rounded_up_and_end_at_once_when_overdue() {
        let now = Tick(10_000);
        assert_eq!(wait(now, None), None);
        assert_eq!(wait(now, Some(Tick(10_001))), Some(Duration::from_millis(1)));
        assert_eq!(wait(now, Some(Tick(12_000))), Some(Duration::from_millis(2)));
        assert_eq!(wait(now, Some(Tick(9_000))), Some(Duration::ZERO));
        assert_eq!(wait(now, Some(now)), Some(Duration::ZERO));
    }
}
