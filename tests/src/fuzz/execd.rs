//! Fuzzes execd's engine and its links. Bytes become connections, frames (through the real
//! decoder), and children that start, write and end. Laws: no action on a link or child that is
//! gone; the end of each child is reported once and then forgotten; limits are kept; nothing stays
//! due.

use super::source::Source;
use execd::engine::action::{Action, Signal};
use execd::engine::child::ChildId;
use execd::engine::input::{Input, ProcessEnd, RecordedProcess, Watched};
use execd::engine::kept::READ_LINES_MAX;
use execd::engine::limits::Limits;
use execd::engine::{Config, Engine};
use protocol::bodies::{
    ExecEnd, ExecHello, ExecRead, ExecSignal, ExecStart, ExecStop, ExitCause, Stream,
};
use protocol::decode;
use protocol::encode;
use protocol::frame::Frame;
use protocol::frame_reader::Inbox;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::kinds::Role;
use protocol::limits::CONTROL_BODY_BYTES_MAX;
use protocol::names::{HostName, ServiceName, TokenName};
use protocol::peer_group::PeerGroup;
use protocol::process::ProcessSettings;
use protocol::proof::{Claim, Proof};
use protocol::time::Tick;
use std::collections::{BTreeMap, BTreeSet, VecDeque};

const MOVES_MAX: usize = 400;
const CHILDREN_MAX: usize = 5;
const LINKS_MAX: usize = 4;
const FRAMES: decode::Limits = decode::Limits::new(CONTROL_BODY_BYTES_MAX);
const LOOKS_MAX: u32 = 32;
/// Steps of the clock in milliseconds.
const WAITS_MS: &[u64] = &[0, 1, 10, 100, 1000, 2000, 10_000, 60_000];

/// A process that was asked for.
#[derive(Debug, Default)]
struct Child {
    is_up: bool,
    has_exited: bool,
    /// The signal that asks it to end, if its start named one.
    stop_signal: Option<i32>,
    ended: BTreeSet<u8>,
}

struct ExecdPlayer {
    engine: Engine,
    now: Tick,
    links: BTreeMap<LinkId, Inbox>,
    opened: u32,
    children: BTreeMap<ChildId, Child>,
    /// Processes that were asked for and are there at the next move.
    forks: Vec<ChildId>,
    /// Ends that were reported, by link, worker and run; a run is used once.
    ends: BTreeMap<(LinkId, WorkerId, RunId), u32>,
    has_left: bool,
    /// Links that must prove a token and have not.
    unproven: BTreeSet<LinkId>,
    /// Links that answered their challenge.
    proofs: VecDeque<LinkId>,
    /// Children of which the memory is looked at.
    looks: Vec<ChildId>,
    /// Answers on their way.
    later: Vec<(LinkId, Frame)>,
}

/// Bytes as what happens to an execd.
pub fn execd(data: &[u8]) {
    let mut source = Source::new(data);
    let flags = source.byte();
    let limits = Limits {
        children_max: CHILDREN_MAX,
        links_max: LINKS_MAX,
        brokers_max: 3,
        reports_max: 3,
        lines_burst: 8,
        tail_lines_max: 3,
        ..Limits::default()
    };
    let config = Config {
        limits,
        hostpid: 99,
        version: "fuzz".into(),
        built_in: flags & 1 != 0,
        exits_with_broker: flags & 2 != 0,
        policy: String::new(),
        binary: String::new(),
        hands_over: flags & 4 != 0,
        kept: (flags & 8 != 0).then(BTreeMap::new),
    };
    let mut player = ExecdPlayer {
        engine: Engine::new(config),
        now: Tick(0),
        links: BTreeMap::new(),
        opened: 0,
        children: BTreeMap::new(),
        forks: Vec::new(),
        ends: BTreeMap::new(),
        has_left: false,
        unproven: BTreeSet::new(),
        proofs: VecDeque::new(),
        looks: Vec::new(),
        later: Vec::new(),
    };
    for _ in 0..usize::from(flags >> 6) {
        player.recorded(&mut source);
    }
    for _ in 0..MOVES_MAX {
        if source.is_empty() || player.has_left {
            break;
        }
        player.next(&mut source);
        for child in std::mem::take(&mut player.looks) {
            player.step(Input::Memory { child, bytes: source.byte().into() });
        }
        for (link, frame) in std::mem::take(&mut player.later) {
            player.receive(link, &encode::to_bytes(frame));
        }
    }
    player.end();
}

fn stream(source: &mut Source<'_>) -> Stream {
    source.pick(&[Stream::Stdout, Stream::Stderr])
}

fn ids(source: &mut Source<'_>) -> (WorkerId, RunId) {
    (WorkerId(source.below(4) as u32), RunId(source.below(3) as u64))
}

