"""The blocking client: a broker, futures, conversations, subscriptions, instances.

A `Broker` and all that it makes may be used by any number of threads at once, except that one
`Conversation`, and one iterator of `stream`, belong to one thread at a time.
"""

from __future__ import annotations

import os
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from time import monotonic
from typing import TYPE_CHECKING, Any, Literal, TypeVar, Union, overload

from . import _tables as t
from ._address import Address, defaults, parse
from ._context import current
from ._dial import Options, check
from ._errors import DeadlineExceeded, IsectError, error, visible, with_ran
from ._instances import WATCHED, Watched
from ._link import Link
from ._session import OPEN, millis
from ._slot import GRACE, Ask, Slot, too_large
from ._topics import (CaughtUp, Lost, Message, Missing, Position, Receipt, Topic, TopicEvent,
                      message_body)
from ._traffic import forked
from ._wire import EXTENDABLE, IDEMPOTENT, NO_TRACE

if TYPE_CHECKING:
    import ssl
    from types import TracebackType

    from ._future import Future
    from ._token import Token
    from ._traffic import Traffic

#: What may be the body of a request or the payload of a message; text becomes UTF-8.
Body = Union[bytes, bytearray, memoryview, str]

#: Seconds for which `close` waits until requests without an answer are taken by a worker.
FLUSH_TIMEOUT = 5.0


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


def _options(
    address: str | Address | Sequence[str | Address] | None,
    token: str | Token | None,
    token_file: str | os.PathLike[str] | None,
    ca: str | os.PathLike[str] | None,
    cert: str | os.PathLike[str] | None,
    key: str | os.PathLike[str] | None,
    name: str | None,
    priority: int,
    timeout: float,
    reconnect: bool,
    heartbeat: bool,
    as_worker: bool,
    reply_bytes_max: int,
) -> Options:
    """What `connect`, here and in `aio`, was given. Raises `UsageError`."""
    from_where = defaults() if address is None else _addresses(address)
    if not (isinstance(priority, int) and 1 <= priority <= 255):
        raise error("usage", f"priority is {priority!r}; it is 1 to 255, lower is served first")
    if not timeout > 0:
        raise error("usage", f"timeout is {timeout!r}; it is more than 0 seconds")
    if token is not None and token_file is not None:
        raise error("usage", "token and token_file are both named; name one of them")
    start: list[tuple[str, str]] = []
    found = None
    if as_worker:
        start = _start_lines()
    else:
        found = _token(token, token_file)
    made: list[ssl.SSLContext] = []
    files = [None if one is None else os.fspath(one) for one in (ca, cert, key)]

    def tls() -> ssl.SSLContext:
        if not made:
            from ._trust import context, from_environment

            made.append(context(*from_environment(*files)))
        return made[0]

    return Options(from_where, found, tls, name, priority, float(timeout), reconnect, start,
                   heartbeat, reply_bytes_max)


def _addresses(given: str | Address | Sequence[str | Address]) -> list[Address]:
    if isinstance(given, (str, Address)):
        given = [given]
    found = [one if isinstance(one, Address) else parse(one) for one in given]
    if not found:
        raise error("usage", "no address is named; name one, or None for the usual ones")
    return found


def _token(token: str | Token | None, token_file: str | os.PathLike[str] | None) -> Token | None:
    if token == "" or token is None and token_file is None and not (
            os.environ.get(t.TOKEN_VARIABLE) or os.environ.get(t.TOKEN_FILE_VARIABLE)):
        return None
    from ._token import Token, argon2

    if token_file is not None:
        found: Token | None = Token.from_file(token_file)
    elif token is not None:
        found = Token(token) if isinstance(token, str) else token
    else:
        found = Token.from_environment()
    argon2()
    return found


def _start_lines() -> list[tuple[str, str]]:
    worker = sys.argv[3] if len(sys.argv) > 3 else ""
    secret = os.environ.get(t.WORKER_SECRET_VARIABLE, "")
    if not worker.isdigit():
        raise error("usage", "argv[3] is no worker's id, so this program was not started as a "
                             "worker; leave out as_worker")
    if not secret:
        raise error("usage", f"{t.WORKER_SECRET_VARIABLE} is not set; execd sets it for the "
                             "workers that it starts")
    return [("worker", worker), ("secret", secret)]


