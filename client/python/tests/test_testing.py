"""`isect.testing`: brokers that start fast, say what is wrong, and leave nothing behind, however
the process that started them ends."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import threading
import time
import unittest
import unittest.mock
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import isect
from isect import _guard, testing

SOURCES = str(Path(testing.__file__).resolve().parent.parent)
#: For processes that tests start: this package, and what this process was told.
PATHS = os.pathsep.join(filter(None, [SOURCES, os.environ.get("PYTHONPATH")]))
TIMEOUT = 10.0


def upper(request: isect.Request) -> bytes:
    """A worker of this file, for processes that import it."""
    return request.body.upper()


@isect.worker(concurrency=4)
async def backwards(request: isect.AsyncRequest) -> bytes:
    """A worker with asyncio."""
    await asyncio.sleep(0)
    return request.body[::-1]


class Service:
    """A class, for a function that is not at the top of the file."""

    @staticmethod
    def of_process(request: isect.Request) -> str:
        """Says which process it is, and what its environment has."""
        return f"{os.getpid()} {os.environ.get('LEVEL')} {os.getcwd()}"


def fail(request: isect.Request) -> bytes:
    """Fails, and says so in the log of its worker."""
    raise RuntimeError(f"no luck with {request.text}")


def await_that(what: str, look: Any) -> Any:
    """Waits until `look` returns something."""
    until = time.monotonic() + TIMEOUT
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > until:
            raise AssertionError(f"waited {TIMEOUT} s for {what}")
        time.sleep(0.005)


def is_running(pid: int) -> bool:
    """Whether a process runs; one that is over and not yet collected does not."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


class Started(unittest.TestCase):
    """A broker that is started, used, and stopped."""

    def test_it_starts_fast_and_leaves_nothing(self) -> None:
        took = []
        for _ in range(4):
            begin = time.monotonic()
            with testing.broker() as broker:
                took.append(time.monotonic() - begin)
                folder, pid = broker.folder, broker.pid
                self.assertIn("isectd", broker.command("version"))
                self.assertTrue(_guard.processes_of(str(folder)))
            self.assertFalse(folder.exists())
            self.assertFalse(is_running(pid))
            self.assertEqual(_guard.processes_of(str(folder)), {})
            broker.stop()
        # The machine may be busy: the fastest says what it takes.
        self.assertLess(min(took), 0.2, f"a broker for each test must be cheap: {took}")

    def test_several_run_beside_each_other(self) -> None:
        with contextlib.ExitStack() as stack:
            brokers = [stack.enter_context(testing.broker()) for _ in range(3)]
            for number, broker in enumerate(brokers):
                broker.command(f"config service only-{number}")
            self.assertEqual(len({broker.address for broker in brokers}), 3)
            self.assertEqual(len({broker.tcp_address for broker in brokers}), 3)
            for number, broker in enumerate(brokers):
                names = {row["service"] for row in broker.command_json("services")["services"]}
                self.assertEqual(names - {"op", "bus"}, {f"only-{number}"})

    def test_settings_and_arguments_are_those_of_isectd(self) -> None:
        with testing.broker(login_ms=1234, on_term="keep", arguments=["--with", "none"]) as broker:
            self.assertIn("1234", broker.command("settings login_ms"))
            self.assertIn("keep", broker.command("settings on_term"))
        with self.assertRaises(testing.BrokerFailed) as caught:
            testing.broker(no_such_setting=1)
        self.assertIn("no_such_setting", str(caught.exception))

    def test_a_wrong_setting_or_argument_is_named(self) -> None:
        for options, text in (({"login_ms": None}, "the setting login_ms is None"),
                              ({"login_ms": 1.5}, "the setting login_ms is 1.5"),
                              ({"arguments": "--log debug"}, "arguments is the text"),
                              ({"timeout": "5"}, "timeout is '5'")):
            with self.assertRaisesRegex(isect.UsageError, text):
                testing.broker(**options)

    def test_the_token_of_the_environment_is_for_another_broker(self) -> None:
        async def ask() -> str:
            async with testing.async_broker() as broker:
                return str(await (await broker.connect()).command("services"))

        with unittest.mock.patch.dict(os.environ, {"ISECT_TOKEN": "none at all"}), \
                testing.broker() as broker:
            broker.worker("upper", upper, thread=True)
            with broker.connect() as client:
                self.assertEqual(client.call("upper", "x"), b"X")
            self.assertIn("service", asyncio.run(ask()))
            with self.assertRaises(isect.UsageError):
                broker.connect(token=None)

    def test_a_long_temporary_folder_leaves_room_for_the_sockets(self) -> None:
        with tempfile.TemporaryDirectory() as short:
            long = Path(short, "x" * 100)
            long.mkdir()
            before = tempfile.tempdir
            tempfile.tempdir = str(long)
            try:
                with testing.broker() as broker:
                    self.assertIn("isectd", broker.command("version"))
            finally:
                tempfile.tempdir = before
            self.assertEqual([*long.iterdir()], [])

    def test_what_was_stopped_says_so(self) -> None:
        broker = testing.broker()
        broker.stop()
        for use in (broker.kill, broker.restart, lambda: broker.command("version")):
            with self.assertRaisesRegex(isect.UsageError, "the broker was stopped"):
                use()

    def test_connections_are_closed_with_it(self) -> None:
        before = threading.active_count()
        with testing.broker() as broker:
            client = broker.connect()
            self.assertIn("isectd", client.command("version"))
        with self.assertRaises(isect.IsectError):
            client.command("version")
        await_that("the threads of the connection to end",
                   lambda: threading.active_count() <= before)


