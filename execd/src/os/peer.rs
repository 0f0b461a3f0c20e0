//! Finds out from the kernel which user is at the other end of a connection. Every user of the
//! machine can reach a loopback port, but only this user may start programs as this user. Between
//! machines this proves nothing; that needs tokens.

use super::diag;
use nix::unistd::{Uid, User};
use protocol::peer_group::canonical;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};

/// Why the owner of a connection may not use this execd; `None` = it may.
pub(super) fn other_user(uid: Option<u32>) -> Option<String> {
    let me = Uid::effective();
    match uid.map(Uid::from_raw) {
        Some(uid) if uid == me || uid.is_root() => None,
        Some(uid) => Some(format!(
            "execd runs as user {} and starts programs for that user alone, not for {}; run the \
             broker as the same user",
            name(me),
            name(uid)
        )),
        None => Some(
            "the kernel does not tell whose connection this is; use unix:PATH, or --insecure with \
             --allow"
                .into(),
        ),
    }
}

fn name(uid: Uid) -> String {
    let known = User::from_uid(uid).ok().flatten();
    known.map_or_else(|| uid.to_string(), |user| format!("{} ({uid})", user.name))
}

/// The user that owns the other end of a TCP connection on this machine; `None` = not known.
pub fn tcp_owner(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    // A dual-stack socket shows IPv4 addresses as mapped; the kernel finds either by the IPv4 form.
    let (local, peer) = (canonical(local), canonical(peer));
    // A sandbox may forbid the question; the same table can be read as a file.
    diag::owner(peer, local).unwrap_or_else(|_| listed_owner(local, peer))
}

fn listed_owner(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    let listed = |table: &str, peer, local| find(&fs::read_to_string(table).ok()?, peer, local);
    match (peer.ip(), local.ip()) {
        // An IPv6 socket is in the other table, as ::ffff:127.0.0.1.
        (IpAddr::V4(_), IpAddr::V4(_)) => listed("/proc/net/tcp", peer, local)
            .or_else(|| listed("/proc/net/tcp6", mapped(peer), mapped(local))),
        (IpAddr::V4(_) | IpAddr::V6(_), IpAddr::V4(_) | IpAddr::V6(_)) => {
            listed("/proc/net/tcp6", peer, local)
        }
    }
}

fn mapped(address: SocketAddr) -> SocketAddr {
    match address {
        SocketAddr::V4(v4) => SocketAddr::new(v4.ip().to_ipv6_mapped().into(), v4.port()),
        SocketAddr::V6(_) => address,
    }
}

/// Finds the row of the other end, where our address is the remote one. Only established
/// connections count: a socket that its owner has closed is shown as root's.
fn find(table: &str, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let (near, far) = (hex(peer), hex(local));
    table.lines().find_map(|row| {
        let mut words = row.split_ascii_whitespace().skip(1);
        let matches = words.next()? == near && words.next()? == far && words.next()? == "01";
        if matches { words.nth(3)?.parse().ok() } else { None }
    })
}

/// An address in the form of these tables: words of four bytes in the machine's byte order.
fn hex(address: SocketAddr) -> String {
    let bytes = match address.ip() {
        IpAddr::V4(ip) => ip.octets().to_vec(),
        IpAddr::V6(ip) => ip.octets().to_vec(),
    };
    let mut out = String::new();
    for word in bytes.chunks_exact(4) {
        let word = u32::from_ne_bytes([word[0], word[1], word[2], word[3]]);
        let _ = write!(out, "{word:08X}");
    }
    let _ = write!(out, ":{:04X}", address.port());
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_owner_of_a_real_connection_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, peer) = listener.accept().unwrap();
            let owner = tcp_owner(far.local_addr().unwrap(), peer);
            assert_eq!(owner, Some(Uid::effective().as_raw()), "{address}");
            assert_eq!(owner, listed_owner(far.local_addr().unwrap(), peer), "{address}");
            assert_eq!(other_user(owner), None);
            drop(near);
        }
    }

    #[test]
    fn the_owner_is_found_on_either_side_of_a_socket_for_both_versions() {
        let own = Some(Uid::effective().as_raw());
        let Ok(both) = TcpListener::bind("[::]:0") else { return };
        let port = both.local_addr().unwrap().port();
        // The client's socket is IPv4, or IPv6 with an IPv4-mapped address.
        for near in ["127.0.0.1", "::ffff:127.0.0.1"] {
            let near: IpAddr = near.parse().unwrap();
            let Ok(near) = TcpStream::connect((near, port)) else { continue };
            let (far, peer) = both.accept().unwrap();
            let local = far.local_addr().unwrap();
            assert_eq!(tcp_owner(local, peer), own, "{near:?}");
            let plain = |at: SocketAddr| SocketAddr::new(at.ip().to_canonical(), at.port());
            assert_eq!(listed_owner(plain(local), plain(peer)), own, "{near:?}");
        }
        let v4 = TcpListener::bind("127.0.0.1:0").unwrap();
        let port = v4.local_addr().unwrap().port();
        let near: IpAddr = "::ffff:127.0.0.1".parse().unwrap();
        if let Ok(near) = TcpStream::connect((near, port)) {
            let (far, peer) = v4.accept().unwrap();
            let local = far.local_addr().unwrap();
            assert_eq!((tcp_owner(local, peer), listed_owner(local, peer)), (own, own), "{near:?}");
        }
    }

    #[test]
    fn only_an_established_row_of_the_right_pair_counts() {
        let row = |state: &str| {
            let head = "  sl  local_address rem_address   st tx rx tr tm->when retrnsmt   uid";
            let queues = "00000000:00000000 00:00000000 00000000";
            format!(
                "{head}\n   1: 0100007F:1F90 0100007F:0050 {state} {queues}  1001        0 77\n"
            )
        };
        let peer: SocketAddr = "127.0.0.1:8080".parse().unwrap();
        let local: SocketAddr = "127.0.0.1:80".parse().unwrap();
        if cfg!(target_endian = "little") {
            assert_eq!(find(&row("01"), peer, local), Some(1001));
            assert_eq!(find(&row("06"), peer, local), None);
            assert_eq!(find(&row("01"), local, peer), None);
        }
        assert!(other_user(Some(4_000_000)).unwrap().contains("4000000"));
        assert!(other_user(None).unwrap().contains("--insecure"));
    }
}
