//! Connects to the execd of a host without blocking, with a time limit, and starts the built-in
//! execd when nobody answers at its socket. The engine decides when to dial again.

use super::conn::{Conn, Phase, register};
use super::io::Io;
use super::links::Ready;
use crate::engine::input::{Expected, Input};
use mio::net::{TcpStream, UnixStream};
use protocol::limits::{EXECD_PORT, TLS_PREFIX};
use protocol::peer_group::is_this_machine;
use protocol::{HostName, LinkId, ParsedAddress, Role, Tick};
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use transport::stream::Stream;

/// Time limit of a dial.
pub(super) const DIAL_MS: u64 = 2000;
/// Time between two dials to the built-in execd while it starts.
const LOCAL_EVERY_MS: u64 = 5;

/// A TCP connection that mio has made.
pub(super) fn tcp(stream: TcpStream) -> Stream {
    std::net::TcpStream::from(OwnedFd::from(stream)).into()
}

/// A connection to a Unix socket that mio has made.
pub(super) fn unix(stream: UnixStream) -> Stream {
    std::os::unix::net::UnixStream::from(OwnedFd::from(stream)).into()
}

/// A dial to the built-in execd, to be tried again.
#[derive(Clone, Debug)]
pub(super) struct Redial {
    host: HostName,
    /// The next dial begins at this tick.
    pub(super) at: Tick,
    until: Tick,
}

impl Io {
    /// Begins to connect to a host's execd; `HostOpened` or `HostRefused` follows.
    pub(super) fn dial(&mut self, host: HostName, address: String) {
        if self.built_in_execd.as_ref().is_some_and(|execd| execd.options.address == address) {
            self.dial_local(host, self.now.plus_millis(DIAL_MS));
        } else if let Some(path) = address.strip_prefix("unix:") {
            let connected = UnixStream::connect(path).map(unix);
            self.dialled(host, connected.map_err(|e| format!("{address}: {e}")), None);
        } else if let Some(at) = numeric(&address) {
            self.dial_tcp(host, at, &address);
        } else {
            self.helpers.resolve(host, address);
        }
    }

    /// Begins to connect to an address that is known; `text` is how the operator wrote it.
    pub(super) fn dial_tcp(&mut self, host: HostName, address: SocketAddr, text: &str) {
        let session =
            match text.strip_prefix(TLS_PREFIX).map(|rest| self.tls_config.dial(name(rest))) {
                None => None,
                Some(Ok(session)) => Some(session),
                Some(Err(why)) => return self.refused(host, why),
            };
        let connecting = TcpStream::connect(address).and_then(|stream| {
            let stream = tcp(stream).with_tls(session);
            let token = Ready::Link(self.links.next_id()).token();
            register(&stream, &self.registry, token).map(|()| stream)
        });
        match connecting {
            Ok(stream) => {
                let until = self.now.plus_millis(DIAL_MS);
                let is_remote = !is_this_machine(address.ip());
                let mut conn = Conn::new(stream, Role::Host, is_remote);
                conn.phase = Phase::Dialling { host, until };
                let link = self.links.insert(conn);
                self.watch_deadline(until, link);
            }
            Err(error) => self.refused(host, format!("{address}: {error}")),
        }
    }

    fn dial_local(&mut self, host: HostName, until: Tick) {
        let Some(execd) = &mut self.built_in_execd else { return };
        let path = execd.options.address.strip_prefix("unix:").unwrap_or_default();
        match UnixStream::connect(path).map(unix) {
            Ok(stream) => match execd.check_peer(&stream) {
                Ok(must) => self.dialled(host, Ok(stream), must),
                Err(why) => self.refused(host, why),
            },
            Err(error) if self.now >= until => {
                let why = format!("the built-in execd does not answer at {path}: {error}");
                self.refused(host, why);
            }
            Err(error) => {
                let is_gone =
                    matches!(error.kind(), ErrorKind::NotFound | ErrorKind::ConnectionRefused);
                match if is_gone { execd.start(self.now) } else { Ok(()) } {
                    Ok(()) => {
                        let at = self.now.plus_millis(LOCAL_EVERY_MS);
                        self.redials.push(Redial { host, at, until });
                    }
                    Err(error) => {
                        self.refused(host, format!("the built-in execd can't be started: {error}"));
                    }
                }
            }
        }
    }

    /// Tries the built-in execd again, if it is time.
    pub(super) fn redial(&mut self) {
        let now = self.now;
        let due: Vec<Redial> = self.redials.extract_if(.., |redial| redial.at <= now).collect();
        for Redial { host, until, .. } in due {
            self.dial_local(host, until);
        }
    }

    /// Checks a dialling socket that became ready. Returns the input for the engine, which must
    /// come before the inputs of received frames; the connection may have ended already.
    pub(super) fn dial_ready(&mut self, link: LinkId) -> Option<Input> {
        let conn = self.links.get(link)?;
        let Phase::Dialling { host, .. } = &conn.phase else { return None };
        let host = host.clone();
        let failed = match conn.stream.take_error() {
            Ok(None) if !conn.stream.is_connected() => return None,
            Ok(None) => {
                if let Err(error) = conn.stream.tune(conn.is_remote.then_some(self.limits.silence))
                {
                    tracing::debug!("host {host}: {error}");
                }
                match conn.stream.handshake() {
                    Ok(()) => return self.opened(link, host, None),
                    Err(error) if error.kind() == ErrorKind::WouldBlock => return None,
                    Err(error) => error,
                }
            }
            Ok(Some(error)) | Err(error) => error,
        };
        self.drop_link(link);
        self.refused(host, failed.to_string());
        None
    }

    fn dialled(
        &mut self,
        host: HostName,
        connected: Result<Stream, String>,
        must: Option<Box<Expected>>,
    ) {
        let link = self.links.next_id();
        let registered = connected.and_then(|stream| {
            let token = Ready::Link(link).token();
            let registered: io::Result<()> = register(&stream, &self.registry, token);
            registered.map(|()| stream).map_err(|e| e.to_string())
        });
        match registered {
            Ok(stream) => {
                self.links.insert(Conn::new(stream, Role::Host, false));
                if let Some(opened) = self.opened(link, host, must) {
                    self.tell(Some(link), opened);
                }
            }
            Err(why) => self.refused(host, why),
        }
    }

    fn opened(
        &mut self,
        link: LinkId,
        host: HostName,
        must: Option<Box<Expected>>,
    ) -> Option<Input> {
        let conn = self.links.get(link)?;
        conn.phase = Phase::Open;
        conn.reader.is_known = true;
        let fd = conn.stream.as_fd().as_raw_fd();
        self.dials_done += 1;
        Some(Input::HostOpened { link, host, fd, must })
    }

    /// Tells the engine that a host can't be reached.
    pub(super) fn refused(&mut self, host: HostName, why: String) {
        self.dials_done += 1;
        self.tell(None, Input::HostRefused { host, why });
    }
}

/// The host part of `HOST:PORT`; its certificate must name it.
fn name(address: &str) -> &str {
    address.rsplit_once(':').map_or(address, |(host, _)| host)
}

/// Parses a numeric address, which needs no look-up.
fn numeric(address: &str) -> Option<SocketAddr> {
    match ParsedAddress::parse(address).ok()? {
        ParsedAddress::Tcp(host_port) | ParsedAddress::Tls(host_port) => {
            Some(SocketAddr::new(host_port.host.ip()?, host_port.port.unwrap_or(EXECD_PORT)))
        }
        ParsedAddress::Unix(_) => None,
    }
}
