//! The configuration as an ordinary script of commands: what `save` prints, what the state
//! directory keeps with the changes since, and what a restart runs. Requests are not saved; they
//! end with the broker.

use super::lines::{events_command, host_command, service_command, worker_command, worker_line};
use crate::engine::action::Action;
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::{Engine, Out};
use crate::engine::keys::ServiceKey;
use crate::engine::supervision::workers::Worker;
use crate::engine::timers::Timer;
use protocol::ids::WorkerId;
use protocol::limits::COMMAND_BYTES_MAX;
use protocol::names::{HostName, ServiceName};
use protocol::settings::{ServiceSetting, Setting};
use std::collections::BTreeMap;
use std::fmt::Write as _;

/// Milliseconds until the next attempt, after the configuration could not be written.
const RETRY_MS: u64 = 5000;

impl Engine {
    /// The configuration as a script of commands, with the ids of services and workers.
    pub fn save_script(&self) -> String {
        let mut out = String::from("# isect configuration; replay it with: isdclient < FILE\n");
        save_broker(self, &mut out);
        for (_, host) in self.supervision.hosts().filter(|(_, host)| !host.is_builtin) {
            line(&mut out, format_args!("{}", host_command(&host.name, &host.address)));
        }
        let services = self.catalog.by_id();
        let services: Vec<_> =
            services.into_iter().filter(|(key, _)| *key != self.catalog.op()).collect();
        for (_, service) in &services {
            let settings = ServiceSetting::ALL.iter();
            let settings = settings.filter(|setting| service.settings.is_changed(**setting));
            let settings: Vec<_> =
                settings.map(|&setting| (setting, service.settings.get(setting))).collect();
            line(&mut out, format_args!("{}", service_command(service, &settings)));
        }
        let mut of_service: BTreeMap<ServiceKey, Vec<&Worker>> = BTreeMap::new();
        for (_, worker) in self.supervision.workers().filter(|(_, w)| !w.is_self_started) {
            line(&mut out, format_args!("{}", worker_line(self, worker)));
            of_service.entry(worker.service).or_default().push(worker);
        }
        for (key, service) in &services {
            // `stop` comes first: it stops the workers, too, and those that are wanted all the same
            // are started after it.
            if service.is_stopped {
                line(&mut out, format_args!("stop {}", service.name));
            }
            if service.is_paused {
                line(&mut out, format_args!("pause {}", service.name));
            }
            for worker in of_service.get(key).into_iter().flatten() {
                if worker.is_paused && !service.is_paused {
                    line(&mut out, format_args!("pause {}", worker.id));
                }
                if worker.is_wanted {
                    line(&mut out, format_args!("start {}", worker.id));
                }
            }
        }
        out
    }
}

/// Has the changes stored that this step made.
#[cold]
pub(crate) fn begin(hub: &mut Engine, out: Out<'_>) {
    let (number, lines) = hub.store.begin(&mut hub.timers, hub.now);
    out.push(Action::Store { number, lines });
}

/// A write of the configuration has ended: lets the answers go that waited for it. If it failed,
/// records that, tells operators from now on, and tries again.
pub(crate) fn on_stored(hub: &mut Engine, number: u64, result: Result<(), String>, out: Out<'_>) {
    if result.is_err() && hub.store.takes_retry() {
        hub.timers.add(hub.now.plus_millis(RETRY_MS), Timer::Store);
    }
    if hub.store.ended(number, result, out) {
        record_unsaved(hub, "; it is tried again", out);
    }
}

/// `Timer::StoreWait`: the disk takes no change and gives no error. Operators are answered without
/// it.
pub(crate) fn on_store_wait_due(hub: &mut Engine, number: u64, out: Out<'_>) {
    if hub.store.is_overdue(number, out) {
        record_unsaved(hub, "", out);
    }
}

/// Records that the configuration is not stored, and why, or that it is again.
fn record_unsaved(hub: &mut Engine, more: &str, out: Out<'_>) {
    let (kind, text) = match hub.store.unsaved() {
        Some(why) => {
            (FactKind::PersistFailed, format!("the configuration was not saved: {why}{more}"))
        }
        None => (FactKind::Changed, "the configuration is saved again".to_owned()),
    };
    hub.record(kind, About::default(), text, out);
}

fn save_broker(hub: &Engine, out: &mut String) {
    for &setting in Setting::ALL {
        // Settings that can't change while the broker runs come from its command line at each
        // start.
        if setting.row().live && setting != Setting::EventsMax && hub.settings.is_changed(setting) {
            line(out, format_args!("set {} {}", setting.row().name, hub.settings.get(setting)));
        }
    }
    if hub.facts.recent().max() > 0 {
        line(out, format_args!("{}", events_command(hub)));
    }
    if (hub.dispatch.buckets().count(), hub.dispatch.buckets().secs()) != (6, 10) {
        line(
            out,
            format_args!(
                "buckets {} {}",
                hub.dispatch.buckets().count(),
                hub.dispatch.buckets().secs()
            ),
        );
    }
    if hub.dispatch.is_strict_priority() {
        line(out, format_args!("preempt on"));
    }
    if hub.sessions.is_rejecting() {
        line(out, format_args!("reject on"));
    }
}

/// Refuses a worker whose command would be too long to be read again from the saved configuration.
///
/// # Errors
/// Says how long the command would be, and what to do.
pub(crate) fn check_saved_size(
    place: (&ServiceName, &HostName),
    path: &str,
    args: &[String],
) -> Result<(), String> {
    // With the longest id, so that a worker that is accepted now can be read again, and cloned.
    let size = worker_command(WorkerId(u32::MAX), place, path, args).len();
    if size <= COMMAND_BYTES_MAX {
        return Ok(());
    }
    Err(format!(
        "the command has {size} bytes as it is saved, with its words quoted; at most \
         {COMMAND_BYTES_MAX} can be read again; use fewer quotation marks and backslashes, or let \
         the program read a file"
    ))
}

fn line(out: &mut String, command: std::fmt::Arguments<'_>) {
    // Writing to a String can't fail.
    let _ = writeln!(out, "{command}");
}
