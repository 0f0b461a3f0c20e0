//! Which facts an operator wants to see: those that pass all filters of `listevents` or `watch`.

use super::fact::{Fact, FactKind};
use protocol::op::events::EventFilter;
use protocol::{ClientId, HostName, ServiceName, Wall, WorkerId};

/// What is absent or empty excludes no fact.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct FactFilter {
    kinds: Vec<FactKind>,
    service: Option<ServiceName>,
    worker: Option<WorkerId>,
    client: Option<ClientId>,
    host: Option<HostName>,
    /// In milliseconds since 1970.
    since_ms: u64,
}

impl FactFilter {
    /// What a command asks for at `now`; `kinds` are those that it names.
    pub(crate) fn of(filter: &EventFilter, kinds: Vec<FactKind>, now: Wall) -> Self {
        Self {
            kinds,
            service: filter.service.clone(),
            worker: filter.worker,
            client: filter.client,
            host: filter.host.clone(),
            since_ms: filter.since.map_or(0, |since| since.epoch_ms(now)),
        }
    }

    /// Whether a fact is wanted.
    pub(crate) fn passes(&self, fact: &Fact) -> bool {
        let about = &fact.about;
        (self.kinds.is_empty() || self.kinds.contains(&fact.kind))
            && (self.service.is_none() || self.service == about.service)
            && (self.worker.is_none() || self.worker == about.worker)
            && (self.client.is_none() || self.client == about.client)
            && (self.host.is_none() || self.host == about.host)
            && fact.at.epoch_ms >= self.since_ms
    }
}
