//! Topics and instances: moves with hostile values, and what must be answered and delivered.

use super::checker::Sabotage;
use super::moves;
use super::player::BrokerPlayer;
use crate::fuzz::source::Source;
use broker::engine::input::Input;
use bytes::Bytes;
use protocol::bodies::{
    Announce, Beat, Login, StateChange, Subscribe, Subscribed, Unsubscribe, Withdraw,
};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::instances::{BeatOf, InstanceState, InstanceType, StateName};
use protocol::kinds::Role;
use protocol::messages::{MessageLines, MessageOf, Position, Removed, Retain};
use protocol::names::ServiceName;
use protocol::topics::{OWN_WORD, Pattern};
use std::collections::{BTreeMap, BTreeSet};

const TOPICS: &[&str] = &["a", "a.b", "b", "a.b.c", "isect.state.x", "isect", "a..b", "*", ""];
const PATTERNS: &[&str] = &[
    ">",
    "*",
    "a.>",
    "a.*",
    "a.b",
    "*.b",
    "isect.>",
    "isect.state.>",
    "isect.fact.>",
    ">.a",
    "a..",
    "",
];
const NAMES: &[&str] = &["pump", "echo", "valve", "op", "", "a b", "no.dots", "é"];
const NUMBERS: &[u64] = &[0, 1, 2, 99, 100, 500, 5000, 86_400_001, u64::MAX];

/// One move.
pub(super) fn next(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let number = source.byte();
    // Seldom of somebody who may not, or is not logged in yet.
    let is_any = number >= 240;
    let Some(link) =
        moves::pick(player, source, |conn| is_any || (conn.is_known && conn.role != Role::Host))
    else {
        return player_of_bus(player, source);
    };
    let frame = match number & 15 {
        0 => return player_of_bus(player, source),
        1..=3 => subscribe(source),
        4 => Frame::Unsubscribe(Unsubscribe { subscription: small(source) }),
        5..=9 => publish(source),
        10 => announce(source),
        11 => state_change(source),
        12 | 13 => beat(source),
        14 => Frame::Withdraw(Withdraw {
            sequence: small(source),
            id: source.pick(NUMBERS),
            failed: source.is_yes(),
            text: source.text(),
        }),
        _ => return command(player, source),
    };
    player.frame(link, frame);
}

/// A client that only publishes, subscribes and announces.
fn player_of_bus(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    if player.shell.ends.len() < moves::CONNS_MAX {
        let link = player.connect(Role::Client, source.is_yes());
        player.frame(link, Frame::Login(Login::to(ServiceName::bus())));
    }
}

/// An operator looks, or makes the limits small.
fn command(player: &mut BrokerPlayer, source: &mut Source<'_>) {
    let texts = [
        "topics",
        "subscriptions",
        "instances",
        "instances history",
        "groups",
        "set topic_queue_max 2",
        "set topic_queue_bytes_max 1024",
        "set topic_ring_max 2",
        "set topic_ring_bytes_max 100",
        "set retained_max 1",
        "set retained_bytes_max 0",
        "set subscriptions_max 2",
        "set instances_max 1",
        "set instances_bytes_max 1200",
        "set instance_history_max 1",
        "config group night min=1 pump valve",
        "delete group night",
    ];
    let link = moves::pick(player, source, |conn| conn.is_operator);
    let text = source.pick(&texts);
    if let Some(link) = link {
        let head = Header { sequence: 7, reply: 1, ..Header::default() };
        player.command(link, head, text.as_bytes());
    }
}

fn small(source: &mut Source<'_>) -> u32 {
    source.pick(&[1, 2, 3, 4, 0, 5, u32::MAX])
}

fn subscribe(source: &mut Source<'_>) -> Frame {
    let flags = source.byte();
    let pattern = match flags & 15 {
        0 => "a.".repeat(source.below(256)) + "b",
        1 => source.text(),
        _ => source.pick(PATTERNS).to_owned(),
    };
    let from = (flags & 48 == 48).then(|| Position {
        epoch: if flags & 64 == 0 { 0 } else { source.pick(NUMBERS) },
        number: u64::from(source.byte()) << (((flags >> 6) & 1) * 50),
    });
    Frame::Subscribe(Subscribe {
        subscription: small(source),
        pattern,
        from,
        retained: flags & 128 == 0,
    })
}

fn publish(source: &mut Source<'_>) -> Frame {
    let flags = source.byte();
    let head = Header {
        sequence: small(source),
        reply: u16::from(flags & 1 == 0),
        more: u16::from(flags == 255),
        ..Header::default()
    };
    let body = match flags & 14 {
        0 => Bytes::copy_from_slice(source.bytes(2048, 16)),
        2 => Bytes::from(format!("topic a\nlong {}\n\n", "x".repeat(source.below(256) * 20))),
        _ => {
            let topic = source.pick(TOPICS);
            let removed = [Removed::Deleted, Removed::Deleted, Removed::Expired];
            let removed = (flags & 112 == 112).then(|| source.pick(&removed));
            let retain = source.pick(&[Retain::No, Retain::Yes, Retain::Connected]);
            let expires_ms = (flags & 112 == 96).then(|| source.pick(NUMBERS));
            let payload = source.bytes(1024, 8);
            MessageOf { retain, expires_ms, removed, ..MessageOf::new(topic, payload) }.body()
        }
    };
    Frame::Publish { head, body }
}

