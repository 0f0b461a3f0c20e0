//! A connected stream socket of any kind: TCP or a Unix socket, with TLS over it or without,
//! blocking or not. Each call reads or writes once. Bytes of TLS never wait in the kernel, whatever
//! the socket's mode: what it does not take or give now stays for the next call.

use crate::session::{SCRATCH_BYTES, Session};
use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, getsockopt, recv, send, sendmsg, sockopt};
use protocol::peer_group::canonical;
use protocol::proof::{Bindings, Channel};
use socket2::{SockRef, TcpKeepalive};
use std::io::{self, ErrorKind, IoSlice, IoSliceMut, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use sys::socket_owner::tcp_owner;

/// Unanswered probes of a quiet connection after which the kernel takes its machine for gone.
const KEEPALIVE_PROBES: u32 = 2;
/// A write never waits in the kernel, and never raises SIGPIPE.
const SEND: MsgFlags = MsgFlags::MSG_DONTWAIT.union(MsgFlags::MSG_NOSIGNAL);

/// Why a session has no keys yet.
const NOT_THROUGH: &str = "the TLS handshake is not through";

/// A socket without TLS.
#[derive(Debug)]
enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

/// Calls a method that both kinds of sockets have.
macro_rules! socket {
    ($socket:expr, $name:ident => $call:expr) => {
        match $socket {
            Socket::Tcp($name) => $call,
            Socket::Unix($name) => $call,
        }
    };
}

/// TLS over a socket.
#[derive(Debug)]
struct Tls {
    /// `None` = it is lent for a step of the handshake.
    session: Option<Session>,
    /// The socket is to be shut for writing once the session's output is sent.
    is_shutting: bool,
    /// Whether bytes of frames have come.
    has_heard: bool,
}

/// The user and the process at the other end of a Unix socket when it was connected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Credentials {
    /// The user's number.
    pub uid: u32,
    /// The process; 0 = it is in another namespace.
    pub pid: i32,
}

/// A connected stream socket.
#[derive(Debug)]
pub struct Stream {
    socket: Socket,
    tls: Option<Box<Tls>>,
}

/// The socket below a TLS session. The first read waits as the flags say, a further one does not.
struct Wire {
    fd: RawFd,
    flags: MsgFlags,
    /// Whether a read returned something or was interrupted, so that the time is not simply over.
    is_stirred: bool,
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

impl From<TcpStream> for Stream {
    fn from(socket: TcpStream) -> Self {
        Self { socket: Socket::Tcp(socket), tls: None }
    }
}

impl From<UnixStream> for Stream {
    fn from(socket: UnixStream) -> Self {
        Self { socket: Socket::Unix(socket), tls: None }
    }
}

/// What a stream knows of its socket.
impl Stream {
    /// The same with TLS, if there is a session for it.
    pub fn with_tls(self, session: Option<Session>) -> Self {
        let tls = |session| Tls { session: Some(session), is_shutting: false, has_heard: false };
        Self { tls: session.map(|session| Box::new(tls(session))), ..self }
    }

    /// Whether it is TCP, with TLS or without.
    pub const fn is_tcp(&self) -> bool {
        matches!(self.socket, Socket::Tcp(_))
    }

    /// The address of this end of a TCP connection, in its canonical form.
    pub fn local_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.local_addr().ok().map(canonical),
            Socket::Unix(_) => None,
        }
    }

    /// The address of the other end of a TCP connection, in its canonical form: an IPv4-mapped
    /// address is the IPv4 address.
    pub fn peer_address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socket::Tcp(socket) => socket.peer_addr().ok().map(canonical),
            Socket::Unix(_) => None,
        }
    }

    /// Who is at the other end of a Unix socket.
    ///
    /// # Errors
    /// It is TCP, or the kernel does not say.
    pub fn credentials(&self) -> io::Result<Credentials> {
        let Socket::Unix(socket) = &self.socket else { return Err(ErrorKind::Unsupported.into()) };
        let known = getsockopt(socket, sockopt::PeerCredentials)?;
        Ok(Credentials { uid: known.uid(), pid: known.pid() })
    }

    /// The user at the other end, which must be on this machine; `None` = not known. For TCP this
    /// asks the kernel each time.
    pub fn peer_user(&self) -> Option<u32> {
        match self.is_tcp() {
            false => self.credentials().ok().map(|known| known.uid),
            true => tcp_owner(self.local_address()?, self.peer_address()?),
        }
    }

    /// Whether a connect that did not wait has succeeded.
    pub fn is_connected(&self) -> bool {
        socket!(&self.socket, socket => socket.peer_addr().is_ok())
    }

    /// The error that waits on the socket, if any.
    ///
    /// # Errors
    /// The socket can't be asked.
    pub fn take_error(&self) -> io::Result<Option<io::Error>> {
        socket!(&self.socket, socket => socket.take_error())
    }

    /// Sets whether calls on the socket return at once.
    ///
    /// # Errors
    /// The socket is closed.
    pub fn set_nonblocking(&self, on: bool) -> io::Result<()> {
        socket!(&self.socket, socket => socket.set_nonblocking(on))
    }

    /// Sets how long a read of a blocking socket waits; `None` = without end.
    ///
    /// # Errors
    /// A time of zero.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        socket!(&self.socket, socket => socket.set_read_timeout(timeout))
    }

    /// Sets `TCP_NODELAY`, and with `silence` keepalive: within that time, in whole seconds, the
    /// kernel finds that the other machine is gone, as long as no sent bytes are unacknowledged. A
    /// peer on this machine needs none: if its process ends, the kernel closes its connections.
    ///
    /// # Errors
    /// The other side has closed.
    pub fn tune(&self, silence: Option<Duration>) -> io::Result<()> {
        let Socket::Tcp(socket) = &self.socket else { return Ok(()) };
        socket.set_nodelay(true)?;
        let Some(silence) = silence else { return Ok(()) };
        // Equal parts: one before the first probe, one after each probe.
        let share =
            Duration::from_secs((silence.as_secs() / u64::from(KEEPALIVE_PROBES + 1)).max(1));
        let keepalive = TcpKeepalive::new()
            .with_time(share)
            .with_interval(share)
            .with_retries(KEEPALIVE_PROBES);
        SockRef::from(socket).set_tcp_keepalive(&keepalive)
    }
}

