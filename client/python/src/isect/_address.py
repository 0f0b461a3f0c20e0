"""Addresses of a broker: `host`, `host:port`, `[IPv6]:port`, each also after `tls://`, or
`unix:PATH`; and the default addresses, which are those of isdclient."""

from __future__ import annotations

import os
import socket
from typing import NamedTuple

from . import _tables as t
from ._errors import IsectError, error, visible

#: Most bytes of the path of a Unix socket (unix(7), without the zero byte).
PATH_BYTES_MAX = 107
#: Most bytes of a host's name (RFC 1035).
HOST_BYTES_MAX = 253
#: Most bytes of the name of a network interface (the kernel's IFNAMSIZ).
ZONE_BYTES_MAX = 15


class Address(NamedTuple):
    """The address of a broker; `str` gives its one spelling."""

    #: `tcp`, `tls` or `unix`.
    kind: str
    #: The host, without brackets; of `unix` the path.
    host: str
    #: The port; 0 of `unix`.
    port: int

    def __str__(self) -> str:
        if self.kind == "unix":
            return f"unix:{self.host}"
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'tls://' if self.kind == 'tls' else ''}{host}:{self.port}"


class _Wrong(Exception):
    """What is wrong, as the rest of a sentence that begins with the address."""


def parse(text: str) -> Address:
    """Reads an address; the default port is 5501. Raises `UsageError` if it is none."""
    try:
        return _parse(text)
    except _Wrong as why:
        raise _bad(text, str(why)) from None


def _bad(text: str, why: str) -> IsectError:
    return error("usage", f"address '{visible(text[:120])}' {why}; it is HOST, HOST:PORT, "
                          "tls://HOST:PORT or unix:PATH")


def _parse(text: str) -> Address:
    if text.startswith("unix:"):
        path = text[5:]
        size = len(os.fsencode(path))
        if not path:
            raise _Wrong("has no path after 'unix:'")
        if "\0" in path:
            raise _Wrong("has a zero byte in its path")
        if size > PATH_BYTES_MAX:
            raise _Wrong(f"has a path of {size} bytes, and a socket's has at most {PATH_BYTES_MAX}")
        return Address("unix", path, 0)
    kind, rest = "tcp", text
    if text.startswith("tls://"):
        kind, rest = "tls", text[6:]
        if rest.startswith("unix:") or "://" in rest:
            raise _Wrong("has no host after 'tls://'")
    if any(ch.isspace() or ch < " " or ch == "/" or "\x7f" <= ch <= "\x9f" for ch in rest):
        raise _Wrong("has a letter that no host name has")
    port = None
    if rest.startswith("["):
        inner, bracket, after = rest[1:].partition("]")
        if not bracket:
            raise _Wrong("has '[' without ']'")
        host = _ipv6(inner)
        if host is None:
            raise _Wrong("has no IPv6 address in its brackets")
        if after and not after.startswith(":"):
            raise _Wrong("goes on after ']' without ':'")
        if after:
            port = after[1:]
    elif rest.count(":") > 1:
        host = _ipv6(rest)
        if host is None:
            raise _Wrong("has more than one ':', and is no IPv6 address")
    else:
        name, colon, digits = rest.partition(":")
        host = _host(name)
        port = digits if colon else None
    return Address(kind, host, t.CLIENT_PORT if port is None else _port(port))


def _port(text: str) -> int:
    if text.isascii() and text.isdigit() and len(text) <= 5 and 1 <= int(text) <= 65535:
        return int(text)
    raise _Wrong(f"has '{visible(text[:20])}' as its port, which is no port from 1 to 65535")


def _ipv6(text: str) -> str | None:
    plain, percent, zone = text.partition("%")
    if percent and not (0 < len(zone) <= ZONE_BYTES_MAX and zone.isascii()):
        return None
    try:
        packed = socket.inet_pton(socket.AF_INET6, plain)
    except (OSError, ValueError):
        return None
    if packed.startswith(bytes(10) + b"\xff\xff"):
        return socket.inet_ntop(socket.AF_INET, packed[12:])
    return socket.inet_ntop(socket.AF_INET6, packed) + percent + zone


def _host(text: str) -> str:
    if not text:
        raise _Wrong("has no host")
    if not all(ch.isascii() and (ch.isalnum() or ch in ".-_") for ch in text):
        raise _Wrong("has a letter that no host name has")
    try:
        socket.inet_pton(socket.AF_INET, text)
        return text
    except OSError:
        pass
    if len(text) > HOST_BYTES_MAX:
        raise _Wrong(f"has a host of {len(text)} bytes; at most {HOST_BYTES_MAX} are allowed")
    if text == "unix":
        raise _Wrong("names the kind of an address as its host")
    # The system's look-up reads 127.1, 0x7f.1 and 5501 as addresses; other programs don't.
    last = text.rstrip(".").rpartition(".")[2].lower()
    if last.isdigit() or (last.startswith("0x") and set(last[2:]) <= set("0123456789abcdef")):
        raise _Wrong("ends in a number, and is no IPv4 address such as 127.0.0.1")
    return text


def of_worker(host: str, port: str) -> Address:
    """The broker's address from the arguments of a worker: a host or `unix:PATH`, and a port."""
    if host.startswith("unix:"):
        return parse(host)
    kind, bare = ("tls://", host[6:]) if host.startswith("tls://") else ("", host)
    bare = bare[1:-1] if bare.startswith("[") and bare.endswith("]") else bare
    shown = f"[{bare}]" if ":" in bare else bare
    return parse(f"{kind}{shown}:{port}")


def state_dir() -> str | None:
    """The user's state directory of isect; None = the environment names none."""
    base = os.environ.get("XDG_STATE_HOME", "")
    if not os.path.isabs(base):
        home = os.environ.get("HOME", "")
        if not home:
            return None
        base = os.path.join(home, ".local/state")
    return os.path.join(base, "isect")


def defaults() -> list[Address]:
    """The addresses to try if the program names none: `ISECT_HOST` if that is set; else the Unix
    socket in the user's state directory, if it exists, then the client port of this machine.
    Raises `UsageError` if `ISECT_HOST` is no address."""
    host = os.environ.get(t.HOST_VARIABLE, "")
    if host:
        try:
            return [parse(host)]
        except IsectError as why:
            why.context = t.HOST_VARIABLE
            raise
    found = []
    directory = state_dir()
    if directory is not None:
        path = os.path.join(directory, "client.sock")
        if os.path.exists(path):
            found.append(Address("unix", path, 0))
    found.append(Address("tcp", "127.0.0.1", t.CLIENT_PORT))
    return found
