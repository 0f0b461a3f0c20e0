//! A client that is part of a worker logs in with the secret of that worker's start, in place of a
//! token. It has the rights that are set for the worker (`rights`), until the process of that start
//! has ended.

use super::context::context;
use super::hub::Engine;
use super::input::{Start, StartRights};
use super::keys::WorkerKey;
use super::sessions::connection::End;
use super::sessions::start_clients::WrongSecret;
use super::work::Work;
use protocol::{ErrorBody, ErrorCode, LinkId, Login, Rights};

/// Clients of a start that are closed in the step in which it ends; more follow part by part.
const AT_ONCE: usize = 16;

/// A client logs in so. `proof` is the start that its secret proves; `None` = it proves none.
pub(crate) fn on_start_login(hub: &mut Engine, link: LinkId, login: Login, proof: Option<Start>) {
    if !hub.sessions.is_new(link, End::NewClient, context!(hub)) {
        return;
    }
    let Some(worker) = login.start.as_ref().map(|claim| claim.worker) else { return };
    if login.token.is_some() {
        let text = "this login names a token and shows the secret of a worker; leave one of them \
                    out";
        hub.refuse_link(link, ErrorBody::new(ErrorCode::BadLogin, text));
        return;
    }
    let key = match proof {
        Some(start) => hub
            .supervision
            .worker_of_secret(worker, start, &hub.catalog)
            .map_err(WrongSecret::NotPresent),
        None => Err(WrongSecret::Forged),
    };
    match (key, proof) {
        (Ok(key), Some(start)) => match rights_of_start(hub, key) {
            Ok(rights) => {
                let service = hub.catalog[hub.supervision.worker(key).service].name.clone();
                let rights = StartRights { worker, run: start.run, service, rights };
                hub.sessions.know_start(link, rights);
                hub.admit_client(link, login, None);
            }
            Err(text) => hub.refuse_link(link, ErrorBody::new(ErrorCode::Denied, text)),
        },
        (Ok(_), None) => {}
        (Err(why), _) => hub.sessions.refuse_secret(link, worker, why, context!(hub)),
    }
}

/// What the secret of a worker's start opens to a client.
fn rights_of_start(hub: &Engine, key: WorkerKey) -> Result<Rights, String> {
    let worker = hub.supervision.worker(key);
    let service = &hub.catalog[worker.service];
    let roles = worker.own.rights.as_ref().or(service.of_workers.rights.as_ref());
    let Some(roles) = roles.filter(|roles| !roles.is_empty()) else {
        return Err(format!(
            "worker {} of {1} has no rights as a client; 'config service {1} rights=ROLE' gives \
             some to the workers of that service",
            worker.id, service.name
        ));
    };
    let mut rights = Rights::default();
    for role in roles {
        rights.add(role).map_err(|why| format!("the rights of worker {}: {why}", worker.id))?;
    }
    Ok(rights)
}

/// The process of a worker may have ended: then the clients of its start are closed.
pub(crate) fn on_turned(hub: &mut Engine, key: WorkerKey) {
    // An operator may pause thousands at once, and few have such clients.
    if !hub.sessions.has_start_clients() {
        return;
    }
    let Some(worker) = hub.supervision.get_worker(key) else { return };
    let (id, run) = (worker.id, worker.run.id);
    let goes_on = hub.supervision.is_present_run(id, run).then_some(run);
    let links = hub.sessions.clients_of_ended(id, goes_on);
    if !links.is_empty() {
        let error = ended(hub, key);
        revoke(hub, links, &error);
    }
}

/// A worker is about to be removed.
pub(crate) fn on_forget(hub: &mut Engine, key: WorkerKey) {
    let id = hub.supervision.worker(key).id;
    let (links, error) = (hub.sessions.clients_of_ended(id, None), ended(hub, key));
    revoke(hub, links, &error);
}

fn ended(hub: &Engine, key: WorkerKey) -> ErrorBody {
    let worker = hub.supervision.worker(key);
    let service = &hub.catalog[worker.service].name;
    let text = format!(
        "the process of worker {} of {service} whose secret this client showed has ended",
        worker.id
    );
    ErrorBody::new(ErrorCode::BadToken, text)
}

fn revoke(hub: &mut Engine, mut links: Vec<LinkId>, error: &ErrorBody) {
    let later = links.split_off(links.len().min(AT_ONCE));
    for link in links {
        hub.send_link_away(link, error.clone());
    }
    if !later.is_empty() {
        let work = Work::Revoke { links: later.into(), error: error.clone() };
        hub.works.begin(work, &mut hub.effects);
    }
}
