//! A connection of a checking client: frames out and in, with limits of time, and an exact word on
//! what left and what did not; and the login. Not the client library: the judge wants to see every
//! frame.

use super::secure::Secure;
use crate::wire;
use auth::prover::Prover;
use auth::token::Token;
use bytes::BytesMut;
use client::address::Address;
use protocol::frame::Frame;
use protocol::kinds::Role;
use protocol::proof::Channel;
use protocol::{decode, encode};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::time::Duration;
use tls::session::Session;

/// How long a write may stand still.
const WRITE_MAX: Duration = Duration::from_secs(2);
/// How long connecting may take.
const CONNECT_MAX: Duration = Duration::from_secs(2);
/// How long each answer of a login may take.
const LOGIN_MAX: Duration = Duration::from_secs(2);

/// Where a client goes in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Door {
    /// Through the proxy.
    Proxy(SocketAddr),
    /// Straight to the broker.
    Tcp(SocketAddr),
    /// By its Unix socket.
    Unix(PathBuf),
}

impl Door {
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
    Tls(Box<(TcpStream, Session)>),
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

/// What waiting brought.
#[derive(Debug)]
pub enum Came {
    /// A frame.
    Frame(Frame),
    /// Nothing in time.
    Nothing,
    /// The end of the connection.
    Lost,
}

/// A connection.
pub struct Line {
    stream: Stream,
    buffer: BytesMut,
    /// Its own port if it goes through the proxy, else 0.
    pub port: u16,
}

impl Line {
    /// Connects; over TLS where the run has it and the door is no Unix socket.
    ///
    /// # Errors
    /// Nobody answers, or the two sides did not agree on TLS.
    pub fn open(door: &Door, secure: Option<&Secure>) -> io::Result<Self> {
        let tcp = |address: &SocketAddr| {
            let stream = TcpStream::connect_timeout(address, CONNECT_MAX)?;
            stream.set_nodelay(true)?;
            stream.set_write_timeout(Some(WRITE_MAX))?;
            io::Result::Ok(stream)
        };
        let mut port = 0;
        let stream = match door {
            Door::Proxy(address) => {
                let stream = tcp(address)?;
                port = stream.local_addr()?.port();
                agree(stream, secure)?
            }
            Door::Tcp(address) => agree(tcp(address)?, secure)?,
            Door::Unix(path) => {
                let stream = UnixStream::connect(path)?;
                stream.set_write_timeout(Some(WRITE_MAX))?;
                Stream::Unix(stream)
            }
        };
        Ok(Self { stream, buffer: BytesMut::new(), port })
    }

    /// Sends a frame.
    pub fn send(&mut self, frame: Frame) -> Sent {
        let bytes = encode::to_bytes(frame);
        self.write(&bytes)
    }

    /// Sends bytes.
    pub fn write(&mut self, bytes: &[u8]) -> Sent {
        let done = match &mut self.stream {
            Stream::Tcp(stream) => stream.write_all(bytes),
            Stream::Unix(stream) => stream.write_all(bytes),
            Stream::Tls(tls) => write_sealed(tls, bytes),
        };
        match done {
            Ok(()) => Sent::Whole,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => Sent::Stuck,
            Err(_) => Sent::Part,
        }
    }

    /// The next frame.
    ///
    /// # Panics
    /// If what comes are no frames: the broker never sends such.
    pub fn next(&mut self, wait: Duration) -> Came {
        loop {
            match decode::next(&mut self.buffer, 1 << 30) {
                Ok(Some(frame)) => return Came::Frame(frame),
                Ok(None) => {}
                Err(error) => panic!("the broker sent no frame: {error}"),
            }
            match self.read(wait) {
                Ok(0) => return Came::Lost,
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Came::Nothing,
                // Nothing on the way invents or changes a byte.
                Err(error) if error.kind() == io::ErrorKind::InvalidData => {
                    panic!("what the broker sent is no TLS, or it says so of ours: {error}")
                }
                Err(_) => return Came::Lost,
            }
        }
    }

    fn read(&mut self, wait: Duration) -> io::Result<usize> {
        let wait = Some(wait.max(Duration::from_millis(1)));
        let mut bytes = [0; 65_536];
        let count = match &mut self.stream {
            Stream::Tcp(stream) => {
                stream.set_read_timeout(wait)?;
                stream.read(&mut bytes)?
            }
            Stream::Unix(stream) => {
                stream.set_read_timeout(wait)?;
                stream.read(&mut bytes)?
            }
            Stream::Tls(tls) => {
                let (socket, session) = &mut **tls;
                socket.set_read_timeout(wait)?;
                session.read_some(socket, &mut [IoSliceMut::new(&mut bytes)])?
            }
        };
        self.buffer.extend_from_slice(&bytes[..count]);
        Ok(count)
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
                let (socket, session) = &mut **tls;
                session.close();
                session.flush(socket).and_then(|()| socket.shutdown(Shutdown::Write))
            }
        };
    }

    /// Logs in, with a token if there is one; the line if it was let in.
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
                (Came::Frame(Frame::LoginOk(ok)), None) => {
                    assert!(ok.signature.is_none(), "a proof that nobody wanted");
                    return Ok(self);
                }
                (Came::Frame(Frame::LoginOk(ok)), Some(prover)) => {
                    assert!(prover.is_proven(ok.signature.as_deref()), "let in without a proof");
                    return Ok(self);
                }
                (Came::Frame(Frame::Challenge(challenge)), Some(prover)) => {
                    let channel = self.channel()?;
                    frame = Frame::Proof(prover.answer(&challenge, channel.as_ref())?);
                }
                (Came::Frame(Frame::Error { error, .. }), _) => return Err(format!("{error:?}")),
                (Came::Frame(other), _) => panic!("the answer to a login is {other:?}"),
                (Came::Nothing, _) => return Err("no answer came".to_owned()),
                (Came::Lost, _) => return Err("the connection ended".to_owned()),
            }
        }
    }
}

fn agree(mut socket: TcpStream, secure: Option<&Secure>) -> io::Result<Stream> {
    let Some(secure) = secure else { return Ok(Stream::Tcp(socket)) };
    let mut session = secure.session();
    socket.set_read_timeout(Some(CONNECT_MAX))?;
    session.shake(&mut socket)?;
    Ok(Stream::Tls(Box::new((socket, session))))
}

/// Writes all; after an error the last record, hence the end of the frame, has not left whole.
fn write_sealed(tls: &mut (TcpStream, Session), mut bytes: &[u8]) -> io::Result<()> {
    let (socket, session) = tls;
    while !bytes.is_empty() {
        let taken = session.write(socket, &[IoSlice::new(bytes)])?;
        bytes = &bytes[taken..];
    }
    session.flush(socket)
}
