//! The engine's behaviour as scripts: an input on the left, the actions on the right. `child` tests
//! its table of states, `output` the splitting into lines.

mod children;
mod ends;
mod kept;
mod laws;
mod links;
mod proofs;

use super::action::{Action, Note, Signal};
use super::child::ChildId;
use super::input::{Input, ProcessEnd, RecordedProcess, Watched};
use super::limits::Limits;
use super::{Config, Engine};
use protocol::bodies::{
    ExecEnd, ExecHello, ExecSignal, ExecStart, ExecStop, ExitCause, Login, Stream,
};
use protocol::decode::WireError;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::peer_group::PeerGroup;
use protocol::process::ProcessSettings;
use protocol::time::Tick;

/// An engine and its clock; each step returns the actions as short words.
struct Bench {
    engine: Engine,
    now: Tick,
}

fn link(index: u32) -> LinkId {
    LinkId { index, generation: 0 }
}

fn start(worker: u32, run: u64) -> Frame {
    Frame::ExecStart(ExecStart {
        worker: WorkerId(worker),
        run: RunId(run),
        service: ServiceName::new("echo").unwrap(),
        path: "/bin/true".into(),
        args: Vec::new(),
        secret: "s".into(),
        digest: 9,
        process: None,
        memory_max: 0,
        output_bytes: 0,
        output_files: 1,
    })
}

fn stop(worker: u32, run: u64, grace_ms: u64) -> Frame {
    Frame::ExecStop(ExecStop { worker: WorkerId(worker), run: RunId(run), grace_ms })
}

fn hello(broker: &str) -> Frame {
    hello_to("h1", broker)
}

fn hello_to(host: &str, broker: &str) -> Frame {
    let host = HostName::new(host).unwrap();
    Frame::ExecHello(ExecHello { host, broker: broker.into(), token: None })
}

fn exited(child: u64, exit_cause: ExitCause) -> Input {
    let end = ProcessEnd { cpu_ms: 5, rss_kib_max: 6, ..ProcessEnd::of(exit_cause) };
    Input::Exited { child: ChildId(child), end }
}

/// One action as a few words; of notes only those that no other action shows.
fn word(action: &Action) -> Option<String> {
    Some(match action {
        Action::Send { link, frame } => format!("{}<{}", link.index, frame_word(frame)),
        Action::Close { link } => format!("{}<close", link.index),
        Action::Challenge { link, host, .. } => format!("challenge {} {host}", link.index),
        Action::Verify { link, .. } => format!("verify {}", link.index),
        Action::Spawn { child, start, .. } => format!("spawn {child} {}", start.path),
        Action::GiveUp { child } => format!("give up {child}"),
        Action::Adopt { child, pid } => format!("adopt {child} {pid}"),
        Action::Signal { child, signal } => match signal {
            Signal::TermGroup => format!("term {child}"),
            Signal::AskGroup(number) => format!("ask {child} {number}"),
            Signal::KillGroup => format!("kill {child}"),
            Signal::Process(number) => format!("signal {child} {number}"),
        },
        Action::Keep { child, lines } => {
            let text = lines.text.replace('\n', "|");
            format!("keep {child} {} {} {text}", lines.first, lines.stream)
        }
        Action::ReadKept { link, broker, read } => {
            format!("{}>{} lines of {broker}/{}", link.index, read.lines, read.worker)
        }
        Action::Measure { child } => format!("measure {child}"),
        Action::Forget { child } => format!("forget {child}"),
        Action::Exit => "exit".into(),
        Action::HandOver => "hand over".into(),
        Action::Note(Note::ReportDropped { .. }) => "dropped".into(),
        Action::Note(_) => return None,
    })
}

