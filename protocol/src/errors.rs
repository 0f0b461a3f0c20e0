//! TABLE of error codes: number, name, whose fault, whether the work ran, whether the connection is
//! closed, text and advice. isect's numbers are negative and never used again; positive numbers
//! belong to the workers and are passed through.

use std::fmt;

/// Whose fault an error is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Whose {
    /// The program that asked. A worker or host that is told of its own login or frames reads
    /// `worker` or `host` instead; see `ErrorBody::render_to`.
    Client,
    /// The program that answers.
    Worker,
    /// The broker, its limits or its operator.
    Broker,
    /// The machine that runs the worker.
    Host,
}

/// Whether the request's work ran.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Ran {
    /// The request never reached a worker; asking again is safe.
    No,
    /// The request reached a worker; whether it took effect is not known.
    Maybe,
    /// The worker itself answered.
    Yes,
}

/// Whether, and how soon, it makes sense to ask again after an error.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// The same request fails again.
    Never,
    /// It may be over at once (one worker died, one connection broke).
    Soon,
    /// It takes a while (the broker is full or restarts, or the operator stopped something).
    Later,
}

impl Whose {
    /// The word in an error's body.
    pub const fn word(self) -> &'static str {
        match self {
            Self::Client => "client",
            Self::Worker => "worker",
            Self::Broker => "broker",
            Self::Host => "host",
        }
    }

    /// Reads the word of an error's body; `None` if it is not one of the words.
    pub fn of(word: &str) -> Option<Self> {
        let all = [Self::Client, Self::Worker, Self::Broker, Self::Host];
        all.into_iter().find(|whose| whose.word() == word)
    }
}

impl Ran {
    /// The word in an error's body.
    pub const fn word(self) -> &'static str {
        match self {
            Self::No => "no",
            Self::Maybe => "maybe",
            Self::Yes => "yes",
        }
    }

    /// Reads the word of an error's body; `None` if it is not one of the words.
    pub fn of(word: &str) -> Option<Self> {
        [Self::No, Self::Maybe, Self::Yes].into_iter().find(|ran| ran.word() == word)
    }
}

impl fmt::Display for Whose {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

impl fmt::Display for Ran {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.word())
    }
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct ErrorRow {
    /// The variant of this row.
    pub code: ErrorCode,
    /// The number in the header's `error`: negative, unique, never used again.
    pub number: i16,
    /// The name in texts and logs: lower case, words joined by `_`.
    pub name: &'static str,
    /// Who has to change something.
    pub whose: Whose,
    /// Whether the work ran. An error frame's own `ran` line may be more exact, never less.
    pub ran: Ran,
    /// Whether the sender of the error closes the connection after it.
    pub closes: bool,
    /// Whether the same request may succeed later; only if it did not run, or may run twice.
    pub retry: Retry,
    /// What the error means, in one sentence.
    pub text: &'static str,
    /// What the receiver should do; empty where only the text of each case can say it.
    pub advice: &'static str,
}

macro_rules! errors {
    ($($code:ident = $number:literal, $name:literal, $whose:ident, $ran:ident, $closes:literal, $retry:ident, $text:literal, $advice:literal;)*) => {
        /// An error that isect itself makes.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum ErrorCode {
            $(#[doc = $text] $code,)*
        }

        /// TABLE of errors, by number.
        pub const ERRORS: &[ErrorRow] = &[
            $(ErrorRow {
                code: ErrorCode::$code,
                number: $number,
                name: $name,
                whose: Whose::$whose,
                ran: Ran::$ran,
                closes: $closes,
                retry: Retry::$retry,
                text: $text,
                advice: $advice,
            },)*
        ];

        impl ErrorCode {
            /// The code of a number; `None` if the table has no such number.
            pub const fn of(number: i16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$code),)*
                    _ => None,
                }
            }

            /// The number on the wire, always negative.
            pub const fn number(self) -> i16 {
                match self {
                    $(Self::$code => $number,)*
                }
            }
        }
    };
}

