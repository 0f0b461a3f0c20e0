//! Tests of the bus against a played broker: the frames, what comes of them, and what the library
//! does after a loss.

#![allow(clippy::disallowed_methods, reason = "tests need threads and clocks of their own")]
#![expect(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use bytes::Bytes;
use client::bus::{
    Bus, Event, InstanceOptions, InstanceState, Message, Missing, Options, Position, Removed,
    Standing, SubscribeOptions, Subscription,
};
use client::protocol::bodies::{
    Announce, Announced, Beat, BeatOk, CaughtUp, Flushed, Published, Subscribe, Subscribed,
    Unsubscribed,
};
use client::protocol::errors::{ErrorCode, Ran};
use client::protocol::frame::Frame;
use client::protocol::header::Header;
use client::protocol::messages::{MessageLines, MessageOf, Retain};
use common::{FakeBroker, Peer, TIMEOUT, beside, failed};
use std::time::Duration;

const EPOCH: u64 = 1_700_000_000_000_000;

fn at(number: u64) -> Position {
    Position { epoch: EPOCH, number }
}

fn options() -> Options {
    Options { name: Some("test".to_owned()), ..Options::default() }
}

/// A connected bus, and the broker's end of its connection.
fn connected(broker: &FakeBroker, options: Options) -> (Bus, Peer) {
    let address = broker.address();
    let bus = beside(move || Bus::connect(&[address], options).unwrap());
    let peer = broker.client();
    (bus.join().unwrap(), peer)
}

fn subscribe_frame(peer: &mut Peer) -> Subscribe {
    match peer.frame() {
        Frame::Subscribe(subscribe) => subscribe,
        other => panic!("{other:?} is no subscribe"),
    }
}

fn announce_frame(peer: &mut Peer) -> Announce {
    match peer.frame() {
        Frame::Announce(announce) => announce,
        other => panic!("{other:?} is no announce"),
    }
}

fn beat_frame(peer: &mut Peer) -> Beat {
    match peer.frame() {
        Frame::Beat(beat) => beat,
        other => panic!("{other:?} is no beat"),
    }
}

fn publish_frame(peer: &mut Peer) -> (Header, Bytes) {
    match peer.frame() {
        Frame::Publish { head, body } => (head, body),
        other => panic!("{other:?} is no publish"),
    }
}

/// Answers a subscribe, without messages from before.
fn accept(peer: &mut Peer, subscribe: &Subscribe, newest: u64, missing: Option<Missing>) {
    let subscription = subscribe.subscription;
    peer.send(Frame::Subscribed(Subscribed { subscription, at: at(newest), missing }));
    peer.send(Frame::CaughtUp(CaughtUp { subscription, kept: 0, dropped: 0 }));
}

fn message(subscription: u32, number: u64, topic: &str, payload: &[u8]) -> Frame {
    let head = Header { sequence: subscription, transaction: number, ..Header::default() };
    Frame::Message { head, body: MessageOf::new(topic, payload).body() }
}

fn next(subscription: &mut Subscription) -> Event {
    subscription.next_within(TIMEOUT).unwrap().expect("an event in time")
}

fn next_message(subscription: &mut Subscription) -> Message {
    match next(subscription) {
        Event::Message(message) => message,
        other => panic!("{other:?} is no message"),
    }
}

/// Subscribes, while the broker accepts it.
fn subscribed(bus: &Bus, peer: &mut Peer, newest: u64) -> (Subscription, u32) {
    let subscribing = {
        let bus = bus.clone();
        beside(move || bus.subscribe("orders.>").unwrap())
    };
    let frame = subscribe_frame(peer);
    assert_eq!((frame.pattern.as_str(), frame.from, frame.retained), ("orders.>", None, true));
    accept(peer, &frame, newest, None);
    let mut subscription = subscribing.join().unwrap();
    assert!(matches!(next(&mut subscription), Event::CaughtUp { kept: 0, dropped: 0 }));
    (subscription, frame.subscription)
}

