//! The broker's side: a listener and its connections, one of which is the present one.

use super::Side;
use super::wire::Wire;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::header::Header;
use protocol::kinds::Kind;
use protocol::limits::HEADER_BYTES;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{ErrorKind, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::time::Duration;
use tempfile::TempDir;

/// Longest time for one step.
pub(super) const BOUND: Duration = Duration::from_secs(10);
/// Bytes that the system keeps of what the library sends while nothing is read.
const RECEIVE_BYTES: usize = 32 * 1024;
/// Most bytes of a body.
const BODY_MAX: usize = 64 << 20;

/// Kinds that may have come when a case is over, although no line expected them.
const PARTING: &[Kind] =
    &[Kind::Ping, Kind::Pong, Kind::Logout, Kind::Unsubscribe, Kind::Withdraw, Kind::Beat];

struct Conn {
    name: Option<String>,
    /// The library's side, where it is not that of the file.
    side: Option<Side>,
    stream: Socket,
    came: Vec<u8>,
}

/// The listener and its connections.
pub(super) struct Peer {
    listener: Socket,
    /// The folder of its Unix socket; `None` = it listens on TCP.
    folder: Option<TempDir>,
    conns: Vec<Conn>,
    present: usize,
    /// Bytes that leave in one write; `None` = each frame leaves at once.
    held: Option<Vec<u8>>,
}

impl Peer {
    /// Listens on a port of the kernel's choice, or on a Unix socket.
    pub(super) fn listen(is_unix: bool) -> Self {
        let folder = is_unix.then(|| tempfile::tempdir().expect("a folder"));
        let address = match &folder {
            None => SockAddr::from(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))),
            Some(folder) => SockAddr::unix(folder.path().join("s")).expect("a short path"),
        };
        let domain = if is_unix { Domain::UNIX } else { Domain::IPV4 };
        let listener = Socket::new(domain, Type::STREAM, None).expect("a socket");
        // Connections have it of their listener; later it would be too late for a small window.
        listener.set_recv_buffer_size(RECEIVE_BYTES).expect("a size");
        listener.bind(&address).expect("a port");
        listener.listen(128).expect("a port");
        Self { listener, folder, conns: Vec::new(), present: 0, held: None }
    }

    /// The path of its Unix socket; `None` = it listens on TCP.
    pub(super) fn path(&self) -> Option<PathBuf> {
        self.folder.as_ref().map(|folder| folder.path().join("s"))
    }

    pub(super) fn port(&self) -> u16 {
        let address = self.listener.local_addr().expect("an address");
        address.as_socket().map_or(0, |address| address.port())
    }

    /// Takes a connection, which is the present one then.
    pub(super) fn accept(&mut self, name: Option<&str>) -> Result<(), String> {
        let mut fds = [PollFd::new(self.listener.as_fd(), PollFlags::POLLIN)];
        let timeout = PollTimeout::try_from(BOUND).unwrap_or(PollTimeout::MAX);
        let ready = poll(&mut fds, timeout).or_else(|e| match e {
            Errno::EINTR => Ok(0),
            other => Err(other.to_string()),
        })?;
        if ready == 0 {
            return Err("the library does not connect".to_owned());
        }
        let (stream, _) = self.listener.accept().map_err(|e| e.to_string())?;
        let ready = if self.folder.is_none() { stream.set_tcp_nodelay(true) } else { Ok(()) };
        ready.and_then(|()| stream.set_read_timeout(Some(BOUND))).map_err(|e| e.to_string())?;
        stream.set_write_timeout(Some(BOUND)).map_err(|e| e.to_string())?;
        let name = name.map(str::to_owned);
        self.conns.push(Conn { name, side: None, stream, came: Vec::new() });
        self.present = self.conns.len() - 1;
        Ok(())
    }

    /// Says that the library is on this side of the present connection.
    pub(super) fn set_side(&mut self, side: Side) -> Result<(), String> {
        self.conn()?.side = Some(side);
        Ok(())
    }

    /// The library's side of the present connection, if it was said.
    pub(super) fn side(&self) -> Option<Side> {
        self.conns.get(self.present).and_then(|conn| conn.side)
    }

    /// Makes another connection the present one.
    pub(super) fn switch(&mut self, name: &str) -> Result<(), String> {
        let at = self.conns.iter().rposition(|conn| conn.name.as_deref() == Some(name));
        self.present = at.ok_or_else(|| format!("no connection is called '{name}'"))?;
        Ok(())
    }

    fn conn(&mut self) -> Result<&mut Conn, String> {
        self.conns.get_mut(self.present).ok_or_else(|| "there is no connection".to_owned())
    }

    /// The next frame of the library; `None` = it has closed.
    pub(super) fn next(&mut self) -> Result<Option<Wire>, String> {
        self.conn()?.next()
    }

    /// Sends bytes, or keeps them for [`release`](Self::release).
    pub(super) fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        if let Some(held) = &mut self.held {
            held.extend_from_slice(bytes);
            return Ok(());
        }
        self.conn()?.send(bytes)
    }

    /// Keeps what is sent from now on.
    pub(super) fn hold(&mut self) {
        self.held.get_or_insert_default();
    }

    /// Sends what was kept, as it is or with a break behind some byte, or behind each.
    pub(super) fn release(&mut self, size: Option<usize>, is_once: bool) -> Result<(), String> {
        let held = self.held.take().ok_or("nothing is held; say 'hold' before")?;
        let Some(size) = size else { return self.send(&held) };
        if size == 0 || size > held.len() {
            return Err(format!("{} bytes are held; they can't break at {size}", held.len()));
        }
        let (first, rest) = held.split_at(size);
        let pieces = if is_once { vec![first, rest] } else { held.chunks(size).collect() };
        for piece in pieces {
            self.conn()?.send(piece)?;
            self.conn()?.await_arrival();
        }
        Ok(())
    }

    /// Sends the first bytes of what was kept, and drops the rest.
    pub(super) fn release_part(&mut self, size: usize) -> Result<(), String> {
        let held = self.held.take().ok_or("nothing is held; say 'hold' before")?;
        let part = held.get(..size).ok_or_else(|| format!("only {} bytes are held", held.len()))?;
        self.conn()?.send(part)
    }

    /// Shuts the present connection for writing: the library reads its end.
    pub(super) fn close(&mut self) -> Result<(), String> {
        self.conn()?.stream.shutdown(Shutdown::Write).map_err(|e| e.to_string())
    }

    /// Has the present connection end with RST; a Unix socket ends as it does when its process is
    /// gone.
    pub(super) fn reset(&mut self) -> Result<(), String> {
        self.conn()?;
        let conn = self.conns.remove(self.present);
        let linger = Some(Duration::ZERO);
        conn.stream.set_linger(linger).map_err(|e| e.to_string())?;
        self.present = usize::MAX;
        Ok(())
    }

    /// Ends all connections. Returns what came that no line has expected, without goodbyes.
    pub(super) fn end(mut self) -> Vec<Wire> {
        self.conns.iter_mut().flat_map(Conn::left).collect()
    }
}