errors! {
    Intervention = -1, "intervention", Broker, Maybe, false, Later, "the operator took the request away from its worker (`idle`)", "ask your own data whether the work took effect, then decide";
    Version = -2, "version", Client, No, true, Never, "the frame's version is not spoken here", "speak version 2";
    BadFrame = -3, "bad_frame", Client, No, true, Never, "the bytes are not a frame that makes sense", "mend the sender; docs/protocol.md shows every byte";
    BodyTooLarge = -4, "body_too_large", Client, No, false, Never, "the frame's body is larger than allowed", "send it in pieces with `more`, or have the operator raise body_bytes_max";
    BadState = -5, "bad_state", Client, No, true, Never, "the frame's kind may not be sent by this side, or not now", "log in first, and send only what your side may send";
    LoginTimeout = -6, "login_timeout", Client, No, true, Soon, "no login came in time", "send the login at once after connecting";
    BadLogin = -7, "bad_login", Client, No, true, Never, "the login lacks something, or a value in it is wrong", "docs/protocol.md lists the keys of each login and their values";
    UnknownService = -8, "unknown_service", Client, No, true, Never, "no service of that name is configured", "'services' lists the names; 'config service NAME' makes one";
    Rejecting = -9, "rejecting", Broker, No, true, Later, "the operator lets no new clients in for now", "try again later, or have the operator say 'reject off'";
    Denied = -10, "denied", Client, No, false, Never, "this client may not do that", "use an account or a token with the right role";
    BadWorkerLogin = -11, "bad_worker_login", Worker, No, true, Never, "the worker showed no secret of this broker, or that of a start that is over", "if the broker started it, end: it starts another when one is due; if it started itself, configure the service with selfstart=1";
    TooManyConnections = -12, "too_many_connections", Broker, No, true, Later, "the broker has as many connections as it may", "try again later, or raise connections_max and the process's descriptor limit";
    TooManyRequests = -13, "too_many_requests", Client, No, false, Soon, "this connection has as many requests under way as it may", "wait for replies first, or raise requests_max";
    Overloaded = -14, "overloaded", Broker, No, false, Later, "a queue or the memory for waiting requests is full", "ask again after a pause; if it lasts, add workers or raise the limit named";
    ServiceStopped = -15, "service_stopped", Broker, No, false, Later, "the operator stopped the service", "ask again when it is started ('start NAME')";
    Deadline = -16, "deadline", Broker, Maybe, false, Later, "the request's time was over before it was answered", "if it did not run, ask again; else ask your own data first";
    WorkerDied = -17, "worker_died", Worker, Maybe, false, Soon, "the worker ended or lost its connection while it had the request", "ask your own data, or send such requests with the idempotent flag";
    Poison = -18, "poison", Client, Maybe, false, Never, "several workers died of this request; it is set aside for the operator ('poison')", "do not send it again before the worker is mended";
    NoConversation = -19, "no_conversation", Client, No, false, Never, "no conversation of this number is open with that worker", "begin again with a new sequence and workerid 0";
    DuplicateSequence = -20, "duplicate_sequence", Client, No, false, Never, "this sequence is still in use by a request of this connection", "give every request under way a number of its own";
    SlowReader = -21, "slow_reader", Client, Maybe, true, Soon, "what is to be sent to this connection piles up past its limit", "read faster, or ask for less at a time";
    IdleTimeout = -22, "idle_timeout", Client, No, true, Soon, "the connection was silent longer than allowed", "connect again, or answer pings";
    BrokerLost = -23, "broker_lost", Broker, Maybe, true, Soon, "the connection to the broker broke (made by the client library)", "connect again; if it may have run, ask your own data first";
    Timeout = -24, "timeout", Broker, Maybe, false, Later, "nothing came in time (made by the client library)", "wait longer, or look at 'queue' and 'workers'";
    ShuttingDown = -25, "shutting_down", Broker, No, true, Later, "the broker (to a broker: the execd) is shutting down", "connect again when it is back";
    Usage = -26, "usage", Client, No, false, Never, "the operator's command is not understood", "'help' lists the commands, 'help COMMAND' explains one";
    Refused = -27, "refused", Client, No, false, Never, "the command is understood but can't be done now", "";
    NotFound = -28, "not_found", Client, No, false, Never, "what the command names does not exist", "";
    BadReply = -29, "bad_reply", Worker, Maybe, true, Never, "the worker sent something that is not a reply", "mend the worker; docs/protocol.md shows every byte";
    ClientDeleted = -30, "client_deleted", Broker, Maybe, true, Never, "the operator deleted this client", "connect again if you may";
    StartFailed = -31, "start_failed", Host, No, false, Later, "the program of a worker can't be started", "mend the path, its permissions or --allow, then 'start' it again";
    HostLost = -32, "host_lost", Host, No, false, Later, "the host's execd can't be reached", "look at 'hosts'; start isdexecd there";
    Internal = -33, "internal", Broker, Maybe, true, Never, "the broker broke a rule of its own", "report it with the log";
    StateFailed = -34, "state_failed", Broker, No, false, Never, "the configuration can't be written to or read from the state directory", "look at the directory's owner and permissions, and at the space on its disk";
    Unreachable = -35, "unreachable", Broker, No, true, Later, "no connection to the broker (made by the client library)", "start isectd, or name its address with -h or ISECT_HOST";
    NeedsToken = -36, "needs_token", Client, No, true, Never, "whoever comes this way needs a token, and none was named", "name a token: --token-file, ISECT_TOKEN_FILE or ISECT_TOKEN; 'isectd token add' makes one";
    BadToken = -37, "bad_token", Client, No, true, Never, "the token is not known there, or was not proved", "use the token that 'isectd token add' printed; it may have been removed or renewed";
    LoginLimited = -38, "login_limited", Client, No, true, Later, "too many logins with this token from this address failed", "wait a few seconds, then try again with the right token";
    Unproven = -39, "unproven", Broker, No, true, Never, "the other side did not prove that it knows the token (made by the side that logs in)", "look whether the address is right: something else listens there, or stands between";
    Tls = -40, "tls", Client, No, true, Never, "TLS failed: a certificate, a version, or only one side speaks it", "docs/tls.md has the set-up in five lines";
    OutOfRange = -41, "out_of_range", Client, No, false, Never, "a field of the header has a value that it can't have", "docs/protocol.md lists the fields of the header and their ranges";
    Cancelled = -42, "cancelled", Client, Maybe, false, Never, "the request was given up: its caller said `cancel`, or the operator did", "if it may have run, ask your own data whether it took effect";
    ConversationEnded = -43, "conversation_ended", Broker, Maybe, false, Soon, "a conversation without a deadline was ended, because its worker is drained, stopped or restarted", "begin it again; what the worker kept for it is gone";
    ConversationRefused = -44, "conversation_refused", Client, Maybe, false, Never, "a conversation without a deadline can't begin", "log in with `heartbeat yes`; end other conversations first, or raise conversations_max";
    NoWorker = -45, "no_worker", Broker, No, false, Later, "no worker of the service can come: none is configured, or all have failed or are stopped", "ask again when an operator has configured or started a worker";
    BadMessage = -46, "bad_message", Client, No, false, Never, "a topic, a pattern, or the lines of a message break a rule", "docs/topics.md has the rules";
    LimitReached = -47, "limit_reached", Client, No, false, Later, "there are as many subscriptions, kept values or instances as there may be", "end some that nobody needs, or raise the setting named";
    BadInstance = -48, "bad_instance", Client, No, false, Never, "an instance is announced wrongly, or the connection has none with this id", "docs/instances.md has the rules";
    InstanceTaken = -49, "instance_taken", Client, No, false, Later, "an instance with this name and id is there already, and is somebody else's", "choose another id; the user or the holder of the token of the other one may displace it";
    NotAService = -50, "not_a_service", Client, No, true, Never, "the name is that of programs (protocol=none), which take no requests", "'services' lists the names; 'config service NAME protocol=isect' makes workers of the programs";
}

impl ErrorCode {
    /// The row of this code.
    pub const fn row(self) -> &'static ErrorRow {
        let mut index = 0;
        while ERRORS[index].number != self.number() {
            index += 1;
        }
        &ERRORS[index]
    }

    /// The name of this code.
    pub const fn name(self) -> &'static str {
        self.row().name
    }
}

impl fmt::Display for ErrorCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_keeps_its_laws() {
        for pair in ERRORS.windows(2) {
            assert!(pair[0].number == pair[1].number + 1, "{} is out of order", pair[1].name);
        }
        for row in ERRORS {
            assert_eq!(ErrorCode::of(row.number), Some(row.code));
            assert_eq!(ERRORS.iter().filter(|other| other.name == row.name).count(), 1);
            assert!(row.name.chars().all(|c| c.is_ascii_lowercase() || c == '_'), "{}", row.name);
            assert!(!row.text.ends_with('.') && !row.advice.ends_with('.'), "{}", row.name);
            assert!(!row.text.is_empty());
            // An advice that sends the reader back to the text is no advice.
            assert!(!row.advice.contains("the text"), "{}", row.name);
        }
        assert_eq!(ErrorCode::of(0), None);
        assert_eq!(ErrorCode::of(7), None);
    }
}
