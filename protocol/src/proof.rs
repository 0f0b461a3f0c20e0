//! The messages with which a token is proved without being sent: the claim in a login, worker-login
//! or exec-hello, the challenge, the proof, and the text that both sides sign. The arithmetic is in
//! the crate `auth`.

pub use crate::bodies::{Challenge, Proof};

use crate::keys::{Hex, Keys, One, forms, is_not, needed};
use crate::kinds::Role;
use crate::lines::{BodyError, Lines};
use crate::names::TokenName;
use crate::show::digits;
use std::fmt::{self, Write as _};
use std::sync::Arc;

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

/// Most names in the line `channels` of a challenge.
pub const CHANNELS_MAX: usize = 8;
/// Most characters of one of those names.
const CHANNEL_NAME_MAX: usize = 32;

/// The key `nonce` of a claim.
const NONCE: One<Hex, Vec<u8>> = needed(Hex(NONCE_BYTES_MIN, NONCE_BYTES_MAX));

/// The kind of a channel binding: what of its TLS connection a proof includes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Binding {
    /// RFC 9266: a secret that only the two ends of this connection know.
    Exporter,
    /// RFC 5929: the hash of the listener's certificate. For provers whose TLS has no exporter.
    EndPoint,
}

impl Binding {
    /// Every kind, as a verifier that takes them all prefers them.
    pub const ALL: [Self; 2] = [Self::Exporter, Self::EndPoint];

    /// The name in the registry of RFC 5056, which stands on the wire.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Exporter => "tls-exporter",
            Self::EndPoint => "tls-server-end-point",
        }
    }
}

impl fmt::Display for Binding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// What a proof is bound to, with its value, as one end of a TLS connection sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Channel {
    /// A secret of the two ends of one connection. A proof that includes it is worthless on every
    /// other connection, so nobody in between can pass it on.
    Exporter([u8; CHANNEL_BYTES]),
    /// The hash of the listener's certificate. A proof that includes it is worthless where another
    /// certificate is shown; whoever has the key of this one can pass it on.
    EndPoint(Vec<u8>),
}

/// What proofs on one TLS connection can be bound to, at the end that verifies them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Bindings {
    /// The secret of this connection.
    pub exporter: [u8; CHANNEL_BYTES],
    /// The hash of the certificate that this connection began with; `None` = such proofs are not
    /// taken here.
    pub end_point: Option<Arc<[u8]>>,
}

impl Bindings {
    /// The kinds that are taken, for the challenge.
    pub fn channels(&self) -> Channels {
        let is_taken = |binding: &Binding| self.channel(*binding).is_some();
        let names: Vec<&str> =
            Binding::ALL.into_iter().filter(is_taken).map(Binding::name).collect();
        Channels(names.join(" "))
    }

    /// The value of this kind; `None` = it is not taken here.
    pub fn channel(&self, binding: Binding) -> Option<Channel> {
        match binding {
            Binding::Exporter => Some(Channel::Exporter(self.exporter)),
            Binding::EndPoint => {
                self.end_point.as_deref().map(|hash| Channel::EndPoint(hash.into()))
            }
        }
    }
}

/// The line `channels` of a challenge: the names of the channel bindings that the verifier takes on
/// this connection, in its order of preference. A name that is not known here stays in it, because
/// the statement has the line as it came.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Channels(String);

impl Channels {
    /// Reads the names; `None` = they are not 1 to [`CHANNELS_MAX`] words with one blank between.
    pub fn parse(text: &str) -> Option<Self> {
        let is_name = |name: &str| {
            (1..=CHANNEL_NAME_MAX).contains(&name.len())
                && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-' || b == b'.')
        };
        let is_list = text.split(' ').all(is_name) && text.split(' ').count() <= CHANNELS_MAX;
        is_list.then(|| Self(text.to_owned()))
    }

    /// Whether this kind is among them.
    pub fn has(&self, binding: Binding) -> bool {
        self.0.split(' ').any(|name| name == binding.name())
    }
}

impl fmt::Display for Channels {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(&self.0)
    }
}

/// The value of `channels` in a challenge.
pub(crate) struct ChannelNames;
/// The value of `channel` in a proof.
pub(crate) struct ChannelName;

