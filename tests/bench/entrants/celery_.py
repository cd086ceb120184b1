"""Celery: late acks, confirmed publishes, quorum queue, no results, nothing on the side (gossip, mingle, events)."""

from __future__ import annotations

from typing import Any

from celery import Celery
from celery.worker import state
from kombu import Exchange, Queue

from tests.bench.entrants.common import (
    PREFETCH,
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

QUEUE = "bench.celery"

app = Celery("bench", broker=broker_url())
app.conf.update(
    task_queues=[Queue(QUEUE, Exchange(QUEUE, "direct"), QUEUE, queue_arguments={"x-queue-type": "quorum"})],
    task_default_queue=QUEUE,
    task_default_exchange=QUEUE,
    task_default_routing_key=QUEUE,
    task_acks_late=True,
    task_ignore_result=True,
    task_store_errors_even_if_ignored=False,
    worker_prefetch_multiplier=PREFETCH,
    worker_enable_remote_control=False,
    worker_send_task_events=False,
    worker_hijack_root_logger=False,
    worker_redirect_stdouts=False,
    broker_connection_retry_on_startup=False,
    broker_transport_options={"confirm_publish": True},
)


class Watch:
    """Who watches the jobs of this run."""

    tally: Tally
    latencies: Latencies


@app.task(name="bench.note")
def note(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
    Watch.tally.tick()


@app.task(name="bench.measure")
def measure(to: str, sent: float, text: str) -> None:  # noqa: ARG001 - the arguments of a job
    Watch.latencies.arrived(sent)


def _stop() -> None:
    state.should_stop = 0


def _work(*options: str) -> None:
    command = ["worker", "--loglevel=ERROR", "--without-gossip", "--without-mingle", "--without-heartbeat", *options]
    try:
        app.worker_main(command)
    except SystemExit as stopped:
        if stopped.code:
            raise


def _publish() -> None:
    note.apply_async(kwargs=arguments())


def publish_1_thread(count: int) -> Figures:
    """One thread, each publish confirmed before the next."""
    _publish()

    def publish_all() -> None:
        for _ in range(count - 1):
            _publish()

    return timed(count - 1, publish_all)


def publish_16_threads(count: int) -> Figures:
    """Sixteen threads over Celery's pool of connections."""
    app.conf.broker_pool_limit = 16
    return in_threads(16, count, _publish)


def work_async(count: int) -> Figures:
    """The solo pool."""
    Watch.tally = Tally(count, _stop)
    _work("--pool=solo")
    return Watch.tally.figures()


def work_thread(count: int) -> Figures:
    """The thread pool."""
    Watch.tally = Tally(count, _stop)
    app.conf.worker_prefetch_multiplier = PREFETCH // 8
    _work("--pool=threads", "--concurrency=8")
    return Watch.tally.figures()


def latency_worker(count: int) -> Figures:
    """Note when each job arrives."""
    Watch.latencies = Latencies(count, _stop)
    _work("--pool=solo")
    return Watch.latencies.figures()


def latency_publisher(count: int) -> Figures:
    """Publish at the pace of the measure."""

    def publish(args: dict[str, Any]) -> None:
        measure.apply_async(kwargs=args)

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
