"""What the program gives: of `connect`, and of each request, for both fronts."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Union

from . import _tables as t
from ._address import Address, defaults, parse
from ._dial import Options
from ._errors import error, visible
from ._wire import NO_TRACE

if TYPE_CHECKING:
    import ssl

    from ._token import Token

#: What may be the body of a request or the payload of a message; text becomes UTF-8.
Body = Union[bytes, bytearray, memoryview, str]


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
        raise error("usage", f"priority is {priority!r}; it is 1 to 255, lower is served first")
    if not timeout > 0:
        raise error("usage", f"timeout is {timeout!r}; it is more than 0 seconds")
    if token is not None and token_file is not None:
        raise error("usage", "token and token_file are both named; name one of them")
    start: list[tuple[str, str]] = []
    found = None
    if as_worker:
        start = _start_lines()
    else:
        found = _token(token, token_file)
    made: list[ssl.SSLContext] = []
    files = [None if one is None else os.fspath(one) for one in (ca, cert, key)]

    def tls() -> ssl.SSLContext:
        if not made:
            from ._trust import context, from_environment

            made.append(context(*from_environment(*files)))
        return made[0]

    return Options(from_where, found, tls, name, priority, float(timeout), reconnect, start,
                   heartbeat, reply_bytes_max)


def _addresses(given: str | Address | Sequence[str | Address]) -> list[Address]:
    if isinstance(given, (str, Address)):
        given = [given]
    found = [one if isinstance(one, Address) else parse(one) for one in given]
    if not found:
        raise error("usage", "no address is named; name one, or None for the usual ones")
    return found


def _token(token: str | Token | None, token_file: str | os.PathLike[str] | None) -> Token | None:
    if token is None and token_file is None and not (
            os.environ.get(t.TOKEN_VARIABLE) or os.environ.get(t.TOKEN_FILE_VARIABLE)):
        return None
    from ._token import Token, argon2

    if token_file is not None:
        found: Token | None = Token.from_file(token_file)
    elif token is not None:
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


def _bytes(body: Body) -> bytes:
    if type(body) is bytes:
        return body
    if isinstance(body, str):
        try:
            return body.encode()
        except UnicodeEncodeError:
            raise error("usage", "the text has a character that UTF-8 can't hold (a lone "
                                 "surrogate); give bytes") from None
    if isinstance(body, (bytes, bytearray, memoryview)):
        return bytes(body)
    raise error("usage", f"a body is bytes or text, and this is {type(body).__name__}")


def _trace(trace_id: bytes | str | None) -> bytes:
    if trace_id is None:
        return NO_TRACE
    try:
        made = bytes.fromhex(trace_id) if isinstance(trace_id, str) else bytes(trace_id)
    except (TypeError, ValueError):
        made = b""
    if len(made) != 16:
        raise error("usage", f"trace_id is {trace_id!r}; it is 16 bytes, or 32 hex digits")
    return made


def _check_service(service: str) -> None:
    fits = (isinstance(service, str) and 0 < len(service) <= t.NAME_BYTES_MAX and service.isascii()
            and service[0].isalpha() and all(ch.isalnum() or ch in "-_." for ch in service))
    if not fits:
        raise error("usage", f"'{visible(str(service)[:60])}' is no name of a service: 1 to "
                             f"{t.NAME_BYTES_MAX} letters, digits, '-', '_' and '.', beginning "
                             "with a letter")


def _check_numbers(priority: int, span_id: int) -> None:
    if not (isinstance(priority, int) and 0 <= priority <= 255):
        raise error("usage", f"priority is {priority!r}; it is 1 to 255, or 0 for that of connect")
    if not (isinstance(span_id, int) and 0 <= span_id < 2**64):
        raise error("usage", f"span_id is {span_id!r}; it is 0 to {2**64 - 1}")


def _inherit(
    request: Any, timeout: float | None, trace: bytes, span_id: int
) -> tuple[float | None, bytes, int]:
    """What is asked within a worker's request has at most its time, and its trace."""
    left = request.remaining()
    if left is not None and (timeout is None or left < timeout):
        timeout = max(0.0, left)
    if trace == NO_TRACE:
        trace = request.trace_id
        span_id = span_id or request.span_id
    return timeout, trace, span_id


def _object(answer: bytes) -> Any:
    import json

    try:
        return json.loads(answer)
    except ValueError as why:
        raise error("bad_frame", f"the broker's answer is no JSON: {why}") from None
