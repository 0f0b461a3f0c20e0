"""What a worker does in each of its three ways, towards a broker that is played."""

from __future__ import annotations

import _thread
import contextlib
import io
import logging
import socket
import sys
import threading
import time
import unittest.mock
from collections.abc import AsyncIterator, Iterator
from typing import Any

import isect
from isect import _program
from isect import _tables as t
from isect._wire import Lines, frame
from worker_support import TIMEOUT, FakeCase, Served, cancel, request

logging.getLogger("isect").setLevel(logging.CRITICAL)


class Ways:
    """The scenarios; each way says how a handler is made."""

    concurrency = 1

    def way(self, handle: Any) -> Any:
        """A handler as this way wants it."""
        return handle

    def run_with(self, handle: Any, limits: Any = None, **more: Any) -> Any:
        return self.begin(self.way(handle), limits,  # type: ignore[attr-defined]
                          concurrency=self.concurrency, **more)

    # One request.

    def test_it_logs_in_and_answers(self: Any) -> None:
        served, peer = self.run_with(lambda r: r.body.upper())
        self.assertEqual(peer.login.get("service"), "upper")
        self.assertEqual(peer.login.get("secret"), "s")
        self.assertEqual(peer.login.get("cancel"), "yes")
        self.assertEqual(peer.login.number("concurrency", 1), self.concurrency)
        trace = bytes(range(16))
        peer.send(request(5, b"hi", trace_id=trace, span_id=9, sequence=3))
        head, body = peer.take(t.DATA)
        self.assertEqual((head.transaction, head.error, head.more, body), (5, 0, 0, b"HI"))
        self.assertEqual((head.trace_id, head.span_id, head.sequence, head.workerid),
                         (trace, 9, 3, 7))
        peer.end()
        self.assertIsNone(served.end())

    def test_each_kind_of_answer(self: Any) -> None:
        answers: dict[bytes, Any] = {
            b"bytes": b"x", b"none": None, b"str": "é", b"array": bytearray(b"y"),
            b"view": memoryview(b"z"), b"empty": b""}
        _, peer = self.run_with(lambda r: answers[r.body])
        want = {b"bytes": b"x", b"none": b"", b"str": "é".encode(), b"array": b"y", b"view": b"z",
                b"empty": b""}
        for number, (name, body) in enumerate(want.items(), 1):
            peer.send(request(number, name))
            self.assertEqual(peer.answer(number), (0, 0, body))

    def test_a_wrong_answer_is_named(self: Any) -> None:
        _, peer = self.run_with(lambda r: {"n": 1} if r.body else ["a"])
        for number, body, name in ((1, b"x", "dict"), (2, b"", "list")):
            peer.send(request(number, body))
            code, more, text = peer.answer(number)
            self.assertEqual((code, more), (1, 0))
            self.assertIn(f"returned {name}".encode(), text)

    def test_an_exception_is_an_answer_and_the_worker_goes_on(self: Any) -> None:
        def handle(r: Any) -> bytes:
            if r.body == b"own":
                raise isect.Failure(77, "out of\nstock")
            if r.body == b"bad":
                raise ValueError("no \x1b[31m\nsecond line")
            if r.body == b"long":
                raise ValueError("x" * 5000)
            return b"ok"

        served, peer = self.run_with(handle)
        peer.send(request(1, b"own"))
        self.assertEqual(peer.answer(1), (77, 0, b"out of\nstock"))
        peer.send(request(2, b"bad"))
        self.assertEqual(peer.answer(2), (1, 0, b"ValueError: no \\x1b[31m"))
        peer.send(request(3, b"long"))
        self.assertLess(len(peer.answer(3)[2]), 600)
        peer.send(request(4))
        self.assertEqual(peer.answer(4), (0, 0, b"ok"))
        peer.send(frame(t.STATUS, sequence=8))
        head, body = peer.take(t.STATUS_REPLY)
        self.assertEqual((head.sequence, body), (8, b"4 requests answered, 2 of them failed with "
                                                    b"an exception"))

    def test_what_breaks_when_it_is_shown_is_answered_all_the_same(self: Any) -> None:
        def broken(self: Any) -> str:
            raise KeyboardInterrupt

        class Broken(Exception):
            __str__ = broken

        class Breaks(logging.Handler):
            def emit(self, record: logging.LogRecord) -> None:
                raise SystemExit

        def handle(r: Any) -> bytes:
            raise Broken if r.body == b"text" else ValueError("logged")

        log = logging.getLogger("isect.worker")
        breaks = Breaks()
        log.addHandler(breaks)
        self.addCleanup(log.removeHandler, breaks)
        log.setLevel(logging.ERROR)
        self.addCleanup(log.setLevel, logging.NOTSET)
        with contextlib.redirect_stderr(io.StringIO()) as written:
            _, peer = self.run_with(handle)
            peer.send(request(1, b"text"))
            self.assertEqual(peer.answer(1), (1, 0, b"Broken: (its text can't be made)"))
            peer.send(request(2))
            self.assertEqual(peer.answer(2), (1, 0, b"ValueError: logged"))
        self.assertIn("at transaction 2: ValueError: logged; it can't be logged: SystemExit",
                      written.getvalue())

    def test_an_exception_that_ends_the_worker_and_breaks_when_it_is_shown(self: Any) -> None:
        class Broken(BaseException):
            def __str__(self) -> str:
                raise KeyboardInterrupt

        def handle(r: Any) -> bytes:
            raise Broken

        served, peer = self.run_with(handle)
        peer.send(request(1))
        kinds = {(found := peer.frame())[0].command: found for _ in range(2)}
        self.assertEqual((kinds[t.DATA][0].error, kinds[t.DATA][1]),
                         (1, b"the worker ends: Broken: (its text can't be made)"))
        peer.end()
        self.assertIsInstance(served.end(), Broken)

    def test_a_worker_does_not_serve_within_a_handler(self: Any) -> None:
        _, peer = self.run_with(lambda r: isect.run(lambda inner: b""))
        peer.send(request(1))
        self.assertEqual(peer.answer(1), (1, 0, b"UsageError: isect.run was called in a handler; a "
                                                b"worker serves once, as the program's last act "
                                                b"(usage, whose: client, ran: no)"))

    def test_the_request_says_what_its_head_has(self: Any) -> None:
        seen: list[Any] = []

        def handle(r: Any) -> bytes:
            seen.append((r.transaction, r.attempt, r.idempotent, r.extendable, r.wants_reply,
                         r.trace_id, r.span_id, r.more, r.text, r.priority, r.service, r.worker,
                         r.remaining(), r.is_over()))
            return b""

        _, peer = self.run_with(handle)
        peer.send(request(9, "é".encode(), attempt=2, flags=3, reply=0, trace_id=b"t" * 16,
                          span_id=4, priority=9, deadline_ms=2000))
        peer.answer(9)
        peer.send(request(10, b"", deadline_ms=0))
        peer.answer(10)
        *first, left, over = seen[0]
        self.assertEqual(first, [9, 2, True, True, False, b"t" * 16, 4, False, "é", 9, "upper", 7])
        self.assertTrue(0 < left <= 2.0 and not over)
        self.assertIsNone(seen[1][-2])

    def test_nested_calls_find_the_request(self: Any) -> None:
        from isect._context import current
        seen: list[Any] = []

        def handle(r: Any) -> bytes:
            seen.append(current.get() is r)
            return b""

        _, peer = self.run_with(handle)
        peer.send(request(1))
        peer.answer(1)
        self.assertEqual(seen, [True])
        self.assertIsNone(current.get())

    # Pieces.

    def test_a_large_answer_is_sent_in_pieces(self: Any) -> None:
        _, peer = self.run_with(lambda r: bytes(range(250)), {"body_bytes_max": 100})
        peer.send(request(1))
        pieces = [peer.answer(1) for _ in range(3)]
        self.assertEqual([(code, more, len(body)) for code, more, body in pieces],
                         [(0, 1, 100), (0, 1, 100), (0, 0, 50)])
        self.assertEqual(b"".join(body for _, _, body in pieces), bytes(range(250)))
        peer.send(request(2))
        self.assertEqual(peer.answer(2)[1], 1)

    def test_a_streamed_answer(self: Any) -> None:
        def handle(r: Any) -> Iterator[Any]:
            yield b"a"
            yield "b"
            yield bytearray(b"c")

        _, peer = self.run_with(handle)
        peer.send(request(1))
        self.assertEqual([peer.answer(1) for _ in range(4)],
                         [(0, 1, b"a"), (0, 1, b"b"), (0, 1, b"c"), (0, 0, b"")])

    def test_a_stream_that_raises_in_the_middle(self: Any) -> None:
        def handle(r: Any) -> Iterator[Any]:
            yield b"a"
            if r.body == b"own":
                raise isect.Failure(5, "half")
            if r.body == b"int":
                yield 7
            raise KeyError("gone")

        _, peer = self.run_with(handle)
        for number, body, code, text in ((1, b"", 1, b"KeyError: 'gone'"), (2, b"own", 5, b"half")):
            peer.send(request(number, body))
            self.assertEqual(peer.answer(number), (0, 1, b"a"))
            self.assertEqual(peer.answer(number), (code, 0, text))
        peer.send(request(3, b"int"))
        self.assertEqual(peer.answer(3), (0, 1, b"a"))
        self.assertIn(b"int", peer.answer(3)[2])

    def test_a_stream_that_nobody_reads_is_closed(self: Any) -> None:
        closed = threading.Event()

        def handle(r: Any) -> Iterator[bytes]:
            try:
                while True:
                    yield b"x"
                    time.sleep(0.001)
            finally:
                closed.set()

        _, peer = self.run_with(handle)
        peer.send(request(1))
        self.assertEqual(peer.answer(1), (0, 1, b"x"))
        peer.send(cancel(1))
        while (found := peer.answer(1))[1]:
            pass
        self.assertEqual(found[0], 1)
        self.assertTrue(closed.wait(TIMEOUT))
        peer.send(frame(t.STATUS))
        peer.take(t.STATUS_REPLY)

    def test_pieces_of_a_request(self: Any) -> None:
        _, peer = self.run_with(self.joined())
        peer.send(request(1, b"a", more=1), request(1, b"b", more=1))
        peer.send(request(1, b"c"))
        self.assertEqual(peer.answer(1), (0, 0, b"a,b,c"))
        peer.send(request(2, b"d"))
        self.assertEqual(peer.answer(2), (0, 0, b"d"))

    def test_each_piece_is_answered_as_it_comes(self: Any) -> None:
        _, peer = self.run_with(self.piece_by_piece())
        for number, bodies in ((1, [b"a", b"b", b"c"]), (2, [b"d"])):
            for body in bodies:
                peer.send(request(number, body, more=int(body != bodies[-1])))
                self.assertEqual(peer.answer(number), (0, 1, body.upper()))
            self.assertEqual(peer.answer(number), (0, 0, b""))

    def test_a_conversation(self: Any) -> None:
        _, peer = self.run_with(self.talk())
        peer.send(request(1, b"hello"))
        self.assertEqual(peer.answer(1), (0, 1, b"name?"))
        peer.send(request(1, b"Ann"))
        self.assertEqual(peer.answer(1), (0, 1, b"age?"))
        peer.send(request(1, b"7", more=1))
        peer.send(request(1, b"5"))
        self.assertEqual(peer.answer(1), (0, 0, b"hello Ann 75"))

    def test_a_client_that_gives_up_its_pieces(self: Any) -> None:
        _, peer = self.run_with(self.joined())
        peer.send(request(1, b"a", more=1))
        peer.send(cancel(1))
        code, more, _ = peer.answer(1)
        self.assertEqual((code, more), (1, 0))
        # A piece that crossed is dropped, and is no request.
        peer.send(request(1, b"b"), request(2, b"c"))
        self.assertEqual(peer.answer(2), (0, 0, b"c"))

    def test_pieces_that_do_not_come_in_time(self: Any) -> None:
        _, peer = self.run_with(self.joined())
        peer.send(request(1, b"a", more=1, deadline_ms=30))
        code, more, _ = peer.answer(1)
        self.assertEqual((code, more), (1, 0))

    def test_a_piece_that_the_handler_awaits_for_a_while(self: Any) -> None:
        _, peer = self.run_with(self.impatient())
        peer.send(request(1, b"a", more=1))
        self.assertEqual(peer.answer(1), (0, 0, b"timeout"))
        peer.send(request(1, b"late"), request(2, b"b", more=1), request(2, b"c"))
        self.assertEqual(peer.answer(2), (0, 0, b"c"))

    def test_the_end_in_the_middle_of_a_conversation(self: Any) -> None:
        served, peer = self.run_with(self.talk())
        peer.send(request(1, b"hello"))
        self.assertEqual(peer.answer(1), (0, 1, b"name?"))
        peer.end()
        code, more, _ = peer.answer(1)
        self.assertEqual((code, more), (1, 0))
        self.assertIsNone(served.end())

    # Ends.

    def test_requests_before_the_end_are_answered(self: Any) -> None:
        served, peer = self.run_with(lambda r: r.body)
        peer.send(request(1, b"a"), frame(t.END))
        self.assertEqual(peer.answer(1), (0, 0, b"a"))
        peer.assert_closed()
        self.assertIsNone(served.end())

    def test_the_end_while_the_handler_works(self: Any) -> None:
        begun, go = threading.Event(), threading.Event()
        served, peer = self.run_with(self.gate(begun, go))
        peer.send(request(1, b"a"))
        self.assertTrue(begun.wait(TIMEOUT))
        peer.end()
        go.set()
        self.assertEqual(peer.answer(1), (0, 0, b"a"))
        peer.assert_closed()
        self.assertIsNone(served.end())

    def test_a_stop_finishes_what_is_at_hand(self: Any) -> None:
        begun, go = threading.Event(), threading.Event()
        ended = []
        served, peer = self.run_with(self.gate(begun, go), on_end=lambda: ended.append(1))
        peer.send(request(1, b"a"))
        self.assertTrue(begun.wait(TIMEOUT))
        served.server.stop()
        peer.send(request(2, b"b"))
        go.set()
        frames = [peer.frame(), peer.frame()]
        kinds = {head.command: (head, body) for head, body in frames}
        self.assertEqual(Lines.parse(kinds[t.LOGOUT][1]).get("received"),
                         "1" if self.concurrency == 1 else kinds_received(kinds))
        self.assertEqual(kinds[t.DATA][1], b"a")
        peer.end()
        peer.assert_closed()
        self.assertIsNone(served.end())
        self.assertEqual(ended, [1])

    def test_a_stop_while_it_waits(self: Any) -> None:
        served, peer = self.run_with(lambda r: b"")
        served.server.stop()
        self.assertEqual(peer.logout(), 0)
        # What crossed it goes to another worker.
        peer.send(request(1))
        peer.end()
        peer.assert_closed()
        self.assertIsNone(served.end())

    def test_max_requests(self: Any) -> None:
        served, peer = self.run_with(lambda r: r.body, max_requests=2)
        peer.send(request(1, b"a"))
        self.assertEqual(peer.answer(1), (0, 0, b"a"))
        peer.send(request(2, b"b"))
        kinds = {head.command: body for head, body in (peer.frame(), peer.frame())}
        self.assertEqual(kinds[t.DATA], b"b")
        self.assertEqual(kinds[t.LOGOUT], b"received 2\n")
        peer.end()
        self.assertIsNone(served.end())

    def test_a_handler_that_ends_the_program(self: Any) -> None:
        def handle(r: Any) -> bytes:
            raise SystemExit(3)

        served, peer = self.run_with(handle)
        peer.send(request(1))
        kinds = {head.command: (head, body) for head, body in (peer.frame(), peer.frame())}
        self.assertEqual(kinds[t.DATA][0].error, 1)
        self.assertIn(b"SystemExit", kinds[t.DATA][1])
        self.assertEqual(kinds[t.LOGOUT][1], b"received 1\n")
        peer.end()
        why = served.end()
        self.assertIsInstance(why, SystemExit)
        self.assertEqual(why.code, 3)

    # Faults.

    def test_the_broker_is_lost_between_requests_and_comes_back(self: Any) -> None:
        served, peer = self.run_with(lambda r: r.body)
        peer.send(request(1, b"a"))
        peer.answer(1)
        peer.close()
        again = self.broker.login()
        self.assertEqual(again.login.get("secret"), "s")
        again.send(request(1, b"b"))
        self.assertEqual(again.answer(1), (0, 0, b"b"))
        again.end()
        self.assertIsNone(served.end())

    def test_a_request_is_never_answered_on_a_later_connection(self: Any) -> None:
        begun, go = threading.Event(), threading.Event()
        over: list[Any] = []
        served, peer = self.run_with(self.gate(begun, go, over))
        peer.send(request(1, b"a"))
        self.assertTrue(begun.wait(TIMEOUT))
        peer.close()
        if self.concurrency > 1:
            again = self.broker.login()
            go.set()
        else:
            go.set()
            again = self.broker.login()
        again.send(request(2, b"b"))
        # Whatever was answered first would have been the old one.
        self.assertEqual(again.answer(2), (0, 0, b"b"))
        again.end()
        self.assertIsNone(served.end())

    def test_a_broker_that_closes_after_each_login_is_not_tried_without_end(self: Any) -> None:
        served, peer = self.run_with(lambda r: r.body)
        peer.close()
        begun = time.monotonic()
        for _ in range(5):
            self.broker.login().close()
        # Each wait is at least half of 50, 100, 200, 400 and 800 ms.
        self.assertGreaterEqual(time.monotonic() - begun, 0.775)
        self.broker.login().end()
        self.assertIsNone(served.end())

    @unittest.mock.patch("isect._worker_conn._LASTED", 0.0)
    def test_an_end_at_each_byte_of_a_frame(self: Any) -> None:
        served, peer = self.run_with(lambda r: r.body)
        data = request(1, b"abc")
        for size in range(len(data)):
            peer.send(data[:size])
            peer.close()
            peer = self.broker.login()
        peer.send(data)
        self.assertEqual(peer.answer(1), (0, 0, b"abc"))
        peer.end()
        self.assertIsNone(served.end())

    def test_an_end_at_each_byte_of_the_login(self: Any) -> None:
        served, peer = self.run_with(lambda r: r.body)
        lines = Lines([("worker", "7"), ("body_bytes_max", "1000"), ("reconnect_ms", "5000")])
        data = frame(t.WORKER_LOGIN_OK, lines.bytes())
        peer.close()
        for size in range(0, len(data), 9):
            again = self.broker.accept()
            again.take(t.WORKER_LOGIN)
            again.send(data[:size])
            again.close()
            # The wait before the next attempt need not be long here.
            served.server.waker.wake()
        again = self.broker.login()
        again.send(request(1, b"abc"))
        self.assertEqual(again.answer(1), (0, 0, b"abc"))
        again.end()
        self.assertIsNone(served.end())

    def test_requests_that_come_with_the_answer_to_the_login(self: Any) -> None:
        served = self.start(self.way(lambda r: r.body), concurrency=self.concurrency)
        peer = self.broker.accept()
        peer.take(t.WORKER_LOGIN)
        lines = Lines([("worker", "7"), ("body_bytes_max", "1000")])
        peer.send(frame(t.WORKER_LOGIN_OK, lines.bytes()), request(1, b"abc"), frame(t.END))
        self.assertEqual(peer.answer(1), (0, 0, b"abc"))
        peer.assert_closed()
        self.assertIsNone(served.end())

    def test_a_transaction_that_comes_twice_is_answered_once(self: Any) -> None:
        begun, go = threading.Event(), threading.Event()
        _, peer = self.run_with(self.gate(begun, go))
        peer.send(request(1, b"a"), request(1, b"b"))
        go.set()
        self.assertEqual(peer.answer(1)[:2], (0, 0))
        peer.send(request(2, b"c"))
        self.assertEqual(peer.answer(2), (0, 0, b"c"))

    def test_frames_that_come_byte_by_byte(self: Any) -> None:
        served, peer = self.run_with(lambda r: r.body)
        for byte in request(1, b"abc") + frame(t.PING, sequence=4):
            peer.send(bytes([byte]))
        kinds = [peer.frame()[0].command, peer.frame()[0].command]
        self.assertEqual(sorted(kinds), [t.DATA, t.PONG])

    def test_a_broker_that_is_gone_for_good(self: Any) -> None:
        served, peer = self.run_with(lambda r: b"", {"reconnect_ms": 120})
        self.broker.listener.close()
        peer.close()
        why = served.end()
        self.assertIsInstance(why, isect.IsectError)
        self.assertEqual(why.name, "unreachable")
        self.assertIn(self.broker.path, str(why))

    def test_a_broker_that_wants_no_return(self: Any) -> None:
        served, peer = self.run_with(lambda r: b"", {"reconnect_ms": 0})
        peer.close()
        self.assertEqual(served.end().name, "broker_lost")

    def test_a_stop_while_the_broker_is_gone(self: Any) -> None:
        served, peer = self.run_with(lambda r: b"", {"reconnect_ms": 60000})
        self.broker.listener.close()
        peer.close()
        served.server.stop()
        self.assertIsNone(served.end())

    def test_frames_that_make_no_sense_end_the_worker(self: Any) -> None:
        for data, name in (
            (b"GET / HTTP/1.1\r\n" + bytes(64), "version"),
            (frame(t.LOGIN), "bad_state"),
            (frame(t.CANCEL, b"x"), "bad_state"),
            (frame(999), "bad_frame"),
            (frame(t.PING, b"x"), "bad_frame"),
            (request(1, more=2), "out_of_range"),
            (request(1, flags=8), "bad_frame"),
            (request(1, bytes(2 << 20)), "body_too_large"),
        ):
            with self.subTest(name=name, data=data[:80]):
                served, peer = self.run_with(lambda r: b"")
                with contextlib.suppress(BrokenPipeError):
                    peer.send(data[:70_000])
                self.assertEqual(served.end().name, name)

    def test_nothing_is_begun_behind_a_frame_that_makes_no_sense(self: Any) -> None:
        begun = threading.Event()
        served, peer = self.run_with(self.joined(begun))
        with contextlib.suppress(BrokenPipeError):
            peer.send(frame(t.LOGIN) + request(1, b"half", more=1))
        self.assertEqual(served.end().name, "bad_state")
        self.assertFalse(begun.is_set())

    def test_numbers_that_the_broker_says_of_instances(self: Any) -> None:
        def handle(r: Any) -> str:
            return isect.current_worker().service

        for text, name in (("9" * 5000, None), ("\u00b2", "bad_frame"), ("-1", "bad_frame")):
            served, peer = self.run_with(handle)
            peer.send(request(1))
            self.assertEqual(peer.answer(1)[2], b"upper")
            peer.send(frame(t.BEAT_OK, Lines([("unknown", text)]).bytes()))
            if name is None:
                peer.send(request(2))
                self.assertEqual(peer.answer(2)[2], b"upper")
                peer.end()
                self.assertIsNone(served.end())
            else:
                self.assertEqual(served.end().name, name)

    def test_a_refusal_ends_the_worker(self: Any) -> None:
        served, peer = self.run_with(lambda r: b"")
        body = Lines([("code", "-11"), ("name", "bad_worker_login")], "no such start").bytes()
        peer.send(frame(t.ERROR, body, error=-11))
        self.assertEqual(served.end().name, "bad_worker_login")

    def test_a_refused_login(self: Any) -> None:
        served = self.start(self.way(lambda r: b""), concurrency=self.concurrency)
        peer = self.broker.accept()
        peer.take(t.WORKER_LOGIN)
        body = Lines([("code", "-8"), ("name", "unknown_service")], "none").bytes()
        peer.send(frame(t.ERROR, body, error=-8))
        self.assertEqual(served.end().name, "unknown_service")

    def test_a_broker_that_reads_nothing_while_it_sends(self: Any) -> None:
        size = 1 << 20
        served, peer = self.run_with(lambda r: r.body)
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        # Each answer is larger than the socket takes; the broker sends on before it reads. What it
        # sends meanwhile is not answered in the middle of a frame.
        for number in range(1, 5):
            peer.send(request(number, bytes([number]) * size), frame(t.PING, sequence=number),
                      frame(t.STATUS, sequence=number))
        got = {}
        kinds = []
        for _ in range(12):
            head, body = peer.frame()
            kinds.append(head.command)
            if head.command == t.DATA:
                got[head.transaction] = body
        self.assertEqual(got, {n: bytes([n]) * size for n in range(1, 5)})
        self.assertEqual(sorted(kinds), 4 * [t.DATA] + 4 * [t.PONG] + 4 * [t.STATUS_REPLY])

    def test_what_comes_ahead_of_a_slow_handler_has_a_limit(self: Any) -> None:
        limit, size = 1 << 20, 1 << 16
        with unittest.mock.patch("isect._worker.AHEAD_BYTES_MAX", limit):
            # One with one request at a time gives a broker up that takes nothing for so long.
            limits = {"silence_ms": 1000} if self.concurrency > 1 else None
            _, peer = self.run_with(self.flooded(4 * limit), limits)
            peer.send(request(1, b"go", more=1))
            # What it answers first is not read, so it takes nothing of what comes meanwhile.
            sent = 0
            peer.sock.settimeout(1.5)
            piece = request(1, bytes(size), more=1)
            rest = memoryview(piece)
            with contextlib.suppress(TimeoutError, socket.timeout):
                while sent < 8 * limit:
                    rest = rest[peer.sock.send(rest):]
                    if not rest:
                        sent, rest = sent + size, memoryview(piece)
            self.assertTrue(limit <= sent <= 3 * limit, sent)
            # Nothing of it is lost.
            peer.sock.settimeout(TIMEOUT)
            sender = threading.Thread(target=peer.send, args=(bytes(rest), request(1, b"end")))
            sender.start()
            got = 0
            while (found := peer.frame())[0].command == t.PING or found[0].more:
                got += len(found[1])
            self.assertEqual((got, found[1]), (4 * limit, str(2 + sent + size + 3).encode()))
            sender.join(TIMEOUT)

    def test_a_large_answer_that_is_taken_slowly(self: Any) -> None:
        size = 12 << 20
        _, peer = self.run_with(lambda r: bytes(size),
                                {"silence_ms": 600, "body_bytes_max": 1 << 25})
        peer.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 16)
        peer.send(request(1))
        # It takes longer than the silence after which a broker is gone, but never stops.
        got = 0
        while got < t.HEADER_BYTES + size:
            got += len(peer.sock.recv(1 << 20))
            time.sleep(1.5 / (size >> 16) if got < size else 0)
        peer.sock.settimeout(TIMEOUT)
        peer.send(request(2), frame(t.PING, sequence=9))
        while peer.frame()[0].command != t.DATA:
            pass

    def test_a_large_request_is_not_kept(self: Any) -> None:
        served, peer = self.run_with(lambda r: str(len(r.body)), {"body_bytes_max": 1 << 25})
        peer.send(request(1, bytes(1 << 24)))
        self.assertEqual(peer.answer(1), (0, 0, b"%d" % (1 << 24)))
        peer.send(frame(t.STATUS))
        peer.take(t.STATUS_REPLY)
        self.assertLess(len(served.server.link.inbox._bytes), 1 << 20)

    def test_hooks_are_guarded(self: Any) -> None:
        calls: list[str] = []

        def broken(name: str) -> Any:
            def hook() -> None:
                calls.append(name)
                raise RuntimeError(name)
            return hook

        served, peer = self.run_with(lambda r: r.body, on_status=broken("status"),
                                     on_reinit=broken("reinit"), on_end=broken("end"))
        peer.send(frame(t.REINIT), frame(t.STATUS, sequence=1))
        self.assertEqual(peer.take(t.STATUS_REPLY)[1], b"0 requests answered")
        peer.send(request(1, b"a"))
        self.assertEqual(peer.answer(1), (0, 0, b"a"))
        peer.end()
        self.assertIsNone(served.end())
        self.assertEqual(calls, ["reinit", "status", "end"])

    def test_a_status_of_its_own(self: Any) -> None:
        _, peer = self.run_with(lambda r: b"", on_status=lambda: "é" * 40000)
        peer.send(frame(t.STATUS, sequence=1))
        self.assertEqual(peer.take(t.STATUS_REPLY)[1], ("é" * 32768).encode())

    def test_pings_are_answered_and_a_silent_broker_is_pinged(self: Any) -> None:
        served, peer = self.run_with(lambda r: b"", {"silence_ms": 500})
        peer.send(frame(t.PING, sequence=3))
        self.assertEqual(peer.take(t.PONG)[0].sequence, 3)
        peer.take(t.PING)
        peer.send(frame(t.PONG))
        peer.take(t.PING)
        # No answer: the connection is given up, and the worker comes back.
        again = self.broker.login()
        again.end()
        self.assertIsNone(served.end())

    def test_it_publishes_and_announces_on_its_own_connection(self: Any) -> None:
        seen: list[Any] = []

        def handle(r: Any) -> bytes:
            worker = isect.current_worker()
            if not seen:
                seen.append(worker.announce("pump", id=5, activity_timeout=0.5))
            if r.body == b"publish":
                worker.publish("orders.new", b"one", lines={"colour": "red"})
            if r.body == b"bad":
                worker.publish("orders..new")
            if r.body == b"state":
                seen[0].checkpoint(77)
                seen[0].set_state(100, "sends")
            if r.body == b"end":
                seen[0].withdraw("done")
            return str([e.name for e in worker.refused()]).encode()

        served, peer = self.run_with(handle)
        peer.send(request(1, b"publish"))
        lines = Lines.parse(peer.take(t.ANNOUNCE)[1])
        self.assertEqual((lines.get("name"), lines.get("id")), ("pump", "5"))
        head, body = peer.take(t.PUBLISH)
        self.assertEqual(body, b"topic orders.new\ncolour red\n\none")
        self.assertNotEqual(head.sequence, 0)
        self.assertEqual(peer.answer(1), (0, 0, b"[]"))
        answer = [("sequence", lines.get("sequence")), ("id", "5"), ("incarnation", "3"),
                  ("beat_ms", "30"), ("activity_timeout_ms", "500")]
        refusal = Lines([("code", "-10"), ("name", "denied")], "no").bytes()
        peer.send(frame(t.ANNOUNCED, Lines(answer).bytes()),
                  frame(t.ERROR, refusal, error=-10, sequence=head.sequence))
        for _ in range(2):
            self.assertEqual(Lines.parse(peer.take(t.BEAT)[1]).get("instance"), "5 0")
        self.assertTrue(seen[0].is_watched)
        peer.send(request(2, b"bad"))
        self.assertIn(b"bad_message", self.past_beats(peer, 2))
        peer.send(request(3, b"state"))
        self.assertEqual(self.past_beats(peer, 3), b"['denied']")
        # It is announced again where it comes back.
        peer.close()
        again = self.broker.login()
        lines = Lines.parse(again.take(t.ANNOUNCE)[1])
        self.assertEqual((lines.get("id"), lines.get("state")), ("5", "100"))
        self.assertEqual(Lines.parse(again.take(t.STATE_CHANGE)[1]).get("checkpoint"), "77")
        again.send(request(4, b"end"))
        self.assertEqual(Lines.parse(again.take(t.WITHDRAW)[1]).get("id"), "5")
        again.answer(4)
        again.end()
        self.assertIsNone(served.end())

    def past_beats(self: Any, peer: Any, transaction: int) -> bytes:
        """The answer, behind beats and changes of state."""
        while True:
            head, body = peer.frame()
            if head.command == t.DATA:
                self.assertEqual(head.transaction, transaction)
                return bytes(body)
            self.assertIn(head.command, (t.BEAT, t.STATE_CHANGE))

    def test_a_progress_says_until_when(self: Any) -> None:
        _, peer = self.run_with(self.progress())
        peer.send(request(1, flags=2, deadline_ms=1000))
        head, body = peer.take(t.DATA)
        self.assertEqual((head.more, head.deadline_ms, body), (1, 5000, b"half"))
        self.assertTrue(4 < float(peer.answer(1)[2]) <= 5)
        peer.send(request(2, b"bad", flags=2))
        self.assertIn(b"within is 0", peer.answer(2)[2])


