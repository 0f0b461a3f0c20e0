//! The client: log in, send, receive, call, log out. It is blocking and has one connection with
//! many requests under way. [`session`](crate::session) decides which frame is legal when; `conn`
//! moves the bytes.

use crate::address::Address;
use crate::clock;
use crate::conn::{Conn, Lost, Wait, WriteFault};
use crate::error::Error;
use crate::retry::{self, Returns};
use crate::session::{Event, Session};
use bytes::{Bytes, BytesMut};
use protocol::bodies::{LoginOk, Published};
use protocol::{ErrorCode, Ran};
use std::collections::VecDeque;
use std::fmt;
use std::time::{Duration, Instant};

pub use crate::session::{Reply, Send};
pub(crate) use login::enter;
pub use options::Options;
pub(crate) use options::hostname;

mod control;
mod login;
mod options;
mod publish;

/// Time to wait past a call's deadline for the broker's own error, which says whether the request
/// ran.
const GRACE: Duration = Duration::from_millis(500);

/// A connection that was quiet this long is checked before it is used.
const QUIET: Duration = Duration::from_millis(100);

/// The result of waiting for a frame.
enum Received {
    /// A frame of an answer.
    Reply(Reply),
    /// A message has its number.
    Published(Published),
    /// Another frame; the wait goes on.
    Other,
    /// No frame came in time.
    Nothing,
    /// The connection is lost; the outcomes of requests under way are in the queue.
    Lost(Error),
}

/// What the broker answered to flushes.
#[derive(Debug, Default)]
struct Flushed {
    /// The last one that was answered.
    number: u32,
    /// Requests that were refused, and that the program has not been told of.
    refused: u64,
}

/// A client that has logged in.
pub struct Caller {
    addresses: Vec<Address>,
    options: Options,
    session: Session,
    conn: Option<(Conn, Address)>,
    lost: Option<Error>,
    queue: VecDeque<Reply>,
    queue_bytes: usize,
    flushed: Flushed,
    /// Whether this side of the connection is shut.
    is_finished: bool,
    /// Whether the last attempt to log in again failed, for all the time that it had.
    is_unreturned: bool,
    returns: Returns,
    used: Instant,
}

impl fmt::Debug for Caller {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Caller")
            .field("service", &self.options.service)
            .field("address", &self.address())
            .field("under_way", &self.session.under_way())
            .finish_non_exhaustive()
    }
}

impl Caller {
    /// Logs in at the first address where a broker answers.
    ///
    /// # Errors
    /// No broker answers at any of them, or the broker refuses the login.
    pub fn login(addresses: &[Address], options: Options) -> Result<Self, Error> {
        if options.priority == 0 {
            let text = "priority 0 is out of range; it is 1 to 255, lower is served first";
            return Err(Error::new(ErrorCode::BadLogin, text));
        }
        let mut caller = Self {
            addresses: addresses.to_vec(),
            options,
            session: Session::new(),
            conn: None,
            lost: None,
            queue: VecDeque::new(),
            queue_bytes: 0,
            flushed: Flushed::default(),
            is_finished: false,
            is_unreturned: false,
            returns: Returns::new(login::RETURN_WAITS),
            used: clock::now(),
        };
        caller.connect(None)?;
        Ok(caller)
    }

    /// The address of the connected broker; `None` while the connection is lost.
    pub fn address(&self) -> Option<&Address> {
        self.conn.as_ref().map(|(_, address)| address)
    }

    /// This client's id and the limits in force, from the broker's `login-ok`.
    pub fn limits(&self) -> &LoginOk {
        self.session.limits()
    }

    /// How many requests were sent whose outcome has not come yet.
    pub fn under_way(&self) -> usize {
        self.session.under_way()
    }

    /// Sends a request and waits for the whole answer. Without a deadline the service's default
    /// applies.
    ///
    /// # Errors
    /// The error of the broker, the worker or the connection, with whether the work ran.
    /// [`ErrorCode::Timeout`] if nothing came within the deadline and half a second; the request is
    /// given up then ([`Caller::give_up`]).
    pub fn call(
        &mut self,
        body: impl Into<Bytes>,
        deadline: Option<Duration>,
    ) -> Result<Bytes, Error> {
        self.call_with(body, &Send { deadline, ..Send::default() })
    }

