//! A client and a worker written from docs/protocol.md alone, byte by byte, without the crate
//! `protocol`; and each way a worker's connection can end, with what it proves. Real sockets, TCP
//! and Unix; the broker is stopped where it must notice two events at once.

use isect_tests::proc::{Broker, TIMEOUT, await_that};
use nix::sys::signal::Signal;
use socket2::SockRef;
use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A connection whose frames are written and read by the document's layout.
enum Raw {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// The fields of a received frame that this test compares.
#[derive(Debug, PartialEq)]
struct Got {
    sequence: u32,
    error: i16,
    command: u16,
    worker: u32,
    more: u16,
    transaction: u64,
    attempt: u32,
    body: String,
}

/// The fields of a sent frame that this test sets.
#[derive(Clone, Copy, Default)]
struct Put<'a> {
    sequence: u32,
    reply: u16,
    error: i16,
    command: u16,
    worker: u32,
    more: u16,
    flags: u8,
    transaction: u64,
    deadline_ms: u32,
    body: &'a str,
}

impl Put<'_> {
    fn bytes(&self) -> Vec<u8> {
        let mut out = Vec::new();
        out.extend((self.body.len() as u32).to_be_bytes());
        out.extend(self.sequence.to_be_bytes());
        out.extend(self.reply.to_be_bytes());
        out.extend(self.error.to_be_bytes());
        out.extend(self.command.to_be_bytes());
        out.extend(2_u16.to_be_bytes());
        out.extend(self.worker.to_be_bytes());
        out.extend(self.more.to_be_bytes());
        out.extend([0, self.flags]);
        out.extend(self.transaction.to_be_bytes());
        out.extend(self.deadline_ms.to_be_bytes());
        out.extend([0; 4 + 16 + 8]);
        assert_eq!(out.len(), 64);
        out.extend(self.body.as_bytes());
        out
    }
}

fn ask(sequence: u32, body: &str) -> Put<'_> {
    Put { sequence, reply: 1, body, ..Put::default() }
}

impl Raw {
    fn open(address: &str) -> Self {
        match address.strip_prefix("unix:") {
            Some(path) => {
                let socket = UnixStream::connect(path).expect("the socket");
                socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
                Self::Unix(socket)
            }
            None => {
                let socket = TcpStream::connect(address).expect("the port");
                socket.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
                Self::Tcp(socket)
            }
        }
    }

    fn client(broker: &Broker, service: &str) -> Self {
        let mut raw = Self::open(&broker.port("client"));
        raw.put(&Put { command: 1, body: &format!("service {service}\n"), ..Put::default() });
        let ok = raw.get();
        assert_eq!(ok.command, 2, "{ok:?}");
        assert!(ok.body.contains("\nrequests_max ") && ok.body.starts_with("client "), "{ok:?}");
        raw
    }

    fn worker(address: &str, service: &str) -> Self {
        let mut raw = Self::open(address);
        let body = format!("worker 0\nservice {service}\nhost desk\n");
        raw.put(&Put { command: 3, body: &body, ..Put::default() });
        let ok = raw.get();
        assert_eq!(ok.command, 4, "{ok:?}");
        raw
    }

    fn write(&mut self, bytes: &[u8]) {
        match self {
            Self::Tcp(socket) => socket.write_all(bytes),
            Self::Unix(socket) => socket.write_all(bytes),
        }
        .expect("sent");
    }

    fn read(&mut self, bytes: &mut [u8]) -> std::io::Result<()> {
        match self {
            Self::Tcp(socket) => socket.read_exact(bytes),
            Self::Unix(socket) => socket.read_exact(bytes),
        }
    }

    fn put(&mut self, put: &Put<'_>) {
        self.write(&put.bytes());
    }

    /// The next frame other than pings, which are answered, and pongs.
    fn get(&mut self) -> Got {
        self.next().expect("a frame")
    }

