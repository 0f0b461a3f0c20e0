//! The test shell: what stands around the broker's engine in tests in place of the reactor. It
//! numbers links, gives inputs one at a time, carries out actions, and remembers what the engine
//! waits to be told. Scripts, the simulation and the fuzzer play it ([`Player`]).
//! `docs/testing.md` shows how it is taught a new action.

pub mod player;

pub use player::{Deed, Player};

use broker::engine::action::Action;
use broker::engine::input::{Input, Start};
use broker::engine::origin::{Origin, Requester};
use broker::engine::stored_config::StoredConfig;
use broker::engine::{Engine, EngineOptions};
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::HostName;
use protocol::proof::{Challenge, Proof};
use protocol::time::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

/// What the engine waits to be told. When, and what, is a test's choice.
#[derive(Clone, Debug)]
pub enum Ask {
    /// A connection to a host at an address: `HostOpened` or `HostRefused`.
    Dial(HostName, String),
    /// The far end is to prove its token: `Proof`.
    Challenge(LinkId),
    /// Whether a proof is right: `Proven`.
    Verify(LinkId, Box<Proof>),
    /// Which token is to be claimed at a host's execd: `Claimed`, or `Unproven`.
    Claim(LinkId, HostName),
    /// An execd wants a proof: a frame goes there, or `Unproven` follows.
    Prove(LinkId),
    /// The token file: `TokensRead`, maybe after `CertificatesRead`.
    Tokens(Requester),
    /// A file that an operator named in this command: `Sourced`.
    File(LinkId, Header, String),
    /// The configuration is to be stored: `Stored` with this number.
    Store(u64),
}

impl Ask {
    /// Whether it is a dial to this host.
    pub fn is_dial(&self, name: &str) -> bool {
        matches!(self, Self::Dial(host, _) if host.as_str() == name)
    }
}

/// How a test wants its shell.
#[derive(Clone, Copy, Debug)]
pub struct Choices {
    /// What the secret of a start begins with.
    pub secret: &'static str,
    /// The generation of the first link in a slot.
    pub generation: u32,
    /// A new link gets the lowest free slot, not that of the link that was closed last.
    pub lowest_first: bool,
    /// A second engine gets the same inputs, and after each a deadline that is not due. Both must
    /// act alike (laws 6 and 7).
    pub has_replica: bool,
}

/// One engine and what is around it; `E` is what a test knows of the far end of a link.
#[derive(Debug)]
pub struct TestShell<E> {
    /// The engine under test.
    pub engine: Engine,
    /// The time of the engine's clock.
    pub now: Tick,
    /// Time has passed that the engine has not been told of: what comes is read first.
    pub has_overslept: bool,
    /// The links that are open; they come and go by `open` and `close`.
    pub ends: BTreeMap<LinkId, E>,
    /// What was asked and has no answer yet, the oldest first.
    pub asked: VecDeque<Ask>,
    choices: Choices,
    replica: Option<Engine>,
    options: EngineOptions,
    /// What a disk that takes every change has; `None` = the engine does not listen yet.
    stored: Option<StoredConfig>,
    /// What was stored last and not compared yet.
    last_stored: String,
    /// Links that the engine wants to read no further.
    unread: BTreeSet<LinkId>,
    /// The next generation of each slot, and the slots that are free.
    generations: Vec<u32>,
    free: Vec<u32>,
    /// What happens after this step.
    pending: VecDeque<Input>,
    is_stepping: bool,
}

impl<E> TestShell<E> {
    /// An engine that knows nothing.
    pub fn new(options: EngineOptions, choices: Choices) -> Self {
        Self {
            replica: choices.has_replica.then(|| Engine::new(options.clone())),
            options: options.clone(),
            stored: None,
            last_stored: String::new(),
            engine: Engine::new(options),
            now: Tick(0),
            has_overslept: false,
            ends: BTreeMap::new(),
            asked: VecDeque::new(),
            choices,
            unread: BTreeSet::new(),
            generations: Vec::new(),
            free: Vec::new(),
            pending: VecDeque::new(),
            is_stepping: false,
        }
    }

    /// A new link. A slot that is used again gets a higher generation.
    pub fn open(&mut self, end: E) -> LinkId {
        if self.choices.lowest_first {
            self.free.sort_unstable_by(|a, b| b.cmp(a));
        }
        let index = self.free.pop().unwrap_or_else(|| {
            self.generations.push(self.choices.generation);
            self.generations.len() as u32 - 1
        });
        let generation = self.generations[index as usize];
        self.generations[index as usize] += 1;
        let link = LinkId { index, generation };
        self.ends.insert(link, end);
        link
    }

    /// A link is gone, and with it what was asked about who is there.
    pub fn close(&mut self, link: LinkId) -> Option<E> {
        let end = self.ends.remove(&link)?;
        self.unread.remove(&link);
        self.free.push(link.index);
        self.asked.retain(|ask| match ask {
            Ask::Challenge(of) | Ask::Verify(of, _) => *of != link,
            Ask::Claim(of, _) | Ask::Prove(of) => *of != link,
            Ask::Dial(..) | Ask::Tokens(_) | Ask::File(..) | Ask::Store(_) => true,
        });
        Some(end)
    }

    /// Whether the engine wants to read a link no further.
    pub fn is_unread(&self, link: LinkId) -> bool {
        self.unread.contains(&link)
    }