def kinds_received(kinds: Any) -> str:
    """In the concurrent ways the second request may have been begun before the stop was seen."""
    return Lines.parse(kinds[t.LOGOUT][1]).get("received")


class DefHandlers:
    """Handlers that are a `def`."""

    def joined(self, begun: Any = None) -> Any:
        def handle(r: isect.Request) -> bytes:
            if begun is not None:
                begun.set()
            return b",".join(r.pieces())
        return handle

    def piece_by_piece(self) -> Any:
        def handle(r: isect.Request) -> Iterator[bytes]:
            for piece in r.pieces():
                yield piece.upper()
        return handle

    def talk(self) -> Any:
        def handle(r: isect.Request) -> bytes:
            r.reply_piece(b"name?")
            name = r.next_piece()
            r.reply_piece("age?")
            age = b""
            while (piece := r.next_piece()) is not None:
                age += piece
            return b"%s %s %s" % (r.body, name, age)
        return handle

    def impatient(self) -> Any:
        def handle(r: isect.Request) -> Any:
            try:
                return r.next_piece(timeout=0.2 if r.body == b"a" else 5)
            except isect.DeadlineExceeded as e:
                return e.name
        return handle

    def gate(self, begun: Any, go: Any, over: Any = None) -> Any:
        def handle(r: isect.Request) -> bytes:
            if r.transaction == 1:
                begun.set()
                assert go.wait(TIMEOUT)
            return r.body
        return handle

    def flooded(self, size: int) -> Any:
        def handle(r: isect.Request) -> str:
            r.reply_piece(bytes(size))
            return str(sum(len(piece) for piece in r.pieces()))
        return handle

    def progress(self) -> Any:
        def handle(r: isect.Request) -> str:
            r.reply_piece(b"half", within=0 if r.body else 5)
            return str(r.remaining())
        return handle


