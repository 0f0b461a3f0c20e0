"""The request that a worker's code is at, so that what it asks for meanwhile has at most its time
and carries its trace. `_serve` sets it, the fronts read it; threads and tasks that a handler
starts have it if they copy the context (asyncio does, `contextvars.copy_context` for threads)."""

from __future__ import annotations

from contextvars import ContextVar
from typing import Protocol


class Inherited(Protocol):
    """What is inherited of a request."""

    @property
    def trace_id(self) -> bytes:
        """W3C trace id, 16 bytes; zero = none."""

    @property
    def span_id(self) -> int:
        """W3C parent id; 0 = none."""

    def remaining(self) -> float | None:
        """Seconds until its deadline, not below 0; None = it has none."""


#: The request that this thread or task is at; None = none.
current: ContextVar[Inherited | None] = ContextVar("isect_request", default=None)


def bound(timeout: float | None) -> float | None:
    """The timeout of what is asked within a request: at most its remaining time."""
    request = current.get()
    if request is None:
        return timeout
    left = request.remaining()
    if left is None:
        return timeout
    return left if timeout is None or left < timeout else timeout
