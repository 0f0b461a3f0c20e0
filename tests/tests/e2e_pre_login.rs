//! Tests, with real processes, peers that fill logs, guess tokens or begin hundreds of handshakes:
//! their effect is bounded and counted, and nobody else waits for it. Crowds of clients that have
//! logged in are in `e2e_flood`.

use client::caller::{Caller, Options};
use client::error::Error;
use client::token::Token;
use isect_tests::certs::Authority;
use isect_tests::proc::{Broker, Execd, await_that, run};
use isect_tests::wire::Wire;
use protocol::bodies::{ErrorBody, ExecHello, ExecStart, Login};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{RunId, WorkerId};
use protocol::names::{HostName, ServiceName, TokenName};
use protocol::proof::{Claim, Proof};
use protocol::show;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::path::PathBuf;
use tempfile::TempDir;

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("a name")
}

/// A folder with a token file and the tokens in it.
struct Tokens(TempDir);

impl Tokens {
    fn new() -> Self {
        Self(TempDir::with_prefix("isect-pre-login-").expect("temporary folder"))
    }

    fn file(&self) -> String {
        self.0.path().join("tokens").to_string_lossy().into_owned()
    }

    fn add(&self, name: &str, roles: &[&str]) -> PathBuf {
        let out = self.0.path().join(format!("{name}.token"));
        let (file, path) = (self.file(), out.to_string_lossy().into_owned());
        let mut args = vec!["token", "add", name, "--file", &file, "--out", &path];
        roles.iter().for_each(|role| args.extend(["--role", role]));
        let done = run("isectd", &args, b"");
        assert_eq!(done.status, 0, "{}", done.err);
        out
    }
}

fn login(broker: &Broker, token: &str, name: &str) -> Result<Caller, Error> {
    let token = Some(Token::parse(token.trim()).expect("a token"));
    Caller::login(&[broker.address()], Options { token, ..Options::new(service(name)) })
}

/// Logs in with the name of a token and a wrong proof. Returns the error code.
fn fail(broker: &Broker, token: &str) -> ErrorCode {
    let token = TokenName::new(token).expect("a name");
    let claim = Claim { token, nonce: vec![7; 32] };
    let mut wire = Wire::connect(&broker.port("client"));
    wire.send(Frame::Login(Login { token: Some(claim), ..Login::to(service("echo")) }));
    assert!(matches!(wire.next_frame(), Some(Frame::Challenge(_))));
    wire.send(Frame::Proof(Proof { proof: [7; 32], channel: None }));
    wire.refusal()
}

#[test]
fn a_client_with_an_old_secret_keeps_nobody_of_its_address_out() {
    let tokens = Tokens::new();
    let read = |path: PathBuf| std::fs::read_to_string(path).expect("a token");
    let good = read(tokens.add("good", &["client:echo", "operator:read"]));
    let shop = read(tokens.add("shop", &["client:echo"]));
    // The right secret is hashed, which takes long on a busy machine.
    let broker = Broker::start(&["--tokens", &tokens.file(), "--set", "login_ms=20000"]);
    broker.with_workers("echo", "isdecho", 1);
    // Clients retry with a removed token and with the old secret of a renewed one. They hash
    // nothing, so even on a busy machine they fail faster than failures are forgotten.
    for name in ["removed", "shop"] {
        await_that("the limit", || (fail(&broker, name) == ErrorCode::LoginLimited).then_some(()));
    }
    for round in 0..6 {
        for name in ["removed", "shop"] {
            fail(&broker, name);
        }
        let mut caller = login(&broker, &good, "echo").unwrap_or_else(|e| panic!("{round}: {e}"));
        assert_eq!(&caller.call("x", None).expect("an answer")[..], b"x");
    }
    // The right secret of the renewed token works, too, and so does the operator's token.
    let mut caller = login(&broker, &shop, "echo").expect("the right secret");
    assert_eq!(&caller.call("x", None).expect("an answer")[..], b"x");
    login(&broker, &good, "op").map(|_| ()).expect("an operator's token");
    broker.op("services");
    assert_eq!(broker.end(), 0);
}

/// An `error` frame of nearly 64 KB whose text tries everything that can harm a terminal or a log.
fn complaint() -> Frame {
    let text = format!("\u{1b}[2J\u{9b}2J\u{202e}\u{2066}\u{200b}\u{e0041}{}", "x".repeat(60_000));
    Frame::Error { head: Header::default(), error: ErrorBody::new(ErrorCode::BadFrame, text) }
}

fn assert_all_is_seen(what: &str, text: &str) {
    let hidden = text.chars().find(|c| show::is_hidden(*c) && *c != '\n');
    assert!(hidden.is_none(), "{hidden:?} in {what}");
}

