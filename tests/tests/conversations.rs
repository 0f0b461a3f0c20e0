//! Conversations without a deadline in thousands: they do not wake the engine, and end part by part
//! when their worker is gone, stopped, or their client leaves.

use broker::engine::action::Action;
use broker::engine::input::{Close, Input, Peer};
use broker::engine::origin::Origin;
use broker::engine::{Engine, EngineOptions};
use bytes::Bytes;
use protocol::bodies::{Login, WorkerLogin};
use protocol::errors::ErrorCode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{LinkId, WorkerId};
use protocol::names::{HostName, ServiceName};
use protocol::time::Tick;

const CLIENT: LinkId = LinkId { index: 1, generation: 0 };
const OPERATOR: LinkId = LinkId { index: 2, generation: 0 };
const WORKER: LinkId = LinkId { index: 3, generation: 0 };
const MANY: u32 = 10_000;

struct Lock {
    engine: Engine,
    now: u64,
}

impl Lock {
    /// A client has so many conversations with one worker.
    fn with(count: u32) -> Self {
        let mut lock = Self { engine: Engine::new(EngineOptions::default()), now: 0 };
        let text = "config service lock selfstart=1 open_ended=1\n".to_owned();
        lock.step(Input::Script { origin: Origin::Broker, text });
        lock.step(Input::Started);
        let peer = || Peer { is_owner: true, ..Peer::default() };
        for (link, name) in [(CLIENT, "lock"), (OPERATOR, "op")] {
            lock.step(Input::ClientOpened { link, peer: peer() });
            let service = ServiceName::new(name).expect("a name");
            let login = Box::new(Login { heartbeat: true, ..Login::to(service) });
            lock.step(Input::Login { link, login });
        }
        lock.step(Input::WorkerOpened { link: WORKER, peer: peer() });
        let login = WorkerLogin {
            worker: WorkerId(0),
            service: ServiceName::new("lock").expect("a name"),
            host: HostName::new("desk").expect("a name"),
            hostpid: 7,
            secret: String::new(),
            concurrency: 1,
            cancel: true,
            token: None,
        };
        lock.step(Input::WorkerLogin { link: WORKER, login: Box::new(login), proof: None });
        for sequence in 1..=count {
            let head = Header { sequence, reply: 1, len: 1, ..Header::default() };
            let body = Bytes::from_static(b"x");
            let given = lock.step(Input::Request { link: CLIENT, head, body });
            let transaction = given.iter().find_map(|action| match action {
                Action::Send { link: WORKER, frame: Frame::Data { head, .. } } => {
                    Some(head.transaction)
                }
                _ => None,
            });
            let transaction = transaction.expect("the worker is idle, and gets it");
            let head = Header { transaction, more: 1, ..Header::default() };
            lock.step(Input::Reply { link: WORKER, head, body: Bytes::new() });
        }
        lock.engine.check_all().expect("the laws hold");
        lock
    }

    fn step(&mut self, input: Input) -> Vec<Action> {
        let mut out = Vec::new();
        self.engine.step(Tick(self.now), input, &mut out);
        out
    }

    /// Lets the engine work on; how many got this error in each step.
    fn errors(&mut self, first: Vec<Action>, code: ErrorCode) -> Vec<usize> {
        let count = |out: &[Action]| {
            let is_it = |action: &&Action| {
                matches!(action, Action::Send { link: CLIENT, frame: Frame::Error { error, .. } }
                    if error.code == code)
            };
            out.iter().filter(is_it).count()
        };
        let mut all = vec![count(&first)];
        while self.engine.is_working() {
            self.now += 1;
            let out = self.step(Input::Deadline);
            all.push(count(&out));
        }
        self.engine.check_all().expect("the laws hold");
        all
    }
}

fn assert_in_parts(parts: &[usize]) {
    assert_eq!(parts.iter().sum::<usize>(), MANY as usize, "each gets its error: {parts:?}");
    assert!(parts.iter().all(|&part| part <= 512), "part by part: {parts:?}");
}

#[test]
fn they_wake_the_engine_for_nothing() {
    let mut lock = Lock::with(MANY);
    let alone = Lock::with(0);
    assert_eq!(lock.engine.next_deadline(), alone.engine.next_deadline(), "the heartbeat");
    lock.now = 3_600_000_000;
    let pings = lock.step(Input::Deadline);
    assert!(pings.len() < 10, "an hour later only pings are due: {pings:?}");
}

#[test]
fn those_of_a_worker_that_is_gone_end_in_parts() {
    let mut lock = Lock::with(MANY);
    let first = lock.step(Input::Closed { link: WORKER, how: Close::Reset });
    assert_in_parts(&lock.errors(first, ErrorCode::WorkerDied));
}

#[test]
fn those_of_a_service_that_is_stopped_end_in_parts() {
    let mut lock = Lock::with(MANY);
    let head = Header { sequence: 1, reply: 1, len: 9, ..Header::default() };
    let body = Bytes::from_static(b"stop lock");
    let first = lock.step(Input::Request { link: OPERATOR, head, body });
    assert_in_parts(&lock.errors(first, ErrorCode::ConversationEnded));
}

#[test]
fn one_that_is_given_up_while_the_others_end_has_one_outcome() {
    let mut lock = Lock::with(MANY);
    let first = lock.step(Input::Closed { link: WORKER, how: Close::Reset });
    let given_up = lock.step(Input::Cancel { link: CLIENT, sequence: MANY });
    let codes: Vec<ErrorCode> = given_up
        .iter()
        .filter_map(|action| match action {
            Action::Send { link: CLIENT, frame: Frame::Error { error, .. } } => Some(error.code),
            _ => None,
        })
        .collect();
    assert_eq!(codes, [ErrorCode::Cancelled]);
    let parts = lock.errors(first, ErrorCode::WorkerDied);
    assert_eq!(parts.iter().sum::<usize>(), MANY as usize - 1);
}

#[test]
fn a_client_that_is_gone_leaves_nothing_behind() {
    let mut lock = Lock::with(MANY);
    let out = lock.step(Input::Closed { link: CLIENT, how: Close::Eof });
    let cancels = out.iter().filter(|action| {
        matches!(action, Action::Send { link: WORKER, frame: Frame::Cancel { .. } })
    });
    assert_eq!(cancels.count(), MANY as usize, "the worker is told of each");
    lock.engine.check_all().expect("the laws hold");
}
