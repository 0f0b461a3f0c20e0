//! Tests proofs of tokens that are bound to the certificate (`tls-server-end-point`), as programs
//! without the TLS exporter make them, with real processes: where they are taken, what somebody
//! between the two peers can do with them, and what he can't.

use auth::prover::Prover;
use auth::token::Token;
use client::address::Address;
use client::caller::{Caller, Options};
use client::error::Error;
use isect_tests::between::{Peer, firsts, stand_before};
use isect_tests::certs::{Authority, Pair};
use isect_tests::proc::{Broker, Execd, await_that, run};
use nix::sys::signal::Signal;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::kinds::Role;
use protocol::names::ServiceName;
use protocol::proof::{Binding, Challenge, Channel, Channels, Claim, Proof};
use std::path::PathBuf;
use tempfile::TempDir;

/// What a verifier that takes everything offers.
const ALL: &str = "tls-exporter tls-server-end-point";
/// What is said of a proof that is bound to what is not taken.
const UNTAKEN: &str = "proofs by tls-server-end-point are not taken here";

/// A broker and an execd that know one token, with TLS at all ports or at none.
struct World {
    authority: Authority,
    pair: Pair,
    folder: TempDir,
    token: Token,
    broker: Broker,
    execd: Execd,
}

impl World {
    /// `broker_args` and `execd_args` are added to theirs.
    fn start(is_tls: bool, broker_args: &[&str], execd_args: &[&str]) -> Self {
        let folder = TempDir::with_prefix("isect-binding-").expect("temporary folder");
        let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
        let (file, out) = (at("tokens"), at("many"));
        let roles = ["--role", "client:*", "--role", "worker:*", "--role", "host"];
        let add = ["token", "add", "many", "--file", &file, "--out", &out];
        assert_eq!(run("isectd", &[&add[..], &roles].concat(), b"").status, 0);
        let token = Token::from_file(out.as_ref()).expect("a token");
        let authority = Authority::new();
        let pair = authority.sign("here", &["127.0.0.1"]);
        let files = ["--tls-cert", pair.cert(), "--tls-key", pair.key()];
        let tls = if is_tls { &files[..] } else { &[] };
        let address = if is_tls { "tls://127.0.0.1:0" } else { "127.0.0.1:0" };
        let usual = ["--listen", address, "--worker-listen", address, "--tokens", &file];
        let mut broker = Broker::start(&[&usual[..], tls, broker_args].concat());
        broker.trust = Some(authority.trust());
        broker.remember_events();
        broker.op("config service echo selfstart=1");
        let usual = ["--tokens", &file, "--allow", "/bin"];
        let execd = Execd::start_at(address, &[&usual[..], tls, execd_args].concat());
        Self { authority, pair, folder, token, broker, execd }
    }

    /// The ports of clients, workers and execd.
    fn ports(&self) -> [String; 3] {
        [self.broker.port("client"), self.broker.port("worker"), self.execd.address.clone()]
    }

    /// Begins a login at each of these ports, and gets its challenge.
    fn begin(&self, ports: &[String; 3]) -> Vec<Login> {
        let nonce = vec![7; 24];
        let claim = Claim { token: self.token.name().clone(), nonce: nonce.clone() };
        let [client, worker, execd] = ports;
        let begin = |(at, first, role, target): (&str, Frame, Role, &str)| {
            let mut peer = Peer::dial(at, self.authority.ca()).expect("a connection");
            peer.send(first).expect("a first frame");
            let Ok(Frame::Challenge(challenge)) = peer.next_frame() else {
                panic!("no challenge for {role}")
            };
            let prover = Prover::with_nonce(&self.token, role, target, nonce.clone());
            Login { peer, role, prover, challenge }
        };
        firsts(&claim, (client, worker, execd)).map(begin).into()
    }

    /// Waits until broker and execd have said this of a login.
    fn await_said(&self, role: Role, part: &str) {
        match role {
            Role::Broker => drop(self.execd.process.await_log(part, 1)),
            Role::Client | Role::Worker | Role::Host => {
                self.broker.await_page("listevents 100", part);
            }
        }
    }

    fn end(self) {
        assert_eq!(self.broker.end(), 0);
        drop(self.folder);
    }
}

/// A login that was challenged.
struct Login {
    peer: Peer,
    role: Role,
    prover: Prover,
    challenge: Challenge,
}

impl Login {
    /// What the line `channels` of the challenge says.
    fn offered(&self) -> Option<String> {
        self.challenge.channels.as_ref().map(Channels::to_string)
    }

    /// The hash of the certificate that was shown here.
    fn seen(&self) -> Channel {
        let bindings = self.peer.stream.bindings().expect("it is through").expect("TLS");
        bindings.channel(Binding::EndPoint).expect("a certificate")
    }

    /// Proves the token by this channel; the next frame.
    fn prove(&mut self, channel: &Channel) -> Frame {
        let proof = self.prover.answer(&self.challenge, Some(channel)).expect("an answer");
        self.send(proof)
    }

    fn send(&mut self, proof: Proof) -> Frame {
        self.peer.send(Frame::Proof(proof)).expect("a proof");
        self.peer.next_frame().expect("an answer")
    }

