//! The command `why`: how requests went that are under way, or that are kept after their end.
//! `seek` finds them.

use super::cells::{blank, number, table, text};
use super::result::{OpResult, not_found};
use super::{deaths, read};
use crate::engine::counted::counted;
use crate::engine::dispatch::messages;
use crate::engine::dispatch::stage::Stage;
use crate::engine::dispatch::trace::Attempt;
use crate::engine::dispatch::traces::{Outcome, Standing, TimeLine};
use crate::engine::hub::Engine;
use crate::engine::keys::{ClientKey, TransactionKey};
use crate::engine::quotas::TEXT_BYTES_MAX;
use crate::engine::sessions::Sessions;
use protocol::op::spec::{RequestName, WhyOf};
use protocol::{Block, Micros, OpError, OpReply, Setting, Tick, TransactionId, Value, show};

/// Most rows of a list of requests.
const ROWS_MAX: usize = 100;

/// `Effect::Traced`, or a client is about to be forgotten: names the clients of the requests that
/// ended just now.
pub(crate) fn name_traces(hub: &mut Engine) {
    let sessions = &hub.sessions;
    hub.dispatch
        .traces_mut()
        .name(|id| sessions.find_client(id).map_or_else(String::new, |key| from(sessions, key)));
}

/// Host, process and address of a client. One that is being forgotten has no address any more.
fn from(sessions: &Sessions, key: ClientKey) -> String {
    let (client, address) = (sessions.client(key), &sessions.peer(key).address);
    let at = if address.is_empty() { String::new() } else { format!(" at {address}") };
    let from = format!("{} pid {}{at}", client.loghost, client.hostpid);
    show::brief(&from, TEXT_BYTES_MAX)
}

/// How a request under way has gone so far; `None` = it is gone.
pub(crate) fn line_of(
    hub: &Engine,
    (key, id): (TransactionKey, TransactionId),
) -> Option<TimeLine> {
    hub.dispatch.transaction(key).filter(|t| t.id == id)?;
    let mut line = hub.dispatch.time_line_so_far(key, &hub.catalog, (hub.now, &hub.wall_clock));
    if let Some(key) = hub.sessions.find_client(line.client) {
        line.from = from(&hub.sessions, key);
    }
    Some(line)
}

/// The newest that are kept, a row each.
pub(crate) fn list_kept(hub: &Engine) -> OpReply {
    let kept = hub.dispatch.traces();
    if kept.count() == 0 {
        let text = format!("no request is kept; {}", what_is_kept(hub));
        return OpReply::line("note", text, vec![]);
    }
    list(hub, kept.newest(), kept.count())
}

/// These requests, a row each; there are so many.
pub(crate) fn list<'a>(
    hub: &Engine,
    lines: impl Iterator<Item = &'a TimeLine>,
    count: usize,
) -> OpReply {
    let mut reply = table("traces", lines.take(ROWS_MAX).map(|line| row(hub, line)).collect());
    if count > ROWS_MAX {
        let left_out = count - ROWS_MAX;
        let text = format!("{left_out} older ones are not shown; 'why TRANSACTION' shows each");
        let fields = vec![("rows", number(left_out))];
        reply.blocks.push(Block::Line { name: "left_out", text, fields });
    }
    reply
}

fn row(hub: &Engine, line: &TimeLine) -> Vec<Value> {
    vec![
        number(line.transaction.0),
        client_of(line),
        number(line.sequence),
        text(&line.service),
        Value::Time(line.wall),
        Value::Micros(took(hub, line).0),
        number(line.attempt),
        Value::Word(state_word(&line.standing)),
        error_of(line).0,
        kept_word(&line.standing),
        blank(trace_id(line)),
    ]
}

/// The client of a request; a message that was taken as one has none.
fn client_of(line: &TimeLine) -> Value {
    messages::client_of(line.client).map_or(Value::None, |client| number(client.0))
}

