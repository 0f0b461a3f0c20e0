//! `drain host` and `undrain host`: whether anything is started on a host.

use super::cells::text;
use super::lines::unless;
use super::names::host_named;
use crate::engine::context::context;
use crate::engine::counted::counted;
use crate::engine::hub::Engine;
use crate::engine::operator::result::OpResult;
use crate::engine::origin::Origin;
use protocol::{HostName, OpReply, Value};

/// Drains a host, or ends that.
pub(crate) fn drain(hub: &mut Engine, origin: &Origin, name: &HostName, on: bool) -> OpResult {
    let key = host_named(hub, name)?;
    let (verb, done) = if on { ("drain", "drained") } else { ("undrain", "undrained") };
    let command = format!("{verb} host {name}");
    let is_same = hub.supervision.is_drained(name) == on;
    hub.changed(origin, command.clone(), unless(is_same, command));
    if !is_same {
        hub.supervision.set_drained(key, on, context!(hub));
    }
    let workers = hub.supervision.workers_on(name).filter(|(_, worker)| worker.is_configured());
    let workers: Vec<u64> = workers.map(|(_, worker)| worker.id.0.into()).collect();
    let line = format!("{done} host {name}, on which {} configured", are(workers.len()));
    let fields = vec![("host", text(name)), ("worker_ids", Value::Numbers(workers))];
    Ok(OpReply::line(done, line, fields))
}

/// How many workers, with the verb.
fn are(count: usize) -> String {
    format!("{} {}", counted(count, "worker"), if count == 1 { "is" } else { "are" })
}
