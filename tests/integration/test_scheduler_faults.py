"""Schedulers whose broker takes the state back, whose cable is pulled, who die in mid-move or find their state gone."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import aio_pika
import httpx2
import pytest

from penstock.schedules.events import LeadershipLost, SchedulerStandsBy, SchedulesDue, Ticked
from penstock.schedules.model import Schedule
from penstock.schedules.state import State
from penstock.schedules.triggers import Every
from penstock.testing.free_ports import free_ports
from tests.integration.conftest import Fragile
from tests.support.once_apps import QUEUE, kinds, ledger, with_a_ledger
from tests.support.processes import worker_process
from tests.support.proxy import proxied
from tests.support.scheduler_process import scheduler, told
from tests.support.scheduling import Listed, Running, doubled, drain, no_gap, scheduling
from tests.support.waiting import eventually
from tests.support.working import LEVELS, at_rest, empty

#: Hand-overs take seconds by themselves, and so do nodes, their commands and worker processes on a busy machine.
pytestmark = pytest.mark.timeout(180)

#: The effect of a tick is a row in the database of the worker's store.
KIND = kinds("email")[0].name
SECONDLY = Schedule("secondly", KIND, Every(1), args={"user": 1, "amount": 5})
FILE = f"schedules: {{secondly: {{every: 1s, kind: {KIND}, args: {{user: 1, amount: 5}}}}}}\n"


@pytest.fixture(autouse=True)
async def _empty(url: str) -> None:
    await at_rest(url, "jobs.email", "jobs.report", "jobs.scheduler", "jobs.scheduler.view", *LEVELS)


@pytest.fixture
async def store_url(url: str, tmp_path: Path) -> AsyncIterator[str]:
    """The store of a worker process that has the effects."""
    store = await with_a_ledger(f"sqlite:///{tmp_path}/store.db")
    module = "tests.support.once_apps"
    async with worker_process(url, tmp_path, module=module, **{QUEUE: "email", "PENSTOCK_STORE_URL": store}):
        yield store


async def test_a_consumer_timeout_of_two_seconds_costs_leadership_once_and_no_tick(fragile: Fragile) -> None:
    await empty(fragile.url, "jobs.scheduler", "jobs.scheduler.view")
    rarely = Schedule("rarely", "email.tick", Every(4))
    with fragile.impatient():
        async with scheduling(fragile.url, Listed(rarely)) as running:
            [lost] = await running.until(LeadershipLost)
            assert "consumer timeout" in lost.reason
            await running.leads(2)
            async with asyncio.timeout(60):  # a machine that stands still for a second may lose it again
                while not await ticks_in_a_row(running, 2):
                    pass
    ids = await drain(fragile.url, "jobs.email")
    assert no_gap(ids, every=4)
    # A tick that was out and not written down when leadership was lost goes out again, under the same id.
    assert len(ids) - len(set(ids)) <= len(running.of(LeadershipLost))


async def ticks_in_a_row(running: Running, count: int) -> bool:
    """Whether the next *count* ticks come without a loss of leadership."""
    losses = len(running.of(LeadershipLost))
    await running.until(Ticked, len(running.of(Ticked)) + count)
    return len(running.of(LeadershipLost)) == losses


@pytest.mark.parametrize(
    ("heartbeat", "within"), [("?heartbeat=3", 15.0), pytest.param("?heartbeat=5", 15.0, marks=pytest.mark.matrix)]
)
async def test_a_leader_that_is_cut_off_is_followed_without_a_gap_or_a_second_effect(
    url: str, store_url: str, heartbeat: str, within: float
) -> None:
    async with proxied(url) as proxy, scheduling(proxy.url + heartbeat, Listed(SECONDLY)) as first:
        await first.until(Ticked, 2)
        async with scheduling(url + heartbeat, Listed(SECONDLY)) as second:
            await second.until(SchedulerStandsBy)
            proxy.cut_off = True
            since = time.monotonic()
            await second.leads()
            assert time.monotonic() - since < within
            await second.until(Ticked, 2)
            await first.until(LeadershipLost)
            proxy.cut_off = False
            await first.until(SchedulerStandsBy, 2)
            last = (await second.until(Ticked, len(second.of(Ticked)) + 1))[-1]
            assert not [event for event in first.of(Ticked) if event.instant >= last.instant]
        await one_effect_each(store_url, last.id)


@pytest.mark.parametrize(("place", "twice"), [("ticks-published", 1), ("state-written", 0)])
async def test_a_leader_that_dies_in_the_midst_of_its_move_doubles_a_message_but_no_effect(
    url: str, store_url: str, tmp_path: Path, place: str, twice: int
) -> None:
    file = tmp_path / "schedules.yaml"
    file.write_text(FILE)
    async with watched(url), scheduling(url, Listed(SECONDLY)) as second:
        await second.leads()
        with scheduler(url, file, 1, PENSTOCK_FAILPOINTS=f"{place}=kill@3") as (first, log):
            await eventually(lambda: told(log, "standing by") == 1, within=30)
            # Just after a move, or the second one would die in the midst of its own.
            await second.until(SchedulesDue, len(second.of(SchedulesDue)) + 1)
            second.broker.links[0].abort()  # type: ignore[attr-defined]
            await eventually(lambda: first.poll() is not None, within=30)
        await second.leads(2)
        [*_, last] = await second.until(Ticked, len(second.of(Ticked)) + 2)
        await one_effect_each(store_url, last.id)
        messages = Counter(await drain(url, "jobs.report"))
    assert no_gap(messages)
    assert sum(messages.values()) - len(messages) == twice


async def one_effect_each(store_url: str, last: str) -> None:
    """Every tick up to *last* had its effect, and none had two."""

    async def happened() -> bool:
        return last in await ledger(store_url)

    await eventually(happened, within=20)
    effects = await ledger(store_url)
    assert no_gap(effects)
    assert not doubled(effects)


@asynccontextmanager
async def watched(url: str) -> AsyncIterator[None]:
    """Every message of the schedule's kind lies in jobs.report too."""
    async with await aio_pika.connect(url) as connection:
        queue = await (await connection.channel()).get_queue("jobs.report", ensure=False)
        await queue.bind("jobs", KIND)
        try:
            yield
        finally:
            await queue.unbind("jobs", KIND)


async def test_a_state_that_was_purged_is_told_where_alerts_look_and_nothing_is_made_up_for(
    url: str, tmp_path: Path
) -> None:
    file, [port] = tmp_path / "schedules.yaml", free_ports(1)
    file.write_text("schedules: {hourly: {every: 1h, kind: email.tick, catch_up: all}}\n")
    long_ago = int(time.time()) - 10 * 3600
    before = State(7, long_ago, 3, "another", long_ago * 1000)
    async with await aio_pika.connect(url) as connection:
        channel = await connection.channel()
        exchange = await channel.get_exchange("jobs.scheduler", ensure=False)
        await exchange.publish(aio_pika.Message(before.encode(), type="state"), "state")
        await (await channel.get_queue("jobs.scheduler", ensure=False)).purge()
    with scheduler(url, file, 1, PENSTOCK_METRICS_PORT=str(port)) as (process, log):
        await eventually(lambda: told(log, '"event":"leading"') == 1, within=30)
        async with httpx2.AsyncClient() as client:
            page = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
        process.terminate()
        assert await asyncio.to_thread(process.wait, 15) == 0
    [at] = [line.split()[1] for line in page.splitlines() if line.startswith("penstock_schedule_state_lost_")]
    assert abs(float(at) - time.time()) < 60
    assert told(log, "no state of schedulers found: nothing is made up for") == 1
    assert await drain(url, "jobs.email") == []
