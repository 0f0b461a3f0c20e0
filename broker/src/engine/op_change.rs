//! The operator's verbs: what they change, and the answers that the manual prints for them. Each
//! change leaves a fact that names who asked. `op_config` makes and deletes services, workers and
//! hosts.

use super::action::{Action, BrokerExit, Origin};
use super::buckets::{self, Buckets};
use super::fact::{About, FactKind};
use super::keys::{ClientKey, ServiceKey, WorkerKey};
use super::op_read::{counted, number, text};
use super::op_run::{OpResult, not_found, refused};
use super::op_settings::setting_value;
use super::workers::{ProcessState, WorkerList};
use super::{Engine, Out};
use protocol::frame::Frame;
use protocol::ids::{ClientId, WorkerId};
use protocol::names::ServiceName;
use protocol::op::parse::OpError;
use protocol::op::reply::{Block, OpReply, Value};
use protocol::op::spec::{ShutdownWhat, Target};
use protocol::settings::Setting;

impl Engine {
    /// Records a change that is not part of the configuration, so that it is not saved.
    pub(crate) fn noted(&mut self, origin: &Origin, what: String, out: Out<'_>) {
        let about = About { who: Some(Self::who(origin)), ..About::default() };
        self.record(FactKind::Changed, about, what, out);
    }

    /// The workers that a command is for, newest first, as the original broker listed them.
    pub(crate) fn targets(&self, target: &Target) -> Result<Vec<WorkerKey>, OpError> {
        let all = || self.workers.by_id().rev();
        Ok(match target {
            Target::All => all().map(|(key, _)| key).collect(),
            Target::Service(name) => {
                let service = self.plain_service(name)?;
                all().filter(|(_, w)| w.service == service).map(|(key, _)| key).collect()
            }
            Target::Worker(id) => vec![self.worker_named(*id)?],
        })
    }

    /// The services that a command is for; none if it is for one worker.
    fn target_services(&self, target: &Target) -> Result<Vec<ServiceKey>, OpError> {
        Ok(match target {
            Target::All => {
                self.registry.keys().into_iter().filter(|&key| key != self.op_service).collect()
            }
            Target::Service(name) => vec![self.plain_service(name)?],
            Target::Worker(_) => Vec::new(),
        })
    }

    /// The manual's line about one worker, as in `paused worker->id = 1, worker->name = echo`.
    fn worker_line(&self, verb: &'static str, key: WorkerKey) -> Block {
        let worker = &self.workers[key];
        let name = &self.registry[worker.service].name;
        Block::Line {
            name: verb,
            text: format!("{verb} worker->id = {}, worker->name = {name}", worker.id),
            fields: vec![("worker", number(worker.id.0)), ("service", text(name))],
        }
    }

    /// The answer when there is no worker that the command is for.
    pub(crate) fn none_there(&self, target: &Target) -> OpReply {
        let name = match target {
            Target::Service(name) => format!("service '{name}' has no workers"),
            Target::All | Target::Worker(_) => "there are no workers".to_owned(),
        };
        OpReply::line("note", name, vec![])
    }

    /// `pause`: workers, or all workers of services, take no requests until `ready`.
    pub(crate) fn pause(&mut self, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
        let (keys, services) = (self.targets(target)?, self.target_services(target)?);
        self.changed(origin, format!("pause {}", target_word(target)), out);
        let said = self.said(origin, &format!("'pause {}'", target_word(target)));
        for service in services {
            self.registry[service].is_paused = true;
            self.registry[service].pause_act = said.clone();
        }
        let mut blocks = Vec::new();
        for key in keys {
            if matches!(target, Target::Worker(_)) {
                self.workers[key].is_paused = true;
                self.workers[key].explain(&said);
            }
            self.settle(key);
            blocks.push(self.worker_line("paused", key));
        }
        Ok(if blocks.is_empty() { self.none_there(target) } else { OpReply { blocks } })
    }

