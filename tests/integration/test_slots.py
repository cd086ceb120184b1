"""How much a worker does at once: slots, threads, the prefetch window, deadlines, and a loop that is held up."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable
from datetime import timedelta
from functools import partial
from typing import Any

import pytest

from penstock import Done, Handlers, Job, JobKind, Retried, RetryPolicy
from penstock.events import ConsumingStarted, JobFinished, LoopLagged
from tests.support.waiting import eventually
from tests.support.working import depth, empty, foreign, put, working

KIND: JobKind[dict[str, Any]] = JobKind("email.send", dict)
LATER = RetryPolicy(first=timedelta(hours=1))


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds an empty queue."""
    await empty(url, "jobs.email")


async def _is(answer: Awaitable[int], wanted: set[int]) -> bool:
    return await answer in wanted


async def put_many(url: str, count: int) -> None:
    """Publish *count* jobs from outside."""
    async with foreign(url) as channel:
        for number in range(count):
            await put(channel, "email.send", b"{}", message_id=f"job-{number}")


class Gate:
    """An async handler that waits until it is let go, and counts how many wait at once."""

    def __init__(self) -> None:
        self.handlers = Handlers()
        self.running = 0
        self.most = 0
        self._open = asyncio.Semaphore(0)
        self.handlers.on(KIND)(self.run)

    async def run(self, _: Job[dict[str, Any]]) -> None:
        """The handler."""
        self.running += 1
        self.most = max(self.most, self.running)
        await self._open.acquire()
        self.running -= 1

    def has(self, running: int) -> bool:
        """Whether as many run now."""
        return self.running == running

    def let_go(self, count: int) -> None:
        """Let *count* of them end."""
        for _ in range(count):
            self._open.release()


async def test_never_more_jobs_run_than_there_are_slots_and_no_slot_stays_empty(url: str) -> None:
    gate = Gate()
    await put_many(url, 20)
    async with working(url, gate.handlers, slots=3) as worker:
        for done in range(1, 20):
            gate.let_go(1)
            await worker.until(JobFinished, done)
            await eventually(partial(gate.has, min(3, 20 - done)))
        gate.let_go(1)
        await worker.until(JobFinished, 20)
    assert gate.most == 3


async def test_a_worker_holds_one_message_until_the_first_is_settled_and_then_slots_and_a_reserve(url: str) -> None:
    gate = Gate()
    await put_many(url, 12)
    async with working(url, gate.handlers, slots=4) as worker:
        [started] = worker.of(ConsumingStarted)
        await eventually(lambda: gate.running == 1)
        assert await depth(url, "jobs.email") == 11
        gate.let_go(1)
        await eventually(lambda: gate.running == 4)
        # The broker counts a window per consumer: the message on its way to the narrow one comes on top.
        await eventually(lambda: _is(depth(url, "jobs.email"), {4, 5}))
        assert started.prefetch == 6
        gate.let_go(11)
        await worker.until(JobFinished, 12)


async def test_plain_handlers_run_side_by_side_in_threads(url: str) -> None:
    handlers = Handlers()
    meeting = threading.Barrier(4)

    @handlers.on(KIND)
    def meet(job: Job[dict[str, Any]]) -> str:
        if job.id != "job-0":  # the first runs alone
            meeting.wait(timeout=10)
        return threading.current_thread().name

    await put_many(url, 5)
    async with working(url, handlers, slots=4) as worker:
        finished = await worker.until(JobFinished, 5)
    names = [event.outcome.result for event in finished[1:]]
    assert len(set(names)) == 4
    assert "MainThread" not in names


async def test_an_async_handler_past_its_deadline_is_cancelled_and_retried(url: str) -> None:
    handlers = Handlers()
    cancelled = asyncio.Event()

    @handlers.on(KIND, timeout=timedelta(seconds=0.2), retry=LATER)
    async def linger(_: Job[dict[str, Any]]) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    await put_many(url, 1)
    async with working(url, handlers) as worker:
        [finished] = await worker.until(JobFinished)
    assert cancelled.is_set()
    assert isinstance(finished.outcome, Retried)
    assert finished.outcome.failure.type == "penstock.errors.JobTimeout"
    assert finished.outcome.failure.text == "linger ran past its deadline of 0.2 s"
    assert 0.2 <= finished.run < 10


async def test_a_timeout_of_the_handlers_own_is_no_deadline(url: str) -> None:
    handlers = Handlers()

    @handlers.on(KIND, timeout=timedelta(seconds=10), retry=LATER)
    async def give_up(_: Job[dict[str, Any]]) -> None:
        async with asyncio.timeout(0.01):
            await asyncio.Event().wait()

    await put_many(url, 1)
    async with working(url, handlers) as worker:
        [finished] = await worker.until(JobFinished)
    assert isinstance(finished.outcome, Retried)
    assert finished.outcome.failure.type == "TimeoutError"


async def test_a_handler_that_cancels_itself_is_retried(url: str) -> None:
    handlers = Handlers()

    @handlers.on(KIND, retry=LATER)
    async def cancel(_: Job[dict[str, Any]]) -> None:
        raise asyncio.CancelledError

    await put_many(url, 1)
    async with working(url, handlers) as worker:
        [finished] = await worker.until(JobFinished)
    assert isinstance(finished.outcome, Retried)


async def test_a_handler_that_holds_up_the_loop_is_reported_by_its_kind(url: str) -> None:
    handlers = Handlers()

    @handlers.on(KIND)
    async def block(_: Job[dict[str, Any]]) -> None:
        time.sleep(2.6)  # noqa: ASYNC251 - the mistake this is about

    await put_many(url, 1)
    async with working(url, handlers) as worker:
        [finished] = await worker.until(JobFinished)

        def told() -> list[LoopLagged]:
            # The machine may hold the loop up as well, when no handler runs.
            return [event for event in worker.of(LoopLagged) if event.kinds == ("email.send",)]

        await eventually(told)
    assert 2 <= told()[0].seconds < 60
    assert finished.outcome == Done()
