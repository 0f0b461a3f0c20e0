//! Start-up and the loop. One thread waits, reads the clock once, feeds the engine, carries out its
//! actions, and writes. The engine takes all decisions.

use super::authenticator::Authenticator;
use super::children::{Children, Source};
use super::clock::Clock;
use super::link::{self, Link, Received};
use super::listen::{AccessRules, Admission, Listener};
use super::log::{self, LogLimiter};
use super::options::{Failure, Options};
use super::output::OutputKeeper;
use super::policy::{self, Identity};
use super::spawn::SpawnConfig;
use super::startup::{announce, check_options, fit, keep_output, take_signals};
use super::state_dir::{Entry, StateDir};
use super::{launch, orphans, reap};
use crate::engine::input::{Input, RecordedProcess};
use crate::engine::{Config, Engine};
use crate::exit::Exit;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::{LinkId, Micros, Proof, Tick};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::os::fd::AsFd;
use std::sync::Arc;
use sys::descriptors;
use sys::signals::{Meaning, SignalReader};
use tracing::{info, warn};

/// Most frames taken from one connection in a turn; a fork takes a fraction of a millisecond.
const FRAMES_A_TURN: usize = 32;

/// Most frames taken in a turn from a connection on which no broker was welcomed.
const PRE_LOGIN_FRAMES: usize = 4;

/// Time of a turn after which no further connection without a broker is read; a single step of a
/// TLS handshake may take longer.
const PRE_LOGIN_TIME: Micros = Micros::from_millis(2);

/// Most connections accepted in a turn.
const ACCEPTS_A_TURN: usize = 16;

/// Most closing connections that are kept, besides those that the engine knows.
pub(super) const LINGERING_MAX: usize = 64;

/// Milliseconds after a failed accept (no descriptors left) before the next try.
const ACCEPT_RETRY_MS: u64 = 100;

/// Longest time that a turn waits for starts and for the state directory, in all.
const TURN_WAIT_MAX: Micros = Micros::from_millis(10);

/// The loop of an execd: its engine, and everything that an action may use.
#[derive(Debug)]
pub(super) struct ExecLoop {
    pub(super) clock: Clock,
    engine: Engine,
    pub(super) signals: SignalReader,
    /// Whether the processor time is used up, and that was taken as a request to end.
    is_spent: bool,
    pub(super) listener: Option<Listener>,
    /// The authenticator, if brokers must prove a token.
    pub(super) authenticator: Option<Authenticator>,
    /// Proofs that wait to be checked, by the tick of their check.
    pub(super) proofs: BTreeMap<(Tick, LinkId), Proof>,
    /// Limits the log lines that peers cause.
    pub(super) log_limiter: LogLimiter,
    accept_again: Option<Tick>,
    links_ever: u64,
    lingering_max: usize,
    pub(super) links: BTreeMap<LinkId, Link>,
    /// Links with bytes to write.
    pub(super) dirty: BTreeSet<LinkId>,
    /// Links with bytes that were read and not taken yet.
    unread: BTreeSet<LinkId>,
    pub(super) inputs: VecDeque<Input>,
    pub(super) children: Children,
    pub(super) spawn_config: SpawnConfig,
    /// How long this turn may still wait for starts and for the state directory.
    pub(super) turn_wait: Micros,
    pub(super) state: Option<StateDir>,
    pub(super) is_state_stale: bool,
    /// Keeps the output of the workers.
    pub(super) output: Option<OutputKeeper>,
    /// Processes of an earlier execd by process id, until the engine adopts them.
    pub(super) recorded: BTreeMap<u32, Entry>,
    pub(super) is_exiting: bool,
    /// Whether the processes stay for the next execd of the state directory.
    pub(super) keeps_children: bool,
    /// Digest of what is enforced on processes that are started.
    pub(super) policy: Arc<str>,
}

/// The source of an event in the poll set.
#[derive(Clone, Copy, Debug)]
enum Token {
    Signals,
    Listener,
    Link(LinkId),
    Child(crate::engine::child::ChildId, Source),
    /// Lines that were asked for have been read.
    Output,
}

