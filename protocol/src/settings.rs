//! TABLE of settings: name, unit, range, default, whether it may change while the broker runs,
//! text. `isectd --set`, the operator's `settings` and `set`, `config service … NAME=VALUE` and the
//! documents read it. The engine and the reactor use the values.

use std::fmt;

/// The unit of a setting's value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unit {
    /// A time in milliseconds.
    Millis,
    /// A size in bytes.
    Bytes,
    /// A number of things.
    Count,
    /// 0 = off, 1 = on.
    Switch,
    /// The number of one of these words, which are how it is written.
    Choice(&'static [&'static str]),
}

impl Unit {
    /// The word shown beside a value.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Millis => "ms",
            Self::Bytes => "bytes",
            Self::Count => "count",
            Self::Switch => "0|1",
            Self::Choice(_) => "word",
        }
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct SettingRow {
    /// The name: lower case, words joined by `_`, the unit last.
    pub name: &'static str,
    /// The unit of the values below and of every value that is set.
    pub unit: Unit,
    /// Lowest value that is accepted.
    pub min: u64,
    /// Highest value that is accepted.
    pub max: u64,
    /// The value in force unless it is set.
    pub default: u64,
    /// Whether `set` may change it while the broker runs; if not, only `--set` at the start does.
    pub live: bool,
    /// The meaning, in a sentence or two.
    pub text: &'static str,
}

impl SettingRow {
    /// A value as it is written: the word of a choice, else the number.
    pub fn written(&self, value: u64) -> String {
        let Choice(words) = self.unit else { return value.to_string() };
        let word = usize::try_from(value).ok().and_then(|at| words.get(at));
        word.map_or_else(|| value.to_string(), |word| (*word).to_owned())
    }

    /// A value as it is shown: with its unit, if it is a number.
    pub fn with_unit(&self, value: u64) -> String {
        match self.unit {
            Choice(_) => self.written(value),
            Millis | Bytes | Count | Switch => format!("{value} {}", self.unit.word()),
        }
    }

    /// The values that are accepted: the words of a choice, else the limits with this between them.
    pub fn range(&self, between: &str) -> String {
        match self.unit {
            Choice(words) => words.join(" or "),
            Millis | Bytes | Count | Switch => format!("{}{between}{}", self.min, self.max),
        }
    }
}

/// Why a value is refused, as text for a person.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SettingError(pub String);

impl fmt::Display for SettingError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for SettingError {}

fn take(row: &SettingRow, text: &str) -> Result<u64, SettingError> {
    if let Choice(words) = row.unit {
        let at = words.iter().position(|word| *word == text);
        return at.map(|at| at as u64).ok_or_else(|| {
            let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            SettingError(format!("{} '{shown}' is none of {}", row.name, words.join(", ")))
        });
    }
    let value: u64 = match (row.unit, text) {
        (Switch, "on" | "yes") => 1,
        (Switch, "off" | "no") => 0,
        _ => text.parse().map_err(|_| {
            let shown: String = text.chars().take(40).flat_map(char::escape_debug).collect();
            SettingError(format!(
                "{} '{shown}' is not a whole number; it is {} to {} {}",
                row.name,
                row.min,
                row.max,
                row.unit.word()
            ))
        })?,
    };
    if row.unit == Switch && value > 1 {
        return Err(SettingError(format!("{} {value} is neither on (1) nor off (0)", row.name)));
    }
    if value < row.min || value > row.max {
        return Err(SettingError(format!(
            "{} {value} is out of range; it is {} to {} {}",
            row.name,
            row.min,
            row.max,
            row.unit.word()
        )));
    }
    Ok(value)
}

