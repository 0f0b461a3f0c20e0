//! Decides when to ping a silent broker, and when to take it for gone. Only silence counts while
//! somebody waits, not the time between two calls of the program. Pure: times are arguments, and
//! `conn` sends the ping.

use crate::clock;
use std::time::{Duration, Instant};

/// What to do about a silence.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Due {
    /// Wait for at most this long.
    Nothing(Duration),
    /// Send a ping.
    Ping,
    /// The broker is gone after this long a silence.
    Gone(Duration),
}

/// What is known of the silence on one connection.
#[derive(Debug, Default)]
pub(crate) struct Keepalive {
    /// The silence after which the broker is gone; `None` = the broker has not said, so silence
    /// means nothing.
    silence: Option<Duration>,
    /// The moment since which somebody has waited without getting anything.
    since: Option<Instant>,
    /// The moment of the last ping.
    pinged: Option<Instant>,
    /// The moment of the last check, and the longest time until the next one.
    looked: Option<(Instant, Duration)>,
}

/// A check that comes this much later than planned shows that this process was stopped or did
/// something else.
const STANDSTILL: Duration = Duration::from_millis(250);

impl Keepalive {
    /// Sets the silence after which the broker is gone, in milliseconds; 0 = never.
    pub(crate) fn begin(&mut self, silence_ms: u64) {
        *self = Self::default();
        self.silence = (silence_ms > 0).then(|| clock::millis(silence_ms));
    }

    /// Notes that bytes came, or that the broker took some.
    pub(crate) fn heard(&mut self) {
        self.since = None;
        self.pinged = None;
        self.looked = None;
    }

    /// How long this process was stopped, and a moment to read: it could not hear the broker during
    /// that time, so the time must not count as the broker's silence.
    fn missed(&mut self, now: Instant) -> Duration {
        let (Some((at, wait)), Some(silence)) = (self.looked.take(), self.silence) else {
            return Duration::ZERO;
        };
        let late = now.saturating_duration_since(at).saturating_sub(wait);
        if late < STANDSTILL { Duration::ZERO } else { late + silence / 5 }
    }

    /// Adds that time to a ping whose answer could not be seen.
    fn excuse(&mut self, now: Instant) {
        let missed = self.missed(now);
        self.pinged = self.pinged.map(|at| at + missed);
    }

    /// Notes that the ping was sent.
    pub(crate) fn pinged(&mut self, now: Instant) {
        self.pinged = Some(now);
    }

    /// When the next step is due if nothing comes: a ping after two fifths of the silence; the rest
    /// is for its answer.
    fn due_at(&self, since: Instant, silence: Duration) -> Instant {
        match self.pinged {
            None => clock::after(since, silence * 2 / 5),
            Some(pinged) => clock::after(pinged, silence * 3 / 5),
        }
    }

    /// The longest time to wait before the next check; it reads no clock while all is well.
    pub(crate) fn span(&mut self, now: impl FnOnce() -> Instant) -> Option<Duration> {
        let silence = self.silence?;
        let Some(since) = self.since else { return Some(silence * 2 / 5) };
        let now = now();
        self.excuse(now);
        let left = self.due_at(since, silence).saturating_duration_since(now);
        let left = left.max(Duration::from_millis(1));
        self.looked = Some((now, left));
        Some(left)
    }

    /// What to do after nothing came for `waited` until now.
    pub(crate) fn quiet(&mut self, now: Instant, waited: Duration) -> Due {
        let Some(silence) = self.silence else { return Due::Nothing(Duration::MAX) };
        self.excuse(now);
        let since = *self.since.get_or_insert_with(|| now.checked_sub(waited).unwrap_or(now));
        match self.due_at(since, silence).saturating_duration_since(now) {
            Duration::ZERO if self.pinged.is_none() => Due::Ping,
            Duration::ZERO => Due::Gone(now.saturating_duration_since(since)),
            left => Due::Nothing(left),
        }
    }

