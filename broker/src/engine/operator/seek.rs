//! Finds the requests that `why` and `cancel` name. A request has no index by its number, which
//! would cost each request something: the table of those under way is looked through, part by part.

use super::cells::{number, text};
use super::result::{OpResult, not_found, refused};
use super::sought::{Seek, Sought};
use super::{answer, why};
use crate::engine::context::context;
use crate::engine::dispatch::stage::Stage;
use crate::engine::dispatch::traces::TimeLine;
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::Engine;
use crate::engine::keys::{ClientKey, TransactionKey};
use crate::engine::operator::answer::origin_of;
use crate::engine::origin::Origin;
use crate::engine::store::Difference;
use crate::engine::work::Work;
use protocol::op::spec::{RequestName, WhyOf};
use protocol::{ClientId, Header, OpError, OpReply, OpRequest, TransactionId, Value};
use std::collections::BTreeSet;

/// Most requests under way that are found for one command.
const FOUND_MAX: usize = 200;

/// `why`: answers it now, or begins to look; `None` = the answer comes later.
pub(crate) fn begin_why(
    hub: &mut Engine,
    client: ClientKey,
    head: Header,
    of: WhyOf,
) -> Option<OpResult> {
    let found = match of {
        WhyOf::Kept => return Some(Ok(why::list_kept(hub))),
        WhyOf::Request(RequestName::Sent(sender, sequence)) => {
            // One that was in flight before with the same sequence may be kept.
            let found = in_flight(hub, sender, sequence)
                .and_then(|at| why::line_of(hub, at))
                .or_else(|| kept(hub, |line| is_sent(line, sender, sequence)).next().cloned());
            if found.is_none() {
                // It may have outlived its client.
                begin(hub, client, head, Sought::Why(of));
                return None;
            }
            found
        }
        WhyOf::Request(RequestName::Transaction(id)) => {
            let found = kept(hub, |line| line.transaction == id).next().cloned();
            if found.is_none() && id <= hub.dispatch.last_transaction() {
                begin(hub, client, head, Sought::Why(of));
                return None;
            }
            found
        }
        WhyOf::Trace(_) => {
            begin(hub, client, head, Sought::Why(of));
            return None;
        }
    };
    Some(why::show_found(hub, found.as_slice(), &of))
}

/// `cancel`: answers it now, or begins to look; `None` = the answer comes later.
pub(crate) fn begin_cancel(
    hub: &mut Engine,
    client: ClientKey,
    head: Header,
    name: RequestName,
) -> Option<OpResult> {
    let found = match name {
        RequestName::Sent(sender, sequence) => in_flight(hub, sender, sequence),
        RequestName::Transaction(_) => None,
    };
    if found.is_none() {
        begin(hub, client, head, Sought::Cancel(name));
        return None;
    }
    let origin = origin_of(hub, client);
    Some(cancel_recorded(hub, &origin, name, found))
}

fn in_flight(
    hub: &Engine,
    client: ClientId,
    sequence: u32,
) -> Option<(TransactionKey, TransactionId)> {
    let caller = hub.dispatch.caller(hub.sessions.find_client(client)?);
    let key = caller.in_flight.get(sequence)?;
    Some((key, hub.dispatch.transaction(key)?.id))
}

fn is_sent(line: &TimeLine, client: ClientId, sequence: u32) -> bool {
    line.client == client && line.sequence == sequence
}

fn kept(hub: &Engine, is_meant: impl Fn(&TimeLine) -> bool) -> impl Iterator<Item = &TimeLine> {
    hub.dispatch.traces().newest().filter(move |line| is_meant(line))
}

fn begin(hub: &mut Engine, client: ClientKey, head: Header, what: Sought) {
    let link = hub.sessions.client(client).link;
    let seek = Seek::new((link, head), what);
    hub.works.begin(Work::Seek(Box::new(seek)), &mut hub.effects);
}

/// Looks at up to `most` further slots of the table, and answers when all is found. Returns at how
/// many it looked.
pub(crate) fn go_on(hub: &mut Engine, seek: &mut Seek, most: usize) -> usize {
    let slots = hub.dispatch.transaction_slots();
    let looked = most.min(slots.saturating_sub(seek.next));
    let meant = hub.dispatch.transactions_from(seek.next, looked);
    let meant = meant.filter(|(_, transaction)| seek.what.is(transaction));
    let room = FOUND_MAX - seek.found.len();
    seek.found.extend(meant.map(|(key, transaction)| (key, transaction.id)).take(room));
    seek.next += looked;
    seek.is_done = seek.next >= slots || (seek.what.only().is_some() && !seek.found.is_empty());
    if seek.is_done {
        finish(hub, seek);
    }
    looked
}

