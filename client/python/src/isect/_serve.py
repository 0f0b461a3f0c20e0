"""How a worker waits, reads and writes: the plain way, for handlers that are a `def` with one
request at a time. `_threads` and `_tasks` have the other two.
"""

from __future__ import annotations

import inspect
import logging
import os
import select
import sys
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeVar

from . import _tables as t
from ._context import current
from ._errors import ForkedError, IsectError, error, visible
from ._keepalive import GONE, PING, Keepalive
from ._request import BaseRequest, Request, as_bytes
from ._signals import Signals, tell_of_forks
from ._wire import Inbox, frame
from ._worker import FAILED, GAVE_UP, Limits, Link, State, guarded, log
from ._worker_conn import Conn, Login, Options, Stopped, Waker

if TYPE_CHECKING:
    from ._aside import CurrentWorker

#: Seconds for which the broker's `end` is awaited after a logout, or the rest of a request before.
LOGOUT_TIMEOUT = 2.0
#: Most bytes that wait to be sent, above which who answers waits, too.
WAITING_BYTES_MAX = 1 << 20
#: Longest text of an exception that a client is sent, in characters.
_TEXT_MAX = 500


class Failure(Exception):
    """Raise it in a handler to answer with an error of your own: the client gets `code` and `text`
    unchanged.

    `code`: 1 to 32767. `text`: at most `body_bytes_max` bytes as UTF-8; the rest is dropped.
    """

    def __init__(self, code: int, text: str = "") -> None:
        if not isinstance(code, int) or not 1 <= code <= 32767:
            raise error("usage", f"code {code!r} is out of range; the code of a failure is 1 to "
                                 "32767 (negative ones are isect's own)")
        super().__init__(code, text)
        self.code = int(code)
        self.text = str(text)

    def __str__(self) -> str:
        return f"{self.text} (code {self.code})"


class ConnLink(Link):
    """A link with its connection."""

    server: Server[Any]

    def __init__(
        self, limits: Limits, state: State, request: Any, inbox: Inbox, conn: Conn, waker: Waker
    ) -> None:
        super().__init__(limits, state, request, inbox)
        self.conn = conn
        self.waker = waker
        self.keepalive = Keepalive(round(limits.silence * 1000))
        #: Bytes came; an event loop looks now and then.
        self.is_heard = False
        self.lost_at = 0.0
        #: What waits behind a frame that has left in part; None = there is no such frame.
        self._behind: list[bytes] | None = None
        self.poller = select.poll()
        self.poller.register(conn.fd, select.POLLIN)
        self.poller.register(waker.reader, select.POLLIN)

    def begin(self) -> None:
        """Takes the frames that came with the answer to the login."""
        try:
            self.take_frames()
        except IsectError as e:
            self.refuse(e)

    def lose(self, why: IsectError) -> None:
        if self.lost is None:
            self.lost_at = monotonic()
            super().lose(why)
            self.close()

    def close(self) -> None:
        self.conn.close()

    def check_fork(self) -> None:
        """Raises `ForkedError` in a child of the worker's process."""
        if self.conn.is_forked:
            raise ForkedError("bad_state", "this process was forked from a worker; only the worker "
                                           "itself may answer its requests")

    def write(self, data: bytes) -> None:
        """Sends bytes, and reads what the broker sends while it takes none."""
        if self.lost is not None:
            return
        if self._behind is not None:
            # Another frame has left in part; this one was caused by what was read meanwhile.
            self._behind.append(data)
            return
        try:
            done = self.conn.sock.send(data)
            if done == len(data):
                return
        except (BlockingIOError, InterruptedError):
            done = 0
        except OSError as e:
            if self.conn.is_forked:
                self.check_fork()
            if not self.conn.is_tls:
                return self.broke(self.conn.broke(e))
            done = 0
        rest = memoryview(data)[done:]
        try:
            while rest:
                self._behind = []
                self._write_rest(rest)
                rest = memoryview(b"".join(self._behind))
        finally:
            self._behind = None

    def _write_rest(self, rest: memoryview) -> None:
        poller = select.poll()
        poller.register(self.conn.fd, select.POLLOUT)
        reads = 0
        limit = self.limits.silence or None
        stuck_since = monotonic()
        while rest and self.lost is None:
            try:
                done = self.conn.send(rest)
            except IsectError as e:
                return self.broke(e)
            rest = rest[done:]
            if done:
                stuck_since = monotonic()
                continue
            # Both sides may be writing; but what waits for the handler has a limit.
            may_read = 0 if self.is_ended or self.is_full else select.POLLIN
            if may_read != reads:
                reads = may_read
                poller.modify(self.conn.fd, reads | select.POLLOUT)
            ready = poller.poll(None if limit is None else limit * 1000)
            if ready and reads and ready[0][1] & ~select.POLLOUT:
                if self.read_now():
                    stuck_since = monotonic()
            elif limit is not None and monotonic() - stuck_since >= limit:
                self.lose(error("broker_lost", f"the broker at {self.conn.address} took nothing "
                                               f"for {limit:g} s"))

    def broke(self, why: IsectError) -> None:
        """A write failed. What the broker sent before still counts, for example an `end`."""
        while self.lost is None and self.read_now():
            pass
        if self.lost is None or self.lost.name == "broker_lost":
            self.lose(why)

    def read_now(self) -> bool:
        """Reads what is there, without waiting; False = nothing was."""
        inbox = self.inbox
        try:
            data = self.conn.recv(not inbox.is_between_frames)
        except IsectError as e:
            if self.conn.is_forked:
                self.check_fork()
            # Behind its `end` the broker sends nothing, and still takes answers.
            if not self.is_ended:
                self.lose(e)
            return False
        return data is not None and self.take(data)

    def take(self, data: bytes) -> bool:
        """Takes what was read."""
        self.keepalive.heard()
        self.is_heard = True
        try:
            inbox = self.inbox
            inbox.feed(data)
            self.take_frames()
            if type(inbox._bytes) is bytearray and inbox.is_between_frames:
                # The buffer of a large body is not kept while nothing comes.
                inbox.feed(b"")
        except IsectError as e:
            # No frames of isect: this broker can't be worked with.
            e.context = e.context or f"what {self.conn.address} sends"
            self.refuse(e)
        return True

    def hear(self) -> None:
        if self.lost is None and not self.is_ended and not self.is_full:
            self.read_now()

    def fill(self, seconds: float | None = None) -> None:
        """Waits once: for bytes, which it takes, for the waker, or so long."""
        now = monotonic()
        span = self.keepalive.span(now)
        if seconds is not None and (span is None or seconds < span):
            span = seconds
        aside = self.state.aside
        if aside is not None and (beat := aside._beat_in(now)) is not None:
            if beat == 0.0:
                return aside._beat_if_due()
            if span is None or beat < span:
                span = beat
        ready = self.poller.poll(None if span is None else span * 1000 + 1)
        if not ready:
            self.note_silence(span or 0.0)
        for fd, _ in ready:
            if fd == self.conn.fd:
                self.read_now()
            else:
                self.waker.clear()

    def note_silence(self, waited: float) -> None:
        """Nothing came for so long: the broker is pinged, or it is gone."""
        now = monotonic()
        due = self.keepalive.quiet(now, waited)
        if due == PING:
            self.keepalive.pinged(now)
            self.write(frame(t.PING))
        elif due == GONE:
            self.lose(error("broker_lost", f"the broker at {self.conn.address} said nothing for "
                                           f"{self.limits.silence:g} s and answered no ping"))

    def await_change(self, request: BaseRequest, seconds: float | None) -> None:
        """Waits once for whatever may concern a request."""
        self.fill(seconds)


