//! The sockets of the bench: an address of either kind, a non-blocking stream, and a buffered
//! stream: one with its incomplete input and its unsent output. All processes of the bench use it,
//! so every peer is driven by the same code.

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener};
use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use std::fmt;
use std::io::{self, ErrorKind, Read, Write};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::str::FromStr;
use transport::session::Session;
use transport::setup::CallerFiles;
use transport::stream::Stream;

/// Bytes taken in one read.
pub const SCRATCH_BYTES: usize = 256 * 1024;
/// A buffer larger than this is given back when it is empty; smaller ones are kept, or the system
/// would clear pages for every large frame.
const KEEP_BYTES_MAX: usize = 2 * 1024 * 1024;

/// Where to connect or listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// A TCP address.
    Tcp(SocketAddr),
    /// The path of a Unix socket.
    Unix(PathBuf),
    /// TLS over TCP, trusting the CAs of this file.
    Tls(SocketAddr, PathBuf),
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(address) => write!(f, "{address}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
            Self::Tls(address, _) => write!(f, "tls://{address}"),
        }
    }
}

impl FromStr for Endpoint {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        match text.strip_prefix("unix:") {
            Some(path) => Ok(Self::Unix(path.into())),
            None => text
                .parse()
                .map(Self::Tcp)
                .map_err(|e| format!("'{text}' is neither ADDR:PORT nor unix:PATH: {e}")),
        }
    }
}

/// A session with whoever trusts the CAs of this file.
fn session(address: &SocketAddr, ca: &Path) -> io::Result<Session> {
    let files = CallerFiles { ca: Some(ca.to_owned()), pair: None };
    let session = files.load().and_then(|setup| setup.session(&address.ip().to_string()));
    session.map_err(io::Error::other)
}

/// A TCP connection that mio has made, with `TCP_NODELAY`.
fn tcp(stream: TcpStream) -> io::Result<Stream> {
    let stream = Stream::from(std::net::TcpStream::from(OwnedFd::from(stream)));
    stream.tune(None).map(|()| stream)
}

/// Begins to connect.
///
/// # Errors
/// The system refuses.
pub fn connect(endpoint: &Endpoint) -> io::Result<Stream> {
    match endpoint {
        Endpoint::Tcp(address) => tcp(TcpStream::connect(*address)?),
        Endpoint::Tls(address, ca) => {
            let session = session(address, ca)?;
            Ok(tcp(TcpStream::connect(*address)?)?.with_tls(Some(session)))
        }
        // A full backlog makes a non-blocking connect fail, so this one blocks.
        Endpoint::Unix(path) => {
            let stream = Stream::from(std::os::unix::net::UnixStream::connect(path)?);
            stream.set_nonblocking(true).map(|()| stream)
        }
    }
}

/// Reports of bytes, and of room where they cost nothing or are asked for: a Unix socket reports
/// room at every read of the peer.
fn interest(stream: &Stream, wants_room: bool) -> Interest {
    if stream.is_tcp() || wants_room {
        Interest::READABLE | Interest::WRITABLE
    } else {
        Interest::READABLE
    }
}

/// Registers a stream, once; edge-triggered.
///
/// # Errors
/// The system refuses.
pub fn register(stream: &Stream, registry: &Registry, token: Token) -> io::Result<()> {
    SourceFd(&stream.as_fd().as_raw_fd()).register(registry, token, interest(stream, false))
}

/// Asks for reports of room, or no more, where they are not on anyway.
fn watch_room(stream: &Stream, registry: &Registry, token: Token, on: bool) -> io::Result<()> {
    if stream.is_tcp() {
        return Ok(());
    }
    SourceFd(&stream.as_fd().as_raw_fd()).reregister(registry, token, interest(stream, on))
}

/// A listener of either kind.
#[derive(Debug)]
pub enum Listener {
    /// Listens on a TCP address.
    Tcp(TcpListener),
    /// Listens on the path of a Unix socket.
    Unix(UnixListener),
}

impl Listener {
    /// Listens.
    ///
    /// # Errors
    /// The system refuses.
    pub fn bind(endpoint: &Endpoint) -> io::Result<Self> {
        match endpoint {
            Endpoint::Tcp(address) => TcpListener::bind(*address).map(Self::Tcp),
            Endpoint::Unix(path) => UnixListener::bind(path).map(Self::Unix),
            Endpoint::Tls(..) => Err(ErrorKind::Unsupported.into()),
        }
    }

    /// Where it listens, with the port that the kernel chose.
    ///
    /// # Errors
    /// The system does not say.
    pub fn endpoint(&self) -> io::Result<Endpoint> {
        match self {
            Self::Tcp(listener) => listener.local_addr().map(Endpoint::Tcp),
            Self::Unix(listener) => {
                let address = listener.local_addr()?;
                let path = address.as_pathname().map(PathBuf::from).unwrap_or_default();
                Ok(Endpoint::Unix(path))
            }
        }
    }

