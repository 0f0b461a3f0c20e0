//! The model is told of the frames of topics and instances that come in and go out.

use crate::sim::links::Peer;
use crate::sim::model::{instances, topics};
use crate::sim::plan::Sabotage;
use crate::sim::world::{Event, World};
use bytes::Bytes;
use protocol::bodies::Subscribed;
use protocol::decode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::kinds::Kind;
use protocol::messages::MessageLines;
use protocol::settings::Setting;

impl World {
    /// The model learns the limits of the broker that begins.
    pub(super) fn limit_topics(&mut self) {
        let Some(broker) = &self.broker else { return };
        let get = |setting| broker.shell.engine.settings().get(setting);
        let topics = topics::Limits {
            retained: get(Setting::RetainedMax),
            subscriptions: get(Setting::SubscriptionsMax),
        };
        let instances = instances::Limits {
            all: get(Setting::InstancesMax),
            of_connection: get(Setting::ConnectionInstancesMax),
            timeout_ms: get(Setting::ActivityTimeoutMs),
            beat_ms: get(Setting::BeatMs),
        };
        self.model.topics.limit(topics);
        self.model.instances.limit(instances);
    }

    /// Whether a connection is of somebody who publishes, subscribes or announces.
    pub(super) fn is_bus(&self, id: u64) -> bool {
        let peer = self.conns.get(&id).map(|conn| conn.peer);
        matches!(peer, Some(Peer::Bus(_) | Peer::Program(_)))
    }

    /// A frame of such a one comes in.
    pub(super) fn bus_comes(&mut self, link: LinkId, kind: Kind, head: &Header, body: &Bytes) {
        // No two are read at the same time: what one link may be sent at one tick is limited.
        self.now.0 += 1;
        self.note(format_args!("{kind} sequence={} comes from {link}", head.sequence));
        let Ok(frame) = decode::frame(kind, *head, body.clone()) else { return };
        let (now, model) = (self.now, &mut self.model);
        match frame {
            Frame::Publish { head, body } => model.topics.publishes(link, &head, &body, now),
            Frame::Subscribe(subscribe) => model.topics.subscribes(link, &subscribe),
            Frame::Unsubscribe(body) => model.topics.unsubscribes(link, body.subscription),
            Frame::Announce(announce) => model.instances.announces(link, &announce),
            Frame::StateChange(change) => model.instances.turns(link, &change, now),
            Frame::Beat(beat) => model.instances.beats(link, &beat, now),
            Frame::Withdraw(withdraw) => model.instances.withdraws(link, &withdraw),
            Frame::Logout(_) => model.instances.logs_out(link),
            _ => {}
        }
    }

    /// A frame leaves for such a one, or for the one that sees all.
    pub(super) fn bus_goes(&mut self, link: LinkId, frame: &Frame) {
        let (now, is_spy) = (self.now, self.is_spy(link));
        let model = &mut self.model;
        let verdict = match frame {
            Frame::Message { head, body } => {
                let verdict = model.topics.message_goes(link, head, body, now);
                if is_spy { verdict.and_then(|()| self.state_goes(body)) } else { verdict }
            }
            Frame::Published(said) => model.topics.published(link, said, now),
            Frame::Subscribed(said) => model.topics.subscribed(link, said),
            Frame::CaughtUp(said) => model.topics.caught_up(link, said),
            Frame::Unsubscribed(said) => model.topics.unsubscribed(link, said),
            Frame::Announced(said) => model.instances.announced(link, said, now),
            Frame::BeatOk(said) => model.instances.beat_ok(link, said),
            // The connection is refused, as a whole.
            Frame::Error { head, .. } if head.sequence == 0 => Ok(()),
            Frame::Error { head, error } => self.bus_is_refused(link, head.sequence, error.code),
            _ => Ok(()),
        };
        self.hold(verdict);
    }

    fn bus_is_refused(
        &mut self,
        link: LinkId,
        sequence: u32,
        code: ErrorCode,
    ) -> Result<(), String> {
        let peer = self.conn_of(link).and_then(|id| self.conns.get(&id)).map(|conn| conn.peer);
        match peer {
            Some(Peer::Program(_)) => self.model.instances.refused(link, sequence, code),
            _ => self.model.topics.refused(link, sequence, code),
        }
    }

