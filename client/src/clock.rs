//! The library's only clock, and its only pause. Not used by the pure modules (`session`, `retry`,
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

/// The longest time that is counted: what is longer is as good as for ever. A number of the broker
/// or of the caller may be any.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A time in milliseconds that somebody else has named.
pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis).min(LONGEST)
}

/// The moment so long after another one.
pub(crate) fn after(moment: Instant, span: Duration) -> Instant {
    moment.checked_add(span.min(LONGEST)).unwrap_or(moment)
}

/// The moment so long from now.
pub(crate) fn until(span: Duration) -> Instant {
    after(now(), span)
}

/// Lets a while pass between two attempts to connect.
#[expect(clippy::disallowed_methods, reason = "there is nothing else to wait for: nobody listens")]
pub(crate) fn pause(span: Duration) {
    std::thread::sleep(span);
}

/// A random number, for jitter only.
pub(crate) fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_time_that_anybody_names_is_too_long() {
        for named in [0, 1, u64::MAX - 1, u64::MAX] {
            assert!(until(millis(named)) >= until(Duration::ZERO) - Duration::from_secs(1));
            assert!(after(until(millis(named)), millis(named)) > now() - Duration::from_secs(1));
        }
        assert!(until(Duration::MAX) > now() + Duration::from_secs(3_000_000_000));
    }
}
