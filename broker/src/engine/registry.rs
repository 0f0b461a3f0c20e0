//! The table of services: for each its settings, its queue, its idle workers and its figures.
//! Spelling of names is `protocol::names`; who may use a service is decided in `access`.

use super::histogram::Histogram;
use super::keys::{ServiceKey, Table, WorkerKey};
use super::queue::Queue;
use super::retry_budget::{Level, RetryBudget};
use super::service_rate::ServiceRate;
use super::states::OperatorAct;
use protocol::errors::ErrorCode;
use protocol::ids::ServiceId;
use protocol::names::ServiceName;
use protocol::settings::{ServiceSetting, ServiceSettings};
use protocol::time::Tick;
use std::collections::{BTreeMap, VecDeque};

/// Counters and histograms of a service since the start or the last `reset`.
#[derive(Debug, Default)]
pub(crate) struct ServiceFigures {
    /// Requests answered by a worker.
    pub(crate) completed: u64,
    /// Requests that ended with an error, or were refused with one, by its code.
    pub(crate) failed: BTreeMap<ErrorCode, u64>,
    /// Requests given to another worker after one died.
    pub(crate) retried: u64,
    /// Requests not given to another worker because the retry budget was used up.
    pub(crate) denied: u64,
    /// Replies dropped because the transaction had ended already.
    pub(crate) late: u64,
    /// Microseconds from arrival to dispatch.
    pub(crate) wait: Histogram,
    /// Microseconds from dispatch to the final reply.
    pub(crate) run: Histogram,
}

impl ServiceFigures {
    /// Whether the service had any request, so that there are figures to show.
    pub(crate) fn was_asked(&self) -> bool {
        self.wait.count() > 0 || self.run.count() > 0 || !self.failed.is_empty()
    }
}

/// A name, and the workers that do the same thing.
#[derive(Debug)]
pub(crate) struct Service {
    /// Shown to operators as `service->id`; a saved configuration keeps it.
    pub(crate) id: ServiceId,
    /// Unique; it never changes.
    pub(crate) name: ServiceName,
    /// Settings of `config service`.
    pub(crate) settings: ServiceSettings,
    /// After `pause`, until `ready`: its workers take no requests.
    pub(crate) is_paused: bool,
    /// After `stop`, until `start`: requests are refused.
    pub(crate) is_stopped: bool,
    /// The last `stop`: its tick and its origin.
    pub(crate) stop_act: OperatorAct,
    /// The last `pause`: its tick and its origin.
    pub(crate) pause_act: OperatorAct,
    /// The last `ready` or `start` that opened it again; before any, the tick at which it was made.
    pub(crate) open_act: OperatorAct,
    /// Requests that wait for a worker.
    pub(crate) queue: Queue,
    /// Its idle workers, the one that has been idle longest first.
    pub(crate) idle: VecDeque<WorkerKey>,
    /// Its busy workers that may hold a further request (`prefetch`). They take turns.
    pub(crate) with_room: VecDeque<WorkerKey>,
    /// Number of its workers, configured and self-started.
    pub(crate) workers: usize,
    /// Number of clients attached to it.
    pub(crate) clients: usize,
    /// What `latency` and `load` show.
    pub(crate) figures: ServiceFigures,
    /// When a refusal was last recorded; one fact a second stands for all.
    pub(crate) overload_recorded: Option<Tick>,
    /// Speed at which requests leave the queue, for early rejection.
    pub(crate) rate: ServiceRate,
    /// How many requests may be repeated.
    pub(crate) retry_budget: RetryBudget,
    /// When a denied repetition was last recorded; one fact a second stands for all.
    pub(crate) denial_recorded: Option<Tick>,
}

impl Service {
    /// The state of the retry budget at `now`, by the settings in force.
    pub(crate) fn retry_budget_level(&self, now: Tick) -> Level {
        let percent = self.settings.get(ServiceSetting::RetryPercent);
        let min = self.settings.get(ServiceSetting::RetryMin);
        let mut budget = self.retry_budget;
        budget.level(now, percent, min)
    }
}

/// All services, `op` included.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: Table<ServiceKey, Service>,
    names: BTreeMap<ServiceName, ServiceKey>,
    last_id: u32,
}

impl Registry {
    /// The id after the highest one given so far; if there is none, the lowest free one.
    fn free_id(&self) -> ServiceId {
        let is_free = |id: &u32| self.table.iter().all(|(_, service)| service.id.0 != *id);
        let next = self.last_id.checked_add(1);
        // There are always fewer services than ids, because each takes memory.
        ServiceId(next.or_else(|| (1..).find(is_free)).unwrap_or(0))
    }

    /// Makes a service. `id` is the one that a saved configuration wants; `None` = the next.
    ///
    /// # Errors
    /// The id is taken.
    pub(crate) fn add(
        &mut self,
        name: ServiceName,
        id: Option<ServiceId>,
    ) -> Result<ServiceKey, String> {
        let id = match id {
            Some(id) => {
                if let Some((_, taken)) = self.table.iter().find(|(_, s)| s.id == id) {
                    return Err(format!(
                        "id {id} belongs to service '{}'; leave the id out",
                        taken.name
                    ));
                }
                id
            }
            None => self.free_id(),
        };
        Ok(self.insert(name, id))
    }

    /// Makes a service; its name and id must be free.
    pub(crate) fn insert(&mut self, name: ServiceName, id: ServiceId) -> ServiceKey {
        self.last_id = self.last_id.max(id.0);
        let key = self.table.insert(Service {
            id,
            name: name.clone(),
            settings: ServiceSettings::default(),
            is_paused: false,
            is_stopped: false,
            stop_act: OperatorAct::default(),
            pause_act: OperatorAct::default(),
            open_act: OperatorAct::default(),
            queue: Queue::default(),
            idle: VecDeque::new(),
            with_room: VecDeque::new(),
            workers: 0,
            clients: 0,
            figures: ServiceFigures::default(),
            overload_recorded: None,
            rate: ServiceRate::default(),
            retry_budget: RetryBudget::default(),
            denial_recorded: None,
        });
        self.names.insert(name, key);
        key
    }

    /// Removes a service, which must have no workers, clients or requests.
    pub(crate) fn remove(&mut self, key: ServiceKey) {
        let service = self.table.remove(key);
        self.names.remove(&service.name);
    }

    /// The service with this name.
    pub(crate) fn find(&self, name: &str) -> Option<ServiceKey> {
        self.names.get(name).copied()
    }

    /// The names of all services, in alphabetical order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(ServiceName::as_str)
    }

    /// The services in the order of their ids.
    pub(crate) fn by_id(&self) -> Vec<(ServiceKey, &Service)> {
        let mut all: Vec<_> = self.table.iter().collect();
        all.sort_by_key(|(_, service)| service.id);
        all
    }

    /// The keys of the services in the order of their ids.
    pub(crate) fn keys(&self) -> Vec<ServiceKey> {
        self.by_id().into_iter().map(|(key, _)| key).collect()
    }

    /// Number of services, `op` included (`isdData.ServiceList`).
    pub(crate) fn count(&self) -> usize {
        self.table.len()
    }
}

impl std::ops::Index<ServiceKey> for Registry {
    type Output = Service;
    fn index(&self, key: ServiceKey) -> &Service {
        &self.table[key]
    }
}

impl std::ops::IndexMut<ServiceKey> for Registry {
    fn index_mut(&mut self, key: ServiceKey) -> &mut Service {
        &mut self.table[key]
    }
}