    /// `ready`: ends a pause, and starts workers that ended meanwhile.
    pub(crate) fn ready(&mut self, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
        let (keys, services) = (self.targets(target)?, self.target_services(target)?);
        if let (Target::Worker(id), [key]) = (target, keys.as_slice()) {
            let service = &self.registry[self.workers[*key].service];
            if service.is_paused {
                return Err(refused(format!(
                    "worker {id} is of service '{0}', which is paused; 'ready {0}' readies it",
                    service.name
                )));
            }
        }
        self.changed(origin, format!("ready {}", target_word(target)), out);
        let said = self.said(origin, &format!("'ready {}'", target_word(target)));
        for service in services {
            self.registry[service].is_paused = false;
            self.registry[service].open_act = said.clone();
        }
        for &key in &keys {
            self.ready_worker(key, out);
        }
        match target {
            Target::All | Target::Service(_) => Ok(OpReply::ok()),
            Target::Worker(_) => Ok(OpReply {
                blocks: keys.iter().map(|&key| self.worker_line("readied", key)).collect(),
            }),
        }
    }

    /// `start`: workers are wanted from now on, and their services are open.
    pub(crate) fn start(&mut self, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
        let (keys, mut services) = (self.targets(target)?, self.target_services(target)?);
        self.all_startable(&keys)?;
        self.changed(origin, format!("start {}", target_word(target)), out);
        // A worker that is started serves its service, so that is not stopped any more.
        services.extend(keys.iter().map(|&key| self.workers[key].service));
        let said = self.said(origin, &format!("'start {}'", target_word(target)));
        for service in services {
            if std::mem::take(&mut self.registry[service].is_stopped) {
                self.registry[service].open_act = said.clone();
            }
        }
        // Oldest first, so that the worker that was configured first is ready first.
        for key in keys.into_iter().rev() {
            self.start_worker(key, out);
            let worker = &mut self.workers[key];
            worker.is_awaited |= *origin == Origin::State && worker.state == ProcessState::Down;
        }
        Ok(OpReply::ok())
    }

    /// `stop`: workers end after the reply to their request; stopped services refuse requests.
    pub(crate) fn stop(&mut self, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
        let (keys, services) = (self.targets(target)?, self.target_services(target)?);
        self.changed(origin, format!("stop {}", target_word(target)), out);
        let said = self.said(origin, &format!("'stop {}'", target_word(target)));
        for service in services {
            self.registry[service].is_stopped = true;
            self.registry[service].stop_act = said.clone();
            self.fail_waiting(service, out);
        }
        for key in keys {
            self.workers[key].explain(&said);
            self.stop_worker(key, out);
        }
        Ok(OpReply::ok())
    }

    /// `idle`: takes the request away from a busy worker.
    pub(crate) fn idle(&mut self, origin: &Origin, id: WorkerId, out: Out<'_>) -> OpResult {
        let key = self.worker_named(id)?;
        if self.workers[key].list != WorkerList::Busy {
            return Err(refused(format!(
                "worker {id} is not busy; idle is for busy workers ('workers busy')"
            )));
        }
        let about = About { who: Some(Self::who(origin)), ..self.about_worker(key) };
        self.record(
            FactKind::Intervention,
            about,
            format!("worker {id} was idled while it was busy"),
            out,
        );
        self.intervene(key, out);
        Ok(OpReply::line("idled", format!("idled worker {id}"), vec![("worker", number(id.0))]))
    }

    /// `block` and `unblock`: requests of a client wait, or go on.
    pub(crate) fn change_blocked(
        &mut self,
        origin: &Origin,
        id: ClientId,
        blocked: bool,
        out: Out<'_>,
    ) -> OpResult {
        let key = self.client_named(id)?;
        let verb = if blocked { "blocked" } else { "unblocked" };
        self.noted(origin, format!("{verb} client {id}"), out);
        self.clients[key].block_act = blocked.then(|| Box::new(self.said(origin, "'block'")));
        self.set_blocked(key, blocked, out);
        Ok(client_line(verb, id))
    }

    /// `delete client`: closes the connection of a client.
    pub(crate) fn delete_client_command(
        &mut self,
        origin: &Origin,
        id: ClientId,
        out: Out<'_>,
    ) -> OpResult {
        let key = self.client_named(id)?;
        self.noted(origin, format!("delete client {id}"), out);
        self.delete_client(key, out);
        Ok(OpReply::line("deleted", format!("client {id} deleted"), vec![("client", number(id.0))]))
    }

    /// `pri`: sets the priority of a client.
    pub(crate) fn pri(
        &mut self,
        origin: &Origin,
        id: ClientId,
        priority: u8,
        out: Out<'_>,
    ) -> OpResult {
        let key = self.client_named(id)?;
        self.noted(origin, format!("pri {id} {priority}"), out);
        self.set_priority(key, priority);
        let fields = vec![("client", number(id.0)), ("priority", number(priority))];
        Ok(OpReply::line(
            "pri",
            format!("client->id = {id}, client->priority = {priority}"),
            fields,
        ))
    }

