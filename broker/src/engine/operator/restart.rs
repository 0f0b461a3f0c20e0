//! `restart`: the workers of a service are replaced by new processes, then those of the next one.
//! It is answered when all of that has ended; it goes on without the operator who said it. How it
//! goes with one service is `supervision/rollout`'s.

use super::answer;
use super::open_restart::OpenRestart;
use super::targets::{target_word, targets};
use crate::engine::context::context;
use crate::engine::counted::counted;
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::Engine;
use crate::engine::keys::{ClientKey, ServiceKey, WorkerKey};
use crate::engine::operator::answer::origin_of;
use crate::engine::operator::cells::{number, text};
use crate::engine::operator::result::{OpResult, refused};
use crate::engine::rollouts;
use crate::engine::supervision::rollout::{Cause, Outcome, Plan};
use crate::engine::timers::Timer;
use protocol::{
    Block, ErrorCode, Header, OpError, OpReply, OpRequest, ServiceId, Target, Tick, Value, WorkerId,
};
use std::collections::BTreeMap;

/// `restart`: begins it; the answer comes at the end.
///
/// # Errors
/// Nothing can be restarted; says why.
pub(crate) fn begin_restart(
    hub: &mut Engine,
    client: ClientKey,
    head: Header,
    target: &Target,
    min: Option<u64>,
) -> Result<(), OpError> {
    let origin = origin_of(hub, client);
    let begun = serves_on(hub).and_then(|()| services_of(hub, target)).and_then(|services| {
        match (services.as_slice(), target) {
            ([], _) => Err(refused(nothing_runs(target))),
            // Of several, one that can't be restarted does not keep the others from it.
            ([(service, workers)], Target::Service(_) | Target::Worker(_)) => {
                plan(hub, *service, workers, min).map(drop).map_err(refused)?;
                Ok(services)
            }
            _ => Ok(services),
        }
    });
    let command = OpRequest::Restart { target: target.clone(), min }.to_string();
    let services = match begun {
        Ok(services) => services,
        Err(error) => {
            let first = error.text.lines().next().unwrap_or_default();
            let about = About { who: Some(origin.who()), ..About::default() };
            hub.record(FactKind::Refused, about, format!("{command}: {first}"));
            return Err(error);
        }
    };
    hub.noted(&origin, command);
    hub.next_query += 1;
    let restart = hub.next_query;
    let services =
        services.into_iter().map(|(key, workers)| (hub.catalog[key].id, workers)).collect();
    let open = OpenRestart {
        client: hub.sessions.client(client).id,
        head,
        who: origin.who(),
        min,
        services,
        blocks: Vec::new(),
        failures: Vec::new(),
    };
    hub.restarts.insert(restart, open);
    begin_next(hub, restart);
    hub.settle();
    Ok(())
}

/// Refuses it if the broker ends: nothing is started any more.
fn serves_on(hub: &Engine) -> Result<(), OpError> {
    match hub.shutdown {
        Some(_) => Err(OpError { code: ErrorCode::ShuttingDown, text: "isectd ends".into() }),
        None => Ok(()),
    }
}

/// The services with the workers to restart, by id; those without any are left out.
fn services_of(hub: &Engine, target: &Target) -> Result<Vec<(ServiceKey, Vec<WorkerId>)>, OpError> {
    let mut services: BTreeMap<ServiceId, (ServiceKey, Vec<WorkerId>)> = BTreeMap::new();
    for key in targets(hub, target)?.into_iter().rev() {
        let worker = hub.supervision.worker(key);
        if worker.is_configured() && worker.is_wanted {
            let id = hub.catalog[worker.service].id;
            let (_, workers) = services.entry(id).or_insert((worker.service, Vec::new()));
            workers.push(worker.id);
        }
    }
    Ok(services.into_values().collect())
}

fn nothing_runs(target: &Target) -> String {
    let word = target_word(target);
    match target {
        Target::Worker(_) => format!(
            "worker {word} is stopped, or started itself, so there is nothing to replace; 'start \
             {word}' starts one that is stopped"
        ),
        _ => format!("'{word}' has no started worker to replace; 'start {word}' starts them"),
    }
}

/// What is to be done with the workers of one service.
struct Planned {
    plan: Plan,
    /// Why no temporary worker stands in, if one should.
    full: Option<&'static str>,
}

