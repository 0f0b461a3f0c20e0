"""The types: of the package itself, and as a program of a user sees them.

They are skipped where mypy and pyright are not installed; the gate installs both.
"""

from __future__ import annotations

import importlib.util
import os
import re
import shutil
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent

#: A program of a user, with the type of each expression as mypy shows it.
USER = """
import isect
import isect.aio
import isect.testing
from collections.abc import Iterator

@isect.worker
def plain(request: isect.Request) -> bytes:
    return request.body

@isect.worker(concurrency=8)
def several(request: isect.Request) -> Iterator[bytes]:
    yield request.body

@isect.worker
async def waits(request: isect.AsyncRequest) -> str:
    return request.text

reveal_type(plain)  # def (request: isect.Request) -> bytes
reveal_type(several)  # def (request: isect.Request) -> Iterator[bytes]
reveal_type(waits)  # def (request: isect.AsyncRequest) -> Coroutine[Any, Any, str]
isect.run(plain)
with isect.connect("unix:/nowhere", timeout=1.5) as broker:
    reveal_type(broker)  # isect.Broker
    reveal_type(broker.call("a", b"", timeout=2))  # bytes
    reveal_type(broker.submit("a", "").result())  # bytes
    reveal_type(broker.command("services"))  # str
    with broker.converse("a", b"") as talk:
        reveal_type(talk.receive())  # bytes | None
    with broker.subscribe("a.*") as messages:
        for message in messages:
            reveal_type(message.payload)  # bytes

async def ask() -> None:
    async with isect.aio.connect() as broker:
        reveal_type(broker)  # isect.AsyncBroker
        reveal_type(await broker.call("a", b""))  # bytes
        reveal_type(await broker.command("services"))  # str
        reveal_type(await broker.command("services", json=True))  # dict[str, Any]
        async with broker.subscribe("a.*") as messages:
            async for message in messages:
                reveal_type(message.payload)  # bytes
    async with isect.testing.async_broker() as running:
        reveal_type(await running.connect())  # isect.AsyncBroker

with isect.testing.broker(login_ms=5) as running:
    reveal_type(running.connect())  # isect.Broker
    reveal_type(running.worker("a", plain).pids())  # list[int]
"""

#: Lines that must not pass.
WRONG = """
import isect
broker = isect.connect()
broker.call("a", 5)
broker.call("a", b"", timeout="soon")
answer: str = broker.call("a", b"")
isect.connect(adress="a")
"""


def has(module: str) -> bool:
    """Whether a checker is installed."""
    return importlib.util.find_spec(module) is not None


class Mypy(unittest.TestCase):
    """`mypy --strict`."""

    def setUp(self) -> None:
        if not has("mypy"):
            self.skipTest("mypy is not installed")

    def mypy(self, *words: str) -> tuple[int, str]:
        """Runs mypy; its status and what it said."""
        done = subprocess.run(
            [sys.executable, "-m", "mypy", "--strict", "--no-color-output", "--cache-dir",
             os.devnull, *words], cwd=ROOT, text=True, stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT, timeout=300,
            env={**os.environ, "MYPYPATH": str(ROOT / "src")})
        return done.returncode, done.stdout

    def of_text(self, text: str) -> tuple[int, str]:
        """What mypy says of a program that has nothing of this folder's settings."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "user.py")
            file.write_text(text, "utf-8")
            config = Path(folder, "mypy.ini")
            config.write_text("[mypy]\n")
            return self.mypy("--config-file", str(config), str(file))

    def test_the_package_its_tests_and_examples(self) -> None:
        status, out = self.mypy("src", "tests", "_build")
        self.assertEqual(status, 0, out)
        # One by one, as each is a program.
        for path in sorted((ROOT / "examples").glob("*.py")):
            status, out = self.mypy(str(path))
            self.assertEqual(status, 0, out)

    def test_a_program_of_a_user_has_these_types(self) -> None:
        status, out = self.of_text(USER)
        self.assertEqual(status, 0, out)
        revealed = re.findall(r'Revealed type is "(.*)"', out)
        modules = r"(isect\.)\w+\.|builtins\.|typing\.|collections\.abc\.|types\."
        plain = [re.sub(modules, r"\1", it) for it in revealed]
        self.assertEqual(plain, re.findall(r"reveal_type\(.*\)  # (.*)", USER))

    def test_mistakes_of_a_user_are_found(self) -> None:
        status, out = self.of_text(WRONG)
        self.assertNotEqual(status, 0)
        found = {int(number) for number in re.findall(r"user\.py:(\d+): error", out)}
        self.assertEqual(found, {4, 5, 6, 7}, textwrap.indent(out, "  "))


@unittest.skipUnless(shutil.which("pyright"), "pyright is not installed")
class Pyright(unittest.TestCase):
    """pyright, over what users see."""

    def test_the_examples(self) -> None:
        self.check("examples", ROOT)

    def test_a_program_of_a_user(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "user.py").write_text(USER, "utf-8")
            Path(folder, "pyrightconfig.json").write_text('{"typeCheckingMode": "strict"}')
            self.check("user.py", Path(folder))
            # It would say so if it did not look.
            Path(folder, "user.py").write_text(WRONG, "utf-8")
            with self.assertRaises(AssertionError):
                self.check("user.py", Path(folder))

    def check(self, file: str, folder: Path) -> None:
        done = subprocess.run(["pyright", file], cwd=folder, text=True, timeout=300,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              env={**os.environ, "PYTHONPATH": str(ROOT / "src")})
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