/// What a stream knows of its TLS session.
impl Stream {
    fn session(&self) -> Option<&Session> {
        self.tls.as_ref()?.session.as_ref()
    }

    /// The session and the socket below it; fails with `WouldBlock` while the session is lent.
    fn wire(&mut self) -> io::Result<Option<(Wire, &mut Session)>> {
        let fd = self.as_fd().as_raw_fd();
        let Some(tls) = &mut self.tls else { return Ok(None) };
        let wire = Wire { fd, flags: MsgFlags::MSG_DONTWAIT, is_stirred: false };
        match &mut tls.session {
            Some(session) => Ok(Some((wire, session))),
            None => Err(ErrorKind::WouldBlock.into()),
        }
    }

    /// Lends the session of an unfinished handshake, with its received bytes, to a helper. `None` =
    /// nothing has arrived for a step; the next read finds the end of the socket, if any.
    pub fn lend(&mut self) -> Option<(Session, Vec<u8>)> {
        let (mut wire, _) = self.wire().ok()??;
        let mut bytes = vec![0; SCRATCH_BYTES];
        let count = wire.read(&mut bytes).ok()?;
        bytes.truncate(count);
        if count == 0 { None } else { Some((self.tls.as_mut()?.session.take()?, bytes)) }
    }

    /// Takes a session back from a helper.
    pub fn take_back(&mut self, session: Session) {
        if let Some(tls) = &mut self.tls {
            tls.session = Some(session);
        }
    }

    /// Whether a helper has the session.
    pub fn is_lent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.session.is_none())
    }

    /// Whether the TLS handshake is unfinished; frames wait until it is done.
    pub fn is_handshaking(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| {
            let session = tls.session.as_ref();
            session.is_none_or(|session| session.is_handshaking() && session.fault().is_none())
        })
    }

    /// Continues the handshake; `Ok` = it is finished, or there is no TLS.
    ///
    /// # Errors
    /// `WouldBlock`: bytes of the peer are missing. Others: the handshake failed.
    pub fn handshake(&mut self) -> io::Result<()> {
        match self.wire()? {
            None => Ok(()),
            Some((mut wire, session)) => session.handshake(&mut wire),
        }
    }

    /// Whether bytes of an earlier write have not left, or the end of them has not been told.
    pub fn has_unsent(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.is_shutting)
            || self.session().is_some_and(Session::has_unsent)
    }

    /// Whether a read gives something although the socket is not readable.
    pub fn has_more(&self) -> bool {
        self.session().is_some_and(Session::has_more)
    }

    /// Why TLS failed; `None` = it did not.
    pub fn fault_text(&self) -> Option<String> {
        self.session().and_then(Session::fault_text)
    }

    /// Why TLS failed before anything else came, that is during the handshake. Later it is a
    /// connection that broke.
    pub fn disagreement(&self) -> Option<String> {
        self.fault_text().filter(|_| self.tls.as_ref().is_some_and(|tls| !tls.has_heard))
    }

    /// What a proof that leaves on this connection is bound to (RFC 9266); `None` = it has no TLS.
    ///
    /// # Errors
    /// The handshake is not finished.
    pub fn channel(&self) -> Result<Option<Channel>, String> {
        match (&self.tls, self.session()) {
            (None, _) => Ok(None),
            (Some(_), Some(session)) => session.channel().map(Channel::Exporter).map(Some),
            (Some(_), None) => Err(NOT_THROUGH.to_owned()),
        }
    }

    /// What proofs on this connection can be bound to, as this end sees it; `None` = it has no TLS.
    ///
    /// # Errors
    /// The handshake is not finished.
    pub fn bindings(&self) -> Result<Option<Bindings>, String> {
        match (&self.tls, self.session()) {
            (None, _) => Ok(None),
            (Some(_), Some(session)) => {
                let (exporter, end_point) = (session.channel()?, session.end_point());
                Ok(Some(Bindings { exporter, end_point }))
            }
            (Some(_), None) => Err(NOT_THROUGH.to_owned()),
        }
    }

    /// A number that grows when bytes leave that TLS has taken before.
    pub fn progress(&self) -> u64 {
        self.session().map_or(0, Session::written)
    }
}

