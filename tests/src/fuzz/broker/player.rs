//! Plays the broker's reactor around the engine, without sockets: links, bytes to frames, actions.
//! After each step it checks the engine's laws and shows the actions to the checker.

use super::checker::{Checker, Sabotage};
use super::tokens;
use broker::engine::action::{Action, Origin};
use broker::engine::input::{Close, Input, Listening, Peer, Start as Given};
use broker::engine::{Engine, EngineOptions};
use broker::translate::{inbound, outbound};
use bytes::{Buf, Bytes, BytesMut};
use protocol::bodies::{ExecStart, Format};
use protocol::decode;
use protocol::encode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::kinds::Role;
use protocol::limits::HEADER_BYTES;
use protocol::names::HostName;
use protocol::op::reply::OpReply;
use protocol::settings::{Setting, Settings};
use protocol::time::Tick;
use std::collections::hash_map::DefaultHasher;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

/// Most bytes of a link that is not read.
const INBOX_BYTES_MAX: usize = 64 * 1024;
/// Most of what is remembered of the past: starts, requests of a worker.
const REMEMBERED_MAX: usize = 32;
/// Most looks at the clock at one moment.
const LOOKS_MAX: u32 = 64;

/// A connection.
#[derive(Debug)]
pub struct Conn {
    /// Role of the peer.
    pub role: Role,
    /// It is logged in as an operator.
    pub is_operator: bool,
    /// Its login named the service `op`; the answer may still be awaited.
    wants_op: bool,
    /// The engine accepted its login.
    pub is_known: bool,
    /// The engine wants nothing of it for now.
    pub is_unread: bool,
    /// Requests that a worker was given, the oldest first.
    pub given: VecDeque<Header>,
    /// Sequence of the last status question.
    pub status: u32,
    inbox: BytesMut,
    skip: usize,
    /// A malformed frame came, so nothing more is read.
    is_malformed: bool,
}

/// A start that an execd was asked for.
#[derive(Clone, Debug)]
pub struct Start {
    /// Link of the execd.
    pub link: LinkId,
    /// The frame's content, with the secret of the start.
    pub start: ExecStart,
}

/// Plays the broker's reactor: the engine, without sockets.
#[derive(Debug)]
pub struct BrokerPlayer {
    /// The engine under test.
    pub engine: Engine,
    /// Present time of the world; only the player advances it.
    pub now: Tick,
    /// Connections.
    pub conns: BTreeMap<LinkId, Conn>,
    /// Checks what the engine promised.
    pub checker: Checker,
    /// Requests accepted that a `reset` no longer counts.
    forgotten: u64,
    /// Dials without an outcome.
    pub dials: VecDeque<HostName>,
    /// The last starts.
    pub starts: VecDeque<Start>,
    /// Commands that wait for a file.
    pub sources: VecDeque<(LinkId, Header, String)>,
    /// Links that were sent a challenge.
    pub challenged: VecDeque<LinkId>,
    /// Links whose proof is to be checked.
    pub proofs: VecDeque<LinkId>,
    /// Sources of the reloads that wait.
    pub reloads: VecDeque<(LinkId, Header)>,
    /// The process has ended.
    pub has_ended: bool,
    /// One number for all that was done.
    pub trace: u64,
    slots: Vec<u32>,
    free: Vec<u32>,
    runs: u64,
    has_execd: bool,
    resumed: Vec<LinkId>,
}

/// The secret that a start gets.
fn secret(worker: WorkerId, start: Given) -> String {
    let Given { run, digest } = start;
    format!("s.{worker}.{run}.{digest}")
}

fn prove(worker: WorkerId, given: &str) -> Option<Given> {
    let (of, start) = given.strip_prefix("s.")?.split_once('.')?;
    let (run, digest) = start.split_once('.')?;
    let start = Given { run: RunId(run.parse().ok()?), digest: digest.parse().ok()? };
    (of.parse() == Ok(worker.0)).then_some(start)
}

/// Checks that a text for a terminal has no control characters.
fn no_controls(text: &str) {
    let bad = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert!(bad.is_none(), "an answer has the control character {bad:?}: {text:?}");
}

impl BrokerPlayer {
    /// A broker that was started and knows nothing.
    pub fn new(sabotage: Sabotage) -> Self {
        let options = EngineOptions { settings: Settings::default(), run_base: 0 };
        Self {
            engine: Engine::new(options),
            now: Tick(0),
            conns: BTreeMap::new(),
            checker: Checker::new(sabotage),
            forgotten: 0,
            dials: VecDeque::new(),
            starts: VecDeque::new(),
            sources: VecDeque::new(),
            challenged: VecDeque::new(),
            proofs: VecDeque::new(),
            reloads: VecDeque::new(),
            has_ended: false,
            trace: 0,
            slots: Vec::new(),
            free: Vec::new(),
            runs: 0,
            has_execd: true,
            resumed: Vec::new(),
        }
    }

