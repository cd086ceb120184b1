"""Penstock as its users use it: typed arguments, a deadline, a middleware, metrics and a log."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import uvloop
from prometheus_client import CollectorRegistry

from penstock import AsyncPublisher, Handlers, Job, JobKind, NewJob, Next, Publisher, Worker, event_log, metrics
from penstock.brokers.aio_pika_driver import open_admin
from penstock.connect import broker_for
from penstock.topology.build import build as topology_of
from penstock.topology.reading import parse_spec
from tests.bench.entrants.common import (
    LIMIT,
    PREFETCH,
    Figures,
    Latencies,
    Tally,
    arguments,
    broker_url,
    in_threads,
    paced,
    run_role,
    timed,
    timed_async,
    windowed,
)

TOPOLOGY = Path(__file__).parents[1] / "topology.yaml"

#: Prefetch is the slots and half as many.
SLOTS = PREFETCH * 2 // 3 + 1
#: What a worker has when nobody says otherwise.
THREADS = 16
UNEQUAL_SLOTS = 16
#: Unequal jobs that are not counted: the worker opens its prefetch with the first one.
UNEQUAL_WARM_UP = 100


@dataclass(frozen=True, slots=True)
class Note:
    """The job of 200 bytes."""

    to: str
    sent: float
    text: str


@dataclass(frozen=True, slots=True)
class Wait:
    """A job that takes *seconds*."""

    seconds: float


#: Workers that are measured in turn have a queue each.
QUEUE = os.environ.get("BENCH_QUEUE", "bench")

NOTE = JobKind(f"{QUEUE}.note", Note)
WAIT = JobKind(f"{QUEUE}.wait", Wait)
ARGS = Note(**arguments())


async def through(job: Job[Any], run: Next) -> object:
    """A middleware."""
    return await run(job)


def worker_of(handlers: Handlers, slots: int) -> Worker:
    """A worker with everything on that users have on."""
    worker = Worker(handlers, queue=QUEUE, slots=slots, middleware=[through])
    metrics.subscribe(worker.events, CollectorRegistry(), role="worker")
    event_log.subscribe(worker.events)
    return worker


def build() -> Worker:
    """The idle worker: `penstock worker tests.bench.entrants.penstock_:build`."""
    return Worker(noting(lambda _: None), queue=QUEUE, middleware=[through])


def noting(see: Callable[[Job[Note]], object]) -> Handlers:
    """One handler on the loop."""
    handlers = Handlers()

    @handlers.on(NOTE, timeout=timedelta(seconds=30))
    async def note(job: Job[Note]) -> None:
        see(job)

    return handlers


async def work_until(last: asyncio.Event, worker: Worker) -> None:
    """Run *worker* until *last* is set."""
    await asyncio.wait_for(worker.run(broker_for(broker_url()), stop=last), LIMIT)


def work_async(count: int) -> Figures:
    """Handlers on the loop."""

    async def main() -> Figures:
        last = asyncio.Event()
        tally = Tally(count, last.set)
        await work_until(last, worker_of(noting(lambda _: tally.tick()), SLOTS))
        return tally.figures()

    return uvloop.run(main())


def work_thread(count: int) -> Figures:
    """Handlers in threads."""

    async def main() -> Figures:
        loop, last = asyncio.get_running_loop(), asyncio.Event()
        tally = Tally(count, lambda: loop.call_soon_threadsafe(last.set))
        handlers = Handlers()

        @handlers.on(NOTE)
        def note(_job: Job[Note]) -> None:
            tally.tick()

        await work_until(last, worker_of(handlers, THREADS))
        return tally.figures()

    return uvloop.run(main())


class Tenths:
    """The rate of each tenth of the jobs, and the memory held at the end of each (MB)."""

    def __init__(self, count: int, on_last: Callable[[], object]) -> None:
        self._tenth = count // 10
        self._on_last = on_last
        self._done = 0
        self._marks: list[float] = []
        self._memory: list[float] = []

    def tick(self) -> None:
        self._done += 1
        if self._done == 1 or self._done % self._tenth == 0:
            self._marks.append(time.perf_counter())
            self._memory.append(_resident_mb())
        if len(self._marks) > 10:
            self._on_last()

    def figures(self) -> Figures:
        first, last = self._marks[1] - self._marks[0], self._marks[10] - self._marks[9]
        grown = self._memory[10] - self._memory[1]
        return {"first_tenth": self._tenth / first, "last_tenth": self._tenth / last, "growth_mb": grown}


def _resident_mb() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def drain(count: int) -> Figures:
    """A long queue, worked off."""

    async def main() -> Figures:
        last = asyncio.Event()
        tenths = Tenths(count, last.set)
        await work_until(last, worker_of(noting(lambda _: tenths.tick()), SLOTS))
        return tenths.figures()

    return uvloop.run(main())


class Busy:
    """How much of the slots' time had a handler running, from the end of the warm-up to the *count*-th start."""

    def __init__(self, count: int, slots: int, on_last: Callable[[], object]) -> None:
        self._count = count
        self._slots = slots
        self._on_last = on_last
        self._starts = self._running = 0
        self._since = self._begin = self._end = self._area = 0.0

    def started(self) -> None:
        self._account()
        self._running += 1
        self._starts += 1
        if self._starts == UNEQUAL_WARM_UP:
            self._begin, self._area = self._since, 0.0
        elif self._starts == self._count:
            self._end = self._since
            self._on_last()

    def ended(self) -> None:
        self._account()
        self._running -= 1

    def _account(self) -> None:
        now = time.perf_counter()
        if not self._end:
            self._area += self._running * (now - self._since)
        self._since = now

    def figures(self) -> Figures:
        return {"busy_percent": 100 * self._area / (self._slots * (self._end - self._begin))}