/// Runs an execd until it is asked to end. Call it once, on the main thread. Other threads must
/// have all signals blocked, because the loop receives them.
///
/// # Errors
/// execd can't listen, can't use the state directory, …; `exit` says which.
pub fn run(options: Options) -> Result<(), Failure> {
    descriptors::occupy_below(launch::NUMBERS);
    if options.built_in {
        // Ctrl-C then reaches only the broker, which ends this execd in order. The call fails if
        // this process leads a group already, which has the same effect.
        let _ = nix::unistd::setsid();
    }
    let (mut exec_loop, address) = ExecLoop::new(options)?;
    info!(address, pid = std::process::id(), "listening");
    while !exec_loop.is_exiting {
        exec_loop.turn()?;
    }
    exec_loop.shut_down();
    Ok(())
}

impl ExecLoop {
    fn new(options: Options) -> Result<(Self, String), Failure> {
        check_options(&options)?;
        orphans::take_in().map_err(|error| Failure::kernel("PR_SET_CHILD_SUBREAPER", error))?;
        let signals = take_signals()?;
        let mut spawn_config = SpawnConfig::new(&options)?;
        let Identity { policy, binary } = policy::of(&options, &spawn_config);
        let (state, recorded) = match &options.state {
            None => (None, Vec::new()),
            Some(directory) => {
                let (state, recorded) = StateDir::open(directory)?;
                spawn_config.directory_id.clone_from(&state.directory_id);
                spawn_config.directory_file = state.directory_file.try_clone().ok();
                (Some(state), recorded)
            }
        };
        let (output, kept) = keep_output(&options)?.unzip();
        let authenticator = options
            .tokens
            .map(Authenticator::open)
            .transpose()
            .map_err(|why| Failure::new(Exit::Usage, format!("--tokens {why}")))?;
        let access =
            AccessRules { has_tokens: authenticator.is_some(), is_insecure: options.insecure };
        let listener = Listener::bind(options.listen, options.tls, access)?;
        let address = listener.address.clone();
        let mut exec_loop = Self {
            clock: Clock::start(),
            engine: Engine::new(Config {
                limits: fit(options.limits, spawn_config.files_max()),
                hostpid: std::process::id(),
                version: env!("CARGO_PKG_VERSION").into(),
                policy: policy.clone(),
                binary,
                hands_over: options.built_in && options.state.is_some(),
                built_in: options.built_in,
                exits_with_broker: options.exits_with_broker,
                kept,
            }),
            signals,
            is_spent: false,
            listener: Some(listener),
            authenticator,
            proofs: BTreeMap::new(),
            log_limiter: LogLimiter::default(),
            accept_again: None,
            links_ever: 0,
            lingering_max: options.limits.links_max + LINGERING_MAX,
            links: BTreeMap::new(),
            dirty: BTreeSet::new(),
            unread: BTreeSet::new(),
            inputs: VecDeque::new(),
            children: Children::default(),
            spawn_config,
            turn_wait: TURN_WAIT_MAX,
            state,
            is_state_stale: false,
            output,
            recorded: BTreeMap::new(),
            is_exiting: false,
            keeps_children: false,
            policy: policy.into(),
        };
        exec_loop.take_recorded(recorded);
        announce(&address, options.ports_file.as_deref(), options.ready)?;
        Ok((exec_loop, address))
    }

    fn take_recorded(&mut self, recorded: Vec<(Entry, bool)>) {
        if let Some(directory_file) = &self.spawn_config.directory_file {
            let living = || recorded.iter().filter(|(_, alive)| *alive).map(|(entry, _)| entry);
            let pids: BTreeSet<u32> = living().map(|entry| entry.pid).collect();
            let runs = living().map(|entry| entry.run).collect();
            orphans::end_unknown(
                &runs,
                |pid| pids.contains(&pid),
                &self.spawn_config.directory_id,
                directory_file,
            );
        }
        for (entry, alive) in recorded {
            let Entry { worker, run, digest, pid, watched, .. } = entry;
            let broker = entry.broker.to_string();
            let is_older = entry.policy != self.policy;
            let recorded =
                RecordedProcess { broker, worker, run, digest, pid, alive, is_older, watched };
            self.inputs.push_back(Input::Recorded(recorded));
            if alive {
                self.recorded.insert(pid, entry);
            }
        }
        self.step(self.clock.read());
    }

