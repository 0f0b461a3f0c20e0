//! The messages with which a token is proved without being sent: the claim in a login, worker-login
//! or exec-hello, the challenge, the proof, and the text that both sides sign. The arithmetic is in
//! the crate `auth`.

pub use crate::bodies::{Challenge, Proof};

use crate::keys::{Hex, Keys, One, needed};
use crate::kinds::Role;
use crate::lines::{BodyError, Lines};
use crate::names::TokenName;
use crate::show::digits;
use std::fmt::Write as _;

/// Fewest random bytes that each side contributes to the nonce.
pub const NONCE_BYTES_MIN: usize = 16;
/// Most random bytes that each side contributes to the nonce.
pub const NONCE_BYTES_MAX: usize = 64;
/// Fewest bytes of a salt.
pub const SALT_BYTES_MIN: usize = 8;
/// Most bytes of a salt.
pub const SALT_BYTES_MAX: usize = 64;
/// Bytes of a proof and of a signature: one HMAC-SHA-256.
pub const MAC_BYTES: usize = 32;
/// Bytes that identify a TLS connection: the length of `tls-exporter` (RFC 9266).
pub const CHANNEL_BYTES: usize = 32;
/// Memory of Argon2id that a prover accepts, in KiB.
pub const MEMORY_KIB: std::ops::RangeInclusive<u32> = 8..=65_536;
/// Passes of Argon2id that a prover accepts.
pub const PASSES: std::ops::RangeInclusive<u32> = 1..=16;
/// Lanes of Argon2id that a prover accepts.
pub const LANES: std::ops::RangeInclusive<u32> = 1..=4;

/// The key `nonce` of a claim.
const NONCE: One<Hex, Vec<u8>> = needed(Hex(NONCE_BYTES_MIN, NONCE_BYTES_MAX));

/// A secret that only the two ends of one TLS connection know: `tls-exporter` of RFC 9266. A proof
/// that includes it is worthless on another connection, so nobody in between can pass it on.
pub type Channel = [u8; CHANNEL_BYTES];

/// Reads lower-case hexadecimal digits, two for each byte; `None` if the text is anything else.
pub fn from_digits(text: &str) -> Option<Vec<u8>> {
    let digit = |c: u8| match c {
        b'0'..=b'9' => Some(c - b'0'),
        b'a'..=b'f' => Some(c - b'a' + 10),
        _ => None,
    };
    let (pairs, rest) = text.as_bytes().as_chunks::<2>();
    if !rest.is_empty() {
        return None;
    }
    pairs.iter().map(|[high, low]| Some(digit(*high)? << 4 | digit(*low)?)).collect()
}

/// The token that a peer says it knows: the lines `token` and `nonce` of its first frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The name of the token's entry in the token file.
    pub token: TokenName,
    /// Random bytes, new for each login; [`NONCE_BYTES_MIN`] to [`NONCE_BYTES_MAX`].
    pub nonce: Vec<u8>,
}

/// The keys `token` and `nonce` of a claim.
pub(crate) struct ClaimKeys;

impl Keys<Option<Claim>> for ClaimKeys {
    fn read(&self, lines: &Lines, key: &str) -> Result<Option<Claim>, BodyError> {
        let Some(token) = lines.get(key) else { return Ok(None) };
        let token = TokenName::new(token).map_err(|e| BodyError(e.to_string()))?;
        Ok(Some(Claim { token, nonce: NONCE.read(lines, "nonce")? }))
    }

    fn write(&self, claim: &Option<Claim>, key: &str, lines: Lines) -> Lines {
        match claim {
            None => lines,
            Some(claim) => NONCE.write(&claim.nonce, "nonce", lines.with(key, &claim.token)),
        }
    }

    fn about(&self, key: &str) -> [String; 3] {
        let [nonce, form, _] = NONCE.about("nonce");
        [format!("`{key}`; {nonce}"), format!("name; {form}"), "none".into()]
    }
}