def _bytes(body: Body) -> bytes:
    if type(body) is bytes:
        return body
    if isinstance(body, str):
        try:
            return body.encode()
        except UnicodeEncodeError:
            raise error("usage", "the text has a character that UTF-8 can't hold (a lone "
                                 "surrogate); give bytes") from None
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise error("usage", f"a body is bytes or text, and this is {type(body).__name__}")


def _trace(trace_id: bytes | str | None) -> bytes:
    if trace_id is None:
        return NO_TRACE
    try:
        made = bytes.fromhex(trace_id) if isinstance(trace_id, str) else bytes(trace_id)
    except (TypeError, ValueError):
        made = b""
    if len(made) != 16:
        raise error("usage", f"trace_id is {trace_id!r}; it is 16 bytes, or 32 hex digits")
    return made


def _check_service(service: str) -> None:
    fits = (isinstance(service, str) and 0 < len(service) <= t.NAME_BYTES_MAX and service.isascii()
            and service[0].isalpha() and all(ch.isalnum() or ch in "-_." for ch in service))
    if not fits:
        raise error("usage", f"'{visible(str(service)[:60])}' is no name of a service: 1 to "
                             f"{t.NAME_BYTES_MAX} letters, digits, '-', '_' and '.', beginning "
                             "with a letter")


