//! Settings of workers' processes: their changes by `config service` and `config worker`, and what
//! pages show of them. The values of variables are for operators who may give commands of effect
//! danger; facts never have them.

use super::lines::{own_changes_command, service_settings_command};
use super::save::{check_command, check_saved_size};
use super::tokens::rights_of;
use super::{names, targets};
use crate::engine::counted::counted;
use crate::engine::hub::Engine;
use crate::engine::keys::{ServiceKey, WorkerKey};
use crate::engine::operator::cells::{blank, flag, number, text, yes};
use crate::engine::operator::result::{OpResult, refused};
use crate::engine::origin::Origin;
use crate::engine::supervision::workers::{Worker, WorkerSpec};
use protocol::limits::{ENV_BYTES_MAX, ENV_VARIABLES_MAX};
use protocol::op::parse::quote;
use protocol::op::shape;
use protocol::op::spec::ServiceChange;
use protocol::op::worker_settings::{HIDDEN, Named, WorkerChange, WorkerSetting};
use protocol::process::WorkerSettings;
use protocol::{Block, Effect, ErrorCode, OpError, OpReply, ServiceName, Value, WorkerId};

/// Most ids of workers that a line names.
const NAMED_MAX: usize = 10;

/// Whether who asks may see the values of variables.
pub(crate) fn sees_values(hub: &Engine, origin: &Origin) -> bool {
    match origin {
        Origin::Operator { client, .. } => {
            let client = hub.sessions.find_client(*client);
            client.is_some_and(|client| rights_of(hub, client).may(Effect::Danger))
        }
        Origin::State | Origin::File(_) | Origin::Broker => true,
    }
}

/// Refuses to make a worker for who may not give processes what the service sets: the program would
/// get the values that its operator may not see, and the user and rights, too. Also one whose id
/// belongs to a worker that differs in its settings alone.
pub(crate) fn may_add(
    hub: &Engine,
    origin: &Origin,
    spec: &WorkerSpec,
    id: Option<WorkerId>,
) -> Result<(), OpError> {
    let known = id.and_then(|id| hub.supervision.find_worker(id));
    let known = known.map(|key| hub.supervision.worker(key));
    if let Some(known) = known {
        let spec = WorkerSpec { own: known.own.clone(), ..spec.clone() };
        if spec.is_that_of(known) {
            return Err(refused(format!(
                "worker {0} has other settings of its own; 'config worker #{0} SETTING=VALUE' \
                 changes them",
                known.id
            )));
        }
    }
    let service = &hub.catalog[spec.service];
    if service.of_workers.is_empty() || sees_values(hub, origin) {
        return Ok(());
    }
    let text = format!(
        "service '{}' has settings of processes, which a new worker would get: 'config worker' for \
         it needs the role operator:danger ('clone' copies a worker that is there)",
        service.name
    );
    Err(OpError { code: ErrorCode::Denied, text })
}

/// Settings after these changes.
///
/// # Errors
/// There are too many variables, or a value is the sign of one that was not shown.
pub(crate) fn changed<'a>(
    now: &WorkerSettings,
    changes: impl Iterator<Item = &'a WorkerChange>,
) -> Result<WorkerSettings, OpError> {
    let mut settings = now.clone();
    for change in changes {
        if let (true, WorkerChange::Env(Named::Set(name, _))) = (change.is_placeholder(), change) {
            return Err(refused(format!(
                "'{HIDDEN}' stands for the value of variable {name}, which was not shown; write \
                 the value"
            )));
        }
        change.apply(&mut settings);
    }
    let env = &settings.process.env;
    let bytes: usize = env.iter().map(|(name, value)| name.len() + value.len()).sum();
    if env.len() > ENV_VARIABLES_MAX || bytes > ENV_BYTES_MAX {
        return Err(refused(format!(
            "these are {} with {bytes} bytes; at most {ENV_VARIABLES_MAX} with {ENV_BYTES_MAX} \
             bytes are allowed; put others into a file on the host (env_file)",
            counted(env.len(), "variable")
        )));
    }
    Ok(settings)
}

