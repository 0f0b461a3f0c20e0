//! The real `isectd` as a process: it listens, passes a request on, survives garbage, ends in order and
//! leaves nothing behind. What it decides is tested with scripts; here it is the shell that matters.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

use bytes::{Bytes, BytesMut};
use protocol::bodies::{Badge, Login};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::WorkerId;
use protocol::names::{HostName, ServiceName};
use protocol::{decode, encode};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

const PATIENCE: Duration = Duration::from_secs(20);

/// A broker that is ended when the test is over, however it goes.
struct Broker {
    child: Child,
    dir: TempDir,
    client: String,
    worker: String,
}

#[allow(clippy::disallowed_methods, reason = "tests have deadlines")]
fn deadline() -> Instant {
    Instant::now() + PATIENCE
}

#[allow(clippy::disallowed_methods, reason = "tests have deadlines")]
fn is_over(deadline: Instant) -> bool {
    std::thread::yield_now();
    Instant::now() > deadline
}

#[allow(clippy::disallowed_methods, reason = "the test starts the program it tests")]
fn isectd(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isectd"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

fn field(json: &str, key: &str) -> String {
    let rest = json.split_once(&format!("\"{key}\":\"")).expect("the key is there").1;
    rest.split_once('"').expect("a text").0.to_owned()
}

impl Broker {
    fn start(words: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), words)
    }

    fn start_in(dir: TempDir, words: &[&str]) -> Self {
        let ports = dir.path().join("ports.json");
        let _ = fs::remove_file(&ports);
        let state = dir.path().join("state");
        let mut command = isectd(&["--listen", "127.0.0.1:0", "--log", "off"]);
        if !words.contains(&"--state") {
            command.arg("--state").arg(&state);
        }
        let child = command.arg("--ports-file").arg(&ports).args(words).spawn().unwrap();
        let until = deadline();
        let json = loop {
            match fs::read_to_string(&ports) {
                Ok(json) => break json,
                Err(_) => assert!(!is_over(until), "no ports file"),
            }
        };
        let (client, worker) = (field(&json, "client"), field(&json, "worker"));
        Self { child, dir, client, worker }
    }

    fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    fn end(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0));
    }
}

fn wait(child: &mut Child) -> ExitStatus {
    let until = deadline();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(!is_over(until), "it does not end");
    }
}

impl Drop for Broker {
    fn drop(&mut self) {
        // TERM, so that a built-in execd ends as well; KILL if that does not help.
        if matches!(self.child.try_wait(), Ok(None)) {
            self.signal(nix::sys::signal::Signal::SIGTERM);
            let until = deadline();
            while matches!(self.child.try_wait(), Ok(None)) {
                if is_over(until) {
                    let _ = self.child.kill();
                    let _ = self.child.wait();
                }
            }
        }
    }
}

/// State and process id of the built-in execd, as `hosts` shows them.
fn execd(broker: &Broker) -> (String, i32) {
    let hosts = tcp(&broker.client).login("op").op(1, "hosts");
    let line = hosts.lines().find(|line| line.contains("localhost")).expect("the local host");
    let words: Vec<&str> = line.split_whitespace().collect();
    (words[1].to_owned(), words[5].parse().unwrap_or(0))
}

/// Waits until the built-in execd is linked and its process is another one than `before`.
fn linked(broker: &Broker, before: i32) -> i32 {
    let until = deadline();
    loop {
        match execd(broker) {
            (state, pid) if state == "up" && pid != before && pid != 0 => return pid,
            other => assert!(!is_over(until), "{other:?}"),
        }
    }
}

fn is_alive(pid: i32) -> bool {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
    stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
}

/// One end of a connection that speaks frames.
struct Wire<S> {
    stream: S,
    buffer: BytesMut,
}

fn tcp(address: &str) -> Wire<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream.set_write_timeout(Some(PATIENCE)).unwrap();
    Wire { stream, buffer: BytesMut::new() }
}

fn unix(path: &Path) -> Wire<UnixStream> {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    Wire { stream, buffer: BytesMut::new() }
}

