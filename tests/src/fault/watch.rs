//! Finds who was late: it watches the machine, the broker's process and the broker's loop, so that
//! the checker need not guess. The kernel counts how long a thread was ready without a CPU; a
//! thread that wakes regularly shows when the whole machine stood still; pings on a separate
//! connection show when the broker's loop did not turn. The checker draws the conclusions.

use super::checker::{Cause, Excuse};
use super::clock::{Clock, pause};
use super::conn::{Conn, Endpoint, Received, Sent};
use protocol::frame::Frame;
use std::fmt;
use std::fs;
use std::os::unix::fs::FileExt as _;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

/// Time between two measurements.
const TICK: Duration = Duration::from_millis(10);
/// The machine counts as stopped if a pause took this much longer than asked for, microseconds.
const STOOD_US: u64 = 150_000;
/// Shorter waits for a CPU are added up and not recorded one by one, microseconds.
const WAIT_US: u64 = 1000;
/// A pong later than this is recorded as a slow loop, microseconds.
const SLOW_US: u64 = 50_000;
/// If a pong takes longer than this, the state of the broker's thread is read, microseconds.
const SEEN_US: u64 = 200_000;
/// Time limit for a pong.
const PONG_MAX: Duration = Duration::from_secs(20);

/// Measurements of the machine and of the broker during a run.
#[derive(Debug)]
pub struct Watch {
    clock: Clock,
    /// The broker's process; 0 = there is none.
    broker: AtomicU32,
    is_over: AtomicBool,
    excuses: Mutex<Vec<Excuse>>,
    slow: Mutex<Vec<Slow>>,
}

/// A time in which the broker's loop surely answered no ping, and what its thread did in it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Slow {
    /// From when, microseconds of the run.
    pub from: u64,
    /// Until when.
    pub until: u64,
    /// How much of it the thread ran, as the kernel counts it; what a hypervisor took is in it.
    pub ran: u64,
    /// How much of it all CPUs of the machine were taken away by a hypervisor, added up.
    pub stolen: u64,
    /// What the thread was seen doing, if it lasted.
    pub seen: String,
}

impl fmt::Display for Slow {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { from, until, ran, stolen, seen } = self;
        let whole = until - from;
        write!(f, "for {} ms, of which it ran {} ms", whole / 1000, ran / 1000)?;
        write!(f, " and {} ms were stolen from the machine{seen}", stolen / 1000)
    }
}

/// What the kernel says of a thread at a moment.
#[derive(Clone, Copy, Debug, Default)]
struct Reading {
    ran: u64,
    stolen: u64,
}

impl Reading {
    fn of(pid: u32) -> Self {
        let text = fs::read_to_string(format!("/proc/{pid}/task/{pid}/schedstat"));
        let nanos = text.ok().and_then(|text| text.split(' ').next()?.parse::<u64>().ok());
        // The eighth number, in hundredths of a second.
        let stat = fs::read_to_string("/proc/stat").unwrap_or_default();
        let stolen = stat.split_whitespace().nth(8).and_then(|word| word.parse::<u64>().ok());
        Self { ran: nanos.unwrap_or(0) / 1000, stolen: stolen.unwrap_or(0) * 10_000 }
    }
}

/// What a thread does just now: its state, and where in the kernel it waits.
fn doing(pid: u32) -> String {
    let read = |name: &str| fs::read_to_string(format!("/proc/{pid}/task/{pid}/{name}"));
    let stat = read("stat").unwrap_or_default();
    let state = stat.rsplit(") ").next().and_then(|rest| rest.chars().next()).unwrap_or('?');
    let (at, call) = (read("wchan").unwrap_or_default(), read("syscall").unwrap_or_default());
    let call = call.split_whitespace().next().unwrap_or("?").to_owned();
    format!("; seen in state {state}, system call {call}, waiting in {at}")
}

/// How long this thread was ready and had no CPU since it began, microseconds; 0 where the kernel
/// does not tell.
pub fn own_wait() -> u64 {
    let text = fs::read_to_string("/proc/thread-self/schedstat").unwrap_or_default();
    wait_of(text.as_bytes())
}

/// The second number: nanoseconds in which a thread was ready and had no CPU.
fn wait_of(bytes: &[u8]) -> u64 {
    let text = String::from_utf8_lossy(bytes);
    let nanos = text.split_whitespace().nth(1).and_then(|word| word.parse().ok());
    nanos.map_or(0, |nanos: u64| nanos / 1000)
}

impl Watch {
    /// Sees nothing yet.
    pub const fn new(clock: Clock) -> Self {
        Self {
            clock,
            broker: AtomicU32::new(0),
            is_over: AtomicBool::new(false),
            excuses: Mutex::new(Vec::new()),
            slow: Mutex::new(Vec::new()),
        }
    }

    /// The broker has this process from now on.
    pub fn attend(&self, pid: u32) {
        self.broker.store(pid, Ordering::Release);
    }

