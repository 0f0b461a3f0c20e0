//! The connection that all handles of a bus share. There is no thread of the library: whichever
//! thread waits for something reads the socket for all, and others wait for what it reads. It waits
//! without the lock, so that others publish meanwhile.

use super::Options;
use super::session::{BusSession, Outcome};
use crate::address::Address;
use crate::caller::{self, enter};
use crate::clock;
use crate::conn::{Conn, Lost, WriteFault};
use crate::error::{Code, Error};
use crate::keepalive::Due;
use crate::retry::{self, Backoff, LASTED};
use crate::session::Session;
use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use protocol::{ErrorCode, Frame, Ran};
use std::io::{Read as _, Write as _};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// First and longest wait between two attempts to log in again.
const RETURN_WAITS: (Duration, Duration) = (Duration::from_millis(20), Duration::from_secs(1));
/// Longest attempt to log in again of a call that does not wait for anything.
const ATTEMPT: Duration = Duration::from_secs(1);
/// Longest time for an answer to a ping to wait behind what the broker has not taken yet.
const PONG_TIMEOUT: Duration = Duration::from_secs(1);

struct Link {
    conn: Conn,
    descriptor: Arc<OwnedFd>,
    address: Address,
    since: Instant,
    body_bytes_max: u64,
}

/// What the handles of a bus share.
pub(super) struct State {
    pub(super) session: BusSession,
    link: Option<Link>,
    /// A thread waits for the socket. Independent of the other flags.
    is_reading: bool,
    /// A thread connects. Independent of the other flags.
    is_connecting: bool,
    /// Something came that a waiting thread may want. Independent of the other flags.
    has_news: bool,
    /// Why the last connection was lost, or the last attempt failed.
    lost: Option<Error>,
    /// Why there is no connection and no attempt any more.
    ended: Option<Error>,
    backoff: Backoff,
    next_try: Instant,
    heard: Option<Instant>,
    beaten: Option<Instant>,
}

impl State {
    /// Sends a frame.
    ///
    /// # Errors
    /// There is no connection, or the broker does not take the frame in time. It did not get it.
    pub(super) fn send(&mut self, frame: Frame, timeout: Duration) -> Result<(), Error> {
        let Some(link) = self.link.as_mut() else { return Err(self.no_link()) };
        let result = link.conn.write(frame, Some(clock::until(timeout)));
        if link.conn.has_ahead() {
            self.take_in();
        }
        match result {
            Ok(()) => Ok(()),
            Err(WriteFault::NotBegun) => {
                let millis = timeout.as_millis();
                let text = format!("the broker took no byte of a frame for {millis} ms");
                Err(Error::new(ErrorCode::Timeout, text).with_ran(Ran::No))
            }
            Err(WriteFault::Broken(lost)) => {
                self.lose(lost);
                Err(self.no_link())
            }
        }
    }

    /// Why there is no connection.
    pub(super) fn no_link(&self) -> Error {
        let why = self.ended.as_ref().or(self.lost.as_ref()).cloned();
        let text = "there is no connection to the broker";
        why.unwrap_or_else(|| Error::new(ErrorCode::BrokerLost, text)).with_ran(Ran::No)
    }

    /// Reads what is there, and handles it.
    pub(super) fn take_in(&mut self) {
        let Some(link) = self.link.as_mut() else { return };
        let (frames, lost) = link.conn.read_now();
        self.has_news |= !frames.is_empty() || lost.is_some();
        if !frames.is_empty() {
            self.heard = Some(clock::now());
        }
        for frame in frames {
            match self.session.receive(frame) {
                Ok(Outcome::Quiet) => {}
                Ok(Outcome::Answer(answer)) => {
                    // The next read reports a failure.
                    drop(link.conn.write(answer, Some(clock::until(PONG_TIMEOUT))));
                }
                Err(error) => return self.drop_link(error),
            }
        }
        if let Some(lost) = lost {
            self.lose(lost);
        }
    }

    /// Nothing came for so long: the broker is pinged, or it is gone.
    fn note_silence(&mut self, waited: Duration) {
        let Some(link) = self.link.as_mut() else { return };
        match link.conn.keepalive().quiet(clock::now(), waited) {
            Due::Nothing(_) => {}
            Due::Ping => {
                let now = clock::now();
                link.conn.keepalive().pinged(now);
                let ping = Frame::Ping { sequence: 0 };
                if let Err(WriteFault::Broken(lost)) =
                    link.conn.write(ping, Some(clock::until(PONG_TIMEOUT)))
                {
                    self.lose(lost);
                }
            }
            Due::Gone(span) => self.lose(Lost::Silent(span)),
        }
    }

    fn lose(&mut self, lost: Lost) {
        let Some(link) = self.link.as_mut() else { return };
        // What the broker said before it closed is a better reason than "broken pipe".
        let (frames, _) = link.conn.read_now();
        let error = lost.into_error(&link.address);
        for frame in frames {
            if self.session.receive(frame).is_err() {
                break;
            }
        }
        self.drop_link(error);
    }

