//! A transaction: one request from its admission until it has its outcome and its worker is done
//! with it. `stage` has its states.

use super::stage::{Stage, StageEvent};
use super::trace::{Attempt, Trace};
use crate::engine::fact::Values;
use crate::engine::keys::{ClientKey, OptionKey, ServiceKey, TransactionKey};
use bytes::Bytes;
use protocol::{Header, ServiceSetting, ServiceSettings, Tick, TransactionId};
use std::collections::VecDeque;

/// The deadline of what has none.
pub(super) const NEVER: Tick = Tick(u64::MAX);

/// See [`Transaction::is_small`].
const FEW_BYTES: usize = 16 * 1024;

/// A request under way, or one that has its outcome and is still with its worker.
#[derive(Debug)]
pub(crate) struct Transaction {
    /// Counted from 1; also the order of arrival.
    pub(crate) id: TransactionId,
    /// Its client; `None` = the outcome was given, or the client is gone and wanted no reply. Valid
    /// in `Waiting`, `Blocked`, `Held`, `Bound`, `Parked` and `Lost`.
    pub(crate) client: Option<ClientKey>,
    /// The service that it is for; `service` of its client may change it while it waits.
    pub(crate) service: ServiceKey,
    /// The header of its first frame, without `transaction` and `attempt`.
    pub(crate) head: Header,
    /// The priority in force: its own, or that of its client.
    pub(crate) priority: u8,
    /// The body of its first frame; empty once a worker has it, unless it may be repeated or is
    /// small.
    pub(crate) body: Bytes,
    #[expect(clippy::box_collection, reason = "most requests have none, and are small then")]
    /// Further pieces that came while it waited, in order; `None` = none did. Independent of the
    /// stage: they go to its worker with it.
    pub(crate) pieces: Option<Box<VecDeque<(Header, Bytes)>>>,
    /// Bytes of body and pieces that count for `queue_bytes_max`, while they wait or are kept for a
    /// repetition.
    pub(crate) kept_bytes: u64,
    /// Its stage; [`enter`](Self::enter) changes it, and the queues and the seats hold its key
    /// accordingly.
    pub(crate) stage: Stage,
    /// When its first frame came.
    pub(crate) arrived: Tick,
    /// When its worker began it, as far as is known; before that, when it came.
    pub(crate) dispatched: Tick,
    /// When it ends with the error `deadline`, if it has no outcome by then.
    pub(crate) deadline: Tick,
    /// How many workers it was sent to, without those that surely never began it.
    pub(crate) attempt: u32,
    /// Bytes that its client sent of it so far.
    pub(crate) received: u64,
    /// Bytes that its worker sent of the reply so far; those of a worker that died among them.
    pub(crate) replied: u64,
    /// How many workers died of it, as counted in `Transaction::deaths`.
    pub(crate) deaths: u32,
    /// Whether a worker was sent it before, and what became of that one. Independent of the stage:
    /// it may wait again.
    pub(super) past: Past,
    /// Its client sent the last piece. Independent of the stage: pieces may come while it waits and
    /// while a worker has it.
    pub(crate) is_complete: bool,
    /// Whether its worker may wait for a frame of the client.
    pub(super) conversation: Conversation,
    /// Its client is not read, because the pieces that wait are too many bytes. Independent of the
    /// stage: pieces may wait while it is blocked, too.
    pub(super) holds_reader: bool,
    /// What is noted for `why`.
    pub(crate) trace: Trace,
    /// The transaction before it in the queue. Valid in `Waiting`.
    pub(crate) prev: OptionKey<TransactionKey>,
    /// The transaction behind it in the queue. Valid in `Waiting`.
    pub(crate) next: OptionKey<TransactionKey>,
}

// Each request is moved into its table and out of it; larger ones take the longer way to copy.
const _: () = assert!(size_of::<Transaction>() <= 256);

/// What happened to a request so far.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Past {
    /// It was sent to no worker.
    Unsent,
    /// It was sent to a worker, be it that it never reached that one.
    Sent,
    /// A worker died that had others beside it: when it is repeated, it runs alone, so that it is
    /// known which one is to blame.
    SentAmongOthers,
}