    /// `service CLIENT NAME`: moves a client to another service.
    pub(crate) fn change_service(
        &mut self,
        origin: &Origin,
        id: ClientId,
        name: &ServiceName,
        out: Out<'_>,
    ) -> OpResult {
        let key = self.client_named(id)?;
        let service = self.plain_service(name)?;
        if self.clients[key].service == self.op_service {
            return Err(refused(format!(
                "client {id} is an operator; operators can't be moved, only deleted ('delete client {id}')"
            )));
        }
        self.noted(origin, format!("service {id} {name}"), out);
        self.move_client(key, service, out);
        let fields = vec![("client", number(id.0)), ("service", text(name))];
        Ok(OpReply::line("moved", format!("client->id = {id}, client->service = {name}"), fields))
    }

    /// `buckets`: sets number and length of the windows, if given, and shows the histogram.
    pub(crate) fn change_buckets(
        &mut self,
        origin: &Origin,
        size: Option<(u32, u32)>,
        out: Out<'_>,
    ) -> OpReply {
        if let Some((count, secs)) = size {
            let (count, secs) =
                (count.clamp(1, buckets::COUNT_MAX), secs.clamp(1, buckets::SECS_MAX));
            self.buckets = Buckets::new(count, secs, self.now);
            self.changed(origin, format!("buckets {count} {secs}"), out);
        }
        self.buckets.turn(self.now);
        let fields = vec![
            ("NumBuckets", number(self.buckets.count())),
            ("BucketSecs", number(self.buckets.secs())),
            ("PeakBucket", number(self.buckets.peak())),
            ("Buckets", Value::Numbers(self.buckets.counts())),
        ];
        OpReply::block(Block::Record { name: "buckets", prefix: "isdData.", width: 24, fields })
    }

    /// `preempt`: sets whether priority alone decides who is served next, if given, and shows it.
    pub(crate) fn preempt(&mut self, origin: &Origin, on: Option<bool>, out: Out<'_>) -> OpReply {
        if let Some(on) = on {
            self.is_strict_priority = on;
            self.changed(origin, format!("preempt {}", switch(on)), out);
        }
        let word = switch(self.is_strict_priority);
        OpReply::line(
            "preempt",
            format!("preempt is {word}"),
            vec![("preempt", Value::Flag(self.is_strict_priority))],
        )
    }

    /// `reject`: refuses new clients, or lets them in again.
    pub(crate) fn reject(&mut self, origin: &Origin, on: bool, out: Out<'_>) -> OpReply {
        self.is_rejecting = on;
        self.changed(origin, format!("reject {}", switch(on)), out);
        let text = if on { "rejecting new client logins" } else { "accepting new client logins" };
        OpReply::line("reject", text, vec![("reject", Value::Flag(on))])
    }

    /// `reset`: sets the figures of services, workers and clients to 0.
    pub(crate) fn reset(&mut self, origin: &Origin, out: Out<'_>) -> OpReply {
        for key in self.registry.keys() {
            let figures = &mut self.registry[key].figures;
            (figures.completed, figures.late) = (0, 0);
            (figures.retried, figures.denied) = (0, 0);
            figures.failed.clear();
            figures.wait.reset();
            figures.run.reset();
        }
        for key in self.workers.keys() {
            let worker = &mut self.workers[key];
            (worker.transactions, worker.from_count, worker.to_count) = (0, 0, 0);
            (worker.restarts, worker.busy_micros, worker.last_micros, worker.late) = (0, 0, 0, 0);
        }
        let clients: Vec<ClientKey> = self.clients.by_id().map(|(key, _)| key).collect();
        for key in clients {
            let client = &mut self.clients[key];
            (client.requests, client.answered, client.failed) = (0, 0, 0);
        }
        self.buckets.reset();
        // Requests under way stay counted, so that accepted = ended + in flight still holds.
        let in_flight = self.totals.accepted - self.totals.ended;
        self.totals = super::Totals { accepted: in_flight, ..super::Totals::default() };
        self.noted(origin, "reset".into(), out);
        OpReply::ok()
    }

