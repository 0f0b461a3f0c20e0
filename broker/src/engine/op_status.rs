//! `send … status`: asks workers for their status and shows their answers together. The answer
//! waits for the workers, unlike those of most commands in `op_run`.

use super::action::Action;
use super::due::Due;
use super::fact::FactKind;
use super::keys::ClientKey;
use super::links::End;
use super::op_run::OpResult;
use super::quotas::{Class, LINE_BYTES_MAX};
use super::workers::{ProcessState, WorkerList};
use super::{Engine, Out};
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{ClientId, LinkId, WorkerId};
use protocol::op::parse::OpError;
use protocol::op::reply::{Block, OpReply, Value};
use protocol::op::spec::Target;
use protocol::show;
use std::collections::BTreeSet;

/// A `send … status` that not all workers have answered.
#[derive(Debug)]
pub(crate) struct StatusQuery {
    client: ClientId,
    head: Header,
    /// Links of the workers that have not answered.
    waiting: BTreeSet<LinkId>,
    blocks: Vec<Block>,
}

/// Most characters of a worker's answer that are shown.
const STATUS_CHARS_MAX: usize = 4096;

/// Milliseconds that `send … status` waits for answers.
const STATUS_WAIT_MS: u64 = 1000;

impl Engine {
    /// Asks the workers that are not busy. `None` = the answer comes when all of them have
    /// answered, or after a second.
    pub(crate) fn ask_status(
        &mut self,
        client: ClientKey,
        head: Header,
        target: &Target,
        out: Out<'_>,
    ) -> Result<Option<OpReply>, OpError> {
        let keys = self.targets(target)?;
        if keys.is_empty() {
            return Ok(Some(self.none_there(target)));
        }
        self.next_query += 1;
        let query = self.next_query;
        let client = self.clients[client].id;
        let mut asked = StatusQuery { client, head, waiting: BTreeSet::new(), blocks: Vec::new() };
        for key in keys {
            let worker = &self.workers[key];
            let is_free = worker.state == ProcessState::Ready && worker.list != WorkerList::Busy;
            if let Some(link) = worker.link.filter(|_| is_free) {
                asked.waiting.insert(link);
                out.push(Action::Send { link, frame: Frame::Status { sequence: query as u32 } });
                continue;
            }
            let is_busy = worker.list == WorkerList::Busy;
            let why = if is_busy { "busy, answers nothing now" } else { "not connected" };
            asked.blocks.push(status_line(worker.id, why));
        }
        if asked.waiting.is_empty() {
            return Ok(Some(OpReply { blocks: asked.blocks }));
        }
        self.status_queries.insert(query, asked);
        self.due.add(self.now.plus_millis(STATUS_WAIT_MS), Due::StatusAnswer(query));
        Ok(None)
    }

    /// Records the answer of a worker, and adds it to the query that it belongs to.
    pub(crate) fn on_status_reply(
        &mut self,
        link: LinkId,
        sequence: u32,
        text: &str,
        out: Out<'_>,
    ) {
        let key = match self.links.get(link).map(|slot| &slot.end) {
            Some(End::Worker(key)) => *key,
            Some(_) => {
                let text = "an answer to status came before the login";
                self.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text), out);
                return;
            }
            None => return,
        };
        let id = self.workers[key].id;
        let is_asked = self
            .status_queries
            .iter()
            .any(|(&query, asked)| query as u32 == sequence && asked.waiting.contains(&link));
        // An answer that nobody asked for is recorded only so often.
        if is_asked || self.may_cause(Class::LoggedIn, Some(link)) {
            let about = self.about_worker(key);
            let said = show::brief(text, LINE_BYTES_MAX);
            self.record(FactKind::WorkerStatus, about, format!("worker {id} says: {said}"), out);
        }
        if is_asked {
            let end = show::lines(&text.chars().take(STATUS_CHARS_MAX).collect::<String>());
            self.note_status(link, id, Some(sequence), &end, out);
        }
    }

    /// A worker is gone: queries wait for it no longer.
    pub(crate) fn on_status_lost(&mut self, link: LinkId, id: WorkerId, out: Out<'_>) {
        self.note_status(link, id, None, "ended before it answered", out);
    }

    /// Adds a line about one worker to the query of this sequence, or to all that wait for it.
    fn note_status(
        &mut self,
        link: LinkId,
        id: WorkerId,
        sequence: Option<u32>,
        text: &str,
        out: Out<'_>,
    ) {
        let mut done = Vec::new();
        for (&query, asked) in &mut self.status_queries {
            let is_meant = sequence.is_none_or(|sequence| query as u32 == sequence);
            if is_meant && asked.waiting.remove(&link) {
                asked.blocks.push(status_line(id, text));
                if asked.waiting.is_empty() {
                    done.push(query);
                }
            }
        }
        for query in done {
            self.answer_status_query(query, out);
        }
    }

    /// Answers a query with what has come.
    pub(crate) fn answer_status_query(&mut self, query: u64, out: Out<'_>) {
        let Some(mut asked) = self.status_queries.remove(&query) else { return };
        for link in asked.waiting {
            if let Some(End::Worker(key)) = self.links.get(link).map(|slot| slot.end) {
                asked.blocks.push(status_line(self.workers[key].id, "no answer within a second"));
            }
        }
        // The operator may be gone by now.
        if let Some(client) = self.clients.find(asked.client) {
            let answer: OpResult = Ok(OpReply { blocks: asked.blocks });
            self.answer(client, &asked.head, answer, out);
        }
    }
}

/// A line of the answer.
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
