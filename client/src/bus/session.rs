//! What a program of the bus may expect next: subscriptions, publishes and instances of one
//! connection after another. Pure, as [`session`](crate::session) is.

use crate::error::Error;
use crate::instances::Instances;
use crate::topics::{Room, Subscriptions};
use bytes::Bytes;
use protocol::bodies::Published;
use protocol::{ErrorCode, Frame, Header, Ran};
use std::collections::{BTreeMap, VecDeque};

/// Most refusals that wait for the program; past it the oldest is forgotten.
const REFUSED_MAX: usize = 1000;

/// What to do after a frame.
#[derive(Debug)]
pub(super) enum Outcome {
    /// Nothing.
    Quiet,
    /// Send this frame.
    Answer(Frame),
}

/// What the broker says to something that was asked.
#[derive(Clone, Debug)]
pub(super) enum Answer {
    Published(Published),
    Flushed,
}

/// The program's side of one connection after another.
#[derive(Debug)]
pub(super) struct BusSession {
    pub(super) topics: Subscriptions,
    pub(super) instances: Instances,
    /// The last number that was given to a frame.
    last: u32,
    /// What was asked and is awaited, and the answers.
    asked: BTreeMap<u32, Option<Result<Answer, Error>>>,
    /// Errors about frames whose answer nobody awaits.
    refused: VecDeque<Error>,
    /// Why the broker will close the connection.
    closing: Option<Error>,
}

impl BusSession {
    pub(super) fn new(room: Room) -> Self {
        Self {
            topics: Subscriptions::new(room),
            instances: Instances::default(),
            last: 0,
            asked: BTreeMap::new(),
            refused: VecDeque::new(),
            closing: None,
        }
    }

    /// A number that nothing else has that is open.
    pub(super) fn number(&mut self) -> u32 {
        loop {
            self.last = self.last.wrapping_add(1);
            let is_used = self.topics.has(self.last) || self.asked.contains_key(&self.last);
            if self.last != 0 && !is_used {
                return self.last;
            }
        }
    }

    /// The frame of a message. With `is_awaited` the answer is to be taken by its number.
    pub(super) fn publish(&mut self, body: Bytes, is_awaited: bool) -> (u32, Frame) {
        let sequence = self.number();
        if is_awaited {
            self.asked.insert(sequence, None);
        }
        let head = Header { sequence, reply: u16::from(is_awaited), ..Header::default() };
        (sequence, Frame::Publish { head, body })
    }

    /// The frame whose answer comes behind all errors about what was sent before.
    pub(super) fn flush(&mut self) -> (u32, Frame) {
        let sequence = self.number();
        self.asked.insert(sequence, None);
        (sequence, Frame::Flush { sequence })
    }

    /// The answer with this number, once; `None` = it has not come.
    pub(super) fn take_answer(&mut self, number: u32) -> Option<Result<Answer, Error>> {
        self.asked.get_mut(&number)?.take().inspect(|_| {
            self.asked.remove(&number);
        })
    }

    /// Nobody awaits this answer any more.
    pub(super) fn forget(&mut self, number: u32) {
        self.asked.remove(&number);
    }

    /// The errors about frames whose answer nobody awaited, once.
    pub(super) fn take_refused(&mut self) -> Vec<Error> {
        self.refused.drain(..).collect()
    }

    /// Handles a frame of the broker.
    ///
    /// # Errors
    /// The broker may not send it: close the connection.
    pub(super) fn receive(&mut self, frame: Frame) -> Result<Outcome, Error> {
        let kind = frame.kind();
        match frame {
            Frame::Ping { sequence } => return Ok(Outcome::Answer(Frame::Pong { sequence })),
            Frame::Pong { .. } => {}
            Frame::Message { head, body } => self.topics.message(&head, &body)?,
            Frame::Subscribed(answer) => self.topics.subscribed(&answer),
            Frame::CaughtUp(caught_up) => self.topics.caught_up(caught_up),
            Frame::Unsubscribed(answer) => self.topics.unsubscribed(answer),
            Frame::Published(answer) => {
                self.answered(answer.publish, Ok(Answer::Published(answer)));
            }
            Frame::Flushed(answer) => self.answered(answer.flush, Ok(Answer::Flushed)),
            Frame::Announced(answer) => self.instances.announced(answer),
            Frame::BeatOk(answer) => self.instances.beat_ok(&answer),
            Frame::Error { head, error } => self.failed(&head, Error::from_body(error)),
            Frame::Data { .. }
            | Frame::Login(_)
            | Frame::LoginOk(_)
            | Frame::WorkerLogin(_)
            | Frame::WorkerLoginOk(_)
            | Frame::Logout(_)
            | Frame::End
            | Frame::Reinit
            | Frame::Status { .. }
            | Frame::StatusReply { .. }
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::Cancel { .. }
            | Frame::Flush { .. }
            | Frame::Subscribe(_)
            | Frame::Unsubscribe(_)
            | Frame::Publish { .. }
            | Frame::Announce(_)
            | Frame::StateChange(_)
            | Frame::Beat(_)
            | Frame::Withdraw(_)
            | Frame::ExecHello(_)
            | Frame::ExecWelcome(_)
            | Frame::ExecStart(_)
            | Frame::ExecStop(_)
            | Frame::ExecSignal(_)
            | Frame::ExecList
            | Frame::ExecListed(_)
            | Frame::ExecStarted(_)
            | Frame::ExecFailed(_)
            | Frame::ExecExited(_)
            | Frame::ExecOutput(_)
            | Frame::ExecRead(_)
            | Frame::ExecLines(_)
            | Frame::ExecMemory(_)
            | Frame::ExecEnd(_) => {
                let text = format!("the broker sent a {kind} frame, which can't come now");
                return Err(Error::new(ErrorCode::BadState, text));
            }
        }
        Ok(Outcome::Quiet)
    }

