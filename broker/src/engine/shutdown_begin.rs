//! How each end of the broker begins: it is recorded, nothing new begins, and what waits fails.
//! `shutdown` and `keep` have what follows.

use super::context::context;
use super::fact::{About, FactKind};
use super::hub::Engine;
use super::timers::Timer;
use super::work::Work;
use crate::engine::shutdown_step::Shutdown;
use protocol::{ErrorBody, ErrorCode};

/// Milliseconds that a host may take, after KILL, to report that all have ended.
pub(super) const MARGIN_MS: u64 = 1000;

/// Begins a shutdown with its first step.
pub(super) fn begin(hub: &mut Engine, shutdown: Shutdown, why: &str) {
    hub.record(FactKind::BrokerShutdown, About::default(), format!("the broker ends: {why}"));
    let until = shutdown.until;
    hub.shutdown = Some(shutdown);
    let error = ErrorBody::new(ErrorCode::ShuttingDown, "the broker is shutting down");
    let services = hub.catalog.all_keys().into();
    hub.works.begin(Work::FailWaiting { services, error }, &mut hub.effects);
    for key in hub.supervision.worker_keys() {
        hub.supervision.update_available(key, context!(hub));
    }
    hub.timers.add(until, Timer::End);
    // The disk may work again.
    hub.store.try_again();
}
