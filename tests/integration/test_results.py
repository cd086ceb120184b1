"""Results: what a handler returned, read and waited for by others."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from pathlib import Path

import pytest

from penstock import AsyncPublisher, Handlers, Job, JobKind, Reject, Results, Transaction, results
from penstock.claims import Claim, Mark, State
from penstock.connect import store_for
from tests.support.outboxes import BACK_ENDS, MAIL, Mail, migrated
from tests.support.postgres import PrivatePostgres
from tests.support.working import empty, working

SECOND = timedelta(seconds=1)
PATIENCE = timedelta(seconds=50)


@pytest.fixture(params=BACK_ENDS)
async def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store with its tables, on either back end."""
    where: str = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return await migrated(where or f"sqlite:///{tmp_path}/store.db")


@pytest.fixture
async def publisher(url: str) -> AsyncIterator[AsyncPublisher]:
    """Publishes into empty queues."""
    await empty(url, "jobs.email", "jobs.email.dead")
    async with AsyncPublisher(url) as publisher:
        yield publisher


def handlers() -> Handlers:
    """One that answers, one that never will."""
    known = Handlers()

    @known.on(MAIL, once="effect")
    async def answer(job: Job[Mail], _tx: Transaction) -> dict[str, int]:
        return {"twice": job.args.n * 2}

    @known.on(JobKind("email.doomed", Mail), once="effect")
    async def refuse(_job: Job[Mail], _tx: Transaction) -> None:
        raise Reject("never")

    return known


async def test_what_a_handler_returns_is_waited_for_and_read(
    url: str, store_url: str, publisher: AsyncPublisher
) -> None:
    async with Results(store_url) as found:
        waiting = asyncio.create_task(found.wait("sum", timeout=PATIENCE))
        async with working(url, handlers(), store=store_for(store_url)):
            await publisher.publish(MAIL, Mail(21), id="sum")
            result = await waiting
        assert (result.state, result.value, result.consumer) == ("done", {"twice": 42}, "email")
        assert await found.get("sum") == result
        assert await found.get("unheard of") is None
    assert await asyncio.to_thread(results.get, "sum", store_url) == result


async def test_the_wait_for_a_job_that_dies_ends_as_well(url: str, store_url: str, publisher: AsyncPublisher) -> None:
    async with working(url, handlers(), store=store_for(store_url)), Results(store_url) as found:
        await publisher.publish(JobKind("email.doomed", Mail), Mail(1), id="doomed")
        result = await found.wait("doomed", timeout=PATIENCE)
    assert (result.state, result.value, result.ended) == ("dead", None, True)


async def test_a_wait_ends_in_its_time_and_says_where_the_job_stands(store_url: str) -> None:
    await remember(store_url, "email", "slow", State.RUNNING)
    async with Results(store_url) as found:
        with pytest.raises(TimeoutError, match="it is running"):
            await found.wait("slow", timeout=SECOND / 10)
        with pytest.raises(TimeoutError, match="not known yet"):
            await found.wait("unheard of", timeout=timedelta(0))


async def test_a_job_that_several_queues_ran_is_asked_for_by_queue(store_url: str) -> None:
    await remember(store_url, "north", "both", State.RUNNING)
    await remember(store_url, "south", "both", State.DONE, b"7")
    store = store_for(store_url)
    await store.open()
    async with Results(store) as found:
        north, south, any_one = [await found.get("both", consumer=name) for name in ("north", "south", None)]
        assert await found.get("both", consumer="west") is None
    assert await store.records("both"), "a store that was handed in stays open"
    await store.close()
    assert north is not None
    assert north.state == "running"
    assert south is not None
    assert (south.value, any_one) == (7, south)


async def test_a_wait_outlives_a_restart_of_the_store(own_postgres: Callable[..., PrivatePostgres]) -> None:
    server = own_postgres()
    store_url = await migrated(server.new_database())
    async with Results(store_url) as found:
        waiting = asyncio.create_task(found.wait("late", timeout=PATIENCE))
        await asyncio.wait([waiting], timeout=0.05)
        await asyncio.to_thread(server.stop)
        with pytest.raises(TimeoutError) as late:
            await found.wait("late", timeout=SECOND / 10)
        assert late.value.__cause__ is not None
        await asyncio.to_thread(server.start)
        await remember(store_url, "email", "late", State.DONE, b'"here"')
        assert (await waiting).value == "here"


async def remember(url: str, consumer: str, job_id: str, state: State, result: bytes | None = None) -> None:
    """Let a job be claimed by *consumer* and end."""
    store = store_for(url)
    await store.open()
    claim = Claim(consumer, job_id, 0, 1, 30_000)
    await store.claim([claim])
    if state is not State.RUNNING:
        await store.mark([Mark(claim, state, result)])
    await store.close()
