//! The command `load`: how much each service has to do, and what became of its requests. How long
//! requests take is shown by `latency`, in `show`.

use crate::engine::hub::Engine;
use crate::engine::keys::ServiceKey;
use crate::engine::operator::cells::{number, text};
use protocol::{ErrorCode, Value};

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