/// The time line of one request.
pub(crate) fn show(hub: &Engine, line: &TimeLine) -> OpReply {
    let (error, ran, application_error) = error_of(line);
    let died_with = deaths::with(hub, line.transaction);
    let from = if line.from.is_empty() { Value::None } else { text(&line.from) };
    let fields = vec![
        ("transaction", number(line.transaction.0)),
        ("state", Value::Word(state_word(&line.standing))),
        ("service", text(&line.service)),
        ("client", client_of(line)),
        ("sequence", number(line.sequence)),
        ("from", from),
        ("trace", trace_id(line)),
        ("priority", number(line.priority)),
        ("arrived", Value::Time(line.wall)),
        ("allowed_us", line.allowed.map_or(Value::None, |span| Value::Micros(span.0))),
        ("took_us", Value::Micros(took(hub, line).0)),
        ("waited_us", Value::Micros(line.waited.0)),
        ("received", number(line.received)),
        ("replied", number(line.replied)),
        ("ahead", number(line.ahead)),
        ("attempt", number(line.attempt)),
        ("deaths", number(line.deaths)),
        ("died_with", Value::Numbers(died_with.clone())),
        ("error", error),
        ("ran", ran),
        ("application_error", application_error),
        ("kept", kept_word(&line.standing)),
    ];
    let (state, took) = (state_text(&line.standing), millis(took(hub, line)));
    let state = match line.standing {
        Standing::Ended { .. } => format!("{state} after {took}"),
        Standing::Waits { .. }
        | Standing::Blocked
        | Standing::Held
        | Standing::Runs
        | Standing::Parked
        | Standing::Unheard => {
            format!("{state}, {took} after it came")
        }
    };
    let TimeLine { transaction, client, sequence, service, .. } = line;
    let died: String = died_with.iter().map(|id| format!("; 'death {id}' had it")).collect();
    let said = format!(
        "transaction {transaction} of client {client}, sequence {sequence}, for service \
         '{service}': {state}{died}"
    );
    let mut reply = table("steps", steps(hub, line));
    reply.blocks.insert(0, Block::Line { name: "traced", text: said, fields });
    reply
}

/// How long it took, or has taken so far.
fn took(hub: &Engine, line: &TimeLine) -> Micros {
    let end = match line.standing {
        Standing::Ended { at, .. } => at,
        Standing::Waits { .. }
        | Standing::Blocked
        | Standing::Held
        | Standing::Runs
        | Standing::Parked
        | Standing::Unheard => hub.now,
    };
    end.since(line.arrived)
}

const fn state_word(standing: &Standing) -> &'static str {
    match standing {
        Standing::Waits { .. } => "waits",
        Standing::Blocked => "blocked",
        Standing::Held => "held",
        Standing::Runs => "runs",
        Standing::Parked => "parked",
        Standing::Unheard => "unheard",
        Standing::Ended { outcome, .. } => match outcome {
            Outcome::Answered { .. } => "answered",
            Outcome::Failed { .. } => "failed",
            Outcome::Left => "left",
        },
    }
}

fn state_text(standing: &Standing) -> String {
    match standing {
        Standing::Waits { .. } => "it waits".into(),
        Standing::Blocked => "its client is blocked".into(),
        Standing::Held => "a worker holds it".into(),
        Standing::Runs => "a worker has it".into(),
        Standing::Parked => "a worker has it, without a deadline".into(),
        Standing::Unheard => "it has ended, how is not kept, and its worker still has it".into(),
        Standing::Ended { outcome, .. } => match outcome {
            Outcome::Answered { error: 0 } => "answered".into(),
            Outcome::Answered { error } => format!("answered with the worker's error {error}"),
            Outcome::Failed { code, ran, .. } => format!("failed with {code} (ran: {ran})"),
            Outcome::Left => "its client left".into(),
        },
    }
}

fn kept_word(standing: &Standing) -> Value {
    match standing {
        Standing::Ended { kept, .. } => Value::Word(kept.word()),
        Standing::Waits { .. }
        | Standing::Blocked
        | Standing::Held
        | Standing::Runs
        | Standing::Parked
        | Standing::Unheard => Value::None,
    }
}

/// Error, whether it ran, and the worker's own error.
fn error_of(line: &TimeLine) -> (Value, Value, Value) {
    match &line.standing {
        Standing::Ended { outcome: Outcome::Failed { code, ran, .. }, .. } => {
            (Value::Word(code.name()), Value::Word(ran.word()), Value::None)
        }
        Standing::Ended { outcome: Outcome::Answered { error }, .. } if *error != 0 => {
            (Value::None, Value::Word("yes"), number(*error))
        }
        Standing::Ended { .. }
        | Standing::Waits { .. }
        | Standing::Blocked
        | Standing::Held
        | Standing::Runs
        | Standing::Parked
        | Standing::Unheard => (Value::None, Value::None, Value::None),
    }
}

