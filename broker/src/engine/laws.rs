//! The laws of the engine, checked one by one over everything: after every step in scripts and in
//! the simulation, never in production. The numbers are those of `docs/architecture.md`. Each
//! machine checks its own; here are those that join machines.

use super::hub::Engine;
use super::law::law;
use super::sessions::connection::End;
use super::supervision::process_state::ProcessState;
use super::worker_instances::condition;

impl Engine {
    /// Checks all laws.
    ///
    /// # Errors
    /// A law is broken; the text names it, and the ids.
    pub fn check_all(&self) -> Result<(), String> {
        self.dispatch.check(&self.catalog, self.now, self.is_working())?;
        self.sessions.check()?;
        self.supervision.check()?;
        self.instances.check()?;
        self.topics.check()?;
        self.black_box.check(&self.settings)?;
        law!(self.facts.recent().is_sound(), "law 9: the events kept are miscounted, or too many");
        check_black_box(self)?;
        check_workers(self)?;
        check_instances(self)?;
        check_outlooks(self)?;
        check_links(self)
    }

    /// Whether long work is under way, so that more follows from what was asked already.
    pub fn is_working(&self) -> bool {
        self.works.is_busy()
    }
}

fn check_workers(hub: &Engine) -> Result<(), String> {
    for (key, worker) in hub.supervision.workers() {
        let (id, seat) = (worker.id, hub.dispatch.seat(key));
        let is_shutting_down = hub.shutdown.is_some();
        let is_available = hub.supervision.is_available(key, &hub.catalog, is_shutting_down);
        law!(
            worker.is_linked() == seat.link.is_some(),
            "law 2: worker {id} is linked: {}, and its link is {:?}",
            worker.is_linked(),
            seat.link
        );
        // The workers of a command under way are still to be looked at.
        law!(
            hub.is_working() || seat.is_available() == is_available,
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

/// What a worker had that was lost is kept no longer than its end is awaited.
fn check_black_box(hub: &Engine) -> Result<(), String> {
    for (id, run) in hub.black_box.pending() {
        let key = hub.supervision.find_worker(id);
        let is_awaited = key.map(|key| hub.supervision.worker(key)).is_some_and(|worker| {
            worker.run.id == run && worker.state.has_process() && !worker.is_linked()
        });
        law!(is_awaited, "law 9: what worker {id} had in run {run} is kept, but no end is awaited");
    }
    Ok(())
}

/// Each worker with a process is an instance, and as its process is.
fn check_instances(hub: &Engine) -> Result<(), String> {
    let mut count = 0;
    for (key, worker) in hub.supervision.workers() {
        let (is, should) = (hub.instances.worker(worker.id), condition(hub, key));
        let is = is.map(|instance| instance.condition);
        law!(is == should, "law 2: worker {} is {is:?} as an instance, not {should:?}", worker.id);
        count += usize::from(should.is_some());
    }
    let known = hub.instances.worker_count();
    law!(count == known, "law 2: {count} workers have processes, {known} are instances");
    Ok(())
}

/// `dispatch` refuses and `supervision` says the same of each service.
fn check_outlooks(hub: &Engine) -> Result<(), String> {
    for key in hub.catalog.all_keys().into_iter().filter(|&key| key != hub.catalog.op()) {
        let (told, is) =
            (hub.dispatch.no_worker(key), hub.supervision.no_worker(key, &hub.catalog));
        law!(
            told == is.as_ref(),
            "law 5: requests of {} are refused for {told:?}, should be for {is:?}",
            hub.catalog[key].name
        );
    }
    Ok(())
}

fn check_links(hub: &Engine) -> Result<(), String> {
    law!(hub.store.is_sound(), "law 8: an answer waits for no write");
    for link in hub.store.links() {
        law!(hub.sessions.end(link).is_some(), "law 8: an answer waits for link {link}");
    }
    for link in hub.instances.links() {
        law!(hub.sessions.end(link).is_some(), "law 8: link {link} is gone and has instances");
    }
    for link in hub.topics.links() {
        law!(hub.sessions.end(link).is_some(), "law 8: topics know link {link}, which is gone");
    }
    for &id in hub.scripts.keys() {
        law!(hub.sessions.find_client(id).is_some(), "law 8: commands of client {id} are counted");
    }
    for (link, slot) in hub.sessions.connections() {
        let is_right = match slot.end {
            End::Free => false,
            End::NewClient | End::NewWorker => true,
            End::Client(key) => {
                hub.sessions.get_client(key).is_some_and(|client| client.link == link)
                    && hub.dispatch.caller(key).link == link
            }
            End::Worker(key) => {
                hub.supervision.get_worker(key).is_some()
                    && hub.dispatch.seat(key).link == Some(link)
            }
            End::Host(key) => {
                hub.supervision.get_host(key).is_some_and(|h| h.state.link() == Some(link))
            }
        };
        law!(is_right, "law 8: link {link} is {:?}, who does not know it", slot.end);
    }
    for (link, start) in hub.sessions.start_clients() {
        let is_right = start.is_some_and(|it| hub.supervision.is_present_run(it.worker, it.run));
        law!(
            hub.is_working() || is_right,
            "law 8: link {link} has the rights of {start:?}, which does not run"
        );
    }
    for (key, worker) in hub.supervision.workers() {
        let end = hub.dispatch.seat(key).link.map(|link| hub.sessions.end(link));
        law!(
            end.is_none_or(|end| end == Some(End::Worker(key))),
            "law 8: worker {} has a link at which stands {end:?}",
            worker.id
        );
    }
    for (key, host) in hub.supervision.hosts() {
        let end = host.state.link().map(|link| hub.sessions.end(link));
        law!(
            end.is_none_or(|end| end == Some(End::Host(key))),
            "law 8: host {} has a link at which stands {end:?}",
            host.name
        );
    }
    Ok(())
}
