//! An engine whose clients publish and subscribe, for tests of the machine that play it.

mod crowds;
mod floods;
mod models;

use crate::engine::EngineOptions;
use crate::engine::action::Action;
use crate::engine::hub::Engine;
use crate::engine::input::{Input, Peer};
use bytes::Bytes;
use protocol::bodies::{Login, Subscribe};
use protocol::messages::{MessageLines, Missing, Position};
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
