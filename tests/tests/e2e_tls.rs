//! Real processes over TLS: clients, workers, hosts, the console; who is refused and what he is
//! told; certificates that are exchanged while it runs. The certificates are made here.

use client::error::Error;
use client::trust::Trust;
use isect_tests::certs::{Authority, Pair};
use isect_tests::proc::Broker;
use protocol::errors::ErrorCode;

/// A broker whose clients come over TLS, and who trusts it.
fn broker(authority: &Authority, pair: &Pair, more: &[&str]) -> Broker {
    let usual =
        ["--listen", "tls://127.0.0.1:0", "--tls-cert", pair.cert(), "--tls-key", pair.key()];
    let mut broker = Broker::start(&[&usual, more].concat());
    broker.trust = Some(authority.trust());
    broker
}

/// The names of this machine in certificates.
const HERE: &[&str] = &["127.0.0.1", "localhost"];

fn body(size: usize) -> Vec<u8> {
    (0..size).map(|i| (i % 251) as u8 ^ (i / 251) as u8).collect()
}

#[test]
fn requests_of_every_size_go_there_and_back() {
    let authority = Authority::new();
    let broker = broker(&authority, &authority.sign("broker", HERE), &[]);
    assert!(broker.port("client").starts_with("tls://127.0.0.1:"));
    broker.with_workers("echo", "isdecho", 2);
    let mut caller = broker.login("echo");
    for size in [0, 1, 63, 64, 4096, 16_384, 16_385, 65_536, 1_000_000, 5_000_000] {
        let body = body(size);
        assert!(caller.call(body.clone(), None).expect("an answer") == body, "{size} bytes");
    }
    caller.logout().expect("an end");
    assert_eq!(broker.end(), 0);
}

/// Logs in with these files; it must fail.
fn refusal(broker: &Broker, trust: Trust) -> Error {
    let name = protocol::names::ServiceName::new("op").expect("a name");
    let options =
        client::caller::Options { trust: Some(trust), ..client::caller::Options::new(name) };
    let login = client::caller::Caller::login(&[broker.address()], options);
    login.map(|_| ()).expect_err("it is refused")
}

#[test]
fn a_broker_of_another_authority_is_not_talked_to() {
    let (authority, other) = (Authority::new(), Authority::new());
    let broker = broker(&authority, &authority.sign("broker", HERE), &[]);
    let error = refusal(&broker, other.trust());
    assert!(error.is(ErrorCode::Tls), "{error}");
    assert!(error.text.contains("not signed by a CA of"), "{error}");
    broker.op("services");
    assert_eq!(broker.end(), 0);
}