    /// It is over.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Release);
    }

    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire)
    }

    /// When the machine stood still, and when the broker was ready and had no CPU.
    ///
    /// # Panics
    /// If the watch did.
    pub fn excuses(&self) -> Vec<Excuse> {
        self.excuses.lock().expect("no panic").clone()
    }

    /// From when until when the broker's loop surely answered no ping, whatever the cause.
    ///
    /// # Panics
    /// If the watch did.
    pub fn slow(&self) -> Vec<Slow> {
        self.slow.lock().expect("no panic").clone()
    }

    fn note(&self, cause: Cause, from: u64, until: u64) {
        self.excuses.lock().expect("no panic").push(Excuse { cause, from, until });
    }

    /// Watches the machine and the broker's process, until it is over.
    pub fn look(&self) {
        let mut before = self.clock.now();
        let mut known: Option<(u32, Waits)> = None;
        while !self.is_over() {
            pause(TICK);
            let now = self.clock.now();
            if now - before > STOOD_US {
                self.note(Cause::Machine, before, now);
            }
            before = now;
            let pid = self.broker.load(Ordering::Acquire);
            if known.as_ref().is_none_or(|(known, _)| *known != pid) {
                // The broker's loop is the first thread of its process.
                known =
                    Waits::at(&format!("/proc/{pid}/task/{pid}/schedstat")).map(|new| (pid, new));
            }
            known =
                known.and_then(|(pid, mut waits)| self.look_at(&mut waits).then_some((pid, waits)));
        }
    }

    /// Writes down for how long a thread was ready and had no CPU; `false` = it has ended.
    fn look_at(&self, waits: &mut Waits) -> bool {
        let Some(more) = waits.more(WAIT_US) else { return false };
        if more > 0 {
            // It is counted when the wait is over.
            let now = self.clock.now();
            self.note(Cause::Starved, now.saturating_sub(more), now);
        }
        true
    }

    /// Asks the broker's loop all the time whether it turns, until it is over.
    pub fn ping(&self, socket: PathBuf, service: &str) {
        let endpoint = Endpoint::Unix(socket);
        while !self.is_over() {
            let conn = Conn::open(&endpoint, None, self.clock).ok();
            if let Some(conn) =
                conn.and_then(|conn| conn.log_in(service, (false, false), None).ok())
            {
                self.ping_on(conn);
            }
            pause(TICK);
        }
    }

    /// Until the connection is lost.
    fn ping_on(&self, mut conn: Conn) {
        let mut sequence = 0;
        while !self.is_over() {
            sequence += 1;
            let pid = self.broker.load(Ordering::Acquire);
            let (sent, before, mut seen) = (self.clock.now(), Reading::of(pid), String::new());
            if conn.send(Frame::Ping { sequence }) != Sent::Whole {
                return;
            }
            loop {
                match conn.next(TICK) {
                    Received::Frame(Frame::Pong { .. }, came) => {
                        // It was not there when the client last looked; since then who knows.
                        if came.looked > sent + SLOW_US {
                            let now = Reading::of(pid);
                            self.slow.lock().expect("no panic").push(Slow {
                                from: sent,
                                until: came.looked,
                                ran: now.ran.saturating_sub(before.ran),
                                stolen: now.stolen.saturating_sub(before.stolen),
                                seen,
                            });
                        }
                        break;
                    }
                    Received::Frame(_, _) => {}
                    Received::Nothing => {
                        let waited = self.clock.now() - sent;
                        if waited > SEEN_US && seen.is_empty() {
                            seen = doing(pid);
                        }
                        if self.is_over() || u128::from(waited) > PONG_MAX.as_micros() {
                            return;
                        }
                    }
                    // Killed: that is written down elsewhere.
                    Received::Lost => return,
                }
            }
            pause(TICK);
        }
    }
}

/// How long a thread was ready and had no CPU, looked at again and again.
#[derive(Debug)]
pub struct Waits {
    file: fs::File,
    known: u64,
}

impl Waits {
    /// Of the thread that calls this; `None` where the kernel does not tell.
    pub fn own() -> Option<Self> {
        Self::at("/proc/thread-self/schedstat")
    }

    fn at(path: &str) -> Option<Self> {
        let mut new = Self { file: fs::File::open(path).ok()?, known: 0 };
        new.known = new.read()?;
        Some(new)
    }

    /// For how long since it was looked at last, microseconds; `None` = the thread has ended. What
    /// is less than `least` is told with what follows.
    pub fn more(&mut self, least: u64) -> Option<u64> {
        let all = self.read()?;
        let more = all.saturating_sub(self.known);
        if more < least {
            return Some(0);
        }
        self.known = all;
        Some(more)
    }

    fn read(&self) -> Option<u64> {
        let mut bytes = [0; 128];
        let count = self.file.read_at(&mut bytes, 0).ok()?;
        (count > 0).then(|| wait_of(&bytes[..count]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_count_of_waits_is_read() {
        assert_eq!(wait_of(b"104599 3820972 2\n"), 3820);
        assert_eq!(wait_of(b""), 0);
        assert!(own_wait() < u64::MAX / 2);
    }

    #[test]
    fn a_wait_for_a_cpu_is_written_down_once() {
        let watch = Watch::new(Clock::start());
        let mut waits = Waits::own().expect("a Linux that counts");
        waits.known = 0;
        let all = waits.read().expect("this thread");
        assert!(watch.look_at(&mut waits));
        let seen: Vec<Excuse> = watch.excuses();
        assert_eq!(seen.len(), usize::from(all >= WAIT_US), "{all}: {seen:?}");
        assert!(Waits::at("/proc/0/schedstat").is_none(), "there is no process 0");
    }
}
