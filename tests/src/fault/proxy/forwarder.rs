//! The forwarder, the proxy's thread: accepts connections, forwards their bytes under the current
//! settings, and applies the ordered faults. `pipe` is one direction of a connection.

use super::pipe::{Impairment, Moved, Pipe};
use super::{CloseBy, ConnFault, Incident, Kind, Order, Shared};
use crate::fault::clock::Clock;
use crate::fault::watch::Waits;
use crate::sim::rng::Rng;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use std::collections::BTreeMap;
use std::io::{Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd as _;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

/// How long the target may take to answer.
const CONNECT_MAX: Duration = Duration::from_millis(500);
/// A turn that took longer, the wait for a CPU before it included, is written down, microseconds.
const STOOD_US: u64 = 20_000;

/// A connection: `near` connected, `far` is the target's.
struct Conn {
    near: TcpStream,
    far: TcpStream,
    /// Near to far.
    up: Pipe,
    /// Far to near.
    down: Pipe,
    port: u16,
    is_half_open: bool,
}

impl Conn {
    /// Bytes are dropped and no end is passed on, from now on.
    fn half_open(&mut self) {
        self.is_half_open = true;
        self.up.is_blackhole = true;
        self.down.is_blackhole = true;
    }

    fn is_over(&self) -> bool {
        match self.is_half_open {
            true => self.up.is_ended && self.down.is_ended,
            false => self.up.is_shut && self.down.is_shut,
        }
    }
}

/// All connections of a proxy.
pub(super) struct Forwarder {
    listener: TcpListener,
    target: SocketAddr,
    woken: UnixStream,
    /// The other end of `woken`.
    wake: UnixStream,
    shared: Arc<Shared>,
    rng: Rng,
    clock: Clock,
    conns: BTreeMap<u64, Conn>,
    next: u64,
}

impl Forwarder {
    /// With what wakes it, both ends, and what it shares with the proxy.
    pub(super) fn new(
        listener: TcpListener,
        target: SocketAddr,
        (wake, woken): (UnixStream, UnixStream),
        shared: Arc<Shared>,
        (clock, seed): (Clock, u64),
    ) -> Self {
        let (rng, conns) = (Rng::new(seed), BTreeMap::new());
        Self { listener, target, woken, wake, shared, rng, clock, conns, next: 0 }
    }

    /// Until it is told to stop.
    pub(super) fn run(mut self) {
        let mut waits = Waits::own();
        loop {
            let now = self.clock.instant();
            self.wait(now);
            let starved = waits.as_mut().and_then(|waits| waits.more(0)).unwrap_or(0);
            let woken = self.clock.now().saturating_sub(starved);
            if !self.take_orders() {
                return;
            }
            self.accept();
            self.welcome();
            let now = self.clock.instant();
            let ids: Vec<u64> = self.conns.keys().copied().collect();
            for id in ids {
                self.serve(id, now);
            }
            self.shared.live.store(self.conns.len() as u64, Ordering::Relaxed);
            let done = self.clock.now();
            if done - woken > STOOD_US {
                self.shared.stood.lock().expect("no panic").push((woken, done));
            }
        }
    }

    /// Waits until something can be done for any connection.
    fn wait(&mut self, now: Instant) {
        let mut until = now + Duration::from_secs(1);
        let mut fds = vec![
            PollFd::new(self.listener.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        for conn in self.conns.values() {
            // What is wanted of the near and of the far side.
            let mut wanted = [PollFlags::empty(); 2];
            for (pipe, from, to) in [(&conn.up, 0, 1), (&conn.down, 1, 0)] {
                if pipe.wants_read() {
                    wanted[from] |= PollFlags::POLLIN;
                }
                match pipe.write_due() {
                    Some(due) if due <= now => wanted[to] |= PollFlags::POLLOUT,
                    Some(due) => until = until.min(due),
                    None => {}
                }
            }
            // One that nothing is wanted of is left out: its end would wake us again and again.
            for (stream, wanted) in [&conn.near, &conn.far].into_iter().zip(wanted) {
                if !wanted.is_empty() {
                    fds.push(PollFd::new(stream.as_fd(), wanted));
                }
            }
        }
        let left = until.saturating_duration_since(now) + Duration::from_millis(1);
        // Interrupted or not: everything is looked at.
        let _ = poll(&mut fds, PollTimeout::try_from(left).unwrap_or(PollTimeout::MAX));
        while (&self.woken).read(&mut [0; 64]).is_ok_and(|count| count > 0) {}
    }

    /// `false` = stop.
    fn take_orders(&mut self) -> bool {
        loop {
            let order = self.shared.orders.lock().expect("no panic").pop_front();
            match order {
                None => return true,
                Some(Order::Stop) => return false,
                Some(Order::Heal) => self.heal(),
                Some(Order::Inject(pick, fault)) => {
                    let count = self.conns.len().max(1) as u64;
                    let at = usize::try_from(pick % count).unwrap_or(0);
                    if let Some(id) = self.conns.keys().nth(at).copied() {
                        self.inject(id, fault);
                    }
                }
            }
        }
    }

    fn note(&self, port: u16, kind: Kind, until: Option<u64>) {
        let from = self.clock.now();
        let until = until.unwrap_or(u64::MAX);
        let mut incidents = self.shared.incidents.lock().expect("no panic");
        incidents.push(Incident { port, kind, from, until });
    }

    fn heal(&mut self) {
        let is_gone = |conn: &Conn| conn.is_half_open || conn.up.is_dead() || conn.down.is_dead();
        let gone: Vec<u64> =
            self.conns.iter().filter(|(_, conn)| is_gone(conn)).map(|(id, _)| *id).collect();
        for id in gone {
            if let Some(conn) = self.conns.remove(&id) {
                close(conn, CloseBy::Rst);
            }
        }
        let now = self.clock.instant();
        for conn in self.conns.values_mut() {
            conn.up.heal(now);
            conn.down.heal(now);
        }
        let now = self.clock.now();
        for incident in self.shared.incidents.lock().expect("no panic").iter_mut() {
            incident.until = incident.until.min(now);
        }
    }

    fn inject(&mut self, id: u64, fault: ConnFault) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        let port = conn.port;
        match fault {
            ConnFault::Close(how) => {
                if let Some(conn) = self.conns.remove(&id) {
                    self.note(port, close_kind(how), Some(self.clock.now()));
                    close(conn, how);
                }
            }
            ConnFault::HalfOpen => {
                conn.half_open();
                self.note(port, Kind::HalfOpen, None);
            }
            ConnFault::Stall(is_up, span) => {
                let pipe = if is_up { &mut conn.up } else { &mut conn.down };
                pipe.stall(self.clock.instant(), span);
                self.note_stall(port, span);
            }
            ConnFault::Impair(impairment) => {
                conn.up.impairment = impairment;
                conn.down.impairment = impairment;
                self.note_impairment(port, &impairment);
            }
        }
    }

    fn note_stall(&self, port: u16, span: Option<Duration>) {
        let micros = |span: Duration| u64::try_from(span.as_micros()).unwrap_or(u64::MAX);
        match span {
            Some(span) => {
                self.note(port, Kind::Stalled, Some(self.clock.now().saturating_add(micros(span))));
            }
            None => self.note(port, Kind::StalledForEver, None),
        }
    }

    fn note_impairment(&self, port: u16, impairment: &Impairment) {
        if !impairment.delay.is_zero() {
            self.note(port, Kind::Delayed, None);
        }
        if impairment.piece != 0 {
            self.note(port, Kind::Split, None);
        }
        if impairment.rate != 0 {
            self.note(port, Kind::Throttled, None);
        }
    }

    /// Takes in who came. A target whose queue is full lets us wait, so a thread of its own waits
    /// for it: bytes of the others move on meanwhile.
    fn accept(&mut self) {
        while let Ok((near, peer)) = self.listener.accept() {
            let (target, shared) = (self.target, Arc::clone(&self.shared));
            let wake = self.wake.try_clone().expect("a descriptor");
            let work = move || {
                let far = TcpStream::connect_timeout(&target, CONNECT_MAX).ok();
                shared.met.lock().expect("no panic").push((near, far, peer.port()));
                // It wakes up by itself as well.
                let _ = (&wake).write(&[1]);
            };
            std::thread::Builder::new().spawn(work).expect("a thread");
        }
    }

    /// Begins with those whose target answered.
    fn welcome(&mut self) {
        let met = std::mem::take(&mut *self.shared.met.lock().expect("no panic"));
        for (near, far, port) in met {
            let Some(far) = far else {
                // Nobody listens there: the side that connected learns it as it would without us.
                let _ = socket2::SockRef::from(&near).set_linger(Some(Duration::ZERO));
                self.note(port, Kind::Reset, Some(self.clock.now()));
                continue;
            };
            for stream in [&near, &far] {
                stream.set_nonblocking(true).expect("non-blocking");
                stream.set_nodelay(true).expect("no delay");
            }
            let impaired_permille = self.shared.impaired_permille.load(Ordering::Relaxed);
            let [up, down] = [(); 2].map(|()| match self.rng.hits(impaired_permille) {
                true => Impairment::random(&mut self.rng),
                false => Impairment::default(),
            });
            for impairment in [&up, &down] {
                self.note_impairment(port, impairment);
            }
            let now = self.clock.instant();
            let (up, down) = (Pipe::new(up, now), Pipe::new(down, now));
            let conn = Conn { near, far, up, down, port, is_half_open: false };
            self.conns.insert(self.next, conn);
            self.next += 1;
        }
    }

    fn serve(&mut self, id: u64, now: Instant) {
        let Some(conn) = self.conns.get_mut(&id) else { return };
        for is_up in [true, false] {
            let Conn { near, far, up, down, .. } = conn;
            let (pipe, from, to) = if is_up { (up, &*near, &*far) } else { (down, &*far, &*near) };
            match pipe.pump(from, to, now) {
                Moved::On => {}
                Moved::Stalls(span) => {
                    let port = conn.port;
                    return self.note_stall(port, span);
                }
                Moved::HalfOpens => return self.inject(id, ConnFault::HalfOpen),
                Moved::Close(how) => return self.inject(id, ConnFault::Close(how)),
                // A reset is passed on as one; it is not our doing.
                Moved::Broken if conn.is_half_open => pipe_ended(conn, is_up),
                Moved::Broken => {
                    if let Some(conn) = self.conns.remove(&id) {
                        close(conn, CloseBy::Rst);
                    }
                    return;
                }
            }
        }
        if conn.is_over() {
            self.conns.remove(&id);
        }
    }
}

fn pipe_ended(conn: &mut Conn, is_up: bool) {
    if is_up { conn.up.is_ended = true } else { conn.down.is_ended = true }
}

const fn close_kind(how: CloseBy) -> Kind {
    match how {
        CloseBy::Fin => Kind::Closed,
        CloseBy::Rst => Kind::Reset,
    }
}

/// Closes both ends.
fn close(conn: Conn, how: CloseBy) {
    for stream in [conn.near, conn.far] {
        match how {
            CloseBy::Fin => drop(stream.shutdown(Shutdown::Both)),
            CloseBy::Rst => drop(socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO))),
        }
    }
}
