//! Tests TLS with real processes: clients, workers, hosts, the console; which peers are refused and
//! what they are told; certificates that are replaced while the broker runs. The certificates are
//! made here.

use client::address::Address;
use client::caller::{Caller, Options, Send};
use client::error::Error;
use client::trust::Trust;
use client::worker::{Worker, WorkerOptions};
use isect_tests::certs::{Authority, Pair};
use isect_tests::proc::{Broker, Execd, TIMEOUT, await_that, is_alive, program, run};
use nix::sys::signal::Signal;
use protocol::errors::ErrorCode;
use std::io::{Read as _, Write as _};
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use tempfile::TempDir;

/// A broker whose client port speaks TLS; the library client trusts its authority.
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

/// The error of a login to `op` with these files, which must fail.
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
    stream.set_read_timeout(Some(TIMEOUT)).expect("a timeout");
    stream
}

#[test]
fn with_a_client_ca_only_clients_with_a_certificate_of_it_come_in() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (good, old) = (authority.sign("good", &["x"]), authority.sign_until("old", &["x"], 2021));
    let pair = authority.sign("broker", HERE);
    let ca = authority.ca_text();
    let mut broker = broker(&authority, &pair, &["--tls-client-ca", &ca]);
    broker.trust = Some(authority.trust_with(&good));
    broker.remember_events();
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
        broker.process.log().contains("certificate_expiring").then(|| broker.process.log())
    });
    assert!(warned.contains("expired on 2021-01-01"), "{warned}");
    let error = refusal(&broker, authority.trust());
    assert!(error.is(ErrorCode::Tls) && error.text.contains("has expired"), "{error}");
    // The certificate is replaced while the broker runs: by one for a wrong name, then for the
    // right one.
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

