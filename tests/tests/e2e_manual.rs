//! Runs the sessions of the manual chapter word for word through the real `isdclient` against a
//! real broker. Where the manual prints memory addresses or process ids, only the form is compared.

use isect_tests::proc::{Broker, await_that, program};

/// What the manual prints for `help`, and for any unknown command.
const HELP: &str = "\
abort                    isectd calls abort() - creates a core file
[un]block clientid       [un]blocks incoming transactions from clientid
buckets num secs         set the number of buckets to 'num' and the bucket
                         size to 'secs' seconds
client id                examine the client structure for client id id
clients                  displays the client list
clone workerid           clones a worker id
config events n          remember n events (listevents)
delete {worker|client} id
                         deletes a client or worker
halt                     isectd calls exit(1)
idle id                  forcibly idles the busy worker id
listevents [n]           list interesting events
pause service | worker | all
                         pauses a worker (makes lazy) without killing it
services                 lists isectd's services
preempt [on|off]         sets or reports preempting option
pri id n                 changes a client's priority to n
ready service | worker | all
                         unpauses a worker
reject                   force isectd to reject new client logins
reset                    resets statistics
send worker_id|service_name|all command:(reinit, status(TP workers only))
                         sends command to a worker, service or all services
service id newservice    changes a client's service to newservice
shutdown fd | all        shutdown the fd for sending
start service | all      start processing messages for service
stop service | all       stop processing messages for service
unblock clientid         reverses \"block clientid\"
worker id                examine the worker structure for worker id id
workers [lazy | idle | busy | all]
                         displays the worker queues
<nil>                    examine isdData
";

/// Runs `isdclient -c COMMAND` and returns its output; stderr must be empty.
fn say(broker: &Broker, command: &str) -> String {
    let done = broker.isdclient(&["-c", command], "");
    assert_eq!((done.status, done.err.as_str()), (0, ""), "'{command}': {done:?}");
    done.out
}

fn refused(broker: &Broker, command: &str) -> String {
    let done = broker.isdclient(&["-c", command], "");
    assert_eq!((done.status, done.out.as_str()), (1, ""), "'{command}': {done:?}");
    done.err
}

/// The broker of the manual: services echo and eat, with one started worker each.
fn manual() -> Broker {
    let broker = Broker::start(&[]);
    say(&broker, "config service echo");
    say(&broker, "config service eat");
    for (service, name) in [("echo", "isdecho"), ("eat", "isdeat")] {
        let path = program(name);
        say(&broker, &format!("config worker {service} localhost {}", path.display()));
    }
    broker
}

fn started() -> Broker {
    let broker = manual();
    assert_eq!(say(&broker, "start all"), "Ok.\n");
    broker.await_idle(2);
    broker
}

#[test]
fn services_start_stop_pause_ready() {
    let broker = manual();
    assert_eq!(
        say(&broker, "services"),
        "                         service          id\n                             eat           3\n\
         \x20                           echo           2\n                              op           1\n"
    );
    assert_eq!(say(&broker, "start echo"), "Ok.\n");
    assert_eq!(say(&broker, "start all"), "Ok.\n");
    broker.await_idle(2);
    let echo = "paused worker->id = 1, worker->name = echo\n";
    let eat = "paused worker->id = 2, worker->name = eat\n";
    assert_eq!(say(&broker, "pause echo"), echo);
    assert_eq!(say(&broker, "ready echo"), "Ok.\n");
    assert_eq!(say(&broker, "pause all"), format!("{eat}{echo}"));
    let lazy = say(&broker, "workers lazy");
    assert!(lazy.contains("echo") && lazy.contains("eat"), "{lazy}");
    assert!(broker.worker_pid(1) > 0, "its process is still there");
    assert_eq!(say(&broker, "ready all"), "Ok.\n");
    assert_eq!(say(&broker, "pause 2"), eat);
    assert_eq!(say(&broker, "ready 2"), "readied worker->id = 2, worker->name = eat\n");
    assert_eq!(say(&broker, "stop echo"), "Ok.\n");
    assert_eq!(say(&broker, "stop all"), "Ok.\n");
    await_that("the end of both", || {
        (broker.worker_pid(1) == 0 && broker.worker_pid(2) == 0).then_some(())
    });
    assert_eq!(broker.end(), 0);
}

