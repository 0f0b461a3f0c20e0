"""Decides when to ping a silent broker, and when to take it for gone. Only silence counts while
somebody waits, not the time between two calls of the program. Pure: times are arguments, in seconds
of one clock that does not jump."""

from __future__ import annotations

#: A check that comes this much later than planned shows that this process was stopped or did
#: something else.
STANDSTILL = 0.25

NOTHING, PING, GONE = range(3)


class Keepalive:
    """What is known of the silence on one connection."""

    __slots__ = ("silence", "_since", "_pinged", "_looked")

    def __init__(self, silence_ms: int = 0) -> None:
        #: The silence after which the broker is gone, in seconds; 0 = never.
        self.silence = silence_ms / 1000
        self._since: float | None = None
        self._pinged: float | None = None
        self._looked: tuple[float, float] | None = None

    def heard(self) -> None:
        """Bytes came, or the broker took some."""
        self._since = self._pinged = self._looked = None

    @property
    def first_span(self) -> float | None:
        """The longest time to wait while all is well; None = for ever. If it is over, call
        `quiet`."""
        return self.silence * 2 / 5 if self.silence and self._since is None else None

    def span(self, now: float) -> float | None:
        """The longest time to wait before the next `quiet`; None = for ever."""
        if not self.silence:
            return None
        if self._since is None:
            return self.silence * 2 / 5
        self._excuse(now)
        left = max(0.001, self._due_at(self._since) - now)
        self._looked = (now, left)
        return left

    def quiet(self, now: float, waited: float) -> int:
        """What to do after nothing came for `waited` until now: NOTHING, PING (then say `pinged`)
        or GONE."""
        if not self.silence:
            return NOTHING
        self._excuse(now)
        if self._since is None:
            self._since = now - waited
        if self._due_at(self._since) > now:
            return NOTHING
        return PING if self._pinged is None else GONE

    def pinged(self, now: float) -> None:
        """A ping was sent."""
        self._pinged = now

    def _excuse(self, now: float) -> None:
        """This process was stopped for a while: it could not hear the broker then."""
        looked, self._looked = self._looked, None
        if looked is None or self._pinged is None:
            return
        late = now - looked[0] - looked[1]
        if late >= STANDSTILL:
            self._pinged += late + self.silence / 5

    def _due_at(self, since: float) -> float:
        # A ping after two fifths of the silence; the rest is for its answer.
        if self._pinged is None:
            return since + self.silence * 2 / 5
        return self._pinged + self.silence * 3 / 5