#[test]
fn a_login_is_for_the_bus_and_promises_to_answer_pings() {
    let broker = FakeBroker::unix();
    let address = broker.address();
    let bus = beside(move || Bus::connect(&[address], options()).unwrap());
    let mut peer = broker.accept();
    let login = peer.login();
    assert_eq!(login.service.as_str(), "bus");
    assert!(login.heartbeat);
    peer.send(Frame::LoginOk(common::login_ok()));
    let bus = bus.join().unwrap();
    assert!(bus.address().is_some());
    peer.send(Frame::Ping { sequence: 9 });
    let answered = beside(move || (peer.frame(), peer));
    common::eventually("the ping is answered", || bus.poll().unwrap() && answered.is_finished());
    assert!(bus.broker_seen().is_some());
    let (pong, mut peer) = answered.join().unwrap();
    assert_eq!(pong, Frame::Pong { sequence: 9 });
    bus.close().unwrap();
    assert!(matches!(peer.frame(), Frame::Logout(_)));
    assert_eq!(peer.next(), None);
}

#[test]
fn messages_are_published_with_what_is_said_of_them() {
    let broker = FakeBroker::tcp();
    let (bus, mut peer) = connected(&broker, options());
    bus.publish("orders.eu", b"\0x").unwrap();
    let kept = bus.message("orders.open").while_connected().expires(Duration::from_secs(2));
    kept.line("colour", "red").send("3").unwrap();
    let (head, body) = publish_frame(&mut peer);
    let first = head.sequence;
    assert_eq!((head.reply, &body[..]), (0, &b"topic orders.eu\n\n\0x"[..]));
    let (head, body) = publish_frame(&mut peer);
    assert_ne!(head.sequence, first);
    let lines = "topic orders.open\nretain connected\nexpires_ms 2000\ncolour red\n\n3";
    assert_eq!(body, lines);
    let removing = {
        let bus = bus.clone();
        beside(move || bus.remove("orders.open").unwrap())
    };
    let (head, body) = publish_frame(&mut peer);
    assert_eq!((head.reply, body), (1, Bytes::from("topic orders.open\nremoved deleted\n\n")));
    peer.send(Frame::Published(Published { publish: head.sequence, at: at(46), subscriptions: 2 }));
    let receipt = removing.join().unwrap();
    assert_eq!((receipt.subscriptions, receipt.position), (2, at(46)));
}

#[test]
fn what_breaks_a_rule_is_not_sent() {
    let broker = FakeBroker::unix();
    let (bus, mut peer) = connected(&broker, options());
    failed(bus.publish("a..b", ""), ErrorCode::BadMessage);
    failed(bus.publish("a.*", ""), ErrorCode::BadMessage);
    failed(bus.message("a").line("two words", "x").send(""), ErrorCode::BadMessage);
    failed(bus.message("a").line("retain", "yes").send(""), ErrorCode::BadMessage);
    failed(bus.message("a").line("x", "a\n\nb").send(""), ErrorCode::BadMessage);
    failed(bus.message("a").expires(Duration::from_secs(1)).send(""), ErrorCode::BadMessage);
    failed(bus.message("a").line("x", &"y".repeat(5000)).send(""), ErrorCode::BadMessage);
    failed(bus.subscribe("a.>.b"), ErrorCode::BadMessage);
    let error = failed(bus.publish("a", vec![0; 2 << 20]), ErrorCode::BodyTooLarge);
    assert!(error.text.contains("body_bytes_max 1048576"), "{error}");
    bus.publish("a", "good").unwrap();
    assert_eq!(publish_frame(&mut peer).1, "topic a\n\ngood");
}

