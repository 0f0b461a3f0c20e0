//! A stream socket, TCP or Unix, behind one face. Not what is read or written.

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;

/// How long the far machine of a worker or host may be silent on the TCP level, and that of a
/// client, which need not answer pings.
const KEEPALIVE: Duration = Duration::from_secs(1);
const KEEPALIVE_CLIENT: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 3;
const USER_TIMEOUT: Duration = Duration::from_secs(3);

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

    /// Sends small frames at once; for workers and hosts, finds a dead machine within seconds.
    pub(super) fn tune(&self, is_watched: bool) -> io::Result<()> {
        let Self::Tcp(tcp) = self else {
            return Ok(());
        };
        tcp.set_nodelay(true)?;
        let socket = SockRef::from(tcp);
        let every = if is_watched { KEEPALIVE } else { KEEPALIVE_CLIENT };
        let keepalive = TcpKeepalive::new()
            .with_time(every)
            .with_interval(every)
            .with_retries(KEEPALIVE_PROBES);
        socket.set_tcp_keepalive(&keepalive)?;
        if is_watched {
            socket.set_tcp_user_timeout(Some(USER_TIMEOUT))?;
        }
        Ok(())
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
