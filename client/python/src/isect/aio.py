"""The client for asyncio: `isect.connect` and `isect.Broker` with the same names, as awaitables,
async iterators and async context managers.

    async with isect.aio.connect() as broker:
        print(await broker.call("echo", b"hello", timeout=2))
        answers = await asyncio.gather(*(broker.submit("price", item) for item in items))
        async for message in await broker.subscribe("orders.>"):
            ...

A broker belongs to the event loop that it was connected in; elsewhere it raises `UsageError`, and
in a forked child `ForkedError`. Any number of tasks may use it at the same time. To cancel a task
that waits for an answer gives the request up: the broker is told, and the answer, however late,
reaches nobody. All times are in seconds; all errors are `isect.IsectError`.
"""

from __future__ import annotations

import asyncio
import inspect
import os
import typing
from collections.abc import (AsyncGenerator, AsyncIterable, Callable, Coroutine, Generator,
                             Iterable, Mapping, Sequence)
from itertools import count
from types import TracebackType
from typing import Any, Generic, Literal, Protocol, TypeVar, overload

from . import _tables as t
from ._address import Address
from ._aio_flow import Conversation as Conversation
from ._aio_flow import Flow
from ._aio_flow import Lines as Lines
from ._aio_flow import Stream as Stream
from ._aio_link import Call, Late, Link, OneWay, connected, inherited, limited, log, unheard
from ._aio_topics import Callback, Instance, Subscription, TopicHere, WatchedHere
from ._aio_topics import open_instance, open_topic
from ._arguments import Body, _bytes, _check_service, _object, span, wrong
from ._dial import Options
from ._errors import ForkedError, IsectError, closed, closing, error
from ._options import _options
from ._session import flags_of
from ._token import Token
from ._topics import Position, Receipt, message_body
from ._wire import Inbox, error_of, frame

__all__ = ["AsyncBroker", "Conversation", "Instance", "Lines", "Stream", "Subscription", "connect"]

#: Longest time that `close` waits for requests without an answer to be taken by a worker.
FLUSH_TIMEOUT = 5.0
#: Longest time that `close` waits for the broker to take what is left.
CLOSE_TIMEOUT = 1.0

#: Tell the connections of watches.
_numbers = count()


class _Entered(Protocol):
    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None,
        trace: TracebackType | None, /,
    ) -> None: ...


_T = TypeVar("_T", bound=_Entered)


class Opening(Generic[_T]):
    """What `connect`, `subscribe` and `announce` return: await it, or use it in `async with`."""

    __slots__ = ("_open", "_made")

    def __init__(self, opens: Callable[[], Coroutine[Any, Any, _T]]) -> None:
        self._open = opens
        self._made: _T | None = None

    def __await__(self) -> Generator[Any, None, _T]:
        return self._open().__await__()

    async def __aenter__(self) -> _T:
        self._made = made = await self._open()
        return made

    if not typing.TYPE_CHECKING:
        def __getattr__(self, name: str) -> Any:
            # A forgotten `await` is the first mistake of many.
            raise AttributeError(f"there is no '{name}' before this was awaited: write 'await …' "
                                 "or 'async with … as …'")

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._made is not None:
            await self._made.__aexit__(kind, why, trace)


def connect(
    address: str | Address | Sequence[str | Address] | None = None,
    *,
    token: str | Token | None = None,
    token_file: str | os.PathLike[str] | None = None,
    ca: str | os.PathLike[str] | None = None,
    cert: str | os.PathLike[str] | None = None,
    key: str | os.PathLike[str] | None = None,
    name: str | None = None,
    priority: int = t.PRIORITY_DEFAULT,
    timeout: float = 10.0,
    reconnect: bool = True,
    heartbeat: bool = False,
    as_worker: bool = False,
    reply_bytes_max: int = 64 << 20,
    verify: bool = True,
) -> Opening[AsyncBroker]:
    """Finds a broker: `broker = await connect()`, or `async with connect() as broker`. All options
    are those of `isect.connect`.

    `heartbeat` promises that the loop is never busy for long, so that the broker may take silence
    for the end; conversations without a deadline need it.

    Raises `ConnectionFailed` if no broker answers, `UsageError` if an argument makes no sense.
    There is one connection for each service, made when the service is asked first; so a service or
    a token that is refused shows itself there.
    """
    made = _options(address, token, token_file, ca, cert, key, name, priority, timeout, reconnect,
                    heartbeat, as_worker, reply_bytes_max)
    return Opening(lambda: _connect(made, verify))


