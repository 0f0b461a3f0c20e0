//! Clients and workers that leave in order lose nothing, on real sockets: a worker that logs out
//! while a request is on its way to it, requests that want no reply and a client that is gone at
//! once, a client that shuts its side and still gets its answers.

use isect_tests::proc::Broker;
use isect_tests::wire::{Wire, login, request, worker_login};
use protocol::bodies::{Login, Logout, WorkerLogin};
use protocol::errors::{ErrorCode, Ran};
use protocol::frame::Frame;
use protocol::header::Header;
use std::thread::JoinHandle;

fn reply(head: &Header, body: bytes::Bytes) -> Frame {
    Frame::data(Header { transaction: head.transaction, ..Header::default() }, body)
}

/// A worker that answers `each` requests a connection, then logs out, as the least program would:
/// it says nothing more, and closes when the broker's `end` has come. It connects again until
/// `total` requests are answered by it and `others`.
fn quits_after(address: String, each: usize, answered: std::sync::Arc<Count>) -> JoinHandle<()> {
    let work = move || {
        while !answered.is_done() {
            let mut wire = Wire::connect(&address);
            wire.send(Frame::WorkerLogin(worker_login("echo")));
            let mut count = 0;
            while let Some(frame) = wire.next_frame() {
                match frame {
                    Frame::Data { head, body } if count < each => {
                        count += 1;
                        wire.send(reply(&head, body));
                        answered.one_more();
                        if count == each || answered.is_done() {
                            wire.send(Frame::Logout(Logout::default()));
                            count = each;
                        }
                    }
                    // It crossed the logout, and is not begun.
                    Frame::Data { .. } | Frame::WorkerLoginOk(_) => {}
                    Frame::End => break,
                    other => panic!("a worker got {other:?}"),
                }
            }
        }
    };
    std::thread::Builder::new().name("worker".to_owned()).spawn(work).expect("a thread")
}

/// Counts up to a number.
struct Count {
    left: std::sync::atomic::AtomicUsize,
}

impl Count {
    fn of(count: usize) -> std::sync::Arc<Self> {
        std::sync::Arc::new(Self { left: count.into() })
    }

    fn one_more(&self) {
        self.left.fetch_sub(1, std::sync::atomic::Ordering::SeqCst);
    }

    fn is_done(&self) -> bool {
        self.left.load(std::sync::atomic::Ordering::SeqCst) == 0
    }
}

#[test]
fn what_crosses_the_logout_of_an_idle_worker_is_answered_by_another() {
    const REQUESTS: u32 = 600;
    let broker = Broker::start(&[]);
    broker.op("config service echo selfstart=1");
    let answered = Count::of(REQUESTS as usize);
    // One that is paused keeps the requests waiting while all the others are away.
    let _paused = Wire::worker_login(&broker.port("worker"), "echo");
    broker.op("pause 1");
    let workers: Vec<_> =
        (0..4).map(|_| quits_after(broker.port("worker"), 5, answered.clone())).collect();
    let mut client = Wire::login(&broker.port("client"), "echo");
    for sequence in 1..=REQUESTS {
        client.ask(sequence, "hi");
    }
    for _ in 0..REQUESTS {
        match client.next_frame() {
            Some(Frame::Data { head, body }) => {
                assert_eq!((head.error, &body[..]), (0, &b"hi"[..]))
            }
            other => panic!("not an answer: {other:?}"),
        }
    }
    // Those that wait for a request are told to end.
    broker.op("stop echo");
    for worker in workers {
        worker.join().expect("a worker");
    }
    assert_eq!(broker.end(), 0);
}

#[test]
fn twenty_requests_without_reply_and_a_logout_at_once_all_run() {
    let broker = Broker::start(&[]);
    broker.op("config service echo selfstart=1");
    let mut worker = Wire::worker_login(&broker.port("worker"), "echo");
    let mut client = Wire::login(&broker.port("client"), "echo");
    for sequence in 1..=20 {
        let head = Header { reply: 0, ..request(sequence) };
        client.send(Frame::data(head, format!("{sequence}").into()));
    }
    client.send(Frame::Logout(Logout::default()));
    drop(client);
    for sequence in 1..=20 {
        match worker.next_frame() {
            Some(Frame::Data { head, body }) => {
                assert_eq!(body, format!("{sequence}"));
                worker.send(reply(&head, body));
            }
            other => panic!("request {sequence} did not come: {other:?}"),
        }
    }
    drop(worker);
    assert_eq!(broker.end(), 0);
}

