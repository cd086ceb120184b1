"""Delayed jobs while the broker and the worker are killed: each runs once, none early, and none later than the crash.

How late is judged by jobs that have no delay, published all the while: a machine under load is slow to both.
"""

from __future__ import annotations

import asyncio
import itertools
import time
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from penstock import AsyncPublisher
from tests.integration.conftest import Fragile
from tests.support.processes import WorkerProcess
from tests.support.timed_apps import NOTE, notes, with_notes
from tests.support.waiting import eventually
from tests.support.working import LEVELS, depth, empty

#: Seconds that a delayed job may be later than one without a delay. A second is what it should be, and what the print
#: tells; a machine with ten times the work that its cores can do takes some more at each level.
LATE = 5.0

#: Seconds a broker that was killed may hold what was between two queues (see ``fragile_node``), and a store the job
#: that a killed worker had begun (its lease, and a wait for the end of it).
RESENT, LEASE, TAKEN_OVER = 4.0, 3, 6.0

_PROBE_EVERY = 0.2
_A_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Outage:
    """The time from a kill to the first consumer after it."""

    begun: float
    ended: float
    broker: bool

    def put_off(self, published: float, due: float) -> float:
        """The last instant at which a job that was *published* then and is *due* then may be due for this.

        A level that falls due while the broker is away is left when it is back, and the levels after it come later by
        as much.
        """
        if not published < self.ended or not self.begun <= due + LATE:
            return due
        if self.broker:
            return due + self.ended - max(self.begun, published) + RESENT
        return max(due, self.ended + TAKEN_OVER)


@dataclass
class Run:
    """The history of one run, in the machine's monotonic time."""

    url: str
    store: str
    worker: WorkerProcess
    #: When each delayed job's publish began and was confirmed, and after how many seconds it is due.
    delayed: dict[str, tuple[float, float, int]] = field(default_factory=dict)
    probes: dict[str, float] = field(default_factory=dict)
    outages: list[Outage] = field(default_factory=list)

    async def publish(self, publisher: AsyncPublisher, name: str, seconds: int, *, absolute: bool) -> None:
        """Publish a job due *seconds* from now, said as an instant or as a delay."""
        begun, now = time.monotonic(), datetime.now(UTC)
        wait = timedelta(seconds=seconds)
        when = {"at": now + wait} if absolute else {"delay": wait}
        await publisher.publish(NOTE, {}, id=name, **when)
        self.delayed[name] = (begun, time.monotonic(), seconds)

    async def publish_all(self, publisher: AsyncPublisher, names: str, delays: Iterable[int]) -> None:
        """Publish a job for each of *delays*."""
        await asyncio.gather(
            *(
                self.publish(publisher, f"{names}-{number}", seconds, absolute=number % 3 == 0)
                for number, seconds in enumerate(delays)
            )
        )

    async def probe_for_ever(self, publisher: AsyncPublisher) -> None:
        """Publish one job without a delay after the other."""
        for number in itertools.count():
            self.probes[f"probe-{number}"] = time.monotonic()
            await publisher.publish(NOTE, {}, id=f"probe-{number}")
            await asyncio.sleep(_PROBE_EVERY)

    async def outage(self, end: Callable[[], Awaitable[None]], begin: Callable[[], Awaitable[None]], what: str) -> None:
        """Kill by *end*, start by *begin*, and write down how long nothing was consumed."""
        begun = time.monotonic()
        await end()
        await begin()
        after = time.monotonic()
        await eventually(lambda: self._consuming_since(begun), within=60)
        self.outages.append(Outage(begun, max(after, self._consuming_since(begun)), what == "broker"))

    async def ran(self) -> dict[str, float]:
        """When each job ran. Every one once."""
        found = await notes(self.store)
        assert [job for job, count in Counter(job for job, _ in found).items() if count > 1] == []
        return dict(found)

    async def share_ran(self, names: str, share: float, within: float) -> None:
        """Wait until so many of the jobs called so have run."""

        async def enough() -> bool:
            ran = [job for job in await self.ran() if job.startswith(names)]
            return len(ran) >= share * len([job for job in self.delayed if job.startswith(names)])

        await eventually(enough, within)

    def _consuming_since(self, instant: float) -> float:
        return min((line.at for line in self.worker.ledger.read("consuming") if line.at > instant), default=0.0)


@asynccontextmanager
async def running(fragile: Fragile, folder: Path) -> AsyncIterator[tuple[Run, AsyncPublisher]]:
    """A worker process with a store, a publisher, and probes as long as the block lasts."""
    await empty(fragile.url, "jobs.email", "jobs.email.dead", "jobs.unrouted", *LEVELS)
    store = await with_notes(f"sqlite:///{folder}/store.db")
    settings = {"PENSTOCK_STORE_URL": store, "PENSTOCK_STORE_LEASE": str(LEASE)}
    worker = WorkerProcess(fragile.url, folder, module="tests.support.timed_apps", **settings)
    try:
        await worker.start()
        async with AsyncPublisher(fragile.url, deadline=_A_MINUTE) as publisher:
            run = Run(fragile.url, store, worker)
            probing = asyncio.create_task(run.probe_for_ever(publisher))
            yield run, publisher
            probing.cancel()
            await asyncio.gather(probing, return_exceptions=True)
            await judge(run)
    finally:
        await worker.kill()


