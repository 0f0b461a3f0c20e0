//! Effects: what one machine must let another one know. A machine names no other: it pushes an
//! effect, and the hub hands it on before the step ends.

use super::input::Close;
use super::keys::{HostKey, ServiceKey, WorkerKey};
use protocol::bodies::ErrorBody;
use protocol::ids::{LinkId, TransactionId, WorkerId};
use std::collections::VecDeque;

/// What a machine lets others know.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A peer did what it may not: say so and close its link.
    Refuse {
        /// The peer's link.
        link: LinkId,
        /// What is wrong.
        error: ErrorBody,
    },
    /// As `Refuse`, for a token that was not proved.
    RefuseLogin {
        /// The link.
        link: LinkId,
        /// What the peer is told.
        error: ErrorBody,
        /// What the fact says besides: the peer is not told whether the token exists.
        detail: String,
    },
    /// A worker was silent for too long.
    SilentWorker {
        /// The worker.
        worker: WorkerKey,
        /// How long it was; goes on after its name.
        why: String,
    },
    /// A host has answered no ping for a while.
    SilentHost {
        /// The host.
        host: HostKey,
    },
    /// A link is read again: its silence counts from now on.
    Resumed {
        /// The link.
        link: LinkId,
    },
    /// A worker that is being drained has nothing more to reply to that anybody waits for.
    Emptied {
        /// The configured or self-started worker.
        worker: WorkerKey,
        /// It still has a request whose time is over.
        is_overdue: bool,
    },
    /// A worker is busy with one request for longer than `kill_after_ms`.
    Overlong {
        /// The configured or self-started worker.
        worker: WorkerKey,
        /// With what, and for how long; goes on after the worker's name.
        what: String,
    },
    /// A worker may be given requests from now on, or no more.
    Available {
        /// The configured or self-started worker.
        worker: WorkerKey,
        /// It may.
        is_available: bool,
    },
    /// More requests wait for a service than are given to workers in one step.
    Serve {
        /// The service.
        service: ServiceKey,
    },
    /// Work was begun that concerns many.
    Work,
    /// Workers of a host that is up are to be started.
    Launch {
        /// Those that are down.
        workers: VecDeque<WorkerId>,
    },
    /// `Emptied` is to follow when a worker has nothing more to reply to.
    Drain {
        /// The configured or self-started worker.
        worker: WorkerKey,
    },
    /// A worker is to end: it is told so, and its connection shut for writing.
    AskToEnd {
        /// The configured or self-started worker.
        worker: WorkerKey,
    },
    /// The connection of a worker is to be closed, if it has one, and is lost.
    Disconnect {
        /// The configured or self-started worker.
        worker: WorkerKey,
        /// How that counts for its requests.
        how: Close,
        /// Goes on after the worker's name.
        why: String,
    },
    /// A worker that is logged in is none of ours: say so and close its link.
    RefuseWorker {
        /// The configured or self-started worker.
        worker: WorkerKey,
        /// What is wrong.
        error: ErrorBody,
    },
    /// A worker is to be removed everywhere.
    Forget {
        /// The configured or self-started worker.
        worker: WorkerKey,
    },
    /// The link of a host is to be closed.
    CloseLink {
        /// The link.
        link: LinkId,
    },
    /// A link is to be dropped for a fault.
    DropLink {
        /// The link.
        link: LinkId,
        /// Which fault; goes on after the name of who is there.
        why: String,
    },
    /// The link to a host is gone.
    HostGone {
        /// Name of the host; it may be deleted by now.
        host: HostKey,
    },
    /// A request was set aside; its sender is still to be named.
    Poisoned {
        /// Which it is.
        transaction: TransactionId,
    },
}

/// The effects of a step that are still to be handed on, oldest first.
#[derive(Debug, Default)]
pub(crate) struct Effects(VecDeque<Effect>);

impl Effects {
    /// Adds an effect behind the others.
    pub(crate) fn push(&mut self, effect: Effect) {
        self.0.push_back(effect);
    }

    /// Whether there is nothing to hand on.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes out the oldest one.
    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }
}
