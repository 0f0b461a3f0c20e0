"""The program of a worker: `worker` marks its handler, `run` serves."""

from __future__ import annotations

import inspect
import logging
import os
import re
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar, overload

from . import _tables as t
from ._address import Address, of_worker, parse, state_dir
from ._context import current
from ._errors import IsectError, MissingExtra, error, visible
from ._request import AsyncRequest, BaseRequest, Request
from ._serve import Failure, PlainServer, Server, last_words
from ._worker import State
from ._worker_conn import Options, check_name

if TYPE_CHECKING:
    from ._aside import CurrentWorker
    from ._token import Token

__all__ = ["AsyncRequest", "Failure", "Request", "arguments", "current_worker", "run", "worker"]

H = TypeVar("H", bound=Callable[..., Any])

#: What `run` serves in this process, on one thread or on several.
_running: list[Server[Any]] = []

_CONCURRENCY = "__isect_concurrency__"

_USAGE = """\
Usage: {name} HOST|unix:PATH PORT WORKER SERVICE [ARGUMENT…]

Answers requests of a service of isect. The broker starts it with these arguments:

    isdclient -c "config service NAME"
    isdclient -c "config worker NAME localhost {path}"

By hand, for a service with selfstart=1 ('config service NAME selfstart=1'), with the worker port
that the ports file of isectd names, and 0 for the worker:

    {name} 127.0.0.1 PORT 0 NAME
    {name} unix:/PATH/OF/STATE/worker.sock 0 0 NAME

Or say it in the program: isect.run(handle, service="NAME").
"""


@overload
def worker(handle: H) -> H: ...
@overload
def worker(*, concurrency: int = 1) -> Callable[[H], H]: ...


def worker(handle: H | None = None, *, concurrency: int = 1) -> H | Callable[[H], H]:
    """Marks a function as the handler of a worker, and leaves it as it is: `@isect.worker`, or
    `@isect.worker(concurrency=8)`.

    `concurrency`: how many requests it answers at a time, 1 to 1024: on threads if it is a `def`,
    as tasks if it is an `async def`. The service's setting `concurrency` must allow them."""
    _check_concurrency(concurrency)

    def mark(handle: H) -> H:
        if not callable(handle):
            raise error("usage", f"a handler is a function, not {type(handle).__name__}")
        try:
            setattr(handle, _CONCURRENCY, concurrency)
        except AttributeError:
            if concurrency > 1:
                raise error("usage", f"a {type(handle).__name__} can't be marked; say "
                                     "run(…, concurrency=…)") from None
        return handle

    return mark if handle is None else mark(handle)


def arguments() -> list[str]:
    """The program's own arguments: those from `argv[5]` on if it was started as a worker, all if
    it was started by hand without the four of a worker."""
    try:
        _of_arguments(sys.argv)
    except IsectError:
        if not os.environ.get(t.WORKER_SECRET_VARIABLE):
            return sys.argv[1:]
    return sys.argv[t.ISDARGMAX:]


