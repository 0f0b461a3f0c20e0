//! The engine's behaviour as scripts: an input on the left, the actions on the right. Not the table of
//! states (`child`) and not the cutting of lines (`output`).

use super::action::{Action, Note, Signal};
use super::child::ChildId;
use super::input::{Found, Input};
use super::limits::Limits;
use super::{Config, Engine};
use protocol::bodies::{
    Ending, ExecEnd, ExecHello, ExecSignal, ExecStart, ExecStop, Login, Stream,
};
use protocol::decode::WireError;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::ids::{LinkId, RunId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::time::Tick;

/// An engine and its clock; every step gives the actions as short words.
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
    })
}

fn stop(worker: u32, run: u64, grace_ms: u64) -> Frame {
    Frame::ExecStop(ExecStop { worker: WorkerId(worker), run: RunId(run), grace_ms })
}

fn hello(broker: &str) -> Frame {
    let host = HostName::new("h1").unwrap();
    Frame::ExecHello(ExecHello { host, broker: broker.into() })
}

fn exited(child: u64, ending: Ending) -> Input {
    Input::Exited { child: ChildId(child), ending, cpu_ms: 5, rss_kib_max: 6 }
}

/// One action as a few words; notes only where nothing else tells.
fn word(action: &Action) -> Option<String> {
    Some(match action {
        Action::Send { link, frame } => format!("{}<{}", link.index, frame_word(frame)),
        Action::Close { link } => format!("{}<close", link.index),
        Action::Spawn { child, start, .. } => format!("spawn {child} {}", start.path),
        Action::Adopt { child, pid } => format!("adopt {child} {pid}"),
        Action::Signal { child, signal } => match signal {
            Signal::TermGroup => format!("term {child}"),
            Signal::KillGroup => format!("kill {child}"),
            Signal::Process(number) => format!("signal {child} {number}"),
        },
        Action::Forget { child } => format!("forget {child}"),
        Action::Leave => "leave".into(),
        Action::Note(Note::ReportDropped { .. }) => "dropped".into(),
        Action::Note(_) => return None,
    })
}

fn frame_word(frame: &Frame) -> String {
    match frame {
        Frame::ExecWelcome(_) => "welcome".into(),
        Frame::ExecStarted(b) => format!("started {}/{} {}", b.worker, b.run, b.pid),
        Frame::ExecFailed(b) => format!("failed {}/{} lasting={}", b.worker, b.run, b.lasting),
        Frame::ExecExited(b) => {
            format!(
                "exited {}/{} {} {} tail={}",
                b.worker,
                b.run,
                b.pid,
                b.ending,
                b.tail.join("|")
            )
        }
        Frame::ExecListed(b) => {
            let each = b.children.iter().map(|c| format!("{}/{}/{}", c.worker, c.run, c.pid));
            format!("listed {}", each.collect::<Vec<_>>().join(","))
        }
        Frame::ExecOutput(b) => format!("output {} {} {}", b.stream, b.line, b.dropped),
        Frame::Error { error, .. } => format!("error {}", error.code),
        other => other.kind().to_string(),
    }
}

impl Bench {
    fn new(change: impl FnOnce(&mut Config)) -> Self {
        let mut config = Config {
            limits: Limits::default(),
            hostpid: 99,
            version: "1".into(),
            built_in: false,
            leave_when_broker_is_gone: false,
        };
        change(&mut config);
        Self { engine: Engine::new(config), now: Tick(0) }
    }

    /// A bench with broker `b` on link 1, that has asked what runs.
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
        self.give(Input::Opened { link: link(on), stranger: None })
    }

    fn connect(&mut self, on: u32, broker: &str) {
        assert!(self.open(on).is_empty());
        let words = self.frame(on, hello(broker));
        assert_eq!(words.last().unwrap(), &format!("{on}<welcome"));
    }

    /// Starts worker `worker` run 1 as child `child` with process id 100 + child.
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

    /// Lets time pass up to `ms`, waking the engine whenever it asked to be; gives what it did.
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

