//! Sends bad input to real processes: every kind of frame at every port at the wrong moment, cut
//! short, too large, of another version; random bytes; slow logins. Each gets its typed error and a
//! close, and nobody else is disturbed. Commands and paths are in `e2e_bad_commands`.

use isect_tests::docs::root;
use isect_tests::proc::{Broker, Execd, TIMEOUT, await_that, within};
use isect_tests::wire::{Wire, login};
use protocol::bodies::ExecHello;
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::kinds::{BodyKind, KINDS, Kind, KindRow};
use protocol::limits::{CONTROL_BODY_BYTES_MAX, HEADER_BYTES};
use protocol::names::HostName;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

/// How much the memory of a broker may grow through one attack, in KiB.
const GROWTH_KIB: u64 = 24 * 1024;

/// The bytes of a frame of this kind, from its file in `tests/wire`.
fn sample(row: &KindRow) -> Vec<u8> {
    let path = root().join(format!("tests/wire/{}.hex", row.name));
    let text = std::fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    let code = text.lines().map(|line| line.split('#').next().unwrap_or_default());
    let digits: String = code.flat_map(str::split_whitespace).collect();
    hex::decode(digits).expect("bytes")
}

/// The same frame with a changed header.
fn with(bytes: &[u8], change: impl FnOnce(&mut Header)) -> Vec<u8> {
    let mut head = Header::read(bytes.first_chunk::<HEADER_BYTES>().expect("a header"));
    change(&mut head);
    [&head.write()[..], &bytes[HEADER_BYTES..]].concat()
}

/// A port, and how far a connection to it has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Port {
    /// The client port, before the login.
    Client,
    /// The client port after a login.
    LoggedIn,
    /// The worker port, before the login.
    Worker,
    /// The worker port after the login of a worker.
    WorkerLoggedIn,
    /// The port of an execd, before the hello.
    Execd,
    /// The port of an execd after the hello.
    Greeted,
}

const PORTS: &[Port] =
    &[Port::Client, Port::LoggedIn, Port::Worker, Port::WorkerLoggedIn, Port::Execd, Port::Greeted];

/// A broker and an execd that are attacked, and their state before the attack.
struct Target {
    broker: Broker,
    execd: Execd,
    descriptors: usize,
    memory_kib: u64,
}

fn descriptors(pid: u32) -> usize {
    std::fs::read_dir(format!("/proc/{pid}/fd")).expect("a process").count()
}

fn memory_kib(pid: u32) -> u64 {
    sys::proc::status(pid).and_then(|status| status.vmrss).expect("a process")
}

impl Target {
    fn new(args: &[&str]) -> Self {
        let broker = Broker::start(args);
        let execd = Execd::start(&[]);
        broker.with_workers("echo", "isdecho", 2);
        broker.op("config service open selfstart=1");
        let pid = broker.process.pid();
        broker.login("echo").call("warm", None).expect("an answer");
        let (descriptors, memory_kib) = (descriptors(pid), memory_kib(pid));
        Self { broker, execd, descriptors, memory_kib }
    }

    /// Runs an attack while a good client goes on asking; then all must be as before.
    fn while_served(self, attack: impl FnOnce(&Self)) {
        let (is_over, count) = (AtomicBool::new(false), AtomicU64::new(0));
        std::thread::scope(|scope| {
            let good = scope.spawn(|| {
                let mut caller = self.broker.login("echo");
                while !is_over.load(Ordering::Relaxed) {
                    let body = count.load(Ordering::Relaxed).to_be_bytes().to_vec();
                    assert!(caller.call(body.clone(), Some(TIMEOUT)).expect("served") == body);
                    count.fetch_add(1, Ordering::Relaxed);
                }
            });
            let more = |than: u64| (count.load(Ordering::Relaxed) > than).then_some(());
            await_that("the good client", || more(0));
            // The good client must also end when an assertion of the attack fails.
            let over = Over(&is_over);
            attack(&self);
            let before = count.load(Ordering::Relaxed);
            await_that("the good client", || more(before));
            drop(over);
            good.join().expect("the good client is served throughout");
        });
        self.check();
    }

    fn check(self) {
        let pid = self.broker.process.pid();
        // One more is allowed: the connection of the last command may not be closed yet.
        let closed = within(TIMEOUT, || (descriptors(pid) <= self.descriptors + 1).then_some(()));
        assert!(closed.is_some(), "{} descriptors, not {}", descriptors(pid), self.descriptors);
        let memory = memory_kib(pid);
        assert!(memory < self.memory_kib + GROWTH_KIB, "{memory} KiB, was {}", self.memory_kib);
        assert_eq!(self.broker.number("", "isdData.PriList"), 1, "no client is left over");
        assert_eq!(self.broker.number("worker 1", "worker->restarts"), 0);
        assert!(isect_tests::proc::is_alive(self.execd.process.pid()));
        assert_eq!(self.broker.end(), 0);
    }

