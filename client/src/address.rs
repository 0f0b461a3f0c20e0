//! The address of a broker: `host:port`, `tls://host:port` or the path of a Unix socket; and the
//! default addresses. `conn` makes the connection.

use crate::error::Error;
use protocol::address::{Host, HostPort, ParsedAddress, no_port};
use protocol::errors::ErrorCode;
use protocol::limits::{CLIENT_PORT, HOST_VARIABLE, TLS_PREFIX};
use std::ffi::OsString;
use std::fmt;
use std::path::PathBuf;

/// The address of a broker.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Address {
    /// `host:port`; an IPv6 address stands in brackets.
    Tcp(String),
    /// `host:port`, reached over TLS.
    Tls(String),
    /// The path of a Unix socket.
    Unix(PathBuf),
}

impl Address {
    /// Parses `host`, `host:port`, `::1`, `[::1]`, `[::1]:port`, any of them after `tls://`, or
    /// `unix:PATH`. The default port is 5501.
    ///
    /// # Errors
    /// The text is not an address; the error says why.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            let shown: String = text.chars().take(120).flat_map(char::escape_debug).collect();
            Error::new(
                ErrorCode::Usage,
                format!(
                    "address '{shown}' {why}; it is HOST, HOST:PORT, tls://HOST:PORT or unix:PATH"
                ),
            )
        };
        let address = ParsedAddress::parse(text).map_err(|why| wrong(&why))?;
        match address {
            ParsedAddress::Unix(path) => Ok(Self::Unix(path.into())),
            ParsedAddress::Tcp(HostPort { port: Some(0), .. })
            | ParsedAddress::Tls(HostPort { port: Some(0), .. }) => Err(wrong(&no_port("0"))),
            ParsedAddress::Tcp(host_port) => Ok(Self::Tcp(host_port.complete(CLIENT_PORT))),
            ParsedAddress::Tls(host_port) => Ok(Self::Tls(host_port.complete(CLIENT_PORT))),
        }
    }

    /// The addresses to try if the program names none: `ISECT_HOST` if that is set; else the Unix
    /// socket in the user's state directory, if it exists, then the client port of this machine.
    ///
    /// # Errors
    /// `ISECT_HOST` is not an address.
    pub fn defaults() -> Result<Vec<Self>, Error> {
        if let Some(host) = variable(HOST_VARIABLE) {
            // A value that is not UTF-8 is not an address, and must not make the program go
            // elsewhere.
            let address =
                Self::parse(&host.to_string_lossy()).map_err(|e| e.with_context(HOST_VARIABLE))?;
            return Ok(vec![address]);
        }
        let mut found = Vec::new();
        if let Some(socket) = state_dir().map(|dir| dir.join("client.sock"))
            && socket.exists()
        {
            found.push(Self::Unix(socket));
        }
        found.push(Self::Tcp(format!("127.0.0.1:{CLIENT_PORT}")));
        Ok(found)
    }

    /// The broker's address from the arguments of a worker: a host or `unix:PATH`, and a port.
    ///
    /// # Errors
    /// One of them is not valid; the error says why.
    pub fn of_worker(host: &str, port: &str) -> Result<Self, Error> {
        if host.starts_with("unix:") {
            return Self::parse(host);
        }
        let (scheme, host) = match host.strip_prefix(TLS_PREFIX) {
            Some(host) => (TLS_PREFIX, host),
            None => ("", host),
        };
        // The host is parsed alone, so that the port is not taken for a part of an IPv6 address.
        match Host::parse(host) {
            Ok(host) => Self::parse(&format!("{scheme}{host}:{port}")),
            Err(_) => Self::parse(&format!("{scheme}{host}")).and_then(|_| {
                Err(Error::new(ErrorCode::Usage, format!("host '{host}' has a port of its own")))
            }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(host) => f.pad(host),
            Self::Tls(host) => write!(f, "{TLS_PREFIX}{host}"),
            Self::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The user's state directory of isect: `$XDG_STATE_HOME/isect`, else `~/.local/state/isect`;
/// `None` = the environment names neither.
pub fn state_dir() -> Option<PathBuf> {
    variable("XDG_STATE_HOME")
        .map(PathBuf::from)
        .filter(|dir| dir.is_absolute())
        .or_else(|| variable("HOME").map(|home| PathBuf::from(home).join(".local/state")))
        .map(|dir| dir.join("isect"))
}

fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use protocol::limits::SOCKET_PATH_BYTES_MAX;

    #[test]
    fn addresses_are_read_and_shown_in_one_spelling() {
        for (given, shown) in [
            ("localhost", "localhost:5501"),
            ("db-7.example:9", "db-7.example:9"),
            ("127.0.0.1:65535", "127.0.0.1:65535"),
            ("[::1]", "[::1]:5501"),
            ("[::1]:77", "[::1]:77"),
            ("::1", "[::1]:5501"),
            ("unix:/run/isect/client.sock", "unix:/run/isect/client.sock"),
            ("tls://b.example", "tls://b.example:5501"),
            ("tls://::1", "tls://[::1]:5501"),
            ("tls://127.0.0.1:7", "tls://127.0.0.1:7"),
        ] {
            let address = Address::parse(given).unwrap();
            assert_eq!(address.to_string(), shown);
            assert_eq!(Address::parse(shown).unwrap(), address);
        }
    }

    #[test]
    fn bad_addresses_say_what_is_wrong() {
        for (given, part) in [
            ("", "no host"),
            (":5501", "no host"),
            ("a:0", "no port from 1 to 65535"),
            ("a:65536", "no port from 1 to 65535"),
            ("a:b", "no port from 1 to 65535"),
            ("a:1:2", "more than one ':'"),
            ("a b", "no host name has"),
            ("http://a", "no host name has"),
            ("[::1", "without ']'"),
            ("[zz]:1", "no IPv6 address"),
            ("[::1]7", "goes on after ']'"),
            ("unix:", "no path"),
            ("unix", "kind of an address"),
            ("tls://", "no host"),
            ("tls://unix:/x", "no host after 'tls://'"),
            ("tls://tls://a", "no host after 'tls://'"),
        ] {
            let error = Address::parse(given).unwrap_err();
            assert!(error.is(ErrorCode::Usage) && error.text.contains(part), "{given:?}: {error}");
        }
        let long = format!("unix:/{}", "p".repeat(SOCKET_PATH_BYTES_MAX - 1));
        assert!(Address::parse(&long).is_ok());
        let error = Address::parse(&format!("{long}p")).unwrap_err();
        assert!(error.text.contains("108 bytes, and a socket's has at most 107"), "{error}");
    }

    #[test]
    fn a_workers_arguments_name_its_broker() {
        let shown = |host, port| Address::of_worker(host, port).unwrap().to_string();
        assert_eq!(shown("localhost", "12417"), "localhost:12417");
        assert_eq!(shown("::1", "1"), "[::1]:1");
        assert_eq!(shown("[::1]", "1"), "[::1]:1");
        assert_eq!(shown("unix:/tmp/w", "0"), "unix:/tmp/w");
        assert_eq!(shown("tls://h", "7"), "tls://h:7");
        assert_eq!(shown("tls://2001:db8::7", "7"), "tls://[2001:db8::7]:7");
        assert!(Address::of_worker("localhost", "0").is_err());
        assert!(Address::of_worker("localhost", "x").is_err());
    }
}
