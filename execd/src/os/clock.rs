//! The only clock of execd: ticks since it started, and the wall-clock time of kept output. The log
//! adds its own.

use protocol::time::Tick;
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Counts ticks from its creation.
#[derive(Clone, Copy, Debug)]
pub(super) struct Clock(Instant);

#[expect(clippy::disallowed_methods, reason = "this is the one place where execd reads the time")]
impl Clock {
    pub(super) fn start() -> Self {
        Self(Instant::now())
    }

    pub(super) fn read(self) -> Tick {
        let passed = Instant::now().duration_since(self.0).as_micros();
        Tick(u64::try_from(passed).unwrap_or(u64::MAX))
    }

    /// The wall-clock time in milliseconds since 1970.
    pub(super) fn epoch_ms() -> u64 {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
    }
}