    fn next(&mut self) -> std::io::Result<Got> {
        loop {
            let mut head = [0; 64];
            self.read(&mut head)?;
            let four = |at: usize| u32::from_be_bytes(head[at..at + 4].try_into().expect("four"));
            let two = |at: usize| u16::from_be_bytes(head[at..at + 2].try_into().expect("two"));
            let eight = |at: usize| u64::from_be_bytes(head[at..at + 8].try_into().expect("eight"));
            let mut body = vec![0; four(0) as usize];
            self.read(&mut body)?;
            assert_eq!(two(14), 2, "the version");
            match two(12) {
                6 => self.put(&Put { command: 7, sequence: four(4), ..Put::default() }),
                7 => {}
                command => {
                    return Ok(Got {
                        sequence: four(4),
                        error: two(10) as i16,
                        command,
                        worker: four(16),
                        more: two(20),
                        transaction: eight(24),
                        attempt: four(36),
                        body: String::from_utf8_lossy(&body).into_owned(),
                    });
                }
            }
        }
    }

    /// Expects an error with this sequence and number; returns its `ran`.
    fn error(&mut self, sequence: u32, number: i16) -> String {
        let got = self.get();
        assert_eq!((got.sequence, got.command, got.error), (sequence, 5, number), "{got:?}");
        let ran = got.body.lines().find_map(|line| line.strip_prefix("ran "));
        ran.unwrap_or_else(|| panic!("{got:?}")).to_owned()
    }

    fn shut(&self) {
        match self {
            Self::Tcp(socket) => socket.shutdown(Shutdown::Write),
            Self::Unix(socket) => socket.shutdown(Shutdown::Write),
        }
        .expect("shut");
    }

    /// Has the connection reset, and not closed, when this is dropped.
    fn reset_at_the_end(&self) {
        let Self::Tcp(socket) = self else { panic!("only TCP can be reset so") };
        SockRef::from(socket).set_linger(Some(Duration::ZERO)).expect("linger");
    }
}

fn broker(settings: &[&str]) -> Broker {
    let broker = Broker::start(settings);
    broker.op("config service self selfstart=1 prefetch=2");
    broker
}

#[test]
fn a_client_and_a_worker_from_the_document_understand_each_other() {
    let broker = broker(&[]);
    for port in ["worker", "worker_unix"] {
        let mut worker = Raw::worker(&broker.port(port), "self");
        let mut client = Raw::client(&broker, "self");
        client.put(&ask(1, "hello"));
        let got = worker.get();
        assert_eq!((got.command, got.more, got.attempt, &got.body[..]), (0, 0, 1, "hello"));
        assert_ne!((got.worker, got.transaction), (0, 0));
        let reply = |got: &Got, more, body| Put {
            transaction: got.transaction,
            more,
            body,
            ..Put::default()
        };
        worker.put(&reply(&got, 0, "world"));
        let answer = client.get();
        assert_eq!((answer.sequence, answer.more, &answer.body[..]), (1, 0, "world"));
        // A conversation that ends with an error of the worker's own.
        client.put(&ask(2, "paint it"));
        let got = worker.get();
        worker.put(&reply(&got, 1, "which colour?"));
        let question = client.get();
        assert_eq!((question.sequence, question.more), (2, 1));
        client.put(&Put { worker: question.worker, ..ask(2, "red") });
        let got = worker.get();
        worker.put(&Put { error: 42, ..reply(&got, 0, "no such colour") });
        let answer = client.get();
        assert_eq!((answer.error, answer.command, &answer.body[..]), (42, 0, "no such colour"));
        // Requests in a row are answered in their order.
        (3..6).for_each(|sequence| client.put(&ask(sequence, "x")));
        for _ in 3..6 {
            let got = worker.get();
            worker.put(&reply(&got, 0, "y"));
        }
        (3..6).for_each(|sequence| assert_eq!(client.get().sequence, sequence));
        // Both log out, and the broker closes; the worker is told to end first.
        client.put(&Put { command: 8, ..Put::default() });
        worker.put(&Put { command: 8, ..Put::default() });
        assert_eq!(worker.get().command, 9);
        assert!(client.next().is_err() && worker.next().is_err());
    }
    let mut op = Raw::open(&broker.port("client_unix"));
    op.put(&Put { command: 1, body: "service op\nformat json\n", ..Put::default() });
    // Requests may follow the login without waiting for its reply.
    op.put(&ask(1, "version"));
    assert_eq!(op.get().command, 2);
    let answer: serde_json::Value = serde_json::from_str(&op.get().body).expect("JSON");
    assert!(answer.is_object(), "{answer}");
    op.put(&Put { more: 1, ..ask(2, "rej") });
    assert_eq!(op.error(2, -26), "no");
    assert_eq!(broker.end(), 0);
}