macro_rules! settings {
    ($(#[$doc:meta])* $enum:ident, $table:ident, $values:ident;
     $($setting:ident = $name:literal, $unit:expr, $min:expr, $max:expr, $default:expr, $live:literal, $text:literal;)*) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum $enum {
            $(#[doc = $text] $setting,)*
        }

        /// TABLE of these settings, in the order of the variants.
        pub const $table: &[SettingRow] = &[
            $(SettingRow { name: $name, unit: $unit, min: $min, max: $max, default: $default, live: $live, text: $text },)*
        ];

        impl $enum {
            /// All of these settings, in the order of the table.
            pub const ALL: &[Self] = &[$(Self::$setting,)*];

            /// The row of this setting.
            pub const fn row(self) -> &'static SettingRow {
                &$table[self as usize]
            }

            /// The setting with this name; `None` if there is none.
            pub fn named(name: &str) -> Option<Self> {
                Self::ALL.iter().copied().find(|setting| setting.row().name == name)
            }

            /// Parses a value and checks its range.
            ///
            /// # Errors
            /// Names the setting, the value and the range.
            pub fn check(self, text: &str) -> Result<u64, SettingError> {
                take(self.row(), text)
            }
        }

        /// One value for each setting of the table.
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub struct $values([u64; $table.len()]);

        impl Default for $values {
            fn default() -> Self {
                Self([$($default,)*])
            }
        }

        impl $values {
            /// The value in force, in the unit of the setting's row.
            pub const fn get(&self, setting: $enum) -> u64 {
                self.0[setting as usize]
            }

            /// Sets a value that the setting's `check` has accepted.
            pub fn set(&mut self, setting: $enum, value: u64) {
                self.0[setting as usize] = value;
            }

            /// Whether the value is not the table's default.
            pub const fn is_changed(&self, setting: $enum) -> bool {
                self.0[setting as usize] != setting.row().default
            }
        }
    };
}

use Unit::{Bytes, Choice, Count, Millis, Switch};

const HOUR_MS: u64 = 3_600_000;
const GIB: u64 = 1 << 30;

