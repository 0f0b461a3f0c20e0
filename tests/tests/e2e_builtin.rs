//! Built-in services with real processes: the service `health`, what it says, and who it is to the
//! broker. Also the credential that it shows, the secret of its own start.

use client::address::Address;
use client::caller::{Caller, Options};
use client::start_secret::StartSecret;
use isect_tests::proc::{Broker, await_that, program, signal_pid};
use nix::sys::signal::Signal;
use protocol::errors::ErrorCode;
use protocol::ids::{BUILTIN_IDS, WorkerId};
use protocol::names::ServiceName;

/// What `isdclient health` says and its exit status.
fn health(broker: &Broker, words: &[&str]) -> (i32, String) {
    let done = broker.isdclient(&[&["health"], words].concat(), "");
    (done.status, done.out + &done.err)
}

#[test]
fn it_says_how_the_broker_is_and_why() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 2);
    assert_eq!(health(&broker, &[]), (0, "ok\n".to_owned()));
    assert_eq!(health(&broker, &["echo"]).0, 0);
    let (code, said) = health(&broker, &["--json", "none"]);
    assert_eq!(code, 2, "{said}");
    let said: serde_json::Value = serde_json::from_str(&said).expect("an object");
    assert_eq!(said["state"], "down");
    assert_eq!(said["reasons"][0]["kind"], "unknown_service");
    // A worker that can't be started is one less, and the only one of a service is missed.
    broker.op("config service gone");
    broker.op("config worker gone localhost /nonexistent/program");
    broker.op("start gone");
    broker.await_failed(3);
    let (code, said) = health(&broker, &[]);
    assert_eq!(code, 1, "{said}");
    assert!(said.starts_with("degraded\n") && said.contains("worker_failed"), "{said}");
    assert!(said.contains("worker 3 of gone has failed: /nonexistent/program"), "{said}");
    assert_eq!(health(&broker, &["gone"]).0, 2);
    assert_eq!(health(&broker, &["echo"]).0, 0);
    broker.op("stop gone");
    assert_eq!(broker.end(), 0);
}

#[test]
fn it_comes_back_when_it_is_killed_and_is_in_no_list() {
    let mut broker = Broker::start(&[]);
    assert_eq!(health(&broker, &[]).0, 0);
    let id = BUILTIN_IDS;
    let pid = broker.worker_pid(id);
    let words = std::fs::read(format!("/proc/{pid}/cmdline")).expect("it runs");
    assert!(String::from_utf8_lossy(&words).contains("\0service\0health\0"), "{words:?}");
    assert!(!broker.op("workers").contains("health") && !broker.op("save").contains("health"));
    assert!(broker.op("workers builtin").contains("health"));
    signal_pid(pid, Signal::SIGKILL);
    let pid = broker.await_new_pid(id, pid);
    broker.await_ready(id);
    assert_eq!(health(&broker, &[]).0, 0);
    // The next broker starts it anew when it is needed.
    broker.kill();
    broker.restart();
    assert_eq!(health(&broker, &[]).0, 0);
    assert_ne!(broker.worker_pid(id), pid);
    assert_eq!(broker.end(), 0);
}

#[test]
fn it_is_permitted_below_no_allowed_directory_and_needs_no_tokens_of_its_own() {
    let folder = tempfile::tempdir().expect("a folder");
    let tokens = folder.path().join("tokens");
    let file = tokens.to_string_lossy().into_owned();
    let made = isect_tests::proc::run(
        "isectd",
        &["token", "add", "probe", "--role", "client:health", "--file", &file],
        b"",
    );
    assert_eq!(made.status, 0, "{}", made.err);
    let own = folder.path().join("own.token");
    isect_tests::proc::write_program(&own, made.out.as_bytes());
    std::fs::set_permissions(&own, std::os::unix::fs::PermissionsExt::from_mode(0o600))
        .expect("a private file");
    let allowed = folder.path().to_string_lossy().into_owned();
    let broker = Broker::start(&["--allow", &allowed, "--tokens", &file]);
    let own = own.to_string_lossy().into_owned();
    assert_eq!(health(&broker, &["--token-file", &own]), (0, "ok\n".to_owned()));
    // Whoever may configure workers gets no other use of that program.
    let isectd = program("isectd").to_string_lossy().into_owned();
    broker.op("config service mine");
    broker.op(&format!("config worker mine localhost {isectd} service"));
    broker.op("start mine");
    assert!(broker.await_failed(1).contains("not below an allowed directory"));
    broker.op("stop mine");
    assert_eq!(broker.end(), 0);
}