    /// A link is read further or not; whether that is new.
    fn reads(&mut self, link: LinkId, is_on: bool) -> bool {
        if is_on { self.unread.remove(&link) } else { self.unread.insert(link) }
    }

    /// Whether the engine wants to look at the clock.
    pub fn is_due(&self) -> bool {
        self.engine.next_deadline().is_some_and(|due| due <= self.now)
    }

    /// Takes the oldest question of a kind.
    pub fn take_asked(&mut self, is_meant: impl Fn(&Ask) -> bool) -> Option<Ask> {
        let at = self.asked.iter().position(is_meant)?;
        self.asked.remove(at)
    }

    /// Who asked for the reload that waits longest; it is over when the tokens are read.
    pub fn requester(&mut self, is_over: bool) -> Requester {
        let at = self.asked.iter().position(|ask| matches!(ask, Ask::Tokens(_)))?;
        let ask = if is_over { self.asked.remove(at) } else { self.asked.get(at).cloned() };
        ask.and_then(|ask| if let Ask::Tokens(requester) = ask { requester } else { None })
    }

    /// Something happens after this step.
    pub fn push(&mut self, input: Input) {
        self.pending.push_back(input);
    }

    /// The engine is gone; another one takes its place.
    pub fn renew(&mut self, options: EngineOptions) {
        self.stored = None;
        self.last_stored.clear();
        self.options = options.clone();
        self.engine = Engine::new(options);
    }

    /// The script that a broker would begin with if this one ended now and the disk took every
    /// change.
    pub fn kept(&self) -> String {
        self.stored.as_ref().map(StoredConfig::script).unwrap_or_default()
    }

    /// Gives the engine an input; what it does for it.
    ///
    /// # Errors
    /// The replica does something else, or what is stored is not the configuration.
    pub fn step(&mut self, input: Input) -> Result<Vec<Action>, String> {
        if let Input::Listening(listening) = &input {
            let execd = listening.execd.clone();
            self.stored = Some(StoredConfig::new(self.options.clone(), execd));
        }
        if let (Input::Script { origin: Origin::State | Origin::Broker, text }, Some(stored)) =
            (&input, &mut self.stored)
        {
            // What fails here fails in the engine, too.
            let _ = stored.apply(text);
        }
        let actions = self.step_twice(input)?;
        for action in &actions {
            if let (Action::Store { lines, .. }, Some(stored)) = (action, &mut self.stored) {
                stored.apply(lines).map_err(|why| format!("law 9: {why:?} of stored {lines}"))?;
                self.last_stored.clone_from(lines);
            }
        }
        // What is under way is done in the engine when it is done, and was stored before.
        if let Some(stored) = &self.stored
            && !self.last_stored.is_empty()
            && !self.engine.is_working()
        {
            let lines = std::mem::take(&mut self.last_stored);
            let (stored, config) = (stored.script(), self.engine.save_script());
            if stored != config {
                return Err(format!("law 9: after\n{lines}stored is\n{stored}of\n{config}"));
            }
        }
        Ok(actions)
    }

    fn step_twice(&mut self, input: Input) -> Result<Vec<Action>, String> {
        let is_late = std::mem::take(&mut self.has_overslept);
        let run = |engine: &mut Engine, input| {
            let mut actions = Vec::new();
            engine.step(self.now, input, &mut actions);
            if is_late {
                engine.step(self.now, Input::Deadline, &mut actions);
            }
            actions
        };
        let Some(replica) = &mut self.replica else { return Ok(run(&mut self.engine, input)) };
        let actions = run(&mut self.engine, input.clone());
        let others = run(replica, input);
        if format!("{actions:?}") != format!("{others:?}") {
            return Err(format!("law 7: once {actions:?}, once {others:?}"));
        }
        let mut rest = Vec::new();
        replica.step(self.now, Input::Deadline, &mut rest);
        if rest.is_empty() {
            Ok(actions)
        } else {
            Err(format!("law 6: a deadline that is not due has {rest:?}"))
        }
    }

    /// The next input that waits. What is about the outbox of a link, or its pong, is nothing when
    /// the link is gone meanwhile.
    fn next_pending(&mut self) -> Option<Input> {
        loop {
            match self.pending.pop_front()? {
                Input::Congested { link }
                | Input::Uncongested { link }
                | Input::OutboxFull { link, .. }
                | Input::Stalled { link, .. }
                | Input::Pong { link }
                    if !self.ends.contains_key(&link) => {}
                input => return Some(input),
            }
        }
    }
}

/// A challenge; all are alike.
pub fn challenge() -> Frame {
    let (salt, nonce) = (vec![0; 16], vec![0; 32]);
    Frame::Challenge(Challenge { salt, memory_kib: 8, passes: 1, lanes: 1, nonce, channels: None })
}

/// The secret of a worker's start: the start itself, behind the word that a test chose.
pub fn secret(chosen: &str, worker: WorkerId, Start { run, digest }: Start) -> String {
    format!("{chosen}.{worker}.{run}.{digest}")
}

/// The start that a worker's secret proves.
pub fn prove(worker: WorkerId, given: &str) -> Option<Start> {
    let words: Vec<&str> = given.split('.').collect();
    let [_, of, run, digest] = words[..] else { return None };
    let start = Start { run: RunId(run.parse().ok()?), digest: digest.parse().ok()? };
    (of.parse() == Ok(worker.0)).then_some(start)
}
