"""Ticks of a schedule that must not run beside each other, through real brokers, workers and stores."""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from penstock import Dead, Done, Duplicate, Handlers, Job, Outcome, Retried, RetryPolicy, Skipped, Snoozed
from penstock.claims import State
from penstock.connect import store_for
from penstock.events import JobFinished
from tests.support.once_apps import query
from tests.support.ticks import DIGEST, Digest, marked, migrated, tick
from tests.support.waiting import eventually
from tests.support.working import LEVELS, Watched, empty, foreign, take, working

SECOND = timedelta(seconds=1)


class Runs:
    """Runs of ticks that last until the test lets them end."""

    def __init__(self) -> None:
        self.begun: list[str] = []
        self.beside: set[str] = set()
        self._now: Counter[str] = Counter()
        self._gates: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)

    async def run(self, job: Job[Digest]) -> None:
        """The handler. Ticks that ran beside another of their schedule are noted in *beside*."""
        schedule = str(job.headers["penstock-schedule"])
        self.begun.append(job.id)
        self._now[schedule] += 1
        if self._now[schedule] > 1:
            self.beside.add(job.id)
        try:
            await self._gates[job.id].wait()
        finally:
            self._now[schedule] -= 1
        if job.attempt <= job.args.fail_attempts:
            raise OSError("the mail server is away")

    def end(self, *jobs: str) -> None:
        """Let the runs of these end, now or whenever they begin."""
        for job in jobs:
            self._gates[job].set()


def handling(runs: Runs, *, attempts: int = 3, **options: Any) -> Handlers:
    """Handlers for the digest, once unless *options* say otherwise."""
    handlers = Handlers()
    quick = RetryPolicy(max_attempts=attempts, first=2 * SECOND, factor=1)
    handlers.on(DIGEST, retry=quick, **({"once": "lease"} | options))(runs.run)
    return handlers


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", "jobs.email.dead", *LEVELS)


@pytest.fixture
async def store_url(tmp_path: Path) -> str:
    """A store in a file."""
    return await migrated(f"sqlite:///{tmp_path}/store.db")


@pytest.fixture(params=["sqlite", "postgres", "redis"])
async def any_store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store of each sort."""
    if request.param == "sqlite":
        return await migrated(f"sqlite:///{tmp_path}/store.db")
    return await migrated(request.getfixturevalue(f"{request.param}_url"))


class Two:
    """Two workers on one queue and one store."""

    def __init__(self, *workers: Watched) -> None:
        self._workers = workers

    def outcomes(self, job: str) -> list[Outcome]:
        """What became of each delivery of *job*, waits left out."""
        finished = [event for worker in self._workers for event in worker.finished if event.id == job]
        return [event.outcome for event in finished if not isinstance(event.outcome, Snoozed)]

    def waits(self, job: str) -> int:
        """How often *job* was put off."""
        finished = [event for worker in self._workers for event in worker.finished]
        return sum(event.id == job and isinstance(event.outcome, Snoozed) for event in finished)

    async def until(self, job: str, *wanted: type[Outcome]) -> None:
        """Wait until these became of the deliveries of *job*."""
        await eventually(lambda: [type(outcome) for outcome in self.outcomes(job)] == list(wanted), within=20)


@pytest.fixture
async def runs() -> Runs:
    """Runs under the test's hand."""
    return Runs()


@pytest.fixture
async def two(url: str, store_url: str, runs: Runs) -> AsyncIterator[Two]:
    """Two workers for them."""
    one, other = (working(url, handling(runs), store=store_for(store_url)) for _ in range(2))
    async with one as first, other as second:
        yield Two(first, second)


# --- skip, and let one wait -----------------------------------------------------------------------------------------


async def test_ticks_are_skipped_while_an_earlier_one_runs_and_run_again_after_it(
    url: str, two: Two, runs: Runs, store_url: str
) -> None:
    await tick(url, "1")
    await eventually(lambda: runs.begun == ["1"])
    await tick(url, "2")
    await tick(url, "3")
    await two.until("2", Skipped)
    await two.until("3", Skipped)
    runs.end("1", "4")
    await two.until("1", Done)
    await tick(url, "4")
    await two.until("4", Done)
    assert (runs.begun, runs.beside) == (["1", "4"], set())
    rows = await query(store_url, "SELECT job_id, state FROM penstock_records ORDER BY job_id")
    assert [state for _, state in rows] == [State.DONE, State.SKIPPED, State.SKIPPED, State.DONE]


async def test_one_tick_waits_at_no_cost_and_starts_when_the_earlier_one_has_ended(
    url: str, two: Two, runs: Runs
) -> None:
    await tick(url, "1", "buffer-one")
    await eventually(lambda: runs.begun == ["1"])
    await tick(url, "2", "buffer-one")
    await eventually(lambda: two.waits("2"))
    await tick(url, "3", "buffer-one")
    await two.until("3", Skipped)
    await eventually(lambda: two.waits("2") > 1)
    runs.end("1", "2")
    await two.until("2", Done)
    assert (runs.begun, runs.beside) == (["1", "2"], set())