impl ExecdPlayer {
    fn next(&mut self, source: &mut Source<'_>) {
        if let Some(link) = self.proofs.pop_front()
            && self.links.contains_key(&link)
        {
            let proven = if source.is_yes() { Err("no".into()) } else { Ok("ab".repeat(32)) };
            if proven.is_ok() {
                self.unproven.remove(&link);
            }
            self.step(Input::Proven { link, proven });
        }
        for child in std::mem::take(&mut self.forks) {
            self.step(Input::Forked { child, pid: 500 });
        }
        match source.below(16) {
            0 | 1 => self.open(source),
            2..=6 => {
                let frame = frame(source);
                if let Some(link) = self.link(source) {
                    self.receive(link, &encode::to_bytes(frame));
                }
            }
            7 => {
                let bytes = source.bytes(512, 2);
                if let Some(link) = self.link(source) {
                    self.receive(link, bytes);
                }
            }
            8 => {
                if let Some(link) = self.link(source) {
                    self.links.remove(&link);
                    self.step(Input::Closed { link, why: "fuzz" });
                }
            }
            9 | 10 => self.starts(source),
            11 | 12 => self.writes(source),
            13 => self.exits(source),
            14 => {
                self.now = self.now.plus_millis(source.pick(WAITS_MS));
                self.look_at_clock();
            }
            _ => match source.below(8) {
                0 => self.step(Input::Terminate),
                1 => self.step(Input::Deadline),
                _ => self.open(source),
            },
        }
    }

    fn recorded(&mut self, source: &mut Source<'_>) {
        let (worker, run) = ids(source);
        let broker = source.pick(&["a", "b", "c", "d"]).to_owned();
        let alive = source.is_yes();
        let watched = Watched { memory_max: 9, output_bytes: 9, ..Watched::default() };
        let (digest, pid, is_older) = (5, 700, false);
        let recorded =
            RecordedProcess { broker, worker, run, digest, pid, alive, is_older, watched };
        self.step(Input::Recorded(recorded));
    }

    fn open(&mut self, source: &mut Source<'_>) {
        self.opened += 1;
        let link = LinkId { index: self.opened, generation: 0 };
        self.links.insert(link, Inbox::new(FRAMES));
        let how = source.below(8);
        let denied = (how == 7).then(|| "another user".to_owned());
        let must_prove = source.below(4) == 3;
        if must_prove {
            self.unproven.insert(link);
        }
        let peer_group = PeerGroup::V4(link.index % 3);
        self.step(Input::Opened { link, denied, must_prove, peer_group });
        if how < 5 {
            let mut hello = hello(source.pick(&["a", "b", "c", "d"]));
            if let (Frame::ExecHello(body), true) = (&mut hello, must_prove) {
                let token = TokenName::new("ops").expect("a name");
                body.token = Some(Claim { token, nonce: vec![7; 16] });
            }
            self.receive(link, &encode::to_bytes(hello));
            if how < 4 {
                self.receive(link, &encode::to_bytes(Frame::ExecList));
            }
        }
    }

    fn link(&self, source: &mut Source<'_>) -> Option<LinkId> {
        let index = source.below(LINKS_MAX);
        self.links.keys().rev().nth(index).copied()
    }

    fn child(&self, source: &mut Source<'_>, is_meant: fn(&Child) -> bool) -> Option<ChildId> {
        let index = source.below(CHILDREN_MAX);
        let all: Vec<ChildId> =
            self.children.iter().filter(|(_, c)| is_meant(c)).map(|(id, _)| *id).collect();
        (!all.is_empty()).then(|| all[index % all.len()])
    }

    /// A program that was asked for runs, or does not.
    fn starts(&mut self, source: &mut Source<'_>) {
        let Some(child) = self.child(source, |child| !child.is_up && !child.has_exited) else {
            return;
        };
        if source.below(8) == 0 {
            let (permanent, text) = (source.is_yes(), source.text());
            self.step(Input::SpawnFailed { child, permanent, text });
        } else {
            if let Some(child) = self.children.get_mut(&child) {
                child.is_up = true;
            }
            self.step(Input::Spawned { child, pid: 500 });
        }
    }

    fn writes(&mut self, source: &mut Source<'_>) {
        let Some(child) = self.child(source, |child| child.is_up) else { return };
        let stream = stream(source);
        if source.below(8) == 0 {
            self.ends(child, stream);
        } else if self.children.get(&child).is_some_and(|c| !c.ended.contains(&(stream as u8))) {
            let repeat = if source.below(16) == 15 { 64 } else { 1 };
            let bytes = source.bytes(128, 1).repeat(repeat);
            self.step(Input::Output { child, stream, bytes });
        }
    }

