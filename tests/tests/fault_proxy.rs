//! Tests that the fault-injecting proxy does what it is told and never repeats, reorders or invents
//! a byte.

use isect_tests::fault::clock::Clock;
use isect_tests::fault::proxy::{CloseBy, ConnFault, Impairment, Kind, Proxy};
use isect_tests::proc::{TIMEOUT, await_that};
use isect_tests::sim::rng::Rng;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::time::Duration;

/// A connection through a proxy: the side that connected, the side of the target, the proxy.
fn through(seed: u64) -> (TcpStream, TcpStream, Proxy) {
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = target.local_addr().expect("an address");
    let proxy = Proxy::start(address, Clock::start(), seed);
    let near = TcpStream::connect(proxy.address).expect("connected");
    let (far, _) = target.accept().expect("accepted");
    for stream in [&near, &far] {
        stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
        stream.set_write_timeout(Some(TIMEOUT)).expect("a timeout");
    }
    await_that("the connection", || (proxy.live() == 1).then_some(()));
    (near, far, proxy)
}

/// Bytes in which no two stretches are alike.
fn stream_of(seed: u64, size: usize) -> Vec<u8> {
    let mut rng = Rng::new(seed);
    (0..size.div_ceil(8)).flat_map(|_| rng.bits().to_be_bytes()).take(size).collect()
}

/// Reads until the end or a reset. Returns the bytes, and the error if it was a reset.
fn all(mut stream: &TcpStream) -> (Vec<u8>, Option<ErrorKind>) {
    let (mut got, mut bytes) = (Vec::new(), [0; 4096]);
    loop {
        match stream.read(&mut bytes) {
            Ok(0) => return (got, None),
            Ok(count) => got.extend_from_slice(&bytes[..count]),
            Err(error) => return (got, Some(error.kind())),
        }
    }
}

#[test]
fn bytes_arrive_as_they_were_sent_whatever_impairment_does_not_close() {
    let slow = |delay, piece, rate| Impairment {
        delay: Duration::from_millis(delay),
        piece,
        rate,
        ..Impairment::default()
    };
    let stall =
        Impairment { stall_at: Some((777, Some(Duration::from_millis(80)))), ..slow(0, 0, 0) };
    let impairments =
        [slow(0, 0, 0), slow(30, 0, 0), slow(0, 1, 0), slow(5, 7, 0), slow(0, 0, 90_000), stall];
    for (at, impairment) in impairments.into_iter().enumerate() {
        let (near, far, proxy) = through(at as u64);
        proxy.inject(0, ConnFault::Impair(impairment));
        let sent = [stream_of(1, 40_000), stream_of(2, 40_000)];
        std::thread::scope(|scope| {
            for (mut stream, bytes) in [(&near, &sent[0]), (&far, &sent[1])] {
                scope.spawn(move || {
                    stream.write_all(bytes).expect("sent");
                    stream.shutdown(Shutdown::Write).expect("shut");
                });
            }
            let up = scope.spawn(|| all(&far));
            assert_eq!(all(&near), (sent[1].clone(), None), "{impairment:?}");
            assert_eq!(up.join().expect("no panic"), (sent[0].clone(), None), "{impairment:?}");
        });
        await_that("the end of the connection", || (proxy.live() == 0).then_some(()));
    }
}

#[test]
fn a_close_comes_after_exactly_so_many_bytes() {
    for (at, how) in [
        (0, CloseBy::Fin),
        (1, CloseBy::Rst),
        (63, CloseBy::Fin),
        (64, CloseBy::Rst),
        (999, CloseBy::Fin),
    ] {
        let (mut near, far, proxy) = through(at);
        proxy.inject(
            0,
            ConnFault::Impair(Impairment { close_at: Some((at, how)), ..Impairment::default() }),
        );
        let sent = stream_of(at, 1000);
        near.write_all(&sent).expect("sent");
        let (got, end) = all(&far);
        let size = usize::try_from(at).expect("small");
        match how {
            CloseBy::Fin => assert_eq!((got.as_slice(), end), (&sent[..size], None)),
            // A reset may overtake bytes that were sent before it.
            CloseBy::Rst => {
                assert!(sent[..size].starts_with(&got), "{got:?}");
                assert_eq!(end, Some(ErrorKind::ConnectionReset));
            }
        }
        let kind = if how == CloseBy::Fin { Kind::Closed } else { Kind::Reset };
        assert!(proxy.incidents().iter().any(|incident| incident.kind == kind));
        assert!(matches!(all(&near).1, None | Some(ErrorKind::ConnectionReset)));
    }
}

#[test]
fn a_half_open_connection_drops_everything_and_closes_nothing() {
    let (mut near, mut far, proxy) = through(1);
    near.write_all(b"before").expect("sent");
    let mut got = [0; 6];
    far.read_exact(&mut got).expect("it comes");
    proxy.inject(0, ConnFault::HalfOpen);
    await_that("the incident", || (!proxy.incidents().is_empty()).then_some(()));
    for _ in 0..100 {
        near.write_all(&[7; 65_536]).expect("the proxy takes it all");
    }
    near.shutdown(Shutdown::Write).expect("shut");
    far.set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
    assert_eq!(all(&far), (Vec::new(), Some(ErrorKind::WouldBlock)));
    proxy.heal();
    far.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    assert_eq!(all(&far), (Vec::new(), Some(ErrorKind::ConnectionReset)));
    assert_eq!(proxy.incidents()[0].kind, Kind::HalfOpen);
    await_that("its end", || (proxy.incidents()[0].until != u64::MAX).then_some(()));
}

#[test]
fn a_stalled_direction_stands_still_while_the_other_one_moves() {
    let (mut near, mut far, proxy) = through(1);
    proxy.inject(0, ConnFault::Stall(true, None));
    await_that("the incident", || (!proxy.incidents().is_empty()).then_some(()));
    near.write_all(b"up").expect("sent");
    far.write_all(b"down").expect("sent");
    let mut got = [0; 4];
    near.read_exact(&mut got).expect("it comes");
    assert_eq!(&got, b"down");
    far.set_read_timeout(Some(Duration::from_millis(200))).expect("a timeout");
    assert_eq!(all(&far).1, Some(ErrorKind::WouldBlock));
}

#[test]
fn a_target_that_is_not_there_is_a_reset() {
    let target = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = target.local_addr().expect("an address");
    drop(target);
    let proxy = Proxy::start(address, Clock::start(), 1);
    let near = TcpStream::connect(proxy.address).expect("connected");
    near.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    assert_eq!(all(&near), (Vec::new(), Some(ErrorKind::ConnectionReset)));
}
