//! The parts of the answers about topics, as `shape` has those of the others.

use super::field::{Shape, Type, array, field, object};
use super::shape::{CLIENT, SERVICE, WORKER};

pub(super) const TOPICS: Shape = array(
    "topics",
    &[
        field("topic", Type::Text, "the topic").left("topic", 40),
        field("bytes", Type::Number, "bytes of the message, its lines among them").wide(9),
        field("number", Type::Number, "its number in the broker's count").wide(12),
        field("age_us", Type::Micros, "since when it is kept").column("age", 12),
        field("expires_us", Type::Micros, "when it is kept no longer")
            .maybe()
            .column("expires", 12),
        field("publisher", Type::Text, "who published it").wide(14),
        field("connected", Type::Flag, "whether it ends with the connection of its publisher")
            .column("connected?", 10),
    ],
);
pub(super) const TOPIC_TOTALS: Shape = object(
    "totals",
    &[
        field("kept", Type::Number, "topics of which the last message is kept").label("Kept"),
        field("kept_bytes", Type::Number, "bytes of these").label("KeptBytes"),
        field("remembered", Type::Number, "last messages, for subscribers that come back")
            .label("Remembered"),
        field("remembered_bytes", Type::Number, "bytes of these").label("RememberedBytes"),
        field("position", Type::Text, "epoch and number of the newest message").label("Position"),
        field("subscriptions", Type::Number, "subscriptions").label("Subscriptions"),
        field(
            "queued_bytes",
            Type::Number,
            "bytes that wait for subscriptions, with 64 for each message",
        )
        .label("QueuedBytes"),
        field("under_way", Type::Number, "messages that have not gone to all their subscriptions")
            .label("UnderWay"),
    ],
);
pub(super) const SUBSCRIPTIONS: Shape = array(
    "subscriptions",
    &[
        CLIENT.maybe().column("client id", 10),
        WORKER.maybe().wide(7),
        SERVICE.maybe().wide(12),
        field("subscription", Type::Number, "the number that its client or worker gave it")
            .maybe()
            .column("number", 10),
        field("delivered", Type::Number, "messages that it was sent").wide(12),
        field("dropped", Type::Number, "messages that it was not sent").wide(9),
        field("queued", Type::Number, "messages that wait for it").wide(8),
        field("queued_max", Type::Number, "most messages that waited at once")
            .column("queued max", 10),
        field("state", Type::Word(&["live", "catching_up", "congested"]), "how far it is").wide(11),
        field("pattern", Type::Text, "what it subscribed to").left("pattern", 0),
    ],
);
