"""What one connection of the blocking front sends, gets and loses.

All of this is called with the lock held, and waits for nothing; `_reading` waits, `_link` begins
requests.

What must hold
--------------
- `lock` is held for each use of the session, and for no wait. `with` takes it, so that an interrupt
  (KeyboardInterrupt) can't leave it locked.
- Bytes are read by `inbox.extend(map(recv, …))` and counted by `sent.extend(map(send, …))`: one
  call of C code that reads and keeps. An interrupt comes before or after it, so no byte is lost.
- `is_busy` is set while a change is half made. If an interrupt leaves it so, the connection is
  dropped: nobody gets an answer that is not his.
- User's code (callbacks of futures) never runs with the lock held: `finished` holds what is to be
  told, and `settle` tells it.
"""

from __future__ import annotations

import threading
from collections import deque
from random import random
from time import monotonic
from typing import Any

from . import _tables as t
from ._dial import DONT_WAIT, READ_BYTES, Options, Pipe, tls_fault
from ._errors import DeadlineExceeded, ForkedError, IsectError, error, with_ran
from ._keepalive import Keepalive
from ._logs import log
from ._session import (ANSWER, BROKEN, FAILED, FLUSHED, NEWS, OPEN, PIECE, PUBLISHED, REFUSED,
                       Event, Session, millis)
from ._slot import GRACE, Slot
from ._topics import Topic

#: First and longest wait between two attempts to log in again, in seconds.
RETURN_WAITS = (0.02, 1.0)
#: A connection that lasted this long begins the waits anew.
LASTED = 5.0
#: Most bytes of frames that are written with one call.
JOINED_BYTES_MAX = 262_144

READ = (READ_BYTES,)
FLAGS = (DONT_WAIT,)


