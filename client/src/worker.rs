//! The worker: log in, take requests one by one, answer each. It is blocking and has one request at
//! a time. If the broker is gone for a while, it connects again by itself, and the program only
//! sees a longer wait. The broker's `end` and execd decide when it ends.

use crate::clock;
use crate::conn::{Conn, Wait};
use crate::error::Error;
use crate::retry::Returns;
use aside::Aside;
use bytes::Bytes;
use protocol::bodies::{Logout, WorkerLoginOk};
use protocol::{ErrorCode, Frame, Header, Ran, ServiceName, WorkerId};
use std::collections::VecDeque;
use std::fmt;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

pub use concurrent::{ConcurrentWorker, OwnedRequest, serve_concurrently};
pub use options::WorkerOptions;
pub use program::{help, misused, own_args, run, run_concurrent};
pub use protocol::limits::ISDARGMAX;
pub use request::Request;

mod answer;
mod aside;
mod concurrent;
mod inbound;
mod login;
mod misuse;
mod options;
mod program;
mod request;

/// Most bytes of an answer to `status`.
const STATUS_BYTES_MAX: usize = 64 * 1024;

/// Most transactions that are remembered because they ended before their last piece came.
const ENDED_EARLY_MAX: usize = 1024;

/// Longest time to wait for the broker's `end` after a logout.
const LOGOUT_TIMEOUT: Duration = Duration::from_secs(2);

/// The code of the failure that frees a worker whose client never finished its request.
const GAVE_UP: i16 = 1;
/// The text of that failure.
const GAVE_UP_TEXT: &[u8] = b"nobody waits for the answer any more";

/// The request that is being answered.
struct Current {
    head: Header,
    until: Option<Instant>,
    /// What the next frame of the answer says of the time until the one behind it, in milliseconds;
    /// 0 = nothing.
    next_ms: u32,
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
    returns: Returns,
    held: VecDeque<Request>,
    current: Option<Current>,
    /// Transactions that ended here before their client had sent all: further pieces are dropped.
    ended_early: VecDeque<u64>,
    over: Option<Error>,
    /// How many requests came by this connection.
    received: u32,
    /// The number of the last of them that the program was given.
    begun: u32,
    /// How many more requests the program wants; `None` = no limit.
    left: Option<u64>,
    is_logged_out: bool,
    ended: bool,
    refused: Option<Error>,
    answered: u64,
    on_status: Option<StatusHandler>,
    on_reinit: Option<ReinitHandler>,
    aside: Aside,
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
    pub fn connect_from_args() -> Result<Self, Error> {
        Self::connect(WorkerOptions::of_program()?)
    }

    /// Connects and logs in.
    ///
    /// # Errors
    /// Nobody answers, or the broker refuses the login.
    pub fn connect(mut options: WorkerOptions) -> Result<Self, Error> {
        let until = clock::until(options.start_timeout);
        let mut returns = Returns::new(login::RETURN_WAITS);
        let (conn, limits) = login::keep_trying(&mut options, 1, until, &mut returns)?;
        Ok(Self {
            options,
            limits,
            conn: Some(conn),
            lost_at: None,
            returns,
            held: VecDeque::new(),
            current: None,
            ended_early: VecDeque::new(),
            over: None,
            received: 0,
            begun: 0,
            left: None,
            is_logged_out: false,
            ended: false,
            refused: None,
            answered: 0,
            on_status: None,
            on_reinit: None,
            aside: Aside::default(),
        })
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
        // Behind its `end` the broker sends nothing, and still takes the answer.
        let may_hear = |worker: &Self| worker.over.is_none() && !worker.ended;
        while may_hear(self) && self.conn.is_some() && self.take_in(Wait::Not) {}
        self.over.is_some()
    }

    /// The socket, for programs of this crate that wait for something else as well. When it is
    /// readable, [`is_over`](Self::is_over) reads it.
    pub(crate) fn descriptor(&self) -> Option<BorrowedFd<'_>> {
        self.conn.as_ref().filter(|_| !self.ended).map(Conn::as_fd)
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
        if self.left == Some(0) {
            self.log_out();
            return Ok(None);
        }
        loop {
            if let Some(request) = self.held.pop_front() {
                self.begun = self.begun.max(request.number);
                if request.is_over {
                    self.give_up(&request);
                    continue;
                }
                if self.ended_early.contains(&request.head.transaction) {
                    continue;
                }
                self.current = Some(Current {
                    head: request.head,
                    until: request.until(),
                    next_ms: 0,
                    client_more: request.more(),
                    worker_more: false,
                    was_open: false,
                });
                self.left = self.left.map(|left| left.saturating_sub(1));
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
                let until = login::return_until(self.lost_at.take(), &self.limits)?;
                let returns = &mut self.returns;
                let (conn, limits) = login::keep_trying(&mut self.options, 1, until, returns)?;
                (self.conn, self.limits) = (Some(conn), limits);
                (self.received, self.begun) = (0, 0);
                self.announce_again();
            }
            self.wait_and_beat(None);
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
            let Some(current) = &mut self.current else { return Ok(None) };
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
            if self.ended {
                self.over = Some(conversation_ended());
                return Ok(None);
            }
            // Once a piece of the answer has left, only the broker knows until when.
            let until = current.until.filter(|_| !current.was_open);
            if !self.wait_and_beat(until) {
                let text = "the client did not send the rest of its request within the deadline";
                self.over = Some(Error::new(ErrorCode::Deadline, text).with_ran(Ran::Maybe));
            }
        }
    }

    /// Takes so many more requests, and then logs out with the last answer: [`Worker::next`]
    /// returns `None`. For programs that are to begin anew now and then, because they lose memory
    /// or were replaced; execd starts them again at once.
    pub fn end_after(&mut self, requests: u64) {
        self.left = Some(requests);
    }

    /// Ends in order: it takes no further request; those that the broker has sent meanwhile go to
    /// other workers, and it reports a present one as failed. Waits up to two seconds until the
    /// broker says that nothing more comes.
    pub fn logout(mut self) {
        self.log_out();
    }

    fn log_out(&mut self) {
        self.held.clear();
        if !self.is_logged_out && !self.ended {
            self.is_logged_out = true;
            self.write(self.goodbye());
        }
        let until = clock::until(LOGOUT_TIMEOUT);
        let wait = Wait::Until(Some(until));
        while self.conn.is_some() && !self.ended && self.take_in(wait) {}
        self.conn = None;
    }

    /// The logout. What the program was not given counts as not received.
    fn goodbye(&self) -> Frame {
        Frame::Logout(Logout { received: Some(self.begun) })
    }
}

/// Why no further piece of a request comes after the broker's `end`.
fn conversation_ended() -> Error {
    let text = "the broker sends this worker nothing more, so the client's next frame can't come";
    Error::new(ErrorCode::ConversationEnded, text)
}
