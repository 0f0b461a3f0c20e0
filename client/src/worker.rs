//! The worker: log in, take requests one by one, answer each. It is blocking and has one request at
//! a time. If the broker is gone for a while, it connects again by itself, and the program only
//! sees a longer wait. The broker's `end` and execd decide when it ends.

use crate::clock;
use crate::conn::{Conn, Lost, Wait, WriteFault};
use crate::error::Error;
use crate::token::Token;
use bytes::Bytes;
use protocol::bodies::WorkerLoginOk;
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::WorkerId;
use protocol::limits::{BODY_BYTES_DEFAULT, WORKER_SECRET_VARIABLE};
use protocol::names::ServiceName;
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

pub use options::WorkerOptions;
pub use program::{help, misused, own_args, run};
pub use protocol::limits::ISDARGMAX;
pub use request::Request;

mod login;
mod misuse;
mod options;
mod program;
mod request;

/// Most bytes of an answer to `status`.
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// Most transactions that are remembered because they ended before their last piece came.
const ENDED_EARLY_MAX: usize = 1024;

/// The code of the failure that frees a worker whose client never finished its request.
const GAVE_UP: i16 = 1;
/// The text of that failure.
const GAVE_UP_TEXT: &[u8] = b"nobody waits for the answer any more";

/// The request that is being answered.
struct Current {
    head: Header,
    until: Option<Instant>,
    /// Whether the client's last frame had `more`.
    client_more: bool,
    /// Whether the last frame of this side had `more`.
    worker_more: bool,
    /// Whether any frame of this side had `more`; then a frame of the client may cross the end.
    was_open: bool,
}

type StatusHandler = Box<dyn FnMut() -> String + Send>;
type ReinitHandler = Box<dyn FnMut() + Send>;

/// A worker that has logged in.
pub struct Worker {
    options: WorkerOptions,
    limits: WorkerLoginOk,
    conn: Option<Conn>,
    lost_at: Option<(Instant, Error)>,
    held: VecDeque<Request>,
    current: Option<Current>,
    /// Transactions that ended here before their client had sent all: further pieces are dropped.
    ended_early: VecDeque<u64>,
    over: Option<Error>,
    ended: bool,
    refused: Option<Error>,
    answered: u64,
    on_status: Option<StatusHandler>,
    on_reinit: Option<ReinitHandler>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker")
            .field("options", &self.options)
            .field("connected", &self.conn.is_some())
            .field("busy", &self.current.is_some())
            .finish_non_exhaustive()
    }
}

