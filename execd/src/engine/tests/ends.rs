//! Tests of how execd itself ends, and of what it finds when it begins.

use super::*;

#[test]
fn terminate_leaves_the_children_to_their_brokers_then_ends_them_youngest_first_then_execd() {
    let mut b = Bench::with_broker(|_| {});
    b.connect(2, "other");
    b.up(1, 1, 0);
    b.up(2, 1, 1);
    b.open(4);
    assert_eq!(
        b.give(Input::Terminate),
        ["1<error shutting_down", "2<error shutting_down"],
        "the brokers have time to end them"
    );
    assert_eq!(b.frame(4, hello("late")), ["4<error shutting_down", "4<close"]);
    assert_eq!(b.frame(1, start(9, 9)), ["1<failed 9/9 again=1000"]);
    assert_eq!(b.open(3), ["3<error shutting_down", "3<close"]);
    assert_eq!(b.give(Input::Terminate), ["term 1", "term 0"], "asked again: no longer");
    b.ends(0);
    b.ends(1);
    assert_eq!(
        b.give(exited(0, ExitCause::Signal(15))),
        ["1<exited 1/1 100 signal 15 tail=", "forget 0"]
    );
    assert_eq!(b.give(Input::Terminate), ["kill 1"], "asked a third time: at once");
    let words = b.give(exited(1, ExitCause::Signal(9)));
    assert_eq!(words, ["2<exited 1/1 101 signal 9 tail=", "forget 1", "exit"]);
    let mut b = Bench::new(|_| {});
    assert_eq!(b.give(Input::Terminate), ["exit"]);
}

#[test]
fn a_broker_ends_its_children_while_execd_drains() {
    let mut b = Bench::with_broker(|config| config.limits.silence_ms = 60_000);
    b.up(1, 1, 0);
    b.give(Input::Terminate);
    assert!(b.until(29_999).iter().all(|word| word == "1<ping"));
    assert_eq!(b.frame(1, stop(1, 1, 100)), ["term 0"]);
    b.ends(0);
    let words = b.give(exited(0, ExitCause::Exit(0)));
    assert_eq!(words, ["1<exited 1/1 100 exit 0 tail=", "forget 0", "exit"]);
    assert!(b.until(40_000).iter().all(|word| word == "1<ping"), "it has ended");
}

#[test]
fn terminate_kills_what_no_broker_ends_and_what_does_not_end_in_time() {
    for drain_ms in [0, 1, 400, 30_000] {
        let mut b = Bench::with_broker(|config| {
            (config.limits.drain_ms, config.limits.silence_ms) = (drain_ms, 60_000);
        });
        b.up(1, 1, 0);
        let said = b.give(Input::Terminate);
        if drain_ms == 0 {
            assert_eq!(said, ["1<error shutting_down", "term 0"]);
        } else {
            assert_eq!(said, ["1<error shutting_down"]);
            assert!(b.until(drain_ms - 1).iter().all(|word| word == "1<ping"));
            assert!(b.until(drain_ms).contains(&"term 0".to_owned()), "{drain_ms}");
        }
        assert!(b.until(drain_ms + 4999).iter().all(|word| word == "1<ping"));
        assert!(b.until(drain_ms + 5000).contains(&"kill 0".to_owned()), "{drain_ms}");
    }
}

#[test]
fn children_without_their_broker_are_not_drained() {
    let mut b = Bench::with_broker(|_| {});
    b.connect(2, "other");
    b.up(1, 1, 0);
    b.up(2, 1, 1);
    b.closed(1);
    assert_eq!(b.give(Input::Terminate), ["2<error shutting_down", "term 0"]);
    assert_eq!(b.closed(2), ["term 1"], "nor when it goes while execd waits for it");
}

#[test]
fn a_child_that_can_not_die_does_not_keep_execd_for_ever() {
    let mut b = Bench::with_broker(|config| config.limits.drain_ms = 2000);
    b.up(1, 1, 0);
    b.closed(1);
    b.give(Input::Terminate);
    assert_eq!(b.until(5000), ["kill 0"]);
    assert!(b.until(16_999).is_empty());
    assert_eq!(b.until(17_000), ["exit"]);
    assert_eq!(b.engine.next_deadline(), None);
}

#[test]
fn a_built_in_execd_ends_after_the_brokers_orderly_end() {
    let mut b = Bench::with_broker(|config| config.built_in = true);
    b.up(1, 1, 0);
    assert_eq!(b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 100, keep: false })), ["term 0"]);
    assert_eq!(b.frame(1, start(2, 1)), ["1<failed 2/1 again=1000"]);
    assert_eq!(b.until(100), ["kill 0"]);
    b.ends(0);
    let words = b.give(exited(0, ExitCause::Signal(9)));
    assert_eq!(words, ["1<exited 1/1 100 signal 9 tail=", "forget 0", "exit"]);
    let mut b = Bench::with_broker(|config| config.built_in = true);
    assert_eq!(b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 100, keep: false })), ["exit"]);
}

#[test]
fn the_orderly_end_is_finished_even_if_the_broker_does_not_wait_for_it() {
    let mut b = Bench::with_broker(|config| config.built_in = true);
    b.up(1, 1, 0);
    b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 100, keep: false }));
    b.closed(1);
    assert_eq!(b.until(100), ["kill 0"]);
    b.ends(0);
    assert_eq!(b.give(exited(0, ExitCause::Signal(9))), ["forget 0", "exit"]);
}

