//! What holds for any order of events: the machine against models.

use super::{Bus, Numbers, link};
use crate::engine::action::Action;
use crate::engine::input::{Close, Input};
use bytes::Bytes;
use protocol::messages::{MessageOf, Missing, Removed, Retain};
use protocol::{Frame, Setting};
use std::collections::BTreeMap;

/// A message of a model: its topic, and whether its value is kept or removed with it.
fn body(numbers: &mut Numbers) -> (String, Retain, Option<Removed>, Bytes) {
    let topic = format!("{}.{}", ["a", "b"][numbers.below(2) as usize], numbers.below(4));
    let (retain, removed) = match numbers.below(4) {
        0 | 1 => (Retain::Yes, None),
        2 => (Retain::No, None),
        _ => (Retain::No, Some(Removed::Deleted)),
    };
    let message = MessageOf { retain, removed, ..MessageOf::new(&topic, b"") };
    let body = message.body();
    (topic, retain, removed, body)
}

#[test]
fn who_comes_back_at_any_time_has_the_state_that_is_and_each_message_once() {
    for (seed, ring) in [(1, 1000), (2, 7), (3, 1), (4, 0)] {
        let mut numbers = Numbers(seed);
        let mut bus = Bus::new(1, &[(Setting::TopicRingMax, ring)]);
        let mut log: Vec<(String, Retain, Option<Removed>)> = Vec::new();
        for round in 1..60 {
            let (topic, retain, removed, body) = body(&mut numbers);
            bus.publish(0, body);
            log.push((topic, retain, removed));
            // A reader that stopped at each message there was comes back.
            for from in 0..=log.len() as u64 {
                bus.open(round);
                bus.out.clear();
                bus.subscribe(round, 7, "a.*", Some(from));
                bus.rest();
                let missing = bus.missing();
                let got = bus.take().remove(&(round, 7)).unwrap_or_default();
                let mut seen: Vec<u64> = got.iter().map(|got| got.number).collect();
                let matching = |first: u64| {
                    let all = log.iter().enumerate().map(|(at, of)| (at as u64 + 1, of));
                    all.filter(move |(at, (topic, ..))| *at >= first && topic.starts_with("a."))
                };
                assert!(got.iter().all(|got| got.is_before && got.dropped == 0));
                match missing {
                    None => {
                        let all: Vec<u64> = matching(from + 1).map(|(at, _)| at).collect();
                        assert_eq!(seen, all, "from {from} of {}", log.len());
                    }
                    Some(Missing::Numbers(first, last)) => {
                        assert_eq!(first, from + 1);
                        assert_eq!(last, log.len() as u64 - ring, "the ring has all behind it");
                        seen.sort_unstable();
                        assert!(seen.windows(2).all(|two| two[0] < two[1]), "{seen:?}");
                        let mut values: BTreeMap<&str, u64> = BTreeMap::new();
                        for (at, (topic, retain, removed)) in matching(1) {
                            if removed.is_some() {
                                values.remove(topic.as_str());
                            } else if *retain != Retain::No {
                                values.insert(topic, at);
                            }
                        }
                        let since = matching(last + 1).map(|(at, _)| at);
                        let mut all: Vec<u64> = values.into_values().chain(since).collect();
                        all.sort_unstable();
                        all.dedup();
                        assert_eq!(seen, all, "from {from} of {}", log.len());
                    }
                    Some(Missing::Epoch) => panic!("it is the same start"),
                }
                bus.give(Input::Closed { link: link(round), how: Close::Eof });
            }
            bus.check();
        }
    }
}

/// What a model knows of a subscription.
#[derive(Default)]
struct Reader {
    /// Messages that it is to get, or that are to be counted as dropped.
    due: Vec<u64>,
    got: Vec<u64>,
    dropped: u64,
}

