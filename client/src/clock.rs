//! The library's only clock, and its only pause. Not used by the pure rooms (`session`, `retry`,
//! `inbox`): they are told.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// The moment now.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// What is left until a moment; zero once it has passed.
pub(crate) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(now())
}

/// Lets a while pass between two attempts to connect.
#[expect(clippy::disallowed_methods, reason = "there is nothing else to wait for: nobody listens")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// Some number by chance, for jitter only.
pub(crate) fn chance() -> u64 {
    RandomState::new().build_hasher().finish()
}