fn finish(hub: &mut Engine, seek: &Seek) {
    let Some(client) = hub.sessions.client_at(seek.link) else { return };
    let (origin, command) = (origin_of(hub, client), seek.what.request().command());
    let answer = match seek.what {
        Sought::Why(of) => {
            let mut lines: Vec<TimeLine> =
                seek.found.iter().filter_map(|&at| why::line_of(hub, at)).collect();
            if let WhyOf::Trace(id) = of {
                // One that has its outcome and is still with its worker is kept, too.
                let ended: Vec<TimeLine> =
                    kept(hub, |line| line.trace_id == id).take(FOUND_MAX).cloned().collect();
                let known: BTreeSet<_> = ended.iter().map(|line| line.transaction).collect();
                lines.retain(|line| !known.contains(&line.transaction));
                lines.extend(ended);
                lines.sort_by_key(|line| std::cmp::Reverse(line.transaction));
            }
            why::show_found(hub, &lines, &of)
        }
        Sought::Cancel(name) => {
            let newest = seek.found.iter().max_by_key(|(_, id)| *id);
            cancel_recorded(hub, &origin, name, newest.copied())
        }
    };
    hub.settle();
    // What was done may have closed the client that asked.
    if let Some(client) = hub.sessions.client_at(seek.link) {
        let answer = answer.map(|reply| reply.complete(command));
        answer::answer(hub, client, &seek.head, answer);
    } else {
        hub.store.did(Difference::Shown);
    }
}

/// Carries out `cancel`; one that is refused is recorded like one that is done.
fn cancel_recorded(
    hub: &mut Engine,
    origin: &Origin,
    name: RequestName,
    found: Option<(TransactionKey, TransactionId)>,
) -> OpResult {
    hub.store.did(Difference::Changed);
    let answer = cancel(hub, origin, name, found);
    if let Err(error) = &answer {
        let about = About { who: Some(origin.who()), ..About::default() };
        let command = OpRequest::Cancel(name);
        hub.record(FactKind::Refused, about, format!("{command}: {}", error.text));
    }
    answer
}

fn cancel(
    hub: &mut Engine,
    origin: &Origin,
    name: RequestName,
    found: Option<(TransactionKey, TransactionId)>,
) -> OpResult {
    let known = found.and_then(|(key, id)| {
        let transaction = hub.dispatch.transaction(key).filter(|t| t.id == id)?;
        Some((key, transaction))
    });
    let Some((key, transaction)) = known else { return Err(not_under_way(name)) };
    let worker = transaction.stage.worker().map(|at| hub.supervision.worker(at).id);
    let (id, sequence) = (transaction.id, transaction.head.sequence);
    let is_held = matches!(transaction.stage, Stage::Held(_));
    if transaction.stage.is_ended() {
        let worker = worker.map_or_else(String::new, |worker| {
            format!("; worker {worker} still has it, and 'idle {worker} {id}' takes it away")
        });
        return Err(refused(format!(
            "transaction {id} has its outcome already ('why {id}'){worker}"
        )));
    }
    let client = transaction.client.map(|at| hub.sessions.client(at).id);
    let service = hub.catalog[transaction.service].name.clone();
    let about = About {
        client,
        worker,
        service: Some(service.clone()),
        transaction: Some(id),
        who: Some(origin.who()),
        ..About::default()
    };
    hub.record(FactKind::Intervention, about, format!("transaction {id} was given up"));
    let ran = hub.dispatch.cancel_one(key, context!(hub));
    let whose = client.map_or_else(String::new, |client| format!(" of client {client}"));
    let how = match worker {
        None => "it waited".to_owned(),
        Some(worker) if is_held => format!("worker {worker} holds it and may begin it yet"),
        Some(worker) => format!("worker {worker} has it ('idle {worker} {id}' takes it away)"),
    };
    let fields = vec![
        ("transaction", number(id.0)),
        ("service", text(service)),
        ("client", client.map_or(Value::None, |id| number(id.0))),
        ("sequence", number(sequence)),
        ("worker", worker.map_or(Value::None, |id| number(id.0))),
        ("ran", Value::Word(ran.word())),
    ];
    let said = format!("cancelled transaction {id}{whose}: {how}, ran: {ran}");
    Ok(OpReply::line("cancelled", said, fields))
}

