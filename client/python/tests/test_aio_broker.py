"""The asyncio client against a real broker."""

from __future__ import annotations

import asyncio
import gc
import os
import shutil
import signal
import ssl
import subprocess
import tempfile
import unittest

from aio_support import AioCase, Peer
from client_support import RealBroker, program
from isect import _context, _token, aio
from isect import _tables as t
from isect._errors import (ConnectionFailed, DeadlineExceeded, IsectError, MissingExtra, Refused,
                           UsageError, WorkerFailed)
from isect._topics import CaughtUp, Lost, Message, Resumed
from isect._wire import Lines, frame


try:
    _token.argon2()
    HAS_ARGON2 = True
except MissingExtra:
    HAS_ARGON2 = False

needs_programs = unittest.skipUnless(program("isectd"), "there is no isectd: ISECT_BIN names its "
                                                        "directory")
needs_argon2 = unittest.skipUnless(HAS_ARGON2, "argon2-cffi is not installed")


class WithBroker(AioCase):
    """A broker for all tests of a class."""

    broker: RealBroker

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = RealBroker()
        cls.addClassCleanup(cls.broker.close)
        cls.broker.serve("echo", more="concurrency 64")
        cls.broker.serve("upper", "isdpipe", "tr a-z A-Z")
        cls.broker.serve("slow", "isdpipe", "sleep 60")
        cls.broker.serve("fails", "isdpipe", "false")

    def connect(self, **options: object) -> aio.Opening[aio.AsyncBroker]:
        return aio.connect(self.broker.address, **options)  # type: ignore[arg-type]


