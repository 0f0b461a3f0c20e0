//! Tests of the parser: which lines it accepts, and its errors for all others.

use protocol::errors::ErrorCode;
use protocol::ids::{ClientId, ServiceId, TransactionId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::op::events::{EventFilter, Since};
use protocol::op::parse::{parse, parse_bytes};
use protocol::op::spec::{
    DeathsWhat, LogsWanted, OpRequest as Op, PoisonWhat, RequestName, RequestsOf, SendWhat,
    ServiceChange, ServiceWhat, SettingsOf, ShutdownWhat, SubscriptionsOf, Target, WhyOf,
    WorkerConfig, WorkerFilter,
};
use protocol::op::table::COMMANDS;
use protocol::settings::{ServiceSetting, Setting};
use protocol::topics::Pattern;

/// A number as the broker gives it: so many microseconds since 1970.
const LONG: TransactionId = TransactionId(1_764_467_000_123_456);

fn name(text: &str) -> ServiceName {
    ServiceName::new(text).unwrap_or_else(|e| panic!("{e}"))
}

fn host(text: &str) -> HostName {
    HostName::new(text).unwrap_or_else(|e| panic!("{e}"))
}

fn pattern(text: &str) -> Pattern {
    Pattern::new(text).unwrap_or_else(|e| panic!("{e}"))
}

/// A filter that every event passes.
fn none() -> EventFilter {
    EventFilter::default()
}

fn worker(id: u32) -> Target {
    Target::Worker(WorkerId(id))
}

fn echo() -> Target {
    Target::Service(name("echo"))
}

/// Valid lines and their meaning: broker, clients, configuration.
fn spellings() -> Vec<(&'static str, Op)> {
    vec![
        ("", Op::Status),
        (" \t\r\n\0\0", Op::Status),
        ("status", Op::Status),
        ("help", Op::Help(None)),
        ("?", Op::Help(None)),
        ("help pause", Op::Help(Some("pause".into()))),
        ("? config worker", Op::Help(Some("config worker".into()))),
        ("help config", Op::Help(Some("config".into()))),
        ("abort", Op::Abort),
        ("halt\0", Op::Halt(false)),
        ("halt keep", Op::Halt(true)),
        ("drain host h1", Op::DrainHost(host("h1"))),
        ("undrain host h1", Op::UndrainHost(host("h1"))),
        ("block 0", Op::Block(ClientId(0))),
        ("unblock 4294967295", Op::Unblock(ClientId(u32::MAX))),
        ("buckets", Op::Buckets(None)),
        ("buckets 12 5", Op::Buckets(Some((12, 5)))),
        ("buckets 1440 86400", Op::Buckets(Some((1440, 86_400)))),
        ("client 404", Op::Client(ClientId(404))),
        ("clients", Op::Clients(false)),
        ("clients builtin", Op::Clients(true)),
        ("clone 2", Op::Clone(WorkerId(2), None)),
        ("config events 100", Op::ConfigEvents { count: 100, kinds: vec![] }),
        ("delete worker 3", Op::DeleteWorker(WorkerId(3))),
        ("delete client 3", Op::DeleteClient(ClientId(3))),
        ("delete service eat", Op::DeleteService(name("eat"))),
        ("delete host h2", Op::DeleteHost(host("h2"))),
        ("host h2", Op::Host(host("h2"))),
        ("hosts", Op::Hosts),
    ]
}

/// Valid lines and their meaning: about topics.
fn topic_spellings() -> Vec<(&'static str, Op)> {
    vec![
        ("topics", Op::Topics(None)),
        ("topics orders.>", Op::Topics(Some(pattern("orders.>")))),
        ("subscriptions", Op::Subscriptions(SubscriptionsOf::All)),
        ("subscriptions all", Op::Subscriptions(SubscriptionsOf::All)),
        ("subscriptions client 3", Op::Subscriptions(SubscriptionsOf::Client(ClientId(3)))),
        ("subscriptions worker 2", Op::Subscriptions(SubscriptionsOf::Worker(WorkerId(2)))),
        ("subscriptions client", Op::Subscriptions(SubscriptionsOf::Pattern(pattern("client")))),
        ("subscriptions a.*", Op::Subscriptions(SubscriptionsOf::Pattern(pattern("a.*")))),
    ]
}

/// Valid lines and their meaning: all others, by letter.
fn more_spellings() -> Vec<(&'static str, Op)> {
    vec![
        ("idle 2", Op::Idle(WorkerId(2), None)),
        ("last 2", Op::Last(WorkerId(2))),
        ("latency", Op::Latency(None)),
        ("load", Op::Load(None)),
        ("latency echo", Op::Latency(Some(name("echo")))),
        ("listevents", Op::ListEvents(EventFilter::default())),
        ("listevents 10", Op::ListEvents(EventFilter { count: Some(10), ..none() })),
        (
            "listevents 5 kind=worker_died worker=3 since=10m",
            Op::ListEvents(EventFilter {
                count: Some(5),
                kinds: vec!["worker_died".into()],
                worker: Some(WorkerId(3)),
                since: Some(Since::Ago(600_000)),
                ..none()
            }),
        ),
        ("pause echo", Op::Pause(echo())),
        ("pause service echo", Op::Pause(echo())),
        ("pause 2", Op::Pause(worker(2))),
        ("pause worker 2", Op::Pause(worker(2))),
        ("  pause   all  ", Op::Pause(Target::All)),
        ("ready all", Op::Ready(Target::All)),
        ("pause host h1", Op::Pause(Target::Host(host("h1")))),
        ("send host h1 reinit", { Op::Send(Target::Host(host("h1")), SendWhat::Reinit) }),
        ("start worker 1", Op::Start(worker(1))),
        ("stop service eat", Op::Stop(Target::Service(name("eat")))),
        ("poison", Op::Poison(PoisonWhat::List)),
        ("poison 7", Op::Poison(PoisonWhat::Show(7))),
        ("poison clear", Op::Poison(PoisonWhat::Clear)),
        ("preempt", Op::Preempt(None)),
        ("preempt on", Op::Preempt(Some(true))),
        ("pri 4 255", Op::Pri(ClientId(4), 255)),
        ("queue", Op::Queue(None)),
        ("queue echo", Op::Queue(Some(name("echo")))),
        ("reject", Op::Reject(true)),
        ("reject off", Op::Reject(false)),
        ("requests", Op::Requests(RequestsOf::All)),
        ("requests echo", Op::Requests(RequestsOf::Service(name("echo")))),
        ("requests service echo", Op::Requests(RequestsOf::Service(name("echo")))),
        ("requests all", Op::Requests(RequestsOf::All)),
        ("requests service client", Op::Requests(RequestsOf::Service(name("client")))),
        ("requests client 3", Op::Requests(RequestsOf::Client(ClientId(3)))),
        ("requests worker 2", Op::Requests(RequestsOf::Worker(WorkerId(2)))),
        ("logs echo", Op::Logs(logs(echo(), 20, false))),
        ("logs 3 -n 0", Op::Logs(logs(worker(3), 0, false))),
        ("logs -f -n 10000 all", Op::Logs(logs(Target::All, 10_000, true))),
        ("logs service echo -f -n 20", Op::Logs(logs(echo(), 20, true))),
        ("cancel 1764467000123456", Op::Cancel(RequestName::Transaction(LONG))),
        ("cancel 3 7", Op::Cancel(RequestName::Sent(ClientId(3), 7))),
        ("why", Op::Why(WhyOf::Kept)),
        ("why 1764467000123456", Op::Why(WhyOf::Request(RequestName::Transaction(LONG)))),
        ("why 3 0", Op::Why(WhyOf::Request(RequestName::Sent(ClientId(3), 0)))),
        ("why trace 1F", Op::Why(WhyOf::Trace(0x1f_u128.to_be_bytes()))),
        ("reset", Op::Reset),
        ("save", Op::Save),
        ("send 3 reinit", Op::Send(worker(3), SendWhat::Reinit)),
        ("send worker 3 status", Op::Send(worker(3), SendWhat::Status)),
        ("send echo command:reinit", Op::Send(echo(), SendWhat::Reinit)),
        ("send all command:status", Op::Send(Target::All, SendWhat::Status)),
        ("service 4 eat", Op::Service(ServiceWhat::Move(ClientId(4), name("eat")))),
        ("services", Op::Services(false)),
        ("services builtin", Op::Services(true)),
    ]
}

/// Valid lines and their meaning: the last by letter, and deaths.
fn last_spellings() -> Vec<(&'static str, Op)> {
    vec![
        ("settings", Op::Settings(SettingsOf::All)),
        ("settings stall_ms", Op::Settings(SettingsOf::One(Setting::StallMs))),
        ("set stall_ms 500", Op::Set((Setting::StallMs, 500))),
        ("set stall_ms=500", Op::Set((Setting::StallMs, 500))),
        ("shutdown all", Op::Shutdown(ShutdownWhat::All)),
        ("shutdown 0", Op::Shutdown(ShutdownWhat::Fd(0))),
        ("source /etc/a", Op::Source("/etc/a".into())),
        ("summary", Op::Summary),
        ("version", Op::Version),
        ("watch", Op::Watch(none())),
        (
            "watch host_lost kind=worker_died",
            Op::Watch(EventFilter {
                kinds: vec!["host_lost".into(), "worker_died".into()],
                ..none()
            }),
        ),
        ("death 7", Op::Death(7)),
        ("deaths", Op::Deaths(DeathsWhat::List(None))),
        ("deaths 5", Op::Deaths(DeathsWhat::List(Some(5)))),
        ("deaths clear", Op::Deaths(DeathsWhat::Clear)),
        ("worker 1", Op::Worker(WorkerId(1))),
        ("workers", Op::Workers(WorkerFilter::All)),
        ("workers lazy", Op::Workers(WorkerFilter::Lazy)),
        ("workers all", Op::Workers(WorkerFilter::All)),
        ("workers builtin", Op::Workers(WorkerFilter::Builtin)),
    ]
}

#[test]
fn every_spelling_of_the_manual_is_taken() {
    for (line, request) in spellings()
        .into_iter()
        .chain(more_spellings())
        .chain(last_spellings())
        .chain(topic_spellings())
    {
        assert_eq!(parse(line), Ok(request), "{line:?}");
    }
}

#[test]
fn config_takes_ids_settings_and_quoted_arguments() {
    assert_eq!(
        parse("config worker #12 echo localhost '/opt/my app/run' -v \"a b\""),
        Ok(Op::ConfigWorker {
            id: Some(WorkerId(12)),
            config: WorkerConfig::Whole {
                service: name("echo"),
                host: host("localhost"),
                own: Vec::new(),
                path: "/opt/my app/run".into(),
                args: vec!["-v".into(), "a b".into()],
            },
        })
    );
    assert_eq!(
        parse("config service #2 echo queue_max=0 selfstart=on"),
        Ok(Op::ConfigService {
            id: Some(ServiceId(2)),
            name: name("echo"),
            settings: vec![
                ServiceChange::Number(ServiceSetting::QueueMax, 0),
                ServiceChange::Number(ServiceSetting::SelfStart, 1),
            ],
        })
    );
    for (given, address) in [
        ("192.0.2.7", "192.0.2.7:5502"),
        ("h2.example:77", "h2.example:77"),
        ("[::1]", "[::1]:5502"),
        ("[2001:db8::7]:65535", "[2001:db8::7]:65535"),
        ("unix:/run/e", "unix:/run/e"),
        ("tls://h2.example", "tls://h2.example:5502"),
        ("tls://[::1]:77", "tls://[::1]:77"),
    ] {
        let expected = Op::ConfigHost { name: host("h2"), address: address.into() };
        assert_eq!(parse(&format!("config host h2 {given}")), Ok(expected));
    }
}

fn logs(target: Target, lines: u32, follow: bool) -> LogsWanted {
    LogsWanted { target, lines, follow }
}

/// A wrong line, and a part of its error.
const WRONG: &[(&str, &str)] = &[
    ("logs", "argument 'target' is missing"),
    ("logs -f", "argument 'target' is missing"),
    ("logs echo -n", "argument '-n lines' is missing"),
    ("logs echo -n 10001", "number of lines 10001 is out of range"),
    ("logs echo -n -f", "number of lines '-f' is not a whole number"),
    ("logs echo eat", "logs: unexpected 'eat'"),
    ("logs echo -x", "logs: unexpected '-x'"),
    ("razmafritz", "'razmafritz' is no command"),
    ("wrokers", "did you mean 'workers'?"),
    ("Services", "did you mean 'services'?"),
    ("confg worker", "did you mean 'config'?"),
    ("list", "'services', 'workers', 'clients' and 'hosts' list what there is"),
    ("#comment", "'#comment' is no command"),
    ("-h", "'-h' is no command"),
    ("''", "'' is no command"),
    ("help razma", "'razma' is no command"),
    ("help pause x", "help: unexpected 'x'"),
    ("config", "config: a second word is missing"),
    ("config", "syntax: config host name address[:port]"),
    ("config servce x", "did you mean 'service'?"),
    ("delete 3", "delete: unknown word '3'"),
    ("delete", "syntax: delete client clientid"),
    ("abort now", "abort: unexpected 'now'"),
    ("reset a b c", "reset: unexpected 'a' and 2 more"),
    ("block", "argument 'clientid' is missing: a client's id, column 'client id' of 'clients'"),
    ("block", "syntax: block clientid"),
    ("block -1", "client id -1 is out of range; it is 0 to 4294967295"),
    ("scale echo -1", "number of workers -1 is out of range; it is 1 to 1000000"),
    ("block 4294967296", "client id 4294967296 is out of range"),
    ("block 99999999999999999999999", "is out of range; it is 0 to 4294967295"),
    ("cancel", "argument 'transaction' is missing: a request's number"),
    ("cancel 0", "transaction 0 is out of range; it is 1 to"),
    ("cancel 1 2 3", "cancel: unexpected '3'"),
    ("cancel x", "transaction 'x' is not a whole number"),
    ("why trace", "argument 'trace id' is missing"),
    ("why trace 0", "trace id '0' is not 1 to 32 hexadecimal digits, of which one is not 0"),
    ("why trace +1", "trace id '+1' is not 1 to 32 hexadecimal digits"),
    ("why trace 1x", "trace id '1x' is not 1 to 32 hexadecimal digits"),
    ("why trace 123456789012345678901234567890123", "is not 1 to 32 hexadecimal digits"),
    ("why 3 x", "sequence 'x' is not a whole number; it is 0 to 4294967295"),
    ("block x", "client id 'x' is not a whole number; it is 0 to 4294967295"),
    ("block 1.5", "client id '1.5' is not a whole number"),
    ("block +1", "'+1' is not a whole number"),
    ("block -", "'-' is not a whole number"),
    ("block 0x1", "'0x1' is not a whole number"),
    ("block ''", "'' is not a whole number"),
    ("block ٣", "'٣' is not a whole number"),
    ("block 1 2", "block: unexpected '2'"),
    ("clone 0", "worker id 0 is out of range; it is 1 to 4294967295"),
    ("worker echo", "worker id 'echo' is not a whole number; it is 1 to 4294967295"),
    ("worker", "argument 'workerid' is missing"),
    ("buckets 12", "argument 'secs' is missing: seconds of one bucket, 1 to 86400"),
    ("buckets 0 5", "number of buckets 0 is out of range; it is 1 to 1440"),
    ("buckets 1441 5", "number of buckets 1441 is out of range; it is 1 to 1440"),
    ("buckets 12 86401", "seconds of a bucket 86401 is out of range; it is 1 to 86400"),
    ("config events", "config events: argument 'n' is missing"),
    ("config events -5", "number of events -5 is out of range; it is 0 to 1000000"),
    ("config events 1000001", "it is 0 to 1000000"),
    ("config events 5 Worker-Died", "'Worker-Died' is no kind of event"),
    ("listevents 0", "number of events 0 is out of range; it is 1 to 1000000"),
    (
        "pause",
        "argument 'target' is missing: a service's name, a worker's id, 'host' and a host's name",
    ),
    ("pause worker", "pause: argument 'workerid' is missing"),
    ("pause worker echo", "worker id 'echo' is not a whole number"),
    ("pause service", "argument 'service' is missing"),
    ("pause service 7up", "begins with '7'"),
    ("pause 7up", "worker id '7up' is not a whole number"),
    ("pause -3", "worker id -3 is out of range"),
    ("pause 0", "worker id 0 is out of range"),
    ("pause all now", "pause: unexpected 'now'"),
    ("pause é", "begins with 'é'"),
    ("pause workers", "is a word of the command language"),
    ("preempt maybe", "option 'maybe' is not one of on, off"),
    ("reject onn", "did you mean 'on'?"),
    ("pri 4", "argument 'n' is missing: priority, 1 to 255"),
    ("pri 4 0", "priority 0 is out of range; it is 1 to 255"),
    ("pri 4 256", "priority 256 is out of range; it is 1 to 255"),
    ("send echo", "argument 'command' is missing: reinit or status"),
    ("send echo reint", "command 'reint' is not one of reinit, status; did you mean 'reinit'?"),
    ("send echo command:x", "is not one of command:reinit, command:status"),
    ("service 4", "argument 'newservice' is missing"),
    ("service x eat", "client id 'x' is not a whole number"),
    ("service 4 e/t", "contains '/'"),
    ("shutdown", "argument 'fd|all' is missing"),
    ("shutdown -1", "descriptor -1 is out of range; it is 0 to 2147483647"),
    ("shutdown 2147483648", "it is 0 to 2147483647"),
    (
        "workers idel",
        "list 'idel' is not one of lazy, idle, busy, all, builtin; did you mean 'idle'?",
    ),
    ("config service", "argument 'name' is missing: letters, digits"),
    ("config service 7", "begins with '7'"),
    ("config service all", "a word of the command language"),
    ("config service #0 x", "service id 0 is out of range; it is 1 to"),
    ("config service #x x", "service id 'x' is not a whole number"),
    ("config service x y", "'y' is not of the form SETTING=VALUE"),
    (
        "config service x deadlin_ms=5",
        "did you mean 'deadline_ms'?; there are deadline_ms, queue_max",
    ),
    ("config service x deadline_ms=0", "deadline_ms 0 is out of range; it is 1 to 3600000 ms"),
    ("config service x deadline_ms=", "deadline_ms '' is not a whole number"),
    ("config service x retry=1 retry=2", "setting 'retry' is given twice"),
    ("config worker", "argument 'service' is missing"),
    ("config worker echo", "argument 'host' is missing"),
    ("config worker echo localhost", "argument 'path' is missing: the program on that host"),
    (
        "config worker echo localhost isdecho",
        "path 'isdecho' is not absolute; it must begin with '/'",
    ),
    ("config worker echo localhost /bin/", "names a directory"),
    ("config worker echo localhost ''", "path is empty"),
    ("config worker echo local/host /x", "host name 'local/host' contains '/'"),
    ("config worker #-1 echo localhost /x", "worker id -1 is out of range"),
    ("config host", "argument 'name' is missing"),
    ("config host h", "argument 'address' is missing"),
    ("config host h :77", "has no host"),
    ("config host h tls://", "has no host"),
    ("config host h tls:h", "has port 'h'"),
    ("config host h a:b", "has port 'b', which is no port from 1 to 65535"),
    ("config host h a:0", "has port '0'"),
    ("config host h a:65536", "has port '65536'"),
    ("config host h a:+7", "has port '+7'"),
    ("config host h [::1", "without ']'"),
    ("config host h [::1]x", "goes on after ']'"),
    ("config worker a h /a/../b", "has '..' in it"),
    ("config host h unix:", "has no path after"),
    ("config host h unix", "names the kind of an address"),
    ("config host h unix:run", "has no absolute path"),
    ("config host h http://a", "address 'http://a'"),
    ("latency 7", "begins with '7'"),
    ("poison x", "number of a poison request 'x' is not a whole number"),
    ("poison 0", "is out of range; it is 1 to"),
    ("topics a..b", "topics: word 2 of pattern 'a..b' is empty"),
    ("topics a b", "topics: unexpected 'b'"),
    ("subscriptions client x", "client id 'x' is not a whole number"),
    ("subscriptions a.>.b", "has '>' before its end"),
    ("requests client", "requests: the id of the client is missing; 'clients' lists them"),
    ("requests worker", "requests: the id of the worker is missing; 'workers' lists them"),
    ("requests client x", "client id 'x' is not a whole number"),
    ("requests worker 0", "worker id 0 is out of range"),
    ("requests echo 3", "requests: unexpected '3'"),
    ("set", "argument 'name' is missing"),
    ("set stall_ms", "argument 'value' is missing"),
    ("set stal_ms 5", "unknown setting 'stal_ms'; did you mean 'stall_ms'?"),
    ("set stal_ms", "unknown setting 'stal_ms'"),
    ("set stall_ms 99", "stall_ms 99 is out of range; it is 100 to 3600000 ms"),
    ("set stall_ms 5x", "stall_ms '5x' is not a whole number"),
    ("set stall_ms=500 7", "set: unexpected '7'"),
    ("set retry 5", "it is one of a service"),
    ("settings 7x", "unknown setting '7x'"),
    ("source", "argument 'file' is missing"),
    ("source ''", "file is empty"),
    ("source a b", "source: unexpected 'b'"),
    ("watch 7", "'7' is no kind of event"),
    ("services '", "the quotation mark ' at byte 9 is not closed"),
    ("services \\", "backslash at byte 9"),
    ("services\nworkers", "control character '\\n'; one message is one command"),
    ("services \u{1b}[2J", "control character"),
    ("a\0b", "control character"),
];

#[test]
fn every_wrong_line_is_told_what_is_wrong_with_it() {
    for (line, part) in WRONG {
        let error = match parse(line) {
            Ok(request) => panic!("{line:?} is taken as {request:?}"),
            Err(error) => error,
        };
        assert_eq!(error.code, ErrorCode::Usage, "{line:?}");
        assert!(error.text.contains(part), "{line:?}: {}", error.text);
        assert!(!error.text.contains(|c: char| c.is_control() && c != '\n'), "{line:?}");
    }
}

#[test]
fn an_unknown_command_is_answered_with_the_help() {
    let text = parse("razmafritz 7").unwrap_err().text;
    assert!(text.contains(include_str!("golden/manual-help.txt")));
    assert!(text.starts_with("'razmafritz' is no command\n\nabort  "));
    let text = parse("srvices").unwrap_err().text;
    assert_eq!(text, "'srvices' is no command; did you mean 'services'? 'help' lists all");
}

#[test]
fn hostile_lines_are_refused_and_bounded() {
    assert!(parse_bytes(b"services \xff").unwrap_err().text.contains("byte 9"));
    assert_eq!(parse_bytes(b"services\0\0\n"), Ok(Op::Services(false)));
    let huge = vec![b'x'; 1 << 20];
    assert!(parse_bytes(&huge).unwrap_err().text.contains("1048576 bytes; at most 16384"));
    let long = format!("config service {}", "x".repeat(10_000));
    assert!(parse(&long).unwrap_err().text.len() < 500);
    let path = format!("config worker echo localhost /{}", "p".repeat(4095));
    assert!(parse(&path).unwrap_err().text.contains("path has 4096 bytes; at most 4095"));
    assert!(parse(&path[..path.len() - 1]).is_ok());
    let words = "config worker echo localhost /x ".to_owned() + &"a ".repeat(251);
    assert!(parse(&words).is_ok());
    assert!(parse(&(words + "a")).unwrap_err().text.contains("more than 256 words"));
}

/// Every command with every number of words of every unusual form gives an answer or an error, but
/// no panic.
#[test]
fn no_mix_of_words_makes_the_parser_panic() {
    let awkward = [
        "",
        "0",
        "1",
        "-1",
        "99999999999999999999",
        "echo",
        "all",
        "worker",
        "service",
        "on",
        "=",
        "a=b",
        "retry=1",
        "#",
        "#1",
        "unix:",
        "[",
        "[]",
        "[]:",
        ":",
        "/",
        "'",
        "\"x y\"",
        "\\",
        "é",
        "\u{202e}",
        "command:",
        "command:reinit",
        "reinit",
    ];
    let mut tried = 0u32;
    for row in COMMANDS {
        for a in awkward {
            for b in awkward {
                for c in ["", "x"] {
                    let line = format!("{} {a} {b} {c}", row.name);
                    if let Ok(request) = parse(&line) {
                        assert_eq!(parse(&request.to_string()), Ok(request), "{line:?}");
                    }
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 50_000, "{tried}");
}

/// Each line cut after every character, and with every byte changed.
#[test]
fn no_piece_of_a_good_line_makes_the_parser_panic() {
    for row in COMMANDS {
        for end in 0..row.example.len() {
            let _ = parse(&row.example[..end]);
            for byte in 0..=255u8 {
                let mut bytes = row.example.as_bytes().to_vec();
                bytes[end] = byte;
                if let Err(error) = parse_bytes(&bytes) {
                    assert!(!error.text.is_empty());
                }
            }
        }
    }
}

#[test]
fn the_topic_of_a_service_is_a_pattern_or_empty() {
    for (word, topic) in [("topic=orders.>", Some("orders.>")), ("topic=", None)] {
        let Ok(Op::ConfigService { settings, .. }) = parse(&format!("config service echo {word}"))
        else {
            panic!("{word} is a setting");
        };
        let pattern = topic.map(|topic| Pattern::new(topic).unwrap());
        assert_eq!(settings, [ServiceChange::Topic(pattern)]);
        assert_eq!(settings[0].to_string(), word);
    }
    for (word, part) in
        [("topic=a..b", "word 2"), ("topic=a topic=b", "given twice"), ("topics=a", "'topic'")]
    {
        let error = parse(&format!("config service echo {word}")).unwrap_err();
        assert!(error.text.contains(part), "{word}: {}", error.text);
    }
}
