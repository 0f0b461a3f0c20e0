//! Runs a real `isectd` that ends with its test, and opens connections that speak frames to it.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(dead_code, unreachable_pub, reason = "each test file uses its part")]

use bytes::Bytes;
use protocol::bodies::{Login, WorkerLogin};
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::header::Header;
use protocol::ids::WorkerId;
use protocol::names::{HostName, ServiceName};
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::TempDir;

pub const TIMEOUT: Duration = Duration::from_secs(20);

/// A broker that is ended when the test is over, however it goes.
pub struct Broker {
    pub child: Child,
    pub dir: TempDir,
    pub client: String,
    pub worker: String,
}

#[allow(clippy::disallowed_methods, reason = "tests have deadlines")]
pub fn deadline() -> Instant {
    Instant::now() + TIMEOUT
}

#[allow(clippy::disallowed_methods, reason = "tests have deadlines")]
pub fn is_over(deadline: Instant) -> bool {
    std::thread::yield_now();
    Instant::now() > deadline
}

#[allow(clippy::disallowed_methods, reason = "the test starts the program it tests")]
pub fn isectd(words: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_isectd"));
    command.args(words).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    command
}

pub fn field(json: &str, key: &str) -> String {
    let value: serde_json::Value = serde_json::from_str(json).expect("JSON");
    value[key].as_str().expect("a text").to_owned()
}

impl Broker {
    pub fn start(words: &[&str]) -> Self {
        Self::start_in(tempfile::tempdir().unwrap(), words)
    }

    pub fn start_in(dir: TempDir, words: &[&str]) -> Self {
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

    pub fn state(&self) -> PathBuf {
        self.dir.path().join("state")
    }

    pub fn signal(&self, signal: nix::sys::signal::Signal) {
        let pid = nix::unistd::Pid::from_raw(self.child.id() as i32);
        nix::sys::signal::kill(pid, signal).unwrap();
    }

    pub fn wait(&mut self) -> ExitStatus {
        wait(&mut self.child)
    }

    pub fn end(&mut self) {
        self.signal(nix::sys::signal::Signal::SIGTERM);
        assert_eq!(self.wait().code(), Some(0));
    }
}

pub fn wait(child: &mut Child) -> ExitStatus {
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
pub fn execd(broker: &Broker) -> (String, i32) {
    let hosts = tcp(&broker.client).login("op").op(1, "hosts");
    let line = hosts.lines().find(|line| line.contains("localhost")).expect("the local host");
    let words: Vec<&str> = line.split_whitespace().collect();
    (words[1].to_owned(), words[5].parse().unwrap_or(0))
}

/// Waits until the built-in execd is linked and its process is another one than `before`.
pub fn linked(broker: &Broker, before: i32) -> i32 {
    let until = deadline();
    loop {
        match execd(broker) {
            (state, pid) if state == "up" && pid != before && pid != 0 => return pid,
            other => assert!(!is_over(until), "{other:?}"),
        }
    }
}

pub fn is_alive(pid: i32) -> bool {
    sys::proc::running(pid.cast_unsigned()).is_some()
}

/// One end of a connection that speaks frames.
pub struct Wire<S> {
    pub stream: S,
    pub inbox: Inbox,
}

pub fn tcp(address: &str) -> Wire<TcpStream> {
    let stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    stream.set_write_timeout(Some(TIMEOUT)).unwrap();
    Wire { stream, inbox: Inbox::default() }
}

pub fn unix(path: &Path) -> Wire<UnixStream> {
    let stream = UnixStream::connect(path).unwrap();
    stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    Wire { stream, inbox: Inbox::default() }
}

impl<S: Read + Write> Wire<S> {
    pub fn send(&mut self, frame: Frame) {
        self.stream.write_all(&encode::to_bytes(frame)).unwrap();
    }

    /// The next frame; `None` = the broker closed in order.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.inbox.next_frame().unwrap() {
                return Some(frame);
            }
            let mut bytes = [0; 65536];
            match self.stream.read(&mut bytes).unwrap() {
                0 => return None,
                count => self.inbox.push(&bytes[..count]),
            }
        }
    }

    pub fn login(mut self, service: &str) -> Self {
        self.send(Frame::Login(Login::to(ServiceName::new(service).unwrap())));
        assert!(matches!(self.next(), Some(Frame::LoginOk(_))));
        self
    }

    pub fn ask(&mut self, sequence: u32, body: impl Into<Bytes>) {
        let head = Header { sequence, reply: 1, ..Header::default() };
        self.send(Frame::data(head, body.into()));
    }

    /// The body of the next data frame, which must be to this sequence.
    pub fn answer(&mut self, sequence: u32) -> Bytes {
        match self.next() {
            Some(Frame::Data { head, body }) => {
                assert_eq!((head.sequence, head.error), (sequence, 0));
                body
            }
            other => panic!("no answer: {other:?}"),
        }
    }

    pub fn op(&mut self, sequence: u32, command: &str) -> String {
        self.ask(sequence, command.to_owned());
        String::from_utf8(self.answer(sequence).to_vec()).unwrap()
    }

    /// Logs in as a worker that started itself.
    pub fn worker_login(mut self) -> Self {
        self.send(Frame::WorkerLogin(WorkerLogin {
            worker: WorkerId(0),
            service: ServiceName::new("echo").unwrap(),
            host: HostName::new("elsewhere").unwrap(),
            hostpid: 1,
            secret: String::new(),
            concurrency: 1,
            cancel: false,
            token: None,
        }));
        assert!(matches!(self.next(), Some(Frame::WorkerLoginOk(_))));
        self
    }

    /// Takes the next request and gives its body back.
    pub fn echo(&mut self) -> usize {
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
    pub fn refusal(mut self) -> ErrorCode {
        let Some(Frame::Error { error, .. }) = self.next() else {
            panic!("no error");
        };
        assert_eq!(self.next(), None, "closed after {error}");
        error.code
    }
}

pub const ECHO: &str = "config service echo selfstart=1";
