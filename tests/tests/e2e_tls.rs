//! Real processes over TLS: clients, workers, hosts, the console; who is refused and what he is
//! told; certificates that are exchanged while it runs. The certificates are made here.

use client::address::Address;
use client::caller::{Caller, Options, Send};
use client::error::Error;
use client::trust::Trust;
use isect_tests::certs::{Authority, Pair};
use isect_tests::proc::{Broker, Execd, PATIENCE, await_that, is_alive, program};
use nix::sys::signal::Signal;
use protocol::errors::ErrorCode;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;

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
    let options = Options { trust: Some(trust), ..Options::new(name) };
    let login = Caller::login(&[broker.address()], options);
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

/// A raw TCP connection to the broker's client port.
fn raw(broker: &Broker) -> TcpStream {
    let place = broker.port("client");
    let stream = TcpStream::connect(place.trim_start_matches("tls://")).expect("a connection");
    stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    stream
}

#[test]
fn with_a_client_ca_only_who_shows_a_certificate_of_it_comes_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (good, old) = (authority.sign("good", &["x"]), authority.sign_until("old", &["x"], 2021));
    let pair = authority.sign("broker", HERE);
    let ca = authority.ca_text();
    let mut broker = broker(&authority, &pair, &["--tls-client-ca", &ca]);
    broker.trust = Some(authority.trust_with(&good));
    broker.op("config events 100");
    let strange = other.sign("strange", &["x"]);
    let strange = Trust { ca: Some(authority.ca()), ..other.trust_with(&strange) };
    for (trust, part, fact) in [
        (authority.trust(), "wants a certificate", "sent no certificate"),
        (strange, "does not know the CA", "not signed by a CA of"),
        (authority.trust_with(&old), "has expired", "has expired"),
    ] {
        let error = refusal(&broker, trust);
        assert!(error.is(ErrorCode::Tls) && error.text.contains(part), "{error}");
        broker.await_page("listevents 100", fact);
    }
    let named = ["--tls-ca", &ca, "--tls-cert", good.cert(), "--tls-key", good.key()];
    let done = broker.isdclient(&[&named[..], &["-c", "services"]].concat(), "");
    assert_eq!(done.status, 0, "{}", done.err);
    let done = broker.isdclient(&["--tls-ca", &ca, "-c", "services"], "");
    assert!(done.err.contains("wants a certificate"), "{}", done.err);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_certificate_that_has_expired_or_is_for_another_name_is_refused_by_the_client() {
    let authority = Authority::new();
    let broker = broker(&authority, &authority.sign_until("broker", HERE, 2021), &[]);
    let warned = await_that("the warning", || {
        broker.process.log().contains("certificate_ending").then(|| broker.process.log())
    });
    assert!(warned.contains("expired on 2021-01-01"), "{warned}");
    let error = refusal(&broker, authority.trust());
    assert!(error.is(ErrorCode::Tls) && error.text.contains("has expired"), "{error}");
    // Exchanged while it runs, then for a wrong name, then for the right one.
    for (names, part) in [(&["elsewhere"][..], "only for"), (HERE, "")] {
        authority.sign("new", names);
        for end in ["pem", "key"] {
            let at = |name: &str| authority.folder().join(format!("{name}.{end}"));
            std::fs::rename(at("new"), at("broker")).expect("a file");
        }
        let reloads = broker.process.log().matches("certificate_read").count();
        broker.process.signal(Signal::SIGHUP);
        await_that("the reload", || {
            (broker.process.log().matches("certificate_read").count() > reloads).then_some(())
        });
        if !part.is_empty() {
            let error = refusal(&broker, authority.trust());
            assert!(error.is(ErrorCode::Tls) && error.text.contains(part), "{error}");
        }
    }
    broker.op("services");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_reload_takes_good_files_keeps_the_old_for_bad_ones_and_disturbs_nobody() {
    let authority = Authority::new();
    let pair = authority.sign("broker", HERE);
    let mut broker = broker(&authority, &pair, &[]);
    broker.with_workers("echo", "isdecho", 1);
    let mut caller = broker.login("echo");
    std::fs::rename(authority.sign("next", HERE).cert(), pair.cert()).expect("a file");
    let error = broker.try_op("reload").expect_err("the key is another's");
    for part in ["is not that of certificate", "the old one stays in use"] {
        assert!(error.text.contains(part), "{error}");
    }
    assert_eq!(caller.call("x", None).expect("an answer"), "x");
    broker.op("services");
    let other = Authority::new();
    let new = other.sign("broker", HERE);
    std::fs::copy(new.key(), pair.key()).expect("a file");
    std::fs::copy(new.cert(), pair.cert()).expect("a file");
    let said = broker.op("reload");
    assert!(said.contains("valid until 2090-01-01"), "{said}");
    assert_eq!(caller.call("y", None).expect("an answer"), "y", "it keeps its certificate");
    assert!(refusal(&broker, authority.trust()).is(ErrorCode::Tls));
    broker.trust = Some(other.trust());
    broker.op("services");
    assert_eq!(broker.end(), 0);
}

#[test]
fn who_speaks_the_wrong_one_is_told_the_cure() {
    let authority = Authority::new();
    let secure = broker(&authority, &authority.sign("broker", HERE), &[]);
    let plain = Broker::start(&[]);
    let name = protocol::names::ServiceName::new("op").expect("a name");
    let at = |broker: &Broker| broker.port("client").trim_start_matches("tls://").to_owned();
    let ask = |address: String, trust| {
        let address = Address::parse(&address).expect("an address");
        let options = Options { trust: Some(trust), ..Options::new(name.clone()) };
        Caller::login(&[address], options).map(|_| ()).expect_err("it is refused")
    };
    let error = ask(at(&secure), authority.trust());
    assert!(error.is(ErrorCode::Tls) && error.text.contains("connect to tls://"), "{error}");
    let error = ask(format!("tls://{}", at(&plain)), authority.trust());
    assert!(error.is(ErrorCode::Tls) && error.text.contains("leave out 'tls://'"), "{error}");
    let error = ask(format!("tls://{}", at(&secure)), Trust::default());
    assert!(error.is(ErrorCode::Tls) && error.text.contains("ISECT_CA"), "{error}");
    for (broker, part) in [(&secure, "this port speaks TLS"), (&plain, "speaks no TLS")] {
        await_that(part, || broker.process.log().contains(part).then_some(()));
    }
    // Garbage gets an alert.
    let mut stream = raw(&secure);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("a write");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("an end");
    assert_eq!(said.first(), Some(&0x15), "{said:?}");
    await_that("the fact", || secure.process.log().contains("what came is no TLS").then_some(()));
    assert_eq!((secure.end(), plain.end()), (0, 0));
}

#[test]
fn a_handshake_that_never_ends_is_cut_by_the_login_time() {
    let authority = Authority::new();
    let pair = authority.sign("broker", HERE);
    let broker = broker(&authority, &pair, &["--set", "login_ms=300"]);
    let mut silent = raw(&broker);
    let mut begun = raw(&broker);
    begun.write_all(&[0x16, 0x03, 0x01, 0x01, 0x00]).expect("a write");
    for stream in [&mut silent, &mut begun] {
        let mut said = Vec::new();
        // The kernel may reset it, for there are bytes that nobody read.
        let _ = stream.read_to_end(&mut said);
        assert!(said.is_empty(), "{said:?}");
    }
    broker.op("services");
    assert_eq!(broker.end(), 0);
}

#[test]
fn the_limit_of_connections_is_told_over_tls_too() {
    let authority = Authority::new();
    let pair = authority.sign("broker", HERE);
    let broker = broker(&authority, &pair, &["--set", "connections_max=1"]);
    let first = broker.login("op");
    let error = refusal(&broker, authority.trust());
    assert!(error.is(ErrorCode::TooManyConnections), "{error}");
    drop(first);
    await_that("room", || broker.try_op("services").ok());
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_slow_reader_is_cut_and_the_others_are_served() {
    let authority = Authority::new();
    let pair = authority.sign("broker", HERE);
    let broker = broker(&authority, &pair, &["--set", "stall_ms=300"]);
    broker.with_workers("echo", "isdecho", 1);
    broker.with_workers("large", "isdpipe head -c 40000000 /dev/zero", 1);
    let mut slow = broker.login("large");
    slow.send("", &Send::default()).expect("a request");
    let mut other = broker.login("echo");
    await_that("the cut", || {
        assert_eq!(other.call("x", None).expect("an answer"), "x");
        broker.process.log().contains("link_closed").then_some(())
    });
    assert_eq!(broker.end(), 0);
}

#[test]
fn many_clients_at_once() {
    let authority = Authority::new();
    let broker = broker(&authority, &authority.sign("broker", HERE), &[]);
    broker.with_workers("echo", "isdecho", 2);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let broker = &broker;
            scope.spawn(move || {
                for round in 0..3 {
                    let mut caller = broker.login("echo");
                    for size in [10, 20_000, 100_000] {
                        let body = body(size + number * 7 + round);
                        assert!(caller.call(body.clone(), None).expect("an answer") == body);
                    }
                    if round == 1 {
                        caller.logout().expect("an end");
                    }
                }
            });
        }
    });
    await_that("their ends", || (broker.number("", "isdData.IdleWorkers") == 2).then_some(()));
    assert_eq!(broker.end(), 0);
}

