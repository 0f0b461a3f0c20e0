"""Client and worker library of isect, which hands each request to exactly one idle worker process.

A program that asks:

    with isect.connect() as broker:
        print(broker.call("echo", b"hello", timeout=2))

A worker, which the broker starts:

    @isect.worker
    def handle(request: isect.Request) -> bytes:
        return request.body

    isect.run(handle)

| to … | see |
| --- | --- |
| ask, publish, subscribe, announce, give operator's commands | `connect`, which gives a `Broker` |
| answer | `worker`, `run`, `Request`, `Failure`, `current_worker`, `arguments` |
| do both in asyncio programs | `isect.aio.connect`, `AsyncRequest` |
| know what went wrong | `IsectError` and what is derived from it |
| test with a real broker | `isect.testing.broker` |

The README of the package goes through all of it.
"""

from __future__ import annotations

from importlib import import_module as _import_module
from typing import TYPE_CHECKING, Any

from ._errors import (
    ConnectionFailed as ConnectionFailed,
    DeadlineExceeded as DeadlineExceeded,
    ForkedError as ForkedError,
    IsectError as IsectError,
    MissingExtra as MissingExtra,
    Refused as Refused,
    RequestFailed as RequestFailed,
    UsageError as UsageError,
    WorkerFailed as WorkerFailed,
)

if TYPE_CHECKING:
    from . import aio as aio, testing as testing
    from ._address import Address as Address
    from ._aside import CurrentWorker as CurrentWorker, WorkerInstance as WorkerInstance
    from ._bus import Instance as Instance, Subscription as Subscription
    from ._future import Future as Future
    from ._program import (
        AsyncRequest as AsyncRequest,
        Failure as Failure,
        Request as Request,
        arguments as arguments,
        current_worker as current_worker,
        run as run,
        worker as worker,
    )
    from ._stream import Conversation as Conversation, Stream as Stream
    from ._sync import Broker as Broker, connect as connect
    from ._token import Token as Token
    from ._topics import (
        CaughtUp as CaughtUp,
        Lost as Lost,
        Message as Message,
        Missing as Missing,
        Position as Position,
        Receipt as Receipt,
        Resumed as Resumed,
    )

__all__ = [
    "Address", "AsyncRequest", "Broker", "CaughtUp", "ConnectionFailed", "Conversation",
    "CurrentWorker", "DeadlineExceeded", "Failure", "ForkedError", "Future", "Instance",
    "IsectError", "Lost", "Message", "Missing", "MissingExtra", "Position", "Receipt", "Refused",
    "Request", "RequestFailed", "Resumed", "Stream", "Subscription", "Token", "UsageError",
    "WorkerFailed", "WorkerInstance", "aio", "arguments", "connect", "current_worker", "run",
    "testing", "worker",
]

#: Where the names are that are imported when they are first used.
_WHERE = {
    "Address": "_address",
    "AsyncRequest": "_program",
    "Broker": "_sync",
    "CaughtUp": "_topics",
    "Conversation": "_stream",
    "CurrentWorker": "_aside",
    "Failure": "_program",
    "Future": "_future",
    "Instance": "_bus",
    "Lost": "_topics",
    "Message": "_topics",
    "Missing": "_topics",
    "Position": "_topics",
    "Receipt": "_topics",
    "Request": "_program",
    "Resumed": "_topics",
    "Stream": "_stream",
    "Subscription": "_bus",
    "Token": "_token",
    "WorkerInstance": "_aside",
    "aio": "aio",
    "arguments": "_program",
    "connect": "_sync",
    "current_worker": "_program",
    "run": "_program",
    "testing": "testing",
    "worker": "_program",
}


def __getattr__(name: str) -> Any:
    where = _WHERE.get(name)
    if where is None:
        raise AttributeError(f"module 'isect' has no attribute '{name}'")
    module = _import_module(f"{__name__}.{where}")
    found = module if where == name else getattr(module, name)
    globals()[name] = found
    return found


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
