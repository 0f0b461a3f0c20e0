//! Tests real processes under load: many clients, many requests on one connection, gigabytes in
//! pieces, clients that read slowly or close their connection. It asserts what must hold; `benches`
//! measures speed.

use bytes::Bytes;
use client::caller::{Caller, Send};
use isect_tests::proc::{Broker, TIMEOUT, await_that, within};
use isect_tests::wire::{self, Wire};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use std::collections::BTreeSet;
use std::time::Duration;

/// Several operators list the clients at the same time, in listings of many steps; some leave
/// before the end.
fn list_them(broker: &Broker, count: usize) {
    const OPERATORS: usize = 4;
    let list = || {
        let mut closing = broker.login("op");
        closing.send("clients", &Send::default()).expect("sent");
        drop(closing);
        let text = broker.op("clients");
        let lines: Vec<&str> = text.lines().collect();
        assert!(lines[0].trim_start().starts_with("service"), "{}", lines[0]);
        let ids: BTreeSet<&str> =
            lines[1..].iter().filter_map(|line| line.split_whitespace().nth(1)).collect();
        assert_eq!(ids.len(), lines.len() - 1, "each client stands there once");
        let echo = lines.iter().filter(|line| line.trim_start().starts_with("echo ")).count();
        assert_eq!(echo, count, "{text}");
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..OPERATORS).map(|_| scope.spawn(list)).collect();
        threads.into_iter().for_each(|thread| thread.join().expect("all right"));
    });
}

/// The body of request `index` of client `who`.
fn body(who: usize, index: usize) -> Bytes {
    let text = format!("{who}/{index} ");
    Bytes::from(text.repeat(1 + (who * 7 + index * 13) % 40))
}

#[test]
fn five_hundred_clients_get_their_own_answers() {
    const THREADS: usize = 10;
    const CLIENTS: usize = 50;
    const ROUNDS: usize = 10;
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 4);
    let ask = |thread: usize| {
        let mut callers: Vec<Caller> = (0..CLIENTS).map(|_| broker.login("echo")).collect();
        for round in 0..ROUNDS {
            for (index, caller) in callers.iter_mut().enumerate() {
                let body = body(thread * CLIENTS + index, round);
                caller.send(body, &Send::default()).expect("sent");
            }
            for (index, caller) in callers.iter_mut().enumerate() {
                let reply = caller.recv(Some(TIMEOUT)).expect("an outcome");
                assert!(reply.error.is_none(), "{:?}", reply.error);
                assert_eq!(reply.body, body(thread * CLIENTS + index, round));
            }
        }
        callers
    };
    std::thread::scope(|scope| {
        let threads: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || ask(thread))).collect();
        let callers: Vec<_> =
            threads.into_iter().flat_map(|thread| thread.join().expect("all right")).collect();
        // All clients are still attached, and the operator's, too.
        let count = (THREADS * CLIENTS) as i64;
        assert_eq!(broker.number("", "isdData.PriList"), count + 1);
        list_them(&broker, count as usize);
        drop(callers);
    });
    let total = (THREADS * CLIENTS * ROUNDS) as i64;
    assert_eq!(broker.number("", "isdData.Completed"), total);
    let served: Vec<i64> =
        (1..=4).map(|id| broker.number(&format!("worker {id}"), "worker->Transactions")).collect();
    assert_eq!(served.iter().sum::<i64>(), total);
    assert!(served.iter().all(|count| *count > 0), "{served:?}");
    broker.await_page("", "isdData.PriList          = 1\n");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_thousand_requests_under_way_on_one_connection() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 4);
    let mut caller = broker.login("echo");
    let mut expected = std::collections::BTreeMap::new();
    for index in 0..1000 {
        let body = body(index, index);
        expected.insert(caller.send(body.clone(), &Send::default()).expect("sent"), body);
    }
    for _ in 0..1000 {
        let reply = caller.recv(Some(TIMEOUT)).expect("an outcome");
        assert!(reply.error.is_none(), "{:?}", reply.error);
        assert_eq!(Some(reply.body), expected.remove(&reply.sequence));
    }
    assert!(expected.is_empty());
    assert_eq!(broker.end(), 0);
}

