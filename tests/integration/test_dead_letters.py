"""Dead letters on a real broker: looking moves nothing, a replay loses nothing, whoever is killed and when."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections import Counter
from typing import Any

import orjson
import pytest
from aio_pika.abc import AbstractIncomingMessage

from penstock.connect import broker_for
from penstock.dead_letters import DeadLetters
from penstock.letter_moves import WINDOW
from penstock.letters import Filter
from tests.support.commands import penstock
from tests.support.letters import DEAD, WORK, bury, lying
from tests.support.waiting import eventually
from tests.support.working import depth, empty, foreign, put, take, take_all


@pytest.fixture(autouse=True)
async def nothing_waits(url: str) -> None:
    """Every test finds empty queues."""
    await empty(url, WORK, DEAD, "jobs.unrouted")


def ours(job: AbstractIncomingMessage) -> dict[str, Any]:
    """The headers but the broker's own, the history, and the number by which returns are matched."""
    left_out = ("x-", "penstock-seq", "penstock-history")
    return {name: value for name, value in job.headers.items() if not name.startswith(left_out)}


def dead_letters(url: str) -> DeadLetters:
    return DeadLetters(broker_for(url))


async def test_looking_fifty_times_eats_and_reorders_nothing(url: str) -> None:
    ids = await bury(url, 120)
    async with dead_letters(url) as dead:
        for turn in range(50):
            limit = None if turn % 2 else 7
            found = await dead.letters(DEAD, limit=limit)
            assert [letter.id for letter in found] == ids[:limit]
    assert await lying(url) == ids


async def test_a_long_queue_keeps_its_order_through_limits_and_filters(url: str) -> None:
    """Far more than one prefetch window and than the 32 commands a queue's client holds back."""
    ids = await bury(url, 3000)
    async with dead_letters(url) as dead:
        even = Filter(kind="email.even")
        assert [letter.id for letter in await dead.letters(DEAD, even)] == ids[::2]
        assert [letter.id for letter in await dead.letters(DEAD, limit=20)] == ids[:20]
        assert (await dead.discard(DEAD, Filter(kind="email.odd"), limit=700, because="odd")).done == 700
        left = [job_id for job_id in ids if not int(job_id) % 2 or int(job_id) > 1400]
        assert [letter.id for letter in await dead.letters(DEAD, limit=20)] == left[:20]
    assert await lying(url) == left


async def test_a_replay_sends_each_job_back_fresh_to_the_queue_it_died_in(url: str) -> None:
    await bury(url, 3, **{"penstock-copy": 6, "penstock-traceback": "long", "x-mine": "gone", "tenant": "acme"})
    async with dead_letters(url) as dead:
        result = await dead.replay(DEAD)
    assert (result.done, result.stayed, result.stopped) == (3, [], None)
    async with foreign(url) as channel:
        job = await take(channel, WORK)
    assert (job.message_id, job.type, job.body) == ("0", "email.even", b'{"n":0}')
    [remembered] = job.headers["penstock-history"]  # type: ignore[misc, str-unpack]  # a list of texts
    assert " replayed by " in str(remembered)
    assert ours(job) == {"penstock-copy": 7, "penstock-replays": 1, "tenant": "acme"}
    assert "x-mine" not in job.headers
    assert await depth(url, DEAD) == 0


async def test_a_replay_takes_what_the_filter_takes_and_no_more_than_the_limit(url: str) -> None:
    ids = await bury(url, 40)
    async with dead_letters(url) as dead:
        result = await dead.replay(DEAD, Filter(kind="email.odd"), limit=5)
    assert result.done == 5
    assert await lying(url, WORK) == ids[1:10:2]
    assert await lying(url) == [job_id for job_id in ids if job_id not in ids[1:10:2]]


async def test_letters_that_die_again_are_not_met_twice_in_one_run(url: str) -> None:
    ids = await bury(url, 30)
    async with dead_letters(url) as dead:
        dying = asyncio.create_task(die_again(url, len(ids)))
        result = await dead.replay(DEAD, rate=100)
        await dying
    assert result.done == 30
    seen = Counter([*await lying(url), *await lying(url, WORK)])
    assert seen == Counter(ids)


async def die_again(url: str, jobs: int) -> None:
    """Bring every replayed job back to the dead letters at once."""
    async with foreign(url) as channel:
        for _ in range(jobs):
            job = await take(channel, WORK)
            await put(channel, WORK, job.body, "jobs.dead", message_id=job.message_id, headers={"again": True})


async def test_a_rate_is_kept(url: str) -> None:
    await bury(url, 11)
    loop = asyncio.get_running_loop()
    async with dead_letters(url) as dead:
        began = loop.time()
        assert (await dead.replay(DEAD, rate=20)).done == 11
    assert loop.time() - began >= 10 / 20


async def test_a_letter_that_the_broker_made_tells_its_story_and_runs_again(url: str) -> None:
    async with foreign(url) as channel:
        await put(channel, "email.lost", b'{"a": 1}', message_id="order-7")
        source = await channel.get_queue(WORK, ensure=False)
        for _ in range(21):
            await (await source.get(timeout=10)).reject(requeue=True)
    await eventually(lambda: _holds(url, DEAD, 1))
    async with dead_letters(url) as dead:
        [letter] = await dead.letters(DEAD)
        assert (letter.id, letter.kind, letter.reason) == ("order-7", "email.lost", "delivery-limit")
        assert (letter.work_queue, letter.message.headers["penstock-origin"]) == (WORK, "jobs email.lost")
        assert letter.died is not None
        await dead.replay(DEAD)
    async with foreign(url) as channel:
        job = await take(channel, WORK)
    assert (job.message_id, job.type) == ("order-7", "email.lost")
    assert ours(job) == {"penstock-copy": 1, "penstock-replays": 1, "penstock-origin": "jobs email.lost"}
    if "x-death" in job.headers:  # of the way through the cascade, if it says anything at all
        deaths: Any = job.headers["x-death"]
        assert all(death["queue"] != WORK for death in deaths)


