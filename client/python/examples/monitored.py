#!/usr/bin/env python3
"""A program that the broker watches: it says what it is at, and how far it is. `isdclient -c
instances` shows it, also if it hangs or dies.

    monitored.py nightly 1000
"""

from __future__ import annotations

import sys

import isect


def main(name: str, steps: int) -> None:
    """Does so many steps. If none is done for 30 seconds, the broker says that it is stalled."""
    with isect.connect() as broker, broker.announce(name, stalled=30.0) as instance:
        for step in range(1, steps + 1):
            # … the work of one step
            instance.checkpoint(step)
        # Numbers from 100 on are states of the program's own, with a text.
        instance.set_state(100, "exporting")
        print(broker.command(f"instance {name}"))


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]))
