"""Times a Python worker and a Python client of isect beside those of the field: nats-py with
nats-server, redis-py with redis-server (lists), python3-gearman with gearmand. The same work
everywhere: 100 bytes there, 100 bytes in capitals back.

    python benches/python/compare.py --isect target/release [--rounds 3] [--seconds 3] [--peers …]

One round of all, then the next, so that what else the machine does meets all alike; the table has
the medians. What is not installed is left out, and said.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from peers import Peer, is_there, processor_time

BODY = b"x" * 100
#: The peers, and what a program of theirs imports: isect's names come when they are first used.
IMPORTS = {"isect": "import isect; isect.connect", "isect-aio": "import isect.aio",
           "nats": "import nats", "redis": "import redis", "gearman": "import python3_gearman"}


def figures(times: list[float], span: float) -> dict[str, float]:
    """Requests a second, and the times of single ones in microseconds."""
    ranked = sorted(times)
    at = lambda share: ranked[min(len(ranked) - 1, int(len(ranked) * share))] * 1e6  # noqa: E731
    return {"count": len(times), "rate": len(times) / span, "p50": at(0.5), "p99": at(0.99)}


def one_by_one(ask, seconds: float) -> dict[str, float]:
    for _ in range(200):
        assert ask(BODY) == BODY.upper()
    times: list[float] = []
    begun = last = time.perf_counter()
    while last - begun < seconds:
        ask(BODY)
        now = time.perf_counter()
        times.append(now - last)
        last = now
    return figures(times, last - begun)


# ---- isect

def isect_worker() -> None:
    import isect

    isect.run(lambda request: request.body.upper())


def isect_client(address: str, seconds: float, depth: int) -> dict[str, float]:
    import isect

    with isect.connect(address) as broker:
        if depth == 1:
            return one_by_one(lambda body: broker.call("upper", body), seconds)
        waiting = [broker.submit("upper", BODY) for _ in range(depth)]
        done, begun = 0, time.perf_counter()
        while (span := time.perf_counter() - begun) < seconds:
            for at in range(depth):
                assert len(waiting[at].result()) == 100
                waiting[at] = broker.submit("upper", BODY)
            done += depth
        return {"count": done, "rate": done / span}


def isect_aio_client(address: str, seconds: float, depth: int) -> dict[str, float]:
    import isect.aio

    async def go() -> dict[str, float]:
        async with isect.aio.connect(address) as broker:
            return await many(lambda: broker.call("upper", BODY), seconds, depth)

    return asyncio.run(go())


async def many(ask, seconds: float, depth: int) -> dict[str, float]:
    """`depth` tasks that ask one request after another."""
    times: list[float] = []
    begun = time.perf_counter()

    async def one() -> None:
        last = time.perf_counter()
        while last - begun < seconds:
            assert len(await ask()) == 100
            now = time.perf_counter()
            times.append(now - last)
            last = now

    await asyncio.gather(*(one() for _ in range(depth)))
    return figures(times, time.perf_counter() - begun)


# ---- nats

def nats_worker(address: str) -> None:
    import nats

    async def go() -> None:
        link = await nats.connect(address)

        async def answer(message) -> None:
            await message.respond(message.data.upper())

        await link.subscribe("upper", cb=answer)
        print("ready", flush=True)
        await asyncio.Event().wait()

    asyncio.run(go())


def nats_client(address: str, seconds: float, depth: int) -> dict[str, float]:
    import nats

    async def go() -> dict[str, float]:
        link = await nats.connect(address)

        async def ask() -> bytes:
            return (await link.request("upper", BODY, timeout=10)).data

        try:
            return await many(ask, seconds, depth)
        finally:
            await link.close()

    return asyncio.run(go())


# ---- redis: a list of requests, a list of answers for each request

def redis_worker(address: str) -> None:
    import redis

    link = redis.Redis(port=int(address))
    print("ready", flush=True)
    while True:
        _, job = link.blpop(["upper"])
        number, _, body = job.partition(b" ")
        link.rpush(b"answer:" + number, body.upper())


def redis_client(address: str, seconds: float, depth: int) -> dict[str, float]:
    import redis

    link, number = redis.Redis(port=int(address)), 0

    def begin() -> bytes:
        nonlocal number
        number += 1
        name = b"%d" % number
        link.rpush("upper", name + b" " + BODY)
        return b"answer:" + name

    if depth == 1:
        return one_by_one(lambda body: link.blpop([begin()])[1], seconds)
    waiting = [begin() for _ in range(depth)]
    done, begun = 0, time.perf_counter()
    while (span := time.perf_counter() - begun) < seconds:
        for at in range(depth):
            assert len(link.blpop([waiting[at]])[1]) == 100
            waiting[at] = begin()
        done += depth
    return {"count": done, "rate": done / span}


# ---- gearman

def gearman_worker(address: str) -> None:
    import python3_gearman

    worker = python3_gearman.GearmanWorker([f"127.0.0.1:{address}"])
    worker.register_task("upper", lambda worker, job: job.data.upper())
    print("ready", flush=True)
    worker.work()


def gearman_client(address: str, seconds: float, depth: int) -> dict[str, float]:
    import python3_gearman

    client = python3_gearman.GearmanClient([f"127.0.0.1:{address}"])
    text = BODY.decode()
    if depth == 1:
        return one_by_one(lambda body: client.submit_job("upper", text).result.encode(), seconds)
    done, begun = 0, time.perf_counter()
    while (span := time.perf_counter() - begun) < seconds:
        jobs = [{"task": "upper", "data": text} for _ in range(depth)]
        for job in client.submit_multiple_jobs(jobs, wait_until_complete=True):
            assert len(job.result) == 100
        done += depth
    return {"count": done, "rate": done / span}


# ---- the runs

def import_times(rounds: int, imports: dict[str, str]) -> dict[str, float]:
    """Milliseconds that a program takes that does an import and ends, medians; `-` = none."""
    times: dict[str, list[float]] = {}
    for _ in range(rounds):
        for name, line in {"-": "", **imports}.items():
            begun = time.perf_counter()
            subprocess.run([sys.executable, "-c", line], check=True)
            times.setdefault(name, []).append((time.perf_counter() - begun) * 1e3)
    return {name: statistics.median(spans) for name, spans in times.items()}


def one_measure(peer: Peer, seconds: float, depth: int) -> dict[str, float]:
    """What a client finds, and the worker's processor time for each request."""
    before = processor_time(peer.worker_pid)
    found = peer.measure(Path(__file__).resolve(), str(seconds), str(depth))
    used = processor_time(peer.worker_pid) - before
    return {**found, "worker": used / found["count"] * 1e6}


