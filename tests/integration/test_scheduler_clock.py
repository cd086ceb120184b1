"""A real scheduler whose clock is set while it runs, by libfaketime: what comes, what does not, and nothing twice."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any  # lines of a log are any JSON

import orjson
import pytest

from penstock.schedules.state import Command
from tests.support.commands import penstock
from tests.support.scheduling import ask, drain
from tests.support.waiting import eventually
from tests.support.working import empty

SCHEDULES = """
schedules:
  none: {every: 1s, kind: email.tick}
  last: {every: 10m, kind: email.tick, catch_up: last}
  all: {every: 10m, kind: email.tick, catch_up: all}
  few: {every: 10m, kind: email.tick, catch_up: all, max_catch_up: 3}
"""
HOURS = timedelta(hours=2)
GRACE = timedelta(minutes=1)

#: What a log says while the clock is behind.
BEHIND = "the clock is behind: no ticks until"


pytestmark = pytest.mark.timeout(180)  # several processes start, one after another


@pytest.fixture(autouse=True)
async def _empty(url: str) -> None:
    await empty(url, "jobs.email", "jobs.scheduler", "jobs.scheduler.view")


def library() -> Path:
    """Where the package libfaketime has put it. The one for threads: the scheduler reads its file in another."""
    found = sorted(Path("/usr/lib").glob("*/faketime/libfaketimeMT.so.1"))
    assert found, "libfaketime is missing: infra/scripts/install-system libfaketime"
    return found[0]


class Clocked:
    """A scheduler's process, its log, and its wall clock to set. Its timers and deadlines pass in real time."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir()
        self.log = folder / "log"
        self.file = folder / "schedules.yaml"
        self._offset = folder / "offset"
        self.set(timedelta())
        self.file.write_text(SCHEDULES)

    def set(self, off: timedelta) -> None:
        """Set the clock so far off the real one."""
        fresh = self._offset.with_suffix(".new")
        fresh.write_text(f"{off.total_seconds():+.0f}\n")
        fresh.replace(self._offset)

    def start(self, url: str) -> subprocess.Popen[bytes]:
        environment = {
            **os.environ,
            "RABBITMQ_URL": url,
            "PENSTOCK_LOG_FORMAT": "json",
            "LD_PRELOAD": str(library()),
            "FAKETIME_TIMESTAMP_FILE": str(self._offset),
            "FAKETIME_NO_CACHE": "1",
            "FAKETIME_DONT_FAKE_MONOTONIC": "1",
        }
        command = [sys.executable, "-m", "penstock", "scheduler", str(self.file)]
        with self.log.open("wb") as log:
            return subprocess.Popen(command, env=environment, stderr=log)

    def told(self, event: str) -> list[dict[str, Any]]:
        lines = (orjson.loads(line) for line in self.log.read_bytes().splitlines(keepends=True) if line.endswith(b"\n"))
        return [line for line in lines if line["event"] == event]

    def ticks(self, schedule: str) -> list[datetime]:
        return [instant_of(line["job_id"]) for line in self.told("tick") if line["schedule"] == schedule]

    async def ticking(self) -> datetime:
        """Wait until a tick of every second came that had not come before; its instant."""
        known = len(self.ticks("none"))
        await eventually(lambda: len(self.ticks("none")) > known, within=30)
        return self.ticks("none")[-1]


@asynccontextmanager
async def clocked(url: str, folder: Path, until: str = "tick") -> AsyncIterator[Clocked]:
    """A scheduler whose log has said *until*; it is stopped at the end."""
    scheduler = Clocked(folder)
    process = scheduler.start(url)
    try:
        await eventually(lambda: process.poll() is not None or scheduler.told(until), within=40)
        assert process.poll() is None, scheduler.log.read_text()
        yield scheduler
        process.terminate()
        assert process.wait(20) == 0
    finally:
        process.kill()
        process.wait()


def instant_of(job_id: str) -> datetime:
    return datetime.fromisoformat(job_id.split(":", 2)[2])


