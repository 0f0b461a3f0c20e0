"""The client's side of a connection, frame by frame, without a socket."""

from __future__ import annotations

import random
import unittest

from isect import _session as s
from isect import _tables as t
from isect._errors import ConnectionFailed, IsectError, Refused, UsageError, WorkerFailed, error
from isect._instances import Watched
from isect._topics import CaughtUp, Lost, Message, Missing, Position, Resumed, Topic, message_body
from isect._wire import Header, Inbox, Lines, frame

LOGIN_OK = b"client 1\nbody_bytes_max 1000\nrequests_max 4\ndeadline_ms 500\nsilence_ms 3000\n"


def opened() -> s.Session:
    session = s.Session()
    session.login([("service", "echo")])
    [event] = session.receive(frame(t.LOGIN_OK, LOGIN_OK))
    assert event[1] == s.LOGGED_IN
    return session


def failure(sequence: int, name: str, text: str = "text") -> bytes:
    row = error(name, text)
    lines = Lines([("code", str(row.code)), ("name", name), ("ran", row.ran)], text)
    return frame(t.ERROR, lines.bytes(), sequence=sequence, error=row.code)


def frames(data: bytes) -> list[tuple[Header, bytes]]:
    inbox = Inbox(1 << 20)
    inbox.feed(data)
    found = []
    while (one := inbox.take()) is not None:
        found.append(one)
    assert inbox.is_between_frames
    return found


def sent(session: s.Session) -> list[tuple[Header, bytes]]:
    out = b"".join(session.outgoing)
    session.outgoing.clear()
    return frames(out)


