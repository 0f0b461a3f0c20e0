//! Tests bad commands and bad paths on a real broker: every command of the table with missing,
//! surplus, negative, huge and non-UTF-8 arguments; programs and files that do not exist or have
//! the wrong type. Each gets one typed error that names the cure, and nothing else changes.

use isect_tests::proc::{Broker, TIMEOUT, write_program};
use isect_tests::wire::Wire;
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::limits::COMMAND_BYTES_MAX;
use protocol::op::spec::{Command, Spec, Takes};
use protocol::op::table::COMMANDS;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

/// A connection to `op` that writes its frames itself.
struct Op {
    wire: Wire,
    sequence: u32,
}

impl Op {
    fn new(broker: &Broker) -> Self {
        Self { wire: Wire::login(&broker.port("client"), "op"), sequence: 0 }
    }

    /// The outcome of a command; there must be exactly one.
    fn say(&mut self, command: &[u8]) -> Result<String, ErrorBody> {
        self.sequence += 1;
        self.wire.ask(self.sequence, command.to_vec());
        match self.wire.next_frame() {
            Some(Frame::Data { head, body }) => {
                assert_eq!((head.sequence, head.more), (self.sequence, 0));
                Ok(String::from_utf8(body.to_vec()).expect("UTF-8"))
            }
            Some(Frame::Error { head, error }) => {
                assert_eq!(head.sequence, self.sequence);
                Err(error)
            }
            other => panic!("'{}': {other:?}", command.escape_ascii()),
        }
    }

    /// The error of a command that must not be done; it must blame the user and have a text.
    fn refused(&mut self, command: &[u8]) -> ErrorBody {
        let shown = command[..command.len().min(60)].escape_ascii().to_string();
        match self.say(command) {
            Ok(page) => panic!("'{shown}' was done:\n{page}"),
            Err(error) => {
                let is_users = matches!(
                    error.code,
                    ErrorCode::Usage | ErrorCode::Refused | ErrorCode::NotFound
                );
                assert!(is_users && !error.text.is_empty(), "'{shown}': {error}");
                assert!(error.text.len() < 8192, "'{shown}': {} bytes", error.text.len());
                assert!(!error.text.contains(['\0', '\x1b', '\u{7}']), "'{shown}': {error}");
                error
            }
        }
    }
}

/// All commands, except the empty one that shows the status page.
fn commands() -> impl Iterator<Item = &'static Spec> {
    COMMANDS.iter().filter(|spec| spec.command != Command::Status)
}

/// How many words of the usage line are required.
fn needed(spec: &Spec) -> usize {
    let rest = spec.usage.strip_prefix(spec.name).unwrap_or_default();
    let mut depth = 0_usize;
    let mut count = 0;
    for word in rest.split_whitespace() {
        let opened = word.matches('[').count();
        if depth == 0 && opened == 0 && word != "|" {
            count += 1;
        }
        depth = (depth + opened).saturating_sub(word.matches(']').count());
    }
    count
}

fn takes_any_number(spec: &Spec) -> bool {
    spec.usage.contains("...")
}

/// The words of the example after the command's name.
fn words(spec: &Spec) -> Vec<&'static str> {
    spec.example.strip_prefix(spec.name).unwrap_or_default().split_whitespace().collect()
}

/// The example with the word at this place replaced.
fn replaced(spec: &Spec, at: usize, word: &str) -> String {
    let mut all = words(spec);
    all[at] = word;
    format!("{} {}", spec.name, all.join(" "))
}

/// A broker with the manual's two services, whose workers are not started.
fn broker() -> Broker {
    let broker = Broker::start(&[]);
    broker.op("config service echo");
    broker.op("config service eat");
    for service in ["echo", "eat"] {
        broker.op(&format!("config worker {service} localhost /bin/cat"));
    }
    broker
}

/// Whether the text shows each form of the command on a line of its own.
fn has_syntax(text: &str, spec: &Spec) -> bool {
    spec.usage.lines().all(|form| text.contains(&format!("\nsyntax: {form}")))
}