def steps(instants: Sequence[datetime]) -> Iterator[timedelta]:
    return (later - earlier for earlier, later in pairwise(instants))


async def test_a_clock_that_is_set_forward_makes_up_for_what_it_passed_over_as_each_schedule_says(
    url: str, tmp_path: Path
) -> None:
    async with clocked(url, tmp_path / "it") as scheduler:
        before = await scheduler.ticking()
        scheduler.set(HOURS)
        await eventually(lambda: scheduler.ticks("none")[-1] > before + HOURS, within=30)
        await scheduler.ticking()
        await eventually(lambda: len(scheduler.told("ticks missed")) >= 3, within=10)
    ids = await drain(url, "jobs.email")
    assert max(Counter(ids).values()) == 1
    # Of every second: one stretch on either side, without a gap; what lies between, but for its grace, is missed.
    [(left, landed)] = [pair for pair in pairwise(scheduler.ticks("none")) if pair[1] - pair[0] != timedelta(seconds=1)]
    assert HOURS - GRACE - timedelta(seconds=30) < landed - left <= HOURS
    made_up = {name: len([at for at in scheduler.ticks(name) if left < at < landed]) for name in ("last", "all", "few")}
    assert (made_up["last"], made_up["few"]) == (1, 3)
    assert made_up["all"] in (11, 12)
    missed = {line["schedule"]: line["ticks"] for line in scheduler.told("ticks missed")}
    assert missed["none"] == 1000  # so far it counts
    assert made_up["last"] + missed["last"] == made_up["few"] + missed["few"] == made_up["all"]


async def test_a_clock_that_is_set_back_publishes_nothing_again_and_goes_on_where_it_was(
    url: str, tmp_path: Path
) -> None:
    async with clocked(url, tmp_path / "it") as scheduler:
        scheduler.file.write_text(SCHEDULES.replace("none: {", "none: {grace: 1h, "))
        await eventually(lambda: len(scheduler.told("schedules read")) == 2, within=30)
        await scheduler.ticking()
        scheduler.set(-HOURS)
        await eventually(lambda: scheduler.told(BEHIND), within=30)
        assert HOURS.total_seconds() - 30 < scheduler.told(BEHIND)[0]["behind_s"] <= HOURS.total_seconds()
        known = len(scheduler.told("tick"))
        await ask(url, Command("pause", "few", "ada", 1))  # has a state written while the clock is behind
        await eventually(lambda: scheduler.told("schedule paused"), within=30)
        scheduler.file.write_text(SCHEDULES.replace("none: {", "none: {grace: 2h, "))
        await eventually(lambda: len(scheduler.told("schedules read")) == 3, within=30)
        assert len(scheduler.told("tick")) == known
        scheduler.set(timedelta())
        await scheduler.ticking()
        await scheduler.ticking()
    ids = await drain(url, "jobs.email")
    assert max(Counter(ids).values()) == 1
    # Every second came, those during which the clock was wrong too: they were late by less than the grace.
    assert set(steps(scheduler.ticks("none"))) == {timedelta(seconds=1)}


async def test_one_that_follows_a_leader_that_was_ahead_waits_until_it_is_told_to_rewind(
    url: str, tmp_path: Path
) -> None:
    async with clocked(url, tmp_path / "ahead") as ahead:
        latest = await ahead.ticking()
        ahead.set(HOURS)
        await eventually(lambda: ahead.ticks("none")[-1] > latest + HOURS / 2, within=30)
    assert max(Counter(await drain(url, "jobs.email")).values()) == 1
    async with clocked(url, tmp_path / "right", until=BEHIND) as right:
        assert not right.told("tick")
        done = await asyncio.to_thread(penstock, "schedule", "rewind", "--json", RABBITMQ_URL=url)
        assert (done.code, done.err) == (0, "")
        await right.ticking()
    # Of ten minutes that end just now, the first one had a tick already: not by this one.
    assert max(Counter(await drain(url, "jobs.email")).values()) == 1
    assert right.ticks("none")[-1] < ahead.ticks("none")[-1]
