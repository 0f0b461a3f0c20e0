//! The world around the engine in a script: the links and their peers, the requests each worker
//! holds, the time. It answers pings, except for peers marked silent. `stimulus` parses script
//! lines and calls it.

use super::item::Item;
use broker::engine::action::Action;
use broker::engine::input::{Close, Input, Listening, Peer};
use broker::engine::{Engine, EngineOptions};
use bytes::Bytes;
use protocol::bodies::{Format, Login};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::names::ServiceName;
use protocol::settings::Settings;
use protocol::time::{Tick, Wall};
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// 2026-01-01 00:00:00 UTC: tick 0 of every script.
const EPOCH_MS: u64 = 1_767_225_600_000;
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
    /// Its pid; 0 = the usual one.
    pub pid: u32,
    /// Transactions it was given and has not finished, oldest first.
    pub has: VecDeque<u64>,
    /// Sequence of the last status frame.
    pub status: u32,
}

/// The world around one engine.
#[derive(Debug)]
pub struct World {
    /// The engine under test.
    pub engine: Engine,
    /// A second engine that gets the same inputs, and after each a deadline that is not due. Both
    /// must act alike (laws 6 and 7).
    replica: Engine,
    /// Present time of the world; scripts advance it.
    pub now: Tick,
    /// Time has passed that the engine has not been told of.
    has_overslept: bool,
    /// Links by the name at their end.
    pub links: BTreeMap<String, LinkId>,
    /// Names of the peers by link.
    pub names: BTreeMap<LinkId, String>,
    /// How often each slot of the table of links was used.
    generations: Vec<u32>,
    /// Clients by name.
    pub clients: BTreeMap<String, ClientEnd>,
    /// Workers by id.
    pub workers: BTreeMap<u32, WorkerEnd>,
    /// Services of workers, by id, as last seen.
    pub services: BTreeMap<u32, String>,
    /// Lists of workers, by id, as last shown.
    worker_lists: BTreeMap<u32, (String, &'static str)>,
    /// Hosts that were dialled and neither opened nor refused.
    pub dialled: BTreeSet<String>,
    /// Names of the peers that answer no pings.
    pub silent: BTreeSet<String>,
    /// The command that waits for a file to be read: link, header, path.
    pub reading: Option<(LinkId, Header, String)>,
    /// Sources of the reloads that wait, the oldest first.
    pub reloading: VecDeque<(LinkId, Header)>,
    /// Items since the last call of [`look`](World::look).
    items: Vec<Item>,
}

/// The addresses of every script's broker; the numbers are those of the manual's status page.
pub fn listening(has_execd: bool) -> Listening {
    Listening {
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
        instance: "test".into(),
        version: "0.1.0".into(),
        pid: 4711,
        wall: Wall { epoch_ms: EPOCH_MS, offset_secs: 3600 },
    }
}

impl World {
    /// A broker that listens, with `localhost` up and an operator logged in.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn new() -> Result<Self, String> {
        let mut world = Self::bare(Settings::default(), true)?;
        world.host_up("localhost", Vec::new())?;
        world.operator(OPERATOR, Format::Text)?;
        world.forget();
        Ok(world)
    }