async def _holds(url: str, queue: str, count: int) -> bool:
    return await depth(url, queue) == count


async def test_unrouted_jobs_are_replayed_by_kind_and_stay_while_nobody_takes_them(url: str) -> None:
    async with foreign(url) as channel:
        for kind in ("email.late", "emial.late"):
            await put(channel, f"{'0.' * 23}1.k.{kind}", b"{}", "jobs.delay", message_id=kind)
        await take(channel, WORK)
        await put(channel, f"{'0.' * 23}1.q.jobs.gone", b"{}", "jobs.delay", message_id="mended", type="email.mended")
    await eventually(lambda: _holds(url, "jobs.unrouted", 2), within=20)
    async with dead_letters(url) as dead:
        result = await dead.replay("jobs.unrouted")
        left = await dead.letters("jobs.unrouted")
    assert result.done == 1
    assert [job_id for job_id, _ in result.stayed] == ["emial.late"]
    assert [(letter.id, letter.reason) for letter in left] == [("emial.late", "unrouted")]
    assert await lying(url, WORK) == ["mended"]


async def test_a_replay_killed_in_the_middle_loses_nothing(url: str) -> None:
    ids = await bury(url, 1000)
    command = [sys.executable, "-m", "penstock", "dead", "replay", "--queue", "email", "--rate", "100"]
    for _ in range(2):
        before = await depth(url, WORK)
        replay = await asyncio.create_subprocess_exec(*command, env={"RABBITMQ_URL": url}, stdout=subprocess.DEVNULL)
        try:
            await eventually(lambda: _at_least(url, before + 40), within=30)  # noqa: B023 - awaited in its own turn
        finally:
            replay.kill()
            await replay.wait()
        await eventually(lambda: _everything(url, len(ids)), within=20)
    held: list[AbstractIncomingMessage] = []
    done = await asyncio.to_thread(penstock, "dead", "replay", "--queue", "email", "--json", RABBITMQ_URL=url)
    assert done.code == 0, done.err
    async with foreign(url) as channel:
        held += await take_all(channel, WORK)
    copies = Counter((job.message_id, job.headers["penstock-copy"]) for job in held)
    assert {job_id for job_id, _ in copies} == set(ids), "lost"
    assert {copy for _, copy in copies} == {1}, "a duplicate carries the same copy number, by which it is known"
    assert len(held) - len(ids) <= 2 * WINDOW, "no more doubled than were under way"
    assert await depth(url, DEAD) == 0


async def _at_least(url: str, count: int) -> bool:
    return await depth(url, WORK) >= count


async def _everything(url: str, count: int) -> bool:
    """Whether the broker has taken back what the killed process held."""
    return await depth(url, WORK) + await depth(url, DEAD) >= count


async def test_the_command_line_lists_shows_and_previews_and_changes_nothing(url: str) -> None:
    ids = await bury(url, 4, **{"penstock-error": "\x1b[2Jbad\nmail", "penstock-error-type": "app.BadAddress"})
    listed = await asyncio.to_thread(penstock, "dead", "list", "--queue", "email", RABBITMQ_URL=url)
    assert listed.code == 0
    assert listed.out.splitlines()[-1] == "4 dead letters"
    assert "email.even  0  exhausted  app.BadAddress: \\x1b[2Jbad\\nmail" in listed.out
    as_json = ("--queue", "email", "--json", "--kind", "email.odd", "--error-type", "BadAddress")
    found = orjson.loads((await asyncio.to_thread(penstock, "dead", "list", *as_json, RABBITMQ_URL=url)).out)
    assert [(letter["id"], letter["attempt"]) for letter in found] == [("1", 4), ("3", 4)]
    shown = await asyncio.to_thread(penstock, "dead", "show", "2", "--queue", "email", RABBITMQ_URL=url)
    assert '"n": 2' in shown.out
    assert "\x1b" not in shown.out
    for verb in ("replay", "discard"):
        words = ("dead", verb, "--queue", "email", "--dry-run", "--limit", "3", "--json")
        would = await asyncio.to_thread(penstock, *words, RABBITMQ_URL=url)
        assert orjson.loads(would.out) == {f"would_{verb}": ids[:3]}
    assert await lying(url) == ids


async def test_discard_throws_away_what_the_filter_takes_alone(url: str) -> None:
    ids = await bury(url, 6)
    words = ("dead", "discard", "--queue", "email", "--kind", "email.odd", "--because", "odd")
    discarded = await asyncio.to_thread(penstock, *words, RABBITMQ_URL=url)
    assert (discarded.code, discarded.out.splitlines()[-1]) == (0, "3 discarded, 0 stayed")
    assert await lying(url) == ids[::2]


async def test_foreign_letters_are_shown_whatever_they_hold(url: str) -> None:
    async with foreign(url) as channel:
        await put(
            channel, WORK, b"\xff\x00\x1b[2J" * 3000, "jobs.dead", message_id="odd\x07", headers={"n": [{"x": "\x07"}]}
        )
        await put(channel, WORK, b'{"big": 123456789012345678901234567890}', "jobs.dead", message_id="big")
    odd = await asyncio.to_thread(penstock, "dead", "show", "odd\x07", "--queue", "email", RABBITMQ_URL=url)
    assert odd.code == 0
    assert "bytes more" in odd.out
    assert odd.out.replace("\n", "").isprintable()
    big = await asyncio.to_thread(penstock, "dead", "show", "big", "--queue", "email", RABBITMQ_URL=url)
    assert "123456789012345678901234567890" in big.out