#[test]
fn what_is_out_of_range_and_what_comes_too_early_is_answered() {
    let broker = broker(&[]);
    let mut worker = Raw::worker(&broker.port("worker"), "self");
    let mut client = Raw::client(&broker, "self");
    for bad in [
        Put { reply: 2, ..ask(1, "x") },
        Put { deadline_ms: 3_600_001, ..ask(1, "x") },
        Put { more: 2, ..ask(2, "x") },
    ] {
        client.put(&bad);
        assert_eq!(client.error(bad.sequence, -41), "no");
    }
    // The refused request said that more follows, so this frame counts as its last piece.
    client.put(&ask(2, "too early"));
    assert_eq!(client.error(2, -19), "no");
    // A request in pieces whose deadline passes; then a whole request uses its sequence.
    client.put(&Put { more: 1, deadline_ms: 50, ..ask(3, "a") });
    assert_eq!(client.error(3, -16), "maybe");
    let got = worker.get();
    assert_eq!((got.more, &got.body[..]), (1, "a"));
    assert_eq!(worker.get().command, 5, "nobody waits any more");
    worker.put(&Put { transaction: got.transaction, ..Put::default() });
    client.put(&ask(3, "new"));
    assert_eq!(client.error(3, -19), "no");
    client.put(&ask(3, "again"));
    let got = worker.get();
    assert_eq!(got.body, "again");
    // An unknown bit of the flags ends the connection.
    client.put(&Put { flags: 4, ..ask(4, "x") });
    assert_eq!(client.error(0, -3), "maybe");
    assert!(client.next().is_err());
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_client_with_too_many_unfinished_requests_is_told_and_closed() {
    let broker = broker(&[]);
    broker.op("stop self");
    let mut client = Raw::client(&broker, "self");
    for sequence in 1..=1024 {
        client.put(&Put { more: 1, ..ask(sequence, "half") });
        assert_eq!(client.error(sequence, -15), "no");
    }
    client.put(&ask(2000, "whole"));
    assert_eq!(client.error(2000, -15), "no");
    client.put(&Put { more: 1, ..ask(2001, "half") });
    assert_eq!(client.error(0, -5), "no");
    assert!(client.next().is_err());
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_answers_out_of_turn_is_told_and_closed() {
    let broker = broker(&[]);
    let mut worker = Raw::worker(&broker.port("worker"), "self");
    let mut client = Raw::client(&broker, "self");
    client.put(&ask(1, "a"));
    client.put(&ask(2, "b"));
    let (_, second) = (worker.get(), worker.get());
    worker.put(&Put { transaction: second.transaction, ..Put::default() });
    assert_eq!(worker.error(0, -29), "maybe");
    assert!(worker.next().is_err());
    for sequence in [1, 2] {
        assert_eq!(client.error(sequence, -17), "maybe");
    }
    assert_eq!(broker.end(), 0);
}

/// How a worker's connection ends while it has one request and holds a second.
#[derive(Clone, Copy, Debug, PartialEq)]
enum End {
    Logout,
    Fin,
    FinInsideAFrame,
    Reset,
    ResetAfterFin,
    UnreadBytes,
}

/// Whether the second request is given to the next worker; otherwise its client gets the error.
fn held_after(broker: &Broker, port: &str, end: End) -> bool {
    let mut client = Raw::client(broker, "self");
    let mut worker = Raw::worker(&broker.port(port), "self");
    client.put(&ask(1, "a"));
    client.put(&ask(2, "b"));
    assert_eq!(worker.get().body, "a");
    if end != End::UnreadBytes {
        assert_eq!(worker.get().body, "b");
    } else {
        await_that("the second request at the worker", || {
            broker.op("queue self").contains("held").then_some(())
        });
    }
    // The broker is stopped, so it notices everything that happens now at once.
    broker.process.signal(Signal::SIGSTOP);
    match end {
        End::Logout => worker.put(&Put { command: 8, ..Put::default() }),
        End::Fin => worker.shut(),
        End::FinInsideAFrame => {
            worker.write(&[0; 10]);
            worker.shut();
        }
        End::Reset => worker.reset_at_the_end(),
        End::ResetAfterFin => {
            worker.shut();
            worker.reset_at_the_end();
        }
        End::UnreadBytes => {}
    }
    drop(worker);
    broker.process.signal(Signal::SIGCONT);
    assert_eq!(client.error(1, -17), "maybe", "{end:?} at {port}");
    let mut next = Raw::worker(&broker.port("worker"), "self");
    client.put(&ask(3, "c"));
    let got = next.get();
    let is_given_on = got.body == "b";
    if is_given_on {
        assert_eq!(got.attempt, 1, "{end:?} at {port}");
    } else {
        assert_eq!(got.body, "c");
        assert_eq!(client.error(2, -17), "maybe", "{end:?} at {port}");
    }
    is_given_on
}

#[test]
fn each_end_of_a_workers_connection_proves_what_the_document_says() {
    let broker = broker(&["--set", "silence_ms=60000"]);
    for (end, is_proof) in [
        (End::Logout, true),
        (End::Fin, true),
        (End::FinInsideAFrame, false),
        (End::Reset, false),
        (End::ResetAfterFin, false),
        (End::UnreadBytes, false),
    ] {
        for port in ["worker", "worker_unix"] {
            if port == "worker_unix" && matches!(end, End::Reset | End::ResetAfterFin) {
                continue;
            }
            assert_eq!(held_after(&broker, port, end), is_proof, "{end:?} at {port}");
            broker.await_page("", "isdData.BusyWorkers      = 0\n");
        }
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_broker_that_was_stopped_gives_everybody_the_time_that_was_lost() {
    let broker = broker(&["--set", "silence_ms=600", "--set", "heartbeat_ms=200"]);
    broker.remember_events();
    broker.with_workers("echo", "isdecho", 2);
    let pids = [1, 2].map(|id| broker.worker_pid(id));
    let mut worker = Raw::worker(&broker.port("worker"), "self");
    let mut client = Raw::client(&broker, "self");
    // One peer stops in the middle of its login, another in the middle of a frame.
    let mut comes = Raw::open(&broker.port("client"));
    let login = Put { command: 1, body: "service self\n", ..Put::default() }.bytes();
    comes.write(&login[..30]);
    broker.process.signal(Signal::SIGSTOP);
    let begun = isect_tests::figures::now();
    await_that("four silences", || (begun.elapsed() > Duration::from_millis(2400)).then_some(()));
    broker.process.signal(Signal::SIGCONT);
    comes.write(&login[30..]);
    assert_eq!(comes.get().command, 2);
    client.put(&ask(1, "x"));
    let got = worker.get();
    worker.put(&Put { transaction: got.transaction, body: "y", ..Put::default() });
    assert_eq!(client.get().body, "y");
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    assert_eq!([1, 2].map(|id| broker.worker_pid(id)), pids);
    let events = broker.op("listevents 100");
    assert!(!events.contains("answered no ping"), "{events}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_client_that_sends_one_large_frame_slowly_is_not_silent() {
    let broker = broker(&["--set", "silence_ms=600", "--set", "heartbeat_ms=200"]);
    broker.with_workers("echo", "isdecho", 1);
    let mut client = Raw::open(&broker.port("client"));
    let body = "service echo\nheartbeat yes\n";
    client.put(&Put { command: 1, body, ..Put::default() });
    assert_eq!(client.get().command, 2);
    let body = "x".repeat(400_000);
    let frame = ask(1, &body).bytes();
    let (begun, mut pieces) = (isect_tests::figures::now(), frame.chunks(4000));
    let mut sent = 0;
    // This takes four times `silence_ms`, and meanwhile no ping can be answered.
    await_that("the last piece", || {
        while sent <= begun.elapsed().as_millis() / 25 {
            client.write(pieces.next()?);
            sent += 1;
            if pieces.len() == 0 {
                return Some(());
            }
        }
        None
    });
    assert_eq!(client.get().body.len(), body.len());
    assert_eq!(broker.end(), 0);
}