L = TypeVar("L", bound=ConnLink)


class Server(Generic[L]):
    """A worker that serves until it is asked to end. The ways differ in `link_type` and `serve`."""

    link_type: type[L]
    request_type: type[BaseRequest] = Request

    def __init__(self, options: Options, state: State, handle: Callable[[Any], Any]) -> None:
        self.options = options
        self.state = state
        self.handle = handle
        self.waker = Waker()
        self.signals = Signals(self.stop, self.waker)
        self.login = Login(options, self.waker, lambda: state.is_stopping)
        self.link: L | None = None
        self.limits: Limits | None = None
        #: A SystemExit or the like of a handler, which ends the program after the logout.
        self.wish: BaseException | None = None
        self._pid = os.getpid()
        tell_of_forks(self)

    def stop(self) -> None:
        """Takes no further request; those at hand are finished. Any thread may call it."""
        self.state.is_stopping = True
        self.waker.wake()

    def current(self) -> CurrentWorker:
        """What the program does beside its answers."""
        aside = self.state.aside
        if aside is None:
            from ._aside import CurrentWorker

            aside = self.state.aside = CurrentWorker(self.options.service)
            if self.link is not None:
                aside._use(self.link)
        return aside

    def run(self) -> None:
        """Serves. Returns when the worker was asked to end; raises why it had to."""
        self.signals.install()
        try:
            self.connect()
            self.serve()
        except Stopped:
            pass
        finally:
            if self.is_own_process():
                self.signals.remove()
                if self.link is not None:
                    self.link.close()
                self.waker.close()
                if self.state.on_end is not None:
                    guarded("on_end", self.state.on_end)
        if self.wish is not None:
            raise self.wish

    def serve(self) -> None:
        raise NotImplementedError

    def is_own_process(self) -> bool:
        """Whether this is the process that logged in, not a child of it."""
        return self._pid == os.getpid()

    def connect(self) -> None:
        """Logs in, the first time or again."""
        if self.link is None:
            made = self.login.log_in()
        else:
            lost = self.link.lost
            assert lost is not None
            made = self.login.again(lost, self.link.lost_at, self.link.limits)
        self.use(*made)

    def use(self, conn: Conn, limits: Limits, inbox: Inbox) -> None:
        self.limits = limits
        self.link = self.link_type(limits, self.state, self.request_type, inbox, conn, self.waker)
        self.link.server = self
        if self.state.aside is not None:
            self.state.aside._use(self.link)
        self.link.begin()

    def note(self, wish: BaseException) -> None:
        """A handler wants the program to end."""
        if self.wish is None:
            self.wish = wish
        self.stop()

    def forked(self) -> None:
        """In a child: the connection is closed without a word, signals are as they were."""
        self.signals.remove()
        if self.link is not None:
            self.link.conn.close_in_child()
        self.waker.close()


