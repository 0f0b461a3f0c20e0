//! What is kept of the outlook of workers and services (`outlook`): whether a worker takes requests
//! now or later.

use crate::engine::no_worker::NoWorker;
use protocol::{HostName, Tick, WorkerId};

/// Whether a worker takes requests, or may do so later without an operator's help.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Outlook {
    /// It does, or may.
    MayServe,
    /// It has failed.
    Failed,
    /// It is stopped, or was not started yet.
    #[default]
    Stopped,
    /// Nothing can be started on its host.
    NoHost,
    /// Its host is drained.
    Drained,
}

/// The same of a service: how many of its workers have which outlook. Those that are in no count
/// are stopped.
#[derive(Debug, Default)]
pub(super) struct ServiceOutlook {
    /// Those that may serve.
    pub(super) serving: usize,
    /// Those that have failed.
    pub(super) failed: usize,
    /// Those on whose host nothing can be started.
    pub(super) cannot_start: usize,
    /// Those whose host is drained.
    pub(super) drained: usize,
    /// The host of the one that came to that last.
    pub(super) drained_host: Option<HostName>,
    /// The worker that failed last, and why.
    pub(super) last_failure: Option<(WorkerId, String)>,
    /// It takes workers that start themselves (`selfstart`), as of its last configuration.
    pub(super) takes_self_started: bool,
    /// Until when a worker that starts itself is awaited; `None` = none is.
    pub(super) awaited_until: Option<Tick>,
    /// What `dispatch` was told last.
    pub(super) no_worker: Option<NoWorker>,
}

impl ServiceOutlook {
    const fn count(&mut self, outlook: Outlook) -> Option<&mut usize> {
        match outlook {
            Outlook::MayServe => Some(&mut self.serving),
            Outlook::Failed => Some(&mut self.failed),
            Outlook::NoHost => Some(&mut self.cannot_start),
            Outlook::Drained => Some(&mut self.drained),
            Outlook::Stopped => None,
        }
    }

    /// The outlook of one of its workers changed.
    pub(super) fn change(&mut self, before: Outlook, after: Outlook) {
        if let Some(count) = self.count(before) {
            *count -= 1;
        }
        if let Some(count) = self.count(after) {
            *count += 1;
        }
    }
}
