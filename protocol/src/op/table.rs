//! TABLE of the operator's commands: one row each, of which the parser, the written command,
//! `help`, completion, rights, the JSON of the answer, docs/op.md and the schema are made. The
//! commands of the manual chapter's help come first, in the manual's order and words. The engine
//! carries the commands out.

use super::args::Args;
use super::commands::{beyond, commands, manual};
use super::death_shapes as deaths;
use super::events::EventFilter;
use super::instance_shape as instances;
use super::log_shapes as logs;
use super::params::{
    ADDRESS, BUCKETS, CLIENT, CLONE_COUNT, DEATH, DEATHS_WHAT, EVENTS_KEPT, EVENTS_LISTED,
    EVENTS_WATCHED, FILE, GROUP, GROUP_MEMBERS, HOST, HOST_NAME, INSTANCE, INSTANCES_OF,
    ITS_TRANSACTION, KEEP, KINDS_KEPT, LOGS_WANTED, MIN_READY, NEW_SERVICE_ID, NEW_WORKER_ID,
    ON_OR_ASKED, ON_UNLESS_OFF, POISON_WHAT, PRIORITY, REQUEST_NAME, REQUESTS_OF, SCALE_COUNT,
    SCALE_HOSTS, SEND_WHAT, SERVICE, SERVICE_NAME, SERVICE_OR_ALL, SERVICE_SETTINGS, SERVICE_WHAT,
    SETTING, SETTINGS_OF, SHUTDOWN_WHAT, SUBSCRIPTIONS_OF, TARGET, TOPIC, TOPICS_OF, WHICH, WHY_OF,
    WORKER, WORKER_CONFIG, WORKER_FILTER,
};
use super::parse::OpError;
use super::rollout_shapes as rollouts;
use super::shape::{self, array, object, text};
use super::spec::{
    DeathsWhat, Effect, GroupMembers, InstanceWanted, InstancesOf, LogsWanted, PoisonWhat,
    RequestName, RequestsOf, SendWhat, ServiceChange, ServiceWhat, SettingsOf, ShutdownWhat, Spec,
    SubscriptionsOf, Target, WhyOf, WorkerConfig, WorkerFilter,
};
use super::topic_shapes as topics;
use super::worker_shapes;
use crate::ids::{ClientId, ServiceId, TransactionId, WorkerId};
use crate::names::{HostName, ServiceName};
use crate::settings::Setting;
use crate::topics::Pattern;
use std::fmt;