settings! {
    /// A setting of the broker as a whole.
    Setting, SETTINGS, Settings;
    ConnectionsMax = "connections_max", Count, 0, 1_000_000, 0, true, "most client connections at once; 0 = what the descriptor limit allows, less what workers and files need (the manual's MaxUsers)";
    RequestsMax = "requests_max", Count, 1, 1_000_000, 1024, true, "most requests under way on one connection; a client to which more was announced at its login may have as many";
    BodyBytesMax = "body_bytes_max", Bytes, 1024, crate::limits::BODY_BYTES_MAX as u64, crate::limits::BODY_BYTES_DEFAULT as u64, false, "most bytes in the body of one frame";
    QueueBytesMax = "queue_bytes_max", Bytes, 4096, 1 << 40, GIB / 2, true, "most bytes of all requests that wait or are kept for a retry; past it requests are refused as overloaded";
    OutboxBytesMax = "outbox_bytes_max", Bytes, 65_536, GIB, 32 << 20, true, "most bytes waiting to be sent on one connection; past it the connection is closed. It is never less than one largest frame";
    OutboxBytesHigh = "outbox_bytes_high", Bytes, 4096, GIB, 256 << 10, true, "bytes waiting on one connection from which on those who send to it, and a client itself, are read no further";
    OutboxesBytesMax = "outboxes_bytes_max", Bytes, 1 << 20, 1 << 40, GIB / 2, true, "most bytes waiting to be sent to all peers together; past it a client for whom more than outbox_bytes_high wait is closed when more is to be sent to it";
    InboxesBytesMax = "inboxes_bytes_max", Bytes, 1 << 20, 1 << 40, GIB / 2, true, "most bytes set aside for large frames (over 16 KiB) of all clients that have come only in part; past it a frame that comes in part is refused as overloaded. It is never less than one largest frame";
    FrameMs = "frame_ms", Millis, 100, HOUR_MS, 30_000, true, "time for a frame that has begun to come to be whole, and one ms more for each 16 bytes of it that came; then the connection is closed";
    StallMs = "stall_ms", Millis, 100, HOUR_MS, 10_000, true, "a connection that takes none of the bytes waiting for it this long is closed";
    LoginMs = "login_ms", Millis, 10, 60_000, 2000, true, "time for a new connection to send its login";
    IdleMs = "idle_ms", Millis, 0, 24 * HOUR_MS, 0, true, "a client without requests under way that says nothing this long is closed; 0 = never. Operators who watch are not meant";
    HeartbeatMs = "heartbeat_ms", Millis, 100, 60_000, 1000, true, "a silent idle worker, host or heartbeat client is pinged this often";
    SilenceMs = "silence_ms", Millis, 200, 10 * 60_000, 3000, true, "a peer that owes answers to pings and says nothing this long is gone; on TCP from other machines also one whose machine acknowledges nothing this long (connections made later). A peer to which more was announced at its login has as long";
    WorkerLoginMs = "worker_login_ms", Millis, 10, 600_000, 10_000, true, "time for a started worker to log in; then it is killed and tried again";
    ReturnMs = "return_ms", Millis, 10, 600_000, 2000, true, "time for a worker whose connection broke to end or come back before its process is ended; on another host, which may be unreachable, at least reconnect_ms, silence_ms and 5 s together";
    ReconnectMs = "reconnect_ms", Millis, 0, HOUR_MS, 60_000, true, "how long a worker tries to come back when the broker is gone or can't be reached; 0 = not at all. It is announced at each login, and holds for those that log in later";
    StopAskMs = "stop_ask_ms", Millis, 0, 600_000, 2000, true, "after a stop: time for a worker to end by itself before TERM";
    StopTermMs = "stop_term_ms", Millis, 0, 600_000, 5000, true, "after a stop: time between TERM and KILL";
    OnTerm = "on_term", Choice(&["end", "keep"]), 0, 1, 0, true, "what SIGTERM and SIGINT do: `end` all workers, too, or `keep` workers and hosts for the next broker, as `halt keep` does";
    HaltMs = "halt_ms", Millis, 0, HOUR_MS, 30_000, true, "how long `halt keep` waits for the requests that workers have";
    RestartMinMs = "restart_min_ms", Millis, 1, 600_000, 1000, true, "second restart of a worker waits this long, each further one twice as long; the first is at once";
    RestartMaxMs = "restart_max_ms", Millis, 1, HOUR_MS, 30_000, true, "longest wait between restarts";
    RestartQuietMs = "restart_quiet_ms", Millis, 10, HOUR_MS, 60_000, true, "a worker that stayed ready this long starts again with a clean sheet";
    RestartEarlyMax = "restart_early_max", Count, 1, 1000, 5, true, "ends before ready, in a row, after which a worker is failed";
    RestartMinuteMax = "restart_minute_max", Count, 1, 100_000, 10, true, "ends within a minute after which a worker is failed";
    HostRetryMs = "host_retry_ms", Millis, 10, HOUR_MS, 5000, true, "longest wait between attempts to reach a host's execd; the first is 50 ms, then doubling";
    ConversationsMax = "conversations_max", Count, 0, 1_000_000, 10_000, true, "most conversations without a deadline (open_ended) of one client at once; they do not count for requests_max";
    EventsMax = "events_max", Count, 0, 1_000_000, 1000, true, "facts remembered for listevents (`config events N` sets it)";
    EventsBytesMax = "events_bytes_max", Bytes, 0, GIB, 1 << 20, true, "most bytes of these; the oldest are dropped";
    DeathsMax = "deaths_max", Count, 0, 100_000, 100, true, "ends of workers' processes that were failures and are remembered for `deaths`; the oldest is dropped";
    DeathsBytesMax = "deaths_bytes_max", Bytes, 0, GIB, 4 << 20, true, "most bytes of these, with the requests that the workers had; the oldest are dropped. As many may be taken by what workers had whose end is awaited";
    PoisonMax = "poison_max", Count, 0, 10_000, 16, true, "poison requests whose bytes are kept for the operator";
    LastBytesMax = "last_bytes_max", Bytes, 0, 1 << 20, 4096, true, "bytes of a worker's last request that are kept for `last`";
    TraceSlowMs = "trace_slow_ms", Millis, 0, 24 * HOUR_MS, 1000, true, "what became of a request that took this long or longer, from its arrival on, is kept for `why`; 0 = only of those that failed or are sampled";
    TraceSample = "trace_sample", Count, 0, 1_000_000_000, 0, true, "what became of one of so many requests is kept for `why`, however it went; 1 = of each, 0 = of none";
    TracesMax = "traces_max", Count, 0, 100_000, 1000, true, "requests that ended and whose time line is kept for `why`; the oldest is dropped";
    TracesBytesMax = "traces_bytes_max", Bytes, 0, GIB, 2 << 20, true, "most bytes of the time lines kept for `why`; the oldest are dropped";
    WatchersMax = "watchers_max", Count, 0, 10_000, 64, true, "operators that may watch at once";
    SubscriptionsMax = "subscriptions_max", Count, 0, 10_000_000, 10_000, true, "most subscriptions of one connection";
    SubscriptionQueueMax = "topic_queue_max", Count, 1, 1_000_000, 10_000, true, "most messages that wait for one subscription whose reader is too slow; past it the oldest is dropped, and the next one says how many";
    SubscriptionQueueBytesMax = "topic_queue_bytes_max", Bytes, 1024, GIB, 4 << 20, true, "most bytes of the messages that wait for one subscription; the newest waits in any case";
    SubscriptionQueuesBytesMax = "topic_queues_bytes_max", Bytes, 1 << 20, 1 << 40, GIB / 4, true, "most bytes of the messages that wait for all subscriptions together, each counted as often as it waits; past it a subscription that gets a further one drops its oldest";
    RetainedMax = "retained_max", Count, 0, 10_000_000, 200_000, true, "most topics of which the last message is kept (`retain`); a message to be kept of a further one is refused";
    RetainedBytesMax = "retained_bytes_max", Bytes, 0, 1 << 40, GIB / 8, true, "most bytes of all messages that are kept (`retain`)";
    TopicRingMax = "topic_ring_max", Count, 0, 10_000_000, 10_000, true, "the last messages of all topics that are remembered for subscribers that come back (`from`)";
    TopicRingBytesMax = "topic_ring_bytes_max", Bytes, 0, 1 << 40, 8 << 20, true, "most bytes of these";
    InstancesMax = "instances_max", Count, 0, 10_000_000, 100_000, true, "most instances that programs have announced, of all connections together";
    InstancesBytesMax = "instances_bytes_max", Bytes, 0, 1 << 40, 64 << 20, true, "most bytes of all that programs announced (names, groups, addresses, meta, names of states), with what is noted beside it";
    ConnectionInstancesMax = "connection_instances_max", Count, 0, 1_000_000, 10_000, true, "most instances that are announced on one connection";
    InstanceHistoryMax = "instance_history_max", Count, 0, 100_000, 100, true, "instances that ended and are remembered with their last state and checkpoint";
    ActivityTimeoutMs = "activity_timeout_ms", Millis, 100, 24 * HOUR_MS, 5000, true, "an instance without a beat for so long is timed out, if it was announced without a time of its own";
    BeatMs = "beat_ms", Millis, 20, 60_000, 500, true, "how often programs are asked to say that their instances go on";
}

