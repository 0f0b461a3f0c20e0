"""What can go wrong: one hierarchy of exceptions, each with a code, whose fault it was, whether the
work ran, and what to do.

`IsectError` is the root. Beneath it: `ConnectionFailed` (no broker, or it is gone), `Refused` (the
login or the request was not accepted: it did not run), `RequestFailed` (it may have run),
`WorkerFailed` (the worker answered that it failed), and `UsageError` (this program did something
that makes no sense). Errors of isect's own table come with their number and name (docs/errors.md).
"""

from __future__ import annotations

from ._tables import ERRORS, ErrorRow

_BY_NAME: dict[str, ErrorRow] = {row.name: row for row in ERRORS.values()}

#: Longest text that an error shows, in characters; the rest is `IsectError.text`.
_SHOWN_MAX = 2000


def visible(text: str) -> str:
    """The text with each character that a terminal could obey (control characters, marks of the
    writing direction, lone surrogates) written as `\\xNN` or `\\uNNNN`."""
    if text.isprintable():
        return text
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in text)


class IsectError(Exception):
    """Any error of this library.

    `code`: the number; negative for isect's own, positive for the worker's own.
    `name`: the name in isect's table; `application` for the worker's own.
    `whose`: `client`, `worker`, `broker` or `host`: who has to change something.
    `ran`: `no`, `maybe` or `yes`: whether the work ran. Asking again is safe after `no`.
    `text`: what failed, with the value and the limit. `advice`: what to do; may be empty.
    Both are as they came; `str` of the error shows nothing that a terminal would obey.
    `retry_after`: seconds before which asking again is of no use; None = not known.
    """

    code: int
    name: str
    whose: str
    ran: str
    text: str
    advice: str
    context: str
    retry_after: float | None

    def __init__(
        self,
        name: str,
        text: str,
        *,
        ran: str | None = None,
        whose: str | None = None,
        advice: str | None = None,
        context: str = "",
        retry_after: float | None = None,
        code: int | None = None,
    ) -> None:
        super().__init__(name, text)
        row = _BY_NAME.get(name)
        self.name = name
        self.text = text
        self.context = context
        self.retry_after = retry_after
        if row is None:
            self.code = 0 if code is None else code
            self.whose = whose or "worker"
            self.ran = ran or "yes"
            self.advice = advice or ""
        else:
            self.code = row.number
            self.whose = whose or row.whose
            self.ran = ran or row.ran
            # Of wrong uses the table's advice is for operators and peers, not for this program.
            usual = "" if isinstance(self, UsageError) else row.advice
            self.advice = usual if advice is None else advice

    @property
    def is_retry_safe(self) -> bool:
        """Whether asking again can't do the work twice, because it never began."""
        return self.ran == "no"

    def __str__(self) -> str:
        first, _, more = self.text.partition("\n")
        shown = first[:_SHOWN_MAX] + (" …" if more or len(first) > _SHOWN_MAX else "")
        if self.context:
            shown = f"{self.context}: {shown}"
        what = self.name
        if what not in _BY_NAME:
            what = f"application error {self.code}" if self.code >= 0 else f"{what} {self.code}"
        shown += f" ({what}, whose: {self.whose}, ran: {self.ran})"
        if self.advice and self.advice.partition(";")[0] not in first:
            shown += f"; {self.advice[:_SHOWN_MAX]}"
        # Whatever of it came from elsewhere: a terminal must not obey it.
        return visible(shown)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.name!r}, {self.text!r}, ran={self.ran!r})"

    def __reduce__(self) -> tuple[object, ...]:
        return (_again, (type(self), dict(self.__dict__)))


def _again(kind: type[IsectError], state: dict[str, object]) -> IsectError:
    """The error that was pickled (a process pool hands errors on in this way)."""
    error = kind.__new__(kind, state["name"], state["text"])
    error.__dict__.update(state)
    return error


class ConnectionFailed(IsectError, ConnectionError):
    """There is no connection to a broker, or it broke."""


class Refused(IsectError):
    """The broker did not accept the login or the request."""


class RequestFailed(IsectError):
    """The request was accepted and has no answer; `ran` says whether the work ran."""


class DeadlineExceeded(RequestFailed, TimeoutError):
    """The time was over before the answer came."""


class WorkerFailed(IsectError):
    """The worker itself answered that the work failed, with a positive code of its own."""


class UsageError(IsectError, ValueError):
    """This program asked for something that makes no sense, or not now."""


class ForkedError(UsageError):
    """The connection belongs to the process that this one was forked from."""


class MissingExtra(UsageError, ImportError):  # type: ignore[misc]
    """Something needs a package that is not installed."""


_CONNECTION = frozenset({"broker_lost", "unreachable", "tls", "shutting_down", "slow_reader",
                         "idle_timeout"})
_DEADLINE = frozenset({"deadline", "timeout"})
_USAGE = frozenset({"usage", "bad_state"})
#: What to do about errors that this library makes, where the table says it to who types commands.
_ADVICE = {
    "usage": "",
    "bad_state": "",
    "unreachable": "start isectd, or name its address in connect or ISECT_HOST",
}


def error(name: str, text: str, **more: object) -> IsectError:
    """The error of this name of the table, as its class."""
    row = _BY_NAME[name]
    if name in _CONNECTION:
        kind: type[IsectError] = ConnectionFailed
    elif name in _DEADLINE:
        kind = DeadlineExceeded
    elif name in _USAGE:
        kind = UsageError
    elif row.ran == "no":
        kind = Refused
    else:
        kind = RequestFailed
    if "advice" not in more and name in _ADVICE:
        more["advice"] = _ADVICE[name]
    return kind(name, text, **more)  # type: ignore[arg-type]


def with_ran(known: IsectError, ran: str) -> IsectError:
    """Another error that says the same, with this `ran`: each request has an error of its own."""
    made = _again(type(known), dict(known.__dict__))
    made.ran = ran
    return made


def application(number: int, text: str) -> WorkerFailed:
    """The worker's own error."""
    advice = "the service's own documents say what this code means"
    return WorkerFailed("application", text, code=number, advice=advice)


def closed() -> IsectError:
    """The error of what is asked of a broker that the program has closed."""
    return error("bad_state", "this broker was closed by the program")


def closing() -> IsectError:
    """The error of what is under way when the program closes its broker."""
    return error("broker_lost", "this program closed its broker", whose="client", advice="")
