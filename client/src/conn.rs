//! One connection to the broker: frames in and frames out, blocking, with a time limit. `dial`
//! makes it; `session` and `worker` know what the frames mean.
//!
//! The socket is in blocking mode, so that a read costs one system call. A write never blocks in
//! the kernel: while it can't go on, frames of the broker are read and kept. So two sides that both
//! write never wait for each other.

use crate::address::Address;
use crate::clock;
use crate::dial::{ConnectError, dial};
use crate::error::Error;
use crate::keepalive::{Due, Keepalive};
use crate::trust::Trust;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::decode::Limits;
use protocol::encode::{self, EncodedFrame};
use protocol::frame_reader::Inbox;
use protocol::limits::{BODY_BYTES_MAX, CONTROL_BODY_BYTES_MAX, HEADER_BYTES};
use protocol::{Channel, ErrorCode, Frame, WireError};
use std::collections::VecDeque;
use std::io::{self, ErrorKind, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::{Duration, Instant};
use transport::stream::Stream;

/// Bodies up to this size are copied behind their header, so that both leave in one write.
const COPY_BYTES_MAX: usize = 16 * 1024;

/// Most bytes of one read: one frame of 64 KiB, so that requests up to that size come with one
/// read.
const READ_BYTES: usize = HEADER_BYTES + 64 * 1024;

/// Most bytes of frames that are read ahead while a write can't go on.
const AHEAD_BYTES_MAX: usize = 64 << 20;

/// Longest time for a ping to wait behind bytes that the broker has not taken yet.
const PING_TIMEOUT: Duration = Duration::from_millis(200);

/// How long to wait for bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Wait {
    /// Take what is there without waiting.
    Not,
    /// Wait until this moment; `None` = without end.
    Until(Option<Instant>),
}

/// Why a connection can't be used any more.
#[derive(Debug)]
pub(crate) enum Lost {
    /// The broker closed it.
    Closed {
        /// Whether it ended in the middle of a frame.
        inside_frame: bool,
    },
    /// The system reported this error.
    Io(io::Error),
    /// The broker was silent for this long and answered no ping.
    Silent(Duration),
    /// The bytes that came are not a frame.
    Wire(WireError),
    /// The TLS handshake failed; the text says why.
    Tls(String),
}

/// Why a frame was not written as a whole.
#[derive(Debug)]
pub(crate) enum WriteFault {
    /// The time was over before the first byte; the connection is unchanged.
    NotBegun,
    /// Part of the frame was written, or the connection is lost.
    Broken(Lost),
}

impl Lost {
    /// Converts it to an error of the library; `address` is where the broker was.
    pub(crate) fn into_error(self, address: &Address) -> Error {
        let lost = |text: String| Error::new(ErrorCode::BrokerLost, text);
        match self {
            Self::Closed { inside_frame: false } => {
                lost(format!("the broker at {address} closed the connection"))
            }
            Self::Closed { inside_frame: true } => {
                lost(format!("the broker at {address} closed the connection inside a frame"))
            }
            Self::Io(e) => {
                lost(format!("the connection to the broker at {address} broke: {e}")).with_source(e)
            }
            Self::Silent(span) => lost(format!(
                "the broker at {address} said nothing for {} ms and answered no ping",
                span.as_millis()
            )),
            Self::Tls(text) => Error::new(ErrorCode::Tls, text),
            Self::Wire(wire) => Error::new(
                wire.code,
                format!("what {address} sends are no frames of isect: {}", wire.text),
            ),
        }
    }
}

/// A connection to the broker.
pub(crate) struct Conn {
    stream: Stream,
    inbox: Inbox,
    out: Vec<u8>,
    ahead: VecDeque<Frame>,
    ahead_bytes: usize,
    ended: Option<Lost>,
    read_timeout: Option<Duration>,
    keepalive: Keepalive,
}

impl Conn {
    /// Connects to this address.
    ///
    /// # Errors
    /// Nobody answers there in time, or the TLS handshake fails.
    pub(crate) fn dial(
        address: &Address,
        timeout: Duration,
        trust: Option<&Trust>,
    ) -> Result<Self, ConnectError> {
        Ok(Self {
            stream: dial(address, timeout, trust)?,
            inbox: Inbox::with_buffer(Limits::from_broker(CONTROL_BODY_BYTES_MAX), READ_BYTES),
            out: Vec::new(),
            ahead: VecDeque::new(),
            ahead_bytes: 0,
            ended: None,
            read_timeout: None,
            keepalive: Keepalive::default(),
        })
    }