#[test]
fn each_command_with_words_missing_or_too_many_is_refused_with_its_syntax() {
    let broker = broker();
    let saved = broker.op("save");
    let mut op = Op::new(&broker);
    let mut count = 0;
    for spec in commands() {
        if needed(spec) > 0 {
            let error = op.refused(spec.name.as_bytes());
            assert!(has_syntax(&error.text, spec), "{}: {}", spec.name, error.text);
            count += 1;
        }
        if !takes_any_number(spec) {
            let command = format!("{} surplus words", spec.example);
            let error = op.refused(command.as_bytes());
            assert!(has_syntax(&error.text, spec), "{command}: {}", error.text);
            count += 1;
        }
    }
    assert!(count > 50, "{count}");
    assert_eq!(broker.op("save"), saved, "nothing was changed");
    assert_eq!(broker.end(), 0);
}

#[test]
fn numbers_and_names_that_can_not_be_are_refused_in_every_place() {
    let broker = broker();
    let saved = broker.op("save");
    let mut op = Op::new(&broker);
    let bad = [
        "-1",
        "0x10",
        "1.5",
        "99999999999999999999999",
        "4294967296",
        "1e3",
        "''",
        "nosuch",
        "7up",
        "../etc",
        "a\u{301}b",
        "%s%n",
        "$(id)",
    ];
    let mut count = 0;
    for spec in commands() {
        for (at, _) in words(spec).iter().enumerate() {
            let takes = spec.args().get(at).map_or(Takes::Any, |arg| arg.takes);
            if takes == Takes::Any || spec.name == "help" {
                continue;
            }
            for word in bad {
                // An unknown name is fine for a new service or host.
                let is_new =
                    matches!(spec.name, "config service" | "config host") && word == "nosuch";
                if !is_new {
                    op.refused(replaced(spec, at, word).as_bytes());
                    count += 1;
                }
            }
        }
    }
    assert!(count > 200, "{count}");
    for command in [
        "config events -1",
        "config events 1000001",
        "config events x",
        "config events 5 nosuch_kind",
        "buckets -1 5",
        "buckets 0 5",
        "buckets 5 0",
        "buckets 99999 5",
        "buckets 5 99999",
        "pri 0 0",
        "pri 0 256",
        "pri 0 -1",
        "listevents -5",
        "poison 99",
        "shutdown -1",
        "shutdown 99999",
        "set stall_ms 0",
        "set stall_ms -1",
        "set stall_ms 99999999999",
        "set body_bytes_max 2000",
        "config service echo queue_max=-1",
        "config service echo queue_max=99999999999",
        "config service echo nosuch=1",
        "config host far a:b:c",
        "config host far 1.2.3.4:99999",
        "config host far :",
        "config host localhost 127.0.0.1:1",
        "config worker echo nowhere /bin/cat",
        "config worker echo localhost cat",
        "config worker op localhost /bin/cat",
        "watch nosuch_kind",
        "reject maybe",
        "preempt 2",
        "last 77",
        "send all explode",
    ] {
        op.refused(command.as_bytes());
    }
    assert_eq!(broker.op("save"), saved, "nothing was changed");
    assert_eq!(broker.end(), 0);
}

#[test]
fn bytes_that_are_no_text_and_commands_without_end_are_refused() {
    let broker = broker();
    let saved = broker.op("save");
    let mut op = Op::new(&broker);
    for spec in commands() {
        for bad in [&b"\xff\xfe"[..], b"\xc3", b"\xed\xa0\x80", b"a\0b"] {
            op.refused(&[spec.name.as_bytes(), b" ", bad].concat());
        }
        let long = format!("{} {}", spec.name, "x".repeat(COMMAND_BYTES_MAX));
        op.refused(long.as_bytes());
        // Hundreds of words: too many for most commands, and wrong for the others.
        let many = format!("{} {}", spec.name, "x ".repeat(300));
        op.refused(many.as_bytes());
        for quote in ["\"", "'", "\\", "\"a\\"] {
            let open = format!("{} {quote}", spec.name);
            let refused = op.say(open.as_bytes()).is_err();
            assert!(refused || spec.name == "help", "{open}");
        }
    }
    for command in
        [&b"\xff"[..], b"ser\0vices", b"services \x1b[2J", b"no\x07such", b"sevices", b"-c"]
    {
        let error = op.refused(command);
        assert!(!error.text.is_empty());
    }
    assert!(op.refused(b"sevices").text.contains("services"), "a near miss is named");
    op.say(b"services\0").expect("a NUL at the end is no harm");
    op.say(b"  services \r\n").expect("blanks are no harm");
    assert_eq!(broker.op("save"), saved, "nothing was changed");
    assert_eq!(broker.end(), 0);
}

