//! Tests tokens with real processes: clients, operators, workers and hosts over TCP, another user
//! of the machine, files that are not private, changes while the broker runs; and that no secret is
//! printed anywhere.

use client::address::Address;
use client::caller::{Caller, Options};
use client::error::Error;
use client::token::Token;
use client::worker::{Worker, WorkerOptions};
use isect_tests::other_user::{self, OTHER_USER};
use isect_tests::proc::{Broker, Execd, TIMEOUT, await_that, program, run};
use nix::sys::signal::Signal;
use nix::unistd::Uid;
use protocol::bodies::{ExecListed, ExecWelcome};
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::names::ServiceName;
use std::io::Write as _;
use std::net::TcpListener;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Output;
use tempfile::TempDir;

/// A folder with a token file and the tokens that were made.
struct Tokens {
    folder: TempDir,
}

impl Tokens {
    fn new() -> Self {
        Self { folder: TempDir::with_prefix("isect-tokens-").expect("temporary folder") }
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).to_string_lossy().into_owned()
    }

    fn file(&self) -> String {
        self.path("tokens")
    }

    /// Makes a token, as an operator does. Returns the file that it is in.
    fn add(&self, name: &str, roles: &[&str]) -> PathBuf {
        let (file, out) = (self.file(), self.path(&format!("{name}.token")));
        let mut args = vec!["token", "add", name, "--file", &file, "--out", &out];
        roles.iter().for_each(|role| args.extend(["--role", role]));
        let done = run("isectd", &args, b"");
        assert_eq!(done.status, 0, "{}", done.err);
        out.into()
    }

    fn remove(&self, name: &str) {
        let done = run("isectd", &["token", "remove", name, "--file", &self.file()], b"");
        assert_eq!(done.status, 0, "{}", done.err);
    }

    fn broker(&self) -> Broker {
        Broker::start(&["--tokens", &self.file()])
    }
}

fn service(name: &str) -> ServiceName {
    ServiceName::new(name).expect("a name")
}

fn login(broker: &Broker, token: &Path, name: &str) -> Result<Caller, Error> {
    let token = Some(Token::from_file(token).expect("a token"));
    Caller::login(&[broker.address()], Options { token, ..Options::new(service(name)) })
}

/// Runs `isdclient` with this token. Returns its status and output.
fn client(broker: &Broker, token: &Path, args: &[&str]) -> (i32, String) {
    let token = token.to_string_lossy();
    let done = broker.isdclient(&[&["--token-file", &*token], args].concat(), "");
    (done.status, done.out + &done.err)
}

/// The part of a token that must be printed nowhere.
fn secret(token: &Path) -> String {
    let text = std::fs::read_to_string(token).expect("a token file");
    text.trim().rsplit('.').next().expect("a secret").to_owned()
}

/// Adds everything readable below a folder.
fn texts(folder: &Path, into: &mut Vec<(PathBuf, String)>) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        let path = entry.path();
        if path.is_dir() {
            texts(&path, into);
        } else if path.is_file() {
            let bytes = std::fs::read(&path).unwrap_or_default();
            into.push((path, String::from_utf8_lossy(&bytes).into_owned()));
        }
    }
}

