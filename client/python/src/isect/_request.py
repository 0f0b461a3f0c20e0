"""A request as the handler of a worker sees it. `Link` of `_worker` made it and answers it."""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncIterator, Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import _tables as t
from ._errors import IsectError, UsageError, error, with_ran
from ._wire import Header

if TYPE_CHECKING:
    from ._worker import Link


class BaseRequest:
    """A request, as it came by one connection. `Request` and `AsyncRequest` are what a handler
    gets.

    `body`: the bytes of its first frame. `transaction`: the broker's number, as its events and logs
    show it.
    """

    body: bytes
    transaction: int
    _link: Link
    _head: Header
    _since: float
    #: Counts the requests of the connection.
    _number: int
    _over: IsectError | None = None
    #: Further frames of the client that the handler has not taken.
    _pieces: deque[tuple[bytes, int, int]] | None = None
    #: Bytes of these frames that came, and that the handler took, with their headers.
    _came_bytes: int = 0
    _taken_bytes: int = 0
    #: Whether the last frame that came of the client has `more`.
    _sent_more: bool = False
    #: Whether the last frame that the handler took has `more`.
    _client_more: bool = False
    #: Whether the last frame of this side had `more`, and the client has not answered it.
    _worker_more: bool = False
    #: Whether any frame of this side had `more`; then a frame of the client may cross the end.
    _was_open: bool = False
    #: When the request's time is over; None = as the head says.
    _until: float | None = None
    #: Tells a waiting handler that something changed.
    _waiter: Any = None
    #: The task that answers it, in the asyncio way.
    _task: Any = None

    def __init__(self, link: Link, head: Header, body: bytes, number: int) -> None:
        self.body = body
        self.transaction = head[10]
        self._link = link
        self._head = head
        self._since = monotonic()
        self._number = number
        if head[7]:
            self._sent_more = self._client_more = True

    def __repr__(self) -> str:
        return (f"<{type(self).__name__} transaction={self.transaction} of {len(self.body)} bytes"
                f"{', more' if self._client_more else ''}{', over' if self._over else ''}>")

    @property
    def text(self) -> str:
        """The body as text. Raises UnicodeDecodeError if it is not UTF-8."""
        return self.body.decode()

    @property
    def more(self) -> bool:
        """Whether the client has said that further frames follow the last one taken."""
        return self._client_more

    @property
    def wants_reply(self) -> bool:
        """Whether the client waits for an answer. The handler answers in any case."""
        return self._head[2] != 0

    @property
    def attempt(self) -> int:
        """Counts the deliveries of this request: 1 for the first, 2 for the first repetition after
        its worker died."""
        return self._head[12]

    @property
    def idempotent(self) -> bool:
        """Whether the client allows a repetition on another worker."""
        return self._head[9] & 1 != 0

    @property
    def extendable(self) -> bool:
        """Whether the client allows that the deadline is put off (`within` of `reply_piece`)."""
        return self._head[9] & 2 != 0

    @property
    def priority(self) -> int:
        """Its priority, 1 to 255, lower is served first; 0 = that of its client's login."""
        return self._head[8]

    @property
    def sequence(self) -> int:
        """The client's own number for it."""
        return self._head[1]

    @property
    def trace_id(self) -> bytes:
        """The 16 bytes of the W3C trace id; all zero = none."""
        return self._head[13]

    @property
    def span_id(self) -> int:
        """The W3C parent id; 0 = none."""
        return self._head[14]

    @property
    def service(self) -> str:
        """The service that it was sent to."""
        return self._link.state.service

    @property
    def worker(self) -> int:
        """The id of the worker that answers it."""
        return self._link.limits.worker

    @property
    def deadline(self) -> float | None:
        """When its time is over, on the clock of `time.monotonic()`; None = it has no deadline."""
        if self._until is not None:
            return self._until
        millis = self._head[11]
        return self._since + millis / 1000 if millis else None

    def remaining(self) -> float | None:
        """Seconds until its deadline, 0.0 once that has passed; None = it has no deadline."""
        until = self.deadline
        return None if until is None else max(0.0, until - monotonic())

    def is_over(self) -> bool:
        """Whether nobody waits for the answer any more: the client gave the request up or is gone,
        its time is over, or the connection broke. `over` says which. A handler that works for long
        looks now and then, and stops. It does not wait."""
        if self._over is None:
            self._link.hear()
        return self._over is not None

    @property
    def over(self) -> IsectError | None:
        """Why nobody waits for the answer any more, as far as this side knows; None = somebody
        does."""
        return self._over

    @property
    def _is_forked(self) -> bool:
        """Whether this process was forked from the worker's."""
        return bool(self._link.conn.is_forked)  # type: ignore[attr-defined]

    # Pieces. What the public classes add is how to wait.

    def _take_piece(self) -> tuple[bytes | None, bool]:
        """The next frame of the client if it is there, and whether to wait for it otherwise."""
        if self._over is not None:
            raise _copy(self._over)
        if not (self._client_more or self._worker_more):
            return None, False
        pieces = self._pieces
        if pieces:
            # Another thread may set `_pieces` to None, and takes nothing out.
            body, more, millis = pieces.popleft()
            self._taken_bytes += t.HEADER_BYTES + len(body)
            self._link.took()
            self._client_more = more != 0
            self._worker_more = False
            if millis:
                self._until = monotonic() + millis / 1000
            return body, False
        if self._link.is_ended:
            self._link.set_over(self, error(
                "conversation_ended", "the broker sends this worker nothing more, so the client's "
                "next frame can't come"))
            return self._take_piece()
        return None, True

    def _overdue(self) -> None:
        """Notes that the client did not send the rest in time."""
        self._link.set_over(self, error(
            "deadline", "the client did not send the rest of its request within the deadline"))

    def _time_for_pieces(self) -> float | None:
        """Seconds for which the next frame of the client may be awaited; None = no limit. Once a
        piece of the answer has left, only the broker knows until when."""
        return None if self._was_open else self.remaining()

    def _send_piece(self, body: bytes | bytearray | memoryview | str, within: float | None) -> None:
        raw = as_bytes(body)
        millis = 0
        if within is not None:
            if not 0 < within <= t.DEADLINE_MS_MAX / 1000:
                raise error("usage", f"within is {within}; it is above 0 and at most "
                                     f"{t.DEADLINE_MS_MAX // 1000} seconds")
            millis = max(1, round(within * 1000))
        if self._over is None:
            self._link.hear()
        if self._over is not None:
            raise _copy(self._over)
        if self._link.open.get(self.transaction) is not self:
            raise UsageError("bad_state", f"transaction {self.transaction} is answered already; "
                                          "no piece can follow")
        if millis and self._head[9] & 2:
            self._until = min(monotonic() + millis / 1000,
                              self._since + t.DEADLINE_MS_MAX / 1000)
        most = self._link.limits.body_bytes_max
        while len(raw) > most:
            self._link.send_piece(self, raw[:most], 0)
            raw = raw[most:]
        self._link.send_piece(self, raw, millis)

    def _end(self, body: bytes) -> None:
        """The final answer."""
        link = self._link
        most = link.limits.body_bytes_max
        if len(body) > most:
            rest = memoryview(body)
            while len(rest) > most:
                if self._over is None:
                    link.send_piece(self, bytes(rest[:most]), 0)
                rest = rest[most:]
            body = bytes(rest)
        link.finish(self, body, 0)

    def _fail(self, code: int, text: str) -> None:
        """The final answer: the work failed."""
        body = text.encode(errors="backslashreplace")[:self._link.limits.body_bytes_max]
        self._link.finish(self, body, code)


