//! Clients that log in with the secret of a worker's start: they have the rights of that start, and
//! are closed when its process has ended.

use super::machine::Sessions;
use crate::engine::context::Context;
use crate::engine::effect::Effect;
use crate::engine::input::StartRights;
use protocol::login_failures::{FAILURES_MAX, Failure};
use protocol::{ErrorBody, ErrorCode, LinkId, RunId, TokenName, WorkerId};

/// Why a login with a secret is refused.
#[derive(Debug)]
pub(crate) enum WrongSecret {
    /// The broker never gave this secret to this worker.
    Forged,
    /// It did, for a start that is not the present one. Its holder is told so.
    NotPresent(String),
}

impl Sessions {
    /// Refuses a login whose secret is not that of the present start of a worker, and counts that
    /// for the worker and the peer's group. A secret has 256 bits that nobody can guess, so one
    /// that is right is never delayed, however many wrong ones came.
    pub(crate) fn refuse_secret(
        &mut self,
        link: LinkId,
        worker: WorkerId,
        why: WrongSecret,
        cx: &mut Context<'_>,
    ) {
        let Some(connection) = self.links.get(link) else { return };
        // A name has a letter first.
        let failure = match TokenName::new(&format!("w{worker}")) {
            Ok(name) => self.access.secret_failures.failed(&name, connection.peer.group, cx.now),
            Err(_) => Failure::Counted,
        };
        let (text, detail) = match why {
            WrongSecret::Forged => {
                let text =
                    format!("the secret is not that of the present start of worker {worker}");
                (text, "this broker never gave it to that worker".to_owned())
            }
            WrongSecret::NotPresent(text) => (text, String::new()),
        };
        let limited = |text: String| {
            let text = format!(
                "{text}; more than {FAILURES_MAX} logins as this worker failed from here, and \
                 further ones are not recorded"
            );
            ErrorBody::new(ErrorCode::LoginLimited, text)
        };
        match failure {
            Failure::Counted => {
                let error = ErrorBody::new(ErrorCode::BadToken, text);
                cx.effects.push(Effect::RefuseLogin { link, error, detail });
            }
            Failure::FirstBeyond => {
                cx.effects.push(Effect::RefuseLogin { link, error: limited(text), detail });
            }
            Failure::Beyond => Self::refuse_quietly(link, limited(text), cx),
        }
    }

    /// The peer of a link has shown the secret of a worker's start.
    pub(crate) fn know_start(&mut self, link: LinkId, rights: StartRights) {
        if let Some(connection) = self.links.get_mut(link) {
            self.started.0.entry(rights.worker).or_default().insert(link);
            connection.peer.start = Some(Box::new(rights));
        }
    }

    /// A link is about to be gone.
    pub(super) fn forget_start_client(&mut self, link: LinkId) {
        let start = self.links.get(link).and_then(|connection| connection.peer.start.as_ref());
        let Some(worker) = start.map(|start| start.worker) else { return };
        if let Some(links) = self.started.0.get_mut(&worker) {
            links.remove(&link);
            if links.is_empty() {
                self.started.0.remove(&worker);
            }
        }
    }

    /// The clients of a worker's starts, but for those of one start that goes on.
    pub(crate) fn clients_of_ended(&self, worker: WorkerId, goes_on: Option<RunId>) -> Vec<LinkId> {
        let Some(links) = self.started.0.get(&worker) else { return Vec::new() };
        let is_ended = |link: &&LinkId| {
            let start = self.links.get(**link).and_then(|at| at.peer.start.as_ref());
            start.is_some_and(|start| Some(start.run) != goes_on)
        };
        links.iter().filter(is_ended).copied().collect()
    }

    /// Whether any client logged in with the secret of a start.
    pub(crate) fn has_start_clients(&self) -> bool {
        !self.started.0.is_empty()
    }

    /// All such clients, with the start of each.
    pub(crate) fn start_clients(&self) -> impl Iterator<Item = (LinkId, Option<&StartRights>)> {
        let links = self.started.0.values().flatten();
        links.map(|&link| (link, self.links.get(link).and_then(|at| at.peer.start.as_deref())))
    }
}
