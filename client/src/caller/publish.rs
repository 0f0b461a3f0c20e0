//! A client that asks may publish by the same connection.

use super::{Caller, GRACE, Received};
use crate::clock;
use crate::conn::WriteFault;
use crate::error::Error;
use crate::topics::{check_size, message_body};
use protocol::bodies::Published;
use protocol::messages::MessageOf;
use protocol::{ErrorCode, Ran};
use std::time::Duration;

impl Caller {
    /// Publishes a message to a topic, and waits until the broker has accepted it. Answers that
    /// come meanwhile wait for [`Caller::recv`]. [`Bus`](crate::bus::Bus) is for programs that
    /// publish much, or subscribe.
    ///
    /// # Errors
    /// It breaks a rule of messages, the broker refuses it, the connection is lost, or no answer
    /// came in time ([`ErrorCode::Timeout`]).
    pub fn publish(
        &mut self,
        message: &MessageOf<'_>,
        timeout: Duration,
    ) -> Result<Published, Error> {
        let body = message_body(message)?;
        check_size(&body, self.session.limits().body_bytes_max)?;
        let until = Some(clock::until(timeout));
        self.look();
        let Some((conn, _)) = self.conn.as_mut() else { return Err(self.no_connection()) };
        let (sequence, frame) = self.session.publish(body)?;
        match conn.write(frame, Some(clock::until(timeout.max(GRACE)))) {
            Ok(()) => self.session.handed_over(sequence),
            Err(WriteFault::NotBegun) => {
                self.session.withdraw(sequence);
                let text = "the broker took no byte of the message in time";
                return Err(Error::new(ErrorCode::Timeout, text).with_ran(Ran::No));
            }
            Err(WriteFault::Broken(lost)) => {
                self.session.withdraw(sequence);
                return Err(self.drop_connection(lost).with_ran(Ran::No));
            }
        }
        loop {
            if let Some(at) = self.queue.iter().position(|reply| reply.sequence == sequence) {
                let refused = self.unqueue(at).and_then(|reply| reply.error);
                let text = "the broker answered a message as if it were a request";
                return Err(refused.unwrap_or_else(|| Error::new(ErrorCode::BadState, text)));
            }
            match self.receive(until) {
                Received::Published(answer) if answer.publish == sequence => return Ok(answer),
                Received::Reply(reply) => self.enqueue(reply),
                Received::Published(_) | Received::Other => {}
                Received::Nothing => {
                    self.session.give_up(sequence);
                    let millis = timeout.as_millis();
                    let text = format!("no answer to a message came within {millis} ms");
                    return Err(Error::new(ErrorCode::Timeout, text));
                }
                // Its error is in the queue.
                Received::Lost(error) => {
                    if !self.queue.iter().any(|reply| reply.sequence == sequence) {
                        return Err(error.with_ran(Ran::Maybe));
                    }
                }
            }
        }
    }
}
