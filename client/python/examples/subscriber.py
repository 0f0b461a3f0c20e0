#!/usr/bin/env python3
"""A subscriber: it prints the messages of all topics that match a pattern, so many and no more.

    subscriber.py 'orders.>' 3
"""

from __future__ import annotations

import sys

import isect


def main(pattern: str, count: int) -> None:
    """Prints `count` messages. What is kept of the topics comes first."""
    with isect.connect() as broker, broker.subscribe(pattern) as messages:
        for message in messages:
            old = " (from before)" if message.is_before else ""
            print(f"{message.topic}: {message.payload.decode()}{old}", flush=True)
            count -= 1
            if count == 0:
                break


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit(__doc__)
    main(sys.argv[1], int(sys.argv[2]))
