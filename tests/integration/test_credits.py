"""Credits through a real broker and two workers that share a database: every job counts once, whatever is repeated."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Any

import pytest

from penstock import Dead, Done, Duplicate, NewJob, Publisher
from penstock.claims import StoreUrl
from penstock.connect import store_for
from penstock.storing import EffectStore
from penstock.testing.broker_node import BrokerInfo
from penstock_jobs.credits import CREDIT_ADD, CREDIT_TRANSFER, CreditAdd, CreditTransfer
from services.credits.app import migrate
from services.credits.handlers import handlers
from tests.support.brokers import manage
from tests.support.waiting import eventually
from tests.support.working import Watched, declare, foreign, take, working

THREADS = 4


@pytest.fixture(scope="module")
def url(broker: BrokerInfo) -> Iterator[str]:
    """A virtual host with a queue for credits."""
    name = f"credits-{uuid.uuid4().hex[:12]}"
    manage(broker, "PUT", f"/api/vhosts/{name}")
    asyncio.run(declare(broker.url_for(name), "queues: {credits: [credit.*]}"))
    yield broker.url_for(name)
    manage(broker, "DELETE", f"/api/vhosts/{name}")


@pytest.fixture(params=["sqlite", "postgresql"])
def place(request: pytest.FixtureRequest) -> str:
    """The URL of an empty database."""
    if request.param == "postgresql":
        there: str = request.getfixturevalue("postgres_url")
        return there
    return f"sqlite:///{request.getfixturevalue('tmp_path')}/store.db"


@pytest.fixture
async def store(place: str) -> AsyncIterator[EffectStore]:
    """The store there, with a ledger, to look into."""
    await migrate(StoreUrl.parse(place))
    store = store_for(place)
    assert isinstance(store, EffectStore)
    await store.open()
    yield store
    await store.close()


async def select(store: EffectStore, statement: str) -> list[tuple[Any, ...]]:
    async with store.effect() as effect:
        return (await effect.transaction.execute(statement)).fetchall()


async def balances(store: EffectStore) -> dict[int, int]:
    return dict(await select(store, "SELECT user_id, balance FROM credit_accounts"))


async def booked(store: EffectStore) -> Counter[str]:
    """How often each job is booked."""
    return Counter(job_id for (job_id,) in await select(store, "SELECT job_id FROM credit_entries"))


@asynccontextmanager
async def two_workers(url: str, place: str) -> AsyncIterator[Sequence[Watched]]:
    """Two workers with a store each, in the same place."""
    async with (
        working(url, handlers, queue="credits", store=store_for(place)) as one,
        working(url, handlers, queue="credits", store=store_for(place)) as other,
    ):
        yield one, other


async def ended(workers: Sequence[Watched], count: int) -> Counter[type]:
    """The last word on *count* deliveries, by its type; a wait for a run elsewhere is none."""

    def outcomes() -> list[type]:
        found = [type(event.outcome) for worker in workers for event in worker.finished]
        return [outcome for outcome in found if outcome in (Done, Duplicate, Dead)]

    await eventually(lambda: len(outcomes()) >= count, within=30)
    return Counter(outcomes())


def publish(url: str, jobs: Sequence[NewJob[Any]]) -> None:
    with Publisher(url) as publisher:
        publisher.publish_many(jobs)


async def in_threads(url: str, batches: Sequence[Sequence[NewJob[Any]]]) -> None:
    """Publish each of *batches* from a thread and a connection of its own."""
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(len(batches)) as threads:
        await asyncio.gather(*(loop.run_in_executor(threads, publish, url, batch) for batch in batches))


def gift(job_id: str, user: int, amount: int) -> NewJob[CreditAdd]:
    return CREDIT_ADD.new(CreditAdd(user=user, amount=amount), id=job_id)


def move(job_id: str, giver: int, taker: int, amount: int) -> NewJob[CreditTransfer]:
    return CREDIT_TRANSFER.new(CreditTransfer(from_=giver, to=taker, amount=amount), id=job_id)


async def test_tables_may_be_made_by_several_at_once(place: str) -> None:
    await asyncio.gather(*(migrate(StoreUrl.parse(place)) for _ in range(8)))


async def test_jobs_that_several_threads_publish_again_and_again_count_once(
    url: str, place: str, store: EffectStore
) -> None:
    gifts = [gift(f"gift-{n}", user=n % 3 + 1, amount=n + 1) for n in range(60)]
    async with two_workers(url, place) as workers:
        await in_threads(url, [gifts] * THREADS)
        found = await ended(workers, THREADS * len(gifts))
    assert found == {Done: len(gifts), Duplicate: (THREADS - 1) * len(gifts)}
    assert await booked(store) == {job.id: 1 for job in gifts}
    sums = {user: sum(job.args.amount for job in gifts if job.args.user == user) for user in (1, 2, 3)}
    assert await balances(store) == sums
    assert all(worker.finished for worker in workers), "both took part"


async def test_opposite_transfers_all_happen_and_none_costs_an_attempt(
    url: str, place: str, store: EffectStore
) -> None:
    there = [move(f"there-{n}", 1, 2, 1) for n in range(100)]
    back = [move(f"back-{n}", 2, 1, 1) for n in range(100)]
    async with two_workers(url, place) as workers:
        await in_threads(url, [[gift("first", 1, 100), gift("second", 2, 100)]])
        await ended(workers, 2)
        await in_threads(url, [there, back])
        found = await ended(workers, 202)
    assert found == {Done: 202}
    assert {event.attempt for worker in workers for event in worker.finished} == {1}
    assert await balances(store) == {1: 100, 2: 100}


async def test_a_transfer_that_would_overdraw_is_a_dead_letter_and_changes_nothing(
    url: str, place: str, store: EffectStore
) -> None:
    async with two_workers(url, place) as workers:
        await in_threads(url, [[gift("little", 1, 5)]])
        await ended(workers, 1)
        await in_threads(url, [[move("much", 1, 2, 6), move("much", 1, 2, 6)]])
        assert await ended(workers, 3) == {Done: 1, Dead: 1, Duplicate: 1}
        async with foreign(url) as channel:
            letter = await take(channel, "jobs.credits.dead")
    assert letter.message_id == "much"
    assert letter.headers["penstock-reason"] == "rejected"
    assert letter.headers["penstock-error"] == "user 1 has 5, not 6"
    assert await booked(store) == {"little": 1}
    assert await balances(store) == {1: 5}
