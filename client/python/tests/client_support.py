"""What the tests of the client share: a real broker, and a broker that is played."""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, TypeVar
from unittest import mock

import isect
from isect import _link, _stream, _traffic
from isect import _tables as t
from isect._wire import Header, Inbox, Lines, frame

T = TypeVar("T")

#: Longest wait of a test for something, in seconds.
TIMEOUT = 20.0

LOGIN_OK = b"client 1\nbody_bytes_max 1000000\nrequests_max 64\ndeadline_ms 20000\n"


@contextmanager
def without_grace() -> Iterator[None]:
    """This side waits for an outcome no longer than its request has time."""
    with ExitStack() as stack:
        for module in (_link, _traffic, _stream):
            stack.enter_context(mock.patch.object(module, "GRACE", 0.0))
        yield


def program(name: str) -> str | None:
    """The path of a program of isect: in the directory that ISECT_BIN names, or on the PATH."""
    folder = os.environ.get("ISECT_BIN")
    return shutil.which(os.path.join(folder, name) if folder else name)


def await_that(what: str, found: Callable[[], T]) -> T:
    """Waits until something is so."""
    until = time.monotonic() + TIMEOUT
    while True:
        value = found()
        if value:
            return value
        if time.monotonic() > until:
            raise AssertionError(f"{what} did not come in {TIMEOUT} s")
        time.sleep(0.01)


class RealBroker:
    """`isectd` in a folder of its own."""

    def __init__(self, *args: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="isect-"))
        self.args = args
        self.log = open(self.folder / "log", "wb")
        self.start()

    def start(self) -> None:
        ports = self.folder / "ports.json"
        ports.unlink(missing_ok=True)
        listen = [] if "--listen" in self.args else ["--listen", "127.0.0.1:0"]
        self.process = subprocess.Popen(
            [program("isectd") or "isectd", *listen, "--state", str(self.folder / "state"),
             "--ports-file", str(ports), *self.args], stdout=self.log, stderr=self.log)
        self.ports = json.loads(await_that("the ports file",
                                           lambda: ports.read_bytes() if ports.exists() else b""))
        self.address: str = self.ports["client"]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait(TIMEOUT)

    def op(self, *commands: str) -> str:
        with isect.connect(self.ports["client_unix"]) as broker:
            return "".join(str(broker.command(command)) for command in commands)

    def serve(self, service: str, name: str = "isdecho", more: str = "", settings: str = "",
              count: int = 1) -> None:
        """Configures and starts workers of a program of isect."""
        self.op(f"config service {service} {settings}")
        for _ in range(count):
            self.op(f"config worker {service} localhost {program(name)} {more}")
        self.op(f"start {service}")
        await_that(f"the workers of {service}",
                   lambda: sum(line.split()[:1] == [service] and "ready for" in line
                               for line in self.op("workers").splitlines()) >= count)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
            self.process.wait(TIMEOUT)
        self.log.close()
        shutil.rmtree(self.folder, ignore_errors=True)


class Peer:
    """One connection of a broker that is played."""

    def __init__(self, sock: socket.socket) -> None:
        self.sock = sock
        sock.settimeout(TIMEOUT)
        self.inbox = Inbox(t.BODY_BYTES_MAX)

    def take(self) -> tuple[Header, bytes] | None:
        """The next frame; None = the client has closed."""
        while True:
            found = self.inbox.take()
            if found is not None:
                return found
            try:
                data = self.sock.recv(65536)
            except ConnectionResetError:
                return None
            if not data:
                return None
            self.inbox.feed(data)

    def want(self, kind: int = t.DATA) -> tuple[Header, bytes]:
        found = self.take()
        assert found is not None and found[0].command == kind, found
        return found

    def send(self, command: int, body: bytes = b"", **more: Any) -> None:
        self.raw(frame(command, body, **more))

    def raw(self, data: bytes) -> None:
        self.sock.sendall(data)

    def answer(self, head: Header, body: bytes, **more: Any) -> None:
        self.send(t.DATA, body, sequence=head.sequence, **more)

    def fail(self, head: Header | None, name: str, ran: str = "") -> None:
        self.raw(failure(0 if head is None else head.sequence, name, ran))

    def log_in(self, more: bytes = b"") -> Lines:
        """Accepts the login; its lines."""
        _, body = self.want(t.LOGIN)
        self.send(t.LOGIN_OK, LOGIN_OK + more)
        return Lines.parse(body)

    def close(self) -> None:
        self.sock.close()


def failure(sequence: int, name: str, ran: str = "") -> bytes:
    from isect._errors import error

    row = error(name, "played")
    lines = Lines([("code", str(row.code)), ("name", name), ("ran", ran or row.ran)], "played")
    return frame(t.ERROR, lines.bytes(), sequence=sequence, error=row.code)


class Played:
    """A broker that is played: `act(peer, number)` runs in a thread for each connection."""

    def __init__(self, act: Callable[[Peer, int], object]) -> None:
        self.act = act
        self.folder = tempfile.mkdtemp(prefix="isect-")
        path = os.path.join(self.folder, "s")
        self.address = f"unix:{path}"
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(path)
        self.listener.listen(64)
        self.count = 0
        self.faults: list[BaseException] = []
        self.threads: list[threading.Thread] = []
        self.accepting = threading.Thread(target=self._accept, daemon=True)
        self.accepting.start()

    def _accept(self) -> None:
        while True:
            try:
                sock, _ = self.listener.accept()
            except OSError:
                return
            number = self.count
            self.count += 1
            thread = threading.Thread(target=self._serve, args=(sock, number), daemon=True)
            self.threads.append(thread)
            thread.start()

    def _serve(self, sock: socket.socket, number: int) -> None:
        try:
            with sock:
                self.act(Peer(sock), number)
        except (BrokenPipeError, ConnectionResetError):
            pass
        except BaseException as fault:
            self.faults.append(fault)

    def connect(self, **more: Any) -> isect.Broker:
        return isect.connect(self.address, verify=False, **more)

    def __enter__(self) -> Played:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.accepting.join(TIMEOUT)
        for thread in self.threads:
            thread.join(TIMEOUT)
            assert not thread.is_alive(), "the played broker did not end"
        shutil.rmtree(self.folder, ignore_errors=True)
        if kind is None and self.faults:
            raise self.faults[0]


def echo(peer: Peer, number: int = 0) -> None:
    """Accepts the login and answers each request with its body, until the client goes."""
    if peer.take() is None:
        return
    peer.send(t.LOGIN_OK, LOGIN_OK)
    while (found := peer.take()) is not None:
        head, body = found
        if head.command == t.DATA and head.reply:
            peer.answer(head, body)
        elif head.command == t.LOGOUT:
            return
