"""Effects on PostgreSQL whose claims are a part of their transactions: all of it is committed together, or nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

import psycopg
import pytest

from penstock.claims import Answer, Claim, State, Verdict
from penstock.errors import StoreUnavailable
from penstock.stores.postgres import PostgresStore
from penstock.storing import OwnEffect, Transaction
from tests.conformance.store_steps import claim_of, ended, verdict_of
from tests.support.accounts import ADD, BRIEFLY, credit, opened
from tests.support.postgres import sleeps
from tests.support.waiting import eventually

Act = Callable[[Transaction], Awaitable[object]]


async def add(tx: Transaction) -> object:
    """Add 5 to Ada's credit."""
    return await tx.execute(ADD)


async def begun(store: PostgresStore, claim: Claim) -> OwnEffect:
    """The effect of *claim*, which is fresh."""
    effect = await store.begin(claim)
    assert not isinstance(effect, Answer), effect.verdict
    return effect


async def refused(store: PostgresStore, claim: Claim) -> Answer:
    """Why there is no effect of *claim*."""
    answer = await store.begin(claim)
    assert isinstance(answer, Answer)
    return answer


async def happen(store: PostgresStore, claim: Claim, act: Act = add, result: bytes | None = None) -> None:
    """The effect of *claim*, committed."""
    async with await begun(store, claim) as effect:
        await act(effect.transaction)
        assert await effect.complete(claim, result)


