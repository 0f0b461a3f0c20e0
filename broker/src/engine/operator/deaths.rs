//! The commands `deaths` and `death`: the unexpected ends of workers' processes that are kept, and
//! the requests that the workers had.

use super::cells::{number, table, text, yes};
use super::result::{OpResult, not_found};
use crate::engine::black_box::Kept;
use crate::engine::counted::counted;
use crate::engine::death::LostRequest;
use crate::engine::hub::Engine;
use crate::engine::keys::WorkerKey;
use crate::engine::origin::Origin;
use crate::engine::supervision::exit_cause::signal_name;
use protocol::op::spec::DeathsWhat;
use protocol::{Block, ExitCause, Micros, OpReply, Setting, TransactionId, Value};

/// How many `deaths` lists if nothing is said.
const LISTED: u64 = 100;

pub(crate) fn run_deaths(hub: &mut Engine, origin: &Origin, what: DeathsWhat) -> OpResult {
    match what {
        DeathsWhat::List(count) => Ok(list(hub, count.unwrap_or(LISTED))),
        DeathsWhat::Clear => {
            let count = hub.black_box.clear();
            hub.noted(origin, format!("deaths clear: {} forgotten", counted(count, "death")));
            let fields = vec![("count", number(count))];
            Ok(OpReply::line("cleared", format!("{count} forgotten"), fields))
        }
    }
}

fn list(hub: &Engine, count: u64) -> OpReply {
    if hub.black_box.count() == 0 {
        let most = hub.settings.get(Setting::DeathsMax);
        let said = match most {
            0 => "no deaths are kept (deaths_max is 0)".to_owned(),
            _ => "no worker's process has ended unexpectedly".to_owned(),
        };
        return OpReply::line("note", said, vec![]);
    }
    let count = usize::try_from(count).unwrap_or(usize::MAX);
    let mut reply = table("deaths", hub.black_box.newest().take(count).map(row).collect());
    let left_out = hub.black_box.count().saturating_sub(count);
    if left_out > 0 {
        let older = counted(left_out, "older death");
        let said = format!("{older} not shown; 'deaths N' shows more");
        let fields = vec![("rows", number(left_out))];
        reply.blocks.push(Block::Line { name: "left_out", text: said, fields });
    }
    reply
}

fn row(kept: &Kept) -> Vec<Value> {
    let death = &kept.death;
    vec![
        number(death.id),
        Value::Time(death.at),
        text(&death.service),
        number(death.worker.0),
        text(&death.host),
        Value::maybe(death.report.pid),
        Value::Micros(death.ran.0),
        number(kept.lost.kept.len() + kept.lost.more),
        text(&death.how),
        death.killed.as_ref().map_or(Value::None, text),
    ]
}

/// `death`: all of one, with the bytes of its requests.
pub(crate) fn show_death(hub: &Engine, id: u64) -> OpResult {
    let Some(kept) = hub.black_box.find(id) else {
        return Err(not_found(format!("death {id} is not kept; 'deaths' lists those that are")));
    };
    let mut reply = OpReply::block(record(kept));
    let count = kept.lost.kept.len();
    for (at, request) in kept.lost.kept.iter().enumerate() {
        reply.blocks.push(line(request, (at + 1, count)));
        reply.blocks.push(Block::Dump {
            name: "lost_bytes",
            size: request.size,
            bytes: request.bytes.clone(),
        });
    }
    if kept.lost.more > 0 {
        let said = format!("{} more that it had were not kept", kept.lost.more);
        let fields = vec![("rows", number(kept.lost.more))];
        reply.blocks.push(Block::Line { name: "left_out", text: said, fields });
    }
    Ok(reply)
}

fn record(kept: &Kept) -> Block {
    let death = &kept.death;
    let report = &death.report;
    let signal = match report.exit_cause {
        ExitCause::Signal(signal) => signal_name(signal),
        ExitCause::Exit(_) | ExitCause::Unknown => "",
    };
    let signal = signal.trim_matches([' ', '(', ')']);
    let signal = signal.split(':').next().unwrap_or_default();
    let fields = vec![
        ("id", number(death.id)),
        ("at", Value::Time(death.at)),
        ("worker", number(death.worker.0)),
        ("service", text(&death.service)),
        ("host", text(&death.host)),
        ("run", number(death.run.0)),
        ("pid", Value::maybe(report.pid)),
        ("ran", Value::Micros(death.ran.0)),
        ("adopted", yes(death.is_adopted)),
        ("exit_cause", text(report.exit_cause)),
        ("signal", if signal.is_empty() { Value::None } else { text(signal) }),
        ("core", yes(report.has_core)),
        ("oom", yes(report.is_oom)),
        ("cpu", Value::Micros(Micros::from_millis(report.cpu_ms).0)),
        ("memory_kib_max", Value::maybe(report.rss_kib_max)),
        ("how", text(&death.how)),
        ("killed", death.killed.as_ref().map_or(Value::None, text)),
        ("follows", text(&death.follows)),
        ("stderr", Value::Texts(death.tail.clone())),
        ("requests", number(kept.lost.kept.len() + kept.lost.more)),
    ];
    Block::Record { name: "death", prefix: "death->", width: 0, fields }
}

fn line(request: &LostRequest, (at, count): (usize, usize)) -> Block {
    let from = match (&request.name, request.from.as_str()) {
        (_, "") => String::new(),
        (Some(name), from) => format!(" ({name}, {from})"),
        (None, from) => format!(" ({from})"),
    };
    let of = match request.client {
        Some(client) => format!(" of client {client}{from}"),
        None => String::new(),
    };
    let sequence = match request.sequence {
        0 => String::new(),
        sequence => format!(", sequence {sequence}"),
    };
    let had = Value::Micros(request.had.0);
    let said = format!(
        "request {at} of {count}: transaction {}{of}{sequence}, {} for {} ms: {}",
        request.transaction,
        request.state.word().replace('_', " "),
        request.had.as_millis(),
        counted(usize::try_from(request.size).unwrap_or(usize::MAX), "byte"),
    );
    let fields = vec![
        ("transaction", number(request.transaction.0)),
        ("client", request.client.map_or(Value::None, |client| number(client.0))),
        ("name", request.name.as_ref().map_or(Value::None, text)),
        ("from", if request.from.is_empty() { Value::None } else { text(&request.from) }),
        ("sequence", number(request.sequence)),
        ("state", Value::Word(request.state.word())),
        ("had_us", had),
        ("bytes", number(request.size)),
    ];
    Block::Line { name: "lost", text: said, fields }
}

/// The number of the last death of a worker that is kept, for its page.
pub(crate) fn last_of(hub: &Engine, key: WorkerKey) -> Value {
    let id = hub.supervision.worker(key).id;
    let mut all = hub.black_box.newest();
    all.find(|kept| kept.death.worker == id).map_or(Value::None, |kept| number(kept.death.id))
}

/// The numbers of the deaths that had a request, the last one first, for its time line.
pub(crate) fn with(hub: &Engine, transaction: TransactionId) -> Vec<u64> {
    hub.black_box.with(transaction).collect()
}