@needs_programs
class Requests(WithBroker):
    async def test_it_is_awaited_or_entered(self) -> None:
        broker = await self.connect()
        self.assertEqual(await broker.call("echo", b"hello", timeout=5), b"hello")
        await broker.close()
        await broker.close()
        with self.assertRaises(UsageError):
            await broker.call("echo", b"")
        async with self.connect() as broker:
            self.assertEqual(await broker.call("upper", "straße"), "STRAßE".encode())

    async def test_over_a_unix_socket(self) -> None:
        async with aio.connect(self.broker.ports["client_unix"]) as broker:
            self.assertEqual(await broker.call("echo", bytearray(b"x")), b"x")

    async def test_many_are_under_way_and_more_wait(self) -> None:
        async with self.connect() as broker:
            bodies = [b"%d" % number * (number % 50) for number in range(5000)]
            answers = await asyncio.gather(*(broker.submit("echo", one) for one in bodies))
            self.assertEqual(answers, bodies)

    async def test_bodies_of_every_size(self) -> None:
        async with self.connect() as broker:
            for size in (0, 1, 65536, 1 << 20, 16 << 20):
                body = os.urandom(size)
                self.assertEqual(await broker.call("echo", memoryview(body)), body)
            with self.assertRaises(Refused) as caught:
                await broker.call("echo", bytes((16 << 20) + 1))
            self.assertEqual(caught.exception.name, "body_too_large")
            with self.assertRaises(UsageError):
                broker.submit("echo", 7)  # type: ignore[arg-type]

    async def test_errors_are_typed(self) -> None:
        async with self.connect() as broker:
            with self.assertRaises(WorkerFailed) as caught:
                await broker.call("fails", b"")
            self.assertEqual(caught.exception.code, 1)
            with self.assertRaises(IsectError) as unknown:
                await broker.call("unknown", b"")
            self.assertEqual((unknown.exception.name, unknown.exception.ran),
                             ("unknown_service", "no"))
            for service in ("", "1x", "x" * 33, "ü"):
                with self.assertRaises(UsageError):
                    broker.submit(service, b"")

    async def test_a_deadline_is_that_of_the_broker(self) -> None:
        async with self.connect() as broker:
            with self.assertRaises(DeadlineExceeded) as caught:
                await broker.call("slow", b"", timeout=0.05)
            self.assertEqual(caught.exception.name, "deadline")
            for wrong in (-1, 3601, float("nan")):
                with self.assertRaises(UsageError):
                    await broker.call("slow", b"", timeout=wrong)

    async def test_the_deadline_and_trace_of_the_request_in_hand_hold(self) -> None:
        class InHand:
            trace_id = b"t" * 16
            span_id = 5

            def __init__(self, left: float) -> None:
                self.left = left

            def remaining(self) -> float | None:
                return self.left

        async with self.connect() as broker:
            token = _context.current.set(InHand(0.05))
            try:
                with self.assertRaises(DeadlineExceeded):
                    await broker.call("slow", b"", timeout=30)
                _context.current.set(InHand(0))
                with self.assertRaises(DeadlineExceeded) as caught:
                    await broker.call("echo", b"")
                self.assertEqual(caught.exception.ran, "no")
            finally:
                _context.current.reset(token)

    async def test_pieces_both_ways(self) -> None:
        async with self.connect() as broker:
            pieces = [b"a", b"", b"bc", b"d"]
            self.assertEqual(await broker.send_pieces("echo", pieces), b"abcd")
            self.assertEqual(await broker.send_pieces("echo", []), b"")
            self.assertEqual(await broker.send_pieces("echo", ["x"]), b"x")

            async def large() -> object:
                for _ in range(30):
                    yield b"x" * (1 << 20)

            answer = await broker.send_pieces("echo", large())  # type: ignore[arg-type]
            self.assertEqual(len(answer), 30 << 20)

    async def test_a_conversation(self) -> None:
        async with self.connect() as broker:
            async with broker.converse("echo", b"1", more=True) as talk:
                self.assertEqual(await talk.receive(5), b"1")
                await talk.send(b"2", more=True)
                self.assertEqual(await talk.receive(5), b"2")
                with self.assertRaises(DeadlineExceeded):
                    await talk.receive(0.01)
                await talk.send(b"3", last=True)
                self.assertEqual([piece async for piece in talk], [b"3"])
                self.assertTrue(talk.has_ended)
                self.assertIsNone(await talk.receive())
                with self.assertRaises(UsageError):
                    await talk.send(b"4")
            async with broker.converse("echo", b"1", more=True) as talk:
                self.assertEqual(await talk.receive(), b"1")
            self.assertEqual(await broker.call("echo", b"after"), b"after")
            with self.assertRaises(UsageError):
                await talk.send(b"")

    async def test_a_stream(self) -> None:
        async with self.connect() as broker:
            self.assertEqual([piece async for piece in broker.stream("echo", b"x")], [b"x"])
            stream = broker.stream("slow", b"")
            await stream.aclose()
            self.assertEqual(await broker.call("echo", b"after"), b"after")
            with self.assertRaises(WorkerFailed):
                async for _ in broker.stream("fails", b""):
                    pass

    async def test_requests_without_an_answer_are_flushed(self) -> None:
        async with self.connect() as broker:
            for _ in range(100):
                await broker.send("echo", b"x")
            self.assertEqual(await broker.flush(10), 0)
            self.assertEqual(await broker.flush(10), 0)

    async def test_to_cancel_gives_up(self) -> None:
        async with self.connect() as broker:
            future = broker.submit("slow", b"")
            await asyncio.sleep(0)
            self.assertTrue(future.cancel())
            with self.assertRaises(asyncio.TimeoutError):
                await asyncio.wait_for(broker.call("slow", b"", timeout=60), 0.05)
            queue = await broker.command("services", json=True)
            self.assertIsInstance(queue, dict)


