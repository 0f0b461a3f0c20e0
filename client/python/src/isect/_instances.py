"""Instances of this program that the broker watches, without input or output: the frames that say
that they are there, that they go on, and what they do.

`Watched` is the state of one instance; it lives over one connection after another.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from . import _tables as t
from ._arguments import as_pairs, as_text, as_texts, shown, whole, wrong
from ._errors import IsectError, error, visible
from ._wire import Lines, frame

#: Most instances that one beat names; a control frame has at most 4096 lines.
BEAT_INSTANCES_MAX = 2000
#: The lowest number of a state of a program's own.
OWN_STATE_MIN = 100
#: Most characters of the text beside a state.
STATE_TEXT_MAX = 80

_STATES = frozenset({"starting", "running", "stopping", "stopped"})
_TYPES = frozenset({"data", "io", "management", "network"})

ASKED, WATCHED, ENDED = range(3)


def state_word(state: str | int) -> str:
    """The word of a state. Raises `Refused` (`bad_instance`) if it is none."""
    if isinstance(state, str):
        if state in _STATES:
            return state
        if state.isascii() and state.isdigit() and len(state) <= 10:
            state = int(state)
    if isinstance(state, int) and OWN_STATE_MIN <= state < 2**32:
        return str(state)
    raise error("bad_instance", f"state {shown(state)} is none of starting, running, "
                                f"stopping, stopped and the numbers from {OWN_STATE_MIN} to "
                                f"{2**32 - 1}")


def _type_word(type: str | int) -> str:
    if isinstance(type, int) and 0 <= type < 2**32:
        return str(int(type))
    if isinstance(type, str) and (type in _TYPES or (
            type.isascii() and type.isdigit() and len(type) <= 10 and int(type) < 2**32)):
        return type
    raise error("bad_instance", f"type {shown(type)} is none of {', '.join(sorted(_TYPES))} and "
                                f"the numbers up to {2**32 - 1}")


def _short(text: str) -> str:
    as_text(text, "text")
    return visible(text[:STATE_TEXT_MAX])[:STATE_TEXT_MAX]


class Watched:
    """One instance, as it was announced and as it is now."""

    __slots__ = ("name", "id", "sequence", "phase", "failure", "state", "text", "count", "is_idle",
                 "incarnation", "activity_timeout", "displaced", "_lines")

    def __init__(
        self,
        name: str,
        id: int,
        *,
        type: str | int = "data",
        groups: Sequence[str] = (),
        activity_timeout: float | None = None,
        stalled: float | None = None,
        state: str | int = "running",
        addresses: Iterable[str] = (),
        meta: Mapping[str, str] | None = None,
        state_names: Mapping[int, str] | None = None,
    ) -> None:
        self.name = as_text(name, "name")
        self.id = whole(id, "id", 0, 2**64 - 1)
        self.sequence = 0
        self.phase = ASKED
        #: Why the broker does not watch it any more.
        self.failure: IsectError | None = None
        self.state = state_word(state)
        self.text = ""
        self.count = 0
        self.is_idle = False
        #: From `announced`: numbers all announcements of the broker.
        self.incarnation = 0
        #: From `announced`: the time-out in force, in seconds.
        self.activity_timeout = 0.0
        #: From `announced`: whether an earlier one of this name and id was ended for it.
        self.displaced = False
        self._lines = [("name", name), ("id", str(id)), ("type", _type_word(type))]
        self._lines += [("group", group) for group in as_texts(groups, "groups")]
        for key, seconds in (("activity_timeout_ms", activity_timeout), ("stalled_ms", stalled)):
            if seconds is not None:
                if not isinstance(seconds, (int, float)) or not 0 <= seconds < 2**53:
                    raise error("bad_instance", f"{key[:-3]} is {shown(seconds)}; it is a number "
                                                "of seconds, 0 or more")
                self._lines.append((key, str(round(seconds * 1000))))
        self._lines += [("address", address) for address in as_texts(addresses, "addresses")]
        self._lines += [("meta", f"{as_text(word, 'a word of meta')} {value}")
                        for word, value in as_pairs(meta, "meta")]
        self._lines += [("state_name", f"{state_word(number)} {text}")
                        for number, text in as_pairs(state_names, "state_names")]
        # Raises if it is too long for a frame.
        self.announce(0)

    def announce(self, sequence: int) -> bytes:
        """The frame that announces it."""
        self.sequence = sequence
        lines = [("sequence", str(sequence)), *self._lines, ("state", self.state)]
        return frame(t.ANNOUNCE, Lines(lines).bytes())

    def change(self, sequence: int) -> bytes:
        """The frame that says its present state."""
        lines = [("sequence", str(sequence)), ("id", str(self.id)), ("state", self.state),
                 ("checkpoint", str(self.count))]
        return frame(t.STATE_CHANGE, Lines(lines, self.text).bytes())

    def set_state(self, state: str | int, text: str) -> None:
        """Notes another state. Raises why the broker does not watch it any more."""
        word = state_word(state)
        shortened = _short(text)
        if self.failure is not None:
            raise self.failure
        self.state = word
        self.text = shortened

    def go_on(self, count: int | None) -> None:
        """Notes a checkpoint; None = one more than before."""
        if count is None:
            count = self.count + 1
        elif not isinstance(count, int):
            raise wrong("count", count, "a whole number, or None for one more than before")
        self.count = count % 2**64
        self.is_idle = False

    def withdraw(self, sequence: int, failed: bool, text: str) -> bytes:
        """The frame that says that it ends."""
        lines = [("sequence", str(sequence)), ("id", str(self.id))]
        if failed:
            lines.append(("failed", "yes"))
        return frame(t.WITHDRAW, Lines(lines, _short(text)).bytes())

    def announced(self, lines: Lines) -> None:
        """The broker watches it."""
        self.phase = WATCHED
        self.incarnation = lines.number("incarnation")
        self.activity_timeout = lines.number("activity_timeout_ms") / 1000
        self.displaced = lines.flag("displaced")

    def refuse(self, why: IsectError) -> None:
        """The broker does not watch it any more, or never did."""
        self.phase = ENDED
        self.failure = why

    def unknown(self) -> None:
        """The broker said in the answer to a beat that it does not know it."""
        if self.phase == WATCHED:
            self.refuse(error("bad_instance", f"the broker watches instance '{visible(self.name)}' "
                              f"with id {self.id} no more: another program announced the same and "
                              "displaced it"))

    @property
    def is_new(self) -> bool:
        """Whether the broker has never answered its announcement."""
        return self.phase == ASKED and not self.incarnation

    def lost(self) -> None:
        """The connection was lost."""
        if self.phase == WATCHED:
            self.phase = ASKED


def beat_frames(numbers: Iterable[int], watched: Iterable[Watched]) -> list[bytes]:
    """The frames of a beat of these instances, each with the next of the numbers."""
    lines = [("instance", f"{one.id} {one.count}{' idle' if one.is_idle else ''}")
             for one in watched if one.phase == WATCHED]
    frames = []
    for at, number in zip(range(0, len(lines), BEAT_INSTANCES_MAX), numbers):
        some = [("beat", str(number)), *lines[at:at + BEAT_INSTANCES_MAX]]
        frames.append(frame(t.BEAT, Lines(some).bytes()))
    return frames