/// Reads and writes beyond [`Read`] and [`Write`].
impl Stream {
    /// Reads once, until there is at least one byte. A blocking socket waits for it if `waits`.
    ///
    /// # Errors
    /// `WouldBlock`: nothing came, or not in time. `Interrupted`: something came, but nothing that
    /// can be taken yet, or a signal.
    pub fn receive(&mut self, buffer: &mut [u8], waits: bool) -> io::Result<usize> {
        let flags = if waits { MsgFlags::empty() } else { MsgFlags::MSG_DONTWAIT };
        let fd = self.as_fd().as_raw_fd();
        let Some((mut wire, session)) = self.wire()? else { return Ok(recv(fd, buffer, flags)?) };
        wire.flags = flags;
        let read = session.read_some(&mut wire, &mut [IoSliceMut::new(buffer)]);
        if let Some(tls) = self.tls.as_mut().filter(|_| matches!(read, Ok(1..))) {
            tls.has_heard = true;
        }
        match read {
            // Part of a TLS record, or a signal.
            Err(e) if e.kind() == ErrorKind::WouldBlock && wire.is_stirred => {
                Err(ErrorKind::Interrupted.into())
            }
            read => read,
        }
    }

    /// Writes once what the system takes now of two buffers in a row, without waiting.
    ///
    /// # Errors
    /// `WouldBlock`: it takes nothing now. Others: the connection broke.
    pub fn send(&mut self, first: &[u8], second: &[u8]) -> io::Result<usize> {
        let fd = self.as_fd().as_raw_fd();
        let parts = [IoSlice::new(first), IoSlice::new(second)];
        if let Some((mut wire, session)) = self.wire()? {
            return session.write(&mut wire, &parts);
        }
        Ok(match (first.is_empty(), second.is_empty()) {
            (_, true) => send(fd, first, SEND)?,
            (true, false) => send(fd, second, SEND)?,
            (false, false) => sendmsg::<()>(fd, &parts, &[], SEND, None)?,
        })
    }

    /// Reads bytes that will be thrown away, without decrypting them.
    ///
    /// # Errors
    /// As a read of the socket.
    pub fn discard(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        socket!(&mut self.socket, socket => socket.read(buffer))
    }

    /// Ends the direction away from here. TLS tells its end first (`close_notify`), so that the
    /// peer knows that nothing is missing; what the socket does not take now leaves with
    /// [`flush`](Write::flush). A peer that is gone already is no error.
    pub fn shut_write(&mut self) {
        let Some(tls) = &mut self.tls else {
            let _ = self.shutdown();
            return;
        };
        if let Some(session) = &mut tls.session {
            session.close();
        }
        tls.is_shutting = true;
        let _ = self.flush();
    }

    /// Tells the end of TLS, if all was sent, as far as the socket takes it now. A peer that is not
    /// told sees a connection that broke.
    pub fn say_end(&mut self) {
        if let Ok(Some((mut wire, session))) = self.wire()
            && !session.has_unsent()
        {
            session.close();
            let _ = session.flush(&mut wire);
        }
    }

    fn shutdown(&self) -> io::Result<()> {
        socket!(&self.socket, socket => socket.shutdown(Shutdown::Write))
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        socket!(&self.socket, socket => socket.as_fd())
    }
}

impl Read for Stream {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.read_vectored(&mut [IoSliceMut::new(buf)]);
        }
        socket!(&mut self.socket, socket => socket.read(buf))
    }

    fn read_vectored(&mut self, bufs: &mut [IoSliceMut<'_>]) -> io::Result<usize> {
        if let Some((mut wire, session)) = self.wire()? {
            return session.read(&mut wire, bufs);
        }
        socket!(&mut self.socket, socket => socket.read_vectored(bufs))
    }
}

impl Write for Stream {
    fn write(&mut self, buf: &[u8]) -> io::Result<usize> {
        if self.tls.is_some() {
            return self.write_vectored(&[IoSlice::new(buf)]);
        }
        socket!(&mut self.socket, socket => socket.write(buf))
    }

    fn write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if let Some((mut wire, session)) = self.wire()? {
            return session.write(&mut wire, bufs);
        }
        socket!(&mut self.socket, socket => socket.write_vectored(bufs))
    }

    /// Writes what TLS has taken and the socket has not; a socket without TLS keeps nothing.
    fn flush(&mut self) -> io::Result<()> {
        let Some((mut wire, session)) = self.wire()? else { return Ok(()) };
        session.flush(&mut wire)?;
        if let Some(tls) = &mut self.tls
            && std::mem::take(&mut tls.is_shutting)
        {
            let _ = self.shutdown();
        }
        Ok(())
    }
}