def run(
    handle: Callable[[Any], Any],
    *,
    concurrency: int | None = None,
    max_requests: int | None = None,
    on_status: Callable[[], object] | None = None,
    on_reinit: Callable[[], object] | None = None,
    on_end: Callable[[], object] | None = None,
    service: str | None = None,
    address: str | None = None,
    token: str | Token | None = None,
    token_file: str | os.PathLike[str] | None = None,
) -> None:
    """Serves until the worker is asked to end; it is the whole main program of a worker.

    `handle` gets a `Request` (an `async def` an `AsyncRequest`) and returns the answer: bytes, str,
    None for an empty one, or an iterator of them, each of which is sent as a piece. What it raises
    is answered as an error with code 1 and logged; `Failure` is answered as it says.

    `concurrency`: 1 to 1024 requests at a time; None = as `@worker` says, else 1. `max_requests`:
    logs out with the answer to so many, so that the broker starts the program anew. `on_status`:
    returns the text for the operator's `send … status`. `on_reinit`: reads the configuration again
    (`send … reinit`); `on_end`: is called before `run` returns. What these hooks raise is logged.

    The broker says by arguments and environment where it is. A program that starts itself names its
    `service`, which has `selfstart=1`, and `address`: `unix:PATH`, `HOST:PORT` or
    `tls://HOST:PORT` of the worker port; None = `worker.sock` in the state directory. `token`,
    `token_file`: for a broker that wants one; None = as the environment says.

    Returns when the broker asked the worker to end, or after SIGTERM or SIGINT (a second one ends
    it at once), when the requests at hand are answered; signals are for the main thread, on another
    one it hears only the broker. Ends the program with status 1 if the
    broker is gone or refuses the worker, and 2 if the arguments are wrong; the reason is on stderr.
    """
    request = current.get()
    if isinstance(request, BaseRequest) and not request._is_forked:
        raise error("usage", "isect.run was called in a handler; a worker serves once, as the "
                             "program's last act")
    if len(sys.argv) > 1 and sys.argv[1] in ("--help", "-h"):
        print(_usage(), end="")
        sys.exit(0)
    # What is wrong in the program is said before what is wrong in its arguments.
    _check_handler(handle)
    try:
        options = _options(service, address, token, token_file)
    except IsectError as e:
        last_words(f"{visible(e.text)}\n\n{_usage()}")
        sys.exit(2)
    _prepare_output()
    try:
        serve(handle, options, concurrency=concurrency, max_requests=max_requests,
              on_status=on_status, on_reinit=on_reinit, on_end=on_end)
    except IsectError as e:
        if e.name == "usage" and not isinstance(e, MissingExtra):
            raise
        last_words(f"{e}\n")
        sys.exit(1)


def current_worker() -> CurrentWorker:
    """The worker that answers the present request, or that `run` serves in this process: it
    publishes and announces by the worker's own connection. Raises `UsageError` if there is none, or
    several beside which no request says which one is meant."""
    request: Any = current.get()
    if request is None:
        found = list(_running)
    else:
        found = [request._link.server]
    if len(found) > 1:
        raise error("bad_state", f"{len(found)} workers are served in this process; within a "
                                 "request it is known which one is meant")
    if not found:
        raise error("bad_state", "there is no worker here: isect.run serves none in this process")
    return found[0].current()


def serve(
    handle: Callable[[Any], Any],
    options: Options,
    *,
    concurrency: int | None = None,
    max_requests: int | None = None,
    on_status: Callable[[], object] | None = None,
    on_reinit: Callable[[], object] | None = None,
    on_end: Callable[[], object] | None = None,
) -> None:
    """As `run`, for a worker of these options, in a process that goes on. Raises why it ended."""
    server = make_server(handle, options, concurrency=concurrency, max_requests=max_requests,
                         on_status=on_status, on_reinit=on_reinit, on_end=on_end)
    _running.append(server)
    try:
        server.run()
    finally:
        _running.remove(server)


def make_server(
    handle: Callable[[Any], Any], options: Options, *, concurrency: int | None = None, **more: Any
) -> Server[Any]:
    """The server for a handler, in one of the three ways."""
    _check_handler(handle)
    if concurrency is None:
        concurrency = getattr(handle, _CONCURRENCY, 1)
    _check_concurrency(concurrency)
    most = more.get("max_requests")
    if most is not None and (not isinstance(most, int) or most < 1):
        raise error("usage", f"max_requests is {most!r}; it is a number from 1 on, or None")
    for name in ("on_status", "on_reinit", "on_end"):
        hook = more.get(name)
        if hook is not None and (not callable(hook) or is_async(hook)):
            raise error("usage", f"{name} is {'an async def' if callable(hook) else repr(hook)}; "
                                 "it is a function that is no 'async def'")
    options = replace(options, concurrency=concurrency)
    state = State(service=options.service, **more)
    if is_async(handle):
        from ._tasks import TaskServer

        return TaskServer(options, state, handle)
    if concurrency > 1:
        from ._threads import ThreadServer

        return ThreadServer(options, state, handle)
    return PlainServer(options, state, handle)


