"""The workbench killed with SIGKILL at each of its steps: no letter is lost, and the next run ends the work."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path

import pytest

from penstock.connect import broker_for
from penstock.dead_letters import DeadLetters
from penstock.letter_moves import WINDOW
from penstock.letters import DeadLetter
from tests.integration.conftest import Fragile
from tests.support.commands import penstock
from tests.support.letters import AUDIT, DEAD, WORK, audit, bury, dead, lying, told
from tests.support.waiting import eventually
from tests.support.working import depth, empty, foreign, take_all

EMAIL = ("--queue", "email")


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, WORK, DEAD, AUDIT, "jobs.unrouted")


async def test_killed_at_any_step_nothing_is_lost_and_the_next_run_ends_it(url: str, tmp_path: Path) -> None:
    ids = await bury(url, 4)
    file = str(tmp_path / "letters.ndjson")
    assert (await dead(url, "export", *EMAIL, "--output", file)).code == 0
    replay, discard = ("replay", *EMAIL, "1", "3"), ("discard", *EMAIL, "2", "--because", "test")
    edit, put_back = ("edit", "0", *EMAIL, "--args", '{"n": 7}', "--no-check"), ("import", file)

    for place, words in (
        ("letters-named", replay),
        ("letter-confirmed", replay),
        ("letter-confirmed", discard),
        ("letter-confirmed", edit),
    ):
        await killed(url, place, words)
        await eventually(lambda: _at_least(url, len(ids)), within=20)
    # An original leaves when its ack comes, and no process lived to send one; the edited one stands beside its own.
    assert sorted(letter["id"] for letter in await told(url, "list", *EMAIL)) == ["0", *ids]
    assert Counter(entry["action"] for entry in await audit(url)) == {"export": 1, "replay": 2, "discard": 1, "edit": 1}

    for words in (replay, discard):
        assert (await dead(url, *words)).code == 0
    async with foreign(url) as channel:
        jobs = await take_all(channel, WORK)
    assert {job.message_id for job in jobs} == {"1", "3"}
    assert len(jobs) <= 4, "doubled at most what was under way"
    assert {job.headers["penstock-copy"] for job in jobs} == {1}, "by which the double is known"

    await killed(url, "letters-named", put_back)
    assert await told(url, *put_back) == {"imported": 3, "there": 1, "failed": []}
    assert sorted(map(str, await lying(url))) == ["0", *ids], "put back once each, however often it was begun"


async def killed(url: str, place: str, words: tuple[str, ...]) -> None:
    """Run ``penstock dead`` in a process that dies at *place*."""
    failpoints = {"RABBITMQ_URL": url, "PENSTOCK_FAILPOINTS": f"{place}=kill"}
    done = await asyncio.to_thread(penstock, "dead", *words, **failpoints)
    assert done.code == -9, done.err


async def _at_least(url: str, count: int) -> bool:
    return await depth(url, DEAD) >= count


async def test_a_broker_killed_under_a_replay_stops_it_with_a_reason_and_loses_nothing(fragile: Fragile) -> None:
    url = fragile.url
    await empty(url, WORK, DEAD, AUDIT)
    ids = await bury(url, 2_000)
    killing: list[asyncio.Future[None]] = []

    def kill_once(_: DeadLetter) -> None:
        if not killing:
            fragile.kill()  # here and now: a thread might come to it when all is done
            killing.append(asyncio.ensure_future(asyncio.to_thread(fragile.start)))

    async with DeadLetters(broker_for(url)) as letters:
        result = await letters.replay(DEAD, each=kill_once)
    await killing[0]
    assert result.stopped is not None
    assert "Traceback" not in str(result.stopped)
    assert 0 < result.done < len(ids)
    # A node that has just started counts the messages of a queue as 0 until that has its leader.
    await eventually(lambda: _at_least(url, len(ids) - result.done), within=30)
    assert (await told(url, "replay", *EMAIL))["replayed"] >= len(ids) - result.done
    copies = Counter(await lying(url, WORK))
    assert set(copies) == set(ids), "lost"
    # Under way, or done and the broker did not live to keep the ack.
    assert copies.total() - len(ids) <= 2 * WINDOW
    assert await depth(url, DEAD) == 0
