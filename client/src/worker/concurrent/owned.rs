//! A request that its program owns: any thread may answer it, at any time and in any order.

use super::super::answer::answer_head;
use super::super::{ENDED_EARLY_MAX, GAVE_UP, GAVE_UP_TEXT, Request, conversation_ended};
use super::link::{Link, lock};
use crate::clock;
use crate::error::Error;
use crate::session::millis;
use bytes::Bytes;
use protocol::messages::MessageOf;
use protocol::{ErrorCode, Frame, Header};
use std::collections::{BTreeMap, VecDeque};
use std::fmt;
use std::mem;
use std::ops::Deref;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant};

/// The text of the failure of a request that its program drops.
const DROPPED_TEXT: &str = "the worker dropped the request without an answer";

/// The requests of one connection that are not answered.
#[derive(Default)]
pub(super) struct Open {
    requests: BTreeMap<u64, Arc<State>>,
    /// Transactions that ended here before their client had sent all: further pieces are dropped.
    ended_early: VecDeque<u64>,
    /// The reader waits until one is answered.
    is_awaited: bool,
}

/// What the reader of the connection tells the thread that answers.
#[derive(Default)]
pub(super) struct State {
    over: OnceLock<Error>,
    pieces: Mutex<Pieces>,
    /// A piece came, or none comes any more, or the request is over.
    changed: Condvar,
}

/// Further pieces of a request.
#[derive(Default)]
struct Pieces {
    came: VecDeque<Request>,
    /// The program has the request, and the client has not sent all of it.
    is_partial: bool,
    /// The broker sends nothing more.
    is_ended: bool,
}

impl State {
    fn set_over(&self, why: Error) {
        let _first_counts = self.over.set(why);
        // A thread that is about to wait has the lock, and has not seen it.
        drop(lock(&self.pieces));
        self.changed.notify_all();
    }
}

impl Open {
    /// Takes a further piece of a request; returns what is none.
    pub(super) fn take_piece(&mut self, piece: Request) -> Option<Request> {
        let Some(state) = self.requests.get(&piece.head.transaction) else { return Some(piece) };
        let mut pieces = lock(&state.pieces);
        pieces.is_partial &= piece.more();
        pieces.came.push_back(piece);
        drop(pieces);
        state.changed.notify_all();
        None
    }

    /// Takes a frame of a transaction: what is no further piece is a new request.
    pub(super) fn take(&mut self, frame: Request) -> Option<(Request, Arc<State>)> {
        let request = self.take_piece(frame)?;
        let which = request.head.transaction;
        if self.ended_early.contains(&which) {
            return None;
        }
        let state = Arc::<State>::default();
        self.requests.insert(which, Arc::clone(&state));
        Some((request, state))
    }

    /// Nobody waits for a request any more.
    pub(super) fn set_over(&self, transaction: u64, why: Error) {
        if let Some(state) = self.requests.get(&transaction) {
            state.set_over(why);
        }
    }

    /// Nobody waits for any of them.
    pub(super) fn set_all_over(&mut self, why: &Error) {
        for state in mem::take(&mut self.requests).into_values() {
            state.set_over(why.clone());
        }
    }

    /// Whether the program has a request that its client has not sent whole.
    pub(super) fn has_partial(&self) -> bool {
        self.requests.values().any(|state| lock(&state.pieces).is_partial)
    }

    /// Whether the program has none of them, of which so many wait; if it has, the reader is woken
    /// when that is answered.
    pub(super) fn await_room(&mut self, waiting: usize) -> bool {
        self.is_awaited = waiting > 0 && self.requests.len() > waiting;
        !self.is_awaited
    }

    /// No further piece comes for any of them.
    pub(super) fn end_pieces(&self) {
        for state in self.requests.values() {
            lock(&state.pieces).is_ended = true;
            state.changed.notify_all();
        }
    }

    fn remove(&mut self, transaction: u64, is_early: bool) {
        if self.requests.remove(&transaction).is_some() && is_early {
            if self.ended_early.len() == ENDED_EARLY_MAX {
                self.ended_early.pop_front();
            }
            self.ended_early.push_back(transaction);
        }
    }
}