    fn drop_link(&mut self, why: Error) {
        let Some(link) = self.link.take() else { return };
        let error = self.session.lost(why);
        self.has_news = true;
        let now = clock::now();
        if now.saturating_duration_since(link.since) >= LASTED {
            self.backoff.reset();
        }
        self.failed(error);
    }

    /// Notes why there is no connection, and when the next attempt is due.
    fn failed(&mut self, error: Error) {
        let is_worth = matches!(error.code, Code::Isect(code) if retry::is_retryable(code));
        if !is_worth && self.ended.is_none() {
            self.end(error.clone());
        }
        self.next_try = clock::until(self.backoff.next_wait(clock::random()));
        self.lost = Some(error);
    }

    /// No connection is made again.
    pub(super) fn end(&mut self, why: Error) {
        self.session.end(&why);
        self.ended = Some(why);
        self.has_news = true;
    }

    /// Ends the connection for good.
    pub(super) fn close(&mut self, why: Error) {
        self.link = None;
        self.end(why);
    }

    /// Whether there is a connection.
    ///
    /// # Errors
    /// There is none, and none is made again.
    pub(super) fn standing(&self) -> Result<bool, Error> {
        match (&self.link, &self.ended) {
            (Some(_), _) => Ok(true),
            (None, Some(why)) => Err(why.clone()),
            (None, None) => Ok(false),
        }
    }

    /// Most bytes of a frame's body; `None` = there is no connection.
    pub(super) fn body_bytes_max(&self) -> Option<u64> {
        self.link.as_ref().map(|link| link.body_bytes_max)
    }

    /// When something of the broker came last.
    pub(super) fn heard(&self) -> Option<Instant> {
        self.heard
    }

    /// The address of the broker; `None` = there is no connection.
    pub(super) fn address(&self) -> Option<&Address> {
        self.link.as_ref().map(|link| &link.address)
    }

    /// How long until a beat is due, or an attempt to connect; `None` = no instance is watched.
    pub(super) fn beat_due(&self) -> Option<Duration> {
        if self.link.is_none() {
            return Some(clock::left(self.next_try));
        }
        let every = self.session.instances.beat_every()?;
        Some(self.beaten.map_or(Duration::ZERO, |at| clock::left(clock::after(at, every))))
    }

    /// Notes that the instances beat now.
    pub(super) fn beat(&mut self) -> Vec<Frame> {
        self.beaten = Some(clock::now());
        self.session.instances.beat()
    }
}

/// The connection with its lock.
pub(super) struct Shared {
    addresses: Vec<Address>,
    pub(super) options: Options,
    login: caller::Options,
    state: Mutex<State>,
    /// Something came, a connection was made or lost, or nobody reads any more.
    changed: Condvar,
    /// Wakes the thread that waits for the socket, when another one has read what it waits for.
    wake: UnixStream,
    woken: UnixStream,
}

type Guard<'a> = MutexGuard<'a, State>;

impl Shared {
    /// Connects and logs in.
    pub(super) fn open(addresses: &[Address], options: Options) -> Result<Self, Error> {
        let login = options.login();
        let io = |e: std::io::Error| {
            let text = format!("the system gives no pair of sockets: {e}");
            Error::new(ErrorCode::Internal, text).with_source(e)
        };
        let (wake, woken) = UnixStream::pair().map_err(io)?;
        wake.set_nonblocking(true).and_then(|()| woken.set_nonblocking(true)).map_err(io)?;
        let mut state = State {
            session: BusSession::new(options.room()),
            link: None,
            is_reading: false,
            is_connecting: false,
            has_news: false,
            lost: None,
            ended: None,
            backoff: Backoff::new(RETURN_WAITS.0, RETURN_WAITS.1),
            next_try: clock::now(),
            heard: None,
            beaten: None,
        };
        let (conn, address, session) = enter(addresses, &login, Session::new(), None)?;
        install(&mut state, conn, address, session.limits().body_bytes_max, options.answer_timeout);
        Ok(Self {
            addresses: addresses.to_vec(),
            options,
            login,
            state: Mutex::new(state),
            changed: Condvar::new(),
            wake,
            woken,
        })
    }

    /// Locks the state. A thread that panicked has left it whole: each change is one call.
    pub(super) fn lock(&self) -> Guard<'_> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Does something with the state. If there is no connection and an attempt is due, it is made
    /// before.
    pub(super) fn with<T>(&self, act: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.lock();
        let may = self.options.reconnect && state.ended.is_none() && !state.is_connecting;
        if state.link.is_none() && may && clock::left(state.next_try).is_zero() {
            state = self.connect(state, Some(clock::until(ATTEMPT)));
        }
        let done = act(&mut state);
        self.tell(state);
        done
    }

    /// Lets waiting threads look at what came.
    pub(super) fn tell(&self, mut state: Guard<'_>) {
        if std::mem::take(&mut state.has_news) {
            if state.is_reading {
                // A full socket wakes as well.
                let _ = (&self.wake).write(&[0]);
            }
            drop(state);
            self.changed.notify_all();
        }
    }

