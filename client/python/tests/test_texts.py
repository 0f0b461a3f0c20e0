"""Texts that come from elsewhere and are shown: a terminal must find nothing in them to obey."""

from __future__ import annotations

import asyncio
import io
import logging
import traceback
import unittest

import isect.aio
from client_support import TIMEOUT, Peer, Played
from isect import _tables as t
from isect._errors import IsectError, error, visible
from isect._wire import Header, Lines, error_of, frame

#: What terminals obey, or show as what it is not.
CORPUS = [
    "\x1b[2J\x1b[31m", "\x1b]0;title\x07", "\x1b]8;;http://x\x1b\\\\", "all fine\rno", "a\nb",
    "a\n\nb", "\x08\x08", "\x00", "\x7f", "\x9b31m", "\x85", "\u2028", "\u202ereversed",
    "\u2066a\u2069", "\u200f", "\u061c", "\ufeff", "\u200b", "\u00ad", "\U000e0001", "\t",
    "\x0b\x0c",
]

FORMAT = logging.Formatter("%(levelname)s %(name)s %(message)s")


class Kept(logging.Handler):
    """Keeps what is logged, as it is shown."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(FORMAT.format(record))


def refusal(sequence: int, code: int, text: str, **lines: str) -> bytes:
    pairs = [("code", str(code)), *lines.items()]
    return frame(t.ERROR, Lines(pairs, text).bytes(), sequence=sequence, error=code)


class Texts(unittest.TestCase):
    def setUp(self) -> None:
        self.kept = Kept()
        log = logging.getLogger("isect")
        level = log.level
        log.setLevel(logging.DEBUG)
        log.addHandler(self.kept)
        self.addCleanup(log.removeHandler, self.kept)
        self.addCleanup(log.setLevel, level)

    def check(self, why: BaseException) -> None:
        """An error as it may be shown."""
        self.assertIsInstance(why, IsectError)
        for shown in (str(why), repr(why), str(why.args), f"{why}"):
            self.assertTrue(shown.isprintable(), ascii(shown))
        said = io.StringIO()
        traceback.print_exception(type(why), why, None, file=said)
        self.assertTrue(said.getvalue().rstrip("\n").isprintable(), ascii(said.getvalue()))

    def check_log(self) -> None:
        for line in self.kept.lines:
            self.assertTrue(line.isprintable(), ascii(line))

    def test_one_filter_has_them_all(self) -> None:
        for text in CORPUS:
            self.assertTrue(visible(text).isprintable(), ascii(text))
        self.assertEqual(visible("\x1b[31m\u202e\r"), "\\x1b[31m\\u202e\\r")
        self.assertEqual(visible("Grüße, 東京"), "Grüße, 東京")

    def test_each_part_of_an_error(self) -> None:
        for text in CORPUS:
            for code in (-1, -2, -23, -9999):
                for part in ("text", "name", "whose", "ran", "advice"):
                    lines = {} if part == "text" else {part: text}
                    body = Lines(list(lines.items()), text if part == "text" else "").bytes()
                    head = Header(len(body), 1, 0, code, t.ERROR, 2, 0, 0, 0, 0, 0, 0, 0,
                                  bytes(16), 0)
                    try:
                        self.check(error_of(head, body))
                    except IsectError as why:
                        self.check(why)
        self.check(error("broker_lost", "text", context="\x1b[31m"))
        self.assertIn("newer_error -9999", str(IsectError("newer_error", "text", code=-9999)))

    def test_what_a_broker_and_a_worker_say(self) -> None:
        for text in CORPUS:
            with self.subTest(ascii(text)), Played(lambda peer, number: self.speaks(peer, text)) \
                    as played:
                with played.connect() as broker:
                    for _ in range(2):
                        with self.assertRaises(IsectError) as caught:
                            broker.call("echo", b"", timeout=TIMEOUT)
                        self.check(caught.exception)
                    with self.assertRaises(IsectError) as caught:
                        broker.subscribe("a")
                    self.check(caught.exception)
                    broker.publish("a", b"")
                    for why in broker.sync_bus():
                        self.check(why)
                    for form in (False, True):
                        with self.assertRaises(IsectError) as caught:
                            broker.command("x", json=form)
                        self.check(caught.exception)
                asyncio.run(self.speaks_to_asyncio(played.address))
        self.check_log()
        self.assertTrue(any("refused" in line for line in self.kept.lines))

    async def speaks_to_asyncio(self, address: str) -> None:
        async with isect.aio.connect(address, verify=False) as broker:
            for _ in range(2):
                with self.assertRaises(IsectError) as caught:
                    await broker.call("echo", b"", timeout=TIMEOUT)
                self.check(caught.exception)
            with self.assertRaises(IsectError) as caught:
                await broker.subscribe("a")
            self.check(caught.exception)
            await broker.publish("a", b"")
            for why in await broker.sync_bus():
                self.check(why)
            with self.assertRaises(IsectError) as caught:
                await broker.command("x")
            self.check(caught.exception)

    def speaks(self, peer: Peer, text: str) -> None:
        """A broker that says this text wherever it may."""
        found = peer.take()
        if found is None:
            return
        if b"service op" in found[1]:
            peer.raw(refusal(0, -10, text, advice=text, name=text))
            return
        peer.send(t.LOGIN_OK, Lines([("client", "1"), ("body_bytes_max", "1000"),
                                     ("version", text)]).bytes())
        count = 0
        while (found := peer.take()) is not None:
            head, body = found
            if head.command == t.DATA and not count:
                peer.send(t.DATA, text.encode(), sequence=head.sequence, error=7)
            elif head.command == t.SUBSCRIBE:
                number = int(Lines.parse(body).get("subscription"))
                peer.raw(refusal(number, -10, text, advice=text))
            elif head.command == t.PUBLISH:
                peer.raw(refusal(head.sequence, -10, text, advice=text, whose=text))
            elif head.command == t.FLUSH:
                peer.send(t.FLUSHED, b"flush %d\n" % head.sequence)
            elif head.command == t.DATA:
                # It closes with a word of its own, which no client knows.
                peer.raw(refusal(head.sequence, -23, text, advice=text, ran="no"))
            count += 1
