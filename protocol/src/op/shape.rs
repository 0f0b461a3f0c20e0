//! TABLE of the parts of answers in JSON, data only, with the fields of each part; the rows of
//! `table` say which command answers which. The JSON view and the schema (`docs/op.schema.json`)
//! read it, and tests check every answer against it. The engine supplies the values.

pub use super::field::{Align, Column, Field, Form, Shape, Type};
pub(super) use super::field::{array, field, object, text};
use super::table::COMMANDS;

pub(super) const SERVICE: Field = field("service", Type::Text, "a service's name");
pub(super) const SERVICE_ID: Field = field("service_id", Type::Number, "a service's id");
pub(super) const WORKER: Field = field("worker", Type::Number, "a worker's id");
pub(super) const CLIENT: Field = field("client", Type::Number, "a client's id");
pub(super) const HOST: Field = field("host", Type::Text, "a host's name");
pub(super) const PID: Field =
    field("pid", Type::Number, "process id on its host; null: no process is known").maybe();
pub(super) const FD: Field =
    field("fd", Type::Number, "descriptor of its connection, for 'shutdown'");
pub(super) const ADDRESS: Field = field("address", Type::Text, "its network address");
pub(super) const TRANSACTION: Field = field("transaction", Type::Number, "a transaction's id");
pub(super) const PRIORITY: Field =
    field("priority", Type::Number, "1 to 255, lower is served first");
pub(super) const WAITING: Field = field("waiting", Type::Number, "requests that wait");
pub(super) const TEXT: Field = field("text", Type::Text, "the text, for people");
pub(super) const BYTES: Field = field("bytes", Type::Number, "size of the request");
pub(super) const RESTARTS: Field = field("restarts", Type::Number, "times it was started again");
pub(super) const TRANSACTIONS: Field =
    field("transactions", Type::Number, "transactions it has ended").label("Transactions");
pub(super) const STATE: Field = field("state", Type::Text, "its state, in one word");
pub(super) const UNTIL: Field =
    field("until", Type::Time, "when that state ends; null: no end is set").maybe();
pub(super) const REASON: Field = field("reason", Type::Text, "the reason of that state").maybe();
pub(super) const NOTES: Field = field("notes", Type::Texts, "further facts, a word or two each");
pub(super) const SINCE: Field = field("since", Type::Time, "when that state began");

pub(super) const ERROR: Field =
    field("error", Type::Text, "the name of an error, as in docs/errors.md");
pub(super) const RAN: Field =
    field("ran", Type::Word(&["no", "maybe", "yes"]), "whether the work ran");

pub(super) const OK: Shape = Shape { name: "ok", form: Form::True, fields: &[], always: true };
/// A remark besides, or instead of, what was asked for.
pub(super) const NOTE: Shape = object("note", &[TEXT]).sometimes();
/// A change is in force but could not be saved. Any command that changes something may answer this.
pub const WARNING: Shape = object(
    "warning",
    &[field("unsaved", Type::Text, "why the configuration could not be written")],
)
.sometimes();

