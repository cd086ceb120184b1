"""The outbox on real servers: what is committed is published, in order, and nothing else ever is."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager, closing, suppress
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row

from penstock import (
    AsyncPublisher,
    ConfigError,
    Handlers,
    Job,
    JobKind,
    Receipt,
    RetryPolicy,
    SchemaError,
    TooLarge,
    Transaction,
    UsageError,
    outbox,
)
from penstock.connect import outbox_for, store_for
from penstock.events import JobFinished, Relayed, RelayParked, RelayPutOff
from penstock.stores.outbox_sqlite import SqliteOutbox
from penstock.storing import EffectStore
from tests.support.commands import penstock
from tests.support.outboxes import (
    BACK_ENDS,
    MAIL,
    NOWHERE,
    OTHER,
    Mail,
    add_all,
    came,
    connect,
    migrated,
    relaying,
    rows,
    unpublished,
)
from tests.support.waiting import eventually
from tests.support.working import LEVELS, depth, empty, foreign, take, working

SECOND = timedelta(seconds=1)


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email", "jobs.north", "jobs.south", "jobs.unrouted", *LEVELS)


@pytest.fixture(params=BACK_ENDS)
async def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store with its tables, on either back end."""
    where: str = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return await migrated(where or f"sqlite:///{tmp_path}/store.db")


Adder = Callable[..., Any]
Way = Callable[[str], AbstractAsyncContextManager[Adder]]


class Undone(Exception):
    """Rolls a transaction back."""


@asynccontextmanager
async def in_a_handler(url: str) -> AsyncIterator[Adder]:
    """The transaction that an ``async def`` handler gets."""
    store = store_for(url)
    assert isinstance(store, EffectStore)
    await store.open()
    try:
        async with store.effect() as effect:
            yield lambda *args, **options: outbox.add(effect.transaction, *args, **options)
    finally:
        await store.close()


@asynccontextmanager
async def in_a_def_handler(url: str) -> AsyncIterator[Adder]:
    """The transaction that a ``def`` handler gets."""
    store = store_for(url)
    assert isinstance(store, EffectStore)
    await store.open()
    try:
        with store.blocking_effect() as effect:
            yield lambda *args, **options: outbox.add(effect.transaction, *args, **options)
    finally:
        await store.close()


@asynccontextmanager
async def on_a_connection(url: str) -> AsyncIterator[Adder]:
    """The caller's own blocking connection, used as its driver teaches."""
    connection = connect(url)
    with closing(connection), connection:
        yield lambda *args, **options: outbox.add(connection, *args, **options)


@asynccontextmanager
async def on_an_async_connection(url: str) -> AsyncIterator[Adder]:
    """The caller's own psycopg connection on an event loop."""
    async with await psycopg.AsyncConnection.connect(url) as connection:
        yield lambda *args, **options: outbox.add(connection, *args, **options)


@asynccontextmanager
async def on_an_unusual_blocking_connection(url: str) -> AsyncIterator[Adder]:
    """As the next, without an event loop."""
    options: Any = {"row_factory": dict_row, "cursor_factory": psycopg.RawCursor, "autocommit": True}
    with psycopg.connect(url, **options) as connection, connection.transaction():
        yield lambda *args, **options: outbox.add(connection, *args, **options)


@asynccontextmanager
async def on_an_unusual_connection(url: str) -> AsyncIterator[Adder]:
    """One whose rows and placeholders are others than usual, and whose transaction is a block."""
    options: Any = {"row_factory": dict_row, "cursor_factory": psycopg.AsyncRawCursor, "autocommit": True}
    async with await psycopg.AsyncConnection.connect(url, **options) as connection, connection.transaction():
        yield lambda *args, **options: outbox.add(connection, *args, **options)


WAYS = [
    *((back_end, way) for way in (in_a_handler, in_a_def_handler, on_a_connection) for back_end in BACK_ENDS),
    ("postgresql", on_an_async_connection),
    ("postgresql", on_an_unusual_connection),
    ("postgresql", on_an_unusual_blocking_connection),
]
EVERY_WAY = pytest.mark.parametrize(
    ("store_url", "way"), WAYS, indirect=["store_url"], ids=[f"{back_end}-{way.__name__}" for back_end, way in WAYS]
)


async def added(answer: Any) -> Receipt:
    """The receipt, awaited where that is the way."""
    return answer if isinstance(answer, Receipt) else await answer


