"""Workers killed, frozen and cut off at every step of a job whose effect happens once: it does, nothing is stuck."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from penstock import AsyncPublisher, Publisher
from penstock.claims import State
from tests.support.once_apps import QUEUE, Credit, kinds, ledger, query, with_a_ledger
from tests.support.processes import WorkerProcess
from tests.support.waiting import eventually
from tests.support.working import declare, depth

pytestmark = pytest.mark.timeout(120)

APP = "tests.support.once_apps"
JOBS = 12
LEASE = "3s"

#: Where a worker is killed, in the order a job meets the places; each has a queue of its own.
PLACES = ("before-claim", "claimed", "handled", "before-commit", "committed", "copy-confirmed")
TOPOLOGY = "queues: {" + ", ".join(f"q{n}: [q{n}.*]" for n in range(len(PLACES))) + "}"

LOOP, THREAD, CHILD, LEASED = range(4)


@pytest.fixture
async def url(vhost_url: str) -> str:
    """A virtual host with a queue for each place."""
    await declare(vhost_url, TOPOLOGY)
    return vhost_url


def worker(url: str, folder: Path, store: str, queue: str, failpoints: str = "", *, slots: int = 4) -> WorkerProcess:
    """A worker process for *queue*."""
    folder.mkdir(exist_ok=True)
    settings = {QUEUE: queue, "PENSTOCK_STORE_URL": store, "PENSTOCK_STORE_LEASE": LEASE, "PENSTOCK_SLOTS": str(slots)}
    return WorkerProcess(url, folder, module=APP, PENSTOCK_FAILPOINTS=failpoints, **settings)


async def publish(url: str, queue: str, which: int, count: int = JOBS) -> list[str]:
    """Publish *count* jobs of one kind of *queue*, every third of which fails once; their ids."""
    kind = kinds(queue)[which]
    async with AsyncPublisher(url) as publisher:
        jobs = [kind.new(Credit(n, 5, fail_attempts=int(n % 3 == 2)), id=f"{queue}-{n}") for n in range(count)]
        return [receipt.id for receipt in await publisher.publish_many(jobs)]


async def killed_at(
    place: str, url: str, folder: Path, store: str, queue: str, which: int, *, slots: int = 4
) -> list[str]:
    """Run jobs with a worker that is killed at *place*, then with one that is not; the ids, once all have ended."""
    ids = await publish(url, queue, which)
    first = worker(url, folder / queue, store, queue, f"{place}=kill@3", slots=slots)
    second = worker(url, folder / queue, store, queue)
    try:
        await first.start()
        assert await first.ended(within=30) == -signal.SIGKILL, f"nothing reached {place}"
        await second.start()
        await eventually(lambda: ended(store, ids), within=40)
        second.signal(signal.SIGTERM)
        assert await second.ended() == 0
    finally:
        await first.kill()
        await second.kill()
    return ids


async def ended(store: str, ids: Sequence[str]) -> bool:
    """Whether the store says of every job that it is done."""
    rows = await query(store, "SELECT job_id, state FROM penstock_records")
    return {job for job, state in rows if state == State.DONE} >= set(ids)


@pytest.mark.parametrize("which", [LOOP, THREAD], ids=["loop", "thread"])
async def test_a_worker_killed_at_any_step_adds_every_credit_once(
    url: str, effect_store_url: str, tmp_path: Path, which: int
) -> None:
    store = await with_a_ledger(effect_store_url)
    places = [f"q{n}" for n in range(len(PLACES))]
    runs = (killed_at(place, url, tmp_path, store, queue, which) for place, queue in zip(PLACES, places, strict=True))
    ids = [job for run in await asyncio.gather(*runs) for job in run]
    assert await ledger(store) == Counter(ids)
    for queue in places:
        assert await depth(url, f"jobs.{queue}.dead") == 0


async def test_an_isolated_handlers_child_commits_its_effect_and_mark_together(
    url: str, effect_store_url: str, tmp_path: Path
) -> None:
    store = await with_a_ledger(effect_store_url)
    ids = await publish(url, "q0", CHILD)
    running = worker(url, tmp_path, store, "q0")
    try:
        await running.start()
        await eventually(lambda: ended(store, ids), within=40)
    finally:
        await running.kill()
    assert await ledger(store) == Counter(ids)


async def test_an_effect_elsewhere_is_repeated_only_when_the_worker_died_between_it_and_its_mark(
    url: str, effect_store_url: str, tmp_path: Path
) -> None:
    store = await with_a_ledger(effect_store_url)
    places = {"before-claim": "q0", "claimed": "q1", "before-mark": "q2", "committed": "q3", "copy-confirmed": "q4"}
    runs = (killed_at(place, url, tmp_path, store, queue, LEASED, slots=1) for place, queue in places.items())
    ids = await asyncio.gather(*runs)
    for (place, queue), expected in zip(places.items(), ids, strict=True):
        effects = Counter(effect.job for effect in worker(url, tmp_path / queue, store, queue).ledger.read("done"))
        assert effects.keys() == set(expected)
        doubled = effects - Counter(expected)
        # While a copy is confirmed, the slot has gone to the next job, which may be just there.
        allowed = {"before-mark": {1}, "copy-confirmed": {0, 1}}.get(place, {0})
        assert doubled.total() in allowed, f"{place}: {doubled}"


async def test_a_worker_frozen_past_its_lease_cannot_complete(url: str, effect_store_url: str, tmp_path: Path) -> None:
    store = await with_a_ledger(effect_store_url)
    place = "claimed" if store.startswith("sqlite") else "handled"  # SQLite's one lock would freeze with its holder
    frozen = worker(url, tmp_path / "frozen", store, "q0", f"{place}=stop")
    other = worker(url, tmp_path / "other", store, "q0")
    kind = kinds("q0")[LOOP]
    async with AsyncPublisher(url) as publisher:
        try:
            await frozen.start()
            await publisher.publish(kind, Credit(123, 5), id="increment")
            await eventually(lambda: stopped(frozen.pid), within=20)
            await other.start()
            await publisher.publish(kind, Credit(123, 5), id="increment")
            await eventually(lambda: ended(store, ["increment"]), within=30)
            frozen.signal(signal.SIGCONT)
            await publisher.publish(kind, Credit(1, 1), id="after")
            await publisher.publish(kind, Credit(1, 1), id="after it")
            await eventually(lambda: ended(store, ["increment", "after", "after it"]), within=30)
            await eventually(lambda: all_settled(url, "q0"), within=30)
        finally:
            frozen.signal(signal.SIGCONT)
            await frozen.kill()
            await other.kill()
    assert await ledger(store) == Counter(["increment", "after", "after it"])


async def test_the_same_job_published_a_hundred_times_from_ten_threads_has_one_effect(
    url: str, effect_store_url: str, tmp_path: Path
) -> None:
    store = await with_a_ledger(effect_store_url)
    kind = kinds("q0")[LOOP]
    running = worker(url, tmp_path, store, "q0")

    def ten_times(publisher: Publisher) -> None:
        for _ in range(10):
            publisher.publish(kind, Credit(123, 5), id="increment")

    try:
        with Publisher(url) as publisher, ThreadPoolExecutor(10) as threads:
            publishing = [threads.submit(ten_times, publisher) for _ in range(10)]
            await running.start()
            for done in publishing:
                done.result()
        await eventually(lambda: ended(store, ["increment"]), within=20)
        await eventually(lambda: all_settled(url, "q0"), within=30)
    finally:
        await running.kill()
    assert await ledger(store) == Counter(["increment"])


async def all_settled(url: str, queue: str) -> bool:
    """Whether nothing waits in *queue* or in the first levels of the cascade."""
    names = (f"jobs.{queue}", "jobs.delay.00-1s", "jobs.delay.01-2s", "jobs.delay.02-4s")
    return not any([await depth(url, name) for name in names])


def stopped(pid: int) -> bool:
    """Whether the process is stopped by a signal."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(") ")[2].startswith("T")
