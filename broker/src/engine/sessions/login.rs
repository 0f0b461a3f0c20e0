//! Logins: a program that connects logs in as a client or a worker, after it has proved its token
//! if it names one. `access` has who may.

use super::clients::Client;
use super::connection::End;
use super::machine::Sessions;
use super::pending::{LoginBody, PendingLogin};
use super::phase::{Phase, PhaseEvent};
use super::silence::limits_to_announce;
use crate::engine::action::Action;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::fact::{About, FactKind};
use crate::engine::input::{Peer, StartRights};
use crate::engine::keys::{ClientKey, ServiceKey};
use crate::engine::quotas::Class;
use crate::engine::silence_limits::silence_ms;
use crate::engine::timers::Timer;
use protocol::bodies::LoginOk;
use protocol::login_failures::{CHECKS_MAX, Check, FAILURES_MAX, Failure};
use protocol::{
    Claim, ClientId, ErrorBody, ErrorCode, Frame, LinkId, Login, Proof, ServiceSetting, Setting,
    TokenName,
};

/// A client that was let in.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Admitted {
    pub(crate) client: ClientKey,
    pub(crate) id: ClientId,
    pub(crate) service: ServiceKey,
    pub(crate) priority: u8,
    /// How many requests it may have under way, as announced to it.
    pub(crate) requests_max: u64,
    /// It promised to answer pings.
    pub(crate) has_heartbeat: bool,
}

fn refuse(link: LinkId, code: ErrorCode, text: impl Into<String>, cx: &mut Context<'_>) {
    cx.effects.push(Effect::Refuse { link, error: ErrorBody::new(code, text) });
}

impl Sessions {
    /// Whether a login of this kind of `end` may come now on this link; if not, it is refused.
    pub(crate) fn is_new(&self, link: LinkId, end: End, cx: &mut Context<'_>) -> bool {
        let Some(connection) = self.links.get(link) else { return false };
        let text = match (connection.end == end, connection.phase) {
            (true, Phase::New) => return true,
            (true, _) => "this connection was challenged; a proof must come next",
            (false, _) => "this connection has logged in already",
        };
        refuse(link, ErrorCode::BadState, text, cx);
        false
    }

    /// Keeps a login that names a token, and has its peer challenged. A broker without tokens
    /// refuses it.
    pub(crate) fn challenge(
        &mut self,
        link: LinkId,
        claim: Claim,
        pending: PendingLogin,
        cx: &mut Context<'_>,
    ) {
        if self.access.tokens.is_none() {
            let text = "this broker has no tokens; log in without one";
            refuse(link, ErrorCode::BadToken, text, cx);
            return;
        }
        let (role, target) = pending.role();
        if let Some(connection) = self.links.get_mut(link) {
            connection.enter(PhaseEvent::Challenge);
            connection.pending = Some(Box::new(pending));
        }
        cx.out.push(Action::Challenge { link, role, target, claim });
    }

    /// As `Effect::Refuse`, but without a fact of its own: a fact about such logins was recorded,
    /// and this one is counted as left out.
    pub(super) fn refuse_quietly(link: LinkId, error: ErrorBody, cx: &mut Context<'_>) {
        cx.left_out(Class::PreLogin, Some(link));
        cx.out.push(Action::Send { link, frame: Frame::refusal(error) });
        cx.effects.push(Effect::CloseLink { link });
    }

    /// A client or worker answers a challenge: its proof is checked now, later, or never if too
    /// many wait.
    pub(crate) fn on_proof(&mut self, link: LinkId, proof: Box<Proof>, cx: &mut Context<'_>) {
        let Some(connection) = self.links.get_mut(link) else { return };
        let is_due = connection.phase == Phase::Challenged;
        let Some(pending) = connection.pending.as_mut().filter(|_| is_due) else {
            refuse(
                link,
                ErrorCode::BadState,
                "a proof answers a challenge, and there was none",
                cx,
            );
            return;
        };
        let check = match &pending.token {
            Some(token) => self.access.login_failures.ask(token, connection.peer.group, cx.now),
            None => Check::Now,
        };
        match check {
            Check::Now => {
                connection.enter(PhaseEvent::Check);
                cx.out.push(Action::Verify { link, proof });
            }
            Check::At(at) => {
                pending.proof = Some(proof);
                connection.enter(PhaseEvent::Defer);
                cx.timers.add(at, Timer::Proof(link));
            }
            Check::Refuse => {
                let text = format!(
                    "logins with this token failed here too often, and {CHECKS_MAX} are being \
                     checked one after the other already"
                );
                let error = ErrorBody::new(ErrorCode::LoginLimited, text);
                Self::refuse_quietly(link, error, cx);
            }
        }
    }

