//! How far the end of the broker is.

use super::keys::{HostKey, WorkerKey};
use protocol::time::Tick;

/// How far the shutdown is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shutdown {
    pub(crate) status: u8,
    pub(crate) step: Step,
    /// When the present step is over at the latest.
    pub(crate) until: Tick,
    /// Whether workers and hosts stay for the next broker (`keep`).
    pub(crate) keeps: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Busy workers may finish their requests.
    Draining,
    /// Workers stay for the next broker, except these, which end with this one.
    KeepingOthers(Vec<WorkerKey>),
    /// Hosts end their processes; these have not reported that they are done.
    Stopping(Vec<HostKey>),
    /// Nothing runs any more. Who had the last answers may send the next request, which is refused
    /// until no client is left, or for a moment (`REFUSING_MS`).
    Refusing {
        /// When the time for storing is over at the latest.
        stored_until: Tick,
    },
    /// A change that was made is stored before the end.
    Storing,
    /// `Action::End` was given.
    Done,
}