/// A request of a [`ConcurrentWorker`](super::ConcurrentWorker), which must be answered once, from
/// any thread. One that is dropped is answered as a failure. If its connection broke, answers are
/// dropped, because nobody can take them.
///
/// A reply that the broker takes slowly makes the threads that answer wait, and no other.
pub struct OwnedRequest {
    link: Arc<Link>,
    state: Arc<State>,
    request: Request,
    until: Option<Instant>,
    /// Whether the client's last frame had `more`.
    client_more: bool,
    /// Whether the last frame of this side had `more`.
    worker_more: bool,
    /// Whether any frame of this side had `more`; then a frame of the client may cross the end.
    was_open: bool,
    is_answered: bool,
}

impl fmt::Debug for OwnedRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OwnedRequest")
            .field("request", &self.request)
            .field("over", &self.over())
            .finish_non_exhaustive()
    }
}

/// Its first frame.
impl Deref for OwnedRequest {
    type Target = Request;

    fn deref(&self) -> &Request {
        &self.request
    }
}

impl OwnedRequest {
    pub(super) fn new(link: Arc<Link>, request: Request, state: Arc<State>) -> Self {
        Self {
            link,
            state,
            until: request.until(),
            client_more: request.more(),
            request,
            worker_more: false,
            was_open: false,
            is_answered: false,
        }
    }

    /// Takes the bytes of the first frame out, so that an answer may use them.
    pub fn take_body(&mut self) -> Bytes {
        mem::take(&mut self.request.body)
    }

    /// Why nobody waits for the answer any more, as far as this side knows: its client gave it up
    /// or is gone, its time is over, or the connection broke. A final answer must be given all the
    /// same, which frees the worker; it is sent as a failure.
    pub fn over(&self) -> Option<&Error> {
        self.state.over.get()
    }

    /// Whether nobody waits for the answer any more. A program that works for long, or streams,
    /// looks now and then, and stops.
    pub fn is_over(&self) -> bool {
        self.over().is_some()
    }

    /// Answers, and ends the request. An answer of more than one frame is sent in pieces.
    pub fn reply(mut self, body: impl Into<Bytes>) {
        self.reply_in_pieces(body.into(), false, None);
    }

    /// As [`reply`](Self::reply), but the answer may wait until the worker waits in
    /// [`ConcurrentWorker::next`](super::ConcurrentWorker::next), or another answer leaves. So
    /// several answers leave in one write. For programs that take requests and answer them on one
    /// thread, each within microseconds; the broker may not know of the answer before.
    pub fn reply_batched(mut self, body: impl Into<Bytes>) {
        let body = body.into();
        if body.len() > self.link.body_bytes_max || self.is_over() {
            return self.reply_in_pieces(body, false, None);
        }
        let head = answer_head(&self.request.head, self.link.worker);
        self.link.add(Frame::data(head, body));
        self.finish();
        self.link.send_if_reader_waits();
    }

    /// Sends a piece of the answer; more must follow. In a conversation
    /// [`next_piece`](Self::next_piece) then returns the client's next frame.
    pub fn reply_piece(&mut self, body: impl Into<Bytes>) {
        self.reply_in_pieces(body.into(), true, None);
    }

    /// As [`reply_piece`](Self::reply_piece), and says that the next frame of the answer comes
    /// within this time, as
    /// [`Worker::reply_piece_within`](super::super::Worker::reply_piece_within) does.
    pub fn reply_piece_within(&mut self, body: impl Into<Bytes>, next: Duration) {
        self.reply_in_pieces(body.into(), true, Some(next));
    }

    /// Puts the deadline of an [extendable](Request::extendable) request off: the next frame of the
    /// answer comes within this time. It sends an empty piece.
    pub fn extend(&mut self, next: Duration) {
        self.reply_piece_within(Bytes::new(), next);
    }

    /// Publishes a message by the connection that the request came by, and does not wait. If the
    /// broker refuses it, [`ConcurrentWorker::refused`](super::ConcurrentWorker::refused) says so;
    /// if the connection is lost, it is lost, too.
    ///
    /// # Errors
    /// It breaks a rule of messages, or is too large.
    pub fn publish(&self, topic: &str, payload: impl AsRef<[u8]>) -> Result<(), Error> {
        self.link.publish(&MessageOf::new(topic, payload.as_ref()))
    }

    /// Answers with an error of the application. `code` is above 0; the client gets it and the text
    /// unchanged.
    ///
    /// # Errors
    /// The code is not above 0; then the request is answered as one that was dropped.
    pub fn fail(mut self, code: i16, text: &str) -> Result<(), Error> {
        if code <= 0 {
            let text = format!("code {code} is isect's own; an application's is 1 to {}", i16::MAX);
            return Err(Error::new(ErrorCode::BadReply, text));
        }
        self.fail_with(code, text);
        Ok(())
    }

