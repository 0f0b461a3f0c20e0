//! Plays the shell with a checker: what comes goes through the real `translate`, what the engine does
//! is shown to the checker, and what it waits for the fuzzer's bytes answer.

use super::bus::BusChecker;
use super::checker::{Checker, Sabotage};
use super::tokens::{self, ExecdProof};
use crate::shell::{self, Ask, Choices, Deed, Player, TestShell};
use broker::engine::action::Action;
use broker::engine::input::{Close, Input, Listening, Peer};
use broker::engine::origin::Origin;
use broker::engine::{Engine, EngineOptions};
use broker::translate::{inbound, outbound};
use bytes::Bytes;
use protocol::bodies::{ExecStart, Format};
use protocol::decode::{Limits, WireError};
use protocol::encode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::header::Header;
use protocol::ids::LinkId;
use protocol::kinds::{Kind, Role};
use protocol::limits::BODY_BYTES_DEFAULT;
use protocol::op::reply::OpReply;
use protocol::settings::{Setting, Settings};
use protocol::time::Tick;
use std::collections::VecDeque;
use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::net::SocketAddr;

/// Most bytes of a link that is not read.
const INBOX_BYTES_MAX: usize = 64 * 1024;
/// Most of what is remembered of the past: starts, requests of a worker.
const REMEMBERED_MAX: usize = 32;
/// The secrets of starts are those that [`super::words`] makes up.
const CHOICES: Choices =
    Choices { secret: "s", generation: 1, lowest_first: false, has_replica: false };

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
    /// Requests that a worker was given, the oldest first.
    pub given: VecDeque<Header>,
    /// The engine takes the end of what it sends for no end of the connection.
    pub may_half_close: bool,
    is_half_closed: bool,
    /// Sequence of the last status question.
    pub status: u32,
    /// Of an execd: the proof that must come before it is trusted.
    pub proof: ExecdProof,
    inbox: Inbox,
}

impl Conn {
    fn next(&mut self, limits: Limits) -> Option<Result<(Kind, Header, Bytes), WireError>> {
        self.inbox.limits = limits;
        self.inbox.take().transpose()
    }
}

/// A start that an execd was asked for.
#[derive(Clone, Debug)]
pub struct Start {
    /// Link of the execd.
    pub link: LinkId,
    /// The frame's content, with the secret of the start.
    pub start: ExecStart,
}

/// Plays the shell around an engine.
#[derive(Debug)]
pub struct BrokerPlayer {
    /// The engine, its clock and its links.
    pub shell: TestShell<Conn>,
    /// Checks what the engine promised.
    pub checker: Checker,
    pub(super) bus: BusChecker,
    /// Half of its moves are about topics and instances.
    pub(super) has_bus: bool,
    /// Requests accepted that a `reset` no longer counts.
    forgotten: u64,
    /// The last starts.
    pub starts: VecDeque<Start>,
    /// The process has ended.
    pub has_ended: bool,
    /// One number for all that was done.
    pub trace: u64,
    runs: u64,
    pub(super) has_execd: bool,
    resumed: Vec<LinkId>,
}

/// Checks that the saved configuration is read back without an error and saved again unchanged.
pub fn check_save(engine: &Engine, has_execd: bool) {
    let saved = engine.save_script();
    let mut other = Engine::new(EngineOptions::default());
    let mut actions = Vec::new();
    let execd = has_execd.then(|| "unix:/x/execd".into());
    let listening = Box::new(Listening { execd, ..Listening::default() });
    other.step(Tick(0), Input::Listening(listening), &mut actions);
    let script = Input::Script { origin: Origin::State, text: saved.clone() };
    other.step(Tick(0), script, &mut actions);
    for action in actions {
        if let Action::ScriptDone { failures, .. } = action {
            assert!(failures.is_empty(), "{failures:?} of\n{saved}");
        }
    }
    assert_eq!(other.save_script(), saved, "saved, read back and saved again");
}

fn engine_options(run_base: u64) -> EngineOptions {
    EngineOptions { settings: Settings::default(), run_base, transaction_base: run_base }
}

/// Checks that a text for a terminal has no control characters.
fn no_controls(text: &str) {
    let bad = text.chars().find(|c| c.is_control() && !matches!(c, '\n' | '\t'));
    assert!(bad.is_none(), "an answer has the control character {bad:?}: {text:?}");
}

