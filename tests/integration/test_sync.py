"""The sync from a tick to its items: no page is left out and none is pulled twice, whatever fails, doubles or dies."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from penstock import AsyncPublisher, Dead, Done, Duplicate, Retried, Snoozed
from penstock.claims import StoreUrl
from penstock.connect import store_for
from penstock.events import JobFinished
from penstock.service_tables import effect_store
from penstock_jobs import SYNC_PULL, SyncPull
from services.sync.app import build
from services.sync.command import main, migrate
from services.sync.ports import Page, Place
from services.sync.shelf import DatabaseShelf
from tests.support.api_server import Answer, ApiServer, api_server, in_json
from tests.support.outboxes import relaying, rows
from tests.support.processes import WorkerProcess
from tests.support.waiting import eventually
from tests.support.working import LEVELS, Watched, empty, foreign, take, working

ITEM = "{key: id, items: data, fields: {id: integer, status: text}, next: paging.after, parameter: after, url: '%s'}"
ORDERS = SYNC_PULL.new(SyncPull(source="orders"))
ALL_ITEMS = "SELECT source, item FROM sync_items ORDER BY source, CAST(item AS INTEGER)"
PLACES = "SELECT source, position FROM sync_sources ORDER BY source"


@pytest.fixture(name="server")
async def _server() -> AsyncIterator[ApiServer]:
    async with api_server() as server:
        yield server


@pytest.fixture(name="store_url")
async def _store_url(
    server: ApiServer, our_url: str, effect_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[str]:
    """A database with the sync's tables, where the server is two of its sources; nothing waits before or after."""
    (tmp_path / "sync.yaml").write_text(f"sources:\n  orders: {ITEM % server.url}\n  others: {ITEM % server.url}\n")
    monkeypatch.setenv("SYNC_SOURCES", str(tmp_path / "sync.yaml"))
    monkeypatch.setenv("PENSTOCK_STORE_URL", effect_store_url)
    await migrate(StoreUrl.parse(effect_store_url))
    await empty(our_url, "jobs.sync", "jobs.sync.dead", *LEVELS)
    yield effect_store_url
    await empty(our_url, "jobs.sync", "jobs.sync.dead", *LEVELS)


@asynccontextmanager
async def syncing(url: str, store_url: str, slots: int = 8) -> AsyncIterator[Watched]:
    """A sync that runs inside the test, with a relay."""
    async with (
        build() as sync,
        relaying(url, store_url),
        working(url, sync.handlers, queue="sync", slots=slots, store=store_for(store_url)) as watched,
    ):
        yield watched


def ids(count: int, source: str = "orders") -> list[tuple[str, str]]:
    """The rows of so many orders."""
    return [(source, str(number)) for number in range(1, count + 1)]


def done(watched: Watched) -> list[JobFinished]:
    """The jobs that came to their end so far."""
    return [event for event in watched.finished if not isinstance(event.outcome, Snoozed | Retried)]


