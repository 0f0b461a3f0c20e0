#!/usr/bin/env python3
"""A conversation: client and worker send several frames each. The worker adds up what comes, and
says the sum after each number.

    conversation.py ask sum 1 2 39     # as a client
"""

from __future__ import annotations

import sys

import isect


@isect.worker
def handle(request: isect.Request) -> str:
    """Answers one conversation; what it returns is its end."""
    total = 0
    for piece in request.pieces():
        total += int(piece)
        if request.more:
            request.reply_piece(str(total))
    return str(total)


def ask(service: str, numbers: list[str]) -> None:
    """Sends the numbers one by one and waits for each sum."""
    first, *others = numbers
    with isect.connect() as broker, broker.converse(service, first, more=bool(others),
                                                    timeout=10) as talk:
        for total in talk:
            print(total.decode())
            if others:
                number = others.pop(0)
                talk.send(number, more=bool(others))


if __name__ == "__main__":
    if sys.argv[1:2] != ["ask"]:
        isect.run(handle)
    elif len(sys.argv) < 4:
        sys.exit(__doc__)
    else:
        ask(sys.argv[2], sys.argv[3:])
