"""What a store that holds effects promises: an effect and the mark of its job are committed together, or neither is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta

import pytest

from penstock.claims import Claim, State
from penstock.storing import BlockingTransaction, EffectStore, Store, Transaction
from penstock.testing.clock import ManualClock
from tests.conformance.store_steps import LEASE, claim_of, taken
from tests.conformance.store_subjects import EffectSubject

ADD = "UPDATE accounts SET credit = credit + %s WHERE owner = %s"


class HandlerError(Exception):
    """What a handler failed with."""


async def state_of(store: Store, job_id: str = "job") -> tuple[State, bytes | None]:
    """Where a job stands, and its result."""
    [record] = await store.records(job_id)
    return record.state, record.result


def credit_of(subject: EffectSubject, owner: str = "ada") -> object:
    """What is on an account, seen from outside."""
    [[credit]] = subject.execute(f"SELECT credit FROM accounts WHERE owner = '{owner}'")
    return credit


async def run(store: EffectStore, claim: Claim, *, result: bytes | None = None) -> None:
    """Add 5 to Ada's credit, and complete the job."""
    async with store.effect() as effect:
        await effect.transaction.execute(ADD, (5, "ada"))
        assert await effect.complete(claim, result)


def run_blocking(store: EffectStore, claim: Claim, *, result: bytes | None = None) -> None:
    """As ``run``."""
    with store.blocking_effect() as effect:
        effect.transaction.execute(ADD, (5, "ada"))
        assert effect.complete(claim, result)


async def fail(store: EffectStore) -> None:
    """As ``run``, and fail just before the mark."""
    async with store.effect() as effect:
        await effect.transaction.execute(ADD, (5, "ada"))
        raise HandlerError


def fail_blocking(store: EffectStore) -> None:
    """As ``fail``."""
    with store.blocking_effect() as effect:
        effect.transaction.execute(ADD, (5, "ada"))
        raise HandlerError


async def be_fenced(store: EffectStore, claim: Claim) -> None:
    """As ``run``, for a claim that was taken over."""
    async with store.effect() as effect:
        await effect.transaction.execute(ADD, (5, "ada"))
        assert not await effect.complete(claim, None)
        raise HandlerError


def be_fenced_blocking(store: EffectStore, claim: Claim) -> None:
    """As ``be_fenced``."""
    with store.blocking_effect() as effect:
        effect.transaction.execute(ADD, (5, "ada"))
        assert not effect.complete(claim, None)
        raise HandlerError


async def in_thread(function: Callable[[EffectStore, Claim], None], store: EffectStore, claim: Claim) -> None:
    """Run *function* as a ``def`` handler is run."""
    await asyncio.to_thread(function, store, claim)


