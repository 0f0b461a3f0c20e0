"""A worker's connection to its broker: where the broker is, how to get there, and the login."""

from __future__ import annotations

import errno
import os
import random
import re
import select
import socket
from collections.abc import Callable
from dataclasses import dataclass
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import _tables as t
from ._address import Address
from ._errors import IsectError, error
from ._wire import Inbox, Lines, error_of, frame
from ._worker import Limits, log

if TYPE_CHECKING:
    import ssl

    from ._token import Token

#: Most bytes of one read: a frame of 64 KiB, so that requests up to that size come with one read.
_READ_BYTES = t.HEADER_BYTES + 64 * 1024
#: First and longest wait between two attempts to connect again, in seconds.
_RETURN_WAITS = (0.05, 1.0)
#: A connection that was there for so long is no failed attempt, in seconds.
_LASTED = 1.0
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9._-]{0,31}\Z", re.ASCII)


def check_name(what: str, name: str) -> str:
    """The name, if it is spelled as isect's names are."""
    if not _NAME.match(name):
        raise error("usage", f"{what} '{name[:60]}' is no name; it has 1 to {t.NAME_BYTES_MAX} "
                             "ASCII letters, digits, '-', '_' and '.', a letter first")
    return name


def own_host() -> str:
    """This machine's name, as far as it is a name for isect."""
    whole = socket.gethostname()
    for name in (whole, whole.partition(".")[0]):
        if _NAME.match(name):
            return name
    return "localhost"


@dataclass(frozen=True)
class Options:
    """The identity of a worker and the address of its broker."""

    address: Address
    service: str
    #: 0 = it started itself and wants one.
    worker: int = 0
    secret: str = ""
    concurrency: int = 1
    #: What it proves if the broker wants that, of a worker that started itself.
    token: Token | None = None
    #: Seconds for one attempt to connect and log in.
    connect_timeout: float = 5.0


class Waker:
    """Ends the wait of the thread that reads, from a signal or from another thread."""

    def __init__(self) -> None:
        self.reader, self.writer = socket.socketpair()
        self.reader.setblocking(False)
        self.writer.setblocking(False)

    def wake(self) -> None:
        """May be called by any thread, and by a signal's handler."""
        try:
            self.writer.send(b"\0")
        except OSError:
            # It is full, so the reader wakes anyway; or all is closed.
            pass

    def clear(self) -> None:
        try:
            while self.reader.recv(4096):
                pass
        except OSError:
            pass

    def wait(self, seconds: float) -> None:
        """Waits so long, or until somebody wakes it."""
        if select.select([self.reader], [], [], seconds)[0]:
            self.clear()

    def close(self) -> None:
        self.reader.close()
        self.writer.close()


class Conn:
    """A socket that never makes its caller wait."""

    __slots__ = ("sock", "address", "is_tls", "is_forked", "fd", "_would_block")

    def __init__(self, sock: socket.socket, address: object, is_tls: bool = False) -> None:
        sock.setblocking(False)
        self.sock = sock
        self.fd = sock.fileno()
        self.address = address
        self.is_tls = is_tls
        self.is_forked = False
        #: What is raised where one would have to wait.
        self._would_block: tuple[type[OSError], ...] = (BlockingIOError, InterruptedError)
        if is_tls:
            import ssl

            self._would_block += (ssl.SSLWantReadError, ssl.SSLWantWriteError)

    def recv(self, is_inside_frame: bool = False) -> bytes | None:
        """What is there to be read; None = nothing now. Raises `broker_lost` at the end."""
        try:
            data = self.sock.recv(1 << 20 if is_inside_frame else _READ_BYTES)
            if self.is_tls:
                # What TLS holds already would not wake a poll.
                while data and self.sock.pending():  # type: ignore[attr-defined]
                    data += self.sock.recv(_READ_BYTES)
        except self._would_block:
            return None
        except OSError as e:
            raise self.broke(e) from e
        if not data:
            where = " inside a frame" if is_inside_frame else ""
            raise error("broker_lost", f"the broker at {self.address} closed the connection{where}")
        return data

    def send(self, data: bytes | memoryview) -> int:
        """Sends what can be sent now; returns how many bytes. Raises `broker_lost`."""
        try:
            return self.sock.send(data)
        except self._would_block:
            return 0
        except OSError as e:
            raise self.broke(e) from e

    def broke(self, e: OSError) -> IsectError:
        return error("broker_lost", f"the connection to the broker at {self.address} broke: {e}")

    def close(self) -> None:
        try:
            self.sock.close()
        except OSError:
            pass

    def close_in_child(self) -> None:
        """Closes it in a process that was forked, without a word to the broker."""
        self.is_forked = True
        try:
            os.close(self.sock.detach())
        except OSError:
            pass


