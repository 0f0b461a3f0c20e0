//! A worker that answers several requests at a time. One thread takes them; each is an owned value,
//! which any thread answers in any order. [`serve_concurrently`] has the threads for that.
//!
//! | file | what it has |
//! | --- | --- |
//! | `owned` | the request that its program owns, and its answer |
//! | `link` | the connection that one thread reads and all write |
//! | `pool` | the threads of [`serve_concurrently`] |

use super::aside::Refused;
use super::inbound::{Word, is_aside, status_text};
use super::{LOGOUT_TIMEOUT, ReinitHandler, Request, StatusHandler, WorkerOptions, login};
use crate::clock;
use crate::conn::{Conn, Lost};
use crate::error::Error;
use crate::retry::Returns;
use link::{Arrived, Link, lock};
use protocol::bodies::{Logout, WorkerLoginOk};
use protocol::limits::CONCURRENCY_MAX;
use protocol::{ErrorCode, Frame, ServiceName, WorkerId};
use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::AtomicU64;
use std::time::Instant;

pub use owned::OwnedRequest;
pub use pool::serve_concurrently;

mod link;
mod owned;
mod pool;

/// A worker that has logged in and answers several requests at a time.
///
/// ```no_run
/// use client::worker::{ConcurrentWorker, WorkerOptions};
///
/// # fn main() -> Result<(), client::error::Error> {
/// let options = WorkerOptions { concurrency: 8, ..WorkerOptions::of_program()? };
/// let mut worker = ConcurrentWorker::connect(options)?;
/// while let Some(mut request) = worker.next()? {
///     // Any thread may do this, and at any time.
///     let body = request.take_body();
///     request.reply(body);
/// }
/// # Ok(())
/// # }
/// ```
pub struct ConcurrentWorker {
    options: WorkerOptions,
    limits: WorkerLoginOk,
    link: Option<Arc<Link>>,
    lost_at: Option<(Instant, Error)>,
    returns: Returns,
    /// Requests that came and that the program was not given, each with its number.
    waiting: VecDeque<(u32, OwnedRequest)>,
    /// How many requests came by this connection.
    received: u32,
    /// The number of the last of them that the program was given.
    begun: u32,
    /// How many more requests the program wants; `None` = no limit.
    left: Option<u64>,
    /// When it logged out.
    logged_out_at: Option<Instant>,
    ended: bool,
    refused: Option<Error>,
    /// What came with the answer to the login. It is handled in [`next`](Self::next), so that the
    /// program has set what handles it.
    early: Option<Arrived>,
    answered: Arc<AtomicU64>,
    on_status: Option<StatusHandler>,
    on_reinit: Option<ReinitHandler>,
    /// What was refused of the messages that the program published.
    asides: Refused,
}

impl fmt::Debug for ConcurrentWorker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ConcurrentWorker")
            .field("options", &self.options)
            .field("connected", &self.link.is_some())
            .field("concurrency", &self.limits.concurrency)
            .finish_non_exhaustive()
    }
}

