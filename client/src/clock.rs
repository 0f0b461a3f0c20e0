//! The library's only clock and only sleep. The pure modules (`session`, `retry`, `frame_reader`)
//! don't use it; they get times as arguments.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::time::{Duration, Instant};

/// Reads the clock.
#[expect(clippy::disallowed_methods, reason = "this is the one place that reads the clock")]
pub(crate) fn now() -> Instant {
    Instant::now()
}

/// The time left until a moment; zero once it has passed.
pub(crate) fn left(until: Instant) -> Duration {
    until.saturating_duration_since(now())
}

/// The longest time that is counted; a longer one, which a broker or a program may name, is as good
/// as no limit.
const LONGEST: Duration = Duration::from_secs(100 * 365 * 86_400);

/// A time in milliseconds that a broker or a program named, limited to [`LONGEST`].
pub(crate) fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis).min(LONGEST)
}

/// The moment `span` after `moment`.
pub(crate) fn after(moment: Instant, span: Duration) -> Instant {
    moment.checked_add(span.min(LONGEST)).unwrap_or(moment)
}

/// The moment `span` from now.
pub(crate) fn until(span: Duration) -> Instant {
    after(now(), span)
}

/// Sleeps between two attempts to connect.
#[expect(clippy::disallowed_methods, reason = "there is nothing else to wait for: nobody listens")]
pub(crate) fn sleep(span: Duration) {
    std::thread::sleep(span);
}

/// A random number for jitter; not for secrets.
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
