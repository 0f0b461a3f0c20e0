//! Commands that only show: the status page, services, clients, the queue, and the values and
//! columns that all tables use. Workers, hosts and latency are in `show`, settings in
//! `settings`.

use super::states::StateValues;
use super::{settings, states};
use crate::engine::dispatch::seat::WorkerList;
use crate::engine::dispatch::stage::Stage;
use crate::engine::dispatch::transaction::Transaction;
use crate::engine::hub::Engine;
use crate::engine::keys::{ClientKey, ServiceKey, TransactionKey};
use crate::engine::operator::cells::{blank, flag, number, text, yes};
use crate::engine::operator::names::client_named;
use crate::engine::operator::open_listing::{Rows, WaitingCount};
use crate::engine::operator::result::OpResult;
use protocol::op::reply::span;
use protocol::op::shape;
use protocol::{Block, ClientId, OpReply, Setting, Tick, Value};

/// A tick: in a table as the time since then, in JSON as the time of day.
pub(crate) fn ago(hub: &Engine, at: Tick) -> Value {
    Value::shown(span(hub.now.since(at).0), hub.clock(at))
}

/// An empty command: the manual's status page, followed by fields that the manual does not
/// have.
pub(crate) fn show_status(hub: &mut Engine) -> OpReply {
    hub.dispatch.buckets_mut().turn(hub.now);
    let listening = &hub.listening;
    let (mut idle, mut busy) = hub.dispatch.counts();
    for (key, _) in hub.supervision.workers_by(true) {
        match hub.dispatch.seat(key).list {
            WorkerList::Idle => idle -= 1,
            WorkerList::Busy => busy -= 1,
            WorkerList::Lazy => {}
        }
    }
    let (buckets, totals) = (hub.dispatch.buckets(), hub.dispatch.totals());
    let recent = hub.facts.recent();
    let mut fields = vec![
        ("configfile", text("")),
        ("host", text(&listening.host)),
        ("ServiceList", number(hub.catalog.count())),
        ("PriList", number(hub.sessions.client_counts().0)),
        ("LazyWorkers", number(hub.supervision.worker_count() - idle - busy)),
        ("IdleWorkers", number(idle)),
        ("BusyWorkers", number(busy)),
        ("socket", number(listening.worker_fd)),
        ("port", number(listening.worker_port)),
        ("req_socket", number(listening.client_fd)),
        ("req_port", number(listening.client_port)),
        ("NextClientID", number(hub.sessions.client_counts().1)),
        ("MaxUsers", number(hub.settings.get(Setting::ConnectionsMax))),
        ("command_worker", text("op")),
        ("Events", number(recent.count())),
        ("NumEvents", number(recent.max())),
        ("NumBuckets", number(buckets.count())),
        ("BucketSecs", number(buckets.secs())),
        ("PeakBucket", number(buckets.peak())),
        ("Buckets", Value::Numbers(buckets.counts())),
        ("EventKinds", settings::event_kinds(hub)),
        ("preempt", Value::on_off(hub.dispatch.is_strict_priority())),
        ("reject", Value::on_off(hub.sessions.is_rejecting())),
        ("Waiting", number(hub.dispatch.waiting_count())),
        ("WaitingBytes", number(hub.dispatch.queue_bytes())),
        ("Accepted", number(totals.accepted)),
        ("Completed", number(totals.completed)),
        ("Refused", number(totals.refused)),
        ("Orphaned", number(totals.orphaned)),
        ("Poisoned", number(totals.poisoned)),
        ("pid", number(listening.pid)),
        ("version", text(&listening.version)),
        ("Uptime", Value::Micros(hub.now.0)),
    ];
    fields.push(("unsaved", hub.store.unsaved().map_or(Value::Unsaid, text)));
    OpReply::block(Block::Record { name: "status", prefix: "isdData.", width: 24, fields })
}

/// Answers `summary`: what became of the commands of this client.
pub(crate) fn show_summary(hub: &Engine, client: ClientKey) -> OpReply {
    let script = hub.scripts.get(&hub.sessions.client(client).id);
    let summary = script.map(|script| script.summary).unwrap_or_default();
    let fields = vec![
        ("done", number(summary.done)),
        ("unchanged", number(summary.unchanged)),
        ("failed", number(summary.failed)),
    ];
    OpReply::line("summary", summary.to_string(), fields)
}

pub(crate) fn show_version(hub: &Engine) -> OpReply {
    let version = &hub.listening.version;
    let fields = vec![("version", text(version)), ("protocol", number(protocol::limits::VERSION))];
    OpReply::line(
        "version",
        format!("isectd {version}, protocol {}", protocol::limits::VERSION),
        fields,
    )
}

pub(crate) fn service_row(hub: &Engine, key: ServiceKey) -> Vec<Value> {
    let service = &hub.catalog[key];
    let StateValues { state, since, reason, .. } =
        states::state_values(hub, states::service_state(hub, key), String::new());
    vec![text(&service.name), number(service.id.0), state, blank(since), blank(reason)]
}

pub(crate) fn client_row(hub: &Engine, key: ClientKey) -> Vec<Value> {
    let StateValues { state, since, reason, .. } =
        states::state_values(hub, states::client_state(hub, key), String::new());
    let (c, caller) = (hub.sessions.client(key), hub.dispatch.caller(key));
    vec![
        text(&hub.catalog[caller.service].name),
        number(c.id.0),
        number(caller.priority),
        yes(caller.is_blocked),
        text(&c.loghost),
        Value::maybe(c.hostpid),
        number(caller.in_flight.len()),
        number(caller.requests),
        number(caller.answered),
        number(caller.failed),
        ago(hub, c.since),
        number(hub.sessions.peer(key).fd),
        state,
        blank(since),
        blank(reason),
    ]
}

