#!/usr/bin/env python3
"""A client: it asks a service for each word of the command line.

    caller.py upper hello world
"""

from __future__ import annotations

import sys

import isect


def main(service: str, words: list[str]) -> int:
    """Asks one by one, then all at once; the exit status."""
    with isect.connect() as broker:
        for word in words:
            try:
                print(broker.call(service, word, timeout=5).decode())
            except isect.IsectError as e:
                print(f"{word}: {e}", file=sys.stderr)
                return 1
        answers = [broker.submit(service, word, timeout=5) for word in words]
        print(*[answer.result().decode() for answer in answers])
    return 0


if __name__ == "__main__":
    if len(sys.argv) < 2:
        sys.exit(__doc__)
    sys.exit(main(sys.argv[1], sys.argv[2:]))
