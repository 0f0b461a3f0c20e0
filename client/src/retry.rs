//! Whether to ask again, and how long to wait before that, from the error's `ran` and its kind.
//! Pure: random numbers are arguments.

use crate::error::{Code, Error};
use protocol::errors::{ErrorCode, Ran, Retry};
use std::time::{Duration, Instant};

/// First wait after an error that may be over at once.
const SOON: Duration = Duration::from_millis(50);

/// First wait after an error that takes a while.
const LATER: Duration = Duration::from_millis(500);

/// A connection that was there for so long is no failed attempt.
pub(crate) const LASTED: Duration = Duration::from_secs(1);

/// Whether waiting can help against this error.
pub const fn is_retryable(code: ErrorCode) -> bool {
    !matches!(code.row().retry, Retry::Never)
}

/// How long to wait before a repetition; `None` = don't repeat. A repetition must be able to help
/// and be safe. It is safe if the request did not run, or may have run and is idempotent.
pub fn should_retry(error: &Error, idempotent: bool) -> Option<Duration> {
    let safe = match error.ran {
        Ran::No => true,
        Ran::Maybe => idempotent,
        Ran::Yes => false,
    };
    let wait = match (error.code, safe) {
        (Code::Application(_) | Code::Newer(_), _) | (_, false) => return None,
        (Code::Isect(code), true) => match code.row().retry {
            Retry::Never => return None,
            Retry::Soon => SOON,
            Retry::Later => LATER,
        },
    };
    // The broker may know better.
    Some(error.retry_after().map_or(wait, |told| told.max(wait)))
}

/// Waits that double with each attempt, up to a longest one. Each is shortened at random by up to
/// a half, so that clients that failed together don't come back together.
#[derive(Clone, Debug)]
pub struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    /// Starts with the wait `first`; no wait is longer than `longest`.
    pub fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first.min(longest) }
    }

    /// The next wait; `random` is any random number.
    pub fn next_wait(&mut self, random: u64) -> Duration {
        let whole = self.next;
        self.next = whole.saturating_mul(2).min(self.longest);
        let share = u32::try_from(random % 1001).unwrap_or(0);
        whole.saturating_sub(whole / 2000 * share)
    }

    /// Starts again with the first wait.
    pub fn reset(&mut self) {
        self.next = self.first.min(self.longest);
    }
}

/// The waits before a connection is made again. One that breaks soon after its login counts as an
/// attempt that failed: a broker that lets everybody in and closes is not asked without end.
#[derive(Clone, Debug)]
pub(crate) struct Returns {
    backoff: Backoff,
    since: Option<Instant>,
}

impl Returns {
    /// As [`Backoff::new`].
    pub(crate) fn new((first, longest): (Duration, Duration)) -> Self {
        Self { backoff: Backoff::new(first, longest), since: None }
    }

    /// A login was accepted.
    pub(crate) const fn began(&mut self, now: Instant) {
        self.since = Some(now);
    }

    /// The wait before the first attempt after a loss: none if the connection lasted.
    pub(crate) fn after_loss(&mut self, now: Instant, random: u64) -> Duration {
        match self.since.take() {
            Some(since) if now.saturating_duration_since(since) < LASTED => self.next_wait(random),
            Some(_) | None => {
                self.backoff.reset();
                Duration::ZERO
            }
        }
    }

    /// The wait after an attempt that failed.
    pub(crate) fn next_wait(&mut self, random: u64) -> Duration {
        self.backoff.next_wait(random)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::bodies::ErrorBody;
    use protocol::errors::ERRORS;

    #[test]
    fn what_may_have_run_is_asked_again_only_if_idempotent() {
        for row in ERRORS {
            let no = Error::new(row.code, "x").with_ran(Ran::No);
            let maybe = no.clone().with_ran(Ran::Maybe);
            let yes = no.clone().with_ran(Ran::Yes);
            assert_eq!(should_retry(&no, false).is_some(), is_retryable(row.code), "{}", row.name);
            assert_eq!(should_retry(&maybe, false), None, "{}", row.name);
            assert_eq!(
                should_retry(&maybe, true).is_some(),
                is_retryable(row.code),
                "{}",
                row.name
            );
            assert_eq!(should_retry(&yes, true), None, "{}", row.name);
        }
        assert_eq!(should_retry(&Error::application(1, "x").with_ran(Ran::No), true), None);
    }

    #[test]
    fn a_connection_that_breaks_at_once_is_an_attempt_that_failed() {
        let ms = Duration::from_millis;
        let mut returns = Returns::new((ms(20), ms(60)));
        let mut now = crate::clock::now();
        assert_eq!(returns.after_loss(now, 0), Duration::ZERO, "there was none");
        for expected in [20, 40, 60, 60] {
            returns.began(now);
            now += ms(999);
            assert_eq!(returns.after_loss(now, 0), ms(expected));
        }
        returns.began(now);
        now += LASTED;
        assert_eq!(returns.after_loss(now, 0), Duration::ZERO, "it lasted");
        assert_eq!(returns.next_wait(0), ms(20));
    }

    #[test]
    fn an_overloaded_broker_gets_a_longer_rest_than_a_dead_worker() {
        let overloaded = Error::new(ErrorCode::Overloaded, "x");
        let died = Error::new(ErrorCode::WorkerDied, "x");
        assert!(should_retry(&overloaded, false) > should_retry(&died, true));
    }

    #[test]
    fn what_the_broker_said_of_the_wait_counts() {
        let told = |retry_after_ms| {
            let body = ErrorBody { retry_after_ms, ..ErrorBody::new(ErrorCode::NoWorker, "x") };
            should_retry(&Error::from_body(body), false)
        };
        assert_eq!(told(0), Some(LATER));
        assert_eq!(told(20_000), Some(Duration::from_secs(20)));
        assert_eq!(told(1), Some(LATER), "never sooner than without it");
    }

    #[test]
    fn waits_double_to_the_longest_and_chance_takes_at_most_half() {
        let mut plain = Backoff::new(Duration::from_millis(50), Duration::from_secs(1));
        let mut short = plain.clone();
        for millis in [50, 100, 200, 400, 800, 1000, 1000] {
            assert_eq!(plain.next_wait(0), Duration::from_millis(millis));
            assert_eq!(short.next_wait(1000), Duration::from_millis(millis) / 2);
        }
        plain.reset();
        assert_eq!(plain.next_wait(0), Duration::from_millis(50));
    }
}