#[test]
fn refusals_of_what_nobody_waited_for_are_kept() {
    let broker = FakeBroker::unix();
    let (bus, mut peer) = connected(&broker, options());
    bus.publish("secret.a", "1").unwrap();
    let flushing = {
        let bus = bus.clone();
        beside(move || bus.flush(TIMEOUT).unwrap())
    };
    let (head, _) = publish_frame(&mut peer);
    let sequence = head.sequence;
    peer.error(Header { sequence, ..Header::default() }, ErrorCode::Denied, "publish:secret.a");
    let Frame::Flush { sequence: flush } = peer.frame() else { panic!("a flush") };
    peer.send(Frame::Flushed(Flushed { flush, refused: 0 }));
    let refused = flushing.join().unwrap();
    assert!(refused.len() == 1 && refused[0].is(ErrorCode::Denied), "{refused:?}");
    assert!(bus.refused().is_empty());
}

#[test]
fn an_awaited_publish_may_be_refused_or_lost() {
    let broker = FakeBroker::unix();
    let (bus, mut peer) = connected(&broker, Options { reconnect: false, ..options() });
    let publishing = |bus: &Bus| {
        let bus = bus.clone();
        beside(move || bus.message("a").retain().send_and_wait("x"))
    };
    let first = publishing(&bus);
    let (head, body) = publish_frame(&mut peer);
    assert_eq!(MessageLines::read(&body).unwrap().retain, Retain::Yes);
    let sequence = head.sequence;
    peer.error(Header { sequence, ..Header::default() }, ErrorCode::LimitReached, "retained_max");
    failed(first.join().unwrap(), ErrorCode::LimitReached);
    let second = publishing(&bus);
    publish_frame(&mut peer);
    drop(peer);
    let error = failed(second.join().unwrap(), ErrorCode::BrokerLost);
    assert_eq!(error.ran, Ran::Maybe);
    let error = bus.publish("a", "y").unwrap_err();
    assert!(error.is(ErrorCode::BrokerLost) && error.ran == Ran::No, "{error}");
}

#[test]
fn a_subscription_brings_messages_with_all_that_is_known_of_them() {
    let broker = FakeBroker::tcp();
    let (bus, mut peer) = connected(&broker, options());
    let (mut subscription, number) = subscribed(&bus, &mut peer, 40);
    assert_eq!(subscription.position(), Some(at(40)));
    let body = MessageOf {
        retain: Retain::Yes,
        lines: &[("colour", "red")],
        ..MessageOf::new("orders.eu", b"17")
    };
    let head = Header { sequence: number, transaction: 44, attempt: 3, ..Header::default() };
    peer.send(Frame::Message { head, body: body.body() });
    let gone = MessageOf { removed: Some(Removed::Expired), ..MessageOf::new("orders.eu", b"") };
    let head = Header { sequence: number, transaction: 45, more: 1, ..Header::default() };
    peer.send(Frame::Message { head, body: gone.body() });
    assert_eq!(
        next_message(&mut subscription),
        Message {
            topic: "orders.eu".into(),
            payload: Bytes::from("17"),
            lines: vec![("colour".into(), "red".into())],
            kept: false,
            dropped: 3,
            retain: Retain::Yes,
            removed: None,
            position: at(44),
        }
    );
    assert_eq!(subscription.position(), Some(at(44)));
    let removed = next_message(&mut subscription);
    assert_eq!((removed.removed, removed.kept), (Some(Removed::Expired), true));
    assert!(subscription.try_next().unwrap().is_none());
    assert!(subscription.next_within(Duration::from_millis(1)).unwrap().is_none());
    let unsubscribing = beside(move || subscription.unsubscribe().unwrap());
    assert!(matches!(peer.frame(), Frame::Unsubscribe(it) if it.subscription == number));
    // What crosses the end is dropped.
    peer.send(message(number, 46, "orders.eu", b"late"));
    let answer = Unsubscribed { subscription: number, delivered: 2, dropped: 3 };
    peer.send(Frame::Unsubscribed(answer));
    assert_eq!(unsubscribing.join().unwrap(), answer);
}

