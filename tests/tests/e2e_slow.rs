//! Tests slow or stalling peers with real processes: frames that never end, a byte now and then,
//! before and after the login, on the ports of clients, workers and execd. Each is closed in time
//! and uses no more than its share; others notice nothing. Silent peers are in `e2e_silent`.

use isect_tests::figures::{now, say};
use isect_tests::proc::{Broker, Execd, TIMEOUT, await_that};
use isect_tests::wire::{self, Wire};
use protocol::bodies::ExecHello;
use protocol::encode;
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use std::time::Duration;

/// A request with a body of this size.
fn request(size: usize) -> Vec<u8> {
    encode::to_bytes(Frame::data(wire::request(1), vec![7; size].into())).to_vec()
}

/// What a peer does after the first bytes: nothing, or a byte every few milliseconds.
#[derive(Clone, Copy, Debug)]
enum Way {
    Silent,
    Dripping,
}

/// Sends the first bytes of a frame and then goes on in this way. Returns how long it took until
/// the other side closed.
fn never_finish(wire: &mut Wire, frame: &[u8], first: usize, way: Way) -> Duration {
    let begun = now();
    wire.write(&frame[..first]).expect("the beginning");
    if let Way::Dripping = way {
        for byte in &frame[first..] {
            // Stops at an answer, or at the end of the connection.
            wire.set_read_timeout(Duration::from_millis(20));
            if wire.write(&[*byte]).is_err() || wire.has_answer() {
                break;
            }
        }
    }
    wire.set_read_timeout(TIMEOUT);
    wire.await_end();
    begun.elapsed()
}

