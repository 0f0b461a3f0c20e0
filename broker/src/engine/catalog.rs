//! The services: names, ids, settings, and what operators said of them. The hub owns the catalog
//! and lends it to the machines. What waits for a service is in `dispatch`, what runs for it in
//! `supervision`.

use super::keys::{ServiceKey, Table};
use super::operator_act::OperatorAct;
use super::wall_clock::short;
use protocol::ids::BUILTIN_IDS;
use protocol::limits::BUS_SERVICE;
use protocol::process::WorkerSettings;
use protocol::topics::Pattern;
use protocol::{ServiceId, ServiceName, ServiceSetting, ServiceSettings, Tick};
use std::collections::BTreeMap;
use std::ops::{Index, IndexMut};

/// A name, and the workers that do the same thing.
#[derive(Debug)]
pub(crate) struct Service {
    /// Shown to operators as `service->id`; a saved configuration keeps it.
    pub(crate) id: ServiceId,
    /// Unique; it never changes.
    pub(crate) name: ServiceName,
    /// Settings of `config service`.
    pub(crate) settings: ServiceSettings,
    /// Each message of a topic that matches is a one-way request of the service. Independent of
    /// all else.
    pub(crate) topic: Option<Pattern>,
    /// What is set of all its workers. Independent of all else.
    pub(crate) of_workers: WorkerSettings,
    /// After `pause`, until `ready`: its workers take no requests. Independent of `is_stopped`: a
    /// paused service still accepts requests, and they wait.
    pub(crate) is_paused: bool,
    /// After `stop`, until `start`: requests are refused. Independent of `is_paused`: `start` does
    /// not end a pause, nor `ready` a stop.
    pub(crate) is_stopped: bool,
    /// The last `stop`: its tick and its origin. Valid while `is_stopped`.
    pub(crate) stop_act: OperatorAct,
    /// The last `pause`: its tick and its origin. Valid while `is_paused`.
    pub(crate) pause_act: OperatorAct,
    /// The last `ready` or `start` that opened it again; before any, the tick at which it was made.
    pub(crate) open_act: OperatorAct,
}

/// All services, by key.
#[derive(Debug)]
pub(crate) struct Catalog {
    table: Table<ServiceKey, Service>,
    names: BTreeMap<ServiceName, ServiceKey>,
    /// Those that are built in. One of the same name that is configured wins.
    builtin: BTreeMap<ServiceName, ServiceKey>,
    ids: BTreeMap<ServiceId, ServiceKey>,
    last_id: u32,
    op: ServiceKey,
    /// For clients that only publish, subscribe or announce. It has no workers, stands in no list,
    /// and is none of the others: a service of this name that is configured wins.
    bus: ServiceKey,
}

impl Default for Catalog {
    /// The broker's own service alone; its id is 1.
    fn default() -> Self {
        let op = Service::new(ServiceName::op(), ServiceId(1), Tick(0));
        let mut table = Table::default();
        let names = BTreeMap::from([(op.name.clone(), table.insert(op))]);
        let op = names[&ServiceName::op()];
        let bus = table.insert(Service::new(ServiceName::bus(), ServiceId(0), Tick(0)));
        let (ids, builtin) = (BTreeMap::from([(ServiceId(1), op)]), BTreeMap::new());
        Self { table, names, builtin, ids, last_id: 1, op, bus }
    }
}

impl Service {
    fn new(name: ServiceName, id: ServiceId, since: Tick) -> Self {
        Self {
            id,
            name,
            settings: ServiceSettings::default(),
            topic: None,
            of_workers: WorkerSettings::default(),
            is_paused: false,
            is_stopped: false,
            stop_act: OperatorAct::default(),
            pause_act: OperatorAct::default(),
            open_act: OperatorAct { at: since, by: String::new() },
        }
    }

    /// Whether its workers run only while they are asked for.
    pub(crate) fn is_on_demand(&self) -> bool {
        self.settings.get(ServiceSetting::Start) == 1
    }

    /// Whether its workers are any programs, which get no requests.
    pub(crate) fn is_program(&self) -> bool {
        self.settings.get(ServiceSetting::Protocol) == 1
    }

    /// The error text for who wants to be a client or a worker of programs.
    pub(crate) fn program_text(&self) -> String {
        format!(
            "'{0}' is a program, not a service (protocol=none): it takes neither requests nor \
             logins; 'workers' shows it",
            self.name
        )
    }

    /// The error text for a request to a stopped service. It does not name the operator who stopped
    /// it.
    pub(crate) fn stopped_text(&self, now: Tick) -> String {
        let since = short(now.since(self.stop_act.at));
        let name = &self.name;
        format!(
            "service '{name}' is stopped; 'start {name}' starts it (an operator stopped it {since} ago)"
        )
    }
}

/// The error text for an id that is wanted and kept for what is built in.
pub(crate) fn too_high(id: u32) -> String {
    let last = BUILTIN_IDS - 1;
    format!("id {id} is one of the built-in services; the highest one is {last}, leave the id out")
}

impl Catalog {
    /// The service `op`, which the broker itself answers.
    pub(crate) const fn op(&self) -> ServiceKey {
        self.op
    }

