//! What stands in the lists of clients, workers and services when they begin.

use super::names;
use super::open_listing::{Listing, ROWS_MAX, ServiceTable};
use super::result::fact_kinds;
use crate::engine::dispatch::seat::WorkerList;
use crate::engine::fact_filter::FactFilter;
use crate::engine::hub::Engine;
use protocol::op::events::EventFilter;
use protocol::{ClientId, FactSeq, OpError, ServiceId, ServiceName, WorkerFilter};
use std::collections::VecDeque;

/// Begins a listing of the clients that are built-in services, or of all others, in the order in
/// which they are served.
pub(super) fn begin_clients(hub: &Engine, is_builtin: bool) -> Listing {
    let all = hub.sessions.clients().filter(|(_, c)| c.id.is_builtin() == is_builtin);
    let all = all.map(|(key, c)| (hub.dispatch.caller(key).priority, c.id));
    let mut all: Vec<_> = all.collect();
    all.sort_unstable();
    let left: VecDeque<ClientId> = all.into_iter().map(|(_, id)| id).collect();
    Listing::Clients { rows: Vec::with_capacity(left.len().min(ROWS_MAX)), left }
}

/// Begins a listing of the workers in the lists that a filter names, by id.
pub(super) fn begin_workers(hub: &Engine, filter: WorkerFilter) -> Listing {
    let is_any = matches!(filter, WorkerFilter::All | WorkerFilter::Builtin);
    let is_meant = |list| is_any || filter == filter_of(list);
    let all = hub.supervision.workers_by(filter == WorkerFilter::Builtin);
    let left = all.filter(|(key, _)| is_meant(hub.dispatch.seat(*key).list));
    let left = left.map(|(_, w)| w.id);
    Listing::Workers { filter, left: left.collect(), rows: Default::default() }
}

/// Begins a listing of services: one, or all.
pub(super) fn begin_services(
    hub: &Engine,
    of: ServiceTable,
    name: Option<&ServiceName>,
) -> Result<Listing, OpError> {
    let left: VecDeque<ServiceId> = match name {
        Some(name) => [hub.catalog[names::plain_service(hub, name)?].id].into(),
        None => {
            let ids = hub.catalog.ids().filter(|(_, key)| *key != hub.catalog.op());
            ids.map(|(id, _)| id).collect()
        }
    };
    Ok(Listing::Services { of, rows: Vec::with_capacity(left.len()), left, without: 0 })
}

/// Begins a listing of the facts that pass a filter, the newest first.
pub(super) fn begin_events(hub: &Engine, filter: &EventFilter) -> Result<Listing, OpError> {
    let count = filter.count.unwrap_or(u64::MAX).try_into().unwrap_or(usize::MAX);
    let known = hub.facts.recent().count();
    let left = if filter.is_empty() { known.min(count) } else { known };
    let kinds = fact_kinds(&filter.kinds)?;
    let filter = Box::new(FactFilter::of(filter, kinds, hub.wall(hub.now)));
    Ok(Listing::Events { left, before: FactSeq(u64::MAX), filter, most: count, lines: Vec::new() })
}

const fn filter_of(list: WorkerList) -> WorkerFilter {
    match list {
        WorkerList::Lazy => WorkerFilter::Lazy,
        WorkerList::Idle => WorkerFilter::Idle,
        WorkerList::Busy => WorkerFilter::Busy,
    }
}
