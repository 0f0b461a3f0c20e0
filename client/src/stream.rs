//! The socket of a connection: TCP, Unix, or TLS over TCP. Each call reads or writes once. Reads
//! wait as their flags say, writes never. `conn` splits the bytes into frames.

use crate::address::Address;
use crate::clock;
use crate::trust::Trust;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, MsgFlags, SockFlag, SockType, UnixAddr, connect, recv, send, sendmsg,
    setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use protocol::address::{HostPort, ParsedAddress};
use protocol::proof::Channel;
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use tls::session::Session;

/// Seconds of silence after which the kernel probes a TCP link to another machine.
const KEEPALIVE_IDLE_SECS: u32 = 1;
/// Seconds between two probes.
const KEEPALIVE_INTERVAL_SECS: u32 = 1;
/// Probes after which the kernel gives the link up, so that a program which waits for nothing still
/// learns before its next request that the broker's machine is gone.
const KEEPALIVE_PROBES: u32 = 2;

/// Why no connection was made.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Nobody answers there, or not in time.
    Io(io::Error),
    /// Somebody answers, but the TLS handshake failed; or a file for TLS is wrong.
    Tls(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// The socket of a connection.
pub(crate) enum Stream {
    /// TCP without TLS.
    Tcp(TcpStream),
    /// A Unix socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<Tls>),
}

/// A TLS session and its socket.
pub(crate) struct Tls {
    socket: TcpStream,
    session: Session,
    /// Whether bytes of frames have come.
    has_heard: bool,
}

/// The socket below a TLS session. The first read waits as the flags say, a further one does not.
struct Wire {
    fd: RawFd,
    flags: MsgFlags,
    /// Whether a read returned something or was interrupted, so that the time is not simply over.
    is_stirred: bool,
}

impl Wire {
    const fn new(fd: RawFd, flags: MsgFlags) -> Self {
        Self { fd, flags, is_stirred: false }
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let result = recv(self.fd, buffer, self.flags);
        self.flags = MsgFlags::MSG_DONTWAIT;
        self.is_stirred |= matches!(result, Ok(1..) | Err(Errno::EINTR));
        // After a signal the waiting code must look at the clock first.
        result.map_err(|e| if e == Errno::EINTR { ErrorKind::WouldBlock.into() } else { e.into() })
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(send(self.fd, bytes, SEND)?)
    }

    fn write_vectored(&mut self, parts: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(sendmsg::<()>(self.fd, parts, &[], SEND, None)?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

const SEND: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(stream) => stream.as_fd(),
            Self::Unix(stream) => stream.as_fd(),
            Self::Tls(tls) => tls.socket.as_fd(),
        }
    }
}

impl Stream {
    /// Connects; with TLS it also finishes the handshake.
    pub(crate) fn dial(
        address: &Address,
        timeout: Duration,
        trust: Option<&Trust>,
    ) -> Result<Self, ConnectError> {
        Ok(match address {
            Address::Tcp(host_port) => Self::Tcp(dial_tcp(host_port, timeout)?),
            Address::Unix(path) => Self::Unix(dial_unix(path, timeout)?),
            Address::Tls(host_port) => {
                let until = clock::until(timeout);
                let setup = match trust {
                    Some(trust) => trust.load(),
                    None => Trust::from_env().load(),
                };
                let name = host_port.rsplit_once(':').map_or(host_port.as_str(), |(host, _)| host);
                let session =
                    setup.and_then(|setup| setup.session(name)).map_err(ConnectError::Tls)?;
                let socket = dial_tcp(host_port, timeout)?;
                let mut tls = Box::new(Tls { socket, session, has_heard: false });
                tls.handshake(until)?;
                Self::Tls(tls)
            }
        })
    }

    /// Reads once; waits as the flags and the timeout say.
    pub(crate) fn read(&mut self, space: &mut [u8], flags: MsgFlags) -> io::Result<usize> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(recv(self.as_fd().as_raw_fd(), space, flags)?),
            Self::Tls(tls) => {
                let mut wire = Wire::new(tls.socket.as_raw_fd(), flags);
                let read = tls.session.read_some(&mut wire, &mut [IoSliceMut::new(space)]);
                tls.has_heard |= matches!(read, Ok(1..));
                match read {
                    // Part of a TLS record, or a signal.
                    Err(e) if e.kind() == ErrorKind::WouldBlock && wire.is_stirred => {
                        Err(ErrorKind::Interrupted.into())
                    }
                    read => read,
                }
            }
        }
    }

    /// Writes once what the system takes now of two buffers in a row.
    pub(crate) fn write(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        if let Self::Tls(tls) = self {
            let mut wire = Wire::new(tls.socket.as_raw_fd(), SEND);
            return tls.session.write(&mut wire, &[IoSlice::new(first), IoSlice::new(second)]);
        }
        let fd = self.as_fd().as_raw_fd();
        Ok(match (first.is_empty(), second.is_empty()) {
            (_, true) => send(fd, first, SEND)?,
            (true, false) => send(fd, second, SEND)?,
            (false, false) => {
                let parts = [IoSlice::new(first), IoSlice::new(second)];
                sendmsg::<()>(fd, &parts, &[], SEND, None)?
            }
        })
    }

    /// Writes what a TLS session has taken and not written yet.
    pub(crate) fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }

    /// Sets how long a read waits.
    pub(crate) fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
            Self::Unix(stream) => stream.set_read_timeout(timeout),
            Self::Tls(tls) => tls.socket.set_read_timeout(timeout),
        }
    }

    /// The channel binding for proofs on this connection; `None` = it has no TLS.
    pub(crate) fn channel(&self) -> Result<Option<Channel>, String> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(None),
            Self::Tls(tls) => tls.session.channel().map(Some),
        }
    }

    /// Why TLS failed before anything else came, that is during the handshake. Later it is a
    /// connection that broke.
    pub(crate) fn disagreement(&self) -> Option<String> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(tls) if tls.has_heard => None,
            Self::Tls(tls) => tls.session.fault_text(),
        }
    }
}