#[test]
fn the_life_of_a_child() {
    let mut b = Bench::with_broker(|_| {});
    assert_eq!(b.frame(1, start(3, 1)), ["spawn 0 /bin/true"]);
    assert_eq!(b.give(Input::Spawned { child: ChildId(0), pid: 70 }), ["1<started 3/1 70"]);
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed 3/1/70"]);
    assert_eq!(b.writes(0, Stream::Stdout, "hello\nwor"), ["1<output stdout hello 0"]);
    assert_eq!(b.writes(0, Stream::Stderr, "oops\n"), ["1<output stderr oops 0"]);
    assert!(b.give(exited(0, Ending::Exit(1))).is_empty(), "the last output is awaited");
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed "]);
    assert_eq!(
        b.ends(0),
        ["1<output stdout wor 0", "1<exited 3/1 70 exit 1 tail=oops", "forget 0"]
    );
    assert_eq!(b.engine.children_count(), 0);
}

#[test]
fn an_exit_with_drained_streams_is_reported_at_once_and_one_with_open_streams_soon() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    assert!(b.ends(0).is_empty());
    let words = b.give(exited(0, Ending::Signal(9)));
    assert_eq!(words, ["1<exited 1/1 100 signal 9 tail=", "forget 0"]);
    b.up(1, 2, 1);
    assert!(b.give(exited(1, Ending::Exit(0))).is_empty());
    assert!(b.until(99).is_empty());
    assert_eq!(b.until(100), ["1<exited 2/1 101 exit 0 tail=", "forget 1"]);
    assert!(b.writes(1, Stream::Stderr, "late\n").is_empty());
    assert!(b.ends(1).is_empty());
}

#[test]
fn a_program_that_can_not_be_started_fails_and_its_run_is_free_again() {
    let mut b = Bench::with_broker(|_| {});
    b.frame(1, start(1, 1));
    let failed = Input::SpawnFailed { child: ChildId(0), lasting: true, text: "no".into() };
    assert_eq!(b.give(failed), ["1<failed 1/1 lasting=true", "forget 0"]);
    assert_eq!(b.frame(1, start(1, 1)), ["spawn 1 /bin/true"]);
}

#[test]
fn the_same_run_twice_fails_without_touching_the_first() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    assert_eq!(b.frame(1, start(1, 1)), ["1<failed 1/1 lasting=false"]);
    assert_eq!(b.frame(1, start(1, 2)), ["spawn 1 /bin/true"]);
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed 1/1/100"]);
}

#[test]
fn stop_asks_waits_and_kills() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    assert_eq!(b.frame(1, stop(1, 1, 500)), ["term 0"]);
    assert!(b.until(499).is_empty());
    assert_eq!(b.until(500), ["kill 0"]);
    assert!(b.until(1500).is_empty(), "one KILL is enough");
    b.ends(0);
    assert_eq!(
        b.give(exited(0, Ending::Signal(9))),
        ["1<exited 1/1 100 signal 9 tail=", "forget 0"]
    );
}

#[test]
fn a_second_stop_may_only_hurry() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    b.frame(1, stop(1, 1, 500));
    assert!(b.frame(1, stop(1, 1, 9000)).is_empty());
    assert!(b.frame(1, stop(1, 1, 300)).is_empty());
    assert_eq!(b.until(300), ["kill 0"]);
    b.up(1, 2, 1);
    assert_eq!(b.frame(1, stop(2, 1, 0)), ["kill 1"]);
}

#[test]
fn a_stop_before_the_start_is_answered_takes_effect_after_it() {
    let mut b = Bench::with_broker(|_| {});
    b.frame(1, start(1, 1));
    assert!(b.frame(1, stop(1, 1, 50)).is_empty());
    let words = b.give(Input::Spawned { child: ChildId(0), pid: 70 });
    assert_eq!(words, ["1<started 1/1 70", "term 0"]);
}