#[test]
fn past_the_limit_of_requests_or_of_the_queue_each_further_one_is_refused_by_itself() {
    let broker = Broker::start(&["--set", "requests_max=20"]);
    broker.op("config service few queue_max=5");
    broker.with_workers("few", "isdcrash after 1000 hang", 1);
    broker.op("pause few");
    let mut one = Wire::login(&broker.port("client"), "few");
    let mut two = Wire::login(&broker.port("client"), "few");
    for sequence in 1..=8 {
        one.ask(sequence, "x");
    }
    assert_eq!([one.error(), one.error(), one.error()], [ErrorCode::Overloaded; 3]);
    two.ask(1, "y");
    assert_eq!(two.error(), ErrorCode::Overloaded);
    broker.op("config service few queue_max=100");
    for sequence in 11..=26 {
        one.ask(sequence, "x");
    }
    assert_eq!(one.error(), ErrorCode::TooManyRequests);
    broker.op("ready few");
    let mut answered: Vec<u32> = (0..20)
        .map(|_| match one.next_frame() {
            Some(Frame::Data { head, .. }) => head.sequence,
            other => panic!("{other:?}"),
        })
        .collect();
    answered.sort_unstable();
    assert_eq!(answered, (1..=5).chain(11..=25).collect::<Vec<u32>>());
    two.ask(2, "y");
    assert_eq!(two.answer(2), "y");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_client_that_leaves_costs_its_worker_nothing_but_the_time() {
    let broker = Broker::start(&[]);
    broker.op("config service self selfstart=1");
    let mut worker = Wire::worker_login(&broker.port("worker"), "self");
    let mut closing = Wire::login(&broker.port("client"), "self");
    let mut stays = Wire::login(&broker.port("client"), "self");
    closing.ask(1, "has a worker");
    closing.ask(2, "still waits");
    let Some(Frame::Data { head, body }) = worker.next_frame() else { panic!("no request") };
    assert_eq!(body, "has a worker");
    stays.ask(1, "next");
    broker.await_page("", "isdData.Waiting          = 2\n");
    drop(closing);
    broker.await_page("", "isdData.Waiting          = 1\n");
    assert_eq!(broker.number("", "isdData.BusyWorkers"), 1, "it may finish");
    let answer = Header { transaction: head.transaction, ..Header::default() };
    worker.send(Frame::data(answer, Bytes::from_static(b"too late")));
    // The client's waiting request was removed with it; the next one is of another client.
    let Some(Frame::Data { head, body }) = worker.next_frame() else { panic!("no request") };
    assert_eq!(body, "next");
    let answer = Header { transaction: head.transaction, ..Header::default() };
    worker.send(Frame::data(answer, Bytes::from_static(b"in time")));
    assert_eq!(stays.answer(1), "in time");
    assert_eq!(broker.number("worker 1", "worker->late"), 1);
    assert_eq!(broker.end(), 0);
}

/// Sends `pieces` pieces of `size` bytes to a worker that discards them. Returns the largest size
/// of the broker, in KiB.
fn push_pieces(broker: &Broker, pieces: usize, size: usize) -> u64 {
    let mut caller = broker.login("eat");
    let piece = Bytes::from(vec![0x5a; size]);
    let more = Send { more: true, deadline: Some(Duration::from_secs(600)), ..Send::default() };
    let sequence = caller.send(piece.clone(), &more).expect("sent");
    for index in 1..pieces {
        let is_last = index + 1 == pieces;
        let send = Send { more: !is_last, conversation: Some((sequence, 0)), ..more };
        caller.send(piece.clone(), &send).expect("sent");
    }
    let reply = caller.recv(Some(Duration::from_secs(600))).expect("an outcome");
    assert!(reply.error.is_none() && reply.body.is_empty(), "{reply:?}");
    broker.peak_kib()
}

#[test]
fn two_gigabytes_in_pieces_through_one_connection_do_not_make_the_broker_grow() {
    const SIZE: usize = 1 << 20;
    let broker = Broker::start(&[]);
    broker.with_workers("eat", "isdeat", 1);
    let idle = broker.rss_kib();
    let warm = push_pieces(&broker, 64, SIZE);
    let peak = push_pieces(&broker, 2048, SIZE);
    let after = broker.rss_kib();
    let said = format!(
        "idle {idle} KiB, peak {warm} KiB after 64 MiB, {peak} KiB after 2 GiB; now {after} KiB"
    );
    println!("{said}");
    assert!(peak < idle + 32 * 1024, "{said}");
    assert!(peak < warm + 8 * 1024, "{said}");
    assert_eq!(broker.number("worker 1", "worker->toCount"), 64 + 2048);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_long_answer_in_pieces_is_held_back_for_a_slow_reader_and_others_go_on() {
    let broker = Broker::start(&["--set", "stall_ms=60000"]);
    broker.with_workers("long", "isdpipe head -c 300000000 /dev/zero", 1);
    broker.with_workers("echo", "isdecho", 1);
    let idle = broker.rss_kib();
    let mut slow = Wire::login(&broker.port("client"), "long");
    slow.ask(1, "");
    let mut others = broker.login("echo");
    let mut total = 0;
    loop {
        let Some(Frame::Data { head, body }) = slow.next_frame() else { panic!("no piece") };
        total += body.len();
        // Other clients are served between two pieces.
        assert_eq!(others.call("x", None).expect("an answer"), "x");
        if head.more == 0 {
            break;
        }
    }
    assert_eq!(total, 300_000_000);
    let peak = broker.peak_kib();
    println!("idle {idle} KiB, peak {peak} KiB");
    assert!(peak < idle + 120 * 1024, "idle {idle} KiB, peak {peak} KiB");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_reader_that_takes_nothing_is_dropped_and_others_go_on() {
    let broker = Broker::start(&["--set", "stall_ms=500"]);
    broker.remember_events();
    broker.with_workers("long", "isdpipe head -c 100000000 /dev/zero", 1);
    broker.with_workers("echo", "isdecho", 1);
    let mut deaf = Wire::login(&broker.port("client"), "long");
    deaf.ask(1, "");
    let mut others = broker.login("echo");
    let dropped = within(TIMEOUT, || {
        assert_eq!(others.call("x", None).expect("an answer"), "x");
        broker.op("listevents 1000").contains("link_closed").then_some(())
    });
    assert!(dropped.is_some(), "{}", broker.op("clients"));
    broker.await_idle(2);
    assert_eq!(broker.number("worker 1", "worker->restarts"), 0, "the worker is not to blame");
    drop(deaf);
    assert_eq!(broker.end(), 0);
}

/// More requests than the system's buffers of both directions hold.
const ASKED: u32 = 5000;

/// Sends requests of 60,000 bytes and reads no answers, until all are sent or the connection fails.
/// Returns how many were sent whole.
fn ask_and_never_read(mut deaf: Wire) -> u32 {
    for sequence in 1..=ASKED {
        let frame = Frame::data(wire::request(sequence), vec![7; 60_000].into());
        if deaf.write(&protocol::encode::to_bytes(frame)).is_err() {
            return sequence - 1;
        }
    }
    ASKED
}

#[test]
fn a_client_that_takes_no_answers_is_read_no_further_and_costs_little_memory() {
    // The outbox may hold all that it could ask for, so memory stays small only because it is not
    // read.
    let room = ["--set", "outbox_bytes_max=1000000000", "--set", "stall_ms=3000"];
    let broker = Broker::start(&room);
    broker.remember_events();
    broker.with_workers("echo", "isdecho", 2);
    let idle = broker.rss_kib();
    let mut others = broker.login("echo");
    let deaf = Wire::login(&broker.port("client"), "echo");
    let asking = move || ask_and_never_read(deaf);
    let thread = std::thread::Builder::new().spawn(asking).expect("a thread");
    let dropped = within(TIMEOUT, || {
        assert_eq!(others.call("x", None).expect("an answer"), "x");
        broker.op("listevents 1000").contains("stall_ms").then_some(())
    });
    assert!(dropped.is_some(), "{}", broker.op("listevents 1000"));
    assert!(thread.join().expect("the deaf client") < ASKED, "it was read to its end");
    // As many as may be under way on one connection wait in addition; the whole is 300 MB.
    let peak = broker.peak_kib();
    assert!(peak < idle + 128 * 1024, "idle {idle} KiB, peak {peak} KiB");
    broker.await_idle(2);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_client_that_is_read_no_further_is_missed_when_it_goes() {
    let room = ["--set", "outbox_bytes_max=1000000000", "--set", "stall_ms=3600000"];
    let broker = Broker::start(&room);
    broker.with_workers("echo", "isdecho", 2);
    let rows = || broker.op("clients").lines().count();
    let before = rows();
    let deaf = Wire::login(&broker.port("client"), "echo");
    deaf.set_write_timeout(Duration::from_secs(1));
    assert_eq!(rows(), before + 1);
    // It gives up when nothing was accepted for a second, and closes with its answers unread.
    assert!(ask_and_never_read(deaf) < ASKED, "it was read to its end");
    await_that("the broker to miss it", || (rows() == before).then_some(()));
    broker.await_idle(2);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_slow_worker_holds_back_the_client_that_sends_to_it_not_the_broker() {
    let broker = Broker::start(&[]);
    broker.op("config service self selfstart=1");
    broker.with_workers("echo", "isdecho", 1);
    let mut worker = Wire::worker_login(&broker.port("worker"), "self");
    let mut sender = Wire::login(&broker.port("client"), "self");
    let idle = broker.rss_kib();
    let sent = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let piece = Bytes::from(vec![1; 1 << 20]);
            for index in 0..200_u16 {
                let head = Header { more: u16::from(index < 199), ..wire::request(1) };
                sender.send(Frame::data(head, piece.clone()));
                sent.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            }
            assert_eq!(sender.answer(1), "done");
        });
        // The worker reads no pieces: their sender gets stuck, the broker stays small and serves
        // others.
        let mut others = broker.login("echo");
        let mut before = usize::MAX;
        await_that("a sender that is stuck", || {
            for _ in 0..200 {
                assert_eq!(others.call("x", None).expect("an answer"), "x");
            }
            let now = sent.load(std::sync::atomic::Ordering::Relaxed);
            (std::mem::replace(&mut before, now) == now && now > 0).then_some(())
        });
        assert!(before < 100, "{before} pieces left although nobody takes them");
        let now = broker.rss_kib();
        assert!(now < idle + 64 * 1024, "{now} KiB");
        let mut total = 0;
        let last = loop {
            let Some(Frame::Data { head, body }) = worker.next_frame() else { panic!("no piece") };
            total += body.len();
            if head.more == 0 {
                break head;
            }
        };
        assert_eq!(total, 200 << 20);
        let answer = Header { transaction: last.transaction, ..Header::default() };
        worker.send(Frame::data(answer, Bytes::from_static(b"done")));
    });
    assert_eq!(broker.end(), 0);
}
