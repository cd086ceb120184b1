"""What every entrant shares: its roles, the job of 200 bytes, the stopwatch, and the one line it answers with."""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import itertools
import json
import os
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any  # arguments and figures are JSON

Figures = dict[str, float]
Role = Callable[[int], Figures]

#: How many messages or jobs may be on their way at once, for everyone.
WINDOW = 1000
PREFETCH = 256
#: The rate of the latency measure (jobs per second), and the jobs at its start that are not counted.
PACE = 200
WARM_UP = 200
#: No run of an entrant takes longer (seconds).
LIMIT = 240.0

BODY_SIZE = 200


def broker_url() -> str:
    """The broker's AMQP URL, which the benchmark hands over in the environment."""
    return os.environ["BENCH_URL"]


def arguments(sent: float = 0.0) -> dict[str, Any]:
    """The arguments of one job: as compact JSON 200 bytes (a few more when *sent* is a clock reading)."""
    return {"to": "ada@example.org", "sent": sent, "text": FILL}


def compact(args: Mapping[str, Any]) -> bytes:
    """*args* as the bytes of a body."""
    return json.dumps(args, separators=(",", ":")).encode()


FILL = ""
FILL = "x" * (BODY_SIZE - len(compact(arguments())))


class Clock:
    """Starts when made. The processor time beside the rate tells a slow client from a busy machine."""

    def __init__(self) -> None:
        self._wall = time.perf_counter()
        self._cpu = time.process_time()

    def figures(self, count: int) -> Figures:
        """*count* per second until now, and the processor time of this process for each, in microseconds."""
        cpu = time.process_time() - self._cpu
        return {"rate": count / (time.perf_counter() - self._wall), "cpu_us": cpu * 1e6 / count}


class Tally:
    """Counts finished jobs, from any thread, and keeps when the first and the last of *count* finished."""

    def __init__(self, count: int, on_last: Callable[[], object]) -> None:
        self._count = count
        self._on_last = on_last
        self._numbers = itertools.count(1)
        self._clock = Clock()
        self._figures: Figures = {}

    def tick(self) -> None:
        """Count one finished job."""
        number = next(self._numbers)
        if number == 1:
            self._clock = Clock()
        elif number == self._count:
            self._figures = self._clock.figures(self._count - 1)
            self._on_last()

    def figures(self) -> Figures:
        """Jobs per second between the first and the last finished job."""
        return self._figures


class Latencies:
    """Collects how long jobs were on their way; the clock is the machine's monotonic one, the same in every process."""

    def __init__(self, count: int, on_last: Callable[[], object]) -> None:
        self._count = count
        self._on_last = on_last
        self._seconds: list[float] = []

    def arrived(self, sent: float) -> None:
        """Note that a handler started for the job that was published at *sent*."""
        self._seconds.append(time.perf_counter() - sent)
        if len(self._seconds) == self._count:
            self._on_last()

    def figures(self) -> Figures:
        """The median and the 99th percentile in milliseconds, without the warm-up."""
        counted = sorted(self._seconds[WARM_UP:])
        return {"p50_ms": _percentile(counted, 0.50) * 1000, "p99_ms": _percentile(counted, 0.99) * 1000}


def _percentile(ordered: list[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(len(ordered) * share))]


def timed(count: int, publish_all: Callable[[], object]) -> Figures:
    """Run *publish_all*, which publishes *count* jobs and returns when all are confirmed; give the rate."""
    clock = Clock()
    publish_all()
    return clock.figures(count)


async def timed_async(count: int, publish_all: Awaitable[object]) -> Figures:
    """As `timed`, for a coroutine."""
    clock = Clock()
    await publish_all
    return clock.figures(count)


def in_threads(threads: int, count: int, publish: Callable[[], object]) -> Figures:
    """Call *publish* *count* times from *threads* threads that have all begun before the clock starts."""
    begun = threading.Barrier(threads + 1)

    def share(calls: int) -> None:
        publish()  # opens what a thread opens for itself
        begun.wait(LIMIT)
        for _ in range(calls):
            publish()

    with ThreadPoolExecutor(threads) as pool:
        running = [pool.submit(share, count // threads - 1) for _ in range(threads)]
        begun.wait(LIMIT)
        clock = Clock()
        for future in running:
            future.result(LIMIT)
        return clock.figures((count // threads - 1) * threads)


async def windowed(count: int, publish: Callable[[], Awaitable[object]]) -> None:
    """Await *publish* *count* times, `WINDOW` of them at once."""
    numbers = iter(range(count))

    async def lane() -> None:
        for _ in numbers:
            await publish()

    await asyncio.gather(*(lane() for _ in range(min(WINDOW, count))))


async def paced(count: int, publish: Callable[[dict[str, Any]], Awaitable[object]]) -> None:
    """Publish *count* jobs at `PACE` a second, each in a task of its own so that a slow one holds no other back."""
    tasks = []
    start = time.perf_counter()
    for number in range(count):
        await asyncio.sleep(max(0.0, start + number / PACE - time.perf_counter()))
        tasks.append(asyncio.ensure_future(publish(arguments(time.perf_counter()))))
    await asyncio.gather(*tasks)


def paced_blocking(count: int, publish: Callable[[dict[str, Any]], object]) -> None:
    """Publish *count* jobs at `PACE` a second from this thread."""
    start = time.perf_counter()
    for number in range(count):
        time.sleep(max(0.0, start + number / PACE - time.perf_counter()))
        publish(arguments(time.perf_counter()))


def run_role(roles: Mapping[str, Role]) -> None:
    """Do what the command line asks for (``ROLE COUNT``) and print the figures as one line of JSON."""
    parser = argparse.ArgumentParser()
    parser.add_argument("role", choices=sorted(roles))
    parser.add_argument("count", type=int)
    parser.add_argument("--calls", metavar="FILE", help="profile the main thread's calls into FILE")
    asked = parser.parse_args()
    profile = cProfile.Profile()
    if asked.calls:
        figures = profile.runcall(roles[asked.role], asked.count)
        profile.dump_stats(asked.calls)
    else:
        figures = roles[asked.role](asked.count)
    print(json.dumps(figures), flush=True)  # noqa: T201 - the answer
