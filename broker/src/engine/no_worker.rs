//! Why no worker can come for the requests of a service. `supervision` finds it out and `dispatch`
//! refuses them; the words are made only for those that are refused.

use super::counted::counted;
use protocol::{HostName, ServiceName, WorkerId};

/// How the workers of a service are, none of which can come.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct NoWorker {
    /// How many there are.
    pub(crate) all: usize,
    /// Those that have failed.
    pub(crate) failed: usize,
    /// Those on whose host nothing can be started.
    pub(crate) cannot_start: usize,
    /// Those whose host is drained; the others are stopped.
    pub(crate) drained: usize,
    /// The host of one of them, if there is one.
    pub(crate) drained_host: Option<HostName>,
    /// The worker that failed last, and why, if one has failed.
    pub(crate) last_failure: Option<(WorkerId, String)>,
    /// The service takes workers that start themselves.
    pub(crate) takes_self_started: bool,
}

impl NoWorker {
    /// The same in words for a client of the service: which workers, why, and what helps.
    pub(crate) fn text(&self, name: &ServiceName) -> String {
        let Self { all, failed, cannot_start, drained, .. } = *self;
        let stopped = all - failed - cannot_start - drained;
        let mut whys = Vec::new();
        if failed > 0 {
            let last = self
                .last_failure
                .as_ref()
                .map_or_else(String::new, |(id, why)| format!(" (last: worker {id}: {why})"));
            whys.push(format!("{} failed{last}", counted(failed, "worker")));
        }
        if cannot_start > 0 {
            let count = counted(cannot_start, "worker");
            whys.push(format!("nothing can be started on the host of {count} ('hosts' says why)"));
        }
        if let Some(host) = &self.drained_host {
            let count = counted(drained, "worker");
            whys.push(format!("{count} on a drained host ('undrain host {host}' starts them)"));
        }
        if stopped > 0 {
            whys.push(match stopped {
                1 if all == 1 => "its only worker is stopped".to_owned(),
                1 => "1 worker is stopped".to_owned(),
                _ if stopped == all => format!("all {stopped} workers are stopped"),
                _ => format!("{stopped} workers are stopped"),
            });
        }
        let cure = if failed > 0 {
            format!("'start {name}' tries again")
        } else if stopped > 0 {
            format!("'start {name}' starts what is stopped")
        } else if drained > 0 {
            "undrain the host, or configure a worker on another one".to_owned()
        } else if self.takes_self_started {
            whys.push("none that starts itself is there".to_owned());
            "start one".to_owned()
        } else if all == 0 {
            whys.push("no worker is configured".to_owned());
            format!("'config worker {name} HOST PROGRAM' adds one")
        } else {
            "mend the host".to_owned()
        };
        format!("service '{name}' has no worker: {}; {cure}", whys.join(", "))
    }
}