impl<S: Read + Write> Wire<S> {
    fn send(&mut self, frame: Frame) {
        self.stream.write_all(&encode::to_bytes(frame)).unwrap();
    }

    /// The next frame; `None` = the broker closed in order.
    fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = decode::next(&mut self.buffer, 1 << 30).unwrap() {
                return Some(frame);
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes).unwrap() {
                0 => return None,
                count => self.buffer.extend_from_slice(&bytes[..count]),
            }
        }
    }

    fn login(mut self, service: &str) -> Self {
        self.send(Frame::Login(Login::to(ServiceName::new(service).unwrap())));
        assert!(matches!(self.next(), Some(Frame::LoginOk(_))));
        self
    }

    fn ask(&mut self, sequence: u32, body: impl Into<Bytes>) {
        let head = Header { sequence, reply: 1, ..Header::default() };
        self.send(Frame::data(head, body.into()));
    }

    /// The body of the next data frame, which must be to this sequence.
    fn answer(&mut self, sequence: u32) -> Bytes {
        match self.next() {
            Some(Frame::Data { head, body }) => {
                assert_eq!((head.sequence, head.error), (sequence, 0));
                body
            }
            other => panic!("no answer: {other:?}"),
        }
    }

    fn op(&mut self, sequence: u32, command: &str) -> String {
        self.ask(sequence, command.to_owned());
        String::from_utf8(self.answer(sequence).to_vec()).unwrap()
    }

    /// Logs in as a worker that started itself.
    fn badge(mut self) -> Self {
        self.send(Frame::Badge(Badge {
            worker: WorkerId(0),
            service: ServiceName::new("echo").unwrap(),
            host: HostName::new("elsewhere").unwrap(),
            hostpid: 1,
            secret: String::new(),
        }));
        assert!(matches!(self.next(), Some(Frame::BadgeOk(_))));
        self
    }

    /// Takes the next request and gives its body back.
    fn echo(&mut self) -> usize {
        loop {
            match self.next() {
                Some(Frame::Data { head, body }) => {
                    let size = body.len();
                    self.send(Frame::data(head, body));
                    return size;
                }
                Some(Frame::Ping { sequence }) => self.send(Frame::Pong { sequence }),
                other => panic!("no request: {other:?}"),
            }
        }
    }

    /// The code of the error that comes next, and then the end.
    fn refusal(mut self) -> ErrorCode {
        let Some(Frame::Error { error, .. }) = self.next() else {
            panic!("no error");
        };
        assert_eq!(self.next(), None, "closed after {error}");
        error.code
    }
}

const ECHO: &str = "config service echo selfstart=1";

#[test]
fn requests_of_every_size_pass_through_on_every_kind_of_socket() {
    let mut broker = Broker::start(&[]);
    let mut op = unix(&broker.state().join("client.sock")).login("op");
    op.op(1, ECHO);
    let mut worker = tcp(&broker.worker).badge();
    let mut other = unix(&broker.state().join("worker.sock")).badge();
    let mut client = tcp(&broker.client).login("echo");
    for (sequence, size) in [0, 1, 4095, 4096, 4097, 16_383, 16_384, 300_000, 2_000_000]
        .into_iter()
        .flat_map(|size| [size, size])
        .enumerate()
    {
        let body: Vec<u8> = (0..size).map(|i: usize| (i % 241) as u8).collect();
        let (even, odd) = (sequence % 2 == 0, sequence as u32 + 1);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                client.ask(odd, body.clone());
                client.answer(odd)
            });
            // Two workers, longest idle first: they take turns.
            let taken = if even { worker.echo() } else { other.echo() };
            assert_eq!(taken, size);
            assert!(sender.join().unwrap() == body, "a body of {size} bytes came back whole");
        });
    }
    broker.end();
}

