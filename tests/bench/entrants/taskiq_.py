"""Taskiq over its aio-pika broker: uvloop, quorum queue, orjson, acked when the job is over, no results."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Coroutine
from typing import Any

import uvloop
from taskiq.api import run_receiver_task
from taskiq.serializers import ORJSONSerializer
from taskiq_aio_pika import AioPikaBroker, Exchange, Queue, QueueType

from tests.bench.entrants.common import (
    LIMIT,
    PREFETCH,
    Figures,
    Latencies,
    Tally,
    arguments,
    broker_url,
    paced,
    run_role,
    timed_async,
    windowed,
)

QUEUE = "bench.taskiq"

broker = AioPikaBroker(
    broker_url(),
    qos=PREFETCH,
    exchange=Exchange(name=QUEUE),
    task_queues=[Queue(name=QUEUE, type=QueueType.QUORUM)],
    dead_letter_queue=Queue(name=QUEUE + ".dead", type=QueueType.QUORUM),
).with_serializer(ORJSONSerializer())


class Watch:
    """Who watches the jobs of this run."""

    tally: Tally
    latencies: Latencies


@broker.task(task_name="bench.note")
async def note(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
    Watch.tally.tick()


@broker.task(task_name="bench.note_blocking")
def note_blocking(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
    Watch.tally.tick()


@broker.task(task_name="bench.measure")
async def measure(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
    Watch.latencies.arrived(sent)


async def _publishing(publishing: Coroutine[Any, Any, Any]) -> Any:
    await broker.startup()
    try:
        return await publishing
    finally:
        await broker.shutdown()


def publish_async(count: int) -> Figures:
    """Many publishes in flight on one channel."""

    async def publish() -> None:
        await note.kiq(**arguments())

    return uvloop.run(_publishing(timed_async(count, windowed(count, publish))))


async def _work(last: asyncio.Event) -> None:
    """Run the receiver as `taskiq worker --workers 1` does, until *last* is set."""
    broker.is_worker_process = True
    await broker.startup()
    receiving = asyncio.create_task(
        run_receiver_task(broker, sync_workers=8, max_async_tasks=PREFETCH, max_prefetch=PREFETCH)
    )
    await asyncio.wait_for(last.wait(), LIMIT)
    receiving.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await receiving
    await broker.shutdown()


def work(count: int) -> Figures:
    """Run jobs, on the loop or in eight threads as the job asks."""

    async def main() -> Figures:
        loop, last = asyncio.get_running_loop(), asyncio.Event()
        Watch.tally = Tally(count, lambda: loop.call_soon_threadsafe(last.set))
        await _work(last)
        return Watch.tally.figures()

    return uvloop.run(main())


def latency_worker(count: int) -> Figures:
    """Note when each job arrives."""

    async def main() -> Figures:
        last = asyncio.Event()
        Watch.latencies = Latencies(count, last.set)
        await _work(last)
        return Watch.latencies.figures()

    return uvloop.run(main())


def latency_publisher(count: int) -> Figures:
    """Publish at the pace of the measure."""

    async def publish(args: dict[str, Any]) -> None:
        await measure.kiq(**args)

    uvloop.run(_publishing(paced(count, publish)))
    return {}


def seed(_count: int) -> Figures:
    """Declare the queue and publish one job into it."""
    uvloop.run(_publishing(note.kiq(**arguments())))
    return {}


def seed_thread(_count: int) -> Figures:
    """As `seed`, with a job that runs in a thread."""
    uvloop.run(_publishing(note_blocking.kiq(**arguments())))
    return {}


ROLES = {
    "seed": seed,
    "seed_thread": seed_thread,
    "publish_async": publish_async,
    "work_async": work,
    "work_thread": work,
    "latency_worker": latency_worker,
    "latency_publisher": latency_publisher,
}

if __name__ == "__main__":
    run_role(ROLES)
