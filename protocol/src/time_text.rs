//! Reads a time of day as people write it and `Wall` prints it.

use crate::time::Wall;

impl Wall {
    /// The moment that a text names, in milliseconds since 1970, and whether it has an offset: if
    /// not, these are local. `2026-01-31T23:59:59.123+01:00`, of which the seconds, the time and
    /// the offset may be left out, with a blank or a `T` between date and time; `None` = it is
    /// none.
    pub fn parse(text: &str) -> Option<(u64, bool)> {
        let date = text.get(..10)?;
        let rest = text.get(10..)?;
        let days = days(date)?;
        let Some(time) = rest.strip_prefix(['T', 't', ' ']) else {
            return rest.is_empty().then_some((days * 86_400_000, false));
        };
        let at = time.find(['Z', 'z', '+', '-']).unwrap_or(time.len());
        let (time, offset) = (time.get(..at)?, time.get(at..)?);
        let local = i64::try_from(days * 86_400_000 + time_ms(time)?).ok()?;
        let utc = u64::try_from(local - offset_ms(offset)?).ok()?;
        Some((utc, !offset.is_empty()))
    }
}

/// Two digits, at most this.
fn two(text: &str, most: u64) -> Option<u64> {
    number(text, 2).filter(|value| *value <= most)
}

fn number(text: &str, digits: usize) -> Option<u64> {
    let is_it = text.len() == digits && text.bytes().all(|byte| byte.is_ascii_digit());
    if is_it { text.parse().ok() } else { None }
}

/// The days since 1970-01-01 of a date `2026-01-31`.
fn days(date: &str) -> Option<u64> {
    let mut words = date.split('-');
    let year = number(words.next()?, 4)?;
    let month = two(words.next()?, 12).filter(|month| *month > 0)?;
    let is_leap = year.is_multiple_of(4) && !year.is_multiple_of(100) || year.is_multiple_of(400);
    let longest = match month {
        2 => 28 + u64::from(is_leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    };
    let day = two(words.next()?, longest).filter(|day| *day > 0)?;
    if words.next().is_some() {
        return None;
    }
    // Years that begin in March, so that the leap day is the last of its year.
    let (year, month) =
        if month > 2 { (year, month - 3) } else { (year.checked_sub(1)?, month + 9) };
    let in_year = (153 * month + 2) / 5 + day - 1;
    (year * 365 + year / 4 - year / 100 + year / 400 + in_year).checked_sub(719_468)
}

/// The milliseconds of a time `23:59` or `23:59:59.123`.
fn time_ms(time: &str) -> Option<u64> {
    let mut words = time.split(':');
    let hours = two(words.next()?, 23)?;
    let minutes = two(words.next()?, 59)?;
    let (seconds, fraction) = match words.next() {
        None => (0, 0),
        Some(word) => {
            let (seconds, fraction) = word.split_once('.').unwrap_or((word, "0"));
            let is_fraction = !fraction.is_empty()
                && fraction.len() <= 9
                && fraction.bytes().all(|byte| byte.is_ascii_digit());
            let millis: String = fraction.chars().chain("000".chars()).take(3).collect();
            (two(seconds, 59)?, millis.parse().ok().filter(|_| is_fraction)?)
        }
    };
    let is_all = words.next().is_none();
    is_all.then_some(((hours * 60 + minutes) * 60 + seconds) * 1000 + fraction)
}

/// The milliseconds of an offset `Z`, `+01:00` or none.
fn offset_ms(offset: &str) -> Option<i64> {
    let sign = match offset.get(..1) {
        None | Some("Z" | "z") if offset.len() <= 1 => return Some(0),
        Some("+") => 1,
        Some("-") => -1,
        Some(_) | None => return None,
    };
    let (hours, minutes) = offset.get(1..)?.split_once(':')?;
    let minutes = two(hours, 23)? * 60 + two(minutes, 59)?;
    Some(sign * i64::try_from(minutes).ok()? * 60_000)
}
