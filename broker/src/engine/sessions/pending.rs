//! A login that waits for its proof.

use protocol::{Login, Proof, Role, ServiceName, TokenName, WorkerLogin};

/// A login that named a token and waits for its proof.
#[derive(Debug)]
pub(crate) struct PendingLogin {
    pub(super) what: LoginBody,
    pub(super) token: Option<TokenName>,
    /// The proof, while its check has to wait; `Timer::Proof` gives it to the reactor.
    pub(super) proof: Option<Box<Proof>>,
}

/// The login itself.
#[derive(Debug)]
pub(crate) enum LoginBody {
    Client(Login),
    Worker(WorkerLogin),
}

impl PendingLogin {
    /// The login of a client.
    pub(crate) fn client(login: Login) -> Self {
        let token = login.token.as_ref().map(|claim| claim.token.clone());
        Self { what: LoginBody::Client(login), token, proof: None }
    }

    /// The login of a worker that started itself.
    pub(crate) fn worker(login: WorkerLogin) -> Self {
        let token = login.token.as_ref().map(|claim| claim.token.clone());
        Self { what: LoginBody::Worker(login), token, proof: None }
    }

    pub(super) fn role(&self) -> (Role, ServiceName) {
        match &self.what {
            LoginBody::Client(login) => (Role::Client, login.service.clone()),
            LoginBody::Worker(login) => (Role::Worker, login.service.clone()),
        }
    }
}