class Broker:
    """A broker that this program uses; `isect.connect` makes it. It has one connection for each
    service that was asked, made when it is first used. Threads may share it; a process that was
    forked may not, and gets `ForkedError`. As a context manager it closes at the end."""

    __slots__ = ("_options", "_links", "_lock", "_is_closed", "_pid", "__weakref__")

    def __init__(self, options: Options) -> None:
        self._options = options
        self._links: dict[str, Link] = {}
        self._lock = threading.Lock()
        self._is_closed = False
        self._pid = os.getpid()

    def __enter__(self) -> Broker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            # At the end of the program the system closes it.
            if not self._is_closed and not sys.is_finalizing() and os.getpid() == self._pid:
                for link in self._links.values():
                    link.disown_all()
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
        with self._lock:
            link = self._links.get(known)
            if link is None:
                if self._is_closed:
                    raise error("bad_state", "this program has closed its connection to the broker")
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
        link = self._links.get(service)
        if link is None:
            link = self._link(service)
        if type(body) is not bytes:
            body = _bytes(body)
        trace = NO_TRACE if trace_id is None else _trace(trace_id)
        request = current.get()
        if request is not None:
            timeout, trace, span_id = _inherit(request, timeout, trace, span_id)
        if priority or span_id:
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
        link = self._links.get(service)
        if link is None:
            link = self._link(service)
        if _make_future is None:
            from ._future import Future

            _make_future = Future
        if type(body) is not bytes:
            body = _bytes(body)
        trace = NO_TRACE if trace_id is None else _trace(trace_id)
        request = current.get()
        if request is not None:
            timeout, trace, span_id = _inherit(request, timeout, trace, span_id)
        if priority or span_id:
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
            self._still_up(link)
            _, made = link.session.tell(_bytes(body), flags, millis(timeout), priority, trace,
                                        span_id)
            link.write(made)
        if link.outbox:
            link.drain(until)
        link.settle()

    def flush(self, timeout: float | None = None) -> int:
        """Waits until all requests that `send` sent before were taken by a worker or refused.
        Returns how many were refused, or ended before a worker took them, since the flush before.
        `timeout`: seconds; None = as long as it takes. Raises `DeadlineExceeded`, or
        `ConnectionFailed` if the connection was lost: what became of them is not known then."""
        until = None if timeout is None else monotonic() + timeout
        return sum(link.flush(until) for link in list(self._links.values())
                   if link.session.has_unflushed)

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
        link, trace, timeout, span_id, flags = self._prepare(
            service, timeout, False, extendable, priority, trace_id, span_id)
        made = Conversation(link, Parts(b"", flags, priority, trace, span_id, timeout))
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
        link = self._links.get(service)
        if link is None:
            link = self._link(service)
        trace = NO_TRACE if trace_id is None else _trace(trace_id)
        request = current.get()
        if request is not None:
            timeout, trace, span_id = _inherit(request, timeout, trace, span_id)
        millis(timeout)
        _check_numbers(priority, span_id)
        flags = (IDEMPOTENT if idempotent else 0) | (EXTENDABLE if extendable else 0)
        return link, trace, timeout, span_id, flags

    @staticmethod
    def _still_up(link: Link) -> None:
        if link.pipe is None or link.session.phase != OPEN:
            failure = link.last_error or error("broker_lost", "the connection to the broker broke")
            raise with_ran(failure, "no")

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
        slot = Slot(_bytes(text), timeout=self._options.timeout if timeout is None else timeout)
        answer = link.perform(slot)
        if not json:
            return answer.decode(errors="replace")
        return _object(answer)

    def watch(self, text: str = "watch", *, json: bool = False) -> Iterator[Any]:
        """Runs an operator command that goes on (`watch`), and gives what it shows line by line,
        or with `json` one dict after the other. To end the iteration ends it."""
        link = self._op(json, "watch")
        slot = Parts(_bytes(text), 0, 0, NO_TRACE, 0, None)
        slot.is_endless = True
        made = Stream(link, slot)
        made._begin()
        return _watched(made, json)

    def _op(self, json: bool, kind: str = "op") -> Link:
        form = "json" if json else "text"
        return self._link(t.OP_SERVICE, kind=f"{kind} {form}", lines=[("format", form)])

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
        kept = "connected" if while_connected else "yes" if retain else ""
        body = message_body(topic, _bytes(payload), retain=kept, lines=lines,
                            expires_ms=None if expires is None else round(expires * 1000))
        return self._publish(body, wait)

    def remove(self, topic: str) -> Receipt:
        """Removes the value that is kept of a topic; subscribers are told."""
        made = self._publish(message_body(topic, b"", removed="deleted"), True)
        assert made is not None
        return made

    def _publish(self, body: bytes, wait: bool) -> Receipt | None:
        link = self._bus()
        until = monotonic() + self._options.timeout
        if link.pipe is None:
            link.ensure(until)
        slot = Ask() if wait else None
        with link.lock:
            self._still_up(link)
            sequence, made = link.session.publish(slot, body)
            link.write(made)
        if link.outbox:
            link.drain(until)
        if slot is None:
            return None
        slot.sequence = sequence
        if not link.wait(slot, until):
            with link.lock:
                link.session.forget(sequence)
            raise self._unanswered("a publish", "maybe")
        return slot.result()  # type: ignore[no-any-return]

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
        at = Position.parse(start) if isinstance(start, str) else start
        topic = Topic(pattern, retained, at, queue_max, queue_bytes_max)
        link = self._bus()
        until = monotonic() + self._options.timeout
        link.ensure(until)
        with link.lock:
            made = link.session.subscribe(topic)
            if made:
                link.write(made)
        if not link.wait(topic, until, lambda: topic.is_open or topic.failure is not None):
            with link.lock:
                out = link.session.unsubscribe(topic)
                if out:
                    link.write(out)
            raise self._unanswered("a subscribe", "no")
        if topic.failure is not None:
            raise topic.failure
        return Subscription(self, link, topic)

    def _bus(self) -> Link:
        link = self._links.get(t.BUS_SERVICE)
        if link is not None:
            return link
        lines = [] if self._options.heartbeat else [("heartbeat", "yes")]
        return self._link(t.BUS_SERVICE, lines=lines, is_constant=True)

    def _unanswered(self, what: str, ran: str) -> IsectError:
        return DeadlineExceeded("timeout", f"the broker did not answer {what} within "
                                           f"{self._options.timeout:g} s", ran=ran)

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
        link = self._bus()
        until = monotonic() + self._options.timeout
        link.ensure(until)
        with link.lock:
            number = link.session.free_id(os.getpid()) if id is None else id
            watched = Watched(name, number, type=type, groups=groups,
                              activity_timeout=activity_timeout, stalled=stalled, state=state,
                              addresses=addresses, meta=meta, state_names=state_names)
            made = link.session.announce(watched)
            if made:
                link.write(made)
        if not link.wait(watched, until,
                         lambda: watched.phase == WATCHED or watched.failure is not None):
            with link.lock:
                out = link.session.withdraw(watched, True, "")
                if out:
                    link.write(out)
            raise self._unanswered("an announce", "no")
        if watched.failure is not None:
            raise watched.failure
        return Instance(self, link, watched)

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

    def close(self) -> None:
        """Logs out, after requests without an answer were taken by a worker (at most 5 seconds).
        Requests under way end with an error; subscriptions and instances end. Closing twice is no
        error."""
        self._close(FLUSH_TIMEOUT)

    def _close(self, flush_timeout: float) -> None:
        if os.getpid() != self._pid:
            return
        with self._lock:
            self._is_closed = True
            links = list(self._links.values())
        for link in links:
            link.close(flush_timeout)


