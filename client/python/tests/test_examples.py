"""The examples do what they say, as programs of their own."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
import unittest
from pathlib import Path

import isect
from isect import testing

ROOT = Path(__file__).resolve().parent.parent
EXAMPLES = ROOT / "examples"
PATHS = os.pathsep.join(filter(None, [str(ROOT / "src"), os.environ.get("PYTHONPATH")]))


class Examples(unittest.TestCase):
    """Each example with a broker of its own process."""

    broker: testing.RunningBroker
    client: isect.Broker

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = testing.broker()
        cls.addClassCleanup(cls.broker.stop)
        cls.client = cls.broker.connect()
        cls.broker.worker("upper", EXAMPLES / "upper.py")

    def start(self, name: str, *words: str) -> subprocess.Popen[str]:
        """Starts an example as a client."""
        where = {"ISECT_HOST": self.broker.address, "PYTHONPATH": PATHS}
        made = subprocess.Popen([sys.executable, str(EXAMPLES / name), *words], text=True,
                                env={**os.environ, **where}, stdout=subprocess.PIPE,
                                stderr=subprocess.PIPE)
        self.addCleanup(made.wait)
        self.addCleanup(made.kill)
        return made

    def output(self, name: str, *words: str) -> str:
        """What an example prints that must end well."""
        made = self.start(name, *words)
        out, err = made.communicate(timeout=10)
        self.assertEqual((made.returncode, err), (0, ""), err)
        return out

    def test_upper(self) -> None:
        self.assertEqual(self.client.call("upper", "hello"), b"HELLO")
        with self.assertRaisesRegex(isect.WorkerFailed, "nothing to write") as caught:
            self.client.call("upper", b"")
        self.assertEqual(caught.exception.code, 1)

    def test_caller(self) -> None:
        self.assertEqual(self.output("caller.py", "upper", "hello", "world"),
                         "HELLO\nWORLD\nHELLO WORLD\n")
        made = self.start("caller.py", "nobody", "hello")
        out, err = made.communicate(timeout=10)
        self.assertEqual((made.returncode, out), (1, ""))
        self.assertRegex(err, "^hello: .*nobody.*ran: no")

    def test_async_worker(self) -> None:
        self.broker.worker("wait", EXAMPLES / "async_worker.py")
        begin = time.monotonic()
        answers = [self.client.submit("wait", b"100") for _ in range(100)]
        for answer in answers:
            self.assertEqual(answer.result(10), b"waited 100 ms")
        # One by one they take 10 seconds.
        self.assertLess(time.monotonic() - begin, 5)

    def test_subscriber(self) -> None:
        self.client.publish("orders.eu.kept", b"old", retain=True, wait=True)
        made = self.start("subscriber.py", "orders.>", "2")
        assert made.stdout is not None
        self.assertEqual(made.stdout.readline(), "orders.eu.kept: old (from before)\n")
        self.client.publish("others", b"not this")
        self.client.publish("orders.us", b"new")
        out, err = made.communicate(timeout=10)
        self.assertEqual((out, err, made.returncode), ("orders.us: new\n", "", 0))

    def test_monitored(self) -> None:
        out = self.output("monitored.py", "nightly", "1000")
        self.assertRegex(out, "(?i)checkpoint.* 1000")
        self.assertIn("exporting", out)
        self.assertIn("nightly", self.broker.command("instances history"))

    def test_conversation(self) -> None:
        self.broker.worker("sum", EXAMPLES / "conversation.py")
        self.assertEqual(self.output("conversation.py", "ask", "sum", "1", "2", "39"), "1\n3\n42\n")

    def test_nested(self) -> None:
        self.broker.worker("shout", EXAMPLES / "nested.py", arguments=["upper"],
                           env={"ISECT_HOST": self.broker.address})
        self.assertEqual(self.client.call("shout", b"hello", timeout=5), b"HELLO!")
        self.broker.worker("slow", EXAMPLES / "async_worker.py")
        self.broker.worker("shout-slow", EXAMPLES / "nested.py", arguments=["slow"],
                           env={"ISECT_HOST": self.broker.address})
        with self.assertRaises(isect.DeadlineExceeded):
            self.client.call("shout-slow", b"60000", timeout=0.3)
        # Its own call was over with the request, so it is free for the next one.
        self.assertEqual(self.client.call("shout-slow", b"1", timeout=5), b"waited 1 ms!")

    def test_those_that_need_words_say_so(self) -> None:
        for name, *words in (("caller",), ("subscriber", "a"), ("monitored",),
                             ("conversation", "ask", "sum")):
            made = self.start(f"{name}.py", *words)
            out, err = made.communicate(timeout=10)
            self.assertEqual((made.returncode, out), (1, ""), name)
            self.assertIn(f"    {name}.py ", err)
            self.assertNotIn("Traceback", err)

    def test_each_example_has_a_test(self) -> None:
        for path in EXAMPLES.glob("*.py"):
            self.assertTrue(hasattr(self, f"test_{path.stem}"), path)
            self.assertRegex(path.read_text("utf-8"),
                             re.compile(r'^#!/usr/bin/env python3\n"""[A-Z]'))


if __name__ == "__main__":
    unittest.main()