/// Whether a worker may wait for a frame of the client. Independent of the stage: it outlives the
/// outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Conversation {
    /// It does not: its last frame had no `more`, or none has come yet.
    None,
    /// Its last frame had `more`.
    Open,
    /// It was told that nobody waits for its reply.
    Over,
}

impl Transaction {
    /// Goes on to its next state.
    pub(super) fn enter(&mut self, event: StageEvent) {
        let next = self.stage.on(event);
        debug_assert!(next.is_some(), "{:?} of transaction {} in {:?}", event, self.id, self.stage);
        self.stage = next.unwrap_or(self.stage);
    }

    /// A frame of its worker came; `is_last`: it has no `more`. `error` is the worker's own.
    pub(super) fn worker_said(&mut self, is_last: bool, error: i16) {
        self.trace.error = error;
        self.conversation = match self.conversation {
            Conversation::Over => Conversation::Over,
            Conversation::None | Conversation::Open if is_last => Conversation::None,
            Conversation::None | Conversation::Open => Conversation::Open,
        };
    }

    /// What facts say of it: how long it waited, how long its worker has had it.
    pub(super) fn values(&self, now: Tick) -> Values {
        let begun = self.stage.has_begun();
        let waited = if begun { self.dispatched } else { now }.since(self.arrived);
        Values {
            waited: Some(waited),
            worked: begun.then(|| now.since(self.dispatched)),
            attempt: Some(self.attempt),
            deaths: Some(self.deaths.into()),
            ..Values::default()
        }
    }

    /// A worker that had it is lost; what `worker` says of the attempt itself is filled in.
    pub(super) fn note_lost(&mut self, worker: Attempt) {
        let begun =
            (worker.begun.is_some() || self.stage == Stage::Lost).then_some(self.dispatched);
        let given = self.arrived + self.trace.given.into();
        self.trace.lost(Attempt { number: self.attempt, given, begun, ..worker });
    }

    /// Whether a further frame of the client may belong to it.
    pub(super) fn takes_frames(&self) -> bool {
        !self.is_complete || self.conversation == Conversation::Open
    }

    /// Whether it was sent to a worker.
    pub(super) fn was_sent(&self) -> bool {
        self.past != Past::Unsent
    }

    /// Whether a part of a reply came.
    pub(super) fn was_replied_to(&self) -> bool {
        self.conversation != Conversation::None || self.replied > 0
    }

    /// Whether its worker may have no other beside it.
    pub(super) fn must_run_alone(&self) -> bool {
        self.past == Past::SentAmongOthers
    }

    /// Whether it ends by itself: a conversation without a deadline does not.
    pub(crate) fn has_deadline(&self) -> bool {
        self.deadline != NEVER
    }

    /// Whether all of it came in one frame.
    pub(super) fn is_one_frame(&self) -> bool {
        self.is_complete && self.pieces.is_none()
    }

    /// Whether it may be given to one more worker if the present one dies, by the settings `retry`
    /// and `retry_idempotent` of its service.
    pub(super) fn may_repeat(&self, settings: &ServiceSettings) -> bool {
        let retry = settings.get(ServiceSetting::Retry);
        let retry = if self.head.is_idempotent() {
            settings.get(ServiceSetting::RetryIdempotent).max(retry)
        } else {
            retry
        };
        // `attempt` counts the one under way.
        u64::from(self.attempt) <= retry
    }

    /// Whether its bytes must be kept after a worker got them, to repeat it or to keep it as
    /// poison.
    pub(super) fn must_keep(&self, settings: &ServiceSettings) -> bool {
        self.is_complete
            && self.head.more == 0
            && (self.may_repeat(settings)
                || u64::from(self.deaths) + 1 >= settings.get(ServiceSetting::PoisonDeaths))
    }

    /// Whether its bytes are so few that they are kept until its outcome whatever the settings say:
    /// if it crosses the logout of its worker, it can be given to another one.
    pub(super) fn is_small(&self) -> bool {
        self.body.len() <= FEW_BYTES && self.is_complete && self.head.more == 0
    }

    /// Whether all of it is still in memory, so that it could be given to another worker.
    pub(super) fn is_whole_in_memory(&self) -> bool {
        self.is_complete
            && self.conversation != Conversation::Open
            && self.head.more == 0
            && self.body.len() == self.head.len as usize
    }
}