    /// As [`Keepalive::quiet`], in the middle of a frame of this side, where no ping can be sent.
    pub(crate) fn stuck(&mut self, now: Instant) -> Due {
        let Some(silence) = self.silence else { return Due::Nothing(Duration::MAX) };
        let missed = self.missed(now);
        let since = self.since.get_or_insert(now);
        *since += missed;
        let quiet = now.saturating_duration_since(*since);
        match silence.saturating_sub(quiet) {
            Duration::ZERO => Due::Gone(quiet),
            left => {
                self.looked = Some((now, left));
                Due::Nothing(left)
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MS: fn(u64) -> Duration = Duration::from_millis;

    fn begun() -> (Keepalive, Instant) {
        let mut keepalive = Keepalive::default();
        keepalive.begin(3000);
        (keepalive, clock::now() + MS(1_000_000))
    }

    #[test]
    fn a_silent_broker_is_pinged_and_gone_when_the_silence_is_over_and_not_before() {
        let (mut keepalive, at) = begun();
        assert_eq!(keepalive.span(|| at), Some(MS(1200)));
        assert_eq!(keepalive.quiet(at + MS(1199), MS(1199)), Due::Nothing(MS(1)));
        assert_eq!(keepalive.quiet(at + MS(1200), MS(1)), Due::Ping);
        keepalive.pinged(at + MS(1200));
        assert_eq!(keepalive.span(|| at + MS(1300)), Some(MS(1700)));
        assert_eq!(keepalive.quiet(at + MS(2999), MS(10)), Due::Nothing(MS(1)));
        assert_eq!(keepalive.quiet(at + MS(3000), MS(1)), Due::Gone(MS(3000)));
    }

    #[test]
    fn a_broker_may_name_any_silence() {
        for silence_ms in [0, 1, u64::MAX - 1, u64::MAX] {
            let (mut keepalive, at) = begun();
            keepalive.begin(silence_ms);
            keepalive.span(|| at);
            keepalive.quiet(at, MS(1));
            keepalive.pinged(at);
            keepalive.quiet(at, MS(1));
            keepalive.stuck(at);
        }
    }

    #[test]
    fn whatever_comes_begins_it_anew() {
        let (mut keepalive, at) = begun();
        assert_eq!(keepalive.quiet(at + MS(2000), MS(2000)), Due::Ping);
        keepalive.pinged(at + MS(2000));
        keepalive.heard();
        assert_eq!(keepalive.span(|| at), Some(MS(1200)));
        assert_eq!(keepalive.quiet(at + MS(4000), MS(500)), Due::Nothing(MS(700)));
    }

    #[test]
    fn a_program_that_looked_away_asks_before_it_judges() {
        let (mut keepalive, at) = begun();
        assert_eq!(keepalive.quiet(at + MS(10), MS(10)), Due::Nothing(MS(1190)));
        let later = at + MS(600_000);
        assert_eq!(keepalive.quiet(later, MS(10)), Due::Ping);
        keepalive.pinged(later);
        assert_eq!(keepalive.quiet(later + MS(10), MS(10)), Due::Nothing(MS(1790)));
    }

    #[test]
    fn a_program_that_was_stopped_itself_blames_nobody() {
        let (mut keepalive, at) = begun();
        assert_eq!(keepalive.quiet(at + MS(1200), MS(1200)), Due::Ping);
        keepalive.pinged(at + MS(1200));
        assert_eq!(keepalive.span(|| at + MS(1200)), Some(MS(1800)));
        // Stopped for a minute in the middle of the wait: only the planned 1800 ms count.
        assert_eq!(keepalive.span(|| at + MS(61_200)), Some(MS(600)));
        assert_eq!(keepalive.quiet(at + MS(61_800), MS(600)), Due::Gone(MS(61_800)));
        let (mut keepalive, at) = begun();
        assert_eq!(keepalive.quiet(at + MS(1200), MS(1200)), Due::Ping);
        // Stopped between the ping and the wait.
        keepalive.pinged(at + MS(1200));
        assert_eq!(keepalive.span(|| at + MS(1201)), Some(MS(1799)));
        assert_eq!(keepalive.quiet(at + MS(61_200), MS(1799)), Due::Nothing(MS(600)));
        // In the middle of a frame of this side.
        let (mut keepalive, at) = begun();
        assert_eq!(keepalive.stuck(at), Due::Nothing(MS(3000)));
        assert_eq!(keepalive.stuck(at + MS(63_000)), Due::Nothing(MS(600)));
    }

    #[test]
    fn a_frame_that_is_stuck_is_given_the_whole_silence_and_a_silent_broker_none_unsaid() {
        let (mut keepalive, at) = begun();
        assert_eq!(keepalive.stuck(at), Due::Nothing(MS(3000)));
        assert_eq!(keepalive.stuck(at + MS(1000)), Due::Nothing(MS(2000)));
        assert_eq!(keepalive.stuck(at + MS(3000)), Due::Gone(MS(3000)));
        keepalive.begin(0);
        assert_eq!(keepalive.span(|| at), None);
        assert_eq!(keepalive.quiet(at + MS(9_000_000), MS(9_000_000)), Due::Nothing(Duration::MAX));
    }
}
