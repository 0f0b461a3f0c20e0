//! Tests topics and instances with a real broker: the library's bus over every kind of socket, its
//! worker, and the verbs of `isdclient` as processes.

use client::address::Address;
use client::bus::{
    Bus, Event, InstanceOptions, InstanceState, Message, Missing, Options, Removed, Standing,
    SubscribeOptions, Subscription,
};
use client::worker::{Worker, WorkerOptions};
use isect_tests::certs::Authority;
use isect_tests::proc::{Broker, Process, TIMEOUT, await_that, program};
use nix::sys::signal::Signal;
use protocol::errors::ErrorCode;
use protocol::names::ServiceName;
use std::collections::BTreeMap;
use std::thread;
use std::time::Duration;

/// The names of this machine in certificates.
const HERE: &[&str] = &["127.0.0.1", "localhost"];

fn bus(broker: &Broker) -> Bus {
    let options = Options { trust: broker.trust.clone(), ..Options::default() };
    Bus::connect(&[broker.address()], options).expect("a login")
}

fn tls_broker(authority: &Authority) -> Broker {
    let pair = authority.sign("broker", HERE);
    let files = ["--tls-cert", pair.cert(), "--tls-key", pair.key()];
    let mut broker = Broker::start(&[&["--listen", "tls://127.0.0.1:0"][..], &files].concat());
    broker.trust = Some(authority.trust());
    broker
}

fn next(subscription: &mut Subscription) -> Event {
    subscription.next_within(TIMEOUT).expect("no end").expect("an event in time")
}

fn next_message(subscription: &mut Subscription) -> Message {
    loop {
        if let Event::Message(message) = next(subscription) {
            return message;
        }
    }
}

/// The lines of a state that the broker published.
fn lines(message: &Message) -> BTreeMap<String, String> {
    let text = message.text();
    let pairs = text.lines().filter_map(|line| line.split_once(' '));
    pairs.map(|(key, value)| (key.to_owned(), value.to_owned())).collect()
}

/// Waits until an instance has this state, and returns what was said of it then.
fn await_state(states: &mut Subscription, name: &str, state: &str) -> BTreeMap<String, String> {
    loop {
        let said = lines(&next_message(states));
        if said.get("name").is_some_and(|it| it == name) && said["state"] == state {
            return said;
        }
    }
}

/// A verb of `isdclient` beside the test.
fn verb(broker: &Broker, log: &str, args: &[&str]) -> Process {
    let host = broker.port("client");
    let all = [&[args[0], "-h", host.as_str()][..], &args[1..]].concat();
    Process::start(&program("isdclient"), &all, broker.folder.path().join(log))
}

#[test]
fn messages_come_as_they_were_published_over_every_kind_of_socket() {
    let authority = Authority::new();
    for broker in [Broker::start(&[]), tls_broker(&authority)] {
        let (publisher, reader) = (bus(&broker), bus(&broker));
        let mut all = reader.subscribe("orders.>").expect("subscribed");
        assert!(matches!(next(&mut all), Event::CaughtUp { kept: 0, dropped: 0 }));
        for size in [0, 1, 4096, 65_536, 3_000_000] {
            let payload: Vec<u8> = (0..size).map(|i| (i % 251) as u8).collect();
            let message = publisher.message("orders.eu").line("size", "given");
            let receipt = message.send_and_wait(&payload).expect("published");
            assert_eq!(receipt.subscriptions, 1);
            let got = next_message(&mut all);
            assert!(got.payload == payload, "{size} bytes");
            assert_eq!((got.topic.as_str(), got.position), ("orders.eu", receipt.position));
            assert_eq!(got.lines, [("size".to_owned(), "given".to_owned())]);
        }
        publisher.publish("other.eu", "x").expect("sent");
        publisher.publish("orders.us", "last").expect("sent");
        assert_eq!(next_message(&mut all).payload, "last");
        let ended = all.unsubscribe().expect("an answer");
        assert_eq!((ended.delivered, ended.dropped), (6, 0));
        assert!(publisher.flush(TIMEOUT).expect("flushed").is_empty());
        publisher.publish("isect.own", "x").expect("sent");
        let refused = publisher.flush(TIMEOUT).expect("flushed");
        assert!(refused.len() == 1 && refused[0].is(ErrorCode::Denied), "{refused:?}");
        assert_eq!(broker.end(), 0);
    }
}

