//! Logins with a token, with fixed values: the examples of `docs/protocol.md`, for authors of
//! clients in other languages. A real broker uses a random nonce.

use crate::docs;
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
use protocol::proof::{Bindings, CHANNEL_BYTES, Channel, Proof, statement};
use protocol::show::{digits, hex};
use std::fmt::Write as _;
use transport::end_point::end_point;
use transport::files;

/// The secret of the example's token.
const SECRET: &str = "0123456789abcdef0123456789abcdef";
/// In place of random bytes, so that the example stays the same.
const CLIENT_NONCE: std::ops::Range<u8> = 0..24;
/// See [`CLIENT_NONCE`].
const BROKER_NONCE: std::ops::Range<u8> = 0x40..0x58;
/// See [`CLIENT_NONCE`].
const SALT: std::ops::Range<u8> = 0xa0..0xb0;
/// The certificate of the second example, signed by ECDSA with SHA-384.
const CERTIFICATE: &str = "tests/src/end_point.pem";

/// Every value of an example.
#[derive(Debug)]
pub struct Example {
    /// Name and bytes, in the order in which they are computed.
    pub values: Vec<(&'static str, Vec<u8>)>,
    /// The text that both sides sign (docs/protocol.md, "Proving a token").
    pub statement: String,
    /// The frames of the login in order, each with its sender.
    pub frames: Vec<(&'static str, Frame)>,
}

/// The token of the examples, at both ends.
struct Known {
    token: Token,
    list: TokenList,
    salted: Key,
    client: Key,
    stored: Key,
    server: Key,
}

impl Known {
    fn new() -> Self {
        let cost = Cost::default();
        let salt: Vec<u8> = SALT.collect();
        let salted = *salted(SECRET.as_bytes(), &salt, cost).expect("a hash");
        let client = hmac(&salted, b"Client Key");
        let (stored, server) = (sha256(&client), hmac(&salted, b"Server Key"));
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
        Self { token, list, salted, client, stored, server }
    }

    /// A login to `echo` where proofs can be bound to this: the frames, and what was signed.
    fn log_in(&self, bindings: Option<&Bindings>, channel: Option<&Channel>) -> LoggedIn {
        let role = Role::Client;
        let mut prover = Prover::with_nonce(&self.token, role, "echo", CLIENT_NONCE.collect());
        let own: Vec<u8> = BROKER_NONCE.collect();
        let challenge = self.list.challenge_with(prover.claim(), bindings, &own);
        let proof = prover.answer(&challenge, channel).expect("an answer");
        let login = IssuedChallenge {
            role,
            target: "echo".into(),
            token: self.token.name().clone(),
            challenge: challenge.clone(),
            bindings: bindings.cloned(),
        };
        let (_, signature) = self.list.check(&login, &proof).expect("the right proof");
        assert!(prover.is_proven(Some(&signature)));
        let statement = statement(role, "echo", self.token.name(), &challenge, channel);
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
        LoggedIn {
            signature: hmac(&self.server, statement.as_bytes()),
            statement,
            proof: proof.clone(),
            frames: vec![
                ("client: which token it will prove", Frame::Login(first)),
                ("broker: how to hash it, and its own random bytes", Frame::Challenge(challenge)),
                ("client: the proof", Frame::Proof(proof)),
                ("broker: let in, and its own proof", Frame::LoginOk(last)),
            ],
        }
    }
}

struct LoggedIn {
    statement: String,
    proof: Proof,
    signature: Key,
    frames: Vec<(&'static str, Frame)>,
}

/// A login without TLS, by the code that programs run.
///
/// # Panics
/// If that code contradicts itself.
pub fn example() -> Example {
    let known = Known::new();
    let LoggedIn { statement, proof, signature, frames } = known.log_in(None, None);
    Example {
        values: vec![
            ("Argon2id", known.salted.to_vec()),
            ("client key", known.client.to_vec()),
            ("stored key", known.stored.to_vec()),
            ("server key", known.server.to_vec()),
            ("proof", proof.proof.to_vec()),
            ("signature", signature.to_vec()),
        ],
        statement,
        frames,
    }
}

/// The same login over TLS, by a client without the exporter: challenge and proof of it.
///
/// # Panics
/// As [`example`].
pub fn end_point_example() -> Example {
    let path = docs::root().join(CERTIFICATE);
    let certificates = files::certificates(&path, "certificate").expect("the certificate");
    let hash = end_point(&certificates[0]).expect("a hash");
    // A client without the exporter does not see this value.
    let exporter = [0; CHANNEL_BYTES];
    let bindings = Bindings { exporter, end_point: Some(hash.clone().into()) };
    let channel = Channel::EndPoint(hash.clone());
    let LoggedIn { statement, proof, signature, frames } =
        Known::new().log_in(Some(&bindings), Some(&channel));
    let is_shown = |frame: &Frame| matches!(frame, Frame::Challenge(_) | Frame::Proof(_));
    Example {
        values: vec![
            ("SHA-384", hash),
            ("proof", proof.proof.to_vec()),
            ("signature", signature.to_vec()),
        ],
        statement,
        frames: frames.into_iter().filter(|(_, frame)| is_shown(frame)).collect(),
    }
}

fn render(mut out: String, example: Example) -> String {
    let Example { values, statement, frames } = example;
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

/// The example without TLS as it stands in the document.
pub fn page() -> String {
    render(format!("```text\ntoken       shop.{SECRET}\n"), example())
}

/// The example over TLS as it stands in the document.
///
/// # Panics
/// If the certificate is not there.
pub fn end_point_page() -> String {
    let certificate = std::fs::read_to_string(docs::root().join(CERTIFICATE)).expect(CERTIFICATE);
    render(format!("```text\n{certificate}\n"), end_point_example())
}
