//! Brokers that have to prove a token: who is welcome when. Not the arithmetic of the proof.

use super::*;
use protocol::names::TokenName;
use protocol::proof::{Claim, Proof};

fn claiming(broker: &str) -> Frame {
    let host = HostName::new("h1").unwrap();
    let claim = Claim { token: TokenName::new("eu").unwrap(), nonce: vec![1; 16] };
    Frame::ExecHello(ExecHello { host, broker: broker.into(), token: Some(claim) })
}

fn proof() -> Frame {
    Frame::Proof(Proof { proof: [1; 32] })
}

impl Bench {
    fn open_to_prove(&mut self, on: u32) {
        let opened = Input::Opened { link: link(on), stranger: None, must_prove: true };
        assert!(self.give(opened).is_empty());
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
