//! The form of a line in a file of kept output: `TIME NUMBER STREAM TEXT`, with the time in RFC
//! 3339. In place of the stream stands `lost` where lines are missing; the number is then that of
//! the last of them, and the text begins with their count.

use protocol::bodies::Stream;
use protocol::process::KeptLine;
use protocol::time::Wall;

/// Most bytes of a line in a file, its end included; execd has truncated the text before.
pub(super) const FILE_LINE_BYTES_MAX: usize = 3 * crate::engine::limits::LINE_BYTES_MAX + 128;

/// A line of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum FileLine {
    /// A line that a worker wrote.
    Kept(KeptLine),
    /// So many lines are missing.
    Lost {
        /// The number of the last of them.
        number: u64,
        /// How many they are.
        count: u64,
    },
}

impl FileLine {
    /// The number of the line, or of the last that is lost.
    pub(super) const fn number(&self) -> u64 {
        match self {
            Self::Kept(line) => line.number,
            Self::Lost { number, .. } => *number,
        }
    }

    /// Reads a line without its end; `None` = it is none, because somebody else wrote it or the
    /// machine failed meanwhile.
    pub(super) fn parse(line: &[u8]) -> Option<Self> {
        let line = String::from_utf8_lossy(line);
        let mut words = line.splitn(4, ' ');
        let at_ms = epoch_ms(words.next()?)?;
        let number = words.next()?.parse().ok()?;
        let (stream, text) = (words.next()?, words.next()?);
        let stream = match stream {
            "stdout" => Stream::Stdout,
            "stderr" => Stream::Stderr,
            "lost" => {
                let count = text.split(' ').next()?.parse().ok()?;
                return Some(Self::Lost { number, count });
            }
            _ => return None,
        };
        Some(Self::Kept(KeptLine { number, at_ms, stream, text: text.to_owned() }))
    }
}

/// The time of a line, as it is written.
pub(super) fn time(at_ms: u64) -> String {
    Wall { epoch_ms: at_ms, offset_secs: 0 }.rfc3339()
}

/// The line that stands where lines are missing.
pub(super) fn lost(time: &str, number: u64, count: u64) -> String {
    let lines = if count == 1 { "line" } else { "lines" };
    format!("{time} {number} lost {count} {lines}: the disk was full or too slow\n")
}

/// The time that `2026-01-31T22:59:59.123Z` is.
fn epoch_ms(text: &str) -> Option<u64> {
    let bytes = text.as_bytes();
    let is_form = bytes.len() == 24
        && b"----T::.Z".iter().zip([4, 7, 7, 7, 10, 13, 16, 19, 23]).all(|(c, at)| bytes[at] == *c);
    let number = |from: usize, to: usize| text.get(from..to)?.parse::<u64>().ok();
    if !is_form {
        return None;
    }
    let (year, month, day) = (number(0, 4)?, number(5, 7)?, number(8, 10)?);
    let days = days(year, month, day).filter(|_| (1..=12).contains(&month))?;
    let seconds = days * 86_400 + number(11, 13)? * 3600 + number(14, 16)? * 60 + number(17, 19)?;
    Some(seconds * 1000 + number(20, 23)?)
}

/// The days from 1970-01-01 to a Gregorian date, by eras of 400 years from a year that begins in
/// March.
const fn days(year: u64, month: u64, day: u64) -> Option<u64> {
    let shifted = if month <= 2 { year.saturating_sub(1) } else { year };
    let (era, year_of_era) = (shifted / 400, shifted % 400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day.saturating_sub(1);
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    (era * 146_097 + day_of_era).checked_sub(719_468)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_as_they_are_written() {
        let leap = 1_709_164_800_000;
        for at_ms in [0, 1, 999, 951_782_399_999, 951_782_400_000, leap, 4_102_444_799_123] {
            assert_eq!(epoch_ms(&time(at_ms)), Some(at_ms), "{}", time(at_ms));
        }
        for day in 0..1500 {
            let at_ms = leap + day * 86_400_000;
            assert_eq!(epoch_ms(&time(at_ms)), Some(at_ms), "{}", time(at_ms));
        }
    }

    #[test]
    fn lines_are_read_and_nonsense_is_none() {
        let parse = |text: &str| FileLine::parse(text.as_bytes());
        let at = time(1_700_000_000_000);
        let line = parse(&format!("{at} 7 stderr  two words ")).unwrap();
        let (stream, text) = (Stream::Stderr, " two words ".to_owned());
        let kept = KeptLine { number: 7, at_ms: 1_700_000_000_000, stream, text };
        assert_eq!(line, FileLine::Kept(kept));
        let line = lost(&at, 9, 2);
        assert_eq!(parse(line.trim_end()), Some(FileLine::Lost { number: 9, count: 2 }));
        for wrong in [
            String::new(),
            at.clone(),
            format!("{at} 7 stderr"),
            format!("{at} x stderr y"),
            format!("{at} 7 stdin y"),
            format!("{at} 7 lost many"),
            "2023-11-14T22:13:20.0000 7 stderr x".into(),
            "2023-13-14T22:13:20.000Z 7 stderr x".into(),
            "1969-12-31T23:59:59.999Z 7 stderr x".into(),
            "éééééééééééé 7 stderr x".into(),
        ] {
            assert_eq!(parse(&wrong), None, "{wrong}");
        }
    }
}
