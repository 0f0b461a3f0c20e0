//! How a client logs in. Not the logging in itself.

use crate::token::Token;
use crate::trust::Trust;
use protocol::bodies::{Format, Login};
use protocol::limits::PRIORITY_DEFAULT;
use protocol::names::ServiceName;
use protocol::proof::Claim;
use std::fmt;
use std::time::Duration;

/// How to log in.
#[derive(Clone)]
pub struct Options {
    /// The service that is asked.
    pub service: ServiceName,
    /// Priority, 1 to 255, lower is served first.
    pub priority: u8,
    /// For the service `op`: how it answers.
    pub format: Format,
    /// What this client calls itself, for the operator's lists.
    pub name: Option<String>,
    /// Its token, where the broker wants one ([`Token::from_environment`]). Whoever brings one
    /// trusts no broker that does not know it, too.
    pub token: Option<Token>,
    /// The files for `tls://` addresses; `None` = the environment names them ([`Trust::from_env`]).
    pub trust: Option<Trust>,
    /// A promise to be in [`Caller::recv`](super::Caller::recv) or
    /// [`Caller::call`](super::Caller::call) nearly always, so that the broker may take silence for
    /// an end. Answers to pings are sent from there only.
    pub heartbeat: bool,
    /// How long to try each address, and with `reconnect` how long to try again in all when the
    /// request has no deadline.
    pub connect_timeout: Duration,
    /// After the connection broke, the next request logs in again. A request that was under way is
    /// asked again by [`Caller::call_with`](super::Caller::call_with) only if it is idempotent or
    /// never left whole.
    pub reconnect: bool,
    /// Most bytes of an answer that [`Caller::call`](super::Caller::call) collects, and of answers
    /// that wait for [`Caller::recv`](super::Caller::recv) while others are sent.
    pub reply_bytes_max: usize,
}

impl Options {
    /// The usual options for a service.
    pub fn new(service: ServiceName) -> Self {
        Self {
            service,
            priority: PRIORITY_DEFAULT,
            format: Format::Text,
            name: None,
            token: None,
            trust: None,
            heartbeat: false,
            connect_timeout: Duration::from_secs(5),
            reconnect: false,
            reply_bytes_max: 64 << 20,
        }
    }

    /// The login, with the token it will prove.
    pub(super) fn login(&self, token: Option<Claim>) -> Login {
        Login {
            service: self.service.clone(),
            priority: self.priority,
            loghost: hostname(),
            hostpid: std::process::id(),
            name: self.name.clone(),
            token,
            format: self.format,
            heartbeat: self.heartbeat,
        }
    }
}

impl fmt::Debug for Options {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Options")
            .field("service", &self.service)
            .field("priority", &self.priority)
            .field("name", &self.name)
            .field("token", &self.token)
            .field("heartbeat", &self.heartbeat)
            .field("connect_timeout", &self.connect_timeout)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}

/// The name of this machine; empty if it can't be told.
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}
