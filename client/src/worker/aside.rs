//! What a worker does beside its answers, on the same connection: it publishes messages, and has
//! the broker watch instances of its program.

use super::Worker;
use crate::clock;
use crate::conn::Wait;
use crate::error::Error;
use crate::instances::{InstanceOptions, Instances, Standing, short};
use crate::topics::{check_size, message_body};
use protocol::bodies::{Announced, BeatOk};
use protocol::instances::InstanceState;
use protocol::messages::MessageOf;
use protocol::{ErrorCode, Frame, Header, Ran};
use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Most refusals that wait for the program; past it the oldest is forgotten.
const REFUSED_MAX: usize = 1000;

/// Errors about frames that nobody waits for.
#[derive(Debug, Default)]
pub(super) struct Refused(VecDeque<Error>);

impl Refused {
    pub(super) fn add(&mut self, error: Error) {
        if self.0.len() == REFUSED_MAX {
            self.0.pop_front();
        }
        self.0.push_back(error);
    }

    pub(super) fn take(&mut self) -> Vec<Error> {
        self.0.drain(..).collect()
    }
}

/// The instances of a worker's program, and what was refused.
#[derive(Debug, Default)]
pub(super) struct Aside {
    instances: Instances,
    /// The number of the last frame that has one.
    last: u32,
    beaten: Option<Instant>,
    refused: Refused,
}

impl Aside {
    fn number(&mut self) -> u32 {
        self.last = self.last.wrapping_add(1).max(1);
        self.last
    }

    pub(super) fn announced(&mut self, answer: Announced) {
        self.instances.announced(answer);
    }

    pub(super) fn beat_ok(&mut self, answer: &BeatOk) {
        self.instances.beat_ok(answer);
    }

    pub(super) fn lost(&mut self) {
        self.instances.lost();
    }

    pub(super) fn failed(&mut self, number: u32, error: Error) {
        if !self.instances.failed(number, &error) {
            self.refused.add(error);
        }
    }

    /// When the next beat is due; `None` = no instance is watched.
    fn beat_at(&self) -> Option<Instant> {
        let every = self.instances.beat_every()?;
        Some(self.beaten.map_or_else(clock::now, |at| clock::after(at, every)))
    }
}

impl Worker {
    /// Publishes a message, and does not wait. If the broker refuses it, [`Worker::refused`] says
    /// so.
    ///
    /// # Errors
    /// It breaks a rule of messages, or the connection is lost. Nobody got it.
    pub fn publish(&mut self, topic: &str, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        self.publish_message(&MessageOf::new(topic, payload.as_ref()))
    }

    /// As [`Worker::publish`], with all that can be said of a message.
    ///
    /// # Errors
    /// As [`Worker::publish`].
    pub fn publish_message(&mut self, message: &MessageOf<'_>) -> Result<(), Error> {
        let body = message_body(message)?;
        check_size(&body, self.limits.body_bytes_max)?;
        let head = Header { sequence: self.aside.number(), ..Header::default() };
        self.write(Frame::Publish { head, body });
        if self.conn.is_some() {
            return Ok(());
        }
        let text = "the connection of this worker is lost; next makes another one";
        Err(Error::new(ErrorCode::BrokerLost, text).with_ran(Ran::No))
    }

    /// The errors of messages and states that the broker refused, since this was asked last; at
    /// most the last thousand.
    pub fn refused(&mut self) -> Vec<Error> {
        self.aside.refused.take()
    }

    /// Announces an instance of this program beside the worker itself, which the broker watches in
    /// any case. Returns its id, and does not wait: [`Worker::standing`] says what became of it.
    /// [`Worker::next`] beats for it while it waits; a program that works for longer than its
    /// time-out calls [`Worker::beat_if_due`]. After a loss of the connection it is announced
    /// again.
    ///
    /// # Errors
    /// There is one with this id.
    pub fn announce(&mut self, options: InstanceOptions) -> Result<u64, Error> {
        let number = self.aside.number();
        let (id, frame) = self.aside.instances.announce(options, number)?;
        self.write(frame);
        Ok(id)
    }

    /// How far the broker is with an instance.
    pub fn standing(&self, id: u64) -> Standing {
        self.aside.instances.standing(id)
    }

    /// Says that an instance has another state; of the text the first 80 characters count.
    ///
    /// # Errors
    /// The broker does not watch it any more.
    pub fn set_state(&mut self, id: u64, state: InstanceState, text: &str) -> Result<(), Error> {
        let number = self.aside.number();
        let frame = self.aside.instances.set_state(id, state, &short(text), number)?;
        self.write(frame);
        Ok(())
    }

    /// Notes the checkpoint of an instance, any number that changes as it works, and whether it has
    /// nothing to do. The next beat carries both.
    pub fn checkpoint(&mut self, id: u64, checkpoint: u64, is_idle: bool) {
        if let Some(figures) = self.aside.instances.figures(id) {
            figures.set_checkpoint(checkpoint);
            figures.set_idle(is_idle);
        }
    }

    /// Ends an instance, in order or because of a failure.
    pub fn withdraw(&mut self, id: u64, failed: bool, text: &str) {
        let number = self.aside.number();
        if let Some(frame) = self.aside.instances.withdraw(id, failed, &short(text), number) {
            self.write(frame);
        }
    }

    /// Says that the instances go on, if that is due. A program that works on a request for longer
    /// than their time-out calls it now and then.
    pub fn beat_if_due(&mut self) {
        let is_due = self.aside.beat_at().is_some_and(|at| clock::left(at).is_zero());
        if is_due && self.conn.is_some() {
            self.aside.beaten = Some(clock::now());
            for frame in self.aside.instances.beat() {
                self.write(frame);
            }
        }
    }

    /// Waits for a frame and handles it, and beats meanwhile; `false` = none came in time. To wait
    /// for a request is to go on.
    pub(super) fn wait_and_beat(&mut self, until: Option<Instant>) -> bool {
        loop {
            self.beat_if_due();
            let next = self.aside.beat_at();
            let wait = [until, next].into_iter().flatten().min();
            if self.take_in(Wait::Until(wait)) {
                return true;
            }
            if until.map(clock::left) == Some(Duration::ZERO) {
                return false;
            }
        }
    }

    /// Announces all instances again on a new connection.
    pub(super) fn announce_again(&mut self) {
        let Aside { instances, last, .. } = &mut self.aside;
        let frames = instances.resume(|| {
            *last = last.wrapping_add(1).max(1);
            *last
        });
        self.aside.beaten = None;
        for frame in frames {
            self.write(frame);
        }
    }
}
