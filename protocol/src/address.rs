//! Reads and writes addresses. One parser serves every place where an address may stand (`-h`,
//! `--listen`, `config host`, `ISECT_HOST`, a worker's arguments, scripts), and each address is
//! kept in one canonical spelling. Programs look names up, bind and connect themselves.

use crate::limits::{SOCKET_PATH_BYTES_MAX, TLS_PREFIX};
use core::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::fmt;

/// Most bytes of a host's name (RFC 1035, section 2.3.4, without the root label).
const HOST_BYTES_MAX: usize = 253;
/// Most bytes of the name of a network interface: the kernel's `IFNAMSIZ` without the end.
const ZONE_BYTES_MAX: usize = 15;

/// An address as it was understood: what kind of socket, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ParsedAddress {
    /// `unix:PATH`: the path of a Unix socket; see [`check_socket_path`] for its limit.
    Unix(String),
    /// `HOST`, `HOST:PORT`, `[IPV6]:PORT`, …: TCP without TLS.
    Tcp(HostPort),
    /// A host after `tls://`: TCP with TLS.
    Tls(HostPort),
}

/// A host, and a port if one was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HostPort {
    /// A name or an address.
    pub host: Host,
    /// The port; `None` = none was written. Only a listener may have port 0 (the kernel chooses).
    pub port: Option<u16>,
}

/// A host: a name to look up, or an address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Host {
    /// A name that the system looks up.
    Name(String),
    /// An IPv4 address, also one that was written as `::ffff:192.0.2.1`.
    V4(Ipv4Addr),
    /// An IPv6 address and its zone (`eth0` of `%eth0`), if one was written.
    V6(Ipv6Addr, Option<String>),
}

impl ParsedAddress {
    /// Reads `unix:PATH`, or `HOST`, `HOST:PORT`, `IPV6`, `[IPV6]`, `[IPV6]:PORT`, each of them
    /// also after `tls://`.
    ///
    /// # Errors
    /// The text says what is wrong, as the rest of a sentence that begins with the address.
    pub fn parse(text: &str) -> Result<Self, String> {
        if let Some(path) = text.strip_prefix("unix:") {
            return check_socket_path(path).map(|()| Self::Unix(path.to_owned()));
        }
        match text.strip_prefix(TLS_PREFIX) {
            Some(rest) if rest.starts_with("unix:") || rest.contains("://") => {
                Err("has no host after 'tls://'".into())
            }
            Some(rest) => HostPort::parse(rest).map(Self::Tls),
            None => HostPort::parse(text).map(Self::Tcp),
        }
    }

    /// The canonical spelling. An address without a port gets this one.
    #[must_use]
    pub fn complete(&self, port: u16) -> String {
        match self {
            Self::Unix(path) => format!("unix:{path}"),
            Self::Tcp(host_port) => host_port.complete(port),
            Self::Tls(host_port) => format!("{TLS_PREFIX}{}", host_port.complete(port)),
        }
    }
}

impl HostPort {
    fn parse(text: &str) -> Result<Self, String> {
        if text.chars().any(|c| c.is_whitespace() || c.is_control() || c == '/') {
            return Err("has a letter that no host name has".into());
        }
        let (host, port) = match text.strip_prefix('[') {
            Some(rest) => {
                let (host, after) = rest.split_once(']').ok_or("has '[' without ']'")?;
                let host = v6(host).ok_or("has no IPv6 address in its brackets")?;
                match after.strip_prefix(':') {
                    None if after.is_empty() => (host, None),
                    None => return Err("goes on after ']' without ':'".into()),
                    Some(port) => (host, Some(port)),
                }
            }
            None => match text.split_once(':') {
                None => (Host::parse(text)?, None),
                Some((host, port)) if !port.contains(':') => (Host::parse(host)?, Some(port)),
                Some(_) => (v6(text).ok_or("has more than one ':', and is no IPv6 address")?, None),
            },
        };
        let port = port.map(self::port).transpose()?;
        Ok(Self { host, port })
    }

    /// The canonical spelling. A host without a port gets this one.
    #[must_use]
    pub fn complete(&self, port: u16) -> String {
        format!("{}:{}", self.host, self.port.unwrap_or(port))
    }
}