    fn answered(&mut self, number: u32, answer: Result<Answer, Error>) {
        if let Some(slot) = self.asked.get_mut(&number) {
            *slot = Some(answer);
        }
    }

    fn failed(&mut self, head: &Header, error: Error) {
        if matches!(error.code, crate::error::Code::Isect(code) if code.row().closes) {
            self.closing = Some(error);
        } else if self.asked.contains_key(&head.sequence) {
            self.answered(head.sequence, Err(error));
        } else if !self.topics.failed(head.sequence, &error)
            && !self.instances.failed(head.sequence, &error)
        {
            if self.refused.len() == REFUSED_MAX {
                self.refused.pop_front();
            }
            self.refused.push_back(error);
        }
    }

    /// The connection was lost. Returns why: what the broker had said, otherwise `why`.
    pub(super) fn lost(&mut self, why: Error) -> Error {
        let error = self.closing.take().unwrap_or(why);
        self.topics.lost(&error);
        self.instances.lost();
        for answer in self.asked.values_mut().filter(|answer| answer.is_none()) {
            *answer = Some(Err(error.clone().with_ran(Ran::Maybe)));
        }
        error
    }

    /// No connection is made again.
    pub(super) fn end(&mut self, why: &Error) {
        self.topics.end(why);
        self.instances.end(why);
    }

