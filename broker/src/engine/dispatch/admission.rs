//! Lets requests in, or refuses them: what a client's data frame means, and whether there is room
//! to accept a request and to finish it. `serve` gives it to a worker.

use super::machine::Dispatch;
use super::service_queue::ServiceQueue;
use super::stage::Stage;
use super::trace::Trace;
use super::transaction::{Conversation, Past, Transaction};
use crate::engine::catalog::Service;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind, Values};
use crate::engine::keys::{ClientKey, OptionKey, ServiceKey, TransactionKey, WorkerKey};
use bytes::Bytes;
use protocol::limits::DEADLINE_MS_MAX;
use protocol::{
    ErrorBody, ErrorCode, Header, Ran, ServiceSetting, Setting, TransactionId, WireError,
};

/// Bytes of a waiting request beyond which its client is read no further.
const PIECES_BYTES_HIGH: u64 = 256 * 1024;

/// Milliseconds until the deadline of a request: its own, or that of its service.
fn deadline_ms(service: &Service, head: &Header) -> u64 {
    match head.deadline_ms {
        0 => service.settings.get(ServiceSetting::DeadlineMs),
        // The decoder refuses longer ones.
        asked => u64::from(asked).min(DEADLINE_MS_MAX),
    }
}

impl Dispatch {
    /// A data frame of a client of a service that has workers.
    pub(crate) fn on_request(
        &mut self,
        client: ClientKey,
        head: Header,
        body: Bytes,
        cx: &mut Context<'_>,
    ) {
        // The broker gives these two itself and never sends back what a client wrote there.
        let head = Header { transaction: 0, attempt: 0, ..head };
        let caller = &self.callers[client];
        if caller.is_rest(&head) {
            self.on_rest(client, &head, cx);
        } else if let Some(transaction) = caller.in_flight.get(head.sequence) {
            self.on_piece(client, transaction, head, body, cx);
        } else if head.workerid != 0 {
            let text = format!(
                "worker {} has no open conversation with sequence {}",
                head.workerid, head.sequence
            );
            let link = caller.link;
            cx.answer_error(link, &head, ErrorBody::new(ErrorCode::NoConversation, text));
        } else {
            self.accept(client, head, body, cx);
        }
    }

    /// A frame for the service `op`. Returns whether it is a command: one frame, for half of one
    /// may be another one.
    pub(crate) fn is_command(
        &mut self,
        client: ClientKey,
        head: &Header,
        cx: &mut Context<'_>,
    ) -> bool {
        if self.callers[client].is_rest(head) {
            self.on_rest(client, head, cx);
            return false;
        }
        if head.more != 0 && self.may_come_in_pieces(client, cx) {
            self.callers[client].discard_rest(head.sequence, cx.now);
            let text = "a command comes in one frame; this one has more = 1, and is dropped up to \
                        the frame with more = 0";
            let link = self.callers[client].link;
            cx.answer_error(link, head, ErrorBody::new(ErrorCode::Usage, text));
        }
        head.more == 0
    }

    /// Handles a data frame of a client whose body is skipped: it is too large, `reply`, `more` or
    /// `deadline_ms` is out of range, or too many bytes of partial frames are set aside already.
    /// The stream is still in step, so only this frame is lost; a request that it was a piece of
    /// can't become complete and fails.
    pub(crate) fn on_skipped(
        &mut self,
        client: ClientKey,
        error: &WireError,
        cx: &mut Context<'_>,
    ) {
        let body = ErrorBody::new(error.code, error.text.clone());
        let sequence = error.sequence;
        let (reply, more) = (u16::from(error.reply), u16::from(error.more));
        let head = Header { sequence, reply, more, ..Header::default() };
        if self.callers[client].is_rest(&head) {
            self.on_rest(client, &head, cx);
            return;
        }
        let known = self.callers[client].in_flight.get(sequence);
        let piece_of = known.filter(|&key| self.transactions[key].takes_frames());
        if let Some(transaction) = piece_of {
            self.fail(transaction, body, cx);
            if !error.more {
                self.callers[client].discarded.remove(&sequence);
            }
        } else if !error.more || self.may_come_in_pieces(client, cx) {
            // A request under way with the same sequence is complete and goes on.
            self.refuse_request(client, &head, body, cx);
        }
    }