pub(super) const STATUS: Shape = object(
    "status",
    &[
        field("config_file", Type::Text, "obsolete").label("configfile").maybe(),
        field("host", Type::Text, "the machine that isectd runs on"),
        field("services", Type::Number, "services configured").label("ServiceList"),
        field("clients", Type::Number, "clients attached").label("PriList"),
        field("lazy_workers", Type::Number, "workers on the lazy list").label("LazyWorkers"),
        field("idle_workers", Type::Number, "workers on the idle list").label("IdleWorkers"),
        field("busy_workers", Type::Number, "workers on the busy list").label("BusyWorkers"),
        field("worker_fd", Type::Number, "descriptor that listens for workers").label("socket"),
        field("worker_port", Type::Number, "port that listens for workers").label("port"),
        field("client_fd", Type::Number, "descriptor that listens for clients").label("req_socket"),
        field("client_port", Type::Number, "port that listens for clients").label("req_port"),
        field("next_client", Type::Number, "the next client's id").label("NextClientID"),
        field("connections_max", Type::Number, "the setting; 0 = what the descriptor limit allows")
            .label("MaxUsers"),
        field("command_worker", Type::Text, "the service that takes commands"),
        field("events", Type::Number, "events remembered").label("Events"),
        field("events_max", Type::Number, "most events remembered").label("NumEvents"),
        field("bucket_count", Type::Number, "number of buckets").label("NumBuckets"),
        field("bucket_secs", Type::Number, "seconds of one bucket").label("BucketSecs"),
        field("peak_bucket", Type::Number, "highest bucket so far").label("PeakBucket"),
        field("buckets", Type::Numbers, "transactions completed, the running bucket first")
            .label("Buckets"),
        field("event_kinds", Type::Texts, "kinds of events remembered; null: all")
            .label("EventKinds")
            .maybe(),
        field("preempt", Type::Flag, "the option 'preempt'"),
        field("reject", Type::Flag, "whether new clients are refused"),
        WAITING.label("Waiting"),
        field("waiting_bytes", Type::Number, "bytes of requests that wait or are kept")
            .label("WaitingBytes"),
        field("accepted", Type::Number, "requests accepted").label("Accepted"),
        field("completed", Type::Number, "requests answered by workers").label("Completed"),
        field("refused", Type::Number, "requests refused").label("Refused"),
        field("orphaned", Type::Number, "answers for which no client was left").label("Orphaned"),
        field("poisoned", Type::Number, "requests set aside as poison").label("Poisoned"),
        field("pid", Type::Number, "isectd's process id"),
        field("version", Type::Text, "isectd's version"),
        field("uptime_us", Type::Micros, "time since isectd started").label("Uptime"),
        field("unsaved", Type::Text, "why the configuration is not kept; null: it is").maybe(),
    ],
);

pub(super) const BUCKETS: Shape = object(
    "buckets",
    &[
        field("bucket_count", Type::Number, "number of buckets").label("NumBuckets"),
        field("bucket_secs", Type::Number, "seconds of one bucket").label("BucketSecs"),
        field("peak_bucket", Type::Number, "highest bucket so far").label("PeakBucket"),
        field("buckets", Type::Numbers, "transactions completed, the running bucket first")
            .label("Buckets"),
    ],
);

const START_WORKER: Field =
    field("worker", Type::Number, "the worker whose start's secret was shown").maybe();

pub(super) const CLIENT_PAGE: Shape = object(
    "client",
    &[
        CLIENT.label("id"),
        SERVICE_ID,
        SERVICE,
        PRIORITY,
        PID.label("hostpid"),
        HOST.label("loghost").maybe(),
        field("name", Type::Text, "the name that the client gave itself").maybe(),
        ADDRESS,
        field("uid", Type::Number, "user id, where the kernel tells it").maybe(),
        START_WORKER,
        field("blocked", Type::Flag, "whether its requests are held back"),
        field("under_way", Type::Number, "requests under way").label("UnderWay"),
        field("worker_ids", Type::Numbers, "workers that have them").label("Workers"),
        field("requests", Type::Number, "requests it made").label("Requests"),
        field("answered", Type::Number, "requests answered").label("Answered"),
        field("failed", Type::Number, "requests ended with an error").label("Failed"),
        field("connected", Type::Time, "when it logged in"),
        FD,
        STATE,
        SINCE,
        REASON,
    ],
);

pub(super) const CLIENTS: Shape = array(
    "clients",
    &[
        SERVICE.wide(12),
        CLIENT.column("client id", 10),
        PRIORITY.column("pri", 4),
        field("blocked", Type::Flag, "whether its requests are held back").column("blocked?", 9),
        HOST.maybe().column("hostname", 12),
        PID.column("host pid", 9),
        field("under_way", Type::Number, "requests under way").column("under way", 10),
        field("requests", Type::Number, "requests it made").wide(9),
        field("answered", Type::Number, "requests answered").wide(9),
        field("failed", Type::Number, "requests ended with an error").wide(7),
        field("connected", Type::Time, "when it logged in").wide(12),
        FD.wide(4),
        STATE,
        SINCE,
        REASON,
    ],
);

