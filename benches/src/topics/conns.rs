//! Connections that publish and subscribe, all in one thread: one turn reads what came on each and
//! gives its meaning to the caller. `load` does the same for requests.

use crate::clock;
use crate::load::schedule::{Schedule, TIMER};
use crate::payload::Payload;
use crate::peers::{Alone, Hub};
use crate::protocols::topics::{TopicProtocol, What};
use crate::sock::{BufferedStream, Endpoint, SCRATCH_BYTES, connect, register};
use crate::stop::Stop;
use mio::{Events, Poll, Token};
use std::io::ErrorKind;
use std::mem;
use std::time::{Duration, Instant};

/// Connections that are made at the same time; more would overflow a listener's backlog.
const CONNECTING_MAX: usize = 64;
const CONNECT_LIMIT: Duration = Duration::from_secs(60);
/// The longest wait of a turn.
const TURN: Duration = Duration::from_millis(20);

/// Whether a connection is read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Reading {
    On,
    /// Its program does not read; the system's buffers fill up.
    Stopped,
    /// The peer has closed it.
    Closed,
}

struct Conn {
    stream: BufferedStream,
    protocol: Box<dyn TopicProtocol>,
    reading: Reading,
    is_dirty: bool,
}

/// See the head of this file.
pub struct Conns {
    poll: Poll,
    events: Events,
    scratch: Vec<u8>,
    all: Vec<Conn>,
    dirty: Vec<usize>,
    schedule: Option<Schedule>,
}

/// What is done with what came: the index of the connection, what it means, the bytes of it.
pub trait Taker: FnMut(usize, What, &[u8]) -> Result<(), String> {}
impl<F: FnMut(usize, What, &[u8]) -> Result<(), String>> Taker for F {}

impl Conns {
    /// None yet.
    ///
    /// # Errors
    /// The system refuses.
    pub fn new() -> Result<Self, String> {
        Ok(Self {
            poll: Poll::new().map_err(|e| e.to_string())?,
            events: Events::with_capacity(1024),
            scratch: vec![0; SCRATCH_BYTES],
            all: Vec::new(),
            dirty: Vec::new(),
            schedule: None,
        })
    }

    /// So many connections to a broker, set up.
    ///
    /// # Errors
    /// The broker or the system refuses something, or it takes too long.
    pub fn open((hub, alone): (Hub, &Alone), count: usize, stop: &Stop) -> Result<Self, String> {
        let mut conns = Self::new()?;
        conns.add(&alone.endpoint, count, &|_| hub.protocol(), stop)?;
        Ok(conns)
    }

    /// So many more, set up.
    ///
    /// # Errors
    /// As [`open`](Self::open).
    pub fn add(
        &mut self,
        endpoint: &Endpoint,
        count: usize,
        protocol: &dyn Fn(usize) -> Box<dyn TopicProtocol>,
        stop: &Stop,
    ) -> Result<(), String> {
        let (first, mut ready) = (self.all.len(), 0);
        let end = clock::now() + CONNECT_LIMIT;
        while ready < count {
            while self.all.len() - first < count && self.all.len() - first - ready < CONNECTING_MAX
            {
                self.one(endpoint, protocol(self.all.len()))?;
            }
            if clock::now() > end {
                return Err(format!("only {ready} of {count} connections are set up"));
            }
            stop.check()?;
            self.turn(&mut |_, what, _: &[u8]| {
                ready += usize::from(what == What::Ready);
                Ok(())
            })?;
        }
        Ok(())
    }

    fn one(&mut self, endpoint: &Endpoint, protocol: Box<dyn TopicProtocol>) -> Result<(), String> {
        let index = self.all.len();
        let stream = connect(endpoint).map_err(|e| format!("{endpoint}: {e}"))?;
        register(&stream, self.poll.registry(), Token(index)).map_err(|e| e.to_string())?;
        let stream = BufferedStream::new(stream);
        self.all.push(Conn { stream, protocol, reading: Reading::On, is_dirty: false });
        self.write(index, |protocol, out| protocol.hello(out));
        self.flush()
    }

    /// Puts something into the outbox of a connection; it leaves at the end of the turn.
    pub fn write(&mut self, index: usize, what: impl FnOnce(&mut dyn TopicProtocol, &mut Vec<u8>)) {
        let conn = &mut self.all[index];
        what(&mut *conn.protocol, &mut conn.stream.out);
        if !mem::replace(&mut conn.is_dirty, true) {
            self.dirty.push(index);
        }
    }

    /// Publishes on a connection.
    pub fn publish(&mut self, index: usize, topic: &str, payload: Payload) {
        self.write(index, |protocol, out| protocol.publish(topic, payload, out));
    }

    /// Subscribes on a connection.
    pub fn subscribe(&mut self, index: usize, number: u32, pattern: &str) {
        self.write(index, |protocol, out| protocol.subscribe(number, pattern, out));
    }