    fn connect(&self, port: Port) -> Wire {
        match port {
            Port::Client => Wire::connect(&self.broker.port("client")),
            Port::LoggedIn => Wire::login(&self.broker.port("client"), "echo"),
            Port::Worker => Wire::connect(&self.broker.port("worker")),
            Port::WorkerLoggedIn => Wire::worker_login(&self.broker.port("worker"), "open"),
            Port::Execd => Wire::connect(&self.execd.address),
            Port::Greeted => {
                let mut wire = Wire::connect(&self.execd.address);
                let host = HostName::new("h").expect("a name");
                // Each connection is a broker of its own name; a second one of the same name would
                // replace the first.
                wire.send(Frame::ExecHello(ExecHello {
                    host,
                    broker: "visitor".into(),
                    token: None,
                }));
                let answer = wire.next_frame();
                assert!(matches!(answer, Some(Frame::ExecWelcome(_))), "{answer:?}");
                wire
            }
        }
    }
}

struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// The answers on a connection to these bytes, in words: `login-ok`, `error bad_state`; `open` at
/// the end if the connection goes on.
fn told(wire: &mut Wire, bytes: &[u8]) -> Vec<String> {
    const MARK: u32 = 424_242;
    // In one piece: a peer that shuts its side behind the first frame answers the ping or not, as
    // it has read them together or one by one. It may close before it has read all of this.
    let ping = encode::to_bytes(Frame::Ping { sequence: MARK });
    let _ = wire.write(&[bytes, &ping].concat());
    let mut words = Vec::new();
    while let Some(frame) = wire.next_frame() {
        words.push(match &frame {
            Frame::Pong { sequence: MARK } => "open".to_owned(),
            Frame::Error { error, .. } => format!("error {}", error.code),
            other => other.kind().to_string(),
        });
        if matches!(frame, Frame::Pong { sequence: MARK }) {
            break;
        }
    }
    words
}

/// The answers to a well-formed frame of this kind at this port.
fn expected(port: Port, kind: Kind) -> &'static [&'static str] {
    const OPEN: &[&str] = &["open"];
    const CLOSED: &[&str] = &[];
    match (port, kind) {
        (Port::Client, Kind::Login) => &["login-ok", "open"],
        // The login in the file is of a worker that does not exist here.
        (Port::Worker, Kind::WorkerLogin) => &["error bad_worker_login"],
        (Port::Execd, Kind::ExecHello) => &["exec-welcome", "open"],
        // The request and the ping are sent together, and the ping may be answered first.
        (Port::LoggedIn, Kind::Data) => &["data", "open"],
        // No request has transaction 0: the reply is dropped and counted as late.
        (Port::WorkerLoggedIn, Kind::Data | Kind::StatusReply) => OPEN,
        (Port::Greeted, Kind::ExecStart) => &["exec-failed", "open"],
        (Port::Greeted, Kind::ExecStop | Kind::ExecSignal) => &["error not_found", "open"],
        (Port::Greeted, Kind::ExecList) => &["exec-listed", "open"],
        (Port::Greeted, Kind::ExecHello) => &["error bad_state"],
        (Port::Greeted, Kind::ExecRead) => &["exec-lines", "open"],
        (Port::Greeted, Kind::ExecEnd) => OPEN,
        (Port::Execd, _) => &["error bad_state"],
        (_, Kind::Ping) => &["pong", "open"],
        // A program that complains before its login is closed.
        (Port::Client | Port::Worker, Kind::Error) => CLOSED,
        (_, Kind::Pong | Kind::Error) => OPEN,
        (Port::Client | Port::LoggedIn | Port::Worker, Kind::Logout) => CLOSED,
        // It closes itself.
        (Port::WorkerLoggedIn, Kind::Logout) => &["end", "open"],
        // What is given up has ended, or never was.
        (Port::LoggedIn, Kind::Cancel) => OPEN,
        (Port::LoggedIn, Kind::Flush) => &["flushed", "open"],
        // Of workers as of clients.
        (Port::LoggedIn, Kind::Subscribe) => &["subscribed", "caught-up", "open"],
        // A client has published a value that is kept.
        (Port::WorkerLoggedIn, Kind::Subscribe) => &["subscribed", "message", "caught-up", "open"],
        (Port::LoggedIn | Port::WorkerLoggedIn, Kind::Unsubscribe) => &["error not_found", "open"],
        (Port::LoggedIn | Port::WorkerLoggedIn, Kind::Publish) => &["published", "open"],
        (Port::LoggedIn | Port::WorkerLoggedIn, Kind::Announce) => &["announced", "open"],
        (Port::LoggedIn | Port::WorkerLoggedIn, Kind::StateChange | Kind::Withdraw) => {
            &["error bad_instance", "open"]
        }
        (Port::LoggedIn | Port::WorkerLoggedIn, Kind::Beat) => &["beat-ok", "open"],
        // A login or a proof at the wrong time is `bad_state`; anything else that is no reply is
        // `bad_reply`.
        (Port::WorkerLoggedIn, kind) if !matches!(kind, Kind::WorkerLogin | Kind::Proof) => {
            &["error bad_reply"]
        }
        _ => &["error bad_state"],
    }
}

