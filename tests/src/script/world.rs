//! The world around the engine in a script: who is at the links, and the requests each worker
//! holds. The shell has the rest. `stimulus` parses script lines and calls it, `show` is what a
//! script sees.

use super::item::Item;
use crate::shell::{Ask, Choices, Player, TestShell};
use broker::engine::EngineOptions;
use broker::engine::builtin::BuiltInProgram;
use broker::engine::input::{Close, Input, Listening, Peer};
use broker::engine::origin::Origin;
use bytes::Bytes;
use protocol::bodies::{Format, Login};
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::names::ServiceName;
use protocol::settings::Settings;
use protocol::time::{Tick, Wall};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// 2026-01-01 00:00:00 UTC: tick 0 of every script.
const EPOCH_MS: u64 = 1_767_225_600_000;
/// The numbers of links stay small.
const CHOICES: Choices =
    Choices { secret: "", generation: 1, lowest_first: true, has_replica: true };
/// The operator that `op …` speaks for.
pub const OPERATOR: &str = "op";

/// The state of a client in the world.
#[derive(Debug, Default)]
pub struct ClientEnd {
    /// The last sequence it used.
    pub sequence: u32,
    /// All sequences it used.
    pub used: BTreeSet<u32>,
    /// The worker that waits for more from it.
    pub with: u32,
}

/// The state of a worker's process in the world.
#[derive(Debug, Default)]
pub struct WorkerEnd {
    /// Number of its start; 0 = it was not started.
    pub run: u64,
    /// Digest of its configuration, from its start.
    pub digest: u32,
    /// Most requests at a time that it announces; 0 = it says nothing.
    pub concurrency: u32,
    /// It announces that it understands `cancel`.
    pub hears_cancel: bool,
    /// Its pid; 0 = the usual one.
    pub pid: u32,
    /// Transactions it was given and has not finished, oldest first.
    pub has: VecDeque<u64>,
    /// Sequence of the last status frame.
    pub status: u32,
    /// Number of the last `exec-read` for it.
    pub read: u32,
}

/// What the disk does with the configuration.
#[derive(Debug, Default)]
pub enum Disk {
    /// It takes it at once.
    #[default]
    Works,
    /// It fails with this error.
    Fails(String),
    /// It does not answer.
    Stalls,
}

impl Disk {
    /// How a write ends.
    pub(super) fn result(&self) -> Result<(), String> {
        match self {
            Self::Works | Self::Stalls => Ok(()),
            Self::Fails(why) => Err(why.clone()),
        }
    }
}

/// The world around one engine.
#[derive(Debug)]
pub struct World {
    /// The engine, its clock and links; a far end is the name of who is there.
    pub shell: TestShell<String>,
    /// The law that was broken first in this step.
    pub(super) broken: Option<String>,
    /// Clients by name.
    pub clients: BTreeMap<String, ClientEnd>,
    /// Workers by id.
    pub workers: BTreeMap<u32, WorkerEnd>,
    /// Services of workers, by id, as last seen.
    pub services: BTreeMap<u32, String>,
    /// Lists of workers, by id, as last shown.
    worker_lists: BTreeMap<u32, (String, &'static str)>,
    /// Names of the peers that answer no pings.
    pub silent: BTreeSet<String>,
    /// What becomes of the configuration.
    pub disk: Disk,
    /// The built-in services that are on.
    pub builtin: Vec<&'static str>,
    /// Items since the last call of [`look`](World::look).
    pub(super) items: Vec<Item>,
}

/// The addresses of every script's broker; the numbers are those of the manual's status page.
pub fn listening(has_execd: bool) -> Listening {
    Listening {
        is_state_kept: true,
        host: "isect".into(),
        worker_fd: 4,
        worker_port: 12417,
        worker_host: "192.0.2.1".into(),
        worker_unix: Some("unix:/run/isect/worker".into()),
        local_warning: None,
        client_fd: 5,
        client_port: 5501,
        descriptors_max: 1024,
        execd: has_execd.then(|| "unix:/run/isect/execd".into()),
        directory_id: "test".into(),
        version: "0.1.0".into(),
        pid: 4711,
        wall: Wall { epoch_ms: EPOCH_MS, offset_secs: 3600 },
        mended: None,
        builtin: BuiltInProgram {
            path: "/bin/isectd".into(),
            client: "unix:/run/isect/client".into(),
            names: Vec::new(),
        },
    }
}

impl World {
    /// A broker that listens, with `localhost` up and an operator logged in.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn new() -> Result<Self, String> {
        let mut world = Self::bare(Settings::default(), true, Vec::new())?;
        world.host_up("localhost", Vec::new())?;
        world.operator(OPERATOR, Format::Text)?;
        world.forget();
        Ok(world)
    }

