//! Tests of brokers and connections: hello, list, missed reports, several brokers, refusals.

use super::*;

#[test]
fn children_outlive_their_broker_and_what_it_missed_is_told_after_the_list() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    b.up(1, 2, 1);
    assert!(b.closed(1).is_empty());
    assert!(b.writes(0, Stream::Stderr, "alone\n").is_empty());
    b.give(exited(0, ExitCause::Exit(4)));
    assert_eq!(b.ends(0), ["forget 0"]);
    b.connect(2, "b");
    b.ends(1);
    assert_eq!(b.give(exited(1, ExitCause::Exit(0))), ["forget 1"], "not before the list");
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
    assert_eq!(b.give(exited(0, ExitCause::Exit(0))), ["forget 0"]);
    assert_eq!(b.give(exited(1, ExitCause::Exit(0))), ["forget 1"]);
    assert_eq!(b.give(exited(2, ExitCause::Exit(0))), ["dropped", "forget 2"]);
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
        let words = b.give(exited(child, ExitCause::Exit(0)));
        assert_eq!(words.contains(&"dropped".to_owned()), child == 2, "{words:?}");
    }
    b.connect(2, "b");
    assert_eq!(b.frame(2, Frame::ExecList).len(), 3);
    // A report that was sent does not count any more.
    b.up(2, 4, 3);
    b.closed(2);
    b.writes(3, Stream::Stderr, "1234567890\n");
    b.ends(3);
    assert_eq!(b.give(exited(3, ExitCause::Exit(0))), ["forget 3"]);
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
fn two_names_of_one_broker_for_this_machine_do_not_take_the_link_from_each_other() {
    let mut b = Bench::with_broker(|_| {});
    b.up(1, 1, 0);
    b.open(2);
    assert_eq!(b.frame(2, hello_to("h2", "b")), ["2<error denied", "2<close"]);
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed 1/1/100"], "the first is what it was");
    // The host has a new name: the link with the old one is closed first.
    b.closed(1);
    b.open(3);
    assert_eq!(b.frame(3, hello_to("h2", "b")), ["3<welcome"]);
    b.open(4);
    assert_eq!(b.frame(4, hello_to("h1", "b")), ["4<error denied", "4<close"]);
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
    assert_eq!(b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 5, keep: false })), ["term 0"]);
    b.ends(1);
    let words = b.give(exited(1, ExitCause::Signal(9)));
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
        Frame::Logout(protocol::bodies::Logout::default()),
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
    let error = WireError::fatal(ErrorCode::Version, "v", 3);
    let garbled = Input::Garbled { link: link(1), error };
    assert_eq!(b.give(garbled.clone()), ["1<error version", "1<close"]);
    assert!(b.give(garbled).is_empty());
}

#[test]
fn links_have_a_limit_and_other_users_are_denied() {
    let mut b = Bench::new(|config| config.limits.links_max = 2);
    assert!(b.open(1).is_empty() && b.open(2).is_empty());
    // The link that was silent longest is closed.
    assert_eq!(b.open(3), ["1<error too_many_connections", "1<close"]);
    b.closed(2);
    assert!(b.open(4).is_empty());
    let denied = Input::Opened {
        link: link(5),
        denied: Some("who?".into()),
        must_prove: false,
        peer_group: PeerGroup::default(),
    };
    assert_eq!(b.give(denied), ["5<error denied", "5<close"]);
}

#[test]
fn silent_links_give_way_to_a_broker_and_brokers_to_nobody() {
    let mut b = Bench::new(|config| config.limits.links_max = 2);
    b.connect(1, "a");
    b.open(2);
    assert_eq!(b.open(3), ["2<error too_many_connections", "2<close"]);
    b.frame(3, hello("b"));
    assert_eq!(b.open(4), ["4<error too_many_connections", "4<close"]);
}

#[test]
fn a_crowd_gives_way_to_whoever_comes_from_elsewhere() {
    let mut b = Bench::new(|config| config.limits.links_max = 4);
    let (crowd, other) = (PeerGroup::V4(1), PeerGroup::V4(2));
    b.open_from(1, other);
    for on in 2..5 {
        assert!(b.open_from(on, crowd).is_empty());
    }
    for on in 5..20 {
        let gone = on - 3;
        let expected = [format!("{gone}<error too_many_connections"), format!("{gone}<close")];
        assert_eq!(b.open_from(on, crowd), expected);
    }
    assert_eq!(b.frame(1, hello("b")), ["1<welcome"]);
    // All links are from different groups: the one that was silent longest is closed.
    let mut b = Bench::new(|config| config.limits.links_max = 2);
    b.open_from(1, PeerGroup::V6(1));
    b.open_from(2, PeerGroup::V6(2));
    assert_eq!(b.open_from(3, PeerGroup::V6(3)), ["1<error too_many_connections", "1<close"]);
}