    fn ends(&mut self, child: ChildId, stream: Stream) {
        if self.children.get_mut(&child).is_some_and(|c| c.ended.insert(stream as u8)) {
            self.step(Input::OutputEnd { child, stream });
        }
    }

    fn exits(&mut self, source: &mut Source<'_>) {
        let Some(child) = self.child(source, |child| child.is_up && !child.has_exited) else {
            return;
        };
        self.exit(
            child,
            source.pick(&[ExitCause::Exit(0), ExitCause::Signal(9), ExitCause::Exit(1)]),
        );
    }

    fn exit(&mut self, child: ChildId, exit_cause: ExitCause) {
        if let Some(child) = self.children.get_mut(&child) {
            child.has_exited = true;
        }
        let end = ProcessEnd { cpu_ms: 5, rss_kib_max: 6, ..ProcessEnd::of(exit_cause) };
        self.step(Input::Exited { child, end });
    }

    /// Bytes come on a link; what is split into frames is given on.
    fn receive(&mut self, link: LinkId, bytes: &[u8]) {
        let Some(inbox) = self.links.get_mut(&link) else { return };
        inbox.push(bytes);
        while let Some(inbox) = self.links.get_mut(&link) {
            match inbox.next_frame() {
                Ok(None) => return,
                Ok(Some(frame)) => self.step(Input::Frame { link, frame }),
                Err(error) => {
                    inbox.set_malformed();
                    self.step(Input::Garbled { link, error });
                    return;
                }
            }
        }
    }

    fn step(&mut self, input: Input) {
        if self.has_left {
            return;
        }
        let of = match &input {
            Input::Frame { link, .. } => Some(*link),
            _ => None,
        };
        let is_unproven = of.is_some_and(|link| self.unproven.contains(&link));
        let mut actions = Vec::new();
        self.engine.step(self.now, input, &mut actions);
        let is_deed =
            |action: &Action| matches!(action, Action::Spawn { .. } | Action::Signal { .. });
        assert!(
            !is_unproven || !actions.iter().any(is_deed),
            "who has proved nothing starts or ends something: {actions:?}"
        );
        for action in actions {
            self.apply(action);
        }
        let count = self.engine.children_count();
        assert_eq!(count, self.children.len(), "children of the engine and of the system");
        assert!(count <= CHILDREN_MAX + 3, "{count} children");
    }

    fn look_at_clock(&mut self) {
        self.step(Input::Deadline);
        let mut looks = 0;
        while !self.has_left && self.engine.next_deadline().is_some_and(|due| due <= self.now) {
            looks += 1;
            assert!(looks < LOOKS_MAX, "something stays due at {} ms", self.now.as_millis());
            self.step(Input::Deadline);
        }
    }

    fn apply(&mut self, action: Action) {
        assert!(!self.has_left, "after the end: {action:?}");
        match action {
            Action::Send { link, frame } => {
                assert!(self.links.contains_key(&link), "{} to {link}, gone", frame.kind());
                assert!(frame.kind().may_send(Role::Host), "execd sends {}", frame.kind());
                if let Frame::ExecExited(body) = &frame {
                    let count = self.ends.entry((link, body.worker, body.run)).or_default();
                    *count += 1;
                }
                let read = Inbox::of(FRAMES, &encode::to_bytes(frame)).next_frame();
                assert!(matches!(read, Ok(Some(_))), "the broker can't read {read:?}");
            }
            Action::Close { link } => {
                assert!(self.links.remove(&link).is_some(), "{link} is closed twice");
            }
            Action::Challenge { link, .. } => {
                assert!(self.links.contains_key(&link), "a challenge to {link}, gone");
                let proof = Frame::Proof(Proof { proof: [7; 32], channel: None });
                self.later.push((link, proof));
            }
            Action::Verify { link, .. } => {
                assert!(self.links.contains_key(&link), "a proof of {link}, gone");
                self.proofs.push_back(link);
            }
            Action::Spawn { child, start, .. } => {
                let stop_signal = start.process.and_then(|process| process.stop_signal);
                let asked = Child { stop_signal, ..Child::default() };
                let before = self.children.insert(child, asked);
                assert!(before.is_none(), "child {child} is two");
                self.forks.push(child);
            }
            Action::GiveUp { child } => {
                let is_pending = self.children.get(&child).is_some_and(|known| !known.is_up);
                assert!(is_pending, "child {child} is given up, and runs or is gone");
            }
            Action::Adopt { child, .. } => {
                let adopted = Child { is_up: true, ended: [0, 1].into(), ..Child::default() };
                assert!(self.children.insert(child, adopted).is_none(), "child {child} is two");
            }
            Action::Signal { child, signal } => {
                let known = self.children.get(&child);
                assert!(known.is_some(), "a signal for child {child}, gone");
                let is_dead = known.is_some_and(|known| known.has_exited);
                let asks = match signal {
                    Signal::TermGroup => Some(None),
                    Signal::AskGroup(number) => Some(Some(number)),
                    Signal::KillGroup | Signal::Process(_) => None,
                };
                let named = known.and_then(|known| known.stop_signal);
                assert!(asks.is_none_or(|asks| asks == named), "{signal:?}, and not {named:?}");
                let is_group = signal == Signal::KillGroup;
                assert!(!is_dead || is_group, "{signal:?} for child {child}, which has exited");
            }
            Action::Keep { child, lines } => {
                assert!(self.children.contains_key(&child), "lines of child {child}, gone");
                assert!(lines.first > 0 && lines.text.ends_with('\n'), "{lines:?} are kept");
            }
            Action::ReadKept { link, broker, read } => {
                assert!(self.links.contains_key(&link), "{link} of {broker} reads, and is gone");
                assert!(read.lines <= READ_LINES_MAX, "{} lines are read", read.lines);
            }
            Action::Measure { child } => {
                assert!(self.children.contains_key(&child), "a look at child {child}, gone");
                self.looks.push(child);
            }
            Action::Forget { child } => {
                assert!(self.children.remove(&child).is_some(), "{child} is forgotten twice");
            }
            Action::Note(note) => assert!(!format!("{note:?}").is_empty()),
            Action::Exit | Action::HandOver => self.has_left = true,
        }
    }

