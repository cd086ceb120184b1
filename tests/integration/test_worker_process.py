"""Workers as operating-system processes: drained, stopped at once, killed by their own jobs, and started again."""

from __future__ import annotations

import os
import signal
from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Any

import orjson
import pytest
from aio_pika.abc import AbstractIncomingMessage

from tests.support.apps import Do
from tests.support.processes import WorkerProcess, worker_process
from tests.support.waiting import eventually
from tests.support.working import LEVELS, depth, empty, foreign, put, take, take_all


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", "jobs.email.dead", *LEVELS)


async def put_job(url: str, job_id: str, key: str = "email.async", **args: Any) -> None:
    """Publish a job that does what *args* say."""
    async with foreign(url) as channel:
        await put(channel, key, orjson.dumps(asdict(Do(**args))), message_id=job_id)


async def left(url: str) -> dict[str | None, AbstractIncomingMessage]:
    """What waits in jobs.email, by id."""
    async with foreign(url) as channel:
        return {message.message_id: message for message in await take_all(channel, "jobs.email")}


async def test_a_terminated_worker_finishes_what_runs_and_gives_back_what_has_not_begun(
    url: str, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    async with worker_process(url, tmp_path) as worker:
        await put_job(url, "first")
        await eventually(lambda: worker.ledger.read("done"), within=30)
        for number in range(8):
            await put_job(url, f"job-{number}", "email.async" if number % 2 else "email.thread", gate=str(gate))
        await eventually(lambda: len(worker.ledger.read("begun")) == 4)
        worker.signal(signal.SIGTERM)
        await eventually(lambda: _is(url, 4), within=30)
        assert worker.running, "it waits for what runs"
        gate.touch()
        assert await worker.ended() == 0
    done = Counter(effect.job for effect in worker.ledger.read("done"))
    begun = {effect.job for effect in worker.ledger.read("begun")}
    assert done == Counter({"first", *begun})
    waiting = await left(url)
    assert waiting.keys() == {f"job-{number}" for number in range(8)} - begun
    assert Counter(message.redelivered for message in waiting.values())[True] <= 3, "only the reserve was handed out"


async def _is(url: str, count: int) -> bool:
    return await depth(url, "jobs.email") == count


@pytest.mark.parametrize("key", ["email.async", "email.thread"])
async def test_a_second_signal_stops_at_once_and_the_job_goes_back(url: str, tmp_path: Path, key: str) -> None:
    async with worker_process(url, tmp_path) as worker:
        await put_job(url, "order-7", key, gate=str(tmp_path / "never"))
        await eventually(lambda: worker.ledger.read("begun"))
        worker.signal(signal.SIGTERM)
        await eventually(lambda: "stopping" in worker.log.read_text())
        assert worker.running
        worker.signal(signal.SIGTERM)
        assert await worker.ended(within=20) == 1
    assert worker.ledger.read("done") == []
    waiting = await left(url)
    assert waiting.keys() == {"order-7"}
    assert waiting["order-7"].redelivered


async def test_a_drain_that_takes_too_long_gives_up_and_the_job_goes_back(url: str, tmp_path: Path) -> None:
    async with worker_process(url, tmp_path, PENSTOCK_DRAIN_TIMEOUT="1") as worker:
        await put_job(url, "order-7", gate=str(tmp_path / "never"))
        await eventually(lambda: worker.ledger.read("begun"))
        worker.signal(signal.SIGINT)
        assert await worker.ended(within=20) == 1
    assert (await left(url)).keys() == {"order-7"}


async def test_a_job_that_kills_its_worker_ends_alone_as_a_dead_letter_that_names_the_end(
    url: str, tmp_path: Path
) -> None:
    """The parent process of a real deployment is the loop below: it starts the worker again whenever it dies."""
    worker = WorkerProcess(url, tmp_path)
    good = [f"good-{number}" for number in range(10)]
    for job_id in good[:5]:
        await put_job(url, job_id)
    await put_job(url, "poison", do="die")
    for job_id in good[5:]:
        await put_job(url, job_id)
    deaths: list[int] = []
    try:
        await worker.start()
        while await depth(url, "jobs.email.dead") == 0:
            assert len(deaths) < 6, "the poison kills one worker after another"
            if not worker.running:
                deaths.append(await worker.ended())
                await worker.start()
        await eventually(lambda: len({effect.job for effect in worker.ledger.read("done")}) == 10, within=20)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    finally:
        await worker.kill()
    assert deaths == [3, 3, 3]
    async with foreign(url) as channel:
        dead = await take(channel, "jobs.email.dead")
        assert await take_all(channel, "jobs.email.dead") == []
    assert (dead.message_id, dead.headers["penstock-reason"]) == ("poison", "crashed")
    assert "ended with exit code 3" in str(dead.headers["penstock-error"])
    assert {effect.job for effect in worker.ledger.read("done")} == set(good)
    waiting = await left(url)
    assert waiting.keys() <= set(good)
    assert all(message.redelivered for message in waiting.values()), "only what a dying worker could not ack any more"


async def test_jobs_of_a_killed_worker_are_run_by_the_next(url: str, tmp_path: Path) -> None:
    gate = tmp_path / "gate"
    worker = WorkerProcess(url, tmp_path)
    try:
        await worker.start()
        await put_job(url, "first")
        await eventually(lambda: worker.ledger.read("done"), within=30)
        for number in range(6):
            await put_job(url, f"job-{number}", gate=str(gate))
        await eventually(lambda: len(worker.ledger.read("begun")) == 4)
        await worker.kill()
        gate.touch()
        await worker.start()
        await eventually(lambda: len(worker.ledger.read("done")) == 7, within=20)
        worker.signal(signal.SIGTERM)
        assert await worker.ended() == 0
    finally:
        await worker.kill()
    done = Counter(effect.job for effect in worker.ledger.read("done"))
    assert done == Counter(["first", *(f"job-{number}" for number in range(6))])
    assert await left(url) == {}


async def test_a_child_does_not_outlive_a_killed_worker(url: str, tmp_path: Path) -> None:
    pid_file = tmp_path / "pid"
    async with worker_process(url, tmp_path) as worker:
        await put_job(url, "order-7", "email.child", do="hang", text=str(pid_file))
        await eventually(lambda: pid_file.exists() and pid_file.read_text(), within=20)
        [child] = _children_of(worker.pid)
        await worker.kill()
        await eventually(lambda: not Path(f"/proc/{child}").exists())
    os.kill(int(pid_file.read_text()), signal.SIGKILL)  # what the job itself started knows of no worker


def _children_of(pid: int) -> list[int]:
    return [int(child) for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
