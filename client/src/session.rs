//! What a client may send and what it may expect next: a state machine with frames in and events
//! out. Pure: no IO and no clock, so that the simulation runs the same code as
//! [`caller`](crate::caller), which gives it a socket.
//!
//! ```text
//! Fresh ──login──► LoggingIn ──login-ok──► Open ──logout, loss──► Closed ──login──► LoggingIn …
//!             (challenge, proof) ──error──► Closed ◄──loss── Finished ◄──finish── Open
//! ```

use crate::error::Error;
use bytes::Bytes;
use protocol::bodies::{Flushed, LoginOk, Published};
use protocol::limits::BODY_BYTES_DEFAULT;
use protocol::{Challenge, ClientId, ErrorCode, Frame, Header, Kind, Login, Proof, Ran};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

pub(crate) use message::millis;
pub use message::{Reply, Send};

mod message;

/// The meaning of a frame from the broker.
#[derive(Clone, Debug)]
pub enum Event {
    /// The broker accepted the login.
    LoggedIn(LoginOk),
    /// The broker refused the login.
    Refused(Error),
    /// The broker wants a proof of the token that the login named; see [`Session::prove`].
    Challenged(Challenge),
    /// A frame for the program that asked.
    Reply(Reply),
    /// A frame to send back at once.
    Answer(Frame),
    /// A frame for the request with this sequence, which was given up; it is dropped.
    Dropped(u32),
    /// The answer to a [`Session::flush`].
    Flushed(Flushed),
    /// The answer to a [`Session::publish`].
    Published(Published),
    /// The broker will close the connection for this reason.
    Closing(Error),
    /// Nothing to do; the frame was a pong.
    Quiet,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    Fresh,
    LoggingIn,
    Open,
    /// This side sends nothing more, and waits for what is under way.
    Finished,
    Closed,
}

/// Who ended a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Side {
    /// This side gave it up; the broker may still have it.
    Client,
    /// The broker sent its outcome.
    Broker,
}

/// A request under way.
#[derive(Clone, Copy, Debug)]
struct UnderWay {
    /// Whether the last frame of this side had `more`.
    ours: bool,
    /// Whether the last frame of the worker had `more`.
    theirs: bool,
    /// Whether at least one frame was handed over as a whole.
    handed: bool,
    /// Whether the last frame that was handed over had `more`.
    is_half: bool,
    /// Whether an answer is wanted.
    reply: bool,
    /// Whether its worker may put the deadline off.
    extendable: bool,
}

/// Most sequences that are kept from being used again; forgetting one costs at most one request.
const HALVES_MAX: usize = 1024;

/// The client's side of one connection after another.
#[derive(Clone, Debug)]
pub struct Session {
    phase: Phase,
    limits: LoginOk,
    last: u32,
    open: BTreeMap<u32, UnderWay>,
    /// Requests whose last piece was never sent, and who ended them. Until the broker gets that
    /// piece, it takes any frame with their sequence for the rest of the request.
    halves: BTreeMap<u32, Side>,
    /// Those of `open` that are messages to be published.
    publishes: BTreeSet<u32>,
    closing: Option<Error>,
    /// The number of the last flush.
    last_flush: u32,
    /// Whether a request without an answer was sent that no flush has asked about.
    has_unflushed: bool,
}

impl Default for Session {
    fn default() -> Self {
        Self::new()
    }
}

impl Session {
    /// A session before its first login.
    pub fn new() -> Self {
        let limits = LoginOk {
            client: ClientId(0),
            body_bytes_max: BODY_BYTES_DEFAULT as u64,
            requests_max: 1,
            deadline_ms: 0,
            heartbeat_ms: 0,
            silence_ms: 0,
            version: String::new(),
            signature: None,
        };
        Self {
            phase: Phase::Fresh,
            limits,
            last: 0,
            open: BTreeMap::new(),
            halves: BTreeMap::new(),
            publishes: BTreeSet::new(),
            closing: None,
            last_flush: 0,
            has_unflushed: false,
        }
    }

    /// The limits from the broker's `login-ok`.
    pub fn limits(&self) -> &LoginOk {
        &self.limits
    }

    /// Whether requests may be sent now.
    pub fn is_open(&self) -> bool {
        self.phase == Phase::Open
    }

    /// How many requests are under way.
    pub fn under_way(&self) -> usize {
        self.open.len()
    }

    /// Whether an outcome of this request is still to come.
    pub fn is_under_way(&self, sequence: u32) -> bool {
        self.open.contains_key(&sequence)
    }

