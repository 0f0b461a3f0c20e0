"""One connection of an asyncio program, to one service: the protocol whose callbacks feed the
session and set the futures of the program, the requests that wait, their times, and the way back
after a loss. `aio` has the public names.

There is no task, queue or lock per request. A request is one `Call`, which is a future. What is
written in one turn of the loop leaves with one send. One timer per connection looks after all times
of its requests: it is set for the earliest of them, and only set again if an earlier one comes.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import random
import socket
import ssl
import sys
import weakref
from asyncio import _get_running_loop
from collections import deque
from collections.abc import Callable, Coroutine, Iterable
from math import inf
from typing import Any

from . import _tables as t
from . import _trust
from ._address import Address
from ._arguments import Body, _bytes, _check_numbers, _inherit, _trace
from ._context import current
from ._dial import KEEPALIVE_PROBES, KEEPALIVE_SILENCE, Options, nobody
from ._errors import ForkedError, IsectError, closed, error, visible, with_ran
from ._logs import logger
from ._session import (BROKEN, CHALLENGED, CLOSING, FAILED, LOGGED_IN, NEWS, NOT_LOGGED_IN, OPEN,
                       PIECE, REFUSED, Session, millis)
from ._token import Prover
from ._wire import NO_TRACE

log = logger("isect.aio")

#: Time to wait past a request's deadline for the broker's own error, which says whether it ran.
GRACE = 0.5
#: First and longest wait between two attempts to connect again, in seconds.
RETURN_WAITS = (0.02, 1.0)
#: A connection that lasted this long, in seconds, begins the waits anew.
LASTED = 5.0
#: Most requests that wait for room on a connection, or for the connection.
BACKLOG_MAX = 100_000
#: Most frames that wait for the end of a turn.
JOINED_MAX = 128


class Call(asyncio.Future[Any]):
    """The future of one request, or of another thing that the broker answers. To cancel it gives
    the request up, so that its answer, however late, goes nowhere."""

    link: Link
    #: When the program wants it no longer; of one that is sent, the grace comes on top.
    due: float
    #: What to send: body, flags, deadline in seconds (None = the service's own), priority, trace
    #: id, span id, more. None = it is no request, or can't be sent again.
    asked: tuple[Any, ...] | None = None
    sequence = 0
    is_sent = False
    #: Whether one frame ends it.
    is_plain = True
    may_have_run = False
    pieces: list[bytes] | None = None
    size = 0
    #: Set when its first frame has left.
    begun: asyncio.Future[None] | None = None

    def cancel(self, msg: Any = None) -> bool:
        """Gives the request up."""
        if not super().cancel(msg):
            return False
        self.link.give_up(self)
        self._wake()
        return True

    def _wake(self) -> None:
        if self.begun is not None and not self.begun.done():
            self.begun.set_result(None)

    def answered(self, value: Any) -> None:
        """The last frame of the answer."""
        self._wake()
        if self.done():
            return
        if self.pieces is not None:
            if self._has_no_room(value):
                return
            self.pieces.append(value)
            value = b"".join(self.pieces)
        self.set_result(value)

    def piece(self, value: bytes, head: tuple[Any, ...]) -> None:
        """A frame of the answer that more follow."""
        if self.done():
            return
        if self.pieces is None:
            self.pieces = []
            self.is_plain = False
        if self._has_no_room(value):
            self.link.give_up(self)
            return
        self.pieces.append(value)
        self.link.put_off(self, head)

    def _has_no_room(self, value: bytes) -> bool:
        self.size += len(value)
        limit = self.link.options.reply_bytes_max
        if self.size <= limit:
            return False
        self.set_exception(error("body_too_large", f"the answer exceeds reply_bytes_max {limit}; "
                                 "take it piece by piece with stream", ran="yes", advice=""))
        self.pieces = None
        return True

    def fail(self, why: IsectError) -> None:
        """It has ended with this error."""
        self._wake()
        if not self.done():
            if self.may_have_run and why.ran == "no":
                why.ran = "maybe"
            self.set_exception(why)

    def sent(self) -> None:
        """Its first frame was made."""
        self.is_sent = True
        self._wake()

    def lost(self, why: IsectError, now: float) -> bool:
        """The connection broke while it was under way. Returns whether it is to be sent again."""
        asked = self.asked
        if asked is None or asked[6] or self.done():
            return False
        # The broker may have said why it closes: not only `broker_lost` passes.
        row = t.ERRORS.get(why.code)
        if row is None or row.retry == "never":
            return False
        if now >= self.due or not (why.ran == "no" or asked[1] & 1):
            return False
        self.may_have_run |= why.ran != "no"
        self.is_sent = False
        self.pieces = None
        self.is_plain = True
        self.size = 0
        return True


class OneWay(Call):
    """As `Call`, of a request without an answer: done when its frame has left."""

    def sent(self) -> None:
        """Its frame was made."""
        if not self.done():
            self.set_result(None)


class Turn(Call):
    """As `Call`, of something that only waits until it can be written: done when that is so."""


class Link(asyncio.Protocol):
    """The connection to one service, and all that waits for it."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, options: Options, service: str,
        extra: Iterable[tuple[str, str]] = (),
    ) -> None:
        self.loop = loop
        self.options = options
        self.service = service
        self.extra = list(extra)
        self.session = Session()
        self.transport: asyncio.Transport | None = None
        self.socket: socket.socket | None = None
        self.address: Address | None = None
        #: Whether a request may be written now, if there is room for it.
        self.is_ready = False
        self.is_forked = False
        self.is_closed = False
        self.is_paused = False
        self.is_reading = True
        #: Requests that have no sequence yet, in their order.
        self.waiting: deque[Any] = deque()
        #: How many of these were given up, and are left out when their turn comes.
        self.given_up = 0
        self.drainers: list[asyncio.Future[None]] = []
        #: Frames that leave at the end of this turn.
        self.out: list[bytes] = []
        self.is_flush_due = False
        self.was_open = False
        #: What must live as long as the connection.
        self.owner: object = None
        #: How long the next attempt to connect waits, and when the connection was made.
        self.pause = 0.0
        self.since = 0.0
        #: Why there is no connection.
        self.failure: IsectError | None = None
        #: Why it is not known what became of requests that want no answer.
        self.unflushed: IsectError | None = None
        #: Whether messages were published that no flush has asked about.
        self.has_published = False
        self.connecting: asyncio.Task[None] | None = None
        self.entered: asyncio.Future[None] | None = None
        #: Set when the connection has ended.
        self.ended: asyncio.Future[None] | None = None
        #: Why this side ended it.
        self.gone: IsectError | None = None
        #: How long a request without a time of its own may take.
        # An attempt to connect says more than that the time was over.
        self.span = options.timeout + GRACE
        self.silence = 0.0
        self.heard = 0.0
        self.pinged = 0.0
        self.timer: asyncio.TimerHandle | None = None
        #: When the timer looks.
        self.next_look = inf
        #: When the instances have beaten last.
        self.beaten = 0.0
        self._prover: Prover | None = None
        _links.add(self)

    # Requests.

    def check_place(self) -> None:
        """Raises `UsageError` if this is not the program's own loop, process and time."""
        if self.is_forked:
            raise ForkedError("bad_state", "this connection belongs to the process that this one "
                              "was forked from", advice="connect again in this process")
        if _get_running_loop() is not self.loop:
            raise error("bad_state", "this broker was used outside of the event loop that it was "
                        "connected in", advice="await it in its own loop, or connect another one "
                        "here; from a thread use asyncio.run_coroutine_threadsafe")
        if self.is_closed:
            raise closed()

    def call(
        self, body: Body, timeout: float | None, flags: int, priority: int,
        trace_id: bytes | str | None, span_id: int, more: int = 0, kind: type[Call] = Call,
    ) -> Call:
        """Begins a request."""
        loop = self.loop
        if _get_running_loop() is not loop or self.is_closed or self.is_forked:
            self.check_place()
        if body.__class__ is not bytes:
            body = _bytes(body)
        now = loop.time()
        trace = NO_TRACE
        if timeout is not None or trace_id is not None or priority.__class__ is not int \
                or priority or span_id.__class__ is not int or span_id or current.get() is not None:
            timeout, trace, span_id = inherited(timeout, priority, trace_id, span_id)
        made = kind(loop=loop)
        made.link = self
        due = made.due = now + (self.span if timeout is None else timeout)
        made.asked = (body, flags, timeout, priority, trace, span_id, more)
        if self.is_ready and not self.waiting and self.session.room > 0:
            self._send(made, 0 if timeout is None else millis(timeout))
            if due < self.next_look:
                self.look_by(due + GRACE)
        else:
            self.wait(made)
        return made

    def wait(self, made: Any) -> None:
        """Has a request wait until it can be sent."""
        if len(self.waiting) >= BACKLOG_MAX:
            made.fail(error("too_many_requests", f"{BACKLOG_MAX} requests wait for room on the "
                            f"connection to service '{self.service}'; at most so many may"))
            return
        if made.due < self.next_look:
            self.look_by(made.due)
        self.waiting.append(made)
        self.wake()

    def wake(self) -> None:
        """Sees to it that what waits can go on."""
        if not self.is_reading:
            self.resume_reading()
            self.pump()
        if self.transport is not None or self.connecting is not None or self.is_closed:
            return
        if self.was_open and not self.options.reconnect and self.failure is not None:
            self._refuse(self.failure)
        else:
            task = self.loop.create_task(self._come_back())
            # A loop with eager tasks may have run all of it already.
            if not task.done():
                self.connecting = task

    def _send(self, made: Any, deadline_ms: int) -> None:
        """Makes and writes the first frame of a request."""
        body, flags, _, priority, trace_id, span_id, more = made.asked
        session = self.session
        try:
            if made.__class__ is OneWay:
                made.sequence, frame = session.tell(body, flags, deadline_ms, priority, trace_id,
                                                    span_id, more)
            else:
                made.sequence, frame = session.request(made, body, flags, deadline_ms, priority,
                                                       trace_id, span_id, more)
        except IsectError as why:
            made.fail(why)
            return
        if self.is_flush_due:
            self.out.append(frame)
            if len(self.out) >= JOINED_MAX:
                self.flush()
                self.is_flush_due = True
        elif session.under_way > 1 or more:
            # More requests are likely to come in this turn.
            self.out.append(frame)
            self.is_flush_due = True
            self.loop.call_soon(self.flush)
        else:
            self.transport.write(frame)  # type: ignore[union-attr]
        made.sent()

    def write(self, frame: bytes) -> None:
        """Writes a frame at the end of this turn."""
        if frame and self.transport is not None:
            self.out.append(frame)
            if not self.is_flush_due:
                self.is_flush_due = True
                self.loop.call_soon(self.flush)
            elif len(self.out) >= JOINED_MAX:
                # A program that never lets the loop turn must not fill the memory.
                self.flush()
                self.is_flush_due = True

    def flush(self) -> None:
        """Writes what was made in this turn."""
        self.is_flush_due = False
        out = self.out
        if out and self.transport is not None:
            self.transport.write(out[0] if len(out) == 1 else b"".join(out))
        out.clear()

    def pump(self) -> None:
        """Sends what waits, as far as there is room."""
        waiting = self.waiting
        session = self.session
        now = self.loop.time()
        while waiting and self.is_ready and session.room > 0:
            made = waiting.popleft()
            if made.__class__ is Turn or made.done():
                made.answered(None)
                continue
            timeout = made.asked[2]
            if timeout is None:
                made.due = now + self.span
                self._send(made, 0)
            elif made.due <= now:
                made.fail(self._unsent())
                continue
            else:
                self._send(made, millis(made.due - now))
            if made.due + GRACE < self.next_look:
                self.look_by(made.due + GRACE)

    def give_up(self, made: Any) -> None:
        """Forgets a request, and tells the broker that nobody wants its answer."""
        if self.is_forked:
            return
        if made.is_sent:
            made.is_sent = False
            self.session.forget(made.sequence)
            self.write(self.session.give_up(made.sequence))
            if self.waiting:
                self.pump()
        elif self.waiting:
            # To find it would take long where many wait.
            self.given_up += 1
            if self.given_up * 2 > len(self.waiting):
                self.waiting = deque(one for one in self.waiting if not one.done())
                self.given_up = 0

    def put_off(self, made: Any, head: tuple[Any, ...]) -> None:
        """A piece came: its worker may have put the deadline off."""
        within = self.session.next_within(made.sequence, head)
        if within is not None:
            made.due = self.loop.time() + within
            if made.due < self.next_look:
                self.look_by(made.due + GRACE)

    def ask(self, make: Callable[[Call], tuple[int, bytes]], timeout: float | None) -> Call:
        """Asks the broker itself, on an open connection."""
        made = Call(loop=self.loop)
        made.link = self
        made.due = inf if timeout is None else self.loop.time() + timeout - GRACE
        made.sequence, frame = make(made)
        made.is_sent = True
        self.write(frame)
        self.look_by(made.due + GRACE)
        return made

    async def opened(self, timeout: float | None = None) -> None:
        """Waits until something can be written. Raises why that can't be."""
        self.check_place()
        if not self.is_ready:
            made = Turn(loop=self.loop)
            made.link = self
            made.due = self.loop.time() + (self.span if timeout is None else timeout)
            self.wait(made)
            await made

    async def drained(self, made: Any) -> None:
        """Waits until the broker takes more, or this request has ended."""
        if not self.is_flush_due or self.out:
            is_due = self.is_flush_due
            self.flush()
            self.is_flush_due = is_due
        while self.is_paused and self.transport is not None and not made.done():
            made.begun = waiter = self.loop.create_future()
            self.drainers.append(waiter)
            try:
                await waiter
            finally:
                made.begun = None

    # Time.

    def look_by(self, at: float) -> None:
        """Has the timer look at this time, or earlier."""
        if self.silence:
            at = min(at, self.loop.time() + self.silence * 2 / 5)
        if at < self.next_look:
            if self.timer is not None:
                self.timer.cancel()
            self.next_look = at
            self.timer = self.loop.call_at(at, self._look)

    def _look(self) -> None:
        """Ends what is late, and pings a broker that is silent while something is awaited."""
        self.timer = None
        self.next_look = inf
        if self.is_forked or self.is_closed:
            return
        session = self.session
        now = self.loop.time()
        soonest = inf
        late = []
        sent = [*session._open.values(), *session._asked.values()]
        for made in sent:
            at = made.due + GRACE
            if at <= now + 0.001:
                late.append(made)
            elif at < soonest:
                soonest = at
        for made in late:
            self.give_up(made)
            made.fail(error("timeout", f"no answer of service '{self.service}' came in time"))
        late = []
        for made in self.waiting:
            if made.due <= now + 0.001:
                late.append(made)
            elif made.due < soonest:
                soonest = made.due
        if late:
            gone = set(map(id, late))
            self.waiting = deque(made for made in self.waiting if id(made) not in gone)
            for made in late:
                made.fail(self._unsent())
        if sent or session._topics or session._instances:
            soonest = min(soonest, self._watch(now))
        if soonest < inf:
            # Many requests with times of their own are not looked at one by one.
            pause = 0.001 + 1e-6 * (len(sent) + len(self.waiting))
            self.look_by(max(soonest, now + pause))

    def _unsent(self) -> IsectError:
        """Why a request that waited was not sent in time."""
        if self.transport is None and self.failure is not None:
            return with_ran(self.failure, "no")
        if self.session.phase == OPEN and self.session.room <= 0:
            return error("timeout", f"{self.session.under_way} requests are under way on this "
                         f"connection to service '{self.service}', as many as requests_max allows, "
                         "and none of them ended in time", ran="no")
        if self.is_paused:
            return error("timeout", f"the broker took nothing for service '{self.service}' in time",
                         ran="no")
        return error("timeout", f"no connection for service '{self.service}' was made in time",
                     ran="no")

    def _watch(self, now: float) -> float:
        """Pings a silent broker, and takes it for gone. Returns when to look again."""
        silence = self.silence
        transport = self.transport
        if not silence or transport is None or not self.is_reading or self.session.phase != OPEN:
            return inf
        if self.heard >= self.pinged:
            quiet_until = self.heard + silence * 2 / 5
            if now < quiet_until:
                return quiet_until
            self.pinged = now
            self.write(self.session.ping())
        gone_at = self.pinged + silence * 3 / 5
        if now >= gone_at:
            self.drop(error("broker_lost", f"the broker at {self.address} was silent for "
                            f"{silence:g} s, although it was pinged"))
            return inf
        return gone_at

    def beat(self, is_due: bool) -> bool:
        """Says that this program's instances go on, if that is due. Returns whether it did."""
        session = self.session
        if session.phase != OPEN or not session.beat_ms or self.is_forked or self.is_closed:
            return False
        now = self.loop.time()
        if not is_due and now - self.beaten < session.beat_ms / 1000:
            return False
        self.beaten = now
        self.write(session.beat())
        return True

    # The connection.

    async def _come_back(self) -> None:
        """Connects and logs in, for as long as something waits for it."""
        try:
            while not self.is_closed:
                if self.pause:
                    await asyncio.sleep(self.pause * (1 - random.random() / 2))
                try:
                    await self.attempt()
                    return
                except IsectError as why:
                    failure = with_ran(why, "no")
                self.failure = failure
                row = t.ERRORS.get(failure.code)
                may_help = row is not None and row.retry != "never"
                if not may_help or not self.options.reconnect:
                    self._refuse(failure)
                    return
                if not self._is_wanted():
                    return
                self._lengthen_pause()
        finally:
            self.connecting = None
            if self.transport is None and not self.is_closed and self._is_wanted() \
                    and not _is_cancelled():
                self.wake()

    def _lengthen_pause(self) -> None:
        """After an attempt, or a connection that did not last, the next attempt waits."""
        self.pause = min(max(self.pause * 2, RETURN_WAITS[0]), RETURN_WAITS[1])

    def _is_wanted(self) -> bool:
        session = self.session
        return bool(self.waiting or session._topics or session._instances)

    def _refuse(self, why: IsectError) -> None:
        """No connection is made again for what waits."""
        waiting, self.waiting = self.waiting, deque()
        for made in waiting:
            made.fail(with_ran(why, "no"))
        for slot, *_ in self.session.end(why):
            slot.news()

    async def attempt(
        self, enter: Callable[[Link, Address], Coroutine[Any, Any, None]] | None = None
    ) -> None:
        """Tries each address once, until one is entered."""
        tried = []
        system = None
        span = self.options.timeout
        for address in self.options.addresses:
            try:
                self.address = None
                await limited((enter or Link._enter)(self, address), span)
                return
            except IsectError as why:
                if not why.context:
                    why.context = f"login at {address}"
                raise
            except Late:
                if self.address is address:
                    raise error("unreachable", "a program took the connection but did not answer "
                                f"the login within {span:g} s",
                                context=f"login at {address}") from None
                tried.append(f"{address}: no answer within {span:g} s")
            except ssl.SSLError as why:
                raise _trust.fault(why, address.host) from None
            except OSError as why:
                # asyncio's own text says again what the address is.
                number = system = why.errno or 0
                text = os.strerror(number) if number > 0 else why.strerror or str(why)
                tried.append(f"{address}: {visible(text)}")
        raise nobody(tried, system)

    async def _enter(self, address: Address) -> None:
        """Connects and logs in at one address."""
        loop = self.loop
        options = self.options
        context = options.tls() if address.kind == "tls" else None
        self.socket = connection = await connected(loop, address)
        try:
            await self.over(connection, address, context, lambda: self)
        except BaseException:
            # That it is connected may be told in this turn.
            await asyncio.sleep(0)
            await self._aborted()
            connection.close()
            raise
        self.address = address
        transport = self.transport
        if transport is None:
            raise error("broker_lost", f"the broker at {address} closed the connection", ran="no")
        self.entered = entered = loop.create_future()
        try:
            self._prover = None
            if options.token is not None:
                self._prover = Prover(options.token, self.service)
            transport.write(self.session.login(options.login(self.service, self.extra),
                                               self._prover))
            await entered
        except BaseException:
            # As long as it is set, the end of the connection is not taken for the reason.
            try:
                await self._aborted()
            finally:
                self.entered = None
            raise
        self.entered = None

    async def _aborted(self) -> None:
        """Ends the connection at once."""
        if self.transport is not None:
            self.transport.abort()
        if self.ended is not None:
            await self.ended

    async def over(
        self, connection: socket.socket, address: Address, context: ssl.SSLContext | None,
        make: Callable[[], asyncio.Protocol],
    ) -> tuple[asyncio.Transport, asyncio.Protocol]:
        """The transport over a socket, with TLS if there is a context."""
        if address.kind == "unix":
            return await self.loop.create_unix_connection(make, sock=connection)
        return await self.loop.create_connection(
            make, sock=connection, ssl=context,
            server_hostname=_trust.host_name(address.host) if context else None)

    def drop(self, why: IsectError) -> None:
        """Ends the connection for this reason."""
        self.gone = why
        self.is_ready = False
        if self.transport is not None:
            self.transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It is connected."""
        self.transport = transport  # type: ignore[assignment]
        self.ended = self.loop.create_future()
        self.gone = None
        self.is_paused = False
        self.is_reading = True
        self.heard = self.pinged = self.since = self.loop.time()
        self.beaten = 0.0

    def data_received(self, data: bytes) -> None:
        """Hands what came to those who wait for it."""
        session = self.session
        for slot, what, value, head in session.receive(data):
            if what == 0:
                if slot.is_plain:
                    if not slot.done():
                        slot.set_result(value)
                else:
                    slot.answered(value)
            elif what == NEWS:
                slot.news()
            elif what == PIECE:
                slot.piece(value, head)
            elif what == FAILED:
                slot.fail(value)
            elif slot is not None:
                slot.answered(value)
            else:
                self._told(what, value)
        self.heard = self.loop.time()
        if session.outgoing:
            self.write(b"".join(session.outgoing))
            session.outgoing.clear()
        if self.waiting:
            self.pump()

    def _told(self, what: int, value: Any) -> None:
        """An event that is nobody's own."""
        if what == LOGGED_IN:
            self.was_open = True
            self.failure = None
            self.span = value.deadline_ms / 1000 or inf
            self.silence = value.silence_ms / 1000
            self._refresh()
            if self._is_wanted():
                self.look_by(self.loop.time() + self.silence)
            self._entered(None)
        elif what == CHALLENGED:
            prover = self._prover
            if prover is not None and self.transport is not None:
                tls = self.transport.get_extra_info("ssl_object")
                certificate = tls.getpeercert(True) if tls is not None else None
                proof = self.loop.run_in_executor(None, prover.answer, value, certificate)
                proof.add_done_callback(self._proved)
        elif what == NOT_LOGGED_IN:
            self._entered(value)
        elif what == BROKEN:
            self.drop(value)
        elif what == REFUSED:
            log.warning("the broker refused what nobody waits for: %s", value)
        elif what == CLOSING:
            log.debug("the broker closes the connection: %s", value)

    def _proved(self, proof: asyncio.Future[list[tuple[str, str]]]) -> None:
        if proof.cancelled() or self.transport is None:
            return
        why = proof.exception()
        if why is None:
            self.transport.write(self.session.prove(proof.result()))
        elif isinstance(why, IsectError):
            self._entered(why)
        else:
            self._entered(error("unproven", f"the token can't be proved: {why}"))

    def _entered(self, why: IsectError | None) -> None:
        entered = self.entered
        if entered is None or entered.done():
            return
        if why is None:
            entered.set_result(None)
        else:
            entered.set_exception(why)

    def _refresh(self) -> None:
        self.is_ready = (self.session.phase == OPEN and not self.is_paused and self.is_reading
                         and self.transport is not None and not self.is_forked)

    def pause_writing(self) -> None:
        """The broker takes nothing for now."""
        self.is_paused = True
        self.is_ready = False

    def resume_writing(self) -> None:
        """It takes more."""
        self.is_paused = False
        self._refresh()
        self.pump()
        self._wake_drainers()

    def _wake_drainers(self) -> None:
        drainers, self.drainers = self.drainers, []
        for waiter in drainers:
            if not waiter.done():
                waiter.set_result(None)

    def hold_reading(self) -> None:
        """Reads no more for now: the program does not take what has come."""
        if self.transport is not None and self.is_reading and not self.waiting \
                and self.session.under_way == 1 and not self.session._asked:
            self.is_reading = False
            self.is_ready = False
            self.transport.pause_reading()

    def resume_reading(self) -> None:
        """Reads on."""
        if not self.is_reading:
            self.is_reading = True
            self.heard = self.loop.time()
            self.look_by(self.heard + self.silence)
            if self.transport is not None:
                self.transport.resume_reading()
            self._refresh()

    def eof_received(self) -> None:
        """The broker sends nothing more: the connection is closed."""

    def connection_lost(self, exc: Exception | None) -> None:
        """It is gone."""
        self.transport = None
        self.socket = None
        self.is_ready = False
        self.is_paused = False
        self.is_reading = True
        if self.is_forked:
            return
        if self.entered is None and self.loop.time() - self.since >= LASTED:
            self.pause = 0.0
        elif self.entered is None:
            self._lengthen_pause()
        unwritten = self.out[:]
        self.out.clear()
        where = self.address or "its address"
        if self.gone is not None:
            why = self.gone
        elif exc is None:
            why = error("broker_lost", f"the broker at {where} closed the connection")
        else:
            text = getattr(exc, "strerror", None) or str(exc) or type(exc).__name__
            why = error("broker_lost", f"the connection to the broker at {where} broke: "
                                       f"{visible(text)}")
        self._lost(why, unwritten)
        if self.ended is not None and not self.ended.done():
            self.ended.set_result(None)

    def _lost(self, why: IsectError, unwritten: list[bytes]) -> None:
        session = self.session
        has_unflushed = session.has_unflushed
        reconnect = self.options.reconnect and not self.is_closed
        now = self.loop.time()
        reason, events = session.lost(why, unwritten)
        self.failure = with_ran(reason, "no")
        if has_unflushed or self.has_published:
            self.has_published = False
            self.unflushed = with_ran(reason, "maybe")
        again = []
        for slot, what, value, _ in events:
            if what == NEWS:
                slot.news()
            elif reconnect and slot.lost(value, now):
                again.append(slot)
            else:
                slot.fail(value)
        self.waiting.extendleft(reversed(again))
        self._wake_drainers()
        if self.connecting is not None and not self.is_closed:
            # The attempt that is being made goes on.
            self._entered(with_ran(reason, "no"))
        elif self.is_closed or not self.options.reconnect:
            self._refuse(reason)
        elif self._is_wanted():
            self.wake()

    # The end.

    def begin_close(self, why: IsectError) -> None:
        """Logs out, and ends all that is open; `ended` is set when the connection is closed."""
        if self.is_closed or self.is_forked:
            self.is_closed = True
            return
        transport = self.transport
        self.is_ready = False
        if transport is not None:
            self.flush()
            events = self.session.lost(why)[1]
            self.is_closed = True
            transport.write(self.session.logout())
            for slot, what, value, _ in events:
                if what == FAILED:
                    slot.fail(value)
                    unheard(slot)
            transport.close()
        self.is_closed = True
        for made in self.waiting:
            made.fail(with_ran(why, "no"))
            unheard(made)
        self.waiting.clear()
        for slot, *_ in self.session.end(why):
            slot.news()
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None
        if self.connecting is not None:
            self.connecting.cancel()
        self._wake_drainers()

    def forked(self) -> None:
        """This process is a child that has inherited the connection: it only closes it here."""
        self.is_forked = True
        self.is_ready = False
        if self.socket is not None:
            with contextlib.suppress(OSError):
                self.socket.close()


