//! Asks the kernel which user is at the other end of a connection. For TCP it uses the kernel's
//! socket diagnostics (`NETLINK_SOCK_DIAG`, sock_diag(7)): one connection is asked for by its
//! addresses, which the kernel looks up directly, however many connections there are. Who may do
//! what is decided by the programs.

use netlink_packet_core::{
    ErrorBuffer, NLM_F_REQUEST, NLMSG_ERROR, NetlinkBuffer, NetlinkHeader, NetlinkMessage,
    Parseable,
};
use netlink_packet_sock_diag::constants::{
    AF_INET, AF_INET6, IPPROTO_TCP, SOCK_DIAG_BY_FAMILY, TCP_ESTABLISHED,
};
use netlink_packet_sock_diag::inet::{
    ExtensionFlags, InetRequest, InetResponseHeader, SocketId, StateFlags,
};
use netlink_packet_sock_diag::message::SockDiagMessage;
use nix::errno::Errno;
use nix::sys::socket::{
    AddressFamily, MsgFlags, NetlinkAddr, SockFlag, SockProtocol, SockType, recv, sendto, socket,
};
use procfs_core::net::{TcpNetEntries, TcpState};
use procfs_core::{ExplicitSystemInfo, FromReadSI};
use protocol::peer_group::canonical;
use std::io::Read;
use std::net::SocketAddr;
use std::os::fd::AsRawFd;

/// Bytes of an answer that are read; the kernel sends about a hundred.
const ANSWER_BYTES: usize = 4096;

/// The user that owns the other end of a TCP connection on this machine; `None` = not known.
pub fn tcp_owner(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    // A dual-stack socket shows IPv4 addresses as mapped; the kernel finds either by the IPv4 form.
    let (local, peer) = (canonical(local), canonical(peer));
    // A sandbox may forbid the question; the same table can be read as a file.
    owner(peer, local).unwrap_or_else(|_| listed_owner(local, peer))
}

/// The same from the tables of all connections. An IPv4 connection is in the second one if its
/// socket is an IPv6 one.
fn listed_owner(local: SocketAddr, peer: SocketAddr) -> Option<u32> {
    let tables = ["/proc/net/tcp", "/proc/net/tcp6"];
    tables.iter().find_map(|table| find(std::fs::File::open(table).ok()?, peer, local))
}

/// Finds the row of the other end, where our address is the remote one. Only established
/// connections count: a socket that its owner has closed is shown as root's.
fn find(table: impl Read, peer: SocketAddr, local: SocketAddr) -> Option<u32> {
    let machine = ExplicitSystemInfo {
        is_little_endian: cfg!(target_endian = "little"),
        // Nothing of these is in the table.
        boot_time_secs: 0,
        ticks_per_second: 0,
        page_size: 0,
    };
    let TcpNetEntries(rows) = TcpNetEntries::from_read(table, &machine).ok()?;
    // The table has no scope of a link-local address.
    let is = |shown: SocketAddr, wanted: SocketAddr| {
        (shown.ip().to_canonical(), shown.port()) == (wanted.ip(), wanted.port())
    };
    let row = rows.iter().find(|row| {
        row.state == TcpState::Established
            && is(row.local_address, peer)
            && is(row.remote_address, local)
    });
    row.map(|row| row.uid)
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
    let mut answer = [0; ANSWER_BYTES];
    let size = recv(kernel.as_raw_fd(), &mut answer, MsgFlags::MSG_DONTWAIT)?;
    understand(&answer[..size], near.port(), far.port())
}

/// The question for exactly this connection. With `NLM_F_DUMP` it would be one for all of them.
fn question(near: SocketAddr, far: SocketAddr) -> Vec<u8> {
    let request = InetRequest {
        family: if near.is_ipv4() { AF_INET } else { AF_INET6 },
        protocol: IPPROTO_TCP,
        extensions: ExtensionFlags::empty(),
        states: StateFlags::all(),
        socket_id: SocketId {
            source_port: near.port(),
            destination_port: far.port(),
            source_address: near.ip(),
            destination_address: far.ip(),
            // Any interface and any cookie.
            interface_id: 0,
            cookie: [0xff; 8],
        },
    };
    let mut header = NetlinkHeader::default();
    header.flags = NLM_F_REQUEST;
    let mut message = NetlinkMessage::new(header, SockDiagMessage::InetRequest(request).into());
    message.finalize();
    let mut bytes = vec![0; message.buffer_len()];
    message.serialize(&mut bytes);
    bytes
}

