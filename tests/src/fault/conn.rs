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
use protocol::proof::Channel;
use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use tls::session::Session;

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

enum Stream {
    Tcp(TcpStream),
    Unix(UnixStream),
    Tls(Box<TlsPair>),
}

/// A socket and the session over it.
struct TlsPair(TcpStream, Session);

impl Stream {
    /// Waits until something of that can be done; what.
    fn wait(&self, wanted: PollFlags, span: Duration) -> PollFlags {
        let mut fds = [PollFd::new(self.as_fd(), wanted)];
        // Rounded up, so that the last fraction of a millisecond is not spun away.
        let span = span + Duration::from_millis(1);
        // Interrupted or not: everything is looked at.
        let _ = poll(&mut fds, PollTimeout::try_from(span).unwrap_or(PollTimeout::MAX));
        fds[0].revents().unwrap_or(PollFlags::empty())
    }

    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(tls) => tls.0.as_fd(),
        }
    }

    fn read(&mut self, bytes: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(stream) => stream.read(bytes),
            Self::Unix(stream) => stream.read(bytes),
            Self::Tls(tls) => {
                let TlsPair(socket, session) = &mut **tls;
                session.read_some(socket, &mut [IoSliceMut::new(bytes)])
            }
        }
    }

    /// What a session has encrypted leaves, too.
    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(tls) => {
                let TlsPair(socket, session) = &mut **tls;
                session.flush(socket)
            }
        }
    }
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
        let tcp = |address: &SocketAddr| {
            let stream = TcpStream::connect_timeout(address, CONNECT_MAX)?;
            stream.set_nodelay(true)?;
            io::Result::Ok(stream)
        };
        let stream = match endpoint {
            Endpoint::Proxy(address) | Endpoint::Tcp(address) => agree(tcp(address)?, secrets)?,
            Endpoint::Unix(path) => Stream::Unix(UnixStream::connect(path)?),
        };
        let mut port = 0;
        match &stream {
            Stream::Unix(stream) => stream.set_nonblocking(true)?,
            Stream::Tcp(stream) => stream.set_nonblocking(true)?,
            Stream::Tls(tls) => tls.0.set_nonblocking(true)?,
        }
        if let (Endpoint::Proxy(_), Stream::Tcp(stream)) = (endpoint, &stream) {
            port = stream.local_addr()?.port();
        }
        if let (Endpoint::Proxy(_), Stream::Tls(tls)) = (endpoint, &stream) {
            port = tls.0.local_addr()?.port();
        }
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
            let done = match &mut self.stream {
                _ if left.is_empty() => self.stream.flush().map(|()| 0),
                Stream::Tcp(stream) => stream.write(left),
                Stream::Unix(stream) => stream.write(left),
                Stream::Tls(tls) => {
                    let TlsPair(socket, session) = &mut **tls;
                    session.write(socket, &[IoSlice::new(left)])
                }
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
                    if self.stream.wait(wanted, until - now).contains(PollFlags::POLLIN) {
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
            self.stream.wait(PollFlags::POLLIN, left);
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

    /// What a proof on this connection is bound to.
    fn channel(&self) -> Result<Option<Channel>, String> {
        match &self.stream {
            Stream::Tcp(_) | Stream::Unix(_) => Ok(None),
            Stream::Tls(tls) => tls.1.channel().map(Some),
        }
    }

    /// No more will be sent, in order.
    pub fn shut(&mut self) {
        // It may be gone already.
        let _ = match &mut self.stream {
            Stream::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Stream::Unix(stream) => stream.shutdown(Shutdown::Write),
            Stream::Tls(tls) => {
                let TlsPair(socket, session) = &mut **tls;
                session.close();
                session.flush(socket).and_then(|()| socket.shutdown(Shutdown::Write))
            }
        };
    }

    /// Logs in, with a token if there is one; the connection if it was let in.
    ///
    /// # Errors
    /// Why not.
    ///
    /// # Panics
    /// If the broker lets somebody in without a proof of its own, or says what it never may.
    pub fn log_in(
        mut self,
        service: &str,
        heartbeat: bool,
        token: Option<&Token>,
    ) -> Result<Self, String> {
        let prover = token.map(|token| Prover::begin(token, Role::Client, service));
        let mut prover = prover.transpose()?;
        let mut login = wire::login(service);
        login.heartbeat = heartbeat;
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
                    let channel = self.channel()?;
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

fn agree(mut socket: TcpStream, secrets: Option<&RunSecrets>) -> io::Result<Stream> {
    let Some(secrets) = secrets else { return Ok(Stream::Tcp(socket)) };
    let mut session = secrets.session();
    socket.set_read_timeout(Some(CONNECT_MAX))?;
    session.handshake(&mut socket)?;
    Ok(Stream::Tls(Box::new(TlsPair(socket, session))))
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
        let mut conn = Conn::over(Stream::Unix(near), clock, 0);
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
