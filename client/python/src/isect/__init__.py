"""Client and worker library of isect.

    with isect.connect() as broker:
        print(broker.call("echo", b"hello", timeout=2))
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
    from . import aio as aio
    from ._address import Address as Address
    from ._aside import CurrentWorker as CurrentWorker, WorkerInstance as WorkerInstance
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
    from ._sync import (
        Broker as Broker,
        Conversation as Conversation,
        Instance as Instance,
        Stream as Stream,
        Subscription as Subscription,
        connect as connect,
    )
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

#: Where the names are that are imported when they are first used.
_WHERE = {
    "Address": "_address",
    "AsyncRequest": "_program",
    "Broker": "_sync",
    "CaughtUp": "_topics",
    "Conversation": "_sync",
    "CurrentWorker": "_aside",
    "Failure": "_program",
    "Future": "_future",
    "Instance": "_sync",
    "Lost": "_topics",
    "Message": "_topics",
    "Missing": "_topics",
    "Position": "_topics",
    "Receipt": "_topics",
    "Request": "_program",
    "Resumed": "_topics",
    "Stream": "_sync",
    "Subscription": "_sync",
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
