//! The load generator: all clients in one thread, each on its own connection, one read per
//! readiness, writes at the end of the turn. The closed loop keeps `depth` requests in flight per
//! client. The open loop sends at a fixed rate and measures each request from its scheduled time,
//! so that a slow reply does not hide the requests that could not be sent meanwhile. Every reply is
//! compared with its request.

mod client;
mod drive;
pub(crate) mod schedule;

use crate::clock;
use crate::protocols::ClientProtocol;
use crate::shape::Shape;
use crate::sock::{Endpoint, SCRATCH_BYTES, connect, register};
use crate::stop::Stop;
use client::LoadClient;
use hdrhistogram::Histogram;
use mio::{Events, Poll, Token};
use schedule::Schedule;
use std::time::{Duration, Instant};

/// Clients that connect at the same time; more would overflow a listener's backlog.
const CONNECTING_MAX: usize = 64;
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// How long the last replies may take.
const DRAIN_LIMIT: Duration = Duration::from_secs(40);
/// Longest latency that the histogram holds, in nanoseconds.
const LATENCY_MAX: u64 = 120_000_000_000;

/// The parameters of one measured run.
#[derive(Clone, Debug)]
pub struct Plan {
    /// Clients, payload and depth of the load.
    pub shape: Shape,
    /// Requests per second of all clients together; `None` = closed loop.
    pub rate: Option<u64>,
    /// Time before measuring begins.
    pub warm: Duration,
    /// Time that is measured.
    pub span: Duration,
}

/// The result of one measured run.
#[derive(Clone, Debug)]
pub struct Tally {
    /// Replies that arrived within `span`.
    pub replies: u64,
    /// Measured time, without the warm-up.
    pub span: Duration,
    /// Open loop: requests due in this time that were not sent, because too many were in flight. If
    /// there are many, the peer is slower than the rate and the latencies look too good.
    pub unsent: u64,
    /// Latencies in nanoseconds: from the request to its reply; in the open loop, from the time the
    /// request was due.
    pub latency: Histogram<u64>,
}

impl Tally {
    /// Whether the rate was more than the peer, or this machine, could do. A few that wait at the
    /// very end are a moment's queue.
    pub fn is_behind(&self) -> bool {
        self.unsent * 100 > self.replies
    }
}

/// Connected clients.
pub struct Load {
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    clients: Vec<LoadClient>,
    ready: usize,
    dirty: Vec<usize>,
    plan: Plan,
    /// Closed loop: whether a reply is followed by the next request.
    is_asking: bool,
    schedule: Option<Schedule>,
    /// Requests of the open loop that are not sent yet because too many are under way.
    unsent: usize,
    under_way: usize,
    tally: Tally,
    is_measuring: bool,
}

impl Load {
    /// Connects all clients of the plan, the idle ones too.
    ///
    /// # Errors
    /// The peer or the system refuses something, or it takes too long.
    pub fn connect(
        endpoint: &Endpoint,
        plan: Plan,
        new_client: &dyn Fn() -> Box<dyn ClientProtocol>,
        stop: &Stop,
    ) -> Result<Self, String> {
        let latency = Histogram::new_with_bounds(1, LATENCY_MAX, 3).map_err(|e| e.to_string())?;
        let schedule = plan.rate.map(Schedule::new).transpose()?;
        let mut load = Self {
            poll: Poll::new().map_err(|e| e.to_string())?,
            events: Events::with_capacity(1024),
            scratch: vec![0; SCRATCH_BYTES],
            clients: Vec::new(),
            ready: 0,
            dirty: Vec::new(),
            is_asking: false,
            schedule,
            unsent: 0,
            under_way: 0,
            tally: Tally { replies: 0, span: plan.span, unsent: 0, latency },
            is_measuring: false,
            plan,
        };
        if let Some(schedule) = &load.schedule {
            schedule.register(load.poll.registry())?;
        }
        let count = load.plan.shape.clients + load.plan.shape.idle;
        let end = clock::now() + CONNECT_LIMIT;
        while load.ready < count {
            while load.clients.len() < count && load.clients.len() - load.ready < CONNECTING_MAX {
                load.add(endpoint, new_client())?;
            }
            if clock::now() > end {
                return Err(format!(
                    "{} of {count} clients are connected after {} s",
                    load.ready,
                    CONNECT_LIMIT.as_secs()
                ));
            }
            stop.check()?;
            load.turn(Some(Duration::from_millis(200)))?;
        }
        Ok(load)
    }

    fn add(
        &mut self,
        endpoint: &Endpoint,
        protocol: Box<dyn ClientProtocol>,
    ) -> Result<(), String> {
        let token = Token(self.clients.len());
        let stream = connect(endpoint).map_err(|e| format!("{endpoint}: {e}"))?;
        register(&stream, self.poll.registry(), token).map_err(|e| format!("epoll: {e}"))?;
        let mut client = LoadClient::new(stream, protocol, token.0 as u32);
        client.is_ready = client.protocol.hello(&mut client.stream.out);
        client.stream.flush(self.poll.registry(), token)?;
        self.ready += usize::from(client.is_ready);
        self.clients.push(client);
        Ok(())
    }

    /// The end of the time measured, from the moment at which it begins.
    fn end_of(&self, begun: Instant) -> Instant {
        begun + self.plan.span
    }
}