    /// As [`Caller::call`], with all properties of a request. The worker of an `extendable` one may
    /// put off the time that this waits. Ignores `more`, `reply` and
    /// `conversation`; [`Caller::send`] uses those.
    ///
    /// # Errors
    /// As [`Caller::call`].
    pub fn call_with(&mut self, body: impl Into<Bytes>, send: &Send) -> Result<Bytes, Error> {
        let body = body.into();
        let begun = clock::now();
        let span = send.deadline.or_else(|| match self.session.limits().deadline_ms {
            0 => None,
            millis => Some(Duration::from_millis(millis)),
        });
        let until = span.and_then(|span| begun.checked_add(span));
        let send = Send { more: false, reply: true, conversation: None, ..*send };
        // The error of the last attempt is not all: an earlier attempt may have run.
        let mut may_have_run = false;
        loop {
            let error = match self.call_once(body.clone(), &send, until) {
                Ok(answer) => return Ok(answer),
                Err(error) if may_have_run && error.ran == Ran::No => error.with_ran(Ran::Maybe),
                Err(error) => error,
            };
            may_have_run |= error.ran != Ran::No;
            // Not only `broker_lost`: the broker may have said why it closes.
            let again = self.options.reconnect
                && self.conn.is_none()
                && !self.is_unreturned
                && retry::should_retry(&error, send.idempotent).is_some()
                && until.is_none_or(|until| !clock::left(until).is_zero());
            if !again {
                return Err(error);
            }
        }
    }

    fn call_once(
        &mut self,
        body: Bytes,
        send: &Send,
        until: Option<Instant>,
    ) -> Result<Bytes, Error> {
        let sequence = self.dispatch(body, send, until)?;
        let mut wait_until = until.and_then(|until| until.checked_add(GRACE));
        let mut pieces: Option<BytesMut> = None;
        loop {
            let Some(reply) = self.await_reply(sequence, wait_until)? else {
                self.give_up(sequence);
                return Err(Error::new(
                    ErrorCode::Timeout,
                    format!("no answer of service '{}' came in time", self.options.service),
                ));
            };
            if let Some(error) = reply.error {
                self.give_up(sequence);
                return Err(error);
            }
            if let Some(next) = reply.next_within {
                wait_until = clock::now().checked_add(next + GRACE);
            }
            let size = pieces.as_ref().map_or(0, BytesMut::len) + reply.body.len();
            if size > self.options.reply_bytes_max {
                self.give_up(sequence);
                let max = self.options.reply_bytes_max;
                let text = format!(
                    "the answer exceeds reply_bytes_max {max}; take it piece by piece with recv"
                );
                return Err(Error::new(ErrorCode::BodyTooLarge, text).with_ran(Ran::Yes));
            }
            match (&mut pieces, reply.more) {
                (None, false) => return Ok(reply.body),
                (None, true) => pieces = Some(BytesMut::from(&reply.body[..])),
                (Some(all), _) => all.extend_from_slice(&reply.body),
            }
            if !reply.more {
                return Ok(pieces.unwrap_or_default().freeze());
            }
        }
    }

    /// The next frame of the answer to one request; `None` = it did not come in time.
    fn await_reply(
        &mut self,
        sequence: u32,
        until: Option<Instant>,
    ) -> Result<Option<Reply>, Error> {
        loop {
            if let Some(at) = self.queue.iter().position(|reply| reply.sequence == sequence) {
                return Ok(self.unqueue(at));
            }
            match self.receive(until) {
                Received::Reply(reply) if reply.sequence == sequence => return Ok(Some(reply)),
                Received::Reply(reply) => self.enqueue(reply),
                Received::Published(_) | Received::Other => {}
                Received::Nothing => return Ok(None),
                Received::Lost(error) => {
                    if !self.queue.iter().any(|reply| reply.sequence == sequence) {
                        return Err(error.with_ran(Ran::Maybe));
                    }
                }
            }
        }
    }

    /// Sends a request, or with `conversation` a further frame of one, and returns its sequence. It
    /// does not wait for the answer; [`Caller::recv`] does.
    ///
    /// # Errors
    /// It was not sent. `ran` is no, unless earlier frames of the same request were sent.
    pub fn send(&mut self, body: impl Into<Bytes>, send: &Send) -> Result<u32, Error> {
        let until = send.deadline.and_then(|span| clock::now().checked_add(span));
        self.dispatch(body.into(), send, until)
    }

