//! Tests the reactor with a real `isectd`: requests of every size and kind of socket, garbage,
//! limits, slow readers. Scripts test what the engine decides.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use bytes::{Bytes, BytesMut};
use common::*;
use protocol::bodies::Login;
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::names::ServiceName;
use std::io::{Read, Write};
use std::time::Duration;

#[test]
fn requests_of_every_size_pass_through_on_every_kind_of_socket() {
    let mut broker = Broker::start(&[]);
    let mut op = unix(&broker.state().join("client.sock")).login("op");
    op.op(1, ECHO);
    let mut worker = tcp(&broker.worker).worker_login();
    let mut other = unix(&broker.state().join("worker.sock")).worker_login();
    let mut client = tcp(&broker.client).login("echo");
    for (sequence, size) in [0, 1, 4095, 4096, 4097, 16_383, 16_384, 300_000, 2_000_000]
        .into_iter()
        .flat_map(|size| [size, size])
        .enumerate()
    {
        let body: Vec<u8> = (0..size).map(|i: usize| (i % 241) as u8).collect();
        let (even, odd) = (sequence % 2 == 0, sequence as u32 + 1);
        std::thread::scope(|scope| {
            let sender = scope.spawn(|| {
                client.ask(odd, body.clone());
                client.answer(odd)
            });
            // Two workers, longest idle first: they take turns.
            let taken = if even { worker.echo() } else { other.echo() };
            assert_eq!(taken, size);
            assert!(sender.join().unwrap() == body, "a body of {size} bytes came back whole");
        });
    }
    broker.end();
}

#[test]
fn garbage_gets_an_error_and_a_close_and_disturbs_nobody() {
    let mut broker = Broker::start(&[]);
    let mut op = tcp(&broker.client).login("op");
    for address in [&broker.client, &broker.worker] {
        let mut wire = tcp(address);
        wire.stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n").unwrap();
        wire.stream.write_all(&[b'x'; 200]).unwrap();
        assert_eq!(wire.refusal(), ErrorCode::Version);
        let mut wire = tcp(address);
        wire.send(Frame::End);
        assert_eq!(wire.refusal(), ErrorCode::BadState);
    }
    let mut wire = tcp(&broker.client);
    let head = Header { len: 70_000, ..Header::default() };
    wire.stream.write_all(&head.write()).unwrap();
    assert_eq!(wire.refusal(), ErrorCode::BadState, "a large frame before the login");
    // Ended in the middle of a header.
    let mut wire = tcp(&broker.client);
    wire.stream.write_all(&[0; 10]).unwrap();
    drop(wire);
    assert!(!op.op(1, "version").is_empty());
    broker.end();
}

#[test]
fn a_body_past_the_limit_is_skipped_and_the_link_goes_on() {
    let mut broker = Broker::start(&["--set", "body_bytes_max=100000"]);
    tcp(&broker.client).login("op").op(1, ECHO);
    let mut worker = tcp(&broker.worker).worker_login();
    let mut client = tcp(&broker.client).login("echo");
    client.ask(1, vec![7; 100_001]);
    match client.next() {
        Some(Frame::Error { head, error }) => {
            assert_eq!((head.sequence, error.code), (1, ErrorCode::BodyTooLarge));
        }
        other => panic!("{other:?}"),
    }
    client.ask(2, vec![7; 100_000]);
    assert_eq!(worker.echo(), 100_000);
    assert_eq!(client.answer(2).len(), 100_000);
    broker.end();
}

#[test]
fn past_the_limit_of_connections_the_next_one_is_told_so() {
    let mut broker = Broker::start(&["--set", "connections_max=3"]);
    let held: Vec<_> = (0..3).map(|_| tcp(&broker.client).login("op")).collect();
    for _ in 0..3 {
        assert_eq!(tcp(&broker.client).refusal(), ErrorCode::TooManyConnections);
    }
    drop(held);
    let until = deadline();
    loop {
        let mut wire = tcp(&broker.client);
        wire.send(Frame::Login(Login::to(ServiceName::new("op").unwrap())));
        match wire.next() {
            Some(Frame::LoginOk(_)) => break,
            other => assert!(!is_over(until), "still {other:?}"),
        }
    }
    broker.end();
}

#[test]
fn a_slow_reader_is_closed_and_others_go_on() {
    let words = ["--set", "stall_ms=300", "--set", "outbox_bytes_max=65536"];
    let mut broker = Broker::start(&[&words[..], &["--set", "body_bytes_max=1000000"]].concat());
    let mut op = tcp(&broker.client).login("op");
    op.op(1, ECHO);
    let mut worker = tcp(&broker.worker).worker_login();
    let mut slow = tcp(&broker.client).login("echo");
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for sequence in 1..=30 {
                let head = Header { sequence, reply: 1, ..Header::default() };
                let bytes = encode::to_bytes(Frame::data(head, Bytes::from(vec![1; 900_000])));
                // It may be closed while it sends: it does not read its answers.
                if slow.stream.write_all(&bytes).is_err() {
                    break;
                }
            }
        });
        let until = deadline();
        let mut sequence = 1;
        loop {
            worker.stream.set_read_timeout(Some(Duration::from_millis(20))).unwrap();
            let mut bytes = [0; 65536];
            if let Ok(count) = worker.stream.read(&mut bytes) {
                worker.inbox.push(&bytes[..count]);
            }
            worker.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
            while let Some(frame) = worker.inbox.next_frame().unwrap() {
                match frame {
                    Frame::Data { head, body } => worker.send(Frame::data(head, body)),
                    Frame::Ping { sequence } => worker.send(Frame::Pong { sequence }),
                    other => panic!("{other:?}"),
                }
            }
            sequence += 1;
            let clients = op.op(sequence, "clients");
            if !clients.contains("echo") {
                break;
            }
            assert!(!is_over(until), "the slow reader is still there: {clients}");
        }
    });
    broker.end();
}

#[test]
fn thousands_of_small_requests_on_one_connection_come_back_in_order() {
    let mut broker = Broker::start(&["--set", "requests_max=20000"]);
    tcp(&broker.client).login("op").op(1, ECHO);
    let mut worker = tcp(&broker.worker).worker_login();
    let mut client = tcp(&broker.client).login("echo");
    const COUNT: u32 = 5000;
    std::thread::scope(|scope| {
        scope.spawn(|| (0..COUNT).for_each(|_| assert!(worker.echo() <= 8)));
        let mut all = BytesMut::new();
        for sequence in 1..=COUNT {
            let head = Header { sequence, reply: 1, ..Header::default() };
            encode::append(Frame::data(head, Bytes::from(format!("{sequence}"))), &mut all);
        }
        // In pieces that split frames anywhere.
        for piece in all.chunks(4999) {
            client.stream.write_all(piece).unwrap();
        }
        for sequence in 1..=COUNT {
            assert_eq!(client.answer(sequence), format!("{sequence}"));
        }
    });
    broker.end();
}