#[test]
fn stops_and_signals_for_nobody_are_answered_and_disturb_nothing() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    let signal = |worker, signal| {
        Frame::ExecSignal(ExecSignal { worker: WorkerId(worker), run: RunId(1), signal })
    };
    assert_eq!(b.frame(1, stop(2, 1, 0)), ["1<error not_found"]);
    assert_eq!(b.frame(1, stop(1, 2, 0)), ["1<error not_found"]);
    assert_eq!(b.frame(1, signal(2, 1)), ["1<error not_found"]);
    for bad in [0, -9, 65, i32::MAX, i32::MIN] {
        assert_eq!(b.frame(1, signal(1, bad)), ["1<error refused"], "{bad}");
    }
    assert_eq!(b.frame(1, signal(1, 1)), ["signal 0 1"]);
    assert_eq!(b.frame(1, signal(1, 64)), ["signal 0 64"]);
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed 1/1/100"]);
}

#[test]
fn children_have_a_limit() {
    let mut b = Bench::with_broker(|config| config.limits.children_max = 2);
    b.up(1, 1, 0);
    b.up(1, 2, 1);
    assert_eq!(b.frame(1, start(3, 1)), ["1<failed 3/1 lasting=false"]);
    b.give(exited(0, Ending::Exit(0)));
    b.ends(0);
    assert_eq!(b.frame(1, start(3, 1)), ["spawn 2 /bin/true"]);
}

#[test]
fn starts_have_a_rate() {
    let mut b = Bench::with_broker(|config| {
        config.limits.starts_burst = 2;
        config.limits.starts_per_second = 10;
    });
    b.up(1, 1, 0);
    b.up(1, 2, 1);
    assert_eq!(b.frame(1, start(3, 1)), ["1<failed 3/1 lasting=false"]);
    b.now = Tick::from_millis(100);
    assert_eq!(b.frame(1, start(3, 1)), ["spawn 2 /bin/true"]);
}

#[test]
fn children_outlive_their_broker_and_what_it_missed_is_told_after_the_list() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    b.up(1, 2, 1);
    assert!(b.closed(1).is_empty());
    assert!(b.writes(0, Stream::Stderr, "alone\n").is_empty());
    b.give(exited(0, Ending::Exit(4)));
    assert_eq!(b.ends(0), ["forget 0"]);
    b.connect(2, "b");
    b.ends(1);
    assert_eq!(b.give(exited(1, Ending::Exit(0))), ["forget 1"], "not before the list");
    assert_eq!(
        b.frame(2, Frame::ExecList),
        ["2<listed ", "2<exited 1/1 100 exit 4 tail=alone", "2<exited 2/1 101 exit 0 tail="]
    );
    assert_eq!(b.frame(2, Frame::ExecList), ["2<listed "], "told once");
}

#[test]
fn missed_reports_have_a_limit_and_the_oldest_goes() {
    let mut b = Bench::with_broker(|config| config.limits.reports_max = 2);
    for child in 0..3 {
        b.up(1, u32::try_from(child).unwrap() + 1, child);
        b.ends(child);
    }
    b.closed(1);
    assert_eq!(b.give(exited(0, Ending::Exit(0))), ["forget 0"]);
    assert_eq!(b.give(exited(1, Ending::Exit(0))), ["forget 1"]);
    assert_eq!(b.give(exited(2, Ending::Exit(0))), ["dropped", "forget 2"]);
    b.connect(2, "b");
    let words = b.frame(2, Frame::ExecList);
    assert_eq!(words.len(), 3);
    assert!(words[1].contains("exited 2/1") && words[2].contains("exited 3/1"), "{words:?}");
}

#[test]
fn missed_reports_have_a_limit_in_bytes_too() {
    let mut b = Bench::with_broker(|config| config.limits.reports_bytes_max = 10);
    for child in 0..3 {
        b.up(1, u32::try_from(child).unwrap() + 1, child);
    }
    b.closed(1);
    for (child, text) in ["123456\n", "1234\n", "1\n"].into_iter().enumerate() {
        let child = u64::try_from(child).unwrap();
        b.writes(child, Stream::Stderr, text);
        b.ends(child);
        let words = b.give(exited(child, Ending::Exit(0)));
        assert_eq!(words.contains(&"dropped".to_owned()), child == 2, "{words:?}");
    }
    b.connect(2, "b");
    assert_eq!(b.frame(2, Frame::ExecList).len(), 3);
    // What was sent counts no more.
    b.up(2, 4, 3);
    b.closed(2);
    b.writes(3, Stream::Stderr, "1234567890\n");
    b.ends(3);
    assert_eq!(b.give(exited(3, Ending::Exit(0))), ["forget 3"]);
}

