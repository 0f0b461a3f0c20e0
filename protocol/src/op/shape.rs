//! TABLE of the answers in JSON, data only: the parts of each command's answer and the fields of
//! each part. The JSON view and the schema (`docs/op.schema.json`) read it, and tests check every
//! answer against it. The engine supplies the values.

use super::spec::Command;
use super::table::COMMANDS;

/// The JSON type of a part of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Form {
    /// `true`: the command was carried out, and there is nothing more to say.
    True,
    /// An object with these fields.
    Object,
    /// An array of objects, also if it has one or none.
    Array,
    /// A string, usually of several lines.
    Text,
}

/// The JSON type of a field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Type {
    /// A string that is not empty.
    Text,
    /// A string of bytes from a peer or a program; it may be empty.
    Raw,
    /// One of these strings.
    Word(&'static [&'static str]),
    /// A whole number, 0 or more.
    Number,
    /// `true` or `false`.
    Flag,
    /// A span of time in microseconds; the key ends with `_us`.
    Micros,
    /// A string: a wall-clock time as in RFC 3339.
    Time,
    /// An array of numbers.
    Numbers,
    /// An array of strings.
    Texts,
    /// A setting's value: a number, or `true` and `false` for a switch.
    Value,
}

/// A field of a part.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// The key in JSON.
    pub key: &'static str,
    /// The name in the text of a record; often the manual's, and then not equal to `key`.
    pub label: &'static str,
    /// The JSON type.
    pub kind: Type,
    /// Whether it may be null, because there is no value or it is not known.
    pub maybe: bool,
    /// The meaning, for the schema.
    pub text: &'static str,
}

/// A part of an answer.
#[derive(Clone, Copy, Debug)]
pub struct Shape {
    /// The key in JSON.
    pub name: &'static str,
    /// The JSON type of the part.
    pub form: Form,
    /// The fields of the object, or of each object of the array; empty for other forms.
    pub fields: &'static [Field],
    /// Whether every answer to the command has this part.
    pub always: bool,
}

const fn field(key: &'static str, kind: Type, text: &'static str) -> Field {
    Field { key, label: key, kind, maybe: false, text }
}

impl Field {
    const fn maybe(self) -> Self {
        Self { maybe: true, ..self }
    }

    /// Sets the name that the field has in the text of a record.
    const fn label(self, label: &'static str) -> Self {
        Self { label, ..self }
    }
}

const fn object(name: &'static str, fields: &'static [Field]) -> Shape {
    Shape { name, form: Form::Object, fields, always: true }
}

const fn array(name: &'static str, fields: &'static [Field]) -> Shape {
    Shape { name, form: Form::Array, fields, always: true }
}

const fn text(name: &'static str) -> Shape {
    Shape { name, form: Form::Text, fields: &[], always: true }
}

impl Shape {
    const fn sometimes(self) -> Self {
        Self { always: false, ..self }
    }
}

const SERVICE: Field = field("service", Type::Text, "a service's name");
const SERVICE_ID: Field = field("service_id", Type::Number, "a service's id");
const WORKER: Field = field("worker", Type::Number, "a worker's id");
const CLIENT: Field = field("client", Type::Number, "a client's id");
const HOST: Field = field("host", Type::Text, "a host's name");
const PID: Field =
    field("pid", Type::Number, "process id on its host; null: no process is known").maybe();
const FD: Field = field("fd", Type::Number, "descriptor of its connection, for 'shutdown'");
const ADDRESS: Field = field("address", Type::Text, "its network address");
const TRANSACTION: Field = field("transaction", Type::Number, "a transaction's id");
const PRIORITY: Field = field("priority", Type::Number, "1 to 255, lower is served first");
const WAITING: Field = field("waiting", Type::Number, "requests that wait");
const TEXT: Field = field("text", Type::Text, "the text, for people");
const BYTES: Field = field("bytes", Type::Number, "size of the request");
const RESTARTS: Field = field("restarts", Type::Number, "times it was started again");
const TRANSACTIONS: Field =
    field("transactions", Type::Number, "transactions it has ended").label("Transactions");