    /// Waits for the client's next frame. `None` = there is none: the last one had no `more` and no
    /// conversation is open, or nobody waits any more ([`over`](Self::over) says why).
    pub fn next_piece(&mut self) -> Option<Request> {
        let mut pieces = lock(&self.state.pieces);
        loop {
            if self.state.over.get().is_some() || !(self.client_more || self.worker_more) {
                return None;
            }
            if let Some(piece) = pieces.came.pop_front() {
                self.client_more = piece.more();
                self.worker_more = false;
                return Some(piece);
            }
            if pieces.is_ended {
                let _first_counts = self.state.over.set(conversation_ended());
                return None;
            }
            let changed = &self.state.changed;
            // Once a piece of the answer has left, only the broker knows until when.
            let until = self.until.filter(|_| !self.was_open);
            pieces = match until.map(clock::left) {
                None => changed.wait(pieces).unwrap_or_else(PoisonError::into_inner),
                Some(Duration::ZERO) => {
                    let text =
                        "the client did not send the rest of its request within the deadline";
                    let error = Error::new(ErrorCode::Deadline, text);
                    let _first_counts = self.state.over.set(error);
                    return None;
                }
                Some(left) => {
                    changed.wait_timeout(pieces, left).unwrap_or_else(PoisonError::into_inner).0
                }
            };
        }
    }

    /// Notes that the program gets it now.
    pub(super) fn begin(&self) {
        let mut pieces = lock(&self.state.pieces);
        pieces.is_partial = pieces.came.back().map_or(self.client_more, Request::more);
    }

    /// Forgets it without an answer, because it goes to another worker.
    pub(super) fn discard(mut self) {
        self.is_answered = true;
        lock(&self.link.open).remove(self.request.head.transaction, false);
    }

    /// Answers one that nobody waits for, and that the program was not given.
    pub(super) fn end_unheard(mut self) {
        let head = answer_head(&self.request.head, self.link.worker);
        self.finish();
        let head = Header { error: GAVE_UP, ..head };
        self.link.put_off(Frame::data(head, Bytes::from_static(GAVE_UP_TEXT)));
    }

    fn fail_with(&mut self, code: i16, text: &str) {
        let text = Bytes::copy_from_slice(text.as_bytes());
        let size = text.len().min(self.link.body_bytes_max);
        self.answer(text.slice(..size), false, code, None);
    }

    fn reply_in_pieces(&mut self, mut body: Bytes, more: bool, next: Option<Duration>) {
        while body.len() > self.link.body_bytes_max {
            let piece = body.split_to(self.link.body_bytes_max);
            self.answer(piece, true, 0, None);
        }
        self.answer(body, more, 0, next);
    }

    fn answer(&mut self, body: Bytes, more: bool, error: i16, next: Option<Duration>) {
        let (mut body, mut error) = (body, error);
        if self.is_over() {
            // Nobody must take half an answer for a success.
            if more {
                return;
            }
            if error == 0 {
                (body, error) = (Bytes::from_static(GAVE_UP_TEXT), GAVE_UP);
            }
        }
        let head = answer_head(&self.request.head, self.link.worker);
        let deadline_ms = next.map_or(0, millis);
        self.worker_more = more;
        self.was_open |= more;
        let head = Header { more: u16::from(more), error, deadline_ms, ..head };
        self.link.add(Frame::data(head, body));
        if !more {
            // Behind the frame: what is begun from now on must not be answered before it.
            self.finish();
        }
        self.link.send();
    }

    /// Notes that the final answer is given.
    fn finish(&mut self) {
        self.is_answered = true;
        let mut open = lock(&self.link.open);
        let last = lock(&self.state.pieces).came.back().map(Request::more);
        let is_early = last.unwrap_or(self.client_more) || self.was_open;
        open.remove(self.request.head.transaction, is_early);
        let wakes = mem::take(&mut open.is_awaited);
        drop(open);
        self.link.answered.fetch_add(1, Ordering::Relaxed);
        if wakes {
            self.link.wake();
        }
    }
}

impl Drop for OwnedRequest {
    fn drop(&mut self) {
        if !self.is_answered {
            self.fail_with(GAVE_UP, DROPPED_TEXT);
        }
    }
}