/// Reloads run one after another, so that each operator gets the result of its own reload, and the
/// tokens of an earlier reload never come into force after those of a later one.
#[test]
fn of_many_reloads_at_once_each_is_told_of_the_bad_certificate() {
    let authority = Authority::new();
    let pair = authority.sign("broker", HERE);
    let path = |name: &str| authority.folder().join(name).to_string_lossy().into_owned();
    let (file, out) = (path("tokens"), path("ops.token"));
    let add = ["token", "add", "ops", "--file", &file, "--out", &out, "--role", "operator:read"];
    assert_eq!(run("isectd", &add, b"").status, 0);
    let broker = broker(&authority, &pair, &["--tokens", &file]);
    let mut caller = broker.login("op");
    std::fs::write(pair.cert(), "no certificate").expect("a file");
    for _ in 0..10 {
        caller.send("reload", &Send::default()).expect("room for a command");
    }
    for _ in 0..10 {
        let reply = caller.recv(Some(TIMEOUT)).expect("an outcome");
        let error = reply.error.expect("the certificate is bad");
        assert!(error.text.contains("stays in use"), "{error}");
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_client_with_tls_at_a_plain_port_or_without_at_a_tls_port_is_told_the_cure() {
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
    // The broker answers garbage with an alert.
    let mut stream = raw(&secure);
    stream.write_all(b"GET / HTTP/1.1\r\n\r\n").expect("a write");
    let mut said = Vec::new();
    stream.read_to_end(&mut said).expect("an end");
    assert_eq!(said.first(), Some(&0x15), "{said:?}");
    await_that("the fact", || secure.process.log().contains("what came is no TLS").then_some(()));
    assert_eq!((secure.end(), plain.end()), (0, 0));
}

#[test]
fn a_handshake_that_never_ends_is_dropped_by_the_login_time() {
    let authority = Authority::new();
    let pair = authority.sign("broker", HERE);
    let broker = broker(&authority, &pair, &["--set", "login_ms=300"]);
    let mut silent = raw(&broker);
    let mut begun = raw(&broker);
    begun.write_all(&[0x16, 0x03, 0x01, 0x01, 0x00]).expect("a write");
    for stream in [&mut silent, &mut begun] {
        let mut said = Vec::new();
        // The kernel may reset the connection, because some bytes were not read.
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
fn a_slow_reader_is_dropped_and_the_others_are_served() {
    let authority = Authority::new();
    let pair = authority.sign("broker", HERE);
    let broker = broker(&authority, &pair, &["--set", "stall_ms=300"]);
    broker.with_workers("echo", "isdecho", 1);
    broker.with_workers("large", "isdpipe head -c 40000000 /dev/zero", 1);
    let mut slow = broker.login("large");
    slow.send("", &Send::default()).expect("a request");
    let mut other = broker.login("echo");
    await_that("the drop", || {
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
    // The worker ends by itself when it is asked to.
    let pid = broker.worker_pid(1);
    broker.op("stop echo");
    broker.await_page("worker 1", "worker->hostpid = 0");
    assert!(!is_alive(pid));
    assert!(!broker.process.log().contains("worker_died"), "{}", broker.process.log());
    broker.op("start echo");
    broker.await_ready(1);
    // The broker does not talk to a host of another authority, or to one without TLS.
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

/// An execd that gives its workers these variables, with one worker of the service `name`.
fn host_with(broker: &Broker, name: &str, variables: &[String]) -> Execd {
    let allow = program("isdecho").parent().expect("a folder").to_string_lossy().into_owned();
    let mut args = vec!["--allow", &allow];
    variables.iter().for_each(|variable| args.extend(["--env", variable]));
    let execd = Execd::start(&args);
    broker.op(&format!("config host {name} {}", execd.address));
    broker.op(&format!("config service {name}"));
    broker.op(&format!("config worker {name} {name} {}", program("isdecho").display()));
    broker.op(&format!("start {name}"));
    execd
}

#[test]
fn workers_show_a_certificate_where_the_broker_asks_for_one() {
    let (authority, other) = (Authority::new(), Authority::new());
    let (pair, ca) = (authority.sign("broker", HERE), authority.ca_text());
    let worker = ["--worker-listen", "tls://127.0.0.1:0", "--tls-worker-ca", &ca];
    let broker = broker(&authority, &pair, &worker);
    let show = |ca: &Authority, pair: Option<&Pair>| {
        let shown = pair.map(|pair| {
            [format!("ISECT_CERT={}", pair.cert()), format!("ISECT_KEY={}", pair.key())]
        });
        let trusts = format!("ISECT_CA={}", ca.ca_text());
        shown.into_iter().flatten().chain([trusts]).collect::<Vec<_>>()
    };
    let (good, strange) = (authority.sign("good", &["x"]), other.sign("strange", &["x"]));
    // For each case: the variables, the error of the worker, the error of the broker.
    let cases = [
        ("none", show(&authority, None), "wants a certificate", "sent no certificate"),
        ("strange", show(&authority, Some(&strange)), "does not know the CA", "not signed by a CA"),
        ("wrongca", show(&other, Some(&good)), "not signed by a CA of", "does not know the CA"),
        ("noca", Vec::new(), "needs the certificate of the CA", ""),
    ];
    let mut hosts = Vec::new();
    for (id, (name, variables, theirs, ours)) in (1..).zip(&cases) {
        hosts.push(host_with(&broker, name, variables));
        let says = |parts: &[&str]| {
            let log = broker.process.log();
            log.lines().any(|line| parts.iter().all(|part| line.contains(part))).then_some(())
        };
        // The worker's last line of stderr is in the event, and names the code of the error.
        let ended = format!("worker {id} of service '{name}' ended unexpectedly");
        await_that(theirs, || says(&[&ended, theirs, "(tls, whose: client, ran: no)"]));
        // A worker without a CA sends nothing, so the broker has no error.
        if !ours.is_empty() {
            await_that(ours, || says(&["login_refused", "on the worker port", ours]));
        }
        assert!(!broker.op(&format!("worker {id}")).contains("\"ready\""), "{name}");
        broker.op(&format!("stop {name}"));
    }
    hosts.push(host_with(&broker, "right", &show(&authority, Some(&good))));
    broker.await_ready(5);
    let body = body(100_000);
    assert!(broker.login("right").call(body.clone(), None).expect("an answer") == body);
    // A self-started worker needs a certificate as well, and gets the same error code.
    broker.op("config service self selfstart=1");
    let connect = |trust: Trust| {
        let address = Address::parse(&broker.port("worker")).expect("an address");
        let name = protocol::names::ServiceName::new("self").expect("a name");
        let own = WorkerOptions::self_started(address, name);
        Worker::connect(WorkerOptions { trust: Some(trust), ..own }).map(|_| ())
    };
    let foreign = Trust { ca: Some(authority.ca()), ..other.trust_with(&strange) };
    for trust in [authority.trust(), foreign, other.trust_with(&good), Trust::default()] {
        let error = connect(trust).expect_err("it is refused");
        assert!(error.is(ErrorCode::Tls), "{error}");
    }
    connect(authority.trust_with(&good)).expect("let in");
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_execd_reads_certificates_and_tokens_again_and_its_workers_go_on() {
    let (authority, other) = (Authority::new(), Authority::new());
    let folder = TempDir::with_prefix("isect-reload-").expect("temporary folder");
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    let (file, out, ca) = (at("tokens"), at("eu"), authority.ca_text());
    let token = |args: &[&str]| {
        let done = run("isectd", &[&["token"], args, &["--file", &file]].concat(), b"");
        assert_eq!(done.status, 0, "{}", done.err);
    };
    token(&["add", "eu", "--role", "host", "--out", &out]);
    let allow = program("isdecho").parent().expect("a folder").to_string_lossy().into_owned();
    let pair = authority.sign("host", HERE);
    let files = ["--tls-cert", pair.cert(), "--tls-key", pair.key(), "--tokens", &file];
    let execd = Execd::start_at("tls://127.0.0.1:0", &[&files[..], &["--allow", &allow]].concat());
    let args = ["--host-token", &out, "--tls-ca", &ca, "--set", "host_retry_ms=100"];
    let broker = Broker::start(&args);
    broker.remember_events();
    broker.op(&format!("config host far {}", execd.address));
    broker.op("config service echo");
    broker.op(&format!("config worker echo far {}", program("isdecho").display()));
    broker.op("start echo");
    broker.await_ready(1);
    let (pid, mut caller) = (broker.worker_pid(1), broker.login("echo"));
    let mut is_served = || assert_eq!(caller.call("x", None).expect("an answer"), "x");
    let hang_up = |said: &str| {
        let before = execd.process.log().matches(said).count();
        execd.process.signal(Signal::SIGHUP);
        await_that(said, || (execd.process.log().matches(said).count() > before).then_some(()));
    };
    // Files that can't be used change nothing.
    let mode = |mode| {
        std::fs::set_permissions(&file, PermissionsExt::from_mode(mode)).expect("a mode");
    };
    mode(0o666);
    hang_up("the tokens in force stay");
    mode(0o600);
    std::fs::copy(other.sign("new", HERE).cert(), pair.cert()).expect("a copy");
    hang_up("the old certificate stays in use");
    // A certificate of another authority: the present link keeps the old one.
    std::fs::copy(other.folder().join("new.key"), pair.key()).expect("a copy");
    hang_up("reloaded certificate");
    broker.await_page("host far", "host->state = up");
    is_served();
    // The token is removed: the link is closed at once, and the next one gets the new certificate.
    token(&["remove", "eu"]);
    hang_up("0 with the role host");
    broker.await_page("listevents 200", "bad_token");
    broker.await_page("host far", "not signed by a CA of");
    is_served();
    assert!(is_alive(pid));
    // A new token and a good certificate: the worker is adopted.
    let new = authority.sign("new", HERE);
    std::fs::copy(new.cert(), pair.cert()).expect("a copy");
    std::fs::copy(new.key(), pair.key()).expect("a copy");
    std::fs::remove_file(&out).expect("the old token");
    token(&["add", "eu", "--role", "host", "--out", &out]);
    hang_up("1 with the role host");
    broker.await_page("host far", "host->state = up");
    assert_eq!(broker.worker_pid(1), pid);
    is_served();
    assert_eq!(broker.end(), 0);
}