#[test]
fn a_newer_link_of_the_same_broker_takes_over() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    b.open(2);
    assert_eq!(b.frame(2, hello("b")), ["1<error bad_state", "1<close", "2<welcome"]);
    assert_eq!(b.frame(2, Frame::ExecList), ["2<listed 1/1/100"]);
    assert!(b.frame(1, stop(1, 1, 0)).is_empty(), "the old link has no say");
    assert!(b.closed(1).is_empty());
    assert_eq!(b.writes(0, Stream::Stdout, "x\n"), ["2<output stdout x 0"]);
}

#[test]
fn two_brokers_do_not_see_each_other() {
    let mut b = Bench::with_broker(|_| {});
    b.connect(2, "other");
    b.frame(2, Frame::ExecList);
    b.up(1, 1, 0);
    assert_eq!(b.frame(2, start(1, 1)), ["spawn 1 /bin/true"], "the same worker and run");
    b.give(Input::Spawned { child: ChildId(1), pid: 101 });
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed 1/1/100"]);
    assert_eq!(b.frame(2, Frame::ExecList), ["2<listed 1/1/101"]);
    assert_eq!(b.frame(2, stop(1, 1, 0)), ["kill 1"]);
    assert_eq!(b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 5 })), ["term 0"]);
    b.ends(1);
    let words = b.give(exited(1, Ending::Signal(9)));
    assert_eq!(words, ["2<exited 1/1 101 signal 9 tail=", "forget 1"]);
}

#[test]
fn only_hello_may_come_first_and_only_once_and_in_time() {
    for frame in [
        Frame::ExecList,
        Frame::Ping { sequence: 1 },
        start(1, 1),
        Frame::Login(Login::to(ServiceName::op())),
    ] {
        let mut b = Bench::new(|_| {});
        b.open(1);
        assert_eq!(b.frame(1, frame), ["1<error bad_state", "1<close"]);
        assert!(b.frame(1, hello("b")).is_empty(), "the link is forgotten");
    }
    let mut b = Bench::with_broker(|_| {});
    assert_eq!(b.frame(1, hello("b")), ["1<error bad_state", "1<close"]);
    let mut b = Bench::new(|_| {});
    b.open(1);
    assert_eq!(b.frame(1, hello("")), ["1<error bad_login", "1<close"]);
    let mut b = Bench::new(|_| {});
    b.open(1);
    assert!(b.until(1999).is_empty());
    assert_eq!(b.until(2000), ["1<error login_timeout", "1<close"]);
}

#[test]
fn frames_that_are_not_for_execd_close_the_link_and_leave_the_children() {
    for frame in [
        Frame::Logout,
        Frame::End,
        Frame::Reinit,
        Frame::Status { sequence: 1 },
        Frame::Login(Login::to(ServiceName::op())),
        Frame::data(Default::default(), Default::default()),
    ] {
        let mut b = Bench::with_broker(|_| {});
        b.up(1, 1, 0);
        assert_eq!(b.frame(1, frame), ["1<error bad_state", "1<close"]);
        b.connect(2, "b");
        assert_eq!(b.frame(2, Frame::ExecList), ["2<listed 1/1/100"]);
    }
}

#[test]
fn bytes_that_are_no_frame_are_answered_with_their_error() {
    let mut b = Bench::with_broker(|_| {});
    let error = WireError { code: ErrorCode::Version, text: "v".into(), sequence: 3, skip: None };
    let garbled = Input::Garbled { link: link(1), error };
    assert_eq!(b.give(garbled.clone()), ["1<error version", "1<close"]);
    assert!(b.give(garbled).is_empty());
}