    /// A broker that listens and nothing else but for these built-in services.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn bare(
        settings: Settings,
        has_execd: bool,
        builtin: Vec<&'static str>,
    ) -> Result<Self, String> {
        let mut world = Self {
            shell: TestShell::new(
                EngineOptions { settings, run_base: 0, transaction_base: 0 },
                CHOICES,
            ),
            broken: None,
            clients: BTreeMap::new(),
            workers: BTreeMap::new(),
            services: BTreeMap::new(),
            worker_lists: BTreeMap::new(),
            silent: BTreeSet::new(),
            disk: Disk::Works,
            builtin,
            items: Vec::new(),
        };
        let mut fresh = listening(has_execd);
        fresh.builtin.names.clone_from(&world.builtin);
        world.step(Input::Listening(Box::new(fresh)))?;
        world.step(Input::Started)?;
        Ok(world)
    }

    /// The broker is gone and a new one starts from what the old one saved. Processes of workers
    /// run on.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn restart(&mut self) -> Result<(), String> {
        let text = self.shell.kept();
        let run_base = self.workers.values().map(|w| w.run).max().unwrap_or(0) + 1000;
        let mut fresh = listening(true);
        fresh.builtin.names.clone_from(&self.builtin);
        fresh.wall.epoch_ms += self.shell.now.as_millis();
        let options =
            EngineOptions { settings: Settings::default(), run_base, transaction_base: run_base };
        self.shell = TestShell::new(options, CHOICES);
        self.clients.clear();
        self.step(Input::Listening(Box::new(fresh)))?;
        self.step(Input::Script { origin: Origin::State, text })?;
        self.step(Input::Started)?;
        self.operator(OPERATOR, Format::Text)
    }

    /// Gives one input to the engine and looks at all it does for it.
    ///
    /// # Errors
    /// The engine broke a law, or did something to a link that is gone.
    pub fn step(&mut self, input: Input) -> Result<(), String> {
        let shown = format!("{input:?}");
        self.feed(input);
        self.broken.take().map_or(Ok(()), |law| Err(format!("{law} (after {shown})")))
    }

    /// Lets time pass, stopping wherever the engine wants to look at the clock.
    ///
    /// # Errors
    /// The engine broke a law, or its next deadline does not move on.
    pub fn wait(&mut self, micros: u64) -> Result<(), String> {
        let until = Tick(self.shell.now.0 + micros);
        while let Some(at) = self.shell.engine.next_deadline().filter(|&at| at <= until) {
            self.shell.now = self.shell.now.max(at);
            self.look_at_clock(Self::feed);
            self.broken.take().map_or(Ok(()), Err)?;
        }
        self.stand_still(until.0 - self.shell.now.0)
    }

    /// Lets time pass. The broker reads the next input before it handles what is due.
    pub(super) fn oversleep(&mut self, micros: u64) {
        self.shell.now.0 += micros;
        self.shell.has_overslept = true;
    }

    /// Stops the broker for some time: afterwards much is due, and no input arrived meanwhile.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn stand_still(&mut self, micros: u64) -> Result<(), String> {
        self.shell.now.0 += micros;
        self.step(Input::Deadline)
    }

    /// Takes the items since the last call, with the state changes of workers at the end.
    pub(super) fn look(&mut self) -> Vec<Item> {
        let mut lists = BTreeMap::new();
        for worker in self.shell.engine.workers_view() {
            self.services.insert(worker.id.0, worker.service.to_string());
            lists.insert(worker.id.0, (worker.service.to_string(), worker.list));
        }
        for (id, (service, list)) in &lists {
            if self.worker_lists.get(id).is_none_or(|(_, before)| before != list) {
                self.items.push(Item::new(format!("{list} {service}#{id}")));
            }
        }
        for (id, (service, _)) in &self.worker_lists {
            if !lists.contains_key(id) {
                self.items.push(Item::new(format!("gone {service}#{id}")));
            }
        }
        self.worker_lists = lists;
        std::mem::take(&mut self.items)
    }

    /// Drops the answer to a login, for scripts that go straight to the request.
    pub(super) fn look_past_welcome(&mut self) {
        self.items.retain(|item| !item.head.ends_with(" welcome"));
    }

    /// Drops the items so far, so that they are not checked.
    pub fn forget(&mut self) {
        self.look();
    }

    /// A link for a name.
    ///
    /// # Errors
    /// The name has one already.
    pub fn open(&mut self, name: &str) -> Result<LinkId, String> {
        if self.is_connected(name) {
            return Err(format!("{name} is connected already; '{name} closes' ends that"));
        }
        Ok(self.shell.open(name.to_owned()))
    }

    /// The link of a name.
    ///
    /// # Errors
    /// It is not connected.
    pub fn link(&self, name: &str) -> Result<LinkId, String> {
        let end = self.shell.ends.iter().find(|(_, end)| *end == name);
        end.map(|(link, _)| *link).ok_or_else(|| format!("{name} is not connected"))
    }

    pub(super) fn is_connected(&self, name: &str) -> bool {
        self.link(name).is_ok()
    }

    /// Releases the name of a link that its owner has given up, so that a new link can have it.
    pub(super) fn rename(&mut self, name: &str, new: &str) {
        let ends = &mut self.shell.ends;
        if let Some(end) = ends.values_mut().find(|end| *end == name) {
            new.clone_into(end);
        }
    }

    /// Takes the dial to a host that is under way.
    pub(super) fn take_dial(&mut self, name: &str) -> Option<Ask> {
        self.shell.take_asked(|ask| ask.is_dial(name))
    }

    /// The other end closes.
    ///
    /// # Errors
    /// It is not connected, or the engine broke a law.
    pub fn close(&mut self, name: &str, how: Close) -> Result<(), String> {
        let link = self.link(name)?;
        self.shell.close(link);
        self.step(Input::Closed { link, how })
    }

    /// The peer of a link, as the kernel would report it.
    pub fn peer(link: LinkId, is_owner: bool) -> Peer {
        let uid = if is_owner { 1000 } else { 1001 };
        let address = format!("127.0.0.1:{}", 40000 + link.index);
        let peer = Peer::tcp(address.parse().expect("an address"), 7 + link.index as i32);
        Peer { uid: Some(uid), is_owner, ..peer }
    }

    /// A peer on another machine, at this address.
    ///
    /// # Errors
    /// It is none.
    pub fn peer_at(link: LinkId, address: &str) -> Result<Peer, String> {
        let address = address.parse().map_err(|e| format!("{address}: {e}"))?;
        Ok(Peer::tcp(address, 7 + link.index as i32))
    }

    /// An operator logs in.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn operator(&mut self, name: &str, format: Format) -> Result<(), String> {
        let link = self.open(name)?;
        self.step(Input::ClientOpened { link, peer: Self::peer(link, true) })?;
        let login = Login {
            loghost: "console".into(),
            hostpid: 100,
            format,
            ..Login::to(ServiceName::op())
        };
        self.step(Input::Login { link, login: Box::new(login) })?;
        self.clients.entry(name.to_owned()).or_default();
        Ok(())
    }

    /// A client sends a data frame.
    ///
    /// # Errors
    /// It is not connected, or the engine broke a law.
    pub fn send(&mut self, name: &str, head: Header, body: Vec<u8>) -> Result<(), String> {
        let link = self.link(name)?;
        let end = self.clients.entry(name.to_owned()).or_default();
        end.sequence = head.sequence;
        end.used.insert(head.sequence);
        let head = Header { len: body.len() as u32, ..head };
        self.step(Input::Request { link, head, body: Bytes::from(body) })
    }

    /// Sends an operator's command from the client of this name.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn command(&mut self, name: &str, command: Vec<u8>) -> Result<(), String> {
        let sequence = self.clients.get(name).map_or(1, |end| end.sequence + 1);
        self.send(name, Header { sequence, reply: 1, ..Header::default() }, command)
    }
}
