"""The store goes away, is slow, is full: no effect without its mark, no attempt burnt, no dead letter, nothing lost."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

import psycopg
import pytest

from penstock import AsyncPublisher, Handlers, Job, JobKind, Transaction
from penstock.claiming import StoreTerms
from penstock.connect import store_for
from penstock.events import JobFinished, StoreAnswered, StoreLost
from penstock.outcome import Done, Duplicate, Snoozed
from tests.support.full_disk import disk_of
from tests.support.once_apps import INSERT, Credit, ledger, with_a_ledger
from tests.support.postgres import PrivatePostgres, StartPostgres
from tests.support.waiting import eventually
from tests.support.working import LEVELS, Watched, depth, empty, working

pytestmark = pytest.mark.timeout(90)

CREDIT = JobKind("email.credit", Credit)
TERMS = StoreTerms(lease=timedelta(seconds=3))


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", "jobs.email.dead", *LEVELS)


def handlers_of(add: object) -> Handlers:
    """Handlers with *add* for the credits."""
    handlers = Handlers()
    handlers.on(CREDIT, once="effect")(add)  # type: ignore[call-overload] # any handler of the right shape
    return handlers


async def add(job: Job[Credit], tx: Transaction) -> None:
    """The effect."""
    await tx.execute(INSERT, (job.id, job.args.user, job.args.amount))


async def publish(url: str, *ids: str) -> None:
    """Publish credits under *ids*."""
    async with AsyncPublisher(url) as publisher:
        await publisher.publish_many([CREDIT.new(Credit(1, 1), id=job_id) for job_id in ids])


def done(watched: Watched) -> Counter[str]:
    """The jobs that are done, each with how often."""
    return Counter(event.id for event in watched.finished if isinstance(event.outcome, Done))


def known_as_done(watched: Watched) -> set[str]:
    """The jobs that are done: said by their run, or by the store when the answer to a commit was lost in a crash."""
    return {event.id for event in watched.finished if isinstance(event.outcome, Done | Duplicate)}


async def all_done(watched: Watched, ids: list[str]) -> None:
    """Wait until *ids* and no others are done; one that is not tells what became of it so far."""
    try:
        await eventually(lambda: known_as_done(watched) == set(ids), within=40)
    except AssertionError:
        left = set(ids) - known_as_done(watched)
        told = {job: [repr(event.outcome) for event in watched.finished if event.id == job] for job in left}
        raise AssertionError(f"not done after 40 s: {told}") from None


def burnt(watched: Watched) -> set[int]:
    """The attempts that were made."""
    return {event.attempt for event in watched.of(JobFinished)}


async def test_a_store_that_is_killed_and_comes_back_costs_no_attempt_and_no_job(
    url: str, own_postgres: StartPostgres
) -> None:
    server = own_postgres()
    store = await with_a_ledger(server.new_database())
    ids = [f"job-{n}" for n in range(60)]
    async with working(url, handlers_of(add), store=store_for(store), terms=TERMS) as watched:
        await publish(url, *ids[:30])
        await watched.until(JobFinished, 5)
        server.kill()
        await publish(url, *ids[30:])
        await watched.until(StoreLost)
        assert await depth(url, "jobs.email.dead") == 0
        server.start()
        await watched.until(StoreAnswered, within=20)
        await all_done(watched, ids)
        assert burnt(watched) == {1}
        assert await depth(url, "jobs.email.dead") == 0
    assert await ledger(store) == Counter(ids)


async def test_a_commit_whose_answer_was_lost_in_the_crash_is_known_afterwards(
    url: str, own_postgres: StartPostgres
) -> None:
    server = own_postgres()
    store = await with_a_ledger(server.new_database())
    async with working(url, handlers_of(add), store=store_for(store), terms=TERMS) as watched:
        await publish(url, "first")
        await all_done(watched, ["first"])
        # Commits are on the disk, and wait for a standby that there is not before they are answered.
        configure(server, "SET synchronous_standby_names = 'nobody'")
        ids = ["first"]
        while not unanswered_commits(store):  # it takes the server a moment to know of its settings
            ids.append(f"committed-{len(ids)}")
            await publish(url, ids[-1])
            await eventually(lambda: unanswered_commits(store) or len(watched.finished) == len(ids))
        server.kill()
        server.start()
        configure(server, "RESET synchronous_standby_names")
        await all_done(watched, ids)
        outcomes = [type(event.outcome) for event in watched.finished]
        assert outcomes == [*[Done] * (len(ids) - 1), Snoozed, Duplicate]
        assert burnt(watched) == {1}
        assert await depth(url, "jobs.email.dead") == 0
    assert await ledger(store) == Counter(ids)


async def test_a_store_that_fails_for_a_reason_of_its_own_is_away(url: str, postgres_url: str) -> None:
    store = await with_a_ledger(postgres_url)
    async with working(url, handlers_of(add), store=store_for(store), terms=TERMS) as watched:
        with psycopg.connect(store, autocommit=True) as outside:
            outside.execute("""CREATE FUNCTION fail() RETURNS trigger LANGUAGE plpgsql
                AS $$ BEGIN RAISE 'could not read block 7' USING ERRCODE = 'XX001'; END $$""")
            outside.execute("CREATE TRIGGER fail BEFORE INSERT ON penstock_records EXECUTE FUNCTION fail()")
            await publish(url, "kept")
            await watched.until(StoreLost, 2)
            outside.execute("DROP TRIGGER fail ON penstock_records")
        await all_done(watched, ["kept"])
        assert burnt(watched) == {1}
        assert await depth(url, "jobs.email.dead") == 0
    assert await ledger(store) == Counter(["kept"])


def configure(server: PrivatePostgres, change: str) -> None:
    """Make *change* to the settings of *server*, which keeps it when it starts again."""
    server.execute(f"ALTER SYSTEM {change}")
    server.execute("SELECT pg_reload_conf()")


def unanswered_commits(store: str) -> int:
    """How many commits wait for a standby."""
    with psycopg.connect(store, autocommit=True) as outside:
        [[count]] = outside.execute("SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'").fetchall()
    return int(count)


async def test_nothing_is_consumed_while_the_store_is_away(url: str, own_postgres: StartPostgres) -> None:
    server = own_postgres()
    store = await with_a_ledger(server.new_database())
    async with working(url, handlers_of(add), store=store_for(store), terms=TERMS) as watched:
        server.stop()
        await publish(url, "first")
        await watched.until(StoreLost)
        await eventually(lambda: depth(url, "jobs.email"), within=20)  # it comes back, and waits
        await publish(url, "second")
        assert await depth(url, "jobs.email") == 2
        assert not done(watched)
        server.start()
        await eventually(lambda: done(watched).keys() == {"first", "second"}, within=30)
    assert await ledger(store) == Counter(["first", "second"])


async def test_a_store_that_dies_in_the_middle_of_an_effect_takes_the_effect_along(
    url: str, own_postgres: StartPostgres
) -> None:
    server = own_postgres()
    store = await with_a_ledger(server.new_database())
    wrote, go_on = asyncio.Event(), asyncio.Event()

    async def waits(job: Job[Credit], tx: Transaction) -> None:
        await add(job, tx)
        wrote.set()
        await go_on.wait()

    async with working(url, handlers_of(waits), store=store_for(store), terms=TERMS) as watched:
        await publish(url, "cut")
        await asyncio.wait_for(wrote.wait(), 10)
        server.kill()
        go_on.set()
        (first,) = await watched.until(JobFinished)
        assert isinstance(first.outcome, Snoozed)
        server.start()
        await eventually(lambda: done(watched).keys() == {"cut"}, within=30)
        assert burnt(watched) == {1}
    assert await ledger(store) == Counter(["cut"])


async def test_a_store_that_answers_late_is_waited_for(url: str, own_postgres: StartPostgres) -> None:
    server = own_postgres()
    store = await with_a_ledger(server.new_database())
    async with working(url, handlers_of(add), store=store_for(store), terms=TERMS) as watched:
        with server.frozen():
            await publish(url, "late")
            await eventually(lambda: not_ready(url), within=10)
            assert not watched.finished
        await eventually(lambda: done(watched).keys() == {"late"}, within=20)
        assert not watched.of(StoreLost)
    assert await ledger(store) == Counter(["late"])


async def not_ready(url: str) -> bool:
    """Whether the queue's one job has been delivered."""
    return await depth(url, "jobs.email") == 0


async def test_a_full_disk_stops_effects_and_loses_none(url: str, tmp_path: Path) -> None:
    store = await with_a_ledger(f"sqlite:///{tmp_path}/store.db")
    ids = [f"job-{n}" for n in range(40)]
    async with working(url, handlers_of(add), store=store_for(store), terms=TERMS) as watched:
        with disk_of((tmp_path / "store.db-wal").stat().st_size):
            await publish(url, *ids)
            await watched.until(StoreLost)
        await watched.until(StoreAnswered, within=20)
        await all_done(watched, ids)
        assert burnt(watched) == {1}
    assert await ledger(store) == Counter(ids)