class Requests(unittest.TestCase):
    def test_an_answer_goes_to_the_slot_that_asked(self) -> None:
        session = opened()
        one, first = session.request("one", b"1")
        two, second = session.request("two", b"2", flags=1, deadline_ms=7, priority=3, span_id=9)
        head, body = frames(first + second)[1]
        self.assertEqual((head.sequence, head.reply, head.flags, head.deadline_ms, head.priority,
                          head.span_id, body), (two, 1, 1, 7, 3, 9, b"2"))
        events = session.receive(frame(0, b"b", sequence=two) + frame(0, b"a", sequence=one))
        self.assertEqual([event[:3] for event in events],
                         [("two", s.ANSWER, b"b"), ("one", s.ANSWER, b"a")])
        self.assertEqual(session.under_way, 0)
        # A second answer has nobody to go to.
        self.assertEqual(session.receive(frame(0, b"again", sequence=one)), [])

    def test_bytes_come_in_any_pieces(self) -> None:
        for size in (1, 7, 63, 64, 65, 200):
            session = opened()
            stream = b""
            for number in range(4):
                sequence, _ = session.request(number, b"")
                stream += frame(0, bytes([number]) * number * 20, sequence=sequence)
                stream += frame(t.PING, sequence=number)
            got = []
            for at in range(0, len(stream), size):
                got += session.receive(stream[at:at + size])
            self.assertEqual([(event[0], event[2]) for event in got],
                             [(number, bytes([number]) * number * 20) for number in range(4)])
            self.assertTrue(all(type(event[2]) is bytes for event in got))
            self.assertTrue(session.is_between_frames)
            self.assertEqual([head.command for head, _ in sent(session)], [t.PONG] * 4)

    def test_what_was_given_up_is_dropped_however_late_it_comes(self) -> None:
        session = opened()
        sequence, _ = session.request("old", b"")
        [(head, _)] = frames(session.give_up(sequence))
        self.assertEqual((head.command, head.sequence), (t.CANCEL, sequence))
        self.assertEqual(session.give_up(sequence), b"")
        other, _ = session.request("new", b"")
        self.assertNotEqual(other, sequence)
        self.assertEqual(session.receive(frame(0, b"late", sequence=sequence)), [])
        self.assertEqual(session.receive(failure(sequence, "cancelled")), [])
        [event] = session.receive(frame(0, b"new", sequence=other))
        self.assertEqual(event[:3], ("new", s.ANSWER, b"new"))

    def test_numbers_begin_anew_without_those_in_use(self) -> None:
        session = opened()
        first, _ = session.request("first", b"")
        session._last = 2**32 - 1
        second, _ = session.request("second", b"")
        self.assertEqual((first, second), (1, 2))

    def test_limits_are_named_and_nothing_changes_past_them(self) -> None:
        session = opened()
        with self.assertRaises(Refused) as caught:
            session.request("x", bytes(1001))
        self.assertIn("1001 bytes exceeds body_bytes_max 1000", str(caught.exception))
        for number in range(4):
            session.request(number, b"")
        self.assertEqual(session.room, 0)
        with self.assertRaises(Refused) as caught:
            session.request("x", b"")
        self.assertIn("requests_max is 4", str(caught.exception))
        self.assertEqual(session.under_way, 4)
        with self.assertRaises(UsageError):
            s.Session().request("x", b"")

    def test_a_request_in_pieces_that_the_broker_ends_is_finished_at_once(self) -> None:
        session = opened()
        sequence, first = session.request("a", b"1", more=1)
        self.assertEqual(frames(first)[0][0].more, 1)
        [(head, body)] = frames(session.further(sequence, b"2", 1))
        self.assertEqual((head.sequence, head.reply, head.more, body), (sequence, 1, 1, b"2"))
        [event] = session.receive(failure(sequence, "overloaded"))
        self.assertEqual((event[0], event[1], event[2].name), ("a", s.FAILED, "overloaded"))
        [(head, body)] = sent(session)
        self.assertEqual((head.command, head.sequence, head.reply, head.more, body),
                         (t.DATA, sequence, 0, 0, b""))
        with self.assertRaises(Refused) as caught:
            session.further(sequence, b"3", 0)
        self.assertEqual(caught.exception.name, "no_conversation")
        # Whole: nothing is owed.
        sequence, _ = session.request("b", b"1", more=1)
        session.further(sequence, b"2", 0)
        session.receive(frame(0, b"", sequence=sequence))
        self.assertEqual(sent(session), [])
        # Given up in the middle: cancel, then the last piece.
        sequence, _ = session.request("c", b"1", more=1)
        kinds = [head.command for head, _ in frames(session.give_up(sequence))]
        self.assertEqual(kinds, [t.CANCEL, t.DATA])

    def test_a_conversation(self) -> None:
        session = opened()
        sequence, _ = session.request("a", b"?", flags=2)
        with self.assertRaises(Refused):
            session.further(sequence, b"", 1, 7)
        [event] = session.receive(
            frame(0, b"!", sequence=sequence, more=1, workerid=7, deadline_ms=1500))
        self.assertEqual((event[1], event[2], event[3][6]), (s.PIECE, b"!", 7))
        self.assertEqual(session.next_within(sequence, event[3]), 1.5)
        [(head, _)] = frames(session.further(sequence, b"x", 1, 7))
        self.assertEqual((head.workerid, head.more), (7, 1))
        session.further(sequence, b"x", 0, 7)
        [event] = session.receive(frame(0, b"end", sequence=sequence))
        self.assertEqual(event[1], s.ANSWER)
        with self.assertRaises(Refused):
            session.further(sequence, b"", 0, 7)

    def test_the_workers_own_error_is_its_own(self) -> None:
        session = opened()
        sequence, _ = session.request("a", b"")
        [event] = session.receive(frame(0, b"no such colour", sequence=sequence, error=17))
        self.assertEqual((event[1], event[2].code, event[2].text),
                         (s.FAILED, 17, "no such colour"))
        self.assertIsInstance(event[2], WorkerFailed)
        # One that goes on after its error is stopped.
        sequence, _ = session.request("a", b"")
        session.receive(frame(0, b"no", sequence=sequence, error=17, more=1))
        self.assertEqual([head.command for head, _ in sent(session)], [t.CANCEL])

    def test_without_an_answer(self) -> None:
        session = opened()
        sequence, made = session.tell(b"x", more=1)
        self.assertEqual(frames(made)[0][0].reply, 0)
        session.further(sequence, b"y", 0)
        self.assertTrue(session.has_unflushed)
        number, made = session.flush("f")
        self.assertFalse(session.has_unflushed)
        lines = Lines([("flush", str(number)), ("refused", "3")])
        [event] = session.receive(frame(t.FLUSHED, lines.bytes()))
        self.assertEqual(event[:3], ("f", s.FLUSHED, 3))
        self.assertEqual(session.receive(frame(t.FLUSHED, lines.bytes())), [])

    def test_the_loss_of_the_connection_says_what_ran(self) -> None:
        session = opened()
        session.request("whole", b"")
        _, half = session.request("half", b"")
        sequence, _ = session.request("pieces", b"1", more=1)
        further = session.further(sequence, b"2", 0)
        session.flush("flush")
        reason, events = session.lost(error("broker_lost", "gone"), [half, further])
        self.assertEqual({event[0]: event[2].ran for event in events},
                         {"whole": "maybe", "half": "no", "pieces": "maybe", "flush": "maybe"})
        self.assertEqual(len({id(event[2]) for event in events}), 4)
        self.assertEqual(session.under_way, 0)
        with self.assertRaises(UsageError):
            session.request("x", b"")
        # What the broker said is a better reason.
        session = opened()
        session.request("a", b"")
        [event] = session.receive(failure(0, "client_deleted"))
        self.assertEqual(event[1], s.CLOSING)
        reason, events = session.lost(error("broker_lost", "gone"))
        self.assertEqual((reason.name, events[0][2].name), ("client_deleted", "client_deleted"))
        self.assertIsInstance(events[0][2], ConnectionFailed)
        # The next connection begins anew.
        session.login([("service", "echo")])
        session.receive(frame(t.LOGIN_OK, LOGIN_OK))
        reason, _ = session.lost(error("broker_lost", "gone"))
        self.assertEqual(reason.name, "broker_lost")

    def test_what_is_no_frame_breaks_the_connection_and_keeps_what_came_before(self) -> None:
        wrong = [
            frame(0, b"", sequence=1)[:14] + b"\0\3" + frame(0)[16:],
            frame(99),
            frame(t.LOGIN, b""),
            frame(t.LOGIN_OK, LOGIN_OK),
            frame(t.PING, b"x"),
            frame(0, bytes(1001), sequence=1),
            frame(0, b"", sequence=1, flags=4),
            frame(0, b"", sequence=1, reply=2),
            frame(0, b"", sequence=1, error=-3),
            frame(t.FLUSHED, b"flush x\n"),
            frame(t.FLUSHED, b"flush " + b"9" * 5000 + b"\n"),
            frame(t.FLUSHED, b"\xff\n"),
            frame(t.PUBLISHED, b"publish 1\nat 1:2\n"),
            frame(t.PUBLISHED, b"publish 9\nat 1\n"),
            frame(t.BEAT_OK, b"unknown x\n"),
            frame(t.ERROR, b"code \\x\n"),
            frame(t.ERROR, b"a" * (t.CONTROL_BODY_BYTES_MAX + 1)),
        ]
        for bytes_ in wrong:
            session = opened()
            session.request("a", b"")
            two, _ = session.request("b", b"")
            events = session.receive(frame(0, b"good", sequence=two) + bytes_)
            self.assertEqual([event[1] for event in events], [s.ANSWER, s.BROKEN], bytes_[:80])
            self.assertIsInstance(events[1][2], ConnectionFailed)
            self.assertEqual(session.receive(frame(t.PING)), [])
            _, lost = session.lost(events[1][2])
            self.assertEqual((lost[0][0], lost[0][2].ran), ("a", "maybe"))

    def test_whatever_a_broker_sends_nothing_but_our_errors_come(self) -> None:
        rng = random.Random(15)
        for _ in range(2000):
            session = opened()
            for number in range(3):
                session.request(number, b"")
            session.publish("p", b"")
            session.subscribe(Topic("a.>"))
            data = bytearray()
            for _ in range(4):
                body = rng.choice([b"", b"code 5\n", b"flush 4\nrefused 1\n", b"x", b"\n",
                                      b"subscription 5\nat 1:2\n", b"topic a\n\nx"])
                data += frame(rng.choice([0, 0, 5, 6, 17, 33, 37, 38, 39, 41, 44]), body,
                              sequence=rng.randrange(7), more=rng.randrange(2),
                              error=rng.choice([0, 0, 5, -16, -23, -7000]))
            for _ in range(rng.randrange(3)):
                data[rng.randrange(len(data))] = rng.randrange(256)
            events = []
            at = 0
            while at < len(data):
                step = rng.randrange(1, 200)
                events += session.receive(bytes(data[at:at + step]))
                at += step
            outcomes = [event[0] for event in events if event[1] in (s.ANSWER, s.FAILED)]
            _, rest = session.lost(error("broker_lost", "gone"))
            outcomes += [event[0] for event in rest if event[1] == s.FAILED]
            awaited = [one for one in outcomes if one in (0, 1, 2)]
            self.assertEqual(sorted(awaited), [0, 1, 2])

    def test_the_login(self) -> None:
        session = s.Session()
        [(head, body)] = frames(session.login([("service", "echo")]))
        self.assertEqual((head.command, body), (t.LOGIN, b"service echo\n"))
        with self.assertRaises(UsageError):
            session.login([])
        [event] = session.receive(failure(0, "unknown_service", "no service 'echo'"))
        self.assertEqual((event[1], event[2].name), (s.NOT_LOGGED_IN, "unknown_service"))
        session.login([("service", "echo")])
        # Before the login nothing but its answer may come.
        self.assertEqual(session.receive(frame(0, b"", sequence=1))[0][1], s.BROKEN)

    def test_a_broker_that_proves_nothing_is_not_trusted(self) -> None:
        class Never:
            def claim(self) -> list[tuple[str, str]]:
                return [("token", "shop"), ("nonce", "00" * 16)]

            def is_proven(self, signature: str) -> bool:
                return signature == "right"

        for tail, ok in ((b"signature right\n", True), (b"signature wrong\n", False), (b"", False)):
            session = s.Session()
            made = session.login([("service", "echo")], Never())
            self.assertIn(b"token shop\nnonce", made)
            [event] = session.receive(frame(t.CHALLENGE, b"salt 00\n"))
            self.assertEqual((event[1], event[2].get("salt")), (s.CHALLENGED, "00"))
            [event] = session.receive(frame(t.LOGIN_OK, LOGIN_OK + tail))
            self.assertEqual(event[1], s.LOGGED_IN if ok else s.BROKEN)
        # A challenge that nobody asked for.
        session = s.Session()
        session.login([("service", "echo")])
        [event] = session.receive(frame(t.CHALLENGE, b"salt 00\n"))
        self.assertEqual((event[1], event[2].name), (s.BROKEN, "unproven"))

    def test_times(self) -> None:
        self.assertEqual([s.millis(x) for x in (None, 0, 0.0001, 1, 2.0005, 3600)],
                         [0, 1, 1, 1000, 2001, 3600000])
        for wrong in (-1, 3601, float("nan"), float("inf")):
            with self.assertRaises(UsageError):
                s.millis(wrong)


