"""The driver of the Python library for the conformance suite (docs/conformance.md):
`conformance_driver.py client ADDRESS`, or a worker with the arguments and the environment of one.

It is told in lines of JSON on stdin what to do, and says in lines of JSON on stdout what came of
it. With `CONFORMANCE_WAY=asyncio` it uses `isect.aio`, and its handler is an `async def`.
"""

from __future__ import annotations

import asyncio
import inspect
import json
import os
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from concurrent.futures import TimeoutError as FutureTimeoutError
from queue import SimpleQueue
from time import monotonic, sleep
from typing import Any

import isect

#: Seconds for which this driver waits at most; the runner waits for 10.
TIMEOUT = 9.0

Values = dict[str, Any]
Command = dict[str, Any]


#: Whether the asynchronous half of the library is used.
IS_ASYNC = os.environ.get("CONFORMANCE_WAY") == "asyncio"


class Unsupported(Exception):
    """The library has nothing for this command."""


_writing = threading.Lock()


def say(said: Values) -> None:
    """Writes a line."""
    line = json.dumps(said) + "\n"
    with _writing:
        sys.stdout.write(line)
        sys.stdout.flush()


def commands() -> Iterator[Command]:
    """What the runner says, until it says no more."""
    for line in sys.stdin:
        yield json.loads(line)


def of_error(e: isect.IsectError) -> Values:
    """An error as the runner reads it."""
    after = e.retry_after
    return {"code": e.code, "name": e.name, "whose": e.whose, "ran": e.ran, "advice": e.advice,
            "text": e.text, "retry_after_ms": None if after is None else round(after * 1000)}


def answer(command: Command, do: Any) -> bool:
    """Does something, and says what became of it. Returns whether it was done."""
    said: Values = {"id": command["id"]}
    try:
        said["ok"] = do(command) or {}
    except isect.MissingExtra as e:
        said["unsupported"] = str(e)
    except isect.IsectError as e:
        said["error"] = of_error(e)
    except Unsupported as e:
        said["unsupported"] = str(e) or f"the library has no '{command['do']}'"
    except CancelledError:
        said["error"] = {"name": "cancelled", "text": "this program gave the request up"}
    except (TimeoutError, FutureTimeoutError):
        said["error"] = {"name": "timeout", "text": "nothing came in time"}
    say(said)
    return "ok" in said


def body_of(command: Command) -> bytes:
    return bytes.fromhex(command.get("body", ""))


def seconds(command: Command, key: str) -> float | None:
    return int(command[key]) / 1000 if key in command else None


def is_yes(command: Command, key: str) -> bool:
    return bool(command.get(key) == "yes")


class Blocking:
    """Something of `isect.aio`, with methods that wait. Its loop runs on a thread."""

    def __init__(self, it: Any, loop: asyncio.AbstractEventLoop) -> None:
        self._it = it
        self._loop = loop

    @classmethod
    def connect(cls, *args: Any, **options: Any) -> Blocking:
        loop = asyncio.new_event_loop()
        threading.Thread(target=loop.run_forever, name="loop", daemon=True).start()

        async def connected() -> Any:
            return await isect.aio.connect(*args, **options)

        return cls(asyncio.run_coroutine_threadsafe(connected(), loop).result(), loop)

    def submit(self, *args: Any, **options: Any) -> Any:
        return asyncio.run_coroutine_threadsafe(self._it.call(*args, **options), self._loop)

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._it, name)
        if not inspect.isroutine(method):
            return method

        async def called(*args: Any, **options: Any) -> Any:
            made = method(*args, **options)
            return await made if inspect.isawaitable(made) else made

        def call(*args: Any, **options: Any) -> Any:
            made = asyncio.run_coroutine_threadsafe(called(*args, **options), self._loop).result()
            is_object = hasattr(made, "withdraw") or hasattr(made, "receive")
            return Blocking(made, self._loop) if is_object else made

        return call


