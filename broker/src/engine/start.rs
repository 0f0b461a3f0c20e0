//! The start of the broker: it listens, its configuration is read, it begins to serve.

use super::builtin_services;
use super::context::context;
use super::fact::{About, FactKind};
use super::heartbeat;
use super::hub::Engine;
use super::input::Listening;
use protocol::names::HostName;

/// The listeners are open. The built-in execd becomes the host `localhost`.
pub(crate) fn on_listening(hub: &mut Engine, listening: Listening) {
    hub.wall_clock.set(hub.now, listening.wall);
    let execd = listening.execd.clone();
    hub.listening = listening;
    if let (Some(address), Ok(name)) = (execd, HostName::new("localhost")) {
        hub.supervision.add_host(&name, address, true, context!(hub));
    }
    heartbeat::start_heartbeat(hub);
}

/// The configuration was read and accepted: hosts are dialled from now on.
pub(crate) fn on_started(hub: &mut Engine) {
    let listening = &hub.listening;
    let text = format!(
        "isectd {} listens: clients on port {}, workers on port {}",
        listening.version, listening.client_port, listening.worker_port
    );
    hub.record(FactKind::BrokerStarted, About::default(), text);
    if let Some(mended) = hub.listening.mended.take() {
        hub.record(FactKind::PersistFailed, About::default(), mended);
    }
    builtin_services::begin(hub);
    hub.is_started = true;
    hub.supervision.await_all_self_started(context!(hub));
    hub.supervision.dial_all(context!(hub));
}