    /// Proves the token as [`Login::prove`], and must be let in by who knows it, too.
    fn is_let_in(&mut self, channel: &Channel) {
        let signature = match self.prove(channel) {
            Frame::LoginOk(ok) => ok.signature,
            Frame::WorkerLoginOk(ok) => ok.signature,
            Frame::ExecWelcome(ok) => ok.signature,
            other => panic!("{} is not let in: {other:?}", self.role),
        };
        assert!(self.prover.is_proven(signature.as_deref()), "{}", self.role);
    }
}

#[track_caller]
fn is_refused(answer: &Frame) {
    match answer {
        Frame::Error { error, .. } => assert_eq!(error.code, ErrorCode::BadToken, "{error:?}"),
        other => panic!("no refusal: {other:?}"),
    }
}

#[test]
fn a_proof_by_the_certificate_lets_in_at_every_port() {
    let world = World::start(true, &[], &[]);
    for mut login in world.begin(&world.ports()) {
        assert_eq!(login.offered().as_deref(), Some(ALL), "{}", login.role);
        let seen = login.seen();
        login.is_let_in(&seen);
    }
    // The exporter does as before, and is not named.
    for mut login in world.begin(&world.ports()) {
        let channel = login.peer.stream.channel().expect("it is through").expect("TLS");
        login.is_let_in(&channel);
    }
    world.end();
}

#[test]
fn a_wrong_hash_or_a_wrong_name_lets_nobody_in() {
    let world = World::start(true, &[], &[]);
    for mut login in world.begin(&world.ports()) {
        let Channel::EndPoint(mut hash) = login.seen() else { panic!("no hash") };
        hash[0] ^= 1;
        is_refused(&login.prove(&Channel::EndPoint(hash)));
        world.await_said(login.role, "the proof is wrong");
    }
    // A proof by the certificate says so, one by the exporter does not.
    for named in [None, Some(Binding::Exporter)] {
        for mut login in world.begin(&world.ports()) {
            let seen = login.seen();
            let proof = login.prover.answer(&login.challenge, Some(&seen)).expect("an answer");
            is_refused(&login.send(Proof { channel: named, ..proof }));
        }
    }
    for mut login in world.begin(&world.ports()) {
        let channel = login.peer.stream.channel().expect("it is through");
        let proof = login.prover.answer(&login.challenge, channel.as_ref()).expect("an answer");
        is_refused(&login.send(Proof { channel: Some(Binding::EndPoint), ..proof }));
    }
    world.end();
}

/// Logs in at each port through somebody who shows this certificate and edits frames.
fn through(world: &World, pair: &Pair, edit: fn(Frame) -> Frame) -> Vec<Login> {
    let ports = world.ports();
    world.begin(&ports.map(|at| stand_before(&at, &world.authority, Some(pair), edit)))
}

#[test]
fn who_has_another_certificate_can_not_pass_it_on() {
    let world = World::start(true, &[], &[]);
    let other = world.authority.sign("between", &["127.0.0.1"]);
    for mut login in through(&world, &other, |frame| frame) {
        assert_eq!(login.offered().as_deref(), Some(ALL));
        let seen = login.seen();
        is_refused(&login.prove(&seen));
        world.await_said(login.role, "the proof is wrong");
    }
    world.end();
}

/// The library's client, which has the exporter.
fn with_exporter(world: &World, at: &str) -> Result<Caller, Error> {
    let token = client::token::Token::from_file(&world.folder.path().join("many"));
    let token = Some(token.expect("a token"));
    let trust = Some(world.authority.trust());
    let echo = ServiceName::new("echo").expect("a name");
    let options = Options { token, trust, ..Options::new(echo) };
    Caller::login(&[Address::parse(at).expect("an address")], options)
}

#[test]
fn who_has_the_key_of_the_certificate_passes_on_that_proof_but_never_one_by_the_exporter() {
    let world = World::start(true, &[], &[]);
    for mut login in through(&world, &world.pair, |frame| frame) {
        let seen = login.seen();
        login.is_let_in(&seen);
    }
    let port = world.broker.port("client");
    let at = stand_before(&port, &world.authority, Some(&world.pair), |frame| frame);
    let error = with_exporter(&world, &at).map(|_| ()).expect_err("refused");
    assert!(error.is(ErrorCode::BadToken), "{error}");
    with_exporter(&world, &port).expect("let in");
    world.end();
}

/// Puts these names into the challenge, or takes the line out.
fn with_channels(frame: Frame, names: Option<&str>) -> Frame {
    match frame {
        Frame::Challenge(challenge) => {
            let channels = names.and_then(Channels::parse);
            Frame::Challenge(Challenge { channels, ..challenge })
        }
        frame => frame,
    }
}

