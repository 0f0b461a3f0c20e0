//! The operator's verbs: what they change, and the answers that the manual prints for them. Each
//! change leaves a fact that names who asked. `op_config` makes and deletes services, workers and
//! hosts.

use super::action::{Action, BrokerExit, Origin};
use super::context::context;
use super::dispatch::buckets::{self, Buckets};
use super::dispatch::seat::WorkerList;
use super::fact::{About, FactKind};
use super::hub::{Engine, Out};
use super::keys::{ServiceKey, WorkerKey};
use super::op_read::{counted, number, text};
use super::op_run::{OpResult, not_found, refused};
use super::op_settings::setting_value;
use super::supervision::workers::ProcessState;
use protocol::bodies::ErrorBody;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::{ClientId, WorkerId};
use protocol::names::ServiceName;
use protocol::op::parse::OpError;
use protocol::op::reply::{Block, OpReply, Value};
use protocol::op::spec::{ShutdownWhat, Target};
use protocol::settings::Setting;

impl Engine {
    /// The workers that a command is for, newest first, as the original broker listed them.
    pub(crate) fn targets(&self, target: &Target) -> Result<Vec<WorkerKey>, OpError> {
        let all = || self.supervision.workers().rev();
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
                self.catalog.keys().into_iter().filter(|&key| key != self.catalog.op()).collect()
            }
            Target::Service(name) => vec![self.plain_service(name)?],
            Target::Worker(_) => Vec::new(),
        })
    }

    /// The manual's line about one worker, as in `paused worker->id = 1, worker->name = echo`.
    fn worker_line(&self, verb: &'static str, key: WorkerKey) -> Block {
        let worker = self.supervision.worker(key);
        let name = &self.catalog[worker.service].name;
        Block::Line {
            name: verb,
            text: format!("{verb} worker->id = {}, worker->name = {name}", worker.id),
            fields: vec![("worker", number(worker.id.0)), ("service", text(name))],
        }
    }

    pub(crate) fn none_there(&self, target: &Target) -> OpReply {
        let name = match target {
            Target::Service(name) => format!("service '{name}' has no workers"),
            Target::All | Target::Worker(_) => "there are no workers".to_owned(),
        };
        OpReply::line("note", name, vec![])
    }

    pub(crate) fn pause(&mut self, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
        let (keys, services) = (self.targets(target)?, self.target_services(target)?);
        self.changed(origin, format!("pause {}", target_word(target)), out);
        let said = self.said(origin, &format!("'pause {}'", target_word(target)));
        for service in services {
            self.catalog[service].is_paused = true;
            self.catalog[service].pause_act = said.clone();
        }
        let mut blocks = Vec::new();
        for key in keys {
            if matches!(target, Target::Worker(_)) {
                self.supervision.pause_worker(key, &said);
            }
            self.supervision.update_available(key, context!(self, out));
            blocks.push(self.worker_line("paused", key));
        }
        Ok(if blocks.is_empty() { self.none_there(target) } else { OpReply { blocks } })
    }

    pub(crate) fn ready(&mut self, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
        let (keys, services) = (self.targets(target)?, self.target_services(target)?);
        if let (Target::Worker(id), [key]) = (target, keys.as_slice()) {
            let service = &self.catalog[self.supervision.worker(*key).service];
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
            self.catalog[service].is_paused = false;
            self.catalog[service].open_act = said.clone();
        }
        for &key in &keys {
            self.supervision.ready_worker(key, context!(self, out));
        }
        match target {
            Target::All | Target::Service(_) => Ok(OpReply::ok()),
            Target::Worker(_) => Ok(OpReply {
                blocks: keys.iter().map(|&key| self.worker_line("readied", key)).collect(),
            }),
        }
    }

    pub(crate) fn start(&mut self, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
        let (keys, mut services) = (self.targets(target)?, self.target_services(target)?);
        self.supervision.all_startable(&keys)?;
        self.changed(origin, format!("start {}", target_word(target)), out);
        // A worker that is started serves its service, so that is not stopped any more.
        services.extend(keys.iter().map(|&key| self.supervision.worker(key).service));
        let said = self.said(origin, &format!("'start {}'", target_word(target)));
        for service in services {
            if std::mem::take(&mut self.catalog[service].is_stopped) {
                self.catalog[service].open_act = said.clone();
            }
        }
        // Oldest first, so that the worker that was configured first is ready first.
        for key in keys.into_iter().rev() {
            self.supervision.start_worker(key, context!(self, out));
            if *origin == Origin::State {
                self.supervision.await_earlier(key);
            }
        }
        Ok(OpReply::ok())
    }

    pub(crate) fn stop(&mut self, origin: &Origin, target: &Target, out: Out<'_>) -> OpResult {
        let (keys, services) = (self.targets(target)?, self.target_services(target)?);
        self.changed(origin, format!("stop {}", target_word(target)), out);
        let said = self.said(origin, &format!("'stop {}'", target_word(target)));
        for service in services {
            self.catalog[service].is_stopped = true;
            self.catalog[service].stop_act = said.clone();
            let name = &self.catalog[service].name;
            let text = format!("service '{name}' was stopped while the request waited");
            let error = ErrorBody::new(ErrorCode::ServiceStopped, text);
            self.dispatch.fail_waiting(Some(service), &error, context!(self, out));
        }
        for key in keys {
            // A reply that nobody waits for any more need not be finished.
            let is_busy = self.dispatch.current(key).is_some_and(|t| !t.stage.is_ended());
            self.supervision.stop_worker(key, (is_busy, &said), context!(self, out));
        }
        Ok(OpReply::ok())
    }

    pub(crate) fn idle(&mut self, origin: &Origin, id: WorkerId, out: Out<'_>) -> OpResult {
        let key = self.worker_named(id)?;
        if self.dispatch.seat(key).list != WorkerList::Busy {
            return Err(refused(format!(
                "worker {id} is not busy; idle is for busy workers ('workers busy')"
            )));
        }
        let about =
            About { who: Some(origin.who()), ..self.supervision.about_worker(key, &self.catalog) };
        self.record(
            FactKind::Intervention,
            about,
            format!("worker {id} was idled while it was busy"),
            out,
        );
        self.dispatch.intervene(key, context!(self, out));
        Ok(OpReply::line("idled", format!("idled worker {id}"), vec![("worker", number(id.0))]))
    }

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
        let act = blocked.then(|| self.said(origin, "'block'"));
        self.sessions.set_block_act(key, act);
        self.dispatch.set_blocked(key, blocked, context!(self, out));
        Ok(client_line(verb, id))
    }

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

    pub(crate) fn pri(
        &mut self,
        origin: &Origin,
        id: ClientId,
        priority: u8,
        out: Out<'_>,
    ) -> OpResult {
        let key = self.client_named(id)?;
        self.noted(origin, format!("pri {id} {priority}"), out);
        self.dispatch.set_priority(key, priority);
        let fields = vec![("client", number(id.0)), ("priority", number(priority))];
        Ok(OpReply::line(
            "pri",
            format!("client->id = {id}, client->priority = {priority}"),
            fields,
        ))
    }

    pub(crate) fn change_service(
        &mut self,
        origin: &Origin,
        id: ClientId,
        name: &ServiceName,
        out: Out<'_>,
    ) -> OpResult {
        let key = self.client_named(id)?;
        let service = self.plain_service(name)?;
        if self.dispatch.caller(key).service == self.catalog.op() {
            return Err(refused(format!(
                "client {id} is an operator; operators can't be moved, only deleted ('delete client {id}')"
            )));
        }
        self.noted(origin, format!("service {id} {name}"), out);
        self.dispatch.move_client(key, service, context!(self, out));
        let fields = vec![("client", number(id.0)), ("service", text(name))];
        Ok(OpReply::line("moved", format!("client->id = {id}, client->service = {name}"), fields))
    }

    pub(crate) fn change_buckets(
        &mut self,
        origin: &Origin,
        size: Option<(u32, u32)>,
        out: Out<'_>,
    ) -> OpReply {
        if let Some((count, secs)) = size {
            let (count, secs) =
                (count.clamp(1, buckets::COUNT_MAX), secs.clamp(1, buckets::SECS_MAX));
            *self.dispatch.buckets_mut() = Buckets::new(count, secs, self.now);
            self.changed(origin, format!("buckets {count} {secs}"), out);
        }
        self.dispatch.buckets_mut().turn(self.now);
        let buckets = self.dispatch.buckets();
        let fields = vec![
            ("NumBuckets", number(buckets.count())),
            ("BucketSecs", number(buckets.secs())),
            ("PeakBucket", number(buckets.peak())),
            ("Buckets", Value::Numbers(buckets.counts())),
        ];
        OpReply::block(Block::Record { name: "buckets", prefix: "isdData.", width: 24, fields })
    }

    pub(crate) fn preempt(&mut self, origin: &Origin, on: Option<bool>, out: Out<'_>) -> OpReply {
        if let Some(on) = on {
            self.dispatch.set_preempt(on);
            self.changed(origin, format!("preempt {}", switch(on)), out);
        }
        let is_preempt = self.dispatch.is_preempt();
        let word = switch(is_preempt);
        OpReply::line(
            "preempt",
            format!("preempt is {word}"),
            vec![("preempt", Value::Flag(is_preempt))],
        )
    }

    pub(crate) fn reject(&mut self, origin: &Origin, on: bool, out: Out<'_>) -> OpReply {
        self.sessions.reject(on);
        self.changed(origin, format!("reject {}", switch(on)), out);
        let text = if on { "rejecting new client logins" } else { "accepting new client logins" };
        OpReply::line("reject", text, vec![("reject", Value::Flag(on))])
    }

    pub(crate) fn reset(&mut self, origin: &Origin, out: Out<'_>) -> OpReply {
        self.dispatch.reset();
        self.supervision.reset();
        self.noted(origin, "reset".into(), out);
        OpReply::ok()
    }

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
            self.heartbeat_changed(out);
        }
        self.dispatch.drop_poison(self.settings.get(Setting::PoisonMax));
        self.changed(origin, format!("set {} {value}", row.name), out);
        let fields = vec![
            ("setting", text(row.name)),
            ("value", setting_value(row, value)),
            ("unit", Value::Word(row.unit.word())),
        ];
        Ok(OpReply::line("set", format!("{} = {value} {}", row.name, row.unit.word()), fields))
    }

    pub(crate) fn send_reinit(
        &mut self,
        origin: &Origin,
        target: &Target,
        out: Out<'_>,
    ) -> OpResult {
        let keys = self.targets(target)?;
        let mut count = 0;
        for key in keys {
            let is_ready = self.supervision.worker(key).state == ProcessState::Ready;
            if let Some(link) = self.dispatch.seat(key).link.filter(|_| is_ready) {
                self.dispatch.count_sent(key);
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

    pub(crate) fn shutdown(
        &mut self,
        origin: &Origin,
        what: ShutdownWhat,
        out: Out<'_>,
    ) -> OpResult {
        let links = match what {
            ShutdownWhat::All => {
                let seats = self.supervision.workers().map(|(key, _)| self.dispatch.seat(key));
                seats.filter_map(|seat| seat.link).collect()
            }
            ShutdownWhat::Fd(fd) => {
                vec![self.sessions.link_with_fd(fd).ok_or_else(|| {
                    not_found(format!(
                        "no connection has fd {fd}; 'workers' and 'clients' show the column fd"
                    ))
                })?]
            }
        };
        let count = links.len();
        for link in links {
            match self.sessions.end(link) {
                Some(super::sessions::connection::End::Worker(worker)) => {
                    self.supervision.shut_worker(worker, context!(self, out))
                }
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

    pub(crate) fn halt(&mut self, origin: &Origin, out: Out<'_>) -> OpReply {
        self.noted(origin, "halt".into(), out);
        self.begin_shutdown(1, &format!("halt by {}", origin.who()), false, out);
        OpReply::line("halt", "isectd ends", vec![])
    }

    pub(crate) fn abort(&mut self, origin: &Origin, out: Out<'_>) -> OpReply {
        self.noted(origin, "abort".into(), out);
        out.push(Action::End(BrokerExit::Abort));
        OpReply::line("abort", "isectd aborts", vec![])
    }
}

const fn switch(on: bool) -> &'static str {
    if on { "on" } else { "off" }
}

fn client_line(verb: &'static str, id: ClientId) -> OpReply {
    OpReply::line(verb, format!("{verb} client->id = {id}"), vec![("client", number(id.0))])
}

fn target_word(target: &Target) -> String {
    match target {
        Target::All => "all".into(),
        Target::Service(name) => name.to_string(),
        Target::Worker(id) => id.to_string(),
    }
}
