//! Tests of brokers that must prove a token: who is welcomed, and when.

use super::*;
use protocol::names::TokenName;
use protocol::proof::{Claim, Proof};

fn claiming(broker: &str) -> Frame {
    claiming_with(broker, "eu")
}

fn claiming_with(broker: &str, token: &str) -> Frame {
    let host = HostName::new("h1").unwrap();
    let claim = Claim { token: TokenName::new(token).unwrap(), nonce: vec![1; 16] };
    Frame::ExecHello(ExecHello { host, broker: broker.into(), token: Some(claim) })
}

fn proof() -> Frame {
    Frame::Proof(Proof { proof: [1; 32], channel: None })
}

impl Bench {
    fn open_to_prove(&mut self, on: u32) {
        assert!(self.open_to_prove_from(on, PeerGroup::default()).is_empty());
    }

    fn open_to_prove_from(&mut self, on: u32, peer_group: PeerGroup) -> Vec<String> {
        self.give(Input::Opened { link: link(on), denied: None, must_prove: true, peer_group })
    }

    fn proven(&mut self, on: u32, is_right: bool) -> Vec<String> {
        let proven = if is_right { Ok("00".repeat(32)) } else { Err("was not proved".into()) };
        self.give(Input::Proven { link: link(on), proven })
    }
}

#[test]
fn a_broker_is_welcome_when_it_has_proved_its_token() {
    let mut b = Bench::new(|_| {});
    b.open_to_prove(1);
    assert_eq!(b.frame(1, claiming("b")), ["challenge 1 h1"]);
    assert_eq!(b.frame(1, proof()), ["verify 1"]);
    assert_eq!(b.proven(1, true), ["1<welcome"]);
    assert_eq!(b.frame(1, start(1, 1)), ["spawn 0 /bin/true"]);
}

#[test]
fn the_name_of_a_broker_that_is_connected_is_nobody_elses() {
    let mut b = Bench::new(|_| {});
    b.open_to_prove(1);
    b.frame(1, claiming("b"));
    b.frame(1, proof());
    b.proven(1, true);
    b.up(1, 1, 0);
    // With another token, or with none although one was proved.
    b.open_to_prove(2);
    b.frame(2, claiming_with("b", "us"));
    b.frame(2, proof());
    assert_eq!(b.proven(2, true), ["2<error denied", "2<close"]);
    b.open(3);
    assert_eq!(b.frame(3, hello("b")), ["3<error denied", "3<close"]);
    assert_eq!(b.frame(1, stop(1, 1, 10)), ["term 0"], "the first is what it was");
    // With the same token: a newer connection of the same broker.
    b.open_to_prove(4);
    b.frame(4, claiming("b"));
    b.frame(4, proof());
    assert!(b.proven(4, true).contains(&"4<welcome".to_owned()));
    // The broker is away: whoever proves a token may be it, with a token that was renewed.
    b.closed(4);
    b.open_to_prove(5);
    b.frame(5, claiming_with("b", "us"));
    b.frame(5, proof());
    assert!(b.proven(5, true).contains(&"5<welcome".to_owned()));
}

#[test]
fn a_broker_says_nothing_about_the_children_of_another() {
    let mut b = Bench::new(|_| {});
    b.connect(1, "a");
    b.connect(2, "b");
    b.up(1, 1, 0);
    assert_eq!(b.frame(2, stop(1, 1, 0)), ["2<error not_found"]);
    let signal = ExecSignal { worker: WorkerId(1), run: RunId(1), signal: 9 };
    assert_eq!(b.frame(2, Frame::ExecSignal(signal)), ["2<error not_found"]);
    assert_eq!(b.frame(2, Frame::ExecList), ["2<listed "]);
    assert!(b.frame(2, Frame::ExecEnd(ExecEnd { grace_ms: 0, keep: false })).is_empty());
    assert_eq!(b.frame(1, Frame::ExecList), ["1<listed 1/1/100"]);
}

#[test]
fn numbers_at_their_limits_stop_nothing() {
    for worker in [0, 1, u32::MAX - 1, u32::MAX] {
        for run in [0, 1, u64::MAX - 1, u64::MAX] {
            for number in [0, 1, u64::MAX - 1, u64::MAX] {
                let mut b = Bench::new(|_| {});
                b.connect(1, "a");
                b.frame(1, start(worker, run));
                b.frame(1, start(worker, run));
                b.give(Input::Spawned { child: ChildId(0), pid: u32::MAX });
                let (worker, run) = (WorkerId(worker), RunId(run));
                let signal = number as i32;
                b.frame(1, Frame::ExecSignal(ExecSignal { worker, run, signal }));
                b.frame(1, Frame::ExecStop(ExecStop { worker, run, grace_ms: number }));
                b.frame(1, Frame::ExecStop(ExecStop { worker, run, grace_ms: 0 }));
                b.frame(1, Frame::ExecEnd(ExecEnd { grace_ms: number, keep: false }));
                b.frame(1, Frame::ExecList);
                let (cpu_ms, rss_kib_max) = (number, number);
                let exit_cause = ExitCause::Exit(i32::MIN);
                let end = ProcessEnd { cpu_ms, rss_kib_max, ..ProcessEnd::of(exit_cause) };
                b.give(Input::Exited { child: ChildId(0), end });
                b.until(1000);
                b.until(u64::MAX / 1000);
            }
        }
    }
}