const STATE: Field = field("state", Type::Text, "its state, in one word");
const UNTIL: Field =
    field("until", Type::Time, "when that state ends; null: no end is set").maybe();
const REASON: Field = field("reason", Type::Text, "the reason of that state").maybe();
const NOTES: Field = field("notes", Type::Texts, "further facts, a word or two each");
const SINCE: Field = field("since", Type::Time, "when that state began");

const OK: Shape = Shape { name: "ok", form: Form::True, fields: &[], always: true };
/// A remark besides, or instead of, what was asked for.
const NOTE: Shape = object("note", &[TEXT]).sometimes();
/// A change is in force but could not be saved. Any command that changes something may answer this.
pub const WARNING: Shape = object(
    "warning",
    &[field("unsaved", Type::Text, "why the configuration could not be written")],
)
.sometimes();

const STATUS: Shape = object(
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

const BUCKETS: Shape = object(
    "buckets",
    &[
        field("bucket_count", Type::Number, "number of buckets").label("NumBuckets"),
        field("bucket_secs", Type::Number, "seconds of one bucket").label("BucketSecs"),
        field("peak_bucket", Type::Number, "highest bucket so far").label("PeakBucket"),
        field("buckets", Type::Numbers, "transactions completed, the running bucket first")
            .label("Buckets"),
    ],
);

const CLIENT_PAGE: Shape = object(
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

const CLIENTS: Shape = array(
    "clients",
    &[
        SERVICE,
        CLIENT,
        PRIORITY,
        field("blocked", Type::Flag, "whether its requests are held back"),
        HOST.maybe(),
        PID,
        field("under_way", Type::Number, "requests under way"),
        field("requests", Type::Number, "requests it made"),
        field("answered", Type::Number, "requests answered"),
        field("failed", Type::Number, "requests ended with an error"),
        field("connected", Type::Time, "when it logged in"),
        FD,
        STATE,
        SINCE,
        REASON,
    ],
);

const WORKER_PAGE: Shape = object(
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
        TRANSACTION.maybe(),
        field("held", Type::Number, "further requests that it holds"),
        field("late", Type::Number, "answers that came too late"),
        field("exit_cause", Type::Text, "how its last process ended").maybe(),
        field("stderr", Type::Texts, "last lines of its stderr"),
        FD.maybe(),
        SINCE,
        UNTIL,
        REASON,
        NOTES,
    ],
);

const WORKER_ROW: &[Field] = &[
    SERVICE,
    WORKER,
    field("available", Type::Flag, "whether it takes requests"),
    HOST,
    PID,
    TRANSACTIONS,
    field("average_us", Type::Micros, "mean response time").maybe(),
    field("last_us", Type::Micros, "last response time; of a busy one, so far").maybe(),
    RESTARTS,
    CLIENT.maybe(),
    FD.maybe(),
    STATE,
    SINCE,
    UNTIL,
    REASON,
    NOTES,
];

const HOST_FIELDS: &[Field] = &[
    HOST.label("name"),
    ADDRESS,
    STATE,
    SINCE,
    field("builtin", Type::Flag, "whether isectd runs its execd itself"),
    PID.label("hostpid"),
    field("version", Type::Text, "execd's version").maybe(),
    field("policy", Type::Text, "digest of what its execd enforces on workers").maybe(),
    field("worker_ids", Type::Numbers, "workers configured there").label("Workers"),
    REASON.label("trouble"),
    UNTIL,
];

const SERVICE_PAGE: Shape = object(
    "service",
    &[
        SERVICE_ID.label("id"),
        SERVICE.label("name"),
        field("paused", Type::Flag, "whether it is paused"),
        field("stopped", Type::Flag, "whether it is stopped"),
        field("worker_ids", Type::Numbers, "its workers").label("Workers"),
        field("clients", Type::Number, "clients attached").label("Clients"),
        WAITING.label("Waiting"),
    ],
)
.sometimes();

const SETTING_ROW: &[Field] = &[
    field("setting", Type::Text, "a setting's name"),
    field("value", Type::Value, "the value in force"),
    field("unit", Type::Word(&["ms", "bytes", "count", "0|1"]), "what the value counts"),
    field("default", Type::Value, "the value unless it is set"),
    field("min", Type::Number, "lowest value that is accepted").maybe(),
    field("max", Type::Number, "highest value that is accepted").maybe(),
    field("live", Type::Flag, "whether it may change while isectd runs"),
    TEXT,
];

const EVENT: &[Field] = &[
    field("seq", Type::Number, "its number in order"),
    field("at", Type::Time, "when it was recorded"),
    field("kind", Type::Text, "a name of docs/facts.md"),
    TEXT,
    CLIENT.maybe(),
    WORKER.maybe(),
    SERVICE.maybe(),
    HOST.maybe(),
    TRANSACTION.maybe(),
    field("who", Type::Text, "who asked for it").maybe(),
];

const LATENCY: Shape = array(
    "latency",
    &[
        SERVICE,
        field("phase", Type::Word(&["wait", "run"]), "waiting in the queue, or served"),
        field("count", Type::Number, "how many were measured"),
        field("mean_us", Type::Micros, "mean"),
        field("p50_us", Type::Micros, "half were at most this"),
        field("p90_us", Type::Micros, "90 % were at most this"),
        field("p99_us", Type::Micros, "99 % were at most this"),
        field("p999_us", Type::Micros, "99.9 % were at most this"),
        field("max_us", Type::Micros, "the longest"),
        field("failed", Type::Number, "requests ended with an error"),
    ],
);

/// Services that got no request yet, in a list of all services.
const UNASKED: Shape = object(
    "left_out",
    &[field("services", Type::Number, "services without a request, which are not shown")],
)
.sometimes();

/// What a list has no room for.
const MORE: Shape =
    object("left_out", &[field("rows", Type::Number, "entries that are not shown")]).sometimes();

const LOAD: Shape = array(
    "load",
    &[
        SERVICE,
        field("clients", Type::Number, "clients attached"),
        WAITING,
        field("idle", Type::Number, "idle workers"),
        field("busy", Type::Number, "busy workers"),
        field("answered", Type::Number, "requests answered by workers"),
        field("failed", Type::Number, "requests ended with an error"),
        field("overloaded", Type::Number, "failed requests that were refused as overloaded"),
        field("retried", Type::Number, "requests given to another worker"),
        field("denied", Type::Number, "requests not retried, because the retry budget was used up"),
        field("retry_budget_used", Type::Number, "the used part of the retry budget"),
        field("retry_budget", Type::Number, "the retry budget"),
    ],
);

const REQUESTS: Shape = array(
    "requests",
    &[
        SERVICE,
        TRANSACTION,
        CLIENT.maybe(),
        field("from", Type::Text, "host and process of the client, as it said").maybe(),
        PRIORITY,
        field(
            "where",
            Type::Word(&["queue", "blocked", "held", "worker", "overdue", "unheard"]),
            "where it is",
        ),
        WORKER.maybe(),
        field("pid", Type::Number, "process of the worker").maybe(),
        field("age_us", Type::Micros, "since when it is there"),
        field("running_us", Type::Micros, "since when its worker works on it").maybe(),
        field("left_us", Type::Micros, "how long it may take yet"),
        field("attempt", Type::Number, "how often it was given to a worker"),
        field("received", Type::Number, "bytes of it that came so far, in whole frames"),
        field("replied", Type::Number, "bytes of the reply that came so far"),
    ],
);
const QUEUE: Shape = array(
    "queue",
    &[
        SERVICE,
        TRANSACTION,
        CLIENT.maybe(),
        PRIORITY,
        field("where", Type::Word(&["queue", "blocked", "held", "worker"]), "where it waits"),
        WORKER.maybe(),
        field("waited_us", Type::Micros, "how long it has waited"),
        field("left_us", Type::Micros, "how long it may"),
        field("attempt", Type::Number, "workers that died of it"),
        BYTES,
    ],
);

const WHY: Shape =
    array("why", &[SERVICE, WAITING, field("why", Type::Text, "why nobody serves them")]);

const POISON: Shape = array(
    "poison",
    &[
        TRANSACTION,
        SERVICE,
        CLIENT.maybe(),
        field("from", Type::Text, "who sent it"),
        field("deaths", Type::Number, "workers that died of it"),
        BYTES,
        field("at", Type::Time, "when it was set aside"),
    ],
);

/// The bytes of a request.
const REQUEST: Shape = object(
    "request",
    &[
        BYTES,
        field("shown", Type::Number, "how many of those bytes follow"),
        field("hex", Type::Raw, "those bytes as hexadecimal digits"),
        field("text", Type::Raw, "those bytes as UTF-8; invalid ones are replaced"),
    ],
)
.sometimes();

const LAST: Shape = object(
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

const WHOAMI: Shape = object(
    "whoami",
    &[
        CLIENT,
        ADDRESS,
        field("uid", Type::Number, "user id, where the kernel tells it").maybe(),
        field("token", Type::Text, "name of the token shown").maybe(),
        field("roles", Type::Texts, "its roles"),
    ],
);

const RELOAD: Shape =
    object("reload", &[field("tokens", Type::Number, "tokens in the file")]).sometimes();
const CERTIFICATES: Shape = array("certificates", &[TEXT]);

const EVENTS_MAX: Field = field("events_max", Type::Number, "most events remembered");
const SKIPPED: Field = field("skipped", Type::Number, "events that were not shown");
const FORGOTTEN: Field = field("count", Type::Number, "requests forgotten");
const VERSION: Field = field("version", Type::Text, "isectd's version");
const PROTOCOL: Field = field("protocol", Type::Number, "version of the protocol");
const CLONED_FROM: Field = field("from", Type::Number, "the worker cloned");
const PREEMPT: Field = field("preempt", Type::Flag, "the option as it is now");
const REJECT: Field = field("reject", Type::Flag, "whether new clients are refused");
const SENT_TO: Field = field("workers", Type::Number, "workers it was sent to");
const SAID: Field = field("status", Type::Text, "the worker's answer");
const SETTING: Field = field("setting", Type::Text, "the setting's name");
const VALUE_NOW: Field = field("value", Type::Value, "its value now");
const UNIT: Field = field("unit", Type::Text, "what the value counts");
const SOCKETS: Field = field("sockets", Type::Number, "sockets shut for writing");
const DONE: Field = field("commands", Type::Number, "commands done");

/// The parts of the answer to this command.
pub const fn of(command: Command) -> &'static [Shape] {
    use Command as C;
    const TARGETED: &[Field] = &[WORKER, SERVICE];
    match command {
        C::Status => const { &[STATUS] },
        C::Buckets => const { &[BUCKETS] },
        C::Client => const { &[CLIENT_PAGE] },
        C::Clients => const { &[CLIENTS, MORE] },
        C::Worker => const { &[WORKER_PAGE] },
        C::Workers => {
            const {
                &[
                    array("lazy", WORKER_ROW).sometimes(),
                    array("idle", WORKER_ROW).sometimes(),
                    array("busy", WORKER_ROW).sometimes(),
                    MORE,
                ]
            }
        }
        C::Services => const { &[array("services", &[SERVICE, SERVICE_ID, STATE, SINCE, REASON])] },
        C::Host => const { &[object("host", HOST_FIELDS)] },
        C::Hosts => const { &[array("hosts", HOST_FIELDS)] },
        C::Settings => const { &[array("settings", SETTING_ROW)] },
        C::ListEvents => const { &[array("events", EVENT), NOTE] },
        C::Watch => {
            const {
                &[
                    object("watching", &[TEXT]).sometimes(),
                    array("events", EVENT).sometimes(),
                    object("left_out", &[SKIPPED]).sometimes(),
                ]
            }
        }
        C::Latency => const { &[LATENCY, UNASKED] },
        C::Load => const { &[LOAD] },
        C::Queue => const { &[QUEUE, WHY, MORE] },
        C::Requests => const { &[REQUESTS, MORE] },
        C::Poison => {
            const { &[POISON.sometimes(), REQUEST, object("cleared", &[FORGOTTEN]).sometimes()] }
        }
        C::Last => const { &[LAST, REQUEST] },
        C::Whoami => const { &[WHOAMI] },
        C::Version => const { &[object("version", &[VERSION, PROTOCOL])] },
        C::Help => const { &[text("help")] },
        C::Save => const { &[text("script")] },
        C::Reload => const { &[RELOAD, CERTIFICATES] },
        C::Abort => const { &[object("abort", &[TEXT])] },
        C::Halt => const { &[object("halt", &[TEXT])] },
        C::Start | C::Stop | C::Reset => const { &[OK] },
        C::Block => const { &[object("blocked", &[CLIENT])] },
        C::Unblock => const { &[object("unblocked", &[CLIENT])] },
        C::Clone => const { &[object("cloned", &[WORKER, CLONED_FROM])] },
        C::ConfigEvents => const { &[object("configured", &[EVENTS_MAX])] },
        C::ConfigHost => const { &[object("configured", &[HOST, ADDRESS])] },
        C::ConfigService => {
            const {
                &[
                    object("configured", &[SERVICE, SERVICE_ID]).sometimes(),
                    object("changed", &[SERVICE, SERVICE_ID]).sometimes(),
                ]
            }
        }
        C::ConfigWorker => const { &[object("configured", TARGETED)] },
        C::DeleteClient => const { &[object("deleted", &[CLIENT])] },
        C::DeleteHost => const { &[object("deleted", &[HOST])] },
        C::DeleteService => const { &[object("deleted", &[SERVICE])] },
        C::DeleteWorker => const { &[object("deleted", &[WORKER])] },
        C::Idle => const { &[object("idled", &[WORKER])] },
        C::Pause => const { &[array("paused", TARGETED), NOTE] },
        C::Ready => {
            const { &[Shape { always: false, ..OK }, array("readied", TARGETED).sometimes()] }
        }
        C::Preempt => const { &[object("preempt", &[PREEMPT])] },
        C::Reject => const { &[object("reject", &[REJECT])] },
        C::Pri => const { &[object("pri", &[CLIENT, PRIORITY])] },
        C::Send => {
            const {
                &[
                    object("sent", &[SENT_TO]).sometimes(),
                    array("statuses", &[WORKER, SAID]).sometimes(),
                    NOTE,
                ]
            }
        }
        C::Service => {
            const {
                &[
                    object("moved", &[CLIENT, SERVICE]).sometimes(),
                    SERVICE_PAGE,
                    array("settings", SETTING_ROW).sometimes(),
                ]
            }
        }
        C::Set => {
            const {
                &[
                    object("set", &[SETTING, VALUE_NOW, UNIT]).sometimes(),
                    object("configured", &[EVENTS_MAX]).sometimes(),
                ]
            }
        }
        C::Shutdown => const { &[object("shutdown", &[SOCKETS])] },
        C::Source => const { &[object("sourced", &[DONE])] },
    }
}

/// The form of the part with this name; the form is the same in every command's answer.
pub(super) fn form(name: &str) -> Option<Form> {
    named(name).next().map(|shape| shape.form)
}

/// The JSON key of the field that a record's text calls `label`.
pub(super) fn key(record: &str, label: &'static str) -> &'static str {
    let found = named(record).flat_map(|shape| shape.fields).find(|field| field.label == label);
    found.map_or(label, |field| field.key)
}

fn named(name: &str) -> impl Iterator<Item = &'static Shape> {
    let all = COMMANDS.iter().flat_map(|row| of(row.command)).chain([&WARNING]);
    all.filter(move |shape| shape.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_name_is_one_thing_everywhere() {
        let all: Vec<&Shape> = COMMANDS.iter().flat_map(|row| of(row.command)).collect();
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
