//! Lines that are kept and their numbers; memory that is watched.

use super::*;
use crate::engine::kept::{KeptNumbers, READ_LINES_MAX};
use protocol::bodies::ExecRead;
use std::collections::BTreeMap;
use std::sync::Arc;

/// A bench of which worker 1 of broker `b` has `last` lines kept by earlier execds.
fn keeping(last: u64) -> Bench {
    Bench::with_broker(|config| {
        let of_b = BTreeMap::from([(WorkerId(1), last)]);
        config.kept = Some(KeptNumbers::from([(Arc::from("b"), of_b)]));
        (config.limits.lines_burst, config.limits.lines_per_second) = (2, 1);
    })
}

fn start_with(worker: u32, run: u64, change: impl FnOnce(&mut ExecStart)) -> Frame {
    let Frame::ExecStart(mut start) = start(worker, run) else { unreachable!() };
    change(&mut start);
    Frame::ExecStart(start)
}

fn up(b: &mut Bench, (worker, run): (u32, u64), child: u64, change: impl FnOnce(&mut ExecStart)) {
    b.frame(1, start_with(worker, run, change));
    b.give(Input::Spawned { child: ChildId(child), pid: 100 });
}

fn kept(b: &mut Bench, who: (u32, u64), child: u64) {
    up(b, who, child, |start| (start.output_bytes, start.output_files) = (100, 2));
}

#[test]
fn lines_are_numbered_over_all_processes_and_execds_and_rates_do_not_apply() {
    let mut b = keeping(7);
    kept(&mut b, (1, 1), 0);
    kept(&mut b, (2, 1), 1);
    assert_eq!(
        b.writes(0, Stream::Stderr, "a\nb\nc\nd"),
        ["keep 0 8 stderr a|b|c|", "1<output stderr a 0 number=8", "1<output stderr b 0 number=9"]
    );
    assert_eq!(b.writes(1, Stream::Stdout, "x\n")[0], "keep 1 1 stdout x|");
    // The end of a stream ends its line; what was dropped last is sent with its own number.
    let end = b.ends(0);
    assert_eq!(end, ["keep 0 11 stderr d|"]);
    let words = b.give(exited(0, ExitCause::Exit(0)));
    assert_eq!(words[0], "1<output stderr d 1 number=11");
    // The next process of the worker goes on.
    kept(&mut b, (1, 2), 2);
    assert_eq!(b.writes(2, Stream::Stdout, "e\n")[0], "keep 2 12 stdout e|");
}

#[test]
fn lines_are_kept_while_the_broker_is_away() {
    let mut b = keeping(0);
    kept(&mut b, (1, 1), 0);
    b.closed(1);
    assert_eq!(b.writes(0, Stream::Stdout, "a\n"), ["keep 0 1 stdout a|"]);
    b.connect(2, "b");
    b.frame(2, Frame::ExecList);
    let words = b.writes(0, Stream::Stdout, "b\n");
    assert_eq!(words, ["keep 0 2 stdout b|", "2<output stdout b 1 number=2"]);
}

#[test]
fn nothing_is_kept_unless_the_start_says_so_and_there_is_a_directory() {
    let mut b = keeping(0);
    up(&mut b, (1, 1), 0, |_| ());
    assert_eq!(b.writes(0, Stream::Stdout, "a\n"), ["1<output stdout a 0"]);
    let mut b = Bench::with_broker(|_| {});
    kept(&mut b, (1, 1), 0);
    assert_eq!(b.writes(0, Stream::Stdout, "a\n"), ["1<output stdout a 0"]);
    let read = ExecRead { request: 3, worker: WorkerId(1), lines: 5 };
    let words = b.frame(1, Frame::ExecRead(read));
    assert!(words[0].starts_with("1<lines of 1: this execd keeps no output"), "{words:?}");
}

#[test]
fn a_read_is_for_ones_own_workers_and_has_a_limit() {
    let mut b = keeping(0);
    let read = ExecRead { request: 3, worker: WorkerId(1), lines: u32::MAX };
    let words = b.frame(1, Frame::ExecRead(read));
    assert_eq!(words, [format!("1>{READ_LINES_MAX} lines of b/1")]);
    b.open(2);
    assert_eq!(b.frame(2, Frame::ExecRead(read))[0], "2<error bad_state");
}

#[test]
fn too_much_memory_is_told_once_for_each_process() {
    let mut b = keeping(0);
    up(&mut b, (1, 1), 0, |start| start.memory_max = 1000);
    up(&mut b, (2, 1), 1, |_| ());
    let memory = |child, bytes| Input::Memory { child: ChildId(child), bytes };
    let mut looks = b.until(2000);
    looks.retain(|word| word != "1<ping");
    assert_eq!(looks, ["measure 0", "measure 0"]);
    assert!(b.give(memory(0, 1000)).is_empty());
    assert!(b.give(memory(1, 5000)).is_empty(), "it has no limit");
    assert_eq!(b.give(memory(0, 1001)), ["1<memory 1/1 1001"]);
    assert!(b.give(memory(0, 1002)).is_empty());
    let looks = b.until(9000);
    assert!(!looks.contains(&"measure 0".to_owned()), "{looks:?}");
    // What no broker hears is told when it is back.
    up(&mut b, (3, 1), 2, |start| start.memory_max = 1000);
    b.closed(1);
    b.give(memory(2, 2000));
    b.connect(2, "b");
    let words = b.frame(2, Frame::ExecList);
    assert!(words.contains(&"2<memory 3/1 2000".to_owned()), "{words:?}");
    assert!(b.give(memory(99, 1)).is_empty(), "no such child");
}

#[test]
fn a_child_that_is_being_ended_is_not_looked_at() {
    let mut b = keeping(0);
    up(&mut b, (1, 1), 0, |start| start.memory_max = 1000);
    b.frame(1, stop(1, 1, 60_000));
    assert!(!b.until(3000).iter().any(|word| word.starts_with("measure")));
}

#[test]
fn how_an_adopted_process_is_watched_comes_from_its_record() {
    let mut b = keeping(4);
    let watched = Watched { memory_max: 10, output_bytes: 50, ..Watched::default() };
    b.give(Input::Recorded(RecordedProcess {
        broker: "b".into(),
        worker: WorkerId(1),
        run: RunId(1),
        digest: 9,
        pid: 50,
        alive: true,
        is_older: false,
        watched,
    }));
    assert_eq!(b.writes(0, Stream::Stdout, "a\n")[0], "keep 0 5 stdout a|");
    assert_eq!(b.until(1500), ["measure 0"]);
}
