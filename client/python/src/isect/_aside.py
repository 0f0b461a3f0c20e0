"""What a worker does beside its answers, on the same connection: it publishes messages, and has the
broker watch instances of its program."""

from __future__ import annotations

import itertools
import os
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from types import TracebackType
from typing import TYPE_CHECKING

from . import _tables as t
from ._errors import IsectError, UsageError, error, visible
from ._instances import ASKED, WATCHED, Watched, beat_frames
from ._request import as_bytes
from ._topics import message_body
from ._wire import Header, Lines, frame

if TYPE_CHECKING:
    from ._serve import ConnLink


class CurrentWorker:
    """The worker that this program is, for what it does beside its answers. `current_worker` gives
    it. The thread of a handler may call it; with an `async def` handler the thread of the loop."""

    def __init__(self, service: str) -> None:
        #: The service that it answers for.
        self.service = service
        #: Its id.
        self.id = 0
        self._link: ConnLink | None = None
        self._numbers = itertools.count(1)
        self._refused: list[IsectError] = []
        self._instances: dict[int, Watched] = {}
        self._without_id = 0
        #: Seconds between two beats, as the broker said last; 0 = it has not said.
        self._beat_every = 0.0
        self._beaten = 0.0

    def __repr__(self) -> str:
        return f"<isect.CurrentWorker {self.id} of {self.service}>"

    def publish(
        self,
        topic: str,
        payload: bytes | bytearray | memoryview | str = b"",
        *,
        retain: bool = False,
        while_connected: bool = False,
        expires: float | None = None,
        lines: Mapping[str, str] | None = None,
    ) -> None:
        """Publishes a message by the worker's own connection, and does not wait: a refusal is
        logged, and `refused` has it. The arguments are those of `Broker.publish`.

        Raises `Refused` (`bad_message`, `body_too_large`) if it breaks a rule, and
        `ConnectionFailed` if the connection is lost; nobody got it then."""
        kept = "connected" if while_connected else "yes" if retain else ""
        self._publish(message_body(topic, as_bytes(payload), retain=kept, lines=lines,
                                   expires=expires))

    def remove(self, topic: str) -> None:
        """Removes the value that is kept of a topic, and does not wait."""
        self._publish(message_body(topic, b"", removed="deleted"))

    def _publish(self, body: bytes) -> None:
        link = self._link
        if link is not None:
            most = link.limits.body_bytes_max
            if len(body) > most:
                raise error("body_too_large", f"a message of {len(body)} bytes with its lines "
                                              f"exceeds body_bytes_max {most}")
            link.write(frame(t.PUBLISH, body, sequence=self._number()))
        if link is None or link.lost is not None:
            raise error("broker_lost", "the connection of this worker is lost; it makes another "
                                       "one", ran="no")

    def refused(self) -> list[IsectError]:
        """The errors of messages and states that the broker refused, since this was asked last; at
        most the last thousand."""
        found, self._refused = self._refused, []
        return found

    def announce(
        self,
        name: str,
        *,
        id: int | None = None,
        type: str | int = "data",
        groups: Sequence[str] = (),
        activity_timeout: float | None = None,
        stalled: float | None = None,
        state: str | int = "running",
        addresses: Iterable[str] = (),
        meta: Mapping[str, str] | None = None,
        state_names: Mapping[int, str] | None = None,
    ) -> WorkerInstance:
        """Announces an instance of this program beside the worker itself, which the broker watches
        in any case. The arguments are those of `Broker.announce`.

        It does not wait: `is_watched` and `failure` of the instance say later what became of it.
        The worker beats for it while it waits; with one request at a time, a handler that works for
        longer than the time-out calls `checkpoint`. It is announced again after a loss of the
        connection. Raises `Refused` (`bad_instance`) if there is one with this id."""
        if id is None:
            id = os.getpid() + (self._without_id << 32)
            self._without_id += 1
        known = self._instances.get(id)
        if known is not None and known.failure is None:
            raise error("bad_instance", f"there is an instance with id {id} on this connection "
                                        "already")
        watched = Watched(name, id, type=type, groups=groups, activity_timeout=activity_timeout,
                          stalled=stalled, state=state, addresses=addresses, meta=meta,
                          state_names=state_names)
        self._instances[id] = watched
        self._write(watched.announce(self._number()))
        return WorkerInstance(self, watched)

    # What the worker calls.

    def _number(self) -> int:
        return next(self._numbers) % 2**32 or next(self._numbers)

    def _write(self, data: bytes) -> None:
        if self._link is not None and data:
            self._link.write(data)

    def _use(self, link: ConnLink) -> None:
        """Announces all instances again on a new connection."""
        self._link = link
        self.id = link.limits.worker
        self._beaten = 0.0
        for watched in list(self._instances.values()):
            if watched.failure is None:
                watched.lost()
                link.write(watched.announce(self._number()))
                if watched.text or watched.count:
                    link.write(watched.change(self._number()))

    def _announced(self, head: Header, body: bytes) -> None:
        """An `announced` or a `beat-ok` came."""
        lines = Lines.parse(body)
        if head.command == t.BEAT_OK:
            for number in lines.all("unknown"):
                if not (number.isascii() and number.isdigit()):
                    raise error("bad_frame", f"unknown is '{number[:40]}'; it is a number")
                found = self._instances.get(int(number[:20]))
                if found is not None:
                    found.unknown()
            return
        watched = self._instances.get(lines.number("id"))
        if watched is not None and watched.sequence == lines.number("sequence", 0):
            watched.announced(lines)
            self._beat_every = lines.number("beat_ms") / 1000

    def _failed(self, sequence: int, why: IsectError) -> None:
        # A copy, as the handlers' threads may announce meanwhile.
        for watched in list(self._instances.values()):
            if watched.sequence == sequence and watched.phase == ASKED:
                return watched.refuse(why)
        del self._refused[:-999]
        self._refused.append(why)

    def _beat_in(self, now: float) -> float | None:
        """Seconds until the next beat is due; None = no instance is watched."""
        if not self._beat_every or not any(
                w.phase == WATCHED for w in list(self._instances.values())):
            return None
        return max(0.0, self._beaten + self._beat_every - now)

    def _beat_if_due(self) -> None:
        now = monotonic()
        if self._beat_in(now) == 0.0:
            self._beaten = now
            for data in beat_frames(iter(self._number, None), list(self._instances.values())):
                self._write(data)


