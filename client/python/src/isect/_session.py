"""The client's side of a connection: which frame is legal when, and what the frames of the broker
mean. No input or output, no clock, no locks; docs/protocol.md ("A client") is the source. The
blocking front (`_sync`) and the asyncio front (`aio`) give it a socket.

How a front uses it
-------------------

1. `login(lines, prover)` makes the first frame. Each chunk of bytes that is read goes to
   `receive`, which returns a list of events; after each `receive` (and after each method that says
   so) the front writes what is in `outgoing` and empties it:

       for slot, what, value, head in session.receive(data):
           ...
       if session.outgoing:
           write(b"".join(session.outgoing)); session.outgoing.clear()

2. An event is a tuple `(slot, what, value, head)`. `slot` is the object that the front gave when it
   asked; the session never looks into it. `head` is the header as a plain tuple, in the order of
   the fields of `_wire.Header` (index 6 = workerid, 10 = transaction), or () where no frame
   belongs to the event. `what` is one of

   ANSWER        the last frame of an answer; value = its body. The request is over.
   PIECE         a frame of an answer that more frames follow; value = its body. `next_within(head)`
                 is the time until the next one, if the worker put the deadline off.
   FAILED        the request (or the awaited publish, flush) has ended; value = the `IsectError`.
   PUBLISHED     value = the `Receipt` of an awaited publish.
   FLUSHED       value = how many requests were refused since the flush before.
   NEWS          something changed in a `Topic` or a `Watched`, which is the slot: look at it.
   REFUSED       slot None; value = the error of a publish or a state change that nobody awaits.
   CHALLENGED    slot None; value = the `Lines` of the challenge: answer with `prove`.
   LOGGED_IN     slot None; value = the `Limits`. What was open before is asked for again:
                 `outgoing` has it.
   NOT_LOGGED_IN slot None; value = the error. The connection is of no use.
   CLOSING       slot None; value = why the broker will close; `lost` will say the same.
   BROKEN        slot None; value = why the bytes can't be trusted: drop the connection and call
                 `lost(value)`. It is the last event, and `receive` does nothing more.

   `receive` raises nothing.

3. `request(slot, body, …)` returns `(sequence, frame)` and notes the request; frames have to be
   written in the order in which they were made. Methods that make frames raise a typed error, and
   have changed nothing then. `cancel(sequence)` asks for the outcome `cancelled`; `give_up` forgets
   the slot at once, so that a late answer is dropped: no answer ever reaches another slot, because
   a sequence is not used again before its outcome came or the connection ended (after 2**32 - 1
   requests numbers begin anew and leave out what is in use).

4. When the connection is lost, `lost(why, unwritten)` returns the reason and a FAILED event for
   each request under way. `unwritten` are the frames (bytes) that did not leave as a whole: those
   requests have not run (`ran` = no), all others may have. A front that does not know gives none.

5. `login` may be called again on a new connection with the same session: subscriptions and
   instances go on.

A front that has more to send than `requests_max` allows looks at `room` before `request`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable
from typing import Any, Final, NamedTuple, Protocol, Tuple

from . import _tables as t
from ._arguments import wrong
from ._errors import ConnectionFailed, IsectError, application, error, with_ran
from ._instances import ASKED as INSTANCE_ASKED
from ._instances import WATCHED, Watched, beat_frames
from ._topics import Receipt, Topic, position_of
from ._wire import (EXTENDABLE, IDEMPOTENT, NO_TRACE, Header, Inbox, Lines, _pack, _unpack_from,
                    error_of, frame)

ANSWER: Final = 0
PIECE: Final = 1
FAILED: Final = 2
PUBLISHED: Final = 3
FLUSHED: Final = 4
NEWS: Final = 5
REFUSED: Final = 6
CHALLENGED: Final = 7
LOGGED_IN: Final = 8
NOT_LOGGED_IN: Final = 9
CLOSING: Final = 10
BROKEN: Final = 11

FRESH: Final = 0
LOGGING_IN: Final = 1
OPEN: Final = 2
#: This side sends nothing more, and waits for what is under way.
FINISHED: Final = 3
CLOSED: Final = 4

#: `(slot, what, value, head)`; see above.
Event = Tuple[Any, int, Any, Tuple[Any, ...]]

#: Most refusals of publishes that nobody awaits that are kept; past it the oldest is forgotten.
REFUSED_MAX = 1000

_SEQUENCE_MAX = 2**32 - 1


class Limits(NamedTuple):
    """What `login-ok` said."""

    #: The id that the broker gave to this client.
    client: int = 0
    #: Most bytes in the body of a data frame.
    body_bytes_max: int = t.BODY_BYTES_DEFAULT
    #: Most requests under way on this connection.
    requests_max: int = 1
    #: The deadline of requests that name none, in milliseconds; 0 = none.
    deadline_ms: int = 0
    heartbeat_ms: int = 0
    #: Silence, although pinged, after which either side takes the other for gone; 0 = not said.
    silence_ms: int = 0
    #: The broker's version.
    version: str = ""


class Prover(Protocol):
    """What proves a token in a login; `_token.Prover` is one."""

    def claim(self) -> list[tuple[str, str]]:
        """The lines of the login: `token`, `nonce`."""

    def is_proven(self, signature: str) -> bool:
        """Whether the broker has proved that it knows the token, too."""


class _More:
    """What is to be known of a request that is more than one frame each way."""

    __slots__ = ("ours", "theirs", "extendable", "frames", "reply")

    def __init__(self, ours: int, extendable: bool, reply: int) -> None:
        #: Whether the last frame of this side had `more`, and that of the worker.
        self.ours = ours
        self.theirs = 0
        self.extendable = extendable
        self.reply = reply
        #: How many frames this side has made.
        self.frames = 1


def millis(seconds: float | None, what: str = "timeout") -> int:
    """A time for the header, in milliseconds: 0 for None, never 0 else. Raises `UsageError` if it
    is no time, or longer than an hour."""
    if seconds is None:
        return 0
    if not isinstance(seconds, (int, float)) or not 0 <= seconds * 1000 <= t.DEADLINE_MS_MAX:
        raise wrong(what, seconds, f"0 to {t.DEADLINE_MS_MAX // 1000} s, or None for the service's "
                    "own")
    return max(1, int(-(-seconds * 1000 // 1)))


class Session:
    """One client over one connection after another. Not thread-safe: the front has a lock."""

    __slots__ = ("phase", "limits", "outgoing", "refused", "closing", "is_broken", "has_unflushed",
                 "_prover", "_last", "_open", "_more", "_silent", "_asked", "_topics", "_instances",
                 "_buffer", "_inbox", "_body_bytes_max", "_requests_max", "beat_ms", "_without_id",
                 "_unawaited")

    def __init__(self) -> None:
        self.phase = FRESH
        self.limits = Limits()
        #: Frames that the front has to write now, in this order.
        self.outgoing: list[bytes] = []
        #: Errors of publishes that nobody awaits, the newest thousand.
        self.refused: deque[IsectError] = deque(maxlen=REFUSED_MAX)
        #: Why the broker said that it will close the connection.
        self.closing: IsectError | None = None
        self.is_broken = False
        #: Whether a request without an answer was sent that no flush has asked about.
        self.has_unflushed = False
        #: How often a beat is due, in milliseconds, as the broker said last; 0 = it has not said.
        self.beat_ms = 0
        self._prover: Prover | None = None
        self._last = 0
        #: Requests that wait for an answer, by sequence.
        self._open: dict[int, Any] = {}
        #: Those of them that are more than one frame each way.
        self._more: dict[int, _More] = {}
        #: Requests in pieces that want no answer and are not whole.
        self._silent: dict[int, _More] = {}
        #: Publishes and flushes whose answer is awaited.
        self._asked: dict[int, Any] = {}
        self._topics: dict[int, Topic] = {}
        self._instances: dict[int, Watched] = {}
        self._without_id = 0
        self._buffer: bytearray | None = None
        self._inbox = Inbox()
        self._body_bytes_max = t.BODY_BYTES_DEFAULT
        self._requests_max = 1
        #: Whether a message was published whose answer nobody awaits.
        self._unawaited = False

    # The connection.

    @property
    def is_open(self) -> bool:
        """Whether requests may be sent now."""
        return self.phase == OPEN

    @property
    def under_way(self) -> int:
        """How many requests wait for an answer."""
        return len(self._open)

    @property
    def room(self) -> int:
        """How many further requests may be begun now."""
        return self._requests_max - len(self._open)

    @property
    def is_between_frames(self) -> bool:
        """Whether the bytes that were received end with a frame."""
        return self._buffer is None

    def login(self, lines: Iterable[tuple[str, str]], prover: Prover | None = None) -> bytes:
        """The login frame for a new connection; `lines` are those of the key table (`service`,
        `priority`, …), to which the prover adds its own."""
        if self.phase not in (FRESH, CLOSED):
            raise error("bad_state", "this client is logged in already")
        all_lines = list(lines)
        if prover is not None:
            all_lines += prover.claim()
        made = frame(t.LOGIN, Lines(all_lines).bytes())
        self.phase = LOGGING_IN
        self.closing = None
        self.is_broken = False
        self._buffer = None
        self._prover = prover
        self.outgoing.clear()
        # Until the login is accepted, nothing large may come.
        self._body_bytes_max = self._inbox.body_bytes_max = t.CONTROL_BODY_BYTES_MAX
        return made

    def prove(self, lines: Iterable[tuple[str, str]]) -> bytes:
        """The frame that answers the challenge."""
        return frame(t.PROOF, Lines(lines).bytes())

    def logout(self) -> bytes:
        """The logout frame; requests under way end without an outcome."""
        self.phase = CLOSED
        self._forget_requests()
        return frame(t.LOGOUT)

    def finish(self) -> None:
        """Notes that this side shuts its side of the connection (`half_close`): nothing more is
        sent, and what is under way still gets its outcomes."""
        self._check_open()
        self.phase = FINISHED

    def ping(self) -> bytes:
        """The frame of a ping."""
        self._check_open()
        return frame(t.PING)

    def lost(
        self, why: IsectError, unwritten: Iterable[bytes] = ()
    ) -> tuple[IsectError, list[Event]]:
        """Ends all requests under way after the connection was lost. Returns the reason (what the
        broker had said of it, otherwise `why`) and the events of the requests."""
        reason = self.closing or why
        if not isinstance(reason, ConnectionFailed):
            # Whatever the broker said: for those who wait the connection is gone.
            reason = ConnectionFailed(reason.name, reason.text, ran="maybe", whose=reason.whose,
                                      advice=reason.advice, code=reason.code)
        missing: dict[int, int] = {}
        for one in unwritten:
            sequence = int.from_bytes(one[4:8], "big")
            missing[sequence] = missing.get(sequence, 0) + 1
        events: list[Event] = []
        for sequence, slot in self._open.items():
            more = self._more.get(sequence)
            made = 1 if more is None else more.frames
            ran = "no" if missing.get(sequence, 0) >= made else "maybe"
            events.append((slot, FAILED, with_ran(reason, ran), ()))
        for sequence, slot in self._asked.items():
            ran = "no" if sequence in missing else "maybe"
            events.append((slot, FAILED, with_ran(reason, ran), ()))
        said = self.closing
        row = None if said is None else t.ERRORS.get(said.code)
        # It may be what the broker does not want, and would end the next connection, too.
        ends_new = said is not None and row is not None and row.retry == "never"
        for topic in list(self._topics.values()):
            if ends_new and topic.is_new:
                topic.refuse(with_ran(said, "no"))  # type: ignore[arg-type]
            else:
                topic.lost(reason)
            if topic.has_ended:
                self._topics.pop(topic.number, None)
            events.append((topic, NEWS, None, ()))
        for watched in list(self._instances.values()):
            if ends_new and watched.is_new:
                watched.refuse(with_ran(said, "no"))  # type: ignore[arg-type]
                del self._instances[watched.id]
                events.append((watched, NEWS, None, ()))
            else:
                watched.lost()
        self.phase = CLOSED
        self.closing = None
        self._forget_requests()
        return reason, events

    def end(self, why: IsectError) -> list[Event]:
        """No connection is made again: what is open ends with this reason."""
        events: list[Event] = []
        for topic in self._topics.values():
            topic.refuse(with_ran(why, why.ran))
            events.append((topic, NEWS, None, ()))
        for watched in self._instances.values():
            watched.refuse(with_ran(why, why.ran))
            events.append((watched, NEWS, None, ()))
        self._topics.clear()
        self._instances.clear()
        return events

    def _forget_requests(self) -> None:
        self._open.clear()
        self._more.clear()
        self._silent.clear()
        self._asked.clear()
        self._buffer = None
        self.outgoing.clear()
        self.has_unflushed = False

    def _check_open(self) -> None:
        if self.phase != OPEN:
            raise error("bad_state", "this client has shut its side of the connection"
                        if self.phase == FINISHED else "this client is not logged in")

    def _next(self) -> int:
        """A number that nothing else has that is open."""
        last = self._last
        while True:
            last = last + 1 if last < _SEQUENCE_MAX else 1
            if not (last in self._open or last in self._silent or last in self._asked
                    or last in self._topics):
                self._last = last
                return last

    # Requests.

    def request(
        self,
        slot: Any,
        body: bytes,
        flags: int = 0,
        deadline_ms: int = 0,
        priority: int = 0,
        trace_id: bytes = NO_TRACE,
        span_id: int = 0,
        more: int = 0,
    ) -> tuple[int, bytes]:
        """A request that wants an answer: its sequence and its frame. With `more` = 1 further
        pieces follow (`further`)."""
        size = len(body)
        if self.phase != 2 or size > self._body_bytes_max:
            self._check_body(size)
        known = self._open
        if len(known) >= self._requests_max:
            raise error("too_many_requests", f"{len(known)} requests are under way on this "
                        f"connection; requests_max is {self._requests_max}")
        sequence = self._last + 1
        if sequence in known or sequence > _SEQUENCE_MAX or self._silent or self._asked \
                or self._topics:
            sequence = self._next()
        else:
            self._last = sequence
        made = _pack(size, sequence, 1, 0, 0, 2, 0, more, priority, flags, 0, deadline_ms, 0,
                     trace_id, span_id) + body
        known[sequence] = slot
        if more or flags & EXTENDABLE:
            self._more[sequence] = _More(more, flags & EXTENDABLE != 0, 1)
        return sequence, made

    def tell(
        self,
        body: bytes,
        flags: int = 0,
        deadline_ms: int = 0,
        priority: int = 0,
        trace_id: bytes = NO_TRACE,
        span_id: int = 0,
        more: int = 0,
    ) -> tuple[int, bytes]:
        """As `request`, without an answer: nothing comes back, not even an error; `flush` asks what
        became of it."""
        size = len(body)
        self._check_body(size)
        sequence = self._next()
        made = _pack(size, sequence, 0, 0, 0, 2, 0, more, priority, flags, 0, deadline_ms, 0,
                     trace_id, span_id) + body
        if more:
            self._silent[sequence] = _More(1, False, 0)
        self.has_unflushed = True
        return sequence, made

    def further(self, sequence: int, body: bytes, more: int, worker: int = 0) -> bytes:
        """The next piece of a request, or the next frame of a conversation. `worker` is index 6 of
        the head of the piece that it answers, 0 while no worker has replied."""
        state = self._more.get(sequence) or self._silent.get(sequence)
        self._check_body(len(body))
        if state is None or not (state.ours or state.theirs):
            raise error("no_conversation", f"request {sequence} is not open for further frames")
        state.ours = more
        state.frames += 1
        if not more and not state.reply:
            del self._silent[sequence]
        return _pack(len(body), sequence, state.reply, 0, 0, 2, worker, more, 0, 0, 0, 0, 0,
                     NO_TRACE, 0) + body

    def _check_body(self, size: int) -> None:
        self._check_open()
        if size > self._body_bytes_max:
            raise error("body_too_large", f"request of {size} bytes exceeds body_bytes_max "
                                          f"{self._body_bytes_max}")

    def next_within(self, sequence: int, head: tuple[Any, ...]) -> float | None:
        """Of a PIECE: the seconds within which the next one comes, if its worker put the deadline
        off; None = the deadline stays."""
        state = self._more.get(sequence)
        if state is None or not state.extendable or not head[11]:
            return None
        return head[11] / 1000  # type: ignore[no-any-return]

    def has(self, sequence: int) -> bool:
        """Whether an outcome of this request is still to come."""
        return sequence in self._open

    def is_whole(self, sequence: int) -> bool:
        """Whether this side has made one frame of this request, which is all of it."""
        state = self._more.get(sequence)
        return state is None or (state.frames == 1 and not state.ours)

    def cancel(self, sequence: int) -> bytes:
        """The frame that gives up a request whose outcome is still wanted: most likely it is the
        error `cancelled`."""
        self._check_open()
        return frame(t.CANCEL, sequence=sequence)

    def give_up(self, sequence: int) -> bytes:
        """Forgets a request; its outcome is dropped. Returns the frames that tell the broker, which
        are empty if there is nothing to tell."""
        known = self._open.pop(sequence, None) is not None
        state = self._more.pop(sequence, None)
        silent = self._silent.pop(sequence, None)
        if self.phase != OPEN or not (known or silent is not None):
            return b""
        out = frame(t.CANCEL, sequence=sequence)
        if silent is not None or (state is not None and state.ours):
            # The broker throws away what is left of a request in pieces up to its last frame.
            out += frame(t.DATA, sequence=sequence)
        return out

    def unsent(self, sequence: int) -> None:
        """Forgets a request none of whose frames will be written."""
        self._open.pop(sequence, None)
        self._more.pop(sequence, None)
        self._silent.pop(sequence, None)
        self._asked.pop(sequence, None)

    def flush(self, slot: Any) -> tuple[int, bytes]:
        """The frame that asks the broker to say when all that was sent before was taken by a worker
        or refused; FLUSHED is its answer."""
        self._check_open()
        sequence = self._next()
        self._asked[sequence] = slot
        self.has_unflushed = False
        return sequence, frame(t.FLUSH, sequence=sequence)

    def forget(self, sequence: int) -> None:
        """Nobody waits for the answer to this publish or flush any more."""
        self._asked.pop(sequence, None)

    # Topics and instances.

    def publish(self, slot: Any, body: bytes) -> tuple[int, bytes]:
        """The frame of a message (`_topics.message_body`). With a slot its answer is PUBLISHED or
        FAILED; without one (None) only a refusal is told, as REFUSED."""
        self._check_open()
        if len(body) > self._body_bytes_max:
            raise error("body_too_large", f"a message of {len(body)} bytes with its lines exceeds "
                                          f"body_bytes_max {self._body_bytes_max}", advice="")
        sequence = self._next()
        if slot is None:
            self._unawaited = True
        else:
            self._asked[sequence] = slot
        return sequence, frame(t.PUBLISH, body, sequence=sequence, reply=int(slot is not None))

    def subscribe(self, topic: Topic) -> bytes:
        """Notes a subscription, and makes the frame that asks for it. Empty while there is no
        connection: the next login asks. What comes is told as NEWS of the topic."""
        topic.number = self._next()
        self._topics[topic.number] = topic
        return topic.ask() if self.phase == OPEN else b""

    def unsubscribe(self, topic: Topic) -> bytes:
        """The frame that ends a subscription; `topic.has_ended` once the broker has answered. Empty
        if there is nothing to tell the broker: it has ended then."""
        if topic.has_ended:
            return b""
        if self.phase != OPEN:
            self._topics.pop(topic.number, None)
            topic.refuse(error("not_found", "this subscription has ended"))
            return b""
        return topic.end()

    def announce(self, watched: Watched) -> bytes:
        """Notes an instance, and makes the frame that announces it; empty while there is no
        connection: the next login announces it. NEWS of it comes."""
        known = self._instances.get(watched.id)
        if known is not None and known.failure is None:
            raise error("bad_instance", f"there is an instance with id {watched.id} on this "
                                        "connection already")
        made = watched.announce(self._next()) if self.phase == OPEN else b""
        self._instances[watched.id] = watched
        return made

    def free_id(self, pid: int) -> int:
        """An id for an instance that names none: made of the process id, another one each time."""
        made = pid + (self._without_id << 32)
        self._without_id += 1
        return made

    def set_state(self, watched: Watched, state: str | int, text: str) -> bytes:
        """The frame that says another state; empty while there is no connection: the next login
        says it. Raises why the broker does not watch it any more."""
        watched.set_state(state, text)
        if self.phase != OPEN or watched.phase != WATCHED:
            return b""
        return watched.change(self._next())

    def withdraw(self, watched: Watched, failed: bool, text: str) -> bytes:
        """Ends an instance, and makes the frame that says so; empty if there is nothing to say."""
        made = b""
        if watched.failure is None and self.phase == OPEN:
            made = watched.withdraw(self._next(), failed, text)
            watched.refuse(error("bad_instance", "this instance was withdrawn"))
        if self._instances.get(watched.id) is watched:
            del self._instances[watched.id]
        return made

    @property
    def has_watched(self) -> bool:
        """Whether an instance owes beats."""
        return any(one.phase == WATCHED for one in self._instances.values())

    def beat(self) -> bytes:
        """The frames of a beat of all instances that are watched."""
        if self.phase != OPEN:
            return b""
        return b"".join(beat_frames(iter(self._next, None), self._instances.values()))

    # Frames of the broker.

    def receive(self, data: bytes) -> list[Event]:
        """What these bytes mean. Bytes that are no whole frame wait for the rest."""
        events: list[Event] = []
        if self.is_broken:
            return events
        buffer = self._buffer
        source: bytes | bytearray = data
        if buffer is not None:
            buffer += data
            source = buffer
        at = 0
        size = len(source)
        known = self._open
        body_bytes_max = self._body_bytes_max
        while size - at >= 64:
            head = _unpack_from(source, at)
            end = at + 64 + head[0]
            # A data frame of a request under way, whole, the last one, without an error.
            if not (head[4] or head[3] or head[7]) and head[5] == 2 and end <= size \
                    and head[0] <= body_bytes_max and head[9] <= 3 and head[2] <= 1 \
                    and head[1] in known:
                body = source[at + 64:end]
                if buffer is not None:
                    body = bytes(body)
                at = end
                sequence = head[1]
                slot = known.pop(sequence)
                if self._more:
                    self._answered(sequence)
                events.append((slot, 0, body, head))
                continue
            try:
                if head[4] or head[5] != 2 or head[0] > body_bytes_max or head[9] > 3 \
                        or (head[2] | head[7]) > 1:
                    self._inbox._check(Header._make(head))
                if end > size:
                    break
                body = bytes(source[at + 64:end])
                at = end
                self._frame(Header._make(head), body, events)
                # The login sets it.
                body_bytes_max = self._body_bytes_max
            except IsectError as fault:
                self.is_broken = True
                self._buffer = None
                why = ConnectionFailed(fault.name, f"the broker broke the protocol: {fault.text}",
                                       ran="maybe")
                events.append((None, BROKEN, why, head))
                return events
        if at == size:
            self._buffer = None
        elif buffer is None:
            self._buffer = bytearray(data[at:])
        elif at:
            del buffer[:at]
        return events

    def _answered(self, sequence: int) -> None:
        """Ends a request whose outcome has come."""
        state = self._more.pop(sequence, None)
        if state is not None and state.ours and self.phase == OPEN:
            # The rest of it is thrown away up to its last frame, so that must come.
            self.outgoing.append(frame(t.DATA, sequence=sequence))

    def _frame(self, head: Header, body: bytes, events: list[Event]) -> None:
        kind = head.command
        is_open = self.phase in (OPEN, FINISHED)
        if kind == t.DATA and is_open:
            self._data(head, body, events)
        elif kind == t.PING:
            if self.phase != FINISHED:
                self.outgoing.append(frame(t.PONG, sequence=head.sequence))
        elif kind == t.PONG:
            pass
        elif kind == t.ERROR:
            self._error(head, body, events)
        elif is_open:
            if kind == t.MESSAGE:
                topic = self._topics.get(head.sequence)
                if topic is not None:
                    topic.message(head, body)
                    events.append((topic, NEWS, None, head))
            else:
                act = _CONTROL.get(kind)
                if act is None:
                    raise _unexpected(kind)
                act(self, Lines.parse(body), head, events)
        elif self.phase == LOGGING_IN and kind == t.LOGIN_OK:
            self._logged_in(Lines.parse(body), head, events)
        elif self.phase == LOGGING_IN and kind == t.CHALLENGE:
            if self._prover is None:
                raise error("unproven", "the broker wants proof of a token, and none was named")
            events.append((None, CHALLENGED, Lines.parse(body), head))
        else:
            raise _unexpected(kind)

    def _data(self, head: Header, body: bytes, events: list[Event]) -> None:
        if head.error < 0:
            raise error("bad_frame", f"a data frame carries error {head.error}; only error frames "
                                     "may")
        sequence = head.sequence
        if sequence not in self._open:
            # Of one that was given up, or of none.
            return
        if head.error > 0:
            slot = self._open.pop(sequence)
            state = self._more.pop(sequence, None)
            if self.phase == OPEN:
                if head.more:
                    # The worker goes on after its error; nobody listens.
                    self.outgoing.append(frame(t.CANCEL, sequence=sequence))
                if state is not None and state.ours:
                    self.outgoing.append(frame(t.DATA, sequence=sequence))
            failure = application(head.error, body.decode(errors="replace"))
            events.append((slot, FAILED, failure, head))
        elif head.more:
            state = self._more.get(sequence)
            if state is None:
                state = self._more[sequence] = _More(0, False, 1)
            state.theirs = 1
            events.append((self._open[sequence], PIECE, body, head))
        else:
            slot = self._open.pop(sequence)
            self._answered(sequence)
            events.append((slot, ANSWER, body, head))

    def _error(self, head: Header, body: bytes, events: list[Event]) -> None:
        failure = error_of(head, body)
        if self.phase == LOGGING_IN:
            self.phase = CLOSED
            events.append((None, NOT_LOGGED_IN, failure, head))
            return
        if self.phase not in (OPEN, FINISHED):
            raise _unexpected(t.ERROR)
        row = t.ERRORS.get(failure.code)
        closes = row is not None and row.closes
        if closes:
            self.closing = failure
        sequence = head.sequence
        if sequence in self._open:
            slot = self._open.pop(sequence)
            self._answered(sequence)
            events.append((slot, FAILED, failure, head))
        elif sequence in self._asked:
            events.append((self._asked.pop(sequence), FAILED, failure, head))
        elif sequence in self._topics:
            topic = self._topics.pop(sequence)
            topic.refuse(failure)
            events.append((topic, NEWS, None, head))
        elif closes:
            events.append((None, CLOSING, failure, head))
        else:
            for watched in self._instances.values():
                if watched.sequence == sequence and watched.phase == INSTANCE_ASKED:
                    watched.refuse(failure)
                    events.append((watched, NEWS, None, head))
                    return
            if sequence and failure.name in _OF_MESSAGES and self._unawaited:
                self.refused.append(failure)
                events.append((None, REFUSED, failure, head))

    def _logged_in(self, lines: Lines, head: Header, events: list[Event]) -> None:
        prover = self._prover
        if prover is not None and not prover.is_proven(lines.get("signature")):
            raise error("unproven", "the broker let this login in, but did not prove that it knows "
                                    "the token")
        limits = Limits(
            client=lines.number("client"),
            body_bytes_max=min(lines.number("body_bytes_max"), t.BODY_BYTES_MAX),
            requests_max=lines.number("requests_max", 1),
            deadline_ms=lines.number("deadline_ms", 0),
            heartbeat_ms=lines.number("heartbeat_ms", 0),
            silence_ms=lines.number("silence_ms", 0),
            version=lines.get("version"),
        )
        self._prover = None
        self.limits = limits
        self._body_bytes_max = self._inbox.body_bytes_max = limits.body_bytes_max
        self._requests_max = max(1, limits.requests_max)
        self.phase = OPEN
        for watched in self._instances.values():
            if watched.phase == INSTANCE_ASKED:
                self.outgoing.append(watched.announce(self._next()))
                self.outgoing.append(watched.change(self._next()))
        self.outgoing += [topic.ask() for topic in self._topics.values()]
        events.append((None, LOGGED_IN, limits, head))

    def _on_published(self, lines: Lines, head: Header, events: list[Event]) -> None:
        number = lines.number("publish")
        receipt = Receipt(position_of(lines, "at"), lines.number("subscriptions", 0))
        if number in self._asked:
            events.append((self._asked.pop(number), PUBLISHED, receipt, head))
        elif number in self._open:
            raise _unexpected(t.PUBLISHED)

    def _on_flushed(self, lines: Lines, head: Header, events: list[Event]) -> None:
        number = lines.number("flush")
        refused = lines.number("refused", 0)
        if number in self._asked:
            events.append((self._asked.pop(number), FLUSHED, refused, head))

    def _topic_of(self, lines: Lines) -> Topic | None:
        return self._topics.get(lines.number("subscription"))

    def _on_subscribed(self, lines: Lines, head: Header, events: list[Event]) -> None:
        topic = self._topic_of(lines)
        if topic is not None:
            topic.subscribed(lines)
            events.append((topic, NEWS, None, head))

    def _on_caught_up(self, lines: Lines, head: Header, events: list[Event]) -> None:
        topic = self._topic_of(lines)
        if topic is not None:
            topic.caught_up(lines)
            events.append((topic, NEWS, None, head))

    def _on_unsubscribed(self, lines: Lines, head: Header, events: list[Event]) -> None:
        topic = self._topic_of(lines)
        if topic is not None:
            topic.unsubscribed(lines)
            del self._topics[topic.number]
            events.append((topic, NEWS, None, head))

    def _on_announced(self, lines: Lines, head: Header, events: list[Event]) -> None:
        self.beat_ms = max(1, lines.number("beat_ms"))
        watched = self._instances.get(lines.number("id"))
        if watched is not None:
            watched.announced(lines)
            events.append((watched, NEWS, None, head))

    def _on_beat_ok(self, lines: Lines, head: Header, events: list[Event]) -> None:
        for text in lines.all("unknown"):
            if not (text.isascii() and text.isdigit()):
                raise error("bad_frame", f"unknown is '{text[:40]}'; it is a number")
            watched = self._instances.get(int(text[:20]))
            if watched is not None:
                watched.unknown()
                events.append((watched, NEWS, None, head))


#: Errors that may be about a publish or a state change that nobody awaits.
_OF_MESSAGES = frozenset({"bad_message", "denied", "limit_reached", "body_too_large",
                          "bad_instance", "out_of_range"})

_CONTROL = {
    t.PUBLISHED: Session._on_published,
    t.FLUSHED: Session._on_flushed,
    t.SUBSCRIBED: Session._on_subscribed,
    t.CAUGHT_UP: Session._on_caught_up,
    t.UNSUBSCRIBED: Session._on_unsubscribed,
    t.ANNOUNCED: Session._on_announced,
    t.BEAT_OK: Session._on_beat_ok,
}


def _unexpected(kind: int) -> IsectError:
    return error("bad_state", f"the broker sent a {t.KINDS[kind]} frame, which can't come now")


def flags_of(idempotent: bool, extendable: bool) -> int:
    """The flags of a request."""
    return (IDEMPOTENT if idempotent else 0) | (EXTENDABLE if extendable else 0)
