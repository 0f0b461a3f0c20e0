//! Commands that show recorded facts, and the requests set aside as poison.

use super::action::Origin;
use super::fact::Fact;
use super::op_read::{column, number, table, text};
use super::op_run::{OpResult, not_found};
use super::{Engine, Out};
use protocol::op::reply::{Block, OpReply, Value};
use protocol::op::spec::PoisonWhat;

impl Engine {
    /// `listevents`: the kept facts, newest first.
    pub(crate) fn show_events(&self, count: Option<u64>) -> OpReply {
        if self.recent.max() == 0 {
            let hint = "no events are remembered; 'config events 100' begins with it";
            return OpReply::line("note", hint, vec![]);
        }
        let count = count.unwrap_or(u64::MAX).try_into().unwrap_or(usize::MAX);
        OpReply {
            blocks: self
                .recent
                .newest_first()
                .take(count)
                .map(|fact| self.fact_line(fact))
                .collect(),
        }
    }

    /// One fact as a line, with its time and ids.
    pub(crate) fn fact_line(&self, fact: &Fact) -> Block {
        let about = &fact.about;
        let when = self.wall(fact.at);
        let mut line = format!("{} {} {}", when.local(), fact.kind.row().name, fact.text);
        for (word, id) in [
            ("transaction", about.transaction.map(|id| id.0.to_string())),
            ("client", about.client.map(|id| id.0.to_string())),
            ("by", about.who.clone()),
        ] {
            if let Some(id) = id {
                line += &format!(" [{word} {id}]");
            }
        }
        let fields = vec![
            ("seq", number(fact.seq.0)),
            ("at", Value::Time(when)),
            ("kind", Value::Word(fact.kind.row().name)),
            ("text", text(&fact.text)),
            ("client", about.client.map_or(Value::None, |id| number(id.0))),
            ("worker", about.worker.map_or(Value::None, |id| number(id.0))),
            ("service", about.service.as_ref().map_or(Value::None, text)),
            ("host", about.host.as_ref().map_or(Value::None, text)),
            ("transaction", about.transaction.map_or(Value::None, |id| number(id.0))),
            ("who", about.who.as_ref().map_or(Value::None, text)),
        ];
        Block::Line { name: "events", text: line, fields }
    }

    /// `poison`: lists the requests set aside, shows one with its bytes, or forgets all.
    pub(crate) fn run_poison(
        &mut self,
        origin: &Origin,
        what: PoisonWhat,
        out: Out<'_>,
    ) -> OpResult {
        match what {
            PoisonWhat::List => Ok(self.list_poison()),
            PoisonWhat::Clear => {
                let count = self.poison.len();
                self.poison.clear();
                self.noted(origin, format!("poison clear: {count} requests forgotten"), out);
                Ok(OpReply::line(
                    "cleared",
                    format!("{count} forgotten"),
                    vec![("count", number(count))],
                ))
            }
            PoisonWhat::Show(id) => {
                let Some(poison) = self.poison.iter().find(|poison| poison.transaction.0 == id)
                else {
                    return Err(not_found(format!(
                        "no poison request has transaction {id}; 'poison' lists them"
                    )));
                };
                let mut reply = self.list_poison();
                if let Some(Block::Table { rows, .. }) = reply.blocks.first_mut() {
                    rows.retain(|row| row.first() == Some(&number(id)));
                }
                reply.blocks.push(Block::Dump {
                    name: "request",
                    size: poison.body.len() as u64,
                    bytes: poison.body.clone(),
                });
                Ok(reply)
            }
        }
    }

    /// The table of the requests set aside, oldest first.
    fn list_poison(&self) -> OpReply {
        let columns = vec![
            column("transaction", "transaction", 12),
            column("service", "service", 12),
            column("client id", "client", 10),
            column("from", "from", 20),
            column("deaths", "deaths", 7),
            column("bytes", "bytes", 9),
            column("at", "at", 30),
        ];
        let row = |p: &super::poison::Poison| {
            vec![
                number(p.transaction.0),
                text(&p.service),
                p.client.map_or(Value::None, |id| number(id.0)),
                text(&p.from),
                number(p.deaths),
                number(p.body.len()),
                self.clock(p.at),
            ]
        };
        table("poison", columns, self.poison.iter().map(row).collect())
    }
}
