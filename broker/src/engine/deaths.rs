//! Brings together what `dispatch` knows of the requests of a worker that is lost, `sessions` of
//! their clients, and `supervision` of the end of its process, for the black box.

use super::death::Death;
use super::hub::Engine;
use super::keys::WorkerKey;
use super::sessions::peer_name;
use protocol::Setting;

/// The connection of a worker is about to be lost: keeps what it has, if it may have died.
pub(crate) fn note_loss(hub: &mut Engine, key: WorkerKey) {
    let worker = hub.supervision.worker(key);
    let (id, run) = (worker.id, worker.run.id);
    let is_kept = hub.settings.get(Setting::DeathsMax) > 0 && hub.supervision.may_die(key);
    if !is_kept || hub.dispatch.seat(key).link.is_none() {
        return;
    }
    let mut lost = hub.dispatch.lost_requests(key, hub.now);
    if lost.kept.is_empty() {
        return;
    }
    for request in &mut lost.kept {
        let client = request.client.and_then(|client| hub.sessions.find_client(client));
        let Some(client) = client else {
            // What is known of a client that is gone is in the time line of its request.
            let mut kept = hub.dispatch.traces().newest();
            let line = kept.find(|line| line.transaction == request.transaction);
            request.from = line.map_or_else(String::new, |line| line.from.clone());
            continue;
        };
        let (entry, peer) = (hub.sessions.client(client), hub.sessions.peer(client));
        request.name.clone_from(&entry.name);
        let at = peer_name::from(peer);
        let at = if at.is_empty() { at } else { format!(" at {at}") };
        request.from = format!("{} pid {}{at}", entry.loghost, entry.hostpid);
    }
    hub.black_box.lost(id, run, lost, &hub.settings);
}

/// `Effect::Died`: keeps a death, with what the worker had.
pub(crate) fn on_died(hub: &mut Engine, death: Death) {
    hub.black_box.add(death, &hub.settings);
}

/// A worker came back, its process has ended in order, or it is removed.
pub(crate) fn settled(hub: &mut Engine, key: WorkerKey) {
    hub.black_box.settled(hub.supervision.worker(key).id);
}