class Plain(DefHandlers, Ways, FakeCase):
    """The plain way."""

    def test_a_coroutine_is_no_answer(self) -> None:
        async def later() -> bytes:
            return b""

        _, peer = self.run_with(lambda r: later())
        peer.send(request(1))
        self.assertIn(b"make the handler itself an 'async def'", peer.answer(1)[2])

    def test_requests_sent_ahead_are_answered_in_order(self) -> None:
        order: list[int] = []

        def handle(r: isect.Request) -> bytes:
            order.append(r.transaction)
            return r.body

        _, peer = self.run_with(handle)
        peer.send(*(request(n, b"x") for n in (4, 2, 9, 1)))
        for number in (4, 2, 9, 1):
            self.assertEqual(peer.answer(number), (0, 0, b"x"))
        self.assertEqual(order, [4, 2, 9, 1])

    def test_what_was_sent_ahead_and_given_up_is_answered_in_its_turn(self) -> None:
        seen: list[int] = []
        go = threading.Event()

        def handle(r: isect.Request) -> bytes:
            seen.append(r.transaction)
            if r.transaction == 1:
                assert go.wait(TIMEOUT)
                # Hears the cancel of the next one.
                r.is_over()
            return b"ok"

        _, peer = self.run_with(handle)
        peer.send(request(1), request(2, more=1), request(3), cancel(2), request(2, b"late"))
        go.set()
        self.assertEqual(peer.answer(1), (0, 0, b"ok"))
        self.assertEqual(peer.answer(2)[:2], (1, 0))
        self.assertEqual(peer.answer(3), (0, 0, b"ok"))
        self.assertEqual(seen, [1, 3])

    def test_a_handler_that_looks_sees_the_cancel(self) -> None:
        def handle(r: isect.Request) -> bytes:
            while not r.is_over():
                time.sleep(0.001)
            assert r.over is not None
            raise r.over

        _, peer = self.run_with(handle)
        peer.send(request(1))
        peer.send(cancel(1))
        self.assertEqual(peer.answer(1)[:2], (1, 0))

    def test_an_answer_after_the_cancel_is_a_failure(self) -> None:
        def handle(r: isect.Request) -> bytes:
            while not r.is_over():
                time.sleep(0.001)
            return b"done"

        _, peer = self.run_with(handle)
        peer.send(request(1), cancel(1))
        self.assertEqual(peer.answer(1), (1, 0, b"nobody waits for the answer any more"))
        # A cancel after the answer is of no effect.
        peer.send(cancel(1), cancel(99), frame(t.STATUS))
        peer.take(t.STATUS_REPLY)

    def test_the_logout_leaves_with_the_last_answer_and_before_it(self) -> None:
        _, peer = self.run_with(lambda r: r.body, max_requests=1)
        peer.send(request(1, b"a"), request(2, b"b"))
        self.assertEqual(peer.logout(), 1)
        self.assertEqual(peer.answer(1), (0, 0, b"a"))
        peer.end()