@needs_programs
class Operator(WithBroker):
    async def test_commands(self) -> None:
        async with self.connect() as broker:
            self.assertIn("echo", await broker.command("services"))
            self.assertIsInstance(await broker.command("workers", json=True), dict)
            with self.assertRaises(IsectError):
                await broker.command("nonsense")

    async def test_one_watch_after_another_and_two_at_once(self) -> None:
        async with self.connect() as broker:
            for _ in range(3):
                async with broker.watch() as lines:
                    self.assertIn("watching", await lines.__anext__())
                    other = broker.watch(json=True)
                    self.assertIsInstance(await other.__anext__(), dict)
                    await other.aclose()
                    self.assertEqual([line async for line in other], [])
            lines = broker.watch()
            self.assertIn("watching", await lines.__anext__())
            del lines
            with self.assertRaises(UsageError):
                await broker.watch("no such command").__anext__()
            gc.collect()
            self.assertEqual(broker._links, {})

    async def test_watch(self) -> None:
        async with self.connect() as broker:
            async with broker.watch() as lines:
                waits = asyncio.ensure_future(lines.__anext__())
                while not waits.done():
                    await broker.command("config service watched")
                    await broker.command("delete service watched")
                    await asyncio.sleep(0.01)
                self.assertTrue(await waits)


@needs_programs
class Topics(WithBroker):
    async def test_messages_come_in_order(self) -> None:
        async with self.connect() as broker:
            async with broker.subscribe("order.>") as messages:
                for number in range(1000):
                    await broker.publish("order.made", b"%d" % number)
                got = [int((await self.within(messages.__anext__())).payload)
                       for _ in range(1000)]
            self.assertEqual(got, list(range(1000)))
            self.assertEqual([message async for message in messages], [])

    async def test_a_callback_gets_them_too(self) -> None:
        async with self.connect() as broker:
            got: list[bytes] = []

            def called(message: Message) -> None:
                got.append(message.payload)
                if message.payload == b"1":
                    raise ValueError("of the callback")

            await broker.publish("call.before", b"0", retain=True, wait=True)
            with self.assertLogs("isect.aio", "ERROR"):
                subscription = await broker.subscribe("call.>", called)
                for number in range(1, 4):
                    await broker.publish("call.after", b"%d" % number, lines={"who": "me"})
                await self.eventually(lambda: len(got) == 4)
            self.assertEqual(got, [b"0", b"1", b"2", b"3"])
            with self.assertRaises(UsageError):
                await subscription.receive()
            await subscription.close()
            receipt = await broker.remove("call.before")
            self.assertEqual(receipt.subscriptions, 0)

    async def test_events_and_positions(self) -> None:
        async with self.connect() as broker:
            receipt = await broker.publish("kept.a", b"1", retain=True, wait=True)
            assert receipt is not None
            async with broker.subscribe("kept.*") as subscription:
                first = await subscription.event(5)
                self.assertTrue(isinstance(first, Message) and first.is_before)
                self.assertIsInstance(await subscription.event(5), CaughtUp)
                position = subscription.position
            await broker.publish("kept.b", b"2", wait=True)
            async with broker.subscribe("kept.*", start=str(position)) as subscription:
                message = await subscription.receive(5)
                assert message is not None
                self.assertEqual(message.payload, b"2")
                self.assertIsNone(await subscription.receive(0.01))
                self.assertEqual((await subscription.unsubscribe())[1], 0)
                with self.assertRaises(IsectError):
                    await subscription.receive()

    async def test_what_breaks_a_rule_is_refused(self) -> None:
        async with self.connect() as broker:
            for topic in ("", "a..b", "a b", "*"):
                with self.assertRaises(Refused):
                    await broker.publish(topic)
            with self.assertRaises(Refused):
                await broker.publish("isect.mine", wait=True)
            with self.assertRaises(Refused):
                broker.subscribe("a.>.b")
            with self.assertLogs("isect.aio", "WARNING"):
                await broker.publish("isect.mine")
                await broker.flush(5)

    async def test_instances(self) -> None:
        async with self.connect() as broker:
            async with broker.announce("loop", groups=["g"], activity_timeout=20) as instance:
                self.assertEqual(instance.activity_timeout, 20)
                self.assertTrue(instance.is_watched)
                self.assertTrue(broker.beat_every)
                instance.checkpoint()
                self.assertFalse(broker.beat_if_due())
                broker.beat()
                await instance.set_state(100, "at it")
                instance.idle()
                self.assertIsNone(instance.failure)
                self.assertIn("loop", await broker.command("instances"))
            await self.eventually(lambda: instance.failure is not None)
            with self.assertRaises(Refused):
                await instance.set_state("running")
            with self.assertRaises(Refused):
                await broker.announce("loop", state=7)


