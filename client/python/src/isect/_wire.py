"""Bytes to frames and back. No input or output, no clock; docs/protocol.md is the source.

A frame is a `Header` and a body. `Inbox` finds frames in a stream, `frame` makes the bytes of one,
`Lines` reads and writes the bodies of control frames.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable
from typing import NamedTuple

from . import _tables as t
from ._errors import IsectError, error

_HEADER = struct.Struct(">IIHhHHIHBBQII16sQ")
_pack = _HEADER.pack
_unpack_from = _HEADER.unpack_from

#: Bits of `flags`.
IDEMPOTENT = 1
EXTENDABLE = 2
_FLAGS = IDEMPOTENT | EXTENDABLE

NO_TRACE = bytes(16)

#: Kinds whose body is the application's.
OPAQUE = frozenset({t.DATA, t.PUBLISH, t.MESSAGE})
#: Kinds that have no body.
EMPTY = frozenset({t.PING, t.PONG, t.END, t.REINIT, t.STATUS, t.FLUSH, t.EXEC_LIST})


class Header(NamedTuple):
    """The 64 bytes before each body (docs/protocol.md, "The header")."""

    len: int
    sequence: int
    reply: int
    error: int
    command: int
    version: int
    workerid: int
    more: int
    priority: int
    flags: int
    transaction: int
    deadline_ms: int
    attempt: int
    trace_id: bytes
    span_id: int


_make = Header._make


def frame(
    command: int,
    body: bytes = b"",
    *,
    sequence: int = 0,
    reply: int = 0,
    error: int = 0,
    workerid: int = 0,
    more: int = 0,
    priority: int = 0,
    flags: int = 0,
    transaction: int = 0,
    deadline_ms: int = 0,
    attempt: int = 0,
    trace_id: bytes = NO_TRACE,
    span_id: int = 0,
) -> bytes:
    """The bytes of one frame."""
    return _pack(len(body), sequence, reply, error, command, t.VERSION, workerid, more, priority,
                 flags, transaction, deadline_ms, attempt, trace_id, span_id) + body


def answer(transaction: int, body: bytes, more: int = 0, number: int = 0) -> bytes:
    """The bytes of a worker's reply; `number` > 0 = the work failed."""
    return _pack(len(body), 0, 0, number, 0, 2, 0, more, 0, 0, transaction, 0, 0, NO_TRACE,
                 0) + body


