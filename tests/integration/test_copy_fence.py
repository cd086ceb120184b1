"""Copies of a job that come late, twice or mended: the copy fence lets one of them have the effect."""

from __future__ import annotations

from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from aio_pika.abc import AbstractIncomingMessage

from penstock import AsyncPublisher, ConfigError, Handlers, Job, JobKind, RetryPolicy, Snooze, Transaction, Worker
from penstock.claiming import StoreTerms
from penstock.connect import broker_for, store_for
from penstock.dead_letters import DeadLetters
from penstock.delay import queue_key
from penstock.events import JobFinished
from penstock.outcome import Dead, Done, Duplicate, Snoozed
from tests.support.once_apps import INSERT, Credit, ledger, query, with_a_ledger
from tests.support.waiting import eventually
from tests.support.working import LEVELS, Watched, depth, empty, foreign, put, take, working

CREDIT = JobKind("email.credit", Credit)
DEAD = "jobs.email.dead"
Add = Callable[[Job[Credit], Transaction], Awaitable[None]]


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", "jobs.email.dead", *LEVELS)


@pytest.fixture
async def store(tmp_path: Path) -> str:
    """A store with a ledger."""
    return await with_a_ledger(f"sqlite:///{tmp_path}/store.db")


async def add(job: Job[Credit], tx: Transaction) -> None:
    """The effect; refused while the user is 0."""
    await tx.execute(INSERT, (job.id, job.args.user, job.args.amount))
    if not job.args.user:
        raise LookupError("no such user")


def handling(function: Add) -> Handlers:
    """Handlers with *function* for the credits, which try once."""
    handlers = Handlers()
    handlers.on(CREDIT, once="effect", retry=RetryPolicy(max_attempts=1))(function)  # type: ignore[arg-type]
    return handlers


async def publish(url: str, user: int, job_id: str = "credit") -> None:
    """Publish a credit."""
    async with AsyncPublisher(url) as publisher:
        await publisher.publish(CREDIT, Credit(user, 5), id=job_id)


async def send_copy(url: str, body: bytes, copy: int, **headers: Any) -> None:
    """Send a copy of the credit to its queue."""
    async with foreign(url) as channel:
        known = {"penstock-copy": copy, "penstock-origin": "jobs email.credit"} | headers
        key = queue_key(0, "jobs.email")
        await put(channel, key, body, exchange="jobs.delay", message_id="credit", type=CREDIT.name, headers=known)


async def outcomes(watched: Watched, count: int) -> list[type]:
    """The types of the first *count* outcomes."""
    return [type(event.outcome) for event in await watched.until(JobFinished, count)]


async def letter_of(url: str) -> AbstractIncomingMessage:
    """The dead letter, taken."""
    async with foreign(url) as channel:
        return await take(channel, DEAD)


async def test_a_snoozed_job_has_its_effect_when_it_runs_through_and_costs_no_attempt(url: str, store: str) -> None:
    async def not_yet(job: Job[Credit], tx: Transaction) -> None:
        await add(job, tx)
        if job.copy == 0:
            raise Snooze(after=timedelta(seconds=1))

    async with working(url, handling(not_yet), store=store_for(store)) as watched:
        await publish(url, 1)
        assert await outcomes(watched, 2) == [Snoozed, Done]
        assert {event.attempt for event in watched.finished} == {1}
    assert await ledger(store) == Counter(["credit"])


async def test_a_copy_below_the_records_is_superseded(url: str, store: str) -> None:
    async with working(url, handling(add), store=store_for(store)) as watched:
        await send_copy(url, b'{"user": 0, "amount": 5}', copy=3)
        assert await outcomes(watched, 1) == [Dead]
        await send_copy(url, b'{"user": 1, "amount": 5}', copy=2)
        await send_copy(url, b'{"user": 1, "amount": 5}', copy=3)
        assert await outcomes(watched, 3) == [Dead, Duplicate, Duplicate]
    assert not await ledger(store)


async def test_a_replayed_dead_letter_runs_and_a_second_replay_of_it_does_not(url: str, store: str) -> None:
    async with working(url, handling(add), store=store_for(store)) as watched:
        await publish(url, 0)
        assert await outcomes(watched, 1) == [Dead]
        letter = await letter_of(url)
        copy = int(str(letter.headers["penstock-copy"]))
        assert letter.headers["penstock-once"] is True
        for click in range(2):
            await send_copy(url, b'{"user": 1, "amount": 5}', copy=copy + 1)
            await watched.until(JobFinished, 2 + click)
        assert await outcomes(watched, 3) == [Dead, Done, Duplicate]
    assert await query(store, "SELECT user_id, amount FROM ledger") == [(1, 5)]


async def test_the_commands_replay_lets_a_dead_job_have_its_effect(url: str, store: str) -> None:
    known: set[int] = set()

    async def known_users_only(job: Job[Credit], tx: Transaction) -> None:
        await tx.execute(INSERT, (job.id, job.args.user, job.args.amount))
        if job.args.user not in known:
            raise LookupError("no such user")

    async with working(url, handling(known_users_only), store=store_for(store)) as watched:
        await publish(url, 7)
        assert await outcomes(watched, 1) == [Dead]
        known.add(7)
        await eventually(lambda: depth(url, DEAD))
        async with DeadLetters(broker_for(url)) as dead:
            assert (await dead.replay(DEAD, remembered=timedelta(days=14))).done == 1
        assert await outcomes(watched, 2) == [Dead, Done]
    assert await ledger(store) == Counter(["credit"])


class LaterClock:
    """A clock that is so many days ahead."""

    def __init__(self, days: int) -> None:
        self._ahead = days * 86_400_000

    def now_ms(self) -> int:
        return int(datetime.now(UTC).timestamp() * 1000) + self._ahead


async def test_a_letter_that_the_store_may_have_forgotten_stays_unless_forced(url: str, store: str) -> None:
    async with working(url, handling(add), store=store_for(store)) as watched:
        await publish(url, 0)
        await outcomes(watched, 1)
    async with DeadLetters(broker_for(url), clock=LaterClock(15)) as dead:
        result = await dead.replay(DEAD, remembered=timedelta(days=14))
        assert (result.done, len(result.stayed)) == (0, 1)
        assert "--force" in result.stayed[0][1]
        assert (await dead.replay(DEAD)).done == 1


def test_a_store_that_forgets_before_the_last_copy_can_come_is_refused_with_the_sum(tmp_path: Path) -> None:
    worker = Worker(handling(add), queue="email")
    terms = StoreTerms(retention=timedelta(days=20))
    with pytest.raises(ConfigError, match=r"20 days.*7 days.*14 days.*= 21 days"):
        worker.check(store=store_for(f"sqlite:///{tmp_path}/none.db"), terms=terms)


def test_a_handler_that_says_once_needs_a_store() -> None:
    with pytest.raises(ConfigError, match="PENSTOCK_STORE_URL"):
        Worker(handling(add), queue="email").check()


def test_an_effect_needs_a_store_with_transactions() -> None:
    with pytest.raises(ConfigError, match="once='effect'"):
        Worker(handling(add), queue="email").check(store=store_for("redis://127.0.0.1:1/0"))
