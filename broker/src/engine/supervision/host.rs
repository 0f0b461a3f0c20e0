//! A host as it is configured, and how far the link to its execd is.

use super::host_state::{HostEvent, HostState};
use crate::engine::input::Expected;
use crate::engine::keys::{HostKey, Table};
use protocol::{HostName, Tick, WorkerId};
use std::collections::BTreeMap;

/// A machine with an execd, as it was configured; or the built-in `localhost`.
#[derive(Debug)]
pub(crate) struct Host {
    /// Workers name their host by it; it never changes.
    pub(crate) name: HostName,
    /// Where its execd listens, as the operator wrote it. `config host` may change it.
    pub(crate) address: String,
    /// How far the link is.
    pub(crate) state: HostState,
    /// Whether it is `localhost`, whose execd this broker starts. Independent of the state: it
    /// never changes.
    pub(crate) is_builtin: bool,
    /// After `drain host`, until `undrain host`: nothing is started there. Independent of the
    /// state: an operator says it of any host.
    pub(super) is_drained: bool,
    /// Milliseconds that the next dial waits after a loss.
    pub(super) retry_ms: u64,
    /// Since when it is up, or since when it is not; further dials do not change it.
    pub(crate) since: Tick,
    /// Process id of its execd, from the last welcome; 0 = there was none. Independent of the
    /// state: `hosts` shows the last one while the host is down, too.
    pub(crate) pid: u32,
    /// Version of its execd, from the last welcome.
    pub(crate) version: String,
    /// Digest of what its execd enforces on workers, from the last welcome.
    pub(crate) policy: String,
    /// Workers whose processes run under another policy, from the last welcome.
    pub(crate) older: Vec<WorkerId>,
    /// What its welcome must report; `None` = anything will do. Valid from `Greeting` to
    /// `Listing`.
    pub(crate) must: Option<Box<Expected>>,
    /// Process id of the execd that was asked to hand over; 0 = none was. Independent of the state:
    /// it outlives the connection, until an execd that is as it must be lists its processes.
    pub(crate) handing: u32,
    /// Why nothing may be started there although its execd answers; `None` = something may.
    /// Independent of the state: it is found out at one connection, and holds as long as `handing`.
    pub(crate) unfit: Option<String>,
    /// Why it is down or shutting down, for `hosts`; empty = it is up. Independent of the state: an
    /// execd that shuts down is up for a while.
    pub(crate) why: String,
    /// Its present loss was recorded. Independent of the state: a loss lasts over many dials, and
    /// that of a built-in host is recorded late.
    pub(super) is_loss_recorded: bool,
    /// What is known from its present connection, or was from its last.
    pub(super) connection: HostConnection,
}

/// What is known of a host from one connection. The next one begins with nothing of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct HostConnection {
    /// Its execd reported that it shuts down, so nothing is started there. Independent of the
    /// state: it may come before the list, and the host stays up until its connection is gone.
    pub(super) is_shutting_down: bool,
    /// It answers no pings for now, and is not yet taken for lost. Independent of the state and of
    /// `is_shutting_down`: an execd that shuts down may be unreachable as well.
    pub(super) is_silent: bool,
    /// Whether its execd keeps output and reads it back, as its welcome said. Valid from `Listing`
    /// on.
    pub(super) kept_output: KeptOutput,
    /// Invalid reports.
    pub(super) rejected_reports: u64,
}

/// Whether an execd keeps output and reads it back.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum KeptOutput {
    /// It does not.
    #[default]
    No,
    /// It does, and was not asked for any on this connection.
    Unasked,
    /// It was asked for some: answers may come, also when nobody waits for them any more.
    Asked,
}

/// All hosts, by key and by name.
#[derive(Debug, Default)]
pub(crate) struct Hosts {
    table: Table<HostKey, Host>,
    names: BTreeMap<HostName, HostKey>,
}

pub(super) const RETRY_MIN_MS: u64 = 50;

impl Hosts {
    /// Adds a host; it replaces one of the same name.
    pub(super) fn add(&mut self, host: Host) -> HostKey {
        if let Some(key) = self.find(&host.name) {
            self.table[key] = host;
            return key;
        }
        let name = host.name.clone();
        let key = self.table.insert(host);
        self.names.insert(name, key);
        key
    }

    pub(super) fn remove(&mut self, key: HostKey) -> Host {
        let host = self.table.remove(key);
        self.names.remove(&host.name);
        host
    }

    /// The host with this name.
    pub(crate) fn find(&self, name: &HostName) -> Option<HostKey> {
        self.names.get(name).copied()
    }

    /// The host that a worker names, if it is configured.
    pub(crate) fn named(&self, name: &HostName) -> Option<&Host> {
        self.find(name).map(|key| &self.table[key])
    }

    /// The host with this key, which may be gone.
    pub(crate) fn get(&self, key: HostKey) -> Option<&Host> {
        self.table.get(key)
    }

    /// All of them, to change them.
    pub(super) fn all_mut(&mut self) -> impl Iterator<Item = &mut Host> {
        self.table.values_mut()
    }

    /// All hosts in the order of their names.
    pub(crate) fn by_name(&self) -> impl Iterator<Item = (HostKey, &Host)> {
        self.names.values().map(|&key| (key, &self.table[key]))
    }
}

impl std::ops::Index<HostKey> for Hosts {
    type Output = Host;
    fn index(&self, key: HostKey) -> &Host {
        &self.table[key]
    }
}

impl std::ops::IndexMut<HostKey> for Hosts {
    fn index_mut(&mut self, key: HostKey) -> &mut Host {
        &mut self.table[key]
    }
}

impl Host {
    /// Goes on to the next state of its link.
    pub(super) fn enter(&mut self, event: HostEvent) {
        let next = self.state.on(event);
        debug_assert!(next.is_some(), "{event:?} of host {} in {:?}", self.name, self.state);
        self.state = next.unwrap_or(self.state);
    }
}