#[test]
fn workers_shows_the_three_lists_with_the_manuals_columns() {
    let broker = started();
    let all = say(&broker, "workers");
    // The time in a state differs at each look.
    let since = |page: &str| -> Vec<String> {
        let line = |line: &str| line.split(" ready for ").next().unwrap_or_default().to_owned();
        page.lines().map(line).collect()
    };
    assert_eq!(since(&say(&broker, "workers all")), since(&all));
    let heads: Vec<&str> = all.lines().filter(|line| !line.starts_with(' ')).collect();
    assert_eq!(
        heads.iter().filter(|l| !l.is_empty()).collect::<Vec<_>>(),
        [&"LAZY", &"IDLE", &"BUSY"]
    );
    let columns = all.lines().nth(1).expect("columns");
    let mut rest = columns;
    for column in [
        "service",
        "worker id",
        "avail?",
        "hostname",
        "host pid",
        "xactions",
        "avg. resp.",
        "last resp.",
        "restarts",
        "client id",
        "fd",
    ] {
        let at = rest.find(column).unwrap_or_else(|| panic!("no {column} in\n{columns}"));
        rest = &rest[at + column.len()..];
    }
    let idle = say(&broker, "workers idle");
    let row = idle.lines().find(|line| line.contains("echo")).expect("the echo worker");
    let words: Vec<&str> = row.split_whitespace().collect();
    assert_eq!(words[..4], ["echo", "1", "yes", "localhost"]);
    assert_eq!(words[4], broker.worker_pid(1).to_string());
    assert!(!say(&broker, "workers busy").contains("echo"));
    assert_eq!(broker.end(), 0);
}