pub(super) const WORKER_PAGE: Shape = object(
    "worker",
    &[
        field("next", Type::Number, "the next worker in its list").label("node.next").maybe(),
        field("previous", Type::Number, "the previous worker in its list")
            .label("node.previous")
            .maybe(),
        field("list", Type::Word(&["lazy", "idle", "busy"]), "the list it is in")
            .label("node.queue"),
        WORKER.label("id"),
        SERVICE_ID,
        PID.label("hostpid"),
        SERVICE.label("name"),
        HOST,
        field("path", Type::Text, "its program").maybe(),
        field("args", Type::Texts, "its arguments after ISDARGMAX"),
        TRANSACTIONS,
        field("from_count", Type::Number, "frames that came from it").label("fromCount"),
        field("to_count", Type::Number, "frames sent to it").label("toCount"),
        RESTARTS,
        field("stopped", Type::Flag, "whether it is stopped"),
        field("up_not_log_in", Type::Flag, "whether its process runs and has not logged in"),
        field("paused", Type::Flag, "whether it is paused"),
        STATE,
        field("failed", Type::Text, "why it is not started any more").maybe(),
        field("run", Type::Number, "number of its last start").maybe(),
        field("started", Type::Time, "when it was started").maybe(),
        field("settings_changed", Type::Flag, "whether its process has earlier settings; null: no")
            .maybe(),
        TRANSACTION.maybe(),
        field("held", Type::Number, "further requests that it holds"),
        field("running", Type::Number, "how many requests it works on"),
        field("concurrency", Type::Number, "most requests that it is given at a time"),
        field("parked", Type::Number, "its conversations without a deadline (open_ended)"),
        field("late", Type::Number, "answers that came too late"),
        field("exit_cause", Type::Text, "how its last process ended").maybe(),
        field("death", Type::Number, "its last death that is kept, for 'death'").maybe(),
        field("stderr", Type::Texts, "last lines of its stderr"),
        FD.maybe(),
        SINCE,
        UNTIL,
        REASON,
        NOTES,
    ],
);

pub(super) const WORKER_ROW: &[Field] = &[
    SERVICE.wide(12),
    WORKER.column("worker id", 10),
    field("available", Type::Flag, "whether it takes requests").column("avail?", 7),
    HOST.column("hostname", 12),
    PID.column("host pid", 9),
    TRANSACTIONS.column("xactions", 9),
    field("average_us", Type::Micros, "mean response time").maybe().column("avg. resp.", 11),
    field("last_us", Type::Micros, "last response time; of a busy one, so far")
        .maybe()
        .column("last resp.", 11),
    RESTARTS.wide(9),
    CLIENT.maybe().column("client id", 10),
    FD.maybe().wide(4),
    STATE.left("state", 0),
    SINCE,
    UNTIL,
    REASON,
    NOTES,
];

const EXECD_BUILTIN: Field = field("builtin", Type::Flag, "whether isectd runs its execd itself");
const EXECD_VERSION: Field = field("version", Type::Text, "execd's version").maybe();
const EXECD_POLICY: Field =
    field("policy", Type::Text, "digest of what its execd enforces on workers").maybe();
const HOST_WORKERS: Field = field("worker_ids", Type::Numbers, "workers configured there");

pub(super) const HOST_PAGE: &[Field] = &[
    HOST.label("name"),
    ADDRESS,
    STATE,
    SINCE,
    EXECD_BUILTIN,
    HOST_DRAINED,
    PID.label("hostpid"),
    EXECD_VERSION,
    EXECD_POLICY,
    HOST_WORKERS.label("Workers"),
    REASON.label("trouble"),
    UNTIL,
];

pub(super) const DRAINED: &[Field] = &[HOST, HOST_WORKERS];
const HOST_DRAINED: Field = field("drained", Type::Flag, "whether nothing is started there");

