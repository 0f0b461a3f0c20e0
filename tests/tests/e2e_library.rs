//! Tests the library's callers and workers with a real broker, over every kind of socket: a side
//! that is shut, requests that are given up or want no answer, several requests at a time, and
//! workers that end by themselves.

use client::address::Address;
use client::caller::{Caller, Options, Send};
use client::worker::{ConcurrentWorker, OwnedRequest, WorkerOptions, serve_concurrently};
use isect_tests::certs::Authority;
use isect_tests::proc::{Broker, TIMEOUT, await_that};
use protocol::errors::ErrorCode;
use protocol::names::ServiceName;
use std::thread;

/// The names of this machine in certificates.
const HERE: &[&str] = &["127.0.0.1", "localhost"];
const SIZES: [usize; 6] = [0, 1, 4096, 65_536, 1_000_000, 3_000_000];

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).expect("a service name")
}

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8 ^ (i / 251) as u8).collect()
}

/// A broker without TLS, and one with it on both ports, and what its peers trust.
fn brokers() -> Vec<(Broker, Authority)> {
    let authority = Authority::new();
    let plain = Broker::start(&[]);
    let pair = authority.sign("broker", HERE);
    let files = ["--tls-cert", pair.cert(), "--tls-key", pair.key()];
    let listen = ["--listen", "tls://127.0.0.1:0", "--worker-listen", "tls://127.0.0.1:0"];
    let mut tls = Broker::start(&[&listen[..], &files].concat());
    tls.trust = Some(authority.trust());
    vec![(plain, Authority::new()), (tls, authority)]
}

fn serve(
    broker: &Broker,
    authority: &Authority,
    concurrency: u32,
    answer: impl Fn(OwnedRequest) + Sync + std::marker::Send + 'static,
) -> thread::JoinHandle<()> {
    let address = Address::parse(&broker.port("worker")).expect("an address");
    let own = WorkerOptions::self_started(address, name("echo"));
    let options = WorkerOptions { trust: Some(authority.trust()), concurrency, ..own };
    let worker = ConcurrentWorker::connect(options).expect("a login");
    thread::Builder::new()
        .spawn(move || {
            // The broker's end is the end of the test.
            let _ = serve_concurrently(worker, answer);
        })
        .expect("a thread")
}

fn echo(mut request: OwnedRequest) {
    let body = request.take_body();
    request.reply(body);
}

#[test]
fn a_side_that_is_shut_gets_its_answers_and_the_broker_closes_behind_them() {
    for (broker, _) in brokers() {
        broker.with_workers("echo", "isdecho", 2);
        let options =
            Options { half_close: true, trust: broker.trust.clone(), ..Options::new(name("echo")) };
        let mut caller = Caller::login(&[broker.address()], options).expect("a login");
        for size in SIZES {
            caller.send(body(size), &Send::default()).expect("sent");
        }
        caller.finish_sending().expect("shut");
        let mut sizes = Vec::new();
        while caller.under_way() > 0 {
            let reply = caller.recv(Some(TIMEOUT)).expect("a reply");
            assert!(reply.error.is_none() && reply.body == body(reply.body.len()));
            sizes.push(reply.body.len());
        }
        sizes.sort_unstable();
        assert_eq!(sizes, SIZES);
        await_that("no client is left", || (!broker.op("clients").contains("echo")).then_some(()));
        caller.logout().expect("an end");
        assert_eq!(broker.end(), 0);
    }
}

#[test]
fn a_worker_answers_several_requests_at_a_time_whole() {
    for (broker, authority) in brokers() {
        broker.op("config service echo selfstart=1");
        let worker = serve(&broker, &authority, 4, echo);
        let mut caller = broker.login("echo");
        for _ in 0..20 {
            let mut sent: Vec<(u32, usize)> = SIZES
                .iter()
                .map(|size| (caller.send(body(*size), &Send::default()).expect("sent"), *size))
                .collect();
            while let Some((sequence, size)) = sent.pop() {
                let reply = caller.recv_from(sequence, Some(TIMEOUT)).expect("a reply");
                assert!(reply.error.is_none() && reply.body == body(size), "{size} bytes");
            }
        }
        caller.logout().expect("an end");
        assert_eq!(broker.end(), 0);
        worker.join().expect("the worker ends");
    }
}

#[test]
fn requests_run_beside_each_other_and_one_that_is_given_up_frees_its_place() {
    let (broker, authority) = brokers().remove(0);
    broker.op("config service echo selfstart=1");
    // It holds all requests until they are given up.
    let worker = serve(&broker, &authority, 3, |mut request| {
        request.reply_piece("begun");
        while request.next_piece().is_some() {}
        assert!(request.over().is_some_and(|why| why.is(ErrorCode::Cancelled)));
    });
    let mut caller = broker.login("echo");
    let sent: Vec<u32> =
        (0..3).map(|_| caller.send("x", &Send::default()).expect("sent")).collect();
    for sequence in &sent {
        let reply = caller.recv_from(*sequence, Some(TIMEOUT)).expect("a reply");
        assert_eq!((reply.more, &reply.body[..]), (true, &b"begun"[..]));
    }
    for sequence in sent {
        caller.cancel(sequence).expect("told");
        let reply = caller.recv_from(sequence, Some(TIMEOUT)).expect("an outcome");
        assert!(reply.error.is_some_and(|error| error.is(ErrorCode::Cancelled)));
    }
    let again = caller.send("x", &Send::default()).expect("sent");
    assert_eq!(caller.recv_from(again, Some(TIMEOUT)).expect("a reply").body, "begun");
    drop(caller);
    assert_eq!(broker.end(), 0);
    worker.join().expect("the worker ends");
}

#[test]
fn a_logout_waits_until_requests_without_an_answer_were_taken() {
    let (broker, _) = brokers().remove(0);
    broker.with_workers("echo", "isdecho", 1);
    let mut caller = broker.login("echo");
    let one_way = Send { reply: false, ..Send::default() };
    for _ in 0..50 {
        caller.send("x", &one_way).expect("sent");
    }
    assert_eq!(caller.logout().expect("all were taken"), 0);
    await_that("all were answered", || {
        (broker.number("", "isdData.IdleWorkers") == 1).then_some(())
    });
    let mut caller = broker.login("echo");
    caller.send("x", &one_way).expect("sent");
    assert_eq!(caller.flush(Some(TIMEOUT)).expect("taken"), 0);
    assert_eq!(broker.end(), 0);
}

#[test]
fn workers_that_end_after_some_requests_are_started_again_and_lose_none() {
    let (broker, _) = brokers().remove(0);
    broker.remember_events();
    for how in ["end 3", "concurrency 4 end 5"] {
        let (service, word) = match how {
            "end 3" => ("one", how),
            _ => ("several", how),
        };
        broker.with_workers(service, &format!("isdecho {word}"), 2);
        let mut caller = broker.login(service);
        let mut left = 200;
        for _ in 0..20 {
            for _ in 0..10 {
                caller
                    .send("x", &Send { deadline: Some(TIMEOUT), ..Send::default() })
                    .expect("sent");
            }
            while caller.under_way() > 0 {
                let reply = caller.recv(Some(TIMEOUT)).expect("a reply");
                assert!(reply.error.is_none(), "{how}: {:?}", reply.error);
                left -= 1;
            }
        }
        assert_eq!(left, 0);
    }
    assert!(!broker.op("listevents 1000").contains("worker_died"));
    assert_eq!(broker.end(), 0);
}