pub(crate) fn show_client(hub: &Engine, id: ClientId) -> OpResult {
    let key = client_named(hub, id)?;
    let (c, caller) = (hub.sessions.client(key), hub.dispatch.caller(key));
    let state = states::client_state(hub, key);
    let words = state.words(hub.now);
    let state = states::state_values(hub, state, words);
    let workers: Vec<u64> =
        caller.in_flight.keys().filter_map(|t| holder(hub, t)).map(u64::from).collect();
    let fields = vec![
        ("id", number(c.id.0)),
        ("service_id", number(hub.catalog[caller.service].id.0)),
        ("service", text(&hub.catalog[caller.service].name)),
        ("priority", number(caller.priority)),
        ("hostpid", Value::maybe(c.hostpid)),
        ("loghost", text(&c.loghost)),
        ("name", c.name.as_ref().map_or(Value::None, text)),
        ("address", text(&hub.sessions.peer(key).address)),
        ("uid", hub.sessions.peer(key).uid.map_or(Value::None, number)),
        ("worker", worker_of_start(hub, key)),
        ("blocked", flag(caller.is_blocked)),
        ("UnderWay", number(caller.in_flight.len())),
        ("Workers", Value::Numbers(workers)),
        ("Requests", number(caller.requests)),
        ("Answered", number(caller.answered)),
        ("Failed", number(caller.failed)),
        ("connected", hub.clock(c.since)),
        ("fd", number(hub.sessions.peer(key).fd)),
        ("state", state.state),
        ("since", state.since),
        ("reason", state.reason),
    ];
    Ok(OpReply::block(Block::Record { name: "client", prefix: "client->", width: 0, fields }))
}

/// The worker that a client is part of, if it showed the secret of a start.
fn worker_of_start(hub: &Engine, key: ClientKey) -> Value {
    let start = hub.sessions.peer(key).start.as_ref();
    start.map_or(Value::None, |start| Value::shown(start.to_string(), number(start.worker.0)))
}

/// The id of the worker that has or holds a transaction.
fn holder(hub: &Engine, transaction: TransactionKey) -> Option<u32> {
    let worker = hub.dispatch.transaction(transaction)?.stage.worker()?;
    Some(hub.dispatch.seat(worker).id.0)
}

/// `queue`: the table of waiting requests, and a line for each service that says why they wait.
pub(crate) fn queue_tables(rows: Rows, services: Vec<WaitingCount>) -> OpReply {
    let mut blocks = vec![Block::Table {
        name: "queue",
        title: String::new(),
        columns: shape::columns("queue"),
        rows,
    }];
    blocks.extend(services.into_iter().map(|WaitingCount { name, count, why, .. }| {
        let line = format!("{name}: {count} wait; {why}");
        let fields = vec![("service", text(&name)), ("waiting", number(count)), ("why", text(why))];
        Block::Line { name: "why", text: line, fields }
    }));
    OpReply { blocks }
}

pub(crate) fn queue_row(hub: &Engine, at: TransactionKey, t: &Transaction) -> Vec<Value> {
    let place = match t.stage {
        Stage::Waiting => "queue",
        Stage::Blocked => "blocked",
        Stage::Held(_) | Stage::HeldEnded(_) => "held",
        Stage::Parked(_) | Stage::ParkedEnded(_) => "parked",
        Stage::Bound(_) | Stage::Ended(_) | Stage::Lost | Stage::Gone => "worker",
    };
    vec![
        text(&hub.catalog[t.service].name),
        number(t.id.0),
        t.client.map_or(Value::None, |client| number(hub.sessions.client(client).id.0)),
        number(t.priority),
        Value::Word(place),
        holder(hub, at).map_or(Value::None, number),
        Value::Micros(hub.now.since(t.arrived).0),
        Value::Micros(t.deadline.since(hub.now).0),
        number(t.attempt),
        number(t.kept_bytes),
    ]
}

/// Why a request of a service waits, in words.
pub(crate) fn why_waiting(hub: &Engine, service: ServiceKey, stage: Stage) -> String {
    let entry = &hub.catalog[service];
    let mine = || hub.supervision.workers_of(service);
    let all = hub.supervision.count_of(service);
    let failed = mine().filter(|(_, w)| w.failed.is_some()).count();
    let first = || mine().map(|(_, w)| w.id).next().unwrap_or_default();
    let busy = hub.dispatch.queue(service).busy;
    if stage == Stage::Blocked {
        "its client is blocked ('unblock' lets it go on)".into()
    } else if entry.is_paused {
        format!("the service is paused ('ready {}' lets it go on)", entry.name)
    } else if all == 0 {
        format!("no worker is configured ('config worker {} HOST PATH')", entry.name)
    } else if failed == all {
        format!("{} failed ('worker {}' says why)", all_are(failed), first())
    } else if busy == all {
        format!("{} busy", all_are(busy))
    } else if busy > 0 {
        format!("{busy} of {all} workers are busy, the others are not ready")
    } else {
        let first = mine().map(|(key, w)| (w.id, states::worker_state(hub, key))).next();
        let state = first.map_or_else(String::new, |(id, state)| {
            format!(": worker {id} is {}", state.sentence(hub.now))
        });
        format!("{} not ready ('workers lazy' says why){state}", all_are(all))
    }
}

/// `its only worker is`, `all 3 workers are`.
fn all_are(count: usize) -> String {
    if count == 1 { "its only worker is".into() } else { format!("all {count} workers are") }
}