settings! {
    /// A setting of one service, given in `config service NAME SETTING=VALUE …`.
    ServiceSetting, SERVICE_SETTINGS, ServiceSettings;
    DeadlineMs = "deadline_ms", Millis, 1, crate::limits::DEADLINE_MS_MAX, 30_000, true, "how long a request that names no deadline may take, waiting included";
    QueueMax = "queue_max", Count, 0, 10_000_000, 10_000, true, "most requests that wait for a worker";
    AdmitPercent = "admit_percent", Count, 0, 1000, 80, true, "a request that must wait is refused as overloaded when those ahead of it, at the present service rate, and its own work would take more than so many per cent of its deadline; 0 = never";
    Retry = "retry", Count, 0, 100, 0, true, "how often a request whose worker died is given to another one without the idempotent flag";
    RetryIdempotent = "retry_idempotent", Count, 0, 100, 3, true, "how often a request with the idempotent flag is given to another worker";
    RetryPercent = "retry_percent", Count, 0, 1000, 10, true, "retry budget: so many per cent of the requests that workers got for the first time in the last 10 to 20 s may be given to another one";
    RetryMin = "retry_min", Count, 0, 1_000_000, 3, true, "retry budget: so many more in that time, whatever the traffic";
    PoisonDeaths = "poison_deaths", Count, 1, 100, 2, true, "deaths of workers after which a request is set aside as poison";
    KillAfterMs = "kill_after_ms", Millis, 0, 24 * HOUR_MS, 0, true, "a worker busy with one request longer than this is killed and restarted; 0 = never";
    Prefetch = "prefetch", Count, 0, 1024, 0, true, "further requests that a worker may hold while it answers one; of no effect where workers answer several at a time (concurrency), or with open_ended";
    Concurrency = "concurrency", Count, 0, crate::limits::CONCURRENCY_MAX as u64, 0, true, "most requests that one worker is given at a time; 0 = as many as the worker says at its login. A worker that says nothing gets one, whatever is set here";
    OpenEnded = "open_ended", Switch, 0, 1, 0, true, "whether a request goes on without a deadline, and takes no room in its worker, once the worker has sent the first part of a reply (`more`): locks, watches. Its client must have promised `heartbeat`";
    ConversationsMax = "conversations_max", Count, 0, 1_000_000, 100_000, true, "most conversations without a deadline (open_ended) in the service at once";
    Single = "single", Switch, 0, 1, 0, true, "whether the service has one worker at most, because that keeps state: a second one is refused";
    Start = "start", Choice(&["always", "demand"]), 0, 1, 0, true, "when its workers run: `always`, or on `demand`, that is from the first login or request on, until idle_stop_ms";
    IdleStopMs = "idle_stop_ms", Millis, 0, 24 * HOUR_MS, 60_000, true, "workers that were started on demand end when nothing was to be done for so long; 0 = never";
    Protocol = "protocol", Choice(&["isect", "none"]), 0, 1, 0, true, "what its programs speak: `isect` are workers and log in; with `none` they are any programs, which are started, watched and ended, and get neither requests nor a secret";
    StableMs = "stable_ms", Millis, 0, HOUR_MS, 1000, true, "a worker that ends within so long after it was ready fails the step of a `restart`";
    RecycleRequests = "recycle_requests", Count, 0, 1_000_000_000, 0, true, "a worker that has answered so many requests is replaced by a new process; 0 = never";
    RecycleAgeMs = "recycle_age_ms", Millis, 0, 365 * 24 * HOUR_MS, 0, true, "a worker whose process is that old is replaced by a new one; 0 = never";
    RecycleMemory = "recycle_memory", Bytes, 0, 1 << 50, 0, true, "a worker whose process has more memory than this (resident, checked on its host) is replaced by a new one; 0 = never. It holds from the next start of each worker on";
    OutputBytes = "output_bytes", Bytes, 0, GIB, 1 << 20, true, "bytes of one file in which a worker's host keeps what it writes on stdout and stderr; 0 = nothing is kept. It holds from the next start of each worker on";
    OutputFiles = "output_files", Count, 1, 100, 3, true, "how many such files are kept for each worker; the oldest is removed. It holds from the next start of each worker on";
    SelfStart = "selfstart", Switch, 0, 1, 0, true, "whether workers that were not started by execd may log in (containers, a debugger)";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tables_keep_their_laws() {
        for table in [SETTINGS, SERVICE_SETTINGS] {
            for row in table {
                assert!(row.min <= row.default && row.default <= row.max, "{}", row.name);
                assert_eq!(table.iter().filter(|other| other.name == row.name).count(), 1);
                assert!(!row.text.is_empty() && !row.text.ends_with('.'));
                assert!(row.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'));
            }
        }
        for setting in Setting::ALL {
            assert_eq!(Setting::named(setting.row().name), Some(*setting));
        }
    }

    #[test]
    fn a_choice_is_shown_in_words() {
        let (choice, number) = (Setting::OnTerm.row(), Setting::LoginMs.row());
        assert_eq!(
            (choice.with_unit(1), choice.range(" – ")),
            ("keep".into(), "end or keep".into())
        );
        assert_eq!((number.with_unit(7), number.range("-")), ("7 ms".into(), "10-60000".into()));
    }

    #[test]
    fn values_are_taken_at_the_limit_and_refused_past_it() {
        assert_eq!(ServiceSetting::QueueMax.check("10000000"), Ok(10_000_000));
        let error = ServiceSetting::QueueMax.check("10000001").unwrap_err().to_string();
        assert!(error.contains("0 to 10000000 count"), "{error}");
        assert!(Setting::LoginMs.check("-1").is_err());
        assert_eq!(ServiceSetting::SelfStart.check("on"), Ok(1));
    }
}