@EVERY_WAY
async def test_what_is_committed_is_published_and_what_is_rolled_back_never(url: str, store_url: str, way: Way) -> None:
    async with relaying(url, store_url) as relay:
        with suppress(Undone):
            async with way(store_url) as add:
                await added(add(MAIL, Mail(1), id="undone"))
                raise Undone
        async with way(store_url) as add:
            receipt = await added(
                add(MAIL, Mail(2), correlation_id="order-7", app_id="shop", expires=timedelta(hours=1))
            )
        await relay.until(Relayed)
    async with foreign(url) as channel:
        message = await take(channel, "jobs.email")
    assert (message.message_id, message.routing_key, message.body) == (receipt.id, "email.send", b'{"n":2,"text":""}')
    assert (message.correlation_id, message.app_id) == ("order-7", "shop")
    assert int(str(message.headers["penstock-expires"])) > datetime.now(UTC).timestamp() * 1000
    assert await came(url) == []
    assert unpublished(store_url) == 0


async def test_a_job_and_the_row_beside_it_are_committed_or_rolled_back_together(url: str, store_url: str) -> None:
    with closing(connect(store_url)) as connection:
        connection.execute("CREATE TABLE orders (id integer)")
        connection.commit()
        for number, end in ((7, connection.rollback), (8, connection.commit)):
            connection.execute(f"INSERT INTO orders VALUES ({number})")
            outbox.add(connection, MAIL, Mail(number), id=f"order-{number}")
            end()
    async with relaying(url, store_url) as relay:
        await relay.until(Relayed)
    assert rows(store_url, "SELECT id FROM orders") == [(8,)]
    assert await came(url) == ["order-8"]


@dataclass
class Refused:
    """Arguments of ``outbox.add`` that cannot be meant."""

    error: type[Exception]
    kind: JobKind[Any] = MAIL
    args: Any = None
    options: dict[str, Any] | None = None


REFUSED = {
    "arguments of another kind": Refused(SchemaError, args={"n": 1}),
    "too large": Refused(TooLarge, args=Mail(1, "x" * 1024 * 1024)),
    "a negative delay": Refused(UsageError, options={"delay": -SECOND}),
    "a delay beyond the longest": Refused(UsageError, options={"delay": timedelta(days=200)}),
    "an instant without a zone": Refused(UsageError, options={"at": datetime(2030, 1, 1)}),
    "delay and at": Refused(UsageError, options={"delay": SECOND, "at": datetime.now(UTC)}),
    "an empty id": Refused(UsageError, options={"id": ""}),
    "an id that no database holds": Refused(UsageError, options={"id": "zero\0"}),
    "an id that is no text": Refused(UsageError, options={"id": "\ud800"}),
    "a name that AMQP cannot carry": Refused(UsageError, options={"app_id": "x" * 256}),
}


@pytest.mark.parametrize("what", REFUSED)
async def test_what_cannot_be_published_is_refused_before_anything_is_written(store_url: str, what: str) -> None:
    refused = REFUSED[what]
    with closing(connect(store_url)) as connection:
        with pytest.raises(refused.error):
            outbox.add(connection, refused.kind, refused.args or Mail(1), **(refused.options or {}))
        connection.commit()
    assert unpublished(store_url) == 0


def test_a_connection_that_commits_by_itself_is_refused_outside_of_a_transaction(
    postgres_url: str, tmp_path: Path
) -> None:
    with (
        closing(sqlite3.connect(tmp_path / "store.db", isolation_level=None)) as file,
        psycopg.connect(postgres_url, autocommit=True) as connection,
    ):
        for autocommitting in (file, connection):
            with pytest.raises(UsageError, match="begin a transaction first"):
                outbox.add(autocommitting, MAIL, Mail(1))


@pytest.mark.parametrize("wrong", [None, "tx", psycopg])
def test_what_is_no_transaction_is_refused(wrong: Any) -> None:
    with pytest.raises(UsageError, match="is no transaction"):
        outbox.add(wrong, MAIL, Mail(1))


async def test_a_database_without_the_tables_says_what_to_do(postgres_url: str, tmp_path: Path) -> None:
    for where in (postgres_url, f"sqlite:///{tmp_path}/empty.db"):
        with closing(connect(where)) as connection, pytest.raises(ConfigError, match="penstock store migrate"):
            outbox.add(connection, MAIL, Mail(1))