@needs_programs
class Losses(AioCase):
    def setUp(self) -> None:
        super().setUp()
        self.broker = RealBroker()
        self.addCleanup(self.broker.close)
        self.broker.serve("echo")

    async def test_it_goes_on_after_a_restart(self) -> None:
        async with aio.connect(self.broker.address) as broker:
            self.assertEqual(await broker.call("echo", b"1"), b"1")
            async with broker.subscribe("a.>") as subscription:
                self.assertIsInstance(await subscription.event(5), CaughtUp)
                self.broker.kill()
                self.assertIsInstance(await subscription.event(5), Lost)
                waits = asyncio.ensure_future(broker.call("echo", b"2", timeout=20))
                self.broker.start()
                self.assertEqual(await self.within(waits), b"2")
                self.assertIsInstance(await subscription.event(10), Resumed)

    async def test_without_reconnect_it_stays_lost(self) -> None:
        async with aio.connect(self.broker.address, reconnect=False) as broker:
            await broker.call("echo", b"1")
            self.broker.kill()
            for _ in range(2):
                with self.assertRaises(ConnectionFailed):
                    await self.within(broker.call("echo", b"2"))

    async def test_a_stopped_broker_is_noticed(self) -> None:
        self.broker.op("set heartbeat_ms 100", "set silence_ms 500")
        async with aio.connect(self.broker.address, timeout=0.2) as broker:
            await broker.call("echo", b"1")
            self.broker.process.send_signal(signal.SIGSTOP)
            try:
                with self.assertRaises(ConnectionFailed) as caught:
                    await self.within(broker.call("echo", b"2", timeout=19))
                self.assertIn("silent", caught.exception.text)
                self.assertEqual(caught.exception.ran, "maybe")
            finally:
                self.broker.process.send_signal(signal.SIGCONT)


