"""The blocking client against a real broker, with workers of isect itself."""

from __future__ import annotations

import concurrent.futures
import os
import shutil
import subprocess
import threading
import unittest
from collections.abc import Callable
from typing import Any
from unittest import mock

import isect
from client_support import TIMEOUT, RealBroker, await_that, program
from isect import _token
from isect._errors import MissingExtra

try:
    _token.argon2()
    HAS_ARGON2 = True
except MissingExtra:
    HAS_ARGON2 = False

needs_programs = unittest.skipUnless(program("isectd") and program("isdecho"),
                                     "ISECT_BIN names no directory with isectd and isdecho")


@needs_programs
class Usual(unittest.TestCase):
    broker: RealBroker

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = RealBroker()
        cls.addClassCleanup(cls.broker.close)
        cls.broker.serve("echo", more="concurrency 32")
        cls.broker.serve("one")
        cls.broker.op("config service empty")

    def test_by_all_ways(self) -> None:
        for address in (self.broker.address, self.broker.ports["client_unix"]):
            with isect.connect(address) as broker:
                for body in (b"", b"x", bytes(range(256)) * 400, os.urandom(3_000_000)):
                    self.assertEqual(broker.call("echo", body, timeout=TIMEOUT), body)
                    self.assertEqual(broker.submit("echo", body).result(TIMEOUT), body)
                    self.assertEqual(b"".join(broker.stream("echo", body)), body)
                self.assertEqual(broker.send_pieces("echo", [b"a", b"", b"b"]), b"ab")
        with mock.patch.dict(os.environ, {"ISECT_HOST": self.broker.address}):
            with isect.connect() as broker:
                self.assertEqual(broker.call("echo", "found"), b"found")

    def test_thousands_under_way(self) -> None:
        with isect.connect(self.broker.address) as broker:
            futures: dict[concurrent.futures.Future[bytes], int] = {
                broker.submit("echo", b"%d" % at): at for at in range(3000)}
            for future in concurrent.futures.as_completed(futures, 60):
                self.assertEqual(future.result(), b"%d" % futures[future])

    def test_errors(self) -> None:
        with isect.connect(self.broker.address) as broker:
            asked: list[tuple[Callable[[], object], str, type[isect.IsectError]]] = [
                (lambda: broker.call("nobody", b""), "unknown_service", isect.Refused),
                (lambda: broker.call("empty", b""), "no_worker", isect.Refused),
                (lambda: broker.call("echo", bytes(16777217)), "body_too_large", isect.Refused),
                (lambda: broker.command("nonsense"), "usage", isect.UsageError),
                (lambda: broker.publish("isect.x", b"", wait=True), "denied", isect.Refused),
                (lambda: broker.announce("1"), "bad_instance", isect.Refused),
            ]
            for ask, name, kind in asked:
                with self.assertRaises(kind, msg=name) as caught:
                    ask()
                self.assertEqual((caught.exception.name, caught.exception.ran), (name, "no"))
            self.assertEqual(broker.call("echo", b"after"), b"after")

    def test_a_deadline(self) -> None:
        with isect.connect(self.broker.address) as broker:
            broker.call("one", b"")
            broker.command("pause one")
            try:
                with self.assertRaises(isect.DeadlineExceeded) as caught:
                    broker.call("one", b"", timeout=0.05)
                self.assertEqual((caught.exception.name, caught.exception.ran), ("deadline", "no"))
                future = broker.submit("one", b"waits")
                self.assertTrue(future.cancel())
                stream = broker.stream("one", b"waits")
                stream.close()
                other = broker.submit("one", b"served")
            finally:
                broker.command("ready one")
            self.assertEqual(other.result(TIMEOUT), b"served")

    def test_requests_without_an_answer(self) -> None:
        with isect.connect(self.broker.address) as broker:
            for _ in range(100):
                broker.send("echo", b"x")
            self.assertEqual(broker.flush(TIMEOUT), 0)
            for _ in range(3):
                broker.send("empty", b"x")
            self.assertEqual(broker.flush(TIMEOUT), 3)

    def test_commands(self) -> None:
        with isect.connect(self.broker.address, name="tour") as broker:
            self.assertIn("echo", broker.command("services"))
            shown = broker.command("services", json=True)
            self.assertIsInstance(shown, dict)
            stop = threading.Event()

            def logins() -> None:
                while not stop.wait(0.02):
                    with isect.connect(self.broker.address, name="seen") as other:
                        other.call("echo", b"")

            thread = threading.Thread(target=logins)
            thread.start()
            try:
                for json in (False, True):
                    lines: list[str] = []
                    watch = broker.watch("watch client_in", json=json)
                    for line, _ in zip(watch, range(4)):
                        self.assertIsInstance(line, dict if json else str)
                        lines.append(str(line))
                    self.assertIn("echo", lines[-1])
            finally:
                stop.set()
                thread.join()
            self.assertIn("echo", broker.command("services"))

    def test_one_watch_after_another_and_two_at_once(self) -> None:
        with isect.connect(self.broker.ports["client_unix"]) as broker:
            broker.call("echo", b"")
            for _ in range(3):
                watch = broker.watch()
                self.assertIn("watching", next(watch))
                with broker.watch(json=True) as other:
                    self.assertIsInstance(next(other), dict)
                watch.close()
                self.assertEqual(list(watch), [])
            self.assertIn("watching", next(broker.watch()))
            with self.assertRaises(isect.UsageError):
                next(broker.watch("no such command"))
            with self.assertRaises(isect.UsageError):
                broker.watch(5)  # type: ignore[arg-type]
            self.assertEqual(sorted(broker._links), ["echo"])
            # The broker has ended them all.
            await_that("the end of the watches", lambda: sum(
                " op " in line for line in str(broker.command("clients")).splitlines()) <= 1)

    def test_topics(self) -> None:
        with isect.connect(self.broker.address) as broker, \
                isect.connect(self.broker.address) as other:
            other.publish("a.kept", b"old", retain=True, wait=True)
            with broker.subscribe("a.*") as sub:
                one = sub.receive(TIMEOUT)
                assert one is not None
                self.assertEqual((one.topic, one.payload, one.is_before, one.retain),
                                 ("a.kept", b"old", True, "yes"))
                for at in range(500):
                    other.publish("a.b", b"%d" % at, lines={"number": str(at)})
                for at in range(500):
                    one = sub.receive(TIMEOUT)
                    assert one is not None
                    self.assertEqual((one.payload, one.is_before, one.dropped, one.lines),
                                     (b"%d" % at, False, 0, {"number": str(at)}))
                position = sub.position
                receipt = other.remove("a.kept")
                self.assertGreaterEqual(receipt.subscriptions, 1)
                one = sub.receive(TIMEOUT)
                assert one is not None
                self.assertEqual((one.removed, one.payload), ("deleted", b""))
                self.assertIsNone(sub.receive(0.01))
            with broker.subscribe("a.*", start=str(position)) as sub:
                one = sub.receive(TIMEOUT)
                assert one is not None
                self.assertEqual((one.removed, one.is_before), ("deleted", True))
                delivered, dropped = sub.unsubscribe()
                self.assertEqual((delivered, dropped), (1, 0))
                self.assertEqual(list(sub), [])

    def test_a_subscriber_that_does_not_read_is_told_what_was_dropped(self) -> None:
        with isect.connect(self.broker.address) as broker:
            with broker.subscribe("many.*", queue_max=10) as sub:
                for at in range(1000):
                    broker.publish("many.x", b"%d" % at)
                self.assertEqual(broker.sync_bus(), [])
                got = []
                dropped = 0
                while True:
                    one = sub.receive(TIMEOUT)
                    assert one is not None
                    got.append(one.payload)
                    dropped += one.dropped
                    if one.payload == b"999":
                        break
                self.assertEqual(dropped + len(got), 1000)
                self.assertGreater(dropped, 0)

    def test_instances(self) -> None:
        with isect.connect(self.broker.address) as broker, \
                isect.connect(self.broker.address) as other:
            with other.subscribe("isect.state.*.*") as states:
                pump = broker.announce("pump", id=77, groups=["night"], state="starting",
                                       activity_timeout=0.3, meta={"version": "2"})
                self.assertTrue(pump.is_watched)
                self.assertFalse(pump.displaced)
                self.assertAlmostEqual(pump.activity_timeout, 0.3)
                pump.set_state("running", "it runs")

                def seen(word: str) -> None:
                    def found() -> bool:
                        one = states.receive(0.2)
                        return one is not None and word in one.text
                    await_that(word, found)

                seen("running")
                # Nothing says that it goes on.
                seen("timed")
                stop = threading.Event()

                def work() -> None:
                    while not stop.wait(0.01):
                        pump.checkpoint()

                thread = threading.Thread(target=work)
                thread.start()
                try:
                    seen("running")
                finally:
                    stop.set()
                    thread.join()
                again = other.announce("pump", id=77, groups=["night"])
                self.assertTrue(again.displaced)

                def displaced() -> bool:
                    broker.beat()
                    return pump.failure is not None

                await_that("the displacement", displaced)
                again.withdraw("done")
                seen("done")


