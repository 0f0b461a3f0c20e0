"""Subscriptions and instances of an asyncio program."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable
from types import TracebackType

from ._aio_link import Link
from ._arguments import span
from ._errors import IsectError, error, visible, with_ran
from ._instances import ASKED, WATCHED, Watched
from ._logs import logger
from ._topics import CaughtUp, Message, Missing, Position, Topic, TopicEvent

log = logger("isect.aio")

#: What a program may have called for each message.
Callback = Callable[[Message], object]


class TopicHere(Topic):
    """The state of a subscription, and who waits for it."""

    __slots__ = ("waiters", "callback", "front")

    waiters: list[asyncio.Future[None]]
    callback: Callback | None
    front: Subscription

    def news(self) -> None:
        """Something came."""
        if self.waiters:
            wake(self)
        elif self.callback is not None:
            self.call_back(self.callback)

    def call_back(self, callback: Callback) -> None:
        """Gives all that has come to the callback."""
        while (event := self.take()) is not None:
            try:
                if event.__class__ is Message:
                    callback(event)
                else:
                    self.front._note(event)
            except Exception:
                log.exception("the callback of the subscription to %s failed",
                              visible(self.pattern))


class WatchedHere(Watched):
    """The state of an instance, and who waits for it."""

    __slots__ = ("waiters",)

    waiters: list[asyncio.Future[None]]

    def news(self) -> None:
        """Something came."""
        wake(self)


def wake(what: TopicHere | WatchedHere) -> None:
    """Wakes all tasks that wait for it."""
    waiters, what.waiters = what.waiters, []
    for waiter in waiters:
        if not waiter.done():
            waiter.set_result(None)


async def changed(link: Link, what: TopicHere | WatchedHere, timeout: float | None) -> None:
    """Waits until something came for it, or the time is over."""
    waiter = link.loop.create_future()
    what.waiters.append(waiter)
    handle = None if timeout is None else link.loop.call_later(timeout, _over, waiter)
    try:
        await waiter
    finally:
        if handle is not None:
            handle.cancel()
        if waiter in what.waiters:
            what.waiters.remove(waiter)


def _over(waiter: asyncio.Future[None]) -> None:
    if not waiter.done():
        waiter.set_result(None)


class Subscription:
    """The messages of all topics that match a pattern: an async iterator that waits without end,
    and an async context manager. After a loss of the connection it goes on after the last message.
    Tasks may share it: each message goes to one of them. If it has a callback that is called with
    each message instead, in the loop, and must not wait for anything."""

    __slots__ = ("_link", "_topic", "_dropped", "_is_closed", "missing", "on_event")

    def __init__(self, link: Link, topic: TopicHere) -> None:
        self._link = link
        self._topic = topic
        self._dropped = 0
        self._is_closed = False
        #: What could not be had any more, of the last time that this was so; None = nothing.
        self.missing: Missing | None = None
        #: Called with each event that is no message (`CaughtUp`, `Missing`, `Lost`, `Resumed`).
        self.on_event: Callable[[TopicEvent], object] | None = None

    def __repr__(self) -> str:
        return f"<isect.aio.Subscription to {visible(self._topic.pattern)}>"

    @property
    def pattern(self) -> str:
        """The pattern."""
        return self._topic.pattern

    @property
    def position(self) -> Position | None:
        """From where a program goes on that has done all that came until now; None = nothing has
        come yet. `str` of it is `EPOCH:NUMBER`."""
        return self._topic.position

    def __aiter__(self) -> Subscription:
        return self

    async def __anext__(self) -> Message:
        topic = self._topic
        while not self._is_closed:
            event = topic.take()
            if event is None:
                if not self._check():
                    break
                waiter = self._link.loop.create_future()
                topic.waiters.append(waiter)
                try:
                    await waiter
                except BaseException:
                    if waiter in topic.waiters:
                        topic.waiters.remove(waiter)
                    raise
            elif event.__class__ is Message:
                return self._counted(event) if self._dropped else event
            else:
                self._note(event)
        raise StopAsyncIteration

    async def event(self, timeout: float | None = None) -> TopicEvent | None:
        """The next event: a `Message`, `CaughtUp`, `Missing`, `Lost` or `Resumed`; None = none came
        within `timeout` seconds (None = wait without end). Raises why it has ended."""
        loop = self._link.loop
        timeout = span(timeout)
        until = None if timeout is None else loop.time() + timeout
        while True:
            event = None if self._is_closed else self._topic.take()
            if event is not None:
                return event
            left = None if until is None else until - loop.time()
            if left is not None and left <= 0:
                return None
            if not await self._more(left):
                raise error("not_found", "this subscription was closed")

    async def receive(self, timeout: float | None = None) -> Message | None:
        """The next message; None = none came within `timeout` seconds (None = wait without end).
        Raises why the subscription has ended."""
        loop = self._link.loop
        timeout = span(timeout)
        until = None if timeout is None else loop.time() + timeout
        while True:
            event = await self.event(None if until is None else max(0.0, until - loop.time()))
            if event is None:
                return None
            if isinstance(event, Message):
                return self._counted(event) if self._dropped else event
            self._note(event)

    def _counted(self, message: Message) -> Message:
        message = message._replace(dropped=message.dropped + self._dropped)
        self._dropped = 0
        return message

    def _note(self, event: TopicEvent) -> None:
        """An event that is no message."""
        if isinstance(event, CaughtUp):
            self._dropped += event.dropped
        elif isinstance(event, Missing):
            self.missing = event
        if self.on_event is not None:
            self.on_event(event)

    async def _more(self, timeout: float | None) -> bool:
        """Waits for an event; False = the program has ended the subscription. Raises why it was
        ended otherwise."""
        if not self._check():
            return False
        await changed(self._link, self._topic, timeout)
        return True

    def _check(self) -> bool:
        """Whether something may come; False = the program has ended the subscription. Raises why it
        was ended otherwise."""
        topic = self._topic
        link = self._link
        if self._is_closed or link.is_closed:
            return False
        if topic.failure is not None:
            raise with_ran(topic.failure, topic.failure.ran)
        link.check_place()
        if topic.callback is not None:
            raise error("bad_state", "this subscription has a callback, which gets the messages")
        return True

    async def close(self) -> None:
        """Ends the subscription; what waits is dropped. Closing twice is no error."""
        self._end()

    async def unsubscribe(self) -> tuple[int, int]:
        """As `close`, and waits for the broker's answer: how many messages it sent, and how many it
        did not."""
        topic = self._topic
        link = self._link
        self._end()
        loop = link.loop
        until = loop.time() + link.options.timeout
        while not topic.has_ended:
            left = until - loop.time()
            if left <= 0:
                raise _late(link, "an unsubscribe", link.options.timeout)
            await changed(link, topic, left)
        return topic.delivered, topic.dropped_there

    def _end(self) -> None:
        link = self._link
        if self._is_closed:
            return
        self._is_closed = True
        self._topic.callback = None
        if not (link.is_closed or link.is_forked):
            link.write(link.session.unsubscribe(self._topic))
        wake(self._topic)

    async def __aenter__(self) -> Subscription:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._end()


class Instance:
    """An instance of this program that the broker watches, until it is withdrawn, displaced, or the
    connection ends; after a loss of the connection it is announced again. An async context manager,
    which withdraws it at its end, as failed after an exception.

    Call `checkpoint` wherever the work has gone on: nothing else beats.
    """

    __slots__ = ("_link", "_watched")

    def __init__(self, link: Link, watched: WatchedHere) -> None:
        self._link = link
        self._watched = watched

    @property
    def name(self) -> str:
        """Its name."""
        return self._watched.name

    @property
    def id(self) -> int:
        """Its id."""
        return self._watched.id

    @property
    def failure(self) -> IsectError | None:
        """Why the broker does not watch it any more; None = it does, or will again."""
        return self._watched.failure

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

    async def set_state(self, state: str | int, text: str = "") -> None:
        """Says that it has another state: `starting`, `running`, `stopping`, `stopped`, or a number
        of its own from 100 on; of the text the first 80 characters count. It counts as a beat.
        Without a connection the next one is told. Raises why the broker does not watch it."""
        link = self._link
        link.check_place()
        link.write(link.session.set_state(self._watched, state, text))

    def checkpoint(self, count: int | None = None) -> None:
        """Says that the work goes on: notes a checkpoint, any number that changes as it works (None
        = one more than before), and beats for all instances if that is due. It does not wait. Call
        it from the loop that does the work, as often as you like."""
        self._watched.go_on(count)
        self._link.beat(False)

    def idle(self, is_idle: bool = True) -> None:
        """Says whether it has nothing to do, so that its checkpoint need not change; and beats if
        that is due."""
        self._watched.is_idle = is_idle
        self._link.beat(False)

    async def withdraw(self, text: str = "", *, failed: bool = False) -> None:
        """Ends it in order, or because of a failure. Twice is no error."""
        link = self._link
        if not (link.is_closed or link.is_forked):
            link.write(link.session.withdraw(self._watched, failed, text))

    async def __aenter__(self) -> Instance:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, why: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.withdraw("" if kind is None else kind.__name__, failed=kind is not None)


async def open_topic(link: Link, topic: TopicHere, timeout: float) -> Subscription:
    """Subscribes, and waits until the broker has accepted it."""
    until = link.loop.time() + timeout
    await link.opened(timeout)
    callback, topic.callback = topic.callback, None
    link.write(link.session.subscribe(topic))
    # So that silence is noticed.
    link.look_by(until)
    is_open = False
    try:
        while not topic.is_open:
            if topic.failure is not None:
                raise topic.failure
            left = until - link.loop.time()
            if left <= 0:
                raise _late(link, "a subscribe", timeout)
            await changed(link, topic, left)
        is_open = True
    finally:
        if not is_open and not topic.has_ended:
            with contextlib.suppress(IsectError):
                link.write(link.session.unsubscribe(topic))
    topic.front = made = Subscription(link, topic)
    if callback is not None:
        topic.callback = callback
        topic.news()
    return made


async def open_instance(link: Link, watched: WatchedHere, timeout: float) -> Instance:
    """Announces, and waits until the broker watches it."""
    until = link.loop.time() + timeout
    await link.opened(timeout)
    link.write(link.session.announce(watched))
    link.look_by(until)
    is_open = False
    try:
        while watched.phase == ASKED:
            left = until - link.loop.time()
            if left <= 0:
                raise _late(link, "an announce", timeout)
            await changed(link, watched, left)
        if watched.failure is not None:
            raise watched.failure
        is_open = True
    finally:
        if not is_open:
            with contextlib.suppress(IsectError):
                link.write(link.session.withdraw(watched, True, ""))
    return Instance(link, watched)


def _late(link: Link, what: str, timeout: float) -> IsectError:
    if link.transport is None and link.failure is not None:
        return link.failure
    return error("timeout", f"the broker did not answer {what} within {timeout:g} s")