    /// The login frame for a new connection.
    ///
    /// # Errors
    /// There is a connection already.
    pub fn login(&mut self, login: Login) -> Result<Frame, Error> {
        match self.phase {
            Phase::Fresh | Phase::Closed => {
                self.phase = Phase::LoggingIn;
                self.closing = None;
                Ok(Frame::Login(login))
            }
            Phase::LoggingIn | Phase::Open | Phase::Finished => {
                Err(Error::new(ErrorCode::BadState, "this client is logged in already"))
            }
        }
    }

    /// The frame that answers the challenge.
    pub fn prove(&self, proof: Proof) -> Frame {
        Frame::Proof(proof)
    }

    /// The logout frame; requests under way end without an outcome.
    pub fn logout(&mut self) -> Frame {
        self.phase = Phase::Closed;
        self.open.clear();
        self.publishes.clear();
        self.halves.clear();
        self.has_unflushed = false;
        Frame::Logout(protocol::bodies::Logout::default())
    }

    /// Notes that this side shuts its side of the connection: nothing more is sent, not even the
    /// answer to a ping, and what is under way still gets its outcomes.
    ///
    /// # Errors
    /// There is no login, or this was said before.
    pub fn finish(&mut self) -> Result<(), Error> {
        self.check_open()?;
        self.phase = Phase::Finished;
        Ok(())
    }

    /// The frame that gives up a request. Its outcome still comes, most likely the error
    /// `cancelled`. One that has ended is no fault.
    ///
    /// # Errors
    /// There is no login, or this side sends nothing more.
    pub fn cancel(&self, sequence: u32) -> Result<Frame, Error> {
        self.check_open()?;
        let head = Header { sequence, ..Header::default() };
        Ok(Frame::Cancel { head, text: String::new() })
    }

    /// The frame that asks the broker to say when all that was sent before was taken by a worker or
    /// refused, and the number that [`Event::Flushed`] then repeats.
    ///
    /// # Errors
    /// There is no login, or this side sends nothing more.
    pub fn flush(&mut self) -> Result<(u32, Frame), Error> {
        self.check_open()?;
        self.last_flush = self.last_flush.wrapping_add(1);
        self.has_unflushed = false;
        Ok((self.last_flush, Frame::Flush { sequence: self.last_flush }))
    }

    /// The frame of a message with this body, and its sequence. Its answer is
    /// [`Event::Published`], or a reply with an error.
    ///
    /// # Errors
    /// There is no login, this side sends nothing more, or as many requests are under way as may
    /// be.
    pub fn publish(&mut self, body: Bytes) -> Result<(u32, Frame), Error> {
        self.check_open()?;
        let sequence = self.begin(&Send::default())?;
        self.publishes.insert(sequence);
        let head = Header { sequence, reply: 1, ..Header::default() };
        Ok((sequence, Frame::Publish { head, body }))
    }

    /// The frame of a ping.
    ///
    /// # Errors
    /// There is no login, or this side sends nothing more.
    pub fn ping(&self) -> Result<Frame, Error> {
        self.check_open()?;
        Ok(Frame::Ping { sequence: 0 })
    }

    /// Whether a request without an answer was sent after the last flush.
    pub fn has_unflushed(&self) -> bool {
        self.has_unflushed
    }

    fn check_open(&self) -> Result<(), Error> {
        let text = match self.phase {
            Phase::Open => return Ok(()),
            Phase::Fresh | Phase::LoggingIn | Phase::Closed => "this client is not logged in",
            Phase::Finished => "this client has shut its side of the connection",
        };
        Err(Error::new(ErrorCode::BadState, text))
    }

    /// Makes the frame of a request or of a further piece of one, and assigns its sequence. Call
    /// [`Session::handed_over`] after it was written, or [`Session::withdraw`] if it could not be
    /// written.
    ///
    /// # Errors
    /// The limits or the state of the conversation don't allow it. Nothing has changed then.
    pub fn send(&mut self, body: Bytes, send: &Send) -> Result<(u32, Frame), Error> {
        self.check_open()?;
        let size = body.len() as u64;
        if size > self.limits.body_bytes_max {
            return Err(Error::new(
                ErrorCode::BodyTooLarge,
                format!(
                    "request of {size} bytes exceeds body_bytes_max {}",
                    self.limits.body_bytes_max
                ),
            ));
        }
        let (sequence, workerid) = match send.conversation {
            None => (self.begin(send)?, 0),
            Some((sequence, worker)) => {
                let Some(open) = self.open.get_mut(&sequence).filter(|o| o.ours || o.theirs) else {
                    return Err(Error::new(
                        ErrorCode::NoConversation,
                        format!("request {sequence} is not open for further frames"),
                    ));
                };
                open.ours = send.more;
                (sequence, worker)
            }
        };
        let head = Header {
            sequence,
            workerid,
            reply: u16::from(send.reply),
            more: u16::from(send.more),
            priority: send.priority,
            flags: send.flags(),
            deadline_ms: send.deadline.map_or(0, millis),
            trace_id: send.trace_id,
            span_id: send.span_id,
            ..Header::default()
        };
        Ok((sequence, Frame::data(head, body)))
    }

