//! Which settings of a service exclude each other, by what its workers are: workers that always run,
//! workers on demand, or programs (`protocol=none`).

use crate::engine::hub::Engine;
use crate::engine::keys::ServiceKey;
use crate::engine::operator::result::refused;
use protocol::op::spec::ServiceChange;
use protocol::{OpError, ServiceName, ServiceSetting};

/// Refuses changes of a service that make no sense together, or not now.
pub(super) fn check(
    hub: &Engine,
    (name, known): (&ServiceName, Option<ServiceKey>),
    changes: &[ServiceChange],
) -> Result<(), OpError> {
    let service = known.map(|key| &hub.catalog[key]);
    let before = service.map(|service| service.settings.clone()).unwrap_or_default();
    let mut topic = service.is_some_and(|service| service.topic.is_some());
    let mut settings = before.clone();
    for change in changes {
        match change {
            ServiceChange::Number(setting, value) => settings.set(*setting, *value),
            ServiceChange::Topic(pattern) => topic = pattern.is_some(),
            ServiceChange::Worker(_) => {}
        }
    }
    let protocol = settings.get(ServiceSetting::Protocol);
    if let Some(key) = known.filter(|_| protocol != before.get(ServiceSetting::Protocol)) {
        hub.supervision.may_change_protocol(key, &hub.catalog).map_err(refused)?;
    }
    if protocol == 0 {
        return Ok(());
    }
    let wrong = if settings.get(ServiceSetting::Start) == 1 {
        "start=demand: nothing can ask for them"
    } else if topic {
        "topic: they take no requests"
    } else if settings.get(ServiceSetting::SelfStart) == 1 {
        "selfstart=1: they log in nowhere"
    } else if settings.get(ServiceSetting::RecycleRequests) > 0 {
        "recycle_requests: they take no requests; recycle_age_ms and recycle_memory hold for them"
    } else {
        return Ok(());
    };
    Err(refused(format!(
        "service '{name}' can't have both protocol=none, whose workers are any programs, and {wrong}"
    )))
}
