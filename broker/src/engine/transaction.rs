//! One request from its arrival to its outcome: admission, pieces, the outcome given exactly once.
//! Not the choice of a worker: that is `dispatch`.

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

/// Where a transaction is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In its service's queue.
    Waiting,
    /// In no queue: its client is blocked.
    Blocked,
    /// Sent to a busy worker that has not begun it (`prefetch`).
    Held(WorkerKey),
    /// A worker has it.
    Bound(WorkerKey),
}

/// A request under way, or one that has its outcome but is still with its worker.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// Its number; also its place in the order of arrival.
    pub(crate) id: TransactionId,
    /// Key of its client; `None` = gone.
    pub(crate) client: Option<ClientKey>,
    /// Key of its service.
    pub(crate) service: ServiceKey,
    /// The header of the request.
    pub(crate) head: Header,
    /// The priority in force.
    pub(crate) priority: u8,
    /// The body of the request; empty once a worker has it and it can't be repeated.
    pub(crate) body: Bytes,
    /// Further pieces that came while it waited.
    pub(crate) pieces: VecDeque<(Header, Bytes)>,
    /// Bytes of body and pieces that count against `queue_bytes_max`.
    pub(crate) kept: u64,
    /// Where it is.
    pub(crate) stage: Stage,
    /// When it came.
    pub(crate) arrived: Tick,
    /// When its worker got it or began it.
    pub(crate) dispatched: Tick,
    /// When its time is over.
    pub(crate) deadline: Tick,
    /// How often it was given to a worker.
    pub(crate) attempt: u32,
    /// How many workers died with it.
    pub(crate) deaths: u64,
    /// The client sent its last piece.
    pub(crate) is_complete: bool,
    /// The worker replied with `more` and may be waiting for the client.
    pub(crate) in_conversation: bool,
    /// It has its outcome; the worker has not finished.
    pub(crate) is_ended: bool,
    /// The worker was notified that nobody waits for it.
    pub(crate) is_abandoned: bool,
    /// Its client is read no further because its pieces pile up.
    pub(crate) holds_reader: bool,
    /// Neighbours in the queue.
    pub(crate) prev: OptionKey<TransactionKey>,
    /// See `prev`.
    pub(crate) next: OptionKey<TransactionKey>,
}

/// Pieces of a waiting request may pile up to this, then its client is read no further.
const PIECES_BYTES_HIGH: u64 = 256 * 1024;

/// How long a request's answer is worth waiting for.
fn deadline_ms(service: &Service, head: &Header) -> u64 {
    match head.deadline_ms {
        0 => service.settings.get(ServiceSetting::DeadlineMs),
        // The decoder has refused what is past the longest.
        asked => u64::from(asked).min(DEADLINE_MS_MAX),
    }
}

impl Engine {
    /// A data frame of a client.
    pub(crate) fn on_request(&mut self, link: LinkId, head: Header, body: Bytes, out: Out<'_>) {
        // The broker gives these; what a client writes there comes back to nobody.
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

    /// The rest of a request that ended before its last piece came, or a request that uses its
    /// sequence too early: they look the same. What comes in the turn of the end was sent before
    /// its sender could know of it, so it is the rest. Later the frame with `more` = 0 is answered:
    /// nobody is to wait for the outcome of a request that was taken for a rest.
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

    /// Whether one more request of a client may come in pieces; else it is sent away.
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

    /// A new request: refused at once, or accepted and then surely ended.
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
        let kept = body.len() as u64;
        let transaction = Transaction {
            id: TransactionId(self.next_transaction),
            client: Some(client),
            service,
            head,
            priority,
            body,
            pieces: VecDeque::new(),
            kept,
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
        self.queue_bytes += kept;
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

    /// Whether there is room to accept this request and to finish it.
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
        // A client keeps to what was announced to it, though less may be set by now.
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

    /// Early rejection: refuses a request that must wait and could not be answered in time. A queue
    /// whose head is about to be too late keeps its workers busy for nobody.
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
        // In microseconds: 1,000 of a millisecond, a hundredth of it for each per cent.
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

    /// Says no to a request that was never accepted; its further pieces are discarded.
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

    /// One fact a second says that requests are refused, not one a request.
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

    /// A further frame of a request or of a conversation.
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
                // The rest of it must not become a request when the one under way has ended.
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
                    // Its worker may hold further requests from now on (`prefetch`).
                    self.settle(worker);
                    self.serve(self.workers[worker].service, out);
                }
            }
            Stage::Waiting | Stage::Blocked => {
                if self.queue_bytes + body.len() as u64 > self.settings.get(Setting::QueueBytesMax)
                {
                    // It is counted as more to come unless this was the last piece, so the rest is
                    // discarded.
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
                transaction.kept += body.len() as u64;
                transaction.pieces.push_back((head, body));
                if transaction.kept > PIECES_BYTES_HIGH && !transaction.holds_reader {
                    transaction.holds_reader = true;
                    self.links.stop_reading(link, out);
                }
            }
        }
    }

    /// Frees the memory of a request's bytes, and reads its client again.
    pub(crate) fn release_bytes(&mut self, key: TransactionKey, out: Out<'_>) {
        let transaction = &mut self.transactions[key];
        self.queue_bytes -= std::mem::take(&mut transaction.kept);
        transaction.body = Bytes::new();
        transaction.pieces.clear();
        self.read_client_again(key, out);
    }

    /// A request's pieces pile up no longer.
    pub(crate) fn read_client_again(&mut self, key: TransactionKey, out: Out<'_>) {
        let transaction = &mut self.transactions[key];
        if std::mem::take(&mut transaction.holds_reader)
            && let Some(client) = transaction.client.and_then(|client| self.clients.get(client))
        {
            self.links.resume_reading(client.link, out);
        }
    }
}
