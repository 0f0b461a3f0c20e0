//! `scale`: how many workers a service has. More are made like the newest one and started; the
//! newest go when they have answered what they have. What goes is not stored any more from the
//! start, so that it does not come back with the next broker.

use super::config::add_like;
use super::targets::{for_each, worker_line};
use super::{names, states};
use crate::engine::context::context;
use crate::engine::hub::Engine;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::operator::result::{OpResult, refused};
use crate::engine::origin::Origin;
use crate::engine::work::WorkerVerb;
use protocol::op::spec::SCALE_STEP_MAX;
use protocol::{
    Block, HostName, OpError, OpReply, OpRequest, ServiceName, ServiceSetting, WorkerId,
};
use std::collections::BTreeMap;

/// Carries it out.
pub(crate) fn scale(
    hub: &mut Engine,
    origin: &Origin,
    name: &ServiceName,
    count: u64,
    hosts: &[HostName],
) -> OpResult {
    let service = names::configured_service(hub, name)?;
    for host in hosts {
        names::host_named(hub, host)?;
    }
    let mine: Vec<WorkerKey> = hub
        .supervision
        .workers_of(service)
        .filter(|(_, worker)| worker.is_configured())
        .map(|(key, _)| key)
        .collect();
    let Some(&newest) = mine.last() else {
        return Err(refused(format!(
            "service '{name}' has no worker that a new one could be like; 'config worker {name} \
             HOST PATH' makes the first one"
        )));
    };
    if count > 1 && hub.catalog[service].settings.get(ServiceSetting::Single) == 1 {
        return Err(refused(format!(
            "service '{name}' may have one worker (single); 'config service {name} single=0' allows \
             several"
        )));
    }
    let (has, count) = (mine.len(), count as usize);
    if has.abs_diff(count) as u64 > SCALE_STEP_MAX {
        return Err(refused(format!(
            "service '{name}' has {has} workers; at most {SCALE_STEP_MAX} are made or taken out at \
             a time, so go to {count} in steps"
        )));
    }
    let command =
        OpRequest::Scale { service: name.clone(), count: count as u64, hosts: hosts.to_vec() };
    let command = command.to_string();
    if count > has {
        grow(hub, origin, (service, newest), &command, ((count - has) as u64, hosts))
    } else if count < has {
        if !hosts.is_empty() {
            return Err(refused(format!(
                "service '{name}' has {has} workers; hosts are named where it is to get more"
            )));
        }
        let draining: Vec<WorkerKey> = mine.into_iter().rev().take(has - count).collect();
        Ok(shrink(hub, origin, &draining, command))
    } else {
        hub.store.changed(Vec::new(), false);
        Ok(OpReply::line("note", format!("service '{name}' has {has} workers already"), vec![]))
    }
}

fn grow(
    hub: &mut Engine,
    origin: &Origin,
    (service, newest): (ServiceKey, WorkerKey),
    command: &str,
    (more, hosts): (u64, &[HostName]),
) -> Result<OpReply, OpError> {
    if let Some(host) = hosts.iter().find(|host| hub.supervision.is_drained(host)) {
        return Err(refused(format!(
            "host {host} is drained, so nothing would be started there; 'undrain host {host}' first, \
             or name another one"
        )));
    }
    // How many there are on each host that is meant.
    let mut on: BTreeMap<HostName, usize> = hosts.iter().map(|host| (host.clone(), 0)).collect();
    for (_, worker) in hub.supervision.workers_of(service).filter(|(_, w)| w.is_configured()) {
        if hosts.is_empty() {
            *on.entry(worker.host.clone()).or_default() += 1;
        } else if let Some(count) = on.get_mut(&worker.host) {
            *count += 1;
        }
    }
    on.retain(|host, _| !hub.supervision.is_drained(host));
    if on.is_empty() {
        let name = &hub.catalog[service].name;
        return Err(refused(format!(
            "all hosts that the workers of service '{name}' use are drained; 'hosts' lists them, \
             'undrain host NAME' ends that, or name another host"
        )));
    }
    let is_stopped = hub.catalog[service].is_stopped;
    let (mut ids, mut lines): (Vec<WorkerId>, Vec<String>) = (Vec::new(), Vec::new());
    for _ in 0..more {
        let fewest = on.iter_mut().min_by_key(|(_, count)| **count);
        let Some((host, count)) = fewest else { break };
        *count += 1;
        let (id, made) = add_like(hub, newest, host.clone())?;
        ids.push(id);
        lines.extend(made);
        if !is_stopped {
            lines.push(format!("start {id}"));
        }
    }
    hub.changed(origin, command.to_owned(), lines);
    let keys: Vec<WorkerKey> =
        ids.into_iter().filter_map(|id| hub.supervision.find_worker(id)).collect();
    let mut blocks: Vec<Block> = keys.iter().map(|&key| worker_line(hub, "added", key)).collect();
    if is_stopped {
        let name = &hub.catalog[service].name;
        let text = format!("service '{name}' is stopped; 'start {name}' starts them");
        blocks.extend(OpReply::line("note", text, vec![]).blocks);
    } else {
        let said = states::said(hub, origin, &format!("'{command}'"));
        for_each(hub, &keys, (WorkerVerb::Start { is_saved: *origin == Origin::State }, said));
    }
    Ok(OpReply { blocks })
}

fn shrink(hub: &mut Engine, origin: &Origin, draining: &[WorkerKey], command: String) -> OpReply {
    let id = |key: &WorkerKey| hub.supervision.worker(*key).id;
    let lines = draining.iter().map(|key| format!("delete worker {}", id(key))).collect();
    hub.changed(origin, command, lines);
    let blocks = draining.iter().map(|&key| worker_line(hub, "draining", key)).collect();
    for &key in draining {
        hub.supervision.take_out(key, context!(hub));
    }
    OpReply { blocks }
}
