"""A real broker for the tests of programs that use isect.

    def test_upper():
        with isect.testing.broker() as broker:
            broker.worker("upper", handle)
            with broker.connect() as client:
                assert client.call("upper", b"hello") == b"HELLO"

`broker` starts `isectd` in a folder of its own, on a Unix socket and a port that the system
chooses, with its own execd, so any number of them run beside each other. It ends with the `with`,
with all its workers; and also if the process of the tests is killed. `async_broker` is the same for
asyncio. For pytest there are the fixtures `isect_broker` and `isect_broker_session`.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, TYPE_CHECKING, Any, TypeVar, Union

from . import _guard, _launch
from ._errors import IsectError, UsageError, visible

if TYPE_CHECKING:
    from ._serve import Server
    from ._sync import Broker
    from .aio import AsyncBroker

__all__ = ["AsyncRunningBroker", "BrokerFailed", "BrokerNotFound", "RunningBroker",
           "RunningWorkers", "async_broker", "broker"]

T = TypeVar("T")
#: The value of a setting: True and False are 1 and 0; of a mapping or a list the setting is given
#: once for each entry (`env={"LEVEL": "5"}`).
Setting = Union[str, int, bool, Mapping[str, object], Sequence[object]]
#: What a worker is: a function, or a program with its arguments.
Handler = Union[Callable[..., Any], str, "os.PathLike[str]",
                Sequence[Union[str, "os.PathLike[str]"]]]

#: The variable that names the directory with isect's programs.
BIN_VARIABLE = "ISECT_BIN"
#: Longest path of a folder in which the sockets of a broker have room, in bytes.
_FOLDER_BYTES_MAX = 80
#: Those of `isect.run` that a worker of a test may have.
_OPTIONS = {"concurrency", "max_requests", "on_end", "on_reinit", "on_status"}
#: Lines of a log that an error shows.
_LOG_LINES = 60

_the_guard = _guard.Guard()


class BrokerNotFound(UsageError):
    """The program `isectd` was not found."""


class BrokerFailed(IsectError):
    """A broker or a worker of a test did not start, answer or end as it should, or not in time.

    `log`: what the broker logged, and its workers wrote.
    """

    log: str

    def __init__(self, text: str, log: str = "", name: str = "bad_state") -> None:
        super().__init__(name, text, whose="client", ran="no", advice="")
        self.log = log

    def __str__(self) -> str:
        lines = self.log.splitlines()
        left = [f"  … {len(lines) - _LOG_LINES} lines before"] if len(lines) > _LOG_LINES else []
        shown = left + ["  " + visible(line) for line in lines[-_LOG_LINES:]]
        return "\n".join([f"{visible(self.text)}; its log:", *(shown or ["  (empty)"])])


def program_named(name: str = "isectd", program: str | os.PathLike[str] | None = None) -> str:
    """The path of a program of isect: `program` itself, or in the directory that the variable
    ISECT_BIN names, or on the PATH.

    Raises `BrokerNotFound`, which says how to get it.
    """
    if program is not None:
        tried = os.fspath(program)
        found = shutil.which(os.path.abspath(tried) if os.sep in tried else tried)
    elif os.environ.get(BIN_VARIABLE):
        tried = os.path.join(os.environ[BIN_VARIABLE], name)
        found = shutil.which(os.path.abspath(tried))
    else:
        tried = name
        found = shutil.which(name)
    if found is not None:
        return os.path.realpath(found)
    where = "on the PATH" if os.sep not in tried else "there, or it can't be executed"
    raise BrokerNotFound(
        "usage", f"{tried} is not {where}",
        advice=f"build it ('cargo build --release --workspace' in the sources of isect) or install "
               f"it, then put its directory on the PATH, or name that in {BIN_VARIABLE}, or give "
               f"'program='")


def _words(settings: Mapping[str, Setting]) -> list[str]:
    """Settings as words of a command."""
    words = []
    for name, value in settings.items():
        if isinstance(value, bool):
            words.append(f"{name}={int(value)}")
        elif isinstance(value, Mapping):
            words += [f"{name}={key}={inner}" for key, inner in value.items()]
        elif isinstance(value, (str, int)):
            words.append(f"{name}={value}")
        elif isinstance(value, Sequence) and not isinstance(value, (bytes, bytearray)):
            words += [f"{name}={inner}" for inner in value]
        else:
            raise UsageError("usage", f"the setting {name} is {value!r}; it is a text, a whole "
                                      "number, True or False, or a mapping or list of these")
    return words


class RunningWorkers:
    """The workers of one service of a broker of a test."""

    __test__ = False

    def __init__(self, broker: RunningBroker, service: str, ids: list[int]) -> None:
        self._broker = broker
        #: The service that they serve.
        self.service = service
        #: Their numbers, as in the operator's command `worker ID`; none of worker threads.
        self.ids = ids

    def pids(self) -> list[int]:
        """The process of each worker; one that has none now is left out."""
        rows = self._broker.workers_of(self.service)
        mine = [row for row in rows if not self.ids or row["worker"] in self.ids]
        return [row["pid"] for row in mine if row["pid"] is not None]

    def kill(self, number: int = signal.SIGKILL) -> list[int]:
        """Sends their processes a signal; the broker starts new ones. Returns the processes.

        Returns before the broker knows of it: a request may still be given to one that is dead.
        """
        if not self.ids:
            raise UsageError("usage", f"the workers of '{self.service}' are threads of this process"
                                      ", which can't be sent a signal")
        pids = self.pids()
        for pid in pids:
            # One may have ended by itself.
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        return pids

    def await_ready(self, timeout: float | None = None) -> None:
        """Waits until each of them can take requests.

        Raises `BrokerFailed` if one can't be started, or not in `timeout` seconds.
        """
        self._broker.await_workers(self.service, self.ids, timeout)

    def log(self) -> str:
        """What they wrote on stdout and stderr; empty for worker threads."""
        return self._broker.log_of(self.service)

    def stop(self) -> None:
        """Ends them; the service refuses requests until the operator's command `start`."""
        self._broker.command(f"stop {self.service}")