def _check_handler(handle: object) -> None:
    """Raises `UsageError` if it can't be called with a request; each one would fail then."""
    if not callable(handle):
        raise error("usage", f"a handler is a function, not {type(handle).__name__}")
    try:
        signature = inspect.signature(handle)
    except Exception:
        # Some that are written in C have none that can be read, and from Python 3.14 on the names
        # of types are looked up, which may be there for a type checker alone.
        return
    try:
        signature.bind(None)
    except TypeError as e:
        name = getattr(handle, "__qualname__", type(handle).__name__)
        raise error("usage", f"the handler {name}{signature} can't be called with one argument, "
                             f"the request: {e}") from None


def is_async(handle: object) -> bool:
    """Whether a handler is an `async def`, also behind functools.partial or as `__call__`."""
    while isinstance(handle, partial):
        handle = handle.func
    return any(inspect.iscoroutinefunction(f) or inspect.isasyncgenfunction(f)
               for f in (handle, getattr(handle, "__call__", None)))


def _check_concurrency(concurrency: object) -> None:
    if not isinstance(concurrency, int) or not 1 <= concurrency <= t.CONCURRENCY_MAX:
        raise error("usage", f"concurrency is {concurrency!r}; it is a number from 1 to "
                             f"{t.CONCURRENCY_MAX}")


def _of_arguments(argv: list[str]) -> Options:
    """Reads a worker's arguments, `argv[1]` to `argv[4]`."""
    if len(argv) < t.ISDARGMAX:
        raise error("usage", f"{len(argv[1:])} arguments, but a worker gets HOST|unix:PATH PORT "
                             "WORKER SERVICE; 'config worker SERVICE HOST PROGRAM' makes the "
                             "broker do that")
    host, port, number, service = argv[1:t.ISDARGMAX]
    address = of_worker(host, port)
    if not (number.isascii() and number.isdigit() and len(number) <= 10
            and int(number) < 2**32):
        raise error("usage", f"worker id '{number[:60]}' is no number from 0 to {2**32 - 1}")
    secret = os.environ.get(t.WORKER_SECRET_VARIABLE, "")
    if not secret.isascii():
        raise error("usage", f"{t.WORKER_SECRET_VARIABLE} has bytes that no secret of a broker has")
    return Options(address, check_name("service", service), worker=int(number), secret=secret)


def _options(
    service: str | None, address: str | None, token: str | Token | None,
    token_file: str | os.PathLike[str] | None,
) -> Options:
    if os.environ.get(t.WORKER_SECRET_VARIABLE) or service is None:
        options = _of_arguments(sys.argv)
        if options.secret:
            return options
    else:
        where = _worker_socket() if address is None else _parse(address)
        options = Options(where, check_name("service", service))
    return replace(options, token=_token(token, token_file))


def _parse(address: str) -> Address:
    """A worker port has no usual number, so it must be there."""
    if not address.startswith("unix:") and not re.search(r"[^:]:[0-9]+\Z", address):
        raise error("usage", f"address '{address[:120]}' has no port; the worker port has no usual "
                             "number: the ports file of isectd names it")
    return parse(address)


def _token(
    token: str | Token | None, token_file: str | os.PathLike[str] | None
) -> Token | None:
    if not (token or token_file or os.environ.get(t.TOKEN_VARIABLE)
            or os.environ.get(t.TOKEN_FILE_VARIABLE)):
        return None
    from ._token import Token

    if token is not None:
        return token if isinstance(token, Token) else Token(token)
    return Token.from_environment() if token_file is None else Token.from_file(token_file)


def _worker_socket() -> Address:
    """The socket for workers in the state directory."""
    path = os.path.join(state_dir() or "/", "worker.sock")
    if not os.path.exists(path):
        raise error("usage", f"no broker of this user has a socket for workers at {path}; start "
                             "isectd, or name its worker port: run(…, address=\"HOST:PORT\")")
    return Address("unix", path, 0)


def _usage() -> str:
    path = os.path.abspath((sys.argv or [""])[0] or "PROGRAM")
    return _USAGE.format(name=os.path.basename(path), path=path)


def _prepare_output() -> None:
    """What the program prints is collected line by line; so it leaves with each line. Logging is
    set up only if the program has not done it."""
    reconfigure = getattr(sys.stdout, "reconfigure", None)
    if reconfigure is not None:
        reconfigure(line_buffering=True)
    if not logging.getLogger().handlers:
        logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