#[test]
fn what_peers_and_clients_cause_in_the_log_is_bounded_counted_and_seen() {
    let broker = Broker::start(&[]);
    broker.remember_events();
    broker.op("config service echo");
    let address = broker.port("client");
    let before = broker.process.log().len();
    // First without a login, on many connections; then after a login, on one.
    for _ in 0..400 {
        let mut wire = Wire::connect(&address);
        let _ = wire.write(&protocol::encode::to_bytes(complaint()));
    }
    let mut wire = Wire::login(&address, "echo");
    for _ in 0..400 {
        wire.send(complaint());
    }
    let login = Login {
        loghost: "a\u{202e}b\u{200b}c".into(),
        name: Some("n\u{2066}m".into()),
        ..Login::to(service("echo"))
    };
    let mut named = Wire::connect(&address);
    named.send(Frame::Login(login));
    assert!(matches!(named.next_frame(), Some(Frame::LoginOk(_))));
    let events = broker.await_page("listevents", "facts_left_out");
    assert!(events.contains("caused by clients and workers"), "{events}");
    broker.process.await_log("bytes more)", 1);
    let log = broker.process.await_log("facts were left out", 1);
    assert!(log.len() - before < 400_000, "{} bytes of log for 48 MB", log.len() - before);
    assert_all_is_seen("the log", &log);
    for command in ["listevents", "clients", "status"] {
        assert_all_is_seen(command, &broker.op(command));
        let json = broker.isdclient(&["--json", "-c", command], "");
        assert_all_is_seen(command, &json.out);
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_log_in_json_shows_all_too() {
    let broker = Broker::start(&["--log-format", "json"]);
    broker.op("config service echo");
    let mut wire = Wire::login(&broker.port("client"), "echo");
    wire.send(complaint());
    let line = await_that("the line", || {
        let log = broker.process.log();
        log.lines().find(|line| line.contains("peer_error")).map(str::to_owned)
    });
    assert_all_is_seen("the log", &line);
    let value: serde_json::Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(value["fact"], "peer_error", "{line}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn what_peers_make_an_execd_write_is_bounded_and_counted() {
    let execd = Execd::start(&[]);
    let place = execd.address.clone();
    for _ in 0..600 {
        let mut wire = Wire::connect(&place);
        let _ = wire.write(&protocol::encode::to_bytes(complaint()));
        assert!(matches!(wire.next_frame(), Some(Frame::Error { .. })));
    }
    let log = execd.process.log();
    assert!(log.len() < 100_000, "{} bytes", log.len());
    assert_all_is_seen("the log", &log);
    await_that("the count of what is missing", || {
        let mut wire = Wire::connect(&place);
        let _ = wire.write(&protocol::encode::to_bytes(complaint()));
        assert!(matches!(wire.next_frame(), Some(Frame::Error { .. })));
        execd.process.log().contains("left_out").then_some(())
    });
}

/// A start of a program that does not exist.
fn vain_start(run: u64) -> Frame {
    Frame::ExecStart(ExecStart {
        worker: WorkerId(1),
        run: RunId(run),
        service: service("echo"),
        path: format!("/{}", "x/".repeat(2000)),
        args: Vec::new(),
        secret: String::new(),
        digest: 0,
        process: None,
        memory_max: 0,
        output_bytes: 0,
        output_files: 1,
    })
}

#[test]
fn what_a_broker_that_is_in_makes_an_execd_write_is_bounded_and_counted() {
    let execd = Execd::start(&[]);
    let mut wire = Wire::connect(&execd.address);
    let host = HostName::new("h").expect("a name");
    let mut tell = |frame: Frame| {
        wire.send(frame);
        assert!(wire.next_frame().is_some());
    };
    tell(Frame::ExecHello(ExecHello { host, broker: "b".into(), token: None }));
    tell(Frame::ExecList);
    // The limit is a burst, and twenty a second.
    for run in 0..2000 {
        tell(vain_start(run));
    }
    let log = execd.process.log();
    assert!(log.len() < 1_500_000, "{} bytes for 8 MB of paths", log.len());
    await_that("the count of what is missing", || {
        tell(vain_start(9));
        execd.process.log().contains("lines about starts that failed were left out").then_some(())
    });
}

/// The first bytes of a TLS connection, which may be sent on any number of connections.
fn hello(authority: &Authority) -> Vec<u8> {
    let mut session =
        transport::setup::CallerFiles { ca: Some(authority.ca()), ..Default::default() }
            .load()
            .and_then(|caller| caller.session("localhost"))
            .expect("a session");
    let mut bytes = Vec::new();
    session.flush(&mut bytes).expect("a hello");
    bytes
}

/// Opens connections that each begin a handshake with the same bytes, and send nothing more.
fn begin_all(place: &str, hello: &[u8], count: usize) -> Vec<TcpStream> {
    let place = place.trim_start_matches("tls://");
    (0..count)
        .map(|_| {
            let mut stream = TcpStream::connect(place).expect("a connection");
            stream.write_all(hello).expect("a hello");
            stream.set_nonblocking(true).expect("not blocking");
            stream
        })
        .collect()
}

/// How many of the connections got an answer, or were closed.
fn answered(streams: &mut [TcpStream]) -> usize {
    let mut byte = [0];
    streams.iter_mut().filter_map(|stream| stream.read(&mut byte).ok()).count()
}

#[test]
fn nobody_who_is_in_waits_for_handshakes_of_others() {
    let authority = Authority::new();
    let pair = authority.sign_rsa("broker", &["127.0.0.1", "localhost"]);
    let mut broker = Broker::start(&[
        "--listen",
        "tls://127.0.0.1:0",
        "--tls-cert",
        pair.cert(),
        "--tls-key",
        pair.key(),
        "--set",
        "login_ms=20000",
    ]);
    broker.trust = Some(authority.trust());
    broker.with_workers("echo", "isdecho", 1);
    let mut known = broker.login("echo");
    let mut streams = begin_all(&broker.port("client"), &hello(&authority), 300);
    // Each signature takes some milliseconds, so 300 of them take one or two seconds.
    assert_eq!(&known.call("x", None).expect("an answer")[..], b"x");
    let at_once = answered(&mut streams);
    // The handshake of a new client does not wait for all of those that came before.
    broker.login("echo").call("x", None).expect("an answer");
    let soon = answered(&mut streams);
    assert!(at_once < 300, "{at_once} of 300 were served before one who was in");
    println!("{at_once} handshakes before the answer to who was in, {soon} to a newcomer");
    let mut all = at_once + soon;
    await_that("an answer for each", || {
        all += answered(&mut streams);
        (all >= 300).then_some(())
    });
    let hosts = broker.op("hosts");
    assert!(hosts.contains("up"), "{hosts}");
    assert_eq!(broker.end(), 0);
}