@needs_programs
@unittest.skipUnless(shutil.which("openssl"), "there is no openssl")
class Encrypted(AioCase):
    folder: str
    real: RealBroker
    token: str
    address: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.folder = tempfile.mkdtemp(prefix="isect-")
        cls.addClassCleanup(shutil.rmtree, cls.folder)
        for name in ("localhost", "elsewhere"):
            subprocess.run(
                ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj",
                 f"/CN={name}", "-keyout", cls.at(f"{name}.key"), "-out", cls.at(f"{name}.pem"),
                 "-addext", f"subjectAltName=DNS:{name}", "-addext",
                 "basicConstraints=critical,CA:FALSE"], check=True, capture_output=True)
            os.chmod(cls.at(f"{name}.key"), 0o600)
        cls.real = RealBroker("--listen", "tls://127.0.0.1:0", "--tls-cert",
                              cls.at("localhost.pem"), "--tls-key", cls.at("localhost.key"))
        cls.addClassCleanup(cls.real.close)
        cls.real.serve("echo", more="concurrency 8")
        cls.token = cls.at("shop.token")
        subprocess.run([program("isectd") or "isectd", "token", "add", "shop", "--role", "client",
                        "--service", "echo", "--state", str(cls.real.folder / "state"), "--out",
                        cls.token], check=True, capture_output=True)
        cls.real.op("reload")
        cls.address = cls.real.address.replace("127.0.0.1", "localhost")

    @classmethod
    def at(cls, name: str) -> str:
        return os.path.join(cls.folder, name)

    async def test_over_tls(self) -> None:
        async with aio.connect(self.address, ca=self.at("localhost.pem")) as broker:
            for size in (0, 1, 3_000_000):
                body = os.urandom(size)
                self.assertEqual(await broker.call("echo", body), body)
            bodies = [os.urandom(2000) for _ in range(300)]
            self.assertEqual(await asyncio.gather(*(broker.submit("echo", one) for one in bodies)),
                             bodies)

    async def test_what_is_not_trusted(self) -> None:
        wrong = ((self.address, "elsewhere.pem"), (self.real.address, "localhost.pem"),
                 (self.address, "none.pem"))
        for address, ca in wrong:
            for verify in (True, False):
                with self.assertRaises(ConnectionFailed) as caught:
                    async with aio.connect(address, ca=self.at(ca), verify=verify) as broker:
                        await broker.call("echo", b"x")
                self.assertEqual(caught.exception.name, "tls")
        with self.assertRaises(ConnectionFailed):
            await aio.connect(self.real.address.removeprefix("tls://"), timeout=3)

    @needs_argon2
    async def test_a_token_over_tls(self) -> None:
        async with aio.connect(self.address, ca=self.at("localhost.pem"),
                               token_file=self.token) as broker:
            try:
                self.assertEqual(await broker.call("echo", b"x"), b"x")
            except Refused as why:
                if "names: none" not in why.text:
                    raise
                self.skipTest("this broker takes no proof by tls-server-end-point")

    @needs_argon2
    async def test_a_proof_is_bound_to_the_certificate_and_wants_one_back(self) -> None:
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        context.load_cert_chain(self.at("localhost.pem"), self.at("localhost.key"))
        proofs: asyncio.Queue[Lines] = asyncio.Queue()

        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            peer = Peer(reader, writer)
            try:
                _, body = await peer.take()
                nonce = Lines.parse(body).get("nonce")
                peer.send(frame(t.CHALLENGE, Lines(
                    [("salt", "ab" * 16), ("memory_kib", "8"), ("passes", "1"), ("lanes", "1"),
                     ("nonce", nonce + "cd" * 24),
                     ("channels", "tls-exporter tls-server-end-point")]).bytes()))
                head, body = await peer.take()
                self.assertEqual(head.command, t.PROOF)
                proofs.put_nowait(Lines.parse(body))
                peer.send(frame(t.LOGIN_OK, b"client 1\nbody_bytes_max 1000\nsignature "
                                + b"00" * 32 + b"\n"))
                await peer.take_until_end()
            except (EOFError, ConnectionError):
                pass
            writer.close()

        server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=context)
        async with server:
            port = server.sockets[0].getsockname()[1]
            async with aio.connect(f"tls://localhost:{port}", ca=self.at("localhost.pem"),
                                   token_file=self.token, verify=False) as broker:
                with self.assertRaises(IsectError) as caught:
                    await self.within(broker.call("echo", b"x"))
                self.assertEqual((caught.exception.name, caught.exception.ran), ("unproven", "no"))
            proof = proofs.get_nowait()
            self.assertEqual(proof.get("channel"), "tls-server-end-point")
            self.assertEqual(len(proof.get("proof")), 64)

    @needs_argon2
    async def test_a_token_is_proved_and_has_its_rights(self) -> None:
        async with aio.connect(self.real.ports["client_unix"], token_file=self.token) as broker:
            self.assertEqual(await broker.call("echo", b"x"), b"x")
            with self.assertRaises(Refused) as caught:
                await broker.call("other", b"x")
            self.assertEqual(caught.exception.name, "denied")
        async with aio.connect(self.real.ports["client_unix"], token="shop." + "0" * 64) as broker:
            with self.assertRaises(Refused) as caught:
                await broker.call("echo", b"x")
            self.assertEqual(caught.exception.name, "bad_token")


if __name__ == "__main__":
    unittest.main()
