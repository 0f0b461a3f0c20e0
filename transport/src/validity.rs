//! Reads the validity of a certificate from its DER (RFC 5280, section 4.1.2.5), to warn the
//! operator in time. rustls checks the certificates of peers.

use jiff::Timestamp;
use jiff::tz::TimeZone;
use x509_cert::Certificate;
use x509_cert::der::Decode;
use x509_cert::time::Time;

/// When a certificate is valid, in seconds since 1970 (UTC).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Validity {
    /// The first second (`notBefore`).
    pub from: i64,
    /// The last second (`notAfter`).
    pub until: i64,
}

/// The validity of a certificate in DER; `None` if it can't be read.
pub fn of(der: &[u8]) -> Option<Validity> {
    let certificate = Certificate::from_der(der).ok()?;
    let validity = certificate.tbs_certificate().validity();
    let seconds = |time: Time| i64::try_from(time.to_unix_duration().as_secs()).ok();
    Some(Validity { from: seconds(validity.not_before)?, until: seconds(validity.not_after)? })
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
