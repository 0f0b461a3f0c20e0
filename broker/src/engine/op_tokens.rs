//! Rights of operators, and what a change of the tokens means for those who are logged in.

use super::fact::{About, FactKind};
use super::hub::{Engine, Out};
use super::input::{Requester, Tokens};
use super::keys::ClientKey;
use super::op_read::{counted, text};
use super::op_run::{OpResult, refused};
use super::quotas::Class;
use super::sessions::connection::{End, from};
use protocol::errors::ErrorCode;
use protocol::ids::LinkId;
use protocol::op::parse::OpError;
use protocol::op::reply::{OpReply, Value};
use protocol::op::spec::{Command, OpRequest};
use protocol::rights::Rights;

impl Engine {
    /// Refuses a command that needs more rights than its client has, and records the attempt.
    pub(crate) fn not_allowed(
        &mut self,
        client: ClientKey,
        request: &OpRequest,
        out: Out<'_>,
    ) -> OpResult {
        let rights = self.rights_of(client);
        let command = request.command().row().name;
        let needed = request.effect().word();
        let text = format!("'{command}' needs the role operator:{needed}; yours are {rights}");
        let link = self.sessions.client(client).link;
        if self.may_cause(Class::Logged, Some(link)) {
            let about = About { who: Some(self.origin_of(client).who()), ..About::default() };
            self.record(FactKind::Refused, about, format!("{request}: {text}"), out);
        }
        Err(OpError { code: ErrorCode::Denied, text })
    }

    /// The rights of a client.
    pub(crate) fn rights_of(&self, client: ClientKey) -> &Rights {
        self.sessions.rights_of(client)
    }

    /// Answers `whoami`: the client's id, address, token and roles.
    pub(crate) fn show_whoami(&self, client: ClientKey) -> OpReply {
        let rights = self.rights_of(client);
        let id = self.sessions.client(client).id;
        let peer = self.sessions.peer(client);
        let by = match (&peer.token, peer.is_owner) {
            (Some(token), _) => format!("token {token}"),
            (None, true) => "the broker's own user or root".to_owned(),
            (None, false) => "no token".to_owned(),
        };
        let line = format!("client {id} at {}, by {by}: {rights}", from(peer));
        let fields = vec![
            ("client", Value::Number(id.0.into())),
            ("address", text(&peer.address)),
            ("uid", peer.uid.map_or(Value::None, |uid| Value::Number(uid.into()))),
            ("token", peer.token.as_ref().map_or(Value::None, text)),
            ("roles", Value::Texts(rights.roles())),
        ];
        OpReply::line("whoami", line, fields)
    }

    /// Puts new tokens in force, or keeps the old ones if the file could not be read; records it
    /// and answers the operator who asked. Peers whose token is gone, was renewed, or lacks a right
    /// that they use are closed.
    pub(crate) fn on_tokens(
        &mut self,
        requester: Requester,
        tokens: Result<Box<Tokens>, String>,
        out: Out<'_>,
    ) {
        let (client, about) = self.asked_by(requester);
        let answer = match tokens {
            Err(why) => {
                let line = match self.sessions.has_tokens() {
                    true => format!("{why}; the tokens in force stay"),
                    false => why,
                };
                self.record(FactKind::TokensFailed, about, line.clone(), out);
                Err(refused(line))
            }
            Ok(tokens) => {
                let line = format!("{} in {}", counted(tokens.tokens.len(), "token"), tokens.file);
                let fields = vec![("tokens", Value::Number(tokens.tokens.len() as i128))];
                self.record(FactKind::TokensRead, about, line.clone(), out);
                self.change_tokens(*tokens, out);
                Ok(OpReply::line("reload", line, fields))
            }
        };
        let answer = match self.certificates.take_if(|(of, _)| *of == requester) {
            Some((_, certificates)) => certificates.join(Some(answer)),
            None => answer.map(|reply| reply.complete(Command::Reload)),
        };
        if let (Some((link, head)), Some(client)) = (requester, client)
            && self.sessions.end(link).is_some()
        {
            self.answer(client, &head, answer, out);
        }
    }

    fn change_tokens(&mut self, tokens: Tokens, out: Out<'_>) {
        let old = self.sessions.change_tokens(tokens);
        let links: Vec<LinkId> = self.sessions.connections().map(|(link, _)| link).collect();
        for link in links {
            let Some(end) = self.sessions.end(link) else { continue };
            let (service, is_worker) = match end {
                End::Client(key) => (self.dispatch.caller(key).service, false),
                End::Worker(key) if self.supervision.worker(key).is_self_started => {
                    (self.supervision.worker(key).service, true)
                }
                End::Worker(_) | End::Free | End::NewClient | End::NewWorker | End::Host(_) => {
                    continue;
                }
            };
            let service = (&self.catalog[service].name, is_worker);
            let Some(error) = self.sessions.shut_out(&old, link, service) else { continue };
            match end {
                End::Client(key) => self.send_away(key, &error, out),
                End::Worker(_) | End::Free | End::NewClient | End::NewWorker | End::Host(_) => {
                    self.refuse_link(link, error, out);
                }
            }
        }
    }
}
