#!/usr/bin/env python3
"""A worker that asks another service: the calls have at most the time that the request has left,
and its trace, without being told.

Its configuration names that service: `config worker shout localhost …/nested.py upper`.
"""

from __future__ import annotations

import isect

_broker = isect.connect()


@isect.worker
def handle(request: isect.Request) -> bytes:
    """Answers one request."""
    service = isect.arguments()[0]
    # May be asked again if its worker dies, because it changes nothing.
    return _broker.call(service, request.body, idempotent=True) + b"!"


if __name__ == "__main__":
    isect.run(handle)
