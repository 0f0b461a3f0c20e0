"""What `connect` is given, for both fronts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from . import _tables as t
from ._address import Address, defaults, parse
from ._arguments import SPAN_MAX, as_text, span, whole, wrong
from ._dial import Options
from ._errors import error

if TYPE_CHECKING:
    import ssl

    from ._token import Token


def _options(
    address: str | Address | Sequence[str | Address] | None,
    token: str | Token | None,
    token_file: str | os.PathLike[str] | None,
    ca: str | os.PathLike[str] | None,
    cert: str | os.PathLike[str] | None,
    key: str | os.PathLike[str] | None,
    name: str | None,
    priority: int,
    timeout: float,
    reconnect: bool,
    heartbeat: bool,
    as_worker: bool,
    reply_bytes_max: int,
) -> Options:
    """What `connect`, here and in `aio`, was given. Raises `UsageError`."""
    from_where = defaults() if address is None else _addresses(address)
    if not (isinstance(priority, int) and 1 <= priority <= 255):
        raise wrong("priority", priority, "1 to 255, lower is served first")
    if timeout is None or span(timeout) == 0:
        raise wrong("timeout", timeout, "more than 0 seconds")
    if name is not None:
        as_text(name, "name")
    whole(reply_bytes_max, "reply_bytes_max", 1, 2**63)
    if token is not None and token_file is not None:
        raise error("usage", "token and token_file are both named; name one of them")
    start: list[tuple[str, str]] = []
    found = None
    if as_worker:
        start = _start_lines()
    else:
        found = _token(token, token_file)
    made: list[ssl.SSLContext] = []
    files = [_path(one, what) for one, what in ((ca, "ca"), (cert, "cert"), (key, "key"))]

    def tls() -> ssl.SSLContext:
        if not made:
            from ._trust import context, from_environment

            made.append(context(*from_environment(*files)))
        return made[0]

    return Options(from_where, found, tls, name, priority, min(timeout, SPAN_MAX), reconnect, start,
                   heartbeat, reply_bytes_max)


def _addresses(given: str | Address | Sequence[str | Address]) -> list[Address]:
    if isinstance(given, (str, Address)):
        given = [given]
    found = []
    for one in given if isinstance(given, Sequence) else [given]:
        if not isinstance(one, (str, Address)):
            raise wrong("address", given, "a text such as 'tls://host:port', or a list of such")
        found.append(one if isinstance(one, Address) else parse(one))
    if not found:
        raise error("usage", "no address is named; name one, or None for the usual ones")
    return found


def _path(given: Any, what: str) -> Any:
    """The path of a file, as text; None = none is named."""
    try:
        return None if given is None else os.fsdecode(given)
    except TypeError:
        raise wrong(what, given, "the path of a file") from None


def _token(token: str | Token | None, token_file: str | os.PathLike[str] | None) -> Token | None:
    if token == "" or token is None and token_file is None and not (
            os.environ.get(t.TOKEN_VARIABLE) or os.environ.get(t.TOKEN_FILE_VARIABLE)):
        return None
    from ._token import Token, argon2

    if token_file is not None:
        found: Token | None = Token.from_file(_path(token_file, "token_file"))
    elif token is not None:
        if not isinstance(token, (str, Token)):
            raise error("usage", f"token is of type {type(token).__name__}; it is text, or an "
                                 "isect.Token")
        found = Token(token) if isinstance(token, str) else token
    else:
        found = Token.from_environment()
    argon2()
    return found


def _start_lines() -> list[tuple[str, str]]:
    worker = sys.argv[3] if len(sys.argv) > 3 else ""
    secret = os.environ.get(t.WORKER_SECRET_VARIABLE, "")
    if not worker.isdigit():
        raise error("usage", "argv[3] is no worker's id, so this program was not started as a "
                             "worker; leave out as_worker")
    if not secret:
        raise error("usage", f"{t.WORKER_SECRET_VARIABLE} is not set; execd sets it for the "
                             "workers that it starts")
    return [("worker", worker), ("secret", secret)]