async def test_what_a_handler_adds_is_published_once_however_often_its_own_job_comes(url: str, store_url: str) -> None:
    await empty(url, "jobs.report")
    report, handlers = JobKind("report.made", Mail), Handlers()

    @handlers.on(MAIL, once="effect", retry=RetryPolicy(first=SECOND))
    async def mail(job: Job[Mail], tx: Transaction) -> None:
        await outbox.add(tx, report, job.args, id=f"report of {job.id}, attempt {job.attempt}")
        if job.attempt == 1:
            raise OSError("after adding")

    async with (
        AsyncPublisher(url) as publisher,
        working(url, handlers, store=store_for(store_url)) as watched,
        relaying(url, store_url) as relay,
    ):
        for _ in range(3):
            await publisher.publish(MAIL, Mail(1), id="one")
        await watched.until(JobFinished, 4)
        await relay.until(Relayed)
        await eventually(lambda: unpublished(store_url) == 0)
    assert await came(url, "jobs.report") == ["report of one, attempt 2"]


async def test_jobs_of_a_kind_come_in_the_order_in_which_they_were_added(url: str, store_url: str) -> None:
    wanted = [*add_all(store_url, MAIL, range(1300)), *add_all(store_url, MAIL, range(1300, 2600))]
    other = add_all(store_url, OTHER, range(50))
    async with relaying(url, store_url):
        await eventually(lambda: unpublished(store_url) == 0, within=20)
    ids = await came(url)
    assert [job_id for job_id in ids if job_id.startswith("email.send")] == wanted
    assert [job_id for job_id in ids if job_id.startswith("email.other")] == other


async def test_a_transaction_that_commits_late_is_not_passed_over(url: str, postgres_url: str) -> None:
    """Its row has the lower number, and is seen only when one of a higher number is published already."""
    store_url = await migrated(postgres_url)
    async with relaying(url, store_url) as relay:
        with closing(connect(store_url)) as slow:
            outbox.add(slow, MAIL, Mail(1), id="slow")
            add_all(store_url, MAIL, [2])
            await relay.until(Relayed)
            assert await came(url) == ["email.send-2"]
            slow.commit()
        await relay.until(Relayed, 2)
    assert await came(url) == ["slow"]


async def test_a_delay_counts_from_the_adding(url: str, store_url: str) -> None:
    with closing(connect(store_url)) as connection:
        outbox.add(connection, MAIL, Mail(1), id="later", delay=timedelta(hours=1))
        outbox.add(connection, MAIL, Mail(2), id="due", at=datetime.now(UTC) + timedelta(milliseconds=1))
        connection.commit()
    async with relaying(url, store_url):
        await eventually(lambda: unpublished(store_url) == 0)
    assert await came(url) == ["due"]
    assert await depth(url, "jobs.delay.11-34m") == 1
    await empty(url, "jobs.delay.11-34m")


async def test_a_job_that_no_queue_takes_is_parked_and_seen_while_the_others_pass(url: str, store_url: str) -> None:
    ids = [*add_all(store_url, NOWHERE, [1]), *add_all(store_url, MAIL, [2])]
    async with relaying(url, store_url) as relay:
        [parked] = await relay.until(RelayParked)
        await relay.until(Relayed)
        assert (parked.kind, parked.id) == ("nowhere.send", ids[0])
        assert "no queue is bound" in parked.reason
        [listed] = await relay.box.parked(10)
        assert (listed.job_id, listed.reason) == (ids[0], parked.reason)
        assert await came(url) == ids[1:]

        async with foreign(url) as channel:
            queue = await channel.declare_queue("mended", auto_delete=True)
            await queue.bind("jobs", "nowhere.*")
            assert penstock("outbox", "retry", ids[0], PENSTOCK_STORE_URL=store_url).out == "1 jobs wait again\n"
            assert (await take(channel, "mended")).message_id == ids[0]
            await queue.delete(if_empty=False, if_unused=False)


GARBAGE = (
    "('email.send', '', 'x', NULL)",
    "('email.send', 'due', 'x', 9000000000000000000)",
    f"('email.send', '{'i' * 300}', 'x', NULL)",
    f"('{'k' * 300}', 'kind', 'x', NULL)",
    "('', 'no-kind', 'x', NULL)",
    f"('email.send', 'bulk', '{'x' * 1_100_000}', NULL)",
)


