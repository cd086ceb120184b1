"""Relays killed, frozen and cut off at every step: nothing is lost, nothing is out of order, duplicates share an id."""

from __future__ import annotations

import asyncio
import signal
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

from penstock import JobKind
from penstock.events import LinkLost, Relayed, StoreAnswered, StoreLost
from penstock.testing.free_ports import free_ports
from tests.support.commands import penstock
from tests.support.outboxes import (
    BACK_ENDS,
    MAIL,
    Mail,
    RelayProcess,
    add_all,
    came,
    firsts,
    migrated,
    relay_processes,
    relaying,
    unpublished,
)
from tests.support.postgres import PrivatePostgres
from tests.support.proxy import proxied
from tests.support.waiting import eventually
from tests.support.working import depth, empty

FAILPOINTS = "PENSTOCK_FAILPOINTS"


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, "jobs.email")


@pytest.fixture(params=BACK_ENDS)
async def store_url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """A store with its tables, on either back end."""
    where: str = request.getfixturevalue("postgres_url") if request.param == "postgresql" else ""
    return await migrated(where or f"sqlite:///{tmp_path}/store.db")


@pytest.fixture
def start(url: str, store_url: str, tmp_path: Path) -> Callable[..., RelayProcess]:
    """Starts a relay process: ``start("name", PENSTOCK_FAILPOINTS=…)``."""
    return partial(RelayProcess, url, store_url, tmp_path)


async def everything_published(store_url: str) -> None:
    """Wait until no row waits."""
    await eventually(lambda: unpublished(store_url) == 0, within=40)


async def test_a_relay_killed_before_it_publishes_leaves_all_to_the_next(
    url: str, store_url: str, start: Callable[..., RelayProcess]
) -> None:
    ids = add_all(store_url, MAIL, range(1500))
    async with relay_processes(partial(start, **{FAILPOINTS: "outbox-taken=kill@2"})) as [doomed]:
        assert await doomed.ended() == -signal.SIGKILL
        assert await depth(url, "jobs.email") == 1000
        async with relay_processes(start):
            await everything_published(store_url)
    assert await came(url) == ids


async def test_a_relay_killed_before_it_marks_leaves_duplicates_under_the_same_ids_and_in_order(
    url: str, store_url: str, start: Callable[..., RelayProcess]
) -> None:
    ids = add_all(store_url, MAIL, range(1500))
    async with relay_processes(partial(start, **{FAILPOINTS: "outbox-published=kill"})) as [doomed]:
        assert await doomed.ended() == -signal.SIGKILL
        assert unpublished(store_url) == 1500
        async with relay_processes(start):
            await everything_published(store_url)
    taken = await came(url)
    assert firsts(taken) == ids
    assert Counter(Counter(taken).values()) == Counter({2: 1000, 1: 500})


async def test_two_relays_publish_every_job_once_and_each_kind_in_order(
    url: str, store_url: str, start: Callable[..., RelayProcess]
) -> None:
    kinds = [JobKind(f"email.kind{number}", Mail) for number in range(3)]

    def add(kind: JobKind[Mail]) -> list[str]:
        return [job_id for first in range(0, 600, 20) for job_id in add_all(store_url, kind, range(first, first + 20))]

    async with relay_processes(partial(start, "one"), partial(start, "two")) as both:
        await eventually(lambda: all(relay.said('"connected"') for relay in both), within=40)
        with ThreadPoolExecutor(len(kinds)) as threads:
            added = await asyncio.gather(
                *(asyncio.get_running_loop().run_in_executor(threads, add, kind) for kind in kinds)
            )
        await everything_published(store_url)
        for relay in both:
            relay.signal(signal.SIGTERM)
        assert [await relay.ended() for relay in both] == [0, 0]
    taken = await came(url)
    assert Counter(taken) == Counter(job_id for ids in added for job_id in ids)
    for kind, ids in zip(kinds, added, strict=True):
        assert [job_id for job_id in taken if job_id.startswith(kind.name)] == ids


