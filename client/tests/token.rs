//! Tests of logging in with a token, against a played broker: what is sent, and which broker is
//! trusted. `tests/` has the tests with a real broker.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use auth::list::{Entry, IssuedChallenge, TokenList, with_line};
use auth::scram::Cost;
use client::caller::{Caller, Options};
use client::token::Token;
use client::worker::{Worker, WorkerOptions};
use common::{FakeBroker, Peer, beside, login_ok, worker_login_ok};
use protocol::bodies::{ErrorBody, LoginOk, WorkerLoginOk};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::kinds::Role;
use protocol::names::{ServiceName, TokenName};
use protocol::proof::Claim;
use protocol::rights::Rights;
use std::os::unix::fs::PermissionsExt;

const SECRET: &str = "0123456789abcdef0123";
const CHEAP: Cost = Cost { memory_kib: 64, passes: 1, lanes: 1 };

fn token() -> Token {
    Token::parse(&format!("shop.{SECRET}")).unwrap()
}

fn echo() -> ServiceName {
    ServiceName::new("echo").unwrap()
}

/// The token list of a broker that knows this token.
fn list() -> TokenList {
    let name = TokenName::new("shop").unwrap();
    let token = auth::token::Token::parse(&format!("shop.{SECRET}")).unwrap();
    let entry = Entry::make(&token, Rights::default(), CHEAP).unwrap();
    TokenList::parse(&with_line("", &name, &entry).unwrap()).unwrap()
}

/// Sends a challenge and checks the proof; returns the signature.
fn check_proof(peer: &mut Peer, role: Role, claim: &Claim) -> String {
    let list = list();
    let challenge = list.challenge(claim, None).unwrap();
    peer.send(Frame::Challenge(challenge.clone()));
    let Frame::Proof(proof) = peer.frame() else { panic!("a proof answers a challenge") };
    let (target, token) = ("echo".to_owned(), claim.token.clone());
    let login = IssuedChallenge { role, target, token, challenge, bindings: None };
    list.check(&login, &proof).map(|(_, signature)| signature).unwrap()
}

fn options() -> Options {
    Options { token: Some(token()), ..Options::new(echo()) }
}

#[test]
fn a_token_is_proved_and_never_sent() {
    let broker = FakeBroker::tcp();
    let address = broker.address();
    let thread = beside(move || {
        let mut peer = broker.accept();
        let login = peer.login();
        let body = String::from_utf8(login.render().to_vec()).unwrap();
        let signature = check_proof(&mut peer, Role::Client, &login.token.unwrap());
        peer.send(Frame::LoginOk(LoginOk { signature: Some(signature), ..login_ok() }));
        body
    });
    let options = options();
    assert!(!format!("{options:?}").contains(SECRET) && format!("{options:?}").contains("shop"));
    let caller = Caller::login(&[address], options).unwrap();
    assert_eq!(caller.limits().client.0, 7);
    let body = thread.join().unwrap();
    assert!(body.contains("token shop\n") && !body.contains(SECRET), "{body}");
}

#[test]
fn a_broker_that_does_not_know_the_token_is_not_trusted() {
    for wrong in ["no challenge", "no signature", "wrong signature", "foreign challenge"] {
        let broker = FakeBroker::tcp();
        let address = broker.address();
        let thread = beside(move || {
            let mut peer = broker.accept();
            let claim = peer.login().token.unwrap();
            let signature = match wrong {
                "no challenge" => None,
                "foreign challenge" => {
                    let mut challenge = list().challenge(&claim, None).unwrap();
                    challenge.nonce[3] ^= 1;
                    peer.send(Frame::Challenge(challenge));
                    return;
                }
                "no signature" => {
                    check_proof(&mut peer, Role::Client, &claim);
                    None
                }
                _ => {
                    check_proof(&mut peer, Role::Client, &claim);
                    Some("00".repeat(32))
                }
            };
            peer.send(Frame::LoginOk(LoginOk { signature, ..login_ok() }));
        });
        let error = Caller::login(&[address], options()).unwrap_err();
        assert!(error.is(ErrorCode::Unproven), "{wrong}: {error}");
        assert!(error.is_retry_safe() && error.to_string().contains("listens there"), "{error}");
        thread.join().unwrap();
    }
}

#[test]
fn whoever_has_no_token_answers_no_challenge() {
    let broker = FakeBroker::tcp();
    let address = broker.address();
    let thread = beside(move || {
        let mut peer = broker.accept();
        assert_eq!(peer.login().token, None);
        let claim = Claim { token: TokenName::new("shop").unwrap(), nonce: vec![1; 16] };
        peer.send(Frame::Challenge(list().challenge(&claim, None).unwrap()));
    });
    let error = Caller::login(&[address], Options::new(echo())).unwrap_err();
    assert!(error.is(ErrorCode::Unproven) && error.text.contains("no token"), "{error}");
    thread.join().unwrap();
}

#[test]
fn a_refusal_says_what_to_do() {
    for (code, cure) in [
        (ErrorCode::NeedsToken, "--token-file"),
        (ErrorCode::BadToken, "isectd token add"),
        (ErrorCode::LoginLimited, "wait a few seconds"),
    ] {
        let broker = FakeBroker::tcp();
        let address = broker.address();
        let thread = beside(move || {
            let mut peer = broker.accept();
            peer.login();
            peer.send(Frame::refusal(ErrorBody::new(code, "no")));
        });
        let error = Caller::login(&[address], options()).unwrap_err();
        assert!(error.is(code) && error.to_string().contains(cure), "{error}");
        thread.join().unwrap();
    }
}

#[test]
fn a_worker_that_starts_itself_proves_a_token() {
    for is_signed in [true, false] {
        let broker = FakeBroker::unix();
        let address = broker.address();
        let thread = beside(move || {
            let mut peer = broker.accept();
            let claim = peer.worker_login().token.unwrap();
            let signature = check_proof(&mut peer, Role::Worker, &claim);
            let signature = is_signed.then_some(signature);
            peer.send(Frame::WorkerLoginOk(WorkerLoginOk { signature, ..worker_login_ok() }));
        });
        let mut options = WorkerOptions::self_started(address, echo());
        options.token = Some(token());
        match Worker::connect(options) {
            Ok(_) => assert!(is_signed),
            Err(error) => assert!(!is_signed && error.is(ErrorCode::Unproven), "{error}"),
        }
        thread.join().unwrap();
    }
}

#[test]
fn a_worker_with_a_secret_shows_no_token() {
    let broker = FakeBroker::unix();
    let address = broker.address();
    let thread = beside(move || {
        let mut peer = broker.accept();
        assert_eq!(peer.worker_login().token, None);
        peer.send(Frame::WorkerLoginOk(worker_login_ok()));
    });
    let mut options = WorkerOptions::self_started(address, echo());
    options.token = Some(token());
    options.secret = "5.ab".into();
    Worker::connect(options).unwrap();
    thread.join().unwrap();
}

#[test]
fn a_token_comes_from_a_private_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("token");
    std::fs::write(&path, format!("shop.{SECRET}\n")).unwrap();
    let open = |mode| std::fs::set_permissions(&path, PermissionsExt::from_mode(mode)).unwrap();
    open(0o644);
    let error = Token::from_file(&path).unwrap_err();
    assert!(error.is(ErrorCode::Usage) && error.text.contains("chmod 600"), "{error}");
    open(0o600);
    assert!(Token::from_file(&path).is_ok());
    std::fs::write(&path, SECRET).unwrap();
    let error = Token::from_file(&path).unwrap_err().to_string();
    assert!(error.contains("isectd token add") && !error.contains(SECRET), "{error}");
}
