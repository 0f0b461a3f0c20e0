#!/usr/bin/env python3
"""A worker with asyncio: it has up to 100 requests at a time, and waits as many milliseconds as
each says.
"""

from __future__ import annotations

import asyncio

import isect


@isect.worker(concurrency=100)
async def handle(request: isect.AsyncRequest) -> str:
    """Answers one request. If nobody waits for the answer any more, it is cancelled."""
    await asyncio.sleep(int(request.text) / 1000)
    return f"waited {request.text} ms"


if __name__ == "__main__":
    isect.run(handle)