fn text(source: &mut Source<'_>) -> String {
    match source.below(4) {
        0 => "x".repeat(source.below(256) * 8),
        1 => source.text(),
        _ => "text".to_owned(),
    }
}

fn state(source: &mut Source<'_>) -> InstanceState {
    source.pick(&[
        InstanceState::Running,
        InstanceState::Starting,
        InstanceState::Stopping,
        InstanceState::Stopped,
        InstanceState::Own(100),
        InstanceState::Own(u32::MAX),
    ])
}

fn announce(source: &mut Source<'_>) -> Frame {
    let flags = source.byte();
    let count = if flags & 15 == 0 { 80 } else { usize::from(flags & 3) };
    let (name, group) = (source.pick(NAMES), source.pick(NAMES));
    Frame::Announce(Announce {
        sequence: small(source),
        name: name.to_owned(),
        id: source.pick(NUMBERS),
        kind: source.pick(&[InstanceType::Data, InstanceType::Own(u32::MAX)]),
        groups: if flags & 16 == 0 { vec!["night".into(); count] } else { vec![group.into()] },
        activity_timeout_ms: source.pick(NUMBERS),
        stalled_ms: source.pick(NUMBERS),
        state: state(source),
        addresses: if flags & 32 == 0 { Vec::new() } else { vec![text(source); count] },
        meta: if flags & 64 == 0 { Vec::new() } else { vec![text(source)] },
        state_names: if flags & 128 == 0 {
            Vec::new()
        } else {
            vec![StateName { number: 100, text: text(source) }; count.min(2)]
        },
    })
}

fn state_change(source: &mut Source<'_>) -> Frame {
    Frame::StateChange(StateChange {
        sequence: small(source),
        id: source.pick(NUMBERS),
        state: state(source),
        checkpoint: source.is_yes().then(|| source.number()),
        text: text(source),
    })
}

fn beat(source: &mut Source<'_>) -> Frame {
    let count = source.below(20);
    let of = |_| BeatOf {
        id: source.pick(NUMBERS),
        checkpoint: u64::from(source.byte()),
        is_idle: source.is_yes(),
    };
    let instances = (0..count).map(of).collect();
    Frame::Beat(Beat { beat: small(source), instances })
}

/// A subscription, as its answers say.
#[derive(Clone, Debug)]
struct Live {
    pattern: Pattern,
    /// The newest message when it began, and the last one that it got live.
    last: u64,
    before: BTreeSet<u64>,
    has_caught_up: bool,
    delivered: u64,
    dropped: u64,
}

/// What a frame is to be answered with.
#[derive(Clone, Debug)]
enum Due {
    Subscribe(String),
    Unsubscribe,
    Publish,
    Announce,
    Beat,
    /// Only if it is refused.
    Nothing,
}

/// What was promised to those who publish, subscribe and announce.
#[derive(Debug)]
pub(super) struct BusChecker {
    sabotage: Sabotage,
    /// What the present input has to be answered with, and by what number.
    due: Option<(LinkId, u32, Due)>,
    live: BTreeMap<(LinkId, u32), Live>,
    /// The bodies of messages by number, as far as anybody got them.
    bodies: BTreeMap<u64, Bytes>,
    /// Peers tried to publish these as the broker.
    forged: BTreeSet<Bytes>,
}

impl BusChecker {
    /// An input is about to be given, perhaps of somebody who is logged in.
    pub(super) fn gives(&mut self, input: &Input, is_known: impl Fn(LinkId) -> bool) {
        let (link, number, due) = match input {
            Input::Subscribe { link, subscribe } => {
                (link, subscribe.subscription, Due::Subscribe(subscribe.pattern.clone()))
            }
            Input::Unsubscribe { link, subscription } => (link, *subscription, Due::Unsubscribe),
            Input::Publish { link, head, body } => {
                let lines = MessageLines::read(body);
                if lines.is_ok_and(|lines| lines.topic.split('.').next() == Some(OWN_WORD)) {
                    self.forged.insert(body.clone());
                }
                (link, head.sequence, if head.reply == 0 { Due::Nothing } else { Due::Publish })
            }
            Input::Announce { link, announce } => (link, announce.sequence, Due::Announce),
            Input::Beat { link, beat } => (link, beat.beat, Due::Beat),
            Input::StateChange { link, change } => (link, change.sequence, Due::Nothing),
            Input::Withdraw { link, withdraw } => (link, withdraw.sequence, Due::Nothing),
            _ => return,
        };
        if is_known(*link) {
            self.due = Some((*link, number, due));
        }
    }