async def test_effect_claim_and_result_are_seen_together_or_not_at_all(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        claim = claim_of(copy=2)
        async with await begun(store, claim) as effect:
            await effect.transaction.execute(ADD)
            assert (credit(postgres_url), await store.records("job")) == (0, [])
            assert await effect.complete(claim, b'{"added": 5}')
        [record] = await store.records("job")
        assert (record.state, record.copy, record.result) == (State.DONE, 2, b'{"added": 5}')
        assert credit(postgres_url) == 5
        assert (await refused(store, claim_of())).verdict is Verdict.DONE


@pytest.mark.parametrize("entered", [True, False], ids=["failed", "never run"])
async def test_an_effect_that_is_rolled_back_leaves_nothing_and_its_job_is_fresh(
    postgres_url: str, entered: bool
) -> None:
    async with opened(postgres_url, connections=1) as store:
        effect = await begun(store, claim_of())
        connected = await connections(postgres_url)
        if entered:
            with suppress(ZeroDivisionError):
                async with effect:
                    await effect.transaction.execute(ADD)
                    raise ZeroDivisionError
        else:
            await effect.abandon()
            await effect.abandon()
        assert (credit(postgres_url), await store.records("job")) == (0, [])
        await happen(store, claim_of())
        assert credit(postgres_url) == 5

        async def kept() -> bool:
            return await connections(postgres_url) <= connected  # those of others may have ended meanwhile

        await eventually(kept)


async def connections(url: str) -> set[int]:
    """The server's processes for others."""
    async with await psycopg.AsyncConnection.connect(url) as outside:
        others = "SELECT pid FROM pg_stat_activity WHERE datname = current_database() AND pid <> pg_backend_pid()"
        return {int(pid) for (pid,) in await (await outside.execute(others)).fetchall()}


async def test_a_block_that_ends_without_a_mark_is_rolled_back(postgres_url: str) -> None:
    async with opened(postgres_url, connections=1) as store:
        async with await begun(store, claim_of()) as effect:
            await effect.transaction.execute(ADD)
        assert (credit(postgres_url), await store.records("job")) == (0, [])


async def test_whoever_claims_a_job_meanwhile_waits_for_it_and_then_finds_it_done(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        claim = claim_of(lease=60_000)
        async with await begun(store, claim) as effect:
            now = claimed_at(postgres_url)
            within, batched = await refused(store, claim_of()), (await store.claim([claim_of(), claim_of("other")]))
            assert [within.verdict, *(answer.verdict for answer in batched)] == [
                Verdict.RUNNING,
                Verdict.RUNNING,
                Verdict.FRESH,
            ]
            assert now + 50_000 < within.until < now + 70_000
            assert await effect.complete(claim, None)
        assert (await refused(store, claim_of())).verdict is Verdict.DONE
        assert await verdict_of(store, claim_of()) is Verdict.DONE


def claimed_at(url: str) -> int:
    """The server's clock, in milliseconds."""
    with psycopg.connect(url) as outside:
        [[now]] = outside.execute("SELECT floor(extract(epoch FROM clock_timestamp()) * 1000)::bigint").fetchall()
    return int(now)


async def test_an_effect_left_alone_for_a_lease_is_ended_by_the_next_claim_and_cannot_commit(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        frozen = claim_of()

        async def freeze() -> None:
            async with await begun(store, frozen) as effect:
                await effect.transaction.execute(ADD)
                await eventually(taken_over, within=20)
                await effect.complete(frozen, None)

        async def taken_over() -> bool:
            effect = await store.begin(claim_of(lease=300))
            if isinstance(effect, Answer):
                assert effect.verdict is Verdict.RUNNING
                return False
            async with effect:
                await effect.transaction.execute(ADD)
                return await effect.complete(frozen, None)

        with pytest.raises(StoreUnavailable):
            await freeze()
        assert credit(postgres_url) == 5
        assert [record.state for record in await store.records("job")] == [State.DONE]


async def test_an_effect_that_is_renewed_is_not_left_alone_however_long_its_handler_takes(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        claim = claim_of(lease=2000)
        loop = asyncio.get_running_loop()
        async with await begun(store, claim) as effect:
            end = loop.time() + 5.0

            async def two_leases_later() -> bool:
                await effect.renew()
                assert (await refused(store, claim_of(lease=2000))).verdict is Verdict.RUNNING
                return loop.time() > end

            await eventually(two_leases_later, within=30)
            slow = asyncio.create_task(effect.transaction.execute("SELECT pg_sleep(3)"))
            await eventually(lambda: sleeps(postgres_url))
            await effect.renew()
            assert (await refused(store, claim_of(lease=2000))).verdict is Verdict.RUNNING, (
                "the server is at work for it"
            )
            await slow
            await effect.transaction.execute(ADD)
            assert await effect.complete(claim, None)
        await effect.renew()
        assert credit(postgres_url) == 5


async def test_a_handler_that_has_the_server_forget_what_was_prepared_does_no_harm(postgres_url: str) -> None:
    async with opened(postgres_url, connections=1) as store:
        for number in range(3):
            await happen(store, claim_of(f"job {number}"), lambda tx: tx.execute("DEALLOCATE ALL"))
        assert sorted([(await store.records(f"job {n}"))[0].state for n in range(3)]) == [State.DONE] * 3


@pytest.mark.parametrize("isolation", ["read%20committed", "serializable"])
async def test_a_claim_that_meets_a_commit_is_told_what_that_left(postgres_url: str, isolation: str) -> None:
    option = f"?options=-c%20default_transaction_isolation%3D{isolation.replace('%20', '%5C%20')}"
    async with opened(postgres_url + option) as store:
        await ended(store, claim_of(), State.MOVED)
        with psycopg.connect(postgres_url) as outside:
            outside.execute("UPDATE penstock_records SET state = 'done'")
            asking = asyncio.create_task(store.begin(claim_of(copy=1)))
            await eventually(lambda: _waits_for_a_lock(postgres_url))
            outside.commit()
        answer = await asking
        assert isinstance(answer, Answer)
        assert answer.verdict is Verdict.DONE


def _waits_for_a_lock(url: str) -> bool:
    with psycopg.connect(url) as outside:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%penstock_take%'"
        return outside.execute(waiting).fetchone() is not None


@pytest.mark.parametrize("job_id", ["it's", "a\\b", "a\0b", "\N{SNOWMAN}", "x" * 255, "100 %s"])
async def test_any_job_id_is_claimed_and_found_again(postgres_url: str, job_id: str) -> None:
    async with opened(postgres_url) as store:
        await happen(store, claim_of(job_id), result=b'"it\'s"')
        [record] = await store.records(job_id)
        assert (record.state, record.result) == (State.DONE, b'"it\'s"')
        assert (await refused(store, claim_of(job_id))).verdict is Verdict.DONE


# --- turns ----------------------------------------------------------------------------------------------------------


async def test_more_effects_at_once_than_connections_all_happen_once(postgres_url: str) -> None:
    async with opened(postgres_url, connections=3) as store:
        await asyncio.gather(*(happen(store, claim_of(f"job {n}")) for n in range(50)))
        assert credit(postgres_url) == 250


async def test_effects_that_take_long_do_not_keep_others_from_beginning(postgres_url: str) -> None:
    async with opened(postgres_url, connections=20) as store:
        long = await asyncio.gather(*(begun(store, claim_of(f"long {n}")) for n in range(19)))
        await happen(store, claim_of())
        for effect in long:
            await effect.abandon()
        assert credit(postgres_url) == 5


async def test_nobody_waits_longer_for_a_connection_than_the_stores_patience(postgres_url: str) -> None:
    async with opened(postgres_url, connections=1) as store:
        held = await begun(store, claim_of("held"))
        store._effects._patience = BRIEFLY  # for a connection alone, not for every answer of a busy machine
        with pytest.raises(StoreUnavailable, match="all 1 connections were in use"):
            await store.begin(claim_of())
        await held.abandon()
        await happen(store, claim_of())


async def fail_at_commit(tx: Transaction) -> object:
    """What a deferred constraint refuses when it is committed."""
    return await tx.execute("INSERT INTO debts VALUES ('nobody')")


async def fail_unseen(tx: Transaction) -> object:
    """A failed statement that the handler takes no notice of."""
    with suppress(psycopg.errors.UndefinedTable):
        await tx.execute("SELECT 1 FROM nowhere")
    return None


@pytest.mark.parametrize(
    ("act", "error"),
    [
        (fail_at_commit, psycopg.errors.ForeignKeyViolation),
        (fail_unseen, psycopg.errors.InFailedSqlTransaction),
    ],
)
async def test_an_effect_that_begins_in_the_message_of_a_commit_stands_though_that_fails(
    postgres_url: str, act: Act, error: type[Exception]
) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as outside:
        outside.execute("CREATE TABLE owners (name text PRIMARY KEY)")
        outside.execute("CREATE TABLE debts (owner text REFERENCES owners DEFERRABLE INITIALLY DEFERRED)")
    async with opened(postgres_url, connections=1) as store:
        first, waiting = await begun(store, claim_of("first")), asyncio.create_task(happen(store, claim_of("second")))
        await asyncio.sleep(0)  # it waits for the only connection now

        async def fail() -> None:
            async with first:
                await act(first.transaction)
                await first.complete(claim_of("first"), None)

        with pytest.raises(error):
            await fail()
        await waiting
        assert credit(postgres_url) == 5
        assert await store.records("first") == []
        assert [record.state for record in await store.records("second")] == [State.DONE]


async def test_an_effect_that_begins_in_the_message_of_a_commit_finds_the_connection_as_new(postgres_url: str) -> None:
    async with opened(postgres_url, connections=1) as store:
        rows: list[object] = []

        async def look(tx: Transaction) -> object:
            rows.extend((await tx.execute("SELECT 1 AS one")).fetchall())
            return None

        first, waiting = await begun(store, claim_of("first")), asyncio.create_task(happen(store, claim_of(), look))
        await asyncio.sleep(0)
        async with first:
            first.transaction.connection.row_factory = psycopg.rows.dict_row
            assert await first.complete(claim_of("first"), None)
        await waiting
        assert rows == [(1,)]


@pytest.mark.parametrize("turns", [1, 2, 3, "as it is handed on"])
async def test_a_claim_cancelled_while_it_rides_leaves_nothing_and_no_connection_is_lost(
    postgres_url: str, turns: int | str
) -> None:
    async with opened(postgres_url, connections=1) as store:
        first, waiting = await begun(store, claim_of("first")), asyncio.create_task(store.begin(claim_of("second")))
        await asyncio.sleep(0)

        async def commit() -> None:
            async with first:
                assert await first.complete(claim_of("first"), None)
                waiting.cancel()

        committing = asyncio.create_task(commit())
        for _ in range(turns if isinstance(turns, int) else 0):
            await asyncio.sleep(0)
        if isinstance(turns, int):
            waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await committing
        await happen(store, claim_of("second"))
        assert credit(postgres_url) == 5
        assert [record.state for record in await store.records("first")] == [State.DONE]


@pytest.mark.parametrize("turns", range(1, 9))
async def test_a_commit_that_is_cancelled_does_not_take_the_waiting_effect_along(postgres_url: str, turns: int) -> None:
    async with opened(postgres_url, connections=1) as store:
        first, waiting = await begun(store, claim_of("first")), asyncio.create_task(happen(store, claim_of("second")))
        await asyncio.sleep(0)

        async def commit() -> None:
            async with first:
                await first.complete(claim_of("first"), None)

        committing = asyncio.create_task(commit())
        for _ in range(turns):
            await asyncio.sleep(0)
        committing.cancel()
        with suppress(asyncio.CancelledError):
            await committing
        await waiting
        assert credit(postgres_url) == 5
