//! Peers that have the broker do as much as they can at one tick.

use super::{Bus, link};
use crate::engine::action::Action;
use crate::engine::input::{Close, Input};
use protocol::LinkId;
use protocol::messages::{MessageOf, Retain};

impl Bus {
    /// The links that were stopped being read, and those that are read again.
    fn held(&self) -> (Vec<LinkId>, Vec<LinkId>) {
        let (mut stopped, mut resumed) = (Vec::new(), Vec::new());
        for action in &self.out {
            match action {
                Action::StopReading { link } => stopped.push(*link),
                Action::ResumeReading { link } => resumed.push(*link),
                _ => {}
            }
        }
        (stopped, resumed)
    }

    fn pass_a_tick(&mut self) {
        self.out.clear();
        self.now += 1;
        self.give(Input::Deadline);
    }
}

#[test]
fn a_topic_that_many_patterns_nearly_match_holds_its_publisher_until_the_next_tick() {
    let mut bus = Bus::new(3, &[]);
    // All of them match the first 31 words, and none the last one.
    for number in 0..1024_u32 {
        let first = (0..10).map(|bit| if number >> bit & 1 == 0 { "a" } else { "*" });
        let words: Vec<&str> = first.chain(["*"; 21]).chain(["b"]).collect();
        bus.subscribe(0, number + 1, &words.join("."), None);
    }
    let words: Vec<&str> = std::iter::repeat_n("a", 31).chain(["c"]).collect();
    let topic = words.join(".");
    bus.subscribe(2, 1, "z", None);
    for _ in 0..3 {
        bus.out.clear();
        bus.publish(1, MessageOf::new(&topic, b"x").body());
        assert_eq!(bus.held(), (vec![link(1)], vec![]));
        bus.check();
        // Another one, whose messages wait behind, is not held for those that nobody gets.
        bus.publish(2, MessageOf::new("y", b"x").body());
        assert_eq!(bus.held(), (vec![link(1)], vec![]));
        bus.publish(2, MessageOf::new("z", b"x").body());
        assert_eq!(bus.held(), (vec![link(1), link(2)], vec![]));
        bus.check();
        bus.pass_a_tick();
        assert_eq!(bus.held(), (vec![], vec![link(1), link(2)]));
        assert_eq!(bus.take()[&(2, 1)].len(), 1);
        bus.check();
    }
    // Once this tick has done all that it may, whoever publishes waits, and is held once.
    for round in 0..16 {
        bus.publish(1, MessageOf::new(&topic, b"x").body());
        bus.out.clear();
        bus.publish(2, MessageOf::new("y", b"x").body());
        let stopped = if round == 13 { vec![link(2)] } else { vec![] };
        assert_eq!(bus.held(), (stopped, vec![]), "in round {round}");
        bus.check();
    }
    bus.rest();
    assert_eq!(bus.engine.topics.totals().under_way, 0);
    bus.check();
}

#[test]
fn subscribers_at_one_tick_are_sent_so_much_from_before_and_the_rest_later() {
    const VALUES: u32 = 2500;
    const READERS: u32 = 65;
    let mut bus = Bus::new(READERS + 1, &[]);
    for value in 0..VALUES {
        let topic = format!("a.{value}");
        let message = MessageOf { retain: Retain::Yes, ..MessageOf::new(&topic, b"value") };
        bus.publish(READERS, message.body());
    }
    bus.now += 1;
    (0..READERS).for_each(|reader| bus.subscribe(reader, 1, "*.*", None));
    let mut sent: usize = bus.take().values().map(Vec::len).sum();
    // To look at those that have no room any more counts as well.
    assert!(sent > 38_000 && sent < 40_000, "{sent} were sent at one tick");
    bus.check();
    // Those of whom nothing is sent any more take no more time either.
    for reader in 0..READERS {
        bus.give(Input::Congested { link: link(reader) });
        bus.give(Input::Uncongested { link: link(reader) });
    }
    assert_eq!(bus.take().len(), 0);
    bus.pass_a_tick();
    let more: usize = bus.take().values().map(Vec::len).sum();
    assert!(more > 0 && more <= 2000, "{more} were sent in a step");
    sent += more;
    bus.rest();
    sent += bus.take().values().map(Vec::len).sum::<usize>();
    assert_eq!(sent, (VALUES * READERS) as usize);
    bus.check();
}

#[test]
fn subscriptions_of_links_that_go_at_one_tick_are_removed_so_many_at_once() {
    const READERS: u32 = 30;
    const EACH: u32 = 2000;
    let mut bus = Bus::new(READERS, &[]);
    for reader in 0..READERS {
        (1..=EACH).for_each(|number| bus.subscribe(reader, number, "a", None));
    }
    bus.now += 1;
    for reader in 0..READERS {
        bus.give(Input::Closed { link: link(reader), how: Close::Eof });
    }
    assert_eq!(bus.engine.topics.totals().subscriptions, (READERS * EACH - 40_000) as usize);
    bus.check();
    bus.rest();
    assert_eq!(bus.engine.topics.totals().subscriptions, 0);
    bus.check();
}

#[test]
fn values_that_expire_at_once_are_removed_so_many_in_a_step() {
    let mut bus = Bus::new(1, &[]);
    for value in 0..1000 {
        let topic = format!("a.{value}");
        let message = MessageOf {
            retain: Retain::Yes,
            expires_ms: Some(1000),
            ..MessageOf::new(&topic, b"value")
        };
        bus.publish(0, message.body());
    }
    bus.now = 1_000_000;
    let mut kept = Vec::new();
    for _ in 0..4 {
        bus.pass_a_tick();
        kept.push(bus.engine.topics.totals().kept);
    }
    assert_eq!(kept, [750, 500, 250, 0]);
    bus.check();
}
