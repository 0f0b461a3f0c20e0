"""A worker as a process: signals, forks, output, exit status, towards a broker that is played."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import tempfile
import textwrap
import unittest
from pathlib import Path
from typing import Any

from isect import _tables as t
from isect._wire import Lines, frame
from worker_support import SOURCES, TIMEOUT, FakeBroker, Peer, cancel, request

#: What each program begins with. A handler says on a pipe that it has begun.
HEAD = """
import os, sys, time, signal, subprocess, threading, asyncio, logging
import isect
def begun():
    os.write(1, b"begun\\n")
"""
#: The ways: how a handler begins, how it waits for `go`, and the concurrency.
WAYS = {
    "plain": ("def", "time.sleep", 1),
    "threads": ("def", "time.sleep", 4),
    "tasks": ("async def", "await asyncio.sleep", 4),
}


class ProcessCase(unittest.TestCase):
    """Has a broker that is played, and workers that are processes."""

    def setUp(self) -> None:
        self.broker = FakeBroker()
        self.addCleanup(self.broker.close)

    def start(self, source: str, *args: str, **env: str) -> subprocess.Popen[bytes]:
        folder = tempfile.mkdtemp(dir=self.broker.folder)
        path = Path(folder) / "prog.py"
        path.write_text(HEAD + textwrap.dedent(source))
        arguments = list(args) or [f"unix:{self.broker.path}", "0", "7", "upper"]
        environment = {**os.environ, "PYTHONPATH": str(SOURCES), "ISECT_WORKER_SECRET": "7.1.s",
                       **env}
        process = subprocess.Popen([sys.executable, str(path), *arguments], stdin=subprocess.PIPE,
                                   stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                   env=environment)
        self.addCleanup(self.clean, process)
        return process

    def clean(self, process: subprocess.Popen[bytes]) -> None:
        if process.poll() is None:
            process.kill()
        process.communicate(timeout=TIMEOUT)

    def start_way(self, way: str, body: str, **env: str) -> subprocess.Popen[bytes]:
        keyword, wait, concurrency = WAYS[way]
        body = textwrap.indent(textwrap.dedent(body).replace("WAIT", wait), "    ")
        return self.start(f"{keyword} handle(r):\n{body}\n"
                          f"isect.run(handle, concurrency={concurrency})\n", **env)

    def ended(self, process: subprocess.Popen[bytes]) -> tuple[int, str, str]:
        out, err = process.communicate(timeout=TIMEOUT)
        return process.returncode, out.decode(), err.decode()

    def line(self, process: subprocess.Popen[bytes]) -> str:
        assert process.stdout is not None
        return process.stdout.readline().decode().rstrip("\n")


class Signals(ProcessCase):
    """SIGTERM and SIGINT in each state, in each way."""

    def test_while_it_waits(self) -> None:
        for way in WAYS:
            for number in (signal.SIGTERM, signal.SIGINT):
                with self.subTest(way=way, number=number):
                    process = self.start_way(way, "return b''")
                    peer = self.broker.login(silence_ms=0)
                    peer.send(frame(t.PING))
                    peer.take(t.PONG)
                    process.send_signal(number)
                    self.assertEqual(peer.logout(), 0)
                    peer.end()
                    peer.assert_closed()
                    self.assertEqual(self.ended(process), (0, "", ""))

    def test_while_a_handler_works(self) -> None:
        for way in WAYS:
            for number in (signal.SIGTERM, signal.SIGINT):
                with self.subTest(way=way, number=number):
                    process = self.start_way(way, """
                        begun()
                        while not os.path.exists(r.text): WAIT(0.005)
                        return b'done'""")
                    peer = self.broker.login()
                    go = os.path.join(self.broker.folder, f"{way}-{number}")
                    peer.send(request(1, go.encode()))
                    self.assertEqual(self.line(process), "begun")
                    process.send_signal(number)
                    if way != "plain":
                        self.assertEqual(peer.logout(), 1)
                    Path(go).touch()
                    if way == "plain":
                        self.assertEqual(peer.logout(), 1)
                    self.assertEqual(peer.answer(1), (0, 0, b"done"))
                    peer.end()
                    peer.assert_closed()
                    self.assertEqual(self.ended(process), (0, "", ""))

    def test_a_second_one_ends_at_once(self) -> None:
        for way in WAYS:
            with self.subTest(way=way):
                # The first one has been heard when the program says so.
                process = self.start_way(way, """
                    begun()
                    before = None
                    while True:
                        WAIT(0.005)
                        is_stopping = any(s.state.is_stopping for s in isect._signals._at_fork)
                        if is_stopping and not before:
                            os.write(1, b"heard\\n")
                        before = is_stopping""")
                peer = self.broker.login()
                peer.send(request(1))
                self.assertEqual(self.line(process), "begun")
                process.send_signal(signal.SIGTERM)
                self.assertEqual(self.line(process), "heard")
                process.send_signal(signal.SIGTERM)
                self.assertEqual(self.ended(process)[0], -signal.SIGTERM)

    def test_while_it_logs_in_and_while_the_broker_is_gone(self) -> None:
        for way in WAYS:
            with self.subTest(way=way):
                process = self.start_way(way, "return b''")
                peer = self.broker.accept()
                peer.take(t.WORKER_LOGIN)
                process.send_signal(signal.SIGTERM)
                peer.assert_closed()
                self.assertEqual(self.ended(process), (0, "", ""))
                process = self.start_way(way, "return b''")
                self.broker.login(reconnect_ms=60000).close()
                self.broker.accept().take(t.WORKER_LOGIN)
                process.send_signal(signal.SIGTERM)
                self.assertEqual(self.ended(process)[0], 0)

    def test_a_handler_of_the_program_stays(self) -> None:
        for way in WAYS:
            with self.subTest(way=way):
                keyword, _, concurrency = WAYS[way]
                process = self.start(f"""
                    signal.signal(signal.SIGTERM, lambda *_: os.write(1, b"mine\\n"))
                    {keyword} handle(r): return b''
                    isect.run(handle, concurrency={concurrency})""")
                peer = self.broker.login()
                process.send_signal(signal.SIGTERM)
                self.assertEqual(self.line(process), "mine")
                peer.send(request(1))
                peer.answer(1)
                peer.end()
                self.assertEqual(self.ended(process)[0], 0)

    def test_a_stream_is_finished(self) -> None:
        process = self.start("""
            def handle(r):
                yield b"a"
                begun()
                while not os.path.exists(r.text): time.sleep(0.005)
                yield b"b"
            isect.run(handle)""")
        peer = self.broker.login()
        go = os.path.join(self.broker.folder, "go")
        peer.send(request(1, go.encode()))
        self.assertEqual(self.line(process), "begun")
        process.send_signal(signal.SIGTERM)
        Path(go).touch()
        self.assertEqual([peer.answer(1)[2] for _ in range(2)], [b"a", b"b"])
        self.assertEqual(peer.logout(), 1)
        self.assertEqual(peer.answer(1), (0, 0, b""))
        peer.end()
        self.assertEqual(self.ended(process)[0], 0)


class Forks(ProcessCase):
    """A child of the worker's process does not answer, and the worker goes on."""

    def test_a_child_can_neither_answer_nor_go_on(self) -> None:
        for way in WAYS:
            with self.subTest(way=way):
                wait = "await " if way == "tasks" else ""
                process = self.start_way(way, f"""
                    child = os.fork()
                    if child == 0 and r.body == b"piece":
                        try:
                            {wait}r.reply_piece(b"wrong")
                        except isect.ForkedError as e:
                            os._exit(42)
                        os._exit(43)
                    if child == 0 and r.body == b"exit":
                        sys.exit(5)
                    if child == 0 and r.body == b"raise":
                        raise KeyError(1)
                    if child == 0:
                        return b"wrong"
                    return str(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))""")
                peer = self.broker.login()
                for number, (body, status) in enumerate(
                        ((b"piece", 42), (b"", 1), (b"exit", 5), (b"raise", 1), (b"piece", 42)), 1):
                    peer.send(request(number, body))
                    self.assertEqual(peer.answer(number), (0, 0, str(status).encode()))
                peer.end()
                peer.assert_closed()
                status, _, err = self.ended(process)
                self.assertEqual(status, 0, err)
                self.assertIn("only the worker itself may answer", err)

    def test_a_signal_to_a_child_is_not_the_workers(self) -> None:
        for way in WAYS:
            with self.subTest(way=way):
                process = self.start_way(way, """
                    import multiprocessing
                    context = multiprocessing.get_context("fork")
                    child = context.Process(target=time.sleep, args=(60,))
                    child.start()
                    child.terminate()
                    child.join(10)
                    return str(child.exitcode)""")
                peer = self.broker.login()
                for number in (1, 2):
                    peer.send(request(number))
                    self.assertEqual(peer.answer(number), (0, 0, b"-15"))
                peer.send(frame(t.PING))
                peer.take(t.PONG)
                peer.end()
                self.assertEqual(self.ended(process)[0], 0)

    def test_a_program_that_a_handler_starts_has_no_connection(self) -> None:
        process = self.start_way("plain", """
            script = "ls -l /proc/self/fd | grep -c socket; true"
            done = subprocess.run(["sh", "-c", script], capture_output=True, close_fds=False,
                                  stdin=subprocess.DEVNULL)
            return done.stdout""")
        peer = self.broker.login()
        peer.send(request(1))
        self.assertEqual(peer.answer(1), (0, 0, b"0\n"))
        peer.end()
        self.assertEqual(self.ended(process)[0], 0)


