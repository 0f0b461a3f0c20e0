//! A proxy between real programs that does to their bytes what networks do: it delays, splits,
//! slows, stalls them, drops all of them silently, or closes the connection. It never repeats,
//! reorders or invents a byte. One thread serves all connections and records each incident.

use super::clock::Clock;
use forwarder::Forwarder;
use std::collections::VecDeque;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

pub use pipe::Impairment;

mod forwarder;
mod pipe;

/// How a connection is closed by the proxy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseBy {
    /// As if the other program had closed it.
    Fin,
    /// As if the other machine did not know it any more.
    Rst,
}

/// What is done to a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ConnFault {
    /// It is closed, at both ends.
    Close(CloseBy),
    /// The connection is half-open from now on: bytes are dropped, nothing is closed.
    HalfOpen,
    /// One direction (`true` = from the side that connected) stands still; `None` = for ever.
    Stall(bool, Option<Duration>),
    /// Both directions get this impairment from now on.
    Impair(Impairment),
}

/// What was done to a connection, and when (microseconds of the run).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Incident {
    /// The port of the side that connected.
    pub port: u16,
    /// Kind of the incident.
    pub kind: Kind,
    /// Start, in microseconds of the run.
    pub from: u64,
    /// End, in microseconds of the run; `u64::MAX` while it lasts.
    pub until: u64,
}

/// Kinds of incidents.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Kind {
    /// Closed by the proxy, in order.
    Closed,
    /// Reset by the proxy.
    Reset,
    /// Half-open: each side takes the connection for whole.
    HalfOpen,
    /// One direction stood still for a while.
    Stalled,
    /// One direction stood still for ever.
    StalledForEver,
    /// Each byte came later.
    Delayed,
    /// Bytes came one by one, or a few at a time.
    Split,
    /// Fewer bytes a second.
    Throttled,
}

impl Kind {
    /// For the report.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Closed => "closed (FIN)",
            Self::Reset => "reset (RST)",
            Self::HalfOpen => "half-open",
            Self::Stalled => "stalled",
            Self::StalledForEver => "stalled for ever",
            Self::Delayed => "delayed",
            Self::Split => "split",
            Self::Throttled => "throttled",
        }
    }
}

enum Order {
    Inject(u64, ConnFault),
    Heal,
    Stop,
}

#[derive(Default)]
struct Shared {
    orders: Mutex<VecDeque<Order>>,
    incidents: Mutex<Vec<Incident>>,
    /// Who came, and the target if it answered, and the port of who came.
    met: Mutex<Vec<(TcpStream, Option<TcpStream>, u16)>>,
    /// From when until when a turn of its thread lasted long: then all of them stood still.
    stood: Mutex<Vec<(u64, u64)>>,
    /// Of a thousand new connections so many are impaired.
    impaired_permille: AtomicU64,
    live: AtomicU64,
}

/// A proxy in front of one TCP address.
pub struct Proxy {
    /// The proxy's own address, to be used in place of the target's.
    pub address: SocketAddr,
    shared: Arc<Shared>,
    wake: UnixStream,
    thread: Option<JoinHandle<()>>,
}

impl std::fmt::Debug for Proxy {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Proxy").field("address", &self.address).finish_non_exhaustive()
    }
}

impl Proxy {
    /// Listens on a port of the kernel's choice and passes on to `target`, unimpaired.
    ///
    /// # Panics
    /// If it can't.
    #[expect(clippy::disallowed_methods, reason = "the proxy is a thread of the tests")]
    pub fn start(target: SocketAddr, clock: Clock, seed: u64) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("non-blocking");
        let address = listener.local_addr().expect("an address");
        let (wake, woken) = UnixStream::pair().expect("a pair");
        woken.set_nonblocking(true).expect("non-blocking");
        let shared = Arc::new(Shared::default());
        let both = (wake.try_clone().expect("a descriptor"), woken);
        let forwarder = Forwarder::new(listener, target, both, Arc::clone(&shared), (clock, seed));
        let thread = std::thread::spawn(move || forwarder.run());
        Self { address, shared, wake, thread: Some(thread) }
    }

    /// Of a thousand new connections so many are impaired at random; 0 = none.
    pub fn set_impaired(&self, permille: u64) {
        self.shared.impaired_permille.store(permille, Ordering::Relaxed);
    }

    /// Does this to one of the connections there are; `pick` chooses which.
    pub fn inject(&self, pick: u64, fault: ConnFault) {
        self.order(Order::Inject(pick, fault));
    }

    /// No impairment any more; what stands still for ever or is half-open is reset.
    pub fn heal(&self) {
        self.order(Order::Heal);
    }

    /// How many connections there are.
    pub fn live(&self) -> u64 {
        self.shared.live.load(Ordering::Relaxed)
    }

    /// What was done so far.
    pub fn incidents(&self) -> Vec<Incident> {
        self.shared.incidents.lock().expect("no panic").clone()
    }

    /// From when until when all its connections stood still, whatever the cause.
    ///
    /// # Panics
    /// If its thread did.
    pub fn stood(&self) -> Vec<(u64, u64)> {
        self.shared.stood.lock().expect("no panic").clone()
    }

    fn order(&self, order: Order) {
        self.shared.orders.lock().expect("no panic").push_back(order);
        // It wakes up by itself as well.
        let _ = (&self.wake).write(&[1]);
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.order(Order::Stop);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}
