"""Subscriptions and messages, without input or output: what the frames of the broker mean to the
program, and how a subscription goes on after a loss of the connection.

`Topic` is the state of one subscription; it lives as long as the program's subscription does, over
one connection after another. `_session` feeds it, the fronts (`_sync`, `aio`) empty it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from typing import NamedTuple, Union

from . import _tables as t
from ._arguments import as_pairs, as_text, shown, whole, wrong
from ._errors import IsectError, error, visible
from ._wire import Header, Lines, frame

#: Most bytes of the lines in front of the payload.
LINES_BYTES_MAX = 4096
#: Most bytes, and most words, of a topic or a pattern.
TOPIC_BYTES_MAX = 255
TOPIC_WORDS_MAX = 32
#: The longest time for which a value is kept, in milliseconds: ten years.
EXPIRES_MS_MAX = 10 * 366 * 24 * 3_600_000
#: Most events of one subscription that are no messages and wait for the program.
NOTES_MAX = 1000

_KNOWN = frozenset({"topic", "retain", "expires_ms", "removed"})
_REMOVED = frozenset({"deleted", "expired", "evicted", "owner_gone"})


class Position(NamedTuple):
    """A message in the count of a broker. As text `EPOCH:NUMBER`; `Position.parse` reads it."""

    #: The start of the broker; a later start has a higher number.
    epoch: int
    #: The number of the message, of all topics together; 0 = before the first.
    number: int

    def __str__(self) -> str:
        return f"{self.epoch}:{self.number}"

    @classmethod
    def parse(cls, text: str) -> Position:
        """Reads `EPOCH:NUMBER`. Raises `UsageError` if the text is not that."""
        made = _position(text)
        if made is None:
            raise error("usage", f"'{visible(text[:60])}' is no position; it is two numbers with a "
                                 "colon between them, as str(message.position) gives")
        return made


def _number(text: str) -> int | None:
    # 20 digits hold 2**64.
    if 0 < len(text) <= 20 and text.isascii() and text.isdigit() and int(text) < 2**64:
        return int(text)
    return None


def _position(text: str) -> Position | None:
    epoch, colon, number = text.partition(":")
    first, second = _number(epoch), _number(number)
    return None if first is None or second is None or not colon else Position(first, second)


class Message(NamedTuple):
    """A message of a topic."""

    #: The topic that it was published to.
    topic: str
    #: What its publisher sent.
    payload: bytes
    #: Its number in the broker's count; `Broker.subscribe(…, start=position)` goes on after it.
    position: Position
    #: Lines of its publisher that isect does not know, by their first word.
    lines: Mapping[str, str]
    #: Whether it was published before the subscription, and came because it is kept or because the
    #: subscription went on after a pause.
    is_before: bool
    #: How many messages of the subscription were dropped right before it, because they were read
    #: too slowly.
    dropped: int
    #: Whether the broker keeps it as the value of its topic: ``, `yes` or `connected`.
    retain: str
    #: Why the value of the topic is kept no longer (`deleted`, `expired`, `evicted`,
    #: `owner_gone`); empty = it is a message like any other. The payload is empty then.
    removed: str

    @property
    def text(self) -> str:
        """The payload as text; bytes that are no UTF-8 are replaced."""
        return self.payload.decode(errors="replace")


class CaughtUp(NamedTuple):
    """All that was kept from before has come; what follows is new."""

    #: How many messages from before the broker sent.
    kept: int
    #: How many were dropped since the last message.
    dropped: int


class Missing(NamedTuple):
    """Messages that can't be had any more: the subscription was away for too long (those from the
    number `first` to `last`, as far as they matched), or the broker was started again (both 0)."""

    first: int
    last: int

    @property
    def is_restart(self) -> bool:
        """Whether the broker was started again, so that nothing of before is known."""
        return self.last == 0


class Lost(NamedTuple):
    """The connection was lost; the library tries to connect again."""

    error: IsectError


class Resumed(NamedTuple):
    """It is connected again, and the broker is at this position."""

    position: Position


TopicEvent = Union[Message, CaughtUp, Missing, Lost, Resumed]


class Receipt(NamedTuple):
    """What the broker says of a message that it has accepted."""

    #: Its number in the broker's count.
    position: Position
    #: How many subscriptions it matches now. That they got it is not said.
    subscriptions: int


def position_of(lines: Lines, key: str) -> Position:
    """The position of a key. Raises `Refused` (`bad_frame`) if there is none."""
    made = _position(lines.get(key))
    if made is None:
        raise error("bad_frame", f"{key} is '{lines.get(key)[:40]}'; it is two numbers with a "
                                 "colon between them")
    return made


def _missing_of(lines: Lines) -> Missing | None:
    text = lines.get("missing")
    if text == "":
        return None
    if text == "epoch":
        return Missing(0, 0)
    first, _, last = text.partition(" ")
    one, other = _number(first), _number(last)
    if one is None or other is None:
        raise error("bad_frame", f"missing is '{text[:40]}'; it is two numbers or 'epoch'")
    return Missing(one, other)


def check_topic(topic: str) -> None:
    """Raises `Refused` (`bad_message`) if a topic breaks a rule."""
    for word in _check("topic", topic):
        if word in ("*", ">"):
            raise _wrong(f"topic '{_shown(topic)}' has a wildcard; a topic that is published names "
                         "every word")


def check_pattern(pattern: str) -> None:
    """Raises `Refused` (`bad_message`) if a pattern breaks a rule."""
    if ">" in _check("pattern", pattern)[:-1]:
        raise _wrong(f"pattern '{_shown(pattern)}' has '>' before its end; '>' stands for all "
                     "words that are left")


def _check(what: str, given: str) -> list[str]:
    if not isinstance(given, str):
        raise wrong(f"a {what}", given, "text")
    if not given:
        raise _wrong(f"a {what} is empty; it needs at least one word")
    try:
        size = len(given.encode())
    except UnicodeEncodeError:
        raise _wrong(f"{what} '{_shown(given)}' has a character that UTF-8 can't hold") from None
    if size > TOPIC_BYTES_MAX:
        raise _wrong(f"{what} '{_shown(given)}' has {size} bytes; at most {TOPIC_BYTES_MAX} are "
                     "allowed")
    for ch in given:
        if ch.isspace() or ch < " " or "\x7f" <= ch <= "\x9f":
            raise _wrong(f"{what} '{_shown(given)}' contains {ch!r}; write blanks and the like as "
                         "%XX")
    words = given.split(".")
    if len(words) > TOPIC_WORDS_MAX:
        raise _wrong(f"{what} '{_shown(given)}' has {len(words)} words; at most {TOPIC_WORDS_MAX} "
                     "are allowed")
    for at, word in enumerate(words):
        if not word:
            raise _wrong(f"word {at + 1} of {what} '{_shown(given)}' is empty; words stand between "
                         "single dots")
    return words


def _shown(text: str) -> str:
    return visible(text[:60]) + ("…" if len(text) > 60 else "")


def _wrong(text: str) -> IsectError:
    return error("bad_message", text)


def message_body(
    topic: str,
    payload: bytes,
    *,
    retain: str = "",
    expires: float | None = None,
    removed: str = "",
    lines: Mapping[str, str] | None = None,
) -> bytes:
    """The body of a message to be published. Raises `Refused` (`bad_message`) if it breaks a
    rule."""
    check_topic(topic)
    out = [f"topic {topic}\n"]
    if retain:
        out.append(f"retain {retain}\n")
    if expires is not None:
        if not retain:
            raise _wrong("'expires' stands without 'retain'; it says how long a value is kept")
        if not isinstance(expires, (int, float)) or expires != expires:
            raise wrong("expires", expires, "a number of seconds, or None for no end")
        expires_ms = round(min(max(expires, 0), EXPIRES_MS_MAX) * 1000)
        if not 1 <= expires_ms <= EXPIRES_MS_MAX:
            raise _wrong(f"expires is {shown(expires)} s; it is 0.001 to {EXPIRES_MS_MAX / 1000:g}")
        out.append(f"expires_ms {expires_ms}\n")
    if removed:
        out.append(f"removed {removed}\n")
    for word, value in as_pairs(lines, "lines"):
        as_text(word, "the word of a line")
        if not word or word in _KNOWN or any(ch.isspace() for ch in word):
            known = ", ".join(sorted(_KNOWN))
            raise _wrong(f"a line of a message begins with '{_shown(word)}'; it begins with a word "
                         f"that is none of {known}")
        if "\n" in value:
            raise _wrong(f"the value of the line '{_shown(word)}' has a line break")
        out.append(f"{word} {value}\n")
    out.append("\n")
    try:
        head = "".join(out).encode()
    except UnicodeEncodeError:
        raise _wrong("a line of the message has a character that UTF-8 can't hold") from None
    if len(head) > LINES_BYTES_MAX:
        raise _wrong(f"the lines of the message have {len(head)} bytes; at most {LINES_BYTES_MAX} "
                     "are allowed")
    return head + payload


_NO_LINES: Mapping[str, str] = {}


def _read(head: Header, body: bytes, epoch: int) -> Message:
    """The message of a frame. Raises `Refused` (`bad_frame`) if it is none."""
    end = body.find(b"\n\n", 0, LINES_BYTES_MAX)
    if end < 0:
        raise error("bad_frame", "the broker sent a message whose lines have no end")
    try:
        text = body[:end].decode()
    except UnicodeDecodeError:
        raise error("bad_frame", "a line of a message from the broker is not UTF-8") from None
    topic = retain = removed = ""
    lines = _NO_LINES
    for line in text.split("\n"):
        key, _, value = line.partition(" ")
        if key == "topic":
            topic = topic or value
        elif key == "retain":
            retain = "" if value == "no" else value
        elif key == "removed":
            removed = value
        elif key != "expires_ms":
            if lines is _NO_LINES:
                lines = {}
            lines[key] = value  # type: ignore[index]
    if not topic or retain not in ("", "yes", "connected") or (removed and removed not in _REMOVED):
        raise error("bad_frame", f"the broker sent a message that is none: '{visible(text[:80])}'")
    return Message(topic, body[end + 2:], Position(epoch, head.transaction), lines, head.more != 0,
                   head.attempt, retain, removed)


_ASKED, _BEFORE, _LIVE, _CLOSING, _ENDED, _REFUSED = range(6)


class Topic:
    """One subscription, and what came for it.

    `take` gives the next event; `failure` says why nothing more comes, once all is taken.
    """

    __slots__ = ("number", "pattern", "retained", "phase", "failure", "delivered", "dropped_there",
                 "position", "messages_max", "bytes_max", "_received", "_was_open", "_events",
                 "_messages", "_bytes", "_notes", "_dropped", "_before", "_at", "_is_gapless",
                 "_epoch")

    def __init__(
        self,
        pattern: str,
        retained: bool = True,
        start: Position | None = None,
        messages_max: int = 100_000,
        bytes_max: int = 64 << 20,
    ) -> None:
        check_pattern(pattern)
        if start is not None:
            if not isinstance(start, Position):
                raise wrong("start", start, "a Position, or text as str(message.position) gives")
            for part in start:
                whole(part, "a part of start", 0, 2**64 - 1)
        whole(messages_max, "queue_max", 0, 2**63)
        whole(bytes_max, "queue_bytes_max", 0, 2**63)
        self.number = 0
        self.pattern = pattern
        self.retained = retained
        self.phase = _ASKED
        self.failure: IsectError | None = None
        #: What `unsubscribed` said: messages that were sent, and that were not.
        self.delivered = 0
        self.dropped_there = 0
        #: From where a program goes on that has done all that was taken.
        self.position = start
        self.messages_max = max(1, messages_max)
        self.bytes_max = bytes_max
        #: The last message up to which nothing is missing at this side.
        self._received = start
        self._was_open = False
        self._events: deque[tuple[TopicEvent, Position | None]] = deque()
        self._messages = 0
        self._bytes = 0
        self._notes = 0
        self._dropped = 0
        self._before: set[int] = set()
        self._at: Position | None = None
        self._is_gapless = False
        self._epoch = 0

    @property
    def is_open(self) -> bool:
        """Whether the broker has accepted it, and messages come."""
        return self.phase in (_BEFORE, _LIVE)

    @property
    def is_new(self) -> bool:
        """Whether the broker has never answered it."""
        return self.phase == _ASKED and not self._was_open

    @property
    def has_ended(self) -> bool:
        """Whether nothing more comes: it was refused, or `unsubscribed` has come."""
        return self.phase >= _ENDED

    def take(self) -> TopicEvent | None:
        """The next event for the program; None = nothing is there."""
        if not self._events:
            return None
        event, position = self._events.popleft()
        if isinstance(event, Message):
            self._messages -= 1
            self._bytes -= _weight(event)
        else:
            self._notes -= 1
        if position is not None:
            self.position = position
        return event

    def ask(self) -> bytes:
        """The frame that asks the broker for it."""
        lines = [("subscription", str(self.number)), ("pattern", self.pattern)]
        if self._received is not None:
            lines.append(("from", str(self._received)))
        if not self.retained:
            lines.append(("retained", "no"))
        return frame(t.SUBSCRIBE, Lines(lines).bytes())

    def end(self) -> bytes:
        """The frame that ends it; `_session` has to know it until `unsubscribed` comes."""
        self.phase = _CLOSING
        return frame(t.UNSUBSCRIBE, Lines([("subscription", str(self.number))]).bytes())

    def refuse(self, why: IsectError) -> None:
        """It has ended for this reason."""
        self.phase = _REFUSED
        self.failure = why

    def subscribed(self, lines: Lines) -> None:
        """The broker's answer to the subscribe."""
        at = position_of(lines, "at")
        missing = _missing_of(lines)
        if at.epoch != self._epoch:
            self._before.clear()
        self._epoch = at.epoch
        if self.phase != _ASKED:
            return
        self._is_gapless = self._received is not None and missing is None
        self._at = at
        self.phase = _BEFORE
        if self._was_open:
            self._note(Resumed(at))
        if missing is not None:
            self._note(missing)

    def message(self, head: Header, body: bytes) -> None:
        """A message of it."""
        if self.phase == _LIVE:
            is_next = True
        elif self.phase == _BEFORE:
            is_next = self._is_gapless
            # If the connection was lost meanwhile, the same come again.
            if head.transaction in self._before:
                return
            self._before.add(head.transaction)
        else:
            return
        message = _read(head, body, self._epoch)
        position = None
        if is_next:
            position = self._received = message.position
        if self._dropped:
            message = message._replace(dropped=message.dropped + self._dropped)
            self._dropped = 0
        self._events.append((message, position))
        self._messages += 1
        self._bytes += _weight(message)
        while self._messages > 1 and (self._messages > self.messages_max
                                      or self._bytes > self.bytes_max):
            self._drop_oldest()

    def caught_up(self, lines: Lines) -> None:
        """All that was kept is sent."""
        if self.phase != _BEFORE or self._at is None:
            return
        at = self._at
        last = self._received
        if last is not None and last.epoch == at.epoch:
            at = max(at, last)
        self.phase = _LIVE
        self._before = set()
        self._was_open = True
        self._received = at
        dropped = lines.number("dropped", 0) + self._dropped
        self._dropped = 0
        self._note(CaughtUp(lines.number("kept", 0), dropped), at)

    def unsubscribed(self, lines: Lines) -> None:
        """The broker has ended it."""
        self.delivered = lines.number("delivered", 0)
        self.dropped_there = lines.number("dropped", 0)
        self.phase = _ENDED
        self.failure = error("not_found", "this subscription has ended")

    def lost(self, why: IsectError) -> None:
        """The connection was lost."""
        if self.is_open:
            self._was_open = True
            self.phase = _ASKED
            self._note(Lost(why))
        elif self.phase == _CLOSING:
            self.refuse(why)

    def _note(self, event: TopicEvent, position: Position | None = None) -> None:
        """Adds an event that is no message; of those that nobody takes the oldest are forgotten."""
        if self._notes >= NOTES_MAX:
            for at, (known, _) in enumerate(self._events):
                if not isinstance(known, Message):
                    del self._events[at]
                    self._notes -= 1
                    break
        self._notes += 1
        self._events.append((event, position))

    def _drop_oldest(self) -> None:
        """Drops the oldest message; the next event that can says how many were."""
        for at, (event, _) in enumerate(self._events):
            if isinstance(event, Message):
                break
        else:
            return
        if at + 1 == len(self._events):
            # The newest waits in any case.
            return
        del self._events[at]
        self._messages -= 1
        self._bytes -= _weight(event)
        count = event.dropped + 1
        for later in range(at, len(self._events)):
            known, position = self._events[later]
            if isinstance(known, (Message, CaughtUp)):
                known = known._replace(dropped=known.dropped + count)
                self._events[later] = (known, position)
                return
        self._dropped += count


def _weight(message: Message) -> int:
    """Bytes that it takes while it waits, about."""
    return 400 + len(message.topic) + len(message.payload)
