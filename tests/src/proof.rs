//! One login with a token, with fixed values: the example of `docs/protocol.md`, for authors of
//! clients in other languages. A real broker uses a random nonce.

use auth::list::{IssuedChallenge, TokenList};
use auth::prover::Prover;
use auth::scram::{Cost, Key, hmac, salted, sha256};
use auth::token::Token;
use protocol::bodies::{Login, LoginOk};
use protocol::encode;
use protocol::frame::Frame;
use protocol::ids::ClientId;
use protocol::kinds::Role;
use protocol::limits::BODY_BYTES_DEFAULT;
use protocol::names::ServiceName;
use protocol::proof::{Proof, statement};
use protocol::show::{digits, hex};
use std::fmt::Write as _;

/// The secret of the example's token.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// In place of random bytes, so that the example stays the same.
const CLIENT_NONCE: std::ops::Range<u8> = 0..24;
/// See [`CLIENT_NONCE`].
const BROKER_NONCE: std::ops::Range<u8> = 0x40..0x58;
/// See [`CLIENT_NONCE`].
const SALT: std::ops::Range<u8> = 0xa0..0xb0;

/// Every value of the example.
#[derive(Debug)]
pub struct Example {
    /// Name and bytes, in the order in which they are computed.
    pub values: Vec<(&'static str, Key)>,
    /// The text that both sides sign (docs/protocol.md, "Proving a token").
    pub statement: String,
    /// The frames of the login in order, each with its sender.
    pub frames: Vec<(&'static str, Frame)>,
}

/// Computes it, by the code that programs run.
///
/// # Panics
/// If that code contradicts itself.
pub fn example() -> Example {
    let cost = Cost::default();
    let salt: Vec<u8> = SALT.collect();
    let salted = salted(SECRET.as_bytes(), &salt, cost).expect("a hash");
    let client = hmac(salted.as_ref(), b"Client Key");
    let (stored, server) = (sha256(&client), hmac(salted.as_ref(), b"Server Key"));
    let file = format!(
        "token shop client:echo argon2id:{}:{}:{}:{}:{}:{}\n",
        cost.memory_kib,
        cost.passes,
        cost.lanes,
        digits(&salt),
        digits(&stored),
        digits(&server)
    );
    let list = TokenList::parse(&file).expect("a token file");
    let token = Token::parse(&format!("shop.{SECRET}")).expect("a token");
    let mut prover = Prover::with_nonce(&token, Role::Client, "echo", CLIENT_NONCE.collect());
    let challenge = list.challenge_with(prover.claim(), &BROKER_NONCE.collect::<Vec<u8>>());
    let Proof { proof } = prover.answer(&challenge, None).expect("an answer");
    let text = statement(Role::Client, "echo", token.name(), &challenge, None);
    let name = token.name().clone();
    let login = IssuedChallenge {
        role: Role::Client,
        target: "echo".into(),
        token: name,
        challenge: challenge.clone(),
        channel: None,
    };
    let (_, signature) = list.check(&login, &Proof { proof }).expect("the right proof");
    assert!(prover.is_proven(Some(&signature)));
    let echo = ServiceName::new("echo").expect("a name");
    let first = Login { token: Some(prover.claim().clone()), ..Login::to(echo) };
    let last = LoginOk {
        client: ClientId(7),
        body_bytes_max: BODY_BYTES_DEFAULT as u64,
        requests_max: 64,
        deadline_ms: 30_000,
        heartbeat_ms: 1000,
        silence_ms: 3000,
        version: "0.1.0".into(),
        signature: Some(signature),
    };
    let signed = hmac(&server, text.as_bytes());
    Example {
        values: vec![
            ("Argon2id", *salted),
            ("client key", client),
            ("stored key", stored),
            ("server key", server),
            ("proof", proof),
            ("signature", signed),
        ],
        statement: text,
        frames: vec![
            ("client: which token it will prove", Frame::Login(first)),
            ("broker: how to hash it, and its own random bytes", Frame::Challenge(challenge)),
            ("client: the proof", Frame::Proof(Proof { proof })),
            ("broker: let in, and its own proof", Frame::LoginOk(last)),
        ],
    }
}

/// The example as it stands in the document.
pub fn page() -> String {
    let Example { values, statement, frames } = example();
    let mut out = format!("```text\ntoken       shop.{SECRET}\n");
    for (name, value) in values {
        // Writing to a String can't fail.
        let _ = writeln!(out, "{name:<11} {}", digits(&value));
    }
    let _ = write!(out, "\nthe statement, {} bytes:\n{statement}", statement.len());
    for (note, frame) in frames {
        let _ = write!(out, "\n# {note}\n{}", hex(&encode::to_bytes(frame)));
    }
    out + "```\n"
}