async def _connect(options: Options, verify: bool) -> AsyncBroker:
    loop = asyncio.get_running_loop()
    if verify:
        await _check(loop, options)
    broker = AsyncBroker(loop, options)
    await broker._guard.__anext__()
    return broker


class _Probe(asyncio.Protocol):
    """Asks whether a broker answers: whoever connects may send a ping before the login."""

    def __init__(self, found: asyncio.Future[None]) -> None:
        self.found = found
        self.inbox = Inbox()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        transport.write(frame(t.PING, sequence=1))  # type: ignore[attr-defined]

    def data_received(self, data: bytes) -> None:
        self.inbox.feed(data)
        if self.found.done():
            return
        try:
            found = self.inbox.take()
            if found is not None:
                if found[0].command == t.ERROR:
                    raise error_of(*found)
                self.found.set_result(None)
        except IsectError as why:
            if why.name not in ("unreachable", "tls", "too_many_connections", "shutting_down"):
                why = error("unreachable", f"what listens there is no broker of isect: {why.text}")
            self.found.set_exception(why)

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.found.done():
            self.found.set_exception(error("unreachable", "what listens there closed the "
                                           "connection; it may be no broker, or speak only TLS"))


async def _check(loop: asyncio.AbstractEventLoop, options: Options) -> None:
    """Tries each address once, until a broker answers."""
    link = Link(loop, options, "")
    await link.attempt(_probe)


async def _probe(link: Link, address: Address) -> None:
    loop = link.loop
    context = link.options.tls() if address.kind == "tls" else None
    connection = await connected(loop, address)
    found: asyncio.Future[None] = loop.create_future()
    transport: asyncio.Transport | None = None
    try:
        transport, _ = await link.over(connection, address, context, lambda: _Probe(found))
        link.address = address
        await found
    finally:
        found.cancel()
        unheard(found)
        if transport is None:
            connection.close()
        else:
            transport.abort()
            # So that it is closed at once.
            await asyncio.sleep(0)


async def _until_loop_ends(links: dict[Any, Link]) -> AsyncGenerator[None, None]:
    """The loop closes this generator at its own end (`asyncio.run` does it): a broker that is still
    open then is closed."""
    try:
        yield
    finally:
        open_links = [link for link in links.values() if not link.is_closed]
        for link in open_links:
            link.begin_close(closed())
        for _ in range(4):
            # The loop closes a transport in a later turn.
            if any(link.transport is not None for link in open_links):
                await asyncio.sleep(0)
        for link in open_links:
            if link.transport is not None:
                link.transport.abort()
                await asyncio.sleep(0)