impl BrokerPlayer {
    /// A broker that was started and knows nothing.
    pub fn new(sabotage: Sabotage) -> Self {
        Self {
            shell: TestShell::new(engine_options(0), CHOICES),
            checker: Checker::new(sabotage),
            bus: BusChecker::new(sabotage),
            has_bus: false,
            forgotten: 0,
            starts: VecDeque::new(),
            has_ended: false,
            trace: 0,
            runs: 0,
            has_execd: true,
            resumed: Vec::new(),
        }
    }

    /// The engine listens; with a configuration, unless the flags say otherwise.
    pub fn begin(&mut self, flags: u8) {
        // No input that is kept for what it found began so when this was added.
        self.has_bus = flags >> 5 == 6;
        self.listens(flags & 1 == 0);
        if flags & 2 == 0 {
            let open_ended = u8::from(flags & 4 != 0);
            let text = format!(
                "config service echo selfstart=1 open_ended={open_ended}\n\
                        config service pipe prefetch=2\n\
                        config worker echo localhost /bin/echo\nconfig worker echo localhost /x a\n\
                        config worker pipe localhost /bin/pipe\nstart all\n"
            );
            self.checker.may_park |= open_ended > 0;
            let origin = Origin::File("first".into());
            self.feed(Input::Script { origin, text });
        }
        self.feed(Input::Started);
    }

    fn listens(&mut self, has_execd: bool) {
        self.has_execd = has_execd;
        let listening = Listening {
            host: "fuzz".into(),
            worker_port: 5500,
            worker_host: "127.0.0.1".into(),
            client_port: 5501,
            execd: has_execd.then(|| "unix:/x/execd".into()),
            directory_id: "fuzz".into(),
            version: "0".into(),
            ..Listening::default()
        };
        self.feed(Input::Listening(Box::new(listening)));
    }

    /// A slot for a new connection.
    pub fn open(&mut self, role: Role) -> LinkId {
        self.shell.open(Conn {
            role,
            is_operator: false,
            wants_op: false,
            is_known: false,
            given: VecDeque::new(),
            may_half_close: false,
            is_half_closed: false,
            status: 0,
            proof: ExecdProof::Hello,
            inbox: Inbox::default(),
        })
    }

    /// A program connects.
    pub fn connect(&mut self, role: Role, is_owner: bool) -> LinkId {
        let link = self.open(role);
        let fd = link.index as i32 + 5;
        let address = SocketAddr::from(([127, 0, 0, 1], (40_000 + link.index) as u16));
        let peer = Peer { uid: Some(1000), is_owner, ..Peer::tcp(address, fd) };
        self.feed(match role {
            Role::Worker => Input::WorkerOpened { link, peer },
            Role::Client | Role::Host | Role::Broker => Input::ClientOpened { link, peer },
        });
        link
    }

    /// Bytes come on a link.
    pub fn receive(&mut self, link: LinkId, bytes: &[u8]) {
        let Some(conn) = self.shell.ends.get_mut(&link) else { return };
        if !conn.is_half_closed && conn.inbox.bytes_count() + bytes.len() <= INBOX_BYTES_MAX {
            conn.inbox.push(bytes);
        }
        self.read(link);
    }

    /// A frame comes on a link.
    pub fn frame(&mut self, link: LinkId, frame: Frame) {
        self.receive(link, &encode::to_bytes(frame));
    }

    /// Gives the engine the frames received on a link, until it stops reading the link.
    fn read(&mut self, link: LinkId) {
        let limits = Limits::new(self.shell.engine.settings().get(Setting::BodyBytesMax) as usize);
        while !(self.has_ended || self.shell.is_unread(link))
            && let Some(conn) = self.shell.ends.get_mut(&link)
            && let Some(next) = conn.next(limits)
        {
            let role = conn.role;
            let input = next.and_then(|(kind, head, body)| {
                let arrived = inbound::Arrived { link, role, kind, head, body };
                let check = |given: Option<&str>| tokens::check_signature(&mut conn.proof, given);
                inbound::input(arrived, shell::prove, check)
                    .inspect_err(|_| conn.inbox.set_malformed())
            });
            self.feed(input.unwrap_or_else(|error| Input::Garbage { link, error }));
        }
    }

    /// The other end sends nothing more, and reads.
    pub fn half_close(&mut self, link: LinkId) {
        if let Some(conn) = self.shell.ends.get_mut(&link)
            && std::mem::take(&mut conn.may_half_close)
            && !self.shell.is_unread(link)
        {
            self.shell.ends.get_mut(&link).into_iter().for_each(|conn| conn.is_half_closed = true);
            self.feed(Input::HalfClosed { link });
        }
    }