def message(session: s.Session, topic: Topic, number: int, dropped: int = 0, more: int = 0) -> None:
    session.receive(frame(t.MESSAGE, message_body("a.b", b"x"), sequence=topic.number,
                          transaction=number, attempt=dropped, more=more))


def answer(session: s.Session, kind: int, **lines: object) -> list[s.Event]:
    pairs = [(key, str(value)) for key, value in lines.items()]
    return session.receive(frame(kind, Lines(pairs).bytes()))


def live(newest: int = 0, **more: object) -> tuple[s.Session, Topic]:
    session = opened()
    topic = Topic("a.>", **more)  # type: ignore[arg-type]
    session.subscribe(topic)
    answer(session, t.SUBSCRIBED, subscription=topic.number, at=f"7:{newest}")
    answer(session, t.CAUGHT_UP, subscription=topic.number)
    assert isinstance(topic.take(), CaughtUp)
    return session, topic


def drain(topic: Topic) -> list[object]:
    out: list[object] = []
    while (event := topic.take()) is not None:
        out.append(event)
    return out


def again(session: s.Session) -> list[Lines]:
    """Loses the connection, and logs in again: what is asked for then."""
    session.lost(error("broker_lost", "gone"))
    session.login([("service", "bus")])
    session.receive(frame(t.LOGIN_OK, LOGIN_OK))
    return [Lines.parse(body) for _, body in sent(session)]


