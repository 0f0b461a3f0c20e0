//! The token file: one line for each token, with its rights and the values that check its proof.
//! `private` reads and writes the file itself.
//!
//! ```text
//! # isect tokens; made and changed by 'isectd token'
//! decoy 4f0c…
//! token ops operator:danger argon2id:19456:2:1:SALT:STORED:SERVER
//! token shop client:echo,sum argon2id:19456:2:1:SALT:STORED:SERVER
//! anonymous client:echo
//! ```

use crate::scram::{Cost, Key, Verifier, hmac, sha256};
use crate::token::Token;
use protocol::proof::{
    LANES, MAC_BYTES, MEMORY_KIB, PASSES, SALT_BYTES_MAX, SALT_BYTES_MIN, from_digits, statement,
};
use protocol::show::digits;
use protocol::{Binding, Bindings, Challenge, Channel, Claim, Proof, Rights, Role, TokenName};
use std::collections::BTreeMap;
use std::fmt::{self, Write as _};

/// Most bytes of a token file.
pub const FILE_BYTES_MAX: u64 = 1 << 20;
/// Most tokens in a token file.
pub const TOKENS_MAX: usize = 2048;
/// Bytes of a new salt.
const SALT_BYTES: usize = 16;
/// First line of a new file.
const HEAD: &str = "# isect tokens; made and changed by 'isectd token'";
/// The only hash that is supported; it is the first part of a token's hash field.
const HASH: &str = "argon2id";

/// What a verifier stores of one token.
#[derive(Clone, Debug)]
pub struct Entry {
    /// What its holder may do.
    pub rights: Rights,
    salt: Vec<u8>,
    cost: Cost,
    verifier: Verifier,
}

impl Entry {
    /// Differs from the stamp before when the token was renewed. It reveals nothing of the token.
    pub fn stamp(&self) -> u64 {
        let both = [&self.verifier.stored[..], &self.verifier.server[..]].concat();
        let hash = sha256(&both);
        hash[..8].iter().fold(0, |sum, byte| sum << 8 | u64::from(*byte))
    }

    /// Makes the entry of a new token, with a new salt.
    ///
    /// # Errors
    /// The kernel gives no random bytes, or the cost is out of Argon2's range.
    pub fn make(token: &Token, rights: Rights, cost: Cost) -> Result<Self, String> {
        let salt = crate::random_bytes::<SALT_BYTES>()?.to_vec();
        let verifier = token.keys(&salt, cost)?.verifier();
        Ok(Self { rights, salt, cost, verifier })
    }

    /// The line of the token file for this entry, without a line end.
    pub fn line(&self, name: &TokenName) -> String {
        let Cost { memory_kib, passes, lanes } = self.cost;
        let roles: String = self.rights.roles().iter().map(|role| format!("{role} ")).collect();
        format!(
            "token {name} {roles}{HASH}:{memory_kib}:{passes}:{lanes}:{}:{}:{}",
            digits(&self.salt),
            digits(&self.verifier.stored),
            digits(&self.verifier.server)
        )
    }
}

/// Why a proof is refused. This is for the log only: the peer is not told which it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fault {
    /// No token of that name is known.
    Unknown,
    /// The token is known, the proof is wrong.
    Wrong,
    /// It is bound to something that is not taken on its connection.
    Untaken(Binding),
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unknown => f.write_str("no token of that name is known"),
            Self::Wrong => f.write_str("the proof is wrong"),
            Self::Untaken(binding) => write!(f, "proofs by {binding} are not taken here"),
        }
    }
}

/// A parsed token file.
#[derive(Clone, Debug)]
pub struct TokenList {
    /// The tokens by name, at most [`TOKENS_MAX`].
    pub entries: BTreeMap<TokenName, Entry>,
    /// The rights of a peer without a token: services only.
    pub anonymous: Rights,
    /// Key that derives the challenges for unknown names, so that each name always gets the same
    /// one.
    decoy: Key,
}

