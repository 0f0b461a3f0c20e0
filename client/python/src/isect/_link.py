"""One connection of the blocking front, which any number of threads use.

There is no event loop and, while threads wait for answers, no thread of the library: of the threads
that wait one reads (the *reader*), and hands the answers of the others to them. When it has its own
it hands the reading on. A helper thread reads only while futures are under way and nobody waits for
them, or where the login promised to answer pings at once.

What must hold
--------------
- `lock` is held for each use of the session, and for no wait. `with` takes it, so that an interrupt
  (KeyboardInterrupt) can't leave it locked.
- Bytes are read by `inbox.extend(map(recv, …))` and counted by `sent.extend(map(send, …))`: one
  call of C code that reads and keeps. An interrupt comes before or after it, so no byte is lost.
- `is_busy` is set while a change is half made. If an interrupt leaves it so, the connection is
  dropped: nobody gets an answer that is not his.
- User's code (callbacks of futures) never runs with the lock held: `finished` holds what is to be
  told, and `settle` tells it.
"""

from __future__ import annotations

import os
import threading
import weakref
from _thread import get_ident, start_new_thread
from collections import deque
from collections.abc import Callable
from random import random
from time import monotonic, sleep
from typing import Any

from . import _tables as t
from ._dial import DONT_WAIT, READ_BYTES, Options, Pipe, dial, log_in, tls_fault
from ._errors import DeadlineExceeded, ForkedError, IsectError, error, with_ran
from ._keepalive import GONE, PING, Keepalive
from ._logs import log, logger
from ._session import (ANSWER, BROKEN, CLOSED, FAILED, FLUSHED, FRESH, NEWS, OPEN, PIECE, PUBLISHED,
                       REFUSED, Event, Session, millis)
from ._topics import Topic
from ._wire import NO_TRACE

#: Time to wait past a request's deadline for the broker's own error, which says whether it ran.
GRACE = 0.5
#: A connection that was quiet this long is checked before it is used.
QUIET = 0.1
#: First and longest wait between two attempts to log in again, in seconds.
RETURN_WAITS = (0.02, 1.0)
#: A connection that lasted this long begins the waits anew.
LASTED = 5.0
#: Most requests that wait for room on the connection, or for the connection.
BACKLOG_MAX = 100_000
#: Most bytes of frames that are written with one call.
JOINED_BYTES_MAX = 262_144
#: How often a thread that writes looks whether another one still reads, in seconds.
DRAIN_LOOK = 0.01
#: How often a thread that waits looks whether another one still reads, in seconds.
FOLLOW_LOOK = 0.2
#: How often the helper looks whether a thread still reads, in seconds: at first, at most while
#: futures are under way, and otherwise.
TICK = 0.0005
TICK_MAX = 0.008
SLOW_TICK = 0.05
#: How long the helper waits for more to do before it ends.
LINGER = 1.0

_READ = (READ_BYTES,)
_FLAGS = (DONT_WAIT,)


class Slot:
    """A request of this side, and its outcome."""

    __slots__ = ("sequence", "body", "flags", "priority", "trace_id", "span_id", "timeout", "until",
                 "wait_until", "may_have_run", "is_done", "value", "error", "parts", "size")

    #: Whether the library may send it again by itself.
    is_repeatable = True
    #: Whether outcomes are told by `Link.settle`.
    is_told = False
    #: Whether its answer goes on for ever, so that the service's deadline does not count.
    is_endless = False

    sequence: int
    value: Any
    error: IsectError | None

    def __init__(
        self, body: bytes = b"", flags: int = 0, priority: int = 0, trace_id: bytes = NO_TRACE,
        span_id: int = 0, timeout: float | None = None,
    ) -> None:
        self.sequence = 0
        self.body = body
        self.flags = flags
        self.priority = priority
        self.trace_id = trace_id
        self.span_id = span_id
        #: What was said, in seconds; None = the service's default.
        self.timeout = timeout
        #: When its time is over; None = never.
        self.until: float | None = None
        #: When this side waits no longer.
        self.wait_until: float | None = None
        self.may_have_run = False
        self.is_done = False
        self.value = None
        self.error = None
        self.parts: Any = None
        self.size = 0

    # The link calls these with its lock held.

    def answered(self, link: Link, value: Any) -> None:
        """The last frame of the answer has come."""
        if self.parts is None:
            self.value = value
        elif self.size + len(value) > link.options.reply_bytes_max:
            self.error = too_large(link.options.reply_bytes_max)
        else:
            self.parts.append(value)
            self.value = b"".join(self.parts)
        self.is_done = True

    def came(self, link: Link, value: bytes, head: tuple[Any, ...]) -> None:
        """A frame of the answer has come, and more follow."""
        if self.parts is None:
            self.parts = []
        self.parts.append(value)
        self.size += len(value)
        if self.size > link.options.reply_bytes_max:
            link.give_up(self)
            self.failed(link, too_large(link.options.reply_bytes_max))

    def failed(self, link: Link, failure: IsectError) -> None:
        """It has ended without an answer."""
        self.error = failure
        self.is_done = True

    def result(self) -> Any:
        """The answer. Raises the error."""
        if self.error is not None:
            raise self.error
        return self.value


