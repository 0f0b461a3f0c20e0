//! Brokers without workers, for what is published: those of the peers that know topics.

use super::external::{self, External};
use super::{Isect, IsectOptions, Setup};
use crate::proc::Process;
use crate::protocols::topics::{self, TopicProtocol};
use crate::sock::Endpoint;
use std::fmt;
use tempfile::TempDir;

/// A peer that publishes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Hub {
    /// isectd, all on TCP.
    Isect,
    /// isectd, all on its Unix socket.
    IsectUnix,
    /// nats-server.
    Nats,
    /// redis-server, its publish and subscribe.
    Redis,
}

impl fmt::Display for Hub {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Isect => "isect",
            Self::IsectUnix => "isect-unix",
            Self::Nats => "nats",
            Self::Redis => "redis",
        })
    }
}

/// A broker that runs.
pub struct Alone {
    /// Its process.
    pub process: Process,
    /// Where it is reached.
    pub endpoint: Endpoint,
    _dir: TempDir,
}

impl From<External> for Alone {
    fn from(external: External) -> Self {
        let External { process, at, dir } = external;
        Self { process, endpoint: Endpoint::Tcp(at), _dir: dir }
    }
}

impl Hub {
    /// Whether it is isectd.
    pub const fn is_isect(self) -> bool {
        matches!(self, Self::Isect | Self::IsectUnix)
    }

    /// Why it can't be measured here; `None` = it can.
    pub fn missing(self) -> Option<String> {
        match self {
            Self::Isect | Self::IsectUnix => None,
            Self::Nats => external::missing("nats-server", "nats-server"),
            Self::Redis => external::missing("redis-server", "redis-server"),
        }
    }

    /// Starts it.
    ///
    /// # Errors
    /// It can't be started or is not ready in time.
    pub fn start(self, setup: &Setup) -> Result<Alone, String> {
        match self {
            Self::Nats => external::nats_alone(setup).map(Alone::from),
            Self::Redis => external::redis_alone(setup).map(Alone::from),
            Self::Isect | Self::IsectUnix => {
                let options = IsectOptions {
                    program: setup.bin_dir.join("isectd"),
                    workers_unix: true,
                    clients_unix: self == Self::IsectUnix,
                    clients_tls: false,
                    prefetch: 0,
                    concurrency: 1,
                };
                let isect = Isect::start(setup, &options)?;
                let name = if options.clients_unix { "client_unix" } else { "client" };
                let endpoint = isect.endpoint(name)?;
                let Isect { process, dir, .. } = isect;
                Ok(Alone { process, endpoint, _dir: dir })
            }
        }
    }

    /// An end of a connection to it.
    pub fn protocol(self) -> Box<dyn TopicProtocol> {
        match self {
            Self::Isect | Self::IsectUnix => Box::<topics::Isect>::default(),
            Self::Nats => Box::<topics::Nats>::default(),
            Self::Redis => Box::<topics::Redis>::default(),
        }
    }
}
