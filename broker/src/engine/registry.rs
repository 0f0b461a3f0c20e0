//! What the names of services mean: a service, its settings, its queue, its idle workers, its
//! figures. Names are spelled in `protocol::names`; who may use one is decided where it is used.

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

/// Figures of a service since the start or the last `reset`.
#[derive(Debug, Default)]
pub(crate) struct ServiceFigures {
    /// Requests answered by a worker.
    pub(crate) completed: u64,
    /// Requests that ended with an error, by code.
    pub(crate) failed: BTreeMap<ErrorCode, u64>,
    /// Requests given to another worker after one died.
    pub(crate) retried: u64,
    /// Requests not given to another worker because the retry budget was used up.
    pub(crate) denied: u64,
    /// Replies that were dropped: the transaction had ended or the client was gone.
    pub(crate) late: u64,
    /// From arrival to dispatch.
    pub(crate) wait: Histogram,
    /// From dispatch to the final reply.
    pub(crate) run: Histogram,
}

impl ServiceFigures {
    /// Whether there is anything to show of it.
    pub(crate) fn was_asked(&self) -> bool {
        self.wait.count() > 0 || self.run.count() > 0 || !self.failed.is_empty()
    }
}

/// A name and the workers that do the same thing.
#[derive(Debug)]
pub(crate) struct Service {
    /// Its number.
    pub(crate) id: ServiceId,
    /// Its name.
    pub(crate) name: ServiceName,
    /// Its settings.
    pub(crate) settings: ServiceSettings,
    /// `pause` was said of it.
    pub(crate) is_paused: bool,
    /// `stop` was said of it: requests are refused.
    pub(crate) is_stopped: bool,
    /// Who stopped it, and when.
    pub(crate) stop_act: OperatorAct,
    /// Who paused it, and when.
    pub(crate) pause_act: OperatorAct,
    /// Who let it go on, and when; at first, when it was made.
    pub(crate) open_act: OperatorAct,
    /// Who waits.
    pub(crate) queue: Queue,
    /// Keys of its idle workers, longest idle first.
    pub(crate) idle: VecDeque<WorkerKey>,
    /// Keys of its busy workers that may hold a further request (`prefetch`), in turn.
    pub(crate) with_room: VecDeque<WorkerKey>,
    /// How many workers are configured.
    pub(crate) workers: usize,
    /// How many clients are attached.
    pub(crate) clients: usize,
    /// Figures.
    pub(crate) figures: ServiceFigures,
    /// When refusals were last made a fact.
    pub(crate) overload_recorded: Option<Tick>,
    /// How fast it takes requests out of its queue.
    pub(crate) rate: ServiceRate,
    /// How often requests may be repeated.
    pub(crate) retry_budget: RetryBudget,
    /// When a repetition that was denied was last made a fact.
    pub(crate) denial_recorded: Option<Tick>,
}

impl Service {
    /// How the retry budget stands.
    pub(crate) fn retry_budget_level(&self, now: Tick) -> Level {
        let percent = self.settings.get(ServiceSetting::RetryPercent);
        let min = self.settings.get(ServiceSetting::RetryMin);
        let mut budget = self.retry_budget;
        budget.level(now, percent, min)
    }
}

/// All services.
#[derive(Debug, Default)]
pub(crate) struct Registry {
    table: Table<ServiceKey, Service>,
    names: BTreeMap<ServiceName, ServiceKey>,
    last_id: u32,
}

impl Registry {
    /// The next id; when the last one there is was given, the lowest that is free.
    fn free_id(&self) -> ServiceId {
        let is_free = |id: &u32| self.table.iter().all(|(_, service)| service.id.0 != *id);
        let next = self.last_id.checked_add(1);
        // There are fewer services than ids: each takes memory.
        ServiceId(next.or_else(|| (1..).find(is_free)).unwrap_or(0))
    }

    /// Makes a service. `id` is the one wanted (from a saved configuration); it must be free.
    ///
    /// # Errors
    /// The id wanted is taken.
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

    /// Makes a service; its name and id are free.
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

    /// Removes a service that has neither workers nor clients nor requests.
    pub(crate) fn remove(&mut self, key: ServiceKey) {
        let service = self.table.remove(key);
        self.names.remove(&service.name);
    }

    /// The key of a name.
    pub(crate) fn find(&self, name: &str) -> Option<ServiceKey> {
        self.names.get(name).copied()
    }

    /// All names, in order.
    pub(crate) fn names(&self) -> impl Iterator<Item = &str> {
        self.names.keys().map(ServiceName::as_str)
    }

    /// All services by id.
    pub(crate) fn by_id(&self) -> Vec<(ServiceKey, &Service)> {
        let mut all: Vec<_> = self.table.iter().collect();
        all.sort_by_key(|(_, service)| service.id);
        all
    }

    /// All keys by id.
    pub(crate) fn keys(&self) -> Vec<ServiceKey> {
        self.by_id().into_iter().map(|(key, _)| key).collect()
    }

    /// How many there are, `op` included.
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