#[test]
fn a_list_that_was_changed_on_the_way_makes_the_proof_wrong() {
    let world = World::start(true, &[], &[]);
    // With the very certificate, so that nothing else is wrong.
    let edits: [fn(Frame) -> Frame; 3] = [
        |frame| with_channels(frame, Some("tls-server-end-point")),
        |frame| with_channels(frame, Some("tls-server-end-point tls-exporter")),
        |frame| with_channels(frame, Some("x tls-exporter tls-server-end-point")),
    ];
    for edit in edits {
        for mut login in through(&world, &world.pair, edit) {
            assert_ne!(login.offered().as_deref(), Some(ALL));
            let seen = login.seen();
            is_refused(&login.prove(&seen));
            world.await_said(login.role, "the proof is wrong");
        }
    }
    // Without the line, who has no exporter proves nothing; who has it does not look at the line.
    let without: fn(Frame) -> Frame = |frame| with_channels(frame, None);
    for mut login in through(&world, &world.pair, without) {
        assert_eq!(login.offered(), None);
        let seen = login.seen();
        let why = login.prover.answer(&login.challenge, Some(&seen)).expect_err("no proof");
        assert!(why.contains("tls-server-end-point (it names: none)"), "{why}");
    }
    world.end();
}

#[test]
fn without_tls_there_is_nothing_to_bind_to() {
    let world = World::start(false, &[], &[]);
    for mut login in world.begin(&world.ports()) {
        assert_eq!(login.offered(), None, "{}", login.role);
        let some = Channel::EndPoint(vec![1; 32]);
        login.prover.answer(&login.challenge, Some(&some)).expect_err("no proof");
        let proof = login.prover.answer(&login.challenge, None).expect("an answer");
        is_refused(&login.send(Proof { channel: Some(Binding::EndPoint), ..proof }));
        world.await_said(login.role, UNTAKEN);
    }
    for mut login in world.begin(&world.ports()) {
        let channels = Channels::parse(ALL);
        let some = Channel::EndPoint(vec![1; 32]);
        let challenge = Challenge { channels, ..login.challenge.clone() };
        let proof = login.prover.answer(&challenge, Some(&some)).expect("an answer");
        is_refused(&login.send(proof));
    }
    world.end();
}

#[test]
fn an_operator_who_wants_the_exporter_gets_it() {
    let only = ["--tls-client-exporter", "--tls-worker-exporter"];
    let world = World::start(true, &only, &only[..1]);
    for mut login in world.begin(&world.ports()) {
        assert_eq!(login.offered().as_deref(), Some("tls-exporter"), "{}", login.role);
        let seen = login.seen();
        let why = login.prover.answer(&login.challenge, Some(&seen)).expect_err("no proof");
        assert!(why.contains("(it names: tls-exporter)"), "{why}");
        // Who proves all the same is refused, as is who was told another list on the way.
        let channels = Channels::parse(ALL);
        let challenge = Challenge { channels, ..login.challenge.clone() };
        let proof = login.prover.answer(&challenge, Some(&seen)).expect("an answer");
        is_refused(&login.send(proof));
        world.await_said(login.role, UNTAKEN);
    }
    for mut login in world.begin(&world.ports()) {
        let channel = login.peer.stream.channel().expect("it is through").expect("TLS");
        login.is_let_in(&channel);
    }
    world.end();
    // Each port of the broker is asked by itself.
    for (option, offered) in [
        ("--tls-client-exporter", ["tls-exporter", ALL]),
        ("--tls-worker-exporter", [ALL, "tls-exporter"]),
    ] {
        let world = World::start(true, &[option], &[]);
        let found: Vec<_> = world.begin(&world.ports()).iter().map(Login::offered).collect();
        for (found, wanted) in found.iter().zip([&offered[..], &[ALL]].concat()) {
            assert_eq!(found.as_deref(), Some(wanted), "{option}");
        }
        world.end();
    }
}

#[test]
fn after_a_reload_each_connection_keeps_the_certificate_that_it_showed() {
    let world = World::start(true, &[], &[]);
    let old = world.begin(&world.ports());
    let older = world.begin(&world.ports());
    let before = old[0].seen();
    let new = world.authority.sign("new", &["127.0.0.1"]);
    let rename = |from: &PathBuf, to: &PathBuf| std::fs::rename(from, to).expect("a file");
    rename(&new.cert, &world.pair.cert);
    rename(&new.key, &world.pair.key);
    let read = world.broker.process.log().matches("certificate_read").count();
    world.broker.process.signal(Signal::SIGHUP);
    world.execd.process.signal(Signal::SIGHUP);
    await_that("the reload", || {
        (world.broker.process.log().matches("certificate_read").count() > read).then_some(())
    });
    world.execd.process.await_log("reloaded certificate", 1);
    for mut login in old {
        let seen = login.seen();
        assert_eq!(seen, before);
        login.is_let_in(&seen);
    }
    let mut fresh = world.begin(&world.ports());
    let after = fresh[0].seen();
    assert_ne!(after, before);
    // The new hash is wrong on an old connection, and the old one on a new connection.
    for mut login in older {
        is_refused(&login.prove(&after));
    }
    for login in &mut fresh {
        assert_eq!(login.seen(), after);
        is_refused(&login.prove(&before));
    }
    for mut login in world.begin(&world.ports()) {
        login.is_let_in(&after);
    }
    world.end();
}
