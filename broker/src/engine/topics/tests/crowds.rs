//! With very many subscriptions or values; what the broker and services have to do with it.

use super::{Bus, link};
use crate::engine::action::Action;
use crate::engine::context::context;
use crate::engine::input::{Close, Input};
use protocol::Tick;
use protocol::messages::{MessageOf, Missing, Retain};
use protocol::topics::Pattern;
use std::collections::BTreeMap;

#[test]
fn stalled_readers_of_very_many_values_hold_no_memory_and_get_all_when_they_read() {
    const VALUES: u32 = 30_000;
    const READERS: u32 = 50;
    let mut bus = Bus::new(READERS + 1, &[]);
    for value in 0..VALUES {
        let topic = format!("a.{value}");
        let message = MessageOf { retain: Retain::Yes, ..MessageOf::new(&topic, b"value") };
        bus.publish(READERS, message.body());
    }
    bus.out.clear();
    let mut most = 0;
    for reader in 0..READERS {
        bus.subscribe(reader, 1, ">", None);
        bus.give(Input::Congested { link: link(reader) });
        let sent: usize = bus.take().values().map(Vec::len).sum();
        most = most.max(sent);
    }
    assert!(most <= 2000, "{most} messages were sent in one step");
    bus.rest();
    assert_eq!(bus.take().len(), 0, "nothing is sent to who takes nothing");
    let totals = bus.engine.topics.totals();
    assert_eq!((totals.queued_bytes, totals.kept), (0, VALUES as usize));
    let mut count = 0;
    bus.give(Input::Uncongested { link: link(0) });
    loop {
        let sent = bus.take().remove(&(0, 1)).unwrap_or_default();
        let bytes: usize = sent.iter().map(|got| got.topic.len() + 25).sum();
        assert!(bytes <= 80_000, "{bytes} bytes were sent in one step");
        count += sent.len();
        if bus.engine.next_deadline().is_none_or(|due| due.0 > bus.now + 1) {
            break;
        }
        bus.now += 1;
        bus.give(Input::Deadline);
    }
    assert!(count + most >= VALUES as usize, "{count} of {VALUES} values were sent");
    bus.check();
}

#[test]
fn a_large_message_to_many_readers_does_not_stand_in_all_outboxes_at_once() {
    const READERS: u32 = 40;
    let mut bus = Bus::new(READERS + 1, &[]);
    (0..READERS).for_each(|reader| bus.subscribe(reader, 1, "a", None));
    bus.publish(READERS, MessageOf::new("a", &[7; 1_000_000]).body());
    let mut steps = Vec::new();
    while steps.iter().sum::<usize>() < READERS as usize {
        steps.push(bus.take().len());
        bus.now += 1;
        bus.give(Input::Deadline);
    }
    assert_eq!(steps, [17, 17, 6]);
    bus.check();
}

#[test]
fn what_the_broker_publishes_for_nobody_is_missing_to_those_who_could_have_read_it() {
    let mut bus = Bus::new(2, &[]);
    let publish = |bus: &mut Bus| {
        bus.engine.topics.publish_own(
            "isect.state.x",
            &[("state", "up".into())],
            None,
            context!(bus.engine),
        );
        bus.out.append(&mut bus.engine.out);
    };
    publish(&mut bus);
    publish(&mut bus);
    bus.subscribe(0, 1, "isect.state.>", Some(1));
    assert_eq!(bus.missing(), Some(Missing::Numbers(2, 3)));
    bus.out.clear();
    bus.subscribe(0, 2, "a", Some(0));
    assert_eq!(bus.missing(), None);
    assert!(bus.engine.topics.keeps_own(Tick(0)));
    publish(&mut bus);
    let got = bus.take();
    assert_eq!(got[&(0, 1)].len(), 1);
    assert_eq!((got[&(0, 1)][0].number, got[&(0, 1)][0].topic.as_str()), (4, "isect.state.x"));
    bus.out.clear();
    bus.subscribe(1, 1, "isect.state.x", Some(3));
    assert_eq!((bus.missing(), bus.take()[&(1, 1)].len()), (None, 1));
    bus.check();
}

#[test]
fn messages_go_to_a_service_as_long_as_it_subscribes() {
    let mut bus = Bus::new(1, &[]);
    let service = bus.engine.catalog.bus();
    let pattern = |text| Pattern::new(text).unwrap();
    let delivered = |bus: &Bus| {
        let (shown, _) = bus.engine.topics.subscriptions_from(None, 0, 10);
        shown.iter().map(|it| (it.pattern.to_string(), it.delivered)).collect::<Vec<_>>()
    };
    bus.engine.topics.subscribe_service(service, &pattern("a.>"), Tick(0));
    bus.publish(0, MessageOf::new("a.b", b"x").body());
    bus.publish(0, MessageOf::new("b", b"x").body());
    assert_eq!(delivered(&bus), [("a.>".to_owned(), 1)]);
    bus.engine.topics.subscribe_service(service, &pattern("b"), Tick(0));
    bus.publish(0, MessageOf::new("b", b"x").body());
    assert_eq!(delivered(&bus), [("b".to_owned(), 1)]);
    bus.check();
    bus.engine.topics.unsubscribe_service(service, Tick(0));
    assert_eq!(delivered(&bus), []);
    bus.check();
}

#[test]
fn a_message_goes_to_some_in_a_step_and_its_publisher_is_read_no_further_meanwhile() {
    const READERS: u32 = 5;
    const EACH: u32 = 3000;
    let mut bus = Bus::new(READERS + 2, &[]);
    for reader in 0..READERS {
        (1..=EACH).for_each(|number| bus.subscribe(reader, number, "a", None));
    }
    bus.subscribe(READERS, 1, ">", None);
    bus.out.clear();
    let publisher = READERS + 1;
    for topic in ["a", "b"] {
        bus.publish(publisher, MessageOf::new(topic, b"x").body());
    }
    // The second one waits behind the first one.
    bus.subscribe(READERS, 2, "b", None);
    let is_stop = |action: &Action| matches!(action, Action::StopReading { .. });
    assert_eq!(bus.out.iter().filter(|action| is_stop(action)).count(), 1);
    let mut steps = Vec::new();
    let mut last: BTreeMap<(u32, u32), Vec<u64>> = BTreeMap::new();
    loop {
        let is_read = bus.out.iter().any(|it| matches!(it, Action::ResumeReading { .. }));
        let taken = bus.take();
        steps.push(taken.values().map(Vec::len).sum::<usize>());
        for (key, got) in taken {
            last.entry(key).or_default().extend(got.iter().map(|got| got.number));
        }
        if is_read {
            break;
        }
        bus.now += 1;
        bus.give(Input::Deadline);
    }
    assert_eq!(steps, [2000, 2000, 2000, 2000, 2000, 2000, 2000, 1002]);
    assert_eq!(last.len(), (READERS * EACH + 1) as usize);
    assert_eq!(last[&(READERS, 1)], [1, 2]);
    assert!(last.iter().all(|(key, got)| key.0 == READERS || *got == [1]));
    bus.check();
    // Their ends take more than a step as well, and nobody notices.
    for reader in 0..READERS {
        bus.give(Input::Closed { link: link(reader), how: Close::Eof });
        bus.publish(publisher, MessageOf::new("a", b"x").body());
        bus.check();
    }
    bus.rest();
    assert_eq!(bus.take()[&(READERS, 1)].len(), READERS as usize);
    assert_eq!(bus.engine.topics.totals().subscriptions, 2);
    bus.check();
}
