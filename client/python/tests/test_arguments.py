"""What a program may give by mistake: each argument of each method, in both fronts, with values of
all kinds. The program gets an error of isect that names what is wrong, and what it does next goes
well."""

from __future__ import annotations

import asyncio
import inspect
import math
import unittest
from collections.abc import Awaitable, Callable
from typing import Any

import isect
import isect.aio
from client_support import RealBroker, program
from isect._errors import IsectError

ODD: list[Any] = [
    None, 0, -1, 1.5, math.nan, math.inf, -math.inf, 1e300, 10**5000, True, "", "é\n\x1b[31m\u202e",
    "a" * 70_000, "\ud800", b"x", bytearray(b"y"), [], ["a"], {}, {1: 2}, {"a\nb": "c\nd"},
    {"x": "\ud800"}, object(), print, 1j, memoryview(b"z"), memoryview(bytes(8)).cast("I"),
    "9" * 5000,
]

REQUEST: dict[str, Any] = {"service": "echo", "body": b"x", "timeout": 1, "extendable": False,
                           "priority": 0, "trace_id": None, "span_id": 0}
#: The arguments of each method; one after the other gets each odd value.
METHODS: dict[str, dict[str, Any]] = {
    "call": {**REQUEST, "idempotent": False},
    "submit": {**REQUEST, "idempotent": False},
    "stream": {**REQUEST, "idempotent": False},
    "converse": {**REQUEST, "more": False},
    "send": {**{key: REQUEST[key] for key in REQUEST if key != "extendable"}, "idempotent": False},
    "send_pieces": {**{key: REQUEST[key] for key in REQUEST if key != "body"}, "pieces": [b"x"]},
    "flush": {"timeout": 1},
    "command": {"text": "services", "json": False, "timeout": 1},
    "publish": {"topic": "a.b", "payload": b"x", "retain": True, "while_connected": False,
                "expires": None, "lines": None, "wait": True},
    "remove": {"topic": "a.b"},
    "subscribe": {"pattern": "a.*", "retained": True, "start": None, "queue_max": 10,
                  "queue_bytes_max": 1000},
    "announce": {"name": "i", "id": None, "type": "data", "groups": (), "activity_timeout": None,
                 "stalled": None, "state": "running", "addresses": (), "meta": None,
                 "state_names": None},
}
CONNECT: dict[str, Any] = {
    "address": None, "token": None, "token_file": None, "ca": None, "cert": None, "key": None,
    "name": None, "priority": 128, "timeout": 10.0, "reply_bytes_max": 1 << 20,
}
#: What is called on what `subscribe`, `announce` and `converse` return.
PARTS: list[tuple[str, str, dict[str, Any]]] = [
    ("subscribe", "receive", {"timeout": 0}),
    ("subscribe", "event", {"timeout": 0}),
    ("announce", "set_state", {"state": "running", "text": ""}),
    ("announce", "checkpoint", {"count": None}),
    ("announce", "withdraw", {"text": ""}),
    ("converse", "receive", {"timeout": 0}),
    ("converse", "send", {"body": b""}),
]


def waits_for_ever(method: str, name: str, value: Any) -> bool:
    """Whether a call that is right waits for something that never comes."""
    return (method in ("receive", "event") and name == "timeout"
            and (value is None or (isinstance(value, (int, float)) and value > 1)))


@unittest.skipUnless(program("isectd"), "isectd is not installed")
class Odd(unittest.TestCase):
    """All of it, with a real broker."""

    broker: RealBroker
    address: str

    @classmethod
    def setUpClass(cls) -> None:
        cls.broker = RealBroker()
        cls.addClassCleanup(cls.broker.close)
        cls.broker.serve("echo")
        cls.address = cls.broker.ports["client_unix"]

    def judge(self, what: str, name: str, value: Any, act: Callable[[], object]) -> None:
        with self.subTest(f"{what}({name}={str(type(value))} {ascii(value)[:40]})"
                          if not isinstance(value, int) else f"{what}({name}: int)"):
            try:
                act()
            except IsectError as why:
                self.assertTrue((str(why) + repr(why)).isprintable(), ascii(str(why)))

    def test_the_blocking_client(self) -> None:
        for name in CONNECT:
            for value in ODD:
                def connects(name: str = name, value: Any = value) -> None:
                    isect.connect(**{"address": self.address, **{name: value}}).close()

                if not (name == "address" and value is None):
                    self.judge("connect", name, value, connects)
        with isect.connect(self.address) as broker:
            for method, usual in METHODS.items():
                for name in usual:
                    for value in ODD:
                        self.judge(method, name, value,
                                   lambda: self.ends(getattr(broker, method)(  # noqa: B023
                                       **{**usual, name: value})))  # noqa: B023
            for maker, method, usual in PARTS:
                for name in usual:
                    for value in ODD:
                        if not waits_for_ever(method, name, value):
                            with getattr(broker, maker)(**METHODS[maker]) as made:
                                self.judge(method, name, value,
                                           lambda: getattr(made, method)(  # noqa: B023
                                               **{**usual, name: value}))  # noqa: B023
            for value in ODD:
                future = broker.submit("echo", b"x")
                future.result()
                self.judge("result", "timeout", value,
                           lambda: future.result(value))  # noqa: B023
            self.assertEqual(broker.call("echo", b"after all"), b"after all")
            broker.publish("a.b", b"after all", wait=True)
            with broker.announce("after-all"):
                pass

    def ends(self, made: Any) -> None:
        """Waits for the answer, if there is one, and ends what goes on."""
        if isinstance(made, isect.Future):
            made.result(5)
        elif isinstance(made, isect.Conversation) or hasattr(made, "__exit__"):
            made.__exit__(None, None, None)

    def test_the_asyncio_client(self) -> None:
        asyncio.run(self.asks())

    async def judged(
        self, what: str, name: str, value: Any, act: Callable[[], Awaitable[object]]
    ) -> None:
        caught: list[BaseException] = []
        try:
            await asyncio.wait_for(act(), 5)
        except Exception as why:
            caught.append(why)

        def tell() -> None:
            if caught:
                raise caught[0]

        self.judge(f"aio {what}", name, value, tell)

    async def asks(self) -> None:
        for name in CONNECT:
            for value in ODD:
                async def connects(name: str = name, value: Any = value) -> None:
                    await (await isect.aio.connect(
                        **{"address": self.address, **{name: value}})).close()

                if not (name == "address" and value is None):
                    await self.judged("connect", name, value, connects)
        async with isect.aio.connect(self.address) as broker:
            for method, usual in METHODS.items():
                for name in usual:
                    for value in ODD:
                        async def asks() -> None:
                            made = getattr(broker, method)(  # noqa: B023
                                **{**usual, name: value})  # noqa: B023
                            if inspect.isawaitable(made):
                                made = await made
                            if hasattr(made, "__aexit__"):
                                await made.__aexit__(None, None, None)

                        await self.judged(method, name, value, asks)
            for maker, method, usual in PARTS:
                for name in usual:
                    for value in ODD:
                        if waits_for_ever(method, name, value):
                            continue
                        async with getattr(broker, maker)(**METHODS[maker]) as made:
                            async def does() -> None:
                                done = getattr(made, method)(  # noqa: B023
                                    **{**usual, name: value})  # noqa: B023
                                if inspect.isawaitable(done):
                                    await done

                            await self.judged(method, name, value, does)
            self.assertEqual(await broker.call("echo", b"after all"), b"after all")
            await broker.publish("a.b", b"after all", wait=True)
            async with broker.announce("after-all"):
                pass