class Inbox:
    """Finds the frames in a stream of bytes.

    `feed` what was read, then call `take` until it returns None. `body_bytes_max` is the largest
    body of a data frame; the login sets it.
    """

    __slots__ = ("body_bytes_max", "_bytes", "_at")

    def __init__(self, body_bytes_max: int = t.BODY_BYTES_MAX) -> None:
        self.body_bytes_max = body_bytes_max
        self._bytes: bytes | bytearray = b""
        self._at = 0

    def feed(self, data: bytes) -> None:
        """Adds what was read."""
        at = self._at
        held = len(self._bytes) - at
        if held == 0:
            self._bytes = data
        elif isinstance(self._bytes, bytearray):
            if at:
                del self._bytes[:at]
            self._bytes += data
        else:
            # Bytes of a frame that is not whole: a growing buffer, so that a long one costs no
            # more than its length.
            buffer = bytearray(self._bytes[at:])
            buffer += data
            self._bytes = buffer
        self._at = 0

    @property
    def is_between_frames(self) -> bool:
        """Whether no part of a frame waits for the rest."""
        return self._at == len(self._bytes)

    def take(self) -> tuple[Header, bytes] | None:
        """The next whole frame; None = more bytes are needed.

        Raises `Refused` if the bytes are no frame: the stream can't be trusted any more.
        """
        data = self._bytes
        at = self._at
        if len(data) - at < 64:
            return None
        head = _make(_unpack_from(data, at))
        end = at + 64 + head[0]
        if (head[4] != 0 or head[5] != 2 or head[0] > self.body_bytes_max or head[9] & ~_FLAGS
                or head[2] | head[7] > 1):
            self._check(head)
        if len(data) < end:
            return None
        self._at = end
        return head, bytes(data[at + 64:end])

    def _check(self, head: Header) -> None:
        if head.len >> 16 == 0x1603:
            raise error("tls", "a TLS connection was begun at a port that speaks no TLS; leave out "
                               "'tls://', or name the port that has it")
        if head.version != t.VERSION:
            raise error("version", f"version {head.version} is not spoken here; spoken is "
                                   f"{t.VERSION}")
        name = t.KINDS.get(head.command)
        if name is None:
            raise error("bad_frame", f"command {head.command} is no kind of frame")
        if head.command in OPAQUE:
            if head.len > self.body_bytes_max:
                raise error("body_too_large", f"frame of {head.len} bytes exceeds body_bytes_max "
                                              f"{self.body_bytes_max}")
            if (head.reply | head.more) > 1:
                raise error("out_of_range", f"reply is {head.reply}, more is {head.more}; each is "
                                            "0 or 1")
        elif head.command in EMPTY:
            if head.len:
                raise error("bad_frame", f"{name} frame has a body of {head.len} bytes; it must "
                                         "have none")
        elif head.len > t.CONTROL_BODY_BYTES_MAX:
            raise error("body_too_large", f"{name} frame of {head.len} bytes exceeds the "
                                          f"{t.CONTROL_BODY_BYTES_MAX} of a control frame")
        if head.flags & ~_FLAGS:
            raise error("bad_frame", f"flags {head.flags:#04x} has bits set that must be zero")


class Lines:
    """The body of a control frame: `key value` lines, then, after an empty line, free text."""

    __slots__ = ("pairs", "text")

    def __init__(self, pairs: Iterable[tuple[str, str]] = (), text: str = "") -> None:
        self.pairs = list(pairs)
        self.text = text

    @classmethod
    def parse(cls, body: bytes) -> Lines:
        """Reads a body. Raises `Refused` (`bad_frame`) if it is none."""
        try:
            rest = body.decode()
        except UnicodeDecodeError as e:
            raise error("bad_frame", f"byte {e.start} of the body is not UTF-8") from None
        if rest.startswith("\n"):
            head, text = "", rest[1:]
        else:
            head, _, text = rest.partition("\n\n")
        lines = head.split("\n")
        if lines[-1] == "":
            lines.pop()
        if len(lines) > t.LINES_MAX:
            raise error("bad_frame", f"the body has more than {t.LINES_MAX} lines")
        made = cls(text=text)
        for line in lines:
            key, _, value = line.partition(" ")
            if len(value) > t.VALUE_BYTES_MAX or len(value.encode()) > t.VALUE_BYTES_MAX:
                raise error("bad_frame", f"the value of '{key[:40]}' has {len(value.encode())} "
                                         f"bytes; at most {t.VALUE_BYTES_MAX} are allowed")
            made.pairs.append((key, _unescape(key, value) if "\\" in value else value))
        return made

    def bytes(self) -> bytes:
        """The body of these lines."""
        out = "".join(f"{key} {_escape(value)}\n" for key, value in self.pairs)
        if self.text:
            out += f"\n{self.text}"
        try:
            made = out.encode()
        except UnicodeEncodeError:
            raise error("usage", "a text has a character that UTF-8 can't hold (a lone surrogate)"
                        ) from None
        if len(made) > t.LINES_MAX:
            self._check_size(len(made))
        return made

    def _check_size(self, size: int) -> None:
        for key, value in self.pairs:
            held = len(_escape(value).encode())
            if held > t.VALUE_BYTES_MAX:
                raise error("body_too_large", f"the value of '{key}' has {held} bytes; at most "
                                              f"{t.VALUE_BYTES_MAX} are allowed", advice="")
        if len(self.pairs) > t.LINES_MAX:
            raise error("body_too_large", f"{len(self.pairs)} lines are too many for one frame; at "
                                          f"most {t.LINES_MAX} are allowed", advice="")
        if size > t.CONTROL_BODY_BYTES_MAX:
            raise error("body_too_large", f"{size} bytes of lines are too many for one frame; at "
                                          f"most {t.CONTROL_BODY_BYTES_MAX} are allowed", advice="")

    def get(self, key: str, absent: str = "") -> str:
        """The value of the first line with this key."""
        for known, value in self.pairs:
            if known == key:
                return value
        return absent

    def all(self, key: str) -> list[str]:
        """The values of all lines with this key."""
        return [value for known, value in self.pairs if known == key]

    def number(self, key: str, absent: int | None = None, most: int = 2**64 - 1) -> int:
        """The number of a key; without `absent` it must be there."""
        value = self.get(key, "\0")
        if value == "\0":
            if absent is None:
                raise error("bad_frame", f"the key '{key}' is missing")
            return absent
        # More than 20 digits are more than 2**64, and Python refuses to read thousands of them.
        if not (value.isascii() and value.isdigit() and len(value) <= 20) or int(value) > most:
            raise error("bad_frame", f"{key} is '{value[:40]}'; it is a number from 0 to {most}")
        return int(value)

    def flag(self, key: str) -> bool:
        """Whether the value of a key is `yes`; absent = no."""
        value = self.get(key, "no")
        if value not in ("yes", "no"):
            raise error("bad_frame", f"{key} is '{value[:40]}'; it is yes or no")
        return value == "yes"


