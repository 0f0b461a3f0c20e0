//! A connection on which a test sends frames, or any bytes, to a port of a real process and reads
//! the answer. It does not check what it sends.

use crate::proc::TIMEOUT;
use bytes::Bytes;
use protocol::bodies::{Login, WorkerLogin};
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::header::Header;
use protocol::ids::WorkerId;
use protocol::names::{HostName, ServiceName};
use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{Shutdown, TcpStream};
use std::time::{Duration, Instant};

/// How long a peer may send nothing but pings; longer than any limit of a broker.
pub const PINGS_MAX: Duration = Duration::from_secs(4 * TIMEOUT.as_secs());

/// A TCP connection to a broker or an execd.
#[derive(Debug)]
pub struct Wire {
    stream: TcpStream,
    inbox: Inbox,
}

impl Wire {
    /// Connects to `ADDR:PORT`.
    pub fn connect(address: &str) -> Self {
        let stream = TcpStream::connect(address).unwrap_or_else(|e| panic!("{address}: {e}"));
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.set_nodelay(true).expect("no delay");
        Self { stream, inbox: Inbox::default() }
    }

    /// Connects and logs in to a service.
    pub fn login(address: &str, service: &str) -> Self {
        let mut wire = Self::connect(address);
        wire.send(Frame::Login(login(service)));
        let answer = wire.next_frame();
        assert!(matches!(answer, Some(Frame::LoginOk(_))), "login to {service}: {answer:?}");
        wire
    }

    /// Connects and logs in as a worker that starts itself.
    pub fn worker_login(address: &str, service: &str) -> Self {
        let mut wire = Self::connect(address);
        wire.send(Frame::WorkerLogin(worker_login(service)));
        let answer = wire.next_frame();
        assert!(matches!(answer, Some(Frame::WorkerLoginOk(_))), "login for {service}: {answer:?}");
        wire
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: Frame) {
        self.write(&encode::to_bytes(frame)).expect("a frame is sent");
    }

    /// Sends any bytes.
    ///
    /// # Errors
    /// The other side has closed.
    pub fn write(&mut self, bytes: &[u8]) -> std::io::Result<()> {
        self.stream.write_all(bytes)
    }

    /// Sends a request.
    pub fn ask(&mut self, sequence: u32, body: impl Into<Bytes>) {
        self.send(Frame::data(request(sequence), body.into()));
    }

    /// Shuts the connection for writing.
    pub fn shut(&self) {
        let _ = self.stream.shutdown(Shutdown::Write);
    }

    /// Sets the time limit for receiving a frame.
    pub fn set_read_timeout(&self, timeout: Duration) {
        self.stream.set_read_timeout(Some(timeout)).expect("a timeout");
    }

    /// Sets the time limit for sending bytes.
    pub fn set_write_timeout(&self, timeout: Duration) {
        self.stream.set_write_timeout(Some(timeout)).expect("a timeout");
    }

    /// Reads `size` bytes, which become no frames; fewer at the end of the connection.
    pub fn read(&mut self, size: usize) -> Vec<u8> {
        let mut bytes = vec![0; size];
        let mut count = 0;
        while count < size {
            match self.read_some(&mut bytes[count..]) {
                0 => break,
                more => count += more,
            }
        }
        bytes.truncate(count);
        bytes
    }

    /// The next frame that is no ping (pings are answered); `None` = the other side has closed.
    ///
    /// # Panics
    /// Nothing but pings came for [`PINGS_MAX`].
    pub fn next_frame(&mut self) -> Option<Frame> {
        self.next_frame_since(now())
    }

    /// The body of the next frame, which must be a reply to this request. Unrequested pongs, which
    /// the broker sends on a connection that it has paused, are skipped.
    ///
    /// # Panics
    /// Something else came, or nothing but pings and pongs for [`PINGS_MAX`].
    pub fn answer(&mut self, sequence: u32) -> Bytes {
        let begun = now();
        loop {
            match self.next_frame_since(begun) {
                Some(Frame::Data { head, body }) if head.sequence == sequence => return body,
                Some(Frame::Pong { sequence: 0 }) => {
                    assert!(begun.elapsed() < PINGS_MAX, "only pongs came for {PINGS_MAX:?}");
                }
                other => panic!("not the answer to {sequence}: {other:?}"),
            }
        }
    }

    /// [`Wire::next_frame`] of a wait that began at `begun`.
    fn next_frame_since(&mut self, begun: Instant) -> Option<Frame> {
        loop {
            match self.inbox.next_frame() {
                Ok(Some(Frame::Ping { sequence })) => {
                    assert!(begun.elapsed() < PINGS_MAX, "only pings came for {PINGS_MAX:?}");
                    // It may be closing already.
                    let _ = self.write(&encode::to_bytes(Frame::Pong { sequence }));
                }
                Ok(Some(frame)) => return Some(frame),
                Ok(None) if !self.more() => return None,
                Ok(None) => {}
                Err(error) => panic!("not a frame: {error}"),
            }
        }
    }

    /// The error in the next frame; the connection stays open.
    pub fn error(&mut self) -> ErrorCode {
        match self.next_frame() {
            Some(Frame::Error { error, .. }) => error.code,
            other => panic!("no error: {other:?}"),
        }
    }

    /// The error in the next frame, after which the connection must end.
    pub fn refusal(&mut self) -> ErrorCode {
        let code = self.error();
        self.await_close();
        code
    }

    /// Waits until the peer closes; it may send nothing before.
    pub fn await_close(&mut self) {
        let last = self.next_frame();
        assert!(last.is_none(), "{last:?} instead of a close");
    }

    /// Whether bytes or the end arrived within the time limit that is set.
    pub fn has_answer(&self) -> bool {
        match self.stream.peek(&mut [0]) {
            Ok(_) => true,
            Err(e) => !matches!(e.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut),
        }
    }

    /// Waits until the peer closes, and ignores what it sends before.
    pub fn await_end(&mut self) {
        while self.more() {}
    }

    fn more(&mut self) -> bool {
        let mut bytes = [0; 65_536];
        let count = self.read_some(&mut bytes);
        self.inbox.push(&bytes[..count]);
        count > 0
    }

    /// Reads once; 0 = the other side has closed.
    fn read_some(&mut self, bytes: &mut [u8]) -> usize {
        match self.stream.read(bytes) {
            Ok(count) => count,
            Err(e) if e.kind() == ErrorKind::ConnectionReset => 0,
            Err(e) => panic!("nothing came: {e}"),
        }
    }
}

/// A login with nothing but a service.
pub fn login(service: &str) -> Login {
    Login::to(ServiceName::new(service).expect("a service name"))
}

/// The login of a worker that starts itself.
pub fn worker_login(service: &str) -> WorkerLogin {
    WorkerLogin {
        worker: WorkerId(0),
        service: ServiceName::new(service).expect("a service name"),
        host: HostName::new("desk").expect("a host name"),
        hostpid: std::process::id(),
        secret: String::new(),
        concurrency: 1,
        cancel: false,
        token: None,
    }
}

/// The header of a request that waits for its reply.
pub fn request(sequence: u32) -> Header {
    Header { sequence, reply: 1, ..Header::default() }
}

/// The wall clock's reading, for the limit of a wait.
#[expect(clippy::disallowed_methods, reason = "a peer that pings must not hold up a test")]
fn now() -> Instant {
    Instant::now()
}
