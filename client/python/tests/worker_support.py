"""A broker that is played, and a real one, for the tests of the worker."""

from __future__ import annotations

import json
import os
import re
import shutil
import socket
import subprocess
import sys
import tempfile
import threading
import time
import unittest
from collections.abc import Callable
from pathlib import Path
from typing import Any

from isect import _program
from isect import _tables as t
from isect._wire import Header, Inbox, Lines, frame
from isect._address import Address
from isect._worker_conn import Options

#: No test waits longer for anything, in seconds.
TIMEOUT = 10.0
SOURCES = Path(__file__).parent.parent / "src"


def await_that(what: str, look: Callable[[], Any]) -> Any:
    """Waits until `look` gives something, and returns it."""
    until = time.monotonic() + TIMEOUT
    while not (found := look()):
        if time.monotonic() > until:
            raise AssertionError(f"{what} did not come in {TIMEOUT} s")
        time.sleep(0.005)
    return found


class Peer:
    """The broker's side of one connection of a worker."""

    def __init__(self, sock: socket.socket) -> None:
        sock.settimeout(TIMEOUT)
        self.sock = sock
        self.inbox = Inbox()
        self.login = Lines()

    def frame(self) -> tuple[Header, bytes]:
        """The worker's next frame."""
        while (found := self.inbox.take()) is None:
            data = self.sock.recv(1 << 16)
            assert data, "the worker closed the connection"
            self.inbox.feed(data)
        return found

    def take(self, kind: int) -> tuple[Header, bytes]:
        """The worker's next frame, which has this kind."""
        head, body = self.frame()
        assert head.command == kind, f"{t.KINDS[head.command]} {head} {body!r}"
        return head, body

    def answer(self, transaction: int) -> tuple[int, int, bytes]:
        """Code, `more` and body of the next frame, an answer to this transaction."""
        head, body = self.take(t.DATA)
        assert head.transaction == transaction, head
        return head.error, head.more, body

    def logout(self) -> int:
        """How many requests the worker's logout says that it got."""
        return Lines.parse(self.take(t.LOGOUT)[1]).number("received")

    def assert_closed(self) -> None:
        """The worker says nothing more, and closes."""
        try:
            data = self.sock.recv(1 << 16)
        except ConnectionError:
            data = b""
        assert data == b"" and self.inbox.is_between_frames, data

    def send(self, *frames: bytes) -> None:
        self.sock.sendall(b"".join(frames))

    def accept_login(self, **lines: object) -> None:
        self.login = Lines.parse(self.take(t.WORKER_LOGIN)[1])
        said = {"worker": 7, "body_bytes_max": 1 << 20, "heartbeat_ms": 10000, "silence_ms": 30000,
                "reconnect_ms": 5000, "concurrency": self.login.number("concurrency", 1), **lines}
        pairs = [(key, str(value)) for key, value in said.items()]
        self.send(frame(t.WORKER_LOGIN_OK, Lines(pairs).bytes()))

    def end(self) -> None:
        """The broker's `end`, after which it sends nothing."""
        self.send(frame(t.END))
        self.sock.shutdown(socket.SHUT_WR)

    def close(self) -> None:
        self.sock.close()


def request(transaction: int, body: bytes = b"", **more: Any) -> bytes:
    """The bytes of a request as the broker sends it."""
    more = {"deadline_ms": 30000, "reply": 1, "sequence": transaction, "attempt": 1,
            "workerid": 7, **more}
    return frame(t.DATA, body, transaction=transaction, **more)


def cancel(transaction: int, code: int = -42) -> bytes:
    return frame(t.CANCEL, b"given up", transaction=transaction, error=code)


class FakeBroker:
    """Listens as a broker does; the test plays it."""

    def __init__(self) -> None:
        self.folder = tempfile.mkdtemp(prefix="isect-")
        self.path = os.path.join(self.folder, "w.sock")
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(self.path)
        self.listener.listen()
        self.listener.settimeout(TIMEOUT)
        self.peers: list[Peer] = []

    def options(self, **more: Any) -> Options:
        more = {"worker": 7, "secret": "s", **more}
        return Options(Address("unix", self.path, 0), "upper", **more)

    def accept(self) -> Peer:
        self.peers.append(Peer(self.listener.accept()[0]))
        return self.peers[-1]

    def login(self, **lines: object) -> Peer:
        peer = self.accept()
        peer.accept_login(**lines)
        return peer

    def close(self) -> None:
        for peer in self.peers:
            peer.close()
        self.listener.close()
        shutil.rmtree(self.folder)


