//! Tests a real `isectd`: its configuration on the disk, when the broker is killed, a file spoiled,
//! or a script run again.

#![allow(clippy::unwrap_used, reason = "a test that can't go on fails")]

mod common;

use broker::reactor::kept_script;
use common::*;
use protocol::frame::Frame;
use std::fs;
use std::io::Read;
use std::process::Stdio;
use tempfile::TempDir;

/// The directory of a broker that has ended; the broker that had it has an empty one now.
fn taken(broker: &mut Broker) -> TempDir {
    std::mem::replace(&mut broker.dir, tempfile::tempdir().unwrap())
}

/// How a broker ends that can't start: its status, and what it said.
fn fails(state: &std::path::Path) -> (Option<i32>, String) {
    let words = ["--state", state.to_str().unwrap(), "--listen", "127.0.0.1:0"];
    let mut child = isectd(&words).stderr(Stdio::piped()).spawn().unwrap();
    let mut text = String::new();
    child.stderr.take().unwrap().read_to_string(&mut text).unwrap();
    (wait(&mut child).code(), text)
}

#[test]
fn what_was_answered_is_there_after_a_kill_at_any_moment() {
    let mut dir = tempfile::tempdir().unwrap();
    let mut answered = 0;
    for round in 1..=6_u32 {
        let mut broker = Broker::start_in(dir, &[]);
        let mut op = tcp(&broker.client).login("op");
        // More changes than answers are waited for: the rest is under way when it is killed.
        let first = answered + 1;
        for number in first..first + 40 {
            op.ask(number, format!("config service s{number}"));
        }
        while answered < first + round * 5 {
            match op.next() {
                Some(Frame::Data { head, .. }) => answered = answered.max(head.sequence),
                other => panic!("{other:?}"),
            }
        }
        broker.child.kill().unwrap();
        broker.wait();
        let kept = kept_script(&broker.state()).unwrap();
        for number in 1..=answered {
            let is_there = kept.lines().any(|line| line.ends_with(&format!(" s{number}")));
            assert!(is_there, "round {round}: s{number} of {answered} answered ones\n{kept}");
        }
        // What was not answered may be there, or not, but without a hole.
        let all = kept.lines().filter(|line| line.starts_with("config service ")).count() as u32;
        assert!(kept.lines().any(|line| line.ends_with(&format!(" s{all}"))), "{kept}");
        answered = all;
        dir = taken(&mut broker);
    }
    Broker::start_in(dir, &[]).end();
}

#[test]
fn a_torn_tail_is_left_out_and_said_and_gone_with_the_next_change() {
    let mut broker = Broker::start(&[]);
    let mut op = tcp(&broker.client).login("op");
    for (number, service) in (1..).zip(["a", "b", "c"]) {
        op.op(number, &format!("config service {service}"));
    }
    op.op(4, "config events 50");
    broker.end();
    let journal = broker.state().join("config.journal");
    let whole = fs::read_to_string(&journal).unwrap();
    let torn = whole.trim_end().rsplit_once('\n').unwrap().0;
    fs::write(&journal, format!("{torn}\n5 half")).unwrap();
    let kept = kept_script(&broker.state()).unwrap();
    assert!(kept.contains("service #4 c") && !kept.contains("events"), "{kept}");

    let mut broker = Broker::start_in(taken(&mut broker), &[]);
    let mut op = tcp(&broker.client).login("op");
    assert!(op.op(1, "services").contains('c'));
    op.op(2, "config events 50");
    broker.end();
    assert_eq!(
        fs::read_to_string(broker.state().join("config.journal")).unwrap().lines().count(),
        1
    );
    // An operator sees it, too.
    let journal = broker.state().join("config.journal");
    let whole = fs::read_to_string(&journal).unwrap();
    fs::write(&journal, format!("{whole}half")).unwrap();
    let mut broker = Broker::start_in(taken(&mut broker), &[]);
    let said = tcp(&broker.client).login("op").op(1, "listevents");
    assert!(said.contains("persist_failed") && said.contains("half a change"), "{said}");
    broker.end();
}

#[test]
fn what_is_spoiled_ends_the_start_with_its_file_its_line_and_the_cure() {
    let mut broker = Broker::start(&[]);
    let mut op = tcp(&broker.client).login("op");
    for (number, service) in (1..).zip(["a", "b", "c"]) {
        op.op(number, &format!("config service {service}"));
    }
    broker.end();
    let state = broker.state();
    let files = ["config.isect", "config.journal"];
    let good = files.map(|name| fs::read_to_string(state.join(name)).unwrap());
    let [isect, journal] = &good;
    for (name, text, part) in [
        (files[0], String::new(), "config.isect is empty"),
        (files[0], isect.replace("#2 a", "#2 b"), "config.isect is damaged or was changed"),
        (files[1], String::new(), "config.journal is empty"),
        (files[1], journal.replace("#3 b", "#3 x"), "line 2 of config.journal is damaged"),
        (files[1], journal.replace("#4 c", "#4 x"), "line 3 of config.journal is damaged"),
    ] {
        fs::write(state.join(name), text).unwrap();
        let (status, said) = fails(&state);
        assert_eq!(status, Some(3), "{said}");
        assert!(said.contains(part) && said.contains("put copies of"), "{part}: {said}");
        files.iter().zip(&good).for_each(|(name, text)| fs::write(state.join(name), text).unwrap());
    }
    fs::remove_file(state.join(files[1])).unwrap();
    let (status, said) = fails(&state);
    assert!(status == Some(3) && said.contains("config.journal is missing"), "{said}");
    // The cure that it names.
    fs::write(state.join(files[0]), isect.split_once('\n').unwrap().1).unwrap();
    let mut broker = Broker::start_in(taken(&mut broker), &[]);
    let services = tcp(&broker.client).login("op").op(1, "services");
    assert!(services.contains('a') && !services.contains('b'), "{services}");
    broker.end();
}

#[test]
fn a_script_of_the_command_line_may_be_run_at_every_start() {
    let mut dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("setup.op");
    let text = "config service echo deadline_ms=5000\nconfig worker echo localhost /bin/isdecho\n\
                config worker echo localhost /bin/isdecho\nstop echo\nset stall_ms 7000\n";
    fs::write(&script, text).unwrap();
    let script = script.to_str().unwrap().to_owned();
    let mut before = None;
    for _ in 0..3 {
        let mut broker = Broker::start_in(dir, &["--source", &script]);
        let workers = tcp(&broker.client).login("op").op(1, "save");
        assert_eq!(workers.matches("config worker ").count(), 2, "{workers}");
        broker.end();
        let now = ["config.isect", "config.journal"]
            .map(|name| fs::read_to_string(broker.state().join(name)).unwrap());
        assert_eq!(*before.get_or_insert_with(|| now.clone()), now, "nothing is written again");
        dir = taken(&mut broker);
    }
    // What differs is changed, and only that.
    fs::write(&script, text.replace("5000", "6000")).unwrap();
    let mut broker = Broker::start_in(dir, &["--source", &script]);
    broker.end();
    let kept = kept_script(&broker.state()).unwrap();
    assert!(kept.contains("config service #2 echo deadline_ms=6000"), "{kept}");
    assert_eq!(kept.matches("config worker ").count(), 2, "{kept}");
}
