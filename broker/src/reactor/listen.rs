//! Listeners, and who is let in: up to a limit, from which on the next ones are told so and let go,
//! until a tenth of the places is free again. Not what the connections say: `conn`.

use super::Reactor;
use super::conn::{Conn, Phase};
use super::secure::Secure;
use super::state::check_socket_path;
use super::stream::Stream;
use super::tokens::Ready;
use crate::engine::input::{Input, Peer};
use crate::exit::Fatal;
use crate::translate::outbound;
use execd::os::peer::tcp_owner;
use execd::os::private;
use mio::net::{TcpListener, UnixListener};
use mio::{Interest, Registry};
use nix::sys::socket::{getsockopt, sockopt::PeerCredentials};
use nix::unistd::geteuid;
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::place::canonical;
use protocol::settings::Setting;
use protocol::time::{Micros, Tick};
use socket2::{Domain, Protocol, Socket, Type};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::path::{Path, PathBuf};

/// Connections that the system keeps waiting.
const BACKLOG: i32 = 4096;
/// Connections accepted from one listener in one turn.
const ACCEPTS_MAX: usize = 16;
/// Connections that are being told that there is no room, at once; more wait in the backlog.
const REFUSALS_MAX: usize = 32;
/// So many descriptors must be allowed for each of them.
const REFUSAL_SHARE: u64 = 16;
/// After the system refused a descriptor, accepting waits this long.
const PAUSE_MS: u64 = 100;
/// The log says so once in this time.
const WARN_EVERY: Micros = Micros::from_millis(10_000);
/// Places beyond the limit that only the broker's own user gets, over the Unix socket.
const OWNERS_MORE: usize = 8;
/// Descriptors kept for files, listeners and the loop itself.
pub(super) const RESERVE: u64 = 32;

#[derive(Debug)]
enum Socketed {
    Tcp(TcpListener),
    Unix(UnixListener, PathBuf),
}

/// A place where programs connect.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socketed,
    /// Who connects there.
    role: Role,
    /// Whether TLS is spoken there.
    is_tls: bool,
    /// Connections may wait there.
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
        private::socket_place(path).map_err(|error| wrong(error.to_string()))?;
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

    /// Tells the loop when somebody connects.
    pub(super) fn register(&mut self, registry: &Registry, index: usize) -> io::Result<()> {
        let token = Ready::Listener(index).token();
        match &mut self.socket {
            Socketed::Tcp(socket) => registry.register(socket, token, Interest::READABLE),
            Socketed::Unix(socket, _) => registry.register(socket, token, Interest::READABLE),
        }
    }

    /// Who connects there.
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

    /// The next connection; its stream is missing if there is no TLS for it.
    fn accept(&self, secure: &Secure) -> io::Result<(Option<Stream>, Peer)> {
        match &self.socket {
            Socketed::Tcp(socket) => {
                let (stream, address) = socket.accept()?;
                // Every user of the machine can reach a loopback port. The kernel is asked whose
                // socket it is when somebody wants to be an operator: `who_is`.
                let peer = Peer::tcp(address, stream.as_raw_fd());
                if !self.is_tls {
                    return Ok((Some(Stream::Tcp(stream)), peer));
                }
                let session = secure.accept(self.role);
                Ok((session.map(|session| Stream::tls(stream, session)), peer))
            }
            Socketed::Unix(socket, _) => {
                let (stream, _) = socket.accept()?;
                let who = getsockopt(&stream.as_fd(), PeerCredentials).ok();
                let uid = who.map(|peer| peer.uid());
                let is_owner = uid.is_some_and(is_owner);
                let pid = who.and_then(|peer| u32::try_from(peer.pid()).ok());
                let peer = Peer { is_owner, pid, ..Peer::unix(uid, stream.as_raw_fd()) };
                Ok((Some(Stream::Unix(stream)), peer))
            }
        }
    }
}

/// Whether a user may use the role operator without a token: the broker's own, and root.
fn is_owner(uid: u32) -> bool {
    uid == geteuid().as_raw() || uid == 0
}

/// Whose process stands at the other end of a TCP connection, as the kernel knows it; told to the
/// engine before a login to `op`. Of another machine nothing is known.
pub(super) fn who_is(link: LinkId, stream: &Stream) -> Option<Input> {
    // Unix sockets were asked when they were accepted.
    let stream = stream.tcp()?;
    // A listener of both families shows an IPv4 peer as a mapped address.
    let (local, peer) = (canonical(stream.local_addr().ok()?), canonical(stream.peer_addr().ok()?));
    let uid = if peer.ip().is_loopback() { tcp_owner(local, peer) } else { None };
    Some(Input::Known { link, uid, is_owner: uid.is_some_and(is_owner) })
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Socketed::Unix(_, path) = &self.socket {
            let _ = fs::remove_file(path);
        }
    }
}

/// Who may come in.
#[derive(Debug, Default)]
pub(super) struct Door {
    /// The limit was reached: closed until a tenth of the places is free.
    is_full: bool,
    /// Until then nobody is accepted: the system has no descriptor left.
    pub(super) paused_until: Option<Tick>,
    /// Connections that are being told that there is no room.
    pub(super) refusals: usize,
    /// Clients that are in.
    pub(super) clients: usize,
    /// Most descriptors of this process.
    pub(super) descriptors_max: u64,
    warned_at: Option<Tick>,
}