class Concurrent:
    """What holds where several requests are answered at a time."""

    def test_the_broker_is_heard_while_handlers_work(self: Any) -> None:
        begun, go = threading.Event(), threading.Event()
        _, peer = self.run_with(self.gate(begun, go))
        peer.send(request(1, b"a"))
        self.assertTrue(begun.wait(TIMEOUT))
        peer.send(frame(t.PING, sequence=5), frame(t.STATUS, sequence=6), request(2, b"b"))
        kinds = [peer.frame()[0].command for _ in range(3)]
        self.assertEqual(sorted(kinds), [t.DATA, t.PONG, t.STATUS_REPLY])
        go.set()
        self.assertEqual(peer.answer(1), (0, 0, b"a"))

    def test_answers_come_in_any_order(self: Any) -> None:
        begun, go = threading.Event(), threading.Event()
        _, peer = self.run_with(self.gate(begun, go))
        peer.send(request(1, b"a"), request(2, b"b"), request(3, b"c"))
        got = {peer.take(t.DATA)[0].transaction for _ in range(2)}
        self.assertEqual(got, {2, 3})
        go.set()
        self.assertEqual(peer.answer(1), (0, 0, b"a"))

    def test_many_requests_get_their_own_answers(self: Any) -> None:
        _, peer = self.run_with(lambda r: r.body * 2)
        for first in range(1, 2001, self.concurrency):
            numbers = range(first, first + self.concurrency)
            peer.send(*(request(n, b"%d" % n) for n in numbers))
            got = {}
            for _ in numbers:
                head, body = peer.take(t.DATA)
                got[head.transaction] = body
            self.assertEqual(got, {n: b"%d%d" % (n, n) for n in numbers})

    def test_pieces_of_several_requests_mixed(self: Any) -> None:
        _, peer = self.run_with(self.joined())
        peer.send(request(1, b"a", more=1), request(2, b"x", more=1), request(1, b"b", more=1),
                  request(2, b"y"), request(1, b"c"))
        got = {}
        for _ in range(2):
            head, body = peer.take(t.DATA)
            got[head.transaction] = body
        self.assertEqual(got, {1: b"a,b,c", 2: b"x,y"})

    def test_a_stop_waits_for_the_rest_of_a_request(self: Any) -> None:
        begun = threading.Event()
        served, peer = self.run_with(self.joined(begun))
        peer.send(request(1, b"a", more=1))
        self.assertTrue(begun.wait(TIMEOUT))
        served.server.stop()
        peer.send(request(1, b"b"))
        kinds = {head.command: body for head, body in (peer.frame(), peer.frame())}
        self.assertEqual(kinds[t.DATA], b"a,b")
        self.assertEqual(kinds[t.LOGOUT], b"received 1\n")
        peer.end()
        self.assertIsNone(served.end())


