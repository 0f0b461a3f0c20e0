//! Where a request is from its admission until nobody has it any more: the states and the events of
//! a transaction, as one match.

use crate::engine::keys::WorkerKey;

/// Where a transaction is, and whether it has its outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    /// In the queue of its service.
    Waiting,
    /// In no queue and with no worker: its client is blocked.
    Blocked,
    /// Sent ahead to a busy worker that has not begun it (`prefetch`).
    Held(WorkerKey),
    /// With a worker, which works on it.
    Bound(WorkerKey),
    /// A conversation without a deadline (`open_ended`): with a worker, in which it takes no room.
    Parked(WorkerKey),
    /// As `Parked`, but it has its outcome: the worker still owes its last frame.
    ParkedEnded(WorkerKey),
    /// As `Held`, but it has its outcome. The worker may begin it all the same.
    HeldEnded(WorkerKey),
    /// As `Bound`, but it has its outcome: the worker has neither replied nor died.
    Ended(WorkerKey),
    /// Its worker is gone, and it is failed within the step.
    Lost,
    /// Nobody has it: it is to be removed.
    Gone,
}

/// What happens to a transaction.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum StageEvent {
    /// Its client was blocked.
    Block,
    /// Its client was unblocked.
    Unblock,
    /// It is given to an idle worker.
    Give(WorkerKey),
    /// It is sent ahead to a busy worker.
    Hold(WorkerKey),
    /// The worker that holds it begins it.
    Begin,
    /// Its worker sent the first part of a reply that has no deadline.
    Park,
    /// It gets its outcome.
    End,
    /// Its worker is gone or has lost it, and it is given to another one.
    Repeat,
    /// Its worker is gone or has lost it, and it is not repeated.
    Lose,
    /// Its worker is done with it, or gone.
    Free,
}

impl Stage {
    /// Of a request that is admitted; that of a blocked client is blocked then.
    pub(crate) const START: Self = Self::Waiting;

    /// The next state; `None`: the event can't come in this state.
    pub(crate) const fn on(self, event: StageEvent) -> Option<Self> {
        use StageEvent::{Begin, Block, End, Free, Give, Hold, Lose, Park, Repeat, Unblock};
        Some(match (self, event) {
            (Self::Waiting, Block) => Self::Blocked,
            (Self::Blocked, Unblock) => Self::Waiting,
            (Self::Waiting, Give(worker)) => Self::Bound(worker),
            (Self::Waiting, Hold(worker)) => Self::Held(worker),
            (Self::Held(worker), Begin) => Self::Bound(worker),
            (Self::HeldEnded(worker), Begin) => Self::Ended(worker),
            (Self::Waiting | Self::Blocked, End) => Self::Gone,
            (Self::Held(worker), End) => Self::HeldEnded(worker),
            (Self::Bound(worker), End) => Self::Ended(worker),
            (Self::Held(_) | Self::Bound(_), Repeat) => Self::Waiting,
            (Self::Bound(worker), Park) => Self::Parked(worker),
            (Self::Parked(worker), End) => Self::ParkedEnded(worker),
            (Self::Held(_) | Self::Bound(_) | Self::Parked(_), Lose) => Self::Lost,
            (Self::Lost, End) => Self::Gone,
            (Self::Ended(_) | Self::HeldEnded(_) | Self::ParkedEnded(_), Free) => Self::Gone,
            (Self::Waiting, Unblock | Begin | Park | Repeat | Lose | Free)
            | (Self::Blocked, Block | Give(_) | Hold(_) | Begin | Park | Repeat | Lose | Free)
            | (Self::Held(_), Block | Unblock | Give(_) | Hold(_) | Park | Free)
            | (Self::Bound(_), Block | Unblock | Give(_) | Hold(_) | Begin | Free)
            | (
                Self::Parked(_),
                Block | Unblock | Give(_) | Hold(_) | Begin | Park | Repeat | Free,
            )
            | (
                Self::HeldEnded(_),
                Block | Unblock | Give(_) | Hold(_) | Park | End | Repeat | Lose,
            )
            | (
                Self::Ended(_) | Self::ParkedEnded(_),
                Block | Unblock | Give(_) | Hold(_) | Begin | Park | End | Repeat | Lose,
            )
            | (
                Self::Lost,
                Block | Unblock | Give(_) | Hold(_) | Begin | Park | Repeat | Lose | Free,
            )
            | (
                Self::Gone,
                Block | Unblock | Give(_) | Hold(_) | Begin | Park | End | Repeat | Lose | Free,
            ) => {
                return None;
            }
        })
    }

    /// The worker that has or holds it.
    pub(crate) const fn worker(self) -> Option<WorkerKey> {
        match self {
            Self::Held(worker)
            | Self::Bound(worker)
            | Self::Parked(worker)
            | Self::HeldEnded(worker)
            | Self::Ended(worker)
            | Self::ParkedEnded(worker) => Some(worker),
            Self::Waiting | Self::Blocked | Self::Lost | Self::Gone => None,
        }
    }

    /// Whether a worker works on it, or has a conversation of it, as far as the broker knows.
    pub(crate) const fn has_begun(self) -> bool {
        matches!(self, Self::Bound(_) | Self::Parked(_) | Self::Ended(_) | Self::ParkedEnded(_))
    }

    /// Whether it waits: no worker has it, and it has no outcome.
    pub(crate) const fn waits(self) -> bool {
        matches!(self, Self::Waiting | Self::Blocked)
    }

    /// Whether it has its outcome.
    pub(crate) const fn is_ended(self) -> bool {
        matches!(self, Self::HeldEnded(_) | Self::Ended(_) | Self::ParkedEnded(_) | Self::Gone)
    }
}