async def judge(run: Run) -> None:
    """Every job once, none before it was due, and none later than what held it up: an outage, or a slow machine."""
    await eventually(lambda: all_ran(run), within=30)
    ran = await run.ran()
    pace = Pace(run, ran)
    early = {job: ran[job] - begun - seconds for job, (begun, _, seconds) in run.delayed.items()}
    assert {job: by for job, by in early.items() if by < 0} == {}
    late = {job: ran[job] - pace.latest(published, seconds) for job, (_, published, seconds) in run.delayed.items()}
    assert {job: by for job, by in late.items() if by > LATE} == {}
    tell(run, pace, {job: ran[job] - published - seconds for job, (_, published, seconds) in run.delayed.items()})
    for queue in ("jobs.email.dead", "jobs.unrouted", *LEVELS):
        assert await depth(run.url, queue) == 0, queue


def tell(run: Run, pace: Pace, late: dict[str, float]) -> None:
    """Print how late jobs were, counted from their confirm."""
    plain = [by for job, by in late.items() if not pace.was_put_off(*run.delayed[job][1:])]
    lengths = ", ".join(f"{each.ended - each.begun:.1f}" for each in run.outages)
    print(  # noqa: T201
        f"{len(late)} delayed jobs, {len(run.outages)} outages of {lengths} s; {len(plain)} met none, "
        f"the last of them {max(plain, default=0):.2f} s late; of all {max(late.values()):.2f} s"
    )


async def all_ran(run: Run) -> bool:
    """Whether all that was published has run."""
    return (await run.ran()).keys() >= run.delayed.keys()


class Pace:
    """How soon jobs without a delay ran in *run*: no delayed job may be much later."""

    def __init__(self, run: Run, ran: dict[str, float]) -> None:
        self._outages: Sequence[Outage] = sorted(run.outages, key=lambda outage: outage.begun)
        found = sorted((begun, ran[probe]) for probe, begun in run.probes.items() if probe in ran)
        self._begun, self._ended = [begun for begun, _ in found], [ended for _, ended in found]

    def latest(self, published: float, seconds: int) -> float:
        """When a job that was *published* then, to run after *seconds*, should have run at the latest."""
        due = self._put_off(published, published + seconds)
        position = bisect_left(self._begun, due)
        return self._ended[position] if position < len(self._ended) else due

    def was_put_off(self, published: float, seconds: int) -> bool:
        """Whether an outage can have had to do with it."""
        return self._put_off(published, published + seconds) > published + seconds

    def _put_off(self, published: float, due: float) -> float:
        for outage in self._outages:
            due = outage.put_off(published, due)
        return due


async def kill_and_start_broker(run: Run, fragile: Fragile) -> None:
    await run.outage(lambda: asyncio.to_thread(fragile.kill), lambda: asyncio.to_thread(fragile.start), "broker")


async def kill_and_start_worker(run: Run) -> None:
    await run.outage(run.worker.kill, run.worker.start, "worker")


@pytest.mark.timeout(150)
async def test_delayed_jobs_outlive_a_killed_broker_and_a_killed_worker(fragile: Fragile, tmp_path: Path) -> None:
    async with running(fragile, tmp_path) as (run, publisher):
        await run.publish_all(publisher, "job", [1 + number % 16 for number in range(320)])
        await run.share_ran("job", 1 / 8, within=30)
        await kill_and_start_broker(run, fragile)
        await run.share_ran("job", 1 / 2, within=60)
        await kill_and_start_worker(run)
        await run.publish_all(publisher, "after", [1 + number % 5 for number in range(50)])
        await run.share_ran("job", 1, within=60)


@pytest.mark.matrix
@pytest.mark.timeout(600)
async def test_delayed_jobs_outlive_minutes_of_crashes(fragile: Fragile, tmp_path: Path) -> None:
    async with running(fragile, tmp_path) as (run, publisher):
        for turn in range(4):
            publishing = asyncio.create_task(
                run.publish_all(publisher, f"turn{turn}", [1 + number % 40 for number in range(200)])
            )
            await asyncio.sleep(0)  # the broker of odd turns is killed while jobs are published
            if turn % 2:
                await kill_and_start_broker(run, fragile)
            await publishing
            await run.share_ran(f"turn{turn}", 1 / 4, within=60)
            await kill_and_start_worker(run)
            await run.share_ran(f"turn{turn}", 1 / 2, within=60)
            await kill_and_start_broker(run, fragile)
        await run.share_ran("turn", 1, within=120)
