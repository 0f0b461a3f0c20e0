//! Asks the kernel which user is at the other end of a connection. For TCP it uses the kernel's
//! socket diagnostics (`NETLINK_SOCK_DIAG`, sock_diag(7)): one connection is asked for by its
//! addresses, which the kernel looks up directly, however many connections there are. Who may do
//! what is decided by the programs.

use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use protocol::peer_group::canonical;
use std::fmt::Write as _;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::AsRawFd;

/// `SOCK_DIAG_BY_FAMILY`: the type of the question and of its answer.
const BY_FAMILY: u16 = 20;
/// `NLMSG_ERROR`: the type of an answer that reports an error.
const ERROR: u16 = 2;
/// `NLM_F_REQUEST`.
const REQUEST: u16 = 1;
const TCP: u8 = 6;
/// `TCP_ESTABLISHED`. In other states a socket may have lost its owner, and the kernel shows root's
/// id.
const ESTABLISHED: u8 = 1;

/// Size of `nlmsghdr`; what follows in an answer is `inet_diag_msg`.
const HEADER: usize = 16;
/// Offset of the state in an answer.
const STATE_AT: usize = HEADER + 1;
/// Offset of the ports and addresses in an answer; they have the form of the question.
const ID_AT: usize = HEADER + 4;
/// Offset of the owner's user id in an answer.
const UID_AT: usize = HEADER + 64;

