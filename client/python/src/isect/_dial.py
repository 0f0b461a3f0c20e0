"""Connections of the blocking front: the socket, TLS over it, and the login."""

from __future__ import annotations

import errno
import os
import select
import socket
from collections.abc import Callable
from time import monotonic
from typing import TYPE_CHECKING, Any

from . import _tables as t
from ._address import Address
from ._errors import IsectError, error, visible
from ._session import BROKEN, CHALLENGED, CLOSING, LOGGED_IN, NOT_LOGGED_IN, Session
from ._wire import Inbox, error_of, frame

if TYPE_CHECKING:
    import ssl

    from ._token import Token

#: Bytes that one read asks for.
READ_BYTES = 65536

#: Silence after which the kernel gives up a TCP link to another machine, in seconds, and probes.
KEEPALIVE_SILENCE = 3
KEEPALIVE_PROBES = 2

#: Longest time that one wait of the system takes, in milliseconds: it has room for 24 days.
WAIT_MS_MAX = 86_400_000

DONT_WAIT = socket.MSG_DONTWAIT


class Tls:
    """The TLS of one connection; bytes in, bytes out."""

    __slots__ = ("_object", "_incoming", "_outgoing", "host")

    def __init__(self, context: ssl.SSLContext, host: str) -> None:
        import ssl

        from ._trust import host_name

        self._incoming = ssl.MemoryBIO()
        self._outgoing = ssl.MemoryBIO()
        self.host = host
        self._object = context.wrap_bio(self._incoming, self._outgoing,
                                        server_hostname=host_name(host))

    def handshake(self, data: bytes) -> tuple[bool, bytes]:
        """Goes on with what was read; whether it is through, and what is to be written."""
        import ssl

        if data:
            self._incoming.write(data)
        try:
            self._object.do_handshake()
        except ssl.SSLWantReadError:
            return False, self._outgoing.read()
        return True, self._outgoing.read()

    def certificate(self) -> bytes | None:
        """The broker's certificate in DER."""
        return self._object.getpeercert(binary_form=True)

    def seal(self, data: bytes) -> bytes:
        """What is to be written for these bytes."""
        view = memoryview(data)
        while view:
            view = view[self._object.write(view):]
        return self._outgoing.read()

    def open(self, data: bytes) -> tuple[bytes, bool, bytes]:
        """What these bytes hold, whether the broker has ended TLS in order, and what is to be
        written in answer."""
        import ssl

        self._incoming.write(data)
        out = []
        is_end = False
        while True:
            try:
                some = self._object.read(READ_BYTES)
            except ssl.SSLWantReadError:
                break
            except ssl.SSLZeroReturnError:
                is_end = True
                break
            if not some:
                is_end = True
                break
            out.append(some)
        return b"".join(out), is_end, self._outgoing.read()


class Pipe:
    """A connection that has logged in, or is about to."""

    __slots__ = ("sock", "tls", "address", "recv", "send", "inbox", "fault", "_timeout_ms")

    def __init__(self, sock: socket.socket, tls: Tls | None, address: Address) -> None:
        self.sock = sock
        self.tls = tls
        self.address = address
        self.recv: Callable[..., bytes] = sock.recv
        self.send: Callable[[Any, int], int] = sock.send
        #: What was read and is not handled yet, and why nothing more can be read or written.
        self.inbox: list[bytes] = []
        self.fault: OSError | None = None
        self._timeout_ms = -1

    def set_timeout(self, seconds: float | None) -> None:
        """The longest time for which a read waits; the kernel keeps it, so that a program that
        always waits the same time causes one system call only."""
        ms = 0 if seconds is None else max(1, min(WAIT_MS_MAX, int(seconds * 1000 + 0.999)))
        if ms != self._timeout_ms:
            timeval = ms // 1000, ms % 1000 * 1000
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(*timeval))
            self._timeout_ms = ms

    def wait(self, reads: bool, writes: bool, seconds: float | None) -> tuple[bool, bool]:
        """Waits until the socket can be read or written: which of them."""
        events = (select.POLLIN if reads else 0) | (select.POLLOUT if writes else 0)
        poll = select.poll()
        poll.register(self.sock, events)
        found = poll.poll(
            None if seconds is None else max(0.0, min(WAIT_MS_MAX, seconds * 1000 + 0.999)))
        ready = found[0][1] if found else 0
        wrong = ready & (select.POLLERR | select.POLLHUP | select.POLLNVAL)
        return (reads and bool(ready & select.POLLIN or wrong),
                writes and bool(ready & select.POLLOUT or wrong))

    def stop_reading(self) -> None:
        """A thread that reads comes to the end, after what has come already."""
        try:
            self.sock.shutdown(socket.SHUT_RD)
        except OSError:
            pass

    def close(self) -> None:
        """Closes it; a thread that reads notices."""
        try:
            self.sock.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.sock.close()

    def write_all(self, data: bytes, until: float) -> None:
        """Writes everything. Raises OSError."""
        raw = memoryview(data if self.tls is None else self.tls.seal(data))
        self.write_raw(raw, until)

    def write_raw(self, raw: memoryview | bytes, until: float) -> None:
        """As `write_all`, as it is."""
        view = memoryview(raw)
        while view:
            try:
                view = view[self.sock.send(view, DONT_WAIT):]
            except BlockingIOError:
                if not self.wait(False, True, until - monotonic())[1]:
                    raise TimeoutError("it takes nothing") from None

    def read_some(self, until: float) -> bytes:
        """The next bytes; empty = the end. Raises OSError."""
        while True:
            left = until - monotonic()
            if left <= 0 or not self.wait(True, False, left)[0]:
                raise TimeoutError("it sends nothing")
            raw = self.sock.recv(READ_BYTES)
            if self.tls is None or not raw:
                return raw
            data, is_end, answer = self.tls.open(raw)
            if answer:
                self.write_raw(answer, until)
            if data or is_end:
                return data