    /// The engine listens; with a configuration, unless the flags say otherwise.
    pub fn begin(&mut self, flags: u8) {
        self.listens(flags & 1 == 0);
        if flags & 2 == 0 {
            let text = "config service echo selfstart=1\nconfig service pipe prefetch=2\n\
                        config worker echo localhost /bin/echo\nconfig worker echo localhost /x a\n\
                        config worker pipe localhost /bin/pipe\nstart all\n";
            self.step(Input::Script { origin: Origin::Broker, text: text.into() });
        }
    }

    fn listens(&mut self, has_execd: bool) {
        self.has_execd = has_execd;
        let listening = Listening {
            host: "fuzz".into(),
            worker_port: 5500,
            worker_host: "127.0.0.1".into(),
            client_port: 5501,
            execd: has_execd.then(|| "unix:/x/execd".into()),
            instance: "fuzz".into(),
            version: "0".into(),
            ..Listening::default()
        };
        self.step(Input::Listening(Box::new(listening)));
    }

    /// A slot for a new connection.
    pub fn open(&mut self, role: Role) -> LinkId {
        let index = self.free.pop().unwrap_or_else(|| {
            self.slots.push(0);
            self.slots.len() as u32 - 1
        });
        self.slots[index as usize] += 1;
        let link = LinkId { index, generation: self.slots[index as usize] };
        let conn = Conn {
            role,
            is_operator: false,
            wants_op: false,
            is_known: false,
            is_unread: false,
            given: VecDeque::new(),
            status: 0,
            inbox: BytesMut::new(),
            skip: 0,
            is_malformed: false,
        };
        self.conns.insert(link, conn);
        link
    }

    /// A program connects.
    pub fn connect(&mut self, role: Role, is_owner: bool) -> LinkId {
        let link = self.open(role);
        let fd = link.index as i32 + 5;
        let address = SocketAddr::from(([127, 0, 0, 1], (40_000 + link.index) as u16));
        let peer = Peer { uid: Some(1000), is_owner, ..Peer::tcp(address, fd) };
        self.step(match role {
            Role::Worker => Input::WorkerOpened { link, peer },
            Role::Client | Role::Host | Role::Broker => Input::ClientOpened { link, peer },
        });
        link
    }

    /// Bytes come on a link.
    pub fn receive(&mut self, link: LinkId, bytes: &[u8]) {
        let Some(conn) = self.conns.get_mut(&link) else { return };
        if conn.inbox.len() + bytes.len() <= INBOX_BYTES_MAX {
            conn.inbox.extend_from_slice(bytes);
        }
        self.read(link);
    }

    /// A frame comes on a link.
    pub fn frame(&mut self, link: LinkId, frame: Frame) {
        self.receive(link, &encode::to_bytes(frame));
    }

    /// Gives the engine the frames received on a link, until it stops reading the link.
    fn read(&mut self, link: LinkId) {
        let body_bytes_max = self.engine.settings().get(Setting::BodyBytesMax) as usize;
        while let Some(conn) = self.conns.get_mut(&link) {
            if conn.is_unread || conn.is_malformed || self.has_ended {
                return;
            }
            let passed = conn.skip.min(conn.inbox.len());
            conn.inbox.advance(passed);
            conn.skip -= passed;
            let Some(first) = conn.inbox.first_chunk::<HEADER_BYTES>() else { return };
            match decode::head(first, body_bytes_max) {
                Err(error) => {
                    conn.inbox.advance(HEADER_BYTES);
                    match error.skip {
                        Some(count) => conn.skip = count as usize,
                        None => conn.is_malformed = true,
                    }
                    self.step(Input::Garbage { link, error });
                }
                Ok((_, head)) if conn.inbox.len() < HEADER_BYTES + head.len as usize => return,
                Ok((kind, head)) => {
                    conn.inbox.advance(HEADER_BYTES);
                    let body = conn.inbox.split_to(head.len as usize).freeze();
                    let role = conn.role;
                    let arrived = inbound::Arrived { link, role, kind, head, body };
                    match inbound::input(arrived, prove) {
                        Ok(input) => self.step(input),
                        Err(error) => {
                            conn.is_malformed = true;
                            self.step(Input::Garbage { link, error });
                        }
                    }
                }
            }
        }
    }

    /// The other end closes.
    pub fn close(&mut self, link: LinkId, how: Close) {
        if self.forget(link) {
            self.checker.link_gone(link, how == Close::Eof);
            self.step(Input::Closed { link, how });
        }
    }