class Traffic:
    """The connection to one service, as far as nothing waits: what was asked, is written, was read,
    and what becomes of it when the connection is lost."""

    def __init__(
        self, service: str, options: Options, lines: list[tuple[str, str]] | None = None,
        is_constant: bool = False,
    ) -> None:
        """`is_constant`: the helper thread reads whenever nobody else does, so that pings are
        answered and what comes is there."""
        self.service = service
        self.options = options
        self.lines = lines or []
        self.is_constant = is_constant
        self.lock = threading.Lock()
        self.session = Session()
        self.pipe: Pipe | None = None
        #: Who reads, or connects; None = nobody.
        self.reader: object = None
        self._reader_thread = 0
        #: Threads that wait for the reader, by what they wait for.
        self.followers: dict[object, list[Any]] = {}
        #: Requests that wait for room, or for the connection.
        self.backlog: deque[Any] = deque()
        #: Requests whose outcome is to be told without the lock.
        self.finished: deque[Any] = deque()
        #: Requests that were sent and have no outcome, should the session lose them because a
        #: thread was interrupted in the middle of it.
        self.live: set[Any] = set()
        #: Futures under way.
        self.pending: set[Any] = set()
        self.sent: list[int] = []
        self.outbox: list[bytes] = []
        #: What is being written, of how many frames of the outbox, and their length.
        self._raw: bytes | memoryview | None = None
        self._raw_count = 0
        self.is_busy = False
        self.keepalive = Keepalive()
        self._default: float | None = None
        self._used = 0.0
        self._since = 0.0
        self._wait = RETURN_WAITS[0]
        self.next_try = 0.0
        #: Why the connection was lost, or the last attempt failed.
        self.last_error: IsectError | None = None
        #: Why there is no connection and no attempt any more.
        self.ended: IsectError | None = None
        self.was_up = False
        self.is_forked = False
        #: Whether the program has closed it.
        self.is_closed = False
        #: Whether messages were published that no flush has asked about.
        self.has_published = False
        #: Why it is not known what became of what nobody waited for.
        self.unflushed: IsectError | None = None
        #: When the instances of the connection beat last.
        self.beaten = 0.0
        #: What is to be logged, once the lock is free: logging has locks of its own.
        self._notes: deque[tuple[int, str, object]] = deque(maxlen=100)
        #: What was given up by objects that are gone.
        self.orphans: deque[Any] = deque()

    # Requests.

    def _check_up(self) -> None:
        """Raises if there is no connection, and none is made any more."""
        if self.is_forked:
            self.is_busy = False
            raise forked()
        if self.ended is not None:
            self.is_busy = False
            raise with_ran(self.ended, "no")

    def check_open(self) -> None:
        """Raises if nothing can be written now."""
        if self.pipe is None or self.session.phase != OPEN:
            failure = self.last_error or error("broker_lost", "the connection to the broker broke")
            raise with_ran(failure, "no")

    def _no_answer(self, slot: Any) -> IsectError:
        """Gives up a request for which nothing came in time, and says why; the lock is held."""
        waits = slot in self.backlog
        ran = self.give_up(slot)
        if waits and self.pipe is None and self.last_error is not None:
            return with_ran(self.last_error, "no")
        return late(self.service, ran)

    def _unbacklog(self) -> None:
        """Sends what waits, as far as there is room; the lock is held."""
        session = self.session
        backlog = self.backlog
        now = monotonic()
        while backlog and session.phase == OPEN and session.room > 0:
            slot = backlog.popleft()
            if slot.is_done:
                continue
            deadline_ms = 0
            if slot.timeout is not None:
                left = slot.until - now
                if left <= 0:
                    self._tell(slot, None, late(self.service, "no"))
                    continue
                deadline_ms = millis(left)
            elif slot.until is None and self._default is not None and not slot.is_endless:
                slot.until = now + self._default
                slot.wait_until = slot.until + GRACE
            elif slot.until is None:
                slot.wait_until = None
            try:
                slot.sequence, made = session.request(slot, slot.body, slot.flags, deadline_ms,
                                                      slot.priority, slot.trace_id, slot.span_id)
            except IsectError as why:
                self._tell(slot, None, why)
                continue
            self._used = now
            self.live.add(slot)
            self.outbox.append(made)
        if self.outbox:
            self._flush()

    def give_up(self, slot: Slot) -> str:
        """Forgets a request, and tells the broker; the lock is held. Returns whether it has run, as
        far as this side knows: `no` or `maybe`."""
        self.live.discard(slot)
        if slot in self.backlog:
            self.backlog.remove(slot)
            return "no"
        sequence = slot.sequence
        if not sequence or self.pipe is None or not self.session.has(sequence):
            return "maybe"
        number = sequence.to_bytes(4, "big")
        own = [at for at, made in enumerate(self.outbox) if made[4:8] == number]
        begun = self._raw_count if self._raw is not None else 0
        if own and own[0] < begun:
            self.session.unsent(sequence)
            self._lose("the broker took a part of a request only, and nothing more in time")
            return "no" if self.session.phase != OPEN else "maybe"
        if own and self.session.is_whole(sequence):
            del self.outbox[own[0]]
            self.session.unsent(sequence)
            return "no"
        out = self.session.give_up(sequence)
        if out:
            self.outbox.append(out)
            self._flush()
        return "maybe"

    def _bury(self) -> None:
        """Gives up what nobody has any more; the lock is held."""
        while self.orphans:
            slot = self.orphans.popleft()
            if isinstance(slot, Topic):
                out = self.session.unsubscribe(slot)
                if out and self.pipe is not None:
                    self.write(out)
            elif not slot.is_done:
                slot.is_done = True
                self.give_up(slot)

    # Writing.

    def write(self, made: bytes) -> None:
        """Sends a frame; the lock is held."""
        self.outbox.append(made)
        if not self._flush() and self.reader is None:
            self._fault_seen()

    def _flush(self) -> bool:
        """Writes what the system takes now; True = nothing is left. The lock is held."""
        was_busy = self.is_busy
        self.is_busy = True
        is_all = self._write_out()
        self.is_busy = was_busy
        return is_all

    def _write_out(self) -> bool:
        pipe = self.pipe
        outbox = self.outbox
        sent = self.sent
        if pipe is None:
            return True
        while outbox:
            raw = self._raw
            if raw is None:
                count = len(outbox)
                if count == 1:
                    raw = outbox[0]
                else:
                    size = count = 0
                    for made in outbox:
                        size += len(made)
                        count += 1
                        if size > JOINED_BYTES_MAX:
                            break
                    raw = b"".join(outbox[:count])
                if pipe.tls is not None:
                    raw = pipe.tls.seal(raw)
                self._raw_count = count
                self._raw = raw
            if not sent:
                try:
                    sent.extend(map(pipe.send, (raw,), FLAGS))
                except BlockingIOError:
                    return False
                except OSError as why:
                    pipe.fault = why
                    # Whoever reads comes to the end of what is there.
                    pipe.stop_reading()
                    return False
            done = sent.pop()
            if done < len(raw):
                self._raw = memoryview(raw)[done:]
            else:
                del outbox[:self._raw_count]
                self._raw = None
        return True

    def _unwritten(self) -> list[bytes]:
        """The frames that did not leave as a whole."""
        if self._raw is None:
            return list(self.outbox)
        if self.pipe is not None and self.pipe.tls is not None:
            # Where in what is sealed a frame ends is not known.
            return self.outbox[self._raw_count:]
        left = len(self._raw)
        found = self.outbox[self._raw_count:]
        for made in reversed(self.outbox[:self._raw_count]):
            if left <= 0:
                break
            found.append(made)
            left -= len(made)
        return found

    # Reading.

    def take_in(self) -> None:
        """Handles what was read; the lock is held."""
        if self.is_busy:
            self._interrupted()
        self.is_busy = True
        if self.orphans:
            self._bury()
        pipe = self.pipe
        if pipe is not None:
            inbox = pipe.inbox
            while inbox:
                data = inbox[0]
                del inbox[0]
                if pipe.tls is not None and data:
                    data = self._open(pipe, data)
                    if data is None:
                        continue
                if not data:
                    inside = "" if self.session.is_between_frames else " inside a frame"
                    self._lose(f"the broker at {pipe.address} closed the connection{inside}")
                    break
                self.keepalive.heard()
                self._handle(self.session.receive(data))
                if self.pipe is not pipe:
                    break
            if pipe.fault is not None and self.pipe is pipe:
                self._fault_seen()
            if self.backlog and self.pipe is not None:
                self._unbacklog()
        self.is_busy = False

    def _open(self, pipe: Pipe, data: bytes) -> Any:
        assert pipe.tls is not None
        try:
            plain, is_end, answer = pipe.tls.open(data)
        except OSError as why:
            failure = tls_fault(why, pipe.tls)
            self._drop(error("broker_lost", f"the connection to the broker at {pipe.address} "
                                            f"broke: {failure.text}"))
            return None
        if answer:
            self._send_raw(pipe, answer)
        if is_end:
            pipe.inbox.insert(0, b"")
        return plain or None

    def _send_raw(self, pipe: Pipe, raw: bytes) -> None:
        """Sends what TLS says by itself; before frames, if some are half written."""
        if self._raw is None:
            self.outbox.insert(0, b"")
            self._raw, self._raw_count = raw, 1
        else:
            self._raw = bytes(self._raw) + raw
        self._flush()

    def _handle(self, events: list[Event]) -> None:
        session = self.session
        followers = self.followers
        live = self.live
        for slot, what, value, head in events:
            if what == ANSWER:
                slot.answered(self, value)
                live.discard(slot)
                if slot.is_told:
                    self.finished.append(slot)
            elif what == PIECE:
                within = session.next_within(slot.sequence, head)
                if within is not None:
                    slot.wait_until = monotonic() + within + GRACE
                slot.came(self, value, head)
                if slot.is_done and slot.is_told:
                    self.finished.append(slot)
            elif what == FAILED:
                self._tell(slot, None, value)
            elif what in (PUBLISHED, FLUSHED):
                self._tell(slot, value, None)
            elif what == BROKEN:
                self._drop(value)
                return
            elif what == REFUSED:
                self._notes.append((30, "the broker refused a message: %s", value))
            if followers and slot is not None:
                self.wake(slot)
        if session.outgoing:
            self.outbox += session.outgoing
            session.outgoing.clear()
            self._flush()

    # Outcomes.

    def _tell(self, slot: Any, value: Any, failure: IsectError | None) -> None:
        """Gives a slot its outcome."""
        self.live.discard(slot)
        if failure is None:
            slot.answered(self, value)
        else:
            if slot.may_have_run and failure.ran == "no":
                failure = with_ran(failure, "maybe")
            slot.failed(self, failure)
        if slot.is_told:
            self.finished.append(slot)
        if self.followers:
            self.wake(slot)

    def wake(self, slot: object) -> None:
        for waker in self.followers.get(slot, ()):
            if waker.locked():
                waker.release()

    def settle(self) -> None:
        """Tells futures their outcome; without the lock, because it calls the program's code."""
        finished = self.finished
        while finished:
            try:
                slot = finished[0]
            except IndexError:
                return
            self.pending.discard(slot)
            # It stays there until it is told: if this thread is interrupted, another one tells it.
            slot.settle()
            try:
                finished.remove(slot)
            except ValueError:
                pass
        while self._notes:
            try:
                level, text, value = self._notes.popleft()
            except IndexError:
                return
            log(level, text, value)

    # The loss of the connection.

    def _look(self) -> None:
        """Reads what is there, without waiting, after the connection was quiet for a while."""
        pipe = self.pipe
        assert pipe is not None
        try:
            pipe.inbox.extend(map(pipe.recv, READ, FLAGS))
        except BlockingIOError:
            return
        except OSError as why:
            pipe.fault = why
        self.is_busy = False
        self.take_in()
        self.is_busy = True

    def _fault_seen(self) -> None:
        """Handles a failed read or write; the lock is held."""
        pipe = self.pipe
        if pipe is None or pipe.fault is None:
            return
        why, pipe.fault = pipe.fault, None
        # What the broker said before it closed is a better reason than "broken pipe".
        try:
            while True:
                data = pipe.sock.recv(READ_BYTES, DONT_WAIT)
                if not data:
                    break
                if pipe.tls is not None:
                    data = pipe.tls.open(data)[0]
                self._handle(self.session.receive(data))
                if self.pipe is None:
                    return
        except OSError:
            pass
        self._lose(f"the connection to the broker at {pipe.address} broke: "
                   f"{why.strerror or why}")

    def _lose(self, text: str) -> None:
        self._drop(error("broker_lost", text))

    def _interrupted(self) -> None:
        """A thread was interrupted in the middle of a change: nothing of this connection can be
        relied on."""
        self.is_busy = False
        text = ("this program was interrupted in the middle of reading an answer, so the "
                "connection was given up")
        self._lose(text)
        for slot in list(self.live):
            if not slot.is_done and slot not in self.backlog:
                failure = error("broker_lost", text)
                if self.options.reconnect and self._repeats(slot, failure, monotonic()):
                    self.live.discard(slot)
                    slot.may_have_run = True
                    self.backlog.append(slot)
                else:
                    self._tell(slot, None, failure)
            elif slot.is_done:
                self.live.discard(slot)
                if slot.is_told:
                    self.finished.append(slot)
                self.wake(slot)

    def _drop(self, why: IsectError) -> None:
        """Ends the connection, and gives all requests under way their outcome; the lock is
        held."""
        pipe, self.pipe = self.pipe, None
        if pipe is None:
            return
        is_known = not (self.session.has_unflushed or self.has_published)
        unwritten = self._unwritten()
        self.outbox.clear()
        self.sent.clear()
        self._raw = None
        pipe.close()
        reason, events = self.session.lost(why, unwritten)
        self.last_error = reason
        if not is_known:
            self.has_published = False
            self.unflushed = with_ran(reason, "maybe")
        now = self.next_try = monotonic()
        if now - self._since >= LASTED:
            self._wait = RETURN_WAITS[0]
        else:
            # A broker that lets a client in and closes again is not tried without end.
            self.next_try += self._wait * (1 - random() / 2)
            self._wait = min(self._wait * 2, RETURN_WAITS[1])
        self._notes.append((20, "%s", reason))
        comes_back = self.options.reconnect and self.ended is None
        if not comes_back and self.ended is None:
            self.ended = reason
        for slot, what, value, _ in events:
            if what == NEWS:
                self.wake(slot)
            elif comes_back and self._repeats(slot, value, now):
                self.live.discard(slot)
                slot.may_have_run = slot.may_have_run or value.ran != "no"
                self.backlog.append(slot)
            else:
                self._tell(slot, None, value)
        if self.ended is not None:
            self._end(self.ended)

    def _repeats(self, slot: Any, failure: IsectError, now: float) -> bool:
        """Whether a request is sent again by itself: only what can't run twice, or may."""
        if not slot.is_repeatable or slot.parts:
            return False
        # The broker may have said why it closes: not only `broker_lost` passes.
        row = t.ERRORS.get(failure.code)
        if row is None or row.retry == "never":
            return False
        if failure.ran != "no" and not slot.flags & 1:
            return False
        return slot.until is None or now < slot.until

    def _end(self, why: IsectError) -> None:
        """No connection is made any more; the lock is held."""
        self.ended = why
        while self.backlog:
            self._tell(self.backlog.popleft(), None, with_ran(why, "no"))
        for topic, _, _, _ in self.session.end(why):
            self.wake(topic)
        for wakers in self.followers.values():
            for waker in wakers:
                if waker.locked():
                    waker.release()


def forked() -> ForkedError:
    """The error for a child that inherited a connection."""
    return ForkedError("bad_state", "this connection belongs to the process that this one was "
                       "forked from; call isect.connect() in this process", advice="")


def late(service: str, ran: str) -> IsectError:
    return DeadlineExceeded("timeout", f"no answer of service '{service}' came in time", ran=ran)