#[test]
fn garbage_gets_an_error_and_a_close_and_disturbs_nobody() {
    let mut broker = Broker::start(&[]);
    let mut op = tcp(&broker.client).login("op");
    for address in [&broker.client, &broker.worker] {
        let mut wire = tcp(address);
        wire.stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        wire.stream.write_all(&[b'x'; 200]).unwrap();
        assert_eq!(wire.refusal(), ErrorCode::Version);
        let mut wire = tcp(address);
        wire.send(Frame::End);
        assert_eq!(wire.refusal(), ErrorCode::BadState);
    }
    let mut wire = tcp(&broker.client);
    let head = Header { len: 70_000, ..Header::default() };
    wire.stream.write_all(&head.write()).unwrap();
    assert_eq!(wire.refusal(), ErrorCode::BadState, "a large frame of a stranger");
    // Cut in the middle of a header.
    let mut wire = tcp(&broker.client);
    wire.stream.write_all(&[0; 10]).unwrap();
    drop(wire);
    assert!(!op.op(1, "version").is_empty());
    broker.end();
}

#[test]
fn a_body_past_the_limit_is_skipped_and_the_link_goes_on() {
    let mut broker = Broker::start(&["--set", "body_bytes_max=100000"]);
    tcp(&broker.client).login("op").op(1, ECHO);
    let mut worker = tcp(&broker.worker).badge();
    let mut client = tcp(&broker.client).login("echo");
    client.ask(1, vec![7; 100_001]);
    match client.next() {
        Some(Frame::Error { head, error }) => {
            assert_eq!((head.sequence, error.code), (1, ErrorCode::BodyTooLarge));
        }
        other => panic!("{other:?}"),
    }
    client.ask(2, vec![7; 100_000]);
    assert_eq!(worker.echo(), 100_000);
    assert_eq!(client.answer(2).len(), 100_000);
    broker.end();
}

#[test]
fn past_the_limit_of_connections_the_next_one_is_told_so() {
    let mut broker = Broker::start(&["--set", "connections_max=3"]);
    let held: Vec<_> = (0..3).map(|_| tcp(&broker.client).login("op")).collect();
    for _ in 0..3 {
        assert_eq!(tcp(&broker.client).refusal(), ErrorCode::TooManyConnections);
    }
    drop(held);
    let until = deadline();
    loop {
        let mut wire = tcp(&broker.client);
        wire.send(Frame::Login(Login::to(ServiceName::new("op").unwrap())));
        match wire.next() {
            Some(Frame::LoginOk(_)) => break,
            other => assert!(!is_over(until), "still {other:?}"),
        }
    }
    broker.end();
}

#[test]
fn a_slow_reader_is_closed_and_others_go_on() {
    let words = ["--set", "stall_ms=300", "--set", "outbox_bytes_max=65536"];
    let mut broker = Broker::start(&[&words[..], &["--set", "body_bytes_max=1000000"]].concat());
    let mut op = tcp(&broker.client).login("op");
    op.op(1, ECHO);
    let mut worker = tcp(&broker.worker).badge();
    let mut slow = tcp(&broker.client).login("echo");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for sequence in 1..=30 {
                let head = Header { sequence, reply: 1, ..Header::default() };
                let bytes = encode::to_bytes(Frame::data(head, Bytes::from(vec![1; 900_000])));
                // It may be closed while it sends: it does not read its answers.
                if slow.stream.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
        let until = deadline();
        let mut sequence = 1;
        loop {
            worker.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut bytes = [0; 65536];
            if let Ok(count) = worker.stream.read(&mut bytes) {
                worker.buffer.extend_from_slice(&bytes[..count]);
            }
            worker.stream.set_read_timeout(Some(PATIENCE)).unwrap();
            while let Some(frame) = decode::next(&mut worker.buffer, 1 << 30).unwrap() {
                match frame {
                    Frame::Data { head, body } => worker.send(Frame::data(head, body)),
                    Frame::Ping { sequence } => worker.send(Frame::Pong { sequence }),
                    other => panic!("{other:?}"),
                }
            }
            sequence += 1;
            let clients = op.op(sequence, "clients");
            if !clients.contains("echo") {
                break;
            }
            assert!(!is_over(until), "the slow reader is still there: {clients}");
        }
    });
    broker.end();
}

#[test]
fn it_ends_in_order_and_leaves_no_socket_behind() {
    let mut broker = Broker::start(&[]);
    let mut client = tcp(&broker.client).login("op");
    broker.signal(nix::sys::signal::Signal::SIGINT);
    while client.next().is_some() {}
    assert_eq!(broker.wait().code(), Some(0));
    let left = |name: &str| broker.state().join(name).exists();
    assert!(!left("client.sock") && !left("worker.sock"));
    assert!(left("key") && left("ports"));
}