impl Host {
    /// Reads a host without a port: a name, an IPv4 address, or an IPv6 address with brackets or
    /// without.
    ///
    /// # Errors
    /// The text says what is wrong, as the rest of a sentence that begins with the host.
    pub fn parse(text: &str) -> Result<Self, String> {
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
        if let Some(host) = v6(bare.unwrap_or(text)) {
            return Ok(host);
        }
        if text.is_empty() {
            return Err("has no host".into());
        }
        if let Ok(ip) = text.parse() {
            return Ok(Self::V4(ip));
        }
        let fits = |c: char| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_');
        if !text.chars().all(fits) {
            return Err("has a letter that no host name has".into());
        }
        if text.len() > HOST_BYTES_MAX {
            return Err(format!(
                "has a host of {} bytes; at most {HOST_BYTES_MAX} are allowed",
                text.len()
            ));
        }
        // `unix:PORT` would read as the path of a socket.
        if text == "unix" {
            return Err("names the kind of an address as its host".into());
        }
        // The system's look-up reads 127.1, 0x7f.1 and 5501 as addresses; other programs don't.
        let last = text.trim_end_matches('.').rsplit('.').next().unwrap_or_default();
        let hex = last.strip_prefix("0x").or_else(|| last.strip_prefix("0X"));
        let is_number = last.bytes().all(|b| b.is_ascii_digit())
            || hex.is_some_and(|digits| digits.bytes().all(|b| b.is_ascii_hexdigit()));
        if is_number {
            return Err("ends in a number, and is no IPv4 address such as 127.0.0.1".into());
        }
        Ok(Self::Name(text.to_owned()))
    }

    /// The spelling without brackets, which a look-up and a worker's arguments need.
    #[must_use]
    pub fn bare(&self) -> String {
        match self {
            Self::Name(name) => name.clone(),
            Self::V4(ip) => ip.to_string(),
            Self::V6(ip, None) => ip.to_string(),
            Self::V6(ip, Some(zone)) => format!("{ip}%{zone}"),
        }
    }

    /// The address, if it needs neither a look-up nor an interface's number. `localhost` is always
    /// 127.0.0.1, so that listeners and callers agree.
    #[must_use]
    pub fn ip(&self) -> Option<IpAddr> {
        match self {
            Self::Name(name) if name.eq_ignore_ascii_case("localhost") => {
                Some(Ipv4Addr::LOCALHOST.into())
            }
            Self::Name(_) | Self::V6(_, Some(_)) => None,
            Self::V4(ip) => Some((*ip).into()),
            Self::V6(ip, None) => Some((*ip).into()),
        }
    }
}

/// IPv6 addresses stand in brackets.
impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Name(_) | Self::V4(_) => f.write_str(&self.bare()),
            Self::V6(..) => write!(f, "[{}]", self.bare()),
        }
    }
}

/// Refuses a path that no Unix socket can have: it is empty, has a zero byte, or is longer than
/// [`SOCKET_PATH_BYTES_MAX`] bytes.
///
/// # Errors
/// The text says what is wrong, as the rest of a sentence that begins with the path.
pub fn check_socket_path(path: &str) -> Result<(), String> {
    match path.len() {
        0 => Err("has no path after 'unix:'".into()),
        _ if path.contains('\0') => Err("has a zero byte in its path".into()),
        size if size > SOCKET_PATH_BYTES_MAX => Err(format!(
            "has a path of {size} bytes, and a socket's has at most {SOCKET_PATH_BYTES_MAX}"
        )),
        _ => Ok(()),
    }
}

/// Reads an IPv6 address, perhaps with a zone. An IPv4-mapped address becomes IPv4.
fn v6(text: &str) -> Option<Host> {
    let (ip, zone) = match text.split_once('%') {
        Some((ip, zone)) => (ip, Some(zone)),
        None => (text, None),
    };
    let ip: Ipv6Addr = ip.parse().ok()?;
    let is_zone = |zone: &str| {
        !zone.is_empty()
            && zone.len() <= ZONE_BYTES_MAX
            && zone.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_'))
    };
    match (ip.to_ipv4_mapped(), zone) {
        (None, None) => Some(Host::V6(ip, None)),
        (None, Some(zone)) if is_zone(zone) => Some(Host::V6(ip, Some(zone.to_owned()))),
        (Some(ip), None) => Some(Host::V4(ip)),
        (None | Some(_), Some(_)) => None,
    }
}

fn port(text: &str) -> Result<u16, String> {
    let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
    let port = if is_number { text.parse().ok() } else { None };
    port.ok_or_else(|| no_port(text))
}

