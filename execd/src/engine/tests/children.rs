//! Tests of one child: start, output, end, stop, limits.

use super::*;

#[test]
fn a_child_from_start_to_end() {
    let mut b = Bench::with_broker(|_| {});
    assert_eq!(b.frame(1, start(3, 1)), ["spawn 0 /bin/true"]);
    assert_eq!(b.give(Input::Spawned { child: ChildId(0), pid: 70 }), ["1<started 3/1 70"]);
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed 3/1/70"]);
    assert_eq!(b.writes(0, Stream::Stdout, "hello\nwor"), ["1<output stdout hello 0"]);
    assert_eq!(b.writes(0, Stream::Stderr, "oops\n"), ["1<output stderr oops 0"]);
    assert!(b.give(exited(0, ExitCause::Exit(1))).is_empty(), "the last output is awaited");
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
    let words = b.give(exited(0, ExitCause::Signal(9)));
    assert_eq!(words, ["1<exited 1/1 100 signal 9 tail=", "forget 0"]);
    b.up(1, 2, 1);
    assert!(b.give(exited(1, ExitCause::Exit(0))).is_empty());
    assert!(b.until(99).is_empty());
    assert_eq!(b.until(100), ["1<exited 2/1 101 exit 0 tail=", "forget 1"]);
    assert!(b.writes(1, Stream::Stderr, "late\n").is_empty());
    assert!(b.ends(1).is_empty());
}

#[test]
fn a_program_that_can_not_be_started_fails_and_its_run_is_free_again() {
    let mut b = Bench::with_broker(|_| {});
    b.frame(1, start(1, 1));
    let failed = Input::SpawnFailed { child: ChildId(0), permanent: true, text: "no".into() };
    assert_eq!(b.give(failed), ["1<failed 1/1 permanent=true", "forget 0"]);
    assert_eq!(b.frame(1, start(1, 1)), ["spawn 1 /bin/true"]);
}

#[test]
fn the_same_run_twice_fails_without_touching_the_first() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    assert_eq!(b.frame(1, start(1, 1)), ["1<failed 1/1 permanent=false"]);
    assert_eq!(b.frame(1, start(1, 2)), ["spawn 1 /bin/true"]);
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed 1/1/100"]);
}

#[test]
fn a_start_names_the_signal_that_asks_it_to_end_and_an_adopted_process_gets_term() {
    let mut b = Bench::with_broker(|_| {});
    let Frame::ExecStart(mut begin) = start(1, 1) else { panic!("a start") };
    let process = ProcessSettings { stop_signal: Some(2), ..ProcessSettings::default() };
    begin.process = Some(Box::new(process));
    b.frame(1, Frame::ExecStart(begin));
    b.give(Input::Spawned { child: ChildId(0), pid: 70 });
    b.up(1, 2, 1);
    assert_eq!(b.frame(1, stop(1, 1, 500)), ["ask 0 2"]);
    assert_eq!(b.frame(1, stop(1, 1, 400)), [""; 0], "it is asked once");
    assert_eq!(b.frame(1, stop(2, 1, 500)), ["term 1"], "the other is asked as ever");
    assert_eq!(b.until(400), ["kill 0"]);
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
        b.give(exited(0, ExitCause::Signal(9))),
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
fn a_stop_before_the_program_runs_ends_the_process_at_once() {
    let mut b = Bench::with_broker(|_| {});
    b.frame(1, start(1, 1));
    b.give(Input::Forked { child: ChildId(0), pid: 70 });
    assert_eq!(b.frame(1, stop(1, 1, 50)), ["give up 0"]);
    let failed = Input::SpawnFailed { child: ChildId(0), permanent: false, text: "no".into() };
    assert_eq!(b.give(failed), ["1<failed 1/1 permanent=false", "forget 0"]);
    // Its program ran after all, so it is stopped like any other.
    b.frame(1, start(1, 2));
    assert_eq!(b.frame(1, stop(1, 2, 50)), ["give up 1"]);
    let words = b.give(Input::Spawned { child: ChildId(1), pid: 71 });
    assert_eq!(words, ["1<started 1/2 71", "term 1"]);
}

#[test]
fn a_process_whose_program_does_not_run_yet_is_listed_and_gets_no_signal() {
    let mut b = Bench::with_broker(|_| {});
    b.frame(1, start(1, 1));
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed "], "nothing was forked");
    b.give(Input::Forked { child: ChildId(0), pid: 70 });
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed 1/1/70"]);
    let signal = ExecSignal { worker: WorkerId(1), run: RunId(1), signal: 10 };
    assert_eq!(b.frame(1, Frame::ExecSignal(signal)), ["1<error refused"]);
    assert_eq!(b.frame(1, start(1, 1)), ["1<failed 1/1 permanent=false"], "it is here already");
    assert_eq!(
        b.give(Input::Spawned { child: ChildId(0), pid: 70 }),
        ["1<started 1/1 70"],
        "it is told in its time"
    );
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
    assert_eq!(b.frame(1, start(3, 1)), ["1<failed 3/1 again=1000"]);
    b.give(exited(0, ExitCause::Exit(0)));
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
    // Each start is told a time of its own, and finds room then.
    assert_eq!(b.frame(1, start(3, 1)), ["1<failed 3/1 again=100"]);
    assert_eq!(b.frame(1, start(4, 1)), ["1<failed 4/1 again=200"]);
    b.now = Tick::from_millis(50);
    assert_eq!(b.frame(1, start(5, 1)), ["1<failed 5/1 again=250"]);
    b.now = Tick::from_millis(100);
    assert_eq!(b.frame(1, start(3, 1)), ["spawn 2 /bin/true"]);
    b.now = Tick::from_millis(200);
    assert_eq!(b.frame(1, start(4, 1)), ["spawn 3 /bin/true"]);
    b.now = Tick::from_millis(5000);
    b.up(1, 6, 4);
    b.up(1, 7, 5);
    assert_eq!(b.frame(1, start(8, 1)), ["1<failed 8/1 again=100"], "the wait does not pile up");
}