class Threads(DefHandlers, Concurrent, Ways, FakeCase):
    """The threaded way."""

    concurrency = 4

    def test_a_system_that_starts_no_more_threads(self) -> None:
        begun, go = threading.Event(), threading.Event()
        served, peer = self.run_with(self.gate(begun, go))
        peer.send(request(1, b"a"))
        self.assertTrue(begun.wait(TIMEOUT))
        with unittest.mock.patch("threading.Thread.start", side_effect=RuntimeError("no more")):
            peer.send(request(2, b"b"), frame(t.PING))
            peer.take(t.PONG)
            peer.send(frame(t.PING))
            peer.take(t.PONG)
        go.set()
        got = {peer.take(t.DATA)[0].transaction for _ in range(2)}
        self.assertEqual(got, {1, 2})
        peer.end()
        self.assertIsNone(served.end())
        with unittest.mock.patch("isect._threads.threading.Thread.start",
                                 side_effect=RuntimeError("no more")):
            server = _program.make_server(lambda r: b"", self.broker.options(), concurrency=2)
            failures: list[BaseException] = []

            def run() -> None:
                try:
                    server.run()
                except isect.IsectError as e:
                    failures.append(e)
                done.release()

            done = _thread.allocate_lock()
            done.acquire()
            _thread.start_new_thread(run, ())
            peer = self.broker.login()
            peer.send(request(1))
            self.assertTrue(done.acquire(timeout=TIMEOUT))
        self.assertIn("the system starts no thread", str(failures[0]))

    def test_instances_that_are_announced_while_others_are_refused(self) -> None:
        begun = threading.Event()

        def handle(r: isect.Request) -> bytes:
            worker = isect.current_worker()
            for number in range(2000):
                worker.announce("part", id=number)
                if number == 100:
                    begun.set()
            return b"done"

        self.addCleanup(sys.setswitchinterval, sys.getswitchinterval())
        sys.setswitchinterval(1e-6)
        served, peer = self.run_with(handle)
        peer.send(request(1))
        self.assertTrue(begun.wait(TIMEOUT))
        refusal = Lines([("code", "-10"), ("ran", "no")]).bytes()
        peer.send(*[frame(t.ERROR, refusal, sequence=10**6 + n, error=-10) for n in range(500)])
        while peer.frame()[0].command != t.DATA:
            pass
        peer.end()
        self.assertIsNone(served.end())

    def test_threads_see_the_cancel(self) -> None:
        def handle(r: isect.Request) -> bytes:
            while not r.is_over():
                time.sleep(0.001)
            return b"done"

        _, peer = self.run_with(handle)
        peer.send(request(1), request(2))
        peer.send(cancel(2))
        self.assertEqual(peer.answer(2), (1, 0, b"nobody waits for the answer any more"))
        peer.send(cancel(1))
        self.assertEqual(peer.answer(1)[:2], (1, 0))


