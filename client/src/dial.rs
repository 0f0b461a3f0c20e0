//! Connects to a broker: TCP, a Unix socket, or TLS over TCP, within a time limit.

use crate::address::Address;
use crate::clock;
use crate::trust::Trust;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::{TimeVal, TimeValLike};
use protocol::address::{HostPort, ParsedAddress};
use protocol::peer_group::is_this_machine;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpStream, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};
use transport::stream::Stream;

/// Silence after which the kernel gives up a TCP link to another machine, so that a program which
/// waits for nothing still learns before its next request that the broker's machine is gone.
const KEEPALIVE_SILENCE: Duration = Duration::from_secs(3);

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

/// Connects; with TLS it also finishes the handshake. The socket is in blocking mode.
pub(crate) fn dial(
    address: &Address,
    timeout: Duration,
    trust: Option<&Trust>,
) -> Result<Stream, ConnectError> {
    Ok(match address {
        Address::Tcp(host_port) => dial_tcp(host_port, timeout)?,
        Address::Unix(path) => dial_unix(path, timeout)?,
        Address::Tls(host_port) => {
            let until = clock::until(timeout);
            let setup = match trust {
                Some(trust) => trust.load(),
                None => Trust::from_env().load(),
            };
            let name = host_port.rsplit_once(':').map_or(host_port.as_str(), |(host, _)| host);
            let session = setup.and_then(|setup| setup.session(name)).map_err(ConnectError::Tls)?;
            let mut stream = dial_tcp(host_port, timeout)?.with_tls(Some(session));
            handshake(&mut stream, until)?;
            stream
        }
    })
}

fn handshake(stream: &mut Stream, until: Instant) -> Result<(), ConnectError> {
    loop {
        match stream.handshake() {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => {
                return Err(match stream.fault_text() {
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
        events.set(PollFlags::POLLOUT, stream.has_unsent());
        let whole = left + Duration::from_millis(1);
        let timeout = PollTimeout::try_from(whole).unwrap_or(PollTimeout::MAX);
        match poll(&mut [PollFd::new(stream.as_fd(), events)], timeout) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(e) => return Err(ConnectError::Io(e.into())),
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

fn dial_tcp(host: &str, timeout: Duration) -> io::Result<Stream> {
    let mut last = io::Error::new(ErrorKind::NotFound, "the name has no address");
    for address in look_up(host)? {
        match TcpStream::connect_timeout(&address, timeout) {
            // If nobody listens on a port of the kernel's ephemeral range, a connection to it can
            // by chance connect to itself (TCP simultaneous open).
            Ok(stream) if stream.local_addr().is_ok_and(|own| own == address) => {
                last = ErrorKind::ConnectionRefused.into();
            }
            Ok(stream) => {
                // If both ends are on this machine, a process that ends closes its connections.
                let is_remote = !is_this_machine(address.ip());
                let stream = Stream::from(stream);
                stream.tune(is_remote.then_some(KEEPALIVE_SILENCE))?;
                return Ok(stream);
            }
            Err(e) => last = e,
        }
    }
    Err(last)
}

/// Connects with a time limit: a listener with a full backlog would make a plain connect wait.
fn dial_unix(path: &std::path::Path, timeout: Duration) -> io::Result<Stream> {
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
    Ok(stream.into())
}