#[test]
fn hosts_and_their_workers_come_over_tls() {
    let authority = Authority::new();
    let (pair, ca) = (authority.sign("broker", HERE), authority.ca_text());
    let worker = ["--worker-listen", "tls://127.0.0.1:0", "--tls-ca", &ca];
    let broker =
        broker(&authority, &pair, &[&worker[..], &["--set", "host_retry_ms=100"]].concat());
    let host = authority.sign("host", HERE);
    let allow = program("isdecho").parent().expect("a folder").to_string_lossy().into_owned();
    let usual = ["--tls-cert", host.cert(), "--tls-key", host.key(), "--tls-client-ca", &ca];
    let trusts = format!("ISECT_CA={ca}");
    let more = ["--allow", &allow, "--env", &trusts];
    let execd = Execd::start_at("tls://127.0.0.1:0", &[&usual[..], &more].concat());
    assert!(execd.address.starts_with("tls://"), "{}", execd.address);
    broker.op("config service echo");
    broker.op(&format!("config host far {}", execd.address));
    broker.op(&format!("config worker echo far {}", program("isdecho").display()));
    broker.op("start echo");
    let page = broker.await_ready(1);
    let line = std::fs::read(format!("/proc/{}/cmdline", broker.worker_pid(1))).expect("a line");
    assert!(String::from_utf8_lossy(&line).contains("tls://127.0.0.1"), "{page}");
    let mut caller = broker.login("echo");
    for size in [0, 64, 100_000, 3_000_000] {
        let body = body(size);
        assert!(caller.call(body.clone(), None).expect("an answer") == body, "{size} bytes");
    }
    // Asked to end, it ends by itself.
    let pid = broker.worker_pid(1);
    broker.op("stop echo");
    broker.await_page("worker 1", "worker->hostpid = 0");
    assert!(!is_alive(pid));
    assert!(!broker.process.log().contains("worker_died"), "{}", broker.process.log());
    broker.op("start echo");
    broker.await_ready(1);
    // A host of another authority, and one without TLS, are not talked to.
    let other = Authority::new();
    let strange = other.sign("host", HERE);
    let files = ["--tls-cert", strange.cert(), "--tls-key", strange.key(), "--allow", &allow];
    let strange = Execd::start_at("tls://127.0.0.1:0", &files);
    let plain = Execd::start(&["--allow", &allow]);
    broker.op(&format!("config host strange {}", strange.address));
    broker.op(&format!("config host plain tls://{}", plain.address));
    broker.op(&format!("config host bare {}", execd.address.trim_start_matches("tls://")));
    broker.await_page("host strange", "not signed by a CA of");
    broker.await_page("host plain", "no TLS is spoken at that port");
    await_that("its word", || broker.process.log().contains("this port speaks TLS").then_some(()));
    assert_eq!(broker.end(), 0);
}
