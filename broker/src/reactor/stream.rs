//! A stream socket of any kind: TCP, a Unix socket, or TLS over TCP.

use mio::event::Source;
use mio::net::{TcpStream, UnixStream};
use mio::{Interest, Registry, Token};
use protocol::proof::Channel;
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::Shutdown;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::time::Duration;
use tls::session::{SCRATCH_BYTES, Session};

/// Unanswered probes of a quiet connection after which the kernel takes its machine for gone.
const KEEPALIVE_PROBES: u32 = 2;

/// A connected stream socket, non-blocking.
#[derive(Debug)]
pub(super) enum Stream {
    /// Plain TCP.
    Tcp(TcpStream),
    /// A Unix stream socket.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<Tls>),
}

/// TLS over TCP.
#[derive(Debug)]
pub(super) struct Tls {
    socket: TcpStream,
    /// The TLS session; `None` = a helper thread has it for a step of the handshake.
    session: Option<Session>,
    /// The socket is to be shut for writing once the session's output is sent.
    is_shutting: bool,
}

impl Tls {
    /// The socket and its session; fails with `WouldBlock` while a helper has the session.
    fn both(&mut self) -> io::Result<(&mut TcpStream, &mut Session)> {
        match &mut self.session {
            Some(session) => Ok((&mut self.socket, session)),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        let (socket, session) = self.both()?;
        session.flush(socket)?;
        if self.is_shutting {
            self.is_shutting = false;
            // A peer that is already gone needs no close.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Sends TLS `close_notify`, then shuts the socket for writing, so that the peer knows that
    /// nothing is missing.
    fn shut_write(&mut self) {
        if let Some(session) = &mut self.session {
            session.close();
        }
        self.is_shutting = true;
        // The rest is sent at the next event for room.
        let _ = self.flush();
    }
}

impl Stream {
    /// TLS over a TCP socket.
    pub(super) fn tls(socket: TcpStream, session: Session) -> Self {
        Self::Tls(Box::new(Tls { socket, session: Some(session), is_shutting: false }))
    }

    /// Lends the session of an unfinished handshake, with its received bytes, to a helper. `None` =
    /// nothing has arrived for a step; the next read finds the end of the socket, if any.
    pub(super) fn lend(&mut self) -> Option<(Session, Vec<u8>)> {
        let Self::Tls(tls) = self else { return None };
        let mut bytes = vec![0; SCRATCH_BYTES];
        let count = tls.session.as_ref().and_then(|_| tls.socket.read(&mut bytes).ok())?;
        bytes.truncate(count);
        if count == 0 { None } else { Some((tls.session.take()?, bytes)) }
    }

    /// Takes a session back from a helper.
    pub(super) fn take_back(&mut self, session: Session) {
        if let Self::Tls(tls) = self {
            tls.session = Some(session);
        }
    }

    /// Whether a helper has the session.
    pub(super) fn is_lent(&self) -> bool {
        matches!(self, Self::Tls(tls) if tls.session.is_none())
    }

    /// The TCP socket, if it is one.
    pub(super) fn tcp(&self) -> Option<&TcpStream> {
        match self {
            Self::Tcp(socket) => Some(socket),
            Self::Tls(tls) => Some(&tls.socket),
            Self::Unix(_) => None,
        }
    }

    /// Whether the TLS handshake is unfinished; frames wait until it is done.
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(tls) => tls
                .session
                .as_ref()
                .is_none_or(|session| session.is_handshaking() && session.fault().is_none()),
        }
    }

    /// Continues the handshake; `Ok` = it is finished.
    ///
    /// # Errors
    /// `WouldBlock`: bytes of the peer are missing. Others: the handshake failed.
    pub(super) fn handshake(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(tls) => {
                let (socket, session) = tls.both()?;
                session.handshake(socket)
            }
        }
    }