/// What `config service` says of workers: their settings then.
///
/// # Errors
/// They are not valid, or could not be read again from the saved configuration.
pub(crate) fn changed_of_service(
    now: &WorkerSettings,
    name: &ServiceName,
    changes: &[ServiceChange],
) -> Result<WorkerSettings, OpError> {
    let changes = of_workers(changes);
    let settings = changed(now, changes.iter())?;
    // What is stored now, and what a snapshot has.
    for changes in [changes, settings.changes()] {
        let line = service_settings_command(name, &changes, true);
        check_command(&line, 3 + changes.len()).map_err(refused)?;
    }
    Ok(settings)
}

/// The settings of workers among those of a service.
pub(crate) fn of_workers(changes: &[ServiceChange]) -> Vec<WorkerChange> {
    let of_workers = changes.iter().filter_map(|change| match change {
        ServiceChange::Worker(change) => Some(change.clone()),
        ServiceChange::Number(..) | ServiceChange::Topic(_) => None,
    });
    of_workers.collect()
}

/// `config worker #ID SETTING=VALUE…`: changes settings of a worker that is there.
pub(crate) fn change_worker(
    hub: &mut Engine,
    origin: &Origin,
    id: WorkerId,
    changes: &[WorkerChange],
) -> OpResult {
    let key = targets::permanent_worker(hub, id)?;
    names::configured_worker(hub, id)?;
    let worker = hub.supervision.worker(key);
    if worker.is_self_started {
        return Err(refused(format!(
            "worker {id} started itself; only a process that the broker has started gets settings"
        )));
    }
    let service = hub.catalog[worker.service].name.clone();
    let own = changed(&worker.own, changes.iter())?;
    check_saved_size((&service, &worker.host), &own, &worker.path, &worker.args)
        .map_err(refused)?;
    let line = own_changes_command(id, changes, true);
    check_command(&line, 3 + changes.len()).map_err(refused)?;
    let is_same = own == *worker.own;
    let verb = if is_same { "unchanged" } else { "changed" };
    let fields = vec![("worker", number(id.0)), ("service", text(&service))];
    let said = format!("{verb} worker->id = {id}, worker->name = {service}");
    let mut reply = OpReply::line(verb, said, fields);
    if is_same {
        hub.store.changed(Vec::new(), false);
        return Ok(reply);
    }
    hub.supervision.set_own(key, own, &hub.catalog);
    hub.changed(origin, own_changes_command(id, changes, false), vec![line]);
    let has_earlier = hub.supervision.worker(key).has_earlier_settings();
    reply.blocks.extend(earlier(has_earlier.then_some(id).into_iter().collect(), &id.to_string()));
    Ok(reply)
}

/// The workers of a service that run with settings from before these changes, if they are such.
pub(crate) fn earlier_of(
    hub: &Engine,
    service: ServiceKey,
    changes: &[ServiceChange],
) -> Option<Block> {
    if !of_workers(changes).iter().any(|change| change.setting().is_of_process()) {
        return None;
    }
    let ids = hub.supervision.with_earlier_settings(service).collect();
    earlier(ids, hub.catalog[service].name.as_str())
}

fn earlier(ids: Vec<WorkerId>, target: &str) -> Option<Block> {
    let named: Vec<String> = ids.iter().take(NAMED_MAX).map(WorkerId::to_string).collect();
    let (who, verb) = match ids.len() {
        0 => return None,
        1 => (format!("worker {}", named.join("")), "runs"),
        count if count > NAMED_MAX => {
            (format!("workers {} and {} more", named.join(", "), count - NAMED_MAX), "run")
        }
        _ => (format!("workers {}", named.join(", ")), "run"),
    };
    let text = format!(
        "{who} {verb} with the earlier settings until the next start; 'restart {target}' starts \
         anew"
    );
    let ids = ids.iter().map(|id| id.0.into()).collect();
    Some(Block::Line { name: "earlier", text, fields: vec![("workers", Value::Numbers(ids))] })
}

/// Whether a worker's process runs with settings from before a change; if it does not, the page has
/// no line about it.
pub(crate) fn changed_since_start(worker: &Worker) -> Value {
    if worker.has_earlier_settings() { flag(true) } else { Value::Unsaid }
}

