//! Commands that only show: the manual's three lists of workers, the page of one worker, the
//! request that it was sent last, hosts, and latency.

use super::{deaths, states, worker_settings};
use crate::engine::counted::counted;
use crate::engine::dispatch::seat::WorkerList;
use crate::engine::hub::Engine;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::operator::cells::{blank, flag, number, table, text, yes};
use crate::engine::operator::names::{host_named, worker_named};
use crate::engine::operator::open_listing::Rows;
use crate::engine::operator::result::OpResult;
use crate::engine::supervision::host::Host;
use crate::engine::supervision::process_state::ProcessState;
use crate::engine::supervision::workers::Worker;
use bytes::Bytes;
use protocol::op::reply::span;
use protocol::op::shape;
use protocol::{Block, ErrorCode, HostName, OpReply, Value, WorkerFilter, WorkerId};

/// `workers`: the manual's tables, of the lists that a filter names.
pub(crate) fn workers_tables(filter: WorkerFilter, rows: [Rows; 3]) -> OpReply {
    let names = [
        (WorkerFilter::Lazy, "lazy", "LAZY"),
        (WorkerFilter::Idle, "idle", "IDLE"),
        (WorkerFilter::Busy, "busy", "BUSY"),
    ];
    let blocks = names
        .into_iter()
        .zip(rows)
        .filter(|((which, ..), _)| {
            matches!(filter, WorkerFilter::All | WorkerFilter::Builtin) || filter == *which
        })
        .map(|((_, name, title), rows)| Block::Table {
            name,
            title: title.to_owned(),
            columns: shape::columns(name),
            rows,
        });
    OpReply { blocks: blocks.collect() }
}

pub(crate) fn worker_row(hub: &Engine, key: WorkerKey, worker: &Worker) -> Vec<Value> {
    let (seat, current) = (hub.dispatch.seat(key), hub.dispatch.current(key));
    // For a busy worker, `last resp.` is the time that it has had its request.
    let last = current.map_or(seat.last_micros, |t| hub.now.since(t.dispatched).0);
    let client =
        current.and_then(|t| t.client).map_or(Value::None, |c| number(hub.sessions.client(c).id.0));
    let is_fresh = seat.transactions == 0;
    let none = || Value::shown(span(0), Value::None);
    let mean = seat.busy_micros.checked_div(seat.transactions);
    let state = states::worker_state(hub, key);
    let sentence = state.sentence(hub.now);
    let state = states::state_values(hub, state, sentence);
    vec![
        text(&hub.catalog[worker.service].name),
        number(worker.id.0),
        yes(is_shown_available(hub, key)),
        text(&worker.host),
        Value::maybe(worker.run.pid),
        number(seat.transactions),
        mean.map_or_else(none, Value::Micros),
        if is_fresh && current.is_none() { none() } else { Value::Micros(last) },
        number(worker.restarts),
        client,
        fd_of(hub, key),
        state.state,
        blank(state.since),
        blank(state.until),
        blank(state.reason),
        blank(state.notes),
    ]
}

/// The manual's `avail?`: no if it has not logged in, is paused or stopped, or its service is
/// paused.
fn is_shown_available(hub: &Engine, key: WorkerKey) -> bool {
    let worker = hub.supervision.worker(key);
    let service = &hub.catalog[worker.service];
    hub.dispatch.seat(key).link.is_some()
        && !worker.is_paused
        && !service.is_paused
        && worker.is_wanted
        && worker.state == ProcessState::Ready
}

fn fd_of(hub: &Engine, key: WorkerKey) -> Value {
    let slot = hub.dispatch.seat(key).link.and_then(|link| hub.sessions.connection(link));
    slot.map_or(Value::None, |slot| number(slot.peer.fd))
}

