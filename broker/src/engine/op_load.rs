//! The command `load`: how much each service has to do, and what became of its requests. How long
//! requests take is shown by `latency`, in `op_show`.

use super::Engine;
use super::keys::ServiceKey;
use super::op_read::{column, number, table, text};
use super::op_run::OpResult;
use super::workers::WorkerList;
use protocol::errors::ErrorCode;
use protocol::names::ServiceName;
use protocol::op::reply::{Column, Value};

/// The columns of the table; `load_row` has their values.
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

impl Engine {
    /// `load`: one row for each service, or for one.
    pub(crate) fn show_load(&self, service: Option<&ServiceName>) -> OpResult {
        let keys = match service {
            Some(name) => vec![self.plain_service(name)?],
            None => {
                self.registry.keys().into_iter().filter(|&key| key != self.op_service).collect()
            }
        };
        let rows = keys.into_iter().map(|key| self.load_row(key)).collect();
        Ok(table("load", columns(), rows))
    }

    /// The row of one service.
    fn load_row(&self, key: ServiceKey) -> Vec<Value> {
        let service = &self.registry[key];
        let figures = &service.figures;
        let busy =
            self.workers.by_id().filter(|(_, w)| w.service == key && w.list == WorkerList::Busy);
        let overloaded = figures.failed.get(&ErrorCode::Overloaded).copied().unwrap_or(0);
        let level = service.retry_budget_level(self.now);
        vec![
            text(&service.name),
            number(service.clients),
            number(service.queue.count()),
            number(service.idle.len()),
            number(busy.count()),
            number(figures.completed),
            number(figures.failed.values().sum::<u64>()),
            number(overloaded),
            number(figures.retried),
            number(figures.denied),
            number(level.used),
            number(level.most),
        ]
    }
}