    /// Discards a piece of a request that ended before its last piece came. It may also be a new
    /// request that uses the sequence too early; the two look the same. What comes in the turn of
    /// the end was sent before its sender could know of the end, so it is a piece. Later, the frame
    /// with `more` = 0 is answered with an error, so that nobody waits for a request that was taken
    /// for a piece (docs/decisions/0022).
    fn on_rest(&mut self, client: ClientKey, head: &Header, cx: &mut Context<'_>) {
        if head.more != 0 {
            return;
        }
        let ended = self.callers[client].discarded.remove(&head.sequence);
        if ended == Some(cx.now) {
            return;
        }
        let text = format!(
            "sequence {} is of a request that ended before its last piece came; this frame was \
             taken for that piece, and the sequence may be used again from now on",
            head.sequence
        );
        let link = self.callers[client].link;
        cx.answer_error(link, head, ErrorBody::new(ErrorCode::NoConversation, text));
    }

    /// Whether a client may begin one more request in pieces; if not, the client is closed.
    fn may_come_in_pieces(&mut self, client: ClientKey, cx: &mut Context<'_>) -> bool {
        let entry = &self.callers[client];
        if !entry.discards_too_many() {
            return true;
        }
        let text = format!(
            "{} requests of this connection ended before their last piece (more = 0) came; send \
             that piece of each before you begin further ones in pieces",
            entry.discarded.len()
        );
        let (link, error) = (entry.link, ErrorBody::new(ErrorCode::BadState, text));
        self.fail_all(client, &error, cx);
        cx.effects.push(Effect::Refuse { link, error });
        false
    }

    /// Accepts a new request, which then surely gets an outcome, or refuses it at once.
    fn accept(&mut self, client: ClientKey, head: Header, body: Bytes, cx: &mut Context<'_>) {
        if head.more != 0 && !self.may_come_in_pieces(client, cx) {
            return;
        }
        let ahead = match self.admit(client, &head, &body, cx) {
            Ok(ahead) => ahead,
            Err(error) => return self.refuse_request(client, &head, error, cx),
        };
        let service = self.callers[client].service;
        let deadline_ms = deadline_ms(&cx.catalog[service], &head);
        self.next_transaction += 1;
        let priority =
            if head.priority == 0 { self.callers[client].priority } else { head.priority };
        let kept = body.len() as u64;
        let transaction = Transaction {
            id: TransactionId(self.next_transaction),
            client: Some(client),
            service,
            head,
            priority,
            body,
            pieces: None,
            kept_bytes: kept,
            stage: Stage::START,
            arrived: cx.now,
            dispatched: cx.now,
            deadline: cx.now.plus_millis(deadline_ms),
            attempt: 0,
            received: kept,
            replied: 0,
            deaths: 0,
            past: Past::Unsent,
            is_complete: head.more == 0,
            conversation: Conversation::None,
            holds_reader: false,
            trace: Trace::of(self.callers[client].id, ahead),
            prev: OptionKey::NONE,
            next: OptionKey::NONE,
        };
        let deadline = transaction.deadline;
        let key = self.transactions.insert(transaction);
        self.wheel.insert(key, deadline);
        self.queue_bytes += kept;
        self.totals.accepted += 1;
        let entry = &mut self.callers[client];
        entry.requests += 1;
        entry.in_flight.insert(head.sequence, key);
        if entry.is_blocked {
            self.block(key);
        } else {
            self.enqueue(key, cx);
        }
    }