    /// Registers for connections.
    ///
    /// # Errors
    /// The system refuses.
    pub fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(listener) => listener.register(registry, token, Interest::READABLE),
            Self::Unix(listener) => listener.register(registry, token, Interest::READABLE),
        }
    }

    /// The next connection; `None` = no more for now.
    ///
    /// # Errors
    /// The system refuses.
    pub fn accept(&self) -> io::Result<Option<Stream>> {
        let stream = match self {
            Self::Tcp(listener) => listener.accept().and_then(|(stream, _)| tcp(stream)),
            Self::Unix(listener) => listener.accept().map(|(stream, _)| {
                std::os::unix::net::UnixStream::from(OwnedFd::from(stream)).into()
            }),
        };
        match stream {
            Ok(stream) => Ok(Some(stream)),
            Err(error) if error.kind() == ErrorKind::WouldBlock => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// A stream with its two buffers.
#[derive(Debug)]
pub struct BufferedStream {
    /// The socket.
    pub stream: Stream,
    /// What came and is not understood yet.
    kept: Vec<u8>,
    /// What waits to be sent.
    pub out: Vec<u8>,
    sent: usize,
    /// The system took not all at the last write.
    is_blocked: bool,
}

impl BufferedStream {
    /// A stream with nothing in its buffers.
    pub const fn new(stream: Stream) -> Self {
        Self { stream, kept: Vec::new(), out: Vec::new(), sent: 0, is_blocked: false }
    }

    /// One read: how many bytes stand in `scratch` now; `None` = the peer has closed.
    ///
    /// # Errors
    /// The connection broke.
    pub fn read(&mut self, scratch: &mut [u8]) -> Result<Option<usize>, String> {
        let was_handshaking = self.stream.is_handshaking();
        let read = self.stream.read(scratch);
        if was_handshaking && !self.stream.is_handshaking() {
            // What waits can leave now, and no event comes for it.
            self.is_blocked = false;
        }
        match read {
            Ok(0) => Ok(None),
            Ok(count) => Ok(Some(count)),
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(Some(0))
            }
            Err(error) => Err(format!("read: {error}")),
        }
    }

    /// Reads until a read is short, and gives `each` the bytes that are there; it says how many of
    /// them it used, 0 = more are needed. `Ok(true)` = the peer has closed.
    ///
    /// # Errors
    /// The connection broke, or what `each` says.
    pub fn receive(
        &mut self,
        scratch: &mut [u8],
        mut each: impl FnMut(&[u8], &mut Vec<u8>) -> Result<usize, String>,
    ) -> Result<bool, String> {
        loop {
            let Some(count) = self.read(scratch)? else {
                return Ok(true);
            };
            let mut kept = self.take_kept();
            let fresh = &scratch[..count];
            let used = parse(joined(&mut kept, fresh), |bytes| each(bytes, &mut self.out))?;
            self.keep(kept, fresh, used);
            if count < scratch.len() {
                return Ok(false);
            }
        }
    }

    /// What came before and is no whole message yet; [`keep`](Self::keep) puts the rest back.
    pub fn take_kept(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.kept)
    }

    /// Keeps what is left of `kept` (with `fresh` at its end if it is not empty) after `used`
    /// bytes.
    pub fn keep(&mut self, mut kept: Vec<u8>, fresh: &[u8], used: usize) {
        if kept.is_empty() {
            kept.extend_from_slice(&fresh[used..]);
        } else {
            kept.drain(..used);
            give_back(&mut kept);
        }
        self.kept = kept;
    }

    /// Writes what waits, unless the system has said that it takes nothing.
    ///
    /// # Errors
    /// The connection broke.
    pub fn flush(&mut self, registry: &Registry, token: Token) -> Result<(), String> {
        if self.is_blocked {
            return Ok(());
        }
        self.write(registry, token).map_err(|error| format!("write: {error}"))
    }

    /// The system has room again.
    ///
    /// # Errors
    /// The connection broke.
    pub fn writable(&mut self, registry: &Registry, token: Token) -> Result<(), String> {
        if std::mem::take(&mut self.is_blocked) {
            watch_room(&self.stream, registry, token, false).map_err(|e| format!("epoll: {e}"))?;
        }
        self.flush(registry, token)
    }

    fn write(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        while self.sent < self.out.len() {
            match self.stream.write(&self.out[self.sent..]) {
                Ok(count) => self.sent += count,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                // A connect that is not through yet looks like this, too.
                Err(error)
                    if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::NotConnected) =>
                {
                    self.is_blocked = true;
                    return watch_room(&self.stream, registry, token, true);
                }
                Err(error) => return Err(error),
            }
        }
        match self.stream.flush() {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                self.is_blocked = true;
                return Ok(());
            }
            Err(error) => return Err(error),
        }
        self.sent = 0;
        self.out.clear();
        give_back(&mut self.out);
        Ok(())
    }
}

/// What was kept and what came, in one piece, without a copy if nothing was kept.
pub fn joined<'a>(kept: &'a mut Vec<u8>, fresh: &'a [u8]) -> &'a [u8] {
    if kept.is_empty() {
        return fresh;
    }
    kept.extend_from_slice(fresh);
    kept
}

/// Gives `each` all whole messages at the front of these bytes; how many bytes they were.
///
/// # Errors
/// What `each` says.
pub fn parse(
    bytes: &[u8],
    mut each: impl FnMut(&[u8]) -> Result<usize, String>,
) -> Result<usize, String> {
    let mut at = 0;
    while at < bytes.len() {
        match each(&bytes[at..])? {
            0 => break,
            used => at += used,
        }
    }
    Ok(at)
}

fn give_back(buffer: &mut Vec<u8>) {
    if buffer.is_empty() && buffer.capacity() > KEEP_BYTES_MAX {
        *buffer = Vec::new();
    }
}
