//! Single steps of the broker, repeated without sockets. The micro bench times them, the allocation
//! bench counts their allocations, and callgrind counts their instructions for the budgets.

mod publish;

use broker::engine::action::Action;
use broker::engine::input::{Input, Listening, Peer};
use broker::engine::origin::Origin;
use broker::engine::{Engine, EngineOptions};
use bytes::Bytes;
use protocol::bodies::{Login, WorkerLogin};
use protocol::decode::{self, Limits};
use protocol::encode;
use protocol::frame::Frame;
use protocol::header::Header;
use protocol::ids::{LinkId, WorkerId};
use protocol::limits::{BUS_SERVICE, HEADER_BYTES};
use protocol::names::{HostName, ServiceName};
use protocol::time::Tick;
use publish::Publish;

/// The body of every request.
static BODY: [u8; 64] = [7; 64];
/// Time that passes between two steps, in microseconds.
const STEP_MICROS: u64 = 20;

/// One row of the table.
#[derive(Clone, Copy, Debug)]
pub struct StepRow {
    /// Its name in `budgets.toml`.
    pub name: &'static str,
    /// Description of one repetition, for tables.
    pub text: &'static str,
    /// Heap allocations allowed in 1,000 repetitions. Not 0: the heartbeat, once a second of the
    /// engine's time, makes its lists.
    pub allocations_max: u64,
    make: fn() -> Result<Box<dyn Step>, String>,
}

/// TABLE of steps.
pub const STEPS: &[StepRow] = &[
    StepRow {
        name: "codec",
        text: "a data frame of 64 bytes: header checked and read, frame made, header written",
        allocations_max: 1,
        make: || Ok(Box::new(Codec::new())),
    },
    StepRow {
        name: "engine",
        text: "request, dispatch, reply; 1 client, 4 workers",
        allocations_max: 1,
        make: || Beat::make(1, 4, 0),
    },
    StepRow {
        name: "engine-1000-workers",
        text: "the same with 1,000 idle workers",
        allocations_max: 1,
        make: || Beat::make(1, 1000, 0),
    },
    StepRow {
        name: "engine-100-services",
        text: "the same with 100 other services",
        allocations_max: 1,
        make: || Beat::beside(100),
    },
    StepRow {
        name: "engine-10000-clients",
        text: "the same with 10,000 clients that take turns",
        allocations_max: 1,
        make: || Beat::make(10_000, 4, 0),
    },
    StepRow {
        name: "engine-10000-queued",
        text: "the same with 10,000 requests in the queue and their deadlines in the wheel",
        allocations_max: 1,
        make: || Beat::make(16, 4, 10_000),
    },
    StepRow {
        name: "engine-10000-parked",
        text: "the same with 10,000 conversations without a deadline in another service",
        allocations_max: 1,
        make: || Beat::beside_parked(10_000),
    },
    StepRow {
        name: "engine-concurrency",
        text: "the same with 4 workers that take 8 at a time, 16 of which they have",
        allocations_max: 1,
        make: || Beat::concurrent(4, 8, 16),
    },
    StepRow {
        name: "publish",
        text: "a message of 64 bytes to one subscriber",
        // Two: it is copied, because it is kept for those who come back, and then shared.
        allocations_max: 2001,
        make: || Publish::make(1),
    },
    StepRow {
        name: "publish-1000",
        text: "one delivery of a message to 1,000 subscribers",
        allocations_max: 3,
        make: || Publish::make(1000),
    },
];

/// Something that can be repeated.
pub trait Step {
    /// Once.
    ///
    /// # Errors
    /// It did not do what it should; then its figure means nothing.
    fn once(&mut self) -> Result<(), String>;
}

impl StepRow {
    /// Everything that stands before the first repetition.
    ///
    /// # Errors
    /// The engine refuses something.
    pub fn prepare(&self) -> Result<Box<dyn Step>, String> {
        (self.make)()
    }
}

/// The step of this name.
///
/// # Errors
/// There is none.
pub fn named(name: &str) -> Result<&'static StepRow, String> {
    STEPS.iter().find(|row| row.name == name).ok_or_else(|| format!("there is no step '{name}'"))
}

/// Repeats a step.
///
/// # Errors
/// It failed.
pub fn run(name: &str, count: u64) -> Result<(), String> {
    let mut step = named(name)?.prepare()?;
    (0..count).try_for_each(|_| step.once())
}