class Faults(unittest.TestCase):
    """What does not start."""

    def test_a_missing_program_is_named_with_the_cure(self) -> None:
        with tempfile.TemporaryDirectory() as empty:
            kept = {name: os.environ.get(name) for name in ("PATH", "ISECT_BIN")}
            try:
                os.environ["PATH"] = empty
                os.environ.pop("ISECT_BIN", None)
                with self.assertRaises(testing.BrokerNotFound) as caught:
                    testing.broker()
                self.assertRegex(str(caught.exception), "isectd is not on the PATH.*cargo build.*"
                                                        "ISECT_BIN.*program=")
                os.environ["ISECT_BIN"] = empty
                with self.assertRaisesRegex(testing.BrokerNotFound, f"{empty}/isectd is not there"):
                    testing.broker()
            finally:
                for name, value in kept.items():
                    os.environ.pop(name, None)
                    if value is not None:
                        os.environ[name] = value
        with self.assertRaisesRegex(testing.BrokerNotFound, "/no/such/isectd is not there"):
            testing.broker(program="/no/such/isectd")

    def test_a_program_that_ends_shows_its_status_and_log(self) -> None:
        with self.program("echo no luck \x1b[31m >&2; exit 3") as program:
            with self.assertRaises(testing.BrokerFailed) as caught:
                testing.broker(program=program)
        text = str(caught.exception)
        self.assertIn("ended at the start with status 3", text)
        self.assertIn("no luck \\x1b[31m", text)

    def test_a_program_that_never_listens_is_waited_for_as_long_as_was_said(self) -> None:
        with self.program("echo here I am >&2; exec sleep 60") as program:
            begin = time.monotonic()
            with self.assertRaises(testing.BrokerFailed) as caught:
                testing.broker(program=program, timeout=0.2)
            self.assertLess(time.monotonic() - begin, 5)
        self.assertEqual(caught.exception.name, "timeout")
        self.assertRegex(str(caught.exception), "waited 0.2 s for the broker to listen(.|\n)*"
                                                "here I am")

    def test_no_wait_is_longer_than_ten_seconds(self) -> None:
        for timeout in (0, -1, 10.1):
            with self.assertRaisesRegex(isect.UsageError, "at most 10 seconds"):
                testing.broker(timeout=timeout)

    @contextlib.contextmanager
    def program(self, text: str) -> Iterator[str]:
        """A program in place of isectd, which must leave no folder."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "isectd")
            path.write_text(f"#!/bin/sh\n{text}\n")
            path.chmod(0o700)
            own = Path(folder, "temporary")
            own.mkdir()
            before, tempfile.tempdir = tempfile.tempdir, str(own)
            try:
                yield str(path)
            finally:
                tempfile.tempdir = before
            self.assertEqual([*own.iterdir()], [])
            self.assertEqual(_guard.processes_of(str(own)), {})


class Workers(unittest.TestCase):
    """Workers of all sorts, of one broker."""

    broker: testing.RunningBroker
    client: isect.Broker

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = testing.broker()
        cls.addClassCleanup(cls.broker.stop)
        cls.client = cls.broker.connect()

    def test_a_function_of_this_file_is_served_by_processes(self) -> None:
        workers = self.broker.worker("upper", upper, n=2, deadline_ms=1500)
        self.assertEqual(self.client.call("upper", b"hello"), b"HELLO")
        self.assertEqual(len(set(workers.pids())), 2)
        self.assertNotIn(os.getpid(), workers.pids())
        self.assertIn("1500", self.broker.command("settings upper"))

    def test_a_function_in_a_class_and_an_environment(self) -> None:
        workers = self.broker.worker("place", Service.of_process, env={"LEVEL": "a b'c"}, cwd="/")
        self.assertEqual(self.client.call("place", b""), f"{workers.pids()[0]} a b'c /".encode())

    def test_a_file_that_starts_a_broker_when_it_is_imported(self) -> None:
        folder = os.path.dirname(testing.program_named())
        with tempfile.TemporaryDirectory() as made:
            path = Path(made, "script.py")
            path.write_text("import os, isect.testing\n"
                            "def up(r): return r.body.upper()\n"
                            f"os.environ['ISECT_BIN'] = {folder!r}\n"
                            "with isect.testing.broker() as broker: broker.worker('up', up)\n")
            done = subprocess.run([sys.executable, str(path)], capture_output=True, text=True,
                                  env={**os.environ, "PYTHONPATH": PATHS}, timeout=30)
        self.assertEqual(done.returncode, 1)
        self.assertIn("this file starts a broker when it is imported", done.stderr)
        self.assertIn("if __name__", done.stderr)

    def test_a_worker_that_is_started_on_demand(self) -> None:
        workers = self.broker.worker("later", upper, start="demand")
        self.assertEqual(workers.pids(), [])
        with self.broker.connect() as client:
            self.assertEqual(client.call("later", b"x"), b"X")
        self.assertEqual(len(workers.pids()), 1)

    def test_a_program_with_arguments(self) -> None:
        self.broker.worker("pipe", ["isdpipe", "echo", "a  b'c", "$HOME"])
        self.assertEqual(self.client.call("pipe", b""), b"a  b'c $HOME\n")
        path = testing.program_named("isdecho")
        self.broker.worker("echo", Path(path))
        self.assertEqual(self.client.call("echo", b"same"), b"same")

    def test_a_python_file_with_arguments(self) -> None:
        with tempfile.TemporaryDirectory(prefix="with blank ") as folder:
            file = Path(folder, "serve.py")
            Path(folder, "beside.py").write_text("WORD = 'beside'\n")
            file.write_text("import sys, isect, beside\n"
                            "if __name__ == '__main__':\n"
                            "    isect.run(lambda r: f'{beside.WORD} {sys.argv[5:]}')\n")
            self.broker.worker("file", file, arguments=["one two", "3"])
            self.assertEqual(self.client.call("file", b""), b"beside ['one two', '3']")

    def test_a_closure_is_served_by_a_thread_of_this_process(self) -> None:
        seen: list[bytes] = []
        here = os.getpid()

        def note(request: isect.Request) -> str:
            seen.append(request.body)
            return str(os.getpid())

        workers = self.broker.worker("note", note, n=2, thread=True)
        self.assertEqual(self.client.call("note", b"one"), str(here).encode())
        self.assertEqual(seen, [b"one"])
        self.assertEqual(workers.ids, [])
        with self.assertRaisesRegex(isect.UsageError, "threads of this process"):
            workers.kill()
        self.assertEqual(self.client.call("note", b"two"), str(here).encode())

    def test_an_async_function_is_served_by_both(self) -> None:
        for thread in (False, True):
            service = f"backwards-{thread}"
            self.broker.worker(service, backwards, thread=thread)
            answers = [self.client.submit(service, b"%03d" % number) for number in range(50)]
            self.assertEqual([answer.result(10) for answer in answers],
                             [(b"%03d" % number)[::-1] for number in range(50)])

    def test_the_options_of_run_reach_both(self) -> None:
        for thread in (False, True):
            service = f"many-{thread}"
            self.broker.worker(service, upper, thread=thread, options={"concurrency": 3})
            row = self.broker.workers_of(service)[0]
            page = self.broker.command_json(f"worker {row['worker']}")
            self.assertEqual(page["worker"]["concurrency"], 3)
        with self.assertRaisesRegex(isect.UsageError, "on_end.*can't be handed"):
            self.broker.worker("no", upper, options={"on_end": print})
        with self.assertRaisesRegex(isect.UsageError, "are of 'isect.run'"):
            self.broker.worker("no", "isdecho", options={"concurrency": 3})

    def test_what_no_process_can_import_is_refused_with_the_cure(self) -> None:
        def inner(request: isect.Request) -> bytes:
            return b""

        for handler in (inner, lambda request: b"", upper.__get__(3)):
            with self.assertRaisesRegex(isect.UsageError, "can't be imported.*thread=True"):
                self.broker.worker("inner", handler)
        with self.assertRaisesRegex(isect.UsageError, "needs 1 worker"):
            self.broker.worker("inner", upper, n=0)
        for options, text in (({"n": 1.5}, "n is 1.5"),
                              ({"options": {"depth": 3}}, r"\['depth'\] are none of a worker"),
                              ({"thread": True, "arguments": ["x"]}, "a thread has no arguments")):
            with self.assertRaisesRegex(isect.UsageError, text):
                self.broker.worker("inner", upper, **options)
        for wrong in (None, 7, b"/bin/true"):
            with self.assertRaisesRegex(isect.UsageError, "the handler is .* it is a function"):
                self.broker.worker("inner", wrong)  # type: ignore[arg-type]
        with self.assertRaisesRegex(isect.UsageError, "empty list"):
            self.broker.worker("inner", [])
        with self.assertRaises(testing.BrokerNotFound):
            self.broker.worker("inner", "no-such-program")

    def test_a_worker_that_does_not_get_ready_shows_what_it_wrote(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "broken.py")
            file.write_text("import sys\nprint('I tried', file=sys.stderr)\n1 / 0\n")
            begin = time.monotonic()
            with self.assertRaises(testing.BrokerFailed) as caught:
                self.broker.worker("broken", file)
            self.assertLess(time.monotonic() - begin, 5, "it is known at once")
        text = str(caught.exception)
        for part in ("of service 'broken' does not get ready", "exit status 1", "I tried",
                     "ZeroDivisionError"):
            self.assertIn(part, text)
        # The failed one does not stand in the way of the next.
        self.broker.worker("broken", upper)
        self.assertEqual(self.client.call("broken", b"mended"), b"MENDED")
        self.assertEqual(len(self.broker.workers_of("broken")), 1)

    def test_what_a_handler_raises_is_in_the_log_of_its_worker(self) -> None:
        workers = self.broker.worker("fails", fail)
        with self.assertRaises(isect.WorkerFailed):
            self.client.call("fails", "this")
        await_that("the log", lambda: "RuntimeError: no luck with this" in workers.log())
        self.assertNotIn("no luck", self.broker.log_of("no-such-service"))

    def test_workers_are_stopped(self) -> None:
        workers = self.broker.worker("ends", upper)
        pids = workers.pids()
        workers.stop()
        await_that("the worker to end", lambda: not any(map(is_running, pids)))
        with self.assertRaises(isect.Refused):
            self.client.call("ends", b"")

    def test_a_killed_worker_is_replaced(self) -> None:
        workers = self.broker.worker("mortal", upper)
        before = workers.kill()
        await_that("another process", lambda: set(workers.pids()) - set(before))
        workers.await_ready()
        self.assertEqual(self.client.call("mortal", b"again"), b"AGAIN")


class Restarted(unittest.TestCase):
    """Faults of the broker itself."""

    def test_workers_outlive_the_broker(self) -> None:
        with testing.broker() as broker:
            workers = broker.worker("upper", upper)
            pids, address, tcp = workers.pids(), broker.address, broker.tcp_address
            broker.worker("local", lambda request: b"local", thread=True)
            broker.kill()
            self.assertTrue(all(is_running(pid) for pid in pids))
            begin = time.monotonic()
            with self.assertRaisesRegex(testing.BrokerFailed, "does not run, its status is -9"):
                broker.command("version")
            self.assertLess(time.monotonic() - begin, 1)
            with self.assertRaises(isect.ConnectionFailed):
                broker.connect(reconnect=False, timeout=0.5).command("version")
            broker.restart()
            self.assertEqual((broker.address, broker.tcp_address), (address, tcp))
            workers.await_ready()
            broker.await_workers("local")
            self.assertEqual(workers.pids(), pids)
            with broker.connect() as client:
                self.assertEqual(client.call("upper", b"still"), b"STILL")
                self.assertEqual(client.call("local", b""), b"local")
            folder = broker.folder
        self.assertEqual(_guard.processes_of(str(folder)), {})

    def test_stop_after_kill_leaves_nothing(self) -> None:
        broker = testing.broker()
        workers = broker.worker("upper", upper)
        pids = workers.pids()
        broker.kill()
        broker.stop()
        await_that("the workers to end", lambda: not any(map(is_running, pids)))
        self.assertFalse(broker.folder.exists())

    def test_a_worker_that_ignores_everything_does_not_hold_stop_up(self) -> None:
        broker = testing.broker()
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "deaf.py")
            file.write_text(textwrap.dedent("""
                import isect, signal, time
                def handle(request):
                    signal.signal(signal.SIGTERM, signal.SIG_IGN)
                    time.sleep(60)
                isect.run(handle)
                """))
            workers = broker.worker("deaf", file)
        client = broker.connect()
        client.send("deaf", b"sleep")
        await_that("the request to be with the worker",
                   lambda: broker.workers_of("deaf")[0]["state"] != "ready"
                   or broker.command_json("requests")["requests"])
        pids = workers.pids()
        begin = time.monotonic()
        broker.stop()
        self.assertLess(time.monotonic() - begin, 8)
        self.assertFalse(any(map(is_running, pids)))


CHILD = """
import os, sys, signal, time
from isect import testing
def upper(request): return request.body.upper()
if __name__ == "__main__":
    broker = testing.broker()
    workers = broker.worker("upper", upper)
    print(broker.folder, broker.pid, *workers.pids(), flush=True)
    {end}
