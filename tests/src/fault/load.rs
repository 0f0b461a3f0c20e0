//! The load of the fault run: its services, the kind and rate of requests, and the list that
//! collects the clients' histories. The clients are in `raw_client` and `library_client`.

use super::ask::{Act, Ask};
use super::checker::Rules;
use super::clock::Clock;
use super::conn::Endpoint;
use super::history::Asked;
use super::run_secrets::RunSecrets;
use crate::sim::rng::Rng;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};

/// A service of the fault run.
#[derive(Clone, Copy, Debug)]
pub struct Service {
    /// Name of the service.
    pub name: &'static str,
    /// Its settings, as in `config service`.
    pub settings: &'static str,
    /// Number of workers at the start.
    pub workers: usize,
    /// Whether they run on the far host, behind proxies.
    pub is_far: bool,
    /// Limits on repeated deliveries, for the checker.
    pub rules: Rules,
    /// Whether a request may hang: only where `kill_after_ms` ends it.
    pub may_hang: bool,
}

/// The deadline of a request that names none, milliseconds; every service is told.
pub const DEADLINE_MS: u64 = 5000;

/// The services: one as it comes, one that retries, one that looks ahead, one far away, and one
/// whose workers get stuck.
pub const SERVICES: [Service; 5] = [
    Service {
        name: "plain",
        settings: "",
        workers: 4,
        is_far: false,
        rules: Rules { retry: 0, retry_idempotent: 3 },
        may_hang: false,
    },
    Service {
        name: "again",
        settings: "retry=2 poison_deaths=3",
        workers: 3,
        is_far: false,
        rules: Rules { retry: 2, retry_idempotent: 3 },
        may_hang: false,
    },
    Service {
        name: "ahead",
        settings: "prefetch=8",
        workers: 2,
        is_far: false,
        rules: Rules { retry: 0, retry_idempotent: 3 },
        may_hang: false,
    },
    Service {
        name: "far",
        settings: "kill_after_ms=2500",
        workers: 3,
        is_far: true,
        rules: Rules { retry: 0, retry_idempotent: 3 },
        may_hang: true,
    },
    Service {
        name: "stuck",
        settings: "kill_after_ms=1500 retry=1",
        workers: 2,
        is_far: false,
        rules: Rules { retry: 1, retry_idempotent: 3 },
        may_hang: true,
    },
];

/// What all clients do at present; the run sets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Send requests.
    Ask,
    /// Send no new requests and wait for the open ones.
    Drain,
    /// Close the connections and end.
    Stop,
}

/// The state that all clients of a run share.
#[derive(Debug)]
pub struct Load {
    /// The run's clock.
    pub clock: Clock,
    /// Where to go in: each client takes any of them, again and again.
    pub endpoints: Vec<Endpoint>,
    /// Tokens and certificates, if the run goes with them.
    pub secrets: Option<Arc<RunSecrets>>,
    phase: AtomicU8,
    /// Clients that have nothing under way while the phase is `Drain`.
    pub drained: AtomicU64,
    /// All requests whose end is known.
    pub asked: Mutex<Vec<Asked>>,
    /// Answers to nothing that was asked on their connection.
    pub strays: Mutex<Vec<String>>,
    /// Logins that were let in, and those that were not.
    pub logins: [AtomicU64; 2],
    next_id: AtomicU64,
}

impl Load {
    /// For these endpoints.
    pub fn new(clock: Clock, endpoints: Vec<Endpoint>, secrets: Option<Arc<RunSecrets>>) -> Self {
        Self {
            clock,
            endpoints,
            secrets,
            phase: AtomicU8::new(1),
            drained: AtomicU64::new(0),
            asked: Mutex::new(Vec::new()),
            strays: Mutex::new(Vec::new()),
            logins: [AtomicU64::new(0), AtomicU64::new(0)],
            next_id: AtomicU64::new(1),
        }
    }

    /// The present phase; clients read it between two requests.
    pub fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            0 => Phase::Ask,
            1 => Phase::Drain,
            _ => Phase::Stop,
        }
    }

    /// Sets the phase of all clients.
    pub fn set_phase(&self, phase: Phase) {
        let number = match phase {
            Phase::Ask => 0,
            Phase::Drain => 1,
            Phase::Stop => 2,
        };
        self.phase.store(number, Ordering::Release);
    }

    /// The next request id, unique in the run.
    pub fn id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Writes requests down whose end is known.
    ///
    /// # Panics
    /// If another client did.
    pub fn keep(&self, asked: impl IntoIterator<Item = Asked>) {
        self.asked.lock().expect("no panic").extend(asked);
    }

    /// Writes down something that should not have come.
    ///
    /// # Panics
    /// If another client did.
    pub fn stray(&self, text: String) {
        self.strays.lock().expect("no panic").push(text);
    }
}

/// A request as it is to be sent.
#[derive(Clone, Debug)]
pub struct Plan {
    /// What the worker is to do.
    pub ask: Ask,
    /// The request has the idempotent flag.
    pub idempotent: bool,
    /// An answer is wanted.
    pub reply: bool,
    /// Milliseconds; 0 = the service's.
    pub deadline_ms: u32,
    /// Its frames: the bytes of each.
    pub pieces: Vec<Vec<u8>>,
}

impl Plan {
    /// Some request for a service.
    pub fn by(rng: &mut Rng, service: &Service, id: u64) -> Self {
        let act = match rng.below(1000) {
            0..3 => Act::Die,
            3..30 => Act::Fail,
            30..33 if service.may_hang => Act::Hang,
            33..34 => Act::Child,
            34..80 => Act::Talk,
            _ => Act::Answer,
        };
        let work_us = match rng.below(100) {
            0 => rng.between(100_000, 400_000),
            1..10 => rng.between(5_000, 30_000),
            _ => rng.between(0, 3_000),
        };
        let filling = if rng.hits(20) { rng.index(200_000) } else { rng.index(300) };
        let ask = Ask { id, work_us, act, filling };
        let count = match act {
            Act::Talk => rng.between(2, 4),
            _ if rng.hits(40) => rng.between(2, 6),
            _ => 1,
        };
        let mut pieces: Vec<Vec<u8>> = Vec::new();
        for at in 0..count {
            let mut piece = if at == 0 { ask.to_string().into_bytes() } else { Vec::new() };
            let size = match rng.below(1000) {
                0..3 => rng.index(2 << 20),
                3..30 => rng.index(100_000),
                _ => rng.index(400),
            };
            let byte = (rng.bits() & 0x7f) as u8;
            piece.resize(piece.len() + size, byte);
            pieces.push(piece);
        }
        let deadline_ms = match rng.below(10) {
            0 => 0,
            1 | 2 => rng.between(20, 500),
            _ => rng.between(500, 4000),
        };
        Self {
            ask,
            idempotent: rng.hits(400),
            reply: act == Act::Talk || !rng.hits(50),
            deadline_ms: u32::try_from(deadline_ms).unwrap_or(0),
            pieces,
        }
    }

    /// Time from sending to the deadline in microseconds; [`DEADLINE_MS`] if the request names
    /// none.
    pub fn deadline_us(&self) -> u64 {
        let millis = if self.deadline_ms == 0 { DEADLINE_MS } else { u64::from(self.deadline_ms) };
        millis * 1000
    }
}