/// A frame read and written.
struct Codec {
    bytes: [u8; HEADER_BYTES],
    body: Bytes,
    sequence: u32,
}

impl Codec {
    fn new() -> Self {
        let head = Header { len: 64, reply: 1, ..Header::default() };
        Self { bytes: head.write(), body: Bytes::from_static(&BODY), sequence: 0 }
    }
}

impl Step for Codec {
    fn once(&mut self) -> Result<(), String> {
        self.sequence = self.sequence.wrapping_add(1);
        self.bytes[4..8].copy_from_slice(&self.sequence.to_be_bytes());
        let (kind, head) =
            decode::head(&self.bytes, Limits::new(1 << 20)).map_err(|error| error.to_string())?;
        let frame =
            decode::frame(kind, head, self.body.clone()).map_err(|error| error.to_string())?;
        let encoded = encode::encode(frame);
        if encoded.head == self.bytes { Ok(()) } else { Err("the frame changed".into()) }
    }
}

/// An engine with clients and workers of one service. One repetition is one more request, and the
/// reply to the oldest that a worker has.
struct Beat {
    engine: Engine,
    out: Vec<Action>,
    now: Tick,
    clients: Vec<LinkId>,
    turn: usize,
    sequence: u32,
    /// What workers have: link and transaction, oldest first.
    with_workers: std::collections::VecDeque<(LinkId, u64)>,
}

impl Beat {
    fn make(clients: u32, workers: u32, queued: u32) -> Result<Box<dyn Step>, String> {
        let mut beat = Self::idle();
        beat.staff(clients, workers)?;
        // Every worker is busy before anything waits.
        let under_way = if queued > 0 { queued + workers } else { 0 };
        for _ in 0..under_way {
            beat.ask();
        }
        beat.take_sent()?;
        Ok(Box::new(beat))
    }

    /// An engine with the service and nobody.
    fn idle() -> Self {
        let mut beat = Self {
            engine: Engine::new(EngineOptions::default()),
            out: Vec::new(),
            now: Tick(0),
            clients: Vec::new(),
            turn: 0,
            sequence: 0,
            with_workers: std::collections::VecDeque::new(),
        };
        beat.give(Input::Listening(Box::new(Listening {
            client_port: 5501,
            worker_port: 1,
            descriptors_max: 1 << 20,
            ..Listening::default()
        })));
        let text = "config service echo selfstart=1 queue_max=1000000".to_owned();
        beat.give(Input::Script { origin: Origin::File("bench".into()), text });
        beat.give(Input::Started);
        beat
    }

    fn staff(&mut self, clients: u32, workers: u32) -> Result<(), String> {
        for index in 0..workers {
            self.hire(LinkId { index, generation: 0 }, "echo", 1)?;
        }
        for index in workers..workers + clients {
            self.attach(LinkId { index, generation: 0 }, "echo")?;
            self.clients.push(LinkId { index, generation: 0 });
        }
        Ok(())
    }

    /// One client and four workers beside so many other services, each with a worker.
    fn beside(services: u32) -> Result<Box<dyn Step>, String> {
        let mut beat = Self::idle();
        for index in 0..services {
            let text = format!("config service beside{index} selfstart=1");
            beat.give(Input::Script { origin: Origin::File("bench".into()), text });
            beat.hire(LinkId { index: 100 + index, generation: 0 }, &format!("beside{index}"), 1)?;
        }
        beat.staff(1, 4)?;
        Ok(Box::new(beat))
    }

    /// One client and four workers, while so many conversations go on in another service.
    fn beside_parked(count: u32) -> Result<Box<dyn Step>, String> {
        let (worker, client) =
            (LinkId { index: 100, generation: 0 }, LinkId { index: 101, generation: 0 });
        let mut beat = Self::idle();
        let text = "config service lock selfstart=1 open_ended=1".to_owned();
        beat.give(Input::Script { origin: Origin::File("bench".into()), text });
        beat.hire(worker, "lock", 1)?;
        beat.attach(client, "lock")?;
        for sequence in 1..=count {
            let head = Header { len: 64, sequence, reply: 1, ..Header::default() };
            let body = || Bytes::from_static(&BODY);
            beat.give(Input::Request { link: client, head, body: body() });
            beat.take_sent()?;
            let (_, transaction) = beat.with_workers.pop_front().ok_or("no worker has it")?;
            let head = Header { len: 64, transaction, more: 1, ..Header::default() };
            beat.give(Input::Reply { link: worker, head, body: body() });
            beat.out.clear();
        }
        beat.staff(1, 4)?;
        Ok(Box::new(beat))
    }

