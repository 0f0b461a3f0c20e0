//! A stream socket, TCP or Unix, behind one face. Not what is read or written.

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// Unanswered probes of a quiet connection after which the kernel takes its machine for gone.
const KEEPALIVE_PROBES: u32 = 2;

/// A stream socket.
#[derive(Debug)]
pub(super) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
}

impl Stream {
    /// Tells the loop of readiness, edge by edge. TCP is asked for both directions once and for
    /// all. A Unix socket reports room for writing at every read of the peer, so it is asked for
    /// that only while something waits ([`watch_writable`](Self::watch_writable)).
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.register(registry, token, Interest::READABLE | Interest::WRITABLE),
            Self::Unix(s) => s.register(registry, token, Interest::READABLE),
        }
    }

    /// Starts or ends reports of room for writing, where they are not on anyway.
    pub(super) fn watch_writable(
        &mut self,
        registry: &Registry,
        token: Token,
        on: bool,
    ) -> io::Result<()> {
        match self {
            Self::Tcp(_) => Ok(()),
            Self::Unix(s) if on => {
                s.reregister(registry, token, Interest::READABLE | Interest::WRITABLE)
            }
            Self::Unix(s) => s.reregister(registry, token, Interest::READABLE),
        }
    }

    /// Takes the socket out of the loop.
    pub(super) fn deregister(&mut self, registry: &Registry) {
        // It is about to be closed, which takes it out as well.
        let _ = match self {
            Self::Tcp(s) => s.deregister(registry),
            Self::Unix(s) => s.deregister(registry),
        };
    }

    /// Sends small frames at once; has the kernel find out when the other machine is gone, within
    /// this silence while nothing is under way to it (of what is,
    /// `flight` takes care).
    pub(super) fn tune(&self, silence: Duration) -> io::Result<()> {
        let Self::Tcp(tcp) = self else {
            return Ok(());
        };
        tcp.set_nodelay(true)?;
        if !self.is_remote() {
            // This machine does not vanish; a process that ends closes its connections.
            return Ok(());
        }
        // The first probe goes after one share, each further one a share later; whole seconds.
        let share =
            Duration::from_secs((silence.as_secs() / u64::from(KEEPALIVE_PROBES + 1)).max(1));
        let keepalive = TcpKeepalive::new()
            .with_time(share)
            .with_interval(share)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(tcp).set_tcp_keepalive(&keepalive)
    }

    /// Whether the peer is on another machine, as far as its address tells.
    pub(super) fn is_remote(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.peer_addr().is_ok_and(|peer| !peer.ip().is_loopback()),
            Self::Unix(_) => false,
        }
    }

    /// Ends one direction or both; a peer that is gone already is no error.
    pub(super) fn shutdown(&self, how: Shutdown) {
        let _ = match self {
            Self::Tcp(s) => s.shutdown(how),
            Self::Unix(s) => s.shutdown(how),
        };
    }

    /// The error that waits on the socket, if any.
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(s) => s.take_error(),
            Self::Unix(s) => s.take_error(),
        }
    }

    /// Whether a connect that was begun is through.
    pub(super) fn is_connected(&self) -> bool {
        match self {
            Self::Tcp(s) => s.peer_addr().is_ok(),
            Self::Unix(s) => s.peer_addr().is_ok(),
        }
    }

    /// The descriptor's number.
    pub(super) fn fd(&self) -> i32 {
        match self {
            Self::Tcp(s) => s.as_raw_fd(),
            Self::Unix(s) => s.as_raw_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buf),
            Self::Unix(s) => s.read(buf),
        }
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read_vectored(bufs),
            Self::Unix(s) => s.read_vectored(bufs),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buf),
            Self::Unix(s) => s.write(buf),
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write_vectored(bufs),
            Self::Unix(s) => s.write_vectored(bufs),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