#[test]
fn a_refused_subscription_is_an_error_and_the_connection_goes_on() {
    let broker = FakeBroker::unix();
    let (bus, mut peer) = connected(&broker, options());
    let subscribing = {
        let bus = bus.clone();
        beside(move || bus.subscribe("secret.>"))
    };
    let sequence = subscribe_frame(&mut peer).subscription;
    peer.error(Header { sequence, ..Header::default() }, ErrorCode::Denied, "subscribe:secret.>");
    failed(subscribing.join().unwrap(), ErrorCode::Denied);
    subscribed(&bus, &mut peer, 1);
}

#[test]
fn a_subscription_goes_on_after_its_last_message_when_the_broker_is_back() {
    let broker = FakeBroker::unix();
    let (bus, mut peer) = connected(&broker, options());
    let (mut subscription, number) = subscribed(&bus, &mut peer, 40);
    bus.publish("orders.eu", "once").unwrap();
    publish_frame(&mut peer);
    peer.send(message(number, 44, "orders.eu", b"first"));
    assert_eq!(next_message(&mut subscription).payload, "first");
    drop(peer);
    let reading = beside(move || {
        let events: Vec<Event> = (0..5).map(|_| next(&mut subscription)).collect();
        (subscription, events)
    });
    let mut peer = broker.client();
    // Nothing is published again.
    let again = subscribe_frame(&mut peer);
    assert_eq!((again.from, again.subscription), (Some(at(44)), number));
    let missing = Some(Missing::Numbers(45, 47));
    peer.send(Frame::Subscribed(Subscribed { subscription: number, at: at(50), missing }));
    peer.send(message(number, 48, "orders.us", b"second"));
    peer.send(Frame::CaughtUp(CaughtUp { subscription: number, kept: 1, dropped: 0 }));
    let (subscription, events) = reading.join().unwrap();
    let [Event::Lost(error), Event::Resumed(position), Event::Missing(gap), rest @ ..] =
        &events[..]
    else {
        panic!("{events:?}")
    };
    assert!(error.is(ErrorCode::BrokerLost));
    assert_eq!((*position, *gap), (at(50), Missing::Numbers(45, 47)));
    let [Event::Message(second), Event::CaughtUp { kept: 1, .. }] = rest else {
        panic!("{rest:?}")
    };
    assert_eq!(second.payload, "second");
    assert_eq!(subscription.position(), Some(at(50)));
}

#[test]
fn a_program_goes_on_where_an_earlier_run_was() {
    let broker = FakeBroker::unix();
    let (bus, mut peer) = connected(&broker, options());
    let subscribing = beside(move || {
        let from = SubscribeOptions { from: Some(at(41)), retained: false };
        bus.subscribe_with("orders.>", from).unwrap()
    });
    let frame = subscribe_frame(&mut peer);
    assert_eq!((frame.from, frame.retained), (Some(at(41)), false));
    let subscription = frame.subscription;
    peer.send(Frame::Subscribed(Subscribed { subscription, at: at(45), missing: None }));
    let mut resumed = subscribing.join().unwrap();
    assert_eq!(resumed.position(), Some(at(41)));
    let head = Header { sequence: subscription, transaction: 43, more: 1, ..Header::default() };
    peer.send(Frame::Message { head, body: MessageOf::new("orders.a", b"x").body() });
    assert!(next_message(&mut resumed).kept);
    // Without a gap they come in order, so that half of them are worth keeping.
    assert_eq!(resumed.position(), Some(at(43)));
}