    /// Waits until `ready` has something; `None` = not in time.
    ///
    /// # Errors
    /// There is no connection, and none is made again.
    pub(super) fn wait<T>(
        &self,
        until: Option<Instant>,
        mut ready: impl FnMut(&mut State) -> Option<T>,
    ) -> Result<Option<T>, Error> {
        let mut state = self.lock();
        let mut is_last = false;
        loop {
            if let Some(found) = ready(&mut state) {
                self.tell(state);
                return Ok(Some(found));
            }
            if let Some(error) = state.ended.clone().filter(|_| state.link.is_none()) {
                return Err(error);
            }
            if is_last {
                self.tell(state);
                return Ok(None);
            }
            if until.map(clock::left) == Some(Duration::ZERO) {
                is_last = true;
                if !state.is_reading {
                    state.take_in();
                }
                continue;
            }
            state = if state.link.is_none() {
                self.come_back(state, until)
            } else if state.is_reading {
                self.pause(state, until)
            } else {
                self.read(state, until)
            };
        }
    }

    /// Waits until another thread has done something.
    fn pause<'a>(&'a self, state: Guard<'a>, until: Option<Instant>) -> Guard<'a> {
        match until.map(clock::left) {
            None => self.changed.wait(state).unwrap_or_else(PoisonError::into_inner),
            Some(left) => {
                let result = self.changed.wait_timeout(state, left);
                result.unwrap_or_else(PoisonError::into_inner).0
            }
        }
    }

    /// Waits for the socket without the lock, and reads.
    fn read<'a>(&'a self, mut state: Guard<'a>, until: Option<Instant>) -> Guard<'a> {
        let Some(link) = state.link.as_mut() else { return state };
        let span = link.conn.keepalive().span(clock::now);
        let wait = [until.map(clock::left), span].into_iter().flatten().min();
        let descriptor = Arc::clone(&link.descriptor);
        state.is_reading = true;
        // Others that wait know who reads.
        drop(state);
        let ready = self.wait_for_socket(&descriptor, wait);
        let mut state = self.lock();
        state.is_reading = false;
        match ready {
            Ok(true) => state.take_in(),
            Ok(false) => state.note_silence(wait.unwrap_or_default()),
            Err(Errno::EINTR) => {}
            Err(e) => state.lose(Lost::Io(e.into())),
        }
        state.has_news = false;
        // Also one that is to read now.
        self.changed.notify_all();
        state
    }

    /// Waits until the socket can be read, or another thread says that something came; `false` =
    /// the time is over.
    fn wait_for_socket(&self, socket: &OwnedFd, span: Option<Duration>) -> Result<bool, Errno> {
        // Rounded up, so that the last fraction of a millisecond does not become a busy loop.
        let timeout = match span {
            None => PollTimeout::NONE,
            Some(span) => {
                PollTimeout::try_from(span + Duration::from_millis(1)).unwrap_or(PollTimeout::MAX)
            }
        };
        let mut fds = [
            PollFd::new(socket.as_fd(), PollFlags::POLLIN),
            PollFd::new(self.woken.as_fd(), PollFlags::POLLIN),
        ];
        let count = poll(&mut fds, timeout)?;
        if fds[1].any() == Some(true) {
            let mut bytes = [0; 64];
            while (&self.woken).read(&mut bytes).is_ok_and(|size| size == bytes.len()) {}
        }
        Ok(count > 0)
    }

    /// Connects, or waits until that is due or another thread has done it.
    fn come_back<'a>(&'a self, mut state: Guard<'a>, until: Option<Instant>) -> Guard<'a> {
        if !self.options.reconnect {
            let why = state.no_link();
            state.end(why);
            return state;
        }
        if state.is_connecting {
            return self.pause(state, until);
        }
        if !clock::left(state.next_try).is_zero() {
            let next = state.next_try;
            return self.pause(state, Some(until.map_or(next, |until| until.min(next))));
        }
        self.connect(state, until)
    }

    /// Makes one attempt to connect and to log in, without the lock.
    fn connect<'a>(&'a self, mut state: Guard<'a>, until: Option<Instant>) -> Guard<'a> {
        state.is_connecting = true;
        drop(state);
        let entered = enter(&self.addresses, &self.login, Session::new(), until);
        let mut state = self.lock();
        state.is_connecting = false;
        match entered {
            Ok((conn, address, session)) => {
                let size = session.limits().body_bytes_max;
                install(&mut state, conn, address, size, self.options.answer_timeout);
            }
            Err(error) => state.failed(error),
        }
        self.changed.notify_all();
        state
    }
}

/// Uses a new connection: what was open on the one before is asked for again.
fn install(state: &mut State, conn: Conn, address: Address, body_bytes_max: u64, wait: Duration) {
    let descriptor = match conn.descriptor() {
        Ok(descriptor) => Arc::new(descriptor),
        Err(e) => return state.failed(Lost::Io(e).into_error(&address)),
    };
    let now = clock::now();
    state.link = Some(Link { conn, descriptor, address, since: now, body_bytes_max });
    state.heard = Some(now);
    state.beaten = None;
    for frame in state.session.resume() {
        if state.send(frame, wait).is_err() {
            return;
        }
    }
    state.take_in();
}
