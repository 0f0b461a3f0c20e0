//! A subscription: an iterator of what it brings.

use super::shared::Shared;
use super::{Bus, Event, Message};
use crate::clock;
use crate::error::Error;
use crate::topics::{Answer, SubscribeOptions};
use protocol::bodies::{Unsubscribe, Unsubscribed};
use protocol::messages::Position;
use protocol::{ErrorCode, Frame};
use std::fmt;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// Messages of all topics that match a pattern. It ends when it is dropped.
///
/// As an iterator it waits without end, and its last item is the error that ended it: the broker
/// refuses it, or the connection is lost and none is made again.
pub struct Subscription {
    shared: Arc<Shared>,
    number: u32,
    pattern: String,
    has_ended: bool,
}

impl fmt::Debug for Subscription {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Subscription")
            .field("number", &self.number)
            .field("pattern", &self.pattern)
            .finish_non_exhaustive()
    }
}

impl Subscription {
    pub(super) fn open(bus: &Bus, pattern: &str, options: SubscribeOptions) -> Result<Self, Error> {
        protocol::topics::Pattern::new(pattern)
            .map_err(|text| Error::new(ErrorCode::BadMessage, text))?;
        let shared = Arc::clone(&bus.0);
        let timeout = shared.options.answer_timeout;
        let number = shared.with(|state| {
            let number = state.session.number();
            let frame = state.session.topics.subscribe(number, pattern, options);
            // If it can't be sent now, the next connection asks.
            let _ = state.send(frame, timeout);
            number
        });
        let opened = Self { shared, number, pattern: pattern.to_owned(), has_ended: false };
        let until = Some(clock::until(timeout));
        let answer =
            opened.shared.wait(until, |state| match state.session.topics.answer(number) {
                Answer::Awaited => None,
                Answer::Open => Some(Ok(())),
                Answer::Refused(error) => Some(Err(error)),
            })?;
        match answer {
            Some(answer) => answer.map(|()| opened),
            None => {
                let millis = timeout.as_millis();
                let text = format!("the broker did not answer a subscribe within {millis} ms");
                Err(Error::new(ErrorCode::Timeout, text))
            }
        }
    }

    /// The pattern.
    pub fn pattern(&self) -> &str {
        &self.pattern
    }

    /// The position from which a program goes on that has done all that came until now; `None` =
    /// nothing has come yet.
    pub fn position(&self) -> Option<Position> {
        self.shared.lock().session.topics.position(self.number)
    }

    /// The next event within this time; `None` = none came.
    ///
    /// # Errors
    /// The subscription has ended.
    pub fn next_within(&mut self, timeout: Duration) -> Result<Option<Event>, Error> {
        self.next_until(Some(clock::until(timeout)))
    }

    /// The next event that is there, without waiting.
    ///
    /// # Errors
    /// The subscription has ended.
    pub fn try_next(&mut self) -> Result<Option<Event>, Error> {
        self.next_until(Some(clock::now()))
    }

    fn next_until(&mut self, until: Option<Instant>) -> Result<Option<Event>, Error> {
        let number = self.number;
        let next = self.shared.wait(until, |state| {
            let topics = &mut state.session.topics;
            topics.next(number).map(Ok).or_else(|| topics.refusal(number).map(Err))
        });
        next?.transpose()
    }

    /// The next event of any of these subscriptions of one bus within this time, in the order in
    /// which their messages were published, and which one it is for; `None` = none came.
    ///
    /// # Errors
    /// One of them has ended.
    pub fn next_of(all: &mut [Self], timeout: Duration) -> Result<Option<(usize, Event)>, Error> {
        let Some(shared) = all.first().map(|first| Arc::clone(&first.shared)) else {
            return Ok(None);
        };
        let next = shared.wait(Some(clock::until(timeout)), |state| {
            let topics = &mut state.session.topics;
            let next = all.iter().enumerate().filter_map(|(at, it)| {
                let number = topics.peek(it.number)?;
                Some((number, at))
            });
            if let Some((_, at)) = next.min() {
                return topics.next(all[at].number).map(|event| Ok((at, event)));
            }
            all.iter().find_map(|it| topics.refusal(it.number)).map(Err)
        });
        next?.transpose()
    }

    /// Only the messages; everything else that comes is passed over.
    pub fn messages(self) -> Messages {
        Messages(self)
    }

    /// Ends the subscription, and waits until the broker says how many messages it was sent, and
    /// how many it was not.
    ///
    /// # Errors
    /// The connection is lost, or the broker does not answer.
    pub fn unsubscribe(mut self) -> Result<Unsubscribed, Error> {
        self.has_ended = true;
        let number = self.number;
        let timeout = self.shared.options.answer_timeout;
        let until = Some(clock::until(timeout));
        self.shared.with(|state| {
            state.session.topics.end_one(number);
            let frame = Frame::Unsubscribe(Unsubscribe { subscription: number });
            state.send(frame, timeout)
        })?;
        let answer = self.shared.wait(until, |state| state.session.topics.take_ended(number))?;
        self.shared.with(|state| state.session.topics.remove(number));
        answer.unwrap_or_else(|| {
            let millis = timeout.as_millis();
            let text = format!("the broker did not answer an unsubscribe within {millis} ms");
            Err(Error::new(ErrorCode::Timeout, text))
        })
    }
}

impl Iterator for Subscription {
    type Item = Result<Event, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.has_ended {
            return None;
        }
        let next = self.next_until(None).transpose();
        self.has_ended = matches!(next, None | Some(Err(_)));
        next
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        let (number, has_ended) = (self.number, self.has_ended);
        let mut state = self.shared.lock();
        let is_refused = matches!(state.session.topics.answer(number), Answer::Refused(_));
        state.session.topics.remove(number);
        if !is_refused && !has_ended {
            let frame = Frame::Unsubscribe(Unsubscribe { subscription: number });
            // A connection that takes nothing is lost soon, and the subscription with it.
            let _ = state.send(frame, Duration::from_millis(100));
        }
        self.shared.tell(state);
    }
}

/// The messages of a subscription.
#[derive(Debug)]
pub struct Messages(Subscription);

impl Iterator for Messages {
    type Item = Result<Message, Error>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            match self.0.next()? {
                Ok(Event::Message(message)) => return Some(Ok(message)),
                Ok(
                    Event::CaughtUp { .. } | Event::Missing(_) | Event::Lost(_) | Event::Resumed(_),
                ) => {}
                Err(error) => return Some(Err(error)),
            }
        }
    }
}
