//! Tests of streams over real sockets of each kind, with TLS and without: what the kernel tells of
//! the other end, bytes both ways, the end.

mod common;

use common::Authority;
use protocol::peer_group::is_this_machine;
use std::io::{ErrorKind, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;
use transport::stream::Stream;

const TIMEOUT: Duration = Duration::from_secs(20);

/// Both ends of a TCP connection to a listener at this address.
fn tcp(listen: &str, dial: &str) -> Option<(Stream, Stream)> {
    let listener = TcpListener::bind(listen).ok()?;
    let port = listener.local_addr().expect("an address").port();
    let near = TcpStream::connect((dial, port)).ok()?;
    let (far, _) = listener.accept().expect("a connection");
    Some((near.into(), far.into()))
}

fn unix() -> (Stream, Stream) {
    let (near, far) = UnixStream::pair().expect("a pair");
    (near.into(), far.into())
}

/// Every kind of socket with both ends in this process, and its name.
fn pairs() -> Vec<(&'static str, Stream, Stream)> {
    let (near, far) = unix();
    let mut pairs = vec![("unix", near, far)];
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let host = address.trim_end_matches(":0").trim_matches(['[', ']']);
        pairs.extend(tcp(address, host).map(|(near, far)| ("tcp", near, far)));
    }
    pairs
}

/// Waits for bytes; 0 = the other side has ended.
fn receive(stream: &mut Stream, bytes: &mut [u8]) -> usize {
    loop {
        match stream.receive(bytes, true) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            count => break count.expect("bytes or the end"),
        }
    }
}

#[test]
fn an_ipv4_mapped_peer_is_the_ipv4_peer() {
    let Some((near, far)) = tcp("[::]:0", "127.0.0.1") else { return };
    let peer = far.peer_address().expect("an address");
    assert_eq!(Some(peer), near.local_address());
    assert!(peer.is_ipv4() && is_this_machine(peer.ip()), "{peer}");
    assert_eq!(far.local_address(), near.peer_address());
}

#[test]
fn the_kernel_tells_who_is_at_the_other_end() {
    let me = nix::unistd::Uid::effective().as_raw();
    for (kind, near, far) in pairs() {
        assert_eq!((near.peer_user(), far.peer_user()), (Some(me), Some(me)), "{kind}");
        assert_eq!(near.is_tcp(), kind == "tcp");
        match near.credentials() {
            Ok(known) => {
                assert_eq!((known.uid, known.pid), (me, std::process::id().cast_signed()));
                assert_eq!((kind, near.peer_address()), ("unix", None));
            }
            Err(error) => assert_eq!((kind, error.kind()), ("tcp", ErrorKind::Unsupported)),
        }
    }
}

#[test]
fn bytes_and_the_end_pass_with_tls_and_without_blocking_or_not() {
    let authority = Authority::new();
    let (listener, caller) = authority.both();
    for is_tls in [false, true] {
        for (kind, near, far) in pairs() {
            let caller = is_tls.then(|| caller.session("localhost").expect("a session"));
            let listener = is_tls.then(|| listener.session().expect("a session"));
            let (mut near, mut far) = (near.with_tls(caller), far.with_tls(listener));
            assert_eq!((near.is_handshaking(), far.is_handshaking()), (is_tls, is_tls));
            // One side blocks and the other does not; a handshake never does.
            far.set_nonblocking(true).expect("non-blocking");
            near.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            for _ in 0..1_000_000 {
                if near.handshake().is_ok() & far.handshake().is_ok() {
                    break;
                }
            }
            assert!(!near.is_handshaking() && !far.is_handshaking(), "{kind}: {far:?}");
            assert_eq!(near.channel(), far.channel());
            assert_eq!(near.channel().map(|channel| channel.is_some()), Ok(is_tls));
            let mut bytes = [0; 16];
            let nothing = far.read(&mut bytes).unwrap_err();
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock);
            let nothing = near.receive(&mut bytes, false).unwrap_err();
            assert_eq!(nothing.kind(), ErrorKind::WouldBlock, "it does not wait");
            assert_eq!(far.write(b"answer").expect("written"), 6);
            far.flush().expect("flushed");
            let count = receive(&mut near, &mut bytes);
            assert_eq!(&bytes[..count], b"answer");
            assert_eq!(near.send(b"que", b"stion").expect("sent"), 8);
            near.flush().expect("flushed");
            near.shut_write();
            assert!(!near.has_unsent());
            far.set_nonblocking(false).expect("blocking");
            far.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
            let mut got = Vec::new();
            while let count @ 1.. = receive(&mut far, &mut bytes) {
                got.extend_from_slice(&bytes[..count]);
            }
            assert_eq!(got, b"question", "{kind}, {is_tls}");
        }
    }
}

#[test]
fn a_session_that_is_lent_lets_nothing_through() {
    let authority = Authority::new();
    let (listener, caller) = authority.both();
    let (near, far) = unix();
    let mut near = near.with_tls(Some(caller.session("localhost").expect("a session")));
    let mut far = far.with_tls(Some(listener.session().expect("a session")));
    assert!(far.lend().is_none(), "nothing came");
    assert_eq!(near.handshake().unwrap_err().kind(), ErrorKind::WouldBlock);
    let (mut session, bytes) = far.lend().expect("the first bytes of the handshake");
    assert!(far.is_lent() && far.is_handshaking() && far.channel().is_err());
    assert_eq!(far.read(&mut [0]).unwrap_err().kind(), ErrorKind::WouldBlock);
    assert_eq!(far.flush().unwrap_err().kind(), ErrorKind::WouldBlock);
    session.advance(&bytes);
    far.take_back(session);
    assert!(!far.is_lent() && far.has_unsent());
    far.flush().expect("flushed");
    assert_eq!(near.handshake().map_err(|error| error.kind()), Ok(()));
}
