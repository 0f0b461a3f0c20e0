//! Rights of operators, and what a change of the tokens means for those who are logged in.

use super::{answer, certificates};
use crate::engine::counted::counted;
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::Engine;
use crate::engine::input::Tokens;
use crate::engine::keys::ClientKey;
use crate::engine::operator::cells::{number, text};
use crate::engine::operator::result::{OpResult, refused};
use crate::engine::origin::Requester;
use crate::engine::quotas::Class;
use crate::engine::sessions::access::Access;
use crate::engine::sessions::connection::End;
use crate::engine::sessions::peer_name::from;
use crate::engine::store::Difference;
use crate::engine::work::Work;
use protocol::{Command, ErrorBody, ErrorCode, LinkId, OpError, OpReply, OpRequest, Rights, Value};

/// Refuses a command that needs more rights than its client has, and records the attempt.
pub(crate) fn not_allowed(hub: &mut Engine, client: ClientKey, request: &OpRequest) -> OpResult {
    let rights = rights_of(hub, client);
    let command = request.command().row().name;
    let needed = request.effect().word();
    let or = if request.command().row().deploy { " or operator:deploy" } else { "" };
    let text = format!("'{command}' needs the role operator:{needed}{or}; yours are {rights}");
    let link = hub.sessions.client(client).link;
    if hub.may_cause(Class::LoggedIn, Some(link)) {
        let about = About { who: Some(answer::origin_of(hub, client).who()), ..About::default() };
        hub.record(FactKind::Refused, about, format!("{request}: {text}"));
    }
    Err(OpError { code: ErrorCode::Denied, text })
}

/// The rights of a client.
pub(crate) fn rights_of(hub: &Engine, client: ClientKey) -> &Rights {
    hub.sessions.rights_of(client)
}

/// Answers `whoami`: the client's id, address, token and roles.
pub(crate) fn show_whoami(hub: &Engine, client: ClientKey) -> OpReply {
    let rights = rights_of(hub, client);
    let id = hub.sessions.client(client).id;
    let peer = hub.sessions.peer(client);
    let by = match (&peer.token, &peer.start, peer.is_owner) {
        (Some(token), _, _) => format!("token {token}"),
        (None, Some(start), _) => format!("the secret of {start}"),
        (None, None, true) => "the broker's own user or root".to_owned(),
        (None, None, false) => "no token".to_owned(),
    };
    let line = format!("client {id} at {}, by {by}: {rights}", from(peer));
    let fields = vec![
        ("client", Value::Number(id.0.into())),
        ("address", text(&peer.address)),
        ("uid", peer.uid.map_or(Value::None, |uid| Value::Number(uid.into()))),
        ("token", peer.token.as_ref().map_or(Value::None, text)),
        ("worker", peer.start.as_ref().map_or(Value::None, |start| number(start.worker.0))),
        ("roles", Value::Texts(rights.roles())),
    ];
    OpReply::line("whoami", line, fields)
}

/// Puts new tokens in force, or keeps the old ones if the file could not be read; records it
/// and answers the operator who asked. Peers whose token is gone, was renewed, or lacks a right
/// that they use are closed.
pub(crate) fn on_tokens(
    hub: &mut Engine,
    requester: Requester,
    tokens: Result<Box<Tokens>, String>,
) {
    let (client, about) = certificates::asked_by(hub, requester);
    let answer = match tokens {
        Err(why) => {
            let line = match hub.sessions.has_tokens() {
                true => format!("{why}; the tokens in force stay"),
                false => why,
            };
            hub.record(FactKind::TokensFailed, about, line.clone());
            Err(refused(line))
        }
        Ok(tokens) => {
            let line = format!("{} in {}", counted(tokens.tokens.len(), "token"), tokens.file);
            let fields = vec![("tokens", Value::Number(tokens.tokens.len() as i128))];
            hub.record(FactKind::TokensRead, about, line.clone());
            change_tokens(hub, *tokens);
            // Those who are shut out hear of it before the operator.
            hub.settle();
            Ok(OpReply::line("reload", line, fields))
        }
    };
    let answer = match hub.certificates.take_if(|(of, _)| *of == requester) {
        Some((_, certificates)) => certificates.join(Some(answer)),
        None => answer.map(|reply| reply.complete(Command::Reload)),
    };
    if let (Some((link, head)), Some(client)) = (requester, client)
        && hub.sessions.end(link).is_some()
    {
        hub.store.did(Difference::Changed);
        answer::answer(hub, client, &head, answer);
    }
}

fn change_tokens(hub: &mut Engine, tokens: Tokens) {
    let old = Box::new(hub.sessions.change_tokens(tokens));
    let links = hub.sessions.connections().map(|(link, _)| link).collect();
    hub.works.begin(Work::ShutOut { links, old }, &mut hub.effects);
}

/// Why the peer at a link must leave since the rights are not the old ones any more; `None` = it
/// may stay.
pub(crate) fn shut_out(hub: &Engine, link: LinkId, old: &Access) -> Option<ErrorBody> {
    let (service, is_worker) = match hub.sessions.end(link)? {
        End::Client(key) => (hub.dispatch.caller(key).service, false),
        End::Worker(key) if hub.supervision.worker(key).is_self_started => {
            (hub.supervision.worker(key).service, true)
        }
        End::Worker(_) | End::Free | End::NewClient | End::NewWorker | End::Host(_) => return None,
    };
    hub.sessions.shut_out(old, link, (&hub.catalog[service].name, is_worker))
}