class AsyncBroker:
    """A broker, with one connection for each service that was asked. `connect` makes it."""

    def __init__(self, loop: asyncio.AbstractEventLoop, options: Options) -> None:
        """For `connect` only."""
        self._loop = loop
        self._options = options
        self._links: dict[Any, Link] = {}
        self._is_closed = False
        self._pid = os.getpid()
        self._guard = _until_loop_ends(self._links)

    def __repr__(self) -> str:
        places = ", ".join(str(one) for one in self._options.addresses)
        return f"<AsyncBroker of {places}{', closed' if self._is_closed else ''}>"

    def _link(self, service: str, key: Any = None, extra: Sequence[tuple[str, str]] = ()) -> Link:
        """The connection to a service."""
        try:
            link = self._links.get(key or service)
        except (TypeError, ValueError):
            link = None
        if link is not None:
            return link
        if os.getpid() != self._pid:
            raise ForkedError("bad_state", "this broker belongs to the process that this one was "
                              "forked from", advice="connect again in this process")
        if self._is_closed:
            raise closed()
        _check_service(service)
        lines = list(extra)
        if service == t.BUS_SERVICE or (self._options.heartbeat and service != t.OP_SERVICE):
            lines.append(("heartbeat", "yes"))
        link = Link(self._loop, self._options, service, lines)
        link.check_place()
        link.owner = self
        self._links[key or service] = link
        return link

    # Requests.

    def submit(
        self,
        service: str,
        body: Body = b"",
        *,
        timeout: float | None = None,
        idempotent: bool = False,
        extendable: bool = False,
        priority: int = 0,
        trace_id: bytes | str | None = None,
        span_id: int = 0,
    ) -> asyncio.Future[bytes]:
        """Begins a request, and returns the future of its answer; to cancel that gives the request
        up. Nothing is waited for: more requests than the broker allows on a connection wait in
        their order, within their time.

        `timeout`: how long the answer is worth waiting for, in seconds, to an hour; without it the
        service's own deadline holds. Within a worker's handler it is at most what is left of the
        request that this task is at. `idempotent`: running it twice does no harm, so that it is
        sent again if a worker or the connection is lost. `extendable`: its worker may put the
        deadline off. `priority`: 1 to 255, lower is served first; 0 = that of the connection.
        `trace_id`, 16 bytes, and `span_id`: handed on to the worker.

        The future's error is that of the broker, the worker or the connection, with `ran`. What
        makes no sense raises `UsageError` here.
        """
        try:
            link = self._links.get(service) or self._link(service)
        except (TypeError, ValueError):
            link = self._link(service)
        return link.call(
            body, timeout, (1 if idempotent else 0) | (2 if extendable else 0), priority, trace_id,
            span_id)

    async def call(
        self,
        service: str,
        body: Body = b"",
        *,
        timeout: float | None = None,
        idempotent: bool = False,
        extendable: bool = False,
        priority: int = 0,
        trace_id: bytes | str | None = None,
        span_id: int = 0,
    ) -> bytes:
        """Sends a request and waits for the whole answer; as `submit`."""
        try:
            link = self._links.get(service) or self._link(service)
        except (TypeError, ValueError):
            link = self._link(service)
        return await link.call(  # type: ignore[no-any-return]
            body, timeout, (1 if idempotent else 0) | (2 if extendable else 0), priority, trace_id,
            span_id)

    async def send(
        self,
        service: str,
        body: Body = b"",
        *,
        timeout: float | None = None,
        idempotent: bool = False,
        priority: int = 0,
        trace_id: bytes | str | None = None,
        span_id: int = 0,
    ) -> None:
        """Sends a request that wants no answer, not even an error; `flush` tells what became of it.
        Waits until the broker takes it. Options as of `submit`."""
        link = self._link(service)
        await link.call(body, timeout, 1 if idempotent else 0, priority, trace_id, span_id,
                        kind=OneWay)

    async def flush(self, timeout: float | None = None) -> int:
        """Waits until all that was sent before was taken by a worker or refused, and what was
        published by the broker. Returns how many requests were refused, or ended before a worker
        took them, since the flush before. Raises `DeadlineExceeded` (`timeout`) if requests still
        wait after this time, and `ConnectionFailed` if a connection was lost before they were
        counted."""
        timeout = span(timeout)
        links = list(self._links.values())
        asked = []
        for link in links:
            link.check_place()
            lost, link.unflushed = link.unflushed, None
            if lost is not None:
                raise lost
            if link.session.has_unflushed or link.has_published:
                await link.opened(timeout)
                link.has_published = False
                asked.append(link.ask(link.session.flush, timeout))
        try:
            return sum([await one for one in asked])
        finally:
            for one in asked:
                one.cancel()
                unheard(one)

    def _flow(
        self, service: str, body: Body, timeout: float | None, flags: int, priority: int,
        trace_id: bytes | str | None, span_id: int, more: int, key: Any = None,
        extra: Sequence[tuple[str, str]] = (),
    ) -> Flow:
        link = self._link(service, key, extra)
        link.check_place()
        made = _bytes(body)
        timeout, trace, span_id = inherited(timeout, priority, trace_id, span_id)
        due = self._loop.time() + (link.span if timeout is None else timeout)
        flow = Flow(link, due, (made, flags, timeout, priority, trace, span_id, more))
        link.wait(flow)
        link.pump()
        return flow

    def stream(
        self,
        service: str,
        body: Body = b"",
        *,
        timeout: float | None = None,
        idempotent: bool = False,
        extendable: bool = False,
        priority: int = 0,
        trace_id: bytes | str | None = None,
        span_id: int = 0,
    ) -> Stream:
        """Sends a request, and returns an async iterator of the pieces of its answer. To leave it
        early gives the request up. It is not sent again after a loss of the connection. Options as
        of `submit`."""
        return Stream(self._flow(service, body, timeout, flags_of(idempotent, extendable), priority,
                                 trace_id, span_id, 0))

    def converse(
        self,
        service: str,
        body: Body = b"",
        *,
        timeout: float | None = None,
        extendable: bool = False,
        priority: int = 0,
        trace_id: bytes | str | None = None,
        span_id: int = 0,
        more: bool = False,
    ) -> Conversation:
        """Begins a conversation: the worker's frames come by iteration or `receive`, and `send`
        answers them. `more`: this first frame is a piece, and `send` goes on before the worker has
        said anything. Use it in `async with`. Options as of `submit`."""
        return Conversation(self._flow(service, body, timeout, flags_of(False, extendable),
                                       priority, trace_id, span_id, 1 if more else 0))

    async def send_pieces(
        self,
        service: str,
        pieces: Iterable[Body] | AsyncIterable[Body],
        *,
        timeout: float | None = None,
        extendable: bool = False,
        priority: int = 0,
        trace_id: bytes | str | None = None,
        span_id: int = 0,
    ) -> bytes:
        """Sends a request in pieces, each of at most the broker's `body_bytes_max`, and returns the
        whole answer. The worker gets each piece as it comes. It waits while the broker takes
        nothing, takes no further pieces once the request has its outcome, and is not sent again.
        Options as of `submit`."""
        link = self._link(service)
        source = _pieces(pieces)
        held: Body = b""
        made: Call | None = None
        try:
            async for held in source:
                break
            made = link.call(held, timeout, flags_of(False, extendable), priority, trace_id,
                             span_id, 1)
            made.is_plain = False
            if not made.is_sent and not made.done():
                made.begun = link.loop.create_future()
                await made.begun
            is_first = True
            async for piece in source:
                if made.done():
                    break
                if not is_first:
                    link.write(link.session.further(made.sequence, _bytes(held), 1))
                is_first = False
                held = piece
                await link.drained(made)
            if not made.done():
                last = b"" if is_first else _bytes(held)
                link.write(link.session.further(made.sequence, last, 0))
            return await made  # type: ignore[no-any-return]
        finally:
            if made is not None:
                made.cancel()
                unheard(made)
            await source.aclose()

    # Topics.

    async def publish(
        self,
        topic: str,
        payload: Body = b"",
        *,
        retain: bool = False,
        while_connected: bool = False,
        expires: float | None = None,
        lines: Mapping[str, str] | None = None,
        wait: bool = False,
    ) -> Receipt | None:
        """Publishes a message. `retain`: the broker keeps it as the value of its topic, `expires`
        seconds at most; `while_connected`: no longer than this program is connected. `lines`: words
        and values that subscribers get. With `wait` it waits until the broker has accepted it, and
        returns its `Receipt`; without, a refusal is logged, and `refused` has it. It is never
        published again after a loss. Raises `Refused` (`bad_message`, `denied`, …), or
        `ConnectionFailed`."""
        kept = "connected" if while_connected else "yes" if retain else ""
        body = message_body(topic, _bytes(payload), retain=kept, expires=expires,
                            lines=lines)
        return await self._publish(body, wait)

    async def remove(self, topic: str) -> Receipt:
        """Removes the value that is kept of a topic; subscribers are told."""
        receipt = await self._publish(message_body(topic, b"", removed="deleted"), True)
        assert receipt is not None
        return receipt

    def refused(self) -> list[IsectError]:
        """The errors of messages that the broker refused and nobody waited for, since this was
        asked last; at most the last thousand. After `flush` all have come."""
        link = self._links.get(t.BUS_SERVICE)
        if link is None:
            return []
        found = list(link.session.refused)
        link.session.refused.clear()
        return found

    async def sync_bus(self) -> list[IsectError]:
        """Waits until the broker has had all that was published before, and returns `refused()`.
        Raises `ConnectionFailed` if the connection was lost meanwhile."""
        link = self._link(t.BUS_SERVICE)
        link.check_place()
        lost, link.unflushed = link.unflushed, None
        if lost is not None:
            raise lost
        await link.opened(self._options.timeout)
        link.has_published = False
        await link.ask(link.session.flush, self._options.timeout)
        return self.refused()

    async def _publish(self, body: bytes, wait: bool) -> Receipt | None:
        link = self._link(t.BUS_SERVICE)
        link.check_place()
        timeout = self._options.timeout
        if not link.is_ready:
            await link.opened(timeout)
        if not wait:
            link.has_published = True
            link.write(link.session.publish(None, body)[1])
            return None
        asked = link.ask(lambda slot: link.session.publish(slot, body), timeout)
        return await asked  # type: ignore[no-any-return]

    def subscribe(
        self,
        pattern: str,
        callback: Callback | None = None,
        *,
        retained: bool = True,
        start: Position | str | None = None,
        queue_max: int = 100_000,
        queue_bytes_max: int = 64 << 20,
    ) -> Opening[Subscription]:
        """Subscribes to all topics that match a pattern: words between dots, `*` for any one word,
        `>` at the end for one or more. `retained`: whether the values that are kept of such topics
        come first. `start`: a position that an earlier subscription had, to go on after it.
        `callback` is called with each message, in the loop; without it the subscription is an async
        iterator of messages. To iterate costs at most 1.2 times as much as the callback, where
        each message wakes the task, and the same where several come at once. Past `queue_max`
        messages, or so many bytes, that wait for the program, the oldest is dropped, and the next
        one says how many were.

        Await it, or use it in `async with`. Raises `Refused` (`bad_message`, `denied`,
        `limit_reached`), or `ConnectionFailed`."""
        if inspect.iscoroutinefunction(callback):
            raise error("usage", "the callback of a subscription is a plain function; iterate over "
                                 "the subscription to await something for each message")
        at = Position.parse(start) if isinstance(start, str) else start
        topic = TopicHere(pattern, retained, at, queue_max, queue_bytes_max)
        topic.waiters = []
        topic.callback = callback
        link = self._link(t.BUS_SERVICE)
        return Opening(lambda: open_topic(link, topic, self._options.timeout))

    def announce(
        self,
        name: str,
        *,
        id: int | None = None,
        type: str | int = "data",
        groups: Sequence[str] = (),
        activity_timeout: float | None = None,
        stalled: float | None = None,
        state: str | int = "running",
        addresses: Iterable[str] = (),
        meta: Mapping[str, str] | None = None,
        state_names: Mapping[int, str] | None = None,
    ) -> Opening[Instance]:
        """Announces an instance of this program, which the broker watches from now on; it has to
        call `checkpoint` wherever its work goes on. `activity_timeout`: seconds without a beat
        after which it is timed out; `stalled`: seconds with the same checkpoint after which it
        counts as stalled; other options as of `isect.Broker.announce`. Await it, or use it in
        `async with`, which withdraws it at the end."""
        link = self._link(t.BUS_SERVICE)
        watched = WatchedHere(
            name, link.session.free_id(os.getpid()) if id is None else id, type=type,
            groups=groups, activity_timeout=activity_timeout, stalled=stalled, state=state,
            addresses=addresses, meta=meta, state_names=state_names)
        watched.waiters = []
        return Opening(lambda: open_instance(link, watched, self._options.timeout))

    @property
    def beat_every(self) -> float | None:
        """Seconds between two beats that the broker wants; None = no instance is watched."""
        link = self._links.get(t.BUS_SERVICE)
        if link is None or not link.session.has_watched:
            return None
        return link.session.beat_ms / 1000

    def beat_if_due(self) -> bool:
        """Says that this program goes on, for all its instances, if that is due: a program calls it
        wherever its work has gone on. It does not wait. Returns whether a beat was sent."""
        link = self._links.get(t.BUS_SERVICE)
        return link is not None and link.beat(False)

    def beat(self) -> None:
        """As `beat_if_due`, now."""
        link = self._links.get(t.BUS_SERVICE)
        if link is not None:
            link.beat(True)

    # The operator.

    @overload
    async def command(self, text: str, *, json: Literal[False] = False,
                      timeout: float | None = None) -> str: ...
    @overload
    async def command(self, text: str, *, json: Literal[True], timeout: float | None = None
                      ) -> dict[str, Any]: ...
    @overload
    async def command(self, text: str, *, json: bool, timeout: float | None = None) -> Any: ...

    async def command(self, text: str, *, json: bool = False, timeout: float | None = None) -> Any:
        """Runs an operator command, and returns its output: text, or with `json` a dict
        (docs/op.schema.json). `timeout`: seconds; None = that of `connect`. Raises `Refused`,
        `UsageError` or another `IsectError` with the broker's reason."""
        key, extra = _op(json, "op")
        link = self._link(t.OP_SERVICE, key, extra)
        if timeout is None:
            timeout = min(self._options.timeout, t.DEADLINE_MS_MAX / 1000)
        answer = await link.call(text, timeout, 0, 0, None, 0)
        return _object(answer) if json else answer.decode(errors="replace")

    def watch(self, text: str = "watch", *, json: bool = False) -> Lines:
        """Runs an operator command that goes on (`watch`), as an async iterator of what it shows
        line by line, or with `json` of one dict after the other; `aclose`, or the end of `async
        with`, ends it. Each has a connection of its own."""
        body = _bytes(text)
        key, extra = _op(json, f"watch {next(_numbers)}")
        flow = self._flow(t.OP_SERVICE, body, None, 0, 0, None, 0, 0, key, extra)
        links = self._links

        def end() -> None:
            link = links.pop(key, None)
            if link is not None:
                link.begin_close(closing())

        return Lines(Stream(flow), json, end)

    # The end.

    async def close(self, *, flush_timeout: float | None = FLUSH_TIMEOUT) -> None:
        """Logs out and closes all connections. If requests were sent that want no answer, or
        messages that nobody waits for, it first waits as `flush` does, at most `flush_timeout`
        seconds (None = as long as it takes); that this failed is logged. Requests under way end
        with an error; subscriptions and instances end. Closing twice is no error."""
        seconds = span(flush_timeout, "flush_timeout")
        if self._is_closed or os.getpid() != self._pid:
            self._is_closed = True
            return
        links = list(self._links.values())
        for link in links:
            link.check_place()
        try:
            if seconds is None or seconds > 0:
                try:
                    await limited(self.flush(seconds), seconds)
                except IsectError as fault:
                    log.warning("not known is what became of what was sent without an answer: %s",
                                fault)
                except Late:
                    log.warning("no worker has taken all that was sent without an answer within "
                                "%g s", seconds)
        finally:
            self._is_closed = True
            why = closing()
            ends: list[asyncio.Future[None]] = []
            for link in links:
                link.begin_close(why)
                if link.ended is not None and link.transport is not None:
                    ends.append(link.ended)
                if link.connecting is not None:
                    ends.append(link.connecting)
            try:
                if ends:
                    await asyncio.wait(ends, timeout=CLOSE_TIMEOUT)
            finally:
                for link in links:
                    if link.transport is not None:
                        link.transport.abort()
                await self._guard.aclose()

    async def __aenter__(self) -> AsyncBroker:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close(flush_timeout=FLUSH_TIMEOUT if kind is None else 0)


async def _pieces(given: Iterable[Body] | AsyncIterable[Body]) -> AsyncGenerator[Body, None]:
    if isinstance(given, (str, bytes, bytearray, memoryview)) or not isinstance(
            given, (Iterable, AsyncIterable)):
        raise wrong("pieces", given, "a list, or another iterable, of bytes or texts")
    if isinstance(given, AsyncIterable):
        async for piece in given:
            yield piece
    else:
        for piece in given:
            yield piece


def _op(json: bool, kind: str) -> tuple[str, list[tuple[str, str]]]:
    """The key of a connection to `op`, and the lines of its login."""
    form = "json" if json else "text"
    return f"{kind} {form}", [("format", form)]
