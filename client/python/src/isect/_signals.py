"""Signals and forks of a worker's process."""

from __future__ import annotations

import os
import signal
import threading
import weakref
from collections.abc import Callable
from types import FrameType
from typing import Any, Protocol

from ._worker_conn import Waker

#: The signals that ask a worker to end.
HANDLED = (signal.SIGTERM, signal.SIGINT)


class Signals:
    """The first SIGTERM or SIGINT asks the worker to end in order, a second one ends it at once. A
    signal that the program has a handler of its own for, or ignores, is left alone."""

    def __init__(self, stop: Callable[[], None], waker: Waker) -> None:
        self._stop = stop
        self._waker = waker
        self._before: dict[int, Any] = {}
        self._wakeup = -1
        self._count = 0

    def install(self) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in HANDLED:
            before = signal.getsignal(number)
            if before in (signal.SIG_DFL, signal.default_int_handler):
                self._before[number] = signal.signal(number, self._on_signal)
        if self._before:
            self._wakeup = signal.set_wakeup_fd(self._waker.writer.fileno(),
                                                warn_on_full_buffer=False)

    def _on_signal(self, number: int, _frame: FrameType | None) -> None:
        self._count += 1
        if self._count > 1:
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self._stop()

    def remove(self) -> None:
        if not self._before:
            return
        for number, before in self._before.items():
            if signal.getsignal(number) == self._on_signal:
                signal.signal(number, before)
        signal.set_wakeup_fd(self._wakeup)
        self._before.clear()


class AtFork(Protocol):
    """What must know that it is in a child."""

    def forked(self) -> None:
        """Called in the child."""


_at_fork: weakref.WeakSet[AtFork] = weakref.WeakSet()


def tell_of_forks(one: AtFork) -> None:
    """`forked` of this is called in each child of this process, as long as it is referred to."""
    _at_fork.add(one)


_forking = threading.local()


def _before_fork() -> None:
    # A signal that comes to the child before its handlers are as they were would be lost there, and
    # reach the parent by the wakeup that both have.
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, HANDLED) if _at_fork else None


def _after_fork_in_parent() -> None:
    if getattr(_forking, "mask", None) is not None:
        signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork_in_child() -> None:
    for one in list(_at_fork):
        one.forked()
    _at_fork.clear()
    _after_fork_in_parent()


os.register_at_fork(before=_before_fork, after_in_parent=_after_fork_in_parent,
                    after_in_child=_after_fork_in_child)