def _timeval(seconds: int, micros: int) -> bytes:
    import struct

    return struct.pack("@ll", seconds, micros)


class Options:
    """How this program logs in, whatever the service."""

    __slots__ = ("addresses", "token", "tls", "name", "priority", "timeout", "reconnect", "start",
                 "heartbeat", "reply_bytes_max")

    def __init__(
        self, addresses: list[Address], token: Token | None, tls: Callable[[], ssl.SSLContext],
        name: str | None, priority: int, timeout: float, reconnect: bool,
        start: list[tuple[str, str]], heartbeat: bool, reply_bytes_max: int,
    ) -> None:
        self.addresses = addresses
        self.token = token
        self.tls = tls
        self.name = name
        self.priority = priority
        self.timeout = timeout
        self.reconnect = reconnect
        #: The lines `worker` and `secret` of a program that is part of a worker.
        self.start = start
        self.heartbeat = heartbeat
        self.reply_bytes_max = reply_bytes_max

    def login(self, service: str, more: list[tuple[str, str]]) -> list[tuple[str, str]]:
        """The lines of a login."""
        try:
            host = socket.gethostname()
        except OSError:
            host = ""
        lines = [("service", service), ("priority", str(self.priority)), ("loghost", host),
                 ("hostpid", str(os.getpid()))]
        if self.name:
            lines.append(("name", self.name))
        return lines + self.start + more


def dial(options: Options, until: float) -> Pipe:
    """Connects to the first address where somebody answers; with TLS it also finishes the
    handshake. Raises `ConnectionFailed`."""
    tried = []
    number = None
    for address in options.addresses:
        try:
            return _dial_one(address, options, until)
        except IsectError as why:
            why.context = why.context or f"login at {address}"
            raise
        except OSError as why:
            tried.append(f"{address}: {why.strerror or why}")
            number = why.errno
    raise nobody(tried, number)


def nobody(tried: list[str], number: int | None) -> IsectError:
    """The error of a program that was not connected at any of these addresses; `number`: that of
    the last error of the system."""
    text = f"no broker answers at {'; '.join(tried)}"
    if number in (errno.EMFILE, errno.ENFILE):
        return error("unreachable", text, whose="client",
                     advice="close files, or raise the limit of open files")
    return error("unreachable", text)


def _dial_one(address: Address, options: Options, until: float) -> Pipe:
    if address.kind == "unix":
        sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        return Pipe(_connect(sock, address.host, until), None, address)
    tls = Tls(options.tls(), address.host) if address.kind == "tls" else None
    sock = _dial_tcp(address, until)
    pipe = Pipe(sock, tls, address)
    if tls is not None:
        try:
            _handshake(pipe, tls, until)
        except BaseException:
            pipe.close()
            raise
    return pipe


def _connect(sock: socket.socket, where: Any, until: float) -> socket.socket:
    try:
        sock.settimeout(max(0.001, until - monotonic()))
        sock.connect(where)
        # If nobody listens on a port of the kernel's ephemeral range, a connection to it can by
        # chance connect to itself.
        if sock.family != socket.AF_UNIX and sock.getsockname() == sock.getpeername():
            raise ConnectionRefusedError("connection refused")
        sock.settimeout(None)
        return sock
    except BaseException:
        sock.close()
        raise


