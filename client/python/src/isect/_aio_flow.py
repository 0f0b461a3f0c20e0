"""Requests of more than one frame of an asyncio program: answers that are taken piece by piece, and
conversations."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from math import inf
from types import TracebackType
from typing import Any

from ._aio_link import Link
from ._arguments import Body, _bytes, _object, span
from ._errors import IsectError, error

#: Bytes of pieces that wait for the program, past which the connection is not read, if nothing else
#: is awaited on it.
HELD_BYTES = 8 << 20


class Flow:
    """The state of one such request; the session knows it, and the program has a handle."""

    __slots__ = ("link", "due", "asked", "sequence", "is_sent", "pieces", "size", "is_over",
                 "failure", "waiter", "begun", "worker", "is_given_up", "__weakref__")

    is_plain = False

    def __init__(self, link: Link, due: float, asked: tuple[Any, ...]) -> None:
        self.link = link
        self.due = due
        self.asked = asked
        self.sequence = 0
        self.is_sent = False
        self.pieces: deque[bytes] = deque()
        self.size = 0
        #: Whether the last piece has come.
        self.is_over = False
        self.failure: IsectError | None = None
        self.waiter: asyncio.Future[None] | None = None
        self.begun: asyncio.Future[None] | None = None
        #: The worker that holds the conversation; 0 = none has answered yet.
        self.worker = 0
        self.is_given_up = False

    def _wake(self) -> None:
        for waiter in (self.waiter, self.begun):
            if waiter is not None and not waiter.done():
                waiter.set_result(None)

    def sent(self) -> None:
        """Its first frame was made."""
        self.is_sent = True
        self._wake()

    def done(self) -> bool:
        """Whether nothing more comes."""
        return self.is_over or self.failure is not None or self.is_given_up

    def answered(self, value: bytes) -> None:
        """The last frame."""
        if not self.is_given_up:
            self.pieces.append(value)
            self.size += len(value)
            self.is_over = True
            self._wake()

    def piece(self, value: bytes, head: tuple[Any, ...]) -> None:
        """A frame that more follow."""
        if self.is_given_up:
            return
        self.pieces.append(value)
        self.size += len(value)
        self.worker = head[6]
        # The broker ends it at its deadline, if it has one still.
        self.due = inf
        self._wake()
        if self.size > HELD_BYTES:
            self.link.hold_reading()
            limit = self.link.options.reply_bytes_max
            if self.size > limit:
                self.give_up()
                self.fail(error("body_too_large", f"{self.size} bytes of the answer wait to be "
                                f"taken; reply_bytes_max is {limit}; take them sooner",
                                ran="maybe", advice=""))

    def fail(self, why: IsectError) -> None:
        """It has ended with this error."""
        if self.failure is None:
            self.failure = why
        self._wake()

    def lost(self, why: IsectError, now: float) -> bool:
        """The connection broke: what has more than one frame is not sent again."""
        return False

    def give_up(self) -> None:
        """Nobody wants the rest."""
        if not self.is_given_up:
            is_open = not self.done()
            self.is_given_up = True
            self._wake()
            if is_open:
                self.link.give_up(self)
            if not self.link.is_reading:
                self.link.wake()

    async def take(self, timeout: float | None) -> bytes | None:
        """The next piece; None = there are no more."""
        link = self.link
        timeout = span(timeout)
        if not (self.pieces or self.done()):
            link.check_place()
        handle = None
        try:
            while not self.pieces:
                if self.failure is not None:
                    raise self.failure
                if self.is_over:
                    return None
                if self.is_given_up:
                    raise closed_here()
                if self.waiter is not None:
                    raise error("bad_state", "another task waits for a piece of this answer")
                self.waiter = waiter = link.loop.create_future()
                if timeout is not None:
                    handle = link.loop.call_later(timeout, _late, waiter, timeout)
                try:
                    await waiter
                finally:
                    self.waiter = None
        finally:
            if handle is not None:
                handle.cancel()
        value = self.pieces.popleft()
        self.size -= len(value)
        if not link.is_reading and self.size < HELD_BYTES // 2:
            link.wake()
        return value


def _late(waiter: asyncio.Future[None], timeout: float) -> None:
    if not waiter.done():
        waiter.set_exception(error("timeout", f"no piece came within {timeout:g} s"))


def closed_here() -> IsectError:
    """The error of what is asked of a request that the program gave up."""
    return error("bad_state", "this request was given up by the program")


class Stream:
    """The pieces of one answer, as an async iterator of bytes. To leave it early, also by `break`
    or by cancelling the task, gives the request up.

    An error of the broker, the worker or the connection is raised behind the pieces that came
    before it.
    """

    __slots__ = ("_flow",)

    def __init__(self, flow: Flow) -> None:
        self._flow = flow

    def __aiter__(self) -> Stream:
        return self

    async def __anext__(self) -> bytes:
        try:
            value = await self._flow.take(None)
        except asyncio.CancelledError:
            self._flow.give_up()
            raise
        if value is None:
            raise StopAsyncIteration
        return value

    async def aclose(self) -> None:
        """Gives the request up, if it has not ended."""
        self._flow.give_up()

    async def __aenter__(self) -> Stream:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flow.give_up()

    def __del__(self) -> None:
        _abandon(self._flow)


class Conversation:
    """A request of several frames each way, with one worker. An async context manager, at whose end
    it is given up if it has not ended; and an async iterator of the worker's frames."""

    __slots__ = ("_flow", "_is_last")

    def __init__(self, flow: Flow) -> None:
        self._flow = flow
        self._is_last = False

    @property
    def has_ended(self) -> bool:
        """Whether the worker's last frame has come, or an error."""
        return self._flow.done()

    async def send(self, body: Body, *, last: bool = False, more: bool = False) -> None:
        """Sends the next frame to the worker that has answered, and waits while the broker takes
        nothing. `last`: nothing more is sent after it. `more`: it is a piece, and the worker is to
        wait for the next one.

        Raises what has ended the conversation, or `Refused` (`no_conversation`) if it is the
        worker's turn: it has not answered yet, or has sent its last frame."""
        flow = self._flow
        link = flow.link
        link.check_place()
        made = _bytes(body)
        if self._is_last:
            raise error("bad_state", "this side has sent its last frame of the conversation")
        if not flow.is_sent and not flow.done() and not flow.is_given_up:
            flow.begun = link.loop.create_future()
            try:
                await flow.begun
            finally:
                flow.begun = None
        if flow.failure is not None:
            raise flow.failure
        if flow.is_given_up:
            raise closed_here()
        if flow.is_over:
            raise error("no_conversation", "the worker has sent its last frame, so nobody would "
                                           "read this one")
        has_more = 1 if more and not last else 0
        link.write(link.session.further(flow.sequence, made, has_more, flow.worker))
        self._is_last = last
        await link.drained(flow)

    async def receive(self, timeout: float | None = None) -> bytes | None:
        """The next frame of the worker; None = the one before was its last. `timeout`: seconds;
        None = until the deadline of the request. Raises `DeadlineExceeded`, after which the
        conversation goes on, or the error that ended it."""
        return await self._flow.take(timeout)

    async def cancel(self) -> None:
        """Gives it up."""
        self._flow.give_up()

    def __aiter__(self) -> Conversation:
        return self

    async def __anext__(self) -> bytes:
        value = await self._flow.take(None)
        if value is None:
            raise StopAsyncIteration
        return value

    async def __aenter__(self) -> Conversation:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._flow.give_up()

    def __del__(self) -> None:
        _abandon(self._flow)