fn not_under_way(name: RequestName) -> OpError {
    not_found(match name {
        RequestName::Transaction(id) => format!(
            "transaction {id} is not under way; 'requests' lists those that are, 'why {id}' says \
             what became of it if that is kept"
        ),
        RequestName::Sent(client, sequence) => format!(
            "client {client} has no request with sequence {sequence} under way; 'requests client \
             {client}' lists its own, 'why {client} {sequence}' says what became of it if that is \
             kept"
        ),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::engine::EngineOptions;
    use crate::engine::action::Action;
    use crate::engine::input::{Input, Peer};
    use bytes::Bytes;
    use protocol::bodies::Login;
    use protocol::{Frame, LinkId, ServiceName, Setting, Settings, Tick};

    const CLIENT: LinkId = LinkId { index: 1, generation: 0 };
    const OPERATOR: LinkId = LinkId { index: 2, generation: 0 };

    fn step(engine: &mut Engine, now: u64, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        engine.step(Tick(now), input, &mut out);
        out
    }

    fn asks(link: LinkId, sequence: u32, body: &str) -> Input {
        let head = Header { sequence, reply: 1, len: body.len() as u32, ..Header::default() };
        Input::Request { link, head, body: Bytes::copy_from_slice(body.as_bytes()) }
    }

    /// So many requests wait for a service that is paused.
    fn crowded(count: u32) -> Engine {
        let mut settings = Settings::default();
        settings.set(Setting::RequestsMax, count.into());
        let mut engine = Engine::new(EngineOptions { settings, ..EngineOptions::default() });
        let text = format!("config service echo queue_max={count}\npause echo\n");
        step(&mut engine, 0, Input::Script { origin: Origin::Broker, text });
        step(&mut engine, 0, Input::Started);
        for (link, name) in [(CLIENT, "echo"), (OPERATOR, "op")] {
            let peer = Peer { is_owner: true, ..Peer::default() };
            step(&mut engine, 0, Input::ClientOpened { link, peer });
            let login = Box::new(Login::to(ServiceName::new(name).unwrap()));
            step(&mut engine, 0, Input::Login { link, login });
        }
        (1..=count).for_each(|sequence| {
            step(&mut engine, 0, asks(CLIENT, sequence, "hi"));
        });
        engine
    }

    fn answered(out: &[Action]) -> Option<String> {
        out.iter().find_map(|action| match action {
            Action::Answer { link: OPERATOR, reply, .. } => Some(reply.text()),
            Action::Send { link: OPERATOR, frame: Frame::Error { error, .. } } => {
                Some(error.text.clone())
            }
            _ => None,
        })
    }

    /// The answer to a command, and in how many steps it came.
    fn ask(engine: &mut Engine, now: &mut u64, command: &str) -> (String, u64) {
        let began = *now;
        let mut out = step(engine, *now, asks(OPERATOR, 1, command));
        loop {
            if let Some(text) = answered(&out) {
                engine.check_all().unwrap();
                return (text, *now - began);
            }
            assert!(*now - began < 100, "{command} is not answered");
            *now += 1;
            out = step(engine, *now, Input::Deadline);
        }
    }

    #[test]
    fn of_very_many_requests_one_is_found_part_by_part() {
        let mut engine = crowded(40_000);
        let mut now = 1;
        let (text, steps) = ask(&mut engine, &mut now, "why 40000");
        assert!(text.starts_with("transaction 40000 of client 0, sequence 40000,"), "{text}");
        assert!(text.contains("behind 39999 requests"), "{text}");
        assert!(text.contains("behind 2048 requests or more now"), "{text}");
        assert_eq!(steps, 3);
        let (text, steps) = ask(&mut engine, &mut now, "why 5");
        assert!(text.contains("behind 4 requests or more now"), "{text}");
        assert_eq!(steps, 0);
        let (_, steps) = ask(&mut engine, &mut now, "why 0 40000");
        assert_eq!(steps, 0);
        let (text, _) = ask(&mut engine, &mut now, "cancel 39999");
        assert!(text.starts_with("cancelled transaction 39999 of client 0: it waited"), "{text}");
        let (text, _) = ask(&mut engine, &mut now, "cancel 39999");
        assert!(text.starts_with("transaction 39999 is not under way;"), "{text}");
        assert_eq!(engine.totals().ended, 1);
    }
}