impl TokenList {
    /// Parses the text of a token file.
    ///
    /// # Errors
    /// Names the line and what is wrong with it, but never repeats the line.
    pub fn parse(text: &str) -> Result<Self, String> {
        let (mut entries, mut anonymous, mut decoy) = (BTreeMap::new(), None, None);
        for (at, line) in text.lines().enumerate() {
            let wrong = |why: String| format!("line {}: {why}", at + 1);
            let words: Vec<&str> = line.split_whitespace().collect();
            let twice = |what: &str| Err(wrong(format!("{what} stands there twice")));
            match words.as_slice() {
                [] => {}
                [first, ..] if first.starts_with('#') => {}
                ["decoy", key] => {
                    if decoy.replace(self::key(key).map_err(wrong)?).is_some() {
                        return twice("'decoy'");
                    }
                }
                ["anonymous", roles @ ..] => {
                    if anonymous.replace(rights(roles).map_err(wrong)?).is_some() {
                        return twice("'anonymous'");
                    }
                }
                ["token", name, roles @ .., hash] => {
                    let name = TokenName::new(name).map_err(|e| wrong(e.to_string()))?;
                    let entry = entry(roles, hash).map_err(wrong)?;
                    if entries.insert(name.clone(), entry).is_some() {
                        return twice(&format!("token '{name}'"));
                    }
                }
                _ => {
                    let form = "a line is 'token NAME ROLE… HASH', 'anonymous ROLE…' or a comment";
                    return Err(wrong(format!("{form}; 'isectd token add' makes such lines")));
                }
            }
            if entries.len() > TOKENS_MAX {
                return Err(wrong(format!("more than {TOKENS_MAX} tokens")));
            }
        }
        let anonymous = anonymous.unwrap_or_default();
        if anonymous.host || anonymous.operator.is_some() {
            return Err(
                "'anonymous' can be client:…, worker:…, publish:… and subscribe:… only".into()
            );
        }
        let decoy = decoy.map_or_else(crate::random_bytes, Ok)?;
        Ok(Self { entries, anonymous, decoy })
    }

    /// Parses the text of a token file that is to be used. It must not be empty: no program writes
    /// an empty one, but a full disk or a mistake leaves one.
    ///
    /// # Errors
    /// See [`TokenList::parse`].
    pub fn of_file(text: &str) -> Result<Self, String> {
        if text.trim_matches(|c: char| c.is_whitespace() || c == '\0').is_empty() {
            return Err("is empty, and no token file is: 'isectd token add' makes one".into());
        }
        Self::parse(text)
    }

    /// Makes the challenge to a claim on a connection where proofs can be bound to this; `None`
    /// only without TLS. An unknown name gets a challenge that looks like any other and changes
    /// only in its nonce, so nobody learns which names exist.
    ///
    /// # Errors
    /// The kernel gives no random bytes.
    pub fn challenge(
        &self,
        claim: &Claim,
        bindings: Option<&Bindings>,
    ) -> Result<Challenge, String> {
        let own = crate::random_bytes::<24>()?;
        Ok(self.challenge_with(claim, bindings, &own))
    }

    /// As [`TokenList::challenge`], with given bytes as the verifier's nonce; for tests and
    /// documents.
    pub fn challenge_with(
        &self,
        claim: &Claim,
        bindings: Option<&Bindings>,
        own: &[u8],
    ) -> Challenge {
        let (salt, cost) = match self.entries.get(&claim.token) {
            Some(entry) => (entry.salt.clone(), entry.cost),
            None => {
                let salt = hmac(&self.decoy, claim.token.as_str().as_bytes());
                (salt[..SALT_BYTES].to_vec(), Cost::default())
            }
        };
        let Cost { memory_kib, passes, lanes } = cost;
        let nonce = [claim.nonce.as_slice(), own].concat();
        let channels = bindings.map(Bindings::channels);
        Challenge { salt, memory_kib, passes, lanes, nonce, channels }
    }

