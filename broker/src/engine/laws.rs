//! The laws of the engine, checked one by one over everything: after every step in scripts and in
//! the simulation, never in production. The numbers are those of `docs/architecture.md`. Each
//! machine checks its own; here are those that join machines.

use super::hub::Engine;
use super::law::law;
use super::sessions::connection::End;
use super::supervision::process_state::ProcessState;

impl Engine {
    /// Checks all laws.
    ///
    /// # Errors
    /// A law is broken; the text names it, and the ids.
    pub fn check_all(&self) -> Result<(), String> {
        self.dispatch.check(&self.catalog, self.now, self.works.is_busy())?;
        self.check_workers()?;
        self.check_links()
    }

    fn check_workers(&self) -> Result<(), String> {
        for (key, worker) in self.supervision.workers() {
            let (id, seat) = (worker.id, self.dispatch.seat(key));
            let is_shutting_down = self.shutdown.is_some();
            let is_available = self.supervision.is_available(key, &self.catalog, is_shutting_down);
            law!(
                worker.is_linked() == seat.link.is_some(),
                "law 2: worker {id} is linked: {}, and its link is {:?}",
                worker.is_linked(),
                seat.link
            );
            // The workers of a command under way are still to be looked at.
            law!(
                self.works.is_busy() || seat.is_available() == is_available,
                "law 1: worker {id} is available to requests: {}, should be: {}",
                seat.is_available(),
                is_available
            );
            law!(
                worker.state != ProcessState::Ready || seat.link.is_some(),
                "law 2: worker {id} is ready without a link"
            );
        }
        Ok(())
    }

    fn check_links(&self) -> Result<(), String> {
        law!(self.store.is_sound(), "law 8: an answer waits for no write");
        for link in self.store.links() {
            law!(self.sessions.end(link).is_some(), "law 8: an answer waits for link {link}");
        }
        for (link, slot) in self.sessions.connections() {
            let is_right = match slot.end {
                End::Free => false,
                End::NewClient | End::NewWorker => true,
                End::Client(key) => {
                    self.sessions.get_client(key).is_some_and(|client| client.link == link)
                        && self.dispatch.caller(key).link == link
                }
                End::Worker(key) => {
                    self.supervision.get_worker(key).is_some()
                        && self.dispatch.seat(key).link == Some(link)
                }
                End::Host(key) => {
                    self.supervision.get_host(key).is_some_and(|h| h.state.link() == Some(link))
                }
            };
            law!(is_right, "law 8: link {link} is {:?}, who does not know it", slot.end);
        }
        for (_, client) in self.sessions.clients() {
            let has_link = self.sessions.end(client.link).is_some();
            law!(has_link, "law 8: client {} has no link", client.id);
        }
        for (key, worker) in self.supervision.workers() {
            let link = self.dispatch.seat(key).link;
            law!(
                link.is_none_or(|link| self.sessions.end(link).is_some()),
                "law 8: worker {} has a link that is gone",
                worker.id
            );
        }
        Ok(())
    }
}