async def test_doubled_ticks_and_a_killed_worker_pull_every_page_once(
    our_url: str, server: ApiServer, store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    server.fill(20)
    monkeypatch.setenv("PENSTOCK_STORE_LEASE", "3")
    module = {"module": "tests.support.service_apps", "factory": "sync"}
    async with AsyncPublisher(our_url) as publisher:
        await publisher.publish_many([ORDERS, SYNC_PULL.new(SyncPull(source="orders"))])
    # With a page that is kept, its next one asked for, and its job not marked as done.
    doomed = WorkerProcess(our_url, tmp_path, **module, PENSTOCK_FAILPOINTS="before-mark=kill@3")
    try:
        async with relaying(our_url, store_url):
            await doomed.start()
            assert await doomed.ended() < 0, "it was killed in the middle"
    finally:
        await doomed.kill()
    assert 0 < len(rows(store_url, ALL_ITEMS)) < 20
    async with syncing(our_url, store_url):
        await eventually(lambda: rows(store_url, PLACES) == [("orders", 7)], within=30)
    assert rows(store_url, ALL_ITEMS) == ids(20)
    asked = rows(store_url, "SELECT job_id FROM penstock_outbox ORDER BY job_id")
    assert asked == [(f"sync:orders:{position}",) for position in range(1, 7)]


async def test_a_tick_asks_for_every_source_and_the_next_one_only_for_what_is_new(
    our_url: str, server: ApiServer, store_url: str
) -> None:
    server.fill(4)
    async with syncing(our_url, store_url) as watched, AsyncPublisher(our_url) as publisher:
        await publisher.publish(SYNC_PULL, SyncPull(), id="tick-1")
        await eventually(lambda: len(done(watched)) == 5, within=20)
        assert rows(store_url, ALL_ITEMS) == [*ids(4), *ids(4, "others")]
        server.fill(1)
        await publisher.publish(SYNC_PULL, SyncPull(source="orders"))
        await eventually(lambda: len(done(watched)) == 6, within=20)
        server.requests.clear()
        await publisher.publish(SYNC_PULL, SyncPull(source="orders"))
        await eventually(lambda: len(done(watched)) == 7, within=20)
    assert [event.outcome for event in done(watched)][-2:] == [
        Done({"items": 2, "position": 3, "more": False}),
        Done({"unchanged": 3}),
    ]
    assert ("if-none-match" in server.requests[0].headers, len(server.requests)) == (True, 1)
    assert rows(store_url, ALL_ITEMS) == [*ids(5), *ids(4, "others")]


async def test_a_pause_is_kept_as_long_as_it_was_asked_for(our_url: str, server: ApiServer, store_url: str) -> None:
    server.fill(2)
    server.faults += [Answer(429, headers={"Retry-After": "2"})]
    async with syncing(our_url, store_url) as watched, AsyncPublisher(our_url) as publisher:
        await publisher.publish_many([ORDERS])
        await eventually(lambda: len(done(watched)) == 1, within=30)
    first, last = watched.finished[0], watched.finished[-1]
    assert isinstance(first.outcome, Retried)
    assert first.outcome.delay.total_seconds() == 2
    assert first.outcome.failure.text == f"http://{server.host}/orders answered 429 and asks to come again in 2 s"
    assert (last.attempt, last.outcome) == (2, Done({"items": 2, "position": 1, "more": False}))


async def test_an_open_breaker_costs_others_no_attempt_and_one_tries_whether_it_works_again(
    our_url: str, server: ApiServer, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_BREAKER_FAILURES", "1")
    monkeypatch.setenv("SYNC_BREAKER_COOLDOWN", "12")
    monkeypatch.setenv("SYNC_RETRY_FIRST", "1")
    server.fill(2)
    server.faults += [Answer(500)]
    other = SYNC_PULL.new(SyncPull(source="others"), id="spared")
    # One after the other: the second is there when the first has failed, however slow the machine is.
    async with syncing(our_url, store_url, slots=1) as watched, AsyncPublisher(our_url) as publisher:
        await publisher.publish_many([ORDERS, other])
        await eventually(lambda: len(done(watched)) == 2, within=50)
    spared = [event for event in watched.finished if event.id == "spared"]
    assert isinstance(spared[0].outcome, Snoozed)
    assert f"{server.host} is left alone: http://{server.host}/orders answered 500" in spared[0].outcome.note
    assert [event.attempt for event in spared] == [1] * len(spared)
    assert isinstance(spared[-1].outcome, Done)
    assert len(server.requests) == 3, "the one that failed, and one for each source"
    assert rows(store_url, ALL_ITEMS) == [*ids(2), *ids(2, "others")]


async def test_a_changed_schema_is_a_dead_letter_that_says_what_changed_and_nothing_is_left_out(
    our_url: str, server: ApiServer, store_url: str
) -> None:
    server.fill(4)
    changed = {"id": 4, "state": "new"}
    async with syncing(our_url, store_url) as watched, AsyncPublisher(our_url) as publisher:
        server.page = 2
        await publisher.publish_many([ORDERS])
        await eventually(lambda: rows(store_url, PLACES) != [], within=20)
        await eventually(lambda: len(done(watched)) == 2, within=20)
        server.fill(2)
        server.faults += [in_json({"data": [changed], "paging": {"after": None}})]
        await publisher.publish_many([SYNC_PULL.new(SyncPull(source="orders"))])
        await eventually(lambda: len(done(watched)) == 3, within=20)
        async with foreign(our_url) as channel:
            letter = await take(channel, "jobs.sync.dead")
        assert rows(store_url, ALL_ITEMS) == ids(4)
        await publisher.publish_many([SYNC_PULL.new(SyncPull(source="orders"))])
        await eventually(lambda: rows(store_url, ALL_ITEMS) == ids(6), within=20)
        await eventually(lambda: len(done(watched)) == 5, within=20)
    assert isinstance(watched.finished[-3].outcome, Dead)
    assert letter.headers["penstock-error"] == (
        "schema changed in 1 of 1 items: status is missing instead of text (1); new there: state"
    )


async def test_what_was_asked_for_twice_at_once_goes_on_once(our_url: str, server: ApiServer, store_url: str) -> None:
    server.fill(9)
    pulls = [SYNC_PULL.new(SyncPull(source="orders")) for _ in range(6)]
    late = SYNC_PULL.new(SyncPull(source="orders", position=1, page=2), id="sync:orders:1")
    async with syncing(our_url, store_url) as watched, AsyncPublisher(our_url) as publisher:
        await publisher.publish_many(pulls)
        await eventually(lambda: rows(store_url, ALL_ITEMS) == ids(9), within=30)
        await publisher.publish_many([late])
        # Other pulls, which had to wait, may end after it.
        await eventually(
            lambda: any(event.id == late.id and isinstance(event.outcome, Duplicate) for event in done(watched)),
            within=20,
        )
    asked = [job_id for (job_id,) in rows(store_url, "SELECT job_id FROM penstock_outbox")]
    assert len(asked) == len(set(asked)), "nobody asks for a page that somebody else asked for"


async def test_a_pull_ends_at_its_bound_and_the_next_goes_on(
    our_url: str, server: ApiServer, store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SYNC_MAX_PAGES", "2")
    server.fill(9)
    async with syncing(our_url, store_url) as watched, AsyncPublisher(our_url) as publisher:
        await publisher.publish_many([ORDERS])
        await eventually(lambda: len(done(watched)) == 2, within=20)
        assert rows(store_url, ALL_ITEMS) == ids(6)
        await publisher.publish_many([SYNC_PULL.new(SyncPull(source="orders"))])
        await eventually(lambda: rows(store_url, ALL_ITEMS) == ids(9), within=20)


async def test_a_source_that_is_not_there_is_a_dead_letter(our_url: str, store_url: str) -> None:
    async with syncing(our_url, store_url) as watched, AsyncPublisher(our_url) as publisher:
        await publisher.publish(SYNC_PULL, SyncPull(source="nowhere"))
        [event] = await watched.until(JobFinished)
    assert isinstance(event.outcome, Dead)
    assert event.outcome.failure.text == "there is no source nowhere in SYNC_SOURCES"


def test_the_command_makes_tables_shows_places_and_goes_back(
    effect_store_url: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def told(*words: str, code: int = 0) -> str:
        assert main(words) == code
        said = capsys.readouterr()
        return said.out + said.err

    monkeypatch.setenv("PENSTOCK_STORE_URL", effect_store_url)
    assert told("migrate").startswith("the sync's tables are ready in ")
    assert told("status") == "nothing was pulled yet\n"
    assert "source 'orders' was never pulled" in told("rewind", "orders", code=2)
    asyncio.run(_pulled(effect_store_url))
    assert told("status").startswith("orders: 1 items, 1 pages, last at 20")
    assert told("status").endswith(", next page 17\n")
    assert told("rewind", "orders") == "orders begins at its first page again\n"
    assert told("status").startswith("orders: 1 items, 2 pages, ")
    assert told("status").endswith(", next page the first\n")


async def _pulled(url: str) -> None:
    """Let one page of orders be kept."""
    async with DatabaseShelf(effect_store(StoreUrl.parse(url), "items")) as shelf:
        assert await shelf.keep("orders", Place(), Page({"1": "{}"}, "17"), number=None)