    /// `Timer::Proof`: it is the turn of a proof that had to wait.
    pub(crate) fn on_proof_due(&mut self, link: LinkId, cx: &mut Context<'_>) {
        let Some(connection) = self.links.get_mut(link) else { return };
        if let Some(proof) = connection.pending.as_mut().and_then(|pending| pending.proof.take()) {
            connection.enter(PhaseEvent::Check);
            cx.out.push(Action::Verify { link, proof });
        }
    }

    /// A proof was checked. Returns the login that it lets in, with the answer to the proof.
    pub(crate) fn on_proven(
        &mut self,
        link: LinkId,
        proven: Result<String, String>,
        cx: &mut Context<'_>,
    ) -> Option<(LoginBody, String)> {
        let connection = self.links.get_mut(link)?;
        // Whatever the reactor says, nobody is let in by a proof that is not being checked. It says
        // no before that if it can't make a challenge.
        if proven.is_ok() && connection.phase != Phase::Checking {
            return None;
        }
        let PendingLogin { what, token, .. } = *connection.pending.take()?;
        match proven {
            Ok(signature) => {
                connection.peer.token = token;
                Some((what, signature))
            }
            Err(why) => {
                self.refuse_proof(link, token.as_ref(), why, cx);
                None
            }
        }
    }

