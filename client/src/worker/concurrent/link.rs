//! One connection that several threads use: one reads, all write. Who can't go on writing waits
//! without a lock that the reader needs, so reading goes on.

use super::owned::Open;
use crate::clock;
use crate::conn::{Conn, Lost};
use crate::error::Error;
use crate::keepalive::Due;
use crate::topics::{check_size, message_body};
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{Shutdown, shutdown};
use protocol::encode::{self, EncodedFrame};
use protocol::messages::MessageOf;
use protocol::{Frame, Header, WorkerId};
use std::collections::VecDeque;
use std::io::{Read, Write};
use std::mem;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Bytes that wait to be written above which a writer waits, too.
const WAITING_BYTES_MAX: usize = 1 << 20;
/// Bytes that are put off at most before they are written.
const PUT_OFF_BYTES_MAX: usize = 64 * 1024;
/// A buffer that grew larger than this is given back to the system.
const KEEP_BYTES_MAX: usize = 256 * 1024;

/// Locks a mutex. A thread that panicked has left the data whole: each change is one call.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The bytes that wait to be written.
#[derive(Default)]
struct Outbox {
    bytes: Vec<u8>,
    /// A thread writes, and will write what is added meanwhile.
    is_flushing: bool,
    /// The socket did not take all that was given to TLS.
    is_stuck: bool,
    /// The reader waits, so nobody else will write what is put off.
    is_reader_waiting: bool,
    /// The connection is lost: what is added is dropped.
    is_lost: bool,
}

impl Outbox {
    fn has_unsent(&self) -> bool {
        !self.is_lost && (self.is_stuck || !self.bytes.is_empty())
    }

    /// Takes back what was not written, before what was put there meanwhile.
    fn take_back(&mut self, mut rest: Vec<u8>) {
        rest.append(&mut self.bytes);
        if self.is_lost {
            rest = Vec::new();
        }
        if !rest.is_empty() || rest.capacity() <= KEEP_BYTES_MAX {
            self.bytes = rest;
        }
    }
}

/// What came by one read.
#[derive(Default)]
pub(super) struct Arrived {
    pub(super) frames: VecDeque<Frame>,
    /// The end of the connection, which came after the frames.
    pub(super) lost: Option<Lost>,
}

impl Arrived {
    /// What has come by a connection that no other thread uses.
    pub(super) fn by(conn: &mut Conn) -> Self {
        let (frames, lost) = conn.read_now();
        Self { frames, lost }
    }
}

/// A connection with its requests.
pub(super) struct Link {
    conn: Mutex<Conn>,
    descriptor: OwnedFd,
    outbox: Mutex<Outbox>,
    /// The outbox has room again, or the connection is lost.
    room: Condvar,
    pub(super) open: Mutex<Open>,
    /// What is written to the first wakes the reader, which waits for the second, too.
    wakers: (UnixStream, UnixStream),
    /// Final answers since the start of the worker, on all its connections.
    pub(super) answered: Arc<AtomicU64>,
    pub(super) worker: WorkerId,
    pub(super) body_bytes_max: usize,
}

impl Link {
    pub(super) fn new(
        conn: Conn,
        worker: WorkerId,
        body_bytes_max: usize,
        answered: Arc<AtomicU64>,
    ) -> Result<Self, Lost> {
        let descriptor = conn.descriptor().map_err(Lost::Io)?;
        let wakers = UnixStream::pair().map_err(Lost::Io)?;
        for end in [&wakers.0, &wakers.1] {
            end.set_nonblocking(true).map_err(Lost::Io)?;
        }
        Ok(Self {
            conn: Mutex::new(conn),
            descriptor,
            outbox: Mutex::default(),
            room: Condvar::new(),
            open: Mutex::default(),
            wakers,
            answered,
            worker,
            body_bytes_max,
        })
    }

    pub(super) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Writes a frame; returns when it is written, or another thread is about to write it.
    pub(super) fn write(&self, frame: Frame) {
        self.add(frame);
        self.send();
    }

    /// Puts a frame behind those that wait; [`send`](Self::send) writes it.
    pub(super) fn add(&self, frame: Frame) {
        drop(self.put(frame));
    }

    /// Writes what was added; returns when it is written, or another thread is about to.
    pub(super) fn send(&self) {
        let mut outbox = lock(&self.outbox);
        while outbox.is_flushing && outbox.bytes.len() > WAITING_BYTES_MAX && !outbox.is_lost {
            outbox = self.room.wait(outbox).unwrap_or_else(PoisonError::into_inner);
        }
        drop(self.flush_outbox(outbox, true));
    }

