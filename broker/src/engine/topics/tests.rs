//! What holds for any order of events: played against a model, and with very many.

use crate::engine::EngineOptions;
use crate::engine::action::Action;
use crate::engine::context::context;
use crate::engine::hub::Engine;
use crate::engine::input::{Input, Peer};
use bytes::Bytes;
use protocol::bodies::{Login, Subscribe};
use protocol::messages::{MessageLines, MessageOf, Missing, Position, Removed, Retain};
use protocol::topics::Pattern;
use protocol::{Frame, Header, LinkId, ServiceName, Setting, Settings, Tick};
use std::collections::BTreeMap;

/// Numbers that look random, always the same ones.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: u64) -> u64 {
        self.0 = self.0.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1);
        (self.0 >> 33) % end
    }
}

/// An engine, and what it sent.
struct Bus {
    engine: Engine,
    now: u64,
    out: Vec<Action>,
}

const fn link(index: u32) -> LinkId {
    LinkId { index, generation: 0 }
}

/// What a subscriber got of a message.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Got {
    number: u64,
    topic: String,
    is_before: bool,
    dropped: u64,
    is_removed: bool,
}

impl Bus {
    fn new(clients: u32, set: &[(Setting, u64)]) -> Self {
        let mut settings = Settings::default();
        set.iter().for_each(|(setting, value)| settings.set(*setting, *value));
        let engine = Engine::new(EngineOptions { settings, ..EngineOptions::default() });
        let mut bus = Self { engine, now: 0, out: Vec::new() };
        bus.give(Input::Started);
        (0..clients).for_each(|index| bus.open(index));
        bus
    }

    fn open(&mut self, index: u32) {
        let link = link(index);
        self.give(Input::ClientOpened { link, peer: Peer { is_owner: true, ..Peer::default() } });
        let login = Box::new(Login::to(ServiceName::bus()));
        self.give(Input::Login { link, login });
    }

    fn give(&mut self, input: Input) {
        self.engine.step(Tick(self.now), input, &mut self.out);
    }

    /// Lets time pass until nothing is left to be done at once.
    fn rest(&mut self) {
        while let Some(due) = self.engine.next_deadline().filter(|due| due.0 <= self.now + 1) {
            self.now = self.now.max(due.0);
            self.give(Input::Deadline);
        }
        self.now += 1;
    }

    fn subscribe(&mut self, at: u32, number: u32, pattern: &str, from: Option<u64>) {
        let subscribe = Subscribe {
            subscription: number,
            pattern: pattern.to_owned(),
            from: from.map(|number| Position { epoch: 0, number }),
            retained: true,
        };
        self.give(Input::Subscribe { link: link(at), subscribe: Box::new(subscribe) });
    }

    fn publish(&mut self, at: u32, body: Bytes) {
        self.give(Input::Publish { link: link(at), head: Header::default(), body });
    }

    /// What was sent to a subscription since the last call, and forgets all that was sent.
    fn take(&mut self) -> BTreeMap<(u32, u32), Vec<Got>> {
        let mut taken: BTreeMap<(u32, u32), Vec<Got>> = BTreeMap::new();
        for action in self.out.drain(..) {
            let Action::Send { link, frame: Frame::Message { head, body } } = action else {
                continue;
            };
            let lines = MessageLines::read(&body).unwrap();
            taken.entry((link.index, head.sequence)).or_default().push(Got {
                number: head.transaction,
                topic: lines.topic.to_owned(),
                is_before: head.more != 0,
                dropped: head.attempt.into(),
                is_removed: lines.removed.is_some(),
            });
        }
        taken
    }

    fn missing(&self) -> Option<Missing> {
        self.out.iter().find_map(|action| match action {
            Action::Send { frame: Frame::Subscribed(subscribed), .. } => Some(subscribed.missing),
            _ => None,
        })?
    }

    fn check(&self) {
        self.engine.check_all().unwrap_or_else(|law| panic!("{law}"));
    }
}

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
                bus.give(Input::Closed {
                    link: link(round),
                    how: crate::engine::input::Close::Eof,
                });
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
fn what_the_broker_publishes_for_nobody_is_missing_to_those_who_could_have_read_it() {
    let mut bus = Bus::new(2, &[]);
    let publish = |bus: &mut Bus| {
        bus.engine.topics.publish_own(
            "isect.state.x",
            &[("state", "up".into())],
            context!(bus.engine),
        );
        bus.out.append(&mut bus.engine.out);
    };
    publish(&mut bus);
    publish(&mut bus);
    bus.subscribe(0, 1, "isect.state.>", Some(1));
    assert_eq!(bus.missing(), Some(Missing::Numbers(2, 2)));
    bus.out.clear();
    bus.subscribe(0, 2, "a", Some(0));
    assert_eq!(bus.missing(), None);
    assert!(bus.engine.topics.has_own_subscribers());
    publish(&mut bus);
    let got = bus.take();
    assert_eq!(got[&(0, 1)].len(), 1);
    assert_eq!((got[&(0, 1)][0].number, got[&(0, 1)][0].topic.as_str()), (3, "isect.state.x"));
    bus.out.clear();
    bus.subscribe(1, 1, "isect.state.x", Some(2));
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
    bus.engine.topics.subscribe_service(service, &pattern("a.>"));
    bus.publish(0, MessageOf::new("a.b", b"x").body());
    bus.publish(0, MessageOf::new("b", b"x").body());
    assert_eq!(delivered(&bus), [("a.>".to_owned(), 1)]);
    bus.engine.topics.subscribe_service(service, &pattern("b"));
    bus.publish(0, MessageOf::new("b", b"x").body());
    assert_eq!(delivered(&bus), [("b".to_owned(), 1)]);
    bus.check();
    bus.engine.topics.unsubscribe_service(service);
    assert_eq!(delivered(&bus), []);
    bus.check();
}
