//! Tests that a broker that was stopped for 5 s times out no instance that went on meanwhile, and
//! every one that did not: 10,000 instances on 100 connections.

use isect_tests::fault::clock::{Clock, pause};
use isect_tests::fault::conn::{Conn, Endpoint, Received, Sent};
use isect_tests::proc::{Broker, TIMEOUT};
use nix::sys::signal::Signal;
use protocol::bodies::{Announce, Beat, Subscribe};
use protocol::frame::Frame;
use protocol::instances::{BeatOf, InstanceState};
use protocol::messages::MessageLines;
use std::collections::BTreeSet;
use std::time::Duration;

/// Connections; the first one hangs while the broker is stopped.
const CONNECTIONS: u64 = 100;
/// Instances of each.
const EACH: u64 = 100;
/// How long an instance may be silent; shorter than the broker is stopped.
const TIMEOUT_MS: u64 = 3000;
/// Time between two beats.
const ROUND: Duration = Duration::from_millis(500);
/// Rounds before the broker is stopped, while it is, and after.
const ROUNDS: [u64; 3] = [3, 10, 9];
/// What a loaded machine may add to the second that a time-out may be late.
const SLACK_US: u64 = 2_000_000;

fn id(connection: u64, at: u64) -> u64 {
    connection * EACH + at
}

fn connect(broker: &Broker, clock: Clock) -> Conn {
    let address = broker.port("client").parse().expect("an address");
    let conn = Conn::open(&Endpoint::Tcp(address), None, clock).expect("a connection");
    conn.log_in("bus", (false, false), None).expect("a login")
}

fn send(conn: &mut Conn, frame: Frame) {
    assert_eq!(conn.send(frame), Sent::Whole, "a frame is sent");
}

fn next(conn: &mut Conn) -> Frame {
    match conn.next(TIMEOUT) {
        Received::Frame(frame, _) => frame,
        other => panic!("no frame came: {other:?}"),
    }
}

fn announce_all(conn: &mut Conn, connection: u64) {
    for at in 0..EACH {
        send(
            conn,
            Frame::Announce(Announce {
                sequence: 1,
                name: if connection == 0 { "silent".to_owned() } else { "pump".to_owned() },
                id: id(connection, at),
                kind: Default::default(),
                groups: vec!["night".to_owned()],
                activity_timeout_ms: TIMEOUT_MS,
                stalled_ms: 0,
                state: InstanceState::Running,
                addresses: Vec::new(),
                meta: Vec::new(),
                state_names: Vec::new(),
            }),
        );
    }
    for at in 0..EACH {
        let answer = next(conn);
        let Frame::Announced(announced) = answer else { panic!("{at}: {answer:?}") };
        assert_eq!(announced.id, id(connection, at));
    }
}

fn beat(conn: &mut Conn, connection: u64, round: u64) {
    let of = |at| BeatOf { id: id(connection, at), checkpoint: round, is_idle: false };
    let beat = Beat { beat: round as u32, instances: (0..EACH).map(of).collect() };
    send(conn, Frame::Beat(beat));
}

/// Takes the answers to beats that have come; how many.
fn answers(conn: &mut Conn) -> u64 {
    let mut count = 0;
    loop {
        match conn.next(Duration::ZERO) {
            Received::Frame(Frame::BeatOk(ok), _) => {
                assert_eq!(ok.unknown, Vec::<u64>::new(), "all are known");
                count += 1;
            }
            Received::Frame(other, _) => panic!("{other:?} instead of an answer to a beat"),
            Received::Nothing => return count,
            Received::Lost => panic!("the broker closed a connection"),
        }
    }
}

/// The ids that are said to be timed out; nothing else is said of anybody.
fn timed_out(watcher: &mut Conn, found: &mut BTreeSet<u64>) {
    while let Received::Frame(frame, _) = watcher.next(Duration::ZERO) {
        let Frame::Message { body, .. } = frame else { continue };
        let lines = MessageLines::read(&body).expect("a message");
        // A group's message has three words.
        if lines.topic.split('.').count() == 3 {
            continue;
        }
        let payload = String::from_utf8_lossy(&body[lines.payload_at..]).into_owned();
        let line = |key: &str| {
            let found = payload.lines().find_map(|line| line.strip_prefix(key));
            found.unwrap_or_else(|| panic!("no {key}in {payload}"))
        };
        assert_eq!(line("state "), "timed out", "{payload}");
        assert_eq!(line("name "), "silent", "one that beat is timed out: {payload}");
        found.insert(line("id ").parse().expect("an id"));
    }
}

#[test]
fn a_broker_that_was_stopped_times_out_who_was_silent_and_nobody_else() {
    let broker = Broker::start(&[]);
    let clock = Clock::start();
    let mut conns: Vec<Conn> = (0..CONNECTIONS).map(|_| connect(&broker, clock)).collect();
    for (conn, connection) in conns.iter_mut().zip(0..) {
        announce_all(conn, connection);
        beat(conn, connection, 0);
    }
    let mut watcher = connect(&broker, clock);
    let pattern = "isect.state.>".to_owned();
    let subscribe = Subscribe { subscription: 1, pattern, from: None, retained: false };
    send(&mut watcher, Frame::Subscribe(subscribe));
    assert!(matches!(next(&mut watcher), Frame::Subscribed(_)));
    assert!(matches!(next(&mut watcher), Frame::CaughtUp(_)));

    let mut found = BTreeSet::new();
    let mut answered = 0;
    let (mut stopped, mut continued, mut noticed) = (0, 0, None);
    let all: u64 = ROUNDS.iter().sum();
    for round in 1..=all {
        let due = clock.now() + ROUND.as_micros() as u64;
        if round == ROUNDS[0] + 1 {
            broker.process.signal(Signal::SIGSTOP);
            stopped = clock.now();
        }
        if round == ROUNDS[0] + ROUNDS[1] + 1 {
            broker.process.signal(Signal::SIGCONT);
            continued = clock.now();
        }
        for (conn, connection) in conns.iter_mut().zip(0..) {
            if connection > 0 || round <= ROUNDS[0] {
                beat(conn, connection, round);
            }
            answered += answers(conn);
        }
        timed_out(&mut watcher, &mut found);
        if found.len() as u64 == EACH && noticed.is_none() {
            noticed = Some(clock.now());
        }
        pause(Duration::from_micros(due.saturating_sub(clock.now())));
    }
    assert_eq!(found.len() as u64, EACH, "all that were silent are timed out: {found:?}");
    let late = noticed.expect("they were noticed") - stopped;
    let most = (continued - stopped) + (TIMEOUT_MS + 1000) * 1000 + SLACK_US;
    assert!(late <= most, "noticed {late} us after they fell silent, {most} at most");
    // Each beat is answered in the end.
    let sent = (CONNECTIONS - 1) * (all + 1) + ROUNDS[0] + 1;
    let until = clock.now() + TIMEOUT.as_micros() as u64;
    while answered < sent && clock.now() < until {
        answered += conns.iter_mut().map(answers).sum::<u64>();
    }
    assert_eq!(answered, sent, "all beats are answered");
    timed_out(&mut watcher, &mut found);
    assert_eq!(found.len() as u64, EACH, "nobody else is timed out");
    let page = broker.op("instances silent");
    assert_eq!(page.matches("timed out").count() as u64, EACH, "{page}");
    assert_eq!(broker.end(), 0);
}
