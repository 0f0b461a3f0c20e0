//! How far the end of the broker is.

use super::keys::HostKey;
use protocol::time::Tick;

/// How far the shutdown is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Shutdown {
    pub(crate) status: u8,
    pub(crate) step: Step,
    /// When the present step is over at the latest.
    pub(crate) until: Tick,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    /// Busy workers may finish their requests.
    Draining,
    /// Hosts end their processes; these have not reported that they are done.
    Stopping(Vec<HostKey>),
    /// `Action::End` was given.
    Done,
}