/// The name and the value of a setting, and behind other cells whether the value is left out.
fn cells(change: &WorkerChange, is_shown: bool, others: Vec<Value>) -> Vec<Value> {
    let value = change.value(is_shown);
    // Blanks at its ends and control characters can't be seen without quotation marks.
    let shown = match change {
        WorkerChange::Env(Named::Set(name, value)) if is_shown => {
            format!("{name}={}", quote(value))
        }
        _ => value.clone(),
    };
    let value = Value::shown(shown, Value::Text(value));
    let hidden = blank(yes(change.has_hidden() && !is_shown));
    [vec![text(change.setting().row().name), value], others, vec![hidden]].concat()
}

/// The table of the settings that a service has for its workers, and of those that it may have.
pub(crate) fn of_service(hub: &Engine, service: ServiceKey, is_shown: bool) -> Block {
    let all = hub.catalog[service].of_workers.changes();
    let mut rows = Vec::new();
    for setting in WorkerSetting::ALL {
        let row = setting.row();
        let meaning = vec![text(row.form), text(row.text)];
        let mine = all.iter().filter(|change| change.setting() == *setting);
        let before = rows.len();
        rows.extend(mine.map(|change| cells(change, is_shown, meaning.clone())));
        if rows.len() == before {
            let none = vec![text(row.name), Value::None];
            rows.push([none, meaning, vec![blank(yes(false))]].concat());
        }
    }
    let columns = shape::columns("worker_settings");
    Block::Table { name: "worker_settings", title: String::new(), columns, rows }
}

/// The table of the settings that hold for a worker from its next start on; `None` = there are
/// none.
pub(crate) fn of_worker(hub: &Engine, key: WorkerKey, is_shown: bool) -> Option<Block> {
    let worker = hub.supervision.worker(key);
    let row = |change: &WorkerChange, from| {
        (change.setting(), cells(change, is_shown, vec![Value::Word(from)]))
    };
    let own = worker.own.changes();
    let all = hub.catalog[worker.service].of_workers.changes();
    let all = all.iter().filter(|change| !change.is_set_in(&worker.own));
    let mut rows: Vec<_> = all.map(|change| row(change, "service")).collect();
    rows.extend(own.iter().map(|change| row(change, "worker")));
    rows.sort_by_key(|(setting, _)| *setting);
    let rows: Vec<_> = rows.into_iter().map(|(_, cells)| cells).collect();
    let (name, columns) = ("process_settings", shape::columns("process_settings"));
    let has_any = !rows.is_empty() && !worker.is_self_started;
    has_any.then(|| Block::Table { name, title: String::new(), columns, rows })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables(count: usize, bytes: usize) -> Result<WorkerSettings, OpError> {
        let variable = |number| {
            let name = format!("{number:03}");
            WorkerChange::Env(Named::Set(name, "x".repeat(bytes)))
        };
        let changes: Vec<_> = (0..count).map(variable).collect();
        changed(&WorkerSettings::default(), changes.iter())
    }

    #[test]
    fn limits_of_variables_hold_at_the_limit_and_one_past_it() {
        assert!(variables(ENV_VARIABLES_MAX, 0).is_ok());
        let error = variables(ENV_VARIABLES_MAX + 1, 0).unwrap_err().text;
        assert!(error.contains("129 variables with 387 bytes; at most 128"), "{error}");
        assert!(variables(1, ENV_BYTES_MAX - 3).is_ok());
        let error = variables(1, ENV_BYTES_MAX - 2).unwrap_err().text;
        assert!(error.contains("1 variable with 8001 bytes; at most"), "{error}");
    }

    #[test]
    fn what_could_not_be_read_again_is_refused() {
        let name = ServiceName::new("echo").unwrap();
        // In quotation marks each of these characters has six.
        let value = "\u{1}".repeat(3000);
        let change = WorkerChange::Env(Named::Set("A".into(), value));
        let changes = [ServiceChange::Worker(change)];
        let error = changed_of_service(&WorkerSettings::default(), &name, &changes).unwrap_err();
        assert!(error.text.contains("bytes as it is saved"), "{}", error.text);
    }
}