class Programs(ProcessCase):
    """Arguments, output and exit status."""

    PLAIN = "isect.run(lambda r: r.body, on_end=lambda: os.write(1, b'end'))"

    def test_its_own_arguments(self) -> None:
        process = self.start("isect.run(lambda r: ' '.join(isect.arguments()))",
                             f"unix:{self.broker.path}", "0", "7", "upper", "--size", "9")
        peer = self.broker.login()
        self.assertEqual(peer.login.get("worker"), "7")
        self.assertEqual(peer.login.get("secret"), "7.1.s")
        self.assertEqual(peer.login.number("hostpid"), process.pid)
        peer.send(request(1))
        self.assertEqual(peer.answer(1)[2], b"--size 9")
        peer.end()
        self.assertEqual(self.ended(process)[0], 0)

    def test_started_by_hand(self) -> None:
        process = self.start(f"isect.run(lambda r: ' '.join(isect.arguments()), service='upper', "
                             f"address='unix:{self.broker.path}')", "own", ISECT_WORKER_SECRET="")
        peer = self.broker.login()
        self.assertEqual((peer.login.get("worker"), peer.login.get("secret")), ("0", ""))
        peer.send(request(1))
        self.assertEqual(peer.answer(1)[2], b"own")
        peer.end()
        self.assertEqual(self.ended(process)[0], 0)

    def test_several_in_one_program(self) -> None:
        process = self.start(f"""
            def serve(service):
                isect.run(lambda r: isect.current_worker().service, service=service,
                          address='unix:{self.broker.path}')
            def which():
                try:
                    print(isect.current_worker().service, flush=True)
                except isect.UsageError as e:
                    print(e.text, flush=True)
            threads = [threading.Thread(target=serve, args=(name,)) for name in ("one", "two")]
            for thread in threads:
                thread.start()
            sys.stdin.readline()
            which()
            threads[0].join()
            which()
            threads[1].join()
            which()
        """, "own", ISECT_WORKER_SECRET="")
        peers = [self.broker.login(), self.broker.login()]
        peers.sort(key=lambda peer: str(peer.login.get("service")))
        for number, peer in enumerate(peers, 1):
            peer.send(request(number))
            self.assertEqual(peer.answer(number)[2].decode(), peer.login.get("service"))
        assert process.stdin is not None
        process.stdin.write(b"\n")
        process.stdin.flush()
        self.assertIn("2 workers are served in this process", self.line(process))
        peers[0].end()
        self.assertEqual(self.line(process), "two")
        peers[1].end()
        self.assertIn("isect.run serves none in this process", self.line(process))
        self.assertEqual(self.ended(process)[0], 0)

    def test_the_workers_socket_of_the_state_directory(self) -> None:
        state = Path(self.broker.folder) / "isect"
        process = self.start("isect.run(lambda r: b'', service='upper')", "x",
                             ISECT_WORKER_SECRET="", XDG_STATE_HOME=self.broker.folder)
        status, _, err = self.ended(process)
        self.assertEqual(status, 2)
        self.assertIn("start isectd", err)
        state.mkdir()
        (state / "worker.sock").symlink_to(self.broker.path)
        process = self.start("isect.run(lambda r: b'', service='upper')", "x",
                             ISECT_WORKER_SECRET="", XDG_STATE_HOME=self.broker.folder)
        self.broker.login().end()
        self.assertEqual(self.ended(process)[0], 0)

    def test_wrong_arguments(self) -> None:
        for args, text in (
            (["x"], "1 arguments, but a worker gets"),
            (["unix:/a", "0", "seven", "upper"], "worker id 'seven'"),
            (["unix:/a", "0", "9" * 5000, "upper"], "is no number from 0 to 4294967295"),
            (["unix:", "0", "7", "upper"], "has no path"),
            (["localhost", "0", "7", "upper"], "address 'localhost:0'"),
            (["a b", "1", "7", "upper"], "address 'a b:1'"),
            (["localhost", "70000", "7", "upper"], "'70000' as its port"),
            (["unix:/a", "0", "7", "9upper\x1b[31m"], "service '9upper\\x1b[31m'"),
        ):
            with self.subTest(args=args):
                status, out, err = self.ended(self.start(self.PLAIN, *args))
                self.assertEqual((status, out), (2, ""))
                self.assertIn(text, err)
                self.assertIn("config worker NAME localhost", err)
        status, _, err = self.ended(self.start(f"sys.argv.clear()\n{self.PLAIN}"))
        self.assertEqual(status, 2)
        self.assertIn("0 arguments, but a worker gets", err)
        secret = os.fsdecode(b"\xff")
        status, _, err = self.ended(self.start(self.PLAIN, ISECT_WORKER_SECRET=secret))
        self.assertEqual(status, 2)
        self.assertIn("ISECT_WORKER_SECRET has bytes that no secret", err)

    def test_help(self) -> None:
        for word in ("--help", "-h"):
            status, out, err = self.ended(self.start(self.PLAIN, word))
            self.assertEqual((status, err), (0, ""))
            self.assertIn("Usage: prog.py HOST|unix:PATH PORT WORKER SERVICE", out)

    def test_a_broker_that_is_not_there(self) -> None:
        status, out, err = self.ended(self.start(self.PLAIN, "unix:/nowhere/x", "0", "7", "upper"))
        self.assertEqual((status, out), (1, "end"))
        self.assertIn("unix:/nowhere/x", err)
        self.assertIn("unreachable", err)
        self.assertNotIn("Traceback", err)

    def test_a_broker_that_is_gone(self) -> None:
        process = self.start(self.PLAIN)
        self.broker.login(reconnect_ms=50).close()
        self.broker.listener.close()
        status, _, err = self.ended(process)
        self.assertEqual(status, 1)
        self.assertIn("trying to connect again for 0.05 s", err)

    def test_what_a_handler_prints_leaves_at_once(self) -> None:
        process = self.start("""
            def handle(r):
                print("seen", r.text)
                while True: time.sleep(1)
            isect.run(handle)""")
        peer = self.broker.login()
        peer.send(request(1, b"it"))
        self.assertEqual(self.line(process), "seen it")

    def test_a_traceback_is_logged(self) -> None:
        process = self.start("""
            def handle(r):
                raise ValueError("why")
            isect.run(handle)""")
        peer = self.broker.login()
        peer.send(request(1))
        self.assertEqual(peer.answer(1), (1, 0, b"ValueError: why"))
        peer.end()
        status, _, err = self.ended(process)
        self.assertEqual(status, 0)
        self.assertIn("ERROR isect.worker: the handler failed at transaction 1\nTraceback", err)
        self.assertIn("ValueError: why", err)

    def test_logging_of_the_program_is_left_alone(self) -> None:
        process = self.start("""
            logging.basicConfig(format="own %(message)s", level=logging.ERROR)
            def handle(r):
                raise ValueError("why")
            isect.run(handle)""")
        peer = self.broker.login()
        peer.send(request(1))
        peer.answer(1)
        peer.end()
        self.assertTrue(self.ended(process)[2].startswith("own the handler failed"))

    def test_the_status_of_a_handler_that_ends_the_program(self) -> None:
        for way in WAYS:
            with self.subTest(way=way):
                process = self.start_way(way, "sys.exit(3)")
                peer = self.broker.login()
                peer.send(request(1))
                kinds = {head.command for head, _ in (peer.frame(), peer.frame())}
                self.assertEqual(kinds, {t.DATA, t.LOGOUT})
                peer.end()
                self.assertEqual(self.ended(process)[0], 3)

    def test_a_wrong_use_of_run(self) -> None:
        for call, text in (("isect.run(7)", "a handler is a function, not int"),
                           # Not started as a worker, either: the handler comes first.
                           ("sys.argv[1:] = []\nisect.run(7)", "a handler is a function, not int"),
                           ("isect.run(print, concurrency=0)", "concurrency is 0"),
                           ("isect.run(print, max_requests=0)", "max_requests is 0"),
                           ("async def f(): pass\nisect.run(print, on_end=f)", "an async def"),
                           ("isect.run(print, on_status=7)", "on_status is 7"),
                           ("def f(): pass\nisect.run(f)", "the handler f() can't be called with "
                                                            "one argument, the request"),
                           ("async def f(a, b): pass\nisect.run(f)", "the handler f(a, b) can't"),
                           ("async def f(r): pass\nasync def main(): isect.run(f)\n"
                            "asyncio.run(main())", "was called in a running event loop"),
                           ("isect.worker(concurrency=2000)", "concurrency is 2000"),
                           ("isect.Failure(0, 'x')", "code 0 is out of range")):
            status, _, err = self.ended(self.start(call))
            self.assertEqual(status, 1)
            self.assertIn(text, err)

    def test_the_concurrency_of_the_mark(self) -> None:
        process = self.start("""
            @isect.worker(concurrency=3)
            def handle(r): return b""
            isect.run(handle)""")
        peer = self.broker.login()
        self.assertEqual(peer.login.get("concurrency"), "3")
        peer.end()
        self.assertEqual(self.ended(process)[0], 0)


if __name__ == "__main__":
    unittest.main()