#[test]
fn each_token_may_what_its_roles_say_and_its_secret_stands_nowhere() {
    let tokens = Tokens::new();
    let ops = tokens.add("ops", &["operator:danger"]);
    let look = tokens.add("look", &["operator:read"]);
    let shop = tokens.add("shop", &["client:echo"]);
    let broker = tokens.broker();
    broker.with_workers("echo", "isdecho", 1);
    broker.op("config service sum");
    broker.remember_events();
    let (status, text) = client(&broker, &ops, &["-c", "config service print"]);
    assert!(status == 0 && text.contains("configured"), "{text}");
    let (status, text) = client(&broker, &look, &["-c", "whoami", "-c", "services"]);
    assert!(status == 0 && text.contains("token look: operator:read"), "{text}");
    let (status, text) = client(&broker, &look, &["-c", "halt"]);
    assert!(status == 1 && text.contains("needs the role operator:danger"), "{text}");
    assert_eq!(client(&broker, &shop, &["-c", "hello", "echo"]), (0, "hello".into()));
    for (token, asked) in [(&shop, "sum"), (&shop, "op"), (&look, "echo"), (&ops, "echo")] {
        let (status, text) = client(&broker, token, &["-c", "services", asked]);
        assert!(status == 1 && text.contains("denied"), "{asked}: {text}");
    }
    let mut wrong = std::fs::read_to_string(&ops).expect("a token");
    wrong.replace_range(4..5, if &wrong[4..5] == "0" { "1" } else { "0" });
    let forged = tokens.folder.path().join("forged");
    std::fs::copy(&ops, &forged).expect("a copy");
    std::fs::write(&forged, wrong).expect("a file");
    let (status, text) = client(&broker, &forged, &["-c", "services"]);
    assert!(status == 1 && text.contains("bad_token") && text.contains("token add"), "{text}");
    // Events say who did what, and from where.
    let events = broker.op("listevents");
    for part in ["config service print", "token ops", "halt: 'halt' needs", "the proof is wrong"] {
        let named = events.contains(part) || part.starts_with("config");
        assert!(named && events.contains("127.0.0.1:"), "{part} in\n{events}");
    }
    let processes = broker.processes();
    let mut found = vec![(PathBuf::from("listevents"), events)];
    texts(broker.folder.path(), &mut found);
    for pid in processes {
        let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        found.push((format!("argv of {pid}").into(), String::from_utf8_lossy(&line).into()));
    }
    let file = std::fs::read_to_string(tokens.file()).expect("the token file");
    found.push((tokens.file().into(), file));
    assert!(found.len() > 5, "{found:?}");
    for token in [&ops, &look, &shop, &forged] {
        let secret = secret(token);
        let at = found.iter().find(|(_, text)| text.contains(&secret));
        assert!(at.is_none(), "a secret stands in {:?}", at.map(|(path, _)| path));
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn tokens_change_while_the_broker_runs() {
    let tokens = Tokens::new();
    let one = tokens.add("one", &["client:*"]);
    let two = tokens.add("two", &["client:*"]);
    let broker = tokens.broker();
    broker.with_workers("echo", "isdecho", 1);
    let mut gone = login(&broker, &one, "echo").expect("let in");
    let mut stays = login(&broker, &two, "echo").expect("let in");
    assert_eq!(gone.call("a", Some(TIMEOUT)).expect("an answer"), "a");
    tokens.remove("one");
    let three = tokens.add("three", &["client:echo"]);
    assert_eq!(gone.call("b", Some(TIMEOUT)).expect("not before a reload"), "b");
    assert!(broker.op("reload").contains("2 tokens"));
    let error = gone.call("c", Some(TIMEOUT)).expect_err("its token is gone");
    assert!(error.is(ErrorCode::BadToken) && error.text.contains("removed"), "{error}");
    assert_eq!(stays.call("d", Some(TIMEOUT)).expect("an answer"), "d");
    assert!(login(&broker, &one, "echo").expect_err("gone").is(ErrorCode::BadToken));
    assert!(login(&broker, &three, "echo").is_ok());
    // A token file that others can write to is not used.
    let mode = |mode| {
        std::fs::set_permissions(tokens.file(), PermissionsExt::from_mode(mode)).expect("a mode");
    };
    tokens.remove("two");
    mode(0o666);
    let error = broker.try_op("reload").expect_err("not private");
    assert!(error.text.contains("chmod 600") && error.text.contains("stay"), "{error}");
    assert_eq!(stays.call("e", Some(TIMEOUT)).expect("an answer"), "e");
    mode(0o600);
    broker.process.signal(Signal::SIGHUP);
    let error = await_that("the reload", || stays.call("f", Some(TIMEOUT)).err());
    assert!(error.is(ErrorCode::BadToken) || error.is(ErrorCode::BrokerLost), "{error}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_that_starts_itself_needs_a_token_and_one_with_a_secret_does_not() {
    let tokens = Tokens::new();
    let gpu = tokens.add("gpu", &["worker:echo"]);
    let shop = tokens.add("shop", &["client:echo"]);
    let broker = tokens.broker();
    broker.op("config service echo selfstart=1");
    let worker = |token: &Path| {
        let address = Address::parse(&broker.port("worker")).expect("an address");
        let token = Some(Token::from_file(token).expect("a token"));
        let base = WorkerOptions::self_started(address, service("echo"));
        Worker::connect(WorkerOptions { token, ..base })
    };
    let error = worker(&shop).expect_err("no worker's token");
    assert!(error.is(ErrorCode::Denied) && error.text.contains("worker:echo"), "{error}");
    let mut own = worker(&gpu).expect("let in");
    let caller = std::thread::scope(|scope| {
        let asked = scope.spawn(|| {
            let mut caller = login(&broker, &shop, "echo").expect("let in");
            caller.call("hi", Some(TIMEOUT)).expect("an answer")
        });
        let request = own.next().expect("a request").expect("no end");
        own.reply(request.body).expect("an answer");
        asked.join().expect("no panic")
    });
    assert_eq!(caller, "hi");
    tokens.remove("gpu");
    broker.op("reload");
    assert!(own.next().expect_err("shut out").is(ErrorCode::BadToken));
    broker.with_workers("echo", "isdecho", 1);
    assert_eq!(client(&broker, &shop, &["-c", "x", "echo"]), (0, "x".into()));
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_execd_starts_programs_for_a_broker_that_proves_itself() {
    let tokens = Tokens::new();
    let host = tokens.add("eu", &["host"]);
    let shop = tokens.add("shop", &["client:*"]);
    let execd = Execd::start(&["--tokens", &tokens.file()]);
    for (token, why) in [(None, "needs_token"), (Some(&shop), "bad_token")] {
        let token = token.map(|token| token.to_string_lossy().into_owned());
        let args: Vec<&str> = token.iter().flat_map(|token| ["--host-token", token]).collect();
        let broker = Broker::start(&args);
        broker.remember_events();
        broker.op(&format!("config host h {}", execd.address));
        await_that(why, || broker.op("listevents").contains(why).then_some(()));
        assert!(!broker.op("host h").contains("host->state = up"));
        assert_eq!(broker.end(), 0);
    }
    let secret = secret(&host);
    let broker = Broker::start(&["--host-token", &host.to_string_lossy()]);
    broker.op(&format!("config host h {}", execd.address));
    broker.await_page("host h", "host->state = up");
    broker.op("config service echo");
    broker.op(&format!("config worker echo h {}", program("isdecho").display()));
    broker.op("start echo");
    broker.await_idle(1);
    assert_eq!(broker.login("echo").call("hi", Some(TIMEOUT)).expect("an answer"), "hi");
    assert!(!execd.process.log().contains(&secret) && !broker.process.log().contains(&secret));
    broker.op("stop echo");
    broker.await_page("worker 1", "worker->hostpid = 0");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_broker_does_not_trust_an_execd_that_does_not_know_its_token() {
    let (tokens, others) = (Tokens::new(), Tokens::new());
    let host = tokens.add("eu", &["host"]);
    others.add("eu", &["host"]);
    // An execd without tokens, and one with another token of that name.
    for args in [vec![], vec!["--tokens".to_owned(), others.file()]] {
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        let execd = Execd::start(&args);
        let broker = Broker::start(&["--host-token", &host.to_string_lossy()]);
        broker.remember_events();
        broker.op(&format!("config host h {}", execd.address));
        await_that("a refusal", || broker.op("listevents").contains("bad_token").then_some(()));
        assert!(!broker.op("host h").contains("host->state = up"));
        assert_eq!(broker.end(), 0);
    }
}

/// The execd sends its welcome as soon as it is dialled, while the broker still looks up its token.
#[test]
fn a_broker_does_not_trust_an_execd_that_answers_before_it_is_asked() {
    let tokens = Tokens::new();
    let host = tokens.add("eu", &["host"]);
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("an address");
    let welcome = ExecWelcome {
        hostpid: std::process::id(),
        version: "evil".into(),
        children_max: 10,
        signature: None,
        ..ExecWelcome::default()
    };
    let mut bytes = encode::to_bytes(Frame::ExecWelcome(welcome)).to_vec();
    let listed = Frame::ExecListed(ExecListed::default());
    bytes.extend_from_slice(&encode::to_bytes(listed));
    let evil = move || {
        let mut conns = Vec::new();
        for _ in 0..5 {
            let (mut conn, _) = listener.accept().expect("the broker");
            conn.write_all(&bytes).expect("room for a welcome");
            conns.push(conn);
        }
    };
    let evil = std::thread::Builder::new().spawn(evil).expect("a thread");
    let broker = Broker::start(&["--host-token", &host.to_string_lossy()]);
    broker.remember_events();
    broker.op(&format!("config host h {address}"));
    evil.join().expect("the broker has tried it five times");
    broker.await_page("listevents", "did not prove");
    let events = broker.op("listevents");
    let is_up = |line: &str| line.contains("host h at") && line.contains("is up with");
    assert!(!events.lines().any(is_up), "{events}");
    assert!(!broker.op("host h").contains("host->state = up"));
    assert_eq!(broker.end(), 0);
}

#[test]
fn other_machines_are_let_in_only_with_tokens_or_by_an_explicit_word() {
    let tokens = Tokens::new();
    tokens.add("ops", &["operator:danger"]);
    let refused = |name: &str, args: &[&str]| {
        let done = run(name, args, b"");
        assert_eq!(done.status, 2, "{name} {args:?}: {}", done.err);
        for way_out in ["token add", "--insecure"] {
            assert!(done.err.contains(way_out), "{name} {args:?}: {}", done.err);
        }
    };
    refused("isectd", &["--state", "none", "--listen", "0.0.0.0:0"]);
    refused("isectd", &["--state", "none", "--listen", "127.0.0.1:0", "--listen", "[::]:0"]);
    refused(
        "isectd",
        &["--state", "none", "--listen", "127.0.0.1:0", "--worker-listen", "0.0.0.0:0"],
    );
    let root: &[&str] = if Uid::effective().is_root() { &["--allow-root-workers"] } else { &[] };
    let execd = ["--state", "none", "--allow", "/bin"];
    refused("isdexecd", &[&["--listen", "0.0.0.0:0"], &execd[..], root].concat());
    let file = tokens.file();
    let broker = Broker::start(&[
        "--listen",
        "0.0.0.0:0",
        "--worker-listen",
        "0.0.0.0:0",
        "--tokens",
        &file,
    ]);
    assert_eq!(broker.end(), 0);
    std::fs::set_permissions(&file, PermissionsExt::from_mode(0o644)).expect("a mode");
    let here = ["--listen", "127.0.0.1:0", "--tokens", &file];
    for (name, args) in [
        ("isectd", [&here[..], &["--state", "none"]].concat()),
        ("isdexecd", [&here[..], &execd[..], root].concat()),
    ] {
        let done = run(name, &args, b"");
        assert!(done.err.contains("chmod 600") && done.status == 2, "{name}: {}", done.err);
    }
}

#[test]
fn another_user_of_the_machine_needs_a_token_where_there_are_some() {
    if !other_user::can_be() {
        return;
    }
    let tokens = Tokens::new();
    let ops = tokens.add("ops", &["operator:read", "client:echo"]);
    let broker = tokens.broker();
    broker.with_workers("echo", "isdecho", 1);
    let said = |output: &Output| String::from_utf8_lossy(&output.stderr).into_owned();
    for asked in ["echo", "op", "nowhere"] {
        let refused = other_user::isdclient(&broker, None, &["-c", "services", asked]);
        let text = said(&refused);
        assert_eq!(refused.status.code(), Some(1), "{text}");
        assert!(text.contains("needs_token") && text.contains("ISECT_TOKEN_FILE"), "{text}");
    }
    // The token in a file that is another user's, in the environment itself, and in a file of its
    // own.
    std::fs::set_permissions(tokens.folder.path(), PermissionsExt::from_mode(0o755)).expect("open");
    let path = ops.to_string_lossy().into_owned();
    let by_file = ("ISECT_TOKEN_FILE", path.as_str());
    let refused = other_user::isdclient(&broker, Some(by_file), &["-c", "hi", "echo"]);
    assert_eq!(refused.status.code(), Some(2), "not its own file: {}", said(&refused));
    let text = std::fs::read_to_string(&ops).expect("a token");
    let by_value = ("ISECT_TOKEN", text.trim());
    let served = other_user::isdclient(&broker, Some(by_value), &["-c", "hi", "echo"]);
    assert_eq!(served.stdout, b"hi", "{}", said(&served));
    chown(&ops, Some(OTHER_USER), None).expect("chown");
    let served = other_user::isdclient(&broker, Some(by_file), &["-c", "whoami"]);
    let shown = String::from_utf8_lossy(&served.stdout).into_owned();
    assert!(shown.contains("token ops: client:echo operator:read"), "{shown}{}", said(&served));
    let refused = other_user::isdclient(&broker, Some(by_file), &["-c", "stop echo"]);
    assert!(said(&refused).contains("needs the role operator:"), "{}", said(&refused));
    // The owner needs no token.
    assert!(broker.op("services").contains("echo"));
    assert_eq!(broker.end(), 0);
}