    /// Checks a proof; returns the token's entry and the signature that answers the proof. An
    /// unknown name costs the same work. The statement has the challenge as it was sent, so a list
    /// of channels that was changed on the way makes the proof wrong.
    ///
    /// # Errors
    /// Says why the proof is refused, for the log.
    pub fn check(&self, login: &IssuedChallenge, proof: &Proof) -> Result<(&Entry, String), Fault> {
        let IssuedChallenge { role, target, token, challenge, .. } = login;
        // This is said before any name is looked up, so it tells nothing about the token.
        let channel = login.channel(proof.channel).map_err(Fault::Untaken)?;
        let text = statement(*role, target, token, challenge, channel.as_ref());
        let Some(entry) = self.entries.get(token) else {
            let nobody = Verifier { stored: self.decoy, server: self.decoy };
            let _ = std::hint::black_box(nobody.verify(&text, &proof.proof));
            return Err(Fault::Unknown);
        };
        let signature = entry.verifier.verify(&text, &proof.proof).ok_or(Fault::Wrong)?;
        Ok((entry, digits(&signature)))
    }
}

/// A challenge that was sent, and the login that it belongs to. The proof is awaited.
#[derive(Clone, Debug)]
pub struct IssuedChallenge {
    /// The role of the side that logs in.
    pub role: Role,
    /// The service or host that it logs in to; see [`statement`].
    pub target: String,
    /// The token that it claims to know.
    pub token: TokenName,
    /// The challenge as it was sent.
    pub challenge: Challenge,
    /// What proofs on its connection can be bound to; `None` only without TLS.
    pub bindings: Option<Bindings>,
}

impl IssuedChallenge {
    /// What a proof that names this binding, or none, must be bound to; `None` only without TLS.
    ///
    /// # Errors
    /// The binding is not taken on this connection.
    fn channel(&self, named: Option<Binding>) -> Result<Option<Channel>, Binding> {
        match (&self.bindings, named) {
            (None, None) => Ok(None),
            (None, Some(named)) => Err(named),
            (Some(bindings), named) => {
                let binding = named.unwrap_or(Binding::Exporter);
                bindings.channel(binding).map(Some).ok_or(binding)
            }
        }
    }
}

fn rights(roles: &[&str]) -> Result<Rights, String> {
    let mut rights = Rights::default();
    roles.iter().try_for_each(|role| rights.add(role))?;
    Ok(rights)
}

fn key(text: &str) -> Result<Key, String> {
    let bytes = from_digits(text).and_then(|bytes| bytes.try_into().ok());
    bytes.ok_or_else(|| format!("a key is {MAC_BYTES} bytes as lower-case hex"))
}

fn entry(roles: &[&str], hash: &str) -> Result<Entry, String> {
    let form = || "a hash is argon2id:MEMORY_KIB:PASSES:LANES:SALT:STORED:SERVER".to_owned();
    let parts: Vec<&str> = hash.split(':').collect();
    let [HASH, memory_kib, passes, lanes, salt, stored, server] = parts.as_slice() else {
        return Err(form());
    };
    let number = |text: &str, range: std::ops::RangeInclusive<u32>| {
        text.parse().ok().filter(|n| range.contains(n)).ok_or_else(form)
    };
    let cost = Cost {
        memory_kib: number(memory_kib, MEMORY_KIB)?,
        passes: number(passes, PASSES)?,
        lanes: number(lanes, LANES)?,
    };
    let salt = from_digits(salt).ok_or_else(form)?;
    if !(SALT_BYTES_MIN..=SALT_BYTES_MAX).contains(&salt.len()) {
        return Err(format!("a salt has {SALT_BYTES_MIN} to {SALT_BYTES_MAX} bytes"));
    }
    let verifier = Verifier { stored: key(stored)?, server: key(server)? };
    Ok(Entry { rights: rights(roles)?, salt, cost, verifier })
}