def _dial_tcp(address: Address, until: float) -> socket.socket:
    # Listeners and callers agree that this is 127.0.0.1.
    host = "127.0.0.1" if address.host.lower() == "localhost" else address.host
    last: OSError = OSError("the name has no address")
    try:
        found = socket.getaddrinfo(host, address.port, type=socket.SOCK_STREAM)
    except UnicodeError:
        raise OSError("it is no name of a host") from None
    for family, kind, protocol, _, where in found:
        try:
            sock = _connect(socket.socket(family, kind, protocol), where, until)
        except OSError as why:
            last = why
            continue
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if sock.getsockname()[0] != sock.getpeername()[0]:
            # If both ends are on this machine, a process that ends closes its connections.
            share = max(1, KEEPALIVE_SILENCE // (KEEPALIVE_PROBES + 1))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, share)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, share)
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, KEEPALIVE_PROBES)
        return sock
    raise last


def _handshake(pipe: Pipe, tls: Tls, until: float) -> None:
    import ssl

    from ._trust import fault

    data = b""
    while True:
        try:
            is_through, out = tls.handshake(data)
        except (ssl.SSLError, ssl.CertificateError) as why:
            raise fault(why, tls.host) from None
        pipe.write_raw(out, until)
        if is_through:
            return
        left = until - monotonic()
        if left <= 0 or not pipe.wait(True, False, left)[0]:
            raise TimeoutError("a program took the connection but did not begin TLS in time")
        data = pipe.sock.recv(READ_BYTES)
        if not data:
            raise error("tls", f"{visible(tls.host)} closed the connection in the TLS handshake; "
                               "it may not speak TLS")


def tls_fault(why: Exception, tls: Tls) -> IsectError:
    """The error of a connection whose TLS failed."""
    from ._trust import fault

    return fault(why, tls.host)


def check(options: Options) -> None:
    """Whether a broker answers: whoever connects may send a ping before the login. Raises
    `ConnectionFailed`."""
    until = monotonic() + options.timeout
    pipe = dial(options, until)
    inbox = Inbox()
    try:
        pipe.write_all(frame(t.PING, sequence=1), until)
        while True:
            found = inbox.take()
            if found is not None:
                if found[0].command == t.ERROR:
                    raise error_of(*found)
                return
            data = pipe.read_some(until)
            if not data:
                raise error("unreachable", f"what listens at {pipe.address} closed the connection; "
                                           "it may be no broker, or speak only TLS")
            inbox.feed(data)
    except IsectError as why:
        if why.name not in ("unreachable", "tls", "too_many_connections", "shutting_down"):
            raise error("unreachable", f"what listens at {pipe.address} is no broker of isect: "
                                       f"{why.text}") from None
        raise
    except (OSError, ValueError) as why:
        raise error("unreachable", f"what listens at {pipe.address} does not answer as a broker "
                                   f"does: {getattr(why, 'strerror', None) or why}") from None
    finally:
        pipe.close()


def log_in(
    pipe: Pipe,
    session: Session,
    lock: Any,
    service: str,
    options: Options,
    more: list[tuple[str, str]],
    until: float,
) -> list[Any]:
    """Logs in on a new connection; returns the events that came behind the answer. The session is
    used with the lock held. Raises `IsectError`."""
    prover = None
    if options.token is not None:
        from ._token import Prover

        prover = Prover(options.token, service)
    address = pipe.address
    with lock:
        made = session.login(options.login(service, more), prover)
    try:
        _try_write(pipe, made, until)
        while True:
            data = pipe.read_some(until)
            if not data:
                raise error("unreachable", f"the broker at {address} closed the connection")
            with lock:
                events = session.receive(data)
                out = b"".join(session.outgoing)
                session.outgoing.clear()
            for at, (_, what, value, _) in enumerate(events):
                if what == LOGGED_IN:
                    if out:
                        pipe.write_all(out, until)
                    return events[at + 1:]
                if what in (NOT_LOGGED_IN, BROKEN, CLOSING):
                    raise value
                if what == CHALLENGED:
                    assert prover is not None
                    certificate = None if pipe.tls is None else pipe.tls.certificate()
                    proof = prover.answer(value, certificate)
                    _try_write(pipe, session.prove(proof), until)
            if out:
                _try_write(pipe, out, until)
    except OSError as why:
        if isinstance(why, IsectError):
            raise
        late = isinstance(why, TimeoutError)
        text = ("a program took the connection but did not answer the login in time" if late else
                f"the connection broke: {why.strerror or why}")
        raise error("unreachable", text) from None


def _try_write(pipe: Pipe, data: bytes, until: float) -> None:
    try:
        pipe.write_all(data, until)
    except (BrokenPipeError, ConnectionResetError):
        # The broker's refusal may be there to be read.
        pass
