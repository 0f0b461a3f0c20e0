"""The threaded way to serve, for handlers that are a `def` with several requests at a time. One
thread reads and gives the requests to others, which answer them in any order, so the broker is
heard while all of them work.
"""

from __future__ import annotations

import select
import threading
from collections.abc import Callable
from queue import SimpleQueue
from time import monotonic
from typing import Any

from ._errors import IsectError, error
from ._request import BaseRequest
from ._serve import LOGOUT_TIMEOUT, WAITING_BYTES_MAX, ConnLink, Server, answer
from ._worker import State


class ThreadLink(ConnLink):
    """A link that one thread reads and all write. Who can't go on writing waits without a lock
    that the reader needs, so reading goes on."""

    logs_out_with_answer = False

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        #: Bytes that wait to be sent, and how many.
        self._waiting_out: list[bytes] = []
        self._waiting_bytes = 0
        #: A thread sends, and will send what is added meanwhile.
        self._is_flushing = False
        self._reader = threading.get_ident()
        self._tls_lock = threading.Lock() if self.conn.is_tls else None
        #: What the poller waits for.
        self._events = select.POLLIN
        #: Nothing is read, because too much waits for the handlers.
        self._is_paused = False

    def hear(self) -> None:
        """The reader hears."""

    def lose(self, why: IsectError) -> None:
        super().lose(why)
        with self._lock:
            self._waiting_out.clear()
            self._waiting_bytes = 0
            self._room.notify_all()

    def write(self, data: bytes) -> None:
        self.check_fork()
        is_reader = threading.get_ident() == self._reader
        with self._lock:
            if self.lost is not None:
                return
            self._waiting_out.append(data)
            self._waiting_bytes += len(data)
            if self._is_flushing:
                while (self._waiting_bytes > WAITING_BYTES_MAX and self._is_flushing
                       and self.lost is None and not is_reader):
                    self._room.wait(1.0)
                return
            self._is_flushing = True
        self._flush(not is_reader)

    def _flush(self, waits: bool) -> None:
        """Sends what waits, as far as the socket takes it; the lock is free meanwhile."""
        while True:
            with self._lock:
                out = self._waiting_out
                if not out or self.lost is not None:
                    self._is_flushing = False
                    self._room.notify_all()
                    return
                data = out[0] if len(out) == 1 else b"".join(out)
                out.clear()
                self._waiting_bytes = 0
            rest = memoryview(data)
            while rest and self.lost is None:
                try:
                    done = self._send(rest)
                except IsectError:
                    # The reader finds the end, behind what the broker sent before.
                    self._shut()
                    with self._lock:
                        self._is_flushing = False
                    return
                rest = rest[done:]
                if done:
                    continue
                if not waits:
                    with self._lock:
                        out.insert(0, bytes(rest))
                        self._waiting_bytes += len(rest)
                        self._is_flushing = False
                    return
                poller = select.poll()
                poller.register(self.conn.fd, select.POLLOUT)
                if poller.poll(1000):
                    # A broker that takes bytes again is there.
                    self.keepalive.heard()

    def _send(self, rest: memoryview) -> int:
        if self._tls_lock is None:
            return self.conn.send(rest)
        with self._tls_lock:
            return self.conn.send(rest)

    def _shut(self) -> None:
        try:
            self.conn.sock.shutdown(2)
        except OSError:
            pass

    def read_now(self) -> bool:
        if self._tls_lock is None:
            return super().read_now()
        with self._tls_lock:
            data, why = None, None
            try:
                data = self.conn.recv(not self.inbox.is_between_frames)
            except IsectError as e:
                why = e
        if why is not None and not self.is_ended:
            self.lose(why)
        return data is not None and self.take(data)

    def took(self) -> None:
        if self._is_paused:
            self.waker.wake()

    def fill(self, seconds: float | None = None) -> None:
        with self._lock:
            is_stuck = bool(self._waiting_out) and not self._is_flushing
        # First the note, so that who takes a piece from now on ends the wait.
        self._is_paused = self.has_pieces
        self._is_paused = self.has_pieces and self.is_full
        if self._is_paused:
            # That the broker is not heard is no silence of it.
            self.keepalive.heard()
        events = (0 if self._is_paused else select.POLLIN) | (select.POLLOUT if is_stuck else 0)
        if events != self._events:
            self._events = events
            self.poller.modify(self.conn.fd, events)
        super().fill(seconds)
        if is_stuck:
            with self._lock:
                if self._is_flushing:
                    return
                self._is_flushing = True
            self._flush(False)

    def await_change(self, request: BaseRequest, seconds: float | None) -> None:
        waiter = request._waiter
        if waiter is None:
            request._waiter = threading.Event()
            # Look again: it may have come before the reader could know of the waiter.
            return
        waiter.wait(seconds)
        waiter.clear()


class _Pool:
    """Threads that answer. They are started when they are needed first, `most` at most."""

    def __init__(self, handle: Callable[[Any], Any], server: ThreadServer, most: int) -> None:
        self._handle = handle
        self._server = server
        self._most = most
        self._requests: SimpleQueue[BaseRequest | None] = SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._threads: list[threading.Thread] = []

    def put(self, request: BaseRequest) -> None:
        self._requests.put(request)
        if len(self._threads) < self._most and not self._idle.acquire(blocking=False):
            thread = threading.Thread(target=self._work, daemon=True,
                                      name=f"isect-{len(self._threads) + 1}")
            try:
                thread.start()
            except RuntimeError as e:
                # Those that there are take it in time.
                if not self._threads:
                    raise error("internal", f"the system starts no thread: {e}",
                                whose="host") from e
            else:
                self._threads.append(thread)

    def _work(self) -> None:
        requests, handle, server = self._requests, self._handle, self._server
        state: State = server.state
        while (request := requests.get()) is not None:
            wish = answer(handle, request, state)
            if wish is not None:
                server.note(wish)
            # A request is referred to by nothing here while the thread waits.
            del request
            self._idle.release()

    def close(self) -> None:
        """Waits until all are answered."""
        for _ in self._threads:
            self._requests.put(None)
        for thread in self._threads:
            thread.join()


class ThreadServer(Server[ThreadLink]):
    """Several requests at a time, each on a thread of a pool; the calling thread reads."""

    link_type = ThreadLink

    def serve(self) -> None:
        pool = _Pool(self.handle, self, self.options.concurrency)
        try:
            self._take(pool)
        finally:
            if self.is_own_process():
                pool.close()

    def _take(self, pool: _Pool) -> None:
        state = self.state
        until: float | None = None
        while True:
            link = self.link
            assert link is not None
            while not state.is_done and (request := link.next()) is not None:
                pool.put(request)
            if link.refused is not None:
                raise link.refused
            if link.is_ended:
                return
            if state.is_done:
                if link.lost is not None:
                    return
                now = monotonic()
                if until is None:
                    until = now + LOGOUT_TIMEOUT
                if not link.is_logged_out and (now >= until or not link.has_partial()):
                    link.write(link.goodbye())
                    until = now + LOGOUT_TIMEOUT
                elif now >= until:
                    return
                link.fill(min(until - now, 0.05) if not link.is_logged_out else until - now)
            elif link.lost is not None:
                self.connect()
            else:
                link.fill()