_make_future: type[Future] | None = None


def _inherit(
    request: Any, timeout: float | None, trace: bytes, span_id: int
) -> tuple[float | None, bytes, int]:
    """What is asked within a worker's request has at most its time, and its trace."""
    left = request.remaining()
    if left is not None and (timeout is None or left < timeout):
        timeout = max(0.0, left)
    if trace == NO_TRACE:
        trace = request.trace_id
        span_id = span_id or request.span_id
    return timeout, trace, span_id


def _check_numbers(priority: int, span_id: int) -> None:
    if not (isinstance(priority, int) and 0 <= priority <= 255):
        raise error("usage", f"priority is {priority!r}; it is 1 to 255, or 0 for that of connect")
    if not (isinstance(span_id, int) and 0 <= span_id < 2**64):
        raise error("usage", f"span_id is {span_id!r}; it is 0 to {2**64 - 1}")


def _object(answer: bytes) -> Any:
    import json

    try:
        return json.loads(answer)
    except ValueError as why:
        raise error("bad_frame", f"the broker's answer is no JSON: {why}") from None


def _watched(made: Stream, json: bool) -> Iterator[Any]:
    with made:
        for piece in made:
            if json:
                yield _object(piece)
            else:
                yield from piece.decode(errors="replace").splitlines()


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
                                    "pieces wait to be taken; take them sooner", ran="maybe"))


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
            Broker._still_up(link)
            limits = link.session.limits
            span = slot.timeout
            if span is None and limits.deadline_ms:
                span = limits.deadline_ms / 1000
            if span is not None:
                slot.until = now + span
                slot.wait_until = slot.until + GRACE
            slot.sequence, made = link.session.request(
                slot, slot.body, slot.flags, millis(slot.timeout), slot.priority, slot.trace_id,
                slot.span_id, int(more))
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
        self._further(_bytes(body), more and not last)

    def receive(self, timeout: float | None = None) -> bytes | None:
        """The next frame of the worker; None = the one before was its last. `timeout`: seconds;
        None = until the deadline of the request. Raises `DeadlineExceeded`, or the error that ended
        the conversation."""
        piece = self._next(None if timeout is None else monotonic() + timeout)
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


