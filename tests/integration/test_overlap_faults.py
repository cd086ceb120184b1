"""Ticks that must not overlap, whose worker is killed, freezes, or leaves the work to a child process."""

from __future__ import annotations

import asyncio
import signal
from itertools import count
from pathlib import Path

import pytest

from penstock.claims import State
from tests.support.once_apps import QUEUE, kinds, query, with_a_ledger
from tests.support.processes import WorkerProcess, worker_process
from tests.support.tick_apps import TICK
from tests.support.ticks import marked, migrated, tick
from tests.support.waiting import eventually
from tests.support.working import LEVELS, empty


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", "jobs.email.dead", *LEVELS)


@pytest.fixture
async def store_url(tmp_path: Path) -> str:
    """A store in a file."""
    return await migrated(f"sqlite:///{tmp_path}/store.db")


async def test_a_tick_whose_worker_was_killed_is_expected_back_and_nothing_runs_beside_it(
    url: str, store_url: str, tmp_path: Path
) -> None:
    settings = {"PENSTOCK_STORE_URL": store_url, "PENSTOCK_STORE_LEASE": "3s"}
    doomed, heir = (WorkerProcess(url, tmp_path, module="tests.support.tick_apps", **settings) for _ in range(2))
    gate = tmp_path / "gate"
    try:
        await doomed.start()
        await tick(url, "1", kind=TICK.name, gate=str(gate))
        await eventually(lambda: doomed.ledger.read("begun"))
        await heir.start()
        await doomed.kill()
        await tick(url, "2", "skip", kind=TICK.name, gate=str(gate))
        await tick(url, "3", "buffer-one", kind=TICK.name, gate=str(gate))
        await eventually(lambda: marked(store_url, "2", State.SKIPPED))
        await eventually(lambda: len(heir.ledger.read("begun")) == 2, within=20)
        gate.touch()
        await eventually(lambda: marked(store_url, "3", State.DONE), within=20)
    finally:
        for worker in (doomed, heir):
            if worker.pid:
                await worker.kill()
    lines = [(effect.word, effect.job, effect.pid) for effect in heir.ledger.read() if effect.word != "consuming"]
    one, two = doomed.pid, heir.pid
    first = [("begun", "1", one), ("begun", "1", two), ("done", "1", two)]
    assert lines == [*first, ("begun", "3", two), ("done", "3", two)]


FAILED_ONCE = "SELECT 1 FROM penstock_records WHERE job_id = '1' AND (state = 'moved' OR copy > 0)"


async def test_a_tick_that_runs_in_a_child_process_is_judged_by_its_worker(
    url: str, store_url: str, tmp_path: Path
) -> None:
    kind = kinds("email")[2].name
    settings = {QUEUE: "email", "PENSTOCK_STORE_URL": await with_a_ledger(store_url)}
    async with worker_process(url, tmp_path, module="tests.support.once_apps", **settings):
        await tick(url, "1", kind=kind, user=1, amount=5, fail_attempts=1)
        await eventually(lambda: query(store_url, FAILED_ONCE))
        await tick(url, "2", "buffer-one", kind=kind, user=1, amount=5)
        await eventually(lambda: marked(store_url, "2", State.DONE), within=20)
    assert await query(store_url, "SELECT job FROM ledger ORDER BY rowid") == [("1",), ("2",)]


async def test_a_tick_whose_worker_freezes_loses_its_place_and_has_its_effect_after_the_one_that_took_it(
    url: str, postgres_url: str, tmp_path: Path
) -> None:
    """Its transaction is refused: another has run meanwhile. Redelivered, it has its turn again."""
    store_url, kind = await with_a_ledger(await migrated(postgres_url)), kinds("email")[0].name
    settings = {QUEUE: "email", "PENSTOCK_STORE_URL": store_url, "PENSTOCK_STORE_LEASE": "3s"}
    processes = [tmp_path / name for name in ("frozen", "awake")]
    for folder in processes:
        folder.mkdir()
    freezing = {"PENSTOCK_FAILPOINTS": "before-commit=stop"}
    frozen = WorkerProcess(url, processes[0], module="tests.support.once_apps", **settings, **freezing)
    awake = WorkerProcess(url, processes[1], module="tests.support.once_apps", **settings)
    try:
        await frozen.start()
        await tick(url, "1", kind=kind, user=1, amount=5)
        await eventually(lambda: "T" in Path(f"/proc/{frozen.pid}/stat").read_text().rpartition(")")[2].split()[0])
        await awake.start()
        async with asyncio.timeout(45):  # its place is kept for four leases after its own has ended, some 15 s
            for number in count(2):
                await tick(url, str(number), kind=kind, user=1, amount=5)
                await eventually(lambda job=str(number): has_ended(store_url, job))  # type: ignore[misc]
                if await query(store_url, "SELECT 1 FROM ledger"):
                    break
        frozen.signal(signal.SIGCONT)
        await eventually(lambda: marked(store_url, "1", State.DONE), within=20)
    finally:
        for worker in (frozen, awake):
            if worker.pid:
                await worker.kill()
    rows = await query(store_url, "SELECT job FROM ledger ORDER BY ctid")
    assert [job for (job,) in rows] == [str(number), "1"]  # in the order they were written


async def has_ended(store_url: str, job: str) -> bool:
    """Whether *job* was done or skipped."""
    return await marked(store_url, job, State.DONE) or await marked(store_url, job, State.SKIPPED)