#[test]
fn nothing_is_done_for_a_broker_before() {
    for frames in [
        vec![hello("b")],
        vec![start(1, 1)],
        vec![proof()],
        vec![claiming("b"), start(1, 1)],
        vec![claiming("b"), Frame::ExecList],
        vec![claiming("b"), claiming("b")],
        vec![claiming("b"), hello("b")],
        vec![claiming("b"), proof(), proof()],
        vec![claiming("b"), proof(), start(1, 1)],
    ] {
        let mut b = Bench::new(|_| {});
        b.open_to_prove(1);
        let words: Vec<String> =
            frames.iter().flat_map(|frame| b.frame(1, frame.clone())).collect();
        assert_eq!(words.last().unwrap(), "1<close", "{frames:?}: {words:?}");
        assert!(!words.iter().any(|w| w.contains("welcome") || w.contains("spawn")), "{words:?}");
        assert!(b.proven(1, true).is_empty(), "who is gone is not let in: {frames:?}");
    }
}

#[test]
fn a_wrong_proof_or_none_in_time_ends_the_connection() {
    let mut b = Bench::new(|_| {});
    b.open_to_prove(1);
    b.frame(1, claiming("b"));
    b.frame(1, proof());
    assert_eq!(b.proven(1, false), ["1<error bad_token", "1<close"]);
    b.open_to_prove(2);
    b.frame(2, claiming("b"));
    let hello_ms = b.engine.config.limits.hello_ms;
    let words = b.until(b.now.as_millis() + hello_ms + 1);
    assert_eq!(words, ["2<error login_timeout", "2<close"]);
}

#[test]
fn who_is_in_by_a_token_that_is_gone_is_shut_out_and_its_workers_go_on() {
    let mut b = Bench::new(|_| {});
    b.open_to_prove(1);
    b.frame(1, claiming("b"));
    b.frame(1, proof());
    b.proven(1, true);
    b.frame(1, start(1, 1));
    assert_eq!(b.give(Input::Revoked { link: link(1) }), ["1<error bad_token", "1<close"]);
    assert!(b.frame(1, start(2, 2)).is_empty(), "it is not listened to any more");
    assert_eq!(b.engine.children_count(), 1);
    assert!(b.give(Input::Revoked { link: link(1) }).is_empty());
}

#[test]
fn without_a_token_it_says_what_is_needed() {
    let mut b = Bench::new(|_| {});
    b.open_to_prove(1);
    assert_eq!(b.frame(1, hello("b")), ["1<error needs_token", "1<close"]);
}

#[test]
fn a_broker_that_does_not_have_to_may_prove_its_token_all_the_same() {
    let mut b = Bench::new(|_| {});
    b.open(1);
    assert_eq!(b.frame(1, claiming("b")), ["challenge 1 h1"]);
    b.frame(1, proof());
    assert_eq!(b.proven(1, true), ["1<welcome"]);
}

#[test]
fn hellos_of_others_keep_no_broker_from_saying_its_own() {
    let mut b = Bench::new(|config| config.limits.links_max = 4);
    for on in 1..5 {
        b.open_to_prove(on);
        b.frame(on, claiming("x"));
    }
    // All are proving a token; half of such a crowd has to go, the oldest first.
    let peer_group = PeerGroup::default();
    for (on, gone) in [(5, 1), (6, 2)] {
        let expected = [format!("{gone}<error too_many_connections"), format!("{gone}<close")];
        assert_eq!(b.open_to_prove_from(on, peer_group), expected);
    }
    // Then the silent ones have to go.
    let expected = ["5<error too_many_connections", "5<close"];
    assert_eq!(b.open_to_prove_from(7, peer_group), expected);
    // One whose proof is being checked stays.
    b.frame(6, claiming("b"));
    b.frame(6, proof());
    for (on, gone) in [(8, 3), (9, 7), (10, 8)] {
        let expected = [format!("{gone}<error too_many_connections"), format!("{gone}<close")];
        assert_eq!(b.open_to_prove_from(on, peer_group), expected);
    }
    assert_eq!(b.proven(6, true), ["6<welcome"]);
}