#[test]
fn a_frame_that_is_never_finished_is_dropped_at_frame_ms_after_the_login() {
    const FRAME: Duration = Duration::from_millis(600);
    let broker = Broker::start(&["--set", "frame_ms=600", "--set", "login_ms=60000"]);
    broker.remember_events();
    broker.op("config service self selfstart=1");
    broker.with_workers("echo", "isdecho", 1);
    let slow_frame = &|port: &'static str, (size, first): (usize, usize), way: Way| {
        let mut wire = match port {
            "client" => Wire::login(&broker.port(port), "echo"),
            _ => Wire::worker_login(&broker.port(port), "self"),
        };
        let took = never_finish(&mut wire, &request(size), first, way);
        say(&format!("{port} port, {first} of {size} bytes, {way:?}: dropped after {took:?}"));
        // 16 received bytes allow one millisecond more; the machine may add some time.
        let most = FRAME * 2 + Duration::from_millis(first as u64 / 16 + 2000);
        let is_refused_at_once = size > 16 << 20 && port == "worker";
        assert!(took < most && (took >= FRAME || is_refused_at_once), "{took:?}");
    };
    let mut others = broker.login("echo");
    std::thread::scope(|scope| {
        for port in ["client", "worker"] {
            // Part of a header, a header, a small frame, a large one, one that is too large.
            for part in [(1000, 1), (1000, 64), (1000, 70), (100_000, 20_000), (17 << 20, 100)] {
                for way in [Way::Silent, Way::Dripping] {
                    scope.spawn(move || slow_frame(port, part, way));
                }
            }
        }
        assert_eq!(others.call("x", None).expect("an answer"), "x");
    });
    assert_eq!(others.call("x", None).expect("an answer"), "x");
    assert!(broker.op("listevents 100").contains("frame_ms"), "{}", broker.op("listevents 100"));
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_frame_that_comes_slowly_but_comes_is_taken() {
    let broker = Broker::start(&["--set", "frame_ms=300"]);
    broker.with_workers("echo", "isdecho", 1);
    let mut slow = Wire::login(&broker.port("client"), "echo");
    // 80 pieces of 2000 bytes, some milliseconds apart: faster than a byte in 16 µs, and more than
    // twice `frame_ms` in all.
    let frame = request(160_000);
    let (begun, mut pieces) = (now(), frame.chunks(2000));
    await_that("the last piece", || {
        let due = begun.elapsed().as_millis() / 10;
        while frame.chunks(2000).len() - pieces.len() <= due as usize {
            match pieces.next() {
                Some(piece) => slow.write(piece).expect("not dropped"),
                None => return Some(()),
            }
        }
        None
    });
    assert!(begun.elapsed() > Duration::from_millis(600));
    assert_eq!(slow.answer(1).len(), 160_000);
    // Between frames it may be silent for as long as it likes.
    await_that("time to pass", || (begun.elapsed() > Duration::from_millis(2500)).then_some(()));
    slow.ask(2, "again");
    assert_eq!(slow.answer(2), "again");
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_reader_that_is_held_back_is_not_blamed_for_half_a_frame() {
    let broker = Broker::start(&["--set", "frame_ms=200", "--set", "heartbeat_ms=100"]);
    broker.op("config service self selfstart=1");
    let mut worker = Wire::worker_login(&broker.port("worker"), "self");
    let address = broker.port("client");
    std::thread::scope(|scope| {
        let sender = scope.spawn(move || {
            let mut sender = Wire::login(&address, "self");
            for index in 0..40_u16 {
                let more = u16::from(index < 39);
                let head = Header { more, ..wire::request(1) };
                sender.send(Frame::data(head, vec![1; 1 << 20].into()));
            }
            loop {
                match sender.next_frame() {
                    // Pongs tell it meanwhile that the broker is there.
                    Some(Frame::Pong { .. }) => {}
                    Some(Frame::Data { body, .. }) => break body,
                    other => panic!("{other:?}"),
                }
            }
        });
        // The worker reads nothing for many times `frame_ms`, so its client is stopped in the
        // middle of a frame.
        let begun = now();
        await_that("time to pass", || {
            (begun.elapsed() > Duration::from_millis(1500)).then_some(())
        });
        let last = loop {
            let Some(Frame::Data { head, .. }) = worker.next_frame() else { panic!("no piece") };
            if head.more == 0 {
                break head;
            }
        };
        let answer = Header { transaction: last.transaction, ..Header::default() };
        worker.send(Frame::data(answer, "done".into()));
        assert_eq!(sender.join().expect("the sender"), "done");
    });
    assert_eq!(broker.end(), 0);
}

#[test]
fn large_frames_that_are_never_finished_hold_no_more_memory_than_they_may() {
    const MAX: usize = 64 << 20;
    const CLIENTS: usize = 300;
    let broker = Broker::start(&["--set", "inboxes_bytes_max=67108864"]);
    broker.with_workers("echo", "isdecho", 1);
    let idle = broker.rss_kib();
    let frame = request(1 << 20);
    let mut wires: Vec<Wire> = Vec::new();
    for _ in 0..CLIENTS {
        let mut wire = Wire::login(&broker.port("client"), "echo");
        // The whole frame except its last byte.
        wire.write(&frame[..frame.len() - 1]).expect("most of a frame");
        wires.push(wire);
    }
    // Small requests do not count for `inboxes_bytes_max`; a further large one is refused.
    let mut others = broker.login("echo");
    assert_eq!(others.call("x", None).expect("an answer"), "x");
    let mut refused = 0;
    for wire in &mut wires {
        wire.write(&frame[frame.len() - 1..]).expect("the last byte");
        match wire.next_frame() {
            Some(Frame::Data { body, .. }) => assert_eq!(body.len(), 1 << 20),
            Some(Frame::Error { error, .. }) => {
                assert_eq!((error.code, error.ran), (ErrorCode::Overloaded, error.code.row().ran));
                refused += 1;
            }
            other => panic!("{other:?}"),
        }
    }
    let most = broker.peak_kib();
    say(&format!(
        "{CLIENTS} clients with a MiB less a byte, inboxes_bytes_max {MAX}: {refused} refused; \
         idle {idle} KiB, at most {most} KiB"
    ));
    assert!((CLIENTS - MAX / (1 << 20)..CLIENTS).contains(&refused), "{refused} refused");
    assert!(most < idle + (MAX as u64 >> 10) + 24 * 1024, "idle {idle} KiB, at most {most} KiB");
    // A client whose frame was refused goes on with the same connection.
    let last = wires.last_mut().expect("a client");
    last.ask(2, "small");
    assert_eq!(last.answer(2), "small");
    drop(wires);
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_idle_client_is_dropped_at_idle_ms_and_one_that_says_a_byte_now_and_then_too() {
    let broker = Broker::start(&["--set", "idle_ms=500", "--set", "frame_ms=500"]);
    broker.with_workers("echo", "isdecho", 1);
    let mut silent = Wire::login(&broker.port("client"), "echo");
    let begun = now();
    assert_eq!(silent.refusal(), ErrorCode::IdleTimeout);
    assert!(begun.elapsed() >= Duration::from_millis(450), "{:?}", begun.elapsed());
    let mut drips = Wire::login(&broker.port("client"), "echo");
    let took = never_finish(&mut drips, &request(1000), 1, Way::Dripping);
    assert!(took < Duration::from_secs(4), "{took:?}");
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_execd_port_full_of_silent_and_slow_connections_serves_its_broker() {
    let execd = Execd::start(&[]);
    let broker = Broker::start(&["--set", "host_retry_ms=100"]);
    let mut crowd = Vec::new();
    let mut fill = |count: usize| {
        for index in 0..count {
            let mut wire = Wire::connect(&execd.address);
            // Half of them are silent, the others begin a frame.
            if index % 2 == 0 {
                let _ = wire.write(&request(10)[..40]);
            }
            crowd.push(wire);
        }
    };
    fill(100);
    // A broker that connects now still gets a connection, and keeps it.
    broker.op(&format!("config host far {}", execd.address));
    broker.await_page("hosts", "up");
    let up = |page: &str| page.lines().any(|line| line.contains("far") && line.contains(" up "));
    await_that("the host", || up(&broker.op("hosts")).then_some(()));
    broker.op("config service echo");
    broker
        .op(&format!("config worker echo far {}", isect_tests::proc::program("isdecho").display()));
    fill(100);
    broker.op("start echo");
    broker.await_ready(1);
    assert_eq!(broker.login("echo").call("x", None).expect("an answer"), "x");
    fill(100);
    broker.op("stop echo");
    broker.await_page("worker 1", "worker->state = \"down, stopped\"");
    assert!(up(&broker.op("hosts")), "{}", broker.op("hosts"));
    drop(crowd);
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_execd_drops_who_never_finishes_a_frame_before_and_after_the_hello() {
    let execd = Execd::start(&[]);
    let begun = now();
    let mut early = Wire::connect(&execd.address);
    early.write(&request(10)[..40]).expect("part of a frame");
    early.await_end();
    let before = begun.elapsed();
    say(&format!("execd: part of a first frame: dropped after {before:?}"));
    assert!(before < Duration::from_secs(5), "{before:?}");
    let begun = now();
    let mut late = Wire::connect(&execd.address);
    let host = protocol::names::HostName::new("far").expect("a name");
    late.send(Frame::ExecHello(ExecHello { host, broker: "b".into(), token: None }));
    assert!(matches!(late.next_frame(), Some(Frame::ExecWelcome(_))));
    late.write(&encode::to_bytes(Frame::ExecList)[..40]).expect("part of a frame");
    late.await_end();
    let after = begun.elapsed();
    say(&format!("execd: part of a frame after the hello: dropped after {after:?}"));
    assert!(after < Duration::from_secs(6), "{after:?}");
}

#[test]
fn bodies_that_wait_stay_within_queue_bytes_max_and_a_stated_overhead() {
    const MAX: u64 = 48 << 20;
    let max = format!("queue_bytes_max={MAX}");
    for size in [4_000, 9_000, 70_000, 600_000, 3 << 20] {
        let broker =
            Broker::start(&["--set", &max, "--set", "requests_max=100000", "--log", "error"]);
        broker.op("config service none queue_max=100000");
        broker.op("pause none");
        let idle = broker.rss_kib();
        let mut asks = Wire::login(&broker.port("client"), "none");
        let fitting = MAX / size;
        (1..=fitting as u32 + 5).for_each(|sequence| {
            let frame = Frame::data(wire::request(sequence), vec![7; size as usize].into());
            asks.send(frame);
        });
        // The requests beyond the limit are refused.
        assert_eq!(asks.error(), ErrorCode::Overloaded);
        let waiting = broker.number("", "isdData.WaitingBytes") as u64;
        assert!(waiting <= MAX && waiting > MAX - 2 * size, "{waiting}");
        let most = broker.peak_kib();
        say(&format!(
            "{fitting} bodies of {size} bytes wait, {} KiB of {} allowed: idle {idle} KiB, at most \
             {most} KiB, {:.2} times",
            waiting >> 10,
            MAX >> 10,
            (most - idle) as f64 / (waiting >> 10) as f64
        ));
        // Bodies of 4 KiB to 1 MiB are in buffers whose size is a power of two.
        assert!(most < idle + 2 * (MAX >> 10) + 24 * 1024, "idle {idle} KiB, at most {most} KiB");
        drop(asks);
        assert_eq!(broker.end(), 0);
    }
}

#[test]
fn slow_readers_together_wait_for_no_more_than_outboxes_bytes_max() {
    const READERS: usize = 60;
    let broker = Broker::start(&[
        "--set",
        "outboxes_bytes_max=33554432",
        "--set",
        "stall_ms=60000",
        "--log",
        "error",
    ]);
    broker.remember_events();
    broker.with_workers("echo", "isdecho", 1);
    // On a busy machine the last ones wait long.
    broker.op("config service large selfstart=1 deadline_ms=600000");
    let mut worker = Wire::worker_login(&broker.port("worker"), "large");
    let idle = broker.rss_kib();
    let mut readers: Vec<Wire> =
        (0..READERS).map(|_| Wire::login(&broker.port("client"), "large")).collect();
    readers.iter_mut().for_each(|reader| reader.ask(1, "x"));
    // Nobody reads the answers of 12 MiB: what the system does not accept waits in the broker.
    for _ in 0..READERS {
        let Some(Frame::Data { head, .. }) = worker.next_frame() else { panic!("no request") };
        let answer = Header { transaction: head.transaction, ..Header::default() };
        worker.send(Frame::data(answer, vec![1; 12 << 20].into()));
    }
    let mut others = broker.login("echo");
    let told = await_that("a reader that is dropped", || {
        assert_eq!(others.call("x", None).expect("an answer"), "x");
        let events = broker.op("listevents 1000");
        (events.matches("outboxes_bytes_max); closing").count() > READERS / 2).then_some(events)
    });
    let most = broker.peak_kib();
    say(&format!(
        "{READERS} readers that take nothing of 12 MiB each, outboxes_bytes_max 32 MiB: {} dropped; \
         idle {idle} KiB, at most {most} KiB",
        told.matches("link_closed").count()
    ));
    // One more answer is being received, and one passed the limit.
    assert!(most < idle + (32 + 12 + 12 + 16) * 1024, "idle {idle} KiB, at most {most} KiB");
    drop(readers);
    assert_eq!(broker.end(), 0);
}

#[test]
fn an_operator_that_reads_none_of_its_lists_is_dropped_and_others_are_heard() {
    let broker = Broker::start(&["--set", "stall_ms=500", "--log", "error"]);
    broker.remember_events();
    let idle = broker.rss_kib();
    let mut deaf = Wire::login(&broker.port("client"), "op");
    let events = std::thread::scope(|scope| {
        scope.spawn(|| {
            for sequence in 1..=6000 {
                let frame = Frame::data(wire::request(sequence), "settings".into());
                if deaf.write(&encode::to_bytes(frame)).is_err() {
                    break;
                }
            }
        });
        await_that("the drop", || {
            let events = broker.op("listevents 100");
            events.contains("link_closed").then_some(events)
        })
    });
    assert!(events.contains("stall_ms") || events.contains("outbox is full"), "{events}");
    let most = broker.peak_kib();
    say(&format!("an operator that reads nothing: idle {idle} KiB, at most {most} KiB"));
    assert!(most < idle + 16 * 1024, "idle {idle} KiB, at most {most} KiB");
    drop(deaf);
    assert_eq!(broker.end(), 0);
}