/// `worker ID`: the manual's page, with the ids of its neighbours in its list where the
/// original broker printed pointers.
pub(crate) fn show_worker(hub: &Engine, id: WorkerId, is_shown: bool) -> OpResult {
    let key = worker_named(hub, id)?;
    let (w, seat) = (hub.supervision.worker(key), hub.dispatch.seat(key));
    let in_list = |(other, _): &(WorkerKey, &Worker)| hub.dispatch.seat(*other).list == seat.list;
    let neighbour = |other: Option<(WorkerKey, &Worker)>| other.map_or(0, |(_, other)| other.id.0);
    let others = || hub.supervision.workers_by(id.is_builtin()).filter(in_list);
    let next = neighbour(others().find(|(_, o)| o.id > id));
    let previous = neighbour(others().rfind(|(_, o)| o.id < id));
    let list = match seat.list {
        WorkerList::Lazy => Value::shown("\"LAZY\"", Value::Word("lazy")),
        WorkerList::Idle => Value::shown("\"IDLE\"", Value::Word("idle")),
        WorkerList::Busy => Value::shown("\"BUSY\"", Value::Word("busy")),
    };
    let is_program = hub.catalog[w.service].is_program();
    let is_up = w.state.has_process() && seat.link.is_none() && !is_program;
    let args: Vec<String> = w.args.iter().map(|arg| protocol::op::parse::quote(arg)).collect();
    let current = hub.dispatch.current(key);
    let state = states::worker_state(hub, key);
    let words = format!("\"{}\"", state.words(hub.now));
    let state = states::state_values(hub, state, words);
    let fields = vec![
        ("node.next", Value::maybe(next)),
        ("node.previous", Value::maybe(previous)),
        ("node.queue", list),
        ("id", number(w.id.0)),
        ("service_id", number(hub.catalog[w.service].id.0)),
        ("hostpid", Value::maybe(w.run.pid)),
        ("name", text(&hub.catalog[w.service].name)),
        ("host", text(&w.host)),
        ("path", text(&w.path)),
        ("args", Value::shown(format!("\"{}\"", args.join(" ")), Value::Texts(w.args.clone()))),
        ("Transactions", number(seat.transactions)),
        ("fromCount", number(seat.from_count)),
        ("toCount", number(seat.to_count)),
        ("restarts", number(w.restarts)),
        ("stopped", flag(!w.is_wanted)),
        ("up_not_log_in", flag(is_up)),
        ("paused", flag(w.is_paused)),
        ("state", state.state),
        ("failed", w.failed.as_ref().map_or(Value::None, text)),
        ("run", Value::maybe(w.run.id.0)),
        ("started", if w.run.id.0 == 0 { Value::None } else { hub.clock(w.run.started) }),
        ("settings_changed", worker_settings::changed_since_start(w)),
        ("transaction", current.map_or(Value::None, |t| number(t.id.0))),
        ("held", number(seat.held.len())),
        ("running", number(seat.running())),
        ("concurrency", number(seat.capacity)),
        ("parked", number(seat.parked().count())),
        ("late", number(seat.late)),
        ("exit_cause", w.exit_cause.map_or(Value::None, text)),
        ("death", deaths::last_of(hub, key)),
        ("stderr", Value::Texts(w.tail.iter().cloned().collect())),
        ("fd", fd_of(hub, key)),
        ("since", state.since),
        ("until", state.until),
        ("reason", state.reason),
        ("notes", state.notes),
    ];
    let page = Block::Record { name: "worker", prefix: "worker->", width: 0, fields };
    let settings = worker_settings::of_worker(hub, key, is_shown);
    Ok(OpReply { blocks: [page].into_iter().chain(settings).collect() })
}

/// `last`: a hex dump of the request that a worker has or was sent last, which the author of
/// the manual wished for.
pub(crate) fn show_last(hub: &Engine, id: WorkerId) -> OpResult {
    let key = worker_named(hub, id)?;
    let last = &hub.dispatch.seat(key).last;
    if last.transaction.0 == 0 {
        return Ok(OpReply::line(
            "last",
            format!("worker {id} was sent nothing yet"),
            vec![
                ("worker", number(id.0)),
                ("transaction", Value::None),
                ("client", Value::None),
                ("from", Value::None),
                ("at", Value::None),
                ("has_it", yes(false)),
            ],
        ));
    }
    let mut with_it = hub.dispatch.with_worker(key);
    let has_it =
        with_it.any(|at| hub.dispatch.transaction(at).is_some_and(|t| t.id == last.transaction));
    let from = last.client.map_or_else(
        || "a client that is gone".to_owned(),
        |client| {
            let known = hub.sessions.find_client(client).map(|key| hub.sessions.client(key));
            known.map_or_else(
                || format!("client {client} (gone)"),
                |c| format!("client {client} ({} pid {})", c.loghost, c.hostpid),
            )
        },
    );
    let when = hub.wall(last.at);
    let (verb, word) = if has_it { ("has", "since") } else { ("had", "at") };
    let line = format!(
        "worker {id} {verb} transaction {} of {from} {word} {}: {} bytes",
        last.transaction,
        when.local(),
        last.size
    );
    let fields = vec![
        ("worker", number(id.0)),
        ("transaction", number(last.transaction.0)),
        ("client", last.client.map_or(Value::None, |c| number(c.0))),
        ("from", text(from)),
        ("at", Value::Time(when)),
        ("has_it", yes(has_it)),
    ];
    let dump = Block::Dump {
        name: "request",
        size: last.size,
        bytes: Bytes::copy_from_slice(&last.bytes),
    };
    Ok(OpReply { blocks: vec![Block::Line { name: "last", text: line, fields }, dump] })
}