    /// Sets the limit of a body, in bytes, from login-ok or worker-login-ok.
    pub(crate) fn set_body_bytes_max(&mut self, size: u64) {
        let size = usize::try_from(size).unwrap_or(usize::MAX);
        self.inbox.limits = Limits::from_broker(size.min(BODY_BYTES_MAX));
    }

    /// The channel binding for proofs on this connection; `None` = it has no TLS.
    pub(crate) fn channel(&self) -> Result<Option<Channel>, String> {
        self.stream.channel()
    }

    /// Sets the silence, in milliseconds, after which the broker is taken for gone; 0 = never.
    pub(crate) fn watch_silence(&mut self, silence_ms: u64) {
        self.keepalive.begin(silence_ms);
    }

    /// The next frame; `None` = none came in time. It pings a silent broker meanwhile.
    ///
    /// # Errors
    /// The connection is lost. Frames that came before are returned first.
    pub(crate) fn next(&mut self, wait: Wait) -> Result<Option<Frame>, Lost> {
        loop {
            if let Some(frame) = self.ahead.pop_front() {
                self.ahead_bytes = self.ahead_bytes.saturating_sub(weight(&frame));
                return Ok(Some(frame));
            }
            if let Some(lost) = self.ended.take() {
                return Err(lost);
            }
            if let Some(frame) = self.inbox.next_frame().map_err(Lost::Wire)? {
                return Ok(Some(frame));
            }
            if !self.fill(wait)? {
                return Ok(None);
            }
        }
    }

    /// Reads once; `false` = nothing came in time.
    fn fill(&mut self, wait: Wait) -> Result<bool, Lost> {
        loop {
            let (waits, waited) = self.how_to_wait(wait)?;
            match self.stream.receive(self.inbox.space(), waits) {
                Ok(0) => {
                    return Err(Lost::Closed { inside_frame: self.inbox.has_bytes() });
                }
                Ok(size) => {
                    self.inbox.filled(size);
                    self.keepalive.heard();
                    return Ok(true);
                }
                Err(e) => match e.kind() {
                    ErrorKind::WouldBlock if !waits => {
                        return Ok(false);
                    }
                    ErrorKind::WouldBlock => match self.keepalive.quiet(clock::now(), waited) {
                        Due::Nothing(_) => {}
                        Due::Ping => {
                            self.ping()?;
                            // Bytes that came during the write belong before those that are read
                            // next.
                            return Ok(true);
                        }
                        Due::Gone(span) => return Err(Lost::Silent(span)),
                    },
                    ErrorKind::Interrupted => {}
                    _ => return Err(self.lost(e)),
                },
            }
        }
    }

    /// Whether to wait for bytes; then the kernel's timeout is set to the returned time.
    fn how_to_wait(&mut self, wait: Wait) -> Result<(bool, Duration), Lost> {
        let until = match wait {
            Wait::Not => return Ok((false, Duration::ZERO)),
            Wait::Until(until) => until.map(clock::left),
        };
        let span = match (until, self.keepalive.span(clock::now)) {
            (Some(Duration::ZERO), _) => return Ok((false, Duration::ZERO)),
            (Some(left), Some(span)) => Some(left.min(span)),
            (left, span) => left.or(span),
        };
        self.set_read_timeout(span)?;
        Ok((true, span.unwrap_or_default()))
    }

    /// Sends a ping to a silent broker.
    fn ping(&mut self) -> Result<(), Lost> {
        let now = clock::now();
        // A broker that takes nothing counts as silent, like one that answers nothing.
        self.keepalive.pinged(now);
        match self.write(Frame::Ping { sequence: 0 }, Some(now + PING_TIMEOUT)) {
            Ok(()) | Err(WriteFault::NotBegun) => Ok(()),
            Err(WriteFault::Broken(lost)) => Err(lost),
        }
    }

    fn lost(&self, error: io::Error) -> Lost {
        match self.stream.disagreement() {
            Some(text) => Lost::Tls(text),
            None => Lost::Io(error),
        }
    }