@needs_programs
class Restarts(unittest.TestCase):
    def test_a_broker_that_is_killed_and_comes_back(self) -> None:
        real = RealBroker()
        self.addCleanup(real.close)
        real.serve("echo", more="concurrency 8")
        with isect.connect(real.address) as broker:
            self.assertEqual(broker.call("echo", b"one"), b"one")
            wrong: list[Any] = []
            stop = threading.Event()
            answered = []

            def work() -> None:
                at = 0
                while not stop.is_set():
                    at += 1
                    body = b"%d" % at
                    try:
                        answer = broker.call("echo", body, timeout=TIMEOUT, idempotent=True)
                        if answer != body:
                            wrong.append((body, answer))
                        answered.append(at)
                    except isect.IsectError as why:
                        if why.name not in ("no_worker", "unknown_service", "worker_died"):
                            wrong.append(why)

            with broker.subscribe("t.>") as sub:
                events: list[str] = []
                sub.on_event = lambda event: events.append(type(event).__name__)
                thread = threading.Thread(target=work)
                thread.start()
                try:
                    for _ in range(2):
                        count = len(answered)
                        await_that("some answers", lambda: len(answered) > count + 20)
                        real.kill()
                        real.start()
                        count = len(answered)
                        await_that("more answers", lambda: len(answered) > count + 20)
                finally:
                    stop.set()
                    thread.join(2 * TIMEOUT)
                self.assertFalse(thread.is_alive(), "the thread hangs")
                self.assertEqual(wrong, [])

                def message() -> isect.Message | None:
                    broker.publish("t.x", b"after", wait=True)
                    return sub.receive(0.1)

                one = await_that("a message", message)
                assert one is not None
                self.assertEqual(one.payload, b"after")
                self.assertIn("Lost", events)
                assert sub.missing is not None
                self.assertTrue(sub.missing.is_restart)

    def test_a_broker_that_ends_for_good(self) -> None:
        real = RealBroker()
        self.addCleanup(real.close)
        real.serve("echo")
        with isect.connect(real.address, timeout=0.5) as broker:
            self.assertEqual(broker.call("echo", b"one"), b"one")
            real.kill()
            with self.assertRaises(isect.ConnectionFailed) as caught:
                broker.call("echo", b"two", timeout=0.3)
            self.assertIn(caught.exception.ran, ("no", "maybe"))
            with self.assertRaises(isect.ConnectionFailed) as caught:
                broker.call("echo", b"three", timeout=0.3)
            self.assertEqual((caught.exception.name, caught.exception.ran), ("unreachable", "no"))
        with self.assertRaises(isect.ConnectionFailed):
            isect.connect(real.address, timeout=0.5)


