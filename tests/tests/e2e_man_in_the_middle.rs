//! Tests an attacker between two peers, with real processes: it has a certificate of the same
//! authority, accepts a connection, opens its own and relays what each side says; or it records and
//! replays. A login with a token must not let it in. Certificates that are refused are in
//! `e2e_tls`.

use auth::prover::Prover;
use client::address::Address;
use client::caller::{Caller, Options};
use client::error::Error;
use client::token::Token;
use client::trust::Trust;
use client::worker::{Worker, WorkerOptions};
use isect_tests::between::{self, firsts};
use isect_tests::certs::Authority;
use isect_tests::proc::{Broker, Execd, await_that, program, run};
use isect_tests::wire::Wire;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::kinds::Role;
use protocol::names::ServiceName;
use protocol::proof::{Challenge, Claim};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// Starts an attacker that relays one connection to `target`, and returns its address. `near_tls`:
/// the side that connects to it speaks TLS.
fn stand_before(target: &str, authority: &Authority, near_tls: bool) -> String {
    let pair = near_tls.then(|| authority.sign("between", &["127.0.0.1"]));
    between::stand_before(target, authority, pair.as_ref(), |frame| frame)
}

/// A temporary folder with a token file.
struct Tokens(TempDir);

impl Tokens {
    fn new() -> Self {
        Self(TempDir::with_prefix("isect-between-").expect("temporary folder"))
    }

    fn file(&self) -> String {
        self.0.path().join("tokens").to_string_lossy().into_owned()
    }

    fn add(&self, name: &str, role: &str) -> PathBuf {
        let out = self.0.path().join(name);
        let to = out.to_string_lossy();
        let args = ["token", "add", name, "--role", role, "--file", &self.file(), "--out", &to];
        let done = run("isectd", &args, b"");
        assert_eq!(done.status, 0, "{}", done.err);
        out
    }
}

fn login(at: &str, token: &Path, trust: &Trust) -> Result<Caller, Error> {
    let token = Some(Token::from_file(token).expect("a token"));
    let name = ServiceName::new("op").expect("a name");
    let options = Options { token, trust: Some(trust.clone()), ..Options::new(name) };
    Caller::login(&[Address::parse(at).expect("an address")], options)
}

/// A broker with tokens, with or without TLS.
fn broker(tokens: &Tokens, authority: &Authority, is_tls: bool) -> Broker {
    let file = tokens.file();
    let pair = authority.sign("broker", &["127.0.0.1"]);
    let tls = ["--tls-cert", pair.cert(), "--tls-key", pair.key(), "--tokens", &file];
    let ports = ["--listen", "tls://127.0.0.1:0", "--worker-listen", "tls://127.0.0.1:0"];
    let mut broker = match is_tls {
        true => Broker::start(&[&tls[..], &ports].concat()),
        false => Broker::start(&["--tokens", &file]),
    };
    broker.trust = Some(authority.trust());
    broker
}

#[test]
fn a_clients_proof_is_worth_nothing_on_the_connection_of_the_one_in_between() {
    let (tokens, authority) = (Tokens::new(), Authority::new());
    let ops = tokens.add("ops", "operator:danger");
    let trust = authority.trust();
    for is_tls in [true, false] {
        let broker = broker(&tokens, &authority, is_tls);
        broker.remember_events();
        login(&broker.port("client"), &ops, &trust).expect("let in");
        for near_tls in [true, false] {
            let at = stand_before(&broker.port("client"), &authority, near_tls);
            let tried = login(&at, &ops, &trust);
            if (is_tls, near_tls) == (false, false) {
                // Without TLS, proofs are bound to no connection, so the attack succeeds; TLS
                // prevents it.
                assert!(tried.is_ok(), "the one in between passes on what it hears");
                continue;
            }
            let error = tried.map(|_| ()).expect_err("refused");
            assert!(error.is(ErrorCode::BadToken), "broker {is_tls}, near {near_tls}: {error}");
            broker.await_page("listevents", "the proof is wrong");
        }
        assert_eq!(broker.end(), 0);
    }
}

#[test]
fn a_workers_proof_is_worth_nothing_there_either() {
    let (tokens, authority) = (Tokens::new(), Authority::new());
    let gpu = tokens.add("gpu", "worker:echo");
    let broker = broker(&tokens, &authority, true);
    broker.op("config service echo selfstart=1");
    let connect = |at: &str| {
        let address = Address::parse(at).expect("an address");
        let service = ServiceName::new("echo").expect("a name");
        let token = Some(Token::from_file(&gpu).expect("a token"));
        let trust = Some(authority.trust());
        let own = WorkerOptions::self_started(address, service);
        Worker::connect(WorkerOptions { token, trust, ..own })
    };
    let at = stand_before(&broker.port("worker"), &authority, true);
    let error = connect(&at).map(|_| ()).expect_err("refused");
    assert!(error.is(ErrorCode::BadToken), "{error}");
    connect(&broker.port("worker")).expect("let in");
    assert_eq!(broker.end(), 0);
}