pub(super) const HOST_ROW: &[Field] = &[
    HOST.column("hostname", 16),
    STATE.wide(10),
    SINCE.wide(12),
    HOST_WORKERS.column("workers", 8),
    PID.column("execd pid", 10),
    EXECD_VERSION.wide(9),
    ADDRESS.wide(20),
    EXECD_BUILTIN,
    HOST_DRAINED,
    EXECD_POLICY,
    REASON.left("trouble", 0),
    UNTIL,
];

pub(super) const SERVICE_ROW: &[Field] =
    &[SERVICE.wide(32), SERVICE_ID.column("id", 12), STATE, SINCE, REASON];
pub(super) const TARGETED: &[Field] = &[WORKER, SERVICE];

pub(super) const SERVICE_PAGE: Shape = object(
    "service",
    &[
        SERVICE_ID.label("id"),
        SERVICE.label("name"),
        field("paused", Type::Flag, "whether it is paused"),
        field("stopped", Type::Flag, "whether it is stopped"),
        field("worker_ids", Type::Numbers, "its workers").label("Workers"),
        field("clients", Type::Number, "clients attached").label("Clients"),
        WAITING.label("Waiting"),
        field("topic", Type::Text, "the pattern of the topics whose messages are its requests")
            .maybe(),
        field(
            "rollout",
            Type::Text,
            "how far the replacement of its workers is; null: there is none",
        )
        .maybe(),
        field("demand", Type::Word(&["down", "up"]), "whether its workers are asked for").maybe(),
        field(
            "restarts",
            Type::Text,
            "how often a worker of it is started again, and when no more",
        ),
    ],
)
.sometimes();

pub(super) const SETTING_ROW: &[Field] = &[
    field("setting", Type::Text, "a setting's name").left("setting", 20),
    field("value", Type::Value, "the value in force").wide(12),
    field("unit", Type::Word(&["ms", "bytes", "count", "0|1", "word"]), "what the value counts")
        .wide(6),
    field("default", Type::Value, "the value unless it is set").wide(12),
    field("min", Type::Number, "lowest value that is accepted").maybe().wide(8),
    field("max", Type::Number, "highest value that is accepted").maybe().wide(14),
    field("live", Type::Flag, "whether it may change while isectd runs").column("live?", 6),
    TEXT.left("", 0),
];

pub(super) const EVENT: &[Field] = &[
    field("seq", Type::Number, "its number in order"),
    field("at", Type::Time, "when it was recorded"),
    field("kind", Type::Text, "a name of docs/facts.md"),
    TEXT,
    CLIENT.maybe(),
    WORKER.maybe(),
    SERVICE.maybe(),
    HOST.maybe(),
    TRANSACTION.maybe(),
    field("instance", Type::Text, "the instance, by name and id").maybe(),
    field("who", Type::Text, "who asked for it").maybe(),
    field("waited_us", Type::Micros, "how long the request waited for its worker").maybe(),
    field("worked_us", Type::Micros, "how long the worker had it, or the process ran").maybe(),
    field("delay_us", Type::Micros, "how long it takes until that happens").maybe(),
    field("attempt", Type::Number, "how many workers the request was given to").maybe(),
    field("deaths", Type::Number, "how many workers died of the request").maybe(),
    field("death", Type::Number, "the number of the death, for 'death'").maybe(),
    ERROR.maybe(),
    RAN.maybe(),
];

pub(super) const LATENCY: Shape = array(
    "latency",
    &[
        SERVICE.wide(12),
        field("phase", Type::Word(&["wait", "run"]), "waiting in the queue, or served").wide(7),
        field("count", Type::Number, "how many were measured").wide(9),
        field("mean_us", Type::Micros, "mean").column("mean", 11),
        field("p50_us", Type::Micros, "half were at most this").column("p50", 11),
        field("p90_us", Type::Micros, "90 % were at most this").column("p90", 11),
        field("p99_us", Type::Micros, "99 % were at most this").column("p99", 11),
        field("p999_us", Type::Micros, "99.9 % were at most this").column("p99.9", 11),
        field("max_us", Type::Micros, "the longest").column("max", 11),
        field("failed", Type::Number, "requests ended with an error").wide(7),
    ],
);