impl Conn {
    fn next(&mut self) -> Result<Option<Wire>, String> {
        loop {
            if let Some(wire) = self.take()? {
                return Ok(Some(wire));
            }
            let mut bytes = [0; 64 * 1024];
            match self.stream.read(&mut bytes) {
                Ok(0) if self.came.is_empty() => return Ok(None),
                Ok(0) => return Err(format!("it ends inside a frame: {:?}", self.came)),
                Ok(size) => self.came.extend_from_slice(&bytes[..size]),
                Err(e) => match e.kind() {
                    ErrorKind::Interrupted => {}
                    ErrorKind::ConnectionReset => return Ok(None),
                    ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                        return Err(format!("nothing came for {BOUND:?}"));
                    }
                    _ => return Err(e.to_string()),
                },
            }
        }
    }

    fn take(&mut self) -> Result<Option<Wire>, String> {
        let Some(head) = self.came.first_chunk::<HEADER_BYTES>() else { return Ok(None) };
        let head = Header::read(head);
        let size = head.len as usize;
        if size > BODY_MAX {
            return Err(format!("a frame says that it has {size} bytes"));
        }
        if self.came.len() < HEADER_BYTES + size {
            return Ok(None);
        }
        let rest = self.came.split_off(HEADER_BYTES + size);
        let body = self.came.split_off(HEADER_BYTES);
        self.came = rest;
        Ok(Some(Wire { head, body }))
    }

    /// The frames that no line has expected. The library's process has ended.
    fn left(&mut self) -> Vec<Wire> {
        self.stream.shutdown(Shutdown::Write).ok();
        let mut left = Vec::new();
        while let Ok(Some(wire)) = self.next() {
            let kind = Kind::of(wire.head.command);
            if kind.is_none_or(|kind| !PARTING.contains(&kind)) {
                left.push(wire);
            }
        }
        left
    }

    fn send(&mut self, bytes: &[u8]) -> Result<(), String> {
        match self.stream.write_all(bytes) {
            Ok(()) => Ok(()),
            // Then the library has closed, which is for the next lines to expect or not.
            Err(e) if matches!(e.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                Ok(())
            }
            Err(e) => Err(format!("the library takes nothing: {e}")),
        }
    }

    /// Waits until the system of the library has what was sent. Most often the library reads it
    /// then before more comes; where it does not, it has less to put together.
    fn await_arrival(&self) {
        let mut fds = [PollFd::new(self.stream.as_fd(), PollFlags::POLLHUP)];
        let _ = poll(&mut fds, PollTimeout::from(1_u8));
    }
}