#[test]
fn a_program_that_takes_nothing_loses_the_oldest_and_is_told_how_many() {
    let broker = FakeBroker::tcp();
    let (bus, mut peer) = connected(&broker, Options { queue_max: 3, ..options() });
    let (mut subscription, number) = subscribed(&bus, &mut peer, 0);
    for at in 1..=10 {
        peer.send(message(number, at, "orders.x", b"a"));
    }
    peer.send(Frame::Ping { sequence: 1 });
    // The pong shows that all was read.
    common::eventually("all is read", || {
        bus.poll().unwrap();
        peer.pipe.set_timeout(Duration::from_millis(1));
        let mut chunk = [0; 1024];
        match std::io::Read::read(&mut peer.pipe, &mut chunk) {
            Ok(size) => size > 0,
            Err(_) => false,
        }
    });
    let kept: Vec<(u64, u64)> = (0..3)
        .map(|_| next_message(&mut subscription))
        .map(|message| (message.position.number, message.dropped))
        .collect();
    assert_eq!(kept, [(8, 7), (9, 0), (10, 0)]);
}

#[test]
fn several_threads_wait_on_one_connection() {
    let broker = FakeBroker::tcp();
    let (bus, mut peer) = connected(&broker, options());
    let (mut one, first) = subscribed(&bus, &mut peer, 0);
    let (mut other, second) = subscribed(&bus, &mut peer, 0);
    let count = 200;
    let reading = [
        beside(move || (0..count).map(|_| next_message(&mut one).position.number).sum::<u64>()),
        beside(move || (0..count).map(|_| next_message(&mut other).position.number).sum::<u64>()),
    ];
    let publishing = {
        let bus = bus.clone();
        beside(move || {
            (0..count).for_each(|n| {
                bus.message("orders.x").send_and_wait(n.to_string()).unwrap();
            });
        })
    };
    for number in 1..=count {
        let (head, body) = publish_frame(&mut peer);
        for sequence in [first, second] {
            let head = Header { sequence, transaction: number, ..Header::default() };
            peer.send(Frame::Message { head, body: body.clone() });
        }
        let publish = head.sequence;
        peer.send(Frame::Published(Published { publish, at: at(number), subscriptions: 2 }));
    }
    publishing.join().unwrap();
    for thread in reading {
        assert_eq!(thread.join().unwrap(), count * (count + 1) / 2);
    }
}

fn announced(peer: &mut Peer, announce: &Announce, beat_ms: u64) {
    peer.send(Frame::Announced(Announced {
        sequence: announce.sequence,
        id: announce.id,
        incarnation: 5,
        beat_ms,
        activity_timeout_ms: 5000,
        displaced: false,
    }));
}

#[test]
fn an_instance_is_announced_beats_and_is_withdrawn() {
    let broker = FakeBroker::unix();
    let (bus, mut peer) = connected(&broker, options());
    assert_eq!(bus.beat_due(), None);
    let announcing = {
        let bus = bus.clone();
        beside(move || {
            let pump = InstanceOptions::new("pump").group("night").timeout(TIMEOUT);
            let pump = pump.stalled(TIMEOUT).state(InstanceState::Running).address("tcp:x:1");
            bus.announce(pump.meta("version", "2.1").state_name(100, "sending")).unwrap()
        })
    };
    let announce = announce_frame(&mut peer);
    assert_eq!((announce.name.as_str(), &announce.groups[..]), ("pump", &["night".into()][..]));
    assert_eq!((announce.activity_timeout_ms, announce.stalled_ms), (20_000, 20_000));
    assert_eq!(
        (announce.meta[0].as_str(), announce.id),
        ("version 2.1", std::process::id().into())
    );
    announced(&mut peer, &announce, 1);
    let pump = announcing.join().unwrap();
    assert!(matches!(pump.standing(), Standing::Watched(it) if it.incarnation == 5));
    pump.checkpoint(7);
    pump.idle(true);
    assert!(bus.beat().unwrap());
    let beat = beat_frame(&mut peer);
    let of = beat.instances[0];
    assert_eq!((of.id, of.checkpoint, of.is_idle), (announce.id, 7, true));
    common::eventually("the next beat is due", || bus.beat_if_due().unwrap());
    beat_frame(&mut peer);
    pump.set_own_state(100, &"x".repeat(100)).unwrap();
    let Frame::StateChange(change) = peer.frame() else { panic!("a state-change") };
    assert_eq!((change.state, change.text.len()), (InstanceState::Own(100), 80));
    failed(pump.set_own_state(99, ""), ErrorCode::BadInstance);
    pump.fail("no more water").unwrap();
    let Frame::Withdraw(withdraw) = peer.frame() else { panic!("a withdraw") };
    assert!(withdraw.failed && withdraw.text == "no more water" && withdraw.id == announce.id);
    assert_eq!(bus.beat_due(), None);
}

