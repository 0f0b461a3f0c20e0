//! The clock and the pauses of the fault run. Time is in microseconds since the run began, on the
//! monotonic clock. A pause is a client's think time or the length of a fault; no code
//! pauses to wait for an event.

use std::time::{Duration, Instant};

/// Where the run's time begins.
#[derive(Clone, Copy, Debug)]
pub struct Clock(Instant);

impl Clock {
    /// Begins now.
    #[expect(clippy::disallowed_methods, reason = "the fault run's clock")]
    pub fn start() -> Self {
        Self(Instant::now())
    }

    /// Microseconds since the beginning.
    pub fn now(&self) -> u64 {
        u64::try_from(self.0.elapsed().as_micros()).unwrap_or(u64::MAX)
    }

    /// The moment now.
    pub fn instant(&self) -> Instant {
        self.0 + self.0.elapsed()
    }
}

/// Lets a while pass.
#[expect(clippy::disallowed_methods, reason = "the timing of load and faults")]
pub fn pause(span: Duration) {
    std::thread::sleep(span);
}