def _abandon(flow: Flow) -> None:
    """A handle was dropped: nobody takes the rest."""
    link = flow.link
    if flow.done() or flow.is_given_up or link.is_closed or link.is_forked:
        return
    if asyncio._get_running_loop() is link.loop:
        flow.give_up()
    elif not link.loop.is_closed():
        link.loop.call_soon_threadsafe(flow.give_up)


class Lines:
    """What an operator's `watch` shows, as an async iterator: lines of text without their ends, or
    one dict after the other. An async context manager, at whose end the watch ends."""

    __slots__ = ("_stream", "_is_json", "_lines", "_end", "_is_closed")

    def __init__(self, stream: Stream, is_json: bool, end: Callable[[], None]) -> None:
        """`end` closes the connection, with which the broker ends the watch."""
        self._stream = stream
        self._end = end
        self._is_closed = False
        self._is_json = is_json
        self._lines: deque[str] = deque()

    def __aiter__(self) -> Lines:
        return self

    async def __anext__(self) -> Any:
        try:
            while not self._lines:
                if self._is_closed:
                    raise StopAsyncIteration
                # Each frame is an answer of its own.
                piece = await self._stream.__anext__()
                if self._is_json:
                    return _object(piece)
                self._lines.extend(piece.decode(errors="replace").splitlines())
            return self._lines.popleft()
        except IsectError:
            if self._is_closed:
                raise StopAsyncIteration from None
            await self.aclose()
            raise
        except asyncio.CancelledError:
            await self.aclose()
            raise

    async def aclose(self) -> None:
        """Ends the watch."""
        self._is_closed = True
        self._lines.clear()
        self._stream._flow.give_up()
        self._end()

    async def __aenter__(self) -> Lines:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.aclose()

    def __del__(self) -> None:
        link = self._stream._flow.link
        if self._is_closed or link.is_closed or link.is_forked:
            return
        if asyncio._get_running_loop() is link.loop:
            self._end()
        elif not link.loop.is_closed():
            link.loop.call_soon_threadsafe(self._end)