#[test]
fn brokers_have_a_limit_and_one_that_left_nothing_running_gives_way() {
    let mut b = Bench::new(|config| config.limits.brokers_max = 2);
    b.connect(1, "a");
    b.connect(2, "b");
    b.open(3);
    assert_eq!(b.frame(3, hello("c")), ["3<error too_many_connections", "3<close"]);
    // Broker `a` is away, first with a child, then with a report only.
    b.up(1, 1, 0);
    b.closed(1);
    b.open(4);
    assert_eq!(b.frame(4, hello("c")), ["4<error too_many_connections", "4<close"]);
    b.ends(0);
    b.give(exited(0, ExitCause::Exit(0)));
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
fn bytes_of_a_frame_are_a_sign_of_life_but_not_without_end() {
    let mut b = Bench::with_broker(|_| {});
    let part = |bytes| Input::PartialFrame { link: link(1), bytes };
    b.until(9_000);
    assert!(b.give(part(64)).is_empty());
    assert_eq!(b.until(18_000), ["1<ping"; 4]);
    assert!(b.give(part(160_064)).is_empty());
    assert_eq!(b.until(27_000), ["1<ping"; 4]);
    // The frame has had 10 s, and 1 ms for each 16 of its bytes.
    assert!(b.give(part(160_065)).is_empty());
    assert!(!b.until(29_003).contains(&"1<close".to_owned()));
    assert!(b.until(29_004).contains(&"1<close".to_owned()));
    // A whole frame ends that time. The time for the hello is not extended.
    let mut b = Bench::with_broker(|_| {});
    b.give(part(64));
    b.until(9_000);
    assert!(b.frame(1, Frame::Pong { sequence: 0 }).is_empty());
    assert!(!b.until(18_999).contains(&"1<close".to_owned()));
    let mut b = Bench::new(|_| {});
    b.open(1);
    b.until(1_000);
    b.give(part(64));
    assert_eq!(b.until(2_000), ["1<error login_timeout", "1<close"]);
}

#[test]
fn an_execd_that_stood_still_blames_no_broker() {
    let mut b = Bench::with_broker(|_| {});
    b.until(1_000);
    b.now = Tick::from_millis(61_000);
    assert_eq!(b.give(Input::Deadline), [""; 0]);
    assert_eq!(b.until(63_000), ["1<ping"]);
    assert!(b.frame(1, Frame::Pong { sequence: 0 }).is_empty());
    // The process was stopped in the middle of a hello.
    b.open(2);
    b.now = Tick::from_millis(80_000);
    b.give(Input::Deadline);
    assert!(b.frame(2, hello("c")).contains(&"2<welcome".to_owned()));
}

/// What the log says of a broker's lost link, and whether the broker had said goodbye.
fn gone(b: &mut Bench, input: Input) -> Option<(&'static str, bool)> {
    let mut out = Vec::new();
    b.engine.step(b.now, input, &mut out);
    out.iter().find_map(|action| match action {
        Action::Note(Note::BrokerGone { why, in_order, .. }) => Some((*why, *in_order)),
        _ => None,
    })
}

#[test]
fn the_log_says_why_a_broker_is_gone() {
    let closed = || Input::Closed { link: link(1), why: "closed by the other side" };
    let frame = |frame| Input::Frame { link: link(1), frame };
    let mut b = Bench::with_broker(|_| {});
    assert_eq!(gone(&mut b, closed()), Some(("closed by the other side", false)));
    let mut b = Bench::with_broker(|_| {});
    let misplaced = frame(Frame::Login(Login::to(ServiceName::op())));
    assert_eq!(gone(&mut b, misplaced), Some(("sent what it may not send", false)));
    let mut b = Bench::with_broker(|_| {});
    b.until(9999);
    b.now = Tick::from_millis(10_000);
    assert_eq!(gone(&mut b, Input::Deadline), Some(("was silent and answered no ping", false)));
    // A broker that has announced its end, with workers or without.
    for workers in [0, 1] {
        let mut b = Bench::with_broker(|_| {});
        if workers > 0 {
            b.up(1, 1, 0);
        }
        b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: 5, keep: false }));
        assert_eq!(gone(&mut b, closed()), Some(("has shut down in order", true)), "{workers}");
        // The next one has announced nothing yet.
        b.connect(1, "b");
        assert_eq!(gone(&mut b, closed()), Some(("closed by the other side", false)), "{workers}");
    }
}
