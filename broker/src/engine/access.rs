//! Rights: which peer may log in to which service, what an operator may do, and what a change of
//! the tokens means for peers that are logged in. The reactor makes challenges and checks proofs of
//! tokens; this file decides when, and what follows from the result.

use super::action::Action;
use super::clients;
use super::due::Due;
use super::fact::{About, FactKind};
use super::input::{Peer, Requester, Tokens};
use super::keys::ClientKey;
use super::links::End;
use super::op_read::{counted, text};
use super::op_run::{OpResult, refused};
use super::quotas::Class;
use super::{Engine, Out};
use protocol::bodies::{ErrorBody, Login, WorkerLogin};
use protocol::errors::ErrorCode;
use protocol::ids::LinkId;
use protocol::kinds::Role;
use protocol::login_failures::{CHECKS_MAX, Check, FAILURES_MAX, Failure, LoginFailures};
use protocol::names::{ServiceName, TokenName};
use protocol::op::parse::OpError;
use protocol::op::reply::{OpReply, Value};
use protocol::op::spec::{Command, OpRequest};
use protocol::proof::{Claim, Proof};
use protocol::rights::Rights;

/// A login that named a token and waits for its proof.
#[derive(Debug)]
pub(crate) struct PendingLogin {
    what: LoginBody,
    token: Option<TokenName>,
    /// The proof came, and is being checked or waits to be.
    pub(crate) is_checked: bool,
    /// The proof, while its check has to wait; `Due::Proof` gives it to the reactor.
    proof: Option<Box<Proof>>,
}

/// The login itself, which goes on when the token is proved.
#[derive(Debug)]
enum LoginBody {
    Client(Login),
    Worker(WorkerLogin),
}

impl PendingLogin {
    /// The login of a client.
    pub(crate) fn client(login: Login) -> Self {
        let token = login.token.as_ref().map(|claim| claim.token.clone());
        Self { what: LoginBody::Client(login), token, is_checked: false, proof: None }
    }

    /// The login of a worker that started itself.
    pub(crate) fn worker(login: WorkerLogin) -> Self {
        let token = login.token.as_ref().map(|claim| claim.token.clone());
        Self { what: LoginBody::Worker(login), token, is_checked: false, proof: None }
    }

    fn role(&self) -> (Role, ServiceName) {
        match &self.what {
            LoginBody::Client(login) => (Role::Client, login.service.clone()),
            LoginBody::Worker(login) => (Role::Worker, login.service.clone()),
        }
    }
}

/// The tokens in force, and the sets of rights that do not come from a token.
#[derive(Debug)]
pub(crate) struct Access {
    /// `None` = this broker has no tokens: every peer may be a client, and only the owner an
    /// operator.
    tokens: Option<Tokens>,
    /// Rights of the broker's own user and root.
    owner: Rights,
    /// Rights of all others, if there are no tokens.
    open: Rights,
    /// Rights of a peer whose token is gone.
    nothing: Rights,
    /// Failed logins of each token and peer group, which slow down further ones.
    login_failures: LoginFailures,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            tokens: None,
            owner: Rights::all(),
            open: Rights::without_tokens(),
            nothing: Rights::default(),
            login_failures: LoginFailures::default(),
        }
    }
}

impl Access {
    /// The rights of a peer. A token counts before the user: a peer that proves one wants its
    /// rights.
    fn rights_of(&self, peer: &Peer) -> &Rights {
        match (&peer.token, &self.tokens) {
            (Some(token), Some(tokens)) => {
                tokens.tokens.get(token).map_or(&self.nothing, |token| &token.rights)
            }
            (Some(_), None) => &self.nothing,
            (None, _) if peer.is_owner => &self.owner,
            (None, Some(tokens)) => &tokens.anonymous,
            (None, None) => &self.open,
        }
    }
}

impl Engine {
    /// The rights of a peer.
    pub(crate) fn rights_of(&self, peer: &Peer) -> &Rights {
        self.access.rights_of(peer)
    }

