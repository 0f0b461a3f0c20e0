//! The parts of answers about instances and groups; `shape` has those of the other commands.

use super::shape::{Field, Shape, Type};
use super::shape::{REASON, SINCE, array, field, object};

pub(super) const GROUP: Field = field("group", Type::Text, "a group's name");
const NAME: Field = field("instance", Type::Text, "what it is an instance of");
const ID: Field = field("id", Type::Number, "its id");
const MACHINE: Field =
    field("machine", Type::Text, "the machine that it runs on; of a worker the host's name");
const INCARNATION: Field =
    field("incarnation", Type::Number, "its number among all announcements of this broker");
const STATE: Field = field(
    "state",
    Type::Text,
    "starting, running, stopping, stopped, timed out, or what its program calls its own one",
);
const STALLED: Field =
    field("stalled", Type::Flag, "whether its checkpoint stays the same while it has work");
const CHECKPOINT: Field = field(
    "checkpoint",
    Type::Number,
    "a number that changes as it works; of a worker the transactions it completed",
);
const IS_WORKER: Field = field("is_worker", Type::Flag, "whether it is a worker");
const TEXT: Field = field("text", Type::Text, "what its program says of its state").maybe();
const IN_GROUPS: Field = field("groups", Type::Texts, "the groups that it is in");
const BEAT: Field =
    field("beat_us", Type::Micros, "since when nothing was heard of it; null: it is a worker")
        .maybe();
const BEGAN: Field = field("began", Type::Time, "when it was announced, or its process started");
const ENDED_AT: Field = field("ended", Type::Time, "when it ended");

pub(super) const INSTANCES: Shape = array(
    "instances",
    &[
        NAME.wide(12),
        ID.wide(12),
        MACHINE.wide(12),
        STATE.wide(10),
        STALLED.wide(7),
        CHECKPOINT.wide(12),
        SINCE.wide(12),
        BEAT.column("last beat", 12),
        IN_GROUPS.left("groups", 0),
        INCARNATION,
        IS_WORKER,
        TEXT.left("text", 0),
    ],
);

pub(super) const ENDED: Shape = array(
    "ended",
    &[
        NAME.wide(12),
        ID.wide(12),
        MACHINE.wide(12),
        REASON_OF_END.wide(9),
        STATE.column("last state", 10),
        CHECKPOINT.wide(12),
        ENDED_AT.column("ended", 12),
        BEGAN,
        IN_GROUPS.left("groups", 0),
        INCARNATION,
        TEXT.left("text", 0),
    ],
);
const REASON_OF_END: Field = field(
    "reason",
    Type::Word(&["withdrawn", "failed", "closed", "lost", "displaced"]),
    "why it ended",
);

pub(super) const PAGE: Shape = object(
    "instance",
    &[
        NAME.label("name"),
        ID,
        MACHINE,
        INCARNATION,
        IS_WORKER,
        STATE,
        STALLED.maybe(),
        TEXT,
        CHECKPOINT,
        SINCE,
        BEGAN,
        ENDED_AT.maybe(),
        REASON,
        BEAT.label("last_beat"),
        field("activity_timeout_us", Type::Micros, "without a beat for so long it is timed out")
            .label("activity_timeout")
            .maybe(),
        field("stalled_after_us", Type::Micros, "with the same checkpoint so long it is stalled")
            .label("stalled_after")
            .maybe(),
        field("type", Type::Text, "what it mainly does: data, io, management, network, a number")
            .maybe(),
        IN_GROUPS,
        field("addresses", Type::Texts, "where it is reached"),
        field("meta", Type::Texts, "words and values of its program"),
        field("client", Type::Number, "the client that announced it").maybe(),
        field("announced_by_worker", Type::Number, "the worker that announced it, or that it is")
            .label("by_worker")
            .maybe(),
    ],
);

const GROUP_STATE: Field =
    field("state", Type::Word(&["running", "error", "starting", "down"]), "its state");
const GROUP_SINCE: Field =
    field("since", Type::Time, "when that state began; null: it never had another one").maybe();
const JOINED: Field = field("joined", Type::Number, "members that run");
const EXPECTED: Field =
    field("expected", Type::Number, "members that are expected: workers, and names");
const MIN: Field = field("min", Type::Number, "members that have to run");
const ERRORS: Field =
    field("error", Type::Number, "members that are timed out, or failed and were not replaced");
const MEMBERS: Field = field("members", Type::Number, "instances that are in it");
const IS_CONFIGURED: Field =
    field("configured", Type::Flag, "whether 'config group' says something of it");

pub(super) const CONFIGURED: &[Field] = &[GROUP, MIN, EXPECTED];

pub(super) const GROUPS: Shape = array(
    "groups",
    &[
        GROUP.wide(16),
        GROUP_STATE.wide(9),
        JOINED.wide(7),
        EXPECTED.wide(9),
        MIN.wide(5),
        ERRORS.wide(6),
        MEMBERS.wide(8),
        GROUP_SINCE.wide(12),
        IS_CONFIGURED,
    ],
);

pub(super) const GROUP_PAGE: Shape = object(
    "group",
    &[
        GROUP.label("name"),
        GROUP_STATE,
        GROUP_SINCE,
        JOINED,
        EXPECTED,
        MIN,
        ERRORS,
        MEMBERS,
        IS_CONFIGURED,
        field("names", Type::Texts, "names of the instances that 'config group' expects"),
        field("missing", Type::Texts, "those of which no instance is there"),
        field("in_error", Type::Texts, "members that are timed out or failed, the first ones"),
    ],
);
