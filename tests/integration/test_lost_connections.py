"""A worker whose connection breaks, whose consumer is forgotten, whose queue goes: nothing is lost or doubled."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from datetime import timedelta
from typing import Any

import pytest

from penstock import ConnectionLost, Done, Handlers, Job, JobKind, Retried, TopologyMismatch, Worker
from penstock.connect import broker_for
from penstock.events import (
    ConnectFailed,
    ConsumingEnded,
    ConsumingStarted,
    JobFinished,
    JobStarted,
    LinkLost,
    SettleFailed,
    WatchdogReopened,
)
from penstock.testing.free_ports import free_ports
from penstock.topology.build import build
from penstock.topology.model import Topology
from penstock.topology.reading import parse_spec
from tests.integration.conftest import TOPOLOGY
from tests.support.proxy import Proxy, proxied
from tests.support.waiting import eventually
from tests.support.working import declare, depth, empty, foreign, put, working

_ALL = build(parse_spec(TOPOLOGY))
NORTH = Topology(
    queues=tuple(queue for queue in _ALL.queues if queue.name == "jobs.north"),
    bindings=tuple(binding for binding in _ALL.bindings if binding.destination == "jobs.north"),
)
ENTRY = Topology(
    exchanges=tuple(exchange for exchange in _ALL.exchanges if exchange.name == "jobs.delay"),
    bindings=tuple(binding for binding in _ALL.bindings if binding.source == "jobs.delay"),
)

KIND: JobKind[dict[str, Any]] = JobKind("email.send", dict)


@pytest.fixture
async def proxy(url: str) -> AsyncIterator[Proxy]:
    """A way to the broker that can be broken; the queue is empty at first."""
    await empty(url, "jobs.email", "jobs.email.dead", "jobs.delay.00-1s")
    async with proxied(url) as proxy:
        yield proxy


class Gated:
    """A handler that counts its runs and waits to be let go; its first attempt fails if it is told to."""

    def __init__(self, *, fail_first: bool = False) -> None:
        self.handlers = Handlers()
        self.runs: Counter[tuple[str, int]] = Counter()
        self.gate = asyncio.Event()
        self._fail_first = fail_first
        self.handlers.on(KIND)(self.run)

    async def run(self, job: Job[dict[str, Any]]) -> None:
        """The handler."""
        self.runs[job.id, job.attempt] += 1
        await self.gate.wait()
        if self._fail_first and job.attempt == 1:
            raise OSError("451")


async def put_jobs(url: str, *ids: str) -> None:
    """Publish a job of each id, from outside and not through the proxy."""
    async with foreign(url) as channel:
        for job_id in ids:
            await put(channel, "email.send", b"{}", message_id=job_id)


async def is_empty(url: str) -> bool:
    """Whether nothing is ready in jobs.email."""
    return await depth(url, "jobs.email") == 0


async def test_a_job_that_runs_while_the_connection_breaks_runs_on_and_is_settled_by_its_redelivery(
    url: str, proxy: Proxy
) -> None:
    work = Gated()
    await put_jobs(url, "order-7")
    async with working(proxy.url, work.handlers) as worker:
        await worker.until(JobStarted)
        proxy.cut()
        await worker.until(ConsumingStarted, 2)
        await eventually(lambda: is_empty(url))
        work.gate.set()
        [finished] = await worker.until(JobFinished)
    assert finished.outcome == Done()
    assert work.runs == {("order-7", 1): 1}
    assert len(worker.of(LinkLost)) == 2, "one to consume, one to publish"
    assert worker.of(ConsumingEnded)
    assert await is_empty(url)


async def test_a_job_that_ends_while_no_connection_stands_is_not_run_again(url: str, proxy: Proxy) -> None:
    work = Gated()
    await put_jobs(url, "order-7")
    async with working(proxy.url, work.handlers) as worker:
        await worker.until(JobStarted)
        proxy.refusing = True
        proxy.cut()
        await worker.until(ConnectFailed)
        work.gate.set()
        await worker.until(JobFinished)
        proxy.refusing = False
        await worker.until(ConsumingStarted, 2)
        await eventually(lambda: is_empty(url))
        await put_jobs(url, "order-8")
        await worker.until(JobFinished, 2)
    assert work.runs == {("order-7", 1): 1, ("order-8", 1): 1}
    assert await is_empty(url)


async def test_a_job_that_fails_while_no_connection_stands_is_retried_once(url: str, proxy: Proxy) -> None:
    work = Gated(fail_first=True)
    await put_jobs(url, "order-7")
    async with working(proxy.url, work.handlers) as worker:
        await worker.until(JobStarted)
        proxy.refusing = True
        proxy.cut()
        await worker.until(ConnectFailed)
        work.gate.set()
        [failed] = await worker.until(JobFinished)
        proxy.refusing = False
        [_, done] = await worker.until(JobFinished, 2)
    assert isinstance(failed.outcome, Retried)
    assert done.outcome == Done()
    assert work.runs == {("order-7", 1): 1, ("order-7", 2): 1}


async def test_what_had_not_begun_is_run_once_after_the_break(url: str, proxy: Proxy) -> None:
    work = Gated()
    work.gate.set()
    ids = [f"job-{number}" for number in range(12)]
    async with working(proxy.url, work.handlers, slots=4) as worker:
        await put_jobs(url, "first")
        await worker.until(JobFinished)
        work.gate.clear()
        await put_jobs(url, *ids)
        await worker.until(JobStarted, 5)
        proxy.cut()
        await worker.until(ConsumingStarted, 2)
        work.gate.set()
        await worker.until(JobFinished, 13)
    assert work.runs == {(job_id, 1): 1 for job_id in ("first", *ids)}


async def test_a_worker_may_be_stopped_while_it_has_no_connection(url: str, proxy: Proxy) -> None:
    work = Gated()
    work.gate.set()
    async with working(proxy.url, work.handlers) as worker:
        proxy.refusing = True
        proxy.cut()
        await worker.until(ConnectFailed)
    assert work.runs == {}
    assert await is_empty(url)


async def test_a_consumer_that_the_broker_forgot_is_opened_anew_by_the_watchdog(url: str, proxy: Proxy) -> None:
    work = Gated()
    work.gate.set()
    async with working(proxy.url, work.handlers, watchdog=timedelta(seconds=1)) as worker:
        proxy.swallowing = True
        await put_jobs(url, "one", "two")
        [reopened] = await worker.until(WatchdogReopened)
        proxy.swallowing = False
        await worker.until(JobFinished, 2)
    assert (reopened.queue, reopened.ready) == ("jobs.email", 1)
    assert reopened.seconds >= 1
    assert proxy.swallowed >= 1
    assert work.runs == {("one", 1): 1, ("two", 1): 1}


async def test_the_watchdog_leaves_a_worker_alone_that_has_no_slot_free_or_nothing_to_do(
    url: str, proxy: Proxy
) -> None:
    """How long that is tells a third worker, whose consumer is forgotten: its watchdog barks twice meanwhile."""
    await empty(url, "jobs.report", "jobs.north")
    busy, idle, forgotten = Gated(), Gated(), Gated()
    soon = timedelta(seconds=0.3)
    async with (
        foreign(url) as channel,
        working(url, busy.handlers, slots=1, watchdog=soon) as one,
        working(url, idle.handlers, queue="north", watchdog=soon) as two,
        working(proxy.url, forgotten.handlers, queue="report", watchdog=soon) as three,
    ):
        await put_jobs(url, "one", "two", "three")
        await one.until(JobStarted)
        proxy.swallowing = True
        for _ in range(2):
            await put(channel, "report.render", b"{}", type="email.send")
        await three.until(WatchdogReopened, 2)
        assert one.of(WatchdogReopened) + two.of(WatchdogReopened) == []
        assert len(one.of(ConsumingStarted)) == len(two.of(ConsumingStarted)) == 1
        proxy.swallowing = False
        busy.gate.set()
        forgotten.gate.set()
        await one.until(JobFinished, 3)
        await three.until(JobFinished, 2)


async def test_a_queue_that_is_deleted_and_declared_again_is_consumed_again(url: str) -> None:
    work = Gated()
    work.handlers.on(JobKind("sync.run", dict))(work.run)
    work.gate.set()
    async with foreign(url) as channel, working(url, work.handlers, queue="north") as worker:
        await (await channel.get_queue("jobs.north")).delete(if_unused=False, if_empty=False)
        await worker.until(ConsumingEnded)
        await declare(url, NORTH)
        await worker.until(ConsumingStarted, 2)
        await put(channel, "sync.run", b"{}", message_id="order-7")
        [finished] = await worker.until(JobFinished)
    assert finished.outcome == Done()
    assert worker.of(LinkLost) == []


async def test_a_retry_that_cannot_be_confirmed_keeps_the_original_until_it_can(url: str, proxy: Proxy) -> None:
    work = Gated(fail_first=True)
    work.gate.set()
    async with foreign(url) as channel, working(proxy.url, work.handlers) as worker:
        await channel.exchange_delete("jobs.delay")
        await put(channel, "email.send", b"{}", message_id="order-7")
        failed, _ = await worker.until(SettleFailed, 2)
        assert len(worker.finished) == 1, "only its first attempt has run"
        await declare(url, ENTRY)
        await worker.until(JobFinished, 2)
    assert (failed.queue, failed.id) == ("jobs.email", "order-7")
    assert "exchange 'jobs.delay' is missing" in failed.reason
    assert work.runs == {("order-7", 1): 1, ("order-7", 2): 1}
    assert await is_empty(url)


async def test_an_unconfirmed_retry_goes_back_with_its_original_when_the_worker_stops(url: str) -> None:
    """Nothing is acked for a copy that no broker has: the next worker runs the same attempt again."""
    await empty(url, "jobs.email")
    work = Gated(fail_first=True)
    work.gate.set()
    worker, stop = Worker(work.handlers, queue="email"), asyncio.Event()
    stuck = asyncio.Event()
    worker.events.subscribe(lambda event: stuck.set() if isinstance(event, SettleFailed) else None)
    async with foreign(url) as channel:
        await channel.exchange_delete("jobs.delay")
        await put(channel, "email.send", b"{}", message_id="order-7")
        running = asyncio.create_task(worker.run(broker_for(url), stop=stop, drain_timeout=timedelta(seconds=0.2)))
        await stuck.wait()
        stop.set()
        assert await running is False
        await declare(url, ENTRY)
    assert await depth(url, "jobs.email") == 1


# --- the start --------------------------------------------------------------------------------------------------------


async def test_a_worker_gives_up_when_its_first_connection_is_not_reached_in_time() -> None:
    [port] = free_ports(1)
    worker = Worker(Gated().handlers, queue="email")
    tries: list[ConnectFailed] = []
    worker.events.subscribe(lambda event: tries.append(event) if isinstance(event, ConnectFailed) else None)
    with pytest.raises(ConnectionLost, match="cannot be reached"):
        await worker.run(
            broker_for(f"amqp://localhost:{port}"), stop=asyncio.Event(), connect_timeout=timedelta(seconds=3)
        )
    assert tries


async def test_a_worker_whose_queue_is_missing_says_so_and_does_not_wait_for_it(url: str) -> None:
    with pytest.raises(TopologyMismatch, match=r"queue 'jobs.typo' is missing .* `penstock topology apply`"):
        await Worker(Gated().handlers, queue="typo").run(broker_for(url), stop=asyncio.Event())