class RunningBroker:
    """A broker that was started for a test; `broker` makes it. Safe to use from several threads."""

    __test__ = False

    def __init__(
        self,
        *,
        program: str | os.PathLike[str] | None = None,
        arguments: Iterable[str] = (),
        log_level: str = "info",
        timeout: float = 10.0,
        **settings: Setting,
    ) -> None:
        if _launch.is_importing:
            raise UsageError("bad_state", "this file starts a broker when it is imported, and the "
                                          "worker processes of a test import it",
                             advice="put that behind 'if __name__ == \"__main__\":' or into a "
                                    "function")
        if not isinstance(timeout, (int, float)) or not 0 < timeout <= 10:
            raise UsageError("usage", f"timeout is {timeout!r}; a test waits more than 0 and at "
                                      "most 10 seconds")
        if isinstance(arguments, str):
            raise UsageError("usage", f"arguments is the text {arguments!r}; it is a list of texts")
        self._program = program_named("isectd", program)
        self._arguments = [*arguments]
        for word in _words(settings):
            self._arguments += ["--set", word]
        self._log_level = log_level
        self._timeout = timeout
        self._owner = os.getpid()
        self._lock = threading.RLock()
        self._operator: Broker | None = None
        self._clients: weakref.WeakSet[Broker] = weakref.WeakSet()
        self._threads: list[threading.Thread] = []
        self._servers: list[Server[Any]] = []
        self._launchers = 0
        self._is_stopped = False
        #: The folder of this broker: its state, its log. It is removed at the end.
        self.folder = Path(_new_name())
        self._ports: dict[str, str] = {}
        self._process: subprocess.Popen[bytes] | None = None
        try:
            self.folder.mkdir(0o700)
            _the_guard.add(str(self.folder))
            self._start()
        except BaseException:
            self._clean()
            raise

    # Where it is

    @property
    def address(self) -> str:
        """Where clients connect: its Unix socket (`unix:PATH`). It is the same after `restart`."""
        return self._ports["client_unix"]

    @property
    def tcp_address(self) -> str:
        """Where clients connect over TCP (`host:port`). It is the same after `restart`."""
        return self._ports["client"]

    @property
    def worker_address(self) -> str:
        """Where workers connect that nobody started (`unix:PATH`); `selfstart=1` lets them."""
        return self._ports["worker_unix"]

    @property
    def pid(self) -> int:
        """The process of the broker."""
        assert self._process is not None
        return self._process.pid

    @property
    def log(self) -> str:
        """What the broker logged so far."""
        try:
            return (self.folder / "isectd.log").read_text("utf-8", "replace")
        except OSError:
            return ""

    # What is done with it

    def connect(self, **options: Any) -> Broker:
        """A connection to it: `isect.connect` with its address, and all its options. It is closed
        when the broker stops."""
        from ._sync import connect

        made = connect(**self._reached(options))
        self._clients.add(made)
        return made

    def _reached(self, options: dict[str, Any]) -> dict[str, Any]:
        """The options of a connection to it. A token of the environment is for another broker."""
        usual = {"address": self.address}
        if "token_file" not in options:
            usual["token"] = ""
        return {**usual, **options}

    def command(self, text: str) -> str:
        """The answer to an operator's command (docs/op.md)."""
        answer = self._ask(text, False)
        assert isinstance(answer, str)
        return answer

    def command_json(self, text: str) -> dict[str, Any]:
        """The answer to an operator's command as an object (docs/op.schema.json)."""
        answer = self._ask(text, True)
        assert isinstance(answer, dict)
        return answer

    def _ask(self, text: str, is_json: bool) -> Any:
        self._check_runs()
        status = None if self._process is None else _guard.ended(self._process)
        if status is not None:
            raise BrokerFailed(f"the broker does not run, its status is {status}; 'restart' starts "
                               "it", self.log)
        with self._lock:
            if self._operator is None:
                self._operator = self.connect(timeout=self._timeout)
            return self._operator.command(text, json=is_json)

    def worker(
        self,
        service: str,
        handler: Handler,
        n: int = 1,
        *,
        thread: bool = False,
        arguments: Iterable[str] = (),
        options: Mapping[str, Any] | None = None,
        **settings: Setting,
    ) -> RunningWorkers:
        """Serves a service with `n` workers, and waits until they are ready.

        `handler`: a function of a module (also of the file of the test), which processes that the
        broker starts import and serve; or a program, as a path or a list of path and arguments
        (of a file `*.py` this Python is the interpreter). With `thread` the function is served in
        threads of this process instead: then it may be any, and what it does can be looked at.
        `options` are those of `isect.run` that say how it serves, as `concurrency`. `settings` are
        those of the service, as `config service` takes them (docs/config.md): `deadline_ms=500`,
        `env={"LEVEL": "5"}`.

        Raises `BrokerFailed`, which shows what they wrote, if they don't get ready in time, and
        `UsageError` for a function that a process can't import.
        """
        if not isinstance(n, int) or n < 1:
            raise UsageError("usage", f"n is {n!r}; a service needs 1 worker or more")
        choices = dict(options or {})
        unknown = sorted(choices.keys() - _OPTIONS)
        if unknown:
            raise UsageError("usage", f"the options {unknown} are none of a worker here; there are "
                                      f"{', '.join(sorted(_OPTIONS))}")
        if thread:
            if not callable(handler):
                raise UsageError("usage", "a thread serves a function, no program")
            if [*arguments]:
                raise UsageError("usage", "a thread has no arguments; they are for a program")
            return self._worker_threads(service, handler, n, choices, settings)
        program = self._command_of(handler, choices)
        self.command(shlex.join(["config", "service", service, *_words(settings)]))
        add = shlex.join(["config", "worker", service, "localhost", *program, *arguments])
        ids = []
        for _ in range(n):
            answer = self.command(add)
            ids.append(int(answer.partition("worker->id = ")[2].partition(",")[0]))
        self.command(f"start {service}")
        made = RunningWorkers(self, service, ids)
        try:
            made.await_ready()
        except BrokerFailed:
            # Those that don't get ready must not be tried again and again beside the next ones.
            for number in ids:
                self._try(f"stop {number}")
                self._try(f"delete worker {number}")
            raise
        return made

    def _try(self, text: str) -> str:
        try:
            return self.command(text)
        except IsectError:
            return ""

    def _worker_threads(
        self,
        service: str,
        handler: Callable[..., Any],
        n: int,
        options: dict[str, Any],
        settings: Mapping[str, Setting],
    ) -> RunningWorkers:
        from ._address import parse
        from ._program import make_server
        from ._worker_conn import Options, check_name

        where = Options(parse(self.worker_address), check_name("service", service))
        servers = [make_server(handler, where, **options) for _ in range(n)]
        before = len(self.workers_of(service)) if self._has(service) else 0
        words = _words({**settings, "selfstart": 1})
        self.command(shlex.join(["config", "service", service, *words]))
        self.command(f"start {service}")
        made = [threading.Thread(target=server.run, name=f"isect-{service}-{i}", daemon=True)
                for i, server in enumerate(servers)]
        self._threads += made
        self._servers += servers
        for thread in made:
            thread.start()

        def are_ready() -> bool | None:
            if not all(thread.is_alive() for thread in made):
                raise BrokerFailed(f"a thread of service '{service}' ended before it was ready",
                                   self.log)
            rows = self.workers_of(service)
            ready = [row for row in rows if row["state"] == "ready"]
            return len(ready) >= before + n or None

        self._await(f"{n} worker threads of service '{service}'", are_ready, None)
        return RunningWorkers(self, service, [])

    def _has(self, service: str) -> bool:
        rows = self.command_json("services")["services"]
        return any(row["service"] == service for row in rows)

    def _command_of(self, handler: Handler, options: dict[str, Any]) -> list[str]:
        if callable(handler) and not isinstance(handler, (str, os.PathLike)):
            return [self._launcher(handler, options)]
        if options:
            raise UsageError("usage", f"the options {sorted(options)} are of 'isect.run', which a "
                                      "program calls itself")
        if isinstance(handler, (str, os.PathLike)):
            parts = [handler]
        elif isinstance(handler, Sequence) and not isinstance(handler, (bytes, bytearray)):
            parts = [*handler]
        else:
            raise UsageError("usage", f"the handler is {handler!r}; it is a function, or a program "
                                      "as a path or a list of a path and arguments")
        words = [os.fspath(part) for part in parts]
        if not words:
            raise UsageError("usage", "the program of the worker is an empty list")
        if os.sep not in words[0]:
            words[0] = program_named(words[0])
        path = os.path.abspath(words[0])
        if path.endswith(".py"):
            path = self._script(f"import runpy, sys\nsys.argv[0] = {path!r}\n"
                                f"sys.path.insert(0, {os.path.dirname(path)!r})\n"
                                f"runpy.run_path({path!r}, run_name='__main__')\n")
        return [path, *words[1:]]

    def _launcher(self, handler: Callable[..., Any], options: dict[str, Any]) -> str:
        module = getattr(handler, "__module__", None)
        name = getattr(handler, "__qualname__", None)
        found = sys.modules.get(module or "")
        file = getattr(found, "__file__", None)
        try:
            there: Any = found
            for part in (name or "<unnamed>").split("."):
                there = getattr(there, part)
        except AttributeError:
            there = None
        if there is not handler or file is None:
            raise UsageError(
                "usage", f"{name or handler!r} of {module} can't be imported by a worker process: "
                         "it is no function at the top of a module or in a class there",
                advice="move it there, or say thread=True to serve it in this process")
        try:
            shown = repr(options)
            if eval(shown, {"__builtins__": {}}) != options:
                raise ValueError(shown)
        except Exception:
            raise UsageError("usage", f"the options {sorted(options)} can't be handed to another "
                                      "process", advice="say thread=True") from None
        return self._script("from isect._launch import serve\n"
                            f"serve({module!r}, {os.path.abspath(file)!r}, {name!r}, {shown})\n")

    def _script(self, text: str) -> str:
        """Writes a program that this Python runs, with all that can be imported here."""
        with self._lock:
            self._launchers += 1
            path = self.folder / f"worker-{self._launchers}"
        paths = [os.path.abspath(entry) for entry in sys.path]
        package = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
        if package not in paths:
            paths.append(package)
        path.with_suffix(".py").write_text(f"import sys\nsys.path[:] = {paths!r}\n{text}", "utf-8")
        words = [sys.executable or "python3", f"{path}.py"]
        # Through the shell, because the kernel takes no long path and no blank behind `#!`.
        path.write_text(f'#!/bin/sh\nexec {shlex.join(words)} "$@"\n', "utf-8")
        path.chmod(0o700)
        return str(path)

    # Waiting

    def workers_of(self, service: str) -> list[dict[str, Any]]:
        """The workers of a service, as the operator's command `workers` lists them in JSON."""
        lists = self.command_json("workers all")
        rows = [row for name in ("lazy", "idle", "busy") for row in lists[name]]
        return [row for row in rows if row["service"] == service]

    def await_workers(self, service: str, ids: Sequence[int] = (), timeout: float | None = None
                      ) -> None:
        """Waits until the workers of a service (all, or those of these numbers) can take requests;
        one that is started on demand (`start="demand"`) always can.

        Raises `BrokerFailed` if one can't be started, or not in `timeout` seconds.
        """
        states: dict[int, str] = {}

        def are_ready() -> bool | None:
            rows = [row for row in self.workers_of(service) if not ids or row["worker"] in ids]
            states.update((row["worker"], row["state"]) for row in rows)
            for row in rows:
                # One that has not been ready yet; of others it is the test that killed them.
                if row["state"] == "failed" or (row["state"] == "backoff" and not row["average_us"]
                                                and not row["transactions"]):
                    raise BrokerFailed(
                        f"worker {row['worker']} of service '{service}' does not get ready: "
                        f"{row['reason']}", self._whole_log(service))
            return (bool(rows) and all(map(_can_take, rows))) or None

        self._await(lambda: f"service '{service}' to be ready (states: {states})", are_ready,
                    timeout, service)

    def log_of(self, service: str) -> str:
        """What the workers of a service wrote on stdout and stderr."""
        return self._try(f"logs {service} -n 200")

    def _whole_log(self, service: str | None) -> str:
        if service is None:
            return self.log
        return "".join(self.log.splitlines(keepends=True)[-_LOG_LINES // 3:]) + self.log_of(service)

    def _await(
        self,
        what: str | Callable[[], str],
        look: Callable[[], T | None],
        timeout: float | None,
        service: str | None = None,
    ) -> T:
        timeout = self._timeout if timeout is None else timeout
        until = time.monotonic() + timeout
        while True:
            found = look()
            if found is not None:
                return found
            if time.monotonic() > until:
                shown = what if isinstance(what, str) else what()
                raise BrokerFailed(f"waited {timeout} s for {shown}", self._whole_log(service),
                                   "timeout")
            time.sleep(0.003)

    # Its process

    def _start(self) -> None:
        ports = self.folder / "ports.json"
        ports.unlink(missing_ok=True)
        state = str(self.folder / "state")
        given = [word.partition("=")[0] for word in self._arguments]
        command = [self._program, "--state", state, "--ports-file", str(ports),
                   "--orphan-ms", "60000"]
        usual = {"--listen": "127.0.0.1:0", "--log": self._log_level}
        for option, value in usual.items():
            if option not in given:
                command += [option, value]
        environment = {key: value for key, value in os.environ.items()
                       if not key.startswith("ISECT_") and key != "NOTIFY_SOCKET"}
        log: IO[bytes]
        with open(self.folder / "isectd.log", "ab") as log:
            # Of a session of its own: Ctrl-C is for the tests, which end it then.
            self._process = subprocess.Popen(
                [*command, *self._arguments], cwd=self.folder, env=environment, stdout=log,
                stdin=subprocess.DEVNULL, stderr=log, start_new_session=True)
        self._ports = self._await("the broker to listen", self._listening, None)

    def _listening(self) -> dict[str, str] | None:
        assert self._process is not None
        status = _guard.ended(self._process)
        if status is not None:
            raise BrokerFailed(f"the broker ended at the start with status {status}", self.log)
        try:
            made = json.loads((self.folder / "ports.json").read_text("utf-8"))
        except (OSError, ValueError):
            return None
        assert isinstance(made, dict)
        return made

    def _check_runs(self) -> None:
        if self._is_stopped:
            raise UsageError("bad_state", "the broker was stopped")
        if self._owner != os.getpid():
            raise UsageError("bad_state", f"the broker belongs to process {self._owner}, this is "
                                          f"{os.getpid()}", advice="connect to its address")

    def kill(self) -> None:
        """Kills the broker's process (SIGKILL), as if its machine had failed. Its workers go on,
        and wait for `restart`; so do connections that reconnect."""
        self._check_runs()
        assert self._process is not None
        self._drop_operator()
        self._process.kill()
        _guard.ended(self._process, _guard.KILLED)

    def restart(self) -> None:
        """Starts it again, at the same addresses and with the same configuration. If it runs, it is
        killed first."""
        self._check_runs()
        self.kill()
        self._start()

    def _drop_operator(self) -> None:
        with self._lock:
            operator, self._operator = self._operator, None
        if operator is not None:
            _close(operator)

    def stop(self) -> None:
        """Ends the broker with its workers, closes the connections that `connect` made, and removes
        the folder. Does nothing if that was done already.

        Raises `BrokerFailed` if a process does not end.
        """
        if self._is_stopped or self._owner != os.getpid():
            return
        self._is_stopped = True
        try:
            for client in [*self._clients]:
                _close(client)
        finally:
            self._clean()

    def _clean(self) -> None:
        try:
            self._clean_once()
        except Exception:
            raise
        except BaseException:
            # What an interrupt left must go, too.
            self._clean_once()
            raise

    def _clean_once(self) -> None:
        folder = str(self.folder)
        if self._process is not None and _guard.ended(self._process) is None:
            self._process.terminate()
            if _guard.ended(self._process, _guard.GRACE) is None:
                self._process.kill()
                _guard.ended(self._process, _guard.KILLED)
        for server in self._servers:
            server.stop()
        is_clean = _guard.await_none(folder, 0.5) or _guard.end_processes(folder, 0)
        until = time.monotonic() + _guard.GRACE
        for thread in self._threads:
            if thread is not threading.current_thread():
                thread.join(max(0.0, until - time.monotonic()))
        left = [thread.name for thread in self._threads if thread.is_alive()]
        log = self.log
        shutil.rmtree(folder, ignore_errors=True)
        _the_guard.remove(folder)
        if not is_clean:
            raise BrokerFailed("processes of the broker don't end", log)
        if left:
            raise BrokerFailed(f"the worker threads {left} don't end, they are still at work", log)

    def __enter__(self) -> RunningBroker:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 trace: TracebackType | None) -> None:
        self.stop()


def _can_take(row: dict[str, Any]) -> bool:
    """Whether the worker of this row can take requests, or is started by the first one."""
    return row["state"] == "ready" or (row["state"] == "down" and "on demand" in row["notes"])


def _close(client: Broker) -> None:
    # Its broker may be gone.
    with contextlib.suppress(IsectError):
        client.close()


def _new_name() -> str:
    """A name for a folder, which is known before it is there: who is interrupted can remove it."""
    name = f"isect-{secrets.token_hex(6)}"
    made = os.path.join(os.path.realpath(tempfile.gettempdir()), name)
    if len(os.fsencode(made)) > _FOLDER_BYTES_MAX:
        # The path of a Unix socket has 107 bytes at most.
        made = os.path.join(os.path.realpath("/tmp"), name)
    return made


def broker(
    *,
    program: str | os.PathLike[str] | None = None,
    arguments: Iterable[str] = (),
    log_level: str = "info",
    timeout: float = 10.0,
    **settings: Setting,
) -> RunningBroker:
    """Starts a broker for a test, and waits until it listens. Use it in a `with`, or call `stop`.

    `program`: the path of `isectd`; else it is looked for in the directory that the variable
    ISECT_BIN names, else on the PATH. `arguments`: further ones of it. `timeout`: longest time for
    each wait, at most 10 seconds. `settings`: those of the broker (docs/config.md), as in
    `login_ms=500`.

    Raises `BrokerNotFound` without the program, and `BrokerFailed`, with the log, if it does not
    come up.
    """
    return RunningBroker(program=program, arguments=arguments, log_level=log_level,
                         timeout=timeout, **settings)


class AsyncRunningBroker:
    """A broker for tests with asyncio; `async_broker` makes it.

    What waits is awaited, and blocks no other task.
    """

    __test__ = False

    def __init__(self, start: Callable[[], RunningBroker]) -> None:
        self._begin = start
        self._broker: RunningBroker | None = None
        self._clients: weakref.WeakSet[AsyncBroker] = weakref.WeakSet()

    @property
    def running(self) -> RunningBroker:
        """The same broker for code that does not use asyncio, as its `address` and `log`."""
        if self._broker is None:
            raise UsageError("bad_state", "the broker is not started yet",
                             advice="say 'async with'")
        return self._broker

    @property
    def address(self) -> str:
        """Where clients connect: its Unix socket (`unix:PATH`)."""
        return self.running.address

    @property
    def tcp_address(self) -> str:
        """Where clients connect over TCP (`host:port`)."""
        return self.running.tcp_address

    @property
    def worker_address(self) -> str:
        """Where workers connect that nobody started (`unix:PATH`)."""
        return self.running.worker_address

    @property
    def log(self) -> str:
        """What the broker logged so far."""
        return self.running.log

    async def connect(self, **options: Any) -> AsyncBroker:
        """A connection to it: `isect.aio.connect` with its address, and all its options. It is
        closed when the broker stops."""
        from .aio import connect

        made = await connect(**self.running._reached(options))
        self._clients.add(made)
        return made

    async def command(self, text: str) -> str:
        """The answer to an operator's command (docs/op.md)."""
        return await asyncio.to_thread(self.running.command, text)

    async def command_json(self, text: str) -> dict[str, Any]:
        """The answer to an operator's command as an object (docs/op.schema.json)."""
        return await asyncio.to_thread(self.running.command_json, text)

    async def worker(self, service: str, handler: Handler, n: int = 1, **more: Any
                     ) -> RunningWorkers:
        """Serves a service with `n` workers; see `RunningBroker.worker`."""
        return await asyncio.to_thread(self.running.worker, service, handler, n, **more)

    async def kill(self) -> None:
        """Kills the broker's process (SIGKILL); see `RunningBroker.kill`."""
        await asyncio.to_thread(self.running.kill)

    async def restart(self) -> None:
        """Starts it again, at the same addresses; see `RunningBroker.restart`."""
        await asyncio.to_thread(self.running.restart)

    async def stop(self) -> None:
        """Ends the broker with its workers, and removes its folder."""
        try:
            for client in [*self._clients]:
                # Its broker may be gone.
                with contextlib.suppress(IsectError):
                    await client.close(flush_timeout=0)
        finally:
            if self._broker is not None:
                await asyncio.to_thread(self._broker.stop)

    async def __aenter__(self) -> AsyncRunningBroker:
        starting = asyncio.ensure_future(asyncio.to_thread(self._begin))
        try:
            self._broker = await asyncio.shield(starting)
        except asyncio.CancelledError:
            # The thread goes on: what it starts must not be left.
            made = await starting
            await asyncio.to_thread(made.stop)
            raise
        return self

    async def __aexit__(self, kind: type[BaseException] | None, value: BaseException | None,
                        trace: TracebackType | None) -> None:
        await self.stop()


def async_broker(
    *,
    program: str | os.PathLike[str] | None = None,
    arguments: Iterable[str] = (),
    log_level: str = "info",
    timeout: float = 10.0,
    **settings: Setting,
) -> AsyncRunningBroker:
    """As `broker`, for `async with`, which starts it."""
    return AsyncRunningBroker(lambda: broker(program=program, arguments=arguments,
                                             log_level=log_level, timeout=timeout, **settings))
