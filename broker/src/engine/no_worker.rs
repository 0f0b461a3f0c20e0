//! Why no worker can come for the requests of a service. `supervision` finds it out and `dispatch`
//! refuses them; the words are made only for those that are refused.

use super::counted::counted;
use protocol::{ErrorBody, ErrorCode, HostName, ServiceName, Tick, WorkerId};

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
    /// When one of those that have failed may be tried again, if the service is started on demand.
    pub(crate) again_at: Option<Tick>,
    /// Its workers are programs, which take no requests.
    pub(crate) is_program: bool,
}

impl NoWorker {
    /// The error for a client of the service.
    pub(crate) fn error(&self, name: &ServiceName, now: Tick) -> ErrorBody {
        let wait_ms = self.again_at.map(|at| at.since(now).as_millis().max(1));
        let mut text = self.text(name);
        if let Some(wait_ms) = wait_ms {
            text += &format!(" in {wait_ms} ms");
        }
        let retry_after_ms = wait_ms.map_or(0, |ms| u32::try_from(ms).unwrap_or(u32::MAX));
        ErrorBody { retry_after_ms, ..ErrorBody::new(ErrorCode::NoWorker, text) }
    }

    /// The same in words for a client of the service: which workers, why, and what helps.
    fn text(&self, name: &ServiceName) -> String {
        if self.is_program {
            return format!(
                "'{name}' is a program, not a service (protocol=none), and takes no requests"
            );
        }
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
        let cure = if self.again_at.is_some() {
            "a request starts it again".to_owned()
        } else if failed > 0 {
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
