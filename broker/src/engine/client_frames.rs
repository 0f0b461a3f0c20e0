//! Control frames of a client about its requests: `cancel`, `flush`, and the end of what it sends.

use super::action::Action;
use super::context::context;
use super::hub::Engine;
use super::input::Close;
use super::keys::ClientKey;
use super::sessions::connection::End;
use protocol::{ErrorBody, ErrorCode, LinkId};

/// The client at a link; one that has not logged in is refused.
fn client_at(hub: &mut Engine, link: LinkId, kind: &str) -> Option<ClientKey> {
    match hub.sessions.end(link)? {
        End::Client(key) => Some(key),
        End::Free | End::NewClient | End::NewWorker | End::Worker(_) | End::Host(_) => {
            let text = format!("a {kind} came before the login");
            hub.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text));
            None
        }
    }
}

/// A client gives up a request.
pub(crate) fn on_cancel(hub: &mut Engine, link: LinkId, sequence: u32) {
    hub.heard(link);
    if let Some(key) = client_at(hub, link, "cancel") {
        hub.dispatch.cancel(key, sequence, context!(hub));
    }
}

/// A client wants to know when all that it sent was taken by a worker or refused.
pub(crate) fn on_flush(hub: &mut Engine, link: LinkId, sequence: u32) {
    hub.heard(link);
    if let Some(key) = client_at(hub, link, "flush") {
        hub.dispatch.flush(key, sequence, context!(hub));
    }
}

/// A client sends nothing more, and waits for what is still to be answered.
pub(crate) fn on_half_closed(hub: &mut Engine, link: LinkId) {
    if let Some(End::Client(key)) = hub.sessions.end(link) {
        hub.sessions.forget_heartbeat(key);
        hub.dispatch.half_close(key, context!(hub));
    }
}

/// A client that sends nothing more has all its answers: its connection ends.
pub(crate) fn on_answered(hub: &mut Engine, link: LinkId) {
    if hub.sessions.end(link).is_some() {
        hub.out.push(Action::Close { link });
        hub.link_gone(link, Close::Eof, "closed its side, and has its answers");
    }
}