#[test]
fn instances_are_announced_again_with_their_state_and_displaced_ones_are_told() {
    let broker = FakeBroker::unix();
    let (bus, mut peer) = connected(&broker, options());
    let announcing = {
        let bus = bus.clone();
        beside(move || {
            let options = || InstanceOptions::new("pump");
            (bus.announce(options()).unwrap(), bus.announce(options()).unwrap())
        })
    };
    let first = announce_frame(&mut peer);
    announced(&mut peer, &first, 1000);
    let second = announce_frame(&mut peer);
    assert_ne!(first.id, second.id);
    announced(&mut peer, &second, 1000);
    let (one, other) = announcing.join().unwrap();
    drop(peer);
    one.checkpoint(12);
    common::eventually("the loss is noticed", || {
        !bus.poll().unwrap() || { one.set_state(InstanceState::Running, "well").is_err() }
    });
    let _ = one.set_state(InstanceState::Running, "well");
    let beating = {
        let bus = bus.clone();
        beside(move || common::eventually("it is back", || bus.beat().unwrap()))
    };
    let mut peer = broker.client();
    let mut states = Vec::new();
    for _ in 0..2 {
        let again = announce_frame(&mut peer);
        let Frame::StateChange(change) = peer.frame() else { panic!("a state-change") };
        states.push((again.id, change.state, change.checkpoint, change.text));
        announced(&mut peer, &again, 1000);
    }
    states.sort_by_key(|(id, ..)| *id);
    let well = (first.id, InstanceState::Running, Some(12), "well".to_owned());
    let fresh = (second.id, InstanceState::Starting, Some(0), String::new());
    assert_eq!(states, [well, fresh]);
    beating.join().unwrap();
    common::eventually("both are watched", || {
        bus.poll().unwrap();
        [&one, &other].iter().all(|it| matches!(it.standing(), Standing::Watched(_)))
    });
    bus.beat().unwrap();
    let beat = loop {
        if let beat @ Beat { instances, .. } = &beat_frame(&mut peer)
            && instances.len() == 2
        {
            break beat.clone();
        }
    };
    peer.send(Frame::BeatOk(BeatOk { beat: beat.beat, unknown: vec![second.id] }));
    common::eventually("it is known to be displaced", || {
        bus.poll().unwrap();
        matches!(other.standing(), Standing::Ended(_))
    });
    let error = failed(other.set_state(InstanceState::Running, ""), ErrorCode::BadInstance);
    assert!(error.text.contains("displaced"), "{error}");
    assert!(matches!(one.standing(), Standing::Watched(_)));
}

#[test]
fn a_broker_that_knows_no_bus_is_told_at_once_and_for_good() {
    let broker = FakeBroker::unix();
    let address = broker.address();
    let bus = beside(move || Bus::connect(&[address], options()));
    let mut peer = broker.accept();
    peer.login();
    peer.error(Header::default(), ErrorCode::UnknownService, "no service 'bus'");
    failed(bus.join().unwrap(), ErrorCode::UnknownService);
    let (bus, peer) = connected(&broker, options());
    drop(peer);
    let polling = beside(move || {
        let mut last = None;
        common::eventually("the refusal is final", || {
            last = bus.poll().err();
            last.is_some()
        });
        last.unwrap()
    });
    let mut peer = broker.accept();
    peer.login();
    peer.error(Header::default(), ErrorCode::BadToken, "not known");
    assert!(polling.join().unwrap().is(ErrorCode::BadToken));
}