fn trace_id(line: &TimeLine) -> Value {
    match line.trace_id {
        id if id == [0; 16] => Value::None,
        id => text(show::digits(&id)),
    }
}

/// A span in milliseconds, however long it is, so that those of a time line can be compared.
fn millis(span: Micros) -> String {
    format!("{}.{:03} ms", span.0 / 1000, span.0 % 1000)
}

/// The rows of a time line, each with its time.
struct Steps {
    arrived: Tick,
    rows: Vec<(Tick, Vec<Value>)>,
}

impl Steps {
    fn add(&mut self, at: Tick, what: &'static str, of: Option<&Attempt>, said: String) {
        let after = at.since(self.arrived);
        let host = of.and_then(|attempt| attempt.host.as_ref());
        let row = vec![
            Value::shown(millis(after), Value::Micros(after.0)),
            Value::Word(what),
            blank(of.map_or(Value::None, |attempt| number(attempt.worker.0))),
            blank(of.map_or(Value::None, |attempt| Value::maybe(attempt.pid))),
            blank(host.map_or(Value::None, text)),
            blank(of.map_or(Value::None, |attempt| number(attempt.number))),
            text(said),
        ];
        self.rows.push((at, row));
    }
}

fn steps(hub: &Engine, line: &TimeLine) -> Vec<Vec<Value>> {
    let mut steps = Steps { arrived: line.arrived, rows: Vec::new() };
    let from = if line.from.is_empty() { String::new() } else { format!(" from {}", line.from) };
    let said = format!(
        "{}: {}{from}, priority {}, {}",
        line.wall.local(),
        counted(usize::try_from(line.received).unwrap_or(usize::MAX), "byte"),
        line.priority,
        line.allowed.map_or_else(
            || "no deadline".to_owned(),
            |allowed| format!("time until {}", millis(allowed)),
        ),
    );
    steps.add(line.arrived, "arrived", None, said);
    if line.attempts.first().is_none_or(|first| first.given > line.arrived) {
        let said = match line.ahead {
            0 => "no other request before it".to_owned(),
            count => format!("behind {}", counted(count as usize, "request")),
        };
        steps.add(line.arrived, "waits", None, said);
    }
    for attempt in &line.attempts {
        let host = attempt.host.as_ref().map_or_else(String::new, |host| format!(" on {host}"));
        let said = format!(
            "to worker {}, pid {}{host}, attempt {}",
            attempt.worker, attempt.pid, attempt.number
        );
        steps.add(attempt.given, "given", Some(attempt), said);
        if let Some(begun) = attempt.begun.filter(|begun| *begun > attempt.given) {
            let said = format!("by worker {}, which held it until then", attempt.worker);
            steps.add(begun, "begun", Some(attempt), said);
        }
        if let Some((at, why)) = &attempt.lost {
            steps.add(*at, "lost", Some(attempt), format!("worker {} {why}", attempt.worker));
        }
    }
    if let Some(at) = line.first_piece {
        steps.add(at, "replies", line.attempts.last(), "the first piece of the reply".into());
    }
    // Pieces may have come from a worker that was lost later.
    steps.rows.sort_by_key(|(at, _)| *at);
    add_standing(hub, line, &mut steps);
    steps.rows.into_iter().map(|(_, row)| row).collect()
}

