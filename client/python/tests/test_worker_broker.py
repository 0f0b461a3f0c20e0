"""Workers in Python with the real broker."""

from __future__ import annotations

import importlib.util
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import unittest

import isect
from isect import _tables as t
from isect._wire import Inbox, Lines, frame

from worker_support import SOURCES, TIMEOUT, RealBroker, await_that, program_named

UPPER = """
import isect
@isect.worker{options}
{keyword} handle(request: isect.Request) -> bytes:
    print("asked", request.text)
    return request.body.upper()
isect.run(handle, on_status=lambda: "well", on_reinit=lambda: print("reads it again"))
"""


@unittest.skipUnless(program_named("isectd"), "isectd is neither in ISECT_BIN nor on the PATH")
class Broker(unittest.TestCase):
    """Each test has a broker of its own."""

    def setUp(self) -> None:
        self.broker = RealBroker()
        self.addCleanup(self.broker.close)

    def wait_for_log(self, text: str) -> None:
        await_that(f"'{text}' in the log", lambda: text in self.broker.text_of_log())

    def test_the_three_ways(self) -> None:
        for service, keyword, options in (("plain", "def", ""),
                                          ("threads", "def", "(concurrency=4)"),
                                          ("tasks", "async def", "(concurrency=4)")):
            with self.subTest(service=service):
                broker = self.broker
                broker.config(service, UPPER.format(keyword=keyword, options=options),
                              "concurrency=4")
                self.assertEqual(broker.ask(service, "hello"), "HELLO")
                self.wait_for_log("asked hello")
                broker.op(f"send {service} status")
                self.wait_for_log("well")
                broker.op(f"send {service} reinit")
                self.wait_for_log("reads it again")
                pid = self.broker.await_ready(service)
                broker.op(f"stop {service}")
                self.wait_for_log(f"pid={pid} exit_cause=exit 0")
                broker.op(f"start {service}")
                self.assertEqual(broker.ask(service, "again"), "AGAIN")

    def test_errors_and_streams_reach_the_client(self) -> None:
        self.broker.config("mixed", """
import isect
def handle(request):
    if request.text == "own":
        raise isect.Failure(77, "out of stock")
    if request.text == "raise":
        raise KeyError("colour")
    if request.text == "large":
        return b"x" * 20_000_000
    return stream()
def stream():
    for word in ("a", "b", "c"):
        yield word
isect.run(handle)
""")
        ask = self.broker.ask
        self.assertIn("out of stock", ask("mixed", "own"))
        self.assertIn("77", ask("mixed", "own"))
        self.assertIn("KeyError: 'colour'", ask("mixed", "raise"))
        self.assertEqual("".join(ask("mixed", "stream").split()), "abc")
        self.assertEqual(len(ask("mixed", "large").strip()), 20_000_000)
        self.wait_for_log("Traceback (most recent call last)")

    def test_max_requests_starts_the_program_anew(self) -> None:
        self.broker.config("few", """
import os, isect
isect.run(lambda request: str(os.getpid()), max_requests=3)
""")
        pids = [self.broker.ask("few", "x").strip() for _ in range(9)]
        self.assertTrue(all(pid.isdigit() for pid in pids), pids)
        self.assertEqual(len(set(pids)), 3, pids)

    def test_a_broker_that_is_killed_finds_its_worker_again(self) -> None:
        self.broker.config("upper", UPPER.format(keyword="def", options=""))
        pid = self.broker.await_ready("upper")
        self.broker.kill_and_restart()
        self.assertEqual(self.broker.await_ready("upper"), pid)
        self.assertEqual(self.broker.ask("upper", "back"), "BACK")

    def test_a_request_that_is_given_up(self) -> None:
        self.broker.config("slow", """
import time, isect
def handle(request):
    if request.text == "slow":
        while not request.is_over():
            time.sleep(0.005)
        print("nobody waits:", request.over.name)
    return request.body
isect.run(handle)
""", "concurrency=2")
        command = [program_named("isdclient") or "", "-h", self.broker.ports["client"], "--timeout",
                   "200", "-c", "slow", "slow"]
        done = subprocess.run(command, capture_output=True, text=True, timeout=30)
        self.assertIn("deadline", done.stderr + done.stdout)
        self.wait_for_log("nobody waits: deadline")
        self.assertEqual(self.broker.ask("slow", "quick"), "quick")

    def test_a_nested_call_has_the_time_and_the_trace_of_the_request(self) -> None:
        self.broker.config("inner", """
import isect
def handle(request):
    return f"{request.remaining()} {request.trace_id.hex()}"
isect.run(handle)
""")
        for service, keyword, options in (("plain", "def", ""), ("threads", "def", "concurrency=4"),
                                          ("tasks", "async def", "concurrency=4")):
            self.broker.config(service, f"""
import isect
broker = isect.connect({self.broker.ports["client_unix"]!r})
{keyword} handle(request):
    return broker.call("inner", b"", timeout=20)
isect.run(handle, {options})
""", "concurrency=4")
            with isect.connect(self.broker.ports["client"]) as client:
                trace = bytes(range(1, 17))
                given = client.call(service, b"", timeout=3, trace_id=trace).decode().split()
                self.assertTrue(0 < float(given[0]) <= 3, given)
                self.assertEqual(given[1], trace.hex())

    def test_a_handler_that_works_for_longer_than_the_silence(self) -> None:
        self.broker.op("set heartbeat_ms 200")
        self.broker.op("set silence_ms 700")
        for service, keyword, options in (("plain", "def", ""), ("threads", "def", "concurrency=2"),
                                          ("tasks", "async def", "concurrency=2")):
            self.broker.config(service, f"""
import time, isect
{keyword} handle(request):
    # It neither waits nor lets others run.
    until = time.monotonic() + float(request.text)
    while time.monotonic() < until:
        pass
    return request.body
isect.run(handle, {options})
""", "concurrency=2")
            pid = self.broker.await_ready(service)
            self.assertEqual(self.broker.ask(service, "2.5"), "2.5")
            self.assertEqual(self.broker.await_ready(service), pid)

    def test_everybody_gets_his_own_answer_whoever_gives_up(self) -> None:
        for service, keyword, options in (("threads", "def", "concurrency=16"),
                                          ("tasks", "async def", "concurrency=16")):
            with self.subTest(service=service):
                wait = "await asyncio.sleep" if service == "tasks" else "time.sleep"
                self.broker.config(service, f"""
import asyncio, time, isect
{keyword} handle(request):
    {wait}(hash(request.body) % 5 / 2000)
    return request.body
isect.run(handle, {options})
""", "concurrency=16")
                with isect.connect(self.broker.ports["client"]) as client:
                    for round in range(20):
                        bodies = [b"%d of %d" % (n, round) for n in range(100)]
                        futures = [client.submit(service, body, timeout=10) for body in bodies]
                        for future in futures[::7]:
                            future.cancel()
                        for body, future in zip(bodies, futures):
                            if not future.cancelled():
                                self.assertEqual(future.result(10), body)

    def test_a_worker_that_starts_itself(self) -> None:
        self.starts_itself(self.broker, self.broker.ports["worker_unix"])

    def starts_itself(self, broker: RealBroker, address: str, more: str = "",
                      **env: str) -> None:
        """A program that starts itself serves, and ends in order."""
        broker.op("config service upper selfstart=1")
        path = broker.folder / "own.py"
        path.write_text("import isect\nisect.run(lambda request: request.body.upper(), "
                        f"service='upper', address={address!r}{more})\n")
        environment = {**os.environ, "PYTHONPATH": str(SOURCES), **env}
        process = subprocess.Popen([sys.executable, str(path)], env=environment)
        try:
            broker.await_ready("upper")
            self.assertEqual(broker.ask("upper", "own"), "OWN")
            process.terminate()
            self.assertEqual(process.wait(TIMEOUT), 0)
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()

    @unittest.skipUnless(shutil.which("openssl"), "there is no openssl")
    def test_over_tls(self) -> None:
        folder = tempfile.mkdtemp(prefix="isect-")
        cert, key = os.path.join(folder, "cert.pem"), os.path.join(folder, "key.pem")
        subprocess.run(["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2",
                        "-subj", "/CN=localhost", "-addext", "subjectAltName=DNS:localhost",
                        "-out", cert, "-keyout", key], check=True, capture_output=True)
        os.chmod(key, 0o600)
        broker = RealBroker("--worker-listen", "tls://127.0.0.1:0", "--tls-cert", cert, "--tls-key",
                            key, "--worker-host", "localhost", folder=folder)
        self.addCleanup(broker.close)
        port = broker.ports["worker"].rpartition(":")[2]
        for more in ("", ", concurrency=4"):
            self.starts_itself(broker, f"tls://localhost:{port}", more, ISECT_CA=cert)
        for keyword, more in (("def", "concurrency=4"), ("async def", "concurrency=4"), ("def", "")):
            source = (f"import isect\n{keyword} handle(r): return r.body * 3\n"
                      f"isect.run(handle, service='large', address='tls://localhost:{port}', {more})")
            broker.op("config service large selfstart=1 concurrency=4")
            environment = {**os.environ, "PYTHONPATH": str(SOURCES), "ISECT_CA": cert}
            process = subprocess.Popen([sys.executable, "-c", source], env=environment)
            try:
                broker.await_ready("large")
                for size in (0, 70_000, 1_000_000):
                    with socket.create_connection(split(broker.ports["client"]), TIMEOUT) as sock:
                        self.assertEqual(ask_raw(sock, "large", b"x" * size), b"x" * size * 3)
                process.terminate()
                self.assertEqual(process.wait(TIMEOUT), 0)
            finally:
                if process.poll() is None:
                    process.kill()
                    process.wait()
        # Somebody else's certificate is not taken.
        status = subprocess.run([sys.executable, "-c", source], capture_output=True, text=True,
                                env={**environment, "ISECT_CA": str(own_ca())}, timeout=30)
        self.assertEqual(status.returncode, 1)
        self.assertIn("tls", status.stderr)

    @unittest.skipUnless(importlib.util.find_spec("argon2"), "argon2-cffi is not installed")
    def test_with_a_token(self) -> None:
        folder = tempfile.mkdtemp(prefix="isect-")
        made = subprocess.run([program_named("isectd") or "", "token", "add", "shop", "--role",
                               "worker:upper", "--file",
                               os.path.join(folder, "tokens")],
                              capture_output=True, text=True, check=True)
        token = next(word for word in made.stdout.split() if word.startswith("shop."))
        broker = RealBroker("--tokens", os.path.join(folder, "tokens"), folder=folder)
        self.addCleanup(broker.close)
        address = broker.ports["worker"]
        self.starts_itself(broker, address, f", token={token!r}")
        self.starts_itself(broker, address, ISECT_TOKEN=token)
        wrong = token[:-1] + ("0" if token[-1] != "0" else "1")
        done = subprocess.run(
            [sys.executable, "-c", "import isect\nisect.run(lambda r: b'', service='upper', "
                                   f"address={address!r}, token={wrong!r})"],
            capture_output=True, text=True, timeout=30,
            env={**os.environ, "PYTHONPATH": str(SOURCES)})
        self.assertEqual(done.returncode, 1)
        self.assertIn("bad_token", done.stderr)


def own_ca() -> str:
    """A CA that signed nothing here."""
    import ssl

    return str(ssl.get_default_verify_paths().cafile or "/nowhere")


def split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def ask_raw(sock: socket.socket, service: str, body: bytes) -> bytes:
    """Asks a service, with bodies of any size."""
    sock.settimeout(TIMEOUT)
    lines = Lines([("service", service), ("priority", "100"), ("loghost", ""), ("hostpid", "0")])
    sock.sendall(frame(t.LOGIN, lines.bytes()) + frame(t.DATA, body, sequence=1, reply=1))
    inbox = Inbox()
    while True:
        found = inbox.take()
        if found is None:
            data = sock.recv(1 << 16)
            assert data, "the broker closed the connection"
            inbox.feed(data)
        elif found[0].command == t.DATA:
            assert found[0].error == 0, found
            return found[1]


if __name__ == "__main__":
    unittest.main()
