"""The worker's side of one connection, without input or output: frames in, requests and frames out.

A `Link` knows the requests that came by one connection and is given up with it: a transaction is
never answered on a later connection, where its number may mean another request. `_serve` reads and
writes for it, in one of three ways; each has a subclass that knows how to write and how to wait.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, NamedTuple

from . import _tables as t
from ._errors import IsectError, error
from ._request import BaseRequest
from ._wire import _pack, Header, Inbox, Lines, error_of, frame

if TYPE_CHECKING:
    from ._aside import CurrentWorker

log = logging.getLogger("isect.worker")

#: The code of the failure that frees a worker whose client waits no more; also of a handler that
#: raised something.
FAILED = 1
GAVE_UP = b"nobody waits for the answer any more"

#: Most bytes of an answer to `status`.
STATUS_BYTES_MAX = 64 * 1024
#: Most bytes of requests and pieces that wait for their handlers, from which on no more is read
#: before some are taken.
AHEAD_BYTES_MAX = 64 << 20
#: Most transactions that are remembered because they ended before their last piece came.
ENDED_EARLY_MAX = 1024

#: Kinds that tell a worker nothing: it subscribes to nothing, and awaits no answer to a publish.
_NOTHING = frozenset({t.PONG, t.PUBLISHED, t.SUBSCRIBED, t.UNSUBSCRIBED, t.CAUGHT_UP, t.MESSAGE})


class Limits(NamedTuple):
    """What `worker-login-ok` says."""

    worker: int
    body_bytes_max: int
    silence: float
    reconnect: float
    concurrency: int
    signature: str

    @classmethod
    def parse(cls, body: bytes) -> Limits:
        lines = Lines.parse(body)
        return cls(
            worker=lines.number("worker", most=2**32 - 1),
            body_bytes_max=max(1, min(lines.number("body_bytes_max"), t.BODY_BYTES_MAX)),
            silence=lines.number("silence_ms", 0) / 1000,
            reconnect=lines.number("reconnect_ms", 0) / 1000,
            concurrency=max(1, min(lines.number("concurrency", 1), t.CONCURRENCY_MAX)),
            signature=lines.get("signature"),
        )


class State:
    """What a worker knows across its connections."""

    def __init__(
        self,
        *,
        service: str = "",
        max_requests: int | None = None,
        on_status: Callable[[], object] | None = None,
        on_reinit: Callable[[], object] | None = None,
        on_end: Callable[[], object] | None = None,
    ) -> None:
        self.service = service
        #: How many requests were given a final answer, failures among them.
        self.answered = 0
        #: How many of them because the handler raised something.
        self.failed = 0
        #: How many more requests the program takes; None = no limit.
        self.left = max_requests
        #: No further request is taken, because of a signal or the handler's wish.
        self.is_stopping = False
        self.on_status = on_status
        self.on_reinit = on_reinit
        self.on_end = on_end
        #: What the program does beside its answers.
        self.aside: CurrentWorker | None = None

    @property
    def is_done(self) -> bool:
        """Whether no further request is to be begun."""
        return self.is_stopping or self.left == 0

    def status(self) -> bytes:
        """The answer to `status`: what the program says, or how many requests were answered."""
        text: object = None
        if self.on_status is not None:
            text = guarded("on_status", self.on_status)
        if text is None:
            text = f"{self.answered} requests answered"
            if self.failed:
                text += f", {self.failed} of them failed with an exception"
        shown = str(text).encode(errors="backslashreplace")
        return shown[:STATUS_BYTES_MAX].decode(errors="ignore").encode()


def guarded(name: str, hook: Callable[[], object]) -> object:
    """Calls a hook of the program. What it raises is logged, and nothing else happens."""
    try:
        return hook()
    except Exception:
        log.exception("the hook %s raised an exception; the worker goes on", name)
        return None


class Link:
    """What is known of one connection after the login. `write` collects what is to be sent; the
    ways of `_serve` send it at once."""

    #: Whether the logout is sent with the last answer (the plain way).
    logs_out_with_answer = True

    def __init__(
        self,
        limits: Limits,
        state: State,
        request: Callable[[Link, Header, bytes, int], BaseRequest] = BaseRequest,
        inbox: Inbox | None = None,
    ) -> None:
        self.limits = limits
        self.state = state
        self.inbox = Inbox() if inbox is None else inbox
        self.inbox.body_bytes_max = limits.body_bytes_max
        #: Requests without a final answer, by transaction.
        self.open: dict[int, BaseRequest] = {}
        #: Those of them that the handler was not given yet.
        self.waiting: deque[BaseRequest] = deque()
        #: Whether any request had further pieces.
        self.has_pieces = False
        #: Transactions that ended here before their client had sent all: their frames are dropped.
        self.ended_early: deque[int] = deque(maxlen=ENDED_EARLY_MAX)
        #: How many requests came.
        self.received = 0
        #: The number of the last of them that the handler was given.
        self.begun = 0
        #: The broker sends nothing more.
        self.is_ended = False
        self.is_logged_out = False
        #: Why the connection is lost; None = it is not.
        self.lost: IsectError | None = None
        #: Why this worker must end; None = it need not.
        self.refused: IsectError | None = None
        self.out: list[bytes] = []
        self._request = request

    # What the ways do otherwise.

    def write(self, data: bytes) -> None:
        """Sends bytes. Never raises because of the connection: it is lost then."""
        self.out.append(data)

    def hear(self) -> None:
        """Reads what is there, without waiting, where nobody else reads."""

    def took(self) -> None:
        """Less waits for the handlers than before."""

    def changed(self, request: BaseRequest) -> None:
        """A piece came for a request, or nobody waits for it any more."""
        if request._waiter is not None:
            request._waiter.set()

    # In.

    def feed(self, data: bytes) -> None:
        """Takes bytes of the broker. Raises `Refused` if they are no frames."""
        inbox = self.inbox
        inbox.feed(data)
        self.take_frames()

    def take_frames(self) -> None:
        """Handles the frames that are there."""
        take = self.inbox.take
        while (found := take()) is not None:
            head, body = found
            if head[4] == 0:
                self._take_data(head, body)
            else:
                self._take_control(head, body)
                if self.lost is not None:
                    # What came behind that is not heard: nothing would end a request of it.
                    return

    def _take_data(self, head: Header, body: bytes) -> None:
        transaction = head[10]
        request = self.open.get(transaction)
        if request is not None:
            if request._over is None:
                if request._pieces is None:
                    request._pieces = deque()
                request._pieces.append((body, head[7], head[11]))
                request._came_bytes += t.HEADER_BYTES + len(body)
                self.has_pieces = True
            request._sent_more = head[7] != 0
            self.changed(request)
        elif self.is_logged_out or transaction in self.ended_early:
            # What crossed the logout goes to another worker.
            pass
        else:
            self.received += 1
            request = self._request(self, head, body, self.received)
            self.open[transaction] = request
            self.waiting.append(request)

    def _take_control(self, head: Header, body: bytes) -> None:
        kind = head[4]
        if kind == t.PING:
            self.write(frame(t.PONG, sequence=head[1]))
        elif kind == t.CANCEL and head[10]:
            row = t.ERRORS.get(head[3])
            self._over(head[10], error(row.name if row else "cancelled",
                                       body.decode(errors="replace"), ran="maybe"))
        elif kind == t.ERROR:
            self._take_error(head, error_of(head, body))
        elif kind == t.END:
            self.is_ended = True
            for request in list(self.open.values()):
                self.changed(request)
        elif kind == t.REINIT:
            if self.state.on_reinit is not None:
                guarded("on_reinit", self.state.on_reinit)
        elif kind == t.STATUS:
            self.write(frame(t.STATUS_REPLY, self.state.status(), sequence=head[1]))
        elif kind == t.ANNOUNCED or kind == t.BEAT_OK:
            if self.state.aside is not None:
                self.state.aside._announced(head, body)
        elif kind not in _NOTHING:
            self.refuse(error("bad_state", f"the broker sent a worker a {t.KINDS[kind]} frame, "
                                           "which can't come now"))

    def _take_error(self, head: Header, why: IsectError) -> None:
        row = t.ERRORS.get(why.code)
        if head[10]:
            self._over(head[10], why)
        elif head[1] and not (row is not None and row.closes):
            # It is about a message or an instance.
            if self.state.aside is not None:
                self.state.aside._failed(head[1], why)
            log.warning("the broker refused a frame of this worker: %s", why)
        elif row is None or row.retry == "never":
            self.refuse(why)

    def _over(self, transaction: int, why: IsectError) -> None:
        request = self.open.get(transaction)
        if request is not None:
            self.set_over(request, why)

    def set_over(self, request: BaseRequest, why: IsectError) -> None:
        """Nobody waits for a request any more. It still gets a final answer, which frees the
        worker; the first reason counts."""
        if request._over is None:
            request._over = why
            request._pieces = None
            self.changed(request)
            self.took()

    @property
    def is_full(self) -> bool:
        """Whether as much waits for the handlers as may."""
        waiting = sum(t.HEADER_BYTES + len(request.body) for request in self.waiting)
        if self.has_pieces:
            waiting += sum(request._came_bytes - request._taken_bytes
                           for request in list(self.open.values()) if request._over is None)
        return waiting >= AHEAD_BYTES_MAX

    def refuse(self, why: IsectError) -> None:
        """The broker can't be worked with: this worker ends."""
        if self.refused is None:
            self.refused = why
        self.lose(why)

    def lose(self, why: IsectError) -> None:
        """The connection is gone, and with it all that came by it."""
        if self.lost is not None:
            return
        self.lost = why
        self.waiting.clear()
        requests = list(self.open.values())
        self.open.clear()
        for request in requests:
            self.set_over(request, why)

    # Out.

    def next(self) -> BaseRequest | None:
        """The next request that somebody waits for; None = there is none now."""
        waiting = self.waiting
        while waiting:
            request = waiting.popleft()
            self.begun = request._number
            if request._over is None:
                state = self.state
                if state.left is not None:
                    state.left -= 1
                return request
            self.finish(request, GAVE_UP, FAILED)
        return None

    def send_piece(self, request: BaseRequest, body: bytes, millis: int) -> None:
        """Sends a piece of an answer. `millis` > 0 = the next one comes within this time."""
        if request._over is not None or self.open.get(request.transaction) is not request:
            return
        request._worker_more = request._was_open = True
        head = request._head
        self.write(_pack(len(body), head[1], 0, 0, 0, 2, self.limits.worker, 1, 0, 0, head[10],
                         millis, 0, head[13], head[14]) + body)

    def finish(self, request: BaseRequest, body: bytes, code: int) -> None:
        """Sends the final answer of a request. One whose connection is lost is dropped. If nobody
        waits, it is a failure: nobody must take half an answer for a success."""
        head = request._head
        if request._over is not None and code == 0:
            body, code = GAVE_UP, FAILED
        if self.open.pop(head[10], None) is not request:
            return
        if request._sent_more or request._was_open:
            self.ended_early.append(head[10])
            self.took()
        self.state.answered += 1
        data = _pack(len(body), head[1], 0, code, 0, 2, self.limits.worker, 0, 0, 0, head[10], 0,
                     0, head[13], head[14]) + body
        if self.logs_out_with_answer and self.state.is_done and not self.is_ended:
            if not self.is_logged_out:
                # The logout goes first, so that the reply does not bring a request in between.
                data = self.goodbye() + data
        self.write(data)

    def goodbye(self) -> bytes:
        """The logout. What the handler was not given counts as not received."""
        self.is_logged_out = True
        for request in self.waiting:
            self.open.pop(request.transaction, None)
        self.waiting.clear()
        return frame(t.LOGOUT, Lines([("received", str(self.begun))]).bytes())

    def has_partial(self) -> bool:
        """Whether the handler has a request that its client has not sent whole: behind a logout
        nothing of it would come."""
        return any(request._sent_more and request._over is None
                   for request in list(self.open.values()) if request._number <= self.begun)
