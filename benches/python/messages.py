"""Times messages to a Python subscriber: isect's asyncio half by iterator and by callback, its
blocking half, nats-py by iterator and by callback, redis-py. 100,000 messages of 16 bytes each.

    python benches/python/messages.py --isect target/release [--rounds 3] [--count 100000]

The publisher is the same library in a process of its own. The table has medians of interleaved
rounds: messages a second, and the subscriber's processor time for each.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import Peer, is_there

BODY = b"0123456789abcdef"
TOPIC = "bench.topic"
#: How many messages are published before the publisher waits for the server.
BURST = 1000
WAYS = ["isect-aio-callback", "isect-aio-iterator", "isect-iterator", "nats-callback",
        "nats-iterator", "redis-iterator"]


# ---- publishers

def isect_publish(address: str, count: int) -> None:
    import isect

    with isect.connect(address) as broker:
        for number in range(count):
            wait = number % BURST == BURST - 1
            broker.publish(TOPIC, BODY, wait=wait)


def nats_publish(address: str, count: int) -> None:
    import nats

    async def go() -> None:
        link = await nats.connect(address)
        for number in range(count):
            await link.publish(TOPIC, BODY)
            if number % BURST == BURST - 1:
                await link.flush()
        await link.close()

    asyncio.run(go())


def redis_publish(address: str, count: int) -> None:
    import redis

    link = redis.Redis(port=int(address))
    for _ in range(count // BURST):
        pipe = link.pipeline(transaction=False)
        for _ in range(BURST):
            pipe.publish(TOPIC, BODY)
        pipe.execute()


# ---- subscribers: each says "ready", then takes `count` messages

class Clock:
    """From the first message on: a publisher takes a while to start."""

    def __init__(self, count: int) -> None:
        self.count, self.seen, self.begun = count, 0, 0.0
        self.used, self.done = time.process_time(), asyncio.Event()

    def tick(self) -> bool:
        """Counts a message; whether it was the last."""
        if not self.seen:
            self.begun = time.perf_counter()
        self.seen += 1
        return self.seen == self.count

    def callback(self, _message: object) -> None:
        if self.tick():
            self.done.set()

    def found(self) -> dict[str, float]:
        span = time.perf_counter() - self.begun
        used = time.process_time() - self.used
        return {"rate": self.count / span, "cpu": used / self.count * 1e6}


def ready(count: int) -> Clock:
    print("ready", flush=True)
    return Clock(count)


def isect_aio(address: str, count: int, way: str) -> dict[str, float]:
    import isect.aio

    async def go() -> dict[str, float]:
        async with isect.aio.connect(address) as broker:
            clock = Clock(count)
            if way == "callback":
                await broker.subscribe(TOPIC, clock.callback)
                ready(0)
                await clock.done.wait()
                return clock.found()
            async with broker.subscribe(TOPIC) as messages:
                clock = ready(count)
                async for _ in messages:
                    if clock.tick():
                        return clock.found()
        raise SystemExit("the subscription ended")

    return asyncio.run(go())


def isect_iterator(address: str, count: int) -> dict[str, float]:
    import isect

    with isect.connect(address) as broker, broker.subscribe(TOPIC) as messages:
        clock = ready(count)
        for _ in messages:
            if clock.tick():
                return clock.found()
    raise SystemExit("the subscription ended")


def nats_any(address: str, count: int, way: str) -> dict[str, float]:
    import nats

    async def go() -> dict[str, float]:
        link = await nats.connect(address)
        clock = Clock(count)

        async def callback(message) -> None:
            clock.callback(message)

        given = {"cb": callback} if way == "callback" else {}
        subscription = await link.subscribe(TOPIC, pending_msgs_limit=count,
                                            pending_bytes_limit=-1, **given)
        await link.flush()
        ready(0)
        if way == "callback":
            await clock.done.wait()
        else:
            async for _ in subscription.messages:
                if clock.tick():
                    break
        found = clock.found()
        await link.close()
        return found

    return asyncio.run(go())


def redis_iterator(address: str, count: int) -> dict[str, float]:
    import redis

    subscriber = redis.Redis(port=int(address)).pubsub(ignore_subscribe_messages=True)
    subscriber.subscribe(TOPIC)
    subscriber.get_message(timeout=5)
    clock = ready(count)
    for _ in subscriber.listen():
        if clock.tick():
            return clock.found()
    raise SystemExit("the subscription ended")


def subscribe(way: str, address: str, count: int) -> dict[str, float]:
    if way.startswith("isect-aio-"):
        return isect_aio(address, count, way.removeprefix("isect-aio-"))
    if way.startswith("nats-"):
        return nats_any(address, count, way.removeprefix("nats-"))
    return globals()[way.replace("-", "_")](address, count)


# ---- the runs

def measure(way: str, peer: Peer, count: int) -> dict[str, float]:
    own = [sys.executable, __file__]
    subscriber = subprocess.Popen([*own, "subscribe", way, peer.address, str(count)],
                                  stdout=subprocess.PIPE, text=True)
    assert subscriber.stdout and subscriber.stdout.readline() == "ready\n", way
    subprocess.run([*own, "publish", peer.name, peer.address, str(count)], check=True)
    out, _ = subscriber.communicate(timeout=120)
    assert subscriber.returncode == 0, way
    return json.loads(out)


def main() -> None:
    if sys.argv[1:2] == ["publish"]:
        globals()[f"{sys.argv[2]}_publish"](sys.argv[3], int(sys.argv[4]))
        return
    if sys.argv[1:2] == ["subscribe"]:
        print(json.dumps(subscribe(sys.argv[2], sys.argv[3], int(sys.argv[4]))))
        return
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--isect", type=Path, default=Path("target/release"))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--count", type=int, default=100_000)
    told = options.parse_args()
    if told.count < BURST or told.count % BURST:
        options.error(f"--count is {told.count}, expected a multiple of {BURST}")
    with tempfile.TemporaryDirectory() as folder:
        peers: dict[str, Peer] = {}
        found: dict[str, list[dict[str, float]]] = {}
        try:
            for name in ["isect", "nats", "redis"]:
                if why := is_there(name):
                    print(f"{name}: left out: {why}")
                    continue
                peers[name] = Peer(name, Path(folder) / name, told.isect, None)
            for _ in range(told.rounds):
                for way in WAYS:
                    if peer := peers.get(way.split("-")[0]):
                        found.setdefault(way, []).append(measure(way, peer, told.count))
        finally:
            for peer in peers.values():
                peer.stop()
    print(f"Python {sys.version.split()[0]}, {told.rounds} rounds of {told.count} messages\n")
    print("| subscriber | messages/s | cpu µs each |\n| --- | --: | --: |")
    for way, rounds in found.items():
        rate, cpu = (statistics.median(one[key] for one in rounds) for key in ("rate", "cpu"))
        print(f"| {way} | {rate:,.0f} | {cpu:.2f} |")


if __name__ == "__main__":
    main()
