//! One request from its arrival to its outcome: admission, pieces, refusal. `dispatch` chooses the
//! worker, `outcome` gives the one outcome.

use super::fact::{About, FactKind};
use super::keys::{ClientKey, OptionKey, ServiceKey, TransactionKey, WorkerKey};
use super::links::End;
use super::registry::Service;
use super::{Engine, Out};
use bytes::Bytes;
use protocol::bodies::ErrorBody;
use protocol::errors::{ErrorCode, Ran};
use protocol::header::Header;
use protocol::ids::{LinkId, TransactionId};
use protocol::limits::DEADLINE_MS_MAX;
use protocol::settings::{ServiceSetting, Setting};
use protocol::time::Tick;
use std::collections::VecDeque;

/// Where a transaction is on its way to a worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In the queue of its service.
    Waiting,
    /// In no queue and with no worker: its client is blocked, or it is just failed after it was
    /// lost with its worker.
    Blocked,
    /// Sent ahead to a busy worker that has not begun it (`prefetch`).
    Held(WorkerKey),
    /// With a worker, which works on it.
    Bound(WorkerKey),
}

/// A request under way, or one that has its outcome and is still with its worker.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// Counted from 1; also the order of arrival.
    pub(crate) id: TransactionId,
    /// Its client; `None` = that is gone, or the outcome was given.
    pub(crate) client: Option<ClientKey>,
    /// The service that it is for; `service` of its client may change it while it waits.
    pub(crate) service: ServiceKey,
    /// The header of its first frame, without `transaction` and `attempt`.
    pub(crate) head: Header,
    /// The priority in force: its own, or that of its client.
    pub(crate) priority: u8,
    /// The body of its first frame; empty once a worker has it and it can't be repeated.
    pub(crate) body: Bytes,
    /// Further pieces that came while it waited, in order.
    pub(crate) pieces: VecDeque<(Header, Bytes)>,
    /// Bytes of body and pieces that count for `queue_bytes_max`, while they wait or are kept for a
    /// repetition.
    pub(crate) kept_bytes: u64,
    /// Its stage; the queues and the workers hold its key accordingly.
    pub(crate) stage: Stage,
    /// When its first frame came.
    pub(crate) arrived: Tick,
    /// When its worker began it, as far as is known; before that, when it came.
    pub(crate) dispatched: Tick,
    /// When it ends with the error `deadline`, if it has no outcome by then.
    pub(crate) deadline: Tick,
    /// How many workers it was sent to, without those that surely never began it.
    pub(crate) attempt: u32,
    /// How many workers were lost while they worked on it, apart from those that end with their
    /// host; what `poison_deaths` limits. A worker that only held it (`prefetch`) does not count.
    pub(crate) deaths: u64,
    /// Its client sent the last piece.
    pub(crate) is_complete: bool,
    /// The worker's last frame had `more`, so it may wait for a frame of the client.
    pub(crate) in_conversation: bool,
    /// It has its outcome; its worker has not finished it.
    pub(crate) is_ended: bool,
    /// The worker was told that nobody waits for its reply.
    pub(crate) is_abandoned: bool,
    /// Its client is not read, because the pieces that wait are too many bytes.
    pub(crate) holds_reader: bool,
    /// The transaction before it in the queue.
    pub(crate) prev: OptionKey<TransactionKey>,
    /// The transaction behind it in the queue.
    pub(crate) next: OptionKey<TransactionKey>,
}

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

