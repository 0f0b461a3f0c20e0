//! The parts of answers about deaths; `shape` has those of the other commands.

use super::shape::{
    CLIENT, HOST, PID, SERVICE, Shape, TRANSACTION, Type, WORKER, array, field, object,
};

const ID: super::shape::Field = field("death", Type::Number, "its number, for 'death'");
const AT: super::shape::Field = field("at", Type::Time, "when it ended");
const RAN: super::shape::Field = field("ran_us", Type::Micros, "how long the process ran");

/// The rows of `deaths`.
pub(super) const DEATHS: Shape = array(
    "deaths",
    &[
        ID.wide(6),
        AT.wide(30),
        SERVICE.wide(12),
        WORKER.column("worker id", 10),
        HOST.column("hostname", 12),
        PID.column("host pid", 9),
        RAN.column("ran", 10),
        field("requests", Type::Number, "requests that the worker had").wide(9),
        field("how", Type::Text, "how it ended").left("how", 2),
        field("killed", Type::Text, "why the broker had it killed").maybe(),
    ],
);

/// All of one death but the requests.
pub(super) const DEATH: Shape = object(
    "death",
    &[
        ID.label("id"),
        AT,
        WORKER,
        SERVICE,
        HOST,
        field("run", Type::Number, "number of the start that made the process"),
        PID,
        RAN.label("ran"),
        field("adopted", Type::Flag, "whether an earlier broker had started it"),
        field("exit_cause", Type::Text, "exit status or signal"),
        field("signal", Type::Text, "the name of the signal").maybe(),
        field("core", Type::Flag, "whether the kernel wrote a core file"),
        field("oom", Type::Flag, "whether the kernel killed for want of memory at that time"),
        field("cpu_us", Type::Micros, "processor time").label("cpu"),
        field("memory_kib_max", Type::Number, "largest resident size in KiB").maybe(),
        field("how", Type::Text, "how it ended, in words"),
        field("killed", Type::Text, "why the broker had it killed").maybe(),
        field("follows", Type::Text, "what the broker did then"),
        field("stderr", Type::Texts, "the last lines of its stderr"),
        field("requests", Type::Number, "requests that it had"),
    ],
);

/// The requests that it had.
pub(super) const LOST: Shape = array(
    "lost",
    &[
        TRANSACTION,
        CLIENT.maybe(),
        field("name", Type::Text, "the name of the client's program").maybe(),
        field("from", Type::Text, "host, process, address, user and token of the client").maybe(),
        field("sequence", Type::Number, "the number that its client gave it; 0: not known"),
        field(
            "state",
            Type::Word(&["running", "overdue", "parked", "held", "taken_away"]),
            "how far the worker was with it",
        ),
        field("had_us", Type::Micros, "for how long the worker had it"),
        field("bytes", Type::Number, "size of the request, as far as it had come"),
    ],
);

/// The bytes of each of these, in their order.
pub(super) const LOST_BYTES: Shape = array(
    "lost_bytes",
    &[
        field("bytes", Type::Number, "size of the request"),
        field("shown", Type::Number, "how many of them are here"),
        field("hex", Type::Raw, "these bytes in hexadecimal digits"),
        field("text", Type::Raw, "these bytes as text"),
    ],
);

/// Of `deaths`.
pub(super) const LISTED: &[Shape] = &[
    DEATHS,
    object("cleared", &[super::shape::DEATHS_FORGOTTEN]).sometimes(),
    super::shape::MORE,
    super::shape::NOTE,
];