class Topics(unittest.TestCase):
    def test_what_is_dropped_here_is_counted_with_what_the_broker_dropped(self) -> None:
        session, topic = live(messages_max=3)
        for number in (1, 2, 3):
            message(session, topic, number)
        message(session, topic, 9, dropped=5)
        numbers = [(one.position.number, one.dropped) for one in drain(topic)]  # type: ignore
        self.assertEqual(numbers, [(2, 1), (3, 0), (9, 5)])
        for number in range(10, 20):
            message(session, topic, number, dropped=int(number == 12))
        numbers = [(one.position.number, one.dropped) for one in drain(topic)]  # type: ignore
        self.assertEqual(numbers, [(17, 8), (18, 0), (19, 0)])

    def test_a_single_message_waits_however_large_it_is(self) -> None:
        session, topic = live(bytes_max=1)
        message(session, topic, 1)
        message(session, topic, 2)
        [one] = drain(topic)
        assert isinstance(one, Message)
        self.assertEqual((one.position.number, one.dropped), (2, 1))

    def test_it_goes_on_from_what_is_complete(self) -> None:
        session, topic = live(40)
        self.assertEqual(again(session)[0].get("from"), "7:40")
        session, topic = live(40)
        message(session, topic, 44)
        self.assertEqual(topic.position, Position(7, 40))
        topic.take()
        self.assertEqual(topic.position, Position(7, 44))
        self.assertEqual(again(session)[0].get("from"), "7:44")
        # What was not complete begins anew; what goes on without a gap need not.
        for start, missing, expected in ((None, None, ""), (Position(7, 30), None, "7:33"),
                                         (Position(7, 30), "31 35", "7:30")):
            session = opened()
            topic = Topic("a.>", start=start)
            session.subscribe(topic)
            lines = {} if missing is None else {"missing": missing}
            answer(session, t.SUBSCRIBED, subscription=topic.number, at="7:40", **lines)
            message(session, topic, 33, more=1)
            self.assertEqual(again(session)[0].get("from"), expected)

    def test_after_a_restart_of_the_broker_its_count_is_another(self) -> None:
        session, topic = live(40)
        again(session)
        answer(session, t.SUBSCRIBED, subscription=topic.number, at="8:2", missing="epoch")
        answer(session, t.CAUGHT_UP, subscription=topic.number)
        events = drain(topic)
        self.assertEqual([type(event) for event in events], [Lost, Resumed, Missing, CaughtUp])
        assert isinstance(events[2], Missing)
        self.assertTrue(events[2].is_restart)
        self.assertEqual(topic.position, Position(8, 2))

    def test_what_came_before_a_loss_does_not_come_again(self) -> None:
        session = opened()
        topic = Topic("a.>", start=Position(7, 30))
        session.subscribe(topic)
        answer(session, t.SUBSCRIBED, subscription=topic.number, at="7:40", missing="31 35")
        for number in (36, 7):
            message(session, topic, number, more=1)
        again(session)
        answer(session, t.SUBSCRIBED, subscription=topic.number, at="7:44", missing="31 36")
        for number in (7, 36, 41):
            message(session, topic, number, more=1)
        numbers = [one.position.number for one in drain(topic) if isinstance(one, Message)]
        self.assertEqual(numbers, [36, 7, 41])

    def test_a_refused_one_is_not_asked_for_again(self) -> None:
        session = opened()
        topic = Topic("a.>")
        session.subscribe(topic)
        [event] = session.receive(failure(topic.number, "denied"))
        self.assertEqual(event[:2], (topic, s.NEWS))
        self.assertTrue(topic.has_ended and topic.failure is not None)
        self.assertEqual(again(session), [])

    def test_one_for_which_the_broker_ends_the_connection_is_not_asked_for_again(self) -> None:
        session = opened()
        old, new = Topic("old"), Topic("new")
        session.subscribe(old)
        answer(session, t.SUBSCRIBED, subscription=old.number, at="7:1")
        session.subscribe(new)
        watched = Watched("new", 1)
        session.announce(watched)
        session.receive(failure(0, "bad_frame", "the reason"))
        session.lost(error("broker_lost", "closed"))
        self.assertIsNone(old.failure)
        for failed in (new.failure, watched.failure):
            assert failed is not None
            self.assertEqual((failed.name, failed.text, failed.ran), ("bad_frame", "the reason",
                                                                      "no"))
        again(session)
        self.assertEqual(session._topics, {old.number: old})
        self.assertEqual(session._instances, {})
        # One that passes, such as a restart, ends nothing.
        session.subscribe(later := Topic("later"))
        session.receive(failure(0, "shutting_down"))
        session.lost(error("broker_lost", "closed"))
        self.assertIsNone(later.failure)

    def test_the_end_of_a_subscription(self) -> None:
        session, topic = live()
        session.unsubscribe(topic)
        message(session, topic, 5)
        self.assertIsNone(topic.take())
        answer(session, t.UNSUBSCRIBED, subscription=topic.number, delivered=8, dropped=2)
        self.assertEqual((topic.has_ended, topic.delivered, topic.dropped_there), (True, 8, 2))
        self.assertEqual(again(session), [])

    def test_nobody_reads_and_the_connection_is_lost_again_and_again(self) -> None:
        session, topic = live(messages_max=3)
        for number in range(2000):
            again(session)
            answer(session, t.SUBSCRIBED, subscription=topic.number, at=f"7:{number}")
            answer(session, t.CAUGHT_UP, subscription=topic.number, dropped=2**64 - 1)
            message(session, topic, number, dropped=2**32 - 1)
        self.assertLessEqual(len(drain(topic)), 1003)

    def test_messages_are_checked_on_both_sides(self) -> None:
        self.assertEqual(
            message_body("a.b", b"\n\nx", retain="yes", expires=0.005, lines={"k": "v w"}),
            b"topic a.b\nretain yes\nexpires_ms 5\nk v w\n\n\n\nx")
        wrong: list[dict[str, object]] = [
            {"topic": ""}, {"topic": "a..b"}, {"topic": "a.*"}, {"topic": "a b"},
            {"topic": "x" * 256}, {"topic": ".".join("a" * 33)}, {"topic": "a\ud800"},
            {"topic": "a", "expires": 5}, {"topic": "a", "lines": {"topic": "b"}},
            {"topic": "a", "lines": {"k": "a\nb"}}, {"topic": "a", "lines": {"k": "x" * 4096}},
        ]
        for one in wrong:
            with self.assertRaises(Refused, msg=str(one)):
                message_body(payload=b"", **one)  # type: ignore[arg-type]
        for pattern in ("", "a.>.b", "a..b", "x" * 256):
            with self.assertRaises(Refused):
                Topic(pattern)
        for body in (b"topic a", b"x\n\n", b"topic a\nretain maybe\n\n", b"topic \xff\n\n",
                     b"topic a\n" + b"x" * 5000 + b"\n\n"):
            session, topic = live()
            [event] = session.receive(frame(t.MESSAGE, body, sequence=topic.number))
            self.assertEqual(event[1], s.BROKEN, body)

    def test_publishes(self) -> None:
        session = opened()
        number, _ = session.publish("p", message_body("a", b"x"))
        [event] = answer(session, t.PUBLISHED, publish=number, at="7:8", subscriptions=2)
        self.assertEqual((event[0], event[1], str(event[2].position), event[2].subscriptions),
                         ("p", s.PUBLISHED, "7:8", 2))
        number, made = session.publish(None, message_body("a", b"x"))
        self.assertEqual(frames(made)[0][0].reply, 0)
        [event] = session.receive(failure(number, "denied"))
        self.assertEqual((event[1], len(session.refused)), (s.REFUSED, 1))
        number, _ = session.publish("q", message_body("a", b"x"))
        [event] = session.receive(failure(number, "limit_reached"))
        self.assertEqual((event[0], event[2].name), ("q", "limit_reached"))