class Request(BaseRequest):
    """A request, for a handler that is a `def`."""

    def next_piece(self, timeout: float | None = None) -> bytes | None:
        """Waits for the client's next frame after `body`, or after a question (`reply_piece`).

        None = none comes: its last one said that nothing follows, and no question is open.
        `timeout` in seconds; None = until the request's deadline. Raises the reason if nobody waits
        for the answer any more, and `DeadlineExceeded` (`timeout`) if nothing came in time."""
        link = self._link
        end = None if timeout is None else monotonic() + timeout
        while True:
            piece, waits = self._take_piece()
            if not waits:
                return piece
            left = self._time_for_pieces()
            if left is not None and left <= 0:
                self._overdue()
                continue
            if end is not None:
                mine = end - monotonic()
                left = mine if left is None else min(left, mine)
                if mine <= 0:
                    raise error("timeout", f"the client's next frame did not come in {timeout} s")
            link.await_change(self, left)  # type: ignore[attr-defined]

    def pieces(self) -> Iterator[bytes]:
        """All frames of the request, `body` first, up to the one behind which the client says that
        none follows; pieces of the answer may be sent meanwhile. Raises the reason if nobody waits
        for the answer any more, so that half a request is not taken for a whole one."""
        yield self.body
        while self._client_more and (piece := self.next_piece()) is not None:
            yield piece

    def reply_piece(
        self, body: bytes | bytearray | memoryview | str, within: float | None = None
    ) -> None:
        """Sends a piece of the answer; what the handler returns is its end. In a conversation
        `next_piece` then returns the client's next frame.

        `within`: seconds, at most 3600, in which the next piece comes. It replaces the deadline of
        an `extendable` request, up to an hour after that came. Raises the reason if nobody waits
        for the answer any more."""
        self._send_piece(body, within)


class AsyncRequest(Request):
    """A request, for a handler that is an `async def`. What waits is awaited."""

    async def next_piece(  # type: ignore[override]
        self, timeout: float | None = None
    ) -> bytes | None:
        """As `Request.next_piece`."""
        link = self._link
        end = None if timeout is None else monotonic() + timeout
        while True:
            piece, waits = self._take_piece()
            if not waits:
                return piece
            left = self._time_for_pieces()
            if left is not None and left <= 0:
                self._overdue()
                continue
            if end is not None:
                mine = end - monotonic()
                left = mine if left is None else min(left, mine)
                if mine <= 0:
                    raise error("timeout", f"the client's next frame did not come in {timeout} s")
            await link.change(self, left)  # type: ignore[attr-defined]

    async def pieces(self) -> AsyncIterator[bytes]:  # type: ignore[override]
        """As `Request.pieces`, an async iterator."""
        yield self.body
        while self._client_more and (piece := await self.next_piece()) is not None:
            yield piece

    async def reply_piece(  # type: ignore[override]
        self, body: bytes | bytearray | memoryview | str, within: float | None = None
    ) -> None:
        """As `Request.reply_piece`. Waits while the broker takes what was sent before slowly."""
        self._send_piece(body, within)
        await self._link.room()  # type: ignore[attr-defined]


def _copy(why: IsectError) -> IsectError:
    """An error to be raised that says the same: what is raised has a traceback, which keeps what
    the handler had."""
    return with_ran(why, why.ran)


def as_bytes(body: object) -> bytes:
    """What a handler may answer with, as bytes. Raises TypeError for anything else."""
    if isinstance(body, bytes):
        return body
    if isinstance(body, str):
        return body.encode()
    if isinstance(body, (bytearray, memoryview)):
        return bytes(body)
    raise TypeError(f"the handler gave {type(body).__name__}; an answer or a piece of one is "
                    "bytes, bytearray, memoryview or str")