/// The user that owns the other end of a TCP connection on this machine; `None` = not known.
pub fn tcp_owner(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    // A dual-stack socket shows IPv4 addresses as mapped; the kernel finds either by the IPv4 form.
    let (local, peer) = (canonical(local), canonical(peer));
    // A sandbox may forbid the question; the same table can be read as a file.
    owner(peer, local).unwrap_or_else(|_| listed_owner(local, peer))
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

/// The user that owns the established connection from `near` to `far` on this machine; `None` =
/// there is no such connection.
///
/// # Errors
/// The kernel was built without this interface, or the process may not use it.
fn owner(near: SocketAddr, far: SocketAddr) -> Result<Option<u32>, Errno> {
    let kernel = socket(
        AddressFamily::Netlink,
        SockType::Datagram,
        SockFlag::SOCK_CLOEXEC,
        SockProtocol::NetlinkSockDiag,
    )?;
    let question = question(near, far);
    sendto(kernel.as_raw_fd(), &question, &NetlinkAddr::new(0, 0), MsgFlags::empty())?;
    // The kernel has answered by the time the question is sent.
    let mut answer = [0; 512];
    let size = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    understand(&answer[..size], near.port(), far.port())
}

/// The question for exactly this connection: a header and `inet_diag_req_v2`.
fn question(near: SocketAddr, far: SocketAddr) -> Vec<u8> {
    let family = match near.ip() {
        IpAddr::V4(_) => AddressFamily::Inet,
        IpAddr::V6(_) => AddressFamily::Inet6,
    };
    let mut id = Vec::with_capacity(48);
    id.extend_from_slice(&near.port().to_be_bytes());
    id.extend_from_slice(&far.port().to_be_bytes());
    for address in [near, far] {
        let mut bytes = [0; 16];
        match address.ip() {
            IpAddr::V4(ip) => bytes[..4].copy_from_slice(&ip.octets()),
            IpAddr::V6(ip) => bytes.copy_from_slice(&ip.octets()),
        }
        id.extend_from_slice(&bytes);
    }
    // Any interface and any cookie.
    id.extend_from_slice(&[0; 4]);
    id.extend_from_slice(&[0xff; 8]);
    let mut question = Vec::with_capacity(HEADER + 56);
    question.extend_from_slice(&(72_u32).to_ne_bytes());
    question.extend_from_slice(&BY_FAMILY.to_ne_bytes());
    question.extend_from_slice(&REQUEST.to_ne_bytes());
    // Sequence and port, then family, protocol, no extensions, padding, all states.
    question.extend_from_slice(&[0; 8]);
    question.extend_from_slice(&[family as u8, TCP, 0, 0]);
    question.extend_from_slice(&u32::MAX.to_ne_bytes());
    question.extend_from_slice(&id);
    question
}

fn understand(answer: &[u8], near: u16, far: u16) -> Result<Option<u32>, Errno> {
    let kind = answer.get(4..6).map(|bytes| u16::from_ne_bytes([bytes[0], bytes[1]]));
    let word = |at: usize| {
        let bytes = answer.get(at..at + 4)?;
        Some(u32::from_ne_bytes([bytes[0], bytes[1], bytes[2], bytes[3]]))
    };
    match kind {
        Some(BY_FAMILY) => {
            let (Some(uid), Some(ports)) = (word(UID_AT), answer.get(ID_AT..ID_AT + 4)) else {
                return Err(Errno::EPROTO);
            };
            // Without a connection the kernel finds a listener.
            let is_it = answer[STATE_AT] == ESTABLISHED
                && ports[..2] == near.to_be_bytes()
                && ports[2..] == far.to_be_bytes();
            Ok(is_it.then_some(uid))
        }
        Some(ERROR) => match Errno::from_raw(word(HEADER).map_or(0, |code| -(code as i32))) {
            // The kernel's version decides which of them; both mean that nothing was found.
            Errno::ENOENT => Ok(None),
            error => Err(error),
        },
        Some(_) | None => Err(Errno::EPROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Uid;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn the_owner_of_each_end_is_known_and_of_nothing_else() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let at = listener.local_addr().unwrap();
            let near = TcpStream::connect(at).unwrap();
            let (_far, peer) = listener.accept().unwrap();
            let me = Ok(Some(Uid::effective().as_raw()));
            assert_eq!(owner(peer, at), me, "{address}");
            assert_eq!(owner(at, peer), me, "{address}");
            let mut other = peer;
            other.set_port(if peer.port() == 1 { 2 } else { 1 });
            assert_eq!(owner(at, other), Ok(None), "a listener is no connection");
            assert_eq!(owner(other, at), Ok(None));
            drop(near);
            // Its owner closed it, the other side did not: it belongs to nobody.
            assert_eq!(owner(peer, at), Ok(None), "{address}");
        }
    }

    #[test]
    fn what_is_no_answer_is_no_owner() {
        let mut answer = vec![0_u8; HEADER + 72];
        answer[4..6].copy_from_slice(&BY_FAMILY.to_ne_bytes());
        answer[STATE_AT] = ESTABLISHED;
        answer[ID_AT..ID_AT + 4].copy_from_slice(&[0, 80, 0x1f, 0x90]);
        answer[UID_AT..UID_AT + 4].copy_from_slice(&1001_u32.to_ne_bytes());
        assert_eq!(understand(&answer, 80, 8080), Ok(Some(1001)));
        assert_eq!(understand(&answer, 8080, 80), Ok(None));
        for end in 0..UID_AT + 4 {
            assert_eq!(understand(&answer[..end], 80, 8080), Err(Errno::EPROTO), "{end} bytes");
        }
        answer[STATE_AT] = 10;
        assert_eq!(understand(&answer, 80, 8080), Ok(None));
        answer[4..6].copy_from_slice(&ERROR.to_ne_bytes());
        for (code, want) in [(-2, Ok(None)), (-1, Err(Errno::EPERM))] {
            answer[HEADER..HEADER + 4].copy_from_slice(&i32::to_ne_bytes(code));
            assert_eq!(understand(&answer, 80, 8080), want);
        }
    }

    #[test]
    fn the_owner_of_a_real_connection_is_found() {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = TcpListener::bind(address) else { continue };
            let near = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (far, peer) = listener.accept().unwrap();
            let owner = tcp_owner(far.local_addr().unwrap(), peer);
            assert_eq!(owner, Some(Uid::effective().as_raw()), "{address}");
            assert_eq!(owner, listed_owner(far.local_addr().unwrap(), peer), "{address}");
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
    }
}