def table(rounds: int, seconds: float, found: dict[tuple[str, int], list[dict[str, float]]],
          imports: dict[str, float]) -> None:
    print(f"Python {sys.version.split()[0]}, {rounds} rounds of {seconds} s, medians\n")
    print("| peer | one by one, requests/s | p50, µs | p99, µs | 64 under way, requests/s | "
          "worker, cpu µs for each of 64 | import, ms |")
    print("| --- | --: | --: | --: | --: | --: | --: |")
    for name, depth in found:
        if depth != 1:
            continue
        middle = lambda depth, key: statistics.median(  # noqa: E731
            one[key] for one in found[name, depth])
        print(f"| {name} | {middle(1, 'rate'):,.0f} | {middle(1, 'p50'):.0f} | "
              f"{middle(1, 'p99'):.0f} | {middle(64, 'rate'):,.0f} | {middle(64, 'worker'):.0f} | "
              f"{imports[name]:.0f} |")
    print(f"\nA program that imports nothing takes {imports['-']:.0f} ms.")


def main() -> None:
    if sys.argv[1:2] == ["client"]:
        _, _, name, address, seconds, depth = sys.argv
        run = globals()[f"{name.replace('-', '_')}_client"]
        print(json.dumps(run(address, float(seconds), int(depth))))
        return
    if sys.argv[1:2] == ["worker"]:
        globals()[f"{sys.argv[2]}_worker"](sys.argv[3])
        return
    if os.environ.get("ISECT_WORKER_SECRET"):
        # The broker started this as its worker, with arguments of its own.
        isect_worker()
        return
    options = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    options.add_argument("--isect", type=Path, default=Path("target/release"))
    options.add_argument("--rounds", type=int, default=3)
    options.add_argument("--seconds", type=float, default=3)
    options.add_argument("--peers", default=",".join(IMPORTS))
    told = options.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        peers: list[Peer] = []
        try:
            for name in told.peers.split(","):
                if why := is_there(name):
                    print(f"{name}: left out: {why}")
                    continue
                own = Path(folder) / name
                peers.append(Peer(name, own, told.isect, Path(__file__).resolve()))
            imports = import_times(20, {peer.name: IMPORTS[peer.name] for peer in peers})
            found: dict[tuple[str, int], list[dict[str, float]]] = {}
            for _ in range(told.rounds):
                for depth in (1, 64):
                    for peer in peers:
                        one = one_measure(peer, told.seconds, depth)
                        found.setdefault((peer.name, depth), []).append(one)
        finally:
            for peer in peers:
                peer.stop()
    table(told.rounds, told.seconds, found, imports)


if __name__ == "__main__":
    main()
