//! The only clock of execd: ticks since it started. The log adds the wall-clock time.

use protocol::time::Tick;
use std::time::Instant;

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
}
