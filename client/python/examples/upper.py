#!/usr/bin/env python3
"""A worker: it answers each request with its text in capital letters.

Tell the broker to start it:

    isdclient -c "config service upper" -c "config worker upper localhost $PWD/upper.py"
    isdclient -c "start upper"
"""

from __future__ import annotations

import isect


@isect.worker
def handle(request: isect.Request) -> bytes:
    """Answers one request."""
    if not request.body:
        # The client gets a WorkerFailed with this code.
        raise isect.Failure(1, "there is nothing to write in capital letters")
    return request.body.upper()


if __name__ == "__main__":
    isect.run(handle)