class WorkerInstance:
    """An instance of a worker's program that the broker watches, on the worker's own connection. A
    context manager that withdraws it, as failed if an exception leaves the block."""

    __slots__ = ("_worker", "_watched")

    def __init__(self, worker: CurrentWorker, watched: Watched) -> None:
        self._worker = worker
        self._watched = watched

    def __repr__(self) -> str:
        return f"<isect.WorkerInstance {visible(self._watched.name)} {self._watched.id}>"

    @property
    def id(self) -> int:
        """Its id."""
        return self._watched.id

    @property
    def is_watched(self) -> bool:
        """Whether the broker has said that it watches it."""
        return self._watched.phase == WATCHED

    @property
    def failure(self) -> IsectError | None:
        """Why the broker watches it no more, or never did; None = it does, or has not said."""
        return self._watched.failure

    def set_state(self, state: str | int, text: str = "") -> None:
        """Says that it has another state; of the text the first 80 characters count. Raises why the
        broker watches it no more."""
        self._watched.set_state(state, text)
        if self._watched.phase == WATCHED:
            self._worker._write(self._watched.change(self._worker._number()))

    def checkpoint(self, count: int | None = None) -> None:
        """Says that the work goes on: notes a checkpoint, any number that changes as it works (None
        = one more than before), and beats if that is due."""
        self._watched.go_on(count)
        self._worker._beat_if_due()

    def idle(self, is_idle: bool = True) -> None:
        """Says whether it has nothing to do, so that its checkpoint need not change."""
        self._watched.is_idle = is_idle
        self._worker._beat_if_due()

    def withdraw(self, text: str = "", *, failed: bool = False) -> None:
        """Ends it in order, or because of a failure. Twice is no error."""
        worker, watched = self._worker, self._watched
        if worker._instances.get(watched.id) is watched:
            del worker._instances[watched.id]
        if watched.failure is None:
            watched.refuse(UsageError("bad_state", "this instance was withdrawn"))
            worker._write(watched.withdraw(worker._number(), failed, text))

    def __enter__(self) -> WorkerInstance:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.withdraw("" if kind is None else kind.__name__, failed=kind is not None)
