//! The socket on which brokers reach execd: binds it, reports its address, and accepts connections.
//! `peer` finds out who connects; `link` reads what comes.

use super::options::{Failure, Listen};
use super::peer;
use crate::exit::Exit;
use auth::own;
use nix::sys::socket::{AddressFamily, SockaddrLike, SockaddrStorage, getsockname};
use nix::sys::stat::{Mode, umask};
use protocol::limits::{EXECD_PORT, TLS_PREFIX};
use protocol::{HostPort, ParsedAddress, PeerGroup};
use std::fs;
use std::io::{self, ErrorKind};
use std::net::{SocketAddr, TcpListener, ToSocketAddrs};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::FileTypeExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use tracing::{error, info, warn};
use transport::setup::{self, ListenerFiles};
use transport::stream::Stream;

/// A bound socket.
#[derive(Debug)]
enum Socket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

/// The rules for who may use this execd.
#[derive(Clone, Copy, Debug)]
pub(super) struct AccessRules {
    /// Whether there is a token file: peers over TCP and other users must prove a token.
    pub(super) has_tokens: bool,
    /// Whether everybody who can connect may use it without a token.
    pub(super) is_insecure: bool,
}

/// What the kernel and the access rules say of an accepted connection.
#[derive(Debug)]
pub(super) struct Admission {
    /// Why the peer may not use this execd; `None` = it may.
    pub(super) denied: Option<String>,
    /// Whether the peer must prove a token first.
    pub(super) must_prove: bool,
    pub(super) peer_group: PeerGroup,
}

impl AccessRules {
    /// Checks a peer by what the kernel knows of it. A TCP connection of this user may be a tunnel
    /// from anywhere, so with tokens it must prove one, too.
    fn check(self, from: PeerGroup, owner: impl FnOnce() -> Option<u32>) -> Admission {
        let is_tcp = !matches!(from, PeerGroup::User(_));
        let none = Admission { denied: None, must_prove: false, peer_group: from };
        match (self.has_tokens, self.is_insecure) {
            (true, _) if is_tcp => Admission { must_prove: true, ..none },
            (true, _) => Admission { must_prove: peer::other_user(owner()).is_some(), ..none },
            (false, true) => none,
            (false, false) => Admission { denied: peer::other_user(owner()), ..none },
        }
    }
}

/// A bound socket with its rules and certificates.
#[derive(Debug)]
pub(super) struct Listener {
    socket: Socket,
    access: AccessRules,
    /// The certificates, if it speaks TLS.
    secure: Option<TlsConfig>,
    /// The socket file that this execd made; it is removed at the end.
    file: Option<PathBuf>,
    /// The address where it listens, for the ports file.
    pub(super) address: String,
}

/// Certificates: the files, and what was last read from them.
#[derive(Debug)]
struct TlsConfig {
    files: ListenerFiles,
    setup: setup::ListenerConfig,
}

impl TlsConfig {
    fn open(files: ListenerFiles) -> Result<Self, Failure> {
        let setup = files.load().map_err(|why| Failure::new(Exit::Usage, why))?;
        for warning in &setup.notes().warnings {
            warn!("{warning}");
        }
        Ok(Self { files, setup })
    }
}

impl Listener {
    /// Binds a non-blocking socket. With `files` it speaks TLS.
    pub(super) fn bind(
        listen: Listen,
        files: Option<ListenerFiles>,
        access: AccessRules,
    ) -> Result<Self, Failure> {
        let secure = files.map(TlsConfig::open).transpose()?;
        // A peer with a certificate of that CA has proved who it is, from wherever it connects.
        let is_proven = secure.as_ref().is_some_and(|secure| secure.files.client_ca.is_some());
        let access = AccessRules { is_insecure: access.is_insecure || is_proven, ..access };
        let (socket, file) = match listen {
            Listen::Tcp(address) | Listen::Tls(address) => (tcp(&address, access)?, None),
            Listen::Unix(path) => {
                let path = std::path::absolute(&path).unwrap_or(path);
                (Socket::Unix(unix(&path)?), Some(path))
            }
            Listen::Fd(fd) => (inherited(fd)?, None),
        };
        let failed = |error: io::Error| Failure::kernel("the listening socket", error);
        let address = match &socket {
            Socket::Tcp(listener) => {
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                let scheme = if secure.is_some() { TLS_PREFIX } else { "" };
                format!("{scheme}{address}")
            }
            Socket::Unix(listener) => {
                listener.set_nonblocking(true).map_err(failed)?;
                let address = listener.local_addr().map_err(failed)?;
                format!("unix:{}", address.as_pathname().unwrap_or_else(|| Path::new("")).display())
            }
        };
        Ok(Self { socket, access, secure, file, address })
    }

    /// Reads the certificates again, if there are any; returns whether there are. If a file is bad,
    /// the old ones stay. Open connections keep theirs.
    pub(super) fn reload(&mut self) -> bool {
        let Some(secure) = &mut self.secure else { return false };
        match secure.files.load() {
            Ok(setup) => {
                info!("reloaded {}", setup.notes().read.join(", "));
                for warning in &setup.notes().warnings {
                    warn!("{warning}");
                }
                secure.setup = setup;
            }
            Err(why) => error!("{why}; the old certificate stays in use"),
        }
        true
    }