class Client:
    """Does what a program that asks does."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.options: dict[str, str] = {}
        self.made: dict[int, Any] = {}
        self._broker: Any = None

    @property
    def broker(self) -> Any:
        if self._broker is None:
            of = self.options.get
            if of("half_close") == "yes":
                raise Unsupported("the library can't shut one side of a connection")
            connect = Blocking.connect if IS_ASYNC else isect.connect
            self._broker = connect(
                self.address, verify=False, timeout=TIMEOUT, token=of("token"), name=of("name"),
                priority=int(of("priority", "100")), reconnect=of("reconnect", "yes") == "yes")
        return self._broker

    def does(self, command: Command) -> Values | None:
        do = getattr(self, command["do"].replace("-", "_"), None)
        if do is None or command["do"] in ("does", "broker"):
            raise Unsupported
        found: Values | None = do(command)
        return found

    def of(self, command: Command) -> Any:
        made = self.made.get(command["of"])
        if made is None:
            raise Unsupported("nothing was made by that command")
        return made

    # How the client is.

    def set_options(self, command: Command) -> None:
        self.options.update(command)

    def renew(self, command: Command) -> None:
        self.made.clear()
        broker, self._broker = self._broker, None
        if broker is not None:
            broker.close()

    def logout(self, command: Command) -> None:
        self.renew(command)

    # Requests.

    def request(self, command: Command) -> Values:
        more: Values = {"timeout": seconds(command, "timeout"),
                      "priority": int(command.get("priority", 0)),
                      "trace_id": command.get("trace_id"),
                      "span_id": int(command.get("span_id", 0))}
        if command["do"] != "send":
            more["extendable"] = is_yes(command, "extendable")
        if command["do"] != "open":
            more["idempotent"] = is_yes(command, "idempotent")
        return more

    def call(self, command: Command) -> Values:
        service = command.get("service", "echo")
        return {"body": self.broker.call(service, body_of(command), **self.request(command)).hex()}

    def submit(self, command: Command) -> None:
        service = command.get("service", "echo")
        self.made[command["id"]] = self.broker.submit(service, body_of(command),
                                                      **self.request(command))

    def send(self, command: Command) -> None:
        self.broker.send(command.get("service", "echo"), body_of(command), **self.request(command))

    def open(self, command: Command) -> None:
        if is_yes(command, "idempotent"):
            raise Unsupported("a conversation is never repeated, so it has no 'idempotent'")
        self.made[command["id"]] = self.broker.converse(
            command.get("service", "echo"), body_of(command), more=is_yes(command, "more"),
            **self.request(command))

    def piece(self, command: Command) -> None:
        self.of(command).send(body_of(command), more=is_yes(command, "more"))

    def wait(self, command: Command) -> Values:
        made = self.of(command)
        timeout = seconds(command, "timeout") or TIMEOUT
        if hasattr(made, "result"):
            return {"body": made.result(timeout).hex()}
        whole = b""
        while (piece := made.receive(timeout)) is not None:
            whole += piece
        return {"body": whole.hex()}

    def receive(self, command: Command) -> Values:
        piece = self.of(command).receive(seconds(command, "timeout") or TIMEOUT)
        return {"body": None if piece is None else piece.hex()}

    def cancel(self, command: Command) -> None:
        self.of(command).cancel()

    def give_up(self, command: Command) -> None:
        self.of(command).cancel()

    def flush(self, command: Command) -> Values:
        return {"refused": self.broker.flush(seconds(command, "timeout") or TIMEOUT)}

    def command(self, command: Command) -> Values:
        text = body_of(command).decode()
        if is_yes(command, "json"):
            found = json.dumps(self.broker.command(text, json=True)).encode()
        else:
            found = self.broker.command(text).encode()
        return {"body": found.hex()}

    # Messages.

    def publish(self, command: Command) -> Values:
        word, _, value = command.get("line", "").partition(" ")
        receipt = self.broker.publish(
            command["topic"], body_of(command), retain=is_yes(command, "retain"),
            while_connected=is_yes(command, "while_connected"),
            expires=seconds(command, "expires"), lines={word: value} if word else {},
            wait=is_yes(command, "wait"))
        if receipt is None:
            return {}
        return {"at": str(receipt.position), "subscriptions": receipt.subscriptions}

    def remove(self, command: Command) -> Values:
        return {"at": str(self.broker.remove(command["topic"]).position)}

    def flush_messages(self, command: Command) -> Values:
        return {"refused": len(self.broker.sync_bus())}

    def subscribe(self, command: Command) -> None:
        start = isect.Position.parse(command["start"]) if "start" in command else None
        self.made[command["id"]] = self.broker.subscribe(
            command["pattern"], retained=command.get("retained") != "no", start=start)

    def next(self, command: Command) -> Values:
        message = self.of(command).receive(TIMEOUT)
        if message is None:
            raise TimeoutError
        return self.shown(message)

    def event(self, command: Command) -> Values:
        event = self.of(command).event(TIMEOUT)
        if event is None:
            raise TimeoutError
        return self.shown(event)

    def shown(self, event: Any) -> Values:
        if isinstance(event, isect.CaughtUp):
            return {"kind": "caught_up", "kept": event.kept, "dropped": event.dropped}
        if isinstance(event, isect.Missing):
            what = f"{event.first} {event.last}" if event.last else "epoch"
            return {"kind": "missing", "missing": what}
        if isinstance(event, isect.Lost):
            return {"kind": "lost", "name": event.error.name}
        if isinstance(event, isect.Resumed):
            return {"kind": "resumed", "at": str(event.position)}
        lines = "; ".join(f"{word} {value}" for word, value in event.lines.items())
        return {"kind": "message", "topic": event.topic, "body": event.payload.hex(),
                "before": event.is_before, "dropped": event.dropped, "at": str(event.position),
                "removed": event.removed or None, "lines": lines}

    def unsubscribe(self, command: Command) -> Values:
        delivered, dropped = self.of(command).unsubscribe()
        return {"delivered": delivered, "dropped": dropped}

    # Instances.

    def announce(self, command: Command) -> Values:
        groups = [group for group in command.get("groups", "").split(",") if group]
        made = self.broker.announce(
            command["name"], id=int(command["instance"]), groups=groups,
            activity_timeout=seconds(command, "activity_timeout"),
            stalled=seconds(command, "stalled"), state=command.get("state", "starting"))
        self.made[command["id"]] = made
        return self.standing_of(made)

    def standing_of(self, made: Any) -> Values:
        return {"instance": made.id, "incarnation": made.incarnation, "displaced": made.displaced}

    def state(self, command: Command) -> None:
        state = command["state"]
        self.of(command).set_state(int(state) if state.isdigit() else state,
                                   command.get("text", ""))

    def checkpoint(self, command: Command) -> None:
        self.of(command).checkpoint(int(command["checkpoint"]))

    def idle(self, command: Command) -> None:
        self.of(command).idle(is_yes(command, "idle"))

    def beat(self, command: Command) -> None:
        self.broker.beat()

    def standing(self, command: Command) -> Values:
        made = self.of(command)
        if made.failure is not None:
            raise made.failure
        return self.standing_of(made)

    def withdraw(self, command: Command) -> None:
        self.of(command).withdraw(command.get("text", ""), failed=is_yes(command, "failed"))


def serve_client(address: str) -> None:
    client = Client(address)
    for command in commands():
        if command["do"] == "options":
            answer(command, client.set_options)
        else:
            answer(command, client.does)
    # Without a goodbye that would wait for something.
    os._exit(0)


class Worker:
    """Tells the runner of each request, and does with it what the runner says."""

    def __init__(self) -> None:
        self.hands: dict[int, Callable[[Command], Any]] = {}
        self.count = 0
        self.lock = threading.Lock()
        host, port = sys.argv[1:3]
        self.address = host if host.startswith("unix:") else f"{host}:{port}"

    def read(self) -> None:
        """Hands the commands of the runner to the handlers."""
        for command in commands():
            if command["do"] == "exit":
                os._exit(int(command.get("code", 0)))
            self.hands[command["of"]](command)
        os._exit(0)

    def begin(self, request: isect.Request, hand: Callable[[Command], Any]) -> None:
        """Tells of a request; `hand` is called with what is to be done with it."""
        with self.lock:
            self.count += 1
            number = self.count
            self.hands[number] = hand
        remaining = request.remaining()
        say({"event": "request", "request": number, "body": request.body.hex(),
             "transaction": request.transaction, "attempt": request.attempt, "more": request.more,
             "idempotent": request.idempotent, "extendable": request.extendable,
             "wants_reply": request.wants_reply, "trace_id": request.trace_id.hex(),
             "span_id": request.span_id,
             "remaining_ms": None if remaining is None else int(remaining * 1000)})

    async def handle_async(self, request: isect.AsyncRequest) -> bytes:
        queue: asyncio.Queue[Command] = asyncio.Queue()
        loop = asyncio.get_running_loop()
        self.begin(request, lambda command: loop.call_soon_threadsafe(queue.put_nowait, command))
        while True:
            try:
                command = await queue.get()
            except asyncio.CancelledError:
                # The request is over; the runner says how it goes on.
                continue
            said: Values = {"id": command["id"]}
            failure: list[isect.Failure] = []
            try:
                said["ok"] = await self.does_async(request, command, failure) or {}
            except isect.IsectError as e:
                said["error"] = of_error(e)
            except Unsupported as e:
                said["unsupported"] = str(e) or f"the library has no '{command['do']}'"
            say(said)
            if "ok" in said and command["do"] in ("reply", "fail"):
                if failure:
                    raise failure[0]
                return body_of(command)

    async def does_async(self, request: isect.AsyncRequest, command: Command,
                         failure: list[isect.Failure]) -> Values | None:
        verb = command["do"]
        if verb == "piece":
            await request.reply_piece(body_of(command), seconds(command, "within"))
        elif verb == "next-piece":
            try:
                return self.of_piece(request, await request.next_piece())
            except isect.IsectError:
                return self.of_piece(request, None)
        elif verb == "nested":
            service, timeout = command.get("service", "echo"), seconds(command, "timeout")
            async with isect.aio.connect(self.address, verify=False) as broker:
                answered = await broker.call(service, body_of(command), timeout=timeout)
            return {"body": answered.hex()}
        elif verb == "await-over":
            until = monotonic() + TIMEOUT
            while not request.is_over() and monotonic() < until:
                try:
                    await asyncio.sleep(0.002)
                except asyncio.CancelledError:
                    pass
            return self.of_over(request)
        else:
            return self.does(request, command, failure)
        return None

    def handle(self, request: isect.Request) -> bytes:
        queue: SimpleQueue[Command] = SimpleQueue()
        self.begin(request, queue.put)
        while True:
            command = queue.get()
            failure: list[isect.Failure] = []

            def do(command: Command) -> Values | None:
                return self.does(request, command, failure)

            if answer(command, do) and command["do"] in ("reply", "fail"):
                if failure:
                    raise failure[0]
                return body_of(command)

    def does(self, request: isect.Request, command: Command,
             failure: list[isect.Failure]) -> Values | None:
        verb = command["do"]
        if verb == "fail":
            failure.append(isect.Failure(int(command["code"]), command.get("text", "")))
        elif verb == "piece":
            request.reply_piece(body_of(command), seconds(command, "within"))
        elif verb == "next-piece":
            try:
                return self.of_piece(request, request.next_piece())
            except isect.IsectError:
                return self.of_piece(request, None)
        elif verb == "nested":
            service, timeout = command.get("service", "echo"), seconds(command, "timeout")
            with isect.connect(self.address, verify=False) as broker:
                return {"body": broker.call(service, body_of(command), timeout=timeout).hex()}
        elif verb == "await-over":
            until = monotonic() + TIMEOUT
            while not request.is_over() and monotonic() < until:
                sleep(0.002)
            return self.of_over(request)
        elif verb != "reply" or is_yes(command, "logout"):
            raise Unsupported
        return None

    def of_piece(self, request: isect.Request, piece: bytes | None) -> Values:
        if piece is None:
            return {"piece": "none"}
        return {"body": piece.hex(), "more": request.more}

    def of_over(self, request: isect.Request) -> Values:
        over = request.over
        return {"over": over is not None, "name": None if over is None else over.name}


def serve_worker() -> None:
    worker = Worker()
    threading.Thread(target=worker.read, name="commands", daemon=True).start()
    given = dict(word.partition("=")[::2] for word in sys.argv[5:])
    most = given.get("max_requests")
    isect.run(worker.handle_async if IS_ASYNC else worker.handle,
              concurrency=int(given.get("concurrency", 1)),
              max_requests=None if most is None else int(most),
              on_status=lambda: "all is well", on_reinit=lambda: say({"event": "reinit"}))


if __name__ == "__main__":
    if sys.argv[1:2] == ["client"]:
        serve_client(sys.argv[2])
    else:
        serve_worker()