impl Door {
    /// Whether one more can be told that there is no room.
    fn can_refuse(&self) -> bool {
        let most = usize::try_from(self.descriptors_max / REFUSAL_SHARE).unwrap_or(REFUSALS_MAX);
        self.refusals < most.clamp(1, REFUSALS_MAX)
    }

    /// Accepts nobody for a moment: the system has no descriptor left.
    fn pause(&mut self, now: Tick, role: Role, error: &io::Error) {
        self.paused_until = Some(now.plus_millis(PAUSE_MS));
        if self.warned_at.is_none_or(|at| now.since(at) >= WARN_EVERY) {
            self.warned_at = Some(now);
            tracing::warn!(
                "can't accept a {role}: {error}; trying again every {PAUSE_MS} ms; raise the \
                 descriptor limit if it lasts"
            );
        }
    }

    /// How many clients may be in.
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
    /// Somebody connected at a listener.
    pub(super) fn knock(&mut self, index: usize) {
        if let Some(listener) = self.listeners.get_mut(index) {
            listener.is_ready = true;
        }
    }

    /// Whether connections may wait that [`accept_all`](Self::accept_all) would take now.
    pub(super) fn has_waiting(&self) -> bool {
        self.shell.door.paused_until.is_none()
            && self.shell.door.can_refuse()
            && self.listeners.iter().any(|listener| listener.is_ready)
    }

    /// Accepts who waits, so many from each listener in a turn.
    pub(super) fn accept_all(&mut self) {
        if self.shell.door.paused_until.is_some_and(|until| self.shell.now < until) {
            return;
        }
        self.shell.door.paused_until = None;
        for index in 0..self.listeners.len() {
            for _ in 0..ACCEPTS_MAX {
                let door = &self.shell.door;
                if !self.listeners[index].is_ready
                    || door.paused_until.is_some()
                    || !door.can_refuse()
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
        match listener.accept(&self.shell.secure) {
            Ok((Some(stream), peer)) => self.let_in(stream, peer, role),
            // Told in the log; the connection is closed.
            Ok((None, _)) => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => listener.is_ready = false,
            // It gave up before it was accepted.
            Err(error)
                if matches!(
                    error.kind(),
                    ErrorKind::ConnectionAborted | ErrorKind::Interrupted
                ) => {}
            Err(error) => self.shell.door.pause(self.shell.now, role, &error),
        }
    }

    fn let_in(&mut self, mut stream: Stream, peer: Peer, role: Role) {
        let connections_max = self.engine.settings().get(Setting::ConnectionsMax);
        let limit = self.shell.door.limit(connections_max);
        let is_refused = match role {
            // The owner comes in over the Unix socket although clients fill the house, to clear it.
            Role::Client if peer.is_owner => self.shell.door.clients >= limit + OWNERS_MORE,
            Role::Client => self.shell.door.is_full(limit),
            Role::Worker | Role::Host | Role::Broker => {
                self.shell.links.len() as u64 + RESERVE > self.shell.door.descriptors_max
            }
        };
        let link = self.shell.links.next_id();
        let registered = stream
            .tune(self.shell.limits.silence)
            .and_then(|()| stream.register(&self.shell.registry, Ready::Link(link).token()));
        if registered.is_err() {
            // It is gone already.
            return;
        }
        let mut conn = Conn::new(stream, role);
        conn.place = peer.place;
        if is_refused {
            self.shell.door.refusals += 1;
            conn.is_refused = true;
            conn.phase = Phase::Closing { until: self.shell.now.plus_millis(1000) };
            let text =
                format!("{} clients are connected, the limit is {limit}", self.shell.door.clients);
            let frame = outbound::refusal(ErrorCode::TooManyConnections, text);
            conn.outbox.push(encode::parts(frame), &mut self.shell.pool);
            let link = self.shell.links.insert(conn);
            self.shell.watch_deadline(self.shell.now.plus_millis(1000), link);
            self.shell.flush(link);
            return;
        }
        let link = self.shell.links.insert(conn);
        let input = match role {
            Role::Worker => Input::WorkerOpened { link, peer },
            Role::Client | Role::Host | Role::Broker => {
                self.shell.door.clients += 1;
                Input::ClientOpened { link, peer }
            }
        };
        self.shell.tell(Some(link), input);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_door_closes_at_the_limit_and_opens_at_nine_tenths() {
        let mut door = Door { descriptors_max: 1024, ..Door::default() };
        assert_eq!((door.limit(0), door.limit(7), door.limit(5000)), (896, 7, 992));
        for (clients, is_full) in
            [(99, false), (100, true), (99, true), (91, true), (90, false), (99, false)]
        {
            door.clients = clients;
            assert_eq!(door.is_full(100), is_full, "{clients} clients");
        }
        door.clients = 1;
        assert!(door.is_full(1));
        door.clients = 0;
        assert!(!door.is_full(1));
        assert_eq!(Door::default().limit(0), 0);
    }
}