    fn dispatch(&mut self, body: Bytes, send: &Send, until: Option<Instant>) -> Result<u32, Error> {
        self.look();
        let mut send = *send;
        if self.conn.is_none() {
            match (&self.lost, send.conversation) {
                (Some(lost), Some(_)) => return Err(lost.clone().with_ran(Ran::Maybe)),
                (Some(lost), None) if !self.options.reconnect => {
                    return Err(lost.clone().with_ran(Ran::No));
                }
                (Some(_) | None, _) => {
                    let back = self.come_back(until);
                    self.is_unreturned = back.is_err();
                    back?;
                    // The broker is told what is left of the time now.
                    send.deadline = send.deadline.and_then(|_| until.map(clock::left));
                }
            }
        }
        if self.queue_bytes > self.options.reply_bytes_max {
            return Err(Error::new(
                ErrorCode::TooManyRequests,
                format!(
                    "{} bytes of answers wait to be received; reply_bytes_max is {}",
                    self.queue_bytes, self.options.reply_bytes_max
                ),
            ));
        }
        self.finish_halves(until)?;
        let (sequence, frame) = self.session.send(body, &send)?;
        let Some((conn, _)) = self.conn.as_mut() else {
            return Err(Error::new(ErrorCode::BadState, "this client is not logged in"));
        };
        match conn.write(frame, until) {
            Ok(()) => {
                self.session.handed_over(sequence);
                self.used = clock::now();
                Ok(sequence)
            }
            Err(WriteFault::NotBegun) => {
                let ran = self.session.withdraw(sequence);
                let text = "the broker took no byte of the request in time";
                Err(Error::new(ErrorCode::Timeout, text).with_ran(ran))
            }
            Err(WriteFault::Broken(lost)) => {
                let ran = self.session.withdraw(sequence);
                Err(self.drop_connection(lost).with_ran(ran))
            }
        }
    }

    /// Ends requests that the broker ended before their last piece was sent.
    fn finish_halves(&mut self, until: Option<Instant>) -> Result<(), Error> {
        while let (Some((conn, _)), Some(frame)) = (self.conn.as_mut(), self.session.finish_half())
        {
            match conn.write(frame, until) {
                Ok(()) => {}
                Err(WriteFault::NotBegun) => {
                    let text = "the broker took no byte of the request in time";
                    return Err(Error::new(ErrorCode::Timeout, text).with_ran(Ran::No));
                }
                Err(WriteFault::Broken(lost)) => {
                    return Err(self.drop_connection(lost).with_ran(Ran::No));
                }
            }
        }
        Ok(())
    }

    /// The next frame of any answer, in the order of arrival. Without a timeout it waits without
    /// end. It answers pings meanwhile.
    ///
    /// # Errors
    /// [`ErrorCode::Timeout`] if nothing came in time (the requests stay under way), or the
    /// connection is lost. Before that error each request under way gets a reply with its own
    /// error.
    pub fn recv(&mut self, timeout: Option<Duration>) -> Result<Reply, Error> {
        let until = timeout.and_then(|timeout| clock::now().checked_add(timeout));
        loop {
            if let Some(reply) = self.unqueue(0) {
                return Ok(reply);
            }
            if let (None, Some(lost)) = (&self.conn, &self.lost) {
                return Err(lost.clone().with_ran(Ran::No));
            }
            let is_last = timeout.is_none() || self.is_finished;
            if is_last && self.session.under_way() == 0 {
                let text = "no request is under way, so nothing can come";
                return Err(Error::new(ErrorCode::BadState, text));
            }
            match self.receive(until) {
                Received::Reply(reply) => return Ok(reply),
                Received::Published(_) | Received::Other => {}
                Received::Nothing => {
                    let millis = timeout.unwrap_or_default().as_millis();
                    return Err(Error::new(
                        ErrorCode::Timeout,
                        format!("nothing came within {millis} ms"),
                    ));
                }
                Received::Lost(error) => {
                    if self.queue.is_empty() {
                        return Err(error.with_ran(Ran::No));
                    }
                }
            }
        }
    }