    /// A broker that listens and nothing else.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn bare(settings: Settings, has_execd: bool) -> Result<Self, String> {
        let options = EngineOptions { settings, run_base: 0 };
        let mut world = Self {
            engine: Engine::new(options.clone()),
            replica: Engine::new(options),
            now: Tick(0),
            has_overslept: false,
            links: BTreeMap::new(),
            names: BTreeMap::new(),
            generations: Vec::new(),
            clients: BTreeMap::new(),
            workers: BTreeMap::new(),
            services: BTreeMap::new(),
            worker_lists: BTreeMap::new(),
            dialled: BTreeSet::new(),
            silent: BTreeSet::new(),
            reading: None,
            reloading: VecDeque::new(),
            items: Vec::new(),
        };
        world.step(Input::Listening(Box::new(listening(has_execd))))?;
        Ok(world)
    }

    /// The broker is gone and a new one starts from what the old one saved. Processes of workers
    /// run on.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn restart(&mut self) -> Result<(), String> {
        let script = self.engine.save_script();
        let settings = Settings::default();
        let run_base = self.workers.values().map(|w| w.run).max().unwrap_or(0) + 1000;
        let options = EngineOptions { settings, run_base };
        self.engine = Engine::new(options.clone());
        self.replica = Engine::new(options);
        self.links.clear();
        self.names.clear();
        self.generations.clear();
        self.clients.clear();
        self.dialled.clear();
        let mut fresh = listening(true);
        fresh.wall.epoch_ms += self.now.as_millis();
        self.now = Tick(0);
        self.step(Input::Listening(Box::new(fresh)))?;
        let origin = broker::engine::action::Origin::State;
        self.step(Input::Script { origin, text: script })?;
        self.operator(OPERATOR, Format::Text)
    }

    /// Gives one input to the engine and looks at all it does for it.
    ///
    /// # Errors
    /// The engine broke a law, or did something to a link that is gone.
    pub fn step(&mut self, input: Input) -> Result<(), String> {
        let shown = format!("{input:?}");
        let mut actions = Vec::new();
        // Input that arrived meanwhile is read before the broker handles what is due.
        let after = std::mem::take(&mut self.has_overslept).then_some(Input::Deadline);
        let inputs: Vec<Input> = [Some(input), after].into_iter().flatten().collect();
        for input in &inputs {
            self.engine.step(self.now, input.clone(), &mut actions);
        }
        self.engine.check_all().map_err(|law| format!("{law} (after {shown})"))?;
        self.step_replica(inputs, &actions).map_err(|law| format!("{law} (after {shown})"))?;
        let mut pinged = Vec::new();
        for action in actions {
            if let Action::Send { link, frame: Frame::Ping { .. } } = &action {
                pinged.push(*link);
            }
            let item = self.show(action)?;
            self.items.push(item);
        }
        for link in pinged {
            if self.names.get(&link).is_some_and(|name| !self.silent.contains(name)) {
                self.step(Input::Pong { link })?;
            }
        }
        Ok(())
    }

    /// The same inputs give the same actions, byte for byte, and looking at the clock once more
    /// than needed changes nothing.
    fn step_replica(&mut self, inputs: Vec<Input>, actions: &[Action]) -> Result<(), String> {
        let mut others = Vec::new();
        for input in inputs {
            self.replica.step(self.now, input, &mut others);
        }
        if format!("{actions:?}") != format!("{others:?}") {
            return Err(format!("law 7: once {actions:?}, once {others:?}"));
        }
        others.clear();
        self.replica.step(self.now, Input::Deadline, &mut others);
        if others.is_empty() {
            Ok(())
        } else {
            Err(format!("law 6: a deadline that is not due has {others:?}"))
        }
    }

    /// Lets time pass, stopping wherever the engine wants to look at the clock.
    ///
    /// # Errors
    /// The engine broke a law, or its next deadline does not move on.
    pub fn wait(&mut self, micros: u64) -> Result<(), String> {
        let until = Tick(self.now.0 + micros);
        let mut looks = 0;
        while let Some(at) = self.engine.next_deadline().filter(|&at| at <= until) {
            looks = if at > self.now { 0 } else { looks + 1 };
            if looks > 3 {
                return Err(format!("the engine's next deadline stays at {} ms", at.as_millis()));
            }
            self.now = self.now.max(at);
            self.step(Input::Deadline)?;
        }
        self.now = until;
        self.step(Input::Deadline)
    }

    /// Lets time pass. The broker reads the next input before it handles what is due.
    pub(super) fn oversleep(&mut self, micros: u64) {
        self.now = Tick(self.now.0 + micros);
        self.has_overslept = true;
    }

    /// Stops the broker for some time: afterwards much is due, and no input arrived meanwhile.
    ///
    /// # Errors
    /// The engine broke a law.
    pub fn stand_still(&mut self, micros: u64) -> Result<(), String> {
        self.now = Tick(self.now.0 + micros);
        self.step(Input::Deadline)
    }

    /// Takes the items since the last call, with the state changes of workers at the end.
    pub(super) fn look(&mut self) -> Vec<Item> {
        let mut lists = BTreeMap::new();
        for worker in self.engine.workers_view() {
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

    /// A link for a name; the lowest free slot is used again, with a higher generation.
    ///
    /// # Errors
    /// The name has one already.
    pub fn open(&mut self, name: &str) -> Result<LinkId, String> {
        if self.links.contains_key(name) {
            return Err(format!("{name} is connected already; '{name} closes' ends that"));
        }
        let is_used = |index: &u32| self.names.keys().any(|link| link.index == *index);
        let index = (0..).find(|index| !is_used(index)).unwrap_or_default();
        if self.generations.len() <= index as usize {
            self.generations.push(0);
        }
        let generation = &mut self.generations[index as usize];
        *generation += 1;
        let link = LinkId { index, generation: *generation };
        self.links.insert(name.to_owned(), link);
        self.names.insert(link, name.to_owned());
        Ok(link)
    }

    /// The link of a name.
    ///
    /// # Errors
    /// It is not connected.
    pub fn link(&self, name: &str) -> Result<LinkId, String> {
        self.links.get(name).copied().ok_or_else(|| format!("{name} is not connected"))
    }

    /// Removes a closed link.
    pub fn unlink(&mut self, link: LinkId) -> Option<String> {
        let name = self.names.remove(&link)?;
        self.links.remove(&name);
        Some(name)
    }

    /// Releases the name of a link that its owner has given up, so that a new link can have it.
    pub(super) fn rename(&mut self, name: &str, new: &str) {
        if let Some(link) = self.links.remove(name) {
            self.links.insert(new.to_owned(), link);
            self.names.insert(link, new.to_owned());
        }
    }

    /// The other end closes.
    ///
    /// # Errors
    /// It is not connected, or the engine broke a law.
    pub fn close(&mut self, name: &str, how: Close) -> Result<(), String> {
        let link = self.link(name)?;
        self.unlink(link);
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
