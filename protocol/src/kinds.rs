//! TABLE of the kinds of frames: number, name, who may send it, and what its body is, key by key.
//! `bodies` makes a type of each body, `frame` a variant of each row, a test `docs/protocol.md` and
//! `tests/wire`. Released numbers are never used again; a retired kind stays here as a tombstone.

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

/// TABLE of kinds, by number, given to the macro that makes something of it. A row: the kind, its
/// number, its name, who may send it, the form of its body with what the frame has beside it, what
/// it is for; then, for most bodies of lines, the type of the body and its keys in the order in
/// which they are written. A key: field (and key, where they differ), type, how it is read and
/// written (`keys`), the values of the example in `tests/wire`, what it is for.
macro_rules! table {
    ($make:ident) => { $make! {
        Data = 0, "data", [Client, Worker, Broker], Opaque {
            /// All fields except `len`, `command` and `version`, which `encode` sets.
            head: Header,
            /// The application's bytes; isect does not look at them.
            body: Bytes,
        }, "a request, a piece of one, a reply, or a piece of one; for the service `op` a command and its output";
        Login = 1, "login", [Client], Lines, "the first frame of a client: which service, at which priority, from where", Login {
            service: ServiceName = needed(Word), ["echo"], "the service that the client asks; `op` for an operator";
            priority: u8 = or(In(1..=255, ", lower is first"), PRIORITY_DEFAULT), ["100"], "the priority of requests that name none";
            loghost: String = or(Shown, String::new()), ["desk"], "the client's machine as it names it, for the operator's lists; not checked";
            hostpid: u32 = or(Number, 0), ["4711"], "the client's process id on that machine, for the operator's lists; not checked";
            name: Option<String> = Maybe(Shown), ["tour"], "a name that the client gives itself, for the operator's lists";
            format: Format = FormatKeys, [], "how `op` answers: in text, in text of which the tables fit a terminal so wide (0: any), or in JSON (`docs/op.schema.json`)";
            heartbeat: bool = unless(YesNo, false), [], "the client promises to answer pings at once, and wants to be taken for gone when it doesn't";
            script: bool = unless(YesNo, false), [], "the commands of this connection to `op` are one script: a `config worker` without an id means a worker that is there and as it says, each such line another one";
            half_close: bool = unless(YesNo, false), [], "when the client shuts its side for writing, it still waits for the answers to what it sent whole; without this its end means that it is gone";
            token: Option<Claim> = ClaimKeys, [], "the token that the client will prove: see [Proving a token](#proving-a-token)";
            start("secret"): Option<Box<StartClaim>> = StartClaimKeys, [], "the client is part of this worker: it has the rights of the worker's start as long as that runs, and needs no token";
        };
        LoginOk = 2, "login-ok", [Broker], Lines, "the client is attached; its id and the limits in force", LoginOk {
            client: ClientId = needed(Number), ["0"], "the id that the broker gave to this client";
            body_bytes_max: u64 = needed(Number), ["16777216"], "most bytes in the body of a data frame: the setting `body_bytes_max`";
            requests_max: u64 = or(Number, 1), ["64"], "most requests that the client may have under way on this connection";
            deadline_ms: u64 = or(Number, 0), ["60000"], "the deadline of requests that name none, in milliseconds: the service's default";
            heartbeat_ms: u64 = or(Number, 0), ["10000"], "milliseconds of silence after which the broker sends a ping";
            silence_ms: u64 = or(Number, 0), ["30000"], "milliseconds of silence, although it was pinged, after which either side takes the other for gone; 0 = the broker does not say";
            version: String = or(Text, String::new()), ["0.1.0"], "the broker's version, as `isectd --version` prints it";
            signature: Option<String> = Maybe(Mac), [], "proves that the broker knows the token; there if the client proved one";
        };
        WorkerLogin = 3, "worker-login", [Worker], Lines, "the first frame of a worker: who it is and the secret it was started with", WorkerLogin {
            worker: WorkerId = or(Number, WorkerId(0)), ["3"], "the worker's id: `argv[3]`; 0 = it started itself and asks for an id";
            service: ServiceName = needed(Word), ["echo"], "the service that it answers for: `argv[4]`";
            host: HostName = needed(Word), ["desk"], "`localhost` or any name: where the worker runs; shown to operators";
            hostpid: u32 = or(Number, 0), ["4712"], "the worker's process id on that host; needed if execd started it";
            secret: String = or(Text, String::new()), ["3.1.5f2d"], "the value of the environment variable `ISECT_WORKER_SECRET`; empty if the worker started itself";
            concurrency: u32 = unless(In(1..=CONCURRENCY_MAX, ""), 1), [], "most requests that the worker answers at a time; the service's setting `concurrency` may be smaller";
            cancel: bool = unless(YesNo, false), [], "the worker understands `cancel`, and wants it for each request that nobody waits for any more";
            token: Option<Claim> = ClaimKeys, [], "the token that a self-started worker will prove";
        };
        WorkerLoginOk = 4, "worker-login-ok", [Broker], Lines, "the worker is ready and will get requests; the limits in force", WorkerLoginOk {
            worker: WorkerId = needed(Number), ["3"], "the worker's id: the one of its login, or a new one for a self-started worker";
            body_bytes_max: u64 = needed(Number), ["16777216"], "most bytes in the body of a data frame: the setting `body_bytes_max`";
            heartbeat_ms: u64 = or(Number, 0), ["10000"], "milliseconds of silence after which the broker pings an idle worker";
            silence_ms: u64 = or(Number, 0), ["30000"], "milliseconds of silence, although it was pinged, after which either side takes the other for gone; 0 = the broker does not say";
            reconnect_ms: u64 = or(Number, 0), ["30000"], "milliseconds for which the worker tries to connect again after the connection broke without an `end`";
            concurrency: u32 = unless(Number, 1), [], "most requests that the worker gets at a time: the smaller of its login's number and the service's setting";
            signature: Option<String> = Maybe(Mac), [], "proves that the broker knows the token; there if the worker proved one";
        };
        Error = 5, "error", [Client, Worker, Host, Broker], Lines {
            /// The `sequence`, `transaction` and `workerid` of what failed; each is 0 if not known.
            head: Header,
            /// The error, whether the work ran, and the text.
            error: ErrorBody,
        }, "what failed, whose fault it was, whether the work ran, what to do; `error` in the header is the code. Code -1 has the body `PROTOCOL INTERVENTION` instead of lines";
        Ping = 6, "ping", [Client, Worker, Host, Broker], Empty {
            /// Any number; the pong repeats it.
            sequence: u32,
        }, "are you there? Answered by a pong with the same sequence";
        Pong = 7, "pong", [Client, Worker, Host, Broker], Empty {
            /// The number of the ping.
            sequence: u32,
        }, "the answer to a ping";
        Logout = 8, "logout", [Client, Worker], Lines, "an orderly goodbye: a client ends its requests under way and closes next. A worker takes no further request: it may still answer those that it has, and closes when the broker's `end` has come", #[derive(Default)] Logout {
            received: Option<u32> = Maybe(Number), ["5"], "of a worker: how many requests it got on this connection; those that the broker sent beyond them go to another worker at once. Absent: it has begun none that it has not answered, and what it leaves unanswered goes to another worker when it closes";
        };
        End = 9, "end", [Broker], Empty, "to a worker: no further request will come, finish and exit; also the answer to its `logout`. The broker then shuts its side for writing";
        Reinit = 10, "reinit", [Broker], Empty, "to a worker: read your configuration again (operator's `send … reinit`)";
        Status = 11, "status", [Broker], Empty {
            /// Any number; the status reply repeats it.
            sequence: u32,
        }, "to a worker: tell how you are (operator's `send … status`)";
        StatusReply = 12, "status-reply", [Worker], Text {
            /// The number of the status frame.
            sequence: u32,
            /// Free text of the worker, shown to the operator.
            text: String,
        }, "a worker's answer to status: free text, at most 64 KiB";
        Challenge = 13, "challenge", [Host, Broker], Lines, "the answer to a login, worker-login or exec-hello that names a token: prove that you know it", Challenge {
            salt: Vec<u8> = needed(Hex(SALT_BYTES_MIN, SALT_BYTES_MAX)), ["a0a1a2a3a4a5a6a7a8a9aaabacadaeaf"], "the salt of the token's hash";
            memory_kib: u32 = needed(In(MEMORY_KIB, "")), ["19456"], "the memory of the hash, in KiB";
            passes: u32 = needed(In(PASSES, "")), ["2"], "the passes of the hash";
            lanes: u32 = needed(In(LANES, "")), ["1"], "the lanes of the hash";
            nonce: Vec<u8> = needed(Hex(2 * NONCE_BYTES_MIN, 2 * NONCE_BYTES_MAX)), ["000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f"], "the claim's nonce, followed by the verifier's";
            channels: Option<Channels> = Maybe(ChannelNames), ["tls-exporter tls-server-end-point"], "over TLS: the channel bindings that the verifier takes on this connection, in its order of preference";
        };
        Proof = 14, "proof", [Client, Worker, Broker], Lines, "the answer to a challenge; what follows is what would have followed at once without a token", Proof {
            proof: [u8; MAC_BYTES] = needed(Mac), ["5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a"], "shows that the sender knows the token: the HMAC over the statement, combined with the client key as in RFC 5802";
            channel: Option<Binding> = Maybe(ChannelName), ["tls-server-end-point"], "the channel binding of the statement. Absent: `tls-exporter` over TLS, none without it";
        };
        Cancel = 15, "cancel", [Client, Broker], Text {
            /// From a client: `sequence` names the request. To a worker: `transaction` does, and
            /// `error` is the code of the outcome that its client got.
            head: Header,
            /// To a worker: why nobody waits any more.
            text: String,
        }, "from a client: it gives up the request with this `sequence`, whose outcome is the error `cancelled`; one that has ended is no fault. To a worker that announced `cancel`: nobody waits for the answer to this `transaction` any more, `error` says why by number and the body in words. The worker still owes the final reply, which is dropped";
        Flush = 16, "flush", [Client], Empty {
            /// Any number; `flushed` repeats it.
            sequence: u32,
        }, "tell me when all that I sent before this was taken by a worker or refused";
        Flushed = 17, "flushed", [Broker], Lines, "the answer to a flush: all that came before it was taken by a worker or refused, so that leaving loses none of it", Flushed {
            flush: u32 = needed(Number), ["7"], "the sequence of the flush";
            refused: u64 = or(Number, 0), ["0"], "how many requests since the flush before were refused, or ended before a worker took them; those without `reply` among them, of which nothing else tells";
        };
        ExecHello = 20, "exec-hello", [Broker], Lines, "to execd: the first frame of the broker", ExecHello {
            host: HostName = needed(Word), ["desk"], "the name of this host in the broker's configuration";
            broker: String = needed(Shown), ["5f2d9c"], "the id of the broker's state directory, so that two brokers don't share children";
            token: Option<Claim> = ClaimKeys, [], "the token that the broker will prove, if it has one for this host";
        };
        ExecWelcome = 21, "exec-welcome", [Host], Lines, "execd is at the broker's service; its pid, name and limits", #[derive(Default)] ExecWelcome {
            hostpid: u32 = needed(Number), ["4000"], "the process id of execd on its host";
            version: String = or(Shown, String::new()), ["0.1.0"], "the version of execd, as `isdexecd --version` prints it";
            children_max: u64 = or(Number, 0), ["1000"], "most processes that execd holds at once";
            policy: String = unless(Shown, String::new()), [], "a digest of the rules that execd enforces on the processes it starts; empty = it does not say";
            binary: String = unless(Shown, String::new()), [], "a digest of the program file that execd runs; empty = it does not say";
            hands_over: bool = unless(Flag, false), [], "execd accepts `exec-end` with `keep`";
            keeps_output: bool = unless(Flag, false), [], "execd knows `exec-read` and what `exec-start` says of memory and output";
            older: Vec<WorkerId> = Each(Number), [], "a worker of this broker whose process was started under another policy";
            signature: Option<String> = Maybe(Mac), [], "proves that execd knows the token; there if the broker proved one";
        };
        ExecStart = 22, "exec-start", [Broker], Lines, "to execd: start a program", ExecStart {
            worker: WorkerId = needed(Number), ["3"], "the worker that the process will be";
            run: RunId = needed(Number), ["17"], "numbers this start; every later start of the worker has a higher number";
            service: ServiceName = needed(Word), ["echo"], "the worker's service, for execd's log only";
            path: String = needed(Text), ["/usr/bin/isdecho"], "the absolute path of the program on the host, at most 4095 bytes";
            args("arg"): Vec<String> = Each(Text), ["127.0.0.1", "5503", "3", "echo", "two\nlines"], "one of `argv[1..]`: broker host, port, worker id, service, then the application's arguments";
            secret: String = or(Text, String::new()), ["3.17.5f2d"], "the value of `ISECT_WORKER_SECRET` in the process's environment";
            digest: u32 = unless(Number, 0), [], "tells one configuration of the worker from another, returned in `exec-listed`; 0 = none";
            process("env"): Option<Box<ProcessSettings>> = ProcessKeys, [], "the environment, the directory, the user and the limits of the process, as far as they are not the host's own: see [Settings of a process](#settings-of-a-process)";
            memory_max: u64 = unless(Number, 0), [], "bytes of memory (resident) past which `exec-memory` is wanted; 0 = it is not";
            output_bytes: u64 = unless(Number, 0), [], "bytes of one file in which execd keeps what the process writes; 0 = it keeps nothing";
            output_files: u32 = unless(Number, 1), [], "how many such files are kept";
        };
        ExecStop = 23, "exec-stop", [Broker], Lines, "to execd: end a process: TERM to its group, KILL after the grace time", #[derive(Copy)] ExecStop {
            worker: WorkerId = needed(Number), ["3"], "the worker whose process is to end";
            run: RunId = needed(Number), ["17"], "the start that is meant";
            grace_ms: u64 = or(Number, 0), ["5000"], "milliseconds between TERM and KILL to the group; 0 = KILL at once";
        };
        ExecSignal = 24, "exec-signal", [Broker], Lines, "to execd: send a signal to a process", #[derive(Copy)] ExecSignal {
            worker: WorkerId = needed(Number), ["3"], "the worker whose process gets the signal; its group does not";
            run: RunId = needed(Number), ["17"], "the start that is meant";
            signal: i32 = needed(Number), ["10"], "the signal's number on that host, from 1 to 64 on Linux";
        };
        ExecList = 25, "exec-list", [Broker], Empty, "to execd: which processes do you have?";
        ExecListed = 26, "exec-listed", [Host], Lines, "the answer to exec-list: one `child` line a process", #[derive(Default)] ExecListed {
            children("child"): Vec<Child> = Each(Word), ["3 17 4712", "4 18 4713"], "a process that execd has for this broker, also one that is being ended; the digest is that of its exec-start, and absent if it is not known";
        };
        ExecStarted = 27, "exec-started", [Host], Lines, "the process runs; its pid", #[derive(Copy)] ExecStarted {
            worker: WorkerId = needed(Number), ["3"], "the worker that the process is";
            run: RunId = needed(Number), ["17"], "the start that made the process";
            pid: u32 = needed(Number), ["4712"], "the process id on the host";
        };
        ExecFailed = 28, "exec-failed", [Host], Lines, "the program could not be started, and why", ExecFailed {
            worker: WorkerId = needed(Number), ["3"], "the worker of the `exec-start`";
            run: RunId = needed(Number), ["17"], "the run of the `exec-start`";
            permanent: bool = or(Yes, false), ["yes"], "the same start fails again until somebody changes something (missing program, not allowed, …)";
            again_ms: u64 = unless(Number, 0), [], "milliseconds after which the broker should ask again, because the host is at a limit of its own and the worker not to blame; 0 = the host is at no limit";
            text: String = FreeText, ["/usr/bin/isdecho: no such file"], "what failed, for which path, and the cure";
        };
        ExecExited = 29, "exec-exited", [Host], Lines, "the process ended: status or signal, last lines of its stderr", ExecExited {
            worker: WorkerId = needed(Number), ["3"], "the worker that the process was";
            run: RunId = needed(Number), ["17"], "the start that made the process";
            pid: u32 = needed(Number), ["4712"], "the process id that it had";
            exit_cause: ExitCause = needed(Word), ["signal 9"], "exit status or signal; `unknown` = nobody saw the end";
            cpu_ms: u64 = or(Number, 0), ["250"], "processor time in milliseconds, user and system, with that of the children it waited for";
            rss_kib_max: u64 = or(Number, 0), ["2048"], "the largest resident size in KiB";
            core: bool = unless(YesNo, false), [], "the kernel wrote a core file";
            oom: bool = unless(YesNo, false), [], "the kernel killed it because memory was short";
            tail: Vec<String> = Each(Text), ["reading colours", "a \\ in a line"], "one of the last lines of its stderr, oldest first";
        };
        ExecOutput = 30, "exec-output", [Host], Lines, "one line that a process wrote on stdout or stderr", ExecOutput {
            worker: WorkerId = needed(Number), ["3"], "the worker that wrote the line";
            run: RunId = needed(Number), ["17"], "the start that made the process";
            stream: Stream = needed(Word), ["stderr"], "the stream that the line came from";
            line: String = needed(Text), ["reading colours"], "the line without its end. Bytes that are not UTF-8 become U+FFFD; execd truncates long lines";
            dropped: u64 = or(Number, 0), ["0"], "lines of this stream that execd dropped since the last one it sent (rate limit)";
            number: u64 = unless(Number, 0), [], "the number of the line among those that execd keeps of the worker; 0 = it keeps none";
        };
        ExecEnd = 31, "exec-end", [Broker], Lines, "to execd: the broker is shutting down in order; end every process of it (and, for a built-in execd, yourself)", #[derive(Copy)] ExecEnd {
            grace_ms: u64 = or(Number, 0), ["5000"], "milliseconds between TERM and KILL";
            keep: bool = unless(Flag, false), [], "end no process, end only yourself, so that the next execd of your state directory adopts them (only for an execd that said `hands_over`)";
        };
        Subscribe = 32, "subscribe", [Client, Worker], Lines, "the messages of all topics that match a pattern are to come, until `unsubscribe` or the end of the connection; `subscribed` answers, or an `error` with the number as its sequence", Subscribe {
            subscription: u32 = needed(Number), ["7"], "the number of the subscription on this connection, which its messages carry; the sender chooses one that neither a subscription nor a request of this connection has";
            pattern: String = needed(Text), ["orders.*.created"], "which topics: words between dots, `*` for any one word, `>` at the end for one or more";
            from: Option<Position> = Maybe(Word), ["1700000000000000:41"], "the last message that the sender has of a subscription to this pattern, or the `at` of its `subscribed` if it got none: what came since is sent first, if it is still there";
            retained: bool = unless(YesNo, true), [], "whether the values that are kept of these topics are sent first; of no effect where `from` brings all that came since";
        };
        Subscribed = 33, "subscribed", [Broker], Lines, "the answer to a subscribe: messages follow; first those from before, each with `more` = 1, then `caught-up`", Subscribed {
            subscription: u32 = needed(Number), ["7"], "the number of the subscription";
            at: Position = needed(Word), ["1700000000000000:45"], "the newest message of the broker, of whatever topic; a subscriber that gets none goes on from here";
            missing: Option<Missing> = Maybe(Word), ["42 43"], "what can't be sent any more of what came since `from`: the first and the last number, some of which may have matched; `epoch` = the broker was started since, and what it had then is not known";
        };
        Unsubscribe = 34, "unsubscribe", [Client, Worker], Lines, "no messages are to come any more", #[derive(Copy)] Unsubscribe {
            subscription: u32 = needed(Number), ["7"], "the number of the subscription";
        };
        Unsubscribed = 35, "unsubscribed", [Broker], Lines, "the answer to an unsubscribe: no message of the subscription follows, and its number is free", #[derive(Copy)] Unsubscribed {
            subscription: u32 = needed(Number), ["7"], "the number of the subscription";
            delivered: u64 = or(Number, 0), ["120"], "how many messages it was sent";
            dropped: u64 = or(Number, 0), ["3"], "how many it was not sent, because it read too slowly or had not read them yet";
        };
        Publish = 36, "publish", [Client, Worker], Opaque {
            /// `sequence`; `reply` = 1: `published` is to answer.
            head: Header,
            /// The lines and the payload, which subscribers get as they are.
            body: Bytes,
        }, "a message for all that subscribe to its topic; see [Messages](#messages). An `error` with its sequence tells if it is refused, whatever `reply` says";
        Published = 37, "published", [Broker], Lines, "the answer to a publish with `reply` = 1: the message has its number", Published {
            publish: u32 = needed(Number), ["9"], "the sequence of the publish";
            at: Position = needed(Word), ["1700000000000000:46"], "the number of the message";
            subscriptions: u64 = or(Number, 0), ["2"], "how many subscriptions it matches now; that they got it is not said";
        };
        Message = 38, "message", [Broker], Opaque {
            /// `sequence` is the subscription, `transaction` the number of the message, `attempt`
            /// how many were dropped right before it, `more` = 1: it is one from before.
            head: Header,
            /// The body of the publish, as it came.
            body: Bytes,
        }, "a message of a topic that the receiver subscribed to. In its header `sequence` is the number of the subscription, `transaction` the number of the message in the broker's count, `attempt` how many of this subscription were dropped since the one before, because the receiver read too slowly; `more` = 1: it is kept from before";
        CaughtUp = 39, "caught-up", [Broker], Lines, "all that was kept from before is sent: what follows in the subscription is new", #[derive(Copy)] CaughtUp {
            subscription: u32 = needed(Number), ["7"], "the number of the subscription";
            kept: u64 = or(Number, 0), ["2"], "how many messages from before were sent";
            dropped: u64 = unless(Number, 0), [], "how many were dropped since the last message, because the receiver read too slowly";
        };
        Announce = 40, "announce", [Client, Worker], Lines, "an instance of a program, or of a part of it, is to be watched: its state, whether it goes on, since when. It ends with the connection. `announced` answers, or an `error` with the sequence", Announce {
            sequence: u32 = or(Number, 0), ["12"], "goes back in `announced` or in the error";
            name: String = needed(Text), ["pump"], "what it is an instance of; by the rules of a service's name";
            id: u64 = needed(Number), ["37089166"], "tells it from others of its name on the same machine, and from others of this connection";
            kind("type"): InstanceType = or(Word, InstanceType::Data), ["data"], "what it mainly does";
            groups("group"): Vec<String> = Each(Text), ["night"], "a group that it belongs to; by the rules of a service's name";
            activity_timeout_ms: u64 = or(Number, 0), ["5000"], "it is timed out when no beat came for so long; 0 = the setting `activity_timeout_ms`";
            stalled_ms: u64 = unless(Number, 0), [], "it is stalled when its checkpoint stays the same for so long while it has work; 0 = never";
            state: InstanceState = or(Word, InstanceState::Starting), ["running"], "its state at the beginning";
            addresses("address"): Vec<String> = Each(Text), ["tcp:192.0.2.7:5432"], "where it is reached; any text, at most 255 bytes";
            meta: Vec<String> = Each(Text), ["version 2.1"], "a word and a value, for people and other programs; at most 1024 bytes";
            state_names("state_name"): Vec<StateName> = Each(Word), ["100 sending"], "a state of its own: a number from 100 to 4294967295, and how it is called, at most 80 characters";
        };
        Announced = 41, "announced", [Broker], Lines, "the answer to an announce: the instance is watched", #[derive(Copy)] Announced {
            sequence: u32 = or(Number, 0), ["12"], "the sequence of the announce";
            id: u64 = needed(Number), ["37089166"], "the instance";
            incarnation: u64 = needed(Number), ["5"], "numbers all announcements of this broker: tells this one from an earlier one with the same name and id";
            beat_ms: u64 = needed(Number), ["500"], "how often a beat is due: the setting `beat_ms`, or less where a time-out needs it";
            activity_timeout_ms: u64 = needed(Number), ["5000"], "the time-out in force";
            displaced: bool = unless(YesNo, false), [], "an earlier instance of this name and id on another connection was ended for it";
        };
        StateChange = 42, "state-change", [Client, Worker], Lines, "an instance has another state. It counts as a beat", StateChange {
            sequence: u32 = or(Number, 0), ["13"], "goes back in an error";
            id: u64 = needed(Number), ["37089166"], "the instance";
            state: InstanceState = needed(Word), ["100"], "the new state";
            checkpoint: Option<u64> = Maybe(Number), ["1024"], "its checkpoint, if it changed, too";
            text: String = FreeText, ["batch 7 of 12"], "more about it, at most 80 characters";
        };
        Beat = 43, "beat", [Client, Worker], Lines, "the instances of this connection go on; `beat-ok` answers", Beat {
            beat: u32 = or(Number, 0), ["77"], "goes back in `beat-ok`";
            instances("instance"): Vec<BeatOf> = Each(Word), ["37089166 1024", "37089167 5 idle"], "an instance that goes on, its checkpoint (any number that changes as it works), and `idle` if it has nothing to do";
        };
        BeatOk = 44, "beat-ok", [Broker], Lines, "the answer to a beat: the broker goes on, too", BeatOk {
            beat: u32 = or(Number, 0), ["77"], "the number of the beat";
            unknown: Vec<u64> = Each(Number), [], "an instance that the beat names and this connection has not: it was displaced, or never announced";
        };
        Withdraw = 45, "withdraw", [Client, Worker], Lines, "an instance ends in order", Withdraw {
            sequence: u32 = or(Number, 0), ["14"], "goes back in an error";
            id: u64 = needed(Number), ["37089166"], "the instance";
            failed: bool = unless(YesNo, false), [], "it ends because of a failure";
            text: String = FreeText, ["done"], "why, at most 80 characters";
        };
        ExecRead = 46, "exec-read", [Broker], Lines, "to execd: send the last lines that the processes of a worker wrote and that you have kept; `exec-lines` answers", #[derive(Copy)] ExecRead {
            request: u32 = needed(Number), ["8"], "goes back in the answer";
            worker: WorkerId = needed(Number), ["3"], "the worker";
            lines: u32 = needed(Number), ["20"], "how many lines at most";
        };
        ExecLines = 47, "exec-lines", [Host], Lines, "the answer to exec-read, in one frame or several", ExecLines {
            request: u32 = needed(Number), ["8"], "the number of the exec-read";
            worker: WorkerId = needed(Number), ["3"], "the worker";
            more: bool = unless(YesNo, false), [], "another frame of this answer follows";
            lines("line"): Vec<KeptLine> = Each(Text), ["41 1700000000000 stderr reading colours"], "a line, oldest first: its number among all that the worker wrote, when it was read, the stream, the text";
            lost: u64 = unless(Number, 0), [], "lines of the worker that could not be kept, because the disk was full or too slow";
            text: String = FreeText, [], "why there are none, if there are none";
        };
        ExecMemory = 48, "exec-memory", [Host], Lines, "a process has more memory than the `memory_max` of its start; sent once for each process", #[derive(Copy)] ExecMemory {
            worker: WorkerId = needed(Number), ["3"], "the worker that the process is";
            run: RunId = needed(Number), ["17"], "the start that made the process";
            rss_bytes: u64 = needed(Number), ["104857600"], "its resident size in bytes";
        };
    } };
}
pub(crate) use table;

macro_rules! kinds {
    ($(
        $kind:ident = $number:literal, $name:literal, [$($role:ident),*],
        $body:ident $({ $($fields:tt)* })?, $text:literal
        $(, $(#[$derive:meta])* $lines:ident { $($keys:tt)* })?;
    )*) => {
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

table!(kinds);

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
