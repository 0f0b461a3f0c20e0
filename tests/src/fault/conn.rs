//! A connection of a raw client: logs in, sends and receives frames with time limits, and records
//! exactly which bytes left and when each frame arrived. It does not use the client library, so
//! that the checker sees every frame.

use super::clock::Clock;
use super::run_secrets::RunSecrets;
use crate::wire;
use auth::prover::Prover;
use auth::token::Token;
use client::address::Address;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::encode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::kinds::Role;
use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use transport::stream::Stream;

/// How long a write may stand still: the broker may read no further until the longest deadline of
/// what stands before is over.
const WRITE_MAX: Duration = Duration::from_secs(10);
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long each answer of a login may take.
const LOGIN_MAX: Duration = Duration::from_secs(2);

/// An address that a client may connect to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// Through the proxy.
    Proxy(SocketAddr),
    /// Straight to the broker.
    Tcp(SocketAddr),
    /// By its Unix socket.
    Unix(PathBuf),
}

impl Endpoint {
    /// The same for the client library.
    pub fn address(&self, is_secured: bool) -> Address {
        match self {
            Self::Proxy(address) | Self::Tcp(address) if is_secured => {
                Address::Tls(address.to_string())
            }
            Self::Proxy(address) | Self::Tcp(address) => Address::Tcp(address.to_string()),
            Self::Unix(path) => Address::Unix(path.clone()),
        }
    }
}

/// Waits until something of that can be done; what.
fn await_ready(stream: &Stream, wanted: PollFlags, span: Duration) -> PollFlags {
    let mut fds = [PollFd::new(stream.as_fd(), wanted)];
    // Rounded up, so that the last fraction of a millisecond is not spun away.
    let span = span + Duration::from_millis(1);
    // Interrupted or not: everything is looked at.
    let _ = poll(&mut fds, PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX));
    fds[0].revents().unwrap_or(PollFlags::empty())
}

/// What became of a frame.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sent {
    /// The kernel has all of it.
    Whole,
    /// Some of it left, and no more will: the connection ended.
    Part,
    /// Some of it left, and nobody took more of it for too long.
    Stuck,
}

/// When a frame came, in microseconds of the run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Seen {
    /// Its last byte was read.
    pub at: u64,
    /// Before that its client had last looked, and it was not there.
    pub looked: u64,
}

/// The result of waiting for a frame.
#[derive(Debug)]
pub enum Received {
    /// A whole frame, and when it arrived.
    Frame(Frame, Seen),
    /// No frame arrived within the time limit.
    Nothing,
    /// The connection ended.
    Lost,
}

/// A connection. Its socket never blocks: what comes while a write stands still is read when it
/// comes, or an answer would seem late that only was read late.
pub struct Conn {
    stream: Stream,
    clock: Clock,
    inbox: Inbox,
    /// Frames that came and were not taken yet.
    frames: VecDeque<(Frame, Seen)>,
    /// When the socket was last seen empty.
    looked: u64,
    is_ended: bool,
    /// Its own port if it goes through the proxy, else 0.
    pub port: u16,
}

impl Conn {
    /// Connects; over TLS where the run has it and the endpoint is no Unix socket.
    ///
    /// # Errors
    /// Nobody answers, or the two sides did not agree on TLS.
    pub fn open(
        endpoint: &Endpoint,
        secrets: Option<&RunSecrets>,
        clock: Clock,
    ) -> io::Result<Self> {
        let stream = match endpoint {
            Endpoint::Proxy(address) | Endpoint::Tcp(address) => {
                let stream = Stream::from(TcpStream::connect_timeout(address, CONNECT_MAX)?);
                stream.tune(None)?;
                agree(stream, secrets)?
            }
            Endpoint::Unix(path) => UnixStream::connect(path)?.into(),
        };
        stream.set_nonblocking(true)?;
        let is_proxy = matches!(endpoint, Endpoint::Proxy(_));
        let own = stream.local_address().filter(|_| is_proxy);
        let port = own.map_or(0, |address| address.port());
        Ok(Self::over(stream, clock, port))
    }

    fn over(stream: Stream, clock: Clock, port: u16) -> Self {
        let looked = clock.now();
        let (inbox, frames) = (Inbox::default(), VecDeque::new());
        Self { stream, clock, inbox, frames, looked, is_ended: false, port }
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: Frame) -> Sent {
        let bytes = encode::to_bytes(frame);
        self.write(&bytes)
    }

    /// Sends bytes; takes in what comes meanwhile.
    pub fn write(&mut self, bytes: &[u8]) -> Sent {
        let mut left = bytes;
        let mut until = self.clock.instant() + WRITE_MAX;
        loop {
            let done = if left.is_empty() {
                self.stream.flush().map(|()| 0)
            } else {
                self.stream.write(left)
            };
            match done {
                Ok(_) if left.is_empty() => return Sent::Whole,
                Ok(count) => {
                    left = &left[count..];
                    until = self.clock.instant() + WRITE_MAX;
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let now = self.clock.instant();
                    if now >= until {
                        return Sent::Stuck;
                    }
                    let mut wanted = PollFlags::POLLOUT;
                    wanted.set(PollFlags::POLLIN, !self.is_ended);
                    if await_ready(&self.stream, wanted, until - now).contains(PollFlags::POLLIN) {
                        self.take_in();
                    }
                }
                Err(_) => return Sent::Part,
            }
        }
    }

