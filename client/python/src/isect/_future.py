"""The answer to a request that is under way."""

from __future__ import annotations

import sys
from _thread import RLock, allocate_lock, get_ident
from collections import deque
from concurrent.futures import CancelledError
from concurrent.futures import Future as _Future
from concurrent.futures import InvalidStateError
from concurrent.futures import TimeoutError as _TimeoutError
from concurrent.futures import _base
from concurrent.futures._base import CANCELLED, CANCELLED_AND_NOTIFIED, PENDING, RUNNING
from time import monotonic
from typing import TYPE_CHECKING, Any

from ._arguments import end_of
from ._errors import IsectError
from ._link import Link
from ._slot import Slot

if TYPE_CHECKING:
    from types import FrameType

#: How long a thread that tells an outcome waits for a future that is locked before it looks
#: whether anybody still has it, in seconds.
STUCK = 0.05

# The state is read without the lock of the future: an interrupt in the middle of Python's own
# `Condition` would leave that locked.
_UNTOLD = (PENDING, RUNNING)
_CANCELLED = (CANCELLED, CANCELLED_AND_NOTIFIED)


class _Condition(RLock):  # type: ignore[misc]
    """As `threading.Condition`, of which `with` is C code: an interrupt can't leave it locked."""

    def __init__(self) -> None:
        self._waiting: deque[Any] = deque()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits for `notify_all`; False = not in time."""
        waiter = allocate_lock()
        waiter.acquire()
        self._waiting.append(waiter)
        state = self._release_save()  # type: ignore[attr-defined]
        is_told = False
        try:
            is_told = waiter.acquire(timeout=-1 if timeout is None else max(0.0, timeout))
            return is_told
        finally:
            self._acquire_restore(state)  # type: ignore[attr-defined]
            if not is_told and waiter in self._waiting:
                self._waiting.remove(waiter)

    def notify_all(self) -> None:
        """Wakes all that wait."""
        while self._waiting:
            self._waiting.popleft().release()


#: Code of the standard library that calls the program, or waits, with no future locked.
_CALLS = frozenset({"_invoke_callbacks", "add_done_callback"})


def _is_in_use() -> bool:
    """Whether another thread is where it may have futures locked: only the standard library's own
    code of futures locks them, and never for long."""
    own = get_ident()
    for thread, top in list(sys._current_frames().items()):
        at: FrameType | None = top if thread != own else None
        waits = False
        while at is not None:
            code = at.f_code
            if code.co_filename != _base.__file__:
                waits = code.co_name == "wait"
            elif not waits and code.co_name not in _CALLS:
                return True
            at = at.f_back
    return False


class Future(_Future[bytes], Slot):
    """The answer to a request that is under way; `Broker.submit` makes it.

    It is a `concurrent.futures.Future`: `as_completed`, `wait` and `add_done_callback` work, and
    threads may share it. `result` waits by reading the connection itself, so that no other thread
    is needed. Callbacks run in the thread that got the answer, and may ask the broker again.
    """

    is_told = True

    def __init__(self, link: Link, body: bytes, flags: int, priority: int, trace_id: bytes,
                 span_id: int, timeout: float | None) -> None:
        # As `_Future.__init__`, with another condition.
        self._condition = _Condition()  # type: ignore[assignment]
        self._state = PENDING
        self._result = None
        self._exception = None
        self._waiters = []
        self._done_callbacks: list[Any] = []
        Slot.__init__(self, body, flags, priority, trace_id, span_id, timeout)
        self._link = link

    __hash__ = object.__hash__

    def result(self, timeout: float | None = None) -> bytes:
        """The answer. Raises its error; `concurrent.futures.TimeoutError` if nothing came within
        `timeout` seconds (the request stays under way); `CancelledError` if it was cancelled."""
        if self._state in _UNTOLD:
            self._await(timeout)
        if self._state in _CANCELLED:
            raise CancelledError()
        if self._exception is not None:
            try:
                raise self._exception
            finally:
                # Else the error would hold this frame, and the frame the error.
                del self
        return self._result  # type: ignore[return-value]

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """The error; None = there is none. Waits as `result` does."""
        if self._state in _UNTOLD:
            self._await(timeout)
        if self._state in _CANCELLED:
            raise CancelledError()
        return self._exception

    def _await(self, timeout: float | None) -> None:
        link = self._link
        until = end_of(timeout)
        while self._state in _UNTOLD:
            if link.pipe is None and until is not None and not self.is_done:
                # To connect may take longer than this thread wants to wait: the helper does it.
                with link.lock:
                    link.start_helper()
                    link.pending.add(self)
                self._until_told(until)
                return
            if not self.is_done:
                limit = self.wait_until
                if until is not None and (limit is None or until < limit):
                    limit = until
                if link.wait(self, limit):
                    continue
                now = monotonic()
                if self.wait_until is not None and now >= self.wait_until:
                    link.expire(self)
                elif until is not None and now >= until:
                    raise _TimeoutError()
                continue
            link.settle()
            if self._state in _UNTOLD:
                # Another thread is about to tell it.
                self._until_told(until)

    def _until_told(self, until: float | None) -> None:
        """Waits until another thread has told the outcome."""
        try:
            _Future.exception(self, None if until is None else max(0.0, until - monotonic()))
        except CancelledError:
            pass

    def cancel(self) -> bool:
        """Gives the request up: the broker is told, and a late answer is dropped. False = it is
        done already."""
        link = self._link
        with link.lock:
            if self.is_done:
                return self.cancelled()
            self.is_done = True
            link.give_up(self)
            link.pending.discard(self)
            link.wake(self)
        if not _Future.cancel(self):
            return False
        self.set_running_or_notify_cancel()
        return True

    def forked(self, why: IsectError) -> None:
        """This is a child of the process that asked."""
        self.is_done = True
        self.error = why
        # A thread that is not in this process may have held it.
        self._condition = _Condition()  # type: ignore[assignment]

    def settle(self) -> None:
        """Tells the outcome to those who wait."""
        if self._state not in _UNTOLD:
            return
        failure: IsectError | None = self.error
        condition: Any = self._condition
        while not condition.acquire(False) and not condition.acquire(timeout=STUCK):
            # `concurrent.futures.wait` locks all its futures one by one; if it was interrupted in
            # the middle of that, they have stayed locked.
            if not _is_in_use():
                if condition.acquire(False):
                    break
                condition._release_save()
        condition.release()
        try:
            if failure is None:
                self.set_result(self.value)
            else:
                self.set_exception(failure)
        except InvalidStateError:
            # Another thread was sooner.
            pass

    def __reduce__(self) -> Any:
        raise TypeError("a request under way belongs to this process")