    /// How many requests are ahead of a new one, if it may be accepted.
    ///
    /// # Errors
    /// The error for its client names the limit that is reached.
    fn admit(
        &self,
        client: ClientKey,
        head: &Header,
        body: &Bytes,
        cx: &Context<'_>,
    ) -> Result<usize, ErrorBody> {
        let refuse = |code, text: String| Err(ErrorBody::new(code, text).with_ran(Ran::No));
        let entry = &self.callers[client];
        let service = &cx.catalog[entry.service];
        let queue = &self.queues[entry.service];
        if cx.is_shutting_down {
            return refuse(ErrorCode::ShuttingDown, "the broker is shutting down".into());
        }
        if service.is_stopped {
            return refuse(ErrorCode::ServiceStopped, service.stopped_text(cx.now));
        }
        // A client keeps to the limit that was announced to it, though a lower one may be set by
        // now.
        let requests_max = cx.settings.get(Setting::RequestsMax).max(entry.requests_max);
        if (entry.in_flight.len() - entry.parked) as u64 >= requests_max {
            return refuse(
                ErrorCode::TooManyRequests,
                format!(
                    "{requests_max} of {requests_max} requests (requests_max) are under way on this connection"
                ),
            );
        }
        // A request that a worker can take at once needs no place in the queue.
        let has_taker = !queue.idle.is_empty()
            || !queue.room.is_empty()
            || (head.more == 0 && !queue.ahead.is_empty());
        let mut ahead = 0;
        let must_wait = !has_taker || queue.queue.count() > 0 || entry.is_blocked;
        if must_wait {
            queue.may_wait(&service.name, cx.now)?;
        }
        let queue_max = service.settings.get(ServiceSetting::QueueMax);
        if must_wait && queue.waiting() as u64 >= queue_max {
            return refuse(
                ErrorCode::Overloaded,
                format!(
                    "queue of service '{}' is full ({} of {queue_max} requests, queue_max)",
                    service.name,
                    queue.waiting()
                ),
            );
        }
        if must_wait && !entry.is_blocked {
            ahead = self.reject_early((service, queue), client, head, cx)?;
        }
        let bytes_max = cx.settings.get(Setting::QueueBytesMax);
        let bytes = self.queue_bytes + body.len() as u64;
        if must_wait && bytes > bytes_max {
            return refuse(
                ErrorCode::Overloaded,
                format!(
                    "a request of {} bytes does not fit: {} of {bytes_max} bytes (queue_bytes_max) wait already",
                    body.len(),
                    self.queue_bytes
                ),
            );
        }
        debug_assert!(head.workerid == 0, "a conversation's frame is not a new request");
        Ok(ahead)
    }

    /// How many requests are ahead of one that must wait. Early rejection: refuses it if it could
    /// not be answered before its deadline (docs/decisions/0015). Otherwise, when all in the queue
    /// are about to be too late, the workers work only on requests that nobody waits for any more.
    fn reject_early(
        &self,
        (service, queue): (&Service, &ServiceQueue),
        client: ClientKey,
        head: &Header,
        cx: &Context<'_>,
    ) -> Result<usize, ErrorBody> {
        let percent = service.settings.get(ServiceSetting::AdmitPercent);
        let priority = match head.priority {
            0 => self.callers[client].priority,
            own => own,
        };
        let ahead = queue.queue.ahead_of(priority);
        let Some(expected) = queue.rate.expect(cx.now, ahead).filter(|_| percent > 0) else {
            return Ok(ahead);
        };
        let deadline_ms = deadline_ms(service, head);
        // `expected` is in microseconds: 1000 for a millisecond, a hundredth of that for a per
        // cent.
        if expected.0 <= deadline_ms.saturating_mul(percent).saturating_mul(10) {
            return Ok(ahead);
        }
        let text = format!(
            "service '{}' would take about {} ms with {ahead} requests ahead, and the deadline is \
             {deadline_ms} ms (admit_percent {percent})",
            service.name,
            expected.as_millis()
        );
        Err(ErrorBody::new(ErrorCode::Overloaded, text).with_ran(Ran::No))
    }

    /// Answers a request that is not accepted with an error; its further pieces are discarded.
    fn refuse_request(
        &mut self,
        client: ClientKey,
        head: &Header,
        error: ErrorBody,
        cx: &mut Context<'_>,
    ) {
        let service = self.callers[client].service;
        self.totals.refused += 1;
        *self.queues[service].figures.failed.entry(error.code).or_default() += 1;
        self.callers[client].failed += 1;
        self.callers[client].refused += 1;
        if head.more != 0 {
            self.callers[client].discard_rest(head.sequence, cx.now);
        }
        if error.code == ErrorCode::Overloaded {
            self.record_overload(service, &error.text, cx);
        }
        let link = self.callers[client].link;
        cx.answer_error(link, head, error);
    }

