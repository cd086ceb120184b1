"""The daily digest from its tick to the mails: every subscriber is asked for once, whatever is doubled or killed."""

from __future__ import annotations

import asyncio
import uuid
from collections import Counter
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest

from penstock import AsyncPublisher, Done, Duplicate, Snoozed
from penstock.claims import StoreUrl
from penstock.connect import store_for
from penstock.testing.broker_node import BrokerInfo
from penstock_jobs import DAILY_DIGEST, DailyDigest
from services.mailer.app import build
from services.mailer.command import migrate
from tests.support.brokers import manage
from tests.support.mail_server import mail_server
from tests.support.outboxes import came, connect, relaying, rows, unpublished
from tests.support.processes import WorkerProcess
from tests.support.waiting import eventually
from tests.support.working import Watched, declare, empty, working

DAY = date(2026, 8, 3)
TICK = DAILY_DIGEST.new(DailyDigest(date=DAY), id="schedule:daily-digest:2026-08-03T05:00:00Z")
BY_HAND = DAILY_DIGEST.new(DailyDigest(date=DAY), id="by-hand")


@pytest.fixture(scope="module")
def url(broker: BrokerInfo) -> Iterator[str]:
    """A virtual host in which digests have a queue of their own."""
    name = f"digest-{uuid.uuid4().hex[:12]}"
    manage(broker, "PUT", f"/api/vhosts/{name}")
    asyncio.run(declare(broker.url_for(name), "queues: {email: [email.*], digest: [digest.*]}"))
    yield broker.url_for(name)
    manage(broker, "DELETE", f"/api/vhosts/{name}")


async def with_subscribers(place: str, count: int, *, gone: int, without_address: int = 0) -> None:
    """A list of *count* subscribers at *place*; the last *gone* of them have left."""
    await migrate(StoreUrl.parse(place))
    mark = "?" if place.startswith("sqlite") else "%s"
    people: list[tuple[str, str, str | None]] = []
    people += [(f"reader-{n}@example.org", f"Reader {n}", None) for n in range(1, count - gone + 1)]
    people += [(f"gone-{n}@example.org", f"Gone {n}", "2026-08-01 00:00:00Z") for n in range(gone)]
    people += [(f"nowhere {n}", f"Nowhere {n}", None) for n in range(without_address)]
    connection = connect(place)
    connection.cursor().executemany(
        f"INSERT INTO mailer_subscribers (email, name, unsubscribed_at) VALUES ({mark}, {mark}, {mark})", people
    )
    connection.commit()
    connection.close()


def asked_for(place: str) -> Counter[str]:
    """The ids of the mails that were ever added to the outbox."""
    return Counter(job_id for (job_id,) in rows(place, "SELECT job_id FROM penstock_outbox WHERE kind = 'email.send'"))


def ends(watched: Watched) -> Counter[type]:
    """The last word on deliveries, by its type; a wait for a run elsewhere is none."""
    return Counter(type(event.outcome) for event in watched.finished if not isinstance(event.outcome, Snoozed))


@pytest.mark.timeout(180)
async def test_a_doubled_tick_and_killed_workers_ask_for_each_of_two_thousand_mails_once(
    url: str, effect_store_url: str, tmp_path: Path
) -> None:
    await empty(url, "jobs.email", "jobs.digest")
    await with_subscribers(effect_store_url, 2000, gone=50)
    settings = {"PENSTOCK_STORE_URL": effect_store_url, "PENSTOCK_STORE_LEASE": "3"}
    module = {"module": "tests.support.service_apps", "factory": "digests"}
    async with relaying(url, effect_store_url), AsyncPublisher(url) as publisher:
        await publisher.publish_many([TICK, TICK])
        for failpoint in ("before-commit=kill@3", "committed=kill@4"):
            doomed = WorkerProcess(url, tmp_path, **module, **settings, PENSTOCK_FAILPOINTS=failpoint)
            await doomed.start()
            assert await doomed.ended(within=60) < 0, "it was killed in the middle"
            assert 0 < len(asked_for(effect_store_url)) < 1950
        worker = WorkerProcess(url, tmp_path, **module, **settings)
        await worker.start()
        try:
            await eventually(lambda: len(asked_for(effect_store_url)) == 1950, within=30)
            await eventually(lambda: unpublished(effect_store_url) == 0, within=30)
        finally:
            await worker.kill()
    expected = [f"digest:2026-08-03:{number}" for number in range(1, 1951)]
    assert asked_for(effect_store_url) == dict.fromkeys(expected, 1)
    assert sorted(await came(url)) == sorted(expected)


async def test_a_digest_reaches_every_subscriber_once_and_nobody_who_has_left(
    url: str, effect_store_url: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    await empty(url, "jobs.email", "jobs.digest")
    await with_subscribers(effect_store_url, 12, gone=3, without_address=1)
    monkeypatch.setenv("PENSTOCK_STORE_URL", effect_store_url)
    monkeypatch.setenv("MAILER_DIGEST_PAGE", "4")
    readers = [f"reader-{n}@example.org" for n in range(1, 10)]
    async with mail_server() as server:
        monkeypatch.setenv("MAILER_SMTP_URL", server.url)
        async with (
            build() as mailer,
            relaying(url, effect_store_url),
            working(url, mailer.handlers, queue="digest", store=store_for(effect_store_url)) as digests,
            working(url, mailer.handlers, store=store_for(effect_store_url)) as mails,
            AsyncPublisher(url) as publisher,
        ):
            await publisher.publish_many([TICK, TICK, BY_HAND])
            await eventually(lambda: ends(mails) == {Done: 9, Duplicate: 4}, within=20)
            await eventually(lambda: ends(digests) == {Done: 4, Duplicate: 2}, within=20)
    assert sorted(str(message["To"]) for message in server.mails) == readers
    assert server.mails[0]["Subject"] == "Your digest for Monday, 3 August 2026"
    assert {event.attempt for event in digests.finished} == {1}


async def test_tables_may_be_made_by_several_at_once(effect_store_url: str) -> None:
    await asyncio.gather(*(migrate(StoreUrl.parse(effect_store_url)) for _ in range(8)))
    assert rows(effect_store_url, "SELECT count(*) FROM mailer_subscribers") == [(0,)]
