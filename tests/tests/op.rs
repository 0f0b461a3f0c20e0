//! Golden outputs: the answer of every command of the operator's table on one populated broker, as
//! text (`tests/op/NAME.txt`) and as JSON (`tests/op/NAME.json`). `UPDATE=1` rewrites them; then
//! read the diff.

#![expect(clippy::disallowed_methods, reason = "UPDATE is for the person at the keys")]

use isect_tests::schema;
use isect_tests::script::{self, world::World};
use protocol::bodies::Format;
use protocol::op::spec::{Command, Spec};
use protocol::op::table::COMMANDS;
use serde_json::Value;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

/// The steps that make the broker of all answers: a fixed clock, and something of everything.
const POPULATED: &str = include_str!("../op/populated.script");

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("op")
}

/// TABLE of what is asked of commands. Of one that is not here, the example of its row is asked.
const ASKED: &[(Command, &[&str])] = &[
    (Command::Buckets, &["buckets 12 5", "buckets"]),
    (Command::ConfigEvents, &["config events 100", "config events 5 worker_died"]),
    (Command::ConfigHost, &["config host h2 192.0.2.8", "config host h3 host3:6000"]),
    (
        Command::ConfigService,
        &[
            "config service echo deadline_ms=5000",
            "config service print prefetch=2 retry=1",
            "config service echo env=KEY=value cwd=/srv",
        ],
    ),
    (
        Command::ConfigWorker,
        &[
            "config worker echo localhost /usr/local/bin/isdecho",
            "config worker #9 eat h1 /bin/eat 'two words'",
            "config worker echo localhost env=KEY=value nice=5 /bin/echo",
            "config worker #2 cwd=/srv",
        ],
    ),
    (
        Command::DeleteWorker,
        &["delete worker 3", "delete worker 1", "delete worker 5", "delete worker 99"],
    ),
    (Command::DeleteHost, &["delete host h2", "delete host h1", "delete host localhost"]),
    (Command::DeleteService, &["delete service spare", "delete service echo"]),
    (Command::DeleteClient, &["delete client 2", "delete client 99"]),
    (Command::Block, &["block 2", "block 99"]),
    (Command::Unblock, &["unblock 3", "unblock 99"]),
    (Command::Cancel, &["cancel 6", "cancel 2 1", "cancel 3 1", "cancel 2", "cancel 99"]),
    (Command::Client, &["client 2", "client 3", "client 99"]),
    (Command::Clone, &["clone 2", "clone 2 2", "clone 99", "clone 2 501"]),
    (Command::ConfigGroup, &["config group night min=2 pump", "config group echo min=2"]),
    (Command::DeleteGroup, &["delete group day", "delete group echo", "delete group 7"]),
    (Command::Group, &["group echo", "group day", "group nosuch"]),
    (
        Command::Instance,
        &["instance echo 1", "instance pump", "instance valve", "instance echo", "instance nosuch"],
    ),
    (
        Command::Instances,
        &["instances", "instances echo", "instances group day", "instances history"],
    ),
    (Command::Idle, &["idle 2", "idle 1", "idle 99"]),
    (Command::Death, &["death 2", "death 99"]),
    (Command::Deaths, &["deaths", "deaths 1", "deaths clear"]),
    (
        Command::ListEvents,
        &["listevents 3", "listevents", "listevents 1 kind=worker_died worker=2 since=1h"],
    ),
    (Command::Pause, &["pause 1", "pause echo", "pause all", "pause host localhost"]),
    (Command::Preempt, &["preempt", "preempt on", "preempt off"]),
    (Command::Pri, &["pri 2 10"]),
    (Command::Ready, &["ready 3", "ready echo", "ready all"]),
    (Command::Reject, &["reject", "reject on", "reject off"]),
    (Command::Send, &["send echo reinit", "send echo status", "send eat status", "send 99 reinit"]),
    (Command::Service, &["service 2 eat", "service 99 eat", "service echo", "service ehco"]),
    (Command::Shutdown, &["shutdown 10", "shutdown all", "shutdown 99"]),
    (Command::Start, &["start eat", "start all", "start 1"]),
    (Command::DrainHost, &["drain host localhost", "drain host h9"]),
    (Command::UndrainHost, &["undrain host localhost", "undrain host h9"]),
    (Command::Halt, &["halt", "halt keep"]),
    (Command::Stop, &["stop eat", "stop 1"]),
    (Command::Worker, &["worker 2", "worker 3", "worker 4", "worker 99"]),
    (Command::Workers, &["workers", "workers lazy", "workers idle", "workers busy"]),
    (Command::Status, &["status", ""]),
    (
        Command::Help,
        &["help", "help pause", "help config worker", "help config service", "help razmafritz"],
    ),
    (Command::Host, &["host localhost", "host h2", "host h9"]),
    (Command::Last, &["last 2", "last 5"]),
    (Command::Load, &["load", "load echo"]),
    (
        Command::Logs,
        &["logs echo", "logs 1 -n 2", "logs echo -f", "logs all -n 1", "logs eat", "logs 99"],
    ),
    (Command::Latency, &["latency", "latency echo"]),
    (Command::Poison, &["poison", "poison 2", "poison 99", "poison clear"]),
    (Command::Queue, &["queue", "queue echo", "queue eat"]),
    (
        Command::Restart,
        &["restart echo", "restart 1", "restart 99", "restart echo min 9", "restart echo 2"],
    ),
    (
        Command::Scale,
        &["scale echo 3", "scale echo 1", "scale echo 0", "scale echo 9 nosuch", "scale nosuch 2"],
    ),
    (Command::Topics, &["topics", "topics orders.*", "topics nothing", "topics a..b"]),
    (
        Command::Subscriptions,
        &[
            "subscriptions",
            "subscriptions all",
            "subscriptions client 4",
            "subscriptions client 99",
            "subscriptions worker 6",
            "subscriptions worker 5",
            "subscriptions orders.>",
            "subscriptions stock.eu",
            "subscriptions a b",
        ],
    ),
    (
        Command::Requests,
        &[
            "requests",
            "requests echo",
            "requests client 1",
            "requests worker 2",
            "requests worker 99",
            "requests nosuch",
        ],
    ),
    (Command::Why, &["why", "why 2", "why 3", "why 3 1", "why 6", "why 1", "why trace 7"]),
    (Command::Set, &["set stall_ms 5000", "set body_bytes_max 4096", "set stall_ms 1"]),
    (
        Command::Settings,
        &[
            "settings",
            "settings stall_ms",
            "settings echo",
            "settings service echo",
            "settings deadline_ms",
            "settings stal_ms",
        ],
    ),
    (
        Command::Source,
        &["source /etc/isect/setup.op", "source /no/such/file", "source /bad/commands"],
    ),
    (Command::Watch, &["watch worker_died", "watch bogus"]),
];