async def test_an_effect_and_its_mark_are_committed_together(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    claim = await taken(effect_store, claim_of())
    async with effect_store.effect() as effect:
        await effect.transaction.execute(ADD, (5, "ada"))
        assert credit_of(effect_subject) == 0
        assert await effect.complete(claim, b'"added"')
    assert credit_of(effect_subject) == 5
    assert await state_of(effect_store) == (State.DONE, b'"added"')


async def test_an_effect_of_a_thread_and_its_mark_are_committed_together(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    claim = await taken(effect_store, claim_of())
    await asyncio.to_thread(run_blocking, effect_store, claim, result=b'"added"')
    assert credit_of(effect_subject) == 5
    assert await state_of(effect_store) == (State.DONE, b'"added"')


async def test_a_handler_that_fails_after_its_writes_leaves_neither_effect_nor_mark(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    claim = await taken(effect_store, claim_of())
    with pytest.raises(HandlerError):
        await fail(effect_store)
    with pytest.raises(HandlerError):
        await asyncio.to_thread(fail_blocking, effect_store)
    assert credit_of(effect_subject) == 0
    assert await state_of(effect_store) == (State.RUNNING, None)
    await run(effect_store, claim)
    assert credit_of(effect_subject) == 5


async def test_a_run_that_was_taken_over_cannot_complete_and_its_effect_is_rolled_back(
    effect_store: EffectStore, effect_subject: EffectSubject, clock: ManualClock
) -> None:
    frozen = await taken(effect_store, claim_of())
    await clock.advance(timedelta(milliseconds=LEASE))
    other = await taken(effect_store, claim_of())
    with pytest.raises(HandlerError):
        await be_fenced(effect_store, frozen)
    with pytest.raises(HandlerError):
        await in_thread(be_fenced_blocking, effect_store, frozen)
    await run(effect_store, other)
    with pytest.raises(HandlerError):
        await be_fenced(effect_store, other)  # it is done: once
    assert credit_of(effect_subject) == 5


async def test_a_job_that_was_forgotten_meanwhile_cannot_be_completed(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    claim = await taken(effect_store, claim_of())
    await effect_store.forget("job")
    with pytest.raises(HandlerError):
        await be_fenced(effect_store, claim)
    assert credit_of(effect_subject) == 0
    assert await effect_store.records("job") == []


async def test_a_task_that_is_cancelled_in_its_handler_leaves_nothing_and_the_next_effect_is_its_own(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    claim = await taken(effect_store, claim_of())
    begun = asyncio.Event()

    async def handler() -> None:
        async with effect_store.effect() as effect:
            await effect.transaction.execute(ADD, (100, "ada"))
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(handler())
    await begun.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await run(effect_store, claim)
    assert credit_of(effect_subject) == 5


async def test_effects_that_wait_for_their_turn_may_be_cancelled(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    claims = [await taken(effect_store, claim_of(f"job {number}")) for number in range(40)]
    tasks = [asyncio.create_task(run(effect_store, claim)) for claim in claims]
    await asyncio.sleep(0)  # all of them have begun
    for task in tasks[::2]:
        task.cancel()
    ended = await asyncio.gather(*tasks, return_exceptions=True)
    done = [await state_of(effect_store, claim.job_id) for claim in claims].count((State.DONE, None))
    assert done >= ended.count(None) == 20
    assert credit_of(effect_subject) == 5 * done


async def test_more_effects_at_once_than_connections_all_happen_once(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    claims = [await taken(effect_store, claim_of(f"job {number}")) for number in range(100)]
    await asyncio.gather(*(run(effect_store, claim) for claim in claims[:60]))
    with ThreadPoolExecutor(24) as threads:
        for ended in [threads.submit(run_blocking, effect_store, claim) for claim in claims[60:]]:
            await asyncio.wrap_future(ended)
    assert credit_of(effect_subject) == 500


async def test_coroutines_threads_and_claims_get_on_side_by_side(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    async def one(number: int) -> None:
        claim = await taken(effect_store, claim_of(f"job {number}"))
        await (run(effect_store, claim) if number % 2 else in_thread(run_blocking, effect_store, claim))

    await asyncio.gather(*(one(number) for number in range(40)))
    assert credit_of(effect_subject) == 200
    assert dict((await effect_store.status()).records) == {"done": 40}


async def test_failures_use_up_no_connection(effect_store: EffectStore, effect_subject: EffectSubject) -> None:
    claim = await taken(effect_store, claim_of())
    for _ in range(40):
        with pytest.raises(HandlerError):
            await fail(effect_store)
        with pytest.raises(HandlerError):
            await asyncio.to_thread(fail_blocking, effect_store)
    await run(effect_store, claim)
    assert credit_of(effect_subject) == 5


async def in_words(transaction: Transaction) -> list[object]:
    """What a transaction gives for statements of every form."""
    execute = transaction.execute
    inserted = await execute("INSERT INTO accounts VALUES (%s, %s), (%s, %s)", ["bob", 1, "50%", 2])
    named = await execute("SELECT owner FROM accounts WHERE credit > %(least)s ORDER BY credit", {"least": 0})
    like = await execute("SELECT credit FROM accounts WHERE owner LIKE '50%'")
    escaped = await execute("SELECT credit FROM accounts WHERE owner LIKE '%%o%%' AND credit < %s", (9,))
    rows = [inserted.rowcount, inserted.fetchall(), inserted.fetchone(), named.rowcount]
    return [*rows, named.fetchone(), named.fetchall(), named.fetchone(), like.fetchall(), escaped.fetchone()]


def in_words_blocking(transaction: BlockingTransaction) -> list[object]:
    """As ``in_words``."""
    execute = transaction.execute
    inserted = execute("INSERT INTO accounts VALUES (%s, %s), (%s, %s)", ["bob", 1, "50%", 2])
    named = execute("SELECT owner FROM accounts WHERE credit > %(least)s ORDER BY credit", {"least": 0})
    like = execute("SELECT credit FROM accounts WHERE owner LIKE '50%'")
    escaped = execute("SELECT credit FROM accounts WHERE owner LIKE '%%o%%' AND credit < %s", (9,))
    rows = [inserted.rowcount, inserted.fetchall(), inserted.fetchone(), named.rowcount]
    return [*rows, named.fetchone(), named.fetchall(), named.fetchone(), like.fetchall(), escaped.fetchone()]


SAID = [2, [], None, 2, ("bob",), [("50%",)], None, [(2,)], (1,)]


async def test_statements_are_written_alike_on_every_database(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    async with effect_store.effect() as effect:
        assert await in_words(effect.transaction) == SAID
    effect_subject.execute("DELETE FROM accounts WHERE owner <> 'ada'")
    with effect_store.blocking_effect() as blocking:
        assert in_words_blocking(blocking.transaction) == SAID


async def be_refused(store: EffectStore, statement: str) -> None:
    """Add 5 to Ada's credit, and run a *statement* that the database refuses."""
    async with store.effect() as effect:
        await effect.transaction.execute(ADD, (5, "ada"))
        await effect.transaction.execute(statement)


def be_refused_blocking(store: EffectStore, statement: str) -> None:
    """As ``be_refused``."""
    with store.blocking_effect() as effect:
        effect.transaction.execute(ADD, (5, "ada"))
        effect.transaction.execute(statement)


async def test_a_refused_statement_raises_the_drivers_error_and_all_of_the_effect_is_rolled_back(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    claim = await taken(effect_store, claim_of())
    for statement in ("INSERT INTO accounts VALUES ('ada', 1)", "SELECT 1 FROM nowhere", "SELEC 1"):
        with pytest.raises(effect_subject.error):
            await be_refused(effect_store, statement)
        with pytest.raises(effect_subject.error):
            be_refused_blocking(effect_store, statement)
    await run(effect_store, claim)
    assert credit_of(effect_subject) == 5


async def test_a_handlers_own_error_of_the_driver_is_not_taken_for_the_stores(
    effect_store: EffectStore, effect_subject: EffectSubject
) -> None:
    error = __import__(effect_subject.error.__module__).OperationalError("another database is away")
    with pytest.raises(effect_subject.error) as raised:
        async with effect_store.effect():
            raise error
    assert raised.value is error
    with pytest.raises(effect_subject.error) as raised, effect_store.blocking_effect():
        raise error
    assert raised.value is error
