//! Rights: which peer may log in to which service, and which peers that are logged in must leave
//! when the tokens change. `login` decides when a proof of a token is checked, the reactor checks
//! it.

use super::peer_name::from;
use crate::engine::input::{Peer, Tokens};
use protocol::limits::BUS_SERVICE;
use protocol::login_failures::LoginFailures;
use protocol::{ErrorBody, ErrorCode, Rights, ServiceName, TokenName};

/// The tokens in force, and the sets of rights that do not come from a token.
#[derive(Debug)]
pub(crate) struct Access {
    /// `None` = this broker has no tokens: every peer may be a client, and only the owner an
    /// operator.
    pub(super) tokens: Option<Tokens>,
    owner: Rights,
    open: Rights,
    nothing: Rights,
    /// Failed logins of each token and peer group, which slow down further ones.
    pub(super) login_failures: LoginFailures,
    /// The same for the secrets of starts, by the number of the worker. They are counted apart, so
    /// that whoever guesses them slows down no token.
    pub(super) secret_failures: LoginFailures,
}

impl Default for Access {
    fn default() -> Self {
        Self {
            tokens: None,
            owner: Rights::all(),
            open: Rights::without_tokens(),
            nothing: Rights::default(),
            login_failures: LoginFailures::default(),
            secret_failures: LoginFailures::default(),
        }
    }
}

impl Access {
    /// The rights of a peer. A token, or the secret of a worker's start, counts before the user: a
    /// peer that proves one wants its rights.
    pub(crate) fn rights_of<'a>(&'a self, peer: &'a Peer) -> &'a Rights {
        if let Some(start) = &peer.start {
            return &start.rights;
        }
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

    /// The rights of everybody, as long as there are no tokens.
    pub(crate) const fn open(&self) -> &Rights {
        &self.open
    }

    /// Whether a peer may log in to a service as a client; if not, the error says what it lacks.
    pub(crate) fn may_ask(&self, peer: &Peer, service: &ServiceName) -> Result<(), ErrorBody> {
        let rights = self.rights_of(peer);
        let is_allowed = if service.is_op() {
            rights.operator.is_some()
        } else if service.as_str() == BUS_SERVICE {
            // What it may do there, its rights say again for each topic.
            !rights.is_empty()
        } else {
            rights.client.has(service)
        };
        if is_allowed {
            return Ok(());
        }
        let role =
            if service.is_op() { "operator:…".into() } else { format!("client:{service}") };
        if let Some(start) = &peer.start {
            return Err(denied(format!(
                "{start} may not ask service '{service}': the roles of its start are {rights}, and \
                 {role} is needed (setting rights)"
            )));
        }
        Err(match (&peer.token, &self.tokens) {
            (Some(token), _) => denied(format!(
                "token '{token}' may not ask service '{service}': its roles are {rights}, and \
                     {role} is needed"
            )),
            (None, Some(_)) => needs_token(format!(
                "service '{service}' is for holders of a token, not for {}",
                from(peer)
            )),
            (None, None) => {
                denied(format!("service 'op' is for the broker's own user, not for {}", from(peer)))
            }
        })
    }

    /// Whether a peer may serve a service as a worker that started itself.
    pub(crate) fn may_serve(&self, peer: &Peer, service: &ServiceName) -> Result<(), ErrorBody> {
        let rights = self.rights_of(peer);
        if rights.worker.has(service) || self.tokens.is_none() && peer.token.is_none() {
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
                from(peer)
            )),
        })
    }

    /// Puts other tokens in force. Returns those that were.
    pub(super) fn change(&mut self, tokens: Tokens) -> Self {
        Self { tokens: self.tokens.replace(tokens), ..Self::default() }
    }

    /// Whether the peer of a service that was admitted by `old` must leave: its token is gone, was
    /// renewed, or lacks a right that it uses. `is_worker`: it answers for the service.
    pub(super) fn shut_out(
        &self,
        old: &Self,
        peer: &Peer,
        (service, is_worker): (&ServiceName, bool),
    ) -> Option<ErrorBody> {
        let stamp = |access: &Self, token: &TokenName| {
            access.tokens.as_ref()?.tokens.get(token).map(|token| token.stamp)
        };
        if let Some(token) = &peer.token
            && stamp(old, token) != stamp(self, token)
        {
            let what = if stamp(self, token).is_some() { "renewed" } else { "removed" };
            let text = format!("token '{token}' was {what}");
            return Some(ErrorBody::new(ErrorCode::BadToken, text));
        }
        if old.rights_of(peer) == self.rights_of(peer) {
            return None;
        }
        let stays =
            if is_worker { self.may_serve(peer, service) } else { self.may_ask(peer, service) };
        stays.err()
    }
}

fn denied(text: String) -> ErrorBody {
    ErrorBody::new(ErrorCode::Denied, text)
}

fn needs_token(text: String) -> ErrorBody {
    ErrorBody::new(ErrorCode::NeedsToken, text)
}