#[test]
fn links_have_a_limit_and_strangers_are_denied() {
    let mut b = Bench::new(|config| config.limits.links_max = 2);
    assert!(b.open(1).is_empty() && b.open(2).is_empty());
    assert_eq!(b.open(3), ["3<error too_many_connections", "3<close"]);
    b.closed(1);
    assert!(b.open(4).is_empty());
    let stranger = Input::Opened { link: link(5), stranger: Some("who?".into()) };
    assert_eq!(b.give(stranger), ["5<error denied", "5<close"]);
}

#[test]
fn brokers_have_a_limit_and_one_that_left_nothing_running_gives_way() {
    let mut b = Bench::new(|config| config.limits.brokers_max = 2);
    b.connect(1, "a");
    b.connect(2, "b");
    b.open(3);
    assert_eq!(b.frame(3, hello("c")), ["3<error too_many_connections", "3<close"]);
    // `a` is away with a child, then with nothing but a report.
    b.up(1, 1, 0);
    b.closed(1);
    b.open(4);
    assert_eq!(b.frame(4, hello("c")), ["4<error too_many_connections", "4<close"]);
    b.ends(0);
    b.give(exited(0, Ending::Exit(0)));
    b.connect(5, "c");
}

#[test]
fn a_silent_broker_is_pinged_then_dropped() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    assert!(b.until(1999).is_empty());
    assert_eq!(b.until(2000), ["1<ping"]);
    assert!(b.frame(1, Frame::Pong { sequence: 0 }).is_empty());
    assert_eq!(b.until(11_999), ["1<ping"; 4]);
    assert_eq!(b.until(12_000), ["1<error idle_timeout", "1<close"]);
    assert_eq!(b.engine.children_count(), 1);
    let mut b = Bench::with_broker(|_| {});
    assert_eq!(b.frame(1, Frame::Ping { sequence: 7 }), ["1<pong"]);
}

#[test]
fn terminate_ends_all_children_youngest_first_then_execd() {
    let mut b = Bench::with_broker(|_| {});
    b.connect(2, "other");
    b.up(1, 1, 0);
    b.up(2, 1, 1);
    assert_eq!(b.give(Input::Terminate), ["term 1", "term 0"]);
    assert_eq!(b.frame(1, start(9, 9)), ["1<failed 9/9 lasting=false"]);
    assert_eq!(b.open(3), ["3<error shutting_down", "3<close"]);
    b.ends(0);
    b.ends(1);
    assert_eq!(
        b.give(exited(0, Ending::Signal(15))),
        ["1<exited 1/1 100 signal 15 tail=", "forget 0"]
    );
    assert_eq!(b.give(Input::Terminate), ["kill 1"], "asked again: at once");
    let words = b.give(exited(1, Ending::Signal(9)));
    assert_eq!(words, ["2<exited 1/1 101 signal 9 tail=", "forget 1", "leave"]);
    let mut b = Bench::new(|_| {});
    assert_eq!(b.give(Input::Terminate), ["leave"]);
}

#[test]
fn terminate_kills_what_does_not_end_in_time() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    b.give(Input::Terminate);
    assert!(b.until(4999).iter().all(|word| word == "1<ping"));
    assert!(b.until(5000).contains(&"kill 0".to_owned()));
}

#[test]
fn a_built_in_execd_ends_after_the_brokers_orderly_end() {
    let mut b = Bench::with_broker(|config| config.built_in = true);
    b.up(1, 1, 0);
    assert_eq!(b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 100 })), ["term 0"]);
    assert_eq!(b.frame(1, start(2, 1)), ["1<failed 2/1 lasting=false"]);
    assert_eq!(b.until(100), ["kill 0"]);
    b.ends(0);
    let words = b.give(exited(0, Ending::Signal(9)));
    assert_eq!(words, ["1<exited 1/1 100 signal 9 tail=", "forget 0", "leave"]);
    let mut b = Bench::with_broker(|config| config.built_in = true);
    assert_eq!(b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 100 })), ["leave"]);
}

#[test]
fn the_orderly_end_is_finished_even_if_the_broker_does_not_wait_for_it() {
    let mut b = Bench::with_broker(|config| config.built_in = true);
    b.up(1, 1, 0);
    b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 100 }));
    b.closed(1);
    assert_eq!(b.until(100), ["kill 0"]);
    b.ends(0);
    assert_eq!(b.give(exited(0, Ending::Signal(9))), ["forget 0", "leave"]);
}

