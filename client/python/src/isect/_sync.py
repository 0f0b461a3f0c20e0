"""The blocking client: `connect` and `Broker`.

A `Broker` and all that it makes may be used by any number of threads at once, except that one
`Conversation`, and one iterator of `stream`, belong to one thread at a time.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from itertools import count
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, overload

from . import _tables as t
from ._address import Address
from ._arguments import (Body, _bytes, _check_numbers, _check_service, _inherit, _object, _trace,
                         end_of, wrong)
from ._context import current
from ._dial import Options, check
from ._errors import IsectError, closed, error
from ._link import Link
from ._logs import logger
from ._options import _options
from ._session import millis
from ._slot import Slot
from ._topics import Position, Receipt, Topic, message_body
from ._traffic import forked
from ._wire import EXTENDABLE, IDEMPOTENT, NO_TRACE

if TYPE_CHECKING:
    from types import TracebackType

    from ._bus import Instance, Subscription
    from ._future import Future
    from ._instances import Watched
    from ._stream import Conversation, Lines, Stream
    from ._token import Token

#: Seconds for which `close` waits until requests without an answer are taken by a worker.
FLUSH_TIMEOUT = 5.0

#: Tell the connections of watches.
_numbers = count()


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
) -> Broker:
    """Finds a broker.

    `address`: `host`, `host:port`, `tls://host:port` or `unix:PATH`, or several, of which the first
    that answers is used; None = as isdclient does it: `ISECT_HOST`, else the socket in the user's
    state directory, else 127.0.0.1:5501.
    `token`, `token_file`: the token to prove, or a private file with it; None = `ISECT_TOKEN_FILE`
    or `ISECT_TOKEN`, if set; an empty `token` = none in any case.
    `ca`, `cert`, `key`: PEM files for `tls://`; None = `ISECT_CA`, `ISECT_CERT`, `ISECT_KEY`.
    `name`: a name for the operator's lists. `priority`: 1 to 255, of requests that name none.
    `timeout`: seconds to connect and log in, and to wait for answers of the broker itself; requests
    have their own.
    `reconnect`: whether to log in again after the connection broke. What is under way is sent again
    only if it did not run, or is idempotent.
    `heartbeat`: promise to answer pings at once; a helper thread does it. Conversations without a
    deadline need it.
    `as_worker`: this program is part of a worker, and has the rights of its start.
    `reply_bytes_max`: most bytes of one answer that `call` collects.
    `verify`: whether to look now that a broker answers; else the first request does.

    Raises `ConnectionFailed` if no broker answers, `UsageError` if an argument makes no sense.
    """
    options = _options(address, token, token_file, ca, cert, key, name, priority, timeout,
                       reconnect, heartbeat, as_worker, reply_bytes_max)
    if verify:
        check(options)
    return Broker(options)


class Broker:
    """A broker that this program uses; `isect.connect` makes it. It has one connection for each
    service that was asked, made when it is first used. Threads may share it; a process that was
    forked may not, and gets `ForkedError`. As a context manager it closes at the end."""

    __slots__ = ("_options", "_links", "_lock", "_is_closed", "_pid", "__weakref__")

    def __init__(self, options: Options) -> None:
        # What is imported later may find no file free.
        from . import _bus, _stream  # noqa: F401

        self._options = options
        self._links: dict[str, Link] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._pid = os.getpid()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close(flush_timeout=FLUSH_TIMEOUT if kind is None else 0)

    def __del__(self) -> None:
        try:
            if self._is_closed or not self._links or os.getpid() != self._pid:
                return
            if sys.is_finalizing():
                # At the end of the program the system closes it.
                for link in self._links.values():
                    if link.pipe is not None:
                        link.pipe.sock.detach()
                return
            for link in self._links.values():
                link.disown_all()
            import warnings

            warnings.warn(f"{self!r} was never closed", ResourceWarning, source=self)
        except AttributeError:
            # It was never whole.
            pass

    def __repr__(self) -> str:
        where = ", ".join(str(one) for one in self._options.addresses)
        return f"<isect.Broker at {where}{', closed' if self._is_closed else ''}>"

    def __reduce__(self) -> Any:
        raise TypeError("a connection belongs to this process; call isect.connect() in the other")

    def _link(self, service: str, *, kind: str | None = None,
              lines: list[tuple[str, str]] | None = None, is_constant: bool = False) -> Link:
        known = kind or service
        if os.getpid() != self._pid:
            raise forked()
        if known.__class__ is not str:
            _check_service(service)
        with self._lock:
            link = self._links.get(known)
            if link is None:
                if self._is_closed:
                    raise closed()
                _check_service(service)
                more = list(lines or [])
                if self._options.heartbeat and service != t.OP_SERVICE:
                    more.append(("heartbeat", "yes"))
                    is_constant = True
                link = self._links[known] = Link(service, self._options, more, is_constant)
        return link

    # Requests.

    def call(
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
        """Sends a request to a service and waits for the whole answer.

        `timeout`: seconds that the answer is worth waiting for, at most 3600; None = the service's
        default. `idempotent`: running it twice does no harm, so that it may be repeated.
        `extendable`: its worker may put the deadline off. `priority`: 1 to 255, lower is served
        first; 0 = that of `connect`. `trace_id`, `span_id`: W3C trace context. Within a worker's
        handler the time is at most what the request has left, and its trace is handed on.

        Raises `WorkerFailed` with the worker's own code; `DeadlineExceeded`; `Refused` (it did not
        run); `RequestFailed`, `ConnectionFailed`: `ran` says whether it may have run.
        """
        try:
            link = self._links.get(service)
        except (TypeError, ValueError):
            link = None
        if link is None:
            link = self._link(service)
        if type(body) is not bytes:
            body = _bytes(body)
        trace = NO_TRACE if trace_id is None else _trace(trace_id)
        request = current.get()
        if request is not None:
            timeout, trace, span_id = _inherit(request, timeout, trace, span_id)
        if priority.__class__ is not int or priority or span_id.__class__ is not int or span_id:
            _check_numbers(priority, span_id)
        flags = (IDEMPOTENT if idempotent else 0) | (EXTENDABLE if extendable else 0)
        return link.perform(Slot(body, flags, priority, trace, span_id, timeout))  # type: ignore

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
    ) -> Future:
        """As `call`, without waiting: the future has the answer. Many may be under way; those for
        which the connection has no room wait here."""
        global _make_future
        try:
            link = self._links.get(service)
        except (TypeError, ValueError):
            link = None
        if link is None:
            link = self._link(service)
        if _make_future is None:
            try:
                from ._future import Future
            except OSError as why:
                raise error("unreachable", f"the module of futures can't be read: {why.strerror}",
                            whose="client", advice="close files, or raise the limit of open files"
                            ) from None

            _make_future = Future
        if type(body) is not bytes:
            body = _bytes(body)
        trace = NO_TRACE if trace_id is None else _trace(trace_id)
        request = current.get()
        if request is not None:
            timeout, trace, span_id = _inherit(request, timeout, trace, span_id)
        if priority.__class__ is not int or priority or span_id.__class__ is not int or span_id:
            _check_numbers(priority, span_id)
        flags = (IDEMPOTENT if idempotent else 0) | (EXTENDABLE if extendable else 0)
        made = _make_future(link, body, flags, priority, trace, span_id, timeout)
        with link.lock:
            link.begin(made)
            link.pending.add(made)
            link.need_helper()
        if link.pipe is None:
            link.wait(made, made.wait_until, lambda: link.pipe is not None or made.is_done)
        elif link.outbox:
            link.drain(made.wait_until)
        if link.finished:
            link.settle()
        return made

    def send(
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
        """Sends a request whose answer nobody wants: nothing comes back, not even an error. `flush`
        tells how many were refused. Raises if it could not be sent."""
        link, trace, timeout, span_id, flags = self._prepare(
            service, timeout, idempotent, False, priority, trace_id, span_id)
        until = monotonic() + (self._options.timeout if timeout is None else timeout)
        link.ensure(until)
        with link.lock:
            link.check_open()
            _, made = link.session.tell(_bytes(body), flags, millis(timeout), priority, trace,
                                        span_id)
            link.write(made)
        if link.outbox:
            link.drain(until)
        link.settle()

    def flush(self, timeout: float | None = None) -> int:
        """Waits until all requests that `send` sent before were taken by a worker or refused, and
        what was published by the broker. Returns how many requests were refused, or ended before a
        worker took them, since the flush before. `timeout`: seconds; None = as long as it takes.
        Raises `DeadlineExceeded`, or `ConnectionFailed` if a connection was lost before they were
        counted: what became of them is not known then."""
        until = end_of(timeout)
        return sum(link.flush(until) for link in list(self._links.values())
                   if link.owes_flush)

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
        """Sends a request, and gives the answer piece by piece, as its worker sends it. To end the
        iteration early gives the request up. Options as of `call`."""
        from ._stream import Parts, Stream

        link, trace, timeout, span_id, flags = self._prepare(
            service, timeout, idempotent, extendable, priority, trace_id, span_id)
        made = Stream(link, Parts(_bytes(body), flags, priority, trace, span_id, timeout))
        made._begin()
        return made

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
        said anything. Options as of `call`."""
        from ._stream import Conversation, Parts

        link, trace, timeout, span_id, flags = self._prepare(
            service, timeout, False, extendable, priority, trace_id, span_id)
        made = Conversation(link, Parts(_bytes(body), flags, priority, trace, span_id, timeout))
        made._begin_now(more)
        return made

    def send_pieces(
        self,
        service: str,
        pieces: Iterable[Body],
        *,
        timeout: float | None = None,
        extendable: bool = False,
        priority: int = 0,
        trace_id: bytes | str | None = None,
        span_id: int = 0,
    ) -> bytes:
        """Sends a request in pieces, and waits for the whole answer. If the answer comes before the
        last piece, the rest is not sent. If `pieces` raises, the request is given up. Options as of
        `call`; a request in pieces is never repeated."""
        from ._stream import Conversation, Parts

        link, trace, timeout, span_id, flags = self._prepare(
            service, timeout, False, extendable, priority, trace_id, span_id)
        made = Conversation(link, Parts(b"", flags, priority, trace, span_id, timeout))
        if isinstance(pieces, (str, bytes, bytearray, memoryview)) or not isinstance(
                pieces, Iterable):
            raise wrong("pieces", pieces, "a list, or another iterable, of bytes or texts")
        with made:
            last: bytes | None = None
            for piece in pieces:
                if last is not None:
                    made._piece(last, True)
                    if made.is_over:
                        break
                last = _bytes(piece)
            if not made.is_over:
                made._piece(last or b"", False)
            return made._collect()

    def _prepare(
        self, service: str, timeout: float | None, idempotent: bool, extendable: bool,
        priority: int, trace_id: bytes | str | None, span_id: int,
    ) -> tuple[Link, bytes, float | None, int, int]:
        link = self._link(service)
        trace = NO_TRACE if trace_id is None else _trace(trace_id)
        request = current.get()
        if request is not None:
            timeout, trace, span_id = _inherit(request, timeout, trace, span_id)
        millis(timeout)
        _check_numbers(priority, span_id)
        flags = (IDEMPOTENT if idempotent else 0) | (EXTENDABLE if extendable else 0)
        return link, trace, timeout, span_id, flags

    # Operator commands.

    @overload
    def command(self, text: str, *, json: Literal[False] = False, timeout: float | None = None
                ) -> str: ...
    @overload
    def command(self, text: str, *, json: Literal[True], timeout: float | None = None
                ) -> dict[str, Any]: ...
    @overload
    def command(self, text: str, *, json: bool, timeout: float | None = None) -> Any: ...

    def command(self, text: str, *, json: bool = False, timeout: float | None = None) -> Any:
        """Runs an operator command, and returns its output: text, or with `json` a dict
        (docs/op.schema.json). `timeout`: seconds; None = that of `connect`. Raises `Refused`,
        `UsageError` or another `IsectError` with the broker's reason."""
        link = self._op(json)
        if timeout is None:
            timeout = min(self._options.timeout, t.DEADLINE_MS_MAX / 1000)
        slot = Slot(_bytes(text), timeout=timeout)
        answer = link.perform(slot)
        if not json:
            return answer.decode(errors="replace")
        return _object(answer)

    def watch(self, text: str = "watch", *, json: bool = False) -> Lines:
        """Runs an operator command that goes on (`watch`), as an iterator of what it shows line by
        line, or with `json` of one dict after the other; `close` ends it. Each has a connection of
        its own."""
        from ._stream import Lines, Parts, Stream

        body = _bytes(text)
        key = f"watch {next(_numbers)}"
        link = self._op(json, key)
        slot = Parts(body, 0, 0, NO_TRACE, 0, None)
        slot.is_endless = True
        made = Lines(self, key, Stream(link, slot), json)
        made._stream._begin()
        return made

    def _op(self, json: bool, key: str = "") -> Link:
        form = "json" if json else "text"
        return self._link(t.OP_SERVICE, kind=key or f"op {form}", lines=[("format", form)])

    # Topics.

    def publish(
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
        """Publishes a message to a topic.

        `retain`: the broker keeps it as the value of the topic, and later subscribers get it first;
        `while_connected`: the same, but no longer than this connection lasts. `expires`: seconds
        for which the value is kept at most. `lines`: words about the message and their values,
        which subscribers get. `wait`: wait until the broker has accepted it, and return the
        `Receipt`; without it a refusal is logged, and `refused` has it.

        Raises `Refused` (`bad_message`, `denied`, …), or `ConnectionFailed`.
        """
        from ._bus import publish

        kept = "connected" if while_connected else "yes" if retain else ""
        body = message_body(topic, _bytes(payload), retain=kept, lines=lines, expires=expires)
        return publish(self._bus(), body, wait)

    def remove(self, topic: str) -> Receipt:
        """Removes the value that is kept of a topic; subscribers are told."""
        from ._bus import publish

        made = publish(self._bus(), message_body(topic, b"", removed="deleted"), True)
        assert made is not None
        return made

    def refused(self) -> list[IsectError]:
        """The errors of messages that the broker refused and nobody waited for, since this was
        asked last; at most the last thousand. `sync_bus` waits until they have come."""
        link = self._links.get(t.BUS_SERVICE)
        if link is None:
            return []
        with link.lock:
            found = list(link.session.refused)
            link.session.refused.clear()
        return found

    def sync_bus(self) -> list[IsectError]:
        """Waits until the broker has had all that was published before, and returns `refused()`."""
        self._bus().flush(monotonic() + self._options.timeout)
        return self.refused()

    def subscribe(
        self,
        pattern: str,
        *,
        retained: bool = True,
        start: Position | str | None = None,
        queue_max: int = 100_000,
        queue_bytes_max: int = 64 << 20,
    ) -> Subscription:
        """Subscribes to all topics that match a pattern: words between dots, `*` for any one word,
        `>` at the end for one or more.

        `retained`: whether values that are kept come first. `start`: a position after which
        messages are wanted (`Subscription.position`, also of an earlier run). `queue_max`,
        `queue_bytes_max`: how much waits at this side; past it the oldest is dropped, and the next
        message says how many were.

        Raises `Refused` (`bad_message`, `denied`, `limit_reached`), or `ConnectionFailed`.
        """
        from ._bus import open_topic

        at = Position.parse(start) if isinstance(start, str) else start
        topic = Topic(pattern, retained, at, queue_max, queue_bytes_max)
        return open_topic(self, self._bus(), topic)

    def _bus(self) -> Link:
        link = self._links.get(t.BUS_SERVICE)
        if link is not None:
            return link
        lines = [] if self._options.heartbeat else [("heartbeat", "yes")]
        return self._link(t.BUS_SERVICE, lines=lines, is_constant=True)

    # Instances.

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
    ) -> Instance:
        """Announces an instance of this program, which the broker then watches: the program's own
        loop has to call `Instance.checkpoint` (or `beat`) more often than each `beat_every`
        seconds.

        `id`: tells it from others of its name on this machine; None = made of the process id. One
        that comes back with the same id displaces what was left of the one before.
        `activity_timeout`: seconds without a beat after which it is timed out; None = the broker's
        setting. `stalled`: seconds after which it is stalled if its checkpoint stays the same while
        it is not idle. `state`: `starting`, `running`, `stopping`, `stopped` or a number from 100
        on, which `state_names` may name. `addresses`, `meta`: for people and other programs.

        Raises `Refused` (`bad_instance`, `instance_taken`, `limit_reached`), or
        `ConnectionFailed`.
        """
        from ._bus import open_instance
        from ._instances import Watched

        def make(number: int) -> Watched:
            return Watched(name, number, type=type, groups=groups,
                           activity_timeout=activity_timeout, stalled=stalled, state=state,
                           addresses=addresses, meta=meta, state_names=state_names)

        return open_instance(self, self._bus(), id, make)

    @property
    def beat_every(self) -> float | None:
        """Seconds between two beats that the broker wants; None = no instance is watched."""
        link = self._links.get(t.BUS_SERVICE)
        if link is None or not link.session.has_watched:
            return None
        return link.session.beat_ms / 1000

    def beat(self) -> None:
        """Says that this program goes on, for all its instances, now."""
        link = self._links.get(t.BUS_SERVICE)
        if link is None:
            return
        if link.is_forked:
            raise forked()
        with link.lock:
            link.beaten = monotonic()
            made = link.session.beat() if link.pipe is not None else b""
            if made:
                link.write(made)

    def beat_if_due(self) -> bool:
        """As `beat`, if one is due: a program calls it wherever its work has gone on; it costs
        little where none is due. Returns whether a beat was sent."""
        link = self._links.get(t.BUS_SERVICE)
        if link is None or (monotonic() - link.beaten) * 1000 < link.session.beat_ms:
            return False
        self.beat()
        return True

    # The end.

    def close(self, *, flush_timeout: float | None = FLUSH_TIMEOUT) -> None:
        """Logs out and closes all connections. If requests were sent that want no answer, or
        messages that nobody waits for, it first waits as `flush` does, at most `flush_timeout`
        seconds (None = as long as it takes); that this failed is logged. Requests under way end
        with an error; subscriptions and instances end. Closing twice is no error."""
        until = end_of(flush_timeout, "flush_timeout")
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._is_closed = True
            links = list(self._links.values())
        try:
            for link in links:
                if link.owes_flush and (until is None or monotonic() < until):
                    try:
                        link.flush(until)
                    except IsectError as why:
                        logger().warning("not known is what became of what was sent to service "
                                         "'%s' without an answer: %s", link.service, why)
        finally:
            for link in links:
                link.close()


_make_future: type[Future] | None = None