class Instances(unittest.TestCase):
    def announced(self, session: s.Session, id: int) -> Watched:
        watched = Watched("pump", id, groups=["night"])
        session.announce(watched)
        answer(session, t.ANNOUNCED, sequence=watched.sequence, id=id, incarnation=5, beat_ms=500,
               activity_timeout_ms=5000, displaced="yes")
        return watched

    def test_an_instance_is_announced_beats_and_comes_back(self) -> None:
        session = opened()
        watched = self.announced(session, 7)
        self.assertEqual((watched.incarnation, watched.activity_timeout, watched.displaced),
                         (5, 5.0, True))
        watched.count = 12
        [(_, body)] = frames(session.beat())
        self.assertEqual(Lines.parse(body).all("instance"), ["7 12"])
        session.set_state(watched, 100, "batch\n7" + "x" * 100)
        announce, change = again(session)
        self.assertEqual((announce.get("state"), announce.get("group")), ("100", "night"))
        self.assertEqual((change.get("checkpoint"), change.text[:9], len(change.text)),
                         ("12", "batch\\n7x", 80))
        self.assertFalse(session.has_watched)

    def test_one_that_was_displaced_knows_it_from_the_next_beat(self) -> None:
        session = opened()
        watched = self.announced(session, 7)
        [event] = answer(session, t.BEAT_OK, unknown=7)
        self.assertIs(event[0], watched)
        with self.assertRaises(IsectError) as caught:
            session.set_state(watched, "running", "")
        self.assertIn("displaced", str(caught.exception))
        self.assertEqual(session.withdraw(watched, False, ""), b"")
        other = Watched("pump", 7)
        session.announce(other)
        [event] = session.receive(failure(other.sequence, "instance_taken"))
        self.assertEqual((event[0], other.failure and other.failure.name),
                         (other, "instance_taken"))

    def test_a_beat_of_many_is_several_frames(self) -> None:
        session = opened()
        for id in range(4001):
            self.announced(session, id)
        sizes = [len(Lines.parse(body).all("instance")) for _, body in frames(session.beat())]
        self.assertEqual(sizes, [2000, 2000, 1])

    def test_states(self) -> None:
        for wrong in ("", "busy", 99, 2**32, "1e3"):
            with self.assertRaises(Refused):
                Watched("a", 1, state=wrong)


if __name__ == "__main__":
    unittest.main()
