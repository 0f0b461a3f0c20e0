//! The secret of a worker's start as a client's credential: whoever is part of a worker may be a
//! client with the rights that are set for that worker (`rights`), as long as its process runs.

use crate::error::Error;
use protocol::limits::WORKER_SECRET_VARIABLE;
use protocol::process::StartClaim;
use protocol::{ErrorCode, WorkerId};
use std::fmt;

/// A worker, and the secret that its process was started with. It never shows itself.
#[derive(Clone, PartialEq, Eq)]
pub struct StartSecret {
    worker: WorkerId,
    secret: String,
}

impl StartSecret {
    /// The secret of this worker's start, which execd gives to its program in
    /// `ISECT_WORKER_SECRET`.
    pub fn new(worker: WorkerId, secret: String) -> Self {
        Self { worker, secret }
    }

    /// The secret in the environment, of the worker that `argv[3]` of this program names.
    ///
    /// # Errors
    /// This program was not started as a worker.
    pub fn of_program() -> Result<Self, Error> {
        let id = std::env::args_os().nth(3);
        let id = id.and_then(|id| id.to_str().and_then(|id| id.parse().ok()));
        let Some(worker) = id else {
            let text = "argv[3] is no worker's id, so this program was not started as a worker";
            return Err(Error::new(ErrorCode::Usage, text));
        };
        Self::of_worker(worker)
    }

    /// The secret in the environment, of this worker. What a worker starts inherits it.
    ///
    /// # Errors
    /// The environment has none.
    #[expect(clippy::disallowed_methods, reason = "the secret comes by the environment alone")]
    pub fn of_worker(worker: WorkerId) -> Result<Self, Error> {
        match std::env::var(WORKER_SECRET_VARIABLE) {
            Ok(secret) if !secret.is_empty() => Ok(Self::new(worker, secret)),
            Ok(_) | Err(_) => {
                let text = format!(
                    "{WORKER_SECRET_VARIABLE} is not set; execd sets it for the workers that it \
                     starts"
                );
                Err(Error::new(ErrorCode::Usage, text))
            }
        }
    }

    /// What a login shows.
    pub(crate) fn claim(&self) -> Box<StartClaim> {
        Box::new(StartClaim { worker: self.worker, secret: self.secret.clone() })
    }
}

impl fmt::Debug for StartSecret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("StartSecret").field("worker", &self.worker).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_does_not_show_itself() {
        let secret = StartSecret::new(WorkerId(3), "1.2.abcdef".into());
        assert_eq!(format!("{secret:?} {:?}", secret.claim()).matches("abcdef").count(), 0);
        assert_eq!(secret.claim().secret, "1.2.abcdef");
    }
}
