"""What the PostgreSQL store promises beyond every store: in outages, behind locks, to handlers on its connection."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import psycopg
import pytest

from penstock.claims import Mark, State, StoreUrl, Verdict
from penstock.errors import ConfigError, PenstockError, StoreUnavailable
from penstock.stores.postgres import PostgresStore
from penstock.stores.postgres_effects import PostgresEffect
from tests.conformance.store_steps import claim_of, ended, taken, verdict_of
from tests.support.accounts import ADD, BRIEFLY, credit, opened, run, run_blocking
from tests.support.postgres import PrivatePostgres, StartPostgres
from tests.support.waiting import eventually

# --- the way to the server ------------------------------------------------------------------------------------------


async def refusal(url: str) -> PenstockError:
    """What opening a store at *url* fails with."""
    with pytest.raises(PenstockError) as raised:
        await PostgresStore(StoreUrl.parse(url)).open()
    assert str(raised.value).startswith("postgresql://127.0.0.1:")
    assert "hunter2" not in str(raised.value)
    assert "\n" not in str(raised.value)
    return raised.value


async def test_what_is_refused_for_good_is_named_and_what_may_pass_is_the_stores_absence(
    postgres_server: PrivatePostgres,
) -> None:
    port, at = postgres_server.port, f"postgres:hunter2@127.0.0.1:{postgres_server.port}"
    postgres_server.execute("CREATE ROLE crowd LOGIN CONNECTION LIMIT 0")
    unknown = await refusal(f"postgresql://nobody:hunter2@127.0.0.1:{port}/postgres")
    assert isinstance(unknown, ConfigError)
    assert str(unknown).endswith('role "nobody" does not exist')
    elsewhere = await refusal(f"postgresql://{at}/nowhere")
    assert isinstance(elsewhere, ConfigError)
    assert str(elsewhere).endswith('database "nowhere" does not exist')
    crowded = await refusal(f"postgresql://crowd:hunter2@127.0.0.1:{port}/postgres")
    assert isinstance(crowded, StoreUnavailable)
    assert str(crowded).endswith('too many connections for role "crowd"')
    closed = await refusal("postgresql://postgres:hunter2@127.0.0.1:1/postgres")
    assert isinstance(closed, StoreUnavailable)
    assert str(closed) == "postgresql://127.0.0.1:1/postgres: Connection refused"


async def test_a_wrong_password_is_refused_for_good(own_postgres: StartPostgres) -> None:
    server = own_postgres()
    server.execute("CREATE ROLE ada LOGIN PASSWORD 'right'")
    server.ask_for_password("ada")
    wrong = await refusal(f"postgresql://ada:hunter2@127.0.0.1:{server.port}/postgres")
    assert isinstance(wrong, ConfigError)
    assert str(wrong).endswith('password authentication failed for user "ada"')
    assert isinstance(await refusal(f"postgresql://ada@127.0.0.1:{server.port}/postgres"), ConfigError)


async def test_a_user_who_may_not_look_into_the_schema_is_told_so(
    postgres_url: str, postgres_server: PrivatePostgres
) -> None:
    await PostgresStore(StoreUrl.parse(postgres_url)).migrate()
    postgres_server.execute("CREATE ROLE outsider LOGIN")
    try:
        with psycopg.connect(postgres_url, autocommit=True) as owner:
            owner.execute("REVOKE USAGE ON SCHEMA public FROM PUBLIC")
        found = await refusal(postgres_url.replace("postgres@", "outsider@"))
        assert isinstance(found, ConfigError)
        assert "no penstock tables: run penstock store migrate, or grant USAGE" in str(found)
    finally:
        postgres_server.execute("DROP ROLE outsider")


@pytest.mark.parametrize("option", ["nonsense=1", "sslmode=never", "options=-cnonsense%3D1"])
async def test_an_option_that_means_nothing_is_refused_for_good(postgres_url: str, option: str) -> None:
    with pytest.raises(ConfigError) as raised:
        await PostgresStore(StoreUrl.parse(f"{postgres_url}?{option}")).open()
    assert "hunter2" not in str(raised.value)


async def test_options_of_the_url_hold_beside_the_stores_own(postgres_url: str) -> None:
    url = f"{postgres_url}?application_name=credits&options=-cwork_mem%3D5MB"
    async with opened(url) as store, store.effect() as effect:
        said = await effect.transaction.execute(
            """SELECT current_setting('application_name'), current_setting('work_mem'),
                current_setting('idle_in_transaction_session_timeout')"""
        )
        assert said.fetchall() == [("credits", "5MB", "15min")]


# --- outages --------------------------------------------------------------------------------------------------------


async def test_a_server_that_came_back_is_used_again_without_one_failed_call(own_postgres: StartPostgres) -> None:
    server = own_postgres()
    async with opened(server.url()) as store:
        done = await ended(store, claim_of("done"), State.DONE, b"1")
        await run(store, await taken(store, claim_of("effect")))
        await asyncio.to_thread(run_blocking, store, await taken(store, claim_of("thread")))
        server.kill()
        server.start()
        [answer] = await store.claim([claim_of("done", copy=1)])
        assert (answer.verdict, answer.result) == (Verdict.DONE, b"1")
        assert await store.mark([Mark(done, State.DONE, b"1")]) == [True]
        await run(store, await taken(store, claim_of("another effect")))
        await asyncio.to_thread(run_blocking, store, await taken(store, claim_of("another thread")))
        assert credit(server.url()) == 20
        assert [record.state for record in await store.records("effect")] == [State.DONE]


async def test_a_server_that_is_away_is_the_stores_absence_whatever_is_asked(own_postgres: StartPostgres) -> None:
    server = own_postgres()
    async with opened(server.url()) as store:
        claim = await taken(store, claim_of())
        server.stop()
        questions: list[Callable[[], object]] = [
            store.ping,
            store.status,
            store.migrate,
            store.production_problems,
            lambda: store.claim([claim]),
            lambda: store.mark([Mark(claim, State.DONE)]),
            lambda: store.renew([claim]),
            lambda: store.release([claim]),
            lambda: store.expire(0, 10),
            lambda: store.records("job"),
            lambda: store.forget("job"),
            lambda: run(store, claim),
            lambda: asyncio.to_thread(run_blocking, store, claim),
        ]
        for question in questions:
            with pytest.raises(StoreUnavailable, match=r"^postgresql://127\.0\.0\.1:\d+/postgres: "):
                await question()  # type: ignore[misc] # coroutines of every result
        server.start()
        await store.ping()
        await run(store, claim)
        assert credit(server.url()) == 5


async def test_a_server_that_crashes_in_an_effect_leaves_nothing_of_it_and_is_not_the_handlers_failure(
    own_postgres: StartPostgres,
) -> None:
    server = own_postgres()
    async with opened(server.url()) as store:

        async def by_facade() -> None:
            async with store.effect() as effect:
                await effect.transaction.execute(ADD)
                server.kill()
                await effect.transaction.execute(ADD)

        async def by_connection() -> None:
            async with store.effect() as effect:
                await effect.transaction.connection.execute(ADD)
                server.kill()
                await effect.transaction.connection.execute(ADD)

        async def in_commit() -> None:
            claim = await taken(store, claim_of())
            async with store.effect() as effect:
                await effect.transaction.execute(ADD)
                server.kill()
                await effect.complete(claim, None)

        def in_thread() -> None:
            with store.blocking_effect() as effect:
                effect.transaction.connection.execute(ADD)
                server.kill()
                effect.transaction.connection.execute(ADD)

        for broken in (by_facade, by_connection, in_commit, lambda: asyncio.to_thread(in_thread)):
            with pytest.raises(StoreUnavailable):
                await broken()
            server.start()
            assert credit(server.url()) == 0
        await store.forget("job")
        await run(store, await taken(store, claim_of()))
        await asyncio.to_thread(run_blocking, store, await taken(store, claim_of("another")))
        assert credit(server.url()) == 10


async def test_a_claim_that_a_crash_of_the_server_forgot_takes_its_token_along(own_postgres: StartPostgres) -> None:
    server = own_postgres()
    async with opened(server.url()) as store:
        claims = [await taken(store, claim_of(f"job {number}")) for number in range(20)]
        server.kill()
        server.start()
        for claim in claims:
            kept = bool(await store.records(claim.job_id))
            async with store.effect() as effect:
                assert await effect.complete(claim, None) is kept
            assert await store.renew([claim]) == [False]
            assert bool(await store.records(claim.job_id)) is kept


async def test_a_server_that_hangs_is_given_up_in_time_wherever_an_effect_is(own_postgres: StartPostgres) -> None:
    server = own_postgres()
    async with opened(server.url(), patience=timedelta(seconds=6)) as store:
        claim, waiting, frozen = await taken(store, claim_of()), asyncio.Semaphore(0), threading.Event()

        async def hang_before(end: Callable[[PostgresEffect], Awaitable[object]]) -> None:
            async with store.effect() as effect:
                waiting.release()
                await asyncio.to_thread(frozen.wait, 20)
                await end(effect)

        def hang_in_thread(loop: asyncio.AbstractEventLoop) -> None:
            with store.blocking_effect() as effect:
                loop.call_soon_threadsafe(waiting.release)
                frozen.wait(20)
                effect.complete(claim, None)

        async def hang_before_claim() -> None:
            waiting.release()
            await asyncio.to_thread(frozen.wait, 20)
            await store.claim([claim])

        hangs = [
            asyncio.create_task(hang_before(lambda effect: effect.complete(claim, None))),
            asyncio.create_task(hang_before(lambda _: asyncio.sleep(0))),  # the commit
            asyncio.create_task(asyncio.to_thread(hang_in_thread, asyncio.get_running_loop())),
            asyncio.create_task(hang_before_claim()),
        ]
        for _ in hangs:
            await waiting.acquire()
        with server.frozen():
            frozen.set()
            errors = await asyncio.gather(*hangs, return_exceptions=True)
        assert [str(error).rpartition(": ")[2] for error in errors] == ["no answer in time"] * 4
        assert {type(error) for error in errors} == {StoreUnavailable}
        await store.ping()


async def test_marks_and_effects_that_were_answered_survive_a_crash_of_the_server(own_postgres: StartPostgres) -> None:
    server = own_postgres()
    async with opened(server.url()) as store:
        await ended(store, claim_of("marked"), State.MOVED)
        await run(store, await taken(store, claim_of("effect")))
        server.kill()
        server.start()
        assert [record.state for record in await store.records("marked")] == [State.MOVED]
        assert [record.state for record in await store.records("effect")] == [State.DONE]
        assert credit(server.url()) == 5


async def test_a_server_that_takes_no_writes_is_away(postgres_url: str, postgres_server: PrivatePostgres) -> None:
    async with opened(postgres_url) as store:
        await store.ping()
        name = postgres_url.rpartition("/")[2]
        postgres_server.execute(f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    await store.open()
    with pytest.raises(StoreUnavailable, match="takes no writes"):
        await store.ping()
    with pytest.raises(StoreUnavailable, match="read-only"):
        await store.claim([claim_of()])
    await store.close()


@pytest.mark.parametrize("state", ["57014", "55P03", "40P01", "40001", "42501", "23505"])
async def test_what_a_handlers_statement_is_refused_for_is_the_handlers_to_know(postgres_url: str, state: str) -> None:
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'refused' USING ERRCODE = '{state}'; END $$"
    async with opened(postgres_url) as store:
        with pytest.raises(psycopg.Error, match="refused") as raised:
            async with store.effect() as effect:
                await effect.transaction.execute(statement)
        assert raised.value.sqlstate == state


@pytest.mark.parametrize("state", ["53100", "53200", "58030", "57P03", "08006"])
async def test_a_full_disk_and_its_like_are_the_stores_absence_in_a_handlers_statement_too(
    postgres_url: str, state: str
) -> None:
    statement = f"DO $$ BEGIN RAISE EXCEPTION 'could not extend file' USING ERRCODE = '{state}'; END $$"
    async with opened(postgres_url) as store:
        with pytest.raises(StoreUnavailable, match="could not extend file"):
            async with store.effect() as effect:
                await effect.transaction.execute(statement)
        with pytest.raises(StoreUnavailable, match="could not extend file"), store.blocking_effect() as blocking:
            blocking.transaction.execute(statement)


async def test_more_effects_than_connections_wait_for_one_and_no_longer_than_they_may(postgres_url: str) -> None:
    async with opened(postgres_url, connections=1) as store:
        # For a connection alone, not for every answer of a busy machine.
        store._effects._patience = store._blocking_effects._patience = BRIEFLY
        claim = await taken(store, claim_of())
        async with store.effect():
            with pytest.raises(StoreUnavailable, match="all 1 connections were in use"):
                await run(store, claim)
        await run(store, claim)
        other = await taken(store, claim_of("other"))
        with store.blocking_effect(), pytest.raises(StoreUnavailable, match="all 1 connections were in use"):
            await asyncio.to_thread(run_blocking, store, other)
        await asyncio.to_thread(run_blocking, store, other)


async def test_production_is_told_of_a_server_that_does_not_write_to_the_disk(
    own_postgres: StartPostgres,
) -> None:
    proper = own_postgres(fsync="on")
    async with opened(proper.url()) as store:
        assert await store.production_problems() == []
    hasty = own_postgres(synchronous_commit="off")
    async with opened(hasty.url()) as store:
        problems = await store.production_problems()
    assert [problem.partition("/postgres: ")[2].partition(":")[0] for problem in problems] == [
        "fsync is off",
        "synchronous_commit is off",
    ]


# --- locks ----------------------------------------------------------------------------------------------------------


@contextmanager
def locked(url: str, job_id: str) -> Iterator[psycopg.Connection[tuple[object, ...]]]:
    """The record of *job_id* held by a transaction, as by a worker that stopped between its mark and its commit."""
    with psycopg.connect(url) as outside:
        outside.execute("UPDATE penstock_records SET state = 'done' WHERE job_id = %s", (job_id,))
        yield outside
        outside.rollback()


async def test_a_record_that_a_stopped_worker_holds_is_waited_for_by_its_own_job_alone(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        for job_id in ("held", "held too", "expired"):
            await store.release([await taken(store, claim_of(job_id))])
        await ended(store, claim_of("done"), State.DONE)
        jobs = ["held", "new", "expired", "held too", "done"]
        with locked(postgres_url, "held"), locked(postgres_url, "held too"), locked(postgres_url, "done"):
            answers = await store.claim([claim_of(job_id) for job_id in jobs])
        soon, fresh = Verdict.RUNNING, Verdict.FRESH
        assert [answer.verdict for answer in answers] == [soon, fresh, fresh, soon, Verdict.DONE]
        [record] = await store.records("new")
        assert answers[0].until - record.claimed < 5_000
        assert await verdict_of(store, claim_of("held")) is Verdict.FRESH


async def test_a_claim_waits_for_a_commit_that_is_under_way_and_is_told_what_it_left(postgres_url: str) -> None:
    # Longer than by default, so that it is seen to wait.
    async with opened(f"{postgres_url}?options=-clock_timeout%3D30s") as store:
        held = await taken(store, claim_of())
        await store.release([held])
        with locked(postgres_url, "job") as outside:
            asking = asyncio.create_task(verdict_of(store, claim_of()))
            await eventually(lambda: _waits_for_a_lock(postgres_url))
            outside.commit()
            assert await asking is Verdict.DONE


def _waits_for_a_lock(url: str) -> bool:
    with psycopg.connect(url) as outside:
        waiting = "SELECT 1 FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE 'INSERT INTO penstock%'"
        return outside.execute(waiting).fetchone() is not None


async def test_expiry_passes_over_a_record_that_is_locked(postgres_url: str) -> None:
    async with opened(postgres_url) as store:
        for job_id in ("held", "old"):
            await ended(store, claim_of(job_id), State.MOVED)
        with locked(postgres_url, "held"):
            assert await store.expire(2**60, 10) == 1
        assert await store.expire(2**60, 10) == 1
