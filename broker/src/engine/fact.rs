//! [`Fact`]: an event worth recording, and the TABLE of the kinds. A request that succeeds makes no
//! fact, only counters. The reactor logs facts, operators watch them, and `recent` keeps the last
//! ones.

use protocol::{
    ClientId, ErrorCode, FactSeq, HostName, Micros, Ran, ServiceName, TransactionId, Wall, WorkerId,
};

/// The level of a fact in the log, from the least important.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// An event that only matters to somebody who looks for a fault.
    Debug,
    /// An ordinary change.
    Info,
    /// A fault that the broker dealt with.
    Warn,
    /// A fault that needs a person.
    Error,
}

macro_rules! fields {
    ($($field:ident = $key:literal, $text:literal;)*) => {
        /// A field that a fact may have beside its text.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FactField {
            $(#[doc = $text] $field,)*
        }

        impl FactField {
            /// All fields, in the order in which they are shown.
            pub const ALL: &[Self] = &[$(Self::$field,)*];

            /// The key in JSON.
            pub const fn key(self) -> &'static str {
                match self { $(Self::$field => $key,)* }
            }

            /// The meaning; docs/facts.md shows it.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$field => $text,)* }
            }
        }
    };
}

fields! {
    Client = "client", "the client whose login, requests or connection it is about";
    Worker = "worker", "the worker";
    Service = "service", "name of the service";
    Host = "host", "name of the host";
    Transaction = "transaction", "the request";
    Instance = "instance", "the instance: its name and its id";
    Who = "who", "who asked for a change, or the address of a peer that was refused";
    Waited = "waited_us", "how long the request waited until its worker began it, or has waited so far";
    Worked = "worked_us", "how long the worker had the request, or how long the process had run";
    Delay = "delay_us", "how long it takes until that happens";
    Attempt = "attempt", "how many workers the request was given to";
    Deaths = "deaths", "how many workers died of the request";
    Death = "death", "the number of the death: 'death ID' shows it";
    Error = "error", "the error that the request ended with, or that was sent to a peer or came from it";
    Ran = "ran", "whether the work ran, as that error says";
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct FactRow {
    /// The kind that this row describes.
    pub kind: FactKind,
    /// Number of the kind, for programs; never used again.
    pub number: u16,
    /// Name of the kind in logs, in `config events` and `watch`.
    pub name: &'static str,
    /// Level at which facts of this kind are logged.
    pub level: Level,
    /// When facts of this kind are recorded; docs/facts.md shows it.
    pub text: &'static str,
    /// The fields that facts of this kind may have; no others are ever set.
    pub fields: &'static [FactField],
}

macro_rules! facts {
    ($($kind:ident = $number:literal, $name:literal, $level:ident, $text:literal, [$($field:ident),*];)*) => {
        /// The kind of a fact.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FactKind {
            $(#[doc = $text] $kind,)*
        }

        /// TABLE of fact kinds, by number.
        pub const FACTS: &[FactRow] = &[
            $(FactRow {
                kind: FactKind::$kind,
                number: $number,
                name: $name,
                level: Level::$level,
                text: $text,
                fields: &[$(FactField::$field),*],
            },)*
        ];

        impl FactKind {
            /// The number of the kind.
            pub const fn number(self) -> u16 {
                match self { $(Self::$kind => $number,)* }
            }

            /// The row of the table.
            pub const fn row(self) -> &'static FactRow {
                let mut index = 0;
                while FACTS[index].number != self.number() {
                    index += 1;
                }
                &FACTS[index]
            }
        }
    };
}