    /// The other end closes.
    pub fn close(&mut self, link: LinkId, how: Close) {
        if self.shell.close(link).is_some() {
            self.checker.link_gone(link, how == Close::Eof);
            self.bus.link_gone(link);
            self.feed(Input::Closed { link, how });
        }
    }

    /// All other ends close.
    pub fn close_all(&mut self) {
        let links: Vec<LinkId> = self.shell.ends.keys().copied().collect();
        links.into_iter().for_each(|link| self.close(link, Close::Reset));
    }

    /// Reads the waiting bytes of all links, also of those that the engine paused.
    pub fn resume_all(&mut self) {
        for conn in self.shell.ends.values_mut() {
            conn.inbox.clear();
        }
    }

    /// Lets the engine handle everything that is due.
    pub fn pass_time(&mut self) {
        self.feed(Input::Deadline);
        self.look_at_clock(Self::feed);
    }

    /// Reads the waiting bytes of resumed links, as the loop does in its next turn.
    pub fn read_resumed(&mut self) {
        for link in std::mem::take(&mut self.resumed) {
            self.read(link);
        }
    }

    fn sent(&mut self, link: LinkId, frame: Frame) {
        assert!(frame.kind().may_send(Role::Broker), "the broker sends {}", frame.kind());
        self.bus.sent(link, &frame);
        let Some(conn) = self.shell.ends.get_mut(&link) else { return };
        match (&frame, conn.role) {
            (Frame::Data { head, .. }, Role::Worker) => {
                conn.given.push_back(*head);
                if conn.given.len() > REMEMBERED_MAX {
                    conn.given.pop_front();
                }
                self.checker.to_worker(link, head);
            }
            (Frame::Flushed(flushed), _) => self.checker.flushed(link, flushed.flush),
            (Frame::Data { .. } | Frame::Error { .. }, Role::Client) if !conn.is_operator => {
                self.checker.to_client(link, &frame);
            }
            // An error of sequence 0 may be about the connection, while a command of that sequence
            // still waits for the disk.
            (Frame::Error { head, .. }, Role::Client)
                if head.sequence != 0 && self.checker.watches(link, head.sequence) =>
            {
                self.checker.to_operator(link, head);
            }
            (Frame::ExecHello(hello), _) => {
                let is_claim = hello.token.is_some();
                conn.proof = if is_claim { ExecdProof::Challenge } else { ExecdProof::Welcome };
            }
            (Frame::ExecList | Frame::ExecStart(_) | Frame::ExecStop(_), _)
                if conn.proof != ExecdProof::Trusted =>
            {
                panic!("{} goes to an execd that is not trusted: {:?}", frame.kind(), conn.proof);
            }
            (Frame::ExecStart(start), _) => self.started(link, start.clone()),
            (Frame::Status { sequence }, _) => conn.status = *sequence,
            (Frame::LoginOk(_) | Frame::WorkerLoginOk(_), _) => {
                conn.is_known = true;
                conn.is_operator = conn.wants_op;
            }
            _ => {}
        }
        encode::to_bytes(frame);
    }

    fn started(&mut self, link: LinkId, start: ExecStart) {
        self.runs = self.runs.max(start.run.0);
        self.starts.push_front(Start { link, start });
        self.starts.truncate(REMEMBERED_MAX);
    }

    /// The process is gone and a new one starts from what was saved.
    pub fn restart(&mut self) {
        check_save(&self.shell.engine, self.has_execd);
        let script = self.shell.kept();
        let links: Vec<LinkId> = self.shell.ends.keys().copied().collect();
        for link in links {
            self.checker.link_gone(link, false);
            self.shell.close(link);
        }
        self.bus.renew();
        self.shell.asked.clear();
        self.checker = Checker::new(Sabotage::None);
        (self.checker.may_repeat, self.checker.may_park) = (true, true);
        self.shell.renew(engine_options(self.runs + 1000));
        self.forgotten = self.runs + 1000;
        self.shell.now = Tick(0);
        self.listens(self.has_execd);
        self.feed(Input::Script { origin: Origin::State, text: script });
        self.feed(Input::Started);
    }

    /// A command of an operator that is known to the checker.
    pub fn command(&mut self, link: LinkId, head: Header, text: &[u8]) {
        self.checker.said(&String::from_utf8_lossy(text));
        self.frame(link, Frame::data(head, Bytes::copy_from_slice(text)));
    }
}

impl Player for BrokerPlayer {
    type End = Conn;

    fn shell(&mut self) -> Option<&mut TestShell<Conn>> {
        Some(&mut self.shell)
    }

    fn broken(&mut self, law: String) {
        panic!("{law}");
    }

