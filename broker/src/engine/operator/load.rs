//! The command `load`: how much each service has to do, and what became of its requests. How long
//! requests take is shown by `latency`, in `show`.

use crate::engine::hub::Engine;
use crate::engine::keys::ServiceKey;
use crate::engine::operator::cells::{column, number, table, text};
use crate::engine::operator::open_listing::Rows;
use protocol::{Column, ErrorCode, OpReply, Value};

fn columns() -> Vec<Column> {
    vec![
        column("service", "service", 12),
        column("clients", "clients", 8),
        column("waiting", "waiting", 8),
        column("idle", "idle", 5),
        column("busy", "busy", 5),
        column("answered", "answered", 9),
        column("failed", "failed", 7),
        column("overloaded", "overloaded", 10),
        column("retried", "retried", 7),
        column("denied", "denied", 7),
        column("retry budget used", "retry_budget_used", 17),
        column("retry budget", "retry_budget", 12),
    ]
}

/// `load`: one row for each service, or for one.
pub(crate) fn load_table(rows: Rows) -> OpReply {
    table("load", columns(), rows)
}

pub(crate) fn load_row(hub: &Engine, key: ServiceKey) -> Vec<Value> {
    let (service, queue) = (&hub.catalog[key], hub.dispatch.queue(key));
    let figures = &queue.figures;
    let overloaded = figures.failed.get(&ErrorCode::Overloaded).copied().unwrap_or(0);
    let level = queue.retry_budget_level(&service.settings, hub.now);
    vec![
        text(&service.name),
        number(queue.callers),
        number(queue.queue.count()),
        number(queue.idle.len()),
        number(queue.busy),
        number(figures.completed),
        number(figures.failed.values().sum::<u64>()),
        number(overloaded),
        number(figures.retried),
        number(figures.denied),
        number(level.used),
        number(level.most),
    ]
}