#[test]
fn worker_shows_the_fields_of_the_manual_in_its_order() {
    let broker = started();
    assert_eq!(broker.isdclient(&["-c", "x", "echo"], "").out, "x");
    let page = say(&broker, "worker 1");
    let fields: Vec<(&str, &str)> = page
        .lines()
        .map(|line| {
            let (key, value) = line.split_once(" =").unwrap_or_else(|| panic!("{line}"));
            (key, value.trim_start())
        })
        .collect();
    let pid = broker.worker_pid(1).to_string();
    let path = format!("\"{}\"", program("isdecho").display());
    let expected = [
        ("worker->node.next", None),
        ("worker->node.previous", None),
        ("worker->node.queue", None),
        ("worker->id", Some("1")),
        ("worker->service_id", Some("2")),
        ("worker->hostpid", Some(pid.as_str())),
        ("worker->name", Some("\"echo\"")),
        ("worker->host", Some("\"localhost\"")),
        ("worker->path", Some(path.as_str())),
        ("worker->args", Some("\"\"")),
        ("worker->Transactions", Some("1")),
        ("worker->fromCount", Some("1")),
        ("worker->toCount", Some("1")),
        ("worker->restarts", Some("0")),
        ("worker->stopped", Some("0")),
        ("worker->up_not_log_in", Some("0")),
    ];
    for (index, (key, value)) in expected.into_iter().enumerate() {
        assert_eq!(fields[index].0, key, "{page}");
        assert!(value.is_none_or(|value| fields[index].1 == value), "{key} in\n{page}");
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn clone_and_delete_worker() {
    let broker = started();
    assert_eq!(say(&broker, "clone 2"), "cloned 3 from 2\n");
    assert_eq!(say(&broker, "clone 2"), "cloned 4 from 2\n");
    let (first, second) = (say(&broker, "worker 2"), say(&broker, "worker 4"));
    for key in ["service_id", "name", "host", "path", "args"] {
        let line = |page: &str| {
            let key = format!("worker->{key} =");
            page.lines().find(|line| line.starts_with(&key)).map(ToString::to_string)
        };
        assert!(line(&first).is_some(), "{key}");
        assert_eq!(line(&first), line(&second));
    }
    assert!(second.contains("worker->Transactions = 0\n"), "{second}");
    assert_eq!(say(&broker, "delete worker 3"), "worker 3 deleted\n");
    let why = refused(&broker, "delete worker 1");
    assert!(why.contains("lazy") && why.contains("stop 1"), "{why}");
    let why = refused(&broker, "worker 3");
    assert!(why.contains("worker 3"), "{why}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn idle_frees_a_busy_worker_and_tells_its_client() {
    let broker = Broker::start(&[]);
    broker.with_workers("stuck", "isdcrash hang", 2);
    std::thread::scope(|scope| {
        let asks = scope.spawn(|| broker.isdclient(&["-c", "x", "stuck"], ""));
        let busy = await_that("a busy worker", || {
            let page = broker.op("workers busy");
            let row = page.lines().find(|line| line.contains("stuck"))?.to_owned();
            row.split_whitespace().nth(1).map(ToString::to_string)
        });
        assert_eq!(say(&broker, &format!("idle {busy}")), format!("idled worker {busy}\n"));
        let done = asks.join().expect("an end");
        assert_eq!((done.status, done.out.as_str()), (1, ""), "{done:?}");
        assert!(done.err.contains("intervention -1"), "{done:?}");
    });
    let why = refused(&broker, "idle 1");
    assert!(why.contains("worker 1 is not busy"), "{why}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn the_status_page() {
    let broker = started();
    let page = say(&broker, "");
    let worker_port = broker.port("worker").rsplit_once(':').expect("a port").1.to_owned();
    let port = broker.port("client").rsplit_once(':').expect("a port").1.to_owned();
    let lines: Vec<&str> = page.lines().collect();
    let expected = [
        ("configfile", "\"\""),
        ("host", "?"),
        ("ServiceList", "3"),
        ("PriList", "1"),
        ("LazyWorkers", "0"),
        ("IdleWorkers", "2"),
        ("BusyWorkers", "0"),
        ("socket", "?"),
        ("port", &worker_port),
        ("req_socket", "?"),
        ("req_port", &port),
        ("NextClientID", "?"),
        ("MaxUsers", "0"),
        ("command_worker", "\"op\""),
        ("Events", "?"),
        ("NumEvents", "1000"),
        ("NumBuckets", "6"),
        ("BucketSecs", "10"),
        ("PeakBucket", "0"),
        ("Buckets", "0  0  0  0  0  0"),
    ];
    for (index, (key, value)) in expected.into_iter().enumerate() {
        let begin = format!("{:<25}= ", format!("isdData.{key}"));
        let rest = lines[index].strip_prefix(&begin);
        let rest = rest.unwrap_or_else(|| panic!("line {index} is not '{begin}…':\n{page}"));
        assert!(value == "?" || rest == value, "{key} is {rest}, not {value}");
    }
    for blank in [" ", "\t", " \n "] {
        assert!(say(&broker, blank).starts_with("isdData.configfile       = \"\"\n"));
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn help_is_shown_for_help_and_for_unknown_commands() {
    let broker = Broker::start(&[]);
    let help = say(&broker, "help");
    assert!(help.starts_with(HELP), "{help}");
    let why = refused(&broker, "razmafritz");
    assert!(why.contains("'razmafritz' is no command"), "{why}");
    assert!(why.contains(HELP), "{why}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn as_many_events_are_kept_as_are_configured_newest_first() {
    let broker = manual();
    // Without a word, the last 1000 are.
    assert!(say(&broker, "listevents").contains("broker_started"));
    assert_eq!(say(&broker, "config events 0"), "isdData.NumEvents=0\n");
    assert!(say(&broker, "listevents").contains("config events"));
    assert_eq!(say(&broker, "config events 20"), "isdData.NumEvents=20\n");
    say(&broker, "start all");
    broker.await_idle(2);
    let events = say(&broker, "listevents 10");
    assert_eq!(events.lines().count(), 10, "{events}");
    let times: Vec<&str> = events.lines().map(|line| &line[..23]).collect();
    assert!(times.is_sorted_by(|a, b| a >= b), "{events}");
    for _ in 0..10 {
        say(&broker, "services");
    }
    assert_eq!(say(&broker, "listevents").lines().count(), 20);
    assert_eq!(broker.number("", "isdData.Events"), 20);
    assert_eq!(broker.end(), 0);
}

#[test]
fn buckets_count_what_was_completed() {
    let broker = started();
    let set = say(&broker, "buckets 12 3600");
    assert!(set.contains("isdData.NumBuckets       = 12\n"), "{set}");
    for index in 0..7 {
        broker.login("echo").call(format!("{index}"), None).expect("an answer");
    }
    let page = say(&broker, "");
    let buckets = format!("isdData.Buckets          = 7{}\n", "  0".repeat(11));
    assert!(page.contains(&buckets), "{page}");
    assert!(page.contains("isdData.PeakBucket       = 7\n"), "{page}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn shutdown_makes_the_worker_go_and_isectd_start_it_again() {
    let broker = started();
    let old = broker.worker_pid(1);
    let fd = broker.number("worker 1", "worker->fd");
    say(&broker, &format!("shutdown {fd}"));
    broker.await_new_pid(1, old);
    assert_eq!(broker.number("worker 1", "worker->restarts"), 1);
    let (one, two) = (broker.worker_pid(1), broker.worker_pid(2));
    say(&broker, "shutdown all");
    broker.await_new_pid(1, one);
    broker.await_new_pid(2, two);
    assert_eq!(broker.end(), 0);
}

#[test]
fn isdclient_sends_what_stands_before_go() {
    let broker = started();
    let done = broker.isdclient(&["echo"], "one line\nand another\ngo\n");
    assert_eq!((done.status, done.out.as_str()), (0, "one line\nand another\n"), "{done:?}");
    let done = broker.isdclient(&["echo"], "first\ngo\nsecond\ngo\n");
    assert_eq!((done.status, done.out.as_str()), (0, "first\nsecond\n"), "{done:?}");
    let done = broker.isdclient(&["eat"], "anything\ngo\n");
    assert_eq!((done.status, done.out.as_str()), (0, ""), "{done:?}");
    let done = broker.isdclient(&[], "services\ngo\n");
    assert!(done.out.starts_with("                         service          id\n"), "{done:?}");
    let done = broker.isdclient(&["-c", "x", "nosuch"], "");
    assert_eq!(done.status, 1, "{done:?}");
    assert!(done.err.contains("nosuch"), "{done:?}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn clients_are_shown_blocked_moved_and_deleted() {
    let broker = started();
    let mut caller = broker.login("echo");
    let id = caller.limits().client;
    let row = |list: &str| {
        let words =
            |line: &str| line.split_whitespace().map(ToString::to_string).collect::<Vec<_>>();
        list.lines().map(words).find(|words| words.get(1) == Some(&id.to_string()))
    };
    assert_eq!(row(&say(&broker, "clients")).expect("a row")[0], "echo");
    assert!(say(&broker, &format!("client {id}")).contains(&format!("client->id = {id}\n")));
    say(&broker, &format!("block {id}"));
    let sequence = caller.send("held", &client::caller::Send::default()).expect("sent");
    broker.await_page("queue echo", &format!(" {id} "));
    say(&broker, &format!("unblock {id}"));
    assert_eq!(caller.recv_from(sequence, None).expect("an answer").body, "held");
    say(&broker, &format!("pri {id} 7"));
    assert_eq!(row(&say(&broker, "clients")).expect("a row")[2], "7");
    say(&broker, &format!("service {id} eat"));
    assert_eq!(caller.call("swallowed", None).expect("an answer"), "");
    say(&broker, &format!("delete client {id}"));
    assert!(caller.call("gone", None).is_err());
    assert_eq!(row(&say(&broker, "clients")), None);
    let why = refused(&broker, &format!("client {id}"));
    assert!(why.contains(&format!("client {id}")), "{why}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn reject_preempt_reset_send() {
    let broker = started();
    say(&broker, "reject");
    let error = broker.try_login("echo").expect_err("no new clients");
    assert!(error.is(protocol::errors::ErrorCode::Rejecting), "{error}");
    say(&broker, "reject off");
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    assert!(say(&broker, "preempt").contains("off"));
    say(&broker, "preempt on");
    assert!(say(&broker, "preempt").contains("on"));
    assert_eq!(broker.number("worker 1", "worker->Transactions"), 1);
    say(&broker, "reset");
    assert_eq!(broker.number("worker 1", "worker->Transactions"), 0);
    say(&broker, "config events 100");
    say(&broker, "send all status");
    broker.await_page("listevents 100", "worker_status worker 2");
    say(&broker, "send echo reinit");
    assert_eq!(broker.end(), 0);
}