#[test]
fn a_standalone_execd_stays_after_a_brokers_orderly_end() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    assert_eq!(b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 0, keep: false })), ["kill 0"]);
    b.ends(0);
    let words = b.give(exited(0, ExitCause::Signal(9)));
    assert_eq!(words, ["1<exited 1/1 100 signal 9 tail=", "forget 0"]);
    assert_eq!(b.frame(1, start(2, 1)), ["spawn 1 /bin/true"], "and serves it again");
}

#[test]
fn a_built_in_execd_without_broker_and_children_ends_after_a_while() {
    let mut b = Bench::new(|config| config.built_in = true);
    assert!(b.until(59_999).is_empty());
    assert_eq!(b.until(60_000), ["exit"]);
    // A child keeps execd running; the time counts from the child's end.
    let mut b = Bench::with_broker(|config| config.built_in = true);
    b.up(1, 1, 0);
    b.closed(1);
    assert!(b.until(300_000).is_empty());
    b.ends(0);
    assert_eq!(b.give(exited(0, ExitCause::Exit(0))), ["forget 0"]);
    assert_eq!(b.until(360_000), ["exit"]);
    // A standalone execd never ends by itself.
    let b = Bench::new(|_| {});
    assert_eq!(b.engine.next_deadline(), None);
}

#[test]
fn without_state_execd_ends_with_its_broker() {
    let mut b = Bench::with_broker(|config| {
        config.built_in = true;
        config.exits_with_broker = true;
    });
    b.up(1, 1, 0);
    b.open(2);
    assert!(b.closed(2).is_empty(), "not a broker's link");
    b.open(3);
    b.frame(3, hello("b"));
    assert!(b.closed(1).is_empty(), "taken over, not gone");
    assert!(b.until(100_000).iter().all(|a| a == "3<ping"), "stopped perhaps, not gone");
    assert_eq!(b.closed(3), ["term 0"]);
    assert_eq!(b.until(105_000), ["kill 0"]);
    b.ends(0);
    assert_eq!(b.give(exited(0, ExitCause::Signal(9))), ["forget 0", "exit"]);
}

#[test]
fn processes_of_an_earlier_execd_are_adopted_or_reported_as_ended() {
    let mut b = Bench::new(|_| {});
    let recorded = |worker, alive| {
        Input::Recorded(RecordedProcess {
            broker: "b".into(),
            worker: WorkerId(worker),
            run: RunId(1),
            digest: 9,
            pid: 50 + worker,
            alive,
            is_older: false,
            watched: Watched::default(),
        })
    };
    assert_eq!(b.give(recorded(1, true)), ["adopt 0 51"]);
    assert!(b.give(recorded(2, false)).is_empty());
    b.connect(1, "b");
    let words = b.frame(1, Frame::ExecList);
    assert_eq!(words, ["1<listed 1/1/51", "1<exited 2/1 52 unknown tail="]);
    assert_eq!(b.frame(1, stop(1, 1, 10)), ["term 0"]);
    b.ends(0);
    let words = b.give(exited(0, ExitCause::Unknown));
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
        b.give(exited(0, ExitCause::Exit(0))),
        ["1<output stderr d 2", "1<exited 1/1 100 exit 0 tail=a|b|c|d", "forget 0"]
    );
}

#[test]
fn without_a_broker_for_its_time_all_children_end_and_execd() {
    let mut b = Bench::with_broker(|config| config.limits.orphan_ms = 700);
    b.up(1, 1, 0);
    b.until(1500);
    assert_eq!(b.closed(1), [""; 0], "until now a broker was there");
    assert_eq!(b.until(2199), [""; 0]);
    assert_eq!(b.until(2200), ["term 0"]);
    b.ends(0);
    assert_eq!(b.give(exited(0, ExitCause::Signal(15))), ["forget 0", "exit"]);
    // A connection without a hello is not a broker; one that says hello in time is.
    let mut b = Bench::new(|config| config.limits.orphan_ms = 700);
    b.until(500);
    b.connect(1, "b");
    b.until(5000);
    b.closed(1);
    b.until(5600);
    b.open(2);
    assert!(b.until(5700).contains(&"exit".to_owned()));
    // By default execd waits without end.
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    b.closed(1);
    assert_eq!(b.until(100_000_000), [""; 0]);
}

#[test]
fn an_execd_that_stood_still_gives_a_broker_its_time_once_more() {
    let mut b = Bench::new(|config| config.limits.orphan_ms = 700);
    b.now = Tick::from_millis(60_000);
    assert_eq!(b.give(Input::Deadline), [""; 0]);
    assert_eq!(b.until(60_699), [""; 0]);
    assert_eq!(b.until(60_700), ["exit"]);
}

#[test]
fn it_hands_over_without_ending_a_child_where_another_one_can_adopt_them() {
    let keep = || Frame::ExecEnd(ExecEnd { grace_ms: 0, keep: true });
    let mut b = Bench::with_broker(|config| {
        config.built_in = true;
        config.hands_over = true;
    });
    b.up(1, 1, 0);
    assert_eq!(b.frame(1, keep()), ["hand over"]);
    assert_eq!(b.frame(1, start(2, 1)), ["1<failed 2/1 again=1000"], "nothing is started any more");
    assert_eq!(b.engine.children_count(), 1);
    let mut b = Bench::with_broker(|config| config.built_in = true);
    b.up(1, 1, 0);
    assert_eq!(b.frame(1, keep()), ["1<error refused"]);
    assert_eq!(b.frame(1, start(2, 1)), ["spawn 1 /bin/true"], "it goes on");
}