/// The last rows: where it is, or how it ended.
fn add_standing(hub: &Engine, line: &TimeLine, steps: &mut Steps) {
    let last = line.attempts.last();
    let word = state_word(&line.standing);
    let of = |attempt: Option<&Attempt>| {
        attempt.map_or_else(String::new, |attempt| format!("worker {}", attempt.worker))
    };
    match &line.standing {
        Standing::Waits { ahead, is_all } => {
            let before = match (ahead, is_all) {
                (0, true) => "it is the next one".to_owned(),
                (ahead, true) => format!("behind {} now", counted(*ahead, "request")),
                (ahead, false) => format!("behind {} or more now", counted(*ahead, "request")),
            };
            let service = hub.catalog.find(line.service.as_str());
            let why = service.map_or_else(String::new, |service| {
                format!(": {}", read::why_waiting(hub, service, Stage::Waiting))
            });
            steps.add(hub.now, word, None, format!("{before}{why}"));
        }
        Standing::Blocked => {
            let said = "its client is blocked ('unblock' lets it go on)".to_owned();
            steps.add(hub.now, word, None, said);
        }
        Standing::Held => {
            let said = format!("{} holds it and has not begun it", of(last));
            steps.add(hub.now, word, last, said);
        }
        Standing::Runs | Standing::Parked | Standing::Unheard => {
            let begun = last.and_then(|attempt| attempt.begun).unwrap_or(line.arrived);
            let said = format!("{} has it since {}", of(last), millis(hub.now.since(begun)));
            steps.add(hub.now, word, last, said);
        }
        Standing::Ended { at, outcome, .. } => {
            let said = match outcome {
                Outcome::Answered { error } => {
                    let bytes = usize::try_from(line.replied).unwrap_or(usize::MAX);
                    let error = match error {
                        0 => String::new(),
                        error => format!(", with the worker's error {error}"),
                    };
                    format!("{} by {}{error}", counted(bytes, "byte"), of(last))
                }
                Outcome::Failed { code, ran, text } => format!("{code} (ran: {ran}): {text}"),
                Outcome::Left => "its client is gone".to_owned(),
            };
            let of_whom = last.filter(|attempt| attempt.lost.is_none());
            steps.add(*at, word, of_whom, said);
            let is_there = hub.dispatch.transaction(line.key);
            if is_there.is_some_and(|t| t.id == line.transaction) {
                let worker = last.map_or(0, |attempt| attempt.worker.0);
                let idle = format!("'idle {worker} {}' takes it away", line.transaction);
                let said = format!("{} still has it ({idle})", of(last));
                steps.add(hub.now, "kept_busy", last, said);
            }
        }
    }
}

/// What is kept, and how to have more kept.
fn what_is_kept(hub: &Engine) -> String {
    let get = |setting| hub.settings.get(setting);
    let most = get(Setting::TracesMax);
    if most == 0 {
        return "none is kept after its end (traces_max is 0)".into();
    }
    let slow = match get(Setting::TraceSlowMs) {
        0 => ", but no slow ones (trace_slow_ms is 0)".to_owned(),
        ms => format!(" or took {ms} ms or longer (trace_slow_ms)"),
    };
    let sample = match get(Setting::TraceSample) {
        0 => "; 'set trace_sample 1' keeps each from now on".to_owned(),
        1 => ", and all others (trace_sample is 1)".to_owned(),
        count => format!(
            ", and one of {count} others (trace_sample); 'set trace_sample 1' keeps each from now \
             on"
        ),
    };
    format!(
        "kept are the last {most} (traces_max; {} now) that failed{slow}{sample}",
        hub.dispatch.traces().count()
    )
}

/// The error for a request that is neither under way nor kept.
pub(crate) fn unknown(hub: &Engine, of: &WhyOf) -> OpError {
    let last = hub.dispatch.last_transaction();
    let what = match of {
        WhyOf::Request(RequestName::Transaction(id)) if *id > last => {
            return not_found(format!(
                "transaction {id} was not given yet, the last one is {last}; 'requests' lists \
                 those under way"
            ));
        }
        WhyOf::Request(RequestName::Transaction(id)) => format!("transaction {id}"),
        WhyOf::Request(RequestName::Sent(client, sequence)) => {
            format!("a request of client {client} with sequence {sequence}")
        }
        WhyOf::Trace(id) => format!("a request with trace id {}", show::digits(id)),
        WhyOf::Kept => "such a request".to_owned(),
    };
    not_found(format!("{what} is neither under way nor kept; {}", what_is_kept(hub)))
}

/// Shows these: the time line of one, or a row for each of several.
pub(crate) fn show_found(hub: &Engine, lines: &[TimeLine], of: &WhyOf) -> OpResult {
    match lines {
        [] => Err(unknown(hub, of)),
        [one] => Ok(show(hub, one)),
        many => Ok(list(hub, many.iter(), many.len())),
    }
}
