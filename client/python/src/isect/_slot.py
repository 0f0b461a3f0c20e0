"""A request of the blocking front, and its outcome."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ._errors import IsectError, error
from ._wire import NO_TRACE

if TYPE_CHECKING:
    from ._traffic import Traffic

#: Time to wait past a request's deadline for the broker's own error, which says whether it ran.
GRACE = 0.5


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

    def answered(self, link: Traffic, value: Any) -> None:
        """The last frame of the answer has come."""
        if self.parts is None:
            self.value = value
        elif self.size + len(value) > link.options.reply_bytes_max:
            self.error = too_large(link.options.reply_bytes_max)
        else:
            self.parts.append(value)
            self.value = b"".join(self.parts)
        self.is_done = True

    def came(self, link: Traffic, value: bytes, head: tuple[Any, ...]) -> None:
        """A frame of the answer has come, and more follow."""
        if self.parts is None:
            self.parts = []
        self.parts.append(value)
        self.size += len(value)
        if self.size > link.options.reply_bytes_max:
            link.give_up(self)
            self.failed(link, too_large(link.options.reply_bytes_max))

    def failed(self, link: Traffic, failure: IsectError) -> None:
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

    def answered(self, link: Traffic, value: Any) -> None:
        self.value = value
        self.is_done = True


def too_large(limit: int) -> IsectError:
    """The error for an answer that is longer than this side wants to hold."""
    return error("body_too_large", f"the answer exceeds reply_bytes_max {limit}; take it piece by "
                                   "piece with stream", ran="yes", advice="")