class Late(Exception):
    """The time of `limited` was over."""


async def limited(what: Coroutine[Any, Any, Any], seconds: float | None) -> None:
    """Awaits this for so long. Raises `Late`. In Python 3.10 and 3.11 `asyncio.wait_for` forgets
    that its task was cancelled if what it waits for ends in the same turn."""
    task = asyncio.ensure_future(what)
    try:
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            raise Late
        task.result()
    finally:
        if not task.done():
            task.cancel()
            await asyncio.wait({task})
        unheard(task)


def unheard(made: Any) -> None:
    """Nobody has to look at the error of this request: the program itself ended it."""
    if isinstance(made, asyncio.Future) and made.done() and not made.cancelled():
        made.exception()


def _is_cancelled() -> bool:
    return isinstance(sys.exc_info()[1], asyncio.CancelledError)


def inherited(
    timeout: float | None, priority: int, trace_id: bytes | str | None, span_id: int
) -> tuple[float | None, bytes, int]:
    """The time and the trace of a request, within those of the request that this task is at.
    Raises if one of them makes no sense, or the time is over."""
    trace = NO_TRACE if trace_id is None else _trace(trace_id)
    request = current.get()
    is_over = False
    if request is not None:
        timeout, trace, span_id = _inherit(request, timeout, trace, span_id)
        is_over = timeout is not None and timeout <= 0
    if priority.__class__ is not int or priority or span_id.__class__ is not int or span_id:
        _check_numbers(priority, span_id)
    millis(timeout)
    if is_over:
        raise error("deadline", "the time of the request that this one belongs to is over",
                    ran="no")
    return timeout, trace, span_id


