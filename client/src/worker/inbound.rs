//! What the broker sends to a worker: frames are read, kept or handled, and the end of the
//! connection ends what came by it.

use super::{GAVE_UP, GAVE_UP_TEXT, Request, STATUS_BYTES_MAX, Worker, login};
use crate::clock;
use crate::conn::{Lost, Wait, WriteFault};
use crate::error::Error;
use bytes::Bytes;
use protocol::{ErrorCode, Frame, Header};

impl Worker {
    pub(super) fn write(&mut self, frame: Frame) {
        if let Some(conn) = &mut self.conn
            && let Err(WriteFault::Broken(lost)) = conn.write(frame, None)
        {
            // What the broker sent before it closed still counts, for example an `end`.
            conn.read_ahead();
            while let Ok(Some(frame)) = conn.next(Wait::Not) {
                match frame {
                    Frame::End => self.ended = true,
                    Frame::Error { head, error } if head.transaction == 0 => {
                        self.failed(&head, Error::from_body(error));
                        return self.lose(lost);
                    }
                    _ => {}
                }
            }
            self.lose(lost);
        }
    }

    /// Reads one frame and handles it; `false` = none came in time.
    pub(super) fn take_in(&mut self, wait: Wait) -> bool {
        let Some(conn) = &mut self.conn else { return true };
        match conn.next(wait) {
            Ok(Some(frame)) => self.handle(frame),
            Ok(None) => return false,
            Err(lost) => self.lose(lost),
        }
        true
    }

    fn handle(&mut self, frame: Frame) {
        let kind = frame.kind();
        match frame {
            Frame::Data { head, body } => {
                self.held.push_back(Request { body, head, received: clock::now() });
            }
            Frame::Ping { sequence } => self.write(Frame::Pong { sequence }),
            Frame::Pong { .. } => {}
            Frame::End => self.ended = true,
            Frame::Reinit => {
                if let Some(handler) = &mut self.on_reinit {
                    handler();
                }
            }
            Frame::Status { sequence } => {
                let mut text = match &mut self.on_status {
                    Some(handler) => handler(),
                    None => format!("{} requests answered", self.answered),
                };
                while text.len() > STATUS_BYTES_MAX {
                    text.pop();
                }
                self.write(Frame::StatusReply { sequence, text });
            }
            Frame::Error { head, error } => self.failed(&head, Error::from_body(error)),
            Frame::WorkerLoginOk(_)
            | Frame::Login(_)
            | Frame::LoginOk(_)
            | Frame::WorkerLogin(_)
            | Frame::Logout(_)
            | Frame::Cancel { .. }
            | Frame::Flush { .. }
            | Frame::Flushed(_)
            | Frame::Challenge(_)
            | Frame::Proof(_)
            | Frame::StatusReply { .. }
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
            | Frame::ExecEnd(_) => {
                let text = format!("the broker sent a worker a {kind} frame, which can't come now");
                self.refuse(Error::new(ErrorCode::BadState, text));
            }
        }
    }

    /// Handles an error frame: nobody waits for a request any more, or the broker will close the
    /// connection. The request still needs a final answer, which the broker drops, but which frees
    /// this worker there.
    fn failed(&mut self, head: &Header, error: Error) {
        let which = head.transaction;
        if which == 0 {
            if !login::is_worth_returning(&error) {
                self.refuse(error);
            }
        } else if self.current.as_ref().is_some_and(|current| current.head.transaction == which) {
            self.over = Some(error);
        } else if let Some(at) = self.held.iter().position(|r| r.head.transaction == which) {
            let unread = self.held[at].head;
            self.held.retain(|request| request.head.transaction != which);
            let frame = self.frame(&unread, Bytes::from_static(GAVE_UP_TEXT), false, GAVE_UP);
            self.write(frame);
        }
    }

    fn refuse(&mut self, error: Error) {
        self.conn = None;
        self.held.clear();
        self.set_over(&error);
        self.refused = Some(error);
    }

    pub(super) fn lose(&mut self, lost: Lost) {
        if self.conn.take().is_none() {
            return;
        }
        let garbage = matches!(lost, Lost::Wire(_));
        let error = lost.into_error(&self.options.address);
        self.set_over(&error);
        self.held.clear();
        self.ended_early.clear();
        if garbage {
            self.refused = Some(error);
        } else {
            self.lost_at = Some((clock::now(), error));
        }
    }

    /// Marks the present request as over, because its connection broke.
    pub(super) fn set_over(&mut self, error: &Error) {
        if self.current.take().is_some() {
            self.over = Some(error.clone());
        }
    }
}