    /// Sets the kernel's read timeout, in whole milliseconds, so that a program that always waits
    /// the same time causes one system call only.
    fn set_read_timeout(&mut self, timeout: Option<Duration>) -> Result<(), Lost> {
        let timeout = timeout.map(|span| {
            let millis = span.as_nanos().div_ceil(1_000_000).max(1);
            Duration::from_millis(u64::try_from(millis).unwrap_or(u64::MAX))
        });
        if timeout != self.read_timeout {
            self.stream.set_read_timeout(timeout).map_err(Lost::Io)?;
            self.read_timeout = timeout;
        }
        Ok(())
    }

    /// Writes a whole frame. Frames that come meanwhile are kept for [`Conn::next`].
    ///
    /// # Errors
    /// The frame was not written as a whole, because the time was over or the connection is lost.
    pub(crate) fn write(&mut self, frame: Frame, until: Option<Instant>) -> Result<(), WriteFault> {
        self.write_after(None, frame, until)
    }

    /// As [`Conn::write`], with a frame before it in the same write.
    pub(crate) fn write_after(
        &mut self,
        first: Option<Frame>,
        frame: Frame,
        until: Option<Instant>,
    ) -> Result<(), WriteFault> {
        let EncodedFrame { head, body } = encode::encode(frame);
        let mut out = std::mem::take(&mut self.out);
        out.clear();
        if let Some(first) = first {
            out.extend_from_slice(&encode::to_bytes(first));
        }
        out.extend_from_slice(&head);
        let result = if body.len() <= COPY_BYTES_MAX {
            out.extend_from_slice(&body);
            self.write_all(&out, &[], until)
        } else {
            self.write_all(&out, &body, until)
        };
        self.out = out;
        result
    }

    /// Shuts the direction to the broker. A silent broker can't be pinged any more, so silence
    /// means nothing from now on.
    pub(crate) fn finish(&mut self, until: Option<Instant>) -> Result<(), Lost> {
        self.keepalive.begin(0);
        self.stream.shut_write();
        while self.stream.has_unsent() {
            if !self.wait_writable(until)? {
                return Err(Lost::Io(ErrorKind::TimedOut.into()));
            }
            match self.stream.flush().map_err(|e| (e.kind(), e)) {
                Ok(()) | Err((ErrorKind::WouldBlock | ErrorKind::Interrupted, _)) => {}
                Err((_, e)) => return Err(self.lost(e)),
            }
        }
        Ok(())
    }

    /// Writes bytes that need not be a frame; for programs that test a broker.
    pub(crate) fn write_raw(&mut self, bytes: &[u8]) -> Result<(), WriteFault> {
        self.write_all(bytes, &[], None)
    }

    fn write_all(
        &mut self,
        first: &[u8],
        second: &[u8],
        until: Option<Instant>,
    ) -> Result<(), WriteFault> {
        let all = first.len() + second.len();
        let mut done = 0;
        // Bytes that a TLS session has taken must leave, too.
        let mut has_left = false;
        while !has_left {
            let result = if done < all {
                let (one, other) = match first.get(done..) {
                    Some(rest) => (rest, second),
                    None => (&[][..], &second[done - first.len()..]),
                };
                self.stream.send(one, other).map(|size| done += size)
            } else {
                self.stream.flush().map(|()| has_left = true)
            };
            match result.map_err(|e| (e.kind(), e)) {
                Ok(()) | Err((ErrorKind::Interrupted, _)) => {}
                Err((ErrorKind::WouldBlock, _)) => {
                    if !self.wait_writable(until).map_err(WriteFault::Broken)? {
                        return Err(if done == 0 {
                            WriteFault::NotBegun
                        } else {
                            WriteFault::Broken(Lost::Io(ErrorKind::TimedOut.into()))
                        });
                    }
                }
                Err((_, e)) => return Err(WriteFault::Broken(self.lost(e))),
            }
        }
        Ok(())
    }

