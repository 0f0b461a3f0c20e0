//! The commands `topics` and `subscriptions`: what is kept of topics, and who gets their messages.

use super::cells::{number, table, text, yes};
use super::names;
use super::open_listing::SubscriptionsLeft;
use crate::engine::hub::Engine;
use crate::engine::topics::Party;
use crate::engine::topics::subscription::Subscriber;
use crate::engine::topics::view::{ShownSubscription, ShownValue};
use protocol::op::spec::SubscriptionsOf;
use protocol::{Block, OpError, OpReply, Value};

/// One value that is kept.
pub(super) fn topic_row(hub: &Engine, value: &ShownValue) -> Vec<Value> {
    let publisher = match value.party {
        Party::Client(id) => format!("client {id}"),
        Party::Worker(id) => format!("worker {id}"),
    };
    vec![
        text(&value.topic),
        number(value.bytes),
        number(value.number),
        Value::Micros(hub.now.since(value.at).0),
        value.expires.map_or(Value::None, |at| Value::Micros(at.since(hub.now).0)),
        text(publisher),
        yes(value.is_connected),
    ]
}

/// The values with the sums of the machine.
pub(super) fn topics_table(hub: &Engine, rows: Vec<Vec<Value>>) -> OpReply {
    let totals = hub.topics.totals();
    let fields = vec![
        ("Kept", number(totals.kept)),
        ("KeptBytes", number(totals.kept_bytes)),
        ("Remembered", number(totals.remembered)),
        ("RememberedBytes", number(totals.remembered_bytes)),
        ("Position", text(totals.position)),
        ("Subscriptions", number(totals.subscriptions)),
        ("QueuedBytes", number(totals.queued_bytes)),
        ("UnderWay", number(totals.under_way)),
    ];
    let mut reply = table("topics", rows);
    reply.blocks.push(Block::Record { name: "totals", prefix: "", width: 0, fields });
    reply
}

/// The subscriptions that a command asks for.
///
/// # Errors
/// There is no such client or worker.
pub(super) fn chosen(hub: &Engine, of: &SubscriptionsOf) -> Result<SubscriptionsLeft, OpError> {
    let (link, pattern) = match of {
        SubscriptionsOf::All => (None, None),
        SubscriptionsOf::Pattern(pattern) => (None, Some(pattern.clone())),
        SubscriptionsOf::Client(id) => {
            (Some(hub.sessions.client(names::client_named(hub, *id)?).link), None)
        }
        SubscriptionsOf::Worker(id) => {
            let link = hub.dispatch.seat(names::worker_named(hub, *id)?).link;
            // One that is not connected has none.
            let none = SubscriptionsLeft { link, pattern: None, next: 0, left: 0 };
            if link.is_none() {
                return Ok(none);
            }
            (link, None)
        }
    };
    let left = hub.topics.subscriptions_to_show(link);
    Ok(SubscriptionsLeft { link, pattern, next: 0, left })
}

/// The next subscriptions of a listing, of up to `most` that are looked at.
pub(super) fn next_subscriptions(
    hub: &Engine,
    left: &mut SubscriptionsLeft,
    most: usize,
) -> Vec<ShownSubscription> {
    left.left -= most.min(left.left);
    let (found, next) = hub.topics.subscriptions_from(left.link, left.next, most);
    left.next = next;
    let is_shown = |it: &ShownSubscription| {
        left.pattern.as_ref().is_none_or(|p| it.pattern.covers(p) || p.covers(&it.pattern))
    };
    found.into_iter().filter(is_shown).collect()
}

/// One subscription.
pub(super) fn subscription_row(hub: &Engine, it: &ShownSubscription) -> Vec<Value> {
    let (client, worker) = match it.party {
        Some(Party::Client(id)) => (number(id.0), Value::None),
        Some(Party::Worker(id)) => (Value::None, number(id.0)),
        None => (Value::None, Value::None),
    };
    let (subscription, service) = match it.subscriber {
        Subscriber::Link { number: given, .. } => (number(given), Value::None),
        Subscriber::Service(key) => {
            let service = hub.catalog.get(key);
            (Value::None, service.map_or(Value::None, |service| text(&service.name)))
        }
    };
    vec![
        client,
        worker,
        service,
        subscription,
        number(it.delivered),
        number(it.dropped),
        number(it.queued),
        number(it.queued_max),
        Value::Word(it.state),
        text(&it.pattern),
    ]
}