    /// The one that sees all is sent a message; it may be about an instance.
    fn state_goes(&mut self, body: &Bytes) -> Result<(), String> {
        let Ok(lines) = MessageLines::read(body) else { return Ok(()) };
        if !lines.topic.starts_with("isect.state.") {
            return Ok(());
        }
        let payload = &body[lines.payload_at..];
        self.model.count("changes of states");
        let is_timed_out = payload.windows(15).any(|window| window == b"state timed out");
        let is_lost = match self.plan.sabotage {
            Sabotage::LoseState => self.is_time(),
            Sabotage::HideTimeout => is_timed_out,
            _ => false,
        };
        if is_lost {
            return Ok(());
        }
        let now = self.now;
        let (conns, broker) = (&self.conns, &self.broker);
        let had_beat = |link: LinkId, instance: u64, by| {
            let shell = broker.as_ref().map(|broker| &broker.shell);
            let id = shell.and_then(|shell| shell.ends.get(&link).copied().flatten());
            let is_unread = shell.is_some_and(|shell| shell.is_unread(link));
            let conn = id.and_then(|id| conns.get(&id)).filter(|conn| conn.frozen <= now);
            let names_it = |frame| match frame {
                Frame::Beat(beat) => beat.instances.iter().any(|of| of.id == instance),
                _ => false,
            };
            !is_unread && conn.is_some_and(|conn| conn.up.had_arrived(by, names_it))
        };
        self.model.instances.is_told(lines.topic, payload, now, had_beat)
    }

    /// After each step.
    pub(super) fn check_bus(&mut self) {
        if !self.plan.bus.is_on() || self.broken.is_some() {
            return;
        }
        let Some(broker) = &self.broker else { return };
        let verdict = self.model.topics.check(self.now);
        let is_unread = |link| broker.shell.is_unread(link);
        let verdict = verdict.and_then(|()| self.model.instances.check(self.now, is_unread));
        self.hold(verdict);
    }

    /// What becomes of a frame for one of them, if something is broken on purpose.
    pub(super) fn sabotage_bus(&mut self, frame: Frame) -> Vec<Frame> {
        let sabotage = self.plan.sabotage;
        match (sabotage, frame) {
            (Sabotage::LoseMessage, Frame::Message { head, .. })
                if head.more == 0 && self.is_time() =>
            {
                Vec::new()
            }
            (Sabotage::LoseKept, Frame::Message { head, .. })
                if head.more != 0 && self.is_time() =>
            {
                Vec::new()
            }
            (Sabotage::HideDrops, Frame::Message { head, body }) => {
                vec![Frame::Message { head: Header { attempt: 0, ..head }, body }]
            }
            (Sabotage::MessageTwice, Frame::Message { head, body }) if self.is_time() => {
                vec![Frame::Message { head, body: body.clone() }, Frame::Message { head, body }]
            }
            (Sabotage::WrongSubscription, Frame::Message { head, body }) => {
                let sequence = if self.is_time() { head.sequence + 1 } else { head.sequence };
                vec![Frame::Message { head: Header { sequence, ..head }, body }]
            }
            (Sabotage::HideMissing, Frame::Subscribed(said)) => {
                vec![Frame::Subscribed(Subscribed { missing: None, ..said })]
            }
            (_, frame) => vec![frame],
        }
    }

    /// Whether a frame of one of them does not reach the broker, on purpose.
    pub(super) fn loses_beat(&mut self, kind: Kind) -> bool {
        self.plan.sabotage == Sabotage::LoseBeats && kind == Kind::Beat
    }

    /// Makes all that publish, subscribe or announce read what has arrived.
    pub(in crate::sim) fn soothe_bus(&mut self) {
        let bus = self.conns.iter().filter(|(id, _)| self.is_bus(**id)).map(|(id, _)| *id);
        let bus: Vec<u64> = bus.collect();
        bus.into_iter().for_each(|conn| self.at(self.now, Event::Down(conn)));
    }
}
