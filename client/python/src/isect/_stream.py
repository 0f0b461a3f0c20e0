"""Requests of the blocking front whose answer is more than one frame: answers that are taken piece
by piece, and conversations."""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Iterator
from time import monotonic
from typing import TYPE_CHECKING, Any, TypeVar

from ._arguments import Body, _bytes, _object, end_of
from ._errors import DeadlineExceeded, IsectError, error
from ._link import Link
from ._session import millis
from ._slot import GRACE, Slot, too_large
from ._traffic import forked

if TYPE_CHECKING:
    from ._sync import Broker
    from ._traffic import Traffic


class Parts(Slot):
    """The frames of an answer that are taken one by one."""

    __slots__ = ("is_endless", "is_talk", "is_repeatable")

    def __init__(self, body: bytes, flags: int, priority: int, trace_id: bytes, span_id: int,
                 timeout: float | None) -> None:
        super().__init__(body, flags, priority, trace_id, span_id, timeout)
        self.is_endless = False
        self.is_talk = False
        #: As long as nothing has come.
        self.is_repeatable = True
        self.parts: deque[tuple[bytes, int]] = deque()

    def answered(self, link: Traffic, value: Any) -> None:
        self.parts.append((value, 0))
        self.is_done = True

    def came(self, link: Traffic, value: bytes, head: tuple[Any, ...]) -> None:
        self.parts.append((value, head[6]))
        self.is_repeatable = False
        self.size += len(value)
        if self.is_talk:
            # In some services it has no deadline any more; else the broker tells of its end.
            self.until = self.wait_until = None
        if self.size > link.options.reply_bytes_max:
            link.give_up(self)
            limit = link.options.reply_bytes_max
            self.failed(link, error("body_too_large", f"more than reply_bytes_max {limit} bytes of "
                                    "pieces wait to be taken; take them sooner", ran="maybe",
                                    advice=""))


class Stream:
    """The pieces of an answer, in the order in which its worker sends them. An iterator and a
    context manager; `close` gives the request up. For one thread at a time."""

    __slots__ = ("_link", "_slot", "__weakref__")

    def __init__(self, link: Link, slot: Parts) -> None:
        self._link = link
        self._slot = slot

    def _begin(self) -> None:
        link, slot = self._link, self._slot
        try:
            with link.lock:
                link.begin(slot)
            if link.pipe is None:
                link.wait(slot, slot.wait_until, lambda: link.pipe is not None or slot.is_done)
            elif link.outbox:
                link.drain(slot.wait_until)
        except BaseException:
            link.abandon(slot)
            raise

    def _next(self, until: float | None) -> tuple[bytes, int] | None:
        """The next piece; None = the answer is over."""
        link, slot = self._link, self._slot
        while True:
            if slot.parts:
                with link.lock:
                    piece: tuple[bytes, int] = slot.parts.popleft()
                    slot.size -= len(piece[0])
                return piece
            if slot.is_done:
                if slot.error is not None:
                    raise slot.error
                return None
            limit = slot.wait_until
            if until is not None and (limit is None or until < limit):
                limit = until
            if link.wait(slot, limit, lambda: bool(slot.parts) or slot.is_done):
                continue
            now = monotonic()
            if slot.wait_until is not None and now >= slot.wait_until:
                link.expire(slot)
            elif until is not None and now >= until:
                raise DeadlineExceeded("timeout", f"nothing came of service '{link.service}' in "
                                                  "the time that was given; the request goes on")

    def __iter__(self) -> Iterator[bytes]:
        return self

    def __next__(self) -> bytes:
        piece = self._next(None)
        if piece is None:
            raise StopIteration
        return piece[0]

    @property
    def is_over(self) -> bool:
        """Whether the last frame of the answer, or an error, has come."""
        return self._slot.is_done

    def close(self) -> None:
        """Gives the request up, if it is not over."""
        if not self._slot.is_done:
            self._link.abandon(self._slot)
        self._slot.parts.clear()

    def __enter__(self: _S) -> _S:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            if not self._slot.is_done:
                self._link.disown(self._slot)
        except AttributeError:
            # It was never whole.
            pass


_S = TypeVar("_S", bound=Stream)


