//! `send … status`: asks workers for their status and shows their answers together. The answer
//! waits for the workers, unlike those of most commands in `run`.

use super::{answer, targets};
use crate::engine::action::Action;
use crate::engine::dispatch::seat::WorkerList;
use crate::engine::fact::FactKind;
use crate::engine::hub::Engine;
use crate::engine::keys::ClientKey;
use crate::engine::operator::result::OpResult;
use crate::engine::operator::status_query::StatusQuery;
use crate::engine::quotas::{Class, LINE_BYTES_MAX};
use crate::engine::sessions::connection::End;
use crate::engine::supervision::process_state::ProcessState;
use crate::engine::timers::Timer;
use protocol::{
    Block, ErrorBody, ErrorCode, Frame, Header, LinkId, OpError, OpReply, Target, Value, WorkerId,
    show,
};
use std::collections::BTreeSet;

/// Most characters of a worker's answer that are shown.
const STATUS_CHARS_MAX: usize = 4096;

/// Milliseconds that `send … status` waits for answers.
const STATUS_WAIT_MS: u64 = 1000;

/// Asks the workers that are not busy. `None` = the answer comes when all of them have
/// answered, or after a second.
pub(crate) fn ask_status(
    hub: &mut Engine,
    client: ClientKey,
    head: Header,
    target: &Target,
) -> Result<Option<OpReply>, OpError> {
    let keys = targets::targets(hub, target)?;
    if keys.is_empty() {
        return Ok(Some(targets::none_there(target)));
    }
    hub.next_query += 1;
    let query = hub.next_query;
    let client = hub.sessions.client(client).id;
    let mut asked = StatusQuery { client, head, waiting: BTreeSet::new(), blocks: Vec::new() };
    for key in keys {
        let (worker, seat) = (hub.supervision.worker(key), hub.dispatch.seat(key));
        let is_busy = seat.list == WorkerList::Busy;
        let is_free = worker.state == ProcessState::Ready && !is_busy;
        if let Some(link) = seat.link.filter(|_| is_free) {
            asked.waiting.insert(link);
            hub.out.push(Action::Send { link, frame: Frame::Status { sequence: query as u32 } });
            continue;
        }
        let why = if is_busy { "busy, answers nothing now" } else { "not connected" };
        asked.blocks.push(status_line(worker.id, why));
    }
    if asked.waiting.is_empty() {
        return Ok(Some(OpReply { blocks: asked.blocks }));
    }
    hub.status_queries.insert(query, asked);
    hub.timers.add(hub.now.plus_millis(STATUS_WAIT_MS), Timer::StatusAnswer(query));
    Ok(None)
}

pub(crate) fn on_status_reply(hub: &mut Engine, link: LinkId, sequence: u32, text: &str) {
    let key = match hub.sessions.end(link) {
        Some(End::Worker(key)) => key,
        Some(_) => {
            let text = "an answer to status came before the login";
            hub.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text));
            return;
        }
        None => return,
    };
    let id = hub.supervision.worker(key).id;
    let is_asked = hub
        .status_queries
        .iter()
        .any(|(&query, asked)| query as u32 == sequence && asked.waiting.contains(&link));
    // An answer that nobody asked for is recorded only so often.
    if is_asked || hub.may_cause(Class::LoggedIn, Some(link)) {
        let about = hub.supervision.about_worker(key, &hub.catalog);
        let said = show::brief(text, LINE_BYTES_MAX);
        hub.record(FactKind::WorkerStatus, about, format!("worker {id} says: {said}"));
    }
    if is_asked {
        let end = show::lines(&text.chars().take(STATUS_CHARS_MAX).collect::<String>());
        note_status(hub, link, id, Some(sequence), &end);
    }
}

/// A worker is gone: queries wait for it no longer.
pub(crate) fn on_status_lost(hub: &mut Engine, link: LinkId, id: WorkerId) {
    note_status(hub, link, id, None, "ended before it answered");
}

/// Adds a line about one worker to the query of this sequence, or to all that wait for it.
fn note_status(hub: &mut Engine, link: LinkId, id: WorkerId, sequence: Option<u32>, text: &str) {
    let mut done = Vec::new();
    for (&query, asked) in &mut hub.status_queries {
        let is_meant = sequence.is_none_or(|sequence| query as u32 == sequence);
        if is_meant && asked.waiting.remove(&link) {
            asked.blocks.push(status_line(id, text));
            if asked.waiting.is_empty() {
                done.push(query);
            }
        }
    }
    for query in done {
        answer_status_query(hub, query);
    }
}

/// Answers a query with what has come.
pub(crate) fn answer_status_query(hub: &mut Engine, query: u64) {
    let Some(mut asked) = hub.status_queries.remove(&query) else { return };
    for link in asked.waiting {
        if let Some(End::Worker(key)) = hub.sessions.end(link) {
            asked
                .blocks
                .push(status_line(hub.supervision.worker(key).id, "no answer within a second"));
        }
    }
    // The operator may be gone by now.
    if let Some(client) = hub.sessions.find_client(asked.client) {
        let answer: OpResult = Ok(OpReply { blocks: asked.blocks });
        answer::answer(hub, client, &asked.head, answer);
    }
}

fn status_line(worker: WorkerId, text: &str) -> Block {
    Block::Line {
        name: "statuses",
        text: format!("worker {worker}: {text}"),
        fields: vec![
            ("worker", Value::Number(worker.0.into())),
            ("status", Value::Text(text.to_owned())),
        ],
    }
}
