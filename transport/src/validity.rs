//! Reads the validity of a certificate from its DER (RFC 5280, section 4.1.2.5), to warn the
//! operator in time. rustls checks the certificates of peers.

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// When a certificate is valid, in seconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second (`notBefore`).
    pub from: i64,
    /// The last second (`notAfter`).
    pub until: i64,
}

const SEQUENCE: u8 = 0x30;
const EXPLICIT_VERSION: u8 = 0xa0;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;

/// The validity of a certificate in DER; `None` if it can't be read.
pub fn of(der: &[u8]) -> Option<Validity> {
    let (tag, certificate, _) = element(der)?;
    let (inner, to_be_signed, _) = element(certificate)?;
    if (tag, inner) != (SEQUENCE, SEQUENCE) {
        return None;
    }
    let mut rest = to_be_signed;
    if rest.first() == Some(&EXPLICIT_VERSION) {
        rest = element(rest)?.2;
    }
    // Skips serial number, algorithm and issuer.
    for _ in 0..3 {
        rest = element(rest)?.2;
    }
    let (tag, times, _) = element(rest)?;
    let (first, from, rest) = element(times)?;
    let (second, until, _) = element(rest)?;
    let is_right = tag == SEQUENCE;
    is_right.then_some(())?;
    Some(Validity { from: time(first, from)?, until: time(second, until)? })
}

/// The tag and content of the first element, and the bytes after it.
fn element(der: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = if first < 0x80 {
        (usize::from(first), rest)
    } else {
        let count = usize::from(first & 0x7f);
        // A longer length than four bytes would be a certificate of gigabytes.
        if count == 0 || count > 4 || rest.len() < count {
            return None;
        }
        let (bytes, rest) = rest.split_at(count);
        (bytes.iter().fold(0, |length, byte| length << 8 | usize::from(*byte)), rest)
    };
    (rest.len() >= length).then(|| (tag, &rest[..length], &rest[length..]))
}

/// Reads `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`, the forms that certificates use.
fn time(tag: u8, text: &[u8]) -> Option<i64> {
    let digits = text.strip_suffix(b"Z")?;
    if !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    let number = |from: usize, to: usize| {
        digits.get(from..to).map(|d| d.iter().fold(0, |n, d| n * 10 + i64::from(d - b'0')))
    };
    let (year, at) = match (tag, digits.len()) {
        (UTC_TIME, 12) => {
            let year = number(0, 2)?;
            (if year < 50 { 2000 + year } else { 1900 + year }, 2)
        }
        (GENERALIZED_TIME, 14) => (number(0, 4)?, 4),
        _ => return None,
    };
    let (month, day) = (number(at, at + 2)?, number(at + 2, at + 4)?);
    let (hour, minute) = (number(at + 4, at + 6)?, number(at + 6, at + 8)?);
    let second = number(at + 8, at + 10)?;
    if !(1..=12).contains(&month) || !(1..=31).contains(&day) {
        return None;
    }
    Some(((days(year, month, day) * 24 + hour) * 60 + minute) * 60 + second)
}

/// Days from 1970-01-01 to a date of the Gregorian calendar.
const fn days(year: i64, month: i64, day: i64) -> i64 {
    // The year begins in March here, so that the leap day is its last day.
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let of_era = year - era * 400;
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// A time for people: local time with its offset.
pub fn local(seconds: i64) -> String {
    match Timestamp::from_second(seconds) {
        Ok(moment) => {
            let local = moment.to_zoned_datetime(TimeZone::system());
            local.strftime("%Y-%m-%d %H:%M:%S%:z").to_string()
        }
        // RFC 5280 uses the last second of the year 9999 for "no end".
        Err(_) => "the end of the calendar".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_of_both_forms_are_read() {
        assert_eq!(time(UTC_TIME, b"700101000000Z"), Some(0));
        assert_eq!(time(UTC_TIME, b"000229120000Z"), Some(951_825_600));
        assert_eq!(time(GENERALIZED_TIME, b"20500101000000Z"), Some(2_524_608_000));
        for (tag, bad) in [
            (UTC_TIME, &b"20500101000000Z"[..]),
            (UTC_TIME, b"700101000000"),
            (UTC_TIME, b"701301000000Z"),
            (UTC_TIME, b"7001010000xxZ"),
            (2, b"700101000000Z"),
        ] {
            assert_eq!(time(tag, bad), None, "{}", bad.escape_ascii());
        }
    }

    #[test]
    fn moments_are_shown_with_their_offset() {
        for seconds in [0, -1, 951_825_600, 4_102_444_800] {
            let text = local(seconds);
            let back = jiff::ZonedDateTime::strptime("%Y-%m-%d %H:%M:%S%:z", &text).unwrap();
            assert_eq!(back.timestamp().as_second(), seconds, "{text}");
        }
        assert_eq!(local(i64::MAX), "the end of the calendar");
    }

    #[test]
    fn a_real_certificate_says_its_times_and_a_cut_one_nothing() {
        let mut params = rcgen::CertificateParams::new(vec!["a".to_owned()]).unwrap();
        params.not_before = rcgen::date_time_ymd(2024, 2, 29);
        params.not_after = rcgen::date_time_ymd(2055, 12, 31);
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = params.self_signed(&key).unwrap();
        let der = certificate.der();
        let validity = of(der).unwrap();
        assert_eq!((validity.from, validity.until), (1_709_164_800, 2_713_824_000));
        for end in 0..der.len() {
            assert_eq!(of(&der[..end]), None);
        }
        for at in 0..200 {
            let mut bent = der.to_vec();
            bent[at] ^= 0xff;
            let _ = of(&bent);
        }
    }
}