    /// Accepts the next connection that waits, and checks who it is; `None` = none waits.
    pub(super) fn accept(&self) -> io::Result<Option<(Stream, Admission)>> {
        let accepted = match &self.socket {
            Socket::Tcp(listener) => {
                listener.accept().map(|(stream, at)| (stream.into(), Some(PeerGroup::of(at.ip()))))
            }
            Socket::Unix(listener) => listener.accept().map(|(stream, _)| (stream.into(), None)),
        };
        let admitted = accepted.and_then(|(stream, from): (Stream, _)| {
            stream.set_nonblocking(true)?;
            stream.tune(None)?;
            let user = || stream.peer_user();
            let from = from.unwrap_or_else(|| PeerGroup::User(user()));
            let admission = self.access.check(from, user);
            let session = self.secure.as_ref().map(|secure| secure.setup.session()).transpose();
            Ok((stream.with_tls(session.map_err(io::Error::other)?), admission))
        });
        match admitted {
            Ok(accepted) => Ok(Some(accepted)),
            // Interrupted: the connection still waits in the next turn.
            Err(error)
                if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::Interrupted) =>
            {
                Ok(None)
            }
            Err(error) => Err(error),
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match &self.socket {
            Socket::Tcp(listener) => listener.as_fd(),
            Socket::Unix(listener) => listener.as_fd(),
        }
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(file) = &self.file {
            let _ = fs::remove_file(file);
        }
    }
}

fn cannot(address: &str, error: &io::Error) -> Failure {
    let cure = match error.kind() {
        ErrorKind::AddrInUse => "; another program listens there, perhaps another execd",
        ErrorKind::PermissionDenied => "; choose a port from 1024 on, or a directory of your own",
        _ => "",
    };
    Failure::new(Exit::Listen, format!("can't listen on {address}: {error}{cure}"))
}

/// The addresses of `HOST:PORT`, resolved as brokers resolve them.
fn look_up(address: &str) -> io::Result<Vec<SocketAddr>> {
    let wrong = |why: String| io::Error::new(ErrorKind::InvalidInput, why);
    let ParsedAddress::Tcp(HostPort { host, port }) =
        ParsedAddress::parse(address).map_err(wrong)?
    else {
        return Err(wrong("is not ADDR:PORT".to_owned()));
    };
    let port = port.unwrap_or(EXECD_PORT);
    match host.ip() {
        Some(ip) => Ok(vec![SocketAddr::new(ip, port)]),
        None => Ok((host.bare().as_str(), port).to_socket_addrs()?.collect()),
    }
}

fn tcp(address: &str, access: AccessRules) -> Result<Socket, Failure> {
    let found = look_up(address).map_err(|error| cannot(address, &error))?;
    if let Some(open) = found.iter().find(|found| !found.ip().to_canonical().is_loopback())
        && !access.is_insecure
        && !access.has_tokens
    {
        return Err(Failure::new(
            Exit::Usage,
            format!(
                "listening on {open} would let every machine that reaches it start programs here; \
                 make a token for the broker ('isectd token add NAME --role host --file FILE') and \
                 say --tokens FILE, or ask for its certificate (tls:// with --tls-client-ca), or say \
                 --insecure if you trust the network"
            ),
        ));
    }
    TcpListener::bind(&found[..]).map(Socket::Tcp).map_err(|error| cannot(address, &error))
}

fn unix(path: &Path) -> Result<UnixListener, Failure> {
    let address = format!("unix:{}", path.display());
    own::check_socket_path(path).map_err(|error| cannot(&address, &error))?;
    // The file is created with its permissions, so that nobody can connect before a chmod.
    let bind = || {
        let old = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(old);
        bound
    };
    match bind() {
        Err(error) if error.kind() == ErrorKind::AddrInUse => {
            if UnixStream::connect(path).is_ok() {
                return Err(Failure::new(
                    Exit::InUse,
                    format!("another execd listens on {address}; stop it, or name another path"),
                ));
            }
            let is_socket = fs::symlink_metadata(path).is_ok_and(|m| m.file_type().is_socket());
            if !is_socket {
                return Err(Failure::new(
                    Exit::Listen,
                    format!("{} exists and is no socket; name another path", path.display()),
                ));
            }
            // A dead execd left this file.
            fs::remove_file(path).and_then(|()| bind()).map_err(|error| cannot(&address, &error))
        }
        bound => bound.map_err(|error| cannot(&address, &error)),
    }
}

fn inherited(fd: OwnedFd) -> Result<Socket, Failure> {
    let address: SockaddrStorage = getsockname(fd.as_raw_fd())
        .map_err(|error| Failure::kernel("the descriptor given to listen on", error))?;
    match address.family() {
        Some(AddressFamily::Unix) => Ok(Socket::Unix(UnixListener::from(fd))),
        Some(AddressFamily::Inet | AddressFamily::Inet6) => Ok(Socket::Tcp(TcpListener::from(fd))),
        _ => Err(Failure::new(
            Exit::Listen,
            "the descriptor given to listen on is neither a TCP nor a Unix socket",
        )),
    }
}
