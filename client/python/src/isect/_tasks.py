"""The asyncio way to serve, for handlers that are an `async def`: each request is a task."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import Callable
from time import monotonic
from typing import Any

from ._context import current
from ._errors import IsectError, error
from ._request import AsyncRequest, BaseRequest
from ._serve import (LOGOUT_TIMEOUT, WAITING_BYTES_MAX, ConnLink, Server, answer_of, failed)
from ._signals import HANDLED
from ._worker import FAILED, GAVE_UP, guarded
from ._worker_conn import Stopped

_EAGER: dict[str, Any] = {"eager_start": True} if sys.version_info >= (3, 12) else {}


class TaskLink(ConnLink):
    """A link that an event loop reads and writes."""

    logs_out_with_answer = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self.loop = asyncio.get_running_loop()
        self.on_read: Callable[[], None] = lambda: None
        #: Nothing is read, because too much waits for the handlers.
        self._is_paused = False
        #: What has not left of the bytes that were sent last.
        self._rest: memoryview | None = None
        self._flushes = False
        self._writes = False
        self._out_bytes = 0
        self._room: asyncio.Event | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._beats: asyncio.TimerHandle | None = None

    def beat(self) -> None:
        """Beats now and then for the instances of the program."""
        aside = self.state.aside
        if aside is not None and self.lost is None and not self.is_ended:
            aside._beat_if_due()
            wait = aside._beat_in(monotonic())
            self._beats = None
            if wait is not None:
                self._beats = self.loop.call_later(wait, self.beat)

    def start(self, on_read: Callable[[], None]) -> None:
        """Reads from now on; `on_read` is called after each read, and after a loss."""
        self.on_read = on_read
        self.loop.add_reader(self.conn.fd, self._readable)
        self._watch()

    def hear(self) -> None:
        """The loop hears."""

    def _readable(self) -> None:
        self.read_now()
        if self.is_ended and self.lost is None:
            # Nothing follows, and the end of the stream would be heard again and again.
            self.loop.remove_reader(self.conn.fd)
        elif self.has_pieces and self.lost is None and self.is_full:
            self._is_paused = True
            self.loop.remove_reader(self.conn.fd)
        if self.state.aside is not None and self._beats is None:
            self.beat()
        self.on_read()

    def took(self) -> None:
        if self._is_paused and self.lost is None and not self.is_full:
            self._is_paused = False
            self.loop.add_reader(self.conn.fd, self._readable)

    def close(self) -> None:
        if not self.conn.is_forked and self.conn.sock.fileno() >= 0:
            self.loop.remove_reader(self.conn.fd)
            self.loop.remove_writer(self.conn.fd)
        for timer in (self._timer, self._beats):
            if timer is not None:
                timer.cancel()
        if self._room is not None:
            self._room.set()
        super().close()

    def lose(self, why: IsectError) -> None:
        if self.lost is None:
            super().lose(why)
            self.loop.call_soon(self.on_read)

    # Silence.

    def _watch(self) -> None:
        span = self.keepalive.span(monotonic())
        if span is not None and self.lost is None and not self.is_ended:
            self._timer = self.loop.call_later(span, self._look, span)

    def _look(self, waited: float) -> None:
        if self.lost is None and not self.is_ended:
            if self.is_heard or self._is_paused:
                self.is_heard = False
                self.keepalive.heard()
            else:
                self.note_silence(waited)
            self._watch()

    # Writing.

    def write(self, data: bytes) -> None:
        self.check_fork()
        if self.lost is not None:
            return
        self.out.append(data)
        self._out_bytes += len(data)
        if self._flushes:
            return
        if not self.open:
            # Nothing else is at work, so nothing will come that could leave with it.
            self._flush()
        else:
            # Answers of one turn of the loop leave with one send.
            self._flushes = True
            self.loop.call_soon(self._flush)

    def _flush(self) -> None:
        out = self.out
        rest: bytes | memoryview | None = self._rest
        if self.lost is not None or not (out or rest):
            self._flushes = False
            return
        if rest is None:
            rest = out[0] if len(out) == 1 else b"".join(out)
            out.clear()
        try:
            done = self.conn.send(rest)
        except IsectError as e:
            self._flushes = False
            return self.broke(e)
        self._out_bytes -= done
        if done and self._writes:
            # A broker that takes bytes again is there.
            self.is_heard = True
        if done < len(rest) or out:
            # A view, because the rest of a large answer would be copied for each part that leaves.
            self._rest = memoryview(rest)[done:] if done < len(rest) else None
            self._flushes = True
            if not self._writes:
                self._writes = True
                self.loop.add_writer(self.conn.fd, self._flush)
            return
        self._rest = None
        self._flushes = False
        if self._writes:
            self._writes = False
            self.loop.remove_writer(self.conn.fd)
        if self._room is not None and self._out_bytes < WAITING_BYTES_MAX // 2:
            self._room.set()

    def flush_now(self) -> None:
        """Sends what waits, before the connection is closed."""
        if self.lost is not None:
            return
        self.loop.remove_writer(self.conn.fd)
        # What is read meanwhile causes no write of its own.
        self._flushes = True
        while (self._rest or self.out) and self.lost is None:
            data = b"".join([self._rest or b"", *self.out])
            self._rest = None
            self.out.clear()
            self._write_rest(memoryview(data))

    async def room(self) -> None:
        """Waits while too much waits to be sent."""
        while self._out_bytes > WAITING_BYTES_MAX and self.lost is None:
            if self._room is None:
                self._room = asyncio.Event()
            self._room.clear()
            await self._room.wait()

    # Requests.

    def changed(self, request: BaseRequest) -> None:
        super().changed(request)
        if request._over is not None and request._task is not None:
            request._task.cancel()

    async def change(self, request: BaseRequest, seconds: float | None) -> None:
        """Waits once for whatever may concern a request."""
        waiter = request._waiter = asyncio.Event()
        try:
            if seconds is None:
                await waiter.wait()
            else:
                await asyncio.wait_for(waiter.wait(), seconds)
        except asyncio.TimeoutError:
            pass
        finally:
            request._waiter = None


class TaskServer(Server[TaskLink]):
    """Several requests at a time, each a task of one event loop. A task whose request nobody waits
    for any more is cancelled."""

    link_type = TaskLink
    request_type = AsyncRequest
    _loop: asyncio.AbstractEventLoop | None = None

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._handled: list[int] = []

    def run(self) -> None:
        if asyncio._get_running_loop() is not None:
            raise error("usage", "isect.run was called in a running event loop, and an 'async def' "
                                 "handler needs one of its own; call it outside of asyncio.run")
        # asyncio.run puts a handler of its own in the place of Python's.
        self._before: dict[int, Any] = {n: signal.getsignal(n) for n in HANDLED}
        asyncio.run(self._run())
        if self.wish is not None:
            raise self.wish

    async def _run(self) -> None:
        loop = self._loop = asyncio.get_running_loop()
        self._done = asyncio.Event()
        self._tasks: dict[asyncio.Task[None], BaseRequest] = {}
        self._why: BaseException | None = None
        self._until: asyncio.TimerHandle | None = None
        self._count = 0
        self._handle_signals(loop)
        try:
            await loop.run_in_executor(None, self._log_in)
            self._begin()
            await self._done.wait()
            while self._tasks:
                await asyncio.wait(list(self._tasks))
        except Stopped:
            pass
        finally:
            if self.is_own_process():
                self._end(loop)
        if self._why is not None:
            raise self._why

    def _end(self, loop: asyncio.AbstractEventLoop) -> None:
        for number in self._handled:
            loop.remove_signal_handler(number)
        if self._until is not None:
            self._until.cancel()
        if self.link is not None:
            self.link.flush_now()
            self.link.close()
        self.waker.close()
        if self.state.on_end is not None:
            guarded("on_end", self.state.on_end)

    def _handle_signals(self, loop: asyncio.AbstractEventLoop) -> None:
        if threading.current_thread() is not threading.main_thread():
            return
        for number in HANDLED:
            if self._before[number] in (signal.SIG_DFL, signal.default_int_handler):
                loop.add_signal_handler(number, self._on_signal, loop, number)
                self._handled.append(number)

    def _on_signal(self, loop: asyncio.AbstractEventLoop, number: int) -> None:
        self._count += 1
        if self._count > 1:
            loop.remove_signal_handler(number)
            signal.signal(number, signal.SIG_DFL)
            os.kill(os.getpid(), number)
        self.stop()

    def forked(self) -> None:
        super().forked()
        if self._handled and threading.current_thread() is threading.main_thread():
            # The loop's wakeup is shared with the parent, which would take the child's signals for
            # its own.
            signal.set_wakeup_fd(-1)
            for number in self._handled:
                signal.signal(number, self._before[number])

    def stop(self) -> None:
        super().stop()
        if self._loop is not None:
            try:
                self._loop.call_soon_threadsafe(self._turn)
            except RuntimeError:
                # The loop is closed: it has ended already.
                pass

    def _log_in(self) -> None:
        if self.link is None:
            self._made = self.login.log_in()
        else:
            assert self.link.lost is not None
            self._made = self.login.again(self.link.lost, self.link.lost_at, self.link.limits)

    def _begin(self) -> None:
        self.use(*self._made)
        assert self.link is not None
        if self.link.lost is None:
            self.link.start(self._turn)
        self._is_returning = False
        self._turn()

    _is_returning = True

    def _turn(self) -> None:
        """Does what is due after something changed."""
        link, state = self.link, self.state
        if link is None or self._is_returning or self._done.is_set():
            return
        while not state.is_done and len(self._tasks) < self.options.concurrency:
            request = link.next()
            if request is None:
                break
            self._start(request)
        if link.refused is not None:
            return self._finish(link.refused)
        if link.is_ended and (state.is_done or not link.waiting):
            return self._finish(None)
        if state.is_done:
            self._log_out(link)
        elif link.lost is not None:
            self._is_returning = True
            task = link.loop.run_in_executor(None, self._log_in)
            task.add_done_callback(self._returned)

    def _returned(self, made: asyncio.Future[None]) -> None:
        why = made.exception()
        if why is None:
            self._begin()
        else:
            self._is_returning = False
            self._finish(None if isinstance(why, Stopped) else why)

    def _finish(self, why: BaseException | None) -> None:
        self._why = self._why or why
        self._done.set()

    def _log_out(self, link: TaskLink) -> None:
        if link.lost is not None:
            return self._finish(None)
        if not link.is_logged_out and not link.has_partial():
            self._say_goodbye(link)
        elif not link.is_logged_out and self._until is None:
            self._until = link.loop.call_later(LOGOUT_TIMEOUT, self._say_goodbye, link)

    def _say_goodbye(self, link: TaskLink) -> None:
        if not link.is_logged_out:
            link.write(link.goodbye())
            if self._until is not None:
                self._until.cancel()
            self._until = link.loop.call_later(LOGOUT_TIMEOUT, self._finish, None)

    def _start(self, request: BaseRequest) -> None:
        task = asyncio.Task(self._answer(request), loop=self._loop, **_EAGER)
        if not task.done():
            request._task = task
            self._tasks[task] = request
            task.add_done_callback(self._ended)
            if request._over is not None:
                task.cancel()
        elif not task.cancelled() and (why := task.exception()) is not None:
            self._finish(why)

    def _ended(self, task: asyncio.Task[None]) -> None:
        request = self._tasks.pop(task)
        if task.cancelled():
            # It was cancelled before its first step.
            request._fail(FAILED, GAVE_UP.decode())
        elif (why := task.exception()) is not None:
            self._finish(why)
        if self.link is not None and (self.link.waiting or self.state.is_done):
            self._turn()

    async def _answer(self, request: BaseRequest) -> None:
        current.set(request)
        try:
            given = self.handle(request)
            if not hasattr(given, "__anext__"):
                given = await given
            if type(given) is bytes:
                request._end(given)
            elif given is None:
                request._end(b"")
            elif hasattr(given, "__anext__") or hasattr(given, "__next__"):
                await _stream(request, given)
            else:
                request._end(answer_of(given))
        except asyncio.CancelledError as e:
            if request._over is not None:
                request._fail(FAILED, GAVE_UP.decode())
            else:
                failed(request, self.state, _Cancelled(str(e)))
        except BaseException as e:
            wish = failed(request, self.state, e)
            if wish is not None:
                self.note(wish)
        finally:
            # The task has the request by its context, and the request has the task.
            current.set(None)
            request._task = None


class _Cancelled(Exception):
    """A handler was cancelled, and not by the worker."""


_Cancelled.__name__ = "CancelledError"


async def _stream(request: BaseRequest, pieces: Any) -> None:
    """Sends what an iterator gives, piece by piece, as long as somebody waits."""
    room = request._link.room  # type: ignore[attr-defined]
    try:
        if hasattr(pieces, "__anext__"):
            async for piece in pieces:
                request._send_piece(piece, None)
                await room()
        else:
            for piece in pieces:
                request._send_piece(piece, None)
                await asyncio.sleep(0)
                await room()
    finally:
        close = getattr(pieces, "aclose", None)
        if close is not None:
            await close()
        elif hasattr(pieces, "close"):
            pieces.close()
    request._end(b"")