/// Ids of the workers that are configured on a host.
fn workers_on(hub: &Engine, host: &HostName) -> Vec<u64> {
    hub.supervision.workers_on(host).map(|(_, w)| w.id.0.into()).collect()
}

pub(crate) fn host_row(hub: &Engine, host: &Host) -> Vec<Value> {
    let workers = workers_on(hub, &host.name);
    let state = states::host_state(hub, host);
    let words = state.short(hub.now);
    let state = states::state_values(hub, state, words);
    vec![
        text(&host.name),
        state.state,
        Value::shown(span(hub.now.since(host.since).0), state.since),
        Value::shown(workers.len().to_string(), Value::Numbers(workers)),
        Value::maybe(host.pid),
        text(&host.version),
        text(&host.address),
        Value::shown("", Value::Flag(host.is_builtin)),
        Value::shown("", Value::Flag(hub.supervision.is_drained(&host.name))),
        blank(text(&host.policy)),
        if host.state.link().is_some() { Value::None } else { state.reason },
        blank(state.until),
    ]
}

pub(crate) fn show_host(hub: &Engine, name: &HostName) -> OpResult {
    let host = hub.supervision.host(host_named(hub, name)?);
    let state = states::state_values(hub, states::host_state(hub, host), String::new());
    let trouble = match state.reason {
        Value::None => Value::shown("\"\"", Value::None),
        reason => reason,
    };
    let fields = vec![
        ("name", text(name)),
        ("address", text(&host.address)),
        ("state", Value::Word(host.state.word())),
        ("since", state.since),
        ("builtin", flag(host.is_builtin)),
        ("drained", flag(hub.supervision.is_drained(name))),
        ("hostpid", Value::maybe(host.pid)),
        ("version", text(&host.version)),
        ("policy", text(&host.policy)),
        ("Workers", Value::Numbers(workers_on(hub, name))),
        ("trouble", trouble),
        ("until", state.until),
    ];
    Ok(OpReply::block(Block::Record { name: "host", prefix: "host->", width: 0, fields }))
}

/// `load`: how much a service has to do, and what became of its requests.
pub(crate) fn load_row(hub: &Engine, key: ServiceKey) -> Vec<Value> {
    let (service, queue) = (&hub.catalog[key], hub.dispatch.queue(key));
    let figures = &queue.figures;
    let overloaded = figures.failed.get(&ErrorCode::Overloaded).copied().unwrap_or(0);
    let level = queue.retry_budget_level(&service.settings, hub.now);
    vec![
        text(&service.name),
        number(queue.callers),
        number(queue.waiting()),
        number(queue.idle.len()),
        number(queue.busy),
        number(figures.completed),
        number(figures.failed.values().sum::<u64>()),
        number(overloaded),
        number(figures.retried),
        number(figures.denied),
        number(level.used),
        number(level.most),
    ]
}

/// `latency`: percentiles of the time in the queue and of the time with a worker, for each
/// service or for one. `without`: services that were not asked anything.
pub(crate) fn latency_table(rows: Rows, without: usize) -> OpReply {
    let mut reply = table("latency", rows);
    if without > 0 {
        let text = format!("{} without a request: not shown", counted(without, "service"));
        let fields = vec![("services", number(without))];
        reply.blocks.push(Block::Line { name: "left_out", text, fields });
    }
    reply
}

/// The rows of one service.
pub(crate) fn latency_rows(hub: &Engine, key: ServiceKey) -> [Vec<Value>; 2] {
    let service = &hub.catalog[key];
    let figures = &hub.dispatch.queue(key).figures;
    let failed: u64 = figures.failed.values().sum();
    [("wait", &figures.wait), ("run", &figures.run)].map(|(of, histogram)| {
        let mut row = vec![
            text(&service.name),
            Value::Word(of),
            number(histogram.count()),
            Value::Micros(histogram.mean()),
        ];
        let percentile = |per_mille| Value::Micros(histogram.percentile(per_mille));
        row.extend([500, 900, 990, 999].map(percentile));
        row.push(Value::Micros(histogram.max()));
        row.push(number(failed));
        row
    })
}