    /// All processes end and all is told: nothing is left.
    fn end(&mut self) {
        let all: Vec<ChildId> = self.children.keys().copied().collect();
        for id in all {
            let Some(child) = self.children.get(&id) else { continue };
            if !child.is_up {
                self.step(Input::SpawnFailed { child: id, permanent: false, text: "end".into() });
                continue;
            }
            if !child.has_exited {
                self.exit(id, ExitCause::Exit(0));
            }
            self.ends(id, Stream::Stdout);
            self.ends(id, Stream::Stderr);
        }
        self.now = self.now.plus_millis(4_000_000);
        self.look_at_clock();
        if !self.has_left {
            assert!(self.children.is_empty(), "children are left: {:?}", self.children);
            assert_eq!(self.engine.children_count(), 0);
        }
    }
}

fn hello(broker: &str) -> Frame {
    let host = HostName::new("h1").expect("a name");
    Frame::ExecHello(ExecHello { host, broker: broker.into(), token: None })
}

/// The frames a broker may send, and some it may not.
/// Settings of a process, mostly none.
fn settings(source: &mut Source<'_>) -> Option<Box<ProcessSettings>> {
    if source.below(4) != 3 {
        return None;
    }
    let settings = ProcessSettings {
        env: [(source.pick(&["A", "LD_PRELOAD", "ISECT_RUN"]).to_owned(), source.text())].into(),
        cwd: source.is_yes().then(|| source.text()),
        user: source.is_yes().then(|| source.text()),
        stop_signal: Some(1 + source.below(64) as i32),
        ..ProcessSettings::default()
    };
    Some(Box::new(settings))
}

fn frame(source: &mut Source<'_>) -> Frame {
    let (worker, run) = ids(source);
    match source.below(16) {
        0..=7 => Frame::ExecStart(ExecStart {
            worker,
            run,
            service: ServiceName::new("echo").expect("a name"),
            path: if source.is_yes() { "/bin/true".into() } else { source.text() },
            args: (0..source.below(3)).map(|_| source.text()).collect(),
            secret: "s".into(),
            digest: 5,
            process: settings(source),
            memory_max: source.below(3) as u64 * 50,
            output_bytes: source.below(2) as u64 * 1000,
            output_files: 1,
        }),
        8 | 9 => Frame::ExecStop(ExecStop { worker, run, grace_ms: source.number() >> 40 }),
        10 => {
            let signal = i32::from(source.byte() as i8);
            Frame::ExecSignal(ExecSignal { worker, run, signal })
        }
        11 => Frame::ExecList,
        12 => {
            let byte = source.byte();
            Frame::ExecEnd(ExecEnd { grace_ms: u64::from(byte), keep: byte % 7 == 6 })
        }
        13 => Frame::Ping { sequence: 7 },
        14 if source.is_yes() => Frame::Pong { sequence: 7 },
        14 => {
            let lines = source.number() as u32;
            Frame::ExecRead(ExecRead { request: 3, worker, lines })
        }
        _ => hello(source.pick(&["a", "b", ""])),
    }
}