    fn begin(&mut self, send: &Send) -> Result<u32, Error> {
        if self.open.len() as u64 >= self.limits.requests_max {
            return Err(Error::new(
                ErrorCode::TooManyRequests,
                format!(
                    "{} requests are under way on this connection; requests_max is {}",
                    self.open.len(),
                    self.limits.requests_max
                ),
            ));
        }
        // 0 stands for "no request" in errors about the connection.
        loop {
            self.last = self.last.wrapping_add(1);
            let is_free = !self.open.contains_key(&self.last);
            if self.last != 0 && is_free && !self.halves.contains_key(&self.last) {
                break;
            }
        }
        if send.reply || send.more {
            let Send { more: ours, reply, extendable, .. } = *send;
            let (theirs, handed, is_half) = (false, false, false);
            let open = UnderWay { ours, theirs, handed, is_half, reply, extendable };
            self.open.insert(self.last, open);
        }
        Ok(self.last)
    }

    /// Notes that the last frame of this request was written as a whole: from now on it may have
    /// run. One that wants no answer is over with its last piece.
    pub fn handed_over(&mut self, sequence: u32) {
        if let Some(open) = self.open.get_mut(&sequence) {
            open.handed = true;
            open.is_half = open.ours;
            if !open.reply && !open.ours {
                self.open.remove(&sequence);
                self.has_unflushed = true;
            }
        } else {
            self.has_unflushed = true;
        }
    }

    /// A frame that ends an incomplete request that the broker gave up, the one with the lowest
    /// sequence: an empty last piece, which is not answered. `None` = there is none. Send it before
    /// further requests.
    pub fn finish_half(&mut self) -> Option<Frame> {
        if !self.is_open() {
            return None;
        }
        let ended = self.halves.iter().find(|(_, ended_by)| **ended_by == Side::Broker);
        let sequence = ended.map(|(at, _)| *at)?;
        self.halves.remove(&sequence);
        Some(Frame::data(Header { sequence, ..Header::default() }, Bytes::new()))
    }

    /// Removes a request from those under way, and decides whether its sequence can be used again.
    fn remove(&mut self, sequence: u32, ended_by: Side) -> Option<UnderWay> {
        let open = self.open.remove(&sequence);
        self.publishes.remove(&sequence);
        if open.is_some_and(|open| open.is_half) {
            if self.halves.len() == HALVES_MAX {
                self.halves.pop_first();
            }
            self.halves.insert(sequence, ended_by);
        } else if let (None, Side::Broker, Some(half)) =
            (open, ended_by, self.halves.get_mut(&sequence))
        {
            *half = ended_by;
        }
        open
    }

    /// Notes that the last frame of this request was not written as a whole, so no outcome is
    /// expected. Returns whether the work may have run because of earlier pieces.
    pub fn withdraw(&mut self, sequence: u32) -> Ran {
        match self.remove(sequence, Side::Client) {
            Some(open) if open.handed => Ran::Maybe,
            Some(_) | None => Ran::No,
        }
    }

    /// Gives a request up; if its outcome comes, it is dropped.
    pub fn give_up(&mut self, sequence: u32) {
        self.remove(sequence, Side::Client);
    }

