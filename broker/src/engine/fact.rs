//! [`Fact`]: an event worth recording, and the TABLE of the kinds. A request that succeeds makes no
//! fact, only counters. The reactor logs facts, operators watch them, and `recent` keeps the last
//! ones.

use protocol::{ClientId, FactSeq, HostName, ServiceName, Tick, TransactionId, WorkerId};

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
}

macro_rules! facts {
    ($($kind:ident = $number:literal, $name:literal, $level:ident, $text:literal;)*) => {
        /// The kind of a fact.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
        pub enum FactKind {
            $(#[doc = $text] $kind,)*
        }

        /// TABLE of fact kinds, by number.
        pub const FACTS: &[FactRow] = &[
            $(FactRow { kind: FactKind::$kind, number: $number, name: $name, level: Level::$level, text: $text },)*
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
    BrokerStarted = 1, "broker_started", Info, "the broker listens";
    BrokerShutdown = 2, "broker_shutdown", Info, "the broker ends in order";
    Changed = 3, "changed", Info, "an operator, a script or the saved configuration changed something";
    Refused = 4, "refused", Info, "an operator's change was refused, or a command that it has no right to";
    PersistFailed = 5, "persist_failed", Error, "the configuration could not be written to the state directory, or half a change was found there";
    ScriptFailed = 6, "script_failed", Error, "commands of a script failed";
    TokensRead = 7, "tokens_read", Info, "the token file was read";
    TokensFailed = 8, "tokens_failed", Error, "the token file could not be read; the tokens in force stay";
    CertificateRead = 9, "certificate_read", Info, "a certificate was read; new connections get it";
    ClientIn = 10, "client_in", Debug, "a client logged in";
    ClientOut = 11, "client_out", Debug, "a client logged out or its connection ended";
    LoginRefused = 12, "login_refused", Warn, "a login was refused: who, from where, which token, why";
    LinkClosed = 13, "link_closed", Warn, "the broker closed a connection: garbage, slow reader, silence, a limit";
    PeerError = 14, "peer_error", Warn, "a client or worker complained about its connection";
    CertificateFailed = 16, "certificate_failed", Error, "a certificate could not be read; the old one stays in use";
    CertificateExpiring = 17, "certificate_expiring", Warn, "a certificate has expired, or will soon";
    FactsLeftOut = 18, "facts_left_out", Warn, "peers caused more facts than are recorded; how many were left out (one fact a second)";
    WorkerStart = 20, "worker_start", Info, "execd was asked to start a worker";
    WorkerUp = 21, "worker_up", Debug, "a worker's process runs";
    WorkerReady = 22, "worker_ready", Info, "a worker logged in";
    WorkerAdopted = 23, "worker_adopted", Info, "a worker that was running already came back and was taken over";
    WorkerDied = 24, "worker_died", Warn, "a worker ended unexpectedly; one fact each time";
    WorkerEnded = 25, "worker_ended", Info, "a worker ended after a stop";
    WorkerRestart = 26, "worker_restart", Info, "a worker is to be started again, now or after a backoff";
    WorkerFailed = 27, "worker_failed", Error, "a worker ended too often, or can't be started; it stays lazy until 'start'";
    WorkerKilled = 28, "worker_killed", Warn, "a worker was ended by the broker: overdue, no login, silent; its end is no fact of its own";
    WorkerOutput = 29, "worker_output", Info, "a line that a worker wrote on stdout or stderr";
    WorkerStatus = 30, "worker_status", Info, "a worker's answer to `send … status`";
    WorkerLost = 31, "worker_lost", Warn, "a worker lost its connection and did not end with it; it may come back";
    HostUp = 40, "host_up", Info, "a host's execd is linked";
    HostLost = 41, "host_lost", Error, "the link to a host's execd broke or can't be made";
    HostError = 42, "host_error", Warn, "an execd answered with an error";
    HostWarning = 43, "host_warning", Warn, "a host runs workers with more rights than they need, or with others than are in force now";
    HostShutdown = 44, "host_shutdown", Info, "a host's execd shuts down in order: it ends its workers, and nothing is started there until it is linked anew";
    RequestFailed = 50, "request_failed", Debug, "a request ended with an error";
    RequestRetried = 51, "request_retried", Warn, "a request whose worker died waits for another one";
    RequestOverdue = 52, "request_overdue", Warn, "a request's time was over while a worker has it; the worker stays busy";
    RequestPoison = 53, "request_poison", Error, "a request was set aside: workers died of it";
    LateReply = 54, "late_reply", Debug, "a reply came for a transaction that had ended; it was dropped";
    Intervention = 55, "intervention", Warn, "an operator took a request away from its worker";
    Overloaded = 56, "overloaded", Warn, "requests are refused because a queue or the memory is full (one fact a second)";
    RetryDenied = 57, "retry_denied", Warn, "requests whose worker died are not given to another one because the retry budget is used up (one fact a second)";
}

/// One event, as it is logged, kept and shown.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Number of the fact, counted from 1 since the broker started.
    pub seq: FactSeq,
    /// When it was recorded.
    pub at: Tick,
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
    /// Who asked for a change, or the address of a peer that was refused.
    pub who: Option<String>,
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
        }
    }
}