#[test]
fn a_standalone_execd_stays_after_a_brokers_orderly_end() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    assert_eq!(b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 0 })), ["kill 0"]);
    b.ends(0);
    let words = b.give(exited(0, Ending::Signal(9)));
    assert_eq!(words, ["1<exited 1/1 100 signal 9 tail=", "forget 0"]);
    assert_eq!(b.frame(1, start(2, 1)), ["spawn 1 /bin/true"], "and serves it again");
}

#[test]
fn a_built_in_execd_without_broker_and_children_ends_after_a_while() {
    let mut b = Bench::new(|config| config.built_in = true);
    assert!(b.until(59_999).is_empty());
    assert_eq!(b.until(60_000), ["leave"]);
    // A child keeps it, and the time counts from its end.
    let mut b = Bench::with_broker(|config| config.built_in = true);
    b.up(1, 1, 0);
    b.closed(1);
    assert!(b.until(300_000).is_empty());
    b.ends(0);
    assert_eq!(b.give(exited(0, Ending::Exit(0))), ["forget 0"]);
    assert_eq!(b.until(360_000), ["leave"]);
    // Standalone: never.
    let b = Bench::new(|_| {});
    assert_eq!(b.engine.next_deadline(), None);
}

#[test]
fn without_state_execd_ends_with_its_broker() {
    let mut b = Bench::with_broker(|config| {
        config.built_in = true;
        config.leave_when_broker_is_gone = true;
    });
    b.up(1, 1, 0);
    b.open(2);
    assert!(b.closed(2).is_empty(), "not a broker's link");
    b.open(3);
    b.frame(3, hello("b"));
    assert!(b.closed(1).is_empty(), "taken over, not gone");
    assert_eq!(b.closed(3), ["term 0"]);
    assert_eq!(b.until(5000), ["kill 0"]);
    b.ends(0);
    assert_eq!(b.give(exited(0, Ending::Signal(9))), ["forget 0", "leave"]);
}

#[test]
fn processes_of_an_earlier_execd_are_adopted_or_reported_as_ended() {
    let mut b = Bench::new(|_| {});
    let found = |worker, alive| {
        Input::Found(Found {
            broker: "b".into(),
            worker: WorkerId(worker),
            run: RunId(1),
            pid: 50 + worker,
            alive,
        })
    };
    assert_eq!(b.give(found(1, true)), ["adopt 0 51"]);
    assert!(b.give(found(2, false)).is_empty());
    b.connect(1, "b");
    let words = b.frame(1, Frame::ExecList);
    assert_eq!(words, ["1<listed 1/1/51", "1<exited 2/1 52 unknown tail="]);
    assert_eq!(b.frame(1, stop(1, 1, 10)), ["term 0"]);
    b.ends(0);
    let words = b.give(exited(0, Ending::Unknown));
    assert_eq!(words, ["1<exited 1/1 51 unknown tail=", "forget 0"]);
}

#[test]
fn a_flood_of_output_is_counted_and_its_last_line_arrives() {
    let mut b = Bench::with_broker(|config| {
        config.limits.lines_burst = 1;
        config.limits.lines_per_second = 1;
    });
    b.up(1, 1, 0);
    let words = b.writes(0, Stream::Stderr, "a\nb\nc\nd\n");
    assert_eq!(words, ["1<output stderr a 0"]);
    b.ends(0);
    assert_eq!(
        b.give(exited(0, Ending::Exit(0))),
        ["1<output stderr d 2", "1<exited 1/1 100 exit 0 tail=a|b|c|d", "forget 0"]
    );
}