class Conversation(Stream):
    """A request of several frames each way, with one worker. An iterator of the worker's frames,
    and a context manager that gives it up if it is not over. For one thread at a time."""

    __slots__ = ("_worker", "_is_last")

    def __init__(self, link: Link, slot: Parts) -> None:
        super().__init__(link, slot)
        slot.is_talk = True
        slot.is_repeatable = False
        self._worker = 0
        self._is_last = False

    def _begin_now(self, more: bool) -> None:
        """Sends the first frame, on a connection that is there: a conversation is not repeated."""
        link, slot = self._link, self._slot
        now = monotonic()
        link.ensure(now + (link.options.timeout if slot.timeout is None else slot.timeout))
        with link.lock:
            link.check_open()
            limits = link.session.limits
            span = slot.timeout
            if span is None and limits.deadline_ms:
                span = limits.deadline_ms / 1000
            if span is not None:
                slot.until = now + span
                slot.wait_until = slot.until + GRACE
            slot.sequence, made = link.session.request(
                slot, slot.body, slot.flags, millis(slot.timeout), slot.priority, slot.trace_id,
                slot.span_id, 1 if more else 0)
            link.live.add(slot)
            link.write(made)
        self._drained()

    def _drained(self) -> None:
        link = self._link
        try:
            if link.outbox:
                link.drain(self._slot.wait_until)
        except BaseException:
            link.abandon(self._slot)
            raise

    def _piece(self, body: bytes, more: bool) -> None:
        """A piece of a request."""
        if self._slot.sequence == 0:
            self._slot.body = body
            self._begin_now(more)
        else:
            self._further(body, more)

    def _further(self, body: bytes, more: bool) -> None:
        link, slot = self._link, self._slot
        with link.lock:
            if link.is_forked:
                raise forked()
            if slot.is_done:
                return
            made = link.session.further(slot.sequence, body, int(more), self._worker)
            link.write(made)
        self._drained()

    def _collect(self) -> bytes:
        out = []
        size = 0
        while (piece := self._next(None)) is not None:
            out.append(piece[0])
            size += len(piece[0])
            if size > self._link.options.reply_bytes_max:
                self.close()
                raise too_large(self._link.options.reply_bytes_max)
        return b"".join(out)

    def send(self, body: Body, *, last: bool = False, more: bool = False) -> None:
        """Sends the next frame to the worker that has answered. `last`: nothing more is sent after
        it. `more`: it is a piece, and the worker is to wait for the next one.

        Raises what has ended the conversation, or `Refused` (`no_conversation`) if it is the
        worker's turn no more: it has sent its last frame."""
        if self._is_last:
            raise error("bad_state", "this side has sent its last frame of the conversation")
        if self._slot.error is not None:
            raise self._slot.error
        if self._slot.is_done:
            raise error("no_conversation", "the worker has sent its last frame, so nobody would "
                                           "read this one")
        self._is_last = last
        self._further(_bytes(body), bool(more) and not last)

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next frame of the worker; None = the one before was its last. `timeout`: seconds;
        None = until the deadline of the request. Raises `DeadlineExceeded`, or the error that ended
        the conversation."""
        piece = self._next(end_of(timeout))
        if piece is None:
            return None
        self._worker = piece[1] or self._worker
        return piece[0]

    def __next__(self) -> bytes:
        piece = self.receive()
        if piece is None:
            raise StopIteration
        return piece

    def cancel(self) -> None:
        """Gives the conversation up: its worker is told, and what it still sends is dropped."""
        self.close()


class Lines:
    """What an operator's `watch` shows, as an iterator: lines of text without their ends, or one
    dict after the other. A context manager, at whose end the watch ends. For one thread at a
    time."""

    __slots__ = ("_broker", "_key", "_stream", "_is_json", "_lines", "_is_closed")

    def __init__(self, broker: Broker, key: str, stream: Stream, is_json: bool) -> None:
        self._broker = broker
        self._key = key
        self._stream = stream
        self._is_json = is_json
        self._lines: deque[str] = deque()
        self._is_closed = False

    def __iter__(self) -> Iterator[Any]:
        return self

    def __next__(self) -> Any:
        try:
            while not self._lines:
                if self._is_closed:
                    raise StopIteration
                # Each frame is an answer of its own.
                piece = next(self._stream)
                if self._is_json:
                    return _object(piece)
                self._lines.extend(piece.decode(errors="replace").splitlines())
            return self._lines.popleft()
        except IsectError:
            if self._is_closed:
                raise StopIteration from None
            self.close()
            raise

    def close(self) -> None:
        """Ends the watch, which has a connection of its own: the broker ends it with that."""
        self._is_closed = True
        self._lines.clear()
        link = self._broker._links.pop(self._key, None)
        if link is not None:
            link.close()

    def __enter__(self) -> Lines:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            link = self._broker._links.pop(self._key, None)
            if link is not None and not sys.is_finalizing():
                link.disown_all()
        except AttributeError:
            # It was never whole.
            pass