/// The text that both sides sign, one fact on each line: who logs in, to what, and everything that
/// was said before.
///
/// `role` is the side that proves: client, worker, or the broker towards an execd. `target` is the
/// service that it logs in to or answers for, or the host name that the broker says. `channel`
/// belongs to the connection and is `None` only without TLS. Each side uses its own values, so a
/// third party can't leave anything out.
pub fn statement(
    role: Role,
    target: &str,
    token: &TokenName,
    challenge: &Challenge,
    channel: Option<&Channel>,
) -> String {
    let mut out = format!("isect proof 1\nrole {role}\ntarget {target}\ntoken {token}\n");
    // Writing to a String can't fail.
    let _ = write!(
        out,
        "salt {}\nmemory_kib {}\npasses {}\nlanes {}\nnonce {}\n",
        digits(&challenge.salt),
        challenge.memory_kib,
        challenge.passes,
        challenge.lanes,
        digits(&challenge.nonce)
    );
    if let Some(channel) = channel {
        let _ = writeln!(out, "channel {}", digits(channel));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bodies::Login;
    use crate::names::ServiceName;

    fn challenge() -> Challenge {
        let salt = (1..=16).collect();
        let nonce = (0..48).collect();
        Challenge { salt, memory_kib: 19_456, passes: 2, lanes: 1, nonce }
    }

    #[test]
    fn bodies_are_read_as_they_were_rendered() {
        let given = challenge();
        assert_eq!(Challenge::parse(&given.render()), Ok(given));
        let given = Proof { proof: [7; MAC_BYTES] };
        assert_eq!(Proof::parse(&given.render()), Ok(given));
        let claim = Claim { token: TokenName::new("ops").unwrap(), nonce: vec![9; 16] };
        let login = Login { token: Some(claim), ..Login::to(ServiceName::op()) };
        assert_eq!(Login::parse(&login.render()), Ok(login));
    }

    #[test]
    fn what_is_out_of_range_is_refused_by_name() {
        let text = String::from_utf8(challenge().render().to_vec()).unwrap();
        let salt = digits(&challenge().salt);
        for (from, to, part) in [
            ("memory_kib 19456", "memory_kib 65537", "8 to 65536"),
            ("memory_kib 19456", "memory_kib 7", "8 to 65536"),
            ("passes 2", "passes 0", "1 to 16"),
            ("passes 2", "passes 17", "1 to 16"),
            ("lanes 1", "lanes 5", "1 to 4"),
            ("lanes 1", "lane 1", "'lanes …' is missing"),
            (salt.as_str(), "0102", "'salt' is not 8 to 64 bytes"),
            (salt.as_str(), "0102030405060708A0", "'salt' is not 8 to 64 bytes"),
            (salt.as_str(), "010203040506070809a", "'salt' is not 8 to 64 bytes"),
        ] {
            assert!(text.contains(from));
            let error = Challenge::parse(text.replace(from, to).as_bytes()).unwrap_err();
            assert!(error.0.contains(part), "{to}: {error}");
        }
        assert!(
            Challenge::parse(text.replace("memory_kib 19456", "memory_kib 65536").as_bytes())
                .is_ok()
        );
        assert!(Proof::parse(b"proof 00\n").is_err());
    }

    #[test]
    fn a_claim_has_a_name_and_enough_chance() {
        let login = |lines: &str| Login::parse(format!("service op\n{lines}").as_bytes());
        assert_eq!(login("").unwrap().token, None);
        let nonce = "00".repeat(NONCE_BYTES_MIN);
        assert!(login(&format!("token ops\nnonce {nonce}\n")).unwrap().token.is_some());
        for lines in [
            "token ops\n".to_owned(),
            format!("token ops\nnonce {}\n", &nonce[2..]),
            format!("token ops\nnonce {}\n", "00".repeat(NONCE_BYTES_MAX + 1)),
            format!("token a b\nnonce {nonce}\n"),
            format!("token \nnonce {nonce}\n"),
        ] {
            assert!(login(&lines).is_err(), "{lines}");
        }
    }

    #[test]
    fn the_statement_is_written_down_to_the_byte() {
        let token = TokenName::new("ops").unwrap();
        let small = Challenge { salt: vec![1; 8], nonce: vec![2; 4], ..challenge() };
        assert_eq!(
            statement(Role::Client, "echo", &token, &small, None),
            "isect proof 1\nrole client\ntarget echo\ntoken ops\nsalt 0101010101010101\n\
             memory_kib 19456\npasses 2\nlanes 1\nnonce 02020202\n"
        );
        let over_tls = statement(Role::Client, "echo", &token, &small, Some(&[3; CHANNEL_BYTES]));
        let channel = format!("nonce 02020202\nchannel {}\n", "03".repeat(CHANNEL_BYTES));
        assert!(over_tls.ends_with(&channel), "{over_tls}");
    }
}