/// The error for a frame that can't be decoded: a worker that is logged in gets `bad_reply`.
fn refusal(port: Port, code: ErrorCode) -> ErrorCode {
    if port == Port::WorkerLoggedIn { ErrorCode::BadReply } else { code }
}

#[test]
fn each_kind_of_frame_at_each_port_gets_its_answer() {
    Target::new(&[]).while_served(|target| {
        let mut wrong = Vec::new();
        for port in PORTS {
            for row in KINDS {
                let mut wire = target.connect(*port);
                let (mut told, mut expected) =
                    (told(&mut wire, &sample(row)), expected(*port, row.kind).to_vec());
                let is_slow = matches!(
                    (row.kind, *port),
                    (Kind::Data, Port::LoggedIn)
                        | (Kind::ExecStart | Kind::ExecRead, Port::Greeted)
                );
                if is_slow && told == ["open"] {
                    // The ping was answered before the worker replied, or before the process was
                    // started.
                    told.extend(wire.next_frame().map(|frame| frame.kind().to_string()));
                    expected.reverse();
                }
                if told != expected {
                    wrong.push(format!("{port:?} {}: {told:?}, not {expected:?}", row.name));
                }
            }
        }
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    });
}

#[test]
fn another_version_an_unknown_kind_and_set_flags_are_refused_everywhere() {
    Target::new(&[]).while_served(|target| {
        for port in PORTS {
            for row in KINDS {
                let bytes = sample(row);
                let cases: [(&str, Vec<u8>, ErrorCode); 5] = [
                    ("version 1", with(&bytes, |h| h.version = 1), ErrorCode::Version),
                    ("version 0", with(&bytes, |h| h.version = 0), ErrorCode::Version),
                    ("version 65535", with(&bytes, |h| h.version = 65_535), ErrorCode::Version),
                    ("kind 999", with(&bytes, |h| h.command = 999), ErrorCode::BadFrame),
                    ("flags", with(&bytes, |h| h.flags = 0x80), ErrorCode::BadFrame),
                ];
                for (what, bytes, code) in cases {
                    let mut wire = target.connect(*port);
                    let _ = wire.write(&bytes);
                    let code = refusal(*port, code);
                    assert_eq!(wire.refusal(), code, "{port:?} {} with {what}", row.name);
                }
            }
        }
    });
}

#[test]
fn frames_that_are_too_large_are_refused_before_their_body_comes() {
    Target::new(&["--set", "body_bytes_max=1000000"]).while_served(|target| {
        for port in PORTS {
            for row in KINDS {
                let size = match row.body {
                    BodyKind::Opaque => 1_000_001,
                    BodyKind::Lines | BodyKind::Text => CONTROL_BODY_BYTES_MAX + 1,
                    BodyKind::Empty => 1,
                };
                for size in [size, u32::MAX as usize] {
                    let len = u32::try_from(size).expect("a length");
                    let mut wire = target.connect(*port);
                    let _ = wire.write(&with(&sample(row), |h| h.len = len)[..HEADER_BYTES]);
                    let code = wire.error();
                    let is_right = matches!(
                        code,
                        ErrorCode::BodyTooLarge | ErrorCode::BadFrame | ErrorCode::BadState
                    ) || code == refusal(*port, code);
                    assert!(is_right, "{port:?} {} of {size} bytes: {code}", row.name);
                    let is_skipped = (*port == Port::LoggedIn && row.kind == Kind::Data)
                        || (matches!(port, Port::LoggedIn | Port::WorkerLoggedIn)
                            && row.kind == Kind::Publish);
                    if is_skipped {
                        // Only this frame is skipped: the connection goes on after it.
                        continue;
                    }
                    wire.await_close();
                }
            }
        }
        let mut wire = target.connect(Port::LoggedIn);
        let piece = vec![7; 1_000_001];
        wire.ask(1, piece);
        assert_eq!(wire.error(), ErrorCode::BodyTooLarge);
        wire.ask(2, "small");
        assert_eq!(wire.answer(2), "small");
    });
}