#[test]
fn a_caller_publishes_between_its_requests() {
    use client::caller::{Caller, Options, Send};
    let broker = FakeBroker::unix();
    let address = broker.address();
    let calling = beside(move || {
        let options = Options::new(common::service("echo"));
        let mut caller = Caller::login(&[address], options).unwrap();
        let asked = caller.send("ask", &Send::default()).unwrap();
        let message = MessageOf::new("orders.eu", b"17");
        let first = caller.publish(&message, TIMEOUT).unwrap();
        let refused = failed(caller.publish(&message, TIMEOUT), ErrorCode::Denied);
        let reply = caller.recv_from(asked, Some(TIMEOUT)).unwrap();
        (first.at, refused, reply.body, caller.under_way())
    });
    let mut peer = broker.client();
    let (ask, _) = peer.data();
    let (head, body) = publish_frame(&mut peer);
    assert_eq!(body, "topic orders.eu\n\n17");
    assert_ne!(head.sequence, ask.sequence);
    peer.answer(&ask, "answer");
    let publish = head.sequence;
    peer.send(Frame::Published(Published { publish, at: at(9), subscriptions: 0 }));
    let (head, _) = publish_frame(&mut peer);
    let sequence = head.sequence;
    peer.error(Header { sequence, ..Header::default() }, ErrorCode::Denied, "publish:orders.eu");
    let (position, _, answer, under_way) = calling.join().unwrap();
    assert_eq!((position, &answer[..], under_way), (at(9), &b"answer"[..], 0));
}

#[test]
fn a_worker_passes_over_what_comes_of_messages_and_instances() {
    use client::worker::{Worker, WorkerOptions};
    let broker = FakeBroker::tcp();
    let address = broker.address();
    let working = beside(move || {
        let options = WorkerOptions::self_started(address, common::service("echo"));
        let mut worker = Worker::connect(options).unwrap();
        let id = worker.announce(InstanceOptions::new("part")).unwrap();
        worker.publish("orders.eu", "17").unwrap();
        let request = worker.next().unwrap().unwrap();
        assert_eq!(request.body, "hi");
        let refused = worker.refused();
        worker.checkpoint(id, 3, true);
        worker.set_state(id, InstanceState::Running, "").unwrap();
        worker.reply("done").unwrap();
        assert!(worker.next().unwrap().is_none());
        (refused, worker.standing(id))
    });
    let mut peer = broker.worker(common::worker_login_ok());
    let announce = announce_frame(&mut peer);
    let (head, _) = publish_frame(&mut peer);
    let sequence = head.sequence;
    announced(&mut peer, &announce, 1);
    peer.error(Header { sequence, ..Header::default() }, ErrorCode::Denied, "publish:orders.eu");
    peer.send(message(5, 9, "orders.eu", b"nobody asked"));
    // It beats while it waits for a request.
    let beat = beat_frame(&mut peer);
    assert_eq!(beat.instances[0].id, announce.id);
    peer.send(Frame::BeatOk(BeatOk { beat: beat.beat, unknown: Vec::new() }));
    peer.request(1, "hi", false);
    loop {
        match peer.frame() {
            Frame::Beat(_) => {}
            Frame::StateChange(change) => {
                assert_eq!((change.id, change.checkpoint), (announce.id, Some(3)));
                break;
            }
            other => panic!("{other:?} is no state-change"),
        }
    }
    assert_eq!(peer.data().1, "done");
    peer.send(Frame::End);
    let (refused, standing) = working.join().unwrap();
    assert!(refused.len() == 1 && refused[0].is(ErrorCode::Denied), "{refused:?}");
    assert!(matches!(standing, Standing::Watched(_)));
}