/// Of a connection only the fixed part of the answer is read: what a newer kernel adds behind it
/// does not matter.
fn understand(answer: &[u8], near: u16, far: u16) -> Result<Option<u32>, Errno> {
    let answer = NetlinkBuffer::new_checked(answer).map_err(|_| Errno::EPROTO)?;
    match answer.message_type() {
        SOCK_DIAG_BY_FAMILY => {
            let found = InetResponseHeader::parse(answer.payload()).map_err(|_| Errno::EPROTO)?;
            let ports = (found.socket_id.source_port, found.socket_id.destination_port);
            // Without a connection the kernel finds a listener. In states other than this one a
            // socket may have lost its owner, and the kernel shows root's id.
            let is_it = found.state == TCP_ESTABLISHED && ports == (near, far);
            Ok(is_it.then_some(found.uid))
        }
        NLMSG_ERROR => {
            let error = ErrorBuffer::new_checked(answer.payload()).map_err(|_| Errno::EPROTO)?;
            match Errno::from_raw(error.code().map_or(0, |code| code.get().wrapping_neg())) {
                // The kernel's version decides which of them; both mean that nothing was found.
                Errno::ENOENT => Ok(None),
                error => Err(error),
            }
        }
        _ => Err(Errno::EPROTO),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use nix::unistd::Uid;
    use std::net::{IpAddr, TcpListener, TcpStream};

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

    /// An answer with this type, state, ports and user, or with this error number.
    fn answer(kind: u16, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(HEADER + body.len()).unwrap();
        let head = [&length.to_ne_bytes()[..], &kind.to_ne_bytes(), &[0; 10]].concat();
        [&head, body].concat()
    }

    /// Size of `nlmsghdr`.
    const HEADER: usize = 16;
    /// Offset of the user id in `inet_diag_msg`, and its size.
    const UID_AT: usize = 64;
    const MESSAGE: usize = 72;

    #[test]
    fn what_is_no_answer_is_no_owner() {
        let mut body = [0_u8; MESSAGE];
        (body[0], body[1]) = (AF_INET, TCP_ESTABLISHED);
        body[4..8].copy_from_slice(&[0, 80, 0x1f, 0x90]);
        body[UID_AT..UID_AT + 4].copy_from_slice(&1001_u32.to_ne_bytes());
        let found = answer(SOCK_DIAG_BY_FAMILY, &body);
        assert_eq!(understand(&found, 80, 8080), Ok(Some(1001)));
        assert_eq!(understand(&found, 8080, 80), Ok(None));
        let longer = answer(SOCK_DIAG_BY_FAMILY, &[&body[..], &[3, 0, 0xff]].concat());
        assert_eq!(understand(&longer, 80, 8080), Ok(Some(1001)), "what follows is left alone");
        for end in 0..found.len() {
            assert_eq!(understand(&found[..end], 80, 8080), Err(Errno::EPROTO), "{end} bytes");
        }
        for end in 0..MESSAGE {
            let part = answer(SOCK_DIAG_BY_FAMILY, &body[..end]);
            assert_eq!(understand(&part, 80, 8080), Err(Errno::EPROTO), "{end} bytes of a message");
        }
        body[1] = 10;
        assert_eq!(understand(&answer(SOCK_DIAG_BY_FAMILY, &body), 80, 8080), Ok(None));
        for (code, want) in [(-2, Ok(None)), (-1, Err(Errno::EPERM))] {
            let error = answer(NLMSG_ERROR, &i32::to_ne_bytes(code));
            assert_eq!(understand(&error, 80, 8080), want);
        }
        assert_eq!(understand(&answer(NLMSG_ERROR, &[]), 80, 8080), Err(Errno::EPROTO));
        assert_eq!(understand(&answer(3, &body), 80, 8080), Err(Errno::EPROTO), "another type");
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
            assert_eq!(find(row("01").as_bytes(), peer, local), Some(1001));
            assert_eq!(find(row("06").as_bytes(), peer, local), None);
            assert_eq!(find(row("01").as_bytes(), local, peer), None);
        }
    }
}
