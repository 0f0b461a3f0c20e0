//! Effects: what one machine must let another one know. A machine names no other: it pushes an
//! effect, and the hub hands it on before the step ends.

use super::death::Death;
use super::fact::Fact;
use super::input::Close;
use super::keys::{HostKey, ServiceKey, WorkerKey};
use super::no_worker::NoWorker;
use super::supervision::rollout::Outcome;
use bytes::Bytes;
use protocol::{ErrorBody, LinkId, ServiceName, TransactionId, WorkerId};
use std::collections::VecDeque;

/// What a machine lets others know.
#[derive(Debug)]
pub(crate) enum Effect {
    /// A peer did what it may not: say so and close its link.
    Refuse { link: LinkId, error: ErrorBody },
    /// As `Refuse`, for a token that was not proved.
    RefuseLogin {
        link: LinkId,
        /// What the peer is told.
        error: ErrorBody,
        /// What the fact says besides: the peer is not told whether the token exists.
        detail: String,
    },
    /// A worker was silent for too long.
    SilentWorker {
        worker: WorkerKey,
        /// How long it was; goes on after its name.
        why: String,
    },
    /// A host has answered no ping for a while.
    SilentHost { host: HostKey },
    /// A link is read again: its silence counts from now on.
    Resumed { link: LinkId },
    /// A worker that is being drained has nothing more to reply to that anybody waits for.
    Emptied {
        worker: WorkerKey,
        /// It still has a request whose time is over.
        is_overdue: bool,
    },
    /// A worker is busy with one request for longer than `kill_after_ms`.
    Overlong {
        worker: WorkerKey,
        /// With what, and for how long; goes on after the worker's name.
        what: String,
    },
    /// A worker may be given requests from now on, or no more.
    Available { worker: WorkerKey, is_available: bool },
    /// A worker may come that takes the requests of a service, or none can come any more.
    Outlook {
        service: ServiceKey,
        /// Why none can, and what helps; `None` = one may.
        no_worker: Option<NoWorker>,
    },
    /// A request waits for a service whose workers are down until they are asked for, or one of its
    /// processes runs already.
    Asked { service: ServiceKey },
    /// The workers of a service are down until they are asked for, or are not any more.
    Demand { service: ServiceKey, is_down: bool },
    /// More requests wait for a service than are given to workers in one step.
    Serve { service: ServiceKey },
    /// Work was begun that concerns many.
    Work,
    /// The process of a worker ended unexpectedly.
    Died { worker: WorkerKey, death: Box<Death> },
    /// The process of a worker has ended, however.
    Ended { worker: WorkerKey },
    /// Workers of a host that is up are to be started.
    Launch {
        /// Those that are down.
        workers: VecDeque<WorkerId>,
    },
    /// Workers are to end after the requests that they have.
    Retire {
        /// All of them.
        workers: VecDeque<WorkerId>,
    },
    /// `Emptied` is to follow when a worker has nothing more to reply to.
    Drain { worker: WorkerKey },
    /// A worker is to end: it is told so, and its connection shut for writing.
    AskToEnd { worker: WorkerKey },
    /// The connection of a worker is to be closed, if it has one, and is lost.
    Disconnect {
        worker: WorkerKey,
        /// How that counts for its requests.
        how: Close,
        /// Goes on after the worker's name.
        why: String,
    },
    /// A worker that is logged in is none of ours: say so and close its link.
    RefuseWorker { worker: WorkerKey, error: ErrorBody },
    /// A worker is to be removed everywhere.
    Forget { worker: WorkerKey },
    /// A client that sends nothing more has all its answers.
    Answered { link: LinkId },
    /// The link of a host is to be closed.
    CloseLink { link: LinkId },
    /// A link is to be dropped for a fault.
    DropLink {
        link: LinkId,
        /// Which fault; goes on after the name of who is there.
        why: String,
    },
    /// The link to a host is gone.
    HostGone {
        /// The host; it may be deleted by now.
        host: HostKey,
    },
    /// A request was set aside; its sender is still to be named.
    Poisoned { transaction: TransactionId },
    /// What became of requests is kept; their senders are still to be named.
    Traced,
    /// A fact was recorded that is to be published.
    Fact(Box<Fact>),
    /// Workers of a service are replaced, or that failed.
    Replaced { service: ServiceKey, outcome: Box<Outcome> },
    /// Workers of a service that are replaced, or stand in, are in another state.
    Roll { service: ServiceKey },
    /// The process of a worker has more memory than its service allows.
    Memory { worker: WorkerKey, bytes: u64 },
    /// The process of a worker is in another state.
    Turned { worker: WorkerKey },
    /// A group has another state: the broker publishes it, with how many members are expected.
    GroupTurned {
        group: ServiceName,
        /// How many of its members are named.
        members: usize,
        topic: String,
        /// The other lines of the payload.
        lines: Vec<(&'static str, String)>,
    },
    /// More of what a link sent is under way than may be: it is read no further.
    StopReading { link: LinkId },
    /// No more.
    ResumeReading { link: LinkId },
    /// A message is to be a request of a service (its setting `topic`).
    Enqueue { service: ServiceKey, body: Bytes },
    /// The broker itself publishes a message.
    Publish {
        topic: String,
        /// Those of its payload, key and value.
        lines: Vec<(&'static str, String)>,
        /// The link that caused it, which is held as a publisher is.
        source: Option<LinkId>,
    },
}

impl Effect {
    /// The worker that it is about.
    fn worker(&self) -> Option<WorkerKey> {
        match *self {
            Self::SilentWorker { worker, .. }
            | Self::Emptied { worker, .. }
            | Self::Overlong { worker, .. }
            | Self::Died { worker, .. }
            | Self::Ended { worker }
            | Self::Available { worker, .. }
            | Self::Drain { worker }
            | Self::AskToEnd { worker }
            | Self::Disconnect { worker, .. }
            | Self::RefuseWorker { worker, .. }
            | Self::Turned { worker }
            | Self::Memory { worker, .. }
            | Self::Forget { worker } => Some(worker),
            Self::Refuse { .. }
            | Self::RefuseLogin { .. }
            | Self::SilentHost { .. }
            | Self::Resumed { .. }
            | Self::CloseLink { .. }
            | Self::Answered { .. }
            | Self::DropLink { .. }
            | Self::HostGone { .. }
            | Self::Outlook { .. }
            | Self::Asked { .. }
            | Self::Demand { .. }
            | Self::Serve { .. }
            | Self::Work
            | Self::Launch { .. }
            | Self::Retire { .. }
            | Self::Poisoned { .. }
            | Self::Replaced { .. }
            | Self::Roll { .. }
            | Self::Enqueue { .. }
            | Self::Fact(_)
            | Self::GroupTurned { .. }
            | Self::Publish { .. }
            | Self::StopReading { .. }
            | Self::ResumeReading { .. }
            | Self::Traced => None,
        }
    }
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

    /// Drops what is still to be handed on about a worker, which is being removed: its key means
    /// nothing afterwards.
    pub(crate) fn forget(&mut self, key: WorkerKey) {
        self.0.retain(|effect| effect.worker() != Some(key));
    }

    /// Takes out the oldest one.
    pub(crate) fn pop(&mut self) -> Option<Effect> {
        self.0.pop_front()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::keys::Key;

    #[test]
    fn nothing_is_handed_on_about_a_worker_that_was_removed() {
        let (gone, other) = (WorkerKey::of(0), WorkerKey::of(1));
        let mut effects = Effects::default();
        for worker in [gone, other] {
            effects.push(Effect::Drain { worker });
            effects.push(Effect::Disconnect { worker, how: Close::Reset, why: String::new() });
            effects.push(Effect::Forget { worker });
        }
        effects.push(Effect::HostGone { host: HostKey::of(0) });
        effects.forget(gone);
        let left: Vec<Option<WorkerKey>> =
            std::iter::from_fn(|| effects.pop()).map(|effect| effect.worker()).collect();
        assert_eq!(left, [Some(other), Some(other), Some(other), None]);
    }
}
