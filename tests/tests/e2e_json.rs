//! Checks what a real `isdclient --json` prints, for every command and every kind of error, against
//! the schema of the answers.

use client::session::Send;
use isect_tests::proc::{Broker, await_that, run};
use isect_tests::schema::{check, name, schema};
use protocol::errors::ErrorCode;
use protocol::op::spec::{Command, Effect};
use protocol::op::table::COMMANDS;
use serde_json::Value;
use std::time::Duration;

fn parsed(text: &str) -> Value {
    serde_json::from_str(text).unwrap_or_else(|error| panic!("{error}: {text}"))
}

#[test]
fn every_command_prints_what_the_schema_says() {
    let schema = schema();
    let broker = Broker::start(&[]);
    broker.with_workers("echo", "isdecho", 1);
    broker.op("config service eat");
    let folder = tempfile::TempDir::with_prefix("isect-").expect("a folder");
    let script = folder.path().join("setup");
    std::fs::write(&script, "config service sourced\n").expect("a script");
    let source = format!("source {}", script.display());
    let mut done = 0;
    for row in COMMANDS {
        // Commands that end the broker come last; `watch` never ends, and its script covers it.
        if matches!(row.command, Command::Abort | Command::Halt | Command::Watch) {
            continue;
        }
        let more: &[&str] = match row.command {
            Command::Source => &[&source],
            Command::Service => &["service echo"],
            Command::Settings => &["settings", "settings echo"],
            Command::Pause => &["pause eat", "pause echo"],
            Command::Ready => &["ready echo", "ready 1"],
            Command::Status => &["", "status"],
            Command::ListEvents => {
                &["listevents", "config events 0", "listevents", "config events 5"]
            }
            Command::ConfigHost => &["config host h9 127.0.0.1:9", "hosts", "host h9"],
            Command::Send => &["send echo status", "send eat status"],
            Command::Poison => &["poison", "poison clear"],
            Command::Last => &["last 1"],
            _ if row.effect == Effect::Danger => &[],
            _ => &[row.example],
        };
        for command in more {
            let first = protocol::op::parse::parse(command).expect("a command").command();
            let told = broker.isdclient(&["--json", "-c", command], "");
            let definition = if told.status == 0 { name(first.row()) } else { "error".to_owned() };
            check(&schema, &definition, &parsed(&told.out))
                .unwrap_or_else(|error| panic!("{command}: {error}"));
            done += usize::from(told.status == 0);
        }
    }
    assert!(done > 25, "{done}");
    let told = broker.isdclient(&["--json", "-c", "services", "-c", "halt"], "");
    for (line, command) in told.out.lines().zip(["services", "halt"]) {
        check(&schema, command, &parsed(line)).unwrap();
    }
    assert_eq!(broker.end(), 1);
}

/// A list of this many requests is longer than a frame may be, and longer than an answer.
#[test]
fn a_list_that_fills_many_frames_comes_whole_and_says_what_it_has_no_room_for() {
    const ROWS_MAX: usize = 50_000;
    let broker = Broker::start(&["--set", "body_bytes_max=4096"]);
    broker.op("config service eat queue_max=200000");
    broker.op("pause eat");
    broker.op("set requests_max 200000");
    let mut caller = broker.login("eat");
    let send = Send { deadline: Some(Duration::from_secs(1800)), ..Send::default() };
    for _ in 0..ROWS_MAX + 7 {
        caller.send("x", &send).expect("a request is sent");
    }
    let count = || broker.number("status", "isdData.Waiting");
    await_that("the requests wait", || (count() == ROWS_MAX as i64 + 7).then_some(()));
    let schema = schema();
    for command in ["requests", "requests eat", "queue"] {
        let told = broker.isdclient(&["--json", "-c", command], "");
        assert_eq!((told.status, told.err.as_str()), (0, ""), "{command}");
        let answer = parsed(&told.out);
        let first = command.split(' ').next().expect("a word");
        check(&schema, first, &answer).unwrap_or_else(|error| panic!("{command}: {error}"));
        assert_eq!(answer[first].as_array().expect("a list").len(), ROWS_MAX);
        assert_eq!(answer["left_out"]["rows"], 7);
    }
    let told = broker.isdclient(&["-c", "requests"], "");
    assert_eq!(told.out.lines().filter(|line| !line.is_empty()).count(), ROWS_MAX + 2);
    let last = "7 more are not shown: an answer has at most 50000 rows\n";
    assert!(told.out.ends_with(last), "{:?}", told.out.lines().last());
    // The memory of what is being made has a limit for all.
    let mut operator = broker.login("op");
    for _ in 0..3 {
        operator.send("requests", &Send::default()).expect("a command is sent");
    }
    let first = operator.recv(None).expect("an answer");
    let error = first.error.expect("the third is refused at once");
    assert_eq!(first.sequence, 3);
    assert!(error.is(ErrorCode::Refused), "{error}");
    assert!(error.text.starts_with("2 long listings with 100000 rows are being made"), "{error}");
}

#[test]
fn every_error_is_an_object_that_says_what_where_and_the_cure() {
    let schema = schema();
    let broker = Broker::start(&[]);
    let folder = tempfile::TempDir::with_prefix("isect-").expect("a folder");
    let script = folder.path().join("bad script");
    std::fs::write(&script, "version\n# fine\nnonsense\nset stall_ms 1\n").expect("a script");
    let source = format!("source '{}'", script.display());
    let error = |args: &[&str], input: &str| {
        let told = broker.isdclient(&[&["--json"], args].concat(), input);
        let line = told.out.lines().rfind(|line| line.starts_with("{\"error\""));
        let answer = parsed(line.unwrap_or_default());
        check(&schema, "error", &answer).unwrap_or_else(|wrong| panic!("{args:?}: {wrong}"));
        answer["error"].clone()
    };
    let told = error(&["-c", &source], "");
    assert_eq!(told["file"], script.display().to_string().as_str());
    assert_eq!((&told["line"], &told["failures"][1]["line"]), (&3.into(), &4.into()));
    let told = error(&[], "version\nnonsense\n");
    assert_eq!((&told["file"], &told["line"]), (&"-".into(), &2.into()));
    assert_eq!((&told["name"], &told["command"]), (&"usage".into(), &"nonsense".into()));
    assert_eq!(error(&["-c", "worker 7"], "")["number"], -28);
    assert_eq!(error(&["-c", "x", "nosuch"], "")["name"], "unknown_service");
    let told = error(&["hello", "d"], "");
    assert_eq!((&told["name"], &told["number"]), (&"usage".into(), &(-26).into()));
    assert_eq!(told["advice"], "'isdclient --help' explains the command line");
    let told = broker.isdclient(&["--json"], "config service echo\nworker 7\n").out;
    let summary = parsed(told.lines().last().unwrap_or_default());
    assert_eq!(summary, serde_json::json!({"summary": {"done": 1, "unchanged": 0, "failed": 1}}));
    assert_eq!(broker.end(), 0);
    let none = run("isdclient", &["-h", "127.0.0.1:1", "--json", "-c", "services"], b"");
    let answer = parsed(&none.out);
    check(&schema, "error", &answer).unwrap();
    assert_eq!((none.status, &answer["error"]["name"]), (3, &"unreachable".into()));
}