/// The error text for port 0 where somebody is to be reached.
#[must_use]
pub fn no_port(text: &str) -> String {
    let shown: String = text.chars().take(16).flat_map(char::escape_debug).collect();
    format!("has port '{shown}', which is no port from 1 to 65535")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_address_has_one_spelling() {
        for (given, kept) in [
            ("h", "h:7"),
            ("h:1", "h:1"),
            ("a-b_c.example:65535", "a-b_c.example:65535"),
            ("192.0.2.1", "192.0.2.1:7"),
            ("::1", "[::1]:7"),
            ("[::1]", "[::1]:7"),
            ("[::1]:0", "[::1]:0"),
            ("2001:DB8:0:0::1", "[2001:db8::1]:7"),
            ("[2001:db8::0001]:5501", "[2001:db8::1]:5501"),
            ("::ffff:127.0.0.1", "127.0.0.1:7"),
            ("[::ffff:7f00:1]:9", "127.0.0.1:9"),
            ("fe80::1%eth0", "[fe80::1%eth0]:7"),
            ("[fe80::1%2]:9", "[fe80::1%2]:9"),
            ("::", "[::]:7"),
            ("tls://h", "tls://h:7"),
            ("tls://2001:db8::7", "tls://[2001:db8::7]:7"),
            ("tls://[2001:db8::7]:9", "tls://[2001:db8::7]:9"),
            ("unix:/run/x", "unix:/run/x"),
            ("unix:x", "unix:x"),
        ] {
            let address = ParsedAddress::parse(given).unwrap_or_else(|why| panic!("{given} {why}"));
            assert_eq!(address.complete(7), kept, "{given}");
            assert_eq!(ParsedAddress::parse(kept).unwrap().complete(1), kept, "{given}");
        }
    }

    #[test]
    fn what_is_no_address_is_said() {
        for (given, part) in [
            ("", "no host"),
            (":5501", "no host"),
            ("5501", "ends in a number"),
            ("127.1", "ends in a number"),
            ("0", "ends in a number"),
            ("0x7f.1", "ends in a number"),
            ("a.0x1f", "ends in a number"),
            ("127.0.0.01:1", "ends in a number"),
            ("256.0.0.1", "ends in a number"),
            ("a:", "port ''"),
            ("a:+1", "no port"),
            ("a:65536", "no port"),
            ("a:b", "no port"),
            ("a:1:2", "more than one ':'"),
            ("a b", "no host name has"),
            ("a\n", "no host name has"),
            ("é", "no host name has"),
            ("http://a", "no host name has"),
            ("[::1", "without ']'"),
            ("[a]:1", "no IPv6 address"),
            ("[]:1", "no IPv6 address"),
            ("[127.0.0.1]:1", "no IPv6 address"),
            ("[::1%]:1", "no IPv6 address"),
            ("[fe80::1%a b]", "no host name has"),
            ("[fe80::1%abcdefghijklmnop]", "no IPv6 address"),
            ("[::1]7", "goes on after ']'"),
            ("unix:", "no path"),
            ("unix:a\0b", "zero byte"),
            ("unix", "kind of an address"),
            ("tls://", "no host"),
            ("tls://unix:/x", "no host after 'tls://'"),
            ("tls://tls://a", "no host after 'tls://'"),
        ] {
            let why = ParsedAddress::parse(given).expect_err(given);
            assert!(why.contains(part), "{given:?}: {why}");
        }
        let path = format!("unix:/{}", "p".repeat(SOCKET_PATH_BYTES_MAX - 1));
        assert!(ParsedAddress::parse(&path).is_ok());
        assert!(ParsedAddress::parse(&format!("{path}p")).unwrap_err().contains("108 bytes"));
        assert!(ParsedAddress::parse(&"h".repeat(HOST_BYTES_MAX)).is_ok());
        assert!(
            ParsedAddress::parse(&"h".repeat(HOST_BYTES_MAX + 1))
                .unwrap_err()
                .contains("254 bytes")
        );
    }

    #[test]
    fn an_address_that_is_known_needs_no_look_up() {
        let ip = |text: &str| Host::parse(text).unwrap().ip().map(|ip| ip.to_string());
        assert_eq!(ip("localhost").as_deref(), Some("127.0.0.1"));
        assert_eq!(ip("LOCALHOST").as_deref(), Some("127.0.0.1"));
        assert_eq!(ip("[::ffff:10.0.0.1]").as_deref(), Some("10.0.0.1"));
        assert_eq!(ip("::1").as_deref(), Some("::1"));
        assert_eq!((ip("fe80::1%lo"), ip("h")), (None, None));
    }
}
