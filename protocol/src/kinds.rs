//! TABLE of the kinds of frames: number, name, who may send it, what its body is. Released numbers
//! are never used again; a retired kind stays here as a tombstone.

use std::fmt;

/// The role of the peer at the other end of a link, as the broker sees it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Role {
    /// A program that asks; it connects to the client port.
    Client,
    /// A program that answers; it connects to the worker port.
    Worker,
    /// An execd; the broker connects to it.
    Host,
    /// The broker itself.
    Broker,
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Client => "client",
            Self::Worker => "worker",
            Self::Host => "execd",
            Self::Broker => "broker",
        })
    }
}

/// The form of a kind's body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BodyKind {
    /// Opaque bytes of the application.
    Opaque,
    /// `key value` lines; some kinds have an empty line and free text after them.
    Lines,
    /// Free UTF-8 text.
    Text,
    /// Always empty.
    Empty,
}

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct KindRow {
    /// The variant of this row.
    pub kind: Kind,
    /// The number in the header's `command`: unique, never used again.
    pub number: u16,
    /// The name in texts, logs and documents: lower case, words joined by `-`.
    pub name: &'static str,
    /// Who may send it to the broker; `Role::Broker` = the broker sends it.
    pub senders: &'static [Role],
    /// The form of the body.
    pub body: BodyKind,
    /// What the kind is for, in one sentence.
    pub text: &'static str,
}

macro_rules! kinds {
    ($($kind:ident = $number:literal, $name:literal, [$($role:ident),*], $body:ident, $text:literal;)*) => {
        /// The kind of a frame.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind {
            $(#[doc = $text] $kind,)*
        }

        /// TABLE of kinds, by number.
        pub const KINDS: &[KindRow] = &[
            $(KindRow {
                kind: Kind::$kind,
                number: $number,
                name: $name,
                senders: &[$(Role::$role),*],
                body: BodyKind::$body,
                text: $text,
            },)*
        ];

        impl Kind {
            /// The kind of a number; `None` if the table has no such number.
            pub const fn of(number: u16) -> Option<Self> {
                match number {
                    $($number => Some(Self::$kind),)*
                    _ => None,
                }
            }

            /// The number on the wire.
            pub const fn number(self) -> u16 {
                match self {
                    $(Self::$kind => $number,)*
                }
            }

            /// The row of this kind.
            pub const fn row(self) -> &'static KindRow {
                let mut index = 0;
                while KINDS[index].number != self.number() {
                    index += 1;
                }
                &KINDS[index]
            }
        }
    };
}

kinds! {
    Data = 0, "data", [Client, Worker, Broker], Opaque, "a request, a piece of one, a reply, or a piece of one; for the service `op` a command and its output";
    Login = 1, "login", [Client], Lines, "the first frame of a client: which service, at which priority, from where";
    LoginOk = 2, "login-ok", [Broker], Lines, "the client is attached; its id and the limits in force";
    WorkerLogin = 3, "worker-login", [Worker], Lines, "the first frame of a worker: who it is and the secret it was started with";
    WorkerLoginOk = 4, "worker-login-ok", [Broker], Lines, "the worker is ready and will get requests; the limits in force";
    Error = 5, "error", [Client, Worker, Host, Broker], Lines, "what failed, whose fault it was, whether the work ran, what to do; `error` in the header is the code. Code -1 has the body `PROTOCOL INTERVENTION` instead of lines";
    Ping = 6, "ping", [Client, Worker, Host, Broker], Empty, "are you there? Answered by a pong with the same sequence";
    Pong = 7, "pong", [Client, Worker, Host, Broker], Empty, "the answer to a ping";
    Logout = 8, "logout", [Client, Worker], Empty, "an orderly goodbye: a client ends its requests under way, a worker takes no more; the sender closes next";
    End = 9, "end", [Broker], Empty, "to a worker: no further request will come, finish and exit. The broker then shuts its side for writing";
    Reinit = 10, "reinit", [Broker], Empty, "to a worker: read your configuration again (operator's `send … reinit`)";
    Status = 11, "status", [Broker], Empty, "to a worker: tell how you are (operator's `send … status`)";
    StatusReply = 12, "status-reply", [Worker], Text, "a worker's answer to status: free text, at most 64 KiB";
    Challenge = 13, "challenge", [Host, Broker], Lines, "the answer to a login, worker-login or exec-hello that names a token: prove that you know it";
    Proof = 14, "proof", [Client, Worker, Broker], Lines, "the answer to a challenge; what follows is what would have followed at once without a token";
    ExecHello = 20, "exec-hello", [Broker], Lines, "to execd: the first frame of the broker";
    ExecWelcome = 21, "exec-welcome", [Host], Lines, "execd is at the broker's service; its pid, name and limits";
    ExecStart = 22, "exec-start", [Broker], Lines, "to execd: start a program";
    ExecStop = 23, "exec-stop", [Broker], Lines, "to execd: end a process: TERM to its group, KILL after the grace time";
    ExecSignal = 24, "exec-signal", [Broker], Lines, "to execd: send a signal to a process";
    ExecList = 25, "exec-list", [Broker], Empty, "to execd: which processes do you have?";
    ExecListed = 26, "exec-listed", [Host], Lines, "the answer to exec-list: one `child` line a process";
    ExecStarted = 27, "exec-started", [Host], Lines, "the process runs; its pid";
    ExecFailed = 28, "exec-failed", [Host], Lines, "the program could not be started, and why";
    ExecExited = 29, "exec-exited", [Host], Lines, "the process ended: status or signal, last lines of its stderr";
    ExecOutput = 30, "exec-output", [Host], Lines, "one line that a process wrote on stdout or stderr";
    ExecEnd = 31, "exec-end", [Broker], Lines, "to execd: the broker is shutting down in order; end every process of it (and, for a built-in execd, yourself)";
}

impl Kind {
    /// Whether `role` may send this kind.
    pub fn may_send(self, role: Role) -> bool {
        self.row().senders.contains(&role)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.row().name)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_names_are_unique_and_sorted() {
        for pair in KINDS.windows(2) {
            assert!(pair[0].number < pair[1].number, "{} and {}", pair[0].name, pair[1].name);
            assert!(KINDS.iter().filter(|row| row.name == pair[0].name).count() == 1);
        }
        for row in KINDS {
            assert_eq!(Kind::of(row.number), Some(row.kind));
            assert!(!row.text.is_empty() && !row.senders.is_empty());
        }
        assert_eq!(Kind::of(999), None);
    }
}