async def connected(loop: asyncio.AbstractEventLoop, address: Address) -> socket.socket:
    """A connected socket. Raises `OSError`."""
    if address.kind == "unix":
        return await _connect(loop, socket.AF_UNIX, address.host)
    try:
        # Listeners and callers agree that this is 127.0.0.1.
        host = "127.0.0.1" if address.host.lower() == "localhost" else address.host
        places = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM,
                                    flags=socket.AI_NUMERICHOST)
    except socket.gaierror:
        places = await loop.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError(0, "it is no name of a host") from None
    last: OSError = OSError(0, "the name has no address")
    for family, _, _, _, place in places:
        try:
            return await _connect(loop, family, place)
        except OSError as why:
            last = why
    raise last


async def _connect(loop: asyncio.AbstractEventLoop, family: int, place: Any) -> socket.socket:
    made = socket.socket(family, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        await loop.sock_connect(made, place)
        # A Unix socket whose listener is busy says that it is connected, and is not.
        peer = made.getpeername()
        if family != socket.AF_UNIX:
            if peer == made.getsockname():
                # A connection to a free port of the kernel's own range can connect to itself.
                raise ConnectionRefusedError(111, "Connection refused")
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            if peer[0] != made.getsockname()[0]:
                share = max(1, KEEPALIVE_SILENCE // (KEEPALIVE_PROBES + 1))
                made.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, share)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, share)
                made.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
    except BaseException:
        made.close()
        raise
    return made


_links: weakref.WeakSet[Link] = weakref.WeakSet()


def _forked() -> None:
    for link in list(_links):
        link.forked()


os.register_at_fork(after_in_child=_forked)
