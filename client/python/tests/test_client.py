"""The blocking client against a broker that is played: faults at every byte, losses at every step,
late answers, threads, forks, interrupts."""

from __future__ import annotations

import concurrent.futures
import contextlib
import contextvars
import multiprocessing
import os
import pickle
import random
import signal
import socket
import subprocess
import sys
import threading
import time
import unittest
import warnings
from collections.abc import Callable
from typing import Any
from unittest import mock

import isect
from client_support import (LOGIN_OK, TIMEOUT, Peer, Played, await_that, echo, failure,
                            without_grace)
from isect import _tables as t
from isect._context import current
from isect._wire import Lines, frame


class Calls(unittest.TestCase):
    def test_bodies_of_all_kinds(self) -> None:
        with Played(echo) as played, played.connect() as broker:
            given: list[tuple[Any, bytes]] = [
                (b"", b""), (b"x", b"x"), ("ä", "ä".encode()), (bytearray(b"abc"), b"abc"),
                (memoryview(b"xabcx")[1:4], b"abc"), (bytes(1_000_000), bytes(1_000_000)),
            ]
            for body, expected in given:
                answer = broker.call("echo", body)
                self.assertEqual(answer, expected)
                self.assertIs(type(answer), bytes)
            with self.assertRaises(isect.Refused) as refused:
                broker.call("echo", bytes(1_000_001))
            self.assertIn("1000001 bytes exceeds body_bytes_max 1000000", str(refused.exception))
            self.assertEqual(broker.call("echo", b"after"), b"after")
            wrong: list[tuple[Any, dict[str, Any]]] = [
                (1, {}), ("\ud800", {}), (b"", {"timeout": -1}), (b"", {"timeout": 3601}),
                (b"", {"timeout": float("nan")}), (b"", {"priority": 256}),
                (b"", {"priority": -1}), (b"", {"trace_id": b"short"}), (b"", {"trace_id": "zz"}),
                (b"", {"span_id": -1}), (b"", {"span_id": 2**64}),
            ]
            for body, options in wrong:
                for ask in (broker.call, broker.submit, broker.stream, broker.converse):
                    with self.assertRaises(isect.UsageError, msg=f"{body!r} {options}"):
                        ask("echo", body, **options)
                self.assertEqual(broker.call("echo", b"after"), b"after")
            for service in ("", "1a", "a b", "x" * 33, "ä"):
                with self.assertRaises(isect.UsageError):
                    broker.call(service, b"")
            # Nothing of that cost the connection.
            self.assertEqual(played.count, 1)

    def test_what_is_said_of_a_request_is_in_its_header(self) -> None:
        heads: list[Any] = []

        def act(peer: Peer, number: int) -> None:
            lines = peer.log_in()
            heads.append(lines)
            while (found := peer.take()) is not None:
                if found[0].command == t.DATA:
                    heads.append(found[0])
                    peer.answer(found[0], b"")

        with Played(act) as played:
            with played.connect(name="tour", priority=7) as broker:
                broker.call("echo", b"")
                broker.call("echo", b"", timeout=1.5, idempotent=True, priority=9,
                            trace_id=b"t" * 16, span_id=5)
                broker.submit("echo", b"", extendable=True, trace_id="ab" * 16).result()
        login, _, one, two = heads
        self.assertEqual((login.get("service"), login.get("priority"), login.get("name"),
                          login.get("hostpid")), ("echo", "7", "tour", str(os.getpid())))
        self.assertEqual((one.reply, one.flags, one.deadline_ms, one.priority, one.trace_id,
                          one.span_id), (1, 1, 1500, 9, b"t" * 16, 5))
        self.assertEqual((two.flags, two.deadline_ms, two.trace_id), (2, 0, b"\xab" * 16))

    def test_an_answer_in_pieces(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                if found[0].command == t.DATA:
                    for at in range(5):
                        peer.answer(found[0], b"%d" % at, more=1, workerid=3)
                    peer.answer(found[0], b"end")

        with Played(act) as played, played.connect() as broker:
            self.assertEqual(broker.call("echo", b""), b"01234end")
            self.assertEqual(broker.submit("echo", b"").result(), b"01234end")
            self.assertEqual(list(broker.stream("echo", b"")),
                             [b"0", b"1", b"2", b"3", b"4", b"end"])
        with Played(act) as played, played.connect(reply_bytes_max=4) as broker:
            for ask in (broker.call, lambda *x: broker.submit(*x).result()):
                with self.assertRaises(isect.IsectError) as caught:
                    ask("echo", b"")
                self.assertEqual((caught.exception.name, caught.exception.ran),
                                 ("body_too_large", "yes"))

    def test_errors_come_as_what_they_are(self) -> None:
        names = ["overloaded", "worker_died", "deadline", "no_worker", "denied"]

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                if body == b"own":
                    peer.answer(head, b"no such colour", error=17)
                elif head.command == t.DATA:
                    peer.fail(head, body.decode())

        with Played(act) as played, played.connect() as broker:
            for name in names:
                with self.assertRaises(isect.IsectError) as caught:
                    broker.call("echo", name)
                self.assertEqual(caught.exception.name, name)
                failed = broker.submit("echo", name).exception()
                assert isinstance(failed, isect.IsectError)
                self.assertEqual(failed.name, name)
            with self.assertRaises(isect.WorkerFailed) as failed_work:
                broker.call("echo", "own")
            self.assertEqual((failed_work.exception.code, failed_work.exception.text),
                             (17, "no such colour"))
            self.assertIsInstance(broker.submit("echo", "deadline").exception(), TimeoutError)

    def test_a_broker_that_answers_too_late(self) -> None:
        late: list[Any] = []

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                if body == b"slow":
                    late.append(head)
                elif head.command == t.CANCEL:
                    self.assertEqual(head.sequence, late[-1].sequence)
                elif head.command == t.DATA:
                    for one in late:
                        peer.answer(one, b"late")
                    late.clear()
                    peer.answer(head, body)

        with without_grace(), Played(act) as played, \
                played.connect() as broker:
            broker.call("echo", b"")
            for at in range(20):
                with self.assertRaises(isect.DeadlineExceeded) as caught:
                    broker.call("echo", b"slow", timeout=0.005)
                self.assertEqual((caught.exception.name, caught.exception.ran),
                                 ("timeout", "maybe"))
                self.assertIn("'echo'", str(caught.exception))
                body = b"quick%d" % at
                self.assertEqual(broker.call("echo", body), body)

    def test_ten_thousand_answers_beside_timeouts_and_cancels(self) -> None:
        """Late answers of what was given up never reach another request."""
        rng = random.Random(4)

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            own = random.Random(5)
            late: list[tuple[int, bytes]] = []
            while (found := peer.take()) is not None:
                head, body = found
                if head.command != t.DATA:
                    continue
                late.append((head.sequence, body))
                if body.startswith(b"keep"):
                    continue
                own.shuffle(late)
                out = b"".join(frame(t.DATA, one, sequence=sequence) for sequence, one in late)
                late.clear()
                peer.raw(out)

        kept = 0
        with without_grace(), Played(act) as played, \
                played.connect() as broker:
            for at in range(10_000):
                kind = rng.randrange(40)
                if kind == 0:
                    with self.assertRaises(isect.DeadlineExceeded):
                        broker.call("echo", b"keep%d" % at, timeout=0.001)
                elif kind == 1:
                    one = broker.submit("echo", b"keep%d" % at)
                    self.assertTrue(one.cancel())
                    with self.assertRaises(concurrent.futures.CancelledError):
                        one.result()
                elif kind == 2:
                    stream = broker.stream("echo", b"keep%d" % at)
                    stream.close()
                    self.assertEqual(list(stream), [])
                else:
                    body = b"%d:%d" % (at, rng.randrange(10**9))
                    self.assertEqual(broker.call("echo", body), body)
                    kept += 1
        self.assertGreater(kept, 9000)


class Losses(unittest.TestCase):
    def test_a_broker_that_closes_after_each_login_is_not_tried_without_end(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            peer.take()

        with Played(act) as played, played.connect() as broker:
            with self.assertRaises(isect.IsectError):
                broker.call("echo", b"", idempotent=True, timeout=1.0)
            self.assertIn(played.count, range(2, 20))

    def test_the_end_at_each_byte_of_an_answer(self) -> None:
        answer = frame(t.DATA, b"the answer", sequence=1)
        for size in range(len(answer) + 1):
            def act(peer: Peer, number: int, size: int = size) -> None:
                if number == 0:
                    peer.log_in()
                    peer.want()
                    peer.raw(answer[:size])
                else:
                    echo(peer)

            with Played(act) as played, played.connect() as broker:
                if size == len(answer):
                    self.assertEqual(broker.call("echo", b"again"), b"the answer")
                else:
                    with self.assertRaises(isect.ConnectionFailed) as caught:
                        broker.call("echo", b"x")
                    self.assertEqual((caught.exception.name, caught.exception.ran),
                                     ("broker_lost", "maybe"))
                    self.assertEqual("inside a frame" in str(caught.exception), size > 0, size)
                # The end may come right behind the answer.
                self.assertEqual(broker.call("echo", b"again", idempotent=True), b"again")
                self.assertEqual(played.count, 2)

    def test_the_end_at_each_byte_of_the_login(self) -> None:
        whole = frame(t.LOGIN_OK, LOGIN_OK)
        for size in [*range(0, 70), len(whole) - 1]:
            def act(peer: Peer, number: int, size: int = size) -> None:
                peer.want(t.LOGIN)
                peer.raw(whole[:size])

            with Played(act) as played, played.connect(timeout=5) as broker:
                with self.assertRaises(isect.ConnectionFailed) as caught:
                    broker.call("echo", b"x")
                self.assertEqual((caught.exception.name, caught.exception.ran),
                                 ("unreachable", "no"))
                self.assertIn(played.address, str(caught.exception))

    def test_bytes_that_are_no_frames(self) -> None:
        rng = random.Random(7)
        good = frame(t.DATA, b"good", sequence=1)
        for at in range(64):
            bad = bytearray(good)
            bad[at] ^= 1 << rng.randrange(8)
            if bad == good:
                continue

            def act(peer: Peer, number: int, bad: bytes = bytes(bad)) -> None:
                peer.log_in()
                peer.want()
                peer.raw(bad)

            with Played(act) as played, played.connect(reconnect=False) as broker:
                try:
                    answer = broker.call("echo", b"x", timeout=0.05)
                    self.assertIn(answer, (b"good", b"goo", b"go", b"g", b""))
                except isect.IsectError as why:
                    self.assertIn(why.name, ("bad_frame", "bad_state", "version", "body_too_large",
                                             "out_of_range", "broker_lost", "application",
                                             "timeout", "unproven", "intervention", "unknown"))

    def test_what_may_run_twice_is_sent_again_and_nothing_else(self) -> None:
        seen: list[bytes] = []

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                if head.command != t.DATA:
                    continue
                seen.append(body)
                if number < 2:
                    return
                peer.answer(head, body)

        with Played(act) as played, played.connect() as broker:
            self.assertEqual(broker.call("echo", b"twice", idempotent=True), b"twice")
        self.assertEqual(seen, [b"twice"] * 3)
        seen.clear()
        with Played(act) as played, played.connect() as broker:
            future = broker.submit("echo", b"twice", idempotent=True)
            self.assertEqual(future.result(), b"twice")
        self.assertEqual(seen, [b"twice"] * 3)
        seen.clear()
        with Played(act) as played, played.connect() as broker:
            with self.assertRaises(isect.ConnectionFailed):
                broker.call("echo", b"once")
        with Played(act) as played, played.connect(reconnect=False) as broker:
            with self.assertRaises(isect.ConnectionFailed) as caught:
                broker.call("echo", b"idempotent", idempotent=True)
            self.assertEqual(caught.exception.ran, "maybe")
            with self.assertRaises(isect.ConnectionFailed) as caught:
                broker.call("echo", b"never sent")
            self.assertEqual(caught.exception.ran, "no")
        self.assertEqual(seen, [b"once", b"idempotent"])

    def test_a_repeated_request_that_is_refused_may_have_run(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            head, _ = peer.want()
            if number:
                peer.fail(head, "no_worker")
                peer.take()

        with Played(act) as played, played.connect() as broker:
            with self.assertRaises(isect.IsectError) as caught:
                broker.call("echo", b"", idempotent=True)
            self.assertEqual((caught.exception.name, caught.exception.ran), ("no_worker", "maybe"))

    def test_a_broker_that_is_away_is_waited_for_as_long_as_the_request_has_time(self) -> None:
        def act(peer: Peer, number: int) -> None:
            if number in (1, 2):
                peer.want(t.LOGIN)
                return
            peer.log_in()
            while (found := peer.take()) is not None:
                if found[0].command == t.DATA:
                    peer.answer(found[0], found[1])
                    if number == 0:
                        return

        with Played(act) as played, played.connect() as broker:
            self.assertEqual(broker.call("echo", b"one"), b"one")
            # It notices the end before it sends, or with it.
            self.assertEqual(broker.call("echo", b"two", timeout=5, idempotent=True), b"two")
            self.assertEqual(played.count, 4)
        with Played(lambda peer, number: echo(peer) if number == 0 else None) as played:
            with played.connect() as broker:
                broker.call("echo", b"")
                link = broker._links["echo"]
                with link.lock:
                    link._lose("played")
                begun = time.monotonic()
                with self.assertRaises(isect.ConnectionFailed) as caught:
                    broker.call("echo", b"", timeout=0.3)
                self.assertEqual(caught.exception.ran, "no")
                self.assertLess(time.monotonic() - begun, 3)

    def test_a_login_that_is_refused(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.want(t.LOGIN)
            peer.fail(None, "unknown_service")

        with Played(act) as played, played.connect() as broker:
            for ask in (broker.call, lambda *x: broker.submit(*x).result(), broker.send,
                        lambda *x: list(broker.stream(*x)), broker.converse):
                with self.assertRaises(isect.Refused) as caught:
                    ask("echo", b"")
                self.assertEqual(caught.exception.name, "unknown_service")
                self.assertIn(f"login at {played.address}", str(caught.exception))
            # Each asked anew.
            self.assertEqual(played.count, 5)

    def test_nobody_listens(self) -> None:
        with self.assertRaises(isect.ConnectionFailed) as caught:
            isect.connect("unix:/nonexistent/socket")
        self.assertEqual(caught.exception.name, "unreachable")
        self.assertIn("unix:/nonexistent/socket: No such file", str(caught.exception))
        sock = socket.socket()
        sock.bind(("127.0.0.1", 0))
        port = sock.getsockname()[1]
        sock.close()
        begun = time.monotonic()
        with self.assertRaises(isect.ConnectionFailed) as caught:
            isect.connect([f"127.0.0.1:{port}", "unix:/nonexistent/socket"])
        self.assertIn(f"127.0.0.1:{port}: Connection refused; ", str(caught.exception))
        self.assertNotIn("-h", caught.exception.advice)
        self.assertLess(time.monotonic() - begun, 5)

    def test_what_listens_is_no_broker(self) -> None:
        for said in (b"HTTP/1.1 400 Bad Request\r\n\r\n" + b"x" * 100, b"SSH-2.0\r\n", b""):
            with Played(lambda peer, number: peer.raw(said)) as played:
                with self.assertRaises(isect.ConnectionFailed) as caught:
                    isect.connect(played.address, timeout=1)
                self.assertEqual(caught.exception.name, "unreachable")
        def pong(peer: Peer, number: int) -> None:
            peer.want(t.PING)
            peer.send(t.PONG, sequence=1)
            peer.take()
        with Played(pong) as played:
            isect.connect(played.address).close()

    def test_the_reason_that_the_broker_gave(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            peer.want()
            peer.fail(None, "client_deleted")

        with Played(act) as played, played.connect() as broker:
            with self.assertRaises(isect.ConnectionFailed) as caught:
                broker.call("echo", b"", idempotent=True)
            self.assertEqual((caught.exception.name, caught.exception.ran),
                             ("client_deleted", "maybe"))

    def test_pings_are_answered_and_a_silent_broker_is_gone(self) -> None:
        got = []

        def act(peer: Peer, number: int) -> None:
            peer.log_in(b"silence_ms 300\n")
            head, _ = peer.want()
            peer.send(t.PING, sequence=77)
            got.append(peer.want(t.PONG)[0].sequence)
            got.append(peer.want(t.PING)[0].sequence)
            # No pong.
            peer.take()

        with Played(act) as played, played.connect(reconnect=False) as broker:
            begun = time.monotonic()
            with self.assertRaises(isect.ConnectionFailed) as caught:
                broker.call("echo", b"", timeout=20)
            self.assertIn("300 ms and answered no ping", str(caught.exception))
            self.assertLess(time.monotonic() - begun, 5)
        self.assertEqual(got, [77, 0])


class Steps(unittest.TestCase):
    """A broker that goes away at each step of what a client does, and then comes back."""

    def act(self, kind: int, after: bool) -> Any:
        """Goes away when a frame of this kind comes on the first connection of its service: before
        the answer or right behind it."""
        gone: set[str] = set()

        def act(peer: Peer, number: int) -> None:
            found = peer.take()
            if found is None:
                return
            service = Lines.parse(found[1]).get("service")
            peer.send(t.LOGIN_OK, LOGIN_OK)
            while (found := peer.take()) is not None:
                head, body = found
                ends = head.command == kind and service not in gone
                if ends:
                    gone.add(service)
                    if not after:
                        return
                self.answer(peer, head, body)
                if ends:
                    return

        return act

    def answer(self, peer: Peer, head: Any, body: bytes) -> None:
        if head.command == t.DATA and head.reply and body == b"talk":
            peer.answer(head, b"go on", more=1, workerid=3)
        elif head.command == t.DATA and head.reply and not head.more:
            peer.answer(head, body)
        elif head.command == t.PUBLISH and head.reply:
            peer.send(t.PUBLISHED, b"publish %d\nat 7:9\n" % head.sequence)
        elif head.command == t.FLUSH:
            peer.send(t.FLUSHED, b"flush %d\n" % head.sequence)
        elif head.command in (t.SUBSCRIBE, t.UNSUBSCRIBE):
            key = Lines.parse(body).get("subscription")
            if head.command == t.SUBSCRIBE:
                peer.send(t.SUBSCRIBED, f"subscription {key}\nat 7:9\n".encode())
                peer.send(t.CAUGHT_UP, f"subscription {key}\n".encode())
                peer.send(t.MESSAGE, b"topic a\n\nx", sequence=int(key), transaction=10)
            else:
                peer.send(t.UNSUBSCRIBED, f"subscription {key}\n".encode())
        elif head.command == t.ANNOUNCE:
            lines = Lines.parse(body)
            peer.send(t.ANNOUNCED, f"sequence {lines.get('sequence')}\nid {lines.get('id')}\n"
                      "incarnation 1\nbeat_ms 10\nactivity_timeout_ms 5000\n".encode())
        elif head.command == t.BEAT:
            peer.send(t.BEAT_OK, f"beat {Lines.parse(body).get('beat')}\n".encode())

    def steps(self, broker: isect.Broker) -> dict[str, Any]:
        def talk() -> None:
            with broker.converse("echo", b"talk") as one:
                self.assertEqual(one.receive(), b"go on")
                one.send(b"end")
                self.assertEqual(one.receive(), b"end")

        def silent() -> None:
            broker.send("echo", b"x")
            broker.flush(5)

        def subscription() -> None:
            with broker.subscribe("a", start="7:1") as sub:
                message = sub.receive(5)
                assert message is not None
                self.assertEqual(message.payload, b"x")
                sub.unsubscribe()

        def instance() -> None:
            with broker.announce("pump") as one:
                one.set_state("running", "x")
                broker.beat()
                await_that("the instance", lambda: one.is_watched)

        return {
            "call": lambda: broker.call("echo", b"x"),
            "idempotent": lambda: broker.call("echo", b"x", idempotent=True),
            "submit": lambda: broker.submit("echo", b"x").result(5),
            "stream": lambda: list(broker.stream("echo", b"x")),
            "pieces": lambda: broker.send_pieces("echo", [b"1", b"2", b"3"]),
            "talk": talk, "silent": silent, "subscription": subscription, "instance": instance,
            "publish": lambda: broker.publish("a", b"x", wait=True),
            "command": lambda: broker.command("x"),
        }

    def test_each(self) -> None:
        # A subscription and an instance outlast it; so does what may be sent again.
        permanent = {"idempotent", "instance"}
        with Played(echo) as played, played.connect() as broker:
            names = list(self.steps(broker))
        kinds = [t.DATA, t.PUBLISH, t.FLUSH, t.SUBSCRIBE, t.UNSUBSCRIBE, t.ANNOUNCE, t.BEAT,
                 t.STATE_CHANGE]
        for kind in kinds:
            for after in (False, True):
                for name in names:
                    with self.subTest(kind=t.KINDS[kind], after=after, name=name), \
                            Played(self.act(kind, after)) as played, played.connect() as broker:
                        step = self.steps(broker)[name]
                        try:
                            step()
                        except isect.ConnectionFailed as why:
                            self.assertNotIn(name, permanent)
                            self.assertEqual(why.name, "broker_lost")
                        # And then all is well; the end may have come right behind the answer.
                        for _ in range(3):
                            try:
                                step()
                                break
                            except isect.ConnectionFailed:
                                self.assertTrue(after)
                        else:
                            self.fail("it does not come back")


class Futures(unittest.TestCase):
    def test_they_are_futures_of_the_standard_library(self) -> None:
        with Played(echo) as played, played.connect() as broker:
            futures = [broker.submit("echo", b"%d" % at) for at in range(200)]
            done = set(concurrent.futures.as_completed(futures, TIMEOUT))
            self.assertEqual(done, set(futures))
            self.assertEqual([one.result() for one in futures], [b"%d" % at for at in range(200)])
            futures = [broker.submit("echo", b"%d" % at) for at in range(200)]
            finished, rest = concurrent.futures.wait(futures, TIMEOUT)
            self.assertEqual((len(finished), len(rest)), (200, 0))

    def test_callbacks_come_without_anybody_who_waits(self) -> None:
        with Played(echo) as played, played.connect() as broker:
            told: list[bytes] = []
            came = threading.Event()

            def again(future: concurrent.futures.Future[bytes]) -> None:
                told.append(future.result())
                if len(told) < 50:
                    # A callback may ask again.
                    broker.submit("echo", b"%d" % len(told)).add_done_callback(again)
                else:
                    self.assertEqual(broker.call("echo", b"in a callback"), b"in a callback")
                    came.set()

            broker.submit("echo", b"0").add_done_callback(again)
            self.assertTrue(came.wait(TIMEOUT))
            self.assertEqual(told, [b"%d" % at for at in range(50)])

    def test_more_than_the_connection_has_room_for(self) -> None:
        most = []

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            held = []
            while (found := peer.take()) is not None:
                if found[0].command == t.DATA:
                    held.append(found)
                if len(held) == 64 or found[1] == b"999":
                    most.append(len(held))
                    for head, body in held:
                        peer.answer(head, body)
                    held.clear()

        with Played(act) as played, played.connect() as broker:
            futures = [broker.submit("echo", b"%d" % at) for at in range(1000)]
            self.assertEqual([one.result(TIMEOUT) for one in futures],
                             [b"%d" % at for at in range(1000)])
        self.assertEqual(max(most), 64)

    def test_a_wait_that_is_too_short_and_one_that_has_no_end(self) -> None:
        go = threading.Event()

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            head, body = peer.want()
            go.wait(TIMEOUT)
            peer.answer(head, body)
            peer.take()

        with Played(act) as played, played.connect() as broker:
            future = broker.submit("echo", b"x")
            for timeout in (0, 0.01):
                with self.assertRaises(concurrent.futures.TimeoutError):
                    future.result(timeout)
                with self.assertRaises(concurrent.futures.TimeoutError):
                    future.exception(timeout)
            self.assertFalse(future.done())
            go.set()
            self.assertEqual(future.result(), b"x")
            self.assertFalse(future.cancel())

    def test_cancel(self) -> None:
        cancelled = threading.Event()

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            head, _ = peer.want()
            other, _ = peer.want(t.CANCEL)
            self.assertEqual(head.sequence, other.sequence)
            peer.answer(head, b"late")
            cancelled.set()
            head, _ = peer.want()
            peer.answer(head, b"right")
            peer.take()

        with Played(act) as played, played.connect() as broker:
            future = broker.submit("echo", b"x")
            self.assertTrue(future.cancel())
            self.assertTrue(future.cancel())
            self.assertTrue(future.cancelled() and future.done())
            finished, _ = concurrent.futures.wait([future], TIMEOUT)
            self.assertEqual(finished, {future})
            cancelled.wait(TIMEOUT)
            self.assertEqual(broker.call("echo", b"y"), b"right")

    def test_a_future_whose_time_is_over_ends_by_itself(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while peer.take() is not None:
                pass

        with without_grace(), Played(act) as played, \
                played.connect() as broker:
            futures = [broker.submit("echo", b"", timeout=0.05) for _ in range(3)]
            finished, _ = concurrent.futures.wait(futures, TIMEOUT)
            self.assertEqual(len(finished), 3)
            for one in futures:
                self.assertIsInstance(one.exception(), isect.DeadlineExceeded)

    def test_a_future_whose_time_is_over_while_it_is_waited_for(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while peer.take() is not None:
                pass

        with without_grace(), Played(act) as played, \
                played.connect() as broker:
            for timeout in (None, 5):
                future = broker.submit("echo", b"", timeout=0.05)
                told: list[object] = []
                future.add_done_callback(told.append)
                with self.assertRaises(isect.DeadlineExceeded) as caught:
                    future.result(timeout)
                self.assertEqual(caught.exception.ran, "maybe")
                self.assertEqual(told, [future])

    def test_close_ends_what_is_under_way(self) -> None:
        said = []

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                said.append(found[0].command)

        with Played(act) as played:
            broker = played.connect()
            future = broker.submit("echo", b"")
            await_that("the request", lambda: said)
            broker.close()
            broker.close()
            failed = future.exception(TIMEOUT)
            assert isinstance(failed, isect.IsectError)
            self.assertEqual((failed.name, failed.whose, failed.ran),
                             ("broker_lost", "client", "maybe"))
            for ask in (broker.call, broker.submit, broker.stream, broker.send, broker.converse):
                for service in ("echo", "other"):
                    with self.assertRaises(isect.UsageError) as caught:
                        ask(service, b"")
                    self.assertIn("closed by the program", str(caught.exception))
        self.assertEqual(said[-1], t.LOGOUT)


class Conversations(unittest.TestCase):
    def test_questions_and_answers(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            head, body = peer.want()
            peer.answer(head, b"which?", more=1, workerid=9)
            second, body = peer.want()
            self.assertEqual((second.sequence, second.workerid, second.more, body),
                             (head.sequence, 9, 0, b"this"))
            peer.answer(head, b"done")
            peer.take()

        with Played(act) as played, played.connect() as broker:
            with broker.converse("echo", b"give") as talk:
                self.assertEqual(talk.receive(), b"which?")
                with self.assertRaises(isect.DeadlineExceeded):
                    talk.receive(0.01)
                talk.send("this")
                self.assertEqual(talk.receive(5), b"done")
                self.assertIsNone(talk.receive())
                with self.assertRaises(isect.Refused) as caught:
                    talk.send(b"more")
                self.assertEqual(caught.exception.name, "no_conversation")

    def test_one_that_is_left_is_given_up(self) -> None:
        for way in ("with", "cancel", "error"):
            def act(peer: Peer, number: int) -> None:
                peer.log_in()
                head, _ = peer.want()
                peer.answer(head, b"which?", more=1, workerid=9)
                found = peer.want(t.CANCEL)
                self.assertEqual(found[0].sequence, head.sequence)
                peer.fail(head, "cancelled")
                head, body = peer.want()
                peer.answer(head, body)
                peer.take()

            with Played(act) as played, played.connect() as broker:
                try:
                    with broker.converse("echo", b"give") as talk:
                        for frame_ in talk:
                            self.assertEqual(frame_, b"which?")
                            if way == "cancel":
                                talk.cancel()
                            elif way == "error":
                                raise KeyError
                            break
                except KeyError:
                    self.assertEqual(way, "error")
                self.assertEqual(broker.call("echo", b"next"), b"next")

    def test_a_request_in_pieces(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while True:
                out = []
                while True:
                    found = peer.take()
                    if found is None or found[0].command == t.LOGOUT:
                        return
                    head, body = found
                    out.append((head.more, body))
                    if not head.more:
                        break
                peer.answer(head, repr(out).encode())

        with Played(act) as played, played.connect() as broker:
            given: list[tuple[Any, object]] = [
                ([], [(0, b"")]), ([b"a"], [(0, b"a")]), (["a", b"b"], [(1, b"a"), (0, b"b")]),
                ([b"", b"", b""], [(1, b""), (1, b""), (0, b"")]),
            ]
            for pieces, expected in given:
                self.assertEqual(broker.send_pieces("echo", pieces), repr(expected).encode())
            self.assertEqual(broker.send_pieces("echo", (b"%d" % at for at in range(3))),
                             repr([(1, b"0"), (1, b"1"), (0, b"2")]).encode())

    def test_the_answer_before_the_last_piece(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            head, _ = peer.want()
            peer.fail(head, "overloaded")
            more = 1
            while more:
                # The rest, and its last piece.
                found, _ = peer.want()
                self.assertEqual(found.sequence, head.sequence)
                more = found.more
            head, body = peer.want()
            peer.answer(head, body)
            peer.take()

        def pieces() -> Any:
            yield b"1"
            yield b"2"
            time.sleep(0.05)
            for at in range(200):
                yield b"x"

        with Played(act) as played, played.connect() as broker:
            with self.assertRaises(isect.Refused):
                broker.send_pieces("echo", pieces())
            self.assertEqual(broker.call("echo", b"next"), b"next")

    def test_pieces_that_fail_give_the_request_up(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            head, _ = peer.want()
            self.assertEqual([peer.want(kind)[0].sequence for kind in (t.CANCEL, t.DATA)],
                             [head.sequence] * 2)
            peer.fail(head, "cancelled")
            head, body = peer.want()
            peer.answer(head, body)
            peer.take()

        def pieces() -> Any:
            yield b"1"
            yield b"2"
            raise KeyError("no more")

        with Played(act) as played, played.connect() as broker:
            with self.assertRaises(KeyError):
                broker.send_pieces("echo", pieces())
            self.assertEqual(broker.call("echo", b"next"), b"next")

    def test_a_worker_that_puts_the_deadline_off(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            head, _ = peer.want()
            for _ in range(3):
                peer.answer(head, b".", more=1, deadline_ms=400)
                time.sleep(0.15)
            peer.answer(head, b"end")
            peer.take()

        with without_grace():
            with Played(act) as played, played.connect() as broker:
                self.assertEqual(broker.call("echo", b"", timeout=0.2, extendable=True), b"...end")
            with Played(act) as played, played.connect() as broker:
                with self.assertRaises(isect.DeadlineExceeded):
                    broker.call("echo", b"", timeout=0.2)


class Silent(unittest.TestCase):
    def test_requests_without_an_answer_and_flush(self) -> None:
        seen: list[Any] = []

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                seen.append((head.command, head.reply, body))
                if head.command == t.FLUSH:
                    lines = Lines([("flush", str(head.sequence)), ("refused", "2")])
                    peer.send(t.FLUSHED, lines.bytes())

        with Played(act) as played, played.connect() as broker:
            self.assertEqual(broker.flush(), 0)
            for at in range(3):
                broker.send("echo", b"%d" % at)
            self.assertEqual(broker.flush(5), 2)
            self.assertEqual(broker.flush(5), 0)
            broker.send("echo", b"last")
        self.assertEqual(seen, [(0, 0, b"0"), (0, 0, b"1"), (0, 0, b"2"), (t.FLUSH, 0, b""),
                                (0, 0, b"last"), (t.FLUSH, 0, b""), (t.LOGOUT, 0, b"")])

    def test_a_flush_that_does_not_come(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while peer.take() is not None:
                pass

        with Played(act) as played:
            broker = played.connect()
            broker.send("echo", b"")
            with self.assertRaises(isect.DeadlineExceeded):
                broker.flush(0.01)
            broker.send("echo", b"")
            broker.publish("a", b"")
            begun = time.monotonic()
            with self.assertLogs("isect", "WARNING") as logged:
                broker.close(flush_timeout=0.05)
            self.assertLess(time.monotonic() - begun, 1)
            self.assertIn("service 'echo'", logged.output[0])

    def test_after_a_loss_a_flush_says_that_nothing_is_known(self) -> None:
        for what in ("send", "publish"):
            def act(peer: Peer, number: int) -> None:
                peer.log_in()
                if number == 0:
                    peer.take()
                    return
                while (found := peer.take()) is not None:
                    head, body = found
                    if head.command == t.FLUSH:
                        peer.send(t.FLUSHED, b"flush %d\nrefused 0\n" % head.sequence)
                    elif head.command == t.DATA:
                        peer.answer(head, body)
                    elif head.command == t.PUBLISH:
                        peer.send(t.PUBLISHED, b"publish %d\nat 1:1\n" % head.sequence)

            with self.subTest(what), Played(act) as played, played.connect() as broker:
                if what == "send":
                    broker.send("echo", b"")
                    broker.call("echo", b"", idempotent=True, timeout=TIMEOUT)
                else:
                    broker.publish("a", b"")
                    await_that("the loss", lambda: broker._links["bus"].unflushed)
                with self.assertRaises(isect.ConnectionFailed) as caught:
                    broker.flush(TIMEOUT)
                self.assertEqual(caught.exception.ran, "maybe")
                self.assertEqual(broker.flush(TIMEOUT), 0)

    def test_a_block_that_fails_waits_for_nothing_at_its_end(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                self.assertNotEqual(found[0].command, t.FLUSH)

        with Played(act) as played, self.assertRaises(KeyError):
            with played.connect() as broker:
                broker.send("echo", b"")
                raise KeyError


class Threads(unittest.TestCase):
    def test_many_threads_on_one_connection(self) -> None:
        with Played(echo) as played, played.connect() as broker:
            wrong: list[object] = []

            def work(own: int) -> None:
                rng = random.Random(own)
                try:
                    for at in range(300):
                        body = b"%d-%d" % (own, at) + bytes(rng.randrange(3000))
                        kind = rng.randrange(4)
                        if kind == 0:
                            answer = broker.submit("echo", body).result(TIMEOUT)
                        elif kind == 1:
                            answer = b"".join(broker.stream("echo", body))
                        else:
                            answer = broker.call("echo", body, timeout=TIMEOUT)
                        if answer != body:
                            wrong.append((body, answer))
                except BaseException as why:
                    wrong.append(why)

            threads = [threading.Thread(target=work, args=(at,)) for at in range(8)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
                self.assertFalse(thread.is_alive(), "a thread hangs")
            self.assertEqual(wrong, [])
            self.assertEqual(played.count, 1)

    def test_threads_whose_connection_goes_again_and_again(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            for _ in range(20):
                found = peer.take()
                if found is None:
                    return
                if found[0].command == t.DATA:
                    peer.answer(found[0], found[1])

        with Played(act) as played, played.connect() as broker:
            wrong: list[object] = []

            def work(own: int) -> None:
                try:
                    for at in range(100):
                        body = b"%d-%d" % (own, at)
                        answer = broker.call("echo", body, timeout=TIMEOUT, idempotent=True)
                        if answer != body:
                            wrong.append((body, answer))
                except BaseException as why:
                    wrong.append(why)

            threads = [threading.Thread(target=work, args=(at,)) for at in range(6)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join(60)
                self.assertFalse(thread.is_alive(), "a thread hangs")
            self.assertEqual(wrong, [])
            self.assertGreater(played.count, 20)

    def test_one_future_many_waiters(self) -> None:
        go = threading.Event()

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            head, body = peer.want()
            go.wait(TIMEOUT)
            peer.answer(head, body)
            peer.take()

        with Played(act) as played, played.connect() as broker:
            future = broker.submit("echo", b"x")
            got: list[bytes] = []
            threads = [threading.Thread(target=lambda: got.append(future.result(TIMEOUT)))
                       for _ in range(5)]
            for thread in threads:
                thread.start()
            go.set()
            for thread in threads:
                thread.join(TIMEOUT)
            self.assertEqual(got, [b"x"] * 5)

    def test_large_requests_while_another_thread_reads(self) -> None:
        with Played(echo) as played, played.connect() as broker:
            bodies = [bytes([at]) * 900_000 for at in range(6)]
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                for _ in range(3):
                    answers = pool.map(lambda body: broker.call("echo", body, timeout=30), bodies)
                    self.assertEqual(list(answers), bodies)

    def test_a_close_while_others_wait(self) -> None:
        asked = threading.Event()

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            peer.want()
            peer.want()
            asked.set()
            while peer.take() is not None:
                pass

        with Played(act) as played:
            broker = played.connect()
            failed: list[BaseException] = []

            def work() -> None:
                try:
                    broker.call("echo", b"", timeout=TIMEOUT)
                except isect.IsectError as why:
                    failed.append(why)

            threads = [threading.Thread(target=work) for _ in range(2)]
            for thread in threads:
                thread.start()
            asked.wait(TIMEOUT)
            broker.close()
            for thread in threads:
                thread.join(5)
                self.assertFalse(thread.is_alive(), "a thread hangs")
            self.assertEqual(len(failed), 2)


class Stuck(unittest.TestCase):
    def test_a_broker_that_takes_nothing(self) -> None:
        go = threading.Event()

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            if number == 0:
                go.wait(TIMEOUT)
            else:
                head, body = peer.want()
                peer.answer(head, body)
                peer.take()

        with without_grace(), Played(act) as played, \
                played.connect() as broker:
            begun = time.monotonic()
            with self.assertRaises(isect.IsectError) as caught:
                # More than the socket holds: a part of it has left.
                broker.call("echo", bytes(1_000_000), timeout=0.2)
            self.assertLess(time.monotonic() - begun, 5)
            self.assertIn(caught.exception.name, ("broker_lost", "timeout"))
            self.assertEqual(broker.call("echo", b"next", timeout=5), b"next")
            go.set()

    def test_a_request_none_of_which_has_left_has_not_run(self) -> None:
        go = threading.Event()
        seen: list[bytes] = []

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            go.wait(TIMEOUT)
            while (found := peer.take()) is not None:
                if found[0].command == t.DATA:
                    seen.append(found[1][:10])
                    peer.answer(found[0], b"")

        with without_grace(), Played(act) as played, \
                played.connect() as broker:
            broker._link("echo")
            thread = threading.Thread(target=broker.call, args=("echo", bytes(1_000_000)))
            thread.start()
            await_that("a frame that waits", lambda: broker._links["echo"].outbox)
            with self.assertRaises(isect.DeadlineExceeded) as caught:
                broker.call("echo", b"never", timeout=0.1)
            self.assertEqual(caught.exception.ran, "no")
            go.set()
            thread.join(TIMEOUT)
            self.assertEqual(broker.call("echo", b"next"), b"")
        self.assertEqual(seen, [bytes(10), b"next"])

    def test_a_large_request_beside_a_reader_that_gets_nothing(self) -> None:
        asked = threading.Event()
        large = threading.Event()

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            first, _ = peer.want()
            asked.set()
            head, body = peer.want()
            self.assertEqual(len(body), 1_000_000)
            peer.answer(head, b"large")
            large.wait(TIMEOUT)
            peer.answer(first, b"first")
            peer.take()

        with Played(act) as played, played.connect() as broker:
            got: list[bytes] = []
            thread = threading.Thread(target=lambda: got.append(broker.call("echo", b"")))
            thread.start()
            asked.wait(TIMEOUT)
            self.assertEqual(broker.call("echo", bytes(1_000_000), timeout=10), b"large")
            large.set()
            thread.join(TIMEOUT)
            self.assertEqual(got, [b"first"])

    def test_a_future_whose_time_is_over_beside_threads_that_wait(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                if head.command == t.DATA and body != b"silent":
                    time.sleep(0.001)
                    peer.answer(head, body)

        with without_grace(), Played(act) as played, \
                played.connect() as broker:
            stop = threading.Event()

            def work() -> None:
                while not stop.is_set():
                    broker.call("echo", b"x")

            thread = threading.Thread(target=work)
            thread.start()
            try:
                future = broker.submit("echo", b"silent", timeout=0.05)
                finished, _ = concurrent.futures.wait([future], TIMEOUT)
                self.assertEqual(finished, {future})
            finally:
                stop.set()
                thread.join(TIMEOUT)

    def test_objects_that_nobody_has_any_more(self) -> None:
        seen: list[int] = []

        def act(peer: Peer, number: int) -> None:
            lines = peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                seen.append(head.command)
                if head.command == t.SUBSCRIBE:
                    key = Lines.parse(body).get("subscription")
                    peer.send(t.SUBSCRIBED, f"subscription {key}\nat 7:1\n".encode())
                elif lines.get("service") == "echo" and body != b"silent":
                    peer.answer(head, body)

        with Played(act) as played:
            broker = played.connect()
            sub = broker.subscribe("a.b")
            del sub
            stream = broker.stream("echo", b"silent")
            del stream
            await_that("the end of both", lambda: {t.UNSUBSCRIBE, t.CANCEL} <= set(seen))
            with self.assertWarnsRegex(ResourceWarning, "isect.Broker at .* was never closed"):
                del broker
            await_that("the goodbyes", lambda: seen.count(t.LOGOUT) == 2)

    def test_no_file_is_free(self) -> None:
        code = """if True:
            import asyncio, os, resource, sys, time
            import isect, isect.aio

            def fill():
                held = []
                try:
                    while True:
                        held.append(os.open("/dev/null", os.O_RDONLY))
                except OSError:
                    return held

            def refused(ask):
                try:
                    ask()
                    print("no error")
                except isect.ConnectionFailed as why:
                    print(why.name, why.whose, why.advice)

            async def asks():
                async with isect.aio.connect(sys.argv[1], verify=False, timeout=0.1) as broker:
                    await broker.call("echo", b"")
                    held = fill()
                    try:
                        await broker.publish("a", b"")
                    except isect.ConnectionFailed as why:
                        print(why.name, why.whose, why.advice)
                    for one in held:
                        os.close(one)
                    # An attempt that began before may still fail.
                    until = time.monotonic() + 10
                    while True:
                        try:
                            return await broker.publish("a", b"")
                        except isect.ConnectionFailed:
                            if time.monotonic() > until:
                                raise
                            await asyncio.sleep(0)

            resource.setrlimit(resource.RLIMIT_NOFILE, (40, 40))
            with isect.connect(sys.argv[1], verify=False) as broker:
                broker.call("echo", b"")
                held = fill()
                refused(lambda: broker.publish("a", b""))
                refused(lambda: broker.submit("other", b"").result())
                refused(lambda: isect.connect(sys.argv[1]))
                broker.call("echo", b"")
                for one in held:
                    os.close(one)
                broker.publish("a", b"")
            asyncio.run(asks())
        """
        with Played(echo) as played:
            done = subprocess.run([sys.executable, "-c", code, played.address], text=True,
                                  capture_output=True, timeout=TIMEOUT, check=False)
        self.assertEqual(done.stderr, "", done.stderr)
        self.assertEqual(done.stdout.splitlines(), [
            "unreachable client close files, or raise the limit of open files"] * 4)

    def test_a_program_that_closes_nothing_ends_without_a_word(self) -> None:
        with Played(echo) as played:
            for last in ("", "stream = broker.stream('echo', b'')", "broker.submit('echo', b'')",
                         "talk = broker.converse('echo', b'', more=True)"):
                code = (f"import isect\nbroker = isect.connect({played.address!r}, verify=False)\n"
                        f"broker.call('echo', b'')\n{last}")
                done = subprocess.run([sys.executable, "-X", "dev", "-c", code],
                                      capture_output=True, timeout=TIMEOUT, check=False)
                self.assertEqual((done.returncode, done.stdout, done.stderr), (0, b"", b""), last)

    def test_a_conversation_without_a_deadline(self) -> None:
        go = threading.Event()

        def act(peer: Peer, number: int) -> None:
            peer.log_in(b"deadline_ms 100\n")
            head, _ = peer.want()
            peer.answer(head, b"held", more=1, workerid=3)
            go.wait(TIMEOUT)
            peer.answer(head, b"end")
            peer.take()

        with without_grace(), Played(act) as played, \
                played.connect() as broker:
            with broker.converse("locks", b"a", timeout=0.2) as talk:
                self.assertEqual(talk.receive(), b"held")
                with self.assertRaises(isect.DeadlineExceeded):
                    talk.receive(0.4)
                go.set()
                self.assertEqual(list(talk), [b"end"])


def patient(peer: Peer, number: int) -> None:
    """As `echo`, for a client whose connections may be left by an interrupt in the middle of making
    them: Python closes those when it gets to it."""
    peer.sock.settimeout(5)
    try:
        echo(peer)
    except TimeoutError:
        pass


class Signals(unittest.TestCase):
    def within(self, manager: contextlib.AbstractContextManager[object]) -> None:
        """As `enterContext` of Python 3.11."""
        manager.__enter__()
        self.addCleanup(manager.__exit__, None, None, None)

    def test_an_interrupt_in_a_wait_leaves_the_connection_usable(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            held = None
            while (found := peer.take()) is not None:
                head, body = found
                if body == b"slow":
                    held = head
                    time.sleep(0.01)
                    os.kill(os.getpid(), signal.SIGINT)
                elif body == b"later":
                    held = head
                elif head.command == t.DATA:
                    if held is not None:
                        peer.answer(held, b"late")
                        held = None
                    peer.answer(head, body)

        before = signal.getsignal(signal.SIGINT)
        signal.signal(signal.SIGINT, signal.default_int_handler)
        try:
            with Played(act) as played, played.connect() as broker:
                for at in range(30):
                    with self.assertRaises(KeyboardInterrupt):
                        broker.call("echo", b"slow")
                    body = b"%d" % at
                    self.assertEqual(broker.call("echo", body, timeout=5), body)
                    future = broker.submit("echo", b"later")
                    timer = threading.Timer(0.02, os.kill, (os.getpid(), signal.SIGINT))
                    with self.assertRaises(KeyboardInterrupt):
                        timer.start()
                        future.result()
                    timer.join()
                    self.assertEqual(broker.call("echo", body, timeout=5), body)
                    self.assertEqual(future.result(5), b"late")
                self.assertEqual(played.count, 1)
        finally:
            signal.signal(signal.SIGINT, before)

    def test_interrupts_at_any_moment_mix_up_no_answers(self) -> None:
        class Stop(BaseException):
            pass

        is_armed = False

        def stop(*_: object) -> None:
            nonlocal is_armed
            if is_armed:
                is_armed = False
                raise Stop

        # It may hit a destructor, of which Python then tells on stderr.
        self.within(mock.patch("sys.unraisablehook", lambda *_: None))
        self.within(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)
        before = signal.signal(signal.SIGALRM, stop)
        interrupts = 0
        try:
            with Played(patient) as played, played.connect() as broker:
                rng = random.Random(11)
                until = time.monotonic() + 4
                at = 0
                while time.monotonic() < until:
                    at += 1
                    body = b"%d" % at
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 10 ** -rng.uniform(3, 5))
                        is_armed = True
                        answer = broker.call("echo", body, timeout=5, idempotent=True)
                        self.assertEqual(answer, body)
                    except Stop:
                        interrupts += 1
                    is_armed = False
                self.assertGreater(interrupts, 100)
                self.assertEqual(broker.call("echo", b"after", timeout=5), b"after")
                self.assertLess(played.count, interrupts)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_interrupts_beside_threads_that_wait(self) -> None:
        class Stop(BaseException):
            pass

        is_armed = False

        def stop(*_: object) -> None:
            nonlocal is_armed
            if is_armed:
                is_armed = False
                raise Stop

        # It may hit a destructor, of which Python then tells on stderr.
        self.within(mock.patch("sys.unraisablehook", lambda *_: None))
        self.within(warnings.catch_warnings())
        warnings.simplefilter("ignore", ResourceWarning)
        before = signal.signal(signal.SIGALRM, stop)
        wrong: list[object] = []
        answered = 0
        until = time.monotonic() + 3
        try:
            with Played(patient) as played, played.connect() as broker:
                def work(own: int) -> None:
                    nonlocal answered
                    at = 0
                    while time.monotonic() < until:
                        at += 1
                        body = b"%d-%d" % (own, at)
                        try:
                            if broker.call("echo", body, timeout=3, idempotent=True) != body:
                                wrong.append(body)
                            answered += 1
                        except isect.IsectError:
                            pass

                threads = [threading.Thread(target=work, args=(at,)) for at in range(3)]
                for thread in threads:
                    thread.start()
                rng = random.Random(12)
                at = 0
                while time.monotonic() < until:
                    at += 1
                    body = b"%d" % at
                    try:
                        signal.setitimer(signal.ITIMER_REAL, 10 ** -rng.uniform(2.3, 5))
                        is_armed = True
                        kind = at % 3
                        if kind == 0:
                            answer = broker.submit("echo", body, timeout=3).result()
                        elif kind == 1:
                            answer = broker.call("echo", body, timeout=3)
                        else:
                            with broker.converse("echo", body, timeout=3) as talk:
                                answer = b"".join(talk)
                        is_armed = False
                        if answer != body:
                            wrong.append((answer, body))
                    except (Stop, isect.IsectError):
                        pass
                    is_armed = False
                signal.setitimer(signal.ITIMER_REAL, 0)
                for thread in threads:
                    thread.join(TIMEOUT)
                    self.assertFalse(thread.is_alive(), "a thread hangs")
                self.assertEqual(wrong, [])
                self.assertGreater(answered, 100)
                self.assertEqual(broker.call("echo", b"after", timeout=5), b"after")
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
            signal.signal(signal.SIGALRM, before)

    def test_an_interrupted_wait_of_the_standard_library(self) -> None:
        go = threading.Event()

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            heads = [peer.want()[0] for _ in range(40)]
            go.wait(TIMEOUT)
            for head in heads:
                peer.answer(head, b"")
            while (found := peer.take()) is not None:
                if found[0].command == t.DATA:
                    peer.answer(found[0], b"")

        with Played(act) as played, played.connect() as broker:
            futures = [broker.submit("echo", b"") for _ in range(40)]
            told: list[object] = []
            for future in futures:
                future.add_done_callback(told.append)
            # As `_AcquireFutures` of the standard library leaves them if it is interrupted.
            for future in futures[:20]:
                future._condition.acquire()
            # Another thread waits as well, so that the standard library's code is in use.
            waits = threading.Thread(target=concurrent.futures.wait, args=(futures[20:],))
            waits.start()
            go.set()
            await_that("the callbacks", lambda: len(told) == 40)
            waits.join(TIMEOUT)
            done, _ = concurrent.futures.wait(futures, TIMEOUT)
            self.assertEqual(len(done), 40)
            self.assertEqual(broker.submit("echo", b"").result(TIMEOUT), b"")

    def test_a_signal_that_changes_nothing(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            head, body = peer.want()
            for _ in range(5):
                os.kill(os.getpid(), signal.SIGUSR1)
                time.sleep(0.01)
            peer.answer(head, body)
            peer.take()

        before = signal.signal(signal.SIGUSR1, lambda *_: None)
        try:
            with Played(act) as played, played.connect() as broker:
                self.assertEqual(broker.call("echo", b"x"), b"x")
        finally:
            signal.signal(signal.SIGUSR1, before)


def _in_child(broker: isect.Broker, future: isect.Future) -> str:
    out = []
    for ask in (lambda: broker.call("echo", b"child"), lambda: broker.submit("echo", b""),
                lambda: future.result(1), lambda: broker.publish("a", b"")):
        try:
            ask()
            out.append("no error")
        except isect.IsectError as why:
            out.append(type(why).__name__)
        except Exception as why:
            out.append(repr(why))
    broker.close()
    return ",".join(out)


class Forks(unittest.TestCase):
    def test_a_child_is_told_and_the_parent_goes_on(self) -> None:
        with Played(echo) as played, played.connect() as broker:
            self.assertEqual(broker.call("echo", b"before"), b"before")
            future = broker.submit("echo", b"under way")
            reads, writes = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    os.write(writes, _in_child(broker, future).encode())
                finally:
                    os._exit(0)
            os.close(writes)
            with open(reads) as file:
                said = file.read()
            os.waitpid(pid, 0)
            self.assertEqual(said, "ForkedError,ForkedError,ForkedError,ForkedError")
            self.assertEqual(future.result(5), b"under way")
            # The child said no goodbye: it is the same connection.
            self.assertEqual(broker.call("echo", b"after"), b"after")
            self.assertEqual(played.count, 1)

    def test_a_child_is_told_by_each_object(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                lines = Lines.parse(body) if head.command in (t.ANNOUNCE, t.SUBSCRIBE) else None
                if head.command == t.ANNOUNCE and lines is not None:
                    peer.send(t.ANNOUNCED, f"sequence {lines.get('sequence')}\nid 5\nbeat_ms 1\n"
                              "incarnation 1\nactivity_timeout_ms 9000\n".encode())
                elif head.command == t.SUBSCRIBE and lines is not None:
                    peer.send(t.SUBSCRIBED,
                              f"subscription {lines.get('subscription')}\nat 7:1\n".encode())

        with Played(act) as played:
            broker = played.connect()
            talk = broker.converse("echo", b"", more=True)
            stream = broker.stream("echo", b"")
            messages = broker.subscribe("a")
            instance = broker.announce("i", id=5)
            acts: list[Callable[[], object]] = [
                lambda: talk.send(b""), talk.receive, lambda: next(stream), messages.receive,
                messages.event, messages.unsubscribe, lambda: instance.set_state("running"),
                instance.checkpoint, broker.beat, lambda: broker.publish("a", b""),
                broker.sync_bus, lambda: broker.send("echo", b""), lambda: broker.command("x"),
            ]
            reads, writes = os.pipe()
            pid = os.fork()
            if pid == 0:
                try:
                    for at, one in enumerate(acts):
                        signal.alarm(10)
                        try:
                            one()
                            os.write(writes, b"%d returned, " % at)
                        except isect.ForkedError:
                            pass
                        except BaseException as why:
                            os.write(writes, f"{at} {why!r}, ".encode())
                finally:
                    os._exit(0)
            os.close(writes)
            with open(reads) as file:
                said = file.read()
            os.waitpid(pid, 0)
            self.assertEqual(said, "")
            broker.close()

    def test_a_child_may_connect_by_itself(self) -> None:
        with Played(echo) as played, played.connect() as broker:
            broker.call("echo", b"before")
            context = multiprocessing.get_context("fork")
            receiver, sender = context.Pipe(False)

            def child() -> None:
                with played.connect() as own:
                    sender.send_bytes(own.call("echo", b"child"))

            process = context.Process(target=child)
            process.start()
            self.assertEqual(receiver.recv_bytes(), b"child")
            process.join(TIMEOUT)
            self.assertEqual(process.exitcode, 0)
            self.assertEqual(broker.call("echo", b"after"), b"after")

    def test_a_fork_while_threads_use_the_connection(self) -> None:
        with Played(echo) as played, played.connect() as broker:
            stop = threading.Event()

            def work() -> None:
                while not stop.is_set():
                    broker.call("echo", b"x")

            threads = [threading.Thread(target=work) for _ in range(3)]
            for thread in threads:
                thread.start()
            try:
                for _ in range(10):
                    pid = os.fork()
                    if pid == 0:
                        try:
                            broker.call("echo", b"child")
                            os._exit(1)
                        except isect.ForkedError:
                            os._exit(0)
                        finally:
                            os._exit(2)
                    self.assertEqual(os.waitpid(pid, 0)[1], 0)
            finally:
                stop.set()
                for thread in threads:
                    thread.join(TIMEOUT)

    def test_nothing_is_handed_to_programs_or_pickled(self) -> None:
        with Played(echo) as played, played.connect() as broker:
            broker.call("echo", b"")
            pipe = broker._links["echo"].pipe
            assert pipe is not None
            self.assertFalse(os.get_inheritable(pipe.sock.fileno()))
            with self.assertRaises(TypeError):
                pickle.dumps(broker)
            with self.assertRaises(TypeError):
                pickle.dumps(broker.submit("echo", b""))


class Context(unittest.TestCase):
    def test_what_is_asked_within_a_request_has_its_time_and_its_trace(self) -> None:
        class Asked:
            trace_id = b"p" * 16
            span_id = 7
            left: float | None = 1.5

            def remaining(self) -> float | None:
                return self.left

        heads = []

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                if found[0].command == t.DATA:
                    heads.append((found[0].deadline_ms, found[0].trace_id, found[0].span_id))
                    peer.answer(found[0], b"")

        request = Asked()

        def work(broker: isect.Broker) -> None:
            current.set(request)
            broker.call("echo", b"")
            broker.call("echo", b"", timeout=0.5)
            broker.call("echo", b"", timeout=9, trace_id=b"q" * 16, span_id=3)
            broker.submit("echo", b"").result()
            list(broker.stream("echo", b""))
            request.left = None
            broker.call("echo", b"")

        with Played(act) as played, played.connect() as broker:
            broker.call("echo", b"")
            heads.clear()
            contextvars.copy_context().run(work, broker)
            broker.call("echo", b"")
        own, none = (b"p" * 16, 7), (bytes(16), 0)
        self.assertEqual(heads, [(1500, *own), (500, *own), (1500, b"q" * 16, 3), (1500, *own),
                                 (1500, *own), (0, *own), (0, *none)])


class Bus(unittest.TestCase):
    def test_a_subscription_goes_on_after_a_loss(self) -> None:
        asked: list[str] = []

        def act(peer: Peer, number: int) -> None:
            lines = peer.log_in()
            self.assertEqual((lines.get("service"), lines.get("heartbeat")), ("bus", "yes"))
            _, body = peer.want(t.SUBSCRIBE)
            subscribe = Lines.parse(body)
            asked.append(subscribe.get("from"))
            key = subscribe.get("subscription")
            at = "7:40" if number == 0 else "7:50"
            peer.send(t.SUBSCRIBED, f"subscription {key}\nat {at}\n".encode())
            if number:
                peer.send(t.MESSAGE, b"topic a.b\n\nold", sequence=int(key), transaction=45, more=1)
            peer.send(t.CAUGHT_UP, f"subscription {key}\nkept 0\n".encode())
            if number == 0:
                peer.send(t.MESSAGE, b"topic a.b\nk v\n\none", sequence=int(key), transaction=41)
                return
            peer.send(t.MESSAGE, b"topic a.b\n\ntwo", sequence=int(key), transaction=51, attempt=3)
            while peer.take() is not None:
                pass

        events: list[str] = []
        with Played(act) as played, played.connect() as broker:
            with broker.subscribe("a.*", start="7:30") as sub:
                sub.on_event = lambda event: events.append(type(event).__name__)
                got = []
                for message in sub:
                    got.append((message.payload, str(message.position), message.is_before,
                                message.dropped, dict(message.lines)))
                    if len(got) == 3:
                        break
                self.assertEqual(sub.receive(0.01), None)
                self.assertEqual(str(sub.position), "7:51")
        self.assertEqual(got, [(b"one", "7:41", False, 0, {"k": "v"}),
                               (b"old", "7:45", True, 0, {}), (b"two", "7:51", False, 3, {})])
        self.assertEqual(asked, ["7:30", "7:41"])
        self.assertEqual(events, ["CaughtUp", "Lost", "Resumed", "CaughtUp"])

    def test_a_subscription_that_is_refused(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                if head.command == t.SUBSCRIBE:
                    key = int(Lines.parse(body).get("subscription"))
                    peer.raw(failure(key, "denied"))

        with Played(act) as played, played.connect() as broker:
            with self.assertRaises(isect.Refused) as caught:
                broker.subscribe("a.*")
            self.assertEqual(caught.exception.name, "denied")
            with self.assertRaises(isect.Refused):
                broker.subscribe("a..b")
            with self.assertRaises(isect.UsageError):
                broker.subscribe("a", start="x")

    def test_pings_are_answered_while_the_program_does_something_else(self) -> None:
        answered = threading.Event()

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            peer.want(t.PUBLISH)
            peer.send(t.PING, sequence=5)
            self.assertEqual(peer.want(t.PONG)[0].sequence, 5)
            answered.set()
            peer.take()

        with Played(act) as played, played.connect() as broker:
            broker.publish("a", b"x")
            self.assertTrue(answered.wait(TIMEOUT))

    def test_publishes(self) -> None:
        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                if head.command == t.FLUSH:
                    peer.send(t.FLUSHED, b"flush %d\n" % head.sequence)
                elif head.command == t.PUBLISH and b"topic no\n" in body:
                    peer.raw(failure(head.sequence, "denied"))
                elif head.command == t.PUBLISH and head.reply:
                    peer.send(t.PUBLISHED, b"publish %d\nat 7:9\nsubscriptions 2\n" % head.sequence)

        with Played(act) as played, played.connect() as broker:
            receipt = broker.publish("yes", "text", retain=True, expires=1.5, wait=True)
            assert receipt is not None
            self.assertEqual((str(receipt.position), receipt.subscriptions), ("7:9", 2))
            self.assertIsNone(broker.publish("yes", b""))
            broker.publish("no", b"")
            self.assertEqual([why.name for why in broker.sync_bus()], ["denied"])
            self.assertEqual(broker.refused(), [])
            with self.assertRaises(isect.Refused):
                broker.publish("no", b"", wait=True)
            self.assertEqual(broker.remove("yes").subscriptions, 2)
            with self.assertRaises(isect.Refused):
                broker.publish("a.*", b"")
            with self.assertRaises(isect.Refused):
                broker.publish("a", bytes(1_000_000))

    def test_instances(self) -> None:
        seen: list[tuple[int, Lines]] = []

        def act(peer: Peer, number: int) -> None:
            peer.log_in()
            while (found := peer.take()) is not None:
                head, body = found
                lines = Lines.parse(body)
                seen.append((head.command, lines))
                if head.command == t.ANNOUNCE:
                    if lines.get("name") == "taken":
                        peer.raw(failure(int(lines.get("sequence")), "instance_taken"))
                        continue
                    peer.send(t.ANNOUNCED, f"sequence {lines.get('sequence')}\nid {lines.get('id')}"
                              "\nincarnation 5\nbeat_ms 20\nactivity_timeout_ms 5000\n".encode())
                elif head.command == t.BEAT:
                    unknown = "unknown 7\n" if "7 99" in lines.all("instance") else ""
                    peer.send(t.BEAT_OK, f"beat {lines.get('beat')}\n{unknown}".encode())
                    if number == 0 and "7 2" in lines.all("instance"):
                        return

        with Played(act) as played, played.connect() as broker:
            with self.assertRaises(isect.Refused) as caught:
                broker.announce("taken")
            self.assertEqual(caught.exception.name, "instance_taken")
            pump = broker.announce("pump", id=7, groups=["night"])
            self.assertEqual((pump.id, pump.incarnation, pump.is_watched), (7, 5, True))
            self.assertEqual(broker.beat_every, 0.02)
            pump.set_state(100, "batch")

            def beats() -> list[str]:
                return [one for kind, lines in list(seen) if kind == t.BEAT
                        for one in lines.all("instance")]

            def until(text: str, count: int) -> None:
                def found() -> bool:
                    pump.checkpoint(count)
                    return text in beats()
                await_that(text, found)

            until("7 1", 1)
            until("7 2", 2)
            # The connection is lost and comes back, and the instance with its state.
            until("7 3", 3)
            announced = [lines.get("state") for kind, lines in seen
                         if kind == t.ANNOUNCE and lines.get("id") == "7"]
            self.assertEqual(announced, ["running", "100"])
            until("7 99", 99)
            await_that("the displacement", lambda: pump.failure is not None)
            self.assertIn("displaced", str(pump.failure))
            with self.assertRaises(isect.IsectError):
                pump.set_state("running")
            with broker.announce("other") as other:
                self.assertNotEqual(other.id, 7)
        self.assertIn(t.WITHDRAW, [kind for kind, _ in seen])


if __name__ == "__main__":
    unittest.main()