#[test]
fn frames_that_are_truncated_leave_nothing_behind() {
    Target::new(&[]).while_served(|target| {
        for port in PORTS {
            for row in KINDS {
                let bytes = sample(row);
                let sizes = [1, 31, HEADER_BYTES - 1, HEADER_BYTES, bytes.len() - 1];
                for size in sizes.into_iter().filter(|size| *size < bytes.len()) {
                    let mut wire = target.connect(*port);
                    let _ = wire.write(&bytes[..size]);
                    wire.shut();
                    match wire.next_frame() {
                        None => {}
                        Some(Frame::Error { .. }) => wire.await_close(),
                        other => panic!("{port:?} {} truncated after {size}: {other:?}", row.name),
                    }
                }
            }
        }
    });
}

#[test]
fn bodies_that_make_no_sense_are_refused_by_name() {
    Target::new(&[]).while_served(|target| {
        let bodies: [&[u8]; 7] = [
            b"",
            b"\xff\xfe\x00",
            b"service",
            b"service echo\\x\n",
            b"service all\nhost all\nworker x\nrun -1\n",
            &b"k v\n".repeat(5000),
            &[b"service ", &[b'x'; 9000][..]].concat(),
        ];
        for (port, kind) in [
            (Port::Client, Kind::Login),
            (Port::Worker, Kind::WorkerLogin),
            (Port::Execd, Kind::ExecHello),
            (Port::Greeted, Kind::ExecStart),
            (Port::Greeted, Kind::ExecStop),
            (Port::Greeted, Kind::ExecSignal),
        ] {
            for body in bodies {
                let len = u32::try_from(body.len()).expect("a length");
                let head = Header { len, command: kind.number(), ..Header::default() };
                let mut wire = target.connect(port);
                let _ = wire.write(&[&head.write()[..], body].concat());
                let code = wire.refusal();
                let is_right = matches!(code, ErrorCode::BadLogin | ErrorCode::BadFrame);
                assert!(
                    is_right,
                    "{kind} with {:?}: {code}",
                    body[..body.len().min(40)].escape_ascii()
                );
            }
        }
        let mut wire = target.connect(Port::Client);
        wire.send(Frame::Login(login("nosuch")));
        assert_eq!(wire.refusal(), ErrorCode::UnknownService);
    });
}

/// Random numbers from a fixed seed (xorshift).
struct Rng(u64);

impl Rng {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    fn below(&mut self, limit: usize) -> usize {
        usize::try_from(self.next() % limit as u64).expect("small")
    }

    fn bytes(&mut self, size: usize) -> Vec<u8> {
        (0..size).map(|_| self.next().to_le_bytes()[3]).collect()
    }
}

#[test]
fn random_bytes_are_survived_at_every_port() {
    Target::new(&[]).while_served(|target| {
        let mut rng = Rng(0x5eed_1999);
        for round in 0..40 {
            for port in PORTS {
                let mut wire = target.connect(*port);
                let mut bytes = Vec::new();
                for _ in 0..=rng.below(4) {
                    // Random bytes, or a frame with some of its bytes changed.
                    if rng.below(4) == 0 {
                        let size = rng.below(3000);
                        bytes.extend(rng.bytes(size));
                        continue;
                    }
                    let mut frame = sample(&KINDS[rng.below(KINDS.len())]);
                    for _ in 0..rng.below(6) {
                        let at = rng.below(frame.len());
                        frame[at] = rng.next().to_le_bytes()[5];
                    }
                    bytes.extend(frame);
                }
                let _ = wire.write(&bytes);
                if round % 2 == 0 {
                    continue;
                }
                // A length that was changed has the other side wait for more.
                wire.shut();
                for word in told(&mut wire, &[]) {
                    assert!(!word.contains("internal"), "{port:?} round {round}: {word}");
                }
            }
        }
    });
}