def _escape(value: str) -> str:
    return value.replace("\\", "\\\\").replace("\n", "\\n")


def _unescape(key: str, value: str) -> str:
    out = []
    pieces = iter(value.split("\\"))
    out.append(next(pieces))
    for piece in pieces:
        if piece.startswith("n"):
            out.append("\n" + piece[1:])
        elif piece == "":
            # A backslash that stands for itself: what follows is taken as it is.
            out.append("\\" + next(pieces, "\0"))
            if out[-1] == "\\\0":
                raise error("bad_frame", f"the value of '{key[:40]}' ends with a lone backslash")
        else:
            raise error("bad_frame", f"the value of '{key[:40]}' has a backslash before "
                                     f"'{piece[0]}'; only '\\\\' and '\\n' are known")
    return "".join(out)


#: The words of an error's body.
_RAN = ("no", "maybe", "yes")
_WHOSE = ("client", "worker", "broker", "host")


def error_of(head: Header, body: bytes) -> IsectError:
    """The error of an `error` frame."""
    if head.error == -1 or body == t.INTERVENTION.encode():
        return error("intervention", t.INTERVENTION)
    lines = Lines.parse(body)
    row = t.ERRORS.get(head.error)
    after = lines.number("retry_after_ms", 0)
    if row is None:
        if head.error >= 0:
            raise error("bad_frame", f"an error frame has the error {head.error}; isect's own are "
                                     "below 0")
        # A code of a newer broker: what it says of itself is all that is known.
        whose, ran = lines.get("whose"), lines.get("ran")
        return IsectError(lines.get("name") or "unknown", lines.text, code=head.error,
                          whose=whose if whose in _WHOSE else "broker",
                          ran=ran if ran in _RAN else "maybe", advice=lines.get("advice"),
                          retry_after=after / 1000 if after else None)
    ran = lines.get("ran", row.ran)
    if ran not in _RAN:
        raise error("bad_frame", f"ran is '{ran[:40]}'; it is no, maybe or yes")
    whose = lines.get("whose")
    if whose not in _WHOSE:
        whose = row.whose
    return error(row.name, lines.text, ran=ran, whose=whose, advice=lines.get("advice", row.advice),
                 retry_after=after / 1000 if after else None)