fn frame_word(frame: &Frame) -> String {
    match frame {
        Frame::ExecWelcome(_) => "welcome".into(),
        Frame::ExecStarted(b) => format!("started {}/{} {}", b.worker, b.run, b.pid),
        Frame::ExecFailed(b) if b.again_ms > 0 => {
            format!("failed {}/{} again={}", b.worker, b.run, b.again_ms)
        }
        Frame::ExecFailed(b) => format!("failed {}/{} permanent={}", b.worker, b.run, b.permanent),
        Frame::ExecExited(b) => {
            format!(
                "exited {}/{} {} {} tail={}",
                b.worker,
                b.run,
                b.pid,
                b.exit_cause,
                b.tail.join("|")
            )
        }
        Frame::ExecListed(b) => {
            let each = b.children.iter().map(|c| format!("{}/{}/{}", c.worker, c.run, c.pid));
            format!("listed {}", each.collect::<Vec<_>>().join(","))
        }
        Frame::ExecOutput(b) if b.number > 0 => {
            format!("output {} {} {} number={}", b.stream, b.line, b.dropped, b.number)
        }
        Frame::ExecOutput(b) => format!("output {} {} {}", b.stream, b.line, b.dropped),
        Frame::ExecLines(b) => format!("lines of {}: {}", b.worker, b.text),
        Frame::ExecMemory(b) => format!("memory {}/{} {}", b.worker, b.run, b.rss_bytes),
        Frame::Error { error, .. } => format!("error {}", error.code),
        other => other.kind().to_string(),
    }
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            // The ping is late, so that it does not come between what most tests look at.
            limits: Limits { ping_ms: 2000, silence_ms: 10_000, ..Limits::default() },
            hostpid: 99,
            version: "1".into(),
            policy: "p".into(),
            binary: "b".into(),
            hands_over: false,
            built_in: false,
            exits_with_broker: false,
            kept: None,
        };
        change(&mut config);
        Self { engine: Engine::new(config), now: Tick(0) }
    }

    /// A bench with broker `b` on link 1, which has asked for its list.
    fn with_broker(change: impl FnOnce(&mut Config)) -> Self {
        let mut bench = Self::new(change);
        bench.connect(1, "b");
        assert_eq!(bench.frame(1, Frame::ExecList), ["1<listed "]);
        bench
    }

    fn give(&mut self, input: Input) -> Vec<String> {
        let mut out = Vec::new();
        self.engine.step(self.now, input, &mut out);
        out.iter().filter_map(word).collect()
    }

    fn frame(&mut self, on: u32, frame: Frame) -> Vec<String> {
        self.give(Input::Frame { link: link(on), frame })
    }

    fn open(&mut self, on: u32) -> Vec<String> {
        self.open_from(on, PeerGroup::default())
    }

    fn open_from(&mut self, on: u32, peer_group: PeerGroup) -> Vec<String> {
        self.give(Input::Opened { link: link(on), denied: None, must_prove: false, peer_group })
    }

    fn connect(&mut self, on: u32, broker: &str) {
        assert!(self.open(on).is_empty());
        let words = self.frame(on, hello(broker));
        assert_eq!(words.last().unwrap(), &format!("{on}<welcome"));
    }

    /// Starts worker `worker`, run 1, as child `child` with process id 100 + child.
    fn up(&mut self, on: u32, worker: u32, child: u64) {
        assert_eq!(self.frame(on, start(worker, 1)), [format!("spawn {child} /bin/true")]);
        let pid = 100 + u32::try_from(child).unwrap();
        self.give(Input::Spawned { child: ChildId(child), pid });
    }

    fn ends(&mut self, child: u64) -> Vec<String> {
        let mut words = Vec::new();
        for stream in [Stream::Stdout, Stream::Stderr] {
            words.extend(self.give(Input::OutputEnd { child: ChildId(child), stream }));
        }
        words
    }

    fn writes(&mut self, child: u64, stream: Stream, text: &str) -> Vec<String> {
        let bytes = text.as_bytes().to_vec();
        self.give(Input::Output { child: ChildId(child), stream, bytes })
    }

    /// Lets time pass until `ms`, stepping the engine at its deadlines; returns what it did.
    fn until(&mut self, ms: u64) -> Vec<String> {
        let end = Tick::from_millis(ms);
        let mut words = Vec::new();
        while let Some(due) = self.engine.next_deadline().filter(|due| *due <= end) {
            assert!(due >= self.now || words.is_empty(), "a deadline in the past stays");
            self.now = self.now.max(due);
            words.extend(self.give(Input::Deadline));
        }
        self.now = end;
        words
    }

    fn closed(&mut self, on: u32) -> Vec<String> {
        self.give(Input::Closed { link: link(on), why: "test" })
    }
}
