//! What the broker sends to a worker: frames are read, kept or handled, and the end of the
//! connection ends what came by it.

use super::{Request, STATUS_BYTES_MAX, StatusHandler, Worker, login};
use crate::clock;
use crate::conn::{Lost, Wait, WriteFault};
use crate::error::{Code, Error};
use bytes::Bytes;
use protocol::bodies::{Announced, BeatOk};
use protocol::{ErrorCode, Frame, Header, Ran};

impl Worker {
    pub(super) fn write(&mut self, frame: Frame) {
        self.write_after(None, frame);
    }

    /// Writes a frame, with another one before it in the same write.
    pub(super) fn write_after(&mut self, first: Option<Frame>, frame: Frame) {
        if let Some(conn) = &mut self.conn
            && let Err(WriteFault::Broken(lost)) = conn.write_after(first, frame, None)
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
        match Word::of(frame) {
            // What crossed the logout goes to another worker.
            Word::Request(..) if self.is_logged_out => {}
            Word::Request(head, body) => self.take_request(head, body),
            Word::Over(head, error) => self.failed(&head, error),
            Word::Ping(sequence) => self.write(Frame::Pong { sequence }),
            Word::Pong => {}
            Word::End => self.ended = true,
            Word::Reinit => {
                if let Some(handler) = &mut self.on_reinit {
                    handler();
                }
            }
            Word::Status(sequence) => {
                let text = status_text(self.on_status.as_mut(), self.answered);
                self.write(Frame::StatusReply { sequence, text });
            }
            Word::Announced(answer) => self.aside.announced(answer),
            Word::BeatOk(answer) => self.aside.beat_ok(&answer),
            Word::Nothing => {}
            Word::Misplaced(error) => self.refuse(error),
        }
    }

    fn take_request(&mut self, head: Header, body: Bytes) {
        let which = head.transaction;
        let is_current = self.current.as_ref().is_some_and(|now| now.head.transaction == which);
        let is_further = is_current
            || self.held.iter().any(|request| request.head.transaction == which)
            || self.ended_early.contains(&which);
        if !is_further {
            self.received = self.received.wrapping_add(1);
        }
        let number = if is_further { 0 } else { self.received };
        self.held.push_back(Request { body, head, received: clock::now(), number, is_over: false });
    }

    /// Handles a cancel or an error frame: nobody waits for a request any more, or the broker will
    /// close the connection. The request still needs a final answer, which the broker drops, but
    /// which frees this worker there.
    fn failed(&mut self, head: &Header, error: Error) {
        let which = head.transaction;
        if is_aside(head, &error) {
            self.aside.failed(head.sequence, error);
        } else if which == 0 {
            if !login::is_worth_returning(&error) {
                self.refuse(error);
            }
        } else if self.current.as_ref().is_some_and(|current| current.head.transaction == which) {
            self.over = Some(error);
        } else if let Some(at) = self.held.iter().position(|r| r.head.transaction == which) {
            let last = self.held.iter().rev().find(|r| r.head.transaction == which);
            if last.is_some_and(Request::more) {
                self.note_ended_early(which);
            }
            // It is answered when its turn comes: answers keep the order of the requests.
            self.held[at].is_over = true;
            let mut index = 0;
            self.held.retain(|request| {
                index += 1;
                index <= at + 1 || request.head.transaction != which
            });
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
        self.aside.lost();
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

/// What a frame means to a worker.
pub(super) enum Word {
    /// A request, or a further piece of one.
    Request(Header, Bytes),
    /// Nobody waits for a request any more. Without a transaction: the broker closes the
    /// connection.
    Over(Header, Error),
    Ping(u32),
    Pong,
    End,
    Reinit,
    Status(u32),
    /// An instance of this program is watched.
    Announced(Announced),
    /// The broker has heard a beat.
    BeatOk(BeatOk),
    /// It needs nothing.
    Nothing,
    /// The broker must not send it.
    Misplaced(Error),
}

impl Word {
    pub(super) fn of(frame: Frame) -> Self {
        let kind = frame.kind();
        match frame {
            Frame::Data { head, body } => Self::Request(head, body),
            Frame::Ping { sequence } => Self::Ping(sequence),
            Frame::Pong { .. } => Self::Pong,
            Frame::End => Self::End,
            Frame::Reinit => Self::Reinit,
            Frame::Status { sequence } => Self::Status(sequence),
            Frame::Error { head, error } => Self::Over(head, Error::from_body(error)),
            Frame::Cancel { head, text } if head.transaction != 0 => {
                let code = ErrorCode::of(head.error).unwrap_or(ErrorCode::Cancelled);
                Self::Over(head, Error::new(code, text).with_ran(Ran::Maybe))
            }
            Frame::Announced(answer) => Self::Announced(answer),
            Frame::BeatOk(answer) => Self::BeatOk(answer),
            // No worker of the library subscribes, or awaits the answer to a publish.
            Frame::Published(_)
            | Frame::Subscribed(_)
            | Frame::Unsubscribed(_)
            | Frame::CaughtUp(_)
            | Frame::Message { .. } => Self::Nothing,
            Frame::WorkerLoginOk(_)
            | Frame::Login(_)
            | Frame::LoginOk(_)
            | Frame::WorkerLogin(_)
            | Frame::Logout(_)
            // It names no transaction.
            | Frame::Cancel { .. }
            | Frame::Flush { .. }
            | Frame::Flushed(_)
            | Frame::Subscribe(_)
            | Frame::Unsubscribe(_)
            | Frame::Publish { .. }
            | Frame::Announce(_)
            | Frame::StateChange(_)
            | Frame::Beat(_)
            | Frame::Withdraw(_)
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
            | Frame::ExecRead(_)
            | Frame::ExecLines(_)
            | Frame::ExecMemory(_)
            | Frame::ExecEnd(_) => {
                let text = format!("the broker sent a worker a {kind} frame, which can't come now");
                Self::Misplaced(Error::new(ErrorCode::BadState, text))
            }
        }
    }
}

/// Whether an error is about what a worker sends beside its answers: messages and instances.
pub(super) fn is_aside(head: &Header, error: &Error) -> bool {
    let closes = matches!(error.code, Code::Isect(code) if code.row().closes);
    head.transaction == 0 && head.sequence != 0 && !closes
}

/// The answer to `status`: what the program says, or how many requests were answered.
pub(super) fn status_text(handler: Option<&mut StatusHandler>, answered: u64) -> String {
    let mut text = match handler {
        Some(handler) => handler(),
        None => format!("{answered} requests answered"),
    };
    while text.len() > STATUS_BYTES_MAX {
        text.pop();
    }
    text
}
