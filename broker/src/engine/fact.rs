//! [`Fact`]: an event worth recording, and the TABLE of the kinds. A request that succeeds makes no
//! fact, only counters. The reactor logs facts; `recent` keeps the last ones.

use protocol::ids::{ClientId, FactSeq, TransactionId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::time::Tick;

/// How loud a fact is in the log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Level {
    /// Only of interest when looking for something.
    Debug,
    /// An ordinary change.
    Info,
    /// Something went wrong and was dealt with.
    Warn,
    /// Something needs a person.
    Error,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct FactRow {
    /// The kind.
    pub kind: FactKind,
    /// Its number; never used again.
    pub number: u16,
    /// Its name.
    pub name: &'static str,
    /// How loud it is.
    pub level: Level,
    /// When it is recorded.
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
    PersistFailed = 5, "persist_failed", Error, "the configuration could not be written to the state directory";
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

/// Something worth remembering.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fact {
    /// Its number in the order of recording.
    pub seq: FactSeq,
    /// When.
    pub at: Tick,
    /// What kind.
    pub kind: FactKind,
    /// Whom it concerns.
    pub about: About,
    /// What happened, one line.
    pub text: String,
}

/// Whom a fact concerns; what is not known is `None`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct About {
    /// The client.
    pub client: Option<ClientId>,
    /// The worker.
    pub worker: Option<WorkerId>,
    /// The service.
    pub service: Option<ServiceName>,
    /// The host.
    pub host: Option<HostName>,
    /// The transaction.
    pub transaction: Option<TransactionId>,
    /// Who asked for it, when somebody did.
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