/// Services that got no request yet, in a list of all services.
pub(super) const UNASKED: Shape = object(
    "left_out",
    &[field("services", Type::Number, "services without a request, which are not shown")],
)
.sometimes();

/// What a list has no room for.
pub(super) const MORE: Shape =
    object("left_out", &[field("rows", Type::Number, "entries that are not shown")]).sometimes();

pub(super) const LOAD: Shape = array(
    "load",
    &[
        SERVICE.wide(12),
        field("clients", Type::Number, "clients attached").wide(8),
        WAITING.wide(8),
        field("idle", Type::Number, "idle workers").wide(5),
        field("busy", Type::Number, "busy workers").wide(5),
        field("answered", Type::Number, "requests answered by workers").wide(9),
        field("failed", Type::Number, "requests ended with an error").wide(7),
        field("overloaded", Type::Number, "failed requests that were refused as overloaded")
            .wide(10),
        field("retried", Type::Number, "requests given to another worker").wide(7),
        field("denied", Type::Number, "requests not retried, because the retry budget was used up")
            .wide(7),
        field("retry_budget_used", Type::Number, "the used part of the retry budget")
            .column("retry budget used", 17),
        field("retry_budget", Type::Number, "the retry budget").column("retry budget", 12),
    ],
);

pub(super) const REQUESTS: Shape = array(
    "requests",
    &[
        SERVICE.wide(12),
        TRANSACTION.wide(12),
        CLIENT.maybe().column("client id", 10),
        PRIORITY.column("pri", 4),
        field(
            "where",
            Type::Word(&["queue", "blocked", "held", "worker", "parked", "overdue", "unheard"]),
            "where it is",
        )
        .wide(8),
        WORKER.maybe().wide(7),
        field("pid", Type::Number, "process of the worker").maybe().wide(8),
        field("age_us", Type::Micros, "since when it is there").column("age", 12),
        field("running_us", Type::Micros, "since when its worker works on it")
            .maybe()
            .column("running", 12),
        field("left_us", Type::Micros, "how long it may take yet").column("left", 12),
        field("attempt", Type::Number, "how often it was given to a worker").wide(8),
        field("received", Type::Number, "bytes of it that came so far, in whole frames").wide(9),
        field("replied", Type::Number, "bytes of the reply that came so far").wide(9),
        field("from", Type::Text, "host and process of the client, as it said")
            .maybe()
            .left("from", 0),
    ],
);
pub(super) const QUEUE: Shape = array(
    "queue",
    &[
        SERVICE.wide(12),
        TRANSACTION.wide(12),
        CLIENT.maybe().column("client id", 10),
        PRIORITY.column("pri", 4),
        field(
            "where",
            Type::Word(&["queue", "blocked", "held", "worker", "parked"]),
            "where it waits",
        )
        .wide(10),
        WORKER.maybe().wide(7),
        field("waited_us", Type::Micros, "how long it has waited").column("waited", 12),
        field("left_us", Type::Micros, "how long it may").column("left", 12),
        field("attempt", Type::Number, "workers that died of it").wide(8),
        BYTES.wide(9),
    ],
);

pub(super) const WHY: Shape =
    array("why", &[SERVICE, WAITING, field("why", Type::Text, "why nobody serves them")]);

pub(super) const POISON: Shape = array(
    "poison",
    &[
        TRANSACTION.wide(12),
        SERVICE.wide(12),
        CLIENT.maybe().column("client id", 10),
        field("from", Type::Text, "who sent it").wide(20),
        field("deaths", Type::Number, "workers that died of it").wide(7),
        BYTES.wide(9),
        field("at", Type::Time, "when it was set aside").wide(30),
    ],
);

const SEQUENCE: Field = field("sequence", Type::Number, "the number that its client gave it");
const CLIENT_FROM: Field =
    field("from", Type::Text, "host, process and address of the client").maybe();
const TRACE_ID: Field =
    field("trace", Type::Text, "the trace id of its header, in hexadecimal digits").maybe();