/// The text of a token file with one line added; `text` is empty for a new file.
///
/// # Errors
/// The name is taken, or `text` is not a valid token file.
pub fn with_line(text: &str, name: &TokenName, entry: &Entry) -> Result<String, String> {
    if TokenList::parse(text)?.entries.contains_key(name) {
        return Err(format!("token '{name}' is there already; 'token remove {name}' first"));
    }
    let mut out = text.to_owned();
    if out.is_empty() {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{HEAD}\ndecoy {}", digits(&crate::random_bytes::<MAC_BYTES>()?));
    } else if !out.ends_with('\n') {
        out.push('\n');
    }
    out.push_str(&entry.line(name));
    out.push('\n');
    Ok(out)
}

/// The text of a token file with one token removed.
///
/// # Errors
/// There is no token with this name, or `text` is not a valid token file.
pub fn without_line(text: &str, name: &TokenName) -> Result<String, String> {
    if !TokenList::parse(text)?.entries.contains_key(name) {
        return Err(format!("there is no token '{name}'; 'token list' shows them"));
    }
    let is_it = |line: &&str| {
        let mut words = line.split_whitespace();
        words.next() == Some("token") && words.next() == Some(name.as_str())
    };
    let kept: Vec<&str> = text.lines().filter(|line| !is_it(line)).collect();
    Ok(kept.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::prover::Prover;

    const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

    fn name(text: &str) -> TokenName {
        TokenName::new(text).unwrap()
    }

    fn token(text: &str) -> Token {
        Token::parse(&format!("{text}.0123456789abcdef")).unwrap()
    }

    /// A file with these tokens and roles.
    fn file(tokens: &[(&str, &str)]) -> String {
        tokens.iter().fold(String::new(), |text, (who, roles)| {
            let rights = rights(&roles.split(' ').collect::<Vec<_>>()).unwrap();
            let entry = Entry::make(&token(who), rights, CHEAP).unwrap();
            with_line(&text, &name(who), &entry).unwrap()
        })
    }

    fn prove(list: &TokenList, who: &Token) -> (IssuedChallenge, Proof, Prover) {
        let mut prover = Prover::begin(who, Role::Client, "echo").unwrap();
        let challenge = list.challenge(prover.claim(), None).unwrap();
        let proof = prover.answer(&challenge, None).unwrap();
        let target = "echo".to_owned();
        let token = who.name().clone();
        (
            IssuedChallenge { role: Role::Client, target, token, challenge, bindings: None },
            proof,
            prover,
        )
    }

    #[test]
    fn a_token_gets_in_and_both_sides_know_it() {
        let list = TokenList::parse(&file(&[("ops", "operator:read"), ("shop", "client:echo")]));
        let list = list.unwrap();
        let (login, proof, prover) = prove(&list, &token("shop"));
        let (entry, signature) = list.check(&login, &proof).unwrap();
        assert_eq!(entry.rights.to_string(), "client:echo");
        assert!(prover.is_proven(Some(&signature)));
        assert!(!prover.is_proven(None) && !prover.is_proven(Some("")));
        let other = prove(&list, &token("shop")).2;
        assert!(!other.is_proven(Some(&signature)), "the signature of another login");
    }

    #[test]
    fn a_proof_is_good_for_one_login_of_one_token_to_one_service() {
        let list = TokenList::parse(&file(&[("ops", "operator:read"), ("shop", "client:echo")]));
        let list = list.unwrap();
        let (login, proof, _) = prove(&list, &token("shop"));
        let replayed = prove(&list, &token("shop")).0;
        assert_eq!(list.check(&replayed, &proof).unwrap_err(), Fault::Wrong, "replayed");
        for changed in [
            IssuedChallenge { target: "sum".into(), ..login.clone() },
            IssuedChallenge { role: Role::Worker, ..login.clone() },
            IssuedChallenge { token: name("ops"), ..login.clone() },
        ] {
            assert_eq!(list.check(&changed, &proof).unwrap_err(), Fault::Wrong, "{changed:?}");
        }
        assert!(list.check(&login, &proof).is_ok());
        let wrong = Token::parse("shop.0123456789abcdeF").unwrap();
        let (login, proof, _) = prove(&list, &wrong);
        assert_eq!(list.check(&login, &proof).unwrap_err(), Fault::Wrong);
    }

    /// A login by this prover where proofs can be bound to this.
    fn issued(challenge: Challenge, bindings: Option<Bindings>) -> IssuedChallenge {
        let (target, token) = ("echo".to_owned(), name("shop"));
        IssuedChallenge { role: Role::Client, target, token, challenge, bindings }
    }

    fn begin() -> Prover {
        Prover::begin(&token("shop"), Role::Client, "echo").unwrap()
    }

    /// A connection with this secret, where a certificate with this hash is shown.
    fn bindings(secret: u8, end_point: Option<&[u8]>) -> Bindings {
        Bindings { exporter: [secret; 32], end_point: end_point.map(Into::into) }
    }

    #[test]
    fn a_proof_is_good_on_the_connection_it_was_made_for() {
        let list = TokenList::parse(&file(&[("shop", "client:echo")])).unwrap();
        let connections = [None, Some(bindings(1, None)), Some(bindings(2, Some(&[9])))];
        for made in &connections {
            let channel = made.as_ref().and_then(|made| made.channel(Binding::Exporter));
            let mut prover = begin();
            let challenge = list.challenge(prover.claim(), made.as_ref()).unwrap();
            let proof = prover.answer(&challenge, channel.as_ref()).unwrap();
            assert_eq!(proof.channel, None, "the exporter is not named");
            for shown in &connections {
                let login = issued(challenge.clone(), shown.clone());
                let checked = list.check(&login, &proof);
                assert_eq!(checked.is_ok(), made == shown, "made for {made:?}, shown on {shown:?}");
                if let Ok((_, signature)) = checked {
                    assert!(prover.is_proven(Some(&signature)));
                }
            }
        }
    }

    #[test]
    fn a_proof_may_be_bound_to_the_certificate_where_that_is_taken() {
        let list = TokenList::parse(&file(&[("shop", "client:echo")])).unwrap();
        let here = bindings(1, Some(&[7; 48]));
        let prove = |channels: Option<&Bindings>, hash: &[u8]| {
            let mut prover = begin();
            let challenge = list.challenge(prover.claim(), channels).unwrap();
            let channel = Channel::EndPoint(hash.to_vec());
            let proof = prover.answer(&challenge, Some(&channel));
            (proof, challenge, prover)
        };
        let (proof, challenge, prover) = prove(Some(&here), &[7; 48]);
        let proof = proof.unwrap();
        assert_eq!(proof.channel, Some(Binding::EndPoint));
        // Another connection with the same certificate: the difference to the exporter.
        for shown in [here.clone(), bindings(2, Some(&[7; 48]))] {
            let login = issued(challenge.clone(), Some(shown));
            let (_, signature) = list.check(&login, &proof).unwrap();
            assert!(prover.is_proven(Some(&signature)));
        }
        let untaken = Fault::Untaken(Binding::EndPoint);
        for (shown, fault) in [
            (Some(bindings(1, Some(&[8; 48]))), Fault::Wrong),
            (Some(bindings(1, Some(&[7; 32]))), Fault::Wrong),
            (Some(bindings(1, None)), untaken),
            (None, untaken),
        ] {
            let login = issued(challenge.clone(), shown.clone());
            assert_eq!(list.check(&login, &proof).unwrap_err(), fault, "{shown:?}");
            let login = IssuedChallenge { token: name("nobody"), ..login };
            let unknown = if fault == untaken { untaken } else { Fault::Unknown };
            assert_eq!(list.check(&login, &proof).unwrap_err(), unknown, "{shown:?}");
        }
        // What it says it is bound to is part of what is proved.
        let login = issued(challenge, Some(here.clone()));
        for channel in [None, Some(Binding::Exporter)] {
            let renamed = Proof { channel, ..proof.clone() };
            assert_eq!(list.check(&login, &renamed).unwrap_err(), Fault::Wrong);
        }
        // Where the list has it not, or there is none, nothing is proved.
        for channels in [None, Some(&bindings(1, None))] {
            let why = prove(channels, &[7; 48]).0.unwrap_err();
            let named = channels.map_or_else(|| "none".to_owned(), |b| b.channels().to_string());
            assert!(why.contains("tls-server-end-point (it names: "), "{why}");
            assert!(why.contains(&named), "{why}");
        }
    }

    #[test]
    fn a_list_of_channels_that_was_changed_on_the_way_makes_the_proof_wrong() {
        let list = TokenList::parse(&file(&[("shop", "client:echo")])).unwrap();
        let here = bindings(1, Some(&[7; 48]));
        for (heard, is_right) in [
            ("tls-exporter tls-server-end-point", true),
            ("tls-server-end-point", false),
            ("tls-server-end-point tls-exporter", false),
            ("tls-exporter tls-server-end-point x", false),
        ] {
            let mut prover = begin();
            let sent = list.challenge(prover.claim(), Some(&here)).unwrap();
            let channels = protocol::proof::Channels::parse(heard);
            let heard = Challenge { channels, ..sent.clone() };
            let channel = Channel::EndPoint(vec![7; 48]);
            let proof = prover.answer(&heard, Some(&channel)).unwrap();
            let checked = list.check(&issued(sent, Some(here.clone())), &proof);
            assert_eq!(checked.is_ok(), is_right, "{heard:?}");
        }
        // Who has the exporter does not look at the list, and proves the same without it.
        let mut prover = begin();
        let sent = list.challenge(prover.claim(), Some(&here)).unwrap();
        let heard = Challenge { channels: None, ..sent.clone() };
        let channel = here.channel(Binding::Exporter);
        let proof = prover.answer(&heard, channel.as_ref()).unwrap();
        assert!(list.check(&issued(sent, Some(here)), &proof).is_ok());
    }

    #[test]
    fn a_name_that_is_not_known_gets_a_challenge_like_any_other() {
        let text = file(&[("ops", "operator:read")]);
        let list = TokenList::parse(&text).unwrap();
        let claim = |who: &str| Claim { token: name(who), nonce: vec![1; 16] };
        let one = list.challenge_with(&claim("nobody"), None, &[2; 24]);
        let again =
            TokenList::parse(&text).unwrap().challenge_with(&claim("nobody"), None, &[2; 24]);
        assert_eq!(one, again, "the same after a restart");
        let other = list.challenge_with(&claim("noone"), None, &[2; 24]);
        assert_ne!(one.salt, other.salt);
        let real = Entry::make(&token("x"), Rights::default(), Cost::default()).unwrap();
        assert_eq!(one.salt.len(), real.salt.len());
        assert_eq!((one.memory_kib, one.passes, one.lanes), (19_456, 2, 1));
        let (login, proof, _) = prove(&list, &token("ops"));
        let login = IssuedChallenge { token: name("nobody"), ..login };
        assert_eq!(list.check(&login, &proof).unwrap_err(), Fault::Unknown);
    }

    #[test]
    fn a_challenge_to_somebody_else_is_not_answered() {
        let list = TokenList::parse(&file(&[("ops", "host")])).unwrap();
        let ops = token("ops");
        let mut prover = Prover::begin(&ops, Role::Broker, "h1").unwrap();
        let mut challenge = list.challenge(prover.claim(), None).unwrap();
        challenge.nonce[0] ^= 1;
        assert!(prover.answer(&challenge, None).unwrap_err().contains("nonce"));
        challenge.nonce[0] ^= 1;
        challenge.nonce.truncate(24 + 15);
        assert!(prover.answer(&challenge, None).unwrap_err().contains("nonce"));
        let challenge = list.challenge(prover.claim(), None).unwrap();
        assert!(prover.answer(&challenge, None).is_ok());
        assert!(prover.answer(&challenge, None).unwrap_err().contains("second"));
    }

    #[test]
    fn a_token_that_may_nothing_is_a_line_like_any_other() {
        let entry = Entry::make(&token("idle"), Rights::default(), CHEAP).unwrap();
        let text = with_line("", &name("idle"), &entry).unwrap();
        assert!(TokenList::parse(&text).unwrap().entries["idle"].rights.is_empty());
    }

    #[test]
    fn lines_come_and_go_and_the_rest_stays() {
        let text = file(&[("ops", "operator:danger"), ("shop", "client:echo worker:echo")]);
        let text = format!("{text}# a comment\n\nanonymous client:echo\n");
        let list = TokenList::parse(&text).unwrap();
        assert_eq!(list.entries.len(), 2);
        assert_eq!(list.anonymous.to_string(), "client:echo");
        let left = without_line(&text, &name("ops")).unwrap();
        assert!(left.contains("# a comment") && left.contains("decoy ") && left.contains("shop"));
        assert!(!left.contains("token ops"));
        assert!(without_line(&left, &name("ops")).unwrap_err().contains("no token 'ops'"));
        let entry = &list.entries["shop"];
        assert!(with_line(&left, &name("shop"), entry).unwrap_err().contains("there already"));
        let back = with_line(left.trim_end(), &name("ops"), entry).unwrap();
        assert_eq!(TokenList::parse(&back).unwrap().entries.len(), 2);
        assert_ne!(list.entries["shop"].stamp(), list.entries["ops"].stamp());
        let again = TokenList::parse(&text).unwrap();
        assert_eq!(list.entries["shop"].stamp(), again.entries["shop"].stamp());
    }

    #[test]
    fn a_bad_line_is_named_and_not_shown() {
        let good = file(&[("ops", "operator:danger")]);
        let hash = good.split_whitespace().last().unwrap();
        for (line, part) in [
            ("nonsense", "a line is 'token NAME"),
            ("token ops2 operator:danger", "a hash is argon2id"),
            (&format!("token ops2 {hash}"), ""),
            (&format!("token ops2 admin {hash}"), "no role"),
            (&format!("token ops client:* {hash}"), "'ops' stands there twice"),
            (&format!("token 7 client:* {hash}"), "begins with '7'"),
            (&format!("token x client:* {}", hash.replace(":64:", ":1:")), "a hash is"),
            (&format!("token x client:* {}0", hash), "32 bytes"),
            ("anonymous operator:read", "publish:… and subscribe:… only"),
            ("anonymous host", "publish:… and subscribe:… only"),
            ("decoy 00", "32 bytes"),
        ] {
            let result = TokenList::parse(&format!("{good}{line}\n"));
            if part.is_empty() {
                assert!(result.is_ok(), "a token may have no role");
                continue;
            }
            let error = result.unwrap_err();
            assert!(error.contains(part) && !error.contains(hash), "{line}: {error}");
        }
        let error = TokenList::parse(&format!("{good}x\n")).unwrap_err();
        assert!(error.starts_with("line 4: "), "{error}");
    }

    #[test]
    fn so_many_tokens_and_no_more() {
        let good = file(&[("ops", "operator:danger")]);
        let hash = good.split_whitespace().last().unwrap();
        let lines = |count: usize| {
            (0..count).map(|n| format!("token t{n} client:* {hash}\n")).collect::<String>()
        };
        assert_eq!(TokenList::parse(&lines(TOKENS_MAX)).unwrap().entries.len(), TOKENS_MAX);
        assert!(TokenList::parse(&lines(TOKENS_MAX + 1)).unwrap_err().contains("2048"));
    }
}
