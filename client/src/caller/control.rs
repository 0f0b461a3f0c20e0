//! Control frames of a client about its requests: `cancel`, `flush`, the end of what it sends, and
//! `logout`.

use super::{Caller, GRACE, Received};
use crate::clock;
use crate::conn::WriteFault;
use crate::error::Error;
use crate::session::Session;
use protocol::{ErrorCode, Frame, Ran};
use std::time::Duration;

impl Caller {
    /// Tells the broker that nobody wants the answer to this request any more. The request still
    /// has its one outcome, which [`Caller::recv`] returns: most likely the error
    /// [`ErrorCode::Cancelled`], whose `ran` says whether a worker had it. To cancel one that has
    /// ended is no error.
    ///
    /// # Errors
    /// The connection is lost, or it takes nothing.
    pub fn cancel(&mut self, sequence: u32) -> Result<(), Error> {
        match self.control(|session| session.cancel(sequence))? {
            true => Ok(()),
            false => {
                let text = format!("the broker took no byte of the cancel of request {sequence}");
                Err(Error::new(ErrorCode::Timeout, text))
            }
        }
    }

    /// Gives up a request: tells the broker that nobody wants the answer, and forgets it; its
    /// outcome is dropped.
    pub fn give_up(&mut self, sequence: u32) {
        if self.session.is_under_way(sequence) {
            // If it can't be told, the request ends at its deadline, or with the connection.
            let _ = self.cancel(sequence);
        }
        self.session.give_up(sequence);
        while let Some(at) = self.queue.iter().position(|reply| reply.sequence == sequence) {
            self.unqueue(at);
        }
    }

    /// Waits until all that was sent before was taken by a worker or refused. Returns how many
    /// requests were refused, or ended before a worker took them, since the flush before; nothing
    /// else tells of those without `reply`. Answers that come meanwhile wait for [`Caller::recv`].
    ///
    /// # Errors
    /// [`ErrorCode::Timeout`] if requests still wait after this time (`None` = wait without end),
    /// or the connection is lost.
    pub fn flush(&mut self, timeout: Option<Duration>) -> Result<u64, Error> {
        let until = timeout.and_then(|timeout| clock::now().checked_add(timeout));
        let mut number = 0;
        let mut is_sent = self.control(|session| {
            let (flush, frame) = session.flush()?;
            number = flush;
            Ok(frame)
        })?;
        while is_sent && self.flushed.number != number {
            match self.receive(until) {
                Received::Reply(reply) => self.enqueue(reply),
                Received::Published(_) | Received::Other => {}
                Received::Nothing => is_sent = false,
                Received::Lost(error) => return Err(error.with_ran(Ran::Maybe)),
            }
        }
        if !is_sent {
            let millis = timeout.unwrap_or_default().as_millis();
            let text = format!("no worker has taken all that was sent, after {millis} ms");
            return Err(Error::new(ErrorCode::Timeout, text));
        }
        Ok(std::mem::take(&mut self.flushed.refused))
    }

    /// Shuts the sending side of the connection: nothing more can be sent, and [`Caller::recv`]
    /// still returns the outcomes of all that was sent whole, until none is under way
    /// ([`Caller::under_way`]).
    ///
    /// # Errors
    /// The login did not say so ([`Options::half_close`](super::Options::half_close)), so that the
    /// broker would take it for the end of this client. Or the connection is lost.
    pub fn finish_sending(&mut self) -> Result<(), Error> {
        if !self.options.half_close {
            let text = "the login did not say half_close, so the broker would drop the requests \
                        under way; set it in the options";
            return Err(Error::new(ErrorCode::BadState, text));
        }
        self.finish_halves(Some(clock::now() + GRACE))?;
        let Some((conn, _)) = self.conn.as_mut() else { return Err(self.no_connection()) };
        self.session.finish()?;
        self.is_finished = true;
        match conn.finish(Some(clock::now() + GRACE)) {
            Ok(()) => Ok(()),
            Err(lost) => Err(self.drop_connection(lost)),
        }
    }

    /// Logs out and closes the connection. The broker ends the requests under way that want an
    /// answer. If requests without one were sent, it first waits as [`Caller::flush`] does, for at
    /// most [`Options::flush_timeout`](super::Options::flush_timeout), and returns how many
    /// requests were refused; otherwise 0.
    ///
    /// # Errors
    /// The connection broke before. [`ErrorCode::Timeout`]: it is logged out, and requests without
    /// an answer still waited for a worker; they wait on, within their deadlines.
    pub fn logout(mut self) -> Result<u64, Error> {
        let flushed = match self.session.has_unflushed() && self.session.is_open() {
            true => self.flush(Some(self.options.flush_timeout)),
            false => Ok(std::mem::take(&mut self.flushed.refused)),
        };
        if self.is_finished {
            // The broker closes when all is answered, or notices the end of the connection.
            return flushed;
        }
        let frame = self.session.logout();
        let Some((mut conn, address)) = self.conn.take() else {
            return Err(self.no_connection());
        };
        match conn.write(frame, Some(clock::now() + GRACE)) {
            Ok(()) | Err(WriteFault::NotBegun) => flushed,
            Err(WriteFault::Broken(lost)) => Err(lost.into_error(&address).with_ran(Ran::No)),
        }
    }

    /// Why there is no connection.
    pub(super) fn no_connection(&self) -> Error {
        let text = "there is no connection any more";
        self.lost.clone().unwrap_or_else(|| Error::new(ErrorCode::BrokerLost, text))
    }

    /// Sends a small frame; `false` = the broker took no byte of it for half a second.
    pub(super) fn control(
        &mut self,
        frame: impl FnOnce(&mut Session) -> Result<Frame, Error>,
    ) -> Result<bool, Error> {
        let Some((conn, _)) = self.conn.as_mut() else { return Err(self.no_connection()) };
        match conn.write(frame(&mut self.session)?, Some(clock::now() + GRACE)) {
            Ok(()) => Ok(true),
            Err(WriteFault::NotBegun) => Ok(false),
            Err(WriteFault::Broken(lost)) => Err(self.drop_connection(lost)),
        }
    }
}