    /// Reads a connection no further.
    pub fn stop_reading(&mut self, index: usize) {
        self.all[index].reading = Reading::Stopped;
    }

    /// Reads a connection again; whether it is still there.
    ///
    /// # Errors
    /// As of [`turn`](Self::turn).
    pub fn resume(&mut self, index: usize, each: &mut impl Taker) -> Result<bool, String> {
        self.all[index].reading = Reading::On;
        // What it was closed with is what is asked for here.
        let read = self.receive(index, each);
        if self.is_closed(index) { Ok(false) } else { read.map(|()| true) }
    }

    /// Whether its peer has closed it.
    pub fn is_closed(&self, index: usize) -> bool {
        self.all[index].reading == Reading::Closed
    }

    /// Bytes that wait on a connection because the system takes no more.
    pub fn waiting(&self, index: usize) -> usize {
        self.all[index].stream.out.len()
    }

    /// A schedule begins now, of so many a second; none = 0.
    ///
    /// # Errors
    /// The system refuses.
    pub fn begin(&mut self, rate: u64) -> Result<(), String> {
        self.schedule = None;
        if rate > 0 {
            let mut schedule = Schedule::new(rate)?;
            schedule.register(self.poll.registry())?;
            schedule.begin(clock::now())?;
            self.schedule = Some(schedule);
        }
        Ok(())
    }

    /// The moment of the next that is due by now, and its number in the schedule.
    pub fn next_due(&mut self, now: Instant) -> Option<(u64, Instant)> {
        self.schedule.as_mut()?.next_due(now)
    }

    /// Writes what waits, and reads what came.
    ///
    /// # Errors
    /// A connection that is read was closed, or what `each` says.
    pub fn turn(&mut self, each: &mut impl Taker) -> Result<(), String> {
        self.flush()?;
        if let Some(schedule) = &mut self.schedule {
            schedule.arm(clock::now())?;
        }
        match self.poll.poll(&mut self.events, Some(TURN)) {
            Ok(()) => {}
            Err(error) if error.kind() == ErrorKind::Interrupted => return Ok(()),
            Err(error) => return Err(format!("epoll: {error}")),
        }
        let events = mem::replace(&mut self.events, Events::with_capacity(0));
        let taken = self.take(&events, each);
        self.events = events;
        taken?;
        self.flush()
    }

    /// Turns until there is something, or the time is over.
    ///
    /// # Errors
    /// As of [`turn`](Self::turn), or that `what` was not there in time.
    pub fn until<S>(
        &mut self,
        (what, limit): (&str, Duration),
        state: &mut S,
        mut look: impl FnMut(&mut Self, &mut S) -> Result<bool, String>,
        mut each: impl FnMut(&mut S, usize, What, &[u8]) -> Result<(), String>,
    ) -> Result<(), String> {
        let end = clock::now() + limit;
        while !look(self, state)? {
            if clock::now() > end {
                return Err(format!("{what}: not after {} ms", limit.as_millis()));
            }
            self.turn(&mut |index, what, bytes: &[u8]| each(state, index, what, bytes))?;
        }
        Ok(())
    }

    fn take(&mut self, events: &Events, each: &mut impl Taker) -> Result<(), String> {
        for event in events {
            if event.token() == TIMER {
                continue;
            }
            let Token(index) = event.token();
            let conn = &mut self.all[index];
            if event.is_writable() && conn.reading != Reading::Closed {
                conn.stream.writable(self.poll.registry(), event.token())?;
            }
            if event.is_readable() && conn.reading == Reading::On {
                self.receive(index, each)?;
            }
        }
        Ok(())
    }

    fn receive(&mut self, index: usize, each: &mut impl Taker) -> Result<(), String> {
        let Conn { stream, protocol, reading, .. } = &mut self.all[index];
        let had = stream.out.len();
        let mut refused = None;
        let read = stream.receive(&mut self.scratch, |bytes, out| {
            match protocol.parse(bytes, out).and_then(|parsed| match parsed {
                None => Ok(0),
                Some((used, what)) => each(index, what, &bytes[..used]).map(|()| used),
            }) {
                Ok(used) => Ok(used),
                Err(why) => {
                    refused = Some(why.clone());
                    Err(why)
                }
            }
        });
        let grown = stream.out.len() > had;
        if let Some(why) = refused {
            return Err(format!("connection {index}: {why}"));
        }
        if !matches!(read, Ok(false)) {
            *reading = Reading::Closed;
            return Err(format!("the peer closed connection {index}"));
        }
        if grown {
            self.write(index, |_, _| {});
        }
        Ok(())
    }

    /// Writes what waits.
    fn flush(&mut self) -> Result<(), String> {
        let mut dirty = mem::take(&mut self.dirty);
        for index in dirty.drain(..) {
            let conn = &mut self.all[index];
            conn.is_dirty = false;
            if conn.reading != Reading::Closed {
                conn.stream.flush(self.poll.registry(), Token(index))?;
            }
        }
        self.dirty = dirty;
        Ok(())
    }
}