#[test]
fn with_none_there_is_none() {
    let broker = Broker::start(&["--with", "none"]);
    let (code, said) = health(&broker, &[]);
    assert_eq!(code, 2, "{said}");
    assert!(said.contains("service 'health' is unknown"), "{said}");
    assert!(!broker.op("services builtin").contains("health"));
    assert_eq!(broker.end(), 0);
}

/// The secret of a process, as only its own user can read it.
fn secret_of(pid: u32) -> String {
    let environment = std::fs::read(format!("/proc/{pid}/environ")).expect("our process");
    let environment = String::from_utf8_lossy(&environment).into_owned();
    let line = environment.split('\0').find_map(|line| line.strip_prefix("ISECT_WORKER_SECRET="));
    line.expect("a secret").to_owned()
}

fn log_in(
    broker: &Broker,
    at: &str,
    service: &str,
    start: (u32, &str),
) -> Result<Caller, ErrorCode> {
    let start = StartSecret::new(WorkerId(start.0), start.1.to_owned());
    let options =
        Options { start: Some(start), ..Options::new(ServiceName::new(service).expect("a name")) };
    let address = Address::parse(&broker.port(at)).expect("an address");
    Caller::login(&[address], options).map_err(|error| match error.code {
        client::error::Code::Isect(code) => code,
        client::error::Code::Application(_) | client::error::Code::Newer(_) => ErrorCode::Internal,
    })
}

#[test]
fn the_secret_of_a_start_opens_what_its_rights_say_as_long_as_it_runs() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 2);
    assert_eq!(health(&broker, &[]).0, 0);
    let id = BUILTIN_IDS;
    let pid = broker.worker_pid(id);
    let secret = secret_of(pid);
    let mut callers = Vec::new();
    for at in ["client", "client_unix"] {
        let mut caller = log_in(&broker, at, "op", (id, &secret)).expect("the right secret");
        let who = caller.call("whoami", None).expect("an answer");
        let who = String::from_utf8_lossy(&who).into_owned();
        assert!(who.contains("worker 2147483648 of health: operator:read"), "{who}");
        let error = caller.call("halt", None).expect_err("it is no operator that ends brokers");
        assert!(error.is(ErrorCode::Denied), "{error}");
        callers.push(caller);
    }
    // No other service, no other worker's, none without rights, none that is changed.
    let (of_echo, other) = (secret_of(broker.worker_pid(1)), secret_of(broker.worker_pid(2)));
    let forged = secret.replace('.', ".1");
    for (service, start, code) in [
        ("echo", (id, secret.as_str()), ErrorCode::Denied),
        ("op", (1, secret.as_str()), ErrorCode::BadToken),
        ("op", (id, of_echo.as_str()), ErrorCode::BadToken),
        ("op", (1, of_echo.as_str()), ErrorCode::Denied),
        ("op", (1, other.as_str()), ErrorCode::BadToken),
        ("op", (id, forged.as_str()), ErrorCode::BadToken),
        ("op", (id, "1.2.3"), ErrorCode::BadToken),
    ] {
        assert_eq!(log_in(&broker, "client", service, start).err(), Some(code), "{service}");
    }
    // Nothing that is logged shows it.
    let mac = secret.rsplit('.').next().expect("a MAC");
    assert!(!broker.process.log().contains(mac));
    // It ends with its process.
    signal_pid(pid, Signal::SIGKILL);
    for caller in &mut callers {
        await_that("the end of a client", || caller.call("version", None).err());
    }
    broker.await_new_pid(id, pid);
    broker.await_ready(id);
    assert_eq!(log_in(&broker, "client", "op", (id, &secret)).err(), Some(ErrorCode::BadToken));
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_flood_of_wrong_secrets_keeps_nobody_out() {
    let broker = Broker::start(&[]);
    assert_eq!(health(&broker, &[]).0, 0);
    let (id, forged) = (BUILTIN_IDS, format!("1.2.{}", "0".repeat(64)));
    let mut limited = 0;
    for _ in 0..60 {
        match log_in(&broker, "client", "op", (id, &forged)).err() {
            Some(ErrorCode::LoginLimited) => limited += 1,
            other => assert_eq!(other, Some(ErrorCode::BadToken)),
        }
    }
    assert!(limited > 20, "{limited}");
    let secret = secret_of(broker.worker_pid(id));
    assert!(log_in(&broker, "client", "op", (id, &secret)).is_ok());
    assert_eq!(health(&broker, &[]).0, 0);
    assert_eq!(broker.end(), 0);
}