    /// Whether a login of this kind of `end` may come now on this link; if not, it is refused.
    pub(crate) fn is_new(&mut self, link: LinkId, end: &End, out: Out<'_>) -> bool {
        let Some(slot) = self.links.get(link) else { return false };
        let text = match (slot.end == *end, &slot.pending) {
            (true, None) => return true,
            (true, Some(_)) => "this connection was challenged; a proof must come next",
            (false, _) => "this connection has logged in already",
        };
        self.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text), out);
        false
    }

    /// Keeps a login that names a token, and has its peer challenged. A broker without tokens
    /// refuses it.
    pub(crate) fn challenge(
        &mut self,
        link: LinkId,
        claim: Claim,
        pending: PendingLogin,
        out: Out<'_>,
    ) {
        if self.access.tokens.is_none() {
            let text = "this broker has no tokens; log in without one";
            self.refuse_link(link, ErrorBody::new(ErrorCode::BadToken, text), out);
            return;
        }
        let (role, target) = pending.role();
        if let Some(slot) = self.links.get_mut(link) {
            slot.pending = Some(Box::new(pending));
        }
        out.push(Action::Challenge { link, role, target, claim });
    }

    /// As `refuse_link`, but without a fact of its own: a fact about such logins was recorded, and
    /// this one is counted as left out.
    fn refuse_quietly(&mut self, link: LinkId, error: ErrorBody, out: Out<'_>) {
        self.left_out(Class::PreLogin, Some(link));
        out.push(Action::Send { link, frame: protocol::frame::Frame::refusal(error) });
        self.close_link(link, out);
    }

    /// Has a proof checked: now, or later if logins with this token failed too often; refuses it if
    /// too many wait already.
    pub(crate) fn on_proof(&mut self, link: LinkId, proof: Box<Proof>, out: Out<'_>) {
        let Some(slot) = self.links.get_mut(link) else { return };
        let Some(pending) = slot.pending.as_mut().filter(|pending| !pending.is_checked) else {
            let text = "a proof answers a challenge, and there was none";
            self.refuse_link(link, ErrorBody::new(ErrorCode::BadState, text), out);
            return;
        };
        pending.is_checked = true;
        let check = match &pending.token {
            Some(token) => self.access.login_failures.ask(token, slot.peer.group, self.now),
            None => Check::Now,
        };
        match check {
            Check::Now => out.push(Action::Verify { link, proof }),
            Check::At(at) => {
                pending.proof = Some(proof);
                self.due.add(at, Due::Proof(link));
            }
            Check::Refuse => {
                let text = format!(
                    "logins with this token failed here too often, and {CHECKS_MAX} are being \
                     checked one after the other already"
                );
                let error = ErrorBody::new(ErrorCode::LoginLimited, text);
                self.refuse_quietly(link, error, out);
            }
        }
    }

    /// `Due::Proof`: it is the turn of a proof that had to wait.
    pub(crate) fn on_proof_due(&mut self, link: LinkId, out: Out<'_>) {
        let Some(slot) = self.links.get_mut(link) else { return };
        if let Some(proof) = slot.pending.as_mut().and_then(|pending| pending.proof.take()) {
            out.push(Action::Verify { link, proof });
        }
    }

    /// Refuses a login whose token was not proved, and counts that for its token and peer group.
    /// `why` is for the fact: the peer is not told whether the token exists.
    fn refuse_proof(&mut self, link: LinkId, token: Option<&TokenName>, why: &str, out: Out<'_>) {
        let Some(slot) = self.links.get(link) else { return };
        let name = token.map_or("", TokenName::as_str);
        let failure = match token {
            Some(token) => self.access.login_failures.failed(token, slot.peer.group, self.now),
            None => Failure::Counted,
        };
        let text = format!("token '{name}' is not known here, or was not proved");
        let limited = |text: String| {
            let text = format!(
                "{text}; more than {FAILURES_MAX} logins with it failed from here, so that further \
                 ones are checked one after the other"
            );
            ErrorBody::new(ErrorCode::LoginLimited, text)
        };
        match failure {
            Failure::Counted => {
                let error = ErrorBody::new(ErrorCode::BadToken, text);
                self.refuse_because(link, error, Some(why), out);
            }
            Failure::FirstBeyond => self.refuse_because(link, limited(text), Some(why), out),
            Failure::Beyond => self.refuse_quietly(link, limited(text), out),
        }
    }

    /// Goes on with a login whose proof was checked.
    pub(crate) fn on_proven(&mut self, link: LinkId, proven: Result<String, String>, out: Out<'_>) {
        let Some(slot) = self.links.get_mut(link) else { return };
        let Some(PendingLogin { what, token, .. }) = slot.pending.take().map(|pending| *pending)
        else {
            return;
        };
        match (proven, what) {
            (Ok(signature), what) => {
                slot.peer.token = token;
                match what {
                    LoginBody::Client(login) => {
                        self.admit_client(link, login, Some(signature), out);
                    }
                    LoginBody::Worker(login) => {
                        self.admit_self_started(link, &login, Some(signature), out);
                    }
                }
            }
            (Err(why), _) => self.refuse_proof(link, token.as_ref(), &why, out),
        }
    }

    /// Whether a peer may log in to a service as a client; if not, the error says what it lacks.
    pub(crate) fn may_ask(&self, peer: &Peer, service: &ServiceName) -> Result<(), ErrorBody> {
        let rights = self.rights_of(peer);
        let is_allowed =
            if service.is_op() { rights.operator.is_some() } else { rights.client.has(service) };
        if is_allowed {
            return Ok(());
        }
        Err(match (&peer.token, &self.access.tokens) {
            (Some(token), _) => {
                let role = if service.is_op() {
                    "operator:…".into()
                } else {
                    format!("client:{service}")
                };
                denied(format!(
                    "token '{token}' may not ask service '{service}': its roles are {rights}, and \
                     {role} is needed"
                ))
            }
            (None, Some(_)) => needs_token(format!(
                "service '{service}' is for holders of a token, not for {}",
                clients::from(peer)
            )),
            (None, None) => denied(format!(
                "service 'op' is for the broker's own user, not for {}",
                clients::from(peer)
            )),
        })
    }

    /// Whether a peer may serve a service as a worker that started itself.
    pub(crate) fn may_serve(&self, peer: &Peer, service: &ServiceName) -> Result<(), ErrorBody> {
        let rights = self.rights_of(peer);
        if rights.worker.has(service) || self.access.tokens.is_none() && peer.token.is_none() {
            return Ok(());
        }
        Err(match &peer.token {
            Some(token) => denied(format!(
                "token '{token}' may not answer for service '{service}': its roles are {rights}, \
                 and worker:{service} is needed"
            )),
            None => needs_token(format!(
                "this worker showed no secret; a worker of service '{service}' that starts itself \
                 needs a token, {} has none",
                clients::from(peer)
            )),
        })
    }

    /// Refuses a command that needs more rights than its client has, and records the attempt.
    pub(crate) fn not_allowed(
        &mut self,
        client: ClientKey,
        request: &OpRequest,
        out: Out<'_>,
    ) -> OpResult {
        let rights = self.rights_of(&self.clients[client].peer);
        let command = request.command().row().name;
        let needed = request.effect().word();
        let text = format!("'{command}' needs the role operator:{needed}; yours are {rights}");
        let link = self.clients[client].link;
        if self.may_cause(Class::LoggedIn, Some(link)) {
            let about = About { who: Some(Self::who(&self.origin_of(client))), ..About::default() };
            self.record(FactKind::Refused, about, format!("{request}: {text}"), out);
        }
        Err(OpError { code: ErrorCode::Denied, text })
    }

    /// Answers `whoami`: the client's id, address, token and roles.
    pub(crate) fn show_whoami(&self, client: ClientKey) -> OpReply {
        let client = &self.clients[client];
        let rights = self.rights_of(&client.peer);
        let by = match (&client.peer.token, client.peer.is_owner) {
            (Some(token), _) => format!("token {token}"),
            (None, true) => "the broker's own user or root".to_owned(),
            (None, false) => "no token".to_owned(),
        };
        let line =
            format!("client {} at {}, by {by}: {rights}", client.id, clients::from(&client.peer));
        let fields = vec![
            ("client", Value::Number(client.id.0.into())),
            ("address", text(&client.peer.address)),
            ("uid", client.peer.uid.map_or(Value::None, |uid| Value::Number(uid.into()))),
            ("token", client.peer.token.as_ref().map_or(Value::None, text)),
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
                let line = match &self.access.tokens {
                    Some(_) => format!("{why}; the tokens in force stay"),
                    None => why,
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
            && self.links.get(link).is_some()
        {
            self.answer(client, &head, answer, out);
        }
    }

    /// Replaces the tokens and closes the links that may not stay.
    fn change_tokens(&mut self, tokens: Tokens, out: Out<'_>) {
        let old = Access { tokens: self.access.tokens.replace(tokens), ..Access::default() };
        let links: Vec<LinkId> = self.links.iter().map(|(link, _)| link).collect();
        for link in links {
            let Some(slot) = self.links.get(link) else { continue };
            let Some(error) = self.shut_out(&old, &slot.peer, &slot.end) else { continue };
            match slot.end {
                End::Client(key) => self.send_away(key, &error, out),
                End::Worker(_) | End::Free | End::NewClient | End::NewWorker | End::Host(_) => {
                    self.refuse_link(link, error, out);
                }
            }
        }
    }

    /// Why a peer that is logged in must leave after a change of the tokens; `None` = it may stay.
    fn shut_out(&self, old: &Access, peer: &Peer, end: &End) -> Option<ErrorBody> {
        let stamp = |access: &Access, token: &TokenName| {
            access.tokens.as_ref()?.tokens.get(token).map(|token| token.stamp)
        };
        let is_in = match end {
            End::Client(_) => true,
            End::Worker(key) => self.workers[*key].is_self_started,
            End::Free | End::NewClient | End::NewWorker | End::Host(_) => false,
        };
        if !is_in {
            return None;
        }
        if let Some(token) = &peer.token
            && stamp(old, token) != stamp(&self.access, token)
        {
            let what = if stamp(&self.access, token).is_some() { "renewed" } else { "removed" };
            let text = format!("token '{token}' was {what}");
            return Some(ErrorBody::new(ErrorCode::BadToken, text));
        }
        if old.rights_of(peer) == self.rights_of(peer) {
            return None;
        }
        match end {
            End::Client(key) => {
                let service = &self.registry[self.clients[*key].service].name;
                self.may_ask(peer, service).err()
            }
            End::Worker(key) => {
                let service = &self.registry[self.workers[*key].service].name;
                self.may_serve(peer, service).err()
            }
            End::Free | End::NewClient | End::NewWorker | End::Host(_) => None,
        }
    }
}

fn denied(text: String) -> ErrorBody {
    ErrorBody::new(ErrorCode::Denied, text)
}

fn needs_token(text: String) -> ErrorBody {
    ErrorBody::new(ErrorCode::NeedsToken, text)
}