#[test]
fn flush_says_when_all_were_taken_and_how_many_were_refused() {
    let broker = Broker::start(&[]);
    broker.op("config service echo selfstart=1 queue_max=2");
    let mut worker = Wire::worker_login(&broker.port("worker"), "echo");
    let mut client = Wire::login(&broker.port("client"), "echo");
    for sequence in 1..=5 {
        client.send(Frame::data(Header { reply: 0, ..request(sequence) }, "x".into()));
    }
    client.send(Frame::Flush { sequence: 77 });
    for left in (0..3).rev() {
        let Some(Frame::Data { head, body }) = worker.next_frame() else { panic!("a request") };
        if left > 0 {
            worker.send(reply(&head, body));
        }
    }
    let Some(Frame::Flushed(flushed)) = client.next_frame() else { panic!("flushed") };
    assert_eq!((flushed.flush, flushed.refused), (77, 2));
    drop(worker);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_client_that_shuts_its_side_gets_all_its_answers() {
    let broker = Broker::start(&[]);
    broker.op("config service echo selfstart=1");
    let mut worker = Wire::connect(&broker.port("worker"));
    let concurrency = WorkerLogin { concurrency: 8, ..worker_login("echo") };
    worker.send(Frame::WorkerLogin(concurrency));
    let mut client = Wire::connect(&broker.port("client"));
    client.send(Frame::Login(Login { half_close: true, ..login("echo") }));
    assert!(matches!(client.next_frame(), Some(Frame::LoginOk(_))));
    for sequence in 1..=200 {
        client.ask(sequence, "hi");
    }
    client.shut();
    for _ in 0..200 {
        loop {
            match worker.next_frame() {
                Some(Frame::Data { head, body }) => {
                    worker.send(reply(&head, body));
                    break;
                }
                Some(Frame::WorkerLoginOk(ok)) => assert_eq!(ok.concurrency, 8),
                other => panic!("a worker got {other:?}"),
            }
        }
    }
    let mut answers = 0;
    while let Some(frame) = client.next_frame() {
        assert!(matches!(frame, Frame::Data { .. }), "{frame:?}");
        answers += 1;
    }
    assert_eq!(answers, 200, "and then the broker closes");
    drop(worker);
    assert_eq!(broker.end(), 0);
}

#[test]
fn what_came_whole_before_half_a_frame_and_the_end_is_answered() {
    let broker = Broker::start(&["--set", "frame_ms=100"]);
    broker.op("config service echo selfstart=1");
    let mut worker = Wire::worker_login(&broker.port("worker"), "echo");
    let mut client = Wire::connect(&broker.port("client"));
    client.send(Frame::Login(Login { half_close: true, ..login("echo") }));
    assert!(matches!(client.next_frame(), Some(Frame::LoginOk(_))));
    (1..=3).for_each(|sequence| client.ask(sequence, "hi"));
    client.write(&[0; 10]).expect("half a header");
    client.shut();
    let begun = isect_tests::figures::now();
    for sequence in 1..=3 {
        let Some(Frame::Data { head, body }) = worker.next_frame() else { panic!("a request") };
        // Longer than a frame that has begun may take.
        isect_tests::proc::await_that("half a second", || {
            (begun.elapsed().as_millis() > 170 * sequence).then_some(())
        });
        worker.send(reply(&head, body));
        assert_eq!(client.answer(sequence as u32), "hi");
    }
    client.await_close();
    drop(worker);
    assert_eq!(broker.end(), 0);
}

#[test]
fn a_request_that_is_given_up_says_whether_it_may_have_run_and_its_worker_is_told() {
    let broker = Broker::start(&[]);
    broker.op("config service echo selfstart=1");
    let mut worker = Wire::connect(&broker.port("worker"));
    worker.send(Frame::WorkerLogin(WorkerLogin { cancel: true, ..worker_login("echo") }));
    assert!(matches!(worker.next_frame(), Some(Frame::WorkerLoginOk(_))));
    let mut client = Wire::login(&broker.port("client"), "echo");
    client.ask(1, "runs");
    let Some(Frame::Data { head: running, .. }) = worker.next_frame() else { panic!("a request") };
    client.ask(2, "waits");
    for (sequence, ran) in [(2, Ran::No), (1, Ran::Maybe)] {
        let head = Header { sequence, ..Header::default() };
        client.send(Frame::Cancel { head, text: String::new() });
        let Some(Frame::Error { head, error }) = client.next_frame() else { panic!("an error") };
        let said = (head.sequence, error.code, error.ran);
        assert_eq!(said, (sequence, ErrorCode::Cancelled, ran));
    }
    let Some(Frame::Cancel { head, .. }) = worker.next_frame() else { panic!("a cancel") };
    let told = (head.transaction, head.error);
    assert_eq!(told, (running.transaction, ErrorCode::Cancelled.number()));
    worker.send(reply(&running, "late".into()));
    client.ask(3, "next");
    let Some(Frame::Data { head, body }) = worker.next_frame() else { panic!("a request") };
    worker.send(reply(&head, body));
    assert_eq!(client.answer(3), "next");
    drop(worker);
    assert_eq!(broker.end(), 0);
}
