//! The laws of `sessions`: what must hold after each step.

use super::connection::{Connection, End};
use super::machine::Sessions;
use super::phase::Phase;
use crate::engine::law::law;
use protocol::ids::LinkId;
use std::collections::BTreeMap;

impl Sessions {
    /// The law that is broken, if any.
    ///
    /// # Errors
    /// Names the law and the ids.
    pub(crate) fn check(&self) -> Result<(), String> {
        let mut announced: BTreeMap<u32, usize> = BTreeMap::new();
        for (link, connection) in self.links.iter() {
            check_login(link, connection)?;
            if let Some(limits) = connection.announced {
                *announced.entry(limits.heartbeat_ms).or_default() += 1;
            }
        }
        law!(
            self.links.heartbeats() == &announced,
            "law 6: heartbeats were announced as {:?}, are counted as {announced:?}",
            self.links.heartbeats()
        );
        let pinged = self.clients.by_id().filter(|(_, client)| client.heartbeat).count();
        law!(
            pinged == self.clients.heartbeats,
            "law 6: {} clients with a heartbeat are counted, are {pinged}",
            self.clients.heartbeats
        );
        for (key, client) in self.clients.by_id() {
            law!(
                self.end(client.link) == Some(End::Client(key)),
                "law 8: client {} has a link at which stands {:?}",
                client.id,
                self.end(client.link)
            );
        }
        Ok(())
    }
}

/// The phase of a connection, who is at it, and the login that waits say the same.
fn check_login(link: LinkId, connection: &Connection) -> Result<(), String> {
    let Connection { end, phase, pending, .. } = connection;
    let is_new = matches!(end, End::NewClient | End::NewWorker);
    let (has_proof, pends) = match phase {
        Phase::New => (false, false),
        Phase::Challenged | Phase::Checking => (false, true),
        Phase::Deferred => (true, true),
        Phase::LoggedIn | Phase::Closed => (false, false),
    };
    law!(is_new != (*phase == Phase::LoggedIn), "law 8: link {link}: {end:?} is {phase:?}");
    law!(
        pending.is_some() == pends,
        "law 8: link {link} is {phase:?}, and a login waits there: {}",
        pending.is_some()
    );
    let proof = pending.as_ref().is_some_and(|pending| pending.proof.is_some());
    law!(proof == has_proof, "law 8: link {link} is {phase:?}, and a proof waits there: {proof}");
    Ok(())
}