forms! {
    ChannelNames, Channels, "names, a blank between two",
        |key, word| Channels::parse(word).ok_or_else(|| is_not(key, word, "no list of names")),
        |value| value;
    ChannelName, Binding, "`tls-exporter` or `tls-server-end-point`",
        |key, word| {
            let known = Binding::ALL.into_iter().find(|binding| binding.name() == word);
            known.ok_or_else(|| {
                is_not(key, word, "neither 'tls-exporter' nor 'tls-server-end-point'")
            })
        },
        |value| value;
}

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
/// third party can't leave anything out: who binds to less than the exporter signs what it was
/// offered, and the verifier puts in what it offered.
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
    match channel {
        None => {}
        Some(Channel::Exporter(secret)) => {
            let _ = writeln!(out, "channel {}", digits(secret));
        }
        Some(Channel::EndPoint(hash)) => {
            if let Some(channels) = &challenge.channels {
                let _ = writeln!(out, "channels {channels}");
            }
            let _ = writeln!(out, "channel {} {}", Binding::EndPoint, digits(hash));
        }
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
        Challenge { salt, memory_kib: 19_456, passes: 2, lanes: 1, nonce, channels: None }
    }

    fn channels() -> Option<Channels> {
        Channels::parse("tls-exporter tls-server-end-point")
    }

    #[test]
    fn bodies_are_read_as_they_were_rendered() {
        let given = challenge();
        assert_eq!(Challenge::parse(&given.render()), Ok(given));
        let given = Challenge { channels: channels(), ..challenge() };
        assert_eq!(Challenge::parse(&given.render()), Ok(given));
        for channel in [None, Some(Binding::Exporter), Some(Binding::EndPoint)] {
            let given = Proof { proof: [7; MAC_BYTES], channel };
            assert_eq!(Proof::parse(&given.render()), Ok(given));
        }
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
        let proof = |channel: &str| {
            Proof::parse(format!("proof {}\nchannel {channel}\n", "00".repeat(32)).as_bytes())
        };
        assert_eq!(proof("tls-server-end-point").unwrap().channel, Some(Binding::EndPoint));
        for wrong in ["tls-unique", "", "TLS-EXPORTER", "tls-exporter "] {
            let error = proof(wrong).unwrap_err();
            assert!(error.0.contains("neither 'tls-exporter' nor"), "{wrong}: {error}");
        }
    }

    #[test]
    fn the_names_of_channels_stay_as_they_came() {
        let longest = vec!["a".repeat(CHANNEL_NAME_MAX); CHANNELS_MAX].join(" ");
        for text in ["tls-exporter", "x.9 tls-exporter", "tls-server-end-point x", &longest] {
            assert_eq!(Channels::parse(text).unwrap().to_string(), text);
        }
        let many = ["a"; CHANNELS_MAX + 1].join(" ");
        let long = "a".repeat(CHANNEL_NAME_MAX + 1);
        for text in ["", " ", "a  b", " a", "a ", "a\tb", "a\nb", "a,b", "ä", &many, &long] {
            assert_eq!(Channels::parse(text), None, "{text:?}");
        }
        let some = Channels::parse("tls-exporters tls-server-end-point").unwrap();
        assert!(some.has(Binding::EndPoint) && !some.has(Binding::Exporter));
    }

    #[test]
    fn a_listener_names_what_it_takes() {
        let exporter = [1; CHANNEL_BYTES];
        let all = Bindings { exporter, end_point: Some([2; 3].into()) };
        assert_eq!(Some(all.channels()), channels());
        assert_eq!(all.channel(Binding::EndPoint), Some(Channel::EndPoint(vec![2; 3])));
        let one = Bindings { end_point: None, ..all };
        assert_eq!(one.channels().to_string(), "tls-exporter");
        assert_eq!(one.channel(Binding::EndPoint), None);
        assert_eq!(one.channel(Binding::Exporter), Some(Channel::Exporter(exporter)));
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
        let offered = Challenge { channels: channels(), ..small.clone() };
        let exporter = Channel::Exporter([3; CHANNEL_BYTES]);
        // What is offered is no part of it: nothing changes for who has the exporter.
        for challenge in [&small, &offered] {
            let over_tls = statement(Role::Client, "echo", &token, challenge, Some(&exporter));
            let channel = format!("nonce 02020202\nchannel {}\n", "03".repeat(CHANNEL_BYTES));
            assert!(over_tls.ends_with(&channel), "{over_tls}");
        }
        let end_point = Channel::EndPoint(vec![4; 3]);
        let over_tls = statement(Role::Client, "echo", &token, &offered, Some(&end_point));
        let end = "nonce 02020202\nchannels tls-exporter tls-server-end-point\n\
                   channel tls-server-end-point 040404\n";
        assert!(over_tls.ends_with(end), "{over_tls}");
    }
}