fn asked(row: &Spec) -> Vec<&'static str> {
    let more = ASKED.iter().find(|(command, _)| *command == row.command);
    more.map_or_else(|| vec![row.example], |(_, lines)| lines.to_vec())
}

/// What happens after a command whose answer comes later, or in several parts.
fn then(command: &str) -> &'static [&'static str] {
    match command {
        "send echo status" => &["echo#1 reports \"all is well\"", "+1s"],
        "source /etc/isect/setup.op" => {
            &[r##"broker reads "# two commands\nconfig service print\nset stall_ms 5000\n""##]
        }
        "reload" => &[r#"broker has tokens "ops operator:danger; shop client:echo""#],
        "source /no/such/file" => &["broker cannot read \"no such file\""],
        "source /bad/commands" => {
            &[r#"broker reads "config service print\nbogus\nset stall_ms 1""#]
        }
        "logs echo" | "logs 1 -n 2" => &[
            r#"echo#1 keeps "colours read|ready" from=40"#,
            r#"echo#2 keeps "a \x1b line" stdout lost=3 at=500"#,
            "+4s",
        ],
        "logs echo -f" => &[
            r#"echo#1 keeps "ready" from=41"#,
            r#"echo#1 writes "served" number=42"#,
            "+4s",
            r#"echo#1 writes stdout "more" number=45 dropped=2"#,
        ],
        "logs all -n 1" => &[r#"eat#6 keeps because "no output of it is kept""#, "+4s"],
        "logs eat" => &["+4s"],
        "restart echo" => &["echo#1073741824 exits 1"],
        "restart 1" => &[
            "echo#1073741824 gets ready",
            "+1s",
            "echo#1 closes",
            "echo#1 exits 0",
            "echo#1 gets ready",
            "+1s",
            "echo#1073741824 closes",
            "echo#1073741824 exits 0",
        ],
        "watch worker_died" => &["echo#1 dies", "echo#2 dies"],
        _ => &[],
    }
}

fn populated() -> World {
    let mut world = script::world_after(POPULATED).expect("the steps make sense");
    world.operator("op2", Format::Json).expect("op takes operators");
    world
}

/// The contents of the golden file of a command; each command is asked on a new broker.
fn golden(row: &Spec, format: Format) -> String {
    let mut out = String::new();
    for command in asked(row) {
        let name = match format {
            Format::Text | Format::Screen(_) => "op",
            Format::Json => "op2",
        };
        let answer =
            script::ask(&mut populated(), name, command, then(command)).expect("an answer");
        // One row a line, so that differences are readable.
        let answer = match format {
            Format::Text | Format::Screen(_) => answer,
            Format::Json => answer.replace("},{", "},\n {").replace(":[{", ":[\n {"),
        };
        let end = if answer.ends_with('\n') { "" } else { "\n" };
        let _ = write!(out, "$ {command}\n{answer}{end}\n");
    }
    out
}

fn file_name(row: &Spec, extension: &str) -> String {
    format!("{}.{extension}", row.name.replace(' ', "-"))
}

#[test]
fn every_command_answers_as_its_golden_file_says() {
    let is_update = std::env::var("UPDATE").is_ok();
    let mut wrong = Vec::new();
    for row in COMMANDS {
        for (format, extension) in [(Format::Text, "txt"), (Format::Json, "json")] {
            let name = file_name(row, extension);
            let path = folder().join(&name);
            let answer = golden(row, format);
            if is_update {
                std::fs::write(&path, &answer).unwrap();
            }
            let golden = std::fs::read_to_string(&path).unwrap_or_default();
            if golden != answer {
                let line = golden.lines().zip(answer.lines()).position(|(a, b)| a != b);
                let line =
                    line.unwrap_or_else(|| golden.lines().count().min(answer.lines().count()));
                let show = |text: &str| text.lines().nth(line).unwrap_or("(nothing)").to_owned();
                wrong.push(format!(
                    "tests/op/{name}:{}\n  - {}\n  + {}",
                    line + 1,
                    show(&golden),
                    show(&answer)
                ));
            }
        }
    }
    assert!(wrong.is_empty(), "UPDATE=1 writes them anew; read them then\n{}", wrong.join("\n"));
}

#[test]
fn every_answer_in_json_is_as_the_schema_says() {
    let schema = schema::schema();
    let mut wrong = Vec::new();
    for row in COMMANDS {
        let name = schema::name(row);
        let mut count = 0;
        for command in asked(row) {
            let answer = script::ask(&mut populated(), "op2", command, then(command)).unwrap();
            let is_error = !answer.starts_with('{');
            for answer in serde_json::Deserializer::from_str(&answer).into_iter::<Value>() {
                let Ok(answer) = answer else { break };
                count += 1;
                if let Err(error) = schema::check(&schema, &name, &answer) {
                    wrong.push(format!("{command}: {error}"));
                }
            }
            assert!(is_error || count > 0, "{command}: {answer}");
        }
        if count == 0 {
            wrong.push(format!("{name}: no answer was looked at"));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

/// The words of an answer, sorted.
fn words(text: &str) -> Vec<&str> {
    let mut words: Vec<&str> = text.split_whitespace().collect();
    words.sort_unstable();
    words
}

#[test]
fn on_a_terminal_no_table_is_wider_than_it_and_no_word_is_broken() {
    for command in ["workers", "clients", "hosts", "services", "queue", "load", "latency", "poison"]
        .into_iter()
        .chain(["settings", "settings echo", "listevents", "why"])
    {
        let whole = script::ask(&mut populated(), "op", command, &[]).unwrap();
        for columns in [40, 80, 120, 200, 1000] {
            let mut world = populated();
            world.operator("screen", Format::Screen(columns)).unwrap();
            let mut answer = script::ask(&mut world, "screen", command, &[]).unwrap();
            // The asking operator's login is an event, and the operator a client.
            if matches!(command, "listevents" | "clients") {
                world = populated();
                world.operator("screen", Format::Text).unwrap();
                let whole = script::ask(&mut world, "screen", command, &[]).unwrap();
                assert_eq!(words(&answer).len(), words(&whole).len(), "{columns}: {answer}");
            } else {
                assert_eq!(words(&answer), words(&whole), "{command} at {columns}:\n{answer}");
            }
            answer.retain(|c| c != '\r');
            for line in answer.lines() {
                let has_long_word = line.split_whitespace().any(|word| word.len() > 30);
                let is_short = line.chars().count() <= columns.into();
                assert!(is_short || has_long_word, "{command} at {columns}:\n{answer}");
            }
        }
    }
}

#[test]
fn every_command_has_its_golden_files_and_no_file_is_left_over() {
    let mut expected: Vec<String> = vec!["populated.script".into()];
    for row in COMMANDS {
        expected.extend([file_name(row, "txt"), file_name(row, "json")]);
    }
    expected.sort();
    let mut there: Vec<String> = std::fs::read_dir(folder())
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .collect();
    there.sort();
    assert_eq!(there, expected);
}

#[test]
fn asking_shows_and_changes_nothing_but_what_it_says() {
    for row in COMMANDS {
        let mut world = populated();
        let before = script::ask(&mut world, "op", "save", &[]).unwrap();
        let is_read = row.effect == protocol::op::spec::Effect::Read;
        for command in asked(row).into_iter().filter(|_| is_read) {
            script::ask(&mut world, "op", command, &[]).unwrap();
        }
        assert_eq!(script::ask(&mut world, "op", "save", &[]).unwrap(), before, "{}", row.name);
    }
}
