"""One connection of the blocking front, which any number of threads use: its requests and its end.
`_traffic` has what it sends and gets, `_reading` how threads wait for that."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections import deque
from time import monotonic, sleep
from typing import Any

from ._dial import Options
from ._errors import DeadlineExceeded, IsectError, closed, closing, error, with_ran
from ._reading import Reading
from ._session import NEWS, OPEN, Session, millis
from ._slot import GRACE, Ask, Slot
from ._traffic import forked

#: A connection that was quiet this long is checked before it is used.
QUIET = 0.1
#: Most requests that wait for room on the connection, or for the connection.
BACKLOG_MAX = 100_000

_links: weakref.WeakSet[Link] = weakref.WeakSet()


class Link(Reading):
    """The connection to one service."""

    def __init__(
        self, service: str, options: Options, lines: list[tuple[str, str]] | None = None,
        is_constant: bool = False,
    ) -> None:
        super().__init__(service, options, lines, is_constant)
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
            self._tell(slot, None, self._no_answer(slot))
        self.settle()

    # The end.

    @property
    def owes_flush(self) -> bool:
        """Whether something was sent that nobody waited for, and no flush has asked about."""
        return (self.session.has_unflushed or self.has_published or self.unflushed is not None)

    def close(self) -> None:
        """Logs out; requests under way end."""
        if self.is_forked:
            return
        reason = closing()
        with self.lock:
            pipe = self.pipe
            self.is_closed = True
            if self.ended is None:
                self.ended = closed()
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
            self._end(reason)
            self.ended = closed()
            self._call_helper()
        self.settle()

    def flush(self, until: float | None) -> int:
        """Waits until all that was sent before was taken by a worker or refused; how many were
        refused since the flush before."""
        slot = Ask()
        with self.lock:
            lost, self.unflushed = self.unflushed, None
            if lost is not None:
                raise lost
            if self.pipe is None:
                self._check_up()
                raise with_ran(self.last_error or error("broker_lost", "there is no connection"),
                               "maybe")
            slot.sequence, made = self.session.flush(slot)
            self.has_published = False
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
        self._has_helper = self.helper_begins = False
        self.ended = forked()
        pending, self.pending = self.pending, set()
        if pipe is not None:
            # Not shut down: the parent goes on with it.
            os.close(pipe.sock.detach())
        self.finished = deque(pending)
        for slot in pending:
            slot.forked(self.ended)


def _after_fork() -> None:
    for link in list(_links):
        link.forked()


os.register_at_fork(after_in_child=_after_fork)


def _before_exit() -> None:
    """Some Pythons (3.10, and 3.11.2 at least) crash if they end while a thread begins."""
    until = monotonic() + 1
    while any(link.helper_begins for link in list(_links)) and monotonic() < until:
        sleep(0.001)


atexit.register(_before_exit)
