"""What the tests of the asyncio client share: a loop in which nothing may be left, and a broker
that is played."""

from __future__ import annotations

import asyncio
import gc
import time
import unittest
import warnings
from collections.abc import Awaitable, Callable
from typing import Any

from client_support import TIMEOUT
from isect import _tables as t
from isect._errors import error
from isect._wire import Header, Inbox, Lines, frame


class Peer:
    """One connection to the broker that is played."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.inbox = Inbox(t.BODY_BYTES_MAX)
        self.login = Lines()

    async def take(self) -> tuple[Header, bytes]:
        """The next frame of the client that is no ping."""
        while True:
            found = self.inbox.take()
            if found is not None:
                return found
            data = await asyncio.wait_for(self.reader.read(65536), TIMEOUT)
            if not data:
                raise EOFError
            self.inbox.feed(data)

    async def take_until_end(self) -> list[tuple[Header, bytes]]:
        """All frames until the client closes."""
        found = []
        try:
            while True:
                found.append(await self.take())
        except (EOFError, ConnectionError):
            return found

    def send(self, *frames: bytes) -> None:
        """Sends frames, with one write."""
        self.writer.write(b"".join(frames))

    def answer(
        self, head: Header, body: bytes, more: int = 0, worker: int = 7, **rest: Any
    ) -> None:
        """Answers a request."""
        self.send(frame(t.DATA, body, sequence=head.sequence, more=more,
                        workerid=worker if more else 0, **rest))

    def refuse(self, sequence: int, name: str, text: str = "text", ran: str | None = None) -> None:
        """Sends an error."""
        row = error(name, text)
        lines = Lines([("code", str(row.code)), ("name", name), ("ran", ran or row.ran)], text)
        self.send(frame(t.ERROR, lines.bytes(), sequence=sequence, error=row.code))

    def reset(self) -> None:
        """Ends the connection without a goodbye."""
        self.writer.transport.abort()


class FakeBroker:
    """A broker that is played: it answers the ping that looks for a broker, and logins, and hands
    each connection to the test."""

    def __init__(self, limits: str = "") -> None:
        self.limits = ("client 1\nbody_bytes_max 1000\nrequests_max 4\ndeadline_ms 20000\n"
                       "silence_ms 30000\n") if not limits else limits
        self.peers: asyncio.Queue[Peer] = asyncio.Queue()
        self.address = ""
        self.server: asyncio.base_events.Server | None = None
        self.logins = 0
        #: Error with which each login is refused.
        self.refusal = ""
        self.all: list[Peer] = []

    async def start(self, port: int = 0) -> None:
        """Listens."""
        self.server = await asyncio.start_server(self._serve, "127.0.0.1", port)
        host, port = self.server.sockets[0].getsockname()[:2]
        self.address = f"{host}:{port}"

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = Peer(reader, writer)
        self.all.append(peer)
        try:
            head, body = await peer.take()
            if head.command == t.PING:
                peer.send(frame(t.PONG, sequence=head.sequence))
                head, body = await peer.take()
            self.logins += 1
            peer.login = Lines.parse(body)
            if self.refusal:
                peer.refuse(0, self.refusal)
                writer.close()
                return
            peer.send(frame(t.LOGIN_OK, self.limits.encode()))
            self.peers.put_nowait(peer)
        except (EOFError, ConnectionError):
            writer.close()

    async def peer(self) -> Peer:
        """The next connection that has logged in."""
        return await asyncio.wait_for(self.peers.get(), TIMEOUT)

    async def stop(self) -> None:
        """Listens no more, and drops all connections."""
        if self.server is not None:
            self.server.close()
            for peer in self.all:
                peer.writer.transport.abort()
            await self.server.wait_closed()


class AioCase(unittest.IsolatedAsyncioTestCase):
    """A test in a loop, in which a warning is an error and nothing may be left."""

    def setUp(self) -> None:
        self.caught = warnings.catch_warnings()
        self.caught.__enter__()
        warnings.simplefilter("error")
        self.unhandled: list[dict[str, Any]] = []

    async def asyncSetUp(self) -> None:
        loop = asyncio.get_running_loop()
        loop.slow_callback_duration = TIMEOUT
        loop.set_exception_handler(
            lambda loop, context: self.unhandled.append(context))

    async def asyncTearDown(self) -> None:
        # What nobody holds any more says what is wrong with it.
        gc.collect()
        await asyncio.sleep(0)
        others = {task for task in asyncio.all_tasks() if task is not asyncio.current_task()
                  and "_serve" not in repr(task) and "_asyncioLoopRunner" not in repr(task)}
        self.assertEqual(others, set())
        self.assertEqual(self.unhandled, [])

    def tearDown(self) -> None:
        self.caught.__exit__(None, None, None)

    async def played(self, limits: str = "") -> FakeBroker:
        """A broker that is played."""
        fake = FakeBroker(limits)
        await fake.start()
        self.addAsyncCleanup(fake.stop)
        return fake

    async def eventually(self, what: Callable[[], Any]) -> Any:
        """Waits until this is true."""
        until = time.monotonic() + TIMEOUT
        while not (found := what()):
            self.assertLess(time.monotonic(), until, "it does not come")
            await asyncio.sleep(0.005)
        return found

    async def within(self, what: Awaitable[Any]) -> Any:
        """Awaits this, with a limit."""
        return await asyncio.wait_for(what, TIMEOUT)