    /// One turn of the loop.
    fn turn(&mut self) -> Result<(), Failure> {
        let ready = self.wait()?;
        self.turn_wait = TURN_WAIT_MAX;
        let now = self.clock.read();
        self.check_proofs(now);
        self.step(now);
        let mut pre_login = Vec::new();
        for token in ready {
            if let Token::Link(link) = token
                && self.links.get(&link).is_some_and(|link| !link.is_in)
            {
                pre_login.push(link);
                continue;
            }
            match token {
                Token::Child(child, Source::Pipe(stream)) => {
                    self.inputs.extend(self.children.read(child, stream));
                }
                Token::Child(child, Source::End) => self.inputs.extend(self.children.over(child)),
                Token::Child(child, Source::Launch) => {
                    self.inputs.extend(self.children.launched(child));
                }
                Token::Output => {}
                Token::Signals => self.take_signals(),
                Token::Link(link) => self.read(now, link),
                Token::Listener => self.accept(now),
            }
            self.step(now);
        }
        self.serve_pre_login(now, pre_login);
        if self.engine.next_deadline().is_some_and(|due| due <= now) {
            self.inputs.push_back(Input::Deadline);
            self.step(now);
        }
        self.pass_kept();
        self.flush(now);
        self.step(now);
        if std::mem::take(&mut self.is_state_stale)
            && let Some(state) = &self.state
        {
            state.rewrite(self.children.entries());
            self.await_written();
        }
        Ok(())
    }

    /// Reads connections without a broker. Those that were read before come first, because most of
    /// the work of their handshakes is done. Among new ones, those of the peer group with the
    /// fewest come first, and within a group the newest: the crowd before it may have given up, and
    /// a broker sends its hello at once. Connections that are not reached in this turn are reported
    /// again in the next.
    fn serve_pre_login(&mut self, now: Tick, pre_login: Vec<LinkId>) {
        let begun = self.clock.read();
        for link in link::in_turn(&self.links, pre_login) {
            self.read(now, link);
            self.step(now);
            if self.clock.read().since(begun) >= PRE_LOGIN_TIME {
                break;
            }
        }
    }

    /// Feeds the engine until no input is left.
    fn step(&mut self, now: Tick) {
        let mut actions = Vec::new();
        while let Some(input) = self.inputs.pop_front() {
            self.engine.step(now, input, &mut actions);
            for action in actions.drain(..) {
                self.apply(now, action);
            }
        }
    }