    /// The frames that make a new connection what the lost one was. Nothing is published again.
    pub(super) fn resume(&mut self) -> Vec<Frame> {
        let mut frames = Vec::new();
        // Numbers of announces differ from those of what is open; that is all they need.
        let Self { instances, last, topics, asked, .. } = self;
        frames.append(&mut instances.resume(|| {
            loop {
                *last = last.wrapping_add(1);
                if *last != 0 && !topics.has(*last) && !asked.contains_key(last) {
                    return *last;
                }
            }
        }));
        frames.append(&mut self.topics.resume());
        frames
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::instances::InstanceOptions;
    use crate::topics::SubscribeOptions;
    use protocol::Kind;
    use protocol::bodies::{Announced, BeatOk, CaughtUp, Subscribed, Unsubscribed};
    use protocol::errors::ErrorCode;
    use protocol::messages::{MessageOf, Missing, Position};

    fn session() -> BusSession {
        BusSession::new(Room { messages_max: 10, bytes_max: 10_000 })
    }

    fn error(sequence: u32, code: ErrorCode) -> Frame {
        let head = Header { sequence, ..Header::default() };
        Frame::Error { head, error: protocol::ErrorBody::new(code, "text") }
    }

    #[test]
    fn an_error_is_told_to_whom_it_concerns() {
        let mut session = session();
        let (awaited, _) = session.publish(Bytes::new(), true);
        let (silent, _) = session.publish(Bytes::new(), false);
        let number = session.number();
        session.topics.subscribe(number, "a", SubscribeOptions::default());
        let sequence = session.number();
        let (id, _) = session.instances.announce(InstanceOptions::new("a"), sequence).unwrap();
        for failed in [awaited, silent, number, sequence] {
            session.receive(error(failed, ErrorCode::Denied)).unwrap();
        }
        assert!(session.take_answer(awaited).unwrap().unwrap_err().is(ErrorCode::Denied));
        assert!(session.take_answer(awaited).is_none());
        assert!(session.topics.refusal(number).is_some());
        assert!(matches!(session.instances.standing(id), crate::instances::Standing::Ended(_)));
        assert_eq!(session.take_refused().len(), 1);
        for _ in 0..=REFUSED_MAX {
            session.receive(error(silent, ErrorCode::Denied)).unwrap();
        }
        assert_eq!(session.take_refused().len(), REFUSED_MAX);
    }

    #[test]
    fn the_reason_that_the_broker_gave_is_that_of_the_loss() {
        let mut session = session();
        let (awaited, _) = session.publish(Bytes::new(), true);
        session.receive(error(0, ErrorCode::SlowReader)).unwrap();
        let why = session.lost(Error::new(ErrorCode::BrokerLost, "closed"));
        assert!(why.is(ErrorCode::SlowReader));
        let error = session.take_answer(awaited).unwrap().unwrap_err();
        assert!(error.is(ErrorCode::SlowReader) && error.ran == Ran::Maybe);
        // The next loss has its own.
        let why = session.lost(Error::new(ErrorCode::BrokerLost, "closed"));
        assert!(why.is(ErrorCode::BrokerLost));
    }

    #[test]
    fn numbers_begin_anew_without_those_that_are_in_use() {
        let mut session = session();
        session.topics.subscribe(1, "a", SubscribeOptions::default());
        session.last = u32::MAX;
        assert_eq!(session.number(), 2);
    }

    /// A frame of the broker, with numbers that are likely to be in use.
    fn any_frame(random: u64) -> Frame {
        let number = u32::try_from(random >> 8 & 7).unwrap();
        let large = random.rotate_left(17) | random >> 60;
        let at = Position { epoch: large >> 61, number: large };
        let code = if random >> 12 & 1 == 0 { ErrorCode::Denied } else { ErrorCode::SlowReader };
        let attempt = u32::try_from(large >> 32).unwrap();
        let more = u16::from(random >> 13 & 1 == 0);
        let head =
            Header { sequence: number, transaction: large, attempt, more, ..Header::default() };
        match random & 15 {
            0 | 1 => Frame::Subscribed(Subscribed { subscription: number, at, missing: None }),
            2 => {
                let missing = Some(Missing::Numbers(large, 0));
                Frame::Subscribed(Subscribed { subscription: number, at, missing })
            }
            3 => Frame::CaughtUp(CaughtUp { subscription: number, kept: large, dropped: large }),
            4 => Frame::Unsubscribed(Unsubscribed {
                subscription: number,
                delivered: large,
                dropped: large,
            }),
            5 => Frame::Published(Published { publish: number, at, subscriptions: large }),
            6 => Frame::Announced(Announced {
                sequence: number,
                id: number.into(),
                incarnation: large,
                beat_ms: large,
                activity_timeout_ms: large,
                displaced: more != 0,
            }),
            7 => Frame::BeatOk(BeatOk { beat: number, unknown: vec![number.into()] }),
            8 => error(number, code),
            9 => Frame::Message { head, body: Bytes::from_static(b"topic a..b\n\n") },
            10 => Frame::Ping { sequence: number },
            _ => Frame::Message { head, body: MessageOf::new("a", &[7; 100]).body() },
        }
    }

    #[test]
    fn whatever_a_broker_sends_nothing_breaks_or_grows() {
        let mut session = session();
        let mut random = 0x9e37_79b9_7f4a_7c15_u64;
        let mut refused = 0;
        for round in 0..200_000_u32 {
            random ^= random << 13;
            random ^= random >> 7;
            random ^= random << 17;
            let number = u32::try_from(random >> 50 & 7).unwrap();
            match random >> 56 & 31 {
                0 => drop(session.topics.subscribe(number, "a", SubscribeOptions::default())),
                1 => session.topics.end_one(number),
                2 => drop(session.topics.take_ended(number)),
                3 => {
                    let options = InstanceOptions::new("a").id(number.into());
                    let _ = session.instances.announce(options, number);
                }
                4 => drop(session.instances.withdraw(number.into(), false, "", number)),
                5 => drop(session.instances.beat()),
                6 => {
                    let (number, _) = session.publish(Bytes::new(), true);
                    session.forget(number);
                }
                7 => drop((session.lost(Error::new(ErrorCode::BrokerLost, "")), session.resume())),
                8 => drop(session.topics.next(number)),
                _ => {
                    let frame = any_frame(random.rotate_left(round & 63));
                    refused += u32::from(session.receive(frame).is_err());
                }
            }
        }
        assert!(refused > 0, "no frame was refused");
        for number in 0..8 {
            let left = std::iter::from_fn(|| session.topics.next(number)).count();
            assert!(left <= 1010, "{left} events wait");
        }
        assert!(session.asked.is_empty());
        let placed = Frame::Flush { sequence: 1 };
        assert_eq!(placed.kind(), Kind::Flush);
        session.receive(placed).unwrap_err();
    }
}