#[test]
fn each_message_is_sent_in_order_or_counted_as_dropped_right_before_the_next_one() {
    let limits = [
        (Setting::SubscriptionQueueMax, 5),
        (Setting::SubscriptionQueueBytesMax, 1024),
        (Setting::TopicRingMax, 4),
    ];
    let mut numbers = Numbers(11);
    let mut bus = Bus::new(4, &limits);
    let mut readers: BTreeMap<(u32, u32), Reader> = BTreeMap::new();
    let (mut last, mut is_congested) = (0, [false; 4]);
    for at in 0..4 {
        for (number, pattern) in [(1, "a.*"), (2, ">")] {
            bus.subscribe(at, number, pattern, None);
            readers.insert((at, number), Reader::default());
        }
    }
    for _ in 0..6000 {
        match numbers.below(8) {
            0 => {
                let at = numbers.below(4) as u32;
                let is = &mut is_congested[at as usize];
                *is = !*is;
                let link = link(at);
                bus.give(if *is { Input::Congested { link } } else { Input::Uncongested { link } });
            }
            1 => bus.rest(),
            _ => {
                let (topic, .., body) = body(&mut numbers);
                bus.publish(numbers.below(4) as u32, body);
                last += 1;
                for ((_, number), reader) in &mut readers {
                    if *number == 2 || topic.starts_with("a.") {
                        reader.due.push(last);
                    }
                }
            }
        }
        for (key, got) in bus.take() {
            let reader = readers.get_mut(&key).unwrap();
            for got in got {
                let due = reader.due.iter().position(|number| *number == got.number);
                let before = due.unwrap_or_else(|| panic!("{key:?} got {got:?}")) as u64;
                assert_eq!(before, got.dropped, "{key:?} got {got:?}");
                reader.due.drain(..=before as usize);
                reader.got.push(got.number);
                reader.dropped += before;
            }
        }
    }
    bus.check();
    for at in 0..4 {
        if is_congested[at as usize] {
            bus.give(Input::Uncongested { link: link(at) });
        }
    }
    bus.rest();
    for (key, got) in bus.take() {
        let reader = readers.get_mut(&key).unwrap();
        got.iter().for_each(|got| reader.due.retain(|number| *number > got.number));
    }
    assert!(readers.values().all(|reader| reader.due.is_empty()));
    assert!(readers.values().map(|reader| reader.dropped).sum::<u64>() > 1000);
}

#[test]
fn a_reader_that_begins_at_any_time_sees_what_is_kept_as_if_it_had_been_there() {
    for seed in 0..30 {
        let mut numbers = Numbers(seed);
        let mut bus = Bus::new(5, &[(Setting::TopicRingMax, 3 + seed % 5)]);
        // By reader: the topics that have a value, by the number of that.
        let mut views: BTreeMap<u32, BTreeMap<String, u64>> = BTreeMap::new();
        let mut values: BTreeMap<String, u64> = BTreeMap::new();
        let (mut last, mut is_congested) = (0, [false; 4]);
        let mut caught_up = 0;
        for round in 0..400 {
            let at = numbers.below(4) as u32;
            match numbers.below(10) {
                0 => {
                    let is = &mut is_congested[at as usize];
                    *is = !*is;
                    let link = link(at);
                    bus.give(if *is {
                        Input::Congested { link }
                    } else {
                        Input::Uncongested { link }
                    });
                }
                1 => {
                    bus.now += 1;
                    bus.give(Input::Deadline);
                }
                2 if !views.contains_key(&at) => {
                    let from = Some(last + 1).filter(|_| round % 2 == 0);
                    bus.subscribe(at, 1, ">", from);
                    views.insert(at, BTreeMap::new());
                }
                _ => {
                    let topic = format!("t.{}", numbers.below(12));
                    let payload = vec![b'x'; 20_000];
                    let message = MessageOf::new(&topic, &payload);
                    let message = match numbers.below(4) {
                        0 => {
                            let removed = Some(Removed::Deleted);
                            MessageOf { removed, payload: b"", ..message }
                        }
                        _ => MessageOf { retain: Retain::Yes, ..message },
                    };
                    let is_removed = message.removed.is_some();
                    bus.publish(4, message.body());
                    last += 1;
                    values.remove(&topic);
                    if !is_removed {
                        values.insert(topic, last);
                    }
                }
            }
            if round == 399 {
                for at in (0..4).filter(|at| is_congested[*at as usize]) {
                    bus.give(Input::Uncongested { link: link(at) });
                }
                bus.rest();
            }
            let is_end =
                |action: &&Action| matches!(action, Action::Send { frame: Frame::CaughtUp(_), .. });
            caught_up += bus.out.iter().filter(is_end).count();
            for ((at, _), got) in bus.take() {
                let view = views.get_mut(&at).unwrap();
                for got in got {
                    let old = view.remove(&got.topic);
                    assert!(
                        old.is_none_or(|old| old < got.number),
                        "{at} got {got:?} after {old:?}"
                    );
                    if !got.is_removed {
                        view.insert(got.topic, got.number);
                    }
                }
            }
            bus.check();
        }
        assert_eq!(caught_up, views.len(), "seed {seed}");
        for (at, view) in views {
            assert_eq!(view, values, "reader {at}, seed {seed}");
        }
    }
}