@needs_programs
class Tokens(unittest.TestCase):
    def real(self, *args: str) -> tuple[RealBroker, str]:
        real = RealBroker(*args)
        self.addCleanup(real.close)
        path = str(real.folder / "shop.token")
        subprocess.run([program("isectd") or "isectd", "token", "add", "shop", "--role", "client",
                        "--service", "echo", "--state", str(real.folder / "state"), "--out", path],
                       check=True, capture_output=True)
        return real, path

    @unittest.skipUnless(HAS_ARGON2, "argon2-cffi is not installed")
    def test_a_token_is_proved_and_has_its_rights(self) -> None:
        real, path = self.real()
        real.op("reload")
        real.serve("echo")
        real.serve("other")
        with isect.connect(real.address, token_file=path) as broker:
            self.assertEqual(broker.call("echo", b"x"), b"x")
            with self.assertRaises(isect.Refused) as caught:
                broker.call("other", b"x")
            self.assertEqual(caught.exception.name, "denied")
        with open(path) as file:
            text = file.read().strip()
        with isect.connect(real.address, token=text) as broker:
            self.assertEqual(broker.call("echo", b"x"), b"x")
        for wrong in ("shop." + "0" * 64, "nobody." + "0" * 64):
            with isect.connect(real.address, token=wrong) as broker:
                with self.assertRaises(isect.Refused) as caught:
                    broker.call("echo", b"x")
                self.assertEqual(caught.exception.name, "bad_token")

    def test_without_argon2_the_connect_says_what_is_missing(self) -> None:
        with mock.patch.dict("sys.modules", {"argon2": None, "argon2.low_level": None}):
            with self.assertRaises(isect.MissingExtra):
                isect.connect("127.0.0.1:1", token="shop." + "0" * 64)