async def test_a_frozen_relay_loses_its_kind_to_another_and_does_no_harm_when_it_thaws(
    url: str, store_url: str, tmp_path: Path
) -> None:
    ids = add_all(store_url, MAIL, range(50))
    # What takes a minute by default takes a second here.
    where = store_url + "?options=-c%20idle_in_transaction_session_timeout%3D1s" * store_url.startswith("postgresql")
    frozen = partial(RelayProcess, url, where, tmp_path, "frozen", **{FAILPOINTS: "outbox-taken=stop"})
    async with relay_processes(frozen) as [relay]:
        await eventually(lambda: relay.stopped, within=40)
        async with relay_processes(partial(RelayProcess, url, store_url, tmp_path, "other")):
            await everything_published(store_url)
        assert await came(url) == ids
        relay.signal(signal.SIGCONT)
        more = add_all(store_url, MAIL, range(50, 60))
        await everything_published(store_url)
        relay.signal(signal.SIGTERM)
        assert await relay.ended() == 0
    taken = await came(url)
    assert firsts(taken) == [*ids, *more], "what it had in hand comes again, under the same ids"


async def test_a_relay_that_is_told_to_stop_marks_all_that_it_has_published(
    url: str, store_url: str, start: Callable[..., RelayProcess]
) -> None:
    add_all(store_url, MAIL, range(5000))
    async with relay_processes(start) as [relay]:
        await eventually(lambda: unpublished(store_url) < 5000, within=40)
        relay.signal(signal.SIGTERM)
        assert await relay.ended() == 0
        assert len(await came(url)) == 5000 - unpublished(store_url)


async def test_jobs_wait_while_the_broker_is_away(url: str, store_url: str) -> None:
    async with proxied(url) as proxy, relaying(proxy.url, store_url) as relay:
        ids = add_all(store_url, MAIL, range(10))
        await relay.until(Relayed)
        proxy.refusing = True
        proxy.cut()
        await relay.until(LinkLost)
        ids += add_all(store_url, MAIL, range(10, 20))
        proxy.refusing = False
        await everything_published(store_url)
    assert await came(url) == ids


async def test_a_connection_cut_in_the_midst_of_batches_loses_nothing_and_keeps_the_order(
    url: str, store_url: str
) -> None:
    ids = add_all(store_url, MAIL, range(4000))
    async with proxied(url) as proxy, relaying(proxy.url, store_url) as relay:
        await relay.until(Relayed)
        proxy.cut()
        await everything_published(store_url)
        assert relay.of(LinkLost)
    assert firsts(await came(url)) == ids


async def test_a_relay_waits_for_its_database_and_tells_it_once(
    url: str, own_postgres: Callable[..., PrivatePostgres]
) -> None:
    server = own_postgres()
    store_url = await migrated(server.new_database())
    async with relaying(url, store_url) as relay:
        ids = add_all(store_url, MAIL, [1])
        await relay.until(Relayed)
        server.kill()
        await relay.until(StoreLost)
        server.start()
        await relay.until(StoreAnswered)
        ids += add_all(store_url, MAIL, [2])
        await relay.until(Relayed, 2)
        assert len(relay.of(StoreLost)) == 1
    assert await came(url) == ids


def test_failpoints_are_refused_in_production(url: str) -> None:
    settings = {"PENSTOCK_ENV": "production", FAILPOINTS: "outbox-taken=kill", "RABBITMQ_URL": url}
    done = penstock("outbox", "run", "--store-url", "sqlite:///x.db", **settings)
    assert done.code == 5
    assert FAILPOINTS in done.err


def test_a_relay_that_never_reaches_its_broker_or_its_store_ends_with_code_3(url: str, tmp_path: Path) -> None:
    [port] = free_ports(1)
    store_url = f"sqlite:///{tmp_path}/store.db"
    assert penstock("store", "migrate", PENSTOCK_STORE_URL=store_url).code == 0
    nowhere = f"postgresql://ada:hunter2@127.0.0.1:{port}/jobs"
    for broker, store in ((f"amqp://127.0.0.1:{port}", store_url), (url, nowhere)):
        settings = {"RABBITMQ_URL": broker, "PENSTOCK_STORE_URL": store, "PENSTOCK_CONNECT_TIMEOUT": "3"}
        done = penstock("outbox", "run", **settings)
        assert done.code == 3, done.err
        assert "cannot connect" in done.err
        assert "hunter2" not in done.err
