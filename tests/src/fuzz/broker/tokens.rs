//! Tokens and certificates in the fuzzed world: which exist, who claims one, who proves it. No
//! proof is computed; the fuzzer's bytes choose the result that the reactor would find.

use super::player::BrokerPlayer;
use crate::fuzz::source::Source;
use crate::shell::{Ask, Player, challenge};
use broker::engine::input::{Certificates, Input, Signature, TokenRights, Tokens};
use protocol::bodies::ExecWelcome;
use protocol::frame::Frame;
use protocol::kinds::Role;
use protocol::names::TokenName;
use protocol::proof::{Claim, Proof};
use protocol::rights::Rights;

/// Tokens that there may be.
const NAMES: &[&str] = &["ops", "shop", "gpu"];
/// Roles that the fuzzed tokens get.
const ROLES: &[&str] =
    &["client:*", "client:echo", "worker:echo", "operator:read", "operator:danger", "host"];

/// How far an execd is with its proof, by the frames that were sent and came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ExecdProof {
    /// It got no hello.
    Hello,
    /// The hello named no token, so any welcome will do.
    Welcome,
    /// The hello named a token, and no proof was asked for.
    Challenge,
    /// A proof was asked for; the welcome must be signed.
    Signature,
    /// It sent the welcome that was due.
    Trusted,
}

fn name(source: &mut Source<'_>) -> TokenName {
    TokenName::new(source.pick(NAMES)).expect("a name")
}

/// A claim; mostly none.
pub(super) fn claim(source: &mut Source<'_>) -> Option<Claim> {
    let how = source.byte();
    (how & 7 == 7).then(|| Claim { token: name(source), nonce: vec![how; 16] })
}

fn tokens(source: &mut Source<'_>) -> Tokens {
    let mut tokens = Tokens { file: "tokens".into(), ..Tokens::default() };
    let role = |rights: &mut Rights, source: &mut Source<'_>| {
        rights.add(source.pick(ROLES)).expect("a role");
    };
    for _ in 0..source.below(4) {
        let (name, stamp) = (name(source), source.below(2) as u64);
        let mut rights = Rights::default();
        role(&mut rights, source);
        role(&mut rights, source);
        tokens.tokens.insert(name, TokenRights { rights, stamp });
    }
    if source.is_yes() {
        role(&mut tokens.anonymous, source);
    }
    tokens
}

/// The token file is read, asked for or not.
pub(super) fn reload(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let requester = player.shell.requester(true);
    let tokens = if source.below(4) == 3 {
        Err("it can't be read".to_owned())
    } else {
        Ok(Box::new(tokens(source)))
    };
    player.feed(Input::TokensRead { requester, tokens });
}

/// The certificates are read, asked for or not; mostly the token file is next.
pub(super) fn certificates(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let more = source.below(4) != 3;
    let requester = player.shell.requester(!more);
    let lines = |source: &mut Source<'_>| (0..source.below(3)).map(|_| source.text()).collect();
    let found =
        Certificates { read: lines(source), failed: lines(source), warnings: lines(source) };
    player.feed(Input::CertificatesRead { requester, found, more });
}

/// A challenge is answered, or an answer was checked.
pub(super) fn proof(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    if source.is_yes()
        && let Some(Ask::Challenge(link)) =
            player.shell.take_asked(|ask| matches!(ask, Ask::Challenge(_)))
    {
        let twice = source.below(8) == 7;
        for _ in 0..=usize::from(twice) {
            player.frame(link, Frame::Proof(Proof { proof: [1; 32], channel: None }));
        }
        return;
    }
    let ask = player.shell.take_asked(|ask| matches!(ask, Ask::Verify(..)));
    let Some(Ask::Verify(link, _)) = ask else { return };
    let proven = if source.is_yes() { Ok("00".repeat(32)) } else { Err("wrong".to_owned()) };
    player.feed(Input::Proven { link, proven });
}

/// The signature that proves a token.
fn right() -> String {
    "11".repeat(32)
}

/// What the signature of a welcome is worth.
pub(super) fn check_signature(proof: &mut ExecdProof, given: Option<&str>) -> Signature {
    let signature = match given {
        None => Signature::Missing,
        Some(given) if *proof == ExecdProof::Signature && given == right() => Signature::Right,
        Some(_) => Signature::Wrong,
    };
    match (*proof, signature) {
        (ExecdProof::Welcome, _) | (ExecdProof::Signature, Signature::Right) => {
            *proof = ExecdProof::Trusted;
        }
        (_, _) => {}
    }
    signature
}

/// No token is configured for the host that was dialled.
pub(super) fn claim_none(player: &mut BrokerPlayer) {
    if let Some(Ask::Claim(link, _)) = player.shell.take_asked(|ask| matches!(ask, Ask::Claim(..)))
    {
        player.feed(Input::Claimed { link, claim: None });
    }
}

/// A token is claimed at an execd or can't be, or an execd sends what belongs to a proof.
pub(super) fn execd(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let how = source.below(8);
    let asked = match how {
        0..=2 => player.shell.take_asked(|ask| matches!(ask, Ask::Claim(..))),
        3 => player.shell.take_asked(|ask| matches!(ask, Ask::Claim(..) | Ask::Prove(_))),
        _ => None,
    };
    if let Some(Ask::Claim(link, _) | Ask::Prove(link)) = asked {
        let claim = (how != 0).then(|| Claim { token: name(source), nonce: vec![1; 16] });
        return player.feed(if how == 3 {
            Input::Unproven { link, why: source.text() }
        } else {
            Input::Claimed { link, claim }
        });
    }
    let hosts = player.shell.ends.iter().filter(|(_, conn)| conn.role == Role::Host);
    let hosts: Vec<_> = hosts.map(|(link, _)| *link).collect();
    let Some(link) = hosts.get(source.below(4)).or_else(|| hosts.last()) else { return };
    let signature = match how {
        0..=3 => None,
        4 => Some("00".repeat(32)),
        _ => Some(right()),
    };
    let frame = if matches!(how, 3 | 6) {
        challenge()
    } else {
        Frame::ExecWelcome(ExecWelcome { signature, ..ExecWelcome::default() })
    };
    player.frame(*link, frame);
}