@pytest.mark.parametrize("overlap", ["skip", "buffer-one"])
async def test_of_two_ticks_that_start_at_the_same_moment_on_two_workers_one_runs(
    url: str, any_store_url: str, runs: Runs, overlap: str
) -> None:
    one, other = (working(url, handling(runs), store=store_for(any_store_url), slots=32) for _ in range(2))
    names = [f"schedule {number}" for number in range(20)]
    async with one as first, other as second:
        two = Two(first, second)
        await widened(url, two, runs)
        ticks = [tick(url, f"{name} at {n}", overlap, schedule=name) for name in names for n in range(2)]
        await asyncio.gather(*ticks)
        await eventually(lambda: len(runs.begun) == len(names), within=20)
        begun = list(runs.begun)
        others = [f"{name} at {n}" for name in names for n in range(2) if f"{name} at {n}" not in begun]
        if overlap == "skip":
            for job in others:
                await two.until(job, Skipped)
        else:
            await eventually(lambda: all(two.waits(job) for job in others), within=20)
        runs.end(*begun, *others)
        for job in begun:
            await two.until(job, Done)
        if overlap == "buffer-one":
            for job in others:
                await two.until(job, Done)
    assert runs.beside == set()


async def widened(url: str, two: Two, runs: Runs) -> None:
    """Let each of two workers settle a first job: until then it takes one at a time."""
    for job in ("warm", "warmer"):
        await tick(url, job, schedule=job)
    await eventually(lambda: len(runs.begun) == 2)
    runs.end("warm", "warmer")
    for job in ("warm", "warmer"):
        await two.until(job, Done)
    runs.begun.clear()


async def test_ticks_of_other_schedules_and_ticks_that_may_overlap_do_not_wait(url: str, two: Two, runs: Runs) -> None:
    await tick(url, "1")
    await eventually(lambda: runs.begun == ["1"])
    runs.end("2", "3")
    await tick(url, "2", schedule="cleanup")
    await tick(url, "3", "allow")
    await two.until("2", Done)
    await two.until("3", Done)
    runs.end("1")
    await two.until("1", Done)


# --- what has not ended, and what has -------------------------------------------------------------------------------


async def test_a_tick_that_waits_for_its_retry_has_not_ended(url: str, two: Two, runs: Runs) -> None:
    runs.end("1", "3")
    await tick(url, "1", fail_attempts=1)
    await two.until("1", Retried)
    await tick(url, "2")
    await two.until("2", Skipped)
    await two.until("1", Retried, Done)
    await tick(url, "3")
    await two.until("3", Done)
    assert runs.begun == ["1", "1", "3"]


async def test_a_tick_that_died_has_ended(url: str, store_url: str, runs: Runs) -> None:
    async with working(url, handling(runs, attempts=1), store=store_for(store_url)) as worker:
        runs.end("1", "2")
        await tick(url, "1", fail_attempts=1)
        await worker.until(JobFinished)
        await eventually(lambda: marked(store_url, "1", State.DEAD))
        await tick(url, "2")
        await worker.until(JobFinished, 2)
    assert [type(event.outcome) for event in worker.finished] == [Dead, Done]


async def test_a_tick_delivered_twice_is_skipped_twice_and_never_runs_later(url: str, two: Two, runs: Runs) -> None:
    await tick(url, "1")
    await eventually(lambda: runs.begun == ["1"])
    await tick(url, "2")
    await two.until("2", Skipped)
    runs.end("1", "2")
    await two.until("1", Done)
    await tick(url, "2")
    await two.until("2", Skipped, Skipped)
    await tick(url, "1")
    await two.until("1", Done, Duplicate)
    assert runs.begun == ["1"]


# --- what cannot be kept --------------------------------------------------------------------------------------------


async def test_a_tick_whose_handler_has_no_store_is_dead_and_says_why(url: str, runs: Runs) -> None:
    async with working(url, handling(runs, once=None)):
        await tick(url, "1", "buffer-one")
        async with foreign(url) as channel:
            letter = await take(channel, "jobs.email.dead")
    assert letter.headers["penstock-reason"] == "overlap"
    assert "say once='lease' or once='effect' there" in str(letter.headers["penstock-error"])
    assert (letter.headers["penstock-schedule"], letter.headers["penstock-overlap"]) == ("digest", "buffer-one")
    assert runs.begun == []


HOSTILE: dict[str, tuple[object, object]] = {
    "unknown": ("always", "digest"),
    "empty": ("", "digest"),
    "a number": (1, "digest"),
    "a table": ({"skip": True}, "digest"),
    "10 KiB": ("x" * 10_240, "digest"),
    "no schedule": ("skip", None),
    "an empty schedule": ("skip", ""),
    "a schedule of 10 KiB": ("buffer-one", "x" * 10_240),
    "a schedule with a line end": ("skip", "a\r\nb"),
    "a schedule that is a list": ("skip", ["digest"]),
}


async def test_headers_that_say_nothing_clear_make_a_dead_letter_and_no_trouble(
    url: str, store_url: str, runs: Runs
) -> None:
    runs.end("neighbour")
    async with working(url, handling(runs), store=store_for(store_url)) as worker, foreign(url) as channel:
        for job, (overlap, schedule) in HOSTILE.items():
            await tick(url, job, overlap, schedule=schedule)
        letters = [await take(channel, "jobs.email.dead") for _ in HOSTILE]
        await tick(url, "neighbour", schedule="Zoë's; DROP TABLE penstock_overlap --")
        await worker.until(JobFinished, len(HOSTILE) + 1)
    assert {(letter.message_id, letter.headers["penstock-reason"]) for letter in letters} == {
        (job, "overlap") for job in HOSTILE
    }
    assert runs.begun == ["neighbour"]