    /// Waits until the socket can be written, and reads what comes meanwhile; `false` = not in
    /// time.
    fn wait_writable(&mut self, until: Option<Instant>) -> Result<bool, Lost> {
        loop {
            let mut events = PollFlags::POLLOUT;
            if self.ended.is_none() && self.ahead_bytes < AHEAD_BYTES_MAX {
                events |= PollFlags::POLLIN;
            }
            let left = until.map(clock::left);
            if left == Some(Duration::ZERO) {
                return Ok(false);
            }
            let quiet = match self.keepalive.stuck(clock::now()) {
                Due::Gone(span) => return Err(Lost::Silent(span)),
                Due::Nothing(Duration::MAX) | Due::Ping => None,
                Due::Nothing(span) => Some(span),
            };
            let timeout = match [left, quiet].into_iter().flatten().min() {
                None => PollTimeout::NONE,
                Some(left) => {
                    // Rounded up, so that the last fraction of a millisecond does not become a busy
                    // loop.
                    let whole = left + Duration::from_millis(1);
                    PollTimeout::try_from(whole).unwrap_or(PollTimeout::MAX)
                }
            };
            let mut fds = [PollFd::new(self.stream.as_fd(), events)];
            match poll(&mut fds, timeout) {
                Ok(_) | Err(Errno::EINTR) => {}
                Err(e) => return Err(Lost::Io(e.into())),
            }
            let ready = fds[0].revents().unwrap_or(PollFlags::empty());
            if ready.contains(PollFlags::POLLIN) {
                self.read_ahead();
            }
            if ready.intersects(PollFlags::POLLOUT | PollFlags::POLLERR | PollFlags::POLLNVAL) {
                self.keepalive.heard();
                return Ok(true);
            }
        }
    }

    /// Reads what is there and keeps its frames. It also keeps the end of the connection, which
    /// [`Conn::next`] reports after the frames.
    pub(crate) fn read_ahead(&mut self) {
        if self.ended.is_some() {
            return;
        }
        // Bytes that were read before come first; an end that is noticed now came after them.
        let result = self.keep_frames().and_then(|()| self.fill(Wait::Not));
        let result = result.and_then(|_| self.keep_frames());
        self.ended = result.err();
    }

    fn keep_frames(&mut self) -> Result<(), Lost> {
        while let Some(frame) = self.inbox.next_frame().map_err(Lost::Wire)? {
            self.ahead_bytes += weight(&frame);
            self.ahead.push_back(frame);
        }
        Ok(())
    }
}

/// For a connection that threads share behind a lock. Each call returns at once; who has to wait
/// does so without the lock, on the descriptor.
impl Conn {
    /// A descriptor of the socket to wait on.
    pub(crate) fn descriptor(&self) -> io::Result<OwnedFd> {
        self.stream.as_fd().try_clone_to_owned()
    }

    /// Reads what is there. Returns its frames, and after those the end of the connection.
    pub(crate) fn read_now(&mut self) -> (VecDeque<Frame>, Option<Lost>) {
        self.read_ahead();
        // The system reports no event for bytes that TLS has decrypted already.
        while self.ended.is_none() && self.stream.has_more() {
            self.read_ahead();
        }
        self.ahead_bytes = 0;
        (std::mem::take(&mut self.ahead), self.ended.take())
    }

    /// Whether frames, or the end of the connection, came while something was written.
    pub(crate) fn has_ahead(&self) -> bool {
        !self.ahead.is_empty() || self.ended.is_some()
    }

    /// Writes what the system takes now, and returns how much that is. Without bytes it sends what
    /// TLS has taken before.
    ///
    /// # Errors
    /// `Ok(None)`: it takes nothing now. Others: the connection is lost.
    pub(crate) fn write_now(&mut self, bytes: &[u8]) -> Result<Option<usize>, Lost> {
        let result = match bytes.is_empty() {
            true => self.stream.flush().map(|()| 0),
            false => self.stream.send(bytes, &[]),
        };
        match result.map_err(|e| (e.kind(), e)) {
            Ok(size) => Ok(Some(size)),
            Err((ErrorKind::WouldBlock | ErrorKind::Interrupted, _)) => Ok(None),
            Err((_, e)) => Err(self.lost(e)),
        }
    }

    /// What is known of the broker's silence.
    pub(crate) fn keepalive(&mut self) -> &mut Keepalive {
        &mut self.keepalive
    }
}

impl AsFd for Conn {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

impl Drop for Conn {
    fn drop(&mut self) {
        self.stream.say_end();
    }
}

/// The approximate size of a kept frame in memory, in bytes.
fn weight(frame: &Frame) -> usize {
    let body = match frame {
        Frame::Data { body, .. } | Frame::Message { body, .. } => body.len(),
        _ => 0,
    };
    size_of::<Frame>() + body
}
