//! The configuration as an ordinary script of commands: what `save` prints, what the state
//! directory keeps with the changes since, and what a restart runs. Requests are not saved; they
//! end with the broker.

use super::lines::{
    events_command, group_command, hidden_worker_line, host_command, service_command,
    service_settings_command, settings_words, worker_command, worker_line,
};
use crate::engine::action::Action;
use crate::engine::catalog::Service;
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::Engine;
use crate::engine::keys::ServiceKey;
use crate::engine::supervision::host::Host;
use crate::engine::supervision::workers::Worker;
use crate::engine::timers::Timer;
use crate::engine::work::SavedScript;
use protocol::limits::{COMMAND_BYTES_MAX, WORDS_MAX};
use protocol::op::spec::ServiceChange;
use protocol::op::worker_settings::WorkerChange;
use protocol::process::WorkerSettings;
use protocol::{HostName, ServiceName, ServiceSetting, Setting, WorkerId};
use std::collections::VecDeque;
use std::fmt::Write as _;

/// Milliseconds until the next attempt, after the configuration could not be written.
const RETRY_MS: u64 = 5000;

/// Stands before a line that is a comment, because its reader may not see all of it.
const LEFT_OUT: &str = "# left out here are values of variables ('…'), which only the role \
                        operator:danger shows:";

/// How many workers of a service have their lines written at once, with its own.
const STATES_EACH: usize = 16;

impl Engine {
    /// The configuration as a script of commands, with the ids of services and workers.
    pub fn save_script(&self) -> String {
        let mut script = begin_script(self, true);
        while !script.is_done() {
            go_on_script(self, &mut script, usize::MAX);
        }
        script.text
    }
}

/// Begins the script: the settings of the broker. `is_shown`: the values of variables of processes
/// are written, too.
pub(crate) fn begin_script(hub: &Engine, is_shown: bool) -> SavedScript {
    let mut text = String::from("# isect configuration; replay it with: isdclient < FILE\n");
    save_broker(hub, &mut text);
    let hosts = hub.supervision.hosts();
    let hosts =
        hosts.filter(|(_, host)| !host.is_builtin || hub.supervision.is_drained(&host.name));
    let services = hub.catalog.ids().filter(|(_, key)| *key != hub.catalog.op());
    let services: VecDeque<_> = services.map(|(id, _)| id).collect();
    let workers = hub.supervision.workers_by(false).filter(|(_, worker)| worker.is_configured());
    let groups = hub.instances.groups().iter().filter(|(_, group)| group.config.is_some());
    SavedScript {
        text,
        is_shown,
        hosts: hosts.map(|(_, host)| host.name.clone()).collect(),
        states: services.clone(),
        services,
        groups: groups.map(|(name, _)| name.clone()).collect(),
        workers: workers.map(|(_, worker)| worker.id).collect(),
    }
}

/// Writes up to `most` further lines, or a few more. Returns how many.
pub(crate) fn go_on_script(hub: &Engine, script: &mut SavedScript, most: usize) -> usize {
    let mut count = 0;
    let out = &mut script.text;
    while count < most {
        count += 1;
        if let Some(name) = script.hosts.pop_front() {
            let host = hub.supervision.host_named(&name);
            host.into_iter().for_each(|host| save_host(hub, host, out));
        } else if let Some(id) = script.services.pop_front() {
            let key = hub.catalog.find_id(id);
            let is_shown = script.is_shown;
            key.into_iter().for_each(|key| save_service(&hub.catalog[key], is_shown, out));
        } else if let Some(name) = script.groups.pop_front() {
            let group = hub.instances.groups().get(&name);
            let config = group.and_then(|group| group.config.as_ref());
            config.into_iter().for_each(|config| line(out, group_command(&name, config)));
        } else if let Some(id) = script.workers.pop_front() {
            let worker = hub.supervision.find_worker(id).map(|key| hub.supervision.worker(key));
            worker.into_iter().for_each(|worker| save_worker(hub, worker, script.is_shown, out));
        } else if let Some(id) = script.states.pop_front() {
            let key = hub.catalog.find_id(id);
            let lines = key.map_or(0, |key| save_state(hub, key, out));
            count += lines / STATES_EACH;
        } else {
            return count;
        }
    }
    count
}

fn save_host(hub: &Engine, host: &Host, out: &mut String) {
    if !host.is_builtin {
        line(out, host_command(&host.name, &host.address));
    }
    if hub.supervision.is_drained(&host.name) {
        line(out, format_args!("drain host {}", host.name));
    }
}

fn save_service(service: &Service, is_shown: bool, out: &mut String) {
    let settings = ServiceSetting::ALL.iter();
    let settings = settings.filter(|setting| service.settings.is_changed(**setting));
    let settings =
        settings.map(|&setting| ServiceChange::Number(setting, service.settings.get(setting)));
    let topic = service.topic.clone().map(|pattern| ServiceChange::Topic(Some(pattern)));
    let changes: Vec<_> = settings.chain(topic).collect();
    line(out, service_command(service, &changes));
    let of_workers = service.of_workers.changes();
    let is_left_out = |change: &WorkerChange| change.has_hidden() && !is_shown;
    let (left_out, others): (Vec<_>, Vec<_>) = of_workers.into_iter().partition(is_left_out);
    if !others.is_empty() {
        line(out, service_settings_command(&service.name, &others, true));
    }
    if !left_out.is_empty() {
        line(out, LEFT_OUT);
        let command = service_settings_command(&service.name, &left_out, false);
        line(out, format_args!("# {command}"));
    }
}

