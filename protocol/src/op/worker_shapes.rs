//! TABLE of the parts of answers about the settings of workers.

use super::field::{Field, Shape, Type, array, field, object};
use super::shape::TARGETED;

const SETTING: Field = field("setting", Type::Text, "a setting's name").left("setting", 14);
const VALUE: Field =
    field("value", Type::Text, "its value; that of a variable is '…' for who may not see it")
        .left("value", 32);
const HIDDEN: Field = field("hidden", Type::Flag, "whether its value is left out");

/// What a service sets for all its workers, and what it may set.
pub(super) const OF_SERVICE: Shape = array(
    "worker_settings",
    &[
        SETTING,
        VALUE.maybe(),
        field("form", Type::Text, "how its value is written").left("form", 16),
        field("text", Type::Text, "what it does"),
        HIDDEN,
    ],
)
.sometimes();

/// What holds for a worker from its next start on.
pub(super) const OF_WORKER: Shape = array(
    "process_settings",
    &[
        SETTING,
        VALUE,
        field("from", Type::Word(&["service", "worker"]), "who sets it").left("set for", 8),
        HIDDEN,
    ],
)
.sometimes();

/// Workers whose processes were started before a change.
pub(super) const EARLIER: Shape = object(
    "earlier",
    &[field("workers", Type::Numbers, "workers that run with the settings before the change")],
)
.sometimes();

/// Of `config worker`.
pub(super) const CONFIGURED: &[Shape] = &[
    object("configured", TARGETED).sometimes(),
    object("changed", TARGETED).sometimes(),
    object("unchanged", TARGETED).sometimes(),
    EARLIER,
];
