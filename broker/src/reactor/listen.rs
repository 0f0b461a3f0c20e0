//! Listening sockets, and the limits on accepted connections. Beyond the limit a connection is told
//! so and closed, until a tenth of the limit is free again.

use super::Reactor;
use super::conn::{Conn, Phase, register};
use super::dial::{tcp, unix};
use super::links::Ready;
use super::state_dir::check_socket_path;
use super::tls_config::TlsConfig;
use crate::engine::input::{Input, Peer};
use crate::exit::Fatal;
use crate::translate::outbound;
use auth::own;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry};
use nix::unistd::geteuid;
use protocol::{ErrorCode, LinkId, Micros, Role, Setting, Tick, encode};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};
use transport::stream::Stream;

/// Backlog of a listening socket (listen(2)).
const BACKLOG: i32 = 4096;
/// Connections accepted from one listener in one turn.
const ACCEPTS_MAX: usize = 16;
/// Most connections that are being refused with an error at once; further ones stay in the backlog.
const REFUSALS_MAX: usize = 32;
/// One refused connection at once is allowed for this many descriptors.
const REFUSAL_SHARE: u64 = 16;
/// After the system refused a descriptor, accepting waits this long.
const RETRY_MS: u64 = 100;
/// Time between two log lines about it.
const WARN_EVERY: Micros = Micros::from_millis(10_000);
/// Connections beyond the limit that only the broker's own user gets, over the Unix socket.
const OWNERS_MORE: usize = 8;
/// Descriptors kept for files, listeners and the loop itself.
pub(super) const RESERVE: u64 = 32;

#[derive(Debug)]
enum Socketed {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A socket on which connections are accepted.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socketed,
    /// The role of whoever connects here.
    role: Role,
    /// Whether TLS is spoken there.
    is_tls: bool,
    /// The system reported waiting connections.
    is_ready: bool,
}

impl Listener {
    /// Listens on TCP. `remembered` is tried first when any port will do.
    pub(super) fn tcp(
        role: Role,
        address: SocketAddr,
        remembered: Option<u16>,
    ) -> Result<Self, Fatal> {
        let bind = |address: SocketAddr| {
            let socket =
                Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
            socket.set_reuse_address(true)?;
            socket.set_nonblocking(true)?;
            socket.bind(&address.into())?;
            socket.listen(BACKLOG)?;
            io::Result::Ok(TcpListener::from_std(socket.into()))
        };
        let again = remembered.filter(|_| address.port() == 0);
        let bound = match again.map(|port| (port, bind(SocketAddr::new(address.ip(), port)))) {
            Some((_, Ok(socket))) => Ok(socket),
            Some((port, Err(error))) => {
                tracing::warn!(
                    "the {role} port of the last time, {port}, can't be had again ({error}); taking \
                     another: workers that still run can't come back over TCP"
                );
                bind(address)
            }
            None => bind(address),
        };
        let socket = bound.map_err(|e| {
            Fatal::Listen(format!(
                "can't listen for {role}s on {address}: {e}; end who is there, or name another address"
            ))
        })?;
        Ok(Self { socket: Socketed::Tcp(socket), role, is_tls: false, is_ready: true })
    }

    /// Speaks TLS with whoever connects.
    pub(super) fn with_tls(mut self) -> Self {
        self.is_tls = true;
        self
    }

    /// Whether TLS is spoken there.
    pub(super) const fn is_tls(&self) -> bool {
        self.is_tls
    }

    /// Listens on a Unix socket; a socket file that nobody answers at is replaced.
    pub(super) fn unix(role: Role, path: &Path) -> Result<Self, Fatal> {
        check_socket_path(path)
            .map_err(|why| Fatal::Listen(format!("{why}; name a shorter one for {role}s")))?;
        let wrong = |why: String| {
            Fatal::Listen(format!("can't listen for {role}s on unix:{}: {why}", path.display()))
        };
        own::check_socket_path(path).map_err(|error| wrong(error.to_string()))?;
        match fs::symlink_metadata(path) {
            Ok(meta) if !meta.file_type().is_socket() => {
                return Err(wrong("a file that is no socket is there; remove it".to_owned()));
            }
            Ok(_) if StdUnixStream::connect(path).is_ok() => {
                return Err(wrong("another program listens there; name another path".to_owned()));
            }
            Ok(_) => fs::remove_file(path).map_err(|e| wrong(e.to_string()))?,
            Err(_) => {}
        }
        let socket = UnixListener::bind(path).map_err(|e| wrong(e.to_string()))?;
        fs::set_permissions(path, PermissionsExt::from_mode(0o600))
            .map_err(|e| wrong(e.to_string()))?;
        let socket = Socketed::Unix(socket, path.to_owned());
        Ok(Self { socket, role, is_tls: false, is_ready: true })
    }

