//! The answer to the present request: whole, in pieces, or a failure.

use super::{ENDED_EARLY_MAX, GAVE_UP, GAVE_UP_TEXT, Request, Worker};
use crate::error::Error;
use crate::session::millis;
use bytes::Bytes;
use protocol::{ErrorCode, Frame, Header, WorkerId};
use std::time::Duration;

impl Worker {
    /// Answers the present request and ends it. An answer of more than one frame is sent in pieces.
    /// If the connection broke meanwhile, the answer is dropped, because nobody can take it.
    ///
    /// # Errors
    /// There is no request to answer.
    pub fn reply(&mut self, body: impl Into<Bytes>) -> Result<(), Error> {
        self.reply_in_pieces(body.into(), false, None)
    }

    /// As [`Worker::reply`], and ends in order: reply and logout leave in one write, and no further
    /// request is taken. [`Worker::next`] returns `None` then.
    ///
    /// # Errors
    /// There is no request to answer.
    pub fn reply_and_logout(&mut self, body: impl Into<Bytes>) -> Result<(), Error> {
        self.check_busy()?;
        self.left = Some(0);
        self.reply(body)?;
        self.log_out();
        Ok(())
    }

    /// Sends a piece of the answer; more must follow. In a conversation [`Worker::next_piece`] then
    /// returns the client's next frame.
    ///
    /// # Errors
    /// There is no request to answer.
    pub fn reply_piece(&mut self, body: impl Into<Bytes>) -> Result<(), Error> {
        self.reply_in_pieces(body.into(), true, None)
    }

    /// As [`Worker::reply_piece`], and says that the next frame of the answer comes within this
    /// time. It replaces the deadline, up to an hour after the request came, if the client made the
    /// request [extendable](Request::extendable); otherwise the deadline stays. An empty
    /// piece is good for that, too.
    ///
    /// # Errors
    /// There is no request to answer.
    pub fn reply_piece_within(
        &mut self,
        body: impl Into<Bytes>,
        next: Duration,
    ) -> Result<(), Error> {
        self.reply_in_pieces(body.into(), true, Some(next))
    }

    fn reply_in_pieces(
        &mut self,
        mut body: Bytes,
        more: bool,
        next: Option<Duration>,
    ) -> Result<(), Error> {
        self.check_busy()?;
        while body.len() > self.body_bytes_max() {
            let piece = body.split_to(self.body_bytes_max());
            self.answer(piece, true, 0);
        }
        if let Some(next) = next {
            self.put_off(next);
        }
        self.answer(body, more, 0);
        Ok(())
    }

    /// Has the next frame of the answer say that the one behind it comes within this time.
    fn put_off(&mut self, next: Duration) {
        if let Some(current) = &mut self.current {
            current.next_ms = millis(next);
        }
    }

    /// Answers the present request with an error of the application. `code` is above 0; the client
    /// gets it and the text unchanged.
    ///
    /// # Errors
    /// There is no request to answer, or the code is not above 0.
    pub fn fail(&mut self, code: i16, text: &str) -> Result<(), Error> {
        self.check_busy()?;
        if code <= 0 {
            let text = format!("code {code} is isect's own; an application's is 1 to {}", i16::MAX);
            return Err(Error::new(ErrorCode::BadReply, text));
        }
        let text = Bytes::copy_from_slice(text.as_bytes());
        let size = text.len().min(self.body_bytes_max());
        self.answer(text.slice(..size), false, code);
        Ok(())
    }

    fn check_busy(&self) -> Result<(), Error> {
        if self.current.is_some() || self.over.is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorCode::BadState, "there is no request to answer; call next first"))
    }

    pub(super) fn answer(&mut self, body: Bytes, more: bool, error: i16) {
        let Some(current) = &mut self.current else { return };
        let (mut body, mut error) = (body, error);
        if self.over.is_some() {
            // A client that still listens must not take half a request for a whole one, or the
            // pieces of an abandoned answer for an answer.
            if more {
                return;
            }
            if error == 0 {
                (body, error) = (Bytes::from_static(GAVE_UP_TEXT), GAVE_UP);
            }
        }
        current.worker_more = more;
        current.was_open |= more;
        let deadline_ms = std::mem::take(&mut current.next_ms);
        let head = answer_head(&current.head, self.limits.worker);
        let frame = Frame::data(Header { more: u16::from(more), error, deadline_ms, ..head }, body);
        if more {
            return self.write(frame);
        }
        self.answered += 1;
        self.finish();
        if self.left == Some(0) && !self.is_logged_out && !self.ended {
            self.is_logged_out = true;
            // The logout goes first, so that the reply does not bring a request in between.
            self.write_after(Some(self.goodbye()), frame);
        } else {
            self.write(frame);
        }
    }

    /// Ends a request that the program was not given.
    pub(super) fn give_up(&mut self, request: &Request) {
        let head = Header { error: GAVE_UP, ..answer_head(&request.head, self.limits.worker) };
        self.write(Frame::data(head, Bytes::from_static(GAVE_UP_TEXT)));
    }

    /// Removes the present request.
    fn finish(&mut self) {
        let Some(current) = self.current.take() else { return };
        if current.client_more || current.was_open {
            self.note_ended_early(current.head.transaction);
        }
    }

    /// Notes that further pieces of a transaction are to be dropped.
    pub(super) fn note_ended_early(&mut self, transaction: u64) {
        if self.ended_early.len() == ENDED_EARLY_MAX {
            self.ended_early.pop_front();
        }
        self.ended_early.push_back(transaction);
    }
}

/// The header of an answer to this request by this worker.
pub(super) fn answer_head(request: &Header, worker: WorkerId) -> Header {
    Header {
        sequence: request.sequence,
        transaction: request.transaction,
        workerid: worker.0,
        trace_id: request.trace_id,
        span_id: request.span_id,
        ..Header::default()
    }
}
