//! Sends an operator the answer to its command: now, or when what it changed is stored.

use crate::engine::action::Action;
use crate::engine::context::refusal;
use crate::engine::hub::Engine;
use crate::engine::keys::ClientKey;
use crate::engine::operator::result::OpResult;
use crate::engine::origin::Origin;
use protocol::{ClientId, ErrorBody, Header, LinkId, OpReply};

pub(crate) fn origin_of(hub: &Engine, client: ClientKey) -> Origin {
    let (client, peer) = (hub.sessions.client(client), hub.sessions.peer(client));
    let mut from = format!("{} pid {} at {}", client.loghost, client.hostpid, peer.address);
    if let Some(start) = &peer.start {
        from += &format!(", {start}");
    }
    let (uid, token) = (peer.uid, peer.token.clone());
    Origin::Operator { client: client.id, from, uid, token }
}

/// Whether an operator waits for an answer: to a change that is being stored, to a long listing, or
/// to a question to workers.
pub(crate) fn owes_answer(hub: &Engine, client: ClientId, link: LinkId) -> bool {
    hub.store.holds_answer(link)
        || hub.works.owes_answer(client, link)
        || hub.listings.0.iter().any(|open| open.link == link)
        || hub.logs.owes_answer(client)
        || hub.status_queries.values().any(|query| query.client == client)
        || hub.restarts.values().any(|restart| restart.client == client)
}

/// Answers an operator, and counts the command. If this step changed the configuration, the answer
/// goes out once that is on the disk.
pub(crate) fn answer(hub: &mut Engine, client: ClientKey, head: &Header, answer: OpResult) {
    let answer = answer.map_err(|error| ErrorBody::new(error.code, error.text));
    answer_stored(hub, client, head, answer, 0);
}

/// As [`answer`], about changes of earlier steps, too: they are on the disk with the
/// `Action::Store` that has the number `stored`, 0 = there are none.
pub(crate) fn answer_stored(
    hub: &mut Engine,
    client: ClientKey,
    head: &Header,
    answer: Result<OpReply, ErrorBody>,
    stored: u64,
) {
    let client = hub.sessions.client(client);
    let link = client.link;
    hub.store.count(answer.is_ok(), &mut hub.scripts.entry(client.id).or_default().summary);
    let action = match answer {
        Ok(reply) if head.reply != 0 => {
            let watch = hub.facts.watch_of(client.id).or_else(|| hub.logs.follows(client.id));
            let is_watch = watch == Some(head.sequence);
            let head =
                Header { sequence: head.sequence, more: u16::from(is_watch), ..Header::default() };
            Action::Answer { link, head, reply: Box::new(reply), format: client.format }
        }
        Ok(_) => return,
        Err(error) => {
            let Some(action) = refusal(link, head, error) else { return };
            action
        }
    };
    hub.store.answer(link, action, stored, &mut hub.out);
}