    /// The service `bus`, of clients that send no requests.
    pub(crate) const fn bus(&self) -> ServiceKey {
        self.bus
    }

    /// The service that a client means by a name at its login.
    pub(crate) fn of_login(&self, name: &str) -> Option<ServiceKey> {
        self.find(name).or_else(|| (name == BUS_SERVICE).then_some(self.bus))
    }

    /// The id after the highest one given so far; if there is none, the lowest free one.
    fn free_id(&self) -> ServiceId {
        let is_free = |id: &u32| !self.ids.contains_key(&ServiceId(*id));
        let next = self.last_id.checked_add(1).filter(|&id| !ServiceId(id).is_builtin());
        // There are always fewer services than ids, because each takes memory.
        ServiceId(next.or_else(|| (1..).find(is_free)).unwrap_or(0))
    }

    /// Makes a service, whose name is free. `id` is the one wanted (from a saved configuration).
    ///
    /// # Errors
    /// The id wanted is taken.
    pub(crate) fn add(
        &mut self,
        name: ServiceName,
        id: Option<ServiceId>,
        now: Tick,
    ) -> Result<ServiceKey, String> {
        let id = id.unwrap_or_else(|| self.free_id());
        if id.is_builtin() {
            return Err(too_high(id.0));
        }
        if let Some(taken) = self.ids.get(&id).map(|&key| &self.table[key]) {
            return Err(format!("id {id} belongs to service '{}'; leave the id out", taken.name));
        }
        self.last_id = self.last_id.max(id.0);
        let key = self.table.insert(Service::new(name.clone(), id, now));
        self.names.insert(name, key);
        self.ids.insert(id, key);
        Ok(key)
    }

    /// Makes a built-in service, with its id.
    pub(crate) fn add_builtin(
        &mut self,
        name: ServiceName,
        id: ServiceId,
        now: Tick,
    ) -> ServiceKey {
        let key = self.table.insert(Service::new(name.clone(), id, now));
        self.builtin.insert(name, key);
        self.ids.insert(id, key);
        key
    }

    /// Removes a service, which must have no workers, clients or requests.
    pub(crate) fn remove(&mut self, key: ServiceKey) {
        let service = self.table.remove(key);
        self.names.remove(&service.name);
        self.ids.remove(&service.id);
    }

    /// The service with this name. One that is configured comes before one that is built in.
    pub(crate) fn find(&self, name: &str) -> Option<ServiceKey> {
        self.configured(name).or_else(|| self.builtin.get(name).copied())
    }

    /// The service with this name, if it is none that is built in.
    pub(crate) fn configured(&self, name: &str) -> Option<ServiceKey> {
        self.names.get(name).copied()
    }

    /// The built-in service with this name, be it on or off.
    pub(crate) fn builtin(&self, name: &ServiceName) -> Option<ServiceKey> {
        self.builtin.get(name).copied()
    }

    /// The names of the services that are configured, in alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(ServiceName::as_str)
    }

    /// The keys of the services in the order of their ids, without those that are built in.
    pub(crate) fn keys(&self) -> Vec<ServiceKey> {
        self.ids().map(|(_, key)| key).collect()
    }

    /// The same with those that are built in.
    pub(crate) fn all_keys(&self) -> Vec<ServiceKey> {
        self.ids.values().copied().collect()
    }

    /// The service with this key, which may be gone.
    pub(crate) fn get(&self, key: ServiceKey) -> Option<&Service> {
        self.table.get(key)
    }

    /// The service with this id.
    pub(crate) fn find_id(&self, id: ServiceId) -> Option<ServiceKey> {
        self.ids.get(&id).copied()
    }

    /// The ids of the services, with their keys, by id, without those that are built in.
    pub(crate) fn ids(&self) -> impl DoubleEndedIterator<Item = (ServiceId, ServiceKey)> {
        self.ids_of(false)
    }

    /// The ids of the services that are built in, or of all others.
    pub(crate) fn ids_of(
        &self,
        is_builtin: bool,
    ) -> impl DoubleEndedIterator<Item = (ServiceId, ServiceKey)> {
        let ids = self.ids.iter().map(|(&id, &key)| (id, key));
        ids.filter(move |(id, _)| id.is_builtin() == is_builtin)
    }

    /// Number of services, `op` included (`isdData.ServiceList`), without those that are built in.
    pub(crate) fn count(&self) -> usize {
        self.names.len()
    }

    /// The text of the error for a name that no service has.
    pub(crate) fn unknown(&self, name: &str) -> String {
        let near = protocol::op::parse::nearest(name, self.names());
        let hint = near.map_or_else(String::new, |near| format!("; did you mean '{near}'?"));
        format!("service '{name}' is unknown; 'services' lists the names{hint}")
    }
}

impl Index<ServiceKey> for Catalog {
    type Output = Service;
    fn index(&self, key: ServiceKey) -> &Service {
        &self.table[key]
    }
}

impl IndexMut<ServiceKey> for Catalog {
    fn index_mut(&mut self, key: ServiceKey) -> &mut Service {
        &mut self.table[key]
    }
}
