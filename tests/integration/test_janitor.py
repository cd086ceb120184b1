"""The janitor as a worker: killed in the middle of a purge, told to do what it may not, asked twice for the same."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from penstock import AsyncPublisher, Done, Duplicate, NewJob, Results
from penstock.connect import store_for
from penstock.events import JobFinished
from penstock.testing.broker_node import BrokerInfo
from penstock_jobs import PURGE_EXPIRED, PurgeExpired
from services.janitor.app import build
from tests.support.brokers import manage
from tests.support.expiring import RULES, things, with_things
from tests.support.outboxes import migrated
from tests.support.processes import WorkerProcess, worker_process
from tests.support.waiting import eventually
from tests.support.working import declare, empty, foreign, take, working

PATIENCE = timedelta(seconds=40)


@pytest.fixture(scope="module")
def vhost_of_janitors(broker: BrokerInfo) -> Iterator[str]:
    """A virtual host with a queue for housekeeping."""
    name = f"janitor-{uuid.uuid4().hex[:12]}"
    manage(broker, "PUT", f"/api/vhosts/{name}")
    asyncio.run(declare(broker.url_for(name), "queues: {maintenance: [maintenance.*]}"))
    yield broker.url_for(name)
    manage(broker, "DELETE", f"/api/vhosts/{name}")


@pytest.fixture
async def url(vhost_of_janitors: str) -> str:
    """That virtual host, with empty queues."""
    await empty(vhost_of_janitors, "jobs.maintenance", "jobs.maintenance.dead")
    return vhost_of_janitors


@pytest.fixture
async def place(effect_store_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a database that janitors of this test purge, by rules of its own."""
    rules = tmp_path / "rules.yaml"
    rules.write_text(RULES)
    monkeypatch.setenv("JANITOR_RULES", str(rules))
    monkeypatch.setenv("PENSTOCK_STORE_URL", effect_store_url)
    monkeypatch.setenv("PENSTOCK_STORE_LEASE", "3")
    return await migrated(effect_store_url)


def a_purge(job_id: str, **args: object) -> NewJob[PurgeExpired]:
    return PURGE_EXPIRED.new(PurgeExpired.model_validate(args), id=job_id)


async def test_what_a_killed_janitor_had_not_deleted_the_next_one_does(url: str, place: str, tmp_path: Path) -> None:
    with_things(place, old=6000, fresh=10)
    janitor = {"module": "tests.support.service_apps", "factory": "janitor"}
    async with AsyncPublisher(url) as publisher:
        await publisher.publish_many([a_purge("purge", batch=50)])
    doomed = WorkerProcess(url, tmp_path, **janitor)
    await doomed.start()
    try:
        await eventually(lambda: things(place).get("old", 0) < 6000, within=20)
    finally:
        await doomed.kill()
    left = things(place)["old"]
    assert left > 0, "it was killed in the middle"
    async with worker_process(url, tmp_path, **janitor), Results(place) as results:
        result = await results.wait("purge", timeout=PATIENCE)
    assert things(place) == {"fresh": 10}
    assert result.value == {"deleted": {"things": left, "marks": 0}, "unfinished": [], "absent": []}


async def test_a_doubled_tick_purges_once_and_its_result_is_kept(url: str, place: str) -> None:
    with_things(place, old=5, fresh=1)
    tick = "schedule:purge-expired:2026-08-03T00:30:00Z"
    async with (
        working(url, build().handlers, queue="maintenance", store=store_for(place)) as watched,
        AsyncPublisher(url) as publisher,
        Results(place) as results,
    ):
        for count in (1, 2):
            await publisher.publish_many([a_purge(tick)])
            await watched.until(JobFinished, count)
        result = await results.get(tick)
    assert [type(event.outcome) for event in watched.finished] == [Done, Duplicate]
    assert result is not None
    assert result.value["deleted"] == {"things": 5, "marks": 0}
    assert things(place) == {"fresh": 1}


async def test_a_table_without_a_rule_is_a_dead_letter_and_nothing_is_deleted(url: str, place: str) -> None:
    with_things(place, old=5)
    async with (
        working(url, build().handlers, queue="maintenance", store=store_for(place)) as watched,
        AsyncPublisher(url) as publisher,
        foreign(url) as channel,
    ):
        await publisher.publish_many([a_purge("greedy", only=["things", "credit_accounts"])])
        await watched.until(JobFinished)
        letter = await take(channel, "jobs.maintenance.dead")
    assert letter.headers["penstock-reason"] == "rejected"
    assert letter.headers["penstock-error"] == "no rule for credit_accounts; there are things, marks"
    assert things(place) == {"old": 5}
