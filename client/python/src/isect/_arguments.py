"""What the program gives with a request, a message or a wait, for both fronts: whatever makes no
sense raises `UsageError` before anything is changed."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from time import monotonic
from typing import Any, Union

from . import _tables as t
from ._errors import IsectError, error, visible
from ._wire import NO_TRACE

#: What may be the body of a request or the payload of a message; text becomes UTF-8.
Body = Union[bytes, bytearray, memoryview, str]

#: A time to wait that is longer counts as none, in seconds: the system's own have less room.
SPAN_MAX = 366 * 24 * 3600.0


def shown(value: object) -> str:
    """A value as an error names it."""
    try:
        made = repr(value)
    except Exception:
        made = f"<{type(value).__name__}>"
    return visible(made[:60]) + ("…" if len(made) > 60 else "")


def wrong(what: str, value: object, rule: str) -> IsectError:
    """The error of a value that makes no sense."""
    return error("usage", f"{what} is {shown(value)}; it is {rule}")


def span(value: Any, what: str = "timeout") -> float | None:
    """A time to wait, in seconds: None = without end. Less than 0 is 0."""
    if value is None:
        return None
    if not isinstance(value, (int, float)) or value != value:
        raise wrong(what, value, "a number of seconds, or None for no end")
    return None if value > SPAN_MAX else max(0.0, float(value))


def end_of(value: Any, what: str = "timeout") -> float | None:
    """When a time to wait is over, by the clock of `time.monotonic`."""
    seconds = span(value, what)
    return None if seconds is None else monotonic() + seconds


def as_text(value: Any, what: str) -> str:
    """Text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise wrong(what, value, "text")
    try:
        value.encode()
    except UnicodeEncodeError:
        raise wrong(what, value, "text, and has a character that UTF-8 can't hold (a lone "
                    "surrogate)") from None
    return value


def as_texts(values: Any, what: str) -> list[str]:
    """Several texts."""
    if isinstance(values, (str, bytes)) or not isinstance(values, Iterable):
        raise wrong(what, values, "a list of texts")
    return [as_text(value, what) for value in values]


def as_pairs(values: Any, what: str) -> list[tuple[Any, str]]:
    """The pairs of a mapping to texts; None = there are none."""
    if values is None:
        return []
    if not isinstance(values, Mapping):
        raise wrong(what, values, "a dict of texts")
    return [(key, as_text(value, f"{what}[{shown(key)}]")) for key, value in values.items()]


def whole(value: Any, what: str, least: int, most: int) -> int:
    """A whole number within limits."""
    if not (isinstance(value, int) and least <= value <= most):
        raise wrong(what, value, f"a whole number from {least} to {most}")
    return value


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
    made = b""
    if isinstance(trace_id, (bytes, bytearray, memoryview)):
        made = bytes(trace_id)
    elif isinstance(trace_id, str):
        try:
            made = bytes.fromhex(trace_id)
        except ValueError:
            pass
    if len(made) != 16:
        raise wrong("trace_id", trace_id, "16 bytes, or 32 hex digits")
    return made


def _check_service(service: str) -> None:
    fits = (isinstance(service, str) and 0 < len(service) <= t.NAME_BYTES_MAX and service.isascii()
            and service[0].isalpha() and all(ch.isalnum() or ch in "-_." for ch in service))
    if not fits:
        raise error("usage", f"{shown(service)} is no name of a service: 1 to {t.NAME_BYTES_MAX} "
                             "letters, digits, '-', '_' and '.', beginning with a letter")


def _check_numbers(priority: int, span_id: int) -> None:
    if not (isinstance(priority, int) and 0 <= priority <= 255):
        raise wrong("priority", priority, "1 to 255, or 0 for that of connect")
    if not (isinstance(span_id, int) and 0 <= span_id < 2**64):
        raise wrong("span_id", span_id, f"0 to {2**64 - 1}")


def _inherit(
    request: Any, timeout: float | None, trace: bytes, span_id: int
) -> tuple[float | None, bytes, int]:
    """What is asked within a worker's request has at most its time, and its trace."""
    if timeout is not None and not isinstance(timeout, (int, float)):
        raise wrong("timeout", timeout, "a number of seconds, or None for the service's own")
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
        made = json.loads(answer)
    except (ValueError, RecursionError) as why:
        raise error("bad_frame", f"the broker's answer is no JSON: {why}", ran="yes") from None
    if not isinstance(made, dict):
        raise error("bad_frame", "the broker's answer is JSON, but no object", ran="yes")
    return made
