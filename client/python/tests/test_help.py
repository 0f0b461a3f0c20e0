"""What a person is told who mistypes something, and what `help` shows."""

from __future__ import annotations

import asyncio
import pydoc
import unittest

import isect
import isect.aio
import isect.testing
from isect._wire import Header, Lines, error_of


class Texts(unittest.TestCase):
    """Each text says what is wrong, and what would be right, in the words of this library."""

    def test_help_shows_each_public_name(self) -> None:
        shown = pydoc.plain(pydoc.render_doc(isect))
        for name in isect.__all__:
            self.assertTrue(name in shown, name)
            self.assertTrue(getattr(isect, name).__doc__, name)
        for text in (isect.connect.__doc__, isect.run.__doc__, isect.Broker.call.__doc__):
            self.assertTrue(text and text.partition("\n")[0] in shown, text)
        self.assertLessEqual(set(isect._WHERE), set(isect.__all__))

    def test_the_brokers_errors_keep_the_advice_of_the_table(self) -> None:
        head = Header(0, 1, 0, -26, 0, 1, 0, 0, 0, 0, 0, 0, 0, bytes(16), 0)
        said = error_of(head, Lines(text="'servces' is no command").bytes())
        self.assertIn("'help' lists the commands", said.advice)

    def test_a_forgotten_await_is_named(self) -> None:
        async def forgets() -> None:
            with self.assertRaisesRegex(AttributeError, "'call'.*await"):
                getattr(isect.aio.connect("unix:/nowhere"), "call")

        asyncio.run(forgets())


if __name__ == "__main__":
    unittest.main()
