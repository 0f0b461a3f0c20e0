//! The answer to the present request: whole, in pieces, or a failure.

use super::{ENDED_EARLY_MAX, GAVE_UP, GAVE_UP_TEXT, Worker};
use crate::error::Error;
use bytes::Bytes;
use protocol::{ErrorCode, Frame, Header};

impl Worker {
    /// Answers the present request and ends it. An answer of more than one frame is sent in pieces.
    /// If the connection broke meanwhile, the answer is dropped, because nobody can take it.
    ///
    /// # Errors
    /// There is no request to answer.
    pub fn reply(&mut self, body: impl Into<Bytes>) -> Result<(), Error> {
        self.reply_in_pieces(body.into(), false)
    }

    /// Sends a piece of the answer; more must follow. In a conversation [`Worker::next_piece`] then
    /// returns the client's next frame.
    ///
    /// # Errors
    /// There is no request to answer.
    pub fn reply_piece(&mut self, body: impl Into<Bytes>) -> Result<(), Error> {
        self.reply_in_pieces(body.into(), true)
    }

    fn reply_in_pieces(&mut self, mut body: Bytes, more: bool) -> Result<(), Error> {
        self.check_busy()?;
        while body.len() > self.body_bytes_max() {
            let piece = body.split_to(self.body_bytes_max());
            self.answer(piece, true, 0);
        }
        self.answer(body, more, 0);
        Ok(())
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
        let head = current.head;
        let frame = self.frame(&head, body, more, error);
        if !more {
            self.answered += 1;
            self.finish();
        }
        self.write(frame);
    }

    /// A frame of the answer to a request.
    pub(super) fn frame(&self, request: &Header, body: Bytes, more: bool, error: i16) -> Frame {
        let head = Header {
            sequence: request.sequence,
            transaction: request.transaction,
            workerid: self.limits.worker.0,
            trace_id: request.trace_id,
            span_id: request.span_id,
            more: u16::from(more),
            error,
            ..Header::default()
        };
        Frame::data(head, body)
    }

    /// Removes the present request.
    fn finish(&mut self) {
        let Some(current) = self.current.take() else { return };
        if current.client_more || current.was_open {
            if self.ended_early.len() == ENDED_EARLY_MAX {
                self.ended_early.pop_front();
            }
            self.ended_early.push_back(current.head.transaction);
        }
    }
}