class FakeCase(unittest.TestCase):
    """Has a broker that is played, and workers on threads of this process."""

    def setUp(self) -> None:
        self.broker = FakeBroker()
        self.addCleanup(self.broker.close)
    def start(self, handle: Callable[[Any], Any], **more: Any) -> Served:
        served = Served(_program.make_server(handle, self.broker.options(), **more))
        self.addCleanup(self.abandon, served)
        return served

    def abandon(self, served: Served) -> None:
        """Ends a worker that a test did not care to end."""
        served.server.stop()
        for peer in self.broker.peers:
            peer.close()
        served.end()

    def begin(self, handle: Callable[[Any], Any], limits: Any = None,
              **more: Any) -> tuple[Served, Peer]:
        """A worker that has logged in."""
        served = self.start(handle, **more)
        peer = self.broker.login(**(limits or {}))
        return served, peer


class Served:
    """A worker on a thread."""

    def __init__(self, server: Any) -> None:
        self.server = server
        self.why: BaseException | None = None
        self.thread = threading.Thread(target=self._run, daemon=True)
        self.thread.start()

    def _run(self) -> None:
        try:
            self.server.run()
        except BaseException as e:
            self.why = e

    def end(self) -> BaseException | None:
        """Waits until it has ended; returns what it raised."""
        self.thread.join(TIMEOUT)
        assert not self.thread.is_alive(), "the worker did not end"
        return self.why


def program_named(name: str) -> str | None:
    """The path of a program of isect: in the directory that ISECT_BIN names, or on the PATH."""
    folder = os.environ.get("ISECT_BIN")
    return shutil.which(os.path.join(folder, name) if folder else name)


class RealBroker:
    """`isectd` in a folder of its own."""

    def __init__(self, *args: str, folder: str | None = None) -> None:
        self.args = args
        self.folder = Path(folder or tempfile.mkdtemp(prefix="isect-"))
        self.log = open(self.folder / "log", "wb")
        self._start()

    def _start(self) -> None:
        ports = self.folder / "ports.json"
        ports.unlink(missing_ok=True)
        self.process = subprocess.Popen(
            [program_named("isectd") or "isectd", "--listen", "127.0.0.1:0", "--state",
             str(self.folder / "state"), "--ports-file", str(ports), "--log", "debug",
             "--worker-env", f"PYTHONPATH={SOURCES}", *self.args],
            stdout=self.log, stderr=self.log)
        self.ports = json.loads(await_that("the ports file", lambda: ports.exists()
                                           and ports.read_bytes()))

    def kill_and_restart(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)
        self._start()

    def op(self, command: str) -> str:
        return self.ask("op", command)

    def ask(self, service: str, *texts: str) -> str:
        """What isdclient prints."""
        command = [program_named("isdclient") or "isdclient", "-h", self.ports["client"]]
        for text in texts:
            command += ["-c", text]
        done = subprocess.run([*command, service], capture_output=True, timeout=30, text=True)
        return done.stdout + done.stderr

    def config(self, service: str, source: str, settings: str = "") -> None:
        """Configures and starts a worker that is this program."""
        path = self.folder / f"{service}.py"
        path.write_text(f"#!{sys.executable}\n{source}")
        path.chmod(0o755)
        for command in (f"config service {service} {settings}",
                        f"config worker {service} localhost {path}", f"start {service}"):
            self.op(command)
        self.await_ready(service)

    def await_ready(self, service: str) -> int:
        """Waits until the worker of a service waits for requests; returns its process id."""
        def look() -> str | None:
            line = re.search(rf"^ +{service} .*ready.* for ", self.op("workers"), re.MULTILINE)
            return line.group().split()[4] if line else None
        return int(await_that(f"the worker of {service}", look))

    def text_of_log(self) -> str:
        return (self.folder / "log").read_text(errors="replace")

    def close(self) -> None:
        self.process.terminate()
        self.process.wait(TIMEOUT)
        self.log.close()

        def is_gone() -> bool:
            # Its execd may still write what its workers said last.
            shutil.rmtree(self.folder, ignore_errors=True)
            return not self.folder.exists()

        await_that("the end of its execd", is_gone)
