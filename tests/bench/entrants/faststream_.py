"""FastStream: uvloop, quorum queue, confirmed and persistent publishes, acked when the handler is over."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import uvloop
from faststream import AckPolicy, FastStream
from faststream.rabbit import Channel, QueueType, RabbitBroker, RabbitQueue

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

QUEUE = RabbitQueue("bench.faststream", queue_type=QueueType.QUORUM, durable=True)

broker = RabbitBroker(broker_url(), logger=None, default_channel=Channel(prefetch_count=PREFETCH))


async def _publish(args: dict[str, Any]) -> None:
    await broker.publish(args, queue=QUEUE, persist=True, mandatory=True)


async def _publishing(publishing: Coroutine[Any, Any, Any]) -> Any:
    await broker.connect()
    await broker.declare_queue(QUEUE)
    try:
        return await publishing
    finally:
        await broker.stop()


def publish_async(count: int) -> Figures:
    """Many publishes in flight on one channel."""
    return uvloop.run(_publishing(timed_async(count, windowed(count, lambda: _publish(arguments())))))


async def _work(last: asyncio.Event) -> None:
    await broker.start()
    await asyncio.wait_for(last.wait(), LIMIT)
    await broker.stop()


def work_async(count: int) -> Figures:
    """Handlers on the loop."""

    async def main() -> Figures:
        last = asyncio.Event()
        tally = Tally(count, last.set)

        @broker.subscriber(QUEUE, ack_policy=AckPolicy.REJECT_ON_ERROR)
        async def note(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
            tally.tick()

        await _work(last)
        return tally.figures()

    return uvloop.run(main())


def work_thread(count: int) -> Figures:
    """Handlers in threads."""

    async def main() -> Figures:
        loop, last = asyncio.get_running_loop(), asyncio.Event()
        tally = Tally(count, lambda: loop.call_soon_threadsafe(last.set))

        @broker.subscriber(QUEUE, ack_policy=AckPolicy.REJECT_ON_ERROR)
        def note(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
            tally.tick()

        await _work(last)
        return tally.figures()

    return uvloop.run(main())


def latency_worker(count: int) -> Figures:
    """Note when each job arrives."""

    async def main() -> Figures:
        last = asyncio.Event()
        latencies = Latencies(count, last.set)

        @broker.subscriber(QUEUE, ack_policy=AckPolicy.REJECT_ON_ERROR)
        async def measure(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
            latencies.arrived(sent)

        await _work(last)
        return latencies.figures()

    return uvloop.run(main())


def idle() -> FastStream:
    """The application that `faststream run --factory` starts to wait for jobs."""

    @broker.subscriber(QUEUE, ack_policy=AckPolicy.REJECT_ON_ERROR)
    async def wait(to: str, sent: float, text: str) -> None:
        """Nothing is published for it."""

    return FastStream(broker, logger=None)


def latency_publisher(count: int) -> Figures:
    """Publish at the pace of the measure."""
    uvloop.run(_publishing(paced(count, _publish)))
    return {}


def seed(_count: int) -> Figures:
    """Declare the queue and publish one job into it."""
    uvloop.run(_publishing(_publish(arguments())))
    return {}


ROLES = {
    "seed": seed,
    "seed_thread": seed,
    "publish_async": publish_async,
    "work_async": work_async,
    "work_thread": work_thread,
    "latency_worker": latency_worker,
    "latency_publisher": latency_publisher,
}

if __name__ == "__main__":
    run_role(ROLES)
