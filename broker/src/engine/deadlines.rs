//! Ends the requests whose time is over. What is late is ended before any input is looked at, so
//! that no worker is given a request that nobody waits for any more (docs/decisions/0019).

use super::context::context;
use super::dispatch::stage::Stage;
use super::hub::Engine;
use super::input::Input;
use super::keys::{ServiceKey, TransactionKey};
use super::operator::read;
use super::sessions::connection::End;
use std::collections::BTreeSet;

/// Ends what is late when an input comes.
pub(super) fn before(hub: &mut Engine, input: &Input) {
    on_due(hub);
    if hub.dispatch.is_due(hub.now) {
        expire_first(hub, input);
    }
}

/// Ends the transactions whose deadline has passed; if they are many, the others follow in the next
/// steps.
pub(super) fn on_due(hub: &mut Engine) {
    let due = hub.dispatch.take_expired(context!(hub));
    let mut services = BTreeSet::new();
    // Those of one service wait for the same reason.
    let mut last: Option<(ServiceKey, Stage, String)> = None;
    for &key in &due {
        let why = match hub.dispatch.waits_for(key) {
            Some((of, stage)) => {
                services.insert(of);
                if last.as_ref().is_none_or(|(s, st, _)| (*s, *st) != (of, stage)) {
                    last = Some((of, stage, read::why_waiting(hub, of, stage)));
                }
                last.as_ref().map_or("", |(.., why)| why.as_str())
            }
            None => "",
        };
        hub.dispatch.expire(key, why, context!(hub));
        hub.settle();
    }
    hub.dispatch.expired(due, services, context!(hub));
}

/// More requests are late than end in one step. What this input is about comes first if it is late
/// itself.
#[cold]
fn expire_first(hub: &mut Engine, input: &Input) {
    let mut late: Vec<TransactionKey> = Vec::new();
    if let Input::Request { link, head, .. } = input {
        let client = hub.sessions.client_at(*link);
        let caller = client.map(|client| hub.dispatch.caller(client));
        late.extend(caller.and_then(|caller| caller.in_flight.get(head.sequence)));
    } else if let Input::Reply { link, .. } = input
        && let Some(End::Worker(worker)) = hub.sessions.end(*link)
    {
        late.extend(hub.dispatch.with_worker(worker));
    }
    for key in late {
        let why = match hub.dispatch.waits_for(key) {
            Some((of, stage)) => read::why_waiting(hub, of, stage),
            None => String::new(),
        };
        hub.dispatch.expire(key, &why, context!(hub));
        hub.settle();
    }
}