    /// As [`Caller::recv`], but for one request; frames of other requests stay in the queue.
    ///
    /// # Errors
    /// As [`Caller::recv`].
    pub fn recv_from(&mut self, sequence: u32, timeout: Option<Duration>) -> Result<Reply, Error> {
        let waiting = self.queue.iter().any(|reply| reply.sequence == sequence);
        if !waiting && !self.session.is_under_way(sequence) {
            let text = format!("request {sequence} is not under way");
            return Err(Error::new(ErrorCode::BadState, text));
        }
        let until = timeout.and_then(|timeout| clock::now().checked_add(timeout));
        self.await_reply(sequence, until)?.ok_or_else(|| {
            let millis = timeout.unwrap_or_default().as_millis();
            let text = format!("nothing came for request {sequence} within {millis} ms");
            Error::new(ErrorCode::Timeout, text)
        })
    }

    fn enqueue(&mut self, reply: Reply) {
        self.queue_bytes += reply.body.len();
        self.queue.push_back(reply);
    }

    fn unqueue(&mut self, at: usize) -> Option<Reply> {
        let reply = self.queue.remove(at)?;
        self.queue_bytes = self.queue_bytes.saturating_sub(reply.body.len());
        Some(reply)
    }

    /// After some time without a request, checks whether the connection was closed, so that no
    /// request is wasted on it.
    fn look(&mut self) {
        if clock::now().duration_since(self.used) < QUIET {
            return;
        }
        while self.conn.is_some() {
            match self.take_in(Wait::Not) {
                Received::Reply(reply) => self.enqueue(reply),
                Received::Published(_) | Received::Other => {}
                Received::Nothing | Received::Lost(_) => break,
            }
        }
    }

    fn receive(&mut self, until: Option<Instant>) -> Received {
        self.take_in(Wait::Until(until))
    }

    fn take_in(&mut self, wait: Wait) -> Received {
        let Some((conn, address)) = self.conn.as_mut() else {
            return Received::Lost(self.no_connection());
        };
        let frame = match conn.next(wait) {
            Ok(Some(frame)) => frame,
            Ok(None) => return Received::Nothing,
            Err(lost) => {
                let error = lost.into_error(address);
                return Received::Lost(self.end(error));
            }
        };
        self.used = clock::now();
        match self.session.receive(frame) {
            Ok(Event::Reply(reply)) => Received::Reply(reply),
            Ok(Event::Answer(answer)) => match conn.write(answer, None) {
                Ok(()) | Err(WriteFault::NotBegun) => Received::Other,
                Err(WriteFault::Broken(lost)) => Received::Lost(self.drop_connection(lost)),
            },
            Ok(Event::Dropped(_) | Event::Closing(_) | Event::Quiet) => Received::Other,
            Ok(Event::Flushed(flushed)) => {
                self.flushed.number = flushed.flush;
                self.flushed.refused = self.flushed.refused.saturating_add(flushed.refused);
                Received::Other
            }
            Ok(Event::Published(answer)) => Received::Published(answer),
            Ok(Event::LoggedIn(_) | Event::Refused(_) | Event::Challenged(_)) => Received::Other,
            Err(error) => Received::Lost(self.end(error)),
        }
    }

    /// Drops the connection after a failed write. An error that the broker sent before it closed is
    /// a better answer than "broken pipe".
    fn drop_connection(&mut self, lost: Lost) -> Error {
        let Some((mut conn, address)) = self.conn.take() else {
            return self.end(Error::new(ErrorCode::BrokerLost, "there is no connection any more"));
        };
        conn.read_ahead();
        while let Ok(Some(frame)) = conn.next(Wait::Not) {
            match self.session.receive(frame) {
                Ok(Event::Reply(reply)) => self.enqueue(reply),
                Ok(_) => {}
                Err(_) => break,
            }
        }
        self.end(lost.into_error(&address))
    }

    fn end(&mut self, why: Error) -> Error {
        self.conn = None;
        let (error, replies) = self.session.lost(why);
        for reply in replies {
            self.enqueue(reply);
        }
        self.lost = Some(error.clone());
        error
    }

    /// Sends a ping and does not wait for the pong; for programs that keep a connection open
    /// through devices that end silent ones.
    ///
    /// # Errors
    /// The connection is lost, or this side of it is shut.
    pub fn ping(&mut self) -> Result<(), Error> {
        self.control(|session| session.ping()).map(|_| ())
    }
}