    /// Workers that take several requests at a time, and have so many.
    fn concurrent(workers: u32, each: u32, under_way: u32) -> Result<Box<dyn Step>, String> {
        let mut beat = Self::idle();
        for index in 0..workers {
            beat.hire(LinkId { index, generation: 0 }, "echo", each)?;
        }
        for index in workers..workers + 4 {
            beat.attach(LinkId { index, generation: 0 }, "echo")?;
            beat.clients.push(LinkId { index, generation: 0 });
        }
        (0..under_way).for_each(|_| beat.ask());
        beat.take_sent()?;
        Ok(Box::new(beat))
    }

    fn give(&mut self, input: Input) {
        self.engine.step(self.now, input, &mut self.out);
    }

    fn hire(&mut self, link: LinkId, service: &str, concurrency: u32) -> Result<(), String> {
        let login = WorkerLogin {
            worker: WorkerId(0),
            service: ServiceName::new(service).map_err(|e| e.to_string())?,
            host: HostName::new("localhost").map_err(|e| e.to_string())?,
            hostpid: 1,
            secret: String::new(),
            concurrency,
            cancel: false,
            token: None,
        };
        self.give(Input::WorkerOpened { link, peer: Peer::default() });
        self.give(Input::WorkerLogin { link, login: Box::new(login), proof: None });
        self.welcomed("worker-login-ok", |frame| matches!(frame, Frame::WorkerLoginOk(_)))
    }

    fn attach(&mut self, link: LinkId, service: &str) -> Result<(), String> {
        let service = ServiceName::new(service).map_err(|e| e.to_string())?;
        self.give(Input::ClientOpened { link, peer: Peer::default() });
        // Whoever has conversations without a deadline promises to answer pings. Subscribers need
        // not, and would be taken for gone here, because they say nothing.
        let heartbeat = !matches!(service.as_str(), "echo" | BUS_SERVICE);
        let login = Login { heartbeat, ..Login::to(service) };
        self.give(Input::Login { link, login: Box::new(login) });
        self.welcomed("login-ok", |frame| matches!(frame, Frame::LoginOk(_)))
    }

    fn welcomed(&mut self, what: &str, is_it: impl Fn(&Frame) -> bool) -> Result<(), String> {
        let found = self
            .out
            .iter()
            .any(|action| matches!(action, Action::Send { frame, .. } if is_it(frame)));
        self.out.clear();
        if found { Ok(()) } else { Err(format!("the engine sent no {what}")) }
    }

    fn ask(&mut self) {
        self.turn = (self.turn + 1) % self.clients.len();
        self.sequence = self.sequence.wrapping_add(1);
        let head = Header { len: 64, sequence: self.sequence, reply: 1, ..Header::default() };
        let link = self.clients[self.turn];
        self.give(Input::Request { link, head, body: Bytes::from_static(&BODY) });
    }

    /// Remembers what went to workers; how many frames there were in all.
    fn take_sent(&mut self) -> Result<usize, String> {
        let mut count = 0;
        for action in self.out.drain(..) {
            match action {
                Action::Send { link, frame: Frame::Data { head, .. } } => {
                    count += 1;
                    if head.attempt > 0 {
                        self.with_workers.push_back((link, head.transaction));
                    }
                }
                other => return Err(format!("the engine did {other:?}")),
            }
        }
        Ok(count)
    }
}

impl Step for Beat {
    fn once(&mut self) -> Result<(), String> {
        self.now = Tick(self.now.0 + STEP_MICROS);
        if self.engine.next_deadline().is_some_and(|due| due <= self.now) {
            self.give(Input::Deadline);
            // The heartbeat pings idle workers; they answer.
            for action in std::mem::take(&mut self.out) {
                if let Action::Send { link, frame: Frame::Ping { .. } } = action {
                    self.give(Input::Pong { link });
                }
            }
        }
        self.ask();
        let mut frames = self.take_sent()?;
        let (link, transaction) = self.with_workers.pop_front().ok_or("no worker has anything")?;
        let head = Header { len: 64, transaction, ..Header::default() };
        self.give(Input::Reply { link, head, body: Bytes::from_static(&BODY) });
        frames += self.take_sent()?;
        // One to a worker, one to a client.
        if frames == 2 { Ok(()) } else { Err(format!("{frames} frames instead of 2")) }
    }
}