// A row: the command and its arguments, each with its type and its row of `params`; whether the
// manual has it, its name, what it may change (and for which arguments it changes nothing); its
// texts; an example that works on a broker with the manual's two services; the answer in JSON.
commands! {
    Abort = manual "abort" Danger {
        short: "isectd calls abort() - creates a core file",
        long: "Ends the broker at once with a core file, for its programmers. Workers keep running and come back to the next broker. To end in order say 'halt'.",
        answer: &[object("abort", &[shape::TEXT])],
    }
    Block(client: ClientId = CLIENT) = manual "block" Change {
        usage: "block clientid",
        syntax: "[un]block clientid",
        short: "[un]blocks incoming transactions from clientid",
        long: "Requests of the client are not served until 'unblock'. One that a worker has already is answered. The client is told nothing.",
        example: "block 4",
        answer: &[object("blocked", &[shape::CLIENT])],
    }
    Buckets(size: Option<(u32, u32)> = BUCKETS) = manual "buckets" Change (Read if None) {
        usage: "buckets [num secs]",
        syntax: "buckets num secs",
        short: "set the number of buckets to 'num' and the bucket size to 'secs' seconds",
        long: "Completed transactions are counted per window; the status page shows them, the running window first. Setting them begins anew with empty buckets. Without arguments it shows them.",
        example: "buckets 12 5",
        answer: &[shape::BUCKETS],
    }
    Client(client: ClientId = CLIENT) = manual "client" Read {
        usage: "client clientid",
        syntax: "client id",
        short: "examine the client structure for client id id",
        long: "Everything the broker knows about one client: where it came from, its service, priority, counters, what it has under way.",
        example: "client 4",
        answer: &[shape::CLIENT_PAGE],
    }
    Clients(is_builtin: bool = WHICH) = manual "clients" Read {
        usage: "clients [builtin]",
        syntax: "clients",
        short: "displays the client list",
        long: "The attached clients in serving order, with service, priority, host, pid, requests waiting and under way. 'clients builtin' lists those that are built-in services.",
        example: "clients",
        answer: &[shape::CLIENTS, shape::MORE],
    }
    Clone(worker: WorkerId = WORKER, count: Option<u64> = CLONE_COUNT) = manual "clone" Change {
        usage: "clone workerid [n]",
        syntax: "clone workerid",
        short: "clones a worker id",
        long: "Makes a worker with the same service, host, path and arguments, a new id and counters at zero. It is lazy until 'start'. With n it makes n of them; 'scale' makes and starts them.",
        example: "clone 2",
        answer: rollouts::CLONED,
    }
    ConfigEvents { count: u64 = EVENTS_KEPT, kinds: Vec<String> = KINDS_KEPT } = manual "config events" Change {
        usage: "config events n [kind]...",
        syntax: "config events n",
        short: "remember n events (listevents)",
        long: "The last n events are kept for 'listevents', 1000 if nothing is said; 0 forgets all. With kinds only those are kept.",
        example: "config events 100",
        answer: &[object("configured", &[shape::EVENTS_MAX])],
    }
    DeleteWorker(worker: WorkerId = WORKER) = manual "delete worker" Change {
        usage: "delete worker workerid",
        syntax: "delete {worker|client} id",
        short: "deletes a client or worker",
        long: "Removes a worker from the configuration. It must be lazy and its process ended: 'stop' it first.",
        example: "delete worker 3",
        answer: &[object("deleted", &[shape::WORKER])],
    }
    DeleteClient(client: ClientId = CLIENT) = manual "delete client" Danger {
        usage: "delete client clientid",
        syntax: "delete {worker|client} id",
        short: "deletes a client or worker",
        long: "Closes the client's connection after an error client_deleted. Its waiting requests are removed; a worker that is busy for it finishes, and the reply is dropped.",
        example: "delete client 4",
        answer: &[object("deleted", &[shape::CLIENT])],
    }
    Halt(keep: bool = KEEP) = manual "halt" Danger {
        usage: "halt [keep]",
        short: "isectd calls exit(1)",
        long: "Ends the broker in order with exit status 1: clients get the error shutting_down, all workers are asked to end, those on other hosts, too, and so is the execd built in. SIGTERM does the same, with exit status 0, after what is being worked on. 'halt keep' is for the next broker: requests that wait fail (shutting_down, ran no) and new ones, too; those that workers have may finish within halt_ms; then the broker ends with exit status 0, and the workers and execds stay and are taken over by the next broker on this state directory. SIGTERM does that after 'set on_term keep'.",
        example: "halt",
        answer: &[object("halt", &[shape::TEXT])],
    }
    Idle(worker: WorkerId = WORKER, only: Option<TransactionId> = ITS_TRANSACTION) = manual "idle" Danger {
        usage: "idle workerid [transaction]",
        syntax: "idle id",
        short: "forcibly idles the busy worker id",
        long: "Takes the request away from a busy worker and puts the worker on the idle list. Of a worker that has several, all are taken, or the one named. The client gets error -1 with the body PROTOCOL INTERVENTION; the work may have run. A late reply is dropped and counted. For a worker that forgot to reply.",
        example: "idle 2",
        answer: &[object("idled", &[shape::WORKER, shape::TRANSACTION.maybe()])],
    }
    ListEvents(filter: EventFilter = EVENTS_LISTED) = manual "listevents" Read {
        usage: "listevents [n] [kind=K]... [service=S] [worker=N] [client=N] [host=H] [since=T]",
        syntax: "listevents [n]",
        short: "list interesting events",
        long: "The events remembered, newest first, each with its time and ids: the last 1000, or as many as 'config events N' says, and at most events_bytes_max. With filters only those that pass all of them.",
        example: "listevents 10",
        answer: &[array("events", shape::EVENT), shape::NOTE],
    }
    Pause(target: Target = TARGET) = manual "pause" Change {
        usage: "pause {service | worker | host name | all}",
        deploy: true,
        syntax: "pause service | worker | all",
        short: "pauses a worker (makes lazy) without killing it",
        long: "An idle worker becomes lazy at once, a busy one after its reply. Processes keep running; requests wait in the queue within their deadlines. 'ready' undoes it.",
        example: "pause echo",
        answer: &[array("paused", shape::TARGETED), shape::NOTE],
    }
    Services(is_builtin: bool = WHICH) = manual "services" Read {
        usage: "services [builtin]",
        syntax: "services",
        short: "lists isectd's services",
        long: "The configured services and their ids; 'op' is the broker's own. 'services builtin' lists those that are built in (docs/builtin.md).",
        example: "services",
        answer: &[array("services", shape::SERVICE_ROW)],
    }
    Preempt(on: Option<bool> = ON_OR_ASKED) = manual "preempt" Change (Read if None) {
        usage: "preempt [on|off]",
        syntax: "preempt [on|off]",
        short: "sets or reports preempting option",
        long: "On: strict priority. Off, as it is at first: a waiting request gains one level each second, so that none starves. Neither interrupts a worker. Without an argument it reports.",
        example: "preempt on",
        answer: &[object("preempt", &[shape::PREEMPT])],
    }
    Pri(client: ClientId = CLIENT, priority: u8 = PRIORITY) = manual "pri" Change {
        usage: "pri clientid n",
        syntax: "pri id n",
        short: "changes a client's priority to n",
        long: "Lower is served first. It holds for the client's requests from now on that name no priority of their own, and for those that wait.",
        example: "pri 4 10",
        answer: &[object("pri", &[shape::CLIENT, shape::PRIORITY])],
    }
    Ready(target: Target = TARGET) = manual "ready" Change {
        usage: "ready {service | worker | host name | all}",
        deploy: true,
        syntax: "ready service | worker | all",
        short: "unpauses a worker",
        long: "Undoes 'pause': a worker that is logged in becomes idle and takes requests.",
        example: "ready echo",
        answer: &[shape::OK.sometimes(), array("readied", shape::TARGETED).sometimes()],
    }
    Reject(on: bool = ON_UNLESS_OFF) = manual "reject" Change {
        usage: "reject [on|off]",
        syntax: "reject",
        short: "force isectd to reject new client logins",
        long: "New clients are refused with the error rejecting; operators and those attached already are not. 'reject off' lets clients in again.",
        example: "reject on",
        answer: &[object("reject", &[shape::REJECT])],
    }
    Reset = manual "reset" Change {
        short: "resets statistics",
        long: "Counters, histograms and buckets go to zero. Ids, queues and configuration stay.",
        answer: &[shape::OK],
    }
    Send(target: Target = TARGET, what: SendWhat = SEND_WHAT) = manual "send" Change {
        usage: "send {service | worker | host name | all} {reinit|status}",
        syntax: "send worker_id|service_name|all command:(reinit, status(TP workers only))",
        short: "sends command to a worker, service or all services",
        long: "reinit asks workers to read their configuration again; status asks how they are, and the answer is shown as an event. 'command:reinit' and 'command:status' are taken too.",
        example: "send echo reinit",
        answer: &[
            object("sent", &[shape::SENT_TO]).sometimes(),
            array("statuses", &[shape::WORKER, shape::SAID]).sometimes(),
            shape::NOTE,
        ],
    }
    Service(what: ServiceWhat = SERVICE_WHAT) = manual "service" Change (Read if ServiceWhat::Page(_)) {
        usage: "service clientid newservice\nservice name",
        syntax: "service id newservice",
        short: "changes a client's service to newservice",
        long: "With the name of a service alone it shows the service: its workers, its clients, what waits, and its settings. The client's next requests go to that service, for example to one worker under a debugger. Requests that wait go along; one that a worker has does not.",
        example: "service 4 eat",
        answer: &[
            object("moved", &[shape::CLIENT, shape::SERVICE]).sometimes(),
            shape::SERVICE_PAGE,
            array("settings", shape::SETTING_ROW).sometimes(),
            worker_shapes::OF_SERVICE,
        ],
    }
    Shutdown(what: ShutdownWhat = SHUTDOWN_WHAT) = manual "shutdown" Danger {
        usage: "shutdown {fd | all}",
        syntax: "shutdown fd | all",
        short: "shutdown the fd for sending",
        long: "Shuts the sending side of a worker's socket: the worker takes it as the broker's end, ends, and is restarted. For a worker that may have become catatonic.",
        example: "shutdown all",
        answer: &[object("shutdown", &[shape::SOCKETS])],
    }
    Start(target: Target = TARGET) = manual "start" Change {
        usage: "start {service | worker | host name | all}",
        deploy: true,
        syntax: "start service | all",
        short: "start processing messages for service",
        long: "Asks the hosts to start the processes of the workers that are not up. It clears 'failed' and its count of ends.",
        example: "start echo",
        answer: &[shape::OK],
    }
    Stop(target: Target = TARGET) = manual "stop" Danger {
        usage: "stop {service | worker | host name | all}",
        deploy: true,
        syntax: "stop service | all",
        short: "stop processing messages for service",
        long: "No new work; after the reply in progress the worker is asked to end, then gets TERM, then KILL. Requests to a stopped service fail at once with service_stopped.",
        example: "stop echo",
        answer: &[shape::OK],
    }
    Unblock(client: ClientId = CLIENT) = manual "unblock" Change {
        usage: "unblock clientid",
        syntax: "unblock clientid",
        short: "reverses \"block clientid\"",
        long: "The client's requests are read and served again.",
        example: "unblock 4",
        answer: &[object("unblocked", &[shape::CLIENT])],
    }
    Worker(worker: WorkerId = WORKER) = manual "worker" Read {
        usage: "worker workerid",
        syntax: "worker id",
        short: "examine the worker structure for worker id id",
        long: "Everything the broker knows about one worker: state, process, counters, times, restarts, the last lines of its stderr.",
        example: "worker 1",
        answer: &[shape::WORKER_PAGE, worker_shapes::OF_WORKER],
    }
    Workers(filter: WorkerFilter = WORKER_FILTER) = manual "workers" Read {
        usage: "workers [lazy | idle | busy | all | builtin]",
        syntax: "workers [lazy | idle | busy | all]",
        short: "displays the worker queues",
        long: "Lazy workers can't take requests (stopped, paused, not logged in), idle ones can, busy ones have one. For a busy worker the last response time is a running clock. Those of built-in services are listed by 'builtin' alone.",
        example: "workers idle",
        answer: &[
            array("lazy", shape::WORKER_ROW).sometimes(),
            array("idle", shape::WORKER_ROW).sometimes(),
            array("busy", shape::WORKER_ROW).sometimes(),
            shape::MORE,
        ],
    }
    Status = manual "status" Read {
        usage: "status, or a blank command",
        syntax: "<nil>",
        short: "examine isdData",
        long: "The broker's own page: lists and their lengths, ports, ids, limits, events, buckets.",
        answer: &[shape::STATUS],
    }
    Cancel(request: RequestName = REQUEST_NAME) = beyond "cancel" Danger {
        usage: "cancel transaction\ncancel clientid sequence",
        syntax: "cancel transaction",
        short: "gives up one request in place of its client",
        long: "The client gets the error cancelled at once. One that waits has not run; one that a worker has may have run, and its late reply is dropped and counted: the worker keeps it until then ('idle' takes it away). 'requests' lists the numbers.",
        example: "cancel 6",
        answer: &[object("cancelled", shape::CANCELLED)],
    }
    ConfigGroup { name: ServiceName = GROUP, members: GroupMembers = GROUP_MEMBERS } = beyond "config group" Change {
        usage: "config group name [min=n] [member]...",
        syntax: "config group name [min=n] [member]...",
        short: "makes a group of instances, or changes it",
        long: "The instances of the names that are given are in the group, and those that name it themselves. It is running when as many of them run as min says; without min all that are named, or one. The command says all of the group: what it does not name is no member any more. Each service is a group by itself, with its workers; this may give it a min and further members.",
        example: "config group night min=2 pump valve",
        answer: &[
            object("configured", instances::CONFIGURED).sometimes(),
            object("changed", instances::CONFIGURED).sometimes(),
            object("unchanged", instances::CONFIGURED).sometimes(),
        ],
    }
    ConfigHost { name: HostName = HOST_NAME, address: String = ADDRESS } = beyond "config host" Change {
        usage: "config host name address[:port]",
        syntax: "config host name address[:port]",
        short: "makes a host known, or changes its address",
        long: "The broker links to the execd there and starts workers of that host through it. localhost is built in.",
        example: "config host h2 192.0.2.7:5502",
        answer: &[object("configured", &[shape::HOST, shape::ADDRESS])],
    }
    ConfigService {
        id: Option<ServiceId> = NEW_SERVICE_ID,
        name: ServiceName = SERVICE_NAME,
        settings: Vec<ServiceChange> = SERVICE_SETTINGS,
    } = beyond "config service" Change (Danger if OpRequest::ConfigService { settings, .. } => ServiceChange::has_worker(settings)) {
        usage: "config service [#id] name [setting=value]...",
        syntax: "config service [#id] name [setting=value]...",
        short: "makes a service, or changes its settings",
        long: "A service is a name and the workers that do the same thing. Of a service that exists already only the settings named are changed. topic=PATTERN makes each message of a topic that matches a one-way request of the service (its body is that of the message, lines and payload), which one worker gets; 'topic=' ends that. Settings of processes (env, cwd, user, limit and others) hold for all its workers, from their next start on; with them the command has the effect danger.",
        example: "config service echo deadline_ms=5000",
        answer: &[
            object("configured", &[shape::SERVICE, shape::SERVICE_ID]).sometimes(),
            object("changed", &[shape::SERVICE, shape::SERVICE_ID]).sometimes(),
            object("unchanged", &[shape::SERVICE, shape::SERVICE_ID]).sometimes(),
            worker_shapes::EARLIER,
        ],
    }
    ConfigWorker { id: Option<WorkerId> = NEW_WORKER_ID, config: WorkerConfig = WORKER_CONFIG } = beyond "config worker" Change (Danger if OpRequest::ConfigWorker { config, .. } => config.has_settings()) {
        usage: "config worker [#id] service host [setting=value]... path [argument]...\nconfig worker #id setting=value...",
        syntax: "config worker [#id] service host path [argument]...",
        short: "makes a worker of a service on a host",
        long: "The program is run by the host's execd, never through a shell. Its own arguments begin at argv[ISDARGMAX]. Words with blanks stand in quotes. The worker is lazy until 'start'. Settings before the path hold for this worker alone, and win over those of its service one by one; 'config worker #ID SETTING=VALUE' changes them, from its next start on. With settings, and for a service that has some, the command has the effect danger.",
        example: "config worker echo localhost /usr/local/bin/isdecho",
        answer: worker_shapes::CONFIGURED,
    }
    Death(death: u64 = DEATH) = beyond "death" Read {
        usage: "death deathid",
        syntax: "death deathid",
        short: "shows one unexpected end of a worker's process, and the requests it had",
        long: "How the process ended: exit status or signal, whether the kernel wrote a core file or killed for want of memory, processor time, memory, its last lines on stderr, whether and why the broker had it killed, what followed. Then each request that it had: from whom, for how long, and a hex dump of its first bytes, at most 65536. Of a request of more than 16384 bytes that can't be repeated, last_bytes_max are kept.",
        example: "death 1",
        answer: &[deaths::DEATH, deaths::LOST, deaths::LOST_BYTES, shape::MORE],
    }
    Deaths(what: DeathsWhat = DEATHS_WHAT) = beyond "deaths" Change (Read if DeathsWhat::List(_)) {
        usage: "deaths [n | clear]",
        syntax: "deaths [n | clear]",
        short: "lists the unexpected ends of workers' processes, or forgets them",
        long: "Each end that was a failure, the last one first, also where the broker had the process killed. Those that were asked to end, that ended in order or could not be reached are none. They are kept until deaths_max or deaths_bytes_max pushes them out, clear forgets them, or the broker ends. A worker that started itself has no process that the broker knows of.",
        example: "deaths",
        answer: deaths::LISTED,
    }
    DeleteGroup(group: ServiceName = GROUP) = beyond "delete group" Change {
        usage: "delete group name",
        syntax: "delete group name",
        short: "forgets what 'config group' said of a group",
        long: "Instances that name the group themselves stay in it; of a service its workers do.",
        example: "delete group night",
        answer: &[object("deleted", &[instances::GROUP])],
    }
    DeleteHost(host: HostName = HOST) = beyond "delete host" Change {
        usage: "delete host host",
        syntax: "delete host host",
        short: "deletes a host that no worker is configured on",
        long: "Its link is closed. localhost can't be deleted.",
        example: "delete host h2",
        answer: &[object("deleted", &[shape::HOST])],
    }
    DeleteService(service: ServiceName = SERVICE) = beyond "delete service" Change {
        usage: "delete service service",
        syntax: "delete service service",
        short: "deletes a service without workers and clients",
        long: "Delete its workers first. 'op' can't be deleted.",
        example: "delete service eat",
        answer: &[object("deleted", &[shape::SERVICE])],
    }
    DrainHost(host: HostName = HOST) = beyond "drain host" Change {
        usage: "drain host host",
        deploy: true,
        syntax: "drain host host",
        short: "has the workers of a host end, and starts none there",
        long: "The workers that are configured on the host get no further requests, answer those that they have, end, and stay down; new ones wait. That is stored, and a later broker keeps to it. Requests go to workers on other hosts; where there are none they fail with no_worker. 'undrain host' ends it.",
        example: "drain host localhost",
        answer: &[object("drained", shape::DRAINED)],
    }
    Group(group: ServiceName = GROUP) = beyond "group" Read {
        usage: "group name",
        syntax: "group name",
        short: "shows a group: its members, and who is missing",
        long: "The state of the group, how many members run of how many that are expected, the names of which no instance is there, and those that are timed out or failed and were not replaced. 'instances group NAME' lists the members.",
        example: "group echo",
        answer: &[instances::GROUP_PAGE],
    }
    Groups = beyond "groups" Read {
        short: "lists the groups of instances, and their states",
        long: "Each service is a group of its workers, which no program can announce itself into; so is each other name that an instance names as its group, and what 'config group' makes. A group is running when enough members run (min); otherwise error, when one is timed out or failed and was not replaced; otherwise starting, when one starts or some run; otherwise down.",
        answer: &[instances::GROUPS, shape::MORE],
    }
    Help(topic: Option<String> = TOPIC) = beyond "help" Read {
        usage: "help [command]",
        syntax: "help [command]",
        short: "lists the commands, or explains one",
        long: "Without a command this list, with one everything about it. '?' is the same.",
        example: "help pause",
        answer: &[text("help")],
    }
    Host(host: HostName = HOST) = beyond "host" Read {
        usage: "host host",
        syntax: "host host",
        short: "examine a host",
        long: "Its address, its link, its execd's pid and version, its processes, when it was lost and why.",
        example: "host localhost",
        answer: &[object("host", shape::HOST_PAGE)],
    }
    Hosts = beyond "hosts" Read {
        short: "lists the hosts and their links",
        long: "Each host with its address, state, workers and running processes.",
        answer: &[array("hosts", shape::HOST_ROW)],
    }
    Instance(instance: InstanceWanted = INSTANCE) = beyond "instance" Read {
        usage: "instance name [id [machine]]",
        syntax: "instance name [id]",
        short: "shows everything about one instance",
        long: "One that is there, or else the last one that ended and is remembered. The id may be left out if there is one of the name.",
        example: "instance echo 1",
        answer: &[instances::PAGE],
    }
    Instances(of: InstancesOf = INSTANCES_OF) = beyond "instances" Read {
        usage: "instances [name | group name | history | all]",
        syntax: "instances [name]",
        short: "lists what programs have announced, and the workers",
        long: "Each instance with its state, its checkpoint and since when it is so. An instance is 'timed out' when its program sent no beat for its time-out, and 'stalled' when its checkpoint stays the same while it has work. A worker is an instance of its service: its id is the worker's, its checkpoint counts the transactions that it completed. 'history' lists those that ended, the last one first. A long list is made part by part, each row as things are at its moment.",
        example: "instances echo",
        answer: &[instances::INSTANCES.sometimes(), instances::ENDED.sometimes(), shape::MORE],
    }
    Last(worker: WorkerId = WORKER) = beyond "last" Read {
        usage: "last workerid",
        syntax: "last workerid",
        short: "shows the bytes of a worker's last or current request",
        long: "A hex dump of the request that the worker has or had last, with who sent it and when. Bytes past last_bytes_max are not kept.",
        example: "last 1",
        answer: &[shape::LAST, shape::REQUEST],
    }
    Latency(service: Option<ServiceName> = SERVICE_OR_ALL) = beyond "latency" Read {
        usage: "latency [service]",
        syntax: "latency [service]",
        short: "shows queue wait and service time in percentiles",
        long: "Per service, since the start or 'reset': requests, and the 50th, 90th, 99th percentile and maximum of the wait for a worker and of the worker's time.",
        example: "latency echo",
        answer: &[shape::LATENCY, shape::UNASKED],
    }
    Load(service: Option<ServiceName> = SERVICE_OR_ALL) = beyond "load" Read {
        usage: "load [service]",
        syntax: "load [service]",
        short: "shows what waits, who works, what was refused or repeated",
        long: "Per service: clients, requests that wait, workers idle and busy; since the start or 'reset': requests answered, failed, refused because the service is overloaded, given to another worker after a death ('retried'), not given to one because the retry budget was used up ('denied'); then how many repetitions the last 10 to 20 s had, and how many they may have (retry_percent, retry_min).",
        example: "load echo",
        answer: &[shape::LOAD],
    }
    Logs(wanted: LogsWanted = LOGS_WANTED) = beyond "logs" Read {
        usage: "logs target [-n lines] [-f]",
        syntax: "logs target [-n lines] [-f]",
        short: "shows what workers wrote on stdout and stderr",
        long: "The last lines that the hosts of these workers have kept (output_bytes, output_files), 20 or as many as -n says, in the order of their times; before each line stands its worker's id, unless one worker was asked for. Of a host that is away or too old it says so. With -f further lines follow as they are written, until the client leaves; a host passes on only so many a second, and what it did not is counted.",
        example: "logs echo",
        answer: logs::LOGS,
    }
    Poison(what: PoisonWhat = POISON_WHAT) = beyond "poison" Change (Read if PoisonWhat::List | PoisonWhat::Show(_)) {
        usage: "poison [n | clear]",
        syntax: "poison [n | clear]",
        short: "lists requests that killed workers, shows or forgets them",
        long: "A request that several workers died of (poison_deaths) is set aside with its bytes. A worker that is unreachable, or that was asked to end by 'stop', 'shutdown' or the shutdown of its host or the broker, did not die of its request. With a number one of them is shown as a hex dump; clear forgets all.",
        answer: &[
            shape::POISON.sometimes(), shape::REQUEST,
            object("cleared", &[shape::FORGOTTEN]).sometimes(),
        ],
    }
    Queue(service: Option<ServiceName> = SERVICE_OR_ALL) = beyond "queue" Read {
        usage: "queue [service]",
        syntax: "queue [service]",
        short: "shows who waits for a worker, and how long",
        long: "The waiting requests in the order in which they will be served.",
        example: "queue echo",
        answer: &[shape::QUEUE, shape::WHY, shape::MORE],
    }
    Reload = beyond "reload" Change {
        short: "reads the token file and the certificates again",
        long: "As SIGHUP does. If a file can't be read, what was in force stays, and the answer says why. New connections get the new certificates; those that are there keep theirs. Whoever came in with a token that is gone or was renewed is shut out; whoever may do less than before loses it at once.",
        answer: &[shape::RELOAD, shape::CERTIFICATES],
    }
    Requests(of: RequestsOf = REQUESTS_OF) = beyond "requests" Read {
        usage: "requests [service | client n | worker n | all]",
        syntax: "requests [service]",
        short: "lists the requests under way, those with workers first",
        long: "Each request that waits or that a worker has: since when it is there, since when its worker works on it ('running'), how long it may take yet, its client, its worker and that one's process, how often it was given to a worker, and the bytes in whole frames that came of it and of its reply so far. 'client n' shows those that a client waits for, 'worker n' those that a worker has or holds. One that its worker works on stands there as 'overdue' when its time is over, and as 'unheard' when nobody waits for it any more, until the worker is done with it. A long list is made part by part, each row as things are at its moment; what has ended by then is not in it.",
        example: "requests echo",
        answer: &[shape::REQUESTS, shape::MORE],
    }
    Restart { target: Target = TARGET, min: Option<u64> = MIN_READY } = beyond "restart" Change {
        usage: "restart {service | worker | host name | all} [min n]",
        deploy: true,
        syntax: "restart service | worker | host name | all [min n]",
        short: "replaces processes by new ones, without an outage",
        long: "For a new version of a program. A temporary worker is started first; when it is ready and stayed so for stable_ms, the first old process gets no more requests, answers what it has, and ends, and the new one starts under the same id; then the next. At least n of each service stay ready; without it all but one, of 20 and more all but a tenth, and as many are replaced at a time. A new process that ends before it was ready for stable_ms, or is not ready within worker_login_ms, stops it there: the old ones stay, and the answer is an error that names the worker, why, and how many are done and left. Several services are restarted one after another; one that fails does not end the others. Stopped and paused workers, and those that started themselves, stay as they are. The answer comes at the end; the restart goes on without the one who asked.",
        example: "restart echo",
        answer: &[array("restarted", rollouts::RESTARTED).sometimes(), shape::NOTE],
    }
    Save = beyond "save" Read {
        short: "prints the configuration as a script",
        long: "The commands that make this configuration again: 'isdclient < file' or 'source FILE' replays them.",
        answer: &[text("script")],
    }
    Scale { service: ServiceName = SERVICE, count: u64 = SCALE_COUNT, hosts: Vec<HostName> = SCALE_HOSTS } = beyond "scale" Change {
        usage: "scale service n [host]...",
        deploy: true,
        syntax: "scale service n [host]...",
        short: "gives a service n workers",
        long: "More: workers like the newest one are made and started, on the hosts named, or on those that its workers use, where there are fewest first. Fewer: the newest get no more requests, answer what they have, and end; each is removed then. Workers that started themselves do not count. At least one stays: 'stop' ends the service. The configuration has the new workers, and not those that go, from now on.",
        example: "scale echo 2",
        answer: &[array("added", shape::TARGETED).sometimes(), array("draining", shape::TARGETED).sometimes(), shape::NOTE],
    }
    Set(setting: (Setting, u64) = SETTING) = beyond "set" Change {
        usage: "set name value",
        syntax: "set name value",
        short: "changes a setting of the broker while it runs",
        long: "'set name=value' is taken too. The value holds over a restart. 'settings' lists names, ranges and values.",
        example: "set stall_ms 5000",
        answer: &[
            object("set", &[shape::SETTING, shape::VALUE_NOW, shape::UNIT]).sometimes(),
            object("configured", &[shape::EVENTS_MAX]).sometimes(),
        ],
    }
    Settings(of: SettingsOf = SETTINGS_OF) = beyond "settings" Read {
        usage: "settings [name | service]",
        syntax: "settings [name]",
        short: "lists the broker's settings",
        long: "Name, value, unit, range, default and meaning of each setting.",
        example: "settings stall_ms",
        answer: &[array("settings", shape::SETTING_ROW), worker_shapes::OF_SERVICE],
    }
    Source(file: String = FILE) = beyond "source" Danger {
        usage: "source file",
        syntax: "source file",
        short: "runs the commands of a file on the broker's machine",
        long: "Blank lines and lines that begin with # are skipped. All lines are tried; the answer names those that failed, by number. A command that only shows something counts if it fails.",
        example: "source /etc/isect/setup.op",
        answer: &[object("sourced", &[shape::DONE, shape::UNCHANGED])],
    }
    Subscriptions(of: SubscriptionsOf = SUBSCRIPTIONS_OF) = beyond "subscriptions" Read {
        usage: "subscriptions [pattern | client n | worker n | all]",
        syntax: "subscriptions [pattern]",
        short: "lists the subscriptions, with what waits for them and what was dropped",
        long: "Each subscription to topics: whose it is, its number on that connection, how many messages it was sent, how many it was not sent because its reader is too slow ('dropped'), how many wait now, and most that waited at once. 'catching_up': it is sent what is kept from before; 'congested': messages wait for its reader. With a pattern or a topic those whose pattern covers it, so those that get a message of that topic, or is covered by it. A long list is made part by part, each row as things are at its moment.",
        example: "subscriptions orders.eu",
        answer: &[topics::SUBSCRIPTIONS, shape::MORE],
    }
    Summary = beyond "summary" Read {
        short: "counts what became of your commands",
        long: "How many commands of this connection were done, found everything as they say, or failed, since its login. A command that only shows something counts if it fails. 'isdclient < FILE' ends with it.",
        answer: &[shape::SUMMARY],
    }
    Topics(pattern: Option<Pattern> = TOPICS_OF) = beyond "topics" Read {
        usage: "topics [pattern]",
        syntax: "topics [pattern]",
        short: "lists the topics whose last message is kept",
        long: "Each topic of which the last message is kept ('retain'): its size with its lines, its number, since when, until when at the longest, and who published it. One that is 'connected' ends with the connection of its publisher. Behind them the sums: what is kept, what is remembered for subscribers that come back, the number of the newest message, how many subscriptions there are and what waits for them. A long list is made part by part.",
        example: "topics orders.>",
        answer: &[topics::TOPICS, topics::TOPIC_TOTALS, shape::MORE],
    }
    UndrainHost(host: HostName = HOST) = beyond "undrain host" Change {
        usage: "undrain host host",
        deploy: true,
        syntax: "undrain host host",
        short: "ends 'drain host'",
        long: "The workers that are configured on the host and were started are started there again.",
        example: "undrain host localhost",
        answer: &[object("undrained", shape::DRAINED)],
    }
    Version = beyond "version" Read {
        short: "prints the broker's version",
        long: "The version of the broker and of the protocol it speaks.",
        answer: &[object("version", &[shape::VERSION, shape::PROTOCOL])],
    }
    Watch(filter: EventFilter = EVENTS_WATCHED) = beyond "watch" Read {
        usage: "watch [kind]... [service=S] [worker=N] [client=N] [host=H]",
        syntax: "watch [kind]...",
        short: "streams events as they happen",
        long: "Each event is one reply with 'more' set, until the client leaves. With kinds only those, with filters only those that pass all of them.",
        example: "watch worker_died",
        answer: &[
            object("watching", &[shape::TEXT]).sometimes(),
            array("events", shape::EVENT).sometimes(),
            object("left_out", &[shape::SKIPPED]).sometimes(),
        ],
    }
    Whoami = beyond "whoami" Read {
        short: "shows who you are to the broker and what you may do",
        long: "Your client id, where you come from, the user that the kernel names or the token that you proved, and the roles that follow from it.",
        answer: &[shape::WHOAMI],
    }
    Why(of: WhyOf = WHY_OF) = beyond "why" Read {
        usage: "why [transaction | clientid sequence | trace traceid]",
        syntax: "why [transaction]",
        short: "shows what became of a request, and when",
        long: "The time line of one request: when it came and from whom, behind how many it waited, which worker, process and host it was given to at each attempt and how that ended, the first part of the reply, the outcome. It shows those under way, and those that are kept after their end: all that failed or whose client left, those that took trace_slow_ms or longer, and one of trace_sample; at most traces_max. With a trace id it lists the requests that have it, and shows the time line if that is one. Without arguments it lists the newest that are kept. No bytes of a request are shown: 'last' and 'poison' do that.",
        example: "why 2",
        answer: &[
            shape::WHY_REQUEST,
            array("steps", shape::STEP).sometimes(),
            array("traces", shape::TRACE_ROW).sometimes(),
            shape::MORE,
            shape::NOTE,
        ],
    }
}
