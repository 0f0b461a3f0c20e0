"""The asyncio client against a broker that is played: faults, losses, cancelling, and the end."""

from __future__ import annotations

import asyncio
import os
import random
import socket
import subprocess
import sys
import textwrap
import threading
import unittest
from pathlib import Path
from typing import Any

from aio_support import AioCase, Peer
from isect import _context, aio
from isect import _tables as t
from isect._errors import (ConnectionFailed, DeadlineExceeded, ForkedError, IsectError, Refused,
                           UsageError, WorkerFailed)
from isect._wire import Lines, frame

NO_SILENCE = "client 1\nbody_bytes_max 1000\nrequests_max 4\ndeadline_ms 20000\n"


class Requests(AioCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.fake = await self.played()
        self.broker = await aio.connect(self.fake.address, timeout=2)
        self.addAsyncCleanup(self.broker.close)

    async def begun(self, body: bytes = b"x", **options: Any) -> tuple[Any, Peer, Any]:
        """A request that the broker has."""
        future = self.broker.submit("s", body, **options)
        peer = await self.fake.peer()
        head, got = await peer.take()
        self.assertEqual(got, body)
        return future, peer, head

    async def test_the_login_and_the_request_say_what_was_asked(self) -> None:
        async with aio.connect(self.fake.address, name="tour", priority=7) as broker:
            future = broker.submit("s", "é", timeout=1.5, idempotent=True, extendable=True,
                                   priority=9, trace_id="01" * 16, span_id=3)
            peer = await self.fake.peer()
            self.assertEqual([peer.login.get(key) for key in ("service", "name", "priority",
                                                              "heartbeat")],
                             ["s", "tour", "7", ""])
            self.assertEqual(peer.login.number("hostpid"), os.getpid())
            head, body = await peer.take()
            self.assertTrue(1000 < head.deadline_ms <= 1500)
            self.assertEqual((head.reply, head.flags, head.priority, head.trace_id, head.span_id,
                              body), (1, 3, 9, b"\1" * 16, 3, "é".encode()))
            peer.answer(head, b"y")
            self.assertEqual(await future, b"y")
            for wrong in ({"priority": 256}, {"span_id": -1}, {"trace_id": b"x"}):
                with self.assertRaises(UsageError):
                    broker.submit("s", b"", **wrong)

    async def test_the_trace_of_the_request_in_hand_is_handed_on(self) -> None:
        class InHand:
            trace_id = b"t" * 16
            span_id = 5

            def remaining(self) -> float | None:
                return 3.0

        token = _context.current.set(InHand())
        try:
            futures = [self.broker.submit("s", b"", timeout=9),
                       self.broker.submit("s", b"", trace_id=b"u" * 16, span_id=6)]
            stream = self.broker.stream("s", b"")
        finally:
            _context.current.reset(token)
        peer = await self.fake.peer()
        heads = [(await peer.take())[0] for _ in range(3)]
        self.assertEqual([(head.trace_id[:1], head.span_id) for head in heads],
                         [(b"t", 5), (b"u", 6), (b"t", 5)])
        self.assertTrue(all(2000 < head.deadline_ms <= 3000 for head in heads))
        for future in futures:
            future.cancel()
        await stream.aclose()

    async def test_groups_and_timeouts_of_the_standard_library(self) -> None:
        limit: Any = getattr(asyncio, "timeout", None)
        make_group: Any = getattr(asyncio, "TaskGroup", None)
        if limit is None:
            self.skipTest("this Python has no TaskGroup")
        with self.assertRaises(TimeoutError):
            async with limit(0.02):
                await self.broker.call("s", b"1")
        peer = await self.fake.peer()
        with self.assertRaises(BaseException) as caught:
            async with make_group() as group:
                group.create_task(self.broker.call("s", b"2"))
                group.create_task(self.broker.call("s", b"3"))
                heads = {body: head for head, body in [await peer.take() for _ in range(4)]}
                peer.refuse(heads[b"3"].sequence, "overloaded")
        self.assertEqual([type(one) for one in caught.exception.exceptions],  # type: ignore
                         [Refused])
        cancels = [(await peer.take())[0] for _ in range(1)]
        self.assertEqual([(head.command, head.sequence) for head in cancels],
                         [(t.CANCEL, heads[b"2"].sequence)])

    async def test_eager_tasks(self) -> None:
        factory = getattr(asyncio, "eager_task_factory", None)
        if factory is None:
            self.skipTest("this Python has no eager tasks")
        loop = asyncio.get_running_loop()
        loop.set_task_factory(factory)
        try:
            for reconnect in (True, False):
                async with aio.connect("unix:/nonexistent/socket", verify=False, timeout=0.05,
                                       reconnect=reconnect) as broker:
                    for _ in range(2):
                        with self.assertRaises(ConnectionFailed):
                            await broker.call("s", b"")
            task = loop.create_task(self.broker.call("s", b"x"))
            peer = await self.fake.peer()
            head, _ = await peer.take()
            peer.answer(head, b"y")
            self.assertEqual(await task, b"y")
        finally:
            loop.set_task_factory(None)

    async def test_pieces_of_an_answer_are_joined(self) -> None:
        future, peer, head = await self.begun()
        for piece in (b"a", b"", b"bc"):
            peer.answer(head, piece, more=1)
        peer.answer(head, b"d")
        self.assertEqual(await future, b"abcd")

    async def test_an_answer_that_is_too_long_is_given_up(self) -> None:
        async with aio.connect(self.fake.address, reply_bytes_max=1000) as broker:
            future = broker.submit("s", b"")
            peer = await self.fake.peer()
            head, _ = await peer.take()
            peer.answer(head, bytes(600), more=1)
            peer.answer(head, bytes(600), more=1)
            with self.assertRaises(IsectError) as caught:
                await future
            self.assertEqual((caught.exception.name, caught.exception.ran),
                             ("body_too_large", "yes"))
            cancel, _ = await peer.take()
            self.assertEqual((cancel.command, cancel.sequence), (t.CANCEL, head.sequence))

    async def test_a_worker_may_fail_after_pieces(self) -> None:
        future, peer, head = await self.begun()
        peer.answer(head, b"a", more=1)
        peer.answer(head, b"why", error=7)
        with self.assertRaises(WorkerFailed) as caught:
            await future
        self.assertEqual((caught.exception.code, caught.exception.text), (7, "why"))

    async def test_a_cancelled_request_is_given_up_and_its_answer_goes_nowhere(self) -> None:
        future, peer, head = await self.begun()
        future.cancel()
        cancel, _ = await peer.take()
        self.assertEqual((cancel.command, cancel.sequence), (t.CANCEL, head.sequence))
        other = self.broker.submit("s", b"2")
        second, _ = await peer.take()
        self.assertNotEqual(second.sequence, head.sequence)
        peer.answer(head, b"late")
        peer.refuse(head.sequence, "cancelled")
        peer.answer(second, b"right")
        self.assertEqual(await other, b"right")
        with self.assertRaises(asyncio.CancelledError):
            await future

    async def test_more_than_the_connection_allows_wait_in_order(self) -> None:
        futures = [self.broker.submit("s", b"%d" % number, timeout=10) for number in range(7)]
        peer = await self.fake.peer()
        first = [await peer.take() for _ in range(4)]
        self.assertEqual([body for _, body in first], [b"0", b"1", b"2", b"3"])
        futures[5].cancel()
        brief = self.broker.submit("s", b"brief", timeout=0.02)
        with self.assertRaises(DeadlineExceeded) as caught:
            await brief
        self.assertEqual((caught.exception.name, caught.exception.ran), ("timeout", "no"))
        peer.answer(first[1][0], b"a")
        head, body = await peer.take()
        self.assertEqual(body, b"4")
        self.assertLess(head.deadline_ms, 10_000)
        peer.answer(first[0][0], b"b")
        self.assertEqual((await peer.take())[1], b"6")
        self.assertEqual([await futures[1], await futures[0]], [b"a", b"b"])
        for future in futures:
            future.cancel()

    async def test_many_that_wait_are_given_up_in_any_order(self) -> None:
        opening, peer, head = await self.begun()
        peer.answer(head, b"")
        await opening
        futures = [self.broker.submit("s", b"%d" % number, timeout=60) for number in range(5_000)]
        first = [await peer.take() for _ in range(4)]
        link = self.broker._links["s"]
        keeps = futures[-3]
        for future in reversed(futures[4:]):
            if future is not keeps:
                future.cancel()
        self.assertLess(len(link.waiting), 10)
        stream = self.broker.stream("s", b"never")
        await stream.aclose()
        peer.answer(first[0][0], b"")
        head, body = await peer.take()
        self.assertEqual(body, b"4997")
        peer.answer(head, b"kept")
        self.assertEqual(await keeps, b"kept")
        peer.send(frame(t.PING, sequence=5))
        self.assertEqual((await peer.take())[0].command, t.PONG)
        for future in futures[:4]:
            future.cancel()

    async def test_the_end_of_one_that_times_out_makes_room(self) -> None:
        first, peer, head = await self.begun()
        peer.answer(head, b"")
        await first
        futures = [self.broker.submit("s", b"%d" % number, timeout=0.01) for number in range(4)]
        last = self.broker.submit("s", b"last", timeout=10)
        for _ in range(4):
            await peer.take()
        for future in futures:
            with self.assertRaises(DeadlineExceeded) as caught:
                await self.within(future)
            self.assertEqual((caught.exception.name, caught.exception.ran), ("timeout", "maybe"))
        got = [await peer.take() for _ in range(5)]
        self.assertEqual(sorted(head.command for head, _ in got), [t.DATA] + [t.CANCEL] * 4)
        data = [head for head, _ in got if head.command == t.DATA]
        peer.answer(data[0], b"there")
        self.assertEqual(await last, b"there")

    async def test_an_extendable_request_waits_as_its_worker_says(self) -> None:
        future, peer, head = await self.begun(timeout=0.05, extendable=True)
        peer.answer(head, b"a", more=1, deadline_ms=10_000)
        await asyncio.sleep(0.8)
        self.assertFalse(future.done())
        peer.answer(head, b"b")
        self.assertEqual(await future, b"ab")

    async def test_pings_are_answered(self) -> None:
        future, peer, head = await self.begun()
        peer.send(frame(t.PING, sequence=77))
        pong, _ = await peer.take()
        self.assertEqual((pong.command, pong.sequence), (t.PONG, 77))
        peer.answer(head, b"")
        self.assertEqual(await future, b"")

    async def test_bytes_in_any_pieces(self) -> None:
        future, peer, head = await self.begun()
        for byte in frame(t.DATA, b"body", sequence=head.sequence):
            peer.send(bytes([byte]))
            await asyncio.sleep(0)
        self.assertEqual(await future, b"body")

    async def test_a_turn_of_the_loop_is_one_write(self) -> None:
        future, peer, head = await self.begun()
        writes: list[int] = []
        link = self.broker._links["s"]
        assert link.transport is not None
        plain = link.transport.write

        def write(data: Any) -> None:
            writes.append(len(data))
            plain(data)

        link.transport.write = write  # type: ignore[method-assign]
        others = [self.broker.submit("s", b"x") for _ in range(3)]
        await asyncio.sleep(0)
        self.assertEqual(len(writes), 1)
        for other in (future, *others):
            other.cancel()

    async def test_a_body_that_is_too_large_fails_alone(self) -> None:
        future, peer, head = await self.begun()
        with self.assertRaises(Refused):
            await self.broker.call("s", bytes(1001))
        peer.answer(head, b"y")
        self.assertEqual(await future, b"y")

    async def test_a_stream_is_given_up_when_it_is_left(self) -> None:
        async def reads_one() -> None:
            async for piece in self.broker.stream("s", b"x"):
                self.assertEqual(piece, b"a")
                break

        task = asyncio.ensure_future(reads_one())
        peer = await self.fake.peer()
        head, _ = await peer.take()
        peer.answer(head, b"a", more=1)
        cancel, _ = await peer.take()
        self.assertEqual((cancel.command, cancel.sequence), (t.CANCEL, head.sequence))
        peer.answer(head, b"b", more=1)
        await task

    async def test_a_stream_raises_behind_its_pieces(self) -> None:
        stream = self.broker.stream("s", b"x")
        peer = await self.fake.peer()
        head, _ = await peer.take()
        peer.answer(head, b"a", more=1)
        peer.refuse(head.sequence, "worker_died")
        got = []
        with self.assertRaises(IsectError) as caught:
            async for piece in stream:
                got.append(piece)
        self.assertEqual((got, caught.exception.name), ([b"a"], "worker_died"))

    async def test_an_unread_stream_holds_the_broker_back(self) -> None:
        self.fake.limits = self.fake.limits.replace("body_bytes_max 1000", "body_bytes_max 2000000")
        stream = self.broker.stream("s", b"x")
        peer = await self.fake.peer()
        head, _ = await peer.take()
        link = self.broker._links["s"]
        sent = 0

        async def sends() -> None:
            nonlocal sent
            for _ in range(60):
                peer.answer(head, bytes(1 << 20), more=1)
                await peer.writer.drain()
                sent += 1
            peer.answer(head, b"")

        task = asyncio.ensure_future(sends())
        await self.eventually(lambda: not link.is_reading)
        self.assertLess(sent, 40)
        # Another request goes on all the same.
        other = self.broker.submit("s", b"y")
        second, _ = await peer.take()
        peer.answer(second, b"z")
        self.assertEqual(await self.within(other), b"z")
        size = 0
        async for piece in stream:
            size += len(piece)
        await task
        self.assertEqual(size, 60 << 20)

    async def test_a_conversation_names_its_worker(self) -> None:
        async with self.broker.converse("s", b"1") as talk:
            peer = await self.fake.peer()
            head, _ = await peer.take()
            self.assertEqual(head.more, 0)
            with self.assertRaises(Refused):
                await talk.send(b"too early")
            peer.answer(head, b"a", more=1, worker=9)
            self.assertEqual(await talk.receive(5), b"a")
            await talk.send(b"2")
            further, body = await peer.take()
            self.assertEqual((further.sequence, further.workerid, further.more, body),
                             (head.sequence, 9, 0, b"2"))
            waits = asyncio.ensure_future(talk.receive())
            await asyncio.sleep(0)
            waits.cancel()
            await asyncio.wait([waits])
            peer.answer(head, b"b", more=1, worker=9)
            self.assertEqual(await talk.receive(5), b"b")
        cancel, _ = await peer.take()
        self.assertEqual(cancel.command, t.CANCEL)

    async def test_the_rest_of_a_request_in_pieces_is_closed(self) -> None:
        async def endless() -> Any:
            while True:
                yield b"p"
                await asyncio.sleep(0.001)

        task = asyncio.ensure_future(self.broker.send_pieces("s", endless()))
        peer = await self.fake.peer()
        head, _ = await peer.take()
        self.assertEqual((head.more, head.reply), (1, 1))
        peer.answer(head, b"enough")
        self.assertEqual(await self.within(task), b"enough")

        def broken() -> Any:
            yield b"1"
            yield b"2"
            raise KeyError("of the program")

        with self.assertRaises(KeyError):
            await self.broker.send_pieces("s", broken())
        await self.broker.close()
        last: dict[int, int] = {}
        for one, _ in await peer.take_until_end():
            if one.command == t.DATA:
                last[one.sequence] = one.more
        self.assertEqual(set(last.values()), {0})

    async def test_what_no_pieces_are_raises_before_anything_is_sent(self) -> None:
        with self.assertRaises(UsageError):
            await self.broker.send_pieces("s", [7])  # type: ignore[list-item]

    async def test_flush_counts(self) -> None:
        await self.broker.send("s", b"1")
        peer = await self.fake.peer()
        head, _ = await peer.take()
        self.assertEqual(head.reply, 0)
        waits = asyncio.ensure_future(self.broker.flush())
        flush, _ = await peer.take()
        self.assertEqual(flush.command, t.FLUSH)
        lines = Lines([("flush", str(flush.sequence)), ("refused", "3")])
        peer.send(frame(t.FLUSHED, lines.bytes()))
        self.assertEqual(await waits, 3)
        await self.broker.send("s", b"2")
        with self.assertRaises(DeadlineExceeded):
            await self.broker.flush(0.01)
        await self.broker.send("s", b"3")
        peer.reset()
        await self.eventually(lambda: self.broker._links["s"].transport is None)
        with self.assertRaises(ConnectionFailed):
            await self.broker.flush(5)
        self.assertEqual(await self.broker.flush(5), 0)

    async def test_the_program_s_own_close_ends_what_is_under_way(self) -> None:
        future, peer, head = await self.begun()
        stream = self.broker.stream("s", b"y")
        await self.broker.close()
        with self.assertRaises(ConnectionFailed):
            await future
        with self.assertRaises(ConnectionFailed):
            await stream.__anext__()
        frames = await peer.take_until_end()
        self.assertEqual(frames[-1][0].command, t.LOGOUT)
        with self.assertRaises(UsageError):
            self.broker.submit("s", b"")
        with self.assertRaises(UsageError):
            self.broker.submit("other", b"")


class Losses(AioCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.fake = await self.played()

    async def test_only_what_is_safe_is_sent_again(self) -> None:
        async with aio.connect(self.fake.address) as broker:
            plain = broker.submit("s", b"plain", timeout=10)
            safe = broker.submit("s", b"safe", timeout=10, idempotent=True)
            more = [broker.submit("s", b"%d" % number, timeout=10) for number in range(4)]
            peer = await self.fake.peer()
            heads = [await peer.take() for _ in range(4)]
            peer.answer(heads[1][0], b"half", more=1)
            await self.eventually(lambda: safe.pieces)  # type: ignore[attr-defined]
            peer.reset()
            with self.assertRaises(ConnectionFailed) as caught:
                await plain
            self.assertEqual((caught.exception.name, caught.exception.ran),
                             ("broker_lost", "maybe"))
            peer = await self.fake.peer()
            got = [await peer.take() for _ in range(3)]
            # `safe` again, then those that had waited, in their order.
            self.assertEqual([body for _, body in got], [b"safe", b"2", b"3"])
            for head, body in got:
                peer.answer(head, body * 2)
            self.assertEqual(await safe, b"safesafe")
            self.assertEqual(await asyncio.gather(*more[2:]), [b"22", b"33"])
            for lost in more[:2]:
                with self.assertRaises(ConnectionFailed):
                    await lost

    async def test_what_never_left_is_sent_again(self) -> None:
        async with aio.connect(self.fake.address) as broker:
            first = broker.submit("s", b"first")
            peer = await self.fake.peer()
            await peer.take()
            second = broker.submit("s", b"second", timeout=10)
            # Made, and not written: the turn has not ended.
            link = broker._links["s"]
            assert link.transport is not None and link.out
            link.transport.abort()
            link.connection_lost(None)
            with self.assertRaises(ConnectionFailed):
                await first
            peer = await self.fake.peer()
            head, body = await peer.take()
            self.assertEqual(body, b"second")
            peer.answer(head, b"ok")
            self.assertEqual(await second, b"ok")

    async def test_that_it_may_have_run_is_not_forgotten(self) -> None:
        async with aio.connect(self.fake.address, timeout=0.2) as broker:
            future = broker.submit("s", b"x", idempotent=True, timeout=0.3)
            peer = await self.fake.peer()
            await peer.take()
            assert self.fake.server is not None
            self.fake.server.close()
            peer.reset()
            with self.assertRaises(ConnectionFailed) as caught:
                await future
            self.assertEqual((caught.exception.name, caught.exception.ran),
                             ("unreachable", "maybe"))

    async def test_bytes_that_are_no_frame_end_the_connection(self) -> None:
        for garbage in (b"HTTP/1.1 400 Bad Request\r\n" + bytes(64), frame(t.LOGIN_OK, b"x"),
                        frame(t.PUBLISHED, b"\xff"), frame(t.FLUSHED, b"flush " + b"9" * 30),
                        frame(t.END), bytes(200), b"\xff" * 200):
            async with aio.connect(self.fake.address) as broker:
                future = broker.submit("s", b"x")
                peer = await self.fake.peer()
                await peer.take()
                peer.send(garbage)
                with self.assertRaises(ConnectionFailed) as caught:
                    await self.within(future)
                self.assertEqual(caught.exception.ran, "maybe")
                future = broker.submit("s", b"y", timeout=10)
                peer = await self.fake.peer()
                head, _ = await peer.take()
                peer.answer(head, b"fine")
                self.assertEqual(await future, b"fine")

    async def test_a_refused_login_is_told_at_once(self) -> None:
        async with aio.connect(self.fake.address) as broker:
            for name in ("unknown_service", "bad_token", "denied"):
                self.fake.refusal = name
                with self.assertRaises(IsectError) as caught:
                    await broker.call("s", b"", timeout=10)
                self.assertEqual((caught.exception.name, caught.exception.ran), (name, "no"))
                with self.assertRaises(IsectError):
                    await broker.subscribe("a.b")
            self.fake.refusal = "rejecting"
            with self.assertRaises(IsectError) as caught:
                await broker.call("s", b"", timeout=0.1)
            self.assertEqual((caught.exception.name, caught.exception.ran), ("rejecting", "no"))
            self.fake.refusal = ""
            waits = broker.submit("s", b"x", timeout=10)
            peer = await self.fake.peer()
            head, _ = await peer.take()
            peer.answer(head, b"in")
            self.assertEqual(await waits, b"in")

    async def test_a_broker_that_does_not_answer_the_login(self) -> None:
        async def silent(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            head = await reader.read(64)
            if head[12:14] == b"\0\6":
                writer.write(frame(t.PONG, sequence=1))
            await reader.read()
            writer.close()

        server = await asyncio.start_server(silent, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()[:2]
        async with server:
            async with aio.connect(f"{host}:{port}", timeout=0.1, reconnect=False) as broker:
                with self.assertRaises(ConnectionFailed) as caught:
                    await broker.call("s", b"")
                self.assertIn("did not answer the login", caught.exception.text)

    async def test_nobody_listens(self) -> None:
        await self.fake.stop()
        for connecting in (aio.connect(self.fake.address), aio.connect("unix:/nonexistent/socket"),
                           aio.connect([self.fake.address, "unix:/nonexistent/socket"])):
            with self.assertRaises(ConnectionFailed) as caught:
                await connecting
            self.assertEqual((caught.exception.name, caught.exception.ran), ("unreachable", "no"))
        free = socket.socket()
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
        with free, self.assertRaises(ConnectionFailed) as caught:
            await aio.connect(address)
        self.assertIn(f"{address}: Connection refused (", str(caught.exception))
        async with aio.connect(self.fake.address, verify=False, timeout=0.1) as broker:
            for timeout in (None, 0.05):
                with self.assertRaises(ConnectionFailed) as caught:
                    await broker.call("s", b"", timeout=timeout)
                self.assertEqual(caught.exception.name, "unreachable")
            with self.assertRaises(ConnectionFailed):
                await broker.subscribe("a")
            with self.assertRaises(ConnectionFailed):
                await broker.announce("a")
            with self.assertRaises(ConnectionFailed):
                await broker.publish("a")
            with self.assertRaises(ConnectionFailed):
                await broker.send("s", b"")
            with self.assertRaises(ConnectionFailed):
                async for _ in broker.stream("s", b""):
                    pass

    async def test_something_else_listens(self) -> None:
        async def other(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"SSH-2.0-OpenSSH_9.6\r\n" * 10)
            await reader.read(10)
            writer.close()

        async def closes(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.close()

        for serve in (other, closes):
            server = await asyncio.start_server(serve, "127.0.0.1", 0)
            async with server:
                host, port = server.sockets[0].getsockname()[:2]
                with self.assertRaises(ConnectionFailed) as caught:
                    await aio.connect(f"{host}:{port}")
                self.assertEqual(caught.exception.name, "unreachable")

    async def test_a_silent_broker_is_pinged_and_then_gone(self) -> None:
        self.fake.limits = NO_SILENCE + "silence_ms 200\n"
        async with aio.connect(self.fake.address) as broker:
            future = broker.submit("s", b"x", timeout=10)
            peer = await self.fake.peer()
            head, _ = await peer.take()
            ping, _ = await peer.take()
            self.assertEqual(ping.command, t.PING)
            peer.send(frame(t.PONG, sequence=ping.sequence))
            ping, _ = await peer.take()
            self.assertEqual(ping.command, t.PING)
            with self.assertRaises(ConnectionFailed) as caught:
                await future
            self.assertIn("silent", caught.exception.text)

    async def test_a_broker_that_takes_nothing_holds_requests_back(self) -> None:
        self.fake.limits = ("client 1\nbody_bytes_max 1000000\nrequests_max 1000\n"
                            "deadline_ms 20000\n")
        async with aio.connect(self.fake.address) as broker:
            first = broker.submit("s", b"x")
            peer = await self.fake.peer()
            await peer.take()
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            futures = []
            link = broker._links["s"]
            while link.is_ready:
                futures.append(broker.submit("s", bytes(900_000), timeout=10))
                await asyncio.sleep(0)
            behind = broker.submit("s", b"behind", timeout=0.05)
            with self.assertRaises(DeadlineExceeded) as caught:
                await behind
            self.assertEqual(caught.exception.ran, "no")
            self.assertIn("took nothing", caught.exception.text)
            sends = asyncio.ensure_future(broker.send("s", b"told"))
            publishes = asyncio.ensure_future(broker.send_pieces("s", [b"1", b"2"], timeout=10))
            await asyncio.sleep(0.01)
            self.assertFalse(sends.done())
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            for _ in futures:
                head, _ = await peer.take()
                peer.answer(head, b"")
            await asyncio.gather(*futures)
            await self.within(sends)
            publishes.cancel()
            first.cancel()
            await broker.close(flush_timeout=0)

    async def test_a_close_whose_flush_has_no_answer_says_so(self) -> None:
        broker = await aio.connect(self.fake.address)
        sends = asyncio.ensure_future(broker.send("s", b""))
        await self.fake.peer()
        await self.within(sends)
        with self.assertRaises(UsageError):
            await broker.close(flush_timeout=float("nan"))
        with self.assertLogs("isect.aio", "WARNING"):
            await self.within(broker.close(flush_timeout=0.05))
        await broker.close()
        with self.assertRaises(UsageError):
            await broker.call("s", b"")

    async def test_a_program_that_never_lets_the_loop_turn_is_held_back(self) -> None:
        async with aio.connect(self.fake.address) as broker:
            first = asyncio.ensure_future(broker.publish("a", b"x"))
            peer = await self.fake.peer()
            await first
            peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
            link = broker._links["bus"]

            async def floods() -> None:
                while True:
                    await broker.publish("a", bytes(900))

            task = asyncio.ensure_future(floods())
            await self.eventually(lambda: link.is_paused)
            assert link.transport is not None
            self.assertLess(link.transport.get_write_buffer_size(), 1 << 20)
            task.cancel()
            peer.writer.transport.resume_reading()  # type: ignore[attr-defined]
            reads = asyncio.ensure_future(peer.take_until_end())
            await self.eventually(lambda: not link.is_paused)
            await broker.close(flush_timeout=0)
        self.assertEqual((await self.within(reads))[-1][0].command, t.LOGOUT)

    async def test_an_attempt_that_is_cancelled_ends_at_any_moment(self) -> None:
        for turns in range(60):
            for address in ("unix:/nonexistent/socket", self.fake.address):
                broker = await aio.connect(address, verify=False)
                future = broker.submit("s", b"x")
                for _ in range(turns):
                    await asyncio.sleep(0)
                task = broker._links["s"].connecting
                if task is not None:
                    task.cancel()
                    await asyncio.wait([task], timeout=1)
                    self.assertTrue(task.done())
                future.cancel()
                await self.within(broker.close())

    async def test_a_connection_that_does_not_last_is_not_made_at_once_again(self) -> None:
        async with aio.connect(self.fake.address) as broker:
            waits = asyncio.ensure_future(broker.subscribe("a")._open())
            peers = 0
            until = asyncio.get_running_loop().time() + 0.5
            while (left := until - asyncio.get_running_loop().time()) > 0:
                try:
                    peer = await asyncio.wait_for(self.fake.peers.get(), left)
                except asyncio.TimeoutError:
                    break
                peer.reset()
                peers += 1
            self.assertTrue(3 <= peers <= 12, peers)
            waits.cancel()


class Bus(AioCase):
    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.fake = await self.played()
        self.broker = await aio.connect(self.fake.address, timeout=5)
        self.addAsyncCleanup(self.broker.close, flush_timeout=0)

    def message(self, number: str, at: int, text: str, dropped: int = 0, more: int = 0) -> bytes:
        return frame(t.MESSAGE, f"topic a.b\n\n{text}".encode(), sequence=int(number),
                     transaction=at, attempt=dropped, more=more)

    async def subscribed(
        self, callback: Any = None, **options: Any
    ) -> tuple[aio.Subscription, Peer, str]:
        waits = asyncio.ensure_future(self.broker.subscribe("a.>", callback, **options)._open())
        peer = await self.fake.peer()
        _, body = await peer.take()
        number = Lines.parse(body).get("subscription")
        peer.send(frame(t.SUBSCRIBED, Lines([("subscription", number), ("at", "3:5")]).bytes()),
                  frame(t.CAUGHT_UP, Lines([("subscription", number)]).bytes()))
        return await waits, peer, number

    async def test_the_login_promises_to_answer_pings(self) -> None:
        _, peer, _ = await self.subscribed()
        self.assertEqual((peer.login.get("service"), peer.login.get("heartbeat")), ("bus", "yes"))

    async def test_tasks_share_a_subscription(self) -> None:
        subscription, peer, number = await self.subscribed()
        tasks = [asyncio.ensure_future(subscription.receive(10)) for _ in range(3)]
        await asyncio.sleep(0)
        tasks[1].cancel()
        peer.send(self.message(number, 6, "1"), self.message(number, 8, "2"))
        got = [await self.within(tasks[at]) for at in (0, 2)]
        self.assertEqual([one.text for one in got if one is not None], ["1", "2"])
        self.assertEqual(str(subscription.position), "3:8")

    async def test_a_cancelled_wait_loses_no_message(self) -> None:
        subscription, peer, number = await self.subscribed()
        for at in range(6, 30):
            task = asyncio.ensure_future(subscription.__anext__())
            await asyncio.sleep(0)
            link = self.broker._links["bus"]
            # It comes, and the task is cancelled in the same turn.
            link.data_received(self.message(number, at, str(at)))
            task.cancel()
            try:
                message = await task
            except asyncio.CancelledError:
                message = await self.within(subscription.__anext__())
            self.assertEqual(message.text, str(at))

    async def test_what_was_dropped_is_counted(self) -> None:
        subscription, peer, number = await self.subscribed(queue_max=2)
        peer.send(*[self.message(number, at, str(at)) for at in range(6, 11)])
        topic = self.broker._links["bus"].session._topics[int(number)]
        await self.eventually(lambda: topic._received == (3, 10))
        got = [await self.within(subscription.__anext__()) for _ in range(2)]
        self.assertEqual([(one.text, one.dropped) for one in got], [("9", 3), ("10", 0)])

    async def test_it_goes_on_after_a_loss_where_it_was(self) -> None:
        got: list[str] = []
        events: list[str] = []
        subscription, peer, number = await self.subscribed(lambda message: got.append(message.text))
        subscription.on_event = lambda event: events.append(type(event).__name__)
        peer.send(self.message(number, 7, "one"))
        await self.eventually(lambda: got)
        peer.reset()
        peer = await self.fake.peer()
        head, body = await peer.take()
        self.assertEqual((head.command, Lines.parse(body).get("from")), (t.SUBSCRIBE, "3:7"))
        peer.send(frame(t.SUBSCRIBED, Lines([("subscription", number), ("at", "4:2"),
                                             ("missing", "epoch")]).bytes()),
                  frame(t.CAUGHT_UP, Lines([("subscription", number)]).bytes()),
                  self.message(number, 3, "two"))
        await self.eventually(lambda: len(got) == 2)
        self.assertEqual(got, ["one", "two"])
        self.assertEqual(events, ["Lost", "Resumed", "Missing", "CaughtUp"])
        assert subscription.missing is not None
        self.assertTrue(subscription.missing.is_restart)
        await subscription.close()
        await subscription.close()
        self.assertEqual((await peer.take())[0].command, t.UNSUBSCRIBE)
        peer.send(self.message(number, 4, "late"))
        with self.assertRaises(IsectError):
            await subscription.receive(1)
        self.assertEqual(got, ["one", "two"])

    async def test_a_refused_subscription(self) -> None:
        waits = asyncio.ensure_future(self.broker.subscribe("a.>")._open())
        peer = await self.fake.peer()
        _, body = await peer.take()
        peer.refuse(int(Lines.parse(body).get("subscription")), "limit_reached")
        with self.assertRaises(Refused):
            await waits
        with self.assertRaises(UsageError):
            self.broker.subscribe("a.>", self.fake.start)  # type: ignore[arg-type]

    async def test_a_subscription_ends_with_the_broker(self) -> None:
        subscription, peer, number = await self.subscribed()
        task = asyncio.ensure_future(self.gathered(subscription))
        peer.send(self.message(number, 6, "1"))
        await asyncio.sleep(0.01)
        await self.broker.close()
        self.assertEqual(await self.within(task), ["1"])

    @staticmethod
    async def gathered(subscription: aio.Subscription) -> list[str]:
        return [message.text async for message in subscription]

    async def test_a_lost_publish_may_have_been_published(self) -> None:
        waits = asyncio.ensure_future(self.broker.publish("a", b"x", wait=True))
        peer = await self.fake.peer()
        head, body = await peer.take()
        self.assertEqual((head.command, head.reply, body), (t.PUBLISH, 1, b"topic a\n\nx"))
        peer.reset()
        with self.assertRaises(ConnectionFailed) as caught:
            await waits
        self.assertEqual(caught.exception.ran, "maybe")
        await self.broker.publish("a", b"z")
        peer = await self.fake.peer()
        peer.reset()
        await self.eventually(lambda: self.broker._links["bus"].transport is None)
        with self.assertRaises(ConnectionFailed) as caught:
            await self.broker.sync_bus()
        self.assertEqual(caught.exception.ran, "maybe")
        peer_waits = asyncio.ensure_future(self.broker.publish("a", b"y", wait=True))
        peer = await self.fake.peer()
        head, body = await peer.take()
        self.assertEqual(body, b"topic a\n\ny")
        lines = Lines([("publish", str(head.sequence)), ("at", "1:6"), ("subscriptions", "2")])
        peer.send(frame(t.PUBLISHED, lines.bytes()))
        receipt = await peer_waits
        assert receipt is not None
        self.assertEqual((str(receipt.position), receipt.subscriptions), ("1:6", 2))

    async def announced(self, peer: Peer, beat_ms: int) -> Lines:
        head, body = await peer.take()
        self.assertEqual(head.command, t.ANNOUNCE)
        asked = Lines.parse(body)
        peer.send(frame(t.ANNOUNCED, Lines(
            [("sequence", asked.get("sequence")), ("id", asked.get("id")), ("incarnation", "4"),
             ("beat_ms", str(beat_ms)), ("activity_timeout_ms", "9000")]).bytes()))
        return asked

    async def test_only_the_program_s_own_calls_beat(self) -> None:
        waits = asyncio.ensure_future(self.broker.announce("loop", id=9, state=101)._open())
        peer = await self.fake.peer()
        asked = await self.announced(peer, 60)
        self.assertEqual((asked.get("name"), asked.get("id"), asked.get("state")),
                         ("loop", "9", "101"))
        instance = await waits
        self.assertEqual((instance.incarnation, self.broker.beat_every), (4, 0.06))
        await asyncio.sleep(0.15)
        instance.checkpoint(41)
        instance.checkpoint()
        self.assertFalse(self.broker.beat_if_due())
        head, body = await peer.take()
        self.assertEqual((head.command, Lines.parse(body).get("instance")), (t.BEAT, "9 41"))
        await asyncio.sleep(0.08)
        instance.idle()
        head, body = await peer.take()
        self.assertEqual(Lines.parse(body).get("instance"), "9 42 idle")
        await instance.set_state("stopping", "soon")
        head, body = await peer.take()
        self.assertEqual((head.command, Lines.parse(body).text), (t.STATE_CHANGE, "soon"))
        # The next connection announces it again, with its state.
        peer.reset()
        peer = await self.fake.peer()
        self.assertEqual((await self.announced(peer, 60)).get("state"), "stopping")
        self.assertEqual((await peer.take())[0].command, t.STATE_CHANGE)
        await instance.withdraw("done", failed=True)
        head, body = await peer.take()
        lines = Lines.parse(body)
        self.assertEqual((head.command, lines.get("failed"), lines.text),
                         (t.WITHDRAW, "yes", "done"))


class Cancelling(AioCase):
    """Whatever a task is at when it is cancelled, no answer reaches another one."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.fake = await self.played("client 1\nbody_bytes_max 100000\nrequests_max 8\n"
                                      "deadline_ms 20000\n")
        self.serving = asyncio.ensure_future(self.serve())
        self.random = random.Random(7)

    async def asyncTearDown(self) -> None:
        self.serving.cancel()
        await asyncio.wait([self.serving])
        await super().asyncTearDown()

    async def serve(self) -> None:
        """Answers each request with its body, late and in another order, also those that were
        given up."""
        tasks = []
        while True:
            peer = await self.fake.peers.get()
            tasks.append(asyncio.ensure_future(self._serve(peer)))

    async def _serve(self, peer: Peer) -> None:
        held: list[tuple[Any, bytes]] = []
        bodies: dict[int, list[bytes]] = {}
        loop = asyncio.get_running_loop()

        def answers() -> None:
            self.random.shuffle(held)
            for one, whole in held:
                peer.answer(one, whole[:2], more=1)
                peer.answer(one, whole[2:])
            held.clear()

        try:
            while True:
                head, body = await peer.take()
                if head.command == t.DATA and head.reply:
                    bodies.setdefault(head.sequence, []).append(body)
                    if head.more:
                        peer.answer(head, b"", more=1)
                        continue
                    held.append((head, b"".join(bodies.pop(head.sequence))))
                    if len(held) == 1:
                        loop.call_later(self.random.choice((0, 0, 0.0003)), answers)
                elif head.command == t.SUBSCRIBE:
                    number = Lines.parse(body).get("subscription")
                    lines = Lines([("subscription", number), ("at", "1:5")])
                    peer.send(frame(t.SUBSCRIBED, lines.bytes()),
                              frame(t.CAUGHT_UP, Lines([("subscription", number)]).bytes()))
                elif head.command == t.UNSUBSCRIBE:
                    peer.send(frame(t.UNSUBSCRIBED, body))
                elif head.command == t.PUBLISH and head.reply:
                    lines = Lines([("publish", str(head.sequence)), ("at", "1:6")])
                    peer.send(frame(t.PUBLISHED, lines.bytes()))
                elif head.command == t.FLUSH:
                    peer.send(frame(t.FLUSHED, Lines([("flush", str(head.sequence))]).bytes()))
                elif head.command == t.ANNOUNCE:
                    asked = Lines.parse(body)
                    lines = Lines([("sequence", asked.get("sequence")), ("id", asked.get("id")),
                                   ("incarnation", "1"), ("beat_ms", "1000"),
                                   ("activity_timeout_ms", "9000")])
                    peer.send(frame(t.ANNOUNCED, lines.bytes()))
                elif head.command == t.LOGOUT:
                    peer.writer.close()
        except (EOFError, ConnectionError):
            peer.writer.close()

    async def operation(self, broker: aio.AsyncBroker, which: int) -> None:
        """Something that a program may be at."""
        if which == 0:
            self.assertEqual(await broker.call("s", b"call"), b"call")
        elif which == 1:
            self.assertEqual(b"".join([one async for one in broker.stream("s", b"stream")]),
                             b"stream")
        elif which == 2:
            self.assertEqual(await broker.send_pieces("s", [b"one", b"two", b"three"]),
                             b"onetwothree")
        elif which == 3:
            async with broker.converse("s", b"12", more=True) as talk:
                await talk.receive()
                await talk.send(b"34", last=True)
                self.assertEqual(b"".join([one async for one in talk]), b"1234")
        elif which == 4:
            async with broker.subscribe("a.>"):
                await broker.publish("a.b", wait=True)
        elif which == 5:
            async with broker.announce("me"):
                await broker.send("s", b"told")
                await broker.flush(10)
        elif which == 6:
            answers = await asyncio.gather(*(broker.submit("s", b"%d" % one) for one in range(20)))
            self.assertEqual(answers, [b"%d" % one for one in range(20)])
        else:
            async with aio.connect(self.fake.address) as other:
                await other.call("s", b"x")

    async def test_at_every_await_of_everything(self) -> None:
        for connected in (True, False):
            for which in range(8):
                turns = 0
                is_whole = False
                while not is_whole:
                    async with aio.connect(self.fake.address) as broker:
                        if connected:
                            await broker.call("s", b"")
                            await broker.publish("a", wait=True)
                        task = asyncio.ensure_future(self.operation(broker, which))
                        for _ in range(turns):
                            await asyncio.sleep(0)
                        is_whole = task.done()
                        task.cancel()
                        try:
                            await task
                        except asyncio.CancelledError:
                            pass
                        # The same connection, and nothing of before.
                        for number in range(3):
                            body = b"after %d" % number
                            self.assertEqual(await self.within(broker.call("s", body)), body)
                        link = broker._links["s"]
                        self.assertEqual((link.session.under_way, len(link.waiting)), (0, 0))
                        self.assertEqual(link.session._asked, {})
                    turns += 1 if turns < 10 else max(3, turns // 5)
                    self.assertLess(turns, 2000)

    async def test_ten_thousand_answers_byte_by_byte(self) -> None:
        async with aio.connect(self.fake.address) as broker:
            right = 0
            wrong = 0

            async def asks(number: int) -> None:
                nonlocal right, wrong
                body = number.to_bytes(4, "big") * (1 + number % 7)
                answer = await broker.call("s", body)
                if answer == body:
                    right += 1
                else:
                    wrong += 1

            number = 0
            loop = asyncio.get_running_loop()
            while right < 10_000:
                tasks = [loop.create_task(asks(number + one)) for one in range(40)]
                number += 40
                while tasks:
                    for _ in range(self.random.randrange(4)):
                        await asyncio.sleep(0)
                    if self.random.random() < 0.2:
                        self.random.choice(tasks).cancel()
                    tasks = [task for task in tasks if not task.done()]
                    if tasks and self.random.random() < 0.5:
                        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED, timeout=1)
            self.assertEqual(wrong, 0)
            self.assertGreater(number, right)


class Whereabouts(AioCase):
    """Where a broker may be used."""

    async def asyncSetUp(self) -> None:
        await super().asyncSetUp()
        self.fake = await self.played()

    async def test_another_loop_or_thread_is_told(self) -> None:
        async with aio.connect(self.fake.address) as broker:
            future = broker.submit("s", b"x")
            peer = await self.fake.peer()
            head, _ = await peer.take()
            found: list[BaseException] = []

            async def there() -> None:
                for use in (lambda: broker.call("s", b""), lambda: broker.call("new", b""),
                            lambda: broker.publish("a"), lambda: broker.close(),
                            lambda: broker.subscribe("a")._open(), lambda: broker.flush()):
                    try:
                        await use()
                    except IsectError as why:
                        found.append(why)

            def elsewhere() -> None:
                asyncio.run(there())
                try:
                    broker.submit("s", b"")
                except IsectError as why:
                    found.append(why)

            thread = threading.Thread(target=elsewhere)
            thread.start()
            await asyncio.get_running_loop().run_in_executor(None, thread.join)
            self.assertEqual([type(one) for one in found], [UsageError] * 7)
            peer.answer(head, b"still here")
            self.assertEqual(await future, b"still here")

    async def test_a_forked_child_is_told_and_does_no_harm(self) -> None:
        async with aio.connect(self.fake.address) as broker:
            future = broker.submit("s", b"x")
            peer = await self.fake.peer()
            head, _ = await peer.take()
            link = broker._links["s"]
            assert link.socket is not None
            self.assertFalse(os.get_inheritable(link.socket.fileno()))
            result, told = os.pipe()
            pid = os.fork()
            if pid == 0:
                words = []
                for use in (lambda: broker.submit("s", b""), lambda: broker.submit("new", b""),
                            lambda: broker.close().send(None)):
                    try:
                        use()
                        words.append("none")
                    except ForkedError:
                        words.append("forked")
                    except StopIteration:
                        words.append("closed")
                    except BaseException as why:
                        words.append(repr(why))
                words.append(str(link.socket.fileno()))
                os.write(told, " ".join(words).encode())
                os._exit(0)
            os.close(told)
            os.waitpid(pid, 0)
            self.assertEqual(os.read(result, 1000), b"forked forked closed -1")
            os.close(result)
            peer.answer(head, b"still here")
            self.assertEqual(await future, b"still here")
            # The child has said nothing.
            other = broker.submit("s", b"y")
            head, body = await peer.take()
            self.assertEqual(body, b"y")
            peer.answer(head, b"z")
            self.assertEqual(await other, b"z")


class TheEnd(AioCase):
    """A program that ends with an open broker says nothing, and ends at once."""

    async def run_program(self, address: str, body: str) -> str:
        support = Path(__file__).resolve().parent
        code = "\n".join([
            "import asyncio", "from isect import aio",
            "async def under_way(broker):",
            "    while 's' not in broker._links or not broker._links['s'].session.under_way:",
            "        await asyncio.sleep(0.002)",
            "async def main():", f"    address = {address!r}",
            textwrap.indent(textwrap.dedent(body), "    "), "asyncio.run(main())", "print('done')"])
        child = await asyncio.create_subprocess_exec(
            sys.executable, "-X", "dev", "-W", "error", "-c", code, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, env={**os.environ, "PYTHONPATH": str(support.parent / "src")})
        out, said = await self.within(child.communicate())
        self.assertEqual((child.returncode, out), (0, b"done\n"), said.decode())
        return str(said.decode())

    async def test_nothing_is_said(self) -> None:
        programs = {
            "idle": "broker = await aio.connect(address)",
            "a future": """
                broker = await aio.connect(address)
                future = broker.submit("s", b"x")
                await under_way(broker)
            """,
            "connecting": """
                broker = await aio.connect(address)
                future = broker.submit("s", b"x")
            """,
            "a task": """
                broker = await aio.connect(address)
                task = asyncio.ensure_future(broker.call("s", b"x"))
                await under_way(broker)
            """,
            "a stream": """
                broker = await aio.connect(address)
                stream = broker.stream("s", b"x")
                task = asyncio.ensure_future(stream.__anext__())
                await under_way(broker)
            """,
            "a stream that is left": """
                broker = await aio.connect(address)
                stream = broker.stream("s", b"x")
                await under_way(broker)
                del broker
            """,
            "an unreachable broker": """
                broker = await aio.connect("unix:/nonexistent/socket", verify=False)
                future = broker.submit("s", b"x")
                await asyncio.sleep(0.05)
            """,
        }
        fake = await self.played()
        for name, body in programs.items():
            with self.subTest(name):
                self.assertEqual(await self.run_program(fake.address, body), "")


if __name__ == "__main__":
    unittest.main()