    /// Whether the session holds bytes that the socket has not accepted.
    pub(super) fn has_unsent(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(tls) => {
                tls.session.as_ref().is_some_and(Session::has_unsent) || tls.is_shutting
            }
        }
    }

    /// Whether a read gives something although the system reports nothing.
    pub(super) fn has_more(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(tls) => tls.session.as_ref().is_some_and(Session::has_more),
        }
    }

    /// Why TLS failed, if it did.
    pub(super) fn fault_text(&self) -> Option<String> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(tls) => tls.session.as_ref().and_then(Session::fault_text),
        }
    }

    /// The channel binding for proofs of tokens (RFC 9266); `None` = it has no TLS.
    pub(super) fn channel(&self) -> Result<Option<Channel>, String> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(None),
            Self::Tls(tls) => match &tls.session {
                Some(session) => session.channel().map(Some),
                None => Err("the TLS handshake is not through".to_owned()),
            },
        }
    }

    /// A number that grows when bytes written before leave.
    pub(super) fn progress(&self) -> u64 {
        match self {
            Self::Tcp(_) | Self::Unix(_) => 0,
            Self::Tls(tls) => tls.session.as_ref().map_or(0, Session::written),
        }
    }

    /// Reads and discards bytes, without decrypting them.
    pub(super) fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tls(tls) => tls.socket.read(buffer),
            Self::Tcp(_) | Self::Unix(_) => self.read(buffer),
        }
    }

    /// Adds the socket to the loop, edge-triggered. TCP is registered for both directions once. A
    /// Unix socket reports room for writing at every read of the peer, so it is registered for that
    /// only while something waits ([`watch_writable`](Self::watch_writable)).
    pub(super) fn register(&mut self, registry: &Registry, token: Token) -> io::Result<()> {
        match self {
            Self::Tcp(s) => s.register(registry, token, Interest::READABLE | Interest::WRITABLE),
            Self::Tls(tls) => {
                tls.socket.register(registry, token, Interest::READABLE | Interest::WRITABLE)
            }
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
            Self::Tcp(_) | Self::Tls(_) => Ok(()),
            Self::Unix(s) if on => {
                s.reregister(registry, token, Interest::READABLE | Interest::WRITABLE)
            }
            Self::Unix(s) => s.reregister(registry, token, Interest::READABLE),
        }
    }

    /// Takes the socket out of the loop.
    pub(super) fn deregister(&mut self, registry: &Registry) {
        // Closing the socket removes it as well, so an error does not matter.
        let _ = match self {
            Self::Tcp(s) => s.deregister(registry),
            Self::Unix(s) => s.deregister(registry),
            Self::Tls(tls) => tls.socket.deregister(registry),
        };
    }

    /// Sets `TCP_NODELAY` and keepalive: within `silence` the kernel finds that the other machine
    /// is gone, as long as no sent bytes are unacknowledged (`liveness` watches those). A peer that
    /// is not `is_remote` (see `Conn`) needs no keepalive.
    pub(super) fn tune(&self, silence: Duration, is_remote: bool) -> io::Result<()> {
        let Some(tcp) = self.tcp() else {
            return Ok(());
        };
        tcp.set_nodelay(true)?;
        if !is_remote {
            // If the peer's process ends, the kernel closes its connections.
            return Ok(());
        }
        // `silence` is divided into equal parts: one before the first probe, one after each probe.
        // The kernel takes whole seconds.
        let share =
            Duration::from_secs((silence.as_secs() / u64::from(KEEPALIVE_PROBES + 1)).max(1));
        let keepalive = TcpKeepalive::new()
            .with_time(share)
            .with_interval(share)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(tcp).set_tcp_keepalive(&keepalive)
    }

    /// Ends the direction away from here; a peer that is gone already is no error.
    pub(super) fn shut_write(&mut self) {
        let _ = match self {
            Self::Tcp(s) => s.shutdown(Shutdown::Write),
            Self::Unix(s) => s.shutdown(Shutdown::Write),
            Self::Tls(tls) => {
                tls.shut_write();
                Ok(())
            }
        };
    }

    /// The error that waits on the socket, if any.
    pub(super) fn take_error(&self) -> io::Result<Option<io::Error>> {
        match self {
            Self::Tcp(s) => s.take_error(),
            Self::Unix(s) => s.take_error(),
            Self::Tls(tls) => tls.socket.take_error(),
        }
    }

    /// Whether a non-blocking connect has succeeded.
    pub(super) fn is_connected(&self) -> bool {
        match self {
            Self::Tcp(s) => s.peer_addr().is_ok(),
            Self::Unix(s) => s.peer_addr().is_ok(),
            Self::Tls(tls) => tls.socket.peer_addr().is_ok(),
        }
    }

    /// The descriptor's number.
    pub(super) fn fd(&self) -> i32 {
        match self {
            Self::Tcp(s) => s.as_raw_fd(),
            Self::Unix(s) => s.as_raw_fd(),
            Self::Tls(tls) => tls.socket.as_raw_fd(),
        }
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Self::Tcp(s) => s.as_fd(),
            Self::Unix(s) => s.as_fd(),
            Self::Tls(tls) => tls.socket.as_fd(),
        }
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read(buf),
            Self::Unix(s) => s.read(buf),
            Self::Tls(tls) => {
                let (socket, session) = tls.both()?;
                session.read(socket, &mut [IoSliceMut::new(buf)])
            }
        }
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.read_vectored(bufs),
            Self::Unix(s) => s.read_vectored(bufs),
            Self::Tls(tls) => {
                let (socket, session) = tls.both()?;
                session.read(socket, bufs)
            }
        }
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write(buf),
            Self::Unix(s) => s.write(buf),
            Self::Tls(tls) => {
                let (socket, session) = tls.both()?;
                session.write(socket, &[IoSlice::new(buf)])
            }
        }
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Self::Tcp(s) => s.write_vectored(bufs),
            Self::Unix(s) => s.write_vectored(bufs),
            Self::Tls(tls) => {
                let (socket, session) = tls.both()?;
                session.write(socket, bufs)
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(tls) => tls.flush(),
        }
    }
}
