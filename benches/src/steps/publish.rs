//! The step of a message that is published: to one subscriber, and one delivery of many.

use super::{BODY, Beat, STEP_MICROS, Step};
use broker::engine::action::Action;
use broker::engine::input::Input;
use bytes::Bytes;
use protocol::bodies::Subscribe;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::limits::BUS_SERVICE;
use protocol::messages::MessageOf;
use protocol::time::Tick;

/// A topic with several words, as most have.
const TOPIC: &str = "orders.eu.created";

/// An engine with subscribers of one topic. One repetition is one delivery: a message is published
/// each time that as many repetitions have passed as there are subscribers.
pub(super) struct Publish {
    beat: Beat,
    publisher: LinkId,
    body: Bytes,
    subscribers: usize,
    passed: usize,
}

impl Publish {
    pub(super) fn make(subscribers: u32) -> Result<Box<dyn Step>, String> {
        let mut beat = Beat::idle();
        let publisher = LinkId { index: subscribers, generation: 0 };
        beat.attach(publisher, BUS_SERVICE)?;
        for index in 0..subscribers {
            let link = LinkId { index, generation: 0 };
            beat.attach(link, BUS_SERVICE)?;
            let pattern = if index % 2 == 0 { TOPIC } else { "orders.*.created" }.to_owned();
            let subscribe = Subscribe { subscription: 7, pattern, from: None, retained: true };
            beat.give(Input::Subscribe { link, subscribe: Box::new(subscribe) });
            beat.welcomed("subscribed", |frame| matches!(frame, Frame::Subscribed(_)))?;
        }
        let body = MessageOf::new(TOPIC, &BODY).body();
        let subscribers = subscribers as usize;
        Ok(Box::new(Self { beat, publisher, body, subscribers, passed: 0 }))
    }
}

impl Step for Publish {
    fn once(&mut self) -> Result<(), String> {
        self.passed += 1;
        if self.passed < self.subscribers {
            return Ok(());
        }
        self.passed = 0;
        let beat = &mut self.beat;
        beat.now = Tick(beat.now.0 + STEP_MICROS);
        if beat.engine.next_deadline().is_some_and(|due| due <= beat.now) {
            beat.give(Input::Deadline);
            beat.out.clear();
        }
        beat.sequence = beat.sequence.wrapping_add(1);
        let head =
            Header { len: self.body.len() as u32, sequence: beat.sequence, ..Header::default() };
        beat.give(Input::Publish { link: self.publisher, head, body: self.body.clone() });
        let mut count = 0;
        for action in beat.out.drain(..) {
            match action {
                Action::Send { frame: Frame::Message { head, body }, .. }
                    if head.sequence == 7 && body.len() == self.body.len() =>
                {
                    count += 1;
                }
                other => return Err(format!("the engine did {other:?}")),
            }
        }
        if count == self.subscribers { Ok(()) } else { Err(format!("{count} messages")) }
    }
}