impl Tls {
    fn handshake(&mut self, until: Instant) -> Result<(), ConnectError> {
        loop {
            let fd = self.socket.as_raw_fd();
            match self.session.handshake(&mut Wire::new(fd, MsgFlags::MSG_DONTWAIT)) {
                Ok(()) => return Ok(()),
                Err(error) if error.kind() == ErrorKind::WouldBlock => {}
                Err(error) => {
                    return Err(match self.session.fault_text() {
                        Some(fault_text) => ConnectError::Tls(fault_text),
                        None => ConnectError::Io(error),
                    });
                }
            }
            let left = clock::left(until);
            if left.is_zero() {
                let text = "a program took the connection but did not begin TLS in time";
                return Err(ConnectError::Io(io::Error::new(ErrorKind::TimedOut, text)));
            }
            let mut events = PollFlags::POLLIN;
            events.set(PollFlags::POLLOUT, self.session.has_unsent());
            let whole = left + Duration::from_millis(1);
            let timeout = PollTimeout::try_from(whole).unwrap_or(PollTimeout::MAX);
            match poll(&mut [PollFd::new(self.socket.as_fd(), events)], timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(ConnectError::Io(e.into())),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        self.session.flush(&mut Wire::new(self.socket.as_raw_fd(), SEND))
    }
}

impl Drop for Tls {
    fn drop(&mut self) {
        if !self.session.has_unsent() {
            self.session.close();
            // A peer that does not take it now sees a connection that broke.
            let _ = self.flush();
        }
    }
}

/// The socket addresses of `HOST:PORT`; the system resolves the zone of an IPv6 address.
fn look_up(host: &str) -> io::Result<Vec<SocketAddr>> {
    match ParsedAddress::parse(host) {
        Ok(ParsedAddress::Tcp(HostPort { host, port: Some(port) })) => {
            Ok((host.bare().as_str(), port).to_socket_addrs()?.collect())
        }
        Ok(ParsedAddress::Tcp(_) | ParsedAddress::Tls(_) | ParsedAddress::Unix(_)) | Err(_) => {
            Err(io::Error::new(ErrorKind::InvalidInput, "it is not HOST:PORT"))
        }
    }
}

/// Longest timeout of a connect, in microseconds, that is passed to the system.
const YEAR_MICROS: i64 = 366 * 86_400 * 1_000_000;

fn dial_tcp(host: &str, timeout: Duration) -> io::Result<TcpStream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in look_up(host)? {
        match TcpStream::connect_timeout(&address, timeout) {
            // If nobody listens on a port of the kernel's ephemeral range, a connection to it can
            // by chance connect to itself (TCP simultaneous open).
            Ok(stream) if stream.local_addr().is_ok_and(|own| own == address) => {
                last = ErrorKind::ConnectionRefused.into();
            }
            Ok(stream) => {
                stream.set_nodelay(true)?;
                if address.ip().to_canonical().is_loopback() {
                    // Both ends are on this machine: a process that ends closes its connections.
                    return Ok(stream);
                }
                setsockopt(&stream, sockopt::KeepAlive, &true)?;
                #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
                setsockopt(&stream, sockopt::TcpKeepIdle, &KEEPALIVE_IDLE_SECS)?;
                #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
                setsockopt(&stream, sockopt::TcpKeepInterval, &KEEPALIVE_INTERVAL_SECS)?;
                #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
                setsockopt(&stream, sockopt::TcpKeepCount, &KEEPALIVE_PROBES)?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Connects with a time limit: a listener with a full backlog would make a plain connect wait.
fn dial_unix(path: &std::path::Path, timeout: Duration) -> io::Result<UnixStream> {
    let fd = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    // Zero would mean no limit. A year is as good as more, and the system refuses the largest
    // values.
    let micros = i64::try_from(timeout.as_micros()).unwrap_or(i64::MAX).clamp(1, YEAR_MICROS);
    setsockopt(&fd, sockopt::SendTimeout, &TimeVal::microseconds(micros))?;
    let address = UnixAddr::new(path)?;
    loop {
        match connect(fd.as_raw_fd(), &address) {
            Ok(()) => break,
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) => return Err(ErrorKind::TimedOut.into()),
            Err(e) => return Err(e.into()),
        }
    }
    let stream = UnixStream::from(fd);
    stream.set_write_timeout(None)?;
    Ok(stream)
}