    /// Publishes a message. Its number tells nothing: many threads publish.
    pub(super) fn publish(&self, message: &MessageOf<'_>) -> Result<(), Error> {
        let body = message_body(message)?;
        check_size(&body, self.body_bytes_max as u64)?;
        let head = Header { sequence: 1, ..Header::default() };
        self.write(Frame::Publish { head, body });
        Ok(())
    }

    /// Puts a frame behind those that wait, and never waits itself, unless the reader does. It
    /// leaves before the reader waits, or with another one.
    pub(super) fn put_off(&self, frame: Frame) {
        self.add(frame);
        self.send_if_reader_waits();
    }

    /// Writes what was added, unless the reader does it before it waits.
    pub(super) fn send_if_reader_waits(&self) {
        let outbox = lock(&self.outbox);
        if outbox.is_reader_waiting {
            drop(self.flush_outbox(outbox, true));
        }
    }

    /// Whether so much was put off that it should be written now.
    pub(super) fn is_full(&self) -> bool {
        lock(&self.outbox).bytes.len() > PUT_OFF_BYTES_MAX
    }

    fn put(&self, frame: Frame) -> MutexGuard<'_, Outbox> {
        let EncodedFrame { head, body } = encode::encode(frame);
        let mut outbox = lock(&self.outbox);
        if !outbox.is_lost {
            outbox.bytes.extend_from_slice(&head);
            outbox.bytes.extend_from_slice(&body);
        }
        outbox
    }

    /// Writes what waits, as far as the socket takes it now.
    pub(super) fn flush_now(&self) {
        drop(self.flush_outbox(lock(&self.outbox), false));
    }

    /// Writes what waits, unless another thread does. The lock is free meanwhile.
    fn flush_outbox<'a>(
        &'a self,
        mut outbox: MutexGuard<'a, Outbox>,
        waits: bool,
    ) -> MutexGuard<'a, Outbox> {
        let mut is_full = false;
        while !outbox.is_flushing && outbox.has_unsent() && !is_full {
            outbox.is_flushing = true;
            let mut bytes = mem::take(&mut outbox.bytes);
            drop(outbox);
            let mut done = 0;
            let written = self.write_all(&bytes, &mut done, waits);
            if written.is_err() {
                // The reader finds the end, behind what the broker sent before.
                self.close();
            }
            is_full = matches!(written, Ok(false));
            bytes.drain(..done);
            outbox = lock(&self.outbox);
            outbox.is_flushing = false;
            outbox.is_stuck = is_full;
            outbox.take_back(bytes);
            self.room.notify_all();
        }
        outbox
    }

    /// Writes bytes, and counts those that are done. `false` = the socket does not take all now.
    fn write_all(&self, bytes: &[u8], done: &mut usize, waits: bool) -> Result<bool, Lost> {
        loop {
            let written = lock(&self.conn).write_now(&bytes[*done..])?;
            match written {
                // Bytes that TLS has taken have left, too.
                Some(_) if *done == bytes.len() => return Ok(true),
                Some(size) => *done += size,
                None if !waits => return Ok(false),
                None => {
                    self.wait(PollFlags::POLLOUT)?;
                    lock(&self.conn).keepalive().heard();
                }
            }
        }
    }

    /// Waits for bytes, and reads them; `false` = none came in time. What waits to be written is
    /// written first. Pings a silent broker. Only one thread may call it.
    pub(super) fn read(&self, until: Option<Instant>, arrived: &mut Arrived) -> bool {
        while arrived.is_empty() {
            let events = self.begin_to_wait();
            let left = until.map(clock::left);
            let span = lock(&self.conn).keepalive().span(clock::now);
            let wait = [left, span].into_iter().flatten().min();
            let ready = self.wait_as_reader(events, wait);
            lock(&self.outbox).is_reader_waiting = false;
            match ready {
                Ok(None) => return true,
                Ok(Some(ready)) if ready.is_empty() => {
                    self.note_silence(wait.unwrap_or_default(), arrived);
                    if left.is_some() && until.map(clock::left) == Some(Duration::ZERO) {
                        return !arrived.is_empty();
                    }
                }
                Ok(Some(ready)) if ready == PollFlags::POLLOUT => {
                    lock(&self.conn).keepalive().heard();
                }
                Ok(Some(_)) => self.read_now(arrived),
                Err(lost) => arrived.lost = Some(lost),
            }
        }
        true
    }

    /// Writes what it can, and notes that the reader waits from now on; for what, is returned.
    fn begin_to_wait(&self) -> PollFlags {
        let mut outbox = self.flush_outbox(lock(&self.outbox), false);
        outbox.is_reader_waiting = true;
        let mut events = PollFlags::POLLIN;
        // Who writes waits for the socket as well.
        events.set(PollFlags::POLLOUT, outbox.has_unsent() && !outbox.is_flushing);
        events
    }

    /// Nothing came for so long: the broker is pinged, or it is gone.
    fn note_silence(&self, waited: Duration, arrived: &mut Arrived) {
        let mut conn = lock(&self.conn);
        match conn.keepalive().quiet(clock::now(), waited) {
            Due::Nothing(_) => {}
            Due::Ping => {
                conn.keepalive().pinged(clock::now());
                drop(conn);
                self.put_off(Frame::Ping { sequence: 0 });
            }
            Due::Gone(span) => arrived.lost = Some(Lost::Silent(span)),
        }
    }

    fn read_now(&self, arrived: &mut Arrived) {
        let (mut frames, lost) = lock(&self.conn).read_now();
        arrived.frames.append(&mut frames);
        arrived.lost = arrived.lost.take().or(lost);
    }

    /// Has the reader look for requests that may be begun.
    pub(super) fn wake(&self) {
        // If it takes no more, the reader has enough to wake up for.
        let _ = (&self.wakers.0).write(&[0]);
    }

    /// Waits until [`wake`](Self::wake) is called, or a signal comes.
    pub(super) fn await_answer(&self) {
        let mut outbox = self.flush_outbox(lock(&self.outbox), true);
        outbox.is_reader_waiting = true;
        drop(outbox);
        let mut fds = [PollFd::new(self.wakers.1.as_fd(), PollFlags::POLLIN)];
        let _ = poll(&mut fds, PollTimeout::NONE);
        lock(&self.outbox).is_reader_waiting = false;
        self.clear_wakers();
    }

    fn clear_wakers(&self) {
        let mut bytes = [0; 64];
        while (&self.wakers.1).read(&mut bytes).is_ok_and(|size| size > 0) {}
    }

    /// Waits for the socket without any lock. No flag = the time is over, `None` = a signal came,
    /// or [`wake`](Self::wake) was called.
    fn wait_as_reader(
        &self,
        events: PollFlags,
        span: Option<Duration>,
    ) -> Result<Option<PollFlags>, Lost> {
        // Rounded up, so that the last fraction of a millisecond does not become a busy loop.
        let timeout = match span {
            None => PollTimeout::NONE,
            Some(span) => {
                PollTimeout::try_from(span + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = [
            PollFd::new(self.descriptor.as_fd(), events),
            PollFd::new(self.wakers.1.as_fd(), PollFlags::POLLIN),
        ];
        match poll(&mut fds, timeout) {
            Ok(_) => {
                let ready = fds[0].revents().unwrap_or(PollFlags::empty());
                let is_woken = fds[1].any().unwrap_or(false);
                if is_woken {
                    self.clear_wakers();
                }
                Ok(Some(ready).filter(|ready| !is_woken || !ready.is_empty()))
            }
            Err(Errno::EINTR) => Ok(None),
            Err(e) => Err(Lost::Io(e.into())),
        }
    }

    /// Waits for the socket without any lock, or for a signal.
    fn wait(&self, events: PollFlags) -> Result<(), Lost> {
        let mut fds = [PollFd::new(self.descriptor.as_fd(), events)];
        match poll(&mut fds, PollTimeout::NONE) {
            Ok(_) | Err(Errno::EINTR) => Ok(()),
            Err(e) => Err(Lost::Io(e.into())),
        }
    }

    /// Ends the connection: threads that wait to write go on, and what they write is dropped.
    pub(super) fn close(&self) {
        lock(&self.outbox).is_lost = true;
        self.room.notify_all();
        // A socket that is not connected any more is closed already.
        let _ = shutdown(self.descriptor.as_raw_fd(), Shutdown::Both);
    }
}

impl Arrived {
    fn is_empty(&self) -> bool {
        self.frames.is_empty() && self.lost.is_none()
    }
}
