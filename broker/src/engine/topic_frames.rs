//! Frames of clients and workers about topics: who may subscribe and publish is decided here, what
//! follows by the machine `topics`.

use super::context::context;
use super::hub::Engine;
use super::sessions::connection::End;
use super::topics::Party;
use super::topics::machine::refuse;
use bytes::Bytes;
use protocol::bodies::Subscribe;
use protocol::messages::{MessageLines, Removed};
use protocol::topics::{OWN_WORD, Pattern};
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

/// Who is at a link.
fn party(hub: &Engine, link: LinkId) -> Option<Party> {
    Some(match hub.sessions.end(link)? {
        End::Client(key) => Party::Client(hub.sessions.client(key).id),
        End::Worker(key) => Party::Worker(hub.supervision.worker(key).id),
        End::Free | End::NewClient | End::NewWorker | End::Host(_) => return None,
    })
}

/// Whether a request of a client has this number.
fn is_under_way(hub: &Engine, link: LinkId, sequence: u32) -> bool {
    match hub.sessions.end(link) {
        Some(End::Client(key)) => hub.dispatch.caller(key).in_flight.get(sequence).is_some(),
        Some(End::Worker(_) | End::Free | End::NewClient | End::NewWorker | End::Host(_))
        | None => false,
    }
}

/// A client or worker subscribes.
pub(crate) fn on_subscribe(hub: &mut Engine, link: LinkId, subscribe: &Subscribe) {
    hub.heard(link);
    if !is_logged_in(hub, link, "subscribe") {
        return;
    }
    let (Some(party), number) = (party(hub, link), subscribe.subscription) else { return };
    match may_subscribe(hub, link, subscribe) {
        Ok(pattern) => {
            publish_facts(hub, &pattern);
            hub.topics.subscribe((link, party), subscribe, pattern, context!(hub));
        }
        Err(error) => refuse(link, number, error, context!(hub)),
    }
}

/// Before a subscription begins: if it is one to topics of the broker, facts are published from now
/// on. Those before were not, and who comes back must be told.
pub(crate) fn publish_facts(hub: &mut Engine, pattern: &Pattern) {
    if pattern.is_own() && !hub.facts.is_published() {
        hub.facts.set_published(true);
        hub.topics.pass_over_own();
    }
}

fn may_subscribe(
    hub: &Engine,
    link: LinkId,
    subscribe: &Subscribe,
) -> Result<Pattern, (ErrorCode, String)> {
    let pattern = Pattern::new(&subscribe.pattern).map_err(|text| (ErrorCode::BadMessage, text))?;
    if !rights_at(hub, link).is_some_and(|rights| rights.may_subscribe(&pattern)) {
        let what = format!("subscribe to '{pattern}'");
        return Err(denied(hub, link, &what, &format!("subscribe:{pattern}")));
    }
    if is_under_way(hub, link, subscribe.subscription) {
        let text = format!(
            "a request of this connection has the number {}; choose another one",
            subscribe.subscription
        );
        return Err((ErrorCode::DuplicateSequence, text));
    }
    Ok(pattern)
}

/// The error for a peer that lacks a role.
fn denied(hub: &Engine, link: LinkId, what: &str, role: &str) -> (ErrorCode, String) {
    let rights = rights_at(hub, link).map_or_else(String::new, Rights::to_string);
    let text = format!("may not {what}: its roles are {rights}, and {role} is needed");
    (ErrorCode::Denied, text)
}

/// A client or worker ends a subscription.
pub(crate) fn on_unsubscribe(hub: &mut Engine, link: LinkId, subscription: u32) {
    hub.heard(link);
    if is_logged_in(hub, link, "unsubscribe") {
        hub.topics.unsubscribe(link, subscription, context!(hub));
    }
}

/// A client or worker publishes.
pub(crate) fn on_publish(hub: &mut Engine, link: LinkId, head: &Header, body: &Bytes) {
    hub.heard(link);
    if !is_logged_in(hub, link, "publish") {
        return;
    }
    let Some(party) = party(hub, link) else { return };
    match may_publish(hub, link, body) {
        Ok(lines) => hub.topics.publish((link, party), head, body, &lines, context!(hub)),
        Err(error) => refuse(link, head.sequence, error, context!(hub)),
    }
}

fn may_publish<'a>(
    hub: &Engine,
    link: LinkId,
    body: &'a Bytes,
) -> Result<MessageLines<'a>, (ErrorCode, String)> {
    let lines =
        MessageLines::read(body).map_err(|error| (ErrorCode::BadMessage, error.to_string()))?;
    let topic = lines.topic;
    if topic.split('.').next() == Some(OWN_WORD) {
        let text =
            format!("may not publish to '{topic}': only the broker publishes to {OWN_WORD}.>");
        return Err((ErrorCode::Denied, text));
    }
    if !rights_at(hub, link).is_some_and(|rights| rights.may_publish(topic)) {
        let what = format!("publish to '{topic}'");
        return Err(denied(hub, link, &what, &format!("publish:{topic}")));
    }
    if let Some(removed) = lines.removed.filter(|removed| *removed != Removed::Deleted) {
        let text = format!(
            "'removed {}' is said by the broker; 'removed deleted' removes a value",
            removed.word()
        );
        return Err((ErrorCode::BadMessage, text));
    }
    Ok(lines)
}

/// Other tokens are in force, and a link stays: its subscriptions end that it may not have any
/// more. Returns how many it had.
pub(crate) fn on_rights_changed(hub: &mut Engine, link: LinkId) -> usize {
    if !hub.topics.has_subscriptions(link) {
        return 0;
    }
    let Some(rights) = rights_at(hub, link).cloned() else { return 0 };
    hub.topics.end_denied(link, |pattern| rights.may_subscribe(pattern), context!(hub))
}