class Stopped(Exception):
    """The program was asked to end while it connected."""


class Login:
    """Finds the broker and logs in, the first time and again after a loss."""

    def __init__(self, options: Options, waker: Waker, is_stopping: Callable[[], bool]) -> None:
        self.options = options
        #: The id that the broker gave or knows.
        self.worker = options.worker
        self._waker = waker
        self._is_stopping = is_stopping
        #: When the last login was accepted, and the next wait.
        self._since = 0.0
        self._next_wait = _RETURN_WAITS[0]

    def again(self, lost: IsectError, since: float, limits: Limits) -> tuple[Conn, Limits, Inbox]:
        """Connects again, for as long as the login before allowed. Raises the reason if it can't,
        and `Stopped` if it need not any more."""
        if not limits.reconnect:
            raise lost
        log.warning("%s; trying to connect again for %g s", lost.text, limits.reconnect)
        until = since + limits.reconnect
        if since - self._since >= _LASTED:
            self._next_wait = _RETURN_WAITS[0]
        else:
            # A broker that lets workers in and closes again is not tried without end.
            self._pause(until)
        while True:
            if self._is_stopping():
                raise Stopped
            try:
                made = self.log_in()
            except IsectError as e:
                row = t.ERRORS.get(e.code)
                if row is None or row.retry == "never" or until <= monotonic():
                    raise
            else:
                log.warning("connected again to %s", self.options.address)
                return made
            self._pause(until)

    def _pause(self, until: float) -> None:
        """Waits until the next attempt, not beyond a moment."""
        span = min(self._next_wait * random.uniform(0.5, 1.0), until - monotonic())
        self._waker.wait(max(span, 0.0))
        self._next_wait = min(self._next_wait * 2, _RETURN_WAITS[1])

    def log_in(self) -> tuple[Conn, Limits, Inbox]:
        """Connects and logs in once."""
        until = monotonic() + self.options.connect_timeout
        try:
            conn = self._dial(until)
            try:
                return self._log_in(conn, until)
            except BaseException:
                conn.close()
                raise
        except IsectError as e:
            if not e.context:
                e.context = f"worker login at {self.options.address}"
            raise

    def _log_in(self, conn: Conn, until: float) -> tuple[Conn, Limits, Inbox]:
        options = self.options
        lines = [
            ("worker", str(self.worker)),
            ("service", options.service),
            ("host", own_host()),
            ("hostpid", str(os.getpid())),
            ("secret", options.secret),
        ]
        if options.concurrency > 1:
            lines.append(("concurrency", str(options.concurrency)))
        lines.append(("cancel", "yes"))
        prover = None
        if options.token is not None and not options.secret:
            from ._token import Prover

            prover = Prover(options.token, options.service, role="worker")
            lines += prover.claim()
        lost: IsectError | None = None
        try:
            self._send(conn, frame(t.WORKER_LOGIN, Lines(lines).bytes()), until)
        except IsectError as e:
            # The broker's refusal may be there to be read.
            lost = e
        inbox = Inbox(t.CONTROL_BODY_BYTES_MAX)
        while True:
            found = inbox.take()
            if found is None:
                try:
                    data = conn.recv(not inbox.is_between_frames)
                except IsectError as e:
                    raise lost or e from None
                if data is not None:
                    inbox.feed(data)
                elif not self._wait(conn, select.POLLIN, until):
                    raise error("unreachable", "a program took the connection but did not answer "
                                               "the login in time",
                                advice="see whether the broker is stuck, or something else listens "
                                       "there")
                continue
            head, body = found
            if head.command == t.WORKER_LOGIN_OK:
                limits = Limits.parse(body)
                if prover is not None and not prover.is_proven(limits.signature):
                    raise error("unproven", "the broker let this worker in, but did not prove that "
                                            "it knows the token")
                self.worker = limits.worker
                self._since = monotonic()
                return conn, limits, inbox
            if head.command == t.ERROR:
                raise error_of(head, body)
            if head.command == t.CHALLENGE and prover is not None:
                sock = conn.sock
                certificate = None
                if conn.is_tls:
                    certificate = sock.getpeercert(True)  # type: ignore[attr-defined]
                proof = prover.answer(Lines.parse(body), certificate)
                self._send(conn, frame(t.PROOF, Lines(proof).bytes()), until)
            elif head.command == t.CHALLENGE:
                raise error("needs_token", "the broker asks for the proof of a token, and none was "
                                           "named")
            elif head.command == t.PING:
                self._send(conn, frame(t.PONG, sequence=head.sequence), until)
            else:
                raise error("bad_state", "the broker answered the login with a "
                                         f"{t.KINDS[head.command]} frame")

    def _dial(self, until: float) -> Conn:
        address = self.options.address
        try:
            if address.kind == "unix":
                found = [(socket.AF_UNIX, address.host)]
            else:
                infos = socket.getaddrinfo(address.host, address.port, type=socket.SOCK_STREAM)
                found = [(info[0], info[4]) for info in infos]  # type: ignore[misc]
            last: OSError | None = None
            for family, where in found:
                sock = socket.socket(family, socket.SOCK_STREAM)
                try:
                    return self._connect(sock, where, until)
                except OSError as e:
                    sock.close()
                    if address.kind == "tls":
                        self._check_tls(e)
                    last = e
                except BaseException:
                    sock.close()
                    raise
            raise last or OSError(errno.EADDRNOTAVAIL, "the name has no address")
        except (OSError, UnicodeError) as e:
            advice = ("it may be restarting, or its state directory was removed"
                      if address.kind == "unix" else
                      "it may be restarting, or its worker port is not reached from this host")
            raise error("unreachable", f"the broker does not listen at {address}: {e}",
                        advice=advice) from e

    def _connect(self, sock: socket.socket, where: object, until: float) -> Conn:
        address = self.options.address
        sock.setblocking(False)
        conn = Conn(sock, address)
        code = sock.connect_ex(where)  # type: ignore[arg-type]
        if code in (errno.EINPROGRESS, errno.EWOULDBLOCK, errno.EAGAIN):
            if address.kind == "unix" and code == errno.EAGAIN:
                raise OSError(code, "too many wait to be accepted")
            if not self._wait(conn, select.POLLOUT, until):
                raise TimeoutError(errno.ETIMEDOUT, "no answer in time")
            code = sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)
        if code:
            raise OSError(code, os.strerror(code))
        if address.kind == "unix":
            return conn
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if address.kind == "tcp":
            return conn
        return self._handshake(sock, until)

    def _handshake(self, sock: socket.socket, until: float) -> Conn:
        import ssl

        from . import _trust

        address = self.options.address
        tls: ssl.SSLSocket = _trust.context(*_trust.from_environment()).wrap_socket(
            sock, server_hostname=_trust.host_name(address.host), do_handshake_on_connect=False)
        conn = Conn(tls, address, is_tls=True)
        while True:
            try:
                tls.do_handshake()
                return conn
            except ssl.SSLWantReadError:
                events = select.POLLIN
            except ssl.SSLWantWriteError:
                events = select.POLLOUT
            if not self._wait(conn, events, until):
                raise TimeoutError(errno.ETIMEDOUT, "no answer of TLS in time")

    def _check_tls(self, e: OSError) -> None:
        """Raises the error of a handshake that failed."""
        import ssl

        from . import _trust

        if isinstance(e, ssl.SSLError):
            raise _trust.fault(e, self.options.address.host) from e

    def _send(self, conn: Conn, data: bytes, until: float) -> None:
        rest = memoryview(data)
        while rest:
            done = conn.send(rest)
            rest = rest[done:]
            if not done and not self._wait(conn, select.POLLOUT, until):
                raise error("unreachable", "the broker took no login in time")

    def _wait(self, conn: Conn, events: int, until: float) -> bool:
        """Waits for the socket; False = the time is over."""
        poll = select.poll()
        poll.register(conn.sock, events)
        poll.register(self._waker.reader, select.POLLIN)
        while True:
            if self._is_stopping():
                raise Stopped
            left = until - monotonic()
            if left <= 0:
                return False
            ready = poll.poll(left * 1000)
            if any(fd == conn.sock.fileno() for fd, _ in ready):
                return True
            self._waker.clear()
