//! Plays a broker for the tests of the library: real sockets, one frame at a time. It sends only
//! what the test tells it to.
#![allow(dead_code, reason = "each test program uses its own part")]
#![allow(clippy::disallowed_methods, reason = "tests need threads and clocks of their own")]
#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]
#![allow(missing_docs, unreachable_pub, reason = "for the tests beside it only")]

use bytes::Bytes;
use client::address::Address;
use client::error::Error;
use client::protocol::bodies::{ErrorBody, Login, LoginOk, WorkerLogin, WorkerLoginOk};
use client::protocol::encode;
use client::protocol::errors::ErrorCode;
use client::protocol::frame::Frame;
use client::protocol::frame_reader::Inbox;
use client::protocol::header::Header;
use client::protocol::ids::{ClientId, WorkerId};
use client::protocol::names::ServiceName;
use std::io::{self, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// Longest wait of a test for anything.
pub const TIMEOUT: Duration = Duration::from_secs(20);

pub fn service(name: &str) -> ServiceName {
    ServiceName::new(name).unwrap()
}

/// Runs part of a test on a thread, which is joined with its result.
pub fn beside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> std::thread::JoinHandle<T> {
    std::thread::spawn(work)
}

/// Asks again until the answer is true; fails the test after [`TIMEOUT`].
pub fn eventually(what: &str, mut is_true: impl FnMut() -> bool) {
    let until = Instant::now() + TIMEOUT;
    while !is_true() {
        assert!(Instant::now() < until, "never happened: {what}");
        std::thread::yield_now();
    }
}

/// A TCP address that is bound but not listened at, and the socket that keeps it bound.
pub fn nobody_listens() -> (Address, std::os::fd::OwnedFd) {
    use nix::sys::socket::{
        AddressFamily, SockFlag, SockType, SockaddrIn, bind, getsockname, socket,
    };
    use std::os::fd::AsRawFd;
    let fd = socket(AddressFamily::Inet, SockType::Stream, SockFlag::SOCK_CLOEXEC, None).unwrap();
    bind(fd.as_raw_fd(), &SockaddrIn::new(127, 0, 0, 1, 0)).unwrap();
    let own: SockaddrIn = getsockname(fd.as_raw_fd()).unwrap();
    (Address::Tcp(own.to_string()), fd)
}

enum Endpoint {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf, tempfile::TempDir),
}

pub struct FakeBroker(Endpoint);

impl FakeBroker {
    pub fn tcp() -> Self {
        Self(Endpoint::Tcp(TcpListener::bind("127.0.0.1:0").unwrap()))
    }

    pub fn unix() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("b.sock");
        Self(Endpoint::Unix(UnixListener::bind(&path).unwrap(), path, dir))
    }

    pub fn address(&self) -> Address {
        match &self.0 {
            Endpoint::Tcp(listener) => Address::Tcp(listener.local_addr().unwrap().to_string()),
            Endpoint::Unix(_, path, _) => Address::Unix(path.clone()),
        }
    }

    /// The `argv[1]` and `argv[2]` of a worker.
    pub fn argv(&self) -> [String; 2] {
        match &self.0 {
            Endpoint::Tcp(listener) => {
                ["127.0.0.1".into(), listener.local_addr().unwrap().port().to_string()]
            }
            Endpoint::Unix(_, path, _) => [format!("unix:{}", path.display()), "0".into()],
        }
    }

    pub fn accept(&self) -> Peer {
        let pair: Box<dyn Pipe> = match &self.0 {
            Endpoint::Tcp(listener) => {
                let (stream, _) = in_time(|| listener.accept(), |on| listener.set_nonblocking(on));
                stream.set_nonblocking(false).unwrap();
                stream.set_nodelay(true).unwrap();
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                stream.set_write_timeout(Some(TIMEOUT)).unwrap();
                Box::new(stream)
            }
            Endpoint::Unix(listener, _, _) => {
                let (stream, _) = in_time(|| listener.accept(), |on| listener.set_nonblocking(on));
                stream.set_nonblocking(false).unwrap();
                stream.set_read_timeout(Some(TIMEOUT)).unwrap();
                stream.set_write_timeout(Some(TIMEOUT)).unwrap();
                Box::new(stream)
            }
        };
        Peer { pipe: pair, inbox: Inbox::default() }
    }

    /// Accepts a client and its login.
    pub fn client(&self) -> Peer {
        let mut peer = self.accept();
        peer.login();
        peer.send(Frame::LoginOk(login_ok()));
        peer
    }

    /// Accepts a worker and its login.
    pub fn worker(&self, ok: WorkerLoginOk) -> Peer {
        let mut peer = self.accept();
        peer.worker_login();
        peer.send(Frame::WorkerLoginOk(ok));
        peer
    }
}

fn in_time<T>(
    mut accept: impl FnMut() -> io::Result<T>,
    nonblocking: impl Fn(bool) -> io::Result<()>,
) -> T {
    nonblocking(true).unwrap();
    let mut taken = None;
    eventually("somebody connects", || {
        taken = accept().ok();
        taken.is_some()
    });
    nonblocking(false).unwrap();
    taken.unwrap()
}

