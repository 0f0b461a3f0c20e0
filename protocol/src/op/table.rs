//! TABLE of the operator's commands, data only. The parser, `help`, completion, the man page and
//! docs/op.md read it. The commands of the manual chapter's help come first, in the manual's order
//! and words. The engine carries the commands out.

use super::spec::{Arg, Command, Effect, Spec, Takes};

const fn arg(name: &'static str, takes: Takes, text: &'static str) -> Arg {
    Arg { name, text, takes }
}

const CLIENT: Arg =
    arg("clientid", Takes::Client, "a client's id, column 'client id' of 'clients'");
const WORKER: Arg =
    arg("workerid", Takes::Worker, "a worker's id, column 'worker id' of 'workers'");
const SERVICE: Arg =
    arg("service", Takes::Service, "a service's name, column 'service' of 'services'");
const HOST: Arg =
    arg("host", Takes::Host, "a host's name, column 'hostname' of 'hosts'; localhost is built in");
const TARGET: Arg = arg(
    "target",
    Takes::Target,
    "a service's name, a worker's id, or all; 'service NAME' and 'worker ID' say the same",
);
const ON_OFF: &[&str] = &["on", "off"];

/// A row of the manual's help; fields that a row does not set are those of a command without
/// arguments.
const fn manual(command: Command, name: &'static str, effect: Effect) -> Spec {
    Spec {
        command,
        name,
        usage: name,
        syntax: name,
        short: "",
        long: "",
        args: &[],
        effect,
        example: name,
        manual: true,
    }
}

/// A row of a command that the manual does not have.
const fn beyond(command: Command, name: &'static str, effect: Effect) -> Spec {
    Spec { manual: false, ..manual(command, name, effect) }
}

