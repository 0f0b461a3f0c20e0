//! Commands that make, change and delete services, workers and hosts, and `config events`.

use super::action::Origin;
use super::op_read::{counted, number, text};
use super::op_run::{OpResult, fact_kinds, refused};
use super::save::check_saved_size;
use super::workers::{WorkerList, WorkerSpec};
use super::{Engine, Out};
use protocol::ids::{ServiceId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::op::reply::OpReply;
use protocol::settings::{ServiceSetting, Setting};

impl Engine {
    /// `config service`: makes a service, or changes the settings of one that exists.
    pub(crate) fn config_service(
        &mut self,
        origin: &Origin,
        (id, name): (Option<ServiceId>, ServiceName),
        settings: &[(ServiceSetting, u64)],
        out: Out<'_>,
    ) -> OpResult {
        let known = if name.is_op() {
            Some(self.plain_service(&name)?)
        } else {
            self.registry.find(name.as_str())
        };
        let key = match known {
            Some(key) if id.is_some_and(|id| id != self.registry[key].id) => {
                return Err(refused(format!(
                    "service '{name}' exists with id {}; leave the id out, or delete the service first",
                    self.registry[key].id
                )));
            }
            Some(_) if settings.is_empty() => {
                return Err(refused(format!(
                    "service '{name}' exists; 'config service {name} SETTING=VALUE' changes it"
                )));
            }
            Some(key) => key,
            None => {
                let key = self.registry.add(name.clone(), id).map_err(refused)?;
                self.registry[key].open_act.at = self.now;
                key
            }
        };
        let mut words = String::new();
        for &(setting, value) in settings {
            self.registry[key].settings.set(setting, value);
            words += &format!(" {}={value}", setting.row().name);
        }
        self.changed(origin, format!("config service {name}{words}"), out);
        // `prefetch` may have changed which busy workers have room.
        for worker in self.workers.keys() {
            if self.workers[worker].service == key {
                self.settle(worker);
            }
        }
        self.serve(key, out);
        let id = self.registry[key].id;
        let verb = if known.is_some() { "changed" } else { "configured" };
        let fields = vec![("service", text(&name)), ("service_id", number(id.0))];
        Ok(OpReply::line(
            verb,
            format!("{verb} service->id = {id}, service->name = {name}"),
            fields,
        ))
    }

    /// `config worker`: makes a worker, which is lazy until `start`.
    pub(crate) fn config_worker(
        &mut self,
        origin: &Origin,
        id: Option<WorkerId>,
        (service, host): (ServiceName, HostName),
        (path, args): (String, Vec<String>),
        out: Out<'_>,
    ) -> OpResult {
        let key = self.plain_service(&service)?;
        self.host_named(&host)?;
        check_saved_size((&service, &host), &path, &args).map_err(refused)?;
        let words = format!("config worker {service} {host} {path}");
        let spec =
            WorkerSpec { service: key, host, path, args, is_self_started: false, since: self.now };
        let worker = self.workers.add(spec, id).map_err(refused)?;
        self.registry[key].workers += 1;
        let id = self.workers[worker].id;
        self.changed(origin, format!("{words}: worker {id}"), out);
        let fields = vec![("worker", number(id.0)), ("service", text(&service))];
        Ok(OpReply::line(
            "configured",
            format!("configured worker->id = {id}, worker->name = {service}"),
            fields,
        ))
    }

    /// `clone`: makes a worker with the same configuration, a new id and counters at 0, lazy until
    /// `start`.
    pub(crate) fn clone_worker(&mut self, origin: &Origin, id: WorkerId, out: Out<'_>) -> OpResult {
        let worker = &self.workers[self.worker_named(id)?];
        if worker.is_self_started {
            return Err(refused(format!(
                "worker {id} started itself; it can't be cloned: start another process like it"
            )));
        }
        let spec = WorkerSpec {
            service: worker.service,
            host: worker.host.clone(),
            path: worker.path.clone(),
            args: worker.args.clone(),
            is_self_started: false,
            since: self.now,
        };
        let service = spec.service;
        let key = self.workers.add(spec, None).map_err(refused)?;
        self.registry[service].workers += 1;
        let new = self.workers[key].id;
        self.changed(origin, format!("clone {id}: worker {new}"), out);
        let fields = vec![("worker", number(new.0)), ("from", number(id.0))];
        Ok(OpReply::line("cloned", format!("cloned {new} from {id}"), fields))
    }

    /// `delete worker`: deletes a worker that is lazy and whose process has ended.
    pub(crate) fn delete_worker(
        &mut self,
        origin: &Origin,
        id: WorkerId,
        out: Out<'_>,
    ) -> OpResult {
        let key = self.worker_named(id)?;
        let worker = &self.workers[key];
        let list = match worker.list {
            WorkerList::Lazy => None,
            WorkerList::Idle => Some("idle"),
            WorkerList::Busy => Some("busy"),
        };
        if let Some(list) = list {
            return Err(refused(format!(
                "worker {id} is {list}; delete needs it lazy (stop {id}, then delete worker {id})"
            )));
        }
        if worker.link.is_some() || (worker.is_wanted && worker.state.has_process()) {
            return Err(refused(format!(
                "worker {id} is {}; delete needs its process ended (stop {id}, then delete worker {id})",
                worker.state.word()
            )));
        }
        self.changed(origin, format!("delete worker {id}"), out);
        self.forget_worker(key, out);
        Ok(OpReply::line("deleted", format!("worker {id} deleted"), vec![("worker", number(id.0))]))
    }

    /// `delete service`: deletes a service without workers, clients and requests.
    pub(crate) fn delete_service(
        &mut self,
        origin: &Origin,
        name: &ServiceName,
        out: Out<'_>,
    ) -> OpResult {
        let key = self.plain_service(name)?;
        let service = &self.registry[key];
        if service.workers > 0 {
            return Err(refused(format!(
                "service '{name}' has {}; delete what it has first ('delete worker ID')",
                counted(service.workers, "worker")
            )));
        }
        if service.clients > 0 {
            return Err(refused(format!(
                "service '{name}' has {}; move or delete what it has first ('service CLIENT NAME', 'delete client ID')",
                counted(service.clients, "client")
            )));
        }
        if self.transactions.iter().any(|(_, t)| t.service == key) {
            return Err(refused(format!(
                "service '{name}' has requests under way; try again when they have ended"
            )));
        }
        self.registry.remove(key);
        self.changed(origin, format!("delete service {name}"), out);
        Ok(OpReply::line(
            "deleted",
            format!("service {name} deleted"),
            vec![("service", text(name))],
        ))
    }

    /// `config host`: makes a host, or changes the address of one that exists.
    pub(crate) fn config_host(
        &mut self,
        origin: &Origin,
        name: &HostName,
        address: &str,
        out: Out<'_>,
    ) -> OpResult {
        match self.hosts.find(name) {
            Some(key) if self.hosts[key].is_builtin => {
                return Err(refused(format!(
                    "host '{name}' is built in; choose another name for {address}"
                )));
            }
            Some(key) if self.hosts[key].address == address => {}
            Some(key) => self.move_host(key, address.to_owned(), out),
            None => self.add_host(name, address.to_owned(), false, out),
        }
        self.changed(origin, format!("config host {name} {address}"), out);
        let fields = vec![("host", text(name)), ("address", text(address))];
        Ok(OpReply::line(
            "configured",
            format!("configured host->name = {name}, host->address = {address}"),
            fields,
        ))
    }

    /// `delete host`: deletes a host that no worker is configured on.
    pub(crate) fn delete_host(
        &mut self,
        origin: &Origin,
        name: &HostName,
        out: Out<'_>,
    ) -> OpResult {
        let key = self.host_named(name)?;
        if self.hosts[key].is_builtin {
            return Err(refused(format!(
                "host '{name}' is built in and can't be deleted; a worker there is, with 'delete worker ID'"
            )));
        }
        let count =
            self.workers.by_id().filter(|(_, w)| w.host == *name && !w.is_self_started).count();
        if count > 0 {
            return Err(refused(format!(
                "host '{name}' has {}; delete what it has first ('delete worker ID')",
                counted(count, "worker")
            )));
        }
        self.remove_host(key, out);
        self.changed(origin, format!("delete host {name}"), out);
        Ok(OpReply::line("deleted", format!("host {name} deleted"), vec![("host", text(name))]))
    }

    /// `config events`: sets how many facts are kept, and of which kinds; the answer is the
    /// manual's.
    pub(crate) fn config_events(
        &mut self,
        origin: &Origin,
        count: u64,
        kinds: &[String],
        out: Out<'_>,
    ) -> OpResult {
        let kinds = fact_kinds(kinds)?;
        self.settings.set(Setting::EventsMax, count);
        self.recent.configure(count as usize, kinds);
        self.changed(origin, format!("config events {count}"), out);
        Ok(OpReply::line(
            "configured",
            format!("isdData.NumEvents={count}"),
            vec![("events_max", number(count))],
        ))
    }
}
