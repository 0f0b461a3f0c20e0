//! The configuration as an ordinary script of commands: what `save` prints, what the state
//! directory keeps, and what a restart runs. Requests are not saved; they end with the broker.

use crate::engine::action::Action;
use crate::engine::fact::{About, FactKind};
use crate::engine::hub::{Engine, Out};
use crate::engine::timers::Timer;
use protocol::ids::WorkerId;
use protocol::limits::COMMAND_BYTES_MAX;
use protocol::names::{HostName, ServiceName};
use protocol::op::parse::quote;
use protocol::settings::{ServiceSetting, Setting};
use std::fmt::Write as _;

/// Milliseconds until the next attempt, after the configuration could not be written.
const RETRY_MS: u64 = 5000;

impl Engine {
    /// The configuration as a script of commands, with the ids of services and workers.
    pub fn save_script(&self) -> String {
        let mut out = String::from("# isect configuration; replay it with: isdclient < FILE\n");
        save_broker(self, &mut out);
        for (_, host) in self.supervision.hosts().filter(|(_, host)| !host.is_builtin) {
            line(&mut out, format_args!("config host {} {}", host.name, quote(&host.address)));
        }
        let services = self.catalog.by_id();
        let services: Vec<_> =
            services.into_iter().filter(|(key, _)| *key != self.catalog.op()).collect();
        for (_, service) in &services {
            let mut settings = String::new();
            for &setting in ServiceSetting::ALL {
                if service.settings.is_changed(setting) {
                    settings +=
                        &format!(" {}={}", setting.row().name, service.settings.get(setting));
                }
            }
            line(
                &mut out,
                format_args!("config service #{} {}{settings}", service.id, service.name),
            );
        }
        let configured =
            || self.supervision.workers().filter(|(_, worker)| !worker.is_self_started);
        for (_, worker) in configured() {
            let service = &self.catalog[worker.service].name;
            let place = (service, &worker.host);
            let command = worker_command(worker.id, place, &worker.path, &worker.args);
            line(&mut out, format_args!("{command}"));
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
            for (_, worker) in configured().filter(|(_, worker)| worker.service == *key) {
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

/// Has the configuration stored that this step changed.
#[cold]
pub(crate) fn begin(hub: &mut Engine, out: Out<'_>) {
    let number = hub.store.begin(&mut hub.timers, hub.now);
    out.push(Action::Store { number });
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
        let kinds: String =
            hub.facts.recent().kinds().iter().map(|kind| format!(" {}", kind.row().name)).collect();
        line(out, format_args!("config events {}{kinds}", hub.facts.recent().max()));
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

/// The command that makes a worker again. It may be longer than the one that made it, because words
/// are quoted in only one way.
fn worker_command(
    id: WorkerId,
    (service, host): (&ServiceName, &HostName),
    path: &str,
    args: &[String],
) -> String {
    let mut out = format!("config worker #{id} {service} {host} {}", quote(path));
    for arg in args {
        out.push(' ');
        out += &quote(arg);
    }
    out
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