impl Engine {
    /// Handles a data frame of a client: a new request, a piece of one, or a command for `op`.
    pub(crate) fn on_request(&mut self, link: LinkId, head: Header, body: Bytes, out: Out<'_>) {
        // The broker gives these two itself and never sends back what a client wrote there.
        let head = Header { transaction: 0, attempt: 0, ..head };
        let key = match self.links.get(link).map(|slot| &slot.end) {
            Some(End::Client(key)) => *key,
            Some(_) => {
                let text = "a request came before the login";
                self.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text), out);
                return;
            }
            None => return,
        };
        if self.clients[key].is_rest(&head) {
            self.on_rest(key, &head, out);
        } else if self.clients[key].service == self.op_service {
            self.on_command(key, head, &body, out);
        } else if let Some(transaction) = self.clients[key].in_flight.get(head.sequence) {
            self.on_piece(key, transaction, head, body, out);
        } else if head.workerid != 0 {
            let text = format!(
                "worker {} has no open conversation with sequence {}",
                head.workerid, head.sequence
            );
            self.answer_error(link, &head, ErrorBody::new(ErrorCode::NoConversation, text), out);
        } else {
            self.accept(key, head, body, out);
        }
    }

    /// Discards a piece of a request that ended before its last piece came. It may also be a new
    /// request that uses the sequence too early; the two look the same. What comes in the turn of
    /// the end was sent before its sender could know of the end, so it is a piece. Later, the frame
    /// with `more` = 0 is answered with an error, so that nobody waits for a request that was taken
    /// for a piece (docs/decisions/0022).
    pub(crate) fn on_rest(&mut self, client: ClientKey, head: &Header, out: Out<'_>) {
        if head.more != 0 {
            return;
        }
        let ended = self.clients[client].discarded.remove(&head.sequence);
        if ended == Some(self.now) {
            return;
        }
        let text = format!(
            "sequence {} is of a request that ended before its last piece came; this frame was \
             taken for that piece, and the sequence may be used again from now on",
            head.sequence
        );
        let link = self.clients[client].link;
        self.answer_error(link, head, ErrorBody::new(ErrorCode::NoConversation, text), out);
    }

    /// Whether a client may begin one more request in pieces; if not, the client is closed.
    pub(crate) fn may_come_in_pieces(&mut self, client: ClientKey, out: Out<'_>) -> bool {
        let entry = &self.clients[client];
        if !entry.discards_too_many() {
            return true;
        }
        let text = format!(
            "{} requests of this connection ended before their last piece (more = 0) came; send \
             that piece of each before you begin further ones in pieces",
            entry.discarded.len()
        );
        self.send_away(client, &ErrorBody::new(ErrorCode::BadState, text), out);
        false
    }

    /// Accepts a new request, which then surely gets an outcome, or refuses it at once.
    fn accept(&mut self, client: ClientKey, head: Header, body: Bytes, out: Out<'_>) {
        if head.more != 0 && !self.may_come_in_pieces(client, out) {
            return;
        }
        if let Err(error) = self.admit(client, &head, &body) {
            self.refuse_request(client, &head, error, out);
            return;
        }
        let service = self.clients[client].service;
        let deadline_ms = deadline_ms(&self.registry[service], &head);
        self.next_transaction += 1;
        let priority =
            if head.priority == 0 { self.clients[client].priority } else { head.priority };
        let kept_bytes = body.len() as u64;
        let transaction = Transaction {
            id: TransactionId(self.next_transaction),
            client: Some(client),
            service,
            head,
            priority,
            body,
            pieces: VecDeque::new(),
            kept_bytes,
            stage: Stage::Waiting,
            arrived: self.now,
            dispatched: self.now,
            deadline: self.now.plus_millis(deadline_ms),
            attempt: 0,
            deaths: 0,
            is_complete: head.more == 0,
            in_conversation: false,
            is_ended: false,
            is_abandoned: false,
            holds_reader: false,
            prev: OptionKey::NONE,
            next: OptionKey::NONE,
        };
        let deadline = transaction.deadline;
        let key = self.transactions.insert(transaction);
        self.wheel.insert(key, deadline);
        self.queue_bytes += kept_bytes;
        self.totals.accepted += 1;
        let entry = &mut self.clients[client];
        entry.requests += 1;
        entry.in_flight.insert(head.sequence, key);
        if entry.is_blocked {
            self.transactions[key].stage = Stage::Blocked;
        } else {
            self.enqueue(key, out);
        }
    }

    /// Whether a request may be accepted.
    ///
    /// # Errors
    /// The error for its client names the limit that is reached.
    fn admit(&self, client: ClientKey, head: &Header, body: &Bytes) -> Result<(), ErrorBody> {
        let refuse = |code, text: String| Err(ErrorBody { code, ran: Ran::No, text });
        let entry = &self.clients[client];
        let service = &self.registry[entry.service];
        if self.shutdown.is_some() {
            return refuse(ErrorCode::ShuttingDown, "the broker is shutting down".into());
        }
        if service.is_stopped {
            return refuse(ErrorCode::ServiceStopped, self.stopped_text(service));
        }
        // A client keeps to the limit that was announced to it, though a lower one may be set by
        // now.
        let requests_max = self.settings.get(Setting::RequestsMax).max(entry.requests_max);
        if entry.in_flight.len() as u64 >= requests_max {
            return refuse(
                ErrorCode::TooManyRequests,
                format!(
                    "{requests_max} of {requests_max} requests (requests_max) are under way on this connection"
                ),
            );
        }
        // A request that a worker can take at once needs no place in the queue.
        let has_taker =
            !service.idle.is_empty() || (head.more == 0 && !service.with_room.is_empty());
        let must_wait = !has_taker || service.queue.count() > 0 || entry.is_blocked;
        let queue_max = service.settings.get(ServiceSetting::QueueMax);
        if must_wait && service.queue.count() as u64 >= queue_max {
            return refuse(
                ErrorCode::Overloaded,
                format!(
                    "queue of service '{}' is full ({} of {queue_max} requests, queue_max)",
                    service.name,
                    service.queue.count()
                ),
            );
        }
        if must_wait && !entry.is_blocked {
            self.reject_early(service, client, head)?;
        }
        let bytes_max = self.settings.get(Setting::QueueBytesMax);
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
        Ok(())
    }

    /// Early rejection: refuses a request that must wait and could not be answered before its
    /// deadline (docs/decisions/0015). Otherwise, when all in the queue are about to be too late,
    /// the workers work only on requests that nobody waits for any more.
    fn reject_early(
        &self,
        service: &Service,
        client: ClientKey,
        head: &Header,
    ) -> Result<(), ErrorBody> {
        let percent = service.settings.get(ServiceSetting::AdmitPercent);
        let priority = match head.priority {
            0 => self.clients[client].priority,
            own => own,
        };
        let ahead = service.queue.ahead_of(priority);
        let Some(expected) = service.rate.expect(self.now, ahead).filter(|_| percent > 0) else {
            return Ok(());
        };
        let deadline_ms = deadline_ms(service, head);
        // `expected` is in microseconds: 1000 for a millisecond, a hundredth of that for a per
        // cent.
        if expected.0 <= deadline_ms.saturating_mul(percent).saturating_mul(10) {
            return Ok(());
        }
        let text = format!(
            "service '{}' would take about {} ms with {ahead} requests ahead, and the deadline is \
             {deadline_ms} ms (admit_percent {percent})",
            service.name,
            expected.as_millis()
        );
        Err(ErrorBody { code: ErrorCode::Overloaded, ran: Ran::No, text })
    }

    /// Answers a request that is not accepted with an error; its further pieces are discarded.
    pub(crate) fn refuse_request(
        &mut self,
        client: ClientKey,
        head: &Header,
        error: ErrorBody,
        out: Out<'_>,
    ) {
        let service = self.clients[client].service;
        self.totals.refused += 1;
        *self.registry[service].figures.failed.entry(error.code).or_default() += 1;
        self.clients[client].failed += 1;
        if head.more != 0 {
            self.clients[client].discard_rest(head.sequence, self.now);
        }
        if error.code == ErrorCode::Overloaded {
            self.record_overload(service, &error.text, out);
        }
        let link = self.clients[client].link;
        self.answer_error(link, head, error, out);
    }

    /// Records that requests are refused, once a second for each service.
    fn record_overload(&mut self, service: ServiceKey, text: &str, out: Out<'_>) {
        let before = self.registry[service].overload_recorded;
        if before.is_some_and(|at| self.now.since(at).as_millis() < 1000) {
            return;
        }
        self.registry[service].overload_recorded = Some(self.now);
        let about =
            About { service: Some(self.registry[service].name.clone()), ..About::default() };
        self.record(FactKind::Overloaded, about, text.to_owned(), out);
    }

    /// Handles a further frame of a request under way, or of its conversation.
    fn on_piece(
        &mut self,
        client: ClientKey,
        key: TransactionKey,
        head: Header,
        body: Bytes,
        out: Out<'_>,
    ) {
        let link = self.clients[client].link;
        let transaction = &self.transactions[key];
        let holder = match transaction.stage {
            Stage::Bound(worker) | Stage::Held(worker) => Some(self.workers[worker].id.0),
            Stage::Waiting | Stage::Blocked => None,
        };
        if transaction.is_complete && !(transaction.in_conversation && head.workerid != 0) {
            if head.more != 0 {
                if !self.may_come_in_pieces(client, out) {
                    return;
                }
                // The further pieces of this frame must not become a request when the one under way
                // has ended.
                self.clients[client].discard_rest(head.sequence, self.now);
            }
            let text = format!("sequence {} belongs to a request that is under way", head.sequence);
            self.answer_error(link, &head, ErrorBody::new(ErrorCode::DuplicateSequence, text), out);
            return;
        }
        if head.workerid != 0 && Some(head.workerid) != holder {
            let text = format!(
                "the conversation of sequence {} is not with worker {}",
                head.sequence, head.workerid
            );
            self.answer_error(link, &head, ErrorBody::new(ErrorCode::NoConversation, text), out);
            return;
        }
        let is_last = head.more == 0;
        match transaction.stage {
            Stage::Bound(worker) | Stage::Held(worker) => {
                let transaction = &mut self.transactions[key];
                transaction.is_complete = is_last;
                self.send_piece(worker, key, head, body, out);
                if let Some(to) = self.workers[worker].link {
                    self.links.hold_back(link, to, out);
                }
                if is_last {
                    // With the last piece, its worker may hold further requests (`prefetch`).
                    self.settle(worker);
                    self.serve(self.workers[worker].service, out);
                }
            }
            Stage::Waiting | Stage::Blocked => {
                if self.queue_bytes + body.len() as u64 > self.settings.get(Setting::QueueBytesMax)
                {
                    // Unless this was the last piece, more will come and is discarded.
                    self.transactions[key].is_complete = is_last;
                    let text = format!(
                        "a piece of {} bytes does not fit: {} bytes wait already (queue_bytes_max)",
                        body.len(),
                        self.queue_bytes
                    );
                    self.fail(
                        key,
                        ErrorBody { code: ErrorCode::Overloaded, ran: Ran::No, text },
                        out,
                    );
                    return;
                }
                let transaction = &mut self.transactions[key];
                transaction.is_complete = is_last;
                self.queue_bytes += body.len() as u64;
                transaction.kept_bytes += body.len() as u64;
                transaction.pieces.push_back((head, body));
                if transaction.kept_bytes > PIECES_BYTES_HIGH && !transaction.holds_reader {
                    transaction.holds_reader = true;
                    self.links.stop_reading(link, out);
                }
            }
        }
    }

    /// Frees the bytes of a request that are not needed any more, and reads its client again if
    /// they were why it was not read.
    pub(crate) fn release_bytes(&mut self, key: TransactionKey, out: Out<'_>) {
        let transaction = &mut self.transactions[key];
        self.queue_bytes -= std::mem::take(&mut transaction.kept_bytes);
        transaction.body = Bytes::new();
        transaction.pieces.clear();
        self.read_client_again(key, out);
    }

    /// Reads the client of a request again, if it was not read because of this request's waiting
    /// bytes.
    pub(crate) fn read_client_again(&mut self, key: TransactionKey, out: Out<'_>) {
        let transaction = &mut self.transactions[key];
        if std::mem::take(&mut transaction.holds_reader)
            && let Some(client) = transaction.client.and_then(|client| self.clients.get(client))
        {
            self.links.resume_reading(client.link, out);
        }
    }
}
