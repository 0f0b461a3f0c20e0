//! The options of a connection to the bus.

use crate::caller;
use crate::start_secret::StartSecret;
use crate::token::Token;
use crate::topics::Room;
use crate::trust::Trust;
use protocol::ServiceName;
use protocol::limits::BUS_SERVICE;
use std::time::Duration;

/// How a program logs in to publish, to subscribe and to announce.
#[derive(Clone, Debug)]
pub struct Options {
    /// A name for the operator's lists.
    pub name: Option<String>,
    /// The token, if the broker wants one ([`Token::from_environment`]). A program with a token
    /// trusts only a broker that proves that it knows the token, too.
    pub token: Option<Token>,
    /// The secret of a worker's start, for a program that is part of a worker, in place of a token.
    pub start: Option<StartSecret>,
    /// The files for `tls://` addresses; `None` = the environment names them ([`Trust::from_env`]).
    pub trust: Option<Trust>,
    /// A promise to be in a call of the bus nearly always, so that the broker may take silence for
    /// the end of this program. For a program that only publishes now and then say `false`: it
    /// answers no pings between its calls.
    pub heartbeat: bool,
    /// Whether to log in again after the connection broke: subscriptions go on after their last
    /// message, and instances are announced again. Nothing is published again.
    pub reconnect: bool,
    /// Longest time to try each address.
    pub connect_timeout: Duration,
    /// Longest time to wait for the broker's answer, and until it takes what is sent.
    pub answer_timeout: Duration,
    /// Most messages of one subscription that wait at this side for the program. Past it the oldest
    /// is dropped, and the next one says how many were.
    pub queue_max: usize,
    /// Most bytes of these.
    pub queue_bytes_max: usize,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            name: None,
            token: None,
            start: None,
            trust: None,
            heartbeat: true,
            reconnect: true,
            connect_timeout: Duration::from_secs(5),
            answer_timeout: Duration::from_secs(10),
            queue_max: 100_000,
            queue_bytes_max: 64 << 20,
        }
    }
}

impl Options {
    pub(super) fn room(&self) -> Room {
        Room { messages_max: self.queue_max.max(1), bytes_max: self.queue_bytes_max }
    }

    /// The options of the login.
    pub(super) fn login(&self) -> caller::Options {
        let service =
            ServiceName::new(BUS_SERVICE).expect("'bus' is spelled as a service's name must be");
        caller::Options {
            name: self.name.clone(),
            token: self.token.clone(),
            start: self.start.clone(),
            trust: self.trust.clone(),
            heartbeat: self.heartbeat,
            connect_timeout: self.connect_timeout,
            ..caller::Options::new(service)
        }
    }
}
