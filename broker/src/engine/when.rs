//! A moment as people write it. Only arithmetic: the wall clock at tick 0 was told once, at the
//! start.

/// `2026-01-31 23:59:59.123` (UTC) of milliseconds since 1970.
pub(crate) fn utc(epoch_ms: u64) -> String {
    let (secs, ms) = (epoch_ms / 1000, epoch_ms % 1000);
    let (days, second) = (secs / 86_400, secs % 86_400);
    let (year, month, day) = date(days);
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{ms:03}")
}

/// The Gregorian date of a count of days since 1970-01-01, by eras of 400 years from a year that
/// begins in March, so that the leap day is the last of its year.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn known_dates() {
        assert_eq!(utc(0), "1970-01-01 00:00:00.000");
        assert_eq!(utc(951_782_400_000), "2000-02-29 00:00:00.000");
        assert_eq!(utc(951_868_799_999), "2000-02-29 23:59:59.999");
        assert_eq!(utc(1_767_225_599_001), "2025-12-31 23:59:59.001");
        assert_eq!(utc(4_107_542_400_000), "2100-03-01 00:00:00.000");
    }
}