const OUTCOME: Field = field(
    "state",
    Type::Word(&[
        "waits", "blocked", "held", "runs", "parked", "unheard", "answered", "failed", "left",
    ]),
    "where it is, or how it ended; left: its client was gone before; unheard: it has ended, its \
     worker is not done with it, and how it ended is not kept",
);
const KEPT: Field = field(
    "kept",
    Type::Word(&["failed", "slow", "sampled"]),
    "why it is kept; null: it is under way",
)
.maybe();
const ARRIVED: Field = field("arrived", Type::Time, "when its first frame came");
const ATTEMPT: Field = field("attempt", Type::Number, "how many workers it was given to");
const APPLICATION_ERROR: Field =
    field("application_error", Type::Number, "the number of the worker's own error").maybe();

/// One request, for `why`.
pub(super) const WHY_REQUEST: Shape = object(
    "traced",
    &[
        TRANSACTION,
        OUTCOME,
        SERVICE,
        CLIENT,
        SEQUENCE,
        CLIENT_FROM,
        TRACE_ID,
        PRIORITY,
        ARRIVED,
        field("allowed_us", Type::Micros, "time from its arrival to its deadline; null: none")
            .maybe(),
        field("took_us", Type::Micros, "time from its arrival to its outcome, or so far"),
        field("waited_us", Type::Micros, "time until its last worker began it, or so far"),
        field("received", Type::Number, "bytes of it that came"),
        field("replied", Type::Number, "bytes of the reply that came"),
        field("ahead", Type::Number, "requests that waited before it when it came"),
        ATTEMPT,
        field("deaths", Type::Number, "workers that died of it"),
        field("died_with", Type::Numbers, "the deaths that had it, for 'death'"),
        ERROR.maybe(),
        RAN.maybe(),
        APPLICATION_ERROR,
        KEPT,
    ],
)
.sometimes();

/// One event of a request.
pub(super) const STEP: &[Field] = &[
    field("after_us", Type::Micros, "time since it came").column("after", 14),
    field(
        "what",
        Type::Word(&[
            "arrived",
            "waits",
            "given",
            "begun",
            "lost",
            "replies",
            "answered",
            "failed",
            "left",
            "blocked",
            "held",
            "runs",
            "parked",
            "unheard",
            "kept_busy",
        ]),
        "what happened; the last one of a request under way says where it is",
    )
    .left("what", 9),
    WORKER.maybe(),
    PID,
    HOST.maybe(),
    field("attempt", Type::Number, "which attempt it was").maybe(),
    TEXT.left("", 0),
];

/// One request that ended, or that has a trace id.
pub(super) const TRACE_ROW: &[Field] = &[
    TRANSACTION.wide(18),
    CLIENT.column("client id", 10),
    SEQUENCE.wide(9),
    SERVICE.wide(12),
    ARRIVED.wide(31),
    field("took_us", Type::Micros, "time from its arrival to its outcome, or so far")
        .column("took", 12),
    ATTEMPT.wide(8),
    OUTCOME.wide(9),
    ERROR.maybe().wide(14),
    KEPT.wide(8),
    TRACE_ID,
];

pub(super) const CANCELLED: &[Field] =
    &[TRANSACTION, SERVICE, CLIENT.maybe(), SEQUENCE, WORKER.maybe(), RAN];

/// The bytes of a request.
pub(super) const REQUEST: Shape = object(
    "request",
    &[
        BYTES,
        field("shown", Type::Number, "how many of those bytes follow"),
        field("hex", Type::Raw, "those bytes as hexadecimal digits"),
        field("text", Type::Raw, "those bytes as UTF-8; invalid ones are replaced"),
    ],
)
.sometimes();

pub(super) const LAST: Shape = object(
    "last",
    &[
        WORKER,
        TRANSACTION.maybe(),
        CLIENT.maybe(),
        field("from", Type::Text, "who sent it").maybe(),
        field("at", Type::Time, "when the worker got it").maybe(),
        field("has_it", Type::Flag, "whether the worker still has it"),
    ],
);

