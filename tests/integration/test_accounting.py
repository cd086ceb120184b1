"""Kill -9 under load: every confirmed job ends as an effect or a dead letter, and only a kill doubles an effect."""

from __future__ import annotations

import asyncio
import itertools
import time
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, field
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import orjson
import pytest

from penstock import AsyncPublisher
from tests.integration.conftest import Fragile
from tests.support.apps import Do, Effect, Ledger
from tests.support.processes import WorkerProcess
from tests.support.waiting import eventually
from tests.support.working import empty, foreign, take_all

pytestmark = pytest.mark.timeout(150)

JOBS = 3000
IN_FLIGHT = 32
#: More than a worker of four slots ever holds of jobs that take 4 ms.
PREFETCH = 32

#: Seconds in which an ack surely reaches the broker, and in which a worker surely notices that the broker is gone.
_ACKED, _NOTICED = 2.0, 4.0

_A_MINUTE = timedelta(minutes=1)


@dataclass(frozen=True)
class Kill:
    """When something was killed, from the decision to its end: a worker by its pid, or the broker (0)."""

    pid: int
    begun: float
    ended: float


@dataclass
class Run:
    """The history of one run: when each job was published and confirmed, and what was killed."""

    ledger: Ledger
    published: dict[str, float] = field(default_factory=dict)
    confirmed: dict[str, float] = field(default_factory=dict)
    kills: list[Kill] = field(default_factory=list)

    def has_confirmed(self, jobs: int) -> bool:
        """Whether as many were confirmed."""
        return len(self.confirmed) >= jobs

    def has_done(self, jobs: int) -> bool:
        """Whether as many were done."""
        return len(self.ledger.read("done")) >= jobs

    def effects(self) -> dict[str, list[Effect]]:
        """Every run of every job."""
        found: dict[str, list[Effect]] = {}
        for effect in self.ledger.read():
            found.setdefault(effect.job, []).append(effect)
        return found

    def explained(self, job: str, runs: list[Effect]) -> bool:
        """Whether a kill struck while *job* was being published, or was run and not yet settled."""
        return any(self._struck(kill, job, runs) for kill in self.kills)

    def _struck(self, kill: Kill, job: str, runs: list[Effect]) -> bool:
        if kill.pid:
            struck = [run for run in runs if run.pid == kill.pid and run.at >= kill.begun - _ACKED]
            return len(struck) == 1  # what a process has done twice is not the doing of its end
        publishing = self.published[job] <= kill.ended and self.confirmed[job] >= kill.begun
        return publishing or any(kill.begun - _NOTICED <= run.at <= kill.ended + _NOTICED for run in runs)

    async def kill(self, end: Callable[[], Awaitable[None]], pid: int = 0) -> None:
        """Kill by *end*, and write it down."""
        begun = time.monotonic()
        await end()
        self.kills.append(Kill(pid, begun, time.monotonic()))


def _job(number: int) -> tuple[str, Do | bytes]:
    """One job in twenty is rejected, one cannot be read, two fail once and are retried; the rest just works."""
    match number % 20:
        case 3:
            return f"reject-{number}", Do(do="reject")
        case 7:
            return f"broken-{number}", b'{"do": '
        case 11 | 17:
            return f"retry-{number}", Do(fail_attempts=1)
        case _:
            return f"plain-{number}", Do(pause=0.004)


def is_dead(job: str) -> bool:
    """Whether *job* can only end as a dead letter."""
    return job.startswith(("reject", "broken"))


async def publish_all(publisher: AsyncPublisher, run: Run) -> None:
    """Publish every job, a few at a time; each must be confirmed in the end, whatever happens meanwhile."""
    numbers = iter(range(JOBS))
    await asyncio.gather(*(_publish(publisher, run, numbers) for _ in range(IN_FLIGHT)))


