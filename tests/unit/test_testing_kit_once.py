"""``WorkerTest`` gives handlers that say ``once`` a store of their own."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import pytest

from penstock import Handlers, Job, JobKind, RegistrationError, RetryPolicy, Transaction
from penstock.testing import WorkerTest


@dataclass
class Credit:
    """Give *user* five."""

    user: int


CREDIT = JobKind("credit.add", Credit)


def handlers_that_fail(attempts: int) -> Handlers:
    """Handlers whose effect is a row; they fail so many attempts after writing it."""
    handlers = Handlers()

    @handlers.on(CREDIT, once="effect", retry=RetryPolicy(first=timedelta(seconds=1)))
    async def add(job: Job[Credit], tx: Transaction) -> int:
        await tx.execute("CREATE TABLE IF NOT EXISTS ledger (user_id INTEGER)")
        await tx.execute("INSERT INTO ledger VALUES (%(user)s)", {"user": job.args.user})
        (rows,) = (await tx.execute("SELECT count(*) FROM ledger")).fetchone() or (0,)
        if job.attempt <= attempts:
            raise OSError("after the write")
        return int(rows)

    return handlers


async def test_a_job_published_twice_is_done_once_and_known_once() -> None:
    async with WorkerTest(handlers_that_fail(0)) as t:
        await t.publish(CREDIT, Credit(123), id="one")
        await t.publish(CREDIT, Credit(123), id="one")
        await t.settled()
        await t.advance(timedelta(seconds=10))  # the second may have waited for the first
        assert (len(t.done), len(t.duplicates)) == (1, 1)


async def test_a_failed_attempt_leaves_nothing_for_the_next_to_find() -> None:
    async with WorkerTest(handlers_that_fail(2)) as t:
        await t.publish(CREDIT, Credit(123))
        await t.settled()
        await t.advance(timedelta(seconds=30))
        assert len(t.retried) == 2
        assert [event.outcome.result for event in t.done] == [1]  # type: ignore[union-attr] # these are Done


def test_an_effect_handler_without_a_transaction_is_refused_at_registration() -> None:
    with pytest.raises(RegistrationError, match=r"must take \(job, tx\)"):

        @Handlers().on(CREDIT, once="effect")  # type: ignore[arg-type] # wrong on purpose
        async def add(_job: Job[Credit]) -> None: ...


def test_a_strength_that_does_not_exist_is_refused() -> None:
    with pytest.raises(RegistrationError, match="'effect', 'lease' or left out"):
        Handlers().on(CREDIT, once="twice")(print)  # type: ignore[call-overload] # wrong on purpose


def test_an_async_handler_with_a_blocking_transaction_is_refused() -> None:
    from penstock import BlockingTransaction

    with pytest.raises(RegistrationError, match="its transaction is a Transaction"):

        @Handlers().on(CREDIT, once="effect")
        async def add(_job: Job[Credit], tx: BlockingTransaction) -> None:
            tx.execute("SELECT 1")