facts! {
    BrokerStarted = 1, "broker_started", Info, "the broker listens", [];
    BrokerShutdown = 2, "broker_shutdown", Info, "the broker ends in order", [];
    Changed = 3, "changed", Info, "an operator, a script or the saved configuration changed something", [Who];
    Refused = 4, "refused", Info, "an operator's change was refused, or a command that it has no right to", [Who];
    PersistFailed = 5, "persist_failed", Error, "the configuration could not be written to the state directory, or half a change was found there", [];
    ScriptFailed = 6, "script_failed", Error, "commands of a script failed", [Who];
    TokensRead = 7, "tokens_read", Info, "the token file was read", [Who];
    TokensFailed = 8, "tokens_failed", Error, "the token file could not be read; the tokens in force stay", [Who];
    CertificateRead = 9, "certificate_read", Info, "a certificate was read; new connections get it", [Who];
    ClientIn = 10, "client_in", Debug, "a client logged in", [Client, Service];
    ClientOut = 11, "client_out", Debug, "a client logged out or its connection ended", [Client, Service];
    LoginRefused = 12, "login_refused", Warn, "a login was refused: who, from where, which token, why", [Who, Error, Ran];
    LinkClosed = 13, "link_closed", Warn, "the broker closed a connection: garbage, slow reader, silence, a limit", [Client, Worker, Service, Host, Who, Error, Ran];
    PeerError = 14, "peer_error", Warn, "a client or worker complained about its connection", [Client, Worker, Service, Host, Who, Error, Ran];
    CertificateFailed = 16, "certificate_failed", Error, "a certificate could not be read; the old one stays in use", [Who];
    CertificateExpiring = 17, "certificate_expiring", Warn, "a certificate has expired, or will soon", [Who];
    FactsLeftOut = 18, "facts_left_out", Warn, "peers caused more facts than are recorded; how many were left out (one fact a second)", [];
    WorkerStart = 20, "worker_start", Info, "execd was asked to start a worker", [Worker, Service, Host];
    WorkerUp = 21, "worker_up", Debug, "a worker's process runs", [Worker, Service, Host];
    WorkerReady = 22, "worker_ready", Info, "a worker logged in", [Worker, Service, Host];
    WorkerAdopted = 23, "worker_adopted", Info, "a worker that was running already came back and was taken over", [Worker, Service, Host];
    WorkerDied = 24, "worker_died", Warn, "a worker ended unexpectedly; one fact each time", [Worker, Service, Host, Worked, Death];
    WorkerEnded = 25, "worker_ended", Info, "a worker ended after a stop", [Worker, Service, Host, Worked];
    WorkerRestart = 26, "worker_restart", Info, "a worker is to be started again, now or after a backoff", [Worker, Service, Host, Delay];
    WorkerFailed = 27, "worker_failed", Error, "a worker ended too often, or can't be started; it stays lazy until 'start'", [Worker, Service, Host];
    WorkerKilled = 28, "worker_killed", Warn, "a worker was ended by the broker: overdue, no login, silent; its end is no fact of its own", [Worker, Service, Host];
    WorkerOutput = 29, "worker_output", Info, "a line that a worker wrote on stdout or stderr", [Worker, Service, Host];
    WorkerStatus = 30, "worker_status", Info, "a worker's answer to `send … status`", [Worker, Service, Host];
    WorkerLost = 31, "worker_lost", Warn, "a worker lost its connection and did not end with it; it may come back", [Worker, Service, Host];
    HostUp = 40, "host_up", Info, "a host's execd is linked", [Host];
    HostLost = 41, "host_lost", Error, "the link to a host's execd broke or can't be made", [Host];
    HostError = 42, "host_error", Warn, "an execd answered with an error", [Host, Error, Ran];
    HostWarning = 43, "host_warning", Warn, "a host runs workers with more rights than they need, or with others than are in force now", [Host];
    HostShutdown = 44, "host_shutdown", Info, "a host's execd shuts down in order: it ends its workers, and nothing is started there until it is linked anew", [Host];
    RequestFailed = 50, "request_failed", Debug, "a request ended with an error", [Client, Worker, Service, Transaction, Waited, Worked, Attempt, Deaths, Error, Ran];
    RequestRetried = 51, "request_retried", Warn, "a request whose worker died waits for another one", [Worker, Service, Transaction, Waited, Worked, Attempt, Deaths];
    RequestOverdue = 52, "request_overdue", Warn, "a request's time was over while a worker has it; the worker stays busy", [Worker, Service, Transaction, Waited, Worked, Attempt];
    RequestPoison = 53, "request_poison", Error, "a request was set aside: workers died of it", [Worker, Service, Transaction, Waited, Worked, Attempt, Deaths];
    LateReply = 54, "late_reply", Debug, "a reply came for a transaction that had ended; it was dropped", [Worker, Service, Transaction];
    Intervention = 55, "intervention", Warn, "an operator took a request away from its worker", [Client, Worker, Service, Host, Transaction, Who];
    Overloaded = 56, "overloaded", Warn, "requests are refused because a queue or the memory is full (one fact a second)", [Service, Error, Ran];
    RetryDenied = 57, "retry_denied", Warn, "requests whose worker died are not given to another one because the retry budget is used up (one fact a second)", [Service];
    MessagesDropped = 60, "messages_dropped", Warn, "messages of topics were not sent to a subscriber that reads too slowly; how many in this second (one fact a second and subscriber)", [Client, Worker];
    InstanceTimedOut = 70, "instance_timed_out", Warn, "no beat came of an instance for its time-out", [Instance];
    InstanceBack = 71, "instance_back", Info, "an instance that was timed out goes on", [Instance];
    InstanceLost = 72, "instance_lost", Warn, "the connection of an instance that ran ended without a logout", [Instance];
    RestartBegun = 80, "restart_begun", Info, "the workers of a service begin to be replaced by new processes, one after another ('restart')", [Service, Who];
    RestartStep = 81, "restart_step", Info, "a worker was replaced: its new process is ready and stayed so for stable_ms; or a temporary one stands in, or has ended", [Worker, Service, Host];
    RestartDone = 82, "restart_done", Info, "all workers that a restart was for are replaced", [Service, Who];
    RestartFailed = 83, "restart_failed", Error, "a worker's new process did not become ready or stay so, or could not be started: the restart, or the recycling, of its service stopped there", [Worker, Service, Host, Who];
    WorkerRecycled = 84, "worker_recycled", Info, "a worker is replaced by a new process because of recycle_requests, recycle_age_ms or recycle_memory", [Worker, Service, Host];
    MemoryMaxTooLow = 85, "memory_max_too_low", Warn, "a worker has more memory than recycle_memory before it has answered 20 requests, so it is not replaced: each new one would be, too; one fact each time that the limit is set", [Worker, Service, Host];
}