/// TABLE of commands, in the order of [`Command`]: first the manual's, in the manual's order.
pub const COMMANDS: &[Spec] = &[
    Spec {
        short: "isectd calls abort() - creates a core file",
        long: "Ends the broker at once with a core file, for its programmers. Workers keep running and come back to the next broker. To end in order say 'halt'.",
        ..manual(Command::Abort, "abort", Effect::Danger)
    },
    Spec {
        usage: "block clientid",
        syntax: "[un]block clientid",
        short: "[un]blocks incoming transactions from clientid",
        long: "Requests of the client are not served until 'unblock'. One that a worker has already is answered. The client is told nothing.",
        args: &[CLIENT],
        example: "block 4",
        ..manual(Command::Block, "block", Effect::Change)
    },
    Spec {
        usage: "buckets [num secs]",
        syntax: "buckets num secs",
        short: "set the number of buckets to 'num' and the bucket size to 'secs' seconds",
        long: "Completed transactions are counted per window; the status page shows them, the running window first. Setting them begins anew with empty buckets. Without arguments it shows them.",
        args: &[
            arg("num", Takes::Any, "number of buckets, 1 to 1440"),
            arg("secs", Takes::Any, "seconds of one bucket, 1 to 86400"),
        ],
        example: "buckets 12 5",
        ..manual(Command::Buckets, "buckets", Effect::Change)
    },
    Spec {
        usage: "client clientid",
        syntax: "client id",
        short: "examine the client structure for client id id",
        long: "Everything the broker knows about one client: where it came from, its service, priority, counters, what it has under way.",
        args: &[CLIENT],
        example: "client 4",
        ..manual(Command::Client, "client", Effect::Read)
    },
    Spec {
        short: "displays the client list",
        long: "The attached clients in serving order, with service, priority, host, pid, requests waiting and under way.",
        ..manual(Command::Clients, "clients", Effect::Read)
    },
    Spec {
        usage: "clone workerid",
        syntax: "clone workerid",
        short: "clones a worker id",
        long: "Makes a worker with the same service, host, path and arguments, a new id and counters at zero. It is lazy until 'start'.",
        args: &[WORKER],
        example: "clone 2",
        ..manual(Command::Clone, "clone", Effect::Change)
    },
    Spec {
        usage: "config events n [kind]...",
        syntax: "config events n",
        short: "remember n events (listevents)",
        long: "The last n events are kept for 'listevents'; 0 forgets all. With kinds only those are kept.",
        args: &[
            arg("n", Takes::Any, "how many events, 0 to 1000000"),
            arg(
                "kind",
                Takes::Any,
                "a kind of event to remember, as 'listevents' prints it; none = all kinds",
            ),
        ],
        example: "config events 100",
        ..manual(Command::ConfigEvents, "config events", Effect::Change)
    },
    Spec {
        usage: "delete worker workerid",
        syntax: "delete {worker|client} id",
        short: "deletes a client or worker",
        long: "Removes a worker from the configuration. It must be lazy and its process ended: 'stop' it first.",
        args: &[WORKER],
        example: "delete worker 3",
        ..manual(Command::DeleteWorker, "delete worker", Effect::Change)
    },
    Spec {
        usage: "delete client clientid",
        syntax: "delete {worker|client} id",
        short: "deletes a client or worker",
        long: "Closes the client's connection after an error client_deleted. Its waiting requests are removed; a worker that is busy for it finishes, and the reply is dropped.",
        args: &[CLIENT],
        example: "delete client 4",
        ..manual(Command::DeleteClient, "delete client", Effect::Danger)
    },
    Spec {
        short: "isectd calls exit(1)",
        long: "Ends the broker in order with exit status 1: clients get the error shutting_down, all workers are asked to end, those on other hosts, too, and so is the execd built in. SIGTERM does the same, with exit status 0, after what is being worked on.",
        ..manual(Command::Halt, "halt", Effect::Danger)
    },
    Spec {
        usage: "idle workerid",
        syntax: "idle id",
        short: "forcibly idles the busy worker id",
        long: "Takes the request away from a busy worker and puts the worker on the idle list. The client gets error -1 with the body PROTOCOL INTERVENTION; the work may have run. A late reply is dropped and counted. For a worker that forgot to reply.",
        args: &[WORKER],
        example: "idle 2",
        ..manual(Command::Idle, "idle", Effect::Danger)
    },
    Spec {
        usage: "listevents [n]",
        syntax: "listevents [n]",
        short: "list interesting events",
        long: "The events remembered, newest first, each with its time and ids. 'config events N' makes the broker remember them.",
        args: &[arg("n", Takes::Any, "at most so many; none = all that are remembered")],
        example: "listevents 10",
        ..manual(Command::ListEvents, "listevents", Effect::Read)
    },
    Spec {
        usage: "pause {service | worker | all}",
        syntax: "pause service | worker | all",
        short: "pauses a worker (makes lazy) without killing it",
        long: "An idle worker becomes lazy at once, a busy one after its reply. Processes keep running; requests wait in the queue within their deadlines. 'ready' undoes it.",
        args: &[TARGET],
        example: "pause echo",
        ..manual(Command::Pause, "pause", Effect::Change)
    },
    Spec {
        short: "lists isectd's services",
        long: "The configured services and their ids; 'op' is the broker's own.",
        ..manual(Command::Services, "services", Effect::Read)
    },
    Spec {
        usage: "preempt [on|off]",
        syntax: "preempt [on|off]",
        short: "sets or reports preempting option",
        long: "On: strict priority. Off, as it is at first: a waiting request gains one level each second, so that none starves. Neither interrupts a worker. Without an argument it reports.",
        args: &[arg("on|off", Takes::Words(ON_OFF), "which; none = report it")],
        example: "preempt on",
        ..manual(Command::Preempt, "preempt", Effect::Change)
    },
    Spec {
        usage: "pri clientid n",
        syntax: "pri id n",
        short: "changes a client's priority to n",
        long: "Lower is served first. It holds for the client's requests from now on that name no priority of their own, and for those that wait.",
        args: &[CLIENT, arg("n", Takes::Any, "priority, 1 to 255")],
        example: "pri 4 10",
        ..manual(Command::Pri, "pri", Effect::Change)
    },
    Spec {
        usage: "ready {service | worker | all}",
        syntax: "ready service | worker | all",
        short: "unpauses a worker",
        long: "Undoes 'pause': a worker that is logged in becomes idle and takes requests.",
        args: &[TARGET],
        example: "ready echo",
        ..manual(Command::Ready, "ready", Effect::Change)
    },
    Spec {
        usage: "reject [on|off]",
        syntax: "reject",
        short: "force isectd to reject new client logins",
        long: "New clients are refused with the error rejecting; operators and those attached already are not. 'reject off' lets clients in again.",
        args: &[arg("on|off", Takes::Words(ON_OFF), "which; none = on")],
        example: "reject on",
        ..manual(Command::Reject, "reject", Effect::Change)
    },
    Spec {
        short: "resets statistics",
        long: "Counters, histograms and buckets go to zero. Ids, queues and configuration stay.",
        ..manual(Command::Reset, "reset", Effect::Change)
    },
    Spec {
        usage: "send {service | worker | all} {reinit|status}",
        syntax: "send worker_id|service_name|all command:(reinit, status(TP workers only))",
        short: "sends command to a worker, service or all services",
        long: "reinit asks workers to read their configuration again; status asks how they are, and the answer is shown as an event. 'command:reinit' and 'command:status' are taken too.",
        args: &[TARGET, arg("command", Takes::Words(&["reinit", "status"]), "reinit or status")],
        example: "send echo reinit",
        ..manual(Command::Send, "send", Effect::Change)
    },
    Spec {
        usage: "service clientid newservice\nservice name",
        syntax: "service id newservice",
        short: "changes a client's service to newservice",
        long: "With the name of a service alone it shows the service: its workers, its clients, what waits, and its settings. The client's next requests go to that service, for example to one worker under a debugger. Requests that wait go along; one that a worker has does not.",
        args: &[CLIENT, arg("newservice", Takes::Service, "the service it is to be attached to")],
        example: "service 4 eat",
        ..manual(Command::Service, "service", Effect::Change)
    },
    Spec {
        usage: "shutdown {fd | all}",
        syntax: "shutdown fd | all",
        short: "shutdown the fd for sending",
        long: "Shuts the sending side of a worker's socket: the worker takes it as the broker's end, ends, and is restarted. For a worker that may have become catatonic.",
        args: &[arg("fd|all", Takes::Words(&["all"]), "column 'fd' of 'workers', or all workers")],
        example: "shutdown all",
        ..manual(Command::Shutdown, "shutdown", Effect::Danger)
    },
    Spec {
        usage: "start {service | worker | all}",
        syntax: "start service | all",
        short: "start processing messages for service",
        long: "Asks the hosts to start the processes of the workers that are not up. It clears 'failed' and its count of ends.",
        args: &[TARGET],
        example: "start echo",
        ..manual(Command::Start, "start", Effect::Change)
    },
    Spec {
        usage: "stop {service | worker | all}",
        syntax: "stop service | all",
        short: "stop processing messages for service",
        long: "No new work; after the reply in progress the worker is asked to end, then gets TERM, then KILL. Requests to a stopped service fail at once with service_stopped.",
        args: &[TARGET],
        example: "stop echo",
        ..manual(Command::Stop, "stop", Effect::Danger)
    },
    Spec {
        usage: "unblock clientid",
        syntax: "unblock clientid",
        short: "reverses \"block clientid\"",
        long: "The client's requests are read and served again.",
        args: &[CLIENT],
        example: "unblock 4",
        ..manual(Command::Unblock, "unblock", Effect::Change)
    },
    Spec {
        usage: "worker workerid",
        syntax: "worker id",
        short: "examine the worker structure for worker id id",
        long: "Everything the broker knows about one worker: state, process, counters, times, restarts, the last lines of its stderr.",
        args: &[WORKER],
        example: "worker 1",
        ..manual(Command::Worker, "worker", Effect::Read)
    },
    Spec {
        usage: "workers [lazy | idle | busy | all]",
        syntax: "workers [lazy | idle | busy | all]",
        short: "displays the worker queues",
        long: "Lazy workers can't take requests (stopped, paused, not logged in), idle ones can, busy ones have one. For a busy worker the last response time is a running clock.",
        args: &[arg(
            "list",
            Takes::Words(&["lazy", "idle", "busy", "all"]),
            "which of the lists; none = all",
        )],
        example: "workers idle",
        ..manual(Command::Workers, "workers", Effect::Read)
    },
    Spec {
        usage: "status, or a blank command",
        syntax: "<nil>",
        short: "examine isdData",
        long: "The broker's own page: lists and their lengths, ports, ids, limits, events, buckets.",
        ..manual(Command::Status, "status", Effect::Read)
    },
    Spec {
        usage: "config host name address[:port]",
        syntax: "config host name address[:port]",
        short: "makes a host known, or changes its address",
        long: "The broker links to the execd there and starts workers of that host through it. localhost is built in.",
        args: &[
            arg("name", Takes::Host, "what the host is called here"),
            arg(
                "address",
                Takes::Any,
                "where its isdexecd listens: ADDR, ADDR:PORT (5502 if it has none), IPV6, [IPV6]:PORT or unix:PATH; tls:// before it = over TLS",
            ),
        ],
        example: "config host h2 192.0.2.7:5502",
        ..beyond(Command::ConfigHost, "config host", Effect::Change)
    },
    Spec {
        usage: "config service [#id] name [setting=value]...",
        syntax: "config service [#id] name [setting=value]...",
        short: "makes a service, or changes its settings",
        long: "A service is a name and the workers that do the same thing. Of a service that exists already only the settings named are changed.",
        args: &[
            arg(
                "#id",
                Takes::Any,
                "the id to give it, as 'save' prints it; only for a new service",
            ),
            arg(
                "name",
                Takes::Service,
                "letters, digits, '-', '_' and '.', at most 32, first a letter",
            ),
            arg(
                "setting=value",
                Takes::ServiceSetting,
                "a setting of the service; docs/config.md has the table",
            ),
        ],
        example: "config service echo deadline_ms=5000",
        ..beyond(Command::ConfigService, "config service", Effect::Change)
    },
    Spec {
        usage: "config worker [#id] service host path [argument]...",
        syntax: "config worker [#id] service host path [argument]...",
        short: "makes a worker of a service on a host",
        long: "The program is run by the host's execd, never through a shell. Its own arguments begin at argv[ISDARGMAX]. Words with blanks stand in quotes. The worker is lazy until 'start'.",
        args: &[
            arg("#id", Takes::Any, "the id to give it, as 'save' prints it"),
            SERVICE,
            HOST,
            arg("path", Takes::Any, "the program on that host, an absolute path"),
            arg("argument", Takes::Any, "arguments of the program"),
        ],
        example: "config worker echo localhost /usr/local/bin/isdecho",
        ..beyond(Command::ConfigWorker, "config worker", Effect::Change)
    },
    Spec {
        usage: "delete host host",
        syntax: "delete host host",
        short: "deletes a host that no worker is configured on",
        long: "Its link is closed. localhost can't be deleted.",
        args: &[HOST],
        example: "delete host h2",
        ..beyond(Command::DeleteHost, "delete host", Effect::Change)
    },
    Spec {
        usage: "delete service service",
        syntax: "delete service service",
        short: "deletes a service without workers and clients",
        long: "Delete its workers first. 'op' can't be deleted.",
        args: &[SERVICE],
        example: "delete service eat",
        ..beyond(Command::DeleteService, "delete service", Effect::Change)
    },
    Spec {
        usage: "help [command]",
        syntax: "help [command]",
        short: "lists the commands, or explains one",
        long: "Without a command this list, with one everything about it. '?' is the same.",
        args: &[arg("command", Takes::Command, "one or two words, as in 'help config worker'")],
        example: "help pause",
        ..beyond(Command::Help, "help", Effect::Read)
    },
    Spec {
        usage: "host host",
        syntax: "host host",
        short: "examine a host",
        long: "Its address, its link, its execd's pid and version, its processes, when it was lost and why.",
        args: &[HOST],
        example: "host localhost",
        ..beyond(Command::Host, "host", Effect::Read)
    },
    Spec {
        short: "lists the hosts and their links",
        long: "Each host with its address, state, workers and running processes.",
        ..beyond(Command::Hosts, "hosts", Effect::Read)
    },
    Spec {
        usage: "last workerid",
        syntax: "last workerid",
        short: "shows the bytes of a worker's last or current request",
        long: "A hex dump of the request that the worker has or had last, with who sent it and when. Bytes past last_bytes_max are not kept.",
        args: &[WORKER],
        example: "last 1",
        ..beyond(Command::Last, "last", Effect::Read)
    },
    Spec {
        usage: "latency [service]",
        syntax: "latency [service]",
        short: "shows queue wait and service time in percentiles",
        long: "Per service, since the start or 'reset': requests, and the 50th, 90th, 99th percentile and maximum of the wait for a worker and of the worker's time.",
        args: &[SERVICE],
        example: "latency echo",
        ..beyond(Command::Latency, "latency", Effect::Read)
    },
    Spec {
        usage: "load [service]",
        syntax: "load [service]",
        short: "shows what waits, who works, what was refused or repeated",
        long: "Per service: clients, requests that wait, workers idle and busy; since the start or 'reset': requests answered, failed, refused because the service is overloaded, given to another worker after a death ('retried'), not given to one because the retry budget was used up ('denied'); then how many repetitions the last 10 to 20 s had, and how many they may have (retry_percent, retry_min).",
        args: &[SERVICE],
        example: "load echo",
        ..beyond(Command::Load, "load", Effect::Read)
    },
    Spec {
        usage: "poison [n | clear]",
        syntax: "poison [n | clear]",
        short: "lists requests that killed workers, shows or forgets them",
        long: "A request that several workers died of (poison_deaths) is set aside with its bytes. A worker that is unreachable, or that was asked to end by 'stop', 'shutdown' or the shutdown of its host or the broker, did not die of its request. With a number one of them is shown as a hex dump; clear forgets all.",
        args: &[arg(
            "n|clear",
            Takes::Words(&["clear"]),
            "a number of the list, or clear; none = list them",
        )],
        ..beyond(Command::Poison, "poison", Effect::Change)
    },
    Spec {
        usage: "queue [service]",
        syntax: "queue [service]",
        short: "shows who waits for a worker, and how long",
        long: "The waiting requests in the order in which they will be served.",
        args: &[SERVICE],
        example: "queue echo",
        ..beyond(Command::Queue, "queue", Effect::Read)
    },
    Spec {
        short: "reads the token file and the certificates again",
        long: "As SIGHUP does. If a file can't be read, what was in force stays, and the answer says why. New connections get the new certificates; those that are there keep theirs. Whoever came in with a token that is gone or was renewed is shut out; whoever may do less than before loses it at once.",
        ..beyond(Command::Reload, "reload", Effect::Change)
    },
    Spec {
        usage: "requests [service | client n | worker n | all]",
        syntax: "requests [service]",
        short: "lists the requests under way, those with workers first",
        long: "Each request that waits or that a worker has: since when it is there, since when its worker works on it ('running'), how long it may take yet, its client, its worker and that one's process, how often it was given to a worker, and the bytes in whole frames that came of it and of its reply so far. 'client n' shows those that a client waits for, 'worker n' those that a worker has or holds. One that its worker works on stands there as 'overdue' when its time is over, and as 'unheard' when nobody waits for it any more, until the worker is done with it. A long list is made part by part, each row as things are at its moment; what has ended by then is not in it.",
        args: &[arg(
            "service",
            Takes::Service,
            "a service, 'client' and a client's id, or 'worker' and a worker's id; 'all' or none = all",
        )],
        example: "requests echo",
        ..beyond(Command::Requests, "requests", Effect::Read)
    },
    Spec {
        short: "prints the configuration as a script",
        long: "The commands that make this configuration again: 'isdclient < file' or 'source FILE' replays them.",
        ..beyond(Command::Save, "save", Effect::Read)
    },
    Spec {
        usage: "set name value",
        syntax: "set name value",
        short: "changes a setting of the broker while it runs",
        long: "'set name=value' is taken too. The value holds over a restart. 'settings' lists names, ranges and values.",
        args: &[
            arg("name", Takes::Setting, "a setting, column 'setting' of 'settings'"),
            arg(
                "value",
                Takes::Any,
                "a whole number within the setting's range; on and off for a switch",
            ),
        ],
        example: "set stall_ms 5000",
        ..beyond(Command::Set, "set", Effect::Change)
    },
    Spec {
        usage: "settings [name | service]",
        syntax: "settings [name]",
        short: "lists the broker's settings",
        long: "Name, value, unit, range, default and meaning of each setting.",
        args: &[arg(
            "name",
            Takes::Setting,
            "one of the broker's, or a service; none = all of the broker's",
        )],
        example: "settings stall_ms",
        ..beyond(Command::Settings, "settings", Effect::Read)
    },
    Spec {
        usage: "source file",
        syntax: "source file",
        short: "runs the commands of a file on the broker's machine",
        long: "Blank lines and lines that begin with # are skipped. All lines are tried; the answer names those that failed, by number.",
        args: &[arg("file", Takes::Any, "a path on the broker's machine")],
        example: "source /etc/isect/setup.op",
        ..beyond(Command::Source, "source", Effect::Danger)
    },
    Spec {
        short: "prints the broker's version",
        long: "The version of the broker and of the protocol it speaks.",
        ..beyond(Command::Version, "version", Effect::Read)
    },
    Spec {
        usage: "watch [kind]...",
        syntax: "watch [kind]...",
        short: "streams events as they happen",
        long: "Each event is one reply with 'more' set, until the client leaves. With kinds only those.",
        args: &[arg(
            "kind",
            Takes::Any,
            "a kind of event to watch, as 'listevents' prints it; none = all kinds",
        )],
        example: "watch worker_died",
        ..beyond(Command::Watch, "watch", Effect::Read)
    },
    Spec {
        short: "shows who you are to the broker and what you may do",
        long: "Your client id, where you come from, the user that the kernel names or the token that you proved, and the roles that follow from it.",
        ..beyond(Command::Whoami, "whoami", Effect::Read)
    },
];
