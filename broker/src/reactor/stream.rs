//! A stream socket, TCP or Unix, or TCP with TLS over it, behind one face. Not what is read or
//! written.

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

/// A stream socket.
#[derive(Debug)]
pub(super) enum Stream {
    /// TCP.
    Tcp(TcpStream),
    /// Unix.
    Unix(UnixStream),
    /// TLS over TCP.
    Tls(Box<Tls>),
}

/// TLS over TCP.
#[derive(Debug)]
pub(super) struct Tls {
    socket: TcpStream,
    /// `None` = a helper goes on with its handshake.
    session: Option<Session>,
    /// The socket is to be shut for writing once what waits has left.
    is_shutting: bool,
}

impl Tls {
    /// The socket and its session; nothing can be read or written while a helper has that.
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
            // Whoever is gone already needs no end.
            let _ = self.socket.shutdown(Shutdown::Write);
        }
        Ok(())
    }

    /// Says the end, then shuts the socket for writing: the other side knows that nothing is
    /// missing.
    fn shut_write(&mut self) {
        if let Some(session) = &mut self.session {
            session.close();
        }
        self.is_shutting = true;
        // What does not leave now does when there is room; the event comes anyway.
        let _ = self.flush();
    }
}

impl Stream {
    /// TLS over a TCP socket.
    pub(super) fn tls(socket: TcpStream, session: Session) -> Self {
        Self::Tls(Box::new(Tls { socket, session: Some(session), is_shutting: false }))
    }

    /// Gives the session of an unfinished handshake away, and what came for it. `None` = nothing
    /// has come that a helper could go on with; the end of the socket is found by the next read.
    pub(super) fn lend(&mut self) -> Option<(Session, Vec<u8>)> {
        let Self::Tls(tls) = self else { return None };
        let mut bytes = vec![0; SCRATCH_BYTES];
        let count = tls.session.as_ref().and_then(|_| tls.socket.read(&mut bytes).ok())?;
        bytes.truncate(count);
        if count == 0 { None } else { Some((tls.session.take()?, bytes)) }
    }

    /// Takes a session back.
    pub(super) fn take_back(&mut self, session: Session) {
        if let Self::Tls(tls) = self {
            tls.session = Some(session);
        }
    }

    /// Whether a helper goes on with its handshake.
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

    /// Whether the two sides are not yet agreed on TLS; frames wait until then.
    pub(super) fn is_handshaking(&self) -> bool {
        match self {
            Self::Tcp(_) | Self::Unix(_) => false,
            Self::Tls(tls) => tls
                .session
                .as_ref()
                .is_none_or(|session| session.is_handshaking() && session.fault().is_none()),
        }
    }

    /// Goes on with the handshake; `Ok` = it is through.
    ///
    /// # Errors
    /// `WouldBlock`: the other side has more to say. Others: it failed.
    pub(super) fn handshake(&mut self) -> io::Result<()> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => Ok(()),
            Self::Tls(tls) => {
                let (socket, session) = tls.both()?;
                session.handshake(socket)
            }
        }
    }

    /// Whether bytes that were written here have not left.
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
    pub(super) fn trouble(&self) -> Option<String> {
        match self {
            Self::Tcp(_) | Self::Unix(_) => None,
            Self::Tls(tls) => tls.session.as_ref().and_then(Session::trouble),
        }
    }

    /// What proofs on it are bound to; `None` = it has no TLS.
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

    /// Throws away what comes: as it is, for nobody wants it.
    pub(super) fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Tls(tls) => tls.socket.read(buffer),
            Self::Tcp(_) | Self::Unix(_) => self.read(buffer),
        }
    }

    /// Tells the loop of readiness, edge by edge. TCP is asked for both directions once and for
    /// all. A Unix socket reports room for writing at every read of the peer, so it is asked for
    /// that only while something waits ([`watch_writable`](Self::watch_writable)).
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
        // It is about to be closed, which takes it out as well.
        let _ = match self {
            Self::Tcp(s) => s.deregister(registry),
            Self::Unix(s) => s.deregister(registry),
            Self::Tls(tls) => tls.socket.deregister(registry),
        };
    }

    /// Sends small frames at once; has the kernel find out when the other machine is gone, within
    /// this silence while nothing is under way to it (`liveness` watches what is).
    pub(super) fn tune(&self, silence: Duration) -> io::Result<()> {
        let Some(tcp) = self.tcp() else {
            return Ok(());
        };
        tcp.set_nodelay(true)?;
        if !self.is_remote() {
            // No machine can be gone here; a process that ends closes its connections.
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
        let peer = self.tcp().and_then(|tcp| tcp.peer_addr().ok());
        peer.is_some_and(|peer| !peer.ip().to_canonical().is_loopback())
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

    /// Whether a connect that was begun is through.
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