    /// Adds the socket to the loop.
    pub(super) fn register(&mut self, registry: &Registry, index: usize) -> io::Result<()> {
        let token = Ready::Listener(index).token();
        match &mut self.socket {
            Socketed::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            Socketed::Unix(socket, _) => registry.register(socket, token, Interest::READABLE),
        }
    }

    /// The role of whoever connects here.
    pub(super) const fn role(&self) -> Role {
        self.role
    }

    /// The TCP address that was bound.
    pub(super) fn address(&self) -> Option<SocketAddr> {
        match &self.socket {
            Socketed::Tcp(socket) => socket.local_addr().ok(),
            Socketed::Unix(..) => None,
        }
    }

    /// The descriptor's number.
    pub(super) fn fd(&self) -> i32 {
        match &self.socket {
            Socketed::Tcp(socket) => socket.as_raw_fd(),
            Socketed::Unix(socket, _) => socket.as_raw_fd(),
        }
    }

    /// Accepts the next connection; without a stream if it needs TLS and there is no certificate.
    fn accept(&self, tls_config: &TlsConfig) -> io::Result<(Option<Stream>, Peer)> {
        match &self.socket {
            Socketed::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                // Every user of the machine can reach a loopback port, so the address proves
                // nothing. `who_is` asks the kernel for the socket's owner at a login to `op`.
                let peer = Peer::tcp(address, stream.as_raw_fd());
                let stream = tcp(stream);
                if !self.is_tls {
                    return Ok((Some(stream), peer));
                }
                let session = tls_config.accept(self.role);
                Ok((session.map(|session| stream.with_tls(Some(session))), peer))
            }
            Socketed::Unix(socket, _) => {
                let stream = unix(socket.accept()?.0);
                let who = stream.credentials().ok();
                let uid = who.map(|peer| peer.uid);
                let is_owner = uid.is_some_and(is_owner);
                let pid = who.and_then(|peer| u32::try_from(peer.pid).ok());
                let fd = stream.as_fd().as_raw_fd();
                let peer = Peer { is_owner, pid, ..Peer::unix(uid, fd) };
                Ok((Some(stream), peer))
            }
        }
    }
}

/// Whether a user may use the role operator without a token: the broker's own, and root.
fn is_owner(uid: u32) -> bool {
    uid == geteuid().as_raw() || uid == 0
}

/// Finds the user of the process at the other end of a TCP connection and tells the engine, before
/// a login to `op`. The kernel knows it only for peers on this machine.
pub(super) fn who_is(link: LinkId, conn: &Conn) -> Option<Input> {
    // Unix sockets were asked when they were accepted.
    conn.stream.peer_address()?;
    let uid = if conn.is_remote { None } else { conn.stream.peer_user() };
    Some(Input::Known { link, uid, is_owner: uid.is_some_and(is_owner) })
}

impl Listener {
    /// Whether dropping it removes a file.
    pub(super) const fn has_file(&self) -> bool {
        matches!(self.socket, Socketed::Unix(..))
    }
}

impl Drop for Listener {
    /// The file goes first: a socket that nobody listens at may be replaced by another broker.
    fn drop(&mut self) {
        if let Socketed::Unix(_, path) = &self.socket {
            let _ = fs::remove_file(path);
        }
    }
}

/// Which connections are accepted, and when.
#[derive(Debug, Default)]
pub(super) struct Acceptor {
    /// The limit was reached: further clients are refused until a tenth of it is free.
    is_full: bool,
    /// Nothing is accepted until this tick, because the system had no descriptor left.
    pub(super) retry_at: Option<Tick>,
    /// Connections that are being told that there is no room.
    pub(super) refusals: usize,
    /// Clients that are connected.
    pub(super) clients: usize,
    /// Most descriptors of this process.
    pub(super) descriptors_max: u64,
    warned_at: Option<Tick>,
}

impl Acceptor {
    /// Whether one more can be told that there is no room.
    fn can_refuse(&self) -> bool {
        let most = usize::try_from(self.descriptors_max / REFUSAL_SHARE).unwrap_or(REFUSALS_MAX);
        self.refusals < most.clamp(1, REFUSALS_MAX)
    }

    /// Stops accepting for a moment, because the system has no descriptor left.
    fn retry_later(&mut self, now: Tick, role: Role, error: &io::Error) {
        self.retry_at = Some(now.plus_millis(RETRY_MS));
        if self.warned_at.is_none_or(|at| now.since(at) >= WARN_EVERY) {
            self.warned_at = Some(now);
            tracing::warn!(
                "can't accept a {role}: {error}; trying again every {RETRY_MS} ms; raise the \
                 descriptor limit if it lasts"
            );
        }
    }