    /// All other ends close.
    pub fn close_all(&mut self) {
        let links: Vec<LinkId> = self.conns.keys().copied().collect();
        links.into_iter().for_each(|link| self.close(link, Close::Reset));
    }

    fn forget(&mut self, link: LinkId) -> bool {
        let is_there = self.conns.remove(&link).is_some();
        tokens::forget(self, link);
        if is_there {
            self.free.push(link.index);
        }
        is_there
    }

    /// Reads the waiting bytes of all links, also of those that the engine paused.
    pub fn resume_all(&mut self) {
        for conn in self.conns.values_mut() {
            conn.inbox.clear();
        }
    }

    /// Gives the engine an input, checks everything, and carries out its actions.
    pub fn step(&mut self, input: Input) {
        let shown = match &input {
            Input::Request { link, head, .. } => Some((*link, *head)),
            Input::Login { link, login } => {
                if let Some(conn) = self.conns.get_mut(link).filter(|conn| !conn.is_known) {
                    conn.wants_op = login.service.is_op();
                }
                None
            }
            Input::Logout { link } => {
                self.checker.link_gone(*link, true);
                None
            }
            _ => None,
        };
        let before = self.engine.totals().accepted;
        let mut actions = Vec::new();
        self.engine.step(self.now, input, &mut actions);
        if let Err(law) = self.engine.check_all() {
            panic!("{law}");
        }
        let accepted = self.engine.totals().accepted;
        // `reset` counts anew from what is under way; transactions go on.
        self.forgotten += before.saturating_sub(accepted);
        if let Some((link, head)) = shown {
            if accepted > before {
                assert_eq!(accepted, before + 1, "one request is accepted once");
                self.checker.accepted(self.forgotten + accepted, link, &head);
            } else if self.conns.get(&link).is_some_and(|conn| conn.is_operator) {
                self.checker.asked(link, &head);
            }
        } else {
            assert!(accepted <= before, "nothing but a request is accepted");
        }
        let mut hasher = DefaultHasher::new();
        (self.trace, actions.len()).hash(&mut hasher);
        self.trace = hasher.finish();
        for action in actions {
            self.apply(action);
        }
    }

    /// Lets the engine handle everything that is due.
    pub fn look_at_clock(&mut self) {
        let mut looks = 0;
        self.step(Input::Deadline);
        while !self.has_ended && self.engine.next_deadline().is_some_and(|due| due <= self.now) {
            looks += 1;
            assert!(looks < LOOKS_MAX, "something stays due at {} ms", self.now.as_millis());
            self.step(Input::Deadline);
        }
    }

    fn conn(&mut self, link: LinkId, what: &str) -> &mut Conn {
        let conn = self.conns.get_mut(&link);
        conn.unwrap_or_else(|| panic!("law 8: {what} for link {link}, which is gone"))
    }

    fn apply(&mut self, action: Action) {
        match action {
            Action::Send { link, frame } => self.send(link, frame),
            Action::Answer { link, head, reply, format } => {
                check_reply(&reply, format);
                self.checker.to_operator(link, &head);
                self.conn(link, "an answer");
                encode::to_bytes(outbound::answer(head, &reply, format));
            }
            Action::Start { link, start } => {
                let given = Given { run: start.run, digest: start.digest };
                let secret = secret(start.worker, given);
                self.runs = self.runs.max(start.run.0);
                let frame = outbound::start(*start.clone(), secret.clone());
                self.send(link, frame);
                let start = ExecStart { secret, ..*start };
                self.starts.push_front(Start { link, start });
                self.starts.truncate(REMEMBERED_MAX);
            }
            Action::Close { link } => {
                self.conn(link, "a close");
                self.checker.link_gone(link, false);
                self.forget(link);
            }
            Action::ShutWrite { link } => {
                self.conn(link, "a shut");
            }
            Action::StopReading { link } => {
                let conn = self.conn(link, "a stop of reading");
                assert!(!std::mem::replace(&mut conn.is_unread, true), "{link} is stopped twice");
            }
            Action::ResumeReading { link } => {
                let conn = self.conn(link, "a resumption of reading");
                assert!(std::mem::replace(&mut conn.is_unread, false), "{link} is resumed twice");
                self.resumed.push(link);
            }
            Action::Dial { host, address } => {
                assert!(!self.dials.contains(&host), "{host} is dialled twice");
                assert!(!address.is_empty(), "{host} is dialled nowhere");
                self.dials.push_back(host);
            }
            Action::Persist => {}
            Action::Challenge { link, .. } => {
                self.conn(link, "a challenge");
                self.challenged.push_back(link);
            }
            Action::Verify { link, .. } => {
                self.conn(link, "a proof");
                self.proofs.push_back(link);
            }
            Action::Greet { link, hello } => self.send(link, Frame::ExecHello(*hello)),
            Action::Prove { link, .. } => {
                self.conn(link, "a proof of ours");
            }
            Action::ReadTokens { requester } => self.reloads.extend(requester),
            Action::Source { link, head, path } => {
                self.conn(link, "a file");
                self.sources.push_back((link, head, path));
            }
            Action::Record(fact) => {
                assert!(!fact.text.contains(char::is_control), "a fact: {:?}", fact.text);
            }
            Action::ScriptDone { origin, failures } => {
                let is_own = origin != Origin::Broker;
                assert!(!is_own || failures.is_empty(), "{origin:?}: {failures:?}");
            }
            Action::End(_) => self.has_ended = true,
        }
    }

