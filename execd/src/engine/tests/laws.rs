//! Tests of what holds for all inputs: sizes, limits, and the same actions for the same inputs.

use super::*;
use crate::engine::limits::{CHILDREN_CAP, LINE_BYTES_MAX};
use protocol::bodies::{Child, ExecExited, ExecListed};
use protocol::limits::CONTROL_BODY_BYTES_MAX;

#[test]
fn the_largest_reports_fit_into_a_frame() {
    let (pid, digest) = (u32::MAX, u32::MAX);
    let child = Child { worker: WorkerId(u32::MAX), run: RunId(u64::MAX), pid, digest };
    let listed = ExecListed { children: vec![child; CHILDREN_CAP] }.render();
    assert!(listed.len() <= CONTROL_BODY_BYTES_MAX, "{}", listed.len());
    assert_eq!(ExecListed::parse(&listed).unwrap().children.len(), CHILDREN_CAP);
    let line = "\u{fffd}".repeat(LINE_BYTES_MAX) + "…";
    let exited = ExecExited {
        worker: WorkerId(u32::MAX),
        run: RunId(u64::MAX),
        pid: u32::MAX,
        exit_cause: ExitCause::Signal(9),
        cpu_ms: u64::MAX,
        rss_kib_max: u64::MAX,
        core: false,
        oom: false,
        tail: vec![line; Limits::default().tail_lines_max],
    };
    let body = exited.render();
    assert!(body.len() <= CONTROL_BODY_BYTES_MAX, "{}", body.len());
    assert_eq!(ExecExited::parse(&body), Ok(exited));
}

/// Random inputs in random order: no panic, the same actions both times, limits kept.
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
                let peer_group = PeerGroup::V4(u32::try_from(next(3)).unwrap());
                Input::Opened { link: link(opened), denied: None, must_prove: false, peer_group }
            }
            2 | 3 => {
                let name = ["a", "b", "c"][usize::try_from(next(3)).unwrap()];
                Input::Frame { link: on, frame: hello(name) }
            }
            4 | 5 => Input::Frame { link: on, frame: start(worker, run) },
            6 => Input::Frame { link: on, frame: stop(worker, run, next(3) * 100) },
            7 => Input::Frame { link: on, frame: Frame::ExecList },
            8 => Input::Closed { link: on, why: "test" },
            9 => Input::Forked { child, pid: 1000 },
            10 => Input::Spawned { child, pid: 1000 },
            11 => Input::SpawnFailed { child, permanent: false, text: "no".into() },
            12 => exited(child.0, ExitCause::Exit(0)),
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