    /// Records that requests are refused, once a second for each service.
    pub(super) fn record_overload(
        &mut self,
        service: ServiceKey,
        text: &str,
        cx: &mut Context<'_>,
    ) {
        let before = self.queues[service].overload_recorded;
        if before.is_some_and(|at| cx.now.since(at).as_millis() < 1000) {
            return;
        }
        self.queues[service].overload_recorded = Some(cx.now);
        let about = About {
            service: Some(cx.catalog[service].name.clone()),
            values: Values {
                error: Some(ErrorCode::Overloaded),
                ran: Some(Ran::No),
                ..Values::default()
            },
            ..About::default()
        };
        cx.record(FactKind::Overloaded, about, text.to_owned());
    }

    /// Handles a further frame of a request under way, or of its conversation.
    fn on_piece(
        &mut self,
        client: ClientKey,
        key: TransactionKey,
        head: Header,
        body: Bytes,
        cx: &mut Context<'_>,
    ) {
        let link = self.callers[client].link;
        let transaction = &self.transactions[key];
        let holder = transaction.stage.worker().map(|worker| self.seats[worker].id.0);
        let in_conversation = transaction.conversation == Conversation::Open;
        if transaction.is_complete && !(in_conversation && head.workerid != 0) {
            if head.more != 0 {
                if !self.may_come_in_pieces(client, cx) {
                    return;
                }
                // The further pieces of this frame must not become a request when the one under way
                // has ended.
                self.callers[client].discard_rest(head.sequence, cx.now);
            }
            let text = format!("sequence {} belongs to a request that is under way", head.sequence);
            cx.answer_error(link, &head, ErrorBody::new(ErrorCode::DuplicateSequence, text));
            return;
        }
        if head.workerid != 0 && Some(head.workerid) != holder {
            let text = format!(
                "the conversation of sequence {} is not with worker {}",
                head.sequence, head.workerid
            );
            cx.answer_error(link, &head, ErrorBody::new(ErrorCode::NoConversation, text));
            return;
        }
        let is_last = head.more == 0;
        let stage = transaction.stage;
        self.transactions[key].received += body.len() as u64;
        if let Some(worker) = stage.worker() {
            self.pass_on(key, worker, (head, body), cx);
            return;
        }
        if self.queue_bytes + body.len() as u64 > cx.settings.get(Setting::QueueBytesMax) {
            // Unless this was the last piece, more will come and is discarded.
            self.transactions[key].is_complete = is_last;
            let text = format!(
                "a piece of {} bytes does not fit: {} bytes wait already (queue_bytes_max)",
                body.len(),
                self.queue_bytes
            );
            self.fail(key, ErrorBody::new(ErrorCode::Overloaded, text).with_ran(Ran::No), cx);
            return;
        }
        let transaction = &mut self.transactions[key];
        transaction.is_complete = is_last;
        self.queue_bytes += body.len() as u64;
        transaction.kept_bytes += body.len() as u64;
        transaction.pieces.get_or_insert_default().push_back((head, body));
        if transaction.kept_bytes > PIECES_BYTES_HIGH && !transaction.holds_reader {
            transaction.holds_reader = true;
            self.flow.stop_reading(link, cx.out);
        }
    }

    /// Sends a further frame of a client to the worker that has the request.
    fn pass_on(
        &mut self,
        key: TransactionKey,
        worker: WorkerKey,
        (head, body): (Header, Bytes),
        cx: &mut Context<'_>,
    ) {
        let is_last = head.more == 0;
        let transaction = &mut self.transactions[key];
        transaction.is_complete = is_last;
        let from = transaction.client.map(|client| self.callers[client].link);
        if is_last && matches!(transaction.stage, Stage::Parked(_)) {
            self.expect_frame(key, cx);
        }
        self.send_piece(worker, key, head, body, cx);
        if let Some((from, to)) = from.zip(self.seats[worker].link) {
            self.flow.hold_back(from, to, cx.out);
        }
        if is_last {
            // With the last piece, its worker may hold further requests (`prefetch`).
            self.arrange(worker, cx);
            self.serve(self.seats[worker].service, cx);
        }
    }
}