pub fn login_ok() -> LoginOk {
    LoginOk {
        client: ClientId(7),
        body_bytes_max: 1 << 20,
        requests_max: 16,
        deadline_ms: 30_000,
        heartbeat_ms: 1000,
        silence_ms: 3000,
        version: "test".into(),
        signature: None,
    }
}

pub fn worker_login_ok() -> WorkerLoginOk {
    WorkerLoginOk {
        worker: WorkerId(3),
        body_bytes_max: 1 << 20,
        heartbeat_ms: 1000,
        silence_ms: 3000,
        reconnect_ms: 10_000,
        concurrency: 1,
        signature: None,
    }
}

pub trait Pipe: Read + Write + Send {
    fn end_writing(&self);
    fn set_timeout(&self, timeout: Duration);
}

impl Pipe for TcpStream {
    fn end_writing(&self) {
        self.shutdown(std::net::Shutdown::Write).unwrap();
    }

    fn set_timeout(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).unwrap();
    }
}

impl Pipe for UnixStream {
    fn end_writing(&self) {
        self.shutdown(std::net::Shutdown::Write).unwrap();
    }

    fn set_timeout(&self, timeout: Duration) {
        self.set_read_timeout(Some(timeout)).unwrap();
    }
}

/// The broker's end of one connection.
pub struct Peer {
    pub pipe: Box<dyn Pipe>,
    inbox: Inbox,
}

impl Peer {
    /// The next frame; `None` = the end of the connection.
    pub fn next(&mut self) -> Option<Frame> {
        loop {
            if let Some(frame) = self.inbox.next_frame().unwrap() {
                return Some(frame);
            }
            let mut chunk = [0; 65_536];
            match self.pipe.read(&mut chunk) {
                Ok(0) => return None,
                Err(e) if e.kind() == io::ErrorKind::ConnectionReset => return None,
                Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
                Ok(size) => self.inbox.push(&chunk[..size]),
                Err(e) => panic!("the other side sent nothing: {e}"),
            }
        }
    }

    /// Adds bytes that were read from the pipe.
    pub fn push(&mut self, bytes: &[u8]) {
        self.inbox.push(bytes);
    }

    /// The next frame that has come, without reading.
    pub fn buffered(&mut self) -> Option<Frame> {
        self.inbox.next_frame().unwrap()
    }

    pub fn frame(&mut self) -> Frame {
        self.next().expect("a frame, not the end of the connection")
    }

    pub fn data(&mut self) -> (Header, Bytes) {
        match self.frame() {
            Frame::Data { head, body } => (head, body),
            other => panic!("{other:?} is no data"),
        }
    }

    pub fn login(&mut self) -> Login {
        match self.frame() {
            Frame::Login(login) => login,
            other => panic!("{other:?} is no login"),
        }
    }

    pub fn worker_login(&mut self) -> WorkerLogin {
        match self.frame() {
            Frame::WorkerLogin(login) => login,
            other => panic!("{other:?} is no worker login"),
        }
    }

    pub fn send(&mut self, frame: Frame) {
        self.raw(&encode::to_bytes(frame));
    }

    pub fn raw(&mut self, bytes: &[u8]) {
        self.pipe.write_all(bytes).unwrap();
    }

    /// Writes a frame byte by byte, each in its own segment as far as the kernel allows.
    pub fn dribble(&mut self, frame: Frame) {
        for byte in encode::to_bytes(frame) {
            self.raw(&[byte]);
            std::thread::yield_now();
        }
    }

    /// Waits this long for a frame, and fails if one comes.
    pub fn waits_for_nothing(&mut self, span: Duration) {
        self.pipe.set_timeout(span);
        let mut byte = [0];
        match self.pipe.read(&mut byte) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {}
            other => panic!("nothing was to come: {other:?}"),
        }
        self.pipe.set_timeout(TIMEOUT);
    }

    /// Sends the answer to a client's request.
    pub fn answer(&mut self, to: &Header, body: &'static str) {
        self.send(Frame::data(
            Header { sequence: to.sequence, ..Header::default() },
            Bytes::from_static(body.as_bytes()),
        ));
    }

    /// Sends a request to a worker.
    pub fn request(&mut self, transaction: u64, body: impl Into<Bytes>, more: bool) {
        let head = Header {
            sequence: 40,
            transaction,
            reply: 1,
            more: u16::from(more),
            deadline_ms: 20_000,
            attempt: 1,
            ..Header::default()
        };
        self.send(Frame::data(head, body.into()));
    }

    pub fn error(&mut self, head: Header, code: ErrorCode, text: &str) {
        self.send(Frame::Error { head, error: ErrorBody::new(code, text) });
    }
}

/// The error of a call that must fail with this code.
pub fn failed<T: std::fmt::Debug>(result: Result<T, Error>, code: ErrorCode) -> Error {
    let error = result.unwrap_err();
    assert!(error.is(code), "{error} is not {code}");
    error
}