/// What is to be done with the workers of a service.
///
/// # Errors
/// They can't be restarted now, as goes on after nothing.
fn plan(
    hub: &Engine,
    service: ServiceKey,
    workers: &[WorkerId],
    min: Option<u64>,
) -> Result<Planned, String> {
    let of = &hub.catalog[service];
    let name = of.name.clone();
    if of.is_paused {
        return Err(format!(
            "service '{name}' is paused, so no new process would be started; 'ready {name}' first"
        ));
    }
    if let Some(words) = hub.supervision.rollout_in_the_way(service) {
        return Err(format!(
            "a restart of service '{name}' is under way ({words}); wait for its end, or 'stop' what \
             it waits for"
        ));
    }
    let keys: Vec<WorkerKey> =
        workers.iter().filter_map(|&id| hub.supervision.find_worker(id)).collect();
    let keys: Vec<WorkerKey> =
        keys.into_iter().filter(|&key| !hub.supervision.worker(key).is_paused).collect();
    if keys.is_empty() {
        return Err(format!("all of its workers are paused; 'ready {name}' first"));
    }
    // They need no process now, and their next one is new.
    let (later, keys): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|&key| hub.supervision.starts_later(key).is_some());
    let ready = hub.supervision.ready_count(service, &hub.catalog);
    let share = (ready / 10).max(1);
    let min = min.map_or_else(|| ready.saturating_sub(share), |min| min as usize);
    if min > ready {
        return Err(format!(
            "service '{name}' has {} ready, so {min} can't stay so",
            counted(ready, "worker")
        ));
    }
    let (is_ready, not): (Vec<_>, Vec<_>) =
        keys.into_iter().partition(|&key| hub.supervision.serves(key, &hub.catalog));
    let full = hub.supervision.has_room_for_temporary(service, &hub.catalog);
    let like = is_ready.first().filter(|_| full.is_none());
    if like.is_none() && !is_ready.is_empty() && min >= ready {
        return Err(format!(
            "service '{name}' has {} ready and no temporary one can stand in, so {min} can't stay \
             ready; say 'min {}' or less",
            counted(ready, "worker"),
            ready.saturating_sub(1)
        ));
    }
    let id = |key: &WorkerKey| hub.supervision.worker(*key).id;
    // Those that do not work are tried first: nothing is lost with them.
    let workers = later.iter().chain(&not).chain(&is_ready).map(id).collect();
    let plan = Plan {
        cause: Cause::Restart(0, String::new()),
        workers,
        min,
        batch: share,
        like: like.map(id),
    };
    Ok(Planned { plan, full: full.filter(|_| !is_ready.is_empty()) })
}

/// Most services that are looked at in one step; of those that can't be restarted there may be
/// thousands.
const SERVICES_AT_ONCE: usize = 8;

/// Begins with the next service that can be restarted; answers when there is none.
pub(crate) fn begin_next(hub: &mut Engine, restart: u64) {
    let mut left = SERVICES_AT_ONCE;
    while let Some(open) = hub.restarts.get_mut(&restart) {
        if left == 0 {
            // At the next tick, so after everything that can be done now.
            hub.timers.add(Tick(hub.now.0 + 1), Timer::NextRestart(restart));
            return;
        }
        left -= 1;
        let Some((id, workers)) = open.services.pop_front() else {
            finish(hub, restart);
            return;
        };
        let (who, min) = (open.who.clone(), open.min);
        let Some(service) = hub.catalog.find_id(id) else { continue };
        match plan(hub, service, &workers, min) {
            Ok(Planned { mut plan, full }) => {
                plan.cause = Cause::Restart(restart, who);
                hub.supervision.begin_rollout(service, plan, context!(hub));
                if let Some(why) = full {
                    hub.supervision.note_full(service, why);
                }
                rollouts::go_on(hub, service);
                return;
            }
            Err(why) => {
                let name = &hub.catalog[service].name;
                let failure = format!("service '{name}': {why}");
                if let Some(open) = hub.restarts.get_mut(&restart) {
                    open.failures.push(failure);
                }
            }
        }
    }
}

/// The workers of a service are replaced, or that failed.
pub(crate) fn on_outcome(hub: &mut Engine, service: ServiceKey, outcome: Outcome) {
    let Cause::Restart(restart, _) = outcome.cause else { return };
    let name = hub.catalog[service].name.clone();
    let Some(open) = hub.restarts.get_mut(&restart) else { return };
    let notes: String = outcome.notes.iter().map(|note| format!("; {note}")).collect();
    match outcome.failure {
        Some(why) => open.failures.push(format!(
            "service '{name}': {why}; {} replaced, {} left{notes}",
            counted(outcome.done, "worker"),
            outcome.left
        )),
        None => open.blocks.push(Block::Line {
            name: "restarted",
            text: format!("restarted {} of {name}{notes}", counted(outcome.done, "worker")),
            fields: vec![
                ("service", text(&name)),
                ("workers", number(outcome.done)),
                ("notes", Value::Texts(outcome.notes)),
            ],
        }),
    }
    if open.services.len() > SERVICES_AT_ONCE {
        // The next ones may end at once, too, as those do whose workers are stopped.
        hub.timers.add(Tick(hub.now.0 + 1), Timer::NextRestart(restart));
    } else {
        begin_next(hub, restart);
    }
}

fn finish(hub: &mut Engine, restart: u64) {
    let Some(open) = hub.restarts.remove(&restart) else { return };
    // The operator may be gone by now.
    let Some(client) = hub.sessions.find_client(open.client) else { return };
    let result: OpResult = if open.failures.is_empty() {
        Ok(OpReply { blocks: open.blocks })
    } else {
        let lines = open.blocks.into_iter().filter_map(|block| match block {
            Block::Line { text, .. } => Some(text),
            _ => None,
        });
        let lines: Vec<String> = open.failures.into_iter().chain(lines).collect();
        let code = match hub.shutdown {
            Some(_) => ErrorCode::ShuttingDown,
            None => ErrorCode::Refused,
        };
        Err(OpError { code, text: lines.join("\n") })
    };
    let command = OpRequest::Restart { target: Target::All, min: None }.command();
    let result = result.map(|reply| reply.complete(command));
    answer::answer(hub, client, &open.head, result);
}
