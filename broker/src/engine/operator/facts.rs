//! Commands that show recorded facts, and the requests set aside as poison.

use crate::engine::dispatch::poison::Poison;
use crate::engine::hub::Engine;
use crate::engine::operator::cells::{number, table, text};
use crate::engine::operator::result::{OpResult, not_found};
use crate::engine::origin::Origin;
use protocol::op::reply::{Block, OpReply, Value};
use protocol::op::spec::PoisonWhat;

/// `listevents` where no facts are kept; `listing` lists those that are, newest first.
pub(crate) fn no_events() -> OpReply {
    let hint = "no events are remembered; 'config events 100' begins with it";
    OpReply::line("note", hint, vec![])
}

pub(crate) fn run_poison(hub: &mut Engine, origin: &Origin, what: PoisonWhat) -> OpResult {
    match what {
        PoisonWhat::List => Ok(list_poison(hub)),
        PoisonWhat::Clear => {
            let count = hub.dispatch.clear_poison();
            hub.noted(origin, format!("poison clear: {count} requests forgotten"));
            let fields = vec![("count", number(count))];
            Ok(OpReply::line("cleared", format!("{count} forgotten"), fields))
        }
        PoisonWhat::Show(id) => {
            let Some(poison) =
                hub.dispatch.poison().iter().find(|poison| poison.transaction.0 == id)
            else {
                return Err(not_found(format!(
                    "no poison request has transaction {id}; 'poison' lists them"
                )));
            };
            let mut reply = list_poison(hub);
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

fn list_poison(hub: &Engine) -> OpReply {
    let row = |p: &Poison| {
        vec![
            number(p.transaction.0),
            text(&p.service),
            p.client.map_or(Value::None, |id| number(id.0)),
            text(&p.from),
            number(p.deaths),
            number(p.body.len()),
            hub.clock(p.at),
        ]
    };
    table("poison", hub.dispatch.poison().iter().map(row).collect())
}
