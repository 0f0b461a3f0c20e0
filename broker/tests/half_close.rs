//! Tests with a real `isectd` what becomes of clients that shut their side of the connection.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use bytes::Bytes;
use common::*;
use protocol::bodies::Login;
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::names::ServiceName;
use std::io::{ErrorKind, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::unix::net::UnixStream;
use std::time::Duration;

/// A login and two requests, as bytes.
fn login_and_ask(half_close: bool) -> Vec<u8> {
    let login = Login { half_close, ..Login::to(ServiceName::new("echo").unwrap()) };
    let ask = |sequence| {
        let head = Header { sequence, reply: 1, ..Header::default() };
        Frame::data(head, Bytes::from(vec![sequence as u8; 100]))
    };
    [Frame::Login(login), ask(1), ask(2)].map(encode::to_bytes).concat()
}

/// Milliseconds that a process has computed, in steps of ten.
fn cpu_ms(pid: u32) -> u64 {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap();
    let (_, behind_name) = stat.rsplit_once(')').unwrap();
    let number = |at| behind_name.split_whitespace().nth(at).unwrap().parse::<u64>().unwrap();
    (number(11) + number(12)) * 10
}

fn knows_a_client(op: &mut Wire<TcpStream>, sequence: &mut u32) -> bool {
    *sequence += 1;
    op.op(*sequence, "clients").contains("echo")
}

fn await_no_client(op: &mut Wire<TcpStream>) {
    let (until, mut sequence) = (deadline(), 100);
    while knows_a_client(op, &mut sequence) {
        assert!(!is_over(until), "the client is still there");
    }
}

fn answered_in_order<S: Read + Write>(
    mut client: Wire<S>,
    worker: &mut Wire<TcpStream>,
    shut: impl Fn(&S),
) {
    // All in one write, the end behind it.
    client.stream.write_all(&login_and_ask(true)).unwrap();
    shut(&client.stream);
    assert!(matches!(client.next(), Some(Frame::LoginOk(_))));
    for sequence in 1..=2 {
        assert_eq!(worker.echo(), 100);
        assert_eq!(client.answer(sequence), vec![sequence as u8; 100]);
    }
    assert_eq!(client.next(), None, "all is answered");
}

#[test]
fn what_came_whole_before_the_end_is_answered_on_every_kind_of_socket() {
    let mut broker = Broker::start(&[]);
    let mut op = tcp(&broker.client).login("op");
    op.op(1, ECHO);
    let mut worker = tcp(&broker.worker).worker_login();
    let shut = |stream: &TcpStream| stream.shutdown(Shutdown::Write).unwrap();
    answered_in_order(tcp(&broker.client), &mut worker, shut);
    let shut = |stream: &UnixStream| stream.shutdown(Shutdown::Write).unwrap();
    answered_in_order(unix(&broker.state().join("client.sock")), &mut worker, shut);
    await_no_client(&mut op);
    broker.end();
}

#[test]
fn a_client_that_shut_its_side_costs_nothing_while_its_worker_works() {
    let mut broker = Broker::start(&[]);
    let mut op = tcp(&broker.client).login("op");
    op.op(1, ECHO);
    let mut worker = tcp(&broker.worker).worker_login();
    let mut client = tcp(&broker.client);
    client.stream.write_all(&login_and_ask(true)).unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(client.next(), Some(Frame::LoginOk(_))));
    let before = cpu_ms(broker.child.id());
    client.stream.set_read_timeout(Some(Duration::from_millis(500))).unwrap();
    let read = client.stream.read(&mut [0; 10]).unwrap_err();
    assert_eq!(read.kind(), ErrorKind::WouldBlock, "it is not closed");
    let spent = cpu_ms(broker.child.id()) - before;
    assert!(spent < 200, "the broker computed for {spent} of 500 ms");
    assert!(knows_a_client(&mut op, &mut 10));
    client.stream.set_read_timeout(Some(TIMEOUT)).unwrap();
    for sequence in 1..=2 {
        worker.echo();
        client.answer(sequence);
    }
    assert_eq!(client.next(), None);
    broker.end();
}

#[test]
fn without_the_word_in_the_login_the_end_is_the_end() {
    let mut broker = Broker::start(&[]);
    let mut op = tcp(&broker.client).login("op");
    op.op(1, ECHO);
    let mut worker = tcp(&broker.worker).worker_login();
    // Inside a frame, too.
    for rest in [0, 10] {
        let mut client = tcp(&broker.client);
        client.stream.write_all(&login_and_ask(false)).unwrap();
        client.stream.write_all(&Header::default().write()[..rest]).unwrap();
        client.stream.shutdown(Shutdown::Write).unwrap();
        assert!(matches!(client.next(), Some(Frame::LoginOk(_))));
        assert_eq!(client.next(), None, "after {rest} bytes more");
        await_no_client(&mut op);
        // The first request had reached the worker.
        assert_eq!(worker.echo(), 100);
    }
    broker.end();
}

#[test]
fn a_client_that_shut_its_side_and_goes_for_good_is_gone_before_its_answer() {
    let mut broker = Broker::start(&[]);
    let mut op = tcp(&broker.client).login("op");
    op.op(1, ECHO);
    let mut worker = tcp(&broker.worker).worker_login();
    let mut client = unix(&broker.state().join("client.sock"));
    client.stream.write_all(&login_and_ask(true)).unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(client.next(), Some(Frame::LoginOk(_))));
    assert!(knows_a_client(&mut op, &mut 10));
    drop(client);
    await_no_client(&mut op);
    assert_eq!(worker.echo(), 100);

    let mut client = tcp(&broker.client);
    client.stream.write_all(&login_and_ask(true)).unwrap();
    client.stream.shutdown(Shutdown::Write).unwrap();
    assert!(matches!(client.next(), Some(Frame::LoginOk(_))));
    assert!(knows_a_client(&mut op, &mut 20));
    drop(client);
    // Over TCP that is noticed with the first answer, which is refused.
    assert_eq!(worker.echo(), 100);
    worker.echo();
    await_no_client(&mut op);
    let mut wire = tcp(&broker.client);
    wire.send(Frame::End);
    assert_eq!(wire.refusal(), ErrorCode::BadState, "the broker goes on");
    broker.end();
}