async def _publish(publisher: AsyncPublisher, run: Run, numbers: Iterator[int]) -> None:
    for number in numbers:
        job, what = _job(number)
        body = what if isinstance(what, bytes) else orjson.dumps(asdict(what))
        run.published[job] = time.monotonic()
        await publisher.publish_body("email.async", body, id=job)
        run.confirmed[job] = time.monotonic()


@asynccontextmanager
async def workers(url: str, folder: Path) -> AsyncIterator[list[WorkerProcess]]:
    """Two worker processes that write to the same ledger."""
    two = [WorkerProcess(url, folder) for _ in range(2)]
    try:
        await asyncio.gather(*(worker.start() for worker in two))
        yield two
    finally:
        await asyncio.gather(*(worker.kill() for worker in two if worker.pid))


async def letters(url: str) -> list[Any]:
    """Every dead letter of jobs.email."""
    async with foreign(url) as channel:
        return await take_all(channel, "jobs.email.dead")


async def all_accounted(url: str, run: Run) -> Counter[str]:
    """Wait until every job is an effect or a dead letter; the dead letters by job."""
    dead: Counter[str] = Counter()

    async def every_one() -> bool:
        dead.update(str(letter.message_id) for letter in await letters(url))
        return run.confirmed.keys() <= dead.keys() | {effect.job for effect in run.ledger.read("done")}

    await eventually(every_one, within=45)
    return dead


async def check(url: str, run: Run, per_kill: int) -> None:
    """Judge the run: nothing lost, nothing from nowhere, nobody in the wrong place, doubles only by the kills."""
    assert len(run.confirmed) == JOBS
    dead = await all_accounted(url, run)
    effects = run.effects()
    done = Counter(effect.job for runs in effects.values() for effect in runs if effect.word == "done")
    assert {job for job in run.confirmed if is_dead(job)} == dead.keys()
    assert {job for job in run.confirmed if not is_dead(job)} == done.keys()
    doubled = [job for job, count in done.items() if count > 1]
    print(f"{len(doubled)} effects and {sum(n > 1 for n in dead.values())} letters doubled by {len(run.kills)} kills")  # noqa: T201
    assert [job for job in doubled if not run.explained(job, effects[job])] == []
    assert len(doubled) <= per_kill * len(run.kills)
    async with foreign(url) as channel:
        for queue in ("jobs.unrouted", "jobs.report", "jobs.report.dead"):
            assert await take_all(channel, queue) == []


async def test_no_job_is_lost_when_the_broker_is_killed_under_load(fragile: Fragile, tmp_path: Path) -> None:
    await empty(fragile.url, "jobs.email.dead", "jobs.unrouted")
    run = Run(Ledger(tmp_path / "effects"))
    async with (
        workers(fragile.url, tmp_path),
        AsyncPublisher(fragile.url, deadline=_A_MINUTE) as publisher,
    ):
        publishing = asyncio.create_task(publish_all(publisher, run))
        for share in (JOBS // 3, JOBS * 2 // 3):
            await eventually(partial(run.has_confirmed, share), within=40)
            await run.kill(lambda: asyncio.to_thread(fragile.restart))
        await publishing
        await check(fragile.url, run, per_kill=IN_FLIGHT + 2 * PREFETCH)


async def test_no_job_is_lost_when_workers_are_killed_under_load(url: str, tmp_path: Path) -> None:
    await empty(url, "jobs.email", "jobs.email.dead", "jobs.unrouted", "jobs.report", "jobs.report.dead")
    run = Run(Ledger(tmp_path / "effects"))
    async with workers(url, tmp_path) as both, AsyncPublisher(url, deadline=_A_MINUTE) as publisher:
        publishing = asyncio.create_task(publish_all(publisher, run))
        for share, worker in zip(range(1, 7), itertools.cycle(both), strict=False):
            await eventually(partial(run.has_done, share * JOBS // 8), within=40)
            await run.kill(worker.kill, worker.pid)
            await worker.start()
        await publishing
        await check(url, run, per_kill=PREFETCH)