    /// How many clients may be connected.
    pub(super) fn limit(&self, connections_max: u64) -> usize {
        // Workers, hosts and files keep an eighth, at least the reserve.
        let kept = (self.descriptors_max / 8).max(RESERVE);
        let limit = match connections_max {
            0 => self.descriptors_max.saturating_sub(kept),
            wanted => wanted.min(self.descriptors_max.saturating_sub(RESERVE)),
        };
        usize::try_from(limit).unwrap_or(usize::MAX)
    }

    /// Whether a further client finds no room.
    fn is_full(&mut self, limit: usize) -> bool {
        if self.clients >= limit {
            self.is_full = true;
        } else if self.clients <= limit - limit.div_ceil(10) {
            self.is_full = false;
        }
        self.is_full
    }
}

impl Reactor {
    /// A connection waits at a listener.
    pub(super) fn mark_ready(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.is_ready = true;
        }
    }

    /// Whether connections may wait that [`accept_all`](Self::accept_all) would take now.
    pub(super) fn has_waiting(&self) -> bool {
        self.io.acceptor.retry_at.is_none()
            && self.io.acceptor.can_refuse()
            && self.listeners.iter().any(|listener| listener.is_ready)
    }

    /// Accepts waiting connections, a limited number from each listener in a turn.
    pub(super) fn accept_all(&mut self) {
        if self.io.acceptor.retry_at.is_some_and(|until| self.io.now < until) {
            return;
        }
        self.io.acceptor.retry_at = None;
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_MAX {
                let acceptor = &self.io.acceptor;
                if !self.listeners[index].is_ready
                    || acceptor.retry_at.is_some()
                    || !acceptor.can_refuse()
                {
                    break;
                }
                self.accept_one(index);
            }
        }
    }

    fn accept_one(&mut self, index: usize) {
        let listener = &mut self.listeners[index];
        let role = listener.role;
        match listener.accept(&self.io.tls_config) {
            Ok((Some(stream), peer)) => self.admit(stream, peer, role),
            // Told in the log; the connection is closed.
            Ok((None, _)) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => listener.is_ready = false,
            // The client gave up before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            Err(error) => self.io.acceptor.retry_later(self.io.now, role, &error),
        }
    }

    fn admit(&mut self, stream: Stream, peer: Peer, role: Role) {
        let connections_max = self.engine.settings().get(Setting::ConnectionsMax);
        let limit = self.io.acceptor.limit(connections_max);
        let is_refused = match role {
            // The broker's own user may exceed the limit over the Unix socket, to make room.
            Role::Client if peer.is_owner => self.io.acceptor.clients >= limit + OWNERS_MORE,
            Role::Client => self.io.acceptor.is_full(limit),
            Role::Worker | Role::Host | Role::Broker => {
                self.io.links.len() as u64 + RESERVE > self.io.acceptor.descriptors_max
            }
        };
        let link = self.io.links.next_id();
        let registered = stream
            .tune(peer.is_remote.then_some(self.io.limits.silence))
            .and_then(|()| register(&stream, &self.io.registry, Ready::Link(link).token()));
        if registered.is_err() {
            // The client has already closed.
            return;
        }
        let mut conn = Conn::new(stream, role, peer.is_remote);
        conn.peer_group = peer.group;
        if is_refused {
            self.io.acceptor.refusals += 1;
            conn.is_refused = true;
            conn.phase = Phase::Closing { until: self.io.now.plus_millis(1000) };
            let text =
                format!("{} clients are connected, the limit is {limit}", self.io.acceptor.clients);
            let frame = outbound::refusal(ErrorCode::TooManyConnections, text);
            conn.outbox.push(encode::encode(frame), &mut self.io.outbox_pool);
            let link = self.io.links.insert(conn);
            self.io.watch_deadline(self.io.now.plus_millis(1000), link);
            self.io.flush(link);
            return;
        }
        let link = self.io.links.insert(conn);
        let input = match role {
            Role::Worker => Input::WorkerOpened { link, peer },
            Role::Client | Role::Host | Role::Broker => {
                self.io.acceptor.clients += 1;
                Input::ClientOpened { link, peer }
            }
        };
        self.io.tell(Some(link), input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_refused_at_the_limit_until_a_tenth_is_free() {
        let mut acceptor = Acceptor { descriptors_max: 1024, ..Acceptor::default() };
        assert_eq!((acceptor.limit(0), acceptor.limit(7), acceptor.limit(5000)), (896, 7, 992));
        for (clients, is_full) in
            [(99, false), (100, true), (99, true), (91, true), (90, false), (99, false)]
        {
            acceptor.clients = clients;
            assert_eq!(acceptor.is_full(100), is_full, "{clients} clients");
        }
        acceptor.clients = 1;
        assert!(acceptor.is_full(1));
        acceptor.clients = 0;
        assert!(!acceptor.is_full(1));
        assert_eq!(Acceptor::default().limit(0), 0);
    }
}