    /// Refuses a login whose token was not proved, and counts that for its token and peer group.
    /// `why` is for the fact: the peer is not told whether the token exists.
    fn refuse_proof(
        &mut self,
        link: LinkId,
        token: Option<&TokenName>,
        why: String,
        cx: &mut Context<'_>,
    ) {
        let Some(connection) = self.links.get(link) else { return };
        let name = token.map_or("", TokenName::as_str);
        let failure = match token {
            Some(token) => self.access.login_failures.failed(token, connection.peer.group, cx.now),
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
                cx.effects.push(Effect::RefuseLogin { link, error, detail: why });
            }
            Failure::FirstBeyond => {
                let error = limited(text);
                cx.effects.push(Effect::RefuseLogin { link, error, detail: why });
            }
            Failure::Beyond => Self::refuse_quietly(link, limited(text), cx),
        }
    }

    /// `Timer::Login`: refuses a connection without a login.
    pub(crate) fn on_login_due(&self, link: LinkId, cx: &mut Context<'_>) {
        let Some(connection) = self.links.get(link) else { return };
        // A peer whose proof waits to be checked has done its part.
        let is_late = !matches!(connection.phase, Phase::LoggedIn | Phase::Closed);
        if is_late && !connection.phase.is_proof_there() {
            let wait = cx.settings.get(Setting::LoginMs);
            let text = format!("no login came within {wait} ms (login_ms)");
            refuse(link, ErrorCode::LoginTimeout, text, cx);
        }
    }

    /// Lets a client in if it may use the service that it names; otherwise refuses it. `signature`
    /// answers the proof of its token, if it proved one.
    pub(crate) fn admit_client(
        &mut self,
        link: LinkId,
        login: Login,
        signature: Option<String>,
        cx: &mut Context<'_>,
    ) -> Option<Admitted> {
        let connection = self.links.get(link)?;
        let service = match self.may_log_in(link, &login, cx) {
            Ok(service) => service,
            Err(error) => {
                cx.effects.push(Effect::Refuse { link, error });
                return None;
            }
        };
        let is_builtin = connection.peer.start.as_ref().is_some_and(|it| it.worker.is_builtin());
        let text = introduction(self.clients.coming_id(is_builtin), &login, &connection.peer);
        let (priority, name) = (login.priority, login.service.clone());
        let (has_heartbeat, half_closes) = (login.heartbeat, login.half_close);
        let (client, id) = self.clients.add(Client::new(link, login, cx.now), is_builtin);
        self.log_in(link, End::Client(client), cx);
        let requests_max = cx.settings.get(Setting::RequestsMax);
        let ok = LoginOk {
            client: id,
            body_bytes_max: cx.settings.get(Setting::BodyBytesMax),
            requests_max,
            deadline_ms: cx.catalog[service].settings.get(ServiceSetting::DeadlineMs),
            heartbeat_ms: cx.settings.get(Setting::HeartbeatMs),
            silence_ms: silence_ms(cx.settings),
            version: cx.listening.version.clone(),
            signature,
        };
        cx.out.push(Action::Send { link, frame: Frame::LoginOk(ok) });
        // A command may take long; who closes its side in the middle of one is taken for gone.
        if half_closes && service != cx.catalog.op() {
            cx.out.push(Action::AllowHalfClose { link });
        }
        if service == cx.catalog.op() || cx.may_cause(Class::LoggedInDebug, Some(link)) {
            let about = About { client: Some(id), service: Some(name), ..About::default() };
            cx.record(FactKind::ClientIn, about, text);
        }
        Some(Admitted { client, id, service, priority, requests_max, has_heartbeat })
    }

    /// A connection is a client or a worker from now on, and was told what holds for it.
    pub(crate) fn log_in(&mut self, link: LinkId, end: End, cx: &mut Context<'_>) {
        self.links.announce(link, limits_to_announce(cx.settings));
        if let Some(connection) = self.links.get_mut(link) {
            connection.enter(PhaseEvent::Admit);
            connection.end = end;
        }
    }

    /// The service that a login names.
    ///
    /// # Errors
    /// The peer may not use it, it does not exist, or `reject` is on.
    fn may_log_in(
        &self,
        link: LinkId,
        login: &Login,
        cx: &Context<'_>,
    ) -> Result<ServiceKey, ErrorBody> {
        // Rights first: a peer without them is not told which services exist.
        if let Some(connection) = self.links.get(link) {
            self.access.may_ask(&connection.peer, &login.service)?;
        }
        let name = login.service.as_str();
        let Some(service) = cx.catalog.of_login(name) else {
            return Err(ErrorBody::new(ErrorCode::UnknownService, cx.catalog.unknown(name)));
        };
        if self.is_turning_away && !login.service.is_op() {
            let text = "the broker is shutting down";
            return Err(ErrorBody::new(ErrorCode::ShuttingDown, text));
        }
        let is_builtin = |start: &StartRights| start.worker.is_builtin();
        let start = self.links.get(link).and_then(|connection| connection.peer.start.as_deref());
        if self.is_rejecting && !login.service.is_op() && !start.is_some_and(is_builtin) {
            let text = "the operator lets no new clients in for now ('reject off' ends it)";
            return Err(ErrorBody::new(ErrorCode::Rejecting, text));
        }
        if cx.catalog[service].is_program() {
            let text = cx.catalog[service].program_text();
            return Err(ErrorBody::new(ErrorCode::NotAService, text));
        }
        Ok(service)
    }

    /// Removes a client whose link is gone. `service` is the one that it was attached to.
    pub(crate) fn client_gone(
        &mut self,
        key: ClientKey,
        (service, why): (ServiceKey, &str),
        cx: &mut Context<'_>,
    ) {
        let client = self.clients.remove(key);
        cx.facts.unwatch(client.id);
        if service != cx.catalog.op() && !cx.may_cause(Class::LoggedInDebug, None) {
            return;
        }
        let about = About {
            client: Some(client.id),
            service: Some(cx.catalog[service].name.clone()),
            ..About::default()
        };
        let text = format!("client {} ({}): {why}", client.id, client.loghost);
        cx.record(FactKind::ClientOut, about, text);
    }
}

/// The text of the fact about a new client.
fn introduction(id: ClientId, login: &Login, peer: &Peer) -> String {
    let Login { priority, hostpid, loghost, service, .. } = login;
    let mut text = format!(
        "client: priority={priority}, hostpid={hostpid}, id={id}, loghost={loghost}, \
         service={service}"
    );
    if let Some(token) = &peer.token {
        text += &format!(", token={token}");
    }
    if let Some(start) = &peer.start {
        text += &format!(", {start}");
    }
    text
}
