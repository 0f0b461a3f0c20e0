//! Time for the pure modules: a [`Tick`] counts microseconds since the program started, a [`Wall`]
//! is a wall-clock time. Nothing here reads a clock or knows the rules of a time zone; both come
//! from outside.

use std::fmt::Write as _;
use std::ops::{Add, Sub};

/// A moment: microseconds since the program that owns the engine started. Ticks never go back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Tick(pub u64);

/// A span of time in microseconds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Micros(pub u64);

impl Tick {
    /// The moment `millis` milliseconds after the start.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Whole milliseconds since the start.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }

    /// The span from `earlier` to this moment; zero if `earlier` is in fact later.
    pub const fn since(self, earlier: Self) -> Micros {
        Micros(self.0.saturating_sub(earlier.0))
    }

    /// The moment `millis` milliseconds later; it stops at the highest tick instead of wrapping.
    pub const fn plus_millis(self, millis: u64) -> Self {
        Self(self.0.saturating_add(millis.saturating_mul(1000)))
    }
}

impl Micros {
    /// A span of `millis` milliseconds.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis.saturating_mul(1000))
    }

    /// Whole milliseconds in this span, rounded down.
    pub const fn as_millis(self) -> u64 {
        self.0 / 1000
    }
}

impl Add<Micros> for Tick {
    type Output = Self;
    fn add(self, span: Micros) -> Self {
        Self(self.0.saturating_add(span.0))
    }
}

impl Add for Micros {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0.saturating_add(other.0))
    }
}

impl Sub<Micros> for Tick {
    type Output = Self;
    fn sub(self, span: Micros) -> Self {
        Self(self.0.saturating_sub(span.0))
    }
}

/// A wall-clock time: milliseconds since 1970 (UTC), and the offset of local time at that moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Wall {
    /// Milliseconds since 1970-01-01 00:00:00 UTC.
    pub epoch_ms: u64,
    /// Local time minus UTC in seconds, from -86,399 to 86,399.
    pub offset_secs: i32,
}

/// Seconds of a day.
const DAY: u64 = 86_400;

impl Wall {
    /// This moment, `span` later; the local offset stays.
    pub const fn plus(self, span: Micros) -> Self {
        Self { epoch_ms: self.epoch_ms.saturating_add(span.as_millis()), ..self }
    }

    /// Text for people: local time with its offset, `2026-01-31 23:59:59.123+01:00`.
    pub fn local(self) -> String {
        let mut out = self.date_and_time(' ');
        let sign = if self.offset_secs < 0 { '-' } else { '+' };
        let minutes = self.offset_secs.unsigned_abs() / 60;
        let _ = write!(out, "{sign}{:02}:{:02}", minutes / 60, minutes % 60);
        out
    }

    /// Text for programs: RFC 3339 in UTC, `2026-01-31T22:59:59.123Z`, so that texts sort in the
    /// order of time.
    pub fn rfc3339(self) -> String {
        let mut out = Self { offset_secs: 0, ..self }.date_and_time('T');
        out.push('Z');
        out
    }

    fn date_and_time(self, between: char) -> String {
        let ms = self.epoch_ms % 1000;
        // RFC 3339 knows offsets of whole minutes; there were others before 1972.
        let offset = i64::from(self.offset_secs / 60 * 60);
        let secs = (self.epoch_ms / 1000).saturating_add_signed(offset);
        let (year, month, day) = date(secs / DAY);
        let secs = secs % DAY;
        let (hour, minute, second) = (secs / 3600, secs / 60 % 60, secs % 60);
        format!("{year:04}-{month:02}-{day:02}{between}{hour:02}:{minute:02}:{second:02}.{ms:03}")
    }
}

/// The Gregorian date of a count of days since 1970-01-01, by eras of 400 years from a year that
/// begins in March, so that the leap day is the last of its year.
const fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + (month <= 2) as u64, month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wall(epoch_ms: u64, minutes: i32) -> Wall {
        Wall { epoch_ms, offset_secs: minutes * 60 }
    }

    #[test]
    fn known_dates() {
        for (epoch_ms, text) in [
            (0, "1970-01-01T00:00:00.000Z"),
            (951_782_400_000, "2000-02-29T00:00:00.000Z"),
            (951_868_799_999, "2000-02-29T23:59:59.999Z"),
            (1_767_225_599_001, "2025-12-31T23:59:59.001Z"),
            (4_107_542_400_000, "2100-03-01T00:00:00.000Z"),
        ] {
            assert_eq!(wall(epoch_ms, 0).rfc3339(), text);
            assert_eq!(wall(epoch_ms, 345).rfc3339(), text, "UTC, whatever the zone");
        }
    }

    #[test]
    fn people_see_local_time_and_its_offset() {
        let moment = 1_767_225_599_001;
        for (minutes, text) in [
            (0, "2025-12-31 23:59:59.001+00:00"),
            (60, "2026-01-01 00:59:59.001+01:00"),
            (345, "2026-01-01 05:44:59.001+05:45"),
            (-210, "2025-12-31 20:29:59.001-03:30"),
        ] {
            assert_eq!(wall(moment, minutes).local(), text);
        }
        // Before 1970 there is nothing to show; no arithmetic goes wrong.
        assert_eq!(wall(0, -60).local(), "1970-01-01 00:00:00.000-01:00");
        assert!(wall(u64::MAX, 1439).local().len() > 20);
        assert!(Wall { epoch_ms: 0, offset_secs: i32::MIN }.local().len() > 20);
    }
}