def slots(count: int) -> Figures:
    """Sixteen slots of unequal jobs."""

    async def main() -> Figures:
        last = asyncio.Event()
        busy = Busy(count, UNEQUAL_SLOTS, last.set)
        handlers = Handlers()

        @handlers.on(WAIT, timeout=timedelta(seconds=30))
        async def wait(job: Job[Wait]) -> None:
            busy.started()
            try:
                await asyncio.sleep(job.args.seconds)
            finally:
                busy.ended()

        await work_until(last, worker_of(handlers, UNEQUAL_SLOTS))
        return busy.figures()

    return uvloop.run(main())


def fill_slots(count: int) -> Figures:
    """Publish jobs of 0 to 20 ms in no order, a few more than counted."""
    waits = (WAIT.new(Wait(number * 7919 % 21 / 1000)) for number in range(count + 2 * UNEQUAL_SLOTS))

    async def main() -> Figures:
        await declare()
        async with AsyncPublisher(broker_url()) as publisher:
            await publisher.publish_many(waits)
        return {}

    return uvloop.run(main())


def latency_worker(count: int) -> Figures:
    """Note when each job arrives."""

    async def main() -> Figures:
        await declare()
        last = asyncio.Event()
        latencies = Latencies(count, last.set)
        await work_until(last, worker_of(noting(lambda job: latencies.arrived(job.args.sent)), 16))
        return latencies.figures()

    return uvloop.run(main())


def latency_publisher(count: int) -> Figures:
    """Publish at the pace of the measure."""

    async def main() -> Figures:
        async with AsyncPublisher(broker_url()) as publisher:
            await paced(count, lambda args: publisher.publish(NOTE, Note(**args)))
        return {}

    return uvloop.run(main())


def jobs(count: int) -> Iterator[NewJob[Note]]:
    """*count* jobs to publish."""
    return (NOTE.new(ARGS) for _ in range(count))


def publish_async(count: int) -> Figures:
    """`AsyncPublisher.publish_many`."""

    async def main() -> Figures:
        await declare()
        async with AsyncPublisher(broker_url(), app_id="bench") as publisher:
            return await timed_async(count, publisher.publish_many(jobs(count)))

    return uvloop.run(main())


def publish_each(count: int) -> Figures:
    """`AsyncPublisher.publish` from many tasks."""

    async def main() -> Figures:
        await declare()
        async with AsyncPublisher(broker_url(), app_id="bench") as publisher:
            return await timed_async(count, windowed(count, lambda: publisher.publish(NOTE, ARGS)))

    return uvloop.run(main())


def publish_many(count: int) -> Figures:
    """The blocking `Publisher.publish_many`."""
    uvloop.run(declare())
    with Publisher(broker_url(), app_id="bench") as publisher:
        return timed(count, lambda: publisher.publish_many(jobs(count)))


def publish_1_thread(count: int) -> Figures:
    """The blocking `Publisher.publish`, each confirmed before the next."""
    uvloop.run(declare())
    with Publisher(broker_url(), app_id="bench") as publisher:

        def publish_all() -> None:
            for _ in range(count):
                publisher.publish(NOTE, ARGS)

        return timed(count, publish_all)


def publish_16_threads(count: int) -> Figures:
    """Sixteen threads that share one `Publisher`."""
    uvloop.run(declare())
    with Publisher(broker_url(), app_id="bench") as publisher:
        return in_threads(16, count, lambda: publisher.publish(NOTE, ARGS))


async def declare() -> None:
    """Declare the topology."""
    admin = await open_admin(broker_url())
    await admin.declare(topology_of(parse_spec(TOPOLOGY.read_text())))
    await admin.close()


def seed(_count: int) -> Figures:
    """Declare the topology and publish one job."""
    uvloop.run(declare())
    with Publisher(broker_url(), app_id="bench") as publisher:
        publisher.publish(NOTE, ARGS)
    return {}


ROLES = {
    "seed": seed,
    "seed_thread": seed,
    "publish_async": publish_async,
    "publish_each": publish_each,
    "publish_many": publish_many,
    "publish_1_thread": publish_1_thread,
    "publish_16_threads": publish_16_threads,
    "work_async": work_async,
    "work_thread": work_thread,
    "drain": drain,
    "slots": slots,
    "fill_slots": fill_slots,
    "latency_worker": latency_worker,
    "latency_publisher": latency_publisher,
}

if __name__ == "__main__":
    run_role(ROLES)
