//! Frames of clients and workers about topics: who may subscribe and publish is decided here, what
//! follows by the machine `topics`.

use super::context::context;
use super::hub::Engine;
use super::sessions::connection::End;
use bytes::Bytes;
use protocol::bodies::Subscribe;
use protocol::{ErrorBody, ErrorCode, Header, LinkId, Rights};

/// Whether a link may send such a frame now: a client or worker that is logged in. Others are
/// refused.
pub(crate) fn is_logged_in(hub: &mut Engine, link: LinkId, kind: &str) -> bool {
    match hub.sessions.end(link) {
        Some(End::Client(_) | End::Worker(_)) => true,
        None => false,
        Some(End::Free | End::NewClient | End::NewWorker | End::Host(_)) => {
            let text = format!("a {kind} came before the login");
            hub.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text));
            false
        }
    }
}

/// The rights of a client or worker about topics. A worker that execd started is trusted as much as
/// anybody is without tokens.
pub(crate) fn rights_at(hub: &Engine, link: LinkId) -> Option<&Rights> {
    let connection = hub.sessions.connection(link)?;
    let access = hub.sessions.access();
    Some(match connection.end {
        End::Worker(key) if !hub.supervision.worker(key).is_self_started => access.open(),
        _ => access.rights_of(&connection.peer),
    })
}

/// A client or worker subscribes.
pub(crate) fn on_subscribe(hub: &mut Engine, link: LinkId, subscribe: Subscribe) {
    hub.heard(link);
    if is_logged_in(hub, link, "subscribe") {
        hub.topics.subscribe(link, subscribe, context!(hub));
    }
}

/// A client or worker ends a subscription.
pub(crate) fn on_unsubscribe(hub: &mut Engine, link: LinkId, subscription: u32) {
    hub.heard(link);
    if is_logged_in(hub, link, "unsubscribe") {
        hub.topics.unsubscribe(link, subscription, context!(hub));
    }
}

/// A client or worker publishes.
pub(crate) fn on_publish(hub: &mut Engine, link: LinkId, head: &Header, body: Bytes) {
    hub.heard(link);
    if is_logged_in(hub, link, "publish") {
        hub.topics.publish(link, head, body, context!(hub));
    }
}