@needs_programs
@unittest.skipUnless(shutil.which("openssl"), "there is no openssl")
class Encrypted(unittest.TestCase):
    real: RealBroker
    folder: str

    @classmethod
    def setUpClass(cls) -> None:
        import tempfile

        cls.folder = tempfile.mkdtemp(prefix="isect-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        for name, subject in (("broker", "/CN=broker"), ("other", "/CN=other")):
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                 subject, "-keyout", cls.at(f"{name}.key"), "-out", cls.at(f"{name}.pem"),
                 "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1" if name == "broker" else
                 "subjectAltName=DNS:elsewhere.example",
                 "-addext", "basicConstraints=critical,CA:FALSE"], check=True, capture_output=True)
            os.chmod(cls.at(f"{name}.key"), 0o600)
        cls.real = RealBroker("--listen", "tls://127.0.0.1:0", "--tls-cert", cls.at("broker.pem"),
                              "--tls-key", cls.at("broker.key"))
        cls.addClassCleanup(cls.real.close)
        cls.real.serve("echo", more="concurrency 8")

    @classmethod
    def at(cls, name: str) -> str:
        return os.path.join(cls.folder, name)

    def test_over_tls(self) -> None:
        self.assertTrue(self.real.address.startswith("tls://"))
        with isect.connect(self.real.address, ca=self.at("broker.pem")) as broker:
            for body in (b"", b"x", os.urandom(3_000_000)):
                self.assertEqual(broker.call("echo", body, timeout=TIMEOUT), body)
            futures = [broker.submit("echo", os.urandom(2000)) for _ in range(300)]
            for future in futures:
                self.assertEqual(len(future.result(TIMEOUT)), 2000)
            with concurrent.futures.ThreadPoolExecutor(6) as pool:
                bodies = [os.urandom(100_000) for _ in range(60)]
                self.assertEqual(list(pool.map(lambda body: broker.call("echo", body), bodies)),
                                 bodies)

    def test_what_is_not_trusted(self) -> None:
        for address, options, part in [
            (self.real.address, {"ca": self.at("other.pem")}, "is not trusted"),
            (self.real.address, {}, "ISECT_CA"),
            (self.real.address, {"ca": self.at("none.pem")}, self.at("none.pem")),
        ]:
            with self.assertRaises(isect.ConnectionFailed) as caught:
                isect.connect(address, **options)  # type: ignore[arg-type]
            self.assertEqual(caught.exception.name, "tls", caught.exception)
            self.assertIn(part, str(caught.exception))
        plain = RealBroker()
        self.addCleanup(plain.close)
        with self.assertRaises(isect.ConnectionFailed) as caught:
            isect.connect(f"tls://{plain.address}", ca=self.at("broker.pem"), timeout=3)
        self.assertEqual(caught.exception.name, "tls")
        with self.assertRaises(isect.ConnectionFailed):
            isect.connect(self.real.address.removeprefix("tls://"), timeout=3)

    @unittest.skipUnless(HAS_ARGON2, "argon2-cffi is not installed")
    def test_a_token_over_tls(self) -> None:
        path = str(self.real.folder / "shop.token")
        subprocess.run([program("isectd") or "isectd", "token", "add", "shop", "--role", "client",
                        "--service", "echo", "--state", str(self.real.folder / "state"), "--out",
                        path], check=True, capture_output=True)
        self.real.op("reload")
        with isect.connect(self.real.address, ca=self.at("broker.pem"), token_file=path) as broker:
            try:
                self.assertEqual(broker.call("echo", b"x"), b"x")
            except isect.Refused as why:
                if "names: none" not in why.text:
                    raise
                self.skipTest("this broker takes no proof by tls-server-end-point")


if __name__ == "__main__":
    unittest.main()