/// A worker with values that are not shown is a comment as a whole: without them it would be
/// another worker.
fn save_worker(hub: &Engine, worker: &Worker, is_shown: bool, out: &mut String) {
    if is_shown || worker.own.process.env.is_empty() {
        return line(out, worker_line(hub, worker));
    }
    line(out, LEFT_OUT);
    line(out, format_args!("# {}", hidden_worker_line(hub, worker)));
}

/// Whether a service and its workers are stopped, paused, started. Returns how many workers it has.
fn save_state(hub: &Engine, key: ServiceKey, out: &mut String) -> usize {
    let service = &hub.catalog[key];
    // `stop` comes first: it stops the workers, too, and those that are wanted all the same are
    // started after it.
    if service.is_stopped {
        line(out, format_args!("stop {}", service.name));
    }
    if service.is_paused {
        line(out, format_args!("pause {}", service.name));
    }
    let mine = hub.supervision.workers_of(key);
    for (_, worker) in mine.filter(|(_, worker)| worker.is_configured()) {
        if worker.is_paused && !service.is_paused {
            line(out, format_args!("pause {}", worker.id));
        }
        if worker.is_wanted {
            line(out, format_args!("start {}", worker.id));
        }
    }
    hub.supervision.count_of(key)
}

/// Has the changes stored that this step made.
#[cold]
pub(crate) fn begin(hub: &mut Engine) {
    let (number, lines) = hub.store.begin(&mut hub.timers, hub.now);
    hub.out.push(Action::Store { number, lines });
}

/// A write of the configuration has ended: lets the answers go that waited for it. If it failed,
/// records that, tells operators from now on, and tries again.
pub(crate) fn on_stored(hub: &mut Engine, number: u64, result: Result<(), String>) {
    if result.is_err() && hub.store.takes_retry() {
        hub.timers.add(hub.now.plus_millis(RETRY_MS), Timer::Store);
    }
    if hub.store.ended(number, result, &mut hub.out) {
        record_unsaved(hub, "; it is tried again");
    }
}

/// `Timer::StoreWait`: the disk takes no change and gives no error. Operators are answered without
/// it.
pub(crate) fn on_store_wait_due(hub: &mut Engine, number: u64) {
    if hub.store.is_overdue(number, &mut hub.out) {
        record_unsaved(hub, "");
    }
}

/// Records that the configuration is not stored, and why, or that it is again.
fn record_unsaved(hub: &mut Engine, more: &str) {
    let (kind, text) = match hub.store.unsaved() {
        Some(why) => {
            (FactKind::PersistFailed, format!("the configuration was not saved: {why}{more}"))
        }
        None => (FactKind::Changed, "the configuration is saved again".to_owned()),
    };
    hub.record(kind, About::default(), text);
}

fn save_broker(hub: &Engine, out: &mut String) {
    for &setting in Setting::ALL {
        // Settings that can't change while the broker runs come from its command line at each
        // start.
        if setting.row().live && setting != Setting::EventsMax && hub.settings.is_changed(setting) {
            let (row, value) = (setting.row(), hub.settings.get(setting));
            line(out, format_args!("set {} {}", row.name, row.written(value)));
        }
    }
    let is_own = hub.settings.is_changed(Setting::EventsMax);
    if is_own || !hub.facts.recent().kinds().is_empty() {
        line(out, events_command(hub));
    }
    let (count, secs) = (hub.dispatch.buckets().count(), hub.dispatch.buckets().secs());
    if (count, secs) != (6, 10) {
        line(out, format_args!("buckets {count} {secs}"));
    }
    if hub.dispatch.is_strict_priority() {
        line(out, "preempt on");
    }
    if hub.sessions.is_rejecting() {
        line(out, "reject on");
    }
}

/// Refuses a worker whose command would be too long to be read again from the saved configuration.
///
/// # Errors
/// Says how long the command would be, and what to do.
pub(crate) fn check_saved_size(
    place: (&ServiceName, &HostName),
    own: &WorkerSettings,
    path: &str,
    args: &[String],
) -> Result<(), String> {
    let own = own.changes();
    // The name of the command, id, service, host and path.
    let words = 6 + own.len() + args.len();
    let own = settings_words(&own, true);
    // With the longest id, so that a worker that is accepted now can be read again, and cloned.
    check_command(&worker_command(WorkerId(u32::MAX), place, &own, path, args), words)
}

/// Refuses a command that could not be read again.
///
/// # Errors
/// Says how long it is, and what to do.
pub(crate) fn check_command(line: &str, words: usize) -> Result<(), String> {
    let size = line.len();
    if size > COMMAND_BYTES_MAX {
        return Err(format!(
            "the command has {size} bytes as it is saved, with its words quoted; at most \
             {COMMAND_BYTES_MAX} can be read again; use fewer quotation marks and backslashes, or \
             let the program read a file"
        ));
    }
    if words > WORDS_MAX {
        return Err(format!(
            "the command has {words} words as it is saved; at most {WORDS_MAX} can be read again; \
             let the program read a file"
        ));
    }
    Ok(())
}

fn line(out: &mut String, command: impl std::fmt::Display) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "{command}");
}
