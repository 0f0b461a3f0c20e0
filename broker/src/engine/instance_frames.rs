//! Frames of clients and workers about instances: who they come from is found out here, what
//! follows is decided by the machine `instances`.

use super::context::context;
use super::hub::Engine;
use super::topic_frames::is_logged_in;
use protocol::LinkId;
use protocol::bodies::{Announce, Beat, StateChange, Withdraw};

/// A program announces an instance.
pub(crate) fn on_announce(hub: &mut Engine, link: LinkId, announce: Announce) {
    hub.heard(link);
    if is_logged_in(hub, link, "announce") {
        hub.instances.announce(link, announce, context!(hub));
    }
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