    /// The input was given, and all that it did is done.
    pub(super) fn is_given(&mut self) {
        match self.due.take() {
            None | Some((.., Due::Nothing)) => {}
            Some(due) => panic!("it has no answer: {due:?}"),
        }
    }

    /// A link is gone.
    pub(super) fn link_gone(&mut self, link: LinkId) {
        self.live.retain(|(of, _), _| *of != link);
        self.due.take_if(|(of, ..)| *of == link);
    }

    /// A broker that was started anew knows nothing.
    pub(super) fn renew(&mut self) {
        *self = Self::new(self.sabotage);
    }

    /// Nobody was promised anything.
    pub(super) const fn new(sabotage: Sabotage) -> Self {
        Self {
            sabotage,
            due: None,
            live: BTreeMap::new(),
            bodies: BTreeMap::new(),
            forged: BTreeSet::new(),
        }
    }

    fn answers(&mut self, link: LinkId, number: u32, kind: &str) -> Due {
        match self.due.take() {
            Some((of, wanted, due)) if (of, wanted) == (link, number) => due,
            due => panic!("{kind} {number} goes to {link}, due was {due:?}"),
        }
    }

    /// A frame leaves.
    pub(super) fn sent(&mut self, link: LinkId, frame: &Frame) {
        match frame {
            Frame::Subscribed(said) => self.subscribed(link, said),
            Frame::Unsubscribed(said) => {
                self.answers(link, said.subscription, "unsubscribed");
                let live = self.live.remove(&(link, said.subscription)).expect("a subscription");
                assert_eq!(live.delivered, said.delivered, "{said:?} of {live:?}");
                assert!(live.dropped <= said.dropped, "{said:?} of {live:?}");
            }
            Frame::Published(_) if self.sabotage == Sabotage::Unanswered => {}
            Frame::Published(said) => {
                let due = self.answers(link, said.publish, "published");
                assert!(matches!(due, Due::Publish), "{said:?} for {due:?}");
                assert!(self.bodies.keys().next_back().is_none_or(|n| *n <= said.at.number));
            }
            Frame::Announced(said) => {
                let due = self.answers(link, said.sequence, "announced");
                assert!(matches!(due, Due::Announce), "{said:?} for {due:?}");
                assert!(said.beat_ms > 0 && said.beat_ms < said.activity_timeout_ms, "{said:?}");
            }
            Frame::BeatOk(said) => {
                let due = self.answers(link, said.beat, "beat-ok");
                assert!(matches!(due, Due::Beat), "{said:?} for {due:?}");
            }
            Frame::CaughtUp(said) => {
                let live = self.live.get_mut(&(link, said.subscription)).expect("a subscription");
                assert!(!std::mem::replace(&mut live.has_caught_up, true), "{said:?} twice");
                assert_eq!(said.kept, live.before.len() as u64, "{said:?} of {live:?}");
                live.dropped += said.dropped;
            }
            Frame::Message { head, body } => {
                let wrong = u32::from(self.sabotage == Sabotage::WrongSubscription);
                let head = Header { sequence: head.sequence ^ wrong, ..*head };
                self.message(link, &head, body);
                if self.sabotage == Sabotage::MessageTwice {
                    self.message(link, &head, body);
                }
            }
            // It may be about something else of this number.
            Frame::Error { head, .. } => {
                self.due.take_if(|(of, number, _)| (*of, *number) == (link, head.sequence));
            }
            _ => {}
        }
    }

    fn subscribed(&mut self, link: LinkId, said: &Subscribed) {
        let Due::Subscribe(pattern) = self.answers(link, said.subscription, "subscribed") else {
            panic!("{said:?} for something else");
        };
        let pattern = Pattern::new(&pattern).expect("only a pattern is taken");
        let live = Live {
            pattern,
            last: said.at.number,
            before: BTreeSet::new(),
            has_caught_up: false,
            delivered: 0,
            dropped: 0,
        };
        let old = self.live.insert((link, said.subscription), live);
        assert!(old.is_none(), "subscription {} of {link} is twice there", said.subscription);
    }

    fn message(&mut self, link: LinkId, head: &Header, body: &Bytes) {
        let number = head.transaction;
        let live = self.live.get_mut(&(link, head.sequence));
        let live = live.unwrap_or_else(|| panic!("a message for nobody: {link} {head:?}"));
        let lines = MessageLines::read(body).expect("a message that can be read");
        assert!(live.pattern.matches(lines.topic), "'{}' for {live:?}", lines.topic);
        assert!(!self.forged.contains(body), "a peer published '{}'", lines.topic);
        let known = self.bodies.entry(number).or_insert_with(|| body.clone());
        assert_eq!(known, body, "message {number} is two");
        live.delivered += 1;
        live.dropped += u64::from(head.attempt);
        if head.more == 0 {
            assert!(live.has_caught_up && number > live.last, "{head:?} for {live:?}");
            live.last = number;
        } else {
            assert!(!live.has_caught_up && number <= live.last, "{head:?} for {live:?}");
            assert!(live.before.insert(number), "{head:?} comes twice: {live:?}");
        }
    }
}