#[test]
fn what_was_configured_and_where_it_listened_is_remembered() {
    let mut broker = Broker::start(&[]);
    tcp(&broker.client).login("op").op(1, ECHO);
    let before = (broker.client.clone(), broker.worker.clone());
    broker.end();
    let dir = std::mem::replace(&mut broker.dir, tempfile::tempdir().unwrap());
    let mut broker = Broker::start_in(dir, &[]);
    assert_eq!((broker.client.clone(), broker.worker.clone()), before);
    let services = tcp(&broker.client).login("op").op(1, "services");
    assert!(services.contains("echo"), "{services}");
    let config = fs::read_to_string(broker.state().join("config.isect")).unwrap();
    assert!(config.contains("echo"), "{config}");
    broker.end();
}

#[test]
fn a_saved_line_that_is_not_understood_is_kept_for_the_operator() {
    let dir = tempfile::tempdir().unwrap();
    let state = dir.path().join("state");
    fs::create_dir(&state).unwrap();
    let text = "config service echo\nnonsense here\n";
    fs::write(state.join("config.isect"), text).unwrap();
    let mut broker = Broker::start_in(dir, &[]);
    let mut op = tcp(&broker.client).login("op");
    assert!(op.op(1, "services").contains("echo"));
    assert_eq!(fs::read_to_string(state.join("config.isect")).unwrap(), text);
    assert_eq!(fs::read_to_string(state.join("config.isect.bad")).unwrap(), text);
    op.op(2, "config service other");
    let saved = fs::read_to_string(state.join("config.isect")).unwrap();
    assert!(saved.contains("other") && !saved.contains("nonsense"), "{saved}");
    broker.end();
}

#[test]
fn what_is_in_the_way_at_the_start_is_said_with_a_status_of_its_own() {
    let mut broker = Broker::start(&[]);
    let state = broker.state();
    let state = state.to_str().unwrap();
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("script");
    fs::write(&script, "nonsense\n").unwrap();
    let script = script.to_str().unwrap();
    for (words, status, part) in [
        (&["--set", "logn_ms=1"][..], 2, "did you mean 'login_ms'"),
        (&["--state", "/proc/nowhere"], 3, "--state"),
        (&["--state", state], 4, "runs on the state directory"),
        (&["--state", "none", "--listen", &broker.client], 5, "can't listen"),
        (&["--state", "none", "--source", "/no/such"], 6, "/no/such"),
        (&["--state", "none", "--listen", "127.0.0.1:0", "--source", script], 6, "nonsense"),
    ] {
        let mut child = isectd(words).stderr(Stdio::piped()).spawn().unwrap();
        let mut text = String::new();
        child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
        assert_eq!(wait(&mut child).code(), Some(status), "{words:?}: {text}");
        assert!(text.contains(part), "{words:?}: {text}");
    }
    broker.end();
}

#[test]
fn the_built_in_execd_outlives_a_crash_and_comes_back_after_its_own() {
    let mut broker = Broker::start(&[]);
    let first = linked(&broker, 0);
    broker.child.kill().unwrap();
    broker.wait();
    assert!(is_alive(first));
    let dir = std::mem::replace(&mut broker.dir, tempfile::tempdir().unwrap());
    let mut broker = Broker::start_in(dir, &[]);
    assert_eq!(linked(&broker, 0), first, "found again by its socket");
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(first), nix::sys::signal::Signal::SIGKILL)
        .unwrap();
    let second = linked(&broker, first);
    broker.end();
    let until = deadline();
    while is_alive(second) {
        assert!(!is_over(until), "the built-in execd outlives an orderly end");
    }
}

