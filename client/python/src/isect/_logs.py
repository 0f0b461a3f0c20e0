"""The loggers of the library, `isect` and `isect.*`. They say nothing unless the program sets
logging up. The module `logging` is imported with the first line: it takes long."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import logging


_known: dict[str, logging.Logger] = {}


def logger(name: str = "isect") -> logging.Logger:
    """A logger of the library."""
    found = _known.get(name)
    if found is None:
        import logging

        root = logging.getLogger("isect")
        if not root.handlers:
            root.addHandler(logging.NullHandler())
        found = _known[name] = logging.getLogger(name)
    return found


def log(level: int, text: str, *values: object) -> None:
    """Logs a line, if the program has anything to do with logging: it is not imported for that, as
    an interrupt in the middle of an import would stop every thread that imports it."""
    if "logging" in sys.modules:
        logger().log(level, text, *values)
