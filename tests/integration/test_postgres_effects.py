"""What the PostgreSQL store promises to handlers that work on its connection, and to others while they do."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import psycopg
import pytest
from psycopg.pq import TransactionStatus

from penstock.claims import State
from penstock.errors import UsageError
from tests.conformance.store_steps import claim_of, taken
from tests.support.accounts import ADD, credit, opened, run
from tests.support.postgres import sleeps
from tests.support.waiting import eventually


async def test_a_run_taken_over_in_the_middle_of_its_transaction_is_fenced(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        claim = await taken(store, claim_of())

        async def frozen() -> None:
            async with store.effect() as effect:
                await effect.transaction.execute("SELECT 1")
                await store.release([claim])
                await run(store, await taken(store, claim_of()))
                await effect.transaction.execute(ADD)
                assert not await effect.complete(claim, None)
                raise UsageError("fenced")

        with pytest.raises(UsageError, match="fenced"):
            await frozen()
        assert credit(postgres_url) == 5


async def test_no_transaction_is_open_between_the_mark_and_the_end_of_a_worker(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        claim = await taken(store, claim_of())
        async with store.effect() as effect:
            await effect.transaction.execute(ADD)
            assert await effect.complete(claim, None)
            assert effect.transaction.connection.info.transaction_status is TransactionStatus.IDLE
            assert credit(postgres_url) == 5


async def test_a_mark_is_found_by_its_key_however_small_the_table_was_when_that_was_planned(postgres_url: str) -> None:
    with psycopg.connect(postgres_url, autocommit=True) as outside:
        async with opened(postgres_url, connections=1) as store:
            await run(store, await taken(store, claim_of("first")))
            outside.execute("VACUUM ANALYZE penstock_records")  # one row: reading it all is the cheapest plan
            for number in range(20):
                await run(store, await taken(store, claim_of(f"job {number}")))
        statistics = "SELECT n_tup_upd, seq_scan FROM pg_stat_user_tables WHERE relname = 'penstock_records'"
        # The server tells of what a connection did when that has ended.
        # The two indexes were made by reading the whole table, which was empty; nothing else was found in that way.
        await eventually(lambda: outside.execute(statistics).fetchone() == (21, 2), within=20)


async def test_a_task_that_is_cancelled_in_a_statement_lets_go_of_its_locks_at_once(postgres_url: str) -> None:
    async with opened(postgres_url, connections=1) as store:
        claim = await taken(store, claim_of())

        async def handler() -> None:
            async with store.effect() as effect:
                await effect.transaction.execute(ADD)
                await effect.transaction.execute("SELECT pg_sleep(50)")

        task = asyncio.create_task(handler())
        await eventually(lambda: sleeps(postgres_url))
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await run(store, claim)
        assert credit(postgres_url) == 5
        assert not sleeps(postgres_url)


async def test_a_handler_may_not_end_the_transaction_itself(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        async with store.effect() as effect:
            for end in (effect.transaction.connection.commit, effect.transaction.connection.rollback):
                with pytest.raises(UsageError, match="do not end it yourself"):
                    await end()
        with store.blocking_effect() as blocking:
            for end_blocking in (blocking.transaction.connection.commit, blocking.transaction.connection.rollback):
                with pytest.raises(UsageError, match="do not end it yourself"):
                    end_blocking()


async def test_a_transaction_on_the_bare_connection_is_a_part_of_the_effect(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        async with store.effect() as effect:
            async with effect.transaction.connection.transaction():
                await effect.transaction.execute(ADD)
            async with effect.transaction.connection.transaction(force_rollback=True):
                await effect.transaction.execute(ADD)
            assert credit(postgres_url) == 0
        assert credit(postgres_url) == 5
        with store.blocking_effect() as blocking:
            with blocking.transaction.connection.transaction():
                blocking.transaction.execute(ADD)
            assert credit(postgres_url) == 5
        assert credit(postgres_url) == 10


async def test_an_effect_whose_failed_statement_was_ignored_is_not_taken_for_committed(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        await taken(store, claim_of())

        async def ignore() -> None:
            async with store.effect() as effect:
                await effect.transaction.execute(ADD)
                with pytest.raises(psycopg.errors.UndefinedTable):
                    await effect.transaction.execute("SELECT 1 FROM nowhere")

        def ignore_blocking() -> None:
            with store.blocking_effect() as effect:
                effect.transaction.execute(ADD)
                with pytest.raises(psycopg.errors.UndefinedTable):
                    effect.transaction.execute("SELECT 1 FROM nowhere")

        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            await ignore()
        with pytest.raises(psycopg.errors.InFailedSqlTransaction):
            ignore_blocking()
        assert credit(postgres_url) == 0


async def test_what_a_handler_changed_on_the_connection_is_not_the_next_ones(postgres_url: str) -> None:
    async with opened(postgres_url, connections=1) as store:
        async with store.effect() as effect:
            effect.transaction.connection.row_factory = psycopg.rows.namedtuple_row
            assert (await effect.transaction.execute("SELECT 1 AS one")).rows[0].one == 1  # type: ignore[attr-defined]
        async with store.effect() as effect:
            assert type((await effect.transaction.execute("SELECT 1 AS one")).rows[0]) is tuple


async def test_a_failed_effect_leaves_its_connection_to_the_next_and_a_cancelled_one_does_not(
    postgres_url: str,
) -> None:
    async with opened(postgres_url, connections=1) as store:

        async def server_process(error: BaseException | None = None) -> object:
            pid = None
            with suppress(ZeroDivisionError, asyncio.CancelledError):
                async with store.effect() as effect:
                    pid = (await effect.transaction.execute("SELECT pg_backend_pid()")).fetchone()
                    if error is not None:
                        raise error
            return pid

        def server_process_of_thread() -> object:
            pid = None
            with suppress(ZeroDivisionError), store.blocking_effect() as effect:
                pid = effect.transaction.execute("SELECT pg_backend_pid()").fetchone()
                raise ZeroDivisionError
            return pid

        first = await server_process(ZeroDivisionError())
        assert await server_process(asyncio.CancelledError()) == first
        assert await server_process() != first
        assert server_process_of_thread() == server_process_of_thread()


async def test_an_effect_that_is_refused_at_its_commit_leaves_neither_effect_nor_mark(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        with psycopg.connect(postgres_url) as outside:
            outside.execute("CREATE TABLE debts (owner text REFERENCES accounts DEFERRABLE INITIALLY DEFERRED)")
        claim = await taken(store, claim_of())

        async def owe() -> None:
            async with store.effect() as effect:
                await effect.transaction.execute(ADD)
                await effect.transaction.execute("INSERT INTO debts VALUES ('nobody')")
                assert await effect.complete(claim, None)

        with pytest.raises(psycopg.errors.ForeignKeyViolation):
            await owe()
        assert credit(postgres_url) == 0
        assert [record.state for record in await store.records("job")] == [State.RUNNING]
        await run(store, claim)
        assert credit(postgres_url) == 5
