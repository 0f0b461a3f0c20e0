"""Messages, subscriptions and instances of the blocking front."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from time import monotonic
from typing import TYPE_CHECKING

from ._arguments import end_of
from ._errors import DeadlineExceeded, IsectError, error, visible, with_ran
from ._instances import WATCHED, Watched
from ._link import Link
from ._slot import Ask
from ._topics import CaughtUp, Lost, Message, Missing, Position, Receipt, Topic, TopicEvent
from ._traffic import forked

if TYPE_CHECKING:
    from types import TracebackType

    from ._sync import Broker


def publish(link: Link, body: bytes, wait: bool) -> Receipt | None:
    """Publishes a message (`_topics.message_body`), and waits for its receipt if that is wanted."""
    until = monotonic() + link.options.timeout
    if link.pipe is None:
        link.ensure(until)
    slot = Ask() if wait else None
    with link.lock:
        link.check_open()
        sequence, made = link.session.publish(slot, body)
        link.write(made)
        if slot is None:
            link.has_published = True
    if link.outbox:
        link.drain(until)
    if slot is None:
        return None
    slot.sequence = sequence
    if not link.wait(slot, until):
        with link.lock:
            link.session.forget(sequence)
        raise _unanswered(link, "a publish", "maybe")
    return slot.result()  # type: ignore[no-any-return]


def open_topic(broker: Broker, link: Link, topic: Topic) -> Subscription:
    """Subscribes, and waits until the broker has accepted it."""
    until = monotonic() + link.options.timeout
    link.ensure(until)
    with link.lock:
        made = link.session.subscribe(topic)
        if made:
            link.write(made)
    if not link.wait(topic, until, lambda: topic.is_open or topic.failure is not None):
        with link.lock:
            out = link.session.unsubscribe(topic)
            if out:
                link.write(out)
        raise _unanswered(link, "a subscribe", "no")
    if topic.failure is not None:
        raise topic.failure
    return Subscription(broker, link, topic)


def open_instance(
    broker: Broker, link: Link, id: int | None, make: Callable[[int], Watched]
) -> Instance:
    """Announces the instance that `make` makes of an id, and waits until the broker watches it."""
    until = monotonic() + link.options.timeout
    link.ensure(until)
    with link.lock:
        watched = make(link.session.free_id(os.getpid()) if id is None else id)
        made = link.session.announce(watched)
        if made:
            link.write(made)
    if not link.wait(watched, until,
                     lambda: watched.phase == WATCHED or watched.failure is not None):
        with link.lock:
            out = link.session.withdraw(watched, True, "")
            if out:
                link.write(out)
        raise _unanswered(link, "an announce", "no")
    if watched.failure is not None:
        raise watched.failure
    return Instance(broker, link, watched)


def _unanswered(link: Link, what: str, ran: str) -> IsectError:
    return DeadlineExceeded("timeout", f"the broker did not answer {what} within "
                                       f"{link.options.timeout:g} s", ran=ran)


class Subscription:
    """The messages of all topics that match a pattern. An iterator that waits without end, and a
    context manager. After a loss of the connection it goes on after the last message. Threads may
    share it: each message goes to one of them."""

    __slots__ = ("_broker", "_link", "_topic", "_is_closed", "missing", "on_event", "_dropped")

    def __init__(self, broker: Broker, link: Link, topic: Topic) -> None:
        # A broker that nobody has any more closes its connections.
        self._broker = broker
        self._link = link
        self._topic = topic
        self._is_closed = False
        self._dropped = 0
        #: What could not be had any more, of the last time that this was so; None = nothing.
        self.missing: Missing | None = None
        #: Called with each event that is no message (`CaughtUp`, `Missing`, `Lost`, `Resumed`), by
        #: the thread that receives.
        self.on_event: Callable[[TopicEvent], object] | None = None

    def __repr__(self) -> str:
        return f"<isect.Subscription to {visible(self._topic.pattern)}>"

    @property
    def pattern(self) -> str:
        """The pattern."""
        return self._topic.pattern

    @property
    def position(self) -> Position | None:
        """From where a program goes on that has done all that came until now; None = nothing has
        come yet. `str` of it is `EPOCH:NUMBER`."""
        return self._topic.position

    def event(self, timeout: float | None = None) -> TopicEvent | None:
        """The next event: a `Message`, `CaughtUp`, `Missing`, `Lost` or `Resumed`; None = none came
        within `timeout` seconds (None = wait without end). Raises why it has ended."""
        topic = self._topic
        link = self._link
        until = end_of(timeout)
        found: list[TopicEvent] = []

        def ready() -> bool:
            one = topic.take()
            if one is not None:
                found.append(one)
            return one is not None or topic.failure is not None

        try:
            is_there = link.wait(topic, until, ready)
        except IsectError:
            if self._has_been_closed:
                raise error("not_found", "this subscription was closed") from None
            raise
        if found:
            return found[0]
        if self._has_been_closed:
            raise error("not_found", "this subscription was closed")
        if is_there and topic.failure is not None:
            raise with_ran(topic.failure, topic.failure.ran)
        return None

    def receive(self, timeout: float | None = None) -> Message | None:
        """The next message; None = none came within `timeout` seconds (None = wait without end).
        Raises why the subscription has ended."""
        until = end_of(timeout)
        while True:
            left = None if until is None else max(0.0, until - monotonic())
            one = self.event(left)
            if one is None:
                return None
            if isinstance(one, Message):
                if self._dropped:
                    one = one._replace(dropped=one.dropped + self._dropped)
                    self._dropped = 0
                return one
            if isinstance(one, CaughtUp):
                self._dropped += one.dropped
            elif isinstance(one, Missing):
                self.missing = one
            elif isinstance(one, Lost):
                pass
            if self.on_event is not None:
                self.on_event(one)

    def __iter__(self) -> Iterator[Message]:
        return self

    def __next__(self) -> Message:
        if self._has_been_closed:
            raise StopIteration
        try:
            one = self.receive()
        except IsectError:
            if self._has_been_closed:
                raise StopIteration from None
            raise
        if one is None:
            raise StopIteration
        return one

    @property
    def _has_been_closed(self) -> bool:
        """Whether the program has ended it."""
        return self._is_closed or self._link.is_closed

    def close(self) -> None:
        """Ends the subscription; what waits is dropped. Closing twice is no error."""
        self._end()

    def unsubscribe(self) -> tuple[int, int]:
        """As `close`, and waits for the broker's answer: how many messages it sent, and how many it
        did not."""
        topic = self._topic
        self._end()
        until = monotonic() + self._link.options.timeout
        if not self._link.wait(topic, until, lambda: topic.has_ended):
            raise _unanswered(self._link, "an unsubscribe", "maybe")
        return topic.delivered, topic.dropped_there

    def _end(self) -> None:
        link = self._link
        with link.lock:
            if self._is_closed:
                return
            self._is_closed = True
            if link.is_forked:
                return
            out = link.session.unsubscribe(self._topic)
            if out and link.pipe is not None:
                link.write(out)
            if self._topic.failure is None:
                self._topic.failure = error("not_found", "this subscription was closed")
            link.wake(self._topic)

    def __enter__(self) -> Subscription:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        try:
            if not self._is_closed:
                self._link.disown(self._topic)
        except AttributeError:
            # It was never whole.
            pass


class Instance:
    """An instance of this program that the broker watches. A context manager that withdraws it, as
    failed if an exception leaves the block. Threads may share it."""

    __slots__ = ("_broker", "_link", "_watched")

    def __init__(self, broker: Broker, link: Link, watched: Watched) -> None:
        self._broker = broker
        self._link = link
        self._watched = watched

    def __repr__(self) -> str:
        return f"<isect.Instance {visible(self._watched.name)} {self._watched.id}>"

    @property
    def id(self) -> int:
        """Its id."""
        return self._watched.id

    @property
    def incarnation(self) -> int:
        """Tells this announcement from earlier ones of the same name and id."""
        return self._watched.incarnation

    @property
    def displaced(self) -> bool:
        """Whether an earlier instance of this name and id was ended for it."""
        return self._watched.displaced

    @property
    def activity_timeout(self) -> float:
        """The time-out in force, in seconds."""
        return self._watched.activity_timeout

    @property
    def is_watched(self) -> bool:
        """Whether the broker watches it now."""
        return self._watched.phase == WATCHED

    @property
    def failure(self) -> IsectError | None:
        """Why the broker watches it no more; None = it does, or will when it is connected again.
        One that was displaced is known from the next beat on."""
        return self._watched.failure

    def set_state(self, state: str | int, text: str = "") -> None:
        """Says that it has another state; of the text the first 80 characters count. It counts as a
        beat. Without a connection the next one is told. Raises why the broker watches it no
        more."""
        link = self._link
        with link.lock:
            if link.is_forked:
                raise forked()
            made = link.session.set_state(self._watched, state, text)
            if made and link.pipe is not None:
                link.write(made)

    def checkpoint(self, count: int | None = None) -> None:
        """Says that the work goes on: notes a checkpoint, any number that changes as it works (None
        = one more than before), and beats for all instances if that is due. Call it from the loop
        that does the work, as often as you like."""
        self._watched.go_on(count)
        self._broker.beat_if_due()

    def idle(self, is_idle: bool = True) -> None:
        """Says whether it has nothing to do, so that its checkpoint need not change; and beats if
        that is due."""
        self._watched.is_idle = is_idle
        self._broker.beat_if_due()

    def withdraw(self, text: str = "", *, failed: bool = False) -> None:
        """Ends it in order, or because of a failure. Twice is no error."""
        link = self._link
        with link.lock:
            made = link.session.withdraw(self._watched, failed, text)
            if made and link.pipe is not None:
                link.write(made)

    def __enter__(self) -> Instance:
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None,
                 traceback: TracebackType | None) -> None:
        self.withdraw("" if kind is None else kind.__name__, failed=kind is not None)