pub(super) const WHOAMI: Shape = object(
    "whoami",
    &[
        CLIENT,
        ADDRESS,
        field("uid", Type::Number, "user id, where the kernel tells it").maybe(),
        field("token", Type::Text, "name of the token shown").maybe(),
        START_WORKER,
        field("roles", Type::Texts, "its roles"),
    ],
);

pub(super) const RELOAD: Shape =
    object("reload", &[field("tokens", Type::Number, "tokens in the file")]).sometimes();
pub(super) const CERTIFICATES: Shape = array("certificates", &[TEXT]);

pub(super) const EVENTS_MAX: Field = field("events_max", Type::Number, "most events remembered");
pub(super) const SKIPPED: Field = field("skipped", Type::Number, "events that were not shown");
pub(super) const FORGOTTEN: Field = field("count", Type::Number, "requests forgotten");
pub(super) const DEATHS_FORGOTTEN: Field = field("count", Type::Number, "deaths forgotten");
pub(super) const VERSION: Field = field("version", Type::Text, "isectd's version");
pub(super) const PROTOCOL: Field = field("protocol", Type::Number, "version of the protocol");
pub(super) const CLONED_FROM: Field = field("from", Type::Number, "the worker cloned");
pub(super) const PREEMPT: Field = field("preempt", Type::Flag, "the option as it is now");
pub(super) const REJECT: Field = field("reject", Type::Flag, "whether new clients are refused");
pub(super) const SENT_TO: Field = field("workers", Type::Number, "workers it was sent to");
pub(super) const SAID: Field = field("status", Type::Text, "the worker's answer");
pub(super) const SETTING: Field = field("setting", Type::Text, "the setting's name");
pub(super) const VALUE_NOW: Field = field("value", Type::Value, "its value now");
pub(super) const UNIT: Field = field("unit", Type::Text, "what the value counts");
pub(super) const SOCKETS: Field = field("sockets", Type::Number, "sockets shut for writing");
pub(super) const DONE: Field = field("commands", Type::Number, "commands done");
pub(super) const UNCHANGED: Field =
    field("unchanged", Type::Number, "commands that found everything as they say");
pub(super) const SUMMARY: Shape = object(
    "summary",
    &[
        field("done", Type::Number, "commands that did something"),
        UNCHANGED,
        field("failed", Type::Number, "commands that were answered with an error"),
    ],
);

/// The form of the part with this name; the form is the same in every command's answer.
pub fn form(name: &str) -> Option<Form> {
    named(name).next().map(|shape| shape.form)
}

/// The JSON key of the field that a record's text calls `label`.
pub fn key(record: &str, label: &'static str) -> &'static str {
    let found = named(record).flat_map(|shape| shape.fields).find(|field| field.label == label);
    found.map_or(label, |field| field.key)
}

/// The columns of the table of a list.
pub fn columns(table: &str) -> Vec<Column> {
    let fields = named(table).next().map_or(&[][..], |shape| shape.fields);
    fields.iter().map(|field| field.column).collect()
}

fn named(name: &str) -> impl Iterator<Item = &'static Shape> {
    let all = COMMANDS.iter().flat_map(|row| row.answer).chain([&WARNING]);
    all.filter(move |shape| shape.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_thing_everywhere() {
        let all: Vec<&Shape> = COMMANDS.iter().flat_map(|row| row.answer).collect();
        for shape in &all {
            for other in named(shape.name) {
                assert_eq!(shape.form, other.form, "{}", shape.name);
            }
            for field in shape.fields {
                let is_key = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_';
                assert!(field.key.chars().all(is_key), "{}.{}", shape.name, field.key);
                assert_eq!(
                    field.kind == Type::Micros,
                    field.key.ends_with("_us"),
                    "{}.{}: a span of time has its unit in its name",
                    shape.name,
                    field.key
                );
                assert!(!field.text.is_empty() && !field.text.ends_with('.'), "{}", field.key);
                let same = shape.fields.iter().filter(|other| other.key == field.key).count();
                assert_eq!(same, 1, "{}.{}", shape.name, field.key);
            }
        }
    }
}