class Subscription:
    """The messages of all topics that match a pattern. An iterator that waits without end, and a
    context manager. After a loss of the connection it goes on after the last message. Threads may
    share it: each message goes to one of them."""

    __slots__ = ("_broker", "_link", "_topic", "_is_closed", "missing", "on_event", "_dropped")

    def __init__(self, broker: Broker, link: Link, topic: Topic) -> None:
        self._broker = broker
        self._link = link
        self._topic = topic
        self._is_closed = False
        self._dropped = 0
        #: What could not be had any more, of the last time that this was so; None = nothing.
        self.missing: Missing | None = None
        #: Called with each event that is no message (`CaughtUp`, `Missing`, `Lost`, `Resumed`), by
        #: the thread that receives.
        self.on_event: Callable[[TopicEvent], object] | None = None

    def __repr__(self) -> str:
        return f"<isect.Subscription to {visible(self._topic.pattern)}>"

    @property
    def pattern(self) -> str:
        """The pattern."""
        return self._topic.pattern

    @property
    def position(self) -> Position | None:
        """From where a program goes on that has done all that came until now; None = nothing has
        come yet. `str` of it is `EPOCH:NUMBER`."""
        return self._topic.position

    def event(self, timeout: float | None = None) -> TopicEvent | None:
        """The next event: a `Message`, `CaughtUp`, `Missing`, `Lost` or `Resumed`; None = none came
        within `timeout` seconds (None = wait without end). Raises why it has ended."""
        topic = self._topic
        link = self._link
        until = None if timeout is None else monotonic() + timeout
        found: list[TopicEvent] = []

        def ready() -> bool:
            one = topic.take()
            if one is not None:
                found.append(one)
            return one is not None or topic.failure is not None

        try:
            is_there = link.wait(topic, until, ready)
        except IsectError:
            if self._is_closed:
                raise error("not_found", "this subscription was closed") from None
            raise
        if found:
            return found[0]
        if is_there and topic.failure is not None:
            raise with_ran(topic.failure, topic.failure.ran)
        return None

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message; None = none came within `timeout` seconds (None = wait without end).
        Raises why the subscription has ended."""
        until = None if timeout is None else monotonic() + timeout
        while True:
            left = None if until is None else max(0.0, until - monotonic())
            one = self.event(left)
            if one is None:
                return None
            if isinstance(one, Message):
                if self._dropped:
                    one = one._replace(dropped=one.dropped + self._dropped)
                    self._dropped = 0
                return one
            if isinstance(one, CaughtUp):
                self._dropped += one.dropped
            elif isinstance(one, Missing):
                self.missing = one
            elif isinstance(one, Lost):
                pass
            if self.on_event is not None:
                self.on_event(one)

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        if self._is_closed:
            raise StopIteration
        try:
            one = self.receive()
        except IsectError:
            if self._is_closed:
                raise StopIteration from None
            raise
        if one is None:
            raise StopIteration
        return one

    def close(self) -> None:
        """Ends the subscription; what waits is dropped. Closing twice is no error."""
        self._end()

    def unsubscribe(self) -> tuple[int, int]:
        """As `close`, and waits for the broker's answer: how many messages it sent, and how many it
        did not."""
        topic = self._topic
        self._end()
        until = monotonic() + self._link.options.timeout
        if not self._link.wait(topic, until, lambda: topic.has_ended):
            raise self._broker._unanswered("an unsubscribe", "maybe")
        return topic.delivered, topic.dropped_there

    def _end(self) -> None:
        link = self._link
        with link.lock:
            if self._is_closed:
                return
            self._is_closed = True
            if link.is_forked:
                return
            out = link.session.unsubscribe(self._topic)
            if out and link.pipe is not None:
                link.write(out)
            if self._topic.failure is None:
                self._topic.failure = error("not_found", "this subscription was closed")
            link.wake(self._topic)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            if not self._is_closed:
                self._link.disown(self._topic)
        except AttributeError:
            # It was never whole.
            pass


class Instance:
    """An instance of this program that the broker watches. A context manager that withdraws it, as
    failed if an exception leaves the block. Threads may share it."""

    __slots__ = ("_broker", "_link", "_watched")

    def __init__(self, broker: Broker, link: Link, watched: Watched) -> None:
        self._broker = broker
        self._link = link
        self._watched = watched

    def __repr__(self) -> str:
        return f"<isect.Instance {visible(self._watched.name)} {self._watched.id}>"

    @property
    def id(self) -> int:
        """Its id."""
        return self._watched.id

    @property
    def incarnation(self) -> int:
        """Tells this announcement from earlier ones of the same name and id."""
        return self._watched.incarnation

    @property
    def displaced(self) -> bool:
        """Whether an earlier instance of this name and id was ended for it."""
        return self._watched.displaced

    @property
    def activity_timeout(self) -> float:
        """The time-out in force, in seconds."""
        return self._watched.activity_timeout

    @property
    def is_watched(self) -> bool:
        """Whether the broker watches it now."""
        return self._watched.phase == WATCHED

    @property
    def failure(self) -> IsectError | None:
        """Why the broker watches it no more; None = it does, or will when it is connected again.
        One that was displaced is known from the next beat on."""
        return self._watched.failure

    def set_state(self, state: str | int, text: str = "") -> None:
        """Says that it has another state; of the text the first 80 characters count. It counts as a
        beat. Without a connection the next one is told. Raises why the broker watches it no
        more."""
        link = self._link
        with link.lock:
            made = link.session.set_state(self._watched, state, text)
            if made and link.pipe is not None:
                link.write(made)

    def checkpoint(self, count: int | None = None) -> None:
        """Says that the work goes on: notes a checkpoint, any number that changes as it works (None
        = one more than before), and beats for all instances if that is due. Call it from the loop
        that does the work, as often as you like."""
        watched = self._watched
        watched.count = (watched.count + 1 if count is None else count) % 2**64
        watched.is_idle = False
        self._broker.beat_if_due()

    def idle(self, is_idle: bool = True) -> None:
        """Says whether it has nothing to do, so that its checkpoint need not change; and beats if
        that is due."""
        self._watched.is_idle = is_idle
        self._broker.beat_if_due()

    def withdraw(self, text: str = "", *, failed: bool = False) -> None:
        """Ends it in order, or because of a failure. Twice is no error."""
        link = self._link
        with link.lock:
            made = link.session.withdraw(self._watched, failed, text)
            if made and link.pipe is not None:
                link.write(made)

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.withdraw("" if kind is None else kind.__name__, failed=kind is not None)