#[test]
fn nobody_between_broker_and_execd_has_it_start_programs() {
    let (tokens, authority) = (Tokens::new(), Authority::new());
    let host = tokens.add("eu", "host");
    let allow = program("isdecho").parent().expect("a folder").to_string_lossy().into_owned();
    let (file, pair) = (tokens.file(), authority.sign("host", &["127.0.0.1"]));
    let args = ["--tokens", &file, "--allow", &allow, "--tls-cert", pair.cert()];
    let execd =
        Execd::start_at("tls://127.0.0.1:0", &[&args[..], &["--tls-key", pair.key()]].concat());
    let (ca, host) = (authority.ca_text(), host.to_string_lossy().into_owned());
    let broker =
        Broker::start(&["--host-token", &host, "--tls-ca", &ca, "--set", "host_retry_ms=100"]);
    broker.remember_events();
    let at = stand_before(&execd.address, &authority, true);
    broker.op(&format!("config host between {at}"));
    await_that("a refusal", || broker.op("listevents").contains("bad_token").then_some(()));
    await_that("its word", || execd.process.log().contains("the proof is wrong").then_some(()));
    assert!(!execd.process.log().contains("broker connected"), "{}", execd.process.log());
    broker.op(&format!("config host direct {}", execd.address));
    broker.await_page("host direct", "host->state = up");
    assert_eq!(broker.end(), 0);
}

/// Connects, sends a login that names a token, and returns the connection and its challenge.
fn challenged(at: &str, first: Frame) -> (Wire, Challenge) {
    let mut wire = Wire::connect(at);
    wire.send(first);
    match wire.next_frame() {
        Some(Frame::Challenge(challenge)) => (wire, challenge),
        other => panic!("no challenge: {other:?}"),
    }
}

#[test]
fn a_proof_that_was_heard_lets_nobody_in_a_second_time_nor_at_another_port() {
    let tokens = Tokens::new();
    let many = tokens.0.path().join("many");
    let (file, out) = (tokens.file(), many.to_string_lossy().into_owned());
    let roles = ["--role", "client:*", "--role", "worker:*", "--role", "host"];
    let add = ["token", "add", "many", "--file", &file, "--out", &out];
    assert_eq!(run("isectd", &[&add[..], &roles].concat(), b"").status, 0);
    let token = auth::token::Token::from_file(&many).expect("a token");
    let broker = Broker::start(&[
        "--tokens",
        &file,
        "--worker-listen",
        "127.0.0.1:0",
        "--listen",
        "127.0.0.1:0",
    ]);
    broker.op("config service echo selfstart=1");
    let execd = Execd::start(&["--tokens", &file, "--allow", "/bin"]);
    let ports = (broker.port("client"), broker.port("worker"), execd.address.clone());
    let ports = (ports.0.as_str(), ports.1.as_str(), ports.2.as_str());
    let nonce = vec![7; 24];
    let claim = Claim { token: token.name().clone(), nonce: nonce.clone() };
    let mut heard = Vec::new();
    for (at, first, role, target) in firsts(&claim, ports) {
        let mut prover = Prover::with_nonce(&token, role, target, nonce.clone());
        let (mut wire, challenge) = challenged(at, first);
        let proof = prover.answer(&challenge, None).expect("an answer");
        wire.send(Frame::Proof(proof.clone()));
        let let_in = wire.next_frame();
        let is_in = matches!(
            let_in,
            Some(Frame::LoginOk(_) | Frame::WorkerLoginOk(_) | Frame::ExecWelcome(_))
        );
        assert!(is_in, "{role}: {let_in:?}");
        heard.push(proof);
    }
    for proof in heard {
        for (at, first, role, _) in firsts(&claim, ports) {
            let (mut wire, _) = challenged(at, first);
            wire.send(Frame::Proof(proof.clone()));
            assert_eq!(wire.refusal(), ErrorCode::BadToken, "shown as {role}");
        }
    }
    // A proof made for one port and one challenge is worth nothing at another port, or with another
    // role.
    for (at, first, role, _) in firsts(&claim, ports) {
        let (mut wire, challenge) = challenged(at, first);
        let wrong = if role == Role::Client { Role::Worker } else { Role::Client };
        let mut prover = Prover::with_nonce(&token, wrong, "echo", nonce.clone());
        wire.send(Frame::Proof(prover.answer(&challenge, None).expect("an answer")));
        assert_eq!(wire.refusal(), ErrorCode::BadToken, "made as {wrong}, shown as {role}");
    }
    assert_eq!(broker.end(), 0);
}