    /// Reads the waiting bytes of resumed links, as the loop does in its next turn.
    pub fn read_resumed(&mut self) {
        for link in std::mem::take(&mut self.resumed) {
            self.read(link);
        }
    }

    fn send(&mut self, link: LinkId, frame: Frame) {
        assert!(frame.kind().may_send(Role::Broker), "the broker sends {}", frame.kind());
        self.conn(link, "a frame");
        let Some(conn) = self.conns.get_mut(&link) else { return };
        match (&frame, conn.role) {
            (Frame::Data { head, .. }, Role::Worker) => {
                conn.given.push_back(*head);
                if conn.given.len() > REMEMBERED_MAX {
                    conn.given.pop_front();
                }
                self.checker.to_worker(link, head);
            }
            (Frame::Data { .. } | Frame::Error { .. }, Role::Client) if !conn.is_operator => {
                self.checker.to_client(link, &frame);
            }
            (Frame::Error { head, .. }, Role::Client)
                if self.checker.watches(link, head.sequence) =>
            {
                self.checker.to_operator(link, head);
            }
            (Frame::Status { sequence }, _) => conn.status = *sequence,
            (Frame::LoginOk(_) | Frame::WorkerLoginOk(_), _) => {
                conn.is_known = true;
                conn.is_operator = conn.wants_op;
            }
            _ => {}
        }
        encode::to_bytes(frame);
    }

    /// The process is gone and a new one starts from what was saved.
    pub fn restart(&mut self) {
        self.check_save();
        let script = self.engine.save_script();
        let links: Vec<LinkId> = self.conns.keys().copied().collect();
        for link in links {
            self.checker.link_gone(link, false);
            self.forget(link);
        }
        (self.dials, self.sources) = (VecDeque::new(), VecDeque::new());
        (self.challenged, self.proofs) = (VecDeque::new(), VecDeque::new());
        self.reloads.clear();
        self.checker = Checker::new(Sabotage::None);
        self.checker.may_repeat = true;
        let run_base = self.runs + 1000;
        self.engine = Engine::new(EngineOptions { settings: Settings::default(), run_base });
        self.forgotten = 0;
        self.now = Tick(0);
        self.listens(self.has_execd);
        self.step(Input::Script { origin: Origin::State, text: script });
    }

    /// Checks that the saved configuration is read back without an error and saved again unchanged.
    pub fn check_save(&self) {
        let saved = self.engine.save_script();
        let mut other = Engine::new(EngineOptions::default());
        let mut actions = Vec::new();
        let listening = Listening {
            execd: self.has_execd.then(|| "unix:/x/execd".into()),
            ..Listening::default()
        };
        other.step(Tick(0), Input::Listening(Box::new(listening)), &mut actions);
        let script = Input::Script { origin: Origin::State, text: saved.clone() };
        other.step(Tick(0), script, &mut actions);
        for action in actions {
            if let Action::ScriptDone { failures, .. } = action {
                assert!(failures.is_empty(), "{failures:?} of\n{saved}");
            }
        }
        assert_eq!(other.save_script(), saved, "saved, read back and saved again");
    }

    /// A command of an operator that is known to the checker.
    pub fn command(&mut self, link: LinkId, head: Header, text: &[u8]) {
        self.checker.may_repeat |= text.windows(5).any(|word| word == b"retry");
        self.frame(link, Frame::data(head, Bytes::copy_from_slice(text)));
    }
}

fn check_reply(reply: &OpReply, format: Format) {
    match format {
        Format::Text | Format::Screen(_) => no_controls(&reply.render(format)),
        Format::Json => {
            let json = reply.json();
            let read = serde_json::from_str::<serde_json::Value>(&json);
            assert!(read.is_ok(), "{read:?}: {json}");
        }
    }
}