#[test]
fn slow_logins_are_dropped_and_do_not_hold_up_others() {
    Target::new(&["--set", "login_ms=300"]).while_served(|target| {
        let hello = sample(Kind::Login.row());
        for port in [Port::Client, Port::Worker] {
            let mut silent: Vec<Wire> = (0..50).map(|_| target.connect(port)).collect();
            let mut dripping = target.connect(port);
            for byte in hello.iter().take(40) {
                if dripping.write(&[*byte]).is_err() {
                    break;
                }
            }
            for wire in &mut silent {
                assert_eq!(wire.refusal(), ErrorCode::LoginTimeout, "{port:?}");
            }
            assert_eq!(dripping.refusal(), ErrorCode::LoginTimeout, "{port:?}");
        }
    });
}

#[test]
fn an_execd_closes_a_broker_that_sends_no_hello() {
    let target = Target::new(&[]);
    let mut wire = target.connect(Port::Execd);
    assert_eq!(wire.refusal(), ErrorCode::LoginTimeout);
    target.check();
}

#[test]
fn mistakes_of_a_client_within_the_protocol_cost_one_request_each() {
    Target::new(&[]).while_served(|target| {
        let mut wire = target.connect(Port::LoggedIn);
        let head = |sequence| isect_tests::wire::request(sequence);
        let body = bytes::Bytes::from_static(b"x");
        // A conversation that does not exist.
        wire.send(Frame::data(Header { workerid: 1, ..head(1) }, body.clone()));
        assert_eq!(wire.error(), ErrorCode::NoConversation);
        wire.send(Frame::data(Header { workerid: 4_000_000, ..head(2) }, body.clone()));
        assert_eq!(wire.error(), ErrorCode::NoConversation);
        // A client can't choose transaction and attempt: they are ignored.
        wire.send(Frame::data(Header { transaction: 7, attempt: 9, ..head(3) }, body.clone()));
        assert_eq!(wire.answer(3), "x");
        // Fields that are out of range cost only their request; a deadline of one millisecond has
        // one of two outcomes.
        for bad in [
            Header { deadline_ms: 3_600_001, ..head(4) },
            Header { deadline_ms: u32::MAX, ..head(4) },
            Header { reply: 2, ..head(4) },
            Header { reply: u16::MAX, ..head(4) },
        ] {
            wire.send(Frame::data(bad, body.clone()));
            assert_eq!(wire.error(), ErrorCode::OutOfRange);
        }
        wire.send(Frame::data(Header { more: 2, ..head(4) }, body.clone()));
        assert_eq!(wire.error(), ErrorCode::OutOfRange);
        // The refused request said that more follows. This frame counts as its last piece, and is
        // answered with that error.
        wire.send(Frame::data(head(4), body.clone()));
        assert_eq!(wire.error(), ErrorCode::NoConversation);
        wire.send(Frame::data(Header { deadline_ms: 3_600_000, ..head(4) }, body.clone()));
        assert_eq!(wire.answer(4), "x");
        wire.send(Frame::data(Header { deadline_ms: 1, ..head(5) }, body.clone()));
        match wire.next_frame() {
            Some(Frame::Data { .. }) => {}
            Some(Frame::Error { error, .. }) => assert_eq!(error.code, ErrorCode::Deadline),
            other => panic!("{other:?}"),
        }
        // These ask for no reply, so nothing comes, not even an error.
        wire.send(Frame::data(Header { reply: 0, workerid: 77, ..head(6) }, body.clone()));
        wire.send(Frame::data(Header { reply: 0, ..head(7) }, body));
        wire.ask(8, "last");
        assert_eq!(wire.answer(8), "last");
    });
}

#[test]
fn a_worker_that_answers_what_nobody_asked_is_heard_no_further_than_that() {
    Target::new(&[]).while_served(|target| {
        let mut worker = target.connect(Port::WorkerLoggedIn);
        let mut client = Wire::login(&target.broker.port("client"), "open");
        let reply = |transaction| Header { transaction, ..Header::default() };
        let body = bytes::Bytes::from_static(b"from nowhere");
        worker.send(Frame::data(reply(0), body.clone()));
        worker.send(Frame::data(reply(u64::MAX), body));
        client.ask(1, "x");
        match worker.next_frame() {
            Some(Frame::Data { head, body }) => {
                worker.send(Frame::data(reply(head.transaction), body));
                assert_eq!(client.answer(1), "x");
            }
            // The worker may also be closed; then the client waits for another one.
            Some(Frame::Error { error, .. }) => assert_eq!(error.code, ErrorCode::BadReply),
            other => panic!("{other:?}"),
        }
    });
}