/// One event, as it is logged, kept and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Number of the fact, counted from 1 since the broker started.
    pub seq: FactSeq,
    /// What the clock showed when it was recorded. A clock that is set later does not change it.
    pub at: Wall,
    /// The row of the table that it belongs to.
    pub kind: FactKind,
    /// The ids that it is about.
    pub about: About,
    /// What happened, on one line of at most `FACT_BYTES_MAX` bytes.
    pub text: String,
}

/// The ids that a fact is about; `None` = not concerned, or not known.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The client whose login, requests or connection it is about.
    pub client: Option<ClientId>,
    /// The configured or self-started worker.
    pub worker: Option<WorkerId>,
    /// Name of the service; it may be deleted by now.
    pub service: Option<ServiceName>,
    /// Name of the host; it may be deleted by now.
    pub host: Option<HostName>,
    /// The transaction, for facts about one request.
    pub transaction: Option<TransactionId>,
    /// The instance, by name and id.
    pub instance: Option<String>,
    /// Who asked for a change, or the address of a peer that was refused.
    pub who: Option<String>,
    /// Durations and counts.
    pub values: Values,
}

/// The durations and counts of a fact; `None` = not concerned, or not known.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Values {
    /// How long the request waited until its worker began it, or has waited so far.
    pub waited: Option<Micros>,
    /// How long the worker had the request, or how long the process had run since its start.
    pub worked: Option<Micros>,
    /// How long it takes until the event that the fact announces.
    pub delay: Option<Micros>,
    /// How many workers the request was given to.
    pub attempt: Option<u32>,
    /// How many workers died of the request, as counted in `Transaction::deaths`.
    pub deaths: Option<u64>,
    /// The number of the death that has more.
    pub death: Option<u64>,
    /// The error that the request ended with, or that the peer was sent or sent itself.
    pub error: Option<ErrorCode>,
    /// Whether the work ran, as that error says.
    pub ran: Option<Ran>,
}

impl About {
    /// Whether a field is set.
    pub const fn has(&self, field: FactField) -> bool {
        let values = &self.values;
        match field {
            FactField::Client => self.client.is_some(),
            FactField::Worker => self.worker.is_some(),
            FactField::Service => self.service.is_some(),
            FactField::Host => self.host.is_some(),
            FactField::Transaction => self.transaction.is_some(),
            FactField::Instance => self.instance.is_some(),
            FactField::Who => self.who.is_some(),
            FactField::Waited => values.waited.is_some(),
            FactField::Worked => values.worked.is_some(),
            FactField::Delay => values.delay.is_some(),
            FactField::Attempt => values.attempt.is_some(),
            FactField::Deaths => values.deaths.is_some(),
            FactField::Death => values.death.is_some(),
            FactField::Error => values.error.is_some(),
            FactField::Ran => values.ran.is_some(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_sorted() {
        for pair in FACTS.windows(2) {
            assert!(pair[0].number < pair[1].number, "{}", pair[1].name);
        }
        for row in FACTS {
            assert_eq!(FACTS.iter().filter(|other| other.name == row.name).count(), 1);
            assert!(!row.text.is_empty() && !row.text.ends_with('.'));
            assert!(row.fields.is_sorted() && row.fields.windows(2).all(|two| two[0] != two[1]));
        }
    }
}
