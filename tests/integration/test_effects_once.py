"""A job that is delivered twice has its effect once: with a store, on a real broker."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

import pytest

from penstock import AsyncPublisher, BlockingTransaction, Handlers, Job, JobKind, Next, RetryPolicy, Transaction
from penstock.claims import State
from penstock.connect import store_for
from penstock.events import JobFinished
from penstock.outcome import Dead, DeadReason, Done, Duplicate, Retried, Snoozed
from penstock.storing import EffectStore
from penstock.testing.broker_node import BrokerInfo
from tests.support.brokers import manage
from tests.support.working import LEVELS, Watched, empty, foreign, take, working

SECOND = timedelta(seconds=1)


@dataclass
class Credit:
    """The arguments of email.credit: give *user* so much more."""

    user: int
    amount: int


CREDIT = JobKind("email.credit", Credit)


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", "jobs.email.dead", "jobs.unrouted", *LEVELS)


@pytest.fixture
async def store_url(effect_store_url: str) -> str:
    """A store with a ledger of credits, which has no unique key: what happens twice shows."""
    store = store_for(effect_store_url)
    await store.migrate()
    await store.open()
    assert isinstance(store, EffectStore)
    async with store.effect() as effect:
        await effect.transaction.execute("CREATE TABLE ledger (job TEXT, user_id INTEGER, amount INTEGER)")
    await store.close()
    return effect_store_url


async def ledger(url: str) -> list[tuple[Any, ...]]:
    """Every effect so far."""
    store = store_for(url)
    assert isinstance(store, EffectStore)
    await store.open()
    async with store.effect() as effect:
        rows = (await effect.transaction.execute("SELECT job, user_id, amount FROM ledger")).fetchall()
    await store.close()
    return rows


async def add(job: Job[Credit], tx: Transaction) -> dict[str, int]:
    """The example that everyone gets wrong."""
    await tx.execute("INSERT INTO ledger VALUES (%s, %s, %s)", (job.id, job.args.user, job.args.amount))
    return {"added": job.args.amount}


def handling(function: Any, **options: Any) -> Handlers:
    """Handlers with *function* for email.credit."""
    handlers = Handlers()
    handlers.on(CREDIT, **({"once": "effect"} | options))(function)
    return handlers


async def outcomes(watched: Watched, count: int) -> list[type]:
    """The types of the first *count* outcomes."""
    events: list[JobFinished] = await watched.until(JobFinished, count)
    return [type(event.outcome) for event in events]


@pytest.fixture
async def publisher(url: str) -> AsyncIterator[AsyncPublisher]:
    """Publishes."""
    async with AsyncPublisher(url) as publisher:
        yield publisher


async def test_a_job_published_twice_adds_once(url: str, store_url: str, publisher: AsyncPublisher) -> None:
    async with working(url, handling(add), store=store_for(store_url)) as watched:
        for earlier in range(3):
            await publisher.publish(CREDIT, Credit(123, 5), id="one")
            await watched.until(JobFinished, earlier + 1)
        assert await outcomes(watched, 3) == [Done, Duplicate, Duplicate]
    assert await ledger(store_url) == [("one", 123, 5)]


async def test_a_def_handler_in_a_thread_has_its_transaction_too(
    url: str, store_url: str, publisher: AsyncPublisher
) -> None:
    def add_in_thread(job: Job[Credit], tx: BlockingTransaction) -> None:
        tx.execute("INSERT INTO ledger VALUES (%s, %s, %s)", (job.id, job.args.user, job.args.amount))

    async with working(url, handling(add_in_thread), store=store_for(store_url)) as watched:
        await publisher.publish(CREDIT, Credit(1, 1), id="threaded")
        await publisher.publish(CREDIT, Credit(1, 1), id="threaded")
        await watched.until(JobFinished, 2)
    assert await ledger(store_url) == [("threaded", 1, 1)]


async def test_what_a_failed_attempt_wrote_is_rolled_back_and_the_retry_writes_it(
    url: str, store_url: str, publisher: AsyncPublisher
) -> None:
    async def fails_once(job: Job[Credit], tx: Transaction) -> None:
        await add(job, tx)
        if job.attempt == 1:
            raise RuntimeError("after the write")

    handlers = handling(fails_once, retry=RetryPolicy(first=SECOND))
    async with working(url, handlers, store=store_for(store_url)) as watched:
        await publisher.publish(CREDIT, Credit(1, 7), id="again")
        assert await outcomes(watched, 2) == [Retried, Done]
    assert await ledger(store_url) == [("again", 1, 7)]


async def test_a_middleware_that_calls_its_handler_again_has_one_effect(
    url: str, store_url: str, publisher: AsyncPublisher
) -> None:
    calls: list[int] = []

    async def fails_first(job: Job[Credit], tx: Transaction) -> None:
        await add(job, tx)
        calls.append(job.attempt)
        if len(calls) == 1:
            raise RuntimeError("after the write")

    async def again(job: Job[Any], run: Next) -> object:
        try:
            return await run(job)
        except RuntimeError:
            return await run(job)

    async with working(url, handling(fails_first), store=store_for(store_url), middleware=[again]) as watched:
        await publisher.publish(CREDIT, Credit(1, 7), id="called again")
        assert await outcomes(watched, 1) == [Done]
    assert (calls, await ledger(store_url)) == ([1, 1], [("called again", 1, 7)])


async def test_a_middleware_that_does_not_call_its_handler_leaves_nothing_and_no_connection_is_lost(
    url: str, store_url: str, publisher: AsyncPublisher
) -> None:
    async def not_the_first(job: Job[Any], run: Next) -> object:
        return None if job.id == "first" else await run(job)

    store = store_for(store_url, connections=1)
    async with working(url, handling(add), store=store, middleware=[not_the_first], slots=1) as watched:
        for job_id in ("first", "second"):
            await publisher.publish(CREDIT, Credit(1, 7), id=job_id)
        assert await outcomes(watched, 2) == [Done, Done]
    assert await ledger(store_url) == [("second", 1, 7)]


async def test_other_arguments_under_a_known_id_are_a_conflict(
    url: str, store_url: str, publisher: AsyncPublisher
) -> None:
    async with working(url, handling(add), store=store_for(store_url)) as watched:
        await publisher.publish(CREDIT, Credit(1, 1), id="taken")
        await watched.until(JobFinished, 1)
        await publisher.publish(CREDIT, Credit(1, 1_000_000), id="taken")
        (_, second) = await watched.until(JobFinished, 2)
        assert isinstance(second.outcome, Dead)
        assert second.outcome.reason is DeadReason.CONFLICT
    async with foreign(url) as channel:
        letter = await take(channel, "jobs.email.dead")
    assert letter.headers["penstock-reason"] == "conflict"
    assert await ledger(store_url) == [("taken", 1, 1)]


async def test_a_job_without_an_id_is_given_one_that_its_redeliveries_share(
    url: str, broker: BrokerInfo, store_url: str
) -> None:
    async with working(url, handling(add), store=store_for(store_url)) as watched:
        body = '{"user": 9, "amount": 2}'
        form = {"routing_key": "email.credit", "payload": body, "payload_encoding": "string", "properties": {}}
        manage(broker, "POST", f"/api/exchanges/{url.rpartition('/')[2]}/jobs/publish", form)
        first, second = await watched.until(JobFinished, 2)
        assert isinstance(first.outcome, Snoozed)
        assert first.outcome.note == "given an id"
        assert isinstance(second.outcome, Done)
        assert first.id == second.id
    assert [(user, amount) for _, user, amount in await ledger(store_url)] == [(9, 2)]


async def test_a_job_that_died_is_remembered_as_dead(url: str, store_url: str, publisher: AsyncPublisher) -> None:
    async def fails(_job: Job[Credit], _tx: Transaction) -> None:
        raise RuntimeError("never works")

    store = store_for(store_url)
    async with working(url, handling(fails, retry=RetryPolicy(max_attempts=1)), store=store) as watched:
        await publisher.publish(CREDIT, Credit(1, 1), id="doomed")
        assert await outcomes(watched, 1) == [Dead]
        async with foreign(url) as channel:
            await take(channel, "jobs.email.dead")
    other = store_for(store_url)
    await other.open()
    assert [record.state for record in await other.records("doomed")] == [State.DEAD]
    await other.close()


async def test_a_lease_handler_is_marked_with_its_result(url: str, store_url: str, publisher: AsyncPublisher) -> None:
    sent: list[str] = []

    async def send(job: Job[Credit]) -> dict[str, str]:
        sent.append(job.id)
        return {"sent": job.id}

    async with working(url, handling(send, once="lease"), store=store_for(store_url)) as watched:
        await publisher.publish(CREDIT, Credit(1, 1), id="mail")
        await publisher.publish(CREDIT, Credit(1, 1), id="mail")
        await watched.until(JobFinished, 2)
    assert sent == ["mail"]
    other = store_for(store_url)
    await other.open()
    assert [record.result for record in await other.records("mail")] == [b'{"sent":"mail"}']
    await other.close()
