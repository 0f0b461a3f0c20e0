//! The identity of a worker and the address of its broker: from the arguments that execd gives, or
//! from a self-started program.

use crate::address::Address;
use crate::error::Error;
use crate::token::Token;
use crate::trust::Trust;
use protocol::limits::{ISDARGMAX, WORKER_SECRET_VARIABLE};
use protocol::{Claim, ErrorCode, HostName, ServiceName, WorkerId, WorkerLogin};
use std::fmt;
use std::time::Duration;

/// The identity of a worker and the address of its broker.
#[derive(Clone)]
pub struct WorkerOptions {
    /// The worker port of the broker.
    pub address: Address,
    /// The worker's id; 0 = it started itself and wants one (needs `selfstart=1` on the service).
    pub worker: WorkerId,
    /// The service that it answers for.
    pub service: ServiceName,
    /// The host it runs on; by default this machine's name.
    pub host: HostName,
    /// The secret from `ISECT_WORKER_SECRET`; empty if it started itself.
    pub secret: String,
    /// The token of a self-started worker, if the broker wants one ([`Token::from_environment`]). A
    /// worker with a token trusts only a broker that proves that it knows the token, too.
    pub token: Option<Token>,
    /// The files for a `tls://` address; `None` = the environment names them ([`Trust::from_env`]).
    pub trust: Option<Trust>,
    /// Most requests that a [`ConcurrentWorker`](super::ConcurrentWorker) answers at a time, 1 to
    /// 1024; a [`Worker`](super::Worker) has one, whatever is set here.
    pub concurrency: u32,
    /// Longest time for one attempt to connect and log in.
    pub connect_timeout: Duration,
    /// Longest time for all attempts at the start; zero = one attempt.
    pub start_timeout: Duration,
}

impl WorkerOptions {
    /// Options as the arguments and the environment of this program say; execd gives them to the
    /// programs that it starts. Without a secret in `ISECT_WORKER_SECRET` the program started
    /// itself, and it proves the token that the environment names.
    ///
    /// # Errors
    /// The program was not started as a worker.
    #[expect(clippy::disallowed_methods, reason = "the secret comes by the environment alone")]
    pub fn of_program() -> Result<Self, Error> {
        let secret = std::env::var(WORKER_SECRET_VARIABLE).unwrap_or_default();
        let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
        let mut options = Self::from_args(args, secret)?;
        if options.secret.is_empty() {
            options.token = Token::from_environment()?;
        }
        Ok(options)
    }

    /// Options of a self-started worker, for example in a container or under a debugger.
    pub fn self_started(address: Address, service: ServiceName) -> Self {
        Self {
            address,
            worker: WorkerId(0),
            service,
            host: own_host(),
            secret: String::new(),
            token: None,
            trust: None,
            concurrency: 1,
            connect_timeout: Duration::from_secs(5),
            start_timeout: Duration::ZERO,
        }
    }

    /// Reads a worker's arguments: `argv[1]` is the broker's host or `unix:PATH`, `[2]` its port,
    /// `[3]` the worker's id, `[4]` its service. `args` begins with `argv[0]`.
    ///
    /// # Errors
    /// An argument is missing or not valid.
    pub fn from_args(
        args: impl IntoIterator<Item = String>,
        secret: String,
    ) -> Result<Self, Error> {
        let usage = |text: String| Error::new(ErrorCode::Usage, text);
        let args: Vec<String> = args.into_iter().take(ISDARGMAX).collect();
        let [_, host, port, worker, service] = args.as_slice() else {
            let given = args.len().saturating_sub(1);
            return Err(usage(format!(
                "{given} arguments, but a worker gets HOST|unix:PATH PORT WORKER SERVICE; \
                 'config worker SERVICE HOST PROGRAM' makes the broker do that"
            )));
        };
        let wrong = |what, given: &str, why: String| {
            let shown: String = given.chars().take(60).flat_map(char::escape_debug).collect();
            usage(format!("{what} '{shown}' {why}"))
        };
        let address = Address::of_worker(host, port)?;
        let worker = worker
            .parse()
            .map_err(|_| wrong("worker id", worker, "is not a whole number".to_owned()))?;
        let service = ServiceName::new(service)
            .map_err(|e| wrong("service", service, format!("is no name: {e}")))?;
        let base = Self::self_started(address, service);
        Ok(Self { worker: WorkerId(worker), secret, ..base })
    }

    /// The `worker-login` with these options and this claim.
    pub(super) fn login(&self, concurrency: u32, token: Option<Claim>) -> WorkerLogin {
        WorkerLogin {
            worker: self.worker,
            service: self.service.clone(),
            host: self.host.clone(),
            hostpid: std::process::id(),
            secret: self.secret.clone(),
            concurrency,
            cancel: true,
            token,
        }
    }
}

impl fmt::Debug for WorkerOptions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WorkerOptions")
            .field("address", &self.address)
            .field("worker", &self.worker)
            .field("service", &self.service)
            .field("host", &self.host)
            .field("secret", &(if self.secret.is_empty() { "(none)" } else { "(hidden)" }))
            .field("token", &self.token)
            .finish_non_exhaustive()
    }
}

/// This machine's name, as far as it is a valid name for isect.
fn own_host() -> HostName {
    let own = crate::caller::hostname();
    let short = own.split('.').next().unwrap_or_default();
    HostName::new(&own)
        .or_else(|_| HostName::new(short))
        .or_else(|_| HostName::new("localhost"))
        .expect("'localhost' is spelled as a host name must be")
}
