//! The only place that reads a clock. Everything else is given a [`Tick`].

use protocol::time::Tick;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

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

fn whole(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}