class Ask(Slot):
    """Something that the broker itself answers."""

    __slots__ = ()

    is_repeatable = False

    def answered(self, link: Link, value: Any) -> None:
        self.value = value
        self.is_done = True


def too_large(limit: int) -> IsectError:
    """The error for an answer that is longer than this side wants to hold."""
    return error("body_too_large", f"the answer exceeds reply_bytes_max {limit}; take it piece by "
                                   "piece with stream()", ran="yes")


class Helper:
    """Stands for the helper thread where the reader is named."""


_HELPER = Helper()

_links: weakref.WeakSet[Link] = weakref.WeakSet()


class Link:
    """The connection to one service."""

    def __init__(
        self, service: str, options: Options, lines: list[tuple[str, str]] | None = None,
        is_constant: bool = False,
    ) -> None:
        """`is_constant`: the helper thread reads whenever nobody else does, so that pings are
        answered and what comes is there."""
        self.service = service
        self.options = options
        self.lines = lines or []
        self.is_constant = is_constant
        self.lock = threading.Lock()
        self.session = Session()
        self.pipe: Pipe | None = None
        #: Who reads, or connects; None = nobody.
        self.reader: object = None
        self._reader_thread = 0
        #: Threads that wait for the reader, by what they wait for.
        self.followers: dict[object, list[Any]] = {}
        #: What each of these threads waits for.
        self._follows: dict[int, tuple[object, Any]] = {}
        #: Requests that wait for room, or for the connection.
        self.backlog: deque[Any] = deque()
        #: Requests whose outcome is to be told without the lock.
        self.finished: deque[Any] = deque()
        #: Requests that were sent and have no outcome, should the session lose them because a
        #: thread was interrupted in the middle of it.
        self.live: set[Any] = set()
        #: Futures under way.
        self.pending: set[Any] = set()
        self.sent: list[int] = []
        self.outbox: list[bytes] = []
        #: What is being written, of how many frames of the outbox, and their length.
        self._raw: bytes | memoryview | None = None
        self._raw_count = 0
        self.is_busy = False
        self.keepalive = Keepalive()
        self._default: float | None = None
        self._used = 0.0
        self._since = 0.0
        self._wait = RETURN_WAITS[0]
        self.next_try = 0.0
        #: Why the connection was lost, or the last attempt failed.
        self.last_error: IsectError | None = None
        #: Why there is no connection and no attempt any more.
        self.ended: IsectError | None = None
        self.was_up = False
        self.is_forked = False
        #: When the instances of the connection beat last.
        self.beaten = 0.0
        self._reads = 0
        self._has_helper = False
        #: Locked while the helper need not look. A `threading.Event` is made of Python's own code,
        #: and an interrupt in the middle of that would leave it locked for ever.
        self._helper_news = threading.Lock()
        self._helper_news.acquire()
        #: What is to be logged, once the lock is free: logging has locks of its own.
        self._notes: deque[tuple[int, str, object]] = deque(maxlen=100)
        self._lingers = False
        self._tick = TICK
        self._overdue_at = 0.0
        #: What was given up by objects that are gone.
        self.orphans: deque[Any] = deque()
        _links.add(self)

    # Requests.

    def perform(self, slot: Slot) -> Any:
        """Sends a request and waits for its whole answer."""
        try:
            with self.lock:
                self.begin(slot)
            if self.outbox and self.reader is not None:
                # The reader does not wait for room to write.
                self.drain(slot.wait_until)
            while not self.wait(slot, slot.wait_until, None, slot):
                # Its worker may have put the deadline off.
                if slot.wait_until is None or monotonic() >= slot.wait_until:
                    self.expire(slot)
                    break
        except BaseException:
            self.abandon(slot)
            raise
        if slot.error is not None:
            raise slot.error
        return slot.value

    def begin(self, slot: Any) -> None:
        """Sends a request, or lets it wait for the connection; the lock is held. Raises if it can't
        be sent; it has not run then."""
        if self.is_busy:
            self._interrupted()
        now = monotonic()
        timeout = slot.timeout
        if timeout is None:
            timeout = None if slot.is_endless else self._default
            deadline_ms = 0
        else:
            deadline_ms = millis(timeout)
        self.is_busy = True
        if timeout is not None:
            slot.until = now + timeout
            slot.wait_until = slot.until + GRACE
        session = self.session
        if now - self._used > QUIET and self.reader is None and self.pipe is not None:
            self._look()
        if session.phase == OPEN and session.room > 0 and not self.backlog:
            try:
                slot.sequence, made = session.request(slot, slot.body, slot.flags, deadline_ms,
                                                      slot.priority, slot.trace_id, slot.span_id)
            except IsectError:
                self.is_busy = False
                raise
            self._used = now
            self.live.add(slot)
            self.outbox.append(made)
            if not self._flush() and self.reader is None:
                self._fault_seen()
        else:
            self._check_up()
            if len(self.backlog) >= BACKLOG_MAX:
                self.is_busy = False
                raise error("too_many_requests", f"{BACKLOG_MAX} requests wait for room on the "
                            f"connection to service '{self.service}'; at most so many may")
            if slot.until is None and session.phase != OPEN:
                slot.wait_until = now + self.options.timeout
            self.backlog.append(slot)
            if session.phase == OPEN and session.room > 0 and self.pipe is not None:
                self._unbacklog()
        self.is_busy = False

    def _check_up(self) -> None:
        """Raises if there is no connection, and none is made any more."""
        if self.is_forked:
            self.is_busy = False
            raise forked()
        if self.ended is not None:
            self.is_busy = False
            raise with_ran(self.ended, "no")

    def _unbacklog(self) -> None:
        """Sends what waits, as far as there is room; the lock is held."""
        session = self.session
        backlog = self.backlog
        now = monotonic()
        while backlog and session.phase == OPEN and session.room > 0:
            slot = backlog.popleft()
            if slot.is_done:
                continue
            deadline_ms = 0
            if slot.timeout is not None:
                left = slot.until - now
                if left <= 0:
                    self._tell(slot, None, _late(self.service, "no"))
                    continue
                deadline_ms = millis(left)
            elif slot.until is None and self._default is not None and not slot.is_endless:
                slot.until = now + self._default
                slot.wait_until = slot.until + GRACE
            elif slot.until is None:
                slot.wait_until = None
            try:
                slot.sequence, made = session.request(slot, slot.body, slot.flags, deadline_ms,
                                                      slot.priority, slot.trace_id, slot.span_id)
            except IsectError as why:
                self._tell(slot, None, why)
                continue
            self._used = now
            self.live.add(slot)
            self.outbox.append(made)
        if self.outbox:
            self._flush()

    def give_up(self, slot: Slot) -> str:
        """Forgets a request, and tells the broker; the lock is held. Returns whether it has run, as
        far as this side knows: `no` or `maybe`."""
        self.live.discard(slot)
        if slot in self.backlog:
            self.backlog.remove(slot)
            return "no"
        sequence = slot.sequence
        if not sequence or self.pipe is None or not self.session.has(sequence):
            return "maybe"
        number = sequence.to_bytes(4, "big")
        own = [at for at, made in enumerate(self.outbox) if made[4:8] == number]
        begun = self._raw_count if self._raw is not None else 0
        if own and own[0] < begun:
            self.session.unsent(sequence)
            self._lose("the broker took a part of a request only, and nothing more in time")
            return "no" if self.session.phase != OPEN else "maybe"
        if own and self.session.is_whole(sequence):
            del self.outbox[own[0]]
            self.session.unsent(sequence)
            return "no"
        out = self.session.give_up(sequence)
        if out:
            self.outbox.append(out)
            self._flush()
        return "maybe"

    def abandon(self, slot: Any) -> None:
        """This thread was interrupted while it waited for the request."""
        with self.lock:
            self._release(slot)
            if not slot.is_done:
                if self.is_busy:
                    self._interrupted()
                else:
                    self.give_up(slot)
                slot.is_done = True
        self.settle()

    def disown(self, slot: Any) -> None:
        """An object that nobody has any more gives its request or subscription up. Python may call
        this in the middle of anything, so it waits for no lock."""
        self.orphans.append(slot)
        if self.lock.acquire(False):
            try:
                if not self.is_busy:
                    self._bury()
            finally:
                self.lock.release()

    def _bury(self) -> None:
        """Gives up what nobody has any more; the lock is held."""
        while self.orphans:
            slot = self.orphans.popleft()
            if isinstance(slot, Topic):
                out = self.session.unsubscribe(slot)
                if out and self.pipe is not None:
                    self.write(out)
            elif not slot.is_done:
                slot.is_done = True
                self.give_up(slot)

    def disown_all(self) -> None:
        """The broker object is gone without a `close`."""
        if not self.is_forked and self.lock.acquire(False):
            try:
                pipe = self.pipe
                if pipe is not None and self.session.phase == OPEN and not self.outbox:
                    self.write(self.session.logout())
                self.is_busy = False
                self._drop(error("bad_state", "the broker object of this connection is gone"))
                self.ended = self.ended or self.last_error
            finally:
                self.lock.release()

    def expire(self, slot: Any) -> None:
        """Nothing came for a request in time."""
        with self.lock:
            if slot.is_done:
                return
            waits = slot in self.backlog
            ran = self.give_up(slot)
            if waits and self.pipe is None and self.last_error is not None:
                failure = with_ran(self.last_error, "no")
            else:
                failure = _late(self.service, ran)
            self._tell(slot, None, failure)
        self.settle()

    # Waiting.

    def wait(
        self, slot: Any, until: float | None, ready: Callable[[], object] | None = None,
        token: object = None,
    ) -> bool:
        """Waits until the slot is done, or `ready()` (called with the lock held) says so; False =
        not in time. Raises why no connection is made any more, if that is so and nothing can
        come."""
        if token is None:
            token = object()
        while True:
            waker = None
            limit = until
            if ready is None and slot.wait_until is not None:
                # A piece of the answer may have brought the deadline forward.
                limit = slot.wait_until if until is None else min(until, slot.wait_until)
            try:
                with self.lock:
                    if slot.is_done if ready is None else ready():
                        break
                    if self.is_busy:
                        self._interrupted()
                        continue
                    if self.pipe is None:
                        self._check_up()
                    if self.reader is None or self._reader_thread == get_ident():
                        # What this thread itself has left behind, because it was interrupted in
                        # the middle of a wait, counts as nobody.
                        self._reader_thread = get_ident()
                        self.reader = token
                    else:
                        waker = self._follow(slot)
                if waker is None:
                    if self._lead(slot, token, limit, ready):
                        break
                    if limit is not None and monotonic() >= limit:
                        return False
                    continue
                left = -1.0 if limit is None else limit - monotonic()
                if limit is not None and left <= 0:
                    return False
                # Who was to wake this thread may have been interrupted itself.
                waker.acquire(timeout=FOLLOW_LOOK if left < 0 or left > FOLLOW_LOOK else left)
            finally:
                if waker is not None or self.reader is token:
                    with self.lock:
                        if waker is not None:
                            self._unfollow()
                        self._release(token)
                        if self.reader is None and self.followers:
                            self._hand_over()
        if self.finished or self._notes:
            self.settle()
        return True

    def _follow(self, slot: object) -> Any:
        waker = threading.Lock()
        waker.acquire()
        thread = get_ident()
        if thread in self._follows:
            # This thread was interrupted before it could take itself off.
            self._unfollow()
        self._follows[thread] = slot, waker
        self.followers.setdefault(slot, []).append(waker)
        return waker

    def _unfollow(self) -> None:
        """This thread follows nobody any more; the lock is held."""
        slot, waker = self._follows.pop(get_ident(), (None, None))
        wakers = self.followers.get(slot)
        if wakers is not None:
            if waker in wakers:
                wakers.remove(waker)
            if not wakers:
                del self.followers[slot]

    def _lead(
        self, slot: Any, token: object, until: float | None, ready: Callable[[], object] | None
    ) -> bool:
        """Reads until the slot is done; False = not in time, or somebody else is to read."""
        now = None
        while True:
            self.drive(until, now)
            with self.lock:
                self.take_in()
                if slot.is_done if ready is None else ready():
                    self._release(token)
                    return True
                if ready is None and slot.wait_until is not None and (
                        until is None or slot.wait_until < until):
                    until = slot.wait_until
                if self.reader is not token:
                    # The connection was given up meanwhile; begin anew.
                    return False
                if self.pipe is None and not self.backlog:
                    self._check_up()
                if self.finished:
                    # What is told calls the program, which may ask and wait itself.
                    self._release(token)
            if self.finished:
                self.settle()
                return False
            if until is not None:
                now = monotonic()
                if now >= until:
                    return False

    def _release(self, token: object) -> None:
        """This thread reads no more; the lock is held."""
        if self.reader is token:
            self.reader = None
            self._reader_thread = 0
            if self.followers:
                self._hand_over()

    def _hand_over(self) -> None:
        """Wakes one of those that wait, so that it reads; the lock is held."""
        for wakers in self.followers.values():
            for waker in wakers:
                if waker.locked():
                    waker.release()
                    return

    def wake(self, slot: object) -> None:
        for waker in self.followers.get(slot, ()):
            if waker.locked():
                waker.release()

    def drive(self, until: float | None, now: float | None = None) -> None:
        """Waits for the connection to have something, reads, and connects if need be. For the
        reader, without the lock; `take_in` handles what was read."""
        pipe = self.pipe
        if pipe is None:
            self._come_back(until)
            return
        if pipe.inbox:
            return
        keepalive = self.keepalive
        span = keepalive.first_span
        if span is None and keepalive.silence:
            span = keepalive.span(monotonic())
        if until is not None:
            left = until - (monotonic() if now is None else now)
            if left <= 0:
                left = 0.001
            if span is None or left < span:
                span = left
        self._reads += 1
        try:
            if self.outbox:
                reads, writes = pipe.wait(True, True, span)
                if writes:
                    with self.lock:
                        self._flush()
                if reads:
                    pipe.inbox.extend(map(pipe.recv, _READ))
                elif not writes:
                    self._quiet(span)
                return
            pipe.set_timeout(span)
            pipe.inbox.extend(map(pipe.recv, _READ))
        except BlockingIOError:
            self._quiet(span)
        except OSError as why:
            pipe.fault = why

    def _quiet(self, waited: float | None) -> None:
        """Nothing came for so long."""
        with self.lock:
            pipe = self.pipe
            if pipe is None or not self.keepalive.silence:
                return
            now = monotonic()
            what = self.keepalive.quiet(now, waited or 0.0)
            if what == GONE:
                self._lose(f"the broker at {pipe.address} said nothing for "
                           f"{self.keepalive.silence * 1000:.0f} ms and answered no ping")
            elif what == PING and self.session.phase == OPEN:
                self.keepalive.pinged(now)
                self.outbox.append(self.session.ping())
                self._flush()

    def take_in(self) -> None:
        """Handles what was read; the lock is held."""
        if self.is_busy:
            self._interrupted()
        self.is_busy = True
        if self.orphans:
            self._bury()
        pipe = self.pipe
        if pipe is not None:
            inbox = pipe.inbox
            while inbox:
                data = inbox[0]
                del inbox[0]
                if pipe.tls is not None and data:
                    data = self._open(pipe, data)
                    if data is None:
                        continue
                if not data:
                    inside = "" if self.session.is_between_frames else " inside a frame"
                    self._lose(f"the broker at {pipe.address} closed the connection{inside}")
                    break
                self.keepalive.heard()
                self._handle(self.session.receive(data))
                if self.pipe is not pipe:
                    break
            if pipe.fault is not None and self.pipe is pipe:
                self._fault_seen()
            if self.backlog and self.pipe is not None:
                self._unbacklog()
        self.is_busy = False

    def _open(self, pipe: Pipe, data: bytes) -> Any:
        assert pipe.tls is not None
        try:
            plain, is_end, answer = pipe.tls.open(data)
        except OSError as why:
            failure = tls_fault(why, pipe.tls)
            self._drop(error("broker_lost", f"the connection to the broker at {pipe.address} "
                                            f"broke: {failure.text}"))
            return None
        if answer:
            self._send_raw(pipe, answer)
        if is_end:
            pipe.inbox.insert(0, b"")
        return plain or None

    def _send_raw(self, pipe: Pipe, raw: bytes) -> None:
        """Sends what TLS says by itself; before frames, if some are half written."""
        if self._raw is None:
            self.outbox.insert(0, b"")
            self._raw, self._raw_count = raw, 1
        else:
            self._raw = bytes(self._raw) + raw
        self._flush()

    def _handle(self, events: list[Event]) -> None:
        session = self.session
        followers = self.followers
        live = self.live
        for slot, what, value, head in events:
            if what == ANSWER:
                slot.answered(self, value)
                live.discard(slot)
                if slot.is_told:
                    self.finished.append(slot)
            elif what == PIECE:
                within = session.next_within(slot.sequence, head)
                if within is not None:
                    slot.wait_until = monotonic() + within + GRACE
                slot.came(self, value, head)
                if slot.is_done and slot.is_told:
                    self.finished.append(slot)
            elif what == FAILED:
                self._tell(slot, None, value)
            elif what in (PUBLISHED, FLUSHED):
                self._tell(slot, value, None)
            elif what == BROKEN:
                self._drop(value)
                return
            elif what == REFUSED:
                self._notes.append((30, "the broker refused a message: %s", value))
            if followers and slot is not None:
                self.wake(slot)
        if session.outgoing:
            self.outbox += session.outgoing
            session.outgoing.clear()
            self._flush()

    def _tell(self, slot: Any, value: Any, failure: IsectError | None) -> None:
        """Gives a slot its outcome."""
        self.live.discard(slot)
        if failure is None:
            slot.answered(self, value)
        else:
            if slot.may_have_run and failure.ran == "no":
                failure = with_ran(failure, "maybe")
            slot.failed(self, failure)
        if slot.is_told:
            self.finished.append(slot)
        if self.followers:
            self.wake(slot)

    def settle(self) -> None:
        """Tells futures their outcome; without the lock, because it calls the program's code."""
        finished = self.finished
        while finished:
            try:
                slot = finished[0]
            except IndexError:
                return
            self.pending.discard(slot)
            # It stays there until it is told: if this thread is interrupted, another one tells it.
            slot.settle()
            try:
                finished.remove(slot)
            except ValueError:
                pass
        while self._notes:
            try:
                level, text, value = self._notes.popleft()
            except IndexError:
                return
            log(level, text, value)

    # Writing.

    def write(self, made: bytes) -> None:
        """Sends a frame; the lock is held."""
        self.outbox.append(made)
        if not self._flush() and self.reader is None:
            self._fault_seen()

    def drain(self, until: float | None) -> None:
        """Waits until all that was written has left; without the lock."""
        while self.outbox and self.pipe is not None:
            token = object()
            with self.lock:
                leads = self.reader is None
                if leads:
                    self._reader_thread = get_ident()
                    self.reader = token
            try:
                if leads:
                    self.drive(until)
                    with self.lock:
                        self.take_in()
                else:
                    pipe = self.pipe
                    # The reader may go, and the broker take nothing before it is read.
                    if pipe is not None and pipe.wait(False, True, DRAIN_LOOK)[1]:
                        with self.lock:
                            self._flush()
            finally:
                if self.reader is token:
                    with self.lock:
                        self._release(token)
            self.settle()
            if until is not None and monotonic() >= until:
                return

    def _flush(self) -> bool:
        """Writes what the system takes now; True = nothing is left. The lock is held."""
        was_busy = self.is_busy
        self.is_busy = True
        is_all = self._write_out()
        self.is_busy = was_busy
        return is_all

    def _write_out(self) -> bool:
        pipe = self.pipe
        outbox = self.outbox
        sent = self.sent
        if pipe is None:
            return True
        while outbox:
            raw = self._raw
            if raw is None:
                count = len(outbox)
                if count == 1:
                    raw = outbox[0]
                else:
                    size = count = 0
                    for made in outbox:
                        size += len(made)
                        count += 1
                        if size > JOINED_BYTES_MAX:
                            break
                    raw = b"".join(outbox[:count])
                if pipe.tls is not None:
                    raw = pipe.tls.seal(raw)
                self._raw_count = count
                self._raw = raw
            if not sent:
                try:
                    sent.extend(map(pipe.send, (raw,), _FLAGS))
                except BlockingIOError:
                    return False
                except OSError as why:
                    pipe.fault = why
                    # Whoever reads comes to the end of what is there.
                    pipe.stop_reading()
                    return False
            done = sent.pop()
            if done < len(raw):
                self._raw = memoryview(raw)[done:]
            else:
                del outbox[:self._raw_count]
                self._raw = None
        return True

    def _unwritten(self) -> list[bytes]:
        """The frames that did not leave as a whole."""
        if self._raw is None:
            return list(self.outbox)
        if self.pipe is not None and self.pipe.tls is not None:
            # Where in what is sealed a frame ends is not known.
            return self.outbox[self._raw_count:]
        left = len(self._raw)
        found = self.outbox[self._raw_count:]
        for made in reversed(self.outbox[:self._raw_count]):
            if left <= 0:
                break
            found.append(made)
            left -= len(made)
        return found

    # The loss of the connection.

    def _look(self) -> None:
        """Reads what is there, without waiting, after the connection was quiet for a while."""
        pipe = self.pipe
        assert pipe is not None
        try:
            pipe.inbox.extend(map(pipe.recv, _READ, _FLAGS))
        except BlockingIOError:
            return
        except OSError as why:
            pipe.fault = why
        self.is_busy = False
        self.take_in()
        self.is_busy = True

    def _fault_seen(self) -> None:
        """Handles a failed read or write; the lock is held."""
        pipe = self.pipe
        if pipe is None or pipe.fault is None:
            return
        why, pipe.fault = pipe.fault, None
        # What the broker said before it closed is a better reason than "broken pipe".
        try:
            while True:
                data = pipe.sock.recv(READ_BYTES, DONT_WAIT)
                if not data:
                    break
                if pipe.tls is not None:
                    data = pipe.tls.open(data)[0]
                self._handle(self.session.receive(data))
                if self.pipe is None:
                    return
        except OSError:
            pass
        self._lose(f"the connection to the broker at {pipe.address} broke: "
                   f"{why.strerror or why}")

    def _lose(self, text: str) -> None:
        self._drop(error("broker_lost", text))

    def _interrupted(self) -> None:
        """A thread was interrupted in the middle of a change: nothing of this connection can be
        relied on."""
        self.is_busy = False
        text = ("this program was interrupted in the middle of reading an answer, so the "
                "connection was given up")
        self._lose(text)
        for slot in list(self.live):
            if not slot.is_done and slot not in self.backlog:
                failure = error("broker_lost", text)
                if self.options.reconnect and self._repeats(slot, failure, monotonic()):
                    self.live.discard(slot)
                    slot.may_have_run = True
                    self.backlog.append(slot)
                else:
                    self._tell(slot, None, failure)
            elif slot.is_done:
                self.live.discard(slot)
                if slot.is_told:
                    self.finished.append(slot)
                self.wake(slot)

    def _drop(self, why: IsectError) -> None:
        """Ends the connection, and gives all requests under way their outcome; the lock is
        held."""
        pipe, self.pipe = self.pipe, None
        if pipe is None:
            return
        unwritten = self._unwritten()
        self.outbox.clear()
        self.sent.clear()
        self._raw = None
        pipe.close()
        reason, events = self.session.lost(why, unwritten)
        self.last_error = reason
        now = monotonic()
        if now - self._since >= LASTED:
            self._wait = RETURN_WAITS[0]
        self.next_try = now
        self._notes.append((20, "%s", reason))
        comes_back = self.options.reconnect and self.ended is None
        if not comes_back and self.ended is None:
            self.ended = reason
        for slot, what, value, _ in events:
            if what == NEWS:
                self.wake(slot)
            elif comes_back and self._repeats(slot, value, now):
                self.live.discard(slot)
                slot.may_have_run = slot.may_have_run or value.ran != "no"
                self.backlog.append(slot)
            else:
                self._tell(slot, None, value)
        if self.ended is not None:
            self._end(self.ended)

    def _repeats(self, slot: Any, failure: IsectError, now: float) -> bool:
        """Whether a request is sent again by itself: only what can't run twice, or may."""
        if not slot.is_repeatable or slot.parts:
            return False
        # The broker may have said why it closes: not only `broker_lost` passes.
        row = t.ERRORS.get(failure.code)
        if row is None or row.retry == "never":
            return False
        if failure.ran != "no" and not slot.flags & 1:
            return False
        return slot.until is None or now < slot.until

    def _end(self, why: IsectError) -> None:
        """No connection is made any more; the lock is held."""
        self.ended = why
        while self.backlog:
            self._tell(self.backlog.popleft(), None, with_ran(why, "no"))
        for topic, _, _, _ in self.session.end(why):
            self.wake(topic)
        for wakers in self.followers.values():
            for waker in wakers:
                if waker.locked():
                    waker.release()

    def _come_back(self, until: float | None) -> None:
        """Connects and logs in: one attempt, or a wait until one is due. For the reader."""
        now = monotonic()
        if self.ended is not None:
            return
        if now < self.next_try:
            pause = self.next_try - now
            if until is not None:
                pause = min(pause, max(0.0, until - now))
            sleep(pause)
            return
        limit = now + self.options.timeout
        with self.lock:
            waits = [slot.wait_until for slot in self.backlog] or [until]
            if self.session.phase not in (FRESH, CLOSED):
                # A login before was interrupted.
                self.session.lost(error("broker_lost", "the login was interrupted"))
        if None not in waits:
            limit = min(limit, max(now + 0.001, *waits))
        pipe = None
        try:
            pipe = dial(self.options, limit)
            try:
                events = log_in(pipe, self.session, self.lock, self.service, self.options,
                                self.lines, limit)
            except IsectError as why:
                why.context = why.context or f"login at {pipe.address}"
                raise
        except IsectError as why:
            if pipe is not None:
                pipe.close()
            with self.lock:
                self._not_connected(why)
            return
        except BaseException:
            if pipe is not None:
                pipe.close()
            with self.lock:
                self.session.lost(error("broker_lost", "the login was interrupted"))
            raise
        with self.lock:
            if self.ended is not None or self.is_forked:
                pipe.close()
                return
            self.is_busy = True
            limits = self.session.limits
            self._default = limits.deadline_ms / 1000 if limits.deadline_ms else None
            self.keepalive = Keepalive(limits.silence_ms)
            self.pipe = pipe
            self.was_up = True
            self._since = self._used = monotonic()
            self.last_error = None
            self._handle(events)
            self._unbacklog()
            self.is_busy = False
            if self.is_constant:
                self.start_helper()

    def _not_connected(self, why: IsectError) -> None:
        """An attempt to connect has failed; the lock is held."""
        self.session.lost(why)
        why = with_ran(why, "no")
        self.last_error = why
        row = t.ERRORS.get(why.code)
        may = self.was_up and row is not None and row.retry != "never"
        if may and self.options.reconnect:
            self.next_try = monotonic() + self._wait * (1 - random() / 2)
            self._wait = min(self._wait * 2, RETURN_WAITS[1])
            return
        if self.was_up:
            self._end(why)
            return
        # The first login: whoever asked is told, and the next one may try again.
        while self.backlog:
            self._tell(self.backlog.popleft(), None, with_ran(why, "no"))
        for topic, _, _, _ in self.session.end(why):
            self.wake(topic)

    def ensure(self, until: float) -> None:
        """Waits for the connection. Raises why there is none."""
        if self.is_busy:
            with self.lock:
                if self.is_busy:
                    self._interrupted()
        if self.pipe is None:
            token = Slot()
            failed: list[IsectError] = []

            def ready() -> bool:
                if self.pipe is None and self.last_error is not None and not self.was_up:
                    failed.append(self.last_error)
                    self.last_error = None
                return self.pipe is not None or bool(failed)

            with self.lock:
                if not self.was_up:
                    self.last_error = None
            is_up = self.wait(token, until, ready)
            if failed:
                raise with_ran(failed[0], "no")
            if not is_up:
                raise with_ran(self.last_error or _late(self.service, "no"), "no")

    # The helper thread.

    def need_helper(self) -> None:
        """A future is under way; the lock is held."""
        if not self._has_helper:
            self.start_helper()
        elif self._lingers:
            self._call_helper()

    def _call_helper(self) -> None:
        """Has the helper look now; the lock is held."""
        if self._helper_news.locked():
            self._helper_news.release()

    def start_helper(self) -> None:
        """Sees to it that the helper thread runs; the lock is held."""
        if not self._has_helper and not self.is_forked:
            self._has_helper = True
            # `Thread.start` would wait for the thread, with the lock held.
            start_new_thread(self._help, ())
        else:
            self._call_helper()

    def _help(self) -> None:
        try:
            while self._help_once():
                pass
        except Exception:
            logger().exception("the helper thread of the connection to '%s' ended", self.service)
            with self.lock:
                self._has_helper = False
                self._release(_HELPER)

    def _help_once(self) -> bool:
        reads = self._reads
        has_more = bool(self.pending) or self.is_constant
        if not has_more:
            self._lingers = True
            if not self.pending and not self._helper_news.acquire(timeout=LINGER):
                with self.lock:
                    if not self.pending:
                        self._lingers = self._has_helper = False
                        return False
            self._lingers = False
            return True
        self._helper_news.acquire(timeout=self._tick if self.pending else SLOW_TICK)
        while True:
            with self.lock:
                if self.ended is not None and self.pipe is None:
                    self._has_helper = False
                    break
                if self.pending:
                    self._overdue()
                leads = not (self.reader is not None or self._reads != reads or self.followers
                             or not self.pending and not self.is_constant)
                if leads:
                    self._reader_thread = 0
                    self.reader = _HELPER
            if not leads:
                # The program waits itself, or not: what it did last it will most likely do next.
                self._tick = min(self._tick * 2, TICK_MAX)
                self.settle()
                return True
            self._tick = TICK
            try:
                self.drive(monotonic() + 0.25 if self.pending else None)
                with self.lock:
                    self.take_in()
            finally:
                with self.lock:
                    self._release(_HELPER)
                    reads = self._reads
            # Calls the program, which may ask and wait itself.
            self.settle()
        self.settle()
        return False

    def _overdue(self) -> None:
        """Ends futures for which nothing came in time; the lock is held."""
        now = monotonic()
        if now < self._overdue_at:
            return
        self._overdue_at = now + 0.1
        for slot in list(self.pending):
            if not slot.is_done and slot.wait_until is not None and now >= slot.wait_until:
                self._tell(slot, None, _late(self.service, self.give_up(slot)))

    # The end.

    def close(self, flush_timeout: float) -> None:
        """Logs out; requests under way end."""
        if self.is_forked:
            return
        if self.pipe is not None and self.session.has_unflushed and flush_timeout > 0:
            try:
                self.flush(monotonic() + flush_timeout)
            except IsectError as why:
                logger().warning("not all requests without an answer were taken: %s", why)
        reason = error("bad_state", "this program has closed its connection to the broker")
        with self.lock:
            pipe = self.pipe
            if self.ended is None:
                self.ended = reason
            if pipe is not None:
                if not self.outbox and self.session.phase == OPEN:
                    pending = self.session.lost(with_ran(reason, "maybe"))[1]
                    self.outbox.append(self.session.logout())
                    self._flush()
                    for slot, what, value, _ in pending:
                        if what != NEWS:
                            self._tell(slot, None, value)
                self.is_busy = False
                self._drop(with_ran(reason, "maybe"))
            self._end(self.ended)
            self._call_helper()
        self.settle()

    def flush(self, until: float | None) -> int:
        """Waits until all that was sent before was taken by a worker or refused; how many were
        refused since the flush before."""
        slot = Ask()
        with self.lock:
            if self.pipe is None:
                self._check_up()
                raise with_ran(self.last_error or error("broker_lost", "there is no connection"),
                               "maybe")
            slot.sequence, made = self.session.flush(slot)
            self.write(made)
        if not self.wait(slot, until):
            with self.lock:
                self.session.forget(slot.sequence)
            raise DeadlineExceeded("timeout", "no worker has taken all that was sent in time")
        return int(slot.result())

    def forked(self) -> None:
        """This is a child that inherited the connection: it is closed here without a goodbye."""
        self.is_forked = True
        self.lock = threading.Lock()
        pipe, self.pipe = self.pipe, None
        self.session = Session()
        self.reader = None
        self._reader_thread = 0
        self.followers = {}
        self._follows = {}
        self.backlog = deque()
        self.outbox = []
        self.is_busy = False
        self._has_helper = False
        self.ended = forked()
        pending, self.pending = self.pending, set()
        if pipe is not None:
            # Not shut down: the parent goes on with it.
            os.close(pipe.sock.detach())
        self.finished = deque(pending)
        for slot in pending:
            slot.forked(self.ended)


def forked() -> ForkedError:
    """The error for a child that inherited a connection."""
    return ForkedError("bad_state", "this connection belongs to the process that this one was "
                       "forked from; call isect.connect() in this process", advice="")


def _late(service: str, ran: str) -> IsectError:
    return DeadlineExceeded("timeout", f"no answer of service '{service}' came in time", ran=ran)


def _after_fork() -> None:
    for link in list(_links):
        link.forked()


os.register_at_fork(after_in_child=_after_fork)