#[test]
fn values_are_kept_as_long_as_it_was_said() {
    let broker = Broker::start(&[]);
    let (publisher, reader) = (bus(&broker), bus(&broker));
    publisher.message("a.kept").retain().send_and_wait("1").expect("published");
    publisher.message("a.mine").while_connected().send_and_wait("2").expect("published");
    publisher
        .message("a.short")
        .retain()
        .expires(Duration::from_millis(50))
        .send("3")
        .expect("sent");
    let mut all = reader.subscribe("a.*").expect("subscribed");
    let removed = |all: &mut Subscription| {
        loop {
            let message = next_message(all);
            if let Some(removed) = message.removed {
                return (message.topic, removed);
            }
        }
    };
    assert_eq!(removed(&mut all), ("a.short".to_owned(), Removed::Expired));
    drop(publisher);
    assert_eq!(removed(&mut all), ("a.mine".to_owned(), Removed::OwnerGone));
    let mut later = reader.subscribe("a.*").expect("subscribed");
    let kept = next_message(&mut later);
    assert_eq!((kept.topic.as_str(), kept.kept, &kept.payload[..]), ("a.kept", true, &b"1"[..]));
    assert!(matches!(next(&mut later), Event::CaughtUp { kept: 1, .. }));
    reader.remove("a.kept").expect("removed");
    assert_eq!(removed(&mut all), ("a.kept".to_owned(), Removed::Deleted));
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_subscriber_goes_on_where_it_was() {
    let broker = Broker::start(&[]);
    let publisher = bus(&broker);
    let mut first = bus(&broker).subscribe("n.>").expect("subscribed");
    for n in 0..10 {
        publisher.publish("n.a", n.to_string()).expect("sent");
    }
    for n in 0..5 {
        assert_eq!(next_message(&mut first).text(), n.to_string());
    }
    let from = first.position();
    drop(first);
    publisher.publish("n.b", "10").expect("sent");
    publisher.flush(TIMEOUT).expect("flushed");
    let options = SubscribeOptions { from, retained: true };
    let mut again = bus(&broker).subscribe_with("n.>", options).expect("subscribed");
    for n in 5..=10 {
        let message = next_message(&mut again);
        assert!(message.kept && message.dropped == 0);
        assert_eq!(message.text(), n.to_string());
    }
    assert!(matches!(next(&mut again), Event::CaughtUp { kept: 6, .. }));
    assert_eq!(broker.end(), 0);
}

#[test]
fn who_reads_too_slowly_is_told_exactly_how_much_was_dropped_and_delays_nobody() {
    let broker = Broker::start(&[]);
    broker.op("set topic_queue_max 100");
    let publisher = bus(&broker);
    let mut slow = bus(&broker).subscribe("n.>").expect("subscribed");
    assert!(matches!(next(&mut slow), Event::CaughtUp { .. }));
    let mut quick = bus(&broker).subscribe("n.>").expect("subscribed");
    let count = 4000;
    /// How many messages came, and how many were dropped, before the last one.
    fn sum(subscription: &mut Subscription) -> (u64, u64) {
        let (mut got, mut dropped) = (0, 0);
        loop {
            let message = next_message(subscription);
            dropped += message.dropped;
            if message.topic == "n.last" {
                return (got, dropped);
            }
            got += 1;
        }
    }
    let reading = thread::Builder::new().spawn(move || sum(&mut quick)).expect("a thread");
    let payload = vec![b'x'; 16 * 1024];
    for n in 0..count {
        publisher.publish("n.a", &payload).expect("sent");
        // So the quick one keeps up.
        if n % 50 == 0 {
            publisher.flush(TIMEOUT).expect("flushed");
        }
    }
    publisher.message("n.last").send_and_wait("end").expect("published");
    let (got, dropped) = reading.join().expect("it reads");
    assert_eq!(got + dropped, count, "{got} came");
    let (got, dropped) = sum(&mut slow);
    assert_eq!(got + dropped, count, "{got} came");
    assert!(dropped > 0, "the slow one got all of {count}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn after_a_restart_of_the_broker_subscriptions_and_instances_are_there_again() {
    let mut broker = Broker::start(&[]);
    let watched = bus(&broker);
    let mut all = bus(&broker).subscribe("n.>").expect("subscribed");
    assert!(matches!(next(&mut all), Event::CaughtUp { .. }));
    let pump = watched.announce(InstanceOptions::new("pump").group("night")).expect("announced");
    pump.set_state(InstanceState::Running, "well").expect("told");
    pump.checkpoint(7);
    assert!(watched.beat().expect("no end"));
    broker.kill();
    broker.restart();
    let Event::Lost(_) = next(&mut all) else { panic!("no loss") };
    let Event::Resumed(_) = next(&mut all) else { panic!("no return") };
    assert!(matches!(next(&mut all), Event::Missing(Missing::Epoch)));
    assert!(matches!(next(&mut all), Event::CaughtUp { .. }));
    bus(&broker).publish("n.x", "again").expect("sent");
    assert_eq!(next_message(&mut all).payload, "again");
    let mut states = bus(&broker).subscribe("isect.state.night.*").expect("subscribed");
    await_that("it is watched again", || {
        watched.beat().expect("no end");
        matches!(pump.standing(), Standing::Watched(_)).then_some(())
    });
    // The announce says the state, and the change behind it the text.
    while await_state(&mut states, "pump", "running").get("text").is_none_or(|it| it != "well") {}
    pump.withdraw("done").expect("told");
    let said = await_state(&mut states, "pump", "ended");
    assert_eq!((said["reason"].as_str(), said["text"].as_str()), ("withdrawn", "done"));
    assert_eq!(broker.end(), 0);
}

#[test]
fn another_program_with_the_same_id_takes_over_and_the_first_is_told() {
    // Only over a Unix socket it is known that both are of one user.
    let broker = Broker::start(&["--listen", "unix:b.sock"]);
    let at = Address::parse(&broker.port("client_unix")).expect("an address");
    let login = || Bus::connect(std::slice::from_ref(&at), Options::default()).expect("a login");
    let (first, second) = (login(), login());
    let old = first.announce(InstanceOptions::new("pump").id(5)).expect("announced");
    let new = second.announce(InstanceOptions::new("pump").id(5)).expect("announced");
    assert!(matches!(new.standing(), Standing::Watched(it) if it.displaced));
    await_that("the first is told", || {
        first.beat().expect("no end");
        matches!(old.standing(), Standing::Ended(_)).then_some(())
    });
    let error = old.set_state(InstanceState::Running, "").expect_err("displaced");
    assert!(error.is(ErrorCode::BadInstance), "{error}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_program_that_says_nothing_is_timed_out_and_a_late_beat_brings_it_back() {
    let broker = Broker::start(&[]);
    let mut states = bus(&broker).subscribe("isect.state.night.*").expect("subscribed");
    let watched = bus(&broker);
    let timeout = Duration::from_millis(300);
    let options = InstanceOptions::new("pump").group("night").timeout(timeout);
    let pump = watched.announce(options.state(InstanceState::Running)).expect("announced");
    assert!(watched.beat_due().is_some_and(|due| due <= Duration::from_millis(100)));
    await_state(&mut states, "pump", "timed out");
    pump.checkpoint(3);
    watched.beat().expect("no end");
    let said = await_state(&mut states, "pump", "running");
    assert_eq!((said["was"].as_str(), said["checkpoint"].as_str()), ("timed out", "3"));
    drop((pump, watched));
    await_state(&mut states, "pump", "ended");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_worker_publishes_and_has_instances_of_its_own_watched_while_it_waits() {
    let broker = Broker::start(&[]);
    broker.op("config service echo selfstart=1");
    let reader = bus(&broker);
    let mut said = reader.subscribe("echo.*").expect("subscribed");
    let mut states = reader.subscribe("isect.state.parts.*").expect("subscribed");
    let address = Address::parse(&broker.port("worker")).expect("an address");
    let service = ServiceName::new("echo").expect("a name");
    let mut worker =
        Worker::connect(WorkerOptions::self_started(address, service)).expect("a login");
    let working = thread::Builder::new()
        .spawn(move || {
            let timeout = Duration::from_millis(500);
            let options = InstanceOptions::new("part").group("parts").timeout(timeout);
            let id = worker.announce(options).expect("announced");
            worker.set_state(id, InstanceState::Running, "ready").expect("told");
            worker.publish("isect.not", "mine").expect("sent");
            worker.publish("echo.ready", "yes").expect("sent");
            while let Some(request) = worker.next().expect("requests") {
                worker.checkpoint(id, 9, false);
                let refused = worker.refused().len();
                worker.publish("echo.got", request.body.clone()).expect("sent");
                let is_watched = matches!(worker.standing(id), Standing::Watched(_));
                worker.reply(format!("{refused} {is_watched}")).expect("answered");
            }
            worker.withdraw(id, false, "asked to");
        })
        .expect("a thread");
    assert_eq!(next_message(&mut said).text(), "yes");
    let begun = await_state(&mut states, "part", "running");
    assert_eq!(begun["text"], "ready");
    // Longer than its time-out: it beats while it waits.
    let until = Duration::from_millis(1500);
    while let Some(event) = states.next_within(until).expect("no end") {
        if let Event::Message(message) = event {
            assert_ne!(lines(&message)["state"], "timed out");
        }
    }
    let mut caller = broker.login("echo");
    assert_eq!(caller.call("hello", Some(TIMEOUT)).expect("an answer"), "1 true");
    let got = next_message(&mut said);
    assert_eq!((got.topic.as_str(), got.text().as_ref()), ("echo.got", "hello"));
    caller.logout().expect("an end");
    assert_eq!(broker.end(), 0);
    working.join().expect("the worker ends");
}

#[test]
fn the_verbs_publish_and_print() {
    let broker = Broker::start(&[]);
    bus(&broker).message("orders.first").retain().send_and_wait("0").expect("published");
    let mut sub = verb(&broker, "sub.log", &["sub", "-n", "5", "orders.>"]);
    sub.await_log("orders.first 0\n", 1);
    let host = broker.port("client");
    let publish = |args: &[&str], input: &str| {
        let all = [&["pub", "-h", host.as_str()][..], args].concat();
        isect_tests::proc::run("isdclient", &all, input.as_bytes())
    };
    let done = publish(&["orders.eu", "two", "words"], "");
    assert_eq!((done.status, done.out.as_str(), done.err.as_str()), (0, "", ""));
    assert_eq!(publish(&["orders.lines", "--lines"], "a\nb\u{1b}[2J\n").status, 0);
    let told = publish(&["-v", "--retain", "orders.kept"], "3");
    assert!(told.out.starts_with("orders.kept: 1 subscriptions, position "), "{told:?}");
    assert_eq!(sub.await_end(), 0);
    let expected = "orders.first 0\norders.eu two words\norders.lines a\norders.lines b\\u{1b}[2J\norders.kept 3\n";
    assert_eq!(sub.log(), expected);
    let kept = isect_tests::proc::run("isdclient", &["sub", "-h", &host, "--kept", "-p", ">"], b"");
    assert_eq!((kept.status, kept.out.as_str()), (0, "0\n3\n"));
    let denied = publish(&["isect.x", "y"], "");
    assert!(denied.status == 1 && denied.err.contains("denied"), "{denied:?}");
    assert_eq!(publish(&["bad..topic", "y"], "").status, 2);
    assert_eq!(publish(&["--remove", "orders.kept"], "").status, 0);
    let args = ["sub", "-h", &host, "--timeout", "50", ">"];
    assert_eq!(isect_tests::proc::run("isdclient", &args, b"").status, 4);
    let mut owner = verb(&broker, "owner.log", &["pub", "--while-connected", "orders.mine", "x"]);
    let mut mine = bus(&broker).subscribe("orders.mine").expect("subscribed");
    assert_eq!(next_message(&mut mine).payload, "x");
    owner.signal(Signal::SIGINT);
    assert_eq!(owner.await_end(), 0);
    assert_eq!(next_message(&mut mine).removed, Some(Removed::OwnerGone));
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_interrupted_sub_says_where_to_go_on() {
    let broker = Broker::start(&[]);
    let publisher = bus(&broker);
    publisher.message("n.first").retain().send_and_wait("0").expect("published");
    let mut sub = verb(&broker, "sub.log", &["sub", "n.>"]);
    sub.await_log("n.first 0\n", 1);
    publisher.publish("n.a", "one").expect("sent");
    sub.await_log("n.a one\n", 1);
    sub.signal(Signal::SIGINT);
    assert_eq!(sub.await_end(), 0);
    let log = sub.log();
    let (_, rest) = log.split_once("--from ").expect("a position");
    let position = rest.split(' ').next().expect("a position");
    publisher.publish("n.b", "two").expect("sent");
    publisher.flush(TIMEOUT).expect("flushed");
    let host = broker.port("client");
    let args = ["sub", "-h", &host, "-n", "1", "--json", "--from", position, "n.>"];
    let done = isect_tests::proc::run("isdclient", &args, b"");
    let line: serde_json::Value = serde_json::from_str(&done.out).expect("JSON");
    assert_eq!((line["payload"].as_str(), line["kept"].as_bool()), (Some("two"), Some(true)));
    assert_eq!(broker.end(), 0);
}

#[test]
fn any_program_is_watched_and_keeps_its_signals_and_its_exit_status() {
    let broker = Broker::start(&[]);
    let mut states = bus(&broker).subscribe("isect.state.night.*").expect("subscribed");
    let script = "trap 'echo termed; exit 7' TERM; echo \"out $1\"; \
                  echo checkpoint 5 >&$ISECT_INSTANCE_FD; \
                  echo state 100 sending it >&$ISECT_INSTANCE_FD; while :; do sleep 0.05; done";
    let words = ["announce", "pump", "--group", "night", "--id", "9", "--meta", "v 2", "--"];
    let shell = ["/bin/sh", "-c", script, "sh", "arg"];
    let mut pump = verb(&broker, "pump.log", &[&words[..], &shell].concat());
    let said = await_state(&mut states, "pump", "running");
    assert_eq!(said["id"], "9");
    let said = await_state(&mut states, "pump", "100");
    assert_eq!((said["text"].as_str(), said["checkpoint"].as_str()), ("sending it", "5"));
    pump.signal(Signal::SIGTERM);
    assert_eq!(pump.await_end(), 7);
    assert_eq!(pump.log(), "out arg\ntermed\n");
    let said = await_state(&mut states, "pump", "ended");
    assert_eq!((said["reason"].as_str(), said["text"].as_str()), ("failed", "exit status 7"));
    let mut good = verb(&broker, "good.log", &[&words[..], &["/bin/true"]].concat());
    assert_eq!(good.await_end(), 0);
    let said = await_state(&mut states, "pump", "ended");
    assert_eq!((said["reason"].as_str(), said["text"].as_str()), ("withdrawn", "exit status 0"));
    let mut killed =
        verb(&broker, "killed.log", &[&words[..], &["/bin/sh", "-c", "kill -KILL $$"]].concat());
    assert_eq!(killed.await_end(), 128 + 9);
    let said = await_state(&mut states, "pump", "ended");
    assert_eq!((said["reason"].as_str(), said["text"].as_str()), ("failed", "killed by SIGKILL"));
    let mut missing = verb(&broker, "missing.log", &[&words[..], &["/no/such"]].concat());
    assert_eq!(missing.await_end(), 127);
    assert_eq!(broker.end(), 0);
}

#[test]
fn with_activity_only_lines_show_that_a_program_goes_on() {
    let broker = Broker::start(&[]);
    let mut states = bus(&broker).subscribe("isect.state.night.*").expect("subscribed");
    // It writes a line for each that it reads.
    let script = "while read line; do echo checkpoint $line >&$ISECT_INSTANCE_FD; done < fifo";
    let fifo = broker.folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let words = ["announce", "pump", "--group", "night", "--activity", "--timeout", "400", "--"];
    let mut pump = verb(&broker, "pump.log", &[&words[..], &["/bin/sh", "-c", script]].concat());
    let mut feed = std::fs::OpenOptions::new().write(true).open(&fifo).expect("the fifo");
    await_state(&mut states, "pump", "running");
    await_state(&mut states, "pump", "timed out");
    std::io::Write::write_all(&mut feed, b"4\n").expect("fed");
    let said = await_state(&mut states, "pump", "running");
    assert_eq!(said["was"], "timed out");
    await_state(&mut states, "pump", "timed out");
    drop(feed);
    assert_eq!(pump.await_end(), 0);
    await_state(&mut states, "pump", "ended");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_program_runs_without_a_broker_and_is_announced_when_there_is_one() {
    let mut broker = Broker::start(&["--listen", "unix:b.sock"]);
    let socket = broker.port("client_unix");
    broker.kill();
    let words = ["announce", "-h", &socket, "pump", "--group", "night", "--", "/bin/cat", "fifo"];
    let fifo = broker.folder.path().join("fifo");
    nix::unistd::mkfifo(&fifo, nix::sys::stat::Mode::S_IRWXU).expect("a fifo");
    let log = broker.folder.path().join("pump.log");
    let mut pump = Process::start(&program("isdclient"), &words, log);
    pump.await_log("is not watched for now", 1);
    broker.restart();
    let options = Options::default();
    let at = Address::parse(&broker.port("client_unix")).expect("an address");
    let mut states = Bus::connect(&[at], options)
        .expect("a login")
        .subscribe("isect.state.night.*")
        .expect("subscribed");
    let said = await_state(&mut states, "pump", "running");
    assert_eq!(said["was"], "none");
    drop(std::fs::OpenOptions::new().write(true).open(&fifo).expect("the fifo"));
    assert_eq!(pump.await_end(), 0);
    assert_eq!(broker.end(), 0);
}
