"""How the threads that share a connection of the blocking front wait for it.

There is no event loop and, while threads wait for answers, no thread of the library: of the threads
that wait one reads (the *reader*), and hands the answers of the others to them. When it has its own
it hands the reading on. A helper thread reads only while futures are under way and nobody waits for
them, or where the login promised to answer pings at once.
"""

from __future__ import annotations

import threading
from _thread import get_ident, start_new_thread
from collections.abc import Callable
from random import random
from time import monotonic, sleep
from typing import Any

from . import _tables as t
from ._dial import Options, dial, log_in
from ._errors import IsectError, error, with_ran
from ._keepalive import GONE, PING, Keepalive
from ._logs import logger
from ._session import CLOSED, FRESH, OPEN
from ._slot import Slot
from ._traffic import READ, RETURN_WAITS, Traffic, late

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


class Helper:
    """Stands for the helper thread where the reader is named."""


_HELPER = Helper()


class Reading(Traffic):
    """As `Traffic`, with all that waits for it."""

    def __init__(
        self, service: str, options: Options, lines: list[tuple[str, str]] | None = None,
        is_constant: bool = False,
    ) -> None:
        super().__init__(service, options, lines, is_constant)
        #: What each of these threads waits for.
        self._follows: dict[int, tuple[object, Any]] = {}
        self._reads = 0
        self._has_helper = False
        #: Whether the helper thread was asked for and does not run yet.
        self.helper_begins = False
        #: Locked while the helper need not look. A `threading.Event` is made of Python's own code,
        #: and an interrupt in the middle of that would leave it locked for ever.
        self._helper_news = threading.Lock()
        self._helper_news.acquire()
        self._lingers = False
        self._tick = TICK
        self._overdue_at = 0.0

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
                    pipe.inbox.extend(map(pipe.recv, READ))
                elif not writes:
                    self._quiet(span)
                return
            pipe.set_timeout(span)
            pipe.inbox.extend(map(pipe.recv, READ))
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
                raise with_ran(self.last_error or late(self.service, "no"), "no")

    # The way to a connection.

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
            self.helper_begins = True
            # `Thread.start` would wait for the thread, with the lock held.
            start_new_thread(self._help, ())
        else:
            self._call_helper()

    def _help(self) -> None:
        self.helper_begins = False
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
                self._tell(slot, None, self._no_answer(slot))