    /// Tells the checker what was accepted before it sees what was done.
    fn gives(&mut self, input: Input) {
        let shown = match &input {
            Input::Request { link, head, .. } => Some((*link, *head)),
            Input::Login { link, login } => {
                if let Some(conn) = self.shell.ends.get_mut(link).filter(|conn| !conn.is_known) {
                    conn.wants_op = login.service.is_op();
                }
                None
            }
            // A frame that is refused may have the sequence of a command that is not answered yet.
            Input::Garbage { link, error } if self.checker.watches(*link, error.sequence) => {
                let head = Header { sequence: error.sequence, reply: 1, ..Header::default() };
                self.checker.asked(*link, &head);
                None
            }
            Input::Logout { link, received } => {
                self.checker.logs_out(*link, *received);
                None
            }
            Input::Flush { link, sequence } => {
                let is_known = self.shell.ends.get(link).is_some_and(|conn| conn.is_known);
                self.checker.flushes(*link, *sequence, is_known);
                None
            }
            Input::Reply { link, head, .. } if head.more == 0 => {
                self.checker.worker_answered(*link, head.transaction);
                None
            }
            _ => None,
        };
        let ends = &self.shell.ends;
        self.bus.gives(&input, |link| ends.get(&link).is_some_and(|conn| conn.is_known));
        let before = self.shell.engine.totals().accepted;
        let actions = self.shell.step(input).expect("there is no replica");
        let accepted = self.shell.engine.totals().accepted;
        // `reset` counts anew from what is under way; transactions go on.
        self.forgotten += before.saturating_sub(accepted);
        if let Some((link, head)) = shown {
            if accepted > before {
                assert_eq!(accepted, before + 1, "one request is accepted once");
                self.checker.accepted(self.forgotten + accepted, link, &head);
            } else if self.shell.ends.get(&link).is_some_and(|conn| conn.is_operator) {
                self.checker.asked(link, &head);
            }
        } else {
            assert!(accepted <= before, "nothing but a request is accepted");
        }
        let mut hasher = DefaultHasher::new();
        (self.trace, actions.len()).hash(&mut hasher);
        self.trace = hasher.finish();
        actions.into_iter().for_each(|action| self.take(action));
        self.bus.is_given();
    }

    fn has_ended(&self) -> bool {
        self.has_ended
    }

    fn does(&mut self, deed: Deed) {
        match deed {
            Deed::Send(link, frame) => self.sent(link, frame),
            Deed::Answer(link, head, reply, format) => {
                check_reply(&reply, format);
                self.checker.to_operator(link, &head);
                for frame in outbound::answer(head, &reply, format, BODY_BYTES_DEFAULT) {
                    encode::to_bytes(frame);
                }
            }
            // Bytes answer them later, if ever.
            Deed::Ask(ask) => {
                if let Ask::Dial(host, address) = &ask {
                    let is_dialled = self.shell.asked.iter().any(|ask| ask.is_dial(host.as_str()));
                    assert!(!is_dialled, "{host} is dialled twice");
                    assert!(!address.is_empty(), "{host} is dialled nowhere");
                }
                if let Ask::Prove(link) = &ask
                    && let Some(conn) = self.shell.ends.get_mut(link)
                {
                    assert_eq!(conn.proof, ExecdProof::Challenge, "only one proof is made");
                    conn.proof = ExecdProof::Signature;
                }
                self.shell.asked.push_back(ask);
            }
            Deed::Close(link) => {
                self.checker.link_gone(link, false);
                self.bus.link_gone(link);
            }
            Deed::HalfClose(link) => {
                let conn = self.shell.ends.get_mut(&link);
                conn.into_iter().for_each(|conn| conn.may_half_close = true);
            }
            Deed::Shut(_) | Deed::Read(_, false) => {}
            Deed::Read(link, true) => self.resumed.push(link),
            Deed::Record(fact) => {
                assert!(!fact.text.contains(char::is_control), "a fact: {:?}", fact.text);
            }
            Deed::ScriptDone(origin, failures) => {
                let is_own = origin == Origin::State;
                assert!(!is_own || failures.is_empty(), "{origin:?}: {failures:?}");
            }
            Deed::End(_) => self.has_ended = true,
        }
    }
}

fn check_reply(reply: &OpReply, format: Format) {
    let bytes = outbound::render(reply, format);
    let text = String::from_utf8_lossy(&bytes);
    match format {
        Format::Text | Format::Screen(_) => no_controls(&text),
        Format::Json => {
            let read = serde_json::from_str::<serde_json::Value>(&text);
            assert!(read.is_ok(), "{read:?}: {text}");
        }
    }
}
