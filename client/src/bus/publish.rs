//! A message that is about to be published.

use super::Bus;
use super::session::Answer;
use crate::clock;
use crate::error::Error;
use crate::topics::{check_size, message_body};
use bytes::Bytes;
use protocol::messages::{MessageOf, Position, Removed, Retain};
use protocol::{ErrorCode, Ran};
use std::time::Duration;

/// What the broker says of a message that it has accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Receipt {
    /// How many subscriptions it matches now. That they got it is not said.
    pub subscriptions: u64,
    /// Its number in the broker's count.
    pub position: Position,
}

/// A message for a topic; [`Bus::message`] makes it.
#[derive(Clone, Debug)]
#[must_use = "it is not sent before `send` or `send_and_wait`"]
pub struct Publish<'a> {
    bus: &'a Bus,
    topic: &'a str,
    retain: Retain,
    expires: Option<Duration>,
    removed: Option<Removed>,
    lines: Vec<(&'a str, &'a str)>,
}

impl<'a> Publish<'a> {
    pub(super) fn new(bus: &'a Bus, topic: &'a str) -> Self {
        let (retain, expires, removed) = (Retain::No, None, None);
        Self { bus, topic, retain, expires, removed, lines: Vec::new() }
    }

    /// The broker keeps it as the value of its topic: who subscribes later gets it first.
    pub fn retain(mut self) -> Self {
        self.retain = Retain::Yes;
        self
    }

    /// As [`retain`](Self::retain), and the value is removed when this connection ends.
    pub fn while_connected(mut self) -> Self {
        self.retain = Retain::Connected;
        self
    }

    /// How long the value is kept; only with [`retain`](Self::retain) or
    /// [`while_connected`](Self::while_connected).
    pub fn expires(mut self, after: Duration) -> Self {
        self.expires = Some(after);
        self
    }

    /// A line about the message, a word and a value, which subscribers get; isect passes it on.
    pub fn line(mut self, word: &'a str, value: &'a str) -> Self {
        self.lines.push((word, value));
        self
    }

    pub(super) fn removed(mut self) -> Self {
        self.removed = Some(Removed::Deleted);
        self
    }

    fn body(&self, payload: &[u8]) -> Result<Bytes, Error> {
        let expires_ms =
            self.expires.map(|span| u64::try_from(span.as_millis()).unwrap_or(u64::MAX));
        message_body(&MessageOf {
            topic: self.topic,
            retain: self.retain,
            expires_ms,
            removed: self.removed,
            lines: &self.lines,
            payload,
        })
    }

    /// Sends it with this payload, and does not wait. If the broker refuses it,
    /// [`Bus::flush`] or [`Bus::refused`] says so.
    ///
    /// # Errors
    /// It breaks a rule of messages, or there is no connection. Nobody got it.
    pub fn send(&self, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        self.dispatch(payload.as_ref(), false).map(|_| ())
    }

    /// Sends it with this payload, and waits until the broker has accepted it.
    ///
    /// # Errors
    /// As [`send`](Self::send); or the broker refuses it, or the connection was lost before its
    /// answer: then `ran` says whether it may have been published.
    pub fn send_and_wait(&self, payload: impl AsRef<[u8]>) -> Result<Receipt, Error> {
        let number = self.dispatch(payload.as_ref(), true)?;
        match self.bus.answer(number, self.bus.0.options.answer_timeout)? {
            Answer::Published(answer) => {
                Ok(Receipt { subscriptions: answer.subscriptions, position: answer.at })
            }
            Answer::Flushed => {
                let text = "the broker answered a publish as if it were a flush";
                Err(Error::new(ErrorCode::BadState, text))
            }
        }
    }

    fn dispatch(&self, payload: &[u8], is_awaited: bool) -> Result<u32, Error> {
        let body = self.body(payload)?;
        let timeout = self.bus.0.options.answer_timeout;
        self.bus.0.with(|state| {
            let Some(max) = state.body_bytes_max() else { return Err(state.no_link()) };
            check_size(&body, max)?;
            let (number, frame) = state.session.publish(body, is_awaited);
            state.send(frame, timeout).inspect_err(|_| state.session.forget(number))?;
            Ok(number)
        })
    }
}

impl Bus {
    /// Waits for the answer with this number.
    pub(super) fn answer(&self, number: u32, timeout: Duration) -> Result<Answer, Error> {
        let until = Some(clock::until(timeout));
        let waited = self.0.wait(until, |state| state.session.take_answer(number));
        match waited {
            Ok(Some(answer)) => answer,
            Ok(None) => {
                self.0.with(|state| state.session.forget(number));
                let text = format!("the broker did not answer within {} ms", timeout.as_millis());
                Err(Error::new(ErrorCode::Timeout, text).with_ran(Ran::Maybe))
            }
            Err(error) => Err(error.with_ran(Ran::Maybe)),
        }
    }
}