#[test]
fn the_largest_reports_fit_into_a_frame() {
    use super::limits::{CHILDREN_CAP, LINE_BYTES_MAX};
    use protocol::bodies::{Child, ExecExited, ExecListed};
    use protocol::limits::CONTROL_BODY_BYTES_MAX;
    let child = Child { worker: WorkerId(u32::MAX), run: RunId(u64::MAX), pid: u32::MAX };
    let listed = ExecListed { children: vec![child; CHILDREN_CAP] }.render();
    assert!(listed.len() <= CONTROL_BODY_BYTES_MAX, "{}", listed.len());
    assert_eq!(ExecListed::parse(&listed).unwrap().children.len(), CHILDREN_CAP);
    let line = "\u{fffd}".repeat(LINE_BYTES_MAX) + "…";
    let exited = ExecExited {
        worker: WorkerId(u32::MAX),
        run: RunId(u64::MAX),
        pid: u32::MAX,
        ending: Ending::Signal(9),
        cpu_ms: u64::MAX,
        rss_kib_max: u64::MAX,
        tail: vec![line; Limits::default().tail_lines_max],
    };
    let body = exited.render();
    assert!(body.len() <= CONTROL_BODY_BYTES_MAX, "{}", body.len());
    assert_eq!(ExecExited::parse(&body), Ok(exited));
}

/// Whatever comes in whatever order: no panic, the same actions both times, bounds kept.
#[test]
fn random_inputs_keep_the_laws_and_repeat_exactly() {
    for seed in 1..=64 {
        let (first, second) = (random_run(seed), random_run(seed));
        assert_eq!(first, second, "seed {seed}");
        assert!(first.len() > 100, "seed {seed} did nothing");
    }
}

fn random_run(seed: u64) -> Vec<String> {
    let mut state = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mut next = move |below: u64| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state % below
    };
    let mut b = Bench::new(|config| {
        config.limits.children_max = 5;
        config.limits.links_max = 4;
        config.limits.brokers_max = 2;
        config.limits.reports_max = 3;
    });
    let mut words = Vec::new();
    let mut opened = 8;
    for _ in 0..2000 {
        let on = link(opened - u32::try_from(next(8)).unwrap());
        let child = ChildId(next(b.engine.children_ever + 2));
        let (worker, run) = (u32::try_from(next(4)).unwrap(), next(3));
        let stream = if next(2) == 0 { Stream::Stdout } else { Stream::Stderr };
        let input = match next(16) {
            0 | 1 => {
                opened += 1;
                Input::Opened { link: link(opened), stranger: None }
            }
            2 | 3 => {
                let name = ["a", "b", "c"][usize::try_from(next(3)).unwrap()];
                Input::Frame { link: on, frame: hello(name) }
            }
            4 | 5 => Input::Frame { link: on, frame: start(worker, run) },
            6 => Input::Frame { link: on, frame: stop(worker, run, next(3) * 100) },
            7 => Input::Frame { link: on, frame: Frame::ExecList },
            8 => Input::Closed { link: on, why: "test" },
            9 | 10 => Input::Spawned { child, pid: 1000 },
            11 => Input::SpawnFailed { child, lasting: false, text: "no".into() },
            12 => exited(child.0, Ending::Exit(0)),
            13 => Input::OutputEnd { child, stream },
            14 => Input::Output { child, stream, bytes: b"a line\nhalf".to_vec() },
            _ => {
                b.now = b.now.plus_millis(next(400));
                Input::Deadline
            }
        };
        let was_deadline = input == Input::Deadline;
        words.extend(b.give(input));
        if was_deadline {
            assert!(b.engine.next_deadline().is_none_or(|due| due > b.now), "seed {seed}");
        }
        assert!(b.engine.children.len() <= 5 && b.engine.links.len() <= 4, "seed {seed}");
        assert_eq!(b.engine.runs.len(), b.engine.children.len(), "seed {seed}");
        assert!(b.engine.brokers.len() <= 2, "seed {seed}");
        for broker in b.engine.brokers.values() {
            assert!(broker.missed.len() <= 3, "seed {seed}");
            let known = broker.link.is_none_or(|id| b.engine.links.contains_key(&id));
            assert!(known, "seed {seed}: a broker on a link that is gone");
        }
        for child in b.engine.children.values() {
            let known = b.engine.brokers.contains_key(&child.broker);
            assert!(known, "seed {seed}: a child without a broker");
        }
    }
    words
}
