//! Reads the clocks; no other file of the broker does. Other modules get a [`Tick`]. The engine is
//! told the wall clock's time when it differs from what the ticks predict.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use protocol::time::{Micros, Tick, Wall};
use std::time::{Instant, SystemTime, UNIX_EPOCH};

/// Least time between two comparisons of the wall clock with the ticks.
const COMPARE_US: u64 = 100_000;
/// Difference up to which the wall clock counts as unchanged.
const DIFFERENCE_MS: u64 = 20;
/// Offsets of local time change only at full minutes.
const MINUTE_MS: u64 = 60_000;

/// Time since the start of the program.
#[derive(Debug)]
pub(super) struct Clock {
    start: Instant,
    /// A tick and the wall clock's time at it, as last told to the engine.
    told: (Tick, Wall),
    /// Tick of the last comparison.
    compared: Tick,
}

impl Clock {
    /// Starts counting; this moment is tick 0.
    #[allow(clippy::disallowed_methods, reason = "this is the clock")]
    pub(super) fn start() -> Self {
        let start = Instant::now();
        let epoch_ms = epoch_ms();
        let wall = Wall { epoch_ms, offset_secs: offset(&TimeZone::system(), epoch_ms) };
        Self { start, told: (Tick(0), wall), compared: Tick(0) }
    }

    /// The present moment.
    pub(super) fn now(&self) -> Tick {
        Tick(whole(self.start.elapsed().as_micros()))
    }

    /// The wall clock's time as last told to the engine.
    pub(super) const fn told(&self) -> Wall {
        self.told.1
    }

    /// The wall clock's time, if it differs from what the ticks predict: it was set, the machine
    /// slept, or summer time began.
    #[inline]
    pub(super) fn change(&mut self, now: Tick) -> Option<Wall> {
        if now.since(self.compared) < Micros(COMPARE_US) {
            return None;
        }
        self.compare(now)
    }

    fn compare(&mut self, now: Tick) -> Option<Wall> {
        let (at, told) = self.told;
        let minute = told.plus(self.compared.since(at)).epoch_ms / MINUTE_MS;
        self.compared = now;
        let expected = told.plus(now.since(at));
        let epoch_ms = epoch_ms();
        let is_set = expected.epoch_ms.abs_diff(epoch_ms) > DIFFERENCE_MS;
        if !is_set && epoch_ms / MINUTE_MS == minute {
            return None;
        }
        // The machine's time zone may have changed, too; jiff checks that every few minutes.
        let wall = Wall { epoch_ms, offset_secs: offset(&TimeZone::system(), epoch_ms) };
        if !is_set && wall.offset_secs == told.offset_secs {
            return None;
        }
        self.told = (now, wall);
        Some(wall)
    }
}

#[allow(clippy::disallowed_methods, reason = "this is the clock")]
fn epoch_ms() -> u64 {
    whole(SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis())
}

/// How far local time is ahead of UTC; a moment outside the calendar has no zone.
fn offset(zone: &TimeZone, epoch_ms: u64) -> i32 {
    let moment = i64::try_from(epoch_ms).ok().and_then(|ms| Timestamp::from_millisecond(ms).ok());
    moment.map_or(0, |moment| zone.to_offset(moment).seconds())
}

fn whole(value: u128) -> u64 {
    u64::try_from(value).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_was_not_expected_is_told() {
        let mut clock = Clock::start();
        assert_eq!(clock.change(Tick(COMPARE_US - 1)), None);
        // Simulates a machine that slept: the wall clock went on, the ticks did not.
        clock.told.1.epoch_ms -= 3_600_000;
        let wall = clock.change(Tick(COMPARE_US)).expect("an hour is missing");
        assert!(wall.epoch_ms.abs_diff(epoch_ms()) < 1000);
        assert_eq!(clock.told(), wall);
    }

    #[test]
    fn summer_time_is_told_when_it_begins() {
        let zone = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").expect("a zone");
        // 2026-03-29 01:00:00 UTC.
        let begin = 1_774_746_000_000;
        assert_eq!(offset(&zone, begin - 1), 3600);
        assert_eq!(offset(&zone, begin), 7200);
        assert_eq!(offset(&zone, u64::MAX), 0);
    }
}
