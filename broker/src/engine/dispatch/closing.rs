//! Who gives up, or closes in order: `cancel`, `flush` and the end of what a client sends, the
//! `logout` of a worker.

use super::caller::Flush;
use super::machine::Dispatch;
use super::seat::{Availability, Logout};
use super::stage::Stage;
use super::transaction::Past;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::keys::{ClientKey, TransactionKey, WorkerKey};
use protocol::bodies::Flushed;
use protocol::{ErrorBody, ErrorCode, Frame, Ran};

/// Most flushes of one client that wait; a client with more is closed.
const FLUSHES_MAX: usize = 1024;

impl Dispatch {
    /// A client gives up a request. One that has ended meanwhile has its outcome.
    pub(crate) fn cancel(&mut self, client: ClientKey, sequence: u32, cx: &mut Context<'_>) {
        if let Some(key) = self.callers[client].in_flight.get(sequence) {
            self.give_up(key, "its client gave it up", cx);
        }
    }

    /// Ends a transaction because nobody wants its answer any more. Returns whether it may have
    /// run.
    pub(crate) fn give_up(&mut self, key: TransactionKey, why: &str, cx: &mut Context<'_>) -> Ran {
        let transaction = &self.transactions[key];
        let is_untouched = transaction.stage.waits() && transaction.attempt == 0;
        let ran = if is_untouched { Ran::No } else { Ran::Maybe };
        self.fail(key, ErrorBody::new(ErrorCode::Cancelled, why).with_ran(ran), cx);
        ran
    }

    /// A client wants to know when all that it sent was taken by a worker or refused.
    pub(crate) fn flush(&mut self, client: ClientKey, sequence: u32, cx: &mut Context<'_>) {
        let caller = &self.callers[client];
        if caller.flushes.len() == FLUSHES_MAX {
            let text = format!("{FLUSHES_MAX} flushes of this client wait for their answers");
            let error = ErrorBody::new(ErrorCode::BadState, text);
            let link = caller.link;
            self.fail_all(client, &error, cx);
            cx.effects.push(Effect::Refuse { link, error });
            return;
        }
        let in_flight = caller.in_flight.keys();
        let left = in_flight.filter(|&key| !self.transactions[key].was_sent()).count();
        let last = protocol::TransactionId(self.next_transaction);
        self.callers[client].flushes.push_back(Flush { sequence, last, left });
        self.answer_flushes(client, cx);
    }

    /// Answers the flushes of a client that have nothing to wait for any more, in their order.
    fn answer_flushes(&mut self, client: ClientKey, cx: &mut Context<'_>) {
        let caller = &mut self.callers[client];
        while caller.flushes.front().is_some_and(|flush| flush.left == 0) {
            let Some(flush) = caller.flushes.pop_front() else { return };
            let refused = std::mem::take(&mut caller.refused);
            let flushed = Flushed { flush: flush.sequence, refused };
            cx.out.push(Action::Send { link: caller.link, frame: Frame::Flushed(flushed) });
        }
    }

    /// A transaction of a client who waits for a flush was taken by a worker for the first time, or
    /// ended before.
    #[cold]
    pub(super) fn settled(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        let transaction = &self.transactions[key];
        let (id, Some(client)) = (transaction.id, transaction.client) else { return };
        let flushes = self.callers[client].flushes.iter_mut();
        flushes.filter(|flush| id <= flush.last).for_each(|flush| flush.left -= 1);
        self.answer_flushes(client, cx);
    }

    /// A transaction ends that no worker took.
    pub(super) fn not_taken(&mut self, key: TransactionKey, cx: &mut Context<'_>) {
        self.transactions[key].past = Past::Sent;
        if let Some(client) = self.transactions[key].client {
            let caller = &mut self.callers[client];
            caller.refused += 1;
            if !caller.flushes.is_empty() {
                self.settled(key, cx);
            }
        }
    }

    /// A client sends nothing more. What came whole is still answered; what can't become whole, and
    /// what only the client could end, ends now.
    pub(crate) fn half_close(&mut self, client: ClientKey, cx: &mut Context<'_>) {
        self.callers[client].is_half_closed = true;
        for key in self.callers[client].in_flight.keys().collect::<Vec<_>>() {
            let transaction = &self.transactions[key];
            if !transaction.is_complete {
                let ran = if transaction.stage.waits() { Ran::No } else { Ran::Maybe };
                let text = "its client closed its side before the last piece came".to_owned();
                self.fail(key, ErrorBody::new(ErrorCode::Cancelled, text).with_ran(ran), cx);
            } else if let Stage::Parked(_) = transaction.stage {
                let text = "its client closed its side";
                self.fail(key, ErrorBody::new(ErrorCode::ConversationEnded, text), cx);
            }
        }
        let caller = &self.callers[client];
        if caller.in_flight.is_empty() {
            cx.effects.push(Effect::Answered { link: caller.link });
        }
    }

    /// A worker takes no further request. If it says how many it got, those that were sent to it
    /// beyond them never reached it and go to another one now; otherwise what it leaves unanswered
    /// does when its connection ends.
    pub(crate) fn log_out(
        &mut self,
        worker: WorkerKey,
        received: Option<u32>,
        cx: &mut Context<'_>,
    ) {
        let seat = &mut self.seats[worker];
        seat.availability = Availability::Unavailable;
        self.arrange(worker, cx);
        let seat = &mut self.seats[worker];
        let Some(received) = received else {
            seat.logout = Logout::Unbegun;
            return;
        };
        seat.logout = Logout::Counted;
        // Nobody knows which of those that `idle` took away are among them.
        let crossed = seat.requests_sent.wrapping_sub(received) as usize;
        let crossed = crossed.saturating_sub(seat.taken_away.len());
        // In the order in which they were sent; those that it answered are not there any more.
        let sent: Vec<TransactionKey> = seat.works_on().chain(seat.held.iter().copied()).collect();
        if crossed > sent.len() {
            // It got fewer than it answered, or more than it was sent: it can't count.
            return;
        }
        for &key in &sent[sent.len() - crossed..] {
            self.take_back(key, worker, cx);
        }
    }

    /// A request that a worker was sent and surely never began goes to another one.
    fn take_back(&mut self, key: TransactionKey, worker: WorkerKey, cx: &mut Context<'_>) {
        let seat = &mut self.seats[worker];
        seat.give_up(key);
        seat.held.retain(|&held| held != key);
        let id = seat.id;
        self.arrange(worker, cx);
        self.note_lost(key, worker, "logged out", cx.now);
        self.never_begun(key, (id, "logged out"), cx);
    }
}