impl Worker {
    /// Connects as the arguments and the environment of this program say. A program that execd
    /// starts begins with this call. [`own_args`] has the application's own arguments.
    ///
    /// The secret in `ISECT_WORKER_SECRET` stays in the environment of the process; a worker that
    /// starts programs removes it from their environment (as `isdpipe` does). Without that secret
    /// the program started itself, and it proves the token that the environment names.
    ///
    /// # Errors
    /// The program was not started as a worker, nobody answers, or the broker refuses the login.
    #[expect(clippy::disallowed_methods, reason = "the secret comes by the environment alone")]
    pub fn connect_from_args() -> Result<Self, Error> {
        let secret = std::env::var(WORKER_SECRET_VARIABLE).unwrap_or_default();
        let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
        let mut options = WorkerOptions::from_args(args, secret)?;
        if options.secret.is_empty() {
            options.token = Token::from_environment()?;
        }
        Self::connect(options)
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// Nobody answers, or the broker refuses the login.
    pub fn connect(options: WorkerOptions) -> Result<Self, Error> {
        let limits = WorkerLoginOk {
            worker: options.worker,
            body_bytes_max: BODY_BYTES_DEFAULT as u64,
            heartbeat_ms: 0,
            silence_ms: 0,
            reconnect_ms: 0,
            signature: None,
        };
        let until = clock::until(options.start_timeout);
        let mut worker = Self {
            options,
            limits,
            conn: None,
            lost_at: None,
            held: VecDeque::new(),
            current: None,
            ended_early: VecDeque::new(),
            over: None,
            ended: false,
            refused: None,
            answered: 0,
            on_status: None,
            on_reinit: None,
        };
        worker.keep_trying(until)?;
        Ok(worker)
    }

    /// The id of this worker; the broker assigns it to a self-started one.
    pub fn id(&self) -> WorkerId {
        self.limits.worker
    }

    /// The service that this worker answers for.
    pub fn service(&self) -> &ServiceName {
        &self.options.service
    }

    /// Most bytes in the body of one frame.
    pub fn body_bytes_max(&self) -> usize {
        usize::try_from(self.limits.body_bytes_max).unwrap_or(usize::MAX).max(1)
    }

    /// Sets the handler for the operator's `send … status`; its text is the answer.
    pub fn on_status(&mut self, handler: impl FnMut() -> String + Send + 'static) {
        self.on_status = Some(Box::new(handler));
    }

    /// Sets the handler for the operator's `send … reinit`: read the configuration again. It is
    /// never called in the middle of a request, unless that waits for a further piece.
    pub fn on_reinit(&mut self, handler: impl FnMut() + Send + 'static) {
        self.on_reinit = Some(Box::new(handler));
    }

    /// Why nobody waits for the answer to the present request any more, as far as this side knows:
    /// its client or its connection is gone, or its time is over. A final answer must be given all
    /// the same ([`Worker::next`] gives one if the program does not). It is sent as a failure,
    /// because nobody must take half an answer for a success.
    pub fn over(&self) -> Option<&Error> {
        self.over.as_ref()
    }

    /// Checks, without waiting, whether the present request is over ([`Worker::over`] says why). A
    /// program that streams a long answer calls this now and then, to stop when nobody reads it.
    pub fn is_over(&mut self) -> bool {
        while self.over.is_none() && self.conn.is_some() && self.take_in(Wait::Not) {}
        self.over.is_some()
    }

    /// Waits for the next request; `None` = the broker asks this worker to end. If the broker is
    /// lost, it tries to connect again for as long as the login allowed.
    ///
    /// # Errors
    /// The request before was not answered. Or the broker refuses this worker, does not come back
    /// in time, or sends something invalid: then the program should end, and execd starts it again.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not give errors with `?`")]
    pub fn next(&mut self) -> Result<Option<Request>, Error> {
        if let Some(current) = &self.current {
            if self.over.is_none() {
                let text = format!(
                    "transaction {} is not answered; call reply or fail before next",
                    current.head.transaction
                );
                return Err(Error::new(ErrorCode::BadState, text));
            }
            self.answer(Bytes::from_static(GAVE_UP_TEXT), false, GAVE_UP);
        }
        self.over = None;
        loop {
            if let Some(request) = self.held.pop_front() {
                if self.ended_early.contains(&request.head.transaction) {
                    continue;
                }
                self.current = Some(Current {
                    head: request.head,
                    until: request.until(),
                    client_more: request.more(),
                    worker_more: false,
                    was_open: false,
                });
                return Ok(Some(request));
            }
            if let Some(error) = self.refused.take() {
                return Err(error);
            }
            if self.ended {
                self.conn = None;
                return Ok(None);
            }
            if self.conn.is_none() {
                self.come_back()?;
            }
            self.take_in(Wait::Until(None));
        }
    }

    /// Waits for the next frame of the present request. `None` = there is none: the last one had no
    /// `more` and no conversation is open, or the request is over ([`Worker::over`] says why).
    ///
    /// # Errors
    /// None at present. The end of the connection ends the request, and [`Worker::next`] reports
    /// it.
    pub fn next_piece(&mut self) -> Result<Option<Request>, Error> {
        loop {
            if self.over.is_some() {
                return Ok(None);
            }
            let Some(current) = &mut self.current else {
                return Ok(None);
            };
            if !current.client_more && !current.worker_more {
                return Ok(None);
            }
            let transaction = current.head.transaction;
            if let Some(at) = self.held.iter().position(|r| r.head.transaction == transaction) {
                let Some(request) = self.held.remove(at) else { continue };
                current.client_more = request.more();
                current.worker_more = false;
                return Ok(Some(request));
            }
            let until = current.until;
            if !self.take_in(Wait::Until(until)) {
                let text = "the client did not send the rest of its request within the deadline";
                self.over = Some(Error::new(ErrorCode::Deadline, text).with_ran(Ran::Maybe));
            }
        }
    }

    /// Answers the present request and ends it. An answer of more than one frame is sent in pieces.
    /// If the connection broke meanwhile, the answer is dropped, because nobody can take it.
    ///
    /// # Errors
    /// There is no request to answer.
    pub fn reply(&mut self, body: impl Into<Bytes>) -> Result<(), Error> {
        let mut body = body.into();
        self.check_busy()?;
        while body.len() > self.body_bytes_max() {
            let piece = body.split_to(self.body_bytes_max());
            self.answer(piece, true, 0);
        }
        self.answer(body, false, 0);
        Ok(())
    }

    /// Sends a piece of the answer; more must follow. In a conversation [`Worker::next_piece`] then
    /// returns the client's next frame.
    ///
    /// # Errors
    /// There is no request to answer.
    pub fn reply_piece(&mut self, body: impl Into<Bytes>) -> Result<(), Error> {
        let mut body = body.into();
        self.check_busy()?;
        while body.len() > self.body_bytes_max() {
            let piece = body.split_to(self.body_bytes_max());
            self.answer(piece, true, 0);
        }
        self.answer(body, true, 0);
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

    /// Ends in order: it takes no further request, and the broker reports a present one as failed.
    pub fn logout(mut self) {
        if let Some(conn) = &mut self.conn {
            // If it can't be written, the closing socket says the same.
            drop(conn.write(Frame::Logout, Some(clock::now() + Duration::from_millis(500))));
        }
    }

    fn check_busy(&self) -> Result<(), Error> {
        if self.current.is_some() || self.over.is_some() {
            return Ok(());
        }
        Err(Error::new(ErrorCode::BadState, "there is no request to answer; call next first"))
    }

    fn answer(&mut self, body: Bytes, more: bool, error: i16) {
        let Some(current) = &mut self.current else {
            return;
        };
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
    fn frame(&self, request: &Header, body: Bytes, more: bool, error: i16) -> Frame {
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

    fn write(&mut self, frame: Frame) {
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
    fn take_in(&mut self, wait: Wait) -> bool {
        let Some(conn) = &mut self.conn else {
            return true;
        };
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
            | Frame::Logout
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

    fn lose(&mut self, lost: Lost) {
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
    fn set_over(&mut self, error: &Error) {
        if self.current.take().is_some() {
            self.over = Some(error.clone());
        }
    }
}