async def test_rows_written_by_hand_are_published_or_parked_and_block_nobody(url: str, store_url: str) -> None:
    with closing(connect(store_url)) as connection:
        for values in (*GARBAGE, """('email.send', 'by-hand', '{"n": 1}', NULL)"""):
            connection.execute(
                "INSERT INTO penstock_outbox (created, kind, job_id, body, due) SELECT 1, v.* FROM "
                + (f"(VALUES {values}) AS v" if store_url.startswith("sqlite") else _typed(values))
            )
        connection.commit()
    async with relaying(url, store_url) as relay:
        await relay.until(RelayParked, len(GARBAGE))
        await relay.until(Relayed)
        backlog = await relay.box.backlog()
    assert await came(url) == ["by-hand"]
    assert sum(kind.parked for kind in backlog) == len(GARBAGE)
    assert sum(kind.waiting for kind in backlog) == 0


def _typed(values: str) -> str:
    return f"(SELECT a, b, convert_to(c, 'UTF8'), d::bigint FROM (VALUES {values}) AS w (a, b, c, d)) AS v"


async def test_a_kind_whose_queue_is_full_waits_while_the_others_pass(url: str, store_url: str) -> None:
    full: Any = {"x-max-length": 1, "x-overflow": "reject-publish"}
    kind = JobKind("full.send", Mail)
    async with foreign(url) as channel:
        queue = await channel.declare_queue("full", arguments=full)
        try:
            await queue.bind("jobs", "full.*")
            ids = add_all(store_url, kind, range(3))
            async with relaying(url, store_url) as relay:
                refusal = (await relay.until(RelayPutOff))[0]
                assert (refusal.kind, refusal.count) == ("full.send", 2)
                mail = add_all(store_url, MAIL, [1])
                await eventually(lambda: unpublished(store_url) == 2)
                assert await came(url) == mail
                await relay.until(RelayPutOff, 2)
                taken = [(await take(channel, "full")).message_id for _ in ids]
            assert sorted(map(str, taken)) == ids, "one that was refused may come after a later one"
        finally:
            await queue.delete(if_empty=False, if_unused=False)


async def test_a_commit_wakes_the_relays_of_postgresql(postgres_url: str) -> None:
    store_url = await migrated(postgres_url)
    box = outbox_for(store_url)
    box.poll = 60.0
    await box.open()
    listening = """SELECT pid FROM pg_stat_activity
        WHERE query LIKE 'LISTEN%' AND state = 'idle' AND datname = current_database()"""
    heard = asyncio.create_task(box.news())
    try:
        await eventually(lambda: rows(store_url, listening))
        add_all(store_url, MAIL, [1])
        async with asyncio.timeout(30):
            await heard
    finally:
        heard.cancel()
        await asyncio.wait([heard])
        await box.close()


async def test_a_relay_takes_no_more_than_it_can_hold(store_url: str) -> None:
    with closing(connect(store_url)) as connection:
        for n in range(20):
            outbox.add(connection, MAIL, Mail(n, "x" * 1_000_000))
        connection.commit()
    box = outbox_for(store_url)
    await box.open()
    assert await box.waiting() == ["email.send"]
    async with box.take("email.send", 1000) as taken:
        assert taken is not None
        assert [row.row for row in taken.rows] == list(range(1, 18))
    await box.close()


async def test_a_kind_is_held_by_one_relay_at_a_time_and_let_go_unmarked(store_url: str) -> None:
    add_all(store_url, MAIL, [1])
    one, two = outbox_for(store_url), outbox_for(store_url)
    for box in (one, two):
        if isinstance(box, SqliteOutbox):
            box._lease = timedelta(minutes=1)  # longer than a busy machine leaves its renewal out
        await box.open()
        assert await box.waiting() == ["email.send"]
    async with one.take("email.send", 10) as held:
        assert held is not None
        async with two.take("email.send", 10) as refused:
            assert refused is None
    async with two.take("email.send", 10) as taken:
        assert taken is not None
        assert [row.job_id for row in taken.rows] == ["email.send-1"]
    for box in (one, two):
        await box.close()


async def test_only_what_was_published_is_forgotten_in_its_time(url: str, store_url: str) -> None:
    add_all(store_url, MAIL, range(5))
    async with relaying(url, store_url) as relay:
        await relay.until(Relayed)
        add_all(store_url, NOWHERE, [1])
        await relay.until(RelayParked)
        later = int(datetime.now(UTC).timestamp() * 1000) + 1000
        assert await relay.box.expire(later - 3_600_000, 100) == 0
        assert [await relay.box.expire(later, 3) for _ in range(3)] == [3, 2, 0]
    assert rows(store_url, "SELECT kind FROM penstock_outbox") == [("nowhere.send",)]