    /// `set`: changes a setting of the broker, if it can change while the broker runs.
    pub(crate) fn change_setting(
        &mut self,
        origin: &Origin,
        setting: Setting,
        value: u64,
        out: Out<'_>,
    ) -> OpResult {
        let row = setting.row();
        if !row.live {
            return Err(refused(format!(
                "{} can't change while the broker runs; start it with --set {0}={value}",
                row.name
            )));
        }
        if setting == Setting::EventsMax {
            return self.config_events(origin, value, &[], out);
        }
        self.settings.set(setting, value);
        if matches!(setting, Setting::HeartbeatMs | Setting::SilenceMs) {
            self.heartbeat_changed();
        }
        while self.poison.len() as u64 > self.settings.get(Setting::PoisonMax) {
            self.poison.pop_front();
        }
        self.changed(origin, format!("set {} {value}", row.name), out);
        let fields = vec![
            ("setting", text(row.name)),
            ("value", setting_value(row, value)),
            ("unit", Value::Word(row.unit.word())),
        ];
        Ok(OpReply::line("set", format!("{} = {value} {}", row.name, row.unit.word()), fields))
    }

    /// `send … reinit`: sends ready workers a `reinit` frame.
    pub(crate) fn send_reinit(
        &mut self,
        origin: &Origin,
        target: &Target,
        out: Out<'_>,
    ) -> OpResult {
        let keys = self.targets(target)?;
        let mut count = 0;
        for key in keys {
            let worker = &mut self.workers[key];
            if let Some(link) = worker.link.filter(|_| worker.state == ProcessState::Ready) {
                worker.to_count += 1;
                count += 1;
                out.push(Action::Send { link, frame: Frame::Reinit });
            }
        }
        self.noted(
            origin,
            format!("send {} reinit: to {}", target_word(target), counted(count, "worker")),
            out,
        );
        if count == 0 {
            return Err(refused(format!(
                "none of the workers of '{}' is connected; 'workers lazy' says why",
                target_word(target)
            )));
        }
        Ok(OpReply::line(
            "sent",
            format!("reinit sent to {}", counted(count, "worker")),
            vec![("workers", number(count))],
        ))
    }

    /// `shutdown`: shuts the sockets of all workers, or one socket, for writing.
    pub(crate) fn shutdown(
        &mut self,
        origin: &Origin,
        what: ShutdownWhat,
        out: Out<'_>,
    ) -> OpResult {
        let links = match what {
            ShutdownWhat::All => self.workers.by_id().filter_map(|(_, w)| w.link).collect(),
            ShutdownWhat::Fd(fd) => {
                vec![self.links.with_fd(fd).ok_or_else(|| {
                    not_found(format!(
                        "no connection has fd {fd}; 'workers' and 'clients' show the column fd"
                    ))
                })?]
            }
        };
        let count = links.len();
        for link in links {
            match self.links.get(link).map(|slot| slot.end) {
                Some(super::links::End::Worker(worker)) => self.shut_worker(worker, out),
                Some(_) | None => out.push(Action::ShutWrite { link }),
            }
        }
        self.noted(origin, format!("shutdown of {} for writing", counted(count, "socket")), out);
        Ok(OpReply::line(
            "shutdown",
            format!("{} shut for writing", counted(count, "socket")),
            vec![("sockets", number(count))],
        ))
    }

    /// `halt`: ends the broker with status 1, without waiting for requests.
    pub(crate) fn halt(&mut self, origin: &Origin, out: Out<'_>) -> OpReply {
        self.noted(origin, "halt".into(), out);
        self.begin_shutdown(1, &format!("halt by {}", Self::who(origin)), false, out);
        OpReply::line("halt", "isectd ends", vec![])
    }

    /// `abort`: ends the broker at once, with a core file.
    pub(crate) fn abort(&mut self, origin: &Origin, out: Out<'_>) -> OpReply {
        self.noted(origin, "abort".into(), out);
        out.push(Action::End(BrokerExit::Abort));
        OpReply::line("abort", "isectd aborts", vec![])
    }
}

/// A switch as operators write it.
const fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

/// The manual's line about one client, as in `blocked client->id = 1`.
fn client_line(verb: &'static str, id: ClientId) -> OpReply {
    OpReply::line(verb, format!("{verb} client->id = {id}"), vec![("client", number(id.0))])
}

/// A target as operators write it.
fn target_word(target: &Target) -> String {
    match target {
        Target::All => "all".into(),
        Target::Service(name) => name.to_string(),
        Target::Worker(id) => id.to_string(),
    }
}