fn folder() -> tempfile::TempDir {
    tempfile::TempDir::with_prefix("isect-").expect("a folder")
}

fn file(folder: &Path, name: &str, text: &[u8], mode: u32) -> PathBuf {
    let path = folder.join(name);
    write_program(&path, text);
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("permissions");
    path
}

#[test]
fn programs_that_can_not_be_started_fail_at_once_and_say_why() {
    let broker = Broker::start(&["--set", "restart_min_ms=5", "--set", "restart_max_ms=10"]);
    let folder = folder();
    let at = |name: &str| folder.path().join(name);
    let plain = file(folder.path(), "plain", b"#!/bin/sh\n", 0o644);
    let garbage = file(folder.path(), "garbage", b"no program at all\n", 0o755);
    let lost = file(folder.path(), "lost", b"#!/no/such/interpreter\n", 0o755);
    let long = format!("/{}", "x".repeat(300));
    broker.with_workers("echo", "isdecho", 1);
    broker.op("config service bad");
    let cases = [
        (at("missing").to_string_lossy().into_owned(), "does not exist"),
        (folder.path().to_string_lossy().into_owned(), "directory"),
        (plain.to_string_lossy().into_owned(), "execut"),
        (format!("{}/below", plain.display()), "directory"),
        (garbage.to_string_lossy().into_owned(), "is no program"),
        (lost.to_string_lossy().into_owned(), ""),
        ("/dev/null".to_owned(), ""),
        (long, "longer than this host allows"),
    ];
    for (path, _) in &cases {
        broker.op(&format!("config worker bad localhost {path}"));
    }
    broker.op("start bad");
    for (index, (path, part)) in cases.iter().enumerate() {
        let page = broker.await_failed(index as u32 + 2);
        let why = page.lines().find(|line| line.starts_with("worker->failed")).expect("a line");
        assert!(why.to_lowercase().contains(part), "{path}: {why}");
        assert_eq!(
            broker.number(&format!("worker {}", index + 2), "worker->restarts"),
            0,
            "{path}"
        );
    }
    assert_eq!(broker.login("echo").call("x", Some(TIMEOUT)).expect("served"), "x");
    assert_eq!(broker.end(), 0);
}

#[test]
fn files_that_are_no_scripts_are_refused_and_hold_up_nobody() {
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 1);
    let folder = folder();
    let at = |name: &str| folder.path().join(name).to_string_lossy().into_owned();
    file(folder.path(), "binary", b"config service \xff\xfe\n", 0o644);
    file(
        folder.path(),
        "wrong",
        b"# two good, one bad\nconfig service one\nnonsense\nversion\n",
        0o644,
    );
    nix::unistd::mkfifo(at("fifo").as_str(), nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let mut op = Op::new(&broker);
    for path in [
        at("missing"),
        folder.path().to_string_lossy().into_owned(),
        at("binary"),
        at("fifo"),
        "/dev/zero".to_owned(),
        "relative/path".to_owned(),
        "''".to_owned(),
    ] {
        let command = format!("source {path}");
        match op.say(command.as_bytes()) {
            Ok(page) => panic!("'{command}' was done: {page}"),
            Err(error) => assert!(!error.text.is_empty(), "{command}"),
        }
        assert_eq!(broker.login("echo").call("x", Some(TIMEOUT)).expect("served"), "x");
    }
    let error = op.say(format!("source {}", at("wrong")).as_bytes()).expect_err("one is bad");
    assert!(error.text.contains('3') && error.text.contains("nonsense"), "{error}");
    assert!(broker.op("services").contains("one "), "the others were done");
    assert_eq!(broker.end(), 0);
}