    /// Handles a frame from the broker.
    ///
    /// # Errors
    /// The broker may not send this frame (now): close the connection, because it can't be trusted.
    pub fn receive(&mut self, frame: Frame) -> Result<Event, Error> {
        let kind = frame.kind();
        match (frame, self.phase) {
            (Frame::Ping { .. }, Phase::Finished) => Ok(Event::Quiet),
            (Frame::Ping { sequence }, _) => Ok(Event::Answer(Frame::Pong { sequence })),
            (Frame::Pong { .. }, _) => Ok(Event::Quiet),
            (Frame::LoginOk(ok), Phase::LoggingIn) => {
                self.phase = Phase::Open;
                self.limits = ok.clone();
                Ok(Event::LoggedIn(ok))
            }
            (Frame::Challenge(challenge), Phase::LoggingIn) => Ok(Event::Challenged(challenge)),
            (Frame::Error { error, .. }, Phase::LoggingIn) => {
                self.phase = Phase::Closed;
                Ok(Event::Refused(Error::from_body(error)))
            }
            (Frame::Error { head, error }, Phase::Open | Phase::Finished) => {
                Ok(self.failed(&head, Error::from_body(error)))
            }
            (Frame::Data { head, body }, Phase::Open | Phase::Finished) => {
                self.answered(&head, body)
            }
            (Frame::Flushed(flushed), Phase::Open | Phase::Finished) => Ok(Event::Flushed(flushed)),
            (Frame::Published(answer), Phase::Open | Phase::Finished) => self.published(answer),
            (
                _,
                Phase::Fresh | Phase::LoggingIn | Phase::Open | Phase::Finished | Phase::Closed,
            ) => Err(unexpected(kind)),
        }
    }

    fn published(&mut self, answer: Published) -> Result<Event, Error> {
        let is_publish = self.publishes.contains(&answer.publish);
        if is_publish {
            self.remove(answer.publish, Side::Broker);
            Ok(Event::Published(answer))
        } else if self.open.contains_key(&answer.publish) {
            Err(unexpected(Kind::Published))
        } else {
            // Of one that was given up.
            Ok(Event::Quiet)
        }
    }

    fn failed(&mut self, head: &Header, error: Error) -> Event {
        let closes = matches!(error.code, crate::error::Code::Isect(code) if code.row().closes);
        if closes {
            self.closing = Some(error.clone());
        }
        match self.remove(head.sequence, Side::Broker) {
            Some(open) if open.reply => Event::Reply(Reply {
                sequence: head.sequence,
                body: Bytes::new(),
                more: false,
                worker: 0,
                next_within: None,
                transaction: head.transaction,
                error: Some(error),
            }),
            Some(_) | None if closes => Event::Closing(error),
            Some(_) | None => Event::Dropped(head.sequence),
        }
    }

    fn answered(&mut self, head: &Header, body: Bytes) -> Result<Event, Error> {
        if head.error < 0 {
            return Err(Error::new(
                ErrorCode::BadFrame,
                format!("a data frame carries error {}; only error frames may", head.error),
            ));
        }
        let more = head.more != 0;
        let Some(open) = self.open.get_mut(&head.sequence).filter(|open| open.reply) else {
            if !more && !self.open.contains_key(&head.sequence) {
                self.remove(head.sequence, Side::Broker);
            }
            return Ok(Event::Dropped(head.sequence));
        };
        open.theirs = more;
        let is_put_off = more && open.extendable && head.deadline_ms > 0;
        let next_within = is_put_off.then(|| Duration::from_millis(head.deadline_ms.into()));
        if !more {
            self.remove(head.sequence, Side::Broker);
        }
        let error = (head.error > 0)
            .then(|| Error::application(head.error, String::from_utf8_lossy(&body).into_owned()));
        Ok(Event::Reply(Reply {
            sequence: head.sequence,
            body,
            more,
            worker: head.workerid,
            next_within,
            transaction: head.transaction,
            error,
        }))
    }

    /// Ends all requests under way after the connection was lost; each gets this error as its
    /// outcome. If the broker had said why it would close, that is the error, otherwise `why`.
    pub fn lost(&mut self, why: Error) -> (Error, Vec<Reply>) {
        self.phase = Phase::Closed;
        self.halves.clear();
        self.publishes.clear();
        self.has_unflushed = false;
        let error = self.closing.take().unwrap_or(why);
        let replies = std::mem::take(&mut self.open)
            .into_iter()
            .filter(|(_, open)| open.reply)
            .map(|(sequence, open)| {
                let ran = if open.handed { Ran::Maybe } else { Ran::No };
                Reply {
                    sequence,
                    body: Bytes::new(),
                    more: false,
                    worker: 0,
                    next_within: None,
                    transaction: 0,
                    error: Some(error.clone().with_ran(ran)),
                }
            })
            .collect();
        (error, replies)
    }
}

fn unexpected(kind: Kind) -> Error {
    Error::new(ErrorCode::BadState, format!("the broker sent a {kind} frame, which can't come now"))
}