#[test]
fn without_state_nothing_is_left() {
    let mut broker = Broker::start(&["--state", "none"]);
    let ports = fs::read_to_string(broker.dir.path().join("ports.json")).unwrap();
    let socket = PathBuf::from(field(&ports, "client_unix").replace("unix:", ""));
    unix(&socket).login("op");
    let pid = linked(&broker, 0);
    broker.child.kill().unwrap();
    broker.wait();
    let until = deadline();
    while is_alive(pid) {
        assert!(!is_over(until), "the built-in execd outlives the broker");
    }
    fs::remove_dir_all(socket.parent().unwrap()).unwrap();
    let mut broker = Broker::start(&["--state", "none"]);
    let ports = fs::read_to_string(broker.dir.path().join("ports.json")).unwrap();
    let socket = PathBuf::from(field(&ports, "client_unix").replace("unix:", ""));
    assert!(socket.exists());
    broker.end();
    assert!(!socket.parent().unwrap().exists());
}

#[test]
fn halt_abort_and_a_second_signal_end_it_as_they_say() {
    let mut broker = Broker::start(&[]);
    tcp(&broker.client).login("op").ask(1, "halt");
    assert_eq!(broker.wait().code(), Some(1));

    let mut broker = Broker::start(&[]);
    tcp(&broker.client).login("op").ask(1, "abort");
    let status = broker.wait();
    assert_eq!(std::os::unix::process::ExitStatusExt::signal(&status), Some(6));
    // Its execd is left, as after a crash; a broker that is started again ends it.
    let dir = std::mem::replace(&mut broker.dir, tempfile::tempdir().unwrap());
    Broker::start_in(dir, &[]).end();

    // A worker that has a request holds up the orderly end; the second signal does not wait.
    let mut broker = Broker::start(&["--set", "stop_ask_ms=60000"]);
    tcp(&broker.client).login("op").op(1, ECHO);
    let mut worker = tcp(&broker.worker).badge();
    let mut client = tcp(&broker.client).login("echo");
    client.ask(1, "x");
    while !matches!(worker.next(), Some(Frame::Data { .. })) {}
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    client.ask(2, "y");
    match client.next() {
        Some(Frame::Error { head, error }) => {
            assert_eq!((head.sequence, error.code), (2, ErrorCode::ShuttingDown));
        }
        other => panic!("{other:?}"),
    }
    assert!(matches!(broker.child.try_wait(), Ok(None)), "it waits for the worker");
    broker.signal(nix::sys::signal::Signal::SIGTERM);
    assert_eq!(broker.wait().code(), Some(8));
}

#[test]
fn a_configuration_that_cannot_be_written_is_told_and_the_broker_goes_on() {
    let mut broker = Broker::start(&[]);
    fs::create_dir(broker.state().join("config.isect.tmp")).unwrap();
    let mut op = tcp(&broker.client).login("op");
    op.op(1, "config events 50");
    op.op(2, "config service echo");
    let until = deadline();
    while !op.op(3, "listevents").contains("config.isect") {
        assert!(!is_over(until));
    }
    fs::remove_dir(broker.state().join("config.isect.tmp")).unwrap();
    op.op(4, "config service other");
    let saved = fs::read_to_string(broker.state().join("config.isect")).unwrap();
    assert!(saved.contains("echo") && saved.contains("other"));
    broker.end();
}

#[test]
fn thousands_of_small_requests_on_one_connection_come_back_in_order() {
    let mut broker = Broker::start(&["--set", "requests_max=20000"]);
    tcp(&broker.client).login("op").op(1, ECHO);
    let mut worker = tcp(&broker.worker).badge();
    let mut client = tcp(&broker.client).login("echo");
    const COUNT: u32 = 5000;
    std::thread::scope(|scope| {
        scope.spawn(|| (0..COUNT).for_each(|_| assert!(worker.echo() <= 8)));
        let mut all = BytesMut::new();
        for sequence in 1..=COUNT {
            let head = Header { sequence, reply: 1, ..Header::default() };
            encode::append(Frame::data(head, Bytes::from(format!("{sequence}"))), &mut all);
        }
        // In pieces that cut frames anywhere.
        for piece in all.chunks(4999) {
            client.stream.write_all(piece).unwrap();
        }
        for sequence in 1..=COUNT {
            assert_eq!(client.answer(sequence), format!("{sequence}"));
        }
    });
    broker.end();
}