class Tasks(Concurrent, Ways, FakeCase):
    """The asyncio way."""

    concurrency = 4

    def way(self, handle: Any) -> Any:
        import inspect
        if inspect.iscoroutinefunction(handle) or inspect.isasyncgenfunction(handle):
            return handle

        async def run(r: Any) -> Any:
            return handle(r)
        return run

    def joined(self, begun: Any = None) -> Any:
        async def handle(r: isect.AsyncRequest) -> bytes:
            if begun is not None:
                begun.set()
            return b",".join([piece async for piece in r.pieces()])
        return handle

    def piece_by_piece(self) -> Any:
        async def handle(r: isect.AsyncRequest) -> AsyncIterator[bytes]:
            async for piece in r.pieces():
                yield piece.upper()
        return handle

    def talk(self) -> Any:
        async def handle(r: isect.AsyncRequest) -> bytes:
            await r.reply_piece(b"name?")
            name = await r.next_piece()
            await r.reply_piece("age?")
            age = b""
            while (piece := await r.next_piece()) is not None:
                age += piece
            return b"%s %s %s" % (r.body, name, age)
        return handle

    def impatient(self) -> Any:
        async def handle(r: isect.AsyncRequest) -> Any:
            try:
                return await r.next_piece(timeout=0.2 if r.body == b"a" else 5)
            except isect.DeadlineExceeded as e:
                return e.name
        return handle

    def gate(self, begun: Any, go: Any, over: Any = None) -> Any:
        import asyncio

        async def handle(r: isect.AsyncRequest) -> bytes:
            if r.transaction == 1:
                begun.set()
                while not go.is_set():
                    await asyncio.sleep(0.001)
            return r.body
        return handle

    def flooded(self, size: int) -> Any:
        async def handle(r: isect.AsyncRequest) -> str:
            await r.reply_piece(bytes(size))
            got = 0
            async for piece in r.pieces():
                got += len(piece)
            return str(got)
        return handle

    def progress(self) -> Any:
        async def handle(r: isect.AsyncRequest) -> str:
            await r.reply_piece(b"half", within=0 if r.body else 5)
            return str(r.remaining())
        return handle

    def test_a_cancelled_task_is_answered_all_the_same(self) -> None:
        import asyncio
        seen: list[str] = []

        async def handle(r: isect.AsyncRequest) -> bytes:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                seen.append("cancelled")
                if r.body == b"stubborn":
                    return b"done"
                raise
            return b""

        _, peer = self.run_with(handle)
        peer.send(request(1), request(2, b"stubborn"), cancel(1), cancel(2))
        got = {head.transaction: (head.error, body)
               for head, body in (peer.take(t.DATA), peer.take(t.DATA))}
        gave_up = (1, b"nobody waits for the answer any more")
        self.assertEqual(got, {1: gave_up, 2: gave_up})
        self.assertLessEqual(len(seen), 2)

    def test_a_task_that_is_cancelled_before_it_begins_is_answered(self) -> None:
        from isect._errors import error

        async def handle(r: isect.AsyncRequest) -> bytes:
            return b""

        server: Any = _program.make_server(handle, self.broker.options(), concurrency=1)
        start = server._start

        def start_and_cancel(request: Any) -> None:
            start(request)
            server.link.set_over(request, error("cancelled", "given up"))

        server._start = start_and_cancel
        served = Served(server)
        self.addCleanup(self.abandon, served)
        peer = self.broker.login()
        for number in range(1, 4):
            peer.send(request(number))
            # A loop that runs the first step at once has answered before.
            self.assertEqual(peer.answer(number)[1], 0)

    def test_an_async_generator(self) -> None:
        closed = threading.Event()

        async def handle(r: isect.AsyncRequest) -> AsyncIterator[bytes]:
            try:
                yield b"a"
                if r.body:
                    raise KeyError("b")
                yield b"c"
            finally:
                closed.set()

        _, peer = self.run_with(handle)
        peer.send(request(1))
        self.assertEqual([peer.answer(1) for _ in range(3)],
                         [(0, 1, b"a"), (0, 1, b"c"), (0, 0, b"")])
        self.assertTrue(closed.is_set())
        peer.send(request(2, b"x"))
        self.assertEqual([peer.answer(2) for _ in range(2)],
                         [(0, 1, b"a"), (1, 0, b"KeyError: 'b'")])

    def test_an_async_generator_that_nobody_reads_is_closed(self) -> None:
        import asyncio
        closed = threading.Event()

        async def handle(r: isect.AsyncRequest) -> AsyncIterator[bytes]:
            try:
                yield b"a"
                await asyncio.sleep(60)
            finally:
                closed.set()

        _, peer = self.run_with(handle)
        peer.send(request(1))
        self.assertEqual(peer.answer(1), (0, 1, b"a"))
        peer.send(cancel(1))
        self.assertEqual(peer.answer(1)[:2], (1, 0))
        self.assertTrue(closed.wait(TIMEOUT))

    def test_a_cancel_at_each_await_of_a_conversation(self) -> None:
        _, peer = self.run_with(self.talk())
        number = 0
        for steps in range(3):
            for _ in range(10):
                number += 1
                peer.send(request(number, b"hello"))
                for step in range(steps):
                    self.assertEqual(peer.answer(number)[:2], (0, 1))
                    if step + 1 < steps:
                        peer.send(request(number, b"n"))
                peer.send(cancel(number))
                while (found := peer.answer(number))[1]:
                    pass
                self.assertEqual(found[0], 1)
        # And nobody gets the answer of another.
        peer.send(request(500, b"a"))
        self.assertEqual(peer.answer(500), (0, 1, b"name?"))
