//! The command `requests`: the requests under way, from whom they are and who has them.

use super::cells::{number, text};
use super::names;
use super::open_listing::{ListedRequests, Order};
use crate::engine::dispatch::stage::Stage;
use crate::engine::dispatch::transaction::Transaction;
use crate::engine::hub::Engine;
use crate::engine::keys::TransactionKey;
use protocol::op::spec::RequestsOf;
use protocol::{OpError, TransactionId, Value};
use std::cmp::Reverse;

/// The requests that a command asks for: those with workers first, each by arrival.
///
/// # Errors
/// There is no such service, client or worker.
pub(crate) fn chosen(hub: &Engine, of: &RequestsOf) -> Result<ListedRequests, OpError> {
    let mut found = ListedRequests::default();
    match of {
        RequestsOf::All => found.next = Some(0),
        RequestsOf::Service(name) => {
            found.next = Some(0);
            found.service = Some(names::plain_service(hub, name)?);
        }
        RequestsOf::Client(id) => {
            let client = names::client_named(hub, *id)?;
            let keys = hub.dispatch.caller(client).in_flight.keys();
            found.heap = keys.filter_map(|key| entry(hub, key)).collect();
        }
        RequestsOf::Worker(id) => {
            let keys = hub.dispatch.with_worker(names::worker_named(hub, *id)?);
            found.heap = keys.filter_map(|key| entry(hub, key)).collect();
        }
    }
    if let Some(service) = found.service.filter(|&service| hub.dispatch.has_few(service)) {
        // Those of other services are not looked at.
        let queue = hub.dispatch.waiting(service).chain(hub.dispatch.blocked(service));
        let waiting = queue.filter_map(|(key, _)| entry(hub, key));
        let with_workers = hub.dispatch.with_workers(service);
        let with_workers = with_workers.into_iter().filter_map(|key| entry(hub, key));
        found.heap = waiting.chain(with_workers).collect();
        found.next = None;
    }
    Ok(found)
}

/// What a request is sorted by: those with workers first, each by arrival.
pub(super) fn order(_: &Engine, _: TransactionKey, t: &Transaction) -> Option<Order> {
    Some((usize::from(t.stage.waits()), 0, t.id.0))
}

fn entry(
    hub: &Engine,
    key: TransactionKey,
) -> Option<Reverse<(Order, TransactionKey, TransactionId)>> {
    let t = hub.dispatch.transaction(key)?;
    Some(Reverse((order(hub, key, t)?, key, t.id)))
}

/// One request.
pub(crate) fn request_row(hub: &Engine, t: &Transaction) -> Vec<Value> {
    let place = match t.stage {
        Stage::Waiting => "queue",
        Stage::Blocked => "blocked",
        Stage::Held(_) | Stage::HeldEnded(_) => "held",
        Stage::Bound(_) => "worker",
        Stage::Parked(_) => "parked",
        Stage::ParkedEnded(_) => "unheard",
        Stage::Ended(_) if t.deadline > hub.now => "unheard",
        Stage::Ended(_) | Stage::Lost | Stage::Gone => "overdue",
    };
    let runs = matches!(t.stage, Stage::Bound(_) | Stage::Parked(_) | Stage::Ended(_));
    let client = t.client.map(|key| hub.sessions.client(key));
    let from = client.map(|client| format!("{} pid {}", client.loghost, client.hostpid));
    let worker = t.stage.worker().map(|key| hub.supervision.worker(key));
    vec![
        text(&hub.catalog[t.service].name),
        number(t.id.0),
        client.map_or(Value::None, |client| number(client.id.0)),
        number(t.priority),
        Value::Word(place),
        worker.map_or(Value::None, |worker| number(worker.id.0)),
        worker.map_or(Value::None, |worker| Value::maybe(worker.run.pid)),
        Value::Micros(hub.now.since(t.arrived).0),
        if runs { Value::Micros(hub.now.since(t.dispatched).0) } else { Value::None },
        if t.has_deadline() { Value::Micros(t.deadline.since(hub.now).0) } else { Value::None },
        number(t.attempt),
        number(t.received),
        number(t.replied),
        from.map_or(Value::None, text),
    ]
}
