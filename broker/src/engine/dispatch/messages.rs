//! Messages that a service takes as requests (its setting `topic`). Such a request has no client,
//! as a one-way request whose client has left; all else holds for it that holds for the others.

use super::machine::Dispatch;
use super::stage::Stage;
use super::trace::Trace;
use super::transaction::{Conversation, Past, Transaction};
use crate::engine::context::Context;
use crate::engine::fact::{About, FactKind, Values};
use crate::engine::keys::{OptionKey, ServiceKey};
use crate::engine::quotas::Class;
use bytes::Bytes;
use protocol::limits::PRIORITY_DEFAULT;
use protocol::topics::OWN_WORD;
use protocol::{ClientId, ErrorBody, ErrorCode, Header, ServiceSetting, Setting, TransactionId};

/// The client of a request that was a message.
const OF_MESSAGE: ClientId = ClientId(u32::MAX);
/// The same, of one that the broker itself published.
const OF_OWN_MESSAGE: ClientId = ClientId(u32::MAX - 1);

/// The client of a request, if it has one: a message that was taken as one has none.
pub(crate) fn client_of(client: ClientId) -> Option<ClientId> {
    (client < OF_OWN_MESSAGE).then_some(client)
}

/// Whether a request was a message of the broker itself. That it fails leaves no fact, which would
/// be the next such message.
pub(super) fn is_of_broker(client: ClientId) -> bool {
    client == OF_OWN_MESSAGE
}

/// Whether the broker itself published a message.
fn is_own(body: &Bytes) -> bool {
    let own = [b"topic ", OWN_WORD.as_bytes(), b"."].concat();
    body.starts_with(&own)
}

impl Dispatch {
    /// Takes a message as a request of a service, or records why it can't.
    pub(crate) fn accept_message(
        &mut self,
        service: ServiceKey,
        body: Bytes,
        cx: &mut Context<'_>,
    ) {
        if let Err(error) = self.admit_message(service, body.len() as u64, cx) {
            self.totals.refused += 1;
            *self.queues[service].figures.failed.entry(error.code).or_default() += 1;
            if is_own(&body) {
                return;
            }
            if error.code == ErrorCode::Overloaded {
                self.record_overload(service, &error.text, cx);
            } else if cx.may_cause(Class::LoggedIn, None) {
                let name = cx.catalog[service].name.clone();
                let text = format!("a message for service '{name}' is dropped: {}", error.text);
                let values =
                    Values { error: Some(error.code), ran: Some(error.ran), ..Values::default() };
                let about = About { service: Some(name), values, ..About::default() };
                cx.record(FactKind::RequestFailed, about, text);
            }
            return;
        }
        let deadline_ms = cx.catalog[service].settings.get(ServiceSetting::DeadlineMs);
        self.next_transaction += 1;
        let kept = body.len() as u64;
        let client = if is_own(&body) { OF_OWN_MESSAGE } else { OF_MESSAGE };
        let len = u32::try_from(kept).unwrap_or(u32::MAX);
        let deadline = cx.now.plus_millis(deadline_ms);
        let transaction = Transaction {
            id: TransactionId(self.next_transaction),
            client: None,
            service,
            head: Header { len, ..Header::default() },
            priority: PRIORITY_DEFAULT,
            body,
            pieces: None,
            kept_bytes: kept,
            stage: Stage::START,
            arrived: cx.now,
            dispatched: cx.now,
            deadline,
            attempt: 0,
            received: kept,
            replied: 0,
            deaths: 0,
            past: Past::Unsent,
            is_complete: true,
            conversation: Conversation::None,
            holds_reader: false,
            trace: Trace::of(client, 0),
            prev: OptionKey::NONE,
            next: OptionKey::NONE,
        };
        let key = self.transactions.insert(transaction);
        self.wheel.insert(key, deadline);
        self.queue_bytes += kept;
        self.totals.accepted += 1;
        self.enqueue(key, cx);
    }

    /// Whether there is room for a message.
    fn admit_message(&self, key: ServiceKey, size: u64, cx: &Context<'_>) -> Result<(), ErrorBody> {
        let service = &cx.catalog[key];
        let queue = &self.queues[key];
        if cx.is_shutting_down {
            let text = "the broker is shutting down";
            return Err(ErrorBody::new(ErrorCode::ShuttingDown, text));
        }
        if service.is_stopped {
            return Err(ErrorBody::new(ErrorCode::ServiceStopped, service.stopped_text(cx.now)));
        }
        queue.may_wait(&service.name, cx.now)?;
        let (waiting, most) =
            (queue.waiting() as u64, service.settings.get(ServiceSetting::QueueMax));
        if waiting >= most && queue.idle.is_empty() {
            let text = format!(
                "queue of service '{}' is full ({waiting} of {most} requests, queue_max); messages \
                 of its topic are dropped",
                service.name
            );
            return Err(ErrorBody::new(ErrorCode::Overloaded, text));
        }
        let bytes_max = cx.settings.get(Setting::QueueBytesMax);
        if self.queue_bytes + size > bytes_max {
            let text = format!(
                "a message of {size} bytes for service '{}' does not fit: {} of {bytes_max} bytes \
                 (queue_bytes_max) wait already",
                service.name, self.queue_bytes
            );
            return Err(ErrorBody::new(ErrorCode::Overloaded, text));
        }
        Ok(())
    }
}
