//! Frames of clients and workers about instances: who they come from is found out here, what
//! follows is decided by the machine `instances`.

use super::context::context;
use super::hub::Engine;
use super::instances::announced::Announcer;
use super::topic_frames::is_logged_in;
use core::net::SocketAddr;
use protocol::LinkId;
use protocol::bodies::{Announce, Beat, StateChange, Withdraw};

/// What the broker's own machine is called.
const THIS_MACHINE: &str = "localhost";

/// A program announces an instance.
pub(crate) fn on_announce(hub: &mut Engine, link: LinkId, announce: Announce) {
    hub.heard(link);
    if !is_logged_in(hub, link, "announce") {
        return;
    }
    if let Some(who) = announcer(hub, link) {
        hub.instances.announce(who, announce, context!(hub));
    }
}

/// Who announces at a link. All that is on the machine of the broker is on one machine, however it
/// connects.
fn announcer(hub: &Engine, link: LinkId) -> Option<Announcer> {
    let peer = &hub.sessions.connection(link)?.peer;
    let machine = match peer.address.parse::<SocketAddr>() {
        Ok(address) if peer.is_remote => address.ip().to_string(),
        Ok(_) | Err(_) => THIS_MACHINE.to_owned(),
    };
    Some(Announcer { link, machine: machine.into(), uid: peer.uid, token: peer.token.clone() })
}

/// `Timer::Instances`: looks which instances are timed out.
pub(crate) fn on_due(hub: &mut Engine) {
    let flow = hub.dispatch.flow();
    hub.instances.on_due(|link| flow.is_unread(link), context!(hub));
}

/// A link is read again: its silence counts from now on.
pub(crate) fn on_resumed(hub: &mut Engine, link: LinkId) {
    hub.sessions.read_again(link);
    hub.instances.resumed(link, hub.now);
}

/// A program says that an instance has another state.
pub(crate) fn on_state_change(hub: &mut Engine, link: LinkId, change: StateChange) {
    hub.heard(link);
    if is_logged_in(hub, link, "state-change") {
        hub.instances.state_change(link, change, context!(hub));
    }
}

/// A program says that its instances go on.
pub(crate) fn on_beat(hub: &mut Engine, link: LinkId, beat: &Beat) {
    hub.heard(link);
    if is_logged_in(hub, link, "beat") {
        hub.instances.beat(link, beat, context!(hub));
    }
}

/// A program ends an instance.
pub(crate) fn on_withdraw(hub: &mut Engine, link: LinkId, withdraw: Withdraw) {
    hub.heard(link);
    if is_logged_in(hub, link, "withdraw") {
        hub.instances.withdraw(link, withdraw, context!(hub));
    }
}
