//! The options of a client's login.

use crate::start_secret::StartSecret;
use crate::token::Token;
use crate::trust::Trust;
use protocol::limits::PRIORITY_DEFAULT;
use protocol::{Claim, Format, Login, ServiceName};
use std::fmt;
use std::time::Duration;

/// How a client logs in.
#[derive(Clone)]
pub struct Options {
    /// The service that requests go to.
    pub service: ServiceName,
    /// Priority of requests that name none, 1 to 255; lower is served first.
    pub priority: u8,
    /// How the service `op` answers; other services ignore it.
    pub format: Format,
    /// A name for the operator's lists.
    pub name: Option<String>,
    /// The token, if the broker wants one ([`Token::from_environment`]). A client with a token
    /// trusts only a broker that proves that it knows the token, too.
    pub token: Option<Token>,
    /// The secret of a worker's start, for a program that is part of a worker, in place of a token.
    pub start: Option<StartSecret>,
    /// The files for `tls://` addresses; `None` = the environment names them ([`Trust::from_env`]).
    pub trust: Option<Trust>,
    /// A promise to be in [`Caller::recv`](super::Caller::recv) or
    /// [`Caller::call`](super::Caller::call) nearly always, so that the broker may take silence for
    /// the end. Pings are answered only there.
    pub heartbeat: bool,
    /// Whether [`Caller::finish_sending`](super::Caller::finish_sending) may be used: the broker
    /// then takes the end of what this client sends for that, and not for the end of the client.
    pub half_close: bool,
    /// Longest time that [`Caller::logout`](super::Caller::logout) waits for requests without an
    /// answer to be taken by a worker.
    pub flush_timeout: Duration,
    /// The commands of this connection to `op` are one script (`docs/config.md`).
    pub script: bool,
    /// Longest time to try each address; with `reconnect` also the longest time in all to log in
    /// again for a request without a deadline.
    pub connect_timeout: Duration,
    /// Whether the next request logs in again after the connection broke.
    /// [`Caller::call_with`](super::Caller::call_with) repeats a request that was under way only if
    /// it is idempotent or was never sent as a whole.
    pub reconnect: bool,
    /// Most bytes of an answer that [`Caller::call`](super::Caller::call) collects, and of all
    /// answers that wait for [`Caller::recv`](super::Caller::recv) while others are sent.
    pub reply_bytes_max: usize,
}

impl Options {
    /// The default options for this service.
    pub fn new(service: ServiceName) -> Self {
        Self {
            service,
            priority: PRIORITY_DEFAULT,
            format: Format::Text,
            name: None,
            token: None,
            start: None,
            trust: None,
            heartbeat: false,
            half_close: false,
            flush_timeout: Duration::from_secs(5),
            script: false,
            connect_timeout: Duration::from_secs(5),
            reconnect: false,
            reply_bytes_max: 64 << 20,
        }
    }

    /// The `login` with these options and this claim.
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
            script: self.script,
            half_close: self.half_close,
            start: self.start.as_ref().map(StartSecret::claim),
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
            .field("start", &self.start)
            .field("heartbeat", &self.heartbeat)
            .field("script", &self.script)
            .field("connect_timeout", &self.connect_timeout)
            .field("reconnect", &self.reconnect)
            .finish_non_exhaustive()
    }
}

/// The name of this machine; empty if the system does not know it.
pub(crate) fn hostname() -> String {
    nix::unistd::gethostname().ok().and_then(|name| name.into_string().ok()).unwrap_or_default()
}
