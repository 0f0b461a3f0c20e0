//! The workers that a script means by `config worker` without an id. A script that is run again
//! means those that it made: the first such line the first worker that is as it says, the second
//! line the second one. The commands of a connection may be a script, too.

use crate::engine::action::Summary;
use crate::engine::keys::ServiceKey;
use crate::engine::supervision::Supervision;
use crate::engine::supervision::workers::WorkerSpec;
use protocol::process::WorkerSettings;
use protocol::{HostName, WorkerId};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What makes two workers alike: service, host, path, arguments and settings of their own.
type Likeness = (ServiceKey, HostName, String, Vec<String>, Box<WorkerSettings>);

/// The workers that lines of one script mean.
#[derive(Debug, Default)]
pub(crate) struct ScriptWorkers {
    /// Those that were there when the script first asked for one, by likeness.
    known: Option<BTreeMap<Likeness, VecDeque<WorkerId>>>,
    /// Those that a line named by id or made, which no line without an id means.
    named: BTreeSet<WorkerId>,
}

/// The commands of one connection, from the login of its client to its end.
#[derive(Debug, Default)]
pub(crate) struct ConnectionScript {
    /// How they ended so far.
    pub(crate) summary: Summary,
    /// The workers that they mean; `None` = each command stands alone.
    pub(crate) workers: Option<ScriptWorkers>,
}

impl ScriptWorkers {
    /// The next worker that is as this says, and that no earlier line of the script meant.
    pub(crate) fn take(&mut self, spec: &WorkerSpec, workers: &Supervision) -> Option<WorkerId> {
        let known = self.known.get_or_insert_with(|| {
            let mut known: BTreeMap<Likeness, VecDeque<WorkerId>> = BTreeMap::new();
            for (_, w) in workers.workers().filter(|(_, w)| w.is_configured()) {
                let (path, args) = (w.path.clone(), w.args.clone());
                let likeness = (w.service, w.host.clone(), path, args, w.own.clone());
                known.entry(likeness).or_default().push_back(w.id);
            }
            known
        });
        let (path, args) = (spec.path.clone(), spec.args.clone());
        let likeness = (spec.service, spec.host.clone(), path, args, spec.own.clone());
        let ids = known.get_mut(&likeness)?;
        // The script may have deleted some, and may have given a number of those to another one.
        std::iter::from_fn(|| ids.pop_front()).filter(|id| !self.named.contains(id)).find(|&id| {
            let key = workers.find_worker(id);
            key.is_some_and(|key| spec.is_that_of(workers.worker(key)))
        })
    }

    /// A line names this worker by its id, or made it.
    pub(crate) fn name(&mut self, id: WorkerId) {
        self.named.insert(id);
    }
}