    /// Waits for something to happen, and returns what happened.
    fn wait(&self) -> Result<Vec<Token>, Failure> {
        let mut tokens = vec![Token::Signals];
        let mut fds = vec![PollFd::new(self.signals.as_fd(), PollFlags::POLLIN)];
        for (child, source, fd) in self.children.sources() {
            tokens.push(Token::Child(child, source));
            fds.push(PollFd::new(fd, PollFlags::POLLIN));
        }
        if let Some(output) = &self.output {
            tokens.push(Token::Output);
            fds.push(PollFd::new(output.source(), PollFlags::POLLIN));
        }
        for (id, link) in &self.links {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::POLLIN, link.wants_bytes());
            flags.set(PollFlags::POLLOUT, link.has_unsent());
            tokens.push(Token::Link(*id));
            fds.push(PollFd::new(link.as_fd(), flags));
        }
        if let Some(listener) = self.listener.as_ref().filter(|_| self.accept_again.is_none()) {
            tokens.push(Token::Listener);
            fds.push(PollFd::new(listener.as_fd(), PollFlags::POLLIN));
        }
        match poll(&mut fds, self.timeout()) {
            Ok(_) | Err(Errno::EINTR) => {}
            Err(error) => return Err(Failure::kernel("poll", error)),
        }
        let is_unread = |token: &Token| match token {
            Token::Link(link) => self.unread.contains(link),
            Token::Signals | Token::Listener | Token::Child(..) | Token::Output => false,
        };
        let ready = tokens.into_iter().zip(&fds);
        Ok(ready
            .filter(|(token, fd)| fd.any().unwrap_or(true) || is_unread(token))
            .map(|(token, _)| token)
            .collect())
    }

    fn timeout(&self) -> PollTimeout {
        if !self.unread.is_empty() {
            return PollTimeout::ZERO;
        }
        let lingers = self.links.values().filter_map(|link| link.linger_until);
        let proof = self.proofs.keys().next().map(|(at, _)| *at);
        let due = lingers.chain(self.engine.next_deadline()).chain(self.accept_again);
        let due = due.chain(proof).min();
        let Some(due) = due else { return PollTimeout::NONE };
        // Rounded up, so that the deadline has passed when the wait is over.
        let millis = due.since(self.clock.read()).0.div_ceil(1000);
        let millis = i32::try_from(millis).unwrap_or(i32::MAX);
        PollTimeout::try_from(millis).unwrap_or(PollTimeout::MAX)
    }

    fn take_signals(&mut self) {
        let mut is_child = false;
        while let Some(received) = self.signals.take() {
            match received.meaning() {
                Meaning::Child => is_child = true,
                Meaning::Reload => self.reload(),
                Meaning::Shutdown => self.inputs.push_back(Input::Terminate),
                Meaning::ShutdownOnce if self.is_spent => {}
                Meaning::ShutdownOnce => {
                    self.is_spent = true;
                    self.inputs.push_back(Input::Terminate);
                }
                Meaning::None => log::unused(received, self.signals.is_first(received)),
            }
        }
        if is_child {
            self.reap();
            let children = &self.children;
            let directory_id = &self.spawn_config.directory_id;
            orphans::end(directory_id, |pid| children.has(pid), |origin| children.wants(origin));
        }
    }

    pub(super) fn reap(&mut self) {
        for dead in reap::all(|pid| self.children.has(pid)) {
            self.inputs.extend(self.children.reaped(dead));
        }
    }

    fn read(&mut self, now: Tick, id: LinkId) {
        self.unread.remove(&id);
        let Some(link) = self.links.get_mut(&id) else { return };
        // Bytes that came before a close are taken before it.
        let end = if link.wants_bytes() { link.read().err() } else { None };
        let most = if link.is_in { FRAMES_A_TURN } else { PRE_LOGIN_FRAMES };
        for _ in 0..most {
            let Some(link) = self.links.get_mut(&id) else { return };
            match link.take() {
                Received::Frame(frame) => self.inputs.push_back(Input::Frame { link: id, frame }),
                Received::Garbled(error) => {
                    self.inputs.push_back(Input::Garbled { link: id, error });
                }
                Received::Nothing => {
                    if let Some(why) = end {
                        self.lost(id, why);
                        return;
                    }
                    if let Some(bytes) = link.take_partial() {
                        self.inputs.push_back(Input::PartialFrame { link: id, bytes });
                    }
                    if link.has_unsent() {
                        self.dirty.insert(id);
                    }
                    if link.has_more() {
                        self.unread.insert(id);
                    }
                    return;
                }
            }
            self.step(now);
        }
        // The rest is for the next turn, also the end if there was one (a further read finds it
        // again).
        self.unread.insert(id);
    }

    fn accept(&mut self, now: Tick) {
        for _ in 0..ACCEPTS_A_TURN {
            let Some(listener) = &self.listener else { return };
            let (stream, Admission { denied, must_prove, peer_group }) = match listener.accept() {
                Ok(Some(accepted)) => accepted,
                Ok(None) => return,
                Err(error) => {
                    // No descriptors are left, or the other side gave up; neither may end this
                    // loop.
                    if self.log_limiter.has_room(now) {
                        warn!(%error, "connection not accepted");
                    }
                    self.accept_again = Some(now.plus_millis(ACCEPT_RETRY_MS));
                    return;
                }
            };
            if self.links.len() >= self.lingering_max {
                // The connection that has been closing longest has had time to read why.
                let lingering = self.links.iter().find(|(_, link)| link.linger_until.is_some());
                let Some(id) = lingering.map(|(id, _)| *id) else { continue };
                self.links.remove(&id);
            }
            let link = LinkId {
                index: u32::try_from(self.links_ever & 0xffff_ffff).unwrap_or(0),
                generation: u32::try_from(self.links_ever >> 32).unwrap_or(0),
            };
            self.links_ever += 1;
            self.links.insert(link, Link::new(stream, peer_group));
            self.inputs.push_back(Input::Opened { link, denied, must_prove, peer_group });
        }
    }

    /// Writes what is queued, and drops connections whose closing took long enough.
    fn flush(&mut self, now: Tick) {
        self.write_queued();
        self.links.retain(|_, link| link.linger_until.is_none_or(|until| until > now));
        self.unread.retain(|id| self.links.contains_key(id));
        if self.accept_again.is_some_and(|again| again <= now) {
            self.accept_again = None;
        }
    }
}