"""


class Orphans(unittest.TestCase):
    """The process of the tests ends without `stop`."""

    def ends(self, end: str) -> None:
        """Starts a process with a broker and a worker, has it end, and looks what is left."""
        with tempfile.TemporaryDirectory() as folder:
            file = Path(folder, "child.py")
            file.write_text(CHILD.format(end=end))
            # Of a session of its own, so that a signal to its group reaches nobody else.
            child = subprocess.Popen([sys.executable, str(file)], stdout=subprocess.PIPE, text=True,
                                     env={**os.environ, "PYTHONPATH": PATHS},
                                     start_new_session=True)
            try:
                assert child.stdout is not None
                there, *pids = child.stdout.readline().split()
                self.assertTrue(all(is_running(int(pid)) for pid in pids[1:]), pids)
                if end == "time.sleep(60)":
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait(TIMEOUT)
                await_that("all processes to end", lambda: not _guard.processes_of(there)
                           and not any(is_running(int(pid)) for pid in pids))
                await_that("the folder to be removed", lambda: not Path(there).exists())
            finally:
                # With what it has forked.
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(child.pid, signal.SIGKILL)
                child.wait()
                assert child.stdout is not None
                child.stdout.close()

    def test_killed(self) -> None:
        self.ends("time.sleep(60)")

    def test_killed_while_the_broker_is_killed(self) -> None:
        self.ends("broker.kill(); os.kill(0, signal.SIGKILL)")

    def test_ended_at_once(self) -> None:
        self.ends("os._exit(0)")

    def test_ended_in_order_and_forgot_to_stop(self) -> None:
        self.ends("sys.exit(1)")

    def test_killed_while_a_forked_child_goes_on(self) -> None:
        # The child sleeps for long, and must not keep the broker.
        self.ends("child = os.fork()\n"
                  "    if child == 0: os.close(1); time.sleep(60); os._exit(0)\n"
                  "    os.kill(os.getpid(), signal.SIGKILL)")

    def test_a_start_that_is_interrupted_leaves_nothing(self) -> None:
        child = ("import os, signal, sys, tempfile\n"
                 "from isect import testing\n"
                 "tempfile.tempdir = sys.argv[1]\n"
                 "signal.signal(signal.SIGALRM, signal.default_int_handler)\n"
                 "signal.setitimer(signal.ITIMER_REAL, float(sys.argv[2]))\n"
                 "try: testing.broker().stop()\n"
                 "except KeyboardInterrupt: print('interrupted')\n"
                 "print(os.listdir(sys.argv[1]))\n")
        count = 0
        with tempfile.TemporaryDirectory(dir="/tmp") as own:
            for millis in range(1, 40, 3):
                done = subprocess.run([sys.executable, "-c", child, own, str(millis / 1000)],
                                      env={**os.environ, "PYTHONPATH": PATHS}, text=True,
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, timeout=30)
                self.assertTrue(done.stdout.endswith("[]\n"), f"{millis} ms: {done.stdout}")
                self.assertNotIn("Traceback", done.stdout)
                self.assertEqual(_guard.processes_of(own), {})
                count += "interrupted" in done.stdout
        self.assertGreater(count, 3, "starts were interrupted")

    def test_killed_after_the_guard_was_killed(self) -> None:
        self.ends("testing._the_guard._process.kill(); testing._the_guard._process.wait()\n"
                  "    other = testing.broker()\n"
                  "    os.kill(os.getpid(), signal.SIGKILL)")

    def test_a_forked_child_can_connect_and_ends_nothing(self) -> None:
        with testing.broker() as broker:
            broker.worker("upper", upper)
            pid = os.fork()
            if pid == 0:
                status = 1
                try:
                    broker.stop()
                    try:
                        broker.command("version")
                    except isect.UsageError:
                        with isect.connect(broker.address) as client:
                            status = 0 if client.call("upper", b"child") == b"CHILD" else 2
                finally:
                    os._exit(status)
            self.assertEqual(os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]), 0)
            with broker.connect() as client:
                self.assertEqual(client.call("upper", b"parent"), b"PARENT")


class Asynchronous(unittest.IsolatedAsyncioTestCase):
    """`async_broker`."""

    async def test_it_blocks_no_other_task(self) -> None:
        beats = 0

        async def beat() -> None:
            nonlocal beats
            while True:
                await asyncio.sleep(0.001)
                beats += 1

        task = asyncio.create_task(beat())
        async with testing.async_broker(login_ms=1500) as broker:
            before = beats
            await broker.worker("upper", upper)
            self.assertGreater(beats, before + 5)
            self.assertIn("1500", await broker.command("settings login_ms"))
            client = await broker.connect()
            self.assertEqual(await client.call("upper", b"hello"), b"HELLO")
            await broker.kill()
            await broker.restart()
            await broker.command("version")
            folder = broker.running.folder
        self.assertFalse(folder.exists())
        task.cancel()

    async def test_a_start_that_is_given_up_leaves_nothing(self) -> None:
        with tempfile.TemporaryDirectory(dir="/tmp") as own:
            before, tempfile.tempdir = tempfile.tempdir, own
            try:
                task = asyncio.ensure_future(testing.async_broker().__aenter__())
                while not os.listdir(own):
                    await asyncio.sleep(0.001)
                task.cancel()
                with self.assertRaises(asyncio.CancelledError):
                    await task
            finally:
                tempfile.tempdir = before
            self.assertEqual(os.listdir(own), [])

    async def test_it_is_used_after_it_is_started(self) -> None:
        with self.assertRaisesRegex(isect.UsageError, "not started yet"):
            testing.async_broker().running


@unittest.skipUnless(importlib.util.find_spec("pytest"), "pytest is not installed")
class Fixtures(unittest.TestCase):
    """The plugin of pytest."""

    def test_the_fixtures_give_brokers_and_show_their_log(self) -> None:
        with tempfile.TemporaryDirectory() as folder:
            Path(folder, "test_them.py").write_text(textwrap.dedent("""
                import pytest
                def upper(request): return request.body.upper()
                seen = []
                def test_call(isect_broker):
                    isect_broker.worker("upper", upper)
                    with isect_broker.connect() as client:
                        assert client.call("upper", b"hello") == b"HELLO"
                    seen.append(isect_broker.folder)
                @pytest.mark.isect_broker(login_ms=1500)
                def test_other(isect_broker):
                    assert isect_broker.folder != seen[0] and not seen[0].exists()
                    assert "1500" in isect_broker.command("settings login_ms")
                def test_one(isect_broker_session): seen.append(isect_broker_session)
                def test_same(isect_broker_session): assert seen[-1] is isect_broker_session
                def test_fails(isect_broker): assert False
                """))
            # With the second way a worker can't import the file by its name.
            for way in ("prepend", "importlib"):
                done = subprocess.run(
                    [sys.executable, "-m", "pytest", "-p", "isect.pytest_plugin", "-p",
                     "no:cacheprovider", "--strict-markers", "-q", f"--import-mode={way}", folder],
                    cwd=folder, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                    timeout=60, env={**os.environ, "PYTHONPATH": PATHS})
                self.assertIn("1 failed, 4 passed", done.stdout, done.stdout)
                self.assertRegex(done.stdout, "-+ log of isectd -+\n.*isectd .* listens")


if __name__ == "__main__":
    unittest.main()