class PlainServer(Server[ConnLink]):
    """One request at a time, on the calling thread. The broker is not heard while the handler
    works, and expects nothing then."""

    link_type = ConnLink

    def serve(self) -> None:
        state, handle = self.state, self.handle
        while True:
            link = self.link
            assert link is not None
            if state.is_done:
                return self._log_out(link)
            request = link.next()
            if request is not None:
                wish = answer(handle, request, state)
                if wish is not None:
                    self.note(wish)
                continue
            if link.refused is not None:
                raise link.refused
            if link.is_ended:
                return
            if link.lost is not None:
                self.connect()
            else:
                link.fill()

    def _log_out(self, link: ConnLink) -> None:
        if link.lost is not None or link.is_ended:
            return
        if not link.is_logged_out:
            link.write(link.goodbye())
        until = monotonic() + LOGOUT_TIMEOUT
        while link.lost is None and not link.is_ended and (left := until - monotonic()) > 0:
            link.fill(left)


def answer(
    handle: Callable[[Any], Any], request: BaseRequest, state: State
) -> BaseException | None:
    """Has a `def` handler answer a request. Returns what must end the program."""
    current.set(request)
    try:
        given = handle(request)
        if type(given) is bytes:
            request._end(given)
        elif given is None:
            request._end(b"")
        elif hasattr(given, "__next__"):
            _stream(request, given)
        else:
            request._end(answer_of(given))
    except BaseException as e:
        return failed(request, state, e)
    finally:
        current.set(None)
    return None


def answer_of(given: object) -> bytes:
    """What a handler returned, as bytes."""
    if isinstance(given, (bytes, str, bytearray, memoryview)):
        return as_bytes(given)
    if inspect.iscoroutine(given):
        given.close()
        raise TypeError("the handler returned a coroutine; make the handler itself an 'async def'")
    raise TypeError(f"the handler returned {type(given).__name__}; it returns bytes, str, None or "
                    "an iterator of bytes")


def _stream(request: BaseRequest, pieces: Any) -> None:
    """Sends what an iterator gives, piece by piece, as long as somebody waits."""
    try:
        for piece in pieces:
            request._send_piece(piece, None)
    finally:
        close = getattr(pieces, "close", None)
        if close is not None:
            close()
    request._end(b"")


def failed(request: BaseRequest, state: State, e: BaseException) -> BaseException | None:
    """Answers for a handler that raised something. Returns what must end the program."""
    if request._is_forked:
        _end_child(e)
    if isinstance(e, Failure):
        request._fail(e.code, e.text)
    elif isinstance(e, IsectError) and request._over and e.name == request._over.name:
        log.debug("transaction %d: nobody waits any more: %s", request.transaction, e)
        request._fail(FAILED, GAVE_UP.decode())
    elif isinstance(e, Exception):
        state.failed += 1
        _log(logging.ERROR, f"the handler failed at transaction {request.transaction}", e)
        request._fail(FAILED, text_of(e))
    else:
        _log(logging.WARNING, f"the handler ends the worker: {text_of(e)}")
        request._fail(FAILED, f"the worker ends: {text_of(e)}")
        return e
    return None


def _log(level: int, text: str, e: BaseException | None = None) -> None:
    """Logs what became of a request, which must be answered, whatever the program has done to its
    logging and its exceptions."""
    try:
        log.log(level, "%s", text, exc_info=None if e is None else (type(e), e, e.__traceback__))
    except BaseException as other:
        more = "" if e is None else f": {text_of(e)}"
        last_words(f"{text}{more}; it can't be logged: {text_of(other)}\n")


def last_words(text: str) -> None:
    """Writes to stderr, where somebody may read it."""
    try:
        sys.stderr.write(text)
        sys.stderr.flush()
    except (OSError, ValueError, AttributeError):
        pass


def _end_child(e: BaseException) -> NoReturn:
    """Ends a process that was forked in a handler and came back from it: only the worker itself
    goes on. What the worker would do at its end must not be done in the child, too."""
    status = 1
    if isinstance(e, SystemExit) and (e.code is None or isinstance(e.code, int)):
        status = e.code or 0
    try:
        if not isinstance(e, SystemExit):
            print(f"a process that was forked in a handler ends: {text_of(e)}", file=sys.stderr)
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


def text_of(e: BaseException) -> str:
    """`TypeName: message`, one line of visible characters."""
    try:
        text = str(e)
    except BaseException:
        text = "(its text can't be made)"
    name = visible(type(e).__name__)
    first = text.strip().partition("\n")[0]
    shown = visible(first[:_TEXT_MAX]) + (" …" if len(first) > _TEXT_MAX else "")
    return f"{name}: {shown}" if shown else name


logging.getLogger("isect").addHandler(logging.NullHandler())