    /// The next frame.
    ///
    /// # Panics
    /// If what comes are no frames: the broker never sends such.
    pub fn next(&mut self, wait: Duration) -> Received {
        let until = self.clock.instant() + wait.max(Duration::from_millis(1));
        loop {
            if let Some((frame, seen)) = self.frames.pop_front() {
                return Received::Frame(frame, seen);
            }
            if self.is_ended {
                return Received::Lost;
            }
            self.take_in();
            if !self.frames.is_empty() || self.is_ended {
                continue;
            }
            let left = until.saturating_duration_since(self.clock.instant());
            if left.is_zero() {
                return Received::Nothing;
            }
            await_ready(&self.stream, PollFlags::POLLIN, left);
        }
    }

    /// Takes in all that is there, without waiting.
    fn take_in(&mut self) {
        let mut bytes = [0; 65_536];
        while !self.is_ended {
            let before = self.clock.now();
            match self.stream.read(&mut bytes) {
                Ok(0) => self.is_ended = true,
                Ok(count) => {
                    self.inbox.push(&bytes[..count]);
                    self.take_frames();
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.looked = before;
                    return;
                }
                // Nothing on the way invents or changes a byte.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    panic!("what the broker sent is no TLS, or it says so of ours: {error}")
                }
                Err(_) => self.is_ended = true,
            }
        }
    }

    fn take_frames(&mut self) {
        let seen = Seen { at: self.clock.now(), looked: self.looked };
        loop {
            match self.inbox.next_frame() {
                Ok(Some(frame)) => self.frames.push_back((frame, seen)),
                Ok(None) => return,
                Err(error) => panic!("the broker sent no frame: {error}"),
            }
        }
    }

    /// No more will be sent, in order.
    pub fn shut(&mut self) {
        self.stream.shut_write();
    }

    /// Logs in, with a token if there is one; the connection if it was let in. It promises to
    /// answer pings (`heartbeat`), and to read on when it has closed its side (`half_close`), or
    /// not.
    ///
    /// # Errors
    /// Why not.
    ///
    /// # Panics
    /// If the broker lets somebody in without a proof of its own, or says what it never may.
    pub fn log_in(
        mut self,
        service: &str,
        (heartbeat, half_close): (bool, bool),
        token: Option<&Token>,
    ) -> Result<Self, String> {
        let prover = token.map(|token| Prover::begin(token, Role::Client, service));
        let mut prover = prover.transpose()?;
        let mut login = wire::login(service);
        (login.heartbeat, login.half_close) = (heartbeat, half_close);
        login.token = prover.as_ref().map(|prover| prover.claim().clone());
        let mut frame = Frame::Login(login);
        loop {
            if self.send(frame) != Sent::Whole {
                return Err("the login did not leave".to_owned());
            }
            match (self.next(LOGIN_MAX), &mut prover) {
                (Received::Frame(Frame::LoginOk(ok), _), None) => {
                    assert!(ok.signature.is_none(), "a proof that nobody wanted");
                    return Ok(self);
                }
                (Received::Frame(Frame::LoginOk(ok), _), Some(prover)) => {
                    assert!(prover.is_proven(ok.signature.as_deref()), "let in without a proof");
                    return Ok(self);
                }
                (Received::Frame(Frame::Challenge(challenge), _), Some(prover)) => {
                    let channel = self.stream.channel()?;
                    frame = Frame::Proof(prover.answer(&challenge, channel.as_ref())?);
                }
                (Received::Frame(Frame::Error { error, .. }, _), _) => {
                    return Err(format!("{error:?}"));
                }
                (Received::Frame(other, _), _) => panic!("the answer to a login is {other:?}"),
                (Received::Nothing, _) => return Err("no answer came".to_owned()),
                (Received::Lost, _) => return Err("the connection ended".to_owned()),
            }
        }
    }
}

fn agree(stream: Stream, secrets: Option<&RunSecrets>) -> io::Result<Stream> {
    let mut stream = stream.with_tls(secrets.map(RunSecrets::session));
    while let Err(error) = stream.handshake() {
        if error.kind() != io::ErrorKind::WouldBlock {
            return Err(error);
        }
        if await_ready(&stream, PollFlags::POLLIN, CONNECT_MAX).is_empty() {
            return Err(io::ErrorKind::TimedOut.into());
        }
    }
    Ok(stream)
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::header::Header;

    #[test]
    fn an_answer_that_comes_while_a_write_stands_still_is_read_when_it_comes() {
        let clock = Clock::start();
        let (near, far) = UnixStream::pair().expect("a pair");
        near.set_nonblocking(true).expect("non-blocking");
        let mut conn = Conn::over(near.into(), clock, 0);
        let taken = std::thread::scope(|scope| {
            let broker = scope.spawn(move || {
                // It answers, and reads no further for a while; then all.
                let head = Header { sequence: 7, ..Header::default() };
                let answer = encode::to_bytes(Frame::data(head, bytes::Bytes::from("x")));
                let mut far = far;
                far.write_all(&answer).expect("written");
                super::super::clock::pause(Duration::from_millis(400));
                let taken = clock.now();
                let mut bytes = vec![0; 4 << 20];
                far.read_exact(&mut bytes).expect("all of it");
                taken
            });
            assert_eq!(conn.write(&vec![7; 4 << 20]), Sent::Whole);
            broker.join().expect("no panic")
        });
        let Received::Frame(_, seen) = conn.next(Duration::ZERO) else { panic!("the answer came") };
        assert!(seen.at < taken, "read at {}, the write went on at {taken}", seen.at);
        assert!(seen.looked <= seen.at);
        assert!(matches!(conn.next(Duration::ZERO), Received::Lost));
    }
}