impl ConcurrentWorker {
    /// Connects and logs in, with the concurrency of the options.
    ///
    /// # Errors
    /// Nobody answers, the broker refuses the login, or the concurrency is out of range.
    pub fn connect(mut options: WorkerOptions) -> Result<Self, Error> {
        let concurrency = options.concurrency;
        if !(1..=CONCURRENCY_MAX).contains(&concurrency) {
            let text =
                format!("concurrency {concurrency} is out of range; it is 1 to {CONCURRENCY_MAX}");
            return Err(Error::new(ErrorCode::BadWorkerLogin, text));
        }
        let until = clock::until(options.start_timeout);
        let mut returns = Returns::new(login::RETURN_WAITS);
        let (conn, limits) = login::keep_trying(&mut options, concurrency, until, &mut returns)?;
        let mut worker = Self {
            options,
            limits,
            link: None,
            lost_at: None,
            returns,
            waiting: VecDeque::new(),
            received: 0,
            begun: 0,
            left: None,
            logged_out_at: None,
            ended: false,
            refused: None,
            early: None,
            answered: Arc::default(),
            on_status: None,
            on_reinit: None,
            asides: Refused::default(),
        };
        worker.use_connection(conn);
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

    /// Most requests that it has at a time: the smaller of what the login named and what the broker
    /// allows. It may change when the worker logs in again after a loss.
    pub fn concurrency(&self) -> usize {
        self.limits.concurrency.clamp(1, self.options.concurrency) as usize
    }

    /// Sets the handler for the operator's `send … status`; its text is the answer.
    pub fn on_status(&mut self, handler: impl FnMut() -> String + Send + 'static) {
        self.on_status = Some(Box::new(handler));
    }

    /// Sets the handler for the operator's `send … reinit`: read the configuration again. The
    /// thread that waits in [`next`](Self::next) calls it, while others may answer requests.
    pub fn on_reinit(&mut self, handler: impl FnMut() + Send + 'static) {
        self.on_reinit = Some(Box::new(handler));
    }

    /// The errors of messages that the broker refused ([`OwnedRequest::publish`]), since this was
    /// asked last; at most the last thousand. Only [`next`](Self::next) hears of them.
    pub fn refused(&mut self) -> Vec<Error> {
        self.asides.take()
    }

    /// Takes so many more requests, and then logs out: [`next`](Self::next) returns `None`. Those
    /// that are not answered then still may be; conversations that wait for their client are over.
    pub fn end_after(&mut self, requests: u64) {
        self.left = Some(requests);
    }

    /// Takes no further request: [`next`](Self::next) returns `None` once the broker has said that
    /// nothing more comes, after two seconds at most. Those that the broker has sent meanwhile go
    /// to other workers. Those that the program has still may be answered.
    pub fn log_out(&mut self) {
        if self.logged_out_at.is_some() || self.ended {
            return;
        }
        self.logged_out_at = Some(clock::now());
        for (_, request) in self.waiting.drain(..) {
            request.discard();
        }
        if let Some(link) = &self.link {
            link.put_off(Frame::Logout(Logout { received: Some(self.begun) }));
            link.flush_now();
        }
    }

    /// Waits for the next request; `None` = no further one comes, because the broker asks this
    /// worker to end, or it logged out. If the broker is lost, it tries to connect again for as
    /// long as the login allowed. With a concurrency of 1 the next one is begun when the one before
    /// is answered, also where the broker sends them ahead (`prefetch`).
    ///
    /// Only here the broker is heard: it answers pings, learns that nobody waits for a request any
    /// more, and gets further pieces of requests. So be here nearly always, and answer on other
    /// threads; or answer within microseconds ([`OwnedRequest::reply_batched`]).
    ///
    /// # Errors
    /// The broker refuses this worker, does not come back in time, or sends something invalid: then
    /// the program should end, and execd starts it again.
    #[expect(clippy::should_implement_trait, reason = "an iterator could not give errors with `?`")]
    pub fn next(&mut self) -> Result<Option<OwnedRequest>, Error> {
        self.take_early();
        if self.left == Some(0) {
            self.drain();
        }
        loop {
            if let Some(link) = self.link.as_ref().filter(|link| link.is_full()) {
                link.flush_now();
            }
            while let Some((number, request)) = self.pop_waiting() {
                self.begun = number;
                if !request.is_over() {
                    return Ok(Some(self.give(request)));
                }
                request.end_unheard();
            }
            if let Some(error) = self.refused.take() {
                return Err(error);
            }
            if self.ended && !self.waiting.is_empty() {
                // The broker sends nothing more; only an answer lets the next one begin.
                if let Some(link) = &self.link {
                    link.await_answer();
                }
                continue;
            }
            let is_over = match self.logged_out_at {
                None => self.ended,
                Some(at) => {
                    let until = clock::after(at, LOGOUT_TIMEOUT);
                    self.ended || self.link.is_none() || !self.take_in(Some(until))
                }
            };
            if is_over {
                // The program may end now, so what was put off must leave.
                if let Some(link) = &self.link {
                    link.send();
                }
                return Ok(None);
            }
            if self.link.is_none() {
                self.come_back()?;
                self.take_early();
            } else if self.logged_out_at.is_none() {
                self.take_in(None);
            }
        }
    }

    /// The next request that may be begun.
    fn pop_waiting(&mut self) -> Option<(u32, OwnedRequest)> {
        let is_alone = self.options.concurrency == 1;
        if is_alone && let Some(link) = &self.link {
            // Those that were sent ahead count as not begun until the one before is answered, and
            // are answered in the order in which they came.
            if !lock(&link.open).await_room(self.waiting.len()) {
                return None;
            }
        }
        self.waiting.pop_front()
    }

    /// Counts a request that the program is given.
    fn give(&mut self, request: OwnedRequest) -> OwnedRequest {
        request.begin();
        self.left = self.left.map(|left| left.saturating_sub(1));
        if self.left == Some(0) && !self.has_partial() {
            self.log_out();
        }
        request
    }

    /// Logs out, once the requests that the program has came whole, or two seconds later: behind
    /// the logout no further piece comes.
    fn drain(&mut self) {
        let until = clock::until(LOGOUT_TIMEOUT);
        while self.has_partial() && !self.ended && self.take_in(Some(until)) {}
        self.log_out();
    }

    fn has_partial(&self) -> bool {
        self.link.as_ref().is_some_and(|link| lock(&link.open).has_partial())
    }

    fn come_back(&mut self) -> Result<(), Error> {
        let until = login::return_until(self.lost_at.take(), &self.limits)?;
        let concurrency = self.options.concurrency;
        let returns = &mut self.returns;
        let (conn, limits) = login::keep_trying(&mut self.options, concurrency, until, returns)?;
        self.limits = limits;
        self.use_connection(conn);
        Ok(())
    }

    fn use_connection(&mut self, mut conn: Conn) {
        let size = usize::try_from(self.limits.body_bytes_max).unwrap_or(usize::MAX).max(1);
        // Requests may have come with the answer to the login.
        let arrived = Arrived::by(&mut conn);
        let link = Link::new(conn, self.limits.worker, size, Arc::clone(&self.answered));
        (self.received, self.begun) = (0, 0);
        match link {
            Ok(link) => {
                let link = Arc::new(link);
                self.link = Some(Arc::clone(&link));
                self.early = Some(arrived);
            }
            Err(lost) => self.lose(lost),
        }
    }

    /// Handles what came with the answer to the login.
    fn take_early(&mut self) {
        if let (Some(arrived), Some(link)) = (self.early.take(), self.link.clone()) {
            self.handle_all(&link, arrived);
        }
    }

    /// Waits for frames and handles them; `false` = none came in time.
    fn take_in(&mut self, until: Option<Instant>) -> bool {
        let Some(link) = self.link.clone() else { return true };
        let mut arrived = Arrived::default();
        let has_arrived = link.read(until, &mut arrived);
        self.handle_all(&link, arrived);
        has_arrived
    }

    fn handle_all(&mut self, link: &Arc<Link>, arrived: Arrived) {
        for frame in arrived.frames {
            self.handle(link, frame);
            if self.link.is_none() {
                // What came behind that is not heard: nothing would end a request of it.
                return;
            }
        }
        // Behind its `end` the broker sends nothing, and still takes answers.
        if let Some(lost) = arrived.lost
            && !self.ended
        {
            self.lose(lost);
        }
    }

    fn handle(&mut self, link: &Arc<Link>, frame: Frame) {
        match Word::of(frame) {
            Word::Request(head, body) => {
                let request =
                    Request { body, head, received: clock::now(), number: 0, is_over: false };
                let taken = match self.logged_out_at {
                    None => lock(&link.open).take(request),
                    // What crossed the logout goes to another worker; pieces of others come still.
                    Some(_) => {
                        lock(&link.open).take_piece(request);
                        None
                    }
                };
                if let Some((request, state)) = taken {
                    self.received = self.received.wrapping_add(1);
                    let request = OwnedRequest::new(Arc::clone(link), request, state);
                    self.waiting.push_back((self.received, request));
                }
            }
            Word::Over(head, error) if head.transaction != 0 => {
                lock(&link.open).set_over(head.transaction, error);
            }
            Word::Over(head, error) if is_aside(&head, &error) => self.asides.add(error),
            Word::Over(_, error) => {
                if !login::is_worth_returning(&error) {
                    self.refuse(error);
                }
            }
            Word::Ping(sequence) => link.put_off(Frame::Pong { sequence }),
            Word::Pong | Word::Announced(_) | Word::BeatOk(_) | Word::Nothing => {}
            Word::End => {
                self.ended = true;
                lock(&link.open).end_pieces();
            }
            Word::Reinit => {
                if let Some(handler) = &mut self.on_reinit {
                    handler();
                }
            }
            Word::Status(sequence) => {
                let text = status_text(self.on_status.as_mut(), link.answered());
                link.put_off(Frame::StatusReply { sequence, text });
            }
            Word::Misplaced(error) => self.refuse(error),
        }
    }

    fn refuse(&mut self, error: Error) {
        self.drop_link(&error);
        self.refused = Some(error);
    }

    fn lose(&mut self, lost: Lost) {
        let garbage = matches!(lost, Lost::Wire(_));
        let error = lost.into_error(&self.options.address);
        self.drop_link(&error);
        if garbage {
            self.refused.get_or_insert(error);
        } else {
            self.lost_at = Some((clock::now(), error));
        }
    }

    fn drop_link(&mut self, why: &Error) {
        if let Some(link) = self.link.take() {
            link.close();
            lock(&link.open).set_all_over(why);
        }
        self.waiting.clear();
    }
}
