"""Dramatiq: one process, confirmed publishes, quorum queues, no results; as many threads as serve it best."""

from __future__ import annotations

import threading
from typing import Any

import dramatiq
from dramatiq.brokers.rabbitmq import RabbitmqBroker

from tests.bench.entrants.common import (
    LIMIT,
    Figures,
    Latencies,
    Tally,
    arguments,
    broker_url,
    in_threads,
    paced_blocking,
    run_role,
    timed,
)

QUEUE = "bench.dramatiq"
#: Its default. Jobs that do nothing go faster through one thread (measured: 117 to 180 µs each against 196 to 270).
THREADS = 8


class QuorumBroker(RabbitmqBroker):
    """Dramatiq's broker with quorum queues, which it has no option for."""

    def _build_queue_arguments(self, queue_name: str) -> dict[str, Any]:
        return super()._build_queue_arguments(queue_name) | {"x-queue-type": "quorum"}


broker = QuorumBroker(url=broker_url(), confirm_delivery=True)
dramatiq.set_broker(broker)


class Watch:
    """Who watches the jobs of this run."""

    tally: Tally
    latencies: Latencies


@dramatiq.actor(queue_name=QUEUE)
def note(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
    Watch.tally.tick()


@dramatiq.actor(queue_name=QUEUE)
def measure(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
    Watch.latencies.arrived(sent)


def _publish() -> None:
    note.send(**arguments())


def publish_1_thread(count: int) -> Figures:
    """One thread, each publish confirmed before the next."""
    _publish()

    def publish_all() -> None:
        for _ in range(count - 1):
            _publish()

    return timed(count - 1, publish_all)


def publish_16_threads(count: int) -> Figures:
    """Sixteen threads, each with the connection Dramatiq gives it."""
    return in_threads(16, count, _publish)


def _work(last: threading.Event, threads: int) -> None:
    """What `dramatiq --processes 1 --threads THREADS` runs in its process, until *last* is set."""
    worker = dramatiq.Worker(broker, worker_threads=threads, worker_timeout=100)
    worker.start()
    last.wait(LIMIT)
    worker.stop()


def _count(count: int, threads: int) -> Figures:
    last = threading.Event()
    Watch.tally = Tally(count, last.set)
    _work(last, threads)
    return Watch.tally.figures()


def work_async(count: int) -> Figures:
    """One thread."""
    return _count(count, 1)


def work_thread(count: int) -> Figures:
    """Eight threads."""
    return _count(count, THREADS)


def latency_worker(count: int) -> Figures:
    """Note when each job arrives."""
    last = threading.Event()
    Watch.latencies = Latencies(count, last.set)
    _work(last, THREADS)
    return Watch.latencies.figures()


def latency_publisher(count: int) -> Figures:
    """Publish at the pace of the measure."""

    def publish(args: dict[str, Any]) -> None:
        measure.send(**args)

    paced_blocking(count, publish)
    return {}


def seed(_count: int) -> Figures:
    """Declare the queue and publish one job into it."""
    _publish()
    return {}


ROLES = {
    "seed": seed,
    "seed_thread": seed,
    "publish_async": publish_16_threads,
    "publish_1_thread": publish_1_thread,
    "publish_16_threads": publish_16_threads,
    "work_async": work_async,
    "work_thread": work_thread,
    "latency_worker": latency_worker,
    "latency_publisher": latency_publisher,
}

if __name__ == "__main__":
    run_role(ROLES)
